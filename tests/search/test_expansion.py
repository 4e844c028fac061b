"""What is searched beside the question: parts, other words, variants, and how several searches become one list."""

from __future__ import annotations

import json

import pytest

from ultrafast_rag import Config, UltraFastRAG
from ultrafast_rag.bench.gemini_server import Server
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.search.expansion import FEEDBACK_WORDS, feedback, fused, mapped, parts, read_map
from ultrafast_rag.types import Hit

PASSAGES = [
    "The keeper of the lighthouse was Marta Oduya.",
    "The automobile of the doctor stood in the yard.",
    "Colza oil burns in the lamp of the lighthouse; the wick is trimmed every four hours.",
    "A wick that is trimmed well burns colza oil without smoke.",
    "The ferry leaves at nine.",
]
TEXT_ONLY = {"image_model": None, "speech_model": None, "quiet": True}


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("expansion") / "index"
    with UltraFastRAG(folder, **TEXT_ONLY) as rag:
        rag.add_texts(PASSAGES, ids=["keeper", "car", "lamp", "wick", "ferry"])
    return folder


def found(index, question, *, k=5, alpha=None, **settings):
    with UltraFastRAG(index, **TEXT_ONLY, **settings) as rag:
        return [hit.document_id for hit in rag.search(question, k=k, alpha=alpha)]


def hit(number, score):
    return Hit(chunk_id=number, document_id=str(number), source="s", modality="text", text="t", score=score)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Who kept the lighthouse, and when does the ferry leave?", ["Who kept the lighthouse", "when does the ferry leave"]),
        (
            "Wer baute die Brücke und wann wurde er geboren?",
            ["Wer baute die Brücke", "wann wurde er geboren (Wer baute die Brücke)"],
        ),
        ("Where is it? How old is the mill?", ["Where is it", "How old is the mill"]),
        ("What do cats and dogs eat?", []),
        ("How long and wide is the ship?", []),
        ("lighthouse and ferry", []),
        ("?", []),
    ],
)
def test_only_a_question_of_several_questions_is_taken_apart(question, expected):
    assert parts(question) == expected


def test_fusion_is_the_mean_of_scores_scaled_to_each_runs_best():
    hits = fused([[hit(1, 0.8), hit(2, 0.4)], [hit(2, 2.0), hit(3, 1.0)]])
    assert [(one.chunk_id, one.score) for one in hits] == [(2, pytest.approx(0.75)), (1, 0.5), (3, 0.25)]
    best_of_each = fused([[hit(1, 0.8), hit(2, 0.4)], [hit(3, 2.0), hit(2, 1.2)]], by=max)
    assert [(one.chunk_id, one.score) for one in best_of_each] == [(1, 1.0), (3, 1.0), (2, pytest.approx(0.6))]
    assert fused([[], []]) == []


def test_both_parts_of_a_question_are_found(index):
    question = "Who was the keeper, and when does the ferry leave?"
    assert set(found(index, question, k=2, alpha=0.0, decompose=True)) == {"keeper", "ferry"}


def test_feedback_takes_what_several_passages_share_and_the_question_lacks(index):
    with UltraFastRAG(index, **TEXT_ONLY) as rag:
        first = rag.search("colza oil", k=2, alpha=0.0)
        words = feedback("colza oil", first, rag._lexical)
    assert set(words) == {"wick", "trim", "burn"}  # stems; "lighthouse" and "smoke" stand in one of them only
    assert len(words) <= FEEDBACK_WORDS


def test_feedback_finds_what_shares_no_word_with_the_question(index):
    assert "wick" not in found(index, "lighthouse lamp", alpha=0.0)
    with UltraFastRAG(index, **TEXT_ONLY, expansion="feedback") as rag:
        rag.add_texts(["Oil for the lighthouse lamp: colza burns best, with the wick trimmed."], ids=["more"])
        assert "wick" in [one.document_id for one in rag.search("lighthouse lamp", k=5, alpha=0.0)]
        rag.delete("more")


def test_a_map_adds_its_words_to_the_words_leg(index, tmp_path):
    words = tmp_path / "map.json"
    words.write_text(json.dumps({"Car": ["automobile"], "sea mark": ["lighthouse"]}))
    assert "car" not in found(index, "Whose car was it?", alpha=0.0)
    assert found(index, "Whose car was it?", alpha=0.0, expansion_map=str(words)) == ["car"]
    assert mapped("The SEA mark, and a scar", read_map(str(words))) == ["lighthouse"]


@pytest.mark.parametrize("text", ["[1]", '{"a": 1}', '{"a": [1]}', '{"": ["b"]}', "{", '{"a": ["\\ud800"]}'])
def test_a_map_that_is_none_is_an_error_that_shows_its_form(index, tmp_path, text):
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="expansion_map must be"):
        found(index, "q", expansion_map=str(path))
    with pytest.raises(ConfigError, match="expansion_map must be"):
        read_map(str(tmp_path / "gone.json"))


def test_variants_by_a_model_are_searched_too_and_a_failure_is_a_note(index, tmp_path, monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "test-key")
    question, settings = "Whose car was it?", {"expansion": "generated", "cache_dir": tmp_path, "gemini_rpm": None, "alpha": 0.0}
    written = json.dumps({"variants": ["doctor's automobile", question, ""]})
    with Server(reply=lambda request: written) as server:
        assert found(index, question, gemini_base_url=server.url, **settings) == ["car"]
        (asked,) = server.delivered
        assert question in asked.text
    with (
        Server(schedule=lambda number, body: "blocked") as server,
        UltraFastRAG(index, **TEXT_ONLY, gemini_base_url=server.url, **settings) as rag,
    ):
        hits = rag.search(question)
        assert list(hits) == []
        assert "no variants" in hits.notes[0]
    monkeypatch.delenv("GEMINI_API_KEY")
    with pytest.raises(ConfigError, match="GEMINI_API_KEY"):
        found(index, question, **settings)


def test_words_that_single_a_passage_out_save_the_encoder(index, monkeypatch):
    from ultrafast_rag.models.proxies import TextProxy

    encoded = []
    ask = TextProxy.encode_queries
    monkeypatch.setattr(TextProxy, "encode_queries", lambda self, texts: encoded.extend(texts) or ask(self, texts))
    assert found(index, "ferry at nine", stop_early=True)[0] == "ferry"
    assert encoded == []
    assert found(index, "ferry at nine")[0] == "ferry"
    found(index, "lighthouse", stop_early=True)  # in two passages alike
    assert encoded == ["ferry at nine", "lighthouse"]


def test_nothing_is_changed_by_default():
    config = Config()
    switches = (config.expansion, config.expansion_map, config.decompose, config.stop_early, config.rerank_margin)
    assert switches == ("none", None, False, False, None)
