"""Every exercise fails when left unsolved, says so in a friendly line, and passes with the committed solution."""

from __future__ import annotations

import ast
import json
import runpy
from pathlib import Path

import pytest

from ultrafast_rag.errors import ConfigError
from ultrafast_rag.notebook.exercises import (
    PAIRS,
    check_batches,
    check_budget,
    check_guard,
    check_policy,
    check_prediction,
    check_sample_size,
    hit_rate,
)
from ultrafast_rag.notebook.plots import Plot

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SOLUTIONS = runpy.run_path(str(NOTEBOOKS / "solutions.py"))
BUDGET = {"chunks": 3000, "usd_per_chunk": 0.0007, "limit_usd": 1.0, "limit_days": 2}
DIFFERENCE = {"difference": 0.05, "deviation": 0.3}
ANSWERED = {"garden": True, "airline": False, "tower": True}
KEPT = {"kept after a change": False, "bearing 9 by bearing 7": False, "false hits in a thousand that still pay": 1}
MACHINES = {"that read": 7, "that serve": 9}
CACHED = {"documents read": 1, "unchanged": 2, "vectors computed": 1}


@pytest.mark.parametrize(
    "unsolved",
    [
        check_prediction(dict.fromkeys(ANSWERED), ANSWERED, why="x"),
        check_prediction(dict.fromkeys(CACHED), CACHED, why="x"),
        check_prediction(dict.fromkeys(KEPT), KEPT, why="x"),
        check_guard(lambda asked, answered, cosine: None),
        check_batches(lambda lengths, budget: None),
        check_policy(None),
        check_budget({"share": None, "requests a day": None}, **BUDGET),
        check_sample_size(None, **DIFFERENCE),
    ],
)
def test_an_unsolved_exercise_says_not_yet_and_raises_nothing(unsolved):
    assert not unsolved.solved
    assert str(unsolved).startswith("not yet: ")


def test_the_solutions_solve():
    assert check_prediction(SOLUTIONS["answered"], ANSWERED, why="x").solved
    assert check_prediction(SOLUTIONS["cached"], CACHED, why="x").solved
    assert check_prediction(SOLUTIONS["policy_kept"], KEPT, why="x").solved
    assert check_prediction(SOLUTIONS["machines"], MACHINES, why="x").solved
    for verdict in (
        check_guard(SOLUTIONS["guard"]),
        check_batches(SOLUTIONS["batches"]),
        check_policy(SOLUTIONS["policy"]),
        check_budget(SOLUTIONS["plan"], **BUDGET),
        check_sample_size(SOLUTIONS["questions"], **DIFFERENCE),
    ):
        assert verdict.solved, verdict
        assert str(verdict).startswith("solved: ")


# notebooks whose exercise needs nothing of the cells before it -> what it asks for, and the solution's name
ALONE = {
    "03_querying": ("guard", "guard"), "04_profiling": ("make_batches", "batches"), "05_benchmarks": ("policy", "policy"),
    "06_enrichment": ("design", "plan"), "08_evaluation": ("questions", "questions"), "09_outgrowing": ("machines", "machines"),
}  # fmt: skip


@pytest.mark.parametrize(("notebook", "asked", "solution"), [(name, *names) for name, names in ALONE.items()])
def test_the_cell_as_it_stands_in_the_notebook_is_solved_by_its_solution(notebook, asked, solution):
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    (source,) = (text for cell in cells if (text := "".join(cell["source"])).startswith("# @title Exercise"))
    *steps, check = ast.parse(source).body
    unsolved, solved = {}, {asked: SOLUTIONS[solution]}
    exec(compile(ast.Module(steps, []), notebook, "exec"), unsolved)
    left = [node for node in steps if ast.unparse(node).removeprefix("def ").split("(")[0].split(" ")[0] != asked]
    assert len(left) == len(steps) - 1
    exec(compile(ast.Module(left, []), notebook, "exec"), solved)
    code = compile(ast.Expression(check.value), notebook, "eval")
    assert not eval(code, unsolved).solved
    assert eval(code, solved).solved


def test_wrong_predictions_name_what_was_measured():
    said = str(check_prediction({"a": 3, "b": "x"}, {"a": 4, "b": "x"}, why="Four files."))
    assert said == "not yet: a: you said 3, it was 4. Four files."
    assert check_prediction({"a": 95}, {"a": 100}, why="", within=0.1).solved
    assert not check_prediction({"a": 80}, {"a": 100}, why="", within=0.1).solved


def test_a_guard_by_cosine_alone_answers_wrongly_and_one_that_refuses_all_is_useless():
    assert "2022" in str(check_guard(lambda asked, answered, cosine: cosine > 0.9))
    assert "never uses" in str(check_guard(lambda asked, answered, cosine: False))
    assert any(cosine > 0.95 and not right for *_, cosine, right in PAIRS)


def test_batches_are_checked_for_loss_size_and_padding():
    assert "once" in str(check_batches(lambda lengths, budget: [[0]]))
    assert "512 fit" in str(check_batches(lambda lengths, budget: [list(range(len(lengths)))]))
    assert "padding" in str(check_batches(lambda lengths, budget: [list(range(n, n + 4)) for n in range(0, 60, 4)]))


def test_policies_are_simulated():
    # capacity 1: only a repeated question is answered
    assert hit_rate("oldest", "AABA", capacity=1) == 0.25
    # A, B fill it; C drops B, the least recent, or A, the oldest
    assert hit_rate("least recent", "ABACA", capacity=2) == 0.4
    assert hit_rate("oldest", "ABACA", capacity=2) == 0.2
    assert not check_policy("oldest").solved
    assert not check_policy("least recent").solved


@pytest.mark.parametrize(
    ("share", "pace", "said"), [(1.0, 10_000, "over the limit"), (0.1, 250, "would be too"), (0.5, 20, "tiers give")]
)
def test_budgets_that_do_not_hold_or_waste_are_told(share, pace, said):
    assert said in str(check_budget({"share": share, "requests a day": pace}, **BUDGET))


@pytest.mark.parametrize(("questions", "said"), [(50, "0 lies inside"), (1000, "half of them")])
def test_too_few_and_too_many_questions_are_told(questions, said):
    assert said in str(check_sample_size(questions, **DIFFERENCE))


def test_a_plot_has_an_alternative_text_or_is_refused():
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(2, 1))
    plot = Plot(figure, 'rank & "support"')
    assert 'alt="rank &amp; &quot;support&quot;"' in plot._repr_html_()
    assert repr(plot) == '(plot) rank & "support"'
    with pytest.raises(ConfigError, match="words"):
        Plot(figure, " ")
