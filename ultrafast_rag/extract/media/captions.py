"""SubRip (.srt) and WebVTT (.vtt) transcripts, beside a recording or alone.

What people wrote beats what a model hears, and costs nothing. Source of the formats:
https://www.w3.org/TR/webvtt1/ and the SubRip files players accept in practice. pysubs2 (1.8.1) was tried in place of this
parser and lost: it puts the identifier of the next WebVTT cue into the words of the one before, keeps entities (&amp;) and
karaoke times as words, and knows nothing of rolling captions.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, ExtractionError
from ultrafast_rag.types import Element, Part, Segment

SUFFIXES = (".vtt", ".srt")
CUES_PER_PART = 50  # some four minutes of speech
_MAX_BYTES = 20_000_000  # a day of speech is about 2 MB
_TIME = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{2})[.,](\d{1,3})"
_CUE = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}")
_TAG = re.compile(r"<[^<>\n]*>|\{\\[^{}\n]*\}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]+)*", re.IGNORECASE)


def find_sidecar(path: Path, language: str | None = None) -> Path | None:
    """The transcript beside `path`: 'talk.vtt', 'talk.mp3.srt' or 'talk.en.vtt'; that of `language` first."""
    candidates: list[tuple[int, str, Path]] = []
    try:
        beside = sorted(path.parent.iterdir())
    except OSError:
        return None
    for other in beside:
        if other.suffix.lower() not in SUFFIXES or not other.is_file():
            continue
        if other.stem in (path.stem, path.name):
            candidates.append((1, other.name, other))
        elif spoken := sidecar_language(path, other):
            candidates.append((0 if language and spoken.split("-")[0] == language.split("-")[0] else 2, other.name, other))
    return min(candidates)[2] if candidates else None


def sidecar_language(path: Path, sidecar: Path) -> str:
    """'de' for 'talk.de.vtt' beside 'talk.mp3'; "" where the name holds none."""
    code = sidecar.stem.removeprefix(path.stem).removeprefix(path.suffix).lstrip(".")
    is_named = sidecar.stem.startswith(f"{path.stem}.") and _LANGUAGE.fullmatch(code)
    return code.lower() if is_named else ""


def read_captions(path: Path, *, language: str = "") -> list[Segment]:
    """Cues of a transcript file in time order; [] when it holds none. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return parse_captions(_decoded(file.read(_MAX_BYTES)), language=language)


def parse_captions(text: str, *, language: str = "") -> list[Segment]:
    """Cues of SRT or VTT text in time order, without markup; broken cues are left out.

    Rolling captions, as live captioners write them, repeat the line above: the repeat is dropped.
    """
    cues: list[Segment] = []
    before: list[str] = []
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    numbers = [n for n, line in enumerate(lines) if _CUE.match(line)]
    for n, following in zip(numbers, [*numbers[1:], len(lines)], strict=False):
        start_s, end_s = _times(lines[n])
        spoken = _spoken(lines[n + 1 : following])
        fresh = spoken
        for kept in range(min(len(before), len(spoken)), 0, -1):
            if before[-kept:] == spoken[:kept] and cues and start_s - cues[-1].end_s < 1.0:
                fresh = spoken[kept:]
                break
        if spoken:
            before = spoken
        if fresh and end_s > start_s:
            cues.append(Segment(start_s, end_s, " ".join(fresh), language))
    return sorted(cues, key=lambda cue: cue.start_s)


def _spoken(lines: list[str]) -> list[str]:
    """Text lines of one cue: up to the first blank line, so that notes and the next cue's number stay out."""
    found: list[str] = []
    for line in lines:
        if not line.strip():
            break
        if clean := " ".join(html.unescape(_TAG.sub("", line)).split()):
            found.append(clean)
    return found


def _times(line: str) -> tuple[float, float]:
    match = _CUE.match(line)
    assert match is not None  # only lines that match are asked
    h0, m0, s0, f0, h1, m1, s1, f1 = match.groups()
    start_s = 3600 * int(h0 or 0) + 60 * int(m0) + int(s0) + int(f0.ljust(3, "0")) / 1000
    end_s = 3600 * int(h1 or 0) + 60 * int(m1) + int(s1) + int(f1.ljust(3, "0")) / 1000
    return start_s, end_s


def _decoded(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def speech_element(cue: Segment) -> Element:
    """A cue as an element."""
    metadata = {"spoken_language": cue.language} if cue.language else {}
    return Element("speech", cue.text, start_s=cue.start_s, end_s=cue.end_s, metadata=metadata)


def speech_parts(cues: list[Segment], title: str, start_part: int, notes: tuple[str, ...]) -> Iterator[Part]:
    """Parts of 50 cues each, from `start_part` on; the notes go with the first."""
    total = -(-len(cues) // CUES_PER_PART)
    for number in range(start_part, total):
        window = cues[number * CUES_PER_PART : (number + 1) * CUES_PER_PART]
        elements = tuple(speech_element(cue) for cue in window)
        yield Part(number, elements, title=title, total=total, notes=notes if number == 0 else ())


class CaptionsExtractor:
    """ports.Extractor for a transcript without its recording: the words with their times."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """Parts of 50 cues. Raises CorruptError for a file without cues, ExtractionError for one that cannot be opened."""
        try:
            cues = read_captions(path)
        except OSError as error:
            raise ExtractionError(f"{path.name} cannot be opened: {error.strerror or error}", path=str(path)) from error
        if not cues:
            raise CorruptError(f"{path.name} holds no captions with times", path=str(path))
        yield from speech_parts(cues, path.stem, start_part, ())
