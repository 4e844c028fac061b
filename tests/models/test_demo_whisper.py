"""The demo Whisper hears what it was made to hear, through openai-whisper's own code, and invents nothing."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parents[2] / "data"
SAMPLES, MODELS = DATA / "samples", DATA / "models"
sys.path.insert(0, str(DATA))

pytest.importorskip("whisper")
import speech  # noqa: E402
import train_demo_whisper as demo  # noqa: E402


def test_checkpoints_say_that_they_are_demos_and_stay_small():
    total = 0
    for name in ("demo-clip", "demo-whisper"):
        assert json.loads((MODELS / name / "config.json").read_text())["demo"] is True
        assert "demonstration" in (MODELS / name / "README.md").read_text().lower()
        total += sum(path.stat().st_size for path in (MODELS / name).iterdir())
    assert total < 7_000_000


@pytest.fixture(scope="module")
def whisper_model():
    return demo.load(MODELS / "demo-whisper")


def test_demo_whisper_hears_most_of_the_recording_at_the_right_second(whisper_model):
    said = json.loads((DATA / "spoken.json").read_text(encoding="utf-8"))["station_report.ogg"]
    sound, right = demo.decoded(SAMPLES / "station_report.ogg"), 0
    for k in range(0, len(said), 5):  # five sentences a window, as a cut at pauses gives
        start_s, end_s = said[k]["start_s"] - 0.3, said[k : k + 5][-1]["end_s"] + 0.1
        window = sound[round(start_s * speech.RATE) : round(end_s * speech.RATE)]
        heard = whisper_model.transcribe(np.concatenate([window, np.zeros(8000, np.float32)]), **demo.ALONE)["segments"]
        for row in said[k : k + 5]:
            right += any(s["text"].strip() == row["text"] and abs(s["start"] + start_s - row["start_s"]) < 0.3 for s in heard)
    assert right >= 10  # of 15, word for word


@pytest.mark.parametrize("unseen_voice", [False, True])
def test_demo_whisper_word_error_rate_on_freshly_spoken_unseen_sentences(whisper_model, unseen_voice):
    if not speech.available():
        pytest.skip("espeak-ng is not installed")
    rate, words = demo.wer(whisper_model, 991, sentences=30, unseen_voice=unseen_voice)
    assert words > 200
    assert rate <= 0.10


@pytest.mark.parametrize("kind", ["silence", "noise"])
def test_demo_whisper_invents_nothing_without_speech(whisper_model, kind):
    pcm = np.zeros(80_000, np.float32)
    if kind == "noise":
        pcm += 0.02 * np.random.default_rng(1).standard_normal(80_000).astype(np.float32)
    assert whisper_model.transcribe(pcm, **demo.ALONE)["text"].strip() == ""
