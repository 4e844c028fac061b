"""Passages and questions -> vectors, on the engine that suits this machine.

`open_text_encoder` is the way in. Tokenizes ahead of the device, keeps input order, and lets no
vector out that is not finite and of unit length. Which engine, and why, is `choose.py`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from ultrafast_rag.config import Config
from ultrafast_rag.device import DevicePlan, plan_device
from ultrafast_rag.encode.batching import guarded
from ultrafast_rag.encode.tokens import EncoderSpec, WordPieces
from ultrafast_rag.encode.torch_engine import TorchEngine
from ultrafast_rag.encode.weights import resolve
from ultrafast_rag.errors import EncodingError
from ultrafast_rag.types import Vectors

_WINDOW = 2048  # texts tokenized ahead while the device works on those before


class Engine(Protocol):
    """What turns framed token ids into unit vectors, float32 (n, dim), order kept."""

    name: str
    dim: int

    def run(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
        """Encode; any number of texts, each at most the model's limit."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


class SentenceEncoder:
    """A text encoder behind `ports.TextEncoder`; safe to call from several threads.

    exact: makes a float32 engine, for the rare row that half precision cannot hold.
    """

    def __init__(self, spec: EncoderSpec, engine: Engine, *, fingerprint: str,
                 exact: Callable[[], Engine] | None = None, report: Sequence[tuple[str, ...]] = ()) -> None:
        self.spec, self.engine, self.fingerprint = spec, engine, fingerprint
        self.dim, self.max_tokens = engine.dim, spec.max_tokens
        self._pieces = WordPieces(spec)
        self._query_prompt = self._pieces.tokenize([spec.query_prompt])[0] if spec.query_prompt else []
        self._passage_prompt = self._pieces.tokenize([spec.passage_prompt])[0] if spec.passage_prompt else []
        self._make_exact, self._lock = exact, threading.Lock()
        self._exact: Engine | None = None
        self._report = list(report)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens, not truncated."""
        return self._pieces.tokenize(texts)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows; texts over the limit are truncated to it."""
        return self._encode(texts, self._passage_prompt)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """As `encode`, with the prompt that the model's authors put before questions, where there is one."""
        return self._encode(texts, self._query_prompt)

    def encode_tokens(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
        """As `encode`, from `tokenize`'s output; special tokens are added here."""
        framed = self._pieces.framed(token_ids, self._passage_prompt)
        return self._run(framed, lambda row: f"{len(token_ids[row])} tokens: {self._pieces.text(token_ids[row][:24])}")

    def report(self) -> list[tuple[str, ...]]:
        """Rows for `doctor()`: engine, tokens/s, ratio to torch float32, neighbour overlap, cosine, why (not) chosen."""
        return list(self._report)

    def close(self) -> None:
        """Give the model's memory back; the encoder cannot be used afterwards."""
        self.engine.close()

    def _encode(self, texts: Sequence[str], prompt: list[int]) -> Vectors:
        if len(texts) <= _WINDOW:
            return self._run(self._pieces.framed(self._pieces.tokenize(texts), prompt), lambda row: texts[row][:120])
        vectors = np.empty((len(texts), self.dim), np.float32)
        for start, framed in self._framed_ahead(texts, prompt):
            vectors[start : start + len(framed)] = self._run(framed, lambda row, at=start: texts[at + row][:120])  # type: ignore[misc]
        return vectors

    def _framed_ahead(self, texts: Sequence[str], prompt: list[int]) -> Iterator[tuple[int, list[list[int]]]]:
        with ThreadPoolExecutor(1) as ahead:
            starts = range(0, len(texts), _WINDOW)
            pending = ahead.submit(self._pieces.tokenize, texts[:_WINDOW])
            for start in starts:
                framed = self._pieces.framed(pending.result(), prompt)
                following = texts[start + _WINDOW : start + 2 * _WINDOW]
                pending = ahead.submit(self._pieces.tokenize, following)
                yield start, framed

    def _run(self, framed: list[list[int]], name_of: Callable[[int], str]) -> Vectors:
        if not framed:
            return np.empty((0, self.dim), np.float32)
        vectors = self.engine.run(framed)
        return guarded(vectors, lambda rows: self._exactly([framed[row] for row in rows]), name_of)

    def _exactly(self, framed: list[list[int]]) -> Vectors:
        with self._lock:
            if self._exact is None:
                if self._make_exact is None:
                    return self.engine.run(framed)
                self._exact = self._make_exact()
        return self._exact.run(framed)


def fingerprint_of(spec: EncoderSpec, engine_id: str) -> str:
    """Everything that changes a vector: model, weights, engine and precision, pooling, limit."""
    return f"{spec.weights.name}@{spec.weights.revision}|{engine_id}|{spec.pooling}|{spec.max_tokens}"


def open_text_encoder(config: Config, plan: DevicePlan | None = None) -> SentenceEncoder:
    """Load `config.text_model` on the best engine of the plan that works here.

    Raises WeightsError when the model is not to be found, EncodingError when no engine can run it.
    """
    plan = plan or plan_device(config)
    spec = EncoderSpec.read(resolve(config.text_model, kind="text", offline=config.offline, cache_dir=config.cache_dir))
    failures: list[str] = []
    for name in plan.engines:
        if not name.startswith("torch-"):
            continue
        try:
            engine = TorchEngine(spec, name, plan, config)
        except (EncodingError, ImportError) as error:
            failures.append(f"{name}: {error}")
            continue
        return SentenceEncoder(spec, engine, fingerprint=fingerprint_of(spec, name),
                               exact=lambda: TorchEngine(spec, "torch-f32", plan, config))
    raise EncodingError("no engine can run this model here: " + "; ".join(failures))
