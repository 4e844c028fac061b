"""What MuPDF's characters say: ligatures, marks and broken words made readable. Knows no page.

A word cut at a line's end is mended by the document's own vocabulary: "task-" + "specific" keeps its hyphen where the
document writes it so elsewhere, or knows both halves and not the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BULLET = re.compile(r"^(?:[•◦▪‣●○■–—*·-]|\(?(?:\d{1,2}|[a-z])[.)])\s")
_LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st", "\xa0": " "})
_SPACES = re.compile(r" *[\t\n\v\f\r\x85\u2028\u2029] *")
_APOSTROPHE = re.compile(r"(?<=[^\W\d_]{2})\x00(?=[^\W\d_])|(?<=[^\W\d_])\x00(?=[^\W\d_]{2})")  # not between symbols
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LEADING_CONTROL = re.compile(r"^\s*\w?(?:[\x00-\x1f\x7f-\x9f]\s*)+")
_LEADER = re.compile(r"(?:\s?\.){4,}\s*")
_WORD = re.compile(r"[^\W\d_]+(?:[-‐'’][^\W\d_]+)*")
_HYPHENS = "-‐"
SUPERSCRIPT = 1  # MuPDF's TEXT_FONT_SUPERSCRIPT in a span's flags
_MARK = re.compile(r"^\s*(?:\d{1,2}(?:[,;]\s?\d{1,2})*|[*†‡§¶]{1,3}|\([a-z\d]{1,2}\))\s*$")
# after shorter words, which are symbols and units, and after functions the mark is an exponent
_MARKED_WORD = re.compile(r"(?<!cos)(?<!sin)(?<!tan)(?<!log)(?<=[^\W\d_]{3})[.,;:)\]”’\"]*$")
_MARKED_NUMBER = re.compile(r"(?:\d{3}|\d[.,]\d+)[)%]?$")
_AND = frozenset(["and", "or", "to", "und", "oder", "bis", "et", "ou", "y", "o", "e"])
_FUSED = frozenset(
    "some any every no how there where with through under over out up down inter what who when here back".split()
)  # begin words that are written as one
_MOST_WORDS = 100_000


class Vocabulary:
    """The words a document has used so far, whole and in small letters."""

    def __init__(self) -> None:
        self._words: set[str] = set()

    def learn(self, texts: Iterable[str]) -> None:
        """Take in the words of lines in order, but for those broken at a line's end."""
        broken = False
        for text in texts:
            if len(self._words) > _MOST_WORDS:
                return
            words = _WORD.findall(text.lower())
            starts, broken = int(broken), text.rstrip()[-1:] in _HYPHENS
            self._words.update(words[starts : len(words) - broken])

    def glue(self, left: str, right: str) -> str:
        """What stood between two halves of a word: a hyphen or nothing; "- " where they are two words."""
        left, right = left.lower(), right.lower()
        if right in _AND:
            return "- "
        if f"{left}-{right}" in self._words or not left[-1:].isalpha():
            return "-"
        if f"{left}{right}" in self._words:
            return ""
        known = left in self._words and right in self._words and min(len(left), len(right)) > 2 and left not in _FUSED
        return "-" if "-" in left or known else ""


_NO_WORDS = Vocabulary()


def join_lines(texts: Sequence[str], vocabulary: Vocabulary | None = None) -> str:
    """One paragraph of several lines, words broken between them mended."""
    joined = ""
    for raw in texts:
        text = raw.strip()
        if not joined:
            joined = text
        elif joined[-1] == "\xad" and text[:1].isalpha():
            joined = joined[:-1] + text
        elif joined[-1] in _HYPHENS and joined[-2:-1].isalnum() and text[:1].isalpha():
            left = joined[:-1].rsplit(None, 1)[-1].lstrip("([{\"'“‘«")
            right = next(iter(_WORD.findall(text)), "")
            joined = joined[:-1] + ((vocabulary or _NO_WORDS).glue(left, right) if right[:1].islower() else "-") + text
        elif BULLET.match(text):
            joined += "\n" + text
        else:
            joined += " " + text
    return joined.replace("\xad", "")


def line_text(spans: Sequence[Mapping[str, Any]]) -> str:
    """A line's spans as one readable text, raised footnote marks set apart from the word or number they follow."""
    if len(spans) == 1:
        return readable(spans[0]["text"])
    text = ""
    for span in spans:
        if span["flags"] & SUPERSCRIPT:
            text = text.rstrip() if _MARKED_NUMBER.search(text.rstrip()) and _MARK.match(span["text"]) else text
            text += marked(text, span["text"])
        else:
            text += span["text"]
    return readable(text)


def marked(text: str, raised: str) -> str:
    """How to write what is raised behind a text: a footnote's mark in brackets behind a figure, apart behind a word."""
    if text and _MARK.match(raised):
        if _MARKED_NUMBER.search(text):
            return f"({raised.strip().strip('()')})"
        if _MARKED_WORD.search(text):
            return f" {raised}"
    return raised


def is_mark_of(text: str, before: str, *, size: float, size_before: float, gap: float) -> bool:
    """Whether a small text close behind a figure is its footnote's mark, set apart: "8,935,112 3,7". Sizes and gap in points."""
    small = size < 0.8 * size_before and -1 < gap < 0.6 * size_before
    return small and bool(_MARK.match(text) and _MARKED_NUMBER.search(before))


def readable(text: str) -> str:
    """Ligatures resolved, breaks made spaces; a symbol font's control characters become a bullet at the start.

    A null between letters is an apostrophe that the font did not name; other control characters go.
    """
    text = text.translate(_LIGATURES)
    if not text.isprintable():
        text = _APOSTROPHE.sub("’", _SPACES.sub(" ", text))
        text = _CONTROL.sub("", _LEADING_CONTROL.sub("• ", text))
    return _LEADER.sub(" … ", text) if "...." in text or ". . . ." in text else text
