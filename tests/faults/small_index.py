"""A small index with everything in it, made in milliseconds, and the questions that tell whether it still answers right."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ultrafast_rag.index.dense import DenseIndex
from ultrafast_rag.index.lexical import LexicalIndex
from ultrafast_rag.index.store import PartCommit, Store
from ultrafast_rag.types import Chunk

DIM = 16
WORDS = "harbour lamp tide keeper storm glass rope engine chart signal anchor beacon".split()


def rows_for(numbers: Sequence[int]) -> np.ndarray:
    return np.stack([np.random.default_rng(number).standard_normal(DIM) for number in numbers]).astype(np.float32)


def add_document(store: Store, number: int, passages: int = 5, **more) -> list[int]:
    """A document of text passages and one picture."""
    name = f"/home/someone/papers/{WORDS[number % len(WORDS)]}-{number}.pdf"
    begun = store.begin(
        name, content_hash=f"hash {number}", stat=(100 + number, 5), title=f"Paper {number}", metadata={"year": 2000 + number}
    )
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
    made = PartCommit(begun.document_key, 0, chunks, {"text": vectors}, {"text": list(range(passages))}, total=1, final=True)
    return store.commit([made])[0]


def make_index(folder: Path, *, documents: int = 60, kind: str = "sq8") -> Path:
    """documents x 5 passages, some deleted, FAISS and BM25 saved."""
    with Store.open(folder) as store:
        store.set_meta("config", {"text_model": "m", "cache_dir": "/home/someone/cache"})
        for number in range(documents):
            add_document(store, number)
        for number in range(0, documents, 7):
            store.delete(f"/home/someone/papers/{WORDS[number % len(WORDS)]}-{number}.pdf")
        DenseIndex(store, "text", kind=kind, folder=folder).build()
        LexicalIndex(store, folder=folder).save()
    return folder


def ask(folder: Path, *, kind: str = "sq8") -> list[object]:
    """Every field a user could see, for fixed questions by meaning, words and filter."""
    answers: list[object] = []
    with Store.open(folder) as store:
        dense, lexical = DenseIndex(store, "text", kind=kind, folder=folder), LexicalIndex(store, folder=folder)
        answers.append(store.get_meta("config"))
        for number in (1003, 17_001, 58_004):
            found = dense.search(rows_for([number])[0], 5)
            answers += [
                found.chunk_ids.tolist(),
                [round(float(score), 5) for score in found.scores],
                store.chunks(found.chunk_ids),
            ]
        for words in ("storm rope", "beacon passage 3", "picture"):
            found = lexical.search(words, 5)
            answers += [
                found.chunk_ids.tolist(),
                [round(float(score), 4) for score in found.scores],
                store.chunks(found.chunk_ids),
            ]
        for filters in ({"year": 2013}, {"tags": "t2"}, {"source": "lamp-*.pdf"}, {"page": [2, 3]}, {"modality": "image"}):
            answers.append(np.flatnonzero(store.allowed(filters)).tolist())
        for chunk in store.chunks(np.flatnonzero(store.alive())[:6].tolist()):
            answers += [chunk, store.neighbours(chunk), store.asset(chunk.asset) if chunk.asset else None]
        answers += [store.documents(), store.spaces(), store.counts()]
    return answers


def copy_of(index: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(index, target, symlinks=True)
    return target


def change(index: Path, sql: str, *values: object) -> None:
    """Alter the database as a stranger could."""
    connection = sqlite3.connect(index / "index.sqlite")
    with connection:
        connection.execute("PRAGMA writable_schema = 1")
        connection.execute(sql, values)
    connection.close()
