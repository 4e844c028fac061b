"""The search's switches one by one: nDCG@10 with and without each on public collections, and how much work it adds or saves.

Two rows are about questions that the collections do not have as such. Follow-ups: questions that lean on another ("when was it
built?"), asked after the one before them on the same passage, as they stand and as the conversation rewrites them. Two-part
questions: every question joined by "and" with another one of the collection, both passages being right. A map is our synonyms
of everyday English (`language/sameness.py`). Reranking needs a cross-encoder, which --set rerank_model=... names: the packaged
reader is none (reranked by it, scifact fell from .745 to .654 and squad2 from .904 to .835 on 100 questions each).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultrafast_rag.answer.conversation import follow_up
from ultrafast_rag.bench.metrics import compare, per_query
from ultrafast_rag.bench.publicsets import FILES, Collection, data_folder, load
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import TEXT_ONLY, add_settings, settings_of
from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.language.sameness import synonyms
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import Answer, Hits, Table

SETS = ("scifact", "squad2", "xquad-de")
QUESTIONS = 150  # chosen: a collection takes minutes
MARGIN = 0.1  # chosen, to show `rerank_margin` at work
SPARED = ("search: stopped early", "search: rerank spared")


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
    notes = [
        "nDCG@10; p: paired randomization test of the switch alone, not adjusted for how many switches there are",
        "spared: questions for which the switch saved the encoder, or the reranker; changed: questions whose ranking it changed",
        "variants by a language model were not measured: there is none here",
    ]
    if config.rerank_model is None:
        notes.append("reranking was not measured: no cross-encoder is named by --set rerank_model=...")
    return Result(Table(rows, "Switches of the search", notes=tuple(notes)))


def _rows(whole: Collection, collection: Collection, config: Config) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-switches-") as folder:
        index, words = Path(folder, "index"), Path(folder, "map.json")
        words.write_text(json.dumps(synonyms()), encoding="utf-8")
        with UltraFastRAG(index, config=config) as rag:
            rag.add_texts(list(whole.documents.values()), ids=list(whole.documents))
        plain = config.replace(rerank_model=None)
        arms = {
            "feedback": plain.replace(expansion="feedback"),
            "map": plain.replace(expansion_map=str(words)),
            "decompose": plain.replace(decompose=True),
            "stop_early": plain.replace(stop_early=True),
        }
        without, _ = _run(index, plain, collection.questions)
        runs = {name: (without, *_run(index, arm, collection.questions)) for name, arm in arms.items()}
        if config.rerank_model is not None:
            runs["rerank"] = (without, *_run(index, config, collection.questions))
            close_calls = config.replace(rerank_margin=MARGIN)
            runs[f"rerank_margin {MARGIN}"] = (runs["rerank"][1], *_run(index, close_calls, collection.questions))
        rows = [_row(collection, name, *run) for name, run in runs.items()]
        joined = two_parts(collection)
        before, _ = _run(index, plain, joined.questions)
        rows.append(_row(joined, "decompose, two-part questions", before, *_run(index, arms["decompose"], joined.questions)))
        asked, meant = follow_ups(whole, len(collection.questions))
        if asked:
            before, _ = _run(index, plain, asked)
            rows.append(_row(whole, "follow-ups rewritten", before, *_run(index, plain, meant)))
    return rows


Found = Mapping[str, list[str]]


def _row(collection: Collection, switch: str, before: Found, after: Found, spared: int) -> dict[str, Any]:
    qrels = {q: collection.qrels[q] for q in before}
    values = [per_query("ndcg", qrels, found, k=10) for found in (before, after)]
    without, switched = (sum(value.values()) / len(value) for value in values)
    return {
        "collection": collection.name,
        "switch": switch,
        "questions": len(before),
        "without": round(without, 4),
        "with": round(switched, 4),
        "difference": round(switched - without, 4),
        "p": round(compare(*values).p_value, 3),
        "changed": sum(before[q] != after[q] for q in before),
        "spared": spared,
    }


def _run(index: Path, config: Config, questions: Mapping[str, str]) -> tuple[dict[str, list[str]], int]:
    """Documents found for each question, and for how many the encoder or the reranker was spared."""
    with UltraFastRAG(index, config=config) as rag:
        found = {q: [hit.document_id for hit in rag.search(text, k=10)] for q, text in questions.items()}
        metrics = rag.monitor.get_report()["metrics"]
        return found, sum(int(metrics[name]["count"]) for name in SPARED if name in metrics)


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
