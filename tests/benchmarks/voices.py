"""Our voice activity detection against WebRTC's (PyPI: webrtcvad-wheels), on sounds without and with a human voice.

    UFR_TEST_DATA=... python tests/benchmarks/voices.py [--seconds 12] [--seed 9001] [--out data/benchmarks/voices.json]

Without a voice: the 48 kinds of noise, machines, weather and music of tests/sounds.py. With one: the public recordings
(English, German, French), clean and in pink noise. Both are judged in pieces of 3 s by their share of voiced frames.
`missed`: share of the pieces with speech that a detector would drop at the largest share that drops nothing without
noise or at 20 dB; `taken`: share of the pieces without speech that it would keep there. `auc`: chance that a piece with
speech has the larger share of two.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import sounds  # noqa: E402

from ultrafast_rag.bench.result import write_result  # noqa: E402
from ultrafast_rag.extract.media.audio import RATE, decode_pcm  # noqa: E402
from ultrafast_rag.models.speech.vad import Voice  # noqa: E402

PIECE = 3 * RATE
FRAME = RATE * 30 // 1000  # the longest that WebRTC's takes
NOISES_DB = (None, 20, 10, 5, 0)


def pieces(sound: np.ndarray) -> Iterator[np.ndarray]:
    """Stretches of 3 s, those nearly silent left out."""
    for start in range(0, max(1, len(sound) - PIECE + 1), PIECE // 2):
        piece = sound[start : start + PIECE]
        if piece.std() > 0.25 * sound.std() and piece.std() > 1e-3:  # -60 dB of full scale: nothing is asked below it
            yield piece


def ours(sound: np.ndarray) -> float:
    """As the transcriber's gate takes it."""
    return Voice(sound).share(0.0, len(sound) / RATE)


def webrtc(mode: int) -> Callable[[np.ndarray], float]:
    """mode: 0 takes most for speech, 3 least."""
    import webrtcvad

    def share(sound: np.ndarray) -> float:
        pcm, detector = (np.clip(sound, -1, 1) * 32767).astype("<i2"), webrtcvad.Vad(mode)
        frames = [pcm[at : at + FRAME].tobytes() for at in range(0, len(pcm) - FRAME + 1, FRAME)]
        return float(np.mean([detector.is_speech(frame, RATE) for frame in frames]))

    return share


def speech(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(noise in dB below the voice, or "clean"; a recording in it)."""
    files = [*folder.glob("leopard/audio_samples/*.wav"), folder / "whisper" / "jfk.flac", *folder.glob("containers/*.mp3")]
    for path in sorted(files):
        clean = np.concatenate(list(decode_pcm(path))).astype(np.float32) / 32768
        for noise_db in NOISES_DB:
            noise = sounds.pink(np.random.default_rng(0), len(clean))
            level = 0.0 if noise_db is None else clean.std() * 10 ** (-noise_db / 20)
            yield "clean" if noise_db is None else f"{noise_db} dB", (clean + noise / noise.std() * level).astype(np.float32)


def judged(detector: Callable[[np.ndarray], float], seconds: float, seed: int, folder: Path) -> dict[str, object]:
    """Rates of one detector."""
    silent = {name: [detector(p) for p in pieces(pcm / np.float32(32768))] for name, pcm in sounds.corpus(seconds, seed=seed)}
    without = np.array([share for shares in silent.values() for share in shares])
    spoken: dict[str, list[float]] = {}
    for level, sound in speech(folder):
        spoken.setdefault(level, []).extend(detector(piece) for piece in pieces(sound))
    limit = min(*spoken["clean"], *spoken["20 dB"])
    every = np.array([share for shares in spoken.values() for share in shares])
    higher = (every[:, None] > without[None, :]).mean() + 0.5 * (every[:, None] == without[None, :]).mean()
    worst = {name: float(np.mean(np.array(shares) >= limit)) for name, shares in silent.items() if shares}
    return {
        "limit": limit,
        "pieces_without_speech": len(without),
        "taken": float((without >= limit).mean()),
        "kinds_taken": sorted(name for name, share in worst.items() if share > 0),
        "pieces_with_speech": len(every),
        "missed": {level: float((np.array(shares) < limit).mean()) for level, shares in spoken.items()},
        "auc": float(higher),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--seed", type=int, default=9001)
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "benchmarks" / "voices.json")
    arguments = parser.parse_args()
    folder = Path(os.environ["UFR_TEST_DATA"]) / "audio"
    detectors = {"ours": ours, **{f"webrtc, mode {mode}": webrtc(mode) for mode in range(4)}}
    rows = {name: judged(detector, arguments.seconds, arguments.seed, folder) for name, detector in detectors.items()}
    command = f"python tests/benchmarks/voices.py --seconds {arguments.seconds:g} --seed {arguments.seed}"
    found = {"seconds": arguments.seconds, "seed": arguments.seed, "detectors": rows}
    write_result("voices", found, command=command, path=arguments.out)
    for name, row in rows.items():
        sys.stdout.write(f"{name}: {row}\n")


if __name__ == "__main__":
    main()
