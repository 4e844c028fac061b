"""From the basic settings to the default, one change at a time: what each is worth on this machine.

Every row is measured in a process of its own: ingest into a new index with an empty cache, the same
files into a second index, a first and a repeated question, labelled questions of the samples. A change
that costs here shows its loss.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ultrafast_rag.bench.bigpdf import write_pdf
from ultrafast_rag.bench.child import call
from ultrafast_rag.bench.ingest import default_sources
from ultrafast_rag.bench.metrics import judge, load_questions, ndcg_at_k, recall_at_k
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import (
    HANDBOOK,
    QUESTIONS,
    TEXT_ONLY,
    add_settings,
    engine_of,
    fresh_cache,
    prepare_models,
    settings_of,
)
from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, require
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import Table

DEFAULT = Config()
# name -> fields that take their default value with it; each row keeps those before
STEPS: dict[str, tuple[str, ...]] = {
    "basic": (),
    "+ batching": ("batch_size",),
    "+ engine and precision": ("engine", "quantization"),
    "+ streaming": ("streaming",),
    "+ sentence chunks": ("chunker", "chunk_overlap"),
    "+ caching": ("cache_embeddings", "query_cache"),
    "+ pipelining": ("pipelined", "max_workers"),
    "+ index choice (default)": ("index",),
}
# beside the default, not steps to it: compile does not pay on most machines; the others give up that everything is encoded
# when ingest returns, so that their pages/min are those that can be searched
BESIDE: dict[str, dict[str, Any]] = {
    "default with compile": {"compile": True},
    "default, encode=progressive": {"encode": "progressive"},
    "default, encode=on_demand": {"encode": "on_demand"},
}
TARGET = 20
QUESTION = "Who founded the station, and when?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to ingest, how often, and where the plot goes."""
    parser.add_argument("sources", nargs="*", type=Path, help=f"what to ingest (default: {HANDBOOK} and a public PDF)")
    parser.add_argument("--data", type=Path, help="folder of public data (default: UFR_TEST_DATA)")
    parser.add_argument("--repeats", type=int, default=3, help="processes per row; the one with the median time is shown")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the rows as a PNG")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """One row a change, and the same table as a plot."""
    sources = [str(path) for path in arguments.sources or default_sources(arguments.data)]
    if not Path(sources[0]).exists():
        raise ConfigError(f"{sources[0]} is not here; name files or folders to ingest")
    prepare_models()
    rows: list[dict[str, Any]] = []
    given = settings_of(arguments.set)
    for name, settings in steps():
        say(f"{name} ...")
        runs = [
            call("ultrafast_rag.bench.ablation:measure", {"sources": sources, "settings": {**settings, **given}})
            for _ in range(arguments.repeats)
        ]
        outcome = sorted(runs, key=lambda run: run.value["ingest_s"])[len(runs) // 2]
        rows.append(row_of(name, outcome.value, outcome.tree_peak_mb, rows))
    default = next(row for row in rows if row["settings"].startswith("+ index choice"))
    names = [Path(source).name for source in sources]
    notes = (
        f"{', '.join(names)}; default: {default['times basic']:.1f} times basic (target {TARGET})",
        "ingest: cache empty, one other page done before (load s). again: the same files into a second index",
        f"nDCG@10 and recall@10: labelled questions about {HANDBOOK.name}, pages as documents",
        "progressive, on_demand: pages/min until they can be searched; passages are encoded afterwards, or when asked for",
        "peak RAM: with reader processes, pages they share counted for each; peak VRAM: empty without a GPU",
    )
    if arguments.plot:
        plot(rows, arguments.plot)
    return Result(Table(rows, "Ablation", notes=notes, bars=("pages/min",)), {"sources": names})


def steps() -> list[tuple[str, dict[str, Any]]]:
    """Each row's name and full settings; paths as text."""
    basic = {name: value for name, value in Config.basic().to_json().items() if value != DEFAULT.to_json()[name]}
    found: list[tuple[str, dict[str, Any]]] = []
    settings = {**basic, **TEXT_ONLY, "query_cache": False}
    for name, fields in STEPS.items():
        settings = {**settings, **{field: getattr(DEFAULT, field) for field in fields}}
        found.append((name, settings))
    return [*found, *((name, {**settings, **changed}) for name, changed in BESIDE.items())]


def measure(sources: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """One row's numbers, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-ablation-") as folder:
        config = Config().replace(**{**settings, "cache_dir": fresh_cache(Path(folder, "cache"))})
        page = write_pdf(Path(folder, "page.pdf"), 1, seed=1)
        start = time.perf_counter()
        with UltraFastRAG(Path(folder, "index"), config=config) as rag:
            rag.ingest(page)
            load_s = time.perf_counter() - start
            report = rag.ingest(*sources)
            first_ms, repeated_ms = (_milliseconds(rag) for _ in range(2))
            quality = _quality(rag)
            engine = engine_of(rag)
        with UltraFastRAG(Path(folder, "second"), config=config) as rag:
            rag.ingest(page)
            again = rag.ingest(*sources)
    return {
        "load_s": load_s,
        "ingest_s": report.seconds,
        "pages": report.pages,
        "chunks": report.chunks,
        "pages_per_minute": report.pages_per_minute,
        "again_per_minute": again.pages_per_minute,
        "first_ms": first_ms,
        "repeated_ms": repeated_ms,
        **quality,
        "engine": engine,
        "vram_mb": _peak_vram_mb(),
    }


def _milliseconds(rag: UltraFastRAG) -> float:
    start = time.perf_counter()
    rag.search(QUESTION)
    return 1000 * (time.perf_counter() - start)


def _quality(rag: UltraFastRAG) -> dict[str, float | None]:
    listed = load_questions(QUESTIONS) if QUESTIONS.exists() else []
    questions = [q for q in listed if q.source == HANDBOOK.name and not q.needs and q.modality in ("text", "table")]
    if not questions or not any(Path(d.source).name == HANDBOOK.name for d in rag.documents()):
        return {"ndcg": None, "recall": None}
    qrels, found = judge(questions, lambda question: rag.search(question, k=10))
    return {"ndcg": ndcg_at_k(qrels, found), "recall": recall_at_k(qrels, found)}


def _peak_vram_mb() -> float | None:
    import sys

    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return float(sum(torch.cuda.max_memory_allocated(n) for n in range(torch.cuda.device_count())) / 2**20)


def row_of(name: str, value: dict[str, Any], tree_peak_mb: float, before: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The table's row; `before` holds those above it, basic first."""
    speed = value["pages_per_minute"]
    basic = before[0]["pages/min"] if before else speed
    above = before[-1]["pages/min"] if before else speed
    return {
        "settings": name,
        "engine": value["engine"],
        "pages/min": speed,
        "times row above": speed / above,
        "times basic": speed / basic,
        "again pages/min": value["again_per_minute"],
        "first query ms": value["first_ms"],
        "repeated query ms": value["repeated_ms"],
        "load s": value["load_s"],
        "peak RAM MB": tree_peak_mb,
        "peak VRAM MB": value["vram_mb"],
        "chunks": value["chunks"],
        "nDCG@10": value["ndcg"],
        "recall@10": value["recall"],
    }


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Bars of pages/min from zero, in order, as a PNG."""
    figures = require("matplotlib.figure", package="matplotlib", extra="notebook")
    canvas = require("matplotlib.backends.backend_agg", package="matplotlib", extra="notebook")
    figure = figures.Figure(figsize=(8, 0.45 * len(rows) + 1.2), layout="constrained")
    canvas.FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names, speeds = [row["settings"] for row in rows], [row["pages/min"] for row in rows]
    bars = axes.barh(range(len(rows)), speeds, color="#2b6cb0")
    axes.bar_label(bars, [f"{speed:,.0f}" for speed in speeds], padding=3)
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("pages ingested a minute")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
