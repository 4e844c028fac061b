"""Pinecone: one namespace of an index that is there already, at the address that its console shows (PINECONE_URL).

No index is made here: each costs money, and its dimension and metric are chosen once. Words are sparse values, which an
index with the metric dotproduct takes; there alpha weighs the two sides in the question. It is eventually consistent:
what was added is found some seconds later, and until then `ids` may lack it. Never run against Pinecone's own service.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ultrafast_rag.errors import ConfigError, IndexStateError, UltraFastRAGError, VectorStoreError, require
from ultrafast_rag.index.stores.batches import OTHER_SIZE, WORKERS, check_asked, check_points, send
from ultrafast_rag.remote.secrets import Secret
from ultrafast_rag.types import Near, Point, Vectors

pinecone = require("pinecone", extra="pinecone")
errors = require("pinecone.errors", package="pinecone", extra="pinecone")

DELETED = 1000  # ids of one call (Pinecone's limit)


class PineconeStore:
    """`ports.VectorStore` over one namespace. url: the index's own address; an index without a key cannot be asked."""

    def __init__(self, collection: str, dim: int, *, url: str | None, key: Secret | None, timeout_s: float) -> None:
        if url is None or key is None:
            raise ConfigError("Pinecone needs PINECONE_URL, the address of an index, and PINECONE_API_KEY")
        self._name, self._dim, self._key = collection, dim, key
        with self._plain_errors():
            self._index: Any = pinecone.Index(host=url, api_key=key.reveal(), timeout=timeout_s)
        with contextlib.ExitStack() as undo, self._plain_errors():
            undo.callback(self.close)
            about = self._index.describe_index_stats()
            undo.pop_all()
        if about.dimension != dim:
            self.close()
            raise IndexStateError(f"Pinecone's index holds vectors of {about.dimension} numbers, not {dim}; {OTHER_SIZE}")
        hybrid = ("words", "alpha") if about.metric == "dotproduct" else ()
        self.capabilities = frozenset({"filter", "persistent", "parallel", *hybrid})

    def add(self, points: Sequence[Point], *, quiet: bool = True) -> None:
        """As the port says."""
        check_points(points, self._dim, self.capabilities)
        send(points, self._put, workers=WORKERS, tries=1, quiet=quiet)  # its client tries four times

    def _put(self, batch: Sequence[Point]) -> None:
        with self._plain_errors():
            self._index.upsert(vectors=[_row(point) for point in batch], namespace=self._name)

    def delete(self, ids: Sequence[int]) -> None:
        """As the port says."""
        for at in range(0, len(ids), DELETED):
            with self._plain_errors(), contextlib.suppress(errors.NotFoundError):  # a namespace is there once something is in it
                self._index.delete(ids=[str(number) for number in ids[at : at + DELETED]], namespace=self._name)

    def search(
        self,
        vector: Vectors,
        k: int,
        *,
        filters: Mapping[str, Any] | None = None,
        words: Sequence[tuple[int, float]] = (),
        alpha: float | None = None,
    ) -> list[Near]:
        """As the port says; with words the score is the sum of both sides' dot products, each weighed by its share of alpha."""
        check_asked(self.capabilities, words=bool(words), alpha=alpha)
        meaning, share = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
        with self._plain_errors():
            found = self._index.query(
                vector=[meaning * float(value) for value in vector],
                top_k=k,
                namespace=self._name,
                filter=_filter(filters),
                include_metadata=True,
                sparse_vector=_sparse([(number, share * weight) for number, weight in words]) if words else None,
            )
        return [Near(int(match.id), float(match.score), match.metadata or {}) for match in found.matches]

    def ids(self) -> set[int]:
        """As the port says, a page at a time."""
        with self._plain_errors(), contextlib.suppress(errors.NotFoundError):
            return {int(row.id) for page in self._index.list(namespace=self._name) for row in page.vectors}
        return set()

    def close(self) -> None:
        """As the port says."""
        self._index.close()

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """The client's errors as ours, without the key."""
        try:
            yield
        except UltraFastRAGError:
            raise
        except (errors.UnauthorizedError, errors.ForbiddenError) as error:
            raise VectorStoreError("Pinecone refused the key; set PINECONE_API_KEY to the project's", transient=False) from error
        except (errors.PineconeConnectionError, errors.PineconeTimeoutError) as error:
            words = self._key.scrub(f"{type(error).__name__}: {error}")
            raise VectorStoreError(f"Pinecone cannot be reached or is too slow ({words}); is PINECONE_URL right?") from error
        except errors.ApiError as error:
            again = error.status_code == 429 or error.status_code >= 500
            words = self._key.scrub(f"{error.status_code} {error}"[:300])
            raise VectorStoreError(f"Pinecone refused: {words}", transient=again) from error
        except errors.PineconeError as error:
            raise ConfigError(f"Pinecone does not take this: {self._key.scrub(str(error))[:300]}") from error


def _row(point: Point) -> dict[str, Any]:
    """A point as Pinecone's REST interface has it, whose metadata hold no null."""
    row = {
        "id": str(point.id),
        "values": [float(value) for value in point.vector],
        "metadata": {name: value for name, value in point.payload.items() if value is not None},
    }
    return {**row, "sparse_values": _sparse(point.words)} if point.words else row


def _sparse(words: Sequence[tuple[int, float]]) -> dict[str, Any]:
    return {"indices": [number for number, _ in words], "values": [float(weight) for _, weight in words]}


def _filter(filters: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not filters:
        return None
    several = (list, tuple, set, frozenset)
    return {field: {"$in": list(v)} if isinstance(v, several) else {"$eq": v} for field, v in filters.items()}
