"""Nearest chunks by cosine in one vector space of the store.

Small collections are scanned exactly in fp32.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ultrafast_rag.index.store import Store
from ultrafast_rag.index.vectors import RowChunks
from ultrafast_rag.types import ChunkIds, Mask, Ranking, Vectors

Kind = Literal["auto", "exact", "ivfpq", "rabitq", "sq8"]


class DenseIndex:
    """`ports.VectorIndex` over one space. Thread-safe; picks up commits, also other processes', by itself."""

    def __init__(self, store: Store, space: str, *, kind: Kind = "auto", folder: Path | None = None) -> None:
        self.store, self.space, self.kind, self.folder = store, space, kind, folder
        self.info: dict[str, Any] = {"kind": "exact"}
        self._guard = threading.RLock()
        self._generation = -1
        self._file = ""
        self._matrix: Vectors = np.empty((0, 0), dtype=np.float32)
        self._owners: RowChunks = np.empty(0, dtype=np.int32)
        self._alive_rows: Mask | None = None

    def refresh(self) -> None:
        """Take in what was committed since; cheap when nothing was."""
        generation = self.store.generation
        if generation == self._generation:
            return
        with self._guard:
            view = self.store.vectors(self.space)
            have = len(self._owners) if view.file == self._file else 0
            if len(view.chunk_ids) > have or view.file != self._file:
                fresh = np.asarray(view.vectors[have:], dtype=np.float32)
                fresh /= np.linalg.norm(fresh, axis=1, keepdims=True)
                self._matrix = np.concatenate([self._matrix[:have], fresh]) if have else fresh
                self._owners, self._file = view.chunk_ids, view.file
            alive = self.store.alive()
            rows = alive[self._owners]
            self._alive_rows = None if rows.all() else rows
            self._generation = generation

    def search(self, vector: Vectors, k: int, *, allowed: Mask | None = None) -> Ranking:
        """The k best chunks for one query (d,), scored by exact cosine; a chunk counts by its best vector."""
        self.refresh()
        query = _unit(vector)
        with self._guard:
            matrix, owners, rows = self._matrix, self._owners, self._alive_rows
        if not len(owners):
            return Ranking(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
        scores = matrix @ query
        if allowed is not None:
            rows = _look_up(allowed, owners) if rows is None else rows & _look_up(allowed, owners)
        if rows is not None:
            scores = np.where(rows, scores, -np.inf)
        return _best(scores, owners, k)

    def score(self, vector: Vectors, chunk_ids: ChunkIds) -> Vectors:
        """Exact cosine of the query with each chunk's best vector, float32 (n,); NaN where it has none here."""
        self.refresh()
        query = _unit(vector)
        with self._guard:
            matrix, owners = self._matrix, self._owners
        wanted = np.asarray(chunk_ids, dtype=np.int64)
        start, stop = np.searchsorted(owners, wanted, "left"), np.searchsorted(owners, wanted, "right")
        scores = np.full(len(wanted), np.nan, dtype=np.float32)
        for place in np.flatnonzero(stop > start):
            scores[place] = (matrix[start[place] : stop[place]] @ query).max()
        return scores


def _unit(vector: Vectors) -> Vectors:
    query = np.asarray(vector, dtype=np.float32).reshape(-1)
    return query / max(float(np.linalg.norm(query)), 1e-12)


def _look_up(mask: Mask, owners: RowChunks) -> Mask:
    """mask[owners], False for ids past its end: chunks committed after it was made."""
    inside = np.zeros(len(owners), dtype=np.bool_)
    count = int(np.searchsorted(owners, len(mask)))
    inside[:count] = mask[owners[:count]]
    return inside


def _best(scores: Vectors, owners: RowChunks, k: int) -> Ranking:
    """Rows' scores -> the k best chunks, each once; -inf rows are out."""
    ids, best = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    take = k
    while True:
        rows = np.argpartition(-scores, take - 1)[:take] if take < len(scores) else np.arange(len(scores))
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        rows = rows[np.isfinite(scores[rows])]
        _, first = np.unique(owners[rows], return_index=True)
        first.sort()
        ids, best = owners[rows[first]], scores[rows[first]]
        if len(ids) >= k or len(rows) < take or take >= len(scores):
            return Ranking(ids[:k].astype(np.int64), best[:k].astype(np.float32))
        take *= 2
