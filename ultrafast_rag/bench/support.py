"""When does a sentence support an answer? Calibrates the constants of `answer/extractive.py`.

Half the articles of a collection are indexed. Questions about those should be answered, questions about
the other half should not: the same kind of question, written by the same people. Every weight of meaning
against words is tried; for each, every threshold. Questions written to look answerable by a paragraph that
does not answer them (SQuAD 2.0's) are counted apart: of those choosing sentences tells but few. No reader has a say.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ultrafast_rag.answer import extractive
from ultrafast_rag.answer.extractive import ExtractiveAnswerer
from ultrafast_rag.bench.metrics import contains_answer, load_questions
from ultrafast_rag.bench.publicsets import Collection, data_folder, load
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import QUESTIONS, SAMPLES, add_settings, config_of, settings_of
from ultrafast_rag.config import Config
from ultrafast_rag.index.lexical import LexicalIndex
from ultrafast_rag.index.store import Store
from ultrafast_rag.models.registry import Models
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import Table

Numbers = npt.NDArray[np.float64]
ANSWERABLE, ELSEWHERE, NEAR_MISS = "answerable", "answered elsewhere", "near miss"
WEIGHTS = tuple(n / 10 for n in range(11))
SHARES = (0.6, 0.7, 0.8, 0.9, 1.0)  # of the best sentence's score, for further sentences


@dataclass(frozen=True, slots=True)
class Asked:
    """One question's sentences: cosine and coverage each, whether it holds the gold answer, whether it may be quoted at all."""

    kind: str  # ANSWERABLE, ELSEWHERE or NEAR_MISS
    cosines: Numbers
    coverages: Numbers
    gold: npt.NDArray[np.bool_]
    quotable: npt.NDArray[np.bool_]  # it leaves nothing unsaid that the question insists on

    def scores(self, meaning: float) -> Numbers:
        """Each sentence's score under a weight of the cosine; 0 for what may not be quoted."""
        return self.quotable * (meaning * self.cosines + (1 - meaning) * self.coverages)

    def best(self, meaning: float) -> float:
        """The score that decides; 0 without sentences."""
        return float(self.scores(meaning).max(initial=0.0))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many questions of each kind."""
    parser.add_argument("--data", type=Path, help="folder of public collections (default: UFR_TEST_DATA)")
    parser.add_argument("--questions", type=int, default=1000, help="questions of each kind")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """One row a weight with its best threshold; the settings in use and the samples besides."""
    folder, config = data_folder(arguments.data), config_of(settings_of(arguments.set))
    assert folder is not None
    say("asking questions of half the articles ...")
    asked = ask_collection(load("squad2", folder), arguments.questions, config)
    say("asking the samples ...")
    samples = ask_samples(config) if QUESTIONS.exists() else []
    rows = [row_of(asked, meaning, best_threshold(asked, meaning)) for meaning in WEIGHTS]
    best = max(rows, key=lambda row: row["balanced"])
    in_use = row_of(asked, extractive.MEANING, extractive.SUPPORT)
    on_samples = row_of(samples, extractive.MEANING, extractive.SUPPORT) if samples else {}
    curve = [row_of(asked, extractive.MEANING, float(t)) for t in np.arange(0.3, 0.95, 0.05)]
    further = [further_of(asked, extractive.MEANING, share) for share in SHARES]
    notes = (
        f"best: meaning {best['meaning']}, threshold {best['threshold']:.3f}",
        f"in use: {said_of(in_use)}",
        *([f"samples: {said_of(on_samples)}"] if samples else []),
        "balanced: mean of the two right rates, at the threshold where it is highest",
    )
    data = {"in use": in_use, "samples": on_samples, "by threshold": curve, "further sentences": further}
    return Result(Table(rows, "Support", notes=notes), data)


def ask_collection(collection: Collection, count: int, config: Config) -> list[Asked]:
    """Questions about indexed articles, as many about articles left out, and as many near misses."""
    articles = sorted({name.rsplit(":", 1)[0] for name in collection.documents})
    inside = set(articles[::2])
    kept = {name: text for name, text in collection.documents.items() if name.rsplit(":", 1)[0] in inside}
    groups: dict[str, list[str]] = {ANSWERABLE: [], ELSEWHERE: [], NEAR_MISS: []}
    for question, gold in collection.qrels.items():
        about = ANSWERABLE if question in collection.answers else NEAR_MISS
        groups[about if set(gold) <= set(kept) else ELSEWHERE].append(question)
    chosen = [(q, kind) for kind, names in groups.items() for q in _spread(names, count)]
    rows = [(collection.questions[q], collection.answers.get(q, []), kind) for q, kind in chosen]
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-support-") as folder:
        with UltraFastRAG(Path(folder, "index"), config=config) as rag:
            rag.add_texts(list(kept.values()), ids=list(kept))
        return _ask(Path(folder, "index"), rows, config)


def ask_samples(config: Config) -> list[Asked]:
    """The samples' own questions that a text encoder alone can answer."""
    rows = [
        (question.question, [question.answer] if question.answer else [], ANSWERABLE if question.answerable else ELSEWHERE)
        for question in load_questions(QUESTIONS)
        if not question.needs and question.modality in ("text", "table")
    ]
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-support-") as folder:
        with UltraFastRAG(Path(folder, "index"), config=config) as rag:
            rag.ingest(SAMPLES)
        return _ask(Path(folder, "index"), rows, config)


def _ask(place: Path, rows: Sequence[tuple[str, list[str], str]], config: Config) -> list[Asked]:
    asked = []
    with UltraFastRAG(place, config=config) as rag, Store.open(place, write=False) as store:
        models = Models(config, store)
        answerer = ExtractiveAnswerer(models.text, LexicalIndex(store, folder=place))
        for question, gold, kind in rows:
            scored, _ = answerer.weigh(question, rag.search(question, k=extractive.PASSAGES), [])
            asked.append(
                Asked(
                    kind,
                    np.array([s.cosine for s in scored]),
                    np.array([s.coverage for s in scored]),
                    np.array([contains_answer(s.unit.shown, gold) for s in scored], np.bool_),
                    np.array([not s.lacking for s in scored], np.bool_),
                )
            )
        models.close()
    return asked


def _spread(names: Sequence[str], count: int) -> list[str]:
    step = max(1.0, len(names) / count)
    return [names[int(n * step)] for n in range(min(count, len(names)))]


def best_threshold(asked: Sequence[Asked], meaning: float) -> float:
    """The threshold with the highest mean of the two right rates (Youden's)."""
    right = np.sort([one.best(meaning) for one in asked if one.kind == ANSWERABLE])
    wrong = np.sort([one.best(meaning) for one in asked if one.kind == ELSEWHERE])
    thresholds = np.unique(np.concatenate([right, wrong]))
    kept = 1 - np.searchsorted(right, thresholds) / max(len(right), 1)
    refused = np.searchsorted(wrong, thresholds) / max(len(wrong), 1)
    return float(thresholds[np.argmax(kept + refused)])


def row_of(asked: Sequence[Asked], meaning: float, threshold: float) -> dict[str, Any]:
    """Rates at one weight and threshold."""
    supported = _mean([one.best(meaning) >= threshold for one in asked if one.kind == ANSWERABLE])
    wrongly = _mean([one.best(meaning) >= threshold for one in asked if one.kind == ELSEWHERE])
    findable = [one for one in asked if one.kind == ANSWERABLE and one.gold.any()]
    return {
        "meaning": meaning,
        "threshold": threshold,
        "supported": supported,
        "wrongly": wrongly,
        "near misses": _mean([one.best(meaning) >= threshold for one in asked if one.kind == NEAR_MISS]),
        "balanced": (supported + 1 - wrongly) / 2,
        "gold in a passage": _mean([one.gold.any() for one in asked if one.kind == ANSWERABLE]),
        "best sentence right": _mean([one.gold[one.scores(meaning).argmax()] for one in findable]),
    }


def further_of(asked: Sequence[Asked], meaning: float, share: float) -> dict[str, Any]:
    """How often the quoted sentences hold the answer, and how many they are, by what further ones need."""
    counts, right = [], []
    for one in asked:
        if one.kind == ANSWERABLE and one.gold.any():
            scores = one.scores(meaning)
            chosen = np.argsort(-scores, kind="stable")[: extractive.MAX_SENTENCES]
            chosen = chosen[scores[chosen] >= share * scores.max()]
            counts.append(len(chosen))
            right.append(bool(one.gold[chosen].any()))
    return {"share of the best": share, "sentences": _mean(counts), "hold the answer": _mean(right)}


def said_of(row: Mapping[str, Any]) -> str:
    """A row in words."""
    return (
        f"meaning {row['meaning']}, threshold {row['threshold']:.3f}: supported when answerable {row['supported']:.3f}, when "
        f"answered elsewhere {row['wrongly']:.3f}, near misses {row['near misses']:.3f}; "
        f"best sentence right {row['best sentence right']:.3f}"
    )


def _mean(values: Sequence[Any]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
