"""Tiers, decay, merging, recall, forgetting and durability; the clock is a number, the encoder letters."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from ultrafast_rag import MemoryConsolidator
from ultrafast_rag.answer.memory import FADED, HALF_LIFE_S, Memory, Tier
from ultrafast_rag.errors import ConfigError, StorageError

DAY = 86_400.0


def encode(texts):
    """Counts of letters, unit length: the same letters are the same direction."""
    counts = np.array([[text.lower().count(chr(97 + n)) + 1e-6 for n in range(26)] for text in texts], np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


class Clock:
    now = 1e9

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def memory(tmp_path, clock):
    made = MemoryConsolidator(tmp_path / "memory.sqlite3", encode=encode, clock=clock)
    yield made
    made.close()


def tier_of(memory, id):
    return next((m.tier for m in memory.memories() if m.id == id), None)


def test_what_is_remembered_is_recalled_by_meaning_and_counted(memory):
    pump = memory.remember("The pump is an X200.", importance=0.9)
    memory.remember("zzz qqq jjj")
    assert [m.id for m in memory.recall("which pump is that")] == [pump.id]
    assert memory.recall("which pump is that", count=False)[0].access_count == 1
    assert memory.recall("which pump is that")[0].score > 0.45
    assert memory.memories()[0].access_count == 2
    assert memory.recall("ww vv") == []


def test_an_important_note_climbs_to_semantic_and_a_used_turn_to_episodic(memory, clock):
    note = memory.remember("The pump is an X200.", importance=0.9).id
    turn = memory.remember("What pump?\nAn X200 [1].", kind="turn").id
    idle = memory.remember("zzz qqq jjj", kind="turn", importance=0.3).id
    path = [(tier_of(memory, note), tier_of(memory, turn))]
    memory.recall("pump")
    memory.recall("pump")
    for step_s in (HALF_LIFE_S[Tier.WORKING], 60.0, DAY, DAY):
        clock.now += step_s
        memory.run_consolidation()
        path.append((tier_of(memory, note), tier_of(memory, turn)))
    assert path == [
        (Tier.WORKING, Tier.WORKING),
        (Tier.SHORT_TERM, Tier.SHORT_TERM),
        (Tier.LONG_TERM, Tier.LONG_TERM),
        (Tier.SEMANTIC, Tier.EPISODIC),
        (Tier.SEMANTIC, Tier.EPISODIC),
    ]
    assert tier_of(memory, idle) is Tier.SHORT_TERM
    clock.now += 3 * DAY
    assert memory.run_consolidation().forgotten == 1
    assert tier_of(memory, idle) is None


def test_strength_halves_with_each_half_life_and_rises_with_use():
    fresh = Memory(1, "x", tier=Tier.SHORT_TERM, importance=0.8, accessed_s=0.0)
    assert fresh.strength(0) == 0.8
    assert fresh.strength(2 * DAY) == pytest.approx(0.2)
    assert Memory(1, "x", importance=0.5, access_count=3).strength(0) == pytest.approx(1.5)


def test_candidates_are_what_a_consolidation_then_does(memory, clock):
    for n in range(20):
        memory.remember(f"{chr(97 + n) * 5} {n}", importance=n / 20, kind="turn" if n % 2 else "note", tier=list(Tier)[n % 5])
    clock.now += 2 * DAY
    expected = {one.memory.id: one.to_tier for tier in Tier for one in memory.analyze_candidates(tier.value)}
    assert expected
    before = {m.id: m.tier for m in memory.memories()}
    memory.run_consolidation()
    after = {m.id: m.tier for m in memory.memories()}
    assert {id: after.get(id) for id in before if after.get(id) is not before[id]} == expected
    strengths = [one.strength for one in memory.analyze_candidates(Tier.SHORT_TERM)]
    assert strengths == sorted(strengths, reverse=True)
    assert all(one.strength < FADED or one.to_tier for tier in Tier for one in memory.analyze_candidates(tier))


def test_the_same_words_twice_become_one_with_both_uses(memory):
    first = memory.remember("The pump is an X200.", importance=0.9)
    memory.recall("pump")
    second = memory.remember("the pump is an  x200", importance=0.2)
    other = memory.remember("The pump is an X300.", importance=0.2)
    assert memory.run_consolidation().merged == 1
    kept = {m.id: m for m in memory.memories()}
    assert set(kept) == {second.id, other.id}
    assert (kept[second.id].importance, kept[second.id].access_count) == (0.9, 1)
    assert first.id not in kept


def test_promotion_by_hand(memory):
    made = memory.remember("x")
    assert memory.promote_memory(made.id, Tier.SEMANTIC).tier is Tier.SEMANTIC
    with pytest.raises(ConfigError, match="no memory 99"):
        memory.promote_memory(99, Tier.SEMANTIC)
    with pytest.raises(ValueError, match="attic"):
        memory.promote_memory(made.id, "attic")


def test_forgetting_takes_the_words_out_of_the_file(memory, tmp_path):
    memory.remember("My telephone number is 555-0199-SECRET.")
    memory.remember("zzz qqq jjj")
    assert len(memory.forget_about("my telephone number")) == 1
    assert [m.text for m in memory.memories()] == ["zzz qqq jjj"]
    memory.close()
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"SECRET" not in left
    assert b"zzz qqq" in left


def test_memories_survive_kill_9(tmp_path):
    script = textwrap.dedent("""
        import os, signal, sys
        from ultrafast_rag import MemoryConsolidator
        memory = MemoryConsolidator(sys.argv[1])
        for n in range(5):
            memory.remember(f"fact {n}")
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "m")], env={**os.environ}, check=False)
    assert done.returncode == -signal.SIGKILL
    memory = MemoryConsolidator(tmp_path / "m")
    assert [m.text for m in memory.memories()] == [f"fact {n}" for n in range(5)]
    memory.close()


def test_vectors_of_another_encoder_are_made_anew(tmp_path):
    for space in ("one", "two"):
        shorter = encode if space == "two" else lambda texts: encode(texts)[:, :20]
        memory = MemoryConsolidator(tmp_path / "m", encode=shorter, space=space)
        if space == "one":
            memory.remember("The pump is an X200.")
        assert len(memory.recall("a pump made of lead")) == 1
        memory.close()


def test_without_an_encoder_shared_words_recall():
    memory = MemoryConsolidator()
    memory.remember("The pump is an X200.")
    assert memory.recall("which pump?")[0].text == "The pump is an X200."
    assert memory.recall("which valve?") == []
    memory.close()


def test_rows_of_a_stranger_are_left_out(memory, tmp_path):
    memory.remember("The pump is an X200.")
    with sqlite3.connect(tmp_path / "memory.sqlite3") as other:
        row = ("x", "turn", "attic", 0.5, 0.0, 0.0, 0, "", "{}", "", b"1")
        sound = {2: "working"}
        for changed in ({}, sound | {1: "code"}, sound | {3: "high"}, sound | {8: "[" * 9}, sound | {0: 3}):
            values = [changed.get(n, value) for n, value in enumerate(row)]
            other.execute(f"INSERT INTO memories VALUES (NULL{', ?' * 11})", values)
    assert len(memory.memories()) == 1 + 1  # SQLite keeps 3 as the text "3", which is a memory
    assert memory.recall("which pump is that")[0].text == "The pump is an X200."
    memory.run_consolidation()


def test_the_background_task_consolidates_and_stops(memory):
    ran = threading.Event()
    consolidate = memory.run_consolidation
    memory.run_consolidation = lambda: (consolidate(), ran.set())
    memory.start_background_task(0.01)
    memory.start_background_task(0.01)  # no second one
    assert ran.wait(60)
    assert memory.get_stats()["background"]
    memory.stop_background_task()
    assert not memory.get_stats()["background"]
    with pytest.raises(ConfigError, match="interval_s"):
        memory.start_background_task(0)


def test_stats_are_json(memory, clock):
    memory.remember("a", importance=0.5)
    memory.remember("b", importance=0.7, kind="turn", tier=Tier.EPISODIC)
    stats = json.loads(json.dumps(memory.get_stats()))
    assert stats["total"] == 2
    assert stats["tiers"] == {"working": 1, "short-term": 0, "long-term": 0, "episodic": 1, "semantic": 0}
    assert stats["kinds"] == {"note": 1, "turn": 1}
    assert stats["mean_strength"] == pytest.approx(0.6)


def test_misuse_and_a_folder_that_refuses_are_told(memory, tmp_path):
    with pytest.raises(ConfigError, match="words"):
        memory.remember("  ")
    with pytest.raises(ConfigError, match="the text"):
        memory.remember("a\0b")
    with pytest.raises(ConfigError, match="importance"):
        memory.remember("x", importance=2)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be used"):
        MemoryConsolidator(tmp_path / "file" / "m")
