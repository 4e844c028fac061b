"""What an index survives: damaged files, a disk that refuses the n-th write, kills, a crowd, hostile files.

Every trial works on a copy of one small index with vectors, FAISS and BM25 files, and asks it fixed questions. A
trial passes when the answers are those of the whole index, or the error is one of ours; "wrong" and "raw" must be 0.
`fuzz.py` has the files that are read, `crowd.py` the processes that work at once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.bench.kills import kills, refused_writes
from ultrafast_rag.bench.result import FOLDER, Result, say
from ultrafast_rag.bench.trials import DIM, ask, copy_of, make_index, rows_for, tried
from ultrafast_rag.index.archive import export_archive, restore_archive
from ultrafast_rag.index.embedding_cache import EmbeddingCache, content_key
from ultrafast_rag.index.store import Store
from ultrafast_rag.models.text import openvino
from ultrafast_rag.types import Table

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
    notes: tuple[str, ...] = (note, "load: of the machine when it was run; seconds are to be read with it")
    if arguments.only:
        notes += ("each row is of its own run with --only",)
    table = Table(rows.values(), "Faults", notes=notes)
    return Result(table, {"long": long, "details": {name: about for name, about in details.items() if about}})


def _recorded(arguments: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """With --only: the rows that the record holds already, and their details."""
    path = getattr(arguments, "out", None) or FOLDER / "faults.json"
    if not arguments.only or not path.exists():
        return {}, {}
    record = json.loads(path.read_text(encoding="utf-8"))
    return {row["fault"]: row for row in record["rows"]}, dict(record.get("details", {}))


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
            outcome = tried(lambda path=path, content=content: _ask_damaged(path, content, index, trial, cache, truth))  # type: ignore[misc]
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
