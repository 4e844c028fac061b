"""PDF pages by PyMuPDF, one part a page, in flat memory.

PyMuPDF is AGPL; `pdfium.py` stands in where that cannot be accepted. A page is interpreted once (`drawn.py`); what costs
most beside that, PyMuPDF's table finder, runs only where ruled lines promise a grid.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, EncryptedError, ExtractionError, require
from ultrafast_rag.extract import ocr
from ultrafast_rag.extract.pdf.drawn import DrawnPage
from ultrafast_rag.extract.pdf.figures import PageFigures
from ultrafast_rag.extract.pdf.layout import (
    Block,
    Line,
    RunningHeads,
    body_size,
    count_sizes,
    heading_level,
    merge_paragraphs,
    normalised,
    read_lines,
    reading_order,
    split_blocks,
)
from ultrafast_rag.extract.pdf.statements import join_figures
from ultrafast_rag.extract.pdf.titles import largest_title, metadata_title
from ultrafast_rag.extract.pdf.words import Vocabulary, join_lines
from ultrafast_rag.language.rows import head_lines
from ultrafast_rag.types import BBox, Element, Part

_SHRINK_EVERY = 16  # pages between two clearings of MuPDF's store
_OCR_DPI = 200  # chosen: Tesseract's manual asks for 300, which has 2.25 times the pixels
_OCR_PIXELS = 12_000_000  # A4 at 350 dpi; a larger sheet is read coarser
CROP_MARGIN = 12.0  # points around what is shown: a line of ordinary text
_PAGE_SHARE = 0.9  # of a page; a picture this large is the page
_HEAD_CHARACTERS = 260  # of a page that speak for all of it
_TITLE_PAGES = 3  # a cover that is a picture comes before the page that names the document
_COVER_CHARACTERS = 40  # chosen: a page with fewer names nothing
_NOTE = 0.9  # of the body's type: what is smaller at a page's foot is a note
_TITLE_TYPE, _TITLE_LINES = 1.3, 4  # of the body's type, and lines: what is set so large below one another is one title
_SLIDE = 1.2  # width to height: a page this wide is a slide, and what headed the one before is over


def _open(path: Path) -> Any:
    """The opened document, decrypted where an empty password does it."""
    pymupdf = require("pymupdf")
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    try:
        document = pymupdf.open(path, filetype="pdf")
    except (RuntimeError, ValueError, OSError, pymupdf.mupdf.FzErrorBase) as error:
        raise CorruptError(f"{path.name} is not a PDF that can be read: {error}", path=str(path)) from error
    if document.needs_pass and not document.authenticate(""):
        document.close()
        raise EncryptedError(
            f"{path.name} needs a password; save a copy without one (qpdf --decrypt) and ingest that", path=str(path)
        )
    try:
        pages = document.page_count
    except (RuntimeError, ValueError, pymupdf.mupdf.FzErrorBase) as error:
        raise CorruptError(f"{path.name} has a broken page list: {error}", path=str(path)) from error
    if pages == 0:
        document.close()
        raise CorruptError(f"{path.name} has no pages", path=str(path))
    return document


class PdfExtractor:
    """Headings, paragraphs, tables and pictures of a PDF in reading order, with page and bbox."""

    def __init__(self, config: Config) -> None:
        require("pymupdf")  # here, so that the clock of the first page does not count the import
        self._config = config

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """One part a page from page `start_part` + 1 on; a page that cannot be read is a part with `failure`.

        Raises CorruptError (not a PDF, no pages) and EncryptedError.
        """
        document = _open(path)
        try:
            yield from _Reader(document, path, self._config).pages(start_part)
        finally:
            document.close()


class _Reader:
    """The state that lasts from page to page: body size, running heads, pictures already seen, title."""

    def __init__(self, document: Any, path: Path, config: Config) -> None:
        self._pymupdf = require("pymupdf")
        self._document, self._path, self._config = document, path, config
        self._sizes: Counter[float] = Counter()
        self._heads = RunningHeads()
        self._seen: set[str] = set()
        self._outline = self._read_outline()
        self._title = metadata_title(document.metadata or {})
        self._words = Vocabulary()
        self._is_named = False
        self._broken = ""  # the first half of a word that the last page ended with

    def pages(self, start: int) -> Iterator[Part]:
        total = self._document.page_count
        for number in range(min(start, _TITLE_PAGES)):  # read before, in another run
            with contextlib.suppress(RuntimeError, ValueError, self._pymupdf.mupdf.FzErrorBase):
                self._name(read_lines(DrawnPage(self._document[number]).text())[0], number + 1)
        for number in range(start, total):
            yield self._part(number, total)
            if number % _SHRINK_EVERY == _SHRINK_EVERY - 1:
                self._pymupdf.TOOLS.store_shrink(100)

    def _part(self, number: int, total: int) -> Part:
        notes: list[str] = []
        if number == 0 and self._document.is_repaired:
            notes.append(f"{self._path.name} is damaged and was repaired while reading; parts of it may be missing")
        self._heads.top = []
        try:
            page = self._document[number]
            elements = self._elements(page, number + 1, notes)
            trouble = self._pymupdf.TOOLS.mupdf_warnings()  # and forget them
            if trouble and not elements:
                raise RuntimeError(trouble.splitlines()[0])
        except Exception as error:  # the stage's edge: whatever a broken page raises ends as this page's failure, not the file's
            return Part(
                number,
                title=self._shown_title(),
                total=total,
                failure=f"page {number + 1} could not be read: {error or type(error).__name__}",
            )
        return Part(
            number,
            tuple(elements),
            title=self._shown_title(),
            total=total,
            notes=tuple(notes),
            head=page_head(self._heads.top, elements),
            apart=page.rect.width > _SLIDE * page.rect.height,
        )

    def _shown_title(self) -> str:
        return self._title or self._path.stem

    def _read_outline(self) -> dict[int, dict[str, int]]:
        """Page -> {normalised title: level}; empty where the outline is missing, broken or circular."""
        found: dict[int, dict[str, int]] = {}
        with contextlib.suppress(
            RuntimeError, ValueError, TypeError, LookupError, AttributeError, self._pymupdf.mupdf.FzErrorBase
        ):
            for level, title, page in self._document.get_toc(simple=True):
                found.setdefault(page, {})[normalised(title)] = min(level, 6)
        return found

    def _elements(self, page: Any, number: int, notes: list[str]) -> list[Element]:
        drawn = DrawnPage(page)
        groups, turned = read_lines(drawn.text())
        figures = PageFigures(page, drawn, number, self._config, self._seen, notes)
        if _is_unreadable([*groups, turned]):
            return self._scanned(page, number, figures, notes)
        if sum(map(len, groups)) * 3 < len(turned):
            groups, turned = [turned], []
        self._name(groups, number)
        groups = self._heads.drop(groups, page.rect.height, page=number)
        count_sizes(groups, self._sizes)
        self._words.learn(line.text for group in groups for line in group)
        groups, found = figures.claim(groups, turned)
        blocks = self._paragraphs(groups, number)
        elements = self._whole_words(_placed(blocks, found, number, self._words), _last_of_body(blocks, self._sizes))
        return self._with_page(elements, page, number, figures, " ".join(e.text for e in elements))

    def _name(self, groups: list[list[Line]], number: int) -> None:
        """Take the title from the first page that has words."""
        if not self._title and not self._is_named and number <= _TITLE_PAGES:
            self._title = largest_title(groups)
            self._is_named = sum(len(line.text) for group in groups for line in group) > _COVER_CHARACTERS

    def _whole_words(self, elements: list[Element], last: str) -> list[Element]:
        """A word broken between two pages made whole where the second one begins; the first keeps its half.

        last: the page's last line of running text.
        """
        texts = [n for n, element in enumerate(elements) if element.kind == "text"]
        if self._broken and texts and elements[texts[0]].text[:1].islower():
            first = elements[texts[0]]
            elements[texts[0]] = replace(first, text=join_lines([self._broken, first.text], self._words))
        half = last.rsplit(None, 1)[-1] if last else ""
        self._broken = half if len(half) > 2 and half[-1] in "-‐" and half[-2].isalpha() else ""
        return elements

    def _paragraphs(self, groups: list[list[Line]], number: int) -> list[Block]:
        body = body_size(self._sizes)
        outline = self._outline.get(number, {})
        blocks = reading_order(split_blocks(join_figures(groups)))
        for block in blocks:
            block.level = heading_level(block, body, outline)
        return merge_paragraphs(_join_titles(_join_numbers(blocks), body))

    def _scanned(self, page: Any, number: int, figures: PageFigures, notes: list[str]) -> list[Element]:
        """A page without a text layer: its pictures, and its words by OCR where that is to be had."""
        if figures.is_blank:
            return []
        words = ""
        if not self._config.ocr:
            notes.append(f"page {number} has no text layer and OCR is switched off")
        elif not ocr.available():
            notes.append(f"page {number} has no text layer; install tesseract to read it (apt-get install tesseract-ocr)")
        elif figures.is_drawable(notes):
            try:
                zoom = min(_OCR_DPI / 72, (_OCR_PIXELS / max(page.rect.width * page.rect.height, 1)) ** 0.5)
                shot = page.get_pixmap(
                    matrix=self._pymupdf.Matrix(zoom, zoom), colorspace=self._pymupdf.csGRAY, alpha=False
                ).tobytes("png")
                words = ocr.ocr(shot, language=self._config.ocr_language, timeout_s=0.8 * self._config.page_timeout_s)
            except ExtractionError as error:
                notes.append(f"page {number} has no text layer and was not read: {error}")
        elements = [
            Element("text", text, page=number, metadata={"ocr": True})
            for block in words.split("\n\n")
            if (text := join_lines_of(block))
        ]
        elements += figures.pictures_of_scan(" ".join(words.split())[:1000])
        return self._with_page(elements, page, number, figures, words)

    def _with_page(self, elements: list[Element], page: Any, number: int, figures: PageFigures, text: str) -> list[Element]:
        """The page as a picture too, where that is wanted, in place of pictures that fill it."""
        if not self._config.index_pages or not figures.is_drawable([]):
            return elements
        least = _PAGE_SHARE * page.rect.width * page.rect.height
        kept = [e for e in elements if not (e.kind == "image" and e.bbox and _area(e.bbox) >= least)]
        shown, whole = figures.render(tuple(page.rect)), {"whole_page": True}
        return [*kept, Element("image", text[:500], page=number, bbox=tuple(page.rect), data=shown, metadata=whole)]


def _last_of_body(blocks: Sequence[Block], sizes: Counter[float]) -> str:
    """The last line of a page's running text; footnotes, in smaller type, stand below it."""
    body = [block for block in blocks if not block.level and block.size > _NOTE * body_size(sizes)]
    return body[-1].lines[-1].text if body else ""


def page_head(running: Sequence[str], elements: Sequence[Element]) -> str:
    """The first lines of a page, what runs on every page first, cut at a word after some 260 characters.

    Of a table its heads alone: a row of figures says nothing about the other passages of the page.
    """
    lines, room = [], _HEAD_CHARACTERS
    for text in (*running, *(line for e in elements for line in _heading_lines(e))):
        words = " ".join(text.split())
        if len(words) > room:
            words = words[: room + 1].rsplit(" ", 1)[0] if " " in words[: room + 1] else ""
        if words and words not in lines:
            lines.append(words)
        room -= len(words) + 1
        if room <= 0 or len(words) < len(text.strip()):
            break
    return "\n".join(lines)


def _heading_lines(element: Element) -> list[str]:
    """The lines of an element that may speak for a page."""
    if element.kind not in ("heading", "text", "table"):
        return []
    lines = element.text.split("\n")
    return lines[: head_lines(lines)] if element.kind == "table" else lines


def _area(box: BBox) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def join_lines_of(block: str) -> str:
    """One OCR paragraph on one line."""
    return " ".join(block.replace("-\n", "").split())


def _is_unreadable(groups: Sequence[Sequence[Line]]) -> bool:
    """No text layer, or one whose font tells no characters."""
    text = "".join(line.text for lines in groups for line in lines)
    bad = sum(c == "\ufffd" or "✁" <= c <= "➾" for c in text)  # dingbats for letters: a font whose encoding was lost
    return len("".join(text.split())) - bad < 3 or bad * 2 > len(text)


def _join_numbers(blocks: list[Block]) -> list[Block]:
    """A number and its title, set apart by a wide space, as one heading."""
    joined: list[Block] = []
    for block in blocks:
        before = joined[-1] if joined else None
        if (
            before is not None
            and block.level
            and len(before.lines) == 1
            and len(before.text) < 12
            and abs(before.y0 - block.y0) < 0.5 * block.size
            and before.x1 < block.x0
            and abs(before.size - block.size) < 0.15 * block.size
        ):
            joined[-1] = Block(before.lines + block.lines, level=block.level)
        else:
            joined.append(block)
    return joined


def _join_titles(blocks: list[Block], body: float) -> list[Block]:
    """The lines of a title in large type, set apart from one another, as one heading."""
    joined: list[Block] = []
    for block in blocks:
        before = joined[-1] if joined else None
        if (
            before is not None
            and block.level == before.level > 0
            and block.size > _TITLE_TYPE * body
            and abs(before.size - block.size) < 0.05 * block.size
            and 0 <= block.y0 - before.y1 < 0.6 * block.size
            and len(before.lines) + len(block.lines) <= _TITLE_LINES
            and not block.text[:1].isdigit()
        ):
            joined[-1] = Block(before.lines + block.lines, level=block.level)
        else:
            joined.append(block)
    return joined


def _placed(blocks: list[Block], found: list[Element], page: int, vocabulary: Vocabulary) -> list[Element]:
    """Paragraphs in order, each picture or table before the first block that starts below its middle in its column."""
    elements: list[Element] = []
    waiting = sorted(found, key=lambda e: e.bbox[1] if e.bbox else 0.0)
    for block in blocks:
        while waiting and _precedes(waiting[0].bbox, block):
            elements.append(waiting.pop(0))
        text = join_lines([line.text for line in block.lines], vocabulary)
        if block.level:
            elements.append(Element("heading", " ".join(text.split()), page=page, bbox=block.bbox, level=block.level))
        else:
            elements.append(Element("text", text, page=page, bbox=block.bbox))
    return [*elements, *waiting]


def _precedes(box: BBox | None, block: Block) -> bool:
    return box is not None and (box[1] + box[3]) / 2 <= block.y0 and min(box[2], block.x1) > max(box[0], block.x0)


def _widened(box: Any, margin: float) -> Any:
    return type(box)(box.x0 - margin, box.y0 - margin, box.x1 + margin, box.y1 + margin)


def render_page(path: str | Path, page: int, *, clip: BBox | None = None, max_px: int, max_pixels: int) -> bytes:
    """PNG of a page (1-based), or of the `clip` on it with a margin in points; longest side max_px.

    Raises ExtractionError for a page that does not exist or that holds a picture over max_pixels.
    """
    document = _open(Path(path))
    try:
        if not 1 <= page <= document.page_count:
            raise ExtractionError(
                f"{Path(path).name} has no page {page}; it has {document.page_count}", path=str(path), page=page
            )
        pymupdf = require("pymupdf")
        shown = document[page - 1]
        if shown.rotation:
            shown.remove_rotation()
        if any(info["width"] * info["height"] > max_pixels for info in shown.get_image_info()):
            raise CorruptError(
                f"page {page} of {Path(path).name} holds a picture over {max_pixels} pixels", path=str(path), page=page
            )
        area = shown.rect if clip is None else _widened(pymupdf.Rect(clip), CROP_MARGIN) & shown.rect
        if area.is_empty:
            area = shown.rect
        zoom = min(max_px / max(area.width, area.height, 1), 4.0)
        return bytes(shown.get_pixmap(matrix=pymupdf.Matrix(zoom, zoom), clip=area, alpha=False).tobytes("png"))
    finally:
        document.close()
