"""Every kind of text model against sentence-transformers, which is what its authors measured it with."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from ultrafast_rag.bench import parity
from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, IndexStateError, WeightsError
from ultrafast_rag.models.device import plan_device
from ultrafast_rag.models.text import torch as torch_engine
from ultrafast_rag.models.text.encoder import SentenceEncoder, open_text_encoder
from ultrafast_rag.models.text.tokens import same_space
from ultrafast_rag.models.text.torch import TorchEngine

pytest.importorskip("sentence_transformers")
pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")]
EXACT = 0.99999


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """family -> a folder with it, built once."""
    built = {}

    def folder(name):
        if name not in built:
            built[name] = tmp_path_factory.mktemp("family")
            parity.build(parity.FAMILIES[name], built[name])
        return built[name]

    return folder


def config(folder, tmp_path, **more):
    return Config(text_model=str(folder), engine="torch-f32", device="cpu", cache_dir=tmp_path / "cache", quiet=True, **more)


@pytest.mark.parametrize("name", parity.FAMILIES)
def test_vectors_of_each_family_are_those_of_sentence_transformers_with_either_mask(name, tmp_path):
    found = parity.measure(name, tmp_path, ("torch-f32", "torch-f32 ready masks"))
    assert found["others"] < 0.99, "passages must differ for this to say anything"
    assert found["torch-f32"] > EXACT
    assert found["torch-f32 ready masks"] > EXACT


@pytest.mark.parametrize("name", ["modernbert, local attention", "bert, Dense with Tanh (LaBSE)"])
def test_converted_models_are_too(name, tmp_path):
    pytest.importorskip("openvino")
    assert parity.measure(name, tmp_path, ("openvino-f32",))["openvino-f32"] > EXACT


@pytest.mark.parametrize("name", ["modernbert, local attention", "qwen3, last token, prompt"])
def test_a_ready_mask_would_lose_a_window_or_a_direction(name, folders, tmp_path, monkeypatch):
    settings = config(folders(name), tmp_path)
    spec = open_text_encoder(settings).spec
    right = SentenceEncoder(spec, TorchEngine(spec, "torch-f32", plan_device(settings), settings)).encode(parity.texts())
    monkeypatch.setattr(torch_engine, "_SEES_ALL", (spec.config["model_type"],))
    monkeypatch.setattr(torch_engine._Replica, "_takes_ready_masks", lambda self: True)
    forced = SentenceEncoder(spec, TorchEngine(spec, "torch-f32", plan_device(settings), settings, ready_masks=True))
    assert (forced.encode(parity.texts()) * right).sum(1).min() < 0.99


def test_an_architecture_without_fused_attention_runs_on_plain(folders, tmp_path, monkeypatch):
    import transformers

    folder, asked = folders("mpnet"), []
    load = transformers.AutoModel.from_pretrained

    def refuses(path, *, attn_implementation, **options):
        asked.append(attn_implementation)
        if attn_implementation == "sdpa":
            raise ValueError("MPNetModel does not support an attention implementation through sdpa yet")
        return load(path, attn_implementation=attn_implementation, **options)

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", refuses)
    assert open_text_encoder(config(folder, tmp_path)).encode(["a"]).shape == (1, 64)
    assert asked == ["sdpa", "eager"]


def test_vectors_of_fewer_numbers_are_those_of_sentence_transformers(folders, tmp_path):
    from sentence_transformers import SentenceTransformer

    name = "gemma3, both directions, sliding window, Dense twice (EmbeddingGemma)"
    theirs = SentenceTransformer(str(folders(name)), device="cpu", truncate_dim=24, model_kwargs={"attn_implementation": "eager"})
    exact = theirs.encode_document(parity.texts(), batch_size=1, normalize_embeddings=True, show_progress_bar=False)
    encoder = open_text_encoder(config(folders(name), tmp_path, text_dim=24))
    assert encoder.dim == 24
    assert (encoder.encode(parity.texts()) * exact).sum(1).min() > EXACT
    whole = open_text_encoder(config(folders(name), tmp_path)).space
    assert not same_space(encoder.space, whole)
    with pytest.raises(ConfigError, match=r"text_dim=65, and .* has vectors of 64 numbers"):
        open_text_encoder(config(folders(name), tmp_path, text_dim=65))


def test_prompts_by_setting_take_the_place_of_the_models_own_and_are_part_of_the_space(folders, tmp_path):
    from sentence_transformers import SentenceTransformer

    folder = folders("xlm-roberta, prompts (multilingual E5)")
    theirs = SentenceTransformer(str(folder), device="cpu", model_kwargs={"attn_implementation": "eager"})
    options = {"batch_size": 1, "normalize_embeddings": True, "show_progress_bar": False}
    encoder = open_text_encoder(config(folder, tmp_path, query_prompt="Ask me: ", passage_prompt=""))
    for ours, prompt in ((encoder.encode_queries, "Ask me: "), (encoder.encode, "")):
        assert (ours(parity.texts()) * theirs.encode(parity.texts(), prompt=prompt, **options)).sum(1).min() > EXACT
    own = open_text_encoder(config(folder, tmp_path))
    assert not same_space(own.space, encoder.space)
    with pytest.raises(IndexStateError, match="cannot be compared"):
        open_text_encoder(config(folder, tmp_path), space=encoder.space)


@pytest.mark.parametrize("name", ["bert, prompts (E5)", "qwen3, last token, prompt"])
def test_chunks_tokens_give_the_vectors_of_their_text_after_a_prompt_too(name, folders, tmp_path):
    encoder = open_text_encoder(config(folders(name), tmp_path, passage_prompt="passage: "))
    assert not encoder._joins, "byte pairs take the space before a word into it"
    texts = parity.texts()[:12]
    np.testing.assert_allclose(encoder.encode_tokens(encoder.tokenize(texts)), encoder.encode(texts), atol=1e-5)


def changed(folder, target, file, **values):
    copy = shutil.copytree(folder, target)
    path = copy / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return copy


def test_what_a_dense_layer_is_belongs_to_the_space_and_what_is_not_known_is_refused(folders, tmp_path):
    folder = folders("bert, Dense with Tanh (LaBSE)")
    plain = open_text_encoder(config(folder, tmp_path)).space
    other = changed(folder, tmp_path / "a", "2_Dense/config.json", activation_function="torch.nn.modules.activation.ReLU")
    assert not same_space(plain, open_text_encoder(config(other, tmp_path)).space)
    evil = changed(folder, tmp_path / "b", "2_Dense/config.json", activation_function="os.system")
    with pytest.raises(WeightsError, match="not supported here"):
        open_text_encoder(config(evil, tmp_path))
    residual = changed(folder, tmp_path / "c", "2_Dense/config.json", use_residual=True)
    with pytest.raises(WeightsError, match="not supported here"):
        open_text_encoder(config(residual, tmp_path))
    wrong = changed(folder, tmp_path / "d", "2_Dense/config.json", out_features=48)
    with pytest.raises(WeightsError, match="beside what its config"):
        open_text_encoder(config(wrong, tmp_path))
    (wrong / "2_Dense" / "model.safetensors").rename(wrong / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="pickled weights are not opened"):
        open_text_encoder(config(wrong, tmp_path))


def test_modules_in_another_order_or_outside_the_folder_are_refused(folders, tmp_path):
    folder = shutil.copytree(folders("bert, Dense with Tanh (LaBSE)"), tmp_path / "m")
    path = folder / "modules.json"
    modules = json.loads(path.read_text())
    path.write_text(json.dumps([modules[0], modules[2], modules[1], modules[3]]))
    with pytest.raises(WeightsError, match="is built of Transformer, Dense, Pooling"):
        open_text_encoder(config(folder, tmp_path))
    path.write_text(json.dumps([*modules[:2], {**modules[2], "path": "../elsewhere"}]))
    with pytest.raises(WeightsError, match="outside the model"):
        open_text_encoder(config(folder, tmp_path))


def metaspace(folder):
    """A tokenizer that writes the space before a word into it, as multilingual E5's does: one at the end stands alone."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = sorted({word for text in parity.calibration_texts() for word in text.split()})[:480]
    known = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", "\u2581passage:", "\u2581query:", "\u2581a"]
    names = list(dict.fromkeys([*known, *(f"\u2581{word}" for word in words)]))
    tokenizer = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.mark.fault
def test_an_index_from_when_a_prompts_last_space_was_a_token_is_opened(folders, tmp_path):
    from ultrafast_rag.models.text.reference import MIN_COSINE, Reference

    folder = tmp_path / "model"
    shutil.copytree(folders("xlm-roberta, prompts (multilingual E5)"), folder)
    metaspace(folder)
    encoder = open_text_encoder(config(folder, tmp_path))
    pieces = encoder._pieces
    assert len(pieces.tokenize(["passage: "])[0]) == len(pieces.prompt("passage: ")) + 1
    texts = encoder.reference().texts
    old = [pieces.with_special_tokens(pieces.tokenize([text]), pieces.tokenize(["passage: "])[0]) for text in texts]
    vectors = np.concatenate([encoder.engine.run(framed) for framed in old])
    assert (vectors * encoder.reference().vectors).sum(1).min() < MIN_COSINE["f32"], "the old code refused it"
    reopened = open_text_encoder(config(folder, tmp_path), space=encoder.space, reference=Reference(texts, vectors))
    assert reopened.engine.name == "torch-f32"
    with pytest.raises(IndexStateError, match="other vectors here than the index holds"):
        open_text_encoder(config(folder, tmp_path), space=encoder.space, reference=Reference(texts, vectors[::-1].copy()))
