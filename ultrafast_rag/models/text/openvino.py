"""The text encoder in OpenVINO on a CPU: float32, bf16 or int8 from one converted model.

Conversion needs torch (to trace) and, for int8, NNCF; it runs once, in a process of its own, so that the
process that encodes never imports either and gets none of their memory. The result lies in the cache
folder under a name made of model, weights, recipe and OpenVINO version, written aside, fsynced, renamed,
and checked against its sha256 whenever it is loaded. Pooling and normalisation are part of the graph.
Eager attention is traced: OpenVINO fuses it again, and the stock mask code of transformers does not
always trace (seen with transformers 5).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.config import Config
from ultrafast_rag.errors import EncodingError, MissingExtraError, require
from ultrafast_rag.files import sha256_of, sync
from ultrafast_rag.models.batching import batches
from ultrafast_rag.models.device import DevicePlan
from ultrafast_rag.models.text.calibration import calibration_hash, calibration_texts
from ultrafast_rag.models.text.reference import Reference, padded_to, padded_widths, reference_texts
from ultrafast_rag.models.text.tokens import EncoderSpec, WordPieces
from ultrafast_rag.models.weights import Weights
from ultrafast_rag.types import Vectors

NAMES = ("openvino-f32", "openvino-bf16", "openvino-int8")
BATCH_TOKENS = 1024  # the fastest of 256 to 16 384 where it was measured (data/benchmarks/encode.json)
# lengths are padded to multiples, and the last batch's rows to a power of two: kernels are prepared and kept for each
# shape, some 1 to 3 MB of memory each, and a shape unlike the last one costs a question 0.4 ms. Steps of 32 would save 27 MB
# of a long run and cost 6 % of its speed; with steps of 4 a question takes 1.3 ms, with these 1.2
_LENGTH_STEP = 16
# a question runs on one core: as quick as on two (0.76 and 0.71 ms at best), and twice as quick beside other work
# (2.3 and 4.5 ms at the median; int8, 16 tokens, EPYC, 2 cores, 2026-11)
_QUESTION_TOKENS = 64
# a first answer scores some 30 sentences: on one core that is done before a second copy of the model is compiled for streams
_TOKENS_BEFORE_STREAMS = 2048
_RECIPE = 2  # raise when conversion changes what comes out
_CONVERT_TIMEOUT_S = 600  # it takes half a minute on two cores
_MIN_COSINE = 0.9999  # converted float32 against torch
FILES = ("model.xml", "model.bin")

Progress = Callable[[str], None]


def engine_id(name: str) -> str:
    """The engine's part of a fingerprint; int8 vectors depend on the calibration text too."""
    return f"{name}+{calibration_hash()}" if name == "openvino-int8" else name


def version() -> str:
    """Of the installed OpenVINO, without importing it; "" when there is none."""
    try:
        return metadata.version("openvino")
    except metadata.PackageNotFoundError:
        return ""


class OpenVINOEngine:
    """Framed token ids -> unit vectors, on the CPU. Safe to call from several threads, which then take turns.

    name: one of NAMES. Converts the model first where the cache has none (tens of seconds, reported to `progress`).
    Raises MissingExtraError without openvino (or nncf, for int8), EncodingError when conversion fails.
    """

    def __init__(
        self, spec: EncoderSpec, name: str, plan: DevicePlan, config: Config, *, progress: Progress | None = None
    ) -> None:
        self.name, self.dim = name, spec.dim
        self._cores, self._max_rows = config.threads or plan.cpu.cores, config.batch_size
        self._budget = config.batch_tokens or BATCH_TOKENS
        self._pad_id = int(spec.config.get("pad_token_id") or 0)
        self.widths = padded_widths(spec.max_tokens, step=_LENGTH_STEP)
        folder = converted(spec, "int8" if name == "openvino-int8" else "f32", config.cache_dir, progress=progress)
        openvino = require("openvino", extra="cpu")
        self._openvino = openvino
        self._batches, self._questions = threading.Lock(), threading.Lock()
        self._core = openvino.Core()
        self._model = self._core.read_model(str(folder / "model.xml"))
        self._precision = "f32" if name == "openvino-f32" or not plan.cpu.bf16 else "bf16"
        self._request = self._compile(streams=1, threads=1).create_infer_request()
        self._queue: Any = None
        self._compiling: threading.Thread | None = None
        self._trouble: RuntimeError | None = None
        self._tokens_run = 0

    def run(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
        """float32 (n, dim) in the order given."""
        lengths = [len(ids) for ids in token_ids]
        vectors = np.empty((len(token_ids), self.dim), np.float32)
        budget = min(self._budget, max(_QUESTION_TOKENS, sum(lengths) // self._cores))  # work for every core
        plan = list(batches(lengths, budget=budget, max_rows=self._max_rows, padded=self._padded))
        inputs = (self._inputs(rows, token_ids, self._padded(lengths[rows[0]]), budget) for rows in plan)
        is_question = sum(lengths) <= _QUESTION_TOKENS  # it goes beside batches, or between two of them, and not after all
        with contextlib.nullcontext() if is_question else self._batches:
            try:
                self._tokens_run += sum(lengths)
                few = is_question or self._tokens_run <= _TOKENS_BEFORE_STREAMS
                for rows, batch in zip(plan, inputs):
                    queue = None if few or self._cores == 1 else self._streams()
                    if queue is None:
                        with self._questions:
                            vectors[rows] = self._request.infer(batch, share_inputs=True, share_outputs=True)[0][: len(rows)]
                    else:
                        queue.start_async(batch, (vectors, rows, batch), share_inputs=True)
                if self._queue is not None and not is_question:
                    self._queue.wait_all()
            except RuntimeError as error:
                raise EncodingError(f"{self.name} failed: {str(error).splitlines()[0]}") from error
        return vectors

    def close(self) -> None:
        """Drop the compiled models."""
        if self._compiling is not None:
            self._compiling.join()
        self._request = self._queue = self._model = None

    def _streams(self) -> Any:
        """A queue with one core a stream: no barrier between cores inside a layer. None until it is compiled.

        That takes a quarter of a second, on another core while this one goes on by itself.
        """
        if self._compiling is None:
            # no daemon: ended in the middle of a compilation, OpenVINO takes the whole process down with a message
            self._compiling = threading.Thread(target=self._open_streams, name="ufr-compile", daemon=False)
            self._compiling.start()
        if self._trouble is not None:
            raise self._trouble
        return self._queue

    def _open_streams(self) -> None:
        def done(request: Any, target: tuple[Vectors, list[int], Any]) -> None:
            target[0][target[1]] = request.get_output_tensor(0).data[: len(target[1])]

        try:
            queue = self._openvino.AsyncInferQueue(self._compile(streams=self._cores, threads=self._cores), self._cores)
            queue.set_callback(done)
            self._queue = queue
        except RuntimeError as error:  # raised by whoever asks for the streams
            self._trouble = error

    def _padded(self, length: int) -> int:
        return padded_to(self.widths, length)

    def _inputs(self, rows: list[int], token_ids: Sequence[Sequence[int]], width: int, budget: int) -> dict[int, Any]:
        """Ids and mask, (height, width); height: the rows, in a batch that is not full rounded up to a power of two."""
        full = min(max(1, budget // width), self._max_rows or len(rows))
        height = len(rows) if len(rows) >= full else min(full, 1 << (len(rows) - 1).bit_length())
        ids, mask = np.full((height, width), self._pad_id, np.int64), np.zeros((height, width), np.int64)
        mask[len(rows) :, 0] = 1  # what is made of the rows beyond is thrown away, and is a number
        for at, row in enumerate(rows):
            length = len(token_ids[row])
            ids[at, :length], mask[at, :length] = token_ids[row], 1
        return {0: ids, 1: mask}

    def _compile(self, *, streams: int, threads: int) -> Any:
        # never pinned to a core: beside one other busy process that costs a question 4.0 ms at the median, and free 1.9
        return self._core.compile_model(
            self._model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": self._precision,
                "NUM_STREAMS": str(streams),
                "INFERENCE_NUM_THREADS": str(threads),
                "ENABLE_CPU_PINNING": False,
            },
        )


def folder_for(spec: EncoderSpec, kind: str, cache_dir: Path) -> Path:
    """Where the converted model lies, or would."""
    slug = re.sub(r"[^A-Za-z0-9.-]+", "_", spec.space.rpartition("@")[2])  # not the name: the same weights from elsewhere
    return cache_dir / "engines" / f"text-{slug}-{kind}-{calibration_hash()}-ov{version()}-r{_RECIPE}"


def manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a converted model whose files are what it says; None where there is none, or a damaged one."""
    try:
        stated: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        sound = all(sha256_of(folder / name) == stated["sha256"][name] for name in FILES)
        return stated if sound and stated["sum"] == _sum(stated) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def torch_share(spec: EncoderSpec, cache_dir: Path) -> float:
    """Torch float32's speed as a share of openvino-f32's, measured side by side during conversion; 0 when unknown."""
    stated = manifest(folder_for(spec, "f32", cache_dir))
    return float(stated["torch_share"]) if stated is not None else 0.0


def reference(spec: EncoderSpec, cache_dir: Path) -> Reference | None:
    """Torch float32's own vectors, made during conversion; None when the model was not converted here."""
    try:
        stated = json.loads((folder_for(spec, "f32", cache_dir) / "manifest.json").read_text(encoding="utf-8"))
        return Reference.from_json(stated["reference"])  # it carries a checksum of its own
    except (OSError, ValueError, KeyError, TypeError):
        return None


def converted(spec: EncoderSpec, kind: str, cache_dir: Path, *, progress: Progress | None = None) -> Path:
    """The folder of the converted model, converting it first where needed. kind: "f32" or "int8"."""
    folder = folder_for(spec, kind, cache_dir)
    if manifest(folder) is None:
        source = converted(spec, "f32", cache_dir, progress=progress) if kind == "int8" else ""
        settings = {"query_prompt": spec.query_prompt, "passage_prompt": spec.passage_prompt, "dim": spec.dim}
        task = {
            "weights": {**asdict(spec.weights), "path": str(spec.weights.path)},
            "settings": settings,
            "kind": kind,
            "source": str(source),
        }
        needs = ("nncf",) if kind == "int8" else ("torch", "transformers")
        convert_once(folder, __name__, task, needs=needs, what=f"{spec.weights.name} for this CPU ({kind})", progress=progress)
    return folder


def convert_once(
    folder: Path, module: str, task: Mapping[str, Any], *, needs: Sequence[str], what: str, progress: Progress | None = None
) -> dict[str, Any]:
    """The manifest of `folder`; where it is not there, `python -m module` makes it from `task` and "out" in a process of its own.

    A damaged folder is removed with a warning.

    The child writes model.xml, model.bin and about.json, which becomes the manifest. needs: packages it imports.
    Raises MissingExtraError without them, EncodingError when it fails.
    """
    require("openvino", extra="cpu")
    if (stated := manifest(folder)) is not None:
        return stated
    if folder.exists():
        warnings.warn(f"{folder} is damaged and is converted again", RuntimeWarning, stacklevel=3)
        shutil.rmtree(folder, ignore_errors=True)
    for package in needs:
        if not _installed(package):
            raise MissingExtraError(package, "cpu")
    if progress is not None:
        progress(f"converting {what}, once")
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".converting-"))
    except OSError as error:
        raise EncodingError(f"the converted model cannot be kept in {folder.parent}: {error.strerror or error}") from error
    try:
        _convert_in_child(module, {**task, "out": str(aside)})
        seal(aside, folder)
    except OSError as error:
        raise EncodingError(f"the converted model cannot be kept in {folder.parent}: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if (stated := manifest(folder)) is None:
        raise EncodingError(f"the converted model in {folder} does not read back as written")
    return stated


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _convert_in_child(module: str, task: Mapping[str, Any]) -> None:
    root = str(Path(__file__).resolve().parents[3])
    paths = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
    env = {**os.environ, **quiet, "PYTHONPATH": paths}
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, json.dumps(task)],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CONVERT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EncodingError(f"conversion to OpenVINO did not finish: {error}") from error
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        last = said[-1] if said else f"exit status {done.returncode}"
        raise EncodingError(f"conversion to OpenVINO {task['kind']} failed: {last}")


def _sum(stated: Mapping[str, Any]) -> str:
    """Of all that a manifest says but this."""
    body = json.dumps({name: value for name, value in stated.items() if name != "sum"}, sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()


def seal(aside: Path, folder: Path) -> None:
    """Checksums, fsync, rename; whoever comes second keeps the first one's work."""
    about = json.loads((aside / "about.json").read_text(encoding="utf-8"))
    (aside / "about.json").unlink()
    about["sha256"] = {name: sha256_of(aside / name) for name in FILES}
    about["sum"] = _sum(about)
    (aside / "manifest.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    for path in [*aside.iterdir(), aside]:
        sync(path)
    try:
        os.rename(aside, folder)
    except OSError:
        if not folder.is_dir():
            raise


# below: the child process


def _child(task: dict[str, Any]) -> None:
    logging_off = ("nncf", "openvino", "transformers")
    import logging

    for name in logging_off:
        logging.getLogger(name).setLevel(logging.ERROR)
    stated = task["weights"]
    spec = EncoderSpec.read(Weights(**{**stated, "path": Path(stated["path"])}), **task["settings"])
    out = Path(task["out"])
    about = _to_int8(spec, Path(task["source"]), out) if task["kind"] == "int8" else _to_f32(spec, out)
    about |= {"openvino": version(), "recipe": _RECIPE, "model": spec.weights.name, "revision": spec.weights.revision}
    (out / "about.json").write_text(json.dumps(about), encoding="utf-8")


def _to_f32(spec: EncoderSpec, out: Path) -> dict[str, Any]:
    """Trace, save, and hold the result to torch's own vectors; torch's speed is measured on the way."""
    openvino, torch = require("openvino", extra="cpu"), require("torch")

    # one thread for each side: beside other work two wait for each other at every layer, and this took seven minutes
    torch.set_num_threads(1)
    pooled = _pooled_module(spec)
    ids = torch.arange(5, 5 + 3 * 17).reshape(3, 17)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    with torch.no_grad():
        model = openvino.convert_model(pooled, example_input={"input_ids": ids, "attention_mask": mask})
        openvino.save_model(model, str(out / "model.xml"), compress_to_fp16=False)
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
        compiled = openvino.Core().compile_model(str(out / "model.xml"), "CPU", options)
        cosines, torch_s, our_s = [], [], []
        for batch_ids, batch_mask in _calibration_batches(spec):
            for _ in range(2):  # kernels for a new shape are prepared in the first round
                started = time.perf_counter()
                ours = compiled([batch_ids, batch_mask])[0]
                between = time.perf_counter()
                theirs = pooled(torch.from_numpy(batch_ids), torch.from_numpy(batch_mask)).numpy()
                ended = time.perf_counter()
            our_s.append(between - started)
            torch_s.append(ended - between)
            cosines.append(float((ours * theirs).sum(1).min()))
    if min(cosines) < _MIN_COSINE:
        raise EncodingError(f"the converted model differs from torch: cosine {min(cosines):.5f}")
    share = float(np.median(our_s) / np.median(torch_s))
    return {"kind": "f32", "torch_share": share, "min_cosine_to_torch": min(cosines), "reference": _reference(spec, pooled)}


def _reference(spec: EncoderSpec, pooled: Any) -> dict[str, Any]:
    """Of torch, one text at a time, so that no padding is in it."""
    import torch

    pieces = WordPieces(spec)
    prompt = pieces.prompt(spec.passage_prompt)
    texts, vectors = reference_texts(pieces, prompt), []
    with torch.no_grad():
        for framed in pieces.with_special_tokens(pieces.tokenize(texts), prompt):
            ids = torch.tensor([framed])
            vectors.append(pooled(ids, torch.ones_like(ids)).numpy()[0])
    return Reference(texts, np.stack(vectors)).to_json()


def _pooled_module(spec: EncoderSpec) -> Any:
    import torch

    from ultrafast_rag.models.text.torch import load_model, pooling_head

    class Pooled(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
        def __init__(self) -> None:
            super().__init__()
            self.model = load_model(spec, "torch-f32", "cpu", attention="eager")
            self.head = pooling_head(spec)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.head(self.model(input_ids=input_ids, attention_mask=attention_mask)[0], attention_mask)

    return Pooled().eval()


def _calibration_batches(spec: EncoderSpec) -> list[tuple[Any, Any]]:
    pieces = WordPieces(spec)
    framed = pieces.with_special_tokens(pieces.tokenize(calibration_texts()))
    pairs = []
    for rows in batches([len(ids) for ids in framed], budget=BATCH_TOKENS):
        width = len(framed[rows[0]])
        ids, mask = np.full((len(rows), width), pieces.pad_id, np.int64), np.zeros((len(rows), width), np.int64)
        for at, row in enumerate(rows):
            ids[at, : len(framed[row])], mask[at, : len(framed[row])] = framed[row], 1
        pairs.append((ids, mask))
    return pairs


def _to_int8(spec: EncoderSpec, source: Path, out: Path) -> dict[str, Any]:
    """NNCF post-training quantization of weights and activations; statistics from whole batches, which is quicker."""
    openvino, nncf = require("openvino", extra="cpu"), require("nncf", extra="cpu")
    model = openvino.Core().read_model(str(source / "model.xml"))
    batch_list = [{"input_ids": ids, "attention_mask": mask} for ids, mask in _calibration_batches(spec)]
    quantized = nncf.quantize(model, nncf.Dataset(batch_list), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(batch_list))
    openvino.save_model(quantized, str(out / "model.xml"), compress_to_fp16=False)
    return {"kind": "int8", "nncf": metadata.version("nncf"), "calibration": calibration_hash()}


if __name__ == "__main__":
    _child(json.loads(sys.argv[1]))
