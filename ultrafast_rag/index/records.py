"""Rows of the store's tables: how documents and chunks are written to SQLite and read back.

Every function that writes runs inside the caller's transaction.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ultrafast_rag.errors import ConfigError, IndexStateError
from ultrafast_rag.index.vectors import HalfVectors, RowChunks
from ultrafast_rag.types import Chunk, Document, Vectors

Stat = tuple[int, int]
"""size in bytes, modification time in ns"""
CHUNK_ROWS = (
    "SELECT c.id, c.text, c.modality, d.id, d.source, c.ordinal, c.part, c.context, c.page, c.bbox, c.start_s, c.end_s, c.asset, "
    "c.metadata FROM chunks c JOIN documents d ON d.key = c.document WHERE d.visible "
)
DOCUMENT_ROWS = (
    "SELECT d.id, d.source, d.title, d.media_type, d.content_hash, d.next_part, d.complete, d.metadata, "
    "(SELECT coalesce(sum(chunks), 0) FROM parts WHERE document = d.key) FROM documents d WHERE d.visible "
)


@dataclass(frozen=True, slots=True)
class Source:
    """A document about to be read. document_id: None takes one derived from `source`."""

    source: str
    content_hash: str
    stat: Stat = (0, 0)
    media_type: str = ""
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    document_id: str | None = None

    @property
    def id(self) -> str:
        """The document's id: the given one, else 16 hex digits of the source's SHA-256."""
        return self.document_id or hashlib.sha256(self.source.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where to go on with a document. section: the heading path when the last part ended.

    state: "unchanged" needs no work; "resume" goes on at next_part; "replace" has an older version
    that stays searchable until `finish`.
    """

    document_key: int
    document_id: str
    next_part: int
    section: str
    state: Literal["new", "resume", "unchanged", "replace"]


@dataclass(frozen=True, slots=True)
class PartCommit:
    """One part ready to be stored.

    vectors: float (n, d) per space; vector_chunks: for each of those rows, its index into `chunks` (a
    chunk may have no vector, one or several). final: the document ends with this part.
    """

    document_key: int
    part_number: int
    chunks: Sequence[Chunk] = ()
    vectors: Mapping[str, Vectors] = field(default_factory=dict)
    vector_chunks: Mapping[str, Sequence[int]] = field(default_factory=dict)
    title: str = ""
    total: int | None = None
    section: str = ""
    failure: str | None = None
    final: bool = False


def begin(writer: sqlite3.Connection, source: Source) -> Progress:
    """Find or make the document's row; an interrupted replacement by other content is dropped."""
    rows = writer.execute(
        "SELECT visible, key, content_hash, complete, next_part, section FROM documents WHERE id = ?", (source.id,)
    ).fetchall()
    live = next((row for row in rows if row[0]), None)
    pending = next((row for row in rows if not row[0]), None)
    if pending and pending[2] != source.content_hash:
        remove(writer, pending[1])
        pending = None
    if live and live[2] == source.content_hash and (live[3] or not pending):
        if pending:
            remove(writer, pending[1])
        writer.execute("UPDATE documents SET size = ?, mtime_ns = ? WHERE key = ?", (*source.stat, live[1]))
        return Progress(live[1], source.id, live[4], live[5], "unchanged" if live[3] else "resume")
    if pending:
        return Progress(pending[1], source.id, pending[4], pending[5], "resume")
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
    return Progress(int(made.lastrowid or 0), source.id, 0, "", "replace" if live else "new")


def check_part(part: PartCommit, vectors: Mapping[str, HalfVectors]) -> None:
    """ConfigError when a part's vectors do not fit its chunks."""
    for space, rows in vectors.items():
        owners = np.asarray(part.vector_chunks.get(space, ()), dtype=np.int64)
        if len(owners) != len(rows):
            raise ConfigError(f"part {part.part_number}: {len(rows)} vectors in space {space!r} but {len(owners)} positions")
        if len(owners) and not 0 <= owners.min() <= owners.max() < len(part.chunks):
            raise ConfigError(f"part {part.part_number}: a vector of space {space!r} points past the {len(part.chunks)} chunks")


def insert_part(writer: sqlite3.Connection, part: PartCommit) -> list[int]:
    """Write a part's chunks and the document's progress; returns the chunks' ids, consecutive."""
    row = writer.execute("SELECT next_part, complete, source FROM documents WHERE key = ?", (part.document_key,)).fetchone()
    if row is None:
        raise IndexStateError("this document was deleted or replaced while it was being read. Ingest it again.")
    if part.part_number < row[0] or row[1]:
        raise IndexStateError(f"part {part.part_number} of {row[2]} is already stored; go on at part {row[0]}")
    first = writer.execute("SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'chunks'").fetchone()[0]
    ids = list(range(first, first + len(part.chunks)))
    writer.executemany(
        "INSERT INTO chunks VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                number,
                part.document_key,
                part.part_number,
                c.ordinal,
                c.modality,
                c.text,
                c.context,
                c.page,
                json.dumps(c.bbox) if c.bbox else None,
                c.start_s,
                c.end_s,
                _keep_asset(writer, c),
                to_json(c.metadata),
            )
            for number, c in zip(ids, part.chunks)
        ],
    )
    writer.execute(
        "INSERT INTO parts VALUES(?, ?, ?, ?, ?)", (part.document_key, part.part_number, first, len(ids), part.failure)
    )
    writer.execute(
        "UPDATE documents SET next_part = ?, section = ?, total = coalesce(?, total), "
        "title = CASE WHEN ? <> '' THEN ? ELSE title END WHERE key = ?",
        (part.part_number + 1, part.section, part.total, part.title, part.title, part.document_key),
    )
    return ids


def _keep_asset(writer: sqlite3.Connection, chunk: Chunk) -> str:
    if chunk.data is None:
        return chunk.asset
    name = hashlib.sha256(chunk.data).hexdigest()
    writer.execute("INSERT OR IGNORE INTO assets VALUES(?, ?)", (name, chunk.data))
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
    writer.execute("UPDATE documents SET complete = 1, visible = 1 WHERE key = ?", (key,))


def give_up(writer: sqlite3.Connection, key: int) -> None:
    """Remove a document none of whose parts was committed, and a replacement that will not be finished."""
    row = writer.execute("SELECT visible, next_part FROM documents WHERE key = ?", (key,)).fetchone()
    if row and (not row[0] or row[1] == 0):
        remove(writer, key)


def remove(writer: sqlite3.Connection, key: int) -> None:
    """Delete a document's rows and the assets that no other chunk shows."""
    assets = writer.execute("SELECT DISTINCT asset FROM chunks WHERE document = ? AND asset <> ''", (key,)).fetchall()
    for table, column in (("chunks", "document"), ("parts", "document"), ("documents", "key")):
        writer.execute(f"DELETE FROM {table} WHERE {column} = ?", (key,))
    writer.executemany("DELETE FROM assets WHERE sha256 = ?1 AND NOT EXISTS (SELECT 1 FROM chunks WHERE asset = ?1)", assets)
    writer.execute("UPDATE state SET removals = removals + 1")


def to_document(row: Sequence[Any]) -> Document:
    """A row of DOCUMENT_ROWS as a Document."""
    number, source, title, media_type, content_hash, parts, complete, metadata, chunks = row
    return Document(number, source, title, media_type, content_hash, parts, chunks, bool(complete), json.loads(metadata))


def to_chunk(row: Sequence[Any]) -> Chunk:
    """A row of CHUNK_ROWS as a Chunk."""
    number, text, modality, document_id, source, ordinal, part, context, page, bbox, start_s, end_s, asset, metadata = row
    return Chunk(
        text=text,
        modality=modality,
        id=number,
        document_id=document_id,
        source=source,
        ordinal=ordinal,
        part=part,
        context=context,
        page=page,
        bbox=tuple(json.loads(bbox)) if bbox else None,
        start_s=start_s,
        end_s=end_s,
        asset=asset,
        metadata=json.loads(metadata) if metadata != "{}" else {},
    )


def to_json(metadata: Mapping[str, Any]) -> str:
    """Metadata as JSON text; ConfigError names what JSON cannot hold."""
    try:
        return json.dumps(dict(metadata), ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"metadata must be plain values (text, numbers, lists, dictionaries): {error}") from error


def mask_of(runs: Sequence[tuple[int, int]], top: int, start: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Bool (top + 1,): `start` kept as it is, then True over runs of (first id, count)."""
    steps = np.zeros(top + 2, dtype=np.int32)
    if runs:
        spans = np.asarray(runs, dtype=np.int64)
        np.add.at(steps, spans[:, 0], 1)
        np.add.at(steps, spans.sum(axis=1), -1)
    mask = np.cumsum(steps[:-1], dtype=np.int32) > 0
    mask[: len(start)] |= start
    mask.flags.writeable = False
    return mask
