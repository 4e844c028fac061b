"""Several settings on the same documents and questions: which is better, and is it more than chance?

Settings that change chunks or vectors get an index of their own; the embedding cache is shared, so that a passage is
encoded once for each model. Settings of the search alone are asked of the index that is there.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ultrafast_rag.bench.metrics import compare, interval, per_query
from ultrafast_rag.bench.questions import Question, judge, questions_of
from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, require
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import Table


@dataclass(frozen=True, slots=True, repr=False)
class Compared:
    """table: one row a setting.  values: setting -> question number -> value, for tests of one's own."""

    table: Table
    values: Mapping[str, Mapping[str, float]]
    measure: str

    def __str__(self) -> str:
        return str(self.table)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table._repr_html_()

    def plot(self) -> Any:
        """A matplotlib figure: each setting's mean and its 95 % interval."""
        figures = require("matplotlib.figure", package="matplotlib", extra="notebook")
        rows = list(self.table)[::-1]
        figure = figures.Figure(figsize=(7, 1 + 0.4 * len(rows)), layout="tight")
        axes = figure.subplots()
        means = [row["mean"] for row in rows]
        reach = [[row["mean"] - row["low"] for row in rows], [row["high"] - row["mean"] for row in rows]]
        axes.errorbar(means, range(len(rows)), xerr=reach, fmt="o", capsize=4)
        axes.set_yticks(range(len(rows)), [row["settings"] for row in rows])
        axes.set_xlabel(f"{self.measure}, mean and 95 % interval")
        axes.grid(axis="x", alpha=0.3)
        return figure


def compare_configs(
    configs: Mapping[str, Mapping[str, Any]],
    questions: Sequence[Question],
    sources: Sequence[str | PathLike[str]],
    *,
    metric: str = "ndcg",
    k: int = 10,
    base: Config | None = None,
    index: Path | None = None,
) -> Compared:
    """Ask each setting the same questions about the same sources; the first is what the others are held against.

    configs: name -> settings of Config, e.g. {"default": {}, "words only": {"alpha": 0.0}}.  metric: as `per_query` has it.
    base: what the settings change.  index: a folder with the sources indexed under `base`, for settings that need no other.
    p is Holm's step-down adjustment of the paired randomization tests, so that the best of many is not lucky.
    Raises ConfigError without settings or answerable questions, and when a source could not be read at all.
    """
    if not configs or not any(question.answerable for question in questions):
        raise ConfigError("compare needs at least one setting and one question whose source is known")
    base = (base or Config()).replace(quiet=True, query_cache=False)
    values: dict[str, dict[str, float]] = {}
    rows: list[dict[str, Any]] = []
    for name, settings in configs.items():
        config = base.replace(**settings)
        kept = index if config.identity() == base.identity() else None
        values[name], seconds = _ask(config, questions, sources, metric, k, kept)
        low, high = interval(values[name])
        mean = sum(values[name].values()) / len(values[name])
        rows.append({"settings": name, "mean": mean, "low": low, "high": high, "ms": 1000 * seconds / len(values[name])})
    first, *others = values
    tests = [compare(values[first], values[name]) for name in others]
    for row, test, p in zip(rows[1:], tests, holm([test.p_value for test in tests])):
        row |= {"difference": test.difference, "p": p, "verdict": _verdict(test.difference, p)}
    measure = f"{metric}@{k}"
    notes = (f"{measure} over {len(values[first])} questions; difference, p: against {first!r}, p adjusted by Holm",)
    return Compared(Table(rows, "Settings compared", notes=notes), values, measure)


def compare_on(
    rag: UltraFastRAG,
    folder: Path,
    configs: Mapping[str, Mapping[str, Any]],
    questions: Sequence[Question | Mapping[str, Any]] | str | Path,
    **options: Any,
) -> Compared:
    """`compare_configs` over what an index in `folder` holds; settings of the search alone read nothing again.

    questions: a list, or a file, as `questions_of` reads them.
    Raises ConfigError where other chunks or vectors are asked for and the sources are not files of this machine.
    """
    here = [document.source for document in rag.documents() if Path(document.source).is_file()]
    new = [name for name, settings in configs.items() if rag.config.replace(**settings).identity() != rag.config.identity()]
    if new and len(here) < len(rag.documents()):
        raise ConfigError(f"{new[0]!r} needs the sources read again, and some are not files here: ingest them from their folder")
    return compare_configs(configs, questions_of(questions), here, base=rag.config, index=folder, **options)


def _ask(
    config: Config, questions: Sequence[Question], sources: Sequence[str | PathLike[str]], metric: str, k: int, index: Path | None
) -> tuple[dict[str, float], float]:
    with ExitStack() as stack:
        place = index or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ultrafast_rag-compare-")), "index")
        rag = stack.enter_context(UltraFastRAG(place, config=config))
        if index is None:
            report = rag.ingest(*sources)
            if not report.chunks:
                raise ConfigError(f"nothing could be read: {report.failed or sources}")
        rag.warmup()
        start = time.perf_counter()
        qrels, run = judge(questions, lambda question: rag.search(question, k=5 * k))  # a place may take several hits
        return per_query(metric, qrels, run, k=k), time.perf_counter() - start


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for being several, in the order given.  Source: Holm, Scandinavian Journal of Statistics 1979."""
    order = sorted(range(len(p_values)), key=lambda n: p_values[n])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, n in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[n]))
        adjusted[n] = highest
    return adjusted


def _verdict(difference: float, p: float) -> str:
    return "no difference shown" if p >= 0.05 else ("better" if difference > 0 else "worse")
