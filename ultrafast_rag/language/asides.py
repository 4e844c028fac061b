"""What of a question says where to look and how to answer, and not what is asked for.

"According to its 2018 10-K, what were net sales in 2016? Answer in USD millions." asks for net sales in 2016; the report is of
2018. English alone, in the words that people use of companies' reports.
"""

from __future__ import annotations

import re
from functools import lru_cache

FORM = re.compile(r"\b(?:form )?(?:10|8|6|20)-?[kqf]s?\b", re.I)
"""A report called by the number of its form: 10-K."""
_FORM = r"(?:annual reports?|quarterly reports?|(?:form )?10-?[kq]s?|filings?|financial statements?)"
_STATEMENT = (
    r"(?:balance sheets?|(?:cash flow|income) statements?"
    r"|statements? of (?:cash flows?|income|operations|earnings|financial position))"
)
_LEAD = (
    r"(?:according to|based on|as (?:shown|given|stated|reported|disclosed) (?:in|by)"
    r"|(?:by )?(?:primarily )?(?:using|relying on))"
)
_ORDER = re.compile(r"(?<=[.?!])\s+(?:please )?(?:answer|give|respond|round|provide|express|state)\b[^.?!]*[.?!]?", re.I)
_OWNER = r"(?:the |its |their )?(?:[\w&.'’-]+ ){0,5}?"
_CLAUSE = re.compile(
    rf",?\s*\b(?:{_LEAD} {_OWNER}(?:{_FORM}|{_STATEMENT}|reports?)|(?:per|in) {_OWNER}(?:{_FORM}|{_STATEMENT}))\b"
    r"(?: of [A-Z][\w&.'’ -]{1,40}(?=,))?,?",
    re.I,
)
_UNIT = re.compile(
    r"\s*\(?\bin (?:(?:USD|US dollars?|dollars|EUR|euros?|\$) ?)?(?:thousands|millions|billions)\b(?: of (?:US )?dollars)?\)?",
    re.I,
)
_LEAST = 5  # words that a question keeps when a clause of it goes
_ENDS = re.compile(r"\b(?:at|as of|by) (?:the )?(?:year[- ]?end|end)(?: of)?\b", re.I)
_FISCAL = re.compile(r"\b(?:FY|CY)\s?['’]?((?:19|20)?\d\d)\b")
_YEAR = re.compile(r"\b(?:(?:FY|CY|fiscal)\s?['’]?)?((?:19|20)\d\d)\b", re.I)
_OF_REPORT = re.compile(rf"\b(?:(?:FY|CY|fiscal)\s?)?((?:19|20)\d\d) (?:\w+ )?(?:{_FORM}|reports?)\b", re.I)


@lru_cache(maxsize=256)
def plain(question: str) -> str:
    """The question alone, fiscal years as years; as it is where nothing else would be left of it."""
    asked = without_orders(question)
    if len((bare := _CLAUSE.sub(" ", asked)).split()) >= _LEAST:
        asked = bare
    asked = " ".join(_FISCAL.sub(lambda found: found[1] if len(found[1]) > 2 else f"20{found[1]}", asked).split())
    asked = asked.replace(" ?", "?").strip(" ,")
    return asked[:1].upper() + asked[1:] if asked.strip("?. ") else question


@lru_cache(maxsize=256)
def without_orders(question: str) -> str:
    """Without what it says of how to answer: in which unit, in what form."""
    return _UNIT.sub(" ", _ORDER.sub("", question))


@lru_cache(maxsize=256)
def without_when(question: str) -> str:
    """Without "at the end of", which tables say by a date."""
    return _ENDS.sub(" ", question)


@lru_cache(maxsize=256)
def of_document(question: str) -> str:
    """The question with no year but that of the report it speaks of: "its 2018 10-K", of net sales in 2016."""
    years = set(_OF_REPORT.findall(question))
    return _YEAR.sub(lambda found: found[0] if found[1] in years else " ", question) if years else question
