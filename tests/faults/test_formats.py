"""Every released format of index and archive opens for ever, or is refused in words. One fixture each, never made again."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from ultrafast_rag.errors import IndexCorruptError
from ultrafast_rag.index.archive import restore_archive
from ultrafast_rag.index.database import FORMAT
from ultrafast_rag.index.dense import DenseIndex
from ultrafast_rag.index.lexical import LexicalIndex
from ultrafast_rag.index.store import Store
from ultrafast_rag.types import Chunk, PartCommit

FORMATS = Path(__file__).parent / "formats"


@pytest.fixture
def first(tmp_path):
    """Version 0.1.0: three documents of 8-dimensional vectors, one deleted, BM25 saved, and the same as an archive."""
    with tarfile.open(FORMATS / "format1.tar.gz") as tar:
        for entry in tar:
            target = tmp_path / entry.name
            if entry.isfile():
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(tar.extractfile(entry).read())
    return tmp_path


def answers(store: Store) -> list[object]:
    dense, lexical = DenseIndex(store, "text", folder=store.folder), LexicalIndex(store, folder=store.folder)
    query = np.eye(8, dtype=np.float32)[1]
    found = dense.search(query, 3)
    return [
        [chunk.text for chunk in store.chunks(found.chunk_ids.tolist())],
        [chunk.text for chunk in store.chunks(lexical.search("wick keeper", 1).chunk_ids.tolist())],
        [(document.source, document.title, dict(document.metadata)) for document in store.documents()],
        np.flatnonzero(store.allowed({"year": 2021})).tolist(),
        store.get_meta("config")["chunk_tokens"],
        store.asset(store.chunks([4])[0].asset),
    ]


EXPECTED = [
    ["neap range of tides, passage 1", "colza oil of lamps, passage 0", "spring range of tides, passage 0"],
    ["wick keeper of lamps, passage 1"],
    [("/home/canary/papers/tides.pdf", "Tides", {"year": 2020}), ("/home/canary/papers/lamps.pdf", "Lamps", {"year": 2021})],
    [5, 6, 7],
    200,
    b"\x89PNGtides",
]


def test_format_1_is_read_as_it_is_on_media_that_cannot_be_written(first):
    with Store.open(first / "index", write=False) as store:
        got = answers(store)
    assert sorted(got[0]) == sorted(EXPECTED[0])
    assert got[1:] == EXPECTED[1:]


def test_format_1_is_searched_without_being_changed_and_upgraded_by_the_first_write(first):
    before = (first / "index" / "vectors-text.f16").read_bytes()
    with Store.open(first / "index") as store:
        assert answers(store)[1:] == EXPECTED[1:]
        assert store._db.format == 1
        begun = store.begin("new", content_hash="n")
        chunk = Chunk("brass sextant")
        store.commit([PartCommit(begun.document_key, 0, [chunk], {"text": np.eye(8)[:1]}, {"text": [0]}, final=True)])
        assert store._db.format == FORMAT
        assert answers(store)[1] == EXPECTED[1]
        assert store.verify() == []
    assert (first / "index" / "vectors-text.f16").read_bytes().startswith(before)
    with Store.open(first / "index") as store:
        assert store._db.format == FORMAT
        assert store.vectors("text").sums is not None
        assert [document.source for document in store.documents()][:2] == [row[0] for row in EXPECTED[2]]
        assert store.compact(above=0) == ["text"]
        assert store.verify() == []


def test_a_damaged_index_of_format_1_is_not_upgraded(first):
    path = first / "index" / "vectors-text.f16"
    path.write_bytes(b"\x01" + path.read_bytes()[1:])
    with Store.open(first / "index") as store:
        with pytest.raises(IndexCorruptError, match="checksum"):
            store.set_meta("x", 1)
        assert store._db.format == 1
        assert len(store.documents()) == 2


def test_an_archive_of_format_1_is_restored(first):
    restore_archive(first / "capsule.tar", first / "restored")
    with Store.open(first / "restored") as store:
        assert answers(store)[1] == EXPECTED[1]
        store.set_meta("x", 1)
        assert store.verify() == []


def test_two_processes_upgrade_once(first):
    with Store.open(first / "index") as late:
        assert late._db.format == 1
        with Store.open(first / "index") as early:
            early.set_meta("x", 1)
        late.set_meta("y", 2)
        assert (late.get_meta("x"), late.verify()) == (1, [])
