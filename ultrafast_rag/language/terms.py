"""Text -> search terms: words in their language's stem, character bigrams where words have no spaces.

The language of a text is read off its script and its stop words; a text that shows none (a table, a
title, code) takes the language most texts before it had. Nothing is thrown away when a document is
indexed; stop words are left out of a question only, unless it has no other words.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from ultrafast_rag.language.stopwords import STOP_WORDS

VERSION = 1
# Han, kana, Hangul, Thai, Lao, Khmer, Burmese: written without spaces, or (Hangul) with particles glued to words
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_ASCII_WORD = re.compile(r"\w+")
_WORD = re.compile(f"[^\\W{_UNSPACED}]+|[{_UNSPACED}]+")
_UNSPACED_START = re.compile(f"[{_UNSPACED}]")
_CAMEL = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_CAMEL_INSIDE = re.compile(r"[a-z][A-Z]|[A-Z]{2}[a-z]")
_SCRIPTS = (
    (0x0370, 0x03FF, "greek"),
    (0x0400, 0x052F, "russian"),
    (0x0530, 0x058F, "armenian"),
    (0x0600, 0x06FF, "arabic"),
    (0x0900, 0x097F, "hindi"),
    (0x0B80, 0x0BFF, "tamil"),
)
UNSPACED = "unspaced"
DEFAULT_LANGUAGE = "english"
_SAMPLE_WORDS = 200
_WORDS_PER_STOP_WORD = 25
_WORDS_KEPT = 200_000

_LANGUAGES_OF: dict[str, tuple[str, ...]] = {}
for _language, _words in STOP_WORDS.items():
    for _word in _words:
        _LANGUAGES_OF[_word] = (*_LANGUAGES_OF.get(_word, ()), _language)


def words_of(text: str) -> list[str]:
    """Words as written (NFKC), and runs of unspaced script."""
    if text.isascii():
        return _ASCII_WORD.findall(text)
    return _WORD.findall(unicodedata.normalize("NFKC", text))


def detect(words: Sequence[str], shares: Mapping[str, float]) -> str | None:
    """The language these words show, None when they show none. shares: of the collection, breaks ties."""
    votes: Counter[str] = Counter()
    sample = words[:_SAMPLE_WORDS]
    for word in sample:
        votes.update(_LANGUAGES_OF.get(word.casefold(), ()))
        if word[0] > "\u036f" and (script := _script(word)):
            votes[script] += 1 if script != UNSPACED else len(word)
    best = max(votes, key=lambda language: (votes[language] + shares.get(language, 0.0), language), default=None)
    # prose is a third stop words; a stray one among many words (a name, a code) proves nothing
    return best if best is not None and votes[best] * _WORDS_PER_STOP_WORD >= len(sample) else None


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
        return [word for word in words if word.casefold() not in stop] or list(words)

    def _analyze(self, word: str, language: str) -> list[str]:
        if _UNSPACED_START.match(word):
            return [word] if len(word) == 1 else [word[i : i + 2] for i in range(len(word) - 1)]
        pieces = [piece for piece in word.split("_") if piece]
        if _CAMEL_INSIDE.search(word):
            pieces = [part for piece in pieces for part in (_CAMEL.findall(piece) if piece.isascii() else [piece])]
        terms = [self._normal(piece, language) for piece in pieces]
        return terms if len(terms) <= 1 else [*terms, self._normal(word, language)]

    def _normal(self, word: str, language: str) -> str:
        folded = word.casefold()
        if not folded.isdigit():
            folded = self._stemmer(language)(folded)
        return folded if folded.isascii() else _without_accents(folded)

    def _stemmer(self, language: str) -> Callable[[str], str]:
        stem = self._stem.get(language)
        if stem is None:
            import Stemmer

            stem = self._stem[language] = Stemmer.Stemmer(DEFAULT_LANGUAGE if language == UNSPACED else language).stemWord
        return stem


def _without_accents(word: str) -> str:
    """Latin letters without their accents, so that a question typed without them still matches."""
    return "".join(c for c in unicodedata.normalize("NFD", word) if not "\u0300" <= c <= "\u036f") if word[0] < "\u0250" else word
