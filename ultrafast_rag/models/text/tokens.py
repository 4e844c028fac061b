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

from ultrafast_rag.errors import WeightsError
from ultrafast_rag.models.weights import Weights

Pooling = Literal["mean", "cls", "lasttoken"]
_POOLING: dict[str, Pooling] = {"mean_tokens": "mean", "mean": "mean", "cls_token": "cls", "cls": "cls", "lasttoken": "lasttoken"}
_MODULES = {"Transformer", "Pooling", "Normalize"}  # of sentence-transformers; vectors are always of unit length here
_NO_LIMIT = 1_000_000  # transformers writes 1e30 for "no limit"


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """A sentence encoder: weights, vector size, pooling, longest input in tokens (specials included), prompts."""

    weights: Weights
    dim: int
    layers: int
    pooling: Pooling
    max_tokens: int
    query_prompt: str = ""
    passage_prompt: str = ""
    config: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def space(self) -> str:
        """What makes vectors comparable: weights by content, pooling, limit, size, prompts. The name before "@" only shows."""
        said = f"{self.query_prompt}\0{self.passage_prompt}"
        prompts = f"|prompts {hashlib.sha256(said.encode()).hexdigest()[:8]}" if said != "\0" else ""
        return f"{self.weights.name}@{self.weights.revision}|{self.pooling}|{self.max_tokens} tokens|{self.dim}d{prompts}"

    @classmethod
    def read(cls, weights: Weights) -> EncoderSpec:
        """From the json files of a Hugging Face or sentence-transformers folder."""
        config = _json(weights.path / "config.json")
        if "hidden_size" not in config and "dim" not in config:
            raise WeightsError(f"{weights.model_id} is not a text encoder: its config.json names no hidden_size")
        _refuse_other_modules(weights)
        settings = _json(weights.path / "config_sentence_transformers.json")
        prompts = settings.get("prompts") or {}
        usual = prompts.get(settings.get("default_prompt_name"))
        return cls(
            weights,
            dim=int(config.get("hidden_size") or config["dim"]),
            layers=int(config.get("num_hidden_layers") or config.get("n_layers") or 1),
            pooling=_pooling(weights),
            max_tokens=_max_tokens(weights.path, config),
            query_prompt=str(prompts.get("query") or usual or ""),
            passage_prompt=str(next(filter(None, map(prompts.get, ("document", "passage", "corpus"))), usual) or ""),
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


def _refuse_other_modules(weights: Weights) -> None:
    """A model whose vectors go through more than pooling would give others here, without a word."""
    try:
        modules = json.loads((weights.path / "modules.json").read_text(encoding="utf-8"))
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{weights.path / 'modules.json'} cannot be read: {error}") from error
    if other := sorted(set(kinds) - _MODULES):
        raise WeightsError(
            f"{weights.model_id} puts {', '.join(other)} between its encoder and its vectors; supported are "
            f"{', '.join(sorted(_MODULES))}. Choose another text_model"
        )


def _pooling(weights: Weights) -> Pooling:
    modes = _json(weights.path / "1_Pooling" / "config.json")
    chosen = {name.removeprefix("pooling_mode_") for name, on in modes.items() if name.startswith("pooling_mode_") and on is True}
    if mode := modes.get("pooling_mode"):  # newer sentence-transformers write one name
        chosen = {str(mode)}
    if modes.get("include_prompt") is False:
        raise WeightsError(
            f"{weights.model_id} leaves its prompt out of the pooling, which is not supported; choose another text_model"
        )
    if not chosen:
        return "mean"
    pooling = _POOLING.get(next(iter(chosen))) if len(chosen) == 1 else None
    if pooling is None:
        raise WeightsError(f"{weights.model_id} pools by {', '.join(sorted(chosen))}; supported are mean, cls and lasttoken")
    return pooling


def _max_tokens(folder: Path, config: Mapping[str, Any]) -> int:
    """The smallest stated limit: the sentence encoder's own, the tokenizer's, the positions there are."""
    positions = int(config.get("max_position_embeddings") or 512)
    if config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= 2  # their position ids start after the padding id
    own = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    tokenizer = _json(folder / "tokenizer_config.json").get("model_max_length")
    stated = [int(limit) for limit in (own, tokenizer) if isinstance(limit, (int, float)) and 0 < limit < _NO_LIMIT]
    return min([positions, *stated])


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
        return [encoding.ids for encoding in self._encode_batch(list(texts), add_special_tokens=False)]

    def prompt(self, text: str) -> list[int]:
        """Token ids of what is put before each text; [] for none."""
        return self.tokenize([text])[0] if text else []

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
