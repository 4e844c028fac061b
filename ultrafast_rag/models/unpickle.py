"""Pickled weights -> safetensors, once, in a process of its own with no secrets and little rights.

Only for a model that somebody asked for by name as "bin:...": `torch.load` with `weights_only=True` builds tensors and
nothing else, but its guard has had holes, so what it could do is limited too: no environment, limited time, memory and
files, and an output that is read as safetensors by whoever asked.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ultrafast_rag.errors import WeightsError

_TIMEOUT_S = 900  # chosen: gigabytes from a slow disk
_MEMORY_FACTOR, _MEMORY_LEAST = 3, 6 << 30  # address space: the file twice, and torch itself


def converted(folder: Path, files: Sequence[Path], digest: str, cache_dir: Path) -> Path:
    """A folder with `folder`'s json and text files and the weights of `files` as model.safetensors, made where it is not there.

    digest: of the files; names the folder. Raises WeightsError when they hold more than tensors, or cannot be read.
    """
    target = cache_dir / "converted" / digest[:32]
    if (target / "model.safetensors").is_file():
        return target
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=".converting-"))
    except OSError as error:
        raise WeightsError(f"converted weights cannot be kept in {target.parent}: {error}") from error
    try:
        for path in folder.iterdir():
            if path.suffix in (".json", ".txt") and path.is_file():
                shutil.copy(path, aside / path.name)
        _run([str(path.resolve()) for path in files], aside)
        if not target.exists():
            os.rename(aside, target)
    except OSError as error:
        raise WeightsError(f"converted weights cannot be kept in {target.parent}: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def _run(files: list[str], out: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    env = {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)]),
        "HOME": str(out),
        "OMP_NUM_THREADS": "1",
    }
    task = json.dumps({"files": files, "out": str(out / "model.safetensors")})
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, task], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_TIMEOUT_S, check=False, cwd=out,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WeightsError(f"converting {files[0]} did not finish: {error}") from error
    if done.returncode != 0 or not (out / "model.safetensors").is_file():
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise WeightsError(f"{files[0]} holds more than weights, or cannot be read: {said[-1][:200] if said else 'no word'}")


def _child(files: list[str], out: str) -> None:
    import torch
    from safetensors.torch import save_file

    size = sum(Path(path).stat().st_size for path in files)
    _limit(size)
    tensors: dict[str, Any] = {}
    for path in files:
        # nothing else reads this format; only asked for by name, tensors only, in this limited child (see the module's docstring)
        found = torch.load(path, map_location="cpu", weights_only=True)
        tensors |= {str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}
    # tied weights share memory, which safetensors does not write
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, out, metadata={"format": "pt"})


def _limit(size_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has none
        return
    for kind, most in (
        (resource.RLIMIT_CPU, _TIMEOUT_S),
        (resource.RLIMIT_AS, max(_MEMORY_LEAST, _MEMORY_FACTOR * size_bytes) + _taken_bytes()),
        (resource.RLIMIT_FSIZE, 2 * size_bytes + (1 << 20)),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(kind, (most, most))


def _taken_bytes() -> int:
    """Address space that torch's libraries have by now."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 16 << 30


if __name__ == "__main__":
    _child(**json.loads(sys.argv[1]))
