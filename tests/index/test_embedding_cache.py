"""The embedding cache: exact enough, safe against hostile rows, silent about disks that refuse."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sqlite3
import stat
import warnings
from pathlib import Path

import diskcache
import numpy as np
import pytest

from ultrafast_rag.index.embedding_cache import EmbeddingCache, NullCache, RawDisk, content_key, open_embedding_cache


def unit(n: int, d: int = 384, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def keys_of(n: int) -> list[bytes]:
    return [content_key(f"text {i}") for i in range(n)]


def rows(folder: Path, sql: str, *values: object) -> list[tuple]:
    with sqlite3.connect(folder / "cache.db") as connection:
        return connection.execute(sql, values).fetchall()


class Bomb:
    """Unpickled, it leaves a file behind: the proof that somebody's code ran."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.path,)


def test_vectors_come_back_in_the_order_asked_with_none_for_unknown_keys(tmp_path: Path) -> None:
    cache, vectors, keys = EmbeddingCache(tmp_path / "c", size_gb=1), unit(1200), keys_of(1200)
    cache.put_many("model|f32", keys, vectors)
    got = cache.get_many("model|f32", [keys[7], content_key("never seen"), keys[1199], keys[7]])
    assert got[1] is None
    for vector, row in ((got[0], 7), (got[2], 1199), (got[3], 7)):
        assert vector is not None
        assert vector.dtype == np.float32
        assert np.abs(vector - vectors[row]).max() < 5e-4
        assert abs(np.linalg.norm(vector) - 1) < 1e-6
    assert cache.get_many("model|int8", keys[:2]) == [None, None]


def test_entries_outlive_the_process_object_and_folder_is_private(tmp_path: Path) -> None:
    first = open_embedding_cache(tmp_path, size_gb=1)
    first.put_many("m", keys_of(3), unit(3))
    first.close()
    assert first.get_many("m", keys_of(1)) == [None]
    again = open_embedding_cache(tmp_path, size_gb=1)
    assert all(vector is not None for vector in again.get_many("m", keys_of(3)))
    assert stat.S_IMODE((tmp_path / "embeddings").stat().st_mode) == 0o700


def test_nothing_is_remembered_when_switched_off(tmp_path: Path) -> None:
    cache = open_embedding_cache(tmp_path, size_gb=1, enabled=False)
    cache.put_many("m", keys_of(2), unit(2))
    assert isinstance(cache, NullCache)
    assert cache.get_many("m", keys_of(2)) == [None, None]
    assert not any(tmp_path.iterdir())


@pytest.mark.fault
def test_a_pickled_value_runs_nothing_and_is_a_miss(tmp_path: Path) -> None:
    folder, trap = tmp_path / "c", tmp_path / "ran"
    cache, keys = EmbeddingCache(folder, size_gb=1), keys_of(3)
    cache.put_many("m", keys, unit(3))
    bomb = pickle.dumps(Bomb(trap))
    rows(folder, "UPDATE Cache SET mode = 4, value = ? WHERE rowid = 1", bomb)
    (folder / "bomb.val").write_bytes(bomb)
    rows(folder, "UPDATE Cache SET mode = 4, value = NULL, filename = 'bomb.val' WHERE rowid = 2")
    with pytest.warns(RuntimeWarning, match="not ours"):
        got = EmbeddingCache(folder, size_gb=1).get_many("m", keys)
    assert [vector is None for vector in got] == [True, True, False]
    assert not trap.exists()
    # the same file through the stock Disk does run it: the trap is a real one
    database_key = rows(folder, "SELECT key FROM Cache WHERE rowid = 1")[0][0]
    diskcache.Cache(str(folder)).get(database_key)
    assert trap.exists()


@pytest.mark.fault
def test_a_pickled_key_runs_nothing(tmp_path: Path) -> None:
    folder, trap = tmp_path / "c", tmp_path / "ran"
    cache, keys = EmbeddingCache(folder, size_gb=1), keys_of(2)
    cache.put_many("m", keys, unit(2))
    rows(folder, "UPDATE Cache SET raw = 0, key = ? WHERE rowid = 1", pickle.dumps(Bomb(trap)))
    assert [vector is None for vector in cache.get_many("m", keys)] == [True, False]
    with pytest.raises(pickle.UnpicklingError):
        list(cache._cache)  # diskcache's own iteration goes through RawDisk.get
    assert not trap.exists()


@pytest.mark.fault
def test_planted_settings_and_file_names_do_no_harm(tmp_path: Path) -> None:
    folder, victim = tmp_path / "c", tmp_path / "victim"
    victim.write_text("keep me")
    cache, keys = EmbeddingCache(folder, size_gb=1), keys_of(2)
    cache.put_many("m", keys, unit(2))
    rows(folder, "INSERT INTO Settings VALUES ('_disk', 'x'), ('disk_evil', 1), ('transact', 'y')")
    rows(folder, "UPDATE Cache SET filename = '../victim', mode = 2, value = NULL WHERE rowid = 1")
    again = EmbeddingCache(folder, size_gb=1)
    with pytest.warns(RuntimeWarning, match="not ours"):
        got = again.get_many("m", keys)
    assert [vector is None for vector in got] == [True, False]
    again._cache.clear()
    assert victim.read_text() == "keep me"


def test_raw_disk_takes_bytes_only(tmp_path: Path) -> None:
    disk = RawDisk(str(tmp_path))
    with pytest.raises(TypeError):
        disk.store({"a": 1}, False)
    with pytest.raises(TypeError):
        disk.put(("a", 1))
    with pytest.raises(pickle.UnpicklingError):
        disk.fetch(4, None, pickle.dumps(1), False)


@pytest.mark.fault
@pytest.mark.parametrize("damage", [b"", b"UV1e", b"\0" * 700, "text", 7])
def test_a_damaged_entry_is_a_miss_with_one_warning_and_can_be_rewritten(tmp_path: Path, damage: object) -> None:
    folder = tmp_path / "c"
    cache, keys, vectors = EmbeddingCache(folder, size_gb=1), keys_of(4), unit(4)
    cache.put_many("m", keys, vectors)
    rows(folder, "UPDATE Cache SET value = ? WHERE rowid IN (1, 2)", damage)
    with pytest.warns(RuntimeWarning) as caught:
        got = cache.get_many("m", keys)
    assert [vector is None for vector in got] == [True, True, False, False]
    assert len(caught) == 1
    cache.put_many("m", keys, vectors)
    assert all(vector is not None for vector in cache.get_many("m", keys))


@pytest.mark.fault
def test_one_flipped_bit_is_a_miss(tmp_path: Path) -> None:
    cache, keys = EmbeddingCache(tmp_path / "c", size_gb=1), keys_of(1)
    cache.put_many("m", keys, unit(1))
    value = bytearray(rows(tmp_path / "c", "SELECT value FROM Cache")[0][0])
    value[100] ^= 1
    rows(tmp_path / "c", "UPDATE Cache SET value = ?", bytes(value))
    with pytest.warns(RuntimeWarning, match="checksum"):
        assert cache.get_many("m", keys) == [None]


@pytest.mark.fault
def test_a_file_that_is_no_database_starts_empty(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "cache.db").write_bytes(b"not a database at all" * 500)
    with pytest.warns(RuntimeWarning, match="damaged"):
        cache = EmbeddingCache(folder, size_gb=1)
    cache.put_many("m", keys_of(2), unit(2))
    assert all(vector is not None for vector in cache.get_many("m", keys_of(2)))


@pytest.mark.fault
def test_a_place_that_cannot_be_a_folder_passes_through_with_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cache = EmbeddingCache(tmp_path / "file" / "c", size_gb=1)
        cache.put_many("m", keys_of(2), unit(2))
        assert cache.get_many("m", keys_of(2)) == [None, None]
    assert ["computed anew" in str(warning.message) for warning in caught] == [True]
    assert len(cache) == 0


@pytest.mark.fault
def test_a_full_disk_keeps_what_was_there_and_warns_once(tmp_path: Path) -> None:
    cache, keys = EmbeddingCache(tmp_path / "c", size_gb=1), keys_of(4000)
    cache.put_many("m", keys[:10], unit(10))
    pages = cache._cache._sql("PRAGMA page_count").fetchone()[0]
    cache._cache._sql(f"PRAGMA max_page_count = {pages + 4}")  # SQLite then answers SQLITE_FULL, as on a full disk
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cache.put_many("m", keys, unit(4000))
        cache.put_many("m", keys, unit(4000))
    assert ["full" in str(warning.message) for warning in caught] == [True]
    got = cache.get_many("m", keys[:11])
    assert [vector is None for vector in got] == [False] * 10 + [True]


def test_the_oldest_entries_go_when_the_cap_is_reached(tmp_path: Path) -> None:
    cap_gb = 1e6 / 2**30
    cache, keys = EmbeddingCache(tmp_path / "c", size_gb=cap_gb), keys_of(3000)
    for start in range(0, 3000, 100):
        cache.put_many("m", keys[start : start + 100], unit(100, seed=start))
    got = [vector is not None for vector in cache.get_many("m", keys)]
    kept = sum(got)
    assert 700 < kept < 1100  # 976 bytes an entry, between 90 and 100 % of the cap
    assert got == [False] * (3000 - kept) + [True] * kept
    (size,) = rows(tmp_path / "c", "SELECT SUM(size) FROM Cache")[0]
    (stated,) = rows(tmp_path / "c", "SELECT value FROM Settings WHERE key = 'size'")[0]
    assert size == stated <= 1e6


def test_rewriting_the_same_entries_does_not_grow_the_stated_size(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "c", size_gb=1)
    for _ in range(3):
        cache.put_many("m", keys_of(20), unit(20))
    assert len(cache) == 20
    assert rows(tmp_path / "c", "SELECT value FROM Settings WHERE key = 'size'") == rows(
        tmp_path / "c", "SELECT SUM(size) FROM Cache"
    )


def _write_and_read(folder: str, seed: int) -> int:
    warnings.simplefilter("error")
    cache = EmbeddingCache(Path(folder), size_gb=1)
    for start in range(0, 500, 50):
        cache.put_many("m", keys_of(500)[start : start + 50], unit(500)[start : start + 50])
        cache.put_many(f"own {seed}", keys_of(5), unit(5, seed=seed))
    return sum(vector is not None for vector in cache.get_many("m", keys_of(500)))


@pytest.mark.fault
def test_several_processes_write_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(_write_and_read, [(str(tmp_path / "c"), seed) for seed in range(3)]) == [500] * 3
    cache = EmbeddingCache(tmp_path / "c", size_gb=1)
    assert len(cache) == 515
    for seed in range(3):
        vector = cache.get_many(f"own {seed}", keys_of(1))[0]
        assert vector is not None
        assert np.abs(vector - unit(5, seed=seed)[0]).max() < 5e-4


@pytest.mark.fault
def test_a_writer_that_holds_the_lock_costs_a_warning_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ultrafast_rag.index.embedding_cache._LOCK_TIMEOUT_S", 0.2)
    cache = EmbeddingCache(tmp_path / "c", size_gb=1)
    cache.put_many("m", keys_of(1), unit(1))
    other = sqlite3.connect(tmp_path / "c" / "cache.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.warns(RuntimeWarning, match="refused to write"):
        cache.put_many("m", keys_of(2), unit(2))
    other.execute("ROLLBACK")
    other.close()
    assert cache.get_many("m", keys_of(1))[0] is not None


@pytest.mark.fault
def test_a_vector_under_another_key_is_a_miss(tmp_path: Path) -> None:
    """Rows of a damaged or altered table may come back under each other's keys, each whole in itself."""
    folder = tmp_path / "c"
    cache, keys, vectors = EmbeddingCache(folder, size_gb=1), keys_of(2), unit(2)
    cache.put_many("m", keys, vectors)
    cache.close()
    with sqlite3.connect(folder / "cache.db") as connection:
        (one, first), (two, second) = connection.execute("SELECT rowid, value FROM Cache").fetchall()
        connection.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (second, one))
        connection.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (first, two))
    cache = EmbeddingCache(folder, size_gb=1)
    with pytest.warns(RuntimeWarning, match="checksum"):
        assert cache.get_many("m", keys) == [None, None]


def test_a_row_of_no_length_is_a_miss(tmp_path: Path) -> None:
    cache, keys = EmbeddingCache(tmp_path / "c", size_gb=1), keys_of(2)
    cache.put_many("m", keys, np.stack([np.zeros(384, np.float32), np.full(384, np.nan, np.float32)]))
    with pytest.warns(RuntimeWarning, match="no vector"):
        assert cache.get_many("m", keys) == [None, None]
