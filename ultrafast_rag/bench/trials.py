"""One small index with vectors, FAISS and BM25 files, to be damaged in a copy and asked the same questions."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.errors import UltraFastRAGError
from ultrafast_rag.index.dense import DenseIndex
from ultrafast_rag.index.lexical import LexicalIndex
from ultrafast_rag.index.store import Store
from ultrafast_rag.types import Chunk, PartCommit, Vectors

DIM = 16  # any: small, so that copies are cheap
WORDS = "harbour lamp tide keeper storm glass rope engine chart signal anchor beacon".split()


def rows_for(numbers: Sequence[int]) -> Vectors:
    """A vector a number, the same each time."""
    return np.stack([np.random.default_rng(number).standard_normal(DIM) for number in numbers]).astype(np.float32)


def source_of(number: int) -> str:
    """The path of a document."""
    return f"/home/someone/papers/{WORDS[number % len(WORDS)]}-{number}.pdf"


def add_document(store: Store, number: int, passages: int = 5, *, space: str = "text") -> list[int]:
    """A document of text passages, with vectors in this space, and one picture; returns the ids of its chunks."""
    about: dict[str, Any] = {"title": f"Paper {number}", "metadata": {"year": 2000 + number}}
    begun = store.begin(source_of(number), content_hash=f"hash {number}", stat=(100 + number, 5), **about)
    if begun.state == "unchanged":
        return []
    chunks = [
        Chunk(
            f"{WORDS[(number + n) % len(WORDS)]} {WORDS[(number * 3 + n) % len(WORDS)]} passage {n} of paper {number}",
            ordinal=n,
            page=n + 1,
            bbox=(1.0, 2.0, 3.0, 4.5),
            context=f"Paper {number} > Part {n}",
            metadata={"tags": [f"t{n}"]},
        )
        for n in range(passages)
    ]
    chunks.append(Chunk("a picture of it", "image", ordinal=passages, page=1, data=b"\x89PNG" + bytes([number % 256]) * 40))
    vectors = rows_for([1000 * number + n for n in range(passages)])
    made = PartCommit(begun.document_key, 0, chunks, {space: vectors}, {space: list(range(passages))}, total=1, final=True)
    return store.commit([made])[0]


def make_index(folder: Path, *, documents: int = 60) -> Path:
    """Documents x 5 passages, some deleted, FAISS and BM25 saved."""
    with Store.open(folder) as store:
        store.set_meta("config", {"text_model": "m", "cache_dir": "/home/someone/cache"})
        for number in range(documents):
            add_document(store, number)
        for number in range(0, documents, 7):
            store.delete(source_of(number))
        DenseIndex(store, "text", kind="sq8", folder=folder).build()
        LexicalIndex(store, folder=folder).save()
    return folder


def ask(folder: Path) -> list[object]:
    """Every field a user could see, for fixed questions by meaning, words and filter."""
    answers: list[object] = []
    with Store.open(folder) as store:
        dense, lexical = DenseIndex(store, "text", kind="sq8", folder=folder), LexicalIndex(store, folder=folder)
        answers.append(store.get_meta("config"))
        found = [dense.search(rows_for([number])[0], 5) for number in (1003, 17_001, 58_004)]
        found += [lexical.search(words, 5) for words in ("storm rope", "beacon passage 3", "picture")]
        for ids, scores in found:
            answers += [ids.tolist(), [round(float(score), 4) for score in scores], *store.chunks(ids.tolist())]
        for filters in ({"year": 2013}, {"tags": "t2"}, {"source": "lamp-*.pdf"}, {"page": [2, 3]}, {"modality": "image"}):
            answers.append(np.flatnonzero(store.allowed(filters)).tolist())
        for chunk in store.chunks(np.flatnonzero(store.alive())[:6].tolist()):
            answers += [chunk, store.neighbours(chunk), store.asset(chunk.asset) if chunk.asset else None]
        answers += [store.documents(), store.spaces(), store.counts()]
    return answers


def copy_of(index: Path, target: Path) -> Path:
    """A fresh copy in `target`."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(index, target, symlinks=True)
    return target


def tried(trial: Callable[[], bool]) -> str:
    """What came of it: "whole", "wrong", "refused" by an error of ours, or "raw: " and any other error."""
    try:
        return "whole" if trial() else "wrong"
    except UltraFastRAGError:
        return "refused"
    except Exception as error:  # what this benchmark is there to find
        return f"raw: {type(error).__name__}: {error}"
