"""docx and pptx made here with python-docx and python-pptx, and forged ones."""

import io
import re
import zipfile

import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, MissingExtraError
from ultrafast_rag.extract import zipped
from ultrafast_rag.extract.detect import open_extractor

docx = pytest.importorskip("docx")
pptx = pytest.importorskip("pptx")


def read(path, **options):
    return list(open_extractor(path, Config()).extract(path, **options))


def elements(path):
    return [(e.kind, e.level, e.text) for part in read(path) for e in part.elements]


def rewritten(path, change):
    """The file with `change(name, content)` for each member's content; None leaves the member out."""
    source = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    with source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            if (content := change(name, source.read(name))) is not None:
                target.writestr(name, content)
    return path


def pumps(tmp_path):
    document = docx.Document()
    document.core_properties.title = "The pump book"
    document.add_heading("Pumps", 1)
    document.add_paragraph("Some words.")
    table = document.add_table(3, 3)
    for row, cells in enumerate((("part", "torque", "note"), ("M8", "25 Nm", "dry"), ("M10", "50 Nm", ""))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    table.cell(1, 2).merge(table.cell(2, 2))
    document.add_heading("Small pumps", 2)
    document.save(tmp_path / "a.docx")
    return tmp_path / "a.docx"


PUMPS = [
    ("heading", 1, "Pumps"),
    ("text", 0, "Some words."),
    ("table", 0, "part | torque | note\nM8 | 25 Nm | dry\nM10 | 50 Nm | dry"),
    ("heading", 2, "Small pumps"),
]


def test_docx_gives_headings_paragraphs_and_tables_in_order(tmp_path):
    path = pumps(tmp_path)
    assert elements(path) == PUMPS
    assert read(path)[0].title == "The pump book"


def test_docx_headings_follow_styles_of_any_name_and_those_based_on_them(tmp_path):
    document = docx.Document()
    for name, base in (("Kop", "Heading 2"), ("Unterkop", "Kop")):
        document.styles.add_style(name, docx.enum.style.WD_STYLE_TYPE.PARAGRAPH).base_style = document.styles[base]
    document.add_paragraph("Deep", "Unterkop")
    document.add_paragraph("Whole", "Title")
    document.save(tmp_path / "a.docx")
    assert elements(tmp_path / "a.docx") == [("heading", 2, "Deep"), ("heading", 1, "Whole")]


def test_docx_keeps_insertions_and_controls_and_reads_a_text_box_once(tmp_path):
    document = docx.Document()
    paragraph = document.add_paragraph("kept ")
    w = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    box = "<w:r><w:t>boxed</w:t></w:r>"
    for xml in (
        f"<w:ins {w}><w:r><w:t>inserted </w:t></w:r></w:ins>",
        f"<w:del {w}><w:r><w:delText>deleted </w:delText></w:r></w:del>",
        f"<w:sdt {w}><w:sdtContent><w:r><w:t>chosen </w:t></w:r></w:sdtContent></w:sdt>",
        f'<mc:AlternateContent xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" {w}>'
        f"<mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback></mc:AlternateContent>",
    ):
        paragraph._p.append(docx.oxml.parse_xml(xml))
    document.save(tmp_path / "a.docx")
    assert elements(tmp_path / "a.docx") == [("text", 0, "kept inserted chosen boxed")]


def test_docx_strict_templates_and_macros_read_as_plain_ones(tmp_path):
    def strict(name, content):
        return re.sub(rb"http://schemas.openxmlformats.org/(\w+)/2006/", rb"http://purl.oclc.org/ooxml/\1/", content)

    def macro(name, content):
        plain = b"vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
        return content.replace(plain, b"vnd.ms-word.template.macroEnabledTemplate.main+xml")

    assert elements(rewritten(pumps(tmp_path), macro)) == PUMPS
    path = rewritten(pumps(tmp_path), lambda name, content: content if name == "[Content_Types].xml" else strict(name, content))
    assert elements(path) == PUMPS


def test_docx_of_many_paragraphs_comes_in_parts_and_resumes(tmp_path):
    document = docx.Document()
    for n in range(1100):
        document.add_paragraph(f"paragraph {n}")
    document.save(tmp_path / "a.docx")
    parts = read(tmp_path / "a.docx")
    assert [len(part.elements) for part in parts] == [500, 500, 100]
    assert read(tmp_path / "a.docx", start_part=2) == parts[2:]


def slides(tmp_path, titles=("One", "Two", "Three")):
    presentation = pptx.Presentation()
    for title in titles:
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.placeholders[1].text = f"Text of {title}\nSecond line"
        slide.shapes.title.text = title
    return presentation


def test_pptx_slides_come_in_the_order_they_are_shown(tmp_path):
    presentation = slides(tmp_path)
    order = presentation.slides._sldIdLst
    order.insert(0, order[2])  # the last slide is moved to the front; its file keeps its number
    presentation.save(tmp_path / "a.pptx")
    parts = read(tmp_path / "a.pptx")
    assert [[(e.kind, e.page, e.text) for e in part.elements] for part in parts] == [
        [("heading", page, title), ("text", page, f"Text of {title}\nSecond line")]
        for page, title in ((1, "Three"), (2, "One"), (3, "Two"))
    ]
    assert {part.total for part in parts} == {3}
    assert {part.title for part in parts} == {"a"}  # not the program's own "PowerPoint Presentation"
    assert read(tmp_path / "a.pptx", start_part=2) == parts[2:]


def test_pptx_gives_tables_groups_and_notes(tmp_path):
    presentation = slides(tmp_path, ("One",))
    slide = presentation.slides[0]
    table = slide.shapes.add_table(2, 2, 0, 0, 9, 9).table
    for at, text in enumerate(("part", "torque", "M8", "25 Nm")):
        table.cell(at // 2, at % 2).text = text
    box = slide.shapes.add_group_shape().shapes.add_group_shape().shapes.add_textbox(0, 0, 9, 9)
    box.text_frame.text = "grouped"
    slide.notes_slide.notes_text_frame.text = "say this"
    presentation.save(tmp_path / "a.pptx")
    (part,) = read(tmp_path / "a.pptx")
    assert [(e.kind, e.text) for e in part.elements] == [
        ("heading", "One"), ("text", "Text of One\nSecond line"), ("table", "part | torque\nM8 | 25 Nm"),
        ("text", "grouped"), ("text", "say this"),
    ]  # fmt: skip
    assert part.elements[-1].metadata == {"notes": True}


def test_office_without_its_library_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "docx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ultrafast_rag\[office\]'"):
        read(pumps(tmp_path))


ENTITY = '<!DOCTYPE x [<!ENTITY a "ha">]><w:document xmlns:w="w"><w:body><w:t>&a;</w:t></w:body></w:document>'


@pytest.mark.fault
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (ENTITY.encode(), "declares entities"),
        (ENTITY.encode("utf-16"), "declares entities"),
        (b"<w:document>", "broken Office file"),
        (b"", "broken Office file"),
    ],
)
def test_office_refuses_entities_and_broken_xml(tmp_path, content, words):
    path = rewritten(pumps(tmp_path), lambda name, old: content if name == "word/document.xml" else old)
    with pytest.raises(CorruptError, match=words):
        read(path)


@pytest.mark.fault
def test_office_refuses_what_unpacks_beyond_the_limits_but_not_for_its_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(zipped, "MAX_XML_BYTES", 4 << 20)
    monkeypatch.setattr(zipped, "MAX_TAGS", 1_000_000)
    path = pumps(tmp_path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/media/film.mp4", bytes(64 << 20))
    assert elements(path) == PUMPS
    for content, words in ((b" " * (5 << 20), "over 4 MB of XML"), (b"<a>" * 1_100_000, "over 1 million XML tags")):
        with pytest.raises(CorruptError, match=words):
            read(rewritten(pumps(tmp_path), lambda name, old, new=content: new if name == "word/document.xml" else old))


@pytest.mark.fault
def test_office_parts_that_are_missing_are_a_typed_error(tmp_path):
    path = rewritten(pumps(tmp_path), lambda name, old: None if name == "word/styles.xml" else old)
    with pytest.raises(CorruptError, match="broken Office file"):
        read(path)
