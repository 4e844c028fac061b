"""Every text engine and batch budget on the same passages: speed, and how close the vectors are to float32's."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.bench.child import call
from ultrafast_rag.bench.corpus import sentences_of
from ultrafast_rag.bench.metrics import ndcg_at_k
from ultrafast_rag.bench.publicsets import data_folder, load
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import add_settings, config_of, settings_of
from ultrafast_rag.errors import UltraFastRAGError
from ultrafast_rag.models.text.encoder import open_text_encoder
from ultrafast_rag.types import Table, Vectors

ENGINES = ("torch-f32", "torch-bf16", "openvino-f32", "openvino-bf16", "openvino-int8")
BUDGETS = (0, 256, 1024, 4096, 16384)  # tokens per batch; 0: one text at a time
QUALITY_SET = "xquad-en"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which engines, budgets and how many passages."""
    parser.add_argument("--data", type=Path, help="folder of public collections (default: UFR_TEST_DATA)")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), help="engines to measure")
    parser.add_argument("--budgets", nargs="+", type=int, default=list(BUDGETS), help="tokens per batch; 0: one text at a time")
    parser.add_argument("--passages", type=int, default=300, help="passages to encode")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; the fastest is shown")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """One row an engine and budget; each engine in a process of its own."""
    data = data_folder(arguments.data, needed=False)
    rows: list[dict[str, Any]] = []
    missing: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-encode-") as folder:
        for engine in dict.fromkeys(["torch-f32", *arguments.engines]):
            say(f"{engine} ...")
            try:
                outcome = call(
                    "ultrafast_rag.bench.encode:measure",
                    {
                        "engine": engine,
                        "budgets": arguments.budgets,
                        "count": arguments.passages,
                        "repeats": arguments.repeats,
                        "data": str(data) if data else None,
                        "folder": folder,
                        "settings": settings_of(arguments.set),
                    },
                )
            except UltraFastRAGError as error:
                missing.append(f"{engine}: {str(error)[-200:]}")
                continue
            rows += [{"engine": engine, **row, "peak MB": outcome.peak_mb} for row in outcome.value]
    plain_row = next((r for r in rows if r["engine"] == "torch-f32" and r["batch"] == "1 text"), rows[0] if rows else {})
    fastest = max((r["tokens/s"] for r in rows if r["engine"] == "torch-f32"), default=float("nan"))
    for row in rows:
        row["times torch-f32"] = row["tokens/s"] / fastest
    quality = f"nDCG@10 of a plain dense leg on {QUALITY_SET}" if data else "no public data, so no nDCG"
    notes = [
        f"{arguments.passages} passages; {quality}",
        "times torch-f32: against torch-f32's best budget; one text at a time torch-f32 gives "
        f"{plain_row.get('tokens/s', float('nan')):,.0f} tokens/s",
        *missing,
    ]
    return Result(Table(rows, "Text engines", notes=tuple(notes), bars=("tokens/s",)), {})


def measure(
    engine: str, budgets: list[int], count: int, repeats: int, data: str | None, folder: str, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows of one engine; float32's vectors are left in `folder` for the engines after it."""
    texts = passages(Path(data) if data else None, count)
    rows: list[dict[str, Any]] = []
    quality: float | None = None
    for budget in budgets:
        batch = {"batch_size": 1} if budget == 0 else {"batch_tokens": budget}
        encoder = open_text_encoder(config_of({**settings, "engine": engine, **batch}))
        tokens = encoder.tokenize(texts)
        total = sum(min(len(ids) + 2, encoder.max_tokens) for ids in tokens)
        vectors = encoder.encode_tokens(tokens)  # kernels are prepared here
        seconds = min(_seconds(lambda: encoder.encode_tokens(tokens)) for _ in range(repeats))  # noqa: B023  called at once
        if quality is None and data:
            quality = _ndcg(encoder, Path(data))
        rows.append(
            {
                "batch": "1 text" if budget == 0 else f"{budget} tokens",
                "texts/s": len(texts) / seconds,
                "tokens/s": total / seconds,
                "cosine": _cosine(vectors, engine, Path(folder)),
                "nDCG@10": quality,
            }
        )
        encoder.close()
    return rows


def passages(data: Path | None, count: int) -> list[str]:
    """Abstracts and paragraphs in equal parts; the handbook's sentences without public data."""
    if data is None:
        return sentences_of(None)[:count]
    half = -(-count // 2)
    abstracts, paragraphs = (list(load(name, data).documents.values())[:half] for name in ("scifact", "squad2"))
    return [*abstracts, *paragraphs][:count]


def _seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _cosine(vectors: Vectors, engine: str, folder: Path) -> float | None:
    exact = folder / "torch-f32.npy"
    if engine == "torch-f32" and not exact.exists():
        np.save(exact, vectors)
    return float((np.load(exact) * vectors).sum(axis=1).mean()) if exact.exists() else None


def _ndcg(encoder: Any, data: Path) -> float:
    collection = load(QUALITY_SET, data)
    names = list(collection.documents)
    scores = encoder.encode(list(collection.questions.values())) @ encoder.encode(list(collection.documents.values())).T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    run = {question: [names[n] for n in row] for question, row in zip(collection.questions, best)}
    return ndcg_at_k(collection.qrels, run, k=10)
