"""Any Hugging Face encoder in torch, on a CPU or on every GPU there is.

GPU: half-precision weights, one replica and one thread a device, pinned asynchronous copies, and no
host synchronisation between the first batch and the last. CPU: the same loop, synchronous, in batches
that fit the cache. Models that transformers can load need nothing else; what pools is in the folder.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

from ultrafast_rag.config import Config
from ultrafast_rag.errors import EncodingError, WeightsError, require
from ultrafast_rag.models.batching import Governor, batches, is_out_of_memory, run_governed
from ultrafast_rag.models.device import DevicePlan, few_threads
from ultrafast_rag.models.quantize import bits_options
from ultrafast_rag.models.text.reference import padded_to, padded_widths
from ultrafast_rag.models.text.tokens import DenseLayer, EncoderSpec
from ultrafast_rag.types import Vectors

CPU_BATCH_TOKENS = 1024  # fits the caches of two cores: 1.6x the tokens/s of 16 384 (EPYC, 2 cores, 2026-11)
_GPU_BATCH_TOKENS = 65_536  # beyond this a GPU gains nothing more on models of this size
_COMPILE_LENGTHS = (32, 64, 128, 256, 512)  # each is compiled once, at 15 to 40 s in all
_DTYPES = {"torch-f32": "float32", "torch-bf16": "bfloat16", "torch-f16": "float16"}

# every token sees every other in these, so a ready mask is the usual one; a window or a direction would be lost in it
_SEES_ALL = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "albert", "nomic_bert")
_LEAST = 1e9  # below any state, and a number in bf16 too
# architectures with a decoder that a vector has no need of; AutoModel would load it and ask for its input
_ENCODER_OF = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel", "longt5": "LongT5EncoderModel"}

NAMES = (*_DTYPES, "torch-8bit", "torch-4bit")


class TorchEngine:
    """Framed token ids -> unit vectors.

    name: "torch-f32", "torch-bf16", "torch-f16", "torch-8bit" or "torch-4bit".
    ready_masks: attention masks made here rather than by transformers, which asks the device and waits; None: on a GPU,
    for architectures that give the same with them.
    Raises MissingExtraError for a missing library, EncodingError when the model cannot be loaded so.
    """

    def __init__(
        self, spec: EncoderSpec, name: str, plan: DevicePlan, config: Config, *, ready_masks: bool | None = None
    ) -> None:
        if name not in NAMES:
            raise EncodingError(f"there is no engine {name!r}; in torch there are {', '.join(NAMES)}")
        self.spec, self.name, self.dim = spec, name, spec.dim
        self._pad_id = int(spec.config.get("pad_token_id") or 0)
        self._max_rows = config.batch_size
        self._compiled = plan.compile and name in _DTYPES
        self.widths = self._usual_widths(on_gpu=plan.on_gpu)
        self._replicas = [
            _Replica(
                spec,
                name,
                device,
                plan,
                compiled=self._compiled,
                ready_masks=ready_masks,
                ceiling=config.batch_tokens or _token_budget(spec, name, device, config),
                threads=config.threads,
            )
            for device in plan.devices
        ]

    def run(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
        """float32 (n, dim) in the order given. Raises DeviceMemoryError when one text alone does not fit."""
        if len(self._replicas) == 1 or len(token_ids) < 2 * len(self._replicas):
            return self._run_on(self._replicas[0], token_ids)
        return self._run_on_all(token_ids)

    def _usual_widths(self, *, on_gpu: bool) -> tuple[int, ...]:
        """Lengths a kernel likes: few different ones when compiled, multiples of 8 on tensor cores; on a CPU any."""
        limit = self.spec.max_tokens
        if self._compiled:
            return (*(width for width in _COMPILE_LENGTHS if width < limit), limit)
        return padded_widths(limit, step=8) if on_gpu else ()

    def _run_on(self, replica: _Replica, token_ids: Sequence[Sequence[int]]) -> Vectors:
        padded = partial(padded_to, self.widths)
        return replica.run(token_ids, pad_id=self._pad_id, max_rows=self._max_rows, padded=padded)

    def _run_on_all(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
        """Stretches of similar length from one queue, so that a faster GPU takes more of them."""
        lengths = [len(ids) for ids in token_ids]
        budget = 4 * min(replica.governor.ceiling for replica in self._replicas)
        work: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
        stretches = list(batches(lengths, budget=max(1, min(budget, sum(lengths) // (2 * len(self._replicas))))))
        for rows in stretches:
            work.put(rows)
        vectors, failures = np.empty((len(token_ids), self.dim), np.float32), list[BaseException]()

        def drain(replica: _Replica) -> None:
            while not failures:
                try:
                    rows = work.get_nowait()
                except queue.Empty:
                    return
                try:
                    vectors[rows] = self._run_on(replica, [token_ids[r] for r in rows])
                except BaseException as error:  # carried to the calling thread below, where it is raised
                    failures.append(error)

        threads = [threading.Thread(target=drain, args=(replica,), daemon=True) for replica in self._replicas]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return vectors

    def close(self) -> None:
        """Drop the models, so that their memory can be used by others."""
        self._replicas = []


class _Replica:
    """The model on one device."""

    def __init__(
        self,
        spec: EncoderSpec,
        name: str,
        device: str,
        plan: DevicePlan,
        *,
        compiled: bool,
        ready_masks: bool | None,
        ceiling: int,
        threads: int | None,
    ) -> None:
        self.torch = require("torch")
        self.device, self.dim = device, spec.dim
        self.on_gpu = device != "cpu"
        self.governor, self._threads = Governor(ceiling), None if self.on_gpu else threads
        self.model = load_model(spec, name, device, attention=plan.attention)
        self._head = pooling_head(spec).to(device)
        wanted = self.on_gpu if ready_masks is None else ready_masks
        self.ready_masks = wanted and spec.config.get("model_type") in _SEES_ALL and self._takes_ready_masks()
        if compiled:
            # one graph for every shape: with one each, torch gives up after eight (its recompile_limit) and runs uncompiled
            self.model = self.torch.compile(self.model, dynamic=True)
        self._stream = self.torch.cuda.Stream(device) if self.on_gpu else None

    def run(
        self, token_ids: Sequence[Sequence[int]], *, pad_id: int, max_rows: int | None, padded: Callable[[int], int]
    ) -> Vectors:
        torch, lengths = self.torch, [len(ids) for ids in token_ids]
        vectors = np.empty((len(token_ids), self.dim), np.float32)

        def forward(rows: list[int]) -> Any:
            return self._forward(rows, token_ids, pad_id, padded(lengths[rows[0]]))

        options: dict[str, Any] = {"governor": self.governor, "max_rows": max_rows, "padded": padded}
        with torch.inference_mode(), few_threads(torch, self._threads) if self._threads else nullcontext():
            if not self.on_gpu:
                for rows, out in run_governed(lengths, forward, **options):
                    vectors[rows] = out.numpy()
                return vectors
            with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
                done = list(run_governed(lengths, forward, release=torch.cuda.empty_cache, **options))
                host = torch.empty((len(token_ids), self.dim), dtype=torch.float32, pin_memory=True)
                host.copy_(torch.cat([out for _, out in done]), non_blocking=True)
                torch.cuda.current_stream().synchronize()
        vectors[[row for rows, _ in done for row in rows]] = host.numpy()
        return vectors

    def _forward(self, rows: list[int], token_ids: Sequence[Sequence[int]], pad_id: int, width: int) -> Any:
        torch = self.torch
        ids = np.full((len(rows), width), pad_id, np.int64)
        for at, row in enumerate(rows):
            ids[at, : len(token_ids[row])] = token_ids[row]
        lengths = torch.tensor([len(token_ids[row]) for row in rows])
        tokens = torch.from_numpy(ids)
        if self.on_gpu:
            tokens, lengths = (t.pin_memory().to(self.device, non_blocking=True) for t in (tokens, lengths))
        mask = torch.arange(width, device=self.device)[None, :] < lengths[:, None]
        # a 2-D mask makes transformers ask the device whether any padding is there, which waits for it
        given = mask[:, None, None, :].expand(-1, 1, width, -1) if self.ready_masks else mask.long()
        return self._head(self.model(input_ids=tokens, attention_mask=given)[0].float(), mask)

    def _takes_ready_masks(self) -> bool:
        """True when a ready-made mask gives this architecture the same states as the usual one."""
        torch = self.torch
        ids = torch.arange(5, 21, device=self.device).reshape(2, 8)
        mask = torch.ones_like(ids, dtype=torch.bool)
        mask[1, 5:] = False
        with torch.inference_mode():
            usual = self.model(input_ids=ids, attention_mask=mask.long())[0].float()
            try:
                ready = self.model(input_ids=ids, attention_mask=mask[:, None, None, :].expand(-1, 1, 8, -1))[0].float()
            except (RuntimeError, ValueError, TypeError, IndexError):  # this architecture wants two dimensions
                return False
        return bool(torch.allclose(usual[mask], ready[mask], atol=5e-2))


def load_model(spec: EncoderSpec, name: str, device: str, *, attention: str) -> Any:
    """The transformers model in the precision that `name` says, in eval mode on `device`.

    attention: torch's own where the architecture has none of that kind.
    """
    torch, transformers = require("torch"), require("transformers")
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    if name in _DTYPES:
        options |= {"dtype": getattr(torch, _DTYPES[name])}
    else:
        options |= bits_options(name.removeprefix("torch-"), device)
    kind = getattr(transformers, _ENCODER_OF.get(str(spec.config.get("model_type")), "AutoModel"))
    with quiet(transformers):
        try:
            load = partial(kind.from_pretrained, str(spec.weights.path), output_loading_info=True, **options)
            model, loaded = _with_attention(load, attention)
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            if is_out_of_memory(error):  # not the model's fault: whoever holds models makes room, and tries again
                raise
            raise EncodingError(f"{spec.weights.model_id} cannot be loaded as {name}: {error}") from error
    # the pooler that some architectures have is not used here, and is often not saved
    refuse_missing(spec.weights.model_id, [key for key in loaded["missing_keys"] if "pooler" not in key])
    model.eval()
    return model.to(device) if name in _DTYPES else model


def _with_attention(load: Callable[..., Any], attention: str) -> Any:
    try:
        return load(attn_implementation=attention)
    except (ValueError, ImportError):
        if attention == "eager":
            raise
        return load(attn_implementation="eager")  # what else was wrong is wrong again, and said


def pooling_head(spec: EncoderSpec) -> Any:
    """A torch module: (states float32 (n, width, d), mask bool (n, width), padding at the end) -> unit vectors (n, spec.dim)."""
    import torch

    dense = {step.digest: _dense(torch, step) for step in spec.steps if isinstance(step, DenseLayer)}
    pooling, normalize = spec.pooling, torch.nn.functional.normalize

    class Head(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
        def __init__(self) -> None:
            super().__init__()
            self.dense = torch.nn.ModuleDict(dense)

        def forward(self, states: Any, mask: Any) -> Any:
            vector = _pooled(torch, pooling, states, mask.to(states.dtype).unsqueeze(-1))
            for step in spec.steps:
                vector = self.dense[step.digest](vector) if isinstance(step, DenseLayer) else normalize(vector, dim=1)
            return normalize(vector[:, : spec.dim], dim=1)

    return Head().eval().requires_grad_(False)


def _pooled(torch: Any, pooling: str, states: Any, weight: Any) -> Any:
    """weight: 1 for a token, 0 for padding; (n, width, 1)."""
    if pooling == "cls":
        return states[:, 0]
    if pooling == "max":
        return (states * weight + (weight - 1) * _LEAST).amax(1)
    if pooling == "lasttoken":  # where the mask falls to 0
        return (states * (weight - torch.cat([weight[:, 1:], torch.zeros_like(weight[:, :1])], 1))).sum(1)
    if pooling == "weightedmean":  # the n-th token counts n times.  Source: Muennighoff 2022 (SGPT), section 3.1
        weight = weight * weight.cumsum(1)
    return (states * weight).sum(1) / weight.sum(1)


def _dense(torch: Any, step: DenseLayer) -> Any:
    """The layer and its activation, float32. Raises WeightsError when its file is not what its config says."""
    try:
        state = require("safetensors.torch").load_file(str(step.folder / "model.safetensors"))
        weight, bias = state.pop("linear.weight").float(), state.pop("linear.bias", None)
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        layer.load_state_dict({"weight": weight, **({} if bias is None else {"bias": bias.float()})})
    except (OSError, KeyError, ValueError, RuntimeError, IndexError) as error:
        raise WeightsError(f"{step.folder} holds no Dense layer: {error}") from error
    if state or layer.out_features != step.size:
        raise WeightsError(f"{step.folder} holds {[*state] or layer.out_features} beside what its config.json says")
    return torch.nn.Sequential(layer, getattr(torch.nn, step.activation)())


def refuse_missing(model_id: str, missing: Collection[str]) -> None:
    """Raise WeightsError when weights were not in the file: transformers fills them with random numbers."""
    if missing:
        shown = ", ".join(sorted(missing)[:3])
        raise WeightsError(f"{model_id} lacks {len(missing)} of its weights ({shown}): it is another kind of model, or not whole")


class quiet:
    """transformers draws its own progress bars; the caller draws ours."""

    def __init__(self, transformers: Any) -> None:
        self._logging = transformers.utils.logging

    def __enter__(self) -> None:
        self._drew, self._level = self._logging.is_progress_bar_enabled(), self._logging.get_verbosity()
        self._logging.disable_progress_bar()
        self._logging.set_verbosity_error()

    def __exit__(self, *_: object) -> None:
        self._logging.set_verbosity(self._level)
        if self._drew:
            self._logging.enable_progress_bar()


def _token_budget(spec: EncoderSpec, name: str, device: str, config: Config) -> int:
    """1 024 on a CPU; on a GPU what half of the free memory holds, up to where more brings nothing."""
    if device == "cpu":
        return CPU_BATCH_TOKENS
    torch = require("torch")
    free, _ = torch.cuda.mem_get_info(torch.device(device))
    if config.max_vram_gb is not None:
        free = min(free, int(config.max_vram_gb * 2**30))
    inner = int(spec.config.get("intermediate_size") or 4 * spec.dim)
    token_bytes = (4 if name == "torch-f32" else 2) * (6 * spec.dim + 2 * inner)
    return int(max(spec.max_tokens, min(_GPU_BATCH_TOKENS, free // 2 // token_bytes)))
