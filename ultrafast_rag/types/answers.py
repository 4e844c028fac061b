"""What comes back: hits, answers, reports."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ultrafast_rag.types.elements import BBox, ChunkIds, Modality, moments_of
from ultrafast_rag.types.shown import counted, html_of, visible

_BY_CONTENT = re.compile(r"[0-9a-f]{16}")  # how `add_texts` names a text that was given no id


class Words(str):
    """A question that is words only: never taken for the path of a picture, whoever sent it."""

    __slots__ = ()


class Ranking(NamedTuple):
    """Best first; both arrays have the same length."""

    chunk_ids: ChunkIds
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something to look at or listen to: bytes of `media_type`, and where on it the passage is.

    highlight: x0, y0, x1, y1 as fractions of the picture's width and height.
    start_s: where in a clip the passage begins, in seconds from the clip's own start.
    smaller: the same in at most so many bytes, shorter or as a still; None where it cannot be.
    """

    media_type: str
    data: bytes
    highlight: BBox | None = None
    caption: str = ""
    start_s: float = 0.0
    smaller: Callable[[int], Evidence | None] | None = None


EvidenceSource = Callable[["Hit"], "Evidence | None"]


class Leaf(NamedTuple):
    """A whole page to look at. number: 1-based, of: pages in the document; both 0 where it has none."""

    evidence: Evidence | None
    number: int = 0
    of: int = 0


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that answers a query. Score is higher-is-better; dense_score is a cosine.

    dense_score and lexical_score are NaN where that leg knows nothing of the chunk.
    neighbours: text just before and after the passage in its document, for context.
    focus: what of `text` answers, where somebody chose; evidence marks it, and a clip starts there.
    """

    chunk_id: int
    document_id: str
    source: str
    modality: Modality
    text: str
    score: float
    page: int | None = None
    bbox: BBox | None = None
    start_s: float | None = None
    end_s: float | None = None
    dense_score: float = float("nan")
    lexical_score: float = float("nan")
    title: str = ""
    section: str = ""
    neighbours: tuple[str, str] = ("", "")
    metadata: Mapping[str, Any] = field(default_factory=dict)
    focus: str = ""

    @property
    def moment_s(self) -> float | None:
        """The second at which `focus` begins to be said; the passage's first without one."""
        at = self.text.find(self.focus.split(" … ")[0]) if self.focus else -1
        before = [second for first, second in moments_of(self.metadata) if first <= at]
        return before[-1] if before else self.start_s

    @property
    def where(self) -> str:
        """Source and place in words: 'handbook.pdf, page 4' or 'talk.mp3, 1:05'."""
        name = self.source.replace("\\", "/").rsplit("/", 1)[-1]
        if self.source == self.document_id and _BY_CONTENT.fullmatch(name):  # a text added without a name: its start says more
            start = " ".join(visible(self.text).split())
            return f"“{start if len(start) <= 48 else start[:47].rstrip() + '…'}”"
        if (at := self.moment_s) is not None:
            return f"{name}, {int(at) // 60}:{int(at) % 60:02d}"
        return f"{name}, page {self.page}" if self.page is not None else name

    def __str__(self) -> str:
        text = " ".join(visible(self.text).split())
        shown = text if len(text) <= 160 else text[:159] + "…"
        return f"{self.score:.3f}  {visible(self.where)}  [{self.modality}]\n       {shown}"

    def _repr_html_(self) -> str:
        return html_of(self)


class Hits(list[Hit]):
    """Hits, best first; a list that reads well. notes: what the search could not do, in words."""

    def __init__(
        self,
        hits: Iterable[Hit] = (),
        *,
        query: str = "",
        seconds: float = 0.0,
        notes: tuple[str, ...] = (),
        evidence: EvidenceSource | None = None,
    ) -> None:
        super().__init__(hits)
        self.query, self.seconds, self.notes, self.evidence = query, seconds, notes, evidence

    def __str__(self) -> str:
        head = f"{counted(len(self), 'hit')} for {self.query!r} in {self.seconds * 1000:.1f} ms"
        lines = [f"{rank:2d}. {hit}" for rank, hit in enumerate(self, 1)]
        return "\n".join([head, *lines, *(f"note: {note}" for note in self.notes)])

    __repr__ = __str__

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """To pydantic, where a server describes itself with it, a list of hits."""
        return handler.generate_schema(list[Hit])

    def copy(self) -> Hits:
        """Another list of the same hits, query, time, notes and evidence."""
        again = Hits.__new__(Hits)  # a third of the time of a call with all of them, which a hit from memory mostly is
        again.__dict__.update(self.__dict__)
        again.extend(self)
        return again

    def _repr_html_(self) -> str:
        return html_of(self)


class Reading(NamedTuple):
    """What a reader made of one passage for a question.

    start, end: characters of the likeliest answer in the passage's text. answerable: logit that the passage answers the
    question. margin: the span's logits over those of "no answer"; minus infinity where there was nothing to read.
    """

    start: int
    end: int
    answerable: float
    margin: float


@dataclass(frozen=True, slots=True)
class Citation:
    """`[number]` in an answer's text stands for this hit; quote is the supporting passage."""

    number: int
    hit: Hit
    quote: str


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """Text with [1]-style citations into `citations`; hits holds the cited ones first.

    supported: False when nothing in the documents answers the question, and `text` says so.
    support: 0 to 1, the calibrated chance that the documents answer the question as said; None where nobody judged it.
    generator: who wrote it, e.g. "extractive" or "gemini:MODEL"; reason: why that one.
    fallback: True when a generator that should have written it failed; such an answer is not cached.
    """

    question: str
    text: str
    hits: Hits
    citations: tuple[Citation, ...] = ()
    supported: bool = True
    cached: bool = False
    generator: str = "extractive"
    reason: str = ""
    timings_s: Mapping[str, float] = field(default_factory=dict)
    cost_usd: float = 0.0
    notes: tuple[str, ...] = ()
    fallback: bool = False
    support: float | None = None

    def __getitem__(self, key: str) -> Any:
        """answer["answer"] and answer["sources"], for those used to dictionaries."""
        if key == "answer":
            return self.text
        if key == "sources":
            return [citation.hit.where for citation in self.citations]
        if key in self.__slots__:
            return getattr(self, key)
        raise KeyError(key)

    def __str__(self) -> str:
        total_ms = sum(self.timings_s.values()) * 1000
        cites = [f"  [{c.number}] {visible(c.hit.where)}" for c in self.citations]
        cached = ", from the cache" if self.cached else ""
        tail = f"  ({self.generator}{cached}, {total_ms:.0f} ms)"
        return "\n".join(
            [visible(self.text).replace("\r", "\n"), *cites, tail, *(f"  note: {visible(note)}" for note in self.notes)]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_of(self)


@dataclass(frozen=True, slots=True, repr=False)
class IngestReport:
    """What one `ingest` did. failed: (source, why); a source can fail in part and still be indexed.

    complete: False when a time budget or an interrupt left work for the next `ingest`.
    embedded counts vectors computed now, cache_hits those found in the embedding cache.
    refined: share of the index's passages that have their vectors, 0 to 1; the others can be found too (`Config.encode`).
    """

    documents: int = 0
    pages: int = 0
    chunks: int = 0
    embedded: int = 0
    cache_hits: int = 0
    unchanged: int = 0
    failed: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    complete: bool = True
    refined: float = 1.0

    @property
    def pages_per_minute(self) -> float:
        """Pages read in this run over its wall time; 0 when nothing was read."""
        return 60 * self.pages / self.seconds if self.seconds > 0 else 0.0

    def __str__(self) -> str:
        head = (
            f"{counted(self.documents, 'document')}, {counted(self.pages, 'page')}, "
            f"{counted(self.chunks, 'chunk')} in {self.seconds:.2f} s "
            f"({self.pages_per_minute:.0f} pages/min); {self.embedded} embedded, "
            f"{self.cache_hits} from the cache, {counted(self.unchanged, 'document')} unchanged"
        )
        state = [] if self.complete else ["not complete: run the same ingest again to go on"]
        if self.refined < 1:
            state.append(f"searchable in {self.seconds:.2f} s; {self.refined:.0%} refined")
        failed = [visible(f"failed: {source}: {why}") for source, why in self.failed]
        return "\n".join([head, *state, *failed, *(f"note: {visible(note)}" for note in self.notes)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_of(self)


@dataclass(frozen=True, slots=True)
class ProgressState:
    """How far an `ingest` is, as its progress callback gets it.

    parts_total and eta_s are None while the size of the work is not known; seconds counts from the
    start of the run; rss_mb is the memory of this process.
    """

    source: str = ""
    documents: int = 0
    documents_total: int | None = None
    parts: int = 0
    parts_total: int | None = None
    chunks: int = 0
    seconds: float = 0.0
    eta_s: float | None = None
    rss_mb: float = 0.0
    done: bool = False

    @property
    def fraction(self) -> float | None:
        """Share of the work done, 0 to 1; None while unknown."""
        if self.done:
            return 1.0
        if self.parts_total:
            return min(1.0, self.parts / self.parts_total)
        return min(1.0, self.documents / self.documents_total) if self.documents_total else None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens one request was billed for; output_tokens include the model's thinking."""

    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole reply and what it cost; cost_usd is None where the model's price is not known."""

    text: str
    usage: Usage = Usage()
    cost_usd: float | None = None
