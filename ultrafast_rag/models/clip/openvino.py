"""CLIP's towers in OpenVINO on a CPU, so that neither a question nor a folder of pictures needs torch.

Each tower is converted once and kept like the text encoder (see `openvino.py`), in 16 bits: half the file to
check at each start, and its vectors stay within a cosine of 0.9999 of float32's, which the conversion holds it
to. Normalising the pixels is part of the graph. On 2 cores with AVX-512 BF16 pictures go 1.4 times as fast as
in torch with bf16, in int8 about twice as fast again (tests/benchmarks/media.py). int8 is for those who ask for it: what it
costs depends on the weights, and the pictures it is calibrated on and held to are drawn ones.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.errors import EncodingError, require
from ultrafast_rag.models.clip.pixels import Pixels, PixelSpec
from ultrafast_rag.models.clip.towers import HfTowers, Ids, clip_tokenizer
from ultrafast_rag.models.device import DevicePlan
from ultrafast_rag.models.text.openvino import Progress, convert_once, version
from ultrafast_rag.models.weights import Weights
from ultrafast_rag.types import Vectors

PREFIX = "openvino-"
INT8 = PREFIX + "int8"
_RECIPE = 2  # raise when conversion changes what comes out
_TEXT_STEP = 8  # lengths are padded to multiples: kernels are prepared for each shape
_MOST_PICTURES = 24  # a request; more at once is no faster
_MIN_COSINE = 0.9999  # converted, in float32, against torch
_PROBES = 6  # inputs that a converted tower is compared on
_DRAWN = 48  # pictures to calibrate int8 on, and as many others to judge it by
_MIN_COSINE_INT8 = 0.99  # on average; where the quantized layers suit the weights it is 0.999


class OpenVINOTowers:
    """Both towers on the CPU; each is compiled when first used. Safe to call from several threads.

    precision: "openvino-f32", "openvino-bf16" or "openvino-int8" (pictures; texts are then in bf16 or float32).
    Raises MissingExtraError without openvino (or torch, nncf, when there is something to convert), EncodingError
    when conversion fails or int8 is too far from float32.
    """

    def __init__(
        self, weights: Weights, precision: str, plan: DevicePlan, cache_dir: Path, *, progress: Progress | None = None
    ) -> None:
        self._weights, self._cache_dir, self._progress = weights, cache_dir, progress
        self._kinds = {"text": "f16", "image": "int8" if precision == INT8 else "f16"}
        self._hint = "bf16" if precision != PREFIX + "f32" and plan.cpu.bf16 else "f32"
        self._cores = plan.cpu.cores
        with ThreadPoolExecutor(2) as threads:  # most of a conversion is the import of torch, on one core
            image = None if self._folder("image").is_dir() else threads.submit(self._converted, "image")
            stated = self._converted("text")
            if image is not None:
                image.result()
        self.dim, self.max_tokens = int(stated["dim"]), int(stated["max_tokens"])
        self.image_tokens, self.spec = int(stated["image_tokens"]), PixelSpec.read(weights.path, int(stated["image_size"]))
        self._tokenizer = clip_tokenizer(weights.path, self.max_tokens)
        self._core = require("openvino", extra="cpu").Core()
        self._queues: dict[str, Any] = {}
        self._locks = {"text": threading.Lock(), "image": threading.Lock()}

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """As `Towers` says."""
        return [list(found.ids) for found in self._tokenizer.encode_batch(list(texts))]

    def images(self, pixels: Pixels) -> Any:
        """As `Towers` says."""
        rounds = -(-len(pixels) // (_MOST_PICTURES * self._cores))
        rows = -(-len(pixels) // (rounds * self._cores))  # as many for every core
        return self._run("image", [{0: pixels[at : at + rows]} for at in range(0, len(pixels), rows)])

    def texts(self, ids: Ids, last: Ids) -> Any:
        """As `Towers` says."""
        width = max(ids.shape[1], min(-(-ids.shape[1] // _TEXT_STEP) * _TEXT_STEP, self.max_tokens))
        return self._run("text", [{0: np.pad(ids, ((0, 0), (0, width - ids.shape[1]))), 1: last}])

    def vectors(self, found: Any) -> Vectors:
        """As `Towers` says."""
        with np.errstate(divide="ignore", invalid="ignore"):  # a zero row is told by whoever asked
            return found / np.linalg.norm(found, axis=1, keepdims=True)  # type: ignore[no-any-return]

    def release(self) -> None:
        """As `Towers` says: there is nothing to give back."""

    def _run(self, part: str, inputs: list[dict[int, Any]]) -> Vectors:
        """Requests side by side, one core each for pictures; their answers in one array."""
        starts = np.cumsum([0, *(len(request[0]) for request in inputs)])
        found = np.empty((int(starts[-1]), self.dim), np.float32)
        with self._locks[part]:
            try:
                queue = self._queue(part)
                for at, request in enumerate(inputs):
                    queue.start_async(request, found[starts[at] : starts[at + 1]], share_inputs=True)
                queue.wait_all()
            except RuntimeError as error:
                raise EncodingError(f"CLIP's {part} tower failed in OpenVINO: {str(error).splitlines()[0]}") from error
        return found

    def _queue(self, part: str) -> Any:
        if part not in self._queues:
            self._converted(part)  # read only if it still is what was written
            streams = self._cores if part == "image" else 1  # a question is alone, pictures come in numbers
            compiled = self._core.compile_model(
                str(self._folder(part) / "model.xml"),
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": self._hint,
                    "NUM_STREAMS": str(streams),
                    "INFERENCE_NUM_THREADS": str(self._cores),
                    "ENABLE_CPU_PINNING": False,
                },
            )  # as in openvino.py: a pinned thread waits for whoever is on its core
            queue = require("openvino", extra="cpu").AsyncInferQueue(compiled, streams)

            def done(request: Any, target: Vectors) -> None:
                target[:] = request.get_output_tensor(0).data

            queue.set_callback(done)
            self._queues[part] = queue
        return self._queues[part]

    def _folder(self, part: str, kind: str = "") -> Path:
        slug = re.sub(r"[^A-Za-z0-9.-]+", "_", self._weights.name)
        name = f"{slug}-{self._weights.revision}-clip-{part}-{kind or self._kinds[part]}-ov{version()}-r{_RECIPE}"
        return self._cache_dir / "engines" / name

    def _converted(self, part: str, kind: str = "") -> dict[str, Any]:
        kind, source = kind or self._kinds[part], ""
        needs: tuple[str, ...] = ("torch", "transformers")
        if kind == "int8" and not self._folder(part).is_dir():
            self._converted(part, "f16")
            needs, source = ("nncf",), str(self._folder(part, "f16"))
        task = {"folder": str(self._weights.path), "part": part, "kind": kind, "source": source}
        return convert_once(
            self._folder(part, kind),
            __name__,
            task,
            needs=needs,
            what=f"the {part} tower of {self._weights.name} for this CPU ({kind})",
            progress=self._progress,
        )


# below: the child process


def _child(task: dict[str, Any]) -> None:
    import logging

    for name in ("openvino", "transformers", "nncf"):
        logging.getLogger(name).setLevel(logging.ERROR)
    out = Path(task["out"])
    about = _to_int8(Path(task["source"]), out) if task["kind"] == "int8" else _to_f16(task["part"], Path(task["folder"]), out)
    (out / "about.json").write_text(json.dumps({**about, "openvino": version(), "recipe": _RECIPE}), encoding="utf-8")


def _to_f16(part: str, folder: Path, out: Path) -> dict[str, Any]:
    """Trace one tower, save it, and hold it to torch's own vectors."""
    openvino, torch = require("openvino", extra="cpu"), require("torch")
    torch.set_num_threads(1)  # the other tower is converted at the same time
    towers = HfTowers(folder, "float32", "cpu", attention="eager")
    tower, probes = _image_tower(towers) if part == "image" else _text_tower(towers)
    with torch.no_grad():
        example = tuple(torch.from_numpy(array[:3]) for array in probes)
        model = openvino.convert_model(tower, example_input=example)
        openvino.save_model(model, str(out / "model.xml"), compress_to_fp16=True)
        compiled = openvino.Core().compile_model(str(out / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        ours, theirs = compiled(list(probes))[0], tower(*map(torch.from_numpy, probes)).numpy()
    cosine = float(_cosines(ours, theirs).min())
    if not cosine >= _MIN_COSINE:
        raise EncodingError(f"the converted model differs from torch: cosine {cosine:.5f}")
    return {
        "part": part,
        "kind": "f16",
        "dim": towers.dim,
        "max_tokens": towers.max_tokens,
        "side": towers.spec.side,
        "image_tokens": towers.image_tokens,
        "image_size": int(towers.model.config.vision_config.image_size),
        "min_cosine_to_torch": cosine,
    }


def _cosines(ours: Any, theirs: Any) -> Any:
    return (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)


def _to_int8(source: Path, out: Path) -> dict[str, Any]:
    """NNCF post-training quantization, calibrated on some drawn pictures and held to float32 on others."""
    openvino, nncf = require("openvino", extra="cpu"), require("nncf", extra="cpu")
    stated = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    core = openvino.Core()
    model = core.read_model(str(source / "model.xml"))
    known, unseen = (_drawn(stated["side"], seed) for seed in (0, 1))
    batches = [{0: known[at : at + 8]} for at in range(0, _DRAWN, 8)]
    quantized = nncf.quantize(model, nncf.Dataset(batches), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(batches))
    openvino.save_model(quantized, str(out / "model.xml"), compress_to_fp16=False)
    exact, ours = (core.compile_model(kind, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(unseen)[0] for kind in (model, quantized))
    cosine = float(_cosines(ours, exact).mean())
    if not cosine >= _MIN_COSINE_INT8:
        raise EncodingError(f"int8 is too far from float32 with these weights: mean cosine {cosine:.4f}")
    return {"part": "image", "kind": "int8", "nncf": metadata.version("nncf"), "mean_cosine_to_float32": cosine}


def _drawn(side: int, seed: int) -> Pixels:
    """Pictures of three kinds in turn: noise at all scales, as in photographs; shapes on a ground; lines on a page."""
    from PIL import Image, ImageDraw

    rng, pictures = np.random.default_rng(seed), []
    for n in range(_DRAWN):
        if n % 3 == 0:
            octaves = [rng.normal(0, 1 / cells, (cells, cells, 3)) for cells in (3, 6, 12, 24, 48, side)]
            grown = [[Image.fromarray(o[..., c].astype(np.float32)).resize((side, side), 3) for c in range(3)] for o in octaves]
            noise = sum(np.stack([np.asarray(channel) for channel in octave], axis=-1) for octave in grown)
            pictures.append(np.clip(rng.uniform(60, 190, 3) + rng.uniform(80, 250) * noise, 0, 255).astype(np.uint8))
            continue
        picture = Image.new("RGB", (side, side), (250, 250, 250) if n % 3 == 2 else tuple(rng.integers(0, 256, 3).tolist()))
        draw = ImageDraw.Draw(picture)
        for _ in range(int(rng.integers(3, 40))):
            (x, y), (width, height) = rng.integers(0, side, 2).tolist(), rng.integers(2, max(3, side // 3), 2).tolist()
            color = tuple(rng.integers(0, 256, 3).tolist())
            if n % 3 == 2:
                draw.rectangle((x, y, x + width, y + max(1, side // 100)), fill=(30, 30, 30))
            elif rng.random() < 0.5:
                draw.ellipse((x, y, x + width, y + height), fill=color)
            else:
                draw.rectangle((x, y, x + width, y + height), fill=color)
        pictures.append(np.asarray(picture))
    return np.stack(pictures)


def _image_tower(towers: HfTowers) -> tuple[Any, tuple[Any, ...]]:
    """The module to trace, and probes of another size than the three it is traced on."""
    import torch

    class Images(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
        def __init__(self) -> None:
            super().__init__()
            self.model = towers.model

        def forward(self, pixels: Any) -> Any:
            return towers.embed_images(pixels)

    shape = (_PROBES, towers.spec.side, towers.spec.side, 3)
    return Images().eval(), (np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8),)


def _text_tower(towers: HfTowers) -> tuple[Any, tuple[Any, ...]]:
    import torch

    class Texts(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = towers.model

        def forward(self, ids: Any, last: Any) -> Any:
            return towers.embed_texts(ids, last)

    vocabulary = int(towers.model.config.text_config.vocab_size)
    ids = np.random.default_rng(0).integers(0, vocabulary, (_PROBES, min(24, towers.max_tokens)), dtype=np.int64)
    return Texts().eval(), (ids, np.linspace(1, ids.shape[1] - 1, _PROBES).astype(np.int64))


if __name__ == "__main__":
    _child(json.loads(sys.argv[1]))
