"""GPU switches, one at a time, against what the device can do: texts, pictures, speech; TFLOP/s, peak memory.

Each row is a process of its own, so its peak memory is its own. The ceilings are a large matrix product and a large
copy, measured in the same run. Floating-point operations are counted from the model's dimensions (a
multiply and an add are two), so TFLOP/s is work that was needed, padding not counted. CLIP is the true
ViT-B/32 architecture, speech the true Whisper base; where weights are not at hand they are random, which does not
change their speed, but for how many tokens Whisper writes: the rows say how many.

A T4's figures are estimates (`t4_estimate`), marked so, until somebody runs this on one. `--device cpu --small` goes
through everything on a CPU, to see that it runs; its numbers say nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.bench.child import call
from ultrafast_rag.bench.encode import passages
from ultrafast_rag.bench.publicsets import data_folder
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import add_settings, config_of, settings_of
from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, UltraFastRAGError, WeightsError, require
from ultrafast_rag.models.clip.encoder import open_image_encoder
from ultrafast_rag.models.device import cpu_facts, gpu_facts, plan_device
from ultrafast_rag.models.speech.checkpoints import find_checkpoint
from ultrafast_rag.models.speech.gates import RATE
from ultrafast_rag.models.speech.whisper import FASTER, WhisperTranscriber, open_transcriber
from ultrafast_rag.models.text.encoder import open_text_encoder
from ultrafast_rag.types import Table

Rows = tuple[tuple[str, dict[str, Any]], ...]
# what a row changes from the default: fp16, length-sorted token-budget batches, every GPU
TEXT_ROWS: Rows = (
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
PICTURE_ROWS: Rows = (
    ("default (fp16)", {}),
    ("float32", {"engine": "torch-f32"}),
    ("bfloat16", {"engine": "torch-bf16"}),
    ("batches of 32 pictures", {"batch_size": 32}),
    ("8-bit", {"quantization": "8bit"}),
    ("4-bit", {"quantization": "4bit"}),
)
# windows: how many go through the model at once; 30 s each
SPEECH_ROWS: Rows = (
    ("default (fp16, 8 windows at once)", {"windows": 8}),
    ("one window at a time", {"windows": 1}),
    ("16 windows at once", {"windows": 16}),
    ("8-bit", {"windows": 8, "quantization": "8bit"}),
    ("faster-whisper base, 8 at once", {"speech_model": f"{FASTER}base"}),
    ("faster-whisper base, int8_float16", {"speech_model": f"{FASTER}base", "quantization": "8bit"}),
)
ONE_GPU = ("first GPU only", {"device": "cuda:0"})
KINDS: Mapping[str, Rows] = {"texts": TEXT_ROWS, "pictures": PICTURE_ROWS, "speech": SPEECH_ROWS}
# of a T4: fp16 sustained under its 70 W, by NVIDIA's own word 24 TFLOP/s in a 4096^3 product where its data sheet says 65
# (forums.developer.nvidia.com/t/about-gpu-peak-performance/264462); float32 and memory as in the data sheet
T4_TFLOPS = {"float16": 24.0, "float32": 8.1}
T4_GB_PER_S = 320.0
# of those 24 a well-fed ViT-S reached end to end on one: 980 pictures/s of 12.1 GFLOP
# (pkhw2023-ship-it.github.io/medium-posts/posts/20-million-image-scoring-bottlenecks)
T4_BEST_SHARE = 0.5
_PRODUCT, _SMALL_PRODUCT = 8192, 512  # side of the square matrices of the ceiling
_COPY_MB = 1024
_ONE_BY_ONE = 1000  # texts in the row that batches nothing: some 10 s there, where all 20 000 would take minutes
_SMALL = {"texts": 24, "pictures": 4, "speech": 2}
_ON_CPU = {"device": "cpu", "engine": "torch-f32"}  # the code that runs on a GPU, where one is
_WINDOW_S = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How much to encode."""
    parser.add_argument("--data", type=Path, help="folder of public collections (default: UFR_TEST_DATA)")
    parser.add_argument("--passages", type=int, default=20_000, help="passages to encode, repeated to that count")
    parser.add_argument("--pictures", type=int, default=2048, help="pictures of 640 x 480 to encode")
    parser.add_argument("--windows", type=int, default=64, help="windows of speech, 30 s each")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; the fastest is shown")
    parser.add_argument("--of", nargs="+", default=list(KINDS), choices=list(KINDS), help="what to measure")
    parser.add_argument(
        "--device", default="cuda", choices=["cuda", "cpu"], help="cpu: go through everything here, to see it run"
    )
    parser.add_argument("--small", action="store_true", help="a few of each, once")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """One row a switch. ConfigError without a GPU, unless a CPU is asked for."""
    on_gpu = arguments.device == "cuda"
    gpus = [gpu for gpu in gpu_facts() if gpu.supported] if on_gpu else []
    if on_gpu and not gpus:
        raise ConfigError(
            "bench gpu needs a CUDA device that the installed torch supports, and none is here; "
            "doctor() says what was found, 'bench encode' measures this CPU, --device cpu --small only sees whether it runs"
        )
    ceiling = call("ultrafast_rag.bench.gpu:ceilings", {"device": arguments.device}).value
    given = {**({} if on_gpu else _ON_CPU), **settings_of(arguments.set)}
    counts = {"texts": arguments.passages, "pictures": arguments.pictures, "speech": arguments.windows}
    counts = _SMALL if arguments.small else counts
    data = data_folder(arguments.data, needed=False)
    shared = {"data": str(data) if data else None, "repeats": 1 if arguments.small else arguments.repeats}
    rows: list[dict[str, Any]] = []
    notes: list[str] = [f"GPU: {'; '.join(gpu.summary() for gpu in gpus)}"] if on_gpu else ["on a CPU: only to see that it runs"]
    for kind in arguments.of:
        for name, settings in (*KINDS[kind], *((ONE_GPU,) if len(gpus) > 1 and kind == "texts" else ())):
            say(f"{kind}: {name} ...")
            count = min(counts[kind], _ONE_BY_ONE) if settings.get("batch_size") == 1 else counts[kind]
            wanted = {**shared, "count": count, "settings": {**given, **settings}}
            try:
                value = call(f"ultrafast_rag.bench.gpu:measure_{kind}", wanted).value
            except UltraFastRAGError as error:
                notes.append(f"{kind}, {name}: {str(error)[-200:]}")
                continue
            used = 1 if name == ONE_GPU[0] else max(1, len(gpus))
            rows.append({"of": kind, "switch": name, **_row(kind, value, settings, ceiling, used, on_gpu=on_gpu)})
    shown = ", ".join(f"{name} {value:.1f}" for name, value in ceiling.items())
    notes.append(f"ceilings of one device, TFLOP/s of a large matrix product and GB/s of a copy: {shown}")
    notes.append("T4, estimated: not measured; from the ceilings, by t4_estimate in ultrafast_rag/bench/gpu.py")
    where = gpus[0].name if on_gpu else cpu_facts().name
    found = {"ceiling": ceiling, "gpus": [gpu.name for gpu in gpus], "t4_assumed": {**T4_TFLOPS, "GB/s": T4_GB_PER_S}}
    return Result(Table(rows, f"GPU: {where}", notes=tuple(notes)), found)


def _row(
    kind: str, value: Mapping[str, Any], settings: Mapping[str, Any], ceiling: Mapping[str, float], used: int, *, on_gpu: bool
) -> dict[str, Any]:
    unit = "windows/s" if kind == "speech" else f"{kind}/s"
    estimate = t4_estimate(value["per_s"] / used, value["tflops"] / used, settings, ceiling) if on_gpu else None
    return {
        unit: value["per_s"],
        "tokens/s": value.get("tokens_per_s"),
        "x real time": value["per_s"] * _WINDOW_S if kind == "speech" else None,
        "tokens a window": value.get("tokens_per_window"),
        "TFLOP/s": value["tflops"],
        "share of the ceiling": value["tflops"] / (used * ceiling["float16"]),
        "peak VRAM MB": value["vram_mb"],
        "load s": value["load_s"],
        "first run s": value["first_s"],
        "engine": value["engine"],
        "one T4, estimated": None if estimate is None else f"{estimate[0]:.3g} to {estimate[1]:.3g} {unit}",
    }


def t4_estimate(
    per_s: float, tflops: float, settings: Mapping[str, Any], ceiling: Mapping[str, float]
) -> tuple[float, float] | None:
    """(least, most) a second on one T4, estimated from what one device here did; None where nothing can be said.

    least = per_s x min(T4's TFLOP/s / the ceiling here, T4's GB/s / the copy here): the same share of what the device
    can do. A faster device waits more for its host, so a T4 uses a larger share of itself.
    most = T4's TFLOP/s x T4_BEST_SHARE x per_s / tflops: the best share that anybody is known to have had of one.
    bfloat16 is emulated there and 8- and 4-bit layers are bound by their own kernels: None. Source of the constants: at
    their definition; the roofline is Williams et al. 2009.
    """
    precision = {"torch-f32": "float32", "torch-bf16": ""}.get(str(settings.get("engine")), "float16")
    if not precision or settings.get("quantization") or tflops <= 0:
        return None
    least = per_s * min(T4_TFLOPS[precision] / ceiling[precision], T4_GB_PER_S / ceiling["GB/s"])
    most = T4_TFLOPS[precision] * T4_BEST_SHARE * per_s / tflops
    return min(least, most), most


def ceilings(device: str) -> dict[str, float]:
    """TFLOP/s of square products by type, best of ten, and GB/s of a copy (read and written), on the first device."""
    torch, on_gpu, found = require("torch"), device != "cpu", dict[str, float]()
    side = _PRODUCT if on_gpu else _SMALL_PRODUCT
    for name in ("float16", "float32"):
        a, b = (torch.randn(side, side, device=device).to(getattr(torch, name)) for _ in range(2))
        found[name] = 2 * side**3 / _best(torch, lambda a=a, b=b: torch.matmul(a, b), on_gpu) / 1e12  # type: ignore[misc]
    held = torch.zeros((_COPY_MB if on_gpu else 64) << 18, device=device)  # float32
    other = torch.empty_like(held)
    found["GB/s"] = 2 * 4 * held.numel() / _best(torch, lambda: other.copy_(held), on_gpu) / 1e9
    return found


def _best(torch: Any, work: Callable[[], Any], on_gpu: bool) -> float:
    best = float("inf")
    for _ in range(10):
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


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
            encoder = open_image_encoder(config_of({"image_model": Config().image_model, **settings}))
        except WeightsError:
            random_clip(Path(folder))
            encoder = open_image_encoder(config_of({**settings, "image_model": folder}))
        load_s = time.perf_counter() - start
        # ViT-B/32: 49 patches and one class token through 12 layers of 768, and the patches' own projection
        work = count * (transformer_flops(50, 768, 3072, 12) + 2 * 49 * 3 * 32 * 32 * 768)
        first_s, best = _timed(lambda: encoder.encode_images(images), repeats)
        found = {"per_s": count / best, "tflops": work / best / 1e12, "vram_mb": _vram_mb(), "load_s": load_s, "first_s": first_s}
        encoder.close()
    return {**found, "engine": encoder.precision}


def measure_speech(data: str | None, count: int, repeats: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Windows of 30 s/s of Whisper base under `settings`, greedy, spectra included."""
    windows = [_murmur(seed) for seed in range(count)]
    settings = dict(settings)
    at_once = settings.pop("windows", None)
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-whisper-") as folder:
        config = config_of({"speech_model": "base", **settings})
        start = time.perf_counter()
        if str(config.speech_model).startswith(FASTER):
            return _measured_faster(config, windows, repeats, start)
        plan = plan_device(config)
        try:
            checkpoint = find_checkpoint(str(config.speech_model), config)
        except WeightsError:
            random_whisper(Path(folder))
            checkpoint = find_checkpoint(folder, config)
        precision = plan.dtype if plan.quantization == "none" else plan.quantization
        listener = WhisperTranscriber(checkpoint, device=plan.devices[-1], precision=precision, windows=at_once)
        load_s, written = time.perf_counter() - start, list[int]()

        def listen() -> None:
            written.clear()
            for at in range(0, count, listener.windows):
                written.extend(listener.tokens_heard(windows[at : at + listener.windows], "en"))

        first_s, best = _timed(listen, repeats)
        dims = listener.dims
    work = sum(whisper_flops(dims, tokens) for tokens in written)
    return {
        "per_s": count / best,
        "tflops": work / best / 1e12,
        "tokens_per_window": sum(written) / count,
        "vram_mb": _vram_mb(),
        "load_s": load_s,
        "first_s": first_s,
        "engine": precision,
    }


def _measured_faster(config: Config, windows: Sequence[Any], repeats: int, start: float) -> dict[str, Any]:
    """The same through faster-whisper, whose memory and operations torch does not see."""
    listener = open_transcriber(config)
    load_s = time.perf_counter() - start
    sounds = [(window * 32767).astype("<i2").tobytes() for window in windows]
    first_s, best = _timed(lambda: listener.transcribe_many(sounds, language="en"), repeats)
    engine = listener.fingerprint.rpartition("|")[2]
    rest: dict[str, Any] = {"tflops": 0.0, "vram_mb": None, "load_s": load_s, "first_s": first_s, "engine": engine}
    return {"per_s": len(windows) / best, **rest}


def whisper_flops(dims: Any, tokens: int) -> float:
    """Floating-point operations of one window: the encoder, keys and values of its states, and `tokens` of the decoder.

    A decoder's layer has 4 dim^2 weights for what was written, 2 for the sound's queries and outputs and 8 feed-forward, used
    once a token; the sound's keys and values 2 dim^2 once a position. Then the vocabulary.  Counted in openai-whisper's model.py.
    """
    dim, heard = dims.n_text_state, dims.n_audio_ctx
    encoder = transformer_flops(heard, dims.n_audio_state, 4 * dims.n_audio_state, dims.n_audio_layer)
    convolutions = 2 * 3 * dims.n_audio_state * (2 * heard * dims.n_mels + heard * dims.n_audio_state)
    step = dims.n_text_layer * (2 * 14 * dim * dim + 4 * heard * dim) + 2 * dim * dims.n_vocab
    return float(encoder + convolutions + dims.n_text_layer * 4 * heard * dim * dim + tokens * step)


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


WHISPER_BASE = {
    **{"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 512, "n_audio_head": 8, "n_audio_layer": 6},
    **{"n_vocab": 51865, "n_text_ctx": 448, "n_text_state": 512, "n_text_head": 8, "n_text_layer": 6},
}  # as published by OpenAI


def random_whisper(folder: Path) -> None:
    """Whisper base as published, with random weights."""
    torch, library = require("torch"), require("whisper.model", package="openai-whisper", extra="speech")
    torch.manual_seed(0)
    model = library.Whisper(library.ModelDimensions(**WHISPER_BASE))
    state = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    require("safetensors.torch").save_file(state, str(folder / "model.safetensors"))
    (folder / "dims.json").write_text(json.dumps(WHISPER_BASE), encoding="utf-8")


def _murmur(seed: int) -> Any:
    """30 s of noise that swells and fades like syllables; float32 at 16 kHz."""
    t = np.arange(_WINDOW_S * RATE) / RATE
    swell = np.abs(np.sin(2 * np.pi * 1.7 * t))
    return (np.random.default_rng(seed).normal(0, 0.1, len(t)) * swell).astype(np.float32)


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
