"""The machine a number is from: processor, memory, GPU, and the versions of what did the work."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

from ultrafast_rag.errors import require
from ultrafast_rag.models.device import cpu_facts, gpu_facts, gpu_may_be_there

_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "bf16",
)
_PACKAGES = (
    "ultrafast_rag",
    "torch",
    "transformers",
    "tokenizers",
    "openvino",
    "nncf",
    "faiss-cpu",
    "pymupdf",
    "numpy",
    "bitsandbytes",
    "open-clip-torch",
    "openai-whisper",
)


def machine() -> dict[str, Any]:
    """cpu, cores, flags that decide speed, ram_gb, gpus, system, Python, and how busy others kept it.

    load_15min: mean number of running processes, this one counted; well above the cores: timings are noise.
    """
    psutil, cpu = require("psutil", extra="notebook"), cpu_facts()
    gpus = gpu_facts() if gpu_may_be_there("auto") else ()
    return {
        "cpu": cpu.name,
        "cores": cpu.cores,
        "flags": [flag for flag in _FLAGS if flag in cpu.flags],
        "ram_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [gpu.summary() for gpu in gpus],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_15min": round(os.getloadavg()[2], 1) if hasattr(os, "getloadavg") else None,
    }


def busy(seconds: float = 1.0) -> float:
    """Share of the processors that other processes use, 0 to 1, watched for so long while this one sleeps."""
    psutil = require("psutil", extra="notebook")
    own = psutil.Process()
    family = [own, *own.children(recursive=True)]
    before = sum(sum(process.cpu_times()[:2]) for process in family)
    share = psutil.cpu_percent(interval=seconds) / 100
    used = sum(sum(process.cpu_times()[:2]) for process in family if process.is_running()) - before
    return float(max(0.0, share - used / seconds / (psutil.cpu_count() or 1)))


def versions() -> dict[str, str]:
    """Version of each installed package that a measurement depends on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
