"""docx, pptx and xlsx by the standard library: the words with headings, tables, slide and sheet numbers; no macros, no links.

The files are zips of XML from strangers: member sizes are capped by what is really inflated, and a document type
declaration (the door to entity expansion) is refused before parsing.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, UnsupportedError
from ultrafast_rag.types import Element, Part

MAX_MEMBER_BYTES = 64 << 20
_ROWS_A_PART = 500
_DOCX_ELEMENTS_A_PART = 500
_MAX_COLUMNS = 200
_NUMBER = re.compile(r"(\d+)\.xml$")


class OfficeExtractor:
    """A slide or a slice of a sheet is one part; a text document comes in slices of some 500 paragraphs."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """Parts from `start_part` on. Raises CorruptError for a broken or oversized file."""
        try:
            with zipfile.ZipFile(path) as archive:
                names = set(archive.namelist())
                if "word/document.xml" in names:
                    pages = _docx(archive)
                elif "ppt/presentation.xml" in names:
                    pages = _pptx(archive)
                elif "xl/workbook.xml" in names:
                    pages = _xlsx(archive)
                else:
                    raise UnsupportedError(f"{path.name} is an Office file without a document in it", path=str(path))
                title = _title(archive) or path.stem
                for number, elements in enumerate(pages):
                    if number >= start_part:
                        yield Part(number, tuple(elements), title=title)
        except (
            zipfile.BadZipFile,
            zlib.error,
            ElementTree.ParseError,
            KeyError,
            ValueError,
            EOFError,
            NotImplementedError,
            OSError,
        ) as error:
            raise CorruptError(f"{path.name} is a broken Office file: {error}", path=str(path)) from error


def _read(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    with archive.open(name) as member:
        content = member.read(MAX_MEMBER_BYTES + 1)
    if len(content) > MAX_MEMBER_BYTES:
        raise ValueError(f"{name} holds over {MAX_MEMBER_BYTES >> 20} MB")
    if b"<!DOCTYPE" in content[:4096] or b"<!ENTITY" in content or "<!DOCTYPE".encode("utf-16-le") in content:
        raise ValueError(f"{name} declares entities, which no Office program writes")
    return ElementTree.fromstring(content)


def _local(element: ElementTree.Element) -> str:
    return element.tag.rsplit("}", 1)[-1]


def _attribute(element: ElementTree.Element | None, name: str) -> str:
    """An attribute by its local name: strict and transitional files differ in namespaces only."""
    if element is None:
        return ""
    return next((value for key, value in element.attrib.items() if key.rsplit("}", 1)[-1] == name), "")


def _find(element: ElementTree.Element, *names: str) -> Iterator[ElementTree.Element]:
    return (child for child in element.iter() if _local(child) in names)


def _first(element: ElementTree.Element, name: str) -> ElementTree.Element | None:
    return next(_find(element, name), None)


def _title(archive: zipfile.ZipFile) -> str:
    if "docProps/core.xml" not in archive.namelist():
        return ""
    title = _first(_read(archive, "docProps/core.xml"), "title")
    return " ".join((title.text or "").split()) if title is not None else ""


def _text(paragraph: ElementTree.Element) -> str:
    pieces = []
    for child in _find(paragraph, "t", "tab", "br", "cr"):
        pieces.append(child.text or "" if _local(child) == "t" else " ")
    return " ".join("".join(pieces).split())


def _docx(archive: zipfile.ZipFile) -> Iterator[list[Element]]:
    body = _first(_read(archive, "word/document.xml"), "body")
    levels = _style_levels(archive)
    elements: list[Element] = []
    for block in _blocks(body) if body is not None else ():
        if _local(block) == "tbl":
            elements += _table(block, "tr", "tc")
        elif text := _text(block):
            style = _attribute(_first(block, "pStyle"), "val")
            level = levels.get(style, 0)
            elements.append(Element("heading", text, level=level) if level else Element("text", text))
        if len(elements) >= _DOCX_ELEMENTS_A_PART:
            yield elements
            elements = []
    if elements:
        yield elements


def _blocks(body: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """Paragraphs and tables in order, through content controls."""
    for child in body:
        if _local(child) in ("p", "tbl"):
            yield child
        elif _local(child) in ("sdt", "sdtContent", "ins", "smartTag"):
            yield from _blocks(child)


def _style_levels(archive: zipfile.ZipFile) -> dict[str, int]:
    """Style id -> heading depth, by the outline level a style carries or by its name."""
    levels: dict[str, int] = {}
    if "word/styles.xml" not in archive.namelist():
        return levels
    for style in _find(_read(archive, "word/styles.xml"), "style"):
        name = _attribute(_first(style, "name"), "val").lower()
        outline = _attribute(_first(style, "outlineLvl"), "val")
        if name == "title":
            levels[_attribute(style, "styleId")] = 1
        elif outline.isdigit() and int(outline) < 6:
            levels[_attribute(style, "styleId")] = int(outline) + 1
        elif match := re.fullmatch(r"heading ([1-6])", name):
            levels[_attribute(style, "styleId")] = int(match.group(1))
    return levels


def _table(table: ElementTree.Element, row_name: str, cell_name: str, page: int | None = None) -> list[Element]:
    rows = []
    for row in (child for child in table if _local(child) == row_name):
        cells = [" ".join(filter(None, map(_text, _find(cell, "p")))) for cell in row if _local(cell) == cell_name]
        if any(cells):
            rows.append(" | ".join(cells))
    return [Element("table", "\n".join(rows), page=page)] if rows else []


def _numbered(archive: zipfile.ZipFile, folder: str) -> list[str]:
    """Members like folder/slide12.xml in the order of their numbers."""
    found = [
        (int(match.group(1)), name) for name in archive.namelist() if name.startswith(folder) and (match := _NUMBER.search(name))
    ]
    return [name for _, name in sorted(found)]


def _pptx(archive: zipfile.ZipFile) -> Iterator[list[Element]]:
    for page, name in enumerate(_numbered(archive, "ppt/slides/slide"), 1):
        elements: list[Element] = []
        for shape in _find(_read(archive, name), "sp", "tbl"):
            if _local(shape) == "tbl":
                elements += _table(shape, "tr", "tc", page)
                continue
            text = "\n".join(filter(None, map(_text, _find(shape, "p"))))
            is_title = _attribute(_first(shape, "ph"), "type") in ("title", "ctrTitle")
            if text:
                elements.append(
                    Element("heading", " ".join(text.split()), page=page, level=1)
                    if is_title
                    else Element("text", text, page=page)
                )
        yield sorted(elements, key=lambda element: element.kind != "heading")


def _xlsx(archive: zipfile.ZipFile) -> Iterator[list[Element]]:
    shared: list[str] = []
    if "xl/sharedStrings.xml" in archive.namelist():
        shared = ["".join(t.text or "" for t in _find(si, "t")) for si in _find(_read(archive, "xl/sharedStrings.xml"), "si")]
    names = [_attribute(sheet, "name") for sheet in _find(_read(archive, "xl/workbook.xml"), "sheet")]
    for page, name in enumerate(_numbered(archive, "xl/worksheets/sheet"), 1):
        heading = names[page - 1] if page <= len(names) else f"Sheet {page}"
        rows = [" | ".join(row) for row in _rows(_read(archive, name), shared) if any(row)]
        for start in range(0, len(rows), _ROWS_A_PART):
            head = rows[:1] if start else []  # the header row goes with every slice
            text = "\n".join([*head, *rows[start : start + _ROWS_A_PART]])
            yield [Element("heading", heading, page=page, level=1), Element("table", text, page=page)]


def _rows(sheet: ElementTree.Element, shared: list[str]) -> Iterator[list[str]]:
    for row in _find(sheet, "row"):
        cells: list[str] = []
        for cell in _find(row, "c"):
            column = _column(_attribute(cell, "r"))
            if column >= _MAX_COLUMNS:
                break
            cells += [""] * (column - len(cells))
            cells.append(_value(cell, shared))
        yield cells


def _column(reference: str) -> int:
    """0 for "A7", 26 for "AA1"; 0 where there is no reference."""
    number = 0
    for letter in reference:
        if not letter.isalpha():
            break
        number = number * 26 + ord(letter.upper()) - 64
    return max(0, number - 1)


def _value(cell: ElementTree.Element, shared: list[str]) -> str:
    kind = _attribute(cell, "t")
    if kind == "inlineStr":
        return "".join(t.text or "" for t in _find(cell, "t"))
    value = _first(cell, "v")
    text = (value.text or "") if value is not None else ""
    if kind == "s" and text.isdigit():
        return shared[int(text)] if int(text) < len(shared) else ""
    return {"1": "TRUE", "0": "FALSE"}.get(text, text) if kind == "b" else " ".join(text.split())
