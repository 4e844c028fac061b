"""Hit -> something to see or hear: the page around the passage, the picture, the clip at its second.

Renders happen here and only when a card asks, in a worker process: a hostile page can at worst end
that worker. Of a file that moved or changed, what was stored is shown, and the caption says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ultrafast_rag.errors import UltraFastRAGError
from ultrafast_rag.ports import DocumentReader
from ultrafast_rag.types import Evidence, Hit, Leaf

CROP_PX = 760  # the width of a card
PAGE_PX = 1300  # the longer side of a whole page: 8-point type stays readable
SOUND_S, FILM_S = 15.0, 5.0  # of a recording or film at most
CLIP_BYTES = 30_000  # what a card of three pieces of evidence has room for
STILL_PX = 480  # two thirds of a card's width: a film's frame needs no more
SOUND_BYTES, LEAST_SOUND_S = 2_000, 2.0  # a second of speech at the least rate that stays clear (and 1 kB for the container)


class EvidenceFinder:
    """Called with a hit; remembers nothing.

    call: runs `module.function` of the extractors with JSON arguments in a worker process, and gives back its bytes.
    place: where the file of a source lies; for an address, the copy that was kept of it.
    own: whether the index was made on this machine: of another's only what is stored is shown, no file that it names.
    """

    def __init__(
        self,
        store: DocumentReader,
        call: Callable[..., bytes],
        place: Callable[[str], Path] = Path,
        *,
        own: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store, self._call, self._place, self._own = store, call, place, own

    def __call__(self, hit: Hit) -> Evidence | None:
        """What to show for a hit, or None; never raises for a file that is gone or broken."""
        try:
            if hit.modality == "image":
                return self._asset(hit)
            path = self._place(hit.source)
            if not self._own():
                return self._gone(hit, path, "was read on another machine (ingest it here to see it)")
            if not self._unchanged(hit, path):
                there = path.is_absolute() and path.exists()
                return self._gone(hit, path, "has changed since it was read" if there else "is not here any more")
            if hit.page is not None:
                document = self._store.document(hit.document_id)
                return self._crop(hit, path) if document and document.media_type == "application/pdf" else None
            if hit.start_s is not None:
                return self._clip(hit, path)
            return None
        except (UltraFastRAGError, OSError):
            return None

    def leaf(self, hit: Hit, number: int | None = None) -> Leaf:
        """The whole page of a hit with the passage marked, or another page of its document; else what a card shows.

        number is cut to the document's pages.
        """
        path, document = self._place(hit.source), self._store.document(hit.document_id)
        is_pdf = document is not None and document.media_type == "application/pdf"
        if hit.page is None or document is None or not is_pdf or not self._own() or not self._unchanged(hit, path):
            return Leaf(self(hit))
        pages = max(document.parts, hit.page)
        number = min(max(1, hit.page if number is None else number), pages)
        box = list(hit.bbox) if hit.bbox and number == hit.page else None
        options: dict[str, Any] = {"path": str(path), "page": number, "bbox": box, "quote": hit.focus if box else ""}
        try:
            data = self._call("pdf.crop.crop_page", **options, max_px=PAGE_PX, whole=True)
        except UltraFastRAGError as error:
            return Leaf(Evidence("text/plain", b"", caption=f"page {number} cannot be shown: {error}"), number, pages)
        return Leaf(Evidence("image/jpeg", data, caption=f"{path.name}, page {number} of {pages}"), number, pages)

    def _unchanged(self, hit: Hit, path: Path) -> bool:
        """Whether the file is still the one that was read: a crop of another one would prove nothing."""
        if not path.is_absolute():
            return False  # a restored index knows its sources by name: a file of that name here is another
        try:
            stat = path.stat()
        except OSError:
            return False
        return self._store.unchanged(hit.source, (stat.st_size, stat.st_mtime_ns))

    def _gone(self, hit: Hit, path: Path, what: str) -> Evidence | None:
        """What was stored of a file that moved or changed since, and words that say so; None for text without a file."""
        stored = self._asset(hit)
        if stored is None and not path.suffix:
            return None  # a passage given as text: nothing is missing
        shown = "this is what was stored of it" if stored else "the text above is what was stored of it"
        words = f"{hit.where}: {path.name} {what}; {shown}"
        return replace(stored, caption=words) if stored else Evidence("text/plain", b"", caption=words)

    def _asset(self, hit: Hit) -> Evidence | None:
        chunks = self._store.chunks([hit.chunk_id])
        data = self._store.asset(chunks[0].asset) if chunks and chunks[0].asset else None
        if data is None:
            return None
        return Evidence(shown_type(data), data, caption=hit.where)

    def _crop(self, hit: Hit, path: Path) -> Evidence:
        box = list(hit.bbox) if hit.bbox else None
        options: dict[str, Any] = {"path": str(path), "page": hit.page, "bbox": box, "quote": hit.focus, "max_px": CROP_PX}
        data = self._call("pdf.crop.crop_page", **options)
        return Evidence("image/jpeg", data, caption=hit.where)

    def _clip(self, hit: Hit, path: Path, most_bytes: int = CLIP_BYTES) -> Evidence | None:
        """The stretch as a player; where a film's does not fit a card, the frame that was found, or the one at its moment."""
        start_s, film = hit.moment_s or 0.0, hit.modality == "video"
        longest_s = FILM_S if film else max(LEAST_SOUND_S, min(SOUND_S, (most_bytes - 1_000) / SOUND_BYTES))
        end_s = min(hit.end_s or start_s + longest_s, start_s + longest_s)
        data = self._call("media.clip.clip_bytes", path=str(path), start_s=start_s, end_s=end_s, most_bytes=most_bytes)
        if film and len(data) > most_bytes:
            if (matched := self._asset(hit)) is not None:
                return matched
            data = self._call("media.frames.frame_at", path=str(path), second=start_s, max_px=STILL_PX)
            return Evidence(shown_type(data), data, caption=hit.where)
        shorter = partial(self._smaller, hit, path)
        return Evidence(shown_type(data), data, caption=hit.where, smaller=shorter) if data else None

    def _smaller(self, hit: Hit, path: Path, most_bytes: int) -> Evidence | None:
        try:
            return self._clip(hit, path, most_bytes)
        except UltraFastRAGError:
            return None


def shown_type(data: bytes) -> str:
    """Of what the store keeps and the extractors make, by its first bytes."""
    if data[4:8] == b"ftyp":
        return "video/mp4"
    starts = {b"\x89PNG": "image/png", b"\xff\xd8": "image/jpeg", b"RIFF": "audio/wav"}
    return next((kind for start, kind in starts.items() if data.startswith(start)), "audio/mpeg")
