"""Politeness, missing marks and misspelt words."""

from __future__ import annotations

from collections import Counter

import pytest

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.language.asking import is_question, plain_question, respelled

FOUNDED = "The station was founded in 1911 by Agnes Thorvald, an oceanographer. Microscopes arrived in 1923."


@pytest.mark.parametrize(
    "text",
    [
        "keeper's dog?",
        "the year in which the quay was built",
        "Is the quay open",
        "name the dog",
        "can you swim",
        "whats its name",
        "狗叫什么？",
    ],
)
def test_a_question_asks_by_its_mark_or_by_a_word(text):
    assert is_question(text)


@pytest.mark.parametrize(
    "text",
    ["a white lighthouse at night", "somewhat shown", "net sales 2018", "list price", "can opener", "May 2018", "find two boats"],
)
def test_a_phrase_asks_nothing(text):
    assert not is_question(text)


@pytest.mark.parametrize(
    ("asked", "plain"),
    [
        ("Could you please tell me: when did Google Docs appear?", "when did Google Docs appear?"),
        ("Hi, I'd like to know how many years he worked.", "how many years he worked?"),
        ("hello there! can you explain to me how it works", "how it works?"),
        ("hi can you tell me when lunch is", "when lunch is?"),
        ("Do you know who founded it", "who founded it?"),
        ("What is it? Thanks!", "What is it?"),
        ("who founded docling", "who founded docling?"),
    ],
)
def test_politeness_is_left_out_and_the_mark_put_in(asked, plain):
    assert plain_question(asked) == plain


@pytest.mark.parametrize(
    "text", ["Can you see the sea from the tower?", "Hello World program", "Tell me", "Please", "a red boat", "Wer gründete es?"]
)
def test_what_asks_by_itself_stays(text):
    assert plain_question(text) == text


def test_a_misspelt_word_is_read_as_the_documents_spell_it():
    passages = Counter(
        {"microsoft": 3, "founder": 2, "founded": 9, "breaches": 4, "summer": 5, "summerize": 5, "modernism": 2, "cape": 6}
    )
    vocabulary = {"beaches", "founded", "founder", "who"}

    def read(text):
        return respelled(text, lambda words: [passages[w.lower()] for w in words], lambda w: 1 if w in vocabulary else 2)

    assert read("Who founedd Micorsoft?") == ("Who founded Microsoft?", {"founedd": "founded", "Micorsoft": "Microsoft"})
    assert read("How many beaches were there?")[1] == {}  # a word, though no passage has it
    assert read("Please summarize it")[1] == {}  # "summerize" has the stem of a word there, and is none itself
    assert read("Can we modernise it?")[1] == {}  # nor is "modernism" another spelling
    assert read("How high was capex?")[1] == {}  # which reports call by another name
    assert read("Who owns MICORSOFT, Mi and QMicorsoft?")[1] == {}  # capitals inside, or short: it may be an identifier
    assert read("Wer hat Micorsoft gegründet?")[1] == {}


def test_an_answer_says_what_it_read_otherwise(tmp_path):
    with UltraFastRAG(tmp_path / "index", image_model=None, speech_model=None, quiet=True) as rag:
        rag.add_texts([FOUNDED, "Seals are counted on Sunday by the warden of the island."], ids=["station", "seals"])
        asked = "could you tell me when Agens Thorvlad founded the station"
        answer = rag.query(asked)
        assert answer.question == asked
        assert "1911" in answer.text
        assert answer.notes == (
            "“Agens” stands in no document; read as “Agnes”",
            "“Thorvlad” stands in no document; read as “Thorvald”",
        )
        again = rag.query(asked)
        assert again.cached
        assert again.notes == answer.notes
        hits = rag.search("Agens Thorvlad")
        assert hits[0].document_id == "station"
        assert len(hits.notes) == 2
        assert len(rag.search("Agens Thorvlad").notes) == 2  # from the cache
        assert rag.search("Agens Thorvlad", alpha=0.0).notes == ()
