"""Settings: every field is checked, presets hold, and an index chooses nothing but what its vectors and chunks are."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ultrafast_rag.config import IDENTITY, LARGEST, Config
from ultrafast_rag.errors import ConfigError, IndexStateError
from ultrafast_rag.index.store import Store
from ultrafast_rag.rag import UltraFastRAG

NUMBERS = [f.name for f in dataclasses.fields(Config) if "Count" in f.type or "ositive" in f.type or "NotNegative" in f.type]
FLAGS = [f.name for f in dataclasses.fields(Config) if f.type == "bool"]
TEXT_ONLY = {"image_model": None, "speech_model": None, "quiet": True}


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"chunker": "semnatic"}, "did you mean 'semantic'"),
        ({"fusion": "rff"}, "did you mean 'rrf'"),
        ({"index": "hnsw"}, "'exact', 'ivfpq'"),
        ({"quantization": "8-bit"}, "did you mean '8bit'"),
        ({"engine": "openvino-int4"}, "did you mean 'openvino-int8'"),
        ({"generator": "gemni"}, "did you mean 'gemini'"),
        ({"gemini_thinking": "hi"}, "'minimal', 'low', 'medium', 'high'"),
        ({"device": "tpu"}, "'cuda:N'"),
        ({"gemini_base_url": "ftp://here"}, "an http"),
        ({"gemini_base_url": ""}, "an http"),
        ({"text_model": None}, "text_model takes text"),
        ({"text_model": " "}, "a name or a path"),
        ({"image_model": "a\0b"}, "a name or a path"),
        ({"speech_model": "\ud800"}, "a name or a path"),
        ({"ocr_language": "--psm 0"}, "tesseract"),
        ({"cache_dir": 3}, "cache_dir takes a path"),
        ({"chunk_overlap": -1}, "at least 0"),
        ({"chunk_overlap": 0.5}, "a whole number"),
        ({"alpha": 1.01}, "between 0 and 1"),
        ({"alpha": float("nan")}, "between 0 and 1"),
        ({"alpha": "bar"}, "alpha takes a number"),
        ({"k": True}, "a whole number"),
        ({"k": LARGEST + 1}, "at most"),
        ({"page_timeout_s": float("inf")}, "at most"),
        ({"page_timeout_s": 0}, "greater than 0"),
    ],
)
def test_config_refuses_what_a_field_cannot_be(setting, says):
    with pytest.raises(ConfigError, match=says):
        Config(**setting)


def test_every_number_has_bounds():
    plain = [f.name for f in dataclasses.fields(Config) if f.type.split(" | ")[0] in ("int", "float")]
    assert plain == []
    assert len(NUMBERS) > 20


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), float("-inf"), "7", [7], 10**30])
def test_config_refuses_numbers_out_of_bounds(name, value):
    with pytest.raises(ConfigError, match=name):
        Config(**{name: value})


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("value", [1, "yes", None])
def test_config_refuses_what_is_no_flag(name, value):
    with pytest.raises(ConfigError, match=f"{name} takes True or False"):
        Config(**{name: value})


def test_config_names_every_problem_and_the_nearest_setting():
    with pytest.raises(ConfigError, match=r"rrf_k must .*; k must "):
        Config(k=0, rrf_k=0)
    with pytest.raises(ConfigError, match="unknown setting chunk_token; did you mean 'chunk_tokens'"):
        Config.colab(chunk_token=3)


def test_paths_may_be_text_or_paths():
    config = Config(cache_dir="cache", image_model=Path("models/clip"))
    assert config.cache_dir == Path("cache")
    assert config.image_model == str(Path("models/clip"))


@pytest.mark.parametrize("preset", ["basic", "colab", "kaggle", "production", "research", "extreme"])
def test_presets_hold_and_take_changes(preset):
    assert getattr(Config, preset)(k=7).k == 7


def test_config_survives_json():
    config = Config(k=3, cache_dir=Path("cache"), image_model=None)
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_an_index_keeps_only_its_identity(tmp_path):
    with UltraFastRAG(tmp_path / "index", chunk_tokens=64, k=3, **TEXT_ONLY) as rag:
        rag.add_texts(["Ships need harbours."])
        kept = rag._store.get_meta("config")
        assert set(kept) == set(IDENTITY)
        assert str(rag.config.cache_dir) not in json.dumps(kept)


def forge(folder: Path, kept: object) -> None:
    with Store.open(folder) as store:
        store.set_meta("config", kept)


def test_a_strangers_index_chooses_nothing_of_the_session(tmp_path):
    whole = Config(image_model=None).to_json()  # what older versions kept
    forged = {
        "gemini_base_url": "http://127.0.0.1:9/",
        "cache_dir": str(tmp_path / "theirs"),
        "generator": "gemini",
        "local_model": "/etc",
        "speech_model": "/etc",
        "max_workers": 500,
        "worker_memory_mb": 10**6,
        "offline": True,
        "gemini_rpm": 10**6,
        "k": -5,
    }
    forge(tmp_path / "index", {**whole, **forged, "chunk_tokens": 64})
    with UltraFastRAG(tmp_path / "index") as rag:
        assert rag.config == Config(chunk_tokens=64, image_model=None)
    with UltraFastRAG(tmp_path / "index", gemini_base_url="http://127.0.0.1:10/", k=3) as rag:
        assert (rag.config.gemini_base_url, rag.config.k) == ("http://127.0.0.1:10/", 3)


@pytest.mark.parametrize(
    "kept",
    [
        [1, 2],
        "config",
        7,
        {"chunk_tokens": "many"},
        {"chunk_tokens": -1},
        {"chunker": "shredder"},
        {"text_model": ["a"]},
        {"text_model": "https://example.org/model"},
        {"text_model": r"\\example.org\share\model"},
        {"image_model": "//example.org/share/model"},
        {"index_pages": "yes"},
    ],
)
def test_forged_settings_of_an_index_are_a_typed_error(tmp_path, kept):
    forge(tmp_path / "index", kept)
    with pytest.raises(IndexStateError, match="index"):
        UltraFastRAG(tmp_path / "index")


def test_a_session_may_not_ask_for_other_vectors(tmp_path):
    forge(tmp_path / "index", {"chunk_tokens": 64, "image_model": None})
    with pytest.raises(IndexStateError, match="was made with chunk_tokens=64, not 65"):
        UltraFastRAG(tmp_path / "index", chunk_tokens=65)
    with pytest.raises(IndexStateError, match="was made with chunk_tokens=64, not 200"):
        UltraFastRAG(tmp_path / "index", config=Config(image_model=None))
    with UltraFastRAG(tmp_path / "index", config=Config(image_model=None, chunk_tokens=64, k=2)) as rag:
        assert rag.config.k == 2
