"""Picture files: sizes, turns, captions, OCR, and every kind of broken file."""

from __future__ import annotations

import importlib.util
import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin, features

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, ExtractionError, MissingExtraError, UnsupportedError
from ultrafast_rag.extract import ocr
from ultrafast_rag.extract.detect import detect
from ultrafast_rag.extract.image import ImageExtractor, holds_text, stem_words
from ultrafast_rag.models.clip.pixels import PixelSpec, decode
from ultrafast_rag.types import Element, Part

QUIET = Config(ocr=False)
needs_tesseract = pytest.mark.skipif(not ocr.available(), reason="tesseract is not installed")


def photo(width: int = 320, height: int = 200, seed: int = 0) -> Image.Image:
    """Smooth colour noise: like a photograph, no flat ground."""
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def read(path: Path, config: Config = QUIET) -> tuple[Part, Element, Image.Image]:
    (part,) = ImageExtractor(config).extract(path)
    (element,) = part.elements
    assert element.data is not None
    picture = Image.open(io.BytesIO(element.data))
    picture.load()
    return part, element, picture


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff", "a.bmp", "a.gif"])
def test_every_format_gives_one_small_picture(tmp_path: Path, name: str) -> None:
    photo(1300, 900).save(tmp_path / name)
    part, element, picture = read(tmp_path / name)
    assert element.kind == "image"
    assert element.bbox is None
    assert element.page is None
    assert element.metadata["width"] == 1300
    assert element.metadata["height"] == 900
    assert picture.size == (512, 354)
    assert picture.format in ("JPEG", "PNG")
    assert part.total == 1


def test_picture_matches_a_plain_resize(tmp_path: Path) -> None:
    source = photo(1600, 1200, seed=3)
    source.save(tmp_path / "a.jpg", quality=95)
    _, _, picture = read(tmp_path / "a.jpg")
    plain = source.resize((512, 384), Image.Resampling.LANCZOS)
    difference = np.abs(np.asarray(picture, dtype=float) - np.asarray(plain, dtype=float))
    assert difference.mean() < 2.0


def _can_write(suffix: str) -> bool:
    if suffix == "avif":
        return bool(features.check("avif"))
    if suffix == "heic" and importlib.util.find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return suffix != "heic" or importlib.util.find_spec("pillow_heif") is not None


@pytest.mark.parametrize("suffix", ["jpg", "webp", "png", "tif", "avif", "heic"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_shows_the_picture_as_the_camera_held_it(tmp_path: Path, orientation: int, suffix: str) -> None:
    if not _can_write(suffix):
        pytest.skip(f"nothing here writes {suffix}")
    upright = Image.new("RGB", (128, 64), "white")
    upright.paste((255, 0, 0), (0, 0, 32, 32))  # a red corner, top left
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{suffix}"
    stored.save(path, quality=95, exif=exif.tobytes())  # HEIC turns by boxes of its own, written from these bytes
    assert detect(path).extractor == "image"
    _, element, picture = read(path)
    assert (element.metadata["width"], element.metadata["height"]) == (128, 64)
    corner = np.asarray(picture.convert("RGB"))[8, 8]
    assert corner[0] > 200
    assert corner[1] < 60
    asked = decode(path.read_bytes(), PixelSpec(64, 64, squash=True), max_pixels=10**6)  # as a question's picture
    assert asked[4, 4, 0] > 200
    assert asked[4, 4, 1] < 60
    assert asked[60, 60].min() > 200


def test_alpha_is_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    _, _, picture = read(tmp_path / "clear.png")
    assert picture.convert("RGB").getpixel((20, 20)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "I;16", "I", "F", "YCbCr"])
def test_unusual_pixel_modes_are_read(tmp_path: Path, mode: str) -> None:
    ramp = np.linspace(0, 255, 64 * 48).reshape(48, 64)
    if mode == "I;16":
        picture = Image.fromarray((ramp * 257).astype(np.uint16))
    elif mode in ("I", "F"):
        picture = Image.fromarray(ramp.astype(np.int32 if mode == "I" else np.float32))
    else:
        picture = Image.fromarray(ramp.astype(np.uint8)).convert(mode)
    picture.save(tmp_path / "a.tif")
    _, _, shown = read(tmp_path / "a.tif")
    grey = np.asarray(shown.convert("L"), dtype=float)
    assert grey[:8].mean() < grey[-8:].mean()


def test_text_holds_name_and_embedded_description(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Description", "Rainfall in  Lisbon,\nmonth by month")
    photo().save(tmp_path / "rain_chartLisbon-2024.png", pnginfo=info)
    part, element, _ = read(tmp_path / "rain_chartLisbon-2024.png")
    assert element.text == "rain chart Lisbon 2024\nRainfall in Lisbon, month by month"
    assert part.title == "rain chart Lisbon 2024"


def test_exif_description_is_read_and_camera_boilerplate_is_not(tmp_path: Path) -> None:
    for name, description in (("IMG_0001.jpg", "A red kite over the bay"), ("IMG_0002.jpg", "OLYMPUS DIGITAL CAMERA")):
        exif = Image.Exif()
        exif[270] = description
        photo().save(tmp_path / name, exif=exif)
    assert read(tmp_path / "IMG_0001.jpg")[1].text == "A red kite over the bay"
    assert read(tmp_path / "IMG_0002.jpg")[1].text == "IMG_0002"


def test_stem_words_reads_as_a_person_would() -> None:
    assert stem_words(Path("x/salesByRegion_q3.final.png")) == "sales By Region q3 final"


def written(tmp_path: Path) -> Path:
    picture = Image.new("RGB", (900, 300), "white")
    font = ImageFont.load_default(size=44)
    ImageDraw.Draw(picture).text((40, 60), "Quarterly revenue\nrose to 417 million", fill="black", font=font)
    picture.save(tmp_path / "slide.png")
    return tmp_path / "slide.png"


@needs_tesseract
def test_ocr_text_joins_the_caption(tmp_path: Path) -> None:
    _, element, _ = read(written(tmp_path), Config())
    assert "Quarterly revenue" in element.text
    assert "417 million" in element.text


@needs_tesseract
@pytest.mark.parametrize("turn", [90, 180, 270])
def test_ocr_reads_a_page_that_lies_on_its_side_or_upside_down(tmp_path: Path, turn: int) -> None:
    page = Image.new("RGB", (1240, 900), "white")
    lines = [f"Line {n}: the keeper of the lamp writes down the tide at {n + 3} in the morning" for n in range(1, 11)]
    ImageDraw.Draw(page).text((60, 40), "\n".join(lines), fill="black", font=ImageFont.load_default(size=28), spacing=24)
    page.rotate(turn, expand=True).save(tmp_path / "page.png")
    _, element, _ = read(tmp_path / "page.png", Config())
    assert sum("keeper of the lamp writes down the tide" in line for line in element.text.splitlines()) >= 9


@needs_tesseract
def test_ocr_leaves_out_a_drawing_taken_for_letters_and_keeps_a_page_that_is_faint() -> None:
    def table(sure: float) -> str:
        lines = [("ARE CLOSED to visitors", sure), ("an ha", 40), ("Keep 15 metres", sure)]
        words = [(n, word, p) for n, (line, p) in enumerate(lines) for word in line.split()]
        return "\n".join(["head", *(f"5\t1\t1\t1\t{n}\t1\t0\t0\t9\t9\t{p}\t{word}" for n, word, p in words)])

    assert ocr._from_table(table(96)).text == "ARE CLOSED to visitors\nKeep 15 metres"
    assert "an ha" in ocr._from_table(table(45)).text


def test_ocr_makes_no_words_of_texture() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 2, (300, 400), dtype=np.uint8) * 255).save(buffer, "PNG")
    assert ocr.ocr(buffer.getvalue(), language="eng", timeout_s=30) == ""


@needs_tesseract
def test_ocr_says_what_to_do_when_the_language_is_missing(tmp_path: Path) -> None:
    part, element, _ = read(written(tmp_path), Config(ocr_language="xyz"))
    assert element.text == "slide"
    assert "tesseract-ocr-xyz" in part.notes[0]


def test_without_tesseract_the_notes_say_what_stays_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ocr.available.cache_clear()
    try:
        part, element, _ = read(written(tmp_path), Config())
    finally:
        monkeypatch.undo()
        ocr.available.cache_clear()
    assert element.text == "slide"
    assert "tesseract is not installed" in part.notes[0]


def test_photographs_are_not_sent_to_ocr(tmp_path: Path) -> None:
    assert not holds_text(photo(800, 600))
    assert holds_text(Image.open(written(tmp_path)))


def test_multi_page_tiff_is_a_part_a_page_and_resumes(tmp_path: Path) -> None:
    pages = [photo(seed=n) for n in range(4)]
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    extractor = ImageExtractor(QUIET)
    parts = list(extractor.extract(tmp_path / "scan.tif"))
    assert [part.number for part in parts] == [0, 1, 2, 3]
    assert [part.elements[0].page for part in parts] == [1, 2, 3, 4]
    assert {part.total for part in parts} == {4}
    assert len({part.elements[0].data for part in parts}) == 4
    assert list(extractor.extract(tmp_path / "scan.tif", start_part=2)) == parts[2:]
    assert list(extractor.extract(tmp_path / "scan.tif", start_part=4)) == []


def png_header(width: int, height: int) -> bytes:
    def block(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + block(b"IHDR", header) + block(b"IDAT", zlib.compress(b"\0" * 1000)) + block(b"IEND", b"")


@pytest.mark.fault
@pytest.mark.parametrize("side", [8_000, 12_000, 50_000])  # under Pillow's own warning, over it, over its error
def test_huge_header_is_refused_before_a_pixel_is_decoded(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    tracemalloc.start()
    with pytest.raises(CorruptError, match="max_image_pixels"):
        list(ImageExtractor(QUIET).extract(tmp_path / "bomb.png"))
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.fault
def test_gif_bomb_costs_one_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Image.new("P", (50, 50), n % 256) for n in range(600)]
    frames[0].save(tmp_path / "bomb.gif", save_all=True, append_images=frames[1:], duration=10)
    from PIL import GifImagePlugin

    sought: list[int] = []
    seek = GifImagePlugin.GifImageFile._seek

    def counted(self: GifImagePlugin.GifImageFile, frame: int, update_image: bool = True) -> None:
        sought.append(frame)
        seek(self, frame, update_image)

    monkeypatch.setattr(GifImagePlugin.GifImageFile, "_seek", counted)
    (part,) = ImageExtractor(QUIET).extract(tmp_path / "bomb.gif")
    assert part.elements[0].data
    assert max(sought) == 0


@pytest.mark.fault
def test_truncated_jpeg_keeps_what_is_there_and_says_so(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    photo(800, 600, seed=5).save(buffer, "JPEG", quality=95)
    whole = buffer.getvalue()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    part, _, picture = read(tmp_path / "cut.jpg")
    assert "cut short" in part.notes[0]
    top = np.asarray(picture, dtype=float)[:100]
    plain = np.asarray(photo(800, 600, seed=5).resize(picture.size), dtype=float)[:100]
    assert np.abs(top - plain).mean() < 4


@pytest.mark.fault
@pytest.mark.parametrize("kept", [0, 1, 3, 20, 160])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_header_fragments_raise_typed_errors(tmp_path: Path, kind: str, kept: int) -> None:
    buffer = io.BytesIO()
    photo(400, 300).save(buffer, kind)
    (tmp_path / f"a.{kind.lower()}").write_bytes(buffer.getvalue()[:kept])
    with pytest.raises(ExtractionError) as caught:
        list(ImageExtractor(QUIET).extract(tmp_path / f"a.{kind.lower()}"))
    assert caught.value.path


@pytest.mark.fault
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_flipped_bytes_never_escape_as_foreign_errors(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    photo(120, 90).save(buffer, kind)
    rng = np.random.default_rng(11)
    for trial in range(40):
        damaged = bytearray(buffer.getvalue())
        for spot in rng.integers(0, min(len(damaged), 600 if trial % 2 else len(damaged)), 6):
            damaged[spot] = int(rng.integers(0, 256))
        (tmp_path / "a.img").write_bytes(bytes(damaged))
        try:
            parts = list(ImageExtractor(QUIET).extract(tmp_path / "a.img"))
        except (ExtractionError, MissingExtraError):
            continue
        assert all(part.failure or part.elements for part in parts)


@pytest.mark.fault
def test_not_a_picture_and_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"%PDF-1.7 and more text than a header holds")
    with pytest.raises(UnsupportedError, match="JPEG"):
        list(ImageExtractor(QUIET).extract(tmp_path / "a.jpg"))
    with pytest.raises(ExtractionError, match="cannot be read"):
        list(ImageExtractor(QUIET).extract(tmp_path / "none.jpg"))


def test_heic_without_its_extra_names_the_command(tmp_path: Path) -> None:
    try:
        import pillow_heif
    except ImportError:
        (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 40)
        with pytest.raises(MissingExtraError, match="heic"):
            list(ImageExtractor(QUIET).extract(tmp_path / "a.heic"))
    else:
        pillow_heif.register_heif_opener()
        photo().save(tmp_path / "a.heic")
        assert read(tmp_path / "a.heic")[1].metadata["width"] == 320


@pytest.mark.public
def test_every_public_photograph_is_read() -> None:
    folder = os.environ.get("UFR_TEST_DATA")
    if not folder:
        pytest.skip("UFR_TEST_DATA is not set")
    files = sorted((Path(folder) / "images").rglob("*.jpg"))
    assert len(files) == 44
    for path in files:
        _, element, picture = read(path)
        with Image.open(path) as whole:
            assert (element.metadata["width"], element.metadata["height"]) == whole.size
        assert max(picture.size) <= 512
