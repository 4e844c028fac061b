"""A PDF page around a passage, its quoted words marked, as a small picture for an evidence card.

The mark is drawn into the picture: an overlay would need styles that some notebook viewers strip.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from ultrafast_rag.errors import CorruptError

MARGIN_PT = 36.0  # of the page shown above and below the passage
LEAST_HEIGHT_PT = 140.0  # a sixth of a page: ten lines, so that one sees where on it one is
SIDE_PT, LEAST_WIDTH_PT = 12.0, 240.0  # beside the passage, and in all: a column of a paper with two
ONE_COLUMN = 0.55  # of a passage's width: what its quoted lines take where it runs over two columns
MOST_SCALE = 2.5  # pixels a point: larger shows no more
SLACK, MATCHED = 3, 0.6  # words that hyphens may add; share of a quote's words that must be found
MARK = (1.0, 0.83, 0.1)  # a marker's yellow
JPEG_QUALITY = 60  # chosen: print stays easy to read


def crop_page(path: str, page: int, bbox: Sequence[float] | None, max_px: int, quote: str = "", whole: bool = False) -> bytes:
    """JPEG of the column of a page (1-based) around bbox, longest side max_px; the whole page without a bbox, or if `whole`.

    quote: words of the passage; they are marked and shown instead of all of it, where they stand there.
    Raises CorruptError when the page is not there.
    """
    import pymupdf

    with pymupdf.open(Path(path)) as document:
        if document.needs_pass:
            document.authenticate("")
        if not 1 <= page <= document.page_count:
            raise CorruptError(f"{Path(path).name} has no page {page}", path=path, page=page)
        sheet = document[page - 1]
        clip = sheet.rect
        if bbox is not None:
            passage = pymupdf.Rect(*bbox) & sheet.rect
            marks = _quoted(sheet, passage, quote) or [passage]
            clip = sheet.rect if whole else _column(passage, marks, sheet.rect)
            for mark in marks:
                around = pymupdf.Rect(mark.x0 - 3, mark.y0 - 2, mark.x1 + 3, mark.y1 + 2)
                # in page coordinates as shown; drawing wants those of the unrotated page
                sheet.draw_rect(around * sheet.derotation_matrix, color=None, fill=MARK, fill_opacity=0.28, overlay=True)
        scale = min(max_px / max(clip.width, clip.height, 1.0), MOST_SCALE if bbox is not None and not whole else math.inf)
        picture = sheet.get_pixmap(matrix=pymupdf.Matrix(scale, scale), clip=clip, alpha=False)
        jpeg: bytes = picture.tobytes("jpeg", jpg_quality=JPEG_QUALITY)
        return jpeg


def _column(passage: Any, marks: Sequence[Any], sheet: Any) -> Any:
    """The passage's width, or that of the marks' own column, and as high around the marks as makes them readable."""
    left, right = min(mark.x0 for mark in marks), max(mark.x1 for mark in marks)
    if len(marks) == 1 or right - left > ONE_COLUMN * passage.width:
        left, right = passage.x0, passage.x1
    x0, x1 = left - SIDE_PT, right + SIDE_PT
    narrow = max(0.0, LEAST_WIDTH_PT - (x1 - x0)) / 2
    top, bottom = min(mark.y0 for mark in marks) - MARGIN_PT, max(mark.y1 for mark in marks) + MARGIN_PT
    missing = max(0.0, LEAST_HEIGHT_PT - (bottom - top)) / 2
    return type(passage)(x0 - narrow, top - missing, x1 + narrow, bottom + missing) & sheet


def _quoted(sheet: Any, passage: Any, quote: str) -> list[Any]:
    """A rectangle for each line of the quote within the passage, in coordinates as shown; [] where it is not found.

    Words are compared by letters and digits alone, in the order they stand on the page, so that hyphens, spaces and
    repaired characters do not matter; most of a sentence's must be there in a row.
    """
    words = []
    for x0, y0, x1, y1, text, block, line, _ in sheet.get_text("words") if quote else ():
        place = type(passage)(x0, y0, x1, y1) * sheet.rotation_matrix
        inside = passage.x0 - 2 <= (place.x0 + place.x1) / 2 <= passage.x1 + 2
        if inside and passage.y0 - 2 <= (place.y0 + place.y1) / 2 <= passage.y1 + 2 and (letters := _letters(text)):
            words.append((letters, (block, line), place))
    lines: dict[tuple[int, int], Any] = {}
    for sentence in quote.split(" … "):
        wanted = [letters for word in sentence.split() if (letters := _letters(word))]
        for _, line, place in words[_stretch(wanted, [word for word, _, _ in words])]:
            lines[line] = lines[line] | place if line in lines else place
    return list(lines.values())


def _stretch(wanted: Sequence[str], words: Sequence[str]) -> slice:
    """Where the wanted words stand in a row among the words, nearly; an empty slice where most do not."""
    longest = SequenceMatcher(None, wanted, words, autojunk=False).find_longest_match()
    start = max(0, longest.b - longest.a - SLACK)
    near = words[start : longest.b + len(wanted) - longest.a + SLACK]
    blocks = [block for block in SequenceMatcher(None, wanted, near, autojunk=False).get_matching_blocks() if block.size]
    if sum(block.size for block in blocks) < MATCHED * len(wanted) or not blocks:
        return slice(0, 0)
    return slice(start + blocks[0].b, start + blocks[-1].b + blocks[-1].size)


def _letters(word: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", word).casefold() if c.isalnum())
