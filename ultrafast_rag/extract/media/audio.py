"""Recordings -> stretches of sound to transcribe, or the words of a transcript beside them.

A recording is read as a stream of fixed slots of 26 s, whose borders move by up to 2 s to the quietest
moment near them, so no window is longer than Whisper's 30 s and hardly any word is cut. A slot is a
part: it depends on its own sound alone, so a reader that starts again anywhere finds the same parts,
and memory stays flat for a file of any length. Stretches without a voice are left out.

Voice activity by energy against an adaptive noise floor, with hysteresis. It errs on the side of
hearing too much: whether a sound is speech the transcriber decides, by what it hears and by a detector
of voices (`models/speech/vad.py`), next to the model so that reading stays light. A trained detector
(Silero, WebRTC) is not used here: another download or build for what these do together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, UnsupportedError, require
from ultrafast_rag.extract.media.captions import find_sidecar, read_captions, sidecar_language, speech_parts
from ultrafast_rag.extract.media.container import frames_of, media_duration_s, media_title, open_media, reason, suffix_notes
from ultrafast_rag.types import Element, Part, Segment

Pcm = npt.NDArray[np.int16]

RATE = 16_000  # Hz: what Whisper was trained on
SLOT_S = 26.0  # with 2 s of reach at either end it fits Whisper's window of 30 s
_REACH_S = 2.0  # how far a slot's border may move towards silence
_FRAME = RATE // 50  # 20 ms
_ON_DB, _OFF_DB = 8.0, 5.0  # above the noise floor, to start and to go on
_LOUD_DB, _FAINT_DB = -40.0, -60.0  # dBFS: above the one is always sound, below the other never
_MIN_VOICED = 3  # frames; a click is shorter
_JOIN_S, _PAD_S = 0.3, 0.2  # chosen: a breath between words; the soft start and end of one
_SPLIT_S = 5.0  # a longer pause is not sent along
_MAX_GAP_S = 60.0  # holes in a damaged stream up to here become silence, so that times stay right
_NOTHING: Pcm = np.empty(0, np.int16)


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot's sound: pcm int16 at 16 kHz from start_s on."""

    number: int
    start_s: float
    pcm: Pcm


class AudioExtractor:
    """ports.Extractor for recordings."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """Yield a part for each slot of about 26 s: its stretches with a voice as "sound" elements.

        With a .vtt or .srt beside the file: its cues as "speech", 50 per part, and the sound stays unread.
        A silent slot is a part without elements. Raises CorruptError, UnsupportedError, ExtractionError.
        """
        path = Path(path)
        with open_media(path) as container:
            if not container.streams.audio:
                raise UnsupportedError(f"{path.name} holds no sound", path=str(path))
            title = media_title(container, path)
            duration_s = media_duration_s(container)
            notes = suffix_notes(container, path)
        cues, cue_notes = sidecar(path, self.config.speech_language)
        notes += cue_notes
        if cues:
            yield from speech_parts(cues, title, start_part, tuple(notes))
            return
        total = max(1, round(duration_s / SLOT_S + 0.5)) if duration_s else None
        for slot, last in _with_last(slots(decode_pcm(path))):
            if slot.number >= start_part:
                first = tuple(notes) if slot.number == 0 else ()
                length = slot.number + 1 if last else max(total, slot.number + 2) if total else None
                yield Part(slot.number, sound_elements(slot), title=title, total=length, notes=first)


def sidecar(path: Path, language: str | None) -> tuple[list[Segment], list[str]]:
    """Cues of the transcript beside `path`, and notes for the report; [] without one that can be read."""
    beside = find_sidecar(path, language)
    if beside is None:
        return [], []
    try:
        cues = read_captions(beside, language=sidecar_language(path, beside))
    except OSError as error:
        return [], [f"the transcript {beside.name} cannot be read ({error.strerror}); the sound is used"]
    if not cues:
        return [], [f"the transcript {beside.name} holds no cues; the sound is used"]
    return cues, [f"words from the transcript {beside.name}"]


def sound_elements(slot: Slot) -> tuple[Element, ...]:
    """The slot's stretches with a voice, in time order."""
    found = []
    for start, end in stretches(slot.pcm):
        start_s = slot.start_s + start / RATE
        data = slot.pcm[start:end].astype("<i2").tobytes()
        found.append(Element("sound", "", start_s=start_s, end_s=slot.start_s + end / RATE, data=data))
    return tuple(found)


def decode_pcm(path: Path, *, start_s: float = 0.0) -> Iterator[Pcm]:
    """int16 mono at 16 kHz from start_s on, in blocks of about a second; damaged packets become silence.

    Raises CorruptError when nothing at all can be decoded.
    """
    broken: list[str] = []
    done = held = 0
    collected: list[Pcm] = []
    with open_media(path) as container:
        if not container.streams.audio:
            raise UnsupportedError(f"{path.name} holds no sound", path=str(path))
        for piece in _pieces(container, start_s, broken):
            collected.append(piece)
            held += len(piece)
            if held >= RATE:
                yield np.concatenate(collected)
                done, held, collected = done + held, 0, []
    if held:
        yield np.concatenate(collected)
    if done + held == 0 and start_s == 0:
        why = f": {broken[0]}" if broken else ""
        raise CorruptError(f"{path.name} holds no sound that can be decoded{why}", path=str(path))


def _pieces(container: Any, start_s: float, broken: list[str]) -> Iterator[Pcm]:
    """Resampled pieces as they are decoded, with holes in the time stamps filled by silence."""
    av = require("av", extra="speech")
    origin_s = container.start_time / 1e6 if container.start_time else 0.0
    if start_s > 1.0:
        with contextlib.suppress(av.error.FFmpegError):  # a container without an index is read from its start
            container.seek(int((start_s - 1.0 + origin_s) * 1e6))
    resampler = av.AudioResampler("s16", "mono", RATE)
    clock = 0 if start_s <= 1.0 else None  # the sample, counted from the start of the recording, that comes next
    begin = round(start_s * RATE)
    for frame in frames_of(container, container.streams.audio[0]):
        if isinstance(frame, str):
            broken.append(frame)
            continue
        at = round((frame.time - origin_s) * RATE) if frame.time is not None else clock or 0
        clock = max(0, at) if clock is None else clock
        if RATE // 5 < at - clock < _MAX_GAP_S * RATE:
            yield np.zeros(max(0, at - max(clock, begin)), np.int16)
            clock = at
        try:
            pieces = [piece.to_ndarray().reshape(-1) for piece in resampler.resample(frame)]
        except (av.error.FFmpegError, ValueError) as error:  # the stream changed its layout half way
            broken.append(reason(error))
            resampler = av.AudioResampler("s16", "mono", RATE)
            continue
        for piece in pieces:
            yield piece[max(0, begin - clock) :]
            clock += len(piece)
    with contextlib.suppress(av.error.FFmpegError, ValueError):  # nothing was ever fed in
        for piece in resampler.resample(None):
            yield piece.to_ndarray().reshape(-1)


def slots(blocks: Iterator[Pcm]) -> Iterator[Slot]:
    """Cut a stream of blocks into slots at the quietest moment within 2 s of every multiple of 26 s."""
    pending: list[Pcm] = []
    held = first = number = 0  # first: the sample at which the pending sound starts
    for block in blocks:
        pending.append(block)
        held += len(block)
        while first + held >= (limit := int(((number + 1) * SLOT_S + _REACH_S) * RATE)):
            sound = np.concatenate(pending)
            earliest = limit - int(2 * _REACH_S * RATE) - first
            cut = earliest + _quietest(sound[earliest : limit - first])
            yield Slot(number, first / RATE, sound[:cut])
            pending, held, first, number = [sound[cut:]], held - cut, first + cut, number + 1
    if held or number == 0:
        yield Slot(number, first / RATE, np.concatenate([*pending, _NOTHING]))


def stretches(pcm: Pcm) -> list[tuple[int, int]]:
    """(start, end) in samples of the stretches with a voice, padded, pauses of up to 5 s kept inside.

    The noise floor is the 10th percentile of the 20 ms frame levels; sound starts 8 dB above it and
    ends 5 dB above it. Above -40 dBFS is always sound, so a steady tone or loud noise is not missed.
    """
    level = levels_db(pcm)
    if not len(level):
        return []
    floor = float(np.percentile(level, 10))
    on = level > np.clip(floor + _ON_DB, _FAINT_DB, _LOUD_DB)
    off = level > np.clip(floor + _OFF_DB, _FAINT_DB - 3, _LOUD_DB - 3)
    frames_per_s = RATE / _FRAME
    runs = [(a, b) for a, b in _runs(off) if on[a:b].sum() >= _MIN_VOICED]
    runs = [(a, b) for a, b in _joined(runs, int(_JOIN_S * frames_per_s)) if b - a >= _MIN_VOICED]
    pad = int(_PAD_S * frames_per_s)
    joined = _joined([(max(0, a - pad), b + pad) for a, b in runs], int(_SPLIT_S * frames_per_s))
    return [(a * _FRAME, min(len(pcm), b * _FRAME)) for a, b in joined]


def levels_db(pcm: Pcm) -> npt.NDArray[np.float32]:
    """Level of each 20 ms frame in dB below full scale, without its mean (a constant offset is no sound)."""
    count = -(-len(pcm) // _FRAME)
    frames = np.zeros(count * _FRAME, np.float32)
    frames[: len(pcm)] = pcm
    rms = frames.reshape(count, _FRAME).std(axis=1) / 32768.0
    level: npt.NDArray[np.float32] = (20.0 * np.log10(np.maximum(rms, 1e-6))).astype(np.float32)
    return level


def _quietest(pcm: Pcm) -> int:
    """The middle of the quietest 0.2 s."""
    energy = np.square(pcm.astype(np.float64))
    width = RATE // 5
    sums = np.cumsum(np.concatenate([[0.0], energy]))
    windows = sums[width:] - sums[:-width]
    return int(np.argmin(windows)) + width // 2


def _runs(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _joined(runs: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in runs:
        if joined and start - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _with_last(items: Iterator[Slot]) -> Iterator[tuple[Slot, bool]]:
    held: Slot | None = None
    for item in items:
        if held is not None:
            yield held, False
        held = item
    if held is not None:
        yield held, True
