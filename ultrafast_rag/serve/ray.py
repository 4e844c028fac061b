"""Documents read and encoded by many machines, through Ray: `serve.ray.ingest(rag, "corpus/")`.

Each worker is an actor with readers and models of its own; it is handed one document at a time, one more waits, and no
others leave the caller: what has come back is committed before more is given out, so memory stays flat there and here.
The caller alone writes, through the index's one store; or the workers write points straight to Qdrant, whose sharding
and replication then serve search, and the index takes no part. A document whose worker or machine was lost is given to
another. Nothing comes twice: the store takes a document of the same content once, and a point's id is of its content.

Plain actors, not Ray Data, whose blocks would bring pyarrow and pandas for one row a document. Every machine needs this
package, the files under the same paths, and for Qdrant the same QDRANT_URL and QDRANT_API_KEY: no key is sent to one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ultrafast_rag.config import Config, default_cache_dir
from ultrafast_rag.errors import ConfigError, EncodingError, require
from ultrafast_rag.extract.detect import media_type
from ultrafast_rag.extract.discover import discover
from ultrafast_rag.index.stores import open_store
from ultrafast_rag.ingest.pipeline import Pipeline
from ultrafast_rag.ingest.sources import PathLike, Source, find_sources
from ultrafast_rag.ingest.stages import Until
from ultrafast_rag.monitor import StageClock
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import TEXT_SPACE, VISUAL_SPACE, IngestReport, PartCommit, Point, Progress, Record, Stat

AHEAD = 2  # documents a worker has at once: the next one is there when it ends one
TRIES = 3  # workers that a document may cost before it is named as failed, and that may die in a row before any work
COMMIT_PARTS = 64  # parts a transaction
_log = logging.getLogger("ultrafast_rag")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A document as a worker read it. whole: to its end. node: Ray's id of its machine.

    points: written to Qdrant; parts is then empty.
    """

    record: Record | None
    parts: Sequence[PartCommit]
    spaces: dict[str, str]
    node: str
    whole: bool
    failed: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    pages: int = 0
    chunks: int = 0
    embedded: int = 0
    points: int = 0


@dataclass(slots=True)
class _Kept:
    """A `ports.DocumentWriter` that keeps what is written, for the process that has the index."""

    folder: Path = Path("/nowhere")
    record: Record | None = None
    parts: list[PartCommit] = field(default_factory=list)
    whole: bool = False

    def documents_by_stat(self, sources: Any) -> dict[str, Stat]:
        """As the port says: nothing is known here."""
        return {}

    def begin_many(self, sources: Sequence[Record]) -> list[Progress]:
        """As the port says, for one document."""
        (self.record,) = sources
        return [Progress(0, self.record.id, 0, "", "new")]

    def move(self, source: Record) -> bool:
        """As the port says."""
        return False

    def commit(self, batch: Sequence[PartCommit]) -> list[list[int]]:
        """As the port says; ids are given where the index is."""
        self.parts += batch
        return [[] for _ in batch]

    def finish(self, *document_keys: int) -> None:
        """As the port says."""
        self.whole = True

    def fail(self, document_key: int) -> None:
        """As the port says."""


class Worker:
    """Reads and encodes one document after another; runs as an actor. share: of a GPU, 0 for none."""

    def __init__(self, settings: dict[str, Any], cores: int, share: float, collection: str | None) -> None:
        config = Config.from_json({**settings, "quiet": True, "encode": "first"})
        config = config.replace(threads=config.threads or cores, max_workers=min(config.max_workers, cores))
        if 0 < share < 1 and config.max_vram_gb is None:  # what is free now, a neighbour on the same GPU wants too
            total = require("torch").cuda.get_device_properties(0).total_memory
            config = config.replace(max_vram_gb=share * total / 2**30)
        self._rag, self._collection = UltraFastRAG(config=config), collection

    def ready(self) -> str:
        """Load the text encoder; returns the id of this machine."""
        _ = self._rag._models.text().space
        return str(require("ray", extra="ray").get_runtime_context().get_node_id())

    def read(self, source: Source) -> Encoded:
        """One document, read and encoded."""
        kept, rag = _Kept(), self._rag
        pipeline = Pipeline(rag.config, kept, rag._ports(), clock=StageClock(), until=Until())
        stats = pipeline.run([source])
        spaces = {TEXT_SPACE: rag._models.text().space}
        if any(VISUAL_SPACE in part.vectors for part in kept.parts):
            spaces[VISUAL_SPACE] = rag._models.picture().space  # type: ignore[union-attr]  # it made them
        node = str(require("ray", extra="ray").get_runtime_context().get_node_id())
        about = Encoded(kept.record, kept.parts, spaces, node, kept.whole, tuple(stats.failed), stats.shown_notes(), stats.parts,
                        stats.chunks, stats.embedded)  # fmt: skip
        if self._collection is None:
            return about
        points = list(_points(about))
        if points:
            store = open_store("qdrant", self._collection, len(points[0].vector))
            try:
                store.add(points)
            finally:
                store.close()
        return replace(about, parts=(), points=len(points))


def _points(document: Encoded) -> Iterator[Point]:
    """A point for each text vector, its id from what the document and the passage say: again the same, whoever makes it."""
    for part in document.parts:
        for row, number in enumerate(part.vector_chunks.get(TEXT_SPACE, ())):
            chunk, record = part.chunks[number], document.record
            assert record is not None
            name = f"{record.source}\0{record.content_hash}\0{part.part_number}\0{number}\0{row}"
            payload = {"document": record.id, "source": record.source, "modality": chunk.modality, "page": chunk.page,
                       "start_s": chunk.start_s, "text": chunk.text}  # fmt: skip
            at = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
            yield Point(at, part.vectors[TEXT_SPACE][row], payload)


def ingest(
    rag: UltraFastRAG,
    *sources: PathLike,
    workers: int = 2,
    min_workers: int = 1,
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
    collection: str | None = None,
    on_document: Callable[[Encoded], object] | None = None,
) -> IngestReport:
    """Read files and folders into the index by workers on a Ray cluster: the one connected to, at RAY_ADDRESS, or local.

    num_cpus, num_gpus: what Ray reserves for each worker; 0.5 of a GPU puts two on one. min_workers: how many must have
    started before work is given out. collection: write points to this collection of Qdrant instead of the index; those
    of an earlier version of a file stay until they are deleted there by their field "document".
    on_document: told of each document that came back, after it was committed. Unchanged files are skipped. The report's
    notes say how many workers were lost. EncodingError when workers die before they can work, again and again.
    """
    if not 1 <= min_workers <= workers:
        raise ConfigError(f"workers={workers} and min_workers={min_workers}: at least one, and no more than there are")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = require("ray", extra="ray")
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    start = time.perf_counter()
    found = find_sources(rag._store, sources, discover=discover, media_type=media_type)
    run = _Run(ray, rag, found.todo, collection, on_document)
    if found.todo:
        options = {"num_cpus": num_cpus, "num_gpus": num_gpus, "max_restarts": 0, "max_task_retries": 0}
        own = {"cache_dir"} if rag.config.cache_dir == default_cache_dir() else set()  # each machine has its own
        config = {name: value for name, value in rag.config.to_json().items() if name not in own}
        settings = (config, max(1, int(num_cpus)), num_gpus, collection)
        count = min(workers, len(found.todo))
        run.work(lambda: ray.remote(Worker).options(**options).remote(*settings), count, min(min_workers, count))
    report = run.report
    return replace(
        report,
        unchanged=found.unchanged + report.unchanged,
        failed=(*found.failed, *report.failed),
        seconds=time.perf_counter() - start,
    )


class _Run:
    """One ingest's bookkeeping: which worker has which documents."""

    def __init__(
        self,
        ray: Any,
        rag: UltraFastRAG,
        todo: Sequence[Source],
        collection: str | None,
        on_document: Callable[[Encoded], object] | None,
    ) -> None:
        self._ray, self._rag, self._collection, self._on_document = ray, rag, collection, on_document
        self._todo = deque(todo)
        self._running: dict[Any, tuple[Any, Source | None]] = {}  # a call's future -> its worker and document, None: `ready`
        self._cost: dict[str, int] = {}
        self._started: list[Any] = []
        self._lost = self._in_a_row = 0
        self.report = IngestReport()

    def work(self, hire: Callable[[], Any], workers: int, min_workers: int) -> None:
        """Until every document is back."""
        for _ in range(workers):
            self._hire(hire)
        try:
            while self._todo or any(source for _, source in self._running.values()):
                if len(self._started) >= min_workers:
                    min_workers = 1
                    self._give_out()
                (future,), _ = self._ray.wait(list(self._running), num_returns=1)
                worker, source = self._running.pop(future)
                try:
                    encoded = self._ray.get(future)
                except self._ray.exceptions.RayTaskError:
                    raise  # an error of ours, raised on the other machine
                except self._ray.exceptions.RayError as error:
                    self._lose(worker, source, error)
                    self._hire(hire)
                    continue
                self._in_a_row = 0
                if source is None:
                    self._started.append(worker)
                else:
                    self._take(source, encoded)
        finally:
            for worker in {worker for worker, _ in self._running.values()} | {*self._started}:
                self._ray.kill(worker)
            self._rag._unindexed = True
        self._rag._index()
        if self._lost:
            self._note(f"{self._lost} worker(s) were lost; their documents were read by others")

    def _hire(self, hire: Callable[[], Any]) -> None:
        worker = hire()
        self._running[worker.ready.remote()] = (worker, None)

    def _give_out(self) -> None:
        for _ in range(AHEAD):
            for worker in self._started:
                busy = sum(one is worker for one, _ in self._running.values())
                if self._todo and busy < AHEAD:
                    source = self._todo.popleft()
                    self._running[worker.read.remote(source)] = (worker, source)

    def _lose(self, worker: Any, source: Source | None, error: Exception) -> None:
        """What the worker had goes back to the front; a document that costs worker after worker is given up."""
        self._lost += 1
        self._started = [one for one in self._started if one is not worker]
        had = [source, *(one for future, (owner, one) in self._running.items() if owner is worker)]
        self._running = {future: pair for future, pair in self._running.items() if pair[0] is not worker}
        self._in_a_row += source is None
        if self._in_a_row >= TRIES:
            raise EncodingError(f"{TRIES} workers died before they could work; the last one: {error}") from error
        for document in reversed([one for one in had if one is not None]):
            self._cost[document.name] = self._cost.get(document.name, 0) + (document is source)
            if self._cost[document.name] >= TRIES:
                self._fail(document.name, f"{TRIES} workers died over it: {type(error).__name__}")
            else:
                self._todo.appendleft(document)
        _log.warning("a worker was lost (%s); its documents are read again", type(error).__name__)

    def _take(self, source: Source, encoded: Encoded) -> None:
        """Commit what came back, unless the index has it."""
        for name, why in encoded.failed:
            self._fail(name, why)
        for note in encoded.notes:
            self._note(note)
        if self._collection is None and encoded.record is not None and not self._commit(encoded.record, encoded):
            self.report = replace(self.report, unchanged=self.report.unchanged + 1)
        elif encoded.whole:
            report = self.report
            self.report = replace(
                report,
                documents=report.documents + 1,
                pages=report.pages + encoded.pages,
                chunks=report.chunks + encoded.chunks,
                embedded=report.embedded + encoded.embedded,
            )
        if self._on_document is not None:
            self._on_document(encoded)

    def _commit(self, record: Record, encoded: Encoded) -> bool:
        """False when the index has this content already."""
        rag, store = self._rag, self._rag._store
        with rag._ingesting:
            rag._remember_config()
            for space, made_by in encoded.spaces.items():
                rag._models.bind(space, made_by)
            store.move(record)
            (progress,) = store.begin_many([record])
            if progress.state == "unchanged":
                return False
            parts = [
                replace(part, document_key=progress.document_key)
                for part in encoded.parts
                if part.part_number >= progress.next_part
            ]
            for at in range(0, len(parts), COMMIT_PARTS):
                store.commit(parts[at : at + COMMIT_PARTS])
            (store.finish if encoded.whole else store.fail)(progress.document_key)
        return True

    def _fail(self, name: str, why: str) -> None:
        self.report = replace(self.report, failed=(*self.report.failed, (name, why)))

    def _note(self, note: str) -> None:
        if note not in self.report.notes:
            self.report = replace(self.report, notes=(*self.report.notes, note))
