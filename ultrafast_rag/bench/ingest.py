"""How fast documents become searchable, where the time goes, and that memory does not grow with them.

Each source is ingested by a process of its own into a new index with an empty embedding cache. One made
page goes first, so that model, readers and kernels are ready when the clock starts; what that takes has a column.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from ultrafast_rag.bench.bigpdf import write_pdf
from ultrafast_rag.bench.child import Outcome, call
from ultrafast_rag.bench.publicsets import data_folder
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import HANDBOOK, add_settings, config_of, fresh_cache, prepare_models, settings_of
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import Table

PUBLIC_PDF = "pdf_varied/pypdf-sample-files/009-pdflatex-geotopo/GeoTopo-komprimiert.pdf"
PAGES = (200, 2000)  # ten times as long, so that memory which grows with length shows
MEMORY_TARGET_MB = 150  # the project's own goal for ten times the pages
QUESTION, MOST_QUESTIONS = "What is the main result?", 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to ingest."""
    parser.add_argument("sources", nargs="*", type=Path, help=f"files or folders (default: {HANDBOOK} and a public 117-page PDF)")
    parser.add_argument("--data", type=Path, help="folder of public data (default: UFR_TEST_DATA)")
    parser.add_argument("--memory", action="store_true", help=f"also PDFs of {PAGES[0]} and {PAGES[1]} pages made here")
    parser.add_argument("--pages", nargs=2, type=int, default=PAGES, metavar="N", help="page counts for --memory")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each source; the median is shown")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """One row a source."""
    settings = settings_of(arguments.set)
    sources = arguments.sources or default_sources(arguments.data)
    for source in sources:
        if not source.exists():
            raise ConfigError(f"{source} is not here; name files or folders to ingest")
    prepare_models()
    rows = []
    for source in sources:
        say(f"{source.name} ...")
        row = row_of(source.name, median_run([str(source)], settings, repeats=arguments.repeats))
        rows.append(row | progressive_row(str(source), settings, repeats=arguments.repeats))
    notes = [
        "seconds by stage overlap; each process began with an empty embedding cache and had ingested one other page (load s)",
        "searchable, refined: with encode=progressive, from the start of ingest until it can be asked, and until all is encoded",
        "again: the same files, unchanged. cached: the same files into another index",
        "peak: this process; with readers: and its reader processes, pages they share counted for each",
    ]
    data: dict[str, Any] = {}
    if arguments.memory:
        data = memory(settings, arguments.pages)
        rows += data.pop("rows")
        notes.append(
            f"memory: {data['pages'][1]} pages take {data['difference_mb']:.0f} MB more than {data['pages'][0]}, with readers "
            f"{data['difference_with_readers_mb']:.0f} MB (target: at most {MEMORY_TARGET_MB} MB)"
        )
    return Result(Table(rows, "Ingestion", notes=tuple(notes)), {"memory": data} if data else {})


def default_sources(data: Path | None) -> list[Path]:
    """The sample handbook, and the public PDF where it is."""
    folder = data_folder(data, needed=False)
    return [path for path in (HANDBOOK, *([folder / PUBLIC_PDF] if folder else [])) if path.exists()] or [HANDBOOK]


def memory(settings: dict[str, Any], pages: tuple[int, int]) -> dict[str, Any]:
    """Peak memory on a short and a long PDF, each in a process of its own."""
    rows, outcomes = [], []
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-pages-") as folder:
        for count in pages:
            say(f"{count} pages ...")
            path = write_pdf(Path(folder, f"{count}-pages.pdf"), count)
            outcomes.append(median_run([str(path)], settings, repeats=1))
            rows.append(row_of(path.name, outcomes[-1]))
    short, long = outcomes
    return {
        "rows": rows,
        "pages": list(pages),
        "difference_mb": long.peak_mb - short.peak_mb,
        "difference_with_readers_mb": long.tree_peak_mb - short.tree_peak_mb,
        "target_mb": MEMORY_TARGET_MB,
        "met": long.tree_peak_mb - short.tree_peak_mb <= MEMORY_TARGET_MB,
    }


def median_run(sources: list[str], settings: dict[str, Any], *, repeats: int) -> Outcome:
    """The run with the median time of several fresh processes."""
    runs = [call("ultrafast_rag.bench.ingest:measure", {"sources": sources, "settings": settings}) for _ in range(repeats)]
    return sorted(runs, key=lambda outcome: outcome.value["seconds"])[len(runs) // 2]


def measure(sources: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Ingest into a new index, again into the same, and into another one with what the cache kept."""
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-ingest-") as folder:
        config = config_of({"cache_dir": fresh_cache(Path(folder, "cache")), **settings})
        page = write_pdf(Path(folder, "page.pdf"), 1, seed=1)
        start = time.perf_counter()
        with UltraFastRAG(Path(folder, "index"), config=config) as rag:
            rag.ingest(page)
            load_s = time.perf_counter() - start
            first = rag.ingest(*sources)
            again = rag.ingest(*sources)
            model = rag.stats()["models"]["text"]
        with UltraFastRAG(Path(folder, "other"), config=config) as rag:
            rag.ingest(page)
            cached = rag.ingest(*sources)
    return {
        "pages": first.pages,
        "chunks": first.chunks,
        "seconds": first.seconds,
        "pages_per_minute": first.pages_per_minute,
        "stage_seconds": dict(first.stage_seconds),
        "failed": [why for _, why in first.failed],
        "load_s": load_s,
        "again_s": again.seconds,
        "cached_s": cached.seconds,
        "cache_hits": cached.cache_hits,
        "model": model,
    }


def progressive_row(source: str, settings: dict[str, Any], *, repeats: int) -> dict[str, Any]:
    """Columns of a source with encode=progressive: medians of fresh processes."""
    runs = [
        call("ultrafast_rag.bench.ingest:measure_progressive", {"source": source, "settings": settings}) for _ in range(repeats)
    ]
    return {name: sorted(run.value[name] for run in runs)[len(runs) // 2] for name in runs[0].value}


def measure_progressive(source: str, settings: dict[str, Any]) -> dict[str, float]:
    """Seconds until a source can be searched, of questions while it is refined, and until all of it is encoded."""
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-progressive-") as folder:
        config = config_of({"cache_dir": fresh_cache(Path(folder, "cache")), **settings, "encode": "progressive"})
        with UltraFastRAG(Path(folder, "index"), config=config) as rag:
            rag.ingest(write_pdf(Path(folder, "page.pdf"), 1, seed=1))
            rag.refine()
            rag.search(QUESTION)
            moments = [time.perf_counter()]
            rag.ingest(source)
            moments.append(time.perf_counter())
            while rag.stats()["refined"] < 1 and len(moments) < MOST_QUESTIONS:
                begin = time.perf_counter()
                rag.search(f"{QUESTION} {len(moments)}")
                moments.append(time.perf_counter() - begin)
            rag.refine()
            refined_s = time.perf_counter() - moments[0]
    start, searchable, *asked = moments
    return {
        "searchable s": searchable - start,
        "first question s": asked[0] if asked else 0.0,
        "refining, question p95 s": sorted(asked)[int(0.95 * len(asked))] if asked else 0.0,
        "refined s": refined_s,
    }


def row_of(name: str, outcome: Outcome) -> dict[str, Any]:
    """The table's row of one source."""
    value = outcome.value
    return {
        "source": name,
        "pages": value["pages"],
        "chunks": value["chunks"],
        "pages/min": value["pages_per_minute"],
        "seconds": value["seconds"],
        **{f"{stage} s": seconds for stage, seconds in value["stage_seconds"].items() if seconds >= 0.0005},
        "load s": value["load_s"],
        "again s": value["again_s"],
        "again, times faster": value["seconds"] / max(value["again_s"], 1e-6),
        "cached s": value["cached_s"],
        "peak MB": outcome.peak_mb,
        "with readers MB": outcome.tree_peak_mb,
        **({"failed": len(value["failed"])} if value["failed"] else {}),
    }
