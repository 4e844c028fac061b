"""A short stretch of a film or recording, small enough for an evidence card in a notebook.

Always encoded anew: a copied stream can start only at a key frame, and its size is not ours to choose.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.errors import CorruptError, require
from ultrafast_rag.extract.media.audio import RATE, Pcm, decode_pcm
from ultrafast_rag.extract.media.container import open_media
from ultrafast_rag.extract.media.frames import film_stream, looks, shown_picture

MAX_FILM_S, MAX_SOUND_S = 20.0, 60.0  # chosen: what one watches or hears through for one answer
_WAV_S = 12.5  # 400 kB; longer is MP3
_MIN_S = 1.0  # chosen: less is heard as a click
_FILM_PX, _FILM_FPS = 480, 10  # chosen: faces and slides can be told, movement is seen
_FILM_BITS, _SOUND_BITS = 3_200_000, 48_000  # per film, per second of sound: together under 500 kB
_SMALL_PX, _SMALL_FPS, _SMALL_SOUND_BITS = 320, 5, 16_000  # for a few tens of kB: speech stays clear, a scene can be told
_MP3_BITS = (16_000, 24_000, 32_000, 48_000)  # chosen, of the rates that MP3 has


@dataclass(frozen=True, slots=True)
class _Quality:
    """Longest side, frames and bits a second of a film, bits a second of its sound."""

    px: int
    fps: int
    film_bits: int
    sound_bits: int


def _quality(seconds: float, most_bytes: int | None) -> _Quality:
    if most_bytes is None:
        return _Quality(_FILM_PX, _FILM_FPS, int(min(800_000, _FILM_BITS / seconds)), _SOUND_BITS)
    bits = 0.85 * 8 * most_bytes / seconds  # the rest is the container's, and what the encoder overshoots
    return _Quality(_SMALL_PX, _SMALL_FPS, max(16_000, int(bits - _SMALL_SOUND_BITS)), _SMALL_SOUND_BITS)


def clip_bytes(path: Path | str, start_s: float, end_s: float, most_bytes: int | None = None) -> bytes:
    """A film's stretch as H.264 in MP4 (at most 20 s), a recording's as WAV or, over 12 s, MP3 (at most 60 s).

    Stays under 500 kB. most_bytes: what the encoders aim below instead; a short film that moves a lot can
    still be larger. Raises CorruptError when the stretch holds nothing, else as the extractors do.
    """
    path, start_s = Path(path), max(0.0, start_s)
    with open_media(path) as container:
        has_film, has_sound = film_stream(container) is not None, bool(container.streams.audio)
    end_s = min(max(end_s, start_s + _MIN_S), start_s + (MAX_FILM_S if has_film else MAX_SOUND_S))
    sound = _sound(path, start_s, end_s) if has_sound else np.empty(0, np.int16)
    if has_film:
        return _film(path, start_s, end_s, sound, _quality(end_s - start_s, most_bytes))
    if not len(sound):
        raise CorruptError(f"{path.name} holds no sound at {start_s:.1f} s", path=str(path))
    if most_bytes is not None:
        fitting = [bits for bits in _MP3_BITS if bits / 8 * len(sound) / RATE <= most_bytes]
        return _mp3(sound, max(fitting, default=_MP3_BITS[0]))
    return _wav(sound) if len(sound) <= _WAV_S * RATE else _mp3(sound, _SOUND_BITS)


def _sound(path: Path, start_s: float, end_s: float) -> Pcm:
    wanted, collected = round((end_s - start_s) * RATE), list[Pcm]()
    skip = round(start_s * RATE) if start_s <= 1.0 else 0  # so near the start, decode_pcm gives it all
    for block in decode_pcm(path, start_s=start_s if start_s > 1.0 else 0.0):
        collected.append(block)
        if sum(map(len, collected)) >= wanted + skip:
            break
    return np.concatenate([*collected, np.empty(0, np.int16)])[skip : skip + wanted]


def _wav(sound: Pcm) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(sound.astype("<i2").tobytes())
    return buffer.getvalue()


def _mp3(sound: Pcm, bits: int) -> bytes:
    av = require("av", extra="speech")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=RATE, layout="mono")
        stream.bit_rate = bits
        _encode_sound(container, stream, sound, RATE)
    return buffer.getvalue()


def _film(path: Path, start_s: float, end_s: float, sound: Pcm, quality: _Quality) -> bytes:
    av = require("av", extra="speech")
    buffer, film, voice = io.BytesIO(), None, None
    with av.open(buffer, "w", format="mp4") as container:
        for at, frame in _frames(path, start_s, end_s, quality.fps):
            picture = shown_picture(frame, quality.px)[0]
            if film is None:
                film = container.add_stream("libx264", rate=quality.fps, options={"preset": "veryfast"})
                film.width, film.height, film.pix_fmt = picture.width // 2 * 2 or 2, picture.height // 2 * 2 or 2, "yuv420p"
                film.bit_rate = quality.film_bits
                film.codec_context.options = {"preset": "veryfast", "maxrate": str(film.bit_rate), "bufsize": str(film.bit_rate)}
                film.time_base = film.codec_context.time_base = Fraction(1, 1000)
                voice = _voice(container, quality.sound_bits) if len(sound) else None
            drawn = av.VideoFrame.from_ndarray(np.asarray(picture.resize((film.width, film.height))), format="rgb24")
            drawn.pts, drawn.time_base = round(1000 * max(0.0, at - start_s)), Fraction(1, 1000)
            container.mux(film.encode(drawn))
        if film is None:
            raise CorruptError(f"{path.name} shows nothing at {start_s:.1f} s", path=str(path))
        container.mux(film.encode(None))
        if voice is not None:
            _encode_sound(container, voice, sound, 24_000)
    return buffer.getvalue()


def _frames(path: Path, start_s: float, end_s: float, fps: int) -> Iterator[tuple[float, Any]]:
    """`fps` frames a second of the stretch; the one on screen when it starts is the first."""
    shown: tuple[float, Any] | None = None
    for at, frame in looks(path, start_s, step_s=1.0 / fps):
        if at >= end_s:
            break
        if at < start_s:
            shown = (start_s, frame)
            continue
        if shown and at > start_s:
            yield shown
        shown = None
        yield at, frame
    if shown:
        yield shown


def _voice(container: Any, bits: int) -> Any:
    stream = container.add_stream("aac", rate=24_000, layout="mono")
    stream.bit_rate = bits
    return stream


def _encode_sound(container: Any, stream: Any, sound: Pcm, rate: int) -> None:
    av = require("av", extra="speech")
    resampler = av.AudioResampler(stream.codec_context.format, "mono", rate, stream.codec_context.frame_size or 1024)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.reshape(1, -1)), format="s16", layout="mono")
    frame.sample_rate, frame.pts = RATE, 0
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))
