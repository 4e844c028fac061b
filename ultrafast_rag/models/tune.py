"""Engine, batch budget and threads that are fastest on this machine, by measurement, within half a minute; remembered.

The engine is measured and chosen by `text/select.py`, anew unless the machine is busy; budgets are tried under it, threads under
the best budget. What is not clearly faster than the default is not taken, and nothing is remembered while other work slows
the machine down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
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
class Tuned:
    """Settings of the text encoder; None is the default. threads: on a CPU."""

    batch_tokens: int | None = None
    threads: int | None = None

    def __str__(self) -> str:
        budget = "" if self.batch_tokens is None else f"{self.batch_tokens} tokens a batch"
        threads = "" if self.threads is None else f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return ", ".join(filter(None, (budget, threads))) or "default"


@dataclass(frozen=True, slots=True)
class Tried:
    """Settings and their speed."""

    tuned: Tuned
    tokens_per_s: float


def tuned(cache_dir: Path, name: str) -> Tuned:
    """What is remembered for an encoder on this machine, or the defaults."""
    known = _memory(cache_dir).recall(name)
    if not isinstance(known, dict):
        return Tuned()
    numbers = (known.get("batch_tokens"), known.get("threads"))
    return Tuned(*(n if isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= 1 << 20 else None for n in numbers))


def tune(
    name: str,
    cache_dir: Path,
    open_encoder: Callable[[Tuned], E],
    close: Callable[[E], None],
    *,
    cores: int = 1,
    limit_s: float = 30.0,
    busy: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Table:
    """Encode the calibration texts under each setting, the default first, until limit_s is nearly spent.

    open_encoder: with settings. cores: of the CPU that encodes; 1 tries no threads. busy: other work slows the measurement
    down, so nothing is kept. Returns one row a setting, with what was chosen and gained. Raises ConfigError unless limit_s > 0.
    """
    if not limit_s > 0:
        raise ConfigError(f"limit_s is in seconds and must be greater than 0, not {limit_s}")
    start, longest = clock(), 0.0
    tried: list[Tried] = []

    def attempt(settings: Tuned) -> bool:
        nonlocal longest
        if tried and clock() - start + longest > limit_s:
            return False
        begun = clock()
        encoder = open_encoder(settings)
        try:
            tried.append(Tried(settings, _speed(encoder, clock)))
        finally:
            close(encoder)
        longest = max(longest, clock() - begun)
        return True

    whole = all(attempt(Tuned(budget)) for budget in (None, *BUDGETS))
    budget = best_of(tried).tuned
    whole = whole and all(attempt(replace(budget, threads=count)) for count in _thread_counts(cores))
    chosen = best_of(tried)
    if not busy:
        _memory(cache_dir).remember(name, asdict(chosen.tuned))
    return _table(name, tried, chosen, whole=whole, busy=busy)


def _thread_counts(cores: int) -> list[int]:
    """What to try beside all cores: one a physical core, as most chips count two, and one core left to the rest."""
    return [count for count in dict.fromkeys((cores // 2, cores - 1)) if count >= 1]


def _table(name: str, tried: Sequence[Tried], chosen: Tried, *, whole: bool, busy: bool) -> Table:
    gain = chosen.tokens_per_s / tried[0].tokens_per_s
    verdict = "the defaults stay" if chosen is tried[0] else f"{chosen.tuned}: {gain:.2f} times faster than the defaults"
    rows = [
        {
            "settings": str(one.tuned),
            "tokens/s": one.tokens_per_s,
            "times default": one.tokens_per_s / tried[0].tokens_per_s,
            "chosen": "yes" if one is chosen else "",
        }
        for one in tried
    ]
    kept = "not remembered, since other work was slowing this machine down: tune again when it is idle" if busy else "remembered"
    unfinished = () if whole else ("not all was tried: the time was over",)
    return Table(rows, "Tuned", notes=(f"{name}: {verdict}; {kept}", *unfinished), bars=("tokens/s",))


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
