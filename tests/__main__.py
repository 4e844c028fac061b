"""`python -m tests`: every check in order, fast ones first; stops at the first that fails.

`python -m tests lint types` runs the checks so named, `python -m tests -m long` the trials that are left out here; any other
arguments go to pytest: `python -m tests tests/test_rag.py -x`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
# what nearly every file needs first: converted while one core checks types, else two workers both convert it
WARM_UP = "from ultrafast_rag.rag import UltraFastRAG; UltraFastRAG(image_model=None, speech_model=None, quiet=True).warmup()"
NBVAL = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300", "-p", "no:cacheprovider"]
CHECKS = (
    ("lint", ["ruff", "check", "."]),
    ("format", ["ruff", "format", "--check", "."]),
    ("types", ["mypy"]),
    # a file's tests stay together: they share what the file made; more than four would convert more than they test
    ("tests", ["pytest", "-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "-m", "not slow and not long"]),
    ("slow tests", ["pytest", "-m", "slow and not long"]),
    ("notebooks", ["pytest", "-n", "2", "--dist", "loadfile", *NBVAL, "notebooks"]),
)


def main() -> int:
    """Run the checks, or those named; returns the exit code of the first that fails."""
    asked = sys.argv[1:]
    if not set(asked) <= {name for name, _ in CHECKS}:
        return subprocess.run([sys.executable, "-m", "pytest", *asked], cwd=ROOT).returncode
    # one cache for all, so that a model is converted once; a hub within reach must not decide which models a notebook takes;
    # one torch thread a process: those of two workers wait for each other inside every layer
    with tempfile.TemporaryDirectory(prefix="ufr-tests-", ignore_cleanup_errors=True) as cache:
        environment = {"UFR_CACHE_DIR": cache, "OMP_NUM_THREADS": "1", **os.environ, "HF_HUB_OFFLINE": "1"}
        wanted = [(name, command) for name, command in CHECKS if not asked or name in asked]
        if not any("pytest" in command for _, command in wanted):
            return _check(wanted, environment, None)
        with subprocess.Popen([sys.executable, "-c", WARM_UP], cwd=ROOT, env=environment) as warming:
            try:
                return _check(wanted, environment, warming)
            finally:
                warming.kill()


def _check(wanted: list[tuple[str, list[str]]], environment: dict[str, str], warming: subprocess.Popen[bytes] | None) -> int:
    for name, command in wanted:
        if name == "notebooks" and not list((ROOT / "notebooks").glob("*.ipynb")):
            continue
        if warming is not None and "pytest" in command:
            warming.wait()
        start = time.perf_counter()
        print(f"== {name}", flush=True)
        code = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment).returncode
        print(f"== {name}: {'passed' if code == 0 else 'FAILED'} in {time.perf_counter() - start:.0f} s", flush=True)
        if code and not (name == "slow tests" and code == 5):  # 5: no test is marked slow
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
