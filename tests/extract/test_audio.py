"""Recordings: windows at silence, voice activity, transcripts beside the file, and broken files."""

from __future__ import annotations

import json
import os
import tracemalloc
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, ExtractionError, UnsupportedError
from ultrafast_rag.extract.detect import detect, open_extractor
from ultrafast_rag.extract.media.audio import RATE, AudioExtractor, decode_pcm, levels_db, slots, stretches
from ultrafast_rag.extract.media.captions import find_sidecar, parse_captions
from ultrafast_rag.types import Part

CONFIG = Config()
DATA = os.environ.get("UFR_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="UFR_TEST_DATA is not set")


def syllables(seconds: float, *, loud: float = 0.2, seed: int = 0) -> np.ndarray:
    """int16 noise that swells four times a second, as speech does."""
    t = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(0, 1, len(t))
    return (noise * np.abs(np.sin(2 * np.pi * 2 * t)) * loud * 8000).clip(-32768, 32767).astype(np.int16)


def hush(seconds: float, *, level: float = 3.0, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, int(seconds * RATE)).astype(np.int16)


def save_wav(path: Path, pcm: np.ndarray, *, rate: int = RATE, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.astype("<i2").tobytes())
    return path


def save_encoded(path: Path, pcm: np.ndarray, codec: str, rate: int = 48_000, **options: Any) -> Path:
    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(stream.codec_context.format, "mono", rate)
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE
        fifo = av.AudioFifo()
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            piece.pts = None
            fifo.write(piece)
        size = stream.codec_context.frame_size or 1024
        while (piece := fifo.read(size) or fifo.read(size, partial=True)) is not None:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def parts_of(path: Path, **options: Any) -> list[Part]:
    return list(AudioExtractor(CONFIG).extract(path, **options))


def sounds(parts: list[Part]) -> list[tuple[float, float]]:
    found = [(e.start_s, e.end_s) for part in parts for e in part.elements if e.kind == "sound"]
    return [(a, b) for a, b in found if a is not None and b is not None]


def test_voice_is_cut_out_of_silence_with_its_times(tmp_path: Path) -> None:
    pcm = np.concatenate([hush(3), syllables(2), hush(8), syllables(1.5), hush(4)])
    (part,) = parts_of(save_wav(tmp_path / "a.wav", pcm))
    (first, second) = sounds([part])
    assert first == pytest.approx((3.0, 5.0), abs=0.35)
    assert second == pytest.approx((13.0, 14.5), abs=0.35)
    for element in part.elements:
        assert element.start_s is not None
        start = round(element.start_s * RATE)
        assert element.data == pcm[start : start + len(element.data or b"") // 2].astype("<i2").tobytes()


def test_pauses_inside_a_talk_are_kept_so_that_one_window_serves() -> None:
    pcm = np.concatenate([syllables(3), hush(2), syllables(3), hush(4), syllables(2)])
    assert len(stretches(pcm)) == 1


@pytest.mark.parametrize("pcm", [np.zeros(RATE * 3, np.int16), hush(3), np.full(RATE * 3, 900, np.int16)])
def test_silence_hiss_and_a_constant_offset_are_no_sound(tmp_path: Path, pcm: np.ndarray) -> None:
    (part,) = parts_of(save_wav(tmp_path / "a.wav", pcm))
    assert part.elements == ()
    assert part.total == 1


def test_noise_floor_adapts_to_a_loud_room_and_a_faint_speaker() -> None:
    loud = np.concatenate([hush(5, level=60), syllables(2, loud=1.0), hush(5, level=60)])
    faint = np.concatenate([hush(5, level=1), syllables(2, loud=0.02), hush(5, level=1)])
    for pcm in (loud, faint):
        ((start, end),) = stretches(pcm)
        assert start / RATE == pytest.approx(5, abs=0.35)
        assert end / RATE == pytest.approx(7, abs=0.35)


def test_steady_loud_sound_is_left_to_the_transcriber() -> None:
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(5 * RATE) / RATE)).astype(np.int16)
    assert stretches(tone) == [(0, len(tone))]


def test_single_click_is_no_sound() -> None:
    pcm = hush(4)
    pcm[2 * RATE : 2 * RATE + 40] = 20_000
    assert stretches(pcm) == []


@pytest.mark.reference
def test_levels_match_the_definition() -> None:
    tone = (16384 * np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE)).astype(np.int16)
    assert levels_db(tone) == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)


def test_slots_cover_the_sound_exactly_and_end_in_pauses() -> None:
    rng = np.random.default_rng(4)
    pieces, pauses, at = [], [], 0.0
    while at < 200:
        talk, pause = float(rng.uniform(0.8, 2.2)), 0.3
        pieces += [syllables(talk, seed=len(pieces)), hush(pause)]
        pauses.append((at + talk, at + talk + pause))
        at += talk + pause
    pcm = np.concatenate(pieces)
    blocks = np.array_split(pcm, 77)
    found = list(slots(iter(blocks)))
    assert np.array_equal(np.concatenate([slot.pcm for slot in found]), pcm)
    assert [slot.number for slot in found] == list(range(len(found)))
    assert max(len(slot.pcm) for slot in found) <= 30 * RATE
    for slot in found[1:]:
        assert any(a <= slot.start_s <= b for a, b in pauses)


def test_slots_do_not_depend_on_how_the_decoder_cuts_its_blocks() -> None:
    pcm = syllables(95, seed=9)
    one = [(slot.start_s, len(slot.pcm)) for slot in slots(iter([pcm]))]
    many = [(slot.start_s, len(slot.pcm)) for slot in slots(iter(np.array_split(pcm, 1000)))]
    assert one == many


def test_long_recording_resumes_with_the_same_parts(tmp_path: Path) -> None:
    pcm = np.concatenate([syllables(50, seed=1), hush(60), syllables(30, seed=2)])
    path = save_wav(tmp_path / "a.wav", pcm)
    parts = parts_of(path)
    assert [part.number for part in parts] == list(range(len(parts)))
    assert parts[-1].total == len(parts)
    assert any(not part.elements for part in parts)  # the silence is parts too: a sign of life for the reader
    assert parts_of(path, start_part=2) == parts[2:]
    assert parts_of(path, start_part=99) == []
    assert all(end - start <= 30 for start, end in sounds(parts))


@pytest.mark.parametrize(("suffix", "codec"), [(".mp3", "libmp3lame"), (".ogg", "libopus"), (".flac", "flac"), (".m4a", "aac")])
def test_compressed_containers_keep_their_times(tmp_path: Path, suffix: str, codec: str) -> None:
    pcm = np.concatenate([hush(2), syllables(2), hush(2)])
    path = save_encoded(tmp_path / f"a{suffix}", pcm, codec)
    ((start, end),) = sounds(parts_of(path))
    assert (start, end) == pytest.approx((2.0, 4.0), abs=0.4)
    decoded = np.concatenate(list(decode_pcm(path)))
    assert abs(len(decoded) - len(pcm)) < 0.2 * RATE


def test_stereo_at_another_rate_becomes_mono_at_16_khz(tmp_path: Path) -> None:
    t = np.arange(44_100) / 44_100
    left, right = 8000 * np.sin(2 * np.pi * 300 * t), 4000 * np.sin(2 * np.pi * 300 * t)
    stereo = np.stack([left, right], axis=1).reshape(-1)
    path = save_wav(tmp_path / "a.wav", stereo.astype(np.int16), rate=44_100, channels=2)
    mono = np.concatenate(list(decode_pcm(path))).astype(float)
    expected = 6000 * np.sin(2 * np.pi * 300 * np.arange(len(mono)) / RATE)
    assert len(mono) == pytest.approx(RATE, abs=40)
    middle = slice(2000, 14_000)
    assert np.abs(mono[middle] - expected[middle]).mean() < 60


def test_decoding_from_a_second_equals_the_tail_of_the_whole(tmp_path: Path) -> None:
    pcm = syllables(12, seed=3)
    path = save_wav(tmp_path / "a.wav", pcm)
    tail = np.concatenate(list(decode_pcm(path, start_s=7.5)))
    assert np.array_equal(tail, pcm[int(7.5 * RATE) :])


def test_memory_does_not_grow_with_the_length_of_a_recording(tmp_path: Path) -> None:
    minute = np.concatenate([syllables(40), hush(20)])
    peaks = []
    for minutes in (1, 8):
        with wave.open(str(tmp_path / "long.wav"), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            for _ in range(minutes):
                file.writeframes(minute.tobytes())
        tracemalloc.start()
        voiced = sum(b - a for part in AudioExtractor(CONFIG).extract(tmp_path / "long.wav") for a, b in sounds([part]))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert voiced == pytest.approx(40 * minutes, rel=0.06)
    assert peaks[1] < 1.2 * peaks[0]


SRT = """\ufeff1
00:00:01,000 --> 00:00:03,500
<i>Good</i> morning,
{\\an8}everyone.

2
00:01:04,250 --> 00:01:06,000
Rain &amp; wind today.

broken
00:00:99 -> 3
"""
VTT = """WEBVTT - a talk

STYLE
::cue { color: red }

NOTE 00:00 is not a cue

intro
00:01.000 --> 00:03.500 align:start position:0%
<v Ada>Good morning,</v>

01:02:03.004 --> 01:02:05.000
<00:00:01.200><c>late</c> words
"""


def test_srt_cues_are_read_without_markup() -> None:
    cues = parse_captions(SRT.replace("\n", "\r\n"))
    assert [(c.start_s, c.end_s, c.text) for c in cues] == [
        (1.0, 3.5, "Good morning, everyone."),
        (64.25, 66.0, "Rain & wind today."),
    ]


def test_vtt_cues_are_read_without_settings_styles_and_notes() -> None:
    cues = parse_captions(VTT)
    assert [(c.start_s, c.end_s, c.text) for c in cues] == [(1.0, 3.5, "Good morning,"), (3723.004, 3725.0, "late words")]


def test_rolling_captions_are_said_once() -> None:
    rolled = "WEBVTT\n\n00:01.000 --> 00:02.000\none two\n\n00:02.000 --> 00:03.000\none two\nthree four\n\n"
    rolled += "00:03.000 --> 00:04.000\nthree four\nfive\n"
    assert [cue.text for cue in parse_captions(rolled)] == ["one two", "three four", "five"]


def test_cue_identifiers_entities_and_backward_cues_are_no_words() -> None:
    cues = parse_captions(
        "WEBVTT\n\nx-1\n00:01.000 --> 00:02.000\na &lt;b&gt;\n\nx-2\n00:03.000 --> 00:02.000\nback\n\n"
        "x-3\n00:04.000 --> 00:05.000\nc\n"
    )
    assert [cue.text for cue in cues] == ["a <b>", "c"]


def test_a_transcript_alone_keeps_its_times(tmp_path: Path) -> None:
    path = tmp_path / "talk.vtt"
    path.write_text(VTT)
    assert detect(path) == ("text/vtt", "captions")
    (part,) = open_extractor(path, CONFIG).extract(path)
    assert [(e.kind, e.text, e.start_s, e.end_s) for e in part.elements] == [
        ("speech", "Good morning,", 1.0, 3.5),
        ("speech", "late words", 3723.004, 3725.0),
    ]
    path.write_text("WEBVTT\n\nno cue at all\n")
    with pytest.raises(CorruptError, match="no captions"):
        list(open_extractor(path, CONFIG).extract(path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_transcript_beside_the_file_is_preferred(tmp_path: Path, encoding: str) -> None:
    path = save_wav(tmp_path / "talk.wav", syllables(3))
    times = [(f"{n // 2:02d},{n % 2 * 500:03d}", f"{n // 2 + 1:02d},000") for n in range(110)]
    cues = "".join(f"{n + 1}\n00:00:{a} --> 00:00:{b}\ncafé {n}\n\n" for n, (a, b) in enumerate(times))
    (tmp_path / "talk.srt").write_bytes(cues.encode(encoding))
    parts = parts_of(path)
    assert [len(part.elements) for part in parts] == [50, 50, 10]
    assert {element.kind for part in parts for element in part.elements} == {"speech"}
    assert parts[0].elements[3].text == "café 3"
    assert parts[0].elements[3].start_s == 1.5
    assert "talk.srt" in parts[0].notes[0]
    assert parts_of(path, start_part=1) == parts[1:]


def test_transcript_in_the_wanted_language_comes_first(tmp_path: Path) -> None:
    path = save_wav(tmp_path / "talk.wav", syllables(1))
    for name in ("talk.de.vtt", "talk.en.vtt", "talking.vtt"):
        (tmp_path / name).write_text(VTT)
    found = find_sidecar(path, "en")
    assert found is not None
    assert found.name == "talk.en.vtt"
    (part,) = AudioExtractor(Config(speech_language="en")).extract(path)
    assert part.elements[0].metadata["spoken_language"] == "en"


def test_transcript_without_cues_gives_way_to_the_sound(tmp_path: Path) -> None:
    path = save_wav(tmp_path / "talk.wav", syllables(2))
    (tmp_path / "talk.srt").write_text("nothing here")
    (part,) = parts_of(path)
    assert part.elements[0].kind == "sound"
    assert "no cues" in part.notes[0]


@pytest.mark.fault
def test_empty_missing_and_headless_files_are_typed_errors(tmp_path: Path) -> None:
    (tmp_path / "zero.wav").write_bytes(b"")
    save_wav(tmp_path / "nosamples.wav", np.empty(0, np.int16))
    (tmp_path / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "text.wav").write_text("These are words, not sound. " * 100)
    for name in ("zero.wav", "nosamples.wav", "noise.mp3", "text.wav"):
        with pytest.raises((CorruptError, UnsupportedError)) as caught:
            parts_of(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(ExtractionError, match="cannot be read"):
        parts_of(tmp_path / "none.wav")


@pytest.mark.fault
def test_wrong_suffix_is_read_as_what_it_holds_and_noted(tmp_path: Path) -> None:
    save_wav(tmp_path / "a.mp3", syllables(2))
    (part,) = parts_of(tmp_path / "a.mp3")
    assert part.elements[0].kind == "sound"
    assert "named .mp3 but holds wav" in part.notes[0]


@pytest.mark.fault
def test_playlist_in_disguise_opens_no_other_file(tmp_path: Path) -> None:
    target = save_wav(tmp_path / "secret.wav", syllables(2))
    (tmp_path / "a.mp3").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n")
    (tmp_path / "b.wav").write_text(f"ffconcat version 1.0\nfile {target.name}\n")
    for name in ("a.mp3", "b.wav"):
        with pytest.raises((CorruptError, UnsupportedError)):
            parts_of(tmp_path / name)


@pytest.mark.fault
@pytest.mark.parametrize(("suffix", "codec"), [(".mp3", "libmp3lame"), (".ogg", "libopus"), (".m4a", "aac"), (".flac", "flac")])
def test_damaged_recordings_end_in_parts_or_typed_errors(tmp_path: Path, suffix: str, codec: str) -> None:
    whole = save_encoded(tmp_path / f"whole{suffix}", syllables(6), codec).read_bytes()
    rng = np.random.default_rng(8)
    path = tmp_path / f"a{suffix}"
    for trial in range(16):
        damaged = bytearray(whole[: int(len(whole) * rng.uniform(0.02, 1))] if trial % 2 else whole)
        for spot in rng.integers(0, len(damaged), 30):
            damaged[spot] = int(rng.integers(0, 256))
        path.write_bytes(bytes(damaged))
        try:
            parts = parts_of(path)
        except (CorruptError, UnsupportedError):
            continue
        assert len(parts) >= 1
        assert sum(len(e.data or b"") for p in parts for e in p.elements) < 70 * RATE * 2


@pytest.mark.fault
def test_cut_off_recording_gives_what_is_there(tmp_path: Path) -> None:
    whole = save_encoded(tmp_path / "whole.mp3", syllables(10), "libmp3lame").read_bytes()
    (tmp_path / "cut.mp3").write_bytes(whole[: len(whole) // 2])
    ((start, end),) = sounds(parts_of(tmp_path / "cut.mp3"))
    assert start < 0.3
    assert 4 < end < 6


@pytest.mark.public
@needs_data
def test_public_containers_all_decode() -> None:
    folder = Path(DATA or "") / "audio" / "containers"
    files = sorted(folder.glob("sample_10s*"))
    assert len(files) == 5
    for path in files:
        parts = parts_of(path)
        assert sum(b - a for a, b in sounds(parts)) == pytest.approx(9.5, abs=1.0), path.name
    (silent,) = parts_of(folder / "silent_1s.wav")
    assert silent.elements == ()


@pytest.mark.public
@needs_data
def test_public_speech_is_heard_where_it_is() -> None:
    folder = Path(DATA or "") / "audio"
    entries = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    seen = 0
    for entry in entries:
        path = Path(DATA or "") / entry["path"]
        if not path.exists() or not entry.get("transcript"):
            continue
        seen += 1
        assert sounds(parts_of(path)), path.name
    assert seen >= 5
    ((start, end),) = sounds(parts_of(folder / "whisper" / "jfk.flac"))
    assert start < 0.6
    assert 10.0 < end <= 11.1
