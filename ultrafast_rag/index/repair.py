"""Mend a damaged index: keep every row that its checksum says is whole, say what is not, and leave nothing else to be served.

The truth cannot be made again from itself. So a damaged database is read around its bad pages, row by row; what is
whole goes into a new one, which takes its place, and the old one is kept beside it under another name. Documents that
lost something stay searchable as far as they are whole and are marked, so that the next ingest reads them again.
Vectors without a passage go. FAISS and BM25 files are derived: damaged ones are removed, whoever opens the index next
makes them again. Nothing is guessed: a row that fails its checksum is not used for anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.errors import IndexCorruptError, IndexStateError
from ultrafast_rag.files import open_inside, sync, write_all
from ultrafast_rag.index import ann, lexical, rows, totals, upkeep
from ultrafast_rag.index.database import DATABASE, Database, plain_errors
from ultrafast_rag.index.lock import WriterLock
from ultrafast_rag.index.rows import Block, Space
from ultrafast_rag.index.vectors import BYTES_PER_VALUE, checksum, open_map, row_sums
from ultrafast_rag.types import Table, counted

KEPT = f"{DATABASE}.damaged"
_QUERIES = 50_000  # spent on reading around bad pages; what is not found by then counts as lost
_SIDES = ("", "-wal", "-shm")
_LISTED = 20  # findings named one by one
Row = tuple[Any, ...]


@dataclass(slots=True)
class Repair:
    """What was damaged and what was done.

    again: sources to ingest again. whole: there is an index, and all of it can be served. derived: FAISS or BM25 files went.
    """

    found: list[tuple[str, str, str]] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    whole: bool = True
    derived: bool = False

    def add(self, part: str, damage: str, done: str) -> None:
        """One more row."""
        self.found.append((part, damage, done))

    @property
    def table(self) -> Table:
        """Rows of part, damage and what was done."""
        listed = [{"part": part, "damage": damage, "done": done} for part, damage, done in self.found]
        notes = [f"ingest again: {', '.join(self.again)}"] if self.again else []
        return Table(listed or [{"part": "index", "damage": "none", "done": "nothing"}], title="repair", notes=tuple(notes))

    def __str__(self) -> str:
        return str(self.table)


def repair(folder: Path) -> Repair:
    """Check every sum in an index folder and mend what can be mended; see the module.

    IndexStateError when there is no index, IndexLockedError while another process writes, StorageError when the disk
    refuses: the index is then as it was.
    """
    folder = folder.expanduser().resolve()
    report, lock = Repair(), WriterLock(folder, "writer.lock")
    if not (folder / DATABASE).exists() and not upkeep.leftovers(folder):
        raise IndexStateError(f"there is no index in {folder}. Name the folder of one.")
    with plain_errors(folder):
        lock.acquire()
        try:
            _mend(folder, report)
        finally:
            lock.release()
    return report


def _mend(folder: Path, report: Repair) -> None:
    database = Database(folder, writable=True)
    try:
        if _is_lost(database):
            _set_aside(folder, report)
            return
        problems = _problems(database)
        for problem in problems[:_LISTED]:
            report.add("vectors" if ".f16" in problem else DATABASE, problem, "see below")
        if problems:
            _rebuild(database, report)
    finally:
        database.close()
    _sweep(folder, report)
    _drop_derived(folder, report, all_of_them=bool(problems))


def _is_lost(database: Database) -> bool:
    """Whether no table of ours can be told in the file; IndexStateError when a later version wrote it."""
    try:
        with plain_errors(database.folder):
            if database.is_new():
                return True
            database.check_format()
    except IndexCorruptError:
        return True
    return False


def _problems(database: Database) -> list[str]:
    try:
        with plain_errors(database.folder):
            return upkeep.problems(database)
    except IndexCorruptError as error:
        return [str(error)]


def _set_aside(folder: Path, report: Repair) -> None:
    """Nothing can be read of the database: what is left goes aside, so that the folder can be ingested into again."""
    aside = Path(tempfile.mkdtemp(dir=folder, prefix="lost-"))
    for name in sorted(os.listdir(folder)):
        if name.startswith((DATABASE, "dense-", "lexical")) or rows.is_vector_file(name):
            (folder / name).replace(aside / name)
    sync(folder)
    done = f"moved with its vectors to {aside.name}/; ingest the sources again: the embedding cache still knows their vectors"
    report.add(DATABASE, "missing, or no table of an index can be read", done)
    report.whole = False


# ---- the database


class _Reader:
    """Reads a damaged table around its bad pages."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection, self._left = connection, _QUERIES

    def between(self, sql: str, low: int, high: int, *values: object) -> Iterator[Row]:
        """Rows of a SELECT that ends with "BETWEEN ? AND ?", halving what cannot be read until one row is left out."""
        self._left -= 1
        if self._left < 0:
            return
        try:
            yield from self.connection.execute(sql, (*values, low, high)).fetchall()
        except (sqlite3.DatabaseError, UnicodeDecodeError, OverflowError):
            if low < high:
                middle = (low + high) // 2
                yield from self.between(sql, low, middle, *values)
                yield from self.between(sql, middle + 1, high, *values)

    def top(self, table: str) -> int:
        """A number that no rowid of a table is above, as far as that can be read."""
        for sql in (f"SELECT max(rowid) FROM {table}", f"SELECT seq FROM sqlite_sequence WHERE name = '{table}'"):
            with contextlib.suppress(sqlite3.DatabaseError):
                row = self.connection.execute(sql).fetchone()
                if row and type(row[0]) is int and 0 < row[0] < rows.MOST_CHUNKS:
                    return int(row[0]) + 1024
        return 1 << 16

    def table(self, select: str, table: str, alias: str = "") -> list[Row]:
        """Every row of a rowid table that can be read."""
        return list(self.between(f"{select} {alias or table}.rowid BETWEEN ? AND ?", 0, self.top(table)))


@dataclass(slots=True)
class _Whole:
    """What passed its checksum."""

    documents: dict[int, Row] = field(default_factory=dict)
    chunks: dict[int, Row] = field(default_factory=dict)
    assets: list[Row] = field(default_factory=list)
    meta: list[Row] = field(default_factory=list)
    feedback: list[Row] = field(default_factory=list)
    hurt: set[int] = field(default_factory=set)  # documents that lost something


def _rebuild(old: Database, report: Repair) -> None:
    folder = old.folder
    with old.reading() as connection:
        whole = _read(_Reader(connection), old.format, report)
        spaces = _read_vectors(_Reader(connection), old, whole, report)
    scratch = Path(tempfile.mkdtemp(dir=folder, prefix=".mending-"))
    try:
        made = Database(scratch, writable=True)
        try:
            made.create()
            writer = made.writer()
            writer.execute("BEGIN IMMEDIATE")
            _write(writer, folder, whole, spaces, report)
            writer.execute("COMMIT")
        finally:
            made.close()
        old.close()
        _swap(folder, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    kept = f"{counted(len(whole.documents), 'document')} and {counted(len(whole.chunks), 'passage')}"
    report.add(DATABASE, "written anew", f"{kept} are whole and were kept; the old file is {KEPT}")


def _read(reader: _Reader, version: int, report: Repair) -> _Whole:
    whole = _Whole()
    documents = reader.table(rows.select_documents(version) + "WHERE", "documents", "d")
    whole.documents = {row[0]: row for row in _sound(documents, rows.document_fields)}
    for name, data in reader.table("SELECT sha256, data FROM assets WHERE", "assets"):
        if isinstance(data, bytes) and hashlib.sha256(data).hexdigest() == name:
            whole.assets.append((name, data))
    shown = {"", *(name for name, _ in whole.assets)}
    for row in _sound(reader.table(rows.select_texts(version), "chunks", "c"), rows.to_text):
        if row[1] in whole.documents and row[11] in shown:
            whole.chunks[row[0]] = row
    _read_settings(reader, version, whole, report)
    have: defaultdict[int, set[int]] = defaultdict(set)
    for number, row in whole.chunks.items():
        have[row[1]].add(number)
    whole.hurt.update(key for key in whole.documents if _stated_ids(reader, key) != have[key])
    return whole


def _read_settings(reader: _Reader, version: int, whole: _Whole, report: Repair) -> None:
    total = "sum" if version > 1 else f"'{rows.NO_SUM}'"
    kept = reader.table(f"SELECT key, value, {total} FROM meta WHERE", "meta")
    whole.meta = list(_sound(kept, lambda row: rows.to_json_value(row, "a setting")))
    votes = reader.table("SELECT id, question, chunk_id, vote, at FROM feedback WHERE", "feedback")
    whole.feedback = [row for row in votes if isinstance(row[1], str) and type(row[3]) is int]
    if not any(row[0] == "config" for row in whole.meta):
        report.add("settings", "lost", "open the index with the settings it was made with: models, chunker, chunk_tokens")


def _stated_ids(reader: _Reader, key: int) -> set[int]:
    """Ids of the chunks that a document's parts speak of."""
    select = "SELECT first_chunk, chunks FROM parts WHERE document = ? AND number BETWEEN ? AND ?"
    stated = [row for row in reader.between(select, 0, 1 << 20, key) if type(row[0]) is int and type(row[1]) is int]
    return {number for first, count in stated if 0 <= count < rows.MOST_CHUNKS for number in range(first, first + count)}


def _sound(found: Sequence[Row], check: Callable[[Row], object]) -> Iterator[Row]:
    for row in found:
        with contextlib.suppress(IndexCorruptError):
            check(row)
            yield row


def _read_vectors(reader: _Reader, old: Database, whole: _Whole, report: Repair) -> list[tuple[Space, Any, Any]]:
    """Each space with its whole vectors that have a passage, and the passages' ids; who lost one is hurt."""
    found = []
    names = [row for row in reader.table("SELECT name, dim, rows, file FROM spaces WHERE", "spaces")]
    for row in names:
        try:
            space = rows.to_space(row)
            vectors = _open(old.folder, space)
        except (IndexCorruptError, FileNotFoundError) as error:
            report.add("vectors", str(error), "lost; their documents are read again")
            whole.hurt.update(whole.documents)
            continue
        ids, half = _sound_vectors(reader, old.format, space, vectors, whole)
        found.append((space, half, ids))
        if lost := space.rows - len(ids):
            report.add(f"vectors {space.name}", f"{lost} are damaged or without a passage", f"removed, {len(ids)} kept")
    if not names and upkeep.leftovers(old.folder):
        report.add("vectors", "whose they are is lost", "removed; their documents are read again")
        whole.hurt.update(whole.documents)
    return found


def _open(folder: Path, space: Space) -> Any:
    """What is there of a vector file, as many whole rows as it has."""
    fd = open_inside(folder, space.file, os.O_RDONLY)
    size = os.fstat(fd).st_size
    os.close(fd)
    return open_map(folder, space._replace(rows=min(space.rows, size // (space.dim * BYTES_PER_VALUE))))


def _sound_vectors(reader: _Reader, version: int, space: Space, vectors: Any, whole: _Whole) -> tuple[Any, Any]:
    """Chunk ids and rows that pass their sums and whose passage is whole."""
    select = rows.select_blocks(version).replace("first_row >= ? ORDER BY first_row", "first_row BETWEEN ? AND ?")
    alive = np.array(sorted(whole.chunks), dtype=np.int64)
    owners, halves = [np.empty(0, "<i4")], [np.empty((0, space.dim), "<f2")]
    row_at, id_at = 0, 0  # after the last described row, and its passage
    for row in sorted(reader.between(select, 0, max(space.rows, 1), space.name), key=lambda row: str(row[0]).zfill(12)):
        with contextlib.suppress(IndexCorruptError, TypeError):
            (block,) = rows.to_blocks([row], row[0], row[0] + row[1])
            good = _good_rows(block, vectors, alive, whole)
            owners.append(block.chunk_ids[good])
            halves.append(np.ascontiguousarray(vectors[block.first_row + good]))
            if block.first_row > row_at:
                _lose(whole, id_at, int(block.chunk_ids[0]))
            row_at, id_at = block.first_row + block.rows, int(block.chunk_ids[-1])
    if row_at < space.rows:
        _lose(whole, id_at, rows.MOST_CHUNKS)
    ids = np.concatenate(owners)
    order = np.argsort(ids, kind="stable")
    return ids[order], np.concatenate(halves)[order]


def _lose(whole: _Whole, after: int, before: int) -> None:
    """Vectors of passages between two are lost, and of which is not known: ids rise with the rows, so one of these."""
    whole.hurt.update(row[1] for number, row in whole.chunks.items() if after < number < before and row[5])


def _good_rows(block: Block, vectors: Any, alive: Any, whole: _Whole) -> Any:
    here = vectors[block.first_row : block.first_row + block.rows]
    good = np.zeros(block.rows, dtype=np.bool_)
    if block.sums is not None:
        good[: len(here)] = row_sums(here, block.chunk_ids[: len(here)]) == block.sums[: len(here)]
    elif len(here) == block.rows:
        good[:] = checksum(here.tobytes()) == block.crc32
    kept = np.isin(block.chunk_ids, alive)
    whole.hurt.update(whole.chunks[number][1] for number in block.chunk_ids[~good & kept].tolist())
    return np.flatnonzero(good & kept)


def _write(
    writer: sqlite3.Connection, folder: Path, whole: _Whole, spaces: Sequence[tuple[Space, Any, Any]], report: Repair
) -> None:
    chunks: defaultdict[int, list[int]] = defaultdict(list)
    for number, row in whole.chunks.items():
        chunks[row[1]].append(number)
    for key, row in whole.documents.items():
        values = list(row[:-1])
        if key in whole.hurt:  # read again: as other content, which takes the place of what is left
            values[5:8], values[12] = ["", 0, 0], 0
            report.again.append(values[2])
            report.add(
                f"document {values[2]}", "lost a part of what was stored", f"{len(chunks[key])} passages kept, to be read again"
            )
        writer.execute(f"INSERT INTO documents VALUES({', '.join('?' * len(values))}, -1)", values)
        rows.seal_document(writer, key)
        for number, (first, count) in enumerate(_runs(sorted(chunks[key]))):
            writer.execute("INSERT INTO parts VALUES(?, ?, ?, ?, NULL, -1)", (key, number, first, count))
    for row in whole.chunks.values():
        values = list(row[:-1])
        writer.execute(f"INSERT INTO chunks VALUES({', '.join('?' * len(values))}, ?)", (*values, rows.chunk_sum(values)))
    used = {row[11] for row in whole.chunks.values()}
    writer.executemany("INSERT INTO assets VALUES(?, ?)", [row for row in whole.assets if row[0] in used])
    for key, value, _ in whole.meta:
        writer.execute("INSERT INTO meta VALUES(?, ?, ?)", (key, value, rows.checksum((key, value))))
    writer.executemany("INSERT INTO feedback VALUES(?, ?, ?, ?, ?)", whole.feedback)
    last = max(0, *whole.chunks, *(int(ids.max(initial=0)) for _, _, ids in spaces))
    for space, half, ids in spaces:
        _write_space(writer, folder, space, half, ids)
    writer.execute("INSERT OR IGNORE INTO sqlite_sequence(name, seq) VALUES('chunks', 0)")
    writer.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'chunks'", (last,))
    totals.recount(writer)


def _runs(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ids as runs of (first, count)."""
    start = 0
    for at in range(1, len(ids) + 1):
        if at == len(ids) or ids[at] != ids[at - 1] + 1:
            yield ids[start], at - start
            start = at


def _write_space(writer: sqlite3.Connection, folder: Path, space: Space, half: Any, ids: Any) -> None:
    """A new vector file, all in one block a number of rows, as a compaction makes them."""
    name = rows.file_name(space.name, rows.file_version(space.name, space.file) + 1)
    with contextlib.suppress(FileNotFoundError):
        (folder / name).unlink()
    fd = open_inside(folder, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        for start in range(0, len(ids), upkeep.ROWS_AT_ONCE):
            some = slice(start, start + upkeep.ROWS_AT_ONCE)
            part, owners = np.ascontiguousarray(half[some]), np.ascontiguousarray(ids[some])
            write_all(fd, part.data)
            block = (start, len(part), checksum(part.data), owners.tobytes(), row_sums(part, owners).tobytes())
            writer.execute(rows.INSERT_BLOCK, (space.name, *block, rows.block_sum(*block)))
        os.fsync(fd)
    finally:
        os.close(fd)
    writer.execute("INSERT INTO spaces VALUES(?, ?, ?, ?)", (space.name, space.dim, len(ids), name))


def _swap(folder: Path, scratch: Path) -> None:
    """The new database in the place of the old, which is kept under another name."""
    with contextlib.suppress(FileNotFoundError), (scratch / DATABASE).open("rb") as file:
        os.fsync(file.fileno())
    for side in _SIDES:
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(folder / f"{DATABASE}{side}", folder / f"{KEPT}{side}")
    for side in _SIDES[1:]:
        (folder / f"{DATABASE}{side}").unlink(missing_ok=True)
    (scratch / DATABASE).replace(folder / DATABASE)
    sync(folder)


# ---- what is derived, and what was left behind


def _sweep(folder: Path, report: Repair) -> None:
    database = Database(folder, writable=True)
    try:
        before = set(os.listdir(folder))
        with database.reading() as reader:
            upkeep.sweep(reader, folder)
        if gone := sorted(before - set(os.listdir(folder))):
            report.add("files", f"{', '.join(gone)}: of no space, or never finished", "removed")
    finally:
        database.close()


def _drop_derived(folder: Path, report: Repair, *, all_of_them: bool) -> None:
    """Remove FAISS and BM25 files that are not what their manifests say, or all; they are made again."""
    damaged = [*lexical.damaged_files(folder), *ann.damaged_files(folder)]
    if all_of_them:
        damaged += [name for name in os.listdir(folder) if name.startswith(("dense-", "lexical"))]
    gone = sorted({name for name in damaged if (folder / name).exists() or (folder / name).is_symlink()})
    for name in gone:
        (folder / name).unlink()
    if gone:
        report.derived = True
        report.add("FAISS and BM25 files", ", ".join(gone), "removed, and made again from what is whole")
