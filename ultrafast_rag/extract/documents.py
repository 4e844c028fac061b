"""OpenDocument texts and slides, EPUB books, RTF, e-mail and Jupyter notebooks: small readers over the standard library.

Kept small on purpose: words, headings, tables and code in order. Pictures and attachments are left out; attachments are
named in the report.
"""

from __future__ import annotations

import email
import email.policy
import json
import posixpath
import re
import zipfile
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, EncryptedError, require
from ultrafast_rag.extract import zipped
from ultrafast_rag.extract.cells import MAX_COLUMNS, table_element
from ultrafast_rag.extract.detect import looks_like_text
from ultrafast_rag.extract.html import parts_of, read_markup
from ultrafast_rag.extract.text import MarkdownExtractor, clean, encoding_of, open_text
from ultrafast_rag.types import Element, Part

MAX_BYTES = 64 << 20  # of an e-mail or a notebook, read whole: attachments and plots inside fit ten times over
_OUTPUT_CHARS = 4000  # of one output of a notebook's cell; a longer one is a log or a dump of data


def _whole(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise CorruptError(f"{path.name} is over {MAX_BYTES >> 20} MB; split it first", path=str(path))
    return content


class OpenDocumentExtractor:
    """odt and odp: a slide is one part; a text comes in slices of some 500 paragraphs."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """Parts from `start_part` on. Raises CorruptError for a broken or oversized file, EncryptedError."""
        try:
            with zipped.open_zip(path) as archive:
                if b"encryption-data" in zipped.read_xml(archive, "META-INF/manifest.xml"):
                    raise EncryptedError(f"{path.name} is protected by a password; save it without one", path=str(path))
                content = zipped.read_xml(archive, "content.xml")
                if content.count(b"<") > zipped.MAX_TAGS:
                    raise ValueError("it holds too many XML tags; split it into several files")
                title = zipped.title_of(archive, "meta.xml") or path.stem
            root = ElementTree.fromstring(content)
        except zipped.BROKEN as error:
            raise CorruptError(f"{path.name} is a broken OpenDocument file: {error}", path=str(path)) from error
        slides = root.findall("{*}body/{*}presentation/{*}page")
        for number in range(start_part, len(slides)):
            yield Part(number, tuple(_odp(slides[number], number + 1)), title=title, total=len(slides), apart=True)
        if not slides:
            styles = [
                node for node in root.iterfind("{*}automatic-styles/{*}style") if _attribute(node, "parent-style-name") == "Title"
            ]
            titles = {"Title", *(_attribute(style, "name") for style in styles)}
            elements = [element for body in root.iterfind("{*}body/*") for element in _odt(body, None, titles)]
            yield from parts_of(elements, title, start_part)


def _name(node: ElementTree.Element) -> str:
    return node.tag.rsplit("}", 1)[-1] if isinstance(node.tag, str) else ""


def _attribute(node: ElementTree.Element, name: str) -> str:
    return next((value for key, value in node.attrib.items() if key.endswith("}" + name)), "")


def _odt(node: ElementTree.Element, page: int | None, titles: Set[str] = frozenset()) -> Iterator[Element]:
    """Headings, paragraphs, list entries and tables below a node, in order; `titles` are styles of the document's title."""
    for child in node:
        kind, text = _name(child), ""
        if kind in ("h", "p"):
            text = " ".join(_odf_text(child).split())
        if kind == "h" and text:
            level = _attribute(child, "outline-level")
            yield Element("heading", text, level=int(level) if level in set("123456") else 1, page=page)
        elif kind == "p" and text:
            is_title = _attribute(child, "style-name") in titles
            yield Element("heading" if is_title else "text", text, level=int(is_title), page=page)
        elif kind == "table":
            table = table_element(map(_odf_cells, child.iterfind(".//{*}table-row")), page=page)
            yield from [table] if table else []
        elif kind not in ("h", "p", "tracked-changes", "table-of-content", "notes"):
            yield from _odt(child, page, titles)


def _odf_text(node: ElementTree.Element) -> str:
    pieces = [node.text or ""]
    for child in node:
        name = _name(child)
        pieces.append(" " if name in ("s", "tab", "line-break") else "" if name in ("annotation", "note") else _odf_text(child))
        pieces.append((" " if name == "p" else "") + (child.tail or ""))
    return "".join(pieces)


def _odf_cells(row: ElementTree.Element) -> list[str]:
    cells: list[str] = []
    for cell in row:
        if _name(cell) in ("table-cell", "covered-table-cell"):
            again = _attribute(cell, "number-columns-repeated")
            times = min(int(again), MAX_COLUMNS) if again.isdecimal() and len(again) < 9 else 1
            cells += [" ".join(_odf_text(cell).split())] * times
    return cells[:MAX_COLUMNS]


def _odp(slide: ElementTree.Element, page: int) -> list[Element]:
    elements: list[Element] = []
    for frame in slide:
        if _attribute(frame, "class") == "title" and (title := " ".join(_odf_text(frame).split())):
            elements.insert(0, Element("heading", title, page=page, level=1))
        elif _name(frame) != "notes":
            elements += _odt(frame, page)
    notes = " ".join(" ".join(_odf_text(part) for part in slide.iterfind("{*}notes")).split())
    return [*elements, Element("text", notes, page=page, metadata={"notes": True})] if notes else elements


class EpubExtractor:
    """A book's chapters in reading order, one a part."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """Parts from `start_part` on; a broken chapter is a part with its failure. Raises CorruptError."""
        try:
            with zipped.open_zip(path) as archive:
                title, chapters = _spine(archive)
                for number in range(start_part, len(chapters)):
                    yield self._chapter(archive, chapters[number], Part(number, title=title or path.stem, total=len(chapters)))
        except zipped.BROKEN as error:
            raise CorruptError(f"{path.name} is a broken EPUB book: {error}", path=str(path)) from error

    def _chapter(self, archive: zipfile.ZipFile, member: str, part: Part) -> Part:
        try:
            markup = zipped.read_xml(archive, member)
            if not looks_like_text(markup[:4096]):
                raise ValueError("it is encrypted, or no text")
            elements = read_markup(markup.decode(encoding_of(markup), "replace"), member)[1]
        except (*zipped.BROKEN, CorruptError) as error:
            return Part(part.number, title=part.title, total=part.total, failure=f"{member} could not be read: {error}")
        return Part(part.number, tuple(elements), title=part.title, total=part.total)


def _spine(archive: zipfile.ZipFile) -> tuple[str, list[str]]:
    """The book's title, and the members of its chapters. Raises one of zipped.BROKEN."""
    container = ElementTree.fromstring(zipped.read_xml(archive, "META-INF/container.xml"))
    package_name = next((node.get("full-path", "") for node in container.iter() if _name(node) == "rootfile"), "")
    package = ElementTree.fromstring(zipped.read_xml(archive, package_name))
    items = {node.get("id"): node for node in package.iterfind("{*}manifest/{*}item")}
    named = [items[node.get("idref")] for node in package.iterfind("{*}spine/{*}itemref") if node.get("idref") in items]
    folder = posixpath.dirname(package_name)
    chapters = [posixpath.normpath(posixpath.join(folder, unquote(item.get("href", "")))) for item in named]
    return " ".join(package.findtext("{*}metadata/{*}title", "").split()), list(dict.fromkeys(chapters))


class RtfExtractor:
    """The words of an RTF file by striprtf, one element a paragraph, tables as lines."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """Parts from `start_part` on. Raises CorruptError for a broken or oversized file, MissingExtraError."""
        striprtf = require("striprtf.striprtf", package="striprtf", extra="office")
        try:
            text = striprtf.rtf_to_text(_whole(path).decode("latin-1"), encoding="cp1252", errors="replace")
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            raise CorruptError(f"{path.name} is a broken RTF file: {error}", path=str(path)) from error
        words = [" ".join(line.replace("\0", "").split()) for line in text.splitlines()]
        yield from parts_of([Element("text", line) for line in words if line], path.stem, start_part)


class MailExtractor:
    """An e-mail (.eml): its subject, who wrote when to whom, and the message; attachments are named in the notes."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """Parts from `start_part` on. Raises CorruptError for a broken or oversized file."""
        try:
            mail: Any = email.message_from_bytes(_whole(path), policy=email.policy.default)
            head = [f"{name}: {mail[name]}" for name in ("From", "To", "Cc", "Date") if mail[name]]
            subject = " ".join(str(mail["Subject"] or "").split()) or path.stem
            body = mail.get_body(("plain", "html"))
            text, is_html = (_decoded(body), body.get_content_subtype() == "html") if body is not None else ("", False)
            attached = [part.get_filename() or part.get_content_type() for part in mail.iter_attachments()]
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            raise CorruptError(f"{path.name} is a broken e-mail: {error}", path=str(path)) from error
        words = read_markup(text, path.name)[1] if is_html else _paragraphs(text)
        elements = [Element("heading", subject, level=1), *_paragraphs("\n".join(head)), *words]
        notes = (f"its attachments are not read, save them as files of their own: {', '.join(attached)}",) if attached else ()
        yield from parts_of(elements, subject, start_part, notes)


def _decoded(body: Any) -> str:
    try:
        return str(body.get_content())
    except LookupError:  # a character set that nobody knows
        return str(body.get_payload(decode=True).decode("utf-8", "replace"))


def _paragraphs(text: str) -> list[Element]:
    return [Element("text", words) for block in re.split(r"\n\s*\n", clean(text)) if (words := block.strip())]


class NotebookExtractor:
    """A Jupyter notebook's cells in order: Markdown, code, and what the code printed."""

    def __init__(self, config: Config) -> None:
        self._markdown = MarkdownExtractor(config)

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """Parts from `start_part` on. Raises CorruptError for what is no notebook of format 4."""
        with open_text(path) as file:
            content = file.read(MAX_BYTES + 1)
        try:
            notebook = json.loads(content, strict=False)  # some programs leave control characters in strings
            language = str(notebook.get("metadata", {}).get("kernelspec", {}).get("language", "python"))
            elements = [element for cell in notebook["cells"] for element in self._cell(cell, path, language)]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            words = f"{path.name} is not a notebook of format 4 (open it in Jupyter and save it): {error!r}"
            raise CorruptError(words, path=str(path)) from error
        title = next((element.text for element in elements if element.kind == "heading"), path.stem)
        yield from parts_of(elements, title, start_part)

    def _cell(self, cell: dict[str, Any], path: Path, language: str) -> list[Element]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            return self._markdown.elements_of(source, path)[0]
        printed = [text[:_OUTPUT_CHARS] for output in cell.get("outputs", ()) if (text := _printed(output))]
        elements = [Element("code", source, metadata={"language": language})] if source.strip() else []
        return [*elements, *(Element("text", text, metadata={"output": True}) for text in printed)]


def _printed(output: dict[str, Any]) -> str:
    found = output.get("text") or output.get("data", {}).get("text/plain", "")
    return "".join(found).strip()
