"""What an answer says when nothing was found: the nearest passage, what it leaves unsaid, and what would help."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ultrafast_rag.answer.quotable import Unit
from ultrafast_rag.language.asking import is_question
from ultrafast_rag.language.contrary import is_denial
from ultrafast_rag.language.dates import years_in
from ultrafast_rag.language.terms import DEFAULT_LANGUAGE, detect, language_of, shows, words_of
from ultrafast_rag.ports import WordWeights
from ultrafast_rag.types import Hit, Hits

NOT_FOUND = "Not found in these documents."
_MEASURE = re.compile(r"(?<=\bhow )(?:many|much|often|long|far|old|tall|high|deep|large|big)\b", re.I)  # asks, and names nothing
_TO_WRITE = re.compile(
    r"\b(?:summar(?:y|i[sz]e)|overview of|outline|compare|comparison|paraphrase|translate)\b|\babout\?*\s*$", re.I
)
_WRITER = ' A summary or comparison takes a writer: generator="gemini" or "local".'
_ASKS = re.compile(r"when\b|how many\b|(?:in|on)? ?(?:what|which)\b", re.I)


def refusal(question: str, hits: Hits, found: Unit | None, lacking: Sequence[str], words: WordWeights) -> str:
    """What was nearest, and why it was not enough. found: the nearest sentence or row; lacking: what it leaves unsaid."""
    if not hits:
        return NOT_FOUND
    nearest = found.hit if found else hits[0]
    if hits[0] is not nearest and hits[0].modality in ("image", "video") and not is_question(question):
        return f"Not found in words. By what it shows, {hits[0].where} is nearest."
    quoted = f": “{clipped(found.shown)}”" if found else "."
    if _TO_WRITE.search(question):
        return f"{NOT_FOUND}{_WRITER} The nearest is in {nearest.where}{quoted}"
    told = f"{NOT_FOUND} The nearest is in {nearest.where}"
    missing = _missing(question, nearest, words)
    if found and lacking and not (missing and all(map(_ASKS.match, lacking))):  # what is asked about says more than "how many"
        told += _why_not(found, lacking)
    elif _in_another_language(question, nearest.text):
        told += ", in another language than the question. Ask in theirs; across languages only a multilingual text_model finds"
    elif missing:
        told += f", which says nothing of {missing}"
    else:
        told += ", about something similar: no sentence of it answers the question"
    return told + quoted


def _missing(question: str, hit: Hit, words: WordWeights) -> str:
    """The question's words, as they are written there, that a passage lacks, the most telling first; three at most."""
    wanted = words.weights(question)
    held = words.weights(f"{hit.title} {hit.section} {hit.text}").keys()
    lacking: dict[str, float] = {}
    for word in words_of(_MEASURE.sub("", question)):
        if (terms := words.weights(word).keys() & wanted.keys()) and not terms & held:
            lacking[f"“{word}”"] = max(wanted[term] for term in terms)
    return ", ".join(sorted(lacking, key=lambda word: -lacking[word])[:3])


def _in_another_language(question: str, text: str) -> bool:
    """Whether a question shows surely that it is in another language than a text; a word that both have is the text's."""
    written = language_of(" ".join(word for word in text.split() if not word[0].isupper()))  # "Dan" is a name, and Indonesian
    asked = detect(words_of(question), {written: 0.9} if written else {})
    if asked is None:
        return written == DEFAULT_LANGUAGE and not shows(question, written)
    return written is not None and asked != written


def clipped(text: str, longest: int = 200) -> str:
    """The text, or its first words and an ellipsis; longest: in characters."""
    return text if len(text) <= longest else text[: longest - 1].rsplit(" ", 1)[0] + " …"


def _why_not(found: Unit, lacking: Sequence[str]) -> str:
    """What it leaves unsaid: "which has 2021 and 2022, not 2019", "which says nothing of “profit”", "which does not say when"."""
    years = [term for term in lacking if years_in(term) == {term}]
    terms = [f"“{term}”" for term in lacking if term not in years and not _ASKS.match(term)]
    if years:
        there = _listed(sorted(years_in(found.hit.text)))
        return f", which has {there}, not {_listed(years)}" if there else f", which says nothing of {_listed(years)}"
    if is_denial(lacking[0]):
        return ", which says how it is, not how it is not"
    return f", which says nothing of {', '.join(terms[:3])}" if terms else f", which does not say {lacking[0].lower()}"


def _listed(years: Sequence[str]) -> str:
    """Years in words: "2019, 2020 and 2023", "2019 to 2024"."""
    if len(years) > 2 and int(years[-1]) - int(years[0]) == len(years) - 1:
        return f"{years[0]} to {years[-1]}"
    return " and ".join(filter(None, [", ".join(years[:-1]), *years[-1:]]))
