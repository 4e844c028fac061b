"""Nearest chunks by cosine in one vector space of the store.

Small collections are scanned exactly in fp32. Larger ones get candidates from FAISS (`ann.py`), scored
again from the store's memory-mapped fp16 rows, so a score is always the exact cosine of what is stored. Rows
committed after the FAISS index was made are scanned exactly until there are enough to add. Plain
IVF-PQ without that second scoring lost: recall@10 of 0.4-0.64 on 1 M MiniLM vectors.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ultrafast_rag.errors import IndexCorruptError, IndexStateError, StorageError
from ultrafast_rag.index import ann
from ultrafast_rag.index.rows import RowChunks
from ultrafast_rag.index.store import Store
from ultrafast_rag.index.vectors import SpaceView, cosines, nothing
from ultrafast_rag.types import ChunkIds, Mask, Ranking, Vectors

Kind = Literal["auto", "exact", "ivfpq", "rabitq", "sq8"]
_EXACT_MS = 1.0  # "auto" scans exactly while one scan takes less
_AUTO_ROWS = 10_000  # below this nothing is measured: 10 000 x 384 is under 1 ms on 2 cores
_MATRIX_VALUES = 300_000 * 384  # a full scan above this reads the file in blocks instead of keeping fp32 rows in memory
_BLOCK_BYTES = 16_384 * 384 * 4  # of fp32 rows made at once
_TAIL_ROWS = 4_096  # rows scanned exactly beside a FAISS index before they are added to it
_RETRAIN_GROWTH = 4  # cells trained on fewer than a quarter of the rows are trained again by `build`
_AGAIN = "the next build makes it again"
_FEW_ROWS = 4_000  # a filter that leaves no more is answered by scoring them all


@dataclass(frozen=True, slots=True)
class _State:
    """What a search works on: replaced as a whole, never changed.

    matrix: fp32 rows from `matrix_from` on.  rows: bool per row, None when every row may be returned.
    bits: `rows` as FAISS's bitmap.
    """

    view: SpaceView
    matrix: Vectors
    matrix_from: int = 0
    index: Any = None
    tuning: ann.Tuning | None = None
    rows: Mask | None = None
    bits: npt.NDArray[np.uint8] | None = field(default=None, repr=False)


class DenseIndex:
    """`ports.VectorIndex` over one space. Thread-safe; picks up commits, also other processes', by itself.

    kind: "auto" measures; the others are used as named once there are enough rows to train on.
    folder: where derived FAISS files are kept; None keeps none.  info: what is used and why, for people.
    """

    def __init__(self, store: Store, space: str, *, kind: Kind = "auto", folder: Path | None = None) -> None:
        self.store, self.space, self.kind, self.folder = store, space, kind, folder
        self.info: dict[str, Any] = {"kind": "exact", "reason": "not measured yet"}
        self._guard = threading.RLock()
        self._generation = -1
        self._state = _State(nothing(), np.empty((0, 0), np.float32))
        self._buffer: Vectors = np.empty((0, 0), dtype=np.float32)
        self._tried_load = False

    # ---- keeping up with the store

    def refresh(self) -> None:
        """Take in what was committed since; cheap when nothing was. Never trains: `build` does."""
        if self.store.generation == self._generation:
            return
        with self._guard:
            generation = self.store.generation
            if generation == self._generation:
                return
            view = self.store.vectors(self.space)
            old = self._state
            index, tuning = (old.index, old.tuning) if view.file == old.view.file else (None, None)
            if view.file != old.view.file:
                self._buffer = np.empty((0, 0), dtype=np.float32)
                self._tried_load = False
            if index is None and not self._tried_load and len(view.chunk_ids):
                self._tried_load = True
                index, tuning = self._load(view)
            if index is not None and len(view.chunk_ids) - index.ntotal > _TAIL_ROWS:
                index = self._grown(index, view)
            self._replace_state(view, index, tuning)
            self._generation = generation

    def _replace_state(self, view: SpaceView, index: Any, tuning: ann.Tuning | None) -> None:
        start = int(index.ntotal) if index is not None else 0
        old = self._state
        keeps = old.view.file == view.file and old.matrix_from == start
        if start == 0 and view.vectors.size > _MATRIX_VALUES:
            self._buffer = matrix = np.empty((0, view.vectors.shape[1]), dtype=np.float32)
        else:
            matrix = self._matrix(view, start, len(old.matrix) if keeps else 0)
        alive = _look_up(self.store.alive(), view.chunk_ids)
        rows = None if alive.all() else alive
        bits = np.packbits(rows, bitorder="little") if rows is not None and index is not None else None
        self._state = _State(view, matrix, start, index, tuning, rows, bits)

    def _matrix(self, view: SpaceView, start: int, have: int) -> Vectors:
        """fp32 rows from `start` on, of which `have` are in the buffer; it doubles, so growing costs what is new."""
        count, dim = len(view.chunk_ids) - start, view.vectors.shape[1]
        if count > len(self._buffer) or self._buffer.shape[1] != dim or not have:
            grown = np.empty((max(count, 2 * have), dim), dtype=np.float32)
            if have:
                grown[:have] = self._buffer[:have]
            self._buffer = grown
        step = _rows_at_once(dim)
        for first in range(have, count, step):
            last = min(first + step, count)
            self._buffer[first:last] = view.take(slice(start + first, start + last))
        return self._buffer[:count]

    def _load(self, view: SpaceView) -> tuple[Any, ann.Tuning | None]:
        """The saved index, if it was made of exactly the rows at the head of this file."""
        if self.folder is None or self.kind == "exact":
            return None, None
        manifest = ann.load_manifest(self.folder, self.space)
        if manifest is None or self.kind not in ("auto", manifest.tuning.kind) or manifest.rows > len(view.chunk_ids):
            return None, None
        if manifest.dim != view.vectors.shape[1] or manifest.truth != self.store.digest(self.space, manifest.rows):
            return None, None
        index = ann.load(self.folder, self.space, manifest)
        if index is None:
            self.info = {"kind": "exact", "reason": f"the saved index cannot be read or fails its checksum; {_AGAIN}"}
            return None, None
        self.info = dataclasses.asdict(manifest.tuning) | {"reason": "loaded, as measured when it was built"}
        return index, manifest.tuning

    def _grown(self, index: Any, view: SpaceView) -> Any:
        """A copy with the rows that came since, for searches in other threads keep the old one; None if FAISS refuses."""
        view.check(int(index.ntotal), len(view.chunk_ids))
        try:
            return ann.grown(index, view.vectors)
        except Exception as error:  # of FAISS, which has no errors of its own
            self._say_exact(error)
            return None

    def _say_exact(self, error: Exception) -> None:
        self.info = {"kind": "exact", "reason": f"FAISS refused ({type(error).__name__}: {str(error)[:120]}); {_AGAIN}"}

    def build(self) -> dict[str, Any]:
        """Measure, train and save what serves this collection best; returns `info`. Searches go on meanwhile.

        Does nothing while the present choice still fits. Derived files that cannot be written are said in
        `info`, never raised: the index in memory serves.
        """
        self.refresh()
        state = self._state
        count = len(state.view.chunk_ids)
        if self.kind == "exact" or count < (_AUTO_ROWS if self.kind == "auto" else 256):
            reason = "asked for" if self.kind == "exact" else f"{count} rows are few"
            self.info = {"kind": "exact", "rows": count, "reason": reason}
            return self.info
        if state.index is not None and state.tuning is not None and count < _RETRAIN_GROWTH * state.tuning.trained_rows:
            if int(state.index.ntotal) < count:
                self._install(state.view, self._grown(state.index, state.view), state.tuning)
            return self.info
        state.view.check(0, count)
        try:
            index, tuning = self._choose(state)
        except Exception as error:  # of FAISS, which has no errors of its own
            self._say_exact(error)
            return self.info
        if index is not None and tuning is not None:
            self._install(state.view, index, tuning)
        return self.info

    def _choose(self, state: _State) -> tuple[Any, ann.Tuning | None]:
        vectors = state.view.vectors
        exact_ms = _scan_ms(state.matrix) if len(state.matrix) == len(vectors) else float("inf")
        if self.kind == "auto" and exact_ms <= _EXACT_MS:
            self.info = _exact_info(len(vectors), exact_ms, "a full scan is fast")
            return None, None
        for kind in ("ivfpq", "sq8") if self.kind == "auto" else (self.kind,):
            start = time.perf_counter()
            index = ann.build(vectors, kind)
            tuning = ann.tune(index, vectors, kind, time.perf_counter() - start)
            measured = f"recall@10 {tuning.recall:.4f} at {tuning.p50_ms:.2f} ms; a full scan takes {exact_ms:.2f} ms"
            self.info = dataclasses.asdict(tuning) | {"rows": len(vectors), "exact_ms": exact_ms, "reason": measured}
            if tuning.recall >= ann.RECALL_GOAL or self.kind != "auto":
                return index, tuning
        self.info = _exact_info(len(vectors), exact_ms, f"no index reached recall@10 {ann.RECALL_GOAL}: {measured}")
        return None, None

    def _install(self, view: SpaceView, index: Any, tuning: ann.Tuning) -> None:
        if self.folder is not None and index is not None:
            try:
                truth = self.store.digest(self.space, int(index.ntotal))
                ann.save(index, tuning, self.folder, self.space, truth=truth)
            except OSError as error:
                self.info = self.info | {"not_saved": str(StorageError(f"{self.folder}: {error.strerror or error}"))}
        with self._guard:
            if self._state.view.file == view.file:  # else compacted meanwhile: the next build takes the new file
                self._replace_state(self._state.view, index, tuning)

    # ---- asking

    def search(self, vector: Vectors, k: int, *, allowed: Mask | None = None) -> Ranking:
        """The k best chunks for one query (d,), scored by exact cosine; a chunk counts by its best vector."""
        self.refresh()
        state = self._state
        query, owners = _unit(vector, state), state.view.chunk_ids
        if not len(owners) or k < 1:
            return Ranking(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
        rows, bits = state.rows, state.bits
        if allowed is not None:
            chosen = _look_up(allowed, owners)
            rows = chosen if rows is None else rows & chosen
            few = np.flatnonzero(rows)
            if len(few) <= _FEW_ROWS and len(few) < len(owners):
                return _best(cosines(_gathered(state, few), query), owners[few], k)
            bits = np.packbits(rows, bitorder="little") if state.index is not None else None
        if state.index is None and len(state.matrix) < len(owners):
            return _best(_scan_file(state.view, query, rows), owners, k)
        tail = cosines(state.matrix, query)
        if rows is not None:
            tail = np.where(rows[state.matrix_from :], tail, -np.inf)
        if state.index is None or state.tuning is None:
            return _best(tail, owners, k)
        nprobe = state.tuning.nprobe
        if rows is not None and allowed is not None:  # the best allowed rows may lie in farther cells
            nprobe = int(nprobe * min(8.0, len(rows) / max(int(rows.sum()), 1)))
        try:
            found = ann.candidates(state.index, query, max(state.tuning.depth, 4 * k), nprobe=nprobe, allowed_rows=bits)
            if len(found) and found.max() >= state.matrix_from:
                raise IndexCorruptError("it names rows that it was not made from")
        except Exception as error:  # of FAISS, which has no errors of its own
            self._drop_index(state, error)
            return self.search(vector, k, allowed=allowed)
        found = np.sort(found)
        scores = np.concatenate([cosines(state.view.take(found), query), tail])
        return _best(scores, np.concatenate([owners[found], owners[state.matrix_from :]]), k)

    def _drop_index(self, state: _State, error: Exception) -> None:
        """Go on without an index that cannot be searched; the next build makes another."""
        with self._guard:
            self._say_exact(error)
            if self._state.index is state.index:
                self._replace_state(self._state.view, None, None)

    def score(self, vector: Vectors, chunk_ids: ChunkIds) -> Vectors:
        """Exact cosine of the query with each chunk's best vector, float32 (n,); NaN where it has none here."""
        self.refresh()
        state = self._state
        query, owners = _unit(vector, state), state.view.chunk_ids
        wanted = np.asarray(chunk_ids).astype(np.int32)
        start, stop = np.searchsorted(owners, wanted, "left"), np.searchsorted(owners, wanted, "right")
        counts = stop - start
        scores = np.full(len(wanted), np.nan, dtype=np.float32)
        if not counts.any():
            return scores
        places = np.repeat(np.arange(len(wanted)), counts)
        rows = np.arange(counts.sum()) + np.repeat(start - (np.cumsum(counts) - counts), counts)
        np.fmax.at(scores, places, cosines(_gathered(state, rows), query))
        return scores


def _exact_info(rows: int, exact_ms: float, reason: str) -> dict[str, Any]:
    return {"kind": "exact", "rows": rows, "p50_ms": exact_ms, "recall": 1.0, "reason": reason}


def _gathered(state: _State, rows: npt.NDArray[np.int64]) -> Vectors:
    if state.matrix_from == 0 and len(state.matrix) == len(state.view.chunk_ids):
        return state.matrix[rows]
    return state.view.take(rows) if len(rows) else np.empty((0, state.view.vectors.shape[1]), np.float32)


def _rows_at_once(dim: int) -> int:
    return max(1, _BLOCK_BYTES // (4 * max(dim, 1)))


def _scan_ms(matrix: Vectors) -> float:
    """Median time of one full scan, in ms."""
    times = []
    for row in matrix[:9]:
        start = time.perf_counter()
        scores = cosines(matrix, row)
        np.argpartition(-scores, min(10, len(scores) - 1))
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1000


def _scan_file(view: SpaceView, query: Vectors, rows: Mask | None) -> Vectors:
    """Cosine of every row, read from the file in blocks: slow, in flat memory, until an index is built."""
    step = _rows_at_once(len(query))
    scores = np.concatenate([cosines(view.take(slice(s, s + step)), query) for s in range(0, len(view.chunk_ids), step)])
    return scores if rows is None else np.where(rows, scores, -np.inf)


def _unit(vector: Vectors, state: _State) -> Vectors:
    query, dim = np.asarray(vector, dtype=np.float32).reshape(-1), state.view.vectors.shape[1]
    if len(state.view.chunk_ids) and len(query) != dim:
        raise IndexStateError(f"this index's vectors have {dim} values, the question's {len(query)}: another encoder made them.")
    return query / max(float(np.linalg.norm(query)), 1e-12)


def _look_up(mask: Mask, owners: RowChunks) -> Mask:
    """mask[owners], False for ids past its end: chunks committed after it was made."""
    inside = np.zeros(len(owners), dtype=np.bool_)
    count = int(np.searchsorted(owners, np.int32(len(mask))))
    inside[:count] = mask[owners[:count]]
    return inside


def _best(scores: Vectors, owners: RowChunks, k: int) -> Ranking:
    """Rows' scores -> the k best chunks, each once; -inf rows are out."""
    take = k
    while True:
        rows = np.argpartition(-scores, take - 1)[:take] if take < len(scores) else np.arange(len(scores))
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        rows = rows[np.isfinite(scores[rows])]
        _, first = np.unique(owners[rows], return_index=True)
        first.sort()
        if len(first) >= k or len(rows) < take or take >= len(scores):
            kept = rows[first[:k]]
            return Ranking(owners[kept].astype(np.int64), scores[kept].astype(np.float32))
        take *= 2
