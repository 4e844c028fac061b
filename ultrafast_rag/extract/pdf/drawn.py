"""A page interpreted once: its text, the boxes of what is drawn on it and its pictures all come from one list.

PyMuPDF's own methods go through the page's content again for each of them, and its list of boxes asks Python about every
piece of text: 9.5 ms a page of a textbook, this way 6.1 (117 pages, one core of an AMD Zen 3, 2026-11). Its list of pictures
holds each letter of a bitmap font besides.
"""

from __future__ import annotations

import functools
import re
from itertools import groupby
from typing import Any, NamedTuple

from ultrafast_rag.errors import require
from ultrafast_rag.extract.pdf.words import SUPERSCRIPT, is_mark_of, marked
from ultrafast_rag.types import BBox

_RIGHT_TO_LEFT = re.compile(r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")  # Unicode's blocks from Hebrew to Arabic Extended-A

# bits of anti-aliasing: with MuPDF's own eight a picture takes 5.8 ms, with four, which looks the same, 3.7 (104 of a textbook,
# AMD Zen 3, 2026-11)
_SMOOTH, _SMOOTHEST = 4, 8
Word = tuple[float, float, float, float, str]  # x0, y0, x1, y1, text


class Marks(NamedTuple):
    """boxes: of paths and shades in the order drawn, what clips them not regarded. pictures: bbox, width and height in pixels."""

    boxes: list[BBox]
    pictures: list[dict[str, Any]]


class DrawnPage:
    """MuPDF's display list of a page, annotations included. A turned page is set upright: it and its boxes are as shown."""

    def __init__(self, page: Any) -> None:
        self._pymupdf = require("pymupdf")
        if page.rotation:
            page.remove_rotation()
        self.page, self._list = page, page.get_displaylist()

    def text(self) -> Any:
        """The text as `Page.get_text("dict")` gives it: without pictures, ligatures as letters."""
        kept = self._pymupdf.TEXTFLAGS_DICT & ~self._pymupdf.TEXT_PRESERVE_IMAGES & ~self._pymupdf.TEXT_PRESERVE_LIGATURES
        return self._read(kept)[1]

    def _read(self, flags: int) -> tuple[Any, Any]:
        """PyMuPDF's text of the page, read as `flags` say, and its dictionary."""
        textpage = self._pymupdf.TextPage(self._list.get_textpage(flags))
        found = textpage.extractDICT()
        # the list leaves out spaces that are drawn by themselves; from left to right the gap tells of them
        spans = (span["text"] for block in found["blocks"] for line in block.get("lines", ()) for span in line["spans"])
        if any(map(_RIGHT_TO_LEFT.search, spans)):
            textpage = self.page.get_textpage(flags=flags)
            found = textpage.extractDICT()
        return textpage, found

    @functools.cached_property
    def words(self) -> list[Word]:
        """Each word, a raised footnote mark behind it apart: MuPDF makes "1,2343" of 1,234 and its mark 3."""
        textpage, found = self._read(self._pymupdf.TEXTFLAGS_WORDS)
        raised: list[tuple[float, float, str]] = []  # middle of the first letters, and the whole mark
        for spans in (line["spans"] for block in found["blocks"] for line in block.get("lines", ())):
            for above, run in groupby(spans, key=lambda span: span["flags"] & SUPERSCRIPT):
                marks = list(run)
                if above and (text := "".join(span["text"] for span in marks).strip()):
                    x0, y0, x1, y1 = marks[0]["bbox"]
                    raised.append(((x0 + x1) / 2, (y0 + y1) / 2, text))
        words: list[Word] = []
        for x0, y0, x1, y1, text, *_ in textpage.extractWORDS():
            if words and _is_mark(words[-1], (x0, y0, x1, y1, text)):
                left, top, _, bottom, before = words[-1]
                words[-1] = (left, top, x1, bottom, before + marked(before, text))
                continue
            mark = next((mark for x, y, mark in raised if x0 <= x <= x1 and y0 <= y <= y1 and text.endswith(mark)), "")
            plain = text.removesuffix(mark)
            words.append((x0, y0, x1, y1, plain + marked(plain, mark) if mark else text))
        return words

    @functools.cached_property
    def drawings(self) -> list[dict[str, Any]]:
        """As `Page.get_drawings` gives them; not to be changed."""
        return list(self.page.get_drawings())

    @functools.cached_property
    def marks(self) -> Marks:
        """What is drawn that is not text."""
        device, mupdf = _marks_type()(), self._pymupdf.mupdf
        everywhere = mupdf.FzRect(mupdf.FzRect.Fixed_INFINITE)
        mupdf.fz_run_display_list(self._list.this, device, mupdf.FzMatrix(), everywhere, mupdf.FzCookie())
        mupdf.fz_close_device(device)
        return Marks(device.boxes, device.pictures)

    def pixels(self, box: BBox, zoom: float) -> Any:
        """RGB pixmap of an area, `zoom` pixels a point."""
        pymupdf = self._pymupdf
        pymupdf.TOOLS.set_aa_level(_SMOOTH)
        try:
            return self._list.get_pixmap(matrix=pymupdf.Matrix(zoom, zoom), clip=pymupdf.Rect(box), alpha=False)
        finally:
            pymupdf.TOOLS.set_aa_level(_SMOOTHEST)


@functools.cache
def _marks_type() -> type[Any]:
    """The device behind `marks`: as PyMuPDF's `get_bboxlog`, with nothing asked about text."""
    mupdf = require("pymupdf").mupdf

    class Marked(mupdf.FzDevice2):  # type: ignore[misc, name-defined]
        """Its methods are called by MuPDF, as their names say."""

        def __init__(self) -> None:
            super().__init__()
            self.boxes: list[BBox] = []
            self.pictures: list[dict[str, Any]] = []
            for name in ("fill_path", "stroke_path", "fill_shade", "fill_image", "fill_image_mask"):
                getattr(self, f"use_virtual_{name}")()

        def _add(self, rect: Any) -> None:
            self.boxes.append((rect.x0, rect.y0, rect.x1, rect.y1))

        def fill_path(self, context: Any, path: Any, even_odd: Any, matrix: Any, *_: Any) -> None:
            self._add(mupdf.ll_fz_bound_path(path, None, matrix))

        def stroke_path(self, context: Any, path: Any, stroke: Any, matrix: Any, *_: Any) -> None:
            self._add(mupdf.ll_fz_bound_path(path, stroke, matrix))

        def fill_shade(self, context: Any, shade: Any, matrix: Any, *_: Any) -> None:
            self._add(mupdf.ll_fz_bound_shade(shade, matrix))

        def fill_image(self, context: Any, image: Any, matrix: Any, *_: Any) -> None:
            m = matrix  # a picture fills the unit square before it
            xs, ys = sorted((m.e, m.e + m.a, m.e + m.c, m.e + m.a + m.c)), sorted((m.f, m.f + m.b, m.f + m.d, m.f + m.b + m.d))
            self.pictures.append({"bbox": (xs[0], ys[0], xs[-1], ys[-1]), "width": image.w, "height": image.h})

        fill_image_mask = fill_image

    return Marked


def _is_mark(before: Word, word: Word) -> bool:
    """Whether a word is the footnote's mark of the figure before it: raised, small and close."""
    (_, top, right, bottom, figure), (x0, y0, _, y1, text) = before, word
    return y1 < bottom and is_mark_of(text, figure, size=y1 - y0, size_before=bottom - top, gap=x0 - right)
