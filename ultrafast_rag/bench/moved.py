"""One index, moved: built with each engine, packed, unpacked and asked with each other one; nDCG@10 of its dense leg.

Rows are the engine that built, columns the one that asks. What counts is how far a cell is from its row's own
engine, so that an index made on one machine is worth as much on another. Beside it what that rests on: each engine
held to float32's vectors at every width that it pads texts to on this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultrafast_rag.bench.metrics import ndcg_at_k
from ultrafast_rag.bench.publicsets import FILES, Collection, data_folder, load
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import add_settings, config_of, engine_of, settings_of
from ultrafast_rag.errors import UltraFastRAGError
from ultrafast_rag.models.device import plan_device
from ultrafast_rag.models.text.encoder import open_text_encoder
from ultrafast_rag.models.text.openvino import OpenVINOEngine
from ultrafast_rag.models.text.reference import MIN_COSINE, least_cosines
from ultrafast_rag.models.text.tokens import WordPieces
from ultrafast_rag.models.text.torch import TorchEngine
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
    widths = width_rows(arguments.engines, given)
    for name in arguments.sets:
        collection = _part(load(name, folder), arguments.questions, arguments.documents)  # type: ignore[arg-type]
        rows += rows_of(name, measure(collection, arguments.engines, given, notes))
        notes.append(f"{name}: {len(collection.documents)} documents, {len(collection.questions)} questions")
    notes.append("columns: the engine that asks; furthest: of a cell from the one where the building engine asks itself")
    table = Table(rows, "A moved index, nDCG@10 of its dense leg", notes=tuple(dict.fromkeys(notes)))
    return Result(table, {"tolerance": TOLERANCE, "least_cosine": dict(MIN_COSINE), "widths": widths})


def width_rows(engines: Sequence[str], given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each padded width the least cosine of each engine to float32; engines that pad to none in particular are left out."""
    found: dict[str, dict[int, float]] = {}
    with contextlib.closing(open_text_encoder(_config("torch-f32", given))) as exact:
        reference, pieces = exact.reference(), WordPieces(exact.spec)
        if reference is None:
            return []
        framed = pieces.with_special_tokens(pieces.tokenize(reference.texts), pieces.prompt(exact.spec.passage_prompt))
        for name in engines:
            say(f"widths of {name} ...")
            config = _config(name, given)
            plan = plan_device(config)
            kind = TorchEngine if name.startswith("torch-") else OpenVINOEngine
            try:
                with contextlib.closing(kind(exact.spec, plan.engines[0], plan, config)) as engine:
                    found[name] = least_cosines(engine, framed, reference.vectors)
            except (UltraFastRAGError, ImportError):  # the rows say why
                continue
    widths = sorted({width for least in found.values() for width in least})
    return [{"width": width, **{name: least[width] for name, least in found.items() if width in least}} for width in widths]


def rows_of(name: str, found: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """A row a building engine: every nDCG@10, and how far the furthest is from where that engine asks itself."""
    rows: list[dict[str, Any]] = []
    for built, asked in found.items():
        own = asked.get(built)
        furthest = max(abs(value / own - 1) for value in asked.values()) if own else None
        within = None if furthest is None else furthest <= TOLERANCE
        shown = {engine: round(value, 4) for engine, value in asked.items()}
        told = furthest if furthest is None else 100 * furthest
        rows.append({"collection": name, "built with": built, **shown, "furthest %": told, "within 0.5 %": within})
    return rows


def measure(
    collection: Collection, engines: Sequence[str], given: Mapping[str, Any], notes: list[str]
) -> dict[str, dict[str, float]]:
    """Building engine -> asking engine -> nDCG@10; an engine that does not open is left out with a note."""
    found = {built: measure_built(collection, built, engines, given, notes) for built in engines}
    return {built: asked for built, asked in found.items() if asked}


def measure_built(
    collection: Collection, built: str, engines: Sequence[str], given: Mapping[str, Any], notes: list[str]
) -> dict[str, float]:
    """Asking engine -> nDCG@10 of an index that `built` made; {} where it cannot."""
    found: dict[str, float] = {}
    say(f"{collection.name}: building with {built} ...")
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-moved-") as folder:
        archive = Path(folder, "index.tar")
        try:
            with UltraFastRAG(Path(folder, "index"), config=_config(built, given)) as rag:
                rag.add_texts(list(collection.documents.values()), ids=list(collection.documents))
                rag.export(archive)
                used = engine_of(rag)
        except UltraFastRAGError as error:
            notes.append(f"{collection.name}, {built} cannot build: {str(error)[:200]}")
            return {}
        notes += _replaced(built, used)
        for asking in engines:
            try:
                found[asking], used = _asked(collection, archive, Path(folder, asking), asking, given)
            except UltraFastRAGError as error:
                notes.append(f"{collection.name}, built with {built}: {asking} cannot ask: {str(error)[:200]}")
                continue
            notes += _replaced(asking, used)
    return found


def _replaced(wanted: str, used: str) -> list[str]:
    return [] if used == wanted else [f"{wanted} differs too much from float32 here: {used} is used instead"]


def _asked(collection: Collection, archive: Path, folder: Path, asking: str, given: Mapping[str, Any]) -> tuple[float, str]:
    """nDCG@10, and what asked: an engine that does not agree with the index's vectors is replaced."""
    settings = {name: value for name, value in _config(asking, given).to_json().items() if name != "cache_dir"}
    with UltraFastRAG.restore(archive, folder, **settings) as rag:
        hits = {q: [hit.document_id for hit in rag.search(text, k=10, alpha=1.0)] for q, text in collection.questions.items()}
        return ndcg_at_k(collection.qrels, hits, k=10), engine_of(rag)


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
