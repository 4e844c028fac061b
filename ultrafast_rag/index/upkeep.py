"""Care of a store's files: verify, upgrade, compact, sweep, snapshot. Called through `Store`."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ultrafast_rag.errors import IndexCorruptError, IndexStateError
from ultrafast_rag.files import open_inside, sync, write_all
from ultrafast_rag.index import rows, totals
from ultrafast_rag.index.database import DATABASE, STEPS, Database
from ultrafast_rag.index.rows import ADVICE, RowChunks, Space
from ultrafast_rag.index.vectors import BYTES_PER_VALUE, checksum, open_map, row_sums
from ultrafast_rag.types import Mask

ROWS_AT_ONCE = 16_384  # 12 MB of fp16 rows of 384 values
_SPACES = "SELECT name, dim, rows, file FROM spaces"
_PARTIAL = re.compile(r"(dense|lexical)[A-Za-z0-9._-]*\.partial")


def read_spaces(reader: sqlite3.Connection, version: int) -> list[Space]:
    """Every vector space, by name; IndexCorruptError when one is damaged or lost."""
    total = "all_spaces" if version > 1 else "NULL"
    found = reader.execute(f"SELECT {total}, name, dim, rows, file FROM state LEFT JOIN spaces ORDER BY name").fetchall()
    spaces = [row[1:] for row in found if row[1] is not None]
    if version > 1 and (not found or totals.spaces_sum(spaces) != found[0][0]):
        raise totals.lost("the vector spaces")
    return [rows.to_space(row) for row in spaces]


def leftovers(folder: Path) -> list[str]:
    """Names of vector files in a folder, which only an index with a database has."""
    if not folder.is_dir():
        return []
    return sorted(name for name in os.listdir(folder) if rows.is_vector_file(name))


def problems(database: Database) -> list[str]:
    """Read everything and compare with its checksums; [] when all is well."""
    found: list[str] = []
    with database.snapshot() as reader:
        found += [f"{DATABASE}: {row[0]}" for row in reader.execute("PRAGMA integrity_check") if row[0] != "ok"]
        for query, read in (
            (rows.select_texts(database.format) + "1", rows.to_text),
            (rows.select_documents(database.format), rows.document_fields),
        ):
            found += _failing(reader, query, read)
        for row in reader.execute(_SPACES).fetchall():
            try:
                found += _bad_blocks(reader, database, rows.to_space(row))
            except IndexCorruptError as error:
                found.append(str(error))
        found += _lost(reader, database.format)
        for name, data in reader.execute("SELECT sha256, data FROM assets"):
            if not isinstance(data, bytes) or hashlib.sha256(data).hexdigest() != name:
                found.append(f"picture {str(name)[:12]} fails its checksum")
    return found


def _lost(reader: sqlite3.Connection, version: int) -> Iterator[str]:
    """Rows that are not where the totals say."""
    if version == 1:
        return
    checks: list[Callable[[], object]] = [
        functools.partial(totals.compare, reader, table, what=f"the {table}")
        for table in ("documents", "parts", "assets", "meta")
    ]
    checks += [functools.partial(totals.feedback, reader, version), functools.partial(read_spaces, reader, version)]
    checks += [functools.partial(totals.compare_runs, reader)]
    for check in checks:
        try:
            check()
        except IndexCorruptError as error:
            yield str(error)
    for key, value, total in reader.execute("SELECT key, value, sum FROM meta"):
        if total != rows.checksum((key, value)):
            yield f"what the index keeps as {key!r} fails its checksum"
    asked = "SELECT DISTINCT asset FROM chunks WHERE asset <> '' AND asset NOT IN (SELECT sha256 FROM assets)"
    yield from (f"picture {str(name)[:12]} is lost" for (name,) in reader.execute(asked))


def _failing(reader: sqlite3.Connection, query: str, read: Callable[[Sequence[Any]], object]) -> Iterator[str]:
    for row in reader.execute(query):
        try:
            read(row)
        except IndexCorruptError as error:
            yield str(error)


def _bad_blocks(reader: sqlite3.Connection, database: Database, space: Space) -> Iterator[str]:
    try:
        fd = open_inside(database.folder, space.file, os.O_RDONLY) if space.rows else None
    except FileNotFoundError:
        fd, size = None, 0
    else:
        size = 0 if fd is None else os.fstat(fd).st_size
    row_bytes = space.dim * BYTES_PER_VALUE
    if size < space.rows * row_bytes:
        yield f"{space.file} holds {size // row_bytes} of its {space.rows} committed rows"
    found = reader.execute(rows.select_blocks(database.format), (space.name, 0)).fetchall()
    if fd is None:
        return
    with open(fd, "rb") as file:
        for block in rows.to_blocks(found, 0, space.rows):
            data = file.read(block.rows * row_bytes)
            if checksum(data) != block.crc32 or not _sums_fit(data, space, block):
                yield f"{space.file}: rows {block.first_row} to {block.first_row + block.rows - 1} fail their checksum"


def _sums_fit(data: bytes, space: Space, block: rows.Block) -> bool:
    if block.sums is None or len(data) < block.rows * space.dim * BYTES_PER_VALUE:
        return block.sums is None
    vectors = np.frombuffer(data, dtype="<f2").reshape(block.rows, space.dim)
    return bool((row_sums(vectors, block.chunk_ids) == block.sums).all())


def upgrade(writer: sqlite3.Connection, folder: Path) -> bool:
    """Format 1 -> 2 in the caller's transaction: every row and vector gets its checksum. True when that was done.

    IndexCorruptError, with nothing changed, when a block of vectors fails the checksum it has.
    """
    for statement in STEPS[1].split(";"):
        writer.execute(statement)
    for (key,) in writer.execute("SELECT key FROM documents").fetchall():
        rows.seal_document(writer, key)
    names, last = rows.chunk_columns(), 0
    while page := writer.execute(f"SELECT {names} FROM chunks WHERE id > ? ORDER BY id LIMIT 2000", (last,)).fetchall():
        writer.executemany("UPDATE chunks SET sum = ? WHERE id = ?", [(rows.chunk_sum(row), row[0]) for row in page])
        last = page[-1][0]
    for key, value in writer.execute("SELECT key, value FROM meta").fetchall():
        writer.execute("UPDATE meta SET sum = ? WHERE key = ?", (rows.checksum((key, value)), key))
    for row in writer.execute(_SPACES).fetchall():
        _seal_blocks(writer, folder, rows.to_space(row))
    totals.recount(writer)
    return True


def _seal_blocks(writer: sqlite3.Connection, folder: Path, space: Space) -> None:
    vectors = open_map(folder, space)
    found = writer.execute(rows.select_blocks(1), (space.name, 0)).fetchall()
    for block in rows.to_blocks(found, 0, space.rows):
        half = vectors[block.first_row : block.first_row + block.rows]
        if checksum(half.tobytes()) != block.crc32:
            raise IndexCorruptError(f"{space.file}: rows from {block.first_row} fail their checksum. {ADVICE}")
        sums = row_sums(half, block.chunk_ids).tobytes()
        total = rows.block_sum(block.first_row, block.rows, block.crc32, block.chunk_ids.tobytes(), sums)
        key = (space.name, block.first_row)
        writer.execute("UPDATE blocks SET sums = ?, sum = ? WHERE space = ? AND first_row = ?", (sums, total, *key))


def sweep(reader: sqlite3.Connection, folder: Path) -> None:
    """Remove what a killed process left: vector files that no space names, files that were never finished."""
    named = {rows.to_space(row).file for row in reader.execute(_SPACES).fetchall()}
    for name in os.listdir(folder):
        if (rows.is_vector_file(name) and name not in named) or _PARTIAL.fullmatch(name):
            with contextlib.suppress(OSError):  # Windows keeps a mapped file; the next sweep takes it
                (folder / name).unlink()


def dead_share(reader: sqlite3.Connection, chunk_ids: RowChunks) -> float:
    """Part of a space's rows whose chunk is gone, 0 to 1."""
    return 1 - float(_exists(reader, chunk_ids).mean()) if len(chunk_ids) else 0.0


def compact_space(writer: sqlite3.Connection, folder: Path, name: str, *, after: int = 0, to: str = "") -> None:
    """Write the living rows, of chunks after this one, to a new file and describe it; the old one goes with `sweep`.

    to: the space that they are from then on, in place of what it held.
    """
    to = to or name
    space = rows.to_space(writer.execute(f"{_SPACES} WHERE name = ?", (name,)).fetchone())
    found = rows.to_blocks(writer.execute(rows.select_blocks(2), (name, 0)).fetchall(), 0, space.rows)
    ids = np.concatenate([np.empty(0, "<i4"), *(block.chunk_ids for block in found)])
    sums = np.concatenate([np.empty(0, "<u4"), *(block.sums for block in found if block.sums is not None)])
    keep = np.flatnonzero(_exists(writer, ids) & (ids > after))
    old = writer.execute("SELECT file FROM spaces WHERE name = ?", (to,)).fetchone()
    source, target = open_map(folder, space), rows.file_name(to, rows.file_version(to, old[0]) + 1 if old else 0)
    for gone in {name, to}:
        writer.execute("DELETE FROM blocks WHERE space = ?", (gone,))
        writer.execute("DELETE FROM spaces WHERE name = ?", (gone,))
    fd = open_inside(folder, target, os.O_WRONLY | os.O_CREAT)
    try:
        os.ftruncate(fd, 0)
        for start in range(0, len(keep), ROWS_AT_ONCE):
            some = keep[start : start + ROWS_AT_ONCE]
            vectors = np.ascontiguousarray(source[some])
            if (row_sums(vectors, ids[some]) != sums[some]).any():
                raise IndexCorruptError(f"{space.file} holds vectors that fail their checksum; it was not compacted. {ADVICE}")
            write_all(fd, vectors.data)
            block = (start, len(some), checksum(vectors.data), ids[some].tobytes(), sums[some].tobytes())
            writer.execute(rows.INSERT_BLOCK, (to, *block, rows.block_sum(*block)))
        os.fsync(fd)
    finally:
        os.close(fd)
    sync(folder)
    writer.execute("INSERT INTO spaces VALUES(?, ?, ?, ?)", (to, space.dim, len(keep), target))
    totals.seal_spaces(writer)


def snapshot(database: Database, target: Path) -> None:
    """A consistent copy of index.sqlite and the vector files in `target`, while others read and write."""
    target.mkdir(parents=True, exist_ok=True)
    if (target / DATABASE).exists():
        raise IndexStateError(f"{target} already holds an index. Name an empty folder.")
    partial = target / (DATABASE + ".partial")
    with contextlib.ExitStack() as opened:
        for space, file in _copied_truth(database, partial, opened):
            _copy_rows(file, target, space)
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(target / DATABASE)
    sync(target)


def _copied_truth(database: Database, partial: Path, opened: contextlib.ExitStack) -> list[tuple[Space, BinaryIO]]:
    """Copy the database; returns its spaces with their files open, which then stay readable whoever compacts."""
    missing = ""
    while True:
        partial.unlink(missing_ok=True)
        with database.reading() as reader, contextlib.closing(sqlite3.connect(partial)) as copy:
            reader.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            spaces = [rows.to_space(row) for row in copy.execute(_SPACES).fetchall()]
        try:
            return [
                (space, opened.enter_context(open(open_inside(database.folder, space.file, os.O_RDONLY), "rb")))
                for space in spaces
                if space.rows
            ]
        except FileNotFoundError as error:  # compacted since the copy; a name that stays missing is lost
            if missing == str(error.filename):
                raise IndexCorruptError(f"{Path(missing).name} is missing in {database.folder}. {ADVICE}") from error
            missing = str(error.filename)


def _copy_rows(source: BinaryIO, target: Path, space: Space) -> None:
    left = space.rows * space.dim * BYTES_PER_VALUE
    with (target / space.file).open("xb") as writer:
        while left and (data := source.read(min(left, 1 << 20))):
            writer.write(data)
            left -= len(data)
        writer.flush()
        os.fsync(writer.fileno())


def _exists(reader: sqlite3.Connection, ids: RowChunks) -> Mask:
    known = np.fromiter((row[0] for row in reader.execute("SELECT id FROM chunks")), dtype=np.int64)
    return np.isin(ids, known)
