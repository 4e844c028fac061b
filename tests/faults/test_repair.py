"""Repair: what is whole is kept, what is not is named and never served, and the index works again afterwards."""

from __future__ import annotations

import contextlib
import json
import random

import numpy as np
import pytest
from small_index import change

from ultrafast_rag import UltraFastRAG, cli
from ultrafast_rag.bench.faults import damaged
from ultrafast_rag.bench.kills import state_of, work
from ultrafast_rag.bench.trials import add_document, ask, copy_of, make_index, source_of
from ultrafast_rag.errors import IndexLockedError, IndexStateError, UltraFastRAGError
from ultrafast_rag.index.repair import KEPT, repair
from ultrafast_rag.index.store import Store

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_index(tmp_path_factory.mktemp("whole") / "index", documents=60)


@pytest.fixture
def index(whole, tmp_path):
    return copy_of(whole, tmp_path / "index")


def test_a_whole_index_is_left_as_it_is(index, whole):
    before = {path.name: path.read_bytes() for path in index.iterdir() if path.suffix in (".f16", ".faiss", ".json", ".bin")}
    report = repair(index)
    assert (report.found, report.again, report.whole) == ([], [], True)
    assert {path.name: path.read_bytes() for path in index.iterdir() if path.name in before} == before
    assert ask(index) == ask(copy_of(whole, index.parent / "asked"))


DAMAGES = [
    ("UPDATE chunks SET text = 'forged' WHERE id = 40", 1),
    ("UPDATE chunks SET page = 9 WHERE id = 40", 1),
    ("DELETE FROM chunks WHERE id IN (40, 41)", 1),
    ("DELETE FROM parts WHERE document = 5", 1),
    ("UPDATE assets SET data = x'00' WHERE rowid = 3", 1),
    ("UPDATE blocks SET crc32 = 7 WHERE first_row = 20", 2),  # one has a passage beside them that never had a vector
    ("DELETE FROM blocks WHERE first_row = 20", 2),
    ("UPDATE documents SET title = 'forged' WHERE key = 5", 0),  # and it is not in the index any more
    ("DELETE FROM feedback", 0),
]


@pytest.mark.parametrize(("sql", "again"), DAMAGES, ids=[sql for sql, _ in DAMAGES])
def test_what_is_whole_stays_and_what_is_not_is_read_again(index, whole, sql, again):
    with Store.open(index) as store:
        store.add_feedback("q", 1, 1)
        had = {document.source: document.chunks for document in store.documents()}
    change(index, sql)
    report = repair(index)
    assert report.whole
    assert len(report.again) == again
    assert (index / KEPT).exists()
    with Store.open(index) as store:
        assert store.verify() == []
        have = {document.source: document for document in store.documents()}
        assert all(have[name].complete is (name not in report.again) for name in have)
        assert all(document.chunks == had[name] for name, document in have.items() if document.complete)
        assert len(have) >= len(had) - 1
        for source in report.again:
            number = int(source.rsplit("-", 1)[-1].removesuffix(".pdf"))
            assert add_document(store, number)
    work(index)
    assert source_of(202) in state_of(index)


def test_damaged_bytes_anywhere_in_the_database_are_read_around(whole, tmp_path):
    chance, mended, kept = random.Random(3), 0, []
    for _ in range(15):
        index = copy_of(whole, tmp_path / "index")
        path = index / "index.sqlite"
        content = bytearray(path.read_bytes())
        at = chance.randrange(8192, len(content) - 4096)
        content[at : at + 2000] = chance.randbytes(2000)
        path.write_bytes(content)
        report = repair(index)
        if not report.whole:
            continue
        mended += 1
        with Store.open(index) as store:
            assert store.verify() == []
            kept.append(len(store.documents()))
            for source in report.again:
                add_document(store, int(source.rsplit("-", 1)[-1].removesuffix(".pdf")))
        work(index)
        state_of(index)
    assert mended >= 12
    assert np.median(kept) >= 45  # of 51


def test_vectors_that_are_damaged_go_and_their_documents_are_named(index):
    (path,) = index.glob("vectors-*.f16")
    content = bytearray(path.read_bytes())
    content[40 * 32] ^= 1
    path.write_bytes(content)
    report = repair(index)
    assert len(report.again) == 1
    with Store.open(index) as store:
        assert store.verify() == []
        assert len(store.vectors("text").chunk_ids) == 5 * 51 - 1


@pytest.mark.parametrize("name", ["dense-text.faiss", "dense-text.json", "lexical.json"])
def test_a_damaged_derived_file_is_made_again(index, whole, name):
    (index / name).write_bytes(damaged((index / name).read_bytes(), random.Random(1)))
    report = UltraFastRAG.repair(index)
    assert report.derived
    assert report.again == []
    assert repair(index).found == []
    assert ask(index) == ask(copy_of(whole, index.parent / "asked"))


def test_what_a_killed_process_left_is_removed(index):
    (index / "vectors-text.9.f16").write_bytes(b"x" * 100)
    (index / "dense-text.faiss.1.partial").write_bytes(b"x")
    (index / "mine.txt").write_text("mine")
    report = repair(index)
    assert [part for part, _, _ in report.found] == ["files"]
    assert not (index / "vectors-text.9.f16").exists()
    assert (index / "mine.txt").exists()


@pytest.mark.parametrize("content", [None, b"", b"no database at all" * 500])
def test_a_lost_database_is_set_aside_and_the_folder_can_be_used_again(index, content, capsys):
    for side in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            (index / f"index.sqlite{side}").unlink()
    if content is not None:
        (index / "index.sqlite").write_bytes(content)
    with pytest.raises(UltraFastRAGError):
        ask(index)
    assert cli.main(["doctor", "--index", str(index), "--repair"]) == 1
    assert "embedding cache" in capsys.readouterr().out
    assert list(index.glob("lost-*/vectors-*.f16"))
    with Store.open(index) as store:
        assert add_document(store, 3)


def test_the_command_says_what_it_did_and_ends_with_a_code_of_its_own(index, tmp_path, capsys):
    assert cli.main(["doctor", "--index", str(index), "--repair"]) == 0
    assert "nothing" in capsys.readouterr().out
    change(index, "UPDATE chunks SET text = 'forged' WHERE id = 40")
    assert cli.main(["doctor", "--index", str(index), "--repair", "--json"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["again"] == [source_of(6)] or len(said["again"]) == 1
    assert cli.main(["doctor", "--index", str(tmp_path / "none"), "--repair"]) == 1
    assert "there is no index" in capsys.readouterr().err


def test_an_index_that_somebody_writes_to_is_not_mended(index):
    with Store.open(index) as store:
        store.set_meta("x", 1)
        with pytest.raises(IndexLockedError):
            repair(index)
    with pytest.raises(IndexStateError):
        repair(index.parent / "none")
