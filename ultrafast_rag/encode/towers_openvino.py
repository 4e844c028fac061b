"""CLIP's towers in OpenVINO on a CPU, so that neither a question nor a folder of pictures needs torch.

Each tower is converted once and kept like the text encoder (see `openvino.py`), in 16 bits: half the file to
check at each start, and its vectors stay within a cosine of 0.9999 of float32's, which the conversion holds it
to. Normalising the pixels is part of the graph. On 2 cores with AVX-512 BF16 pictures go 1.4 times as fast as
in torch with bf16 (tests/benchmarks/media.py). int8 is left out: what it costs depends on the
weights, and there are no pictures here to judge a user's own by.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.device import DevicePlan
from ultrafast_rag.encode.openvino import Progress, convert_once, version
from ultrafast_rag.encode.pixels import Pixels, PixelSpec
from ultrafast_rag.encode.towers import HfTowers, Ids, clip_tokenizer
from ultrafast_rag.encode.weights import Weights
from ultrafast_rag.errors import EncodingError, require
from ultrafast_rag.types import Vectors

PREFIX = "openvino-"
_RECIPE = 1  # raise when conversion changes what comes out
_TEXT_STEP = 8  # lengths are padded to multiples: kernels are prepared for each shape
_MOST_PICTURES = 24  # a request; more at once is no faster
_MIN_COSINE = 0.9999  # converted, in float32, against torch
_PROBES = 6


class OpenVINOTowers:
    """Both towers on the CPU; each is compiled when first used. Safe to call from several threads.

    precision: "openvino-f32" or "openvino-bf16". Raises MissingExtraError without openvino (or torch, when there is
    something to convert), EncodingError when conversion fails.
    """

    def __init__(
        self, weights: Weights, precision: str, plan: DevicePlan, cache_dir: Path, *, progress: Progress | None = None
    ) -> None:
        self._weights, self._cache_dir, self._progress = weights, cache_dir, progress
        self._hint, self._cores = precision.removeprefix(PREFIX), plan.cpu.cores
        with ThreadPoolExecutor(2) as threads:  # most of a conversion is the import of torch, on one core
            image = None if self._folder("image").is_dir() else threads.submit(self._converted, "image")
            stated = self._converted("text")
            if image is not None:
                image.result()
        self.dim, self.max_tokens = int(stated["dim"]), int(stated["max_tokens"])
        self.image_tokens, self.spec = int(stated["image_tokens"]), PixelSpec.read(weights.path, int(stated["image_size"]))
        self._tokenizer = clip_tokenizer(weights.path, self.max_tokens)
        self._core = require("openvino").Core()
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
            compiled = self._core.compile_model(str(self._folder(part) / "model.xml"), "CPU", {
                "INFERENCE_PRECISION_HINT": self._hint, "NUM_STREAMS": str(streams), "INFERENCE_NUM_THREADS": str(self._cores)})
            queue = require("openvino").AsyncInferQueue(compiled, streams)

            def done(request: Any, target: Vectors) -> None:
                target[:] = request.get_output_tensor(0).data

            queue.set_callback(done)
            self._queues[part] = queue
        return self._queues[part]

    def _folder(self, part: str) -> Path:
        slug = re.sub(r"[^A-Za-z0-9.-]+", "_", self._weights.name)
        return self._cache_dir / "engines" / f"{slug}-{self._weights.revision}-clip-{part}-f16-ov{version()}-r{_RECIPE}"

    def _converted(self, part: str) -> dict[str, Any]:
        task = {"folder": str(self._weights.path), "kind": f"clip {part}"}
        return convert_once(self._folder(part), __name__, task, needs=("torch", "transformers"),
                            what=f"the {part} tower of {self._weights.name} for this CPU", progress=self._progress)


# below: the child process


def _child(task: dict[str, Any]) -> None:
    """Trace one tower, save it, and hold it to torch's own vectors."""
    import logging

    import openvino
    import torch

    for name in ("openvino", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    towers, out = HfTowers(Path(task["folder"]), "float32", "cpu", attention="eager"), Path(task["out"])
    tower, probes = _image_tower(towers) if task["kind"] == "clip image" else _text_tower(towers)
    with torch.no_grad():
        example = tuple(torch.from_numpy(array[:3]) for array in probes)
        model = openvino.convert_model(tower, example_input=example)
        openvino.save_model(model, str(out / "model.xml"), compress_to_fp16=True)
        compiled = openvino.Core().compile_model(str(out / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        ours, theirs = compiled(list(probes))[0], tower(*map(torch.from_numpy, probes)).numpy()
    cosine = float(((ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)).min())
    if not cosine >= _MIN_COSINE:
        raise EncodingError(f"the converted model differs from torch: cosine {cosine:.5f}")
    about = {"kind": task["kind"], "dim": towers.dim, "max_tokens": towers.max_tokens, "image_tokens": towers.image_tokens,
             "image_size": int(towers.model.config.vision_config.image_size), "min_cosine_to_torch": cosine,
             "openvino": version(), "recipe": _RECIPE}
    (out / "about.json").write_text(json.dumps(about), encoding="utf-8")


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
