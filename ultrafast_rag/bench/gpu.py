"""GPU switches, one at a time, against what the device can do: tokens/s, pictures/s, TFLOP/s, peak memory.

Each row is a process of its own, so its peak memory is its own. The ceiling is a large matrix product in
float16, measured in the same run. Floating-point operations are counted from the model's dimensions (a
multiply and an add are two), so TFLOP/s is work that was needed, padding not counted. CLIP is the true
ViT-B/32 architecture; where its weights are not at hand they are random, which does not change its speed.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.bench.child import call
from ultrafast_rag.bench.encode import passages
from ultrafast_rag.bench.publicsets import data_folder
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import add_settings, config_of, settings_of
from ultrafast_rag.errors import ConfigError, UltraFastRAGError, WeightsError, require
from ultrafast_rag.models.clip.encoder import open_image_encoder
from ultrafast_rag.models.device import gpu_facts
from ultrafast_rag.models.text.encoder import open_text_encoder
from ultrafast_rag.types import Table

# what a row changes from the default: fp16, length-sorted token-budget batches, every GPU
TEXT_ROWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("default (fp16, sorted token batches)", {}),
    ("float32", {"engine": "torch-f32"}),
    ("bfloat16", {"engine": "torch-bf16"}),
    ("one text at a time", {"batch_size": 1}),
    ("batches of 32 texts", {"batch_size": 32}),
    ("4 096 tokens per batch", {"batch_tokens": 4096}),
    ("16 384 tokens per batch", {"batch_tokens": 16_384}),
    ("65 536 tokens per batch", {"batch_tokens": 65_536}),
    ("compile", {"compile": True}),
    ("8-bit", {"quantization": "8bit"}),
    ("4-bit", {"quantization": "4bit"}),
)
PICTURE_ROWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("default (fp16)", {}),
    ("float32", {"engine": "torch-f32"}),
    ("8-bit", {"quantization": "8bit"}),
)
ONE_GPU = ("first GPU only", {"device": "cuda:0"})
_PRODUCT = 8192  # side of the square matrices of the ceiling
_ONE_BY_ONE = 1000  # texts in the row that batches nothing: some 10 s there, where all 20 000 would take minutes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How much to encode."""
    parser.add_argument("--data", type=Path, help="folder of public collections (default: UFR_TEST_DATA)")
    parser.add_argument("--passages", type=int, default=20_000, help="passages to encode, repeated to that count")
    parser.add_argument("--pictures", type=int, default=2048, help="pictures of 640 x 480 to encode")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; the fastest is shown")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """One row a switch. ConfigError without a GPU."""
    gpus = [gpu for gpu in gpu_facts() if gpu.supported]
    if not gpus:
        raise ConfigError(
            "bench gpu needs a CUDA device that the installed torch supports, and none is here; "
            "doctor() says what was found, 'bench encode' measures this CPU"
        )
    data = data_folder(arguments.data, needed=False)
    ceiling = call("ultrafast_rag.bench.gpu:matmul_tflops", {}).value
    shared = {"data": str(data) if data else None, "repeats": arguments.repeats}
    given = settings_of(arguments.set)
    extra = (ONE_GPU,) if len(gpus) > 1 else ()
    rows: list[dict[str, Any]] = []
    notes: list[str] = [f"GPU: {'; '.join(gpu.summary() for gpu in gpus)}"]
    counts = {"texts": arguments.passages, "pictures": arguments.pictures}
    for kind, listed in (("texts", (*TEXT_ROWS, *extra)), ("pictures", PICTURE_ROWS)):
        for name, settings in listed:
            say(f"{kind}: {name} ...")
            count = min(counts[kind], _ONE_BY_ONE) if settings.get("batch_size") == 1 else counts[kind]
            wanted = {**shared, "count": count, "settings": {**given, **settings}}
            try:
                outcome = call(f"ultrafast_rag.bench.gpu:measure_{kind}", wanted)
            except UltraFastRAGError as error:
                notes.append(f"{kind}, {name}: {str(error)[-200:]}")
                continue
            value = outcome.value
            used = 1 if name == ONE_GPU[0] else len(gpus)
            rows.append(
                {
                    "of": kind,
                    "switch": name,
                    f"{kind}/s": value["per_s"],
                    "tokens/s": value.get("tokens_per_s"),
                    "TFLOP/s": value["tflops"],
                    "share of the ceiling": value["tflops"] / (used * ceiling["float16"]),
                    "peak VRAM MB": value["vram_mb"],
                    "load s": value["load_s"],
                    "first run s": value["first_s"],
                }
            )
    shown = ", ".join(f"{name} {value:.1f}" for name, value in ceiling.items())
    notes.append(f"ceiling: TFLOP/s of a {_PRODUCT} x {_PRODUCT} matrix product on the first GPU: {shown}")
    found = {"ceiling_tflops": ceiling, "gpus": [gpu.name for gpu in gpus]}
    return Result(Table(rows, f"GPU: {gpus[0].name}", notes=tuple(notes)), found)


def matmul_tflops() -> dict[str, float]:
    """Best of ten square products by type, in TFLOP/s, on the first GPU."""
    torch = require("torch")
    found = {}
    for name in ("float16", "float32"):
        a, b = (torch.randn(_PRODUCT, _PRODUCT, device="cuda", dtype=getattr(torch, name)) for _ in range(2))
        best = float("inf")
        for _ in range(10):
            torch.cuda.synchronize()
            start = time.perf_counter()
            torch.matmul(a, b)
            torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
        found[name] = 2 * _PRODUCT**3 / best / 1e12
        del a, b
    return found


def measure_texts(data: str | None, count: int, repeats: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Texts/s and tokens/s of the text encoder under `settings`, tokenization left out."""
    few = passages(Path(data) if data else None, min(count, 2000))
    texts = [few[n % len(few)] for n in range(count)]
    start = time.perf_counter()
    encoder = open_text_encoder(config_of(settings))
    load_s = time.perf_counter() - start
    tokens = encoder.tokenize(texts)
    lengths = [min(len(ids) + 2, encoder.max_tokens) for ids in tokens]
    shape = encoder.spec.config
    inner = int(shape.get("intermediate_size") or 4 * encoder.spec.dim)
    work = sum(transformer_flops(n, encoder.spec.dim, inner, encoder.spec.layers) for n in lengths)
    first_s, best = _timed(lambda: encoder.encode_tokens(tokens), repeats)
    return {
        "per_s": count / best,
        "tokens_per_s": sum(lengths) / best,
        "tflops": work / best / 1e12,
        "vram_mb": _vram_mb(),
        "load_s": load_s,
        "first_s": first_s,
        "engine": encoder.engine.name,
    }


def measure_pictures(data: str | None, count: int, repeats: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Pictures/s of the CLIP encoder under `settings`, decoding included."""
    images = _pictures(min(count, 256))
    images = [images[n % len(images)] for n in range(count)]
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-clip-") as folder:
        start = time.perf_counter()
        try:
            encoder = open_image_encoder(config_of({"image_model": "openai/clip-vit-base-patch32", **settings}))
        except WeightsError:
            random_clip(Path(folder))
            encoder = open_image_encoder(config_of({**settings, "image_model": folder}))
        load_s = time.perf_counter() - start
        # ViT-B/32: 49 patches and one class token through 12 layers of 768, and the patches' own projection
        work = count * (transformer_flops(50, 768, 3072, 12) + 2 * 49 * 3 * 32 * 32 * 768)
        first_s, best = _timed(lambda: encoder.encode_images(images), repeats)
        found = {"per_s": count / best, "tflops": work / best / 1e12, "vram_mb": _vram_mb(), "load_s": load_s, "first_s": first_s}
        encoder.close()
    return found


def transformer_flops(tokens: int, dim: int, inner: int, layers: int) -> float:
    """Floating-point operations of one sequence through an encoder: projections, feed-forward, attention.

    A layer has 4 dim^2 + 2 dim inner weights, each used once a token, and two products of
    tokens x tokens x dim.  Source: Kaplan et al. 2020, section 2.1, with both matrices of the attention.
    """
    return float(layers * (2 * tokens * (4 * dim * dim + 2 * dim * inner) + 4 * tokens * tokens * dim))


def random_clip(folder: Path) -> None:
    """ViT-B/32 as published with random weights, and a tokenizer of a few words."""
    torch, transformers = require("torch"), require("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    torch.manual_seed(0)
    transformers.CLIPModel(transformers.CLIPConfig()).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "crop_size": 224,
                "size": 224,
                "do_center_crop": True,
                "do_normalize": True,
                "do_resize": True,
                "resample": 3,
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
                "image_processor_type": "CLIPImageProcessor",
            }
        ),
        encoding="utf-8",
    )
    words = {"<unk>": 0, "a": 1, "picture": 2, "<start>": 49406, "<end>": 49407}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 49406), ("<end>", 49407)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def _pictures(count: int) -> Sequence[bytes]:
    image = require("PIL.Image", package="pillow")
    made = []
    for seed in range(count):
        coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        image.fromarray(coarse).resize((640, 480), image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def _timed(work: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Seconds of the first run, and of the fastest after it; encoders return host arrays, so a run is over then."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds[0], min(seconds[1:])


def _vram_mb() -> float:
    """Most memory held by tensors on all GPUs, in MiB; 0 without one."""
    torch = require("torch")
    return float(sum(torch.cuda.max_memory_allocated(n) for n in range(torch.cuda.device_count())) / 2**20)
