"""Many small requests for vectors -> few calls of the encoder, and no text encoded twice.

One thread asks the encoder, so any object with `encode(list[str])` will do, thread-safe or not. What is in
memory is answered on the loop itself; all else goes to that thread, which looks into memory and disk once more
before it encodes: a text that two requests want at once is encoded once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ultrafast_rag.errors import ConfigError, EncodingError, UltraFastRAGError
from ultrafast_rag.models.batching import bad_rows
from ultrafast_rag.ports import EmbeddingCache
from ultrafast_rag.types import Vectors

ENTRIES = 10_000  # vectors in memory: 15 MB at 384 dimensions
BATCH_SIZE = 64  # texts that the background queue hands over at once
WAIT_MS = 3.0  # what the first request of a batch waits for others; a short question takes about as long to encode


class Encodes(Protocol):
    """What a BatchEmbedder needs of an encoder; `fingerprint`, where it has one, opens the disk cache to it."""

    def encode(self, texts: list[str], /) -> Any:
        """One row of numbers for each text, in order."""
        ...


@dataclass(slots=True)
class _Request:
    texts: list[str]
    answer: asyncio.Future[Vectors]


class BatchEmbedder:
    """Vectors of texts, asynchronously: memory, then disk, then the encoder in batches.

        embedder = BatchEmbedder(encoder, cache=cache)     # or rag.embedder()
        vector = await embedder.embed_text("one text")     # float32 (d,)
        vectors = await embedder.embed_batch(texts)        # float32 (n, d), in the order of `texts`
        await embedder.start_background_processor()        # gathers concurrent requests from now on
        await embedder.stop_background_processor()         # when all that was asked for is answered

    encoder: any object with `encode(list[str])`. cache: needs an encoder with a `fingerprint`, since vectors of
    different encoders must not be mixed up, and keeps vectors of unit length only. Vectors are given out as the
    encoder makes them, and are copies.
    Raises ConfigError for what is no text, EncodingError where the encoder gives no usable vector: each to the
    caller whose text it was, and to nobody else.
    """

    def __init__(
        self,
        encoder: Encodes,
        *,
        cache: EmbeddingCache | None = None,
        entries: int = ENTRIES,
        batch_size: int = BATCH_SIZE,
        wait_ms: float = WAIT_MS,
    ) -> None:
        if entries < 0 or batch_size < 1 or not wait_ms >= 0:
            raise ConfigError("entries must be at least 0, batch_size at least 1 and wait_ms at least 0")
        self._encoder, self._cache = encoder, cache
        self._fingerprint = str(getattr(encoder, "fingerprint", ""))
        if cache is not None and not self._fingerprint:
            raise ConfigError("an encoder without a fingerprint cannot share a disk cache; leave cache= out")
        self._entries, self._batch_size, self._wait_s = entries, batch_size, wait_ms / 1000
        self._known: OrderedDict[str, Vectors] = OrderedDict()
        self._lock = threading.Lock()  # of what is known and counted
        self._thread = ThreadPoolExecutor(1, "ufr-embed")
        self._queue: list[_Request] = []
        self._processor: asyncio.Task[None] | None = None
        self._arrived, self._full = asyncio.Event(), asyncio.Event()
        self._stopping = False
        self._hits = self._misses = self._batches = self._texts = 0
        self._seconds = 0.0

    # ---- asking

    async def embed_text(self, text: str) -> Vectors:
        """One text's vector, float32 (d,)."""
        vectors: Vectors = (await self._ask([text]))[0]
        return vectors

    async def embed_batch(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, d), one row a text in the order given; (0, 0) for none."""
        if isinstance(texts, str):
            raise ConfigError("embed_batch takes a list of texts; one text goes to embed_text")
        return await self._ask(list(texts))

    async def _ask(self, texts: list[str]) -> Vectors:
        for text in texts:
            if not isinstance(text, str):
                raise ConfigError(f"only texts can be embedded, not {type(text).__name__}")
        if not texts:
            return np.empty((0, 0), np.float32)
        found = self._remembered(texts)
        if len(found) == len(set(texts)):
            with self._lock:
                self._hits += len(texts)
            return np.stack([found[text] for text in texts])
        if self._gathers() and len(texts) < self._batch_size:
            return await self._enqueue(texts)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, texts)

    def _gathers(self) -> bool:
        """Whether the background queue takes requests of the running loop."""
        task = self._processor
        return task is not None and not self._stopping and not task.done() and task.get_loop() is asyncio.get_running_loop()

    # ---- the background queue

    async def start_background_processor(self) -> None:
        """Gather concurrent requests of this loop: up to batch_size texts, or for wait_ms after the first."""
        task = self._processor
        if task is not None and not task.done() and not task.get_loop().is_closed():
            return
        self._arrived, self._full, self._stopping = asyncio.Event(), asyncio.Event(), False
        self._processor = asyncio.get_running_loop().create_task(self._process())

    async def stop_background_processor(self) -> None:
        """Answer what was asked so far, then end; requests from now on go to the encoder one by one."""
        task, self._stopping = self._processor, True
        if task is None:
            return
        self._arrived.set()
        self._full.set()
        await asyncio.shield(task)  # who gives up waiting here does not take the others' answers away
        self._processor = None

    async def _enqueue(self, texts: list[str]) -> Vectors:
        request = _Request(texts, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self._arrived.set()
        if len(self._queue) >= self._batch_size:
            self._full.set()
        return await request.answer

    async def _process(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._queue or not self._stopping:
                await self._arrived.wait()
                if not self._full.is_set() and not self._stopping:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._full.wait(), self._wait_s)
                if batch := self._next_batch():
                    await loop.run_in_executor(self._thread, self._answer, batch, loop)
        finally:  # the loop ends, and with it whoever waits
            for request in self._queue:
                request.answer.cancel()
            self._queue = []

    def _next_batch(self) -> list[_Request]:
        """The oldest requests that fit, without those given up; whoever still waits wakes the next round."""
        waiting = [request for request in self._queue if not request.answer.done()]
        taken, size = 0, 0
        while taken < len(waiting) and (not taken or size + len(waiting[taken].texts) <= self._batch_size):
            size += len(waiting[taken].texts)
            taken += 1
        self._queue = waiting[taken:]
        if len(self._queue) < self._batch_size and not self._stopping:
            self._full.clear()
        if not self._queue and not self._stopping:
            self._arrived.clear()
        return waiting[:taken]

    def _answer(self, batch: list[_Request], loop: asyncio.AbstractEventLoop) -> None:
        """In the encoder's thread: all at once, or, when that fails, each by itself, so that it fails alone."""
        outcomes: list[tuple[_Request, Vectors | None, Exception | None]] = []
        try:
            rows = self._embed([text for request in batch for text in request.texts])
            start = 0
            for request in batch:
                outcomes.append((request, rows[start : start + len(request.texts)].copy(), None))
                start += len(request.texts)
        except Exception as error:  # a stranger's encoder may raise anything; it is handed to whoever asked
            for request in batch:
                outcomes.append((request, *self._alone(request, error if len(batch) == 1 else None)))
        loop.call_soon_threadsafe(_deliver, outcomes)

    def _alone(self, request: _Request, known: Exception | None) -> tuple[Vectors | None, Exception | None]:
        if known is not None:
            return None, known
        try:
            return self._embed(request.texts), None
        except Exception as error:  # as above
            return None, error

    # ---- memory, disk, encoder

    def _remembered(self, texts: Sequence[str]) -> dict[str, Vectors]:
        with self._lock:
            found = {text: self._known[text] for text in texts if text in self._known}
            for text in found:
                self._known.move_to_end(text)
        return found

    def _embed(self, texts: list[str]) -> Vectors:
        """In the encoder's thread: float32 (n, d); every distinct text is looked up, and encoded if it must be, once."""
        found = self._remembered(texts)
        asked = [text for text in dict.fromkeys(texts) if text not in found]
        if asked and self._cache is not None:
            cached = self._cache.get_many(self._fingerprint, [_key(text) for text in asked])
            found |= {text: vector for text, vector in zip(asked, cached) if vector is not None}
        missing = [text for text in asked if text not in found]
        if missing:
            found |= self._encode(missing)
        with self._lock:
            self._hits += len(texts) - len(missing)
            self._misses += len(missing)
            for text in asked:
                self._known[text] = found[text]
            while len(self._known) > self._entries:
                self._known.popitem(last=False)
        return np.stack([found[text] for text in texts])

    def _encode(self, texts: list[str]) -> dict[str, Vectors]:
        start = time.perf_counter()
        try:
            vectors = np.asarray(self._encoder.encode(texts), np.float32)
        except (UltraFastRAGError, MemoryError):
            raise
        except (ValueError, TypeError) as error:
            raise EncodingError(f"the encoder failed on {len(texts)} texts: {error}") from error
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise EncodingError(f"the encoder gave an array of shape {vectors.shape} for {len(texts)} texts")
        usable = np.isfinite(vectors).all(axis=1) & (np.abs(vectors).max(axis=1, initial=0) > 0)
        if not usable.all():
            bad = texts[int(np.flatnonzero(~usable)[0])]
            raise EncodingError(f"the encoder gives no usable vector for {bad[:80]!r}")
        if self._cache is not None and not bad_rows(vectors):  # it keeps directions: others would come back shortened
            self._cache.put_many(self._fingerprint, [_key(text) for text in texts], vectors)
        with self._lock:
            self._batches += 1
            self._texts += len(texts)
            self._seconds += time.perf_counter() - start
        return {text: vector.copy() for text, vector in zip(texts, vectors)}

    # ---- looking, ending

    def get_stats(self) -> dict[str, float]:
        """hits, misses, hit_rate, total (texts asked for), mean_batch_size and mean_ms of the encoder's calls, queue_length."""
        with self._lock:
            total = self._hits + self._misses
            return {
                "hits": self._hits,
                "misses": self._misses,
                "hit_rate": self._hits / total if total else 0.0,
                "total": total,
                "batches": self._batches,
                "mean_batch_size": self._texts / self._batches if self._batches else 0.0,
                "mean_ms": 1000 * self._seconds / self._batches if self._batches else 0.0,
                "queue_length": len(self._queue),
                "entries": len(self._known),
            }

    def close(self) -> None:
        """End the encoder's thread; the embedder cannot be used afterwards."""
        self._thread.shutdown()


def _deliver(outcomes: list[tuple[_Request, Vectors | None, Exception | None]]) -> None:
    for request, rows, error in outcomes:
        if request.answer.done():  # cancelled meanwhile
            continue
        if error is not None:
            request.answer.set_exception(error)
        elif rows is not None:
            request.answer.set_result(rows)


def _key(text: str) -> bytes:
    """sha256 of a text: the key under which an ingest keeps a passage given as text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
