"""Questions asked before, answered from memory, disk or Redis while the index has not changed.

The key holds the index and its generation, so a commit by anyone makes older entries unreachable. Memory is asked
first; what a slower tier knows is taken up into it. Nothing is ever unpickled: the shared tiers hold JSON, checked
when read. They may be lost at any time: that is a warning, once, and never an error.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import sqlite3
import threading
import time
import unicodedata
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import diskcache

from ultrafast_rag.errors import ConfigError, require
from ultrafast_rag.index.embedding_cache import RawDisk, drop_unknown_settings
from ultrafast_rag.search.stored import from_json, to_json
from ultrafast_rag.types import Answer, Hits

ENTRIES = 1024
TTL_S = 3600.0
REDIS_TIMEOUT_S = 0.25
_MOST_BYTES = 1 << 20  # of one entry in a shared tier
_DISK_BYTES = 256 << 20
_WRITES_AHEAD = 256  # entries on their way to a shared tier; more are not kept there
_RECOVERY_S, _MOST_RECOVERY_S = 1.0, 60.0
_VERSION = 1  # of what an entry looks like


def normalised(question: str) -> str:
    """The question as a key: composed Unicode, single spaces. Case stays: to some encoders it means something."""
    return " ".join(unicodedata.normalize("NFC", question).split())


def copied(value: Any) -> Any:
    """A copy that its receiver may sort, clear or extend; values that cannot change are given as they are."""
    if isinstance(value, Hits):
        return value.copy()
    if isinstance(value, Answer):
        return replace(value, hits=value.hits.copy())
    return copy.copy(value)


class QueryMemory:
    """Least recently used results by question and settings, for `ttl_s`; thread-safe. What it gives out are copies."""

    def __init__(self, *, entries: int = ENTRIES, ttl_s: float = TTL_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries, self._ttl_s, self._clock = entries, ttl_s, clock
        self._known: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    def get(self, key: Hashable) -> Any | None:
        """A copy of the result, or None."""
        with self._lock:
            found = self._known.get(key)
            if found is None or found[0] <= self._clock():
                self.misses += 1
                return None
            self._known.move_to_end(key)
            self.hits += 1
        return copied(found[1])

    def put(self, key: Hashable, value: Any, *, ttl_s: float | None = None) -> None:
        """Remember a copy of a result."""
        entry = (self._clock() + (self._ttl_s if ttl_s is None else ttl_s), copied(value))
        with self._lock:
            self._known[key] = entry
            self._known.move_to_end(key)
            while len(self._known) > self._entries:
                self._known.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._known.clear()

    def __len__(self) -> int:
        return len(self._known)


class Tier(Protocol):
    """A slower place for entries that outlives this process or serves several."""

    def read(self, scope: str, name: bytes) -> bytes | None:
        """The entry, or None where it is not known or the tier cannot be asked now."""
        ...

    def write(self, scope: str, name: bytes, value: bytes) -> None:
        """Keep an entry for the tier's lifetime of entries."""
        ...

    def drop(self, scope: str) -> None:
        """Forget what one index has here."""
        ...

    def health(self) -> str:
        """The word "ok", or why it cannot be used."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class DiskTier:
    """Entries in a diskcache folder, as raw bytes with a checksum over name and value."""

    def __init__(self, folder: Path, *, ttl_s: float = TTL_S, size_bytes: int = _DISK_BYTES) -> None:
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
        with self._tolerating():
            value = self._cache.get(_full(scope, name)) if self._cache is not None else None
            if isinstance(value, bytes) and len(value) > 4 and _sum(name, value[4:]) == value[:4]:
                return value[4:]
        return None

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
        except (OSError, sqlite3.Error, diskcache.Timeout, pickle.UnpicklingError, ValueError) as error:
            if not self._warned:
                self._warned = True
                warnings.warn(f"the query cache at {self._folder} is not used: {error or 'locked'}", RuntimeWarning, stacklevel=3)


class RedisTier:
    """Entries in Redis, asked for at most `timeout_s`, and not at all while it is lost.

    One thread of ours talks to Redis, so that a server that trickles, hangs or does not resolve costs its caller no
    more than the timeout, and only once: then Redis counts as lost until a ping from the background succeeds, after
    1, 2, 4 ... 60 s. A write costs its caller nothing. url: redis://, rediss:// or unix://; it is never shown.
    """

    def __init__(
        self, url: str, *, ttl_s: float = TTL_S, timeout_s: float = REDIS_TIMEOUT_S, recovery_s: float = _RECOVERY_S
    ) -> None:
        redis = require("redis", extra="redis")
        once = require("redis.retry", package="redis", extra="redis").Retry
        at_once = require("redis.backoff", package="redis", extra="redis").NoBackoff
        self._errors: tuple[type[Exception], ...] = (redis.RedisError, OSError, NotInTime)
        try:
            self._client = redis.Redis.from_url(
                url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=once(at_once(), 0)
            )
        except (ValueError, TypeError) as error:
            raise ConfigError("the Redis address cannot be used: it must begin with redis://, rediss:// or unix://") from error
        self._ttl_s, self._timeout_s, self._recovery_s = ttl_s, timeout_s, recovery_s
        self._thread = ThreadPoolExecutor(1, "ufr-redis")
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._why = ""  # it is lost; "" while it is there
        self._warned = False
        self.losses = 0  # how often it was lost

    def read(self, scope: str, name: bytes) -> bytes | None:
        """As the port says; an entry over 1 MiB is none of ours, and only so much of it is fetched."""
        value = self._ask(self._client.getrange, _redis_key(scope, name), 0, _MOST_BYTES)
        return value if isinstance(value, bytes) and 0 < len(value) <= _MOST_BYTES else None

    def write(self, scope: str, name: bytes, value: bytes) -> None:
        """As the port says."""
        self._ask(self._client.set, _redis_key(scope, name), value, px=int(1000 * self._ttl_s))

    def drop(self, scope: str) -> None:
        """As the port says; batch by batch, so that no call takes long."""
        cursor: Any = 0
        while True:
            found = self._ask(self._client.scan, cursor, match=f"ufr:{scope}:*", count=500)
            if found is None:
                return
            cursor, names = found
            if names:
                self._ask(self._client.unlink, *names)
            if not cursor:
                return

    def health(self) -> str:
        """As the port says."""
        self._ask(self._client.ping)
        return f"lost: {self._why}" if self._why else "ok"

    def close(self) -> None:
        """As the port says."""
        self._closing.set()
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _ask(self, command: Callable[..., Any], *args: Any, **kwargs: Any) -> Any | None:
        if self._why or self._closing.is_set():
            return None
        try:
            return self._thread.submit(command, *args, **kwargs).result(self._timeout_s)
        except self._errors as error:
            self._lose(f"{type(error).__name__}")
            return None
        except RuntimeError:  # closed meanwhile
            return None

    def _lose(self, why: str) -> None:
        with self._lock:
            if self._why or self._closing.is_set():
                return
            self._why = why
            self.losses += 1
        threading.Thread(target=self._recover, name="ufr-redis-recovery", daemon=True).start()
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"Redis is lost ({why}); the cache in memory goes on, and Redis is tried again", RuntimeWarning, stacklevel=4
            )

    def _recover(self) -> None:
        wait_s = self._recovery_s
        while not self._closing.wait(wait_s):
            try:
                self._client.ping()
            except self._errors:
                wait_s = min(2 * wait_s, _MOST_RECOVERY_S)
            else:
                self._why = ""
                return


class QueryCache:
    """Memory, then disk, then Redis; what a search or an answer gave, for `ttl_s`.

    scope: names the index to the shared tiers. tiers: slower places, fastest first. `shared=False` keeps an entry in
    memory: one that depends on something only this process knows.
    """

    def __init__(
        self,
        scope: str = "",
        tiers: dict[str, Tier] | None = None,
        *,
        entries: int = ENTRIES,
        ttl_s: float = TTL_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.memory = QueryMemory(entries=entries, ttl_s=ttl_s)
        self._scope, self._tiers, self._ttl_s, self._clock = scope, tiers or {}, ttl_s, clock
        self._writer = ThreadPoolExecutor(1, "ufr-cache") if self._tiers else None
        self._writing: set[Future[None]] = set()
        self._tier_hits = dict.fromkeys(self._tiers, 0)
        self._damaged = 0

    def get(self, key: tuple[Hashable, ...], *, shared: bool = True) -> Any | None:
        """A copy of the result, or None. key: what JSON can hold, for the shared tiers."""
        found = self.memory.get(key)
        if found is not None or not self._tiers or not shared:
            return found
        name = _name(key)
        for tier, place in self._tiers.items():
            value, left_s = self._opened(place.read(self._scope, name))
            if value is not None:
                self._tier_hits[tier] += 1
                self.memory.put(key, value, ttl_s=left_s)
                return value
        return None

    def put(self, key: tuple[Hashable, ...], value: Any, *, shared: bool = True) -> None:
        """Remember a result, in the shared tiers in the background."""
        self.memory.put(key, value)
        if self._writer is None or not shared or len(self._writing) >= _WRITES_AHEAD:
            return
        future = self._writer.submit(self._write, _name(key), copied(value))
        self._writing.add(future)
        future.add_done_callback(self._writing.discard)

    def flush(self) -> None:
        """Wait until what was put is written."""
        for future in list(self._writing):
            future.result()

    def invalidate(self) -> None:
        """Forget what this index has, in every tier."""
        self.flush()
        self.memory.clear()
        for tier in self._tiers.values():
            tier.drop(self._scope)

    def get_stats(self) -> dict[str, float]:
        """hits, misses and hit_rate over all tiers; memory_hits, and hits by tier; entries in memory; damaged entries met."""
        slower = sum(self._tier_hits.values())
        hits, misses = self.memory.hits + slower, self.memory.misses - slower
        return {
            "hits": hits,
            "misses": misses,
            "hit_rate": hits / (hits + misses) if hits + misses else 0.0,
            "memory_hits": self.memory.hits,
            **{f"{name}_hits": count for name, count in self._tier_hits.items()},
            "entries": len(self.memory),
            "damaged": self._damaged,
        }

    def health_check(self) -> dict[str, str]:
        """By tier: "ok", or why not."""
        return {"memory": "ok", **{name: tier.health() for name, tier in self._tiers.items()}}

    def close(self) -> None:
        """Write what is under way and let go of the tiers."""
        if self._writer is not None:
            self._writer.shutdown()
        for tier in self._tiers.values():
            tier.close()

    def _write(self, name: bytes, value: Hits | Answer) -> None:
        try:
            head = json.dumps({"v": _VERSION, "until": self._clock() + self._ttl_s})
            entry = f"{head}\n{to_json(value)}".encode()
        except (ValueError, TypeError, KeyError):  # metadata that JSON cannot hold, a citation of something else
            return
        if len(entry) < _MOST_BYTES - 64:
            for tier in self._tiers.values():
                tier.write(self._scope, name, entry)

    def _opened(self, entry: bytes | None) -> tuple[Any | None, float]:
        if entry is None:
            return None, 0.0
        try:
            head, _, body = entry.partition(b"\n")
            facts = json.loads(head)
            left_s = float(facts["until"]) - self._clock()
            if facts["v"] != _VERSION or not 0 < left_s <= self._ttl_s + 60:
                return None, 0.0
            return from_json(body), left_s
        except (ValueError, TypeError, KeyError, RecursionError):
            self._damaged += 1
            return None, 0.0


def open_query_cache(
    scope: str, *, folder: Path | None = None, redis_url: str | None = None, ttl_s: float = TTL_S, entries: int = ENTRIES
) -> QueryCache:
    """The cache of one index. folder: None keeps nothing on disk; redis_url: None asks no Redis, else [redis] is needed."""
    tiers: dict[str, Tier] = {}
    if folder is not None:
        tiers["disk"] = DiskTier(folder, ttl_s=ttl_s)
    if redis_url:
        tiers["redis"] = RedisTier(redis_url, ttl_s=ttl_s)
    return QueryCache(scope, tiers, ttl_s=ttl_s, entries=entries)


def _name(key: tuple[Hashable, ...]) -> bytes:
    return hashlib.sha256(json.dumps(key, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")).digest()


def _full(scope: str, name: bytes) -> bytes:
    return scope.encode() + b"\0" + name


def _redis_key(scope: str, name: bytes) -> str:
    return f"ufr:{scope}:{name.hex()}"


def _sum(name: bytes, value: bytes) -> bytes:
    return zlib.crc32(name + value).to_bytes(4, "big")
