"""What of a document's text says something, and what is only there.

Running heads, lines of a table of contents, references, code, the figures along a chart's axis and bare numbers are text of a
document, and no evidence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from ultrafast_rag.language.terms import is_unspaced, words_of
from ultrafast_rag.types import Hit

ENDED = re.compile(r"[.!?:;…。！？।؟][\"'”’»)\]]*$")
# leaders, as they are or shortened by the PDF reader; a lone "Total … 38" is a label with its figure
_DOT_LEADERS = re.compile(
    r"(?:\.\s?){5,}\s*\d*\s*$|(?:\s\.){4,}|(?:…\s*\d{1,4}\b.*){2}|^\s*(?:\d{1,4}\s+)?\d+(?:\.\d+)*\.?\s.*…\s*\d{0,4}\s*$", re.S
)
_REFERENCE = re.compile(
    r"^\s*(?:\[\d{1,3}\]|\d{1,3}\.)\s.*(?:\b(?:19|20)\d\d[a-z]?\.|\bpp?\.\s*\d|\barXiv\b|\bdoi\b|https?:)"
    r"|\bIn Proceedings of\b|\barXiv:\d",
    re.I | re.S,
)
_WORD = re.compile(r"[^\W\d_]{2,}")
_FIGURES = re.compile(r"(?<!\S)-?\d{1,9}(?:\.\d{1,9})?(?:\s+-?\d{1,9}(?:\.\d{1,9})?){3,}(?!\S)")
_MIN_WORDS = 3  # chosen: subject, verb, object
# what a reference ends a part with: the year of "Adams J (2008).", "27(5), 764–777", "pp. 12", the number of "[12] Adams"
_ENTRY = re.compile(
    r"\((?:19|20)\d\d[a-z]?\)\.|\b\d{1,4}\(\d{1,3}(?:[-–/]\d{1,3})?\)[,:]\s*\d|\bpp?\.\s?\d+|\bdoi:|\bISBN\b|\bURL\b"
    r"|^\[\d{1,3}\]\s+[A-Z]|(?<!\d),\s(?:19|20)\d\d[a-z]?\.(?=\s|$)|\b\d{1,3}, \d{1,4}[-–]\s?\d{1,4}\.",
    re.M,
)
_LISTED = re.compile(
    r"(?:^|>)[\s\d.]*(?:references|bibliography|(?:literature|works) cited|literatur(?:verzeichnis)?|referenzen|bibliographie"
    r"|références|referencias|bibliografía)\s*$",
    re.I,
)
_ENTRIES, _APART = 4, 160  # as many, and no further apart than that many characters, make a list of references anywhere; chosen
_CAPTION = re.compile(r"(?:table|figure|fig\.|tab\.|abb\.|abbildung|tabelle)\s*\d+\s*[.:]", re.I)
# a line that is typed to a shell or interpreter: "R> plot(x)", ">>> import os", "> library(zoo)"
_CODE = re.compile(r"\s*(?:R>|>>>|#include\b|using namespace\b|In \[\d+\]:|[>$+]\s+(?=[\w.$]+\s*(?:<-|=|\(|\[)|[\w.-]+\s--?\w))")


@dataclass(frozen=True, slots=True)
class Unit:
    """A stretch of a hit's text that can stand alone. start, end: its characters in the text; shown: as a person reads it.

    label: of a table's row, what names it. group: of one whose label the table has twice, the line above that says which:
    "Operating income".
    before: the sentence before this one in its paragraph, which what this one calls "it" or "the model" may stand in.
    """

    hit: Hit
    shown: str
    start: int
    end: int
    place: tuple[int, int]  # rank of its hit, and which of its units, from 0
    group: str = ""
    label: str = ""
    before: str = ""


@lru_cache(maxsize=512)
def lists_references(text: str, section: str) -> bool:
    """Whether a passage is part of a list of references: under such a heading and like one, or dense with their marks."""
    entries = len(_ENTRY.findall(text))
    return entries > 0 and (bool(_LISTED.search(section)) or entries >= max(_ENTRIES, len(text) / _APART))


def is_code(text: str) -> bool:
    """Whether a line begins as what is typed to a machine does."""
    return bool(_CODE.match(text))


def is_caption(text: str) -> bool:
    """Whether it names a table or picture: "Figure 1: Sales by year"."""
    return bool(_CAPTION.match(text))


def is_evidence(text: str) -> bool:
    """Whether a line says something: no contents line, reference, axis of a chart, bare figures or heading of a word or two."""
    if _DOT_LEADERS.search(text) or _REFERENCE.search(text) or _has_axis(text) or is_code(text):
        return False
    return len(_WORD.findall(text)) >= _MIN_WORDS or _says(text) or (":" in text and any(map(str.isdigit, text)))


def _says(text: str) -> bool:
    """Whether it ends as a sentence or has enough words, where `_WORD` does not find them or no spaces part them."""
    if text.isascii():
        return False
    words = words_of(text)
    return bool(ENDED.search(text)) or len(words) >= _MIN_WORDS or any(map(is_unspaced, words))


def _has_axis(text: str) -> bool:
    """Whether figures stand side by side in equal steps, as what is written along an axis does: "0 0.5 1 1.5 2"."""
    for found in _FIGURES.finditer(text):
        ticks = [float(figure) for figure in found[0].split()]
        steps = [round(b - a, 6) for a, b in pairwise(ticks)]
        if any(a == b == c != 0 for a, b, c in zip(steps, steps[1:], steps[2:])):
            return True
    return False
