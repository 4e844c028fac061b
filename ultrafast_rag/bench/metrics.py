"""Retrieval metrics and the paired comparison of two systems; the answer metrics and labelled questions are named here too.

Knows rankings and judgements, no index and no model. Conventions are trec_eval's, and `ir-measures` agrees in
the tests: gains are linear in the judged relevance, a judged query without a ranking scores 0, a ranking without
judgements is left out, a document that appears twice counts at its first rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ultrafast_rag.bench.answers import (
    answer_relevancy,
    citation_scores,
    contains_answer,
    context_precision,
    context_recall,
    exact_match,
    faithfulness,
    normalize_answer,
    ragas_row,
    risk_coverage,
    token_f1,
)
from ultrafast_rag.bench.questions import (
    Qrels,
    Question,
    Run,
    evaluate_answers,
    judge,
    load_questions,
    place_of,
    qrels_from_feedback,
)
from ultrafast_rag.errors import ConfigError

__all__ = [
    "Comparison", "Qrels", "Question", "Run", "answer_relevancy", "citation_scores", "compare", "contains_answer",
    "context_precision", "context_recall", "evaluate_answers", "exact_match", "faithfulness", "hit_at_k", "interval", "judge",
    "load_questions", "map_at_k", "mrr_at_k", "ndcg_at_k", "normalize_answer", "per_query", "place_of", "precision_at_k",
    "qrels_from_feedback", "ragas_row", "recall_at_k", "risk_coverage", "token_f1",
]  # fmt: skip

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


def hit_at_k(qrels: Qrels, run: Run, *, k: int = 10) -> float:
    """Share of queries with a relevant document among the first k (success@k)."""
    return _mean(per_query("hit", qrels, run, k=k))


def map_at_k(qrels: Qrels, run: Run, *, k: int = 1000) -> float:
    """Mean average precision: precision at each relevant rank, over all relevant documents (trec_eval's map, cut at k)."""
    return _mean(per_query("map", qrels, run, k=k))


def per_query(metric: str, qrels: Qrels, run: Run, *, k: int = 10) -> dict[str, float]:
    """One value for each query with a relevant document. metric: "ndcg", "recall", "mrr", "map", "hit" or "precision".

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


def _hit(gains: Sequence[float], ideal: Sequence[float], k: int) -> float:
    return float(any(gain > 0 for gain in gains))


def _average_precision(gains: Sequence[float], ideal: Sequence[float], k: int) -> float:
    ranks = [rank for rank, gain in enumerate(gains, 1) if gain > 0]
    return sum(found / rank for found, rank in enumerate(ranks, 1)) / len(ideal)


_METRICS: dict[str, Callable[[Sequence[float], Sequence[float], int], float]] = {
    "ndcg": _ndcg,
    "recall": _recall,
    "mrr": _reciprocal_rank,
    "precision": _precision,
    "hit": _hit,
    "map": _average_precision,
}


def _mean(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values()))) if values else 0.0


def interval(values: Mapping[str, float], *, rounds: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean over queries (Efron 1979); NaN, NaN without queries."""
    array = np.array(list(values.values()))
    if not array.size:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = [
        array[rng.integers(0, array.size, (count, array.size))].mean(axis=1)
        for count in _blocks(rounds, max(1, 2_000_000 // array.size))
    ]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


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
