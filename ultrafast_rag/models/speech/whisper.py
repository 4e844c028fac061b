"""Sound -> words with times, by openai-whisper (or faster-whisper where installed).

`open_transcriber` is the way in. Windows are independent of one another: no text is carried over, so a
resumed recording gives the same words, and a slip does not spread. What Whisper invents in silence and
music is held back by gates: its own no-speech probability, mean log probability and compression ratio
(Radford et al. 2022, section 4.5), the level of the sound under each segment and whether a voice is in it
(`voice`), how fast the words would have been spoken, and a list of the phrases it is known to make up.

On a GPU windows go through the model several at a time, those of different stretches together (`WINDOWS`); what is heard
in one does not depend on its company. Not on a CPU: on two cores a batch of 4 takes the encoder of Whisper base 7 % longer
a window than one by one (0.24 s for 0.23 s, bf16); its decoder would gain, 0.43 s for 0.83 s over 60 tokens.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, DeviceMemoryError, EncodingError, MissingExtraError, WeightsError, require
from ultrafast_rag.models.batching import Governor, is_out_of_memory, run_governed
from ultrafast_rag.models.device import DevicePlan, few_threads, plan_device
from ultrafast_rag.models.quantize import to_8bit
from ultrafast_rag.models.speech.checkpoints import Checkpoint, find_checkpoint, load_model
from ultrafast_rag.models.speech.vad import Voice
from ultrafast_rag.ports import Transcriber
from ultrafast_rag.types import Segment

RATE = 16_000  # Hz, Whisper's own
FASTER = "faster-whisper:"
# windows at once on a GPU: where faster-whisper's own table goes from 63 s to 17 s (13 minutes of sound, large-v2, its README)
WINDOWS = 8
_HOP = 160  # samples a mel frame
_TICK_S = 0.02  # of a timestamp token
_WINDOW_S = 30  # of every published Whisper
_FRAMES_PER_S = RATE // _HOP
_PLAIN: dict[str, Any] = {
    "beam_size": 1,
    "condition_on_previous_text": False,
}  # of faster-whisper: as openai-whisper is used here
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


class _Heard:
    """A sound on its way through the model: float32, its voice, and what was kept of each window by its first sample."""

    def __init__(self, pcm: bytes) -> None:
        self.sound = _floats(pcm)
        self.voice, self.kept = Voice(self.sound), dict[int, list[Segment]]()

    def in_order(self) -> list[Segment]:
        return [segment for start in sorted(self.kept) for segment in self.kept[start]]


@dataclass(frozen=True, slots=True)
class _Window:
    """From sample `start` to `end` of a sound."""

    of: _Heard
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
        self._window = 2 * self._model.dims.n_audio_ctx * _HOP
        self._longest = int(min(self._window, (checkpoint.window_s or 1e9) * RATE))
        self.windows = windows or _windows(device)
        self._governor = Governor(self.windows)

    def transcribe(self, pcm: bytes, *, offset_s: float = 0.0, language: str | None = None) -> list[Segment]:
        """As `transcribe_many` of one sound, with offset_s added to its times."""
        return [_moved(segment, offset_s) for segment in self.transcribe_many([pcm], language=language)[0]]

    def transcribe_many(self, sounds: Sequence[bytes], *, language: str | None = None) -> list[list[Segment]]:
        """Segments of each sound, little-endian int16 mono PCM at 16 kHz, timed from its start; [] for silence and music.

        language: a code such as "de"; None detects it, window by window. Raises ConfigError for a
        language Whisper does not know, DeviceMemoryError when one window does not fit.
        """
        language, heard = self._known(language), [_Heard(pcm) for pcm in sounds]
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
        return window.end - window.start >= _LEAST_S * RATE and level_dbfs(window.sound) > self._gates.faint_dbfs

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
            if is_out_of_memory(error):
                raise
            raise WeightsError(f"faster-whisper has no model {name!r} here: {str(error)[:200]}") from error
        self._gates, self._lock, self.notes = gates or Gates(), threading.Lock(), list[str]()
        self.windows, self._batched = _windows(device), faster.BatchedInferencePipeline(self._model)
        self.fingerprint = f"faster-whisper:{name}|{compute}"

    def transcribe(self, pcm: bytes, *, offset_s: float = 0.0, language: str | None = None) -> list[Segment]:
        """As `WhisperTranscriber.transcribe`."""
        return [_moved(segment, offset_s) for segment in self.transcribe_many([pcm], language=language)[0]]

    def transcribe_many(self, sounds: Sequence[bytes], *, language: str | None = None) -> list[list[Segment]]:
        """As `WhisperTranscriber.transcribe_many`; stretches of one language go through the model together."""
        heard = [_Heard(pcm) for pcm in sounds]
        loud = [one for one in heard if len(one.sound) >= _LEAST_S * RATE and level_dbfs(one.sound) > self._gates.faint_dbfs]
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

    def _together(self, group: Sequence[_Heard], language: str) -> None:
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

    def _keep(self, one: _Heard, results: Iterable[Any], language: str, *, start_s: float = 0.0) -> None:
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


def _windows(device: str) -> int:
    return WINDOWS if device != "cpu" else 1


def _floats(pcm: bytes) -> Sound:
    return np.frombuffer(pcm[: len(pcm) // 2 * 2], "<i2").astype(np.float32) / 32768.0


def _moved(segment: Segment, offset_s: float) -> Segment:
    return replace(segment, start_s=segment.start_s + offset_s, end_s=segment.end_s + offset_s)


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
