"""What other programs cost: a minute of speech and the encoding of texts, alone and beside busy processes.

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
SPEECH_S = 60.0  # of the recording, heard again from its start where it is shorter
_PASSAGES = 400  # of 100 words: a second or more of work on two cores
_MOST_GROWTH = 2.0  # the project's own goal for core-seconds beside others against alone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many busy processes, how often, which speech model."""
    parser.add_argument("--processes", type=int, default=2, help="busy processes beside the work")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; the one of fewest seconds is shown")
    parser.add_argument("--speech-model", default=str(MODEL), help="a Whisper checkpoint (default: the demonstration's)")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """A row for each kind of work, alone and beside others. ConfigError where there is no recording."""
    if not SPOKEN.exists():
        raise ConfigError(f"{SPOKEN} is not here; run this in a checkout")
    settings = {"speech_model": arguments.speech_model, **settings_of(arguments.set)}
    prepare_models()
    others = busy()
    rows = []
    for work in ("speech", "texts"):
        for beside in (0, arguments.processes):
            say(f"{work} beside {beside} busy processes ...")
            with spinning(beside):
                asked = {"work": work, "settings": settings, "repeats": arguments.repeats}
                rows.append({"work": work, "beside": beside, **call("ultrafast_rag.bench.busy:measure", asked).value})
    for row in rows:
        alone = next(one for one in rows if one["work"] == row["work"])
        row["core-s against alone"] = row["core-s"] / alone["core-s"]
        row["met"] = row["core-s against alone"] <= _MOST_GROWTH
    notes = (
        f"speech: {SPEECH_S:.0f} s of {SPOKEN.name}; texts: {_PASSAGES} passages of 100 words",
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


def measure(work: str, settings: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Seconds and core-seconds of the quickest of `repeats` runs, once warm; in a process of its own."""
    what, act = _speech(settings) if work == "speech" else _texts(settings)
    act()
    runs = []
    for _ in range(max(1, repeats)):
        clock, cores = time.perf_counter(), time.process_time()
        act()
        runs.append((time.perf_counter() - clock, time.process_time() - cores))
    seconds, core_s = min(runs)
    return {"model": what, "s": seconds, "core-s": core_s}


def _speech(settings: dict[str, Any]) -> tuple[str, Callable[[], object]]:
    from ultrafast_rag.extract.media.audio import RATE, decode_pcm
    from ultrafast_rag.models.device import plan_device
    from ultrafast_rag.models.speech.whisper import open_transcriber

    config = config_of(settings)
    heard = b"".join(piece.tobytes() for piece in decode_pcm(SPOKEN))
    size = int(SPEECH_S * RATE) * 2  # 16 bits a sample
    minute = (heard * (size // len(heard) + 1))[:size]
    window = size // 3  # parts of 20 s, about as long as the extractor cuts them
    transcriber = open_transcriber(config, plan_device(config))
    parts = [minute[start : start + window] for start in range(0, size, window)]
    return Path(str(config.speech_model)).name, lambda: transcriber.transcribe_many(parts, language="en")


def _texts(settings: dict[str, Any]) -> tuple[str, Callable[[], object]]:
    from ultrafast_rag.models.text.encoder import open_text_encoder

    encoder = open_text_encoder(config_of(settings))
    words = "the keeper of the lamp climbs the tower each night and writes down wind sea and ships that pass the island".split()
    passages = [f"{n}: " + " ".join(words[(n + k) % len(words)] for k in range(100)) for n in range(_PASSAGES)]
    return encoder.engine.name, lambda: encoder.encode(passages)
