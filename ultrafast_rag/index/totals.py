"""Sums over whole tables, kept in `state`: a row that is lost, doubled or shown again is noticed, whatever hid it.

A row's own checksum says that what was found is right; it cannot say that all was found. A damaged page of a table or
of an index hides rows without a word from SQLite. So each table has one number: the sum of its rows' checksums, moved
with every row that is written, compared where a table is read as a whole. Format 1 has none.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ultrafast_rag.errors import IndexCorruptError
from ultrafast_rag.index.rows import ADVICE, MOST_CHUNKS, checksum

Runs = npt.NDArray[np.int64]
"""int64 (n, 3): key of the document, first chunk id, how many chunks; one row a part."""
Ids = npt.NDArray[np.int64]
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)  # odd, of xxHash
_VISIBLE = (
    "SELECT p.document, p.first_chunk, p.chunks FROM parts p JOIN documents d ON d.key = p.document "
    "WHERE d.visible AND p.chunks > 0"
)
_SHOWN = "SELECT c.id FROM chunks c NOT INDEXED JOIN documents d ON d.key = c.document WHERE d.visible ORDER BY c.id"
_RUNS_OF = "SELECT document, first_chunk, chunks FROM parts WHERE document = ? AND chunks > 0"


def runs_of(found: Sequence[Sequence[Any]]) -> Runs:
    """Rows (document key, first id, count) as an array; IndexCorruptError for ids that were never given."""
    try:
        runs: Runs = np.asarray(found or np.empty((0, 3)), dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise IndexCorruptError(f"the numbers of an index's passages are damaged. {ADVICE}") from error
    if len(runs) and (runs.min() < 1 or runs[:, 1:].max() > MOST_CHUNKS or runs[:, 1:].sum(axis=1).max() > MOST_CHUNKS + 1):
        raise IndexCorruptError(f"an index's passages are numbered as they never are: damaged, or forged. {ADVICE}")
    return runs


def runs_sum(runs: Runs) -> int:
    """Sum of a 32-bit hash of each run."""
    if not len(runs):
        return 0
    words = runs.astype(np.uint64) * _FACTORS
    mixed = words[:, 0] ^ words[:, 1] ^ (words[:, 1] >> np.uint64(29)) ^ (words[:, 2] << np.uint64(17))
    mixed = (mixed ^ (mixed >> np.uint64(31))) * _FACTORS[1]
    return int((mixed >> np.uint64(32)).sum(dtype=np.uint64))


def add(writer: sqlite3.Connection, column: str, change: int) -> None:
    """Move a total of `state`."""
    if change:
        writer.execute(f"UPDATE state SET {column} = {column} + ?", (change,))


def show(writer: sqlite3.Connection, key: int, *, sign: int = 1) -> None:
    """Count a document's chunks among the visible ones, or with sign=-1 no longer."""
    add(writer, "visible_runs", sign * runs_sum(runs_of(writer.execute(_RUNS_OF, (key,)).fetchall())))


def seal_spaces(writer: sqlite3.Connection) -> None:
    """After a space's row was written."""
    writer.execute("UPDATE state SET all_spaces = ?", (spaces_sum(writer.execute(SPACES).fetchall()),))


def spaces_sum(found: Sequence[Sequence[Any]]) -> int:
    """Of every row of `SPACES`."""
    return sum(checksum(row) for row in found)


SPACES = "SELECT name, dim, rows, file FROM spaces ORDER BY name"
_FEEDBACK = "SELECT id, question, chunk_id, vote, at FROM feedback ORDER BY id"


def feedback(reader: sqlite3.Connection, version: int) -> list[tuple[Any, ...]]:
    """Every vote: id, question, chunk id, vote, time."""
    found = reader.execute(_FEEDBACK).fetchall()
    if version > 1 and sum(checksum(row) for row in found) != total(reader, "all_feedback"):
        raise lost("the votes")
    return found


def count_vote(writer: sqlite3.Connection, row_id: int | None) -> None:
    """After a vote was written."""
    row = writer.execute("SELECT id, question, chunk_id, vote, at FROM feedback WHERE id = ?", (row_id,)).fetchone()
    add(writer, "all_feedback", checksum(row))


def total(reader: sqlite3.Connection, column: str) -> int:
    """One of `state`'s totals."""
    row = reader.execute(f"SELECT {column} FROM state").fetchone()
    return int(row[0]) if row and type(row[0]) is int else -1


def compare(reader: sqlite3.Connection, table: str, *, what: str) -> None:
    """IndexCorruptError when a table's checksums do not add up to its total."""
    found = "count(*)" if table == "assets" else "coalesce(sum(sum), 0)"
    if reader.execute(f"SELECT {found} FROM {table} NOT INDEXED").fetchone()[0] != total(reader, f"all_{table}"):
        raise lost(what)


def compare_runs(reader: sqlite3.Connection) -> None:
    """IndexCorruptError when the parts of visible documents do not hold the chunks that they should, or there are others."""
    runs = runs_of(reader.execute(_VISIBLE).fetchall())
    ids = np.fromiter((row[0] for row in reader.execute(_SHOWN)), dtype=np.int64)
    stated = np.concatenate([np.empty(0, np.int64), *(np.arange(first, first + count) for _, first, count in runs.tolist())])
    if runs_sum(runs) != total(reader, "visible_runs") or not np.array_equal(np.sort(stated), ids):
        raise lost("the passages")


def lost(what: str) -> IndexCorruptError:
    """The error for rows that are not all there."""
    return IndexCorruptError(f"{what} of this index are damaged: some are lost from their list. {ADVICE}")


def part_sum(document: int, number: int, first_chunk: int, chunks: int, failure: str | None) -> int:
    """A part's checksum."""
    return checksum((document, number, first_chunk, chunks, zlib.crc32((failure or "").encode("utf-8", "surrogatepass"))))


def recount(writer: sqlite3.Connection) -> None:
    """Every total from the rows as they are: after an upgrade, and where a repair has taken rows out."""
    for row in writer.execute("SELECT document, number, first_chunk, chunks, failure FROM parts").fetchall():
        writer.execute("UPDATE parts SET sum = ? WHERE document = ? AND number = ?", (part_sum(*row), *row[:2]))
    found = writer.execute(_VISIBLE).fetchall()
    votes = writer.execute(_FEEDBACK).fetchall()
    writer.execute(
        "UPDATE state SET visible_runs = ?, all_feedback = ?, all_assets = (SELECT count(*) FROM assets), "
        + ", ".join(f"all_{table} = (SELECT coalesce(sum(sum), 0) FROM {table})" for table in ("documents", "parts", "meta")),
        (runs_sum(runs_of(found)), sum(checksum(row) for row in votes)),
    )
    seal_spaces(writer)
