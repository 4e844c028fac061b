"""What a conversation leaves behind: kept by importance and use, found by meaning, gone when asked to.

Five tiers. What is said is *working* memory; a quarter of an hour later it is *short-term*; what was used again or
matters is *long-term*; of that, what happened (a question and its answer) becomes *episodic* and what is so (a note)
*semantic*. What is neither used nor important fades. One SQLite file; nothing of it is part of an index archive.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ultrafast_rag.errors import ConfigError, RemoteEncoderError, StorageError
from ultrafast_rag.language.safetext import unstorable
from ultrafast_rag.language.stopwords import STOP_WORDS
from ultrafast_rag.types import Vectors

FILE = "memory.sqlite3"
Kind = Literal["note", "turn"]


class Tier(StrEnum):
    """Where a memory is on its way."""

    WORKING = "working"
    SHORT_TERM = "short-term"
    LONG_TERM = "long-term"
    EPISODIC = "episodic"
    SEMANTIC = "semantic"


_DAY_S = 86_400.0  # seconds
# After so long unused, half of a memory's strength is left. By what the tiers are for: a talk, a day's work, a month's
# project, a year; no measurement of ours
HALF_LIFE_S = {
    Tier.WORKING: 900.0,
    Tier.SHORT_TERM: _DAY_S,
    Tier.LONG_TERM: 30 * _DAY_S,
    Tier.EPISODIC: 90 * _DAY_S,
    Tier.SEMANTIC: 365 * _DAY_S,
}
MATTERS, USED = 0.7, 2  # importance, or times recalled, from which a memory is kept for long
FADED = 0.05  # strength below which it is forgotten
LEAST_COSINE = 0.45  # of a memory that is about a question; MiniLM gives unrelated sentences 0 to 0.3
SURE_COSINE = 0.6  # of a memory that is meant by "forget ..."
_TEXT_CHARACTERS = 4000
_COMMON = frozenset().union(*STOP_WORDS.values()) | {"said", "told", "remember", "forget", "asked"}
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Memory:
    """One thing remembered. importance: 0 to 1; times in seconds since 1970; score: cosine to what it was recalled for."""

    id: int
    text: str
    kind: Kind = "note"
    tier: Tier = Tier.WORKING
    importance: float = 0.5
    created_s: float = 0.0
    accessed_s: float = 0.0
    access_count: int = 0
    session: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    score: float = 0.0

    def strength(self, now_s: float) -> float:
        """Importance, halved with each half-life unused, raised by use.

        Source: exponential recency times importance as in Park et al., "Generative Agents", UIST 2023; use counted by logarithm.
        """
        idle_s = max(now_s - self.accessed_s, 0.0)
        return self.importance * math.exp2(-idle_s / HALF_LIFE_S[self.tier]) * (1 + math.log2(1 + self.access_count))


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the next consolidation would do with a memory: `to_tier`, or forget it where that is None."""

    memory: Memory
    strength: float
    to_tier: Tier | None


@dataclass(frozen=True, slots=True)
class Consolidation:
    """What one consolidation did."""

    looked_at: int
    promoted: int
    forgotten: int
    merged: int
    seconds: float


_TABLE = """
CREATE TABLE IF NOT EXISTS memories(
  id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, kind TEXT NOT NULL, tier TEXT NOT NULL, importance REAL NOT NULL,
  created_s REAL NOT NULL, accessed_s REAL NOT NULL, access_count INTEGER NOT NULL, session TEXT NOT NULL,
  metadata TEXT NOT NULL, space TEXT NOT NULL, vector BLOB);
"""
_COLUMNS = "id, text, kind, tier, importance, created_s, accessed_s, access_count, session, metadata"


class MemoryConsolidator:
    """Remembers, recalls by meaning, consolidates, forgets; durable in `path`, or in this process with None.

        memory = MemoryConsolidator("memory.sqlite3", encode=encoder.encode)
        memory.remember("The pump is an X200.", importance=0.9)
        memory.recall("Which pump do we have?")
        memory.run_consolidation()

    encode: texts -> float32 (n, d) of unit length; None recalls by shared words. space: names the encoder; vectors of
    another one are made anew. Thread-safe. Raises StorageError when the disk refuses. Forgotten text is overwritten in the
    file (SQLite's secure_delete).
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        encode: Callable[[list[str]], Vectors] | None = None,
        space: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._encode, self.space, self._clock = encode, space, clock
        self._lock = threading.RLock()
        self._stop: threading.Event | None = None
        self._thread: threading.Thread | None = None
        self._runs = 0
        self.path = None if path is None else Path(path)
        with self._plain_errors():
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path or ":memory:", timeout=10.0, check_same_thread=False, isolation_level=None)
            for setting in ("trusted_schema = OFF", "journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
                self._db.execute(f"PRAGMA {setting}")
            self._db.execute(_TABLE)

    # ---- remembering and recalling

    def remember(
        self,
        text: str,
        *,
        kind: Kind = "note",
        importance: float = 0.5,
        session: str = "",
        metadata: Mapping[str, Any] | None = None,
        tier: Tier = Tier.WORKING,
    ) -> Memory:
        """Keep a text; durable when this returns. Raises ConfigError for an empty or unstorable one."""
        if not text.strip() or (why := unstorable(text)):
            raise ConfigError(f"what is remembered must be words{'' if not text.strip() else f'; the text {why}'}")
        if not 0 <= importance <= 1:
            raise ConfigError(f"importance lies between 0 and 1, not {importance}")
        text, now, about = text.strip()[:_TEXT_CHARACTERS], self._clock(), dict(metadata or {})
        vector = self._vector(text)
        row = (text, kind, Tier(tier), importance, now, now, 0, session, json.dumps(about, default=str), self.space, vector)
        with self._writing() as db:
            done = db.execute(f"INSERT INTO memories VALUES (NULL{', ?' * len(row)})", row)
        return Memory(int(done.lastrowid or 0), text, kind, Tier(tier), importance, now, now, 0, session, about)

    def recall(
        self, question: str, *, k: int = 5, least: float = LEAST_COSINE, kind: Kind | None = None, count: bool = True
    ) -> list[Memory]:
        """At most k memories about a question, best first, with their `score`. count: False leaves no trace of the look."""
        scores = self._scores(question)
        known = {memory.id: memory for memory in self.memories(kind=kind)}
        best = sorted(((score, id) for id, score in scores.items() if score >= least and id in known), reverse=True)[:k]
        found = [replace(known[id], score=score) for score, id in best]
        if count and found:
            now = self._clock()
            with self._writing() as db:
                db.executemany(
                    "UPDATE memories SET access_count = access_count + 1, accessed_s = ? WHERE id = ?",
                    [(now, memory.id) for memory in found],
                )
        return found

    def memories(self, tier: Tier | None = None, *, kind: Kind | None = None, session: str | None = None) -> list[Memory]:
        """All of them, oldest first; of one tier, kind or session where given."""
        with self._lock, self._plain_errors():
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM memories ORDER BY id").fetchall()
        found = [memory for row in rows if (memory := _to_memory(row)) is not None]
        wanted = {"tier": tier, "kind": kind, "session": session}
        asked = {name: value for name, value in wanted.items() if value is not None}
        return [memory for memory in found if all(getattr(memory, name) == value for name, value in asked.items())]

    # ---- forgetting

    def forget(self, *ids: int) -> int:
        """Delete memories by id; returns how many there were."""
        with self._writing() as db:
            gone = sum(db.execute("DELETE FROM memories WHERE id = ?", (id,)).rowcount for id in ids)
        self._wipe()
        return gone

    def forget_about(self, words: str, *, least: float = SURE_COSINE) -> list[Memory]:
        """Delete what is surely about `words`: it holds all their telling words, or means the same; returns what it was."""
        scores, telling = self._scores(words), _telling(words)
        doomed = [
            memory
            for memory in self.memories()
            if (telling and telling <= _telling(memory.text)) or scores.get(memory.id, 0.0) >= least
        ]
        self.forget(*(memory.id for memory in doomed))
        return doomed

    def forget_all(self, *, session: str | None = None) -> int:
        """Delete everything, or one session's."""
        return self.forget(*(memory.id for memory in self.memories(session=session)))

    def _wipe(self) -> None:
        """Take what was deleted out of the write-ahead log too, as far as nobody reads it now."""
        with self._lock, self._plain_errors():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # ---- consolidation

    def analyze_candidates(self, tier: Tier) -> list[Candidate]:
        """What the next consolidation would move out of a tier, strongest first."""
        tier, now = Tier(tier), self._clock()
        found = [_judged(memory, now) for memory in self.memories(tier)]
        return sorted((one for one in found if one.to_tier is not tier), key=lambda one: -one.strength)

    def promote_memory(self, id: int, to_tier: Tier) -> Memory:
        """Put one memory into a tier. Raises ConfigError for an id that is not there."""
        with self._writing() as db:
            done = db.execute("UPDATE memories SET tier = ?, accessed_s = ? WHERE id = ?", (Tier(to_tier), self._clock(), id))
        if not done.rowcount:
            raise ConfigError(f"there is no memory {id}")
        return next(memory for memory in self.memories() if memory.id == id)

    def run_consolidation(self) -> Consolidation:
        """Move every memory on to where it belongs, drop what faded, join what is there twice; one transaction."""
        start, now = time.perf_counter(), self._clock()
        with self._lock:
            memories = self.memories()
            merged, doomed = _joined(memories)
            judged = [_judged(memory, now) for memory in memories if memory.id not in doomed]
            moves = [(one.to_tier, one.memory.id) for one in judged if one.to_tier not in (None, one.memory.tier)]
            faded = [one.memory.id for one in judged if one.to_tier is None]
            with self._writing() as db:
                db.executemany("UPDATE memories SET access_count = ?, importance = ?, accessed_s = ? WHERE id = ?", merged)
                db.executemany("UPDATE memories SET tier = ? WHERE id = ?", moves)
                db.executemany("DELETE FROM memories WHERE id = ?", [(id,) for id in (*faded, *doomed)])
            self._runs += 1
        return Consolidation(len(memories), len(moves), len(faded), len(doomed), time.perf_counter() - start)

    def start_background_task(self, interval_s: float = 300.0) -> None:
        """Consolidate every interval_s seconds in a daemon thread, until `stop_background_task` or `close`."""
        if not interval_s > 0:
            raise ConfigError(f"interval_s must be greater than 0, not {interval_s}")
        if self._thread is not None and self._thread.is_alive():
            return
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._consolidate_often, args=(self._stop, interval_s), daemon=True)
        self._thread.start()

    def stop_background_task(self) -> None:
        """End it; a consolidation under way is finished first."""
        if self._stop is not None and self._thread is not None:
            self._stop.set()
            self._thread.join()
        self._stop = self._thread = None

    def _consolidate_often(self, stop: threading.Event, interval_s: float) -> None:
        while not stop.wait(interval_s):
            try:
                self.run_consolidation()
            except StorageError:  # a full or busy disk: the next turn tries again, and remembering tells its caller
                continue

    def get_stats(self) -> dict[str, Any]:
        """Memories in all and by tier and kind, mean strength, consolidations of this session, whether one runs by itself."""
        now, found = self._clock(), self.memories()
        return {
            "total": len(found),
            "tiers": {tier.value: sum(memory.tier is tier for memory in found) for tier in Tier},
            "kinds": {kind: sum(memory.kind == kind for memory in found) for kind in ("note", "turn")},
            "recalled": sum(memory.access_count for memory in found),
            "mean_strength": sum(memory.strength(now) for memory in found) / len(found) if found else 0.0,
            "consolidations": self._runs,
            "background": self._thread is not None and self._thread.is_alive(),
        }

    def close(self) -> None:
        """End the background task and close the file."""
        self.stop_background_task()
        with self._lock:
            self._db.close()

    # ---- within

    def _vector(self, text: str) -> bytes | None:
        with suppress(RemoteEncoderError):  # it is encoded when next recalled
            return None if self._encode is None else np.asarray(self._encode([text]), "<f4")[0].tobytes()
        return None

    def _scores(self, words: str) -> dict[int, float]:
        """Likeness of each memory to `words`: cosine, or the share of their telling words where no encoder can be asked."""
        with suppress(RemoteEncoderError):
            if self._encode is not None:
                return self._cosines(words, self._encode)
        telling = _telling(words)
        return {m.id: len(telling & _telling(m.text)) / max(len(telling), 1) for m in self.memories()}

    def _cosines(self, words: str, encode: Callable[[list[str]], Vectors]) -> dict[int, float]:
        asked = np.asarray(encode([words]), np.float32)[0]
        with self._lock, self._plain_errors():
            rows = self._db.execute("SELECT id, space, vector FROM memories").fetchall()
        usable = [(id, vector) for id, space, vector in rows if _fits(space == self.space, vector, asked)]
        scores = {}
        if usable:
            cosines = np.stack([np.frombuffer(vector, "<f4") for _, vector in usable]) @ asked
            scores = {id: float(cosine) for (id, _), cosine in zip(usable, cosines) if math.isfinite(cosine)}
        if missing := [id for id, *_ in rows if id not in scores]:
            scores |= self._encoded_again(missing, asked)
        return scores

    def _encoded_again(self, ids: Sequence[int], asked: Vectors) -> dict[int, float]:
        """Vectors of another encoder, or none: made now and kept."""
        texts = {memory.id: memory.text for memory in self.memories() if memory.id in set(ids)}
        if not texts or self._encode is None:
            return {}
        vectors = np.asarray(self._encode(list(texts.values())), "<f4")
        with self._writing() as db:
            rows = [(self.space, vector.tobytes(), id) for id, vector in zip(texts, vectors)]
            db.executemany("UPDATE memories SET space = ?, vector = ? WHERE id = ?", rows)
        return {id: float(cosine) for id, cosine in zip(texts, vectors @ asked)}

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._plain_errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:  # an interrupt too ends the transaction
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"the memory in {self.path or 'this process'} cannot be used: {error}") from error


def _to_memory(row: tuple[Any, ...]) -> Memory | None:
    """A row as a Memory; None for one that is not ours."""
    id, text, kind, tier, importance, created_s, accessed_s, access_count, session, metadata = row
    numbers = (importance, created_s, accessed_s, access_count)
    try:
        about = json.loads(metadata)
        sound = all(isinstance(n, int | float) and math.isfinite(n) for n in numbers) and isinstance(about, dict)
        if not sound or not isinstance(text, str) or not isinstance(session, str) or kind not in ("note", "turn"):
            return None
        importance, created_s, accessed_s = (float(number) for number in numbers[:3])
        return Memory(int(id), text, kind, Tier(tier), importance, created_s, accessed_s, int(access_count), session, about)
    except (ValueError, TypeError, RecursionError):
        return None


def _fits(same_space: bool, vector: Any, asked: Vectors) -> bool:
    return same_space and isinstance(vector, bytes) and len(vector) == asked.nbytes


def _judged(memory: Memory, now_s: float) -> Candidate:
    """Where a memory belongs now."""
    strength, tier = memory.strength(now_s), memory.tier
    kept = memory.importance >= MATTERS or memory.access_count >= USED
    to: Tier | None = tier
    if tier is Tier.WORKING:
        to = Tier.SHORT_TERM if now_s - memory.created_s >= HALF_LIFE_S[tier] else tier
    elif kept and tier is Tier.SHORT_TERM:
        to = Tier.LONG_TERM
    elif tier is Tier.LONG_TERM and now_s - memory.created_s >= _DAY_S:
        to = Tier.EPISODIC if memory.kind == "turn" else Tier.SEMANTIC
    if strength < FADED and tier is not Tier.WORKING and to is tier:
        to = None
    return Candidate(memory, strength, to)


def _joined(memories: Sequence[Memory]) -> tuple[list[tuple[int, float, float, int]], set[int]]:
    """The same words twice become the later one, which inherits use and importance: (updates by id, ids to drop)."""
    last: dict[tuple[str, str], Memory] = {}
    doomed: set[int] = set()
    for memory in memories:
        key = (memory.kind, " ".join(_WORD.findall(memory.text.casefold())))
        if (older := last.get(key)) is not None:
            doomed.add(older.id)
            memory = replace(
                memory,
                access_count=memory.access_count + older.access_count,
                importance=max(memory.importance, older.importance),
                accessed_s=max(memory.accessed_s, older.accessed_s),
            )
        last[key] = memory
    before = {memory.id: memory for memory in memories}
    return [(m.access_count, m.importance, m.accessed_s, m.id) for m in last.values() if m != before[m.id]], doomed


def _telling(text: str) -> frozenset[str]:
    return frozenset(word for word in _WORD.findall(text.casefold()) if word not in _COMMON)
