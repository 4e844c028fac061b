"""What passes between stages: frozen values, no behaviour beyond reading well.

Knows nothing of models, files or indexes. HTML is drawn by `notebook/display.py`, which registers
itself in `HTML_REPRS` when the package root is imported; without it the plain text is escaped.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Modality = Literal["text", "table", "image", "audio", "video"]
MODALITIES: tuple[Modality, ...] = ("text", "table", "image", "audio", "video")
ElementKind = Literal["heading", "text", "table", "code", "image", "sound", "speech", "frame"]
BBox = tuple[float, float, float, float]
"""x0, y0, x1, y1 in PDF points from the page's top-left corner (pixels for a picture file)."""

Vectors = npt.NDArray[np.float32]
"""float32 (n, d), rows of unit length."""
ChunkIds = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
"""bool (max chunk id + 1,): True where a chunk may be returned."""

Stat = tuple[int, int]
"""Of a file: size in bytes, modification time in ns."""

TEXT_SPACE, VISUAL_SPACE = "text", "visual"
DESCRIBES = "describes"
"""In the metadata of a chunk that stands for another one: that one's id."""
PAGE_HEAD = "page_head"
"""In the metadata of a chunk: the head of its page, as far as the chunk does not say it itself; searched by words only."""

# Tag characters, variation selectors, zero-width and bidirectional controls, soft hyphens, C0/C1: each can
# carry text that no reader sees. Joiners stay after Arabic to Myanmar letters, whose spelling needs them.
_INVISIBLE = re.compile(
    "[\U000e0000-\U000e0fff\ufe00-\ufe0f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\u00ad\u034f\u061c\u115f\u1160"
    "\u17b4\u17b5\u180b-\u180f\u3164\uffa0\ufff9-\ufffb\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|(?<![\u0600-\u109f])[\u200c\u200d]"
)

_BY_CONTENT = re.compile(r"[0-9a-f]{16}")  # how `add_texts` names a text that was given no id

HTML_REPRS: dict[type, Callable[[Any], str]] = {}


def visible(text: str) -> str:
    """`text` without characters that a reader cannot see, or that a terminal obeys."""
    return _INVISIBLE.sub("", text)


def _html_of(value: object) -> str:
    draw = HTML_REPRS.get(type(value))
    return draw(value) if draw else f"<pre>{html.escape(str(value))}</pre>"


class Words(str):
    """A question that is words only: never taken for the path of a picture, whoever sent it."""

    __slots__ = ()


class Ranking(NamedTuple):
    """Best first; both arrays have the same length."""

    chunk_ids: ChunkIds
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Element:
    """One thing on a page or a stretch of sound, in reading order, as an extractor found it.

    text: what a person reads there: a paragraph, table rows, a picture's caption, OCR and
        surrounding text, spoken words. Empty for a "sound" not transcribed yet.
    data: an encoded JPEG or PNG for "image", "frame" and "table" (a crop, where there is one);
        little-endian int16 mono PCM at 16 kHz for "sound".
    page is 1-based; start_s and end_s are seconds from the start of the recording.
    level: heading depth, 1 is the topmost; 0 for everything that is not a heading.
    """

    kind: ElementKind
    text: str
    page: int | None = None
    bbox: BBox | None = None
    start_s: float | None = None
    end_s: float | None = None
    level: int = 0
    data: bytes | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """The unit of progress: a page, a slice of a text file, a window of a recording.

    number: 0-based; an interrupted document resumes at the first number not committed.
    head: the first lines of a page, its running title among them, at most some 260 characters.
    apart: whether the headings of earlier parts do not reach into this one: a slide, a statement under its own title.
    total: parts in the whole document, where the extractor knows it.
    failure: why this part could not be read; the document goes on with the next one.
    notes: what the reader of the report should know, e.g. "page 3 has no text layer".
    """

    number: int
    elements: tuple[Element, ...] = ()
    title: str = ""
    total: int | None = None
    failure: str | None = None
    notes: tuple[str, ...] = ()
    head: str = ""
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """Words heard between two moments, in seconds from the start of the recording."""

    start_s: float
    end_s: float
    text: str
    language: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage that is encoded, indexed and shown.

    id: given by the store when committed; 0 before.
    context: document title and section path; encoded and searched with the text, never shown as it.
    token_ids: the encoder's own tokens of context and text without special tokens; () once stored.
    data: encoded JPEG or PNG of an "image" or "video" chunk, kept as an asset; None when read back
        (ask the store for the asset by `asset`, its sha256 in hex).
    """

    text: str
    modality: Modality = "text"
    id: int = 0
    document_id: str = ""
    source: str = ""
    ordinal: int = 0
    part: int = 0
    context: str = ""
    page: int | None = None
    bbox: BBox | None = None
    start_s: float | None = None
    end_s: float | None = None
    token_ids: tuple[int, ...] = ()
    data: bytes | None = None
    asset: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """A source as the index knows it. `complete` is False while pages are still to come."""

    id: str
    source: str
    title: str = ""
    media_type: str = ""
    content_hash: str = ""
    parts: int = 0
    chunks: int = 0
    complete: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """A document about to be read. document_id: None takes one derived from `source`."""

    source: str
    content_hash: str
    stat: Stat = (0, 0)
    media_type: str = ""
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    document_id: str | None = None

    @property
    def id(self) -> str:
        """The document's id: the given one, else 16 hex digits of the source's SHA-256."""
        return self.document_id or hashlib.sha256(self.source.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Unencoded(NamedTuple):
    """What is encoded of a stored chunk. ready_made: it came as a passage (`add_texts`), not out of a file."""

    id: int
    context: str
    text: str
    ready_made: bool


Passage = tuple[Record, Chunk]
"""A document of one chunk; the record's content hash tells whether it changed."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where to go on with a document. section: the heading path when the last part ended.

    state: "unchanged" needs no work; "resume" goes on at next_part; "replace" has an older version
    that stays searchable until `finish`.
    """

    document_key: int
    document_id: str
    next_part: int
    section: str
    state: Literal["new", "resume", "unchanged", "replace"]


@dataclass(frozen=True, slots=True)
class PartCommit:
    """One part ready to be stored.

    vectors: float (n, d) per space; vector_chunks: for each of those rows, its index into `chunks` (a
    chunk may have no vector, one or several). final: the document ends with this part.
    """

    document_key: int
    part_number: int
    chunks: Sequence[Chunk] = ()
    vectors: Mapping[str, Vectors] = field(default_factory=dict)
    vector_chunks: Mapping[str, Sequence[int]] = field(default_factory=dict)
    title: str = ""
    total: int | None = None
    section: str = ""
    failure: str | None = None
    final: bool = False


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


MOMENTS = "heard_at"
"""Key of a spoken chunk's metadata: [[first character, second], ...] of each stretch that was heard as one."""


def moments_of(metadata: Mapping[str, Any]) -> list[tuple[int, float]]:
    """(first character, second) of each stretch, in order; [] where the metadata holds none, or something else."""
    rows = metadata.get(MOMENTS)
    if not isinstance(rows, list) or not all(isinstance(row, (list, tuple)) and len(row) == 2 for row in rows):
        return []
    if not all(isinstance(value, (int, float)) and 0 <= value < 1e9 for row in rows for value in row):
        return []
    return sorted((int(first), float(second)) for first, second in rows)


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
        return _html_of(self)


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
        head = f"{len(self)} hits for {self.query!r} in {self.seconds * 1000:.1f} ms"
        lines = [f"{rank:2d}. {hit}" for rank, hit in enumerate(self, 1)]
        return "\n".join([head, *lines, *(f"note: {note}" for note in self.notes)])

    __repr__ = __str__

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """To pydantic, where a server describes itself with it, a list of hits."""
        return handler.generate_schema(list[Hit])

    def copy(self) -> Hits:
        """Another list of the same hits, query, time, notes and evidence."""
        return Hits(self, query=self.query, seconds=self.seconds, notes=self.notes, evidence=self.evidence)

    def _repr_html_(self) -> str:
        return _html_of(self)


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
        return _html_of(self)


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
            f"{self.documents} documents, {self.pages} pages, {self.chunks} chunks in {self.seconds:.2f} s "
            f"({self.pages_per_minute:.0f} pages/min); {self.embedded} embedded, "
            f"{self.cache_hits} from the cache, {self.unchanged} documents unchanged"
        )
        state = [] if self.complete else ["not complete: run the same ingest again to go on"]
        if self.refined < 1:
            state.append(f"searchable in {self.seconds:.2f} s; {self.refined:.0%} refined")
        failed = [visible(f"failed: {source}: {why}") for source, why in self.failed]
        return "\n".join([head, *state, *failed, *(f"note: {visible(note)}" for note in self.notes)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return _html_of(self)


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


def cell_text(value: object) -> str:
    """A table cell in words: three significant digits for a fraction, thousands set apart, "" for None."""
    if value is None:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}" if abs(int(value)) >= 10_000 else str(int(value))
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if number != number:
            return "–"
        return cell_text(round(number)) if abs(number) >= 1000 and abs(number) < 1e15 else f"{number:.3g}"
    return str(value)


class Table(list[Mapping[str, Any]]):
    """Rows that read well: a list of mappings from column to value. Columns come in order of first sight.

    bars: columns of non-negative numbers that are also drawn as bars in HTML.
    """

    def __init__(
        self, rows: Iterable[Mapping[str, Any]] = (), title: str = "", *, notes: tuple[str, ...] = (), bars: tuple[str, ...] = ()
    ) -> None:
        super().__init__(rows)
        self.title, self.notes, self.bars = title, notes, bars

    @property
    def columns(self) -> list[str]:
        """Every column of any row, in order of first sight."""
        return list(dict.fromkeys(str(name) for row in self for name in row))

    def __str__(self) -> str:
        columns = self.columns
        cells = [[" ".join(visible(cell_text(row.get(name))).split()) for name in columns] for row in self]
        widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(columns)] if cells else []
        numeric = [all(isinstance(row.get(name), (int, float, type(None))) for row in self) for name in columns]

        def line(row: list[str]) -> str:
            padded = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric))
            return "  ".join(padded).rstrip()

        body = [line(columns), "  ".join("-" * w for w in widths), *map(line, cells)] if cells else ["(no rows)"]
        return "\n".join([*([self.title] if self.title else []), *body, *(f"note: {note}" for note in self.notes)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return _html_of(self)


class Documents(list[Document]):
    """Documents that read well: a list, shown as a table."""

    def table(self) -> Table:
        """One row a document."""
        rows = [
            {
                "document": document.source.replace("\\", "/").rsplit("/", 1)[-1],
                "title": document.title,
                "type": document.media_type,
                "pages": document.parts,
                "passages": document.chunks,
                "complete": document.complete,
            }
            for document in self
        ]
        return Table(rows, f"{len(self)} documents")

    def __str__(self) -> str:
        return str(self.table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


class Facts(dict[str, Any]):
    """What `stats` tells: a dictionary, shown as a table; what is nested is told in one line."""

    def table(self) -> Table:
        """One row a fact."""
        return Table([{"what": name.replace("_", " "), "value": _told(value)} for name, value in self.items()], "stats")

    def __str__(self) -> str:
        return str(self.table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def _told(value: object) -> object:
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_told(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(str(_told(item)) for item in value)
    return cell_text(value)


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
