"""Paid-for results on disk: JSON by key in SQLite, each committed by itself.

synchronous=FULL: a result that was paid for survives a power cut, at a few milliseconds each, which
beside a request over the network is nothing.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultrafast_rag.errors import StorageError
from ultrafast_rag.files import refuse_links

_TABLE = "CREATE TABLE IF NOT EXISTS enrichments (key TEXT PRIMARY KEY, body TEXT NOT NULL, usd REAL NOT NULL)"
_SUM = "sum"
_FIELDS = {"caption": str, "summary": str, "keywords": list, "questions": list}


class EnrichmentStore:
    """get_many, put. Rows that are not what they should be are misses; the file is made with the first row."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._db: sqlite3.Connection | None = self._open() if path.exists() else None

    def _open(self) -> sqlite3.Connection:
        refuse_links(self._path.parent, *(f"{self._path.name}{side}" for side in ("", "-wal", "-shm", "-journal")))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self._path, timeout=10, check_same_thread=False, isolation_level=None)
            db.execute("PRAGMA trusted_schema = 0")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute(_TABLE)
            listed = db.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite@_%' ESCAPE '@'").fetchall()
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
            raise self._refused(error) from error
        if listed != [("table", "enrichments")]:  # no trigger or view of a stranger's runs here
            db.close()
            raise self._refused("it holds more than enrichments: damaged, or forged")
        return db

    def get_many(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Stored rows by key; unknown keys are left out."""
        found: dict[str, dict[str, Any]] = {}
        with self._lock:
            for start in range(0, len(keys) if self._db else 0, 500):
                some = keys[start : start + 500]
                sql = f"SELECT key, body FROM enrichments WHERE key IN ({','.join('?' * len(some))})"
                for key, body in self._execute(sql, some):
                    if (row := _row(key, body)) is not None:
                        found[key] = row
        return found

    def put(self, key: str, row: dict[str, Any], usd: float) -> None:
        """Commit one row. Raises StorageError when the disk refuses."""
        with self._lock:
            self._execute(
                "INSERT OR REPLACE INTO enrichments VALUES (?, ?, ?)", (key, json.dumps({**row, _SUM: _sum(key, row)}), usd)
            )

    def _execute(self, sql: str, values: Sequence[Any]) -> list[tuple[str, str]]:
        self._db = self._db or self._open()
        try:
            return self._db.execute(sql, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._refused(error) from error

    def _refused(self, error: object) -> StorageError:
        return StorageError(f"{self._path} cannot be used ({error}): free the disk, or move the file away to start anew")

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()


def _sum(key: str, row: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps([key, row], sort_keys=True).encode())


def _row(key: str, body: str) -> dict[str, Any] | None:
    try:
        row = json.loads(body)
        known = row.pop(_SUM, None)  # rows of 0.1.0 have none
        if known is not None and known != _sum(key, row):
            return None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    fits = isinstance(row, dict) and ("refused" in row or all(isinstance(row.get(name), kind) for name, kind in _FIELDS.items()))
    return row if fits else None
