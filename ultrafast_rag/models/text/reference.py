"""What a text space's vectors are, and which engines give them here: each is held to float32 at every width it pads to.

An engine can be right on average and wrong at one padded width: int8 under a bf16 hint gave cosines of 0.75 to 0.95
for texts of 17 to 31 tokens padded to exactly 32 on one processor, and was right at every other width. So texts of
every length are encoded once in float32 without padding, and an engine runs only at widths where it gave the same
vectors on this machine. What was found is remembered beside the choice of engine.
"""

from __future__ import annotations

import base64
import hashlib
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from ultrafast_rag.files import Memory
from ultrafast_rag.models.text.calibration import calibration_texts
from ultrafast_rag.models.text.tokens import WordPieces
from ultrafast_rag.types import Vectors

TEXTS = 64  # of the reference, over all lengths
NEIGHBOURS = 10  # as many as a question shows by default
MIN_OVERLAP = 0.90  # of the ten nearest neighbours with float32's, on average
# by precision: the least cosine to float32 of any text, at any width. int8 without VNNI has 0.980, bf16 0.998 and more
# (Zen 3 and Zen 4, 2026-11); the wrong width on AMX has 0.75
MIN_COSINE = {"f32": 0.999, "f16": 0.99, "bf16": 0.99, "int8": 0.95, "8bit": 0.95, "4bit": 0.85}
_MIN_OVERLAP = {"4bit": 0.70}  # asked for by name, to fit a model at all
_PER_WIDTH = 4  # texts compared at a width, the shortest and the longest that are padded to it among them
_CHECK_TOKENS = 1024  # of the full batch at a width; what engines take at once on a CPU


class Engine(Protocol):
    """What turns framed token ids into unit vectors, float32 (n, dim), order kept."""

    name: str
    dim: int
    widths: tuple[int, ...]
    """Lengths that texts are padded to, ascending: each to the first that holds it. (): to the longest of its batch."""

    def run(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
        """Encode any number of texts, each at most the model's limit."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


def padded_widths(limit: int, *, step: int = 16) -> tuple[int, ...]:
    """Multiples of `step` up to 512, then 768, 1024, 1536, ...; the last is `limit`. Few enough to check each."""
    widths = list(range(step, min(limit, 512) + 1, step))
    while (last := widths[-1] if widths else 0) < limit:
        further = last * 3 // 2 if last & (last - 1) == 0 else last * 4 // 3
        widths.append(min(limit, further) if last >= 512 else limit)
    return tuple(widths)


def padded_to(widths: Sequence[int], length: int) -> int:
    """The first width that holds `length`; the length itself beyond the last, or without any."""
    at = bisect_left(widths, length)
    return widths[at] if at < len(widths) else length


@dataclass(frozen=True, slots=True)
class Reference:
    """Texts of every length with their float32 vectors, each encoded by itself: the definition of a space.

    vectors: float32 (n, dim), unit rows.
    """

    texts: tuple[str, ...]
    vectors: Vectors

    @property
    def digest(self) -> str:
        """16 hex digits over texts and vectors."""
        content = "\0".join(self.texts).encode() + self.vectors.astype("<f4").tobytes()
        return hashlib.sha256(content).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """For an index's facts or a file."""
        packed = base64.b64encode(self.vectors.astype("<f4").tobytes()).decode()
        return {"texts": list(self.texts), "dim": self.vectors.shape[1], "vectors": packed, "digest": self.digest}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Reference:
        """From `to_json`. Raises ValueError when it is not what was stored."""
        try:
            flat = np.frombuffer(base64.b64decode(stored["vectors"]), "<f4").astype(np.float32)
            reference = cls(tuple(stored["texts"]), flat.reshape(len(stored["texts"]), int(stored["dim"])))
            intact = reference.digest == stored["digest"]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("no reference vectors in this") from error
        if not intact:
            raise ValueError("the reference vectors are damaged")
        return reference


def reference_texts(pieces: WordPieces, prompt: Sequence[int] = ()) -> tuple[str, ...]:
    """Stretches of the calibration text whose framed lengths cover every width evenly up to the model's limit."""
    words = " ".join(calibration_texts()).split()
    widths = (0, *padded_widths(pieces.max_tokens))
    each = max(1, TEXTS // (len(widths) - 1))
    lengths = [low + (high - low) * (n + 1) // each for low, high in pairwise(widths) for n in range(each)]
    frame = len(pieces.with_special_tokens([[]], prompt)[0])
    return tuple(_of_length(words, number * len(words) // len(lengths), max(1, length - frame), pieces)
                 for number, length in enumerate(lengths))  # fmt: skip


def _of_length(words: Sequence[str], start: int, tokens: int, pieces: WordPieces) -> str:
    """As many words from `start` on, around the end and again if need be, as `tokens` hold; at least one."""
    ring = [*words[start:], *words[:start]]
    ring = (ring * (1 + tokens // len(ring)))[:tokens]  # a word is at least one token
    count = bisect_left(range(1, len(ring) + 1), tokens + 1, key=lambda n: len(pieces.tokenize([" ".join(ring[:n])])[0]))
    return " ".join(ring[: max(1, count)])


@dataclass(frozen=True, slots=True)
class Fit:
    """What an engine gives on this machine, against a reference.

    widths: where it is right, ascending; failed: (width, least cosine) where it is not.
    worst: least cosine of a reference text as it is run now; overlap: of nearest neighbours.
    """

    name: str
    widths: tuple[int, ...] = ()
    failed: tuple[tuple[int, float], ...] = ()
    worst: float = 1.0
    overlap: float = 1.0
    whole: bool = True  # the longest texts have a width

    @property
    def ok(self) -> bool:
        """True when the engine may write to the space and ask in it."""
        precision = precision_of(self.name)
        return self.whole and self.worst >= MIN_COSINE[precision] and self.overlap >= _MIN_OVERLAP.get(precision, MIN_OVERLAP)

    def why(self) -> str:
        """What a report should say; "" when there is nothing to say."""
        if not self.ok:
            least = min([self.worst, *(cosine for _, cosine in self.failed)])
            return f"differs from float32 here: cosine down to {least:.3f}, {self.overlap:.2f} of its neighbours"
        if not self.failed:
            return ""
        shown = ", ".join(f"{width} (cosine {cosine:.2f})" for width, cosine in self.failed)
        return f"texts are padded past the widths where it is wrong here: {shown}"


def precision_of(engine: str) -> str:
    """The last part of an engine's name, e.g. "int8"."""
    return engine.rsplit("-", 1)[-1]


def fit(engine: Engine, framed: Sequence[Sequence[int]], exact: Vectors) -> Fit:
    """Compare `engine` with float32's vectors of `framed`, width by width, and leave it with the widths that are right.

    At each width a full batch and a single text are run: both occur, and have kernels of their own.
    """
    everywhere, floor = engine.widths, MIN_COSINE[precision_of(engine.name)]
    failed = [(width, least) for width, least in least_cosines(engine, framed, exact).items() if not least >= floor]  # or NaN
    wrong = {width for width, _ in failed}
    engine.widths = tuple(width for width in everywhere if width not in wrong)
    whole = not everywhere or everywhere[-1] not in wrong
    if not whole:
        return Fit(engine.name, engine.widths, tuple(failed), min(c for _, c in failed), 0.0, whole=False)
    vectors = engine.run(framed)
    overlap, _ = agreement(vectors, exact)
    return Fit(engine.name, engine.widths, tuple(failed), float((vectors * exact).sum(1).min()), overlap)


def least_cosines(engine: Engine, framed: Sequence[Sequence[int]], exact: Vectors) -> dict[int, float]:
    """Least cosine to float32 at each of the engine's widths; {} for one that pads to none in particular."""
    everywhere, found = engine.widths, dict[int, float]()
    for width, rows in _by_width(everywhere, framed).items():
        engine.widths = (width,)
        found[width] = _least_cosine(engine, rows, framed, exact, width)
    engine.widths = everywhere
    return found


def _by_width(widths: Sequence[int], framed: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    """For each width a few of the texts that are padded to it; where there are too few, the longest that it holds."""
    order = sorted(range(len(framed)), key=lambda row: len(framed[row]))
    lengths = [len(framed[row]) for row in order]
    chosen: dict[int, list[int]] = {}
    for below, width in pairwise((0, *widths)):
        first, last = bisect_left(lengths, below + 1), bisect_left(lengths, width + 1)
        if last - first < _PER_WIDTH:
            first = max(0, last - _PER_WIDTH)
        picks = np.unique(np.linspace(first, max(first, last - 1), _PER_WIDTH).round().astype(int))
        chosen[width] = [order[at] for at in picks]
    return chosen


def _least_cosine(engine: Engine, rows: list[int], framed: Sequence[Sequence[int]], exact: Vectors, width: int) -> float:
    full = [rows[n % len(rows)] for n in range(max(len(rows), _CHECK_TOKENS // width))]
    cosines = [(engine.run([framed[row] for row in batch]) * exact[batch]).sum(1).min() for batch in (full, rows[:1])]
    return float(np.min(cosines))


def agreement(vectors: Vectors, exact: Vectors, *, k: int = NEIGHBOURS) -> tuple[float, float]:
    """(mean overlap of each row's k nearest other rows with those by `exact`, mean cosine to `exact`)."""

    def nearest(rows: Vectors) -> np.ndarray:
        scores = rows @ rows.T
        np.fill_diagonal(scores, -np.inf)
        return np.argpartition(-scores, k, axis=1)[:, :k]

    shared = [len(set(ours) & set(theirs)) for ours, theirs in zip(nearest(vectors).tolist(), nearest(exact).tolist())]
    return float(np.mean(shared)) / k, float((vectors * exact).sum(1).mean())


def fit_once(memory: Memory, key: str, engine: Engine, measure: Callable[[], Fit]) -> Fit:
    """The fit found before under `key`, else the one that `measure` finds now; leaves `engine` with its widths."""
    stored = memory.recall(key)
    try:
        failed = tuple((int(width), float(cosine)) for width, cosine in stored["failed"])
        found = Fit(engine.name, tuple(stored["widths"]), failed, stored["worst"], stored["overlap"], whole=stored["whole"])
        known = set(found.widths) | {width for width, _ in failed} == set(engine.widths)
    except (KeyError, TypeError, ValueError):  # never measured here
        known = False
    if not known:
        found = measure()
        stored = {"widths": found.widths, "failed": found.failed, "worst": found.worst, "overlap": found.overlap}
        memory.remember(key, {**stored, "whole": found.whole})
    engine.widths = found.widths
    return found
