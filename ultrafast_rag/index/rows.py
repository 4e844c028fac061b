"""Rows as SQLite gives them back: each field's type, range and size checked here, and nowhere else, before it is used.

SQLite checks neither its pages nor its types, and an index may be a stranger's. So a row carries a checksum of all its
fields (format 2), and what is outside of what this package writes is IndexCorruptError, never a path, an allocation or
a raw error. Rows of format 1 have no checksum and are served without.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ultrafast_rag.errors import IndexCorruptError, IndexStateError
from ultrafast_rag.types import MODALITIES, PAGE_HEAD, Chunk, Document, Unencoded

RowChunks = npt.NDArray[np.int32]
"""chunk id of each row of a vector file, int32: 4 of the bytes that a vector costs in memory."""
RowSums = npt.NDArray[np.uint32]

MOST_CHUNKS = 2**27  # ids ever given; the mask of them takes 128 MB
MOST_DIM = 2**16  # chosen: far above any encoder's
MOST_ROWS = 2**31 - 1  # what an int32 counts
NO_SUM = "-"  # what a row of format 1 has in the place of its checksum
_SPACE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_INT64 = 2**63 - 1  # the largest integer of SQLite

_CHUNK = "id document part ordinal modality text context page bbox start_s end_s asset metadata".split()
_DOCUMENT = "key id source title media_type content_hash size mtime_ns metadata next_part total section complete visible".split()


def checksum(values: Sequence[Any]) -> int:
    """CRC-32 of a row's values, its key among them: a row that is read in another's place fails too."""
    return zlib.crc32("\0".join(map(str, values)).encode("utf-8", "surrogatepass"))


def chunk_sum(values: Sequence[Any]) -> int:
    """A chunk's checksum, 64 bits: below, of what filters look at, so that they need not read the texts; above, of all."""
    both = checksum(values) << 32 | filtered_sum(values[0], values[1], values[4], values[7], values[12])
    return both - 2**64 if both >= 2**63 else both


def filtered_sum(chunk_id: object, document: object, modality: object, page: object, metadata: object) -> int:
    """The lower half of `chunk_sum`."""
    return checksum((chunk_id, document, modality, page, metadata))


def select_documents(version: int) -> str:
    """Documents `d`, visible or not, with what `document_fields` needs; version: the index's format."""
    return f"SELECT {_columns('d', _DOCUMENT, version)} FROM documents d "


def select_chunks(version: int) -> str:
    """Visible chunks `c` of documents `d` with what `to_chunk` needs."""
    columns = f"{_columns('c', _CHUNK, version)}, {_columns('d', _DOCUMENT, version)}"
    return f"SELECT {columns} FROM chunks c JOIN documents d ON d.key = c.document WHERE d.visible "


def select_texts(version: int) -> str:
    """Every chunk `c`, visible or not, with what `to_text` needs."""
    return f"SELECT {_columns('c', _CHUNK, version)} FROM chunks c WHERE "


def _columns(alias: str, names: Sequence[str], version: int) -> str:
    total = f"{alias}.sum" if version > 1 else f"'{NO_SUM}'"
    return ", ".join([*(f"{alias}.{name}" for name in names), total])


def chunk_columns() -> str:
    """What a chunk's checksum is over, for SELECT."""
    return ", ".join(_CHUNK)


def check_document(row: Sequence[Any]) -> tuple[int, str]:
    """Key and source of a row of `select_documents` that has its checksum."""
    if row[-1] not in (NO_SUM, checksum(row[:-1])):
        raise IndexCorruptError(f"document {row[0]!r} fails its checksum. {ADVICE}")
    return integer(row[0], "a document's key"), text(row[2], "a document's source")


def to_document(fields: Mapping[str, Any], chunks: int) -> Document:
    """From `document_fields`, and the number of its chunks."""
    return Document(
        fields["id"],
        fields["source"],
        fields["title"],
        fields["media_type"],
        fields["content_hash"],
        fields["next_part"],
        chunks,
        bool(fields["complete"]),
        mapping(fields["metadata"], "a document's metadata"),
    )


def to_chunk(row: Sequence[Any]) -> Chunk:
    """A row of `select_chunks`."""
    edge = len(_CHUNK) + 1
    fields, document = _chunk(row[:edge]), document_fields(row[edge:])
    return Chunk(
        text=fields["text"],
        modality=fields["modality"],
        id=fields["id"],
        document_id=document["id"],
        source=document["source"],
        ordinal=fields["ordinal"],
        part=fields["part"],
        context=fields["context"],
        page=fields["page"],
        bbox=fields["bbox"],
        start_s=fields["start_s"],
        end_s=fields["end_s"],
        asset=fields["asset"],
        metadata=mapping(fields["metadata"], "a chunk's metadata"),
    )


def to_text(row: Sequence[Any]) -> tuple[int, str]:
    """A row of `select_texts` -> chunk id; context, page head and text."""
    fields = _chunk(row)
    head = mapping(fields["metadata"], "a chunk's metadata").get(PAGE_HEAD) if PAGE_HEAD in fields["metadata"] else None
    return fields["id"], "\n".join(str(words) for words in (fields["context"], head, fields["text"]) if words)


def select_passages(version: int) -> str:
    """Every chunk `c` with words, visible or not, with what `to_passage` needs; the first value is `SPACES`."""
    ready = "(SELECT d.media_type = '' FROM documents d WHERE d.key = c.document)"
    return f"SELECT {_columns('c', _CHUNK, version)}, {ready} FROM chunks c WHERE trim(c.text, ?) <> '' "


def to_passage(row: Sequence[Any]) -> Unencoded:
    """A row of `select_passages`."""
    fields = _chunk(row[:-1])
    return Unencoded(fields["id"], fields["context"], fields["text"], bool(row[-1]))


SPACES = "".join(map(chr, filter(lambda code: chr(code).isspace(), range(1, 0x3001))))  # what `str.strip` takes for blank


def last_owner(reader: sqlite3.Connection, space: str) -> int:
    """Id of the chunk that the last row of a space belongs to, 0 without rows: chunks after it have no vector there."""
    row = reader.execute("SELECT chunk_ids FROM blocks WHERE space = ? ORDER BY first_row DESC LIMIT 1", (space,)).fetchone()
    if row is None:
        return 0
    if not isinstance(row[0], bytes) or len(row[0]) < 4:
        raise damaged("the description of vectors", row[0])
    return integer(int.from_bytes(row[0][-4:], "little"), "a passage's id", 1, MOST_CHUNKS)


def _chunk(row: Sequence[Any]) -> dict[str, Any]:
    fields = _sealed(_CHUNK, row, "passage")
    integer(fields["id"], "a passage's id", 1, MOST_CHUNKS)
    for name in ("document", "part", "ordinal"):
        integer(fields[name], f"a passage's {name}")
    for name in ("text", "context", "asset", "metadata"):
        text(fields[name], f"a passage's {name}")
    if fields["modality"] not in MODALITIES:
        raise damaged("a passage's modality", fields["modality"])
    if fields["page"] is not None:
        integer(fields["page"], "a passage's page")
    for name in ("start_s", "end_s"):
        if fields[name] is not None:
            _finite(fields[name], f"a passage's {name}")
    if fields["bbox"] is not None:
        fields["bbox"] = _box(fields["bbox"])
    return fields


def document_fields(row: Sequence[Any]) -> dict[str, Any]:
    """A row of `select_documents` by name, checked."""
    fields = _sealed(_DOCUMENT, row, "document")
    for name in ("key", "size", "mtime_ns", "next_part", "complete", "visible"):
        integer(fields[name], f"a document's {name}", -_INT64)
    for name in ("id", "source", "title", "media_type", "content_hash", "metadata", "section"):
        text(fields[name], f"a document's {name}")
    return fields


def _sealed(names: Sequence[str], row: Sequence[Any], what: str) -> dict[str, Any]:
    values, total = row[:-1], row[-1]
    if total not in (NO_SUM, chunk_sum(values) if names is _CHUNK else checksum(values)):
        raise IndexCorruptError(f"{what} {values[0]!r} fails its checksum. {ADVICE}")
    return dict(zip(names, values))


def sealed_as(total: object) -> int:
    """A stored checksum as it counts in its table's total: 0 for a row never sealed, or damaged."""
    return total if type(total) is int and total > 0 else 0


def seal_document(writer: sqlite3.Connection, key: int) -> None:
    """Give a document's row the checksum of what it holds now, and the table its total."""
    row = writer.execute(f"SELECT {', '.join(_DOCUMENT)}, sum FROM documents WHERE key = ?", (key,)).fetchone()
    if row:
        new, old = checksum(row[:-1]), sealed_as(row[-1])
        writer.execute("UPDATE documents SET sum = ? WHERE key = ?", (new, key))
        writer.execute("UPDATE state SET all_documents = all_documents + ?", (new - old,))


# ---- vector files


class Space(NamedTuple):
    """A vector space's row: the name of its file is one that this package gives."""

    name: str
    dim: int
    rows: int
    file: str


def file_name(space: str, version: int) -> str:
    """Vector file of a space; a compaction makes the next version."""
    if not _SPACE.fullmatch(space):
        raise IndexStateError(f"a vector space is named by letters, digits, '.', '_' and '-', not {space!r}")
    return f"vectors-{space}.f16" if version == 0 else f"vectors-{space}.{version}.f16"


def file_version(space: str, file: str) -> int:
    """The compactions behind a vector file's name; IndexCorruptError for a name that `file_name` does not give."""
    found = re.fullmatch(rf"vectors-{re.escape(space)}(?:\.([1-9]\d{{0,8}}))?\.f16", file)
    if not found:
        raise damaged("a vector file's name", file)
    return int(found[1] or 0)


def is_vector_file(name: str) -> bool:
    """Whether a name has the form of `file_name`."""
    return re.fullmatch(r"vectors-[A-Za-z0-9._-]{1,75}\.f16", name) is not None


def to_space(row: Sequence[Any]) -> Space:
    """A row (name, dim, rows, file)."""
    name, dim, rows, file = row
    if not _SPACE.fullmatch(text(name, "a vector space's name")):
        raise damaged("a vector space's name", name)
    file_version(name, text(file, "a vector file's name"))
    return Space(name, integer(dim, "a vector's length", 1, MOST_DIM), integer(rows, "a number of vectors", 0, MOST_ROWS), file)


class Block(NamedTuple):
    """Rows of one commit. sums: None in format 1."""

    first_row: int
    rows: int
    crc32: int
    chunk_ids: RowChunks
    sums: RowSums | None


def select_blocks(version: int) -> str:
    """Blocks of a space from a row on, in order, for `to_blocks`; values: space, first row."""
    sums = "sums, sum" if version > 1 else f"'{NO_SUM}', '{NO_SUM}'"
    return f"SELECT first_row, rows, crc32, chunk_ids, {sums} FROM blocks WHERE space = ? AND first_row >= ? ORDER BY first_row"


def to_blocks(rows: Sequence[Sequence[Any]], first_row: int, last_row: int) -> list[Block]:
    """Rows of `select_blocks`, which must describe every row from first_row up to last_row, once, in the order of chunks."""
    blocks, expected = [], first_row
    for first, count, crc, ids, sums, total in rows:
        if first != expected or type(count) is not int or not 0 < count <= MOST_ROWS or type(crc) is not int:
            raise damaged("the description of vectors", (first, count, crc))
        if not isinstance(ids, bytes) or len(ids) != 4 * count or (total != NO_SUM and not _is_array(sums, count)):
            raise damaged("the description of vectors", f"rows {first} to {first + count}")
        if total != NO_SUM and total != block_sum(first, count, crc, ids, sums):
            raise IndexCorruptError(f"the description of vectors {first} to {first + count - 1} fails its checksum. {ADVICE}")
        known = None if total == NO_SUM else np.frombuffer(sums, dtype="<u4")
        blocks.append(Block(first, count, crc, np.frombuffer(ids, dtype="<i4"), known))
        expected += count
    if expected != last_row:
        raise damaged("the description of vectors", f"{expected} of {last_row} rows")
    return blocks


INSERT_BLOCK = "INSERT INTO blocks VALUES(?, ?, ?, ?, ?, ?, ?)"


def block_sum(first_row: int, count: int, crc: int, chunk_ids: bytes, sums: bytes) -> int:
    """Checksum of a block's row: whose vectors they are is told before any of them is read."""
    return checksum([first_row, count, crc, zlib.crc32(chunk_ids), zlib.crc32(sums)])


def _is_array(value: object, count: int) -> bool:
    return isinstance(value, bytes) and len(value) == 4 * count


# ---- plain values


def to_json_value(row: Sequence[Any], what: str) -> Any:
    """A row (key, value, checksum) of `meta`."""
    key, value, total = row
    if total not in (NO_SUM, checksum([key, value])):
        raise IndexCorruptError(f"{what} fails its checksum. {ADVICE}")
    try:
        return json.loads(text(value, what))
    except (ValueError, RecursionError) as error:
        raise damaged(what, value) from error


def mapping(value: str, what: str) -> dict[str, Any]:
    """JSON text as a dictionary."""
    if value == "{}":
        return {}
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise damaged(what, value) from error
    if not isinstance(found, dict):
        raise damaged(what, value)
    return found


def integer(value: object, what: str, low: int = 0, high: int = _INT64) -> int:
    """An int within low..high."""
    if type(value) is not int or not low <= value <= high:
        raise damaged(what, value)
    return value


def text(value: object, what: str) -> str:
    """A str."""
    if type(value) is not str:
        raise damaged(what, value)
    return value


def _finite(value: object, what: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise damaged(what, value)
    return float(value)  # type: ignore[arg-type]


def _box(value: object) -> tuple[float, ...]:
    try:
        found = json.loads(text(value, "a passage's place on its page"))
    except (ValueError, RecursionError) as error:
        raise damaged("a passage's place on its page", value) from error
    if not isinstance(found, list) or len(found) != 4:
        raise damaged("a passage's place on its page", value)
    return tuple(_finite(number, "a passage's place on its page") for number in found)


ADVICE = "Run: python -m ultrafast_rag doctor --repair --index FOLDER; it keeps what is whole. Or restore an index archive."


def damaged(what: str, value: object) -> IndexCorruptError:
    """The error for a value that this package does not write."""
    return IndexCorruptError(f"{what} is {str(value)[:60]!r}, which this package does not write: damaged, or forged. {ADVICE}")
