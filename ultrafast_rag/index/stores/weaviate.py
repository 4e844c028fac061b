"""Weaviate: a server at WEAVIATE_URL, whose gRPC door is at WEAVIATE_GRPC_URL (else port 50051, or as its cloud has it).

Words are a text property of term numbers, each as often as its weight says, that Weaviate's own BM25 searches; its hybrid
query weighs them against the vector by alpha. Text fields are kept whole, so that a filter means the whole value.
Never run against Weaviate's own server, which no package registry has.
"""

from __future__ import annotations

import contextlib
import re
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ultrafast_rag.errors import ConfigError, IndexStateError, UltraFastRAGError, VectorStoreError, require
from ultrafast_rag.index.stores.batches import OTHER_SIZE, WORKERS, check_asked, check_points, send
from ultrafast_rag.remote.secrets import Secret
from ultrafast_rag.types import Near, Point, Vectors

weaviate = require("weaviate", package="weaviate-client", extra="weaviate")
classes = require("weaviate.classes", package="weaviate-client", extra="weaviate")
errors = require("weaviate.exceptions", package="weaviate-client", extra="weaviate")

GRPC_PORT = 50051  # Weaviate's own default
DELETED = 1000  # ids of one call; a server deletes at most 10 000 (QUERY_MAXIMUM_RESULTS)
PAGE = 1000  # objects listed at once
_WORDS, _DIM = "words", "dim "
_KINDS = ((bool, "BOOL"), (int, "INT"), (float, "NUMBER"), (str, "TEXT"))


class WeaviateStore:
    """`ports.VectorStore` over one collection. grpc_url: http(s)://host:port of the gRPC door, None: beside `url`."""

    capabilities = frozenset({"filter", "words", "alpha", "persistent", "parallel"})

    def __init__(
        self, collection: str, dim: int, *, url: str | None, key: Secret | None, timeout_s: float, grpc_url: str | None = None
    ) -> None:
        if url is None:
            raise ConfigError("Weaviate needs WEAVIATE_URL, the address of a server")
        self._dim, self._key, self._fields = dim, key, threading.Lock()
        self._known: set[str] = set()
        name = f"Ufr_{re.sub(r'[^0-9A-Za-z]', '_', collection)}"  # as GraphQL calls a class
        with contextlib.ExitStack() as undo, self._plain_errors():
            self._client: Any = self._connect(url, grpc_url, timeout_s)
            undo.callback(self.close)
            if not self._client.collections.exists(name):
                self._create(name)
            self._points = self._client.collections.use(name)
            config = self._points.config.get(simple=True)
            self._known |= {each.name for each in config.properties}
            if config.description != f"{_DIM}{dim}":
                held = str(config.description).removeprefix(_DIM)
                raise IndexStateError(f"Weaviate's collection {name} holds vectors of {held} numbers, not {dim}; {OTHER_SIZE}")
            undo.pop_all()

    def _connect(self, url: str, grpc_url: str | None, timeout_s: float) -> Any:
        web = urlsplit(url)
        secure = web.scheme == "https"
        beside = f"https://grpc-{web.hostname}:443" if secure else f"http://{web.hostname}:{GRPC_PORT}"
        grpc = urlsplit(grpc_url or beside)
        waits = classes.init.Timeout(init=timeout_s, query=timeout_s, insert=timeout_s)
        return weaviate.connect_to_custom(
            http_host=web.hostname,
            http_port=web.port or (443 if secure else 80),
            http_secure=secure,
            grpc_host=grpc.hostname,
            grpc_port=grpc.port or GRPC_PORT,
            grpc_secure=grpc.scheme == "https",
            auth_credentials=classes.init.Auth.api_key(self._key.reveal()) if self._key else None,
            additional_config=classes.init.AdditionalConfig(timeout=waits, trust_env=False),
            skip_init_checks=True,  # one of them asks the package registry for a newer client
        )

    def _create(self, name: str) -> None:
        config = classes.config
        space = config.Configure.VectorIndex.hnsw(distance_metric=config.VectorDistances.COSINE)
        words = config.Property(name=_WORDS, data_type=config.DataType.TEXT, tokenization=config.Tokenization.WHITESPACE)
        self._client.collections.create(
            name,
            description=f"{_DIM}{self._dim}",
            properties=[words],
            vector_config=config.Configure.Vectors.self_provided(vector_index_config=space),
        )

    def add(self, points: Sequence[Point], *, quiet: bool = True) -> None:
        """As the port says; an object of the same id is replaced."""
        check_points(points, self._dim, self.capabilities)
        send(points, self._put, workers=WORKERS, quiet=quiet)

    def _put(self, batch: Sequence[Point]) -> None:
        rows = [
            classes.data.DataObject(
                properties=_properties(point), uuid=uuid.UUID(int=point.id), vector=[float(v) for v in point.vector]
            )
            for point in batch
        ]
        with self._plain_errors():
            self._declare([row.properties for row in rows])
            failed = self._points.data.insert_many(rows).errors
        if failed:
            raise VectorStoreError(f"Weaviate refused {len(failed)} of {len(rows)}: {next(iter(failed.values())).message}"[:300])

    def _declare(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Text fields are declared before their first value: a server left to itself would cut them into words."""
        config = classes.config
        with self._fields:
            for name, value in {name: value for row in rows for name, value in row.items()}.items():
                if name not in self._known:
                    kind = next((kind for of, kind in _KINDS if isinstance(value, of)), None)
                    if kind is None:
                        raise ConfigError(
                            f"Weaviate does not take {name}={value!r:.80}: a field is a text, number or truth value"
                        )
                    whole = {"tokenization": config.Tokenization.FIELD} if kind == "TEXT" else {}
                    self._points.config.add_property(config.Property(name=name, data_type=config.DataType[kind], **whole))
                    self._known.add(name)

    def delete(self, ids: Sequence[int]) -> None:
        """As the port says."""
        for at in range(0, len(ids), DELETED):
            names = [str(uuid.UUID(int=number)) for number in ids[at : at + DELETED]]
            with self._plain_errors():
                self._points.data.delete_many(where=classes.query.Filter.by_id().contains_any(names))

    def search(
        self,
        vector: Vectors,
        k: int,
        *,
        filters: Mapping[str, Any] | None = None,
        words: Sequence[tuple[int, float]] = (),
        alpha: float | None = None,
    ) -> list[Near]:
        """As the port says; with words by Weaviate's fusion of relative scores, 0.7 of it meaning where alpha is None."""
        check_asked(self.capabilities, words=bool(words), alpha=alpha)
        dense, query = [float(value) for value in vector], self._points.query
        with self._plain_errors():
            if not words:
                about = classes.query.MetadataQuery(distance=True)
                found = query.near_vector(dense, limit=k, filters=self._filter(filters), return_metadata=about).objects
                return [Near(row.uuid.int, 1 - row.metadata.distance, _payload(row.properties)) for row in found]
            found = query.hybrid(
                _said(words),
                vector=dense,
                alpha=0.7 if alpha is None else alpha,
                query_properties=[_WORDS],
                fusion_type=classes.query.HybridFusion.RELATIVE_SCORE,
                limit=k,
                filters=self._filter(filters),
                return_metadata=classes.query.MetadataQuery(score=True),
            ).objects
        return [Near(row.uuid.int, row.metadata.score, _payload(row.properties)) for row in found]

    def _filter(self, filters: Mapping[str, Any] | None) -> Any:
        each = [
            classes.query.Filter.by_property(name).contains_any(list(wanted))
            if isinstance(wanted, list | tuple | set | frozenset)
            else classes.query.Filter.by_property(name).equal(wanted)
            for name, wanted in (filters or {}).items()
        ]
        return classes.query.Filter.all_of(each) if each else None

    def ids(self) -> set[int]:
        """As the port says, a page at a time."""
        with self._plain_errors():
            return {row.uuid.int for row in self._points.iterator(return_properties=[], cache_size=PAGE)}

    def close(self) -> None:
        """As the port says."""
        self._client.close()

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """The client's errors as ours, without the key."""
        try:
            yield
        except UltraFastRAGError:
            raise
        except (errors.AuthenticationFailedError, errors.InsufficientPermissionsError) as error:
            raise VectorStoreError(_WRONG_KEY, transient=False) from error
        except errors.UnexpectedStatusCodeError as error:
            if error.status_code == 401:
                raise VectorStoreError(_WRONG_KEY, transient=False) from error
            again = error.status_code == 429 or error.status_code >= 500
            raise VectorStoreError(f"Weaviate refused: {self._scrubbed(error)}", transient=again) from error
        except (errors.WeaviateInvalidInputError, errors.WeaviateInsertInvalidPropertyError) as error:
            raise ConfigError(f"Weaviate does not take this: {self._scrubbed(error)}") from error
        except errors.WeaviateQueryError as error:
            raise VectorStoreError(f"Weaviate refused or is too slow: {self._scrubbed(error)}") from error
        except (errors.WeaviateBaseError, OSError) as error:
            words = f"{type(error).__name__}: {self._scrubbed(error)}"
            raise VectorStoreError(f"Weaviate cannot be reached or is too slow ({words}); is WEAVIATE_URL right?") from error

    def _scrubbed(self, error: Exception) -> str:
        words = str(error)[:300]
        return self._key.scrub(words) if self._key else words


_WRONG_KEY = "Weaviate refused the key; set WEAVIATE_API_KEY to the server's"


def _properties(point: Point) -> dict[str, Any]:
    said = {_WORDS: _said(point.words)} if point.words else {}
    return {**{name: value for name, value in point.payload.items() if value is not None}, **said}


def _said(words: Sequence[tuple[int, float]]) -> str:
    return " ".join(f"{number}" for number, weight in words for _ in range(max(1, round(weight))))


def _payload(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if name != _WORDS and value is not None}
