"""Memory, disk and a real Redis that is killed, paused and started again; what a stranger may have written there."""

from __future__ import annotations

import asyncio
import json
import math
import pickle
import sqlite3
import threading
import time
import warnings

import pytest
from redis_server import redis_server

from ultrafast_rag import Config, UltraFastRAG
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.index.result_disk import DiskTier
from ultrafast_rag.remote.redis_tier import RedisTier
from ultrafast_rag.search.query_cache import QueryCache, QueryMemory, copied, normalised
from ultrafast_rag.search.stored import from_json, to_json
from ultrafast_rag.types import Answer, Citation, Hit, Hits

TEXT_ONLY = {"image_model": None, "speech_model": None, "reader_model": None, "quiet": True}
PLACE = {"page": 4, "bbox": (1.0, 2.5, 3.0, 4.0), "start_s": 1.5, "end_s": 2.5}
HIT = Hit(3, "d", "a/b.pdf", "text", "Sea — ☀", 0.1 + 0.2, **PLACE, dense_score=0.75, title="T", metadata={"a": [1]}, focus="Sea")
HITS = Hits([HIT, Hit(9, "e", "c.txt", "table", "B", 1.0)], query="q", seconds=0.25, notes=("n",))
ANSWER = Answer("q", "Text [1].", HITS.copy(), (Citation(1, HITS[1], "B"),), generator="g", reason="r", support=0.5, notes=("m",))


@pytest.fixture
def server(tmp_path):
    with redis_server(tmp_path) as started:
        yield started


@pytest.fixture
def tier(server):
    made = RedisTier(server.url, ttl_s=3600, recovery_s=0.01)
    yield made
    made.close()


def until(true):
    """Wait, without a limit of our own, for what another thread or process does."""
    deadline = time.monotonic() + 60
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen")
        time.sleep(0.005)


# ---- values


def test_hits_and_answers_survive_json():
    back = from_json(to_json(HITS))
    assert (back.query, back.seconds, back.notes) == ("q", 0.25, ("n",))
    assert back[0].score == HIT.score
    assert math.isnan(back[0].lexical_score)
    assert back[0].bbox == HIT.bbox
    assert repr(list(back)) == repr(list(HITS))
    assert from_json(to_json(Hits(query="q"))) == []
    answer = from_json(to_json(ANSWER))
    assert answer.citations[0].hit is answer.hits[1]
    assert (answer.text, answer.support, answer.generator, answer.reason, answer.notes) == ("Text [1].", 0.5, "g", "r", ("m",))


def test_what_a_stranger_wrote_is_a_value_error():
    good = json.loads(to_json(ANSWER))

    def changed(path, value):
        body = json.loads(json.dumps(good))
        place = body
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value
        return json.dumps(body)

    bad = [
        b"",
        b"\x80\x04.",
        b"[]",
        b"{}",
        b'{"is": "hits"}',
        b"[" * 100_000,
        changed(["is"], "code"),
        changed(["text"], 3),
        changed(["supported"], "yes"),
        changed(["citations", 0, 1], 7),
        changed(["citations", 0, 1], -1),
        changed(["hits", "hits", "modality", 0], "script"),
        changed(["hits", "hits", "page", 0], "4"),
        changed(["hits", "hits", "page", 0], -1),
        changed(["hits", "hits", "chunk_id", 0], True),
        changed(["hits", "hits", "bbox", 0], [1, 2, 3]),
        changed(["hits", "hits", "bbox", 0], [1, 2, 3, "4"]),
        changed(["hits", "hits", "neighbours"], [["", 3], ["", ""]]),
        changed(["hits", "hits", "metadata", 0], []),
        changed(["hits", "hits", "score", 0], "high"),
        changed(["hits", "hits", "score", 0], 10**400),
        changed(["hits", "hits", "score"], [0.5]),
        changed(["hits", "hits", "document_id"], "de"),
        changed(["hits", "hits", "script"], ["", ""]),
        changed(["hits", "seconds"], None),
        to_json(ANSWER).replace("0.25", "NaN"),
    ]
    for text in bad:
        with pytest.raises(ValueError):
            from_json(text)


def test_a_question_is_the_same_however_it_is_spaced_and_composed():
    assert normalised("  Où\n est cafe\u0301 ? ") == normalised("Où est caf\u00e9 ?")
    assert normalised("US") != normalised("us")


# ---- memory


def test_memory_gives_copies_until_their_time_is_over():
    now = [0.0]
    memory = QueryMemory(ttl_s=10, clock=lambda: now[0])
    memory.put("key", HITS)
    memory.get("key").clear()
    assert memory.get("key") == HITS
    now[0] = 10.0
    assert memory.get("key") is None
    assert (memory.hits, memory.misses) == (2, 1)
    answer = copied(ANSWER)
    answer.hits.clear()
    assert len(ANSWER.hits) == 2


def test_memory_keeps_the_latest_used():
    memory = QueryMemory(entries=2)
    for key in ("a", "b"):
        memory.put(key, HITS)
    memory.get("a")
    memory.put("c", HITS)
    assert [key for key in "abc" if memory.get(key) is not None] == ["a", "c"]


# ---- disk


def test_disk_serves_the_next_session_until_time_or_invalidation(tmp_path):
    now = [1000.0]

    def opened(scope="index"):
        return QueryCache(scope, {"disk": DiskTier(tmp_path, ttl_s=3600)}, ttl_s=3600, clock=lambda: now[0])

    cache = opened()
    cache.put(("search", 1, "q"), HITS)
    cache.put(("mine", 1), HITS, shared=False)
    cache.close()
    cache = opened()
    assert repr(list(cache.get(("search", 1, "q")))) == repr(list(HITS))
    assert cache.get(("search", 2, "q")) is None
    assert cache.get(("mine", 1)) is None
    assert cache.get(("search", 1, "q"), shared=False) is not None  # memory has it now
    assert cache.get_stats() == {
        "hits": 2, "misses": 2, "hit_rate": 0.5, "memory_hits": 1, "disk_hits": 1, "entries": 1, "damaged": 0,
    }  # fmt: skip
    cache.close()
    other = opened("other index")
    assert other.get(("search", 1, "q")) is None
    other.invalidate()
    other.close()
    cache = opened()
    now[0] += 3600
    assert cache.get(("search", 1, "q")) is None
    now[0] -= 3600
    assert cache.get(("search", 1, "q")) is not None
    cache.invalidate()
    assert cache.get(("search", 1, "q")) is None
    assert cache.health_check() == {"memory": "ok", "disk": "ok"}
    cache.close()


def test_a_damaged_or_planted_row_is_a_miss_and_runs_nothing(tmp_path):
    cache = QueryCache("index", {"disk": DiskTier(tmp_path, ttl_s=3600)})
    cache.put(("q",), HITS)
    cache.close()

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    with sqlite3.connect(tmp_path / "cache.db") as database:
        (value,) = database.execute("SELECT value FROM Cache").fetchone()
        spoilt = bytes(value[:-9]) + b"X" + bytes(value[-8:])
        database.execute("UPDATE Cache SET value = ?", (spoilt,))
    cache = QueryCache("index", {"disk": DiskTier(tmp_path, ttl_s=3600)})
    assert cache.get(("q",)) is None
    cache.close()
    with sqlite3.connect(tmp_path / "cache.db") as database:
        database.execute("UPDATE Cache SET mode = 4, value = ?", (pickle.dumps(Bomb()),))
    cache = QueryCache("index", {"disk": DiskTier(tmp_path, ttl_s=3600)})
    with pytest.warns(RuntimeWarning, match="not used"):
        assert cache.get(("q",)) is None
    cache.close()
    assert not (tmp_path / "exploded").exists()


def test_a_folder_that_cannot_be_used_is_one_warning(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match="not used"):
        tier = DiskTier(tmp_path / "file" / "below", ttl_s=3600)
    cache = QueryCache("index", {"disk": tier})
    cache.put(("q",), HITS)
    cache.flush()
    assert cache.get(("q",)) == HITS
    assert "cannot be used" in cache.health_check()["disk"]
    cache.close()


def test_a_database_that_is_none_starts_empty(tmp_path):
    (tmp_path / "cache.db").write_bytes(b"nonsense" * 1000)
    cache = QueryCache("index", {"disk": DiskTier(tmp_path, ttl_s=3600)})
    assert cache.health_check()["disk"] == "ok"
    cache.close()


# ---- Redis


def test_redis_serves_another_process_until_invalidated(server, tier):
    first, second = (QueryCache("index", {"redis": RedisTier(server.url, ttl_s=3600)}) for _ in range(2))
    other = QueryCache("other", {"redis": RedisTier(server.url, ttl_s=3600)})
    for number in range(3):
        first.put(("q", number), ANSWER)
    other.put(("q", 0), HITS)
    first.flush()
    other.flush()
    assert second.get(("q", 1)).text == ANSWER.text
    assert second.health_check() == {"memory": "ok", "redis": "ok"}
    second.invalidate()
    third = QueryCache("index", {"redis": RedisTier(server.url, ttl_s=3600)})
    assert [third.get(("q", number)) for number in range(3)] == [None] * 3
    assert other.get(("q", 0)) is not None
    assert tier._client.ttl(next(iter(tier._client.scan_iter("ufr:other:*")))) > 0
    for cache in (first, second, third, other):
        cache.close()


def test_what_a_stranger_put_into_redis_is_a_miss(server, tier):
    cache = QueryCache("index", {"redis": tier})
    cache.put(("q",), HITS)
    cache.flush()
    (name,) = tier._client.scan_iter("ufr:*")
    for value in (b"\x80\x04}.", b'{"v": 1, "until": 9e99}\n{}', b"x" * (3 << 20), b""):
        tier._client.set(name, value)
        fresh = QueryCache("index", {"redis": tier})
        assert fresh.get(("q",)) is None
    assert tier.losses == 0


def test_a_paused_redis_costs_one_timeout_and_comes_back_by_itself(server, tier):
    tier.write("s", b"n", b"value")
    server.pause()
    asked = []
    command = tier._client.getrange
    tier._client.getrange = lambda *args: asked.append(args) or command(*args)
    with pytest.warns(RuntimeWarning, match="Redis is lost") as seen:
        assert [tier.read("s", b"n") for _ in range(50)] == [None] * 50
    assert len(asked) == 1  # the breaker kept the other 49 away
    assert len(seen) == 1
    assert tier.health().startswith("lost")
    server.go_on()
    until(lambda: tier.health() == "ok")
    assert tier.read("s", b"n") == b"value"
    server.pause()  # flapping: again one question to it, and no second warning
    asked.clear()
    assert [tier.read("s", b"n") for _ in range(50)] == [None] * 50
    assert len(asked) == 1
    server.go_on()
    until(lambda: tier.health() == "ok")
    assert tier.losses == 2


def test_a_killed_redis_comes_back_empty(server, tier):
    tier.write("s", b"n", b"value")
    server.kill()
    with pytest.warns(RuntimeWarning, match="Redis is lost"):
        assert tier.read("s", b"n") is None
    server.start()
    until(lambda: tier.health() == "ok")
    assert tier.read("s", b"n") is None
    tier.write("s", b"n", b"again")
    assert tier.read("s", b"n") == b"again"


def test_no_question_fails_when_redis_is_killed_under_load(tmp_path, server):
    config = Config(redis_url=server.url, **TEXT_ONLY)
    with UltraFastRAG(tmp_path / "index", config=config) as rag, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one that Redis is lost, from whichever thread meets it first
        rag.add_texts([f"Lamp number {number} burns {number} litres of oil." for number in range(40)])
        wanted = [rag.search(f"lamp number {number}", k=1)[0].chunk_id for number in range(40)]
        rag.query_cache.flush()
        failed, answered, started = [], [], threading.Semaphore(0)

        def ask(seed):
            for turn in range(60):
                number = (seed * 7 + turn) % 40
                rag.query_cache.memory.clear()
                try:
                    answered.append(rag.search(f"lamp number {number}", k=1)[0].chunk_id == wanted[number])
                except Exception as error:
                    failed.append(error)
                started.release()

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(40):
            started.acquire()
        server.kill()
        for _ in range(40):
            started.acquire()
        server.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert len(answered) == 240
        assert all(answered)
        assert rag.stats()["query_cache"]["redis_hits"] > 0


def test_an_address_is_never_shown():
    with pytest.raises(ConfigError, match="REDIS_URL"):
        Config(redis_url="redis://:secret@host:1")
    with pytest.raises(ConfigError) as raised:
        RedisTier("http://:secret@host:1", ttl_s=1)
    assert "secret" not in str(raised.value)


# ---- in rag


def test_answers_are_found_again_by_the_next_session_and_not_after_a_change(tmp_path):
    config = Config(query_cache_disk=True, **TEXT_ONLY)
    question = "What does the lamp burn?"
    with UltraFastRAG(tmp_path / "index", config=config) as rag:
        rag.add_texts(["The lamp burns colza oil since 1871."], ids=["lamp"])
        first = rag.query(question)
    with UltraFastRAG(tmp_path / "index", config=config) as rag:
        again = rag.query(f"  {question} ")
        assert again.cached
        assert again.text == first.text
        assert repr(again.citations) == repr(first.citations)
        assert rag.stats()["models"] == {}
        rag.add_texts(["The lamp burns paraffin since 1904."], ids=["lamp"])
        changed = rag.query(question)
        assert not changed.cached
        assert "paraffin" in changed.text
    with UltraFastRAG(tmp_path / "index", config=config.replace(alpha=0.0)) as rag:
        assert not rag.query(question).cached


def test_a_hundred_identical_concurrent_queries_run_once(tmp_path):
    calls = []

    def writer(question, hits):
        calls.append(question)
        return "Oil [1]."

    async def ask(rag):
        return await asyncio.gather(*(rag.aquery("What burns?", generator=writer) for _ in range(100)))

    with UltraFastRAG(tmp_path / "index", config=Config(query_cache=False, **TEXT_ONLY)) as rag:
        rag.add_texts(["The lamp burns colza oil since 1871."])
        answers = asyncio.run(ask(rag))
    assert calls == ["What burns?"]
    assert {answer.text for answer in answers} == {"Oil [1]."}
    assert len({id(answer.hits) for answer in answers}) == 100
