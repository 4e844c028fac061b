"""From the start of a process to its first answer, on an index that is there: what a command line or a restart costs."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ultrafast_rag.bench.child import call
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import HANDBOOK, add_settings, config_of, prepare_models, settings_of
from ultrafast_rag.errors import ConfigError, UltraFastRAGError
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import Table

TARGET_S, TARGET_MB = 0.8, 400  # the project's own goal
QUESTIONS = ("Who founded the station, and when?", "How many steps does the tower have?")
# the public surface only, in a bare interpreter: nothing of this folder is imported
_CODE = """
import json, sys, time
start = time.perf_counter()
from ultrafast_rag import UltraFastRAG
imported = time.perf_counter()
rag = UltraFastRAG(sys.argv[1], **json.loads(sys.argv[4]))
opened = time.perf_counter()
answer = rag.query(sys.argv[2])
answered = time.perf_counter()
print("answered", flush=True)
hits = rag.search(sys.argv[3])
searched = time.perf_counter()
status = open("/proc/self/status").read() if sys.platform == "linux" else ""
peak = [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")]
print(json.dumps({
    "import_s": imported - start, "open_s": opened - imported, "answer_s": answered - opened,
    "next_search_s": searched - answered,
    "peak_mb": peak[0] if peak else rag.stats()["peak_rss_mb"], "supported": answer.supported, "text": answer.text,
    "modules": sorted({name.split(".")[0] for name in sys.modules} & set(sys.argv[5:])),
}))
rag.close()
"""
HEAVY = (
    "torch",
    "transformers",
    "openvino",
    "nncf",
    "faiss",
    "tokenizers",
    "pymupdf",
    "PIL",
    "av",
    "IPython",
    "pandas",
    "matplotlib",
    "diskcache",
    "scipy",
    "sqlite3",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which index, how often."""
    parser.add_argument("--index", type=Path, metavar="DIR", help=f"an index that is there (default: a new one of {HANDBOOK})")
    parser.add_argument("--question", default=QUESTIONS[0], help="the first question")
    parser.add_argument("--repeats", type=int, default=7, help="processes started; medians are shown")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """One row of medians over fresh processes."""
    settings = settings_of(arguments.set)
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-cold-") as folder:
        place = arguments.index or Path(folder, "index")
        if arguments.index is None:
            if not HANDBOOK.exists():
                raise ConfigError(f"{HANDBOOK} is not here; name an index with --index DIR")
            prepare_models()
            say("building the index ...")
            call("ultrafast_rag.bench.coldstart:build", {"place": str(place), "source": str(HANDBOOK), "settings": settings})
        runs = [start(place, arguments.question, {"quiet": True, **settings}) for _ in range(arguments.repeats)]
    median = {name: statistics.median(run[name] for run in runs) for name in ("first_answer_s", "peak_mb", *_STEPS)}
    row = {
        "first answer s": median["first_answer_s"],
        "import s": median["import_s"],
        "open s": median["open_s"],
        "answer s": median["answer_s"],
        "next search ms": 1000 * median["next_search_s"],
        "peak MB": median["peak_mb"],
        "target s": TARGET_S,
        "target MB": TARGET_MB,
        "met": median["first_answer_s"] <= TARGET_S and median["peak_mb"] <= TARGET_MB and "torch" not in runs[-1]["modules"],
    }
    notes = (
        "first answer: from starting the interpreter to the answer; medians of fresh processes, files in the page cache",
        f"modules loaded: {', '.join(runs[-1]['modules'])}",
        f"answer: {runs[-1]['text'][:160]}",
    )
    return Result(Table([row], "Cold start", notes=notes), {"runs": runs})


_STEPS = ("import_s", "open_s", "answer_s", "next_search_s")


def build(place: str, source: str, settings: dict[str, Any]) -> None:
    """Make the index, in a process that ends before the first start is measured."""
    with UltraFastRAG(place, config=config_of(settings)) as rag:
        rag.ingest(source)


def start(place: Path, question: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One fresh process with these settings. Raises UltraFastRAGError with its last words when it does not answer."""
    command = [sys.executable, "-c", _CODE, str(place), question, QUESTIONS[1], json.dumps(settings), *HEAVY]
    with tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            seconds = time.perf_counter() - began
            rest = process.stdout.read()
        errors.seek(0)
        said = errors.read()
    if first != "answered\n" or process.returncode:
        raise UltraFastRAGError(f"the fresh process gave no answer: {said.strip()[-1000:]}")
    measured: dict[str, Any] = json.loads(rest)
    return {"first_answer_s": seconds, **measured}
