"""What can be quoted of a hit: sentences of prose and speech, rows of a table, a picture's caption.

Which of it is evidence is told in `quotable.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from ultrafast_rag.answer.quotable import ENDED, Unit, is_code, is_evidence, lists_references
from ultrafast_rag.answer.tabular import rows_of
from ultrafast_rag.language.dates import dated_line
from ultrafast_rag.language.sentences import split_sentences
from ultrafast_rag.types import Hit

_WORD = re.compile(r"[^\W\d_]{2,}")
_LIST_NUMBER = re.compile(r"^\s*(?:[•▪◦‣–*·-]|\(?(?:\d{1,2}|[a-z]|[ivx]{1,4})[.)])\s+(?=\S)")
_FOOTNOTE = re.compile(r"^(?:\d{1,2}|[a-d])(?=[A-Z][a-z])")  # its mark, glued to the note or to an address: "aDebian Project"
# words whose meaning stands in the sentence before
_LEANING = re.compile(
    r"^(?:it|its|they|their|them|this|these|those|that|he|she|his|her|such|both|the (?:former|latter|reason)|here|there|then|"
    r"thus|however|moreover|furthermore|in addition|in this case|as a result|therefore)\b",
    re.I,
)
_LINE_END = re.compile(r"\s*\n\s*")
_ITEM = re.compile(r"[•▪◦‣–*·-]\s|\(?(?:\d{1,2}|[a-z]|[ivx]{1,4})[.)]\s")
_CAPTION = 200  # characters: a longer text of a picture is what stands around it on the page
_WRAPPED = 60  # characters: a longer line without an end is text that was wrapped, a shorter one may be a heading
_SHORT_OF = 0.7  # of the next line's length, chosen


def units_of(hit: Hit, rank: int = 0) -> list[Unit]:
    """Everything quotable of a hit, in reading order."""
    if hit.modality == "table":
        return rows_of(hit, rank)
    if "language" in hit.metadata or (hit.modality == "image" and len(hit.text) <= _CAPTION):  # whole or not at all
        return [Unit(hit, hit.text, 0, len(hit.text), (rank, 0))] if hit.text.strip() else []
    units = list[Unit]()
    for start, end in _paragraphs(hit.text):
        at, before = start, ""
        for sentence in split_sentences(hit.text[start:end]):
            at = max(hit.text.find(sentence, at), at)
            shown = _FOOTNOTE.sub("", _LIST_NUMBER.sub("", " ".join(sentence.split())))
            units.append(Unit(hit, shown, at, at + len(sentence), (rank, len(units)), before=before))
            at, before = at + len(sentence), shown
    units = _whole(units, hit)
    # what is kept of the text around a picture breaks off somewhere: its last sentence may lack the fact
    text = hit.text.rstrip()
    return units[:-1] if hit.modality == "image" and (text.endswith("…") or not ENDED.search(text)) else units


def _whole(units: list[Unit], hit: Hit) -> list[Unit]:
    """With the sentences that the edges of a page cut in two made whole from what stands around the passage."""
    if not units or hit.modality != "text" or hit.page is None:
        return units
    first, last = units[0].shown, units[-1].shown
    head = _paragraph_end(hit.neighbours[0]) if first[:1].islower() else ""
    tail = hit.neighbours[1].lstrip().partition("\n")[0] if not ENDED.search(last) and _WORD.search(last) else ""
    if head and not ENDED.search(head) and head not in hit.text:
        units[0] = replace(units[0], shown=_joined(head, first))
    if tail[:1].islower() and tail not in hit.text:
        units[-1] = replace(units[-1], shown=_joined(units[-1].shown, split_sentences(tail)[0]))
    return units


def _paragraph_end(text: str) -> str:
    """The last sentence of a text's last line."""
    line = text.rstrip().rpartition("\n")[2]
    return " ".join(split_sentences(line)[-1].split()) if line.strip() else ""


def _joined(left: str, right: str) -> str:
    """Two halves of a sentence; of a word that was cut in two the second is whole, see the PDF reader."""
    whole = left.rpartition(" ")[0] if left[-1] in "-‐" else left
    return " ".join(f"{whole} {right}".split())


def evidence_of(hit: Hit, rank: int = 0) -> list[Unit]:
    """What of a hit can answer something: no references, and no line that only says its title or heading again."""
    if hit.modality != "table" and lists_references(hit.text, hit.section):
        return []
    above = f"{hit.title} > {hit.section}".casefold()
    return [
        unit
        for unit in units_of(hit, rank)
        if (is_evidence(unit.shown) or (hit.page == 1 and dated_line(unit.shown)))
        and (hit.modality == "table" or ENDED.search(unit.shown) or unit.shown.casefold() not in above)
    ]


def leans_back(text: str) -> bool:
    """Whether a sentence needs the one before it to be understood."""
    return bool(_LEANING.match(text))


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    """Places of the text's paragraphs: lines that ended, headings and list items, but no line that was only wrapped."""
    start = last = 0
    for found in _LINE_END.finditer(text):
        line, rest = text[last : found.start()], text[found.end() : found.end() + 8]
        apart = is_code(line) or is_code(text[found.end() :].partition("\n")[0]) or _FOOTNOTE.match(rest)
        heading = len(line) < _WRAPPED and (rest[:1].isupper() or _heads_caseless(line, text[found.end() :]))
        if ENDED.search(line) or _ITEM.match(rest) or heading or apart:
            yield start, found.start()
            start = found.end()
        last = found.end()
    yield start, len(text)


def _heads_caseless(line: str, rest: str) -> bool:
    """Whether a line is a heading in a script without capitals: much shorter than the one after it."""
    below = rest.partition("\n")[0]
    return rest[:1].isalpha() and rest[0].lower() == rest[0].upper() and len(line) < _SHORT_OF * len(below)
