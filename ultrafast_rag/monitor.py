"""Where time and memory go: seconds by stage, latency percentiles, resident memory."""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


class StageClock:
    """Adds up wall seconds by stage; stages that overlap in threads each count their own."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body under `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds measured elsewhere."""
        with self._lock:
            self._seconds[name] += seconds

    def seconds(self) -> dict[str, float]:
        """Seconds by stage, in the order the stages first finished."""
        with self._lock:
            return dict(self._seconds)


class PerformanceMonitor:
    """Latencies of the last calls by name; percentiles on demand. Costs a lock and an append a call."""

    def __init__(self, *, window: int = 2048) -> None:
        self._latencies_s: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=window))
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._lock = threading.Lock()

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Record the body's latency under `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.record(name, time.perf_counter() - start)

    def record(self, name: str, seconds: float) -> None:
        """Record a latency measured elsewhere."""
        with self._lock:
            self._latencies_s[name].append(seconds)
            self._counts[name] += 1

    def summary(self) -> dict[str, dict[str, float]]:
        """Per name: count, and p50_ms, p95_ms, p99_ms of the window."""
        with self._lock:
            series = {name: (self._counts[name], np.array(values)) for name, values in self._latencies_s.items()}
        return {
            name: {"count": count, **{f"p{p}_ms": float(np.percentile(values, p) * 1000) for p in (50, 95, 99)}}
            for name, (count, values) in series.items()
        }


def rss_mb() -> float:
    """Resident memory of this process in MiB; 0 where the platform does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_rss_mb()
    import resource

    return pages * resource.getpagesize() / 2**20


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far in MiB; 0 where the platform does not say."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
