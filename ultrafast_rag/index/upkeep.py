"""Care of a store's files: verify, compact, snapshot. Called through `Store`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ultrafast_rag.errors import IndexStateError
from ultrafast_rag.index.database import DATABASE, Database
from ultrafast_rag.index.vectors import BYTES_PER_VALUE, RowChunks, checksum, open_map, sync_folder
from ultrafast_rag.types import Mask

ROWS_AT_ONCE = 16_384


def file_name(space: str, version: int) -> str:
    """Vector file of a space; a compaction makes the next version."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", space):
        raise IndexStateError(f"a vector space is named by letters, digits, '.', '_' and '-', not {space!r}")
    return f"vectors-{space}.f16" if version == 0 else f"vectors-{space}.{version}.f16"


def problems(database: Database) -> list[str]:
    """Read everything and compare with its checksums; [] when all is well."""
    found: list[str] = []
    with database.snapshot() as reader:
        found += [f"{DATABASE}: {row[0]}" for row in reader.execute("PRAGMA quick_check") if row[0] != "ok"]
        for name, dim, rows, file in reader.execute("SELECT name, dim, rows, file FROM spaces").fetchall():
            found += _bad_blocks(reader, name, dim, rows, database.folder / file)
        for name, data in reader.execute("SELECT sha256, data FROM assets"):
            if hashlib.sha256(data).hexdigest() != name:
                found.append(f"picture {name[:12]} fails its checksum")
    return found


def _bad_blocks(reader: sqlite3.Connection, space: str, dim: int, rows: int, path: Path) -> Iterator[str]:
    size = path.stat().st_size if path.exists() else 0
    if size < rows * dim * BYTES_PER_VALUE:
        yield f"{path.name} holds {size // (dim * BYTES_PER_VALUE)} of its {rows} committed rows"
        return
    expected = 0
    with path.open("rb") as file:
        for first, count, crc, ids in reader.execute(
            "SELECT first_row, rows, crc32, chunk_ids FROM blocks WHERE space = ? ORDER BY first_row", (space,)
        ):
            if first != expected or len(ids) != 4 * count:
                yield f"{path.name}: rows {expected} to {first} are not described"
            expected = first + count
            if checksum(file.read(count * dim * BYTES_PER_VALUE)) != crc:
                yield f"{path.name}: rows {first} to {expected - 1} fail their checksum"
    if expected != rows:
        yield f"{path.name}: {rows} rows committed, {expected} described"


def dead_share(reader: sqlite3.Connection, space: str) -> float:
    """Part of a space's rows whose chunk is gone, 0 to 1."""
    ids = np.concatenate([np.empty(0, "<i4"), *_owners(reader, space)])
    return 1 - float(_exists(reader, ids).mean()) if len(ids) else 0.0


def compact_space(writer: sqlite3.Connection, folder: Path, space: str) -> Path:
    """Write the living rows to a new file and describe it; returns the old file, to be removed after the commit."""
    dim, rows, old = writer.execute("SELECT dim, rows, file FROM spaces WHERE name = ?", (space,)).fetchone()
    version = int(old.split(".")[-2]) + 1 if re.fullmatch(r".*\.\d+\.f16", old) else 1
    ids = np.concatenate([np.empty(0, "<i4"), *_owners(writer, space)])
    keep = np.flatnonzero(_exists(writer, ids))
    source, target = open_map(folder / old, rows, dim), folder / file_name(space, version)
    writer.execute("DELETE FROM blocks WHERE space = ?", (space,))
    with target.open("wb") as file:
        for start in range(0, len(keep), ROWS_AT_ONCE):
            some = keep[start : start + ROWS_AT_ONCE]
            data = np.ascontiguousarray(source[some]).tobytes()
            file.write(data)
            block = (space, start, len(some), checksum(data), ids[some].astype("<i4").tobytes())
            writer.execute("INSERT INTO blocks VALUES(?, ?, ?, ?, ?)", block)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)
    writer.execute("UPDATE spaces SET rows = ?, file = ? WHERE name = ?", (len(keep), target.name, space))
    return folder / str(old)


def snapshot(database: Database, target: Path) -> None:
    """A consistent copy of index.sqlite and the vector files in `target`, while others read and write."""
    target.mkdir(parents=True, exist_ok=True)
    if (target / DATABASE).exists():
        raise IndexStateError(f"{target} already holds an index. Name an empty folder.")
    partial = target / (DATABASE + ".partial")
    for attempt in range(3):
        partial.unlink(missing_ok=True)
        with database.reading() as reader, contextlib.closing(sqlite3.connect(partial)) as copy:
            reader.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            spaces = copy.execute("SELECT dim, rows, file FROM spaces").fetchall()
        try:
            for dim, rows, name in spaces:
                _copy_prefix(database.folder / name, target / name, rows * dim * BYTES_PER_VALUE)
            break
        except FileNotFoundError:  # compacted between the two copies
            if attempt == 2:
                raise
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(target / DATABASE)
    sync_folder(target)


def _copy_prefix(source: Path, target: Path, size_bytes: int) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        left = size_bytes
        while left and (data := reader.read(min(left, 1 << 20))):
            writer.write(data)
            left -= len(data)
        writer.flush()
        os.fsync(writer.fileno())


def _owners(reader: sqlite3.Connection, space: str) -> list[RowChunks]:
    rows = reader.execute("SELECT chunk_ids FROM blocks WHERE space = ? ORDER BY first_row", (space,))
    return [np.frombuffer(row[0], dtype="<i4") for row in rows]


def _exists(reader: sqlite3.Connection, ids: RowChunks) -> Mask:
    known = np.fromiter((row[0] for row in reader.execute("SELECT id FROM chunks")), dtype=np.int64)
    return np.isin(ids, known)
