"""Encoded pictures -> the pixels a CLIP tower wants: decode, scale, crop. Normalising is the device's.

Follows CLIPImageProcessor (bicubic, shortest side, centre crop). JPEGs are decoded at a scale close to
the one needed, never below twice the target, which keeps the result within rounding of a full decode.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ultrafast_rag.errors import CorruptError, WeightsError, require

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
Pixels = npt.NDArray[np.uint8]
# of the pictures that CLIP was trained on, by colour (its own preprocessing)
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_BROKEN = (OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, ArithmeticError, MemoryError)


@dataclass(frozen=True, slots=True)
class PixelSpec:
    """What a tower was trained on. side: of the square crop; edge: shortest side before it; squash: no crop."""

    side: int
    edge: int
    squash: bool = False
    resample: int = 3  # Pillow's BICUBIC
    mean: tuple[float, ...] = _CLIP_MEAN
    std: tuple[float, ...] = _CLIP_STD

    @classmethod
    def read(cls, folder: Path, image_size: int) -> PixelSpec:
        """From preprocessor_config.json; without one, CLIP's own values at the tower's image_size."""
        path = folder / "preprocessor_config.json"
        if not path.is_file():
            return cls(image_size, image_size)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            size, crop = found.get("size", image_size), found.get("crop_size", image_size)
            squash = isinstance(size, dict) and "height" in size
            edge = (size.get("shortest_edge") or size["height"]) if isinstance(size, dict) else size
            side = crop["height"] if isinstance(crop, dict) else crop
            return cls(
                int(image_size if squash else side),
                int(edge),
                squash,
                int(found.get("resample", 3)),
                tuple(found.get("image_mean", _CLIP_MEAN)),
                tuple(found.get("image_std", _CLIP_STD)),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(f"{path} cannot be read: {error}") from error

    @classmethod
    def from_open_clip(cls, image_size: int, settings: Mapping[str, Any]) -> PixelSpec:
        """From open_clip's preprocess_cfg: mean, std, interpolation, resize_mode."""
        squash = settings.get("resize_mode", "shortest") == "squash"
        resample = 2 if settings.get("interpolation") == "bilinear" else 3
        mean, std = settings.get("mean") or _CLIP_MEAN, settings.get("std") or _CLIP_STD
        return cls(image_size, image_size, squash, resample, tuple(mean), tuple(std))


def decode(image: bytes, spec: PixelSpec, *, max_pixels: int) -> Pixels:
    """uint8 (side, side, 3). Raises CorruptError when the picture cannot be decoded or has over max_pixels.

    MissingExtraError for HEIC without its extra: a question's picture comes as it is, an index holds JPEG and PNG.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns where we raise
            with Image.open(io.BytesIO(image), formats=_formats(image)) as picture:
                if picture.width * picture.height > max_pixels:
                    size = f"{picture.width} x {picture.height}"
                    raise CorruptError(f"the picture has {size} pixels, over the limit of {max_pixels}")
                picture.draft("RGB", (2 * spec.edge, 2 * spec.edge))
                rgb = ImageOps.exif_transpose(_on_white(picture))  # a query may come straight from a phone
    except UnidentifiedImageError as error:
        raise CorruptError("the bytes are no picture; give one as jpg, png, webp, tiff, bmp, gif, avif or heic") from error
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise CorruptError(f"the picture cannot be decoded: {error}") from error
    return _fitted(rgb, spec)


def _formats(image: bytes) -> list[str]:
    if image[4:8] != b"ftyp":
        return list(FORMATS)
    if any(brand in image[8:32] for brand in (b"avif", b"avis")):
        return ["AVIF"]
    require("pillow_heif", package="pillow-heif", extra="heic").register_heif_opener()
    return ["HEIF"]


def _on_white(picture: Any) -> Any:
    from PIL import Image

    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return picture.convert("RGB") if picture.mode != "RGB" else picture.copy()


def _fitted(rgb: Any, spec: PixelSpec) -> Pixels:
    if spec.squash:
        width = height = spec.edge
    elif rgb.width <= rgb.height:
        width, height = spec.edge, max(spec.edge, int(spec.edge * rgb.height / rgb.width))
    else:
        width, height = max(spec.edge, int(spec.edge * rgb.width / rgb.height)), spec.edge
    if max(width, height) > 8 * min(width, height):  # a strip: what the crop cannot reach need not be scaled
        rgb = _middle(rgb, 8)
        return _fitted(rgb, spec)
    scaled = rgb if rgb.size == (width, height) else rgb.resize((width, height), spec.resample)
    pixels = np.zeros((spec.side, spec.side, 3), np.uint8)
    found = np.asarray(scaled)
    top, left = max(0, (height - spec.side) // 2), max(0, (width - spec.side) // 2)
    found = found[top : top + spec.side, left : left + spec.side]
    low, right = (spec.side - found.shape[0]) // 2, (spec.side - found.shape[1]) // 2
    pixels[low : low + found.shape[0], right : right + found.shape[1]] = found
    return pixels


def _middle(rgb: Any, ratio: int) -> Any:
    short = min(rgb.size)
    half = short * ratio // 4
    x, y = rgb.width // 2, rgb.height // 2
    box = (max(0, x - half), max(0, y - half), min(rgb.width, x + half), min(rgb.height, y + half))
    return rgb.crop(box)
