"""Who wrote a document, and when: names and a date that stand alone on its first page, which no sentence says."""

from __future__ import annotations

import re
from pathlib import Path

from ultrafast_rag.answer.quotable import Unit
from ultrafast_rag.language.dates import dated_line
from ultrafast_rag.language.names import name_pieces
from ultrafast_rag.language.sameness import stem_english
from ultrafast_rag.language.stopwords import STOP_WORDS

_ASKS = re.compile(r"\bwho(?:m|se)?\b.*?\b(wrote|writ\w+|author\w*)\b|\b(authors?)\b(?=.*\b(?:of|wrote)\b)", re.I)
_ASKS_DATE = re.compile(
    r"^(?=.*\b(?:date[sd]?|written|published|issued|released|compiled|updated|revised|printed|version|edition)\b)"
    r"\W*(?:when (?:was|were)|(?:on |of |from )?(?:what|which) (?:date|day|month|year))\b",
    re.I,
)
_DATING = (
    "date dated day month year stand bear carry written publish issue release compile update revise print version edition last"
)
_KINDS = frozenset(
    "paper report book article manual document text guide thesis study essay handbook script note write author".split()
)
_COMMON = frozenset(map(stem_english, STOP_WORDS["english"])) | {stem_english(kind) for kind in _KINDS}
_ABOUT_DATES = frozenset(map(stem_english, _DATING.split()))
_ASIDE = re.compile(r"https?://\S+|\S+@\S+|\([^)]*\)|\d+|[*†‡§¶∗]")
_AFFILIATIONS = re.compile(r"\d(?=[A-Z])")  # "1Google Inc. 2Microsoft", below the names
_AND = re.compile(r"\s*(?:,|;|&|\band\b|\n)\s*")
_NAME = re.compile(r"(?:(?:[A-Z]\.|[A-Z][\w'’¨´`.-]*[a-z]|de|da|van|von|der|den|la|le|bin|al)\s+){1,9}[A-Z][\w'’¨´`-]*[a-z]")
_NO_NAME = re.compile(
    r"\b(?:inc|corp\w*|ltd|llc|gmbh|ag|univ\w*|institut\w*|department|school|college|laborator\w*|group|team|foundation|company|center|"
    r"centre|january|february|march|april|may|june|july|august|september|october|november|december|version|edition|chapter|part|abstract|"
    r"contents|introduction|figure|table|page|summary|news|project|manual|guide|report)\b",
    re.I,
)
_LONGEST = 200  # characters of a line of names; chosen


def is_author_asked(unit: Unit, question: str) -> bool:
    """Whether the unit names who wrote its document, and the question asks that: all else it says is in title or file name."""
    hit = unit.hit
    if hit.page != 1 or hit.modality != "text" or not (asks := _ASKS.search(question)) or not _is_byline(unit.shown, hit.title):
        return False
    asked = {
        stem_english(word) for word in name_pieces(question.replace(asks[0], asks[0].replace(asks[1] or asks[2], " ")))
    } - _COMMON
    said = {stem_english(word) for word in name_pieces(f"{hit.title} {hit.section} {Path(hit.source).stem}")}
    return bool(asked) and asked <= said


def is_date_asked(unit: Unit, question: str) -> bool:
    """Whether the unit is the date of its document, and the question asks for that: all else it says is in title or file name."""
    hit = unit.hit
    if hit.page != 1 or hit.modality != "text" or not _ASKS_DATE.match(question) or not dated_line(unit.shown):
        return False
    asked = {stem_english(word) for word in name_pieces(question)} - _COMMON - _ABOUT_DATES
    said = {stem_english(word) for word in name_pieces(f"{hit.title} {hit.section} {Path(hit.source).stem}")}
    return bool(asked) and asked <= said


def byline_words(question: str) -> str:
    """The question's words that a line of authors, or a date, answers without saying them: "wrote", "paper", "published"."""
    about = _COMMON | _ABOUT_DATES if _ASKS_DATE.match(question) else _COMMON
    return " ".join(word for word in name_pieces(question) if stem_english(word) in about or _ASKS.search(f"who {word}"))


def _is_byline(text: str, title: str) -> bool:
    """Nothing but people's names, apart from addresses and footnotes' marks."""
    plain = " ".join(_ASIDE.sub(" ", _AFFILIATIONS.split(text)[0]).split())
    parts = [part for part in _AND.split(plain.removeprefix("by ").removeprefix("By ")) if part.strip(" .")]
    if not parts or len(text) > _LONGEST or plain in title or _NO_NAME.search(plain):
        return False
    return all(_NAME.fullmatch(part.strip(" .")) for part in parts)
