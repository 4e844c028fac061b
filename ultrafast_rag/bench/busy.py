"""What other programs cost: speech and the encoding of texts, alone and beside busy processes.

Threads that wait for each other inside every layer burn what a busy machine has not got: then core-seconds grow, not only
the wait. Two cores shared with others are also what free notebooks give.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ultrafast_rag.bench.child import call
from ultrafast_rag.bench.machine import busy
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import SAMPLES, add_settings, config_of, prepare_models, settings_of
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.types import Table

SPOKEN = SAMPLES / "station_report.ogg"
MODEL = SAMPLES.parent / "models" / "demo-whisper"
_WINDOW_S = 20.0  # of a part of the recording, about as long as the extractor cuts them
_ENOUGH_S = 60.0  # chosen: no further repeat is begun after this, so that a slow and busy machine comes to an end
_MOST_GROWTH = 2.0  # the project's own goal for core-seconds beside others against alone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many busy processes, how much work, how often, which speech model. By default it ends within minutes anywhere."""
    parser.add_argument("--processes", type=int, default=2, help="busy processes beside the work")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each, within a minute; the quickest is shown")
    parser.add_argument(
        "--seconds", type=float, default=_WINDOW_S, help="of speech; the recording is heard again where it is shorter"
    )
    parser.add_argument("--passages", type=int, default=100, help="texts of 100 words")
    parser.add_argument("--speech-model", default=str(MODEL), help="a Whisper checkpoint (default: the demonstration's)")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """A row for each kind of work, alone and beside others. ConfigError where there is no recording."""
    if not SPOKEN.exists():
        raise ConfigError(f"{SPOKEN} is not here; run this in a checkout")
    if arguments.seconds <= 0 or arguments.passages < 1:
        raise ConfigError("--seconds must be above 0 and --passages at least 1")
    settings = {"speech_model": arguments.speech_model, **settings_of(arguments.set)}
    prepare_models()
    others = busy()
    rows = []
    for work, amount in (("speech", arguments.seconds), ("texts", arguments.passages)):
        for beside in (0, arguments.processes):
            say(f"{work} beside {beside} busy processes ...")
            with spinning(beside):
                asked = {"work": work, "amount": amount, "settings": settings, "repeats": arguments.repeats}
                rows.append({"work": work, "beside": beside, **call("ultrafast_rag.bench.busy:measure", asked).value})
    for row in rows:
        alone = next(one for one in rows if one["work"] == row["work"])
        row["core-s against alone"] = row["core-s"] / alone["core-s"]
        row["met"] = row["core-s against alone"] <= _MOST_GROWTH
    notes = (
        f"speech: {arguments.seconds:.0f} s of {SPOKEN.name}; texts: {arguments.passages} passages of 100 words",
        "core-s: seconds of processor of all threads; s: on the clock, which others may take",
        f"other programs used {others:.0%} of the processor before",
    )
    return Result(Table(rows, "Beside busy processes", notes=notes), {"others": others})


@contextlib.contextmanager
def spinning(count: int) -> Iterator[Sequence[int]]:
    """So many processes that do nothing but take processor time; gives their ids."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield [loop.pid for loop in loops]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure(work: str, amount: float, settings: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Seconds and core-seconds of the quickest of `repeats` runs, once warm; in a process of its own.

    amount: seconds of speech, or passages.
    """
    what, pieces, act = _speech(settings, amount) if work == "speech" else _texts(settings, int(amount))
    act(pieces[: max(1, len(pieces) // 4)])
    runs: list[tuple[float, float]] = []
    start = time.perf_counter()
    while not runs or (len(runs) < repeats and time.perf_counter() - start < _ENOUGH_S):
        clock, cores = time.perf_counter(), time.process_time()
        act(pieces)
        runs.append((time.perf_counter() - clock, time.process_time() - cores))
    seconds, core_s = min(runs)
    return {"model": what, "s": seconds, "core-s": core_s}


def _speech(settings: dict[str, Any], speech_s: float) -> tuple[str, list[Any], Callable[[list[Any]], object]]:
    from ultrafast_rag.extract.media.audio import RATE, decode_pcm
    from ultrafast_rag.models.device import plan_device
    from ultrafast_rag.models.speech.whisper import open_transcriber

    config = config_of(settings)
    heard = b"".join(piece.tobytes() for piece in decode_pcm(SPOKEN))
    size, window = int(speech_s * RATE) * 2, int(_WINDOW_S * RATE) * 2  # 16 bits a sample
    sound = (heard * (size // len(heard) + 1))[:size]
    transcriber = open_transcriber(config, plan_device(config))
    parts: list[Any] = [sound[start : start + window] for start in range(0, size, window)]
    return Path(str(config.speech_model)).name, parts, lambda some: transcriber.transcribe_many(some, language="en")


def _texts(settings: dict[str, Any], count: int) -> tuple[str, list[Any], Callable[[list[Any]], object]]:
    from ultrafast_rag.models.text.encoder import open_text_encoder

    encoder = open_text_encoder(config_of(settings))
    words = "the keeper of the lamp climbs the tower each night and writes down wind sea and ships that pass the island".split()
    passages: list[Any] = [f"{n}: " + " ".join(words[(n + k) % len(words)] for k in range(100)) for n in range(count)]
    return encoder.engine.name, passages, encoder.encode
