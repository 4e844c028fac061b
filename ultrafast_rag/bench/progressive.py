"""nDCG@10 of an index of which nothing is refined yet, against words alone and against everything encoded.

Each question starts from words and static vectors: what an earlier one had encoded is forgotten. The embedding cache holds
everything by then, so that no question is asked with fewer passages because the machine is slow.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from ultrafast_rag.bench.metrics import compare, per_query
from ultrafast_rag.bench.publicsets import FILES, Collection, data_folder, load
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import add_settings, config_of, settings_of
from ultrafast_rag.config import Config
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import Table

ALLOWED = 0.005  # of nDCG@10, that asking at once may cost


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which collections, and how many questions."""
    parser.add_argument("--data", type=Path, help="folder of public collections (default: UFR_TEST_DATA)")
    parser.add_argument("--sets", nargs="+", default=list(FILES), choices=list(FILES), help="which collections")
    parser.add_argument("--questions", type=int, metavar="N", help="at most N questions a collection (default: all)")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """One row a collection."""
    config, folder = config_of(settings_of(arguments.set)), data_folder(arguments.data)
    assert folder is not None
    rows: list[dict[str, Any]] = []
    tests: dict[str, str] = {}
    for name in arguments.sets:
        say(f"{name} ...")
        row, tests[name] = measure(load(name, folder).first(arguments.questions), config)
        rows.append(row)
    notes = (f"nDCG@10; met: unrefined within {ALLOWED} of refined, and not below words alone",)
    return Result(Table(rows, "Asked before anything is refined", notes=notes), {"unrefined against refined": tests})


def measure(collection: Collection, config: Config) -> tuple[dict[str, Any], str]:
    """The row of a collection, and the paired test of unrefined against refined."""
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-progressive-") as folder:
        found = {}
        for encode in ("first", "on_demand"):
            with UltraFastRAG(Path(folder, encode), config=config.replace(encode=encode)) as rag:
                rag.add_texts(list(collection.documents.values()), ids=list(collection.documents))
                found[encode] = asked(rag, collection)
                words = asked(rag, collection, alpha=0.0)
    unrefined, refined = found["on_demand"], found["first"]
    means = [sum(values.values()) / max(len(values), 1) for values in (words, unrefined, refined)]
    row = {
        "collection": collection.name,
        "documents": len(collection.documents),
        "questions": len(collection.questions),
        **{name: round(mean, 4) for name, mean in zip(("words", "unrefined", "refined"), means)},
        "lost": round(means[2] - means[1], 4),
        "met": means[2] - means[1] <= ALLOWED and means[1] >= means[0],
    }
    return row, str(compare(refined, unrefined))


def asked(rag: UltraFastRAG, collection: Collection, **options: Any) -> dict[str, float]:
    """nDCG@10 of each question."""
    found = {}
    for name, text in collection.questions.items():
        rag.clear_memory()
        found[name] = [hit.document_id for hit in rag.search(text, k=10, **options)]
    return per_query("ndcg", collection.qrels, found, k=10)
