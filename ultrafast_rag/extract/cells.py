"""Cells -> a table Element: one line a row, as `language/rows.py` has it, which tells the heads by content."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ultrafast_rag.language.rows import CELL, is_data, is_figure
from ultrafast_rag.types import Element

_OPENING, _CLOSING = re.compile(r"[$€£¥]"), re.compile(r"[)%]{1,2}|\*{1,3}")  # signs set in cells of their own
MAX_COLUMNS = 200  # beyond lies formatting, or a matrix of numbers that nobody asks about in words


def table_element(rows: Iterable[Sequence[str]], *, caption: str = "", page: int | None = None) -> Element | None:
    """The rows as "a | b | c" lines below the caption, or None when all cells are empty.

    Columns that are empty throughout on the left go; a title over the table (one cell in a row of its own) is a line of text.
    """
    lines = [line for line in map(cleaned, rows) if line]
    if not lines:
        return None
    left = min(next(n for n, cell in enumerate(line) if cell) for line in lines)
    lines = [line[left:] for line in lines]
    widths = [sum(map(bool, line)) for line in lines]
    titles = next((n for n, width in enumerate(widths) if width > 1), 0)
    texts = ["".join(line) if n < titles else CELL.join(line) for n, line in enumerate(lines)]
    text = "\n".join([*filter(None, [caption]), *texts])
    return Element("table", text, page=page, metadata={"caption": caption} if caption else {})


def closed_up(rows: Iterable[Sequence[str]]) -> list[list[str]]:
    """Rows of a page without columns of nothing, or of nothing but signs ("$", ")", "%"), which join their figures.

    Filings are set so. A head that spans such a column and the figures' own then stands over the figures.
    """
    table = [list(row) for row in rows]
    width = max(map(len, table), default=0)
    table = [row + [""] * (width - len(row)) for row in table]
    for at in range(width):
        kind = _signs([row[at] for row in table])
        into = at - 1 if kind is _CLOSING else at + 1
        if 0 < into < width and (kind or _heads_next(table, at)):
            for row in table:
                parts = (row[into], row[at]) if kind is _CLOSING else (row[at], row[into])
                row[into], row[at] = ("" if kind is _CLOSING else " ").join(filter(None, parts)), ""
    used = [at for at in range(width) if any(row[at] for row in table)]
    return [[row[at] for at in used] for row in table]


def _heads_next(table: Sequence[Sequence[str]], at: int) -> bool:
    """Whether a column has nothing but heads, and the next one nothing but figures."""
    first = next((n for n, row in enumerate(table) if is_data(row)), len(table))
    heads, below = [row[at] for row in table[:first]], [row[at] for row in table[first:]]
    figures = [row[at + 1] for row in table if row[at + 1]] if at and at + 1 < len(table[0]) else []
    return bool(at and any(heads) and not any(below) and figures and all(map(is_figure, figures)))


def _signs(column: Sequence[str]) -> re.Pattern[str] | None:
    """Which signs a column holds: before figures, behind them, or None; heads over the column, words, do not count."""
    filled = [cell for cell in column if cell]
    for kind in (_OPENING, _CLOSING):
        found = [bool(kind.fullmatch(cell)) for cell in filled]
        if any(found) and all(found[found.index(True) :]):
            return kind
    return None


def cleaned(row: Sequence[str]) -> list[str]:
    """Each cell on one line; empty cells at the end left out, so that a blank row is []."""
    line = [" ".join(cell.split()) for cell in row[:MAX_COLUMNS]]
    while line and not line[-1]:
        line.pop()
    return line
