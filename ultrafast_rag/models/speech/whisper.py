"""Sound -> words with times, by openai-whisper (or faster-whisper where installed).

`open_transcriber` is the way in. Windows are independent of one another: no text is carried over, so a
resumed recording gives the same words, and a slip does not spread. What Whisper invents is held back by `gates.py`.

On a GPU windows go through the model several at a time, those of different stretches together (`WINDOWS`); what is heard
in one does not depend on its company. Not on a CPU: on two cores a batch of 4 takes the encoder of Whisper base 7 % longer
a window than one by one (0.24 s for 0.23 s, bf16); its decoder would gain, 0.43 s for 0.83 s over 60 tokens.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, DeviceMemoryError, EncodingError, MissingExtraError, require
from ultrafast_rag.models.batching import Governor, run_governed
from ultrafast_rag.models.device import DevicePlan, few_threads, plan_device
from ultrafast_rag.models.quantize import to_8bit
from ultrafast_rag.models.speech.checkpoints import Checkpoint, find_checkpoint, load_model
from ultrafast_rag.models.speech.gates import HOP, LEAST_S, RATE, Gates, Heard, Sound, level_dbfs, moved, windows_at_once
from ultrafast_rag.ports import Transcriber
from ultrafast_rag.types import Segment

FASTER = "faster-whisper:"
_TICK_S = 0.02  # of a timestamp token
_DIVISIBLE_S = 8.0  # shorter windows are not divided
_LOOP = re.compile(r"\b(\w.{0,40}?)(?:[\s,.!?]+\1\b){3,}", re.IGNORECASE)  # four times the same: the decoder went round


@dataclass(frozen=True, slots=True)
class _Window:
    """From sample `start` to `end` of a sound."""

    of: Heard
    start: int
    end: int

    @property
    def sound(self) -> Sound:
        return self.of.sound[self.start : self.end]


class WhisperTranscriber:
    """ports.Transcriber on openai-whisper's own model class; one call at a time, others wait.

    windows: how many go through the model at once; None: as many as suit the device. notes: what a report should say.
    The encoder runs in half precision where the chip multiplies it;
    the decoder too on a GPU, in float32 on a CPU.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str,
        precision: str,
        gates: Gates | None = None,
        notes: Sequence[str] = (),
        windows: int | None = None,
    ) -> None:
        self._torch, self._whisper = require("torch"), require("whisper", package="openai-whisper", extra="speech")
        self._gates, self._device, self._lock = gates or Gates(), device, threading.Lock()
        self._model = load_model(checkpoint)
        self._dtype = _place(self._torch, self._model, device, precision)
        self.multilingual: bool = self._model.is_multilingual
        self.notes = [*notes, *filter(None, [checkpoint.note])]
        self.precision = precision
        self.fingerprint = f"whisper:{checkpoint.name}@{checkpoint.revision}|{precision}"
        self._window = 2 * self._model.dims.n_audio_ctx * HOP
        self._longest = int(min(self._window, (checkpoint.window_s or 1e9) * RATE))
        self.windows = windows or windows_at_once(device)
        self._governor = Governor(self.windows)

    def transcribe(self, pcm: bytes, *, offset_s: float = 0.0, language: str | None = None) -> list[Segment]:
        """As `transcribe_many` of one sound, with offset_s added to its times."""
        return [moved(segment, offset_s) for segment in self.transcribe_many([pcm], language=language)[0]]

    def transcribe_many(self, sounds: Sequence[bytes], *, language: str | None = None) -> list[list[Segment]]:
        """Segments of each sound, little-endian int16 mono PCM at 16 kHz, timed from its start; [] for silence and music.

        language: a code such as "de"; None detects it, window by window. Raises ConfigError for a
        language Whisper does not know, DeviceMemoryError when one window does not fit.
        """
        language, heard = self._known(language), [Heard(pcm) for pcm in sounds]
        with self._lock, few_threads(self._torch):
            waiting = [_Window(one, *piece) for one in heard for piece in one.voice.pieces(self._longest)][::-1]
            while waiting:
                taken = [waiting.pop() for _ in range(min(self.windows, len(waiting)))]
                taken = [window for window in taken if self._may_hold_words(window)]
                results = self._hear([window.sound for window in taken], language)
                waiting += [again for window, result in zip(taken, results) for again in self._after(window, result, language)][
                    ::-1
                ]
        return [one.in_order() for one in heard]

    def _may_hold_words(self, window: _Window) -> bool:
        return window.end - window.start >= LEAST_S * RATE and level_dbfs(window.sound) > self._gates.faint_dbfs

    def _after(self, window: _Window, heard: tuple[Any, Any], language: str | None) -> list[_Window]:
        """Keep what a window said; which windows to hear because of it, in time order.

        A guess about speech is divided, so that one sentence gone wrong does not cost those beside it. A short one is tried
        again at higher temperatures; what has no voice is not, for none of its words would be certain.
        """
        one, start, end, (result, states) = window.of, window.start, window.end, heard
        spoken = one.voice.share(start / RATE, end / RATE) >= self._gates.voiced
        divisible = spoken and end - start >= _DIVISIBLE_S * RATE
        if spoken and not divisible:
            result = self._insisted(result, states, language)
        if self._gates.is_silence(result):
            return []
        if self._gates.is_guess(result):
            return [_Window(one, *half) for half in one.voice.halves(start, end)] if divisible else []
        found, used = self._split(result, start / RATE, end / RATE)
        one.kept[start] = [segment for segment in found if self._gates.keeps(segment, one.sound, one.voice, result)]
        return [_Window(one, start + max(used, RATE), end)]  # at least a second on, or a slip would go on for ever

    def close(self) -> None:
        """Give the model's memory back; it cannot be used afterwards."""
        self._model = None

    def encode_audio(self, *windows: Sound) -> Any:
        """Encoder states (n, n_audio_ctx, n_audio_state) of windows of float32 sound at 16 kHz, spectra made on the device."""
        torch = self._torch
        padded = np.zeros((len(windows), self._window), np.float32)
        for row, sound in zip(padded, windows):
            row[: min(len(sound), self._window)] = sound[: self._window]
        sounds = torch.from_numpy(padded).to(self._device)
        # one by one: the library measures each window's spectrum against the loudest moment of all that it is given
        mel = torch.stack([self._whisper.log_mel_spectrogram(sound, self._model.dims.n_mels) for sound in sounds])
        with torch.inference_mode():
            states = self._model.encoder(mel.to(self._device, self._dtype))
            return states.half() if self._device != "cpu" else states.float()

    @property
    def dims(self) -> Any:
        """openai-whisper's own ModelDimensions."""
        return self._model.dims

    def tokens_heard(self, windows: Sequence[Sound], language: str) -> list[int]:
        """How many tokens each window gives, before any gate; for measuring the model alone."""
        with self._lock, few_threads(self._torch):
            return [len(result.tokens) for result, _ in self._hear(windows, language)]

    def _known(self, language: str | None) -> str | None:
        if not self.multilingual:
            return "en"
        if language is None:
            return None
        code = language.lower().split("-")[0]
        known = self._whisper.tokenizer.LANGUAGES
        code = self._whisper.tokenizer.TO_LANGUAGE_CODE.get(code, code)
        if code not in known:
            raise ConfigError(f"Whisper knows no language {language!r}; set speech_language to a code such as 'en', or None")
        return str(code)

    def _hear(self, windows: Sequence[Sound], language: str | None) -> list[tuple[Any, Any]]:
        """Whisper's own greedy result for each window, and its encoder states; fewer at a time after memory ran out."""

        def run(rows: list[int]) -> list[tuple[Any, Any]]:
            states = self.encode_audio(*(windows[row] for row in rows))
            return list(zip(self._decode(states, language, 0.0), states[:, None]))

        found: dict[int, tuple[Any, Any]] = {}
        try:
            for rows, heard in run_governed([1] * len(windows), run, governor=self._governor, release=self._release):
                found |= zip(rows, heard, strict=True)
        except DeviceMemoryError as error:
            raise DeviceMemoryError(
                f"one window of speech does not fit on {self._device}; choose a smaller speech_model, or call clear_memory()"
            ) from error
        except RuntimeError as error:
            raise EncodingError(f"Whisper failed on {self._device}: {error}") from error
        return [found[row] for row in range(len(windows))]

    def _release(self) -> None:
        if self._device != "cpu":
            self._torch.cuda.empty_cache()

    def _insisted(self, result: Any, states: Any, language: str | None) -> Any:
        """The result, sampled again at higher temperatures while it is a guess and not silence.

        Each window by itself, with a fixed seed, so that what is drawn does not depend on its company.
        """
        for temperature in self._gates.temperatures[1:]:
            if not self._gates.is_guess(result) or self._gates.is_silence(result):
                break
            result = self._decode(states, language, temperature)[0]
        return result

    def _decode(self, states: Any, language: str | None, temperature: float) -> list[Any]:
        options = self._whisper.DecodingOptions(language=language, temperature=temperature, fp16=self._device != "cpu")
        devices = [] if self._device == "cpu" else [self._device]
        with self._torch.random.fork_rng(devices=devices), self._torch.inference_mode():
            self._torch.manual_seed(0)
            return list(self._whisper.decode(self._model, states, options))

    def _split(self, result: Any, start_s: float, end_s: float) -> tuple[list[Segment], int]:
        """Segments of a window from start_s to end_s, and how many of its samples are done with.

        Cut at timestamp pairs, as openai-whisper's transcribe does. What would begin after the sound has
        ended is invented from the zeros that fill the window up.
        """
        tokenizer, length = self._tokenizer(result.language), round((end_s - start_s) * RATE)
        tokens, first = list(result.tokens), tokenizer.timestamp_begin
        is_time = [token >= first for token in tokens]
        pairs = [n + 1 for n in range(len(tokens) - 1) if is_time[n] and is_time[n + 1]]
        ends_single = is_time[-2:] == [False, True]
        used = length
        if pairs:
            stops = [*pairs, len(tokens)] if ends_single else pairs
            cut = [tokens[a:b] for a, b in zip([0, *stops], stops, strict=False)]
            pieces = [(part[0] - first, part[-1] - first, part) for part in cut]
            if not ends_single:
                used = min(length, round((tokens[pairs[-1] - 1] - first) * _TICK_S * RATE))
        else:
            times = [token - first for token in tokens if token > first]
            pieces = [(0, times[-1] if times else round(length / RATE / _TICK_S), tokens)]
        segments = []
        for begin, stop, part in pieces:
            text = _LOOP.sub(r"\1", tokenizer.decode([token for token in part if token < tokenizer.eot]).strip())
            if text and begin < stop and start_s + begin * _TICK_S < end_s - LEAST_S:
                stop_s = min(start_s + stop * _TICK_S, end_s)
                segments.append(Segment(start_s + begin * _TICK_S, stop_s, text, str(result.language)))
        return segments, used

    def _tokenizer(self, language: str) -> Any:
        return self._whisper.tokenizer.get_tokenizer(
            self.multilingual, num_languages=self._model.num_languages, language=language, task="transcribe"
        )


def open_transcriber(config: Config, plan: DevicePlan | None = None) -> Transcriber:
    """Load `config.speech_model`: a Whisper name, folder, published .pt or hub id, or "faster-whisper:NAME".

    On the plan's last device, so that with two GPUs speech and text do not share one. 8-bit that cannot
    be had falls back to the plan's type, with a note. Raises WeightsError, MissingExtraError, ConfigError.
    """
    if config.speech_model is None:
        raise ConfigError("speech_model is None: transcription is switched off; set Config(speech_model='base') or a folder")
    plan = plan or plan_device(config)
    device = plan.devices[-1]
    precisions = [plan.dtype] if plan.quantization == "none" else [plan.quantization, plan.dtype]
    if config.speech_model.startswith(FASTER):
        name = config.speech_model.removeprefix(FASTER)
        from ultrafast_rag.models.speech.faster import FasterWhisperTranscriber

        return FasterWhisperTranscriber(name, device=device, precision=precisions[0], offline=config.offline)
    checkpoint, notes = find_checkpoint(config.speech_model, config), list[str]()
    for precision in precisions:
        try:
            return WhisperTranscriber(checkpoint, device=device, precision=precision, notes=notes)
        except (EncodingError, MissingExtraError) as error:
            notes.append(f"{config.speech_model}: {precision} is not used: {error}")
    raise EncodingError("; ".join(notes))


def _place(torch: Any, model: Any, device: str, precision: str) -> Any:
    """Put the model on its device in its precision; the type the encoder takes its input in.

    openai-whisper keeps float32 weights and casts them at every call. Cast once here, one layer after the other, they
    take half the memory and time; its layer norms compute in float32 and stay so.
    """
    if precision == "4bit":
        raise EncodingError("Whisper's own layers have no 4-bit form")
    if precision == "8bit":
        _cast(torch, model, torch.float16 if device != "cpu" else torch.float32)  # as bitsandbytes' layers are asked
        to_8bit(model, device)
        return torch.float16 if device != "cpu" else torch.float32
    dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(precision, torch.float32)
    dtype = torch.float16 if device != "cpu" else dtype  # its decoder knows float16 and float32 alone
    _cast(torch, model.encoder, dtype)
    _cast(torch, model.decoder, dtype if device != "cpu" else torch.float32)
    model.to(device)
    return dtype


def _cast(torch: Any, part: Any, dtype: Any) -> None:
    for module in part.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Embedding)):
            module.to(dtype)
