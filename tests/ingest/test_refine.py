"""Searchable first, refined later: the same answers meanwhile, the same index in the end, and nothing lost or done twice."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import signal
import sys
import threading
import time

import numpy as np
import pytest

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.bench.metrics import per_query
from ultrafast_rag.bench.publicsets import load
from ultrafast_rag.bench.settings import fresh_cache
from ultrafast_rag.errors import ConfigError, IndexLockedError
from ultrafast_rag.index.embedding_cache import NullCache
from ultrafast_rag.index.store import Store
from ultrafast_rag.ingest import refine
from ultrafast_rag.ingest.chunk import Chunker
from ultrafast_rag.ingest.embed import Embedded, Embedder
from ultrafast_rag.ingest.refine import Refiner
from ultrafast_rag.models.text.encoder import SentenceEncoder
from ultrafast_rag.monitor import StageClock
from ultrafast_rag.types import TEXT_SPACE, Chunk, PartCommit, Record

TEXT_ONLY = {"image_model": None, "speech_model": None, "quiet": True}
BOOK = "# The harbour book\n\n" + "\n\n".join(
    f"## Chapter {n} of the long tale of {place}\n\n{place} has a lamp of {n * 7} candles. Its keeper {name} trims it at "
    f"{n} o'clock. Ships from {place} carry {cargo} to the north, and come home before the frost."
    for n, (place, name, cargo) in enumerate(
        [("Kellow", "Marta", "salt"), ("Brenn", "Odo", "wool"), ("Sarn", "Ilse", "tin"), ("Vail", "Tomas", "oil")], 1
    )
)
TEXTS = [f"The {n}. ferry to {where} leaves from pier {n % 9} with {what}." for n, (where, what) in enumerate(
    [(a, b) for a in ("Kellow", "Brenn", "Sarn", "Vail", "Orrin") for b in ("wool", "horses", "glass", "letters", "grain", "tea")]
)]  # fmt: skip
QUESTIONS = ["Who trims the lamp at Brenn?", "What do vessels of Sarn transport?", "boat with animals to Vail", "tea for Orrin"]


def opened(folder, encode, **settings):
    return UltraFastRAG(folder, encode=encode, **{**TEXT_ONLY, "query_cache": False, **settings})


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.md"
    path.write_text(BOOK)
    return path


@pytest.fixture
def encoded(monkeypatch):
    """How many passages the sentence encoder was given."""
    counted, real = [], SentenceEncoder.encode_tokens

    def counting(self, token_ids):
        counted.extend(map(tuple, token_ids))
        return real(self, token_ids)

    monkeypatch.setattr(SentenceEncoder, "encode_tokens", counting)
    return counted


def found(rag, **options):
    return [[(hit.text, round(hit.score, 3)) for hit in rag.search(question, k=3, **options)] for question in QUESTIONS]


def test_unrefined_passages_are_found_as_refined_ones_and_the_index_ends_the_same(tmp_path, book):
    with opened(tmp_path / "a", "first") as first, opened(tmp_path / "b", "on_demand") as later:
        for rag in (first, later):
            rag.ingest(book)
            rag.add_texts(TEXTS, metadata=[{"title": f"Sailing list of the year {n}"} for n, _ in enumerate(TEXTS)])
        assert later.stats()["refined"] == 0
        assert later._store.vectors(TEXT_SPACE).chunk_ids.tolist() == []
        for options in ({}, {"alpha": 1.0}, {"alpha": 0.0}, {"filters": {"source": "book.md"}}):
            assert found(later, **options) == found(first, **options)
        assert later.stats()["refined"] == 0  # on demand: what questions ask for, and nothing else
        assert later.refine() == 1.0
        assert found(later) == found(first)
        ours, theirs = (rag._store.vectors(TEXT_SPACE) for rag in (later, first))
        assert ours.chunk_ids.tolist() == theirs.chunk_ids.tolist()
        assert np.abs(ours.take(slice(None)) - theirs.take(slice(None))).max() < 2e-3  # batches of other widths
        assert later._store.verify() == []
        assert [later._store.counts()[name] for name in later._store.counts() if name.startswith("vectors:static")] == [0]
        assert {
            name: n for name, n in later._store.counts().items() if not name.startswith("vectors:static")
        } == first._store.counts()


def test_what_a_question_encoded_is_not_encoded_again(tmp_path, encoded):
    cache = fresh_cache(tmp_path / "cache")
    with opened(tmp_path / "index", "on_demand", cache_dir=cache) as rag:
        rag.add_texts(TEXTS)
        assert encoded == []
        for question in QUESTIONS * 2:
            rag.search(question)
        asked = len(encoded)
        assert 0 < asked <= len(TEXTS)
    with opened(tmp_path / "index", "on_demand", cache_dir=cache) as rag:  # another session
        rag.search(QUESTIONS[0])
        assert len(encoded) == asked
        rag.refine()
    assert len(encoded) == len(set(encoded)) == len(TEXTS)


def test_only_the_likeliest_passages_are_encoded_for_a_question(tmp_path, encoded, monkeypatch):
    monkeypatch.setattr("ultrafast_rag.search.unrefined.ENCODED", 5)
    with opened(tmp_path / "index", "on_demand", cache_dir=fresh_cache(tmp_path / "cache")) as rag:
        rag.add_texts(TEXTS)
        hits = rag.search("the ferry that takes tea to Orrin", k=3)
        assert len(encoded) == 5
        assert "Orrin with tea" in hits[0].text.replace("leaves from pier 2 ", "")
        assert not any(np.isnan(hit.dense_score) for hit in hits)
        assert len(rag.search("ferry", k=12)) == 12  # as many as asked for


@pytest.mark.parametrize(("wait_s", "many"), [(0.0, 5), (float("inf"), len(TEXTS))])
def test_a_slow_machine_encodes_fewer_passages_for_a_question(tmp_path, encoded, monkeypatch, wait_s, many):
    monkeypatch.setattr("ultrafast_rag.search.unrefined.LEAST", 5)
    monkeypatch.setattr("ultrafast_rag.search.unrefined.WAIT_S", wait_s)
    with opened(tmp_path / "index", "on_demand", cache_dir=fresh_cache(tmp_path / "cache")) as rag:
        rag.add_texts(TEXTS)
        assert "tea" in rag.search("the ferry that takes tea to Orrin", k=3)[0].text
        assert len(encoded) == many


def test_a_question_asked_again_on_a_slow_machine_encodes_nothing_more(tmp_path, encoded, monkeypatch):
    quick = refine.Refiner._encoded

    def slow(*arguments):
        time.sleep(0.1)
        return quick(*arguments)

    monkeypatch.setattr(refine.Refiner, "_encoded", slow)
    monkeypatch.setattr("ultrafast_rag.search.unrefined.LEAST", 5)
    monkeypatch.setattr("ultrafast_rag.search.unrefined.WAIT_S", 0.05)
    with opened(tmp_path / "index", "on_demand", cache_dir=fresh_cache(tmp_path / "cache")) as rag:
        rag.add_texts(TEXTS)
        for _ in range(3):
            assert rag.search("the ferry that takes tea to Orrin", k=3)
        assert len(encoded) == 5


def test_progressive_refines_in_the_background_and_the_report_says_both(tmp_path, book):
    with opened(tmp_path / "index", "progressive", cache_dir=fresh_cache(tmp_path / "cache")) as rag:
        report = rag.ingest(book)
        assert (report.documents, report.complete) == (1, True)
        assert report.refined == 1 or f"searchable in {report.seconds:.2f} s; {report.refined:.0%} refined" in str(report)
        rag._refiner._thread.join(60)
        assert rag.stats()["refined"] == 1
        assert rag.ingest(book).unchanged == 1


def test_the_next_session_says_and_does_what_is_left(tmp_path, capfd):
    with opened(tmp_path / "index", "on_demand") as rag:
        rag.add_texts(TEXTS)
        assert any("passages get their vectors later" in row["reason"] for row in rag.doctor())
    with opened(tmp_path / "index", "progressive", quiet=False, cache_dir=fresh_cache(tmp_path / "cache")) as rag:
        rag._refiner.first()
    assert "searchable, 0% refined" in capfd.readouterr().err
    with opened(tmp_path / "index", "progressive") as rag:
        assert rag.search(QUESTIONS[0])  # goes on in the background
        rag._refiner._thread.join(60)
        assert rag.stats()["refined"] == 1
        assert not any(row["check"] == "refined" for row in rag.doctor())


def test_vectors_first_finishes_what_was_left_before_it_adds(tmp_path, book):
    with opened(tmp_path / "index", "on_demand") as rag:
        rag.add_texts(TEXTS)
    with opened(tmp_path / "index", "first") as rag:
        stopped = rag.ingest(book, time_budget_s=0)
        assert (stopped.complete, stopped.documents) == (False, 0)
        report = rag.ingest(book)
        assert (report.documents, report.refined) == (1, 1.0)
        owners = rag._store.vectors(TEXT_SPACE).chunk_ids
        assert len(set(owners.tolist())) == len(owners) == rag.stats()["chunks"]


def test_a_half_refined_document_can_be_deleted_read_again_and_changed(tmp_path, book, monkeypatch):
    monkeypatch.setattr(refine, "BATCH", 2)
    with opened(tmp_path / "index", "on_demand") as rag:
        rag.ingest(book)
        rag._refiner.run(stops_after(1), hold_s=math.inf)
        assert 0 < rag.stats()["refined"] < 1
        half = found(rag)
        assert all(half)
        book.write_text(BOOK.replace("Odo", "Wilhelmina"))
        rag.ingest(book)
        assert "Wilhelmina" in rag.search("Who trims the lamp at Brenn?")[0].text
        rag._refiner.run(stops_after(1), hold_s=math.inf)
        assert rag.delete(book)
        assert rag.stats()["refined"] == 1  # of what is there
        assert rag.search("lamp") == []
        rag.ingest(book)
        assert rag.refine() == 1
        assert rag._store.verify() == []
        assert "Wilhelmina" in rag.search("Who trims the lamp at Brenn?")[0].text


def test_a_half_refined_index_travels(tmp_path, book, monkeypatch):
    monkeypatch.setattr(refine, "BATCH", 4)
    with opened(tmp_path / "index", "on_demand") as rag:
        rag.ingest(book)
        rag.add_texts(TEXTS)
        rag._refiner.run(stops_after(2), hold_s=math.inf)
        share, answers = rag.stats()["refined"], found(rag)
        rag.export(tmp_path / "half.tar")
    with UltraFastRAG.restore(tmp_path / "half.tar", tmp_path / "other", encode="on_demand", **TEXT_ONLY) as rag:
        assert 0 < rag.stats()["refined"] == share < 1
        assert found(rag) == answers
        assert rag.refine() == 1
        assert found(rag) == answers


def stops_after(batches):
    """True once that many batches were begun."""
    asked, slices = [0], []

    def stopping():
        slices.append(None)
        asked[0] += 1
        return asked[0] > 2 * batches  # once before a batch, once before its only slice

    return stopping


def test_a_reader_asks_while_another_process_writes_and_leaves_the_lock_alone(tmp_path):
    with opened(tmp_path / "index", "on_demand") as writer:
        writer.add_texts(TEXTS)  # holds the lock from now on
        with opened(tmp_path / "index", "progressive") as reader:
            assert found(reader) == found(writer)
            if reader._refiner._thread is not None:
                reader._refiner._thread.join(60)  # another process refines, or nobody: no error, no warning
            with pytest.raises(IndexLockedError):
                reader.refine()
            writer.refine()
            assert reader._refiner.first() == 0
            assert found(reader) == found(writer)
    with opened(tmp_path / "more", "on_demand") as made:
        made.add_texts(TEXTS)
    with opened(tmp_path / "more", "on_demand") as asker, opened(tmp_path / "more", "first") as other:
        asker._refiner.run(lambda: False, hold_s=math.inf)  # refined, and gave the lock back
        assert other.add_texts(["A text more."]).documents == 1


def test_questions_are_answered_while_the_background_works(tmp_path):
    texts = [f"{text} Voyage {n} of {len(TEXTS)}." for n in range(8) for text in TEXTS]
    with opened(tmp_path / "index", "progressive", cache_dir=fresh_cache(tmp_path / "cache")) as rag:
        rag.add_texts(texts)
        asked, shares = 0, []
        while asked < 40 or (rag._refiner._thread.is_alive() and asked < 1000):
            assert len(rag.search(QUESTIONS[asked % 4] + f" {asked % 7}", k=5)) == 5
            shares.append(rag.stats()["refined"])
            asked += 1
        assert shares == sorted(shares)
        assert rag.refine() == 1
        assert len(rag._store.vectors(TEXT_SPACE).chunk_ids) == len(texts)


def test_a_bad_budget_is_refused(tmp_path):
    with opened(tmp_path / "index", "first") as rag, pytest.raises(ConfigError, match="time_budget_s"):
        rag.refine(time_budget_s=-1)


def test_unrefined_search_is_as_good_as_refined_on_public_questions(tmp_path, public_data):
    whole = load("squad2", public_data)
    names = list(whole.documents)[:200]
    kept = {q: gold for q, gold in whole.qrels.items() if set(gold) & set(names)}
    questions = dict(sorted((q, whole.questions[q]) for q in kept)[:: max(1, len(kept) // 80)])
    with opened(tmp_path / "index", "on_demand", collapse_duplicates=False) as rag:
        rag.add_texts([whole.documents[name] for name in names], ids=names)

        def quality(**options):
            run = {q: [hit.document_id for hit in rag.search(text, k=10, **options)] for q, text in questions.items()}
            return float(np.mean(list(per_query("ndcg", {q: kept[q] for q in questions}, run, k=10).values())))

        words, unrefined = quality(alpha=0.0), quality()
        rag.refine()
        assert quality() == pytest.approx(unrefined, abs=0.005)
        assert unrefined >= words


# ---- kills


class Words:
    """A sentence encoder that needs no weights: a vector follows from the tokens; each passage encoded is a line in a file."""

    fingerprint, space, dim, max_tokens, takes_tokens = "words", "words", 8, 256, True

    def __init__(self, log, lives=None):
        self.log, self.lives = log, lives

    def tokenize(self, texts):
        return [[sum(map(ord, word)) % 1000 for word in text.split()] for text in texts]

    def encode_tokens(self, token_ids):
        with self.log.open("a") as file:
            file.writelines(json.dumps(ids) + "\n" for ids in map(list, token_ids))
        if self.lives is not None:
            self.lives -= 1
            if self.lives < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.002)
        rows = np.stack([np.random.default_rng(list(ids)).standard_normal(self.dim) for ids in token_ids]).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def refiner_of(store, log, lives=None):
    from ultrafast_rag.config import Config

    words = Words(log, lives)

    def embedder():
        return Embedder(lambda: words, lambda: None, NullCache(), StageClock())

    return Refiner(store, lambda: Chunker(Config(), words), asking=embedder, writing=embedder)


def refine_until_killed(folder, log, lives):
    refine.BATCH = 16
    with Store.open(folder) as store:
        refiner_of(store, log, lives).run(lambda: False, hold_s=math.inf)
    os._exit(0)


@pytest.mark.fault
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_kills_lose_nothing_and_repeat_one_batch_at_most(tmp_path):
    folder, log = tmp_path / "index", tmp_path / "encoded.txt"
    chunks = [Chunk(f"passage {n} of many, said in {n * n} words") for n in range(600)]
    with Store.open(folder) as store:
        (state,) = store.begin_many([Record("a.txt", "hash", media_type="text/plain")])
        store.commit([PartCommit(state.document_key, 0, chunks, final=True)])
    kills, rng = 0, random.Random(7)
    for _ in range(200):
        # from outside at a random moment, and on any machine, however fast, from inside after a few batches at the latest
        arguments = (folder, log, rng.randint(1, 8))
        child = multiprocessing.get_context("fork").Process(target=refine_until_killed, args=arguments)
        child.start()
        child.join(rng.uniform(0.05, 0.35))
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        with Store.open(folder) as store:
            done = store.last_with(TEXT_SPACE)
            assert store.vectors(TEXT_SPACE).chunk_ids.tolist() == list(range(1, done + 1))
            if store.first_without(TEXT_SPACE) == 0:
                break
            assert store.first_without(TEXT_SPACE) == done + 1
    with Store.open(folder) as store:
        assert store.count_without(TEXT_SPACE) == 0
        assert store.verify() == []
        words = Words(tmp_path / "again.txt")
        wanted = words.encode_tokens(words.tokenize([chunk.text for chunk in chunks]))
        assert np.abs(store.vectors(TEXT_SPACE).take(slice(None)) - wanted).max() < 2e-3
    assert kills >= 3
    assert len(log.read_text().splitlines()) <= len(chunks) + 16 * kills


def test_the_background_waits_for_questions_but_not_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(refine, "PATIENCE_S", 0.3)
    with Store.open(tmp_path / "index") as store:
        (state,) = store.begin_many([Record("a.txt", "hash", media_type="text/plain")])
        store.commit([PartCommit(state.document_key, 0, [Chunk(f"passage {n}") for n in range(20)], final=True)])
        refiner = refiner_of(store, tmp_path / "encoded.txt")
        entered, leave = threading.Event(), threading.Event()

        def ask():
            with refiner.asking():
                entered.set()
                leave.wait(30)

        question = threading.Thread(target=ask)
        question.start()
        entered.wait(30)
        refiner.start()
        time.sleep(0.1)
        assert not (tmp_path / "encoded.txt").exists()
        refiner._thread.join(30)  # the question never ends
        assert refiner.first() == 0
        leave.set()
        question.join()


def test_as_many_passages_at_once_as_a_question_may_wait_for():
    def after(size, took_s, fresh):
        vectors = np.zeros((fresh, 2), np.float32)
        return refine._next_size(size, Embedded(fresh=[("encoder", [b"key"] * fresh, vectors)]), took_s, 0.1)

    assert [after(8, 0.01, 8), after(256, 0.01, 256)] == [16, 256]  # quick: twice as many, up to a commit
    assert [after(64, 0.07, 64), after(64, 0.2, 64), after(2, 0.9, 2)] == [64, 32, 2]
    assert after(64, 0.001, 3) == 64  # the cache was quick, not the encoder


def test_what_is_encoded_slowly_is_committed_before_a_batch_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(refine, "COMMIT_S", 1e-9)
    with Store.open(tmp_path / "index") as store:
        (state,) = store.begin_many([Record("a.txt", "hash", media_type="text/plain")])
        store.commit([PartCommit(state.document_key, 0, [Chunk(f"passage {n}") for n in range(20)], final=True)])
        refiner, batches = refiner_of(store, tmp_path / "encoded.txt"), []
        assert refiner.run(lambda: False, on_batch=batches.append)
        assert store.verify() == []
    assert sum(batches) == 20
    assert len(batches) > 1
