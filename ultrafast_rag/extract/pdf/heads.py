"""Heads over columns of figures, and each row's texts put under them: years, units, names over several, labels that wrap."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from ultrafast_rag.extract.pdf.baselines import LONGEST_CELL, Row
from ultrafast_rag.extract.pdf.layout import Line, is_shouted
from ultrafast_rag.language.rows import is_period

_BRACKET = re.compile(r"(?<=[\d%])\s+\)")  # "(143 )": the bracket was set in a cell of its own
_DAYS = re.compile(r"\d{1,2},")
_MONTH_LAST = re.compile(r"\b(?:January|February|March|April|May|June|July|August|September|October|November|December)$")
UNITS = re.compile(
    r"^\(?(?:all\s+)?(?:(?:dollars?|amounts?|figures)\s+)?(?:are\s+)?(?:in\s+)?(?:U\.?S\.?\s*)?(?:[$€£]|[A-Z]{3})?\s*"
    r"(?:millions?|thousands?|billions?|mio|mrd|tsd)\b.{0,80}$"
    r"|^\(.{0,80}\b(?:millions|thousands|billions|percent|unaudited|shares)\b.{0,60}\)$",
    re.I,
)
_LONGEST_NAME = 90  # characters of a line that says what a table shows
_MOST_HEAD_ROWS = 6  # chosen: years, periods, units, footnotes and two more
LARGER = 1.15  # times the type of a row: a title
_BARE = 0.25  # of a column's width: what it costs to leave a column without the head over its neighbours
_LEFT_PT = 4.0  # heads are centred over their columns rather than set to the left


def cells_of(body: Sequence[Row], columns: Sequence[tuple[float, float]], labels: float) -> tuple[list[Row], list[list[str]]]:
    """(rows, the texts of each by column, its label first). columns: left and right edges; labels: where these end."""
    cells = [_cells(row, columns, labels) for row in body]
    _spread(body, cells, columns, labels)
    rows, cells = _without_days(body, cells)
    return rows, [_unit_first(texts) for texts in _merged_labels(rows, cells)]


def head_start(rows: Sequence[Row], first: int, columns: Sequence[tuple[float, float]], margin: float) -> int:
    """Index of the topmost row that heads the columns; `first` where none does. margin: where the labels begin."""
    start = at = first
    while at > 0 and first - at < _MOST_HEAD_ROWS:
        row, below = rows[at - 1], rows[at]
        text = " ".join(line.text.strip() for line in row.cells)
        if len(row.cells) == 1 and is_shouted(text) and not is_period(text):
            break  # the title
        if below.top - row.bottom > 2 * row.size or row.is_data or row.size > LARGER * rows[first].size or len(text) > 160:
            break
        if UNITS.match(text) or _heads(row, columns, margin):
            start = at - 1
        elif len(text) > 60 or len(row.cells) > 1 or (start < first and not any(is_period(line.text) for line in row.cells)):
            break  # prose, or a title over the heads that were found
        at -= 1
    return start - 1 if 0 < start < first and _names_table(rows, start, margin) else start


def _names_table(rows: Sequence[Row], start: int, margin: float) -> bool:
    """Whether a short line right above the heads says what the table shows ("Operating Income", over years).

    No bold or larger line, which is a heading, and no end of a paragraph.
    """
    row, below, above = rows[start - 1], rows[start], rows[start - 2] if start > 1 else None
    text = row.cells[0].text.strip()
    if len(row.cells) > 1 or row.cells[0].bold or row.size > LARGER * below.size or not text[:1].isalnum():
        return False
    near = above is not None and row.top - above.bottom < 0.5 * row.size and not above.is_data
    of_text = near and above is not None and sum(len(line.text) for line in above.cells) > len(text)
    short = len(text) <= _LONGEST_NAME and not text.endswith((".", ";", ","))
    return short and not of_text and below.top - row.bottom < row.size and abs(row.cells[0].x0 - margin) < 2 * row.size


def _heads(row: Row, columns: Sequence[tuple[float, float]], margin: float) -> bool:
    """Whether the row's words stand over the columns, and what stands over the labels is short."""
    left, right = columns[0][0], columns[-1][1]
    over = [line for line in row.cells if line.center[0] > left - 10 and line.x0 > margin + 0.3 * (left - margin)]
    label = [line for line in row.cells if line not in over]
    if not over or any(len(line.text) > 2 * LONGEST_CELL or line.x1 > right + 40 for line in over):
        return False
    if len(row.cells) == 1 and over[0].x0 < left - 25:
        return False  # a title set in the middle of the page
    return sum(len(line.text) for line in label) <= 60 and not row.cells[-1].text.rstrip().endswith((".", ";"))


def _cells(row: Row, columns: Sequence[tuple[float, float]], labels: float) -> list[str]:
    """The row's texts by column, label first; a head over several columns stands in each of them. labels: where these end."""
    cells = [""] * (len(columns) + 1)
    over = [] if row.is_data else [line for line in row.cells if line.x0 > labels]
    in_order = {id(line): [at] for at, line in enumerate(over, 1)} if len(over) == len(columns) else {}
    for line in row.cells:
        for at in in_order.get(id(line)) or _places(line, row, columns, labels):
            cells[at] = _BRACKET.sub(")", f"{cells[at]} {' '.join(line.text.split())}".strip())
    return cells


def _spread(body: Sequence[Row], cells: Sequence[list[str]], columns: Sequence[tuple[float, float]], labels: float) -> None:
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
        alone = len(over) == 1 and not beside and len(periods) > 1 and not UNITS.match(over[0].text.strip())
        if alone and columns[min(periods)][0] - 25 < over[0].center[0] < columns[max(periods)][1]:
            for at in periods:  # alone over years, wherever their figures begin
                cells[n][at + 1] = " ".join(over[0].text.split())
        elif not beside and 0 < len(over) < len(under) and (spans := _spans(over, columns, under)):
            cells[n][1:] = [""] * len(columns)
            for line, (start, end) in zip(over, spans):
                cells[n][start + 1 : end + 2] = [" ".join(line.text.split())] * (end + 1 - start)


def _without_days(body: Sequence[Row], cells: Sequence[list[str]]) -> tuple[list[Row], list[list[str]]]:
    """The rows with the days of wrapped dates ("Years Ended December" over "31,") put to their months."""
    rows: list[Row] = []
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


def _places(line: Line, row: Row, columns: Sequence[tuple[float, float]], labels: float) -> list[int]:
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


def _merged_labels(body: Sequence[Row], cells: Sequence[list[str]]) -> list[list[str]]:
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


def _runs_on(row: Row, label: str, below: Row, texts: Sequence[str]) -> bool:
    """Whether a label alone is the first line of the label below it."""
    if below.top - row.bottom > 0.6 * row.size or label.endswith(":") or not any(texts[1:]) or UNITS.match(label):
        return False
    return (
        (not texts[0] and below.is_data)
        or texts[0][:1].islower()
        or texts[0].startswith(("$", "€", "£", "("))
        or label.endswith((",", " and", " of", " the", " to", "-"))
        or bool(_MONTH_LAST.search(label) and texts[0][:1].isdigit())
    )


def _unit_first(texts: list[str]) -> list[str]:
    """A row that is a unit alone has it first, wherever it stood: it is that of the whole table."""
    said = [text for text in texts if text]
    return [said[0], *[""] * (len(texts) - 1)] if len(said) == 1 and UNITS.match(said[0]) else texts
