"""OpenDocument, EPUB, RTF, mail and notebooks, written here with zipfile, email and json."""

import email.message
import json
import zipfile

import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, EncryptedError
from ultrafast_rag.extract.detect import detect, open_extractor


def read(path, **options):
    return list(open_extractor(path, Config()).extract(path, **options))


def elements(path):
    return [(e.kind, e.level, e.text) for part in read(path) for e in part.elements]


def zipped(path, mimetype, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", mimetype, zipfile.ZIP_STORED)
        for name, content in members.items():
            archive.writestr(name, content)
    return path


ODF = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "text", "table", "style", "draw")
) + ' xmlns:p="urn:oasis:names:tc:opendocument:xmlns:presentation:1.0"'  # fmt: skip
ODT = """<text:sequence-decls/><text:tracked-changes><text:p>deleted</text:p></text:tracked-changes>
<text:p text:style-name="P1">The pump book</text:p><text:h text:outline-level="2">Care</text:h>
<text:section><text:p>Oil<text:s/>it <text:span>twice</text:span><text:note><text:p>a note</text:p></text:note> daily.</text:p>
</text:section><text:list><text:list-item><text:p>one</text:p></text:list-item></text:list>
<table:table><table:table-header-rows><table:table-row><table:table-cell><text:p>part</text:p></table:table-cell>
<table:table-cell table:number-columns-repeated="2"><text:p>Nm</text:p></table:table-cell></table:table-row>
</table:table-header-rows><table:table-row><table:table-cell><text:p>M8</text:p></table:table-cell><table:table-cell><text:p>25</text:p></table:table-cell>
<table:table-cell table:number-columns-repeated="99999999999"/></table:table-row></table:table>"""
STYLES = '<office:automatic-styles><style:style style:name="P1" style:parent-style-name="Title"/></office:automatic-styles>'


def odf(path, body, kind="text", manifest="<m/>"):
    content = f"<office:document-content {ODF}>{STYLES}<office:body>{body}</office:body></office:document-content>"
    members = {"content.xml": content, "META-INF/manifest.xml": manifest}
    return zipped(path, f"application/vnd.oasis.opendocument.{kind}", members)


def test_odt_gives_headings_paragraphs_lists_and_tables(tmp_path):
    path = odf(tmp_path / "a.odt", f"<office:text>{ODT}</office:text>")
    assert detect(path) == ("application/vnd.oasis.opendocument.text", "opendocument")
    assert elements(path) == [
        ("heading", 1, "The pump book"), ("heading", 2, "Care"), ("text", 0, "Oil it twice daily."), ("text", 0, "one"),
        ("table", 0, "part | Nm | Nm\nM8 | 25"),
    ]  # fmt: skip


def test_odp_slides_are_parts_with_title_first_and_notes_last(tmp_path):
    def slide(number):
        box = "<draw:frame{}><draw:text-box><text:p>{}</text:p></draw:text-box></draw:frame>"
        notes = f"<p:notes>{box.format('', f'say {number}')}</p:notes>"
        title = box.format(' p:class="title"', f"Slide {number}")
        return f"<draw:page>{box.format('', f'words {number}')}{title}{notes}</draw:page>"

    body = f"<office:presentation>{slide(1)}{slide(2)}</office:presentation>"
    parts = read(odf(tmp_path / "a.odp", body, "presentation"))
    assert [[(e.kind, e.page, e.text) for e in part.elements] for part in parts] == [
        [("heading", n, f"Slide {n}"), ("text", n, f"words {n}"), ("text", n, f"say {n}")] for n in (1, 2)
    ]
    assert read(tmp_path / "a.odp", start_part=1) == parts[1:]


@pytest.mark.fault
def test_odf_with_a_password_or_broken_is_a_typed_error(tmp_path):
    with pytest.raises(EncryptedError, match="password"):
        read(odf(tmp_path / "a.odt", "", manifest="<m><encryption-data/></m>"))
    with pytest.raises(CorruptError, match="broken OpenDocument"):
        read(odf(tmp_path / "a.odt", "<office:text>"))


CONTAINER = '<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>'
OPF = """<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">
<metadata><dc:title>The  pump book</dc:title></metadata>
<manifest><item id="a" href="text/a%20b.xhtml"/><item id="b" href="b.xhtml"/><item id="c" href="gone.xhtml"/></manifest>
<spine><itemref idref="b"/><itemref idref="c"/><itemref idref="a"/></spine></package>"""


def test_epub_chapters_come_in_reading_order_and_a_lost_one_costs_itself(tmp_path):
    chapter = (
        '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body><h1>{0}</h1><p>Words of {0}.</p></body></html>'
    )
    members = {"META-INF/container.xml": CONTAINER, "OPS/book.opf": OPF}
    members |= {"OPS/text/a b.xhtml": chapter.format("A"), "OPS/b.xhtml": chapter.format("B")}
    parts = read(zipped(tmp_path / "a.epub", "application/epub+zip", members))
    assert [[(e.kind, e.text) for e in part.elements] for part in parts] == [
        [("heading", "B"), ("text", "Words of B.")], [], [("heading", "A"), ("text", "Words of A.")],
    ]  # fmt: skip
    assert [bool(part.failure) for part in parts] == [False, True, False]
    assert "gone.xhtml" in parts[1].failure
    assert {(part.title, part.total) for part in parts} == {("The pump book", 3)}


def test_rtf_gives_its_words(tmp_path):
    pytest.importorskip("striprtf")
    (tmp_path / "a.rtf").write_text(
        r"{\rtf1\ansi{\fonttbl{\f0 Arial;}}\f0\fs24 The \b pump\b0  book\par Gr\'fc\'dfe \u8364? 5\par}"
    )
    assert elements(tmp_path / "a.rtf") == [("text", 0, "The pump book"), ("text", 0, "Grüße € 5")]


@pytest.mark.parametrize("is_html", [False, True])
def test_mail_gives_subject_head_and_body_and_names_attachments(tmp_path, is_html):
    mail = email.message.EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = "Größe der Pumpe", "Ann <a@example.org>", "b@example.org"
    if is_html:
        mail.set_content("<p>First.</p><p>Second &amp; last.</p>", subtype="html")
    else:
        mail.set_content("First.\n\nSecond & last.\n")
    mail.add_attachment(b"%PDF-1.4", maintype="application", subtype="pdf", filename="pump.pdf")
    (tmp_path / "a.eml").write_bytes(bytes(mail))
    (part,) = read(tmp_path / "a.eml")
    assert [e.text for e in part.elements] == [
        "Größe der Pumpe", "From: Ann <a@example.org>\nTo: b@example.org", "First.", "Second & last.",
    ]  # fmt: skip
    assert part.title == "Größe der Pumpe"
    assert "pump.pdf" in part.notes[0]


def test_mail_in_an_unknown_character_set_is_read_all_the_same(tmp_path):
    (tmp_path / "a.eml").write_bytes(b"Subject: s\nContent-Type: text/plain; charset=nonsense\n\nwords \xff")
    assert elements(tmp_path / "a.eml")[1:] == [("text", 0, "words \ufffd")]


def test_notebook_gives_markdown_code_and_printed_output(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# Pumps\n", "Some *words*."]},
        {"cell_type": "code", "source": "x = 1\nx", "outputs": [
            {"output_type": "stream", "text": ["hello\n"]},
            {"output_type": "execute_result", "data": {"image/png": "AAAA", "text/plain": ["1"]}},
        ]},
        {"cell_type": "code", "source": "", "outputs": []},
    ]  # fmt: skip
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4}))
    assert elements(tmp_path / "a.ipynb") == [
        ("heading", 1, "Pumps"), ("text", 0, "Some words."), ("code", 0, "x = 1\nx"), ("text", 0, "hello"), ("text", 0, "1"),
    ]  # fmt: skip
    assert read(tmp_path / "a.ipynb")[0].title == "Pumps"


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.ipynb", b'{"worksheets": []}'),
        ("a.ipynb", b"[1]"),
        ("a.ipynb", b'{"cells": [{"source": 1}]}'),
        ("a.ipynb", b'{"a":' * 99_999),
        ("a.ipynb", b"{"),
    ],
)
def test_broken_notebooks_are_typed_errors(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorruptError, match="notebook of format 4"):
        read(tmp_path / name)


@pytest.mark.fault
def test_epub_without_its_package_is_a_typed_error(tmp_path):
    for members in ({}, {"META-INF/container.xml": "<c/>"}, {"META-INF/container.xml": CONTAINER}):
        with pytest.raises(CorruptError, match="broken EPUB"):
            read(zipped(tmp_path / "a.epub", "application/epub+zip", members))
