"""What a collection of a million, a hundred million or ten thousand million passages would take: bytes, nodes, days, dollars.

Nothing is timed here. Seconds a passage come from a committed run of `bench ingest` (its largest document), on the machine
named there; bytes are those of an index built now. All scales with the number of passages, which holds for reading,
encoding and storing; a store's own upkeep at such sizes does not show in it. Prices are the caller's.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

from ultrafast_rag.bench.result import FOLDER, Result
from ultrafast_rag.bench.settings import HANDBOOK, TEXT_ONLY, add_settings, settings_of
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import TEXT_SPACE, Table

SIZES = (10**6, 10**8, 10**10)  # passages: chosen, a laptop, a company, a crawl of the web
OVERHEAD = 1.5  # memory of a vector store above its vectors: Qdrant's guide on capacity (graph, ids)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which measurement, and what a node costs."""
    parser.add_argument("--measured", type=Path, default=FOLDER / "ingest.json", help="a run of `bench ingest`")
    parser.add_argument("--document", type=Path, default=HANDBOOK, help="whose index is weighed")
    parser.add_argument("--days", type=float, default=7.0, help="days in which all is to be encoded")
    parser.add_argument("--dollars", type=float, default=0.10, help="of such a node an hour: put your provider's price")
    parser.add_argument("--node-gb", type=float, default=64.0, help="memory of a node that serves search")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """A row for each size."""
    record = json.loads(arguments.measured.read_text(encoding="utf-8"))
    rows = [row for row in record.get("rows", ()) if row.get("chunks") and row.get("seconds")]
    if not rows:
        raise ConfigError(f"{arguments.measured} is no run of `bench ingest`")
    largest = max(rows, key=lambda row: row["chunks"])
    seconds = largest["seconds"] / largest["chunks"]
    weighed = weigh(arguments.document, settings_of(arguments.set))
    costs = {"days": arguments.days, "dollars": arguments.dollars, "node_gb": arguments.node_gb}
    table = [plan(size, seconds=seconds, **weighed, **costs) for size in SIZES]
    machine = record["machine"]
    notes = (
        f"{1000 * seconds:.2f} ms a passage: {largest['source']}, {machine['cores']} cores of {machine['cpu']}, "
        f"{record['date'][:10]}",
        f"{weighed['bytes_each']:.0f} bytes a passage in the index, all files: {arguments.document.name}",
        f"a node is such a machine, at {arguments.dollars} dollars an hour; serving: int8 vectors x {OVERHEAD} in memory",
    )
    return Result(Table(table, "To plan with", notes=notes), {"seconds_each": seconds, **weighed, **costs})


def weigh(document: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Bytes of an index of one document by passage, derived files included, and numbers of a vector."""
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-plan-") as place:
        folder = Path(place, "index")
        with UltraFastRAG(folder, **{**TEXT_ONLY, **settings}) as rag:
            chunks = rag.ingest(document).chunks
            dim = rag._store.vectors(TEXT_SPACE).vectors.shape[1]
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"bytes_each": size / chunks, "dim": dim}


def plan(
    size: int, *, seconds: float, bytes_each: float, dim: int, days: float, dollars: float, node_gb: float
) -> dict[str, Any]:
    """One size's numbers. seconds: of one node a passage; dollars: of one node an hour."""
    node_hours = size * seconds / 3600
    in_memory_gb = size * dim * OVERHEAD / 1e9
    return {
        "passages": size,
        "index GB": size * bytes_each / 1e9,
        "days on one node": node_hours / 24,
        f"nodes for {days:g} days": math.ceil(node_hours / 24 / days),
        "dollars": node_hours * dollars,
        "int8 GB in memory": in_memory_gb,
        "nodes that serve": math.ceil(in_memory_gb / node_gb),
    }
