"""UltraFastRAG: what one may ask of an index. Its parts are made on first use, in `parts.py`.

Opening an index to look at its documents loads nothing; a question loads the text encoder alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ultrafast_rag.config import Config, is_remote
from ultrafast_rag.enrich import ENRICHED
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.files import path_of
from ultrafast_rag.index.dense import DenseIndex
from ultrafast_rag.index.lexical import LexicalIndex
from ultrafast_rag.index.store import Store
from ultrafast_rag.ingest.stages import Until
from ultrafast_rag.language.asking import plain_question, respelled
from ultrafast_rag.language.safetext import unstorable
from ultrafast_rag.monitor import StageClock, peak_rss_mb, rss_mb
from ultrafast_rag.parts import Parts
from ultrafast_rag.remote import event_loop
from ultrafast_rag.remote.address import is_address, stored_name
from ultrafast_rag.search.asked import Asked
from ultrafast_rag.search.query_cache import QueryCache, frozen, normalised, writer_key
from ultrafast_rag.search.searcher import check_query, read_query
from ultrafast_rag.types import TEXT_SPACE, Answer, Documents, Facts, Hit, Hits, IngestReport, Leaf, ProgressState, Table, counted

if TYPE_CHECKING:  # imported where they are used: a question needs none of them
    from ultrafast_rag.answer.chat import Chat
    from ultrafast_rag.answer.memory import MemoryConsolidator
    from ultrafast_rag.answer.select import GeneratorChoice
    from ultrafast_rag.enrich.enricher import EnrichPlan, EnrichReport
    from ultrafast_rag.index.repair import Repair
    from ultrafast_rag.ingest.plan import EncodePlan
    from ultrafast_rag.ingest.sources import PathLike
    from ultrafast_rag.migration import Mover
    from ultrafast_rag.models.batch_embedder import BatchEmbedder
    from ultrafast_rag.ports import Tokenizer
    from ultrafast_rag.search.semantic_cache import SemanticCache

EDGES: dict[str, Callable[..., Any]] = {}
"""What the package root hangs onto this class from above, e.g. "widget"; no arrow points up for it."""


def _media_type(path: Path) -> str:
    from ultrafast_rag.extract.detect import media_type

    return media_type(path)


class UltraFastRAG(Parts):
    """Documents in, answers with evidence out.

        rag = UltraFastRAG("my_index")        # a folder: created, or reopened
        rag.ingest("paper.pdf", "photos/")
        print(rag.query("What did they find?"))

    path: the index folder; None makes an ephemeral one (the embedding cache still persists).
    config: all settings; single ones may be given by name instead: batch_size=32, alpha=0.5, ...
    extreme_mode=True is `Config.extreme()`; use_quantization=True is quantization="8bit".
    monitor: seconds of every stage of ingest and query, percentiles, errors (a `PerformanceMonitor`).
    gemini_api_key: else GEMINI_API_KEY or GOOGLE_API_KEY, a Kaggle or a Colab secret; never stored.
    Raises ConfigError for an impossible setting and IndexStateError when the folder's index was
    made with other models or chunks than those asked for.
    """

    def __init__(
        self,
        path: PathLike | None = None,
        *,
        config: Config | None = None,
        extreme_mode: bool = False,
        use_quantization: bool | None = None,
        gemini_api_key: str | None = None,
        **settings: Any,
    ) -> None:
        if not isinstance(use_quantization, bool | None):
            raise ConfigError(f"use_quantization is True or False, not {use_quantization!r:.80}; quantization= takes a kind")
        if use_quantization is not None:
            settings.setdefault("quantization", "8bit" if use_quantization else "none")
        if not isinstance(config, Config | None):
            raise ConfigError(f"config takes a Config, e.g. config=Config(k=3), not {type(config).__name__}")
        base = config or (Config.extreme() if extreme_mode else None)
        super().__init__(path, config=base, gemini_api_key=gemini_api_key, settings=settings)

    # ---- the way in

    def embedder(self, **options: Any) -> BatchEmbedder:
        """This index's text encoder behind a `BatchEmbedder` over the embedding cache, for the caller to close."""
        from ultrafast_rag.models.batch_embedder import BatchEmbedder

        return BatchEmbedder(self._models.text(), cache=self._cache, **options)

    def ingest(
        self,
        *sources: PathLike,
        time_budget_s: float | None = None,
        on_progress: Callable[[ProgressState], None] | None = None,
        stop: threading.Event | None = None,
    ) -> IngestReport:
        """Read files, folders and https addresses into the index; what the report counts as committed is durable.

        An address is fetched from public hosts only, each time anew; its name in the index holds no secret of its query, and
        the file is kept in the index's folder (in no archive), so that its pages can be shown.
        Unchanged files are skipped by size and time without being opened. time_budget_s: stop in
        good order after so many seconds; `report.complete` is then False and the next call goes on.
        stop: an event that does the same from another thread. Files that cannot be read are in
        `report.failed`; raises StorageError when the disk refuses and IndexLockedError when another
        process is writing.
        """
        from ultrafast_rag.ingest.sources import check_sources

        check_sources(sources)
        start, clock, until = time.perf_counter(), StageClock(self.monitor, prefix="ingest: "), Until(time_budget_s, stop)
        with self._writing(until):
            self._remember_config()
            if not self._catch_up(until):
                return IngestReport(complete=False, refined=self._refined(), seconds=time.perf_counter() - start)
            with clock.stage("discover"):
                found = self._find(sources)
            run = self._run(found.todo, clock, until, on_progress)
            with clock.stage("index"):
                self._index()
        self._refine_on()
        report = run.report(clock.seconds(), time.perf_counter() - start)
        failed = (*found.failed, *report.failed)
        for _, why in failed:
            self.monitor.record_error("ingest", why)
        notes = (*report.notes, *self._models.notes.values())
        return replace(report, unchanged=found.unchanged + report.unchanged, failed=failed, notes=notes, refined=self._refined())

    def ingest_document(self, source: PathLike, **options: Any) -> IngestReport:
        """`ingest` for one source."""
        return self.ingest(source, **options)

    def refine(self, *, wait: bool = True, time_budget_s: float | None = None) -> float:
        """Give every passage its vector; returns the share that has one, 0 to 1.

        Only `Config(encode="progressive")` and "on_demand" leave any without. wait: False goes on in the background, and
        returns at once. time_budget_s: stop in good order after so many seconds; the next call goes on. Questions go first
        meanwhile. Raises StorageError, EncodingError, and IndexLockedError when another process is writing.
        """
        from ultrafast_rag.ingest.progress import refine_bar
        from ultrafast_rag.ingest.refine import FOREGROUND_HOLD_S

        until = Until(time_budget_s)
        if not wait:
            self._refiner.start()
            return self._refined()
        self._refiner.stop()
        with self._writing(until):
            with refine_bar(self._store.count_without(TEXT_SPACE), quiet=self.config.quiet) as on_batch:
                whole = self._refiner.run(until, on_batch=on_batch, hold_s=FOREGROUND_HOLD_S)
            if whole:
                self._index_refined()
        return self._refined()

    def encode_plan(self, *sources: PathLike, text_model: str | None = None) -> EncodePlan:
        """What encoding would take in passages, tokens and dollars: of files that are new, or, without any, of every passage.

        text_model: another than the index's, e.g. the one to migrate to. Files are read and cut; nothing is encoded or sent.
        """
        from ultrafast_rag.ingest.plan import plan_of
        from ultrafast_rag.models.text.remote import Spelling, price_of_services

        config = self.config if text_model is None else self.config.replace(text_model=text_model)
        tokenizer: Tokenizer = Spelling() if is_remote(config.text_model) else self._models.text()
        return plan_of(
            self._find(sources) if sources else None,
            self._store.iter_texts(),
            self._chunker_of(tokenizer),
            self._ports().extract,
            text_model=config.text_model,
            price=partial(price_of_services, config),
        )

    def migrate(self, *, wait: bool = True, time_budget_s: float | None = None, **settings: Any) -> float:
        """Move the index to another text model; returns the share of the passages that it has encoded, 0 to 1.

            rag.migrate(text_model="intfloat/multilingual-e5-small")

        settings: text_model, and where wanted query_prompt, passage_prompt, text_dim; of a service also embeddings_base_url.
        The present model answers until every passage has its new vector; then all switch in one transaction. What was encoded
        is kept when the process is killed or time_budget_s is over: the same call goes on. wait: False works in the background.
        Passages stay as they were cut. Other processes that have the index open must open it again afterwards, with these
        settings. Raises ConfigError, WeightsError, EncodingError, StorageError, IndexLockedError.
        """
        from ultrafast_rag.migration import target_of

        return self._mover.migrate(target_of(self.config, settings), Until(time_budget_s), wait=wait)

    @cached_property
    def _mover(self) -> Mover:
        from ultrafast_rag.migration import Mover

        return Mover(
            self._store,
            self._writing,
            key=self._key,
            embedder=lambda text: self._embedder_of(text, StageClock(self.monitor, prefix="migrate: ")),
            adopt=self._adopt,
            quiet=self.config.quiet,
        )

    def _moving(self) -> AbstractContextManager[None]:
        """A question is being answered: a migration in the background waits."""
        return self._mover.asking() if "_mover" in self.__dict__ else nullcontext()

    def add_texts(
        self, texts: Sequence[str], *, ids: Sequence[str] | None = None, metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> IngestReport:
        """Add passages that are chunked already; each becomes a document of one chunk.

        ids: unique names, given back as `Hit.document_id`; by default from the text itself. An id
        that is there with the same text is skipped, with another text it is replaced. metadata: one
        mapping of JSON values per text; "title" is encoded with it. Raises ConfigError, with nothing added,
        when lengths differ, an id comes twice, or an entry cannot be stored (it is named).
        """
        from ultrafast_rag.ingest.texts import AT_ONCE, commit_passages, to_passages

        start, clock = time.perf_counter(), StageClock(self.monitor, prefix="ingest: ")
        passages, empty = to_passages(texts, ids, metadata)
        with self._ingesting:
            self._remember_config()
            self._catch_up()
            embedder = self._embedder(clock, self._writing_picture)
            added = commit_passages(self._store, embedder, self._models.text, passages)
            self._unindexed = self._unindexed or added > 0
            if added >= AT_ONCE:  # after a few texts, closing is soon enough
                with clock.stage("index"):
                    self._index()
        self._refine_on()
        return IngestReport(
            refined=self._refined(),
            documents=added,
            chunks=added,
            embedded=embedder.embedded,
            cache_hits=embedder.cache_hits,
            unchanged=len(passages) - added,
            failed=empty,
            seconds=time.perf_counter() - start,
            stage_seconds=clock.seconds(),
        )

    # ---- the way out

    def search(
        self,
        query: str | bytes | os.PathLike[str],
        *,
        k: int | None = None,
        alpha: float | None = None,
        modality: str | Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
        rerank: bool | None = None,
        neighbours: bool = False,
    ) -> Hits:
        """The k best passages and pictures for a question, or for a picture: encoded bytes, or a path, also as text.

        alpha: 0 words only, 1 meaning only. modality: one or several of "text", "table", "image",
        "audio", "video". filters: document fields or metadata, e.g. {"source": "talk.mp3"} or
        {"page": [3, 9]}. rerank needs Config(rerank_model=...). neighbours: also the text before and
        after each passage. Raises ConfigError for bad values.
        """
        query = read_query(query, media_type=_media_type)
        k, alpha = self.config.k if k is None else k, self.config.alpha if alpha is None else alpha
        again = bool(self.config.rerank_model) if rerank is None else rerank
        check_query(query, k=k, alpha=alpha, modality=modality, filters=filters)
        notes: tuple[str, ...] = ()
        if isinstance(query, str):
            query, notes = self._meant(query, alpha)
        asked = normalised(query) if isinstance(query, str) else hashlib.sha256(query).hexdigest()
        key = ("search", self._store.generation, asked, k, alpha, frozen(modality), frozen(filters), again, neighbours)
        known: Hits | None = self.query_cache.get(key) if self.config.query_cache else None
        if known is not None:
            known.evidence, known.seconds, known.notes = self._evidence, 0.0, notes
            return known
        with self.monitor.measure("search"), self._refiner.asking(), self._moving():
            options: dict[str, Any] = {"k": k, "alpha": alpha, "modality": modality, "filters": filters}
            hits = self._while_it_stays(lambda: self._asks().search(query, rerank=again, neighbours=neighbours, **options))
        hits.evidence = self._evidence
        if not hits and not self._store.counts()["chunks"]:
            hits.notes = ("the index is empty; ingest something first",)
        elif not hits and filters:
            self._check_fields(filters)
        if self.config.query_cache and not hits.notes:  # a model that failed to write variants may not fail again
            self.query_cache.put(key, hits)
        hits.notes = (*notes, *hits.notes)
        return hits

    def _meant(self, question: str, alpha: float) -> tuple[str, tuple[str, ...]]:
        """The question as it was meant, and a note where a word was read otherwise than it is written; see `language.asking`."""
        plain = type(question)(plain_question(question))  # `Words` stay so
        if not 0 < alpha < 1 or is_remote(self.config.text_model):  # words or meaning alone; no vocabulary is here
            return plain, ()
        tokenize = self._models.text().tokenize
        plain, read = respelled(plain, self._lexical.held, lambda word: len(tokenize([word])[0]))
        return type(question)(plain), tuple(f"“{word}” stands in no document; read as “{other}”" for word, other in read.items())

    def query(
        self,
        question: str,
        *,
        k: int = 10,
        alpha: float | None = None,
        modality: str | Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
        rerank: bool | None = None,
        generator: GeneratorChoice | None = None,
    ) -> Answer:
        """An answer with citations to what supports it, or an honest "not found". Arguments as in `search`.

        generator: "extractive", "gemini", "local", or a function of (question, hits); by default
        Config.generator. One that fails is a note on an extractive answer, never an exception.
        """
        options: dict[str, Any] = {"k": k, "alpha": alpha, "modality": modality, "filters": filters, "rerank": rerank}
        asked = self._asked(question, options, generator)
        if (known := asked.known()) is not None:
            return known
        hits = asked.search()
        with self.monitor.measure("answer"):
            answer = event_loop.run(self._generators.answerer(self._extractive, generator).answer(asked.meant, hits))
        return asked.finish(answer)

    @cached_property
    def query_cache(self) -> QueryCache:
        """What searches and answers gave: in memory, and on disk and in Redis where the config or REDIS_URL say so."""
        tiers = self._tiers()
        return QueryCache(self._scope() if tiers else "", tiers, ttl_s=self.config.query_cache_ttl_s)

    @cached_property
    def semantic_cache(self) -> SemanticCache:
        """Answers by the meaning of questions; asked only with Config(semantic_cache=True)."""
        from ultrafast_rag.search.semantic_cache import SemanticCache

        return SemanticCache(
            lambda questions: self._models.text().encode_queries(questions),
            fits=lambda question, answer: self._extractive.fits(question, answer),
            ttl_s=self.config.query_cache_ttl_s,
        )

    def _asked(self, question: str, options: dict[str, Any], generator: GeneratorChoice | None) -> Asked:
        return Asked(
            question,
            options,
            generator,
            alpha=self.config.alpha,
            generation=self._store.generation,
            exact=self.query_cache if self.config.query_cache else None,
            alike=self.semantic_cache if self.config.semantic_cache else None,
            evidence=self._evidence,
            means=partial(self._meant, question, self.config.alpha if (alpha := options.get("alpha")) is None else alpha),
            search=partial(self._search_to_answer, generator),
            unread=self._unread,
        )

    def _search_to_answer(self, generator: GeneratorChoice | None, question: str, **options: Any) -> Hits:
        if self._generators.extractive(generator) and self._store.alive().any():
            self._models.open_reader_ahead()
        return self.search(question, **options)

    async def aquery(self, question: str, **options: Any) -> Answer:
        """`query` for a running event loop, which stays free meanwhile; the same question at the same time is answered once."""
        self._generators.look_for_key()
        plain = {name: value for name, value in options.items() if name != "generator"}
        key = (self._store.generation, normalised(str(question)), frozen(plain), writer_key(options.get("generator")))
        answer: Answer = await self._flights.execute_query(key, self.query, question, **options)
        return answer

    def stream(
        self, question: str, *, k: int = 10, generator: GeneratorChoice | None = None, **options: Any
    ) -> Iterator[str | Answer]:
        """Sentences of the answer as they are written, then the whole `Answer`, whose text replaces them.

        A sentence is checked before it is shown: no link slips through in two halves. Arguments as in `query`; nothing is
        searched before the first piece is asked for. Leaving early stops the writer.
        """
        self._generators.look_for_key()
        return self._stream(question, {"k": k, **options}, generator)

    def _stream(self, question: str, options: dict[str, Any], generator: GeneratorChoice | None) -> Iterator[str | Answer]:
        asked = self._asked(question, options, generator)
        if (known := asked.known()) is not None:
            yield known
            return
        hits = asked.search()
        with self.monitor.measure("answer"):
            for piece in event_loop.stream(self._generators.answerer(self._extractive, generator).stream(asked.meant, hits)):
                yield asked.finish(piece) if isinstance(piece, Answer) else piece

    async def astream(
        self, question: str, *, k: int = 10, generator: GeneratorChoice | None = None, **options: Any
    ) -> AsyncIterator[str | Answer]:
        """`stream` for a running event loop."""
        self._generators.look_for_key()
        asked = self._asked(question, {"k": k, **options}, generator)
        if (known := asked.known()) is not None:
            yield known
            return
        hits = await asyncio.to_thread(asked.search)
        async for piece in event_loop.astream(self._generators.answerer(self._extractive, generator).stream(asked.meant, hits)):
            yield asked.finish(piece) if isinstance(piece, Answer) else piece

    def page(self, hit: Hit, number: int | None = None) -> Leaf:
        """The whole page that a hit is on, its passage marked, or another page of its document; see `Leaf`."""
        if not isinstance(hit, Hit):
            raise ConfigError(f"page takes a hit, e.g. rag.page(rag.search('...')[0]), not {hit!r:.80}")
        return self._evidence.leaf(hit, number)

    def sample_questions(self, n: int = 4) -> list[str]:
        """At most n questions that this index has something about, from its headings; [] for an empty one."""
        from ultrafast_rag.answer.conversation import sample_questions

        return sample_questions(self._store.sample(25 * n), n)

    # ---- conversation

    @cached_property
    def memory(self) -> MemoryConsolidator:
        """What conversations about this index left behind; beside the index, and in no archive of it."""
        from ultrafast_rag.answer.memory import FILE, MemoryConsolidator

        path = None if self._ephemeral else self._store.folder / FILE
        return MemoryConsolidator(path, encode=lambda texts: self._models.text().encode(texts), space=self.config.text_model)

    def chat(self, session: str = "default", *, follow_ups: bool = True) -> Chat:
        """A conversation that remembers what it is told and what it found, also after a restart, and forgets on request.

        session: names it; `chat.history` shows its turns. follow_ups: questions that lean on the one before are understood so.
        StorageError where the index's folder cannot be written.
        """
        from ultrafast_rag.answer.chat import Chat, answer_beside

        answer = partial(
            answer_beside,
            query=self.query,
            search=self.search,
            answerer=lambda generator: self._generators.answerer(self._extractive, generator),
        )
        return Chat(self.memory, answer, self.stream, session=session, follow_ups=follow_ups)

    # ---- enrichment

    def enrich_plan(self) -> EnrichPlan:
        """What `enrich` would take in requests, tokens, dollars and days; spends nothing."""
        from ultrafast_rag.enrich.indexing import unenriched

        with closing(self._enricher()) as enricher:
            return enricher.plan(unenriched(self._store))

    def enrich(self, *, limit_usd: float | None = None, time_budget_s: float | None = None) -> EnrichReport:
        """Have Gemini describe passages and pictures, and index what it says beside them.

        Within the quota and the limits given; results are kept as they come, so a run that was cut
        off goes on without paying twice. Raises ConfigError without a key.
        """
        return event_loop.run(self.aenrich(limit_usd=limit_usd, time_budget_s=time_budget_s))

    async def aenrich(self, *, limit_usd: float | None = None, time_budget_s: float | None = None) -> EnrichReport:
        """`enrich` for a running event loop."""
        from ultrafast_rag.enrich.indexing import index_enrichments, unenriched
        from ultrafast_rag.ingest.texts import commit_passages

        with closing(self._enricher()) as enricher:
            run = enricher.run(unenriched(self._store), limit_usd=limit_usd, time_budget_s=time_budget_s)
            await asyncio.to_thread(self._catch_up)
            embedder = self._embedder(StageClock(self.monitor, prefix="enrich: "), lambda: None)
            commit = partial(commit_passages, self._store, embedder, self._models.text)
            await event_loop.arun(index_enrichments(self._store, run, commit))
            return run.report

    # ---- the index

    def documents(self) -> Documents:
        """Every document in the index, a list that shows as a table; `complete` is False where an ingest was interrupted."""
        return Documents(document for document in self._store.documents() if not document.source.startswith(ENRICHED))

    def delete(self, source: PathLike) -> bool:
        """Remove a document by source or document id, with its chunks and vectors; False when it is not there."""
        path_of(source, "a source to delete")
        given = os.fspath(source)
        if why := unstorable(given):
            raise ConfigError(f"the source {given!r} {why}")
        names = (stored_name(given),) if is_address(given) else (given, str(Path(source).expanduser().resolve()))
        for name in names:
            if self._store.delete(name):
                if is_address(name):
                    self._place(name).unlink(missing_ok=True)
                self._store.delete(ENRICHED + name)
                self._unindexed = True
                return True
        return False

    def feedback(self, question: str, chunk_id: int | None, vote: int) -> None:
        """Store a thumbs up (+1) or down (-1) for an answer, or for one of its passages (`hit.chunk_id`)."""
        if vote not in (-1, 1):
            raise ConfigError(f"a vote is 1 or -1, not {vote}")
        if why := unstorable(question):
            raise ConfigError(f"the question {why}")
        if chunk_id is not None and not (isinstance(chunk_id, int) and self._store.chunks([chunk_id])):
            raise ConfigError(
                f"no passage {chunk_id!r}, so the vote was not stored; give the chunk_id of a hit, or None for the whole answer"
            )
        self._store.add_feedback(question, chunk_id, vote)
        if chunk_id is None:
            self.semantic_cache.feedback(question, vote > 0)

    @property
    def generation(self) -> int:
        """Moves on with each change of what a search can find, whichever process made it: until then a kept answer is good."""
        return self._store.generation

    def stats(self) -> Facts:
        """Counts, sizes, latencies, models in memory, and what was chosen for the index; a dictionary that shows as a table."""
        facts: dict[str, Any] = {
            **self._store.counts(),
            "refined": self._refined(),
            **({"moved": share} if "_mover" in self.__dict__ and (share := self._mover.share()) is not None else {}),
            "size_mb": self._store.size_bytes() / 1e6,
            "models": self._models.loaded(),
            "memory": [asdict(use) for use in self._models.use()],
            "index": dict(self._dense.info),
            "latency": self.monitor.get_summary(),
            "spent": self._generators.totals(),
            **({"encoded_by_service": self._models.sent.as_dict()} if is_remote(self.config.text_model) else {}),
            "rss_mb": rss_mb(),
            "peak_rss_mb": peak_rss_mb(),
            "query_cache": self.query_cache.get_stats(),
            **({"semantic_cache": self.semantic_cache.get_stats()} if self.config.semantic_cache else {}),
        }
        return Facts(facts)

    def doctor(self) -> Table:
        """What this machine offers, what was chosen and why, what is missing and what to do; verifies checksums too."""
        self._dense.refresh()
        from ultrafast_rag.doctor import examine

        return examine(self.config, self._store, self._models, index_info={TEXT_SPACE: dict(self._dense.info)})

    def tune(self, *, limit_s: float = 30.0) -> Table:
        """Find the fastest engine, batch budget and threads of this machine's text encoder, remember them, say what was gained.

        Nothing is remembered while other work slows the machine down.
        """
        return self._models.tune(limit_s)

    def warmup(self) -> None:
        """Load the text encoder and the index now rather than at the first question."""
        self._models.text().encode(["warm"])
        self._dense.refresh()
        self._lexical.search("warm", 1)

    def clear_memory(self) -> None:
        """Give cached memory back to the device and the system; the models stay loaded."""
        self._refiner.forget()
        self._models.clear_memory()

    def compact(self) -> int:
        """Rewrite what holds vectors of deleted passages; returns how many were dropped.

        Not needed as a habit: an ingest and `close` do it by themselves once more than a third is dead.
        """
        with self._ingesting:
            before = sum(count for name, count in self._store.counts().items() if name.startswith("vectors:"))
            self._store.compact(above=0.0)
            self._unindexed = True
            self._index()
            return before - sum(count for name, count in self._store.counts().items() if name.startswith("vectors:"))

    def export(self, archive: PathLike, *, paths: bool = False) -> Path:
        """Write the whole index to one .tar file, an index archive, consistent while others write; returns its path.

        Of this machine nothing travels: of a source's path only its last part, as far as that tells it from others.
        paths: True keeps whole paths. StorageError when the disk refuses.
        """
        from ultrafast_rag.index.archive import export_archive

        return export_archive(self._store, path_of(archive, "an index archive"), paths=paths)

    @classmethod
    def restore(cls, archive: PathLike, path: PathLike, **settings: Any) -> UltraFastRAG:
        """Unpack an index archive into a new folder, its sums checked, and open it; a failure leaves no folder.

        Sources are known by name and content: the same files, ingested again from wherever they are now, are
        unchanged, and evidence shows their pages from then on.
        """
        from ultrafast_rag.index.archive import restore_archive

        folder = restore_archive(path_of(archive, "an index archive"), path_of(path, "an index's folder"))
        try:
            return cls(folder, **settings)
        except BaseException:  # an interrupt too leaves no folder; the archive is untouched
            shutil.rmtree(folder, ignore_errors=True)
            raise

    @staticmethod
    def repair(path: PathLike) -> Repair:
        """Check every sum of the index in a folder and mend what can be mended; `print` the result for what was done.

        Whole rows are kept, damaged ones never guessed: documents that lost something are named and are read again by the
        next ingest. Nobody else may have it open. IndexStateError when there is no index, StorageError when the disk refuses.
        """
        from ultrafast_rag.index.repair import repair

        folder = Path(path).expanduser()
        report = repair(folder)
        if report.whole and report.derived:
            with Store.open(folder) as store:
                for space in store.spaces():
                    DenseIndex(store, space, folder=folder).build()
                LexicalIndex(store, folder=folder).save()
        return report

    def make_testset(self, n: int = 50) -> Any:
        """At most n questions made from this index's own passages, as `bench.questions.Question`; to compare settings with.

        Written by Gemini with Config(generator="gemini"), else a gap in a copied sentence or a heading, and marked so.
        """
        model = self._generators.form_filler() if self.config.generator == "gemini" else None
        return EDGES["make_testset"](self._store, n, model)

    def evaluate(self, questions: Any = None, *, k: int = 10, judge: Any = None) -> Any:
        """Ask each question and judge what comes back: a `bench.evaluate.Evaluation` of search, answers, support, time, money.

        questions: a file (JSON, JSON lines, CSV of question, answer, file, page), or a list of such rows or of
        `bench.questions.Question`, e.g. from `make_testset`; None takes the thumbs kept in this index. judge: "gemini", a model
        (`ports.StructuredModel`) or a function of (statement, passage) decides whether a passage bears a statement out; by
        default it must hold its words.
        Raises ConfigError without questions.
        """

        def encode(texts: Sequence[str]) -> Any:
            return self._models.text().encode(texts)

        return EDGES["evaluate"](
            self._store, self.search, self.query, encode, questions, k=k, judge=judge, model=self._generators.form_filler
        )

    def compare(self, configs: Mapping[str, Mapping[str, Any]], questions: Any, *, metric: str = "ndcg", k: int = 10) -> Any:
        """Which settings find more, and is it more than chance? A table with intervals and p-values, and `.plot()`.

        configs: name -> settings that change this session's, e.g. {"now": {}, "words only": {"alpha": 0.0}}; the first is
        what the others are held against. Settings of the search are asked of this index; others read its files again.
        metric: "ndcg", "recall", "precision", "mrr", "map" or "hit". Raises ConfigError for what cannot be compared.
        """
        return EDGES["compare"](self, self._store.folder, configs, questions, metric=metric, k=k)

    def data_report(self, *, before: PathLike | None = None) -> Table:
        """What was not read, what is empty, garbled or there twice, and each document's language.

        before: the folder of an earlier state of this index, to say what drifted since: documents, lengths, vectors.
        """
        if before is None:
            table: Table = EDGES["data_report"](self._store)
            return table
        with closing(Store.open(Path(before).expanduser(), write=False)) as earlier:
            compared: Table = EDGES["data_report"](self._store, earlier)
            return compared

    def widget(self, *, generator: Callable[..., Any] | None = None) -> Any:
        """The search panel for a notebook; a dialogue in text elsewhere. generator: a function that answers, as in `query`."""
        return EDGES["widget"](self, generator)

    def close(self) -> None:
        """Stop workers, give memory back, release the index. Using the object afterwards is an error.

        An ingest in another thread is stopped in good order first. All is closed and the index released whatever fails;
        then the first failure is raised, StorageError where a derived file could not be written: what was committed is
        safe, and the index can be opened again.
        """
        if self._stop is not None:
            self._stop.set()
        if "_refiner" in self.__dict__:
            self._refiner.stop()
            self._say_what_is_left()
        if "_mover" in self.__dict__:
            self._mover.stop()
        self._release()

    def _say_what_is_left(self) -> None:
        if self.config.encode == "progressive" and not self.config.quiet and (refined := self._refined()) < 1:
            sys.stderr.write(f"{self._store.folder}: searchable, {refined:.0%} refined; the next session goes on\n")

    def __enter__(self) -> UltraFastRAG:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._store.closed:
            return f"UltraFastRAG({str(self._store.folder)!r}: closed)"
        counts = self._store.counts()
        held = f"{counted(counts['documents'], 'document')}, {counted(counts['chunks'], 'chunk')}"
        return f"UltraFastRAG({str(self._store.folder)!r}: {held})"
