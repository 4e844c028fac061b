"""Three overlapping steps lose nothing, keep order, and end cleanly when one fails."""

from __future__ import annotations

import threading
import time

import pytest

from ultrafast_rag.ingest.stages import Overlap


def run(producers, work, consume, *, stop=None):
    Overlap(items_ahead=3, results_ahead=2, stop=stop or threading.Event()).run(producers, work, consume)


def doubled(items):
    for item in items:
        if item is not None:
            yield item * 2


def names():
    return {thread.name for thread in threading.enumerate()}


def test_everything_produced_is_consumed_in_each_producers_order():
    got = []
    run([iter(range(0, 100)), iter(range(1000, 1100))], doubled, got.append)
    assert sorted(got) == [2 * n for n in (*range(100), *range(1000, 1100))]
    assert [n for n in got if n < 2000] == list(range(0, 200, 2))


def test_a_lull_is_told_so_that_work_need_not_wait():
    def slow():
        yield 1
        time.sleep(0.2)
        yield 2

    seen = []
    run([slow()], lambda items: (seen.append(item) or 0 for item in items), lambda _: None)
    assert seen[0] == 1
    assert seen[-1] == 2
    assert None in seen


@pytest.mark.parametrize("step", ["produce", "work", "consume"])
def test_the_first_error_of_any_step_is_raised_and_no_thread_stays(step):
    def fail_at_5(items):
        for n, item in enumerate(items):
            if n == 5:
                raise ValueError(step)
            yield item

    consumed = []

    def consume(item):
        consumed.append(item)
        if step == "consume" and len(consumed) == 5:
            raise ValueError(step)

    endless = iter(int, 1)
    stop = threading.Event()
    producers = [fail_at_5(endless) if step == "produce" else endless, iter(int, 1)]
    with pytest.raises(ValueError, match=step):
        run(producers, (lambda items: doubled(fail_at_5(items))) if step == "work" else doubled, consume, stop=stop)
    assert stop.is_set()
    assert not {name for name in names() if name.startswith(("ufr-read", "ufr-commit"))}


def test_queues_are_bounded():
    produced = []

    def count():
        for n in range(100):
            produced.append(n)
            yield n

    consumed = []

    def consume(item):
        consumed.append(item)
        # three waiting before the middle step, two after it, and one in each pair of hands
        assert len(produced) - len(consumed) <= 3 + 2 + 3

    run([count()], doubled, consume)
    assert len(consumed) == 100
