"""Films -> the frames where something changes, and the sound of each slot.

Frames are looked at four times a second. One is kept at a cut (colour histogram or picture far from
the frame before), or when config.frame_interval_s has passed since the last one kept and it differs
from it; near-duplicates are dropped. A slot of 26 s is a part, as in `audio.py`. The state that enters a
slot is the last frame looked at before it, so that a reader who starts at any slot, by seeking, finds
the same frames as one who saw the whole film. A kept frame that looks written on, such as a slide, carries its
words, read by tesseract where it is installed. (Learned shot detectors lost: a model more, for cuts
that a histogram finds.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, UnsupportedError
from ultrafast_rag.extract.image import OCR_PX, encode_small, reads_text, words_in
from ultrafast_rag.extract.media import audio
from ultrafast_rag.extract.media.audio import SLOT_S, sound_elements
from ultrafast_rag.extract.media.captions import speech_element
from ultrafast_rag.extract.media.clip import clip_bytes
from ultrafast_rag.extract.media.container import media_duration_s, media_title, open_media, suffix_notes
from ultrafast_rag.extract.media.frames import STEP_S, film_stream, frame_at, looks, shown_picture
from ultrafast_rag.types import Element, Part, Segment

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Look", "VideoExtractor", "clip", "frame_at"]
clip = clip_bytes  # "media.video.clip" and "media.video.frame_at" are what a reader process is asked for

_LOOK = (48, 27)  # pixels: size at which frames are compared
_CUT_HISTOGRAM = 0.35  # share of pixels in other bins than before
_CUT_DIFFERENCE = 40.0  # mean grey levels
_SAME_SPOTS, _SAME_STEP = 6, 8.0  # of 256 gradients, those that may differ by more than so many grey levels
_SAME_DIFFERENCE = 5.0  # mean grey levels
_WORDS_SHARE = 0.4  # of a part's time for reading the words of its frames; decoding needs the rest
_BLACK = 10.0  # brightest pixel of a frame that shows nothing, such as a fade


@dataclass(frozen=True, slots=True)
class Look:
    """A frame made small enough to compare. pixels: int16 (27, 48, 3); histogram sums to 1; gradients: (16, 16)."""

    pixels: npt.NDArray[np.int16]
    histogram: npt.NDArray[np.float64]
    gradients: npt.NDArray[np.float64]

    @classmethod
    def of(cls, rgb: npt.NDArray[np.uint8]) -> Look:
        """Of a (27, 48, 3) picture."""
        bins = (rgb.reshape(-1, 3) // 43).astype(np.int64) @ np.array([36, 6, 1])  # 6 levels a channel
        grey = rgb.mean(axis=2)
        rows = np.linspace(0, grey.shape[0] - 1, 16).round().astype(int)
        columns = np.linspace(0, grey.shape[1] - 1, 17).round().astype(int)
        hashed = grey[np.ix_(rows, columns)]
        return cls(rgb.astype(np.int16), np.bincount(bins, minlength=216) / len(bins), np.diff(hashed, axis=1))

    def is_cut_from(self, before: Look) -> bool:
        """Whether a new scene starts between two neighbouring looks."""
        moved = 0.5 * float(np.abs(self.histogram - before.histogram).sum())
        differs = float(np.abs(self.pixels - before.pixels).mean())
        return (moved > _CUT_HISTOGRAM and differs > _SAME_DIFFERENCE) or differs > _CUT_DIFFERENCE

    def is_same_as(self, other: Look) -> bool:
        """Near-duplicates: gradients and mean difference both close.

        A difference hash (Krawetz 2013) whose gradients keep their size: by sign alone, noise on a flat ground counts.
        """
        moved = int((np.abs(self.gradients - other.gradients) > _SAME_STEP).sum())
        return moved <= _SAME_SPOTS and float(np.abs(self.pixels - other.pixels).mean()) < _SAME_DIFFERENCE

    def is_black(self) -> bool:
        """Shows nothing."""
        return int(self.pixels.max()) < _BLACK


class VideoExtractor:
    """ports.Extractor for films."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """Yield a part for each slot of about 26 s: its sounds, then its frames, each in time order.

        "sound" elements as `AudioExtractor` finds them, or "speech" from a .vtt or .srt beside the file;
        "frame" elements hold a JPEG or PNG, the words seen in it, start_s, and end_s at the next frame kept or the
        slot's end.
        metadata of a frame: width, height, duration_s (0.0 where unknown). A file with sound alone gives
        the sounds. Raises CorruptError, UnsupportedError, ExtractionError.
        """
        path = Path(path)
        with open_media(path) as container:
            title, duration_s = media_title(container, path), media_duration_s(container)
            notes = suffix_notes(container, path)
            has_film, has_sound = film_stream(container) is not None, bool(container.streams.audio)
        cues, cue_notes = audio.sidecar(path, self.config.speech_language)
        notes += cue_notes
        if not has_film and not has_sound:
            raise UnsupportedError(f"{path.name} holds neither sound nor moving pictures", path=str(path))
        if not has_film:
            notes.append("the file holds sound alone")
        if not has_sound and not cues:
            notes.append("the film has no sound")
        spoken = _cue_slots(cues, start_part) if cues else _sound_slots(path, start_part) if has_sound else iter(())
        shown = self._frame_slots(path, start_part, duration_s, notes) if has_film else iter(())
        if has_film and (has_sound or cues):
            spoken, shown = _or_note(spoken, "sound", notes), _or_note(shown, "pictures", notes)
        total = int(duration_s // SLOT_S) + 1 if duration_s else None
        yield from _parts(spoken, shown, start_part, title, total, notes)

    def _frame_slots(self, path: Path, start_part: int, duration_s: float, notes: list[str]) -> Iterator[tuple[Element, ...]]:
        """Frame elements of each slot from `start_part` on."""
        # words need more pixels than the stored picture has
        longest_px = max(self.config.image_px, OCR_PX if reads_text(self.config) else 0)
        slot, picked = start_part, _Picked(self.config.frame_interval_s, longest_px)
        at = -1.0
        for at, frame in looks(path, start_part * SLOT_S):
            while at >= (slot + 1) * SLOT_S:
                yield self._elements(picked.finish(), (slot + 1) * SLOT_S, duration_s, notes)
                slot += 1
            picked.look(at, frame, only_remember=at < start_part * SLOT_S)
        if at >= start_part * SLOT_S or start_part == 0:
            end_s = max(duration_s, at + STEP_S)
            yield self._elements(picked.finish(), min((slot + 1) * SLOT_S, end_s), duration_s, notes)

    def _elements(self, kept: list[_Kept], end_s: float, duration_s: float, notes: list[str]) -> tuple[Element, ...]:
        found = []
        deadline = time.monotonic() + _WORDS_SHARE * self.config.page_timeout_s
        for frame, after in zip(kept, [*kept[1:], None], strict=False):
            until_s = after.start_s if after else end_s
            width, height = frame.size
            metadata = {"width": width, "height": height, "duration_s": round(duration_s, 3)}
            data = encode_small(frame.picture, self.config.image_px)
            words, unread = words_in(frame.picture, self.config, timeout_s=max(0.0, deadline - time.monotonic()))
            note = f"frames that seem to hold text stay unread: {unread}"
            if unread and note not in notes:
                notes.append(note)
            found.append(Element("frame", words, start_s=frame.start_s, end_s=until_s, data=data, metadata=metadata))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A frame kept: when it starts, a small picture of it, its full size."""

    start_s: float
    picture: Image
    size: tuple[int, int]


class _Picked:
    """Chooses the frames of one slot after another."""

    def __init__(self, interval_s: float, longest_px: int) -> None:
        self._interval_s, self._longest_px = interval_s, longest_px
        self._kept: list[_Kept] = []
        self._before: Look | None = None  # the frame looked at last
        self._latest: Look | None = None  # the frame kept last
        self._waiting: tuple[float, Any] | None = None  # new since the last one kept, but neither a cut nor due

    def look(self, at: float, frame: Any, *, only_remember: bool) -> None:
        """Consider the frame at a second; only_remember: it lies before the first slot wanted."""
        small = frame.reformat(width=_LOOK[0], height=_LOOK[1], format="rgb24", interpolation="AREA")
        look, before, self._waiting = Look.of(small.to_ndarray()), self._before, None
        self._before = look
        if only_remember:
            self._latest = look
        elif not look.is_black() and (self._latest is None or not look.is_same_as(self._latest)):
            due = not self._kept or at - self._kept[-1].start_s >= self._interval_s
            if due or before is None or look.is_cut_from(before):
                self._keep(at, frame)
                self._latest = look
            else:
                self._waiting = (at, frame)

    def finish(self) -> list[_Kept]:
        """The slot's frames; the one it ends on too, if that crept away from the last one kept."""
        waited_s = self._waiting[0] - self._kept[-1].start_s if self._waiting and self._kept else 0.0
        if self._waiting and waited_s >= self._interval_s / 2:
            self._keep(*self._waiting)
        kept, self._kept, self._waiting, self._latest = self._kept, [], None, self._before
        return kept

    def _keep(self, at: float, frame: Any) -> None:
        self._kept.append(_Kept(at, *shown_picture(frame, self._longest_px)))


def _sound_slots(path: Path, start_part: int) -> Iterator[tuple[Element, ...]]:
    for slot in audio.slots(audio.decode_pcm(path)):
        if slot.number >= start_part:
            yield sound_elements(slot)


def _or_note(stream: Iterator[tuple[Element, ...]], what: str, notes: list[str]) -> Iterator[tuple[Element, ...]]:
    """A film whose sound is broken still has its pictures, and the other way round."""
    try:
        yield from stream
    except CorruptError as error:
        notes.append(f"the {what} cannot be read: {error}")


def _cue_slots(cues: list[Segment], start_part: int) -> Iterator[tuple[Element, ...]]:
    last = int(cues[-1].start_s // SLOT_S)
    for slot in range(start_part, last + 1):
        yield tuple(speech_element(cue) for cue in cues if slot == int(cue.start_s // SLOT_S))


def _parts(
    spoken: Iterator[tuple[Element, ...]],
    shown: Iterator[tuple[Element, ...]],
    number: int,
    title: str,
    total: int | None,
    notes: list[str],
) -> Iterator[Part]:
    """Slot by slot from both streams until both end; the last part knows the total."""
    held: Part | None = None
    said = set(notes) if number else set[str]()  # the file's own notes came with its first part
    while True:
        sounds, frames = next(spoken, None), next(shown, None)
        if held is not None:
            ended = sounds is None and frames is None
            length = number if ended else max(total, number + 1) if total else None
            yield Part(held.number, held.elements, title, length, notes=tuple(note for note in notes if note not in said))
            said.update(notes)
            held = None
        if sounds is None and frames is None:
            return
        held = Part(number, (*(sounds or ()), *(frames or ())))
        number += 1
