"""Questions asked at once are encoded together, and each gets its own vector."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from ultrafast_rag.monitor import PerformanceMonitor
from ultrafast_rag.search.gather import MOST, Gatherer


class Slow:
    """Counts what each call brings; the first call waits until it is let go."""

    def __init__(self):
        self.calls, self.begun, self.go = [], threading.Event(), threading.Event()

    def encode_queries(self, questions):
        self.calls.append(list(questions))
        self.begun.set()
        assert self.go.wait(30)
        if "bad" in questions:
            raise ValueError("bad")
        return np.array([[len(question)] for question in questions], np.float32)


@pytest.fixture
def gatherer():
    gatherer = Gatherer(PerformanceMonitor())
    yield gatherer
    gatherer.close()


def test_what_comes_while_the_encoder_is_busy_goes_in_one_call(gatherer):
    encoder = Slow()
    first = gatherer.submit(encoder, "a")
    assert encoder.begun.wait(30)
    others = [gatherer.submit(encoder, "b" * n) for n in range(1, MOST + 6)]
    encoder.go.set()
    assert first.result(30) == [1]
    assert [float(one.result(30)[0]) for one in others] == list(range(1, MOST + 6))
    assert [len(call) for call in encoder.calls] == [1, MOST, 5]


def test_encoders_are_kept_apart_and_an_error_reaches_those_it_concerns(gatherer):
    one, other = Slow(), Slow()
    waiting = gatherer.submit(one, "a")
    assert one.begun.wait(30)
    asked = [gatherer.submit(one, "ab"), gatherer.submit(other, "bad"), gatherer.submit(one, "abc")]
    one.go.set()
    other.go.set()
    assert waiting.result(30) == [1]
    assert (asked[0].result(30), asked[2].result(30)) == ([2], [3])
    with pytest.raises(ValueError, match="bad"):
        asked[1].result(30)
    assert one.calls == [["a"], ["ab", "abc"]]
