"""Dense index against numpy brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ultrafast_rag.errors import IndexStateError
from ultrafast_rag.files import read_manifest, write_manifest
from ultrafast_rag.index import ann
from ultrafast_rag.index.dense import DenseIndex
from ultrafast_rag.index.store import Store
from ultrafast_rag.index.vectors import to_single
from ultrafast_rag.types import Chunk, PartCommit

DIM = 32


def clustered(count: int, seed: int = 0) -> np.ndarray:
    """Unit rows around 40 centres, rounded as the store rounds them, so that brute force sees the same values."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, DIM))
    rows = centres[rng.integers(0, 40, count)] + 0.7 * rng.standard_normal((count, DIM))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def put(store: Store, name: str, rows: np.ndarray, owners: list[int] | None = None) -> list[int]:
    progress = store.begin(name, content_hash=name)
    owners = list(range(len(rows))) if owners is None else owners
    chunks = [Chunk(f"{name} {i}", page=i) for i in range(max(owners, default=-1) + 1)]
    part = PartCommit(progress.document_key, 0, chunks, {"text": rows}, {"text": owners}, final=True)
    return store.commit([part])[0]


def brute(rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    return rows.astype(np.float64) @ (query / np.linalg.norm(query)).astype(np.float64)


@pytest.fixture
def store(tmp_path: Path):
    with Store.open(tmp_path / "index") as opened:
        yield opened


@pytest.mark.reference
def test_search_equals_brute_force(store):
    rows = clustered(500)
    ids = np.array(put(store, "a", rows))
    query = clustered(1, seed=5)[0] * 3  # length must not matter
    ranking = DenseIndex(store, "text").search(query, 10)
    expected = brute(rows, query)
    order = np.argsort(-expected)[:10]
    assert ranking.chunk_ids.tolist() == ids[order].tolist()
    np.testing.assert_allclose(ranking.scores, expected[order], atol=2e-4)


def test_search_of_an_empty_space_finds_nothing(store):
    ranking = DenseIndex(store, "text").search(np.ones(DIM, np.float32), 5)
    assert len(ranking.chunk_ids) == len(ranking.scores) == 0


def test_a_chunk_with_several_vectors_counts_by_its_best(store):
    rows = clustered(60)
    ids = put(store, "a", rows, owners=[i // 3 for i in range(60)])
    query = clustered(1, seed=7)[0]
    best = brute(rows, query).reshape(20, 3).max(axis=1)
    dense = DenseIndex(store, "text")
    ranking = dense.search(query, 20)
    assert ranking.chunk_ids.tolist() == [ids[i] for i in np.argsort(-best)]
    scores = dense.score(query, np.array([ids[4], 10_000, ids[0]]))
    np.testing.assert_allclose(scores, [best[4], np.nan, best[0]], atol=2e-4)


def test_new_commits_replacements_and_deletes_show_at_once(store):
    first, second = clustered(50, 1), clustered(50, 2)
    put(store, "a", first)
    dense = DenseIndex(store, "text")
    assert len(dense.search(first[0], 100).chunk_ids) == 50
    ids = put(store, "b", second)
    assert dense.search(second[3], 1).chunk_ids.tolist() == [ids[3]]
    store.delete("a")
    assert set(dense.search(first[0], 100).chunk_ids) == set(ids)
    store.compact()
    assert set(dense.search(first[0], 100).chunk_ids) == set(ids)
    assert dense.search(second[3], 1).chunk_ids.tolist() == [ids[3]]


@pytest.mark.parametrize("kind", ["rabitq", "sq8", "ivfpq"])
def test_approximate_kinds_find_the_exact_neighbours_and_score_them_exactly(store, tmp_path, kind):
    rows = clustered(6_000)
    ids = np.array(put(store, "a", rows))
    dense = DenseIndex(store, "text", kind=kind, folder=tmp_path)
    info = dense.build()
    assert info["kind"] == kind
    assert info["recall"] >= (0.98 if kind == "ivfpq" else 0.99)  # 4 bytes a vector are few; "auto" would go on to sq8
    found = 0
    for query in clustered(40, seed=11):
        truth = brute(rows, query)
        ranking = dense.search(query, 10)
        found += len(set(ranking.chunk_ids) & set(ids[np.argsort(-truth)[:10]]))
        np.testing.assert_allclose(ranking.scores, truth[ranking.chunk_ids - ids[0]], atol=2e-4)
    assert found / 400 >= 0.97


def test_rows_after_the_build_are_found_and_deleted_ones_are_not(store):
    put(store, "a", clustered(3_000))
    dense = DenseIndex(store, "text", kind="sq8")
    dense.build()
    late = clustered(5_000, seed=3)  # more than the exact tail holds: they are added to the index
    ids = put(store, "b", late)
    for place in (0, 17, 4_999):
        assert dense.search(late[place], 1).chunk_ids.tolist() == [ids[place]]
    store.delete("a")
    assert set(dense.search(late[0], 200).chunk_ids) <= set(ids)
    assert len(dense.search(late[0], 200).chunk_ids) == 200


@pytest.mark.parametrize("kind", ["exact", "rabitq", "sq8", "ivfpq"])
@pytest.mark.parametrize("pages", [[0, 39], [0, 5_400]])
def test_filters_return_only_what_they_allow(store, kind, pages):
    rows = clustered(6_000)
    ids = np.array(put(store, "a", rows))
    dense = DenseIndex(store, "text", kind=kind)
    dense.build()
    allowed = store.allowed({"page": pages})
    query = clustered(1, seed=21)[0]
    truth = brute(rows, query)[: pages[1] + 1]
    ranking = dense.search(query, 10, allowed=allowed)
    expected = set(ids[np.argsort(-truth)[:10]])
    assert allowed[ranking.chunk_ids].all()
    assert len(expected & set(ranking.chunk_ids)) >= (10 if kind == "exact" or pages[1] < 100 else 9)


@pytest.mark.fault
def test_a_damaged_faiss_file_is_never_read_and_built_again(store, tmp_path, monkeypatch):
    rows = clustered(3_000)
    ids = put(store, "a", rows)
    folder = tmp_path / "derived"
    DenseIndex(store, "text", kind="rabitq", folder=folder).build()
    path = folder / "dense-text.faiss"
    whole = path.read_bytes()
    reopened = DenseIndex(store, "text", kind="rabitq", folder=folder)
    assert reopened.search(rows[5], 1).chunk_ids.tolist() == [ids[5]]
    assert reopened.info["kind"] == "rabitq"

    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    faiss = pytest.importorskip("faiss")
    with monkeypatch.context() as patch:
        patch.setattr(faiss, "deserialize_index", lambda data: pytest.fail("unchecked bytes reached FAISS"))
        damaged = DenseIndex(store, "text", kind="rabitq", folder=folder)
        assert damaged.search(rows[5], 1).chunk_ids.tolist() == [ids[5]]
        assert damaged.info["kind"] == "exact"
    damaged.build()
    assert damaged.info["kind"] == "rabitq"
    assert DenseIndex(store, "text", kind="rabitq", folder=folder).search(rows[9], 1).chunk_ids.tolist() == [ids[9]]
    manifest = ann.load_manifest(folder, "text")
    assert manifest is not None
    assert ann.load(folder, "text", manifest) is not None


@pytest.mark.fault
def test_an_index_made_from_other_rows_is_not_used(tmp_path):
    folder = tmp_path / "derived"
    with Store.open(tmp_path / "one") as one, Store.open(tmp_path / "two") as two:
        put(one, "a", clustered(3_000, 1))
        rows = clustered(3_000, 2)
        ids = put(two, "a", rows)
        DenseIndex(one, "text", kind="sq8", folder=folder).build()
        dense = DenseIndex(two, "text", kind="sq8", folder=folder)
        assert dense.search(rows[5], 1).chunk_ids.tolist() == [ids[5]]
        assert dense.info["kind"] == "exact"


def test_auto_keeps_a_small_collection_exact_and_says_why(store):
    put(store, "a", clustered(300))
    info = DenseIndex(store, "text").build()
    assert info["kind"] == "exact"
    assert "300" in info["reason"]


def test_choices_beyond_exact_are_recorded_with_their_measurement(store, monkeypatch):
    put(store, "a", clustered(3_000))
    monkeypatch.setattr("ultrafast_rag.index.dense._AUTO_ROWS", 1_000)
    monkeypatch.setattr("ultrafast_rag.index.dense._EXACT_MS", -1.0)  # no scan is fast enough
    info = DenseIndex(store, "text").build()
    assert info["kind"] in ("ivfpq", "sq8")
    assert info["recall"] >= ann.RECALL_GOAL
    assert info["bytes_per_vector"] < 4 * DIM + 8 * 20


def test_half_precision_rows_widen_to_what_numpy_makes_of_them():
    every = np.arange(65_536, dtype=np.uint16).view(np.float16)
    rows = every[np.isfinite(every)][:63_000].reshape(-1, 90)
    rows = rows[np.abs(rows.astype(np.float32)).max(axis=1) > 0]
    plain = rows.astype(np.float32)
    np.testing.assert_array_equal(to_single(rows), plain / np.sqrt(np.einsum("ij,ij->i", plain, plain))[:, None])


@pytest.mark.fault
@pytest.mark.parametrize("when", ["load", "search", "grow"])
def test_a_faiss_that_refuses_is_replaced_by_an_exact_search_until_the_next_build(store, tmp_path, monkeypatch, when):
    faiss = pytest.importorskip("faiss")
    rows = clustered(3_000)
    ids = put(store, "a", rows)
    dense = DenseIndex(store, "text", kind="sq8", folder=tmp_path)
    dense.build()

    def refuse(*_, **__):
        raise RuntimeError("Index type 0x12345678 not recognized")

    with monkeypatch.context() as patch:
        if when == "load":
            patch.setattr(faiss, "deserialize_index", refuse)
            dense = DenseIndex(store, "text", kind="sq8", folder=tmp_path)
        elif when == "search":
            patch.setattr(ann, "candidates", refuse)
        else:
            patch.setattr(faiss, "clone_index", refuse)
            put(store, "b", clustered(5_000, seed=4))
        assert dense.search(rows[7], 1).chunk_ids.tolist() == [ids[7]]
        assert dense.info["kind"] == "exact"
        assert "next build" in dense.info["reason"]
    assert dense.build()["kind"] == "sq8"
    assert dense.search(rows[7], 1).chunk_ids.tolist() == [ids[7]]


@pytest.mark.fault
def test_rows_that_faiss_invents_are_not_served(store, monkeypatch):
    rows = clustered(3_000)
    ids = put(store, "a", rows)
    dense = DenseIndex(store, "text", kind="sq8")
    dense.build()
    monkeypatch.setattr(ann, "candidates", lambda *_, **__: np.array([5, 1 << 40]))
    assert dense.search(rows[7], 1).chunk_ids.tolist() == [ids[7]]


@pytest.mark.fault
@pytest.mark.parametrize(
    "tuning",
    [{"nprobe": 0}, {"nprobe": 10**9}, {"depth": 0}, {"depth": 10**9}, {"depth": "50"}, {"recall": float("nan")}, {"recall": 2},
     {"kind": "Flat"}, {"factory": "HNSW32"}, {"trained_rows": 0}, {"trained_rows": 10**9}, {"more": 1}],
)  # fmt: skip
def test_a_tuning_out_of_range_is_not_used(store, tmp_path, tuning):
    rows = clustered(3_000)
    ids = put(store, "a", rows)
    DenseIndex(store, "text", kind="sq8", folder=tmp_path).build()
    facts = read_manifest(tmp_path, "dense-text.json")
    write_manifest(tmp_path, "dense-text.json", {**facts, "tuning": {**facts["tuning"], **tuning}})
    dense = DenseIndex(store, "text", kind="sq8", folder=tmp_path)
    assert dense.search(rows[5], 1).chunk_ids.tolist() == [ids[5]]
    assert dense.info["kind"] == "exact"


def test_a_question_of_another_length_is_refused_in_words(store):
    put(store, "a", clustered(50))
    with pytest.raises(IndexStateError, match="another encoder"):
        DenseIndex(store, "text").search(np.ones(DIM + 1, np.float32), 3)
