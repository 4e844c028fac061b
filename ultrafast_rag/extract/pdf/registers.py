"""Registers: tables of words with a column of figures, one thing a row ("Ames, Iowa | Manufacturing | 1,122,000 | Leased").

Reports list properties, officers, plants and bonds this way. A row is told by its figure; lines of cells that wrap stand over
it or under it and belong to it. What has words in the main is no statement (`statements.py`), and without rules no grid.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from ultrafast_rag.extract.pdf.baselines import regions
from ultrafast_rag.extract.pdf.layout import Line, union
from ultrafast_rag.extract.pdf.statements import Statement
from ultrafast_rag.language.rows import is_figure, is_period

_WIDE = re.compile(r"\s{2,}")
_LONGEST = 44  # characters of one line of a cell; longer ones are prose
_LEAST = 3  # rows, and columns
_BETWEEN = 4  # lines of wrapped cells between two rows at most
_GAP = 1.3  # line heights between two lines of one register
_SAME = 0.7  # of the rows have as many cells as most, their figure in the same column
_HEADS = 4  # lines of column heads at most
_HEAD_GAP = 0.6  # line heights between heads and rows

Row = list[Line]


def find_registers(groups: Sequence[Sequence[Line]]) -> list[Statement]:
    """The registers among the lines of a page, grouped as MuPDF's blocks."""
    found = []
    for region in regions(groups):
        rows = [[piece for line in row for piece in _pieces(line)] for row in region]
        for anchors in _runs(rows):
            if table := _table(rows, anchors):
                lines = [line for row in region for line in row if _within(line, table)]
                found.append(table._replace(lines=lines))
    return found


def _within(line: Line, table: Statement) -> bool:
    x, y = line.center
    x0, y0, x1, y1 = table.bbox
    return x0 <= x <= x1 and y0 <= y <= y1


def _pieces(line: Line) -> Iterator[Line]:
    """A line cut at wide gaps, the places estimated by letters; without the blanks around it."""
    per_letter = (line.x1 - line.x0) / max(len(line.text), 1)
    at = 0
    for text in filter(None, _WIDE.split(line.text.strip())):
        at = line.text.index(text, at)
        yield replace(line, text=text, x0=line.x0 + at * per_letter, x1=line.x0 + (at + len(text)) * per_letter)
        at += len(text)


def _is_anchor(row: Row) -> bool:
    """Whether a line has a thing's name and, among words, a figure."""
    texts = [piece.text for piece in row]
    figures = [is_figure(text) and any(map(str.isdigit, text)) and not is_period(text) for text in texts]
    words = sum(sum(map(str.isalpha, text)) > 1 for text in texts)
    return len(row) >= _LEAST and not figures[0] and 0 < sum(figures) <= words and all(len(t) <= _LONGEST for t in texts)


def _is_part(row: Row, like: Row) -> bool:
    """Whether a line may be of cells that wrap, in the type of the row `like`."""
    return all(
        len(piece.text) <= _LONGEST and piece.bold == like[-1].bold and abs(piece.size - like[-1].size) < 0.1 * piece.size
        for piece in row
    )


def _near(upper: Row, lower: Row) -> bool:
    return min(p.y0 for p in lower) - max(p.y1 for p in upper) < (_GAP - 1) * lower[0].size


def _runs(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Places of the anchors of each register."""
    run: list[int] = []
    for at, row in enumerate(rows):
        if not _is_anchor(row):
            continue
        between = [n for n in range(run[-1] + 1, at)] if run else []
        joined = all(_near(rows[a], rows[b]) for a, b in pairwise([*run[-1:], *between, at]))
        if run and not (joined and len(between) <= _BETWEEN and all(_is_part(rows[n], row) for n in between)):
            yield run
            run = []
        run.append(at)
    if run:
        yield run


def _table(rows: Sequence[Row], anchors: Sequence[int]) -> Statement | None:
    """The register of these anchors with its heads; None where its cells do not stand in columns."""
    full = Counter(len(rows[at]) for at in anchors).most_common(1)[0][0]
    whole = [rows[at] for at in anchors if len(rows[at]) == full]
    if len(anchors) < _LEAST or len(whole) < _SAME * len(anchors):
        return None
    columns = [(min(p.x0 for p in column), max(p.x1 for p in column)) for column in zip(*whole)]
    if any(right > left for (_, right), (left, _) in pairwise(columns)):
        return None
    figures = [max(sum(is_figure(row[n].text) for row in whole) for n in range(full))]
    if figures[0] < _SAME * len(whole):
        return None
    above = _parts_beside(rows, anchors[0], -1)
    below = _parts_beside(rows, anchors[-1], 1)
    upward = _wraps_upward(rows, anchors, columns, bool(above), bool(below))
    first, last = (anchors[0] - len(above), anchors[-1]) if upward else (anchors[0], anchors[-1] + len(below))
    cells: list[list[str]] = []
    taken: list[Row] = []
    for start, end in _spans(anchors, first, last, upward=upward):
        cells.append(_merged(rows[start : end + 1], columns))
        taken += rows[start : end + 1]
    heads = _heads(rows, first, columns)
    if heads:
        cells.insert(0, _merged(heads, columns))
    lines = [piece for row in [*heads, *taken] for piece in row]
    return Statement(union(lines), cells, lines)


def _parts_beside(rows: Sequence[Row], at: int, step: int) -> list[Row]:
    """Lines right above (step -1) or below (1) an anchor that may be of its cells."""
    found: list[Row] = []
    here = at
    while 0 <= here + step < len(rows) and len(found) < _BETWEEN:
        other = rows[here + step]
        upper, lower = (other, rows[here]) if step < 0 else (rows[here], other)
        if not _is_part(other, rows[at]) or not _near(upper, lower) or len(other) >= len(rows[at]):
            break
        found.append(other)
        here += step
    return found


def _wraps_upward(
    rows: Sequence[Row], anchors: Sequence[int], columns: Sequence[tuple[float, float]], above: bool, below: bool
) -> bool:
    """Whether a row's figure stands on its cells' last line: told by the register's ends, else by what goes on in small letters.

    above, below: whether lines of cells stand over the first figure, under the last.
    """
    if above != below:
        return above
    down = up = 0
    for at, following in pairwise(anchors):
        for n in range(at + 1, following):
            down += sum(piece.text[:1].islower() for piece in rows[n])
            wrapped = {_column(piece, columns) for piece in rows[n]}
            up += sum(piece.text[:1].islower() for piece in rows[following] if _column(piece, columns) in wrapped)
    return up > down


def _spans(anchors: Sequence[int], first: int, last: int, *, upward: bool) -> Iterator[tuple[int, int]]:
    """First and last line of each row."""
    if upward:
        yield from zip([first, *(at + 1 for at in anchors)], anchors)
    else:
        yield from zip(anchors, [*(at - 1 for at in anchors[1:]), last])


def _merged(lines: Sequence[Row], columns: Sequence[tuple[float, float]]) -> list[str]:
    """The lines of a row read downwards in each column."""
    cells = [""] * len(columns)
    for line in lines:
        for piece in line:
            at = _column(piece, columns)
            cells[at] = f"{cells[at]} {piece.text}".strip()
    return cells


def _column(piece: Line, columns: Sequence[tuple[float, float]]) -> int:
    """The column that a piece shares most with, or is nearest to."""
    return max(range(len(columns)), key=lambda n: min(columns[n][1], piece.x1) - max(columns[n][0], piece.x0))


def _heads(rows: Sequence[Row], first: int, columns: Sequence[tuple[float, float]]) -> list[Row]:
    """Lines of column heads above the first row; [] where they name fewer than half of the columns."""
    found: list[Row] = []
    at = first
    while at > 0 and len(found) < _HEADS:
        row = rows[at - 1]
        long = any(len(piece.text) > _LONGEST for piece in row)
        apart = min(p.y0 for p in rows[at]) - max(p.y1 for p in row) > _HEAD_GAP * row[0].size
        if long or apart or (found and len(row) == 1 and not row[0].bold):
            break
        found.insert(0, row)
        at -= 1
    while found and len(found[0]) == 1 and found[0][0].x0 < columns[1][0] - 10:
        found.pop(0)  # a title
    named = {_column(piece, columns) for row in found for piece in row}
    return found if 2 * len(named) >= len(columns) and len(found) else []
