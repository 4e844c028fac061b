"""What is not done twice, and what that costs: caches by tier, batches, one execution for many, memory, monitoring.

Redis is a `redis-server` of this run on loopback, and left out with a note where there is none. Timings are medians and 99th
percentiles of single calls; monitoring is told by alternating arms on the same index and questions.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.answer.memory import MemoryConsolidator
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import TEXT_ONLY, add_settings, settings_of
from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, UltraFastRAGError
from ultrafast_rag.index.result_disk import DiskTier
from ultrafast_rag.language.sameness import differs
from ultrafast_rag.models.batch_embedder import BatchEmbedder
from ultrafast_rag.monitor import PerformanceMonitor
from ultrafast_rag.ports import ResultTier
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.remote.redis_tier import RedisTier
from ultrafast_rag.search.optimizer import QueryOptimizer
from ultrafast_rag.search.query_cache import QueryCache, normalised
from ultrafast_rag.search.semantic_cache import LEAST_COSINE
from ultrafast_rag.search.stored import from_json, to_json
from ultrafast_rag.types import Hit, Hits, Table

PAIRS = Path("data/questions/pairs.jsonl")
QUESTION = "How deep is the harbour of  Kellow Point?"
PASSAGES = [
    f"Lamp number {n} of station {n % 7} burns {3 * n} litres of oil a year and was lit in {1800 + n}." for n in range(200)
]
TTL_S = 3600.0  # the query cache's own
LOAD = 240  # searches while Redis is killed
TEXTS, CROWD = 100, 64  # in a batch, and asked for at once
_RECORDS = 20_000  # of the monitor, timed together: some 20 ms


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How often, and which pairs."""
    parser.add_argument("--calls", type=int, default=2000, help="cache hits timed for each tier")
    parser.add_argument("--rounds", type=int, default=5, help="alternations of each comparison; the median is shown")
    parser.add_argument("--pairs", type=Path, default=PAIRS, help="questions that are the same, or nearly and not")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """One row a claim, with what it was to show."""
    if arguments.calls < 1 or arguments.rounds < 1:
        raise ConfigError("--calls and --rounds must be at least 1")
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="ultrafast_rag-cache-") as folder,
        _index(Path(folder), settings_of(arguments.set)) as rag,
    ):
        hits = rag.search(QUESTION)
        measured: tuple[tuple[str, Callable[[], list[dict[str, Any]]]], ...] = (
            ("caches", lambda: _tiers(hits, Path(folder), arguments.calls, notes)),
            ("a question again", lambda: _again(rag, arguments.calls)),
            ("batches", lambda: _batches(rag, arguments.rounds)),
            ("shared executions", _shared),
            ("Redis killed", lambda: _redis_killed(Path(folder))),
            ("memory", lambda: _consolidation(arguments.rounds)),
            ("monitoring", lambda: _monitoring(rag, Path(folder), arguments.rounds)),
            ("semantic cache", lambda: _pairs(rag, arguments.pairs, notes)),
        )
        for name, parts in measured:
            say(f"{name} ...")
            rows += parts()
    return Result(Table(rows, "Never twice", notes=tuple(notes)), {"rows": rows})


@contextlib.contextmanager
def _index(folder: Path, given: dict[str, Any]) -> Iterator[UltraFastRAG]:
    settings = {**TEXT_ONLY, "quiet": True, "query_cache": False, **given}
    with UltraFastRAG(folder / "index", config=Config().replace(**settings)) as rag:
        rag.add_texts(PASSAGES)
        rag.warmup()
        yield rag


def _row(what: str, value: float, unit: str, target: str) -> dict[str, Any]:
    return {"measured": what, "value": value, "unit": unit, "target": target}


# ---- exact hits


def _tiers(hits: Hits, folder: Path, calls: int, notes: list[str]) -> list[dict[str, Any]]:
    memory = QueryCache()
    memory.put(_key(), hits)
    rows = _hit_rows("memory", _times(lambda: memory.get(_key()), calls, lambda: None), ("<= 5", "<= 20"))
    rows += _tier_rows("disk", DiskTier(folder / "queries", ttl_s=TTL_S), hits, calls, ("", "<= 200"))
    rows += _disk_parts(hits, folder, calls)
    with _redis(folder) as (url, _):
        if url:
            rows += _tier_rows("redis", RedisTier(url, ttl_s=TTL_S), hits, calls, ("<= 1000", ""))
        else:
            notes.append("no redis-server here: Redis was not measured")
    return rows


def _again(rag: UltraFastRAG, calls: int) -> list[dict[str, Any]]:
    """The whole of `rag.search` around a hit in memory: its checks, and SQLite asked whether the index has changed."""
    config, rag.config = rag.config, rag.config.replace(query_cache=True, query_cache_disk=False)
    times = _times(lambda: rag.search(QUESTION), calls, lambda: None)
    rag.config = config
    return _hit_rows("rag.search", times, ("", ""))


def _key() -> tuple[Any, ...]:
    """As `rag.search` makes it, but for the index's generation."""
    return ("search", 7, normalised(QUESTION), 10, 0.65, "null", "null", False, False)


def _tier_rows(name: str, tier: ResultTier, hits: Hits, calls: int, targets: tuple[str, str]) -> list[dict[str, Any]]:
    cache = QueryCache("bench", {name: tier})
    cache.put(_key(), hits)
    cache.flush()
    times = _times(lambda: cache.get(_key()), calls, cache.memory.clear)
    served = cache.get_stats()[f"{name}_hits"]
    cache.close()
    if served != calls:
        raise ConfigError(f"only {served:.0f} of {calls} came from {name}")
    return _hit_rows(name, times, targets)


def _disk_parts(hits: Hits, folder: Path, calls: int) -> list[dict[str, Any]]:
    """Where the microseconds of a hit on disk go."""
    tier, entry = DiskTier(folder / "parts", ttl_s=TTL_S), to_json(hits)
    tier.write("bench", b"name", entry.encode())
    made = [{field.name: getattr(hit, field.name) for field in dataclasses.fields(hit)} for hit in hits]
    parts = {
        "SQLite": lambda: tier.read("bench", b"name"),
        "parsing JSON": lambda: json.loads(entry),
        "JSON to checked hits": lambda: from_json(entry),
        "its hits made": lambda: [Hit(**fields) for fields in made],
    }
    rows = [
        _row(f"of a hit on disk: {name}, p50", float(np.median(_times(part, calls, lambda: None))), "us", "")
        for name, part in parts.items()
    ]
    tier.close()
    return rows


def _times(call: Callable[[], Any], calls: int, before: Callable[[], None]) -> list[float]:
    """Microseconds of each call."""
    times = []
    for _ in range(calls):
        before()
        start = time.perf_counter()
        found = call()
        times.append(1e6 * (time.perf_counter() - start))
        if found is None:
            raise ConfigError("a cached result was not found again")
    return times


def _hit_rows(name: str, times: Sequence[float], targets: tuple[str, str]) -> list[dict[str, Any]]:
    p50, p99 = np.percentile(times, [50, 99])
    return [_row(f"exact hit, {name}, p{p}", v, "us", target) for p, v, target in zip((50, 99), (p50, p99), targets)]


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """The address of a server of our own on loopback, and what kills it; "" where there is none."""
    program = shutil.which("redis-server")
    if program is None:
        yield "", lambda: None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0", server.kill
    finally:
        server.kill()
        server.wait()


def _redis_killed(folder: Path) -> list[dict[str, Any]]:
    """Four threads search while Redis dies: how many searches failed, and the slowest."""
    failed: list[UltraFastRAGError] = []
    times: list[float] = []
    with _redis(folder) as (url, kill):
        if not url:
            return []
        with UltraFastRAG(
            folder / "lost", config=Config().replace(**{**TEXT_ONLY, "query_cache": True, "redis_url": url})
        ) as rag:
            rag.add_texts(PASSAGES)
            rag.warmup()

            def ask(n: int) -> None:
                if n == LOAD // 3:
                    kill()
                start = time.perf_counter()
                try:
                    rag.search(f"Which lamp burns {3 * (n % 60)} litres of oil?")
                except UltraFastRAGError as error:
                    failed.append(error)
                times.append(1000 * (time.perf_counter() - start))

            with warnings.catch_warnings(), ThreadPoolExecutor(4) as crowd:
                warnings.simplefilter("ignore")  # the one warning that it is lost is wanted
                list(crowd.map(ask, range(LOAD)))
    return [
        _row(f"failed of {LOAD} searches while Redis is killed", len(failed), "", "0"),
        _row("slowest search while Redis is killed", max(times), "ms", ""),
    ]


# ---- batches


def _batches(rag: UltraFastRAG, rounds: int) -> list[dict[str, Any]]:
    """A batch and the queue against single requests; ceilings: what the network alone would gain, without any of our work."""
    ours = rag._models.text()
    with UltraFastRAG(config=Config().replace(**{**TEXT_ONLY, "quiet": True, "engine": "torch-f32"})) as plain_rag:
        plain = plain_rag._models.text()
        plain.encode(["warm"])
        plain_singly = _median(lambda n: [plain.encode([text]) for text in _fresh(n, TEXTS)], rounds)
        plain_network_s, _ = _network(plain, TEXTS, rounds)
    singly = _median(lambda n: [ours.encode([text]) for text in _fresh(n, TEXTS)], rounds)
    batch = _median(lambda n: asyncio.run(_embed_batch(ours, _fresh(n, TEXTS))), rounds)
    network_s, together_s = _network(ours, TEXTS, rounds)
    tokens = TEXTS * len(ours.tokenize(_fresh(0, 1))[0])
    return [
        _row("embed_batch of 100 against one by one, plain float32 encoder", plain_singly / batch, "times", ">= 10"),
        _row("ceiling: ready tokens of one length, the networks alone", plain_network_s / together_s, "times", ""),
        _row("embed_batch of 100 against one by one, our encoder", singly / batch, "times", ""),
        _row("ceiling: ready tokens of one length, our network alone", network_s / together_s, "times", ""),
        _row("single calls outside the network, plain float32 encoder", 100 * (1 - plain_network_s / plain_singly), "%", ""),
        _row("single calls outside the network, our encoder", 100 * (1 - network_s / singly), "%", ""),
        _row("tokens of single texts, plain float32 encoder", tokens / plain_network_s, "1/s", ""),
        _row("tokens of single texts, our encoder", tokens / network_s, "1/s", ""),
        _row("tokens of 100 texts at once, our encoder", tokens / together_s, "1/s", ""),
        *_queue(ours, rounds),
    ]


def _queue(encoder: Any, rounds: int) -> list[dict[str, Any]]:
    def slowest(count: int, *, background: bool) -> float:
        """Median seconds until the last of so many, asked for at once, is answered."""
        times = [asyncio.run(_concurrent(encoder, _fresh(n, count), background=background)) for n in range(rounds + 1)]
        return float(np.median(times[1:]))

    queued, single = slowest(CROWD, background=True), slowest(CROWD, background=False)
    one_queued, one = slowest(1, background=True), slowest(1, background=False)
    singly_s, together_s = _network(encoder, CROWD, rounds)
    return [
        _row("64 concurrent requests, background queue against none", single / queued, "times", ">= 5"),
        _row("ceiling: 64 at once against one by one, our network alone", singly_s / together_s, "times", ""),
        _row("added by the queue to the slowest of 64", 1000 * (queued - one), "ms", "<= 100"),
        _row("of that, the network's own time for 64 instead of one", 1000 * (together_s - singly_s / CROWD), "ms", ""),
        _row("slowest of 64, with the queue less without it", 1000 * (queued - single), "ms", ""),
        _row("added by the queue to a request that comes alone", 1000 * (one_queued - one), "ms", "<= 100"),
    ]


def _network(encoder: Any, count: int, rounds: int) -> tuple[float, float]:
    """Seconds for so many texts of one length that are tokens already: (one by one, in one call)."""
    (tokens,) = encoder.tokenize(_fresh(0, 1))
    singly = _median(lambda _: [encoder.encode_tokens([tokens]) for _ in range(count)], rounds)
    return singly, _median(lambda _: encoder.encode_tokens([tokens] * count), rounds)


def _fresh(round_: int, count: int) -> list[str]:
    """Texts never seen before."""
    stamp = f"{time.perf_counter_ns():x} {round_}"
    return [f"Question {n} of {stamp}: how many litres of oil does lamp {n} burn in a year?" for n in range(count)]


async def _embed_batch(encoder: Any, texts: list[str]) -> None:
    embedder = BatchEmbedder(encoder)
    await embedder.embed_batch(texts)
    embedder.close()


async def _concurrent(encoder: Any, texts: list[str], *, background: bool) -> float:
    """Seconds until the slowest of all texts, asked for at once one by one, is answered."""
    embedder = BatchEmbedder(encoder)
    if background:
        await embedder.start_background_processor()
    start = time.perf_counter()
    await asyncio.gather(*(embedder.embed_text(text) for text in texts))
    seconds = time.perf_counter() - start
    await embedder.stop_background_processor()
    embedder.close()
    return seconds


def _median(work: Callable[[int], Any], rounds: int) -> float:
    """Median seconds of `work(round)`, after one that is not counted."""
    times = []
    for n in range(rounds + 1):
        start = time.perf_counter()
        work(n)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


# ---- executions, memory, monitoring


def _shared() -> list[dict[str, Any]]:
    calls: list[int] = []

    async def ask() -> None:
        optimizer = QueryOptimizer()
        await asyncio.gather(*(optimizer.execute_query("same", calls.append, n) for n in range(100)))

    asyncio.run(ask())
    return [_row("executions of 100 identical concurrent queries", len(calls), "", "1")]


def _consolidation(rounds: int) -> list[dict[str, Any]]:
    times = []
    for _ in range(rounds):
        now = [1e9]
        with tempfile.TemporaryDirectory(prefix="ultrafast_rag-memory-") as folder:
            memory = MemoryConsolidator(Path(folder, "memory.sqlite3"), clock=lambda now=now: now[0])  # type: ignore[misc]
            memory._db.execute("PRAGMA synchronous = OFF")  # while it is filled
            for n in range(1000):
                memory.remember(f"finding {n} about lamp {n % 50}", importance=(n % 10) / 10, kind="turn" if n % 3 else "note")
            memory._db.execute("PRAGMA synchronous = FULL")
            now[0] += 3600.0
            times.append(memory.run_consolidation().seconds)
            memory.close()
    return [_row("1 000 memories consolidated", 1000 * float(np.median(times)), "ms", "<= 50")]


class _Silent(PerformanceMonitor):
    """Records nothing: the arm without monitoring."""

    def measure(self, name: str) -> Any:
        return contextlib.nullcontext()

    def track_operation(self, name: str, seconds: float) -> None:
        pass


class _Counting(PerformanceMonitor):
    """Counts what is recorded."""

    records = 0

    def track_operation(self, name: str, seconds: float) -> None:
        self.records += 1
        super().track_operation(name, seconds)


def _record_s() -> float:
    """Of one measured body, the clock and the record together."""
    monitor, silent, times = PerformanceMonitor(), _Silent(), []
    for one in (monitor, silent):
        start = time.perf_counter()
        for _ in range(_RECORDS):
            with one.measure("nothing"):
                pass
        times.append((time.perf_counter() - start) / _RECORDS)
    return times[0] - times[1]


def _monitoring(rag: UltraFastRAG, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """With and without by turns, each first as often as last; of each piece of work the fastest run, as noise only adds."""
    files = folder / "files"
    files.mkdir()
    for n, passage in enumerate(PASSAGES[:10]):
        (files / f"{n}.md").write_text(passage * 20, encoding="utf-8")

    def ingest() -> None:
        rag.ingest(files)
        for path in files.iterdir():
            rag.delete(path)

    def seconds(work: Callable[[], Any], monitor: PerformanceMonitor) -> float:
        searcher = rag._searcher()
        rag.monitor = searcher._monitor = searcher._beside._monitor = monitor
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    queries = [partial(rag.search, f"Which lamp burns {3 * n} litres of oil?") for n in range(40)]
    measured: dict[str, Sequence[Callable[[], Any]]] = {"a query": queries, "an ingest": [ingest]}
    rows = []
    for name, works in measured.items():
        arms = (PerformanceMonitor(), _Silent())
        fastest = [dict.fromkeys(arms, float("inf")) for _ in works]
        for turn in range(8 * rounds):
            for work, best in zip(works, fastest):
                for arm in arms[:: 1 if turn % 2 else -1]:
                    best[arm] = min(best[arm], seconds(work, arm))
        on, off = (sum(best[arm] for best in fastest) for arm in arms)
        rows.append(_row(f"monitoring's share of {name}, fastest of {8 * rounds} by turns", 100 * (on / off - 1), "%", "<= 0.2"))
        counting = _Counting()
        took_s = sum(seconds(work, counting) for work in works)
        share = 100 * counting.records * _record_s() / took_s
        rows.append(_row(f"the same by {counting.records} records times their cost", share, "%", "<= 0.2"))
    return rows


# ---- the same question in other words


def _pairs(rag: UltraFastRAG, path: Path, notes: list[str]) -> list[dict[str, Any]]:
    if not path.exists():
        notes.append(f"{path} is not here: the semantic cache was not measured")
        return []
    pairs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    encoder = rag._models.text()
    first, second = (encoder.encode_queries([pair[side] for pair in pairs]) for side in ("asked", "then"))
    near = (first * second).sum(axis=1) >= LEAST_COSINE
    passed = [bool(close) and not differs(pair["asked"], pair["then"]) for close, pair in zip(near, pairs)]
    rows = []
    for name, half in (("all groups", (0, 1)), ("even groups, held out", (0,)), ("odd groups, tuned on", (1,))):
        for same, what, target in ((True, "paraphrases that hit", ">= 50"), (False, "traps that hit", "<= 1")):
            chosen = [ok for ok, pair in zip(passed, pairs) if pair["same"] is same and pair["group"] % 2 in half]
            rows.append(_row(f"semantic cache, {what}, {name}", 100 * sum(chosen) / len(chosen), "%", target))
    by_cosine = [bool(close) for close, pair in zip(near, pairs) if not pair["same"]]
    rows.append(_row("traps that the cosine alone lets pass", 100 * sum(by_cosine) / len(by_cosine), "%", ""))
    return rows
