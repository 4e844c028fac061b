"""One contract for every vector store, ours included; and the leg that asks one instead of our own index."""

from __future__ import annotations

import functools
import importlib
import logging

import numpy as np
import pytest
import stand_ins

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.bench.qdrant_server import QdrantServer
from ultrafast_rag.errors import ConfigError, IndexStateError, VectorStoreError
from ultrafast_rag.index.stores import open_store
from ultrafast_rag.index.stores.faiss import FaissStore
from ultrafast_rag.remote.secrets import Secret
from ultrafast_rag.types import Point

pytest.importorskip("qdrant_client", reason="the qdrant extra is not installed")
from ultrafast_rag.index.stores.batches import BATCH
from ultrafast_rag.index.stores.qdrant import QdrantStore

DIM = 32
TEXT_ONLY = {"image_model": None, "speech_model": None, "quiet": True}


def vectors(n, seed=0):
    made = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def points(n, seed=0):
    return [
        Point(number, vector, {"kind": "even" if number % 2 == 0 else "odd", "shelf": number % 10})
        for number, vector in enumerate(vectors(n, seed), 1)
    ]


@pytest.fixture(scope="module")
def server():
    with QdrantServer() as server:
        yield server


@pytest.fixture(scope="module")
def chroma_url(tmp_path_factory):
    with stand_ins.chroma_server(tmp_path_factory.mktemp("chroma")) as url:
        yield url


def store_class(name):
    """The class of a store, or a skip where its package is not installed."""
    pytest.importorskip({"chroma": "chromadb"}.get(name, name), reason=f"the {name} extra is not installed")
    module = importlib.import_module(f"ultrafast_rag.index.stores.{name}")
    return getattr(module, f"{name.title()}Store")


@pytest.fixture
def pinecone():
    """An index of Pinecone's: the store's arguments, and the stand-in behind them."""
    stand_in = stand_ins.Pinecone()
    with stand_ins.HttpServer(stand_in.answer) as server:
        yield {"url": server.url, "key": Secret("right-key", "a test"), "timeout_s": 10}, stand_in


@pytest.fixture
def weaviate():
    """A server of Weaviate's: the store's arguments, and the stand-in behind them."""
    pytest.importorskip("weaviate", reason="the weaviate extra is not installed")
    from weaviate_stand_in import serving

    with serving() as (stand_in, http, grpc_url):
        yield {"url": http.url, "grpc_url": grpc_url, "key": Secret("right-key", "a test"), "timeout_s": 10}, stand_in


KINDS = ("faiss", "qdrant in memory", "qdrant over http", "chroma in memory", "chroma in a folder", "chroma over http",
         "pinecone", "weaviate")  # fmt: skip


@pytest.fixture(params=KINDS)
def opened(request, tmp_path):
    """A function that opens the same collection, the first time and again."""
    stores, (name, *where) = [], request.param.split(" ", 1)
    plain = {"url": None, "key": None, "timeout_s": 10}

    def opening(dim=DIM):
        if name == "faiss":
            store = FaissStore(tmp_path / "points", dim)
        elif name == "qdrant":
            url = request.getfixturevalue("server").url if where == ["over http"] else None
            store = QdrantStore(tmp_path.name, dim, **{**plain, "url": url})
        elif name in ("pinecone", "weaviate"):
            store = store_class(name)("contract", dim, **request.getfixturevalue(name)[0])
        else:
            url = request.getfixturevalue("chroma_url") if where == ["over http"] else None
            folder = tmp_path / "chroma" if where == ["in a folder"] else None
            store = store_class("chroma")(tmp_path.name, dim, **{**plain, "url": url}, folder=folder)
        stores.append(store)
        return store

    yield opening
    for store in stores:
        store.close()


def test_what_was_added_is_found_by_cosine_best_first(opened):
    store, rows = opened(), vectors(50)
    store.add(points(50))
    found = store.search(rows[6], 5)
    exact = rows @ rows[6]
    assert [near.id for near in found] == (np.argsort(-exact)[:5] + 1).tolist()
    assert [near.score for near in found] == pytest.approx(np.sort(exact)[::-1][:5].tolist(), abs=2e-3)
    assert found[0].payload == {"kind": "odd", "shelf": 7}
    assert store.ids() == set(range(1, 51))
    assert len(store.search(rows[0], 500)) == 50


def test_filters_narrow_by_value_and_by_any_of_several(opened):
    store, rows = opened(), vectors(50)
    store.add(points(50))
    assert {near.id % 2 for near in store.search(rows[0], 50, filters={"kind": "odd"})} == {1}
    both = store.search(rows[0], 50, filters={"kind": "even", "shelf": [2, 3, 4]})
    assert {near.id for near in both} == {number for number in range(1, 51) if number % 10 in (2, 4)}
    assert not store.search(rows[0], 5, filters={"kind": "none"})


def test_adding_again_changes_nothing_and_another_vector_replaces(opened):
    store, rows = opened(), vectors(20)
    store.add(points(20))
    store.add(points(20))
    assert store.ids() == set(range(1, 21))
    store.add([Point(3, rows[0], {"kind": "new"})])
    assert {near.id for near in store.search(rows[0], 2)} == {1, 3}
    assert [(near.id, dict(near.payload)) for near in store.search(rows[0], 5, filters={"kind": "new"})] == [(3, {"kind": "new"})]
    assert store.ids() == set(range(1, 21))


def test_deleted_points_are_gone_and_unknown_ones_passed_over(opened):
    store, rows = opened(), vectors(20)
    store.add(points(20))
    store.delete([1, 2, 999])
    assert store.ids() == set(range(3, 21))
    assert not {near.id for near in store.search(rows[0], 20)} & {1, 2}


def test_a_reopened_store_has_its_points_where_it_says_it_keeps_them(opened):
    store, rows = opened(), vectors(20)
    store.add(points(20))
    store.close()
    again = opened()
    assert again.ids() == (set(range(1, 21)) if "persistent" in again.capabilities else set())
    if "persistent" in again.capabilities:
        assert again.search(rows[4], 1)[0].id == 5
        again.delete([5])
        again.close()
        with pytest.raises(IndexStateError, match="numbers, not 7"):
            opened(7)


def test_another_dimension_is_refused(opened):
    store = opened()
    with pytest.raises(ConfigError, match="7 numbers, not 32"):
        store.add([Point(1, np.ones(7, np.float32))])
    assert store.ids() == set()


def test_words_are_asked_where_they_are_taken_and_refused_elsewhere(opened):
    store, rows = opened(), vectors(20)
    if "words" not in store.capabilities:
        with pytest.raises(ConfigError, match="capabilities"):
            store.search(rows[0], 3, words=[(7, 1.0)])
        with pytest.raises(ConfigError, match="capabilities"):
            store.add([Point(1, rows[0], {}, [(7, 1.0)])])
        return
    store.add([Point(number, row, {}, [(number % 5, 1.0)]) for number, row in enumerate(rows, 1)])
    alone = [near.id for near in store.search(rows[0], 20)]
    if "alpha" not in store.capabilities:
        with pytest.raises(ConfigError, match="alpha"):
            store.search(rows[0], 3, words=[(7, 1.0)], alpha=0.5)
    found = [near.id for near in store.search(rows[0], 4, words=[(alone[-1] % 5, 1.0)])]
    assert {number for number in found if number % 5 == alone[-1] % 5} - set(alone[:4])


def test_ten_thousand_vectors_are_kept_and_found(opened):
    store, rows = opened(), vectors(10_000)
    store.add(points(10_000))
    assert len(store.ids()) == 10_000
    for number in (0, 4_321, 9_999):
        assert store.search(rows[number], 1)[0].id == number + 1


# ---- a server, and what can be wrong with one


def test_a_server_is_told_to_quantize_rescore_and_index_and_local_mode_claims_none_of_it(server, caplog):
    store = QdrantStore("told", DIM, url=server.url, key=None, timeout_s=10)
    store.search(vectors(1)[0], 3)
    asked = {(method, path): body for method, path, body in server.asked if path.startswith("/collections/told")}
    made = asked["PUT", "/collections/told"]
    assert made["quantization_config"]["scalar"]["type"] == "int8"
    how = asked["POST", "/collections/told/points/query"]["params"]["quantization"]
    assert (how["rescore"], how["oversampling"]) == (True, 2.0)
    assert ("PUT", "/collections/told/index") in asked
    assert {"int8", "parallel", "persistent"} <= store.capabilities
    store.close()
    with caplog.at_level(logging.WARNING):
        local = QdrantStore("told", DIM, url=None, key=None, timeout_s=10, int8=True)
    assert "ignores quantization" in caplog.text
    assert not {"int8", "parallel", "persistent"} & local.capabilities
    local.close()


def test_batches_of_64_are_sent_again_when_the_server_fails_for_a_moment(server, monkeypatch):
    monkeypatch.setattr("ultrafast_rag.index.stores.batches.PAUSE_S", 0.001)
    store = QdrantStore("again", DIM, url=server.url, key=None, timeout_s=10)
    before = len(server.asked)
    server.fail[:] = [2, 503]
    store.add(points(200))
    sent = [len(body["points"]) for method, path, body in server.asked[before:] if path.endswith("/points")]
    assert store.ids() == set(range(1, 201))
    assert (len(sent), max(sent)) == (4 + 2, BATCH)
    server.fail[:] = [100, 400]
    with pytest.raises(VectorStoreError, match="refused") as error:
        store.add(points(1))
    assert (error.value.transient, server.fail[0]) == (False, 99)
    server.fail[:] = [0, 0]
    store.close()


def test_a_wrong_key_an_absent_and_a_slow_server_are_errors_that_say_so():
    with QdrantServer(key="right-key") as locked:
        with pytest.raises(VectorStoreError, match="QDRANT_API_KEY") as error:
            QdrantStore("x", DIM, url=locked.url, key=Secret("wrong-key", "a test"), timeout_s=10)
        assert "wrong-key" not in str(error.value)
        store = QdrantStore("x", DIM, url=locked.url, key=Secret("right-key", "a test"), timeout_s=1)
        locked.delay.clear()
        with pytest.raises(VectorStoreError, match="too slow"):
            store.search(vectors(1)[0], 1)
        locked.delay.set()
        store.close()
        address = locked.url
    with pytest.raises(VectorStoreError, match="cannot be reached"):
        QdrantStore("x", DIM, url=address, key=None, timeout_s=10)
    with pytest.raises(ConfigError, match="no vector store"):
        open_store("milvus", "x", DIM)


REMOTE = {"chroma": {"folder": None}, "pinecone": {}, "weaviate": {}}


@pytest.mark.parametrize("name", REMOTE)
def test_a_stores_own_client_meets_a_wrong_key_a_slow_and_an_absent_server(name):
    opening = functools.partial(store_class(name), "contract", DIM, **REMOTE[name])
    with stand_ins.refusing() as door:
        with pytest.raises(VectorStoreError, match=f"{name.upper()}_API_KEY") as error:
            opening(url=door.url, key=Secret("wrong-key", "a test"), timeout_s=10)
        assert ("wrong-key" in str(error.value), error.value.transient) == (False, False)
        door.open.clear()
        with pytest.raises(VectorStoreError, match="too slow"):
            opening(url=door.url, key=Secret("wrong-key", "a test"), timeout_s=0.2)
    with pytest.raises(VectorStoreError, match="cannot be reached"):
        opening(url=door.url, key=Secret("wrong-key", "a test"), timeout_s=10)


def test_pinecone_weighs_meaning_against_words_by_alpha_and_says_when_its_index_takes_no_words(pinecone):
    opening, stand_in = functools.partial(store_class("pinecone"), "contract", DIM, **pinecone[0]), pinecone[1]
    store, rows = opening(), vectors(20)
    store.add([Point(number, row, {"page": None}, [(number, 1.0)]) for number, row in enumerate(rows, 1)])
    far = [near.id for near in store.search(rows[0], 20)][-1]
    for alpha, first in ((1.0, 1), (0.9, 1), (0.1, far), (0.0, far)):
        assert store.search(rows[0], 1, words=[(far, 1.0)], alpha=alpha)[0].id == first
    with pytest.raises(ConfigError, match="between 0 and 1"):
        store.search(rows[0], 1, words=[(far, 1.0)], alpha=1.5)
    with pytest.raises(ConfigError, match="PINECONE_URL"):
        store_class("pinecone")("contract", DIM, url=None, key=None, timeout_s=1)
    stand_in.about["metric"] = "cosine"
    assert not {"words", "alpha"} & opening().capabilities


def test_weaviate_weighs_meaning_against_words_by_alpha_and_keeps_text_fields_whole(weaviate):
    store, rows = store_class("weaviate")("contract", DIM, **weaviate[0]), vectors(20)
    store.add(
        [Point(number, row, {"place": f"Far {number}", "page": None}, [(number, 2.4)]) for number, row in enumerate(rows, 1)]
    )
    far = [near.id for near in store.search(rows[0], 20)][-1]
    for alpha, first in ((1.0, 1), (0.9, 1), (0.1, far), (0.0, far)):
        found = store.search(rows[0], 1, words=[(far, 1.0)], alpha=alpha)[0]
        assert (found.id, dict(found.payload)) == (first, {"place": f"Far {first}"})
    declared = {each["name"]: each["tokenization"] for each in weaviate[1].schema["Ufr_contract"]["properties"]}
    assert declared == {"words": "whitespace", "place": "field"}
    with pytest.raises(ConfigError, match="does not take nest"):
        store.add([Point(99, rows[0], {"nest": {"in": 1}})])
    weaviate[1].fail[0] = 100
    with pytest.raises(VectorStoreError, match="Weaviate"):
        store.search(rows[0], 1)
    weaviate[1].fail[0] = 0
    with pytest.raises(ConfigError, match="WEAVIATE_URL"):
        store_class("weaviate")("contract", DIM, url=None, key=None, timeout_s=1)
    store.close()


def test_pinecones_batches_are_sent_again_by_its_client_and_not_by_us_too(pinecone):
    store, stand_in = store_class("pinecone")("contract", DIM, **pinecone[0]), pinecone[1]
    stand_in.fail[:] = [2, 503]
    store.add(points(200))
    assert (store.ids(), stand_in.fail[0]) == (set(range(1, 201)), 0)
    stand_in.fail[:] = [100, 503]
    with pytest.raises(VectorStoreError, match="refused") as error:
        store.add(points(1))
    assert (error.value.transient, stand_in.fail[0]) == (True, 96)
    stand_in.fail[:] = [100, 400]
    with pytest.raises(VectorStoreError, match="refused") as error:
        store.add(points(1))
    assert (error.value.transient, stand_in.fail[0]) == (False, 99)


def test_a_folder_of_chromas_is_for_one_process_at_a_time(tmp_path):
    opening = functools.partial(
        store_class("chroma"), "contract", DIM, url=None, key=None, folder=tmp_path / "chroma", timeout_s=10
    )
    store = opening()
    with pytest.raises(VectorStoreError, match="another process"):
        opening()
    store.close()
    opening().close()


# ---- the leg


def test_an_index_asks_its_store_for_the_same_passages(tmp_path, monkeypatch, server):
    texts = [f"The {word} boat carries {count} lamps" for word in ("red", "blue", "old", "last") for count in range(20)]
    with UltraFastRAG(tmp_path / "index", **TEXT_ONLY) as rag:
        rag.add_texts(texts, ids=[f"t{n}" for n in range(len(texts))], metadata=[{"n": n} for n in range(len(texts))])
        ours = [hit.document_id for hit in rag.search("old boat with seven lamps", k=8, alpha=1)]
    for url in ("", server.url):
        monkeypatch.setenv("QDRANT_URL", url)
        with UltraFastRAG(tmp_path / "index", store="qdrant", **TEXT_ONLY) as rag:
            assert [hit.document_id for hit in rag.search("old boat with seven lamps", k=8, alpha=1)] == ours
            assert rag.stats()["index"]["kind"] == "qdrant"
            assert {hit.metadata["n"] for hit in rag.search("boat", k=3, filters={"n": [1, 2, 3]}, alpha=1)} == {1, 2, 3}
            rag.add_texts(["A submarine carries no lamps at all"], ids=["new"])
            assert rag.search("submarine", k=1, alpha=1)[0].document_id == "new"
            rag.delete("new")
            assert "new" not in {hit.document_id for hit in rag.search("submarine", k=5, alpha=1)}
    collections = {path.split("/")[2] for method, path, _ in server.asked if path.startswith("/collections/ufr-")}
    assert len(collections) == 1


def test_an_index_without_a_folder_keeps_chroma_in_memory_and_one_with_beside_the_caches(tmp_path, monkeypatch):
    store_class("chroma")
    monkeypatch.delenv("CHROMA_URL", raising=False)
    with UltraFastRAG(store="chroma", **TEXT_ONLY) as rag:
        rag.add_texts(["The lamp burns colza oil", "The boat is red"], ids=["lamp", "boat"])
        assert [hit.document_id for hit in rag.search("lamp oil", k=2, alpha=1)] == ["lamp", "boat"]
        assert rag.stats()["index"]["kind"] == "chroma"
    for where, persistent in ((tmp_path, True), (None, False)):
        store = open_store("chroma", "contract", DIM, folder=where)
        assert ("persistent" in store.capabilities, (tmp_path / "chroma" / "contract").exists()) == (persistent, True)
        store.close()


def test_a_store_that_cannot_be_asked_is_stood_in_for_by_our_own_vectors(tmp_path, monkeypatch, caplog):
    with QdrantServer() as gone:
        monkeypatch.setenv("QDRANT_URL", gone.url)
    with UltraFastRAG(tmp_path / "index", store="qdrant", **TEXT_ONLY) as rag, caplog.at_level(logging.WARNING):
        rag.add_texts(["The lamp burns colza oil", "The boat is red"], ids=["lamp", "boat"])
        assert rag.search("lamp oil", k=1)[0].document_id == "lamp"
        assert rag.search("red boat", k=1)[0].document_id == "boat"
        assert "scanned instead" in rag.stats()["index"]["reason"]
    assert caplog.text.count("scanned instead, which is slower") == 1
