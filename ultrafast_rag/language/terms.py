"""Text -> search terms: words in their language's stem; characters and their pairs where words have no spaces.

The language of a text is read off its script and its stop words; a text that shows none (a table, a
title, code) takes the language most texts before it had. Nothing is thrown away when a document is
indexed; stop words are left out of a question only, unless it has no other words.
A vowel sign is a combining mark, which a regular expression takes for no letter: marks
belong to the word, and to the character, before them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from ultrafast_rag.language.stopwords import ASKING, STOP_WORDS

VERSION = 3  # of how words are cut: an index of words made by another is built anew
# Written without spaces: Han, kana, and what line breaking needs a dictionary for (UAX 14, class SA: Thai, Lao, Burmese,
# Khmer, Tai); and Hangul, whose particles are glued to words
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf"
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
# blocks that hold combining marks (those between hold Han, Hangul and private use), so that few characters are looked at
_MARK_BLOCKS = ((0x300, 0x3100), (0xA600, 0xAC00), (0xFB00, 0xFF00), (0x10100, 0x12000), (0x16A00, 0x17000), (0x1B000, 0x1F000))
# vowels of Thai and Lao that are letters by category, written before and after their consonant
_BEFORE, _AFTER = "\u0e40-\u0e44\u0ec0-\u0ec4", "\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3"
_POINTS = range(10, 37)  # combining classes of Hebrew, Arabic and Syriac points, which most writers leave out (UAX 44)
_ASCII_WORD = re.compile(r"\w+")
# soft hyphens, variant selectors, and the joiners that only shape an Indic letter
_UNSEEN = re.compile("[\u00ad\ufe00-\ufe0f\U000e0100-\U000e01ef]|(?<=[\u0900-\u0dff])[\u200c\u200d]")
_UNSPACED_START = re.compile(f"[{_UNSPACED}]")
_CAMEL = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_CAMEL_INSIDE = re.compile(r"[a-z][A-Z]|[A-Z]{2}[a-z]")
_AND_THE = re.compile("^[وف](?=ال.{3})")  # "and the", which the stemmer leaves on: of two prefixes it takes off one
_SCRIPTS = (
    (0x0370, 0x03FF, "greek"),
    (0x0400, 0x052F, "russian"),
    (0x0530, 0x058F, "armenian"),
    (0x0600, 0x06FF, "arabic"),
    (0x0900, 0x097F, "hindi"),
    (0x0B80, 0x0BFF, "tamil"),
)
# Share of a question's letters that the encoder's vocabulary knows, from which meaning has its full weight; below, in proportion.
# MiniLM (English): 0.79 to 1 for each question in English and German, 0.3 in Chinese and 0.06 in Hindi on average (XQuAD)
KNOWN = 0.75
UNSPACED = "unspaced"
DEFAULT_LANGUAGE = "english"
_SAMPLE_WORDS = 200  # of a text, enough to tell its language
_WORDS_PER_STOP_WORD = 25  # running text has one in two to four words; a list of names has none
_FOREIGN = 3  # one in three words with letters beyond ASCII is no English: no question of SQuAD's 6 078 has so many
_WORDS_KEPT = 200_000  # stems remembered, about 30 MB

_LANGUAGES_OF: dict[str, tuple[str, ...]] = {}
for _language, _words in STOP_WORDS.items():
    for _word in _words:
        _LANGUAGES_OF[_word] = (*_LANGUAGES_OF.get(_word, ()), _language)


def words_of(text: str) -> list[str]:
    """Words as written (NFKC), and runs of unspaced script."""
    if text.isascii():
        return _ASCII_WORD.findall(text)
    patterns, text = _patterns(), _UNSEEN.sub("", unicodedata.normalize("NFKC", text))
    found: list[str] = patterns.word.findall(text)
    if _UNSPACED_START.search(text) is None:
        return found
    return [run for word in found for run in patterns.run.findall(word)]


def is_unspaced(word: str) -> bool:
    """Whether one of `words_of` is a run of a script that is written without spaces."""
    return _UNSPACED_START.match(word) is not None


class _Patterns(NamedTuple):
    """word: letters, digits and marks. run: its part in unspaced script, or in another. cluster: a character and its marks."""

    word: re.Pattern[str]
    run: re.Pattern[str]
    cluster: re.Pattern[str]


@cache
def _patterns() -> _Patterns:
    """Made at the first text that needs them: some milliseconds."""
    marks = [code for start, stop in _MARK_BLOCKS for code in range(start, stop) if unicodedata.category(chr(code))[0] == "M"]
    mark = _as_class(marks)
    return _Patterns(
        word=re.compile(f"\\w[\\w{mark}]*"),
        run=re.compile(f"[{_UNSPACED}][{_UNSPACED}{mark}]*|[^{_UNSPACED}]+"),
        cluster=re.compile(f"[{_BEFORE}]*.[{_AFTER}{mark}]*", re.S),
    )


def _as_class(codes: Iterable[int]) -> str:
    """Rising code points as ranges of a regular expression's class."""
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


def detect(words: Sequence[str], shares: Mapping[str, float]) -> str | None:
    """The language these words show, None when they show none. shares: of the collection, breaks ties."""
    votes: Counter[str] = Counter()
    sample = words[:_SAMPLE_WORDS]
    for word in sample:
        votes.update(_LANGUAGES_OF.get(word.casefold(), ()))
        if word[0] > "\u036f" and (script := _script(word)):
            votes[script] += 1 if script != UNSPACED else len(word)
    best = max(votes, key=lambda name: (votes[name] + shares.get(name, 0.0), name == DEFAULT_LANGUAGE, name), default=None)
    # prose is a third stop words; a stray one among many words (a name, a code) proves nothing
    return best if best is not None and votes[best] * _WORDS_PER_STOP_WORD >= len(sample) else None


def shows(text: str, language: str) -> bool:
    """Whether a text in Latin letters may be in this language: it shows no other, and few of its words have other letters."""
    words = words_of(text)
    return detect(words, {}) in (language, None) and sum(not word.isascii() for word in words) * _FOREIGN <= len(words)


def language_of(text: str, shares: Mapping[str, float] = MappingProxyType({})) -> str | None:
    """As `detect` tells it, but for "per": Italian, and in every English "per share"."""
    return detect([word for word in words_of(text) if word.casefold() != "per"], shares)


@lru_cache(maxsize=512)
def is_english(text: str) -> bool:
    """Or shows no language: a table of figures, a list of names."""
    return language_of(text, {DEFAULT_LANGUAGE: 0.5}) in (DEFAULT_LANGUAGE, None)


def _script(word: str) -> str | None:
    if _UNSPACED_START.match(word):
        return UNSPACED
    code = ord(word[0])
    return next((language for first, last, language in _SCRIPTS if first <= code <= last), None)


class Analyzer:
    """Words -> terms, one language at a time; remembers each word's terms. Not thread-safe."""

    def __init__(self) -> None:
        self._stem: dict[str, Callable[[str], str]] = {}
        self._terms: dict[str, dict[str, tuple[str, ...]]] = {}

    def terms(self, words: Sequence[str], language: str) -> list[str]:
        """Terms of all words, in order; a word may give several (parts of a compound identifier, bigrams)."""
        known = self._terms.setdefault(language, {})
        if len(known) > _WORDS_KEPT:
            known.clear()
        found: list[str] = []
        for word in words:
            terms = known.get(word)
            if terms is None:
                terms = known[word] = tuple(self._analyze(word, language))
            found += terms
        return found

    def question_words(self, words: Sequence[str], language: str) -> list[str]:
        """The words without stop words; all of them when nothing else is left."""
        stop = STOP_WORDS.get(language, frozenset())
        cut = [part for word in words for part in (_asking().split(word) if is_unspaced(word) else [word])]
        return [word for word in cut if word and _folded(word, language) not in stop] or list(words)

    def _analyze(self, word: str, language: str) -> list[str]:
        if _UNSPACED_START.match(word):
            characters = _patterns().cluster.findall(word.casefold())
            # pairs alone: nDCG@10 on XQuAD Chinese .967 against .972, and a question of one character finds nothing
            return [*characters, *(a + b for a, b in pairwise(characters))]
        pieces = [piece for piece in word.split("_") if piece]
        if _CAMEL_INSIDE.search(word):
            pieces = [part for piece in pieces for part in (_CAMEL.findall(piece) if piece.isascii() else [piece])]
        terms = [self._normal(piece, language) for piece in pieces]
        return terms if len(terms) <= 1 else [*terms, self._normal(word, language)]

    def _normal(self, word: str, language: str) -> str:
        folded = _folded(word, language)
        if folded.isdecimal():  # in any script's digits
            return folded if folded.isascii() else "".join(str(unicodedata.decimal(digit)) for digit in folded)
        if language == "arabic":
            folded = _AND_THE.sub("", folded)
        folded = self._stemmer(language)(folded)
        return folded if folded.isascii() else without_accents(folded)

    def _stemmer(self, language: str) -> Callable[[str], str]:
        stem = self._stem.get(language)
        if stem is None:
            import Stemmer

            stem = self._stem[language] = Stemmer.Stemmer(DEFAULT_LANGUAGE if language == UNSPACED else language).stemWord
        return stem


@cache
def _asking() -> re.Pattern[str]:
    return re.compile("|".join(sorted(ASKING, key=len, reverse=True)))


def _folded(word: str, language: str) -> str:
    """In lower case; Turkish has two letters where others have one: I is the capital of ı, and İ of i."""
    return (word.replace("İ", "i").replace("I", "ı") if language == "turkish" else word).casefold()


def without_accents(word: str) -> str:
    """Without what a question may be typed without: accents of Latin and Greek letters, points of Hebrew, Arabic and Syriac."""
    if word[0] < "\u0400" or "\u1f00" <= word[0] <= "\u1fff":
        return "".join(c for c in unicodedata.normalize("NFD", word) if not "\u0300" <= c <= "\u036f").replace("ı", "i")
    return "".join(c for c in word if unicodedata.combining(c) not in _POINTS) if "\u0590" <= word[0] <= "\u08ff" else word


def trusted(alpha: float, known_share: float) -> float:
    """The weight of meaning for a question of which the encoder knows this share; 1, meaning only, stays what was asked for."""
    return alpha * min(1.0, known_share / KNOWN) if alpha < 1 else alpha
