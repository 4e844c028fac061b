"""Closing, stopping, moving: what an index object owes to the process that holds it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_index import add_document, make_index, rows_for

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.config import Config
from ultrafast_rag.errors import StorageError
from ultrafast_rag.extract.detect import media_type
from ultrafast_rag.extract.discover import discover
from ultrafast_rag.files import sha256_of
from ultrafast_rag.index.lexical import LexicalIndex
from ultrafast_rag.index.store import Store
from ultrafast_rag.ingest.pipeline import Pipeline
from ultrafast_rag.ingest.sources import find_sources
from ultrafast_rag.ingest.stages import Until
from ultrafast_rag.monitor import StageClock
from ultrafast_rag.types import Chunk, PartCommit

pytestmark = pytest.mark.fault
NO_PORTS = SimpleNamespace(text=None, picture=None, cache=None, static=None, group=lambda: (1, 1))
WORDS_ONLY = {"image_model": None, "speech_model": None, "quiet": True}


def full(*_):
    raise OSError(28, "No space left on device")


def test_a_full_disk_at_close_is_a_typed_error_after_everything_was_closed(tmp_path, monkeypatch):
    folder = make_index(tmp_path / "index", documents=8)
    rag = UltraFastRAG(folder, quiet=True)
    rag._store.set_meta("x", 1)  # holds the lock
    rag._lexical.refresh()
    rag._searcher()
    rag._unindexed = True
    before = {path.name for path in folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        (folder / "lexical.json").unlink()
        with pytest.raises(StorageError, match="space"):
            rag.close()
    assert not rag._store._lock.held
    assert rag._searchers == {}
    after = {path.name for path in folder.iterdir()}
    assert after <= before
    assert not list(folder.glob("*.partial"))
    with UltraFastRAG(folder, quiet=True) as again:  # the same process can go on
        again._store.set_meta("x", 2)
        again._unindexed = True
    assert (folder / "lexical.json").exists()


def test_every_part_is_closed_though_an_earlier_one_fails(tmp_path):
    rag = UltraFastRAG(tmp_path / "index", **WORDS_ONLY)
    rag._store.set_meta("x", 1)
    closed = []

    class Stubborn:
        def __init__(self, name):
            self.name = name

        def close(self):
            closed.append(self.name)
            raise StorageError(self.name)

    for name in ("_cache", "_sandbox"):
        rag.__dict__[name] = Stubborn(name)
    with pytest.raises(StorageError):
        rag.close()
    assert sorted(closed) == ["_cache", "_sandbox"]
    assert rag._store._db.closed
    assert not rag._store._lock.held


def test_saving_words_on_a_full_disk_is_a_typed_error_and_leaves_the_old_files(tmp_path, monkeypatch):
    folder = make_index(tmp_path / "index", documents=8)
    before = {path.name: path.read_bytes() for path in folder.glob("lexical*")}
    with Store.open(folder) as store:
        add_document(store, 99)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StorageError):
                LexicalIndex(store, folder=folder).save()
    assert {path.name: path.read_bytes() for path in folder.glob("lexical*")} == before


def slow_source(tmp_path: Path) -> Path:
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    return path


def pipeline(store: Store, **more) -> Pipeline:
    return Pipeline(Config(quiet=True, image_model=None), store, NO_PORTS, clock=StageClock(), **more)


def test_a_time_budget_holds_while_a_large_file_is_hashed(tmp_path):
    with Store.open(tmp_path / "index") as store:
        found = find_sources(store, [slow_source(tmp_path)], discover=discover, media_type=media_type)
        run = pipeline(store, until=Until(0.3))
        assert run.run(found.todo).complete is False
        assert store.documents() == []


def test_hashing_stops_within_a_megabyte(tmp_path):
    asked = []

    def third() -> None:
        asked.append(1)
        if len(asked) > 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        sha256_of(slow_source(tmp_path), before_piece=third)
    assert len(asked) == 4


def test_the_same_content_at_a_new_path_is_moved_and_a_copy_is_another_document(tmp_path):
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    old.write_text("the tide turns at noon")
    with Store.open(tmp_path / "index") as store:

        def ingest() -> None:
            run = pipeline(store, until=Until())
            for source in find_sources(
                store, [tmp_path / "old.txt", tmp_path / "new.txt"], discover=discover, media_type=media_type
            ).todo:
                digest = sha256_of(source.path)
                assert list(run._read(source)) == [] or digest
            for document in store._all("SELECT key FROM documents WHERE NOT complete"):
                store.finish(document[0])

        key = store.begin(str(old), content_hash=sha256_of(old), stat=(22, old.stat().st_mtime_ns)).document_key
        store.finish(key)
        store.finish(store.begin(f"enriched:{old}", content_hash="e", document_id="enriched:1").document_key)
        old.rename(new)
        ingest()
        assert {document.source for document in store.documents()} == {str(new), f"enriched:{new}"}
        assert store.unchanged(str(new), (22, new.stat().st_mtime_ns))
        assert not find_sources(store, [new], discover=discover, media_type=media_type).todo
        assert store.verify() == []


def test_closing_stops_an_ingest_of_another_thread_in_good_order(tmp_path):
    rag = UltraFastRAG(tmp_path / "index", **WORDS_ONLY)
    found, reports = slow_source(tmp_path), []
    thread = threading.Thread(target=lambda: reports.append(rag.ingest(found)))
    thread.start()
    while rag._stop is None:
        time.sleep(0.01)
    rag.close()
    thread.join(60)
    assert not thread.is_alive()
    assert reports[0].complete is False


def test_an_index_that_is_mostly_dead_is_compacted_by_itself(tmp_path):
    with UltraFastRAG(tmp_path / "index", **WORDS_ONLY) as rag:
        for version in range(4):
            begun = rag._store.begin("a", content_hash=f"v{version}")
            chunks = [Chunk(f"passage {n}") for n in range(300)]
            made = PartCommit(
                begun.document_key, 0, chunks, {"text": rows_for(range(300))}, {"text": list(range(300))}, final=True
            )
            rag._store.commit([made])
        rag._unindexed = True
        assert len(rag._store.vectors("text").chunk_ids) == 1200
        rag._index()
        assert len(rag._store.vectors("text").chunk_ids) == 300
        rag._store.delete("a")
        assert rag.compact() == 300
        assert len(rag._store.vectors("text").chunk_ids) == 0
        assert np.asarray(rag._store.alive()).sum() == 0
