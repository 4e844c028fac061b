"""The store: progress, replacement, durability under kill, disk full and damage."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ultrafast_rag.errors import ConfigError, EncodingError, IndexCorruptError, IndexLockedError, IndexStateError
from ultrafast_rag.index import upkeep
from ultrafast_rag.index.dense import DenseIndex
from ultrafast_rag.index.store import Store
from ultrafast_rag.index.vectors import row_sums
from ultrafast_rag.types import Chunk, PartCommit, Record

RNG = np.random.default_rng(0)


def unit(count: int, dim: int = 8) -> np.ndarray:
    rows = RNG.standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def part(key: int, number: int, texts: list[str], **more) -> PartCommit:
    chunks = [Chunk(text, ordinal=number * 100 + i) for i, text in enumerate(texts)]
    return PartCommit(key, number, chunks, {"text": unit(len(texts))}, {"text": list(range(len(texts)))}, **more)


def add(store: Store, source: str, texts: list[str], content: str = "v1") -> list[int]:
    progress = store.begin(source, content_hash=content, stat=(1, 2))
    return store.commit([part(progress.document_key, 0, texts, final=True)])[0]


def visible_texts(store: Store) -> list[str]:
    return [chunk.text for chunk in store.chunks(np.flatnonzero(store.alive()))]


@pytest.fixture
def store(tmp_path: Path):
    with Store.open(tmp_path / "index") as opened:
        yield opened


def test_chunks_come_back_as_they_went_in(store):
    progress = store.begin("a.pdf", content_hash="h", title="old", metadata={"author": "x"})
    picture = b"\xff\xd8 picture"
    chunk = Chunk(
        "größe 尺寸",
        "image",
        ordinal=3,
        context="Title > Section",
        page=2,
        bbox=(1.0, 2.0, 3.5, 4.0),
        start_s=1.5,
        end_s=2.5,
        data=picture,
        metadata={"tags": ["a"], "n": 1},
    )
    vectors = unit(2)
    made = PartCommit(progress.document_key, 0, [chunk], {"clip": vectors}, {"clip": [0, 0]}, title="T", total=3)
    number = store.commit([made])[0][0]
    found = store.chunks([number, 999])
    assert len(found) == 1
    digest = hashlib.sha256(picture).hexdigest()
    for name in ("text", "modality", "ordinal", "context", "page", "bbox", "start_s", "end_s", "metadata"):
        assert getattr(found[0], name) == getattr(chunk, name)
    assert (found[0].id, found[0].document_id, found[0].asset) == (number, progress.document_id, digest)
    assert store.asset(digest) == picture
    view = store.vectors("clip")
    np.testing.assert_allclose(view.vectors, vectors, atol=1e-3)
    assert view.chunk_ids.tolist() == [number, number]
    document = store.document(progress.document_id)
    assert (document.title, document.parts, document.chunks, document.complete) == ("T", 1, 1, False)
    assert dict(document.metadata) == {"author": "x"}
    assert store.verify() == []


def test_begin_resumes_an_interrupted_document_and_skips_an_unchanged_one(store):
    first = store.begin("a", content_hash="h", stat=(10, 20))
    assert first.state == "new"
    store.commit([part(first.document_key, 0, ["one"], section="Intro"), part(first.document_key, 1, ["two"], section="Body")])
    again = store.begin("a", content_hash="h", stat=(10, 20))
    assert (again.state, again.next_part, again.section) == ("resume", 2, "Body")
    assert visible_texts(store) == ["one", "two"]
    assert not store.unchanged("a", (10, 20))
    store.finish(again.document_key)
    assert store.unchanged("a", (10, 20))
    assert not store.unchanged("a", (10, 21))
    generation = store.generation
    assert store.begin("a", content_hash="h", stat=(10, 30)).state == "unchanged"
    assert store.unchanged("a", (10, 30))
    assert store.generation == generation
    with pytest.raises(IndexStateError):
        store.commit([part(first.document_key, 1, ["two"])])


def test_changed_content_replaces_the_old_in_one_step(store):
    old = add(store, "a", ["old 1", "old 2"])
    progress = store.begin("a", content_hash="v2")
    assert progress.state == "replace"
    store.commit([part(progress.document_key, 0, ["new 1"])])
    assert visible_texts(store) == ["old 1", "old 2"]
    resumed = store.begin("a", content_hash="v2")
    assert (resumed.state, resumed.next_part) == ("resume", 1)
    store.commit([part(progress.document_key, 1, ["new 2"])])
    store.finish(progress.document_key)
    assert visible_texts(store) == ["new 1", "new 2"]
    assert store.chunks(old) == []
    assert store.documents()[0].content_hash == "v2"
    assert len(store.documents()) == 1


def test_a_replacement_overtaken_by_newer_content_is_dropped(store):
    add(store, "a", ["old"])
    stale = store.begin("a", content_hash="v2")
    store.commit([part(stale.document_key, 0, ["stale"])])
    fresh = store.begin("a", content_hash="v3")
    with pytest.raises(IndexStateError):
        store.commit([part(stale.document_key, 1, ["stale 2"])])
    store.commit([part(fresh.document_key, 0, ["fresh"], final=True)])
    assert visible_texts(store) == ["fresh"]
    back = store.begin("a", content_hash="v4")
    store.commit([part(back.document_key, 0, ["never finished"])])
    assert store.begin("a", content_hash="v3").state == "unchanged"
    assert visible_texts(store) == ["fresh"]
    assert [text for _, text in store.iter_texts()] == ["fresh"]


def test_delete_frees_pictures_that_nobody_else_shows(store):
    for source, pictures in (("a", [b"own", b"shared"]), ("b", [b"shared"])):
        progress = store.begin(source, content_hash="h")
        chunks = [Chunk("", "image", data=picture) for picture in pictures]
        store.commit([PartCommit(progress.document_key, 0, chunks, final=True)])
    own, shared = (hashlib.sha256(data).hexdigest() for data in (b"own", b"shared"))
    assert store.delete("a")
    assert not store.delete("a")
    assert store.asset(own) is None
    assert store.asset(shared) == b"shared"
    assert store.delete(store.documents()[0].id)
    assert store.asset(shared) is None
    assert store.counts()["chunks"] == 0


def test_compact_drops_dead_rows_only(store):
    add(store, "a", ["a"] * 10)
    ids = add(store, "b", ["b"] * 5)
    kept = np.array(store.vectors("text").vectors[10:])
    reader = Store.open(store.folder, write=False)
    before = reader.vectors("text")
    store.delete("a")
    assert store.compact() == ["text"]
    assert store.compact() == []
    for opened in (store, reader):
        view = opened.vectors("text")
        np.testing.assert_array_equal(view.vectors, kept)
        assert view.chunk_ids.tolist() == ids
    assert before.vectors.shape == (15, 8)
    add(store, "c", ["c"])
    assert len(reader.vectors("text").chunk_ids) == 6
    assert store.verify() == []
    assert len(list(store.folder.glob("vectors-*"))) == 1
    reader.close()


def test_filters_select_by_document_place_and_metadata(store):
    for source, year, pages in (("/data/x/a.pdf", 2020, [1, 2]), ("/data/y/b.txt", 2021, [1])):
        progress = store.begin(source, content_hash="h", title=source[-5:], metadata={"year": year})
        chunks = [Chunk(f"{source} {p}", "text" if p == 1 else "table", page=p, metadata={"tags": ["t", f"p{p}"]}) for p in pages]
        store.commit([PartCommit(progress.document_key, 0, chunks, final=True)])

    def chosen(**filters) -> list[int]:
        return np.flatnonzero(store.allowed(filters)).tolist()

    assert chosen(source="a.pdf") == [1, 2]
    assert chosen(source="x/a.pdf") == [1, 2]
    assert chosen(source="df") == []
    assert chosen(source="*.txt") == [3]
    assert chosen(source=["/data/x/*", "b.txt"]) == [1, 2, 3]
    assert chosen(modality="table") == [2]
    assert chosen(page=1) == [1, 3]
    assert chosen(page=[2, 9]) == [2]
    assert chosen(year=2021) == [3]
    assert chosen(year=[2020, 2021], page=1) == [1, 3]
    assert chosen(tags="p2") == [2]
    assert chosen(title="b.txt") == [3]
    assert chosen(document_id=store.documents()[0].id) == [1, 2]
    assert chosen(nothing="x") == []
    hostile = "x'); DROP TABLE chunks; --"
    assert chosen(**{hostile: hostile}) == []
    for bad in ({"page": "one"}, {"year": {"from": 1}}, {"modality": "smell"}, {'a"b': 1}, {"page": True}):
        with pytest.raises(ConfigError):
            store.allowed(bad)
    store.delete("/data/y/b.txt")
    assert chosen(page=1) == [1]


def test_neighbours_stay_inside_the_document(store):
    ids = add(store, "a", ["one", "two", "three"])
    add(store, "b", ["other"])
    assert [store.neighbours(chunk) for chunk in store.chunks(ids)] == [("", "two"), ("one", "three"), ("two", "")]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_bad_vectors_are_refused_before_anything_is_written(store, bad):
    progress = store.begin("a", content_hash="h")
    rows = unit(3)
    rows[1] = bad
    good = part(progress.document_key, 0, ["fine"])
    with pytest.raises(EncodingError):
        store.commit([good, PartCommit(progress.document_key, 1, [Chunk("x")] * 3, {"text": rows}, {"text": [0, 1, 2]})])
    assert visible_texts(store) == []
    assert store.vectors("text").vectors.shape == (0, 0)
    store.commit([good])
    assert visible_texts(store) == ["fine"]


def test_vectors_must_fit_their_chunks_and_space(store):
    progress = store.begin("a", content_hash="h")
    with pytest.raises(ConfigError):
        store.commit([PartCommit(progress.document_key, 0, [Chunk("x")], {"text": unit(1)}, {"text": [1]})])
    with pytest.raises(ConfigError):
        store.commit([PartCommit(progress.document_key, 0, [Chunk("x")], {"text": unit(2)}, {"text": [0]})])
    store.commit([part(progress.document_key, 0, ["x"])])
    with pytest.raises(IndexStateError):
        store.commit([PartCommit(progress.document_key, 1, [Chunk("x")], {"text": unit(1, 9)}, {"text": [0]})])
    assert visible_texts(store) == ["x"]


def test_meta_and_feedback_are_kept(tmp_path):
    with Store.open(tmp_path / "i") as store:
        store.set_meta("config", {"a": [1, None]})
        store.add_feedback("why?", 3, -1, at=5.0)
    with Store.open(tmp_path / "i", write=False) as store:
        assert store.get_meta("config") == {"a": [1, None]}
        assert store.get_meta("other", 7) == 7
        assert store.feedback() == [{"question": "why?", "chunk_id": 3, "vote": -1, "at": 5.0}]
        with pytest.raises(IndexStateError):
            store.set_meta("config", 1)


def test_a_temporary_store_leaves_nothing_behind():
    store = Store.open(None)
    add(store, "a", ["x"])
    assert store.folder.exists()
    store.close()
    store.close()
    assert not store.folder.exists()
    with pytest.raises(IndexStateError):
        store.documents()


def test_a_later_format_is_refused_in_words(tmp_path):
    Store.open(tmp_path / "i").close()
    with sqlite3.connect(tmp_path / "i" / "index.sqlite") as raw:
        raw.execute("UPDATE state SET format = 99")
    raw.close()
    with pytest.raises(IndexStateError, match="later version"):
        Store.open(tmp_path / "i")
    with pytest.raises(IndexStateError, match="no index"):
        Store.open(tmp_path / "none", write=False)


def test_search_threads_read_while_one_commits(store):
    add(store, "a", ["start"])
    errors: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                mask = store.alive()
                assert len(store.vectors("text").chunk_ids) >= 1
                assert store.chunks([1])[0].text == "start"
                assert mask[1]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(30):
        add(store, f"s{number}", ["x", "y"])
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.alive().sum() == 61


def _fork_and_sleep(ready: object) -> None:
    ready.set()
    time.sleep(60)


@pytest.mark.fault
def test_a_second_writer_is_told_so_and_may_go_on_after_the_first(tmp_path):
    first, second = Store.open(tmp_path / "i"), Store.open(tmp_path / "i")
    add(first, "a", ["x"])
    with pytest.raises(IndexLockedError, match=str(os.getpid())):
        second.begin("b", content_hash="h")
    assert visible_texts(second) == ["x"]
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=_fork_and_sleep, args=(ready,))
    child.start()
    ready.wait(20)
    first.close()  # a forked child still alive must not hold the lock
    add(second, "b", ["y"])
    second.close()
    child.kill()
    child.join()


WRITER = """
import sys, numpy as np
from pathlib import Path
from ultrafast_rag.index.store import Store
from ultrafast_rag.types import PartCommit
from ultrafast_rag.index.vectors import row_sums
from ultrafast_rag.types import Chunk
store = Store.open(Path(sys.argv[1]))
number = 0
while True:
    name = f"doc{sys.argv[2]}-{number}"
    progress = store.begin(name, content_hash="h")
    for part in range(3):
        rows = np.full((4, 64), part + 1, np.float32)
        rows[:, number % 64] += 5
        chunks = [Chunk(f"{name} {part} {i}", data=b"%d" % i) for i in range(4)]
        made = PartCommit(progress.document_key, part, chunks, {"text": rows}, {"text": [0, 1, 2, 3]}, final=part == 2)
        ids = store.commit([made])
        print(name, part, ids[0][0], flush=True)
    number += 1
"""


def kill_a_writer(folder: Path, round_: int, after_s: float) -> list[tuple[str, int, int]]:
    """Commits that the writer acknowledged before it was killed."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(round_)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    timer = threading.Timer(after_s, process.send_signal, [signal.SIGKILL])
    timer.start()
    lines += process.stdout.readlines()
    process.wait()
    timer.cancel()
    complete = [line.split() for line in lines if line.endswith("\n")]
    return [(name, int(number), int(first)) for name, number, first in complete]


def check_after_kill(folder: Path, acknowledged: list[tuple[str, int, int]]) -> None:
    with Store.open(folder) as store:
        assert store.verify() == []
        for name, number, first in acknowledged:
            assert [chunk.text for chunk in store.chunks(range(first, first + 4))] == [f"{name} {number} {i}" for i in range(4)]
        alive = np.flatnonzero(store.alive())
        assert len(alive) == sum(document.chunks for document in store.documents()) == store.counts()["chunks"]
        assert all(document.chunks == 4 * document.parts for document in store.documents())
        view = store.vectors("text")
        assert view.chunk_ids.tolist() == alive.tolist()
        for row, chunk in zip(view.vectors, store.chunks(view.chunk_ids)):
            name, number, _ = chunk.text.split()
            assert int(np.argmax(row)) == int(name.split("-")[1]) % 64
            assert row.min() > 0
            assert (row.max() / row.min()) == pytest.approx((int(number) + 6) / (int(number) + 1), rel=1e-2)
        store.set_meta("checked", True)


@pytest.mark.fault
@pytest.mark.parametrize("rounds", [3, pytest.param(25, marks=pytest.mark.long)])
def test_kill_at_a_random_moment_keeps_every_acknowledged_commit(tmp_path, rounds):
    chance = random.Random(rounds)
    acknowledged: list[tuple[str, int, int]] = []
    for round_ in range(rounds):
        acknowledged += kill_a_writer(tmp_path / "i", round_, chance.uniform(0.0, 0.4))
        check_after_kill(tmp_path / "i", acknowledged)
    assert len(acknowledged) >= rounds


@pytest.mark.fault
def test_bytes_past_the_committed_length_are_overwritten(tmp_path):
    with Store.open(tmp_path / "i") as store:
        add(store, "a", ["x", "y"])
        path = next(store.folder.glob("vectors-*"))
        whole = path.read_bytes()
    path.write_bytes(whole + b"\x7f" * 1_000)
    with Store.open(tmp_path / "i") as store:
        assert len(store.vectors("text").chunk_ids) == 2
        add(store, "b", ["z"])
        assert path.stat().st_size == 3 * 8 * 2
        assert store.verify() == []


@pytest.mark.fault
def test_damage_is_found(tmp_path):
    with Store.open(tmp_path / "i") as store:
        add(store, "a", ["x", "y"])
        add(store, "b", ["z"])
        path = next(store.folder.glob("vectors-*"))
        whole = bytearray(path.read_bytes())
        whole[3] ^= 1
        path.write_bytes(whole)
        assert any("rows 0 to 1 fail" in problem for problem in store.verify())
        assert visible_texts(store) == ["x", "y", "z"]
        path.write_bytes(whole[:20])
        assert any("holds 1 of its 3" in problem for problem in store.verify())
    with Store.open(tmp_path / "i") as store, pytest.raises(IndexStateError, match="shorter"):
        store.vectors("text")


LIMITED = """
import json, resource, sys, numpy as np
from pathlib import Path
from ultrafast_rag.errors import StorageError
from ultrafast_rag.index.store import Store
from ultrafast_rag.types import PartCommit
from ultrafast_rag.index.vectors import row_sums
from ultrafast_rag.types import Chunk
store = Store.open(Path(sys.argv[1]))
progress = store.begin("big", content_hash="h")
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
rows = np.ones((50, 384), np.float32)
def commit(number):
    chunks = [Chunk(f"part {number} " + "x" * 400) for _ in range(50)]
    store.commit([PartCommit(progress.document_key, number, chunks, {"text": rows}, {"text": list(range(50))})])
done, why = 0, ""
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), hard))
try:
    for number in range(1000):
        commit(number)
        done += 1
except StorageError as error:
    why = str(error)
alive = int(store.alive().sum())
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
commit(done)
print(json.dumps([done, why, alive, int(store.alive().sum()), store.verify()]))
"""


@pytest.mark.fault
@pytest.mark.parametrize("limit_bytes", [300_000, 700_000])
def test_a_full_disk_is_a_storage_error_and_the_same_commit_works_later(tmp_path, limit_bytes):
    output = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "i"), str(limit_bytes)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    done, why, alive, after, problems = json.loads(output.stdout)
    assert 1 <= done < 1000
    assert "refused" in why
    assert (alive, after, problems) == (50 * done, 50 * done + 50, [])
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != limit_bytes


READER = """
import sys, numpy as np
from pathlib import Path
from ultrafast_rag.index.store import Store
store = Store.open(Path(sys.argv[1]), write=False)
seen, generation = set(), -1
print("ready", flush=True)
while len(seen) < 2 or "v9" not in seen:
    mask = store.alive()
    texts = {chunk.text.split()[0] for chunk in store.chunks(np.flatnonzero(mask))}
    assert len(texts) <= 1, texts
    assert store.generation >= generation
    generation = store.generation
    view = store.vectors("text")
    assert view.vectors.shape[0] == len(view.chunk_ids)
    seen |= texts
print(len(seen))
"""


@pytest.mark.fault
def test_a_reader_in_another_process_never_sees_two_versions_at_once(tmp_path):
    with Store.open(tmp_path / "i") as store:
        add(store, "a", ["v0 x"] * 20, "v0")
        reader = subprocess.Popen([sys.executable, "-c", READER, str(tmp_path / "i")], stdout=subprocess.PIPE, text=True)
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        for version in range(1, 10):
            progress = store.begin("a", content_hash=f"v{version}")
            for number in range(4):
                store.commit([part(progress.document_key, number, [f"v{version} x"] * 5)])
            store.finish(progress.document_key)
            store.compact()
        rest = reader.stdout.read()
        assert reader.wait(30) == 0
        assert int(rest) >= 2


def test_a_snapshot_is_whole_while_the_writer_goes_on(store, tmp_path):
    add(store, "a", ["x", "y"])
    store.snapshot(tmp_path / "copy")
    add(store, "b", ["z"])
    with Store.open(tmp_path / "copy") as copy:
        assert visible_texts(copy) == ["x", "y"]
        assert copy.verify() == []
        add(copy, "c", ["own"])
    with pytest.raises(IndexStateError):
        store.snapshot(tmp_path / "copy")


def in_two_spaces(store: Store, source: str, count: int) -> int:
    """A document with vectors in "first" and in "second"; returns its last chunk."""
    progress = store.begin(source, content_hash="h")
    spaces, owners = {"first": unit(count), "second": unit(count)}, {"first": list(range(count)), "second": list(range(count))}
    chunks = [Chunk(f"{source} {n}", ordinal=n) for n in range(count)]
    return store.commit([PartCommit(progress.document_key, 0, chunks, spaces, owners, final=True)])[0][-1]


@pytest.mark.fault
def test_a_snapshot_bears_compactions_while_it_is_made(store, tmp_path, monkeypatch):
    """Between the copy of the database and the opening of each vector file, again and again."""
    for number in range(6):
        in_two_spaces(store, f"{number}", 4)
    opening, left = upkeep.open_inside, [0, 1, 2, 3, 4]

    def compacted_first(folder, name, flags):
        if folder == store.folder and name.startswith("vectors-second") and flags == os.O_RDONLY and left:
            store.delete(str(left.pop()))
            store.compact(above=0)
        return opening(folder, name, flags)

    monkeypatch.setattr(upkeep, "open_inside", compacted_first)
    store.snapshot(tmp_path / "copy")
    assert left == []
    with Store.open(tmp_path / "copy") as copy:
        assert visible_texts(copy) == [f"5 {n}" for n in range(4)]
        assert copy.verify() == []


@pytest.mark.fault
def test_a_snapshot_of_an_index_that_has_lost_a_file_says_which(store, tmp_path):
    in_two_spaces(store, "a", 3)
    next(store.folder.glob("vectors-second*")).unlink()
    with pytest.raises(IndexCorruptError, match=r"vectors-second\.f16 is missing"):
        store.snapshot(tmp_path / "copy")


@pytest.mark.fault
def test_replaced_vector_files_are_removed_under_the_writer_lock(store, monkeypatch):
    """Without it, what another writer has made and not yet committed would be removed too."""
    last = in_two_spaces(store, "a", 3)
    store.close()
    sweeping, held = upkeep.sweep, []
    with Store.open(store.folder) as other:
        monkeypatch.setattr(upkeep, "sweep", lambda reader, folder: held.append(other._lock.held) or sweeping(reader, folder))
        other.drop_vectors("first", up_to=last)
        assert not other._lock.held  # given back at the end
        other.delete("a")
        other.compact(above=0)
    assert len(held) >= 3
    assert all(held)
    assert sorted(path.name for path in store.folder.glob("*.f16")) == ["vectors-first.1.f16", "vectors-second.1.f16"]


@pytest.mark.fault
def test_an_index_on_read_only_media_can_be_searched(tmp_path, store):
    add(store, "a", ["x"])
    store.snapshot(tmp_path / "ro")
    (tmp_path / "ro").chmod(0o555)
    try:
        with Store.open(tmp_path / "ro", write=False) as opened:
            assert visible_texts(opened) == ["x"]
            assert len(opened.vectors("text").chunk_ids) == 1
    finally:
        (tmp_path / "ro").chmod(0o755)


def test_many_documents_begin_in_one_transaction(store):
    sources = [Record(f"t{i}", "h", document_id=f"id{i}") for i in range(50)]
    progress = store.begin_many(sources)
    store.commit([part(p.document_key, 0, [p.document_id], final=True) for p in progress])
    assert visible_texts(store) == [f"id{i}" for i in range(50)]
    assert {p.state for p in store.begin_many(sources)} == {"unchanged"}


@pytest.mark.fault
def test_a_damaged_vector_is_noticed_when_it_is_first_used_and_others_still_serve(tmp_path):
    with Store.open(tmp_path / "i") as store:
        add(store, "a", ["x"] * 50)
        add(store, "b", ["y"] * 50)
        path = next(store.folder.glob("vectors-*"))
    whole = bytearray(path.read_bytes())
    whole[3 * 16 + 5] ^= 4
    path.write_bytes(whole)
    with Store.open(tmp_path / "i") as store:
        view = store.vectors("text")
        assert len(view.take(np.arange(10, 100))) == 90
        assert view.checked.sum() == 90
        with pytest.raises(IndexCorruptError, match="1 vectors fail"):
            view.take(np.array([2, 3]))
        with pytest.raises(IndexCorruptError):
            DenseIndex(store, "text").search(unit(1)[0], 3)
        add(store, "c", ["z"])  # what was compared stays so, for the same file
        assert store.vectors("text").checked.sum() == 90


@pytest.mark.parametrize("dim", [8, 9, 10, 11])
def test_every_bit_of_a_vector_and_its_passage_is_in_its_sum(dim):
    rows, owners = unit(2, dim).astype("<f2"), np.array([5, 6], "<i4")
    sums = row_sums(rows, owners)
    for place in range(rows.nbytes * 8):
        changed = bytearray(rows.tobytes())
        changed[place // 8] ^= 1 << place % 8
        other = row_sums(np.frombuffer(bytes(changed), "<f2").reshape(rows.shape), owners)
        assert (other != sums).sum() == 1
    assert (row_sums(rows, owners[::-1].copy()) != sums).all()
    assert (row_sums(rows[:, ::-1].copy(), owners) != sums).all()


@pytest.mark.fault
@pytest.mark.parametrize("column", ["text", "context", "page", "bbox", "metadata", "modality", "ordinal"])
def test_a_changed_field_of_a_stored_passage_is_an_error_not_an_answer(tmp_path, column):
    with Store.open(tmp_path / "i") as store:
        progress = store.begin("a", content_hash="h")
        chunk = Chunk("one", context="c", page=1, bbox=(1, 2, 3, 4), metadata={"a": 1})
        store.commit([PartCommit(progress.document_key, 0, [chunk, Chunk("two", context="c")], final=True)])
    value = {"page": 2, "ordinal": 7, "bbox": "[1.0, 2.0, 3.0, 5.0]", "metadata": '{"a": 2}', "modality": "table"}.get(
        column, "0ne"
    )
    with sqlite3.connect(tmp_path / "i" / "index.sqlite") as raw:
        raw.execute(f"UPDATE chunks SET {column} = ? WHERE id = 1", (value,))
    raw.close()
    with Store.open(tmp_path / "i") as store:
        with pytest.raises(IndexCorruptError, match="checksum"):
            store.chunks([1])
        assert [found.text for found in store.chunks([2])] == ["two"]
        assert any("checksum" in problem for problem in store.verify())


@pytest.mark.fault
def test_a_passage_that_is_lost_is_an_error_and_one_that_was_deleted_is_not(tmp_path):
    with Store.open(tmp_path / "i") as store:
        ids, gone = add(store, "a", ["x", "y"]), add(store, "b", ["z"])
        store.delete("b")
        assert len(store.chunks([*ids, *gone, 999])) == 2
    with sqlite3.connect(tmp_path / "i" / "index.sqlite") as raw:
        raw.execute("DELETE FROM chunks WHERE id = 1")
    raw.close()
    with Store.open(tmp_path / "i") as store, pytest.raises(IndexCorruptError, match="passage 1 is lost"):
        store.chunks(ids)


@pytest.mark.fault
@pytest.mark.parametrize("database", ["missing", "empty"])
def test_vectors_without_a_database_are_an_error_that_says_what_can_be_done(tmp_path, database):
    with Store.open(tmp_path / "i") as store:
        add(store, "a", ["x"])
    path = tmp_path / "i" / "index.sqlite"
    path.unlink()
    if database == "empty":
        path.write_bytes(b"")
    for write in (True, False):
        with pytest.raises(IndexCorruptError, match="embedding cache"):
            Store.open(tmp_path / "i", write=write)
    assert (tmp_path / "i" / "vectors-text.f16").stat().st_size == 16


@pytest.mark.fault
def test_what_a_killed_writer_left_is_swept_away_by_the_next(tmp_path):
    with Store.open(tmp_path / "i") as store:
        add(store, "a", ["x"])
        for name in ("vectors-text.7.f16", "lexical.json.123.partial", "dense-text.faiss.9.partial", "notes.txt"):
            (tmp_path / "i" / name).write_bytes(b"left")
    with Store.open(tmp_path / "i") as store:
        store.set_meta("x", 1)
    assert sorted(path.name for path in (tmp_path / "i").iterdir()) == [
        "index.sqlite",
        "notes.txt",
        "vectors-text.f16",
        "writer.lock",
    ]


def test_a_reader_of_an_index_that_is_being_made_is_told_to_wait(tmp_path):
    (tmp_path / "i").mkdir()
    sqlite3.connect(tmp_path / "i" / "index.sqlite").close()
    (tmp_path / "i" / "index.sqlite").touch()
    with pytest.raises(IndexStateError, match="only now being made"):
        Store.open(tmp_path / "i", write=False)


@pytest.mark.fault
def test_a_forked_child_is_told_to_open_the_index_itself(tmp_path):
    with Store.open(tmp_path / "i") as store:
        add(store, "a", ["x"])
        child = os.fork()
        if child == 0:
            try:
                store.generation  # noqa: B018
            except IndexStateError as error:
                store.close()
                os._exit(0 if "forked" in str(error) else 2)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert visible_texts(store) == ["x"]
        add(store, "b", ["y"])
