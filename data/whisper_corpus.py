"""Training windows for the demo Whisper: spoken sentences with the time of every word and phoneme.

espeak-ng tells, through its C library, when each word and phoneme begins; with these times the encoder is
shown what every 20 ms hold and the decoder where to look, which a small model would need days to find out.
"""

from __future__ import annotations

import ctypes
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from random import Random

import gold
import numpy as np
import speech
from speech import RATE, Voice

FRAME_S = 0.02  # one position of the encoder
FRAMES = 1500
NONE = 0  # label of a frame without speech
PHONES = 120  # hash buckets for espeak-ng's phoneme names


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int), ("uid", ctypes.c_uint), ("text_position", ctypes.c_int), ("length", ctypes.c_int),
        ("audio_ms", ctypes.c_int), ("sample", ctypes.c_int), ("user", ctypes.c_void_p), ("id", _Id),
    ]  # fmt: skip


@dataclass(slots=True)
class Utterance:
    """A spoken sentence. words: (word with its punctuation, begin, end) in seconds; phones: (bucket, begin, end)."""

    text: str
    pcm: np.ndarray
    words: list[tuple[str, float, float]]
    phones: list[tuple[int, float, float]]


class Speaker:
    """espeak-ng's library in this process; one at a time."""

    def __init__(self) -> None:
        self.lib = ctypes.CDLL("libespeak-ng.so.1")
        self.lib.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        self.lib.espeak_Synth.argtypes = [
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int,
            ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip
        self.rate = self.lib.espeak_Initialize(2, 200, None, 1)  # synchronous, with phoneme events
        self.sound: list[np.ndarray] = []
        self.events: list[tuple[int, int, int, bytes]] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self.callback = kind(self._hear)
        self.lib.espeak_SetSynthCallback(self.callback)

    def _hear(self, wav, count, events) -> int:
        if wav and count > 0:
            self.sound.append(np.ctypeslib.as_array(wav, (count,)).copy())
        k = 0
        while events[k].type != 0:
            event = events[k]
            self.events.append((event.type, event.text_position, event.sample, event.id.string if event.type == 7 else b""))
            k += 1
        return 0

    def say(self, text: str, voice: Voice) -> Utterance:
        """Speak one sentence; times are counted from its first sample."""
        from scipy.signal import resample_poly

        self.sound.clear()
        self.events.clear()
        if self.lib.espeak_SetVoiceByName((voice.name + voice.variant).encode()):
            raise ValueError(f"espeak-ng has no voice {voice.name}{voice.variant}")
        self.lib.espeak_SetParameter(1, voice.speed, 0)
        self.lib.espeak_SetParameter(3, voice.pitch, 0)
        data = text.encode() + b"\0"
        self.lib.espeak_Synth(data, len(data), 0, 1, 0, 1, None, None)
        self.lib.espeak_Synchronize()
        raw = np.concatenate(self.sound).astype(np.float32) / 32768
        pcm = resample_poly(raw, 320, self.rate * 320 // RATE).astype(np.float32)
        loud = np.flatnonzero(np.abs(pcm) > 0.01)
        first, last = (max(0, loud[0] - 320), min(len(pcm), loud[-1] + 320)) if len(loud) else (0, len(pcm))
        end = (last - first) / RATE
        seconds = lambda sample: min(end, max(0.0, sample / self.rate - first / RATE))  # noqa: E731
        heard = [(name, seconds(sample)) for kind, _, sample, name in self.events if kind == 7]
        phones = [
            (0 if name.startswith(b"_") else 1 + zlib.crc32(name.split(b"\0")[0]) % (PHONES - 1), a, b)
            for (name, a), (_, b) in zip(heard, [*heard[1:], (b"", end)])
        ]
        starts = {position - 1: seconds(sample) for kind, position, sample, _ in self.events if kind == 1}
        return Utterance(text, pcm[first:last], _word_times(text, starts, end), phones)


def _word_times(text: str, starts: dict[int, float], end: float) -> list[tuple[str, float, float]]:
    """Every word's begin and end; a word for which espeak-ng reports nothing shares its neighbour's time by length."""
    spans = [(m.start(), m[0]) for m in re.finditer(r"\S+", text)]
    known = [(k, starts[at]) for k, (at, _) in enumerate(spans) if at in starts]
    if not known or known[0][0] != 0:
        known.insert(0, (0, 0.0))
    known.append((len(spans), end))
    begins = np.zeros(len(spans) + 1)
    for (k0, t0), (k1, t1) in pairwise(known):
        lengths = np.cumsum([0] + [len(w) for _, w in spans[k0:k1]])
        begins[k0 : k1 + 1] = t0 + (t1 - t0) * lengths / max(1, lengths[-1])
    return [(word, float(begins[k]), float(begins[k + 1])) for k, (_, word) in enumerate(spans)]


KEPT_OUT = {*gold.RECORDING, *(row[0] for row in gold.FILM)} - set(speech.TEMPLATES)  # greetings are always the same words


def held_out(text: str) -> bool:
    """Whether a sentence is kept from training: one in ten, and those of the sample recording and film."""
    return text in KEPT_OUT or (text.count(" ") > 5 and zlib.crc32(text.encode()) % 10 == 0)


def utterances(seed: int, count: int, *, unseen_text: bool = False, unseen_voice: bool = False) -> list[Utterance]:
    """count spoken sentences; for tests from the held-out sentences, the held-out voices, or both."""
    rng, speaker, found = Random(seed), Speaker(), []
    while len(found) < count:
        text = speech.sentence(rng)
        if held_out(text) == unseen_text:
            found.append(speaker.say(text, speech.random_voice(rng, held_out=unseen_voice)))
    return found


def save(found: Sequence[Utterance], path: Path) -> None:
    """One .npy of int16 samples and one .json of the rest."""
    np.save(path.with_suffix(".npy"), np.concatenate([(np.clip(u.pcm, -1, 1) * 32767).astype(np.int16) for u in found]))
    rows = [
        [
            u.text,
            len(u.pcm),
            [[w, round(a, 3), round(b, 3)] for w, a, b in u.words],
            [[p, round(a, 3), round(b, 3)] for p, a, b in u.phones],
        ]
        for u in found
    ]
    path.with_suffix(".json").write_text(json.dumps(rows))


def load(path: Path) -> list[Utterance]:
    """What `save` wrote; the samples stay int16 in a memory map."""
    sound, at, found = np.load(path.with_suffix(".npy"), mmap_mode="r"), 0, []
    for text, length, words, phones in json.loads(path.with_suffix(".json").read_text()):
        found.append(Utterance(text, sound[at : at + length], [tuple(w) for w in words], [tuple(p) for p in phones]))
        at += length
    return found


@lru_cache(maxsize=1)
def tokenizer():
    """openai-whisper's own multilingual tokenizer, for English transcription."""
    from whisper.tokenizer import get_tokenizer

    return get_tokenizer(True, num_languages=99, language="en", task="transcribe")


@lru_cache(maxsize=1)
def word_list() -> dict[str, int]:
    """Word -> label of its frames, from 1."""
    return {word: k for k, word in enumerate(sorted(speech.vocabulary()), 1)}


@lru_cache(maxsize=4096)
def word_tokens(word: str) -> tuple[int, ...]:
    """Tokens of a word with the blank before it and the punctuation after it."""
    return tuple(tokenizer().encode(" " + word))


@dataclass(slots=True)
class Window:
    """A training example. tokens in, targets out (-100: not asked); spans: encoder frames to look at per position."""

    pcm: np.ndarray
    words: np.ndarray
    phones: np.ndarray
    offset: int
    tokens: list[int]
    targets: list[int]
    spans: list[tuple[int, int]] = field(default_factory=list)


def noise(rng: Random, n: int) -> np.ndarray:
    """n samples of white, brown or humming noise, standard deviation 1."""
    draw = np.random.default_rng(rng.getrandbits(32))
    white = draw.standard_normal(n).astype(np.float32)
    kind = rng.random()
    if kind < 0.4:
        return white
    if kind < 0.75:
        out = np.convolve(white, np.ones(rng.randint(4, 60)), "same")
    else:
        t = np.arange(n) / RATE
        out = sum(np.sin(2 * np.pi * rng.uniform(60, 1500) * t + rng.random()) for _ in range(3)) + 0.2 * white
    return (out / (out.std() + 1e-6)).astype(np.float32)


def tune(rng: Random, n: int) -> np.ndarray:
    """Music of a sort: chords of a few partials that change every half second or so."""
    out, at = np.zeros(n, np.float32), 0
    while at < n:
        length = min(n - at, round(RATE * rng.uniform(0.2, 0.9)))
        t = np.arange(length) / RATE
        chord = sum(np.sin(2 * np.pi * rng.uniform(110, 900) * h * t) / h for h in (1, 2, 3) for _ in range(2))
        out[at : at + length] = 0.08 * chord * np.exp(-t * rng.uniform(0, 4))
        at += length
    return out


def window(
    rng: Random, corpus: Sequence[Utterance], *, length_s: float, most: int, shifted: bool, prompts: bool, start: Sequence[int]
) -> Window:
    """A window of length_s seconds with up to `most` sentences, or (one in eight) with none.

    shifted: the window stands somewhere within the model's 30 seconds, so that short windows teach all positions.
    start: the tokens every transcription begins with.
    """
    n, frames = round(length_s * RATE), round(length_s / FRAME_S)
    pcm, words, phones = np.zeros(n, np.float32), np.zeros(frames, np.int64), np.zeros(frames, np.int64)
    offset = rng.randint(0, FRAMES - frames) if shifted else 0
    placed: list[tuple[Utterance, float]] = []
    silent = rng.random() < 1 / 8
    at, cut = rng.uniform(0.0, 1.0) if rng.random() < 0.8 else rng.uniform(0, 2.5), None
    for _ in range(0 if silent else rng.randint(1, most) if rng.random() < 0.75 else most):
        spoken = rng.choice(corpus)
        first, seconds = round(at * RATE), len(spoken.pcm) / RATE
        if at + seconds > length_s - 0.05:
            if most > 3 and placed and at < length_s - 0.5:
                cut = at  # heard in part: the transcription must stop before it
            elif placed or at + seconds > length_s:
                break
        piece = np.asarray(spoken.pcm[: n - first], np.float32) / 32767 * rng.uniform(0.5, 1)
        pcm[first : first + len(piece)] = piece
        for labels, rows in (
            (words, [(word_list()[re.sub(r"[^a-z]", "", w.lower())], a, b) for w, a, b in spoken.words]),
            (phones, spoken.phones),
        ):
            for label, a, b in rows:
                labels[round((at + a) / FRAME_S) : round((at + b) / FRAME_S)] = label
        if cut is not None:
            break
        placed.append((spoken, at))
        at += seconds + (rng.uniform(0.12, 0.9) if rng.random() < 0.85 else rng.uniform(0.9, 3.0))
    if silent and rng.random() < 0.5:
        pcm += tune(rng, n) * rng.random()
    if rng.random() < 0.55 or (silent and rng.random() < 0.7):
        level = pcm.std() if placed else 0.1
        pcm += noise(rng, n) * level * 10 ** (-rng.uniform(12, 40) / 20)
    pcm *= 10 ** (-rng.uniform(0, 18) / 20)
    return _with_tokens(Window(pcm, words, phones, offset, [], []), placed, cut, rng, prompts, start, corpus)


def stamp(seconds: float, offset: int = 0) -> int:
    """The timestamp token of a moment in the window."""
    return tokenizer().timestamp_begin + min(FRAMES, max(0, round(seconds / FRAME_S) + offset))


def _with_tokens(
    out: Window, placed, cut: float | None, rng: Random, prompts: bool, start: Sequence[int], corpus: Sequence[Utterance]
) -> Window:
    marks = tokenizer()
    timed = rng.random() < 0.8
    before: list[int] = []
    if prompts and rng.random() < 0.35:
        before = [marks.sot_prev]
        for spoken in rng.choices(corpus, k=rng.randint(1, 3)):
            text = [t for w, *_ in spoken.words for t in word_tokens(w)]
            before += [stamp(rng.uniform(0, 10)), *text, stamp(rng.uniform(10, 30))] if rng.random() < 0.7 else text
    body: list[tuple[int, tuple[int, int]]] = []

    def mark(seconds: float, near: float, toward: int) -> None:
        """A timestamp token; the sound to look at begins or ends at `near`."""
        frame = round(near / FRAME_S)
        body.append((stamp(seconds, out.offset), (max(0, min(frame, frame + toward)), max(frame, frame + toward))))

    for k, (spoken, at) in enumerate(placed):
        if timed:  # decoding never allows a first timestamp above one second
            mark(min(at, 1.0) if k == 0 and not out.offset else at, at, 5)
        for word, begin, end in spoken.words:
            first = round((at + begin) / FRAME_S)
            span = (first, max(first + 1, round((at + end) / FRAME_S)))
            body += [(token, span) for token in word_tokens(word)]
        if timed:
            mark(at + len(spoken.pcm) / RATE, at + len(spoken.pcm) / RATE, -5)
    if timed and cut is not None:
        mark(cut, cut, 5)
    if timed and not placed:
        body.append((stamp(0, out.offset), (-1, -1)))
    body.append((marks.eot, (-1, -1)))
    head = [*before, *start] + ([] if timed else [marks.no_timestamps])
    out.tokens = head + [token for token, _ in body[:-1]]
    asked = [-100] * (len(head) - 1)
    asked[len(before)] = start[1] if placed else marks.no_speech
    out.targets = asked + [token for token, _ in body]
    out.spans = [(-1, -1)] * len(asked) + [span for _, span in body]
    return out
