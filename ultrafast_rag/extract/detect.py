"""What a file is, told by its first bytes and only then by its suffix; and which files a source means.

Light enough for the parent process: standard library only. The extractors themselves are imported
by name when one is opened, so a run over Markdown never loads a PDF or video library.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, cast

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, ExtractionError, UnsupportedError
from ultrafast_rag.extract.zipped import member_names
from ultrafast_rag.ports import Extractor

ExtractorName = Literal["pdf", "image", "audio", "video", "text", "markdown", "html", "code", "office", "sheet", "csv"]

READS = (
    "PDF; pictures (jpg, png, webp, tiff, bmp, gif, avif, heic); recordings and films that FFmpeg decodes; "
    "plain text, Markdown, HTML, source code; docx, pptx, xlsx"
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
_HTML_SUFFIXES = {".html", ".htm", ".xhtml"}
_MARKDOWN_SUFFIXES = {".md", ".markdown", ".mdx", ".rmd", ".qmd"}
_SIDECARS = {".srt", ".vtt"}
_NOISE = {"__pycache__", "node_modules", "thumbs.db", "desktop.ini", "__macosx", "lost+found"}
_NOISE_SUFFIXES = {".pyc", ".pyo", ".tmp", ".part", ".crdownload", ".swp", ".lock"}

_MAGIC: tuple[tuple[int, bytes, str, ExtractorName], ...] = (
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
    (b"\xd0\xcf\x11\xe0", "an old or password-protected Office file; save it without a password as docx, pptx or xlsx"),
    (b"{\\rtf", "an RTF file; save it as docx or PDF"),
    (b"%!PS", "a PostScript file; convert it to PDF"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a rar archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
)


class Detected(NamedTuple):
    """A file's media type and the extractor that reads it."""

    media_type: str
    extractor: ExtractorName


_OPENXML = "application/vnd.openxmlformats-officedocument."
_OFFICE = {
    b"word": Detected(f"{_OPENXML}wordprocessingml.document", "office"),
    b"ppt": Detected(f"{_OPENXML}presentationml.presentation", "office"),
    b"xl": Detected(f"{_OPENXML}spreadsheetml.sheet", "sheet"),
}


def detect(path: Path) -> Detected:
    """Tell a file by its content, then its suffix.

    Raises CorruptError for an empty file, UnsupportedError for what nothing here reads,
    ExtractionError when it cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
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
    raise UnsupportedError(f"{path.name} is not a type that is read. Read are: {READS}", path=str(path))


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
    if b"%PDF-" in head[:1024]:
        return Detected("application/pdf", "pdf")
    for offset, magic, kind, extractor in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return Detected(kind, extractor)
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124):
        return Detected("image/bmp", "image")
    if head[:4] == b"PK\x03\x04":
        return _zip_type(path)
    for magic, what in _REFUSED:
        if head.startswith(magic):
            raise UnsupportedError(f"{path.name} is {what}. Read are: {READS}", path=str(path))
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


def _zip_type(path: Path) -> Detected:
    """By the folders of an Office file; the member names, not their contents, and a bounded number of them."""
    try:
        for name in member_names(path):
            folder, _, member = name.partition(b"/")
            if member and folder in _OFFICE:
                return _OFFICE[folder]
    except (OSError, ValueError) as error:
        raise CorruptError(f"{path.name} is a broken zip or Office file: {error}", path=str(path)) from error
    raise UnsupportedError(f"{path.name} is a zip archive; unpack it first. Supported: {READS}", path=str(path))


def _starts_html(head: bytes) -> bool:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:512].lower()
    is_xhtml = start.startswith(b"<?xml") and b"<html" in start
    return is_xhtml or start.startswith((b"<!doctype html", b"<html", b"<head", b"<body"))


def _text_type(head: bytes, suffix: str) -> Detected:
    if suffix in _MARKDOWN_SUFFIXES:
        return Detected("text/markdown", "markdown")
    if _starts_html(head) or suffix in _HTML_SUFFIXES:
        return Detected("text/html", "html")
    if suffix in (".csv", ".tsv", ".tab"):
        return Detected("text/csv" if suffix == ".csv" else "text/tab-separated-values", "csv")
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
    if nulls:  # UTF-16 without a mark: every second byte of Latin text is zero, and nearly all of one parity
        even = head[0::2].count(0)
        return len(head) >= 8 and nulls >= len(head) * 0.3 and max(even, nulls - even) >= nulls * 0.95
    controls = sum(head.count(code) for code in range(32) if code not in (8, 9, 10, 12, 13, 27))
    return controls <= len(head) * 0.005


def discover(sources: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]) -> list[tuple[Path, str]]:
    """Every file the sources mean, folders walked in sorted order, each once: (path, "" or why it cannot be read).

    Hidden files, build leftovers, and transcripts beside their recording are passed over inside folders, but not
    when named. Never raises: a missing path, an empty folder or a closed door is an entry with its reason.
    """
    named = [sources] if isinstance(sources, (str, os.PathLike)) else sources
    found: dict[str, tuple[Path, str]] = {}
    for source in named:
        for path, reason in _expand(Path(source).expanduser()):
            found.setdefault(os.path.realpath(path) if not reason else str(path), (path, reason))
    return list(found.values())


def _expand(source: Path) -> Iterator[tuple[Path, str]]:
    try:
        if source.is_dir():
            files = list(_walk(source, set()))
            yield from files or [(source, f"folder {source} holds no file to read")]
        elif not source.exists():
            yield source, f"{source} does not exist"
        elif not source.is_file():
            yield source, f"{source} is neither a file nor a folder"
        else:
            yield source, "" if os.access(source, os.R_OK) else f"no permission to read {source}"
    except (OSError, ValueError) as error:  # ValueError: an embedded null byte
        yield source, f"{source} cannot be opened: {error}"


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, str]]:
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield folder, f"no permission to read {folder}" if isinstance(error, PermissionError) else f"{folder}: {error}"
        return
    media = {Path(e.name).stem for e in entries if Path(e.name).suffix.lower() in _AUDIO_SUFFIXES | _VIDEO_SUFFIXES}
    for entry in entries:
        path = Path(entry.path)
        suffix = path.suffix.lower()
        if entry.name.startswith((".", "~$")) or entry.name.lower() in _NOISE or suffix in _NOISE_SUFFIXES:
            continue
        if suffix in _SIDECARS and (path.stem in media or Path(path.stem).stem in media):
            continue
        if entry.is_dir():
            yield from _walk(path, seen)
        elif entry.is_file():
            yield path, "" if os.access(path, os.R_OK) else f"no permission to read {path}"
        elif entry.is_symlink():
            yield path, f"{path} is a link to nothing"
