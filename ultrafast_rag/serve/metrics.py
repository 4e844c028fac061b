"""What `/metrics` tells Prometheus: the PerformanceMonitor's numbers, read when asked, and requests by path and status."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ultrafast_rag.errors import require

if TYPE_CHECKING:
    import prometheus_client
    from prometheus_client import core
else:
    prometheus_client = require("prometheus_client", package="prometheus-client", extra="server")
    core = require("prometheus_client.core", package="prometheus-client", extra="server")

_QUANTILES = {"0.5": "p50_ms", "0.95": "p95_ms", "0.99": "p99_ms", "1": "max_ms"}
_PREFIX = "ultrafast_rag_"


class Metrics:
    """One registry for one server. report: `PerformanceMonitor.get_report`; facts: further numbers by name."""

    def __init__(self, report: Callable[[], Mapping[str, Any]], facts: Callable[[], Mapping[str, float]]) -> None:
        self._report, self._facts = report, facts
        self._registry = prometheus_client.CollectorRegistry()
        self._requests = prometheus_client.Counter(
            f"{_PREFIX}http_requests", "Requests by path and status", ["path", "status"], registry=self._registry
        )
        self._registry.register(self)

    def count(self, path: str, status: int) -> None:
        """One request more."""
        self._requests.labels(path, str(status)).inc()

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return prometheus_client.generate_latest(self._registry)

    def describe(self) -> list[core.Metric]:
        """None ahead of time: what there is shows when asked (prometheus-client's protocol)."""
        return []

    def collect(self) -> Iterator[core.Metric]:
        """As prometheus-client asks."""
        report = self._report()
        seconds = core.GaugeMetricFamily(
            f"{_PREFIX}operation_seconds", "Of the last 1 000 of each operation", labels=["operation", "quantile"]
        )
        count = core.CounterMetricFamily(f"{_PREFIX}operations", "How often each operation ran", labels=["operation"])
        for name, row in report["operations"].items():
            count.add_metric([name], row["count"])
            for quantile, key in _QUANTILES.items():
                if key in row:
                    seconds.add_metric([name, quantile], row[key] / 1000)
        errors = core.CounterMetricFamily(f"{_PREFIX}errors", "Errors by operation", labels=["operation"])
        for name, number in report["errors"].items():
            errors.add_metric([name], number)
        facts = core.GaugeMetricFamily(f"{_PREFIX}fact", "Sizes of the index, memory, the query cache", labels=["name"])
        for name, value in {**report["memory"], **self._facts()}.items():
            facts.add_metric([name], float(value))
        yield from (seconds, count, errors, facts)
