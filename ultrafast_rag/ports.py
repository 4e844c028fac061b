"""What a stage may ask of another: Protocols, filled by `rag.py`.

Stages never import one another; what one needs arrives as one of these in its constructor.
Vectors are float32 with rows of unit length. A `space` names what makes vectors comparable (weights by
content, pooling, limit, prompts), whatever engine made them; a `fingerprint` also names the engine, so
it is part of every cache key: a float32 index is never handed int8 vectors of an earlier session.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ultrafast_rag.types import (
    Chunk,
    ChunkIds,
    Completion,
    Document,
    Hit,
    Mask,
    Near,
    Part,
    PartCommit,
    Point,
    Progress,
    Ranking,
    Reading,
    Record,
    Segment,
    Stat,
    Unencoded,
    Vectors,
)


class Extractor(Protocol):
    """Bytes on disk -> a stream of parts."""

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """Yield parts from number `start_part` on; raise ExtractionError if the file cannot be opened.

        A part that cannot be read is yielded with `failure` set.
        """
        ...


class Facts(Protocol):
    """Small JSON values that an index keeps about itself."""

    def get_meta(self, name: str, default: Any = None) -> Any:
        """The value, or `default`."""
        ...

    def set_meta(self, name: str, value: Any) -> None:
        """Keep a value, durably."""
        ...


class Tokenizer(Protocol):
    """The encoder's own tokens, so that a chunk is tokenized once."""

    max_tokens: int
    """Longest input in tokens, special tokens included."""

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens, not truncated."""
        ...


class TextEncoder(Tokenizer, Protocol):
    """Passages and questions -> vectors."""

    fingerprint: str
    space: str
    dim: int
    takes_tokens: bool
    """Whether `tokenize`'s output says all that is encoded; else passages are given as text."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows; texts over the limit are truncated to it."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """As `encode`, for questions: with the model's own prompt before them, where it has one."""
        ...

    def encode_tokens(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
        """As `encode`, from `tokenize`'s output; special tokens are added here."""
        ...

    def known_share(self, text: str) -> float:
        """Share of the text's letters that stand in whole words or pieces of words that the vocabulary knows, 0 to 1."""
        ...


class StaticEncoder(Protocol):
    """Tokens -> vectors without a network: rough, and at once."""

    space: str
    """Name of the vector space in an index; another table has another."""

    def encode_tokens(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
        """float32 (n, dim), unit rows; zeros for a text without tokens."""
        ...


class Refinement(Protocol):
    """Passages that can be found, but have no vector of the sentence encoder yet."""

    def first(self) -> int:
        """Id of the first of them: all later ones have none either; 0 when there is none."""
        ...

    def encode(self, chunk_ids: Sequence[int]) -> int:
        """Encode these now and keep their vectors at hand; how many had to be computed."""
        ...

    def encoded(self, first: int) -> tuple[ChunkIds, Vectors]:
        """Ids from `first` on whose vectors are at hand, rising, and their vectors."""
        ...

    def resume(self) -> None:
        """Go on with the others in the background, where that is wanted."""
        ...


class ImageEncoder(Protocol):
    """Pictures and texts -> one space."""

    fingerprint: str
    space: str
    dim: int

    def encode_images(self, images: Sequence[bytes]) -> Vectors:
        """float32 (n, dim), unit rows, from encoded JPEG, PNG or WebP bytes; CorruptError if one cannot be decoded."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows; texts over the tower's limit are truncated."""
        ...


class Transcriber(Protocol):
    """Sound -> words with times. windows: how many sounds are worth giving at once."""

    fingerprint: str
    windows: int

    def transcribe_many(self, sounds: Sequence[bytes], *, language: str | None = None) -> list[list[Segment]]:
        """Segments of each sound, little-endian int16 mono PCM at 16 kHz, timed from its own start; [] for silence."""
        ...


class Reranker(Protocol):
    """Question and passages -> one score each, higher is better."""

    fingerprint: str

    def score(self, question: str, passages: Sequence[str]) -> Sequence[float]:
        """One score a passage, in order."""
        ...


class Reader(Protocol):
    """Question and passages -> where each passage answers it."""

    fingerprint: str

    def reads(self, question: str) -> bool:
        """Whether the question is in a language that the reader knows."""
        ...

    def read(self, question: str, passages: Sequence[tuple[str, str]]) -> list[Reading]:
        """One reading per passage, in order; a passage is (title and headings, text)."""
        ...


class ModelHolder(Protocol):
    """Keeps models within a device's memory; one that is not in use may be let go, and is loaded again when next used."""

    def register(self, name: str, load: Callable[[], Any], *, size_bytes: int) -> None:
        """Make a model known; nothing is loaded yet."""
        ...

    def lease(self, name: str) -> AbstractContextManager[Any]:
        """The model for as long as the block runs."""
        ...

    def release(self, name: str) -> bool:
        """Let it go now."""
        ...


class VectorIndex(Protocol):
    """Nearest chunks by cosine in one space."""

    def search(self, vector: Vectors, k: int, *, allowed: Mask | None = None) -> Ranking:
        """The k best chunks for one query (d,), best first, scored by exact cosine; fewer if fewer exist."""
        ...

    def score(self, vector: Vectors, chunk_ids: ChunkIds) -> Vectors:
        """Exact cosine of the query with each chunk, float32 (n,); NaN where a chunk has no vector here."""
        ...


class VectorStore(Protocol):
    """Vectors and payloads kept by another engine or server, one collection each. The truth stays in the index.

    Every call may raise VectorStoreError; what `capabilities` lacks is a ConfigError when asked for, never left out silently.
    """

    capabilities: frozenset[str]
    """Of "filter", "words" (hybrid search), "alpha" (which weighs its two sides), "int8" (scalar quantization, rescored),
    "persistent", "parallel"."""

    def add(self, points: Sequence[Point], *, quiet: bool = True) -> None:
        """Insert, or replace those of the same id; again with the same points changes nothing."""
        ...

    def delete(self, ids: Sequence[int]) -> None:
        """Remove points; those that are not there are passed over."""
        ...

    def search(
        self,
        vector: Vectors,
        k: int,
        *,
        filters: Mapping[str, Any] | None = None,
        words: Sequence[tuple[int, float]] = (),
        alpha: float | None = None,
    ) -> list[Near]:
        """The k nearest by cosine, best first. filters: field -> value or list of values, all must hold.

        words: also by these. alpha: meaning's share of the score then, 0 to 1; None: as the store does it.
        """
        ...

    def ids(self) -> set[int]:
        """Every point's id."""
        ...

    def close(self) -> None:
        """Let go of it; what is persistent stays."""
        ...


class PartialLeg(VectorIndex, Protocol):
    """A dense leg that lacks the vectors of some passages."""

    first: int
    """A chunk before this one has no score only where it has no words; one from it on, where its turn has not come."""


class PartialDense(Protocol):
    """Makes the dense leg for a question while some passages have no vector."""

    def leg(
        self,
        query: str,
        encoder: TextEncoder,
        words: Ranking,
        named: Vectors | None,
        *,
        alpha: float,
        k: int,
        allowed: Mask | None,
    ) -> PartialLeg | None:
        """A leg that knows the likeliest of them, encoded now; None when all have vectors.

        words: the lexical leg's ranking. named: as `FileNames.named` gives it.
        """
        ...


class LexicalIndex(Protocol):
    """Chunks by words, BM25."""

    def search(self, query: str, k: int, *, allowed: Mask | None = None) -> Ranking:
        """The k best chunks that share a term with the query, best first."""
        ...

    def score(self, query: str, chunk_ids: ChunkIds) -> Vectors:
        """BM25 of each chunk, float32 (n,); 0 where no term is shared."""
        ...


class FileNames(Protocol):
    """Which documents a question names."""

    def named(self, query: str) -> Vectors | None:
        """How clearly a question names the file of each chunk: float32 (max chunk id + 1,), 0 to 1; None where it names none."""
        ...


class WordWeights(Protocol):
    """How telling each word of a text is."""

    def weights(self, text: str) -> Mapping[str, float]:
        """Each distinct content term (stemmed as the index stems it) -> its idf, > 0; an unseen term has the highest."""
        ...


class ChunkReader(Protocol):
    """What search needs of the store."""

    def chunks(self, chunk_ids: Sequence[int]) -> list[Chunk]:
        """Committed, visible chunks in the order asked; ids that are gone are left out."""
        ...

    def allowed(self, filters: Mapping[str, Any]) -> Mask:
        """Visible chunks that match every filter (document fields, modality, page, metadata)."""
        ...

    def neighbours(self, chunk: Chunk) -> tuple[str, str]:
        """Text of the chunk before and after in the same document; "" at its ends."""
        ...

    def document(self, document_id: str) -> Document | None:
        """The document's record, or None."""
        ...


class DocumentReader(ChunkReader, Protocol):
    """What evidence and enrichment need of the store besides."""

    def iter_texts(self, after_chunk_id: int = 0) -> Iterator[tuple[int, str]]:
        """(chunk id, context and text) in id order; documents not yet visible are included."""
        ...

    def asset(self, sha256: str) -> bytes | None:
        """The stored picture with this hash, or None."""
        ...

    def unchanged(self, source: str, stat: Stat) -> bool:
        """Whether a complete document has this source, size and modification time."""
        ...


class DocumentWriter(Protocol):
    """What ingestion needs of the store. Each call is one durable transaction; StorageError when the disk refuses."""

    @property
    def folder(self) -> Path:
        """The index folder, in which nothing is ingested."""
        ...

    def documents_by_stat(self, sources: Iterable[str]) -> dict[str, Stat]:
        """Size and time of the complete ones among these sources."""
        ...

    def begin_many(self, sources: Sequence[Record]) -> list[Progress]:
        """Say that documents are about to be read, and where to go on with each."""
        ...

    def move(self, source: Record) -> bool:
        """Take a source for the new place of a document of the same content whose file is gone from its old one."""
        ...

    def commit(self, batch: Sequence[PartCommit]) -> list[list[int]]:
        """Store parts; returns each part's new chunk ids."""
        ...

    def finish(self, *document_keys: int) -> None:
        """Mark documents complete; a replacement takes its old version's place."""
        ...

    def fail(self, document_key: int) -> None:
        """Give up a document that cannot be read."""
        ...


class VectorWriter(Protocol):
    """What refinement needs of the store: passages without a vector come after all that have one."""

    def first_without(self, space: str) -> int:
        """The first chunk with words that has no vector in this space; 0 when all have."""
        ...

    def last_with(self, space: str) -> int:
        """The last chunk that has one; 0 when none has."""
        ...

    def passages_without(self, space: str, limit: int) -> list[Unencoded]:
        """The first of those without, in order, those not yet visible too."""
        ...

    def passages(self, chunk_ids: Sequence[int]) -> list[Unencoded]:
        """These, in the order of their ids; those without words, or gone, are left out."""
        ...

    def add_vectors(self, space: str, chunk_ids: Sequence[int], vectors: Vectors) -> int:
        """Give stored chunks their vectors; returns how many were kept: not those that are gone or have one."""
        ...

    def spaces(self) -> list[str]:
        """Names of the vector spaces."""
        ...

    def drop_vectors(self, space: str, *, up_to: int) -> None:
        """Forget a space's vectors of the chunks up to this one."""
        ...


class EmbeddingCache(Protocol):
    """Vectors by content: get many, put many."""

    def get_many(self, fingerprint: str, keys: Sequence[bytes]) -> list[Vectors | None]:
        """A float32 (d,) vector per key, None where it is not known or fails its checksum."""
        ...

    def put_many(self, fingerprint: str, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Remember float32 (n, d); a disk that refuses is a warning, never an error."""
        ...


@runtime_checkable
class Generator(Protocol):
    """Question and numbered sources -> text with [n] citations."""

    name: str

    def stream(self, question: str, hits: Sequence[Hit]) -> AsyncIterator[str]:
        """Pieces of the answer as they come; raises GenerationError."""
        ...


class StructuredModel(Protocol):
    """A model that fills a form: what enrichment needs of one."""

    name: str

    async def complete(self, system: str, prompt: str, *, schema: type[Any], images: Sequence[bytes] = ()) -> Completion:
        """One reply whose text is JSON of the pydantic model `schema`; raises GenerationError."""
        ...


class ResultTier(Protocol):
    """A slower place for entries that outlives this process or serves several."""

    def read(self, scope: str, name: bytes) -> bytes | None:
        """The entry, or None where it is not known or the tier cannot be asked now."""
        ...

    def write(self, scope: str, name: bytes, value: bytes) -> None:
        """Keep an entry for the tier's lifetime of entries."""
        ...

    def drop(self, scope: str) -> None:
        """Forget what one index has here."""
        ...

    def health(self) -> str:
        """The word "ok", or why it cannot be used."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...
