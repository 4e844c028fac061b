"""Whether somebody speaks in a piece of sound, told from the sound alone, by numpy.

A voice is periodic while its vowels last, its pitch never stands still, and the shape of its spectrum changes
with every sound of the mouth. Noise has no period; hum and held tones have no change; notes jump from pitch to
pitch instead of gliding. What a single note or a bird does now and then, speech does all the time, so a share of
the frames decides. The features are those of Scheirer & Slaney, ICASSP 1997, and of pitch trackers by
autocorrelation (Boersma 1993).

Measured on 48 s of each of 48 kinds of noise, machines, weather and music, and on 3 s pieces of human speech
(English, German, French): clean speech has 19 % or more of such frames, 21 % over a telephone, 9 % in pink noise
5 dB below it or music 5 dB below it, 3.3 % in noise as loud as itself; noise, hum, wind, rain, applause and drums
have none, melodies and chords at most 3 %, quick arpeggios up to 14 %, a band with drums, seldom, over 40 %.
WebRTC's detector (webrtcvad-wheels) was tried on the same sounds and lost: of two 3 s pieces, one with speech, ours gives that
one the larger share in 97 of 100, WebRTC's in 45 to 49 by mode, for it takes music, rain and hiss for speech (`voices.json`).
Whispering has none either: the transcriber keeps what it is certain of all the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RATE = 16_000  # Hz: what Whisper was trained on
HOP = RATE // 50  # a frame every 20 ms
_WIDTH = RATE // 20  # 50 ms: three periods of a deep voice
_FFT = 2048  # bins of 8 Hz
_PITCH_HZ = (65, 400)  # from a deep man's voice to a child's
_PERIODIC = 0.55  # autocorrelation at the period, of 1
_GLIDE = (0.005, 0.1)  # octaves a frame: less is a held note, more a jump
_RICH, _RICH_DB = 5, 40.0  # bands of nine, not this far below the strongest: a whistle, a flute, a kettledrum have fewer
_SHAPE_DB = 2.5  # mean change of nine bands within 100 ms, loudness apart
_LAG = 5  # those 100 ms in frames
_RUN = 2  # frames in a row
_RANGE_DB, _FAINT_DB = 30.0, -60.0  # below the loudest frames; below full scale
_EDGE = RATE // 5  # kept of the silence at both ends
_LEAST = 25  # loud frames; of fewer (half a second) nothing is said
_AROUND, _TALK = 50, 0.05  # a voice has this share of the frames within a second, and a third of its usual one
_NEAR = 15  # 0.3 s in frames
_OTHER, _TURN_DB = 125, 20.0  # 2.5 s of other sound, no more than 20 dB fainter, are a piece by themselves
_BANDS_HZ = np.array([100, 300, 500, 800, 1200, 1700, 2400, 3400, 5000])
_TOP_HZ = 7600  # what decoders leave of 8 000

Sound = npt.NDArray[np.float32]
Frames = npt.NDArray[np.bool_]
Levels = npt.NDArray[np.float32]


class Voice:
    """The frames of a stretch of float32 sound at 16 kHz, 20 ms each, that only a voice makes."""

    def __init__(self, sound: Sound) -> None:
        self._sound = sound
        self._level, self._voiced = _frames(sound)

    def share(self, start_s: float, end_s: float) -> float:
        """Share of the loud frames between two moments; 1 if there are too few to tell."""
        inside = slice(int(start_s * 50), int(end_s * 50) + 1)
        loud = _loud(self._level[inside], _RANGE_DB)
        return float((self._voiced[inside] & loud).sum() / loud.sum()) if loud.sum() >= _LEAST else 1.0

    def pieces(self, longest: int) -> list[tuple[int, int]]:
        """(start, end) in samples: the sound cut where loud noise or music takes over from a voice, and back.

        So that each is judged by itself, and a voice is not heard worse for the music after it. Pieces of more
        than `longest` samples are cut at the quietest moment of their second half. Silence at both ends is left
        out: Whisper gives no first time above one second.
        """
        found, start = [], 0
        for end in [*self._turns(), len(self._sound)]:
            while end - start > longest:
                cut = start + longest // 2 + _quietest(self._sound[start + longest // 2 : start + longest])
                found.append((start, cut))
                start = cut
            found.append((start, end))
            start = end
        return [self._without_silence(start, end) for start, end in found]

    def halves(self, start: int, end: int) -> list[tuple[int, int]]:
        """A stretch from `pieces` cut in two at the quietest moment of its middle half."""
        quarter = (end - start) // 4
        cut = start + quarter + _quietest(self._sound[start + quarter : end - quarter])
        return [self._without_silence(start, cut), self._without_silence(cut, end)]

    def _without_silence(self, start: int, end: int) -> tuple[int, int]:
        first = start // HOP
        loud = np.flatnonzero(_loud(self._level[first : end // HOP], _RANGE_DB))
        if not len(loud):
            return start, end
        return max(start, (first + int(loud[0])) * HOP - _EDGE), min(end, (first + int(loud[-1])) * HOP + _WIDTH + _EDGE)

    def _turns(self) -> list[int]:
        """The samples at which the other kind of sound begins."""
        loud = _loud(self._level, _TURN_DB)
        sums = np.cumsum(np.concatenate([[0], self._voiced & loud]))
        at = np.arange(len(loud))
        near = sums[np.minimum(at + _AROUND, len(loud))] - sums[np.maximum(at - _AROUND, 0)]
        usual = float(np.percentile(near, 95)) if len(near) else 0.0
        talk = near >= max(_TALK * 2 * _AROUND, usual / 3)
        other = _closed(loud & ~talk, _AROUND)
        voiced = np.flatnonzero(self._voiced & loud)
        edges = []
        for start, end in _runs(other):
            if end - start >= _OTHER:  # the averages are up to a second off: move to where the voice stops and starts
                before, after = voiced[(voiced > start - _AROUND) & (voiced < start + _NEAR)], voiced[(voiced > end - _NEAR)]
                edges.append(int(before[-1]) + _NEAR if len(before) else start)
                edges.append(int(after[0]) - _NEAR if len(after) and after[0] < end + _AROUND else end)
        return [edge * HOP for edge in edges if _AROUND < edge < len(loud) - _AROUND]


def _quietest(sound: Sound) -> int:
    """The sample in the middle of the quietest 0.2 s."""
    width = min(len(sound), RATE // 5)
    sums = np.cumsum(np.concatenate([[0.0], np.square(sound, dtype=np.float64)]))
    return int(np.argmin(sums[width:] - sums[:-width])) + width // 2


def _frames(sound: Sound) -> tuple[Levels, Frames]:
    """(level in dB, whether only a voice sounds like that), one for each 20 ms."""
    if len(sound) < _WIDTH + _LEAST * HOP:
        return np.zeros(0, np.float32), np.zeros(0, np.bool_)
    pieces = np.lib.stride_tricks.sliding_window_view(sound, _WIDTH)[::HOP]
    pieces = pieces - pieces.mean(axis=1, keepdims=True)
    window = np.hanning(_WIDTH).astype(np.float32)
    power = np.square(np.abs(np.fft.rfft(pieces * window, _FFT)))
    periodic, pitch = _pitch(power, window)
    glide = np.abs(np.diff(pitch, prepend=pitch[:1]))
    bands = _bands(power)
    voiced = (periodic > _PERIODIC) & ((bands > bands.max(axis=1, keepdims=True) - _RICH_DB).sum(axis=1) >= _RICH)
    voiced[1:] &= voiced[:-1]  # a glide needs two of them
    voiced &= (glide > _GLIDE[0]) & (glide < _GLIDE[1]) & (_shape_change(bands) > _SHAPE_DB)
    for start, end in _runs(voiced):
        voiced[start:end] = end - start >= _RUN
    return 10 * np.log10(np.square(pieces).mean(axis=1) + 1e-12), voiced


def _loud(level: Levels, range_db: float) -> Frames:
    """Frames at most range_db below the loudest twentieth, and not faint."""
    return level > max(float(np.percentile(level, 95)) - range_db, _FAINT_DB) if len(level) else np.zeros(0, np.bool_)


def _pitch(power: npt.NDArray[np.float32], window: Sound) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """How periodic each frame is, 0 to 1, and its pitch in octaves above 1 Hz."""
    first, last = RATE // _PITCH_HZ[1], RATE // _PITCH_HZ[0]
    hertz = np.fft.rfftfreq(_FFT, 1 / RATE)
    # hum below, hiss above what a voice's overtones carry
    similar = np.fft.irfft(power * ((hertz > 70) & (hertz < 3000)))[:, : last + 2]
    own = np.fft.irfft(np.square(np.abs(np.fft.rfft(window, _FFT))))[: last + 2]
    similar = similar / np.maximum(similar[:, :1], 1e-9) / (own / own[0])
    best = similar[:, first : last + 1].max(axis=1)
    # the first lag nearly as good as the best, for the octaves below are as good; then up to its peak
    lag = first + np.argmax(similar[:, first : last + 1] >= 0.92 * best[:, None], axis=1)
    rows = np.arange(len(lag))
    for _ in range(8):
        after = np.minimum(lag + 1, last)
        lag = np.where(similar[rows, after] > similar[rows, lag], after, lag)
    left, top, right = similar[rows, lag - 1], similar[rows, lag], similar[rows, lag + 1]
    offset = np.clip(0.5 * (left - right) / np.minimum(left - 2 * top + right, -1e-9), -1, 1)
    return best.astype(np.float32), np.log2(RATE / (lag + offset)).astype(np.float32)


def _bands(power: npt.NDArray[np.float32]) -> Levels:
    """Level in dB of nine bands, per Hz, in each frame."""
    edges = (_BANDS_HZ * _FFT / RATE).astype(int)
    sums = np.add.reduceat(power[:, : _TOP_HZ * _FFT // RATE], edges, axis=1)
    return np.asarray(10 * np.log10(sums / np.diff(edges, append=_TOP_HZ * _FFT // RATE) + 1e-9), np.float32)


def _shape_change(bands: Levels) -> Levels:
    """By how many dB the spectrum's shape changes within 100 ms before or after each frame."""
    shape = bands - bands.mean(axis=1, keepdims=True)
    moved = np.abs(shape[_LAG:] - shape[:-_LAG]).mean(axis=1)
    change = np.zeros(len(shape), np.float32)
    change[_LAG:] = moved
    change[:-_LAG] = np.maximum(change[:-_LAG], moved)
    return change


def _runs(frames: Frames) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], frames, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _closed(frames: Frames, gap: int) -> Frames:
    """With holes of up to `gap` frames filled."""
    filled = frames.copy()
    for start, end in _runs(~frames):
        if end - start <= gap and start > 0 and end < len(frames):
            filled[start:end] = True
    return filled
