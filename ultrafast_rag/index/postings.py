"""Inverted lists in flat arrays: build from terms, merge, save, map back.

A segment covers a run of chunk ids. Terms are 64-bit hashes, sorted, so a new process maps the file
and bisects: no dictionary to load. (Two of a million terms share a hash with odds of 3 in 100 million.)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ultrafast_rag.errors import IndexCorruptError
from ultrafast_rag.files import open_inside, write_whole
from ultrafast_rag.types import ChunkIds

_ALIGN = 64  # bytes, a cache line: what numpy maps must begin on its own
_DTYPES = {
    name: np.dtype(kind)
    for name, kind in (
        ("terms", "<u8"), ("starts", "<i8"), ("docs", "<i4"), ("counts", "<u2"), ("chunk_ids", "<i8"), ("lengths", "<f4"),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Segment:
    """Read-only arrays.

    terms: uint64 (t,), sorted.  starts: int64 (t + 1,) into postings.  docs: int32 (p,), positions in
    chunk_ids, rising within a term.  counts: uint16 (p,).  chunk_ids: int64 (n,), rising.  lengths: float32 (n,), in terms.
    """

    terms: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int64]
    docs: npt.NDArray[np.int32]
    counts: npt.NDArray[np.uint16]
    chunk_ids: ChunkIds
    lengths: npt.NDArray[np.float32]

    def find(self, terms: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """First posting and number of postings of each term; 0 postings where it is not here."""
        if not len(self.terms):
            return np.zeros(len(terms), np.int64), np.zeros(len(terms), np.int64)
        places = np.minimum(np.searchsorted(self.terms, terms), len(self.terms) - 1)
        found = self.terms[places] == terms
        return self.starts[places], np.where(found, self.starts[places + 1] - self.starts[places], 0)


def hash_term(term: str) -> int:
    """64-bit BLAKE2b of a term's UTF-8."""
    return int.from_bytes(hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def build(chunk_ids: Sequence[int], term_hashes: npt.NDArray[np.uint64], lengths: Sequence[int]) -> Segment:
    """A segment of new chunks. term_hashes: all their terms one after another, `lengths` of them each."""
    sizes = np.asarray(lengths, dtype=np.int64)
    owners = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    order = np.lexsort((owners, term_hashes))
    hashes, docs = term_hashes[order], owners[order]
    is_first = np.ones(len(hashes), dtype=np.bool_)
    is_first[1:] = (hashes[1:] != hashes[:-1]) | (docs[1:] != docs[:-1])
    firsts = np.flatnonzero(is_first)
    counts = np.diff(np.append(firsts, len(hashes)))
    return _assemble(hashes[firsts], docs[firsts], counts, np.asarray(chunk_ids, dtype=np.int64), sizes.astype(np.float32))


def merge(first: Segment, second: Segment) -> Segment:
    """One segment of two; `second` holds the higher chunk ids."""
    hashes = np.concatenate([np.repeat(s.terms, np.diff(s.starts)) for s in (first, second)])
    docs = np.concatenate([first.docs, second.docs + np.int32(len(first.chunk_ids))])
    counts = np.concatenate([first.counts, second.counts])
    order = np.argsort(hashes, kind="stable")
    return _assemble(
        hashes[order],
        docs[order],
        counts[order],
        np.concatenate([first.chunk_ids, second.chunk_ids]),
        np.concatenate([first.lengths, second.lengths]),
    )


def _assemble(
    hashes: npt.NDArray[np.uint64],
    docs: npt.NDArray[np.int32],
    counts: npt.NDArray[Any],
    chunk_ids: ChunkIds,
    lengths: npt.NDArray[np.float32],
) -> Segment:
    is_first = np.ones(len(hashes), dtype=np.bool_)
    is_first[1:] = hashes[1:] != hashes[:-1]
    firsts = np.flatnonzero(is_first)
    starts = np.append(firsts, len(hashes)).astype(np.int64)
    return Segment(hashes[firsts], starts, docs, np.minimum(counts, 65_535).astype(np.uint16), chunk_ids, lengths)


def save(segment: Segment, folder: Path) -> dict[str, Any]:
    """Write a segment under a name made of its checksum, durably; returns its manifest entry."""
    layout: dict[str, Any] = {}
    pieces: list[bytes] = []
    offset = 0
    for name, dtype in _DTYPES.items():
        array = np.ascontiguousarray(getattr(segment, name), dtype=dtype)
        data = array.tobytes()
        layout[name] = {"length": len(array), "offset": offset}
        pieces += [data, b"\0" * (-len(data) % _ALIGN)]
        offset += len(data) + (-len(data) % _ALIGN)
    content = b"".join(pieces)
    digest = hashlib.sha256(content).hexdigest()
    name = f"lexical-{digest[:16]}.bin"
    if (have := _map(folder, name)) is None or len(have) != len(content):
        write_whole(folder, name, [content])
    return {"file": name, "sha256": digest, "size_bytes": len(content), "arrays": layout}


def load(entry: Mapping[str, Any], folder: Path) -> Segment | None:
    """Map a saved segment back; None when the file is missing, is not what the manifest says, or is no segment.

    KeyError, TypeError or ValueError for an entry that `save` does not write.
    """
    content = _map(folder, str(entry["file"]))
    if content is None or len(content) != entry["size_bytes"] or hashlib.sha256(content.data).hexdigest() != entry["sha256"]:
        return None
    arrays = {}
    for name, dtype in _DTYPES.items():
        offset, length = entry["arrays"][name]["offset"], entry["arrays"][name]["length"]
        if type(offset) is not int or type(length) is not int or offset % _ALIGN or not 0 <= offset <= len(content):
            raise ValueError(f"a segment's {name} lies outside of its file")
        arrays[name] = content[offset:].view(np.ndarray)[: length * dtype.itemsize].view(dtype)
        if length < 0 or len(arrays[name]) != length:
            raise ValueError(f"a segment's {name} is cut short")
    segment = Segment(**arrays)
    return segment if _is_whole(segment) else None


def _map(folder: Path, name: str) -> npt.NDArray[np.uint8] | None:
    try:
        with open(open_inside(folder, name, os.O_RDONLY), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return np.memmap(file, dtype=np.uint8, mode="r") if size else np.empty(0, np.uint8)
    except (OSError, IndexCorruptError):
        return None


def _is_whole(segment: Segment) -> bool:
    """Whether every number in it points inside it, so that no question can lead outside."""
    starts, docs, ids = segment.starts, segment.docs, segment.chunk_ids
    if len(starts) != len(segment.terms) + 1 or len(segment.counts) != len(docs) or len(segment.lengths) != len(ids):
        return False
    if starts[0] != 0 or starts[-1] != len(docs) or (np.diff(starts) < 0).any() or (len(ids) and (np.diff(ids) <= 0).any()):
        return False
    return not len(docs) or bool(docs.min() >= 0 and docs.max() < len(ids))
