"""What an index survives: damaged files, a disk that refuses the n-th write, a kill at the n-th.

Every trial works on a copy of one small index with vectors, FAISS and BM25 files, and asks it fixed questions. A
trial passes when the answers are those of the whole index, or the error is one of ours; "wrong" and "raw" must be 0.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.errors import UltraFastRAGError
from ultrafast_rag.index.archive import export_archive, restore_archive
from ultrafast_rag.index.dense import DenseIndex
from ultrafast_rag.index.embedding_cache import EmbeddingCache, content_key
from ultrafast_rag.index.lexical import LexicalIndex
from ultrafast_rag.index.store import Store
from ultrafast_rag.types import Chunk, PartCommit, Table, Vectors

DIM = 16
WORDS = "harbour lamp tide keeper storm glass rope engine chart signal anchor beacon".split()
FULL = 28  # ENOSPC
OPERATIONS = ("write", "fsync", "replace", "ftruncate")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How long to go on."""
    parser.add_argument("--long", action="store_true", help="2 000 mutations and 1 000 kills instead of 100 and 60")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default: 0)")


def run(arguments: argparse.Namespace) -> Result:
    """One row a kind of fault."""
    rows = []
    trials: Callable[[], Counter[str]]
    for name, trials in (
        ("mutation of one file", lambda: mutations(2000 if arguments.long else 100, arguments.seed)),
        ("n-th write refused", lambda: refused_writes(None if arguments.long else 12)),
        ("killed at the n-th write", lambda: kills(1000 if arguments.long else 60)),
    ):
        say(name)
        start = time.perf_counter()
        found = trials()
        rows.append({"fault": name, "trials": found.total(), **found, "seconds": round(time.perf_counter() - start, 1)})
    table = Table(rows, "Faults", notes=("none may be wrong or raw; with 0 of n, the rate is below 3/n at 95 %",))
    return Result(table, {"seed": arguments.seed, "long": arguments.long})


# ---- an index to damage


def rows_for(numbers: Sequence[int]) -> Vectors:
    """A vector a number, the same each time."""
    return np.stack([np.random.default_rng(number).standard_normal(DIM) for number in numbers]).astype(np.float32)


def source_of(number: int) -> str:
    """The path of a document."""
    return f"/home/someone/papers/{WORDS[number % len(WORDS)]}-{number}.pdf"


def add_document(store: Store, number: int, passages: int = 5) -> list[int]:
    """A document of text passages and one picture; returns the ids of its chunks."""
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
    made = PartCommit(begun.document_key, 0, chunks, {"text": vectors}, {"text": list(range(passages))}, total=1, final=True)
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


# ---- damaged files


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Content with one bit, byte, stretch or length changed."""
    at = chance.randrange(max(len(content), 1))
    length = min(chance.choice((1, 4, 64, 4096)), max(len(content) - at, 1))
    kind = chance.choice(("bit", "bit", "bit", "byte", "random", "zero", "cut", "more", "swap"))
    changed = bytearray(content or b"\0")
    if kind == "bit":
        changed[at] ^= 1 << chance.randrange(8)
    elif kind == "byte":
        changed[at] = chance.randrange(256)
    elif kind in ("random", "zero"):
        changed[at : at + length] = chance.randbytes(length) if kind == "random" else bytes(length)
    elif kind == "cut":
        del changed[at:]
    elif kind == "more":
        changed += chance.randbytes(length)
    else:
        other = chance.randrange(len(changed))
        changed[at], changed[other] = changed[other], changed[at]
    return bytes(changed)


def mutations(count: int, seed: int, *, wrong: list[str] | None = None) -> Counter[str]:
    """Change one file of index, archive or embedding cache, and ask. wrong: what failed is described there."""
    chance, outcomes = random.Random(seed), Counter[str]({"whole": 0, "refused": 0, "wrong": 0, "raw": 0})
    with tempfile.TemporaryDirectory(prefix="ufr-faults-") as scratch:
        index, trial = make_index(Path(scratch, "index")), Path(scratch, "trial")
        truth = ask(copy_of(index, trial))
        with Store.open(index) as store:
            archive = export_archive(store, Path(scratch, "index.tar"), paths=True)
        cache = _filled_cache(Path(scratch, "cache"))
        files = [path for path in sorted(index.iterdir()) if path.name != "writer.lock"] + [archive, cache]
        for number in range(count):
            path = chance.choice(files)
            content = damaged(path.read_bytes(), chance)
            outcome = _tried(lambda path=path, content=content: _ask_damaged(path, content, index, trial, cache, truth))  # type: ignore[misc]
            outcomes[outcome.split(":")[0]] += 1
            if wrong is not None and outcome.split(":")[0] in ("wrong", "raw"):
                wrong.append(f"{number} {path.name}: {outcome}")
    return outcomes


def _ask_damaged(path: Path, content: bytes, index: Path, trial: Path, cache: Path, truth: list[object]) -> bool:
    shutil.rmtree(trial, ignore_errors=True)
    if path == cache:
        trial.mkdir()
        (trial / cache.name).write_bytes(content)
        return _cache_is_right(trial)
    if path.suffix == ".tar":
        trial.with_suffix(".tar").write_bytes(content)
        restore_archive(trial.with_suffix(".tar"), trial)
        return ask(trial) == truth
    copy_of(index, trial)
    (trial / path.name).write_bytes(content)
    return ask(trial) == truth


def _filled_cache(folder: Path) -> Path:
    cache = EmbeddingCache(folder, size_gb=1)
    cache.put_many("m", [content_key(str(n)) for n in range(200)], rows_for(range(200)))
    cache.close()
    return folder / "cache.db"


def _cache_is_right(folder: Path) -> bool:
    """Every vector that the cache still gives is the one that was put there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        cache = EmbeddingCache(folder, size_gb=1)
        got = cache.get_many("m", [content_key(str(n)) for n in range(200)])
        cache.close()
    true = rows_for(range(200))
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    return all(vector is None or (len(vector) == DIM and float(vector @ row) > 0.999) for vector, row in zip(got, true))


def _tried(trial: Callable[[], bool]) -> str:
    try:
        return "whole" if trial() else "wrong"
    except UltraFastRAGError:
        return "refused"
    except Exception as error:  # what this benchmark is there to find
        return f"raw: {type(error).__name__}: {error}"


# ---- a disk that refuses, a process that is killed


class _Counted(sqlite3.Connection):
    """A connection whose writing statements count as operations."""

    on_statement: Callable[[str], None] = staticmethod(lambda _: None)

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if sql.split(maxsplit=1)[:1] and sql.split(maxsplit=1)[0] in ("BEGIN", "COMMIT", "INSERT", "UPDATE", "DELETE"):
            type(self).on_statement(sql)
        return super().execute(sql, *values)


@contextlib.contextmanager
def watched(on_operation: Callable[[str], None]) -> Iterator[None]:
    """Call `on_operation` with the name of each write, fsync, rename, cut and statement of this process, before it is done."""
    real = {name: getattr(os, name) for name in OPERATIONS}
    connect = sqlite3.connect

    def around(name: str) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            on_operation(name)
            return real[name](*arguments, **options)

        return operation

    counted = type("Counted", (_Counted,), {"on_statement": staticmethod(lambda sql: on_operation(sql.split(maxsplit=1)[0]))})
    try:
        for name in OPERATIONS:
            setattr(os, name, around(name))
        sqlite3.connect = lambda *arguments, **options: connect(*arguments, factory=counted, **options)
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)
        sqlite3.connect = connect


def work(folder: Path, told: Callable[[int], None] = lambda _: None) -> None:
    """What a session does: add, replace, delete, compact, save, export. told: called with each document once committed."""
    with Store.open(folder) as store:
        for number in (200, 201):
            add_document(store, number)
            told(number)
        store.delete(source_of(1))
        store.compact(above=0.0)
        add_document(store, 202)
        told(202)
        LexicalIndex(store, folder=folder).save()
        export_archive(store, folder.parent / "out.tar")


def state_of(folder: Path) -> set[str]:
    """The documents of an index whose every sum is right; UltraFastRAGError when one is not."""
    with Store.open(folder) as store:
        if found := store.verify():
            raise UltraFastRAGError("; ".join(found))
        alive = np.flatnonzero(store.alive()).tolist()
        chunks = store.chunks(alive)
        whole = len(chunks) == len(alive) == sum(document.chunks for document in store.documents())
        vectors = np.isin(store.vectors("text").chunk_ids, alive).sum()
        if not whole or vectors != sum(chunk.modality == "text" for chunk in chunks):
            raise UltraFastRAGError("passages without vectors, or vectors without passages")
        return {document.source for document in store.documents() if document.complete}


def refused_writes(most: int | None) -> Counter[str]:
    """Let the n-th operation fail for a full disk, for every n until none is left (or `most` of them); then go on."""
    outcomes = Counter[str]({"whole": 0, "refused": 0, "wrong": 0, "raw": 0})
    with tempfile.TemporaryDirectory(prefix="ufr-faults-") as scratch:
        index, trial = make_index(Path(scratch, "index")), Path(scratch, "trial")
        total = _operations(copy_of(index, trial))
        step = max(1, total // most) if most else 1
        for n in range(0, total, step):
            copy_of(index, trial)
            outcome = _tried(lambda n=n: _work_refused(trial, n))  # type: ignore[misc]
            again = _tried(lambda: _worked(trial))
            outcomes[(outcome if again == "whole" else "wrong").split(":")[0]] += 1
    return outcomes


def _worked(folder: Path) -> bool:
    work(folder)
    return source_of(202) in state_of(folder)


def _operations(folder: Path) -> int:
    seen: list[str] = []
    with watched(seen.append):
        work(folder)
    return len(seen)


def _work_refused(folder: Path, n: int) -> bool:
    left = [n]

    def refuse(name: str) -> None:
        left[0] -= 1
        if left[0] == -1:
            if name in OPERATIONS:
                raise OSError(FULL, "No space left on device")
            raise sqlite3.OperationalError("database or disk is full")

    with watched(refuse):
        work(folder)
    return True


def kills(count: int) -> Counter[str]:
    """End a process by SIGKILL before its n-th operation, n spread over all of them; what it had told must be there."""
    outcomes = Counter[str]({"whole": 0, "wrong": 0, "raw": 0})
    with tempfile.TemporaryDirectory(prefix="ufr-faults-") as scratch:
        index, trial = make_index(Path(scratch, "index")), Path(scratch, "trial")
        total = _operations(copy_of(index, trial))
        before = state_of(copy_of(index, trial))
        for number in range(count):
            copy_of(index, trial)
            told = _killed(trial, number * total // count)
            outcome = _tried(lambda told=told: _is_sound(trial, before, told))  # type: ignore[misc]
            outcomes[("wrong" if outcome == "refused" else outcome).split(":")[0]] += 1
    return outcomes


def _is_sound(folder: Path, before: set[str], told: set[str]) -> bool:
    """Nothing told is lost, nothing else is there but what was, or what the killed process had just committed."""
    now = state_of(folder)
    mine = {source_of(number) for number in (200, 201, 202)}
    return told <= now and before - {source_of(1)} <= now and now <= before | mine


def _killed(folder: Path, n: int) -> set[str]:
    """Fork, work, and end before operation n; returns the sources it had told of by then."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        left, write = [n], os.write

        def tell(number: int) -> None:
            write(writer, f"{number}\n".encode())

        def end(_: str) -> None:
            left[0] -= 1
            if left[0] == -1:
                os.kill(os.getpid(), signal.SIGKILL)

        with contextlib.suppress(BaseException), watched(end):
            work(folder, tell)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        numbers = [int(line) for line in told if line.endswith("\n")]
    os.waitpid(child, 0)
    sys.stderr.flush()
    return {source_of(number) for number in numbers}
