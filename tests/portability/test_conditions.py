"""An index under conditions that differ from those it was made in: it gives the same results, or says what it cannot do.

Each condition is a process of its own. `same`: the passages of the machine that made the index, in their order;
`says`: words of an error, a note, a warning or a row of `doctor()`. Every third runs by default, the
others are marked long: each opens models in a process of its own, which takes some six seconds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.index.store import Store
from ultrafast_rag.models.weights import PACKAGED_ID, resolve

ROOT = Path(__file__).parents[2]
SETTINGS = {"image_model": None, "speech_model": None, "quiet": True, "offline": True, "device": "cpu"}
QUESTIONS = {
    "How much oil does the lamp burn?": "colza oil",
    "When do spring tides come, and what is their range at Kellow Point in metres at the most?": "6.4 metres",
    "Who tends the bees?": "beekeeper",
}
TIDES = """# Tides

Spring tides come twice a month, when sun and moon pull in line. At Kellow Point the range is then 6.4 metres.

# Neap tides

Neap tides come a week later. The range falls to 2.1 metres and the mud flats stay covered.
"""
LAMP = "# The lamp\n\nThe lamp burns colza oil since 1871, two litres a night. Its keeper was Marta Oduya – née Ólafsdóttir."


@dataclass(frozen=True)
class Condition:
    """What differs. asked: fields of the child's task; environment: None removes a variable; says: what it must be told."""

    name: str
    asked: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    same: bool = True
    says: str = ""
    cwd: str = ""
    prepare: str = ""  # a function below, by name


CONDITIONS = [
    Condition("as it was made"),
    Condition("without OpenVINO", {"without": ["openvino"]}, says=r"pip install 'ultrafast_rag\[cpu\]' makes encoding"),
    Condition("one core", {"cores": 1}),
    Condition("bf16 instead of float32", settings={"engine": "torch-bf16"}),
    Condition("int8 instead of float32", settings={"engine": "openvino-int8"}),
    Condition("converted instead of torch", settings={"engine": "openvino-f32"}),
    Condition("8-bit layers asked for without bitsandbytes", {"without": ["bitsandbytes"]},
              {"engine": "torch-f32", "quantization": "8bit"}, says=r"pip install 'ultrafast_rag\[quant\]'"),
    Condition("another HOME", environment={"HOME": "{tmp}/home", "XDG_CACHE_HOME": None}, settings={"engine": "torch-f32"}),
    Condition("an empty cache", environment={"UFR_CACHE_DIR": "{tmp}/new"}, settings={"engine": "torch-f32"}),
    Condition("a cache that cannot be written", environment={"UFR_CACHE_DIR": "{tmp}/file/below"}, prepare="file",
              settings={"engine": "torch-f32"}, says="cache"),
    Condition("the model by another path", {}, {"text_model": "{tmp}/in/minilm", "engine": "torch-f32"}, prepare="moved_model"),
    Condition("a path of the maker's machine as the model", prepare="made_with_a_path", settings={"engine": "torch-f32"},
              says="/kaggle/input/minilm is not on this machine"),
    Condition("another model of the same size", settings={"text_model": "{tmp}/other"}, prepare="other_model", same=False,
              says="cannot be compared"),
    Condition("an index of 0.1 that names an engine", prepare="older", settings={"engine": "torch-f32"}),
    Condition("damaged reference vectors", prepare="damaged_reference", same=False, says="reference vectors are damaged"),
    Condition("an engine wrong at one width", {"engine_wrong": "32"}, {"engine": "openvino-f32"}, prepare="own_engines",
              says=r"padded past the widths where it is wrong here: 32"),
    Condition("an engine wrong everywhere", {"engine_wrong": "everywhere"}, {"engine": "openvino-f32"}, prepare="own_engines",
              says="torch-f32 encodes instead"),
    Condition("a C locale", environment={"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    Condition("another time zone", environment={"TZ": "Pacific/Auckland"}),
    Condition("no folder for temporary files", environment={"TMPDIR": "{tmp}/gone"}),
    Condition("another working directory", cwd="/"),
    Condition("asserts switched off and another hash seed", environment={"PYTHONOPTIMIZE": "1", "PYTHONHASHSEED": "7"}),
    Condition("sources gone", prepare="sources_gone", says="is not here any more"),
    Condition("sources changed", prepare="sources_changed", says="has changed since it was read"),
    Condition("no tesseract", {"ingest": [str(ROOT / "data/samples/scan_0023.png")]}, environment={"PATH": "/nowhere"},
              says="apt-get install -y tesseract-ocr"),
    Condition("a GPU asked for that is not there", settings={"device": "cuda"}, same=False, says="no usable GPU|no GPU"),
    Condition("a GPU claimed by the environment", settings={"device": "auto"}, environment={"CUDA_VISIBLE_DEVICES": "0"},
              says="no GPU found|devices cpu|devices cuda"),
    Condition("a half-set variable for threads", environment={"OMP_NUM_THREADS": ""}),
    Condition("a Hugging Face cache that is not there", environment={"HF_HUB_CACHE": "{tmp}/none", "HF_HOME": "{tmp}/none"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder of the index, its sources, what it answers where it was made)."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "sources").mkdir()
    (folder / "sources" / "tides.md").write_text(TIDES, encoding="utf-8")
    (folder / "sources" / "lamp.md").write_text(LAMP, encoding="utf-8")
    with UltraFastRAG(folder / "index", **SETTINGS, engine="torch-f32") as rag:
        rag.ingest(folder / "sources")
        rag.add_texts(["The beekeeper of the island tends nine hives behind the school."], ids=["bees"])
        answers = {question: [hit.text for hit in rag.search(question, k=3)] for question in QUESTIONS}
    for question, words in QUESTIONS.items():
        assert words in answers[question][0]
    return folder, answers


def run(made, tmp_path, condition):
    folder, _ = made
    shutil.copytree(folder / "index", tmp_path / "index")
    if condition.prepare:
        PREPARE[condition.prepare](tmp_path, folder)
    settings = {
        name: value.format(tmp=tmp_path) if isinstance(value, str) else value for name, value in condition.settings.items()
    }
    task = {
        "index": str(tmp_path / "index"),
        "questions": list(QUESTIONS),
        "settings": {**SETTINGS, **settings},
        **{name: value.format(tmp=tmp_path) if name == "archive" else value for name, value in condition.asked.items()},
    }
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    for name, value in condition.environment.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value.format(tmp=tmp_path)
    if condition.prepare == "own_engines":
        environment["UFR_CACHE_DIR"] = str(tmp_path / "cache")
    command = [sys.executable, str(ROOT / "tests/portability/ask.py"), json.dumps(task)]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=250, cwd=condition.cwd or None, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return json.loads(done.stdout)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "condition",
    [
        pytest.param(condition, id=condition.name, marks=[pytest.mark.long] if n % 3 else [])
        for n, condition in enumerate(CONDITIONS)
    ],
)
def test_an_index_gives_the_same_or_says_why_not(made, tmp_path, condition):
    if "openvino" in str(condition.settings):
        pytest.importorskip("openvino")
    said = run(made, tmp_path, condition)
    told = "\n".join([said.get("error", ""), *said["warnings"], *said.get("doctor", ()), *map(str, said.get("report", ())),
                      *(str(e) for e in said.get("evidence", ()))])  # fmt: skip
    if condition.says:
        assert re.search(condition.says, told), told
    if condition.same:
        assert "error" not in said, said["error"]
        for question, texts in made[1].items():
            assert said["hits"][question][0] == texts[0]
            assert set(said["hits"][question]) == set(texts)
    else:
        assert "error" in said, "neither the same nor an error"
        assert len(said["error"]) > 40


@pytest.mark.timeout(300)
def test_an_archive_gives_the_same_on_another_machine_without_the_sources(made, tmp_path):
    """Another HOME, cache and path to the model; what the documents held is shown, and that they are gone is said."""
    elsewhere = {"HOME": "{tmp}/home", "XDG_CACHE_HOME": None, "UFR_CACHE_DIR": "{tmp}/cache", "HF_HOME": "{tmp}/none"}
    settings = {"text_model": "{tmp}/in/minilm", "engine": "torch-f32"}
    said = run(made, tmp_path, Condition("", {"archive": "{tmp}/moved.tar"}, settings, elsewhere, prepare="archived"))
    assert "error" not in said, said["error"]
    assert said["hits"] == made[1]
    shown = dict(zip(QUESTIONS, said["evidence"], strict=True))
    lamp = shown["How much oil does the lamp burn?"]
    assert re.search(
        r"lamp\.md (is not here any more|was read on another machine).*; the text above is what was stored of it", lamp[2]
    )
    assert shown["Who tends the bees?"] is None, "a passage given as text has no source to miss"
    made_here = str(tmp_path / "sources")
    assert not any(made_here in row for row in said["doctor"]), "a path of the machine that made it"


def _archived(tmp_path, folder):
    _sources(tmp_path, folder)
    with UltraFastRAG(tmp_path / "index", **SETTINGS, engine="torch-f32") as rag:
        rag.export(tmp_path / "moved.tar")
    shutil.rmtree(tmp_path / "index")
    shutil.rmtree(tmp_path / "sources")
    _moved_model(tmp_path, folder)


def _file(tmp_path, folder):
    (tmp_path / "file").write_text("no folder")


def _moved_model(tmp_path, folder):
    shutil.copytree(resolve(PACKAGED_ID, offline=True).path, tmp_path / "in" / "minilm")


def _other_model(tmp_path, folder):
    from safetensors.numpy import load_file, save_file

    copy = shutil.copytree(resolve(PACKAGED_ID, offline=True).path, tmp_path / "other")
    weights = load_file(copy / "model.safetensors")
    name = next(name for name in weights if name.endswith("LayerNorm.weight"))
    (copy / "model.safetensors").unlink()
    save_file({**weights, name: weights[name] * 1.01}, copy / "model.safetensors", metadata={"format": "pt"})


def _facts(tmp_path, **changes):
    """Change what the index says about itself: name -> what makes a value of the old one."""
    with Store.open(tmp_path / "index") as store:
        for name, change in changes.items():
            store.set_meta(name, change(store.get_meta(name)))


def _made_with_a_path(tmp_path, folder):
    _facts(tmp_path, config=lambda known: {**known, "text_model": "/kaggle/input/minilm"})


def _older(tmp_path, folder):
    old = {"text": f"{PACKAGED_ID}@53aa51172d142c89|openvino-int8+00000000|mean|256"}
    _facts(tmp_path, fingerprints=lambda known: old, reference=lambda known: None)


def _damaged_reference(tmp_path, folder):
    _facts(tmp_path, reference=lambda known: {**known, "digest": "0" * 16})


def _sources_gone(tmp_path, folder):
    _sources(tmp_path, folder)
    shutil.rmtree(tmp_path / "sources")


def _sources_changed(tmp_path, folder):
    _sources(tmp_path, folder)
    (tmp_path / "sources" / "lamp.md").write_text("# The lamp\n\nIt was electrified.")
    (tmp_path / "sources" / "tides.md").write_text("# Tides\n\nThere are none.")


def _sources(tmp_path, folder):
    """An index of its own, whose sources may be touched."""
    shutil.rmtree(tmp_path / "index")
    shutil.copytree(folder / "sources", tmp_path / "sources")
    with UltraFastRAG(tmp_path / "index", **SETTINGS, engine="torch-f32") as rag:
        rag.ingest(tmp_path / "sources")
        rag.add_texts(["The beekeeper of the island tends nine hives behind the school."], ids=["bees"])


def _own_engines(tmp_path, folder):
    """A cache of its own: what a broken engine is found to be is not remembered for the others; conversions are shared."""
    from ultrafast_rag.config import default_cache_dir

    (tmp_path / "cache" / "engines").mkdir(parents=True)
    for path in (default_cache_dir() / "engines").glob("text-*"):
        (tmp_path / "cache" / "engines" / path.name).symlink_to(path, target_is_directory=True)


PREPARE = {name.removeprefix("_"): value for name, value in list(globals().items()) if name.startswith("_") and callable(value)}
