"""Our vectors against sentence-transformers' own, family by family, for random weights at small true architectures.

What a family computes does not depend on what it learned, so no weights need to be fetched: each row is a model that
transformers builds from a configuration, saved by sentence-transformers itself with its pooling and what follows it.
Weights are drawn ten times as wide as for training, so that attention is sharp and a mask that is wrong shows.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.config import Config
from ultrafast_rag.errors import UltraFastRAGError, require
from ultrafast_rag.models.device import plan_device
from ultrafast_rag.models.text.calibration import calibration_texts
from ultrafast_rag.models.text.encoder import SentenceEncoder, open_text_encoder
from ultrafast_rag.models.text.openvino import OpenVINOEngine
from ultrafast_rag.models.text.torch import TorchEngine
from ultrafast_rag.types import Table, Vectors

ENGINES = ("torch-f32", "torch-f32 ready masks", "torch-bf16", "openvino-f32", "openvino-int8")
LIMIT = 160  # tokens: ten times the widest window below
_WINDOW = 16  # tokens of local attention, a tenth of LIMIT
_SPREAD = 0.2  # standard deviation of the weights; transformers draws 0.02
_VOCABULARY = 512  # tokens; any: bytes and as many merges again


@dataclass(frozen=True, slots=True)
class Family:
    """How one kind of published model is built. kind: prefix of transformers' classes; frame: special tokens around a text."""

    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    frame: tuple[str, str] = ("[CLS]", "[SEP]")
    pooling: str = "mean"
    dense: tuple[tuple[int, str], ...] = ()  # (size, activation in torch.nn)
    prompts: Mapping[str, str] = field(default_factory=dict)
    model: str = ""  # class, where it is not kind + "Model"


_SIZE = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
_DISTIL = {"dim": 64, "n_layers": 3, "n_heads": 4, "hidden_dim": 128}
_T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 3, "num_heads": 4}
_GPT2 = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 512}
_DECODER = {**_SIZE, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512}
_ROBERTA = {**_SIZE, "max_position_embeddings": 514, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
_DEBERTA = {
    **_SIZE,
    **{"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 32, "position_biased_input": False},
    **{"norm_rel_ebd": "layer_norm", "share_att_key": True},
}
_MODERN = {
    **_SIZE,
    **{"local_attention": _WINDOW, "global_attn_every_n_layers": 3, "max_position_embeddings": 512},
    **{"bos_token_id": 1, "eos_token_id": 2},
}
_GEMMA = {
    **_DECODER,
    **{"sliding_window": _WINDOW, "use_bidirectional_attention": True, "query_pre_attn_scalar": 16},
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
}
_E5 = {"query": "query: ", "document": "passage: "}
_NOMIC = {"query": "search_query: ", "document": "search_document: "}
_GEMMA_SAYS = {"query": "task: search result | query: ", "document": "title: none | text: "}
_QWEN_SAYS = {"query": "Instruct: find passages\nQuery:", "document": ""}
_S, _LAST = ("<s>", "</s>"), "lasttoken"
FAMILIES: Mapping[str, Family] = {
    "bert": Family("Bert", _SIZE),
    "bert, first token": Family("Bert", _SIZE, pooling="cls"),
    "bert, Dense with Tanh (LaBSE)": Family("Bert", _SIZE, pooling="cls", dense=((64, "Tanh"),)),
    "bert, prompts (E5)": Family("Bert", _SIZE, prompts=_E5),
    "bert, greatest": Family("Bert", _SIZE, pooling="max"),
    "roberta": Family("Roberta", _ROBERTA, _S),
    "xlm-roberta, prompts (multilingual E5)": Family("XLMRoberta", _ROBERTA, _S, prompts=_E5),
    "camembert": Family("Camembert", _ROBERTA, _S),
    "mpnet": Family("MPNet", _ROBERTA, _S),
    "distilbert": Family("DistilBert", _DISTIL),
    "electra": Family("Electra", {**_SIZE, "embedding_size": 32}),
    "deberta-v2": Family("DebertaV2", _DEBERTA),
    "albert": Family("Albert", {**_SIZE, "embedding_size": 32}),
    "modernbert, local attention": Family("ModernBert", _MODERN),
    "nomic-bert": Family("NomicBert", {**_SIZE, "max_position_embeddings": 512}, prompts=_NOMIC),
    "t5 encoder, Dense (sentence-t5)": Family("T5", _T5, ("", "</s>"), dense=((48, "Identity"),), model="T5EncoderModel"),
    "qwen3, last token, prompt": Family("Qwen3", _DECODER, ("", "</s>"), pooling=_LAST, prompts=_QWEN_SAYS),
    "mistral, last token, sliding window": Family("Mistral", {**_DECODER, "sliding_window": _WINDOW}, _S, pooling=_LAST),
    "gpt2, weighted mean (SGPT)": Family("GPT2", _GPT2, ("", ""), pooling="weightedmean"),
    "gemma3, both directions, sliding window, Dense twice (EmbeddingGemma)": Family(
        "Gemma3Text", _GEMMA, ("<bos>", "<eos>"), dense=((128, "Identity"), (64, "Identity")), prompts=_GEMMA_SAYS
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which families and engines."""
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES), help="which families")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES), help="which engines and masks")


def run(arguments: argparse.Namespace) -> Result:
    """One row a family: least cosine to sentence-transformers over short and long texts, by engine."""
    rows = []
    for name in arguments.families:
        say(f"{name} ...")
        with tempfile.TemporaryDirectory(prefix="ultrafast_rag-parity-") as folder:
            rows.append({"family": name, **measure(name, Path(folder), arguments.engines)})
    notes = (
        f"least cosine to sentence-transformers in float32, of {len(texts())} texts of 1 token to over {LIMIT}, "
        "as passages and as questions",
        f"others: mean cosine between different passages, for comparison; random weights, limit {LIMIT} tokens",
        "ready masks: as on a GPU; where an architecture does not take them, transformers' own are used",
        "refused: engines whose vectors are too far from float32's on this machine to be used; a more exact one stands in, and "
        "says so. Their cosine is shown all the same. Random weights as wide as these are harder on 8 bits than trained ones",
    )
    return Result(Table(rows, "Parity with sentence-transformers", notes=notes), {"limit_tokens": LIMIT})


def texts() -> list[str]:
    """Of one word, of a line, and of several times the limit."""
    lines = [text for text in calibration_texts() if len(text) < 400]
    whole = " ".join(lines)
    return ["Memory", "What is it?", *lines[:20], *(whole[at : at + 900] for at in range(0, 6000, 1000)), whole[:9000]]


def measure(name: str, folder: Path, engines: Sequence[str]) -> dict[str, Any]:
    """Least cosine by engine; a text where an engine cannot run the family."""
    family = FAMILIES[name]
    build(family, folder)
    passages, questions = _theirs(folder)
    exact = np.concatenate([passages, questions])
    found: dict[str, Any] = {"others": float((passages @ passages.T)[np.triu_indices(len(passages), 1)].mean())}
    refused: list[str] = []
    for engine in engines:
        try:
            vectors, taken = _ours(folder, engine, Path(folder, "cache"))
        except UltraFastRAGError as error:
            found[engine] = str(error)[:200]
            continue
        found[engine] = float((vectors * exact).sum(1).min())
        refused += [] if taken else [engine]
    return {**found, "refused": ", ".join(refused)}


def _ours(folder: Path, engine: str, cache_dir: Path) -> tuple[Vectors, bool]:
    """What the engine gives, and whether it is taken for this model here: one that differs is opened all the same."""
    name, _, ready = engine.partition(" ")
    config = Config(text_model=str(folder), engine=name, device="cpu", cache_dir=cache_dir, quiet=True)  # type: ignore[arg-type]
    encoder, plan = open_text_encoder(config), plan_device(config)
    taken = encoder.engine.name == name
    if ready or not taken:
        made = partial(TorchEngine, ready_masks=True if ready else None) if name.startswith("torch-") else OpenVINOEngine
        encoder = SentenceEncoder(encoder.spec, made(encoder.spec, name, plan, config))
    vectors = np.concatenate([encoder.encode(texts()), encoder.encode_queries(texts())])
    encoder.close()
    return vectors, taken


def _theirs(folder: Path) -> tuple[Vectors, Vectors]:
    library = require("sentence_transformers", package="sentence-transformers", extra="test")
    with _silence():
        model = library.SentenceTransformer(
            str(folder), device="cpu", local_files_only=True, model_kwargs={"attn_implementation": "eager"}
        )
        encode: list[Callable[..., Any]] = [model.encode_document, model.encode_query]
        made = [e(texts(), batch_size=1, normalize_embeddings=True, show_progress_bar=False).astype(np.float32) for e in encode]
    return made[0], made[1]


def build(family: Family, folder: Path) -> None:
    """The family's model with random weights, as sentence-transformers saves one."""
    torch, transformers = require("torch"), require("transformers")
    library = require("sentence_transformers", package="sentence-transformers", extra="test")
    kinds = require("sentence_transformers.sentence_transformer.modules", package="sentence-transformers", extra="test")
    plain = folder / "plain"
    torch.manual_seed(0)
    with _silence(), torch.no_grad():
        config = getattr(transformers, f"{family.kind}Config")(**{"vocab_size": _VOCABULARY, "pad_token_id": 0, **family.config})
        model = getattr(transformers, family.model or f"{family.kind}Model")(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, _SPREAD)
        model.save_pretrained(plain)
        _tokenizer(family).save_pretrained(plain)
        body = kinds.Transformer(str(plain), max_seq_length=LIMIT)
        pooling = kinds.Pooling(body.get_embedding_dimension(), pooling_mode=family.pooling)
        modules, size = [body, pooling], body.get_embedding_dimension()
        for after, activation in family.dense:
            modules.append(
                kinds.Dense(size, after, bias=activation != "Identity", activation_function=getattr(torch.nn, activation)())
            )
            size = after
        library.SentenceTransformer(modules=[*modules, kinds.Normalize()], prompts=dict(family.prompts), device="cpu").save(
            str(folder)
        )


def _tokenizer(family: Family) -> Any:
    """Byte pairs of the calibration texts; a family's own special tokens, at the ids that its configuration gives them."""
    transformers = require("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    start, end = family.frame
    specials = list(dict.fromkeys([*(["<s>", "<pad>"] if start == "<s>" else ["<pad>"]), *filter(None, family.frame), "<unk>"]))
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=_VOCABULARY, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(calibration_texts(), trainer)
    numbered = [(token, tokenizer.token_to_id(token)) for token in filter(None, family.frame)]
    if numbered:
        single = " ".join(filter(None, (start, "$A", end)))
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=numbered)
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "model_max_length": 512}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@contextlib.contextmanager
def _silence() -> Any:
    """Neither library's warnings about weights that are random on purpose, nor their progress bars."""
    transformers, before = require("transformers"), logging.root.manager.disable
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        if bars:
            transformers.utils.logging.enable_progress_bar()
