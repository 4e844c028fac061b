"""What may and what may not count as the same question; and our own pairs, by half."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ultrafast_rag.language.sameness import differs

PAIRS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "data/questions/pairs.jsonl").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ("What is the range at 400 metres?", "What is the range at 800 metres?", "other numbers"),
        ("How do I open two files?", "How do I open three files?", "other numbers"),
        ("Can I swim with shoes?", "Can I swim without shoes?", "a word that turns it round"),
        ("Is the gate open?", "Isn't the gate open?", "a word that turns it round"),
        ("Who paid Anna Berg?", "Who did Anna Berg pay?", "other roles"),
        ("Was Oslo founded by Bergen?", "Did Oslo found Bergen?", "other roles"),
        ("Is Oslo older than Bergen?", "Is Bergen older than Oslo?", "other roles"),
        ("When was the mill sold?", "Where was the mill sold?", "another question word"),
        ('What does "tide" mean?', 'What does "wave" mean?', "other quotations"),
        ("How deep is the harbour?", "How deep is the well?", "other words: harbour, well"),
        ("Wie tief ist der Hafen?", "Wie tief ist der Hafen denn?", "not English"),
    ],
)
def test_what_could_change_the_answer_is_a_difference(first, second, why):
    assert differs(first, second) == why
    assert differs(second, first) != ""


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("How deep is the harbour?", "What is the depth of the harbour?"),
        ("When was the mill sold?", "In which year was the mill sold?"),
        ("Who repaired the lamp?", "By whom was the lamp repaired?"),
        ("How many boats does the harbour have?", "What is the number of boats in the harbour?"),
        ("What was the harbour's income in 1904?", "What was the income of the harbour in 1904?"),
        ("How do I turn on the pump?", "How do I enable the pump?"),
    ],
)
def test_the_same_in_other_words_is_the_same(first, second):
    assert differs(first, second) == differs(second, first) == ""


def test_our_pairs_are_a_hundred_and_fifty_groups_of_two():
    groups = {}
    for pair in PAIRS:
        groups.setdefault(pair["group"], []).append(pair["same"])
    assert len(groups) == 150
    assert all(sorted(both) == [False, True] for both in groups.values())
    assert len({(pair["asked"], pair["then"]) for pair in PAIRS}) == 300


@pytest.mark.parametrize("half", [0, 1])
def test_no_trap_passes_the_rules_in_either_half(half):
    passed = [pair for pair in PAIRS if pair["group"] % 2 == half and not differs(pair["asked"], pair["then"])]
    assert [pair for pair in passed if not pair["same"]] == []
    assert len(passed) >= (35 if half else 30)  # of 75
