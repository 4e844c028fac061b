"""Words in a picture, by the tesseract command where it is installed.

The command line, not a binding: no extra package, and a picture that hangs the reader is killed by
the clock without taking the worker with it. Text that is upside down, or lies on the side that tesseract
does not turn by itself, comes out with little confidence (30 where 94 is usual); the picture is then turned
by half and read again. (Its orientation detection lost: it costs every picture a quarter more, needs a data
file of its own, and leaves a page of few words as it is.) Knows nothing of pages or files.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass

from ultrafast_rag.errors import CorruptError, ExtractionError

_SURE = 60.0  # percent; below, the picture may be turned
_LEAST = 35.0  # below, what was read are not words
_DOUBTED = 50.0  # a line below is a drawing taken for letters ("an ha", 40, of a bird), where the rest is read well


@dataclass(frozen=True, slots=True)
class Reading:
    """Text, and tesseract's own confidence in it: percent, the mean over its letters."""

    text: str
    confidence: float


@functools.cache
def available() -> bool:
    """Whether the tesseract command is on the path."""
    return shutil.which("tesseract") is not None


@functools.cache
def languages() -> frozenset[str]:
    """Language codes that the installed tesseract can read; empty without tesseract."""
    if not available():
        return frozenset()
    listed = subprocess.run(["tesseract", "--list-langs"], capture_output=True, timeout=20, check=False)
    lines = (listed.stdout or listed.stderr).decode("utf-8", "replace").splitlines()
    return frozenset(line.strip() for line in lines[1:] if line.strip())


def ocr(image_bytes: bytes, *, language: str, timeout_s: float) -> str:
    """Text that tesseract reads in an encoded PNG, JPEG or TIFF, whichever way up; "" where it sees none.

    language: tesseract's codes, "eng" or "eng+deu". Lines keep their breaks, paragraphs a blank line between.
    Raises ExtractionError without tesseract or the language, CorruptError when it fails or takes
    longer than timeout_s.
    """
    if not available():
        raise ExtractionError("tesseract is not installed: apt-get install tesseract-ocr, or Config(ocr=False)")
    if missing := sorted(set(language.split("+")) - languages()):
        raise ExtractionError(
            f"tesseract cannot read {', '.join(missing)}: apt-get install "
            f"{' '.join(f'tesseract-ocr-{code}' for code in missing)}, or choose another Config.ocr_language"
        )
    started = time.monotonic()
    reading = _read(image_bytes, language, timeout_s)
    left_s = timeout_s - (time.monotonic() - started)
    if reading.text and reading.confidence < _SURE and left_s > 0:
        with contextlib.suppress(CorruptError):  # out of time: the first reading stands
            reading = max(reading, _read(_turned(image_bytes), language, left_s), key=lambda tried: tried.confidence)
    return reading.text if reading.confidence >= _LEAST else ""


def _turned(image_bytes: bytes) -> bytes:
    """The same picture upside down, as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(image_bytes)) as picture:
        picture.transpose(Image.Transpose.ROTATE_180).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _read(image_bytes: bytes, language: str, timeout_s: float) -> Reading:
    # One thread per page: pages are read in parallel, and tesseract's own threads only fight over the cores.
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    try:
        done = subprocess.run(
            ["tesseract", "stdin", "stdout", "-l", language, "--psm", "3", "tsv"],
            input=image_bytes,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise CorruptError(f"OCR took longer than {timeout_s:.0f} s") from error
    except OSError as error:
        raise ExtractionError(f"tesseract did not start: {error}") from error
    if done.returncode != 0:
        raise CorruptError(f"OCR failed: {done.stderr.decode('utf-8', 'replace').strip()[-200:]}")
    return _from_table(done.stdout.decode("utf-8", "replace"))


def _from_table(table: str) -> Reading:
    """From tesseract's tsv: level, page, block, paragraph, line, word, four of its box, confidence, text."""
    paragraphs: dict[tuple[str, ...], dict[str, list[tuple[str, float]]]] = {}
    for row in table.splitlines()[1:]:
        cells = row.split("\t", 11)
        if len(cells) == 12 and cells[0] == "5" and (word := cells[11].strip()):
            paragraphs.setdefault(tuple(cells[1:4]), {}).setdefault(cells[4], []).append((word, float(cells[10])))
    confidence = _confidence(word for lines in paragraphs.values() for line in lines.values() for word in line)
    least = _DOUBTED if confidence >= _SURE else 0.0
    kept = [[line for line in lines.values() if _confidence(line) >= least] for lines in paragraphs.values()]
    text = "\n\n".join("\n".join(" ".join(word for word, _ in line) for line in lines) for lines in kept if lines)
    return Reading(text, confidence)


def _confidence(words: Iterable[tuple[str, float]]) -> float:
    """The mean over the letters of (word, percent)."""
    letters = [(len(word), sure) for word, sure in words]
    return sum(count * sure for count, sure in letters) / max(1, sum(count for count, _ in letters))
