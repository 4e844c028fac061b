"""One folder of broken and mislabelled pictures, recordings and films: a line in the report each, and the batch goes on."""

from __future__ import annotations

import importlib.util
import io
import struct
import wave
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, features

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.monitor import peak_rss_mb

PIXELS = 2_000_000  # max_image_pixels of this file's runs, so that a bomb can be small


def photo(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def huge_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def gif_bomb(side: int, frames: int) -> bytes:
    """Frames of one pixel row's worth of codes on a canvas of side x side."""
    frame = b"\x21\xf9\x04\0\x0a\0\0\0\x2c" + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frame * frames + b";"


def save_sound(path: Path, container: str, codec: str, seconds: float = 2.0) -> None:
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=16_000, layout="mono")
        tone = (np.sin(np.arange(int(16_000 * seconds)) / 20) * 8000).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate = 16_000
        resampler = av.AudioResampler(stream.codec_context.format, "mono", 16_000, stream.codec_context.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))


def save_film(path: Path) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for n in range(30):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(photo(n // 10)), format="rgb24")))
        file.mux(stream.encode(None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad")
    jpeg = encoded(photo(0, (1200, 900)), "JPEG", quality=92)
    (path / "cut_half.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (path / "cut_head.jpg").write_bytes(jpeg[:300])
    (path / "huge_header.png").write_bytes(huge_png())
    (path / "bomb.gif").write_bytes(gif_bomb(20_000, 500))
    (path / "many_frames.gif").write_bytes(gif_bomb(1_000, 20_000))
    with wave.open(str(path / "zero.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    (path / "empty.wav").write_bytes(b"")
    save_film(path / "silent_film.mp4")
    save_sound(path / "flac_named.mp3", "flac", "flac")
    save_sound(path / "flac_named.jpg", "flac", "flac")
    save_sound(path / "mp3_named.wav", "mp3", "libmp3lame")
    film, noise = (path / "silent_film.mp4").read_bytes(), np.random.default_rng(0)
    (path / "cut.mp4").write_bytes(film[: len(film) // 2])
    (path / "corrupt.mkv").write_bytes(b"\x1aE\xdf\xa3" + noise.bytes(5000))
    (path / "corrupt.ogg").write_bytes(b"OggS" + noise.bytes(5000))
    pages = [photo(n) for n in (5, 6, 7)]
    tiff = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    (path / "three_pages.tiff").write_bytes(tiff)
    (path / "cut.tiff").write_bytes(tiff[: len(tiff) // 2])
    for n, kind in enumerate(("webp", "bmp", "gif", "png")):
        (path / f"fine.{kind}").write_bytes(encoded(photo(10 + n), kind))
    if features.check("avif"):
        avif = encoded(photo(20), "AVIF")
        (path / "fine.avif").write_bytes(avif)
        (path / "cut.avif").write_bytes(avif[: len(avif) * 2 // 3])
    if importlib.util.find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
        heic = encoded(photo(21), "HEIF")
        (path / "fine.heic").write_bytes(heic)
        (path / "cut.heic").write_bytes(heic[: len(heic) * 2 // 3])
    (path / "notes.md").write_text("# Lighthouse\n\nThe keeper counts the boats each evening.", encoding="utf-8")
    return path


@pytest.mark.fault
def test_a_folder_of_bad_media_is_a_line_each_and_costs_no_memory(folder: Path, tmp_path: Path) -> None:
    settings = {"image_model": None, "speech_model": None, "max_image_pixels": PIXELS, "worker_memory_mb": 1024, "quiet": True}
    with UltraFastRAG(tmp_path / "index", **settings) as rag:
        rag.ingest(folder / "notes.md")  # the encoder is in memory before memory is looked at
        before = peak_rss_mb()
        report = rag.ingest(folder)
        assert peak_rss_mb() - before < 150
        failed = {Path(source).name: why for source, why in report.failed}
        read = {Path(document.source).name for document in rag.documents()}
        again = rag.ingest(folder)
    bad = {"cut_head.jpg": "header", "huge_header.png": "2500000000 pixels", "bomb.gif": "pixels", "zero.wav": "no sound",
           "empty.wav": "empty", "cut.mp4": "cannot be opened", "corrupt.mkv": "cannot be opened",
           "corrupt.ogg": "cannot be opened", "cut.avif": "broken", "cut.heic": "cannot be decoded",
           "many_frames.gif": ""}  # fmt: skip
    present = {path.name for path in folder.iterdir()}
    for name in bad.keys() & present - {"many_frames.gif"}:
        assert bad[name] in failed[name], name
        assert "\n" not in failed[name]
    assert failed.keys() <= bad.keys()
    assert read == present - failed.keys()
    for name, words in (("cut_half.jpg", "cut short"), ("flac_named.mp3", "holds flac"), ("flac_named.jpg", "holds flac"),
                        ("mp3_named.wav", "holds mp3"), ("silent_film.mp4", "no sound"),
                        ("cut.tiff", "list of pages")):  # fmt: skip
        assert any(note.startswith(f"{name}: ") and words in note for note in report.notes), name
    assert again.documents == 0
