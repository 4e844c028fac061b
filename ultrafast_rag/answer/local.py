"""Answers from a causal language model on this machine, through transformers.

One generation at a time, in one worker thread; the event loop only hands pieces on. Weights come as
safetensors from a folder or an id already resolved; no code from a model's repository runs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ultrafast_rag.answer.prompt import Prompt, build_prompt
from ultrafast_rag.errors import GenerationError, WeightsError, require
from ultrafast_rag.ports import ModelHolder
from ultrafast_rag.types import Hit

LOCAL = "answers"  # its name among the models that are held
Quantization = Literal["auto", "none", "8bit", "4bit"]
# thinking: templates of models that think aloud first know this word, others ignore it; its words would fill the answer
_TEMPLATE: dict[str, Any] = {"add_generation_prompt": True, "tokenize": False, "enable_thinking": False}
_BYTES = {"none": 2.0, "8bit": 1.2, "4bit": 0.75}  # a parameter on a GPU; embeddings stay half
_WORKING = 1.3  # keys, values and activations over the weights alone
LEAST_CONTEXT = 64  # tokens for sources, below which a model's window is of no use


class LocalGenerator:
    """`Generator` over one HF causal model. precision: what the weights were loaded as, and why.

    model: folder or hub id; quantization "auto" takes 8-bit where half-precision weights would fill
    over 70 % of the GPU's free memory, since it saves memory and costs speed. offline: never ask the hub.
    pool: keeps the model beside the others within the device's memory, and may let it go between two answers.
    """

    def __init__(
        self,
        model: str,
        *,
        quantization: Quantization,
        device: str,
        context_tokens: int,
        max_new_tokens: int,
        offline: bool = False,
        pool: ModelHolder | None = None,
    ) -> None:
        self.name = f"local:{model.rstrip('/').rsplit('/', 1)[-1]}"
        self._context_tokens, self._max_new_tokens = context_tokens, max_new_tokens
        self._one = ThreadPoolExecutor(1, thread_name_prefix="ultrafast-rag-local")
        transformers = require("transformers")
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(model, local_files_only=offline)
            if pool is not None:
                size = _BYTES.get(quantization, 2.0) if device.startswith("cuda") else 4.0
                size_bytes = int(_parameters(transformers, model, offline) * size * _WORKING)
                pool.register(LOCAL, partial(_load, transformers, model, quantization, device, offline), size_bytes=size_bytes)
                self._lease: Callable[[], AbstractContextManager[Any]] = partial(pool.lease, LOCAL)
            else:
                held = [_load(transformers, model, quantization, device, offline)]
                self._lease = lambda: nullcontext(held[0])
                self._forget: Callable[[], object] = held.clear
            with self._lease() as loaded:
                self.precision, self.window = loaded.precision, _window(loaded.model.config, self._tokenizer)
        except (OSError, ValueError) as error:
            raise WeightsError(f"{model} could not be loaded as a local language model: {error}") from error
        if pool is not None:
            self._forget = lambda: pool.release(LOCAL)

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` in this model's own tokenizer, without special tokens."""
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    async def stream(self, question: str, hits: Sequence[Hit]) -> AsyncIterator[str]:
        """Pieces of the raw reply; leaving early stops the model at its next token."""
        loop = asyncio.get_running_loop()
        token_ids = await loop.run_in_executor(self._one, self._fitted, question, hits)
        pieces: asyncio.Queue[str | BaseException | None] = asyncio.Queue()
        stop = threading.Event()

        def hand_on(piece: str | BaseException | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        worker = loop.run_in_executor(self._one, self._generate, token_ids, hand_on, stop)
        try:
            while (piece := await pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise GenerationError(_advice(self.name, piece)) from piece
                yield piece
        finally:
            stop.set()
            await asyncio.shield(worker)

    def _fitted(self, question: str, hits: Sequence[Hit]) -> list[int]:
        """Token ids of the prompt, its sources cut until it and the reply fit the window."""
        room = self.window - self._max_new_tokens
        budget = min(self._context_tokens, room)
        while budget >= LEAST_CONTEXT:
            prompt = build_prompt(question, hits, context_tokens=budget, count_tokens=self.count_tokens)
            token_ids = self._encode(prompt)
            if len(token_ids) <= room:
                return token_ids
            budget = min(budget - (len(token_ids) - room), int(budget * 0.9))
        raise GenerationError(
            f"{self.name} has a window of {self.window} tokens, too small for the question, its instructions and a reply of "
            f"{self._max_new_tokens}: choose a model with a larger one, or lower answer_tokens"
        )

    def _encode(self, prompt: Prompt) -> list[int]:
        """By the model's chat template; without one, or where it knows no system turn, as plain paragraphs."""
        if not getattr(self._tokenizer, "chat_template", None):
            plain = f"{prompt.system}\n\n{prompt.user}\n\nANSWER\n"
            return list(self._tokenizer(plain)["input_ids"])
        turns = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        from jinja2.exceptions import TemplateError

        try:
            text = self._tokenizer.apply_chat_template(turns, **_TEMPLATE)
        except TemplateError:
            merged = [{"role": "user", "content": f"{prompt.system}\n\n{prompt.user}"}]
            text = self._tokenizer.apply_chat_template(merged, **_TEMPLATE)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _generate(self, token_ids: list[int], hand_on: Any, stop: threading.Event) -> None:
        """In the worker thread: pieces go to hand_on as they come, then None, or the error."""
        import torch
        from transformers import TextIteratorStreamer
        from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList

        class Stop(StoppingCriteria):  # type: ignore[misc]
            def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
                return torch.full((input_ids.shape[0],), stop.is_set(), dtype=torch.bool, device=input_ids.device)

        class Pieces(TextIteratorStreamer):  # type: ignore[misc]
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                if text:
                    hand_on(text)

        try:
            streamer = Pieces(self._tokenizer, skip_prompt=True, skip_special_tokens=True)
            with self._lease() as loaded, torch.inference_mode():
                ids = torch.tensor([token_ids], device=loaded.model.device)
                loaded.model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=self._max_new_tokens,
                    do_sample=False,
                    streamer=streamer,
                    stopping_criteria=StoppingCriteriaList([Stop()]),
                    pad_token_id=self._pad_id(),
                )
        except Exception as error:  # any model's own failure: raised as GenerationError where the answer is awaited
            hand_on(error)
        else:
            hand_on(None)

    def _pad_id(self) -> int:
        known = (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id, 0)
        return next(int(i) for i in known if i is not None)

    def close(self) -> None:
        """End the worker thread after what it is at, and let the model go."""
        self._one.submit(self._forget)
        self._one.shutdown(wait=False)


def _advice(name: str, error: BaseException) -> str:
    if "out of memory" in str(error).lower():
        return f"{name}: out of device memory: use quantization='4bit', a smaller model, or fewer context_tokens"
    return f"{name} failed: {error}"


def _window(config: Any, tokenizer: Any) -> int:
    """Longest prompt and reply in tokens; a tokenizer without a limit says 1e30."""
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    known = (getattr(text_config, "max_position_embeddings", None), getattr(tokenizer, "model_max_length", None))
    return min((int(n) for n in known if n and n < 1e9), default=2048)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model in eval mode, and what its weights were loaded as, and why."""

    model: Any
    precision: str


def _load(transformers: Any, model: str, wanted: Quantization, device: str, offline: bool) -> _Loaded:
    """The model and its precision in words; quantization that fails here falls back to plain weights, saying so."""
    import torch

    on_gpu = device.startswith("cuda")
    dtype = torch.float16 if on_gpu else torch.float32
    common = {"local_files_only": offline, "use_safetensors": True, "dtype": dtype}
    plain = f"{'fp16' if on_gpu else 'fp32'} weights"
    chosen, why = (wanted, "as asked") if wanted != "auto" else _auto(transformers, model, device, offline)
    if chosen != "none":
        try:
            require("bitsandbytes", extra="quant")
            config = transformers.BitsAndBytesConfig(
                load_in_8bit=chosen == "8bit",
                load_in_4bit=chosen == "4bit",
                bnb_4bit_compute_dtype=dtype,
                bnb_4bit_quant_type="nf4",  # as the other models' layers, see models/quantize.py
                bnb_4bit_use_double_quant=True,
            )
            loaded = transformers.AutoModelForCausalLM.from_pretrained(
                model, quantization_config=config, device_map={"": device}, **common
            )
            return _Loaded(loaded.eval(), f"{chosen} weights by bitsandbytes: {why}")
        except (ImportError, RuntimeError, ValueError, NotImplementedError) as error:
            if "out of memory" in str(error).lower():  # plain weights are larger still; whoever holds models makes room
                raise
            plain = f"{plain}: {chosen} failed here ({type(error).__name__}: {str(error)[:120]})"
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model, **common).to(device)
    return _Loaded(loaded.eval(), plain if chosen != "none" else f"{plain}: {why}")


def _parameters(transformers: Any, model: str, offline: bool) -> int:
    import torch

    config = transformers.AutoConfig.from_pretrained(model, local_files_only=offline)
    with torch.device("meta"):
        return sum(p.numel() for p in transformers.AutoModelForCausalLM.from_config(config).parameters())


def _auto(transformers: Any, model: str, device: str, offline: bool) -> tuple[Quantization, str]:
    if not device.startswith("cuda"):
        return "none", "8-bit pays on a GPU only"
    import torch

    free = torch.cuda.mem_get_info(torch.device(device))[0]
    share = 2 * _parameters(transformers, model, offline) / free
    # chosen: what is left is for the cache of keys and values; 8 bits take half of fp16, and the same room beside
    if share <= 0.7:
        return "none", f"fp16 fills {share:.0%} of the free GPU memory"
    return ("8bit" if share <= 1.2 else "4bit"), f"fp16 would fill {share:.0%} of the free GPU memory"
