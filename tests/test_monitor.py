"""Percentiles against numpy, errors, thresholds, decorators; what ingest and query record by themselves."""

from __future__ import annotations

import asyncio
import json
import threading

import numpy as np
import pytest

from ultrafast_rag import PerformanceMonitor, UltraFastRAG, monitor
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.monitor import WINDOW, StageClock

NUMBERS = np.random.default_rng(3).gamma(2.0, 0.01, 2500)


def test_percentiles_are_those_of_the_last_thousand():
    tracker = PerformanceMonitor()
    for seconds in NUMBERS:
        tracker.track_operation("search", float(seconds))
    row, last = tracker.get_summary()["search"], NUMBERS[-1000:] * 1000
    assert WINDOW == 1000
    assert row["count"] == 2500
    for name, wanted in (
        ("min_ms", last.min()),
        ("max_ms", last.max()),
        ("mean_ms", last.mean()),
        *((f"p{p}_ms", np.percentile(last, p)) for p in (50, 95, 99)),
    ):
        assert row[name] == pytest.approx(wanted, rel=1e-12), name


def test_report_has_metrics_errors_and_memory_as_json():
    tracker = PerformanceMonitor()
    tracker.record_metric("batch", 8)
    tracker.record_metric("batch", 16)
    tracker.record_error("search", ValueError("no such thing"))
    tracker.record_error("search", "again")
    report = json.loads(json.dumps(tracker.get_report()))
    assert report["metrics"]["batch"] == {"count": 2, "min": 8, "max": 16, "mean": 12, "p50": 12, "p95": 15.6, "p99": 15.92}
    assert report["errors"] == {"search": 2}
    assert report["last_errors"][0] == {"name": "search", "error": "ValueError: no such thing"}
    assert report["operations"]["search"] == {"count": 0, "errors": 2}
    assert report["memory"]["rss_mb"] > 10


def test_a_block_and_a_decorated_function_are_timed_and_their_failures_counted():
    tracker = PerformanceMonitor()

    @tracker.measure("plain")
    def double(number):
        return 2 * number

    @tracker.measure("async")
    async def later(number):
        await asyncio.sleep(0)
        return 3 * number

    async def both():
        return await asyncio.gather(later(1), later(2))

    with tracker.measure("block"):
        assert [double(1), double(2)] == [2, 4]
    assert asyncio.run(both()) == [3, 6]
    with pytest.raises(KeyError), tracker.measure("block"):
        raise KeyError("x")
    assert double.__name__ == "double"
    found = tracker.get_summary()
    assert {name: row["count"] for name, row in found.items()} == {"plain": 2, "async": 2, "block": 2}
    assert found["block"]["errors"] == 1


def test_thresholds_call_back_and_a_failing_callback_stops_nothing(caplog):
    tracker, calls = PerformanceMonitor(), []
    tracker.set_threshold("search", 0.5, lambda *what: calls.append(what))
    tracker.set_threshold("broken", 0.5, lambda *what: 1 / 0)
    for seconds in (0.4, 0.5, 0.6):
        tracker.track_operation("search", seconds)
        tracker.track_operation("broken", seconds)
    assert calls == [("search", 0.6, 0.5)]
    assert "the callback for broken failed" in caplog.text
    assert tracker.get_summary()["broken"]["count"] == 3
    tracker.reset_stats()
    assert tracker.get_summary() == {}
    tracker.track_operation("search", 0.7)
    assert len(calls) == 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(bad):
    with pytest.raises(ConfigError, match="no finite number"):
        PerformanceMonitor().record_metric("size", bad)
    with pytest.raises(ConfigError, match="at least 1"):
        PerformanceMonitor(window=0)


def test_threads_lose_no_value():
    tracker = PerformanceMonitor()
    threads = [threading.Thread(target=lambda: [tracker.track_operation("x", 1.0) for _ in range(5000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.get_summary()["x"]["count"] == 20_000


def test_summary_is_a_pandas_table_and_draws():
    tracker = PerformanceMonitor()
    assert tracker.summary().empty
    for name, seconds in (("fast", 0.001), ("slow", 0.2)):
        tracker.track_operation(name, seconds)
    table = tracker.summary()
    assert list(table.index) == ["slow", "fast"]
    assert table.loc["slow", "p95_ms"] == pytest.approx(200)
    axes = tracker.plot().axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["slow", "fast"]


def test_a_stage_clock_reports_each_stretch():
    tracker = PerformanceMonitor()
    clock = StageClock(tracker, prefix="ingest: ")
    clock.add("encode", 1.0)
    clock.add("encode", 3.0)
    assert clock.seconds() == {"encode": 4.0}
    assert tracker.get_summary()["ingest: encode"] == pytest.approx(
        {"count": 2, "min_ms": 1000, "max_ms": 3000, "mean_ms": 2000, "p50_ms": 2000, "p95_ms": 2900, "p99_ms": 2980}
    )


def test_gpus_are_read_through_nvml(monkeypatch):
    class Fake:
        class NVMLError(Exception):
            pass

        used = 3 * 2**20
        gpu = 42

        def __getattr__(self, name):
            return lambda *_: 1 if name == "nvmlDeviceGetCount" else self

    monkeypatch.setattr(monitor, "require", lambda *_, **__: Fake())
    assert monitor.gpu_sample() == {"gpu 0 MiB": 3.0, "gpu 0 %": 42.0}


def test_ingest_and_query_record_themselves(tmp_path):
    with UltraFastRAG(tmp_path / "index", image_model=None, speech_model=None, reader_model=None, quiet=True) as rag:
        (tmp_path / "a.md").write_text("The lamp burns oil since 1871.")
        (tmp_path / "b.pdf").write_bytes(b"%PDF-1.4 broken")
        rag.ingest(tmp_path / "a.md", tmp_path / "b.pdf")
        rag.query("What does the lamp burn?")
        found = rag.monitor.get_summary()
    assert {"ingest: encode", "ingest: index", "search", "search: encode", "search: words", "search: meaning", "answer"} <= set(
        found
    )
    assert found["search"]["count"] == 1
    assert found["ingest"]["errors"] == 1
