"""Where sentences end, in any script: by punctuation, short lists of abbreviations, and what follows them.

A trained splitter is a model to load for a percent of boundaries; chunks and citations forgive those.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set

_CLOSERS = "\"'”’»›)\\]」』）】》"
_NOTES = r"(?:\[\d{1,3}\]|\(\d{1,3}\))*"  # marks of footnotes, glued to the sentence
# What may end a sentence. Full stops that are written for nothing else need no blank after them: Han and kana, Devanagari and
# its sisters, Arabic and Urdu, Armenian, Ethiopic, Khmer, Burmese, Tibetan. Thai and Lao have none: a blank between two of their
# letters parts sentences, or clauses (not after the mark of repetition)
_END = re.compile(
    rf"(?P<point>[.!?…]+){_NOTES}[{_CLOSERS}]*{_NOTES}\s+(?=[\"'“‘„‚«‹(\[¿¡•–—]*\s?[^\W_])"
    rf"|[。！？｡।॥؟۔։።፧។៕။༎]+[{_CLOSERS}]*\s*|(?P<blank>\n\s*\n)"
    r"|(?P<clause>(?<=[\u0e01-\u0e45\u0e47-\u0e4e\u0e81-\u0ec5\u0ec8-\u0ecd])\s+(?=[\u0e01-\u0e44\u0e81-\u0ec4]))"
)
_LEAST_CLAUSE = 150  # characters from which such a stretch is a sentence: of 28 Thai questions 16 are right first, with 100 12
_WORD = re.compile(r"\w+")
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘„«/]+$")
_NEXT_WORD = re.compile(r"[^\w]*(?P<word>\w+)(?P<after>.?)", re.S)
# never the end: a name, an example, a number comes next
_TITLES = frozenset(
    "dr drs mr mrs ms mx messrs prof profs rev gen col lt sgt capt cmdr adm gov sen rep hon pres st mt ft "
    "e.g eg i.e ie viz cf vs approx ca circa resp incl excl esp "
    "bzw z.b d.h u.a o.ä hr fr dipl ing geb gest sog evtl ggf inkl mme mlle mgr sr sra dra dña ud uds sig dott "
    "рис стр гл см им ул тыс млн млрд проф тов डॉ प्रो श्री नं".split()
)
# not the end before a figure, a numeral or a capital with a figure: Fig. 3, No. IV, Sec. A2; else they may be ("No.", "Art.")
_BEFORE_NUMBER = frozenset(
    "no nos nr fig figs abb eq eqs gl sec secs sect ch chap kap vol vols bd art arts ref refs tab tabs ex app appx p pp s f ff "
    "para pt ser ed eds núm pág págs cap jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri "
    "st ave blvd rd rm bldg".split()
)
# the end only before a word that opens sentences: "Acme Inc. The ..." against "Acme Inc. Annual Report"
_MAYBE = frozenset(
    "inc ltd corp co cos llc plc bros dept univ assn al jr sr esq mass calif dist est intl natl gmbh usw etw ph.d m.d b.a m.a "
    "d.c a.m p.m b.c a.d".split()
)
_OPENERS = frozenset(
    "the this that these those it its he she they we you our his her their in on at as for from with by when while after before "
    "since if but and or nor so however although though there here what who how why where is are was were does did to under "
    "all both each some many most such no not "
    "der die das den dem ein eine er sie es wir ich im am bei nach mit für auf aber und da wenn "
    "le la les un une il elle ils nous en dans el los las una ella en il lo gli i".split()
)
_NUMERAL = re.compile(r"\d|[ivxlcIVXLC]+\b|[A-Z]\d")
_ENUMERATOR = re.compile(r"\W*(?:(?:\d{1,3}\.)*\d{1,3}|[ivxlcIVXLC]{1,5}|\w)\.+")
_DOTTED = re.compile(r"(?:\w\.)+\w{1,2}")
# a measure, not an initial: "12 W.", "3 t.", "20 °C."; but not the side of a street: "120 W. Main Street"
_MEASURED = re.compile(r"(?:(?<!\w)\d[\d.,]*\s?|[°µμ])[WVANJKCFHLTSmgshlt]$")
_STREET = re.compile(r"\W*(?:\w+\W+){1,3}(?:st|street|ave|avenue|rd|road|blvd|boulevard|dr|drive|ln|lane|suite)\b", re.I)
# German (and Danish, Norwegian) days and centuries: "am 3. Oktober", "im 19. Jahrhundert"
_COUNTED = re.compile(
    r"(?:januar|jänner|februar|märz|april|mai|juni|juli|august|september|oktober|november|dezember|jahrhundert)"
)


def split_sentences(text: str) -> list[str]:
    """Sentences of running text in any script, in order, without surrounding blanks."""
    sentences: list[str] = []
    start = 0
    for end in _END.finditer(text):
        if end["point"] is not None and not _ends(text, start, end):
            continue
        if end["clause"] and end.start() - start < _LEAST_CLAUSE:
            continue
        sentences.append(text[start : end.end()].strip())
        start = end.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _ends(text: str, start: int, end: re.Match[str]) -> bool:
    """Whether this point, mark or ellipsis ends the sentence begun at `start`."""
    following = _NEXT_WORD.match(text, end.end())
    word, after = (following["word"], following["after"]) if following else ("", "")
    if word[:1].islower():
        return False
    if end["point"] != ".":
        return True
    if _ENUMERATOR.fullmatch(text, start, end.start() + 1):  # the number of a list item or a heading
        return False
    if _MEASURED.search(text, max(start, end.start() - 16), end.start()):
        return not _STREET.match(text, end.end())
    last = _LAST_WORD.search(text, max(start, end.start() - 16), end.start())
    before = last[0].casefold() if last else ""
    if before.isdecimal():
        return not (len(before) <= 2 and _COUNTED.match(word.casefold()))
    return not _abbreviated(before, word, after)


def _abbreviated(before: str, word: str, after: str) -> bool:
    """Whether the point after `before` only shortens it, with `word` and the character `after` it coming next."""
    if before in _BEFORE_NUMBER and _NUMERAL.match(word):
        return True
    if before in _TITLES:
        return True
    # one letter, with its marks: an initial
    initials = sum(c.isalpha() for c in before) == 1 or _DOTTED.fullmatch(before) is not None
    if not initials and before not in _MAYBE:
        return False
    return not (word.casefold() in _OPENERS and after not in (",", "."))


def closest(stretches: Sequence[str], asked: Set[str]) -> str:
    """The stretch that shares most with the words asked, in lower case; a word counts for less the more stretches have it.

    "" where none shares a word, or two share as much.
    """
    shared = [asked & set(_WORD.findall(stretch.lower())) for stretch in stretches]
    weights = [sum(1 / sum(word in other for other in shared) for word in own) for own in shared]
    best = max(weights, default=0.0)
    return stretches[weights.index(best)] if best > 0 and weights.count(best) == 1 else ""
