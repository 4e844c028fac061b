"""The dense leg of an index whose newest passages have no vector yet: the likeliest few get theirs now, the others wait.

Words and static vectors say which those are. Fused by them alone, the best 50 lose nothing that a search of all would
have found (500 questions of squad2, 2026-11-21: nDCG@10 0.9172 both ways, 0.9034 by words alone, 0.9032 by words and
static vectors without the encoder; `bench progressive`), and take a moment instead of minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ultrafast_rag.language.terms import trusted
from ultrafast_rag.ports import ChunkReader, LexicalIndex, Refinement, StaticEncoder, TextEncoder, VectorIndex
from ultrafast_rag.search.fusion import add_named, convex, known_or, union
from ultrafast_rag.search.searcher import CANDIDATES
from ultrafast_rag.types import ChunkIds, Mask, Ranking, Vectors

# passages that a question has encoded, and those it has however slow the machine is. nDCG@10 that is lost until all is
# refined, 300 questions each of squad2, xquad German and Chinese, scifact: 50 lose 0, 0, 0 and .001; 30 0, 0, 0 and .004;
# 20 0, .002, 0 and .008 (2026-11-22)
ENCODED, LEAST = 50, 30
WAIT_S = 0.25  # for the encoder, of the 0.4 s that a first question may take


class Unrefined:
    """`ports.PartialDense`.

    sketches: nearest chunks by static vectors. static: makes them of a question's tokens.
    """

    def __init__(
        self,
        reader: ChunkReader,
        lexical: LexicalIndex,
        dense: VectorIndex,
        *,
        sketches: Callable[[], VectorIndex],
        static: Callable[[], StaticEncoder],
        refinement: Refinement,
    ) -> None:
        self._reader, self._lexical, self._dense = reader, lexical, dense
        self._sketches, self._static, self._refinement = sketches, static, refinement
        self._pace_s = 0.0  # for a passage, when some were last encoded

    def leg(
        self,
        query: str,
        encoder: TextEncoder,
        words: Ranking,
        named: Vectors | None,
        *,
        alpha: float,
        k: int,
        allowed: Mask | None,
    ) -> PartialLeg | None:
        """As the port says."""
        first = self._refinement.first()
        if not first:
            return None
        self._refinement.resume()
        visible = self._reader.allowed({}) if allowed is None else allowed
        waiting = visible & (np.arange(len(visible)) >= first)
        if waiting.any():
            self._encode(
                self._likeliest(query, encoder, words, named, alpha=alpha, waiting=waiting)[: max(ENCODED, k)], max(LEAST, k)
            )
        return PartialLeg(self._dense, first, *self._refinement.encoded(first), visible)

    def _encode(self, likeliest: ChunkIds, least: int) -> None:
        """The first `least`, and so many of the others that all together could be had in WAIT_S.

        Known ones count too: a question that is asked again takes no more of them than it did at first.
        """
        start = time.perf_counter()
        if computed := self._refinement.encode(likeliest[:least].tolist()):
            self._pace_s = (time.perf_counter() - start) / computed
        also = min(WAIT_S / max(self._pace_s, 1e-6), len(likeliest)) - least
        if also > 0:
            self._refinement.encode(likeliest[least : least + int(also)].tolist())

    def _likeliest(
        self, query: str, encoder: TextEncoder, words: Ranking, named: Vectors | None, *, alpha: float, waiting: Mask
    ) -> ChunkIds:
        """Waiting passages that words or static vectors find, best first by both, as a search would fuse them."""
        vector = self._static().encode_tokens(encoder.tokenize([query]))[0]
        near = self._sketches().search(vector, CANDIDATES, allowed=waiting) if vector.any() else _NOTHING
        found = [words.chunk_ids[_within(waiting, words.chunk_ids)], near.chunk_ids]
        if named is not None:
            inside = waiting[: len(named)] & (named[: len(waiting)] > 0)
            found.append(self._lexical.search(query, CANDIDATES, allowed=inside).chunk_ids)
            found.append(
                self._sketches().search(vector, CANDIDATES, allowed=inside).chunk_ids if vector.any() else near.chunk_ids
            )
        ids = union(*found)
        cosines = known_or(near, ids, lambda missing: self._sketches().score(vector, missing))
        bm25 = np.zeros(len(ids), np.float32)
        if alpha < 1:
            bm25 = known_or(words, ids, lambda missing: self._lexical.score(query, missing))
        scores = convex(cosines, bm25, alpha=trusted(alpha, encoder.known_share(query)))
        if named is not None:
            scores = add_named(scores, named[np.minimum(ids, len(named) - 1)])
        return ids[np.argsort(-scores, kind="stable")]


class PartialLeg:
    """`ports.VectorIndex` of one question: what is in the index, and what was encoded for questions.

    first: no chunk from this one on is in the index. ids, vectors: of those whose vectors are at hand, rising.
    """

    def __init__(self, dense: VectorIndex, first: int, ids: ChunkIds, vectors: Vectors, visible: Mask) -> None:
        self._dense, self.first = dense, first
        self._ids, self._vectors, self._visible = ids, vectors, visible

    def search(self, vector: Vectors, k: int, *, allowed: Mask | None = None) -> Ranking:
        """As the port says."""
        known = self._dense.search(vector, k, allowed=allowed)
        own = np.flatnonzero(_within(self._visible if allowed is None else allowed, self._ids))
        own = own[~np.isin(self._ids[own], known.chunk_ids)]  # committed since
        ids = np.concatenate([known.chunk_ids, self._ids[own]])
        scores = np.concatenate([known.scores, self._cosines(vector)[own]])
        best = np.argsort(-scores, kind="stable")[:k]
        return Ranking(ids[best], scores[best])

    def score(self, vector: Vectors, chunk_ids: ChunkIds) -> Vectors:
        """As the port says."""
        scores = self._dense.score(vector, chunk_ids)
        if len(self._ids):
            places = np.minimum(np.searchsorted(self._ids, chunk_ids), len(self._ids) - 1)
            here = np.isnan(scores) & (self._ids[places] == chunk_ids)
            scores[here] = self._cosines(vector)[places[here]]
        return scores

    def _cosines(self, vector: Vectors) -> Vectors:
        if not len(self._ids):
            return np.empty(0, np.float32)
        query = np.asarray(vector, np.float32).reshape(-1)
        return np.asarray(np.einsum("nd,d->n", self._vectors, query / max(float(np.linalg.norm(query)), 1e-12)), np.float32)


_NOTHING = Ranking(np.empty(0, np.int64), np.empty(0, np.float32))


def _within(mask: Mask, ids: ChunkIds) -> Mask:
    """mask[ids], False beyond its end."""
    inside: Mask = (ids < len(mask)) & mask[np.minimum(ids, len(mask) - 1)]
    return inside
