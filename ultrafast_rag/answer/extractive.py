"""Hits -> an answer made of the documents' own sentences, each cited; or an honest "not found".

Needs no model but the sentence encoder, so it is always there. A sentence is scored by meaning
(cosine to the question) and by the question's telling words that it holds (idf-weighted coverage);
the same two numbers, of the whole passage, decide whether anything supports an answer at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ultrafast_rag.language.sentences import split_sentences
from ultrafast_rag.ports import TextEncoder, WordWeights
from ultrafast_rag.types import Answer, Citation, Hit, Hits, Vectors

NOT_FOUND = "Not found in these documents."
# Measured by `bench support` (300 questions of each kind, squad2, half of its articles indexed; data/benchmarks/support.json)
MAX_SENTENCES = 3
NEAR_BEST = 0.8  # of the best sentence's score: 1.6 sentences a reply, 91 % hold the answer; the best alone 82 %
PASSAGES = 5
MEANING = 0.5  # weight of the cosine, the rest is coverage: the two alone separate worse (0.96 and 0.92 against 0.98)
# 98 % of answerable questions are above, 3 % of those whose article is not indexed; questions written to look
# answerable by a paragraph that is there (SQuAD 2.0's) are above as well, in nine of ten cases: choosing sentences cannot tell
SUPPORT = 0.42


@dataclass(frozen=True, slots=True)
class Scored:
    """A sentence that could be quoted. place: rank of its hit, and which of its sentences, from 0.

    cosine: to the question, cut at 0.  coverage: share of the question's idf that its words hold.  score: of both.
    """

    hit: Hit
    text: str
    cosine: float
    coverage: float
    place: tuple[int, int]

    @property
    def score(self) -> float:
        """0 to 1."""
        return MEANING * self.cosine + (1 - MEANING) * self.coverage


class ExtractiveAnswerer:
    """Chooses and cites sentences. encoder and words arrive as ports; both must know the index's language."""

    name = "extractive"

    def __init__(self, encoder: Callable[[], TextEncoder], words: WordWeights) -> None:
        self._encoder, self._words = encoder, words

    def answer(self, question: str, hits: Hits) -> Answer:
        """Up to three sentences of the best hits with [n] citations; `supported` is False when none fits."""
        start = time.perf_counter()
        scored = self.score(question, hits[:PASSAGES])
        best = max((s.score for s in scored), default=0.0)
        if best < SUPPORT:
            text = NOT_FOUND if not hits else f"{NOT_FOUND} The nearest passages are listed, but none answers the question."
            return Answer(question, text, hits, supported=False, timings_s={"answer": time.perf_counter() - start})
        chosen = sorted(scored, key=lambda s: -s.score)[:MAX_SENTENCES]
        chosen = sorted((s for s in chosen if s.score >= NEAR_BEST * best), key=lambda s: s.place)
        text, citations = _write(chosen)
        cited = {c.hit.chunk_id for c in citations}
        ordered = [c.hit for c in citations] + [h for h in hits if h.chunk_id not in cited]
        again = Hits(ordered, query=hits.query, seconds=hits.seconds, notes=hits.notes, evidence=hits.evidence)
        return Answer(question, text, again, citations, timings_s={"answer": time.perf_counter() - start})

    def score(self, question: str, hits: Sequence[Hit]) -> list[Scored]:
        """Every sentence of the hits with its two numbers, in reading order."""
        wanted = self._words.weights(question)
        total = sum(wanted.values())
        units = [(hit, text, (rank, n)) for rank, hit in enumerate(hits) for n, text in enumerate(_units(hit))]
        if not units:
            return []
        shown = [f"{hit.section}: {text}" if hit.section else text for hit, text, _ in units]
        encoder = self._encoder()
        asked: Vectors = encoder.encode_queries([question])
        cosines = encoder.encode(shown) @ asked[0]
        scored = []
        for (hit, text, place), cosine in zip(units, cosines):
            held = self._words.weights(f"{hit.title} {hit.section} {text}")
            coverage = sum(weight for term, weight in wanted.items() if term in held) / total if total else 0.0
            scored.append(Scored(hit, text, float(np.clip(cosine, 0, 1)), coverage, place))
        return scored


def _units(hit: Hit) -> list[str]:
    """What can be quoted of a hit: sentences of prose and speech, rows of a table, a picture's caption."""
    if hit.modality == "table":
        header, *rows = hit.text.split("\n")
        return [f"{header}: {row}" for row in rows] or [header]
    if hit.modality == "image" or "language" in hit.metadata:
        return [hit.text] if hit.text.strip() else []
    return split_sentences(hit.text)


def _write(chosen: Sequence[Scored]) -> tuple[str, tuple[Citation, ...]]:
    """Sentences with [n] after each; one number a hit, in order of first use; repeats said once."""
    numbers: dict[int, int] = {}
    citations: list[Citation] = []
    pieces: list[str] = []
    said: list[str] = []
    for sentence in chosen:
        plain = " ".join(sentence.text.split())
        if any(plain.casefold() in earlier or earlier in plain.casefold() for earlier in said):
            continue
        said.append(plain.casefold())
        number = numbers.setdefault(sentence.hit.chunk_id, len(numbers) + 1)
        if number > len(citations):
            citations.append(Citation(number, sentence.hit, plain))
        else:
            earlier = citations[number - 1]
            citations[number - 1] = replace(earlier, quote=f"{earlier.quote} … {plain}")
        pieces.append(f"{plain} [{number}]")
    return " ".join(pieces), tuple(citations)
