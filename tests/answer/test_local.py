"""The local generator with a tiny model built from a config and a tokenizer trained here."""

from __future__ import annotations

import asyncio

import pytest

from ultrafast_rag.answer.local import LocalGenerator
from ultrafast_rag.errors import GenerationError, WeightsError
from ultrafast_rag.types import Hit

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
HITS = [Hit(n, f"d{n}", f"doc{n}.txt", "text", f"Passage {n}: " + f"fact{n} is told here. " * 30, 1.0) for n in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Llama of two layers with random weights, and a byte-level tokenizer of 300 words."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    where = tmp_path_factory.mktemp("tiny-llama")
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<eos>"], initial_alphabet=alphabet)
    raw.train_from_iterator(["the source says a fact"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", model_max_length=4096)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(where)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=4096, eos_token_id=None, bos_token_id=None, **size)
    LlamaForCausalLM(config).save_pretrained(where)
    return where


def load(folder, **changes):
    settings = {"quantization": "none", "device": "cpu", "context_tokens": 1500, "max_new_tokens": 12, "offline": True}
    return LocalGenerator(str(folder), **{**settings, **changes})


def held(model):
    """The transformers model itself."""
    with model._lease() as loaded:
        return loaded.model


async def ask(model, question="What is told?", hits=HITS):
    return [piece async for piece in model.stream(question, hits)]


async def test_the_streamed_reply_is_what_generate_writes(folder):
    import torch

    model = load(folder)
    text = "".join(await ask(model))
    ids = torch.tensor([model._fitted("What is told?", HITS)])
    mask = torch.ones_like(ids)
    whole = held(model).generate(input_ids=ids, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert text == model._tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)
    assert text


def test_the_prompt_follows_the_chat_template_and_marks_its_sources(folder):
    model = load(folder)
    text = model._tokenizer.decode(model._fitted("What is told?", HITS))
    assert text.startswith("<|system|>You answer")
    assert text.endswith("What is told?<|assistant|>")
    assert "fact1^is^told^here." in text


def test_a_template_without_a_system_turn_gets_one_user_turn(folder):
    model = load(folder)
    model._tokenizer.chat_template = NO_SYSTEM
    assert model._tokenizer.decode(model._fitted("Q?", HITS)).startswith("<|user|>You answer")


def test_a_model_without_a_template_gets_plain_paragraphs(folder):
    model = load(folder)
    model._tokenizer.chat_template = None
    assert model._tokenizer.decode(model._fitted("Q?", HITS)).endswith("ANSWER\n")


@pytest.mark.parametrize("window", [3400, 2600])
def test_prompt_and_reply_fit_the_window_and_keep_the_question(folder, window):
    model = load(folder, context_tokens=100_000)
    model.window = window
    token_ids = model._fitted("What is told about the last one?", HITS)
    assert window - 400 < len(token_ids) <= window - 12
    assert model._tokenizer.decode(token_ids).endswith("What is told about the last one?<|assistant|>")


def test_a_window_too_small_says_what_to_do(folder):
    model = load(folder)
    model.window = 200
    with pytest.raises(GenerationError, match="larger"):
        model._fitted("What is told?", HITS)


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
async def test_quantized_weights_are_used_or_the_reason_is_told(folder, bits):
    model = load(folder, quantization=bits)
    kinds = {type(module).__name__ for module in held(model).modules()}
    if f"{bits} failed" in model.precision:
        assert "Linear" in kinds
    else:
        assert model.precision.startswith(f"{bits} weights by bitsandbytes")
        assert kinds & {"Linear8bitLt", "Linear4bit"}
    assert "".join(await ask(model))


def test_auto_on_a_cpu_keeps_plain_weights_and_says_why(folder):
    assert load(folder, quantization="auto").precision == "fp32 weights: 8-bit pays on a GPU only"


async def test_leaving_early_stops_the_model(folder):
    model = load(folder, max_new_tokens=1500)
    pieces = model.stream("What is told?", HITS)
    await anext(pieces)
    await pieces.aclose()
    assert len("".join(await ask(load(folder, max_new_tokens=3)))) >= 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_failure_inside_the_model_is_ours(folder):
    model = load(folder)
    model._fitted = lambda question, hits: [10**6]  # an id beyond the vocabulary
    with pytest.raises(GenerationError, match="local:"):
        await ask(model)


def test_a_folder_without_a_model_is_a_weights_error(tmp_path):
    with pytest.raises(WeightsError, match="local language model"):
        load(tmp_path)


async def test_a_pool_may_let_the_model_go_between_two_answers(folder):
    from ultrafast_rag.answer.local import LOCAL
    from ultrafast_rag.config import Config
    from ultrafast_rag.models.device import plan_device
    from ultrafast_rag.models.pool import ModelPool

    pool = ModelPool(Config(device="cpu"), plan_device(Config(device="cpu")))
    model = load(folder, pool=pool)
    first = await ask(model)
    assert [(use.name, use.loaded) for use in pool.use()] == [(LOCAL, True)]
    assert pool.release(LOCAL)
    assert await ask(model) == first
    use = pool.use()[0]
    assert use.loads == 2
    parameters = sum(p.numel() for p in held(model).parameters())
    assert use.size_bytes == pytest.approx(4 * parameters * 1.3, rel=0.05)
    model.close()
    model._one.shutdown(wait=True)
    assert not pool.use()[0].loaded


def test_a_model_that_thinks_aloud_is_told_not_to(folder):
    model = load(folder)
    model._tokenizer.chat_template = TEMPLATE + "{% if enable_thinking is not false %}<think>{% endif %}"
    assert not model._tokenizer.decode(model._fitted("Q?", HITS)).endswith("<think>")


async def test_4_bits_are_nf4_with_their_scales_quantized(folder):
    model = load(folder, quantization="4bit")
    if "4bit failed" in model.precision:
        pytest.skip(model.precision)
    weight = next(m.weight for m in held(model).modules() if type(m).__name__ == "Linear4bit")
    assert weight.quant_state.quant_type == "nf4"
    assert weight.quant_state.nested
