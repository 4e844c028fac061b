"""BM25 over the store's chunks: terms from `language/terms.py`, lists from `postings.py`, statistics at query time.

New chunks become a small segment of their own; segments of like size are merged, so adding to a large
index costs in proportion to what is added. Chunk count, document frequency and average length are
summed over segments at query time, chunks deleted since left out: the scores are those of an index built at once.
The score is Lucene's BM25: idf * tf / (tf + k1 (1 - b + b dl/avgdl)), idf = ln(1 + (N - df + 0.5)/(df + 0.5)).
Source: Robertson & Zaragoza 2009; Kamphuis et al., ECIR 2020 for the variant.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ultrafast_rag.files import read_manifest, write_manifest
from ultrafast_rag.index import postings
from ultrafast_rag.index.database import plain_errors
from ultrafast_rag.index.postings import Segment
from ultrafast_rag.index.store import Store
from ultrafast_rag.language import terms as analysis
from ultrafast_rag.types import ChunkIds, Mask, Ranking, Vectors

_MANIFEST = "lexical.json"
_VERSION = f"2.{analysis.VERSION}"  # of the files, and of what makes terms of texts
_BATCH = 2_000  # chunks analysed before they are turned into a segment: some 6 MB of terms
_LANGUAGE_SHARE = 0.03  # languages rarer than this in the collection are not tried for a question that shows none
_HASHES_KEPT = 1_000_000  # words, some 150 MB: a vocabulary larger than any collection's we met
_SAMPLE_STEP = 16  # a sixteenth tells the k-th best score well enough to start from

TermLists = tuple[Segment, Vectors, list[tuple[np.float32, slice]]]
Places = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Of some terms in a segment: first posting and number of postings."""


class LexicalIndex:
    """`ports.LexicalIndex`. Thread-safe; picks up commits, also other processes', by itself.

    folder: where `save` keeps derived files; None keeps none.  k1: saturation of repeated terms.  b: how far
    long chunks are held back, 0 to 1.
    """

    def __init__(self, store: Store, *, folder: Path | None = None, k1: float = 1.2, b: float = 0.75) -> None:
        self.store, self.folder, self.k1, self.b = store, folder, k1, b
        self._guard = threading.RLock()
        self._analyzer = analysis.Analyzer()
        self._hashes: dict[str, int] = {}
        self._segments: list[Segment] = []
        self._norms: list[Vectors] = []
        self._gone: list[Mask | None] = []
        self._languages: Counter[str] = Counter()
        self._generation = -1
        self._loaded = False
        self._asked: tuple[int, str, list[TermLists]] = (-1, "", [])

    @property
    def chunks(self) -> int:
        """Chunks in the index, deleted ones included."""
        return sum(len(segment.chunk_ids) for segment in self._segments)

    def refresh(self) -> None:
        """Take in what was committed since; cheap when nothing was."""
        generation = self.store.generation
        if generation == self._generation:
            return
        with self._guard:
            if not self._loaded:
                self._loaded = True
                self._load()
            last = int(self._segments[-1].chunk_ids[-1]) if self._segments else 0
            texts = self.store.iter_texts(last)
            while batch := list(islice(texts, _BATCH)):
                self._add(batch)
            alive = self.store.alive()
            self._gone = [_gone(segment, alive) for segment in self._segments]
            lengths = sum(
                float(segment.lengths.sum(dtype=np.float64, where=True if gone is None else ~gone))
                for segment, gone in zip(self._segments, self._gone)
            )
            average = lengths / max(_count(self._segments, self._gone), 1) or 1.0
            self._norms = [
                (self.k1 * (1 - self.b + self.b * segment.lengths / average)).astype(np.float32) for segment in self._segments
            ]
            self._generation = generation

    def _add(self, batch: Sequence[tuple[int, str]]) -> None:
        terms: list[str] = []
        lengths: list[int] = []
        for _, text in batch:
            words = analysis.words_of(text)
            language = analysis.detect(words, self._shares())
            if language is None:
                language = self._majority()
            else:
                self._languages[language] += 1
            found = self._analyzer.terms(words, language)
            lengths.append(len(found))
            terms += found
        segment = postings.build([number for number, _ in batch], self._hash(terms), lengths)
        self._segments.append(segment)
        while len(self._segments) > 1 and len(self._segments[-2].chunk_ids) < 2 * len(self._segments[-1].chunk_ids):
            last, before = self._segments.pop(), self._segments.pop()
            self._segments.append(postings.merge(before, last))

    def _hash(self, terms: Iterable[str]) -> npt.NDArray[np.uint64]:
        if len(self._hashes) > _HASHES_KEPT:
            self._hashes.clear()
        known, hashes = self._hashes, []
        for term in terms:
            number = known.get(term)
            if number is None:
                number = known[term] = postings.hash_term(term)
            hashes.append(number)
        return np.array(hashes, dtype=np.uint64)

    def _shares(self) -> dict[str, float]:
        total = self._languages.total() or 1
        return {language: count / total for language, count in self._languages.items()}

    def _majority(self) -> str:
        return self._languages.most_common(1)[0][0] if self._languages else analysis.DEFAULT_LANGUAGE

    def _spoken(self) -> list[str]:
        """Languages of enough passages to look for a word in."""
        return [name for name, share in self._shares().items() if share >= _LANGUAGE_SHARE] or [self._majority()]

    # ---- asking

    def question_terms(self, query: str) -> list[str]:
        """The terms a question is searched by, each once per time it is asked for."""
        with self._guard:
            words = analysis.words_of(query)
            shares = self._shares()
            language = analysis.detect(words, shares)
            if language in shares:
                return self._analyzer.terms(self._analyzer.question_words(words, language), language)
            spoken = self._spoken()
            kept = self._analyzer.question_words(words, language or self._majority())
            forms = [[term for name in spoken for term in self._analyzer.terms([word], name)] for word in kept]
            return [term for form in forms for term in dict.fromkeys(form)]

    def weights(self, text: str) -> dict[str, float]:
        """Each distinct term of a text -> its idf in this index; a term seen nowhere has the highest."""
        self.refresh()
        terms = list(dict.fromkeys(self.question_terms(text)))
        with self._guard:
            segments, gone = list(self._segments), list(self._gone)
        if not terms:
            return {}
        hashes = np.array([postings.hash_term(term) for term in terms], dtype=np.uint64)
        return dict(zip(terms, _idf(segments, gone, [segment.find(hashes) for segment in segments], len(terms)).tolist()))

    def held(self, words: Sequence[str]) -> list[int]:
        """How many passages hold each word, in any of its forms."""
        self.refresh()
        with self._guard:
            segments, languages = list(self._segments), self._spoken()
            forms = [[term for name in languages for term in self._analyzer.terms([word], name)] for word in words]
        terms = list(dict.fromkeys(term for form in forms for term in form))
        hashes = np.array([postings.hash_term(term) for term in terms], dtype=np.uint64)
        counts = np.sum([segment.find(hashes)[1] for segment in segments], axis=0) if segments and terms else np.zeros(len(terms))
        known = dict(zip(terms, counts.tolist()))
        return [int(max((known[term] for term in form), default=0)) for form in forms]

    def search(self, query: str, k: int, *, allowed: Mask | None = None) -> Ranking:
        """The k best chunks that share a term with the query, best first."""
        self.refresh()
        visible = self.store.alive() if allowed is None else allowed
        ids: list[ChunkIds] = []
        best: list[Vectors] = []
        for segment, scores in self._scored(query):
            top = _top(scores, segment.chunk_ids, visible, k)
            ids.append(segment.chunk_ids[top])
            best.append(scores[top])
        if not ids:
            return Ranking(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
        all_ids, all_scores = np.concatenate(ids), np.concatenate(best)
        order = np.lexsort((all_ids, -all_scores))[:k]
        return Ranking(all_ids[order], all_scores[order])

    def score(self, query: str, chunk_ids: ChunkIds) -> Vectors:
        """BM25 of each chunk, float32 (n,); 0 where no term is shared.

        Looks the few chunks up in each term's list by bisection: a common term's list is not read through again.
        """
        self.refresh()
        wanted = np.asarray(chunk_ids, dtype=np.int64)
        result = np.zeros(len(wanted), dtype=np.float32)
        for segment, norm, lists in self._lists(query):
            places = np.minimum(np.searchsorted(segment.chunk_ids, wanted), len(segment.chunk_ids) - 1)
            here = np.flatnonzero(segment.chunk_ids[places] == wanted)
            rows = places[here]
            for idf, span in lists:
                docs = segment.docs[span]
                at = np.minimum(np.searchsorted(docs, rows.astype(docs.dtype)), len(docs) - 1)
                shared = docs[at] == rows
                tf = segment.counts[span][at[shared]].astype(np.float32)
                result[here[shared]] += idf * tf / (tf + norm[rows[shared]])
        return result

    def _scored(self, query: str) -> list[tuple[Segment, Vectors]]:
        """Each segment that holds a term of the query, with the BM25 of all its chunks."""
        result = []
        for segment, norm, lists in self._lists(query):
            scores = np.zeros(len(segment.chunk_ids), dtype=np.float32)
            for idf, span in lists:
                docs, tf = segment.docs[span], segment.counts[span].astype(np.float32)
                scores[docs] += idf * tf / (tf + norm[docs])
            result.append((segment, scores))
        return result

    def _lists(self, query: str) -> list[TermLists]:
        """Each segment that holds a term of the query, with its length norms, and each term's idf and place in the postings.

        The last query's are kept: a search asks for them twice, to rank and to score what the other legs found.
        """
        with self._guard:
            generation, segments = self._generation, list(self._segments)
            norms, gone = list(self._norms), list(self._gone)
        if self._asked[:2] == (generation, query):
            return self._asked[2]
        lists = self._look_up(query, segments, norms, gone)
        self._asked = (generation, query, lists)
        return lists

    def _look_up(self, query: str, segments: list[Segment], norms: list[Vectors], gone: list[Mask | None]) -> list[TermLists]:
        asked = Counter(self.question_terms(query))
        if not asked or not segments:
            return []
        terms = np.array([postings.hash_term(term) for term in asked], dtype=np.uint64)
        weights = np.fromiter(asked.values(), dtype=np.float64)
        found = [segment.find(terms) for segment in segments]
        idf = weights * _idf(segments, gone, found, len(terms))
        return [
            (segment, norm, [(np.float32(idf[n]), slice(starts[n], starts[n] + counts[n])) for n in np.flatnonzero(counts)])
            for segment, norm, (starts, counts) in zip(segments, norms, found)
            if counts.any()
        ]

    # ---- files

    def save(self) -> None:
        """Keep the index in `folder`, so that a new process need not read the texts; nothing without a folder.

        StorageError when the disk refuses: the older files, if any, stay, and what they lack is read again.
        """
        if self.folder is None:
            return
        self.refresh()
        with self._guard, plain_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            entries = [postings.save(segment, self.folder) for segment in self._segments]
            facts = {"version": _VERSION, "index": self.store.uid, "segments": entries, "languages": dict(self._languages)}
            write_manifest(self.folder, _MANIFEST, facts)
            kept = {entry["file"] for entry in entries}
            for path in self.folder.glob("lexical-*.bin"):
                if path.name not in kept:
                    path.unlink(missing_ok=True)

    def _load(self) -> None:
        """Map saved segments as far as they are whole; what is missing is read from the texts again."""
        facts = read_manifest(self.folder, _MANIFEST) if self.folder else None
        if self.folder is None or facts is None or facts.get("version") != _VERSION or facts.get("index") != self.store.uid:
            return
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, OSError):
            loaded = [postings.load(entry, self.folder) for entry in facts["segments"]]
            languages = Counter({str(name): int(count) for name, count in facts["languages"].items()})
            whole = [segment for segment in loaded if segment is not None]
            last = 0
            for segment in whole:
                if not len(segment.chunk_ids) or int(segment.chunk_ids[0]) <= last:
                    return
                last = int(segment.chunk_ids[-1])
            if len(whole) == len(loaded):
                self._segments, self._languages = whole, languages


def _gone(segment: Segment, alive: Mask) -> Mask | None:
    """Which of a segment's chunks no search may return; None where it may return each."""
    known = segment.chunk_ids < len(alive)
    gone: Mask = ~(known & alive[np.where(known, segment.chunk_ids, 0)])
    return gone if gone.any() else None


def _count(segments: Sequence[Segment], gone: Sequence[Mask | None]) -> int:
    """Chunks that a search may return."""
    return sum(len(segment.chunk_ids) - (0 if dead is None else int(dead.sum())) for segment, dead in zip(segments, gone))


def _idf(
    segments: Sequence[Segment], gone: Sequence[Mask | None], found: Sequence[Places], terms: int
) -> npt.NDArray[np.float64]:
    """Each of some terms' idf among the chunks that a search may return. found: their places in each segment."""
    frequency = np.zeros(terms)
    for segment, dead, (starts, counts) in zip(segments, gone, found):
        frequency += counts
        if dead is not None:
            frequency -= [dead[segment.docs[start : start + count]].sum() for start, count in zip(starts, counts)]
    return np.log(1 + (_count(segments, gone) - frequency + 0.5) / (frequency + 0.5))


def _top(scores: Vectors, chunk_ids: ChunkIds, visible: Mask, k: int) -> npt.NDArray[np.int64]:
    """Positions of the k highest positive scores among visible chunks."""
    # most chunks share only a common word: a cut guessed from every 16th score leaves few to sort; too few, and all are taken
    sample = scores[::_SAMPLE_STEP]
    rank = 4 * k // _SAMPLE_STEP + 4
    guess = float(np.partition(sample, -rank)[-rank]) if len(sample) > 4 * rank else 0.0
    for cut in (guess, 0.0):
        hits = np.flatnonzero(scores > cut)
        hits = hits[chunk_ids[hits] < len(visible)]
        seen = hits[visible[chunk_ids[hits]]]
        if len(seen) >= k:
            break
    return seen[np.argsort(-scores[seen], kind="stable")[:k]]


def damaged_files(folder: Path) -> list[str]:
    """Names of the saved files that are not what the manifest says, or that none names; the manifest too when they are."""
    there = sorted(path.name for path in folder.glob("lexical*") if path.suffix in (".bin", ".json"))
    facts = read_manifest(folder, _MANIFEST)
    whole = set()
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, OSError):
        for entry in facts["segments"] if facts else ():
            if postings.load(entry, folder) is None:
                return there
            whole.add(entry["file"])
        return [name for name in there if name not in whole and (name != _MANIFEST or facts is None)]
    return there
