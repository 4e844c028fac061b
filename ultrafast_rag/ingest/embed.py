"""Chunks -> vectors, looking in the cache first and computing each distinct content once.

Two spaces: "text" (the sentence encoder; every chunk with words) and "visual" (CLIP; every chunk
with a picture). A key is the sha256 of what is encoded, so a passage that repeats, in this run or
in any earlier one under the same encoder, costs a look-up.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ultrafast_rag.errors import CorruptError
from ultrafast_rag.monitor import StageClock
from ultrafast_rag.ports import EmbeddingCache, ImageEncoder, StaticEncoder, TextEncoder
from ultrafast_rag.types import TEXT_SPACE, VISUAL_SPACE, Chunk, Vectors

REMEMBERED = 20_000  # vectors of this run kept for content that repeats before the cache has it

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of a sequence of chunks by space: float32 (n, d), and which chunk each row belongs to.

    fresh: what was computed now and is worth caching, as (fingerprint, keys, vectors).
    """

    vectors: dict[str, Vectors] = field(default_factory=dict)
    rows: dict[str, Rows] = field(default_factory=dict)
    fresh: list[tuple[str, list[bytes], Vectors]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def of(self, start: int, stop: int) -> tuple[dict[str, Vectors], dict[str, list[int]]]:
        """Vectors and chunk numbers of chunks start..stop, numbered from 0."""
        vectors, numbers = {}, {}
        for space, rows in self.rows.items():
            inside = slice(*np.searchsorted(rows, [start, stop]))
            if inside.stop > inside.start:
                vectors[space] = self.vectors[space][inside]
                numbers[space] = (rows[inside] - start).tolist()
        return vectors, numbers


class Embedder:
    """Encodes chunks batch by batch, counting what was computed and what was known.

    static: gives passages its vectors, in its own space, in place of the sentence encoder's, which are added later.
    """

    def __init__(
        self,
        text: Callable[[], TextEncoder],
        picture: Callable[[], ImageEncoder | None],
        cache: EmbeddingCache,
        clock: StageClock,
        *,
        static: Callable[[], StaticEncoder] | None = None,
    ) -> None:
        self._text, self._picture, self._cache, self._clock, self._static = text, picture, cache, clock, static
        self._recent: OrderedDict[tuple[str, bytes], Vectors] = OrderedDict()
        self.embedded = self.cache_hits = 0

    def embed(self, chunks: Sequence[Chunk]) -> Embedded:
        """Vectors of the chunks in their order; a picture that cannot be decoded is left out, with a note."""
        result = Embedded()
        worded = [n for n, chunk in enumerate(chunks) if chunk.text.strip()]
        if worded and self._static is not None:
            self._sketch(self._static(), [chunks[n] for n in worded], worded, result)
        elif worded:
            self._embed_texts([chunks[n] for n in worded], worded, result)
        pictured = {n: chunk.data for n, chunk in enumerate(chunks) if chunk.data and chunk.modality in ("image", "video")}
        image_encoder = self._picture() if pictured else None
        if image_encoder is not None:
            self._embed_pictures(image_encoder, pictured, result)
        elif pictured:
            result.notes.append("pictures are found by caption and surrounding text only: no picture model is here")
        return result

    def _embed_texts(self, chunks: Sequence[Chunk], numbers: list[int], result: Embedded) -> None:
        encoder = self._text()

        def encode(missing: list[int]) -> Vectors:
            ids = [chunks[n].token_ids for n in missing]
            if encoder.takes_tokens and all(ids):
                return encoder.encode_tokens(ids)
            return encoder.encode([searchable(chunks[n]) for n in missing])

        keys = [_key(_encoded(chunk) if encoder.takes_tokens else searchable(chunk).encode()) for chunk in chunks]
        with self._clock.stage("encode"):
            vectors = self._lookup(encoder.fingerprint, keys, encode, result)
        result.vectors[TEXT_SPACE], result.rows[TEXT_SPACE] = vectors, np.array(numbers, np.int64)

    def _sketch(self, static: StaticEncoder, chunks: Sequence[Chunk], numbers: list[int], result: Embedded) -> None:
        with self._clock.stage("sketch"):
            vectors = static.encode_tokens([chunk.token_ids for chunk in chunks])
        known = np.flatnonzero(vectors.any(axis=1))  # without a token there is nothing to find but its words
        result.vectors[static.space], result.rows[static.space] = vectors[known], np.array(numbers, np.int64)[known]

    def _embed_pictures(self, image_encoder: ImageEncoder, pictures: dict[int, bytes], result: Embedded) -> None:
        def encode(missing: list[int]) -> Vectors:
            return image_encoder.encode_images([images[n] for n in missing])

        images = list(pictures.values())
        with self._clock.stage("encode pictures"):
            try:
                vectors = self._lookup(image_encoder.fingerprint, [_key(image) for image in images], encode, result)
            except CorruptError:
                # one bad picture must not cost the batch: find it by itself
                pictures = {n: image for n, image in pictures.items() if _decodes(image_encoder, image)}
                result.notes.append(f"{len(images) - len(pictures)} picture(s) could not be decoded")
                images = list(pictures.values())
                if not images:
                    return
                vectors = self._lookup(image_encoder.fingerprint, [_key(image) for image in images], encode, result)
        result.vectors[VISUAL_SPACE], result.rows[VISUAL_SPACE] = vectors, np.array(list(pictures), np.int64)

    def _lookup(self, fingerprint: str, keys: list[bytes], encode: Callable[[list[int]], Vectors], result: Embedded) -> Vectors:
        """A vector per key: from this run, from the cache, or computed once for each distinct key."""
        first: dict[bytes, int] = {}
        for n, key in enumerate(keys):
            first.setdefault(key, n)
        found = {key: self._recent[fingerprint, key] for key in first if (fingerprint, key) in self._recent}
        asked = [key for key in first if key not in found]
        if asked:
            cached = zip(asked, self._cache.get_many(fingerprint, asked))
            found |= {key: vector for key, vector in cached if vector is not None}
        missing = [key for key in first if key not in found]
        if missing:
            vectors = encode([first[key] for key in missing])
            found |= dict(zip(missing, vectors))
            result.fresh.append((fingerprint, missing, vectors))
        self.embedded += len(missing)
        self.cache_hits += len(keys) - len(missing)
        for key in first:
            self._recent[fingerprint, key] = found[key]
        while len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        return np.stack([found[key] for key in keys])

    def remember(self, embedded: Embedded) -> None:
        """Put what was computed into the cache; called after the vectors are committed."""
        for fingerprint, keys, vectors in embedded.fresh:
            self._cache.put_many(fingerprint, keys, vectors)


def searchable(chunk: Chunk) -> str:
    """What is encoded of a chunk: its context, then its text."""
    return f"{chunk.context}\n{chunk.text}" if chunk.context else chunk.text


def _encoded(chunk: Chunk) -> bytes:
    """Exactly what the encoder gets: the tokens where the chunker made them, else the text."""
    if chunk.token_ids:
        return b"tokens" + np.array(chunk.token_ids, "<i4").tobytes()
    return searchable(chunk).encode()


def _key(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _decodes(image_encoder: ImageEncoder, image: bytes) -> bool:
    try:
        image_encoder.encode_images([image])
    except CorruptError:
        return False
    return True
