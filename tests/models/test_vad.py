"""Telling a voice from everything else, and recordings heard through extractor and transcriber together."""

from __future__ import annotations

import json
import os
import wave
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import sounds

from ultrafast_rag.config import Config
from ultrafast_rag.extract.media.audio import RATE, AudioExtractor, decode_pcm
from ultrafast_rag.models.speech.gates import level_dbfs
from ultrafast_rag.models.speech.vad import Voice
from ultrafast_rag.types import Segment

ROOT = Path(__file__).resolve().parents[2]
SAMPLES, SPOKEN = ROOT / "data" / "samples", ROOT / "data" / "spoken.json"
DATA = os.environ.get("UFR_TEST_DATA")
SILENT_KINDS = ("noise", "hiss", "hum", "rain", "wind", "waves", "clapping", "pulsed", "telephone", "chords")


def floats(pcm: np.ndarray) -> np.ndarray:
    return pcm.astype(np.float32) / 32768.0


def sample(name: str = "station_report.ogg") -> np.ndarray:
    return np.concatenate(list(decode_pcm(SAMPLES / name)))


def shares(sound: np.ndarray, length_s: float = 3.0) -> list[float]:
    """The voice's share in pieces of a recording, those nearly silent left out."""
    voice, starts = Voice(sound), np.arange(0, max(0.1, len(sound) / RATE - length_s + 0.1), length_s / 2)
    pieces = [(start, sound[int(start * RATE) : int((start + length_s) * RATE)]) for start in starts]
    return [voice.share(start, start + length_s) for start, piece in pieces if piece.std() > 0.25 * sound.std()]


def test_speech_is_told_from_noise_machines_and_weather() -> None:
    assert min(shares(floats(sample()))) > 0.2
    for name, pcm in sounds.corpus(12.0, seed=5):
        if any(kind in name for kind in SILENT_KINDS) and level_dbfs(floats(pcm)) > -60:
            assert max(shares(floats(pcm))) < 0.03, name


@pytest.mark.public
@pytest.mark.skipif(not DATA, reason="UFR_TEST_DATA is not set")
@pytest.mark.parametrize("noise_db", [None, 20, 5, 0])
def test_human_speech_is_never_taken_for_noise(noise_db: int | None) -> None:
    """English, German and French; the gate drops nothing of it, even in noise as loud as the voice."""
    folder = Path(DATA or "") / "audio"
    files = [*folder.glob("leopard/audio_samples/*.wav"), folder / "whisper" / "jfk.flac", *folder.glob("containers/*.mp3")]
    assert len(files) >= 5
    for path in files:
        sound = floats(np.concatenate(list(decode_pcm(path))))
        if noise_db is not None:
            noise = sounds.pink(np.random.default_rng(0), len(sound))
            sound = sound + (noise / noise.std() * sound.std() * 10 ** (-noise_db / 20)).astype(np.float32)
        assert min(shares(sound)) > 0.03, path.name


def test_music_after_speech_is_a_piece_by_itself() -> None:
    talk = floats(sample())[int(5.1 * RATE) : int(10.7 * RATE)]
    music = floats(dict(sounds.corpus(9.0, seed=2))["chords, strings"])
    pieces = Voice(np.concatenate([talk, music])).pieces(30 * RATE)
    assert len(pieces) == 2
    assert pieces[1][0] / RATE == pytest.approx(len(talk) / RATE, abs=1.2)


def test_pieces_keep_all_that_is_loud_and_no_more_than_asked() -> None:
    sound = floats(sample())
    for longest_s in (5, 12, 26):
        pieces = Voice(sound).pieces(longest_s * RATE)
        assert all(0 < end - start <= longest_s * RATE for start, end in pieces)
        assert all(a[1] <= b[0] for a, b in pairwise(pieces))
        left = np.ones(len(sound), bool)
        for start, end in pieces:
            left[start:end] = False
        assert np.abs(sound[left]).max() < 0.03 * np.abs(sound).max()


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.3, 0.6])
def test_short_sound_is_one_piece_and_not_judged(seconds: float) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)
    assert Voice(sound).share(0.0, seconds) in (0.0, 1.0)
    assert len(Voice(sound).pieces(30 * RATE)) == 1


@pytest.fixture(scope="module")
def hear(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path | np.ndarray], list[Segment]]:
    """What the demo Whisper hears in a file or int16 samples, by way of the extractor, as ingestion does it."""
    pytest.importorskip("whisper")
    from ultrafast_rag.models.device import plan_device
    from ultrafast_rag.models.speech.whisper import open_transcriber

    config = Config(speech_model=str(ROOT / "data" / "models" / "demo-whisper"), device="cpu")
    extractor, listener = AudioExtractor(config), open_transcriber(config, plan_device(config))
    saved = tmp_path_factory.mktemp("sound") / "sound.wav"

    def heard(source: Path | np.ndarray) -> list[Segment]:
        if isinstance(source, np.ndarray):
            with wave.open(str(saved), "wb") as file:
                file.setparams((1, 2, RATE, 0, "NONE", ""))
                file.writeframes(source.astype("<i2").tobytes())
        elements = [e for part in extractor.extract(saved if isinstance(source, np.ndarray) else source) for e in part.elements]
        found = [listener.transcribe(e.data or b"", offset_s=e.start_s or 0.0, language="en") for e in elements]
        return [segment for segments in found for segment in segments]

    return heard


def words(text: str) -> list[str]:
    return "".join(letter for letter in text.lower() if letter.isalpha() or letter == " ").split()


def word_errors(said: list[str], heard: list[str]) -> int:
    row = list(range(len(heard) + 1))
    for i, a in enumerate(said, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(heard, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def test_nothing_is_invented_where_nobody_speaks(hear: Callable[..., list[Segment]]) -> None:
    found = {name: hear(pcm) for name, pcm in sounds.corpus(8.0, seed=0)}
    assert len(found) > 40
    assert {name: [s.text for s in segments] for name, segments in found.items() if segments} == {}


@pytest.mark.parametrize("tail", ["white noise -30", "mains hum -25", "melody, piano", "band, strings", "waves"])
def test_nothing_is_invented_after_the_last_sentence(hear: Callable[..., list[Segment]], tail: str) -> None:
    said = sample()[int(7.7 * RATE) : int(14.7 * RATE)]  # two sentences
    heard = hear(np.concatenate([said, dict(sounds.corpus(12.0, seed=3))[tail]]))
    assert [segment.start_s < 6.9 for segment in heard] == [True, True]
    expected = "The wind will turn to the west in the afternoon. The warden counted twelve seals near the cliff on Sunday."
    assert word_errors(words(expected), words(" ".join(segment.text for segment in heard))) <= 1


def test_sample_recording_is_heard_with_its_seconds(hear: Callable[..., list[Segment]]) -> None:
    said = json.loads(SPOKEN.read_text(encoding="utf-8"))["station_report.ogg"]
    heard = hear(SAMPLES / "station_report.ogg")
    wrong = word_errors(words(" ".join(row["text"] for row in said)), words(" ".join(s.text for s in heard)))
    assert wrong <= 0.10 * sum(len(words(row["text"])) for row in said)
    exact = [(row, s) for row in said for s in heard if words(s.text) == words(row["text"])]
    assert len(exact) >= 11  # of 15, word for word
    assert max(abs(segment.start_s - row["start_s"]) for row, segment in exact) < 1.0
    assert not [s for s in heard if "you you" in s.text]


def test_film_is_heard_whole_and_in_its_scenes(hear: Callable[..., list[Segment]]) -> None:
    said = json.loads(SPOKEN.read_text(encoding="utf-8"))["island_film.mp4"]
    heard = hear(SAMPLES / "island_film.mp4")
    assert [segment.text for segment in heard] == [row["text"] for row in said]
    assert all(row["start_s"] <= s.start_s and s.end_s <= row["end_s"] for row, s in zip(said, heard, strict=True))


def test_long_recording_of_unseen_sentences_has_few_words_wrong(hear: Callable[..., list[Segment]]) -> None:
    """Minutes of speech with pauses of all lengths, freshly spoken."""
    import sys

    sys.path.insert(0, str(ROOT / "data"))
    import speech

    if not speech.available():
        pytest.skip("espeak-ng is not installed")
    import whisper_corpus

    rng, said = np.random.default_rng(8), whisper_corpus.utterances(4321, 40, unseen_text=True)
    parts = [part for one in said for part in (np.zeros(int(rng.choice([0.2, 0.5, 1.0, 4.0]) * RATE)), one.pcm * 0.7 * 32767)]
    heard = hear(np.concatenate([*parts, np.zeros(RATE)]).astype(np.int16))
    expected = words(" ".join(one.text for one in said))
    assert len(expected) > 300
    assert word_errors(expected, words(" ".join(s.text for s in heard))) <= 0.10 * len(expected)
