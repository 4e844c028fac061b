"""The append-only vector file: little-endian fp16 rows, nothing else; what is valid is said in SQLite.

Rows are unit length when written, so fp16 loses about 3e-4 a component and 1e-4 in a cosine. Blocks (one per
commit) carry a CRC-32 each. Bytes past the committed length are leftovers of a crash: the next
writer overwrites them. A format with its own header and footer lost: it would need a second
commit protocol beside SQLite's.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ultrafast_rag.errors import EncodingError, IndexCorruptError
from ultrafast_rag.types import Vectors

HalfVectors = npt.NDArray[np.float16]
"""float16 (n, d), rows of unit length to within rounding."""
RowChunks = npt.NDArray[np.int32]
"""chunk id of each row, int32: 4 of the bytes that a vector costs in memory."""
BYTES_PER_VALUE = 2
_SIGN_AND_VALUE = np.int32(-0x70002000)  # bits 31 and 13 to 27
_BIAS = np.float32(2.0**112)


class SpaceView(NamedTuple):
    """Committed rows of one vector space.

    vectors: read-only fp16 memory map (n, d).  chunk_ids: int32 (n,), never decreasing, so that the
    rows of a chunk are found by bisection.  file: name of the vector file, new after a compaction.
    """

    vectors: HalfVectors
    chunk_ids: RowChunks
    file: str


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
    """Writer's side of one space's file. `dim` values a row."""

    def __init__(self, path: Path, dim: int) -> None:
        self.path, self.dim = path, dim
        self._fd: int | None = None

    def append(self, committed_rows: int, rows: HalfVectors) -> int:
        """Write rows after the committed ones and fsync; returns their checksum. OSError when the disk refuses.

        After an error the file is cut back to its committed length, so a full disk gets its space back.
        """
        offset = committed_rows * self.dim * BYTES_PER_VALUE
        fd = self._open()
        size = os.fstat(fd).st_size
        if size < offset:
            raise IndexCorruptError(f"{self.path.name} is shorter than its {committed_rows} committed rows. Restore a snapshot.")
        data = rows.tobytes()
        try:
            if size > offset:
                os.ftruncate(fd, offset)
            os.lseek(fd, offset, os.SEEK_SET)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        except OSError:
            os.ftruncate(fd, offset)
            raise
        return checksum(data)

    def cut(self, committed_rows: int) -> None:
        """Drop bytes past the committed rows."""
        os.ftruncate(self._open(), committed_rows * self.dim * BYTES_PER_VALUE)

    def close(self) -> None:
        """Close the file; `append` opens it again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> int:
        if self._fd is None:
            is_new = not self.path.exists()
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
            if is_new:
                sync_folder(self.path.parent)
        return self._fd


def open_map(path: Path, rows: int, dim: int) -> HalfVectors:
    """Read-only map of the first `rows` rows. IndexCorruptError when the file is shorter, FileNotFoundError when gone."""
    if rows == 0:
        return np.empty((0, dim), dtype="<f2")
    if path.stat().st_size < rows * dim * BYTES_PER_VALUE:
        raise IndexCorruptError(
            f"{path.name} is shorter than its {rows} committed rows. Restore a snapshot, or ingest the sources into a new folder."
        )
    return np.memmap(path, dtype="<f2", mode="r", shape=(rows, dim))


def sync_folder(folder: Path) -> None:
    """Make new names in a folder durable; a no-op where folders cannot be opened (Windows)."""
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
