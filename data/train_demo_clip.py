"""Train `data/models/demo-clip`: a small CLIP, from scratch, on pictures that `pictures.py` draws.

    python data/train_demo_clip.py                    # draw, train, measure, write (about half an hour on 2 cores)
    python data/train_demo_clip.py --evaluate         # measure the checkpoint that is there

The checkpoint is an ordinary Hugging Face folder (CLIPModel, CLIPProcessor). It knows the house style
of `drawing.py` and nothing else; its card says so. Training is the usual symmetric contrastive loss
(Radford et al., 2021) with one help: a linear head, dropped afterwards, must name the caption's words
from the picture alone, which makes a small model from scratch learn several times sooner.
One combination in twelve (say "line chart of fish by season") is never drawn for training.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import sys
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from pictures import SUBJECTS, Sample, caption, sample
from PIL import Image, ImageDraw

HERE = Path(__file__).parent
PX, CONTEXT, VOCAB = 96, 40, 1400
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's
CARD = """# demo-clip

A demonstration checkpoint: {parameters:,} parameters, trained from scratch in about {minutes:.0f} minutes on one thread of a
busy 2-core machine by `data/train_demo_clip.py`, on pictures that `data/pictures.py` draws and captions that it writes.
Apache-2.0, no outside data.

It recognises this project's own house style only: bar, line, pie, scatter and heat-map charts, tables, flow diagrams,
island maps, coloured shapes and simple landscapes. A chart's subject is told by its badge and colour, not by its title,
which cannot be read at {px} pixels. On photographs, or on charts drawn by others, its answers mean nothing:
use the default, `laion/CLIP-ViT-B-32-laion2B-s34B-b79K`, there. `config.json` carries `"demo": true`.

Held out: recall@1 over 100 unseen pictures with 100 different captions (mean of {rounds} draws):
text to picture {text_to_image:.3f}, picture to text {image_to_text:.3f};
over combinations never drawn in training {unseen_text_to_image:.3f}. Numbers and command: `data/benchmarks/demo_clip.json`.
"""


def held_out(found: Sample) -> bool:
    """Whether this combination is kept from training."""
    return zlib.crc32(found.key.encode()) % 12 == 0


def to_square(image: Image.Image) -> np.ndarray:
    """uint8 (96, 96, 3): shortest edge to 96, centre crop, as the checkpoint's image processor does."""
    scale = PX / min(image.size)
    image = image.resize((max(PX, int(image.width * scale)), max(PX, int(image.height * scale))), Image.Resampling.BICUBIC)
    x, y = (image.width - PX) // 2, (image.height - PX) // 2
    return np.asarray(image.crop((x, y, x + PX, y + PX)), np.uint8)


def worn(image: Image.Image, rng: Random) -> Image.Image:
    """As found in a document: a margin, a caption's grey lines below, JPEG marks; or left alone."""
    if rng.random() < 0.45:
        m, below = round(image.height * rng.uniform(0, 0.06)), round(image.height * rng.choice([0, 0, 0.1]))
        page = Image.new("RGB", (image.width + 2 * m, image.height + 2 * m + below), "#ffffff")
        page.paste(image, (m, m))
        if below:
            ImageDraw.Draw(page).line((m, page.height - below // 2, page.width * 0.8, page.height - below // 2), "#8a97a3", 4)
        image = page
    if rng.random() < 0.3:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(60, 92))
        image = Image.open(buffer).convert("RGB")
    return image


def draw_pool(seed: int, count: int) -> tuple[np.ndarray, list[tuple[tuple[str, ...], tuple[str, ...], str]]]:
    """count training pictures as uint8 (n, 96, 96, 3), with full captions, short captions and key."""
    rng, pixels, said = Random(seed), [], []
    while len(pixels) < count:
        found = sample(rng)
        if not held_out(found):
            pixels.append(to_square(worn(found.image, rng)))
            said.append((found.full, found.short, found.key))
    return np.stack(pixels), said


def pool_of(count: int, work: Path, threads: int):
    """The training pictures as a tensor and what is said of each; kept in `work` for an interrupted run."""
    import torch

    kept, words = work / f"pictures-{count}.npy", work / f"pictures-{count}.json"
    if not words.exists():
        with ProcessPoolExecutor(threads) as workers:
            parts = list(workers.map(draw_pool, range(1000, 1000 + 8), [count // 8] * 8))
        np.save(kept, np.concatenate([p for p, _ in parts]))
        words.write_text(json.dumps([s for _, part in parts for s in part]))
    return torch.from_numpy(np.load(kept)), [
        (tuple(full), tuple(short), key) for full, short, key in json.loads(words.read_text())
    ]


def unseen(seed: int, count: int, *, combinations: bool = False) -> tuple[list[Image.Image], list[str]]:
    """Pictures never trained on with pairwise different keys and full captions."""
    rng, images, captions, keys = Random(seed), [], [], set()
    while len(images) < count:
        found = sample(rng)
        if found.key in keys or (combinations and not held_out(found)):
            continue
        keys.add(found.key)
        images.append(found.image)
        captions.append(caption(found, rng, full_share=1.0))
    return images, captions


def make_tokenizer(captions: list[str], folder: Path) -> None:
    """Byte-pair vocabulary in CLIP's own format, trained on captions and the handbook's prose."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    empty = CLIPTokenizer()
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer, trained.pre_tokenizer = empty.backend_tokenizer.normalizer, empty.backend_tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - len(alphabet) - 2, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(captions, trainer)
    model = json.loads(trained.to_str())["model"]
    words = [w for w, _ in sorted(model["vocab"].items(), key=lambda pair: pair[1])]
    words += [a + "</w>" for a in alphabet if a + "</w>" not in model["vocab"]]  # any text must split into known pieces
    words += ["<|startoftext|>", "<|endoftext|>"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    tokenizer = CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=merges, model_max_length=CONTEXT)
    tokenizer.save_pretrained(folder)
    (folder / "vocab.json").write_text(
        json.dumps({w: i for i, w in enumerate(words)}, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")


def make_model(folder: Path):
    """A fresh CLIPModel for the tokenizer in `folder`, with the image processor's settings beside it."""
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "projection_dim": 128,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": PX,
        "patch_size": 12,
        "projection_dim": 128,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=128)
    config.demo = True
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "crop_size": {"height": PX, "width": PX},
                "do_center_crop": True,
                "do_convert_rgb": True,
                "do_normalize": True,
                "do_rescale": True,
                "do_resize": True,
                "image_mean": MEAN,
                "image_processor_type": "CLIPImageProcessor",
                "image_std": STD,
                "resample": 3,
                "rescale_factor": 1 / 255,
                "size": {"shortest_edge": PX},
            },
            indent=2,
        )
        + "\n"
    )
    return CLIPModel(config)


def augment(batch, generator):
    """float (n, 3, 96, 96), normalised: each picture shifted by up to 5 pixels, its brightness and contrast changed a little."""
    import torch

    n = len(batch)
    padded = torch.nn.functional.pad(batch.permute(0, 3, 1, 2).float() / 255, (5, 5, 5, 5), mode="replicate")
    dx, dy = torch.randint(0, 11, (n,), generator=generator).tolist(), torch.randint(0, 11, (n,), generator=generator).tolist()
    shifted = torch.stack([p[:, y : y + PX, x : x + PX] for p, x, y in zip(padded, dx, dy)])
    gain, lift = 1 + 0.12 * torch.randn(n, 1, 1, 1, generator=generator), 0.04 * torch.randn(n, 1, 1, 1, generator=generator)
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    return ((shifted * gain + lift).clamp(0, 1) - mean) / std


def train(folder: Path, work: Path, *, steps: int, batch: int, pool: int, lr: float, threads: int, log=print) -> float:
    """Train and write the folder; an interrupted run goes on from the last checkpoint in `work`. Returns minutes."""
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    torch.set_num_threads(threads)
    torch.manual_seed(20240501)
    work.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    pixels, said = pool_of(pool, work, threads)
    log(f"drew {len(said)} pictures in {time.monotonic() - started:.0f} s")
    rng = Random(7)
    make_tokenizer([caption(Sample(None, full, short, key, ""), rng) for full, short, key in said] + prose() * 2, folder)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), make_model(folder)
    model.set_attn_implementation("eager")  # in bf16 on a CPU twice as fast as SDPA for 65 tokens
    head = torch.nn.Linear(128, len(tokenizer))
    first, spent, saved = 0, 0.0, work / "clip.safetensors"
    if saved.exists():
        state = load_file(saved)
        first, spent = int(state.pop("step")), float(state.pop("spent"))
        head.load_state_dict({k[5:]: state.pop(k) for k in [*state] if k.startswith("head.")})
        model.load_state_dict(state)
        log(f"going on from step {first}")
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=lr, weight_decay=0.05, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(first + 1)
    keys = np.array([zlib.crc32(key.encode()) for _, _, key in said])
    rng, order = Random(first + 11), []
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = (
                lr * min(1, (step - first + 20) / 200, (step + 1) / 200) * (0.5 + 0.5 * np.cos(np.pi * step / steps)) + 1e-6
            )
        if len(order) < batch:
            order = rng.sample(range(len(said)), len(said))
        rows, order = order[:batch], order[batch:]
        words = [caption(Sample(None, *said[r], ""), rng) for r in rows]
        tokens = tokenizer(words, return_tensors="pt", padding=True, truncation=True, max_length=CONTEXT)
        with torch.autocast("cpu", torch.bfloat16):
            seen = model.visual_projection(model.vision_model(pixel_values=augment(pixels[rows], generator)).pooler_output)
            meant = model.text_projection(model.text_model(**tokens).pooler_output)
            named = head(seen)
        seen, meant = F.normalize(seen.float(), dim=-1), F.normalize(meant.float(), dim=-1)
        logits = model.logit_scale.exp() * seen @ meant.T
        same = torch.from_numpy(keys[rows][:, None] == keys[rows][None, :]).float()
        target = same / same.sum(1, keepdim=True)
        bag = torch.zeros_like(named, dtype=torch.float32).scatter_(1, tokens["input_ids"], 1.0)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        loss = contrast + 40 * F.binary_cross_entropy_with_logits(named.float(), bag)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)
        if (step + 1) % 50 == 0 or step + 1 == steps:
            minutes = spent + (time.monotonic() - started) / 60
            save_file(
                {
                    **model.state_dict(),
                    **{"head." + k: v for k, v in head.state_dict().items()},
                    "step": torch.tensor(step + 1),
                    "spent": torch.tensor(minutes),
                },
                saved,
            )
            log(f"step {step + 1}/{steps} contrast {contrast.item():.3f} loss {loss.item():.3f} minutes {minutes:.1f}")
        if (step + 1) % 300 == 0 or step + 1 == steps:
            save_half(model, folder)
            log(json.dumps(evaluate(folder, rounds=2)))
            model.train()
    return spent + (time.monotonic() - started) / 60


def save_half(model, folder: Path) -> None:
    """The folder in float16, which halves it and changes no rate; the model stays as it is."""
    import copy

    copy.deepcopy(model).half().save_pretrained(folder)


def prose() -> list[str]:
    """Sentences whose common words the tokenizer should know whole."""
    return [f"which chart shows {subject} at the station, and on what page is it found?" for subject in SUBJECTS]


def evaluate(folder: Path, *, seed: int = 90_000, rounds: int = 10) -> dict[str, float]:
    """Recall@1 among 100 unseen pictures, both ways, through the public CLIPModel and CLIPProcessor; mean of `rounds` draws."""
    import torch
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), CLIPImageProcessor.from_pretrained(folder)
    result: dict[str, list[float]] = {}
    for prefix, combinations in (("", False), ("unseen_", True)):
        for r in range(rounds):
            images, captions = unseen(seed + r, 100, combinations=combinations)
            with torch.inference_mode():
                seen = model.visual_projection(model.vision_model(**processor(images, return_tensors="pt")).pooler_output)
                tokens = tokenizer(captions, return_tensors="pt", padding=True, truncation=True, max_length=CONTEXT)
                meant = model.text_projection(model.text_model(**tokens).pooler_output)
            scores = torch.nn.functional.normalize(meant, dim=-1) @ torch.nn.functional.normalize(seen, dim=-1).T
            right = torch.arange(100)
            result.setdefault(prefix + "text_to_image", []).append((scores.argmax(1) == right).float().mean().item())
            result.setdefault(prefix + "image_to_text", []).append((scores.argmax(0) == right).float().mean().item())
    return {name: round(float(np.mean(values)), 4) for name, values in result.items()}


def main() -> None:
    """Train and measure, or measure only."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "models" / "demo-clip")
    parser.add_argument("--work", type=Path, default=HERE / ".build", help="checkpoints of an unfinished run")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--batch", type=int, default=160)
    parser.add_argument("--pool", type=int, default=32_000)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1, help="more than one helps only on an idle machine")
    parser.add_argument("--evaluate", action="store_true")
    args = parser.parse_args()
    record = HERE / "benchmarks" / "demo_clip.json"
    if args.evaluate:
        print(json.dumps(evaluate(args.out), indent=2))
        return
    minutes = train(
        args.out,
        args.work,
        steps=args.steps,
        batch=args.batch,
        pool=args.pool,
        lr=args.lr,
        threads=args.threads,
        log=lambda line: print(line, flush=True),
    )
    rounds = 10
    numbers = evaluate(args.out, rounds=rounds)
    import torch
    import transformers

    size = sum(
        np.prod(t.shape) for t in transformers.CLIPModel.from_pretrained(args.out).state_dict().values() if t.is_floating_point()
    )
    numbers |= {
        "pictures_each_draw": 100,
        "draws": rounds,
        "parameters": int(size),
        "training_minutes": round(minutes, 1),
        "steps": args.steps,
        "batch": args.batch,
    }
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(
        json.dumps(
            {
                "machine": f"{platform.machine()}, {args.threads} threads",
                "date": datetime.now(UTC).date().isoformat(),
                "versions": {
                    "python": platform.python_version(),
                    "torch": torch.__version__,
                    "transformers": transformers.__version__,
                },
                "command": "python data/train_demo_clip.py",
                "numbers": numbers,
            },
            indent=2,
        )
        + "\n"
    )
    (args.out / "README.md").write_text(
        CARD.format(
            px=PX, rounds=rounds, minutes=minutes, parameters=int(size), **{k: v for k, v in numbers.items() if "_to_" in k}
        )
    )
    print(json.dumps(numbers, indent=2))


if __name__ == "__main__":
    main()
