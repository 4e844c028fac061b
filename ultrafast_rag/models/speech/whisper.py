"""Sound -> words with times, by openai-whisper (or faster-whisper where installed).

`open_transcriber` is the way in. Windows are independent of one another: no text is carried over, so a
resumed recording gives the same words, and a slip does not spread. What Whisper invents in silence and
music is held back by gates: its own no-speech probability, mean log probability and compression ratio
(Radford et al. 2022, section 4.5), the level of the sound under each segment and whether a voice is in it
(`voice`), how fast the words would have been spoken, and a list of the phrases it is known to make up.

Windows are not encoded several at a time: on two cores a batch of 4 takes the encoder of Whisper base 7 % longer
a window than one by one (0.24 s for 0.23 s, bf16). Its decoder would gain, 0.43 s for 0.83 s over 60 tokens, but
a stretch is one window, and waiting for the stretches of other parts would cost the resumable order of parts.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, DeviceMemoryError, EncodingError, MissingExtraError, WeightsError, require
from ultrafast_rag.models.batching import is_out_of_memory
from ultrafast_rag.models.device import DevicePlan, few_threads, plan_device
from ultrafast_rag.models.quantize import to_8bit
from ultrafast_rag.models.speech.checkpoints import Checkpoint, find_checkpoint, load_model
from ultrafast_rag.models.speech.vad import Voice
from ultrafast_rag.ports import Transcriber
from ultrafast_rag.types import Segment

RATE = 16_000  # Hz, Whisper's own
FASTER = "faster-whisper:"
_HOP = 160  # samples a mel frame
_TICK_S = 0.02  # of a timestamp token
_LEAST_S = 0.1  # shorter holds no word
_UNDER_S = 1.0  # of sound at least are looked at to tell a voice
_DIVISIBLE_S = 8.0  # shorter windows are not divided
_STOCK = {
    "thank you",
    "thanks for watching",
    "thank you for watching",
    "thanks",
    "you",
    "bye",
    "please subscribe",
    "the end",
    "see you next time",
    "see you in the next video",
    "subtitles by the amara org community",
    "untertitel der amara org community",
    "sous titres réalisés par la communauté d amara org",
}
_LOOP = re.compile(r"\b(\w.{0,40}?)(?:[\s,.!?]+\1\b){3,}", re.IGNORECASE)  # four times the same: the decoder went round
_BRACKETED = re.compile(r"[\[(*♪♫][^\])*♪♫]*[\])*♪♫]?")
Sound = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Gates:
    """When heard text is thrown away. The first four are Whisper's own thresholds, used more strictly.

    With the demo Whisper no word is invented in 208 minutes in which nobody speaks (`tests/benchmarks/transcription.py`, four
    seeds). Each alone, before `doubtful` came, by `--open NAME`: 12 words in 52 minutes; without `voiced` and `clearly_voiced`
    798, without `no_speech` 25, without `letters_per_s` or `logprob` and `compression` 20. `voiced`, `no_speech` and
    `letters_per_s` cost no word of clean speech; in noise 20 dB below it the last costs 1.4 words in a hundred, `voiced` 0.7.
    """

    no_speech: float = 0.6  # over this it is silence, unless the words are nearly certain:
    certain_logprob: float = -0.25
    doubtful: float = 0.1  # from here to no_speech the words have to be the surer, the more the model doubts that anybody speaks
    logprob: float = -1.0  # mean per token; below it is a guess
    compression: float = 2.4  # zlib ratio; over it the text goes round in circles
    stock_no_speech: float = 0.25  # over this a stock phrase is taken for an invention
    faint_dbfs: float = -60.0  # no word is spoken below this level
    voiced: float = 0.03  # share of voice-like frames; over less, only words as certain as that are kept,
    clearly_voiced: float = 0.15  # over more, all; in between the sound and the model have to make up for one another
    letters_per_s: float = 30.0  # nobody speaks faster
    temperatures: tuple[float, ...] = (0.0, 0.4, 0.8)

    def is_guess(self, result: Any) -> bool:
        """Worth another try at a higher temperature."""
        return bool(result.compression_ratio > self.compression or result.avg_logprob < self.logprob)

    def is_silence(self, result: Any) -> bool:
        """Whether the model itself says that nobody speaks."""
        return bool(result.no_speech_prob > self.no_speech and result.avg_logprob < self.certain_logprob)

    def keeps(self, heard: Segment, sound: Sound, voice: Voice, result: Any) -> bool:
        """Whether a segment's words are worth keeping, given the sound it is of and what the model said of its window."""
        plain = " ".join(re.findall(r"\w+", _BRACKETED.sub(" ", heard.text).lower()))
        if not plain or (plain in _STOCK and result.no_speech_prob > self.stock_no_speech):
            return False
        # widened to a second, for times are a little off and less tells nothing
        spare_s = max(0.0, _UNDER_S - (heard.end_s - heard.start_s)) / 2
        start_s = max(0.0, min(heard.start_s - spare_s, len(sound) / RATE - _UNDER_S))
        end_s = max(heard.end_s + spare_s, start_s + _UNDER_S)
        if len(plain.replace(" ", "")) > self.letters_per_s * (end_s - start_s):
            return False
        if level_dbfs(sound[int(start_s * RATE) : int(end_s * RATE)]) <= self.faint_dbfs:
            return False
        share = voice.share(start_s, end_s)
        needed = np.interp(share, (self.voiced, self.clearly_voiced), (self.certain_logprob, self.logprob))
        doubt = np.interp(result.no_speech_prob, (self.doubtful, self.no_speech), (self.logprob, self.certain_logprob))
        return bool(result.avg_logprob >= doubt and (result.avg_logprob > needed or share >= self.clearly_voiced))


class WhisperTranscriber:
    """ports.Transcriber on openai-whisper's own model class; one call at a time, others wait.

    notes: what a report should say. The encoder runs in half precision where the chip multiplies it;
    the decoder too on a GPU, in float32 on a CPU.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, device: str, precision: str, gates: Gates | None = None, notes: Sequence[str] = ()
    ) -> None:
        self._torch, self._whisper = require("torch"), require("whisper", package="openai-whisper", extra="speech")
        self._gates, self._device, self._lock = gates or Gates(), device, threading.Lock()
        self._model = load_model(checkpoint)
        self._dtype = _place(self._torch, self._model, device, precision)
        self.multilingual: bool = self._model.is_multilingual
        self.notes = [*notes, *filter(None, [checkpoint.note])]
        self.precision = precision
        self.fingerprint = f"whisper:{checkpoint.name}@{checkpoint.revision}|{precision}"
        self._window = 2 * self._model.dims.n_audio_ctx * _HOP
        self._longest = int(min(self._window, (checkpoint.window_s or 1e9) * RATE))

    def transcribe(self, pcm: bytes, *, offset_s: float = 0.0, language: str | None = None) -> list[Segment]:
        """Segments of little-endian int16 mono PCM at 16 kHz; times have offset_s added; [] for silence and music.

        language: a code such as "de"; None detects it, window by window. Raises ConfigError for a
        language Whisper does not know, DeviceMemoryError when one window does not fit.
        """
        sound = np.frombuffer(pcm[: len(pcm) // 2 * 2], "<i2").astype(np.float32) / 32768.0
        language = self._known(language)
        voice, segments = Voice(sound), list[Segment]()
        with self._lock, few_threads(self._torch):
            waiting = voice.pieces(self._longest)[::-1]
            while waiting:
                start, end = waiting.pop()
                if end - start < _LEAST_S * RATE or level_dbfs(sound[start:end]) <= self._gates.faint_dbfs:
                    continue
                # A guess about speech is divided, so that one sentence gone wrong does not cost those beside it. A short one
                # is tried again at higher temperatures; what has no voice is not, for none of its words would be certain.
                spoken = voice.share(start / RATE, end / RATE) >= self._gates.voiced
                divisible = spoken and end - start >= _DIVISIBLE_S * RATE
                tries = self._gates.temperatures if spoken and not divisible else self._gates.temperatures[:1]
                result = self._hear(sound[start:end], language, tries)
                if self._gates.is_silence(result):
                    continue
                if self._gates.is_guess(result):
                    waiting += voice.halves(start, end)[::-1] if divisible else []
                    continue
                found, used = self._split(result, start / RATE, end / RATE)
                segments += [segment for segment in found if self._gates.keeps(segment, sound, voice, result)]
                waiting.append((start + max(used, RATE), end))  # at least a second on, or a slip would go on for ever
        return [Segment(s.start_s + offset_s, s.end_s + offset_s, s.text, s.language) for s in segments]

    def close(self) -> None:
        """Give the model's memory back; it cannot be used afterwards."""
        self._model = None

    def encode_audio(self, sound: Sound) -> Any:
        """Encoder states of one window (1, n_audio_ctx, n_audio_state) from float32 sound at 16 kHz."""
        torch = self._torch
        padded = np.zeros(self._window, np.float32)
        padded[: len(sound)] = sound[: self._window]
        mel = self._whisper.log_mel_spectrogram(torch.from_numpy(padded).to(self._device), self._model.dims.n_mels)
        with torch.inference_mode():
            states = self._model.encoder(mel[None].to(self._device, self._dtype))
            return states.half() if self._device != "cpu" else states.float()

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

    def _hear(self, window: Sound, language: str | None, temperatures: Sequence[float]) -> Any:
        """Whisper's own result for one window."""
        try:
            return self._decode(self.encode_audio(window), language, temperatures)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise EncodingError(f"Whisper failed on {self._device}: {error}") from error
            self._torch.cuda.empty_cache()
            raise DeviceMemoryError(
                f"one window of speech does not fit on {self._device}; choose a smaller speech_model, or call clear_memory()"
            ) from error

    def _decode(self, states: Any, language: str | None, temperatures: Sequence[float]) -> Any:
        """Greedy; sampled again, with a fixed seed, while the result is a guess and not silence."""
        result: Any = None
        for temperature in temperatures:
            options = self._whisper.DecodingOptions(language=language, temperature=temperature, fp16=self._device != "cpu")
            devices = [] if self._device == "cpu" else [self._device]
            with self._torch.random.fork_rng(devices=devices), self._torch.inference_mode():
                self._torch.manual_seed(0)
                result = self._whisper.decode(self._model, states, options)[0]
            if not self._gates.is_guess(result) or self._gates.is_silence(result):
                break
        return result

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
            if text and begin < stop and start_s + begin * _TICK_S < end_s - _LEAST_S:
                stop_s = min(start_s + stop * _TICK_S, end_s)
                segments.append(Segment(start_s + begin * _TICK_S, stop_s, text, str(result.language)))
        return segments, used

    def _tokenizer(self, language: str) -> Any:
        return self._whisper.tokenizer.get_tokenizer(
            self.multilingual, num_languages=self._model.num_languages, language=language, task="transcribe"
        )


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
            raise WeightsError(f"faster-whisper has no model {name!r} here: {str(error)[:200]}") from error
        self._gates, self._lock, self.notes = gates or Gates(), threading.Lock(), list[str]()
        self.fingerprint = f"faster-whisper:{name}|{compute}"

    def transcribe(self, pcm: bytes, *, offset_s: float = 0.0, language: str | None = None) -> list[Segment]:
        """As `WhisperTranscriber.transcribe`."""
        sound = np.frombuffer(pcm[: len(pcm) // 2 * 2], "<i2").astype(np.float32) / 32768.0
        if len(sound) < _LEAST_S * RATE or level_dbfs(sound) <= self._gates.faint_dbfs:
            return []
        with self._lock:
            heard, info = self._model.transcribe(sound, language=language, beam_size=1, condition_on_previous_text=False)
            results = list(heard)
        voice, kept = Voice(sound), list[Segment]()
        for result in results:
            segment = Segment(result.start, result.end, result.text.strip(), info.language)
            if self._gates.is_silence(result) or self._gates.is_guess(result):
                continue
            if self._gates.keeps(segment, sound, voice, result):
                kept.append(Segment(segment.start_s + offset_s, segment.end_s + offset_s, segment.text, segment.language))
        return kept

    def close(self) -> None:
        """Give the model's memory back; it cannot be used afterwards."""
        self._model = None


def open_transcriber(config: Config, plan: DevicePlan | None = None) -> Transcriber:
    """Load `config.speech_model`: a Whisper name, folder, published .pt or hub id, or "faster-whisper:NAME".

    On the plan's last device, so that with two GPUs speech and text do not share one. 8-bit that cannot
    be had falls back to the plan's type, with a note. Raises WeightsError, MissingExtraError, ConfigError.
    """
    if config.speech_model is None:
        raise ConfigError("speech_model is None: transcription is switched off")
    plan = plan or plan_device(config)
    device = plan.devices[-1]
    precisions = [plan.dtype] if plan.quantization == "none" else [plan.quantization, plan.dtype]
    if config.speech_model.startswith(FASTER):
        name = config.speech_model.removeprefix(FASTER)
        return FasterWhisperTranscriber(name, device=device, precision=precisions[0], offline=config.offline)
    checkpoint, notes = find_checkpoint(config.speech_model, config), list[str]()
    for precision in precisions:
        try:
            return WhisperTranscriber(checkpoint, device=device, precision=precision, notes=notes)
        except (EncodingError, MissingExtraError) as error:
            notes.append(f"{config.speech_model}: {precision} is not used: {error}")
    raise EncodingError("; ".join(notes))


def level_dbfs(sound: Sound) -> float:
    """Level in dB below full scale, without the mean; -120 for digital silence."""
    rms = float(sound.std()) if len(sound) else 0.0
    return 20.0 * float(np.log10(max(rms, 1e-6)))


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
