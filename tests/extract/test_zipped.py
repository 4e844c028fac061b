"""Forged zips: the parent reads a bounded piece of them, the worker unpacks within limits."""

import struct
import tracemalloc
import zipfile

import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, UnsupportedError
from ultrafast_rag.extract.detect import detect, media_type
from ultrafast_rag.extract.sandbox.pool import Sandbox
from ultrafast_rag.extract.zipped import LISTED_BYTES, member_names

pytestmark = pytest.mark.fault
WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


def listing_bomb(path, entries=200_000, first=b"a"):
    """An archive whose directory lists `entries` members of nothing; a million took the parent 700 MB and 81 s."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0)
    start = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, len(first), 0, 0, 0, 0, 0, 0) + first
    directory = start + b"".join(entry + b"%09d" % n for n in range(entries))
    head = b"PK\x03\x04" + bytes(26)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, entries & 0xFFFF, entries & 0xFFFF, len(directory), len(head), 0)
    path.write_bytes(head + directory + end)
    return path


def traced(function):
    """The function's error or value, and the most bytes that Python held meanwhile in this process."""
    tracemalloc.start()
    try:
        result = function()
    except CorruptError as error:
        result = error
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, peak


def test_a_zip_that_lists_members_without_end_costs_the_parent_next_to_nothing(tmp_path):
    path = listing_bomb(tmp_path / "a.docx")
    kind, peak = traced(lambda: media_type(path))
    assert kind == "application/octet-stream"
    assert peak < 4 * LISTED_BYTES
    assert sum(1 for _ in member_names(path)) <= LISTED_BYTES // 46
    path = listing_bomb(tmp_path / "b.docx", first=b"word/x")
    with Sandbox(Config(), workers=1) as sandbox:
        error, peak = traced(lambda: list(sandbox.extract(path)))
    assert media_type(path) == WORD
    assert "more members" in str(error)
    assert peak < 2 << 20


def test_a_small_docx_of_sixteen_million_tags_is_refused_by_the_worker(tmp_path):
    path = tmp_path / "a.docx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"<a/>" * (16 << 20))
    assert path.stat().st_size < 100_000
    assert media_type(path) == WORD
    with Sandbox(Config(), workers=1) as sandbox:
        error, peak = traced(lambda: list(sandbox.extract(path)))
    assert "XML tags" in str(error)
    assert peak < 2 << 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw[: len(raw) // 2], "cut short"),
        (lambda raw: raw[:-12] + b"\xff\xff\xff\x7f" + raw[-8:], "broken"),
        (lambda raw: raw[:-10] + b"\xff" * 10, "over 4 GB"),
        (lambda raw: raw.replace(b"PK\x01\x02", b"PK\x01\x03"), "unpack it first"),
    ],
)
def test_a_zip_with_a_broken_directory_is_a_typed_error(tmp_path, change, words):
    path = tmp_path / "a.docx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<a/>")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises((CorruptError, UnsupportedError), match=words):
        detect(path)


def test_a_member_that_inflates_beyond_what_it_declares_is_cut_off(tmp_path):
    path = tmp_path / "a.docx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b" " * (8 << 20))
    raw = bytearray(path.read_bytes())
    at = raw.rfind(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<L", 1000)  # the unpacked size it claims
    path.write_bytes(raw)
    with Sandbox(Config(), workers=1) as sandbox, pytest.raises(CorruptError, match="broken Office file"):
        list(sandbox.extract(path))
