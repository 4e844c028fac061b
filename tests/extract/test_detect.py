"""Types told by content, and sources expanded without ever raising."""

import os
import subprocess
import zipfile

import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, EncryptedError, ExtractionError, UnsupportedError
from ultrafast_rag.extract.detect import detect, media_type, open_extractor
from ultrafast_rag.extract.discover import discover

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 64
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


@pytest.mark.parametrize(
    ("name", "content", "extractor", "kind"),
    [
        ("a.txt", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "pdf", "application/pdf"),
        ("late.pdf", b"\n" * 500 + b"%PDF-1.4", "pdf", "application/pdf"),
        ("page.pdf", b"<!DOCTYPE html><html><body>hello</body></html>", "html", "text/html"),
        ("photo.txt", PNG, "image", "image/png"),
        ("photo.png", b"\xff\xd8\xff\xe0" + b"\0" * 20, "image", "image/jpeg"),
        ("talk.bin", b"RIFF\x24\0\0\0WAVEfmt ", "audio", "audio/wav"),
        ("film.mp3", b"RIFF\x24\0\0\0AVI LIST", "video", "video/x-msvideo"),
        ("pic.dat", b"RIFF\x24\0\0\0WEBPVP8 ", "image", "image/webp"),
        ("clip.mp4", b"\0\0\0\x18ftypisom\0\0\0\0", "video", "video/mp4"),
        ("song.m4a", b"\0\0\0\x18ftypisom\0\0\0\0", "audio", "audio/mp4"),
        ("shot.heic", b"\0\0\0\x18ftypheic\0\0\0\0", "image", "image/heic"),
        ("shot.avif", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "image", "image/avif"),
        ("shot.bin", b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "image", "image/avif"),
        ("notes", b"plain words", "text", "text/plain"),
        ("notes.md", b"# title\n", "markdown", "text/markdown"),
        ("main.rs", b"fn main() {}\n", "code", "text/x-rust"),
        ("run", b"#!/bin/sh\necho\n", "code", "text/x-shell"),
        ("utf16.txt", "Grüße".encode("utf-16"), "text", "text/plain"),
        ("letter.txt", b"{\\rtf1 x}", "rtf", "application/rtf"),
        ("mail.eml", b"Subject: x\n\ny", "mail", "message/rfc822"),
        ("nb.ipynb", b'{"cells": []}', "notebook", "application/x-ipynb+json"),
        ("old.xls", OLE, "sheet", "application/vnd.ms-excel"),
        ("rows.csv", b"a,b\n1,2\n", "csv", "text/csv"),
        ("rows.tsv", b"a\tb\n1\t2\n", "csv", "text/tab-separated-values"),
        ("latin.txt", "Grüße aus Köln".encode("latin-1"), "text", "text/plain"),
    ],
)
def test_detect_goes_by_content_before_suffix(tmp_path, name, content, extractor, kind):
    path = tmp_path / name
    path.write_bytes(content)
    assert detect(path) == (kind, extractor)
    assert media_type(path) == kind


@pytest.mark.parametrize(
    ("mimetype", "extractor"),
    [
        ("application/epub+zip", "epub"),
        ("application/vnd.oasis.opendocument.text-template", "opendocument"),
        ("application/vnd.oasis.opendocument.presentation", "opendocument"),
        ("application/vnd.oasis.opendocument.spreadsheet", "sheet"),
    ],
)
def test_detect_tells_documents_by_the_mimetype_they_carry(tmp_path, mimetype, extractor):
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        archive.writestr("mimetype", mimetype)
        archive.writestr("content.xml", "<x/>")
    assert detect(tmp_path / "a") == (mimetype, extractor)


def test_detect_tells_office_files_from_other_archives(tmp_path):
    for inside, name, extractor in (
        ("word/document.xml", "a.zip", "office"),
        ("xl/workbook.xml", "b.docx", "sheet"),
        ("ppt/presentation.xml", "c.bin", "office"),
    ):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("docProps/app.xml", "<x/>")
            archive.writestr(inside, "<x/>")
            archive.comment = b"made by a program that signs its work"
        assert detect(tmp_path / name).extractor == extractor
    assert detect(tmp_path / "b.docx").media_type.endswith("spreadsheetml.sheet")
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(UnsupportedError, match="unpack it first"):
        detect(tmp_path / "plain.zip")
    (tmp_path / "cut.docx").write_bytes(b"PK\x03\x04broken")
    with pytest.raises(CorruptError, match="broken zip"):
        detect(tmp_path / "cut.docx")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("empty.pdf", b"", CorruptError, "is empty"),
        ("thing.bin", bytes(range(256)) * 8, UnsupportedError, "unsupported file type. Supported: PDF"),
        ("fake.png", bytes(range(1, 256)) * 8, CorruptError, "does not hold the png"),
        ("old.doc", OLE, UnsupportedError, "an old Word file; save it as docx .*Supported: PDF"),
        ("old.ppt", OLE, UnsupportedError, "an old PowerPoint file; save it as pptx"),
        ("mail.msg", OLE + b"%PDF-1.4", UnsupportedError, "an Outlook message; save it as eml"),
        ("old.pub", OLE, UnsupportedError, "save it as docx, pptx or xlsx"),
        ("new.docx", OLE, EncryptedError, "password; save it without one"),
        ("tool.exe", b"MZ\x90\0\x03" + b"\0" * 64, UnsupportedError, "a program"),
        ("a.gz", b"\x1f\x8b\x08\0" + b"\0" * 64, UnsupportedError, "unpack it first"),
    ],
)
def test_detect_raises_what_to_do_about_unreadable_files(tmp_path, name, content, error, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(error, match=words) as caught:
        detect(path)
    assert caught.value.path == str(path)
    assert media_type(path) == "application/octet-stream"


def test_detect_reports_a_missing_file(tmp_path):
    with pytest.raises(ExtractionError, match="cannot be opened"):
        detect(tmp_path / "nowhere.pdf")


def test_open_extractor_follows_content(tmp_path):
    (tmp_path / "a.pdf").write_text("<html><body><p>words</p></body></html>")
    extractor = open_extractor(tmp_path / "a.pdf", Config())
    assert [e.text for part in extractor.extract(tmp_path / "a.pdf") for e in part.elements] == ["words"]


def test_discover_walks_sorted_and_skips_noise_hidden_files_and_sidecars(tmp_path):
    for name in (
        "b.txt",
        "a.pdf",
        "sub/c.md",
        ".hidden/d.txt",
        ".e.txt",
        "__pycache__/f.pyc",
        "talk.mp3",
        "talk.srt",
        "alone.srt",
        "~$x.docx",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    found = discover([tmp_path, tmp_path / "a.pdf", str(tmp_path / ".e.txt")])
    assert [(str(path.relative_to(tmp_path)), reason) for path, reason in found] == [
        ("a.pdf", ""),
        ("alone.srt", ""),
        ("b.txt", ""),
        (os.path.join("sub", "c.md"), ""),
        ("talk.mp3", ""),
        (".e.txt", ""),
    ]


@pytest.mark.fault
def test_discover_reports_instead_of_raising(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reasons = {
        str(path): reason for path, reason in discover([empty, tmp_path / "gone", tmp_path / "dangling", fifo, "bad\0name"])
    }
    assert "no file to read" in reasons[str(empty)]
    assert "does not exist" in reasons[str(tmp_path / "gone")]
    assert "neither" in reasons[str(fifo)]
    assert all(reasons.values())


@pytest.mark.fault
def test_discover_makes_bad_names_entries_and_goes_on(tmp_path):
    (tmp_path / "good.txt").write_text("x")
    latin = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    with open(latin, "w") as file:
        file.write("x")
    (tmp_path / "alias.txt").symlink_to(os.fsdecode(latin))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    found = discover([tmp_path, tmp_path / "loop", "a\0b", "\ud800.txt", "~nobody-of-that-name/x", "n" * 5000])
    assert [path.name for path, reason in found if not reason] == ["good.txt"]
    reasons = {str(path): reason for path, reason in found}
    assert "not UTF-8" in reasons[os.fsdecode(latin)] == reasons[str(tmp_path / "alias.txt")] == reasons["\ud800.txt"]
    assert "cannot be opened" in reasons[str(tmp_path / "loop")]
    assert "null" in reasons["a\0b"]
    assert len(found) == 8


def test_discover_walks_folders_of_any_depth(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):  # deeper than Python's stack
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("leaf.txt", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    (tmp_path / "last.txt").write_text("x")
    try:
        found = discover(tmp_path)
    finally:
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # pytest's own clean-up is recursive
    assert [(path.name, reason) for path, reason in found] == [("leaf.txt", ""), ("last.txt", "")]


@pytest.mark.fault
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root reads everything")
def test_discover_reports_closed_folders_and_files(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    secret = tmp_path / "secret.txt"
    secret.write_text("x")
    secret.chmod(0)
    try:
        assert all("no permission" in reason for _, reason in discover([tmp_path]))
    finally:
        closed.chmod(0o700)
