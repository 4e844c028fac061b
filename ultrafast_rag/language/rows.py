"""A table as lines of text: which cells are figures, and which of the first lines are its head.

A table is written one row a line, cells set apart by " | ", its caption above. Decided by content, for no format tells it
reliably: figures make a row of data, years, dates and units do not.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

CELL = " | "
MOST_HEAD_ROWS = 5  # chosen: title, unit, years, quarter, and one more
_FIGURE = re.compile(
    r"^[(\[<>~≈±+−–-]*\s*(?:[A-Z]{2,3}\s?)?[$€£¥₹%]?\s*[(−–+-]*\s*"  # sign and currency
    r"(?:\d{1,3}(?:[,.'’ \u202f]\d{3})+|\d+)?(?:[.,]\d+)?"
    r"\s*(?:[%‰x×]|bps?|pts?\.?|[€$£¥])?\s*[)\]]*\s*%?\s*"  # unit, brackets, per cent
    r"(?:\*{1,3}|†|‡|\(\w{1,2}(?:[,;]\s?\w{1,2})*\))?$"  # footnotes' marks
)
_BLANK = re.compile(r"^(?:[-–—−_.…*]+|n/?[am]\.?|nm|nil|\$|€|£|%|\)|\$\s?[-–—])$", re.I)
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mär|mai|okt|dez)\w*\.?"
_DATE = re.compile(
    rf"\b(?:{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?\b|\d{{1,2}}\.?\s+{_MONTH}|\d{{1,2}}[./]\d{{1,2}}[./]\d{{2,4}}|[qh][1-4]\b)", re.I
)
_YEAR = re.compile(
    r"\b(?:fy\s?|cy\s?)?['’]?(?:19|20)\d\d(?:[/–-]\d{2,4})?[ea]?(?!\w|[.,]\d)(?:\s?\(\w{1,2}\))?|\bfy\s?['’]?\d\d\b", re.I
)


def cells_of(line: str) -> list[str]:
    """A row's cells without the blanks around them; the last ones may be empty, and the blank behind them lost."""
    return [cell.strip() for cell in f"{line} ".split(CELL)]


@functools.lru_cache(maxsize=4096)
def is_figure(cell: str) -> bool:
    """Whether a cell holds a number and nothing else: '$ (1,234)', '12.5 %', '3 456'; a dash or 'n/a' stands for one."""
    text = cell.strip()
    return bool(text) and (bool(_BLANK.match(text)) or (any(c.isdigit() for c in text) and bool(_FIGURE.match(text))))


@functools.lru_cache(maxsize=4096)
def is_period(cell: str) -> bool:
    """Whether a cell names years or dates and holds no other figure: '2018', 'December 31, 2017', 'FY18 (a)'."""
    rest, dates = _DATE.subn(" ", cell)
    rest, years = _YEAR.subn(" ", rest)
    return dates + years > 0 and not any(c.isdigit() for c in rest)


def is_data(cells: Sequence[str]) -> bool:
    """Whether a row holds a figure beside its label that is neither a year nor a date."""
    return any(any(c.isdigit() for c in cell) and not is_period(cell) for cell in cells[1:]) or (
        len(cells) > 1 and all(is_figure(cell) for cell in cells if cell.strip()) and not any(map(is_period, cells))
    )


def _names_figures(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row has a word wherever it has anything, and one of them over nothing but figures: "Index | Phone 1"."""
    if len(rows) < 3 or any(is_figure(cell) or is_period(cell) for cell in rows[0]):
        return False
    columns = [column for column in zip(*rows) if len(column) == len(rows) and column[0]]
    return any(all(map(is_figure, column[1:])) for column in columns)


def head_lines(lines: Sequence[str]) -> int:
    """How many of the first lines are caption and column heads; 0 where the first line is a row of data already.

    A table mostly of figures may have several rows of heads (a title over columns, then years); one of words has one.
    """
    caption = next((n for n, line in enumerate(lines) if CELL.strip() in line), 0)
    rows = [[cell.strip() for cell in line.split("|")] for line in lines[caption:]]
    data = [is_data(row) for row in rows]
    first = next((n for n, is_one in enumerate(data) if is_one), len(data))
    if first == 0:
        return caption + _names_figures(rows)
    body = sum(any(row[1:]) for row in rows[first:])
    if first == len(rows) or sum(data) * 2 < body:
        return caption + 1
    heads = 0
    for n, row in enumerate(rows[: min(first, MOST_HEAD_ROWS)]):
        periods = sum(map(is_period, row[1:]))
        full = heads and all(rows[heads - 1])
        if heads and row[0] and ((full and periods < 2) or periods == 1 == sum(map(bool, row[1:]))):
            break  # "Founded | 1998", "Model | BERT" under their heads
        if any(row[1:]):  # else "Current assets:", which heads the rows below it and no column
            heads = n + 1
    return caption + heads
