"""Fifty planted payloads: a pickle that would run a command, in every place from which something is read. None runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from small_index import add_document, ask, change, copy_of, make_index, rows_for

from ultrafast_rag.enrich.results import EnrichmentStore
from ultrafast_rag.errors import StorageError, UltraFastRAGError
from ultrafast_rag.files import read_manifest
from ultrafast_rag.index.archive import export_archive, restore_archive
from ultrafast_rag.index.embedding_cache import EmbeddingCache, content_key
from ultrafast_rag.index.repair import repair
from ultrafast_rag.index.store import Store
from ultrafast_rag.models.text import openvino

pytestmark = pytest.mark.fault


class Runs:
    """What a pickle of it does when it is loaded."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_index(tmp_path_factory.mktemp("whole") / "index", documents=60)


def in_index(name):
    def plant(payload: bytes, index: Path) -> None:
        for path in index.glob(name):
            path.write_bytes(payload)
        ask(index)

    return plant


def in_database(sql):
    def plant(payload: bytes, index: Path) -> None:
        change(index, sql, payload)
        with Store.open(index) as store:
            store.feedback()
        ask(index)

    return plant


def in_cache(sql):
    def plant(payload: bytes, index: Path) -> None:
        folder = index.parent / "cache"
        cache = EmbeddingCache(folder, size_gb=1)
        cache.put_many("m", [content_key("a")], rows_for([1]))
        cache.close()
        connection = sqlite3.connect(folder / "cache.db")
        with connection:
            connection.execute(sql, (payload,))
        connection.close()
        again = EmbeddingCache(folder, size_gb=1)
        again.get_many("m", [content_key("a")])
        len(again)
        again.put_many("m", [content_key("b")], rows_for([2]))
        again.close()

    return plant


def in_engine(payload: bytes, index: Path) -> None:
    made = index.parent / "made"
    made.mkdir()
    for name in (*openvino.FILES, "about.json"):
        (made / name).write_bytes(b"{}")
    openvino.seal(made, index.parent / "engine")
    (index.parent / "engine" / "model.bin").write_bytes(payload)
    assert openvino.manifest(index.parent / "engine") is None
    (index.parent / "engine" / "manifest.json").write_bytes(payload)
    assert openvino.manifest(index.parent / "engine") is None


def in_archive(payload: bytes, index: Path) -> None:
    with Store.open(index) as store:
        archive = export_archive(store, index.parent / "a.tar")
    with tarfile.open(archive, "a") as tar:
        (index.parent / "x.pkl").write_bytes(payload)
        tar.add(index.parent / "x.pkl", arcname="index.pkl")
    restore_archive(archive, index.parent / "r")


def in_enrichments(payload: bytes, index: Path) -> None:
    path = index / "enrichments.sqlite3"
    store = EnrichmentStore(path)
    store.put("k", {"caption": "c", "summary": "s", "keywords": [], "questions": []}, 0.1)
    store.close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE enrichments SET body = ?", (payload,))
    connection.close()
    store = EnrichmentStore(path)
    assert store.get_many(["k"]) == {}
    store.close()


PLACES = {
    "FAISS file": in_index("dense-*.faiss"),
    "FAISS manifest": in_index("dense-*.json"),
    "words": in_index("lexical-*.bin"),
    "words' manifest": in_index("lexical.json"),
    "vectors": in_index("vectors-*.f16"),
    "database": in_index("index.sqlite"),
    "settings": in_database("UPDATE meta SET value = ?"),
    "metadata": in_database("UPDATE chunks SET metadata = ?"),
    "picture": in_database("UPDATE assets SET data = ?"),
    "cached vector": in_cache("UPDATE Cache SET mode = 4, value = ?"),
    "cached raw vector": in_cache("UPDATE Cache SET value = ?"),
    "cache key": in_cache("UPDATE Cache SET raw = 0, key = ?"),
    "cache settings": in_cache("UPDATE Settings SET value = ?"),
    "engine": in_engine,
    "archive": in_archive,
    "enrichments": in_enrichments,
}
PROTOCOLS = (0, 2, 4, 5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("place", PLACES)
def test_a_planted_payload_never_runs(place, protocol, whole, tmp_path):
    canary = tmp_path / "canary"
    payload = pickle.dumps(Runs(f"touch {canary}"), protocol=protocol)
    index = copy_of(whole, tmp_path / "index")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            PLACES[place](payload, index)
        except UltraFastRAGError:
            pass
        if (index / "index.sqlite").exists():
            repair(index)
    assert read_manifest(index, "lexical.json") is None or place not in ("words' manifest", "database")
    assert not canary.exists()


def test_the_payload_is_one():
    """Otherwise none of the above says anything."""
    assert len(PLACES) * len(PROTOCOLS) >= 50
    command = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"
    done = subprocess.run([sys.executable, "-c", command], input=pickle.dumps(Runs("echo ran")), capture_output=True, check=True)
    assert done.stdout == b"ran\n"


def _fill(store: Store, told: list[int]) -> None:
    for number in range(2_000):
        add_document(store, number)
        told.append(number)


def test_a_disk_that_is_really_full_is_a_typed_error_and_nothing_is_lost(tmp_path):
    """A tmpfs of 1 MB; needs to be root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if os.name == "nt" or mount is None or os.geteuid() != 0:
        pytest.skip("a tmpfs can only be mounted by root")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        told: list[int] = []
        with Store.open(disk / "index") as store:
            with pytest.raises(StorageError, match=r"space|full"):
                _fill(store, told)
            assert told
        with pytest.raises(StorageError), Store.open(disk / "index") as store:
            export_archive(store, disk / "out.tar")
        for path in (disk / "index").glob("dense-*"):
            path.unlink()
        with Store.open(disk / "index") as store:
            sources = {document.source for document in store.documents() if document.complete}
            assert len(sources) >= len(told)
            assert store.verify() == []
        assert not list(disk.glob(".archive-*"))
        subprocess.run([mount, "-o", "remount,size=20m", disk], check=True)  # space was freed: the same calls work
        with Store.open(disk / "index") as store:
            assert add_document(store, 5_000)
            assert export_archive(store, disk / "out.tar").exists()
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


KEY = "canary-key-7f3a91"
WORDS = "canaryphrase"


def test_neither_a_key_nor_a_text_is_where_it_should_not_be(tmp_path, monkeypatch, capfd, caplog):
    """A key is nowhere; a text is in the index that was asked to keep it, and in no cache, log or output."""
    from ultrafast_rag import UltraFastRAG

    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    cache = tmp_path / "cache"
    # nothing that would be converted into an empty cache
    alone = {"engine": "torch-f32", "image_model": None, "speech_model": None, "reader_model": None}
    with UltraFastRAG(tmp_path / "index", cache_dir=cache, quiet=True, **alone) as rag:
        rag.add_texts([f"the {WORDS} of the lamp", "the oil of the keeper"], ids=["a", "b"])
        rag.query(f"what is the {WORDS}?", generator="extractive")
        shown = [
            repr(rag),
            repr(rag.stats()),
            repr(rag.config),
            str(rag.documents()),
            json.dumps(rag.config.to_json(), default=str),
        ]
        archive = rag.export(tmp_path / "out" / "a.tar")
    out, err = capfd.readouterr()
    told = "\n".join([out, err, caplog.text, *shown])
    assert KEY not in told
    assert WORDS not in told
    files = [path for folder in (tmp_path / "index", cache, archive.parent) for path in folder.rglob("*") if path.is_file()]
    held = {path: path.read_bytes() for path in files}
    assert [path for path, content in held.items() if KEY.encode() in content] == []
    assert [path for path in held if cache in path.parents and WORDS.encode() in held[path]] == []
    assert WORDS.encode() in held[archive]
    assert str(tmp_path).encode() not in held[archive]


def test_no_committed_notebook_holds_a_key_or_a_path_of_a_machine():
    import re

    private = re.compile(
        r"AIza[0-9A-Za-z_-]{30,}|AQ\.[0-9A-Za-z_-]{30,}|sk-[0-9A-Za-z]{30,}|hf_[0-9A-Za-z]{30,}|/(?:home|Users)/\w+|/(?:root)/"
    )
    notebooks = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
    assert notebooks
    found = {path.name: private.findall(path.read_text(encoding="utf-8")) for path in notebooks}
    assert {name: matches for name, matches in found.items() if matches} == {}
    assert np.all([path.stat().st_size for path in notebooks])
