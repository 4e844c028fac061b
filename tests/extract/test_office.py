"""docx, pptx and xlsx written here by hand, and hostile ones."""

import zipfile

import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError
from ultrafast_rag.extract import office
from ultrafast_rag.extract.detect import open_extractor

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
A = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"'
S = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def read(tmp_path, members, name="a.docx"):
    path = tmp_path / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return list(open_extractor(path, Config()).extract(path))


def paragraph(text, style=""):
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}<w:r><w:t>{text}</w:t></w:r></w:p>"


def test_docx_gives_headings_paragraphs_and_tables_in_order(tmp_path):
    cells = "".join(
        f"<w:tr><w:tc>{paragraph(a)}</w:tc><w:tc>{paragraph(b)}</w:tc></w:tr>" for a, b in (("part", "torque"), ("M8", "25 Nm"))
    )
    body = paragraph("Pumps", "Kop1") + paragraph("Some words.") + f"<w:tbl>{cells}</w:tbl>" + paragraph("Small pumps", "Kop2")
    styles = "".join(f'<w:style w:styleId="Kop{n}"><w:name w:val="heading {n}"/></w:style>' for n in (1, 2))
    (part,) = read(tmp_path, {
        "word/document.xml": f"<w:document {W}><w:body>{body}</w:body></w:document>",
        "word/styles.xml": f"<w:styles {W}>{styles}</w:styles>",
        "docProps/core.xml": '<c:p xmlns:c="c" xmlns:dc="d"><dc:title>The pump book</dc:title></c:p>',
    })  # fmt: skip
    assert part.title == "The pump book"
    assert [(e.kind, e.level, e.text) for e in part.elements] == [
        ("heading", 1, "Pumps"),
        ("text", 0, "Some words."), ("table", 0, "part | torque\nM8 | 25 Nm"), ("heading", 2, "Small pumps"),
    ]  # fmt: skip


def test_pptx_slides_are_parts_in_number_order_with_page(tmp_path):
    def slide(title, text):
        shapes = [
            f"<p:sp><p:txBody><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:txBody></p:sp>",
            f'<p:sp><p:nvPr><p:ph type="title"/></p:nvPr><p:txBody><a:p><a:r><a:t>{title}</a:t></a:r></a:p></p:txBody></p:sp>',
        ]
        return f"<p:sld {A}>{''.join(shapes)}</p:sld>"

    slides = {f"ppt/slides/slide{n}.xml": slide(f"Title {n}", f"Text {n}") for n in (10, 2, 1)}
    parts = read(tmp_path, {"ppt/presentation.xml": f"<p:presentation {A}/>", **slides}, "a.pptx")
    assert [[(e.kind, e.text, e.page) for e in part.elements] for part in parts] == [
        [("heading", f"Title {n}", page), ("text", f"Text {n}", page)] for page, n in ((1, 1), (2, 2), (3, 10))
    ]


def test_xlsx_sheets_keep_columns_and_repeat_the_header_in_every_slice(tmp_path):
    rows = '<row><c r="A1" t="s"><v>0</v></c><c r="C1" t="inlineStr"><is><t>torque</t></is></c></row>'
    rows += "".join(f'<row><c r="A{n}"><v>{n}</v></c><c r="C{n}" t="b"><v>1</v></c></row>' for n in range(2, 602))
    parts = read(tmp_path, {
        "xl/workbook.xml": f'<workbook {S}><sheets><sheet name="Bolts"/></sheets></workbook>',
        "xl/sharedStrings.xml": f"<sst {S}><si><t>par</t><t>t</t></si></sst>",
        "xl/worksheets/sheet1.xml": f"<worksheet {S}><sheetData>{rows}</sheetData></worksheet>",
    }, "a.xlsx")  # fmt: skip
    assert [part.elements[0].text for part in parts] == ["Bolts", "Bolts"]
    tables = [part.elements[1].text.splitlines() for part in parts]
    assert tables[0][:2] == ["part |  | torque", "2 |  | TRUE"]
    assert [len(table) for table in tables] == [500, 102]
    assert tables[1][:2] == ["part |  | torque", "501 |  | TRUE"]


BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><w:document xmlns:w="w"><w:body><w:t>&b;</w:t></w:body></w:document>'


@pytest.mark.fault
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (BOMB, "declares entities"),
        (BOMB.encode("utf-16"), "declares entities"),
        ("<w:document>", "broken Office file"),
        ("", "broken Office file"),
    ],
)
def test_office_refuses_entities_and_broken_xml(tmp_path, content, words):
    with pytest.raises(CorruptError, match=words):
        read(tmp_path, {"word/document.xml": content})


@pytest.mark.fault
def test_office_refuses_a_member_that_inflates_beyond_the_cap(tmp_path, monkeypatch):
    monkeypatch.setattr(office, "MAX_MEMBER_BYTES", 1 << 20)
    with pytest.raises(CorruptError, match="over 1 MB"):
        read(tmp_path, {"word/document.xml": b"<a>" + b" " * (8 << 20) + b"</a>"})
