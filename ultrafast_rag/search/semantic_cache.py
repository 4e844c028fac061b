"""A question that means the same as one asked before gets its answer; off by default, because likeness is no sameness.

Three gates: the vectors' cosine, the rules of `language.sameness`, and a port that looks whether the kept answer fits this
question too (the reader, where there is one). On 300 pairs of ours (`data/questions/pairs.jsonl`) no trap passed the first
two and 52 % of the paraphrases did, 45 % of those held out (`bench cache`). People judge the rest: their feedback switches
the cache off when more than `budget` of what it gave out was wrong.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ultrafast_rag.errors import ConfigError
from ultrafast_rag.language.sameness import differs
from ultrafast_rag.search.query_cache import ENTRIES, TTL_S, copied, normalised
from ultrafast_rag.types import Vectors

# chosen on the odd half of the pairs: from .80 to .88 no trap passes there, and below .85 nothing is gained
LEAST_COSINE = 0.85
BUDGET = 0.01
_WRONG_TO_STOP = 2  # one vote may be a slip of the hand


@dataclass(frozen=True, slots=True)
class Alike:
    """A kept value, the question it was made for, and the cosine between the two."""

    value: Any
    asked: str
    cosine: float


@dataclass(slots=True)
class _Entry:
    scope: Hashable
    asked: str
    vector: Vectors
    value: Any
    until: float


class SemanticCache:
    """Values by the meaning of English questions.

    encode: questions -> float32 (n, d), unit rows. fits: whether a kept value answers a new question too. scope, in `get` and
    `put`: what else must be equal (index, its generation, filters, k). Thread-safe.
    """

    def __init__(
        self,
        encode: Callable[[list[str]], Vectors],
        *,
        fits: Callable[[str, Any], bool] = lambda question, value: True,
        least_cosine: float = LEAST_COSINE,
        budget: float = BUDGET,
        entries: int = ENTRIES,
        ttl_s: float = TTL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < least_cosine <= 1 or not 0 <= budget <= 1:
            raise ConfigError("least_cosine lies above 0 and up to 1, budget between 0 and 1")
        self._encode, self._fits, self._least, self._budget = encode, fits, least_cosine, budget
        self._entries, self._ttl_s, self._clock = entries, ttl_s, clock
        self._kept: OrderedDict[tuple[Hashable, str], _Entry] = OrderedDict()
        self._given: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = self._misses = self._wrong = self._right = 0
        self._refused: dict[str, int] = {}
        self.off = ""
        """Why the cache is switched off by feedback; "" while it is on."""

    def get(self, question: str, scope: Hashable) -> Alike | None:
        """The likeliest question of this scope that passes every gate, or None."""
        if self.off:
            return None
        now = self._clock()
        with self._lock:
            known = [entry for entry in self._kept.values() if entry.scope == scope and entry.until > now]
        found = self._passing(question, known) if known else None
        with self._lock:
            self._hits += found is not None
            self._misses += found is None
            if found is not None:
                self._given[normalised(question)] = None
                while len(self._given) > self._entries:
                    self._given.popitem(last=False)
        return found

    def _passing(self, question: str, known: list[_Entry]) -> Alike | None:
        cosines = np.stack([entry.vector for entry in known]) @ self._encode([question])[0]
        for place in np.argsort(-cosines, kind="stable"):
            entry, cosine = known[int(place)], float(cosines[place])
            if cosine < self._least:
                return None
            why = differs(entry.asked, question) or ("" if self._fits(question, entry.value) else "the answer does not fit")
            if not why:
                return Alike(copied(entry.value), entry.asked, cosine)
            with self._lock:
                kind = why.partition(":")[0]
                self._refused[kind] = self._refused.get(kind, 0) + 1
        return None

    def put(self, question: str, scope: Hashable, value: Any) -> None:
        """Remember a copy of what a question gave."""
        vector = np.asarray(self._encode([question])[0], np.float32)
        with self._lock:
            key = (scope, normalised(question))
            self._kept[key] = _Entry(scope, question, vector, copied(value), self._clock() + self._ttl_s)
            self._kept.move_to_end(key)
            while len(self._kept) > self._entries:
                self._kept.popitem(last=False)

    def feedback(self, question: str, right: bool) -> None:
        """What a person says of an answer given from here; votes on other questions are not counted."""
        with self._lock:
            if normalised(question) not in self._given:
                return
            self._right += right
            self._wrong += not right
            if self._wrong >= _WRONG_TO_STOP and self._wrong > self._budget * self._hits:
                self.off = f"{self._wrong} of {self._hits} answers given again were marked wrong, more than {self._budget:.0%}"

    def invalidate(self) -> None:
        """Forget all questions, and the votes with them; a cache that was switched off is on again."""
        with self._lock:
            self._kept.clear()
            self._given.clear()
            self._hits = self._misses = self._wrong = self._right = 0
            self._refused.clear()
            self.off = ""

    def get_stats(self) -> dict[str, Any]:
        """hits, misses, hit_rate, entries, votes right and wrong, wrong_rate of what was given, refusals by reason, off."""
        with self._lock:
            asked = self._hits + self._misses
            return {
                "hits": self._hits,
                "misses": self._misses,
                "hit_rate": self._hits / asked if asked else 0.0,
                "entries": len(self._kept),
                "right": self._right,
                "wrong": self._wrong,
                "wrong_rate": self._wrong / self._hits if self._hits else 0.0,
                "refused": dict(self._refused),
                "off": self.off,
            }
