"""Chroma: a server by its address, else the engine inside its package, in a folder or in memory.

A folder is for one process at a time (Chroma's own rule), which a lock holds it to. Chroma has no key of its own; what stands
before it, its cloud included, takes one as x-chroma-token. Its search is HNSW, and no words: those are `index/lexical.py`'s.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ultrafast_rag.errors import ConfigError, IndexLockedError, IndexStateError, UltraFastRAGError, VectorStoreError, require
from ultrafast_rag.index.lock import WriterLock
from ultrafast_rag.index.stores.batches import OTHER_SIZE, WORKERS, check_asked, check_points, send
from ultrafast_rag.remote.secrets import Secret
from ultrafast_rag.types import Near, Point, Vectors

chromadb = require("chromadb", extra="chroma")
errors = require("chromadb.errors", package="chromadb", extra="chroma")
httpx = require("httpx", package="chromadb", extra="chroma")

BATCH = 1000  # each is a transaction of Chroma's SQLite file; Chroma itself brings its graph up to date as often
PAGE = 10_000  # ids listed or deleted at once; a batch has the engine's own limit besides
_DIM = "dim"


class ChromaStore:
    """`ports.VectorStore` over one collection. url: a server's; else folder: where it is kept, None for memory."""

    def __init__(
        self, collection: str, dim: int, *, url: str | None, key: Secret | None, folder: Path | None, timeout_s: float
    ) -> None:
        self._dim, self._key, self._server = dim, key, url is not None
        self.capabilities = frozenset({"filter", *(("persistent",) if url or folder else ()), *(("parallel",) if url else ())})
        self._lock: WriterLock | None = None
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._client: Any = None
            with self._plain_errors():
                self._client = self._connect(url, timeout_s) if url else self._open(folder)
                self._points = self._client.get_or_create_collection(
                    collection, metadata={_DIM: dim}, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
                )
                self._largest = self._client.get_max_batch_size()
            held = (self._points.metadata or {}).get(_DIM)
            if held != dim:
                raise IndexStateError(
                    f"Chroma's collection {collection} holds vectors of {held} numbers, not {dim}; {OTHER_SIZE}"
                )
            undo.pop_all()

    def _open(self, folder: Path | None) -> Any:
        settings = chromadb.Settings(anonymized_telemetry=False)
        if folder is None:
            return chromadb.EphemeralClient(settings=settings)
        folder.mkdir(parents=True, exist_ok=True)
        lock = WriterLock(folder, "lock")
        try:
            lock.acquire()
        except IndexLockedError as error:
            raise VectorStoreError(f"another process has Chroma's folder {folder} open", transient=False) from error
        self._lock = lock
        return chromadb.PersistentClient(str(folder), settings=settings)

    def _connect(self, url: str, timeout_s: float) -> Any:
        """Asked once beforehand: the client's first call has no time limit, and keeps no status of a refusal."""
        headers = {"x-chroma-token": self._key.reveal()} if self._key else {}
        reply = httpx.get(f"{url.rstrip('/')}/api/v2/auth/identity", headers=headers, timeout=timeout_s)
        if reply.status_code in (401, 403):
            raise VectorStoreError("Chroma refused the key; set CHROMA_API_KEY to the server's", transient=False)
        reply.raise_for_status()
        place = urlsplit(url)
        client = chromadb.HttpClient(
            host=place.hostname,
            port=place.port or (443 if place.scheme == "https" else 80),
            ssl=place.scheme == "https",
            headers=headers,
            tenant=os.environ.get("CHROMA_TENANT") or chromadb.DEFAULT_TENANT,
            database=os.environ.get("CHROMA_DATABASE") or chromadb.DEFAULT_DATABASE,
            settings=chromadb.Settings(anonymized_telemetry=False),
        )
        client._server._session.timeout = timeout_s  # the client has no setting for it, and waits for ever
        return client

    def add(self, points: Sequence[Point], *, quiet: bool = True) -> None:
        """As the port says: Chroma's own upsert keeps payload fields that are gone, so what is there goes first."""
        size, workers = min(BATCH, self._largest), WORKERS if self._server else 1
        check_points(points, self._dim, self.capabilities)
        send(points, self._put, size=size, workers=workers, quiet=quiet)

    def _put(self, batch: Sequence[Point]) -> None:
        ids = [str(point.id) for point in batch]
        payloads = [{name: value for name, value in point.payload.items() if value is not None} or None for point in batch]
        vectors = np.stack([np.asarray(point.vector, np.float32) for point in batch])
        with self._plain_errors():
            self._points.delete(ids=ids)
            self._points.upsert(ids=ids, embeddings=vectors, metadatas=payloads)

    def delete(self, ids: Sequence[int]) -> None:
        """As the port says."""
        size = min(PAGE, self._largest)
        for at in range(0, len(ids), size):
            with self._plain_errors():
                self._points.delete(ids=[str(number) for number in ids[at : at + size]])

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
        with self._plain_errors():
            found = self._points.query(
                query_embeddings=[np.asarray(vector, np.float32)],
                n_results=k,
                where=_where(filters),
                include=["distances", "metadatas"],
            )
        rows = zip(found["ids"][0], found["distances"][0], found["metadatas"][0])
        return [Near(int(point), 1 - float(distance), payload or {}) for point, distance, payload in rows]

    def ids(self) -> set[int]:
        """As the port says, a page at a time."""
        found: set[int] = set()
        while True:
            with self._plain_errors():
                page = self._points.get(limit=PAGE, offset=len(found), include=[])["ids"]
            found |= {int(point) for point in page}
            if len(page) < PAGE:
                return found

    def close(self) -> None:
        """As the port says."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """The client's errors as ours, without the key; what a server answers in words of its own comes as a bare Exception."""
        try:
            yield
        except (UltraFastRAGError, MemoryError):
            raise
        except (errors.ChromaAuthError, errors.AuthorizationError) as error:
            raise VectorStoreError("Chroma refused the key; set CHROMA_API_KEY to the server's", transient=False) from error
        except (errors.InvalidArgumentError, errors.InvalidDimensionException, ValueError, TypeError) as error:
            raise ConfigError(f"Chroma does not take this: {self._scrubbed(str(error))[:300]}") from error
        except httpx.TransportError as error:
            words = self._scrubbed(f"{type(error).__name__}: {error}")
            raise VectorStoreError(f"Chroma cannot be reached or is too slow ({words}); is CHROMA_URL right?") from error
        except Exception as error:
            again = not isinstance(error, errors.NotFoundError)
            words = self._scrubbed(f"{type(error).__name__}: {error}"[:300])
            raise VectorStoreError(f"Chroma refused: {words}", transient=again) from error

    def _scrubbed(self, words: str) -> str:
        return self._key.scrub(words) if self._key else words


def _where(filters: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not filters:
        return None
    several = (list, tuple, set, frozenset)
    must = [
        {field: {"$in": list(wanted)} if isinstance(wanted, several) else {"$eq": wanted}} for field, wanted in filters.items()
    ]
    return must[0] if len(must) == 1 else {"$and": must}
