"""Its gates, its budget, its scopes; and a real index that answers in other words."""

from __future__ import annotations

import numpy as np
import pytest

from ultrafast_rag import Config, UltraFastRAG
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.search.semantic_cache import SemanticCache

TEXT_ONLY = {"image_model": None, "speech_model": None, "quiet": True}


def encode(questions):
    """Everything about a harbour is alike."""
    rows = np.array([[1.0, 0.1 * question.count("deep")] if "harbour" in question else [0.0, 1.0] for question in questions])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def cache():
    made = SemanticCache(encode, clock=lambda: 0.0)
    made.put("How deep is the harbour?", "index 1", ["40 metres"])
    return made


def test_another_wording_hits_and_another_question_does_not(cache):
    found = cache.get("What is the depth of the harbour?", "index 1")
    assert (found.value, found.asked) == (["40 metres"], "How deep is the harbour?")
    assert found.cosine > 0.99
    found.value.clear()
    assert cache.get("What is the depth of the harbour?", "index 1").value == ["40 metres"]
    assert cache.get("How deep was the harbour in 1904?", "index 1") is None
    assert cache.get("How deep is the well?", "index 1") is None
    assert cache.get("What is the depth of the harbour?", "index 2") is None
    assert cache.get_stats()["refused"] == {"other numbers": 1}


def test_the_last_gate_looks_at_the_answer():
    cache = SemanticCache(encode, fits=lambda question, value: "depth" not in question)
    cache.put("How deep is the harbour?", "s", 1)
    assert cache.get("What is the depth of the harbour?", "s") is None
    assert cache.get_stats()["refused"] == {"the answer does not fit": 1}


def test_entries_end_with_their_time_and_make_room():
    now = [0.0]
    cache = SemanticCache(encode, ttl_s=10, entries=1, clock=lambda: now[0])
    cache.put("How deep is the harbour?", "s", 1)
    now[0] = 10.0
    assert cache.get("What is the depth of the harbour?", "s") is None
    cache.put("How deep is the harbour?", "s", 1)
    cache.put("How deep is the well?", "s", 2)
    assert cache.get("What is the depth of the harbour?", "s") is None


def test_feedback_above_the_budget_switches_it_off_until_it_is_cleared(cache):
    asked = "What is the depth of the harbour?"
    cache.feedback(asked, False)  # not answered from here yet
    for _ in range(150):
        cache.get(asked, "index 1")
    cache.feedback(asked, False)
    cache.feedback("How deep is the well?", False)
    assert not cache.off
    cache.feedback(asked, False)
    assert cache.off.startswith("2 of 150 answers")
    assert cache.get(asked, "index 1") is None
    assert cache.get_stats()["wrong_rate"] == pytest.approx(2 / 150)
    cache.invalidate()
    assert not cache.off
    with pytest.raises(ConfigError):
        SemanticCache(encode, budget=2)


def test_an_index_gives_an_answer_again_says_so_and_forgets_with_a_commit(tmp_path):
    config = Config(semantic_cache=True, **TEXT_ONLY)
    with UltraFastRAG(tmp_path / "index", config=config) as rag:
        rag.add_texts(["The harbour of Kellow Point is 40 metres deep.", "The mill was sold in 1904 to Ivo Brandt."])
        first = rag.query("How deep is the harbour of Kellow Point?")
        assert "40 metres" in first.text
        again = rag.query("What is the depth of the harbour of Kellow Point?")
        assert again.cached
        assert again.text == first.text
        assert "means the same" in again.notes[-1]
        assert again.question == "What is the depth of the harbour of Kellow Point?"
        assert not rag.query("How wide is the harbour of Kellow Point?").cached
        for _ in range(2):
            rag.feedback(again.question, None, -1)
        assert rag.stats()["semantic_cache"]["off"]
        rag.semantic_cache.invalidate()
        rag.query("How deep is the harbour of Kellow Point?")
        rag.add_texts(["The harbour of Kellow Point was dredged to 50 metres depth."])
        assert not rag.query("What is the depth of the harbour of Kellow Point?").cached


def test_it_is_off_by_default(tmp_path):
    with UltraFastRAG(tmp_path / "index", config=Config(**TEXT_ONLY)) as rag:
        rag.add_texts(["The harbour of Kellow Point is 40 metres deep."])
        rag.query("How deep is the harbour of Kellow Point?")
        assert not rag.query("What is the depth of the harbour of Kellow Point?").cached
        assert "semantic_cache" not in rag.stats()
