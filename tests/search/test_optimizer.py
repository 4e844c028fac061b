"""One execution for all who ask at once; time to live; what is fetched ahead. The clock is a number here."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ultrafast_rag import QueryOptimizer
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.search.optimizer import Call


class Work:
    """Counts its executions, and waits to be let on."""

    def __init__(self):
        self.asked, self.gate = [], asyncio.Event()

    async def __call__(self, what):
        self.asked.append(what)
        await self.gate.wait()
        if what == "bad":
            raise ValueError("no")
        return [what]


@pytest.fixture
def clock():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    return Clock()


async def test_a_hundred_at_once_are_one_execution():
    work, optimizer = Work(), QueryOptimizer()
    tasks = [asyncio.create_task(optimizer.execute_query("key", work, "a")) for _ in range(100)]
    await asyncio.sleep(0)
    assert optimizer.get_stats()["in_flight"] == 1
    work.gate.set()
    results = await asyncio.gather(*tasks)
    assert work.asked == ["a"]
    assert all(result == ["a"] for result in results)
    assert len({id(result) for result in results}) == 100
    stats = optimizer.get_stats()
    assert (stats["queries"], stats["misses"], stats["shared"], stats["size"], stats["in_flight"]) == (100, 1, 99, 1, 0)


async def test_plain_functions_run_beside_the_loop():
    here = threading.get_ident()
    assert await QueryOptimizer().execute_query("key", threading.get_ident) != here


async def test_results_live_for_their_time_and_are_copies(clock):
    work, optimizer = Work(), QueryOptimizer(ttl_s=10, clock=clock)
    work.gate.set()
    first = await optimizer.execute_query("key", work, "a")
    first.append("spoilt")
    clock.now = 9.9
    assert await optimizer.execute_query("key", work, "a") == ["a"]
    assert len(work.asked) == 1
    clock.now = 10.0
    await optimizer.execute_query("key", work, "a")
    assert len(work.asked) == 2


async def test_who_gives_up_takes_nobodys_answer_away():
    work, optimizer = Work(), QueryOptimizer()
    first, second = (asyncio.create_task(optimizer.execute_query("key", work, "a")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    work.gate.set()
    assert await second == ["a"]
    with pytest.raises(asyncio.CancelledError):
        await first
    assert work.asked == ["a"]


async def test_when_all_give_up_the_work_stops_and_the_next_starts_anew():
    work, optimizer = Work(), QueryOptimizer()
    tasks = [asyncio.create_task(optimizer.execute_query("key", work, "a")) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    work.gate.set()
    assert await optimizer.execute_query("key", work, "a") == ["a"]
    assert work.asked == ["a", "a"]
    assert optimizer.get_stats()["in_flight"] == 0


async def test_errors_reach_all_who_wait_and_are_not_kept():
    work, optimizer = Work(), QueryOptimizer()
    work.gate.set()
    results = await asyncio.gather(*(optimizer.execute_query("key", work, "bad") for _ in range(3)), return_exceptions=True)
    assert [str(error) for error in results] == ["no"] * 3
    assert len(work.asked) == 1
    with pytest.raises(ValueError, match="no"):
        await optimizer.execute_query("key", work, "bad")
    assert len(work.asked) == 2


async def test_what_is_invalidated_in_flight_is_delivered_but_not_kept():
    work, optimizer = Work(), QueryOptimizer()
    task = asyncio.create_task(optimizer.execute_query("key", work, "a"))
    await asyncio.sleep(0)
    assert optimizer.invalidate_cache("key") == 0
    work.gate.set()
    assert await task == ["a"]
    assert optimizer.get_stats()["size"] == 0
    for name in ("key", "other"):
        await optimizer.execute_query(name, work, "a")
    assert optimizer.invalidate_cache("key") == 1
    assert optimizer.get_stats()["size"] == 1
    assert optimizer.invalidate_cache() == 1


async def test_a_likely_next_question_is_fetched_ahead():
    work, optimizer = Work(), QueryOptimizer(prefetch=1)
    work.gate.set()
    for key in ("a", "b", "a", "b"):
        await optimizer.execute_query(key, work, key)
    assert optimizer.likely_next("a") == ["b"]
    assert optimizer.likely_next("b") == []
    optimizer.invalidate_cache()
    work.asked.clear()
    await optimizer.execute_query("a", work, "a")
    while optimizer.get_stats()["size"] < 2:
        await asyncio.sleep(0)
    assert work.asked == ["a", "b"]
    before = optimizer.get_stats()["misses"]
    assert await optimizer.execute_query("b", work, "b") == ["b"]
    assert optimizer.get_stats()["misses"] == before
    assert optimizer.get_stats()["prefetched"] == 1


async def test_known_questions_are_computed_before_they_are_asked():
    work, optimizer = Work(), QueryOptimizer()
    work.gate.set()
    failed = await optimizer.precompute({name: Call(work, (name,)) for name in ("a", "b", "bad")})
    assert list(failed) == ["bad"]
    assert await optimizer.execute_query("b", work, "b") == ["b"]
    assert sorted(work.asked) == ["a", "b", "bad"]
    assert optimizer.get_stats()["hits"] == 1


async def test_the_oldest_result_makes_room():
    work, optimizer = Work(), QueryOptimizer(entries=2)
    work.gate.set()
    for key in ("a", "b", "a", "c", "a", "b"):
        await optimizer.execute_query(key, work, key)
    assert work.asked == ["a", "b", "c", "b"]


def test_one_optimizer_serves_loops_one_after_the_other():
    optimizer = QueryOptimizer(ttl_s=0)

    async def ask():
        return await optimizer.execute_query("key", list, "ab")

    assert [asyncio.run(ask()), asyncio.run(ask())] == [["a", "b"], ["a", "b"]]


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError):
        QueryOptimizer(ttl_s=-1)
