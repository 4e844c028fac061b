"""Order, errors, cancelling, stopping; memory and disk; our encoder and any other."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from ultrafast_rag import BatchEmbedder, UltraFastRAG
from ultrafast_rag.errors import ConfigError, EncodingError
from ultrafast_rag.index.embedding_cache import EmbeddingCache


class Counting:
    """An encoder of lists only: a vector tells its text; it notes its calls and refuses "poison"."""

    fingerprint = "counting|1"

    def __init__(self):
        self.calls = []
        self.gate = threading.Event()
        self.gate.set()

    def encode(self, texts):
        assert type(texts) is list
        self.gate.wait(30)
        self.calls.append(list(texts))
        if "poison" in texts:
            raise ValueError("bad text")
        return [[0.0, 0.0] if text == "zero" else [float(len(text)), float(sum(map(ord, text)))] for text in texts]


def vector(text):
    return [float(len(text)), float(sum(map(ord, text)))]


@pytest.fixture
def encoder():
    return Counting()


@pytest.fixture
def embedder(encoder):
    made = BatchEmbedder(encoder, wait_ms=20)
    yield made
    made.close()


async def test_order_is_kept_and_each_text_is_encoded_once(embedder, encoder):
    texts = ["b", "a", "b", "ccc", "a"]
    assert (await embedder.embed_batch(texts)).tolist() == [vector(text) for text in texts]
    assert encoder.calls == [["b", "a", "ccc"]]
    assert (await embedder.embed_text("ccc")).tolist() == vector("ccc")
    assert len(encoder.calls) == 1
    assert (await embedder.embed_batch([])).shape == (0, 0)


async def test_what_is_given_out_is_a_copy(embedder):
    first = await embedder.embed_text("a")
    first[:] = 7
    again = await embedder.embed_batch(["a"])
    again[:] = 8
    assert (await embedder.embed_text("a")).tolist() == vector("a")


async def test_the_queue_gathers_what_is_asked_at_once(embedder, encoder):
    await embedder.start_background_processor()
    texts = [f"text {number}" for number in range(200)]
    vectors = await asyncio.gather(*(embedder.embed_text(text) for text in texts))
    await embedder.stop_background_processor()
    assert [row.tolist() for row in vectors] == [vector(text) for text in texts]
    assert [len(call) for call in encoder.calls] == [64, 64, 64, 8]


async def test_an_error_reaches_only_who_asked(embedder):
    await embedder.start_background_processor()
    asked = ["a", "poison", "b", "zero", "c"]
    results = await asyncio.gather(*(embedder.embed_text(text) for text in asked), return_exceptions=True)
    assert [r.tolist() for r in (results[0], results[2], results[4])] == [vector(text) for text in "abc"]
    assert isinstance(results[1], EncodingError)
    assert isinstance(results[3], EncodingError)
    assert "zero" in str(results[3])
    await embedder.stop_background_processor()


async def test_cancelling_one_takes_nothing_from_the_others(embedder, encoder):
    encoder.gate.clear()
    await embedder.start_background_processor()
    tasks = [asyncio.create_task(embedder.embed_text(text)) for text in "abc"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    encoder.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [results[0].tolist(), results[2].tolist()] == [vector("a"), vector("c")]
    assert isinstance(results[1], asyncio.CancelledError)
    assert encoder.calls == [["a", "c"]]
    await embedder.stop_background_processor()


async def test_stopping_answers_what_was_asked_and_is_itself_cancel_safe(encoder):
    embedder = BatchEmbedder(encoder, wait_ms=60_000)
    await embedder.start_background_processor()
    tasks = [asyncio.create_task(embedder.embed_text(text)) for text in ("a", "b")]
    await asyncio.sleep(0)
    impatient = asyncio.create_task(embedder.stop_background_processor())
    await asyncio.sleep(0)
    impatient.cancel()
    assert [row.tolist() for row in await asyncio.gather(*tasks)] == [vector("a"), vector("b")]
    await embedder.stop_background_processor()
    assert (await embedder.embed_text("later")).tolist() == vector("later")
    await embedder.start_background_processor()  # and again
    await embedder.stop_background_processor()
    embedder.close()


def test_a_loop_that_ends_leaves_the_embedder_usable_from_another(embedder):
    async def start_and_leave():
        await embedder.start_background_processor()
        return await embedder.embed_text("a")

    assert asyncio.run(start_and_leave()).tolist() == vector("a")
    assert asyncio.run(start_and_leave()).tolist() == vector("a")
    assert asyncio.run(embedder.embed_text("b")).tolist() == vector("b")


async def test_the_disk_cache_outlives_the_embedder(tmp_path):
    class Unit(Counting):
        def encode(self, texts):
            rows = np.array(super().encode(texts))
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    encoder = Unit()
    for _ in range(2):
        cache = EmbeddingCache(tmp_path, size_gb=0.1)
        embedder = BatchEmbedder(encoder, cache=cache)
        found = await embedder.embed_batch(["a", "bb"])
        wanted = np.array([vector("a"), vector("bb")])
        assert np.allclose(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-3)  # float16 on disk
        embedder.close()
        cache.close()
    assert encoder.calls == [["a", "bb"]]
    assert embedder.get_stats()["hits"] == 2


async def test_vectors_of_other_lengths_are_not_shortened_by_the_disk(tmp_path, encoder):
    for _ in range(2):
        cache = EmbeddingCache(tmp_path, size_gb=0.1)
        embedder = BatchEmbedder(encoder, cache=cache)
        assert (await embedder.embed_text("abc")).tolist() == vector("abc")
        embedder.close()
        cache.close()
    assert encoder.calls == [["abc"], ["abc"]]


async def test_stats_count_hits_misses_and_batches(embedder):
    await embedder.embed_batch(["a", "b", "a"])
    await embedder.embed_text("a")
    stats = embedder.get_stats()
    assert stats.pop("mean_ms") > 0
    assert stats == {
        "hits": 2,
        "misses": 2,
        "hit_rate": 0.5,
        "total": 4,
        "batches": 1,
        "mean_batch_size": 2.0,
        "queue_length": 0,
        "entries": 2,
    }


async def test_memory_keeps_the_latest_used(encoder):
    embedder = BatchEmbedder(encoder, entries=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await embedder.embed_text(text)
    assert encoder.calls == [["a"], ["b"], ["c"], ["b"]]
    embedder.close()


async def test_misuse_is_told(embedder):
    with pytest.raises(ConfigError, match="only texts"):
        await embedder.embed_batch(["a", 3])
    with pytest.raises(ConfigError, match="a list of texts"):
        await embedder.embed_batch("abc")
    with pytest.raises(ConfigError, match="batch_size"):
        BatchEmbedder(Counting(), batch_size=0)
    with pytest.raises(ConfigError, match="fingerprint"):
        BatchEmbedder(type("Plain", (), {"encode": lambda self, texts: texts})(), cache=object())

    class Short:
        def encode(self, texts):
            return [[1.0]]

    with pytest.raises(EncodingError, match="shape"):
        await BatchEmbedder(Short()).embed_batch(["a", "b"])


async def test_our_encoder_gives_the_vectors_that_it_gives_alone(tmp_path):
    texts = ["The lamp burns oil.", "Neap tides come a week later.", "A boat."]
    with UltraFastRAG(tmp_path / "index", image_model=None, speech_model=None, cache_embeddings=False, quiet=True) as rag:
        embedder = rag.embedder()
        await embedder.start_background_processor()
        found = np.stack(await asyncio.gather(*(embedder.embed_text(text) for text in texts)))
        await embedder.stop_background_processor()
        embedder.close()
        assert (found * rag._models.text().encode(texts)).sum(axis=1) == pytest.approx(1, abs=0.005)  # int8 differs by batch
