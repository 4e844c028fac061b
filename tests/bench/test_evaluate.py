"""`rag.evaluate` on a few small documents whose right answers are known."""

from __future__ import annotations

import json

import pytest

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.bench.answers import asking_back, contained, judged_by, reliability, risk_coverage
from ultrafast_rag.bench.evaluate import METRICS, judge_of, voted
from ultrafast_rag.bench.questions import Question
from ultrafast_rag.errors import BadResponseError, ConfigError
from ultrafast_rag.types import Completion

SETTINGS = {"image_model": None, "speech_model": None, "quiet": True}
TEXTS = {
    "lamp.md": "# The lamp\n\nIn the first winter the lamp burned 1,204 litres of oil, which was too much.\n",
    "door.md": "# The door\n\nThe door was painted red by the smith in 1931, and nobody has asked why.\n",
    "bell.md": "# The bell\n\nThe bell of the station was cast in Bergen and weighs 80 kilograms.\n",
}
QUESTIONS = [
    Question("How many litres of oil did the lamp burn in the first winter?", "1,204", "lamp.md"),
    Question("How much does the bell of the station weigh?", "80 kilograms", "bell.md"),
    Question("Who won the football cup of Uruguay?"),
]


@pytest.fixture(scope="module")
def rag(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for name, text in TEXTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    with UltraFastRAG(**SETTINGS) as rag:
        rag.ingest(folder)
        yield rag


def test_evaluation_counts_what_happened(rag):
    found = rag.evaluate(QUESTIONS)
    assert [row["metric"] for row in found.retrieval] == [f"{metric}@10" for metric in METRICS]
    means = {row["metric"]: (row["mean"], row["low"], row["high"]) for row in found.retrieval}
    assert means["ndcg@10"] == (1.0, 1.0, 1.0)  # both files come first
    assert means["precision@10"][0] == pytest.approx(0.1)
    answerable, unanswerable = found.answers
    assert (answerable["count"], answerable["holds the gold answer"], answerable["context recall"]) == (2, 1.0, 1.0)
    assert 0 < answerable["relevant"] <= 1
    assert (unanswerable["count"], unanswerable["answered"]) == (1, 0.0)
    assert found.cost[0]["questions"] == 3
    assert found.cost[0]["dollars"] == 0
    assert all(row["right"] for row in found.questions)
    assert found.curve.table[-1]["coverage"] == pytest.approx(2 / 3)  # one of three got no answer
    assert sum(row["answers"] for row in found.calibration) == 2
    assert len(found.plot().axes) == 2
    assert found.ragas()[0]["reference"] == "1,204"
    assert "ndcg@10" in str(found)
    assert "ndcg@10" in found._repr_html_()


def test_questions_come_from_a_file_too_and_none_are_an_error(rag, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("question,answer,file,page\nHow much does the bell weigh?,80 kilograms,bell.md,\n")
    found = rag.evaluate(path)
    assert found.retrieval[0]["mean"] == 1.0
    assert len(found.retrieval.notes) == 1
    path.write_text("question,file\nHow much does the bell weigh?,bel.md\n")
    assert rag.evaluate(path).retrieval.notes[1] == "no such document here, so never found: bel.md"
    with pytest.raises(ConfigError, match="no questions"):
        rag.evaluate([])
    with pytest.raises(ConfigError, match="rows with a"):
        rag.evaluate(["How much does the bell weigh?"])
    row = {"question": "How much does the bell weigh?", "answer": "80 kilograms", "file": "bell.md", "page": float("nan")}
    assert rag.evaluate([row]).retrieval[0]["mean"] == 1.0  # as a data frame gives it


def test_thumbs_are_judgements_kept_in_the_index(tmp_path):
    (tmp_path / "door.md").write_text(TEXTS["door.md"])
    with UltraFastRAG(tmp_path / "index", **SETTINGS) as rag:
        rag.ingest(tmp_path / "door.md")
        with pytest.raises(ConfigError, match="thumbs up"):
            rag.evaluate()
        hit = rag.search("Who painted the door?", k=1)[0]
        rag.feedback("Who painted the door?", hit.chunk_id, 1)
        rag.feedback("Who painted the tower?", hit.chunk_id, -1)
        rag._store.add_feedback("Who painted it?", 10_000, 1)  # for a passage that is gone since
    with UltraFastRAG(tmp_path / "index", **SETTINGS) as rag:
        (question,) = voted(rag._store)
        assert (question.question, question.source) == ("Who painted the door?", hit.source)
        found = rag.evaluate()
        assert found.retrieval[0]["mean"] == 1.0
        assert len(found.questions) == 1


def test_a_judge_decides_what_supports(rag):
    asked = []

    def never(statement, passage):
        asked.append(statement)
        return False

    found = rag.evaluate(QUESTIONS[:1], judge=never)
    assert found.answers[0]["faithful"] == 0
    assert any("1,204" in statement for statement in asked)
    assert judge_of(None, lambda: None) == (None, None)
    with pytest.raises(ConfigError, match="judge is"):
        rag.evaluate(QUESTIONS[:1], judge="me")
    with pytest.raises(ConfigError, match="needs Gemini"):
        rag.evaluate(QUESTIONS[:1], judge="gemini")


class Verdicts:
    """A model by its port: bears out what stands in the passage word for word, and says so in JSON."""

    name = "verdicts"

    def __init__(self):
        self.asked = []

    async def complete(self, system, prompt, *, schema, images=()):
        self.asked.append(prompt)
        if prompt == "?":
            return Completion("no idea")
        if "questions" in schema.model_fields:
            return Completion(schema(questions=["How heavy is the bell?"] if "kilograms" in prompt else []).model_dump_json())
        row = json.loads(prompt)
        if row["statement"] == "?":
            return Completion("no idea")
        said = row["statement"].partition(" (asked: ")[0]
        return Completion(schema(supported=contained(said, row["passage"])).model_dump_json())


def test_a_model_judges_each_pair_once_and_a_reply_that_is_no_verdict_is_an_error():
    model = Verdicts()
    supports = judged_by(model)
    assert supports("80 kilograms", "It weighs 80 kilograms.")
    assert not supports("90 kilograms", "It weighs 80 kilograms.")
    assert supports("80 kilograms", "It weighs 80 kilograms.")
    assert len(model.asked) == 2
    with pytest.raises(BadResponseError, match="no verdict"):
        supports("?", "x")
    assert asking_back(model)("It weighs 80 kilograms.") == ("How heavy is the bell?",)
    with pytest.raises(BadResponseError, match="asked nothing back"):
        asking_back(model)("?")


def test_a_model_as_judge_decides_every_answer_metric(rag):
    model = Verdicts()
    answers = rag.evaluate(QUESTIONS[:2], judge=model).answers[0]
    assert (answers["faithful"], answers["context recall"]) == (1.0, 1.0)
    statements = [json.loads(prompt)["statement"] for prompt in model.asked if prompt.startswith("{")]
    # a bare figure states nothing: the gold answer is judged with its question, for precision as for recall
    assert {"1,204 (asked: How many litres of oil did the lamp burn in the first winter?)"} <= set(statements)
    assert "1,204" not in statements
    # relevancy by questions asked back: none for the lamp, a near one for the bell
    assert 0.25 < answers["relevant"] <= 0.5


def test_reliability_matches_a_hand_worked_example():
    table = reliability([0.1, 0.1, 0.9, 0.9], [False, True, True, True])
    assert [(row["from"], row["answers"], row["right"]) for row in table] == [(0.0, 2, 0.5), (0.8, 2, 1.0)]
    # |.1 - .5| / 2 + |.9 - 1| / 2
    assert "0.250" in table.title
    with pytest.raises(ConfigError, match="pair up"):
        reliability([], [])


def test_coverage_is_of_all_questions_where_some_got_no_answer():
    curve = risk_coverage([0.9, 0.5], [True, False], questions=4)
    assert [row["coverage"] for row in curve.table] == [0.25, 0.5]
