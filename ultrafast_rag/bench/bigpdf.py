"""A PDF of any length made on the spot: distinct prose on every page, a heading now and then, a picture on some."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ultrafast_rag.errors import require

_WORDS = (
    "harbour keeper lamp signal island wind current depth gauge rain ledger engine cable winter summer tide boat "
    "rope anchor chart measure record repair visit carry observe report weigh count compare clean paint lower raise "
    "open close turn hold follow north south east west early late quiet heavy bright narrow broad steep sudden "
    "regular second former common whole small morning evening night week month year station tower garden kitchen "
    "library workshop store cellar path bridge cliff beach "
).split()
_PICTURE_EVERY = 25  # pages; any, a handbook's order of magnitude
_HEADING_EVERY = 8  # pages; any, a handbook's order of magnitude
_SENTENCES = 28  # a page: some 350 words


def write_pdf(path: Path, pages: int, *, seed: int = 0) -> Path:
    """About 350 words per page; the same seed gives the same text. Returns the path."""
    pymupdf = require("pymupdf")
    rng = np.random.default_rng(seed)
    document = pymupdf.open()
    for number in range(pages):
        page = document.new_page()
        top = 60
        if number % _HEADING_EVERY == 0:
            page.insert_text((60, top), f"Chapter {number // _HEADING_EVERY + 1}: {_phrase(rng, 4)}", fontsize=18)
            top += 30
        bottom = 780
        if number % _PICTURE_EVERY == 0:
            bottom = 620
            pixels = np.repeat(np.repeat(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8), 12, axis=0), 12, axis=1)
            picture = pymupdf.Pixmap(pymupdf.csRGB, pixels.shape[1], pixels.shape[0], pixels.tobytes(), False)
            page.insert_image(pymupdf.Rect(60, 630, 260, 765), pixmap=picture)
            page.insert_text((60, 780), f"Figure {number // _PICTURE_EVERY + 1}: {_phrase(rng, 5)}.", fontsize=9)
        text = " ".join(f"{_phrase(rng, int(rng.integers(8, 17))).capitalize()}." for _ in range(_SENTENCES))
        page.insert_textbox(pymupdf.Rect(60, top, 535, bottom), text, fontsize=11)
    document.save(path, deflate=True)
    document.close()
    return path


def _phrase(rng: np.random.Generator, words: int) -> str:
    return " ".join(_WORDS[n] for n in rng.integers(0, len(_WORDS), words))
