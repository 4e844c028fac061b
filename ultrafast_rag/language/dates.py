"""Years, quarters and full dates as texts write them."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TERM = re.compile(r"\w+")
_YEAR = re.compile(r"(?:19|20)\d\d")
_QUARTERS = ("fi", "se", "th", "fo")
_QUARTER_NAMED = re.compile(r"\b(first|second|third|fourth)[ -]quarter", re.I)
_QUARTER = re.compile(r"\bQ([1-4])\b", re.I)
_SHORT_YEAR = re.compile(r"\b(?:fy|cy)\s?['’]?(\d\d)\b", re.I)
_MONTHS = "janfebmaraprmayjunjulaugsepoctnovdec"
MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATE = re.compile(
    r"\b(?:(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)"
    rf"|(?P<day1>\d{{1,2}})(?:st|nd|rd|th)?\s+(?P<name1>{MONTH})\.?,?\s+(?P<year1>\d{{4}})"
    rf"|(?P<name2>{MONTH})\.?\s+(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?,?\s+(?P<year2>\d{{4}}))\b",
    re.I,
)
_MONTH_YEAR = re.compile(rf"\b{MONTH}\.?,?\s+\d{{4}}\b", re.I)
_DATED = frozenset(
    "version date dated updated update last revised published compiled printed draft as of this was on the".split()
)


def years_apart(text: str, question: str) -> bool:
    """Whether the text is about years, and the question about none of them nor any between them."""
    asked, said = (sorted(years_in(words)) for words in (question, text))
    return bool(asked and said) and all(year < said[0] or year > said[-1] for year in asked)


def dates_shared(question: str, text: str) -> str:
    """The question's full dates, as it writes them, that the text has in some form: "7 January 2024" for 2024-01-07."""
    held = {day for _, day in dates_in(text)}
    return " ".join(written for written, day in dates_in(question) if day in held)


def dates_in(text: str) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Each full date as it is written, and as year, month, day."""
    for found in _DATE.finditer(text):
        part = {name.rstrip("12"): value for name, value in found.groupdict().items() if value}
        month = _MONTHS.index(part["name"][:3].casefold()) // 3 + 1 if "name" in part else int(part["month"])
        yield found[0], (int(part["year"]), month, int(part["day"]))


def quarters_in(text: str) -> set[int]:
    """The quarters of a year that it names: "third quarter", Q3."""
    found = (_QUARTERS.index(word[:2].casefold()) + 1 for word in _QUARTER_NAMED.findall(text))
    return {*found, *map(int, _QUARTER.findall(text))}


def dated_line(text: str) -> bool:
    """Whether a line is a date and nothing more than what calls it one: "Version: June 28, 2019", "May 2019"."""
    found = _DATE.search(text) or _MONTH_YEAR.search(text)
    rest = f"{text[: found.start()]} {text[found.end() :]}" if found else ""
    return bool(found) and all(word.casefold() in _DATED for word in _TERM.findall(rest))


def years_in(text: str) -> set[str]:
    """As four figures."""
    return {*_YEAR.findall(text), *(f"20{year}" for year in _SHORT_YEAR.findall(text))}
