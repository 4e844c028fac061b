"""What a provider allows, and how many requests the day has left by its own calendar.

The count is kept on disk, since a restarted notebook does not get a fresh quota, and shared by the
processes of a machine. Google's day ends at midnight Pacific time.
"""

from __future__ import annotations

import sqlite3
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path

from ultrafast_rag.errors import MissingExtraError, RateLimitedError


@dataclass(frozen=True, slots=True)
class Quota:
    """Requests and tokens a minute, requests a day; None where there is no limit we know of."""

    rpm: int | None = None
    tpm: int | None = None
    rpd: int | None = None


def burst_of(limit: int) -> int:
    """How much of a minute's limit may go at once; the rest is the steady rate, so that no minute sees more than the limit.

    Half: five quick questions on a quota of ten do not wait, and a long run keeps half the quota's rate.
    """
    return max(1, limit // 2)


def _pacific() -> tzinfo:
    """The zone by whose midnight Google counts days; from the package tzdata where the system has no such database."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo("America/Los_Angeles")
    except ZoneInfoNotFoundError as error:
        raise MissingExtraError("tzdata", "gemini") from error


class QuotaLedger:
    """Requests sent today, by model and key, on disk; a day ends at midnight Pacific time.

    Several processes may share the file. Where it cannot be written, counting goes on in memory
    with a warning: a full disk must not stop an answer.
    """

    def __init__(self, path: Path | None, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now, self._zone, self._lock = now, _pacific(), threading.Lock()
        self._db = self._open(path) if path else _memory_ledger()

    def _open(self, path: Path) -> sqlite3.Connection:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return _ledger_table(sqlite3.connect(path, timeout=5, check_same_thread=False, isolation_level=None))
        except (OSError, sqlite3.Error) as error:
            warnings.warn(f"quota ledger {path} is not usable ({error}); counting in memory", stacklevel=3)
            return _memory_ledger()

    def day(self) -> date:
        """Today where the provider counts."""
        return self._now().astimezone(self._zone).date()

    def seconds_to_reset(self) -> float:
        """Until the next midnight there; 23 to 25 h apart around a change of clocks."""
        tomorrow = self.day() + timedelta(days=1)
        midnight = datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=self._zone)
        return (midnight.astimezone(UTC) - self._now()).total_seconds()

    def used(self, name: str) -> int:
        """Requests counted today under `name`."""
        return self._row(name)[0]

    def spend(self, name: str, rpd: int | None) -> None:
        """Count one request; RateLimitedError(per_day) when the day's are gone, by our count or the provider's."""
        used, spent = self._row(name)
        if spent or (rpd is not None and used >= rpd):
            wait_s = self.seconds_to_reset()
            raise RateLimitedError(
                f"the day's quota of {name.split('#')[0]} is spent after {used} requests; "
                f"it is renewed in {wait_s / 3600:.1f} h, at midnight Pacific",
                retry_after_s=wait_s,
                per_day=True,
            )
        self._write(name, 1, 0)

    def exhaust(self, name: str) -> None:
        """The provider said the day is spent: no further request under `name` until midnight Pacific."""
        self._write(name, 0, 1)

    def _row(self, name: str) -> tuple[int, bool]:
        with self._lock:
            row = self._execute("SELECT used, spent FROM days WHERE name = ? AND day = ?", (name, self.day().isoformat()))
        return (int(row[0]), bool(row[1])) if row else (0, False)

    def _write(self, name: str, used: int, spent: int) -> None:
        sql = (
            "INSERT INTO days VALUES (?, ?, ?, ?) ON CONFLICT (name, day) "
            "DO UPDATE SET used = used + excluded.used, spent = max(spent, excluded.spent)"
        )
        with self._lock:
            self._execute(sql, (name, self.day().isoformat(), used, spent))

    def _execute(self, sql: str, values: tuple[object, ...]) -> tuple[int, int] | None:
        try:
            row: tuple[int, int] | None = self._db.execute(sql, values).fetchone()
            return row
        except sqlite3.Error as error:
            warnings.warn(f"quota ledger failed ({error}); counting in memory from here", stacklevel=4)
            self._db = _memory_ledger()
            row = self._db.execute(sql, values).fetchone()
            return row

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _ledger_table(db: sqlite3.Connection) -> sqlite3.Connection:
    db.execute("CREATE TABLE IF NOT EXISTS days (name TEXT, day TEXT, used INTEGER, spent INTEGER, PRIMARY KEY (name, day))")
    return db


def _memory_ledger() -> sqlite3.Connection:
    return _ledger_table(sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None))
