"""What a file is, told by its first bytes and only then by its suffix.

Light enough for the parent process: standard library only. The extractors themselves are imported
by name when one is opened, so a run over Markdown never loads a PDF or video library.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import NamedTuple, cast

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, EncryptedError, ExtractionError, UnsupportedError
from ultrafast_rag.extract.zipped import member_names
from ultrafast_rag.ports import Extractor

SUPPORTED = (
    "PDF; pictures (jpg, png, webp, tiff, bmp, gif, avif, heic); recordings and films that FFmpeg decodes; captions (srt, vtt); "
    "plain text, Markdown, HTML, source code, Jupyter notebooks; docx, pptx, xlsx, xls, csv; odt, odp, ods; epub, rtf, eml"
)
_CLASSES: dict[str, tuple[str, str]] = {
    "pdf": ("pdf.reader", "PdfExtractor"),
    "image": ("image", "ImageExtractor"),
    "audio": ("media.audio", "AudioExtractor"),
    "video": ("media.video", "VideoExtractor"),
    "text": ("text", "TextExtractor"),
    "markdown": ("text", "MarkdownExtractor"),
    "code": ("text", "CodeExtractor"),
    "html": ("html", "HtmlExtractor"),
    "office": ("office", "OfficeExtractor"),
    "sheet": ("sheets", "SheetExtractor"),
    "csv": ("sheets", "CsvExtractor"),
    "captions": ("media.captions", "CaptionsExtractor"),
    "opendocument": ("documents", "OpenDocumentExtractor"),
    "epub": ("documents", "EpubExtractor"),
    "rtf": ("documents", "RtfExtractor"),
    "mail": ("documents", "MailExtractor"),
    "notebook": ("documents", "NotebookExtractor"),
}
CODE_LANGUAGES = {
    ".py": "python",
    ".pyi": "python",
    ".js": "javascript",
    ".mjs": "javascript",
    ".jsx": "javascript",
    ".ts": "typescript",
    ".tsx": "typescript",
    ".java": "java",
    ".kt": "kotlin",
    ".scala": "scala",
    ".c": "c",
    ".h": "c",
    ".cc": "cpp",
    ".cpp": "cpp",
    ".cxx": "cpp",
    ".hpp": "cpp",
    ".cs": "csharp",
    ".go": "go",
    ".rs": "rust",
    ".rb": "ruby",
    ".php": "php",
    ".swift": "swift",
    ".r": "r",
    ".jl": "julia",
    ".lua": "lua",
    ".pl": "perl",
    ".sh": "shell",
    ".bash": "shell",
    ".sql": "sql",
    ".m": "matlab",
    ".css": "css",
    ".dart": "dart",
    ".hs": "haskell",
    ".ex": "elixir",
    ".erl": "erlang",
    ".clj": "clojure",
}
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".heic", ".heif", ".avif"}
_AUDIO_SUFFIXES = {
    ".mp3",
    ".wav",
    ".flac",
    ".ogg",
    ".oga",
    ".opus",
    ".m4a",
    ".m4b",
    ".aac",
    ".wma",
    ".aif",
    ".aiff",
    ".amr",
    ".mka",
}
_VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".ts", ".ogv", ".3gp"}
MEDIA_SUFFIXES = _AUDIO_SUFFIXES | _VIDEO_SUFFIXES
_HTML_SUFFIXES = {".html", ".htm", ".xhtml"}
HEAD_BYTES = 4096  # every signature below lies in them, and enough of a text to tell its encoding's shape

_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png", "image"),
    (0, b"\xff\xd8\xff", "image/jpeg", "image"),
    (0, b"GIF87a", "image/gif", "image"),
    (0, b"GIF89a", "image/gif", "image"),
    (0, b"II*\0", "image/tiff", "image"),
    (0, b"MM\0*", "image/tiff", "image"),
    (8, b"WEBP", "image/webp", "image"),
    (8, b"WAVE", "audio/wav", "audio"),
    (8, b"AVI ", "video/x-msvideo", "video"),
    (8, b"AIF", "audio/aiff", "audio"),
    (0, b"ID3", "audio/mpeg", "audio"),
    (0, b"fLaC", "audio/flac", "audio"),
    (0, b"#!AMR", "audio/amr", "audio"),
    (0, b"FLV\x01", "video/x-flv", "video"),
    (0, b"\x00\x00\x01\xba", "video/mpeg", "video"),
)
# containers that hold sound or film alike: the suffix tells which
_EITHER: tuple[tuple[int, bytes, str], ...] = (
    (0, b"OggS", "ogg"),
    (4, b"ftyp", "mp4"),
    (0, b"\x1aE\xdf\xa3", "webm"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "x-ms-asf"),
)
_STILLS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"heif", b"mif1", b"msf1", b"avif", b"avis")
_REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"%!PS", "a PostScript file; convert it to PDF"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a rar archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
)


_OLE = b"\xd0\xcf\x11\xe0"  # the container of Office files before 2007, of Outlook messages and of files with a password
_OLE_REFUSED = {
    ".doc": "an old Word file; save it as docx (in Word or LibreOffice: File, Save as)",
    ".ppt": "an old PowerPoint file; save it as pptx (in PowerPoint or LibreOffice: File, Save as)",
    ".msg": "an Outlook message; save it as eml (in Outlook for the web or Mac: File, Save as, or drag it to a folder)",
}


class Detected(NamedTuple):
    """A file's media type and the extractor that reads it, a key of _CLASSES."""

    media_type: str
    extractor: str


_OPENXML, _ODF = "application/vnd.openxmlformats-officedocument.", "application/vnd.oasis.opendocument."
_OFFICE = {
    b"word": Detected(f"{_OPENXML}wordprocessingml.document", "office"),
    b"ppt": Detected(f"{_OPENXML}presentationml.presentation", "office"),
    b"xl": Detected(f"{_OPENXML}spreadsheetml.sheet", "sheet"),
}
_BY_MIMETYPE = {
    "application/epub+zip": "epub",
    f"{_ODF}text": "opendocument",
    f"{_ODF}presentation": "opendocument",
    f"{_ODF}spreadsheet": "sheet",
}
_TEXT_SUFFIXES = {
    ".csv": Detected("text/csv", "csv"),
    ".tsv": Detected("text/tab-separated-values", "csv"),
    ".tab": Detected("text/tab-separated-values", "csv"),
    ".vtt": Detected("text/vtt", "captions"),
    ".srt": Detected("application/x-subrip", "captions"),
    ".eml": Detected("message/rfc822", "mail"),
    ".ipynb": Detected("application/x-ipynb+json", "notebook"),
    **dict.fromkeys((".md", ".markdown", ".mdx", ".rmd", ".qmd"), Detected("text/markdown", "markdown")),
}


def detect(path: Path) -> Detected:
    """Tell a file by its content, then its suffix.

    Raises CorruptError for an empty file, UnsupportedError for what nothing here reads, EncryptedError,
    ExtractionError when it cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise ExtractionError(f"{path.name} cannot be opened: {error.strerror or error}", path=str(path)) from error
    if not head:
        raise CorruptError(f"{path.name} is empty", path=str(path))
    suffix = path.suffix.lower()
    found = _by_magic(path, head, suffix)
    if found is not None:
        return found
    is_text = looks_like_text(head)
    if suffix == ".pdf" and not _starts_html(head):
        return Detected("application/pdf", "pdf")  # headers lost or late: the parser repairs it or says why not
    if is_text:
        return _text_type(head, suffix)
    if suffix in _AUDIO_SUFFIXES or (head[0] == 0xFF and len(head) > 1 and head[1] & 0xE0 == 0xE0):
        return Detected("audio/mpeg" if suffix not in _AUDIO_SUFFIXES else f"audio/{suffix[1:]}", "audio")
    if suffix in _VIDEO_SUFFIXES:
        return Detected(f"video/{suffix[1:]}", "video")
    if suffix in _IMAGE_SUFFIXES:
        raise CorruptError(f"{path.name} does not hold the {suffix[1:]} picture its name promises", path=str(path))
    raise UnsupportedError(f"{path.name}: unsupported file type. Supported: {SUPPORTED}", path=str(path))


def media_type(path: Path) -> str:
    """The media type, or application/octet-stream for what cannot be read; never raises."""
    try:
        return detect(path).media_type
    except ExtractionError:
        return "application/octet-stream"


def open_extractor(path: Path, config: Config) -> Extractor:
    """The extractor for this file's content; raises as `detect` does."""
    kind = detect(path).extractor
    module, name = _CLASSES[kind]
    if kind == "pdf" and importlib.util.find_spec("pymupdf") is None and importlib.util.find_spec("pypdfium2") is not None:
        module, name = "pdf.pdfium", "PdfiumExtractor"
    extractor = getattr(importlib.import_module(f"ultrafast_rag.extract.{module}"), name)
    return cast(Extractor, extractor(config))


def _by_magic(path: Path, head: bytes, suffix: str) -> Detected | None:
    if head.startswith(_OLE):  # before PDF: a message may hold one
        return _ole_type(path, suffix)
    if b"%PDF-" in head[:1024]:
        return Detected("application/pdf", "pdf")
    for offset, magic, kind, extractor in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return Detected(kind, extractor)
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124):
        return Detected("image/bmp", "image")
    if head.startswith(b"PK\x03\x04"):
        return _zip_type(path, head)
    if head.startswith(b"{\\rtf"):
        return Detected("application/rtf", "rtf")
    for magic, what in _REFUSED:
        if head.startswith(magic):
            raise UnsupportedError(f"{path.name}: unsupported file type: {what}. Supported: {SUPPORTED}", path=str(path))
    return _by_container(head, suffix)


def _by_container(head: bytes, suffix: str) -> Detected | None:
    if head[4:8] == b"ftyp" and head[8:12] in _STILLS:
        is_avif = any(brand in head[8:32] for brand in (b"avif", b"avis"))  # mif1 stands before either
        return Detected("image/avif" if is_avif else "image/heic", "image")
    for offset, magic, kind in _EITHER:
        if head[offset : offset + len(magic)] == magic:
            is_sound = suffix in _AUDIO_SUFFIXES or (kind == "ogg" and suffix != ".ogv") or head[8:11] in (b"M4A", b"M4B")
            return Detected(f"audio/{kind}", "audio") if is_sound else Detected(f"video/{kind}", "video")
    if head[0] == 0x47 and len(head) > 376 and head[188] == 0x47 and head[376] == 0x47:
        return Detected("video/mp2t", "video")
    return None


def _zip_type(path: Path, head: bytes) -> Detected:
    """By the member "mimetype" that stands first, else by the folders; a bounded number of names, never contents."""
    if head[30:38] == b"mimetype":
        length, extra = int.from_bytes(head[18:22], "little"), int.from_bytes(head[28:30], "little")
        kind = head[38 + extra : 38 + extra + min(length, 100)].decode("ascii", "replace").strip()
        if extractor := _BY_MIMETYPE.get(kind.removesuffix("-template")):
            return Detected(kind, extractor)
    try:
        for name in member_names(path):
            folder, _, member = name.partition(b"/")
            if member and folder in _OFFICE:
                return _OFFICE[folder]
            if name == b"META-INF/container.xml" and path.suffix.lower() == ".epub":
                return Detected("application/epub+zip", "epub")
    except (OSError, ValueError) as error:
        raise CorruptError(f"{path.name} is a broken zip or Office file: {error}", path=str(path)) from error
    raise UnsupportedError(
        f"{path.name}: unsupported file type: a zip archive; unpack it first. Supported: {SUPPORTED}", path=str(path)
    )


def _ole_type(path: Path, suffix: str) -> Detected:
    if suffix in (".xls", ".xlt"):
        return Detected("application/vnd.ms-excel", "sheet")
    if suffix in (".docx", ".docm", ".pptx", ".pptm", ".xlsx", ".xlsm"):
        raise EncryptedError(f"{path.name} is protected by a password; save it without one", path=str(path))
    what = _OLE_REFUSED.get(suffix, "an old Office file; save it as docx, pptx or xlsx")
    raise UnsupportedError(f"{path.name}: unsupported file type: {what}. Supported: {SUPPORTED}", path=str(path))


def _starts_html(head: bytes) -> bool:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:512].lower()
    is_xhtml = start.startswith(b"<?xml") and b"<html" in start
    return is_xhtml or start.startswith((b"<!doctype html", b"<html", b"<head", b"<body"))


def _text_type(head: bytes, suffix: str) -> Detected:
    if suffix in _TEXT_SUFFIXES:
        return _TEXT_SUFFIXES[suffix]
    if _starts_html(head) or suffix in _HTML_SUFFIXES:
        return Detected("text/html", "html")
    if suffix in CODE_LANGUAGES:
        return Detected(f"text/x-{CODE_LANGUAGES[suffix]}", "code")
    if head.startswith(b"#!"):
        return Detected("text/x-shell", "code")
    return Detected("text/plain", "text")


def looks_like_text(head: bytes) -> bool:
    """True for bytes with hardly any control characters, or with a UTF-16 or UTF-32 byte order mark or shape."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    nulls = head.count(0)
    if nulls:  # UTF-16 without a mark: nearly every second byte of Latin text is zero, all of one parity; shares chosen
        even = head[0::2].count(0)
        return len(head) >= 8 and nulls >= len(head) * 0.3 and max(even, nulls - even) >= nulls * 0.95
    controls = sum(head.count(code) for code in range(32) if code not in (8, 9, 10, 12, 13, 27))
    return controls <= len(head) * 0.005  # chosen: a stray form feed or bell is still text
