"""The append-only vector file: little-endian fp16 rows, nothing else; what is valid is said in SQLite.

Rows are unit length when written, so fp16 loses about 3e-4 a component and 1e-4 in a cosine. Blocks (one per
commit) carry a CRC-32, for `verify`; each row a sum over its values and its chunk, compared when the row is first
used: 12 ms for 100 000 x 384, where CRC-32 takes 64 and a block at a time reads more than a search needs.
Bytes past the committed length are leftovers of a crash: the next writer overwrites them. A format with its own
header and footer lost: it would need a second commit protocol beside SQLite's.
"""

from __future__ import annotations

import os
import zlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ultrafast_rag.errors import EncodingError, IndexCorruptError
from ultrafast_rag.files import open_inside, sync, write_all
from ultrafast_rag.index.rows import ADVICE, Block, RowChunks, RowSums, Space
from ultrafast_rag.types import Mask, Vectors

HalfVectors = npt.NDArray[np.float16]
"""float16 (n, d), rows of unit length to within rounding."""
BYTES_PER_VALUE = 2  # fp16
_CHECK_BYTES = 16 << 20  # compared at once
_FACTOR = 0x9E3779B97F4A7C15  # odd, so that a change of one word always changes the sum; its powers are the weights
_SIGN_AND_VALUE = np.int32(-0x70002000)  # bits 31 and 13 to 27
_BIAS = np.float32(2.0**112)


class SpaceView(NamedTuple):
    """Committed rows of one vector space; `take` is the way to them, the arrays are for looking things up.

    vectors: read-only fp16 memory map (n, d).  chunk_ids: int32 (n,), never decreasing, so that the
    rows of a chunk are found by bisection.  file: name of the vector file, new after a compaction.
    sums: uint32 (n,), None in an index of format 1.  checked: rows whose sum was compared, shared by all views of a file.
    """

    vectors: HalfVectors
    chunk_ids: RowChunks
    file: str
    sums: RowSums | None = None
    checked: Mask = np.zeros(0, dtype=np.bool_)

    def take(self, rows: npt.NDArray[np.int64] | slice) -> Vectors:
        """Rows in fp32; IndexCorruptError when one is met for the first time and is not what was committed."""
        half = self.vectors[rows]
        if self.sums is None or self.checked[rows].all():
            return to_single(half)
        bad = row_sums(half, self.chunk_ids[rows]) != self.sums[rows]
        with np.errstate(invalid="ignore", divide="ignore"):
            single = to_single(half)
        if bad.any() or not np.isfinite(single.sum(dtype=np.float64)):
            raise IndexCorruptError(f"{self.file}: {max(int(bad.sum()), 1)} vectors fail their checksum. {ADVICE}")
        self.checked[rows] = True
        return single

    def check(self, first: int, last: int) -> None:
        """Compare the rows first..last that were not yet: before something else reads them all."""
        step = max(1, _CHECK_BYTES // max(1, self.vectors.shape[1] * BYTES_PER_VALUE))
        for start in range(first, last, step):
            span = slice(start, min(start + step, last))
            if self.sums is not None and not self.checked[span].all():
                self.take(span)


def nothing() -> SpaceView:
    """A space that nobody wrote to: no rows of 0 columns."""
    return SpaceView(np.empty((0, 0), dtype="<f2"), np.empty(0, dtype=np.int32), "")


def grown_view(old: SpaceView | None, space: Space, vectors: HalfVectors, blocks: list[Block]) -> SpaceView:
    """The view of a file that has more rows than `old` saw of it; what was compared stays so.

    IndexCorruptError when the chunks of the rows do not rise.
    """
    known = 0 if old is None else len(old.chunk_ids)
    ids = np.concatenate([np.empty(0, np.int32) if old is None else old.chunk_ids, *(block.chunk_ids for block in blocks)])
    if len(ids) and (ids[0] < 1 or (np.diff(ids[max(known - 1, 0) :]) < 0).any()):
        raise IndexCorruptError(f"{space.file}: its vectors are not in the order of their passages. {ADVICE}")
    ids.flags.writeable = False
    sums, checked = None, np.zeros(0, dtype=np.bool_)
    if all(block.sums is not None for block in blocks) and (old is None or old.sums is not None):
        kept = [] if old is None or old.sums is None else [old.sums]
        sums = np.concatenate([np.empty(0, np.uint32), *kept, *(block.sums for block in blocks if block.sums is not None)])
        checked = np.concatenate([checked if old is None else old.checked, np.zeros(len(ids) - known, dtype=np.bool_)])
    return SpaceView(vectors, ids, space.file, sums, checked)


@cache
def _weights(words: int) -> npt.NDArray[np.uint64]:
    """Powers of `_FACTOR`, one a word and one for the chunk's id."""
    return np.cumprod(np.full(words + 1, _FACTOR, dtype=np.uint64), dtype=np.uint64)


def row_sums(rows: HalfVectors, chunk_ids: RowChunks) -> RowSums:
    """Each row's sum, uint32 (n,): the upper half of its 64-bit words and its chunk's id, weighted and added modulo 2^64."""
    spare = -rows.shape[1] % 4
    padded = np.pad(rows, ((0, 0), (0, spare))) if spare else rows
    words = np.ascontiguousarray(padded, dtype="<f2").view("<u8")
    weights = _weights(words.shape[1])
    total = np.einsum("nd,d->n", words, weights[:-1]) + chunk_ids.astype(np.uint64) * weights[-1]
    return np.asarray(total >> np.uint64(32), dtype="<u4")


def to_half(vectors: Vectors, space: str) -> HalfVectors:
    """Unit-length fp16 rows of float (n, d); EncodingError when a row is NaN, infinite or zero."""
    values = np.asarray(vectors, dtype=np.float32)
    if values.ndim != 2:
        raise EncodingError(f"vectors of space {space!r} must have shape (n, d), not {values.shape}")
    norms = np.linalg.norm(values, axis=1)
    bad = np.flatnonzero(~np.isfinite(norms) | (norms < 1e-12))
    if len(bad):
        raise EncodingError(
            f"{len(bad)} of {len(values)} vectors of space {space!r} are NaN, infinite or zero (first: row {bad[0]}). "
            "Nothing was stored; encode them again in 32-bit precision."
        )
    half: HalfVectors = (values / norms[:, None]).astype("<f2")
    return half


def to_single(rows: HalfVectors) -> Vectors:
    """fp16 rows as fp32 of unit length: rounding is undone as far as length goes, so scores are cosines.

    Sign, exponent and fraction are moved to their fp32 places and the exponent's bias is set right by a product: exact,
    for the smallest values too, and three times as fast as numpy's cast.
    """
    bits = np.ascontiguousarray(rows).view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= _SIGN_AND_VALUE
    single: Vectors = bits.view(np.float32)
    single *= _BIAS
    norms = np.sqrt(np.einsum("ij,ij->i", single, single))
    single /= norms[:, None]
    return single


def cosines(rows: Vectors, query: Vectors) -> Vectors:
    """Inner product of unit rows (n, d) with a unit query (d,), on the calling thread alone.

    BLAS wakes a second thread for any matrix of over 10 000 values; beside other work that takes milliseconds where
    the sum itself takes 0.15 for 5 000 rows (a whole search beside a busy process: 10.5 ms at the median, and 3.3 so).
    """
    return np.asarray(np.einsum("nd,d->n", rows, query))


def checksum(data: bytes | memoryview) -> int:
    """CRC-32 of a block's bytes."""
    return zlib.crc32(data)


class VectorFile:
    """Writer's side of one space's file."""

    def __init__(self, folder: Path, space: Space) -> None:
        self.folder, self.name, self.dim = folder, space.file, space.dim
        self._fd: int | None = None

    def append(self, committed_rows: int, rows: HalfVectors) -> int:
        """Write rows after the committed ones and fsync; returns their checksum. OSError when the disk refuses.

        After an error the file is cut back to its committed length, so a full disk gets its space back.
        """
        offset = committed_rows * self.dim * BYTES_PER_VALUE
        fd = self._open()
        size = os.fstat(fd).st_size
        if size < offset:
            raise IndexCorruptError(f"{self.name} is shorter than its {committed_rows} committed rows. {ADVICE}")
        data = rows.tobytes()
        try:
            if size > offset:
                os.ftruncate(fd, offset)
            os.lseek(fd, offset, os.SEEK_SET)
            write_all(fd, data)
            os.fsync(fd)
        except OSError:
            os.ftruncate(fd, offset)
            raise
        return checksum(data)

    def close(self) -> None:
        """Close the file; `append` opens it again."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def _open(self) -> int:
        if self._fd is None:
            is_new = not (self.folder / self.name).exists()
            self._fd = open_inside(self.folder, self.name, os.O_RDWR | os.O_CREAT)
            if is_new:
                sync(self.folder)
        return self._fd


def open_map(folder: Path, space: Space) -> HalfVectors:
    """Read-only map of a space's rows. IndexCorruptError when the file is shorter, FileNotFoundError when gone."""
    if space.rows == 0:
        return np.empty((0, space.dim), dtype="<f2")
    with open(open_inside(folder, space.file, os.O_RDONLY), "rb") as file:
        if os.fstat(file.fileno()).st_size < space.rows * space.dim * BYTES_PER_VALUE:
            raise IndexCorruptError(f"{space.file} is shorter than its {space.rows} committed rows. {ADVICE}")
        return np.memmap(file, dtype="<f2", mode="r", shape=(space.rows, space.dim))
