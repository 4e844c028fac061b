"""Rows of a table as words, and the row and column that a question asks for."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from itertools import pairwise, takewhile
from pathlib import Path

from ultrafast_rag.answer.quotable import ENDED, Unit, is_caption
from ultrafast_rag.language.accounts import concepts
from ultrafast_rag.language.asides import plain
from ultrafast_rag.language.dates import MONTH, quarters_in, years_in
from ultrafast_rag.language.rows import CELL, cells_of, head_lines, is_data, is_figure, is_period
from ultrafast_rag.language.sameness import stem_english
from ultrafast_rag.types import PAGE_HEAD, Hit

_WORD = re.compile(r"[^\W\d_]{2,}")
_TERM = re.compile(r"\w+")
_HYPHENED = re.compile(r"\w+(?:-\w+)+")
_UNIT = re.compile(
    r"\b(?:in|USD|EUR|GBP|JPY|CHF)\s+(?:thousands|millions|billions)(?:\s+of\s+[\w. ]{1,20})?"
    r"|\b(?:thousands|millions|billions)\s+of\s+(?:U\.?S\.?\s+)?(?:dollars|euros?|pounds|yen|francs)\b"
    r"|(?<=^\()(?:thousands|millions|billions)(?=[,)])",
    re.I | re.M,
)
_SCALE = re.compile(r"thousand|million|billion", re.I)
_SCALE_ASKED = re.compile(r"\b(?:in|USD|EUR|GBP|dollars?|euros?)\s+(thousand|million|billion)s?\b", re.I)
_DIGITS = re.compile(r"\d[\d,]*(?:\.\d+)?")
_RUNNING = frozenset("no nr num number id index row rank pos position".split())  # heads of columns that count rows
_NAME_PART = re.compile(r"\b(?:(?:first|last|given|family|middle) ?name|(?:sur|fore)name|(?:vor|nach)name)\b", re.I)
_DAY = re.compile(rf"{MONTH}\.? \d{{1,2}},?", re.I)
_EARLY = re.compile(r"\b(?:jan|feb)[a-z]*\.? \d{1,2},? (?:19|20)\d\d", re.I)
_LITTLE = frozenset("a and by for from in of on or the to".split())
_GROUP_ASKED = 0.5  # chosen: share of the words over a row with a common label ("Diluted") that a question says of it
_LINE = 100  # characters: a line of a table that has one cell, and is no longer, names rows or the whole table
# what is written behind a row's label and is not asked for: "Accounts receivable, net of allowances", "Interest expense, net"
_LABEL_END = re.compile(r",\s+(?:net|less|excluding|including|before|after)\b|\s+\(|\s+[–—-]\s+")


def rows_of(hit: Hit, rank: int) -> list[Unit]:
    """Rows with their header in words; a table of one row is that row. Captions and lines that head rows are none."""
    lines = hit.text.split("\n")
    cut = [cells_of(line) for line in lines]
    labels = Counter(cells[0].casefold() for cells in cut if any(cells[1:]))
    units, at, group, head = list[Unit](), 0, "", _heads(lines)
    for n, (line, cells) in enumerate(zip(lines, cut)):
        alone = bool(labels) and not any(cells[1:])
        heads = n < len(lines) - 1 and len(cells) > 1 and (n < head or _header(lines[: n + 1], len(cells), head) == cells)
        if alone and (is_caption(line) or (len(line) <= _LINE and not ENDED.search(line.rstrip(" :|")))):
            if not _UNIT.search(line):
                group = line.strip(" :|") if any(CELL in above for above in lines[:n]) else ""
        elif line.strip() and not heads:
            header = _header(lines[:n], len(cells), head)
            label, rest = _label_of(cells, header)
            own = group if labels[cells[0].casefold()] > 1 else ""
            words = [f"{own}, {label}" if own else label, *(cells[at] for at in rest)]
            shown = _row_in_words(words, [header[0], *(header[at] for at in rest)])
            units.append(Unit(hit, shown, at, at + len(line), (rank, len(units)), own, label.strip(" :")))
        at += len(line) + 1
    return units


def _label_of(cells: list[str], header: list[str]) -> tuple[str, list[int]]:
    """What names a row (its first cell, behind a running number the next, parts of a name as one); its other cells' places."""
    first = int(len(cells) > 2 and _counts(cells, header))
    last = first
    while last + 1 < len(cells) and _NAME_PART.search(header[last]) and _NAME_PART.search(header[last + 1]):
        last += 1
    rest = [*range(first), *range(last + 1, len(cells))]
    return " ".join(filter(None, cells[first : last + 1])), rest


def _counts(cells: list[str], header: list[str]) -> bool:
    """Whether the first cell is the row's running number: figures under "No", words beside them."""
    name = header[0].casefold().strip(" .#")
    plain = cells[0].isdigit() and not is_period(cells[0])
    return plain and (name in _RUNNING or header[0].strip() == "#") and bool(_WORD.search(cells[1]))


def _row_in_words(cells: list[str], header: list[str]) -> str:
    """Reads as "Net sales: 32,765 (2018), 25,938 (2017)"; no pasted bars, no cell of nothing but a colon."""
    row = [cell if cell.strip(":") else "" for cell in cells]
    if len(row) < 2:
        return row[0]
    cells = [f"{cell} ({name})" if name and name != cell else cell for cell, name in zip(row[1:], header[1:]) if cell]
    return f"{row[0].strip(' :')}: {', '.join(cells)}" if row[0] and cells else ", ".join(filter(None, [row[0], *cells]))


def _heads(lines: list[str]) -> int:
    """`head_lines`; but one row of heads where words stand in later rows, for then a row of words among the first may be data."""
    later = map(cells_of, lines[head_lines(lines) :])
    if any(not is_data(row) and not all(is_figure(cell) for cell in row[1:] if cell) for row in later):
        return min(head_lines(lines), 1 + sum(1 for _ in takewhile(lambda line: CELL.strip() not in line, lines)))
    return head_lines(lines)


def _header(above: list[str], width: int, head: int) -> list[str]:
    """Names of `width` columns: the nearest row above of years, else the table's `head` lines, else the topmost, else blanks.

    Heads of several rows are read downwards: "Compress usage". Where a year comes twice ("2018 | 2017 | 2018 | 2017"), what
    stands over it says which: "Three months ended, 2018".
    """
    top = [_padded(cells_of(line), width) for line in above[:head]]
    rows = [row for row in (*top, *map(cells_of, above[head:])) if len(row) == width > 1]
    for at in reversed(range(len(rows))):
        if _names_periods(rows[at]):
            names = rows[at][1:]
            over = rows[at - 1][1:] if at else []
            if over and all(map(_DAY.fullmatch, over)):
                return [rows[at][0], *(f"{day} {year}" for day, year in zip(over, names))]
            twice = at > 0 and len(set(names)) < len(names) and not is_data(rows[at - 1])
            return [rows[at][0], *(_under(rows[at - 1][1:], names) if twice else names)]
    if not rows or any(cell[:1].isdigit() or cell[:1] in "($€£-–" for cell in rows[0][1:] if cell):
        return [""] * width
    heads = [row for row in top if len(row) == width]
    return [" ".join(dict.fromkeys(filter(None, column))) for column in zip(*(heads or rows[:1]))]


def _padded(row: list[str], width: int) -> list[str]:
    """A row of heads to the table's width: a sheet leaves out the empty cells at its end, which the last head spans."""
    return row + [""] * (width - len(row)) if len(row) > 1 else row


def _names_periods(row: list[str]) -> bool:
    """Whether a row heads columns by years: all of them, or at least two beside words ("2018 | 2017 | Change")."""
    periods = sum(map(is_period, row[1:]))
    return periods == len(row) - 1 or (periods > 1 and not is_data(row))


def _under(groups: list[str], names: list[str]) -> list[str]:
    """Each name with the group that spans it, which is written once over its first column."""
    found, group = list[str](), ""
    for over, name in zip(groups, names):
        group = over or (group if name else "")  # an empty column ends it
        found.append(f"{group}, {name}" if group else name)
    return found


def caption_of(unit: Unit) -> str:
    """What stands above a table's first row of cells; of other text nothing."""
    above = unit.hit.text[: unit.start].split("\n") if unit.hit.modality == "table" else []
    return " ".join(takewhile(lambda line: CELL.strip() not in line, above))


def above_of(unit: Unit) -> str:
    """What a table's row stands under: the caption, the names of its columns, the nearest line that heads rows; "" for prose."""
    if unit.hit.modality != "table":
        return ""
    lines = unit.hit.text[: unit.start].split("\n")
    width = len(cells_of(unit.hit.text[unit.start : unit.end]))
    header = _header(lines, width, _heads(unit.hit.text.split("\n")))
    heading = next((line for line in reversed(lines) if line.strip() and not any(cells_of(line)[1:])), "")
    return " ".join([caption_of(unit), *header, heading])


def cell_named(unit: Unit, question: str) -> str:
    """The cell whose column the question names, as "Net sales, 2018: 32,765 (in millions)"; "" where it names none, or several.

    Columns are named as in `_header`; the unit of money is what the table, its headings or its page's head say.
    """
    row = cells_of(unit.hit.text[unit.start : unit.end])
    above = unit.hit.text[: unit.start].split("\n")
    head = _heads(unit.hit.text.split("\n"))
    header = _header(above, len(row), head) if unit.hit.modality == "table" and len(row) > 1 else []
    asked = plain(question)
    named = _columns_named(header, asked if years_in(asked) else question, _fiscal_shift(header, Path(unit.hit.source).stem))
    if len(named) != 1 or not row[named[0]]:
        return ""
    label = ", ".join(part for part in (unit.group, unit.label, header[named[0]]) if part)
    money = _UNIT.search("\n".join([*above, unit.hit.section, str(unit.hit.metadata.get(PAGE_HEAD, ""))]))
    said = f"{label}: {row[named[0]]}"
    if not money or "%" in said or "per share" in label.casefold():
        return said
    scale = money[0] if " " in money[0] else f"in {money[0].lower()}"
    return f"{said} ({scale}){_in_other_scale(row[named[0]], money[0], question)}"


def _in_other_scale(cell: str, money: str, question: str) -> str:
    """The figure in the thousands, millions or billions that a question asks for, where the table has others; else ""."""
    own, asked = _SCALE.search(money), _SCALE_ASKED.search(question)
    digits = _DIGITS.search(cell)
    if not own or not asked or not digits or own[0][:2].lower() == asked[1][:2].lower():
        return ""
    exponents = {"th": 3, "mi": 6, "bi": 9}
    value = float(digits[0].replace(",", "")) * 10.0 ** (exponents[own[0][:2].lower()] - exponents[asked[1][:2].lower()])
    shown = f"{value:,.3f}".rstrip("0").rstrip(".") if value >= 1 else f"{value:.3g}"
    return f", that is {'-' if '(' in cell else ''}{shown} {asked[1].lower().rstrip('s')}"


def _fiscal_shift(header: list[str], name: str) -> int:
    """1 where a report's last column ends early in the year after the one in the file's name: fiscal 2018, "February 2, 2019"."""
    years = [year for column in header[1:] for year in years_in(column)]
    early = years and all(_EARLY.search(column) for column in header[1:] if column)
    return int(bool(early) and {str(int(max(years)) - 1)} == years_in(name))


def _columns_named(header: list[str], question: str, shift: int = 0) -> list[int]:
    """Columns of the one year that is asked for, those of them that the question's other words fit best.

    Else those of which it says every word in some form, else the most, and half: "type" for "Data type". A year is the same
    as "2018", "FY2018", "FY18" and "December 31, 2018". shift: years from the fiscal year to the one in which it ends.
    """
    asked = _stems(question)
    if quarters := quarters_in(question):
        if len(same := [n for n, name in enumerate(header) if n and quarters_in(name) == quarters]) == 1:
            return same
    if len(years := {str(int(year) + shift) for year in years_in(question)}) == 1:
        fits = {n: len(asked & _stems(name)) for n, name in enumerate(header) if n and years_in(name) == years}
        if fits:
            return [n for n, shared in fits.items() if shared == max(fits.values())]
    asked |= {stem_english("".join(pair)) for pair in pairwise(_TERM.findall(question.casefold()))}  # "fresh water"
    words = {n: found for n, name in enumerate(header) if n and (found := _stems(name))}
    named = [n for n in words if words[n] <= asked]
    fullest = [n for n in named if all(words[n] >= words[other] for other in named)]  # not "Ducks" but "Saltwater ducks"
    shares = {n: len(words[n] & asked) / len(words[n]) for n in words if not years_in(header[n])}
    return fullest or named or [n for n, share in shares.items() if share >= 0.5 and share == max(shares.values())]


def label_asked(unit: Unit, question: str) -> float:
    """Share of a row's label that the question says, in words of their own: USAGE is not asked for by FUNCTION_USAGE.

    Forms of a word are the same ("Dividends paid": "pay in dividends"), so are names of one line of accounts ("Purchases of
    property, plant and equipment": "capital expenditure"), and what the label adds behind a comma or bracket need not be said.
    A part of a label counts for half of that part. A label without words (a year, "-5", "B") is asked for as it is written.
    """
    if unit.hit.modality != "table":
        return 0.0
    label = unit.label
    if not _WORD.search(label):
        plain = any(map(str.isdigit, label)) or (len(label) == 1 and label.isupper())
        return float(plain and re.search(rf"(?<=\s){re.escape(label)}(?![\w-])", question) is not None)
    label = _LABEL_END.split(label)[0]
    lines, said = concepts(f"{unit.group} {label}"), concepts(question)
    if said and lines and not lines.keys() & said.keys():
        return 0.0  # another line of the accounts, however many words it shares
    asked = _stems(" ".join([question, *(lines[name] for name in lines.keys() & said.keys())]))
    share, over = _share_asked(label, asked), _share_asked(unit.group, asked) if unit.group else 1.0
    return 1.0 if share == 1 and over >= _GROUP_ASKED else share * over / 2 if share == 1 else share / 2


def _share_asked(label: str, asked: frozenset[str]) -> float:
    """Of a label's words, little ones aside."""
    words = _stems(label) - _LITTLE or _stems(label)
    return sum(word in asked or ("_" in word and asked.issuperset(word.split("_"))) for word in words) / max(len(words), 1)


def named_otherwise(unit: Unit, question: str) -> str:
    """The question's words for lines of accounts that a row's label names too, in whichever words."""
    lines = concepts(unit.label)
    return " ".join(said for name, said in concepts(question).items() if name in lines)


@lru_cache(maxsize=4096)
def _stems(text: str) -> frozenset[str]:
    """English stems of its words, "e-mail" as "email" too."""
    return frozenset(map(stem_english, _TERM.findall(_with_joined(text))))


def _with_joined(text: str) -> str:
    """In lower case, with words that a hyphen parts written as one as well."""
    text = text.casefold()
    return f"{text} {' '.join(found.replace('-', '') for found in _HYPHENED.findall(text))}"
