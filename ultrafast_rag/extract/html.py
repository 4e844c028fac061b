"""HTML pages: what a reader sees, as headings, paragraphs, lists, tables and code. Fetches nothing, runs nothing."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, require
from ultrafast_rag.extract.cells import MAX_COLUMNS, closed_up, table_element
from ultrafast_rag.extract.text import open_text
from ultrafast_rag.types import Element, Part

MAX_CHARS = 20_000_000  # parsing takes some 40 bytes of memory each; a page that people read has under 1 million
_PART_ELEMENTS = 500  # some 30 pages of paragraphs
_LONGEST_CELL = 1500  # characters; longer ones show a table used for page layout
_BREAK = "\x1f"  # stands for <br> once the tree is cleaned
_DROPPED = (
    "script", "style", "noscript", "template", "nav", "svg", "iframe", "object", "form", "button", "select", "head", "dialog",
    "canvas", "math",
)  # fmt: skip
_ROLES = {"navigation", "banner", "contentinfo", "search", "menu", "menubar", "dialog", "alertdialog"}
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = {
    "p", "div", "section", "article", "main", "aside", "header", "footer", "blockquote", "ul", "ol", "dl", "li", "dt", "dd",
    "table", "pre", "figure", "figcaption", "details", "summary", "address", "body", "html", "center", "fieldset", "hr",
    *_HEADINGS,
}  # fmt: skip


class HtmlExtractor:
    """The visible text of a page; navigation, scripts, forms and hidden parts are left out."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """Parts of some 500 elements each. Raises CorruptError for an empty, binary or oversized file."""
        with open_text(path) as file:
            markup = file.read(MAX_CHARS + 1)
        if len(markup) > MAX_CHARS:
            limit = MAX_CHARS // 1_000_000
            raise CorruptError(f"{path.name} is over {limit} million characters of HTML; split it first", path=str(path))
        title, elements = read_markup(markup, path.name)
        title = title or next((e.text for e in elements if e.kind == "heading"), path.stem)
        yield from parts_of(elements, title, start_part)


def read_markup(markup: str, name: str) -> tuple[str, list[Element]]:
    """Title and elements of a page. Raises CorruptError where its tags nest too deep."""
    bs4 = require("bs4", package="beautifulsoup4")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bs4.XMLParsedAsHTMLWarning)  # XHTML, as books have it, is read as HTML on purpose
            soup = bs4.BeautifulSoup(markup, "html.parser")
        title = _title(soup)
        _drop_invisible(soup)
        return title, list(_elements(soup.body or soup))
    except RecursionError as error:
        raise CorruptError(f"{name} nests its tags too deep to be read", path=name) from error


def parts_of(elements: Sequence[Element], title: str, start_part: int, notes: tuple[str, ...] = ()) -> Iterator[Part]:
    """Parts of some 500 elements each, from `start_part` on; the notes go with the first."""
    total = max(1, -(-len(elements) // _PART_ELEMENTS))
    for number in range(start_part, total):
        piece = elements[number * _PART_ELEMENTS : (number + 1) * _PART_ELEMENTS]
        yield Part(number, tuple(piece), title=title, total=total, notes=notes if number == 0 else ())


def _title(soup: Any) -> str:
    return _words(soup.title) if soup.title else ""


def _words(tag: Any) -> str:
    """Text of a tag on one line."""
    return " ".join(tag.get_text().replace(_BREAK, " ").split())


def _drop_invisible(soup: Any) -> None:
    for line_break in soup.find_all("br"):
        line_break.replace_with(_BREAK)
    comment = require("bs4", package="beautifulsoup4").Comment
    for text in soup.find_all(string=lambda string: isinstance(string, comment)):
        text.extract()
    # extract, not decompose: asking whether a parent has gone already would search the whole subtree each time
    for tag in soup.find_all(list(_DROPPED)):
        if tag.name != "form" or len(tag.get_text(strip=True)) < 200:  # some sites wrap the whole page in a form
            tag.extract()
    for tag in soup.find_all(_is_hidden):
        tag.extract()


def _is_hidden(tag: Any) -> bool:
    attributes = tag.attrs or {}
    style = str(attributes.get("style", "")).replace(" ", "").lower()
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or str(attributes.get("role", "")).lower() in _ROLES
        or "display:none" in style
        or "visibility:hidden" in style
    )


def _elements(root: Any) -> Iterator[Element]:
    """Blocks in document order; an inline run between blocks is a paragraph of its own."""
    run: list[str] = []
    for child in root.children:
        name = getattr(child, "name", None)
        if name is None or (name not in _BLOCKS and not child.find(list(_BLOCKS))):
            run.append(str(child) if name is None else child.get_text())
            continue
        yield from _paragraph(run)
        run = []
        yield from _block(child, name)
    yield from _paragraph(run)


def _paragraph(run: list[str]) -> Iterator[Element]:
    """Two line breaks part paragraphs, as pages without <p> have it."""
    for piece in re.split(rf"(?:{_BREAK}\s*){{2,}}", "".join(run)):
        if text := " ".join(piece.replace(_BREAK, " ").split()):
            yield Element("text", text)


def _block(tag: Any, name: str) -> Iterator[Element]:
    if name in _HEADINGS:
        if text := _words(tag):
            yield Element("heading", text, level=_HEADINGS[name])
    elif name == "pre":
        if (text := tag.get_text().replace(_BREAK, "\n").strip("\n")).strip():
            yield Element("code", text, metadata=_language(tag))
    elif name == "table":
        yield from _table(tag)
    elif name in ("ul", "ol"):
        lines = list(_list_lines(tag, 0))
        if lines:
            yield Element("text", "\n".join(lines))
    else:
        yield from _elements(tag)


def _language(tag: Any) -> dict[str, str]:
    code = tag.find("code")
    classes = [*(tag.get("class") or []), *((code.get("class") or []) if code else [])]
    return next(({"language": name.split("-", 1)[1]} for name in classes if name.startswith(("language-", "lang-"))), {})


def _list_lines(tag: Any, depth: int) -> Iterator[str]:
    for at, entry in enumerate(tag.find_all("li", recursive=False), 1):
        nested = [child.extract() for child in entry.find_all(["ul", "ol"]) if child.find_parent(["ul", "ol"]) is tag]
        if text := _words(entry):
            yield f"{'  ' * depth}{f'{at}.' if tag.name == 'ol' else '-'} {text}"
        for child in nested:
            yield from _list_lines(child, depth + 1)


def _table(tag: Any) -> Iterator[Element]:
    cells = [cell for cell in tag.find_all(["td", "th"]) if cell.find_parent("table") is tag]
    is_layout = tag.find("table") or all(len(cell.parent.find_all(["td", "th"], recursive=False)) == 1 for cell in cells)
    if is_layout or any(len(cell.get_text()) > _LONGEST_CELL for cell in cells):
        for cell in cells:
            yield from _elements(cell)
        return
    caption = _words(tag.caption) if tag.caption else ""
    rows = [row for row in tag.find_all("tr") if row.find_parent("table") is tag and row.get_text(strip=True)]
    if table := table_element(closed_up(_grid(rows)), caption=caption):
        yield table


def _grid(rows: list[Any]) -> Iterator[list[str]]:
    """Cell texts by column: a cell over several columns leaves the others empty, one over several rows is repeated."""
    hanging: dict[int, tuple[int, str]] = {}  # column -> rows still to come, text
    for row in rows:
        line: list[str] = []
        for cell in [*row.find_all(["td", "th"], recursive=False), None]:
            while (below := hanging.pop(len(line), None)) and len(line) < MAX_COLUMNS:
                if below[0] > 1:
                    hanging[len(line)] = (below[0] - 1, below[1])
                line.append(below[1])
            if cell is None or len(line) >= MAX_COLUMNS:
                break
            text, down = _words(cell), _span(cell, "rowspan")
            if down > 1:
                hanging[len(line)] = (down - 1, text)
            line += [text, *[""] * (_span(cell, "colspan") - 1)]
        yield line


def _span(cell: Any, name: str) -> int:
    value = str(cell.get(name, ""))
    return min(max(1, int(value)), MAX_COLUMNS) if value.isdecimal() and len(value) < 6 else 1
