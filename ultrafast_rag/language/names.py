"""File names and how people say them: "BESTBUY_2018_10K.pdf" is asked for as "Best Buy's FY2018 10-K"."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from ultrafast_rag.language.stopwords import STOP_WORDS
from ultrafast_rag.language.terms import without_accents, words_of

JOINED = 3  # neighbouring pieces at most that may be written as one word
# capitals before a capitalized word, a word, capitals, figures
_LATIN = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[^\W\dA-Za-z_]+")
_OTHER = re.compile(r"\d+|[^\d_]+")
_FISCAL = re.compile(r"(?:fy|cy)(\d\d)")
# words that are in every question: they name nothing by themselves, however few names bear them
COMMON = frozenset(word for words in STOP_WORDS.values() for word in words)


def name_pieces(name: str) -> list[str]:
    """A name cut at `_`, `-`, `.`, blanks, case and figures; accents and case dropped."""
    pieces: list[str] = []
    for word in words_of(name):
        pieces += _LATIN.findall(without_accents(word)) if word[0] < "\u0250" else _OTHER.findall(word)
    return [piece.casefold() for piece in pieces]


def grams(pieces: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Each run of up to `JOINED` pieces as one word, with its place and length; a fiscal year also in full ("fy18" as "2018")."""
    for first in range(len(pieces)):
        for count in range(1, min(JOINED, len(pieces) - first) + 1):
            gram = "".join(pieces[first : first + count])
            if len(gram) > 1:
                yield gram, first, count
            if count == 2 and (year := _FISCAL.fullmatch(gram)):
                yield f"20{year[1]}", first, count


def question_grams(question: str) -> set[str]:
    """The runs of a question's pieces that a name may hold; words that are in every question only inside a run."""
    return {gram for gram, _, count in grams(name_pieces(question)) if count > 1 or gram not in COMMON}


@lru_cache(maxsize=256)
def said_by_name(question: str, name: str) -> str:
    """The question's words that a file's name holds: "Best Buy" for BESTBUY_2018_10K.pdf; "" where it holds none."""
    held, pieces = {gram for gram, _, _ in grams(name_pieces(name))}, name_pieces(question)
    said = {
        at + n for gram, at, count in grams(pieces) if gram in held and (count > 1 or gram not in COMMON) for n in range(count)
    }
    return " ".join(pieces[at] for at in sorted(said))
