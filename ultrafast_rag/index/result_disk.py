"""Results of searches and answers in a diskcache folder, for later sessions: raw bytes, never unpickled."""

from __future__ import annotations

import os
import pickle
import sqlite3
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diskcache

from ultrafast_rag.index.embedding_cache import RawDisk, drop_unknown_settings

_DISK_BYTES = 256 << 20  # chosen
_REFUSALS = (OSError, sqlite3.Error, diskcache.Timeout, pickle.UnpicklingError, ValueError)
_SELECT = "SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1 AND expire_time > ?"


class DiskTier:
    """Entries in a diskcache folder, as raw bytes with a checksum over name and value."""

    def __init__(self, folder: Path, *, ttl_s: float, size_bytes: int = _DISK_BYTES) -> None:
        self._folder, self._ttl_s, self._size_bytes = folder, ttl_s, size_bytes
        self._warned = False
        self._cache: Any = None
        with self._tolerating():
            self._cache = self._open()

    def _open(self) -> Any:
        self._folder.mkdir(parents=True, exist_ok=True)
        database = self._folder / diskcache.core.DBNAME
        try:
            drop_unknown_settings(database)
        except sqlite3.OperationalError:
            raise  # locked or unwritable: the file itself may be sound
        except sqlite3.DatabaseError:  # what it held can be asked again
            for path in self._folder.glob(f"{diskcache.core.DBNAME}*"):
                path.unlink()
        return diskcache.Cache(str(self._folder), disk=RawDisk, timeout=1.0, size_limit=self._size_bytes)

    def read(self, scope: str, name: bytes) -> bytes | None:
        """As the port says."""
        if self._cache is None:
            return None
        try:  # by one statement: diskcache's own `get` and the block below take as long again
            row = self._cache._sql(_SELECT, (_full(scope, name), time.time())).fetchone()
            value: bytes = self._cache.disk.fetch(*row, False) if row else b""
        except _REFUSALS as error:
            self._warn(error)
            return None
        return value[4:] if len(value) > 4 and _sum(name, value[4:]) == value[:4] else None

    def write(self, scope: str, name: bytes, value: bytes) -> None:
        """As the port says."""
        with self._tolerating():
            if self._cache is not None:
                self._cache.set(_full(scope, name), _sum(name, value) + value, expire=self._ttl_s, tag=scope)

    def drop(self, scope: str) -> None:
        """As the port says."""
        with self._tolerating():
            if self._cache is not None:
                self._cache.evict(scope)

    def health(self) -> str:
        """As the port says."""
        if self._cache is None:
            return f"{self._folder} cannot be used"
        probe = os.urandom(8)
        self.write("health", b"probe", probe)
        return "ok" if self.read("health", b"probe") == probe else f"{self._folder} does not give back what was written"

    def close(self) -> None:
        """As the port says."""
        if self._cache is not None:
            self._cache.close()
        self._cache = None

    @contextmanager
    def _tolerating(self) -> Iterator[None]:
        try:
            yield
        except _REFUSALS as error:
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"the query cache at {self._folder} is not used: {error or 'locked'}", RuntimeWarning, stacklevel=4)


def _full(scope: str, name: bytes) -> bytes:
    return scope.encode() + b"\0" + name


def _sum(name: bytes, value: bytes) -> bytes:
    return zlib.crc32(name + value).to_bytes(4, "big")
