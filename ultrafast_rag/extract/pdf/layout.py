"""From MuPDF's lines to paragraphs and headings in reading order. Pure geometry: opens no file.

Columns: a gutter is a strip that no narrow line crosses, with prose on both sides at the same height; blocks that cross
it (titles, wide figures) split the page into bands, and each band is read left column first, recursively. An XY-cut on
blocks alone lost: it cuts a two-column page into rows wherever two paragraph ends meet.

Here and in `statements.py`, `tables.py`, `figures.py` the shares and distances in conditions (of a line's height, of a width, or
points) are chosen by hand on the public documents; `bench pages` says whether another value finds more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ultrafast_rag.extract.pdf.words import BULLET, join_lines, line_text
from ultrafast_rag.types import BBox

_NUMBERED = re.compile(
    r"^(?:(?:chapter|section|part|appendix|kapitel|anhang)\s+)?((?:\d{1,2}|[A-Z])(?:\.\d{1,2}){0,4})\.?\s+\S", re.I
)
_LETTERS = re.compile(r"[^\W\d_].*[^\W\d_]", re.S)  # two or more
_PAGE_NUMBER = re.compile(r"^\W*(?:page|seite|p\.)?\s*(?:\d{1,4}|[ivxlc]{1,7})(?:\s*(?:/|of|von)\s*\d{1,4})?\W*$", re.I)
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_DIGITS = re.compile(r"\d{1,9}")
_LARGER = 1.1  # than the page's type: it may head something
_REMEMBERED = 4  # pages that had the same line at the same height: left and right ones, and two more
_APART = 3.0  # letter heights between a running head and its page number, at least
_FIGURE = re.compile(r"[$€£(]?\s?-?\d[\d.,]*\s?[%)]{0,2}")  # narrower than a table's: a dash may be a page's ornament
_NEXT_ROW, _ALIGNED_PT = 2.2, 2.5  # line heights to the next row of a table, points that its figures' edges differ by
_BOLD = 16  # MuPDF's TEXT_FONT_BOLD in a span's flags
_FOOT = 0.18  # where a page number that stands alone may be
_TITLE_LINE = 50  # characters: bold lines all shorter are a title of several lines, not a paragraph
_MARGIN = 0.085  # of the page's height, above and below which running heads live
_TOP_ROW = 0.13  # of the page's height; a row apart from the text below it, down to there, may be a running head too


@dataclass(slots=True)
class Line:
    """A run of text on one baseline; size in points."""

    x0: float
    y0: float
    x1: float
    y1: float
    text: str
    size: float
    bold: bool

    @property
    def center(self) -> tuple[float, float]:
        """Middle of the box."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2


@dataclass(slots=True)
class Block:
    """Lines of one style that belong together, top to bottom. level > 0: a heading."""

    lines: list[Line]
    level: int = 0
    x0: float = field(init=False)
    y0: float = field(init=False)
    x1: float = field(init=False)
    y1: float = field(init=False)

    def __post_init__(self) -> None:
        self.measure()

    def measure(self) -> None:
        """Recompute the box after lines were added."""
        self.x0, self.y0, self.x1, self.y1 = union(self.lines)

    @property
    def bbox(self) -> BBox:
        """x0, y0, x1, y1."""
        return self.x0, self.y0, self.x1, self.y1

    @property
    def size(self) -> float:
        """The font size that most characters have; a drop cap or a bullet does not count."""
        return max(self.lines, key=lambda line: len(line.text)).size

    @property
    def text(self) -> str:
        """Lines joined, words broken at a line's end mended."""
        return join_lines([line.text for line in self.lines])


def union(lines: Iterable[Line]) -> BBox:
    """The box around all lines; at least one."""
    boxes = [(line.x0, line.y0, line.x1, line.y1) for line in lines]
    lefts, tops, rights, bottoms = zip(*boxes)
    return min(lefts), min(tops), max(rights), max(bottoms)


def read_lines(page: Mapping[str, Any]) -> tuple[list[list[Line]], list[Line]]:
    """MuPDF's text dictionary as horizontal lines grouped by its blocks, and the lines in any other direction."""
    blocks: list[list[Line]] = []
    turned: list[Line] = []
    for block in page["blocks"]:
        lines: list[Line] = []
        for line in block.get("lines", ()):
            spans = line["spans"]
            text = line_text(spans)
            if not text.strip():
                continue
            weight = [(len(span["text"].strip()), span["size"], span["flags"] & _BOLD) for span in spans]
            longest = max(weight)
            bold = sum(n for n, _, is_bold in weight if is_bold) * 2 > sum(n for n, _, _ in weight)
            made = Line(*_box(line), text, longest[1], bold)
            (lines if abs(line["dir"][1]) < 0.1 and line["dir"][0] > 0 else turned).append(made)
        if lines:
            blocks.append(lines)
    return blocks, turned


def _box(line: Mapping[str, Any]) -> BBox:
    x0, y0, x1, y1 = line["bbox"]
    return x0, y0, x1, y1


def split_blocks(groups: Iterable[list[Line]]) -> list[Block]:
    """Blocks of one style: cut where size or weight changes, where a column is jumped, and at bullets."""
    blocks: list[Block] = []
    for lines in groups:
        current, across = [lines[0]], False
        for line in lines[1:]:
            before = current[-1]
            same_row = min(line.y1, before.y1) - max(line.y0, before.y0) > 0.5 * min(line.size, before.size)
            other_style = not same_row and (abs(line.size - before.size) > 0.12 * before.size or line.bold != before.bold)
            over = same_row and line.x0 - before.x1 > 4 * line.size
            back = across and not same_row and line.x1 < before.x0 - line.size  # columns written line by line across both
            jumps = over or back or line.y1 < before.y0 - before.size
            if other_style or jumps or (not same_row and line.y0 - before.y1 > 1.2 * before.size):
                blocks.append(Block(current))
                current, across = [], over
            current.append(line)
        blocks.append(Block(current))
    return blocks


def reading_order(blocks: Sequence[Block], depth: int = 0) -> list[Block]:
    """Blocks as a person reads them: columns left to right, what spans them in its place between."""
    by_height = sorted(blocks, key=lambda block: (block.y0, block.x0))
    gutter = None if depth > 3 or len(blocks) < 2 else find_gutter([line for block in blocks for line in block.lines])
    if gutter is None:
        return _rows(by_height)
    ordered: list[Block] = []
    left: list[Block] = []
    right: list[Block] = []
    for block in by_height:
        if block.x1 <= gutter + 1:
            left.append(block)
        elif block.x0 >= gutter - 1:
            right.append(block)
        else:
            ordered += [*reading_order(left, depth + 1), *reading_order(right, depth + 1), block]
            left, right = [], []
    return [*ordered, *reading_order(left, depth + 1), *reading_order(right, depth + 1)]


def _rows(by_height: list[Block]) -> list[Block]:
    """Top to bottom; single lines on one baseline left to right, though their tops differ by a hair."""
    rows: list[list[Block]] = []
    for block in by_height:
        if rows and len(block.lines) == 1 and abs(rows[-1][0].y0 - block.y0) < 0.4 * block.size and len(rows[-1][0].lines) == 1:
            rows[-1].append(block)
        else:
            rows.append([block])
    return [block for row in rows for block in sorted(row, key=lambda block: block.x0)]


def find_gutter(lines: Sequence[Line]) -> float | None:
    """Middle of the widest strip between two columns of prose, or None."""
    if len(lines) < 6:
        return None
    start, _, end, _ = union(lines)
    width = end - start
    narrow = [line for line in lines if line.x1 - line.x0 < 0.62 * width]
    if width < 150 or len(narrow) < 6:
        return None
    bins = int(width / 2) + 2
    change = [0.0] * (bins + 1)
    for line in narrow:
        change[int((line.x0 - start) / 2)] += line.size
        change[int((line.x1 - start) / 2) + 1] -= line.size
    limit = max(0.08 * sum(line.size for line in narrow), 2.5 * median(line.size for line in narrow))  # a centred title may cross
    best: tuple[int, int] = (0, 0)
    covered, run = 0.0, 0
    for at in range(bins):
        covered += change[at]
        run = run + 1 if covered <= limit and 0.12 * bins < at < 0.88 * bins else 0
        best = max(best, (run, at))
    if best[0] < 4:  # 8 points
        return None
    middle = start + 2 * (best[1] - best[0] / 2)
    left = [line for line in narrow if line.center[0] < middle]
    right = [line for line in narrow if line.center[0] >= middle]
    return middle if _are_columns(left, right) else None


def _are_columns(left: list[Line], right: list[Line]) -> bool:
    if min(len(left), len(right)) < 3:
        return False
    (_, top, _, bottom), (_, other_top, _, other_bottom) = union(left), union(right)
    overlap = min(bottom, other_bottom) - max(top, other_top)
    return overlap > 0.3 * min(bottom - top, other_bottom - other_top) and all(
        median(len(line.text.strip()) for line in side) >= 16 for side in (left, right)
    )


def merge_paragraphs(blocks: Sequence[Block]) -> list[Block]:
    """Join blocks that are one paragraph set line by line: same style, same edge, no gap, last line full."""
    merged: list[Block] = []
    for block in blocks:
        before = merged[-1] if merged else None
        if before is not None and not before.level and not block.level and _continues(before, block):
            before.lines += block.lines
            before.measure()
        else:
            merged.append(block)
    return merged


def _continues(before: Block, block: Block) -> bool:
    last, first = before.lines[-1], block.lines[0]
    if abs(first.size - last.size) > 0.1 * last.size or first.bold != last.bold or BULLET.match(first.text.strip()):
        return False
    slack = 1.5 * first.size
    aligned = abs(first.x0 - before.x0) < slack or abs(first.x1 - before.x1) < slack  # the right edge for right-to-left text
    right = max(before.x1, block.x1)
    is_full = last.x1 > right - 0.15 * (right - before.x0)
    return aligned and is_full and -0.6 * first.size < first.y0 - last.y1 < 0.8 * first.size


def body_size(sizes: Counter[float]) -> float:
    """The font size most characters have; 0 before any were seen."""
    return sizes.most_common(1)[0][0] if sizes else 0.0


def count_sizes(groups: Iterable[list[Line]], sizes: Counter[float]) -> None:
    """Add each line's characters to the count of its size, rounded to half a point."""
    for lines in groups:
        for line in lines:
            sizes[round(line.size * 2) / 2] += len(line.text)


def heading_level(block: Block, body: float, outline: Mapping[str, int]) -> int:
    """Depth of a heading, 1 topmost; 0 for anything else. outline: normalised title -> level, of this page."""
    if len(block.lines) > 4:
        return 0
    text = block.text
    if len(text) > 200 or not _LETTERS.search(text):
        return 0
    if " … " in text and text[-1].isdigit():
        return 0  # an entry of a list of contents
    if outline and (level := outline.get(normalised(text), 0)):
        return level
    if is_shouted(text) and len(block.lines) <= 3:
        return 3
    ratio = block.size / body if body else 1.0
    numbered = _NUMBERED.match(text)
    if not numbered and BULLET.match(text):
        return 0
    bold = all(line.bold for line in block.lines)
    ends_like_text = text[-1] in ".,;" and not numbered
    if ratio >= 1.15 and not ends_like_text:
        by_size = 1 if ratio >= 1.6 else 2 if ratio >= 1.25 else 3
        return min(6, numbered.group(1).count(".") + 1) if numbered and "." in numbered.group(1) else by_size
    short = len(text) <= 120 if len(block.lines) <= 2 else max(len(line.text) for line in block.lines) <= _TITLE_LINE
    if bold and not ends_like_text and ratio >= 0.95 and short:
        return min(6, numbered.group(1).count(".") + 1) if numbered else 3
    return 0


def is_shouted(text: str) -> bool:
    """Words in capitals throughout, as statement titles are set in body type; no code, no formula."""
    if text[-1] in ".,;:" or len(text) > 120 / 0.7:  # what most blocks are, told from one character
        return False
    letters = [c for c in text if c.isalpha()]
    if not 12 <= len(letters) <= 120 or sum(map(str.isupper, letters)) < 0.95 * len(letters):
        return False
    return len(text.split()) > 1 and len(letters) > 0.7 * len(text) and not any(c in "_=;*<>{}[]|…" for c in text)


def normalised(text: str) -> str:
    """Letters only, lower case: how outline entries and headings are compared."""
    return "".join(c for c in text.lower() if c.isalpha())


class RunningHeads:
    """Recognizes what repeats at the top and bottom of pages, from the pages already read.

    The first one of each passes; from the second on, at the same height, it is dropped. Looking ahead lost: a broken
    page would then take its neighbour down. Its numbers may differ; in type that heads something they have to go on as
    the pages do, or "Definition 7" at the top of a page would be taken for "Definition 3" at the top of another.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], list[tuple[int, list[int]]]] = {}
        self._here: dict[tuple[str, int], list[int]] = {}
        self.top: list[str] = []
        """What was dropped at the top of the last page, page numbers aside: it says what the page is about."""

    def drop(self, blocks: list[list[Line]], height: float, *, page: int) -> list[list[Line]]:
        """The groups without running heads, feet and page numbers. page: its number."""
        lines = [line for group in blocks for line in group]
        self._here = {}
        row = _top_row(lines, height)
        usual = median(line.size for line in lines) if lines else 0.0
        running = {id(line) for line in lines if self._is_running(line, height, page, is_apart=line in row, usual=usual)}
        running |= {id(line) for line in _outermost(lines, height) if _PAGE_NUMBER.match(line.text.strip())}
        if _is_numbered(row, lines):
            running |= set(map(id, row))
        running -= {id(line) for line in lines if id(line) in running and _is_of_table(line, lines)}
        for key, numbers in self._here.items():
            self._seen[key] = [*self._seen.get(key, []), (page, numbers)][-_REMEMBERED:]
        said = [line for line in lines if id(line) in running and (line.y0 < height * _MARGIN or line in row)]
        self.top = [text for line in said if not _PAGE_NUMBER.match(text := " ".join(line.text.split()))]
        kept = [[line for line in group if id(line) not in running] for group in blocks]
        return [group for group in kept if group]

    def _is_running(self, line: Line, height: float, page: int, *, is_apart: bool, usual: float) -> bool:
        inside = height * _MARGIN < line.center[1] < height * (1 - _MARGIN)
        if inside and not is_apart:
            return False
        text = line.text.strip()
        if not inside and _PAGE_NUMBER.match(text):
            return True
        key, numbers = (_DIGITS.sub("#", text), round(line.y0 / 3)), [int(found) for found in _DIGITS.findall(text)]
        self._here[key] = numbers
        earlier = self._seen.get(key, [])
        if not inside and not (line.bold or line.size > _LARGER * usual):
            return bool(earlier)
        return any(all(new - old in (0, page - at) for new, old in zip(numbers, before)) for at, before in earlier)


def _is_of_table(line: Line, lines: Sequence[Line]) -> bool:
    """Whether a line at a page's edge is a cell: a number of its row stands right over or under another, in one column.

    A page number stands apart, or beside what runs on every page.
    """
    row = [other for other in lines if abs(other.center[1] - line.center[1]) < 0.5 * line.size]
    figures = [other for other in row if _FIGURE.fullmatch(other.text.strip())] if len(row) > 1 else []
    return any(
        0.5 * line.size < abs(other.center[1] - figure.center[1]) < _NEXT_ROW * line.size
        and min(abs(other.x1 - figure.x1), abs(other.x0 - figure.x0)) < _ALIGNED_PT
        and _FIGURE.fullmatch(other.text.strip())
        for figure in figures
        for other in lines
    )


def _top_row(lines: Sequence[Line], height: float) -> list[Line]:
    """The page's first row, where it stands high and apart from what follows; none where it does not."""
    top = min(lines, key=lambda line: line.y0, default=None)
    if top is None:
        return []
    row = [line for line in lines if abs(line.center[1] - top.center[1]) < 0.5 * top.size]
    bottom = max(line.y1 for line in row)
    below = [line.y0 for line in lines if line not in row]
    is_apart = bottom < height * _TOP_ROW and below and min(below) - bottom > top.size
    return row if is_apart else []


def _is_numbered(row: Sequence[Line], lines: Sequence[Line]) -> bool:
    """Whether a page's first row is a name, and well apart at its outer end the page's number, in no larger type than the page's.

    A heading with its number is bold, larger, or close to it; a year heads a column.
    """
    if not 2 <= len(row) <= 3 or any(line.bold or line.size > _LARGER * median(one.size for one in lines) for line in row):
        return False
    by_x = sorted(row, key=lambda line: line.x0)
    for number, beside in ((by_x[0], by_x[1]), (by_x[-1], by_x[-2])):
        gap = max(number.x0, beside.x0) - min(number.x1, beside.x1)
        text = number.text.strip()
        if _PAGE_NUMBER.match(text) and not _YEAR.search(text) and gap > _APART * number.size:
            return True
    return False


def _outermost(lines: Sequence[Line], height: float) -> list[Line]:
    """The topmost and the lowest line, where they stand apart in the outer strip of the page."""
    if len(lines) < 3:
        return []
    by_top = sorted(lines, key=lambda line: line.y0)
    first, second, before, last = by_top[0], by_top[1], by_top[-2], by_top[-1]
    found = [first] if first.y1 < height * _FOOT and second.y0 - first.y1 > first.size else []
    return [*found, last] if last.y0 > height * (1 - _FOOT) and last.y0 - before.y1 > last.size else found
