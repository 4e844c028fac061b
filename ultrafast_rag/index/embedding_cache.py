"""Vectors by content, on diskcache, without pickle.

diskcache keeps the rows, their eviction and their total size. What it must not keep is its habit of
unpickling whatever a row says it holds (CVE-2025-69872: whoever can write the file runs code in every
reader), so `RawDisk` refuses every mode but raw bytes, for values and for keys. Batches read and write
diskcache's own table in one statement and one transaction: its per-entry calls cost 20-100 us each.
A vector is stored as float16 with a checksum over it and its key: half the disk, and an error (at most 2.5e-4 a component)
far below that of the engines themselves.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sqlite3
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diskcache
import numpy as np

from ultrafast_rag.types import Vectors

_MAGIC = b"UV2"
_HEAD = struct.Struct("<3scI")  # magic, dtype, crc32 of the key and the rest
_RAW = diskcache.core.MODE_RAW
_INLINE_BYTES = 1 << 20  # never a file of its own: a row then cannot point outside the folder
_ROW_OVERHEAD = 200  # bytes of SQLite around a row: key, times, index entries (measured: 190-210)
_READ_BATCH = 500  # SQLite's oldest limit on variables is 999
_LOCK_TIMEOUT_S = 10.0  # chosen: far above what writing a batch takes
# and of what SQLite quotes from a damaged file, which may be no text
_REFUSALS = (OSError, sqlite3.Error, diskcache.Timeout, UnicodeDecodeError)


class RawDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache ships no types
    """Bytes in, bytes out. Anything else in a row is refused with pickle.UnpicklingError and runs nothing."""

    def put(self, key: bytes) -> tuple[sqlite3.Binary, bool]:
        """A key for the database; only bytes are keys."""
        if not isinstance(key, bytes):
            raise TypeError(f"cache keys are bytes, not {type(key).__name__}")
        return sqlite3.Binary(key), True

    def get(self, key: Any, raw: Any) -> bytes:
        """A key from the database."""
        if raw != 1 or not isinstance(key, bytes):
            raise pickle.UnpicklingError("a cache row has a pickled key; it is not ours")
        return key

    def store(self, value: bytes, read: bool, key: Any = None) -> tuple[int, int, None, sqlite3.Binary]:
        """Columns size, mode, filename, value."""
        if read or not isinstance(value, bytes) or len(value) > _INLINE_BYTES:
            raise TypeError("cache values are bytes of at most 1 MiB")
        return len(value) + _ROW_OVERHEAD, _RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: Any, filename: Any, value: Any, read: Any) -> bytes:
        """A value from a row's columns."""
        if mode != _RAW or filename is not None or read or not isinstance(value, bytes):
            raise pickle.UnpicklingError("a cache row holds something else than raw bytes; it is not ours")
        return value

    def remove(self, file_path: str) -> None:
        """Our rows have no files, so a row that names one is not ours, and nothing is deleted for it."""


class NullCache:
    """Remembers nothing: `cache_embeddings=False`."""

    def get_many(self, fingerprint: str, keys: Sequence[bytes]) -> list[Vectors | None]:
        """None for every key."""
        return [None] * len(keys)

    def put_many(self, fingerprint: str, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class EmbeddingCache:
    """A folder of vectors; safe for several threads and processes. A disk that refuses costs a warning, never an error.

    size_gb: beyond it the oldest entries go. Keys are sha256 digests of content.
    """

    def __init__(self, folder: Path, *, size_gb: float) -> None:
        self.folder, self._size_bytes = folder, int(size_gb * 2**30)
        self._warned: set[str] = set()
        self._lock = threading.Lock()
        self._cache: Any = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
            self._cache = self._open()
        except _REFUSALS as error:
            self._warn("open", f"the embedding cache at {folder} cannot be used ({error}); vectors are computed anew")

    def get_many(self, fingerprint: str, keys: Sequence[bytes]) -> list[Vectors | None]:
        """A float32 (d,) vector per key, None where it is not known or fails its checksum."""
        wanted = [_full_key(fingerprint, key) for key in keys]
        found: dict[bytes, Vectors] = {}
        with self._tolerating("read"):
            for start in range(0, len(wanted), _READ_BATCH):
                for row in self._select(wanted[start : start + _READ_BATCH]):
                    self._accept(row, found)
        return [found.get(key) for key in wanted]

    def put_many(self, fingerprint: str, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Remember float32 (n, d); a disk that refuses is a warning, never an error."""
        if not len(keys):
            return
        now, disk = time.time(), RawDisk(str(self.folder))
        rows = []
        for key, vector in zip(keys, vectors):
            full = _full_key(fingerprint, key)
            size, mode, filename, value = disk.store(_pack(full, vector), False)
            rows.append((sqlite3.Binary(full), 1, now, None, now, 0, None, size, mode, filename, value))
        with self._tolerating("write"), self._lock:
            if self._cache is None:
                return
            with self._cache.transact(retry=False):
                self._cache._con.executemany(_INSERT, rows)
                self._evict()

    def __len__(self) -> int:
        """Entries, of all fingerprints; 0 when the cache cannot be used."""
        with self._tolerating("read"):
            return len(self._cache) if self._cache is not None else 0
        return 0

    def close(self) -> None:
        """Close the database; the cache is empty and silent afterwards."""
        if self._cache is not None:
            self._cache.close()
        self._cache = None

    def _open(self) -> Any:
        try:
            drop_unknown_settings(self.folder / diskcache.core.DBNAME)
        except sqlite3.OperationalError:
            raise  # locked or unwritable: the file itself may be sound
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            self._warn("damaged", f"the embedding cache at {self.folder} was damaged ({error}) and starts empty")
            for path in self.folder.glob(f"{diskcache.core.DBNAME}*"):
                path.unlink()
        return diskcache.Cache(
            str(self.folder),
            disk=RawDisk,
            timeout=_LOCK_TIMEOUT_S,
            size_limit=self._size_bytes,
            cull_limit=0,
            eviction_policy="least-recently-stored",
        )

    def _select(self, keys: Sequence[bytes]) -> list[tuple[Any, ...]]:
        if self._cache is None:
            return []
        marks = ",".join("?" * len(keys))
        # raw = 1: a planted row with a pickled key under the same bytes is never even read
        query = f"SELECT key, raw, mode, filename, value FROM Cache WHERE raw = 1 AND key IN ({marks})"
        return list(self._cache._sql(query, keys))

    def _accept(self, row: tuple[Any, ...], found: dict[bytes, Vectors]) -> None:
        key, raw, mode, filename, value = row
        try:
            disk = self._cache.disk
            name = disk.get(key, raw)
            vector = _unpack(name, disk.fetch(mode, filename, value, False))
        except (pickle.UnpicklingError, ValueError) as error:
            self._warn(
                "row", f"an entry of the embedding cache at {self.folder} is damaged or not ours ({error}); it is computed anew"
            )
            return
        found[name] = vector

    def _evict(self) -> None:
        """Oldest first, a tenth of the cap at a time, so that it is seldom done."""
        total = int(self._cache._sql("SELECT value FROM Settings WHERE key = 'size'").fetchone()[0])
        while total > self._size_bytes:
            goal, freed, doomed = total - int(self._size_bytes * 0.9), 0, []
            for rowid, size in self._cache._sql("SELECT rowid, size FROM Cache ORDER BY store_time, rowid"):
                doomed.append((rowid,))
                freed += max(1, int(size))
                if freed >= goal:
                    break
            if not doomed:
                return
            self._cache._con.executemany("DELETE FROM Cache WHERE rowid = ?", doomed)
            total -= freed

    @contextmanager
    def _tolerating(self, doing: str) -> Iterator[None]:
        try:
            yield
        except _REFUSALS as error:
            why = str(error) or "locked by another process"
            self._warn(doing, f"the embedding cache at {self.folder} refused to {doing} ({why}); going on without it")

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(message, RuntimeWarning, stacklevel=4)


# an upsert, not OR REPLACE: diskcache keeps its total size by triggers, which a replaced row does not fire
_INSERT = """
INSERT INTO Cache (key, raw, store_time, expire_time, access_time, access_count, tag, size, mode, filename, value)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key, raw) DO UPDATE SET store_time = excluded.store_time, size = excluded.size, mode = excluded.mode,
  filename = excluded.filename, value = excluded.value
"""


def content_key(text: str) -> bytes:
    """sha256 of a text, the key its vector is found by."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def open_embedding_cache(cache_dir: Path, *, size_gb: float, enabled: bool = True) -> EmbeddingCache | NullCache:
    """The cache below `cache_dir`, or one that remembers nothing."""
    return EmbeddingCache(Path(os.fspath(cache_dir)) / "embeddings", size_gb=size_gb) if enabled else NullCache()


def drop_unknown_settings(database: Path) -> None:
    """Keep only settings that diskcache knows: it sets an attribute of itself for each stored one, whatever its name."""
    if not database.exists():
        return
    known = {*diskcache.DEFAULT_SETTINGS, *diskcache.core.METADATA}
    connection = sqlite3.connect(database, timeout=_LOCK_TIMEOUT_S)
    try:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'Settings'").fetchone():
            return
        unknown = [(key,) for (key,) in connection.execute("SELECT key FROM Settings") if key not in known]
        if unknown:
            with connection:
                connection.executemany("DELETE FROM Settings WHERE key = ?", unknown)
    finally:
        connection.close()


def _full_key(fingerprint: str, key: bytes) -> bytes:
    return hashlib.sha256(_MAGIC + fingerprint.encode() + b"\0" + key).digest()


def _pack(key: bytes, vector: Vectors) -> bytes:
    body = np.asarray(vector, dtype="<f2").tobytes()
    return _HEAD.pack(_MAGIC, b"e", zlib.crc32(key + body)) + body


def _unpack(key: bytes, value: bytes) -> Vectors:
    if len(value) < _HEAD.size:
        raise ValueError("too short")
    magic, kind, checksum = _HEAD.unpack_from(value)
    body = value[_HEAD.size :]
    if magic != _MAGIC or kind != b"e" or not body or len(body) % 2 or zlib.crc32(key + body) != checksum:
        raise ValueError("fails its checksum")
    vector = np.frombuffer(body, dtype="<f2").astype(np.float32)
    length = float(np.linalg.norm(vector))
    if not 0.5 < length < 2:  # also for NaN
        raise ValueError("is no vector")
    return np.asarray(vector / length, dtype=np.float32)
