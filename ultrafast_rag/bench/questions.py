"""Labelled questions: read them, ask them, judge what comes back; thumbs as judgements.

A question knows where its answer is (file, page, seconds). Files: JSON (a list, or an object with one under
"questions"), JSON lines, and CSV with a heading of question, answer, file, page.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultrafast_rag.bench.answers import (
    AskBack,
    Encode,
    Supports,
    answer_relevancy,
    citation_scores,
    contained,
    contains_answer,
    context_precision,
    context_recall,
    faithfulness,
    token_f1,
)
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.types import Answer, Hit, Table

Qrels = Mapping[str, Mapping[str, float]]
"""query id -> document id -> relevance, > 0 where relevant."""
Run = Mapping[str, Sequence[str]]
"""query id -> document ids, best first."""
Search = Callable[[str], Sequence[Hit]]
GOLD = "gold"
MARK = re.compile(r"\[\d+\]")
"""A citation in an answer's text."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question and where its answer is. source None: the documents do not answer it.

    source: a file name without folders.  page: 1-based, None for the whole file.  start_s, end_s: seconds.
    needs: what must be there to answer it, e.g. "clip" or "speech"; "" for nothing but the text encoder.
    """

    question: str
    answer: str | None = None
    source: str | None = None
    page: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    modality: str = "text"
    needs: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answers(self) -> list[str]:
        """Ways the answer may be written; [] where nothing answers."""
        return list(self.metadata.get("answers") or ([self.answer] if self.answer else []))

    @property
    def answerable(self) -> bool:
        """Whether the documents hold the answer."""
        return self.source is not None

    def is_answered_by(self, hit: Hit) -> bool:
        """Whether the hit lies on this question's page, or overlaps its seconds."""
        if self.source is None or file_name(hit.source) != file_name(self.source):
            return False
        if self.start_s is not None and hit.start_s is not None:
            mine, theirs = self.end_s or self.start_s, hit.end_s if hit.end_s is not None else hit.start_s
            return hit.start_s < mine + 0.5 and theirs > self.start_s - 0.5
        return self.page is None or hit.page == self.page


def questions_of(given: Sequence[Question | Mapping[str, Any]] | Path | str) -> list[Question]:
    """Questions from a file, as `load_questions` reads it, or from a list of Question or of rows with the same names.

    Raises ConfigError for a list of anything else.
    """
    if isinstance(given, (str, Path)):
        return load_questions(given)
    listed = list(given)
    for one in listed:
        if not isinstance(one, Question) and not (isinstance(one, Mapping) and one.get("question")):
            raise ConfigError(f'expected a list of Question, or of rows with a "question" each, not {one!r}')
    return [one if isinstance(one, Question) else _question(one) for one in listed]


def load_questions(path: Path | str) -> list[Question]:
    """Questions from JSON (a list of objects, or one under "questions"), JSON lines or CSV with a heading.

    "file" is another name for "source"; what a Question does not know goes into its metadata; an empty cell is None. A CSV
    may be as a spreadsheet writes it: semicolons or tabs, "Question" for "question", 4.0 for 4.
    Raises ConfigError for a file that is not there or has another shape.
    """
    path = Path(path)
    try:
        rows = _rows_of(path)
        if not isinstance(rows, list) or not all(isinstance(row, dict) and row.get("question") for row in rows):
            raise ConfigError(f'{path}: expected a list of objects with a "question" each')
        return [_question(row) for row in rows]
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path} cannot be read as a list of questions: {why}") from error


def _rows_of(path: Path) -> Any:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    if path.suffix == ".csv":
        heading = text.partition("\n")[0]
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=heading.count))
        rows = [{(name or "").strip().casefold(): value or None for name, value in row.items()} for row in reader]
        return [row for row in rows if any(row.values())]  # a sheet's last rows may be empty
    listed = json.loads(text)
    return listed.get("questions") if isinstance(listed, dict) else listed


def _question(row: Mapping[str, Any]) -> Question:
    known = {name for name in Question.__slots__ if name != "metadata"}
    named: dict[str, Any] = {("source" if name == "file" else name): value for name, value in row.items()}
    given = {name: value for name, value in named.items() if value == value}  # no NaN, which a data frame has where nothing is
    answers = given.get("answers")
    if answers and not given.get("answer"):
        given["answer"] = answers[0]
    for name, kind in (("page", _whole), ("start_s", float), ("end_s", float)):
        if isinstance(given.get(name), str):  # a cell of a CSV
            given[name] = kind(given[name])
    fields = {name: value for name, value in given.items() if name in known}
    return Question(**fields, metadata={name: value for name, value in given.items() if name not in known})


def _whole(cell: str) -> int:
    number = float(cell)
    if not number.is_integer():
        raise ValueError(f"page {cell} is no whole number")
    return int(number)


def judge(questions: Sequence[Question], search: Search) -> tuple[Qrels, Run]:
    """Ask each answerable question; qrels and run over places: a page or moment counts once, at its first hit."""
    qrels: dict[str, dict[str, float]] = {}
    run: dict[str, list[str]] = {}
    for number, question in enumerate(questions):
        if question.answerable:
            qrels[str(number)] = {GOLD: 1.0}
            hits = search(question.question)
            run[str(number)] = [GOLD if question.is_answered_by(hit) else place_of(hit) for hit in hits]
    return qrels, run


def place_of(hit: Hit) -> str:
    """A name for the page, or the stretch of a recording, that a hit lies on."""
    moment = "" if hit.start_s is None else f"@{hit.start_s:.0f}"
    return f"{hit.source}#{hit.page if hit.page is not None else ''}{moment}"


def is_right(question: Question, answer: Answer) -> bool:
    """Whether an answer was given that holds the gold words or, where those are not known, cites the right place."""
    if question.answers:
        return answer.supported and contains_answer(answer.text, question.answers)
    return answer.supported and any(question.is_answered_by(citation.hit) for citation in answer.citations)


def evaluate_answers(
    questions: Sequence[Question],
    ask: Callable[[str], Answer],
    *,
    supports: Supports = contained,
    encode: Encode | None = None,
    ask_back: AskBack | None = None,
) -> Table:
    """One row a kind of question: how often an answer is given, holds the gold words, and cites the right place.

    F1 is of the words. Over answers given: faithful as `faithfulness`, cites precisely and fully as `citation_scores`
    say, relevant (where `encode` is given) as `answer_relevancy`. Over those whose gold words are known: context
    precision and recall of the passages shown. supports: what judges a statement, e.g. `judged_by(model)`; a gold answer
    is put to it with its question, for "142" alone states nothing.
    """
    rows = []
    for name, wanted in (("answerable", True), ("not in the documents", False)):
        group = [q for q in questions if q.answerable is wanted]
        answers = [ask(q.question) for q in group]
        gold = [(q, a) for q, a in zip(group, answers) if q.answer]
        right = [any(q.is_answered_by(c.hit) for c in a.citations) for q, a in zip(group, answers)]
        given = [a for a in answers if a.supported]
        cites = [citation_scores(a, supports=supports) for a in given]
        said = [(a.question, MARK.sub("", a.text)) for a in given]
        rows.append(
            {
                "questions": name,
                "count": len(group),
                "answered": _share(a.supported for a in answers),
                "holds the gold answer": _share(a.supported and contains_answer(a.text, q.answers) for q, a in gold),
                "F1": _share(a.supported * token_f1(MARK.sub(" ", a.text), q.answers) for q, a in gold),
                "cites the right place": _share(right) if wanted else None,
                "faithful": _share(faithfulness(a, supports=supports) for a in given),
                "cites precisely": _share(precision for precision, _ in cites),
                "cites fully": _share(recall for _, recall in cites),
                "relevant": _share(answer_relevancy(q, a, encode, ask_back=ask_back) for q, a in said) if encode else None,
                "context precision": _share(
                    context_precision(_texts(a), _claims(q, supports), supports=supports) for q, a in gold
                ),
                "context recall": _share(context_recall(_texts(a), _claims(q, supports)[0], supports=supports) for q, a in gold),
            }
        )
    return Table(rows, "Answers")


def _claims(question: Question, supports: Supports) -> list[str]:
    """The gold answers as a judge is asked about them; words are looked for without their question."""
    return [one if supports is contained else f"{one} (asked: {question.question})" for one in question.answers]


def _texts(answer: Answer) -> list[str]:
    return [hit.text for hit in answer.hits]


def _share(values: Iterable[float]) -> float | None:
    listed = list(values)
    return sum(listed) / len(listed) if listed else None


def file_name(source: str) -> str:
    """A source's last part, whichever system wrote it."""
    return re.split(r"[\\/]", source)[-1]


def qrels_from_feedback(votes: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Judgements from stored votes: question -> chunk id -> relevance, the sum of its votes where that is above 0.

    votes: rows with "question", "chunk_id" and "vote" (+1 or -1), as the store keeps them; a vote on a
    whole answer has no chunk and judges nothing. Questions with no relevant chunk are left out.
    """
    sums: Counter[tuple[str, str]] = Counter()
    for row in votes:
        if row.get("chunk_id") is not None:
            sums[str(row["question"]), str(row["chunk_id"])] += int(row["vote"])
    qrels: dict[str, dict[str, float]] = {}
    for (question, chunk), total in sums.items():
        if total > 0:
            qrels.setdefault(question, {})[chunk] = float(total)
    return qrels
