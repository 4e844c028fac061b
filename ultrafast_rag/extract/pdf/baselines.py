"""Lines of a page put together by what stands on one baseline, and cut again where leaders or wide gaps part figures.

What stands beside a narrow column of prose is a region of its own, and the prose belongs to none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from ultrafast_rag.extract.pdf.layout import Line, union
from ultrafast_rag.language.rows import is_figure, is_period
from ultrafast_rag.types import BBox

FRAGMENT = re.compile(r"\s*…\s*|\s{2,}")
_FIGURES = re.compile(r"[$€£]?\s?\(?-?\d[\d,.]*\)?%?|[-–—](?=\s|$)")
DAY = re.compile(r"\d{1,2}, (?:19|20)\d\d")  # of a date whose month stands before it
_MARK = re.compile(r"^[$€£¥%)]+$")
LONGEST_CELL = 28  # characters of a column's head
_BESIDE_PT = 40.0  # above and below a column of prose, what stands in its strip is still its own


@dataclass(slots=True)
class Row:
    """Fragments on one baseline, left to right; label: the words they begin with, if any; values: what follows."""

    cells: list[Line]
    parents: list[Line]
    label: Line | None = None
    values: list[Line] = field(default_factory=list)

    @property
    def top(self) -> float:
        """Of the highest cell, in points."""
        return min(line.y0 for line in self.cells)

    @property
    def bottom(self) -> float:
        """Of the lowest cell."""
        return max(line.y1 for line in self.cells)

    @property
    def size(self) -> float:
        """Of the largest type."""
        return max(line.size for line in self.cells)

    @property
    def numbers(self) -> list[Line]:
        """The values that are numbers; neither dashes nor years."""
        return [line for line in self.values if is_number(line.text)]

    @property
    def is_data(self) -> bool:
        """A number beside a label or beside another number, and not words in the main."""
        figures = sum(is_figure(line.text) or is_period(line.text) for line in self.values)
        return len(self.cells) > 1 and bool(self.numbers) and figures * 2 > len(self.values)


def rows_of(lines: Sequence[Line]) -> list[list[Line]]:
    """Lines clustered by the middle of their height, each row left to right."""
    rows: list[list[Line]] = []
    sums: list[float] = []
    for line in sorted(lines, key=lambda line: line.center[1]):
        if rows and line.center[1] - sums[-1] / len(rows[-1]) < 0.5 * line.size:
            rows[-1].append(line)
            sums[-1] += line.center[1]
        else:
            rows.append([line])
            sums.append(line.center[1])
    return [sorted(row, key=lambda line: line.x0) for row in rows]


def may_be_figure(line: Line) -> bool:
    """Whether a short line is a figure and nothing else."""
    return len(line.text) < LONGEST_CELL and is_figure(line.text)


def regions(groups: Sequence[Sequence[Line]]) -> Iterator[list[list[Line]]]:
    """Rows of lines that may belong together: those of the page, cut where narrow columns of prose stand beside them.

    The lines of such prose are in none.
    """
    prose = [group for group in groups if _is_prose(group)]
    of_prose = {id(line) for group in prose for line in group}
    lines = [line for group in groups for line in group]
    rows = rows_of([line for line in lines if id(line) not in of_prose])
    columns = _prose_columns(prose, lines) if prose else []
    left, _, right, _ = union(lines)
    regions: list[tuple[float, float, list[list[Line]]]] = []
    for row in rows:
        middle = row[0].center[1]
        beside = [box for box in columns if box[1] - _BESIDE_PT < middle < box[3] + _BESIDE_PT]
        cuts = sorted({left - 2, right + 2, *(side for box in beside for side in (box[0] - 2, box[2] + 2))})
        for start, end in pairwise(cuts):
            if part := [line for line in row if start < line.center[0] <= end]:
                _region(regions, start, end).append(part)
    yield from (region for _, _, region in regions)


def _region(regions: list[tuple[float, float, list[list[Line]]]], start: float, end: float) -> list[list[Line]]:
    """The region of about this width and place; a new one where there is none."""
    for x0, x1, region in regions:
        if min(x1, end) - max(x0, start) > 0.75 * (max(x1, end) - min(x0, start)):
            return region
    regions.append((start, end, []))
    return regions[-1][2]


def _is_prose(group: Sequence[Line]) -> bool:
    """Whether a block is running text: long lines that run on into the next, no list of labels, no figures."""
    if len(group) < 3 or sum(len(line.text) for line in group) < 24 * len(group):
        return False
    figures = sum(may_be_figure(line) for line in group)
    goes_on = sum(line.text.lstrip()[:1].islower() for line in group[1:])
    right = max(line.x1 for line in group)
    full = sum(line.x1 > right - 0.3 * line.size and not FRAGMENT.search(line.text.strip()) for line in group[:-1])
    return figures * 10 <= len(group) and (goes_on >= 0.4 * (len(group) - 1) or full >= 0.7 * (len(group) - 1))


def _prose_columns(prose: Sequence[Sequence[Line]], lines: Sequence[Line]) -> list[BBox]:
    """Boxes of narrow prose, those above one another as one."""
    x0, _, x1, _ = union(lines)
    columns: list[BBox] = []
    for box in sorted((union(group) for group in prose), key=lambda box: box[1]):
        if box[2] - box[0] > 0.6 * (x1 - x0):
            continue
        for at, other in enumerate(columns):
            common = min(box[2], other[2]) - max(box[0], other[0])
            if common > 0.5 * (box[2] - box[0]) and box[1] - other[3] < 3 * _BESIDE_PT:
                columns[at] = (min(box[0], other[0]), other[1], max(box[2], other[2]), max(box[3], other[3]))
                break
        else:
            columns.append(box)
    return columns


def row_of(lines: Sequence[Line]) -> Row:
    """The lines of one baseline as a label and its values."""
    cells: list[Line] = []
    for line in lines:
        cells += _fragments(line)
    cells = _with_marks(sorted(cells, key=lambda line: line.x0))
    numbered = len(cells) > 2 and is_figure(cells[0].text) and not any(map(is_period, (cells[0].text, cells[1].text)))
    if numbered and sum(map(str.isalpha, cells[1].text)) > 2:
        first, second = cells[:2]  # an item's number or bullet before its words
        cells[:2] = [replace(second, text=f"{first.text.strip()} {second.text.strip()}", x0=first.x0)]
    labelled = bool(cells) and (not is_figure(cells[0].text) or is_period(cells[0].text))
    return Row(cells, list(lines), cells[0] if labelled else None, cells[labelled:])


def is_number(text: str) -> bool:
    """Whether a text is a figure with digits, and no year."""
    return is_figure(text) and not is_period(text) and any(c.isdigit() for c in text)


def _fragments(line: Line) -> list[Line]:
    """A line cut where leaders or wide gaps stand before figures; the places are estimated from the ends."""
    texts = [text for text in FRAGMENT.split(line.text.strip()) if text]
    texts = [piece for text in texts for piece in _figures_of(text)]
    per_letter = (line.x1 - line.x0) / max(len(line.text), 1)
    if len(texts) < 2 or not all(is_figure(text) or is_period(text) for text in texts[1:]):
        shown = line.text.rstrip(" …")
        return [replace(line, text=shown, x1=line.x1 - (len(line.text) - len(shown)) * per_letter)] if shown else []
    pieces, at = [], 0
    for text in texts:
        at = line.text.index(text, at)
        x0 = line.x0 + at * per_letter
        at += len(text)
        pieces.append(replace(line, text=text, x0=x0, x1=line.x0 + at * per_letter))
    if "…" in line.text:  # which shortened the text: the last figure ends where the line does
        width = min(0.55 * line.size * len(texts[-1]), line.x1 - line.x0)
        pieces[-1] = replace(pieces[-1], x0=line.x1 - width, x1=line.x1)
        pieces[0] = replace(pieces[0], x1=min(pieces[0].x1, pieces[-1].x0 - 1))
    return pieces


def _figures_of(text: str) -> list[str]:
    """Figures or years that MuPDF took for words of one line, each by itself; any other text as it is."""
    pieces = _FIGURES.findall(text)
    if DAY.fullmatch(text.strip()):
        return [text]  # of "December 31, 2018", wrapped
    if len(pieces) < 2 or is_figure(text) or "".join(pieces).replace(" ", "") != text.replace(" ", ""):
        return [text]
    return pieces


def _with_marks(cells: list[Line]) -> list[Line]:
    """A currency sign set apart joins the number on its right, a per cent sign or bracket the one on its left."""
    joined: list[Line] = []
    for line in cells:
        text = line.text.strip()
        before = joined[-1] if joined else None
        if before is not None and text in ("%", ")", ")%") and is_figure(before.text):
            joined[-1] = replace(before, text=f"{before.text.rstrip()}{text}")
        elif before is not None and _MARK.match(before.text.strip()) and is_figure(text) and not _MARK.match(text):
            joined[-1] = replace(line, text=f"{before.text.strip()} {text}")
        else:
            joined.append(line)
    return joined
