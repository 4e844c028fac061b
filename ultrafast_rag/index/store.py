"""The truth of an index: documents, chunks, progress and vectors, on disk, crash-safe.

SQLite holds everything but the vectors; those lie in append-only fp16 files whose valid length and
checksums SQLite holds. A batch is committed by one durable transaction, vectors first, so a kill at
any moment leaves either all of a batch or none. FAISS and BM25 files are derived from here and may be
thrown away. A changed document is built invisible beside its old version and takes its place in one
transaction. One writer, many readers, across processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.errors import IndexCorruptError, IndexStateError
from ultrafast_rag.index import filters as filter_sql
from ultrafast_rag.index import records, upkeep
from ultrafast_rag.index.database import Database, plain_errors
from ultrafast_rag.index.lock import WriterLock
from ultrafast_rag.index.records import PartCommit, Progress, Source, Stat
from ultrafast_rag.index.vectors import HalfVectors, RowChunks, SpaceView, VectorFile, checksum, open_map, sync_folder, to_half
from ultrafast_rag.types import PAGE_HEAD, Chunk, Document, Mask

_MASKS_KEPT = 16
_SECTION_CHUNKS = 4
_COMPACT_ABOVE = 0.3  # dead share of a vector file that makes rewriting it worth the bytes


class Store:
    """One index folder. Thread-safe; a process that only reads takes no lock."""

    def __init__(self, folder: Path, *, write: bool, temporary: bool = False) -> None:
        self.folder, self._temporary, self._write = folder, temporary, write
        self._db = Database(folder, writable=write)
        self._lock = WriterLock(folder / "writer.lock")
        self._writing = threading.RLock()
        self._caching = threading.Lock()
        self._files: dict[str, VectorFile] = {}
        self._views: dict[str, SpaceView] = {}
        self._alive: tuple[int, int, int, Mask] = (-1, -1, 0, np.zeros(1, dtype=np.bool_))  # generation, removals, last id, mask
        self._masks: OrderedDict[str, tuple[int, Mask]] = OrderedDict()

    @classmethod
    def open(cls, folder: Path | str | None, *, write: bool = True) -> Store:
        """Open or create the index in `folder`; None: a temporary one, removed at close.

        write=False never creates and also works on read-only media.  IndexStateError when there is no
        index to read or a later version wrote it, IndexLockedError, IndexCorruptError, StorageError.
        """
        temporary = folder is None
        path = Path(tempfile.mkdtemp(prefix="ultrafast_rag-")) if folder is None else Path(folder)
        store = cls(path, write=write, temporary=temporary)
        try:
            with plain_errors(path):
                store._prepare()
        except BaseException:
            store.close()
            raise
        return store

    def _prepare(self) -> None:
        if not self._write and not self._db.path.exists():
            raise IndexStateError(f"there is no index in {self.folder}. Ingest something into it first.")
        if self._write:
            self.folder.mkdir(parents=True, exist_ok=True)
        if self._write and self._db.is_new():
            self._lock.acquire()
            if self._db.is_new():
                self._db.create()
                sync_folder(self.folder)
            self._lock.release()
        self._db.check_format()

    # ---- writing

    @contextlib.contextmanager
    def _transaction(self, *, visible: bool = True) -> Iterator[sqlite3.Connection]:
        """One durable transaction of the only writer; visible=True moves `generation` on."""
        if not self._write:
            raise IndexStateError(f"the index in {self.folder} was opened for reading only")
        with self._writing, plain_errors(self.folder):
            if self._db.closed:
                raise IndexStateError(f"the index in {self.folder} is closed. Open it again.")
            self._lock.acquire()
            writer = self._db.writer()
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
                if visible:
                    writer.execute("UPDATE state SET generation = generation + 1")
                writer.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back by itself after a full disk
                    writer.execute("ROLLBACK")
                raise

    def begin(
        self,
        source: str,
        *,
        content_hash: str,
        stat: Stat = (0, 0),
        media_type: str = "",
        title: str = "",
        metadata: Mapping[str, Any] | None = None,
        document_id: str | None = None,
    ) -> Progress:
        """Say that a document is about to be read; see `Progress`."""
        return self.begin_many([Source(source, content_hash, stat, media_type, title, metadata or {}, document_id)])[0]

    def begin_many(self, sources: Sequence[Source]) -> list[Progress]:
        """`begin` for many documents in one transaction; none is opened when all are unchanged."""
        known = [self._find_unchanged(source) for source in sources]
        if all(progress is not None for progress in known):
            return [progress for progress in known if progress is not None]
        with self._transaction(visible=False) as writer:
            return [records.begin(writer, source) for source in sources]

    def _find_unchanged(self, source: Source) -> Progress | None:
        with plain_errors(self.folder), self._db.reading() as reader:
            row = reader.execute(
                "SELECT key, next_part, section FROM documents WHERE id = ? AND visible AND complete AND content_hash = ? "
                "AND size = ? AND mtime_ns = ? "
                "AND NOT EXISTS (SELECT 1 FROM documents p WHERE p.id = documents.id AND NOT p.visible)",
                (source.id, source.content_hash, *source.stat),
            ).fetchone()
        return Progress(row[0], source.id, row[1], row[2], "unchanged") if row else None

    def commit(self, batch: Sequence[PartCommit]) -> list[list[int]]:
        """Store parts in one durable transaction; returns each part's new chunk ids.

        EncodingError before anything is written when a vector is NaN, infinite or zero; StorageError
        when the disk refuses, with nothing stored: the same call works after space was freed.
        """
        encoded = [{space: to_half(vectors, space) for space, vectors in part.vectors.items()} for part in batch]
        for part, halves in zip(batch, encoded):
            records.check_part(part, halves)
        with self._transaction() as writer:
            ids = [records.insert_part(writer, part) for part in batch]
            for space in dict.fromkeys(space for halves in encoded for space in halves):
                rows, owners = records.gather_space(space, batch, encoded, ids)
                self._append(writer, space, rows, owners)
            for part in batch:
                if part.final:
                    records.finish(writer, part.document_key)
        return ids

    def _append(self, writer: sqlite3.Connection, space: str, rows: HalfVectors, owners: RowChunks) -> None:
        dim = rows.shape[1]
        known = writer.execute("SELECT dim, rows, file FROM spaces WHERE name = ?", (space,)).fetchone()
        if known is None:
            known = (dim, 0, upkeep.file_name(space, 0))
            writer.execute("INSERT INTO spaces VALUES(?, ?, 0, ?)", (space, dim, known[2]))
        if known[0] != dim:
            raise IndexStateError(f"space {space!r} holds vectors of {known[0]} values, these have {dim}: another encoder's")
        if not len(rows):
            return
        file = self._files.get(space)
        if file is None or file.path.name != known[2]:
            file = self._files[space] = VectorFile(self.folder / known[2], dim)
        crc = file.append(known[1], rows)
        block = (space, known[1], len(rows), crc, owners.tobytes())
        writer.execute("INSERT INTO blocks VALUES(?, ?, ?, ?, ?)", block)
        writer.execute("UPDATE spaces SET rows = rows + ? WHERE name = ?", (len(rows), space))

    def finish(self, *document_keys: int) -> None:
        """Mark documents complete; a replacement takes its old version's place in this transaction."""
        with self._transaction() as writer:
            for key in document_keys:
                records.finish(writer, key)

    def fail(self, document_key: int) -> None:
        """Give up a document that cannot be read: what was committed of it stays, an empty or unfinished replacement goes."""
        with self._transaction() as writer:
            records.give_up(writer, document_key)

    def delete(self, source_or_document_id: str) -> bool:
        """Remove a document by id or source, with its chunks and the pictures nobody else uses. False: not known."""
        with plain_errors(self.folder), self._db.reading() as reader:
            find = "SELECT key FROM documents WHERE id = ?1 OR source = ?1"
            if reader.execute(find, (source_or_document_id,)).fetchone() is None:
                return False
        with self._transaction() as writer:
            keys = [row[0] for row in writer.execute(find, (source_or_document_id,)).fetchall()]
            for key in keys:
                records.remove(writer, key)
        return bool(keys)

    def set_meta(self, key: str, value: Any) -> None:
        """Keep a JSON value beside the documents."""
        with self._transaction(visible=False) as writer:
            writer.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (key, json.dumps(value)))

    def add_feedback(self, question: str, chunk_id: int | None, vote: int, *, at: float | None = None) -> None:
        """Keep a vote (+1, 0, -1) on a hit; at: seconds since 1970, None for now."""
        with self._transaction(visible=False) as writer:
            writer.execute(
                "INSERT INTO feedback(question, chunk_id, vote, at) VALUES(?, ?, ?, ?)",
                (question, chunk_id, vote, time.time() if at is None else at),
            )

    # ---- reading

    def get_meta(self, key: str, default: Any = None) -> Any:
        """The JSON value kept under `key`."""
        row = self._one("SELECT value FROM meta WHERE key = ?", (key,))
        return json.loads(row[0]) if row else default

    @property
    def generation(self) -> int:
        """Moves on with each commit that changes what a search can find, whichever process made it."""
        return int(self._one("SELECT generation FROM state")[0])

    @property
    def uid(self) -> str:
        """Drawn when the index was made: tells files derived from it from those of another."""
        return str(self._one("SELECT uid FROM state")[0])

    def unchanged(self, source: str, stat: Stat) -> bool:
        """Whether a complete document has this source, size and modification time: no need to read the file."""
        return self.documents_by_stat([source]).get(source) == tuple(stat)

    def documents_by_stat(self, sources: Iterable[str]) -> dict[str, Stat]:
        """(size, mtime_ns) of the complete ones among these sources."""
        rows = self._all(
            "SELECT source, size, mtime_ns FROM documents WHERE visible AND complete "
            "AND source IN (SELECT value FROM json_each(?))",
            (json.dumps(list(sources)),),
        )
        return {source: (size, mtime_ns) for source, size, mtime_ns in rows}

    def documents(self) -> list[Document]:
        """Every searchable document, oldest first."""
        return [records.to_document(row) for row in self._all(records.DOCUMENT_ROWS + "ORDER BY d.key")]

    def document(self, document_id: str) -> Document | None:
        """The searchable document with this id, or None."""
        row = self._one(records.DOCUMENT_ROWS + "AND d.id = ?", (document_id,))
        return records.to_document(row) if row else None

    def failures(self, document_id: str) -> list[tuple[int, str]]:
        """(part number, why) of each part that could not be read."""
        return self._all(
            "SELECT p.number, p.failure FROM parts p JOIN documents d ON d.key = p.document "
            "WHERE d.id = ? AND d.visible AND p.failure IS NOT NULL ORDER BY p.number",
            (document_id,),
        )

    def chunks(self, chunk_ids: Sequence[int]) -> list[Chunk]:
        """Searchable chunks in the order asked; ids that are gone are left out."""
        wanted = [int(number) for number in chunk_ids]
        rows = self._all(records.CHUNK_ROWS + "AND c.id IN (SELECT value FROM json_each(?))", (json.dumps(wanted),))
        found = {row[0]: records.to_chunk(row) for row in rows}
        return [found[number] for number in wanted if number in found]

    def asset(self, sha256: str) -> bytes | None:
        """The stored picture with this hash, or None."""
        row = self._one("SELECT data FROM assets WHERE sha256 = ?", (sha256,))
        return bytes(row[0]) if row else None

    def neighbours(self, chunk: Chunk) -> tuple[str, str]:
        """Text of the chunk before and after in the same document, "" at its ends.

        Where the chunker marked sections (metadata "section"), the rest of the chunk's section, up to
        `_SECTION_CHUNKS` chunks either way.
        """
        section = chunk.metadata.get("section")
        near = (
            "SELECT text, context FROM chunks WHERE document = (SELECT document FROM chunks WHERE id = ?1) AND id {0} ?1 "
            "AND text <> '' ORDER BY id {1} LIMIT ?2"
        )
        sides = []
        for comparison, order in (("<", "DESC"), (">", "ASC")):
            rows = self._all(near.format(comparison, order), (chunk.id, _SECTION_CHUNKS if section else 1))
            texts = [text for text, _ in takewhile(lambda row: not section or row[1] == chunk.context, rows)]
            sides.append("\n".join(reversed(texts) if comparison == "<" else texts))
        return sides[0], sides[1]

    def iter_texts(self, after_chunk_id: int = 0) -> Iterator[tuple[int, str]]:
        """(chunk id; context, page head and text) in id order, pages at a time; documents not yet visible are included."""
        columns = f"id, context, json_extract(metadata, '$.{PAGE_HEAD}'), text"
        while rows := self._all(f"SELECT {columns} FROM chunks WHERE id > ? ORDER BY id LIMIT 2000", (after_chunk_id,)):
            for number, *said in rows:
                yield number, "\n".join(str(words) for words in said if words)
            after_chunk_id = rows[-1][0]

    def alive(self) -> Mask:
        """Mask of the chunks a search may return; read-only, kept until the next commit."""
        with self._caching, plain_errors(self.folder), self._db.snapshot() as reader:
            generation, removals = reader.execute("SELECT generation, removals FROM state").fetchone()
            old_generation, old_removals, last, mask = self._alive
            if generation == old_generation:
                return mask
            start = last if removals == old_removals else 0
            runs = reader.execute(
                "SELECT p.first_chunk, p.chunks FROM parts p JOIN documents d ON d.key = p.document "
                "WHERE d.visible AND p.chunks > 0 AND p.first_chunk > ?",
                (start,),
            ).fetchall()
            top = reader.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'chunks'").fetchone()[0]
            grown = records.mask_of(runs, top, mask[: start + 1])
            self._alive = (generation, removals, top, grown)
            return grown

    def allowed(self, filters: Mapping[str, Any]) -> Mask:
        """Mask of the searchable chunks that match every filter.

        source (path, its last components, or a glob), document_id, modality, title, page (number or [first,
        last]); any other key is looked for in the chunk's and document's metadata. A list means any of these.
        """
        if not filters:
            return self.alive()
        alive = self.alive()
        generation = self._alive[0]
        name = json.dumps(filters, sort_keys=True, default=str)
        with self._caching:
            known = self._masks.get(name)
            if known and known[0] == generation:
                return known[1]
        sources = self._all("SELECT key, source FROM documents WHERE visible") if "source" in filters else []
        text, values = filter_sql.where(filters, sources)
        rows = self._all(f"SELECT c.id FROM chunks c JOIN documents d ON d.key = c.document WHERE d.visible AND {text}", values)
        mask = np.zeros(len(alive), dtype=np.bool_)
        ids = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
        mask[ids[ids < len(mask)]] = True
        mask.flags.writeable = False
        with self._caching:
            self._masks[name] = (generation, mask)
            if len(self._masks) > _MASKS_KEPT:
                self._masks.popitem(last=False)
        return mask

    def spaces(self) -> list[str]:
        """Names of the vector spaces."""
        return [row[0] for row in self._all("SELECT name FROM spaces ORDER BY name")]

    def vectors(self, space: str) -> SpaceView:
        """Committed rows of a space; a space nobody wrote to is empty with 0 columns."""
        for _ in range(3):  # a compaction by another process may remove the file between the two looks
            try:
                return self._view(space)
            except FileNotFoundError:
                self._views.pop(space, None)
        raise IndexCorruptError(f"the vector file of space {space!r} is missing in {self.folder}. Restore a snapshot.")

    def _view(self, space: str) -> SpaceView:
        with self._caching, plain_errors(self.folder), self._db.snapshot() as reader:
            row = reader.execute("SELECT dim, rows, file FROM spaces WHERE name = ?", (space,)).fetchone()
            if row is None:
                return SpaceView(np.empty((0, 0), dtype="<f2"), np.empty(0, dtype=np.int32), "")
            dim, rows, file = row
            known = self._views.get(space)
            if known and known.file == file and len(known.chunk_ids) == rows:
                return known
            ids = known.chunk_ids if known and known.file == file else np.empty(0, dtype=np.int32)
            blocks = reader.execute(
                "SELECT first_row, rows, crc32, chunk_ids FROM blocks WHERE space = ? AND first_row >= ? ORDER BY first_row",
                (space, len(ids)),
            ).fetchall()
        view = open_map(self.folder / file, rows, dim)
        if known is None and blocks:  # a torn tail is what a bad disk leaves most often; `verify` reads the rest
            first, count, crc, _ = blocks[-1]
            if checksum(view[first : first + count].tobytes()) != crc:
                raise IndexCorruptError(f"{file}: the last {count} rows fail their checksum. Restore a snapshot of the index.")
        ids = np.concatenate([ids, *(np.frombuffer(block[3], dtype="<i4") for block in blocks)])
        ids.flags.writeable = False
        found = self._views[space] = SpaceView(view, ids, file)
        return found

    def digest(self, space: str, rows: int) -> str:
        """SHA-256 over the block checksums of a space's first rows: names what a derived file was made from."""
        blocks = self._all(
            "SELECT first_row, rows, crc32 FROM blocks WHERE space = ? AND first_row < ? ORDER BY first_row", (space, rows)
        )
        return hashlib.sha256(json.dumps([space, rows, blocks]).encode()).hexdigest()

    def feedback(self) -> list[dict[str, Any]]:
        """Every vote kept, oldest first."""
        return [
            {"question": question, "chunk_id": chunk_id, "vote": vote, "at": at}
            for question, chunk_id, vote, at in self._all("SELECT question, chunk_id, vote, at FROM feedback ORDER BY id")
        ]

    def counts(self) -> dict[str, int]:
        """documents, complete, parts, chunks, assets, and for each space its rows as "vectors:NAME"."""
        documents, complete = self._one("SELECT count(*), coalesce(sum(complete), 0) FROM documents WHERE visible")
        parts, chunks = self._one(
            "SELECT count(*), coalesce(sum(p.chunks), 0) FROM parts p JOIN documents d ON d.key = p.document WHERE d.visible"
        )
        counts = {"documents": documents, "complete": complete, "parts": parts, "chunks": chunks}
        counts["assets"] = self._one("SELECT count(*) FROM assets")[0]
        return counts | {f"vectors:{name}": rows for name, rows in self._all("SELECT name, rows FROM spaces ORDER BY name")}

    def size_bytes(self) -> int:
        """Bytes of every file in the folder."""
        total = 0
        for path in self.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size if path.is_file() else 0
        return total

    # ---- care

    def verify(self) -> list[str]:
        """Read everything and compare with its checksums; what is wrong, in words, or []."""
        with plain_errors(self.folder):
            return upkeep.problems(self._db)

    def compact(self, *, above: float = _COMPACT_ABOVE) -> list[str]:
        """Rewrite vector files with more than this share of dead rows; returns the spaces rewritten."""
        with plain_errors(self.folder), self._db.reading() as reader:
            spaces = [space for space in self.spaces() if upkeep.dead_share(reader, space) > above]
        if not spaces:
            return []
        with self._transaction() as writer:
            old = [upkeep.compact_space(writer, self.folder, space) for space in spaces]
        for path in old:
            with contextlib.suppress(OSError):  # Windows keeps a mapped file; the next compaction is not hurt by it
                path.unlink()
        return spaces

    def snapshot(self, target: Path | str) -> None:
        """A consistent copy of the truth in an empty folder, while others read and write. Derived files are left out."""
        with plain_errors(self.folder):
            upkeep.snapshot(self._db, Path(target))

    def close(self) -> None:
        """Close files, give the lock back, remove a temporary folder. Twice is fine."""
        with self._writing:
            self._db.close()
            for file in self._files.values():
                file.close()
            self._files.clear()
            self._views.clear()
            self._lock.release()
            if self._temporary:
                shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with plain_errors(self.folder), self._db.reading() as reader:
            return reader.execute(sql, values).fetchall()

    def _one(self, sql: str, values: Sequence[Any] = ()) -> Any:
        with plain_errors(self.folder), self._db.reading() as reader:
            return reader.execute(sql, values).fetchone()
