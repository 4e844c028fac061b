"""Sound -> words by faster-whisper (CTranslate2), where it is installed, with the same gates."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ultrafast_rag.errors import WeightsError, require
from ultrafast_rag.models.batching import is_out_of_memory
from ultrafast_rag.models.speech.gates import HOP, LEAST_S, RATE, Gates, Heard, level_dbfs, moved, windows_at_once
from ultrafast_rag.types import Segment

_WINDOW_S = 30  # of every published Whisper
_FRAMES_PER_S = RATE // HOP
_PLAIN: dict[str, Any] = {
    "beam_size": 1,
    "condition_on_previous_text": False,
}  # of faster-whisper: as openai-whisper is used here


class FasterWhisperTranscriber:
    """ports.Transcriber on faster-whisper (CTranslate2), with the same gates."""

    def __init__(self, name: str, *, device: str, precision: str, offline: bool, gates: Gates | None = None) -> None:
        faster = require("faster_whisper", package="faster-whisper", extra="faster-whisper")
        kind, _, index = device.partition(":")
        half = "float16" if kind != "cpu" else ""  # what layers that are not in 8 bits compute in
        compute = {"8bit": "int8_float16" if half else "int8", "float16": "float16"}.get(precision, half or "int8")
        try:
            self._model = faster.WhisperModel(
                name, device=kind, device_index=int(index or 0), compute_type=compute, local_files_only=offline
            )
        except (RuntimeError, ValueError, OSError) as error:
            if is_out_of_memory(error):
                raise
            raise WeightsError(f"faster-whisper has no model {name!r} here: {str(error)[:200]}") from error
        self._gates, self._lock, self.notes = gates or Gates(), threading.Lock(), list[str]()
        self.windows, self._batched = windows_at_once(device), faster.BatchedInferencePipeline(self._model)
        self.fingerprint = f"faster-whisper:{name}|{compute}"

    def transcribe(self, pcm: bytes, *, offset_s: float = 0.0, language: str | None = None) -> list[Segment]:
        """As `WhisperTranscriber.transcribe`."""
        return [moved(segment, offset_s) for segment in self.transcribe_many([pcm], language=language)[0]]

    def transcribe_many(self, sounds: Sequence[bytes], *, language: str | None = None) -> list[list[Segment]]:
        """As `WhisperTranscriber.transcribe_many`; stretches of one language go through the model together."""
        heard = [Heard(pcm) for pcm in sounds]
        loud = [one for one in heard if len(one.sound) >= LEAST_S * RATE and level_dbfs(one.sound) > self._gates.faint_dbfs]
        with self._lock:
            if self.windows == 1 or len(loud) < 2 or any(len(one.sound) > _WINDOW_S * RATE for one in loud):
                for one in loud:
                    found, info = self._model.transcribe(one.sound, language=language, **_PLAIN)
                    self._keep(one, found, str(info.language))
            else:
                spoken = [language or str(self._model.detect_language(one.sound)[0]) for one in loud]
                for code in dict.fromkeys(spoken):
                    self._together([one for one, said in zip(loud, spoken, strict=True) if said == code], code)
        return [one.in_order() for one in heard]

    def _together(self, group: Sequence[Heard], language: str) -> None:
        """Each sound as a clip of one long sound, from a whole second on, by which its segments are told apart."""
        starts = np.cumsum([0, *(-(-len(one.sound) // RATE) for one in group)])
        joined = np.zeros(int(starts[-1]) * RATE, np.float32)
        for start, one in zip(starts, group):
            joined[start * RATE : start * RATE + len(one.sound)] = one.sound
        clips = [{"start": float(start), "end": float(start) + len(one.sound) / RATE} for start, one in zip(starts, group)]
        found, _ = self._batched.transcribe(
            joined, language=language, clip_timestamps=clips, batch_size=self.windows, without_timestamps=False, **_PLAIN
        )
        parts: dict[int, list[Any]] = {int(start): [] for start in starts[:-1]}
        for result in found:
            parts[result.seek // _FRAMES_PER_S].append(result)
        for (start_s, results), one in zip(parts.items(), group, strict=True):
            self._keep(one, results, language, start_s=start_s)

    def _keep(self, one: Heard, results: Iterable[Any], language: str, *, start_s: float = 0.0) -> None:
        kept = one.kept[0] = []
        for result in results:
            segment = Segment(result.start - start_s, result.end - start_s, result.text.strip(), language)
            if self._gates.is_silence(result) or self._gates.is_guess(result):
                continue
            if self._gates.keeps(segment, one.sound, one.voice, result):
                kept.append(segment)

    def close(self) -> None:
        """Give the model's memory back; it cannot be used afterwards."""
        self._model = self._batched = None
