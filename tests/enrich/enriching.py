"""Enrichment against the stand-in, as the tests and the killed child of one of them use it.

Run as `python enriching.py URL FOLDER COUNT KILL_AFTER`: kills itself after that many results.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from ultrafast_rag.answer.gemini import GeminiGenerator, estimate_tokens
from ultrafast_rag.enrich.enricher import Enricher
from ultrafast_rag.remote.limits import Gate, Retry
from ultrafast_rag.remote.prices import cost_usd
from ultrafast_rag.remote.quota import Quota
from ultrafast_rag.remote.secrets import Secret
from ultrafast_rag.types import Chunk

MODEL = "gemini-3.5-flash-lite"


def chunks(count):
    return [Chunk(f"Passage number {n} tells of pump {n}.", id=n, context="Handbook") for n in range(count)]


def enricher(url, folder, *, concurrency=8, quota=None, attempts=5, timeout_s=5.0, **options):
    quota = quota or Quota()
    gate = Gate(MODEL, quota=quota, retry=Retry(attempts=attempts, base_s=0.002), concurrency=concurrency, **options)
    model = GeminiGenerator(
        model=MODEL,
        key=Secret("test-key-0123", "the argument"),
        gate=gate,
        context_tokens=500,
        base_url=url,
        timeout_s=timeout_s,
        max_output_tokens=256,
    )
    made = Enricher(
        model,
        Path(folder),
        concurrency=concurrency,
        count_tokens=estimate_tokens,
        quota=quota,
        price=lambda usage: cost_usd(MODEL, usage),
    )
    made.gate = gate
    return made


async def collect(enricher, some, **limits):
    run = enricher.run(some, **limits)
    return [enrichment async for enrichment in run], run.report


async def main(url, folder, count, kill_after):
    seen = 0
    async for _ in enricher(url, folder).run(chunks(count)):
        seen += 1
        if seen == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
