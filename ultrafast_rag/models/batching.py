"""Batches that waste no padding and survive a full device; no vector that is not a direction.

Texts are sorted by length and cut into batches of about equal token count, so a batch fits the cache
of a CPU or the memory of a GPU whatever the texts are. Knows nothing of torch: out-of-memory errors are
recognised by name, and the device is a callable, so every rule here is testable without one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from ultrafast_rag.errors import DeviceMemoryError, EncodingError
from ultrafast_rag.types import Vectors

T = TypeVar("T")
_MOST_AGAIN, _LEAST_AGAIN = 0.01, 8  # rows encoded twice: over this share, and at least so many, half precision is given up
_UNIT_TOLERANCE = 0.02  # float16 and bf16 rows of unit length stay well within


class Governor:
    """The token budget of a batch: halved when memory runs out, climbing back by tenths.

    budget: tokens a batch may hold, padding counted. ceiling: where it started and may return to.
    """

    def __init__(self, ceiling: int, *, climb_after: int = 8) -> None:
        if ceiling < 1:
            raise ValueError(f"a batch needs a budget of at least one token, not {ceiling}")
        self.ceiling, self.budget, self.halvings = ceiling, ceiling, 0
        self._climb_after, self._calm = climb_after, 0

    def on_oom(self, tokens: int) -> None:
        """Memory ran out on a batch of `tokens`: the next may hold half of that."""
        self.budget = max(1, min(self.budget, tokens) // 2)
        self.halvings += 1
        self._calm = 0

    def on_success(self) -> None:
        """One batch done; after `climb_after` of them the budget grows by a tenth of the ceiling."""
        self._calm += 1
        if self.budget < self.ceiling and self._calm >= self._climb_after:
            self.budget = min(self.ceiling, self.budget + max(1, self.ceiling // 10))
            self._calm = 0


def by_length(lengths: Sequence[int]) -> list[int]:
    """Row numbers, longest first: memory peaks at once, and what is allocated serves all that follows."""
    return sorted(range(len(lengths)), key=lambda row: -lengths[row])


def take(
    order: Sequence[int],
    start: int,
    lengths: Sequence[int],
    *,
    budget: int,
    max_rows: int | None = None,
    padded: Callable[[int], int] = int,
) -> list[int]:
    """The rows from `start` on that fit `budget` once padded to the first, which is the longest; at least one."""
    rows = max(1, budget // max(1, padded(lengths[order[start]])))
    return list(order[start : start + (rows if max_rows is None else min(rows, max_rows))])


def batches(
    lengths: Sequence[int], *, budget: int, max_rows: int | None = None, padded: Callable[[int], int] = int
) -> Iterator[list[int]]:
    """Cut rows into batches of at most `budget` padded tokens (one row may exceed it alone), longest first.

    padded: the length a text is padded to, for devices that like few different shapes.
    """
    order, start = by_length(lengths), 0
    while start < len(order):
        rows = take(order, start, lengths, budget=budget, max_rows=max_rows, padded=padded)
        start += len(rows)
        yield rows


def run_governed(
    lengths: Sequence[int],
    run: Callable[[list[int]], T],
    *,
    governor: Governor,
    max_rows: int | None = None,
    padded: Callable[[int], int] = int,
    release: Callable[[], None] = lambda: None,
) -> Iterator[tuple[list[int], T]]:
    """Yield (rows, run(rows)) over all rows, with smaller batches after an out-of-memory error.

    release: frees cached device memory before the retry. Raises DeviceMemoryError when one text alone does not fit.
    """
    order, start = by_length(lengths), 0
    while start < len(order):
        rows = take(order, start, lengths, budget=governor.budget, max_rows=max_rows, padded=padded)
        result, failure = _attempt(run, rows)
        if failure is not None:  # handled outside the except block: its traceback would keep tensors alive
            if len(rows) == 1:
                raise DeviceMemoryError(
                    f"out of memory on a single text of {lengths[rows[0]]} tokens ({failure}). Free the device, "
                    "choose a smaller model, or set device='cpu'"
                )
            governor.on_oom(len(rows) * padded(lengths[rows[0]]))
            release()
            continue
        governor.on_success()
        start += len(rows)
        yield rows, result  # type: ignore[misc]  # failure is None, so result is a T


def _attempt(run: Callable[[list[int]], T], rows: list[int]) -> tuple[T | None, str | None]:
    try:
        return run(rows), None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None, (str(error).splitlines() or [type(error).__name__])[0][:200]


def is_out_of_memory(error: BaseException) -> bool:
    """True for torch's and Python's out-of-memory errors, told by type name or message."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("out of memory", "can't allocate memory", "alloc_failed", "bad allocation")
    )


def bad_rows(vectors: Vectors) -> list[int]:
    """Rows that are not finite, or not of unit length."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    return [int(row) for row in np.flatnonzero(~(np.abs(norms - 1) < _UNIT_TOLERANCE))]


def guarded(vectors: Vectors, encode_fp32: Callable[[list[int]], Vectors], name_of: Callable[[int], str]) -> Vectors:
    """`vectors` with NaN, infinite and zero rows replaced by `encode_fp32(rows)`, computed in float32.

    name_of: a text to show for a row. Raises EncodingError naming the first text that has no vector even so.
    """
    bad = bad_rows(vectors)
    if not bad:
        return vectors
    again = encode_fp32(bad)
    if still := bad_rows(again):
        raise EncodingError(f"the model gives no usable vector for {name_of(bad[still[0]])!r}, even in float32")
    repaired = vectors.copy()
    repaired[bad] = again
    return repaired


class Overflow:
    """Counts the rows that half precision could not hold and float32 encoded again."""

    def __init__(self) -> None:
        self.rows = self.again = 0

    @property
    def too_many(self) -> bool:
        """More than one row in a hundred: from here on float32 should encode all of them, once."""
        return self.again >= _LEAST_AGAIN and self.again > _MOST_AGAIN * self.rows

    def note(self, name: str) -> str:
        """What a report should say when `name` is given up."""
        return f"{name} held {self.again / self.rows:.0%} of the inputs as no number; float32 encodes them all from here on"
