"""CLIP pictures/s and texts/s, Whisper seconds of sound a second: the true architectures, random weights.

    python tests/benchmarks/media.py [--device auto] [--pictures DIR] [--out data/benchmarks/media_cpu.json]

Speed does not depend on the values of the weights, so nothing has to be fetched. "transformers as it
is" is the plain way: float32, CLIPProcessor, texts padded to 77 tokens, batches of 32. Prints a table and
writes JSON with machine, versions, date and command.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.bench.result import write_result
from ultrafast_rag.config import Config
from ultrafast_rag.models.clip.encoder import ClipEncoder, open_image_encoder
from ultrafast_rag.models.device import plan_device
from ultrafast_rag.models.speech.checkpoints import find_checkpoint
from ultrafast_rag.models.speech.whisper import WhisperTranscriber

WHISPER_BASE = {
    "n_mels": 80,
    "n_audio_ctx": 1500,
    "n_audio_state": 512,
    "n_audio_head": 8,
    "n_audio_layer": 6,
    "n_vocab": 51865,
    "n_text_ctx": 448,
    "n_text_state": 512,
    "n_text_head": 8,
    "n_text_layer": 6,
}
CAPTIONS = (
    "a bar chart of rainfall by month",
    "two dogs run over a wide green field",
    "a red bus at a stop in the rain",
    "a person riding a wave on a surfboard",
    "a table with a plate of food and two glasses of wine on it",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pictures", type=Path, help="a folder of JPEGs; without it, 44 drawn ones of 640 x 480")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("data/benchmarks/media_cpu.json"))
    arguments = parser.parse_args(argv)
    pictures, texts = read_pictures(arguments.pictures), [CAPTIONS[n % len(CAPTIONS)] for n in range(256)]
    with tempfile.TemporaryDirectory() as folder:
        clip, speech = Path(folder) / "clip", Path(folder) / "whisper"
        make_clip(clip)
        make_whisper(speech)
        rows = [*clip_rows(clip, pictures, texts, arguments), *whisper_rows(speech, arguments)]
    width = max(len(row["what"]) for row in rows)
    for row in rows:
        print(f"{row['what']:{width}}  {row['setting']:34} {row['value']:9.1f} {row['unit']}")
    shown = {**vars(arguments), "pictures": "DIR" if arguments.pictures else None}
    command = " ".join(["python tests/benchmarks/media.py", *(f"--{name} {value}" for name, value in shown.items() if value)])
    data = {"weights": "random, true architectures: openai/clip-vit-base-patch32, Whisper base", "pictures": len(pictures),
            "rounds": arguments.rounds, "statistic": "median", "rows": rows}  # fmt: skip
    print(write_result(arguments.out.stem, data, path=arguments.out, command=command))


def clip_rows(folder: Path, pictures: list[bytes], texts: list[str], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    on_gpu = plan_device(Config(device=arguments.device)).on_gpu
    half = "torch-f16" if on_gpu else "torch-bf16"
    encoders: list[tuple[str, int | None]] = [("torch-f32", None), (half, None)]
    if not on_gpu:
        encoders += [("openvino-f32", None), ("openvino-bf16", None), ("openvino-int8", None)]
        encoders += [("openvino-bf16", budget) for budget in (512, 2048, 8192)]
    for engine, budget in encoders:
        encoder = open_clip_encoder(folder, engine, arguments.device, budget)
        setting = f"{encoder.precision}, {budget or 'default'} tokens a batch"
        seconds = timed(partial(encoder.encode_images, pictures), arguments)
        rows.append(row("CLIP ViT-B/32 pictures", setting, len(pictures) / seconds, "/s"))
        if budget is None:
            seconds = timed(partial(encoder.encode_texts, texts), arguments)
            rows.append(row("CLIP ViT-B/32 texts", setting, len(texts) / seconds, "/s"))
            seconds = timed(partial(encoder.encode_texts, texts[:1]), arguments)
            rows.append(row("CLIP ViT-B/32 one text", setting, 1000 * seconds, "ms"))
        encoder.close()
    if not on_gpu:
        rows += plain_rows(folder, pictures, texts, arguments)
    return rows


def plain_rows(folder: Path, pictures: list[bytes], texts: list[str], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The same model the plain way."""
    import torch
    import transformers
    from PIL import Image

    model = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = transformers.CLIPImageProcessor.from_pretrained(folder)
    tokenizer = open_clip_encoder(folder, "torch-f32", "cpu", None)._towers[0].tokenize

    def images() -> None:
        with torch.inference_mode():
            for start in range(0, len(pictures), 32):
                opened = [Image.open(io.BytesIO(image)).convert("RGB") for image in pictures[start : start + 32]]
                model.visual_projection(model.vision_model(**processor(images=opened, return_tensors="pt")).pooler_output)

    def padded() -> None:
        with torch.inference_mode():
            for start in range(0, 64, 32):
                ids = [row + [row[-1]] * (77 - len(row)) for row in tokenizer(texts[start : start + 32])]
                model.text_projection(model.text_model(input_ids=torch.tensor(ids)).pooler_output)

    setting = "transformers as it is, float32"
    return [
        row("CLIP ViT-B/32 pictures", setting, len(pictures) / timed(images, arguments), "/s"),
        row("CLIP ViT-B/32 texts", f"{setting}, 77 tokens", 64 / timed(padded, arguments), "/s"),
    ]


def whisper_rows(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    plan = plan_device(Config(device=arguments.device))
    sound = np.random.default_rng(0).normal(0, 0.1, 480_000).astype(np.float32)
    rows = []
    for precision in ("float32", "float16" if plan.on_gpu else "bfloat16"):
        listener = WhisperTranscriber(find_checkpoint(str(folder), Config()), device=plan.devices[-1], precision=precision)
        seconds = timed(lambda: float(listener.encode_audio(sound).float().sum()), arguments)  # noqa: B023
        rows.append(row("Whisper base encoder", precision, 30.0 / seconds, "x realtime"))
    return rows


def row(what: str, setting: str, value: float, unit: str) -> dict[str, Any]:
    return {"what": what, "setting": setting, "value": value, "unit": unit}


def timed(work: Callable[[], object], arguments: argparse.Namespace) -> float:
    """Median seconds of a round, after one that does not count."""
    work()
    seconds = []
    for _ in range(arguments.rounds):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def open_clip_encoder(folder: Path, engine: Any, device: str, budget: int | None) -> ClipEncoder:
    # converted towers go with the random weights they were made from
    config = Config(image_model=str(folder), engine=engine, device=device, batch_tokens=budget, cache_dir=folder.parent / "cache")
    return open_image_encoder(config, plan_device(config))


def read_pictures(folder: Path | None) -> list[bytes]:
    if folder is not None:
        found = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))]
        if not found:
            sys.exit(f"{folder} holds no *.jpg")
        return found
    from PIL import Image

    pictures = []
    for seed in range(44):
        coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        pictures.append(buffer.getvalue())
    return pictures


def make_clip(folder: Path) -> None:
    """ViT-B/32 as published, random weights, and a word tokenizer of the captions."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    torch.manual_seed(0)
    transformers.CLIPModel(transformers.CLIPConfig()).save_pretrained(folder)
    transformers.CLIPImageProcessor().save_pretrained(folder)
    words = sorted({word for text in CAPTIONS for word in text.split()})
    vocabulary = {word: n for n, word in enumerate(["<unk>", *words])} | {"<start>": 49406, "<end>": 49407}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 49406), ("<end>", 49407)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def make_whisper(folder: Path) -> None:
    """Whisper base with random weights, as dims.json and safetensors."""
    import torch
    from safetensors.torch import save_file
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(0)
    folder.mkdir()
    state = Whisper(ModelDimensions(**WHISPER_BASE)).state_dict()
    save_file({name: torch.randn_like(value) * 0.02 for name, value in state.items()}, str(folder / "model.safetensors"))
    (folder / "dims.json").write_text(json.dumps(WHISPER_BASE), encoding="utf-8")


if __name__ == "__main__":
    main()
