"""The dense leg whose candidates come from a vector store, scored again from the index's own vectors.

The store is derived, as a FAISS file is: before it is asked it is brought up to what is committed, by the difference
of ids, so that a lost, emptied or half-filled store mends itself. When it cannot be asked, the exact scan of our own
vectors answers, slower, and `info` and one warning say so.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.errors import VectorStoreError
from ultrafast_rag.index.dense import DenseIndex
from ultrafast_rag.index.store import Store
from ultrafast_rag.ports import VectorStore
from ultrafast_rag.types import ChunkIds, Mask, Point, Ranking, Vectors

ROWS_EACH = 256  # vectors a chunk may have; a point's id is its chunk's times this, and which of its vectors it is
AT_ONCE = 8192  # points made and handed over at once
MOVED = "moved"  # fact of an index: how often its passages were given another text model's vectors
DEEPEST = 10_000  # candidates asked for before a strict filter is answered by our own scan
_log = logging.getLogger("ultrafast_rag")


class ElsewhereIndex(DenseIndex):
    """`ports.VectorIndex` over a vector store. open_store: (collection, dimension) -> the store, made at first use."""

    def __init__(
        self,
        store: Store,
        space: str,
        *,
        folder: Path | None,
        name: str,
        open_store: Callable[[str, int], VectorStore],
        quiet: bool = True,
    ) -> None:
        super().__init__(store, space, kind="exact", folder=folder)
        self.info = {"kind": name, "reason": "not asked yet"}
        self._name, self._open, self._quiet = name, open_store, quiet
        self._elsewhere: VectorStore | None = None
        self._synced = -1
        self._syncing = threading.Lock()
        self._said = False

    def build(self) -> dict[str, Any]:
        """Bring the store up to what is committed; returns `info`."""
        self._ready()
        return self.info

    def search(self, vector: Vectors, k: int, *, allowed: Mask | None = None) -> Ranking:
        """As `DenseIndex.search`: the store's candidates, each with the exact cosine of what we hold."""
        elsewhere = self._ready() if k >= 1 else None
        if elsewhere is None:
            return super().search(vector, k, allowed=allowed)
        alive = self.store.alive() if allowed is None else allowed
        wanted = min(k, int(np.count_nonzero(alive)))
        limit, known = 2 * k, -1
        while limit <= DEEPEST:
            try:
                found = elsewhere.search(vector, limit)
            except VectorStoreError as error:
                self._say(error)
                return super().search(vector, k, allowed=allowed)
            chunk_ids = np.unique(np.array([near.id // ROWS_EACH for near in found], np.int64))
            chunk_ids = chunk_ids[(chunk_ids < len(alive)) & alive[np.minimum(chunk_ids, len(alive) - 1)]]
            if len(chunk_ids) >= wanted or len(found) == known:
                return self._best(vector, chunk_ids, k)
            limit, known = 4 * limit, len(found)
        return super().search(vector, k, allowed=allowed)

    def _best(self, vector: Vectors, chunk_ids: ChunkIds, k: int) -> Ranking:
        scores = self.score(vector, chunk_ids)
        order = np.argsort(-scores, kind="stable")[: min(k, int(np.count_nonzero(~np.isnan(scores))))]  # NaN sorts last
        return Ranking(chunk_ids[order], scores[order])

    def _ready(self) -> VectorStore | None:
        """The store, holding exactly what is committed; None when it cannot be asked, or there is nothing to ask."""
        generation = self.store.generation
        if generation == self._synced:
            return self._elsewhere
        with self._syncing:
            try:
                self._sync()
            except VectorStoreError as error:
                self._say(error)
                return None
            self._synced = generation
        return self._elsewhere

    def _sync(self) -> None:
        view, alive = self.store.vectors(self.space), self.store.alive()
        owners = view.chunk_ids.astype(np.int64)
        if not len(owners):
            return
        if self._elsewhere is None:
            self._elsewhere = self._open(self._collection(), view.vectors.shape[1])
        nth = np.arange(len(owners)) - np.searchsorted(owners, owners, "left")
        points = owners * ROWS_EACH + np.minimum(nth, ROWS_EACH - 1)
        there = self._elsewhere.ids()
        kept = (owners < len(alive)) & alive[np.minimum(owners, len(alive) - 1)]
        missing = np.flatnonzero(kept & ~np.isin(points, np.fromiter(there, np.int64, len(there))))
        for at in range(0, len(missing), AT_ONCE):
            rows = missing[at : at + AT_ONCE]
            self._elsewhere.add(self._points(points[rows], owners[rows], view.take(rows)), quiet=self._quiet)
        gone = there - set(points[kept].tolist())
        if gone:
            self._elsewhere.delete(sorted(gone))
        able = ", ".join(sorted(self._elsewhere.capabilities))
        self.info = {"kind": self._name, "rows": int(kept.sum()), "reason": f"asked for; it can: {able}"}

    def _collection(self) -> str:
        """Of this index in this place: a copy of it elsewhere, from an archive, has another and takes nothing from this one."""
        place = f"{self.store.uid}\0{self.store.folder}\0{platform.node()}"
        if moved := self.store.get_meta(MOVED, 0):  # the same ids have other vectors since
            place += f"\0{moved}"
        return f"ufr-{hashlib.sha256(place.encode()).hexdigest()[:24]}-{self.space}"

    def _points(self, ids: ChunkIds, owners: ChunkIds, vectors: Vectors) -> list[Point]:
        about = {
            chunk.id: {"document": chunk.document_id, "modality": chunk.modality, "page": chunk.page}
            for chunk in self.store.chunks(sorted({int(owner) for owner in owners}))
        }
        return [Point(int(i), vector, about.get(int(owner), {})) for i, owner, vector in zip(ids, owners, vectors)]

    def _say(self, error: VectorStoreError) -> None:
        self.info = {"kind": "exact", "reason": f"{error}; our own vectors are scanned instead"}
        if not self._said:
            self._said = True
            _log.warning("%s; our own vectors are scanned instead, which is slower", error)

    def close(self) -> None:
        """Let go of the store."""
        if self._elsewhere is not None:
            self._elsewhere.close()
            self._elsewhere = None
        self._synced = -1
