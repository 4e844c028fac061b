"""Enrichment one at a time against many at once, on the loopback stand-in.

The stand-in answers each request after a fixed delay, so this measures our overhead and overlap, not Gemini.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from ultrafast_rag.answer.gemini import GeminiGenerator, estimate_tokens
from ultrafast_rag.bench.gemini_server import Server
from ultrafast_rag.bench.result import Result
from ultrafast_rag.enrich.enricher import Enricher
from ultrafast_rag.errors import GenerationError
from ultrafast_rag.remote.limits import Gate, Retry
from ultrafast_rag.remote.secrets import Secret
from ultrafast_rag.types import Chunk, Table

MODEL = "gemini-3.5-flash-lite"  # any name: the stand-in serves all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many, how slow the provider answers, how many at once."""
    parser.add_argument("--count", type=int, default=200, help="enrichments asked for")
    parser.add_argument("--delay-s", type=float, default=0.1, help="before each reply of the stand-in")
    parser.add_argument("--concurrency", type=int, default=10, help="requests under way at once")


def run(arguments: argparse.Namespace) -> Result:
    """One row per way of asking; one at a time is measured on a tenth of the chunks, since each takes the whole delay."""
    _once(2, 0.0, 1)  # imports and first connections
    rows = [
        _once(max(arguments.count // 10, 1), arguments.delay_s, 1),
        _once(arguments.count, arguments.delay_s, arguments.concurrency),
    ]
    speedup = round(rows[1]["per_second"] / rows[0]["per_second"], 1)
    notes = (f"{speedup:g}x; the stand-in takes {arguments.delay_s:g} s to answer",)
    return Result(
        Table(rows, "Enrichment on a loopback stand-in", notes=notes), {"delay_s": arguments.delay_s, "speedup": speedup}
    )


def _once(count: int, delay_s: float, concurrency: int) -> dict[str, Any]:
    """Seconds for `count` enrichments with `concurrency` under way, and what the server saw."""
    chunks = [Chunk(f"Passage number {n} tells of pump {n}.", id=n, context="Handbook") for n in range(count)]
    with Server(delay_s=delay_s) as server, tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = asyncio.run(_enrich(server.url, Path(folder), chunks, concurrency))
        seconds = time.perf_counter() - start
    if done != count:
        raise GenerationError(f"{count - done} of {count} enrichments failed on the stand-in")
    return {
        "concurrency": concurrency,
        "enrichments": count,
        "seconds": round(seconds, 3),
        "per_second": round(count / seconds, 1),
        "most_at_once": server.most_active,
    }


async def _enrich(url: str, folder: Path, chunks: list[Chunk], concurrency: int) -> int:
    model = GeminiGenerator(
        model=MODEL,
        key=Secret("stand-in", "the benchmark"),
        gate=Gate(MODEL, retry=Retry(base_s=0.002), concurrency=concurrency),
        context_tokens=500,
        base_url=url,
        timeout_s=30.0,
        max_output_tokens=256,
    )
    with closing(Enricher(model, folder, concurrency=concurrency, count_tokens=estimate_tokens)) as enricher:
        done = len([enrichment async for enrichment in enricher.run(chunks)])
    await model.aclose()
    return done
