"""Cells -> a table Element: one line a row, as `language/rows.py` has it, which tells the heads by content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ultrafast_rag.language.rows import CELL
from ultrafast_rag.types import Element

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


def cleaned(row: Sequence[str]) -> list[str]:
    """Each cell on one line; empty cells at the end left out, so that a blank row is []."""
    line = [" ".join(cell.split()) for cell in row[:MAX_COLUMNS]]
    while line and not line[-1]:
        line.pop()
    return line
