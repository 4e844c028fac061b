"""Picture files -> one small picture each, with the words that belong to it.

The size is read from the header and checked before a pixel is decoded. JPEGs are decoded at the
scale that is needed (1/2, 1/4, 1/8), which is most of the speed. A picture carries no bbox: the
whole file is the evidence. Multi-page TIFFs are scans, so each page is a part; of any other
animation the first frame stands for all.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, ExtractionError, UnsupportedError, require
from ultrafast_rag.extract import ocr
from ultrafast_rag.types import Element, Part

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile as OpenedImage

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_MAX_PAGES = 500  # of a TIFF; a scan longer than a book is a loop in the file
_MAX_WORDS_CHARS = 4000  # of OCR kept per picture
OCR_PX = 2400  # longest side handed to tesseract: A4 at about 200 dpi
_JPEG_QUALITY = 88  # chosen: Pillow's default of 75 saves a third of the bytes, 95 costs two thirds more (12 photographs)

_EXIF_TEXT = {270: "utf-8", 40091: "utf-16-le", 40095: "utf-16-le", 40092: "utf-16-le", 40094: "utf-16-le"}
_PNG_TEXT = ("Title", "Description", "Caption", "Comment", "comment", "Subject", "Keywords")
_IPTC_TEXT = ((2, 5), (2, 105), (2, 120))  # title, headline, caption
_CAMERA_NAME = re.compile(r"(?i)^(img|dsc|dscn|dscf|pxl|mvi|p|screenshot|image|photo|scan|whatsapp image)?[\s_-]*[\d\s_.:-]*$")
_CAMERA_TEXT = {"olympus digital camera", "sony dsc", "digital camera", "ascii", "created with gimp", "exif_jpeg_t420", ""}
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF orientation -> Pillow's Transpose that undoes it
# Pillow lets its decoders' own errors through: each of these comes from a broken file.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    ArithmeticError,
    AttributeError,
    MemoryError,
    struct.error,
    zlib.error,
)
_truncated_lock = threading.Lock()


class ImageExtractor:
    """ports.Extractor for picture files."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """Yield one part with one "image" element; one part per page for a multi-page TIFF.

        The element's text is the file's name in words, its embedded title or description and, where
        the picture seems to hold text and tesseract is there, that text. metadata: width, height
        (as seen, after EXIF rotation), format. Raises CorruptError, UnsupportedError,
        MissingExtraError (heic), ExtractionError when the file is not there.
        """
        path = Path(path)
        picture = open_picture(path, self.config.max_image_pixels)
        with contextlib.closing(picture):
            pages, broken = _page_count(picture)
            for number in range(start_part, pages):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # Pillow warns of each oddity; what matters is raised or noted
                    part = self._part(path, picture, number, pages)
                yield replace(part, notes=(*part.notes, broken)) if broken and number == pages - 1 else part

    def _part(self, path: Path, picture: OpenedImage, number: int, pages: int) -> Part:
        page = number + 1 if pages > 1 else None
        title = stem_words(path)
        try:
            if number:
                _seek(picture, number, path, self.config.max_image_pixels)
            seen, size, notes = self._decode(path, picture, number)
        except CorruptError as error:
            if pages == 1:
                raise
            return Part(number, title=title, total=pages, failure=str(error))
        words, unread = words_in(seen, self.config, timeout_s=0.6 * self.config.page_timeout_s)  # the worker's own limit is later
        if unread:
            notes.append(f"the picture seems to hold text, which stays unread: {unread}")
        name = "" if _CAMERA_NAME.match(path.stem) else title
        text = "\n".join(dict.fromkeys(line for line in [name, *_embedded_text(picture), words] if line)) or path.stem
        element = Element(
            "image",
            text,
            page=page,
            data=encode_small(seen, self.config.image_px),
            metadata={"width": size[0], "height": size[1], "format": picture.format or ""},
        )
        return Part(number, (element,), title=title, total=pages, notes=tuple(notes))

    def _decode(self, path: Path, picture: OpenedImage, number: int) -> tuple[Image, tuple[int, int], list[str]]:
        # OCR reads fine print, so it needs more pixels than the stored picture does.
        longest = max(self.config.image_px, OCR_PX if reads_text(self.config) else 0)
        size, notes = picture.size, []
        try:
            seen = upright_rgb(picture, longest)
        except _BROKEN as error:
            seen = _decode_truncated(path, number, longest, self.config.max_image_pixels, error)
            notes = [f"{path.name} is cut short; what could be decoded is kept"]
        turned = _exif(picture).get(274) in (5, 6, 7, 8)
        return seen, size[::-1] if turned else size, notes


def open_picture(path: Path, max_pixels: int) -> OpenedImage:
    """Read the header only. Raises CorruptError over `max_pixels` or for a broken header."""
    from PIL import Image as PillowImage
    from PIL import UnidentifiedImageError

    head = _head(path)
    formats = _formats(head, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns where we raise
            picture = PillowImage.open(path, formats=formats)
    except UnidentifiedImageError as error:
        known = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")
        if head.startswith(known) or head[4:8] == b"ftyp":
            raise CorruptError(f"{path.name}: the picture's header is broken", path=str(path)) from error
        raise UnsupportedError(f"{path.name} is not a {', '.join(FORMATS)} picture", path=str(path)) from error
    except PillowImage.DecompressionBombError as error:
        raise CorruptError(_too_large(path, str(error).split("(", 1)[-1].split(" ", 1)[0], max_pixels), path=str(path)) from error
    except _BROKEN as error:
        raise CorruptError(f"{path.name}: the picture's header is broken: {error}", path=str(path)) from error
    _check_size(picture, path, max_pixels)
    return picture


def _formats(head: bytes, path: Path) -> list[str]:
    """Pillow's names of what it may be. Raises MissingExtraError for HEIC, UnsupportedError for an AVIF without a reader."""
    if head[4:8] != b"ftyp":
        return list(FORMATS)
    if b"avif" in head[8:] or b"avis" in head[8:]:
        from PIL import features

        if not features.check("avif"):
            raise UnsupportedError(f"{path.name} is AVIF, which this Pillow does not read: pip install -U pillow", path=str(path))
        return ["AVIF"]
    if head[8:12] in _HEIF_BRANDS:
        require("pillow_heif", package="pillow-heif", extra="heic").register_heif_opener()
        return ["HEIF"]
    return list(FORMATS)


def upright_rgb(picture: Image, longest_px: int) -> Image:
    """RGB, turned as EXIF says, alpha laid on white, no side over longest_px; may change `picture`."""
    from PIL import Image as PillowImage

    if picture.format in ("JPEG", "MPO"):
        picture.draft(None, (2 * longest_px, 2 * longest_px))
    picture.load()
    rgb = _rgb(picture)
    if max(rgb.size) > longest_px:
        scale = longest_px / max(rgb.size)
        target = (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
        rgb = rgb.resize(target, PillowImage.Resampling.LANCZOS, reducing_gap=2.0)
    turn = _TURNS.get(_exif(picture).get(274, 1))
    return rgb.transpose(PillowImage.Transpose(turn)) if turn is not None else rgb.copy() if rgb is picture else rgb


def encode_small(picture: Image, longest_px: int) -> bytes:
    """PNG for drawings of few colours, JPEG for everything else, no side over longest_px."""
    from PIL import Image as PillowImage

    small = picture
    if max(picture.size) > longest_px:
        small = picture.copy()
        small.thumbnail((longest_px, longest_px), PillowImage.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    if small.getcolors(256) is not None:
        small.save(buffer, "PNG", compress_level=6)
    else:
        small.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def holds_text(picture: Image) -> bool:
    """Whether a picture looks drawn or written rather than photographed: worth a second of OCR.

    Text and charts are strokes on a flat ground: many pixels without any gradient, some with a
    strong one. Photographs have few of the former; see tests for the pictures it was set on.
    """
    import numpy as np

    grey = picture.convert("L")
    if max(grey.size) > 1024:
        grey = grey.copy()
        grey.thumbnail((1024, 1024), reducing_gap=2.0)
    pixels = np.asarray(grey, dtype=np.int16)
    if min(pixels.shape) < 16:  # no letter is smaller
        return False
    across = np.abs(np.diff(pixels, axis=1))
    return bool((across <= 2).mean() > 0.6 and (across > 48).mean() > 0.004)


def reads_text(config: Config) -> bool:
    """Whether text in pictures is wanted and can be read here."""
    return config.ocr and ocr.available()


def words_in(picture: Image, config: Config, *, timeout_s: float) -> tuple[str, str]:
    """Text in a picture that looks as if it held any, and why it could not be read; both "" for a photograph."""
    if not config.ocr or not holds_text(picture):
        return "", ""
    if not ocr.available():
        return "", "tesseract is not installed (apt-get install tesseract-ocr)"
    buffer = io.BytesIO()
    picture.convert("L").save(buffer, "PNG", compress_level=1)
    try:
        words = ocr.ocr(buffer.getvalue(), language=config.ocr_language, timeout_s=timeout_s)
    except ExtractionError as error:
        return "", str(error)
    return "\n".join(line for line in words.splitlines() if _is_worded(line))[:_MAX_WORDS_CHARS], ""


def stem_words(path: Path) -> str:
    """'rainfall_byMonth-2024.png' -> 'rainfall by Month 2024'."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", path.stem)
    return " ".join(re.split(r"[\s_.+-]+", words)).strip() or path.stem


def _is_worded(line: str) -> bool:
    # Texture read as text comes out as stray marks: '| ~ . o'.
    return sum(letter.isalnum() for letter in line) >= max(2, 0.5 * len(line))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError as error:
        raise ExtractionError(f"{path.name} cannot be read: {error.strerror}", path=str(path)) from error
    if not head:
        raise CorruptError(f"{path.name} is empty", path=str(path))
    return head


def _check_size(picture: Image, path: Path, max_pixels: int) -> None:
    if picture.width * picture.height > max_pixels:
        raise CorruptError(_too_large(path, str(picture.width * picture.height), max_pixels), path=str(path))


def _too_large(path: Path, pixels: str, max_pixels: int) -> str:
    return (
        f"{path.name} says it has {pixels} pixels, over the limit of {max_pixels}: "
        "scale it down, or raise Config.max_image_pixels"
    )


def _page_count(picture: OpenedImage) -> tuple[int, str]:
    """Pages of a TIFF, 1 of anything else; and why there may be more, where the list of them is broken."""
    if picture.format != "TIFF":
        return 1, ""
    pages = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            while pages < _MAX_PAGES:
                picture.seek(pages)
                pages += 1
        except EOFError:
            broken = ""
        except _BROKEN as error:
            broken = f"the list of pages is broken after page {pages}: {' '.join(str(error).split())}"
        else:
            broken = f"only the first {pages} pages were read"
        picture.seek(0)
    return pages, broken


def _seek(picture: Image, number: int, path: Path, max_pixels: int) -> None:
    try:
        picture.seek(number)
    except _BROKEN as error:
        raise CorruptError(f"page {number + 1} of {path.name} is broken: {error}", path=str(path), page=number + 1) from error
    _check_size(picture, path, max_pixels)


def _decode_truncated(path: Path, number: int, longest_px: int, max_pixels: int, cause: Exception) -> Image:
    from PIL import ImageFile

    # The switch is the module's, hence the lock: readers in threads must not see it flip.
    with _truncated_lock:
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            with contextlib.closing(open_picture(path, max_pixels)) as again:
                if number:
                    _seek(again, number, path, max_pixels)
                picture = upright_rgb(again, longest_px)
        except _BROKEN as error:
            raise CorruptError(f"{path.name} cannot be decoded: {' '.join(str(cause).split())}", path=str(path)) from error
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
    if len(picture.getcolors(2) or [0, 0]) == 1:  # nothing but the decoder's filling
        raise CorruptError(f"{path.name} cannot be decoded: {' '.join(str(cause).split())}", path=str(path)) from cause
    return picture


def _rgb(picture: Image) -> Image:
    from PIL import Image as PillowImage

    if picture.mode.startswith("I") or picture.mode == "F":
        return _eight_bit(picture).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        ground = PillowImage.new("RGBA", layered.size, "white")
        return PillowImage.alpha_composite(ground, layered).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _eight_bit(picture: Image) -> Image:
    import numpy as np
    from PIL import Image as PillowImage

    values = np.asarray(picture, dtype=np.float32)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = (0.0, 65535.0) if picture.mode.startswith("I;16") else (float(values.min()), float(values.max()))
    if picture.mode == "I" and low >= 0 and high > 255:
        low, high = 0.0, max(high, 65535.0)
    return PillowImage.fromarray(((values - low) * (255.0 / max(high - low, 1e-6))).clip(0, 255).astype(np.uint8))


def _exif(picture: Image) -> Mapping[int, Any]:
    try:
        return picture.getexif()
    except _BROKEN:  # a broken block turns no picture and names nothing
        return {}


def _embedded_text(picture: OpenedImage) -> list[str]:
    """Title, description and keywords that the file itself carries, in words, each once."""
    found: list[Any] = [picture.info.get(name) for name in _PNG_TEXT]
    exif = _exif(picture)
    found += [_decoded(exif.get(tag), encoding) for tag, encoding in _EXIF_TEXT.items()]
    if picture.format in ("JPEG", "MPO", "TIFF"):
        from PIL import IptcImagePlugin

        with contextlib.suppress(*_BROKEN):  # a broken block is no caption
            iptc = IptcImagePlugin.getiptcinfo(picture) or {}
            found += [_decoded(iptc.get(key), "utf-8") for key in _IPTC_TEXT]
    words = [" ".join(_decoded(value, "utf-8").split())[:1000] for value in found if value]
    return [text for text in dict.fromkeys(words) if text.lower() not in _CAMERA_TEXT]


def _decoded(value: Any, encoding: str) -> str:
    if isinstance(value, tuple):
        value = bytes(value) if all(isinstance(byte, int) and 0 <= byte < 256 for byte in value) else b""
    text = value.decode(encoding, "ignore") if isinstance(value, bytes) else value if isinstance(value, str) else ""
    return "".join(letter for letter in text if letter.isprintable() or letter.isspace()).strip()
