"""A measurement in a process of its own: nothing is warm that should be cold, and memory is its own.

    outcome = call("ultrafast_rag.bench.ingest:measure", {"sources": ["a.pdf"]})

The function gets the arguments as keywords and returns JSON values.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrafast_rag.errors import UltraFastRAGError, require
from ultrafast_rag.monitor import peak_rss_mb

_SAMPLE_S = 0.05  # chosen: twenty looks a second; a shorter peak is missed
_LOOK_FOR_CHILDREN_S = 0.5  # chosen: it walks all of /proc, so more seldom


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the function returned; seconds from start to end of the process.

    peak_mb: most resident memory of the process alone, in MiB.  tree_peak_mb: most of it and its
    children at one moment, sampled, pages they share counted for each.
    """

    value: Any
    seconds: float
    peak_mb: float
    tree_peak_mb: float


def call(
    target: str, arguments: Mapping[str, Any], *, environment: Mapping[str, str] | None = None, timeout_s: float = 7200
) -> Outcome:
    """Run `module:function` in a fresh interpreter. Raises UltraFastRAGError with the child's last words when it fails."""
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-bench-") as folder:
        answer, log = Path(folder, "answer.json"), Path(folder, "log")
        start = time.perf_counter()
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "ultrafast_rag.bench.child", target, str(answer)],
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                env={**os.environ, **(environment or {})},
            )
            watch = MemoryWatch(process.pid)
            try:
                process.communicate(json.dumps(dict(arguments)).encode(), timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise UltraFastRAGError(f"{target} did not end within {timeout_s:.0f} s") from None
            finally:
                tree_peak_mb = watch.stop()
        seconds = time.perf_counter() - start
        said = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else {}
        if "value" not in said:
            last = said.get("error") or log.read_text(errors="replace").strip()[-2000:] or f"exit code {process.returncode}"
            raise UltraFastRAGError(f"{target} failed: {last}")
    return Outcome(said["value"], seconds, said["peak_mb"], max(tree_peak_mb, said["peak_mb"]))


class MemoryWatch:
    """Samples the resident memory of a process and its children from a thread, until `stop`."""

    def __init__(self, pid: int) -> None:
        self._pid, self._peak, self._ended = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Largest sum seen, in MiB."""
        self._ended.set()
        self._thread.join()
        return self._peak / 2**20

    def _watch(self) -> None:
        psutil = require("psutil", extra="notebook")
        family: list[Any] = []
        looked = 0.0
        while not self._ended.wait(_SAMPLE_S):
            if time.monotonic() - looked > _LOOK_FOR_CHILDREN_S:
                looked, family = time.monotonic(), _family(self._pid)
            total = 0
            for process in family:
                try:
                    total += process.memory_info().rss
                except psutil.Error:  # it has just ended
                    continue
            self._peak = max(self._peak, total)


def _family(pid: int) -> list[Any]:
    psutil = require("psutil", extra="notebook")
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def peak_mb() -> float:
    """Most resident memory of this process in MiB.

    From VmHWM where there is one: ru_maxrss of a process just started still holds its parent's peak.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return peak_rss_mb()


def main(target: str, answer: str) -> None:
    """Child side: run the function on stdin's JSON and leave its value in the file `answer`."""
    module, _, name = target.partition(":")
    arguments = json.loads(sys.stdin.read())
    try:
        said = {"value": getattr(importlib.import_module(module), name)(**arguments)}
    except UltraFastRAGError as error:
        said = {"error": f"{type(error).__name__}: {error}"}
    Path(answer).write_text(json.dumps({**said, "peak_mb": peak_mb()}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
