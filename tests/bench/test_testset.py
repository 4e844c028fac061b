"""Questions, reports and comparisons made from small documents of one's own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.bench.compare import compare_configs, holm
from ultrafast_rag.bench.questions import Question, load_questions
from ultrafast_rag.bench.report import garbled, mean_distance
from ultrafast_rag.bench.testset import GAP, as_rows, make_testset
from ultrafast_rag.errors import BadResponseError, ConfigError
from ultrafast_rag.types import Completion

SETTINGS = {"image_model": None, "speech_model": None, "quiet": True, "query_cache": False}
LAMP = "# The lamp\n\n## Cost and fuel\n\nIn the first winter the lamp burned 1,204 litres of oil, which was too much.\n"
DOOR = (
    "# The door\n\n## Colour of the door\n\nThe door is painted anew in every spring, and nobody has asked why it must be red.\n"
)
GERMAN = "# Der Turm\n\n## Die Stufen\n\nDer Turm hat 142 Stufen, und wer sie alle gezählt hat, der ist müde.\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import pymupdf

    folder = tmp_path_factory.mktemp("own")
    for name, text in (("lamp.md", LAMP), ("door.md", DOOR), ("turm.md", GERMAN), ("copy.md", LAMP)):
        (folder / name).write_text(text, encoding="utf-8")
    with pymupdf.open() as document:
        for text in ("The keeper wrote to Agnes Thorvald about the rope that had been lost in the storm.", ""):
            document.new_page().insert_text((72, 72), text)
        document.save(folder / "letter.pdf")
    return folder


@pytest.fixture(scope="module")
def rag(folder):
    with UltraFastRAG(**SETTINGS) as rag:
        rag.ingest(folder)
        yield rag


def test_testset_asks_about_figures_names_and_headings_and_says_how(rag, tmp_path):
    made = {question.answer or question.question: question for question in rag.make_testset(20)}
    assert made["1,204"].question == (f"In the first winter the lamp burned {GAP} litres of oil, which was too much.")
    assert made["142"].source.endswith("turm.md")
    assert made["Agnes Thorvald"].page == 1
    assert made["Colour of the door"].metadata["made"] == "heading"
    assert {made[answer].metadata["made"] for answer in ("1,204", "142", "Agnes Thorvald")} == {"cloze"}
    assert len(made) == 4  # the copy's question is the original's
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(as_rows(list(made.values()))))
    assert load_questions(path) == list(made.values())


def test_testset_is_the_same_twice_and_stops_at_n(rag):
    assert rag.make_testset(2) == rag.make_testset(20)[:2]
    with pytest.raises(ConfigError, match="at least 1"):
        rag.make_testset(0)


def test_testset_of_an_empty_index_says_what_to_do():
    with UltraFastRAG(**SETTINGS) as rag, pytest.raises(ConfigError, match="ingest"):
        rag.make_testset()


class Writer:
    """A model by its port: writes about the lamp, invents about the tower, fails on the rest."""

    name = "writer"

    async def complete(self, system, prompt, *, schema, images=()):
        if "1,204" in prompt:
            return Completion(schema(question="How much oil was used?", answer="1,204 litres").model_dump_json())
        if "142" in prompt:
            return Completion(schema(question="How many steps?", answer="200").model_dump_json())
        raise BadResponseError("no")


def test_testset_takes_a_models_question_only_where_its_answer_stands_in_the_passage(rag):
    made = {question.question: question for question in make_testset(rag._store, 20, Writer())}
    assert made["How much oil was used?"].metadata["made"] == "writer"
    assert made["How much oil was used?"].answer == "1,204 litres"
    assert "How many steps?" not in made
    assert {question.metadata["made"] for question in made.values()} == {"writer", "cloze", "heading"}


def test_data_report_finds_copies_empty_pages_and_languages(rag):
    rows = list(rag.data_report())
    (copy,) = [row for row in rows if row["finding"] == "duplicate"]
    assert {copy["document"].rsplit("/", 1)[-1], copy["where"].rsplit("/", 1)[-1]} == {"lamp.md", "copy.md"}
    assert [(row["document"], row["where"]) for row in rows if row["finding"] == "empty"] == [("letter.pdf", "pages 2")]
    languages = {row["document"]: row["where"] for row in rows if row["finding"] == "language"}
    assert languages["turm.md"] == "german"
    assert languages["door.md"] == "english"


def test_drift_between_two_states_names_documents_and_tells_moved_vectors_from_a_sample(rag, tmp_path):
    with UltraFastRAG(tmp_path / "before", **SETTINGS) as earlier:
        (tmp_path / "lamp.md").write_text(LAMP)
        earlier.ingest(tmp_path / "lamp.md")
    found = {row["finding"]: row for row in rag.data_report(before=tmp_path / "before")}
    assert found["added"]["document"] == "copy.md, door.md, lamp.md, letter.pdf, turm.md"  # other paths: other documents
    assert found["removed"]["document"] == "lamp.md"
    assert "drift" in found["vectors"]["where"]
    same = {row["finding"] for row in rag.data_report(before=rag._store.folder)}
    assert not same & {"added", "removed", "changed", "lengths"}


def test_mean_distance_tells_a_moved_sample_from_the_same_one():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 120, 8)).astype(np.float32)
    assert mean_distance(a, b)[1] > 0.01
    moved, p = mean_distance(a, b + 0.5)
    assert moved > mean_distance(a, b)[0]
    assert p == pytest.approx(1 / 1000)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("หอคอยมีบันได 142 ขั้น", "thai"),
        ("灯塔有一百四十二级台阶，灯油来自北方。", "chinese"),
        ("灯台の階段は百四十二段である。東京都港区。", "japanese"),
        ("등대에는 계단이 142개 있다.", "korean"),
    ],
)
def test_data_report_names_languages_that_have_no_spaces(text, language):
    with UltraFastRAG(**SETTINGS) as rag:
        rag.add_texts([text], ids=["one"])
        assert [row["where"] for row in rag.data_report()] == [language]


def test_garbled_text_is_told_from_other_scripts():
    assert garbled("\ue001\ue002 \ue003 text")
    assert garbled("(cid:12)(cid:9) was")
    assert not garbled("Привет, 世界: नमस्ते 142 ±")
    assert not garbled("")


def test_configs_are_compared_on_the_same_questions_with_a_plot(folder):
    questions = [
        Question("How much oil did the lamp burn?", source="lamp.md"),
        Question("Why is the door red?", source="door.md"),
        Question("not in the documents"),
    ]
    sources = [folder / "lamp.md", folder / "door.md"]
    found = compare_configs({"default": SETTINGS, "again": SETTINGS}, questions, sources, k=5)
    first, second = found.table
    assert (first["settings"], second["verdict"], second["difference"]) == ("default", "no difference shown", 0)
    assert list(found.values["again"]) == ["0", "1"]
    assert [text.get_text() for text in found.plot().axes[0].get_yticklabels()] == ["again", "default"]
    with pytest.raises(ConfigError, match="at least one"):
        compare_configs({}, questions, [folder])


def test_settings_of_the_search_are_compared_on_the_index_that_is_there(rag, monkeypatch):
    questions = [Question("How much oil did the lamp burn?", source="lamp.md"), Question("Wie viele Stufen?", source="turm.md")]
    read = []
    monkeypatch.setattr(UltraFastRAG, "ingest", lambda self, *sources: read.append(sources))
    found = rag.compare({"now": {}, "words only": {"alpha": 0.0}}, questions, k=5)
    assert [row["settings"] for row in found.table] == ["now", "words only"]
    assert not read
    assert len(rag.documents()) == 5  # the index is open and whole
    with pytest.raises(ConfigError, match="unknown setting alhpa"):
        rag.compare({"now": {}, "typo": {"alhpa": 0.0}}, questions)


def test_other_chunks_are_read_again_from_the_files_and_only_from_files(rag):
    questions = [Question("How much oil did the lamp burn?", source="lamp.md")]
    found = rag.compare({"now": {}, "short": {"chunk_tokens": 32}}, questions, k=5)
    assert found.table[1]["mean"] > 0
    with UltraFastRAG(**SETTINGS) as other:
        other.add_texts([LAMP])
        with pytest.raises(ConfigError, match="read again"):
            other.compare({"short": {"chunk_tokens": 32}}, questions)


def test_holm_follows_its_definition():
    # sorted .01 .02 .04: 3 * .01, max(.03, 2 * .02), max(.04, .04)
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert np.all(np.array(holm([0.9, 0.8])) <= 1)
