"""Batches: every row once, within budget, smaller after an out-of-memory error, no NaN let through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultrafast_rag.errors import DeviceMemoryError, EncodingError
from ultrafast_rag.models.batching import Governor, bad_rows, batches, guarded, is_out_of_memory, run_governed


class OutOfMemoryError(RuntimeError):
    """Named like torch's, which is told by its name."""


class Device:
    """Holds so many padded tokens at once."""

    def __init__(self, lengths, capacity):
        self.lengths, self.capacity, self.ran = lengths, capacity, []

    def __call__(self, rows):
        size = len(rows) * max(self.lengths[r] for r in rows)
        if size > self.capacity:
            raise OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} tokens")
        self.ran.append(size)
        return [(row, self.lengths[row]) for row in rows]


@given(st.lists(st.integers(1, 512), max_size=200), st.integers(1, 4096), st.one_of(st.none(), st.integers(1, 9)))
def test_batches_hold_every_row_once_within_budget_longest_first(lengths, budget, max_rows):
    found = list(batches(lengths, budget=budget, max_rows=max_rows))
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
    for rows in found:
        longest = max(lengths[row] for row in rows)
        assert len(rows) == 1 or len(rows) * longest <= budget
        assert max_rows is None or len(rows) <= max_rows
    firsts = [lengths[rows[0]] for rows in found]
    assert firsts == sorted(firsts, reverse=True)


def test_padding_counts_against_the_budget():
    assert [len(rows) for rows in batches([9] * 8, budget=64, padded=lambda n: -(-n // 16) * 16)] == [4, 4]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(60, 400))
def test_out_of_memory_loses_no_row(lengths, capacity):
    device, results = Device(lengths, capacity), {}
    for rows, out in run_governed(lengths, device, governor=Governor(4096)):
        assert [row for row, _ in out] == rows
        results.update(out)
    assert results == dict(enumerate(lengths))


def test_the_budget_halves_and_climbs_back_by_tenths():
    governor = Governor(1000, climb_after=2)
    governor.on_oom(900)
    assert governor.budget == 450
    for _ in range(2):
        governor.on_success()
    assert governor.budget == 550
    for _ in range(50):
        governor.on_success()
    assert governor.budget == 1000


def test_memory_is_released_before_each_retry():
    lengths, released = [50] * 40, []
    device = Device(lengths, 300)
    list(run_governed(lengths, device, governor=Governor(2000), release=lambda: released.append(len(device.ran))))
    assert released[:3] == [0, 0, 0]  # 2000 -> 1000 -> 500 -> 250
    assert max(device.ran) <= 300


def test_one_text_that_does_not_fit_alone_is_a_typed_error():
    with pytest.raises(DeviceMemoryError, match="500 tokens"):
        list(run_governed([10, 500], Device([10, 500], 100), governor=Governor(1000)))


def test_other_errors_are_not_taken_for_a_full_device():
    def broken(rows):
        raise RuntimeError("index out of range")

    with pytest.raises(RuntimeError, match="index out of range"):
        list(run_governed([1, 2], broken, governor=Governor(10)))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("out of memory"))


def unit(n, d=8):
    vectors = np.random.default_rng(n).standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, 1e30])
def test_bad_rows_are_found_and_encoded_again(value):
    vectors, exact = unit(6), unit(6)
    damaged = vectors.copy()
    damaged[[1, 4]] = value
    assert bad_rows(damaged) == [1, 4]
    asked = []

    def again(rows):
        asked.append(rows)
        return exact[rows]

    repaired = guarded(damaged, again, str)
    assert asked == [[1, 4]]
    np.testing.assert_array_equal(repaired[[1, 4]], exact[[1, 4]])
    np.testing.assert_array_equal(repaired[[0, 2, 3, 5]], vectors[[0, 2, 3, 5]])


def test_sound_rows_cost_no_second_look():
    vectors = unit(5)
    assert guarded(vectors, lambda rows: pytest.fail("encoded again"), str) is vectors


def test_a_row_bad_even_in_float32_is_named():
    vectors = unit(3)
    vectors[2] = np.nan
    with pytest.raises(EncodingError, match="the third text"):
        guarded(vectors, lambda rows: vectors[rows], lambda row: ["", "", "the third text"][row])
