"""What an index survives: damaged files, a disk that refuses the n-th write, kills, a crowd, hostile files.

Every trial works on a copy of one small index with vectors, FAISS and BM25 files, and asks it fixed questions. A
trial passes when the answers are those of the whole index, or the error is one of ours; "wrong" and "raw" must be 0.
`fuzz.py` has the files that are read, `crowd.py` the processes that work at once.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import json
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.bench.result import FOLDER, Result, say
from ultrafast_rag.errors import UltraFastRAGError, require
from ultrafast_rag.index import ann, upkeep
from ultrafast_rag.index import archive as archive_files
from ultrafast_rag.index import lexical as lexical_files
from ultrafast_rag.index.archive import export_archive, restore_archive
from ultrafast_rag.index.dense import DenseIndex
from ultrafast_rag.index.embedding_cache import EmbeddingCache, content_key
from ultrafast_rag.index.lexical import LexicalIndex
from ultrafast_rag.index.store import Store
from ultrafast_rag.index.vectors import VectorFile
from ultrafast_rag.models.text import openvino
from ultrafast_rag.types import Chunk, PartCommit, Table, Vectors

DIM = 16
WORDS = "harbour lamp tide keeper storm glass rope engine chart signal anchor beacon".split()
OPERATIONS = ("write", "fsync", "replace", "ftruncate")


FAULTS = ("mutations", "refused", "kills", "crowd", "files")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How long to go on, and with what."""
    parser.add_argument("--long", action="store_true", help="2 000 mutations, every n-th write, 1 000 kills, 5 000 files, 300 s")
    parser.add_argument("--only", choices=FAULTS, action="append", help="only this; the record keeps its other rows")
    parser.add_argument("--seed", type=int, default=0, help="of whatever is drawn (default: 0)")
    parser.add_argument("--samples", type=Path, default=Path("data/samples"), help="files to damage (default: data/samples)")


def run(arguments: argparse.Namespace) -> Result:
    """One row a kind of fault."""
    from ultrafast_rag.bench import crowd, fuzz

    long, seed = arguments.long, arguments.seed
    trials: dict[str, tuple[str, Callable[[], Mapping[str, Any]]]] = {
        "mutations": ("a file of index, archive, cache or engine damaged", lambda: mutations(2000 if long else 100, seed)),
        "refused": ("the n-th write, fsync, rename or statement refused", lambda: refused_writes(None if long else 12)),
        "kills": ("killed: n-th operation, named point, any moment", lambda: kills(1000 if long else 60, seed)),
        "crowd": ("4 processes of 4 threads at once", lambda: crowd.run(300 if long else 10, seed)),
        "files": ("a damaged file is read", lambda: fuzz.files(5000 if long else 100, seed, samples=arguments.samples)),
    }
    rows, details = _recorded(arguments)
    for key in arguments.only or FAULTS:
        name, trial = trials[key]
        say(name)
        start = time.perf_counter()
        found = trial()
        count = found.get("trials", sum(value for value in found.values() if isinstance(value, int)))
        made = {"seed": seed, "date": datetime.now(UTC).date().isoformat(), "load": round(os.getloadavg()[0], 1)}
        details[name] = {part: value for part, value in found.items() if isinstance(value, dict)}
        plain = {part: value for part, value in found.items() if not isinstance(value, dict)}
        rows[name] = {"fault": name, "trials": count, **plain, **made, "seconds": round(time.perf_counter() - start, 1)}
    note = "none may be wrong, raw, lost, doubled or hung; with 0 of n, the rate is below 3/n at 95 % (rule of three)"
    table = Table(rows.values(), "Faults", notes=(note, "load: of the machine when it was run; seconds are to be read with it"))
    return Result(table, {"long": long, "details": {name: about for name, about in details.items() if about}})


def _recorded(arguments: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """With --only: the rows that the record holds already, and their details."""
    path = getattr(arguments, "out", None) or FOLDER / "faults.json"
    if not arguments.only or not path.exists():
        return {}, {}
    record = json.loads(path.read_text(encoding="utf-8"))
    return {row["fault"]: row for row in record["rows"]}, dict(record.get("details", {}))


# ---- an index to damage


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
        engine = _made_engine(Path(scratch, "engine"))
        files = [path for path in sorted(index.iterdir()) if path.name != "writer.lock"] + [archive, cache, *engine.iterdir()]
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
    if path.parent.name == "engine":
        copy_of(path.parent, trial)
        (trial / path.name).write_bytes(content)
        return _engine_is_right(path.parent, trial)
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


def _made_engine(folder: Path) -> Path:
    """A converted model as the engine cache keeps one; its bytes are any."""
    (made := folder.with_name("made")).mkdir()
    (made / "model.xml").write_bytes(random.Random(0).randbytes(5_000))
    (made / "model.bin").write_bytes(random.Random(1).randbytes(200_000))
    (made / "about.json").write_text(json.dumps({"dim": 384, "max_tokens": 256, "torch_share": 0.4}))
    openvino.seal(made, folder)
    return folder


def _engine_is_right(whole: Path, trial: Path) -> bool:
    """What would be loaded is what was made; a damaged one is made again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        stated = openvino.manifest(trial)
    if stated is None:
        return True
    return stated == openvino.manifest(whole) and all(
        (trial / name).read_bytes() == (whole / name).read_bytes() for name in openvino.FILES
    )


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
            outcome = _tried(lambda n=n: _work_refused(trial, n, (errno.ENOSPC, errno.EIO)[n % 2]))  # type: ignore[misc]
            again = _tried(lambda: _worked(trial))
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

    What it had told of must be there, nothing twice, nothing of the half-done; then the same work succeeds. recovery_ms: to
    open, verify that nothing told is lost, and be ready to write. wrong: what failed is described there.
    """
    outcomes, points = Counter[str]({"whole": 0, "wrong": 0, "raw": 0}), Counter[str]()
    took: list[float] = []
    chance = random.Random(seed)
    require("faiss", package="faiss-cpu").omp_set_num_threads(1)  # its threads do not outlive a fork
    with tempfile.TemporaryDirectory(prefix="ufr-faults-") as scratch:
        index, trial = make_index(Path(scratch, "index")), Path(scratch, "trial")
        start = time.perf_counter()
        total = _operations(copy_of(index, trial))
        seconds = time.perf_counter() - start
        before = state_of(copy_of(index, trial))
        for number in range(count):
            copy_of(index, trial)
            kind = number % 3
            point = sorted(POINTS)[number // 3 % len(POINTS)]
            end: Callable[[], contextlib.AbstractContextManager[None]]
            if kind == 0:
                end = functools.partial(_ends_at_operation, number * total // count)
            elif kind == 1:
                end = functools.partial(_ends_at_point, point, chance.randrange(3))
            else:
                end = contextlib.nullcontext
            told = _killed(trial, end, after_s=chance.uniform(0, seconds) if kind == 2 else None)
            outcome = _tried(lambda told=told: _is_sound(trial, before, told, took))  # type: ignore[misc]
            outcomes[("wrong" if outcome == "refused" else outcome).split(":")[0]] += 1
            points[("operation", point, "moment")[kind]] += 1
            if wrong is not None and outcome != "whole":
                wrong.append(f"{number} {('operation', point, 'moment')[kind]}: {outcome}")
    p50, p99 = (round(float(np.percentile(took, share)), 1) for share in (50, 99))
    bound = round(3 / count, 5)
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


def _ends_at_operation(n: int) -> contextlib.AbstractContextManager[None]:
    left = [n]

    def end(_: str) -> None:
        left[0] -= 1
        if left[0] == -1:
            os.kill(os.getpid(), signal.SIGKILL)

    return watched(end)


@contextlib.contextmanager
def _ends_at_point(name: str, n: int) -> Iterator[None]:
    """Kill this process where it passes a point for the n-th time, or the last time it does."""
    owner, function, when = POINTS[name]
    passed = [0]

    def end() -> None:
        passed[0] += 1
        if passed[0] > n:
            os.kill(os.getpid(), signal.SIGKILL)

    if owner is None:
        with watched(lambda operation: end() if operation == function else None):
            yield
        return
    real = getattr(owner, function)

    def around(*arguments: Any, **options: Any) -> Any:
        if when == "before":
            end()
        result = real(*arguments, **options)
        if when == "after":
            end()
        return result

    setattr(owner, function, around)
    yield  # in a process of its own: nothing is put back


def _killed(folder: Path, ending: Callable[[], contextlib.AbstractContextManager[None]], *, after_s: float | None) -> set[str]:
    """Fork, work, and end there, or after so long; returns the sources it had told of by then."""
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
    os.waitpid(child, 0)
    sys.stderr.flush()
    return {source_of(number) for number in numbers}
