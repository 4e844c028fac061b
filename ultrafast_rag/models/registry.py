"""The models of one index: opened on first use, once, and held to the spaces its vectors lie in.

A model that cannot be had is not an error here but a note: pictures are then found by their words,
recordings by their sidecars. Only the text encoder is indispensable.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ultrafast_rag.config import Config, is_remote, members
from ultrafast_rag.errors import ConfigError, IndexStateError, MissingExtraError, UltraFastRAGError, WeightsError
from ultrafast_rag.models.device import DevicePlan, plan_device
from ultrafast_rag.models.pool import ModelPool, ModelUse, estimate_bytes
from ultrafast_rag.models.proxies import ImageProxy, ReaderProxy, RerankProxy, SpeechProxy, TextProxy
from ultrafast_rag.models.text.encoder import SentenceEncoder, open_text_encoder
from ultrafast_rag.models.text.reference import Reference
from ultrafast_rag.models.text.select import is_busy
from ultrafast_rag.models.text.static import StaticEncoder, open_static
from ultrafast_rag.models.text.tokens import same_space
from ultrafast_rag.models.tune import Tuned, tune, tuned
from ultrafast_rag.ports import Facts, ImageEncoder, Reader, Reranker, Transcriber
from ultrafast_rag.remote.limits import Totals
from ultrafast_rag.remote.secrets import Secret
from ultrafast_rag.types import TEXT_SPACE, VISUAL_SPACE, Table

if TYPE_CHECKING:
    from ultrafast_rag.models.text.ensemble import EnsembleEncoder
    from ultrafast_rag.models.text.remote import RemoteEncoder

FINGERPRINTS = "fingerprints"  # space -> what its vectors are; until version 0.2 the engine stood in it too
REFERENCE = "reference"  # texts and float32 vectors that an engine is held to, on whatever machine
SPEECH, READER = "speech", "reader"
Proxy = TextProxy | ImageProxy | SpeechProxy | RerankProxy | ReaderProxy
P = TypeVar("P", bound=Proxy)


class Models:
    """Text encoder, picture encoder, transcriber and reranker, kept within the memory there is.

    notes: what is missing or reduced, and why, by model. gemini_key: the user's own argument. sent: requests, tokens and
    dollars of texts that a service encoded.
    """

    def __init__(self, config: Config, facts: Facts, *, gemini_key: Secret | None = None) -> None:
        self._config, self._facts, self._gemini_key = config, facts, gemini_key
        self.sent = Totals()
        self._lock = threading.RLock()  # short, and asked for last: a model is loaded under the lock of its name alone
        self._opening: dict[str, threading.RLock] = {}
        self._ahead: threading.Thread | None = None
        self._ports: dict[str, Proxy] = {}
        self._missing: set[str] = set()
        self._static: StaticEncoder | None = None
        self._bound: set[tuple[str, str]] = set()
        self.notes: dict[str, str] = {}

    @cached_property
    def plan(self) -> DevicePlan:
        """What this machine can run, with reasons."""
        return plan_device(self._config)

    @cached_property
    def pool(self) -> ModelPool:
        """Holds the models, and lets idle ones go when the next does not fit."""
        return ModelPool(self._config, self.plan)

    def text(self) -> TextProxy:
        """The sentence encoder, on any engine that gives the index's vectors."""
        return self._proxy(TextProxy, TEXT_SPACE, self._config.text_model, self._open_text)

    def static(self) -> StaticEncoder:
        """Vectors without a network, distilled from the sentence encoder: a few MB, kept beside the pool."""
        with self._opened_once("static"):
            if self._static is None:
                self._static = open_static(self.text(), self._config.cache_dir, progress=self._announce)
            return self._static

    def picture(self) -> ImageProxy | None:
        """The CLIP encoder, or None with a note."""
        return self._unless_missing(ImageProxy, VISUAL_SPACE, self._config.image_model, self._open_picture)

    def speech(self) -> SpeechProxy | None:
        """The transcriber, or None with a note."""
        return self._unless_missing(SpeechProxy, SPEECH, self._config.speech_model, self._open_speech)

    def reranker(self) -> RerankProxy | None:
        """The cross-encoder, or None when none is configured."""
        model = self._config.rerank_model
        return None if model is None else self._proxy(RerankProxy, "rerank", model, self._open_reranker)

    def reader(self) -> ReaderProxy | None:
        """What finds the answer in passages, or None with a note."""
        return self._unless_missing(ReaderProxy, READER, self._config.reader_model, self._open_reader)

    def open_reader_ahead(self) -> None:
        """Begin to open the reader, once: a first question needs the encoder and then the reader, and one core opens one."""
        with self._lock:
            if self._ahead is not None or READER in self._opening or self._config.reader_model is None:
                return
            self._ahead = threading.Thread(target=self._try_reader, args=(self.pool,), name="ufr-reader")
            self._ahead.start()  # no daemon: see `openvino.py`

    def _try_reader(self, _made: ModelPool) -> None:
        with suppress(UltraFastRAGError):  # the answer meets it again, and says it
            self.reader()

    def loaded(self) -> dict[str, str]:
        """Name -> fingerprint of each model that is in memory now."""
        with self._lock:
            held = {use.name for use in self.pool.use() if use.loaded} if self._ports else set()
            return {name: port.fingerprint for name, port in self._ports.items() if name in held}

    def use(self) -> list[ModelUse]:
        """The pool's row for each model asked for so far."""
        return self.pool.use() if self._ports else []

    def bind(self, space: str, made_by: str) -> None:
        """Hold the index to the space of its first vectors; IndexStateError for another one.

        With the first text vectors a reference is kept, so that another machine's engines can be held to them.
        """
        if (space, made_by) in self._bound:
            return
        known = self._facts.get_meta(FINGERPRINTS, {})
        if space not in known:
            self._facts.set_meta(FINGERPRINTS, {**known, space: made_by})
        elif not same_space(known[space], made_by):
            raise IndexStateError(_mismatch(space, known[space], made_by))
        if space == TEXT_SPACE and self._facts.get_meta(REFERENCE) is None:
            self._keep_reference()
        self._bound.add((space, made_by))

    def moved(self) -> str:
        """The space of the index's text vectors, where it is another than the encoder's that was opened here; "" where not."""
        port, recorded = self._ports.get(TEXT_SPACE), self._recorded(TEXT_SPACE)
        elsewhere = isinstance(port, TextProxy) and recorded is not None and not same_space(recorded, port.space)
        return str(recorded) if elsewhere else ""

    def facts(self, known: Mapping[str, str]) -> dict[str, Any]:
        """What an index keeps whose text vectors are this encoder's: `bind`'s facts. known: its spaces so far."""
        reference = self.text().reference()
        made = {**known, TEXT_SPACE: self.text().space}
        return {FINGERPRINTS: made, REFERENCE: None if reference is None else reference.to_json()}

    def _keep_reference(self) -> None:
        reference = self.text().reference()
        if reference is not None:
            self._facts.set_meta(REFERENCE, reference.to_json())

    def clear_memory(self) -> None:
        """Give cached memory back; every model stays loaded."""
        if self._ports:
            self.pool.clear_memory()

    def close(self) -> None:
        """Give all models' memory back."""
        if self._ahead is not None:
            self._ahead.join()
        with ExitStack() as waiting:
            for lock in list(self._opening.values()):  # whoever opens one has it in the pool, or has failed, by then
                waiting.enter_context(lock)
            if self._ports:
                self.pool.close()
            self._ports.clear()

    def _opened_once(self, name: str) -> AbstractContextManager[object]:
        """Two models are opened side by side, one model once."""
        with self._lock:
            return self._opening.setdefault(name, threading.RLock())

    def _proxy(self, kind: type[P], name: str, model: str, load: Callable[[], object]) -> P:
        """A port that loads on use, the first time now, so that what is missing is known here."""
        with self._opened_once(name):
            known = self._ports.get(name)
            if not isinstance(known, kind):
                size_bytes, devices = estimate_bytes(model, self.plan), self._devices(name)
                if name == TEXT_SPACE:
                    size_bytes = sum(1 if is_remote(one) else estimate_bytes(one, self.plan) for one in members(model))
                    devices = devices[:1] if is_remote(model) else devices
                self.pool.register(name, load, size_bytes=size_bytes, devices=devices)
                with self.pool.lease(name) as opened:
                    for note in getattr(opened, "notes", ()):
                        self.notes[name] = note
                known = kind(self.pool, name)
                with self._lock:
                    self._ports[name] = known
            return known

    def _devices(self, name: str) -> tuple[str, ...]:
        """Where a model lies: text and pictures on every device, speech on the last, the others on the first."""
        if name in (TEXT_SPACE, VISUAL_SPACE):
            return self.plan.devices
        return self.plan.devices[-1:] if name == SPEECH else self.plan.devices[:1]

    def _unless_missing(self, kind: type[P], name: str, model: str | None, load: Callable[[], object]) -> P | None:
        if model is None or name in self._missing:
            return None
        try:
            return self._proxy(kind, name, model, load)
        except (WeightsError, MissingExtraError) as error:
            self._missing.add(name)
            self.notes[name] = str(error)
            return None

    def _recorded(self, space: str) -> str | None:
        made_by: str | None = self._facts.get_meta(FINGERPRINTS, {}).get(space)
        return made_by

    def tune(self, limit_s: float) -> Table:
        """Find and remember the text encoder's fastest engine, batch budget and threads here, for the next batch on."""
        if is_remote(self._config.text_model) or len(members(self._config.text_model)) > 1:
            raise ConfigError(f"{self._config.text_model} is a service, or several models: one on this machine can be tuned")
        config, text, busy, notes = self._config, self.text(), is_busy(self.plan), list[str]()

        def opened(settings: Tuned) -> SentenceEncoder:
            first = not notes
            encoder = open_text_encoder(config.replace(**asdict(settings)), self.plan, fresh=first and not busy)
            if first:
                notes.extend(f"{engine}: {speed} tokens/s, {why}" for engine, speed, *_, why in encoder.report() if speed)
                notes.insert(0, f"engine {encoder.engine.name}")
            return encoder

        cores = 1 if self.plan.on_gpu else self.plan.cpu.cores
        table = tune(
            self._tuned_name(), config.cache_dir, opened, lambda encoder: encoder.close(), cores=cores, limit_s=limit_s, busy=busy
        )
        text.close()  # loaded again, with what was found, when next used
        table.notes = (*table.notes, *notes)
        return table

    def _tuned_name(self) -> str:
        """The encoder on this machine, by what decides its speed."""
        cpu, gpus = self.plan.cpu, (gpu.name for gpu in self.plan.gpus)
        return " | ".join((self._config.text_model, self._config.engine, cpu.name, f"{cpu.cores} cores", *gpus))

    def _text_config(self, config: Config) -> Config:
        found = tuned(config.cache_dir, self._tuned_name())
        return config.replace(batch_tokens=config.batch_tokens or found.batch_tokens, threads=config.threads or found.threads)

    def _open_text(self) -> SentenceEncoder | RemoteEncoder | EnsembleEncoder:
        recorded, models = self._recorded(TEXT_SPACE), members(self._config.text_model)
        stored = self._facts.get_meta(REFERENCE) if recorded is not None else None
        try:
            if len(models) > 1:
                return self._open_ensemble(models, recorded, stored)
            reference = None if stored is None else Reference.from_json(stored)
        except ValueError as error:
            raise IndexStateError(f"{error}: restore the index from an archive, or ingest again") from error
        return self._open_one(self._config, recorded, reference)

    def _open_ensemble(self, models: Sequence[str], recorded: str | None, stored: Any) -> EnsembleEncoder:
        from ultrafast_rag.models.text.ensemble import EnsembleEncoder, References

        each = [None] * len(models) if stored is None else References.from_json(stored).each
        if len(each) != len(models):
            raise IndexStateError(f"this index was made with {len(each)} text models, not {len(models)}: {recorded}")
        made = [self._open_one(self._config.replace(text_model=one), None, held_to) for one, held_to in zip(models, each)]
        return EnsembleEncoder(self._config.text_model, made, space=recorded)

    def _open_one(self, config: Config, recorded: str | None, reference: Reference | None) -> SentenceEncoder | RemoteEncoder:
        if is_remote(config.text_model):
            from ultrafast_rag.models.text.remote import open_remote  # its HTTP is for those who send

            return open_remote(config, space=recorded, reference=reference, gemini_key=self._gemini_key, totals=self.sent)
        options: dict[str, Any] = {"space": recorded, "reference": reference, "progress": self._announce}
        try:
            return open_text_encoder(self._text_config(config), self.plan, **options)
        except WeightsError as error:
            usual, asked = Config().text_model, config.text_model
            if recorded is None or not Path(asked).expanduser().is_absolute():
                raise
            try:  # a path of the machine that made the index: the same weights may be here by their usual name
                encoder = open_text_encoder(config.replace(text_model=usual), self.plan, **options)
            except (WeightsError, IndexStateError):
                raise error from None
            encoder.notes = (*encoder.notes, f"{asked} is not on this machine; {usual} has the same weights and is used")
            return encoder

    def _announce(self, step: str) -> None:
        """What takes long and happens once: a person should know what they wait for."""
        if not self._config.quiet:
            sys.stderr.write(f"{step} (half a minute or so)\n")

    def _open_picture(self) -> ImageEncoder:
        from ultrafast_rag.models.clip.encoder import open_image_encoder

        encoder = open_image_encoder(self._config, self.plan, progress=self._announce)
        recorded = self._recorded(VISUAL_SPACE)
        if recorded is not None and not same_space(recorded, encoder.space):
            raise IndexStateError(_mismatch(VISUAL_SPACE, recorded, encoder.space))
        return encoder

    def _open_speech(self) -> Transcriber:
        from ultrafast_rag.models.speech.whisper import open_transcriber

        return open_transcriber(self._config, self.plan)

    def _open_reader(self) -> Reader:
        from ultrafast_rag.models.reader.reader import open_reader

        return open_reader(self._config, self.plan, progress=self._announce)

    def _open_reranker(self) -> Reranker:
        from ultrafast_rag.models.text.rerank import open_reranker

        return open_reranker(self._config, self.plan)


def _mismatch(space: str, recorded: str, offered: str) -> str:
    return (
        f"this index's {space} vectors were made by {recorded}, and {offered} is loaded; their vectors cannot be compared. "
        "Open the index with the settings it was made with, or ingest into another folder."
    )
