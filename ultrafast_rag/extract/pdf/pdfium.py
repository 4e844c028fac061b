"""PDF text by pypdfium2 (Apache-2.0 / BSD), where PyMuPDF's AGPL cannot be accepted: paragraphs only, no pictures or tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, EncryptedError, require
from ultrafast_rag.types import Element, Part


class PdfiumExtractor:
    """One part a page with its text, blank lines parting paragraphs."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._pdfium = require("pypdfium2", extra="pypdfium")

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """Pages from `start_part` + 1 on. Raises CorruptError and EncryptedError."""
        try:
            document = self._pdfium.PdfDocument(path)
        except self._pdfium.PdfiumError as error:
            if "password" in str(error).lower():
                raise EncryptedError(
                    f"{path.name} needs a password; save a copy without one and ingest that", path=str(path)
                ) from error
            raise CorruptError(f"{path.name} is not a PDF that can be read: {error}", path=str(path)) from error
        try:
            total = len(document)
            if total == 0:
                raise CorruptError(f"{path.name} has no pages", path=str(path))
            title = str(document.get_metadata_dict().get("Title") or "").strip() or path.stem
            for number in range(start_part, total):
                yield self._part(document, number, total, title)
        finally:
            document.close()

    def _part(self, document: object, number: int, total: int, title: str) -> Part:
        try:
            page = document[number]  # type: ignore[index]
            try:
                text = page.get_textpage().get_text_bounded()
            finally:
                page.close()
        except self._pdfium.PdfiumError as error:
            return Part(number, title=title, total=total, failure=f"page {number + 1} could not be read: {error}")
        blocks = [" ".join(block.split()) for block in text.replace("\r\n", "\n").split("\n\n")]
        elements = tuple(Element("text", block, page=number + 1) for block in blocks if block)
        notes = () if elements else (f"page {number + 1} has no text layer; PyMuPDF and tesseract would read it",)
        return Part(number, elements, title=title, total=total, notes=notes)
