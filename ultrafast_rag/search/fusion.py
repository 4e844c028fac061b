"""How sure the legs of a search are, as one score: arithmetic on arrays, nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ultrafast_rag.types import ChunkIds, Ranking

FEW_PICTURES = 3  # of fewer, nothing is known of how their cosines scatter
# Added to the passages of the file that a question names, in shares of the best score: enough to pass those that fit as well
NAME_WEIGHT = 0.5


Floats = npt.NDArray[np.float32]


def margin(scores: Sequence[float] | Floats) -> float:
    """By what share of itself the first score stands above the second, 0 to 1; of one alone 1, of none 0."""
    if not len(scores) or not scores[0] > 0:
        return 0.0
    return float((scores[0] - scores[1]) / scores[0]) if len(scores) > 1 else 1.0


def convex(cosines: Floats, bm25: Floats, *, alpha: float) -> Floats:
    """Fuse one set of candidates by alpha * (cos+1)/(max cos+1) + (1-alpha) * bm25/max bm25.

    cosines: (n,), NaN where a candidate has no vector, counted as -1. bm25: (n,), >= 0.
    Returns (n,) in 0..1. Source: Bruch et al., "An Analysis of Fusion Functions for Hybrid
    Retrieval", TOIS 2023 (the theoretical-minimum normalization).
    """
    shifted = np.nan_to_num(cosines, nan=-1.0) + 1
    dense = shifted / max(float(shifted.max(initial=0)), 1e-9)
    lexical = bm25 / max(float(bm25.max(initial=0)), 1e-9)
    fused: Floats = (alpha * dense + (1 - alpha) * lexical).astype(np.float32)
    return fused


def add_named(scores: Floats, named: Floats) -> Floats:
    """Raise the passages of the files that a question names; named: how clearly, (n,), 0 to 1."""
    raised: Floats = scores + np.float32(NAME_WEIGHT * float(scores.max(initial=0))) * named
    return raised


def rrf(ids: ChunkIds, rankings: Sequence[Ranking], *, rrf_k: int) -> Floats:
    """Summed reciprocal ranks, (n,) for each id; absent from a ranking adds nothing.

    Source: Cormack et al., SIGIR 2009.
    """
    scores = np.zeros(len(ids), np.float32)
    for ranking in rankings:
        place = {int(i): rank for rank, i in enumerate(ranking.chunk_ids, 1)}
        scores += np.array([1 / (rrf_k + place[int(i)]) if int(i) in place else 0 for i in ids], np.float32)
    return scores


def add_visual(scores: Floats, visual: Floats, seen: Floats, *, alpha: float, all_seen: bool = True) -> Floats:
    """Raise the pictures that stand out to CLIP, by how far and how surely they do.

    scores: fused scores of the candidates, (n,). visual: their CLIP cosines, NaN for what is no picture. seen: cosines of
    the pictures that were looked at; all_seen: False where they are only the best of more. CLIP cosines of text and picture
    lie in a narrow band of their own, different in each model, so only the rise over the mean picture is used, relative to
    the best one's, and `surely`. A picture has no words: one that surely stands out is given what all words of the question
    weigh, 1 - alpha, so that it ranks with the best passage there could be.
    """
    mean, top = float(seen.mean()), float(seen.max())
    rise = np.clip((np.nan_to_num(visual, nan=mean) - mean) / max(top - mean, 1e-6), 0, 1)
    own = np.where(np.isnan(visual), 0, alpha * (1 + rise) / 2)  # what the picture would get for meaning alone
    raised: Floats = (np.maximum(scores, own) + (1 - alpha) * surely(accident(seen, all_seen=all_seen)) * rise).astype(np.float32)
    return raised


def accident(seen: Floats, *, all_seen: bool = True) -> float:
    """Chance that the best of these cosines comes so far from the others though the question is about none of the pictures.

    1/e, which says nothing either way, for fewer than FEW_PICTURES. Of all pictures: a normal's largest against the others
    (Grubbs 1950; t's tail by Wallace 1959). Of the best of more: an exponential tail's largest (Pickands
    1975), which is careful: a normal's tail is shorter.
    """
    n, best = len(seen), float(seen.max())
    if n < FEW_PICTURES:
        return 1 / math.e
    others = np.sort(seen.astype(np.float64))[:-1]
    if not all_seen:
        excess = (best - others[0]) / max(float((others - others[0]).mean()), 1e-9)
        return min(1.0, n * math.pow(1 + excess / (n - 1), 1 - n))
    free = n - 2
    t = (best - others.mean()) / max(float(others.std(ddof=1)) * math.sqrt(1 + 1 / (n - 1)), 1e-9)
    normal = math.sqrt(free * math.log1p(t * t / free)) * (8 * free + 1) / (8 * free + 3)
    return min(1.0, n * math.erfc(normal / math.sqrt(2)) / 2)


def surely(p: float) -> float:
    """How sure a chance of p makes one that it was none, 0 to 1: at most so, one half being believed before.

    0 from 1/e on, where p is no evidence.  Source: Sellke, Bayarri, Berger, "Calibration of p Values", 2001.
    """
    return 1 / (1 - math.e * p * math.log(p)) if 0 < p <= 1 / math.e else float(p <= 0)


def union(*ids: ChunkIds) -> ChunkIds:
    """Ids of all rankings, each once, in order of first appearance."""
    merged = np.concatenate([np.asarray(i, np.int64) for i in ids])
    _, first = np.unique(merged, return_index=True)
    return merged[np.sort(first)]


def known_or(ranking: Ranking, ids: ChunkIds, score: Callable[[ChunkIds], Floats]) -> Floats:
    """A leg's score of each id, (n,): what its ranking says, and `score` asked only for the others."""
    if not len(ranking.chunk_ids):
        return score(ids)
    order = np.argsort(ranking.chunk_ids)
    places = order[np.minimum(np.searchsorted(ranking.chunk_ids, ids, sorter=order), len(order) - 1)]
    scores = np.asarray(ranking.scores, np.float32)[places]
    missing = np.flatnonzero(ranking.chunk_ids[places] != ids)
    if len(missing):
        scores[missing] = score(ids[missing])
    return scores


def nothing() -> Ranking:
    """A leg that found none."""
    return Ranking(np.empty(0, np.int64), np.empty(0, np.float32))
