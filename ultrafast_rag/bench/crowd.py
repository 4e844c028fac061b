"""Several processes of several threads at one index: searching, adding, replacing, deleting, refining, exporting, all at once.

Each thread keeps a ledger of what it was told is committed. At the end the index must hold exactly that; on the way no
reader may see half of a document, or one version's passage under another's name, and nobody may wait for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.errors import IndexLockedError, UltraFastRAGError
from ultrafast_rag.files import write_whole
from ultrafast_rag.index.archive import export_archive, restore_archive
from ultrafast_rag.index.dense import DenseIndex
from ultrafast_rag.index.lexical import LexicalIndex
from ultrafast_rag.index.store import Store
from ultrafast_rag.types import Chunk, PartCommit

PROCESSES, THREADS = 4, 4  # chosen: more than two cores can run, so that they wait for one another
PASSAGES = 5  # of a document, with a picture more
PATIENCE_S = 120.0  # beyond the time given: whoever still works then is taken to wait for ever
_DIM = 16  # any
STATIC = "static"  # the space of the vectors that come first


def run(seconds: float, seed: int) -> dict[str, Any]:
    """Let them work for so long. Returns trials (operations), lost, doubled, torn, raw, hung, and how often each was done."""
    with tempfile.TemporaryDirectory(prefix="ufr-crowd-") as scratch:
        folder = Path(scratch, "index")
        with Store.open(folder) as store:
            for number in range(20):
                _put(store, number, 0)
        children = [_started(folder, Path(scratch), process, seconds, seed) for process in range(PROCESSES)]
        hung = sum(not _ended(child, time.monotonic() + seconds + PATIENCE_S) for child in children)
        ledgers = [json.loads(path.read_text()) for path in sorted(Path(scratch).glob("ledger-*.json"))]
        done, kept = Counter[str](), dict.fromkeys(map(str, range(20)), 0)
        for ledger in ledgers:
            done.update(ledger["done"])
            kept |= ledger["kept"]
        with Store.open(folder) as store:
            found = [(document.source, document.title) for document in store.documents() if document.complete]
            while _refine(store):
                pass
            problems = store.verify() + _wrong_vectors(store)
        there = dict(found)
        expected = {_source(int(number)): f"version {version}" for number, version in kept.items() if version is not None}
    lost = sum(there.get(source) != title for source, title in expected.items()) + len(problems)
    torn, raw = done.pop("torn", 0), done.pop("raw", 0) + (PROCESSES - hung - len(ledgers))
    counts = {"lost": lost, "doubled": len(found) - len(there) + len(there.keys() - expected.keys()), "torn": torn, "raw": raw}
    return {"trials": done.total(), **counts, "hung": hung, "done": dict(sorted(done.items()))}


def _started(folder: Path, scratch: Path, process: int, seconds: float, seed: int) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            _process(folder, scratch, process, seconds, seed)
            code = 0
        os._exit(code)
    return child


def _ended(child: int, deadline: float) -> bool:
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


def _process(folder: Path, scratch: Path, process: int, seconds: float, seed: int) -> None:
    """Threads share a store, which is opened anew every second or so: the writer's lock goes round."""
    done, kept = Counter[str](), dict[str, int | None]()
    deadline, guard, turn = time.monotonic() + seconds, threading.Lock(), 0
    while time.monotonic() < deadline:
        turn += 1
        with contextlib.suppress(UltraFastRAGError), Store.open(folder) as store:
            ends = min(deadline, time.monotonic() + 1)
            work = [
                threading.Thread(
                    target=_thread,
                    args=(
                        store,
                        process * THREADS + thread,
                        random.Random(f"{seed} {process} {thread} {turn}"),
                        ends,
                        done,
                        kept,
                        guard,
                    ),
                )
                for thread in range(THREADS)
            ]
            for one in work:
                one.start()
            for one in work:
                one.join()
    write_whole(scratch, f"ledger-{process}.json", [json.dumps({"done": done, "kept": kept}).encode()])


def _thread(
    store: Store,
    me: int,
    chance: random.Random,
    ends: float,
    done: Counter[str],
    kept: dict[str, int | None],
    guard: threading.Lock,
) -> None:
    """Operations on documents of its own numbers, and questions about all."""
    legs = DenseIndex(store, "text", kind="exact"), DenseIndex(store, STATIC, kind="exact"), LexicalIndex(store)
    while time.monotonic() < ends:
        number = 1000 * (me + 1) + chance.randrange(12)
        kind = chance.choice(("search", "search", "search", "put", "put", "delete", "refine", "export", "compact", "list"))
        try:
            torn = _operation(kind, store, legs, number, chance, kept, guard)
        except IndexLockedError:
            kind, torn = "locked", 0
        except Exception as error:  # what this is there to find
            kind, torn = "raw", 0
            os.write(2, f"{kind} {type(error).__name__}: {error}\n".encode())
        with guard:
            done[kind] += 1
            done["torn"] += torn


def _operation(
    kind: str, store: Store, legs: tuple[DenseIndex, DenseIndex, LexicalIndex], number: int, chance: random.Random,
    kept: dict[str, int | None], guard: threading.Lock,
) -> int:  # fmt: skip
    """Do one thing; returns how many torn reads it saw."""
    name = str(number)
    if kind == "put":
        version = (kept.get(name) or 0) + 1
        _put(store, number, version)
        with guard:
            kept[name] = version
    elif kind == "delete":
        store.delete(_source(number))
        with guard:
            kept[name] = None
    elif kind == "export":
        with tempfile.TemporaryDirectory() as scratch:
            archive = export_archive(store, Path(scratch, "a.tar"))
            with Store.open(restore_archive(archive, Path(scratch, "r"))) as copy:
                return len(copy.verify()) + _torn(copy, np.flatnonzero(copy.alive()).tolist())
    elif kind == "refine":
        _refine(store)
    elif kind == "compact":
        store.compact(above=0.3)
    elif kind == "list":
        return sum(document.complete and document.chunks != PASSAGES for document in store.documents())
    else:
        dense, static, lexical = legs
        vector = _vectors(chance.randrange(20_000))[0]
        found = dense.search(vector, 5), static.search(vector, 5), lexical.search(f"lamp {chance.randrange(20)}", 5)
        return sum(_torn(store, ids.tolist()) for ids, _ in found)
    return 0


def _torn(store: Store, chunk_ids: list[int]) -> int:
    """Passages that do not belong to the document they come with."""
    return sum(
        f"lamp {chunk.source.rsplit('-', 1)[-1]} {chunk.context}" not in chunk.text or not chunk.text.endswith(str(chunk.ordinal))
        for chunk in store.chunks(chunk_ids)
    )


def _put(store: Store, number: int, version: int) -> None:
    begun = store.begin(_source(number), content_hash=f"{number} {version}", title=f"version {version}")
    if begun.state == "unchanged":
        return
    passages = range(begun.next_part, PASSAGES)
    for n in passages:
        chunk = Chunk(f"lamp {number} version {version} passage {n}", ordinal=n, page=n + 1, context=f"version {version}")
        vectors = {STATIC: _vectors(number * 10 + n)}
        store.commit([PartCommit(begun.document_key, n, [chunk], vectors, {STATIC: [0]}, final=n == PASSAGES - 1)])


def _refine(store: Store) -> bool:
    """Give the next passages their text vectors, as `ingest.refine` does; False when there are none."""
    passages = store.passages_without("text", 16)
    if passages:
        true = np.concatenate([_true_vector(passage.text) for passage in passages])
        store.add_vectors("text", [passage.id for passage in passages], true)
        store.drop_vectors(STATIC, up_to=store.last_with("text"))
    return bool(passages)


def _true_vector(text: str) -> Any:
    _, number, _, _, _, n = text.split()
    return _vectors(int(number) * 10 + int(n))


def _wrong_vectors(store: Store) -> list[str]:
    """Passages without the vector that is theirs."""
    alive = np.flatnonzero(store.alive()).tolist()
    held = store.vectors("text")
    row_of = {number: row for row, number in enumerate(held.chunk_ids.tolist())}
    vectors = held.take(slice(None))
    wrong = []
    for number, chunk in zip(alive, store.chunks(alive)):
        true = _true_vector(chunk.text)[0]
        if number not in row_of or vectors[row_of[number]] @ true < 0.999 * np.linalg.norm(true):  # half precision
            wrong.append(f"passage {number} has no vector, or another's")
    return wrong


def _vectors(number: int) -> Any:
    return np.random.default_rng(number).standard_normal((1, _DIM)).astype(np.float32)


def _source(number: int) -> str:
    return f"/documents/lamp-{number}"
