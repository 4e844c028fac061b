"""Pictures and texts -> one space, by CLIP.

`open_image_encoder` is the way in. Pictures are decoded by threads while the device works on those
before; batches are cut to a token budget that halves when memory runs out; half precision where the
chip multiplies it. No vector leaves that is not finite and of unit length.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, EncodingError, MissingExtraError, WeightsError, require
from ultrafast_rag.models.batching import Governor, Overflow, guarded, run_governed
from ultrafast_rag.models.clip.openvino import INT8, OpenVINOTowers
from ultrafast_rag.models.clip.openvino import PREFIX as OPENVINO
from ultrafast_rag.models.clip.pixels import Pixels, decode
from ultrafast_rag.models.clip.towers import HfTowers, OpenClipTowers, Towers
from ultrafast_rag.models.device import DevicePlan, plan_device
from ultrafast_rag.models.text.openvino import Progress, version
from ultrafast_rag.models.weights import Weights, file_sha256, resolve
from ultrafast_rag.types import Vectors

PREFIX = "open_clip:"
_OPEN_CLIP_FILE = "open_clip_model.safetensors"
# pictures decoded ahead of those that the device works on: 40 MB at 224 pixels; on a GPU a quarter of what comes together
# (`DevicePlan.group`), so that three quarters of it are decoded while the device is at work
_STRETCH, _GPU_STRETCH = 256, 64
# a batch; on 2 cores 4 096 gave 72 pictures/s and 512 gave 58 (tests/benchmarks/media.py, EPYC, bf16, 2026-11)
_CPU_TOKENS, _GPU_TOKENS = 4096, 32_768
Loader = Callable[[str, str], Towers]
"""(precision, device) -> towers."""
Run = Callable[[Sequence[Any], Towers, int], Vectors]
"""(inputs, towers, number of the device; -1 for the float32 towers) -> vectors."""


class ClipEncoder:
    """ports.ImageEncoder, one replica a device; safe to call from several threads.

    space: model and weights without the precision: vectors of one space are comparable (cosine of
    float32 and half precision over 0.999), while `fingerprint` also names the precision, for caches.
    notes: why not all that was asked for is in use.
    """

    def __init__(
        self, name: str, load: Loader, *, precision: str, devices: Sequence[str], config: Config, notes: Sequence[str] = ()
    ) -> None:
        self._load, self._config, self.precision, self.notes = load, config, precision, list(notes)
        self._towers = [load(precision, device) for device in devices]
        self._devices = list(devices)
        first = self._towers[0]
        self.dim, self.space = first.dim, f"clip:{name}|{first.spec.side}px"
        self.fingerprint = f"{self.space}|{precision}"
        budget = config.batch_tokens or (_GPU_TOKENS if devices[0] != "cpu" else _CPU_TOKENS)
        self._governors = [Governor(max(1, budget)) for _ in devices]
        self._locks = [threading.Lock() for _ in devices]
        self._turn = 0
        self._exact: Towers | None = None
        self._overflow, self._counting = Overflow(), threading.Lock()
        self._stretch = _GPU_STRETCH if devices[0] != "cpu" else _STRETCH
        self._pool = ThreadPoolExecutor(max_workers=max(2, min(8, 2 * config.max_workers)), thread_name_prefix="pixels")

    def encode_images(self, images: Sequence[bytes]) -> Vectors:
        """float32 (n, dim), unit rows, from encoded JPEG, PNG or WebP bytes; CorruptError if one cannot be decoded."""
        vectors = np.empty((len(images), self.dim), np.float32)
        for start, pixels in self._decoded(images):
            found = self._guarded(pixels, self._run_images, lambda row, at=start: f"picture {at + row}")  # type: ignore[misc]
            vectors[start : start + len(pixels)] = found
        return vectors

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows; texts over the tower's limit are truncated."""
        if not texts:
            return np.empty((0, self.dim), np.float32)
        ids = self._towers[0].tokenize(texts)
        return self._guarded(ids, self._run_texts, lambda row: texts[row][:120])

    def close(self) -> None:
        """Give the model's memory back; the encoder cannot be used afterwards."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._towers, self._exact = [], None

    def _decoded(self, images: Sequence[bytes]) -> Iterator[tuple[int, list[Pixels]]]:
        spec, limit = self._towers[0].spec, self._config.max_image_pixels
        starts = list(range(0, len(images), self._stretch))

        def ahead(start: int) -> list[Any]:
            return [self._pool.submit(decode, image, spec, max_pixels=limit) for image in images[start : start + self._stretch]]

        pending = ahead(0) if starts else []
        for start in starts:
            pixels = [future.result() for future in pending]
            pending = ahead(start + self._stretch)
            yield start, pixels

    def _guarded(self, inputs: Sequence[Any], run: Run, name_of: Callable[[int], str]) -> Vectors:
        again = 0

        def exactly(rows: list[int]) -> Vectors:
            nonlocal again
            again = len(rows)
            return run([inputs[row] for row in rows], self._fp32_towers(), -1)

        vectors = guarded(self._on_devices(inputs, run), exactly, name_of)
        self._count(len(inputs), again)
        return vectors

    def _count(self, rows: int, again: int) -> None:
        """Once more than one row in a hundred has to be encoded twice, all are encoded once, in float32."""
        with self._counting:
            self._overflow.rows += rows
            self._overflow.again += again
            if not again or not self._overflow.too_many or self._exact is None or self._exact in self._towers:
                return
            self.notes.append(self._overflow.note(self.precision))
            towers = [self._exact, *(self._load("float32", device) for device in self._devices[1:])]
            with contextlib.ExitStack() as still:
                for lock in self._locks:
                    still.enter_context(lock)
                self._towers = towers

    def _fp32_towers(self) -> Towers:
        """Float32 towers, for the rare row that half precision cannot hold."""
        with self._counting:
            if self._exact is None:
                self._exact = self._load("float32", self._devices[0])
            return self._exact

    def _on_devices(self, inputs: Sequence[Any], run: Run) -> Vectors:
        count = len(self._towers)
        if count == 1 or len(inputs) < 8 * count:
            self._turn = (self._turn + 1) % count
            with self._locks[self._turn]:
                return run(inputs, self._towers[self._turn], self._turn)
        shares = [range(n, len(inputs), count) for n in range(count)]  # interleaved: every GPU gets the same mix

        def part(n: int) -> Vectors:
            with self._locks[n]:
                return run([inputs[row] for row in shares[n]], self._towers[n], n)

        vectors = np.empty((len(inputs), self.dim), np.float32)
        with ThreadPoolExecutor(count) as threads:
            for share, found in zip(shares, threads.map(part, range(count)), strict=True):
                vectors[list(share)] = found
        return vectors

    def _run_images(self, pixels: Sequence[Pixels], towers: Towers, at: int) -> Vectors:
        def forward(rows: list[int]) -> Any:
            return towers.images(np.stack([pixels[row] for row in rows]))

        return self._governed([towers.image_tokens] * len(pixels), forward, towers, at)

    def _run_texts(self, ids: Sequence[list[int]], towers: Towers, at: int) -> Vectors:
        def forward(rows: list[int]) -> Any:
            padded = np.zeros((len(rows), len(ids[rows[0]])), np.int64)  # rows come longest first
            for place, row in enumerate(rows):
                padded[place, : len(ids[row])] = ids[row]
            return towers.texts(padded, np.array([len(ids[row]) - 1 for row in rows], np.int64))

        return self._governed([len(row) for row in ids], forward, towers, at)

    def _governed(self, lengths: list[int], forward: Callable[[list[int]], Any], towers: Towers, at: int) -> Vectors:
        vectors = np.empty((len(lengths), self.dim), np.float32)
        governor = self._governors[at] if at >= 0 else Governor(_CPU_TOKENS)
        batches = run_governed(lengths, forward, governor=governor, max_rows=self._config.batch_size, release=towers.release)
        for rows, found in list(batches):  # copied once all are queued, so that the device never waits
            vectors[rows] = towers.vectors(found)
        return vectors


def open_image_encoder(config: Config, plan: DevicePlan | None = None, *, progress: Progress | None = None) -> ClipEncoder:
    """Load `config.image_model`: a hub id or folder of transformers' CLIP, "open_clip:ARCH/TAG" or "open_clip:ARCH/PATH".

    PATH is a safetensors file; "open_clip:FOLDER" reads open_clip_config.json there. On a CPU transformers' models run
    in OpenVINO, converted once (`progress` is told), unless `config.engine` names torch. What cannot be had falls
    back to the plan's type in torch, with a note. Raises WeightsError, ConfigError, EncodingError.
    """
    if config.image_model is None:
        raise ConfigError(
            "image_model is None: pictures are switched off; set Config(image_model=...) to a CLIP model or its folder"
        )
    plan = plan or plan_device(config)
    name, load, converts = _loader(config, plan, progress)
    notes = _card_notes(config)
    for precision in _precisions(config, plan, converts):
        try:
            return ClipEncoder(name, load, precision=precision, devices=plan.devices, config=config, notes=notes)
        except (EncodingError, MissingExtraError) as error:
            notes.append(f"{config.image_model}: {precision} is not used: {error}")
    raise EncodingError("; ".join(notes))


def _precisions(config: Config, plan: DevicePlan, converts: bool) -> list[str]:
    """What to try, in this order. 8-bit on a CPU is OpenVINO's: bitsandbytes saves memory there and costs time."""
    wanted = [] if plan.quantization == "none" else [str(plan.quantization)]
    if converts and not plan.on_gpu and not config.engine.startswith("torch-") and version():
        if plan.quantization == "8bit" or config.engine == INT8:
            wanted.insert(0, INT8)
        if not wanted or wanted == [INT8]:
            wanted.append(OPENVINO + ("bf16" if plan.dtype == "bfloat16" and plan.cpu.bf16 else "f32"))
    return [*wanted, plan.dtype]


def _card_notes(config: Config) -> list[str]:
    """What a checkpoint's own config.json says that a report should repeat."""
    path = Path(str(config.image_model)).expanduser() / "config.json"
    try:
        is_demo = path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("demo") is True
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    return [f"{path.parent.name} is a demonstration model: it knows only pictures like its own"] if is_demo else []


def _loader(config: Config, plan: DevicePlan, progress: Progress | None) -> tuple[str, Loader, bool]:
    """The model's name, what loads it, and whether it can be converted."""
    model = str(config.image_model)
    if model.startswith(PREFIX):
        return *_open_clip_loader(model.removeprefix(PREFIX), config), False
    weights = resolve(model, kind="image", offline=config.offline, cache_dir=config.cache_dir)
    if not (weights.path / "config.json").is_file():
        return *_open_clip_loader(str(weights.path), config), False

    def load(precision: str, device: str) -> Towers:
        if precision.startswith(OPENVINO):
            return OpenVINOTowers(weights, precision, plan, config.cache_dir, progress=progress)
        return HfTowers(weights.path, precision, device, attention=plan.attention)

    return f"{weights.name}@{weights.revision}", load, True


def _open_clip_loader(name: str, config: Config) -> tuple[str, Loader]:
    folder = Path(name).expanduser()
    if folder.is_dir():
        weights = resolve(str(folder), kind="image", cache_dir=config.cache_dir, first=_OPEN_CLIP_FILE)
        return _from_folder(weights, folder.name)
    arch, _, rest = name.partition("/")
    open_clip = require("open_clip", package="open-clip-torch", extra="images")
    description = open_clip.get_model_config(arch)
    if description is None:
        known = ", ".join(open_clip.list_models()[:8])
        raise ConfigError(f"open_clip knows no architecture {arch!r}; it knows {known}, ... (open_clip.list_models())")
    checkpoint = Path(rest).expanduser()
    if rest.endswith(".safetensors") or checkpoint.is_dir():
        tags = open_clip.list_pretrained_tags_by_model(arch)  # an architecture's published weights see pictures alike
        return _from_file(arch, description, checkpoint, open_clip.get_pretrained_cfg(arch, tags[0]) if tags else {})
    tag = open_clip.get_pretrained_cfg(arch, rest) if rest else {}
    if not tag or not tag.get("hf_hub"):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(arch)[:6])
        raise WeightsError(f"open_clip:{arch} needs weights as safetensors: open_clip:{arch}/PATH.safetensors, or one of {tags}")
    hub_id = str(tag["hf_hub"]).rstrip("/")
    weights = resolve(hub_id, kind="image", offline=config.offline, cache_dir=config.cache_dir, first=_OPEN_CLIP_FILE)
    if tag.get("quick_gelu"):
        description = {**description, "quick_gelu": True}

    def load(precision: str, device: str) -> Towers:
        return OpenClipTowers(description, _checkpoint(weights.path), precision, device, preprocess=tag)

    return f"{name}@{weights.revision}", load


def _from_folder(weights: Weights, name: str) -> tuple[str, Loader]:
    path = weights.path / "open_clip_config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        description, preprocess = dict(found["model_cfg"]), dict(found.get("preprocess_cfg") or {})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}. An open_clip folder holds it beside its safetensors") from error

    def load(precision: str, device: str) -> Towers:
        return OpenClipTowers(description, _checkpoint(weights.path), precision, device, preprocess=preprocess)

    return f"{name}@{weights.revision}", load


def _from_file(arch: str, description: dict[str, Any], path: Path, preprocess: dict[str, Any]) -> tuple[str, Loader]:
    checkpoint = _checkpoint(path) if path.is_dir() else path
    revision = file_sha256(checkpoint)[:16]

    def load(precision: str, device: str) -> Towers:
        return OpenClipTowers(description, checkpoint, precision, device, preprocess=preprocess)

    return f"{arch}/{checkpoint.stem}@{revision}", load


def _checkpoint(folder: Path) -> Path:
    """The file in open_clip's own layout: its usual name, else the only one there is."""
    named = folder / _OPEN_CLIP_FILE
    if named.is_file():
        return named
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        raise WeightsError(f"{folder} holds no open_clip_model.safetensors (found: {', '.join(p.name for p in found) or 'none'})")
    return found[0]
