"""docx and pptx by python-docx and python-pptx: the words with headings, tables, slide numbers and notes; no macros, no links.

Both libraries load a whole package at once and without limits, hence the checked copy (`zipped.py`). Text is taken from
the XML below a paragraph rather than by `Paragraph.text`, which leaves out tracked insertions and content controls.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, UnsupportedError, require
from ultrafast_rag.extract import zipped
from ultrafast_rag.extract.cells import MAX_COLUMNS, table_element
from ultrafast_rag.types import Element, Part

_ELEMENTS_PER_PART = 500  # some 30 pages: small in memory, large enough to be worth a commit
# words, formulas, breaks and the paragraphs of text boxes; a box stands there twice, for new programs and (Fallback) for old
_TEXT = "(.//w:t | .//m:t | .//w:r/w:tab | .//w:br | .//w:cr | .//w:noBreakHyphen | .//w:p)[not(ancestor::mc:Fallback)]"
_NAMESPACES = {
    "w": "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
    "m": "http://schemas.openxmlformats.org/officeDocument/2006/math",
    "mc": "http://schemas.openxmlformats.org/markup-compatibility/2006",
}
_W = "{" + _NAMESPACES["w"] + "}"
_WRAPPERS = {f"{_W}{name}" for name in ("sdt", "sdtContent", "ins", "smartTag", "customXml", "moveTo")}


class OfficeExtractor:
    """A slide is one part; a text document comes in slices of some 500 paragraphs."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """Parts from `start_part` on. Raises CorruptError for a broken or oversized file, MissingExtraError."""
        try:
            copy = zipped.xml_copy(path, tree=True)
            with zipfile.ZipFile(copy) as archive:
                names, title = set(archive.namelist()), zipped.title_of(archive) or path.stem
            if any(name.startswith("word/") for name in names):
                pages, total = _docx(require("docx", package="python-docx", extra="office").Document(copy)), None
            elif any(name.startswith("ppt/") for name in names):
                slides = require("pptx", package="python-pptx", extra="office").Presentation(copy).slides
                pages, total = _pptx(slides), len(slides)
            else:
                raise UnsupportedError(f"{path.name} is an Office file without a document in it", path=str(path))
            for number, elements in enumerate(pages):
                if number >= start_part:
                    yield Part(number, tuple(elements), title=title, total=total, apart=total is not None)
        except zipped.BROKEN as error:
            raise CorruptError(f"{path.name} is a broken Office file: {error}", path=str(path)) from error


def _docx(document: Any) -> Iterator[list[Element]]:
    levels: dict[str, int] = {}
    for style in document.styles.element.findall(f"{_W}style"):
        levels[style.get(f"{_W}styleId", "")] = _style_level(style, levels)
    elements: list[Element] = []
    for block in _blocks(document.element.body):
        if block.tag == f"{_W}tbl":
            table = table_element(_grid(block))
            elements += [table] if table else []
        elif text := _text(block):
            level = _level(block, levels)
            elements.append(Element("heading" if level else "text", text, level=level))
        if len(elements) >= _ELEMENTS_PER_PART:
            yield elements
            elements = []
    if elements:
        yield elements


def _blocks(body: Any) -> Iterator[Any]:
    """Paragraphs and tables in order, through content controls and tracked insertions."""
    for child in body:
        if child.tag in (f"{_W}p", f"{_W}tbl"):
            yield child
        elif child.tag in _WRAPPERS:
            yield from _blocks(child)


def _text(paragraph: Any) -> str:
    from lxml import etree

    pieces = []
    for node in etree.ElementBase.xpath(paragraph, _TEXT, namespaces=_NAMESPACES):
        pieces.append((node.text or "") if node.tag.endswith("}t") else "-" if node.tag == f"{_W}noBreakHyphen" else " ")
    return " ".join("".join(pieces).split())


def _style_level(style: Any, known: dict[str, int]) -> int:
    """Heading depth of a style: by its outline level, else its name, else that of the style it is based on."""
    name, outline, base = (_value(style.find(path)) for path in (f"{_W}name", f"{_W}pPr/{_W}outlineLvl", f"{_W}basedOn"))
    if name.lower() == "title":
        return 1
    if outline.isdigit():
        return int(outline) + 1 if int(outline) < 6 else 0
    match = re.fullmatch(r"heading ([1-6])", name.lower())
    return int(match.group(1)) if match else known.get(base, 0)


def _level(paragraph: Any, levels: dict[str, int]) -> int:
    outline = _value(paragraph.find(f"{_W}pPr/{_W}outlineLvl"))
    if outline.isdigit():
        return int(outline) + 1 if int(outline) < 6 else 0
    return levels.get(_value(paragraph.find(f"{_W}pPr/{_W}pStyle")), 0)


def _value(node: Any) -> str:
    return "" if node is None else str(node.get(f"{_W}val", ""))


def _grid(table: Any) -> Iterator[list[str]]:
    """Cell texts by column: a cell over several columns leaves the others empty, one over several rows is repeated."""
    above: list[str] = []
    for row in table.tr_lst:
        line: list[str] = []
        for cell in row.tc_lst:
            if cell.vMerge == "continue":
                text = above[len(line)] if len(line) < len(above) else ""
            else:
                text = " ".join(filter(None, map(_text, cell.iter(f"{_W}p"))))
            line += [text, *[""] * (min(cell.grid_span, MAX_COLUMNS) - 1)]
        above = line[:MAX_COLUMNS]
        yield above


def _pptx(slides: Any) -> Iterator[list[Element]]:
    for page, slide in enumerate(slides, 1):
        title = slide.shapes.title
        heading = " ".join(title.text_frame.text.split()) if title is not None else ""
        elements = [Element("heading", heading, page=page, level=1)] if heading else []
        for shape in _shapes(slide.shapes):
            if title is None or shape.shape_id != title.shape_id:
                elements += _shape(shape, page)
        if slide.has_notes_slide and (frame := slide.notes_slide.notes_text_frame) is not None and frame.text.strip():
            elements.append(Element("text", _paragraphs(frame), page=page, metadata={"notes": True}))
        yield elements


def _shapes(shapes: Any) -> Iterator[Any]:
    """Shapes in drawing order, through groups."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes)
        else:
            yield shape


def _shape(shape: Any, page: int) -> list[Element]:
    if getattr(shape, "has_table", False):
        table = table_element(([cell.text for cell in row.cells] for row in shape.table.rows), page=page)
        return [table] if table else []
    if getattr(shape, "has_text_frame", False) and (text := _paragraphs(shape.text_frame)):
        return [Element("text", text, page=page)]
    return []


def _paragraphs(frame: Any) -> str:
    return "\n".join(text for paragraph in frame.paragraphs if (text := " ".join(paragraph.text.split())))
