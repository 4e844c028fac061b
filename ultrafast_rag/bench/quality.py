"""nDCG@10 through the public surface, `add_texts` and `search`: what a user gets, not what a leg could do."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from ultrafast_rag.bench.metrics import compare, per_query
from ultrafast_rag.bench.publicsets import FILES, Collection, data_folder, load, read
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import add_settings, config_of, settings_of
from ultrafast_rag.config import Config
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import Table

TARGETS = {"squad2": 0.895, "scifact": 0.73, "xquad-de": 0.935, "xquad-zh": 0.95, "xquad-hi": 0.94}
# column -> (alpha, fusion); None takes the setting
WAYS: dict[str, tuple[float | None, str | None]] = {
    "dense": (1.0, None),
    "lexical": (0.0, None),
    "rrf": (None, "rrf"),
    "default": (None, None),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which collections, and how many questions."""
    parser.add_argument("--data", type=Path, help="folder of public collections (default: UFR_TEST_DATA)")
    parser.add_argument("--sets", nargs="+", default=list(FILES), choices=list(FILES), help="which collections")
    parser.add_argument(
        "--collection", type=Path, action="append", default=[], help="your own instead: a BEIR folder or SQuAD file"
    )
    parser.add_argument("--questions", type=int, metavar="N", help="at most N questions a collection (default: all)")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """One row a collection."""
    config = config_of(settings_of(arguments.set))
    folder = None if arguments.collection else data_folder(arguments.data)
    own = (read(path) for path in arguments.collection)
    collections = own if folder is None else (load(name, folder) for name in arguments.sets)
    rows: list[dict[str, Any]] = []
    tests: dict[str, Any] = {}
    fingerprint = ""
    for collection in collections:
        say(f"{collection.name} ...")
        row, tests[collection.name], fingerprint = measure(collection.first(arguments.questions), config)
        rows.append(row)
    notes = (f"nDCG@10; text model {fingerprint}", "ms: mean seconds of one default search, encoding included")
    return Result(Table(rows, "Retrieval quality", notes=notes), {"encoder": fingerprint, "default against rrf": tests})


def measure(collection: Collection, config: Config) -> tuple[dict[str, Any], str, str]:
    """nDCG@10 of each way, the paired test of default against RRF, and the encoder's fingerprint."""
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-quality-") as folder:
        with UltraFastRAG(Path(folder, "index"), config=config) as rag:
            rag.add_texts(list(collection.documents.values()), ids=list(collection.documents))
            fingerprint = rag.stats()["models"]["text"]
        values, seconds = {}, 0.0
        for way, (alpha, fusion) in WAYS.items():
            with UltraFastRAG(Path(folder, "index"), config=config.replace(fusion=fusion or config.fusion)) as rag:
                rag.warmup()
                start = time.perf_counter()
                run = {
                    q: [hit.document_id for hit in rag.search(text, k=10, alpha=alpha)]
                    for q, text in collection.questions.items()
                }
                seconds = time.perf_counter() - start
            values[way] = per_query("ndcg", collection.qrels, run, k=10)
    means = {way: sum(value.values()) / max(len(value), 1) for way, value in values.items()}
    target = TARGETS.get(collection.name)
    row = {
        "collection": collection.name,
        "documents": len(collection.documents),
        "questions": len(collection.questions),
        **{way: round(mean, 4) for way, mean in means.items()},
        "target": target,
        "met": None if target is None else round(means["default"], 3) >= target,
        "ms": 1000 * seconds / max(len(collection.questions), 1),
    }
    return row, str(compare(values["rrf"], values["default"])), fingerprint
