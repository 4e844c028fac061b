"""What a sentence encoder's folder says about it, and its tokenizer, read without transformers.

The `tokenizers` library alone loads in milliseconds; importing transformers takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ultrafast_rag.errors import ConfigError, WeightsError
from ultrafast_rag.models.weights import Weights

Pooling = Literal["mean", "cls", "lasttoken", "max", "weightedmean"]
_POOLING: dict[str, Pooling] = {
    **{"mean_tokens": "mean", "mean": "mean", "cls_token": "cls", "cls": "cls", "lasttoken": "lasttoken"},
    **{"mean_sqrt_len_tokens": "mean", "max_tokens": "max", "max": "max"},  # of unit length, the first is the mean
    **{"weightedmean_tokens": "weightedmean", "weightedmean": "weightedmean"},
}
_MODULES = ("Transformer", "Pooling", "Dense", "Normalize", "Dropout")  # of sentence-transformers; Dropout is for training
# torch.nn's classes that Dense layers of published models name
ACTIVATIONS = ("Identity", "Tanh", "GELU", "ReLU", "SiLU", "Sigmoid")
# Tokens of one text at most. Each engine is compared with float32 at every width up to its limit before it is used: at the
# 32 768 of Qwen3-Embedding that takes hours on two cores, and a passage is ten times shorter than this
LONGEST = 2048
_NO_LIMIT = 1_000_000  # transformers writes 1e30 for "no limit"


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """A linear layer that pooled vectors go through. folder: its safetensors; activation: one of ACTIVATIONS; digest: of both."""

    folder: Path = field(compare=False)
    activation: str
    size: int
    digest: str


Step = DenseLayer | Literal["normalize"]


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """A sentence encoder: weights, vector size, pooling, longest input in tokens (specials included), prompts.

    steps: what comes after pooling, in order. dim: of the vectors; fewer than the model's own are its first ones.
    """

    weights: Weights
    dim: int
    layers: int
    pooling: Pooling
    max_tokens: int
    query_prompt: str = ""
    passage_prompt: str = ""
    steps: tuple[Step, ...] = ()
    lowers: bool = False  # texts are put in small letters first
    config: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def space(self) -> str:
        """What makes vectors comparable: weights by content, pooling, limit, size, prompts. The name before "@" only shows."""
        said = f"{self.query_prompt}\0{self.passage_prompt}"
        prompts = f"|prompts {hashlib.sha256(said.encode()).hexdigest()[:8]}" if said != "\0" else ""
        kept = [self.weights.revision, self.pooling, f"{self.max_tokens} tokens", f"{self.dim}d"]
        if any(
            isinstance(step, DenseLayer) for step in self.steps
        ):  # only what is not the rule, so that older spaces stay theirs
            kept.append(f"then {' '.join(step if isinstance(step, str) else step.digest for step in self.steps)}")
        return f"{self.weights.name}@{'|'.join(kept)}{'|small letters' if self.lowers else ''}{prompts}"

    @classmethod
    def read(
        cls, weights: Weights, *, query_prompt: str | None = None, passage_prompt: str | None = None, dim: int | None = None
    ) -> EncoderSpec:
        """From the json files of a Hugging Face or sentence-transformers folder.

        Prompts are the model's own where None. dim: how many of a vector's first numbers are kept; None keeps all.
        Raises WeightsError for a folder that is no encoder, or one that does what is not supported here, and
        ConfigError for a dim over the model's own.
        """
        config = _json(weights.path / "config.json")
        whole = config.get("hidden_size") or config.get("dim") or config.get("d_model") or config.get("n_embd")
        if not whole:
            raise WeightsError(f"{weights.model_id} is not a text encoder: its config.json names no hidden_size")
        modules = _modules(weights)
        steps = _steps(weights, modules)
        size = next((step.size for step in reversed(steps) if isinstance(step, DenseLayer)), int(whole))
        if dim is not None and dim > size:
            raise ConfigError(f"text_dim={dim}, and {weights.model_id} has vectors of {size} numbers; give at most that")
        own_query, own_passage = _prompts(_json(weights.path / "config_sentence_transformers.json"))
        return cls(
            weights,
            dim=dim or size,
            layers=int(config.get("num_hidden_layers") or config.get("n_layers") or config.get("num_layers") or 1),
            pooling=_pooling(weights, modules),
            max_tokens=_max_tokens(weights.path, config),
            query_prompt=own_query if query_prompt is None else query_prompt,
            passage_prompt=own_passage if passage_prompt is None else passage_prompt,
            steps=steps,
            lowers=_json(weights.path / "sentence_bert_config.json").get("do_lower_case") is True,
            config=config,
        )


def same_space(one: str, other: str) -> bool:
    """True when vectors of both may stand beside each other, whatever the models are called and where they lie.

    Until version 0.2 an index named its engine too ("name@revision|engine|pooling|limit"): that is read, and left out.
    """
    return _comparable(one, other) == _comparable(other, one)


def _comparable(space: str, other: str) -> list[str]:
    parts = space.rpartition("@")[2].split("|")
    is_old = [len(p) == 4 and "-" in p[1] for p in (parts, other.rpartition("@")[2].split("|"))]
    if is_old[0]:
        return [parts[0], parts[2], f"{parts[3].removesuffix(' tokens')} tokens"]
    return parts[:3] if is_old[1] else parts


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    return value if isinstance(value, dict) else {}


def _prompts(settings: Mapping[str, Any]) -> tuple[str, str]:
    """(before questions, before passages), chosen as sentence-transformers' encode_query and encode_document do."""
    prompts = settings.get("prompts") or {}
    usual = str(prompts.get(settings.get("default_prompt_name")) or "")

    def first(*names: str) -> str:
        return next((str(prompts[name] or "") for name in names if name in prompts), usual)

    return first("query"), first("document", "passage", "corpus")


def _modules(weights: Weights) -> list[tuple[str, str]]:
    """(kind, subfolder) of each module, in order; [] without a modules.json. WeightsError for a kind that is not known here.

    A model whose vectors go through more than is done here would give others, without a word.
    """
    path = weights.path / "modules.json"
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        modules = [(str(module["type"]).rpartition(".")[2], str(module["path"])) for module in found]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    kinds = [kind for kind, _ in modules]
    if other := sorted(set(kinds) - {*_MODULES}):
        raise WeightsError(
            f"{weights.model_id} puts {', '.join(other)} between its encoder and its vectors; supported are "
            f"{', '.join(_MODULES)}. Choose another text_model"
        )
    if kinds[:2] != ["Transformer", "Pooling"] or len(set(kinds[:2]) & set(kinds[2:])) > 0:
        raise WeightsError(
            f"{weights.model_id} is built of {', '.join(kinds)}; supported is Transformer, Pooling, then the others"
        )
    if any(".." in Path(folder).parts or Path(folder).is_absolute() for _, folder in modules):
        raise WeightsError(f"{path} names a folder outside the model")
    return modules


def _steps(weights: Weights, modules: Sequence[tuple[str, str]]) -> tuple[Step, ...]:
    steps: list[Step] = []
    for kind, folder in modules:
        if kind == "Dense":
            steps.append(_dense(weights.path / folder))
        elif kind == "Normalize":
            steps.append("normalize")
    return tuple(steps)


def _dense(folder: Path) -> DenseLayer:
    settings = _json(folder / "config.json")
    activation = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    names = {settings.get("module_input_name", "sentence_embedding"), settings.get("module_output_name", "sentence_embedding")}
    if activation not in ACTIVATIONS or settings.get("use_residual") or not names <= {"sentence_embedding", None}:
        raise WeightsError(
            f"{folder} is a Dense layer of a kind that is not supported here ({activation}); choose another text_model"
        )
    file = folder / "model.safetensors"
    if not file.is_file():
        raise WeightsError(
            f"{folder} holds no model.safetensors; pickled weights are not opened. Save the model again as safetensors"
        )
    digest = hashlib.sha256(file.read_bytes() + activation.encode()).hexdigest()[:8]
    try:
        return DenseLayer(folder, activation, int(settings["out_features"]), digest)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{folder / 'config.json'} names no out_features") from error


def _pooling(weights: Weights, modules: Sequence[tuple[str, str]]) -> Pooling:
    folder = next((folder for kind, folder in modules if kind == "Pooling"), "1_Pooling")
    modes = _json(weights.path / folder / "config.json")
    chosen = {name.removeprefix("pooling_mode_") for name, on in modes.items() if name.startswith("pooling_mode_") and on is True}
    if mode := modes.get("pooling_mode"):  # newer sentence-transformers write one name
        chosen = {str(one) for one in mode} if isinstance(mode, list) else {str(mode)}
    if modes.get("include_prompt") is False:
        raise WeightsError(
            f"{weights.model_id} leaves its prompt out of the pooling, which is not supported; choose another text_model"
        )
    if not chosen:
        return "mean"
    pooling = _POOLING.get(next(iter(chosen))) if len(chosen) == 1 else None
    if pooling is None:
        raise WeightsError(
            f"{weights.model_id} pools by {', '.join(sorted(chosen))}; supported is one of mean, cls, lasttoken, max"
        )
    return pooling


def _max_tokens(folder: Path, config: Mapping[str, Any]) -> int:
    """The smallest stated limit: the sentence encoder's own, the tokenizer's, the positions there are; LONGEST at most."""
    positions = int(config.get("max_position_embeddings") or config.get("n_positions") or 512)
    positions = positions if positions > 0 else 512  # XLNet says -1
    if config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= 2  # their position ids start after the padding id
    own = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    tokenizer = _json(folder / "tokenizer_config.json").get("model_max_length")
    stated = [int(limit) for limit in (own, tokenizer) if isinstance(limit, (int, float)) and 0 < limit < _NO_LIMIT]
    return min([positions, *stated, LONGEST])


class WordPieces:
    """The encoder's tokenizer. Thread-safe; truncation and padding are done by the caller on ids."""

    def __init__(self, spec: EncoderSpec) -> None:
        from tokenizers import Tokenizer

        path = spec.weights.path / "tokenizer.json"
        if not path.is_file():
            raise WeightsError(f"{spec.weights.model_id} has no tokenizer.json; save its fast tokenizer beside the weights")
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._encode_batch = getattr(self._tokenizer, "encode_batch_fast", self._tokenizer.encode_batch)
        self.max_tokens = spec.max_tokens
        self._lowers = spec.lowers
        self.prefix, self.suffix = self._specials()
        self.pad_id = int(spec.config.get("pad_token_id") or 0)
        said = getattr(self._tokenizer.model, "unk_token", None)
        self._unknown = self._tokenizer.token_to_id(said) if said else getattr(self._tokenizer.model, "unk_id", None)
        self.vocabulary_size: int = self._tokenizer.get_vocab_size()

    def _specials(self) -> tuple[list[int], list[int]]:
        bare = self._tokenizer.encode("a", add_special_tokens=False).ids
        full = self._tokenizer.encode("a", add_special_tokens=True).ids
        for start in range(len(full) - len(bare) + 1):
            if full[start : start + len(bare)] == bare:
                return full[:start], full[start + len(bare) :]
        raise WeightsError("this tokenizer rewrites text when it adds special tokens; it cannot be used here")

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens, not truncated."""
        asked = [text.lower() for text in texts] if self._lowers else list(texts)
        return [encoding.ids for encoding in self._encode_batch(asked, add_special_tokens=False)]

    def prompt(self, text: str) -> list[int]:
        """Token ids of what is put before each text; [] for none. A space at its end may belong to the text's first word."""
        if not text:
            return []
        alone, (both, bare) = self.tokenize([text])[0], self.tokenize([text + "a", "a"])
        return both[: len(both) - len(bare)] if both[len(both) - len(bare) :] == bare else alone

    def joins(self, text: str) -> bool:
        """True when a prompt's tokens and a text's, one after the other, are those of both written as one."""
        both, bare = self.tokenize([text + "a", "a"])
        return both == [*self.prompt(text), *bare]

    def known_share(self, text: str) -> float:
        """Share of the text's letters, marks and digits in pieces of two or more, or in a word of one; 1 without letters.

        A vocabulary spells a script that it was not made for letter by letter, drops its marks, or says [UNK].
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        starts: dict[int | None, int] = {}
        ends: dict[int | None, int] = {}
        for word, (start, end) in zip(encoding.word_ids, encoding.offsets):
            starts.setdefault(word, start)
            ends[word] = end
        letters = [unicodedata.category(c)[0] in "LMN" for c in text]
        known = sum(
            sum(letters[start:end])
            for token, word, (start, end) in zip(encoding.ids, encoding.word_ids, encoding.offsets)
            if token != self._unknown and (end - start > 1 or (start, end) == (starts[word], ends[word]))
        )
        return min(1.0, known / sum(letters)) if any(letters) else 1.0

    def text(self, token_ids: Sequence[int]) -> str:
        """Words of the tokens, for messages."""
        return str(self._tokenizer.decode(list(token_ids)))

    def with_special_tokens(self, token_ids: Sequence[Sequence[int]], prompt: Sequence[int] = ()) -> list[list[int]]:
        """With prompt and special tokens, cut to `max_tokens`."""
        head = [*self.prefix, *prompt]
        room = self.max_tokens - len(head) - len(self.suffix)
        return [[*head, *ids[:room], *self.suffix] for ids in token_ids]
