"""Latency of a whole search and of each leg, recall against an exact scan, and size, at any number of chunks.

Chunks are sentences of the public collections, encoded by the text model; beyond what those hold,
perturbed copies (moved vectors, some words exchanged) fill up to --n. Copies are easy to tell apart,
so the distinct part is measured alone too. Questions are the collections' own.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from ultrafast_rag.bench.child import call
from ultrafast_rag.bench.corpus import sentences_of
from ultrafast_rag.bench.publicsets import data_folder, load
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import HANDBOOK, add_settings, prepare_models, settings_of
from ultrafast_rag.types import Table

TARGETS = {"search p50 ms": 3.0, "recall@10": 0.99, "bytes/vector": 75.0}
DENSE_TARGET_MS = 2.0  # at a million
QUESTION_SETS = ("squad2", "scifact", "xquad-de")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many chunks, of what, and how many questions."""
    parser.add_argument("--n", type=int, default=100_000, help="chunks in the index")
    parser.add_argument("--data", type=Path, help="folder of public collections (default: UFR_TEST_DATA)")
    parser.add_argument("--questions", type=int, default=400, help="questions asked")
    parser.add_argument("--index", type=Path, metavar="DIR", help="keep the built indexes here, and use those that are there")
    parser.add_argument("--no-distinct", action="store_true", help="leave out the distinct part alone")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """One row for the distinct part, one for all chunks."""
    settings, folder = settings_of(arguments.set), data_folder(arguments.data, needed=False)
    prepare_models()
    texts = sentences_of(folder)
    asked = questions(folder, arguments.questions)
    sizes = [arguments.n] if arguments.no_distinct or len(texts) >= arguments.n else [len(texts), arguments.n]
    rows, details = [], []
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-search-") as temporary:
        for size in sizes:
            place = (arguments.index or Path(temporary)) / f"index-{size}"
            if not place.exists():
                say(f"building {size:,} chunks ...")
                call(
                    "ultrafast_rag.bench.corpus:build_in_child",
                    {"place": str(place), "count": size, "data": str(folder) if folder else None, "settings": settings},
                )
            say(f"asking {len(asked)} questions of {size:,} chunks ...")
            outcome = call("ultrafast_rag.bench.latency:measure", {"place": str(place), "questions": asked, "settings": settings})
            details.append(outcome.value)
            rows.append(row_of(size, min(size, len(texts)), outcome.value, outcome.peak_mb))
    notes = (
        f"{len(texts):,} distinct sentences{'' if folder else ' of ' + HANDBOOK.name}; the rest are perturbed copies",
        "uncached searches after a warm-up, k = 10, one at a time; legs are measured inside a whole search, words beside encode",
        "targets: search p50 3 ms at 100 k chunks; at 1 M dense leg p50 2 ms, recall@10 0.99, 75 bytes a vector",
    )
    data = {"measured": details, "targets": {**TARGETS, "dense p50 ms": DENSE_TARGET_MS}}
    return Result(Table(rows, "Search", notes=notes), data)


def questions(folder: Path | None, count: int) -> list[str]:
    """Questions of the public collections in equal shares, or of the samples."""
    if folder is None:
        from ultrafast_rag.bench.metrics import load_questions
        from ultrafast_rag.bench.settings import QUESTIONS

        return [question.question for question in load_questions(QUESTIONS)][:count]
    share = -(-count // len(QUESTION_SETS))
    chosen = [list(load(name, folder).first(share).questions.values()) for name in QUESTION_SETS]
    return [text for texts in chosen for text in texts][:count]


def row_of(size: int, distinct: int, value: dict[str, Any], peak_mb: float) -> dict[str, Any]:
    """The table's row of one index."""
    legs = value["legs_ms"]
    return {
        "chunks": size,
        "distinct": distinct,
        "index": value["kind"],
        "search p50 ms": value["search_p50_ms"],
        "p95 ms": value["search_p95_ms"],
        **{f"{leg} ms": times["p50"] for leg, times in legs.items()},
        "recall@10": value["recall"],
        "bytes/vector": value["bytes_per_vector"],
        "commit s": value["built"]["commit_s"],
        "dense build s": value["built"]["dense_s"],
        "words build s": value["built"]["lexical_s"],
        "open s": value["open_s"],
        "peak MB": peak_mb,
    }
