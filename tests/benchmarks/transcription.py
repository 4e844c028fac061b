"""What recordings say, through the package's own extractor and transcriber, as ingestion does it.

    python tests/benchmarks/transcription.py [--speech-model data/models/demo-whisper] [--open GATE ...]

Three questions: how many words are invented where nobody speaks, how many are wrong where somebody does, and
how far off the times are. Sentences are spoken by espeak-ng, none of them trained on. `--open` switches gates
off by name, to see what each is worth; such a run only prints. Needs espeak-ng's library.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import wave
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "data"), str(ROOT / "tests")]

import sounds  # noqa: E402 - after the path
import whisper_corpus as corpus_of  # noqa: E402
from train_demo_whisper import normal, word_errors  # noqa: E402

from ultrafast_rag.bench.result import plain, write_result  # noqa: E402
from ultrafast_rag.config import Config  # noqa: E402
from ultrafast_rag.extract.media.audio import RATE, AudioExtractor  # noqa: E402
from ultrafast_rag.models.device import plan_device  # noqa: E402
from ultrafast_rag.models.speech.whisper import WhisperTranscriber, open_transcriber  # noqa: E402
from ultrafast_rag.types import Segment  # noqa: E402

Pcm = npt.NDArray[np.int16]
OPEN = {
    "no_speech": 2.0,
    "logprob": -99.0,
    "compression": 1e9,
    "stock_no_speech": 2.0,
    "faint_dbfs": -200.0,
    "voiced": -1.0,
    "clearly_voiced": 0.0,
    "letters_per_s": 1e9,
}
SAMPLES = ROOT / "data" / "samples"


@dataclasses.dataclass(frozen=True, slots=True)
class Recording:
    """Sound, and the sentences said in it as (text, start_s, end_s)."""

    pcm: Pcm
    said: tuple[tuple[str, float, float], ...]


class Listener:
    """Extractor and transcriber, joined as the pipeline joins them."""

    def __init__(self, config: Config, opened: Sequence[str] = ()) -> None:
        self.config, self._folder = config, tempfile.TemporaryDirectory()
        self.extractor, self.transcriber = AudioExtractor(config), open_transcriber(config, plan_device(config))
        if opened:
            open_gates(self.transcriber, opened)

    def hear(self, path: Path) -> list[Segment]:
        heard: list[Segment] = []
        for part in self.extractor.extract(path):
            for sound in part.elements:
                heard += self.transcriber.transcribe(
                    sound.data or b"", offset_s=sound.start_s or 0.0, language=self.config.speech_language
                )
        return heard

    def hear_pcm(self, pcm: Pcm) -> list[Segment]:
        path = Path(self._folder.name) / "sound.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes(pcm.astype("<i2").tobytes())
        return self.hear(path)


def open_gates(transcriber: Any, names: Sequence[str]) -> None:
    """Give the named gates a value that lets everything through."""
    assert isinstance(transcriber, WhisperTranscriber)
    transcriber._gates = dataclasses.replace(transcriber._gates, **{name: OPEN[name] for name in names})


def without_speech(listener: Listener, lengths_s: Sequence[float], seed: int) -> dict[str, Any]:
    """Words invented by kind of sound."""
    invented, examples, seconds = Counter[str](), [], 0.0
    for k, length_s in enumerate(lengths_s):
        for name, pcm in sounds.corpus(length_s, seed + k):
            seconds += length_s
            for segment in listener.hear_pcm(pcm):
                invented[name] += len(normal(segment.text)) or 1
                examples.append(f"{name}: {segment.text}")
    words = sum(invented.values())
    return {
        "minutes": seconds / 60,
        "kinds": sum(1 for _ in sounds.corpus(0.1)),
        "words": words,
        "words_a_minute": words / seconds * 60,
        "by_kind": dict(invented.most_common()),
        "examples": examples[:20],
    }


def recordings(name: str, seed: int, sentences: int) -> Iterator[Recording]:
    """Unseen sentences: one a file, or many with pauses, or a few with a tail in which nobody speaks."""
    rng, said = Random(seed), unseen(seed, sentences, other_voices="voices" in name)
    pauses = {"close": (0.15, 0.5), "calm": (0.3, 1.5), "far": (0.3, 9.0)}
    if name == "one sentence each":
        yield from (spoken([one], [0.3], 0.5) for one in said)
    elif name == "followed by no speech":
        for k, (_, tail) in enumerate(sounds.corpus(12.0, seed)):
            few = said[k * 2 % sentences :][:2]
            head = spoken(few, [0.3, 0.6], rng.uniform(0.2, 1.0))
            yield Recording(np.concatenate([head.pcm, tail]), head.said)
    else:
        low, high = next(span for word, span in pauses.items() if word in name)
        whole = spoken(said, [0.3, *(rng.uniform(low, high) for _ in said[1:])], 1.0)
        level = 10 ** (-float(name.split(" dB")[0].split()[-1]) / 20) if " dB" in name else 0.0
        loud = np.sqrt(np.mean(np.square(whole.pcm.astype(float))))
        hiss = sounds.pink(np.random.default_rng(seed), len(whole.pcm)) if level else np.zeros(len(whole.pcm))
        mixed = whole.pcm + hiss / (hiss.std() or 1.0) * level * loud
        yield Recording(mixed.clip(-32768, 32767).astype(np.int16), whole.said)


def unseen(seed: int, count: int, *, other_voices: bool) -> list[corpus_of.Utterance]:
    """Sentences never trained on, each once, so that what is heard belongs to one place."""
    said = corpus_of.utterances(seed, 2 * count, unseen_text=True, unseen_voice=other_voices)
    return list({one.text: one for one in said}.values())[:count]


SETS = (  # name, sentences
    ("one sentence each", 60), ("followed by no speech", 96), ("long, close pauses", 60), ("long, calm pauses", 60),
    ("long, far pauses", 40), ("long, calm pauses, unseen voices", 60), ("long, calm pauses, noise at 30 dB", 60),
    ("long, calm pauses, noise at 20 dB", 60),
)  # fmt: skip


def spoken(said: Sequence[corpus_of.Utterance], pauses_s: Sequence[float], tail_s: float) -> Recording:
    parts, rows, at = [], [], 0
    for one, pause_s in zip(said, pauses_s, strict=False):
        parts += [np.zeros(int(pause_s * RATE)), one.pcm * 0.7 * 32767]
        at += len(parts[-2])
        rows.append((one.text, at / RATE, (at + len(one.pcm)) / RATE))
        at += len(one.pcm)
    return Recording(np.concatenate([*parts, np.zeros(int(tail_s * RATE))]).astype(np.int16), tuple(rows))


def sample(name: str) -> Recording:
    rows = json.loads((ROOT / "data" / "spoken.json").read_text(encoding="utf-8"))[name]
    return Recording(np.empty(0, np.int16), tuple((row["text"], row["start_s"], row["end_s"]) for row in rows))


def judge(found: Sequence[tuple[Recording, list[Segment]]]) -> dict[str, Any]:
    """Word errors, words in segments that touch no sentence, sentences heard word for word, and errors of starts."""
    wrong = words = stray = exact = 0
    starts: list[float] = []
    for recording, heard in found:
        said = [normal(text) for text, _, _ in recording.said]
        wrong += word_errors(list(chain(*said)), list(chain(*(normal(segment.text) for segment in heard))))
        words += sum(map(len, said))
        for segment in heard:
            touched = any(segment.start_s < end + 0.5 and segment.end_s > start - 0.5 for _, start, end in recording.said)
            stray += 0 if touched else len(normal(segment.text))
        for text, (_, start, _) in zip(said, recording.said, strict=True):
            same = [abs(segment.start_s - start) for segment in heard if normal(segment.text)[: len(text)] == text]
            exact += bool(same)
            starts += [min(same)] if same else []
    sentences = sum(len(recording.said) for recording, _ in found)
    off = np.array(starts or [np.nan])
    errors = {"median": float(np.median(off)), "p95": float(np.quantile(off, 0.95)), "max": float(off.max())}
    return {"sentences": sentences, "words": words, "wer": wrong / words, "stray_words": stray,
            "exact": exact / sentences, "start_error_s": errors}  # fmt: skip


def with_speech(listener: Listener, seed: int, only: str) -> dict[str, Any]:
    rows = {}
    for name, sentences in SETS:
        if only in name:
            found = [(one, listener.hear_pcm(one.pcm)) for one in recordings(name, seed, sentences)]
            rows[name] = {"minutes": sum(len(one.pcm) for one, _ in found) / RATE / 60, **judge(found)}
            show(name, rows[name])
    for name in ("station_report.ogg", "island_film.mp4"):
        if only in name:
            rows[name] = judge([(sample(name), listener.hear(SAMPLES / name))])
            show(name, rows[name])
    return rows


def show(name: str, row: dict[str, Any]) -> None:
    late = row["start_error_s"]
    print(f"{name:36} WER {row['wer']:.3f}  stray words {row['stray_words']:3}  word for word {row['exact']:.2f}"
          f"  starts off {late['median']:.2f} s (95 %: {late['p95']:.2f}, most {late['max']:.2f})", flush=True)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech-model", default=str(ROOT / "data" / "models" / "demo-whisper"))
    parser.add_argument("--lengths", type=float, nargs="+", default=[5.0, 12.0, 20.0, 28.0], help="seconds of each sound")
    parser.add_argument("--seed", type=int, default=9001, help="chosen before its first run; the gates were set on others")
    parser.add_argument("--only", default="", help="only the sets of speech whose name holds this")
    parser.add_argument("--window", type=float, help="seconds of speech at a time, in place of what the checkpoint says")
    parser.add_argument("--open", nargs="*", default=[], help="gates to switch off")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "benchmarks" / "speech.json")
    arguments = parser.parse_args(argv)
    listener = Listener(Config(speech_model=arguments.speech_model, speech_language="en", device="cpu"), arguments.open)
    if arguments.window:
        listener.transcriber._longest = int(arguments.window * RATE)
    quiet = without_speech(listener, arguments.lengths, arguments.seed) if not arguments.only else {}
    if quiet:
        print(f"nobody speaks: {quiet['words']} words in {quiet['minutes']:.1f} minutes of {quiet['kinds']} kinds of sound")
        print(json.dumps(plain(quiet["by_kind"])), *quiet["examples"], sep="\n  ")
    rows = with_speech(listener, arguments.seed, arguments.only)
    if not arguments.open and not arguments.only:
        data = {"speech_model": Path(arguments.speech_model).name, "nobody_speaks": quiet, "speech": rows}
        print(write_result("speech", data, path=arguments.out, command="python tests/benchmarks/transcription.py"))


if __name__ == "__main__":
    main()
