"""Where a notebook runs, snapshots of an index, and the offline pack."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import sqlite3
from pathlib import Path

import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, IndexCorruptError, StorageError, WeightsError
from ultrafast_rag.models.weights import PACKAGED_SHA256
from ultrafast_rag.notebook import drive, pack, platform


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"KAGGLE_KERNEL_RUN_TYPE": "Interactive", "COLAB_RELEASE_TAG": "release-colab"}, "kaggle"),
        ({"COLAB_RELEASE_TAG": "release-colab"}, "colab"),
        ({}, "script"),
    ],
)
def test_detect_names_the_platform_from_its_environment(environ, name):
    assert platform.detect(environ=environ).name == name


def test_detect_knows_jupyter_by_its_kernel(monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    assert platform.detect(environ={}).name == "ipython"
    shell.kernel = object()
    assert platform.detect(environ={}).name == "jupyter"


def test_drive_is_found_only_where_it_is_mounted(tmp_path):
    environ = {"COLAB_RELEASE_TAG": "x"}
    assert platform.detect(environ=environ, root=tmp_path).drive is None
    (tmp_path / "content/drive/MyDrive").mkdir(parents=True)
    assert platform.detect(environ=environ, root=tmp_path).drive == tmp_path / "content/drive/MyDrive"


def test_kaggle_inputs_tell_weights_capsules_and_documents_apart(tmp_path):
    sizes = {"clip/1/config.json": 2, "clip/1/model.safetensors": 3000, "old/index.tar": 4, "papers/a/b.pdf": 5, "papers/c": 5}
    for name, size in sizes.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    rows = {(row["kind"], row["path"]): row for row in platform.kaggle_inputs(tmp_path)}
    assert set(rows) == {
        ("weights", str(tmp_path / "clip/1")),
        ("capsule", str(tmp_path / "old/index.tar")),
        ("documents", str(tmp_path / "papers")),
    }
    assert rows["documents", str(tmp_path / "papers")]["files"] == 2
    assert rows["weights", str(tmp_path / "clip/1")]["size_mb"] == pytest.approx(0.003002)
    assert platform.kaggle_inputs(tmp_path / "gone").notes


# ---- snapshots


def database(path: Path, value: str) -> Path:
    with sqlite3.connect(path) as connection:
        connection.execute("create table if not exists t (v text)")
        connection.execute("insert into t values (?)", (value,))
    return path


def test_snapshot_and_restore_bring_the_newest_back_and_keep_few(tmp_path):
    live = tmp_path / "live.db"
    for value in "abc":
        database(live, value)
        written = drive.snapshot(lambda target: shutil.copyfile(live, target), tmp_path / "Drive", keep=2)
    assert drive.snapshots(tmp_path / "Drive")[0] == written
    assert len(list((tmp_path / "Drive").iterdir())) == 2
    used = drive.restore(tmp_path / "Drive", tmp_path / "back.db", shutil.copyfile)
    assert used == written
    with sqlite3.connect(tmp_path / "back.db") as connection:
        assert [row[0] for row in connection.execute("select v from t")] == ["a", "b", "c"]


def test_restore_takes_an_older_snapshot_when_the_newest_is_damaged(tmp_path):
    first = drive.snapshot(lambda target: target.write_bytes(b"one"), tmp_path)
    second = drive.snapshot(lambda target: target.write_bytes(b"two"), tmp_path)
    second.write_bytes(b"tw")
    assert drive.restore(tmp_path, tmp_path / "out", shutil.copyfile) == first
    assert (tmp_path / "out").read_bytes() == b"one"
    first.write_bytes(b"")
    with pytest.raises(IndexCorruptError, match="every snapshot"):
        drive.restore(tmp_path, tmp_path / "out2", shutil.copyfile)
    assert not (tmp_path / "out2").exists()


def test_snapshot_leaves_the_older_one_when_the_drive_is_full(tmp_path, monkeypatch):
    first = drive.snapshot(lambda target: target.write_bytes(b"one"), tmp_path, keep=1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(StorageError, match="make room"):
        drive.snapshot(lambda target: target.write_bytes(b"two"), tmp_path, keep=1)
    assert list(tmp_path.iterdir()) == [first]


def test_snapshot_that_the_drive_garbles_is_refused(tmp_path, monkeypatch):
    def garble(source, out):
        out.write_bytes(source.read_bytes()[:-1] + b"?")

    monkeypatch.setattr(shutil, "copyfile", garble)
    with pytest.raises(StorageError, match="did not keep"):
        drive.snapshot(lambda target: target.write_bytes(b"content"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_snapshot_never_puts_its_name_outside_the_folder(tmp_path):
    with pytest.raises(ConfigError):
        drive.snapshot(lambda target: target.write_bytes(b"x"), tmp_path, name="../up")
    with pytest.raises(ConfigError, match="no snapshot"):
        drive.restore(tmp_path, tmp_path / "x", shutil.copyfile)


def test_mount_says_where_it_works():
    with pytest.raises(ConfigError, match="Colab"):
        drive.mount()


# ---- offline pack


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    root = tmp_path_factory.mktemp("pack")
    config = Config(image_model="no/such-model", speech_model=None, offline=True)
    return root, pack.offline_pack(root, config)


def test_pack_is_complete_and_opens_with_sockets_blocked(packed, monkeypatch):
    root, table = packed

    def blocked(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", blocked)
    monkeypatch.setattr(socket, "create_connection", blocked)
    assert pack.verify_pack(root) == []
    config = pack.pack_config(root)
    assert config.offline
    assert config.image_model is None
    digest = hashlib.sha256(Path(config.text_model, "model.safetensors").read_bytes()).hexdigest()
    assert digest == PACKAGED_SHA256
    assert any("image_model is not in the pack" in note for note in table.notes)


def test_pack_lists_the_packages_this_one_needs(packed):
    root, _ = packed
    lines = (root / "requirements.txt").read_text().splitlines()
    import numpy

    assert f"numpy=={numpy.__version__}" in lines
    assert not any(line.startswith("ultrafast") for line in lines)


def test_verify_pack_names_what_is_missing_altered_or_added(packed, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(packed[0], root)
    model = next((root / "models").iterdir())
    (model / "config.json").write_text("{}")
    next(model.glob("*.safetensors")).unlink()
    (root / "extra.sh").write_text("echo")
    problems = "; ".join(pack.verify_pack(root))
    assert "config.json is not what was packed" in problems
    assert "model.safetensors is missing" in problems
    assert "extra.sh was added later" in problems
    with pytest.raises(WeightsError, match="cannot be used"):
        pack.pack_config(root)


def test_verify_pack_asks_for_every_wheel_when_wheels_were_packed(tmp_path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "Some_Thing-1.0-py3-none-any.whl").write_bytes(b"")
    (tmp_path / "requirements.txt").write_text("some-thing==1.0\nother==2\n")
    paths = [path for path in tmp_path.rglob("*") if path.is_file()]
    files = {path.relative_to(tmp_path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    manifest = {"format": 1, "models": {}, "missing": {}, "wheels": True, "files": files}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert pack.verify_pack(tmp_path) == ["no wheel for other"]


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"files": {"../../etc/passwd": "0"}, "models": {}, "wheels": false}'])
def test_verify_pack_refuses_a_manifest_that_is_cut_short_or_leaves_the_folder(tmp_path, manifest):
    (tmp_path / "manifest.json").write_text(manifest)
    assert len(pack.verify_pack(tmp_path)) == 1


def test_pack_is_not_written_over_other_files(tmp_path):
    (tmp_path / "thesis.docx").write_text("mine")
    with pytest.raises(ConfigError, match="new folder"):
        pack.offline_pack(tmp_path, Config(offline=True))
    assert (tmp_path / "thesis.docx").read_text() == "mine"
