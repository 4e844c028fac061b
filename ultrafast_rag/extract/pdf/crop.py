"""A PDF page around a passage, the passage marked, as a small picture for an evidence card.

The mark is drawn into the picture: an overlay would need styles that some notebook viewers strip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ultrafast_rag.errors import CorruptError

MARGIN_PT = 36.0  # of the page shown above and below the passage
LEAST_HEIGHT_PT = 140.0
MARK = (1.0, 0.83, 0.1)
JPEG_QUALITY = 60


def crop_page(path: str, page: int, bbox: Sequence[float] | None, max_px: int) -> bytes:
    """JPEG of the full width of a page (1-based) around bbox, longest side max_px; the whole page without a bbox.

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
            missing = max(0.0, LEAST_HEIGHT_PT - passage.height - 2 * MARGIN_PT) / 2
            top, bottom = passage.y0 - MARGIN_PT - missing, passage.y1 + MARGIN_PT + missing
            clip = pymupdf.Rect(sheet.rect.x0, top, sheet.rect.x1, bottom) & sheet.rect
            around = pymupdf.Rect(passage.x0 - 3, passage.y0 - 2, passage.x1 + 3, passage.y1 + 2)
            # in page coordinates as shown; drawing wants those of the unrotated page
            sheet.draw_rect(around * sheet.derotation_matrix, color=None, fill=MARK, fill_opacity=0.28, overlay=True)
        scale = max_px / max(clip.width, clip.height, 1.0)
        picture = sheet.get_pixmap(matrix=pymupdf.Matrix(scale, scale), clip=clip, alpha=False)
        jpeg: bytes = picture.tobytes("jpeg", jpg_quality=JPEG_QUALITY)
        return jpeg
