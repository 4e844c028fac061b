"""Metrics against examples worked by hand and a second implementation written as matrices."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ultrafast_rag.bench.answers import contained
from ultrafast_rag.bench.metrics import (
    Question,
    answer_relevancy,
    citation_scores,
    compare,
    contains_answer,
    context_precision,
    context_recall,
    evaluate_answers,
    exact_match,
    faithfulness,
    hit_at_k,
    interval,
    judge,
    load_questions,
    map_at_k,
    mrr_at_k,
    ndcg_at_k,
    per_query,
    precision_at_k,
    qrels_from_feedback,
    ragas_row,
    recall_at_k,
    risk_coverage,
    token_f1,
)
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.types import PAGE_HEAD, Answer, Citation, Hit, Hits

QRELS = {"q1": {"a": 3, "b": 2, "c": 1}, "q2": {"x": 1}, "q3": {"z": 1}, "unjudged": {"n": 0}}
RUN = {"q1": ["b", "n", "a"], "q2": ["n", "x"], "extra": ["a"]}


def hit(source="guide.pdf", page=None, start_s=None, end_s=None, chunk_id=1, text="words"):
    return Hit(chunk_id, "d", source, "text", text, 1.0, page=page, start_s=start_s, end_s=end_s)


def test_ndcg_matches_a_hand_worked_example():
    # q1: DCG = 2/log2(2) + 0 + 3/log2(4) = 3.5; ideal = 3 + 2/log2(3) + 1/2 = 4.7618595
    # q2: 1/log2(3) = 0.6309298; q3 has no ranking: 0
    assert per_query("ndcg", QRELS, RUN)["q1"] == pytest.approx(3.5 / 4.7618595, abs=1e-6)
    assert ndcg_at_k(QRELS, RUN) == pytest.approx((3.5 / 4.7618595 + 0.6309298 + 0) / 3, abs=1e-6)


def test_ndcg_cut_below_the_relevant_counts_uses_the_best_possible_cut():
    assert per_query("ndcg", QRELS, {"q1": ["a"]}, k=1)["q1"] == 1
    assert per_query("ndcg", QRELS, RUN, k=1)["q1"] == pytest.approx(2 / 3)


def test_recall_mrr_and_precision_match_hand_worked_examples():
    assert recall_at_k(QRELS, RUN) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert recall_at_k(QRELS, RUN, k=1) == pytest.approx((1 / 3 + 0 + 0) / 3)
    assert mrr_at_k(QRELS, RUN) == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert mrr_at_k(QRELS, RUN, k=1) == pytest.approx(1 / 3)
    assert precision_at_k(QRELS, RUN, k=2) == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)


def test_a_document_listed_twice_counts_once():
    assert per_query("recall", {"q": {"a": 1, "b": 1}}, {"q": ["a", "a", "b"]}, k=2)["q"] == 1
    assert per_query("ndcg", {"q": {"a": 1}}, {"q": ["a", "a"]})["q"] == 1


@pytest.mark.reference
@pytest.mark.parametrize("seed", range(5))
def test_metrics_agree_with_matrices_on_random_rankings(seed):
    rng = np.random.default_rng(seed)
    queries, documents, k = 30, 40, 10
    relevance = rng.choice([0, 0, 0, 1, 2], (queries, documents)).astype(float)
    ranking = np.stack([rng.permutation(documents) for _ in range(queries)])
    qrels = {str(q): {str(d): relevance[q, d] for d in range(documents)} for q in range(queries)}
    run = {str(q): [str(d) for d in ranking[q]] for q in range(queries)}
    gains = np.take_along_axis(relevance, ranking, 1)[:, :k]
    discount = 1 / np.log2(np.arange(k) + 2)
    ideal = -np.sort(-relevance, axis=1)[:, :k]
    first = np.where(gains.any(1), 1 / (1 + (gains > 0).argmax(1)), 0)
    assert ndcg_at_k(qrels, run) == pytest.approx(((gains @ discount) / (ideal @ discount)).mean())
    assert recall_at_k(qrels, run) == pytest.approx(((gains > 0).sum(1) / (relevance > 0).sum(1)).mean())
    assert mrr_at_k(qrels, run) == pytest.approx(first.mean())
    assert precision_at_k(qrels, run) == pytest.approx((gains > 0).mean())


@pytest.mark.reference
@pytest.mark.parametrize("seed", range(3))
def test_metrics_agree_with_trec_eval(seed):
    """Graded judgements, rankings of different lengths, queries with no ranking and with no relevant document."""
    ir_measures = pytest.importorskip("ir_measures")
    rng = np.random.default_rng(seed)
    qrels = {str(q): {f"d{d}": int(rng.choice([0, 0, 0, 1, 2])) for d in range(40)} for q in range(30)}
    qrels["29"] = dict.fromkeys(qrels["29"], 0)
    run = {str(q): [f"d{d}" for d in rng.permutation(60)[: rng.integers(1, 30)]] for q in range(1, 30)}
    scored = {q: {d: float(-rank) for rank, d in enumerate(ranked)} for q, ranked in run.items()}
    for ours, theirs in (
        ("ndcg", "nDCG@10"), ("recall", "R@10"), ("mrr", "RR@10"), ("map", "AP@10"), ("precision", "P@10"), ("hit", "Success@10")
    ):  # fmt: skip
        measure = ir_measures.parse_measure(theirs)
        expected = {row.query_id: row.value for row in ir_measures.iter_calc([measure], qrels, scored)}
        found = per_query(ours, qrels, run, k=10)
        assert found == pytest.approx({q: expected.get(q, 0.0) for q in found}), ours
        assert set(found) == {q for q, judged in qrels.items() if any(judged.values())}


def test_hit_and_average_precision_match_hand_worked_examples():
    assert hit_at_k(QRELS, RUN, k=1) == pytest.approx(1 / 3)
    # q1: relevant at ranks 1 and 3 of three: (1/1 + 2/3) / 3; q2: (1/2) / 1; q3: 0
    assert map_at_k(QRELS, RUN) == pytest.approx(((1 + 2 / 3) / 3 + 1 / 2) / 3)


def test_interval_is_as_wide_as_theory_says_and_stands_still_on_equal_values():
    values = {str(n): float(n % 2) for n in range(400)}
    low, high = interval(values)
    assert low < 0.5 < high
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(400), rel=0.05)
    assert interval({"a": 0.25, "b": 0.25}) == (0.25, 0.25)
    assert all(math.isnan(bound) for bound in interval({}))


def test_unknown_metric_and_k_are_refused():
    with pytest.raises(ConfigError, match="ndcg"):
        per_query("bpref", QRELS, RUN)
    with pytest.raises(ConfigError, match="at least 1"):
        ndcg_at_k(QRELS, RUN, k=0)


def test_compare_enumerates_to_the_exact_p_value_on_few_queries():
    # all 2^6 sign flips of (1,1,1,1,1,1): only two are as extreme as the mean 1
    a, b = {str(n): 0.0 for n in range(6)}, {str(n): 1.0 for n in range(6)}
    found = compare(a, b, rounds=40_000)
    assert found.p_value == pytest.approx(2 / 64, abs=0.004)
    assert (found.difference, found.low, found.high) == (1, 1, 1)
    assert "B is better" in str(found)


def test_compare_finds_nothing_between_equals_and_is_antisymmetric():
    rng = np.random.default_rng(1)
    a = {str(n): value for n, value in enumerate(rng.random(200))}
    b = {str(n): value for n, value in enumerate(rng.random(200))}
    same, swapped = compare(a, b), compare(b, a)
    assert same.p_value > 0.05
    assert same.low < same.difference < same.high
    assert swapped.difference == pytest.approx(-same.difference)
    assert compare(a, a).p_value == 1
    deviation = np.std(np.array(list(b.values())) - np.array(list(a.values()))) / math.sqrt(200)
    assert same.high - same.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)
    with pytest.raises(ConfigError):
        compare({"1": 0.0}, {"2": 0.0})


def test_answer_metrics_follow_squad():
    assert exact_match("The Eiffel Tower.", ["eiffel tower"]) == 1
    assert exact_match("Eiffel", ["eiffel tower"]) == 0
    # words: "in 1911 agnes" against "agnes thorvald": one shared, 2*1/(3+2)
    assert token_f1("in 1911, Agnes", ["Agnes Thorvald", "nobody"]) == pytest.approx(0.4)
    assert contains_answer("It has 142 steps, all told.", ["142 steps"])
    assert not contains_answer("It has 1425 stepsons.", ["142 steps"])
    assert not contains_answer("anything", [""])


@pytest.mark.parametrize(
    ("text", "gold", "other"),
    [
        ("Er sagte: „142 Stufen“.", "142 Stufen", "42 Stufen"),
        ("मीनार में 142 सीढ़ियाँ हैं।", "सीढ़ियाँ हैं", "सीढ़ी"),
        ("灯塔有142级台阶。", "142级", "14"),
        ("หอคอยมีบันได 142 ขั้น", "บันได", "บันทึก"),
        ("في البرج 142 درجة؟", "142 درجة", "42 درجة"),
    ],
)
def test_gold_words_are_found_beside_any_scripts_punctuation_and_without_spaces(text, gold, other):
    assert contains_answer(text, [gold])
    assert not contains_answer(text, [other])


def test_f1_counts_characters_where_words_have_no_spaces():
    # 灯 塔 142 级 against 142 级: two shared, 2*2/(4+2)
    assert token_f1("灯塔142级", ["142级"]) == pytest.approx(2 / 3)


def test_questions_are_judged_by_page_and_by_seconds():
    questions = [
        Question("a", "x", "guide.pdf", page=4),
        Question("b", "y", "talk.mp3", start_s=10, end_s=12),
        Question("c", None, None),
    ]
    found = {
        "a": [hit("/docs/guide.pdf", 3), hit("/docs/guide.pdf", 3, chunk_id=2), hit("C:\\docs\\guide.pdf", 4)],
        "b": [hit("talk.mp3", start_s=0, end_s=8), hit("other.mp3", start_s=10, end_s=12), hit("talk.mp3", start_s=11, end_s=20)],
    }
    qrels, run = judge(questions, found.__getitem__)
    assert list(qrels) == ["0", "1"]
    assert per_query("mrr", qrels, run) == {"0": 1 / 2, "1": 1 / 3}  # page 3 counts once


def test_answers_are_counted_by_support_gold_words_and_place():
    questions = [Question("a", "142 steps", "guide.pdf", page=4), Question("b", "Rope", "guide.pdf", page=6), Question("c")]
    right = hit(page=4, text="It has 142 steps.")
    given = {
        "a": Answer("a", "It has 142 steps. [1]", Hits([right]), (Citation(1, right, "It has 142 steps."),)),
        "b": Answer("b", "Not found in these documents.", Hits(), supported=False),
        "c": Answer("c", "Not found in these documents.", Hits(), supported=False),
    }
    answerable, unanswerable = evaluate_answers(questions, given.__getitem__)
    assert (answerable["count"], answerable["answered"], answerable["holds the gold answer"]) == (2, 0.5, 0.5)
    assert answerable["cites the right place"] == 0.5
    assert (unanswerable["count"], unanswerable["answered"]) == (1, 0.0)


def test_questions_load_from_both_shapes_and_keep_what_they_do_not_know(tmp_path):
    rows = [{"question": "Who?", "answer": "A", "source": "a.pdf", "page": 2, "demo": True}]
    for shape in (rows, {"questions": rows, "spoken": {}}):
        path = tmp_path / "questions.json"
        path.write_text(json.dumps(shape))
        (question,) = load_questions(path)
        assert (question.page, question.answerable, question.metadata) == (2, True, {"demo": True})
    path.write_text('{"a": 1}')
    with pytest.raises(ConfigError, match="question"):
        load_questions(path)


def test_feedback_becomes_judgements():
    votes = [("q", 1, 1), ("q", 1, 1), ("q", 2, 1), ("q", 2, -1), ("q", None, 1), ("r", 3, -1)]
    rows = [{"question": q, "chunk_id": c, "vote": v} for q, c, v in votes]
    assert qrels_from_feedback(rows) == {"q": {"1": 2.0}}


def cited(text, *passages, supported=True):
    hits = [hit(chunk_id=n, text=passage) for n, passage in enumerate(passages, 1)]
    return Answer("q", text, Hits(hits), tuple(Citation(n, h, h.text) for n, h in enumerate(hits, 1)), supported=supported)


def test_faithfulness_and_citations_are_counted_by_statement():
    answer = cited("It has 142 steps. [1] The door is red [2][1] and blue.", "It has 142 steps, all told.", "The door is green.")
    # statements: "142 steps" borne out by [1]; "door is red" by neither of two; "and blue" cites nothing
    assert faithfulness(answer) == pytest.approx(1 / 3)
    assert citation_scores(answer) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    lenient = citation_scores(answer, supports=lambda statement, passage: "door" in passage)
    assert lenient == (pytest.approx(1 / 3), pytest.approx(1 / 3))  # only [2] of three citations, one statement of three
    silent = cited("Not found in these documents.", supported=False)
    assert faithfulness(silent) == 1
    assert citation_scores(silent) == (1, 1)


def test_what_the_extractive_writer_puts_together_is_borne_out_by_its_passage_and_nothing_else_is():
    table = "Station | 2017 | 2018\nNet sales | 25,938 | 32,765"
    assert contained("Net sales, 2018: 32,765", table)
    assert not contained("Net sales, 2018: 32,766", table)
    assert not contained(
        "In 2018 net sales were below 2017.", "Net sales of 2018 were not below those in 2017."
    )  # no row: in a row
    assert faithfulness(cited("It is red. (before it: “The door is old.”) [1]", "The door is old. It is red.")) == 1
    assert faithfulness(cited("It is red. (before it: “The door is new.”) [1]", "The door is old. It is red.")) == 0.5
    cut = Hit(1, "d", "a.pdf", "text", "The door is", 1.0, neighbours=("It is old.", "red, and so is the gate.\nIt is new."))
    for said, share in (("The door is red, and so is the gate. [1]", 1), ("It is new. [1]", 0)):
        assert faithfulness(Answer("q", said, Hits([cut]), (Citation(1, cut, "The door is"),))) == share
    in_head = Hit(1, "d", "a.pdf", "table", table, 1.0, metadata={PAGE_HEAD: "STATEMENTS (In millions)"})
    answer = Answer("q", "Net sales, 2018: 32,765 (In millions) [1]", Hits([in_head]), (Citation(1, in_head, table),))
    assert faithfulness(answer) == 1


def test_faithfulness_by_embedding_takes_the_closest_cited_sentence():
    axes = {"steps": 0, "door": 1}

    def encode(texts):
        rows = np.zeros((len(texts), 3), np.float32)
        for row, text in zip(rows, texts):
            row[next((axis for word, axis in axes.items() if word in text), 2)] = 1
        return rows

    answer = cited("There are steps. [1] A window. [1]", "A red door. Many steps.")
    assert faithfulness(answer, encode=encode) == pytest.approx(0.5)
    assert answer_relevancy("how many steps?", "142 steps", encode) == 1
    assert answer_relevancy("how many steps?", "a door", encode) == 0
    # as RAGAS has it: the mean over the questions that the answer answers, 1 and 0; 0 where it answers none
    assert answer_relevancy("steps?", "x", encode, ask_back=lambda answer: ["many steps?", "a door?"]) == pytest.approx(0.5)
    assert answer_relevancy("steps?", "x", encode, ask_back=lambda answer: []) == 0


def test_context_metrics_match_hand_worked_examples():
    passages = ["nothing", "the lamp has 142 steps", "rope", "142 steps it is"]
    assert context_precision(passages, ["142 steps"]) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert context_precision(passages, ["144 steps"]) == 0
    assert context_recall(passages, "It is rope. The lamp has 142 steps.") == pytest.approx(1 / 2)


def test_rows_for_ragas_have_its_names_and_none_of_our_marks():
    """Names and types of SingleTurnSample: ragas 0.4.3 took such rows by EvaluationDataset.from_list (tried 2026-11)."""
    rows = [
        ragas_row(cited("It has 142 steps. [1] Red. [2][1]", "p", "q"), "142"),
        ragas_row(cited("Not found.", supported=False)),
    ]
    assert rows[0] == {
        "user_input": "q", "response": "It has 142 steps. Red.", "retrieved_contexts": ["p", "q"], "reference": "142"
    }  # fmt: skip
    assert rows[1] == {"user_input": "q", "response": "Not found.", "retrieved_contexts": []}


def test_risk_coverage_matches_a_hand_worked_example():
    curve = risk_coverage([0.9, 0.8, 0.8, 0.1], [True, False, True, False])
    assert [(row["threshold"], row["coverage"], row["risk"]) for row in curve.table] == [
        (0.9, 0.25, 0.0),
        (0.8, 0.75, pytest.approx(1 / 3)),
        (0.1, 1.0, 0.5),
    ]
    assert curve.area == pytest.approx(0.5 / 3 + 0.25 * 0.5)
    assert curve.threshold_at(0.5) == 0.8
    with pytest.raises(ConfigError, match="pair up"):
        risk_coverage([0.1], [])


def test_questions_load_from_csv_and_json_lines(tmp_path):
    table = tmp_path / "q.csv"
    table.write_text('question,answer,file,page,unit\n"Who, and\nwhen?",A,a.pdf,2,\nWhy?,,,,\n', encoding="utf-8-sig")
    first, second = load_questions(table)
    assert (first.question, first.answer, first.source, first.page) == ("Who, and\nwhen?", "A", "a.pdf", 2)
    assert not second.answerable
    lines = tmp_path / "q.jsonl"
    lines.write_text('{"question": "Who?", "answers": ["A", "B"], "file": "x/a.pdf", "page": 2, "language": "en"}\n')
    (question,) = load_questions(lines)
    assert (question.answer, question.answers, question.metadata["language"]) == ("A", ["A", "B"], "en")
    table.write_text(
        "Question; Answer;File;Page\nWho, then?;A;a.pdf;4.0\n;;;\n", encoding="utf-8-sig"
    )  # as a spreadsheet saves it
    (question,) = load_questions(table)
    assert (question.question, question.answer, question.source, question.page) == ("Who, then?", "A", "a.pdf", 4)
    table.write_text("question,page\nWho?,4.5\n")
    with pytest.raises(ConfigError, match="whole number"):
        load_questions(table)
    table.write_text("question,page\nWho?,two\n")
    with pytest.raises(ConfigError, match="two"):
        load_questions(table)
