"""The search's switches one by one: nDCG@10 with and without each on public collections, and how much work it adds or saves.

Two rows are about questions that the collections do not have as such. Follow-ups: questions that lean on another ("when was it
built?"), asked after the one before them on the same passage, as they stand and as the conversation rewrites them. Two-part
questions: every question joined by "and" with another one of the collection, both passages being right. A map is our synonyms
of everyday English (`language/sameness.py`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrafast_rag.answer.conversation import follow_up
from ultrafast_rag.bench.metrics import compare, per_query
from ultrafast_rag.bench.publicsets import FILES, Collection, data_folder, load
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import TEXT_ONLY, add_settings, settings_of
from ultrafast_rag.config import PACKAGED_READER, Config
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.language.sameness import synonyms
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import Answer, Hits, Table

SETS = ("scifact", "squad2", "xquad-de")
QUESTIONS = 150  # chosen: a collection takes minutes
RERANK = {"rerank_model": PACKAGED_READER}
MARGIN = 0.1  # chosen
SPARED = {"stop_early": "search: stopped early", "rerank_margin": "search: rerank spared"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which collections, and how many questions."""
    parser.add_argument("--data", type=Path, help="folder of public collections (default: UFR_TEST_DATA)")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(FILES), help="which collections")
    parser.add_argument("--questions", type=int, default=QUESTIONS, metavar="N", help="at most N questions a collection")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """One row a collection and switch."""
    if arguments.questions < 2:
        raise ConfigError("--questions must be at least 2")
    folder, rows = data_folder(arguments.data), list[dict[str, Any]]()
    assert folder is not None
    config = Config().replace(**{**TEXT_ONLY, **settings_of(arguments.set)})
    for name in arguments.sets:
        say(f"{name} ...")
        collection = load(name, folder)
        rows += _rows(collection, collection.first(arguments.questions), config)
    notes = (
        "nDCG@10; p: paired randomization test of the switch alone, not adjusted for how many switches there are",
        "spared: questions for which the switch saved the encoder, or the reranker; changed: questions whose ranking it changed",
        "variants by a language model were not measured: there is none here",
    )
    return Result(Table(rows, "Switches of the search", notes=notes), {"rows": rows})


@dataclass(frozen=True, slots=True)
class _Arm:
    """settings: of the switch. base: what it is held against."""

    name: str
    settings: Mapping[str, Any]
    base: Mapping[str, Any]


def _rows(whole: Collection, collection: Collection, config: Config) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-switches-") as folder:
        index, words = Path(folder, "index"), Path(folder, "map.json")
        words.write_text(json.dumps(synonyms()), encoding="utf-8")
        with UltraFastRAG(index, config=config) as rag:
            rag.add_texts(list(whole.documents.values()), ids=list(whole.documents))
        arms = (
            _Arm("feedback", {"expansion": "feedback"}, {}),
            _Arm("map", {"expansion_map": str(words)}, {}),
            _Arm("decompose", {"decompose": True}, {}),
            _Arm("stop_early", {"stop_early": True}, {}),
            _Arm("rerank", RERANK, {}),
            _Arm("rerank_margin", {**RERANK, "rerank_margin": MARGIN}, RERANK),
        )
        for arm in arms:
            rows.append(_row(collection, arm, index, config, collection.questions, collection.questions))
        joined = two_parts(collection)
        rows.append(
            _row(joined, _Arm("decompose, two-part questions", {"decompose": True}, {}), index, config, *[joined.questions] * 2)
        )
        alone, meant = follow_ups(whole, len(collection.questions))
        if alone:
            rows.append(_row(whole, _Arm("follow-ups rewritten", {}, {}), index, config, alone, meant))
    return rows


def _row(
    collection: Collection, arm: _Arm, index: Path, config: Config, plain: Mapping[str, str], switched: Mapping[str, str]
) -> dict[str, Any]:
    before, _ = _run(index, config.replace(**arm.base), plain)
    after, metrics = _run(index, config.replace(**{**arm.base, **arm.settings}), switched)
    qrels = {q: collection.qrels[q] for q in plain}
    values = [per_query("ndcg", qrels, found, k=10) for found in (before, after)]
    means = [sum(value.values()) / len(value) for value in values]
    spared = next((metrics.get(metric, {}).get("count", 0) for name, metric in SPARED.items() if name == arm.name), None)
    return {
        "collection": collection.name,
        "switch": arm.name,
        "questions": len(plain),
        "without": round(means[0], 4),
        "with": round(means[1], 4),
        "difference": round(means[1] - means[0], 4),
        "p": round(compare(*values).p_value, 3),
        "changed": sum(before[q] != after[q] for q in plain),
        "spared": spared,
    }


def _run(index: Path, config: Config, questions: Mapping[str, str]) -> tuple[dict[str, list[str]], Mapping[str, Any]]:
    with UltraFastRAG(index, config=config) as rag:
        found = {q: [hit.document_id for hit in rag.search(text, k=10)] for q, text in questions.items()}
        return found, rag.monitor.get_report()["metrics"]


def two_parts(collection: Collection) -> Collection:
    """Each question joined with another one of the collection, half of the questions away; both passages are right."""
    names = list(collection.questions)
    pairs = list(zip(names, names[len(names) // 2 :]))
    asked = {}
    for first, second in pairs:
        one, other = (collection.questions[name].strip() for name in (first, second))
        asked[first] = (
            f"{one.rstrip('?. ')}, {'und' if collection.name.endswith('-de') else 'and'} {other[:1].lower()}{other[1:]}"
        )
    qrels = {first: {**collection.qrels[first], **collection.qrels[second]} for first, second in pairs}
    return Collection(collection.name, collection.documents, asked, qrels, {})


def follow_ups(collection: Collection, most: int) -> tuple[dict[str, str], dict[str, str]]:
    """Questions that lean on the one before them on the same passage: as asked, and as rewritten."""
    last: dict[frozenset[str], str] = {}
    asked, meant = {}, {}
    for name, question in collection.questions.items():
        passage = frozenset(collection.qrels[name])
        if passage in last:
            understood = follow_up(question, Answer(last[passage], "", Hits()))
            if understood.rewritten(question):
                asked[name], meant[name] = question, understood.question
        last[passage] = question
    kept = list(asked)[:: -(-len(asked) // most) or 1] if asked else []
    return {name: asked[name] for name in kept}, {name: meant[name] for name in kept}
