"""Answers and enrichment through the facade: the real client against the loopback stand-in."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from ultrafast_rag import Answer, UltraFastRAG
from ultrafast_rag.bench.gemini_server import Server
from ultrafast_rag.errors import ConfigError

KEY = f"canary-key-{uuid.uuid4().hex}"
PUMP = "The bilge pump moves sixteen litres a minute and is tested on Mondays."
BELL = "The fog bell rings twice every thirty seconds when the horn is out of order."


@pytest.fixture
def opened(tmp_path, monkeypatch):
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    made = []

    def open_rag(url=None, **settings):
        given = {"gemini_base_url": url, "gemini_rpm": 6000, "image_model": None, "speech_model": None, "quiet": True}
        key = f"{KEY}-{tmp_path.name}" if url else None  # the day's ledger is kept by key
        rag = UltraFastRAG(tmp_path / "index", gemini_api_key=key, **{**given, **settings})
        rag.add_texts([PUMP, BELL], ids=["pump", "bell"])
        made.append(rag)
        return rag

    yield open_rag
    for rag in made:
        rag.close()


def test_gemini_answers_when_a_key_is_there_and_says_so(opened):
    with Server() as server:
        rag = opened(server.url)
        answer = rag.query("How much does the bilge pump move?")
    assert answer.text == "Sixteen litres [1]."
    assert answer.generator.startswith("gemini:")
    assert answer.citations[0].hit.document_id == "pump"
    assert "key was found" in answer.reason
    assert answer.cost_usd > 0
    assert rag.stats()["spent"]["requests"] == 1
    assert KEY not in f"{answer} {answer._repr_html_()} {rag.stats()} {rag!r}"


def test_a_spent_day_is_answered_extractively_and_says_why(opened):
    with Server(schedule=lambda number, body: "429-day") as server:
        answer = opened(server.url).query("How much does the bilge pump move?")
        assert len(server.seen) == 1
    assert "sixteen litres" in answer.text
    assert answer.generator == "extractive"
    assert any("was not used" in note for note in answer.notes)


def test_without_key_or_model_the_answer_is_extractive_and_the_reason_is_told(opened):
    answer = opened().query("How much does the bilge pump move?")
    assert "sixteen litres" in answer.text
    assert "no Gemini key was found" in answer.reason
    with pytest.raises(ConfigError, match="GEMINI_API_KEY"):
        opened().query("How much does the bilge pump move?", generator="gemini")


def test_any_function_may_answer(opened):
    async def pirate(question, hits):
        return f"Arr, {hits[0].text} [1]"

    rag = opened()
    answer = rag.query("How much does the bilge pump move?", generator=pirate)
    assert answer.text.startswith("Arr, The bilge pump")
    assert answer.generator == "custom:pirate"
    assert rag.query("How much does the bilge pump move?").generator == "extractive"


def test_an_answer_streams_and_ends_with_itself(opened):
    async def collect(rag):
        return [piece async for piece in rag.astream("How much does the bilge pump move?")]

    with Server(pieces=4) as server:
        *pieces, answer = asyncio.run(collect(opened(server.url)))
    assert "".join(pieces) == answer.text
    assert isinstance(answer, Answer)
    assert pieces


def test_enrichment_makes_a_passage_findable_by_what_the_model_said_of_it(opened):
    form = '{"caption": "", "summary": "Audible navigation aid", "keywords": ["carillon"], "questions": []}'
    with Server(reply=lambda body: form if "bell" in str(body) else '{"summary": "A pump"}') as server:
        rag = opened(server.url)
        assert rag.enrich_plan().chunks == 2
        report = rag.enrich()
        assert (report.done, report.complete) == (2, True)
        hits = rag.search("carillon", k=1, alpha=0)
        assert hits[0].document_id == "bell"
        assert hits[0].text == BELL
        again = rag.enrich()
        assert (again.done, again.cached, len(server.seen)) == (0, 2, 2)
    assert len(rag.documents()) == 2
    assert rag.delete("bell")
    assert not rag.search("carillon", k=5, alpha=0)


def test_enrichment_without_a_key_says_what_to_do(opened):
    with pytest.raises(ConfigError, match="GEMINI_API_KEY"):
        opened().enrich()


def test_the_reader_opens_ahead_only_where_no_model_writes(opened):
    with Server() as server:
        rag = opened(server.url)
        rag.query("How much does the bilge pump move?")
        assert "reader" not in {use.name for use in rag._models.use()}
        rag.query("How much does the bilge pump move?", generator="extractive")
        assert "reader" in {use.name for use in rag._models.use()}
