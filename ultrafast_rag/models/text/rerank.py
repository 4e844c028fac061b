"""Question and passage read together by a cross-encoder: slower than vectors, and more exact.

Any sequence-classification model of transformers with one output (relevance) or two (no, yes), from
safetensors. Pairs go to the device in the same length-sorted token batches as passages do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, EncodingError, MissingExtraError, WeightsError, require
from ultrafast_rag.models.batching import Governor, is_out_of_memory, run_governed
from ultrafast_rag.models.device import DevicePlan
from ultrafast_rag.models.quantize import bits_options
from ultrafast_rag.models.weights import Weights, resolve

_CPU_BATCH_TOKENS = 1024  # as for passages
_GPU_BATCH_TOKENS = 16_384  # as the text encoder's on a GPU; halved where memory runs out
_MAX_TOKENS = 512  # pairs are cut to it, or to the model's own limit where that is lower


class CrossEncoder:
    """A reranker behind `ports.Reranker`. Scores are the model's logits: higher is better, unbounded.

    precision: "8bit", "4bit" or a torch type by name. notes: why not all that was asked for is in use.
    """

    def __init__(
        self, weights: Weights, plan: DevicePlan, *, precision: str, batch_tokens: int | None = None, notes: Sequence[str] = ()
    ) -> None:
        self.notes = list(notes)
        self._torch, transformers = require("torch"), require("transformers")
        from tokenizers import Tokenizer

        from ultrafast_rag.models.text.torch import quiet, refuse_missing

        self._device = plan.devices[0]
        quantized = precision in ("8bit", "4bit")
        options = bits_options(precision, self._device) if quantized else {"dtype": getattr(self._torch, precision)}
        path = weights.path / "tokenizer.json"
        if not path.is_file():
            raise WeightsError(f"{weights.model_id} has no tokenizer.json; save its fast tokenizer beside the weights")
        with quiet(transformers):
            try:
                model, loaded = transformers.AutoModelForSequenceClassification.from_pretrained(
                    str(weights.path),
                    attn_implementation=plan.attention,
                    local_files_only=True,
                    use_safetensors=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                    **options,
                )
            except (ValueError, OSError, RuntimeError, ImportError) as error:
                if is_out_of_memory(error):
                    raise
                raise EncodingError(f"{weights.model_id} cannot be loaded as a reranker: {error}") from error
        refuse_missing(weights.model_id, loaded["missing_keys"])
        self._model = (model if quantized else model.to(self._device)).eval()
        self._labels = int(self._model.config.num_labels)
        if self._labels > 2:
            raise EncodingError(f"{weights.model_id} sorts into {self._labels} classes; a reranker has one output, or no and yes")
        self._pad_id = int(self._model.config.pad_token_id or 0)
        self._typed = int(getattr(self._model.config, "type_vocab_size", 0) or 0) > 1
        limit = min(_MAX_TOKENS, int(getattr(self._model.config, "max_position_embeddings", _MAX_TOKENS)))
        self._tokenizer: Any = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(limit, strategy="longest_first")
        self._governor = Governor(batch_tokens or (_GPU_BATCH_TOKENS if plan.on_gpu else _CPU_BATCH_TOKENS))
        self.fingerprint = f"{weights.name}@{weights.revision}|rerank-{precision}|{limit}"

    def score(self, question: str, passages: Sequence[str]) -> list[float]:
        """One score a passage, in order. Raises EncodingError when the model gives something that is no number."""
        pairs = [self._tokenizer.encode(question, passage) for passage in passages]
        scores = np.empty(len(pairs), np.float32)
        with self._torch.inference_mode():
            for rows, out in run_governed(
                [len(pair.ids) for pair in pairs],
                lambda rows: self._forward([pairs[r] for r in rows]),
                governor=self._governor,
                release=self._release,
            ):
                scores[rows] = out
        if not np.isfinite(scores).all():
            raise EncodingError(f"the reranker gives no number for {passages[int(np.argmin(np.isfinite(scores)))][:80]!r}")
        return [float(score) for score in scores]

    def close(self) -> None:
        """Give the model's memory back."""
        self._model = None
        self._release()

    def _forward(self, pairs: Sequence[Any]) -> Any:
        torch, width = self._torch, max(len(pair.ids) for pair in pairs)
        ids, mask, kinds = (np.full((len(pairs), width), fill, np.int64) for fill in (self._pad_id, 0, 0))
        for at, pair in enumerate(pairs):
            length = len(pair.ids)
            ids[at, :length], mask[at, :length], kinds[at, :length] = pair.ids, 1, pair.type_ids
        inputs = {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": kinds} if self._typed else {})
        logits = self._model(**{name: torch.from_numpy(value).to(self._device) for name, value in inputs.items()}).logits.float()
        return (logits[:, 0] if self._labels == 1 else logits[:, 1] - logits[:, 0]).cpu().numpy()

    def _release(self) -> None:
        if self._device != "cpu":
            self._torch.cuda.empty_cache()


def open_reranker(config: Config, plan: DevicePlan) -> CrossEncoder:
    """Load `config.rerank_model`; 8-bit that cannot be had falls back to the plan's type, with a note.

    Raises ConfigError when none is named, WeightsError when it is not to be found, EncodingError when it cannot be loaded.
    """
    if config.rerank_model is None:
        raise ConfigError("no reranker is named; set Config(rerank_model='cross-encoder/ms-marco-MiniLM-L6-v2') or a folder")
    weights = resolve(config.rerank_model, kind="rerank", offline=config.offline, cache_dir=Path(config.cache_dir))
    plain, notes = plan.dtype if plan.on_gpu else "float32", list[str]()
    if plan.quantization != "none":
        try:
            return CrossEncoder(weights, plan, precision=plan.quantization, batch_tokens=config.batch_tokens)
        except (EncodingError, MissingExtraError) as error:
            notes.append(f"{weights.name}: {plan.quantization} is not used: {error}")
    return CrossEncoder(weights, plan, precision=plain, batch_tokens=config.batch_tokens, notes=notes)
