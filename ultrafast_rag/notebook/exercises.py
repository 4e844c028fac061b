"""Exercises of the notebooks that check themselves: change this, predict, run.

Each check says "solved", or "not yet" and why, and raises nothing on a wrong answer, so that a notebook runs through.
The notebooks' own folder has a file of solutions.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PADDING_GOAL = 0.15  # share of a batch's places that hold nothing
# asked now, answered before, cosine of the two under MiniLM to two digits, whether the old answer may be given again
PAIRS: tuple[tuple[str, str, float, bool], ...] = (
    ("Who founded the station?", "who founded the station ?", 1.00, True),
    ("How many steps does the tower have?", "What is the number of steps of the tower?", 0.94, True),
    ("When do the night watches change?", "At what time do the night watches change?", 0.96, True),
    ("How many seals were counted in 2022?", "How many seals were counted in 2023?", 0.97, False),
    ("Which doors may be opened in a storm?", "Which doors may not be opened in a storm?", 0.95, False),
    ("How heavy is bearing 7?", "How heavy is bearing 9?", 0.96, False),
    ("Is the north pier open?", "Is the pier never open?", 0.93, False),
    ("Where is the nearest hospital?", "How heavy was the largest fish?", 0.12, False),
    ("How long may a shower last?", "Where does the rain water go?", 0.41, False),
)
TRACE = "AABACADAABEAAFABGAABHAAIABJAAB"  # questions as they are asked: two come again and again, others once


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an exercise is solved, and what to say."""

    solved: bool
    words: str

    def __str__(self) -> str:
        return f"{'solved' if self.solved else 'not yet'}: {self.words}"

    __repr__ = __str__


def check_prediction(predicted: Mapping[str, Any], measured: Mapping[str, Any], *, why: str, within: float = 0.0) -> Verdict:
    """Each predicted value against the measured one of the same name; numbers may be off by this share."""
    if any(predicted.get(name) is None for name in measured):
        return Verdict(False, "write your prediction where None stands, and run the cell again")
    wrong = [
        f"{name}: you said {predicted[name]}, it was {value}"
        for name, value in measured.items()
        if not _near(predicted[name], value, within)
    ]
    return Verdict(not wrong, f"{'; '.join(wrong)}. {why}" if wrong else why)


def _near(said: Any, value: Any, within: float) -> bool:
    if isinstance(value, (int, float)) and isinstance(said, (int, float)) and not isinstance(value, bool):
        return abs(said - value) <= within * abs(value)
    return bool(said == value)


def check_guard(guard: Callable[[str, str, float], bool | None]) -> Verdict:
    """guard(asked, answered, cosine): may the answer to `answered` be given for `asked`? Tried on PAIRS."""
    said = [(asked, known, guard(asked, known, cosine), right) for asked, known, cosine, right in PAIRS]
    if all(answer is None for _, _, answer, _ in said):
        return Verdict(False, "the guard decides nothing so far: return True where the old answer may be given again")
    wrong = [f"{asked!r} by the answer to {known!r}" for asked, known, answer, right in said if answer and not right]
    missed = [asked for asked, _, answer, right in said if right and not answer]
    if wrong:
        return Verdict(False, f"it would answer {wrong[0]}; that a figure or a 'not' differs is no matter to a cosine")
    if missed:
        return Verdict(False, f"it never uses what it knows: {missed[0]!r} was asked before in other words")
    return Verdict(True, f"{sum(right for *_, right in PAIRS)} answers given again, {len(PAIRS)} pairs, none wrong")


def check_batches(make: Callable[[Sequence[int], int], Sequence[Sequence[int]] | None], *, budget: int = 512) -> Verdict:
    """make(lengths, budget): numbers of the texts of each batch, whose padded tokens (count * longest) stay within budget."""
    lengths = [7 + (n * 37) % 113 for n in range(60)]
    batches = make(lengths, budget)
    if batches is None:
        return Verdict(False, "return a list of batches, each a list of numbers of texts")
    if sorted(n for batch in batches for n in batch) != list(range(len(lengths))):
        return Verdict(False, "each text must be in one batch, once")
    padded = [len(batch) * max(lengths[n] for n in batch) for batch in batches if batch]
    if max(padded) > budget:
        return Verdict(False, f"a batch takes {max(padded)} tokens with its padding, and {budget} fit")
    share = 1 - sum(lengths) / sum(padded)
    if share > PADDING_GOAL:
        return Verdict(False, f"{share:.0%} of the work is padding: let texts of one length share a batch")
    return Verdict(True, f"{len(batches)} batches, {share:.0%} padding")


def hit_rate(policy: str, trace: str = TRACE, *, capacity: int = 2) -> float:
    """Share of questions that a cache answers. policy: drops "oldest" in, "least recent" used, or "least frequent" used."""
    kept: OrderedDict[str, None] = OrderedDict()
    asked: Counter[str] = Counter()
    hits = 0
    for question in trace:
        asked[question] += 1
        if question in kept:
            hits += 1
            if policy == "least recent":
                kept.move_to_end(question)
            continue
        if len(kept) >= capacity:
            kept.pop(min(kept, key=lambda name: asked[name]) if policy == "least frequent" else next(iter(kept)))
        kept[question] = None
    return hits / len(trace)


def check_policy(policy: str | None) -> Verdict:
    """Whether no other policy answers more of TRACE."""
    rates = {name: hit_rate(name) for name in ("oldest", "least recent", "least frequent")}
    if policy not in rates:
        return Verdict(False, f"choose one of {', '.join(rates)}")
    shown = ", ".join(f"{name} {rate:.0%}" for name, rate in rates.items())
    return Verdict(rates[policy] == max(rates.values()), f"answered from the cache: {shown}")


def check_budget(
    plan: Mapping[str, float | None], *, chunks: int, usd_per_chunk: float, limit_usd: float, limit_days: float
) -> Verdict:
    """plan: "share" of the chunks to enrich, 0 to 1, and "requests a day" of the tier used (free tiers cost nothing).

    All may be had for money at 10 000 requests a day, or free at 250; within both limits as much as possible is wanted.
    """
    share, pace = plan.get("share"), plan.get("requests a day")
    if share is None or pace is None:
        return Verdict(False, "write a share of the chunks and a tier's requests a day")
    if pace not in (250, 10_000) or not 0 < share <= 1:
        return Verdict(False, "the tiers give 250 (free) or 10 000 (paid) requests a day; a share lies between 0 and 1")
    count = math.floor(share * chunks)
    usd, days = (0.0 if pace == 250 else count * usd_per_chunk), math.ceil(count / pace)
    said = f"{count} chunks, ${usd:.3f}, {days} day{'s' if days != 1 else ''}"
    if usd > limit_usd or days > limit_days:
        return Verdict(False, f"{said}: over the limit of ${limit_usd} or {limit_days} days")
    most = max(min(1.0, 250 * limit_days / chunks), min(1.0, limit_usd / (usd_per_chunk * chunks), 10_000 * limit_days / chunks))
    if share < most - 0.05:
        return Verdict(False, f"{said}: within the limits, but {most:.0%} of the chunks would be too")
    return Verdict(True, said)


def check_sample_size(questions: int | None, *, difference: float, deviation: float) -> Verdict:
    """Whether so many questions show a difference of means: its 95 % interval, 1.96 deviations of the mean wide, leaves out 0."""
    if not questions:
        return Verdict(False, "write how many questions you would ask")
    reach = 1.96 * deviation / math.sqrt(questions)
    needed = math.ceil((1.96 * deviation / difference) ** 2)
    said = f"with {questions} questions the interval reaches {reach:.3f} to either side of {difference}"
    if questions < needed:
        return Verdict(False, f"{said}, so 0 lies inside it; four times the questions halve it")
    if questions > 2 * needed:
        return Verdict(False, f"{said}: enough, but half of them would have done")
    return Verdict(True, f"{said}: 0 lies outside")
