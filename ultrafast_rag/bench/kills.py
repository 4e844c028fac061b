"""A disk that refuses the n-th write, a process killed before it, at a named point or at any moment."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.bench.trials import add_document, copy_of, make_index, rows_for, source_of, tried
from ultrafast_rag.errors import UltraFastRAGError, require
from ultrafast_rag.index import ann, upkeep
from ultrafast_rag.index import archive as archive_files
from ultrafast_rag.index import lexical as lexical_files
from ultrafast_rag.index.archive import export_archive
from ultrafast_rag.index.dense import DenseIndex
from ultrafast_rag.index.lexical import LexicalIndex
from ultrafast_rag.index.store import Store
from ultrafast_rag.index.vectors import VectorFile
from ultrafast_rag.types import Chunk, Vectors

OPERATIONS = ("write", "fsync", "replace", "ftruncate")


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


def refine(store: Store) -> None:
    """Give what has only static vectors its text vectors, three passages a commit, as `ingest.refine` does."""
    while passages := store.passages_without("text", 3):
        ids = [passage.id for passage in passages]
        store.add_vectors("text", ids, true_rows(store.chunks(ids)))
    store.drop_vectors("static", up_to=store.last_with("text"))


def true_rows(chunks: Sequence[Chunk]) -> Vectors:
    """The text vectors that these passages must have, told by what they are."""
    return rows_for([1000 * int(chunk.source.rsplit("-", 1)[-1].removesuffix(".pdf")) + chunk.ordinal for chunk in chunks])


def work(folder: Path, told: Callable[[int], None] = lambda _: None) -> None:
    """What a session does: add, delete, compact, refine, save, export. told: called with each document once committed."""
    with Store.open(folder) as store:
        for number in (200, 201):
            add_document(store, number)
            told(number)
        store.delete(source_of(1))
        store.compact(above=0.0)
        add_document(store, 202)
        told(202)
        add_document(store, 203, space="static")
        told(203)
        refine(store)
        DenseIndex(store, "text", kind="sq8", folder=folder).build()
        LexicalIndex(store, folder=folder).save()
        export_archive(store, folder.parent / "out.tar")


def state_of(folder: Path) -> set[str]:
    """The documents of an index whose every sum is right; UltraFastRAGError when one is not."""
    with Store.open(folder) as store:
        if found := store.verify():
            raise UltraFastRAGError("; ".join(found))
        alive = np.flatnonzero(store.alive()).tolist()
        chunks = store.chunks(alive)
        documents = store.documents()
        whole = len(chunks) == len(alive) == sum(document.chunks for document in documents)
        whole = whole and len({document.source for document in documents}) == len(documents)
        whole = whole and all(document.chunks == 6 for document in documents if document.complete)
        held, last = store.vectors("text"), store.last_with("text")
        owned = set(held.chunk_ids.tolist())
        if not whole or not all(chunk.id in owned for chunk in chunks if chunk.modality == "text" and chunk.id <= last):
            raise UltraFastRAGError("passages without vectors, or half of a document")
        at = [n for n, number in enumerate(held.chunk_ids.tolist()) if store.alive()[number]]
        true = true_rows(store.chunks(held.chunk_ids[at].tolist()))
        cosines = (np.asarray(held.take(slice(None)))[at] * true).sum(1) / np.linalg.norm(true, axis=1)
        if len(at) and cosines.min() < 0.999:  # half precision
            raise UltraFastRAGError("a passage has another's vector")
        return {document.source for document in documents if document.complete}


def refused_writes(most: int | None, *, wrong: list[str] | None = None) -> Counter[str]:
    """Let the n-th operation fail, for a full disk and a broken one by turns, for every n (or `most` of them); then go on."""
    outcomes = Counter[str]({"whole": 0, "refused": 0, "wrong": 0, "raw": 0})
    with tempfile.TemporaryDirectory(prefix="ufr-faults-") as scratch:
        index, trial = make_index(Path(scratch, "index")), Path(scratch, "trial")
        total = _operations(copy_of(index, trial))
        step = max(1, total // most) if most else 1
        for n in range(0, total, step):
            copy_of(index, trial)
            outcome = tried(lambda n=n: _work_refused(trial, n, (errno.ENOSPC, errno.EIO)[n % 2]))  # type: ignore[misc]
            again = tried(lambda: _worked(trial))
            outcomes[(outcome if again == "whole" else "wrong").split(":")[0]] += 1
            if wrong is not None and (again != "whole" or outcome.startswith("raw")):
                wrong.append(f"{n}: {outcome}, then {again}")
    return outcomes


def _worked(folder: Path) -> bool:
    work(folder)
    return source_of(203) in state_of(folder) and _refined(folder)


def _refined(folder: Path) -> bool:
    with Store.open(folder, write=False) as store:
        return store.count_without("text") == 0 and not ("static" in store.spaces() and len(store.vectors("static").chunk_ids))


def _operations(folder: Path) -> int:
    seen: list[str] = []
    with watched(seen.append):
        work(folder)
    return len(seen)


def _work_refused(folder: Path, n: int, number: int) -> bool:
    left = [n]

    def refuse(name: str) -> None:
        left[0] -= 1
        if left[0] == -1:
            if name in OPERATIONS:
                raise OSError(number, os.strerror(number))
            raise sqlite3.OperationalError("database or disk is full" if number == errno.ENOSPC else "disk I/O error")

    with watched(refuse):
        work(folder)
    return True


def kills(count: int, seed: int = 0, *, wrong: list[str] | None = None) -> dict[str, Any]:
    """End a process by SIGKILL: before its n-th operation, at the named points, at any moment, by turns.

    What it had told of must be there, nothing twice, nothing of the half-done; then the same work succeeds. killed: how many
    did end so; a moment may come after the work's end. recovery_ms: to open, verify that nothing told is lost, and be ready
    to write. wrong: what failed is described there.
    """
    outcomes, points = Counter[str]({"killed": 0, "whole": 0, "wrong": 0, "raw": 0}), Counter[str]()
    took: list[float] = []
    chance = random.Random(seed)
    require("faiss", package="faiss-cpu").omp_set_num_threads(1)  # its threads do not outlive a fork
    with tempfile.TemporaryDirectory(prefix="ufr-faults-") as scratch:
        index, trial = make_index(Path(scratch, "index")), Path(scratch, "trial")
        start = time.perf_counter()
        total = _operations(copy_of(index, trial))
        seconds = time.perf_counter() - start
        before = state_of(copy_of(index, trial))
        passes = {name: _passes(copy_of(index, trial), name) for name in POINTS}
        for number in range(count):
            copy_of(index, trial)
            kind = number % 3
            point = sorted(POINTS)[number // 3 % len(POINTS)]
            end: Callable[[], contextlib.AbstractContextManager[None]]
            if kind == 0:
                end = functools.partial(_ends_at_operation, number * total // count)
            elif kind == 1:
                end = functools.partial(_ends_at_point, point, chance.randrange(_FIRST.get(point, 0), passes[point]))
            else:
                end = contextlib.nullcontext
            told, killed = _killed(trial, end, after_s=chance.uniform(0, seconds) if kind == 2 else None)
            outcomes["killed"] += killed
            outcome = tried(lambda told=told: _is_sound(trial, before, told, took))  # type: ignore[misc]
            outcomes[("wrong" if outcome == "refused" else outcome).split(":")[0]] += 1
            points[("operation", point, "moment")[kind]] += 1
            if wrong is not None and outcome != "whole":
                wrong.append(f"{number} {('operation', point, 'moment')[kind]}: {outcome}")
    p50, p99 = (round(float(np.percentile(took, share)), 1) for share in (50, 99))
    bound = round(3 / max(outcomes["killed"], 1), 5)
    return {
        "trials": count,
        **outcomes,
        "rate_below": bound,
        "recovery_p50_ms": p50,
        "recovery_p99_ms": p99,
        "points": dict(points),
    }


def _is_sound(folder: Path, before: set[str], told: set[str], took: list[float]) -> bool:
    """Nothing told is lost, nothing else is there but what was, or what the killed process had just committed."""
    start = time.perf_counter()
    with Store.open(folder) as store:
        store.set_meta("ready", True)
        there = {document.source for document in store.documents() if document.complete}
        took.append(1000 * (time.perf_counter() - start))
        named = {store.vectors(space).file for space in store.spaces()}
    orphans = [
        path.name for path in folder.iterdir() if path.suffix == ".partial" or (path.suffix == ".f16" and path.name not in named)
    ]
    now = state_of(folder)
    mine = {source_of(number) for number in (200, 201, 202, 203)}
    sound = told <= now == there and before - {source_of(1)} <= now and now <= before | mine and not orphans
    work(folder)
    return sound and state_of(folder) == (before | mine) - {source_of(1)} and _refined(folder)


# name -> the function that is left or entered there
POINTS: dict[str, tuple[Any, str, str]] = {
    "vectors written": (VectorFile, "append", "after"),
    "refined, not committed": (Store, "_append", "after"),
    "refined in part": (Store, "add_vectors", "after"),
    "FAISS file written, its manifest not": (ann, "write_manifest", "before"),
    "FAISS saved": (ann, "write_manifest", "after"),
    "words written, their manifest not": (lexical_files, "write_manifest", "before"),
    "compacted, not committed": (upkeep, "compact_space", "after"),
    "committed, not swept": (upkeep, "sweep", "before"),
    "archive half made": (archive_files, "_prepare", "after"),
    "before commit": (None, "COMMIT", "before"),
    "before a rename": (None, "replace", "before"),
    "before a sync": (None, "fsync", "before"),
}
_FIRST = {"refined, not committed": 4}  # passes of a point that are not its own: `work` adds four documents before it refines


def _ends_at_operation(n: int) -> contextlib.AbstractContextManager[None]:
    left = [n]

    def end(_: str) -> None:
        left[0] -= 1
        if left[0] == -1:
            os.kill(os.getpid(), signal.SIGKILL)

    return watched(end)


def _ends_at_point(name: str, n: int) -> contextlib.AbstractContextManager[None]:
    """Kill this process where it has passed a point n times and does again."""
    left = [n]

    def end() -> None:
        left[0] -= 1
        if left[0] == -1:
            os.kill(os.getpid(), signal.SIGKILL)

    return _told_of(name, end)


def _passes(folder: Path, name: str) -> int:
    """How often the work passes a point."""
    seen: list[None] = []
    with _told_of(name, lambda: seen.append(None)):
        work(folder)
    return len(seen)


@contextlib.contextmanager
def _told_of(name: str, told: Callable[[], None]) -> Iterator[None]:
    """Call `told` where a point is passed."""
    owner, function, when = POINTS[name]
    if owner is None:
        with watched(lambda operation: told() if operation == function else None):
            yield
        return
    real = getattr(owner, function)

    def around(*arguments: Any, **options: Any) -> Any:
        if when == "before":
            told()
        result = real(*arguments, **options)
        if when == "after":
            told()
        return result

    setattr(owner, function, around)
    try:
        yield
    finally:
        setattr(owner, function, real)


def _killed(
    folder: Path, ending: Callable[[], contextlib.AbstractContextManager[None]], *, after_s: float | None
) -> tuple[set[str], bool]:
    """Fork, work, and end there, or after so long; returns the sources it had told of by then, and whether it was killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        write = os.write

        def tell(number: int) -> None:
            write(writer, f"{number}\n".encode())

        with contextlib.suppress(BaseException), ending():
            work(folder, tell)
        os._exit(0)
    os.close(writer)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader) as told:
        numbers = [int(line) for line in told if line.endswith("\n")]
    _, status = os.waitpid(child, 0)
    sys.stderr.flush()
    return {source_of(number) for number in numbers}, os.WIFSIGNALED(status)
