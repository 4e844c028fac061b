"""Retrieval and answer metrics, paired comparison of two systems, judgements from feedback.

Knows rankings, judgements and texts, no index and no model. Conventions are trec_eval's: gains are
linear in the judged relevance, a judged query without a ranking scores 0, a ranking without
judgements is left out, a document that appears twice counts at its first rank.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.errors import ConfigError
from ultrafast_rag.types import Answer, Hit, Table

Qrels = Mapping[str, Mapping[str, float]]
"""query id -> document id -> relevance, > 0 where relevant."""
Run = Mapping[str, Sequence[str]]
"""query id -> document ids, best first."""
Search = Callable[[str], Sequence[Hit]]
GOLD = "gold"

# ---- retrieval


def ndcg_at_k(qrels: Qrels, run: Run, *, k: int = 10) -> float:
    """Mean of DCG@k / ideal DCG@k, DCG = sum over ranks i of relevance_i / log2(i + 1).

    Source: Järvelin & Kekäläinen, TOIS 2002; linear gains, as trec_eval's ndcg_cut.
    """
    return _mean(per_query("ndcg", qrels, run, k=k))


def recall_at_k(qrels: Qrels, run: Run, *, k: int = 10) -> float:
    """Mean share of a query's relevant documents that are among its first k."""
    return _mean(per_query("recall", qrels, run, k=k))


def mrr_at_k(qrels: Qrels, run: Run, *, k: int = 10) -> float:
    """Mean of 1 / rank of the first relevant document, 0 when none is among the first k (Voorhees, TREC-8)."""
    return _mean(per_query("mrr", qrels, run, k=k))


def precision_at_k(qrels: Qrels, run: Run, *, k: int = 10) -> float:
    """Mean of relevant documents among the first k, over k: a short ranking is not excused, as in trec_eval."""
    return _mean(per_query("precision", qrels, run, k=k))


def per_query(metric: str, qrels: Qrels, run: Run, *, k: int = 10) -> dict[str, float]:
    """One value for each query with a relevant document. metric: "ndcg", "recall", "mrr" or "precision".

    Raises ConfigError for another metric or k < 1.
    """
    if k < 1:
        raise ConfigError(f"k counts ranks and must be at least 1, not {k}")
    if metric not in _METRICS:
        raise ConfigError(f"unknown metric {metric!r}; there are {', '.join(_METRICS)}")
    values = {}
    for query, judged in qrels.items():
        ideal = sorted((gain for gain in judged.values() if gain > 0), reverse=True)
        if ideal:
            ranked = list(dict.fromkeys(run.get(query, ())))[:k]
            values[query] = _METRICS[metric]([max(judged.get(name, 0.0), 0.0) for name in ranked], ideal, k)
    return values


def _dcg(gains: Sequence[float]) -> float:
    return float(sum(gain / np.log2(rank + 1) for rank, gain in enumerate(gains, 1)))


def _ndcg(gains: Sequence[float], ideal: Sequence[float], k: int) -> float:
    return _dcg(gains) / _dcg(ideal[:k])


def _recall(gains: Sequence[float], ideal: Sequence[float], k: int) -> float:
    return sum(gain > 0 for gain in gains) / len(ideal)


def _reciprocal_rank(gains: Sequence[float], ideal: Sequence[float], k: int) -> float:
    return next((1 / rank for rank, gain in enumerate(gains, 1) if gain > 0), 0.0)


def _precision(gains: Sequence[float], ideal: Sequence[float], k: int) -> float:
    return sum(gain > 0 for gain in gains) / k


_METRICS: dict[str, Callable[[Sequence[float], Sequence[float], int], float]] = {
    "ndcg": _ndcg,
    "recall": _recall,
    "mrr": _reciprocal_rank,
    "precision": _precision,
}


def _mean(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values()))) if values else 0.0


# ---- two systems


@dataclass(frozen=True, slots=True)
class Comparison:
    """B against A over the queries both have. difference: mean of b - a.

    low, high: its 95 % bootstrap interval.  p_value: two-sided, of the paired randomization test.
    """

    queries: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p_value: float

    def __str__(self) -> str:
        verdict = "no difference shown" if self.p_value >= 0.05 else ("B is better" if self.difference > 0 else "A is better")
        return (
            f"A {self.mean_a:.3f}, B {self.mean_b:.3f}, difference {self.difference:+.3f} "
            f"[{self.low:+.3f}, {self.high:+.3f}], p = {self.p_value:.3g} over {self.queries} queries: {verdict}"
        )


def compare(a: Mapping[str, float], b: Mapping[str, float], *, rounds: int = 10_000, seed: int = 0) -> Comparison:
    """Paired comparison of two systems' values per query, e.g. from `per_query`.

    The p-value flips the sign of each query's difference at random; the interval resamples queries.
    Raises ConfigError when they share no query.
    Source: Smucker, Allan & Carterette, CIKM 2007 (randomization, bootstrap).
    """
    shared = sorted(set(a) & set(b))
    if not shared:
        raise ConfigError("the two systems share no query; evaluate both over the same questions")
    first, second = (np.array([values[query] for query in shared]) for values in (a, b))
    differences, rng = second - first, np.random.default_rng(seed)
    observed = float(differences.mean())
    extreme = 0
    means: list[float] = []
    for count in _blocks(rounds, max(1, 2_000_000 // len(shared))):
        signs = rng.integers(0, 2, (count, len(shared)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ differences / len(shared)) >= abs(observed) - 1e-12).sum())
        means += differences[rng.integers(0, len(shared), (count, len(shared)))].mean(axis=1).tolist()
    low, high = np.percentile(means, [2.5, 97.5])
    p_value = (extreme + 1) / (rounds + 1)
    return Comparison(len(shared), float(first.mean()), float(second.mean()), observed, float(low), float(high), p_value)


def _blocks(total: int, size: int) -> Iterable[int]:
    return (min(size, total - start) for start in range(0, total, size))


# ---- answers


def normalize_answer(text: str) -> list[str]:
    """Lower-case words without punctuation and English articles, as SQuAD's evaluation does."""
    plain = "".join(" " if c in string.punctuation else c for c in text.casefold())
    return [word for word in plain.split() if word not in ("a", "an", "the")]


def exact_match(answer: str, gold: Sequence[str]) -> float:
    """1 when the answer is one of the gold answers after normalization, else 0 (Rajpurkar et al., EMNLP 2016)."""
    return float(any(normalize_answer(answer) == normalize_answer(one) for one in gold))


def token_f1(answer: str, gold: Sequence[str]) -> float:
    """Best harmonic mean of word precision and recall against any gold answer (Rajpurkar et al., EMNLP 2016)."""
    return max((_f1(normalize_answer(answer), normalize_answer(one)) for one in gold), default=0.0)


def _f1(words: Sequence[str], gold: Sequence[str]) -> float:
    if not words or not gold:
        return float(words == gold)
    shared = sum((Counter(words) & Counter(gold)).values())
    return 2 * shared / (len(words) + len(gold))


def contains_answer(text: str, gold: Sequence[str]) -> bool:
    """Whether a gold answer's words stand in the text in a row, after normalization."""
    words = f" {' '.join(normalize_answer(text))} "
    found = (" ".join(normalize_answer(one)) for one in gold)
    return any(one and f" {one} " in words for one in found)


# ---- labelled questions


@dataclass(frozen=True, slots=True)
class Question:
    """A question and where its answer stands. source None: the documents do not answer it.

    source: a file name without folders.  page: 1-based, None for the whole file.  start_s, end_s: seconds.
    needs: what must be there to answer it, e.g. "clip" or "speech"; "" for nothing but the text encoder.
    """

    question: str
    answer: str | None = None
    source: str | None = None
    page: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    modality: str = "text"
    needs: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answerable(self) -> bool:
        """Whether the documents hold the answer."""
        return self.source is not None

    def is_answered_by(self, hit: Hit) -> bool:
        """Whether the hit lies on this question's page, or overlaps its seconds."""
        if self.source is None or _file_name(hit.source) != _file_name(self.source):
            return False
        if self.start_s is not None and hit.start_s is not None:
            mine, theirs = self.end_s or self.start_s, hit.end_s if hit.end_s is not None else hit.start_s
            return hit.start_s < mine + 0.5 and theirs > self.start_s - 0.5
        return self.page is None or hit.page == self.page


def load_questions(path: Path | str) -> list[Question]:
    """Questions from JSON: a list of objects, or an object with such a list under "questions".

    Raises ConfigError for a file that is not there or has another shape.
    """
    try:
        listed = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a list of questions: {error}") from error
    rows = listed.get("questions") if isinstance(listed, dict) else listed
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "question" in row for row in rows):
        raise ConfigError(f'{path}: expected a list of objects with a "question" each')
    known = {name for name in Question.__slots__ if name != "metadata"}
    return [
        Question(**{k: v for k, v in row.items() if k in known}, metadata={k: v for k, v in row.items() if k not in known})
        for row in rows
    ]


def judge(questions: Sequence[Question], search: Search) -> tuple[Qrels, Run]:
    """Ask each answerable question; qrels and run over places: a page or moment counts once, at its first hit."""
    qrels: dict[str, dict[str, float]] = {}
    run: dict[str, list[str]] = {}
    for number, question in enumerate(questions):
        if question.answerable:
            qrels[str(number)] = {GOLD: 1.0}
            hits = search(question.question)
            run[str(number)] = [GOLD if question.is_answered_by(hit) else place_of(hit) for hit in hits]
    return qrels, run


def place_of(hit: Hit) -> str:
    """A name for the page, or the stretch of a recording, that a hit lies on."""
    moment = "" if hit.start_s is None else f"@{hit.start_s:.0f}"
    return f"{hit.source}#{hit.page if hit.page is not None else ''}{moment}"


def evaluate_answers(questions: Sequence[Question], ask: Callable[[str], Answer]) -> Table:
    """One row a kind of question: how often an answer is given, holds the gold words, and cites the right place."""
    rows = []
    for name, wanted in (("answerable", True), ("not in the documents", False)):
        group = [q for q in questions if q.answerable is wanted]
        answers = [ask(q.question) for q in group]
        gold = [(q, a) for q, a in zip(group, answers) if q.answer]
        right = [any(q.is_answered_by(c.hit) for c in a.citations) for q, a in zip(group, answers)]
        rows.append(
            {
                "questions": name,
                "count": len(group),
                "answered": _share(a.supported for a in answers),
                "holds the gold answer": _share(a.supported and contains_answer(a.text, [q.answer or ""]) for q, a in gold),
                "cites the right place": _share(right) if wanted else None,
            }
        )
    return Table(rows, "Answers")


def _share(values: Iterable[bool]) -> float | None:
    listed = [bool(value) for value in values]
    return sum(listed) / len(listed) if listed else None


def _file_name(source: str) -> str:
    return re.split(r"[\\/]", source)[-1]


# ---- feedback


def qrels_from_feedback(votes: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Judgements from stored votes: question -> chunk id -> relevance, the sum of its votes where that is above 0.

    votes: rows with "question", "chunk_id" and "vote" (+1 or -1), as the store keeps them; a vote on a
    whole answer has no chunk and judges nothing. Questions with no relevant chunk are left out.
    """
    sums: Counter[tuple[str, str]] = Counter()
    for row in votes:
        if row.get("chunk_id") is not None:
            sums[str(row["question"]), str(row["chunk_id"])] += int(row["vote"])
    qrels: dict[str, dict[str, float]] = {}
    for (question, chunk), total in sums.items():
        if total > 0:
            qrels.setdefault(question, {})[chunk] = float(total)
    return qrels
