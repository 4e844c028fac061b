"""The cross-encoder: transformers' own logits, pair by pair, on tiny random models made here."""

from __future__ import annotations

import numpy as np
import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, EncodingError
from ultrafast_rag.models.device import plan_device
from ultrafast_rag.models.text.rerank import open_reranker

WORDS = "the a cat dog sat on mat who where is boiling water point of hot red green".split()


def make_model(folder, labels):
    """A random two-layer BERT classifier with a word-level tokenizer, saved as safetensors."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(labels)
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            num_labels=labels,
            initializer_range=0.5,
        )
    )
    model.eval().save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return model, tokenizer


def expected(model, tokenizer, question, passage):
    import torch

    pair = tokenizer.encode(question, passage)
    ids, kinds = pair.ids[:64], pair.type_ids[:64]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([kinds])).logits[0]
    return float(logits[0]) if len(logits) == 1 else float(logits[1] - logits[0])


@pytest.mark.reference
@pytest.mark.parametrize("labels", [1, 2])
def test_scores_are_the_models_logits_in_order(tmp_path, labels):
    model, tokenizer = make_model(tmp_path, labels)
    config = Config(rerank_model=str(tmp_path), device="cpu", batch_tokens=40)
    reranker = open_reranker(config, plan_device(config))
    question, passages = "who sat on the mat", ["the cat sat", "a dog", "the red cat sat on the green mat", "", "boiling water"]
    scores = reranker.score(question, passages)
    np.testing.assert_allclose(scores, [expected(model, tokenizer, question, p) for p in passages], atol=1e-4)
    assert len(set(np.round(scores, 4))) == len(passages)
    assert reranker.score(question, []) == []


def test_a_passage_over_the_limit_is_cut(tmp_path):
    make_model(tmp_path, 1)
    config = Config(rerank_model=str(tmp_path), device="cpu")
    reranker = open_reranker(config, plan_device(config))
    assert reranker.score("who", ["cat " * 500]) == pytest.approx(reranker.score("who", ["cat " * 60]), abs=1e-5)


def test_a_classifier_of_many_classes_is_no_reranker(tmp_path):
    make_model(tmp_path, 5)
    config = Config(rerank_model=str(tmp_path), device="cpu")
    with pytest.raises(EncodingError, match="5 classes"):
        open_reranker(config, plan_device(config))
    with pytest.raises(ConfigError, match="rerank_model"):
        open_reranker(Config(), plan_device(Config(device="cpu")))


def test_8bit_layers_are_used_quietly_and_stay_near_float32_or_the_reason_is_noted(tmp_path, caplog):
    make_model(tmp_path, 1)
    passages = ["the cat sat", "a dog", "the red cat sat on the green mat", "boiling water"]
    exact, quantized = (
        open_reranker(config, plan_device(config))
        for config in (Config(rerank_model=str(tmp_path), device="cpu", quantization=bits) for bits in ("none", "8bit"))
    )
    scores = quantized.score("who sat on the mat", passages)
    np.testing.assert_allclose(scores, exact.score("who sat on the mat", passages), atol=0.5)
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes")]
    if "rerank-8bit" in quantized.fingerprint:
        assert "Linear8bitLt" in {type(layer).__name__ for layer in quantized._model.modules()}
    else:
        assert any("8bit" in note for note in quantized.notes)
