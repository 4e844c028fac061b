"""Enrichment one at a time against many at once, on the loopback stand-in of a checkout's tests."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from ultrafast_rag.bench.result import Result
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.types import Table

# a stand-in for a provider belongs to the tests, not to what users install
SCRIPT = Path(__file__).resolve().parents[2] / "tests" / "benchmarks" / "enrich.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many, how slow the provider answers, how many at once."""
    parser.add_argument("--count", type=int, default=200, help="enrichments asked for")
    parser.add_argument("--delay-s", type=float, default=0.1, help="before each reply of the stand-in")
    parser.add_argument("--concurrency", type=int, default=10, help="requests under way at once")


def run(arguments: argparse.Namespace) -> Result:
    """One row a way of asking. Raises ConfigError outside a checkout."""
    specification = importlib.util.spec_from_file_location("enrich_benchmark", SCRIPT) if SCRIPT.exists() else None
    if specification is None or specification.loader is None:
        raise ConfigError(f"{SCRIPT} is not here; run this in a checkout")
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    measured = script.enrich_benchmark(count=arguments.count, delay_s=arguments.delay_s, concurrency=arguments.concurrency)
    rows = next(value for value in measured.values() if isinstance(value, list))
    return Result(Table(rows, "Enrichment on a loopback stand-in"), {})
