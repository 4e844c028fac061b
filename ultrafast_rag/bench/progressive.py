"""nDCG@10 of an index of which nothing is refined yet, against words alone and against everything encoded.

Each question starts from words and static vectors: what an earlier one had encoded is forgotten. The embedding cache holds
everything by then, so that no question is asked with fewer passages because the machine is slow.

With `--fired N`, N questions beside the refinement of a collection: how many fail, and how long those take whose passages are
encoded already, against the same where nothing runs beside them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from ultrafast_rag.bench.metrics import compare, per_query
from ultrafast_rag.bench.publicsets import FILES, Collection, data_folder, load
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import add_settings, config_of, fresh_cache, settings_of
from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, UltraFastRAGError
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import Table

ALLOWED = 0.005  # of nDCG@10, that asking at once may cost
SLOWER = 2  # times, that a known question may take beside refinement
FIRED_ON, DISTINCT = "scifact", 50  # 5 183 abstracts: minutes of refinement on any two cores
PAUSE_S = 0.02  # between two questions, in which refinement goes on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which collections, and how many questions."""
    parser.add_argument("--data", type=Path, help="folder of public collections (default: UFR_TEST_DATA)")
    parser.add_argument("--sets", nargs="+", default=list(FILES), choices=list(FILES), help="which collections")
    parser.add_argument("--questions", type=int, metavar="N", help="at most N questions a collection (default: all)")
    parser.add_argument("--fired", type=int, metavar="N", help=f"only ask N questions while {FIRED_ON} is refined")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """One row a collection."""
    config, folder = config_of(settings_of(arguments.set)), data_folder(arguments.data)
    assert folder is not None
    if arguments.fired is not None:
        if arguments.fired < 2 * DISTINCT:
            raise ConfigError(f"--fired must be at least {2 * DISTINCT}: each of {DISTINCT} questions is asked again and again")
        notes = (f"p95 of questions asked before; met: beside refinement at most {SLOWER} times alone, and none fails",)
        return Result(Table([fired(load(FIRED_ON, folder), config, arguments.fired)], "Asked while refining", notes=notes), {})
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


def fired(collection: Collection, config: Config, count: int) -> dict[str, Any]:
    """`count` questions while a collection is refined, then a part of them where nothing runs."""
    texts = list(collection.questions.values())[:DISTINCT]
    failed = 0

    def ask(rag: UltraFastRAG, text: str) -> float:
        nonlocal failed
        start = time.perf_counter()
        try:
            failed += not rag.search(text)
        except UltraFastRAGError:
            failed += 1
        return 1000 * (time.perf_counter() - start)

    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-progressive-") as folder:
        config = config.replace(query_cache=False, cache_dir=fresh_cache(Path(folder, "cache")))
        with UltraFastRAG(Path(folder, "index"), config=config.replace(encode="progressive")) as rag:
            rag.add_texts(list(collection.documents.values()), ids=list(collection.documents))
            first = [ask(rag, text) for text in texts]
            before, known = rag.stats()["refined"], []
            for number in range(count - len(texts)):
                known.append(ask(rag, texts[number % len(texts)]))
                time.sleep(PAUSE_S)
            after = rag.stats()["refined"]
        with UltraFastRAG(Path(folder, "index"), config=config.replace(encode="on_demand")) as rag:
            alone = [ask(rag, text) for _ in range(6) for text in texts][len(texts) :]  # the first round opens everything
    return {
        "asked": count,
        "failed": failed,
        "first, p95 ms": _p95(first),
        "known, p95 ms": _p95(known),
        "alone, p95 ms": _p95(alone),
        "times alone": _p95(known) / _p95(alone),
        "refined, from": before,
        "to": after,
        "met": not failed and _p95(known) <= SLOWER * _p95(alone),
    }


def _p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]
