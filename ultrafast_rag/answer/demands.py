"""What a question insists on, and what of it a sentence or row leaves unsaid.

Near misses look like answers: the right line of another year, the right year of another company. Neither a reader nor a cosine
tells them apart surely, so what cannot be paraphrased is looked for as it is. Names, identifiers, what stands in quotation marks,
years, dates and numbers have to be said by the evidence or by what it stands under: headings, caption, column heads, the page's
head, title, file name; of prose by the rest of its passage too. A table's row also has to say, by some name, the quantity that is
asked for ("the advertising expense", "how many pages"); what answers "when" holds a time, and what answers "how many" a number.
Nor does a sentence answer that says the opposite of a word, or of prose one that denies nothing where the question says "not".
Names are told by their capitals, so in English alone (German capitalizes every noun); numbers and identifiers in any language.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from ultrafast_rag.answer.quotable import Unit
from ultrafast_rag.answer.tabular import above_of
from ultrafast_rag.language.accounts import concepts
from ultrafast_rag.language.asides import FORM, without_orders
from ultrafast_rag.language.contrary import denial_in, denies, turned
from ultrafast_rag.language.dates import dates_in, years_in
from ultrafast_rag.language.names import said_by_name
from ultrafast_rag.language.rows import CELL
from ultrafast_rag.language.sameness import NUMBER_WORDS, same_word, stem_english
from ultrafast_rag.language.stopwords import STOP_WORDS
from ultrafast_rag.language.terms import DEFAULT_LANGUAGE, is_english, without_accents, words_of
from ultrafast_rag.types import PAGE_HEAD

_TOKEN = re.compile(r"\w+(?:[.,:]\d+)*")
_QUOTED = re.compile(r"[\"“„«]([^\"”“»]{1,80})[\"”“»]")
_YEAR = re.compile(r"1\d{3}|20\d\d")
_SPAN = re.compile(r"\b(1\d{3}|20\d\d)\s*(?:–|-|—|to|until|till|through|and)\s*(1\d{3}|20\d\d)\b")
_SPELLED = 6  # letters of a name from which one may be mistyped
_CAPITALS = re.compile(r"\b(?:[A-Z](?=[a-z])|[A-Z]{2,}\b)")  # of "World War II", WWII
_INITIALS = re.compile(r"\b(?:[A-Z]\.){2,}")
_SIGNED = re.compile(r"\b[A-Z]{1,2} ?& ?[A-Z]\b")  # R&D, M&A: kinds of business, no names
_FIRM = re.compile(
    r"(?:\b[A-Z][\w&.'’-]*,? )+(?:Inc|INC|Corp|CORP|Corporation|CORPORATION|Company|COMPANY|Ltd|LTD|plc|PLC|AG|GmbH)\b"
)
_POSSESSIVE = re.compile(r"['’]s\b|(?<=s)['’](?=\s)")
_COMMON = frozenset(STOP_WORDS[DEFAULT_LANGUAGE])
_MONTHS = frozenset(
    "january february march april may june july august september october november december "
    "jan feb mar apr jun jul aug sep sept oct nov dec monday tuesday wednesday thursday friday saturday sunday".split()
)
_AUX = r"(?:is|are|was|were|does|do|did|has|have|had|can|could|may|might|must|should|will|would)"
_STOP_AT = "of in on at for from to by with about per during since until under over as that like among after including".split()
_STOP = f"(?:{'|'.join(_STOP_AT)})"
# the quantity: "what was Harbor Lane's advertising expense in", "how high were the taxes of"
_WHAT_IS = re.compile(
    rf"\b(?:what|which|how (?:high|large|big|much)) (?:is|are|was|were) (?:[^?]*?['’]s? )?"
    rf"(?:the |a |an )?([^?]+?)(?: {_STOP}\b|[?,]|$)",
    re.I,
)
# "which currency does", "how many pages are": what precedes the verb; not "which plants give", where it is what the answer is
_WHICH = re.compile(rf"\b(?:what|which|how many|how much) ((?:(?!{_AUX}\b|{_STOP}\b)[\w&-]+ ){{1,4}}){_AUX}\b", re.I)
_COUNTED = re.compile(
    r"\b(?:number|amount|count|total|sum|share|percentage|value) of (?:the )?([^?]+?)(?: "
    + f"(?:{_STOP}|{_AUX})"
    + r"\b|[?,]|$)",
    re.I,
)
_WHO = re.compile(rf"\bwho (?:(?:is|was|are|were) the ([\w ]+?)(?: {_STOP}\b|[?,]|$)|(?!{_AUX}\b)(\w+))", re.I)
_MEASURES = re.compile(r"\bhow (old|heavy|tall|deep|fast|wide|thick)\b", re.I)
# names no quantity by itself: any cell may be an amount, a type or a name; units of measure; where and who
_GENERIC = frozenset(
    stem_english(word)
    for word in """
    amount number value figure count total sum share percentage percent size kind type sort name entry content meaning thing other
    date year day month time place location city town country state person people man woman column row table cell line list level
    newest latest recent called made used first last average million thousand billion dollar euro pound unit
    kilometre kilometer metre meter mile square character letter digit word default way address
    """.split()
)
_WHEN = re.compile(
    r"^\W*(?:since |until )?(when|in (?:which|what) (?:year|month|decade|century)|(?:on )?(?:what|which) (?:date|day))\b", re.I
)
_TIME = re.compile(
    r"\d|\b(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec|(?:january|february|march|april|august)|\w+ember|october|\w+day|"
    r"days?|centur(?:y|ies)|decades?|years?|months?|weeks?|hours?|spring|summer|autumn|winter|fall|night|morning|evening|noon|"
    r"midnight|after|before|during|while|until|when|upon|once|today|now|early|late|later|annually|always|never)\b",
    re.I,
)
_HOW_MANY = re.compile(r"^\W*(?:(?:in|for|of|to|by|from|with|at|on|about|over) )?(how many)\b", re.I)
_WRITTEN = (
    "an? one half third quarter twice several single both pair couple no none few many most all thirty forty fifty sixty seventy"
)
_NUMBER = re.compile(
    rf"\d|\b(?:{'|'.join([*_WRITTEN.split(), *NUMBER_WORDS])}|eighty|ninety|(?:hundred|thousand|million|billion|dozen)s?)\b", re.I
)
# numbers that count nothing: years, the number of a figure or section, a work that is cited
_UNCOUNTED = re.compile(
    r"\((?:[^()]*\W)?(?:19|20)\d\d[a-z]?\)|\[[\d,;–\s-]+\]"
    r"|\b(?:tables?|figures?|figs?\.|sections?|sec\.|chapters?|equations?|eqs?\.|pages?|appendix|version)\s+\d+(?:\.\d+)*"
    r"|\b(?:in|of|since|by|from|until|till|to|the|and|early|late|mid|during|after|before|between)\s+(?:1[789]|20)\d\d\b(?!\s*%)",
    re.I,
)
# where a people and its country do not begin alike
_PEOPLES = {
    one: frozenset({other})
    for pair in """
    french france; dutch netherlands; danish denmark; spanish spain; polish poland; swiss switzerland; finnish finland;
    welsh wales; irish ireland; greek greece
    """.split(";")
    for one, other in (pair.split(), pair.split()[::-1])
}


@dataclass(frozen=True, slots=True)
class Demands:
    """Of one question. names: runs of words as written. In lower case: quantity, what is asked for. denied: its "not"."""

    names: tuple[tuple[str, ...], ...]
    numbers: tuple[str, ...]
    years: tuple[str, ...]
    quoted: tuple[str, ...]
    quantity: tuple[str, ...]
    denied: str


def unsaid(unit: Unit, question: str) -> tuple[str, ...]:
    """What the question insists on and the unit, with what it stands under, does not say; as the question writes it."""
    asked, scope = demands_of(question), _scope(unit, question)
    lacking = [year for year in asked.years if not scope.has_year(year)]
    if asked.years and not lacking and (dates := {day for _, day in dates_in(question)}):
        held = {day for _, day in dates_in(unit.shown)}
        lacking += [written for written, day in dates_in(question) if held and not held & dates]
    lacking += [number for number in asked.numbers if number not in scope.numbers]
    lacking += [text for text in asked.quoted if text.casefold() not in scope.text.casefold()]
    # a name may be another in a language of its own, and any other word is; rows are too short to tell it
    table = unit.hit.modality == "table"
    if not is_english(f"{unit.hit.title} {unit.hit.section} {_around(unit)}" if table else unit.hit.text):
        return tuple(dict.fromkeys(lacking))
    over = _scope_of(_headings(unit, question))
    said = (lambda run: over.says_part(run) or scope.says_whole(run)) if table else scope.says
    lacking += [" ".join(run) for run in asked.names if not said(run)]
    if table:
        lines = concepts(scope.text).keys()
        told = _scope_of(_FIRM.sub(" ", scope.text))  # a firm's name says nothing of what its tables count
        lacking += [word for word in asked.quantity if not told.has(word) and not _other_name(word, question, lines)]
    else:
        lacking += [asked.denied] if asked.denied and not denies(unit.shown) else []
    lacking += turned(question, unit.shown)
    counted = unit.shown if table else _UNCOUNTED.sub(" ", unit.shown)
    kinds = ((_WHEN, _TIME, unit.shown), (_HOW_MANY, _NUMBER, counted))
    lacking += [found[1] for asks, holds, said in kinds if (found := asks.search(question)) and not holds.search(said)]
    return tuple(dict.fromkeys(lacking))


@lru_cache(maxsize=256)
def demands_of(question: str) -> Demands:
    """See the head of this file."""
    english = is_english(question)
    rest = FORM.sub(" ", without_orders(question))
    for written, _ in dates_in(question):
        rest = rest.replace(written, " ")
    rest = _SIGNED.sub(" ", rest)
    quoted = tuple(_QUOTED.findall(rest))
    rest = _plain(_QUOTED.sub(" ", rest))
    figures = [token for token in _TOKEN.findall(rest) if token[0].isdigit() and not token.endswith("s")]
    return Demands(
        tuple(_names(_without_lines(rest))) if english else (),
        tuple(token for token in figures if not _YEAR.fullmatch(token)),
        tuple(sorted(years_in(question).union(filter(_YEAR.fullmatch, figures)))),
        quoted,
        tuple(_quantity(rest)) if english else (),
        denial_in(rest) if english else "",
    )


def _without_lines(question: str) -> str:
    """Without lines of accounts, which are no names however they are written: EPS, COGS."""
    for said in concepts(question).values():
        question = question.replace(said, " , ")
    return question


def _names(question: str) -> Iterator[tuple[str, ...]]:
    """Runs of words with a capital, an underscore, or letters and figures mixed; never the first, unless it is no common word."""
    run: list[str] = []
    plain = _POSSESSIVE.sub(" ,", question)
    found = list(_TOKEN.finditer(plain))
    if len(found) > 3 and sum(t[0][0].isupper() for t in found) > 0.7 * len(found):
        return  # Written Like A Title
    end = 0
    for n, token in enumerate(found):
        word = token[0]
        common = word.casefold() in _COMMON and len(word) > 1
        special = "_" in word or (any(map(str.isdigit, word)) and word[0].isalpha()) or any(map(str.isupper, word[1:]))
        named = special or (n > 0 and word[0].isupper() and word != "I")
        named = named and not common and word.casefold() not in _MONTHS and not years_in(word)
        if run and (not named or plain[end : token.start()].strip()):
            yield tuple(run)
            run = []
        if named:
            run.append(word)
            end = token.end()
    if run:
        yield tuple(run)


def _quantity(question: str) -> Iterator[str]:
    """Words that name what is asked for, in lower case, names and what is generic left out."""
    question = question.replace("e-mail", "email")
    names = {word.casefold() for run in _names(question) for word in run}
    found = [
        group for kind in (_WHAT_IS, _WHICH, _COUNTED, _WHO) for hit in kind.finditer(question) for group in hit.groups() if group
    ]
    for word in _TOKEN.findall(" ".join(found)):
        plain = word.casefold()
        if (
            stem_english(plain) not in _GENERIC
            and plain not in _COMMON
            and plain not in names
            and not plain[0].isdigit()
            and not years_in(plain)  # "FY2017", which the years are held to
            and len(plain) > 1
        ):
            yield plain
    yield from (hit[1].casefold() for hit in _MEASURES.finditer(question))


class _Scope:
    """What a unit says together with what it stands under, ready to be asked."""

    def __init__(self, text: str) -> None:
        self.text = text = _plain(text)
        self.words = frozenset(_TOKEN.findall(text))
        lower = {word.casefold() for word in self.words}
        self.lower = (
            lower
            | {part for word in lower for part in word.split("_")}
            | {"".join(p) for p in pairwise(words_of(text.casefold()))}
        )
        self.stems = frozenset(map(stem_english, self.lower))
        self.numbers = {NUMBER_WORDS.get(word, word) for word in self.lower} | {word.replace(",", "") for word in self.lower}
        self.years = years_in(text)

    def has(self, word: str) -> bool:
        """Some form or synonym of a word in lower case."""
        return stem_english(word) in self.stems or any(same_word(word, other) for other in self.lower)

    def has_year(self, year: str) -> bool:
        """The year, its decade, or a span of years around it."""
        spans = ((found[1], found[2]) for found in _SPAN.finditer(self.text))
        own = year in self.years or year in self.lower or f"{year[:3]}0s" in self.lower
        return own or any(first < year < last for first, last in spans)

    def says(self, run: tuple[str, ...]) -> bool:
        """A name: its last word or most of them, or its initials."""
        said = [self._named(word) for word in run]
        return said[-1] or sum(said) * 2 > len(run) or (len(run) > 1 and "".join(word[0] for word in run) in self.words)

    def says_part(self, run: tuple[str, ...]) -> bool:
        """A word of a name and its single letters: half of a firm's name calls its file, "Widget" does not call Widget B."""
        return {word for word in run if len(word) == 1} <= self.words and any(map(self._named, run))

    def says_whole(self, run: tuple[str, ...]) -> bool:
        """Every word of a name."""
        return all(self._named(word) for word in run)

    def _named(self, word: str) -> bool:
        if len(word) == 1:
            return word in self.words
        lower = word.casefold()
        if "_" in word or any(map(str.isdigit, word)):
            return lower in self.lower
        known = self.has(lower) or not _PEOPLES.get(lower, frozenset()).isdisjoint(self.lower) or self._short_for(word)
        return known or (len(lower) >= _SPELLED and any(_mistyped(lower, other) for other in self.lower - _COMMON))

    def _short_for(self, word: str) -> bool:
        """An acronym, whose words the text has in a row with capitals."""
        return len(word) > 1 and word.isupper() and word in "".join(_CAPITALS.findall(self.text))


def _plain(text: str) -> str:
    """Without accents, "U.S." as "US"."""
    return _INITIALS.sub(lambda found: found[0].replace(".", ""), text if text.isascii() else without_accents(text))


def _mistyped(word: str, other: str) -> bool:
    """One letter more, fewer or other, behind the same first."""
    if word[0] != other[:1] or abs(len(word) - len(other)) > 1:
        return False
    start = next((n for n, (x, y) in enumerate(zip(word, other)) if x != y), min(len(word), len(other)))
    return word[start + (len(word) >= len(other)) :] == other[start + (len(other) >= len(word)) :]


@lru_cache(maxsize=512)
def _scope_of(text: str) -> _Scope:
    return _Scope(text)


def _scope(unit: Unit, question: str) -> _Scope:
    """A table's row with what stands over it, of prose its passage, for a name is often said once; the text around either."""
    hit = unit.hit
    own = f"{unit.group} {unit.shown} {above_of(unit)}" if hit.modality == "table" else hit.text
    return _scope_of(f"{own} {_around(unit)} {_headings(unit, question)}")


def _headings(unit: Unit, question: str) -> str:
    hit, name = unit.hit, Path(unit.hit.source).stem
    return f"{hit.section} {hit.title} {hit.metadata.get(PAGE_HEAD, '')} {name} {said_by_name(question, name)}"


def _around(unit: Unit) -> str:
    """The text before and after the passage, without rows of a table."""
    return " ".join(line for text in unit.hit.neighbours for line in text.split("\n") if CELL not in line)


def _other_name(word: str, question: str, lines: Set[str]) -> bool:
    """Whether the word belongs to what accounts call a line that is said by another name."""
    return any(word in words_of(said.casefold()) for name, said in concepts(question).items() if name in lines)
