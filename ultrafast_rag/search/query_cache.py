"""Questions asked before, answered from memory, disk or Redis while the index has not changed.

The key holds the index and its generation, so a commit by anyone makes older entries unreachable. Memory is asked
first; what a slower tier knows is taken up into it. Nothing is ever unpickled: the shared tiers hold JSON, checked
when read. They may be lost at any time: that is a warning, once, and never an error.
"""

from __future__ import annotations

import copy
import hashlib
import json
import threading
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ultrafast_rag.ports import ResultTier
from ultrafast_rag.search.stored import from_json, to_json
from ultrafast_rag.types import Answer, Hits

ENTRIES = 1024  # chosen
TTL_S = 3600.0  # chosen: the index's generation outdates answers; this frees memory
_MOST_BYTES = 1 << 20  # of one entry in a shared tier
_WRITES_AHEAD = 256  # entries on their way to a shared tier; more are not kept there
_VERSION = 2  # of what an entry looks like


def normalised(question: str) -> str:
    """The question as a key: composed Unicode, single spaces. Case stays: to some encoders it means something."""
    return " ".join(unicodedata.normalize("NFC", question).split())


def frozen(value: Any) -> str:
    """Settings as a part of a key."""
    return "null" if value is None else json.dumps(value, sort_keys=True, default=str)


class _Same:
    """Stands for a function in a key: equal to itself alone, and while the key is held, nobody else gets its id."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.function is other.function

    def __hash__(self) -> int:
        return id(self.function)


def writer_key(generator: Any) -> Hashable:
    """Who writes as a part of a key: a name, or one function and no other, hashable or not."""
    return _Same(generator) if callable(generator) else generator


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


class QueryCache:
    """Memory, then disk, then Redis; what a search or an answer gave, for `ttl_s`.

    scope: names the index to the shared tiers. tiers: slower places, fastest first. `shared=False` keeps an entry in
    memory: one that depends on something only this process knows.
    """

    def __init__(
        self,
        scope: str = "",
        tiers: Mapping[str, ResultTier] | None = None,
        *,
        entries: int = ENTRIES,
        ttl_s: float = TTL_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.memory = QueryMemory(entries=entries, ttl_s=ttl_s)
        self._scope, self._tiers, self._ttl_s, self._clock = scope, dict(tiers or {}), ttl_s, clock
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
            entry = f"{_VERSION} {self._clock() + self._ttl_s}\n{to_json(value)}".encode()
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
            version, until = head.split(b" ", 1)
            left_s = float(until) - self._clock()
            if int(version) != _VERSION or not 0 < left_s <= self._ttl_s + 60:
                return None, 0.0
            return from_json(body), left_s
        except ValueError:
            self._damaged += 1
            return None, 0.0


def _name(key: tuple[Hashable, ...]) -> bytes:
    return hashlib.sha256(repr(key).encode()).digest()
