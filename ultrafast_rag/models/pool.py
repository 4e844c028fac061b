"""Which models are in memory: loaded on first use, kept while they fit, idle ones let go when not.

Knows sizes and devices, not what a model does: `rag.py` registers loaders by name. A call takes a
lease, so a model is never dropped in the middle of its work. Sizes are estimates until the first load on a
GPU, measured from then on. Without a limit (a CPU, unless one is given) nothing is ever dropped.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, DeviceMemoryError
from ultrafast_rag.models.device import DevicePlan
from ultrafast_rag.models.weights import weight_files

_BYTES = {
    "float32": 4.0,
    "bfloat16": 2.0,
    "float16": 2.0,
    "8bit": 1.05,
    "4bit": 0.56,
}  # a parameter, scales counted; embeddings stay half
_WORKING = 1.15  # activations and allocator slack over the weights alone
_RESERVE_BYTES = 600 << 20  # CUDA context and library workspaces
_MILLIONS = {  # parameters of models whose files need not be there to plan
    "all-minilm-l6-v2": 23,
    "packaged": 23,  # the packaged reader, on the same weights
    "bge-small": 33,
    "bge-base": 109,
    "bge-m3": 568,
    "e5-small": 118,
    "e5-base": 278,
    "e5-large": 560,
    "clip-vit-base-patch32": 151,
    "clip-vit-base-patch16": 150,
    "clip-vit-large-patch14": 428,
    "vit-b-32": 151,
    "vit-b-16": 150,
    "vit-l-14": 428,
    "vit-h-14": 986,
    "large-v3-turbo": 809,
    "turbo": 809,
    "tiny": 39,
    "base": 74,
    "small": 244,
    "medium": 769,
    "large": 1550,
}


@dataclass(frozen=True, slots=True)
class ModelUse:
    """One model's row for `doctor()` and `stats()`. size_bytes: a device; measured: not an estimate any more."""

    name: str
    loaded: bool
    size_bytes: int
    measured: bool
    devices: tuple[str, ...]
    loads: int
    idle_s: float | None
    reason: str


class _Slot:
    """What the pool knows of one model."""

    def __init__(self, name: str, load: Callable[[], Any], size_bytes: int, devices: tuple[str, ...]) -> None:
        self.name, self.load, self.size_bytes, self.devices = name, load, size_bytes, devices
        self.model: Any = None
        self.loading = self.measured = False
        self.leases = self.loads = 0
        self.used_at: float | None = None
        self.reason = "not used yet"

    @property
    def held(self) -> bool:
        """Takes up memory, or is about to."""
        return self.model is not None or self.loading


class ModelPool:
    """Models by name, within a limit of memory a device; safe to call from several threads.

    limit_bytes: a device; None takes `config.max_vram_gb`, else what the plan found free, on a GPU, and
    no limit on a CPU. A model in use is never dropped: if what is in use leaves no room, the next one is
    loaded all the same, and its reason says so.
    """

    def __init__(
        self, config: Config, plan: DevicePlan, *, limit_bytes: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._plan, self._clock = plan, clock
        self.limit_bytes, self.limit_reason = _limit(config, plan, limit_bytes)
        self._slots: dict[str, _Slot] = {}
        self._changed = threading.Condition(threading.RLock())

    def register(self, name: str, load: Callable[[], Any], *, size_bytes: int, devices: tuple[str, ...] = ()) -> None:
        """Make `name` known. load: makes the model; size_bytes: its estimate on each of `devices` (default: the plan's first).

        A model already loaded under the name is let go.
        """
        with self._changed:
            if name in self._slots:
                self.release(name)
            self._slots[name] = _Slot(name, load, size_bytes, devices or self._plan.devices[:1])

    @contextlib.contextmanager
    def lease(self, name: str) -> Iterator[Any]:
        """The model, loaded if need be, and kept for as long as the block runs.

        Raises ConfigError for an unknown name, DeviceMemoryError when it does not fit even alone, and
        whatever its loader raises.
        """
        slot = self._acquire(name)
        try:
            yield slot.model
        finally:
            with self._changed:
                slot.leases -= 1
                slot.used_at = self._clock()
                self._changed.notify_all()

    def release(self, name: str) -> bool:
        """Let a model go; True if it was loaded. One in use is let go by its last user's end."""
        with self._changed:
            slot = self._slot(name)
            while slot.loading or slot.leases:
                self._changed.wait()
            if slot.model is None:
                return False
            self._drop(slot, "released")
        clear_caches()
        return True

    def close(self) -> None:
        """Let all models go that are not in use."""
        with self._changed:
            for slot in self._slots.values():
                if slot.model is not None and not slot.leases:
                    self._drop(slot, "the pool was closed")
        clear_caches()

    def clear_memory(self) -> None:
        """Give cached memory back to the device and the system; every model stays loaded."""
        clear_caches()

    def use(self) -> list[ModelUse]:
        """A row for each known model, in the order registered."""
        with self._changed:
            now = self._clock()
            return [
                ModelUse(
                    slot.name,
                    slot.model is not None,
                    slot.size_bytes,
                    slot.measured,
                    slot.devices,
                    slot.loads,
                    None if slot.used_at is None else max(0.0, now - slot.used_at),
                    slot.reason,
                )
                for slot in self._slots.values()
            ]

    def used_bytes(self, device: str) -> int:
        """Of the models on a device, by estimate or measurement."""
        with self._changed:
            return sum(slot.size_bytes for slot in self._slots.values() if slot.held and device in slot.devices)

    def _slot(self, name: str) -> _Slot:
        if name not in self._slots:
            raise ConfigError(f"no model {name!r} is registered; known are {', '.join(self._slots) or 'none'}")
        return self._slots[name]

    def _acquire(self, name: str) -> _Slot:
        with self._changed:
            slot = self._slot(name)
            while slot.loading:
                self._changed.wait()
            if slot.model is not None:
                slot.leases += 1
                slot.used_at = self._clock()
                return slot
            dropped, crowded = self._make_room(slot)
            slot.loading = True
        try:
            model, seconds = self._load(slot, dropped)
        except BaseException:  # whatever ends a load, those who wait for it must wake
            with self._changed:
                slot.loading = False
                slot.reason = "could not be loaded"
                self._changed.notify_all()
            raise
        with self._changed:
            slot.model, slot.loading, slot.used_at = model, False, self._clock()
            slot.leases += 1
            slot.loads += 1
            slot.reason = f"loaded on first use in {seconds:.1f} s" if slot.loads == 1 else f"loaded again in {seconds:.1f} s"
            slot.reason += f", after {', '.join(dropped)} made room" if dropped else ""
            slot.reason += f"; over the limit, because {', '.join(crowded)} is in use" if crowded else ""
            self._changed.notify_all()
        return slot

    def _make_room(self, wanted: _Slot) -> tuple[list[str], list[str]]:
        """Drop idle models until `wanted` fits: names dropped, names in the way.

        The least recently used of those that make enough room alone, so that a small model in daily use
        stays; the least recently used of all where none does.
        """
        dropped: list[str] = []
        while (crowd := self._in_the_way(wanted)) is not None:
            idle = [slot for slot in crowd if slot.model is not None and not slot.leases]
            if not idle:
                if not crowd:
                    self._check_alone(wanted)
                return dropped, [slot.name for slot in crowd]
            short = max(self.used_bytes(device) for device in wanted.devices) + wanted.size_bytes - (self.limit_bytes or 0)
            enough = [slot for slot in idle if slot.size_bytes >= short]
            oldest = min(enough or idle, key=lambda slot: slot.used_at or 0.0)
            self._drop(oldest, f"let go to make room for {wanted.name}")
            dropped.append(oldest.name)
        if dropped:
            clear_caches()
        return dropped, []

    def _in_the_way(self, wanted: _Slot) -> list[_Slot] | None:
        """Models on the devices that `wanted` does not fit on; None when it fits."""
        if self.limit_bytes is None:
            return None
        full = [device for device in wanted.devices if self.used_bytes(device) + wanted.size_bytes > self.limit_bytes]
        if not full:
            return None
        return [slot for slot in self._slots.values() if slot is not wanted and slot.held and set(slot.devices) & set(full)]

    def _check_alone(self, wanted: _Slot) -> None:
        limit = f"the limit is {_gb(self.limit_bytes or 0)} ({self.limit_reason})"
        raise DeviceMemoryError(
            f"{wanted.name} needs about {_gb(wanted.size_bytes)} and {limit}. "
            "Choose a smaller model, quantization='8bit', a higher max_vram_gb, or device='cpu'"
        )

    def _load(self, slot: _Slot, dropped: list[str]) -> tuple[Any, float]:
        started, before = self._clock(), _allocated(slot.devices)
        try:
            model = slot.load()
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            model = None
        if model is None:  # outside the except block, whose traceback would keep the half-loaded model alive
            model = self._load_alone(slot, dropped, why)
        after = _allocated(slot.devices)
        if after > before:
            slot.size_bytes, slot.measured = int((after - before) * _WORKING), True
        return model, self._clock() - started

    def _load_alone(self, slot: _Slot, dropped: list[str], why: str) -> Any:
        """The device had less room than planned: once more with every idle neighbour gone."""
        with self._changed:
            for other in self._slots.values():
                if other.model is not None and not other.leases and set(other.devices) & set(slot.devices):
                    self._drop(other, f"let go to make room for {slot.name}: the device was full")
                    dropped.append(other.name)
        clear_caches()
        try:
            return slot.load()
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            raise DeviceMemoryError(
                f"{slot.name} does not fit on {', '.join(slot.devices)} ({why}). "
                "Choose a smaller model, quantization='8bit', or device='cpu'"
            ) from error

    def _drop(self, slot: _Slot, reason: str) -> None:
        model, slot.model, slot.reason = slot.model, None, reason
        close = getattr(model, "close", None)
        if callable(close):
            close()
        self._changed.notify_all()


def estimate_bytes(model: str, plan: DevicePlan, *, folder: Path | None = None) -> int:
    """Memory a model takes in the plan's precision, from its files' own count in `folder`, else from its name.

    An unknown name counts as 250 million parameters: too much for most, so that the plan errs towards room.
    """
    precision = plan.quantization if plan.quantization != "none" else plan.dtype
    found = folder or Path(model)
    parameters, embedded = counted(found) if found.is_dir() else (0, 0)
    if not parameters:
        name = found.name.lower()
        known = max((key for key in _MILLIONS if key in name or key in model.lower()), key=len, default="")
        parameters, embedded = int(1e6 * _MILLIONS.get(known, 250)), 0
    matrices = (parameters - embedded) * _BYTES[precision]
    return int((matrices + embedded * max(2.0, _BYTES[precision])) * _WORKING)


def counted(folder: Path) -> tuple[int, int]:
    """(parameters, of them in embeddings) of a folder's safetensors, from their headers; (0, 0) where there are none.

    A file's size says little: the same model is stored in 2 or 4 bytes a parameter.
    """
    parameters = embedded = 0
    for path in weight_files(folder):
        try:
            with path.open("rb") as stream:
                header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
            sizes = {name: math.prod(about["shape"]) for name, about in header.items() if name != "__metadata__"}
        except (OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError):  # whoever loads it says what is wrong
            continue
        parameters += sum(sizes.values())
        embedded += sum(size for name, size in sizes.items() if "embed" in name)
    return parameters, embedded


def clear_caches() -> None:
    """Collect garbage, then empty torch's GPU caches and hand freed heap pages back. Imports nothing heavy."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):  # musl has no malloc_trim
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _limit(config: Config, plan: DevicePlan, given: int | None) -> tuple[int | None, str]:
    if given is not None:
        return given, "given"
    if not plan.on_gpu:
        return None, "no limit on a CPU"
    if config.max_vram_gb is not None:
        return int(config.max_vram_gb * 2**30), f"max_vram_gb={config.max_vram_gb:g}"
    free = min((gpu.free_bytes for gpu in plan.gpus if f"cuda:{gpu.index}" in plan.devices), default=0)
    return max(0, free - _RESERVE_BYTES), f"{_gb(free)} were free, {_gb(_RESERVE_BYTES)} of it kept back"


def _allocated(devices: tuple[str, ...]) -> int:
    """Bytes torch holds on the fullest of the devices; 0 on a CPU."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_initialized():
        return 0
    return max((int(torch.cuda.memory_allocated(device)) for device in devices if device != "cpu"), default=0)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "out of memory" in str(error).lower()


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f} GB"
