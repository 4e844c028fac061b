"""`python -m tests`: every check in order, fast ones first; stops at the first that fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
NBVAL = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300", "-p", "no:cacheprovider"]
CHECKS = (
    ("lint", ["ruff", "check", "."]),
    ("format", ["ruff", "format", "--check", "."]),
    ("types", ["mypy"]),
    ("tests", ["pytest", "-m", "not slow"]),
    ("slow tests", ["pytest", "-m", "slow"]),
    ("notebooks", ["pytest", *NBVAL, "notebooks"]),
)


def main() -> int:
    """Run the checks; arguments go to pytest in place of the whole list."""
    if len(sys.argv) > 1:
        return subprocess.run([sys.executable, "-m", "pytest", *sys.argv[1:]], cwd=ROOT).returncode
    for name, command in CHECKS:
        if name == "notebooks" and not list((ROOT / "notebooks").glob("*.ipynb")):
            continue
        start = time.perf_counter()
        print(f"== {name}", flush=True)
        # a hub within reach must not decide which models a notebook takes
        code = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"}).returncode
        print(f"== {name}: {'passed' if code == 0 else 'FAILED'} in {time.perf_counter() - start:.0f} s", flush=True)
        if code and not (name == "slow tests" and code == 5):  # 5: no test is marked slow
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
