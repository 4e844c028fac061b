"""The batch budget that is fastest on this machine, by measurement, within half a minute; remembered for its encoder.

The engine itself is chosen by measurement at first use (`text/select.py`) and is reported here. What is not clearly
faster than the default is not taken, and nothing is remembered while other work slows the machine down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ultrafast_rag.errors import ConfigError
from ultrafast_rag.files import Memory
from ultrafast_rag.models.text.calibration import calibration_texts
from ultrafast_rag.ports import TextEncoder
from ultrafast_rag.types import Table

E = TypeVar("E", bound=TextEncoder)
BUDGETS = (512, 1024, 2048, 4096, 16_384)  # tokens a batch: around the cache-sized default of a CPU, and up to a GPU's
LEAST_GAIN = 1.05  # runs of one setting differ by a few per cent
REPEATS = 3  # chosen: the fastest counts, what slows the others is other work


@dataclass(frozen=True, slots=True)
class Tried:
    """A batch budget and its speed; None is the default."""

    batch_tokens: int | None
    tokens_per_s: float


def tuned_tokens(cache_dir: Path, name: str) -> int | None:
    """The budget remembered for an encoder on this machine, or None."""
    known = _memory(cache_dir).recall(name)
    return known if isinstance(known, int) and not isinstance(known, bool) and 1 <= known <= 1 << 20 else None


def tune(
    name: str,
    cache_dir: Path,
    open_encoder: Callable[[int | None], E],
    close: Callable[[E], None],
    *,
    limit_s: float = 30.0,
    busy: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Table:
    """Encode the calibration texts under each budget, the default first, until limit_s is nearly spent.

    open_encoder: with a budget, or None for the default. busy: other work slows the measurement down, so nothing is kept.
    Returns one row a budget, with what was chosen and gained. Raises ConfigError unless limit_s > 0.
    """
    if not limit_s > 0:
        raise ConfigError(f"limit_s is in seconds and must be greater than 0, not {limit_s}")
    start, longest = clock(), 0.0
    tried: list[Tried] = []
    for budget in (None, *BUDGETS):
        if tried and clock() - start + longest > limit_s:
            break
        begun = clock()
        encoder = open_encoder(budget)
        try:
            tried.append(Tried(budget, _speed(encoder, clock)))
        finally:
            close(encoder)
        longest = max(longest, clock() - begun)
    chosen = best_of(tried)
    if not busy:
        _memory(cache_dir).remember(name, chosen.batch_tokens)
    gain = chosen.tokens_per_s / tried[0].tokens_per_s
    verdict = (
        "the default stays" if chosen.batch_tokens is None else f"{chosen.batch_tokens} tokens a batch, {gain:.2f} times faster"
    )
    rows = [
        {
            "batch": "default" if one.batch_tokens is None else f"{one.batch_tokens} tokens",
            "tokens/s": one.tokens_per_s,
            "times default": one.tokens_per_s / tried[0].tokens_per_s,
            "chosen": "yes" if one is chosen else "",
        }
        for one in tried
    ]
    kept = "not remembered, since other work was slowing this machine down: tune again when it is idle" if busy else "remembered"
    return Table(rows, "Tuned", notes=(f"{name}: {verdict}; {kept}",), bars=("tokens/s",))


def best_of(tried: Sequence[Tried]) -> Tried:
    """The fastest, or the default (the first) where none is clearly faster."""
    fastest = max(tried, key=lambda one: one.tokens_per_s)
    return fastest if fastest.tokens_per_s >= LEAST_GAIN * tried[0].tokens_per_s else tried[0]


def _speed(encoder: TextEncoder, clock: Callable[[], float]) -> float:
    tokens = encoder.tokenize(calibration_texts())
    encoder.encode_tokens(tokens)  # kernels are prepared here
    seconds = []
    for _ in range(REPEATS):
        start = clock()
        encoder.encode_tokens(tokens)
        seconds.append(clock() - start)
    return sum(len(ids) for ids in tokens) / max(min(seconds), 1e-9)


def _memory(cache_dir: Path) -> Memory:
    return Memory(cache_dir / "engines" / "tuned.json")
