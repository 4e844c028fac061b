"""Many real passages: sentences of the public collections, their vectors, and perturbed copies of both."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.bench.publicsets import FILES, load
from ultrafast_rag.bench.settings import HANDBOOK, config_of
from ultrafast_rag.config import CONFIG_FACT
from ultrafast_rag.errors import ConfigError, require
from ultrafast_rag.index.dense import DenseIndex
from ultrafast_rag.index.embedding_cache import open_embedding_cache
from ultrafast_rag.index.lexical import LexicalIndex
from ultrafast_rag.index.store import Store
from ultrafast_rag.ingest.embed import Embedder
from ultrafast_rag.language.sentences import split_sentences
from ultrafast_rag.models.registry import FINGERPRINTS
from ultrafast_rag.models.text.encoder import open_text_encoder
from ultrafast_rag.monitor import StageClock
from ultrafast_rag.types import TEXT_SPACE, Chunk, PartCommit, Record, Vectors

BUILT = "bench"
_SHORTEST = 30  # characters of a sentence that is worth being found
_DOCUMENT = 500  # chunks a document
_COMMIT = 20  # documents a commit
_MOVED = 0.45  # length of the noise added to a unit vector: cosine to its original about 0.91
_EXCHANGED = 0.3  # share of words exchanged in a copy


def sentences_of(data: Path | None) -> list[str]:
    """Distinct sentences of every public collection; without a folder, of the sample handbook."""
    found: dict[str, None] = {}
    for text in _texts(data):
        found.update(dict.fromkeys(s for s in split_sentences(text) if len(s) >= _SHORTEST or not s.isascii()))
    return list(found)


def _texts(data: Path | None) -> Iterator[str]:
    if data is None:
        if not HANDBOOK.exists():
            raise ConfigError("no public collections (--data DIR or UFR_TEST_DATA) and no data/samples here: nothing to search")
        with require("pymupdf").open(HANDBOOK) as document:
            yield from (page.get_text() for page in document)
        return
    for name in FILES:
        yield from load(name, data).documents.values()
    for path in sorted((data / "textscale").rglob("*.md*")):
        yield path.read_text(encoding="utf-8", errors="replace")


def build_in_child(place: str, count: int, data: str | None, settings: dict[str, Any]) -> None:
    """`build` over the public sentences, for a process of its own."""
    build(Path(place), sentences_of(Path(data) if data else None), count, settings)


def build(place: Path, texts: Sequence[str], count: int, settings: dict[str, Any]) -> None:
    """Write an index of `count` chunks to a new folder, straight through the store, and build its legs.

    What was measured is kept beside it under BUILT: commit_s, dense_s, lexical_s, bytes_per_vector, kind.
    """
    config = config_of(settings)
    encoder = open_text_encoder(config)
    base = list(texts[:count])
    cache = open_embedding_cache(config.cache_dir, size_gb=config.cache_size_gb)
    vectors = _vectors(base, Embedder(lambda: encoder, lambda: None, cache, StageClock()))
    cache.close()
    partial = place.with_name(f"{place.name}.partial")
    with Store.open(partial) as store:
        store.set_meta(CONFIG_FACT, config.identity())
        store.set_meta(FINGERPRINTS, {TEXT_SPACE: encoder.space})
        start = time.perf_counter()
        _commit(store, base, vectors, count)
        commit_s = time.perf_counter() - start
        start = time.perf_counter()
        lexical = LexicalIndex(store, folder=store.folder)
        lexical.save()
        lexical_s = time.perf_counter() - start
        start = time.perf_counter()
        info = DenseIndex(store, TEXT_SPACE, kind=config.index, folder=store.folder).build()
        dense_s = time.perf_counter() - start
        store.set_meta(BUILT, {"commit_s": commit_s, "lexical_s": lexical_s, "dense_s": dense_s, "dense": info})
    encoder.close()
    partial.rename(place)


def _vectors(texts: Sequence[str], embedder: Embedder) -> Vectors:
    blocks = []
    for at in range(0, len(texts), 2048):
        embedded = embedder.embed([Chunk(text) for text in texts[at : at + 2048]])
        blocks.append(embedded.vectors[TEXT_SPACE])
        embedder.remember(embedded)
    return np.concatenate(blocks)


def _commit(store: Store, texts: Sequence[str], vectors: Vectors, count: int) -> None:
    rng = np.random.default_rng(7)
    vocabulary = np.array(sorted({word for text in texts[:20_000] for word in text.split()}))
    per_commit = _DOCUMENT * _COMMIT
    for at in range(0, count, per_commit):
        rows = np.arange(at, min(at + per_commit, count))
        block, moved = [], vectors[rows % len(texts)].copy()
        copies = rows >= len(texts)
        if copies.any():
            noise = rng.standard_normal((int(copies.sum()), vectors.shape[1]), dtype=np.float32)
            moved[copies] += _MOVED * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        for row, copied in zip(rows, copies):
            text = texts[int(row) % len(texts)]
            block.append(Chunk(_exchanged(text, vocabulary, rng) if copied else text, ordinal=int(row % _DOCUMENT)))
        starts = range(0, len(rows), _DOCUMENT)
        sources = [Record(f"passages-{(at + s) // _DOCUMENT:05d}.txt", content_hash=str(at + s)) for s in starts]
        begun = store.begin_many(sources)
        store.commit(
            [
                PartCommit(
                    state.document_key,
                    0,
                    block[s : s + _DOCUMENT],
                    {TEXT_SPACE: moved[s : s + _DOCUMENT]},
                    {TEXT_SPACE: range(len(block[s : s + _DOCUMENT]))},
                    total=1,
                    final=True,
                )
                for state, s in zip(begun, starts)
            ]
        )


def _exchanged(text: str, vocabulary: np.typing.NDArray[np.str_], rng: np.random.Generator) -> str:
    words = text.split()
    count = max(1, int(len(words) * _EXCHANGED))
    for place, other in zip(rng.integers(0, len(words), count), rng.integers(0, len(vocabulary), count)):
        words[place] = str(vocabulary[other])
    return " ".join(words)
