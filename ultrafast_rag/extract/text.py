"""Plain text, Markdown and source code, streamed in slices cut where a reader would pause.

Encodings: byte order mark, else UTF-8, else UTF-16 by its zero bytes, else Windows-1252, which never fails.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, ExtractionError
from ultrafast_rag.extract.detect import CODE_LANGUAGES, looks_like_text
from ultrafast_rag.types import Element, Part

PART_CHARS = 200_000  # a slice of some 100 book pages: small in memory, large enough to be worth a commit
_LONGEST_LINE = 100_000  # characters; a longer one (minified code, data) is cut there, half a part

_FENCE = re.compile(r"^\s{0,3}(`{3,}|~{3,})\s*([\w+#.-]*)")
_HEADING = re.compile(r"^\s{0,3}(#{1,6})\s+(.+?)\s*#*\s*$")
_TABLE_RULE = re.compile(r"^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)\s]*(?:\s+\"[^\"]*\")?\)")
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_DEFINITION = re.compile(
    r"^(?:@\w|(?:export |default |public |private |protected |internal |static |final |abstract |async |pub(?:\([^)]*\))? |"
    r"inline |unsafe |extern |virtual |override )*"
    r"(?:def|class|function|func|fn|interface|struct|enum|trait|impl|module|namespace|type|object|sub|CREATE)\b"
    r"|\w[\w<>,:&*\[\] ]*\s[\w:~]+\([^;]*\)\s*(?:const)?\s*\{?\s*$)"
)


def encoding_of(head: bytes) -> str:
    """The encoding of a text by its first bytes."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if head.startswith(mark):
            return name
    if nulls := head.count(0):
        return "utf-16-be" if head[0::2].count(0) * 2 > nulls else "utf-16-le"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # incremental: a character cut at the end is no error
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def open_text(path: Path) -> TextIO:
    """The file as text; undecodable bytes become U+FFFD. Raises CorruptError when empty or not text."""
    try:
        raw = path.open("rb")
        head = raw.read(65536)
        raw.seek(0)
    except OSError as error:
        raise ExtractionError(f"{path.name} cannot be opened: {error.strerror or error}", path=str(path)) from error
    if not head.strip():
        raw.close()
        raise CorruptError(f"{path.name} is empty", path=str(path))
    if not looks_like_text(head[:4096]):
        raw.close()
        raise CorruptError(f"{path.name} holds binary data, not text", path=str(path))
    return io.TextIOWrapper(raw, encoding=encoding_of(head), errors="replace")


def slices(file: TextIO, *, fenced: bool = False) -> Iterator[tuple[int, str]]:
    """(number, text) of about PART_CHARS characters, cut at blank lines; never inside a code fence when `fenced`.

    A fence or a paragraph that does not end within twice that length is cut all the same.
    """
    lines: list[str] = []
    size, number, inside = 0, 0, False
    while line := file.readline(_LONGEST_LINE):
        lines.append(line)
        size += len(line)
        inside ^= fenced and _FENCE.match(line) is not None
        if (size >= PART_CHARS and not line.strip() and not inside) or size >= 2 * PART_CHARS:
            yield number, "".join(lines)
            lines, size, number = [], 0, number + 1
    if lines:
        yield number, "".join(lines)


def clean(text: str) -> str:
    """Without null characters and carriage returns."""
    return text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")


class TextExtractor:
    """Paragraphs of plain text, one per element."""

    fenced = False

    def __init__(self, config: Config) -> None:
        self._config = config

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """Slices as parts; raises CorruptError for an empty or binary file."""
        with open_text(path) as file:
            title = path.stem
            for number, text in slices(file, fenced=self.fenced):
                elements, heading = self.elements_of(clean(text), path)
                title = heading if number == 0 and heading else title
                if number >= start_part:
                    yield Part(number, tuple(elements), title=title)

    def elements_of(self, text: str, path: Path) -> tuple[list[Element], str]:
        """The elements of a text, and the title in it or ""."""
        return [Element("text", words) for block in re.split(r"\n\s*\n", text) if (words := block.strip())], ""


class MarkdownExtractor(TextExtractor):
    """Headings with level, paragraphs, tables and fenced code."""

    fenced = True

    def elements_of(self, text: str, path: Path) -> tuple[list[Element], str]:
        """The elements of a text, and the title in it or ""."""
        text, front_title = _front_matter(text)
        elements = list(_markdown_blocks(_COMMENT.sub("", text).split("\n")))
        headings = sorted((e for e in elements if e.kind == "heading"), key=lambda e: e.level)
        return elements, front_title or (headings[0].text if headings else "")


def _front_matter(text: str) -> tuple[str, str]:
    """Markdown without its YAML front matter, and the title in it."""
    match = re.match(r"---\n(.*?)\n---\s*\n", text, re.S)
    if not match:
        return text, ""
    title = re.search(r"^title:\s*[\"']?(.+?)[\"']?\s*$", match.group(1), re.M)
    return text[match.end() :], title.group(1) if title else ""


def plain_inline(text: str) -> str:
    """Markdown inline marks removed: links keep their words, emphasis and code ticks go."""
    text = _LINK.sub(r"\1", text)
    text = re.sub(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", r"\2", text)
    return re.sub(r"(?<![\w*])[*_](?=\S)([^*_\n]+?)(?<=\S)[*_](?![\w*])", r"\1", text).replace("`", "")


def _markdown_blocks(lines: list[str]) -> Iterator[Element]:
    paragraph: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        element: Element | None = None
        if fence := _FENCE.match(line):
            end = next((i for i in range(at, len(lines)) if lines[i].strip().startswith(fence.group(1))), len(lines))
            language = fence.group(2)
            element = Element("code", "\n".join(lines[at:end]), metadata={"language": language} if language else {})
            at = end + 1
        elif heading := _HEADING.match(line):
            element = Element("heading", plain_inline(heading.group(2)), level=len(heading.group(1)))
        elif paragraph and len(paragraph) == 1 and re.fullmatch(r"\s{0,3}(=+|-{2,})\s*", line):
            element = Element("heading", plain_inline(paragraph.pop().strip()), level=1 if "=" in line else 2)
        elif "|" in line and at < len(lines) and "-" in lines[at] and _TABLE_RULE.match(lines[at]):
            end = next((i for i in range(at + 1, len(lines)) if "|" not in lines[i]), len(lines))
            element = Element("table", "\n".join(_table_row(row) for row in [line, *lines[at + 1 : end]]))
            at = end
        elif line.strip():
            paragraph.append(line)
            continue
        if paragraph:
            yield Element("text", plain_inline("\n".join(paragraph)).strip())
            paragraph = []
        if element is not None and element.text.strip():
            yield element
    if paragraph:
        yield Element("text", plain_inline("\n".join(paragraph)).strip())


def _table_row(line: str) -> str:
    cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
    return " | ".join(plain_inline(cell.strip()).replace("\\|", "|") for cell in cells)


class CodeExtractor(TextExtractor):
    """Source code cut at top-level definitions; language and first line in the metadata."""

    def elements_of(self, text: str, path: Path) -> tuple[list[Element], str]:
        """The elements of a text, and the title in it or ""."""
        language = CODE_LANGUAGES.get(path.suffix.lower(), "shell")
        elements: list[Element] = []
        block: list[str] = []
        start = line_number = 1
        for line_number, line in enumerate(text.split("\n"), 1):
            if block and _DEFINITION.match(line) and not _belongs(block):
                elements += _code(block, start, language)
                block, start = [], line_number
            block.append(line)
        elements += _code(block, start, language)
        return elements, path.name


def _belongs(block: list[str]) -> bool:
    """True when what stands so far is only the decorators or comments of the definition that follows."""
    return all(not line.strip() or line.lstrip().startswith(("@", "#", "//", "/*", "*", "--")) for line in block)


def _code(block: list[str], start: int, language: str) -> list[Element]:
    text = "\n".join(block).rstrip()
    return [Element("code", text.lstrip("\n"), metadata={"language": language, "line": start})] if text.strip() else []
