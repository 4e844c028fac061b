"""Index archives: what travels, and what a stranger's can do: nothing, in words, with nothing left behind."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from small_index import ask, copy_of, make_index

from ultrafast_rag.errors import ConfigError, IndexCorruptError, IndexStateError, StorageError, UltraFastRAGError
from ultrafast_rag.index.archive import MANIFEST, export_archive, restore_archive
from ultrafast_rag.index.store import Store
from ultrafast_rag.types import Record

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_index(tmp_path_factory.mktemp("whole") / "index", documents=20)


@pytest.fixture(scope="module")
def archive(whole, tmp_path_factory):
    with Store.open(whole) as store:
        return export_archive(store, tmp_path_factory.mktemp("exported") / "index.tar")


def members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}


def packed(path: Path, files: dict[str, bytes], manifest: object = None, **about) -> Path:
    """An archive of these files, under a manifest that fits them unless one is given."""
    if manifest is None:
        sums = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)} for name, data in files.items()}
        manifest = {"format": 2, "files": sums}
    content = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in ((MANIFEST, content), *files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            for field, value in about.items() if name != MANIFEST else ():
                setattr(entry, field, value)
            tar.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def files(archive):
    found = members(archive)
    del found[MANIFEST]
    return found


def refused(archive: Path, folder: Path) -> UltraFastRAGError:
    before = sorted(folder.iterdir())
    with pytest.raises(UltraFastRAGError) as caught:
        restore_archive(archive, folder / "restored")
    assert sorted(folder.iterdir()) == before
    return caught.value


def test_an_archive_answers_as_its_index_does(whole, archive, tmp_path):
    restore_archive(archive, tmp_path / "restored")

    def without_places(answers):
        return str(answers).replace("/home/someone/papers/", "").replace(", 'cache_dir': '/home/someone/cache'", "")

    assert without_places(ask(tmp_path / "restored")) == without_places(ask(copy_of(whole, tmp_path / "asked")))


def test_no_path_of_this_machine_travels_unless_asked(whole, archive, tmp_path):
    assert b"someone" not in archive.read_bytes()
    with Store.open(whole) as store:
        asked = export_archive(store, tmp_path / "with.tar", paths=True)
    assert b"/home/someone/papers" in asked.read_bytes()
    with Store.open(restore_archive(asked, tmp_path / "r")) as store:
        source = store.documents()[0].source
        assert source.startswith("/home/someone/papers/")
        assert not store.unchanged(source, (101, 5))  # a file of that name and time here is not taken for the source


def test_names_that_would_be_the_same_keep_what_tells_them_apart(tmp_path):
    sources = ["/a/x/paper.pdf", "/a/y/paper.pdf", "/b/other.pdf", "C:\\docs\\notes.md", "given as text", "enriched:/b/other.pdf"]
    with Store.open(tmp_path / "i") as store:
        for source in sources:
            store.finish(store.begin(source, content_hash=source).document_key)
        archive = export_archive(store, tmp_path / "i.tar")
    with Store.open(restore_archive(archive, tmp_path / "r")) as store:
        names = [document.source for document in store.documents()]
    assert names == ["x/paper.pdf", "y/paper.pdf", "other.pdf", "notes.md", "given as text", "enriched:other.pdf"]


def test_a_restored_source_is_the_same_when_it_is_ingested_again_from_anywhere(tmp_path):
    with Store.open(tmp_path / "i") as store:
        store.finish(store.begin("/a/paper.pdf", content_hash="same", stat=(5, 6)).document_key)
        archive = export_archive(store, tmp_path / "i.tar")
    with Store.open(restore_archive(archive, tmp_path / "r")) as store:
        assert store.move(Record("/elsewhere/paper.pdf", "same", (5, 7)))
        assert store.begin("/elsewhere/paper.pdf", content_hash="same", stat=(5, 7)).state == "unchanged"
        assert [document.source for document in store.documents()] == ["/elsewhere/paper.pdf"]
        assert store.verify() == []


MANIFESTS = [
    b"", b"{", b"[]", b"null", b"7", b'"text"', b"\xff\xfe", b"[" * 9000, b"{}", b'{"format": 2}', b'{"format": 2, "files": []}',
    b'{"format": 2, "files": {}}', b'{"format": 2, "files": {"index.sqlite": 7}}', b'{"format": 1, "files": {"index.sqlite": 7}}',
    b'{"format": 2, "files": {"index.sqlite": {"sha256": "x", "size_bytes": 1}}}', b'{"format": "2", "files": {}}',
    b'{"format": NaN, "files": {}}', b'{"format": -1, "files": {"index.sqlite": {}}}', b" " * 2_000_000,
]  # fmt: skip


@pytest.mark.parametrize("manifest", MANIFESTS, ids=range(len(MANIFESTS)))
def test_a_bad_manifest_is_refused_in_words(files, tmp_path, manifest):
    error = refused(packed(tmp_path / "bad.tar", files, manifest), tmp_path)
    assert isinstance(error, IndexCorruptError)


@pytest.mark.parametrize("size", [-1, 2**60, 1.5, "1", None, True, float("nan")])
def test_a_bad_size_in_the_manifest_is_refused(files, tmp_path, size):
    sums = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)} for name, data in files.items()}
    sums["index.sqlite"]["size_bytes"] = size
    refused(packed(tmp_path / "bad.tar", files, {"format": 2, "files": sums}), tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../out", "/tmp/out", "sub/index.sqlite", "dense-text.faiss", "writer.lock", "index.sqlite-wal", "index.sqlite-journal",
     "lexical.json", "..", "vectors-.f16", "vectors-a/../../b.f16", "enrichments.jsonl"],
)  # fmt: skip
def test_names_that_no_archive_of_ours_holds_are_refused(files, tmp_path, name):
    refused(packed(tmp_path / "bad.tar", {**files, name: b"x"}), tmp_path)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE]
)
def test_only_plain_files_are_unpacked(files, tmp_path, kind):
    refused(packed(tmp_path / "bad.tar", files, type=kind, linkname="/etc/passwd"), tmp_path)


def test_a_sparse_bomb_writes_nothing(files, tmp_path):
    """2.5 kB that GNU tar's pax sparse form lets grow to 3 GiB: its headers are passed over, its size is what is there."""
    header = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "index.sqlite",
        "GNU.sparse.realsize": str(3 * 2**30),
    }
    data = b"1\n0\n512\n".ljust(512, b"\0") + b"x" * 512
    manifest = {"format": 2, "files": {"index.sqlite": {"sha256": "0" * 64, "size_bytes": 3 * 2**30}}}
    path = tmp_path / "bomb.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content, more in (
            (MANIFEST, json.dumps(manifest).encode(), {}),
            ("GNUSparseFile.0/index.sqlite", data, header),
        ):
            entry = tarfile.TarInfo(name)
            entry.size, entry.pax_headers = len(content), more
            tar.addfile(entry, io.BytesIO(content))
    assert path.stat().st_size < 20_000
    assert "claims" in str(refused(path, tmp_path))


@pytest.mark.parametrize("cut", [0, 100, 512, 1500, 5000, 0.5, 0.99])
def test_an_archive_cut_short_is_refused(archive, tmp_path, cut):
    whole = archive.read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: cut if isinstance(cut, int) else int(len(whole.rstrip(b"\0")) * cut)])
    refused(tmp_path / "cut.tar", tmp_path)


def test_a_forged_index_inside_a_whole_archive_is_refused(files, tmp_path):
    refused(packed(tmp_path / "a.tar", {**files, "index.sqlite": b"no database" * 1000}), tmp_path)
    refused(packed(tmp_path / "b.tar", {**files, "vectors-text.1.f16": b""}), tmp_path) if "vectors-text.1.f16" in files else None
    vectors = next(name for name in files if name.startswith("vectors"))
    refused(packed(tmp_path / "c.tar", {**files, vectors: files[vectors][:100]}), tmp_path)


def test_the_place_to_restore_into_must_be_free_and_the_archive_there(archive, tmp_path):
    (tmp_path / "restored").mkdir()
    (tmp_path / "restored" / "mine.txt").write_text("mine")
    assert isinstance(refused(archive, tmp_path), ConfigError)
    assert (tmp_path / "restored" / "mine.txt").read_text() == "mine"
    for path in (tmp_path / "none.tar", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            restore_archive(path, tmp_path / "new")
    later = json.dumps({"format": 99, "files": {}}).encode()
    with pytest.raises(IndexStateError, match="later version"):
        restore_archive(packed(tmp_path / "later.tar", {}, later), tmp_path / "new")


def test_a_disk_that_refuses_leaves_nothing(archive, whole, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert isinstance(refused(archive, tmp_path), StorageError)
        with Store.open(whole) as store, pytest.raises(StorageError):
            export_archive(store, tmp_path / "out" / "i.tar")
    assert list((tmp_path / "out").iterdir()) == []
    assert ask(restore_archive(archive, tmp_path / "restored"))
