"""Films: cuts, intervals, near-duplicates, resuming, clips for evidence, and broken containers."""

from __future__ import annotations

import io
import os
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, ExtractionError, UnsupportedError
from ultrafast_rag.extract import ocr
from ultrafast_rag.extract.media.audio import RATE
from ultrafast_rag.extract.media.clip import clip_bytes
from ultrafast_rag.extract.media.video import Look, VideoExtractor, frame_at
from ultrafast_rag.extract.sandbox.pool import Sandbox
from ultrafast_rag.search.evidence import shown_type
from ultrafast_rag.types import Element, Part

CONFIG = Config(frame_interval_s=5.0)
DATA = os.environ.get("UFR_TEST_DATA")
needs_tesseract = pytest.mark.skipif(not ocr.available(), reason="tesseract is not installed")
RED, GREEN, BLUE, BLACK = (200, 30, 30), (30, 180, 40), (40, 50, 210), (0, 0, 0)


def scene(color: tuple[int, int, int], *, mark: int = 0, size: tuple[int, int] = (160, 96)) -> np.ndarray:
    picture = np.full((size[1], size[0], 3), color, np.uint8)
    if mark:
        picture[20 + 4 * mark : 40 + 4 * mark, 10 * mark : 10 * mark + 40] = (240, 240, 240)
    return picture


def save_film(
    path: Path,
    scenes: list[tuple[float, np.ndarray]],
    *,
    fps: int = 12,
    sound: np.ndarray | None = None,
    codec: str = "libx264",
    rotation: int = 0,
) -> Path:
    """Each scene for so many seconds; sound is int16 mono at 16 kHz."""
    with av.open(str(path), "w") as container:
        film = container.add_stream(codec, rate=fps)
        film.height, film.width = scenes[0][1].shape[:2]
        film.pix_fmt = "yuv420p"
        film.bit_rate = 400_000
        if rotation:
            film.set_display_rotation(rotation)
        voice = container.add_stream("aac", rate=RATE, layout="mono") if sound is not None else None
        for seconds, picture in scenes:
            for _ in range(round(seconds * fps)):
                container.mux(film.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(film.encode(None))
        if voice is not None and sound is not None:
            resampler = av.AudioResampler(voice.codec_context.format, "mono", RATE, 1024)
            frame = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="s16", layout="mono")
            frame.sample_rate = RATE
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(voice.encode(piece))
            container.mux(voice.encode(None))
    return path


def voice(seconds: float, start_s: float, end_s: float) -> np.ndarray:
    t = np.arange(int(seconds * RATE)) / RATE
    swell = np.abs(np.sin(2 * np.pi * 2 * t)) * ((t >= start_s) & (t < end_s))
    return (np.random.default_rng(0).normal(0, 2000, len(t)) * swell).astype(np.int16)


def parts_of(path: Path, config: Config = CONFIG, **options: int) -> list[Part]:
    return list(VideoExtractor(config).extract(path, **options))


def frames_of(parts: list[Part]) -> list[Element]:
    return [element for part in parts for element in part.elements if element.kind == "frame"]


def color_of(data: bytes | None) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data or b"")).convert("RGB"), dtype=float).reshape(-1, 3).mean(axis=0)


def test_a_frame_for_each_scene_with_its_second(tmp_path: Path) -> None:
    path = save_film(tmp_path / "a.mp4", [(2, scene(RED)), (3, scene(GREEN)), (2.5, scene(BLUE))])
    (part,) = parts_of(path)
    assert [(e.start_s, e.end_s) for e in part.elements] == [
        (pytest.approx(0, abs=0.1), pytest.approx(2, abs=0.3)),
        (pytest.approx(2, abs=0.3), pytest.approx(5, abs=0.3)),
        (pytest.approx(5, abs=0.3), pytest.approx(7.5, abs=0.3)),
    ]
    for element, color in zip(part.elements, (RED, GREEN, BLUE), strict=True):
        assert np.abs(color_of(element.data) - color).max() < 12
        assert element.metadata["width"] == 160
        assert element.metadata["height"] == 96
        assert element.metadata["duration_s"] == pytest.approx(7.5, abs=0.2)


def slide(*lines: str, size: tuple[int, int] = (1280, 720)) -> np.ndarray:
    picture = Image.new("RGB", size, (250, 250, 245))
    font = ImageFont.load_default(size=size[1] // 18)
    place = (size[0] // 12, size[1] // 8)
    ImageDraw.Draw(picture).text(place, "\n".join(lines), fill=(20, 30, 60), font=font, spacing=size[1] // 30)
    return np.asarray(picture)


def lecture(path: Path, size: tuple[int, int] = (1280, 720)) -> Path:
    photo = np.random.default_rng(1).integers(0, 255, (9, 16, 3), dtype=np.uint8)
    speaker = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC))
    first = slide("Tidal turbines", "Rated power: 417 kilowatts", "Blade length: nine metres", size=size)
    second = slide("Maintenance", "Grease the bearings every spring", "Replace the seals after five years", size=size)
    return save_film(path, [(3, first), (3, speaker), (4, second)], fps=4)


@needs_tesseract
@pytest.mark.parametrize("size", [(1280, 720), (640, 360)])
def test_words_on_a_slide_belong_to_its_frame(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = frames_of(parts_of(lecture(tmp_path / "lecture.mp4", size)))
    texts = [frame.text for frame in frames]
    assert "Rated power: 417 kilowatts" in texts[0]
    assert texts[1] == ""  # the speaker
    assert "Grease the bearings every spring" in texts[2]
    assert frames[2].start_s == pytest.approx(6, abs=0.3)
    assert all(max(Image.open(io.BytesIO(frame.data or b"")).size) <= CONFIG.image_px for frame in frames)


@needs_tesseract
def test_a_slide_is_found_by_its_words_with_its_second(tmp_path: Path) -> None:
    lecture(tmp_path / "lecture.mp4")
    with UltraFastRAG(None, image_model=None, speech_model=None, quiet=True) as rag:
        rag.ingest(tmp_path / "lecture.mp4")
        hit = rag.search("When should the bearings be greased?", modality="video", k=1)[0]
        assert hit.start_s == pytest.approx(6, abs=0.3)
        assert rag.search("417 kilowatts", k=1)[0].start_s == pytest.approx(0, abs=0.3)


def test_without_tesseract_the_report_says_that_frames_stay_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lecture(tmp_path / "lecture.mp4")
    monkeypatch.setenv("PATH", str(tmp_path))
    ocr.available.cache_clear()
    try:
        (part,) = parts_of(path)
    finally:
        monkeypatch.undo()
        ocr.available.cache_clear()
    assert [frame.text for frame in frames_of([part])] == ["", "", ""]
    assert [note for note in part.notes if "tesseract is not installed" in note] == [part.notes[-1]]
    (unasked,) = parts_of(path, Config(ocr=False))
    assert not any("tesseract" in note for note in unasked.notes)


def test_a_still_film_is_one_frame(tmp_path: Path) -> None:
    path = save_film(tmp_path / "a.mp4", [(40, scene(GREEN, mark=2))], fps=4)
    parts = parts_of(path)
    assert [len(part.elements) for part in parts] == [1, 0]
    assert parts[-1].total == 2


def test_slow_change_is_seen_at_the_interval_and_a_cut_at_once(tmp_path: Path) -> None:
    slides = [(1.0, scene((240, 240, 200), mark=n)) for n in range(1, 11)]  # small steps: no cut anywhere
    path = save_film(tmp_path / "a.mp4", [*slides, (3, scene(BLUE))])
    starts = [e.start_s or 0.0 for e in frames_of(parts_of(path, Config(frame_interval_s=4.0)))]
    assert starts == pytest.approx([0, 4, 8, 10], abs=0.3)


def test_black_frames_are_not_kept(tmp_path: Path) -> None:
    path = save_film(tmp_path / "a.mp4", [(1, scene(BLACK)), (2, scene(RED)), (1, scene(BLACK))])
    (frame,) = frames_of(parts_of(path))
    assert frame.start_s == pytest.approx(1, abs=0.3)


def test_parts_hold_sounds_then_frames_of_their_slot_and_resume(tmp_path: Path) -> None:
    colors = [RED, GREEN, BLUE]
    scenes = [(7.0, scene(colors[n % 3], mark=n)) for n in range(12)]  # 84 s: four slots
    path = save_film(tmp_path / "a.mkv", scenes, fps=4, sound=voice(84, 30, 33))
    parts = parts_of(path)
    assert [part.number for part in parts] == [0, 1, 2, 3]
    assert parts[-1].total == 4
    for part in parts:
        kinds = [element.kind for element in part.elements]
        assert kinds == sorted(kinds, key=["sound", "frame"].index)
        assert all(26 * part.number <= (e.start_s or 0) < 26 * (part.number + 1) + 2.1 for e in part.elements)
    ((sound),) = [e for part in parts for e in part.elements if e.kind == "sound"]
    assert (sound.start_s, sound.end_s) == pytest.approx((30, 33), abs=0.4)
    for start in (1, 2, 3, 4):
        assert parts_of(path, start_part=start) == parts[start:]


def test_resuming_by_seek_finds_the_same_frames_in_a_compressed_film(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    pictures = [scene(tuple(rng.integers(0, 255, 3)), mark=int(rng.integers(0, 10))) for _ in range(40)]
    scenes = [(float(rng.uniform(0.5, 6)), picture) for picture in pictures]
    path = save_film(tmp_path / "a.mp4", scenes, fps=24)
    parts = parts_of(path)
    assert len(parts) >= 4
    for start in range(1, len(parts)):
        assert parts_of(path, start_part=start) == parts[start:]


def test_transcript_beside_a_film_replaces_its_sound(tmp_path: Path) -> None:
    path = save_film(tmp_path / "a.mp4", [(30, scene(RED))], fps=2, sound=voice(30, 0, 30))
    (tmp_path / "a.srt").write_text("1\n00:00:02,000 --> 00:00:04,000\nFirst.\n\n2\n00:00:27,000 --> 00:00:29,000\nSecond.\n")
    parts = parts_of(path)
    spoken = [(part.number, e.text, e.start_s) for part in parts for e in part.elements if e.kind == "speech"]
    assert spoken == [(0, "First.", 2.0), (1, "Second.", 27.0)]
    assert not any(e.kind == "sound" for part in parts for e in part.elements)


def test_phone_film_is_shown_upright(tmp_path: Path) -> None:
    picture = scene(GREEN)
    picture[:48] = RED  # the red half is on top as stored
    path = save_film(tmp_path / "a.mp4", [(2, picture)], rotation=90)  # counter-clockwise: top becomes left
    (frame,) = frames_of(parts_of(path))
    assert (frame.metadata["width"], frame.metadata["height"]) == (96, 160)
    shown = np.asarray(Image.open(io.BytesIO(frame.data or b"")).convert("RGB"), dtype=float)
    assert np.abs(shown[:, :40].mean(axis=(0, 1)) - RED).max() < 15
    assert np.abs(shown[:, -40:].mean(axis=(0, 1)) - GREEN).max() < 15


def test_frames_are_scaled_to_the_configured_size(tmp_path: Path) -> None:
    path = save_film(tmp_path / "a.mp4", [(1, scene(RED, size=(1280, 720)))])
    (frame,) = frames_of(parts_of(path, Config(image_px=300)))
    assert Image.open(io.BytesIO(frame.data or b"")).size == (300, 169)


def test_look_tells_a_cut_from_a_small_change() -> None:
    rng = np.random.default_rng(0)
    photo = np.asarray(Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((48, 27)))
    other = np.asarray(Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((48, 27)))
    noisy = np.clip(photo + rng.normal(0, 2, photo.shape), 0, 255).astype(np.uint8)
    assert Look.of(other).is_cut_from(Look.of(photo))
    assert not Look.of(other).is_same_as(Look.of(photo))
    assert not Look.of(noisy).is_cut_from(Look.of(photo))
    assert Look.of(noisy).is_same_as(Look.of(photo))


def test_frame_at_shows_that_second(tmp_path: Path) -> None:
    path = save_film(tmp_path / "a.mp4", [(6, scene(RED)), (6, scene(BLUE)), (2, scene(GREEN))])
    for second, color in ((1, RED), (5.8, RED), (6.3, BLUE), (11.5, BLUE), (13, GREEN), (99, GREEN)):
        data = frame_at(path, second, 100)
        assert np.abs(color_of(data) - color).max() < 15, second
        assert max(Image.open(io.BytesIO(data)).size) == 100


def test_clip_of_a_film_plays_the_stretch_with_its_sound(tmp_path: Path) -> None:
    path = save_film(tmp_path / "a.mp4", [(6, scene(RED)), (6, scene(BLUE))], sound=voice(12, 0, 12))
    data = clip_bytes(path, 5, 8)
    assert shown_type(data) == "video/mp4"
    assert len(data) < 500_000
    with av.open(io.BytesIO(data)) as container:
        pictures = [frame.to_ndarray(format="rgb24").reshape(-1, 3).mean(axis=0) for frame in container.decode(video=0)]
    with av.open(io.BytesIO(data)) as container:
        samples = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    assert len(pictures) == pytest.approx(30, abs=2)
    assert np.abs(pictures[3] - RED).max() < 15
    assert np.abs(pictures[-3] - BLUE).max() < 15
    assert samples == pytest.approx(3, abs=0.15)


def test_clip_of_noise_stays_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    scenes = [(0.1, rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)) for _ in range(250)]
    path = save_film(tmp_path / "a.mp4", scenes, fps=10, sound=voice(25, 0, 25))
    assert len(clip_bytes(path, 0, 25)) < 600_000


def test_clip_of_a_recording_is_exactly_its_samples(tmp_path: Path) -> None:
    from test_audio import save_wav, syllables

    pcm = syllables(30, seed=7)
    path = save_wav(tmp_path / "a.wav", pcm)
    for start_s in (0.0, 0.5, 4.25):
        data = clip_bytes(path, start_s, start_s + 2)
        assert shown_type(data) == "audio/wav"
        start = round(start_s * RATE)
        assert data[44:] == pcm[start : start + 2 * RATE].tobytes()
    data = clip_bytes(path, 2, 29)
    assert shown_type(data) == "audio/mpeg"
    assert len(data) < 250_000
    with pytest.raises(CorruptError, match="no sound at"):
        clip_bytes(path, 500, 510)


def test_reader_process_gives_clips_and_frames(tmp_path: Path) -> None:
    path = save_film(tmp_path / "a.mp4", [(3, scene(RED))])
    with Sandbox(CONFIG, workers=1) as sandbox:
        assert sandbox.call("media.video.clip", path=str(path), start_s=0.5, end_s=2.0)[4:8] == b"ftyp"
        assert np.abs(color_of(sandbox.call("media.video.frame_at", path=str(path), second=1.0, max_px=64)) - RED).max() < 15
        (part,) = sandbox.extract(path)
        assert part.elements[0].kind == "frame"


@pytest.mark.fault
def test_film_without_sound_says_so(tmp_path: Path) -> None:
    (part,) = parts_of(save_film(tmp_path / "a.mp4", [(2, scene(RED))]))
    assert "no sound" in part.notes[0]
    assert part.elements[0].kind == "frame"


@pytest.mark.fault
def test_sound_in_a_film_container_gives_the_sound(tmp_path: Path) -> None:
    from test_audio import save_encoded, syllables

    path = save_encoded(tmp_path / "a.mp4", syllables(3), "aac")
    (part,) = parts_of(path)
    assert [element.kind for element in part.elements] == ["sound"]
    assert "sound alone" in part.notes[0]


@pytest.mark.fault
def test_corrupt_containers_are_typed_errors(tmp_path: Path) -> None:
    (tmp_path / "zero.mp4").write_bytes(b"")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    whole = save_film(tmp_path / "whole.mp4", [(2, scene(RED))]).read_bytes()
    (tmp_path / "headless.mp4").write_bytes(whole[: len(whole) // 3])  # the index of an mp4 is at its end
    for name in ("zero.mp4", "noise.mp4", "headless.mp4"):
        with pytest.raises((CorruptError, UnsupportedError)) as caught:
            parts_of(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(ExtractionError, match="cannot be read"):
        parts_of(tmp_path / "none.mp4")


@pytest.mark.fault
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi"])
def test_damaged_films_end_in_parts_or_typed_errors(tmp_path: Path, suffix: str) -> None:
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    scenes = [(3.0, scene(RED)), (3.0, scene(BLUE, mark=3))]
    source = save_film(tmp_path / f"whole{suffix}", scenes, sound=voice(6, 1, 5), codec=codec)
    whole, rng = source.read_bytes(), np.random.default_rng(3)
    path = tmp_path / f"a{suffix}"
    for trial in range(10):
        damaged = bytearray(whole[: int(len(whole) * rng.uniform(0.1, 1))] if trial % 2 else whole)
        for spot in rng.integers(0, len(damaged), 25):
            damaged[spot] = int(rng.integers(0, 256))
        path.write_bytes(bytes(damaged))
        try:
            parts = parts_of(path)
        except ExtractionError:
            continue
        assert parts
        assert all((e.end_s or 0) >= (e.start_s or 0) for part in parts for e in part.elements)


@pytest.mark.public
@pytest.mark.skipif(not DATA, reason="UFR_TEST_DATA is not set")
def test_public_films_give_frames_and_sound() -> None:
    for path in sorted((Path(DATA or "") / "video" / "docling").iterdir()):
        (part,) = parts_of(path)
        assert part.title == "Shakespeare on Scenery"
        kinds = [element.kind for element in part.elements]
        assert kinds.count("sound") == 1
        assert 2 <= kinds.count("frame") <= 4
