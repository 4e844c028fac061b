"""An index moved to another text model: the old one answers until the switch, and a kill at any point loses nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

import numpy as np
import pytest

from ultrafast_rag import cli
from ultrafast_rag.errors import ConfigError, IndexStateError, RemoteEncoderError
from ultrafast_rag.index import upkeep
from ultrafast_rag.index.store import Store
from ultrafast_rag.ingest import refine
from ultrafast_rag.migration import NEXT_SPACE
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import TEXT_SPACE

CARGO = ("salt", "wool", "tin", "oil", "glass", "tea", "grain", "herring")
TEXTS = [f"The brig {name} carries {what} to {port}." for port in ("Bergen", "Kellow", "Sarn") for name, what in zip(
    ("Marlin", "Tern", "Petrel", "Skua", "Auk", "Gannet", "Fulmar", "Plover"), CARGO
)]  # fmt: skip


@pytest.fixture
def settings(service, tmp_path, monkeypatch):
    monkeypatch.setattr(refine, "BATCH", 8)
    monkeypatch.setattr(refine, "GRACE_S", 0.0)
    return {"text_model": "openai:old", "embeddings_base_url": service.url, "cache_dir": tmp_path / "cache"} | {
        "image_model": None, "speech_model": None, "reader_model": None, "quiet": True, "query_cache": False
    }  # fmt: skip


NEW = {"text_model": "openai:new", "text_dim": 32}


def vectors_of(rag):
    view = rag._store.vectors(TEXT_SPACE)
    return dict(zip(view.chunk_ids.tolist(), view.take(slice(None)).tolist()))


def tell(rag):
    return [[hit.text for hit in rag.search(question, k=3)] for question in ("Who has tea for Sarn?", "wool to Kellow", "oil")]


def die_at(point):
    """In a child: SIGKILL at a named point."""

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    add, replace, compact = Store.add_vectors, Store.replace_space, upkeep.compact_space
    if point == "before any":
        Store.add_vectors = lambda *_: die()
    if point == "between batches":
        Store.add_vectors = lambda self, space, *rest: (add(self, space, *rest), self.last_with(space) > 8 and die())[0]
    if point == "within the switch":
        upkeep.compact_space = lambda *a, **o: (compact(*a, **o), die())
    if point == "after the switch":
        Store.replace_space = lambda self, *a: (replace(self, *a), die())


def migrate_and_die(folder, settings, point):
    die_at(point)
    with UltraFastRAG(folder, **settings) as rag:
        rag.migrate(**NEW)


@pytest.mark.fault
def test_a_kill_at_any_point_loses_nothing_and_the_next_call_goes_on(service, settings, tmp_path):
    folder = tmp_path / "index"
    with UltraFastRAG(folder, **settings) as rag:
        rag.add_texts(TEXTS)
        told, old = tell(rag), vectors_of(rag)
    for point in ("before any", "between batches", "within the switch", "after the switch"):
        child = multiprocessing.get_context("fork").Process(target=migrate_and_die, args=(folder, settings, point))
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL, point
        if point != "after the switch":
            with UltraFastRAG(folder, **settings) as rag:  # the old one answers, to the bit
                assert vectors_of(rag) == old, point
                assert tell(rag) == told
                assert not rag._store.verify()
                kept = rag._store.vectors(NEXT_SPACE).chunk_ids
                assert len(kept) == {"before any": 0, "between batches": 16, "within the switch": 24}[point]
    with UltraFastRAG(folder, **{**settings, **NEW}) as rag, UltraFastRAG(**{**settings, **NEW}) as fresh:
        fresh.add_texts(TEXTS)
        assert vectors_of(rag) == vectors_of(fresh)
        assert tell(rag) == tell(fresh)
        assert rag._store.spaces() == [TEXT_SPACE]
        assert not rag._store.verify()
    passages = [text for _, _, body in service.seen if body["model"] == "new" for text in body["input"] if "brig" in text]
    assert len(passages) <= len(TEXTS) + 8 + 2 * 3 * 3  # a batch again, and the questions
    with pytest.raises(IndexStateError, match="openai:new"):
        UltraFastRAG(folder, **settings)


def test_questions_are_answered_throughout_and_what_comes_meanwhile_moves_too(settings, tmp_path):
    stop, wrong, asked = threading.Event(), [], [0]

    def ask():
        while not stop.is_set():
            try:
                first = rag.search("Which brig has tea for Sarn?", k=1)[0].text
                asked[0] += 1
                if "tea to Sarn" not in first:
                    wrong.append(first)
            except Exception as error:  # whatever it is, the test names it
                wrong.append(repr(error))
                return

    with UltraFastRAG(tmp_path / "index", **settings) as rag:
        rag.add_texts(TEXTS)
        assert rag.migrate(**NEW, time_budget_s=1e-9) == 0.0
        assert rag.config.text_model == "openai:old"
        rag.add_texts(["A lugger brings seaweed to Orrin."])
        asking = threading.Thread(target=ask)
        asking.start()
        assert rag.migrate(**NEW) == 1.0
        before = asked[0]
        while asked[0] < before + 5 and asking.is_alive():
            pass
        stop.set()
        asking.join()
        assert not wrong
        assert rag.config.text_model == "openai:new"
        assert len(vectors_of(rag)) == len(TEXTS) + 1
        assert {len(vector) for vector in vectors_of(rag).values()} == {32}
        assert rag.search("seaweed", k=1)[0].text.startswith("A lugger")
        assert rag._store.get_meta("config")["text_dim"] == 32
        rag.add_texts(["A dinghy brings mussels."])
        assert rag.search("mussels", k=1)[0].dense_score == pytest.approx(1.0, abs=0.9)


def test_it_goes_on_in_the_background_and_another_model_begins_anew(settings, tmp_path):
    with UltraFastRAG(tmp_path / "index", **settings) as rag:
        rag.add_texts(TEXTS)
        rag.migrate(text_model="openai:other", time_budget_s=1e-9)
        assert rag.migrate(**NEW, wait=False) == 0.0
        rag._mover.under_way._refiner._thread.join(30)
        assert rag.config.text_model == "openai:new"
        assert tell(rag)[1][0] == "The brig Tern carries wool to Kellow."
        with pytest.raises(ConfigError, match="already"):
            rag.migrate(**NEW)


def test_other_holders_of_the_index_are_told_to_open_it_again(settings, tmp_path):
    with UltraFastRAG(tmp_path / "index", **settings) as rag:
        rag.add_texts(TEXTS)
        with UltraFastRAG(tmp_path / "index", **settings) as other:
            assert other.search("oil", k=1)
            rag.migrate(**NEW)
            with pytest.raises(IndexStateError, match="Open it again"):
                other.search("oil", k=1)
            with pytest.raises(IndexStateError, match="Open it again"):
                other.add_texts(["more"])


def test_a_model_that_cannot_be_asked_leaves_everything_as_it_was(service, settings, tmp_path):
    with UltraFastRAG(tmp_path / "index", **settings) as rag:
        rag.add_texts(TEXTS)
        told = tell(rag)
        with pytest.raises(ConfigError, match="no setting of a text model"):
            rag.migrate(**NEW, chunk_tokens=5)
        with pytest.raises(ConfigError, match="needs a text model"):
            rag.migrate(text_dim=5)
        service.faults += ["401"]
        with pytest.raises(RemoteEncoderError, match="rejected"):
            rag.migrate(**NEW)
        assert rag._mover.under_way is None
        assert tell(rag) == told


def test_the_command_moves_an_index(settings, tmp_path, capsys):
    with UltraFastRAG(tmp_path / "index", **settings) as rag:
        rag.add_texts(TEXTS)
    given = {name: value for name, value in settings.items() if name not in ("quiet", "query_cache")}
    named = [f"--set={name}={'null' if value is None else value}" for name, value in given.items()]
    assert cli.main(["migrate", "openai:new", "--to=text_dim=32", f"--index={tmp_path / 'index'}", "--json", *named]) == 0
    assert '"moved": 1.0' in capsys.readouterr().out
    with UltraFastRAG(tmp_path / "index", **{**settings, **NEW}) as rag:
        assert np.shape(list(vectors_of(rag).values())) == (len(TEXTS), 32)
