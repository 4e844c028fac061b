"""Hits -> an answer made of the documents' own sentences, each cited; or an honest "not found".

A reader (question and passage together) picks the passage, the span and so the sentence, and says how surely the
passages answer at all. Where it cannot read the question's language, or was switched off, sentences are scored by
meaning (cosine to the question) and by the question's telling words that they hold (idf-weighted coverage); further
sentences are chosen so in any case.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ultrafast_rag.answer.byline import byline_words, is_author_asked, is_date_asked
from ultrafast_rag.answer.demands import unsaid
from ultrafast_rag.answer.quotable import Unit, is_caption
from ultrafast_rag.answer.reasons import asks_cause, asks_why, gives_reason, names_cause
from ultrafast_rag.answer.refusal import clipped, refusal
from ultrafast_rag.answer.tabular import caption_of, cell_named, label_asked, named_otherwise
from ultrafast_rag.answer.units import evidence_of, leans_back, units_of
from ultrafast_rag.errors import EncodingError, RemoteEncoderError
from ultrafast_rag.language.accounts import is_change_of_balance
from ultrafast_rag.language.asides import plain, without_when
from ultrafast_rag.language.asking import is_question
from ultrafast_rag.language.dates import dates_shared, years_apart, years_in
from ultrafast_rag.language.names import said_by_name
from ultrafast_rag.language.sameness import stem_english
from ultrafast_rag.language.terms import trusted, words_of
from ultrafast_rag.ports import Reader, TextEncoder, WordWeights
from ultrafast_rag.types import PAGE_HEAD, Answer, Citation, Hit, Hits, Reading, Vectors

# Measured by `bench support` (300 questions of each kind, squad2, half of its articles indexed; data/benchmarks/support.json)
MAX_SENTENCES = 3
NEAR_BEST = 0.8  # of the best sentence's score: 1.6 sentences a reply, 91 % hold the answer; the best alone 85 %
NAMED = 0.1  # for a row whose whole label is asked for: more than cosines of rows of one table differ by
# Chosen by hand, CELL and ROW after reading answers of `tables` and of two made-up reports. APART: what a sentence about other
# years than the question's keeps of its score, and ODDS_APART loses of its log odds: at an even chance an eighth is left.
# ODDS_CELL, ODDS_ROW: by as much a row stands before other passages' that is asked for by its whole label, with a column of it
# or without
APART, ODDS_APART, ODDS_CELL, ODDS_ROW = 0.5, 2.0, 2.0, 0.5
# by as much a caption stands behind sentences, which say more, and what gives no reason behind what does, where one is asked for
ODDS_CAPTION, ODDS_REASON = 1.0, 1.0
REASON = 0.4  # of the score: by as much the reader's sentence may be nearer than the one beside it that gives the reason; chosen
# of a question's word that only the sentence before says: "The model ..." goes on about it. Chosen: of the papers' questions
# 0.3 and 0.4 answer four more than 0 does, 0.2 two; on the other sets they are alike
LENT = 0.3
SURE = 0.5  # of support: what else stands near would only blur an answer so sure
ODDS_LACKING = 20.0  # after every candidate that says all that the question insists on
PASSAGES = 5  # hits that sentences are weighed from: chosen, a card shows three with evidence
MEANING = 0.5  # weight of the cosine, the rest is coverage: the two alone separate worse (0.96 and 0.92 against 0.98)
# 96 % of answerable questions are above, 2 % of those whose article is not indexed; questions written to look
# answerable by a paragraph that is there (SQuAD 2.0's) are above as well, in four of five cases: choosing sentences tells few
SUPPORT = 0.42
COVERED = 0.33  # the same where the encoder says nothing of the question and only its words count
LEAST_MARGIN = -30.0  # logits; a passage without anything to read has minus infinity
READ = 10  # passages a reader is shown: the fact stands in one of ten more often than in one of five
REMEMBERED = 2_000  # sentences with their vectors, 3 MB with MiniLM; chosen: of some eighty questions
LEAD_CHARACTERS = 160  # of title and headings, shown to the reader before the text
# fitted by `data/train_reader.py --calibrate` on the articles held out from training (data/benchmarks/reader_support.json):
# log odds that a sentence is the answer, from the mean of the reader's two logits for its passage ("answerable", and the span's
# margin over "no answer": they say much the same), the hit's score as a share of the best hit's, the question's words that the
# sentence holds, and its cosine
WEIGHTS = (0.21, 5.0, 1.6, 3.6)
CALIBRATION = (-8.2, 0.98)  # constant and slope: log odds that the best of them answers the question at all
LEAST_SUPPORT = 0.18  # keeps nine of ten answerable questions there


@dataclass(frozen=True, slots=True)
class Scored:
    """A unit that could be quoted.

    cosine: to the question, cut at 0.  coverage: share of the question's idf that its words hold.  score: of both.
    meaning: weight of the cosine, 0 to MEANING: what the encoder knows nothing of is neither lifted nor sunk by it.
    named: how much of the row's label the question says; that makes it the row, and no surer answer: see `order`.
    apart: whether it is about other years than the question, or the change of what is asked for.
    lacking: what the question insists on and this does not say.
    """

    unit: Unit
    cosine: float
    coverage: float
    named: float = 0.0
    apart: bool = False
    lacking: tuple[str, ...] = ()
    meaning: float = MEANING

    @property
    def score(self) -> float:
        """0 to 1."""
        return (self.meaning * self.cosine + (1 - self.meaning) * self.coverage) * (APART if self.apart else 1)

    @property
    def order(self) -> float:
        """What decides between sentences: "Net sales" before "Net sales abroad" for a question about net sales."""
        return self.near - bool(self.lacking)

    @property
    def near(self) -> float:
        """The same, were it no matter what it leaves unsaid."""
        return self.score + NAMED * self.named


@dataclass(frozen=True, slots=True)
class Candidate:
    """The sentence or row of one passage that may answer. features: see WEIGHTS. odds: log odds, uncalibrated.

    named: as in Scored. cell: whether the question names a column of the row as well. behind: log odds that it loses to others.
    """

    unit: Unit
    features: tuple[float, float, float, float]
    named: float = 0.0
    cell: bool = False
    apart: bool = False
    lacking: tuple[str, ...] = ()
    behind: float = 0.0

    @property
    def odds(self) -> float:
        """That it is the answer."""
        return sum(weight * feature for weight, feature in zip(WEIGHTS, self.features)) - ODDS_APART * self.apart

    @property
    def order(self) -> float:
        """What decides between candidates of one question."""
        return self.near - ODDS_LACKING * bool(self.lacking)

    @property
    def near(self) -> float:
        """The same, were it no matter what it leaves unsaid."""
        sure = self.cell or self.unit.hit.modality != "table"  # the cell, or the line of authors
        return self.odds - self.behind + self.named * (0.0 if self.apart else ODDS_CELL if sure else ODDS_ROW)

    @property
    def support(self) -> float:
        """0 to 1: the calibrated chance that this answers the question."""
        constant, slope = CALIBRATION
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, constant + slope * self.odds))))


class ExtractiveAnswerer:
    """Chooses and cites sentences. encoder, words and reader arrive as ports; the reader may be None."""

    name = "extractive"

    def __init__(
        self, encoder: Callable[[], TextEncoder], words: WordWeights, reader: Callable[[], Reader | None] = lambda: None
    ) -> None:
        self._encoder, self._words, self._reader = encoder, words, reader
        self._known: OrderedDict[str, Vectors] = OrderedDict()  # sentence -> vector
        self._keeping = threading.Lock()

    def answer(self, question: str, hits: Hits) -> Answer:
        """Up to three sentences of the best hits with [n] citations; `supported` is False when none fits."""
        start = time.perf_counter()
        notes: tuple[str, ...] = ()
        try:  # the reader learned from questions: of 66 as keywords it has 42 right first, sentences by themselves 50 (2026-11)
            readings = self.readings(question, hits) if is_question(question) else []
        except EncodingError as error:
            readings, notes = [], (f"the reader was not used: {error}",)
        try:
            scored, candidates = self.weigh(question, hits, readings)
        except RemoteEncoderError as error:
            notes = (*notes, f"sentences were chosen without their meaning: {error}")
            scored, candidates = self.weigh(question, hits, readings, meaning=False)
        found = max(candidates, key=lambda candidate: candidate.order, default=None)
        first = max((s for s in scored if not s.lacking), key=lambda s: s.score, default=None)
        best = first.score if first else 0.0
        support = _support(found) if found else _by_sentence(first) if first else 0.0
        timings = {"answer": time.perf_counter() - start}
        if support < LEAST_SUPPORT:
            weighed: Sequence[Candidate | Scored] = candidates or scored
            nearest = max(weighed, key=lambda one: one.near, default=None)
            text = refusal(question, hits, nearest.unit if nearest else None, nearest.lacking if nearest else (), self._words)
            return Answer(question, text, hits, supported=False, support=support, timings_s=timings, notes=notes)
        text, citations = _write(_chosen(question, scored, best, found))
        cited = {c.hit.chunk_id for c in citations}
        ordered = [c.hit for c in citations] + [h for h in hits if h.chunk_id not in cited]
        again = Hits(ordered, query=hits.query, seconds=hits.seconds, notes=hits.notes, evidence=hits.evidence)
        return Answer(question, text, again, citations, support=support, timings_s=timings, notes=notes)

    def weigh(
        self, question: str, hits: Sequence[Hit], readings: Sequence[Reading], *, meaning: bool = True
    ) -> tuple[list[Scored], list[Candidate]]:
        """(every sentence of the first PASSAGES hits with its two numbers, one candidate in each of the first READ).

        A passage's candidate is the sentence of the reader's span. Of a table it is the row that scores best, and the reader's
        verdict on it is replaced by its mean over the passages: it reads rows of figures poorly (83 questions on public
        tables: the cell first 28 times by its own rows, 58 by these; 2026-11). No candidates without readings. meaning: False
        leaves cosines out.
        """
        units = [evidence_of(hit, rank) for rank, hit in enumerate(hits[:READ])]
        wanted = [
            unit
            for rank, found in enumerate(units)
            for unit in found
            if rank < PASSAGES or (readings and (unit.hit.modality == "table" or _holds(unit, readings[rank])))
        ]
        scored = self.score(question, wanted, meaning=meaning)
        verdicts = [(reading.answerable + max(reading.margin, LEAST_MARGIN)) / 2 for reading in readings]
        candidates = []
        for rank, reading in enumerate(readings):
            table = hits[rank].modality == "table"
            here = [s for s in scored if s.unit.place[0] == rank]
            own = [s for s in here if table or s.named == 1 or _holds(s.unit, reading)]
            if best := _with_reason(own, here) if asks_why(question) and not table else max(own, key=_order, default=None):
                verdict = sum(verdicts) / len(verdicts) if table or best.named == 1 else verdicts[rank]
                share = hits[rank].score / hits[0].score if hits[0].score > 0 else 1.0
                features = (verdict, share, best.coverage, best.cosine)
                cell = bool(best.named and cell_named(best.unit, question))
                behind = _behind(best.unit, question)
                candidates.append(Candidate(best.unit, features, best.named, cell, best.apart, best.lacking, behind))
        return [s for s in scored if s.unit.place[0] < PASSAGES], candidates

    def fits(self, question: str, answer: Answer) -> bool:
        """Whether the reader finds the answer to another question in what this one cites first; True where nobody can read it."""
        cited = answer.citations[0] if answer.citations else None
        readings = self.readings(question, Hits([cited.hit])) if cited else []
        if cited is None or not readings:
            return True
        span = cited.hit.text[readings[0].start : readings[0].end]
        return bool(span) and set(words_of(span)) <= set(words_of(cited.quote))

    def readings(self, question: str, hits: Sequence[Hit]) -> list[Reading]:
        """One for each of the first READ hits; none at all without a reader that knows the question's language.

        Raises EncodingError when the reader fails.
        """
        reader = self._reader() if hits else None
        if reader is None or not reader.reads(question):
            return []
        return reader.read(plain(question), [(lead_of(hit), hit.text) for hit in hits[:READ]])

    def score(self, question: str, units: Sequence[Unit], *, meaning: bool = True) -> list[Scored]:
        """Each unit with its two numbers, in order."""
        if not units:
            return []
        when = plain(question) if years_in(plain(question)) else question
        shown = [f"{unit.hit.section}: {unit.shown}" if unit.hit.section else unit.shown for unit in units]
        cosines, weight = np.zeros(len(units), np.float32), 0.0
        if meaning:
            weight = trusted(MEANING, self._encoder().known_share(question))
            asked: Vectors = self._encoder().encode_queries([plain(question)])
            cosines = np.clip(self._vectors(shown) @ asked[0], 0, 1)
        named = [
            label_asked(unit, question) or float(is_author_asked(unit, question) or is_date_asked(unit, question))
            for unit in units
        ]
        wanted = [(stem_english(term), idf) for term, idf in self._words.weights(without_when(plain(question))).items()]
        covered = [self._coverage(question, wanted, unit, asked_for) for unit, asked_for in zip(units, named)]
        return [
            Scored(unit, float(cosine), coverage, asked_for, _is_apart(unit, when), unsaid(unit, question), weight)
            for unit, cosine, coverage, asked_for in zip(units, cosines, covered, named)
        ]

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        """A row a text. The next question is often about the same passages, and sentences cost a third of an answer."""
        with self._keeping:
            known = {text: self._known[text] for text in texts if text in self._known}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, map(np.array, self._encoder().encode(new) if new else ())))  # copies: a row keeps its batch
        with self._keeping:
            for text in texts:
                self._known[text] = known[text]
                self._known.move_to_end(text)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return np.stack([known[text] for text in texts])

    def _coverage(self, question: str, wanted: Sequence[tuple[str, float]], unit: Unit, named: float) -> float:
        """Share of the question's idf (wanted: stems with theirs) that the unit says, or its headings or caption do.

        Of a row whose whole label is asked for also what says whose it is: the file's name and the page's head. Of other rows
        not, or every row of the right report would look like an answer to what the report does not say.
        """
        hit = unit.hit
        above = f"{hit.title} {hit.section} {caption_of(unit)} {named_otherwise(unit, question)}"
        if named == 1 and hit.modality == "text":
            above += f" {byline_words(question)} {Path(hit.source).stem}"
        elif named == 1:
            above += f" {said_by_name(question, Path(hit.source).stem)} {hit.metadata.get(PAGE_HEAD, '')}"
        held = set(map(stem_english, self._words.weights(f"{above} {unit.shown} {dates_shared(question, unit.shown)}")))
        total = sum(weight for _, weight in wanted)
        said = sum(weight for stem, weight in wanted if stem in held)
        if unit.before and said < total:
            lent = set(map(stem_english, self._words.weights(unit.before))) - held
            said += LENT * sum(weight for stem, weight in wanted if stem in lent)
        return said / total if total else 0.0


def _order(scored: Scored) -> float:
    return scored.order


def _with_reason(own: Sequence[Scored], here: Sequence[Scored]) -> Scored | None:
    """The reader's sentence, or the one beside it that gives a reason, which then counts for what either of them says."""
    read = max(own, key=_order, default=None)
    if read is None or gives_reason(read.unit.shown):
        return read
    beside = [s for s in here if gives_reason(s.unit.shown) and abs(s.unit.place[1] - read.unit.place[1]) == 1]
    found = max(beside, key=_order, default=None)
    if found is None or found.order < read.order - REASON:
        return read
    return replace(found, coverage=max(found.coverage, read.coverage), cosine=max(found.cosine, read.cosine))


def _behind(unit: Unit, question: str) -> float:
    """Log odds that a sentence loses: a caption, or one that gives no reason where one is asked for."""
    no_reason = asks_why(question) and not gives_reason(unit.shown)
    is_name = unit.hit.modality != "table" and is_caption(unit.shown)
    return ODDS_CAPTION * is_name + ODDS_REASON * no_reason


def _holds(unit: Unit, reading: Reading) -> bool:
    """Whether the reader's span begins in this unit."""
    return unit.start <= reading.start < unit.end


def _is_apart(unit: Unit, question: str) -> bool:
    """Whether a unit is about other years, or has the change of what is asked for."""
    context = f"{unit.hit.section} {unit.hit.metadata.get(PAGE_HEAD, '')}"
    return years_apart(unit.shown, question) or is_change_of_balance(unit.label, context, question)


def lead_of(hit: Hit) -> str:
    """Title and headings in one line, as the reader learned them."""
    parts = [part.strip() for part in (hit.title, *hit.section.split(" > ")) if part.strip()]
    return " › ".join(dict.fromkeys(parts))[-LEAD_CHARACTERS:]


def _support(found: Candidate) -> float:
    """The candidate's own; of a table's row or line of authors, of which the reader says little, at least what its words say.

    0 where it does not say what the question insists on.
    """
    if found.lacking:
        return 0.0
    if found.unit.hit.modality != "table" and found.named < 1:
        return found.support
    _, _, coverage, cosine = found.features
    return max(found.support, _by_sentence(Scored(found.unit, cosine, coverage, apart=found.apart)))


def _by_sentence(best: Scored) -> float:
    """The best sentence's score on the reader's scale: what is enough falls on LEAST_SUPPORT, 1 on 1."""
    enough = COVERED + (SUPPORT - COVERED) * best.meaning / MEANING
    if best.score >= enough:
        return LEAST_SUPPORT + (1 - LEAST_SUPPORT) * (best.score - enough) / (1 - enough)
    return LEAST_SUPPORT * best.score / enough


class _Quote:
    """A unit on its way into an answer. said: how it is put there."""

    def __init__(self, unit: Unit, said: str) -> None:
        self.unit, self.said = unit, said


def _chosen(question: str, scored: Sequence[Scored], best: float, found: Candidate | None) -> list[_Quote]:
    """The reader's sentence, else the best, led in by the one before where it leans on it; then the next best as they stand."""
    near = [s for s in scored if not s.lacking and s.score >= NEAR_BEST * best]
    others = sorted(near, key=lambda s: -s.order)[:MAX_SENTENCES]
    if found and found.unit.hit.modality != "table" and found.support >= SURE:
        others = []
    if found and found.cell and found.named == 1:  # the one cell that was asked for: what is merely like it would only blur it
        others = [s for s in others if s.named == 1]
    first = found.unit if found else others[0].unit
    chosen = [_Quote(first, cell_named(first, question) or first.shown)]
    if first.hit.modality != "table" and leans_back(first.shown) and (before := _before(first)) is not None:
        chosen[0].said = f"{first.shown} (before it: “{clipped(before.shown)}”)"
    elif asks_cause(question) and not names_cause(first.shown) and (after := _after(first)) is not None:
        if names_cause(after.shown):
            chosen.append(_Quote(after, after.shown))
    rest = [s.unit for s in others if s.unit.place != first.place][: MAX_SENTENCES - len(chosen)]
    return chosen + [_Quote(unit, unit.shown) for unit in sorted(rest, key=lambda unit: unit.place)]


def _before(unit: Unit) -> Unit | None:
    units = units_of(unit.hit, unit.place[0])
    return units[unit.place[1] - 1] if unit.place[1] > 0 else None


def _after(unit: Unit) -> Unit | None:
    units = units_of(unit.hit, unit.place[0])
    return units[unit.place[1] + 1] if unit.place[1] + 1 < len(units) else None


def _write(chosen: Sequence[_Quote]) -> tuple[str, tuple[Citation, ...]]:
    """Sentences with [n] after each; one number a hit, in order of first use; repeats said once."""
    numbers: dict[int, int] = {}
    citations: list[Citation] = []
    pieces: list[str] = []
    said: list[str] = []
    for quote in chosen:
        plain, hit = quote.said, quote.unit.hit
        if any(plain.casefold() in earlier or earlier in plain.casefold() for earlier in said):
            continue
        said.append(plain.casefold())
        number = numbers.setdefault(hit.chunk_id, len(numbers) + 1)
        shown = " ".join(hit.text[quote.unit.start : quote.unit.end].split())
        if number > len(citations):
            citations.append(Citation(number, hit, shown))
        else:
            earlier_one = citations[number - 1]
            citations[number - 1] = replace(earlier_one, quote=f"{earlier_one.quote} … {shown}")
        pieces.append(f"{plain} [{number}]")
    return " ".join(pieces), tuple(citations)
