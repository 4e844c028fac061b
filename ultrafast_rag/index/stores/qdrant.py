"""Qdrant: a server by its address, or the client's local mode, in memory.

On a server vectors are quantized to int8 and the best are scored again from the full ones; payload fields that are
filtered by are indexed; words are a sparse vector whose idf the server counts. Local mode scans everything and ignores
quantization and payload indexes, so it does not claim them. Its files on disk are pickles, which this package does not
read: in memory it is filled again from the index, which is the truth.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ultrafast_rag.errors import IndexStateError, VectorStoreError, require
from ultrafast_rag.index.stores.batches import OTHER_SIZE, WORKERS, check_asked, check_points, send
from ultrafast_rag.remote.secrets import Secret
from ultrafast_rag.types import Near, Point, Vectors

if TYPE_CHECKING:
    import qdrant_client
    from qdrant_client import models
    from qdrant_client.http import exceptions
else:
    qdrant_client = require("qdrant_client", package="qdrant-client", extra="qdrant")
    models = require("qdrant_client.models", package="qdrant-client", extra="qdrant")
    exceptions = require("qdrant_client.http.exceptions", package="qdrant-client", extra="qdrant")

OVERSAMPLING = 2.0  # candidates by int8 for each wanted, scored again from full vectors (Qdrant's guide on quantization)
QUANTILE = 0.99  # of the values, beyond which int8 clips: the same guide's
PAGE = 10_000  # ids listed at once
INDEXED = {"document": "keyword", "modality": "keyword", "page": "integer"}
_DENSE, _WORDS = "dense", "words"
_log = logging.getLogger("ultrafast_rag")


class QdrantStore:
    """`ports.VectorStore` over one collection. url: None is local mode in memory. int8: None quantizes where it can be."""

    def __init__(
        self, collection: str, dim: int, *, url: str | None, key: Secret | None, timeout_s: float, int8: bool | None = None
    ) -> None:
        self._name, self._dim, self._key, self._server = collection, dim, key, url is not None
        can = {"filter", "words", *(("int8", "persistent", "parallel") if url else ())}
        self.capabilities = frozenset(can)
        if int8 and not url:
            _log.warning("Qdrant's local mode keeps float32 vectors: it ignores quantization; a server does not (QDRANT_URL)")
        self._int8 = self._server and int8 is not False
        with self._plain_errors(), _quiet():
            self._client = (
                qdrant_client.QdrantClient(url=url, api_key=key.reveal() if key else None, timeout=max(1, int(timeout_s)),
                                           check_compatibility=False)
                if url
                else qdrant_client.QdrantClient(":memory:")
            )  # fmt: skip
            self._prepare()

    def _prepare(self) -> None:
        if self._client.collection_exists(self._name):
            held = self._client.get_collection(self._name).config.params.vectors
            size = held[_DENSE].size if isinstance(held, dict) and _DENSE in held else None
            if size != self._dim:
                raise IndexStateError(
                    f"Qdrant's collection {self._name} holds vectors of {size} numbers, not {self._dim}; {OTHER_SIZE}"
                )
            return
        int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=QUANTILE, always_ram=True)
        self._client.create_collection(
            self._name,
            vectors_config={_DENSE: models.VectorParams(size=self._dim, distance=models.Distance.COSINE)},
            sparse_vectors_config={_WORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            quantization_config=models.ScalarQuantization(scalar=int8) if self._int8 else None,
        )
        for field, kind in INDEXED.items() if self._server else ():
            self._client.create_payload_index(self._name, field, models.PayloadSchemaType(kind))

    def add(self, points: Sequence[Point], *, quiet: bool = True) -> None:
        """Upsert in batches, several at once on a server; a batch that fails for a moment is sent again."""
        check_points(points, self._dim, self.capabilities)
        send(points, self._put, workers=WORKERS if self._server else 1, quiet=quiet)

    def _put(self, batch: Sequence[Point]) -> None:
        structs = [models.PointStruct(id=point.id, vector=_vectors(point), payload=dict(point.payload)) for point in batch]
        with self._plain_errors():
            self._client.upsert(self._name, structs, wait=True)

    def delete(self, ids: Sequence[int]) -> None:
        """As the port says."""
        for at in range(0, len(ids), PAGE):
            with self._plain_errors():
                self._client.delete(self._name, models.PointIdsList(points=list(ids[at : at + PAGE])), wait=True)

    def search(
        self,
        vector: Vectors,
        k: int,
        *,
        filters: Mapping[str, Any] | None = None,
        words: Sequence[tuple[int, float]] = (),
        alpha: float | None = None,
    ) -> list[Near]:
        """As the port says; with words the two rankings are fused by reciprocal ranks, on the server."""
        check_asked(self.capabilities, words=bool(words), alpha=alpha)
        chosen = _filter(filters)
        again = models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
        how = models.SearchParams(quantization=again) if self._int8 else None
        dense = [float(value) for value in vector]
        with self._plain_errors():
            if not words:
                found = self._client.query_points(
                    self._name, query=dense, using=_DENSE, limit=k, query_filter=chosen, search_params=how
                )
            else:
                legs = [
                    models.Prefetch(query=dense, using=_DENSE, limit=4 * k, filter=chosen, params=how),
                    models.Prefetch(query=_sparse(words), using=_WORDS, limit=4 * k, filter=chosen),
                ]
                fused = models.FusionQuery(fusion=models.Fusion.RRF)
                found = self._client.query_points(self._name, prefetch=legs, query=fused, limit=k)
        return [Near(int(point.id), point.score, point.payload or {}) for point in found.points]

    def ids(self) -> set[int]:
        """As the port says, a page at a time."""
        found: set[int] = set()
        offset: Any = None
        while True:
            with self._plain_errors():
                page, offset = self._client.scroll(self._name, limit=PAGE, offset=offset, with_payload=False, with_vectors=False)
            found |= {int(record.id) for record in page}
            if offset is None:
                return found

    def close(self) -> None:
        """As the port says."""
        self._client.close()

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """The client's errors as ours, without the key."""
        try:
            yield
        except exceptions.UnexpectedResponse as error:
            if error.status_code in (401, 403):
                raise VectorStoreError("Qdrant refused the key; set QDRANT_API_KEY to the server's", transient=False) from error
            words = self._scrubbed(f"{error.status_code} {error.content[:200]!r}")
            again = error.status_code == 429 or (error.status_code or 500) >= 500
            raise VectorStoreError(f"Qdrant refused: {words}", transient=again) from error
        except exceptions.ResponseHandlingException as error:
            words = self._scrubbed(f"{type(error.source).__name__}: {error.source}")
            raise VectorStoreError(f"Qdrant cannot be reached or is too slow ({words}); is QDRANT_URL right?") from error

    def _scrubbed(self, words: str) -> str:
        return self._key.scrub(words) if self._key else words


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the client's warning about a key sent over plain http, which loopback is."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        yield


def _vectors(point: Point) -> dict[str, Any]:
    dense: dict[str, Any] = {_DENSE: [float(value) for value in point.vector]}
    return {**dense, _WORDS: _sparse(point.words)} if point.words else dense


def _sparse(words: Sequence[tuple[int, float]]) -> Any:
    return models.SparseVector(indices=[number for number, _ in words], values=[weight for _, weight in words])


def _filter(filters: Mapping[str, Any] | None) -> Any:
    if not filters:
        return None
    must: list[Any] = []
    for field, wanted in filters.items():
        if isinstance(wanted, list | tuple | set | frozenset):
            must.append(models.FieldCondition(key=field, match=models.MatchAny(any=list(wanted))))
        else:
            must.append(models.FieldCondition(key=field, match=models.MatchValue(value=wanted)))
    return models.Filter(must=must)
