"""Vectors into a vector store: batches against one by one, from texts on, memory, and what int8 keeps of them.

With QDRANT_URL a real server is asked. Without one it is Qdrant's REST interface over loopback (`qdrant_server.py`), a
Python server in a process of its own: its seconds are an upper bound, and the table says which it was. Memory is that of
the process that uploads. int8 is measured on
the vectors themselves, by Qdrant's scalar quantization: 256 steps between two quantiles of all values.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.bench.metrics import per_query
from ultrafast_rag.bench.publicsets import data_folder, load
from ultrafast_rag.bench.qdrant_server import QdrantServer
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import add_settings, prepare_models, settings_of
from ultrafast_rag.bench.vectors import cosine, encode
from ultrafast_rag.config import Config
from ultrafast_rag.errors import require
from ultrafast_rag.index.stores import TIMEOUT_S, open_store
from ultrafast_rag.monitor import rss_mb
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import Point, Table, Vectors

QUANTILE, OVERSAMPLING = 0.99, 2  # as `index/stores/qdrant.py` asks of a server
FROM_TEXTS = 1000  # documents encoded and uploaded, chosen: enough for a steady rate
TARGETS = {
    "times faster": 10.0,
    "documents/s in batches": 200.0,
    "memory MB": 1000.0,
    "int8 cosine": 0.9995,
    "int8 nDCG share": 0.995,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which documents, and how many of each way."""
    parser.add_argument("--data", type=Path, help="folder of public collections (default: UFR_TEST_DATA)")
    parser.add_argument("--collection", default="scifact", help="a public collection (default: scifact)")
    parser.add_argument("--n", type=int, default=10_000, help="vectors uploaded in batches; copies fill up")
    parser.add_argument("--single", type=int, default=500, help="vectors uploaded one by one")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """Rows of what was measured, its value and its target."""
    settings, folder = settings_of(arguments.set), data_folder(arguments.data)
    assert folder is not None
    prepare_models()
    collection = load(arguments.collection, folder)
    config = Config(quiet=True).replace(**settings)
    say(f"encoding {collection.name} ...")
    documents, questions, encoder = encode(collection, config)
    with _server() as where:
        measured = _uploads(documents, arguments.n, arguments.single)
        measured |= _from_texts(list(collection.documents.values())[:FROM_TEXTS], settings)
    measured |= _int8(collection, documents, questions)
    rows = [{"what": name, "value": value, "target": TARGETS.get(name)} for name, value in measured.items()]
    notes = (f"against {where}", f"{len(documents)} documents of {collection.name}, {documents.shape[1]} numbers each; {encoder}")
    return Result(Table(rows, "Upload", notes=notes), {"measured": measured, "targets": TARGETS, "server": where})


@contextlib.contextmanager
def _server() -> Iterator[str]:
    """The server that QDRANT_URL names, or a stand-in while this is open; says which."""
    if os.environ.get("QDRANT_URL", "").strip():
        yield "a Qdrant server"
        return
    require("qdrant_client", package="qdrant-client", extra="qdrant")
    spawned = multiprocessing.get_context("spawn")
    ours, its = spawned.Pipe()
    server = spawned.Process(target=_serve, args=(its,), daemon=True)
    server.start()
    its.close()
    os.environ["QDRANT_URL"] = ours.recv()
    try:
        yield "the client's local mode behind Qdrant's REST interface on loopback, in a process of its own"
    finally:
        del os.environ["QDRANT_URL"]
        ours.close()
        server.join()


def _serve(pipe: Connection) -> None:
    """A stand-in until the other end of the pipe is closed."""
    with QdrantServer() as server, contextlib.suppress(EOFError):
        pipe.send(server.url)
        pipe.recv()


def _uploads(documents: Vectors, n: int, single: int) -> dict[str, Any]:
    points = [Point(i, documents[i % len(documents)], {"document": str(i)}) for i in range(max(n, single))]
    store = open_store("qdrant", f"bench-{uuid.uuid4().hex}", documents.shape[1], timeout_s=TIMEOUT_S)
    try:
        before = rss_mb()
        say(f"one by one, {single} ...")
        start = time.perf_counter()
        for point in points[:single]:
            store.add([point])
        one = single / (time.perf_counter() - start)
        say(f"in batches, {n} ...")
        start = time.perf_counter()
        store.add(points[:n])
        many = n / (time.perf_counter() - start)
        there = len(store.ids())
    finally:
        store.close()
    rates = {"documents/s one by one": one, "documents/s in batches": many, "times faster": many / one}
    return {**rates, "documents there": there, "memory MB": rss_mb() - before}


def _from_texts(texts: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Documents a second from text to found in the store: encoded anew, which takes nearly all of it, committed, uploaded."""
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-upload-") as place:
        plain = {"quiet": True, "image_model": None, "speech_model": None, "cache_embeddings": False, **settings}
        with UltraFastRAG(Path(place, "index"), store="qdrant", **plain) as rag:
            rag.search("warm", k=1)
            say(f"from texts, {len(texts)} ...")
            start = time.perf_counter()
            rag.add_texts(texts, ids=[str(n) for n in range(len(texts))])
            found = rag.search(texts[-1], k=1, alpha=1)
            seconds = time.perf_counter() - start
            right = bool(found) and found[0].document_id == str(len(texts) - 1)
    return {"documents/s from their text": len(texts) / seconds, "last one found": right}


def _int8(collection: Any, documents: Vectors, questions: Vectors) -> dict[str, Any]:
    """Cosine after dequantization, and nDCG@10 of candidates by int8 scored again, against float32's."""
    low, high = np.quantile(documents, [1 - QUANTILE, QUANTILE])
    back = quantized(documents, float(low), float(high))
    whole = quantized(documents, float(documents.min()), float(documents.max()))
    exact = questions @ documents.T
    rough = questions @ back.T
    depth = 10 * OVERSAMPLING
    chosen = np.argpartition(-rough, depth - 1, axis=1)[:, :depth]
    again = np.full_like(exact, -np.inf)
    np.put_along_axis(again, chosen, np.take_along_axis(exact, chosen, 1), 1)
    names, asked = list(collection.documents), list(collection.questions)

    def ndcg(scores: Vectors) -> float:
        best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        found = {question: [names[n] for n in row] for question, row in zip(asked, best)}
        return float(np.mean(list(per_query("ndcg", collection.qrels, found).values())))

    float_ndcg, int8_ndcg = ndcg(exact), ndcg(again)
    return {
        "int8 cosine": float(np.mean(cosine(documents, whole))),
        f"int8 cosine, quantile {QUANTILE}": float(np.mean(cosine(documents, back))),
        "nDCG@10 float32": float_ndcg,
        "nDCG@10 int8 scored again": int8_ndcg,
        "int8 nDCG share": int8_ndcg / float_ndcg,
    }


def quantized(vectors: Vectors, low: float, high: float) -> Vectors:
    """There and back through 256 steps from low to high; what lies beyond is clipped."""
    step = max(high - low, 1e-12) / 255
    codes = np.clip(np.rint((vectors - low) / step), 0, 255).astype(np.uint8)
    back: Vectors = codes.astype(np.float32) * np.float32(step) + np.float32(low)
    return back
