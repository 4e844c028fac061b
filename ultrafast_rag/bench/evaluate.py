"""Is it any good on these documents? Retrieval, answers, honesty, time and money on labelled questions, in one report.

The questions are the user's own, made ones (`make_testset`), or the thumbs of the panel, which the index itself keeps:
a passage voted up is the place where the question's answer stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.bench.answers import (
    AskBack,
    Encode,
    RiskCoverage,
    Supports,
    asking_back,
    contained,
    judged_by,
    ragas_row,
    reliability,
    risk_coverage,
)
from ultrafast_rag.bench.metrics import interval, per_query
from ultrafast_rag.bench.questions import (
    Question,
    evaluate_answers,
    file_name,
    is_right,
    judge,
    qrels_from_feedback,
    questions_of,
)
from ultrafast_rag.errors import ConfigError, require
from ultrafast_rag.index.store import Store
from ultrafast_rag.ports import StructuredModel
from ultrafast_rag.types import Answer, Hits, Table

METRICS = ("ndcg", "recall", "precision", "mrr", "map", "hit")


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation:
    """retrieval: one row a metric, its mean and 95 % interval.  answers: one row a kind of question.  cost: time and money.

    questions: one row a question, worst first.  curve, calibration: what support is worth; None where nobody judged it.
    """

    retrieval: Table
    answers: Table
    cost: Table
    questions: Table
    curve: RiskCoverage | None
    calibration: Table | None
    given: tuple[tuple[Question, Answer], ...]

    def __str__(self) -> str:
        return "\n\n".join(str(table) for table in (self.retrieval, self.answers, self.cost))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(table._repr_html_() for table in (self.retrieval, self.answers, self.cost))

    def ragas(self) -> list[dict[str, object]]:
        """Rows for `ragas.EvaluationDataset.from_list`: user_input, response, retrieved_contexts, reference if known."""
        return [ragas_row(answer, question.answer) for question, answer in self.given]

    def plot(self) -> Any:
        """A matplotlib figure: errors by share answered, and how often an answer is right by the support it claims.

        Raises ConfigError where the answers carry no support, e.g. those a custom generator wrote.
        """
        if self.curve is None or self.calibration is None:
            raise ConfigError("these answers say nothing of their support, so there is no curve; ask with generator='extractive'")
        figure = require("matplotlib.figure", package="matplotlib", extra="notebook").Figure(figsize=(9, 3.2), layout="tight")
        left, right = figure.subplots(1, 2)
        rows = list(self.curve.table)
        left.step([row["coverage"] for row in rows], [row["risk"] for row in rows], where="post")
        left.set(xlabel="share of the questions answered", ylabel="share of the answers wrong", xlim=(0, 1), ylim=(0, 1))
        bins = list(self.calibration)
        right.plot([0, 1], [0, 1], color="gray", linestyle=":", label="calibrated")
        right.plot([row["said"] for row in bins], [row["right"] for row in bins], "o-", label="measured")
        for row in bins:
            right.annotate(f"{row['answers']}", (row["said"], row["right"]), textcoords="offset points", xytext=(5, -11))
        right.set(xlabel="support the answer claims", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.05))
        right.legend(frameon=False)
        for axes in (left, right):
            axes.grid(alpha=0.3)
        return figure


def evaluate(
    store: Store,
    search: Callable[..., Hits],
    ask: Callable[[str], Answer],
    encode: Encode,
    questions: Sequence[Question | Mapping[str, Any]] | str | Path | None = None,
    *,
    k: int = 10,
    judged: Supports | None = None,
    ask_back: AskBack | None = None,
) -> Evaluation:
    """Search and answer each question, and judge what comes back; questions None: the thumbs kept in the index.

    judged: what decides whether a passage bears a statement out, by default whether it holds its words.
    ask_back: writes the questions that an answer answers, for its relevancy; by default question and answer are compared.
    Raises ConfigError without questions, or where none has a known answer or place.
    """
    asked = _questions(store, questions)
    answers = {question.question: ask(question.question) for question in asked}
    pairs = tuple((question, answers[question.question]) for question in asked)
    qrels, run = judge(asked, lambda question: search(question, k=5 * k))  # a place may take several hits
    retrieval = []
    for metric in METRICS if qrels else ():
        values = per_query(metric, qrels, run, k=k)
        low, high = interval(values)
        mean = sum(values.values()) / len(values)
        retrieval.append({"metric": f"{metric}@{k}", "mean": mean, "low": low, "high": high})
    table = evaluate_answers(asked, answers.__getitem__, supports=judged or contained, encode=encode, ask_back=ask_back)
    curve, calibration = _curves(pairs)
    ndcg = per_query("ndcg", qrels, run, k=k)
    rows = [_row(question, answer, ndcg.get(str(n))) for n, (question, answer) in enumerate(pairs)]
    rows.sort(key=lambda row: (row["right"], row["nDCG"] if row["nDCG"] is not None else 1.0))
    notes = [f"{len(qrels)} of {len(asked)} questions have their answer in the documents; low, high: 95 % bootstrap interval"]
    if strange := _strange(store, asked):
        notes.append(f"no such document here, so never found: {strange}")
    return Evaluation(
        Table(retrieval, "Retrieval", notes=tuple(notes)),
        table,
        _cost(pairs),
        Table(rows, "Questions"),
        curve,
        calibration,
        pairs,
    )


def _strange(store: Store, asked: Sequence[Question]) -> str:
    """Names of the files that questions name and the index has not, three at most."""
    known = {file_name(document.source) for document in store.documents()}
    names = dict.fromkeys(file_name(question.source) for question in asked if question.source is not None)
    lacking = [name for name in names if name not in known]
    return ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")


def voted(store: Store) -> list[Question]:
    """The index's thumbs as questions: a question's answer stands where its passage with the most votes does.

    Passages that are gone since, and questions with no passage above 0, are left out.
    """
    questions = []
    for question, votes in qrels_from_feedback(store.feedback()).items():
        best = sorted(votes, key=lambda name: -votes[name])
        for chunk in store.chunks([int(name) for name in best])[:1]:
            about = {"made": "voted", "votes": votes[str(chunk.id)]}
            place = (chunk.source, chunk.page, chunk.start_s, chunk.end_s, chunk.modality)
            questions.append(Question(question, None, *place, metadata=about))
    return questions


def judge_of(judge: Any, model: Callable[[], StructuredModel]) -> tuple[Supports | None, AskBack | None]:
    """What a user names as judge: None, "gemini" for the model that `model` opens, a model, or a function of two texts.

    A model, anything that fills forms as `ports.StructuredModel` asks, also writes the questions that an answer answers.
    """
    if judge is None or (callable(judge) and not hasattr(judge, "complete")):
        return judge, None
    asked = model() if judge == "gemini" else judge
    if not hasattr(asked, "complete"):
        raise ConfigError(f"judge is None, 'gemini', a model, or a function of (statement, passage), not {judge!r}")
    return judged_by(asked), asking_back(asked)


def _questions(store: Store, given: Sequence[Question | Mapping[str, Any]] | str | Path | None) -> list[Question]:
    if given is None:
        questions = voted(store)
        if not questions:
            raise ConfigError(
                "no passage has a thumbs up yet: vote in rag.widget(), or pass questions, e.g. rag.make_testset(50)"
            )
        return questions
    listed = questions_of(given)
    if not listed:
        raise ConfigError("no questions to ask: pass a file or a list of Question, e.g. rag.make_testset(50)")
    return listed


def _curves(pairs: Sequence[tuple[Question, Answer]]) -> tuple[RiskCoverage | None, Table | None]:
    judged = [(a.support, is_right(q, a)) for q, a in pairs if a.supported and a.support is not None]
    if not judged:
        return None, None
    support, right = [s for s, _ in judged], [r for _, r in judged]
    return risk_coverage(support, right, questions=len(pairs)), reliability(support, right)


def _row(question: Question, answer: Answer, ndcg: float | None) -> dict[str, Any]:
    refused = not question.answerable and not answer.supported
    return {
        "question": question.question,
        "right": refused or is_right(question, answer),
        "answered": answer.supported,
        "nDCG": ndcg,
        "support": answer.support,
        "wanted": question.answer or question.source or "not in the documents",
        "answer": answer.text,
    }


def _cost(pairs: Sequence[tuple[Question, Answer]]) -> Table:
    fresh = [answer for _, answer in pairs if not answer.cached] or [answer for _, answer in pairs]
    ms = 1000 * np.array([sum(answer.timings_s.values()) for answer in fresh])
    usd = sum(answer.cost_usd for _, answer in pairs)
    row = {"questions": len(pairs), "median ms": float(np.median(ms)), "95 % within ms": float(np.percentile(ms, 95))}
    return Table([{**row, "dollars": usd, "dollars per 1000": 1000 * usd / len(pairs)}], "Time and money, search and answer")
