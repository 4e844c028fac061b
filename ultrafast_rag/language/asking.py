"""How people ask: politely, without a question mark, misspelt; and the question that they mean."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from functools import lru_cache

from ultrafast_rag.language.accounts import concepts
from ultrafast_rag.language.sameness import stem_english
from ultrafast_rag.language.terms import is_english

_MARK = re.compile(r"[?\u037e\u055e\u061f\u1367\ufe56\uff1f]")  # Greek, Armenian, Arabic, Ethiopic, small and full-width ones too
_POINTED = (
    "(?:i|you|we|he|she|it|they|one|there|the|an?|any|all|this|that|these|those|my|your|our|his|her|its|their|me|us|two|three)"
)
_ASKING = re.compile(
    rf"""\b(?:wh(?:o|om|ose|at|ich|en|ere|y)|how)s?\b
    |^\W*(?:is|are|was|were|do|does|did|has|have|had|could|would|should|shall|define|explain|describe|summari[sz]e|compare)\b
    |^\W*(?:can|may|might|must|will|name|list|state|give)\s{_POINTED}\b""",  # "can opener", "list price", "May 2018" ask nothing
    re.I | re.X,
)
_TOLD = r"(?:me|us)(?:\sknow)?"
_ASKED_TO = rf"""(?:(?:can|could|would|will)\s(?:you|someone|anyone)\s(?:please\s|kindly\s)?
    (?:(?:tell|explain\sto|show|let)\s{_TOLD}|explain|say)\b
    |(?:do|would)\syou\s(?:happen\sto\s)?know\b
    |i(?:\s?['’]?d|\swould|\swant|\sneed)(?:\slike)?\sto\sknow\b
    |i(?:\s?['’]?m|\sam|\swas)?\s(?:wonder(?:ing)?|looking\sfor)\b
    |(?:tell|let)\s{_TOLD}\b
    |please\b)"""
# what stands around a question and asks nothing: "Hello, could you please tell me: ... Thanks!"
_AROUND = re.compile(
    rf"""^\W*(?:(?:hi|hello|hey|dear\s\w+|good\s(?:morning|day|afternoon|evening))(?:\sthere\b|\s?[,.!:]|(?=\s{_ASKED_TO}))[\s,.!:]*)?
    (?:please\b[\s,:]*)?{_ASKED_TO}?[\s,:]*""",
    re.I | re.X,
)
_AFTER = re.compile(r"[\s,.!]*\b(?:please|thanks|thank\syou)\b[\s.!]*(?=\??\s*$)", re.I)
_SPELLED = re.compile(r"\b[A-Za-z][a-z]{4,}\b")  # shorter ones have too many neighbours; capitals inside make an identifier


@lru_cache(maxsize=256)
def is_question(text: str) -> bool:
    """Rather than a phrase, "a red boat at night": by its mark, or in English by a word that asks."""
    return bool(_MARK.search(text) or not is_english(text) or _ASKING.search(text))


@lru_cache(maxsize=256)
def plain_question(text: str) -> str:
    """The question without greeting and politeness, in English, and with its mark; a phrase has none."""
    asked = _AFTER.sub("", _AROUND.sub("", text, count=1)).strip()
    if len(asked.split()) < 2:
        asked = text.strip()
    if _MARK.search(asked) or not _ASKING.search(asked):
        return asked
    return asked.rstrip(" .!") + "?"


def respelled(
    text: str, held: Callable[[Sequence[str]], Sequence[int]], pieces: Callable[[str], int]
) -> tuple[str, dict[str, str]]:
    """(the text, its misspelt words as the documents spell them; each of these with what it was read as).

    A word counts as misspelt that no passage holds and the encoder's vocabulary does not know, and that one letter more, fewer,
    other or swapped makes a word of the passages (Norvig 2007, "How to write a spelling corrector"). The first letter stays.
    A text in another language stays as it is: the vocabulary knows few whole words of it.
    held: the number of passages that each of some words stands in. pieces: of a word in the encoder's vocabulary.
    """
    words = list(dict.fromkeys(_SPELLED.findall(text))) if is_english(text) else []
    unknown = [word for word, count in zip(words, held(words)) if not count and pieces(word.lower()) > 1 and not concepts(word)]
    read = {word: best for word in unknown if (best := _nearest(word.lower(), held, pieces))}
    read = {word: best.capitalize() if word[0].isupper() else best for word, best in read.items()}
    return _SPELLED.sub(lambda word: read.get(word[0], word[0]), text), read


def _nearest(word: str, held: Callable[[Sequence[str]], Sequence[int]], pieces: Callable[[str], int]) -> str:
    """The word of the passages one edit away, one that the vocabulary knows before others, then the most frequent; "" if none."""
    near = sorted(_edits(word))
    there = {other: (pieces(other) == 1, count) for other, count in zip(near, held(near)) if count}
    # passages are known by stems, and "summerize" has one of theirs
    real = [other for other, (whole, _) in there.items() if whole or stem_english(other) == other]
    return max(real, key=there.__getitem__, default="")


def _edits(word: str) -> set[str]:
    halves = [(word[:n], word[n:]) for n in range(1, len(word) + 1)]
    swapped = {a + b[1] + b[0] + b[2:] for a, b in halves if len(b) > 1}
    fewer = {a + b[1:] for a, b in halves if b}
    other = {a + letter + b[1:] for a, b in halves if len(b) > 1 for letter in string.ascii_lowercase}  # the last one inflects
    more = {a + letter + b for a, b in halves for letter in string.ascii_lowercase}
    return (swapped | fewer | other | more) - {word}
