"""Measure this machine: every table of README and notebooks comes from a command here.

    python -m ultrafast_rag bench quality --data DIR

Each prints a table and leaves a JSON file; each measurement's module is imported when it is run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrafast_rag.bench.result import FOLDER, Result, plain, records_markdown, say, shown_command, write_result
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.types import Table

__all__ = ["COMMANDS", "Command", "Result", "run", "table", "write_result"]


@dataclass(frozen=True, slots=True)
class Command:
    """One benchmark: a module of this folder with `add_arguments(parser)` and `run(arguments)`."""

    name: str
    help: str

    def _module(self) -> Any:
        return importlib.import_module(f"ultrafast_rag.bench.{self.name}")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The benchmark's own options."""
        self._module().add_arguments(parser)

    def run(self, arguments: argparse.Namespace) -> Result:
        """Measure. Raises ConfigError when what it needs is not here."""
        result: Result = self._module().run(arguments)
        return result


COMMANDS = {
    command.name: command
    for command in (
        Command("quality", "nDCG@10 of dense, lexical, RRF and the default fusion on public collections"),
        Command(
            "progressive",
            "an index only just read: its nDCG@10 against everything encoded; --fired N: questions while it is encoded",
        ),
        Command("ingest", "pages/min, seconds by stage and peak memory on PDFs; --memory: 200 against 2 000 pages"),
        Command("pages", "our own questions on public documents: the page, the table's cell, the one fact"),
        Command("profile", "core-seconds of an ingest by part, and the encoder against the chip's ceiling"),
        Command("search", "latency by leg, recall and size at --n chunks"),
        Command("encode", "every text engine and batch budget: tokens/s, cosine and nDCG against fp32"),
        Command("vectors", "compressed vectors and models side by side: bytes, cosine, recall@10, nDCG@10 with intervals"),
        Command("moved", "one index built with each text engine and asked with each other one: nDCG@10, engine by engine"),
        Command("parity", "vectors against sentence-transformers' own, for each kind of text model: least cosine by engine"),
        Command("coldstart", "a fresh process opens an index and answers: seconds, memory, modules loaded"),
        Command("ablation", "from the basic settings to the default, one change at a time"),
        Command("enrich", "enrichment one at a time against many at once, on a loopback stand-in"),
        Command("gpu", "GPU switches one by one: tokens/s, pictures/s, TFLOP/s against the ceiling, peak memory"),
        Command(
            "faults", "damaged files, refused writes, kills, a crowd, hostile documents: what is lost or raw; --long for all"
        ),
        Command("cache", "exact hits by tier, batches, shared executions, consolidation, monitoring; false hits by meaning"),
        Command("switches", "the search's switches one by one: nDCG@10 with and without, and what each saves"),
        Command("busy", "a minute of speech, and texts encoded, alone and beside two busy processes: seconds, core-seconds"),
        Command("serve", "the HTTP server under 1, 8 and 64 clients: requests/s, p50, p95, p99, refusals, the event loop's lag"),
        Command("upload", "vectors into a vector store: batches against one by one, documents/s, memory, int8"),
        Command(
            "plan",
            "a million, a hundred million, ten thousand million passages: bytes, nodes, days, dollars, from what was measured",
        ),
        Command("answering", "an answer without the reader and with it: ms, the fact said first, the unanswerable supported"),
        Command("support", "when an extractive answer is supported: right and wrong rates by threshold"),
    )
}


def table(name: str, *options: str) -> Table:
    """The table of one benchmark with its options as on the command line; for notebooks: prints and writes nothing."""
    if name not in COMMANDS:
        raise ConfigError(f"unknown benchmark {name!r}; there are {', '.join(COMMANDS)}")
    parser = argparse.ArgumentParser(prog=name)
    COMMANDS[name].add_arguments(parser)
    with contextlib.redirect_stderr(io.StringIO()):  # progress, which a notebook would keep
        return COMMANDS[name].run(parser.parse_args(list(options))).table


def run(argv: Sequence[str]) -> Result | None:
    """`bench NAME ...`: run one benchmark, write its JSON, print its table. "list" names them all.

    `bench list --markdown` writes data/benchmarks/README.md from the JSON files there.
    """
    argv = list(argv)
    name = next((word for word in argv if not word.startswith("-")), "list")
    if name == "list" and "--markdown" in argv:
        (FOLDER / "README.md").write_text(records_markdown({c.name: c.help for c in COMMANDS.values()}), encoding="utf-8")
        say(f"wrote {FOLDER / 'README.md'}")
        return None
    if name == "list":
        listed = Table([{"name": c.name, "measures": c.help} for c in COMMANDS.values()])
        sys.stdout.write(f"{json.dumps(list(listed), indent=1) if '--json' in argv else listed}\n")
        return None
    if name not in COMMANDS:
        raise ConfigError(f"unknown benchmark {name!r}; there are {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(prog=f"python -m ultrafast_rag bench {name}", description=command.help)
    parser.add_argument("--json", action="store_true", help="print the data instead of the table")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"where the JSON goes (default: {FOLDER}/{name}.json)")
    command.add_arguments(parser)
    rest = list(argv)
    rest.remove(name)
    arguments = parser.parse_args(rest)
    result = command.run(arguments)
    data = {**result.data, "rows": list(result.table), "notes": list(result.table.notes)}
    path = write_result(name, data, command=shown_command(argv), path=arguments.out)
    sys.stdout.write(f"{json.dumps(plain(data), indent=1, ensure_ascii=False) if arguments.json else result.table}\n")
    say(f"wrote {path}")
    return result
