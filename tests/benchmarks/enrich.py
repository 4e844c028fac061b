"""Enrichment, one at a time against many at once, on the loopback stand-in: what `bench enrich` prints.

The stand-in answers each request after a fixed delay, so this measures our overhead and overlap, not
Gemini. Run: python tests/benchmarks/enrich.py [--count 200] [--delay-s 0.1] [--concurrency 10] [--out FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from enriching import chunks, collect, enricher
from gemini_server import Server

from ultrafast_rag.bench.machine import machine

OUT = Path(__file__).resolve().parents[2] / "data" / "benchmarks" / "enrich.json"


def once(count: int, delay_s: float, concurrency: int) -> dict:
    """Seconds for `count` enrichments with `concurrency` under way, and what the server saw."""
    with Server(delay_s=delay_s) as server, tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        found, report = asyncio.run(collect(enricher(server.url, folder, concurrency=concurrency), chunks(count)))
        seconds = time.perf_counter() - start
    assert len(found) == count, report
    return {
        "concurrency": concurrency,
        "enrichments": count,
        "seconds": round(seconds, 3),
        "per_second": round(count / seconds, 1),
        "most_at_once": server.most_active,
    }


def enrich_benchmark(*, count: int = 200, delay_s: float = 0.1, concurrency: int = 10) -> dict:
    """The table of `bench enrich`: sequential against asynchronous throughput, with where and how it was measured.

    Sequential is measured on a tenth of the chunks, since each one takes the whole delay.
    """
    once(2, 0.0, 1)  # imports and first connections
    rows = [once(max(count // 10, 1), delay_s, 1), once(count, delay_s, concurrency)]
    return {
        "what": "enrichments a second against a loopback stand-in that takes delay_s to answer",
        "delay_s": delay_s,
        "rows": rows,
        "speedup": round(rows[1]["per_second"] / rows[0]["per_second"], 1),
        "machine": machine(),
        "versions": {name: version(name) for name in ("google-genai", "aiolimiter", "tenacity")},
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"python tests/benchmarks/enrich.py --count {count} --delay-s {delay_s} --concurrency {concurrency}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--delay-s", type=float, default=0.1)
    parser.add_argument("--concurrency", type=int, default=10)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    result = enrich_benchmark(count=asked.count, delay_s=asked.delay_s, concurrency=asked.concurrency)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for row in result["rows"]:
        print(f"{row['concurrency']:3d} at once: {row['enrichments']} in {row['seconds']:.2f} s, {row['per_second']:.1f}/s")
    print(f"{result['speedup']}x")


if __name__ == "__main__":
    main()
