"""Tables told by their rows of figures: a label and, on the same baseline, numbers in columns. No rule need be drawn.

Financial statements are set this way: labels long and wrapped, years above, a "$" far from its number, lines of labels
alone between. MuPDF's blocks tear them apart (figures end up with the next row's label), so rows are joined here by
baseline, before any block is made. What does not line up in columns is left to the other finders and to prose.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

from ultrafast_rag.extract.pdf.layout import Line, find_gutter, is_shouted, union
from ultrafast_rag.language.rows import is_figure, is_period
from ultrafast_rag.types import BBox

_FRAGMENT = re.compile(r"\s*…\s*|\s{2,}")
_FIGURES = re.compile(r"[$€£]?\s?\(?-?\d[\d,.]*\)?%?|[-–—](?=\s|$)")
_BRACKET = re.compile(r"(?<=[\d%])\s+\)")  # "(143 )": the bracket was set in a cell of its own
_DAY = re.compile(r"\d{1,2}, (?:19|20)\d\d")
_DAYS = re.compile(r"\d{1,2},")
_MONTH_LAST = re.compile(r"\b(?:January|February|March|April|May|June|July|August|September|October|November|December)$")
_MARK = re.compile(r"^[$€£¥%)]+$")
_UNITS = re.compile(
    r"^\(?(?:all\s+)?(?:(?:dollars?|amounts?|figures)\s+)?(?:are\s+)?(?:in\s+)?(?:U\.?S\.?\s*)?(?:[$€£]|[A-Z]{3})?\s*"
    r"(?:millions?|thousands?|billions?|mio|mrd|tsd)\b.{0,80}$"
    r"|^\(.{0,80}\b(?:millions|thousands|billions|percent|unaudited|shares)\b.{0,60}\)$",
    re.I,
)
_LONGEST_CELL = 28  # characters of a column's head
_LONGEST_NAME = 90  # characters of a line that says what a table shows
_MOST_HEAD_ROWS = 6  # chosen: years, periods, units, footnotes and two more
_GAP = 2.6  # line heights between two rows of one table
_LARGER = 1.15  # times the type of a row: a title
_ALIGNED_PT = 2.5  # half a digit of ten-point print
_BARE = 0.25  # of a column's width: what it costs to leave a column without the head over its neighbours
_LEFT_PT = 4.0  # heads are centred over their columns rather than set to the left
_BESIDE_PT = 40.0  # above and below a column of prose, what stands in its strip is still its own


@dataclass(slots=True)
class _Row:
    """Fragments on one baseline, left to right; label: the words they begin with, if any; values: what follows."""

    cells: list[Line]
    parents: list[Line]
    label: Line | None = None
    values: list[Line] = field(default_factory=list)

    @property
    def top(self) -> float:
        return min(line.y0 for line in self.cells)

    @property
    def bottom(self) -> float:
        return max(line.y1 for line in self.cells)

    @property
    def size(self) -> float:
        return max(line.size for line in self.cells)

    @property
    def numbers(self) -> list[Line]:
        """The values that are numbers; neither dashes nor years."""
        return [line for line in self.values if _is_number(line.text)]

    @property
    def is_data(self) -> bool:
        """A number beside a label or beside another number, and not words in the main."""
        figures = sum(is_figure(line.text) or is_period(line.text) for line in self.values)
        return len(self.cells) > 1 and bool(self.numbers) and figures * 2 > len(self.values)


class Statement(NamedTuple):
    """Rows of cell texts, the box around them, and the lines they were read from."""

    bbox: BBox
    rows: list[list[str]]
    lines: list[Line]


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


def find_statements(groups: Sequence[Sequence[Line]]) -> list[Statement]:
    """The tables of figures among the lines of a page, grouped as MuPDF's blocks; beside prose, too."""
    lines = [line for group in groups for line in group]
    if sum(map(_may_be_figure, lines)) < 2 and not any(_FRAGMENT.search(line.text.strip()) for line in lines):
        return []
    found = []
    for region in regions(groups):
        rows = [row for cells in region if (row := _row(cells)).cells]
        for first, last in _runs(rows):
            if table := _table(rows, first, last):
                found.append(table)
    return found


def join_figures(groups: Sequence[list[Line]]) -> list[list[Line]]:
    """A figure that stands alone at some distance, joined to the label on its left; groups left empty go."""
    if not any(_may_be_figure(line) for group in groups for line in group):
        return list(groups)
    owner = {id(line): group for group in groups for line in group}
    gutter = find_gutter([line for group in groups for line in group])
    joined: dict[int, Line] = {}
    gone: set[int] = set()
    for region in regions(groups):
        for row in region:
            for label, line in pairwise(row):
                at = next((key for key, made in joined.items() if made is label), id(label))
                apart = gutter is not None and label.x1 <= gutter + 1 and line.x0 >= gutter - 1
                if not apart and _belongs(joined.get(at, label), line, owner[id(line)]):
                    leader = " … " if line.text.strip().isdigit() and len(line.text.strip()) < 4 else " "
                    joined[at] = replace(
                        joined.get(at, label), text=f"{label.text.rstrip()}{leader}{line.text.strip()}", x1=line.x1
                    )
                    gone.add(id(line))
    if not gone:
        return list(groups)
    left = [[joined.get(id(line), line) for line in group if id(line) not in gone] for group in groups]
    return [group for group in left if group]


def _may_be_figure(line: Line) -> bool:
    return len(line.text) < _LONGEST_CELL and is_figure(line.text)


def _belongs(label: Line, figure: Line, group: Sequence[Line]) -> bool:
    """Whether a figure is the value of the label on its left, and not the beginning of a line in its own column."""
    return (
        _may_be_figure(figure)
        and any(c.isdigit() for c in figure.text)
        and figure.x0 - label.x1 > 1.5 * figure.size
        and abs(label.center[1] - figure.center[1]) < 0.25 * figure.size
        and abs(label.size - figure.size) < 0.15 * figure.size
        and sum(map(str.isalpha, label.text)) > 2
        and not any(abs(line.x0 - figure.x0) < 3 and not is_figure(line.text) for line in group)
    )


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
    figures = sum(_may_be_figure(line) for line in group)
    goes_on = sum(line.text.lstrip()[:1].islower() for line in group[1:])
    right = max(line.x1 for line in group)
    full = sum(line.x1 > right - 0.3 * line.size and not _FRAGMENT.search(line.text.strip()) for line in group[:-1])
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


def _row(lines: Sequence[Line]) -> _Row:
    cells: list[Line] = []
    for line in lines:
        cells += _fragments(line)
    cells = _with_marks(sorted(cells, key=lambda line: line.x0))
    numbered = len(cells) > 2 and is_figure(cells[0].text) and not any(map(is_period, (cells[0].text, cells[1].text)))
    if numbered and sum(map(str.isalpha, cells[1].text)) > 2:
        first, second = cells[:2]  # an item's number or bullet before its words
        cells[:2] = [replace(second, text=f"{first.text.strip()} {second.text.strip()}", x0=first.x0)]
    labelled = bool(cells) and (not is_figure(cells[0].text) or is_period(cells[0].text))
    return _Row(cells, list(lines), cells[0] if labelled else None, cells[labelled:])


def _is_number(text: str) -> bool:
    return is_figure(text) and not is_period(text) and any(c.isdigit() for c in text)


def _fragments(line: Line) -> list[Line]:
    """A line cut where leaders or wide gaps stand before figures; the places are estimated from the ends."""
    texts = [text for text in _FRAGMENT.split(line.text.strip()) if text]
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
    if _DAY.fullmatch(text.strip()):
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


def _runs(rows: Sequence[_Row]) -> Iterator[tuple[int, int]]:
    """(first, last) data row of each stretch that lines of labels alone may interrupt."""
    first = last = -1
    for at, row in enumerate(rows):
        if first >= 0 and at > last and not _follows(rows, last, at):
            yield first, last
            first = -1
        if row.is_data and first >= 0 and any(map(_heads_anew, rows[last + 1 : at])):
            yield first, last
            first = -1
        if row.is_data:
            first, last = (at, at) if first < 0 else (first, at)
    if first >= 0:
        yield first, last


def _heads_anew(row: _Row) -> bool:
    """Whether a row between rows of figures heads columns again: years alone, or the unit of what follows."""
    texts = [line.text.strip() for line in row.cells]
    return (len(texts) > 1 and all(map(is_period, texts))) or (len(texts) == 1 and bool(_UNITS.match(texts[0])))


def _follows(rows: Sequence[_Row], last: int, at: int) -> bool:
    """Whether row `at` may still belong to the table whose last data row is `last`."""
    row, before = rows[at], rows[at - 1]
    if row.top - before.bottom > _GAP * row.size or at - last > 4:
        return False
    if row.is_data:
        return True
    if row.size > _LARGER * rows[last].size:
        return False  # the title of what comes next
    right = max(line.x1 for line in rows[last].values)
    left = min(line.x0 for line in rows[last].values)
    if len(row.cells) == 1:
        line = row.cells[0]
        return line.x1 < right and (line.x1 < left + 4 or len(line.text) < 60)
    return all(len(line.text) < _LONGEST_CELL for line in row.cells[1:]) and row.cells[-1].x1 < right + 20


def _table(rows: Sequence[_Row], first: int, last: int) -> Statement | None:
    """The rows from the heads above the first data row to the last, in columns; None where they do not line up."""
    body = list(rows[first : last + 1])
    data = [row for row in body if row.is_data]
    columns = _columns(data)
    if not (_is_headed(rows, first, columns) if len(data) == 1 else _lines_up(data, columns)):
        return None
    margin = min(row.cells[0].x0 for row in body)
    start = _head_start(rows, first, columns, margin)
    if start < first:
        body = [*rows[start:first], *body]
    labels = max((row.label.x1 for row in data if row.label is not None), default=columns[0][0])
    cells = [_cells(row, columns, labels) for row in body]
    _spread(body, cells, columns, labels)
    body, cells = _without_days(body, cells)
    lines = [line for row in body for line in row.parents]
    shown = [_unit_first(texts) for texts in _merged_labels(body, cells)]
    return Statement(union(lines), shown, lines)


def _unit_first(texts: list[str]) -> list[str]:
    """A row that is a unit alone has it first, wherever it stood: it is that of the whole table."""
    said = [text for text in texts if text]
    return [said[0], *[""] * (len(texts) - 1)] if len(said) == 1 and _UNITS.match(said[0]) else texts


def _columns(data: Sequence[_Row]) -> list[tuple[float, float]]:
    """Left and right edge of each column of figures, from the fullest row outwards."""
    columns: list[list[float]] = []
    for row in sorted(data, key=lambda row: -len(row.values)):
        for line in row.values:
            best = max(columns, key=lambda c: min(c[1], line.x1) - max(c[0], line.x0), default=None)
            if best is None or min(best[1], line.x1) - max(best[0], line.x0) < -_ALIGNED_PT:
                columns.append([line.x0, line.x1])
            else:
                best[0], best[1] = min(best[0], line.x0), max(best[1], line.x1)
    return [(x0, x1) for x0, x1 in sorted(columns)]


def _is_headed(rows: Sequence[_Row], first: int, columns: Sequence[tuple[float, float]]) -> bool:
    """Whether a single row of figures is a table: a label, figures, and right above each of them a year or the like."""
    row, above = rows[first], rows[first - 1] if first else None
    if row.label is None or above is None or len(row.numbers) < 2 or len(row.values) != len(columns):
        return False
    over = [line for line in above.cells if line.x0 > row.label.x1]
    near = row.top - above.bottom < _GAP * row.size
    return near and len(over) == len(columns) and sum(is_period(line.text) for line in over) > 1


def _lines_up(data: Sequence[_Row], columns: Sequence[tuple[float, float]]) -> bool:
    """Whether the rows are a table: enough numbers, sharing edges, beside words; no list of contents, no formulas."""
    numbers = [line for row in data for line in row.numbers]
    widest = max((len(row.values) for row in data), default=0)
    if (
        len(data) < 2
        or len(numbers) < 4
        or len(columns) > 2 * widest
        or (widest == 1 and counts_up([line.text for line in numbers]))
    ):
        return False
    off = [min(min(abs(n.x1 - x1), abs(n.x0 - x0), abs(n.x0 + n.x1 - x0 - x1) / 2) for x0, x1 in columns) for n in numbers]
    labels = [row.label.text.strip() for row in data if row.label is not None]
    named = sum(sum(map(str.isalpha, text)) > 2 or is_period(text) or _DAY.fullmatch(text) is not None for text in labels)
    if named * 2 < len(data):  # numbers alone: only as a perfect grid, for the ticks of a chart stand in rows too
        return len(data) >= 3 and widest >= 3 and all(len(row.values) == widest for row in data) and max(off) <= _ALIGNED_PT
    return sum(edge <= 3 * _ALIGNED_PT for edge in off) >= 0.7 * len(off)


def counts_up(cells: Sequence[str]) -> bool:
    """Plain whole numbers that seldom fall: page numbers of a list of contents, numbers of formulas."""
    texts = [cell.strip().strip("()") for cell in cells]
    if not all(text.isdigit() and len(text) < 5 for text in texts):
        return False
    values = [int(text) for text in texts]
    return sum(a <= b for a, b in pairwise(values)) >= 0.8 * (len(values) - 1)


def _head_start(rows: Sequence[_Row], first: int, columns: Sequence[tuple[float, float]], margin: float) -> int:
    """Index of the topmost row that heads the columns; `first` where none does. margin: where the labels begin."""
    start = at = first
    while at > 0 and first - at < _MOST_HEAD_ROWS:
        row, below = rows[at - 1], rows[at]
        text = " ".join(line.text.strip() for line in row.cells)
        if len(row.cells) == 1 and is_shouted(text) and not is_period(text):
            break  # the title
        if below.top - row.bottom > 2 * row.size or row.is_data or row.size > _LARGER * rows[first].size or len(text) > 160:
            break
        if _UNITS.match(text) or _heads(row, columns, margin):
            start = at - 1
        elif len(text) > 60 or len(row.cells) > 1 or (start < first and not any(is_period(line.text) for line in row.cells)):
            break  # prose, or a title over the heads that were found
        at -= 1
    return start - 1 if 0 < start < first and _names_table(rows, start, margin) else start


def _names_table(rows: Sequence[_Row], start: int, margin: float) -> bool:
    """Whether a short line right above the heads says what the table shows ("Operating Income", over years).

    No bold or larger line, which is a heading, and no end of a paragraph.
    """
    row, below, above = rows[start - 1], rows[start], rows[start - 2] if start > 1 else None
    text = row.cells[0].text.strip()
    if len(row.cells) > 1 or row.cells[0].bold or row.size > _LARGER * below.size or not text[:1].isalnum():
        return False
    near = above is not None and row.top - above.bottom < 0.5 * row.size and not above.is_data
    of_text = near and above is not None and sum(len(line.text) for line in above.cells) > len(text)
    short = len(text) <= _LONGEST_NAME and not text.endswith((".", ";", ","))
    return short and not of_text and below.top - row.bottom < row.size and abs(row.cells[0].x0 - margin) < 2 * row.size


def _heads(row: _Row, columns: Sequence[tuple[float, float]], margin: float) -> bool:
    """Whether the row's words stand over the columns, and what stands over the labels is short."""
    left, right = columns[0][0], columns[-1][1]
    over = [line for line in row.cells if line.center[0] > left - 10 and line.x0 > margin + 0.3 * (left - margin)]
    label = [line for line in row.cells if line not in over]
    if not over or any(len(line.text) > 2 * _LONGEST_CELL or line.x1 > right + 40 for line in over):
        return False
    if len(row.cells) == 1 and over[0].x0 < left - 25:
        return False  # a title set in the middle of the page
    return sum(len(line.text) for line in label) <= 60 and not row.cells[-1].text.rstrip().endswith((".", ";"))


def _cells(row: _Row, columns: Sequence[tuple[float, float]], labels: float) -> list[str]:
    """The row's texts by column, label first; a head over several columns stands in each of them. labels: where these end."""
    cells = [""] * (len(columns) + 1)
    over = [] if row.is_data else [line for line in row.cells if line.x0 > labels]
    in_order = {id(line): [at] for at, line in enumerate(over, 1)} if len(over) == len(columns) else {}
    for line in row.cells:
        for at in in_order.get(id(line)) or _places(line, row, columns, labels):
            cells[at] = _BRACKET.sub(")", f"{cells[at]} {' '.join(line.text.split())}".strip())
    return cells


def _spread(body: Sequence[_Row], cells: Sequence[list[str]], columns: Sequence[tuple[float, float]], labels: float) -> None:
    """Put heads that stand over several columns into each of these, where the rows below head them one by one.

    "Net sales" over the middle of three years is not the second year's alone.
    """
    first = next(n for n, row in enumerate(body) if row.is_data)
    for n, row in enumerate(body[: max(0, first - 1)]):
        heads = {at - 1: text for texts in cells[n + 1 : first] for at, text in enumerate(texts) if at and text}
        periods = frozenset(at for at, text in heads.items() if is_period(text))
        under = periods if len(periods) > 1 else frozenset(heads)  # years are not headed together with what is none
        over = [line for line in row.cells if line.x0 > labels]
        if len(periods) < 2 and (len(over) == 1 or sum(any(texts[1:]) for texts in cells[n + 1 : first]) > 1):
            continue  # heads of three lines and more are words that wrap
        beside = [line for line in row.cells if line.x0 <= labels and _places(line, row, columns, labels) != [0]]
        alone = len(over) == 1 and not beside and len(periods) > 1 and not _UNITS.match(over[0].text.strip())
        if alone and columns[min(periods)][0] - 25 < over[0].center[0] < columns[max(periods)][1]:
            for at in periods:  # alone over years, wherever their figures begin
                cells[n][at + 1] = " ".join(over[0].text.split())
        elif not beside and 0 < len(over) < len(under) and (spans := _spans(over, columns, under)):
            cells[n][1:] = [""] * len(columns)
            for line, (start, end) in zip(over, spans):
                cells[n][start + 1 : end + 2] = [" ".join(line.text.split())] * (end + 1 - start)


def _without_days(body: Sequence[_Row], cells: Sequence[list[str]]) -> tuple[list[_Row], list[list[str]]]:
    """The rows with the days of wrapped dates ("Years Ended December" over "31,") put to their months."""
    rows: list[_Row] = []
    kept: list[list[str]] = []
    for row, texts in zip(body, cells):
        said = [text for text in texts if text]
        months = [text for text in kept[-1] if text] if kept else []
        if said and all(map(_DAYS.fullmatch, said)) and months and all(map(_MONTH_LAST.search, months)):
            kept[-1] = [f"{month} {said[0]}" if month else "" for month in kept[-1]]
        else:
            rows.append(row)
            kept.append(list(texts))
    return rows, kept


def _spans(over: Sequence[Line], columns: Sequence[tuple[float, float]], under: frozenset[int]) -> list[tuple[int, int]]:
    """First and last column of each head: those whose middle, or left edge, is nearest its own; [] where that is far for some.

    under: the columns that have heads of their own below; each should have one above, too.
    """
    pitch = (columns[-1][1] - columns[0][0]) / len(columns)
    best: dict[int, tuple[float, list[tuple[int, int]]]] = {0: (0.0, [])}  # columns settled -> what it cost, and how
    for line in over:
        better: dict[int, tuple[float, list[tuple[int, int]]]] = {}
        for settled, (cost, spans) in best.items():
            for start in range(settled, len(columns)):
                for end in range(start, len(columns)):
                    if end > start and not under.issuperset(range(start, end + 1)):
                        break
                    left, right = columns[start][0], columns[end][1]
                    off = min(abs(line.center[0] - (left + right) / 2), abs(line.x0 - left) + _LEFT_PT)
                    total = cost + off + _BARE * pitch * len(under.intersection(range(settled, start)))
                    if total < better.get(end + 1, (math.inf, []))[0]:
                        better[end + 1] = total, [*spans, (start, end)]
        best = better
    ends = (
        (cost + _BARE * pitch * len(under.intersection(range(at, len(columns)))), spans) for at, (cost, spans) in best.items()
    )
    cost, spans = min(ends, default=(math.inf, []))
    return spans if cost < _BARE * pitch * 2 * len(over) else []


def _places(line: Line, row: _Row, columns: Sequence[tuple[float, float]], labels: float) -> list[int]:
    """The columns a fragment belongs to; 0 is that of the labels."""
    left = columns[0][0]
    if row.is_data:
        return [0] if line is row.label else [1 + _nearest(line, columns)]
    beside = line.x1 < left or (line.x0 < left - 25 and (len(row.cells) == 1 or line.center[0] < left))
    if beside and (line.x0 < labels or len(row.cells) == 1):
        return [0]
    over = [
        n for n, (x0, x1) in enumerate(columns, 1) if min(x1, line.x1) - max(x0, line.x0) > 0.3 * min(x1 - x0, line.x1 - line.x0)
    ]
    return over or [1 + _nearest(line, columns)]


def _nearest(line: Line, columns: Sequence[tuple[float, float]]) -> int:
    return max(range(len(columns)), key=lambda n: (min(columns[n][1], line.x1) - max(columns[n][0], line.x0), n))


def _merged_labels(body: Sequence[_Row], cells: Sequence[list[str]]) -> list[list[str]]:
    """Rows with wrapped labels made whole: a line of label alone that runs on into the row below, or ends the one above."""
    shown: list[list[str]] = []
    pending = ""
    for n, (row, texts) in enumerate(zip(body, cells)):
        alone = not any(texts[1:])
        near = n > 0 and row.top - body[n - 1].bottom < 0.6 * row.size
        if pending:
            texts, pending = [f"{pending} {texts[0]}".strip(), *texts[1:]], ""
        if alone and near and shown and texts[0][:1].islower() and any(shown[-1][1:]) and shown[-1][0]:
            shown[-1][0] += f" {texts[0]}"
        elif alone and n + 1 < len(body) and _runs_on(row, texts[0], body[n + 1], cells[n + 1]):
            pending = texts[0]
        else:
            shown.append(list(texts))
    return shown


def _runs_on(row: _Row, label: str, below: _Row, texts: Sequence[str]) -> bool:
    """Whether a label alone is the first line of the label below it."""
    if below.top - row.bottom > 0.6 * row.size or label.endswith(":") or not any(texts[1:]) or _UNITS.match(label):
        return False
    return (
        (not texts[0] and below.is_data)
        or texts[0][:1].islower()
        or texts[0].startswith(("$", "€", "£", "("))
        or label.endswith((",", " and", " of", " the", " to", "-"))
        or bool(_MONTH_LAST.search(label) and texts[0][:1].isdigit())
    )
