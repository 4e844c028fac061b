"""Who writes the answer, and what happens when that one cannot.

Generators stand in order, cheapest first; the extractive answerer is behind them all and needs
nothing. A generator that fails, for whatever reason, is a note on the answer and never an exception.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ultrafast_rag.answer.prompt import ReplyCleaner
from ultrafast_rag.errors import ConfigError, GenerationError
from ultrafast_rag.language.safetext import quotable
from ultrafast_rag.ports import Generator
from ultrafast_rag.remote.limits import metering
from ultrafast_rag.types import Answer, Hit, Hits

COMPLEX = 0.5  # the middle of `complexity`'s range
_HARD = re.compile(
    r"\b(why|how\s+(?:do|does|did|is|are|can|could|would|should)|compar\w+|differen\w+|differ|versus|vs|explain|summari[sz]e|"
    r"relationship|trade-?offs?|implications?|warum|wieso|weshalb|vergleich\w*|unterschied\w*|erkläre?|pourquoi|expliqu\w+|"
    r"différence|por qué|diferencia|почему|сравни\w*|разниц\w*|объясни\w*)\b|为什么|如何|比较|区别|なぜ|どう",
    re.I,
)


class Extractive(Protocol):
    """The answerer that is always there."""

    def answer(self, question: str, hits: Hits) -> Answer:
        """Cited sentences, or an honest refusal."""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A generator and why it may be asked, in words for `Answer.reason`."""

    generator: Generator
    why: str


def select(
    setting: str, *, gemini: Candidate | None = None, local: Candidate | None = None, legacy: Candidate | None = None
) -> tuple[list[Candidate], str]:
    """Candidates for `Config.generator`, in the order to ask them, and why extractive stands in where none does.

    legacy: Gemini by the client that reached its end of life. Raises ConfigError when the one that is set cannot be had.
    """
    if setting == "extractive":
        return [], "as configured"
    if setting == "auto":
        found = [candidate for candidate in (gemini, local) if candidate]
        return found, "no generator could be asked" if found else "no Gemini key was found and no local model is configured"
    wanted = {"gemini": gemini, "local": local, "legacy-gemini": legacy}
    if setting not in wanted:
        raise ConfigError(
            f"generator must be 'auto', 'extractive', 'gemini', 'legacy-gemini', 'local' or a function, not {setting!r}"
        )
    if (chosen := wanted[setting]) is None:
        how = "no key was found: set GEMINI_API_KEY" if setting != "local" else "set local_model to a model's folder or hub id"
        raise ConfigError(f"generator={setting!r}, but {how}")
    return [chosen], f"{setting} could not be asked"


def complexity(question: str, hits: Sequence[Hit]) -> float:
    """0 to 1: how much putting-together a question asks for, by its words, its length and where its hits lie.

    A rule of thumb without a model, its weights chosen: it only decides which of two generators is asked first.
    """
    words = len(question.split())
    score = 0.45 if _HARD.search(question) else 0.0
    score += 0.25 if question.count("?") + question.count("？") > 1 else 0.0
    score += min(words / 100, 0.3)
    best = hits[0].score if hits else 0.0
    near = {hit.document_id for hit in hits[:5] if hit.score >= 0.9 * best}
    return min(score + 0.05 * max(len(near) - 1, 0), 1.0)


class Answerer:
    """Question and hits -> Answer, by the first candidate that can, else extractive.

    candidates: cheapest first. With two, a complex question starts at the strongest; a simple one
    climbs to it when the cheap reply is unsupported or cites nothing.
    """

    def __init__(
        self, extractive: Extractive, candidates: Sequence[Candidate] = (), *, why_extractive: str = "as configured"
    ) -> None:
        self._extractive, self._candidates, self._why_extractive = extractive, list(candidates), why_extractive

    async def answer(self, question: str, hits: Hits) -> Answer:
        """The whole answer. Never raises GenerationError: what failed is in `notes`."""
        answer: Answer | None = None
        async for piece in self.stream(question, hits):
            if isinstance(piece, Answer):
                answer = piece
        assert answer is not None  # stream ends with one
        return answer

    async def stream(self, question: str, hits: Hits) -> AsyncIterator[str | Answer]:
        """Clean pieces of text as they come, then the Answer, whose text replaces what was shown.

        The two differ where a generator broke off and another took over.
        """
        started = time.perf_counter()
        notes: list[str] = []
        if not hits and self._candidates:
            yield await self._extract(question, hits, started, "nothing was found, so no model was asked", notes)
            return
        order, why = self._order(question, hits)
        weak: Answer | None = None
        for place, candidate in enumerate(order):
            attempt = _Attempt(candidate, question, hits, f"{candidate.why}; {why}" if why else candidate.why)
            climbs = place + 1 < len(order)
            try:
                async for piece in attempt.pieces():
                    if not climbs:  # a cheap reply may yet be replaced: it is shown when it stands
                        yield piece
            except GenerationError as error:
                notes.append(f"{candidate.generator.name} was not used: {error}")
                continue
            answer = attempt.finish(started)
            if climbs and not answer.citations:
                weak, why = answer, f"{candidate.generator.name} found no support"
                continue
            if climbs:
                yield answer.text
            yield dataclasses.replace(answer, notes=(*notes, *answer.notes), fallback=bool(notes))
            return
        if weak is not None:
            yield weak.text
            yield dataclasses.replace(weak, notes=(*notes, *weak.notes), fallback=bool(notes))
            return
        yield await self._extract(question, hits, started, "", notes)

    def _order(self, question: str, hits: Hits) -> tuple[list[Candidate], str]:
        if len(self._candidates) < 2:
            return self._candidates, ""
        if (score := complexity(question, hits)) >= COMPLEX:
            return self._candidates[::-1], f"a complex question ({score:.2f}): the strongest first"
        return self._candidates, f"a simple question ({score:.2f}): the cheapest first"

    async def _extract(self, question: str, hits: Hits, started: float, why: str, notes: list[str]) -> Answer:
        """The extractive answer, made in a thread: its model must not stall what else the loop serves."""
        answer = await asyncio.to_thread(self._extractive.answer, question, _quotable(hits))
        failed = "; ".join(notes)
        return dataclasses.replace(
            _with_originals(answer, hits),
            fallback=bool(notes),
            reason=why or (f"{self._why_extractive}: {failed}" if failed else self._why_extractive),
            notes=(*answer.notes, *notes),
            timings_s={**answer.timings_s, "answer": time.perf_counter() - started},
        )


def _quotable(hits: Hits) -> Hits:
    """The hits as their words may stand in an answer: every [n] that is in it afterwards is our own."""
    clean = hits.copy()
    clean[:] = [
        dataclasses.replace(
            hit,
            text=quotable(hit.text),
            title=quotable(hit.title),
            section=quotable(hit.section),
            neighbours=(quotable(hit.neighbours[0]), quotable(hit.neighbours[1])),
        )
        for hit in hits
    ]
    return clean


def _with_originals(answer: Answer, hits: Hits) -> Answer:
    """An answer made of `_quotable` hits, with the hits as they are stored."""
    stored = {hit.chunk_id: hit for hit in hits}
    own = answer.hits.copy()
    own[:] = [stored.get(hit.chunk_id, hit) for hit in answer.hits]
    citations = tuple(dataclasses.replace(c, hit=stored.get(c.hit.chunk_id, c.hit)) for c in answer.citations)
    return dataclasses.replace(answer, hits=own, citations=citations)


class _Attempt:
    """One candidate's reply, cleaned as it comes."""

    def __init__(self, candidate: Candidate, question: str, hits: Hits, why: str) -> None:
        self._generator, self._question, self._hits, self._why = candidate.generator, question, hits, why
        self._cleaner = ReplyCleaner(hits)
        self._text: list[str] = []
        self._cost_usd = 0.0

    async def pieces(self) -> AsyncIterator[str]:
        source = self._generator.stream(self._question, self._hits)
        with metering() as meter:
            try:
                async for raw in source:
                    if clean := self._cleaner.feed(raw):
                        self._text.append(clean)
                        yield clean
            finally:
                self._cost_usd = meter.cost_usd
                if hasattr(source, "aclose"):
                    await source.aclose()
        if clean := self._cleaner.close():
            self._text.append(clean)
            yield clean
        if not "".join(self._text).strip() and self._cleaner.supported:
            raise GenerationError("the reply was empty")

    def finish(self, started: float) -> Answer:
        notes: list[str] = []
        citations = self._cleaner.citations()
        cited = {citation.hit.chunk_id for citation in citations}
        rest = [hit for hit in self._hits if hit.chunk_id not in cited]
        hits = Hits(
            [*(citation.hit for citation in citations), *rest],
            query=self._hits.query,
            seconds=self._hits.seconds,
            notes=self._hits.notes,
            evidence=self._hits.evidence,
        )
        if self._cleaner.removed:
            notes.append(f"{self._cleaner.removed} links or pictures were taken out of the reply")
        if self._cleaner.supported and not citations:
            notes.append("the reply cites none of the passages: check it against them")
        return Answer(
            self._question,
            "".join(self._text).strip(),
            hits,
            citations,
            supported=self._cleaner.supported,
            generator=self._generator.name,
            reason=self._why,
            cost_usd=self._cost_usd,
            notes=tuple(notes),
            timings_s={"answer": time.perf_counter() - started},
        )
