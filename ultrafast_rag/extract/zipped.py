"""Zip files from strangers (Office, OpenDocument, EPUB): told apart cheaply, unpacked only within limits.

`member_names` reads a bounded piece of the file, so that the parent process may use it on anything. `xml_copy` is what
the Office libraries are given instead of the file: those libraries load every member at once, and have no limits.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_XML_BYTES = 256 << 20  # of all members once unpacked; a reader's default limit of 3 GB holds it, the tree and the parts
MAX_TAGS = 4_000_000  # of one document: lxml takes some 100 bytes a tag, so 400 MB; a book of 1 000 pages has under 1 million
MAX_DIRECTORY_BYTES = 8 << 20  # of the list of members: some 80 000 of them
LISTED_BYTES = 256 << 10  # read by `member_names`: the first 2 500 members or so
_TAIL_BYTES = 22 + 0xFFFF  # the end record and the longest comment after it (APPNOTE.TXT 4.3.16)
_END = struct.Struct("<4s4H2LH")
_ENTRY_BYTES = 46  # of a directory entry, before its name (APPNOTE.TXT 4.3.12)
_XML = (".xml", ".rels", ".bin", ".html", ".xhtml", ".htm", ".opf", ".ncx", "mimetype")

# What a broken zip or broken XML in it raises. LookupError: a member or a part that is named but not there.
BROKEN = (zipfile.BadZipFile, zlib.error, SyntaxError, LookupError, ValueError, TypeError, AttributeError, EOFError,
          NotImplementedError, OSError, RuntimeError)  # fmt: skip

_STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/(\w+)/")
_MAIN_TYPE = re.compile(
    rb"application/vnd\.(?:openxmlformats-officedocument\.(?:wordprocessingml|presentationml)|ms-word|ms-powerpoint)"
    rb"\.(?:document|template|slideshow|presentation|addin)(?:\.macroEnabled\w*)?\.main\+xml"
)


def member_names(path: Path) -> Iterator[bytes]:
    """Names from the start of the zip's directory, as raw bytes; reads 320 kB at most. Raises ValueError, OSError."""
    with open(path, "rb") as file:
        start, size = _directory(file)
        file.seek(start)
        listed = file.read(min(size, LISTED_BYTES))
    at = 0
    while listed[at : at + 4] == b"PK\x01\x02" and at + _ENTRY_BYTES <= len(listed):
        name, extra, comment = struct.unpack_from("<3H", listed, at + 28)
        yield listed[at + _ENTRY_BYTES : at + _ENTRY_BYTES + name]
        at += _ENTRY_BYTES + name + extra + comment


def _directory(file: BinaryIO) -> tuple[int, int]:
    """Where the list of members starts, and its bytes."""
    length = file.seek(0, io.SEEK_END)
    file.seek(max(0, length - _TAIL_BYTES))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        raise ValueError("the list of its members is missing; the file was cut short")
    end = length - len(tail) + at
    *_, size, start, _ = _END.unpack_from(tail, at)
    if start == 0xFFFFFFFF or size == 0xFFFFFFFF:
        raise ValueError("it is over 4 GB")
    if start + size > end:
        raise ValueError("the list of its members is broken")
    return end - size, size  # not `start`: bytes may stand before the zip, as in a self-extracting one


def open_zip(path: Path) -> zipfile.ZipFile:
    """The zip, its list of members bounded. Raises one of BROKEN."""
    with open(path, "rb") as file:
        if _directory(file)[1] > MAX_DIRECTORY_BYTES:
            raise ValueError("it lists more members than any document has")
    return zipfile.ZipFile(path)


def read_xml(archive: zipfile.ZipFile, name: str, *, left: int = MAX_XML_BYTES) -> bytes:
    """A member, unpacked as far as `left` bytes. Raises ValueError beyond them and for a document type with entities."""
    with archive.open(name) as member:
        content = member.read(left + 1)
    if len(content) > left:
        raise ValueError(f"it unpacks to over {MAX_XML_BYTES >> 20} MB of XML; split it into several files")
    if b"<!ENTITY" in content or any("<!ENTITY".encode(code) in content for code in ("utf-16-le", "utf-16-be")):
        raise ValueError(f"{name} declares entities, which no such program writes")
    return content


def xml_copy(path: Path, *, tree: bool) -> io.BytesIO:
    """A zip of the same members with pictures, films and fonts emptied, all within the limits above.

    tree: what is made of it is a tree of every tag, so their number is bounded too. Strict Office files get the names of
    the usual ones, templates and files with macros the type of a plain document: the libraries know no other. Raises one of
    BROKEN.
    """
    copy = io.BytesIO()
    left, tags = MAX_XML_BYTES, MAX_TAGS
    with open_zip(path) as archive, zipfile.ZipFile(copy, "w") as slim:
        for name in dict.fromkeys(archive.namelist()):
            content = read_xml(archive, name, left=left) if name.lower().endswith(_XML) else b""
            left -= len(content)
            tags -= content.count(b"<") if tree else 0
            if tags < 0:
                raise ValueError(f"it holds over {MAX_TAGS // 1_000_000} million XML tags; split it into several files")
            slim.writestr(name, _usual(name, content))
    copy.seek(0)
    return copy


def _usual(name: str, content: bytes) -> bytes:
    if name == "[Content_Types].xml":
        return _MAIN_TYPE.sub(_plain_type, content)
    return _STRICT.sub(rb"http://schemas.openxmlformats.org/\1/2006/", content)


def _plain_type(match: re.Match[bytes]) -> bytes:
    family, kind = (b"wordprocessingml", b"document") if b"word" in match.group() else (b"presentationml", b"presentation")
    return b"application/vnd.openxmlformats-officedocument." + family + b"." + kind + b".main+xml"


def title_of(archive: zipfile.ZipFile, member: str = "docProps/core.xml") -> str:
    """The title in an Office or OpenDocument file's properties; "" without one, or for what the program itself puts there."""
    if member not in archive.namelist():
        return ""
    from xml.etree import ElementTree

    tree = ElementTree.fromstring(read_xml(archive, member))
    title = next((node.text or "" for node in tree.iter() if isinstance(node.tag, str) and node.tag.endswith("}title")), "")
    return "" if title in ("PowerPoint Presentation", "Word Document") else " ".join(title.split())
