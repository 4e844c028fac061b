"""Our own questions on public documents: is the page found, the table's cell read, the one fact said?

The sets are `data/questions/*.jsonl`; the documents come from the folder of public inputs and go into one index,
those without a question as well. What is measured is what a user gets, `search` and `query`. Each question's values are
kept in the JSON, so that two runs can be compared in pairs (`--against`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultrafast_rag.bench.metrics import compare, contains_answer, interval, per_query
from ultrafast_rag.bench.publicsets import data_folder
from ultrafast_rag.bench.questions import MARK
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import add_settings, config_of, settings_of
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import Answer, Hit, Table

FOLDER = Path("data/questions")
SETS = ("pages", "pages_hard", "tables", "facts", "facts2")
# asked alone, for their documents would compete with the others';
# `data/questions/README.md` says where those of manuals and papers are
APART = ("fresh", "manuals", "papers", "papers_absent", "absent")
DOCUMENTS = ("pdf_varied/**/*.pdf", "office_html/haystack/pdf/*.pdf")  # and every file that a question names
DEPTH = 50  # hits asked for, so that ten pages are among them though a page gives several hits
PASSAGES = 10  # what `query` takes by default

Question = Mapping[str, Any]
Values = dict[str, dict[str, float]]
"""measure -> question -> value, 0 to 1."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which sets, and an earlier result to compare with."""
    parser.add_argument("--data", type=Path, help="folder of public inputs (default: UFR_TEST_DATA)")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=(*SETS, *APART), help="which sets of questions")
    parser.add_argument("--language", help="only the questions in one language, e.g. en")
    parser.add_argument("--against", type=Path, metavar="FILE", help="an earlier result, compared question by question")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """One row a set and measure, with its 95 % interval; each question's values besides."""
    folder, config = data_folder(arguments.data), config_of(settings_of(arguments.set))
    assert folder is not None
    asked = {name: load_set(name, language=arguments.language) for name in arguments.sets}
    earlier = _earlier(arguments.against)
    files = documents(folder, [row for rows in asked.values() for row in rows])
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-pages-") as place:
        with UltraFastRAG(Path(place, "index"), config=config) as rag:
            say(f"reading {len(files)} files ...")
            report = rag.ingest(*files)
            found = {name: measure(name, rows, rag) for name, rows in asked.items()}
    rows = [row_of(name, title, values, earlier) for name, kinds in found.items() for title, values in kinds.items()]
    notes = (
        f"{report.documents} files, {report.pages} pages, {report.chunks} chunks in one index; failed: {len(report.failed)}",
        "low, high: 95 % bootstrap interval over the questions; first statement: the answer up to its first citation",
        *([f"before: {arguments.against.name}, p of the paired randomization test"] if earlier else []),
    )
    data = {"failed": [Path(source).name for source, _ in report.failed], "questions": found}
    return Result(Table(rows, "Pages, cells and facts", notes=notes), data)


def load_set(name: str, folder: Path = FOLDER, *, language: str | None = None) -> list[Question]:
    """Rows of `data/questions/NAME.jsonl`. ConfigError where it is missing or nothing is left."""
    path = folder / f"{name}.jsonl"
    if not path.is_file():
        raise ConfigError(f"{path} is not here; run this benchmark from the repository's root")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    kept = [row for row in rows if language in (None, row["language"])]
    if not kept:
        raise ConfigError(f"{path.name} has no question in {language!r}; there are {sorted({row['language'] for row in rows})}")
    return kept


def documents(folder: Path, rows: Sequence[Question]) -> list[Path]:
    """What goes into the index. ConfigError for a file that a question needs and that is not there."""
    named = {folder / row["file"] for row in rows}
    if missing := sorted(path.name for path in named if not path.is_file()):
        raise ConfigError(f"not in {folder}: {', '.join(missing)}; --data names the folder of public inputs")
    return sorted(named.union(*(folder.glob(pattern) for pattern in DOCUMENTS)))


def measure(name: str, rows: Sequence[Question], rag: UltraFastRAG) -> Values:
    """Ask one set. pages: retrieval alone; tables and facts: passages and the answer; absent: that, and what is refused."""
    say(f"{name}: {len(rows)} questions ...")
    if "twin" in rows[0]:
        return _pairs(rows, rag)
    return _pages(rows, rag) if name.startswith("pages") else _answers(rows, rag)


def _pages(rows: Sequence[Question], rag: UltraFastRAG) -> Values:
    values: Values = {}
    qrels = {row["question"]: {place(row["file"], row["page"]): 1.0} for row in rows}
    for title, given in (("", False), (", file given", True)):
        runs = {}
        for row in rows:
            hits = rag.search(row["question"], k=DEPTH, filters={"source": row["file"]} if given else None)
            runs[row["question"]] = [place(row["file"] if _in(hit, row) else hit.source, hit.page) for hit in hits]
            if not given:
                values.setdefault("file first", {})[row["question"]] = float(bool(hits) and _in(hits[0], row))
        values[f"nDCG@10{title}"] = per_query("ndcg", qrels, runs, k=10)
        for k in (1, 5, 10):
            values[f"hit@{k}{title}"] = per_query("hit", qrels, runs, k=k)
    return values


def _answers(rows: Sequence[Question], rag: UltraFastRAG) -> Values:
    values: Values = {}
    for row in rows:
        question, gold = row["question"], row.get("answers") or [row["answer"]]
        hits, answer = rag.search(question, k=PASSAGES), rag.query(question)
        for title, right in (
            (f"in the {PASSAGES} passages", any(contains_answer(hit.text, gold) for hit in hits)),
            ("in the answer", answer.supported and contains_answer(MARK.sub(" ", answer.text), gold)),
            ("in the first statement", answer.supported and contains_answer(first_statement(answer), gold)),
            ("first citation in the right file", bool(answer.citations) and _in(answer.citations[0].hit, row)),
            ("answered", answer.supported),
        ):
            values.setdefault(title, {})[question] = float(right)
    return values


def _pairs(rows: Sequence[Question], rag: UltraFastRAG) -> Values:
    """Of questions that the documents do not answer and their answerable twins; each value stands under the former."""
    values: Values = {"refused": {row["question"]: float(not rag.query(row["question"]).supported) for row in rows}}
    for title, found in _answers([{**row, "question": row["twin"]} for row in rows], rag).items():
        values[f"twin {title}"] = {row["question"]: found[row["twin"]] for row in rows}
    first = values["twin in the first statement"]
    return {"refused, and the twin right": {q: first[q] * refused for q, refused in values["refused"].items()}, **values}


def first_statement(answer: Answer) -> str:
    """The answer's text up to its first citation mark."""
    return MARK.split(answer.text, maxsplit=1)[0]


def place(file: str, page: int | None) -> str:
    """A page's name among judgements and rankings."""
    return f"{file}#{page}"


def _in(hit: Hit, row: Question) -> bool:
    return Path(hit.source).as_posix().endswith(f"/{row['file']}")


def row_of(name: str, title: str, values: Mapping[str, float], earlier: Mapping[str, Values]) -> dict[str, Any]:
    """Mean and interval; with an earlier result its mean and the p-value of the difference."""
    low, high = interval(values)
    mean = sum(values.values()) / len(values)
    row = {"set": name, "measure": title, "questions": len(values), "value": mean, "low": low, "high": high}
    before = earlier.get(name, {}).get(title)
    if before:
        found = compare(before, values)
        row.update(before=found.mean_a, difference=found.difference, p=found.p_value)
    return row


def _earlier(path: Path | None) -> Mapping[str, Values]:
    if path is None:
        return {}
    try:
        found: Mapping[str, Values] = json.loads(path.read_text(encoding="utf-8"))["questions"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path} is not a result of `bench pages`: {error}") from error
    return found
