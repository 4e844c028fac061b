"""Which files a question names: file names and folders, a field beside the text.

Words of a name weigh by how few files bear them (idf over names, not over passages), as each field of BM25F has its own
statistics. A name speaks clearly when the question says most of what sets it apart, and few files are meant: a word that
merely occurs in some long name does not. Source: Robertson, Zaragoza & Taylor, "Simple BM25 Extension to Multiple Weighted
Fields", CIKM 2004. Texts added under ids of their own have no file, and no name.
"""

from __future__ import annotations

import math
import re
import threading
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np

from ultrafast_rag.index.store import Store
from ultrafast_rag.language.names import COMMON, grams, name_pieces, question_grams
from ultrafast_rag.types import Vectors

FOLDERS = 3  # nearest folders that count; those which all files share weigh nothing
CLEAR = 0.5  # share of what sets a name apart that a question must say of it
FEW = 4  # at most one file in so many may be meant as well as the best
NEAR = 0.8  # of the best score: meant as well as the best
ALSO = 0.5  # of the best score: raised, by less
ONE_WORD = 0.5  # for a single word without figures: it may be there by chance
WHOLE = 0.9  # share of a name from which it is said as a whole
_SHORTEST_PREFIX = 3  # letters; two begin too many words
_FIGURE = re.compile(r"\d")
_ENDING = re.compile(r"\.\w{1,5}$")
_COMPLETIONS = 64  # longer names that a word of the question may begin


@dataclass(slots=True)
class _Names:
    """keys: of the documents. idf: of each file's pieces, `own` of its name and then those of its folders.

    places: gram -> (file, first piece, how many pieces). single: the grams that are one piece, sorted.
    """

    generation: int = -1
    keys: list[int] = field(default_factory=list)
    own: list[int] = field(default_factory=list)
    idf: list[list[float]] = field(default_factory=list)
    places: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    single: list[str] = field(default_factory=list)


class NameIndex:
    """`ports.FileNames` over the store's documents. Thread-safe; made anew when documents changed."""

    def __init__(self, store: Store) -> None:
        self._store, self._guard = store, threading.Lock()
        self._names = _Names()

    def named(self, query: str) -> Vectors | None:
        """How clearly a question names the file of each chunk: float32 (max chunk id + 1,), 0 to 1; None where it names none."""
        names = self._current()
        if len(names.keys) < 2:
            return None
        scores = {names.keys[file]: score for file, score in _clear(names, _said(names, query), _proper(query)).items()}
        if not scores:
            return None
        by_chunk = np.zeros(len(self._store.alive()), np.float32)
        for key, first, count in self._store.chunk_runs(list(scores)):
            by_chunk[first : first + count] = scores[key]
        return by_chunk

    def _current(self) -> _Names:
        generation = self._store.generation
        with self._guard:
            if self._names.generation != generation:
                self._names = _read(generation, self._store.files())
            return self._names


def _read(generation: int, files: Mapping[int, str]) -> _Names:
    """Cut every name into pieces and look where each run of pieces stands."""
    names = _Names(generation)
    if len(files) < 2:
        return names
    cut = []
    for key, source in files.items():
        *folders, name = source.replace("\\", "/").split("/")
        own = name_pieces(_ENDING.sub("", name))
        names.keys.append(key)
        names.own.append(len(own))
        cut.append([own, *(name_pieces(folder) for folder in folders[-FOLDERS:])])
    frequency = Counter(piece for fields in cut for piece in {piece for pieces in fields for piece in pieces})
    places: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for file, fields in enumerate(cut):
        first = 0
        for pieces in fields:
            for gram, at, count in grams(pieces):
                places[gram].append((file, first + at, count))
            first += len(pieces)
        # a word of the name that its folder has too is said once by a question, not twice
        pieces = [piece for pieces in fields for piece in pieces]
        once = [piece not in COMMON and piece not in pieces[:at] for at, piece in enumerate(pieces)]
        names.idf.append([_idf(len(cut), frequency[piece]) if counts else 0.0 for piece, counts in zip(pieces, once)])
    names.places = dict(places)
    names.single = sorted(frequency)
    return names


def _idf(files: int, bearing: int) -> float:
    return math.log(1 + (files - bearing + 0.5) / (bearing + 0.5)) if bearing < files else 0.0


def _said(names: _Names, query: str) -> dict[int, dict[int, float]]:
    """File -> its pieces that the question says -> how much of the piece, 0 to 1."""
    said: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for gram in question_grams(query):
        for known, share in ((gram, 1.0), *_completions(names.single, gram)):
            for file, first, count in names.places.get(known, ()):
                pieces = said[file]
                for piece in range(first, first + count):
                    pieces[piece] = max(share, pieces.get(piece, 0.0))
    return said


def _completions(single: list[str], gram: str) -> list[tuple[str, float]]:
    """Longer words of names that it begins, each with the share of it that is said: "cvs" for "cvshealth"."""
    if len(gram) < _SHORTEST_PREFIX or not gram.isalpha():
        return []
    at = bisect_right(single, gram)
    longer = takewhile(lambda name: name.startswith(gram), single[at : at + _COMPLETIONS])
    return [(name, len(gram) / len(name)) for name in longer]


def _proper(query: str) -> set[str]:
    """Runs of pieces in words of the question that are written as names: a capital or a figure, not only as its first word."""
    later = query.split()[1:]
    return {gram for word in later if word != word.lower() or _FIGURE.search(word) for gram in question_grams(word)}


def _clear(names: _Names, said: Mapping[int, Mapping[int, float]], proper: set[str]) -> dict[int, float]:
    """File -> 0 to 1 for the files that the question names clearly; {} when it names none.

    A single word counts as a name where it is written as one, or is the whole name: "the station" is not "station_report".
    """
    scores: dict[int, float] = {}
    clear: dict[int, float] = {}
    for file, pieces in said.items():
        idf, own = names.idf[file], names.own[file]
        score = sum(idf[piece] * share for piece, share in pieces.items())
        beside = sum(idf[piece] for piece in pieces if piece >= own)
        scores[file], clear[file] = score, score / max(sum(idf[:own]) + beside, 1e-9)
    best = max(scores.values(), default=0.0)
    meant = [file for file, score in scores.items() if score >= NEAR * best]
    if best <= 0 or len(meant) > max(1, len(names.keys) // FEW) or max(clear[file] for file in meant) < CLEAR:
        return {}
    one_word = all(sum(names.idf[file][piece] > 0 for piece in said[file]) < 2 for file in meant)
    if one_word and max(clear[file] for file in meant) < WHOLE:
        written = {file for gram in proper for file, _, _ in names.places.get(gram, ())}
        if not written.intersection(meant):
            return {}
    weight = ONE_WORD if one_word else 1.0
    return {file: weight * score / best for file, score in scores.items() if score >= ALSO * best}
