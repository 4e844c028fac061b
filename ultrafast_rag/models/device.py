"""What this machine can run, and the reason for each choice.

Reads CPU flags from the operating system and asks torch about GPUs only where one could be there:
a process that answers questions on a CPU never imports torch. Loads no model and measures no speed
(`text/select.py` does); how GPU memory is shared out is `pool.py`'s.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError

DType = Literal["float32", "bfloat16", "float16"]
Quantization = Literal["none", "8bit", "4bit"]

_ENGINE_DTYPE: dict[str, DType] = {
    "torch-f32": "float32",
    "torch-bf16": "bfloat16",
    "torch-f16": "float16",
    "openvino-f32": "float32",
    "openvino-bf16": "bfloat16",
    "openvino-int8": "bfloat16",
}
# (tokens, pictures) encoded and committed together: sorted by length, 64 k tokens encode a tenth faster than 8 k on two cores,
# and lose more when a run is cut off; a GPU takes a batch of 65 536 tokens at once (`text/torch.py`), and takes those pictures
# less than a second
_GROUP_CPU, _GROUP_GPU = (16_384, 32), (65_536, 256)
_GPU_SIGNS = ("/dev/nvidiactl", "/dev/nvidia0", "/proc/driver/nvidia/version", "/dev/dxg", "/dev/kfd")


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """cores: those this process may use (affinity and container quota counted), at least 1."""

    name: str
    cores: int
    flags: frozenset[str] = frozenset()

    @property
    def avx512(self) -> bool:
        """512-bit vectors."""
        return "avx512f" in self.flags

    @property
    def vnni(self) -> bool:
        """int8 dot products in one instruction; without them int8 does not pay."""
        return bool(self.flags & {"avx512_vnni", "avx_vnni", "avx512vnni", "i8mm", "asimddp"})

    @property
    def bf16(self) -> bool:
        """bf16 products in hardware; emulated bf16 is slower than float32."""
        return bool(self.flags & {"avx512_bf16", "amx_bf16", "bf16"})

    @property
    def amx(self) -> bool:
        """Matrix tiles (Sapphire Rapids and later)."""
        return bool(self.flags & {"amx_tile", "amx_int8", "amx_bf16"})

    def summary(self) -> str:
        """One line, e.g. 'AMD EPYC, 2 cores, AVX-512 VNNI BF16'."""
        known = (
            ("AVX-512", self.avx512),
            ("AVX2", "avx2" in self.flags and not self.avx512),
            ("VNNI", self.vnni),
            ("BF16", self.bf16),
            ("AMX", self.amx),
        )
        return f"{self.name}, {self.cores} cores, {' '.join(n for n, there in known if there) or 'no vector extensions known'}"


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """bf16: in hardware, not emulated (a T4 says it supports bf16 and means emulation)."""

    index: int
    name: str
    capability: tuple[int, int]
    free_bytes: int
    total_bytes: int
    bf16: bool
    supported: bool  # the installed torch has kernels for it

    def summary(self) -> str:
        """One line with name, compute capability and memory."""
        return (
            f"{self.name}, compute capability {self.capability[0]}.{self.capability[1]}, "
            f"{self.free_bytes / 2**30:.1f} of {self.total_bytes / 2**30:.1f} GiB free"
        )


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """Where and how models run. `reasons` has one sentence for each field named in it.

    devices: torch names, ("cpu",) or ("cuda:0", "cuda:1").  dtype: of torch models on them.
    engines: text-encoder engines to try, most promising first; the chooser may measure them.
    attention: transformers' `attn_implementation`.
    """

    devices: tuple[str, ...]
    dtype: DType
    quantization: Quantization
    compile: bool
    attention: str
    engines: tuple[str, ...]
    cpu: CpuFacts
    gpus: tuple[GpuFacts, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        """True when models run on CUDA (or ROCm) devices."""
        return self.devices[0] != "cpu"

    @property
    def group(self) -> tuple[int, int]:
        """Tokens and pictures worth encoding together: on GPUs a full batch for each of them."""
        tokens, pictures = _GROUP_GPU if self.on_gpu else _GROUP_CPU
        return tokens * len(self.devices), pictures * len(self.devices)

    def rows(self) -> list[tuple[str, str, str]]:
        """(setting, value, reason) for `doctor()`."""
        values: dict[str, Any] = {
            "devices": ", ".join(self.devices),
            "dtype": self.dtype,
            "quantization": self.quantization,
            "compile": "on" if self.compile else "off",
            "attention": self.attention,
            "engines": ", ".join(self.engines),
        }
        rows = [(name, value, self.reasons.get(name, "")) for name, value in values.items()]
        rows.append(("cpu", self.cpu.summary(), ""))
        return rows + [
            (f"gpu {gpu.index}", gpu.summary(), "" if gpu.supported else "unused: this torch has no kernels for it")
            for gpu in self.gpus
        ]


def usable_cores() -> int:
    """Cores this process may keep busy: affinity mask and cgroup quota, at least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cores = os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    try:
        limit, period = quota.read_text().split()
        if limit != "max":
            cores = min(cores, max(1, round(int(limit) / int(period))))
    except (OSError, ValueError):  # no cgroup v2 here
        pass
    return max(1, cores)


@contextlib.contextmanager
def few_threads(torch: Any, count: int | None = None) -> Iterator[None]:
    """So many torch threads, half as many as cores by default, in the calling thread, for as long as the block runs.

    Torch's threads wait for each other inside every layer: beside other busy processes 25 s of speech took 70 s and
    11.8 core-seconds with two threads on two cores, 14 s and 2.2 with one (demo Whisper, EPYC Zen 3, load 12, 2026-11).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or max(1, usable_cores() // 2))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def cpu_facts() -> CpuFacts:
    """Name, usable cores and instruction flags; flags are empty where the system does not tell them."""
    name, flags = platform.processor() or platform.machine() or "CPU", frozenset[str]()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return CpuFacts(name, usable_cores(), flags)
    return _parse_cpuinfo(text, name=name, cores=usable_cores())


def _parse_cpuinfo(text: str, *, name: str, cores: int) -> CpuFacts:
    flags = frozenset[str]()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() in ("flags", "Features"):  # x86, arm
            flags = frozenset(value.split())
            break
    return CpuFacts(name, cores, flags)


def gpu_may_be_there(device: str) -> bool:
    """True when asking torch is worth its 1.5 s: a GPU was asked for, or the system shows signs of one."""
    if device == "cpu" or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    if device.startswith("cuda"):
        return True
    if sys.platform == "win32":
        return shutil.which("nvidia-smi") is not None
    return any(Path(sign).exists() for sign in _GPU_SIGNS)


def _arch_supported(capability: tuple[int, int], arch_list: list[str]) -> bool:
    """Whether a torch built for `arch_list` runs on the GPU: same major and not newer, or PTX not newer."""
    major, minor = capability
    if not arch_list or any(arch.startswith("gfx") for arch in arch_list):
        return True  # ROCm answers in its own names; torch itself then refuses what it lacks
    for arch in arch_list:
        kind, _, digits = arch.partition("_")
        number = int("".join(c for c in digits if c.isdigit()) or 0)
        built = (number // 10, number % 10)
        if (kind == "sm" and built[0] == major and built[1] <= minor) or (kind == "compute" and built <= capability):
            return True
    return False


def gpu_facts() -> tuple[GpuFacts, ...]:
    """What torch sees; () when torch is missing or sees nothing."""
    if importlib.util.find_spec("torch") is None:
        return ()
    import torch

    if not torch.cuda.is_available():
        return ()
    facts, arch_list = [], torch.cuda.get_arch_list()
    for index in range(torch.cuda.device_count()):
        capability = tuple(torch.cuda.get_device_capability(index))
        free, total = torch.cuda.mem_get_info(index)
        with torch.cuda.device(index):
            bf16 = bool(torch.cuda.is_bf16_supported(including_emulation=False))
        facts.append(
            GpuFacts(
                index, torch.cuda.get_device_name(index), capability, free, total, bf16, _arch_supported(capability, arch_list)
            )
        )
    return tuple(facts)


def plan_device(config: Config) -> DevicePlan:
    """The plan for this machine under `config`.

    Raises ConfigError when `config.device` names a GPU that is not there or cannot be used.
    """
    cpu = cpu_facts()
    gpus = gpu_facts() if gpu_may_be_there(config.device) else ()
    devices, why_devices = _devices(config, gpus)
    on_gpu = devices[0] != "cpu"
    used = tuple(g for g in gpus if f"cuda:{g.index}" in devices)
    quantization, why_quantization = _quantization(config, on_gpu=on_gpu)
    engines, why_engines = _engines(config, cpu, used, quantization)
    dtype, why_dtype = _dtype(config, cpu, used)
    compiled = config.compile and quantization == "none"
    reasons = {
        "devices": why_devices,
        "dtype": why_dtype,
        "quantization": why_quantization,
        "engines": why_engines,
        "attention": "fused attention of torch; FlashAttention-2 needs compute capability 8.0 and gains nothing at these lengths",
        "compile": "asked for"
        if compiled
        else "gains at most 1.3x on these models and costs 15-40 s; compile=True turns it on"
        if not config.compile
        else "quantized layers are not compiled",
    }
    return DevicePlan(devices, dtype, quantization, compiled, "sdpa", engines, cpu, gpus, reasons)


def _devices(config: Config, gpus: tuple[GpuFacts, ...]) -> tuple[tuple[str, ...], str]:
    usable = [g for g in gpus if g.supported]
    asked = config.device
    if asked == "cpu":
        return ("cpu",), "asked for"
    if asked.startswith("cuda:"):
        wanted = [g for g in usable if f"cuda:{g.index}" == asked]
        if not wanted:
            seen = ", ".join(g.summary() for g in gpus) or "none"
            raise ConfigError(f"device={asked!r} is not usable here (GPUs: {seen}); use device='auto' or 'cpu'")
        return (asked,), "asked for"
    if asked not in ("auto", "cuda"):
        raise ConfigError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', not {asked!r}")
    if usable:
        return tuple(f"cuda:{g.index}" for g in usable), "; ".join(g.summary() for g in usable)
    if asked == "cuda":
        raise ConfigError(f"device='cuda' but no usable GPU: {_why_no_gpu(gpus)}; use device='auto' or 'cpu'")
    return ("cpu",), _why_no_gpu(gpus)


def _why_no_gpu(gpus: tuple[GpuFacts, ...]) -> str:
    if not gpus:
        return "no GPU found"
    names = ", ".join(f"{g.name} (sm_{g.capability[0]}{g.capability[1]})" for g in gpus)
    return f"the installed torch has no kernels for {names}"


def _quantization(config: Config, *, on_gpu: bool) -> tuple[Quantization, str]:
    asked = config.quantization
    if asked == "auto":
        return "none", "8-bit layers are 2-7x slower than float16 on models this small and save under 0.3 GB"
    if asked == "none":
        return "none", "asked for"
    if importlib.util.find_spec("bitsandbytes") is None:
        return "none", f"{asked} asked for, but bitsandbytes is not installed: pip install 'ultrafast_rag[quant]'"
    return asked, f"asked for: {asked} linear layers by bitsandbytes" + ("" if on_gpu else ", on a CPU to save memory, not time")


def _dtype(config: Config, cpu: CpuFacts, gpus: tuple[GpuFacts, ...]) -> tuple[DType, str]:
    if config.engine != "auto":
        dtype = _ENGINE_DTYPE[config.engine]
        if not config.engine.startswith("openvino") or gpus or dtype == "float32" or cpu.bf16:
            return dtype, f"follows engine={config.engine!r}"
    if gpus:
        return "float16", "half precision on tensor cores, more exact than bf16; NaN rows are encoded again in float32"
    if cpu.bf16:
        return "bfloat16", "this CPU multiplies bf16 in hardware"
    return "float32", "this CPU has no bf16 products; emulating them is slower than float32"


def _engines(
    config: Config, cpu: CpuFacts, gpus: tuple[GpuFacts, ...], quantization: Quantization
) -> tuple[tuple[str, ...], str]:
    if quantization != "none":
        bits = f"torch-{quantization}"
        if not gpus and quantization == "8bit" and config.engine in ("auto", "openvino-int8") and _has_openvino():
            return ("openvino-int8", bits), "8bit asked for: OpenVINO int8 is the fast form of it on a CPU"
        return (bits,), f"quantization={quantization!r} asked for"
    if config.engine != "auto":
        return (config.engine,), "asked for"
    if gpus:
        return ("torch-f16", "torch-f32"), "GPU: torch in float16"
    torch_engines = ("torch-bf16", "torch-f32") if cpu.bf16 else ("torch-f32",)
    if not _has_openvino():
        return torch_engines, "openvino is not installed: pip install 'ultrafast_rag[cpu]' makes encoding several times faster"
    if cpu.vnni and cpu.bf16:
        return ("openvino-int8", "openvino-bf16", "openvino-f32", *torch_engines), "int8 and bf16 products in hardware"
    if cpu.vnni:
        return ("openvino-int8", "openvino-f32", "torch-f32"), "int8 products in hardware, no bf16"
    # not worth its conversion: 0.85 of float32's speed on AMD Zen 3 (3 211 and 3 632, 3 069 and 3 763 tokens/s)
    return (
        "openvino-f32",
        "torch-f32",
    ), "no int8 or bf16 products in hardware; int8 by other instructions is slower than float32"


def _has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None
