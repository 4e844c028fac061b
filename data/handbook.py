"""Sets `handbook.txt` as an illustrated PDF with PyMuPDF alone: columns, figures, tables, contents, index.

Marks in the text: `@chapter N | title [| columns=2]`, `## heading`, `@figure name | caption`, `@table caption`
with rows of `a | b` under it, `@notice` for the page that is only a picture, `**bold**`. Figures and tables
move to the next column when they do not fit, as in any printed book. The same input gives the same bytes.
"""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pymupdf
from figures import FIGURES, cover, notice
from PIL import Image

WIDTH, HEIGHT = 482.0, 680.0  # 170 x 240 mm
LEFT, RIGHT, TOP, BOTTOM, GUTTER = 48.0, WIDTH - 48.0, 58.0, HEIGHT - 48.0, 18.0
BODY, LEADING = 10.0, 13.1
INK, MUTED, RULE = (0.13, 0.18, 0.23), (0.45, 0.5, 0.55), (0.82, 0.85, 0.88)
ACCENTS = (
    (0.13, 0.31, 0.48),
    (0.60, 0.23, 0.20),
    (0.14, 0.42, 0.55),
    (0.13, 0.25, 0.47),
    (0.42, 0.26, 0.55),
    (0.20, 0.45, 0.27),
    (0.35, 0.38, 0.42),
)
FIGURE = 236.0  # widest figure
TITLE = "Larkholm Sea Station: the handbook"


@lru_cache(maxsize=8)
def _font(name: str) -> pymupdf.Font:
    return pymupdf.Font(name)


def width_of(words: str, name: str, size: float) -> float:
    """Length of a line of text in points."""
    return _font(name).text_length(words, size)


def encoded(image: Image.Image, colours: int = 0) -> bytes:
    """PNG with a palette, or JPEG when colours is 0."""
    buffer = io.BytesIO()
    if colours:
        image.quantize(colours, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=86)
    return buffer.getvalue()


@dataclass
class Book:
    """The growing document: where the next line goes, and what waits for room."""

    doc: pymupdf.Document = field(default_factory=pymupdf.open)
    columns: int = 1
    column: int = 0
    y: float = TOP
    tops: float = TOP
    chapter: str = ""
    accent: tuple[float, float, float] = ACCENTS[0]
    waiting: list[tuple[str, object, str]] = field(default_factory=list)
    contents: list[tuple[int, str, int]] = field(default_factory=list)
    listed: list[tuple[str, int]] = field(default_factory=list)
    figures: int = 0
    tables: int = 0
    flushing: bool = False
    full: bool = True  # nothing more may go on this page

    @property
    def page(self) -> pymupdf.Page:
        return self.doc[-1]

    @property
    def measure(self) -> float:
        """Width of a column."""
        return (RIGHT - LEFT - GUTTER * (self.columns - 1)) / self.columns

    @property
    def low(self) -> float:
        """How far down the page is taken, over all columns."""
        return BOTTOM if self.full or self.column else self.y

    @property
    def x(self) -> float:
        return LEFT + self.column * (self.measure + GUTTER)

    def new_page(self) -> None:
        """A fresh page with running head and folio."""
        page = self.doc.new_page(width=WIDTH, height=HEIGHT)
        number = len(self.doc)
        page.draw_line((LEFT, 42), (RIGHT, 42), color=RULE, width=0.6)
        page.insert_text((LEFT, 35), "LARKHOLM SEA STATION", fontname="helv", fontsize=6.8, color=MUTED)
        page.insert_text(
            (RIGHT - width_of(self.chapter, "helv", 6.8), 35), self.chapter, fontname="helv", fontsize=6.8, color=MUTED
        )
        page.insert_text(
            (WIDTH / 2 - width_of(str(number), "hebo", 8.5) / 2, HEIGHT - 26),
            str(number),
            fontname="hebo",
            fontsize=8.5,
            color=self.accent,
        )
        self.column, self.y, self.tops, self.full = 0, TOP, TOP, False

    def advance(self) -> None:
        """To the next column or page, where waiting figures and tables come first."""
        if self.column + 1 < self.columns:
            self.column, self.y = self.column + 1, self.tops
        else:
            self.new_page()
        if not self.flushing:
            self.flush()

    def flush(self) -> None:
        """Place what waits, as far as it fits."""
        self.flushing = True
        while self.waiting and self._height(*self.waiting[0]) <= BOTTOM - self.y:
            self._place(*self.waiting.pop(0))
        self.flushing = False

    def float(self, kind: str, content: object, caption: str) -> None:
        """A figure or table: here, if it fits and nothing waits before it, else further on."""
        self.waiting.append((kind, content, caption))
        self.flush()

    def end_chapter(self) -> None:
        """Everything that still waits, on further pages if need be."""
        while self.waiting:
            self.advance()

    def _lines(
        self, words: str, size: float, width: float, name: str = "tiro", bold: str = "tibo"
    ) -> list[list[tuple[str, str]]]:
        """Break into lines of (text, font) runs."""
        lines: list[list[tuple[str, str]]] = [[]]
        room = width
        for run, chunk in enumerate(re.split(r"\*\*", words)):
            used = bold if run % 2 else name
            for word in chunk.split():
                tight = bool(re.fullmatch(r"[,.;:)]+", word))
                length = width_of(word, used, size)
                space = 0 if not lines[-1] or tight else width_of(" ", used, size)
                if length + space > room and lines[-1]:
                    lines.append([])
                    room, space = width, 0
                joined = (" " if space else "") + word
                if lines[-1] and lines[-1][-1][1] == used:
                    lines[-1][-1] = (lines[-1][-1][0] + joined, used)
                else:
                    lines[-1].append((joined, used))
                room -= length + space
        return lines

    def _write(
        self,
        lines: list[list[tuple[str, str]]],
        x: float,
        y: float,
        size: float,
        leading: float,
        colour: tuple[float, float, float] = INK,
    ) -> float:
        for line in lines:
            at = x
            for words, name in line:
                self.page.insert_text((at, y), words, fontname=name, fontsize=size, color=colour)
                at += width_of(words, name, size)
            y += leading
        return y

    def paragraph(self, words: str) -> None:
        """Body text, broken over columns; at least two lines stay together."""
        lines = self._lines(words, BODY, self.measure)
        while lines:
            fits = int((BOTTOM - self.y) / LEADING)
            if fits < min(2, len(lines)):
                self.advance()
                continue
            if fits < len(lines) and len(lines) - fits == 1:
                fits -= 1
            now, lines = lines[:fits], lines[fits:]
            self.y = self._write(now, self.x, self.y + BODY, BODY, LEADING) - BODY
            if lines:
                self.advance()
        self.y += 5.5

    def heading(self, words: str) -> None:
        """A numbered section heading, kept with three lines of its text."""
        if self.y > self.tops:
            self.y += 6
        if self.y + 20 + 3 * LEADING > BOTTOM:
            self.advance()
        lines = self._lines(words, 11.5, self.measure, "hebo", "hebo")
        self.y = self._write(lines, self.x, self.y + 11.5, 11.5, 14, self.accent) - 6

    def _height(self, kind: str, content: object, caption: str) -> float:
        below = 12 * len(self._lines(f"Figure 00: {caption}", 8.6, self.measure - 8)) + 14
        if kind == "figure":
            return min(self.measure, FIGURE) * self._aspect(content) + below
        return 15 * len(content) + below + 4  # type: ignore[arg-type]

    def _aspect(self, name: object) -> float:
        return 640 / 900 if name == "lighthouse" else 720 / 900

    def _place(self, kind: str, content: object, caption: str) -> None:
        if kind == "figure":
            self._figure(str(content), caption)
        else:
            self._table(content, caption)  # type: ignore[arg-type]

    def _caption(self, words: str) -> None:
        label, rest = words.split(": ", 1)
        self.listed.append((f"{label}: {rest}", len(self.doc)))
        self.y = (
            self._write(
                self._lines(f"**{label}:** {rest}", 8.6, self.measure - 8, "tiit", "hebo"), self.x + 4, self.y + 9, 8.6, 12, MUTED
            )
            - 3
        )

    def _figure(self, name: str, caption: str) -> None:
        self.figures += 1
        width = min(self.measure, FIGURE)
        height = width * self._aspect(name)
        x = self.x + (self.measure - width) / 2
        rect = pymupdf.Rect(x, self.y + 2, x + width, self.y + 2 + height)
        self.page.insert_image(rect, stream=encoded(FIGURES[name](), 96), keep_proportion=False)
        self.page.draw_rect(rect, color=RULE, width=0.6)
        self.y += height + 4
        self._caption(f"Figure {self.figures}: {caption}")

    def _table(self, rows: list[list[str]], caption: str) -> None:
        self.tables += 1
        size = 8.6 if self.columns == 1 else 7.6
        self._caption(f"Table {self.tables}: {caption}")
        widest = [
            max(width_of(row[i], "hebo" if j == 0 else "helv", size) for j, row in enumerate(rows)) + 10
            for i in range(len(rows[0]))
        ]
        spare = (self.measure - sum(widest)) / len(widest)
        edges = [self.x]
        for w in widest:
            edges.append(edges[-1] + w + spare)
        for j in range(len(rows)):
            top = self.y + 15 * j
            fill = self.accent if j == 0 else ((0.95, 0.96, 0.97) if j % 2 == 0 else (1, 1, 1))
            self.page.draw_rect(pymupdf.Rect(edges[0], top, edges[-1], top + 15), color=None, fill=fill)
        for j, row in enumerate(rows):
            for cell, x in zip(row, edges):
                self.page.insert_text(
                    (x + 5, self.y + 15 * j + 10.5),
                    cell,
                    fontname="hebo" if j == 0 else "helv",
                    fontsize=size,
                    color=(1, 1, 1) if j == 0 else INK,
                )
        bottom = self.y + 15 * len(rows)
        for y in [self.y + 15 * j for j in range(1, len(rows) + 1)]:
            self.page.draw_line((edges[0], y), (edges[-1], y), color=RULE, width=0.5)
        for x in edges:
            self.page.draw_line((x, self.y + 15), (x, bottom), color=RULE, width=0.5)
        self.y = bottom + 9

    def open_chapter(self, number: str, title: str, columns: int) -> None:
        """A coloured band with waves, the number and the title: on a new page, or half-way down one with room."""
        self.end_chapter()
        self.chapter, self.columns = f"{number}  {title}", columns
        self.accent = ACCENTS[(int(number) - 1) % len(ACCENTS)]
        top, deep, size = self.low + 16, 70.0, 30
        if BOTTOM - self.low < 290:
            self.new_page()
            top, deep, size = 0.0, 112.0, 44
        page, base = self.page, top + deep
        page.draw_rect(pymupdf.Rect(0, top, WIDTH, base), color=None, fill=self.accent)
        for k in range(3):
            shape, crest = page.new_shape(), base - (0.21 - 0.07 * k) * deep
            tone = tuple(c + (1 - c) * (0.16 + 0.14 * k) for c in self.accent)
            points = [
                pymupdf.Point(x, crest + 0.042 * deep * math.sin(x / 34 + k * 1.7 + int(number)))
                for x in range(0, int(WIDTH) + 7, 6)
            ]
            shape.draw_polyline([pymupdf.Point(0, base), *points, pymupdf.Point(WIDTH, base)])
            shape.finish(color=None, fill=tone, closePath=True)
            shape.commit()
        line = top + 0.625 * deep
        page.insert_text((LEFT, line), number, fontname="hebo", fontsize=size, color=(1, 1, 1))
        page.insert_text(
            (LEFT + width_of(number, "hebo", size) + 14, line), title, fontname="hebo", fontsize=9 + 0.27 * size, color=(1, 1, 1)
        )
        self.contents.append((1, f"{number}  {title}", len(self.doc)))
        self.column, self.y, self.tops = 0, base + 18, base + 18


def make(text: str, target: Path) -> None:
    """Write the handbook set from `text` to `target`."""
    book = Book()
    for _ in range(2):
        book.doc.new_page(width=WIDTH, height=HEIGHT)  # cover and contents, filled in when the pages are known
    blocks = [block.strip() for block in text.split("\n\n") if block.strip()]
    for block in blocks:
        mark, _, rest = block.partition(" ")
        if mark == "@chapter":
            number, title, *options = (part.strip() for part in rest.split("|"))
            book.open_chapter(number, title, 2 if "columns=2" in options else 1)
        elif mark == "##":
            book.heading(rest)
            book.contents.append((2, rest, len(book.doc)))
        elif mark == "@figure":
            name, caption = (part.strip() for part in rest.split("|"))
            book.float("figure", name, caption)
        elif mark == "@table":
            caption, *rows = rest.split("\n")
            book.float("table", [[cell.strip() for cell in row.split("|")] for row in rows], caption)
        elif mark == "@notice":
            book.end_chapter()
            page = book.doc.new_page(width=WIDTH, height=HEIGHT)
            page.insert_image(page.rect, stream=encoded(notice((964, 1360)), 24))
            book.full = True
        else:
            book.paragraph(" ".join(block.split("\n")))
    book.end_chapter()
    _index(book)
    _cover(book.doc[0])
    _contents(book)
    book.doc.set_toc([[level, re.sub(r"\s+", " ", title), page] for level, title, page in book.contents])
    stamp = "D:20240415120000Z"
    book.doc.set_metadata(
        {
            "title": TITLE,
            "author": "The crew of Larkholm",
            "subject": "Sample document",
            "creationDate": stamp,
            "modDate": stamp,
            "producer": "",
            "creator": "",
        }
    )
    book.doc.save(target, garbage=3, deflate=True, deflate_fonts=True, no_new_id=True)


def _cover(page: pymupdf.Page) -> None:
    page.insert_image(page.rect, stream=encoded(cover((964, 1360))))
    page.insert_text((LEFT, 120), "Larkholm", fontname="hebo", fontsize=46, color=(1, 1, 1))
    page.insert_text((LEFT, 152), "Sea Station", fontname="helv", fontsize=27, color=(1, 1, 1))
    page.insert_text(
        (LEFT, 186), "The handbook for keepers, observers and guests", fontname="tiit", fontsize=13, color=(1, 0.95, 0.86)
    )
    page.insert_text((LEFT, HEIGHT - 40), "Ninth edition, April 2024", fontname="helv", fontsize=10, color=(0.85, 0.92, 0.97))


def _contents(book: Book) -> None:
    page, y = book.doc[1], 84.0
    page.insert_text((LEFT, 66), "Contents", fontname="hebo", fontsize=20, color=ACCENTS[0])
    for level, title, number in book.contents:
        name, size = ("hebo", 8.6) if level == 1 else ("tiro", 8.0)
        y += 2.6 if level == 1 else 0
        x = LEFT + (0 if level == 1 else 18)
        page.insert_text((x, y), title, fontname=name, fontsize=size, color=INK)
        page.insert_text((RIGHT - width_of(str(number), name, size), y), str(number), fontname=name, fontsize=size, color=INK)
        first = x + width_of(title, name, size) + 6
        page.draw_line((first, y - 1), (RIGHT - 18, y - 1), color=RULE, width=0.5, dashes="[1 2]")
        y += 8.9


def _index(book: Book) -> None:
    book.chapter, book.columns, book.accent = "Figures and tables", 1, ACCENTS[0]
    book.new_page()
    book.heading("Figures and tables")
    book.contents.append((1, "Figures and tables", len(book.doc)))
    for kind in ("Figure", "Table"):
        for words, number in [entry for entry in book.listed if entry[0].startswith(kind)]:
            lines = book._lines(words, 9, RIGHT - LEFT - 40)
            book.page.insert_text(
                (RIGHT - width_of(str(number), "helv", 8.5), book.y + 9), str(number), fontname="helv", fontsize=8.5, color=MUTED
            )
            book.y = book._write(lines, LEFT, book.y + 9, 9, 11.6) - 5.5
        book.y += 9
