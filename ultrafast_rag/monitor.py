"""Where time and memory go: seconds by stage, percentiles by operation, errors, resident and GPU memory."""

from __future__ import annotations

import functools
import inspect
import logging
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from ultrafast_rag.errors import ConfigError, require

WINDOW = 1000  # values of each name that percentiles are taken over
_LAST_ERRORS = 20  # a screenful
_log = logging.getLogger("ultrafast_rag")
F = TypeVar("F", bound=Callable[..., Any])


class StageClock:
    """Adds up wall seconds by stage; stages that overlap in threads each count their own.

    monitor: also gets each stretch, as an operation of the stage's name after `prefix`.
    """

    def __init__(self, monitor: PerformanceMonitor | None = None, *, prefix: str = "") -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._monitor, self._prefix = monitor, prefix

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
        if self._monitor is not None:
            self._monitor.track_operation(self._prefix + name, seconds)

    def seconds(self) -> dict[str, float]:
        """Seconds by stage, in the order the stages first finished."""
        with self._lock:
            return dict(self._seconds)


class _Series:
    """Values of one name: the last WINDOW of them, and how many there ever were."""

    __slots__ = ("callback", "count", "limit", "values")

    def __init__(self, window: int) -> None:
        self.values: deque[float] = deque(maxlen=window)
        self.count = 0
        self.limit: float | None = None
        self.callback: Callable[[str, float, float], object] | None = None


class PerformanceMonitor:
    """Seconds of operations, values of metrics and errors by name; percentiles over the last `window` of each.

        monitor = PerformanceMonitor()
        with monitor.measure("search"):       # or @monitor.measure("search") on a function, also an async one
            ...
        monitor.set_threshold("search", 0.5, print)
        monitor.summary()                     # a pandas table

    Thread-safe; a call costs a lock and an append. Values that are no finite number raise ConfigError.
    """

    def __init__(self, *, window: int = WINDOW) -> None:
        if window < 1:
            raise ConfigError(f"window is how many values are kept for each name and must be at least 1, not {window}")
        self._window = window
        self._operations: dict[str, _Series] = {}
        self._metrics: dict[str, _Series] = {}
        self._errors: defaultdict[str, int] = defaultdict(int)
        self._last_errors: deque[tuple[str, str]] = deque(maxlen=_LAST_ERRORS)
        self._started = time.time()
        self._lock = threading.Lock()

    # ---- recording

    def measure(self, name: str) -> Measure:
        """Track the body of a `with`, or each call of a decorated function, under `name`; what it raises counts as an error."""
        return Measure(self, name)

    def track_operation(self, name: str, seconds: float) -> None:
        """Record how long an operation took."""
        self._record(self._operations, name, seconds)

    def record_metric(self, name: str, value: float) -> None:
        """Record any number: a size, a temperature, a batch."""
        self._record(self._metrics, name, value)

    def record_error(self, name: str, error: BaseException | str) -> None:
        """Count an error of an operation; the last few are kept in words."""
        words = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        with self._lock:
            self._errors[name] += 1
            self._last_errors.append((name, words[:200]))

    def set_threshold(self, name: str, limit: float, callback: Callable[[str, float, float], object]) -> None:
        """Call `callback(name, value, limit)` whenever an operation's seconds or a metric's value exceed `limit`.

        It is called in the thread that recorded the value; what it raises is logged and does not stop that thread's work.
        """
        with self._lock:
            for book in (self._operations, self._metrics):
                series = book.setdefault(name, _Series(self._window))
                series.limit, series.callback = limit, callback

    def _record(self, book: dict[str, _Series], name: str, value: float) -> None:
        if not value - value == 0:  # NaN and infinity; cheaper than math.isfinite
            raise ConfigError(f"{name}: {value!r} is no finite number")
        with self._lock:
            series = book.get(name)
            if series is None:
                series = book[name] = _Series(self._window)
            series.values.append(value)
            series.count += 1
            limit, callback = series.limit, series.callback
        if callback is not None and limit is not None and value > limit:
            try:
                callback(name, value, limit)
            except Exception:  # a stranger's function, in the middle of our work
                _log.exception("the callback for %s failed", name)

    # ---- reading

    def get_summary(self) -> dict[str, dict[str, float]]:
        """Per operation: count of all time; min, max, mean, p50, p95, p99 of the window, in ms; errors where there were any."""
        with self._lock:
            series = {name: (one.count, np.array(one.values)) for name, one in self._operations.items() if one.count}
            errors = dict(self._errors)
        found = {name: _described(count, values * 1000, "_ms") for name, (count, values) in series.items()}
        for name, number in errors.items():
            found.setdefault(name, {"count": 0})["errors"] = number
        return found

    def get_report(self) -> dict[str, Any]:
        """All there is, as JSON values: operations, metrics, errors by name and the last in words, memory, GPUs, since when."""
        with self._lock:
            metrics = {name: (one.count, np.array(one.values)) for name, one in self._metrics.items() if one.count}
            errors, last = dict(self._errors), [{"name": name, "error": words} for name, words in self._last_errors]
        return {
            "since_s": time.time() - self._started,
            "operations": self.get_summary(),
            "metrics": {name: _described(count, values, "") for name, (count, values) in metrics.items()},
            "errors": errors,
            "last_errors": last,
            "memory": {"rss_mb": rss_mb(), "peak_rss_mb": peak_rss_mb(), **gpu_sample()},
        }

    def summary(self) -> Any:
        """`get_summary` as a pandas table, the operation that took longest in all first."""
        pandas = require("pandas", extra="notebook")
        table = pandas.DataFrame.from_dict(self.get_summary(), orient="index")
        table.index.name = "operation"
        if "mean_ms" not in table:
            return table
        table = table.assign(total_s=table["count"] * table["mean_ms"] / 1000)
        return table.sort_values("total_s", ascending=False)

    def plot(self) -> Any:
        """A matplotlib figure: for each operation the p50, and lines to the p95 and p99, in ms."""
        figures = require("matplotlib.figure", package="matplotlib", extra="notebook")
        found = [(name, row) for name, row in self.get_summary().items() if row["count"]][::-1]
        figure = figures.Figure(figsize=(8, 1 + 0.4 * len(found)), layout="tight")
        axes = figure.subplots()
        for place, (_, row) in enumerate(found):
            axes.plot([row["p50_ms"], row["p99_ms"]], [place, place], color="#90cdf4", linewidth=2)
            axes.plot([row["p50_ms"], row["p95_ms"]], [place, place], color="#2b6cb0", linewidth=6, solid_capstyle="butt")
        axes.set_yticks(range(len(found)), [name for name, _ in found])
        axes.set_xlabel("ms, p50 to p95 (thick) and p99")
        if found:
            axes.set_xscale("log")
        axes.grid(axis="x", alpha=0.3)
        return figure

    def reset_stats(self) -> None:
        """Forget all values and errors; thresholds stay."""
        with self._lock:
            for book in (self._operations, self._metrics):
                for series in book.values():
                    series.values.clear()
                    series.count = 0
            self._errors.clear()
            self._last_errors.clear()
            self._started = time.time()


class Measure:
    """One timing under way; see `PerformanceMonitor.measure`."""

    __slots__ = ("_monitor", "_name", "_start")

    def __init__(self, monitor: PerformanceMonitor, name: str) -> None:
        self._monitor, self._name, self._start = monitor, name, 0.0

    def __enter__(self) -> Measure:
        self._start = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._monitor.track_operation(self._name, time.perf_counter() - self._start)
        if isinstance(error, Exception):  # an interrupt or a cancelled task is no failure of the operation
            self._monitor.record_error(self._name, error)

    def __call__(self, function: F) -> F:
        """Decorate: each call is a timing of its own, so that calls may overlap."""
        made: Any
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def timed_async(*args: Any, **kwargs: Any) -> Any:
                with Measure(self._monitor, self._name):
                    return await function(*args, **kwargs)

            made = timed_async
        else:

            @functools.wraps(function)
            def timed(*args: Any, **kwargs: Any) -> Any:
                with Measure(self._monitor, self._name):
                    return function(*args, **kwargs)

            made = timed
        return made  # type: ignore[no-any-return]


def _described(count: int, values: Any, unit: str) -> dict[str, float]:
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    numbers = {"min": values.min(), "max": values.max(), "mean": values.mean(), "p50": p50, "p95": p95, "p99": p99}
    return {"count": count, **{f"{name}{unit}": float(number) for name, number in numbers.items()}}


def gpu_sample() -> dict[str, float]:
    """Memory used (MiB) and load (%) of each GPU, by NVML where nvidia-ml-py is installed, else by nvidia-smi; {} without one."""
    try:
        nvml = require("pynvml", package="nvidia-ml-py", extra="notebook")
        nvml.nvmlInit()
    except ImportError:
        return _by_nvidia_smi()
    except Exception as error:  # NVML's own errors have no other base
        if type(error).__module__ != "pynvml":
            raise
        return _by_nvidia_smi()
    try:
        return _by_nvml(nvml)
    finally:
        nvml.nvmlShutdown()


def _by_nvml(nvml: Any) -> dict[str, float]:
    sample: dict[str, float] = {}
    for number in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        try:
            used, load = nvml.nvmlDeviceGetMemoryInfo(handle).used, nvml.nvmlDeviceGetUtilizationRates(handle).gpu
        except nvml.NVMLError:  # a slice of a shared card tells no load
            continue
        sample |= {f"gpu {number} MiB": used / 2**20, f"gpu {number} %": float(load)}
    return sample


def _by_nvidia_smi() -> dict[str, float]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    command = [tool, "--query-gpu=index,memory.used,utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5.0, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    sample: dict[str, float] = {}
    for line in done.stdout.splitlines():
        fields = re.findall(r"\d+", line)
        if len(fields) == 3:
            sample |= {f"gpu {fields[0]} MiB": float(fields[1]), f"gpu {fields[0]} %": float(fields[2])}
    return sample


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
