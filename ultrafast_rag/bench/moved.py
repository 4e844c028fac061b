"""One index, moved: built with each engine, packed, unpacked and asked with each other one; nDCG@10 of its dense leg.

Rows are the engine that built, columns the one that asks. What counts is how far a cell is from its row's own
engine, so that an index made on one machine is worth as much on another.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultrafast_rag.bench.metrics import ndcg_at_k
from ultrafast_rag.bench.publicsets import FILES, Collection, data_folder, load
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import add_settings, config_of, settings_of
from ultrafast_rag.errors import UltraFastRAGError
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import Table

# as in Config: an engine by name, or bits of torch's linear layers
ENGINES: Mapping[str, dict[str, Any]] = {
    "openvino-int8": {"engine": "openvino-int8"},
    "openvino-bf16": {"engine": "openvino-bf16"},
    "openvino-f32": {"engine": "openvino-f32"},
    "torch-f32": {"engine": "torch-f32"},
    "torch-bf16": {"engine": "torch-bf16"},
    "torch-f16": {"engine": "torch-f16"},
    "torch-8bit": {"engine": "torch-f32", "quantization": "8bit"},
    "torch-4bit": {"engine": "torch-f32", "quantization": "4bit"},
}
TOLERANCE = 0.005  # of nDCG, relative


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which collections and engines, and how much of them."""
    parser.add_argument("--data", type=Path, help="folder of public collections (default: UFR_TEST_DATA)")
    parser.add_argument("--sets", nargs="+", default=["squad2", "scifact"], choices=list(FILES), help="which collections")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES), help="which engines")
    parser.add_argument("--questions", type=int, metavar="N", help="at most N questions a collection (default: all)")
    parser.add_argument(
        "--documents", type=int, metavar="N", help="at most N documents, those of the questions first (default: all)"
    )
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """One row a collection and building engine."""
    folder = data_folder(arguments.data)
    given = settings_of(arguments.set)
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for name in arguments.sets:
        collection = _part(load(name, folder), arguments.questions, arguments.documents)  # type: ignore[arg-type]
        for built, row in measure(collection, arguments.engines, given, notes).items():
            own = row.get(built)
            asked = {engine: value for engine, value in row.items() if own}
            worst = max((abs(value / own - 1) for value in asked.values()), default=None) if own else None
            shown = {engine: round(value, 4) for engine, value in row.items()}
            within = None if worst is None else worst <= TOLERANCE
            rows.append(
                {"collection": name, "built with": built, **shown, "furthest %": worst and 100 * worst, "within 0.5 %": within}
            )
        notes.append(f"{name}: {len(collection.documents)} documents, {len(collection.questions)} questions")
    notes.append("columns: the engine that asks; furthest: of a cell from the one where the building engine asks itself")
    return Result(Table(rows, "A moved index, nDCG@10 of its dense leg", notes=tuple(notes)), {"tolerance": TOLERANCE})


def measure(
    collection: Collection, engines: Sequence[str], given: Mapping[str, Any], notes: list[str]
) -> dict[str, dict[str, float]]:
    """Building engine -> asking engine -> nDCG@10; an engine that does not open is left out with a note."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-moved-") as folder:
        for built in engines:
            say(f"{collection.name}: building with {built} ...")
            archive = Path(folder, f"{built}.tar")
            try:
                with UltraFastRAG(Path(folder, built), config=_config(built, given)) as rag:
                    rag.add_texts(list(collection.documents.values()), ids=list(collection.documents))
                    made_by = rag.stats()["models"]["text"]
                    rag.export(archive)
            except UltraFastRAGError as error:
                notes.append(f"{collection.name}, {built} cannot build: {str(error)[:200]}")
                continue
            if built not in made_by:
                notes.append(f"{collection.name}, {built}: {made_by} was used instead")
            found[built] = {}
            for asking in engines:
                try:
                    found[built][asking] = _asked(collection, archive, Path(folder, f"{built}-{asking}"), asking, given)
                except UltraFastRAGError as error:
                    notes.append(f"{collection.name}, built with {built}: {asking} cannot ask: {str(error)[:200]}")
    return found


def _asked(collection: Collection, archive: Path, folder: Path, asking: str, given: Mapping[str, Any]) -> float:
    settings = {name: value for name, value in _config(asking, given).to_json().items() if name != "cache_dir"}
    with UltraFastRAG.restore(archive, folder, **settings) as rag:
        hits = {q: [hit.document_id for hit in rag.search(text, k=10, alpha=1.0)] for q, text in collection.questions.items()}
    return ndcg_at_k(collection.qrels, hits, k=10)


def _config(engine: str, given: Mapping[str, Any]) -> Any:
    return config_of({**given, **ENGINES[engine], "device": "cpu", "cache_embeddings": False})


def _part(collection: Collection, questions: int | None, documents: int | None) -> Collection:
    """Of `documents` the questions' own stand first, so that each question keeps its answer."""
    part = collection.first(questions)
    if documents is None or documents >= len(part.documents):
        return part
    gold = dict.fromkeys(name for judged in part.qrels.values() for name in judged)
    kept = list(dict.fromkeys([*gold, *part.documents]))[: max(documents, len(gold))]
    return Collection(part.name, {name: part.documents[name] for name in kept}, part.questions, part.qrels, part.answers)
