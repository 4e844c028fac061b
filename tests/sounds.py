"""Sound in which nobody speaks, made by numpy: quiet rooms, noise, machines, beats, weather and music.

`corpus(seconds, seed)` gives every kind as int16 at 16 kHz; the same seed gives the same sound. Nothing
here comes from the noise and tunes that the demo Whisper is trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

RATE = 16_000
Sound = npt.NDArray[np.float64]
Draw = np.random.Generator
PENTATONIC, MAJOR, MINOR = (0, 2, 4, 7, 9), (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
TIMBRES: dict[str, tuple[tuple[float, ...], float, float]] = {  # partials, attack and half-life in seconds
    "piano": ((1.0, 0.5, 0.3, 0.2, 0.1, 0.07), 0.005, 0.35),
    "organ": ((1.0, 0.8, 0.0, 0.6, 0.0, 0.0, 0.0, 0.4), 0.03, 60.0),
    "strings": ((1.0, 0.7, 0.55, 0.45, 0.38, 0.3, 0.25, 0.2, 0.15), 0.12, 60.0),
    "flute": ((1.0, 0.25, 0.06), 0.06, 60.0),
    "square": ((1.0, 0.0, 0.33, 0.0, 0.2, 0.0, 0.14, 0.0, 0.11), 0.002, 60.0),
    "guitar": ((1.0, 0.9, 0.6, 0.4, 0.35, 0.2, 0.15, 0.1), 0.003, 0.25),
}


def corpus(seconds: float, seed: int = 0) -> Iterator[tuple[str, npt.NDArray[np.int16]]]:
    """(name, int16 samples) of every kind at every level."""
    n = round(seconds * RATE)
    for k, (name, make, level) in enumerate(_kinds()):
        sound = make(np.random.default_rng([seed, k]), n)
        spread = float(sound.std())
        scaled = sound * (10 ** (level / 20) / spread) if spread else sound
        yield name, (scaled * 32767).clip(-32768, 32767).astype(np.int16)


def _kinds() -> Iterator[tuple[str, Callable[[Draw, int], Sound], float]]:
    """Name, maker, and level in dB below full scale."""
    yield "digital silence", lambda draw, n: np.zeros(n), 0.0
    for level in (-70, -55):
        yield f"hiss {level}", white, level
    for level in (-45, -30, -18):
        for name, make in (("white noise", white), ("pink noise", pink), ("brown noise", brown)):
            yield f"{name} {level}", make, level
    for level in (-45, -25):
        yield f"mains hum {level}", hum, level
    for name, make in (
        ("sweep", sweep), ("siren", siren), ("telephone", telephone), ("birds", birds), ("engine", engine), ("rain", rain),
        ("wind", wind), ("waves", waves), ("clapping", clapping), ("footsteps", footsteps), ("metronome", metronome),
        ("drums", drums), ("pulsed noise", pulsed),
    ):  # fmt: skip
        yield name, make, -24.0
    for timbre in TIMBRES:
        yield f"melody, {timbre}", _melody(timbre), -22.0
        yield f"chords, {timbre}", _chords(timbre), -22.0
        yield f"arpeggio, {timbre}", _arpeggio(timbre), -22.0
    for timbre in ("piano", "strings", "square"):
        yield f"band, {timbre}", _band(timbre), -20.0


def white(draw: Draw, n: int) -> Sound:
    return draw.standard_normal(n)


def pink(draw: Draw, n: int) -> Sound:
    return _coloured(draw, n, 0.5)


def brown(draw: Draw, n: int) -> Sound:
    return _coloured(draw, n, 1.0)


def hum(draw: Draw, n: int) -> Sound:
    mains = float(draw.choice([50.0, 60.0]))
    return sum((draw.uniform(0.1, 1) * np.sin(2 * np.pi * mains * k * _time(n)) for k in range(1, 9)), np.zeros(n))


def sweep(draw: Draw, n: int) -> Sound:
    low, high, t = draw.uniform(60, 200), draw.uniform(3000, 7500), _time(n) / max(1e-9, n / RATE)
    return np.sin(2 * np.pi * low * (n / RATE) * ((high / low) ** t - 1) / np.log(high / low))


def siren(draw: Draw, n: int) -> Sound:
    pitch = 900 + 450 * np.sin(2 * np.pi * draw.uniform(0.2, 0.6) * _time(n))
    return _tone(pitch, (1.0, 0.5, 0.3))


def telephone(draw: Draw, n: int) -> Sound:
    t = _time(n)
    ring = (np.sin(2 * np.pi * 440 * t) + np.sin(2 * np.pi * 480 * t)) * (np.sin(2 * np.pi * 20 * t) > 0)
    return ring * ((t % 3.0) < 1.0)


def birds(draw: Draw, n: int) -> Sound:
    out = 0.01 * pink(draw, n)
    for at in _moments(draw, n, 2.5):
        length = int(draw.uniform(0.06, 0.25) * RATE)
        pitch = draw.uniform(2000, 5000) + draw.uniform(-1500, 1500) * np.sin(np.linspace(0, draw.uniform(3, 12), length))
        _add(out, at, _tone(pitch, (1.0, 0.1)) * np.hanning(length))
    return out


def engine(draw: Draw, n: int) -> Sound:
    pitch = 45 + 15 * np.sin(2 * np.pi * 0.08 * _time(n)) + np.cumsum(draw.normal(0, 0.002, n))
    return _tone(pitch, tuple(1 / k**0.7 for k in range(1, 25))) + 0.3 * pink(draw, n)


def rain(draw: Draw, n: int) -> Sound:
    out = 0.2 * white(draw, n)
    for at in _moments(draw, n, 120):
        _add(out, at, draw.normal(0, draw.uniform(0.5, 3), 60) * np.exp(-np.arange(60) / 12))
    return out


def wind(draw: Draw, n: int) -> Sound:
    return _coloured(draw, n, 0.8) * (1.2 + _slow(draw, n, 0.5))


def waves(draw: Draw, n: int) -> Sound:
    return pink(draw, n) * (0.15 + np.square(np.sin(2 * np.pi * 0.12 * _time(n) + draw.uniform(0, 6))))


def clapping(draw: Draw, n: int) -> Sound:
    out = 0.02 * white(draw, n)
    for at in _moments(draw, n, 25):
        _add(out, at, draw.uniform(0.3, 1) * draw.standard_normal(400) * np.exp(-np.arange(400) / 90))
    return out


def footsteps(draw: Draw, n: int) -> Sound:
    out = 0.01 * pink(draw, n)
    for at in range(0, n, int(RATE * draw.uniform(0.45, 0.7))):
        _add(out, at, _coloured(draw, 1600, 0.7) * np.exp(-np.arange(1600) / 250))
    return out


def metronome(draw: Draw, n: int) -> Sound:
    out, step = np.zeros(n), int(60 / draw.uniform(80, 160) * RATE)
    for k, at in enumerate(range(0, n, step)):
        _add(out, at, np.sin(2 * np.pi * (1800 if k % 4 == 0 else 1200) * _time(500)) * np.exp(-np.arange(500) / 80))
    return out


def drums(draw: Draw, n: int) -> Sound:
    out, step = np.zeros(n), int(30 / draw.uniform(85, 140) * RATE)
    for k, at in enumerate(range(0, n, step)):
        _add(out, at, 0.25 * draw.standard_normal(900) * np.exp(-np.arange(900) / 150))  # hi-hat
        if k % 4 == 0:
            _add(out, at, 2 * _tone(50 + 90 * np.exp(-np.arange(4000) / 500), (1.0,)) * np.exp(-np.arange(4000) / 1200))
        if k % 4 == 2:
            _add(out, at, draw.standard_normal(2500) * np.exp(-np.arange(2500) / 500))
    return out


def pulsed(draw: Draw, n: int) -> Sound:
    """Noise that swells four times a second, as syllables do: no voice, only its rhythm."""
    return pink(draw, n) * np.abs(np.sin(2 * np.pi * draw.uniform(1.6, 2.4) * _time(n)))


def _melody(timbre: str) -> Callable[[Draw, int], Sound]:
    def make(draw: Draw, n: int) -> Sound:
        out, at, degree = np.zeros(n), 0, 7
        scale, root = (PENTATONIC, MAJOR, MINOR)[draw.integers(3)], draw.uniform(110, 300)
        while at < n:
            length = float(draw.choice([0.18, 0.25, 0.35, 0.5, 0.8]))
            degree = int(np.clip(degree + draw.integers(-3, 4), 0, 14))
            _add(out, at, note(_pitch(root, scale, degree), length, timbre))
            at += int((length + (draw.uniform(0.2, 0.8) if draw.random() < 0.1 else 0)) * RATE)
        return out

    return make


def _chords(timbre: str) -> Callable[[Draw, int], Sound]:
    def make(draw: Draw, n: int) -> Sound:
        out, root, length = np.zeros(n), draw.uniform(90, 180), draw.uniform(0.8, 2.0)
        for at in range(0, n, int(length * RATE)):
            first = int(draw.choice([0, 3, 4, 5]))
            for step in (0, 2, 4):
                _add(out, at, note(_pitch(root, MAJOR, first + step), length, timbre))
        return out

    return make


def _arpeggio(timbre: str) -> Callable[[Draw, int], Sound]:
    def make(draw: Draw, n: int) -> Sound:
        out, root, length = np.zeros(n), draw.uniform(100, 220), draw.uniform(0.12, 0.28)
        for k, at in enumerate(range(0, n, int(length * RATE))):
            first = (0, 5, 3, 4)[k // 8 % 4]
            _add(out, at, note(_pitch(root, MAJOR, first + (0, 2, 4, 7, 4, 2)[k % 6]), length * 1.5, timbre))
        return out

    return make


def _band(timbre: str) -> Callable[[Draw, int], Sound]:
    def make(draw: Draw, n: int) -> Sound:
        parts = (_melody(timbre), _chords("organ"), drums)
        return sum((weight * _unit(make(draw, n)) for weight, make in zip((1.0, 0.7, 0.8), parts, strict=True)), np.zeros(n))

    return make


def note(pitch: float, seconds: float, timbre: str) -> Sound:
    """One note with a slight vibrato."""
    partials, attack, half_life = TIMBRES[timbre]
    t = _time(int(seconds * RATE))
    shape = np.minimum(1, t / attack) * 0.5 ** (t / half_life) * np.minimum(1, (seconds - t) / 0.03)
    return _tone(pitch * (1 + 0.004 * np.sin(2 * np.pi * 5.5 * t)), partials) * shape


def _tone(pitch: Sound | float, partials: tuple[float, ...]) -> Sound:
    """Sound of a pitch in Hz per sample, without the partials that 16 kHz cannot hold."""
    pitch = np.asarray(pitch, float)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    return sum(
        (weight * np.sin(k * phase) * (k * pitch < RATE / 2) for k, weight in enumerate(partials, 1)), np.zeros(len(pitch))
    )


def _pitch(root: float, scale: tuple[int, ...], degree: int) -> float:
    return float(root * 2 ** (degree // len(scale) + scale[degree % len(scale)] / 12))


def _coloured(draw: Draw, n: int, power: float) -> Sound:
    """Noise whose amplitude falls with frequency to the given power, from 20 Hz on."""
    spectrum = np.fft.rfft(draw.standard_normal(n))
    return np.fft.irfft(spectrum / np.maximum(np.fft.rfftfreq(n, 1 / RATE), 20.0) ** power, n)


def _slow(draw: Draw, n: int, rate_hz: float) -> Sound:
    """A random curve from -1 to 1 that turns about rate_hz times a second."""
    points = draw.uniform(-1, 1, int(n / RATE * rate_hz * 2) + 3)
    return np.interp(np.linspace(0, len(points) - 1, n), np.arange(len(points)), points)


def _moments(draw: Draw, n: int, per_second: float) -> list[int]:
    return [int(at) for at in draw.uniform(0, n, draw.poisson(per_second * n / RATE))]


def _add(out: Sound, at: int, sound: Sound) -> None:
    room = max(0, len(out) - at)
    out[at : at + len(sound)] += sound[:room]


def _unit(sound: Sound) -> Sound:
    return sound / (sound.std() or 1.0)


def _time(n: int) -> Sound:
    return np.arange(n) / RATE
