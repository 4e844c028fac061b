"""Words in a picture, by the tesseract command where it is installed.

The command line, not a binding: no extra package, and a picture that hangs the reader is killed by
the clock without taking the worker with it. Knows nothing of pages or files.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

from ultrafast_rag.errors import CorruptError, ExtractionError


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
    """Text that tesseract reads in an encoded PNG, JPEG or TIFF; "" where it sees none.

    language: tesseract's codes, "eng" or "eng+deu". Lines keep their breaks, blank runs are one.
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
    # One thread a page: pages are read in parallel, and tesseract's own threads only fight over the cores.
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    try:
        done = subprocess.run(
            ["tesseract", "stdin", "stdout", "-l", language, "--psm", "3"],
            input=image_bytes, capture_output=True, timeout=timeout_s, check=False, env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise CorruptError(f"OCR took longer than {timeout_s:.0f} s") from error
    except OSError as error:
        raise ExtractionError(f"tesseract did not start: {error}") from error
    if done.returncode != 0:
        raise CorruptError(f"OCR failed: {done.stderr.decode('utf-8', 'replace').strip()[-200:]}")
    lines = [line.strip() for line in done.stdout.decode("utf-8", "replace").replace("\f", "\n").splitlines()]
    return "\n".join(line for line, before in zip(lines, ["", *lines], strict=False) if line or before).strip()
