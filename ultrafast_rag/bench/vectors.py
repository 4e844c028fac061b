"""What compressed vectors cost and keep: bytes, cosine to float32, recall of its ten best, nDCG@10; models side by side.

Every form is searched exactly, its documents decoded against float32 questions (the index does the same with
candidates), so that nothing but the form itself is measured; binary is also shown as a first stage that float16
scores again, which is how short codes are meant to be used.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.bench.metrics import compare, interval, per_query
from ultrafast_rag.bench.publicsets import FILES, Collection, data_folder, load
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import add_settings, config_of, settings_of
from ultrafast_rag.config import Config
from ultrafast_rag.errors import require
from ultrafast_rag.index.embedding_cache import open_embedding_cache
from ultrafast_rag.ingest.embed import Embedder
from ultrafast_rag.models.text.encoder import open_text_encoder
from ultrafast_rag.monitor import StageClock
from ultrafast_rag.types import TEXT_SPACE, Chunk, Table, Vectors

PQ_BYTES = (48, 96)  # codes of 8 bits: 8 and 4 values each for 384
KEPT = 64  # values of a sparse vector
AGAIN = 100  # candidates of a first stage that float16 scores again
_LEAST_TO_TRAIN = 256  # centroids of 8 bits


@dataclass(frozen=True, slots=True)
class Form:
    """name, bytes a vector, and the documents' vectors as they come back. again: candidates that float16 scores again."""

    name: str
    size: float
    decoded: Vectors
    again: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which collections and models."""
    parser.add_argument("--data", type=Path, help="folder of public collections (default: UFR_TEST_DATA)")
    parser.add_argument("--sets", nargs="+", default=["scifact", "squad2"], choices=list(FILES), help="which collections")
    parser.add_argument("--questions", type=int, metavar="N", help="at most N questions a collection (default: all)")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="text encoders by name or path, the first held against")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """One row a model, collection and form."""
    folder, settings = data_folder(arguments.data), settings_of(arguments.set)
    assert folder is not None
    configs = [config_of({**settings, **({"text_model": name} if name else {})}) for name in arguments.models or [None]]
    rows: list[dict[str, Any]] = []
    encoders: dict[str, str] = {}
    for name in arguments.sets:
        collection = load(name, folder).first(arguments.questions)
        held: Mapping[str, float] | None = None
        for config in configs:
            say(f"{name}, {config.text_model} ...")
            documents, questions, encoders[config.text_model] = encode(collection, config)
            measured, values = measure(collection, documents, questions)
            held = held or values
            rows += [{"collection": name, "model": Path(config.text_model).name, **row} for row in measured]
            if len(configs) > 1:
                rows[-len(measured)] |= {"against the first model": str(compare(held, values))}
    notes = (
        "bytes: of one stored vector; cosine: mean, of what comes back with float32; recall@10: of float32's ten best",
        "low, high: 95 % bootstrap interval of nDCG@10; p: paired randomization test against float32",
        f"sparse: the {KEPT} largest values with their places; again: the {AGAIN} best scored again with float16",
    )
    return Result(Table(rows, "Compressed vectors", notes=notes, bars=("bytes",)), {"encoders": encoders})


def encode(collection: Collection, config: Config) -> tuple[Vectors, Vectors, str]:
    """Vectors of the documents, through the embedding cache, and of the questions; the encoder's fingerprint."""
    encoder = open_text_encoder(config)
    cache = open_embedding_cache(config.cache_dir, size_gb=config.cache_size_gb)
    embedder = Embedder(lambda: encoder, lambda: None, cache, StageClock())
    texts, blocks = list(collection.documents.values()), []
    for at in range(0, len(texts), 512):
        embedded = embedder.embed([Chunk(text) for text in texts[at : at + 512]])
        blocks.append(embedded.vectors[TEXT_SPACE])
        embedder.remember(embedded)
    questions = encoder.encode_queries(list(collection.questions.values()))
    cache.close()
    encoder.close()
    return np.concatenate(blocks), questions, encoder.fingerprint


def measure(collection: Collection, documents: Vectors, questions: Vectors) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """One row a form, and nDCG@10 of each question with float32."""
    names, asked = list(collection.documents), list(collection.questions)
    exact = best_of(questions @ documents.T)
    base: dict[str, float] = {}
    rows = []
    for form in forms(documents):
        scores = questions @ form.decoded.T
        best = best_of(scores) if not form.again else _again(scores, questions, half(documents).decoded, form.again)
        run = {question: [names[n] for n in row] for question, row in zip(asked, best)}
        values = per_query("ndcg", collection.qrels, run)
        base = base or values
        low, high = interval(values)
        rows.append(
            {
                "form": form.name,
                "bytes": form.size,
                "times smaller": 4 * documents.shape[1] / form.size,
                "cosine": None if form.again else float(np.mean(cosine(documents, form.decoded))),
                "recall@10": float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(best, exact)])),
                "nDCG@10": float(np.mean(list(values.values()))),
                "low": low,
                "high": high,
                "p": None if values is base else compare(base, values).p_value,
            }
        )
    return rows, base


def forms(documents: Vectors) -> list[Form]:
    """Every form of the same float32 vectors (n, d), float32 first."""
    dim = documents.shape[1]
    found = [Form("float32", 4 * dim, documents), half(documents), int8(documents), binary(documents)]
    found.append(Form(f"binary, {AGAIN} again", dim / 8 + 2 * dim, found[-1].decoded, AGAIN))
    found.append(sparse(documents))
    found += [product(documents, size) for size in PQ_BYTES if dim % size == 0 and len(documents) >= _LEAST_TO_TRAIN]
    return found


def half(documents: Vectors) -> Form:
    """IEEE half precision, what the index stores."""
    return Form("float16", 2 * documents.shape[1], documents.astype(np.float16).astype(np.float32))


def int8(documents: Vectors) -> Form:
    """Whole numbers from -127 to 127 and one float32 scale a vector."""
    scale = np.maximum(np.abs(documents).max(axis=1, keepdims=True), 1e-12) / 127
    return Form("int8", documents.shape[1] + 4, np.rint(documents / scale).astype(np.int8) * scale)


def binary(documents: Vectors) -> Form:
    """The sign of each value; the question keeps float32 (asymmetric, as in RaBitQ's first step)."""
    signs: Vectors = np.where(documents > 0, 1, -1).astype(np.float32) / np.float32(np.sqrt(documents.shape[1]))
    return Form("binary", documents.shape[1] / 8, signs)


def sparse(documents: Vectors, kept: int = KEPT) -> Form:
    """The largest values of each vector as float16 beside two bytes of place."""
    kept = min(kept, documents.shape[1])
    places = np.argpartition(-np.abs(documents), kept - 1, axis=1)[:, :kept]
    thin = np.zeros_like(documents)
    np.put_along_axis(thin, places, np.take_along_axis(documents, places, 1).astype(np.float16).astype(np.float32), 1)
    return Form(f"sparse, {kept} values", 4 * kept, thin)


def product(documents: Vectors, size: int) -> Form:
    """Product quantization by 8-bit codes, trained on the documents themselves. Source: Jégou et al., PAMI 2011."""
    quantizer = require("faiss", package="faiss-cpu").ProductQuantizer(documents.shape[1], size, 8)
    quantizer.cp.seed, quantizer.cp.min_points_per_centroid = 1, 1  # small collections; a warning for each group else
    quantizer.train(documents)
    return Form(f"PQ, {size} bytes", size, quantizer.decode(quantizer.compute_codes(documents)))


def best_of(scores: Vectors) -> Any:
    """Numbers of the ten best of each row, best first; ties keep the documents' order."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :10]


def _again(scores: Vectors, questions: Vectors, halves: Vectors, depth: int) -> Any:
    depth = min(depth, scores.shape[1])
    candidates = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
    rescored = np.full_like(scores, -np.inf)
    for row, (question, chosen) in enumerate(zip(questions, candidates)):
        rescored[row, chosen] = halves[chosen] @ question
    return best_of(rescored)


def cosine(a: Vectors, b: Vectors) -> Vectors:
    """Cosine of each row of a with the same row of b."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    similar: Vectors = (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)
    return similar
