"""Follow-ups: from the last answer's evidence, or rewritten with what was asked; and questions made of an index."""

from __future__ import annotations

import pytest

from ultrafast_rag.answer.conversation import follow_up, sample_questions
from ultrafast_rag.types import Answer, Chunk, Citation, Hit, Hits

TEXT = (
    "The tower was raised in 1914. It has 142 steps. "
    "Its lamp was never meant for shipping, because Thorvald wanted a fixed light."
)
HIT = Hit(
    1, "d", "h.pdf", "text", TEXT, 1.0, page=4, neighbours=("Nobody lived there before.", "The pier closes at forty-five knots.")
)
OTHER = Hit(2, "d", "h.pdf", "text", "The cook bakes on Wednesdays and Saturdays.", 0.3, page=9)
STEPS = Answer(
    "How many steps does the tower have?", "It has 142 steps. [1]", Hits([HIT, OTHER]), (Citation(1, HIT, "It has 142 steps."),)
)


@pytest.mark.parametrize("asked", ["why?", "Why", "but why is that?", "warum?", "Pourquoi ?"])
def test_why_gives_the_reason_that_stands_in_the_evidence(asked):
    answer = follow_up(asked, STEPS).answer
    assert answer.text == "Its lamp was never meant for shipping, because Thorvald wanted a fixed light. [1]"
    assert answer.citations[0].hit == HIT
    assert answer.citations[0].quote in TEXT
    assert answer.supported


def test_why_without_a_reason_says_so():
    plain = Hit(3, "d", "h.pdf", "text", "The tower is white. It has 142 steps. Two windows face the sea.", 1.0)
    answer = follow_up(
        "why?", Answer("q", "It has 142 steps. [1]", Hits([plain]), (Citation(1, plain, "It has 142 steps."),))
    ).answer
    assert answer.text.startswith("No reason is given in so many words")


@pytest.mark.parametrize("asked", ["more", "Tell me more about it", "mehr bitte", "more details, please"])
def test_more_goes_on_and_ends_honestly(asked):
    said, last = [STEPS.text], STEPS
    first = follow_up(asked, last, said).answer
    assert "142 steps" not in first.text
    assert "raised in 1914" in first.text
    said.append(first.text)
    second = follow_up(asked, first, said).answer
    assert "forty-five knots" in second.text or "Nobody lived there" in second.text
    said.append(second.text)
    for _ in range(3):
        last = follow_up(asked, second, said).answer
        said.append(last.text)
    assert "There is no more about this" in last.text
    assert not last.supported
    assert "cook" not in " ".join(said)  # a passage that fits so much worse is about something else


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("And how high is it?", "And how high is it? (steps tower)"),
        ("When?", "When? (steps tower)"),
        ("Who bakes the bread on Wednesdays?", "Who bakes the bread on Wednesdays?"),
        ("Which bird nests on the tower?", "Which bird nests on the tower?"),
    ],
)
def test_a_question_that_leans_on_the_last_is_rewritten_and_no_other(asked, meant):
    found = follow_up(asked, STEPS)
    assert found.answer is None
    assert found.question == meant
    assert found.rewritten(asked) == (asked != meant)


def test_politeness_of_either_question_is_no_topic():
    polite = Answer("Could you tell me how many steps the tower has?", STEPS.text, STEPS.hits, STEPS.citations)
    assert follow_up("Please tell me: and who built it?", polite).question == "and who built it? (steps tower)"


def test_without_anything_before_a_question_stands_as_it_is():
    assert follow_up("why?", None).question == "why?"
    unsupported = Answer("Why are there fewer boats now?", "Not found.", Hits(), supported=False)
    assert follow_up("why?", unsupported).question == "why? (fewer boats)"


def test_sample_questions_are_made_of_sentences_then_headings():
    chunks = [
        Chunk("The station was founded on 3 May 1911 by Agnes Thorvald.", context="Handbook > 2 A short history"),
        Chunk("The tower has 142 steps. It was built in 1914.", context="Handbook > 2.1 The tower"),
        Chunk("From 1964 to 1991 they were stored in cellars.", context="Handbook > 1"),
    ]
    assert sample_questions(chunks, 3) == [
        "When was the station founded?", "How many steps does the tower have?", "What is there about “A short history”?",
    ]  # fmt: skip
    assert sample_questions([], 4) == []
