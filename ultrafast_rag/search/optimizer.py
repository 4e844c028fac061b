"""The same question twice at once, or twice in an hour, is worked on once.

Knows nothing of questions: a key and a function. Results live in this process for `ttl_s`; who wants them shared
or kept longer takes `query_cache`.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ultrafast_rag.errors import ConfigError
from ultrafast_rag.search.query_cache import ENTRIES, TTL_S, copied

FOLLOWERS = 64  # kept for one question
SEEN_TWICE = 2  # how often one question must have followed another before it is fetched ahead


class Call(NamedTuple):
    """A function and what it is called with; plain functions run in a thread."""

    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}


@dataclass(slots=True, eq=False)
class _Flight:
    """One execution under way and how many wait for it; stale: invalidated meanwhile, so its result is not kept."""

    task: asyncio.Task[Any]
    waiting: int = 0
    stale: bool = False


class QueryOptimizer:
    """Executes a query once for all who ask it at the same time, and remembers the result for a while.

        optimizer = QueryOptimizer(ttl_s=600, prefetch=1)
        answer = await optimizer.execute_query("tides", rag.query, "When is high tide?")

    ttl_s: how long a result is given again; 0 shares what is in flight and keeps nothing. prefetch: how many likely
    next questions are executed ahead, in the background; likely is what followed the same question before, at least
    twice. What is given out is a copy where the result is a list, dict, set, array, Hits or Answer. Errors are given
    to all who wait and are never kept. Who gives up (a cancelled task) takes nobody's answer away; when all have, the
    execution is cancelled. One optimizer serves several event loops; requests are shared within each.
    """

    def __init__(
        self, *, ttl_s: float = TTL_S, entries: int = ENTRIES, prefetch: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not ttl_s >= 0 or entries < 1 or prefetch < 0:
            raise ConfigError("ttl_s must be at least 0 seconds, entries at least 1 and prefetch at least 0")
        self._ttl_s, self._entries, self._prefetch, self._clock = ttl_s, entries, prefetch, clock
        self._kept: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._flights: dict[tuple[int, Hashable], _Flight] = {}
        self._calls: OrderedDict[Hashable, Call] = OrderedDict()
        self._next: OrderedDict[Hashable, Counter[Hashable]] = OrderedDict()
        self._last: Hashable | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._lock = threading.Lock()
        self._queries = self._hits = self._misses = self._shared = self._fetched = 0

    async def execute_query(self, key: Hashable, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The kept result of `key`, or that of an execution under way, or `fn(*args, **kwargs)`, plain or async."""
        call = Call(fn, args, kwargs)
        with self._lock:
            self._queries += 1
            self._learn(key, call)
        result = await self._execute(key, call)
        if self._prefetch:
            self._fetch_ahead(key)
        return result

    async def _execute(self, key: Hashable, call: Call, *, counted: bool = True) -> Any:
        loop = asyncio.get_running_loop()
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and self._clock() < kept[0]:
                self._kept.move_to_end(key)
                self._hits += counted
                return copied(kept[1])
            flight = self._flights.get((id(loop), key))
            if flight is None or flight.task.cancelling():
                flight = _Flight(loop.create_task(_run(call)))
                self._flights[id(loop), key] = flight
                flight.task.add_done_callback(lambda _, flight=flight: self._landed(key, id(loop), flight))  # type: ignore[misc]
                self._misses += counted
            else:
                self._shared += counted
            flight.waiting += 1
        try:
            return copied(await asyncio.shield(flight.task))
        finally:
            with self._lock:
                flight.waiting -= 1
                if not flight.waiting and not flight.task.done():
                    flight.task.cancel()

    def _landed(self, key: Hashable, loop: int, flight: _Flight) -> None:
        with self._lock:
            if self._flights.get((loop, key)) is flight:
                del self._flights[loop, key]
            if flight.task.cancelled() or flight.task.exception() is not None or flight.stale or not self._ttl_s:
                return
            self._kept[key] = (self._clock() + self._ttl_s, copied(flight.task.result()))
            self._kept.move_to_end(key)
            while len(self._kept) > self._entries:
                self._kept.popitem(last=False)

    def invalidate_cache(self, key: Hashable | None = None) -> int:
        """Forget one result, or all; what is under way is delivered but not kept. Returns how many were forgotten."""
        with self._lock:
            for (_, name), flight in self._flights.items():
                if key is None or name == key:
                    flight.stale = True
            if key is not None:
                return int(self._kept.pop(key, None) is not None)
            count = len(self._kept)
            self._kept.clear()
            return count

    # ---- ahead of time

    async def precompute(self, calls: Mapping[Hashable, Call], *, concurrency: int = 4) -> dict[Hashable, Exception]:
        """Execute known questions now, a few at a time; returns those that failed, with why."""
        slots, failed = asyncio.Semaphore(concurrency), {}

        async def one(key: Hashable, call: Call) -> None:
            async with slots:
                try:
                    await self._execute(key, call, counted=False)
                except Exception as error:  # reported, each with its question
                    failed[key] = error

        await asyncio.gather(*(one(key, call) for key, call in calls.items()))
        return failed

    def likely_next(self, key: Hashable) -> list[Hashable]:
        """What most often followed `key` here, most frequent first, seen at least twice."""
        return [name for name, times in self._next.get(key, Counter()).most_common() if times >= SEEN_TWICE]

    def _learn(self, key: Hashable, call: Call) -> None:
        if not self._prefetch:
            return
        self._calls[key] = call
        if self._last is not None and self._last != key:
            after = self._next.setdefault(self._last, Counter())
            after[key] += 1
            if len(after) > FOLLOWERS:
                del after[min(after, key=lambda name: (after[name], name == key))]
        self._last = key
        for book in (self._calls, self._next):
            while len(book) > self._entries:
                book.popitem(last=False)

    def _fetch_ahead(self, key: Hashable) -> None:
        with self._lock:
            wanted = [(name, self._calls[name]) for name in self.likely_next(key)[: self._prefetch] if name in self._calls]
            wanted = [(name, call) for name, call in wanted if not self._fresh(name)]
            self._fetched += len(wanted)
        for name, call in wanted:
            task = asyncio.get_running_loop().create_task(self._execute(name, call, counted=False))
            self._background.add(task)
            task.add_done_callback(self._forget_background)

    def _forget_background(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # nobody asked yet: who asks executes again, and gets the error then

    def _fresh(self, key: Hashable) -> bool:
        kept = self._kept.get(key)
        return kept is not None and self._clock() < kept[0]

    def get_stats(self) -> dict[str, float]:
        """queries, hits, misses, shared (joined one under way), hit_rate, size, in_flight, prefetched."""
        with self._lock:
            saved = self._hits + self._shared
            return {
                "queries": self._queries,
                "hits": self._hits,
                "misses": self._misses,
                "shared": self._shared,
                "hit_rate": saved / self._queries if self._queries else 0.0,
                "size": sum(self._clock() < until for until, _ in self._kept.values()),
                "in_flight": len(self._flights),
                "prefetched": self._fetched,
            }


async def _run(call: Call) -> Any:
    if inspect.iscoroutinefunction(call.fn) or inspect.iscoroutinefunction(type(call.fn).__call__):
        return await call.fn(*call.args, **call.kwargs)
    result = await asyncio.to_thread(call.fn, *call.args, **call.kwargs)
    return await result if inspect.isawaitable(result) else result
