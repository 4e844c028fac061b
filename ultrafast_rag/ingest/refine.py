"""The sentence encoder's vectors, later: passages that can be found get them when a question is about them, or in their turn.

Nothing is kept of what is still to do but the index itself: a passage without a vector is one. The background goes through
them in their order, in small slices between which a question goes first, and commits a batch at a time, so that a
kill costs one batch at most. What a question encodes is kept in memory until its turn comes, and in the embedding cache.
"""

from __future__ import annotations

import atexit
import math
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ultrafast_rag.errors import IndexLockedError, UltraFastRAGError
from ultrafast_rag.ports import VectorWriter
from ultrafast_rag.types import TEXT_SPACE, Chunk, ChunkIds, Unencoded, Vectors

if TYPE_CHECKING:
    from ultrafast_rag.ingest.chunk import Chunker
    from ultrafast_rag.ingest.embed import Embedded, Embedder

BATCH, COMMIT_S = 256, 10.0  # passages, or seconds, of one commit: what a kill costs at most, and the fsync is not felt
# passages encoded at once at least, one for each of two cores: 256 of them take as long by twos as by eights on a chip where
# either is longer than HOLD_S (AMD Zen 3: 14.7 and 15.3 s, medians of three). Twice as many each time that they took less
# than half of HOLD_S
SLICE = 2
HOLD_S, FOREGROUND_HOLD_S = 0.1, 1.0  # that a question may have to wait; chosen. 256 at once are a quarter faster than 8
GRACE_S = 0.1  # after a question, for the next one
PATIENCE_S = 1.0  # without a slice, however many questions come
KEPT = 4096  # vectors of questions' passages held in memory, 6 MB with MiniLM; the embedding cache holds the others
STATIC = "static-"  # how the spaces of static vectors are named

OnBatch = Callable[[int], object]


class Refiner:
    """`ports.Refinement`. Thread-safe.

    chunker: knows what tokens a stored passage was made of. asking, writing: make what encodes for questions, and for the
    index. background: whether `resume` does anything. on_end: called in the thread that has refined all there was.
    space: that the vectors are kept in; another than the sentence encoder's is filled beside it, by another model.
    """

    def __init__(
        self,
        store: VectorWriter,
        chunker: Callable[[], Chunker],
        *,
        asking: Callable[[], Embedder],
        writing: Callable[[], Embedder],
        background: bool = True,
        on_end: Callable[[], None] = lambda: None,
        space: str = TEXT_SPACE,
    ) -> None:
        self._space = space
        self._store, self._chunker, self._make_asking, self._writing = store, chunker, asking, writing
        self._background, self._on_end = background, on_end
        self._asking: Embedder | None = None
        self._guard, self._turn = threading.RLock(), threading.Lock()
        self._kept: OrderedDict[int, Vectors] = OrderedDict()
        self._stacked: tuple[ChunkIds, Vectors] | None = None
        self._questions, self._asked_at = 0, 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # ---- asked by questions

    def first(self) -> int:
        """As the port says."""
        return self._store.first_without(self._space)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """A question is being answered: the background waits."""
        with self._guard:
            self._questions += 1
        try:
            yield
        finally:
            with self._guard:
                self._questions -= 1
                self._asked_at = time.monotonic()

    def _let_pass(self, stopping: Callable[[], bool]) -> None:
        """Wait while questions are answered, and a moment for the next, but not for ever."""
        until = time.monotonic() + PATIENCE_S
        while (self._questions or time.monotonic() - self._asked_at < GRACE_S) and time.monotonic() < until and not stopping():
            time.sleep(GRACE_S / 20)

    def encode(self, chunk_ids: Sequence[int]) -> int:
        """As the port says."""
        with self._turn:
            passages = self._store.passages([number for number in chunk_ids if number not in self._kept])
            if not passages:
                return 0
            self._asking = self._asking or self._make_asking()
            ids, embedded = self._encoded(self._asking, passages)
            self._asking.remember(embedded)
            with self._guard:
                self._stacked = None
                self._kept |= zip(ids, embedded.vectors[TEXT_SPACE])
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return _computed(embedded)

    def encoded(self, first: int) -> tuple[ChunkIds, Vectors]:
        """As the port says."""
        with self._guard:
            for number in [number for number in self._kept if number < first]:  # the index has them now
                del self._kept[number]
                self._stacked = None
            if self._stacked is None:
                ids = sorted(self._kept)
                vectors = np.stack([self._kept[number] for number in ids]) if ids else np.empty((0, 0), np.float32)
                self._stacked = np.array(ids, np.int64), vectors
            return self._stacked

    def forget(self) -> None:
        """Give the memory of questions' vectors back; the embedding cache keeps them."""
        with self._guard:
            self._kept.clear()
            self._stacked = None

    # ---- in the background

    def resume(self) -> None:
        """As the port says."""
        if self._background:
            self.start()

    def start(self) -> None:
        """Encode what is left, in a thread; nothing happens while one does."""
        with self._guard:
            if self._thread is not None and self._thread.is_alive():
                return
            self._stop.clear()
            atexit.register(self.stop)  # a thread that ends inside an engine takes the process down with a message
            self._thread = threading.Thread(target=self._work, name="ufr-refine", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread after its slice; what it has encoded is committed."""
        self._stop.set()
        atexit.unregister(self.stop)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _work(self) -> None:
        try:
            if self.run(self._stop.is_set):
                self._on_end()
        except IndexLockedError:  # whoever writes refines too; else a later question starts this again
            return
        except UltraFastRAGError as error:  # the edge of a thread: `refine` in the foreground raises it
            warnings.warn(f"passages are not refined further: {error}", RuntimeWarning, stacklevel=1)

    def run(self, stopping: Callable[[], bool], *, on_batch: OnBatch | None = None, hold_s: float = HOLD_S) -> bool:
        """Encode and commit what is left in this thread; True when nothing is.

        hold_s: questions go first, and wait about so long for what is being encoded; infinite: they wait for all of it.
        Raises StorageError, EncodingError, IndexLockedError; what was committed stays.
        """
        embedder, size = self._writing(), SLICE
        while not stopping() and (passages := self._store.passages_without(self._space, BATCH)):
            done: list[tuple[list[int], Embedded]] = []
            left, begun = passages, time.monotonic()
            while left and (not done or time.monotonic() - begun < COMMIT_S):
                if hold_s < math.inf:
                    self._let_pass(stopping)
                if stopping():
                    break
                start = time.perf_counter()
                done.append(self._encoded(embedder, left[:size]))
                left, size = left[size:], _next_size(size, done[-1][1], time.perf_counter() - start, hold_s)
            if not done:
                break
            ids = [number for some, _ in done for number in some]
            self._store.add_vectors(self._space, ids, np.concatenate([embedded.vectors[TEXT_SPACE] for _, embedded in done]))
            for _, embedded in done:
                embedder.remember(embedded)
            if on_batch is not None:
                on_batch(len(ids))
        first = self.first()
        if not first and self._space == TEXT_SPACE:
            self._forget_static()
        return not first

    def _encoded(self, embedder: Embedder, passages: Sequence[Unencoded]) -> tuple[list[int], Embedded]:
        """Ids of the passages, and their vectors in the same order."""
        from ultrafast_rag.ingest.embed import searchable

        chunker = self._chunker()
        from_files = chunker.tokens([(passage.context, passage.text) for passage in passages])
        chunks = [Chunk(passage.text, context=passage.context) for passage in passages]
        whole = chunker.tokenizer.tokenize([searchable(chunk) for chunk in chunks]) if any(p.ready_made for p in passages) else []
        tokens = [tuple(whole[n]) if passage.ready_made else from_files[n] for n, passage in enumerate(passages)]
        sized = [Chunk(chunk.text, context=chunk.context, token_ids=ids) for chunk, ids in zip(chunks, tokens)]
        return [passage.id for passage in passages], embedder.embed(sized)

    def _forget_static(self) -> None:
        """Drop the static vectors of what has better ones."""
        last = self._store.last_with(TEXT_SPACE)
        for space in self._store.spaces():
            if space.startswith(STATIC):
                self._store.drop_vectors(space, up_to=last)


def _next_size(size: int, embedded: Embedded, took_s: float, hold_s: float) -> int:
    """How many passages to encode at once after `size` of them took so long; what the cache held tells nothing."""
    if 2 * _computed(embedded) < size:
        return size
    if took_s > hold_s:
        return max(SLICE, size // 2)
    return min(BATCH, 2 * size) if took_s < hold_s / 2 else size


def _computed(embedded: Embedded) -> int:
    """Of the passages, those that the cache did not hold."""
    return sum(len(keys) for _, keys, _ in embedded.fresh)
