"""What an answer costs and gives without the reader and with it: milliseconds, the fact said first, the unanswerable refused.

SQuAD 2.0's paragraphs as passages, asked by its own questions: half have their answer there, half only look so. Searching
is the same in both rows; the reader comes after it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.bench.metrics import compare, contains_answer
from ultrafast_rag.bench.pages import first_statement
from ultrafast_rag.bench.publicsets import Collection, data_folder, load
from ultrafast_rag.bench.questions import MARK
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import add_settings, config_of, settings_of
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import Table

WITHOUT, WITH = "without the reader", "with the reader"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many questions."""
    parser.add_argument("--data", type=Path, help="folder of public collections (default: UFR_TEST_DATA)")
    parser.add_argument("--questions", type=int, default=200, metavar="N", help="half with an answer, half without")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """Two rows, the reader's second."""
    folder, config = data_folder(arguments.data), config_of(settings_of(arguments.set)).replace(query_cache=False)
    assert folder is not None
    collection = load("squad2", folder)
    asked = chosen(collection, arguments.questions)
    measured: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-answering-") as place:
        with UltraFastRAG(Path(place, "index"), config=config) as rag:
            rag.add_texts(list(collection.documents.values()), ids=list(collection.documents))
        for name, settings in ((WITHOUT, {"reader_model": None}), (WITH, {})):
            say(f"{name}: {len(asked)} questions ...")
            with UltraFastRAG(Path(place, "index"), config=config.replace(**settings)) as rag:
                measured[name] = measure(rag, asked, collection)
    rows = [row_of(name, values) for name, values in measured.items()]
    tests = {
        title: str(compare(measured[WITHOUT][title], measured[WITH][title])) for title in ("first statement", "wrongly supported")
    }
    notes = (
        "SQuAD 2.0, shared half: all its paragraphs are passages; ms: of one whole uncached search, and of search and answer",
        "first statement: the answer up to its first citation holds the fact; wrongly: supported though nothing answers it",
    )
    return Result(Table(rows, "Answers and the reader", notes=notes), {"with against without": tests, "questions": measured})


def chosen(collection: Collection, count: int) -> list[str]:
    """Numbers of the questions, spread over the collection: half of them with an answer."""
    kinds = [[q for q in collection.questions if (q in collection.answers) is wanted] for wanted in (True, False)]
    return [names[int(n * len(names) / (count // 2))] for names in kinds if names for n in range(count // 2)]


def measure(rag: UltraFastRAG, asked: Sequence[str], collection: Collection) -> dict[str, dict[str, float]]:
    """What was measured -> question -> value; the first question is asked once more before, so that all is loaded."""
    rag.query(collection.questions[asked[0]])
    values: dict[str, dict[str, float]] = {}
    for name in asked:
        question, gold = collection.questions[name], collection.answers.get(name, [])
        start = time.perf_counter()
        rag.search(question)
        searched = time.perf_counter()
        answer = rag.query(question)
        took = {"search ms": searched - start, "answer ms": time.perf_counter() - searched}
        found = {title: 1000 * seconds for title, seconds in took.items()}
        if gold:
            found["first statement"] = float(answer.supported and contains_answer(first_statement(answer), gold))
            found["answer"] = float(answer.supported and contains_answer(MARK.sub(" ", answer.text), gold))
        else:
            found["wrongly supported"] = float(answer.supported)
        for title, value in found.items():
            values.setdefault(title, {})[name] = value
    return values


def row_of(name: str, values: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Medians of the times, means of the rest."""
    times = {title: np.array(list(values[title].values())) for title in ("search ms", "answer ms")}
    return {
        "answers": name,
        "questions": len(values["search ms"]),
        "search p50 ms": float(np.median(times["search ms"])),
        "search and answer p50 ms": float(np.median(times["answer ms"])),
        "p95 ms": float(np.percentile(times["answer ms"], 95)),
        **{title: float(np.mean(list(values[title].values()))) for title in ("first statement", "answer", "wrongly supported")},
    }
