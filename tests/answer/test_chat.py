"""A conversation over a real index: remembers, recalls, forgets, survives a restart."""

from __future__ import annotations

import asyncio
import tarfile

import pytest

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.answer.memory import FILE
from ultrafast_rag.errors import ConfigError

TEXT_ONLY = {"image_model": None, "speech_model": None, "quiet": True}
FACTS = [
    "The X200 pump takes mineral oil of grade 46, changed every 500 hours.",
    "The lamp of Kellow Point burns colza oil since 1871.",
    "Neap tides come a week after spring tides; the range falls to 2.1 metres.",
]


@pytest.fixture
def rag(tmp_path):
    with UltraFastRAG(tmp_path / "index", **TEXT_ONLY) as rag:
        rag.add_texts(FACTS)
        yield rag


def test_what_the_person_said_is_a_source_and_is_cited_as_that(rag):
    chat = rag.chat()
    assert not chat.ask("Which pump stands in our boathouse?").answer.supported
    told = chat.ask("Please remember that the pump in our boathouse is the X200.")
    assert told.answer.text == "I will remember: the pump in our boathouse is the X200."
    reply = chat.ask("Which pump stands in our boathouse?")
    assert "the pump in our boathouse is the X200" in reply.answer.text
    assert reply.answer["sources"][0] == "what you told me"
    assert reply.answer.citations[0].hit.chunk_id < 0
    assert reply.answer._repr_html_()  # evidence of what is no chunk is none
    assert repr(chat) == "Chat('default'; ask it by chat.ask(...))"
    assert chat.ask("What does the lamp of Kellow Point burn?").answer["sources"][0] != "what you told me"


def test_a_conversation_survives_a_restart_and_forgets_on_request(tmp_path):
    with UltraFastRAG(tmp_path / "index", **TEXT_ONLY) as rag:
        rag.add_texts(FACTS)
        chat = rag.chat("harbour")
        chat.ask("What does the lamp of Kellow Point burn?")
        chat.remember("Our keeper is called Ivo Brandt.")
    with UltraFastRAG(tmp_path / "index", **TEXT_ONLY) as rag:
        chat = rag.chat("harbour")
        assert [turn.metadata["question"] for turn in chat.history] == ["What does the lamp of Kellow Point burn?"]
        assert rag.chat("other").history == []
        earlier = chat.ask("Which oil does the lamp at Kellow Point burn?").recalled
        assert "colza" in earlier[0].text
        assert "Ivo Brandt" in chat.ask("What is our keeper called?").answer.text
        assert chat.ask("Forget what I said about our keeper.").answer.text.startswith("Forgotten: ")
        assert not any("Brandt" in memory.text for memory in rag.memory.memories())
        assert "Brandt" not in chat.ask("What is our keeper called?").answer.text
        assert any("colza" in memory.text for memory in rag.memory.memories())
        chat.ask("forget everything")
        assert rag.memory.memories() == []


def test_earlier_answers_are_sources_only_where_the_question_looks_back(rag):
    chat = rag.chat()
    seen = []

    def writer(question, hits):
        seen.append([hit.source for hit in hits])
        return "Grade 46 [1]."

    chat.ask("Which oil does the X200 pump take?", generator=writer)
    chat.ask("Which oil does that X200 pump take?", generator=writer)
    assert "what was answered earlier" not in seen[-1]
    chat.ask("What did we find about the oil of the X200 pump?", generator=writer)
    assert "what was answered earlier" in seen[-1]


def test_a_question_that_leans_on_the_last_is_understood_also_after_a_restart(tmp_path):
    with UltraFastRAG(tmp_path / "index", **TEXT_ONLY) as rag:
        rag.add_texts(FACTS)
        rag.chat().ask("What does the lamp of Kellow Point burn?")
    with UltraFastRAG(tmp_path / "index", **TEXT_ONLY) as rag:
        reply = rag.chat().ask("and since when?")
        assert reply.meant == "and since when? (lamp Kellow Point burn)"
        assert "1871" in reply.answer.text
        assert rag.chat(follow_ups=False).ask("and since when?").meant == "and since when?"
        assert rag.chat("another").ask("and since when?").meant == "and since when?"


def test_a_streamed_turn_is_remembered_and_its_findings_are_recalled(rag):
    chat = rag.chat()
    (*_, answer) = chat.stream("What does the lamp of Kellow Point burn?")
    assert "colza" in answer.text
    assert [turn.metadata["question"] for turn in chat.history] == ["What does the lamp of Kellow Point burn?"]
    (*_, answer) = chat.stream("Which oil does the lamp at Kellow Point burn?")
    assert any("earlier, to “What does the lamp" in note for note in answer.notes)
    (told,) = chat.stream("forget everything")
    assert told.text.startswith("Forgotten: 2")
    unread = chat.stream("What does the lamp of Kellow Point burn?")
    unread.close()  # left before its end: not remembered
    assert chat.history == []


def test_a_question_that_begins_with_remember_is_a_question(rag):
    reply = rag.chat().ask("Remember what the lamp of Kellow Point burns?")
    assert reply.answer.generator != "memory"
    assert rag.memory.memories(kind="note") == []


def test_memories_are_in_no_archive(rag, tmp_path):
    rag.chat().remember("My telephone number is 555-0199.")
    rag.export(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert FILE not in archive.getnames()
    assert (tmp_path / "index" / FILE).exists()


def test_it_works_inside_a_running_loop_and_without_a_folder():
    with UltraFastRAG(**TEXT_ONLY) as rag:
        rag.add_texts(FACTS)
        chat = rag.chat()
        assert "2.1 metres" in str(asyncio.run(chat.aask("To what does the range fall at neap tides?")))
        with pytest.raises(ConfigError, match="empty"):
            chat.ask(" ")
