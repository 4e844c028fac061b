"""Passages and questions -> vectors, on the engine that suits this machine.

`open_text_encoder` is the way in. Tokenizes ahead of the device, keeps input order, and lets no
vector out that is not finite and of unit length. Which engine, and why, is `choose.py`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ultrafast_rag.config import Config
from ultrafast_rag.errors import EncodingError, IndexStateError
from ultrafast_rag.models.batching import guarded
from ultrafast_rag.models.device import DevicePlan, plan_device
from ultrafast_rag.models.text.openvino import OpenVINOEngine, Progress, engine_id, torch_share
from ultrafast_rag.models.text.select import Choice, Engine, Trial, choose, remembered
from ultrafast_rag.models.text.tokens import EncoderSpec, WordPieces
from ultrafast_rag.models.text.torch import TorchEngine
from ultrafast_rag.models.weights import resolve
from ultrafast_rag.types import Vectors

_WINDOW = 2048  # texts tokenized ahead while the device works on those before


class SentenceEncoder:
    """A text encoder behind `ports.TextEncoder`; safe to call from several threads.

    exact: makes a float32 engine, for the rare row that half precision cannot hold.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        engine: Engine,
        *,
        fingerprint: str,
        exact: Callable[[], Engine] | None = None,
        report: Sequence[tuple[str, ...]] = (),
    ) -> None:
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


def fingerprint_of(spec: EncoderSpec, engine: str) -> str:
    """Everything that changes a vector: model, weights, engine and precision, pooling, limit."""
    return f"{spec.weights.name}@{spec.weights.revision}|{engine_id(engine)}|{spec.pooling}|{spec.max_tokens}"


def open_text_encoder(
    config: Config, plan: DevicePlan | None = None, *, fingerprint: str | None = None, progress: Progress | None = None
) -> SentenceEncoder:
    """Load `config.text_model` on the engine that suits this machine, or on the one of `fingerprint`.

    fingerprint: of an encoder opened before; the same engine and precision are opened again, so that new
        vectors can stand beside old ones. IndexStateError when this machine or `config` cannot give them.
    progress: told in words when something takes long (a model is converted once a machine).
    Raises WeightsError when the model is not to be found, EncodingError when no engine can run it.
    """
    plan = plan or plan_device(config)
    spec = EncoderSpec.read(resolve(config.text_model, kind="text", offline=config.offline, cache_dir=config.cache_dir))

    def make(name: str) -> Engine:
        if name.startswith("openvino-"):
            return OpenVINOEngine(spec, name, plan, config, progress=progress)
        return TorchEngine(spec, name, plan, config)

    def exact() -> Engine:
        return make("torch-f32")

    if fingerprint is not None:
        return _open_again(spec, fingerprint, make, exact)
    choice, engine = _chosen(spec, plan, config, make)
    return SentenceEncoder(
        spec, engine, fingerprint=fingerprint_of(spec, engine.name), exact=exact, report=[trial.row() for trial in choice.trials]
    )


def _chosen(spec: EncoderSpec, plan: DevicePlan, config: Config, make: Callable[[str], Engine]) -> tuple[Choice, Engine]:
    measurable = any(name.startswith("openvino-") for name in plan.engines) and len(plan.engines) > 1
    if not measurable or config.quantization not in ("auto", "none"):
        return _first_that_works(plan, make)
    known = remembered(spec, plan, config)
    if known is not None:
        try:
            return known, make(known.engine)
        except (EncodingError, ImportError):  # what was chosen is gone: choose again
            pass
    choice = choose(spec, plan, config, make, torch_share=lambda: torch_share(spec, config.cache_dir))
    return choice, make(choice.engine)


def _first_that_works(plan: DevicePlan, make: Callable[[str], Engine]) -> tuple[Choice, Engine]:
    trials: list[Trial] = []
    for name in plan.engines:
        try:
            engine = make(name)
        except (EncodingError, ImportError) as error:
            trials.append(Trial(name, verdict=f"cannot be used: {error}"))
            continue
        return Choice(name, (Trial(name, verdict=plan.reasons.get("engines", ""), chosen=True), *trials)), engine
    raise EncodingError("no engine can run this model here: " + "; ".join(f"{t.engine} {t.verdict}" for t in trials))


def _open_again(
    spec: EncoderSpec, fingerprint: str, make: Callable[[str], Engine], exact: Callable[[], Engine]
) -> SentenceEncoder:
    parts = fingerprint.split("|")
    name = parts[1].partition("+")[0] if len(parts) == 4 else ""
    now = fingerprint_of(spec, name)
    # where the weights came from may differ; what they are may not
    if [parts[0].rpartition("@")[2], *parts[1:]] != [now.split("|")[0].rpartition("@")[2], *now.split("|")[1:]]:
        raise IndexStateError(
            f"vectors were made by {fingerprint}, and this is {now}: open the index with the model and the "
            "version of this package it was made with, or ingest into another folder"
        )
    try:
        engine = make(name)
    except (EncodingError, ImportError) as error:
        raise IndexStateError(f"vectors were made by {fingerprint}, and that engine cannot run here: {error}") from error
    return SentenceEncoder(
        spec,
        engine,
        fingerprint=fingerprint,
        exact=exact,
        report=[Trial(name, verdict="the index was made with it", chosen=True).row()],
    )
