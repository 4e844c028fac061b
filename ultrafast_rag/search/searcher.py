"""Query -> Hits: fan out to the legs, fuse, filter, collapse near-duplicates, rerank.

Knows its legs only as ports. Every score is higher-is-better; the dense legs give exact cosines.
Reciprocal-rank fusion lost to the convex sum on all six collections tried (`bench quality`), because
ranks hide how sure a leg is; it stays as an option.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, RemoteEncoderError, did_you_mean
from ultrafast_rag.language.accounts import other_names
from ultrafast_rag.language.asides import of_document
from ultrafast_rag.language.safetext import unstorable
from ultrafast_rag.language.sentences import closest
from ultrafast_rag.language.terms import trusted
from ultrafast_rag.monitor import PerformanceMonitor
from ultrafast_rag.ports import (
    ChunkReader,
    FileNames,
    ImageEncoder,
    LexicalIndex,
    PartialDense,
    PartialLeg,
    Reranker,
    TextEncoder,
    VectorIndex,
)
from ultrafast_rag.search.fusion import Floats, add_named, add_visual, convex, known_or, margin, nothing, rrf, union
from ultrafast_rag.search.gather import Gatherer
from ultrafast_rag.types import DESCRIBES, MODALITIES, Chunk, ChunkIds, Hit, Hits, Mask, Ranking, Words, moments_of

CANDIDATES = 100  # a leg at least; fusion is exact over the union
DUPLICATE_OVERLAP = 0.9  # Jaccard of word sets from which two passages are the same
# Share of its BM25 by which the first passage stands above the second, from which a question counts as easy. Chosen on questions
# that `bench switches` does not ask (300 each of scifact, squad2 and xquad-de): from there on words alone rank as both legs do
EASY_MARGIN = 0.45


class Searcher:
    """Answers queries from a lexical leg, a text leg and, where pictures are indexed, a CLIP leg.

    The encoders arrive as callables, so that a words-only or filtered query loads no model.
    """

    def __init__(
        self,
        reader: ChunkReader,
        lexical: LexicalIndex,
        dense: VectorIndex,
        text_encoder: Callable[[], TextEncoder],
        *,
        config: Config,
        visual: VectorIndex | None = None,
        image_encoder: Callable[[], ImageEncoder | None] = lambda: None,
        names: FileNames | None = None,
        reranker: Callable[[], Reranker | None] = lambda: None,
        unrefined: PartialDense | None = None,
        monitor: PerformanceMonitor | None = None,
    ) -> None:
        self._reader, self._lexical, self._dense, self._visual = reader, lexical, dense, visual
        self._text_encoder, self._image_encoder, self._reranker = text_encoder, image_encoder, reranker
        self._names, self._unrefined = names, unrefined
        self._config = config
        self._monitor = monitor or PerformanceMonitor()
        # the model encodes there while the words are looked up here; the other way round, the words, which hold the
        # interpreter's lock, keep the model from starting (slower in both of two alternating comparisons, with and without
        # a pause before the words, and so is one after the other)
        self._beside = Gatherer(self._monitor)

    def close(self) -> None:
        """End the thread; the searcher cannot be used afterwards."""
        self._beside.close()

    def search(
        self,
        query: str | bytes,
        *,
        k: int,
        alpha: float,
        modality: str | Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
        rerank: bool = False,
        neighbours: bool = False,
        also: str = "",
    ) -> Hits:
        """The k best chunks for a question, or for a picture given as encoded bytes.

        alpha: 0 words only, 1 meaning only. modality and filters narrow what may be returned. also: further words for the
        lexical leg, half as heavy as the question's own. Where a text model that is a service cannot be asked, words alone
        find, and `notes` say so.
        Raises ConfigError for an empty query, k < 1, alpha outside 0..1 or an unknown modality.
        """
        start = time.perf_counter()
        check_query(query, k=k, alpha=alpha, modality=modality)
        allowed = self._allowed(modality, filters)
        pool, notes = max(CANDIDATES, 4 * k), tuple[str, ...]()
        if isinstance(query, bytes):
            ids, scores, dense, lexical = self._by_picture(query, pool, allowed)
        else:
            try:
                ids, scores, dense, lexical = self._by_text(query, k, pool, alpha, allowed, also)
            except RemoteEncoderError as error:  # the words are here, whatever has become of the service
                notes = (f"found by words alone: {error}",)
                ids, scores, dense, lexical = self._by_text(query, k, pool, 0.0, allowed, also)
        asked = frozenset(_WORD.findall(query.lower())) if isinstance(query, str) else frozenset()
        hits = self._hits(ids, scores, dense, lexical, 3 * k if rerank else k, asked=asked, neighbours=neighbours)
        if rerank and isinstance(query, str):
            hits = self.rerank(query, hits)[:k]
        shown = query if isinstance(query, str) else "(picture)"
        return Hits(hits, query=shown, seconds=time.perf_counter() - start, notes=notes)

    def _allowed(self, modality: str | Sequence[str] | None, filters: Mapping[str, Any] | None) -> Mask | None:
        wanted = dict(filters or {})
        if modality is not None:
            wanted["modality"] = [modality] if isinstance(modality, str) else list(modality)
        return self._reader.allowed(wanted) if wanted else None

    def _by_text(
        self, query: str, k: int, pool: int, alpha: float, allowed: Mask | None, also: str
    ) -> tuple[ChunkIds, Floats, Floats, Floats]:
        also = " ".join(filter(None, [also, other_names(query)]))
        words = f"{query} {query} {also}" if also else query
        early = self._config.stop_early and 0 < alpha < 1 and self._visual is None
        encoder = self._text_encoder() if alpha > 0 and not early else None
        asked = self._beside.submit(encoder, query) if encoder is not None else None
        with self._monitor.measure("search: words"):
            lexical = self._lexical.search(words, pool, allowed=allowed) if alpha < 1 else nothing()
        if early and margin(lexical.scores) >= EASY_MARGIN:
            alpha = 0.0
            self._monitor.record_metric("search: stopped early", 1.0)
        elif early:
            encoder = self._text_encoder()
            asked = self._beside.submit(encoder, query)
        named = self._names.named(of_document(query)) if self._names is not None and alpha < 1 else None
        vector = asked.result() if asked is not None else None
        partial: PartialLeg | None = None
        if encoder is not None and self._unrefined is not None:
            with self._monitor.measure("search: refine"):
                partial = self._unrefined.leg(query, encoder, lexical, named, alpha=alpha, k=k, allowed=allowed)
        leg: VectorIndex = partial or self._dense
        with self._monitor.measure("search: meaning"):
            dense = leg.search(vector, pool, allowed=allowed) if vector is not None else nothing()
        seen = self._see(query, pool, allowed) if alpha > 0 else None
        inside = self._inside(query, leg, vector, pool, named, allowed)
        ids = union(lexical.chunk_ids, dense.chunk_ids, *inside, *([seen[0].chunk_ids] if seen else []))
        cosines = np.full(len(ids), np.nan, np.float32)
        if vector is not None:
            cosines = known_or(dense, ids, lambda missing: leg.score(vector, missing))
        if partial is not None:  # fused by those alone that meaning has judged; and what CLIP sees
            ready = (ids < partial.first) | ~np.isnan(cosines) | np.isin(ids, seen[0].chunk_ids if seen else [])
            ids, cosines = ids[ready], cosines[ready]
        bm25 = np.zeros(len(ids), np.float32)
        if alpha < 1:
            bm25 = known_or(lexical, ids, lambda missing: self._lexical.score(words, missing))
        if self._config.fusion == "rrf":
            scores = rrf(ids, [lexical, dense], rrf_k=self._config.rrf_k)
        else:
            scores = convex(cosines, bm25, alpha=trusted(alpha, encoder.known_share(query)) if encoder is not None else alpha)
        if seen:
            every = len(seen[0].chunk_ids) < pool
            scores = add_visual(scores, seen[1](ids), seen[0].scores, alpha=alpha, all_seen=every)
        if named is not None:
            scores = add_named(scores, named[np.minimum(ids, len(named) - 1)])
        order = np.argsort(-scores, kind="stable")
        return ids[order], scores[order], cosines[order], bm25[order]

    def _inside(
        self, query: str, leg: VectorIndex, vector: Floats | None, pool: int, named: Floats | None, allowed: Mask | None
    ) -> tuple[ChunkIds, ...]:
        """The best of the files that the question names, however many others fit as well."""
        if named is None:
            return ()
        visible = (named > 0) & (self._reader.allowed({}) if allowed is None else allowed)[: len(named)]
        legs = [self._lexical.search(query, pool, allowed=visible)]
        if vector is not None:
            legs.append(leg.search(vector, pool, allowed=visible))
        return tuple(leg.chunk_ids for leg in legs)

    def _see(self, query: str, pool: int, allowed: Mask | None) -> tuple[Ranking, Callable[[ChunkIds], Floats]] | None:
        """The CLIP leg: its best, and a scorer for the union's ids."""
        visual = self._visual
        encoder = self._image_encoder() if visual is not None else None
        if visual is None or encoder is None:
            return None
        vector = encoder.encode_texts([query])[0]
        ranking = visual.search(vector, pool, allowed=allowed)
        return (ranking, lambda ids: visual.score(vector, ids)) if len(ranking.chunk_ids) else None

    def _by_picture(self, picture: bytes, pool: int, allowed: Mask | None) -> tuple[ChunkIds, Floats, Floats, Floats]:
        encoder = self._image_encoder()
        if encoder is None or self._visual is None:
            raise ConfigError("no picture model is loaded, so a picture cannot be the query; doctor() says why")
        ranking = self._visual.search(encoder.encode_images([picture])[0], pool, allowed=allowed)
        blank = np.full(len(ranking.scores), np.nan, np.float32)
        return ranking.chunk_ids, ranking.scores, ranking.scores, blank

    def _hits(
        self, ids: ChunkIds, scores: Floats, dense: Floats, lexical: Floats, k: int, *, asked: frozenset[str], neighbours: bool
    ) -> list[Hit]:
        """The first k candidates that are still there and repeat no earlier one."""
        hits: list[Hit] = []
        shown: list[frozenset[str]] = []
        taken: set[int] = set()
        position = 0
        while len(hits) < k and position < len(ids):
            batch = slice(position, position + k + k // 2)  # some repeat an earlier one
            rows = {int(i): n for n, i in enumerate(ids[batch], position)}
            position += k + k // 2
            for found in self._reader.chunks(list(rows)):
                n = rows[found.id]
                chunk = self._described(found)
                if chunk is None or chunk.id in taken:
                    continue
                if self._config.collapse_duplicates and _repeats(chunk, shown, asked):
                    continue
                taken.add(chunk.id)
                around = self._reader.neighbours(chunk) if neighbours else ("", "")
                hits.append(_hit(chunk, float(scores[n]), float(dense[n]), float(lexical[n]), around, asked))
                if len(hits) == k:
                    break
        return hits

    def _described(self, chunk: Chunk) -> Chunk | None:
        """The chunk itself, or the one it describes; None when that one is gone."""
        if DESCRIBES not in chunk.metadata:
            return chunk
        return next(iter(self._reader.chunks([int(chunk.metadata[DESCRIBES])])), None)

    def rerank(self, query: str, hits: list[Hit]) -> list[Hit]:
        """Hits in the order of the cross-encoder, or as they are where the first stands out by `rerank_margin`."""
        reranker = self._reranker()
        if reranker is None:
            raise ConfigError("rerank=True needs Config(rerank_model=...), a cross-encoder's name or path")
        least = self._config.rerank_margin
        if least is not None and margin([hit.score for hit in hits]) >= least:
            self._monitor.record_metric("search: rerank spared", 1.0)
            return hits
        with self._monitor.measure("search: rerank"):
            scores = np.asarray(reranker.score(query, [hit.text for hit in hits]), np.float32)
        order = np.argsort(-scores, kind="stable")
        return [replace(hits[n], score=float(scores[n])) for n in order]


def read_query(query: str | bytes | os.PathLike[str], *, media_type: Callable[[Path], str]) -> str | bytes:
    """Words stay as they are; a picture's path, also as text (not as `Words`) where such a file is there, becomes its bytes."""
    if isinstance(query, Words):
        return query
    if isinstance(query, str):
        suffixed = "." in query and len(query) < 1024 and "\0" not in query
        if not suffixed or not os.path.isfile(query) or not media_type(Path(query)).startswith("image/"):
            return query
    elif not isinstance(query, os.PathLike):
        return query
    try:
        return Path(query).read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"the picture {query!s} cannot be read: {why}; give its path, or its bytes") from error


def check_query(
    query: str | bytes,
    *,
    k: int,
    alpha: float,
    modality: str | Sequence[str] | None = None,
    filters: Mapping[str, Any] | None = None,
) -> None:
    """Raise ConfigError, in words that say what to do, for a query that cannot be answered."""
    if not isinstance(query, str | bytes):
        raise ConfigError(f"a question is text, or a picture's bytes or path, not {type(query).__name__}")
    if not (query.strip() if isinstance(query, str) else query):
        raise ConfigError("the question is empty; ask in words, or pass a picture's bytes or path")
    if isinstance(query, str) and (why := unstorable(query)):
        raise ConfigError(f"the question {why}")
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise ConfigError(f"k is how many hits to return and must be at least 1, not {k!r}")
    if not isinstance(alpha, int | float | np.floating) or not 0 <= alpha <= 1:
        raise ConfigError(f"alpha must lie between 0 (words only) and 1 (meaning only), not {alpha!r}")
    _check_modality(modality)
    for name, value in _pairs(filters):
        if why := unstorable(name) or unstorable(value):
            raise ConfigError(f"filter {name!r} {why}")


def _check_modality(modality: object) -> None:
    if not isinstance(modality, str | Sequence | set | frozenset | None):
        raise ConfigError(f"modality is one or several of {', '.join(MODALITIES)}, not {modality!r}")
    for wanted in [modality] if isinstance(modality, str) else list(modality or []):
        if wanted not in MODALITIES:
            raise ConfigError(f"unknown modality {wanted}{did_you_mean(str(wanted), MODALITIES)}")


def _pairs(filters: Any) -> list[tuple[str, Any]]:
    if not isinstance(filters or {}, Mapping) or not all(isinstance(name, str) for name in filters or {}):
        raise ConfigError(f"filters are a mapping from field to value, e.g. {{'source': 'talk.mp3'}}, not {filters!r:.80}")
    return list((filters or {}).items())


_WORD, _FIGURE = re.compile(r"\w+"), re.compile(r"\d")


def _repeats(chunk: Chunk, shown: list[frozenset[str]], asked: frozenset[str]) -> bool:
    """Whether the passage says what an earlier one said; remembers it when it does not.

    A near copy that has a word of the question which the earlier one lacks is no repeat: it may be the one asked for;
    nor is one with other figures, which make another statement.
    """
    words = frozenset(_WORD.findall(chunk.text.lower())) if chunk.modality in ("text", "table") else frozenset()
    if not words:
        return False
    for earlier in shown:
        smaller, larger = sorted((len(words), len(earlier)))
        alike = smaller >= DUPLICATE_OVERLAP * larger and len(words & earlier) >= DUPLICATE_OVERLAP * len(words | earlier)
        if alike and not (words - earlier) & asked and not any(_FIGURE.search(word) for word in words ^ earlier):
            return True
    shown.append(words)
    return False


def _hit(
    chunk: Chunk, score: float, dense: float, lexical: float, around: tuple[str, str], asked: frozenset[str] = frozenset()
) -> Hit:
    title, _, section = chunk.context.partition(" > ")
    moments = moments_of(chunk.metadata) if asked else []
    return Hit(
        chunk_id=chunk.id,
        document_id=chunk.document_id,
        source=chunk.source,
        modality=chunk.modality,
        text=chunk.text,
        score=score,
        page=chunk.page,
        bbox=chunk.bbox,
        start_s=chunk.start_s,
        end_s=chunk.end_s,
        dense_score=dense,
        lexical_score=lexical,
        title=title,
        section=section,
        neighbours=around,
        metadata=chunk.metadata,
        focus=_said(chunk.text, moments, asked) if moments else "",
    )


def _said(text: str, moments: Sequence[tuple[int, float]], asked: frozenset[str]) -> str:
    """The stretch of speech that the question is about."""
    ends = [*(first for first, _ in moments[1:]), len(text)]
    return closest([text[first:end].strip() for (first, _), end in zip(moments, ends)], asked)
