"""Tables told by their rows of figures: a label and, on the same baseline, numbers in columns. No rule need be drawn.

Financial statements are set this way: labels long and wrapped, years above, a "$" far from its number, lines of labels
alone between. MuPDF's blocks tear them apart (figures end up with the next row's label), so rows are joined here by
baseline, before any block is made. What does not line up in columns is left to the other finders and to prose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from ultrafast_rag.extract.pdf.baselines import DAY, FRAGMENT, LONGEST_CELL, Row, may_be_figure, regions, row_of
from ultrafast_rag.extract.pdf.heads import LARGER, UNITS, cells_of, head_start
from ultrafast_rag.extract.pdf.layout import Line, find_gutter, union
from ultrafast_rag.language.rows import is_figure, is_period
from ultrafast_rag.types import BBox

_GAP = 2.6  # line heights between two rows of one table
_ALIGNED_PT = 2.5  # half a digit of ten-point print


class Statement(NamedTuple):
    """Rows of cell texts, the box around them, and the lines they were read from."""

    bbox: BBox
    rows: list[list[str]]
    lines: list[Line]


def find_statements(groups: Sequence[Sequence[Line]]) -> list[Statement]:
    """The tables of figures among the lines of a page, grouped as MuPDF's blocks; beside prose, too."""
    lines = [line for group in groups for line in group]
    if sum(map(may_be_figure, lines)) < 2 and not any(FRAGMENT.search(line.text.strip()) for line in lines):
        return []
    found = []
    for region in regions(groups):
        rows = [row for cells in region if (row := row_of(cells)).cells]
        for first, last in _runs(rows):
            if table := _table(rows, first, last):
                found.append(table)
    return found


def join_figures(groups: Sequence[list[Line]]) -> list[list[Line]]:
    """A figure that stands alone at some distance, joined to the label on its left; groups left empty go."""
    if not any(may_be_figure(line) for group in groups for line in group):
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


def _belongs(label: Line, figure: Line, group: Sequence[Line]) -> bool:
    """Whether a figure is the value of the label on its left, and not the beginning of a line in its own column."""
    return (
        may_be_figure(figure)
        and any(c.isdigit() for c in figure.text)
        and figure.x0 - label.x1 > 1.5 * figure.size
        and abs(label.center[1] - figure.center[1]) < 0.25 * figure.size
        and abs(label.size - figure.size) < 0.15 * figure.size
        and sum(map(str.isalpha, label.text)) > 2
        and not any(abs(line.x0 - figure.x0) < 3 and not is_figure(line.text) for line in group)
    )


def _runs(rows: Sequence[Row]) -> Iterator[tuple[int, int]]:
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


def _heads_anew(row: Row) -> bool:
    """Whether a row between rows of figures heads columns again: years alone, or the unit of what follows."""
    texts = [line.text.strip() for line in row.cells]
    return (len(texts) > 1 and all(map(is_period, texts))) or (len(texts) == 1 and bool(UNITS.match(texts[0])))


def _follows(rows: Sequence[Row], last: int, at: int) -> bool:
    """Whether row `at` may still belong to the table whose last data row is `last`."""
    row, before = rows[at], rows[at - 1]
    if row.top - before.bottom > _GAP * row.size or at - last > 4:
        return False
    if row.is_data:
        return True
    if row.size > LARGER * rows[last].size:
        return False  # the title of what comes next
    right = max(line.x1 for line in rows[last].values)
    left = min(line.x0 for line in rows[last].values)
    if len(row.cells) == 1:
        line = row.cells[0]
        return line.x1 < right and (line.x1 < left + 4 or len(line.text) < 60)
    return all(len(line.text) < LONGEST_CELL for line in row.cells[1:]) and row.cells[-1].x1 < right + 20


def _table(rows: Sequence[Row], first: int, last: int) -> Statement | None:
    """The rows from the heads above the first data row to the last, in columns; None where they do not line up."""
    body = list(rows[first : last + 1])
    data = [row for row in body if row.is_data]
    columns = _columns(data)
    if not (_is_headed(rows, first, columns) if len(data) == 1 else _lines_up(data, columns)):
        return None
    margin = min(row.cells[0].x0 for row in body)
    start = head_start(rows, first, columns, margin)
    if start < first:
        body = [*rows[start:first], *body]
    labels = max((row.label.x1 for row in data if row.label is not None), default=columns[0][0])
    body, shown = cells_of(body, columns, labels)
    lines = [line for row in body for line in row.parents]
    return Statement(union(lines), shown, lines)


def _columns(data: Sequence[Row]) -> list[tuple[float, float]]:
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


def _is_headed(rows: Sequence[Row], first: int, columns: Sequence[tuple[float, float]]) -> bool:
    """Whether a single row of figures is a table: a label, figures, and right above each of them a year or the like."""
    row, above = rows[first], rows[first - 1] if first else None
    if row.label is None or above is None or len(row.numbers) < 2 or len(row.values) != len(columns):
        return False
    over = [line for line in above.cells if line.x0 > row.label.x1]
    near = row.top - above.bottom < _GAP * row.size
    return near and len(over) == len(columns) and sum(is_period(line.text) for line in over) > 1


def _lines_up(data: Sequence[Row], columns: Sequence[tuple[float, float]]) -> bool:
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
    named = sum(sum(map(str.isalpha, text)) > 2 or is_period(text) or DAY.fullmatch(text) is not None for text in labels)
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
