"""The parts of one index and what wires them, each made on first use: opening an index loads no model.

`UltraFastRAG` adds what one may ask of them. Holds no algorithm; a part that starts something is closed in `close`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrafast_rag.config import CONFIG_FACT, Config
from ultrafast_rag.errors import ConfigError, ExtractionError, IndexStateError, UltraFastRAGError, did_you_mean
from ultrafast_rag.extract.sandbox.pool import Sandbox
from ultrafast_rag.files import path_of
from ultrafast_rag.index.dense import DenseIndex
from ultrafast_rag.index.embedding_cache import open_embedding_cache
from ultrafast_rag.index.filters import FIELDS
from ultrafast_rag.index.home import is_home, settle
from ultrafast_rag.index.lexical import LexicalIndex
from ultrafast_rag.index.names import NameIndex
from ultrafast_rag.index.result_disk import DiskTier
from ultrafast_rag.index.store import Store
from ultrafast_rag.index.stores import open_store
from ultrafast_rag.index.stores.elsewhere import ElsewhereIndex
from ultrafast_rag.ingest.refine import Refiner
from ultrafast_rag.models.registry import Models
from ultrafast_rag.monitor import PerformanceMonitor, StageClock
from ultrafast_rag.ports import ImageEncoder, ResultTier, StaticEncoder, TextEncoder, Tokenizer
from ultrafast_rag.remote.address import is_address, kept_file
from ultrafast_rag.remote.prices import cost_usd
from ultrafast_rag.remote.secrets import Secret
from ultrafast_rag.search.evidence import EvidenceFinder
from ultrafast_rag.search.optimizer import QueryOptimizer
from ultrafast_rag.search.searcher import Searcher
from ultrafast_rag.search.unrefined import Unrefined
from ultrafast_rag.types import TEXT_SPACE, VISUAL_SPACE, Chunk, Hit, Hits, ProgressState

if TYPE_CHECKING:  # imported where they are used: opening an index needs none of them
    from ultrafast_rag.answer.extractive import ExtractiveAnswerer
    from ultrafast_rag.answer.select import Generators
    from ultrafast_rag.enrich.enricher import Enricher
    from ultrafast_rag.ingest.chunk import Chunker
    from ultrafast_rag.ingest.embed import Embedder
    from ultrafast_rag.ingest.pipeline import IngestStats, Ports
    from ultrafast_rag.ingest.sources import Found, PathLike, Source
    from ultrafast_rag.ingest.stages import Until
    from ultrafast_rag.remote.fetch import Fetcher
    from ultrafast_rag.search.expansion import Expander

FETCHED = "fetched"
_NOT_ASKED = ("cache_dir", "cache_size_gb", "max_workers", "query_cache_disk", "query_cache_ttl_s", "quiet", "redis_url")


class Parts:
    """Store, models, indexes, workers of one index. Arguments as in `UltraFastRAG`, which inherits this."""

    def __init__(
        self, path: PathLike | None, *, config: Config | None, gemini_api_key: str | None, settings: dict[str, Any]
    ) -> None:
        self._store = Store.open(None if path is None else path_of(path, "an index's folder"))
        try:
            self.config = self._settle(config, settings)
        except BaseException:  # nobody else knows the store yet
            self._store.close()
            raise
        self._ephemeral = path is None
        self._searchers: dict[bool, Searcher] = {}
        self._key = Secret(gemini_api_key.strip(), "the argument") if gemini_api_key and gemini_api_key.strip() else None
        self._models = Models(self.config, self._store, gemini_key=self._key)
        self.monitor = PerformanceMonitor()
        self._flights = QueryOptimizer(ttl_s=0)
        self._ingesting = threading.RLock()
        self._stop: threading.Event | None = None
        self._unindexed = False
        self._retired: list[Models | Searcher] = []  # of the text model before a migration: a question may still use them
        self._checked = -1

    def _settle(self, base: Config | None, settings: dict[str, Any]) -> Config:
        """The session's settings, and of the index's only those that say what its vectors and chunks are."""
        kept = self._store.get_meta(CONFIG_FACT)
        if kept is None:
            return (base or Config()).replace(**settings)
        try:
            return Config.for_index(kept, base, settings)
        except IndexStateError as error:
            raise IndexStateError(f"{self._store.folder}: {error}") from error

    # ---- parts, made on first use

    @cached_property
    def _sandbox(self) -> Sandbox:
        return Sandbox(self.config)

    @cached_property
    def _cache(self) -> Any:
        return open_embedding_cache(
            self.config.cache_dir, size_gb=self.config.cache_size_gb, enabled=self.config.cache_embeddings
        )

    @cached_property
    def _dense(self) -> DenseIndex:
        return self._nearest(TEXT_SPACE)

    @cached_property
    def _visual(self) -> DenseIndex:
        return self._nearest(VISUAL_SPACE)

    def _nearest(self, space: str) -> DenseIndex:
        folder, name = self._store.folder, self.config.store
        if name == "faiss":
            return DenseIndex(self._store, space, kind=self.config.index, folder=folder)
        # beside the caches, not in the index's folder: what an engine of others reads there must not come with an index
        opened = partial(open_store, name, folder=None if self._ephemeral else self.config.cache_dir)
        return ElsewhereIndex(self._store, space, folder=folder, name=name, open_store=opened, quiet=self.config.quiet)

    @cached_property
    def _lexical(self) -> LexicalIndex:
        return LexicalIndex(self._store, folder=self._store.folder)

    @cached_property
    def _refiner(self) -> Refiner:
        return Refiner(
            self._store,
            lambda: self._chunker_of(self._models.text()),
            asking=lambda: self._embedder_of(self._models.text, StageClock()),
            writing=lambda: self._embedder_of(self._writing_text, StageClock(self.monitor, prefix="refine: ")),
            background=self.config.encode == "progressive",
            on_end=self._index_refined,
        )

    @cached_property
    def _unrefined(self) -> Unrefined:
        return Unrefined(
            self._store,
            self._lexical,
            self._dense,
            sketches=lambda: self._sketches,
            static=self._models.static,
            refinement=self._refiner,
        )

    @cached_property
    def _sketches(self) -> DenseIndex:
        return DenseIndex(self._store, self._models.static().space, kind=self.config.index, folder=self._store.folder)

    @cached_property
    def _evidence(self) -> EvidenceFinder:
        return EvidenceFinder(
            self._store,
            lambda function, **about: self._sandbox.call(function, **about),
            self._place,
            own=lambda: is_home(self._store, self.config.cache_dir),
        )

    @cached_property
    def _generators(self) -> Generators:
        from ultrafast_rag.answer.select import Generators

        return Generators(
            self.config,
            device=lambda: self._models.plan.devices[0],
            key=self._key,
            picture_of=self._picture_of,
            pool=lambda: self._models.pool,
        )

    @cached_property
    def _extractive(self) -> ExtractiveAnswerer:
        from ultrafast_rag.answer.extractive import ExtractiveAnswerer

        return ExtractiveAnswerer(self._models.text, self._lexical, self._models.reader)

    @cached_property
    def _fetcher(self) -> Fetcher:
        from ultrafast_rag.remote.fetch import Fetcher

        return Fetcher()  # public addresses only; no setting says otherwise

    def _place(self, source: str) -> Path:
        """Where the file of a source lies: of an address, the copy kept in the index's folder."""
        kept = kept_file(self._store.folder / FETCHED, source) if is_address(source) else None
        return kept or Path(source)

    def _fetch(self, address: str) -> Path:
        if self.config.offline:
            raise ExtractionError("Config(offline=True): nothing is fetched; download the file and ingest that")
        stop = self._stop
        return self._fetcher.fetch(address, self._store.folder / FETCHED, stopping=lambda: stop is not None and stop.is_set())

    def _picture_of(self, hit: Hit) -> bytes | None:
        """What a model that sees is sent along with a hit: its picture, or the page around it."""
        shown = self._evidence(hit) if hit.modality in ("image", "table", "video") else None
        return shown.data if shown is not None and shown.media_type.startswith("image/") else None

    def _asset_of(self, chunk: Chunk) -> bytes | None:
        return self._store.asset(chunk.asset) if chunk.asset else None

    def _searcher(self) -> Searcher:
        """One for an index with pictures, one without: it keeps a thread, which no search should have to start."""
        pictures = VISUAL_SPACE in self._store.spaces()
        if pictures not in self._searchers:
            self._searchers[pictures] = Searcher(
                self._store,
                self._lexical,
                self._dense,
                self._models.text,
                config=self.config,
                visual=self._visual if pictures else None,
                image_encoder=self._models.picture,
                names=NameIndex(self._store),
                reranker=self._models.reranker,
                unrefined=self._unrefined,
                monitor=self.monitor,
            )
        return self._searchers[pictures]

    def _asks(self) -> Searcher | Expander:
        """The searcher, or where a switch says so one that searches for more than the words of a question."""
        config = self.config
        if not (config.decompose or config.expansion_map or config.expansion != "none"):
            return self._searcher()
        from ultrafast_rag.search.expansion import Expander

        return Expander(self._searcher(), config, words=self._lexical, model=self._generators.form_filler)

    def _writing_text(self) -> TextEncoder:
        encoder = self._models.text()
        self._models.bind(TEXT_SPACE, encoder.space)
        return encoder

    def _writing_static(self) -> StaticEncoder:
        self._writing_text()  # an index is bound to it though its vectors come later
        return self._models.static()

    def _embedder(self, clock: StageClock, picture: Callable[[], ImageEncoder | None]) -> Embedder:
        static = None if self.config.encode == "first" else self._writing_static
        return self._embedder_of(self._writing_text, clock, picture, static=static)

    def _embedder_of(
        self,
        text: Callable[[], TextEncoder],
        clock: StageClock,
        picture: Callable[[], ImageEncoder | None] = lambda: None,
        **options: Any,
    ) -> Embedder:
        from ultrafast_rag.ingest.embed import Embedder

        return Embedder(text, picture, self._cache, clock, **options)

    def _writing_picture(self) -> ImageEncoder | None:
        encoder = self._models.picture()
        if encoder is not None:
            self._models.bind(VISUAL_SPACE, encoder.space)
        return encoder

    def _chunker(self) -> Chunker:
        encoder = self._writing_text()
        return self._chunker_of(encoder, embed=encoder.encode_tokens)

    def _chunker_of(self, tokenizer: Tokenizer, **options: Any) -> Chunker:
        from ultrafast_rag.ingest.chunk import Chunker

        return Chunker(self.config, tokenizer, **options)

    def _ports(self) -> Ports:
        from ultrafast_rag.ingest.pipeline import Ports

        return Ports(
            extract=lambda path, start_part: self._sandbox.extract(path, start_part=start_part),
            chunker=self._chunker,
            text=self._writing_text,
            picture=self._writing_picture,
            speech=self._models.speech,
            cache=self._cache,
            group=lambda: self._models.plan.group,
            static=None if self.config.encode == "first" else self._writing_static,
        )

    def _find(self, sources: Sequence[PathLike]) -> Found:
        from ultrafast_rag.extract.detect import media_type
        from ultrafast_rag.extract.discover import discover
        from ultrafast_rag.ingest.sources import find_sources

        return find_sources(self._store, sources, discover=discover, media_type=media_type, fetch=self._fetch)

    def _run(
        self, todo: Sequence[Source], clock: StageClock, until: Until, on_progress: Callable[[ProgressState], None] | None
    ) -> IngestStats:
        from ultrafast_rag.ingest.pipeline import Pipeline
        from ultrafast_rag.ingest.progress import progress_bar

        with progress_bar(quiet=self.config.quiet or on_progress is not None or not todo) as bar:
            pipeline = Pipeline(self.config, self._store, self._ports(), clock=clock, until=until, on_progress=on_progress or bar)
            if todo:
                self._sandbox.warm()
                self._unindexed = True
                pipeline.run(todo)
        return pipeline.stats

    def _enricher(self) -> Enricher:
        from ultrafast_rag.answer.gemini import estimate_tokens
        from ultrafast_rag.enrich.enricher import Enricher

        return Enricher(
            self._generators.form_filler(),
            self._store.folder,
            concurrency=self.config.enrich_concurrency,
            count_tokens=estimate_tokens,
            price=partial(cost_usd, self.config.gemini_model),
            quota=self._generators.quota(),
            image_of=self._asset_of,
        )

    def _tiers(self) -> dict[str, ResultTier]:
        """Where results of searches and answers outlive this process: none for an index that does not."""
        config = self.config
        redis_url, ttl_s = config.redis_url or os.environ.get("REDIS_URL"), config.query_cache_ttl_s
        tiers: dict[str, ResultTier] = {}
        if config.query_cache and not self._ephemeral:
            if config.query_cache_disk:
                tiers["disk"] = DiskTier(config.cache_dir / "queries", ttl_s=ttl_s)
            if redis_url:
                from ultrafast_rag.remote.redis_tier import RedisTier

                tiers["redis"] = RedisTier(redis_url, ttl_s=ttl_s)
        return tiers

    def _scope(self) -> str:
        """This index in this place (an archive restored elsewhere goes ways of its own), asked with these settings."""
        settings = {name: value for name, value in self.config.to_json().items() if name not in _NOT_ASKED}
        place = [self._store.uid, str(self._store.folder), platform.node(), settings, self._generators.available()]
        return hashlib.sha256(json.dumps(place, sort_keys=True).encode()).hexdigest()[:24]

    def _catch_up(self, stopping: Callable[[], bool] = lambda: False) -> bool:
        """Where vectors come first, passages that an earlier session left without get theirs before any new one does."""
        if self.config.encode != "first" or not self._refiner.first():
            return True
        return self._refiner.run(stopping, hold_s=math.inf)

    def _refine_on(self) -> None:
        """Go on in the background with the vectors that are still to come, where that is wanted."""
        if self.config.encode == "progressive":
            self._refiner.start()

    def _index_refined(self) -> None:
        with self._ingesting:
            self._unindexed = True
            self._index()

    @contextmanager
    def _writing(self, until: Until | None = None) -> Iterator[None]:
        """One writer at a time; `close` ends what is under way by `until`."""
        with self._ingesting:
            self._stop = self._stop if until is None else until.stop
            yield

    def _adopt(self, config: Config) -> None:
        """Make anew what asks for the text model, which is another from now on; the caller keeps ingests away."""
        self._refiner.stop()
        self._retired += [self._models, *self._searchers.values()]
        self.config = config
        self._models, self._searchers = Models(config, self._store, gemini_key=self._key), {}
        for name in ("_dense", "_sketches", "_unrefined", "_refiner", "_extractive", "semantic_cache"):
            self.__dict__.pop(name, None)
        if "memory" in self.__dict__:
            self.__dict__["memory"].space = config.text_model
        self._unindexed = True
        self._index()

    def _while_it_stays(self, search: Callable[[], Hits]) -> Hits:
        """What a search finds; made again where the index was moved to another text model meanwhile."""
        while True:
            models, generation = self._models, self._store.generation
            hits, failure = None, None
            try:
                hits = search()
            except (ValueError, AssertionError, UltraFastRAGError) as error:  # vectors of two models have other lengths
                failure = error
            if generation != self._checked or self._store.generation != generation:
                if moved := models.moved():
                    with self._ingesting:  # until who moves it has done so
                        if self._models is not models:
                            continue
                    raise IndexStateError(f"another process has moved this index to {moved}. Open it again") from failure
                self._checked = generation
            if hits is None:
                assert failure is not None
                raise failure
            return hits

    def _refined(self) -> float:
        """Share of the passages that have their vectors, 0 to 1."""
        left = self._store.count_without(TEXT_SPACE)
        return 1 - left / max(self._store.counts()["chunks"], 1) if left else 1.0

    def _index(self) -> None:
        """Bring the derived FAISS and BM25 files up to what is committed, when anything was."""
        if not self._unindexed:
            return
        self._store.compact()
        self._dense.build()
        if VISUAL_SPACE in self._store.spaces():
            self._visual.build()
        self._lexical.save()
        self._unindexed = False

    def _release(self) -> None:
        """Write the derived files, then close every part that was made, the store last, whatever fails."""
        with self._ingesting, ExitStack() as closing:
            closing.callback(self._store.close)  # called last
            closing.callback(self._models.close)
            for name in ("_generators", "_cache", "_sandbox", "query_cache", "memory"):
                if name in self.__dict__:
                    closing.callback(self.__dict__.pop(name).close)
            for leg in (self.__dict__.get("_dense"), self.__dict__.get("_visual")):
                if isinstance(leg, ElsewhereIndex):
                    closing.callback(leg.close)
            for part in self._retired:
                closing.callback(part.close)
            while self._searchers:
                closing.callback(self._searchers.popitem()[1].close)
            self._index()

    def _remember_config(self) -> None:
        if moved := self._models.moved():
            raise IndexStateError(f"another process has moved this index to {moved}. Open it again")
        settle(self._store, self.config.cache_dir)
        if self._store.get_meta(CONFIG_FACT) is None:
            self._store.set_meta(CONFIG_FACT, self.config.identity())

    def _check_fields(self, filters: Mapping[str, Any]) -> None:
        """ConfigError for a filter on a field that nothing in the index has; looked up only when nothing was found."""
        fields = sorted({*FIELDS, *self._store.metadata_fields()})
        for name in sorted(set(filters) - set(fields)):
            raise ConfigError(f"nothing in this index has the field {name!r}{did_you_mean(name, fields)}")

    def _unread(self) -> tuple[str, ...]:
        """What an answer may hide in: documents that no model here looked at or listened to."""
        silent = sum(self._store.of_kind(kind)[1] for kind in ("audio", "video"))
        pictures = self._store.of_kind("image")[0] if VISUAL_SPACE not in self._store.spaces() else 0
        return (
            *([f"{silent} recording(s) were not listened to: no speech model; doctor() says how to get one"] if silent else []),
            *([f"{pictures} picture(s) were not looked at: no picture model; doctor() says how to get one"] if pictures else []),
        )
