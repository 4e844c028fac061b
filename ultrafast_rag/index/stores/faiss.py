"""Our own index behind the port of a vector store: what the others are held to.

A point is a document of one passage without words, its payload the metadata; nearest ones come from `index/dense.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.errors import IndexStateError
from ultrafast_rag.index.dense import DenseIndex
from ultrafast_rag.index.store import Store
from ultrafast_rag.index.stores.batches import OTHER_SIZE, check_asked, check_points
from ultrafast_rag.types import TEXT_SPACE, Chunk, Near, PartCommit, Point, Record, Vectors

AT_ONCE = 1024  # points in a transaction
_DIM = "dim"


class FaissStore:
    """`ports.VectorStore` in a folder. It finds by vectors and payloads; words are `index/lexical.py`'s."""

    capabilities = frozenset({"filter", "persistent"})

    def __init__(self, folder: Path, dim: int) -> None:
        self._store, self._dim = Store.open(folder), dim
        held = self._store.get_meta(_DIM)
        if held not in (None, dim):
            self._store.close()
            raise IndexStateError(f"{folder} holds vectors of {held} numbers, not {dim}; {OTHER_SIZE}")
        self._dense = DenseIndex(self._store, TEXT_SPACE, folder=folder)

    def add(self, points: Sequence[Point], *, quiet: bool = True) -> None:
        """As the port says; a point that is there as it is costs a look."""
        check_points(points, self._dim, self.capabilities)
        if points and self._store.get_meta(_DIM) is None:
            self._store.set_meta(_DIM, self._dim)
        for at in range(0, len(points), AT_ONCE):
            self._add(points[at : at + AT_ONCE])
        self._dense.build()

    def _add(self, points: Sequence[Point]) -> None:
        records = [Record(str(point.id), _digest(point), document_id=str(point.id)) for point in points]
        begun = self._store.begin_many(records)
        self._store.commit(
            [
                PartCommit(
                    state.document_key,
                    0,
                    [Chunk(str(point.id), metadata=point.payload)],
                    {TEXT_SPACE: np.asarray(point.vector, np.float32)[None]},
                    {TEXT_SPACE: [0]},
                    final=True,
                )
                for point, state in zip(points, begun)
                if state.state != "unchanged"
            ]
        )

    def delete(self, ids: Sequence[int]) -> None:
        """As the port says."""
        for number in ids:
            self._store.delete(str(number))

    def search(
        self,
        vector: Vectors,
        k: int,
        *,
        filters: Mapping[str, Any] | None = None,
        words: Sequence[tuple[int, float]] = (),
        alpha: float | None = None,
    ) -> list[Near]:
        """As the port says."""
        check_asked(self.capabilities, words=bool(words), alpha=alpha)
        allowed = self._store.allowed(filters) if filters else None
        found, scores = self._dense.search(np.asarray(vector, np.float32), k, allowed=allowed)
        return [
            Near(int(chunk.document_id), float(score), chunk.metadata)
            for chunk, score in zip(self._store.chunks(found.tolist()), scores)
        ]

    def ids(self) -> set[int]:
        """As the port says."""
        return {int(document.id) for document in self._store.documents()}

    def close(self) -> None:
        """As the port says."""
        self._store.close()


def _digest(point: Point) -> str:
    body = json.dumps(dict(point.payload), sort_keys=True).encode()
    return hashlib.sha256(np.asarray(point.vector, np.float32).tobytes() + body).hexdigest()
