"""Decoding a film's pictures at a few moments a second, as a player would show them.

Shared by `video.py` (what is kept in the index) and `clip.py` (what an evidence card plays).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrafast_rag.errors import CorruptError, UnsupportedError, require
from ultrafast_rag.extract.image import encode_small
from ultrafast_rag.extract.media.container import frames_of, open_media

if TYPE_CHECKING:
    from PIL.Image import Image

STEP_S = 0.25  # between two frames looked at
_LARGE_PIXELS = 1920 * 1088  # above, only key frames are decoded: a 4K film would take minutes a slot
_QUICK_RATE = 15.0  # frames/s; from here on those no other frame needs are skipped: 1.6x at 1080p (2 cores, 2026-11)
_SEEK_BACK_S = 4.0  # chosen: before the wanted second, for indexes that point late
_MAX_THREADS = 4  # chosen: of one decoder, since several readers run side by side


def looks(path: Path, start_s: float = 0.0, *, step_s: float = STEP_S) -> Iterator[tuple[float, Any]]:
    """(second, PyAV frame) for the first frame of every step, from shortly before start_s on.

    Undecodable stretches are passed over. Raises CorruptError when no frame at all can be decoded.
    """
    seen, broken = 0, ""
    with open_media(path) as container:
        stream = film_stream(container)
        if stream is None:
            raise UnsupportedError(f"{path.name} holds no moving pictures", path=str(path))
        origin_s = container.start_time / 1e6 if container.start_time else 0.0
        _set_decoder(stream)
        if start_s > _SEEK_BACK_S:
            _seek(container, start_s - _SEEK_BACK_S + origin_s)
        tick, rate = -1, float(stream.average_rate or 25)
        for count, frame in enumerate(frames_of(container, stream)):
            if isinstance(frame, str):
                broken = frame
                continue
            seen += 1
            at = max(0.0, frame.time - origin_s) if frame.time is not None else count / rate
            if int(at / step_s) > tick:
                tick = int(at / step_s)
                yield at, frame
    if not seen and start_s <= 0:
        raise CorruptError(f"{path.name}: no frame can be decoded{': ' + broken if broken else ''}", path=str(path))


def film_stream(container: Any) -> Any | None:
    """The first video stream that is not a cover picture; None where there is none."""
    av = require("av", extra="speech")
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic and stream.codec_context is not None:
            return stream
    return None


def frame_at(path: Path | str, second: float, max_px: int) -> bytes:
    """The frame shown at `second` as JPEG or PNG, no side over max_px. Raises as the extractor does."""
    path = Path(path)
    best: Any = None
    for at, frame in looks(path, max(0.0, second), step_s=0.02):
        if best is not None and at > second + 0.01:
            break
        best = frame
    if best is None:
        raise CorruptError(f"{path.name} shows nothing at {second:.1f} s", path=str(path))
    return encode_small(shown_picture(best, max_px)[0], max_px)


def _set_decoder(stream: Any) -> None:
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = min(_MAX_THREADS, os.cpu_count() or 1)
    if stream.codec_context.width * stream.codec_context.height > _LARGE_PIXELS:
        stream.codec_context.skip_frame = "NONKEY"
    elif float(stream.average_rate or 0) >= _QUICK_RATE:
        stream.codec_context.skip_frame = "NONREF"


def _seek(container: Any, second: float) -> None:
    av = require("av", extra="speech")
    with contextlib.suppress(av.error.FFmpegError):  # without an index the film is read from its start
        container.seek(max(0, int(second * 1e6)), backward=True)


def shown_picture(frame: Any, longest_px: int) -> tuple[Image, tuple[int, int]]:
    """A small picture as a player shows it (turned, square pixels), and the full size."""
    from PIL import Image as PillowImage

    aspect = float(getattr(frame, "sample_aspect_ratio", None) or 1.0) or 1.0
    width, height = max(1, round(frame.width * aspect)), frame.height
    scale = min(1.0, longest_px / max(width, height))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = PillowImage.fromarray(frame.reformat(*small, format="rgb24", interpolation="AREA").to_ndarray())
    turns = round(float(getattr(frame, "rotation", 0) or 0) / 90) % 4
    if turns:
        turn = (PillowImage.Transpose.ROTATE_90, PillowImage.Transpose.ROTATE_180, PillowImage.Transpose.ROTATE_270)
        picture = picture.transpose(turn[turns - 1])
    return picture, (height, width) if turns % 2 else (width, height)
