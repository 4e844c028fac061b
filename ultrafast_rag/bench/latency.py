"""Latencies of an index that is there, in the process that asks: whole searches, then each leg of the same search."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.bench.corpus import BUILT
from ultrafast_rag.bench.settings import config_of
from ultrafast_rag.index import ann
from ultrafast_rag.index.dense import DenseIndex
from ultrafast_rag.index.lexical import LexicalIndex
from ultrafast_rag.index.store import Store
from ultrafast_rag.models.registry import FINGERPRINTS
from ultrafast_rag.models.text.encoder import open_text_encoder
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.search.searcher import Searcher
from ultrafast_rag.types import TEXT_SPACE, Vectors

RECALL_QUESTIONS = 200  # 2 000 neighbours: a recall of 0.99 is known to 0.002
WARM = 20  # questions before the clock starts


class Timed:
    """Stands before a port and adds up the seconds of each of its methods."""

    def __init__(self, port: Any, name: str, seconds: dict[str, float]) -> None:
        self._port, self._name, self._seconds = port, name, seconds

    def __getattr__(self, method: str) -> Any:
        value = getattr(self._port, method)
        return self._timed(value, f"{self._name} {method}") if callable(value) else value

    def _timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self._seconds[name] += time.perf_counter() - start

        return call


def measure(place: str, questions: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Whole-search percentiles through `UltraFastRAG.search`, percentiles by leg, recall@10, size."""
    start = time.perf_counter()
    with UltraFastRAG(place, config=config_of(settings)) as rag:
        rag.warmup()
        open_s = time.perf_counter() - start
        seconds, warm = [], questions[:WARM]
        for number, question in enumerate([*warm, *questions]):
            start = time.perf_counter()
            rag.search(question, k=10)
            if number >= len(warm):
                seconds.append(time.perf_counter() - start)
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    whole = {"search_p50_ms": float(p50), "search_p95_ms": float(p95), "open_s": open_s}
    return {**whole, **_inside(Path(place), questions, settings)}


def _inside(place: Path, questions: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """By leg, from a searcher over the same files whose ports are timed."""
    config = config_of(settings)
    with Store.open(place, write=False) as store:
        encoder = open_text_encoder(config, space=store.get_meta(FINGERPRINTS)[TEXT_SPACE])
        lexical = LexicalIndex(store, folder=place)
        dense = DenseIndex(store, TEXT_SPACE, kind=config.index, folder=place)
        seconds: dict[str, float] = defaultdict(float)
        ports = [Timed(port, name, seconds) for port, name in ((store, "fetch"), (lexical, "words"), (dense, "dense"))]
        timed_encoder: Any = Timed(encoder, "encode", seconds)
        reader, words, nearest = (port for port in ports)
        searcher = Searcher(reader, words, nearest, lambda: timed_encoder, config=config)
        legs: dict[str, list[float]] = defaultdict(list)
        warm = questions[:WARM]
        for number, question in enumerate([*warm, *questions]):
            seconds.clear()
            start = time.perf_counter()
            searcher.search(question, k=10, alpha=config.alpha)
            whole = time.perf_counter() - start
            if number >= len(warm):
                for name, spent in seconds.items():
                    legs[name].append(spent)
                beside = seconds["words search"]  # on a thread of its own while the question is encoded
                legs["fuse and the rest"].append(whole - sum(seconds.values()) + beside)
        recall = _recall(store, dense, encoder.encode(questions[:RECALL_QUESTIONS]))
        built = store.get_meta(BUILT)
        encoder.close()
    info = built["dense"]
    return {
        "legs_ms": {name: _percentiles_ms(times) for name, times in legs.items()},
        "recall": recall,
        "kind": info["kind"],
        # 4 bytes say which chunk a row belongs to
        "bytes_per_vector": info["bytes_per_vector"] + 4 if "bytes_per_vector" in info else None,
        "dense": info,
        "built": built,
    }


def _percentiles_ms(seconds: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return {"p50": float(p50), "p95": float(p95)}


def _recall(store: Store, dense: DenseIndex, queries: Vectors) -> float:
    """Share of the exact ten best, by a full scan of the vector file, that the dense leg gives."""
    view = store.vectors(TEXT_SPACE)
    truth = ann.exact_top(view.vectors, queries, min(10, len(view.chunk_ids)))
    found = sum(
        len(np.intersect1d(dense.search(query, 10).chunk_ids, view.chunk_ids[rows])) for query, rows in zip(queries, truth)
    )
    return found / truth.size
