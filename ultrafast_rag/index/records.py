"""Rows of the store's tables as they are written to SQLite; `rows.py` reads them back.

Every function runs inside the caller's transaction. What cannot be kept and found again (text that is no UTF-8 or
holds NUL, numbers beyond 64 bits, NaN) is refused by `check_source` and `check_part` before one begins.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ultrafast_rag.errors import ConfigError, IndexStateError
from ultrafast_rag.index import totals
from ultrafast_rag.index.rows import (
    ADVICE,
    MOST_CHUNKS,
    RowChunks,
    checksum,
    chunk_sum,
    document_fields,
    seal_document,
    sealed_as,
    select_documents,
)
from ultrafast_rag.index.vectors import HalfVectors
from ultrafast_rag.language.safetext import unstorable
from ultrafast_rag.types import Chunk, Mask, PartCommit, Progress, Record


def begin(writer: sqlite3.Connection, source: Record) -> Progress:
    """Find or make the document's row; an interrupted replacement by other content is dropped."""
    found = writer.execute(select_documents(2) + "WHERE d.id = ?", (source.id,)).fetchall()
    known = [document_fields(row) for row in found]
    live = next((fields for fields in known if fields["visible"]), None)
    pending = next((fields for fields in known if not fields["visible"]), None)
    if pending and pending["content_hash"] != source.content_hash:
        remove(writer, pending["key"])
        pending = None
    if live and live["content_hash"] == source.content_hash and (live["complete"] or not pending):
        if pending:
            remove(writer, pending["key"])
        place = (source.source, *source.stat, live["key"])  # a restored index knows a source's name only
        writer.execute("UPDATE documents SET source = ?, size = ?, mtime_ns = ? WHERE key = ?", place)
        seal_document(writer, live["key"])
        state: Literal["unchanged", "resume"] = "unchanged" if live["complete"] else "resume"
        return Progress(live["key"], source.id, live["next_part"], live["section"], state)
    if pending:
        return Progress(pending["key"], source.id, pending["next_part"], pending["section"], "resume")
    made = writer.execute(
        "INSERT INTO documents(id, source, title, media_type, content_hash, size, mtime_ns, metadata, visible) "
        "VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            source.id,
            source.source,
            source.title,
            source.media_type,
            source.content_hash,
            *source.stat,
            to_json(source.metadata),
            live is None,
        ),
    )
    seal_document(writer, int(made.lastrowid or 0))
    return Progress(int(made.lastrowid or 0), source.id, 0, "", "replace" if live else "new")


def check_source(source: Record) -> None:
    """ConfigError for a document whose names or metadata cannot be kept."""
    _check_texts("a source's", source.source, source.content_hash, source.media_type, source.title, source.id)
    to_json(source.metadata)


def check_part(part: PartCommit, vectors: Mapping[str, HalfVectors]) -> None:
    """ConfigError when a part's vectors do not fit its chunks, or what it says cannot be kept."""
    _check_texts("a part's", part.title, part.section, part.failure or "")
    for chunk in part.chunks:
        _check_texts("a passage's", chunk.text, chunk.context, chunk.asset)
        to_json(chunk.metadata)
    for space, rows in vectors.items():
        owners = np.asarray(part.vector_chunks.get(space, ()), dtype=np.int64)
        if len(owners) != len(rows):
            raise ConfigError(f"part {part.part_number}: {len(rows)} vectors in space {space!r} but {len(owners)} positions")
        if len(owners) and not 0 <= owners.min() <= owners.max() < len(part.chunks):
            raise ConfigError(f"part {part.part_number}: a vector of space {space!r} points past the {len(part.chunks)} chunks")


def insert_part(writer: sqlite3.Connection, part: PartCommit) -> list[int]:
    """Write a part's chunks and the document's progress; returns the chunks' ids, consecutive."""
    row = writer.execute(
        "SELECT next_part, complete, source, visible FROM documents WHERE key = ?", (part.document_key,)
    ).fetchone()
    if row is None:
        raise IndexStateError("this document was deleted or replaced while it was being read. Ingest it again.")
    if part.part_number < row[0] or row[1]:
        raise IndexStateError(f"part {part.part_number} of {row[2]} is already stored; go on at part {row[0]}")
    first = writer.execute("SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'chunks'").fetchone()[0]
    ids = list(range(first, first + len(part.chunks)))
    if not isinstance(first, int) or first < 1 or first + len(ids) > MOST_CHUNKS:
        raise IndexStateError(
            f"an index numbers at most {MOST_CHUNKS} passages, deleted ones included. Use another folder. {ADVICE}"
        )
    values = [_chunk_row(writer, number, part, chunk) for number, chunk in zip(ids, part.chunks)]
    writer.executemany(f"INSERT INTO chunks VALUES({', '.join('?' * 14)})", [(*row, chunk_sum(row)) for row in values])
    about = (part.document_key, part.part_number, first, len(ids), part.failure)
    writer.execute("INSERT INTO parts VALUES(?, ?, ?, ?, ?, ?)", (*about, totals.part_sum(*about)))
    totals.add(writer, "all_parts", totals.part_sum(*about))
    writer.execute(
        "UPDATE documents SET next_part = ?, section = ?, total = coalesce(?, total), "
        "title = CASE WHEN ? <> '' THEN ? ELSE title END WHERE key = ?",
        (part.part_number + 1, part.section, part.total, part.title, part.title, part.document_key),
    )
    seal_document(writer, part.document_key)
    if row[3] and ids:
        totals.add(writer, "visible_runs", totals.runs_sum(totals.runs_of([(part.document_key, first, len(ids))])))
    return ids


def _chunk_row(writer: sqlite3.Connection, number: int, part: PartCommit, chunk: Chunk) -> tuple[Any, ...]:
    """A chunk's columns as SQLite gives them back, so that their checksum stays."""
    return (
        number,
        part.document_key,
        part.part_number,
        chunk.ordinal,
        chunk.modality,
        chunk.text,
        chunk.context,
        chunk.page,
        json.dumps([float(edge) for edge in chunk.bbox]) if chunk.bbox else None,
        None if chunk.start_s is None else float(chunk.start_s),
        None if chunk.end_s is None else float(chunk.end_s),
        _keep_asset(writer, chunk),
        to_json(chunk.metadata),
    )


def _keep_asset(writer: sqlite3.Connection, chunk: Chunk) -> str:
    if chunk.data is None:
        return chunk.asset
    name = hashlib.sha256(chunk.data).hexdigest()
    made = writer.execute("INSERT OR IGNORE INTO assets VALUES(?, ?)", (name, chunk.data))
    totals.add(writer, "all_assets", made.rowcount)
    return name


def gather_space(
    space: str, batch: Sequence[PartCommit], encoded: Sequence[Mapping[str, HalfVectors]], ids: Sequence[Sequence[int]]
) -> tuple[HalfVectors, RowChunks]:
    """A batch's rows of one space and the chunk id of each, ids never decreasing."""
    rows = np.concatenate([halves[space] for halves in encoded if space in halves])
    owners = np.concatenate(
        [
            np.asarray(numbers, dtype=np.int64)[np.asarray(part.vector_chunks[space], dtype=np.int64)]
            for part, halves, numbers in zip(batch, encoded, ids)
            if space in halves and len(halves[space])
        ]
        or [np.empty(0, dtype=np.int64)]
    )
    order = np.argsort(owners, kind="stable")
    return rows[order], owners[order].astype("<i4")


def finish(writer: sqlite3.Connection, key: int) -> None:
    """Mark a document complete; if it replaces another, that one goes now."""
    row = writer.execute("SELECT id, visible FROM documents WHERE key = ?", (key,)).fetchone()
    if row is None:
        raise IndexStateError("this document was deleted while it was being read. Ingest it again.")
    if not row[1]:
        old = writer.execute("SELECT key FROM documents WHERE id = ? AND visible", (row[0],)).fetchone()
        if old:
            remove(writer, old[0])
        writer.execute("UPDATE state SET removals = removals + 1")
        totals.show(writer, key)
    writer.execute("UPDATE documents SET complete = 1, visible = 1 WHERE key = ?", (key,))
    seal_document(writer, key)


def give_up(writer: sqlite3.Connection, key: int) -> None:
    """Remove a document none of whose parts was committed, and a replacement that will not be finished."""
    row = writer.execute("SELECT visible, next_part FROM documents WHERE key = ?", (key,)).fetchone()
    if row and (not row[0] or row[1] == 0):
        remove(writer, key)


def remove(writer: sqlite3.Connection, key: int) -> None:
    """Delete a document's rows and the assets that no other chunk shows."""
    assets = writer.execute("SELECT DISTINCT asset FROM chunks WHERE document = ? AND asset <> ''", (key,)).fetchall()
    visible, total = writer.execute("SELECT visible, sum FROM documents WHERE key = ?", (key,)).fetchone() or (0, 0)
    if visible:
        totals.show(writer, key, sign=-1)
    totals.add(writer, "all_documents", -sealed_as(total))
    parts = writer.execute("SELECT coalesce(sum(sum), 0) FROM parts WHERE document = ?", (key,)).fetchone()[0]
    totals.add(writer, "all_parts", -sealed_as(parts))
    for table, column in (("chunks", "document"), ("parts", "document"), ("documents", "key")):
        writer.execute(f"DELETE FROM {table} WHERE {column} = ?", (key,))
    unused = "DELETE FROM assets WHERE sha256 = ?1 AND NOT EXISTS (SELECT 1 FROM chunks WHERE asset = ?1)"
    totals.add(writer, "all_assets", -sum(writer.execute(unused, asset).rowcount for asset in assets))
    writer.execute("UPDATE state SET removals = removals + 1")


def set_meta(writer: sqlite3.Connection, key: str, value: str) -> None:
    """Keep a JSON text."""
    old = writer.execute("SELECT sum FROM meta WHERE key = ?", (key,)).fetchone()
    writer.execute("INSERT OR REPLACE INTO meta VALUES(?, ?, ?)", (key, value, checksum((key, value))))
    totals.add(writer, "all_meta", checksum((key, value)) - sealed_as(old and old[0]))


def drop_meta(writer: sqlite3.Connection, key: str) -> None:
    """Forget a JSON text."""
    old = writer.execute("SELECT sum FROM meta WHERE key = ?", (key,)).fetchone()
    writer.execute("DELETE FROM meta WHERE key = ?", (key,))
    totals.add(writer, "all_meta", -sealed_as(old and old[0]))


def _check_texts(whose: str, *texts: str) -> None:
    for text in texts:
        if why := unstorable(text):
            raise ConfigError(f"{whose} text {text[:40]!r} {why}")


def to_json(metadata: Mapping[str, Any]) -> str:
    """Metadata as JSON text; ConfigError names what JSON, UTF-8 or a filter cannot hold."""
    if not metadata:
        return "{}"
    if why := unstorable(metadata):
        raise ConfigError(f"the metadata {why}")
    try:
        return json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"metadata must be plain values (text, numbers, lists, dictionaries): {error}") from error


def mask_of(runs: totals.Runs, start: Mask) -> Mask:
    """Bool up to the last id: `start` kept as it is, then True over the runs' chunks."""
    ends = runs[:, 1] + runs[:, 2]
    top = max(len(start), int(ends.max(initial=0)))
    steps = np.zeros(top + 1, dtype=np.int32)
    if len(runs):
        np.add.at(steps, runs[:, 1], 1)
        np.add.at(steps, ends, -1)
    mask: Mask = np.cumsum(steps[:-1], dtype=np.int32) > 0
    mask[: len(start)] |= start
    mask.flags.writeable = False
    return mask
