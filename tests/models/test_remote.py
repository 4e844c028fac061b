"""Text models that are services: the real clients speak to a stand-in on this machine; an index never says where to."""

from __future__ import annotations

import ssl

import numpy as np
import pytest

from tests.models.embedding_server import DIM, EmbeddingServer
from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, IndexStateError, RemoteEncoderError
from ultrafast_rag.models.text.remote import MAX_TOKENS, open_remote, price_of, to_text, to_tokens
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.remote.embeddings import OpenAIEmbeddings, seconds_of
from ultrafast_rag.remote.limits import CircuitBreaker, Retry

KEY = "sk-never-shown"
TEXTS = ["The brig Marlin carried salt to Bergen.", "Lighthouses burn rape oil.", "Herring is cured in barrels."]


@pytest.fixture
def settings(service, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDDINGS_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai-alone")
    return {"text_model": "openai:little-embed", "embeddings_base_url": f"{service.url}/v1", "cache_dir": tmp_path / "cache"} | {
        "image_model": None, "speech_model": None, "reader_model": None, "quiet": True
    }  # fmt: skip


def encoder(settings, **options):
    made = open_remote(Config(**settings), **options)
    made._retry = {False: Retry(attempts=3, base_s=0.001), True: Retry(attempts=1)}
    return made


def test_certificates_are_read_once_and_not_for_each_request(monkeypatch):
    made, create = [], ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda: made.append(create()) or made[-1])
    service = OpenAIEmbeddings("m", base_url="https://models.example/v1", key=None, dim=None, timeout_s=1.0)
    assert service._connection()._context is service._connection()._context
    assert len(made) == 1


@pytest.mark.parametrize("text", ["one two", "naïve Größe — 東京 is 1,234.50 €", "supercalifragilistic", "привет мир"])
def test_tokens_spell_the_text_and_fit_the_cache_key(text):
    tokens = to_tokens(text)
    assert to_text(tokens) == text
    assert max(tokens) < 2**31
    assert to_text([*to_tokens("ends."), *to_tokens("Begins")]) == "ends. Begins"


def test_rows_are_unit_length_in_order_and_asked_for_in_batches(service, settings):
    made = encoder(settings)
    texts = [f"{text} number {n}" for n in range(90) for text in TEXTS]
    before = len(service.seen)
    vectors = made.encode(texts)
    assert len(service.seen) - before == 3  # of a hundred at most
    assert vectors.dtype == np.float32
    assert vectors.shape == (270, DIM)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.allclose(vectors[37], made.encode([texts[37]])[0], atol=1e-6)
    assert np.allclose(made.encode_tokens(made.tokenize(texts[:2])), vectors[:2], atol=1e-6)
    assert made.encode([]).shape == (0, DIM)
    made.encode(["word " * 3 * MAX_TOKENS])
    assert len(to_tokens(service.texts()[-1])) == MAX_TOKENS


def test_the_key_goes_to_its_own_server_and_into_no_message(service, settings):
    made = encoder(settings)
    assert {headers["Authorization"] for _, headers, _ in service.seen} == {f"Bearer {KEY}"}  # not OpenAI's
    service.faults += ["401"]
    with pytest.raises(RemoteEncoderError, match="rejected the key from environment variable EMBEDDINGS_API_KEY") as caught:
        made.encode(["a"])
    assert KEY not in f"{caught.value!r} {caught.value.__cause__!r} {made.notes} {made.fingerprint}"
    service.faults += ["500"] * 3
    made._breaker = CircuitBreaker()
    with pytest.raises(RemoteEncoderError) as caught:
        made.encode(["a"])
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("fault", ["429", "500", "cut", "missing", "short", "nan"])
def test_a_fault_that_passes_is_tried_again(service, settings, fault):
    made = encoder(settings)
    good = made.encode(TEXTS)
    service.faults += [fault]
    assert np.array_equal(made.encode(TEXTS), good)
    assert made.totals.retries == 1


def test_what_does_not_pass_is_an_error_and_stops_the_asking(service, settings):
    made = encoder(settings)
    service.faults += ["other size", "redirect"]
    with pytest.raises(RemoteEncoderError, match="vectors of 32 numbers, and 64 are asked for"):
        made.encode(TEXTS)
    with pytest.raises(RemoteEncoderError, match="did not accept the request \\(307\\)"):
        made.encode(TEXTS)
    service.down = True
    with pytest.raises(RemoteEncoderError, match="not available"):
        made.encode(TEXTS)
    asked = len(service.seen)
    with pytest.raises(RemoteEncoderError, match="next try in"):  # a question does not wait for what is known to be down
        made.encode_queries(["a"])
    assert len(service.seen) == asked


@pytest.mark.parametrize("model", ["gemini-embedding-001", "gemini-embedding-2"])
def test_gemini_is_asked_by_its_own_client(service, settings, monkeypatch, model):
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    made = encoder({**settings, "text_model": f"gemini:{model}", "gemini_base_url": service.url, "text_dim": 32})
    vectors = made.encode_queries(TEXTS)
    path, headers, body = service.seen[-1]
    assert path.endswith(f"models/{model}:batchEmbedContents")
    assert {name.lower(): value for name, value in headers.items()}["x-goog-api-key"] == KEY
    assert [(one["taskType"], one["outputDimensionality"]) for one in body["requests"]] == [("RETRIEVAL_QUERY", 32)] * 3
    assert vectors.shape == (3, 32)
    service.faults += ["401"]
    with pytest.raises(RemoteEncoderError, match="rejected the key") as caught:
        made.encode(["a"])
    assert KEY not in str(caught.value)


def test_settings_that_cannot_work_are_refused(settings, monkeypatch):
    with pytest.raises(ConfigError, match="encode='first'"):
        Config(text_model="openai:x", encode="progressive")
    with pytest.raises(ConfigError, match="EMBEDDINGS_API_KEY"):
        open_remote(Config(**{**settings, "embeddings_base_url": "https://me:secret@host/v1"}))
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(RemoteEncoderError, match="OPENAI_API_KEY"):
        open_remote(Config(text_model="openai:x"))
    with pytest.raises(RemoteEncoderError, match="offline"):
        open_remote(Config(text_model="openai:x", offline=True))


def test_prices_come_from_the_table_or_the_setting():
    assert price_of("openai:text-embedding-3-small", 1_000_000, None) == pytest.approx(0.02)
    assert price_of("openai:mine", 1_000_000, None) is None
    assert price_of("openai:mine", 500_000, 0.1) == pytest.approx(0.05)


def test_retry_after_is_read_as_seconds_and_as_a_date():
    assert seconds_of("2.5") == 2.5
    assert seconds_of("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert seconds_of("soon") is None


def test_an_index_of_a_service_is_searched_by_words_where_the_service_is_down(service, settings, tmp_path):
    with UltraFastRAG(tmp_path / "index", **settings) as rag:
        report = rag.add_texts(TEXTS)
        assert report.embedded == 3
        assert rag.search("oil of lighthouses", k=1)[0].text == TEXTS[1]
        assert rag.stats()["encoded_by_service"]["input_tokens"] > 0
        service.down = True
        hits = rag.search("salt to Bergen", k=1)
        assert hits[0].text == TEXTS[0]
        assert "found by words alone" in hits.notes[0]
        answer = rag.query("What did the Marlin carry to Bergen?")
        assert "found by words alone" in answer.notes[0]
        assert "salt" in answer.text
        rag.memory.remember("herring is mine")
        assert rag.memory.recall("herring")
        service.down = False
        rag._models.text().close()  # what it knows of the failure is forgotten
        assert not rag.search("salt to Bergen", k=1).notes
        assert not rag.query("What did the Marlin carry to Bergen?").notes  # nothing of the failure was kept


def test_no_index_makes_this_process_send_anything(service, settings, tmp_path):
    with UltraFastRAG(tmp_path / "index", **settings) as rag:
        rag.add_texts(TEXTS)
    service.seen.clear()
    with pytest.raises(IndexStateError, match="'openai:little-embed', a service that passages and questions are sent to"):
        UltraFastRAG(tmp_path / "index", image_model=None)
    with pytest.raises(IndexStateError, match="service"):
        UltraFastRAG(tmp_path / "index", text_model="openai:another")
    assert not service.seen
    with EmbeddingServer(salt="another model") as elsewhere:
        changed = {**settings, "embeddings_base_url": elsewhere.url}
        with UltraFastRAG(tmp_path / "index", **changed) as rag, pytest.raises(IndexStateError, match="it is another model"):
            rag.search("salt")
    assert not service.seen
    with UltraFastRAG(tmp_path / "index", **settings) as rag:
        assert rag.search("salt", k=1)[0].text == TEXTS[0]
        assert len(service.seen) == 2  # held to the index's vectors, then asked
    with pytest.raises(IndexStateError, match="text_dim=None, not 32"), UltraFastRAG(tmp_path / "index", text_dim=32, **settings):
        pass


def test_what_encoding_would_cost_is_told_before_anything_is_sent(service, settings, tmp_path):
    file = tmp_path / "harbour.md"
    file.write_text("# The harbour\n\n" + " ".join(TEXTS))
    with UltraFastRAG(tmp_path / "index", text_price_usd=0.5, **settings) as rag:
        plan = rag.encode_plan(file, tmp_path / "missing.md")
        assert not service.seen
        assert (plan.passages, len(plan.failed)) == (1, 1)
        assert plan.usd == pytest.approx(plan.tokens * 0.5 / 1e6)
        rag.ingest(file)
        sent = [text for text in service.texts() if "Marlin" in text]
        assert plan.tokens == len(to_tokens(sent[0]))
        assert rag.encode_plan(file).passages == 0  # it is here already
        assert rag.encode_plan().tokens >= plan.tokens
        assert rag.encode_plan(text_model="openai:text-embedding-3-small").usd > 0
        assert rag.stats()["encoded_by_service"]["cost_usd"] > 0


def test_a_first_question_does_not_wait_long_for_a_service_that_is_down(service, settings, tmp_path):
    with UltraFastRAG(tmp_path / "index", **settings) as rag:
        rag.add_texts(TEXTS)
    service.down = True
    with UltraFastRAG(tmp_path / "index", **settings) as rag:
        asked = len(service.seen)
        assert "found by words alone" in rag.search("salt", k=1).notes[0]
        assert len(service.seen) - asked == 2  # where a passage's request would have been sent five times
