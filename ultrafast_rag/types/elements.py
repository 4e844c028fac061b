"""What comes out of files and goes into the index."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class Point:
    """What a vector store keeps of a passage. vector: float32 (d,); words: (term number, weight), for stores that take them.

    payload: JSON values to filter by. The passage itself stays in the index.
    """

    id: int
    vector: Vectors
    payload: Mapping[str, Any] = field(default_factory=dict)
    words: Sequence[tuple[int, float]] = ()


class Near(NamedTuple):
    """A point that a vector store found. score: cosine, or a fusion's own where words were asked too; higher is better."""

    id: int
    score: float
    payload: Mapping[str, Any]


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
