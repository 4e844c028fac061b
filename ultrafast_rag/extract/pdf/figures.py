"""Pictures and tables of one PDF page, and the words that belong to them.

Everything starts from the boxes of what is drawn; pictures are listed, and areas rendered, only where there are some.
Rendering the area, instead of taking the embedded stream, keeps masks, colour spaces and labels drawn on top, and decodes
a large JPEG at reduced scale. Pixel counts are checked before anything is decoded.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ultrafast_rag.config import Config
from ultrafast_rag.errors import require
from ultrafast_rag.extract.pdf import tables
from ultrafast_rag.extract.pdf.drawn import DrawnPage
from ultrafast_rag.extract.pdf.layout import Line
from ultrafast_rag.extract.pdf.tables import inside
from ultrafast_rag.extract.pdf.words import join_lines
from ultrafast_rag.types import BBox, Element

_CAPTION = re.compile(
    r"^\s*((?:fig(?:ure|\.)?|abb(?:ildung|\.)?|chart|diagram|image|photo|plate|scheme|exhibit|map|graph|bild|grafik|figura|рис\.?)\s*[\dA-Z]+(?:[.-]\d+)*)\b",
    re.I,
)
_SMALLEST_PX = 64  # of either side; chosen: smaller ones are logos and bullets
_SMALLEST_SHARE = 0.008  # of the page
_CELL = 5.0  # points: drawings closer than about this are one figure
_MOST_POINTS = 5000.0  # of a page's side; what lies beyond counts as its edge
_MOST_PATHS = 20_000  # chosen, against maps of a million strokes
_CLIPPED = 3.0  # times the page
_MOST_PICTURES = 40  # on one page
_MAX_ZOOM = 4.0  # 288 dpi
_JPEG_QUALITY = 88  # by Pillow, 2 ms a picture; MuPDF takes 7, and 10 for PNG


class PageFigures:
    """What is drawn on one page. `seen` holds digests of pictures already taken from this document."""

    def __init__(self, page: Any, drawn: DrawnPage, number: int, config: Config, seen: set[str], notes: list[str]) -> None:
        self._page, self._drawn, self._number, self._config, self._seen, self._notes = page, drawn, number, config, seen, notes
        self._width, self._height = float(page.rect.width), float(page.rect.height)
        marks = drawn.marks
        self._paths = [box for box in marks.boxes if self._on_page(box)]
        self._images = _with_xrefs(page, marks.pictures) if marks.pictures else []

    def _on_page(self, box: BBox) -> bool:
        """Whether any of it is, and it is not a path so large that only what clips it can be seen."""
        if box[2] - box[0] >= _CLIPPED * self._width or box[3] - box[1] >= _CLIPPED * self._height:
            return False
        return box[2] > 0 and box[3] > 0 and box[0] < self._width and box[1] < self._height

    @property
    def is_blank(self) -> bool:
        """Nothing drawn but, perhaps, a background."""
        return not self._images and len(self._paths) <= 1

    def is_drawable(self, notes: list[str]) -> bool:
        """Whether every picture on the page is under the pixel cap, so that rendering it all is safe."""
        largest = max((info["width"] * info["height"] for info in self._images), default=0)
        if largest <= self._config.max_image_pixels:
            return True
        notes.append(
            f"page {self._number} holds a picture of {largest} pixels and was not drawn "
            f"(max_image_pixels={self._config.max_image_pixels})"
        )
        return False

    def render(self, box: BBox, *, max_zoom: float = _MAX_ZOOM) -> bytes:
        """JPEG of the area, longest side at most config.image_px."""
        image = require("PIL.Image", package="pillow")
        longest = max(box[2] - box[0], box[3] - box[1], 1.0)
        zoom = min((self._config.image_px - 1) / longest, max_zoom)  # rounding outwards may add a pixel
        pixmap = self._drawn.pixels(box, zoom)
        picture = image.frombytes("RGB", (pixmap.width, pixmap.height), pixmap.samples)
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=_JPEG_QUALITY)
        return out.getvalue()

    def claim(self, groups: list[list[Line]], turned: list[Line]) -> tuple[list[list[Line]], list[Element]]:
        """Tables and pictures with the lines that belong to them, and the lines that are left."""
        lines = [line for group in groups for line in group]
        taken: set[int] = set()
        elements = [self._table(table, lines, taken) for table in tables.find(self._drawn, groups, self._paths)]
        areas = [element.bbox for element in elements if element.bbox]
        drawn = [box for box in self._drawings(lines) if not any(_share(box, area) > 0.3 for area in areas)]
        for box, info in self._pictures(drawn, lines):
            elements.append(self._picture(box, info, groups, turned, taken))
        left = [[line for line in group if id(line) not in taken] for group in groups]
        return [group for group in left if group], elements

    def pictures_of_scan(self, words: str) -> list[Element]:
        """The pictures of a page whose only text came by OCR."""
        return [
            Element("image", words, page=self._number, bbox=box, data=self.render(box, max_zoom=_native_zoom(info)))
            for box, info in self._pictures([], [])
        ]

    def _table(self, table: tables.Table, lines: Sequence[Line], taken: set[int]) -> Element:
        caption = tables.caption_of(table, lines)
        taken.update(id(line) for line in table.lines or (line for line in lines if inside(line, table.bbox)))
        taken.update(map(id, caption))
        heading = join_lines([line.text for line in caption])
        text = "\n".join([*filter(None, [heading]), *(" | ".join(row) if any(row[1:]) else row[0] for row in table.rows)])
        data = self.render(self._clipped(table.bbox, 3)) if self.is_drawable([]) else None
        return Element(
            "table", text, page=self._number, bbox=table.bbox, data=data, metadata={"caption": heading} if heading else {}
        )

    def _clipped(self, box: BBox, margin: float = 0.0) -> BBox:
        return (
            max(0.0, box[0] - margin),
            max(0.0, box[1] - margin),
            min(self._width, box[2] + margin),
            min(self._height, box[3] + margin),
        )

    def _drawings(self, lines: Sequence[Line]) -> list[BBox]:
        """Areas of vector graphics that look like a chart or diagram."""
        paths = [box for box in self._paths if _area(box) < 0.6 * self._width * self._height][:_MOST_PATHS]
        if len(paths) < 8:
            return []
        found = []
        for members in _clusters(paths):
            box = self._clipped(_around(members))
            shapes = sum(b[2] - b[0] > 3 and b[3] - b[1] > 3 for b in members)
            words = [line for line in lines if inside(line, box)]
            is_prose = _printed(words) > 0.35 * _area(box)
            if len(members) >= 8 and shapes >= 3 and box[2] - box[0] > 60 and box[3] - box[1] > 45 and not is_prose:
                found.append(box)
        return found

    def _pictures(self, drawn: list[BBox], lines: Sequence[Line]) -> list[tuple[BBox, dict[str, Any] | None]]:
        """Areas to show with the picture's record, None for a drawing; logos, repeats and backgrounds left out."""
        areas: list[tuple[BBox, dict[str, Any] | None]] = []
        page_area = self._width * self._height
        for box, parts in _joined(self._images[:400]):
            shown = self._clipped(box)
            density = max(max(info["width"] / max(info["bbox"][2] - info["bbox"][0], 0.1), 0.01) for info in parts)
            small = min(shown[2] - shown[0], shown[3] - shown[1])
            if small * density < _SMALLEST_PX or small < 18 or _area(shown) < _SMALLEST_SHARE * page_area:
                continue
            words = [line for line in lines if inside(line, shown)]
            if _printed(words) > 0.2 * _area(shown) or (
                _area(shown) > 0.85 * page_area and sum(len(line.text) for line in words) > 400
            ):
                continue  # behind words: a banner, a background, or a scan under its text layer
            pixels = max(info["width"] * info["height"] for info in parts)
            if pixels > self._config.max_image_pixels:
                self._notes.append(
                    f"page {self._number}: a picture of {pixels} pixels was left out "
                    f"(max_image_pixels={self._config.max_image_pixels})"
                )
                continue
            digest = self._digest(parts)
            if digest not in self._seen:
                self._seen.add(digest)
                areas.append((shown, {**parts[0], "density": density}))
        kept = [box for box in drawn if not any(_share(box, area) > 0.8 for area, _ in areas)]
        areas = [(box, info) for box, info in areas if not any(_share(box, area) > 0.8 for area in kept)]
        return [*areas, *((box, None) for box in kept)][:_MOST_PICTURES]

    def _digest(self, parts: Sequence[dict[str, Any]]) -> str:
        digest = hashlib.sha1(usedforsecurity=False)
        for info in parts:
            digest.update(f"{info['width']}x{info['height']}".encode())
            if info.get("xref"):
                digest.update(self._page.parent.xref_stream_raw(info["xref"]) or b"")
            else:
                digest.update(f"{self._number}{info['bbox']}".encode())
        return digest.hexdigest()

    def _picture(
        self, box: BBox, info: dict[str, Any] | None, groups: Sequence[list[Line]], turned: list[Line], taken: set[int]
    ) -> Element:
        caption = _caption(box, [[line for line in group if id(line) not in taken] for group in groups])
        taken.update(map(id, caption))
        label_lines: list[Line] = []
        if info is None:
            labels = [line for group in groups for line in group if id(line) not in taken and _is_label(line, box)]
            taken.update(map(id, labels))
            label_lines = [*labels, *(line for line in turned if _is_label(line, box))]
            box = self._clipped(_around([box, *((line.x0, line.y0, line.x1, line.y1) for line in label_lines)]), 2)
        words = join_lines([line.text for line in caption])
        around = _surrounding(box, words, groups, taken)
        text = "\n".join(filter(None, [words, " ".join(line.text.strip() for line in label_lines)[:400], around]))
        data = self.render(box, max_zoom=_native_zoom(info)) if self.is_drawable([]) else None
        return Element("image", text, page=self._number, bbox=box, data=data, metadata={"caption": words} if words else {})


def _with_xrefs(page: Any, pictures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pictures drawn on a page, with their xrefs told by size; by the hash of their pixels only where sizes are alike."""
    stored: dict[tuple[int, int], set[int]] = {}
    for xref, _, width, height, *_ in page.get_images(full=True):
        stored.setdefault((width, height), set()).add(xref)
    for picture in pictures:
        known = stored.get((picture["width"], picture["height"]), ())
        if len(known) > 1:
            return list(page.get_image_info(xrefs=True))
        picture["xref"] = next(iter(known), 0)
    return pictures


def _native_zoom(info: dict[str, Any] | None) -> float:
    return _MAX_ZOOM if info is None else min(_MAX_ZOOM, max(info["density"], 0.1))


def _area(box: BBox) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _around(boxes: Sequence[BBox]) -> BBox:
    lefts, tops, rights, bottoms = zip(*boxes)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _printed(words: Sequence[Line]) -> float:
    return sum((line.x1 - line.x0) * (line.y1 - line.y0) for line in words)


def _share(box: BBox, area: BBox) -> float:
    """The part of `box` that lies in `area`."""
    common = (max(box[0], area[0]), max(box[1], area[1]), min(box[2], area[2]), min(box[3], area[3]))
    return _area(common) / _area(box) if common[0] < common[2] and common[1] < common[3] and _area(box) else 0.0


def _clusters(paths: Sequence[BBox]) -> list[list[BBox]]:
    """Groups of boxes that touch on a grid of `_CELL` points: linear in their number, whatever a map holds."""
    first = np.floor(np.clip(paths, 0, _MOST_POINTS) / _CELL).astype(np.intp)
    first[:, 2:] += 2  # the end of a range, and a cell of slack
    owner = [[-1] * int(first[:, 3].max()) for _ in range(int(first[:, 2].max()))]  # of each cell: a path that touches it
    parent = list(range(len(paths)))
    same: dict[tuple[int, ...], int] = {}  # half the paths of a plot cover the very cells of another

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    for at, cells in enumerate(map(tuple, first.tolist())):
        if (before := same.setdefault(cells, at)) != at:
            parent[at] = before
            continue
        left, top, right, bottom = cells
        others: set[int] = set()
        for column in owner[left:right]:
            others.update(column[top:bottom])
            column[top:bottom] = [at] * (bottom - top)
        for other in others - {-1}:
            parent[root(other)] = at
    groups: dict[int, list[BBox]] = {}
    for at, box in enumerate(paths):
        groups.setdefault(root(at), []).append(box)
    return list(groups.values())


def _joined(images: Sequence[dict[str, Any]]) -> list[tuple[BBox, list[dict[str, Any]]]]:
    """Pictures that touch are strips of one; larger first."""
    groups: list[tuple[BBox, list[dict[str, Any]]]] = []
    for info in images:
        box, members = tuple(info["bbox"]), [info]
        rest = []
        for other, group in groups:
            if box[0] - 1.5 < other[2] and other[0] - 1.5 < box[2] and box[1] - 1.5 < other[3] and other[1] - 1.5 < box[3]:
                box, members = _around([box, other]), group + members
            else:
                rest.append((other, group))
        groups = [*rest, (box, members)]
    return sorted(groups, key=lambda group: -_area(group[0]))


def _is_label(line: Line, box: BBox) -> bool:
    """Words of the drawing itself: inside it, or short and right beside it."""
    if inside(line, box, 2):
        return True
    return len(line.text.strip()) <= 25 and not _CAPTION.match(line.text) and inside(line, box, 14)


def _caption(box: BBox, groups: Sequence[Sequence[Line]]) -> list[Line]:
    """The lines of the nearest "Figure n" below the picture, or else above it."""
    best: tuple[float, list[Line]] = (60.0, [])
    for group in groups:
        for at, line in enumerate(group):
            if not _CAPTION.match(line.text) or min(line.x1, box[2]) <= max(line.x0, box[0]):
                continue
            below, above = line.y0 - box[3], box[1] - line.y1
            distance = abs(below) if below > -12 else above + 15 if above > -12 else 100.0
            if distance < best[0]:
                best = (distance, list(group[at : at + 6]))
    return best[1]


def _surrounding(box: BBox, caption: str, groups: Sequence[Sequence[Line]], taken: set[int]) -> str:
    """The sentence that speaks of the figure by its label, else the paragraph next to it, at most 300 characters."""
    left = [group for group in groups if not all(id(line) in taken for line in group)]
    if label := _CAPTION.match(caption):
        number = re.search(r"[\dA-Z]+(?:[.-]\d+)*$", label.group(1))
        mention = re.compile(
            rf"(?:fig(?:ure|\.)?|{re.escape(label.group(1)[:4])}\w*\.?)\s*{re.escape(number.group() if number else '')}\b", re.I
        )
        for group in left:
            text = join_lines([line.text for line in group if id(line) not in taken])
            if found := mention.search(text):
                start = max(text.rfind(". ", 0, found.start()) + 1, found.start() - 150, 0)
                start = start and text.find(" ", start) + 1
                return _begun(text[start:].strip())
    near = [
        (min(abs(group[-1].y1 - box[1]), abs(group[0].y0 - box[3])), group)
        for group in left
        if sum(len(line.text) for line in group) > 40
    ]
    if not near or min(near, key=lambda pair: pair[0])[0] > 80:
        return ""
    return _begun(join_lines([line.text for line in min(near, key=lambda pair: pair[0])[1]]))


def _begun(text: str) -> str:
    """The first 300 characters, in whole words where it has any."""
    if len(text) <= 300:
        return text
    words = text[:300].rpartition(" ")[0]
    return f"{words if len(words) > 200 else text[:300]} …"
