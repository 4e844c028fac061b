"""The truth of an index: documents, chunks, progress and vectors, on disk, crash-safe.

SQLite holds everything but the vectors; those lie in append-only fp16 files whose valid length and
checksums SQLite holds. A batch is committed by one durable transaction, vectors first, so a kill at
any moment leaves either all of a batch or none. FAISS and BM25 files are derived from here and may be
thrown away. A changed document is built invisible beside its old version and takes its place in one
transaction. One writer, many readers, across processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.errors import IndexCorruptError, IndexStateError
from ultrafast_rag.files import sync
from ultrafast_rag.index import records, rows, totals, upkeep
from ultrafast_rag.index.database import FORMAT, plain_errors
from ultrafast_rag.index.lock import WriterLock
from ultrafast_rag.index.reading import Reading
from ultrafast_rag.index.rows import RowChunks
from ultrafast_rag.index.vectors import HalfVectors, VectorFile, row_sums, to_half
from ultrafast_rag.types import PartCommit, Progress, Record, Stat, Vectors

HOME = "home"  # meta: the machine whose files the sources are, see `home.py`
_COMPACT_ABOVE = 1 / 3  # dead share of a vector file that makes rewriting it worth the bytes


class Store(Reading):
    """One index folder. Thread-safe; a process that only reads takes no lock."""

    def __init__(self, folder: Path, *, write: bool, temporary: bool = False) -> None:
        super().__init__(folder, write=write)
        self._temporary, self._write = temporary, write
        self._lock = WriterLock(folder, "writer.lock")
        self._writing = threading.RLock()
        self._files: dict[str, VectorFile] = {}
        self._keeps_lock = False

    @classmethod
    def open(cls, folder: Path | str | None, *, write: bool = True) -> Store:
        """Open or create the index in `folder`; None: a temporary one, removed at close.

        write=False never creates and also works on read-only media.  IndexStateError when there is no
        index to read or a later version wrote it, IndexLockedError, IndexCorruptError, StorageError.
        """
        temporary = folder is None
        path = Path(tempfile.mkdtemp(prefix="ultrafast_rag-")) if folder is None else Path(folder)
        with plain_errors(path):
            path = path.resolve()
        if path.is_file():
            raise IndexStateError(f"{path} is a file; an index is a folder of its own. Name another.")
        store = cls(path, write=write, temporary=temporary)
        try:
            with plain_errors(path):
                store._prepare()
        except BaseException:  # an interrupt too releases lock and files
            store.close()
            raise
        return store

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._db.closed

    def _prepare(self) -> None:
        if not self._write and not self._db.path.exists() and not upkeep.leftovers(self.folder):
            raise IndexStateError(f"there is no index in {self.folder}. Ingest something into it first.")
        if self._write:
            self.folder.mkdir(parents=True, exist_ok=True)
        if self._db.is_new():
            if not self._write and not upkeep.leftovers(self.folder):
                raise IndexStateError(f"the index in {self.folder} is only now being made. Try again in a moment.")
            self._create()
        self._db.check_format()

    def _create(self) -> None:
        if left := upkeep.leftovers(self.folder):
            raise IndexCorruptError(
                f"{self._db.path} is missing or empty beside {', '.join(left)}: vectors alone say nothing. Restore an index "
                "archive; or move these files away and ingest the sources again: the embedding cache still knows their vectors."
            )
        self._lock.acquire()
        try:
            if self._db.is_new():
                self._db.create()
                sync(self.folder)
        finally:
            self._lock.release()

    # ---- writing

    @contextlib.contextmanager
    def _transaction(self, *, visible: bool = True, brief: bool = False, sweeps: bool = False) -> Iterator[sqlite3.Connection]:
        """One durable transaction of the only writer; visible=True moves `generation` on.

        brief: the lock goes back at the end, unless another transaction has kept it. sweeps: vector files that it replaced
        are removed once it is committed; under the lock, as another writer's new file is not named before its own commit.
        """
        if not self._write:
            raise IndexStateError(f"the index in {self.folder} was opened for reading only")
        with self._writing, plain_errors(self.folder):
            if self._db.closed:
                raise IndexStateError(f"the index in {self.folder} is closed. Open it again.")
            fresh = not self._lock.held
            self._lock.acquire()
            self._keeps_lock = self._keeps_lock or not brief
            if fresh:
                self._db.check_format()  # another process may have upgraded it
            writer = self._db.writer()
            writer.execute("BEGIN IMMEDIATE")
            try:
                upgraded = self._db.format < FORMAT and upkeep.upgrade(writer, self.folder)
                if fresh:
                    upkeep.sweep(writer, self.folder)
                yield writer
                if visible:
                    writer.execute("UPDATE state SET generation = generation + 1")
                writer.execute("COMMIT")
                if upgraded:
                    self._db.format = FORMAT
                    self._views.clear()
                if sweeps:
                    upkeep.sweep(writer, self.folder)
            except BaseException:  # an interrupt too ends the transaction
                with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back by itself after a full disk
                    writer.execute("ROLLBACK")
                raise
            finally:
                if not self._keeps_lock:
                    self._lock.release()

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
        return self.begin_many([Record(source, content_hash, stat, media_type, title, metadata or {}, document_id)])[0]

    def begin_many(self, sources: Sequence[Record]) -> list[Progress]:
        """`begin` for many documents in one transaction; none is opened when all are unchanged."""
        for source in sources:
            records.check_source(source)
        known = [self._find_unchanged(source) for source in sources]
        if all(progress is not None for progress in known):
            return [progress for progress in known if progress is not None]
        with self._transaction(visible=False) as writer:
            return [records.begin(writer, source) for source in sources]

    def _find_unchanged(self, source: Record) -> Progress | None:
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
                self._append(writer, space, *records.gather_space(space, batch, encoded, ids))
            for part in batch:
                if part.final:
                    records.finish(writer, part.document_key)
        return ids

    def add_vectors(self, space: str, chunk_ids: Sequence[int], vectors: Vectors) -> int:
        """Give stored chunks their vectors, in one durable transaction; returns how many were kept.

        chunk_ids: rising, and all after those that have vectors. What was deleted meanwhile, or has got a vector from
        another process, is left out. The lock is not kept: a process that only asks does not keep others from writing.
        """
        half = to_half(vectors, space)
        with self._transaction(brief=True) as writer:
            last = rows.last_owner(writer, space)
            wanted = json.dumps([int(number) for number in chunk_ids])
            found = writer.execute("SELECT id FROM chunks WHERE id IN (SELECT value FROM json_each(?))", (wanted,))
            known = {row[0] for row in found}
            keep = [n for n, number in enumerate(chunk_ids) if number > last and number in known]
            if keep:
                self._append(writer, space, half[keep], np.asarray(chunk_ids, dtype="<i4")[keep])
        return len(keep)

    def drop_vectors(self, space: str, *, up_to: int) -> None:
        """Forget a space's vectors of the chunks up to this one, and with them those of chunks that are gone."""
        if not (self.vectors(space).chunk_ids <= up_to).any():
            return
        with self._transaction(brief=True, sweeps=True) as writer:
            upkeep.compact_space(writer, self.folder, space, after=up_to)

    def drop_space(self, space: str) -> None:
        """Forget a space and all its vectors."""
        if space in self.spaces():
            with self._transaction(brief=True, sweeps=True) as writer:
                for table, column in (("blocks", "space"), ("spaces", "name")):
                    writer.execute(f"DELETE FROM {table} WHERE {column} = ?", (space,))
                totals.seal_spaces(writer)

    def replace_space(self, space: str, by: str, facts: Mapping[str, Any]) -> bool:
        """Let the vectors of one space take another's place, and keep facts about it, in one durable transaction.

        False, with nothing changed, while a chunk with words has no vector in the new one.
        """
        left = "SELECT 1 FROM chunks WHERE trim(text, ?) <> '' AND id > ? LIMIT 1"
        with self._transaction(sweeps=True) as writer:
            if writer.execute(left, (rows.SPACES, rows.last_owner(writer, by))).fetchone():
                return False
            if writer.execute("SELECT 1 FROM spaces WHERE name = ?", (by,)).fetchone():  # an index without passages has none
                upkeep.compact_space(writer, self.folder, by, to=space)
            for name, value in facts.items():
                records.set_meta(writer, name, json.dumps(value))
        return True

    def _append(self, writer: sqlite3.Connection, name: str, vectors: HalfVectors, owners: RowChunks) -> None:
        dim = vectors.shape[1]
        row = writer.execute("SELECT name, dim, rows, file FROM spaces WHERE name = ?", (name,)).fetchone()
        space = rows.to_space(row or (name, dim, 0, rows.file_name(name, 0)))
        if row is None:
            writer.execute("INSERT INTO spaces VALUES(?, ?, ?, ?)", space)
            totals.seal_spaces(writer)
        if space.dim != dim:
            raise IndexStateError(f"space {name!r} holds vectors of {space.dim} values, these have {dim}: another encoder's")
        if not len(vectors):
            return
        if rows.last_owner(writer, name) >= owners[0]:
            raise IndexCorruptError(f"{self.folder} has forgotten which passages it numbered. {rows.ADVICE}")
        file = self._files.get(name)
        if file is None or file.name != space.file:
            file = self._files[name] = VectorFile(self.folder, space)
        crc = file.append(space.rows, vectors)
        block = (space.rows, len(vectors), crc, owners.tobytes(), row_sums(vectors, owners).tobytes())
        writer.execute(rows.INSERT_BLOCK, (name, *block, rows.block_sum(*block)))
        writer.execute("UPDATE spaces SET rows = rows + ? WHERE name = ?", (len(vectors), name))
        totals.seal_spaces(writer)

    def finish(self, *document_keys: int) -> None:
        """Mark documents complete; a replacement takes its old version's place in this transaction."""
        with self._transaction() as writer:
            for key in document_keys:
                records.finish(writer, key)

    def move(self, source: Record) -> bool:
        """Take `source` for the new place of a complete document of the same content whose file is gone from its old one.

        False when there is none, or when the new place has a document already.
        """
        query = "SELECT source, size, mtime_ns FROM documents WHERE content_hash = ? AND visible AND complete"
        known = self._all(query, (source.content_hash,))
        gone = [old for old, *stat in known if stat == [0, 0] or (os.path.isabs(old) and not os.path.exists(old))]
        if not gone or any(old == source.source for old, *_ in known) or self.document(source.id) is not None:
            return False
        with self._transaction() as writer:
            companions = "SELECT key, source FROM documents WHERE source = ?1 OR source LIKE '%:' || ?1"  # what describes it
            for key, name in writer.execute(companions, (gone[0],)).fetchall():
                if name == gone[0]:
                    place = (source.id, source.source, *source.stat, key)
                    writer.execute("UPDATE documents SET id = ?, source = ?, size = ?, mtime_ns = ? WHERE key = ?", place)
                else:
                    new = name.removesuffix(gone[0]) + source.source
                    writer.execute("UPDATE documents SET source = ? WHERE key = ?", (new, key))
                rows.seal_document(writer, key)
        return True

    def fail(self, document_key: int) -> None:
        """Give up a document that cannot be read: what was committed of it stays, an empty or unfinished replacement goes."""
        with self._transaction() as writer:
            records.give_up(writer, document_key)

    def delete(self, source_or_document_id: str) -> bool:
        """Remove a document by id or source, with its chunks and the pictures nobody else uses. False: not known."""
        with plain_errors(self.folder), self._db.reading() as reader:
            find = "SELECT key FROM documents WHERE id = ?1 OR source = ?1"
            if reader.execute(find, (source_or_document_id,)).fetchone() is None:
                named = "SELECT 1 FROM documents NOT INDEXED WHERE id = ?1 OR source = ?1"
                if reader.execute(named, (source_or_document_id,)).fetchone():
                    raise totals.lost("the documents")  # from the table's index
                return False
        with self._transaction() as writer:
            keys = [row[0] for row in writer.execute(find, (source_or_document_id,)).fetchall()]
            for key in keys:
                records.remove(writer, key)
        return bool(keys)

    def set_meta(self, key: str, value: Any) -> None:
        """Keep a JSON value beside the documents."""
        with self._transaction(visible=False) as writer:
            records.set_meta(writer, key, json.dumps(value))

    def forget_places(self) -> None:
        """Take no file for a document's source before it was ingested here: what an archive says of files is not believed."""
        with self._transaction() as writer:
            for (key,) in writer.execute("SELECT key FROM documents WHERE size <> 0 OR mtime_ns <> 0").fetchall():
                writer.execute("UPDATE documents SET size = 0, mtime_ns = 0 WHERE key = ?", (key,))
                rows.seal_document(writer, key)
            records.drop_meta(writer, HOME)

    def add_feedback(self, question: str, chunk_id: int | None, vote: int, *, at: float | None = None) -> None:
        """Keep a vote (+1, 0, -1) on a hit; at: seconds since 1970, None for now."""
        with self._transaction(visible=False) as writer:
            made = writer.execute(
                "INSERT INTO feedback(question, chunk_id, vote, at) VALUES(?, ?, ?, ?)",
                (question, chunk_id, vote, time.time() if at is None else at),
            )
            totals.count_vote(writer, made.lastrowid)

    # ---- care

    def compact(self, *, above: float = _COMPACT_ABOVE) -> list[str]:
        """Rewrite vector files with more than this share of dead rows; returns the spaces rewritten."""
        with plain_errors(self.folder), self._db.reading() as reader:
            spaces = [name for name in self.spaces() if upkeep.dead_share(reader, self.vectors(name).chunk_ids) > above]
        if not spaces:
            return []
        with self._transaction(sweeps=True) as writer:
            for space in spaces:
                upkeep.compact_space(writer, self.folder, space)
        return spaces

    def snapshot(self, target: Path | str) -> None:
        """A consistent copy of the truth in an empty folder, while others read and write. Derived files are left out."""
        with plain_errors(self.folder):
            upkeep.snapshot(self._db, Path(target))

    def close(self) -> None:
        """Close files, give the lock back, remove a temporary folder, each whatever the others say. Twice is fine."""
        with self._writing, plain_errors(self.folder), contextlib.ExitStack() as closing:
            if self._temporary and self._db.opened_here:
                closing.callback(shutil.rmtree, self.folder, ignore_errors=True)
            closing.callback(self._lock.release)
            closing.callback(self._views.clear)
            for file in self._files.values():
                closing.callback(file.close)
            closing.callback(self._db.close)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
