"""What an index holds, for those who ask: documents, chunks, masks, vectors, each checked before it is given out.

Many readers, across processes: each call sees one moment of the index. `store.py` adds the one who writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.errors import IndexCorruptError
from ultrafast_rag.index import rows, totals, upkeep
from ultrafast_rag.index.database import Database, plain_errors
from ultrafast_rag.index.vectors import SpaceView, checksum, grown_view, nothing, open_map
from ultrafast_rag.index.visible import Visible, run_of
from ultrafast_rag.types import Chunk, Document, Mask, Stat, Unencoded

_SECTION_CHUNKS = 4  # either way, of a section: about 1 000 tokens around a hit


class Reading:
    """One index folder, read. Thread-safe."""

    def __init__(self, folder: Path, *, write: bool) -> None:
        self.folder = folder
        self._db = Database(folder, writable=write)
        self._visible, self._caching = Visible(self._db), threading.RLock()
        self._views: dict[str, SpaceView] = {}

    def get_meta(self, key: str, default: Any = None) -> Any:
        """The JSON value kept under `key`."""
        total = "sum" if self._db.format > 1 else f"'{rows.NO_SUM}'"
        with plain_errors(self.folder), self._db.snapshot() as reader:
            row = reader.execute(f"SELECT key, value, {total} FROM meta WHERE key = ?", (key,)).fetchone()
            if row is None and self._db.format > 1:
                totals.compare(reader, "meta", what="the settings")
                for kept in reader.execute("SELECT key, value, sum FROM meta NOT INDEXED"):
                    rows.to_json_value(kept, "what the index keeps")
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
        query = rows.select_documents(self._db.format)
        query += "WHERE d.visible AND d.complete AND d.source IN (SELECT value FROM json_each(?))"
        found = [rows.document_fields(row) for row in self._all(query, (json.dumps(list(sources)),))]
        return {fields["source"]: (fields["size"], fields["mtime_ns"]) for fields in found}

    def documents(self) -> list[Document]:
        """Every searchable document, oldest first."""
        with plain_errors(self.folder), self._db.snapshot() as reader:
            runs = self._visible.now(reader).runs
            counts: Counter[int] = Counter()
            for key, _, count in runs.tolist():
                counts[key] += count
            fields = [rows.document_fields(row) for row in self._visible.documents(reader)]
        return [rows.to_document(one, counts[one["key"]]) for one in fields if one["visible"]]

    def document(self, document_id: str) -> Document | None:
        """The searchable document with this id, or None."""
        with plain_errors(self.folder), self._db.snapshot() as reader:
            query = rows.select_documents(self._db.format) + "WHERE d.visible AND d.id = ?"
            row = reader.execute(query, (document_id,)).fetchone()
            if row is None:
                return None
            fields, runs = rows.document_fields(row), self._visible.now(reader).runs
            return rows.to_document(fields, int(runs[runs[:, 0] == fields["key"], 2].sum()))

    def of_kind(self, kind: str) -> tuple[int, int]:
        """How many searchable documents are of a kind ("image", "audio", "video"), and how many of them have no passage."""
        with plain_errors(self.folder), self._db.snapshot() as reader:
            seen = self._visible.now(reader)
            self._visible.check_documents(reader, seen)
            query = "SELECT key FROM documents NOT INDEXED WHERE visible AND media_type LIKE ?"
            keys = [row[0] for row in reader.execute(query, (f"{kind}/%",))]
        return len(keys), len(keys) - int(np.isin(keys, seen.runs[:, 0]).sum())

    def sample(self, n: int) -> list[Chunk]:
        """At most n searchable chunks, spread evenly over the index."""
        ids = self.alive().nonzero()[0]
        return self.chunks(ids[:: max(1, len(ids) // n)][:n].tolist()) if n > 0 else []

    def files(self) -> dict[int, str]:
        """Key -> source of every searchable document that came from somewhere; texts added under an id of their own did not."""
        with plain_errors(self.folder), self._db.snapshot() as reader:
            if self._db.format > 1:
                totals.compare(reader, "documents", what="the documents")
            query = rows.select_documents(self._db.format) + "NOT INDEXED WHERE d.visible AND d.source <> d.id ORDER BY d.key"
            return dict(rows.check_document(row) for row in reader.execute(query))

    def chunk_runs(self, keys: Sequence[int]) -> list[tuple[int, int, int]]:
        """(document key, first chunk id, chunks) of each part of these searchable documents."""
        runs = self._runs()
        return [(key, first, count) for key, first, count in runs[np.isin(runs[:, 0], list(keys))].tolist()]

    def failures(self, document_id: str) -> list[tuple[int, str]]:
        """(part number, why) of each part that could not be read."""
        total = "p.sum" if self._db.format > 1 else "NULL"
        with plain_errors(self.folder), self._db.snapshot() as reader:
            if self._db.format > 1:
                totals.compare(reader, "parts", what="the parts")
            query = f"SELECT p.document, p.number, p.first_chunk, p.chunks, p.failure, {total} FROM parts p JOIN documents d "
            query += "ON d.key = p.document WHERE d.id = ? AND d.visible ORDER BY p.number"
            found = reader.execute(query, (document_id,)).fetchall()
        if self._db.format > 1 and any(totals.part_sum(*row[:-1]) != row[-1] for row in found):
            raise IndexCorruptError(f"what is kept of the parts of {document_id} fails its checksum. {rows.ADVICE}")
        return [(row[1], row[4]) for row in found if row[4] is not None]

    def chunks(self, chunk_ids: Sequence[int]) -> list[Chunk]:
        """Searchable chunks in the order asked; ids that are gone are left out."""
        wanted = [int(number) for number in chunk_ids]
        query = rows.select_chunks(self._db.format) + "AND c.id IN (SELECT value FROM json_each(?))"
        with plain_errors(self.folder), self._db.snapshot() as reader:
            found = {row[0]: rows.to_chunk(row) for row in reader.execute(query, (json.dumps(wanted),))}
            if missing := [number for number in wanted if number not in found]:
                mask = self._visible.now(reader).mask
                if held := [number for number in missing if 0 < number < len(mask) and mask[number]]:
                    raise IndexCorruptError(f"passage {held[0]} is lost from {self.folder}. {rows.ADVICE}")
        return [found[number] for number in wanted if number in found]

    def asset(self, sha256: str) -> bytes | None:
        """The stored picture with this hash, or None."""
        row = self._one("SELECT data FROM assets WHERE sha256 = ?", (sha256,))
        if row is None and self._one("SELECT 1 FROM chunks WHERE asset = ?", (sha256,)):
            raise IndexCorruptError(f"picture {sha256[:12]} is lost from {self.folder}. {rows.ADVICE}")
        if row and (not isinstance(row[0], bytes) or hashlib.sha256(row[0]).hexdigest() != sha256):
            raise IndexCorruptError(f"picture {sha256[:12]} in {self.folder} fails its checksum. {rows.ADVICE}")
        return row[0] if row else None

    def neighbours(self, chunk: Chunk) -> tuple[str, str]:
        """Text of the chunk before and after in the same document, "" at its ends.

        Where the chunker marked sections (metadata "section"), the rest of the chunk's section, up to
        `_SECTION_CHUNKS` chunks either way.
        """
        section = chunk.metadata.get("section")
        most = _SECTION_CHUNKS if section else 1
        runs = self._runs()
        mine = runs[runs[:, 0] == runs[run_of(runs, chunk.id), 0]] if len(runs) else runs
        ids = np.concatenate([np.empty(0, np.int64), *(np.arange(first, first + count) for _, first, count in mine.tolist())])
        before, after = np.sort(ids[ids < chunk.id])[::-1], np.sort(ids[ids > chunk.id])
        sides = []
        for beside in (before, after):
            texts = [
                near.text
                for near in takewhile(lambda near: not section or near.context == chunk.context, self._worded(beside, most))
            ]
            sides.append("\n".join(reversed(texts) if beside is before else texts))
        return sides[0], sides[1]

    def _worded(self, chunk_ids: totals.Ids, most: int) -> list[Chunk]:
        """The first chunks of a row that hold words."""
        found: list[Chunk] = []
        for start in range(0, len(chunk_ids), 2 * most):
            found += [chunk for chunk in self.chunks(chunk_ids[start : start + 2 * most].tolist()) if chunk.text]
            if len(found) >= most:
                break
        return found[:most]

    def iter_texts(self, after_chunk_id: int = 0) -> Iterator[tuple[int, str]]:
        """(chunk id, context and text) in id order, pages at a time; documents not yet visible are included."""
        query = rows.select_texts(self._db.format) + "c.id > ? ORDER BY c.id LIMIT 2000"
        missing = self.alive().copy()
        missing[: after_chunk_id + 1] = False
        while page := self._all(query, (after_chunk_id,)):
            for row in page:
                yield rows.to_text(row)
            ids = np.array([row[0] for row in page])
            missing[ids[ids < len(missing)]] = False
            after_chunk_id = page[-1][0]
        held = self.alive()
        if (missing & held[: len(missing)] if len(held) >= len(missing) else missing[: len(held)] & held).any():
            raise IndexCorruptError(f"passages are lost from {self.folder}. {rows.ADVICE}")

    def first_without(self, space: str) -> int:
        """The first chunk with words that has no vector in this space yet; 0 when all have.

        Vectors lie in the order of their chunks, so what has none comes after the last that has: nothing else is kept of it.
        """
        query = "SELECT id FROM chunks WHERE trim(text, ?) <> '' AND id > ? ORDER BY id LIMIT 1"
        with plain_errors(self.folder), self._db.snapshot() as reader:
            row = reader.execute(query, (rows.SPACES, rows.last_owner(reader, space))).fetchone()
        return rows.integer(row[0], "a passage's id", 1, rows.MOST_CHUNKS) if row else 0

    def last_with(self, space: str) -> int:
        """The last chunk that has a vector in this space; 0 when none has."""
        with plain_errors(self.folder), self._db.reading() as reader:
            return rows.last_owner(reader, space)

    def count_without(self, space: str) -> int:
        """How many searchable chunks with words have no vector in this space yet."""
        query = (
            "SELECT count(*) FROM chunks c JOIN documents d ON d.key = c.document "
            "WHERE d.visible AND trim(c.text, ?) <> '' AND c.id > ?"
        )
        with plain_errors(self.folder), self._db.snapshot() as reader:
            return int(reader.execute(query, (rows.SPACES, rows.last_owner(reader, space))).fetchone()[0])

    def passages_without(self, space: str, limit: int) -> list[Unencoded]:
        """The first chunks with words that have no vector in this space, in order, those not yet visible too."""
        query = rows.select_passages(self._db.format) + "AND c.id > ? ORDER BY c.id LIMIT ?"
        with plain_errors(self.folder), self._db.snapshot() as reader:
            found = reader.execute(query, (rows.SPACES, rows.last_owner(reader, space), limit)).fetchall()
        return [rows.to_passage(row) for row in found]

    def passages(self, chunk_ids: Sequence[int]) -> list[Unencoded]:
        """What is encoded of these chunks, in the order of their ids; those without words, or gone, are left out."""
        query = rows.select_passages(self._db.format) + "AND c.id IN (SELECT value FROM json_each(?)) ORDER BY c.id"
        found = self._all(query, (rows.SPACES, json.dumps([int(number) for number in chunk_ids])))
        return [rows.to_passage(row) for row in found]

    def alive(self) -> Mask:
        """Mask of the chunks a search may return; read-only, kept until the next commit."""
        return self.allowed({})

    def allowed(self, filters: Mapping[str, Any]) -> Mask:
        """Mask of the searchable chunks that match every filter.

        source (path, its last components, or a glob), document_id, modality, title, page (number or [first,
        last]); any other key is looked for in the chunk's and document's metadata. A list means any of these.
        """
        with plain_errors(self.folder), self._db.snapshot() as reader:
            return self._visible.allowed(reader, filters)

    def _runs(self) -> totals.Runs:
        with plain_errors(self.folder), self._db.snapshot() as reader:
            return self._visible.now(reader).runs

    def spaces(self) -> list[str]:
        """Names of the vector spaces."""
        with plain_errors(self.folder), self._db.snapshot() as reader:
            return [space.name for space in upkeep.read_spaces(reader, self._db.format)]

    def vectors(self, space: str) -> SpaceView:
        """Committed rows of a space; a space nobody wrote to is empty with 0 columns."""
        for _ in range(3):  # a compaction by another process may remove the file between the two looks
            with contextlib.suppress(FileNotFoundError), plain_errors(self.folder, but=FileNotFoundError):
                return self._view(space)
        raise IndexCorruptError(f"the vector file of space {space!r} is missing in {self.folder}. {rows.ADVICE}")

    def _view(self, name: str) -> SpaceView:
        with self._caching, self._db.snapshot() as reader:
            space = next((space for space in upkeep.read_spaces(reader, self._db.format) if space.name == name), None)
            if space is None:
                return nothing()
            known = self._views.get(name)
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
        with plain_errors(self.folder), self._db.snapshot() as reader:
            found = totals.feedback(reader, self._db.format)
        return [dict(zip(("question", "chunk_id", "vote", "at"), row[1:])) for row in found]

    def metadata_fields(self) -> list[str]:
        """Names in the metadata of searchable documents and chunks; reads them all."""
        with plain_errors(self.folder), self._db.snapshot() as reader:
            seen = self._visible.now(reader)
            self._visible.check_documents(reader, seen)
            self._visible.check_chunks(reader, seen)
            found = reader.execute(
                "SELECT DISTINCT m.key FROM documents d, json_each(d.metadata) m WHERE d.visible UNION SELECT DISTINCT m.key "
                "FROM chunks c JOIN documents d ON d.key = c.document, json_each(c.metadata) m WHERE d.visible"
            ).fetchall()
        return sorted(str(row[0]) for row in found)

    def counts(self) -> dict[str, int]:
        """documents, complete, parts, chunks, assets, and for each space its rows as "vectors:NAME"."""
        with plain_errors(self.folder), self._db.snapshot() as reader:
            self._visible.check_documents(reader, self._visible.now(reader))
            if self._db.format > 1:
                totals.compare(reader, "parts", what="the parts")
                totals.compare(reader, "assets", what="the pictures")
            shown = reader.execute(
                "SELECT count(*), coalesce(sum(complete), 0) FROM documents NOT INDEXED WHERE visible"
            ).fetchone()
            parts = reader.execute(
                "SELECT count(*) FROM parts p JOIN documents d ON d.key = p.document WHERE d.visible"
            ).fetchone()
            counts = {"documents": shown[0], "complete": shown[1]}
            counts |= {"parts": parts[0], "chunks": int(self._visible.now(reader).mask.sum())}
            counts["assets"] = reader.execute("SELECT count(*) FROM assets").fetchone()[0]
            return counts | {f"vectors:{space.name}": space.rows for space in upkeep.read_spaces(reader, self._db.format)}

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
