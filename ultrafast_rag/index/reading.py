"""What an index holds, for those who ask: documents, chunks, masks, vectors, each checked before it is given out.

Many readers, across processes: each call sees one moment of the index. `store.py` adds the one who writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ultrafast_rag.errors import IndexCorruptError
from ultrafast_rag.index import filters as filter_sql
from ultrafast_rag.index import records, rows, upkeep
from ultrafast_rag.index.database import Database, plain_errors
from ultrafast_rag.index.vectors import SpaceView, checksum, grown_view, nothing, open_map
from ultrafast_rag.types import Chunk, Document, Mask, Stat

_MASKS_KEPT = 16
_SECTION_CHUNKS = 4


class _Alive(NamedTuple):
    """The mask of one generation. removals: of documents; while they stay, newer masks only grow. ids: sum of its ids."""

    generation: int = -1
    removals: int = -1
    ids: int = 0
    mask: Mask = np.zeros(1, dtype=np.bool_)


class Reading:
    """One index folder, read. Thread-safe."""

    def __init__(self, folder: Path, *, write: bool) -> None:
        self.folder = folder
        self._db = Database(folder, writable=write)
        self._caching = threading.Lock()
        self._views: dict[str, SpaceView] = {}
        self._alive = _Alive()
        self._masks: OrderedDict[str, tuple[int, Mask]] = OrderedDict()

    def get_meta(self, key: str, default: Any = None) -> Any:
        """The JSON value kept under `key`."""
        total = "sum" if self._db.format > 1 else f"'{rows.NO_SUM}'"
        row = self._one(f"SELECT key, value, {total} FROM meta WHERE key = ?", (key,))
        return rows.to_json_value(row, f"what the index keeps as {key!r}") if row else default

    @property
    def generation(self) -> int:
        """Moves on with each commit that changes what a search can find, whichever process made it."""
        row = self._one("SELECT generation FROM state")
        return rows.integer(row[0] if row else None, "an index's generation")

    @property
    def uid(self) -> str:
        """Drawn when the index was made: tells files derived from it from those of another."""
        row = self._one("SELECT uid FROM state")
        return rows.text(row[0] if row else None, "an index's name")

    def unchanged(self, source: str, stat: Stat) -> bool:
        """Whether a complete document has this source, size and modification time: no need to read the file."""
        return self.documents_by_stat([source]).get(source) == tuple(stat)

    def documents_by_stat(self, sources: Iterable[str]) -> dict[str, Stat]:
        """(size, mtime_ns) of the complete ones among these sources."""
        found = self._all(
            "SELECT source, size, mtime_ns FROM documents WHERE visible AND complete "
            "AND source IN (SELECT value FROM json_each(?))",
            (json.dumps(list(sources)),),
        )
        return {source: (size, mtime_ns) for source, size, mtime_ns in found}

    def documents(self) -> list[Document]:
        """Every searchable document, oldest first."""
        return [rows.to_document(row) for row in self._all(rows.select_documents(self._db.format) + "ORDER BY d.key")]

    def document(self, document_id: str) -> Document | None:
        """The searchable document with this id, or None."""
        row = self._one(rows.select_documents(self._db.format) + "AND d.id = ?", (document_id,))
        return rows.to_document(row) if row else None

    def files(self) -> dict[int, str]:
        """Key -> source of every searchable document that came from somewhere; texts added under an id of their own did not."""
        return dict(self._all("SELECT key, source FROM documents WHERE visible AND source <> id ORDER BY key"))

    def chunk_runs(self, keys: Sequence[int]) -> list[tuple[int, int, int]]:
        """(document key, first chunk id, chunks) of each part of these searchable documents."""
        return self._all(
            "SELECT p.document, p.first_chunk, p.chunks FROM parts p JOIN documents d ON d.key = p.document "
            "WHERE d.visible AND p.chunks > 0 AND d.key IN (SELECT value FROM json_each(?))",
            (json.dumps(list(keys)),),
        )

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
        query = rows.select_chunks(self._db.format) + "AND c.id IN (SELECT value FROM json_each(?))"
        with plain_errors(self.folder), self._db.snapshot() as reader:
            found = {row[0]: rows.to_chunk(row) for row in reader.execute(query, (json.dumps(wanted),))}
            if missing := [number for number in wanted if number not in found]:
                self._check_gone(reader, missing)
        return [found[number] for number in wanted if number in found]

    def _check_gone(self, reader: sqlite3.Connection, chunk_ids: Sequence[int]) -> None:
        """IndexCorruptError when a visible document should have one of these chunks, which were not found."""
        held = reader.execute(
            "SELECT value FROM json_each(?) WHERE EXISTS (SELECT 1 FROM parts p JOIN documents d ON d.key = p.document "
            "WHERE d.visible AND value BETWEEN p.first_chunk AND p.first_chunk + p.chunks - 1)",
            (json.dumps(chunk_ids),),
        ).fetchone()
        if held:
            raise IndexCorruptError(f"passage {held[0]} is lost from {self.folder}. {rows.ADVICE}")

    def asset(self, sha256: str) -> bytes | None:
        """The stored picture with this hash, or None."""
        row = self._one("SELECT data FROM assets WHERE sha256 = ?", (sha256,))
        if row and (not isinstance(row[0], bytes) or hashlib.sha256(row[0]).hexdigest() != sha256):
            raise IndexCorruptError(f"picture {sha256[:12]} in {self.folder} fails its checksum. {rows.ADVICE}")
        return row[0] if row else None

    def neighbours(self, chunk: Chunk) -> tuple[str, str]:
        """Text of the chunk before and after in the same document, "" at its ends.

        Where the chunker marked sections (metadata "section"), the rest of the chunk's section, up to
        `_SECTION_CHUNKS` chunks either way.
        """
        section = chunk.metadata.get("section")
        near = (
            "SELECT id FROM chunks WHERE document = (SELECT document FROM chunks WHERE id = ?1) AND id {0} ?1 "
            "AND text <> '' ORDER BY id {1} LIMIT ?2"
        )
        sides = []
        for comparison, order in (("<", "DESC"), (">", "ASC")):
            beside = self._all(near.format(comparison, order), (chunk.id, _SECTION_CHUNKS if section else 1))
            read = self.chunks([row[0] for row in beside])
            texts = [near.text for near in takewhile(lambda near: not section or near.context == chunk.context, read)]
            sides.append("\n".join(reversed(texts) if comparison == "<" else texts))
        return sides[0], sides[1]

    def iter_texts(self, after_chunk_id: int = 0) -> Iterator[tuple[int, str]]:
        """(chunk id, context and text) in id order, pages at a time; documents not yet visible are included."""
        query = rows.select_texts(self._db.format) + "c.id > ? ORDER BY c.id LIMIT 2000"
        while page := self._all(query, (after_chunk_id,)):
            for row in page:
                yield rows.to_text(row)
            after_chunk_id = page[-1][0]

    def alive(self) -> Mask:
        """Mask of the chunks a search may return; read-only, kept until the next commit."""
        ids = "visible_ids" if self._db.format > 1 else "NULL"
        with self._caching, plain_errors(self.folder), self._db.snapshot() as reader:
            generation, removals, total = reader.execute(f"SELECT generation, removals, {ids} FROM state").fetchone()
            old = self._alive
            if generation == old.generation:
                return old.mask
            grows = removals == old.removals
            found = reader.execute(
                "SELECT p.first_chunk, p.chunks FROM parts p JOIN documents d ON d.key = p.document "
                "WHERE d.visible AND p.chunks > 0 AND p.first_chunk > ?",
                (len(old.mask) - 1 if grows else 0,),
            ).fetchall()
            runs = records.runs_of(found)
            seen = (old.ids if grows else 0) + int((runs[:, 1] * runs[:, 0] + runs[:, 1] * (runs[:, 1] - 1) // 2).sum())
            if total is not None and total != seen:
                raise IndexCorruptError(f"the list of passages in {self.folder} is damaged: some are lost from it. {rows.ADVICE}")
            mask = records.mask_of(runs, old.mask if grows else old.mask[:1])
            self._alive = _Alive(generation, removals, seen, mask)
            return mask

    def allowed(self, filters: Mapping[str, Any]) -> Mask:
        """Mask of the searchable chunks that match every filter.

        source (path, its last components, or a glob), document_id, modality, title, page (number or [first,
        last]); any other key is looked for in the chunk's and document's metadata. A list means any of these.
        """
        if not filters:
            return self.alive()
        alive = self.alive()
        generation = self._alive.generation
        name = json.dumps(filters, sort_keys=True, default=str)
        with self._caching:
            known = self._masks.get(name)
            if known and known[0] == generation:
                return known[1]
        sources = self._all("SELECT key, source FROM documents WHERE visible") if "source" in filters else []
        text, values = filter_sql.where(filters, sources)
        found = self._all(f"SELECT c.id FROM chunks c JOIN documents d ON d.key = c.document WHERE d.visible AND {text}", values)
        mask = np.zeros(len(alive), dtype=np.bool_)
        ids = np.fromiter((row[0] for row in found), dtype=np.int64, count=len(found))
        mask[ids[(ids > 0) & (ids < len(mask))]] = True
        mask.flags.writeable = False
        with self._caching:
            self._masks[name] = (generation, mask)
            if len(self._masks) > _MASKS_KEPT:
                self._masks.popitem(last=False)
        return mask

    def spaces(self) -> list[str]:
        """Names of the vector spaces."""
        return [rows.to_space(row).name for row in self._all("SELECT name, dim, rows, file FROM spaces ORDER BY name")]

    def vectors(self, space: str) -> SpaceView:
        """Committed rows of a space; a space nobody wrote to is empty with 0 columns."""
        for _ in range(3):  # a compaction by another process may remove the file between the two looks
            with contextlib.suppress(FileNotFoundError), plain_errors(self.folder, but=FileNotFoundError):
                return self._view(space)
        raise IndexCorruptError(f"the vector file of space {space!r} is missing in {self.folder}. {rows.ADVICE}")

    def _view(self, name: str) -> SpaceView:
        with self._caching, self._db.snapshot() as reader:
            row = reader.execute("SELECT name, dim, rows, file FROM spaces WHERE name = ?", (name,)).fetchone()
            if row is None:
                return nothing()
            space, known = rows.to_space(row), self._views.get(name)
            if known is not None and known.file != space.file:
                known = None
            have = 0 if known is None else len(known.chunk_ids)
            if known is not None and have == space.rows:
                return known
            query = rows.select_blocks(self._db.format)
            blocks = rows.to_blocks(reader.execute(query, (name, have)).fetchall(), have, space.rows)
            vectors = open_map(self.folder, space)
            if self._db.format == 1 and known is None and blocks:  # without a sum a row: at least the end that a crash tears
                last = blocks[-1]
                if checksum(vectors[last.first_row :].tobytes()) != last.crc32:
                    raise IndexCorruptError(f"{space.file}: the last {last.rows} rows fail their checksum. {rows.ADVICE}")
            view = self._views[name] = grown_view(known, space, vectors, blocks)
            return view

    def digest(self, space: str, count: int) -> str:
        """SHA-256 over the block checksums of a space's first rows: names what a derived file was made from."""
        blocks = self._all(
            "SELECT first_row, rows, crc32 FROM blocks WHERE space = ? AND first_row < ? ORDER BY first_row", (space, count)
        )
        return hashlib.sha256(json.dumps([space, count, blocks]).encode()).hexdigest()

    def feedback(self) -> list[dict[str, Any]]:
        """Every vote kept, oldest first."""
        return [
            {"question": question, "chunk_id": chunk_id, "vote": vote, "at": at}
            for question, chunk_id, vote, at in self._all("SELECT question, chunk_id, vote, at FROM feedback ORDER BY id")
        ]

    def metadata_fields(self) -> list[str]:
        """Names in the metadata of searchable documents and chunks; reads them all."""
        rows = self._all(
            "SELECT DISTINCT m.key FROM documents d, json_each(d.metadata) m WHERE d.visible UNION SELECT DISTINCT m.key "
            "FROM chunks c JOIN documents d ON d.key = c.document, json_each(c.metadata) m WHERE d.visible"
        )
        return sorted(str(row[0]) for row in rows)

    def counts(self) -> dict[str, int]:
        """documents, complete, parts, chunks, assets, and for each space its rows as "vectors:NAME"."""
        documents, complete = self._one("SELECT count(*), coalesce(sum(complete), 0) FROM documents WHERE visible")
        parts, chunks = self._one(
            "SELECT count(*), coalesce(sum(p.chunks), 0) FROM parts p JOIN documents d ON d.key = p.document WHERE d.visible"
        )
        counts = {"documents": documents, "complete": complete, "parts": parts, "chunks": chunks}
        counts["assets"] = self._one("SELECT count(*) FROM assets")[0]
        return counts | {f"vectors:{name}": count for name, count in self._all("SELECT name, rows FROM spaces ORDER BY name")}

    def size_bytes(self) -> int:
        """Bytes of every file in the folder."""
        total = 0
        for path in self.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                total += path.lstat().st_size
        return total

    def verify(self) -> list[str]:
        """Read everything and compare with its checksums; what is wrong, in words, or []."""
        with plain_errors(self.folder):
            return upkeep.problems(self._db)

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with plain_errors(self.folder), self._db.reading() as reader:
            return reader.execute(sql, values).fetchall()

    def _one(self, sql: str, values: Sequence[Any] = ()) -> Any:
        with plain_errors(self.folder), self._db.reading() as reader:
            return reader.execute(sql, values).fetchone()
