"""Passages and questions -> vectors, on the engine that suits this machine.

`open_text_encoder` is the way in. Tokenizes ahead of the device, keeps input order, and lets no
vector out that is not finite and of unit length. Which engine is fastest is `select`'s, and whether
it may be used at all is `reference`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from ultrafast_rag.config import Config
from ultrafast_rag.errors import EncodingError, IndexStateError
from ultrafast_rag.files import Memory
from ultrafast_rag.models.batching import Overflow, guarded
from ultrafast_rag.models.device import DevicePlan, plan_device
from ultrafast_rag.models.text.calibration import calibration_hash
from ultrafast_rag.models.text.openvino import OpenVINOEngine, Progress, engine_id, torch_share
from ultrafast_rag.models.text.openvino import reference as made_in_conversion
from ultrafast_rag.models.text.reference import Engine, Fit, Reference, fit, fit_once, reference_texts
from ultrafast_rag.models.text.select import Choice, Trial, choose, exactness, machine_key, remembered
from ultrafast_rag.models.text.tokens import EncoderSpec, WordPieces, same_space
from ultrafast_rag.models.weights import resolve
from ultrafast_rag.types import Vectors

_WINDOW = 2048  # texts tokenized ahead while the device works on those before


class SentenceEncoder:
    """A text encoder behind `ports.TextEncoder`; safe to call from several threads.

    space: what the vectors may be compared with, whatever engine made them; fingerprint: also names the engine.
    exact: makes a float32 engine, for the rare row that half precision cannot hold. notes: what is not as asked for.
    """

    takes_tokens = True

    def __init__(
        self,
        spec: EncoderSpec,
        engine: Engine,
        *,
        exact: Callable[[], Engine] | None = None,
        reference: Callable[[], Reference | None] = lambda: None,
        report: Sequence[tuple[str, ...]] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.spec, self.engine, self.space = spec, engine, spec.space
        self.fingerprint = f"{spec.space}|{engine_id(engine.name)}"
        self.reference, self.notes = reference, tuple(notes)
        self.dim, self.max_tokens = engine.dim, spec.max_tokens
        self._pieces = WordPieces(spec)
        self.vocabulary_size = self._pieces.vocabulary_size
        self._passage_prompt = self._pieces.prompt(spec.passage_prompt)
        self._joins = self._pieces.joins(spec.passage_prompt)
        self._make_exact, self._lock = exact, threading.Lock()
        self._exact: Engine | None = None
        self._overflow = Overflow()
        self._report = list(report)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens, not truncated."""
        return self._pieces.tokenize(texts)

    def known_share(self, text: str) -> float:
        """Share of the text's letters in words and pieces of words that the vocabulary knows, 0 to 1."""
        return self._pieces.known_share(text)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows; texts over the limit are truncated to it."""
        return self._encode(texts, self.spec.passage_prompt)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """As `encode`, with the prompt that the model's authors put before questions, where there is one."""
        return self._encode(texts, self.spec.query_prompt)

    def encode_tokens(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
        """As `encode`, from `tokenize`'s output; special tokens are added here."""
        if not self._joins:  # its first word is another token after the prompt than alone
            return self.encode([self._pieces.text(ids) for ids in token_ids])
        framed = self._pieces.with_special_tokens(token_ids, self._passage_prompt)
        return self._run(framed, lambda row: f"{len(token_ids[row])} tokens: {self._pieces.text(token_ids[row][:24])}")

    def report(self) -> list[tuple[str, ...]]:
        """Rows for `doctor()`: engine, tokens/s, ratio to torch float32, neighbour overlap, cosine, why (not) chosen."""
        return list(self._report)

    def close(self) -> None:
        """Give the model's memory back; the encoder cannot be used afterwards."""
        self.engine.close()

    def _encode(self, texts: Sequence[str], prompt: str) -> Vectors:
        """With the prompt written before each text, and tokenized with it."""
        if len(texts) <= _WINDOW:
            return self._run(self._framed(texts, prompt), lambda row: texts[row][:120])
        vectors = np.empty((len(texts), self.dim), np.float32)
        for start, framed in self._framed_ahead(texts, prompt):
            vectors[start : start + len(framed)] = self._run(framed, lambda row, at=start: texts[at + row][:120])  # type: ignore[misc]
        return vectors

    def _framed(self, texts: Sequence[str], prompt: str) -> list[list[int]]:
        return self._pieces.with_special_tokens(self._pieces.tokenize([prompt + text for text in texts] if prompt else texts))

    def _framed_ahead(self, texts: Sequence[str], prompt: str) -> Iterator[tuple[int, list[list[int]]]]:
        with ThreadPoolExecutor(1) as ahead:
            pending = ahead.submit(self._framed, texts[:_WINDOW], prompt)
            for start in range(0, len(texts), _WINDOW):
                framed = pending.result()
                pending = ahead.submit(self._framed, texts[start + _WINDOW : start + 2 * _WINDOW], prompt)
                yield start, framed

    def _run(self, framed: list[list[int]], name_of: Callable[[int], str]) -> Vectors:
        if not framed:
            return np.empty((0, self.dim), np.float32)
        engine = self.engine
        vectors = engine.run(framed)
        repaired = guarded(vectors, lambda rows: self._encode_fp32([framed[row] for row in rows]), name_of)
        self._count(len(framed))
        return repaired

    def _count(self, rows: int) -> None:
        """Once more than one row in a hundred has to be encoded twice, all are encoded once, in float32."""
        with self._lock:
            self._overflow.rows += rows
            if self._exact is None or not self._overflow.too_many:
                return
            self.notes = (*self.notes, self._overflow.note(self.engine.name))
            self.engine, self._exact, self._make_exact = self._exact, None, None  # dropped by whoever still runs on it

    def _encode_fp32(self, framed: list[list[int]]) -> Vectors:
        with self._lock:
            self._overflow.again += len(framed)
            if self._exact is None:
                if self._make_exact is None:
                    return self.engine.run(framed)
                self._exact = self._make_exact()
            exact = self._exact
        return exact.run(framed)


def open_text_encoder(
    config: Config,
    plan: DevicePlan | None = None,
    *,
    space: str | None = None,
    reference: Reference | None = None,
    progress: Progress | None = None,
    fresh: bool = False,
) -> SentenceEncoder:
    """Load `config.text_model` on the engine that suits this machine.

    space, reference: of an index made before; the engine is held to its vectors, instead of to float32's here.
    progress: told in words when something takes long (a model is converted once a machine). fresh: the engine is chosen
    by measurement anew, whatever was chosen here before.
    Raises WeightsError when the model is not to be found, EncodingError when no engine can run it, and
    IndexStateError when it is another model than `space` says or gives other vectors than `reference`.
    """
    weights = resolve(config.text_model, kind="text", offline=config.offline, cache_dir=config.cache_dir)
    settings = {"query_prompt": config.query_prompt, "passage_prompt": config.passage_prompt}
    spec = EncoderSpec.read(weights, **settings, dim=config.text_dim)
    if space is not None and not same_space(space, spec.space):
        raise IndexStateError(
            f"this index's text vectors are {space}, and {config.text_model} gives {spec.space}; they cannot be compared. "
            "Open the index with the weights and settings it was made with, or ingest into another folder"
        )
    return _Opening(spec, plan or plan_device(config), config, reference, progress, fresh=fresh).open()


class _Opening:
    """From a plan's engines to one that runs here and gives the vectors it should."""

    def __init__(
        self,
        spec: EncoderSpec,
        plan: DevicePlan,
        config: Config,
        given: Reference | None,
        progress: Progress | None,
        *,
        fresh: bool,
    ) -> None:
        self._spec, self._plan, self._config, self._fresh = spec, plan, config, fresh
        self._given, self._progress = given, progress
        self._folder = config.cache_dir / "engines"

    def open(self) -> SentenceEncoder:
        """The first engine that can be made and agrees; after one that differs, the more exact ones."""
        names, trials = self._candidates()
        differ: list[str] = []
        while names:
            name = names.pop(0)
            try:
                engine = self._make(name)
            except (EncodingError, ImportError) as error:
                trials[name] = Trial(name, verdict=f"cannot be used: {error}")
                continue
            found = self._held(engine)
            if found.ok:
                return self._encoder(engine, found, trials, differ)
            engine.close()
            trials[name] = Trial(name, overlap=found.overlap, verdict=found.why())
            differ.append(f"{name} {found.why()}")
            names = self._more_exact(name, [*trials])
        if differ and self._given is not None:
            raise IndexStateError(
                f"the same weights give other vectors here than the index holds ({'; '.join(differ)}): its tokenizer or "
                "configuration is another one. Open it with the model's original files, or ingest into another folder"
            )
        told = "; ".join(f"{trial.engine} {trial.verdict}" for trial in trials.values())
        raise EncodingError(f"no engine can run this model here: {told}")

    def _encoder(self, engine: Engine, found: Fit, trials: dict[str, Trial], differ: list[str]) -> SentenceEncoder:
        measured = trials.get(engine.name) if not differ else None
        if measured is None or not measured.chosen:
            told = "; ".join(filter(None, (self._plan.reasons.get("engines", "") if not differ else "", found.why())))
            trials[engine.name] = Trial(engine.name, overlap=found.overlap, verdict=told or "used instead", chosen=True)
        return SentenceEncoder(
            self._spec,
            engine,
            exact=lambda: self._make("torch-f32"),
            reference=lambda: self._reference(engine),
            report=[trial.row() for trial in sorted(trials.values(), key=lambda trial: not trial.chosen)],
            notes=[f"{'; '.join(differ)}: {engine.name} encodes instead"] if differ else (),
        )

    def _candidates(self) -> tuple[list[str], dict[str, Trial]]:
        """Names to try, the most promising first, with what is known of them."""
        plan, spec, config = self._plan, self._spec, self._config
        measurable = any(name.startswith("openvino-") for name in plan.engines) and len(plan.engines) > 1
        if not measurable or config.quantization not in ("auto", "none"):
            return list(plan.engines), {}
        choice = (None if self._fresh else remembered(spec, plan, config)) or self._choose()
        return [choice.engine], {trial.engine: trial for trial in choice.trials}

    def _choose(self) -> Choice:
        share = partial(torch_share, self._spec, self._config.cache_dir)
        return choose(self._spec, self._plan, self._config, self._make, held=self._held, torch_share=share)

    def _more_exact(self, name: str, tried: Sequence[str]) -> list[str]:
        known = dict.fromkeys([*self._plan.engines, *(["openvino-f32"] if name.startswith("openvino-") else []), "torch-f32"])
        finer = [other for other in known if other not in tried and (exactness(other) < exactness(name) or other == "torch-f32")]
        return sorted(finer, key=lambda other: (-exactness(other), other.startswith("torch-")))

    def _make(self, name: str) -> Engine:
        if name.startswith("openvino-"):
            return OpenVINOEngine(self._spec, name, self._plan, self._config, progress=self._progress)
        from ultrafast_rag.models.text.torch import TorchEngine

        return TorchEngine(self._spec, name, self._plan, self._config)

    def _held(self, engine: Engine) -> Fit:
        """What is known of the engine here, measured the first time."""
        if self._given is None and engine.name == "torch-f32" and not engine.widths:
            return Fit(engine.name)  # it is what the others are held to
        to = self._given.digest if self._given is not None else "float32 here"
        key = machine_key(self._spec, self._plan, engine.name, to, "compiled" if self._plan.compile else "")
        return fit_once(Memory(self._folder / "checked.json"), key, engine, lambda: self._measured(engine))

    def _measured(self, engine: Engine) -> Fit:
        reference = self._reference()
        if reference is None:
            return Fit(engine.name, engine.widths)
        everywhere, found = engine.widths, fit(engine, self._framed(reference.texts), reference.vectors)
        older = self._framed(reference.texts, older=True)
        if found.ok or self._given is None or older == self._framed(reference.texts):
            return found
        engine.widths = everywhere
        return fit(engine, older, reference.vectors)

    def _reference(self, exact: Engine | None = None) -> Reference | None:
        """The index's, else torch float32's own, made once; None where float32 does not fit. exact: such an engine, open."""
        if self._given is not None:
            return self._given
        if (known := made_in_conversion(self._spec, self._config.cache_dir)) is not None:
            return known
        memory, key = Memory(self._folder / "references.json"), f"{self._spec.space}|{calibration_hash()}"
        try:
            return Reference.from_json(memory.recall(key) or {})
        except ValueError:  # not made here yet
            pass
        made = self._encoded_exactly(exact if exact is not None and exact.name == "torch-f32" else None)
        if made is not None:
            memory.remember(key, made.to_json())
        return made

    def _encoded_exactly(self, exact: Engine | None) -> Reference | None:
        pieces = WordPieces(self._spec)
        texts = reference_texts(pieces, pieces.prompt(self._spec.passage_prompt))
        try:
            engine = exact or self._make("torch-f32")
            vectors = np.concatenate([engine.run([framed]) for framed in self._framed(texts)])
        except (EncodingError, ImportError):  # a large model at 4 bits: there is no float32 to hold it to
            return None
        if exact is None:
            engine.close()
        return Reference(texts, vectors)

    def _framed(self, texts: Sequence[str], *, older: bool = False) -> list[list[int]]:
        """older: as until November 2026, when the space at a prompt's end was a token of its own in some vocabularies.

        The engine is held to what the index holds; between one such token and none, vectors remain comparable.
        """
        pieces, prompt = WordPieces(self._spec), self._spec.passage_prompt
        before = pieces.tokenize([prompt])[0] if older and prompt else pieces.prompt(prompt)
        return pieces.with_special_tokens(pieces.tokenize(texts), before)
