"""The models of one index: opened on first use, once, and held to what its vectors were made with.

A model that cannot be had is not an error here but a note: pictures are then found by their words,
recordings by their sidecars. Only the text encoder is indispensable.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from ultrafast_rag.config import Config
from ultrafast_rag.device import DevicePlan, plan_device
from ultrafast_rag.embed import TEXT_SPACE, VISUAL_SPACE
from ultrafast_rag.encode.text import SentenceEncoder, open_text_encoder
from ultrafast_rag.errors import IndexStateError, MissingExtraError, WeightsError
from ultrafast_rag.index.store import Store
from ultrafast_rag.ports import ImageEncoder, Reranker, TextEncoder, Transcriber

T = TypeVar("T")
FINGERPRINTS = "fingerprints"


class Models:
    """Text encoder, picture encoder, transcriber and reranker. notes: what is missing, and why."""

    def __init__(self, config: Config, store: Store) -> None:
        self._config, self._store = config, store
        self._lock = threading.RLock()
        self._open: dict[str, Any] = {}
        self.notes: dict[str, str] = {}

    @cached_property
    def plan(self) -> DevicePlan:
        """What this machine can run, with reasons."""
        return plan_device(self._config)

    def text(self) -> TextEncoder:
        """The sentence encoder, at the precision the index was made with."""
        encoder: TextEncoder = self._once(TEXT_SPACE, self._open_text)
        return encoder

    def picture(self) -> ImageEncoder | None:
        """The CLIP encoder, or None with a note."""
        if self._config.image_model is None:
            return None
        return self._once(VISUAL_SPACE, self._open_picture)

    def speech(self) -> Transcriber | None:
        """The transcriber, or None with a note."""
        if self._config.speech_model is None:
            return None
        return self._once("speech", self._open_speech)

    def reranker(self) -> Reranker | None:
        """The cross-encoder, or None when none is configured."""
        if self._config.rerank_model is None:
            return None
        return self._once("rerank", self._open_reranker)

    def loaded(self) -> dict[str, str]:
        """Name -> fingerprint of each model opened so far."""
        with self._lock:
            return {name: model.fingerprint for name, model in self._open.items() if model is not None}

    def bind(self, space: str, fingerprint: str) -> None:
        """Hold the index to the encoder of its first vectors; IndexStateError for another one."""
        known = self._store.get_meta(FINGERPRINTS, {})
        if space not in known:
            self._store.set_meta(FINGERPRINTS, {**known, space: fingerprint})
        elif known[space] != fingerprint:
            raise IndexStateError(_mismatch(space, known[space], fingerprint))

    def close(self) -> None:
        """Give all models' memory back."""
        with self._lock:
            for model in self._open.values():
                if model is not None and hasattr(model, "close"):
                    model.close()
            self._open.clear()

    def _once(self, name: str, make: Callable[[], T]) -> T:
        with self._lock:
            if name not in self._open:
                self._open[name] = make()
            model: T = self._open[name]
            return model

    def _recorded(self, space: str) -> str | None:
        fingerprint: str | None = self._store.get_meta(FINGERPRINTS, {}).get(space)
        return fingerprint

    def _open_text(self) -> SentenceEncoder:
        recorded = self._recorded(TEXT_SPACE)
        encoder = open_text_encoder(self._config, self.plan, fingerprint=recorded, progress=self._announce)
        if recorded is not None and encoder.fingerprint != recorded:
            encoder.close()
            raise IndexStateError(_mismatch(TEXT_SPACE, recorded, encoder.fingerprint))
        return encoder

    def _announce(self, step: str) -> None:
        """What takes long and happens once: a person should know what they wait for."""
        if not self._config.quiet:
            sys.stderr.write(f"{step} (half a minute or so)\n")

    def _open_picture(self) -> ImageEncoder | None:
        from ultrafast_rag.encode.clip import open_image_encoder

        encoder: ImageEncoder | None = self._unless_missing(VISUAL_SPACE, lambda: open_image_encoder(self._config, self.plan))
        recorded = self._recorded(VISUAL_SPACE)
        if encoder is not None and recorded is not None and encoder.fingerprint != recorded:
            raise IndexStateError(_mismatch(VISUAL_SPACE, recorded, encoder.fingerprint))
        return encoder

    def _open_speech(self) -> Transcriber | None:
        from ultrafast_rag.encode.whisper import open_transcriber

        return self._unless_missing("speech", lambda: open_transcriber(self._config, self.plan))

    def _open_reranker(self) -> Reranker:
        from ultrafast_rag.encode.rerank import open_reranker

        return open_reranker(self._config, self.plan)

    def _unless_missing(self, name: str, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except (WeightsError, MissingExtraError) as error:
            self.notes[name] = str(error)
            return None


def _mismatch(space: str, recorded: str, offered: str) -> str:
    return (
        f"this index's {space} vectors were made by {recorded}, and {offered} is loaded; their vectors cannot be compared. "
        "Open the index with the settings it was made with, or ingest into another folder."
    )
