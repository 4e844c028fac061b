"""Which of the words that Whisper hears are kept, and the sound they are of; the same for every Whisper.

What it invents in silence and music is held back: by its own no-speech probability, mean log probability and compression
ratio (Radford et al. 2022, section 4.5), the level of the sound under each segment and whether a voice is in it (`vad.py`),
how fast the words would have been spoken, and a list of the phrases it is known to make up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ultrafast_rag.models.speech.vad import Voice
from ultrafast_rag.types import Segment

RATE = 16_000  # Hz, Whisper's own
HOP = 160  # samples a mel frame
# windows at once on a GPU: where faster-whisper's own table goes from 63 s to 17 s (13 minutes of sound, large-v2, its README)
WINDOWS = 8
LEAST_S = 0.1  # shorter holds no word
_UNDER_S = 1.0  # of sound at least are looked at to tell a voice
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


class Heard:
    """A sound on its way through the model: float32, its voice, and what was kept of each window by its first sample."""

    def __init__(self, pcm: bytes) -> None:
        self.sound = floats(pcm)
        self.voice, self.kept = Voice(self.sound), dict[int, list[Segment]]()

    def in_order(self) -> list[Segment]:
        """What was kept, from the start."""
        return [segment for start in sorted(self.kept) for segment in self.kept[start]]


def windows_at_once(device: str) -> int:
    """How many go through the model together on a device."""
    return WINDOWS if device != "cpu" else 1


def floats(pcm: bytes) -> Sound:
    """16-bit samples as numbers between -1 and 1."""
    return np.frombuffer(pcm[: len(pcm) // 2 * 2], "<i2").astype(np.float32) / 32768.0


def moved(segment: Segment, offset_s: float) -> Segment:
    """The segment, so much later."""
    return replace(segment, start_s=segment.start_s + offset_s, end_s=segment.end_s + offset_s)


def level_dbfs(sound: Sound) -> float:
    """Level in dB below full scale, without the mean; -120 for digital silence."""
    rms = float(sound.std()) if len(sound) else 0.0
    return 20.0 * float(np.log10(max(rms, 1e-6)))
