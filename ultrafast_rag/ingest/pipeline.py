"""Sources -> committed chunks: read, encode and commit at the same time, with bounded queues.

Reader threads lease extraction workers and put parts on one queue; the caller's thread chunks and
encodes (so that an interrupt in a notebook lands there); one committer writes. Each queue is short,
so memory stays flat however long a document is. What is committed is durable: an interrupted run
loses the parts still in the queues and nothing else, and the next run reads those again.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ExtractionError, MissingExtraError
from ultrafast_rag.files import sha256_of
from ultrafast_rag.ingest.chunk import Chunker, DocumentChunker
from ultrafast_rag.ingest.embed import Embedded, Embedder
from ultrafast_rag.ingest.sources import Source
from ultrafast_rag.ingest.stages import Overlap, Until
from ultrafast_rag.monitor import StageClock, rss_mb
from ultrafast_rag.ports import DocumentWriter, EmbeddingCache, ImageEncoder, StaticEncoder, TextEncoder, Transcriber
from ultrafast_rag.types import Chunk, Element, IngestReport, Part, PartCommit, ProgressState, Record, Segment

PARTS_AHEAD = 24  # parts read but not yet encoded
GROUPS_AHEAD = 2  # groups encoded but not yet committed
NOTES_SHOWN = 20  # a screenful
LONG_S = 20.0  # chosen: a shorter wait is not worth a word
SOONER = 'most of the time went into encoding: with encode="progressive" documents can be searched while that goes on'


@dataclass(frozen=True, slots=True)
class Ports:
    """What the pipeline needs of the stages. The models are callables: an unchanged folder loads none.

    picture and speech give None where no model can be had; the report then says what stays unread. static: see `Embedder`.
    group: tokens and pictures worth encoding and committing together on this device.
    """

    extract: Callable[[Path, int], Iterator[Part]]
    chunker: Callable[[], Chunker]
    text: Callable[[], TextEncoder]
    picture: Callable[[], ImageEncoder | None]
    speech: Callable[[], Transcriber | None]
    cache: EmbeddingCache
    group: Callable[[], tuple[int, int]]
    static: Callable[[], StaticEncoder] | None = None


@dataclass(slots=True)
class IngestStats:
    """Counts of one run, written by the caller's thread and the committer."""

    documents: int = 0
    parts: int = 0
    chunks: int = 0
    embedded: int = 0
    cache_hits: int = 0
    unchanged: int = 0
    complete: bool = True
    failed: list[tuple[str, str]] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)

    def report(self, stage_seconds: Mapping[str, float], seconds: float) -> IngestReport:
        """What the run did, for the user; of a long one that mostly encoded, what would not have to be waited for."""
        waited = seconds > LONG_S and stage_seconds.get("encode", 0.0) > seconds / 2
        return IngestReport(
            documents=self.documents,
            pages=self.parts,
            chunks=self.chunks,
            embedded=self.embedded,
            cache_hits=self.cache_hits,
            unchanged=self.unchanged,
            failed=tuple(self.failed),
            notes=(*self.shown_notes(), *([SOONER] if waited else [])),
            seconds=seconds,
            stage_seconds=stage_seconds,
            complete=self.complete,
        )

    def shown_notes(self) -> tuple[str, ...]:
        """The first notes, and how many there are beyond them."""
        notes = list(self.notes)
        more = [f"... and {len(notes) - NOTES_SHOWN} more notes"] if len(notes) > NOTES_SHOWN else []
        return (*notes[:NOTES_SHOWN], *more)


@dataclass(slots=True)
class _Open:
    """A document on its way. `chunker` remembers its sections."""

    source: Source
    key: int
    chunker: DocumentChunker | None
    section: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class _End:
    """The last thing read of a document; error says why it is not complete."""

    document: _Open
    error: str = ""
    interrupted: bool = False


@dataclass(slots=True)
class _Group:
    """Parts that are encoded and committed together, and the documents that end with them."""

    parts: list[tuple[_Open, Part, list[Chunk]]] = field(default_factory=list)
    ends: list[_End] = field(default_factory=list)
    tokens: int = 0
    pictures: int = 0


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A group ready to be written."""

    commits: list[PartCommit]
    ends: list[_End]
    embedded: Embedded


_Read = tuple[_Open, Part] | _End  # what readers put on the queue


class Pipeline:
    """One run over many sources. Not reusable: `run` once."""

    def __init__(
        self,
        config: Config,
        store: DocumentWriter,
        ports: Ports,
        *,
        clock: StageClock,
        until: Until,
        on_progress: Callable[[ProgressState], None] | None = None,
    ) -> None:
        self._config, self._store, self._ports, self._clock = config, store, ports, clock
        self._until, self._on_progress = until, on_progress
        self._started = time.perf_counter()
        self._sources: Sequence[Source] = ()
        self._opened: set[str] = set()
        self._embedder = Embedder(ports.text, ports.picture, ports.cache, clock, static=ports.static)
        self._totals: dict[int, int] = {}
        self._read_parts: dict[int, int] = {}
        self._shortest_s = math.inf
        self.stats = IngestStats()

    def run(self, sources: Sequence[Source]) -> IngestStats:
        """Read, encode and commit every source; failures are in the stats. A full disk or device raises.

        Raises StorageError or EncodingError after the threads have stopped; committed work stays.
        """
        self._sources = sources
        if self._config.pipelined:
            todo = _Shared(sources)
            readers = [self._read_all(todo) for _ in range(min(self._config.max_workers, len(sources)))]
            overlap: Overlap[_Read, _Encoded] = Overlap(
                items_ahead=PARTS_AHEAD, results_ahead=GROUPS_AHEAD, stop=self._until.stop
            )
            overlap.run(readers, self._encode_all, self._commit)
        else:
            for source in sources:
                read = self._read(source)
                for encoded in self._encode_all(read if self._config.streaming else iter(list(read))):
                    self._commit(encoded)
        self.stats.embedded, self.stats.cache_hits = self._embedder.embedded, self._embedder.cache_hits
        if self._until():
            self.stats.complete = False
        return self.stats

    # reading

    def _go_on(self) -> None:
        if self._until():
            raise _Stopped

    def _read_all(self, todo: Iterator[Source]) -> Iterator[_Read]:
        for source in todo:
            yield from self._read(source)

    def _read(self, source: Source) -> Iterator[_Read]:
        """A source's new parts, then its end. An unchanged one yields nothing."""
        try:
            self._go_on()
            with self._clock.stage("hash"):
                content_hash = sha256_of(source.path, before_piece=self._go_on)
        except _Stopped:
            self.stats.complete = False
            return
        except OSError as error:
            self.stats.failed.append((source.name, f"cannot be read: {error.strerror or error}"))
            return
        record = Record(source.name, content_hash, (source.size, source.mtime_ns), source.media_type)
        self._store.move(record)
        progress = self._store.begin_many([record])[0]
        if progress.state == "unchanged":
            self.stats.unchanged += 1
            self._opened.add(source.name)
            return
        document = _Open(source, progress.document_key, None, progress.section)
        yield from self._read_parts_of(document, progress.next_part)

    def _read_parts_of(self, document: _Open, next_part: int) -> Iterator[_Read]:
        parts = self._ports.extract(document.source.path, next_part)
        try:
            while True:
                with self._clock.stage("extract"):
                    part = next(parts, None)
                if part is None:
                    break
                yield document, part
                if self._until():
                    yield _End(document, interrupted=True)
                    return
        except (ExtractionError, MissingExtraError) as error:
            yield _End(document, error=str(error))
            return
        yield _End(document)

    # hearing, chunking and grouping

    def _heard(self, items: Iterator[_Read | None]) -> Iterator[_Read | None]:
        """The same items in their order, the sounds in them heard: several parts' together where the transcriber gains by it."""
        held, sounds = list[_Read](), 0
        for item in items:
            if item is not None:
                held.append(item)
                sounds += 0 if isinstance(item, _End) else sum(element.kind == "sound" for element in item[1].elements)
                if 0 < sounds < self._windows() and len(held) < PARTS_AHEAD:
                    continue
            yield from self._transcribed(held)
            held, sounds = [], 0
            if item is None:
                yield None
        yield from self._transcribed(held)

    def _windows(self) -> int:
        transcriber = self._ports.speech()
        return 1 if transcriber is None else transcriber.windows

    def _transcribed(self, held: Sequence[_Read]) -> Iterator[_Read]:
        """The parts with their sounds replaced by the words heard in them."""
        sounds = [e.data or b"" for item in held if not isinstance(item, _End) for e in item[1].elements if e.kind == "sound"]
        transcriber = self._ports.speech() if sounds else None
        heard: Iterator[list[Segment]] = iter(())
        if transcriber is not None:
            with self._clock.stage("transcribe"):
                heard = iter(transcriber.transcribe_many(sounds, language=self._config.speech_language))
        for item in held:
            if isinstance(item, _End):
                yield item
                continue
            document, part = item
            elements: list[Element] = []
            for element in part.elements:
                if element.kind != "sound":
                    elements.append(element)
                elif transcriber is not None:
                    elements += [_spoken(segment, element.start_s or 0.0) for segment in next(heard)]
                else:
                    name = Path(document.source.name).name
                    self.stats.notes[f"{name}: speech was not transcribed, no speech model is here"] = None
            yield document, replace(part, elements=tuple(elements))

    def _grouped(self, items: Iterator[_Read | None]) -> Iterator[_Group]:
        """Groups large enough to batch well; a lull in the reading ends one early, so no device waits."""
        group, (most_tokens, most_pictures) = _Group(), self._ports.group()
        for item in items:
            if item is None:
                if group.parts or group.ends:
                    yield group
                    group = _Group()
                continue
            if isinstance(item, _End):
                group.ends.append(item)
                continue
            document, part = item
            chunks = self._chunk(document, part)
            group.parts.append((document, part, chunks))
            group.tokens += sum(len(chunk.token_ids) for chunk in chunks)
            group.pictures += sum(chunk.data is not None for chunk in chunks)
            self._report(document, part, len(chunks))
            if group.tokens >= most_tokens or group.pictures >= most_pictures:
                yield group
                group = _Group()
        if group.parts or group.ends:
            yield group

    def _chunk(self, document: _Open, part: Part) -> list[Chunk]:
        for note in part.notes:
            self.stats.notes[f"{Path(document.source.name).name}: {note}"] = None
        if part.failure:
            self.stats.failed.append((document.source.name, part.failure))
        with self._clock.stage("chunk"):
            document.title = part.title or document.title
            if document.chunker is None:
                film = document.source.media_type.startswith("video")
                document.chunker = self._ports.chunker().start(title=document.title, section=document.section, film=film)
            return document.chunker.chunk(part)

    def _report(self, document: _Open, part: Part, chunks: int) -> None:
        self.stats.parts += 1
        self._read_parts[document.key] = self._read_parts.get(document.key, 0) + 1
        if part.total is not None:
            self._opened.add(document.source.name)
            self._totals[document.key] = max(part.total - part.number - 1, 0) + self._read_parts[document.key]
        if self._on_progress is None:
            return
        seconds = time.perf_counter() - self._started
        total = self._parts_total()
        done = self.stats.parts
        state = ProgressState(
            source=document.source.name,
            documents=self.stats.documents,
            documents_total=len(self._sources),
            parts=done,
            parts_total=total,
            chunks=self.stats.chunks,
            seconds=seconds,
            rss_mb=rss_mb(),
            eta_s=self._time_left(seconds / done * (total - done)) if total else None,
        )
        self._on_progress(state)

    def _parts_total(self) -> int | None:
        """Parts of all sources, supposing that a byte of those not opened yet holds as many as of those that are.

        At least the parts that are done: a source whose extractor knows no total counts as it is read.
        """
        opened = sum(source.size for source in self._sources if source.name in self._opened)
        if not self._totals or not opened:
            return None
        left = sum(source.size for source in self._sources) - opened
        known = sum(self._totals.values())
        return max(known + round(known / opened * left), self.stats.parts)

    def _time_left(self, seconds: float) -> float:
        """The estimate, which never climbs: a person who was told two minutes is not told three."""
        self._shortest_s = min(self._shortest_s, seconds)
        return self._shortest_s

    # encoding and committing

    def _encode_all(self, items: Iterator[_Read | None]) -> Iterator[_Encoded]:
        return map(self._encode, self._grouped(self._heard(items)))

    def _encode(self, group: _Group) -> _Encoded:
        embedded = self._embedder.embed([chunk for _, _, chunks in group.parts for chunk in chunks])
        for note in embedded.notes:
            self.stats.notes[note] = None
        commits, start = [], 0
        for document, part, chunks in group.parts:
            vectors, numbers = embedded.of(start, start + len(chunks))
            start += len(chunks)
            section = document.chunker.section if document.chunker else ""
            commit = PartCommit(
                document_key=document.key,
                part_number=part.number,
                chunks=chunks,
                vectors=vectors,
                vector_chunks=numbers,
                title=document.title,
                total=part.total,
                section=section,
                failure=part.failure,
            )
            commits.append(commit)
        return _Encoded(commits, group.ends, embedded)

    def _commit(self, encoded: _Encoded) -> None:
        with self._clock.stage("commit"):
            if encoded.commits:
                self._store.commit(encoded.commits)
            self.stats.chunks += sum(len(commit.chunks) for commit in encoded.commits)
            for end in encoded.ends:
                self._finish(end)
        with self._clock.stage("cache"):
            self._embedder.remember(encoded.embedded)

    def _finish(self, end: _End) -> None:
        if end.interrupted:
            self.stats.complete = False
        elif end.error:
            self._store.fail(end.document.key)
            self.stats.failed.append((end.document.source.name, end.error))
        else:
            self._store.finish(end.document.key)
            self.stats.documents += 1


class _Stopped(Exception):
    """Asked to end while a source was hashed; it is read another time."""


class _Shared(Iterator[Source]):
    """One iterator that several reader threads take from."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources, self._lock = iter(sources), threading.Lock()

    def __next__(self) -> Source:
        with self._lock:
            return next(self._sources)


def _spoken(segment: Segment, start_s: float) -> Element:
    metadata = {"spoken_language": segment.language} if segment.language else {}
    start_s, end_s = segment.start_s + start_s, segment.end_s + start_s
    return Element("speech", segment.text, start_s=start_s, end_s=end_s, metadata=metadata)
