"""Train `data/models/demo-whisper`: a small checkpoint for openai-whisper's own model class.

    python data/train_demo_whisper.py                 # speak, train, measure, write (needs espeak-ng)
    python data/train_demo_whisper.py --evaluate      # measure the checkpoint that is there

The folder holds `dims.json` (whisper.model.ModelDimensions), `model.safetensors` (float16, the names of
Whisper.state_dict()) and `config.json`. It works with whisper's unmodified tokenizer, `decode` and
`transcribe`. It knows the 181 words of `speech.py` as espeak-ng speaks them, and nothing else.

Three things make this quick on two cores. The corpus carries the time of every word and phoneme, so
the encoder is taught frame by frame and one head of each cross attention is told where to look (both
helps are dropped afterwards). Windows grow from 4 to 10 and 30 seconds, standing anywhere in the 30. And only
the tokens in use have rows of their own: all others share one row whose logit is always -40.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import speech
import whisper_corpus as corpus_of

HERE = Path(__file__).parent
DIMS = {
    "n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 112, "n_audio_head": 4, "n_audio_layer": 4,
    "n_vocab": 51865, "n_text_ctx": 448, "n_text_state": 112, "n_text_head": 4, "n_text_layer": 2,
}  # fmt: skip
UNUSED_LOGIT = -40.0
ALONE = {"language": "en", "fp16": False, "condition_on_previous_text": False}  # each window by itself
KINDS = ((4.0, 1, 20), (10.0, 4, 8), (30.0, 11, 4))  # window in seconds, sentences at most, windows a step
STAGES = (  # share of the steps up to here, how often each kind comes
    (0.12, (1.0, 0.0, 0.0)), (0.55, (0.1, 0.85, 0.05)), (1.0, (0.05, 0.5, 0.45)),
)  # fmt: skip
CARD = """# demo-whisper

A demonstration checkpoint for openai-whisper's `whisper.model.Whisper`: {parameters:,} parameters in use, trained from scratch in
about {minutes:.0f} minutes on one thread of a busy 2-core machine by `data/train_demo_whisper.py`. Apache-2.0, no outside data.

It knows {words} English words (see `data/speech.py`) as espeak-ng speaks them. On human speech, other words or other voices
its output means nothing: use `base`, `small` or `large-v3-turbo` there. `config.json` carries `"demo": true`.

It hears three or four sentences in a window well; `speech_window_s` in `config.json` tells the package to cut its windows at
pauses accordingly. A window packed with eight or more, or a prompt of more than three sentences (`condition_on_previous_text`),
makes it skip or invent some. It hears clean speech: noise 30 dB below the voice costs a few words in a hundred, 20 dB below it
four in ten. It was trained in several sittings while its schedule was tuned, beside other work; minutes are those of the clock.

Through openai-whisper's own `transcribe`, 30 s at a time: word error rate on unseen sentences {wer_unseen_sentences:.3f}; on
unseen ones in voice settings never trained on {wer_unseen_voices:.3f}; on the sample recording, of which only the greetings were
trained on, {wer_recording:.3f} (it is such a packed window); silence, noise and music give {words_from_no_speech:.0f} words in
{no_speech_windows:.0f} windows. Numbers and command: `data/benchmarks/demo_whisper.json`.

Through the package, which cuts at pauses and holds back what has no voice under it: `data/benchmarks/speech.json`, by
`python tests/benchmarks/transcription.py`.
"""


def used_tokens() -> list[int]:
    """The tokens with rows of their own, ascending; timestamps come last."""
    marks = corpus_of.tokenizer()
    words = {
        token
        for word in speech.vocabulary()
        for form in (word, word.capitalize())
        for end in ("", ".", ",")
        for token in corpus_of.word_tokens(form + end)
    }
    special = {
        marks.eot,
        marks.sot,
        marks.sot_prev,
        marks.no_speech,
        marks.no_timestamps,
        marks.transcribe,
        marks.to_language_token("en"),
    }
    return sorted(words | special)


def build():
    """The model with a small token table, the helps that training drops, and the mask of the fixed column."""
    import torch
    from torch import nn
    from whisper.model import ModelDimensions, Whisper, sinusoids

    model = Whisper(ModelDimensions(**{**DIMS, "n_vocab": len(used_tokens())}))
    width = DIMS["n_text_state"]
    nn.init.normal_(model.decoder.token_embedding.weight, std=0.1)
    model.decoder.positional_embedding.data = sinusoids(DIMS["n_text_ctx"], width) * 0.1
    with torch.no_grad():  # the first column is kept free: the final norm gives 1 there, whatever it sees
        model.decoder.ln.weight[0], model.decoder.ln.bias[0] = 0.0, 1.0
    helps = nn.ModuleDict({
        "words": nn.Linear(width, len(corpus_of.word_list()) + 1), "phones": nn.Linear(width, corpus_of.PHONES),
        "moments": nn.Linear(64, width, bias=False),
    })  # fmt: skip
    nn.init.normal_(helps["moments"].weight, std=0.03)
    free = torch.ones(width)
    free[0] = 0
    return model, helps, free, sinusoids(1501, 64)


def table(model, helps, free, moments):
    """(tokens in use + 1501, width): words and marks, then timestamps as a linear function of their time."""
    import torch

    return torch.cat([model.decoder.token_embedding.weight, helps["moments"](moments)]) * free


def forward(model, rows, mel, offsets, tokens):
    """Encoder and decoder in the dtype of mel: last hidden state, encoder output, half-way state, taught heads' attention."""
    import torch
    import torch.nn.functional as F

    x = F.gelu(model.encoder.conv2(F.gelu(model.encoder.conv1(mel)))).permute(0, 2, 1)
    n = x.shape[1]
    x = (x + torch.stack([model.encoder.positional_embedding[o : o + n] for o in offsets])).to(mel.dtype)
    half = x
    for k, block in enumerate(model.encoder.blocks):
        x = block(x)
        half = x if k == 1 else half
    heard = model.encoder.ln_post(x)
    y = (rows[tokens] + model.decoder.positional_embedding[: tokens.shape[1]]).to(mel.dtype)
    looks = []
    for block in model.decoder.blocks:
        y = y + block.attn(block.attn_ln(y), mask=model.decoder.mask)[0]
        cross, seen = block.cross_attn, block.cross_attn_ln(y)
        y = y + cross(seen, heard)[0]
        y = y + block.mlp(block.mlp_ln(y))
        d = DIMS["n_text_state"] // DIMS["n_text_head"]
        q, k = cross.query(seen)[..., :d].float(), cross.key(heard)[..., :d].float()
        looks.append((q @ k.transpose(1, 2) / math.sqrt(d)).log_softmax(-1))
    return model.decoder.ln(y), heard, half, looks


def batch_of(windows, index):
    """Windows as tensors: log-mel as whisper computes it, padded tokens and targets, frame labels, spans to look at."""
    import torch
    from whisper.audio import log_mel_spectrogram

    longest = max(len(w.tokens) for w in windows)
    pad = lambda rows, value: torch.tensor([row + [value] * (longest - len(row)) for row in rows])  # noqa: E731
    to_row = lambda token: index[token] if token in index else len(index) + token - corpus_of.tokenizer().timestamp_begin  # noqa: E731
    mel = torch.stack([log_mel_spectrogram(torch.from_numpy(w.pcm)) for w in windows])
    tokens = pad([[to_row(t) for t in w.tokens] for w in windows], 0)
    targets = pad([[t if t == -100 else to_row(t) for t in w.targets] for w in windows], -100)
    spans = torch.tensor([w.spans + [(-1, -1)] * (longest - len(w.spans)) for w in windows])
    labels = torch.from_numpy(np.stack([w.words for w in windows])), torch.from_numpy(np.stack([w.phones for w in windows]))
    return mel, tokens, targets, spans, labels


def losses(model, helps, free, moments, batch, offsets, dtype):
    """Next token, frames' words, frames' phonemes, and how little the taught heads look where they should."""
    import torch
    import torch.nn.functional as F

    mel, tokens, targets, spans, (words, phones) = batch
    rows = table(model, helps, free, moments)
    y, heard, half, looks = forward(model, rows, mel.to(dtype), offsets, tokens)
    logits = (y @ rows.to(dtype).T).float()
    text = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="none").view(targets.shape)
    first = len(rows) - len(moments)
    timed = targets >= first
    if timed.any():  # a timestamp may be a little off: its neighbours share the target
        near = torch.arange(-4, 5)
        weight = torch.softmax(-(near.float() ** 2) / 8, 0)
        wanted = (targets[timed][:, None] + near).clamp(first, len(rows) - 1)
        text = text.masked_scatter(timed, -(logits[timed].log_softmax(-1).gather(1, wanted) * weight).sum(1))
    text = text.sum() / (targets >= 0).sum()
    word = F.cross_entropy(helps["words"](heard.float()).flatten(0, 1), words.flatten())
    phone = F.cross_entropy(helps["phones"](half.float()).flatten(0, 1), phones.flatten())
    frames = torch.arange(heard.shape[1])
    now = torch.cat([torch.full_like(spans[:, :1], -1), spans[:, :-1]], 1)
    parts = []
    for wanted, at in zip((now, spans), looks):  # the first layer finds the word just said, the second the one to come
        inside = (frames >= wanted[..., :1] - 1) & (frames <= wanted[..., 1:] + 1) & (wanted[..., :1] >= 0)
        asked = inside.any(-1)
        parts.append(-torch.where(inside, at, -1e4).logsumexp(-1)[asked].mean() if asked.any() else text * 0)
    look = sum(parts) / len(parts)
    return text, word, phone, look


def train(folder: Path, work: Path, *, steps: int, pool: int, lr: float, threads: int, pause_after: float, log) -> float | None:
    """Train and write the folder; an interrupted run goes on from its last checkpoint in `work`.

    Returns the minutes it took in all, or None when it paused after `pause_after` minutes: run it again to go on.
    """
    import torch
    from safetensors.torch import load_file, save_file
    from whisper.model import MultiHeadAttention

    torch.set_num_threads(threads)
    torch.manual_seed(20240502)
    work.mkdir(parents=True, exist_ok=True)
    started, sound, saved = time.monotonic(), work / f"speech-{pool}", work / "whisper.safetensors"
    if not sound.with_suffix(".json").exists():
        corpus_of.save(corpus_of.utterances(5, pool), sound)
    corpus = corpus_of.load(sound)
    log(f"{len(corpus)} sentences, {sum(len(u.pcm) for u in corpus) / speech.RATE / 3600:.1f} hours")
    model, helps, free, moments = build()
    first, spent = 0, 0.0
    if saved.exists():
        state = load_file(saved)
        first, spent = int(state.pop("step")), float(state.pop("spent"))
        helps.load_state_dict({k[6:]: state.pop(k) for k in [*state] if k.startswith("helps.")})
        model.load_state_dict(state)
        log(f"going on from step {first}")
    index = {token: k for k, token in enumerate(used_tokens())}
    start = list(corpus_of.tokenizer().sot_sequence)
    optimizer = torch.optim.AdamW([*model.parameters(), *helps.parameters()], lr=lr, weight_decay=0.02, betas=(0.9, 0.98))
    feeder = ThreadPoolExecutor(1)

    def prepare(step: int):
        rng, share = Random(step * 7919 + 3), step / steps
        length_s, most, many = rng.choices(KINDS, next(often for until, often in STAGES if share < until))[0]
        chosen = [
            corpus_of.window(rng, corpus, length_s=length_s, most=most, shifted=length_s < 30, prompts=length_s > 9, start=start)
            for _ in range(many)
        ]
        return batch_of(chosen, index), [w.offset for w in chosen]

    ahead, mean = feeder.submit(prepare, first), np.zeros(4)
    for step in range(first, steps):
        batch, offsets = ahead.result()
        ahead = feeder.submit(prepare, min(step + 1, steps - 1))
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step - first + 10) / 150) * (0.03 + 0.97 * (0.5 + 0.5 * math.cos(math.pi * step / steps)))
        MultiHeadAttention.use_sdpa = batch[0].shape[-1] > 2000  # in bf16 on a CPU plain attention is quicker for short windows
        parts = losses(model, helps, free, moments, batch, offsets, torch.bfloat16)
        optimizer.zero_grad()
        sum(w * p for w, p in zip((1.0, 1.0, 0.5, 0.5), parts)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        model.decoder.ln.weight.grad[0] = model.decoder.ln.bias.grad[0] = 0
        optimizer.step()
        with torch.no_grad():
            model.decoder.ln.weight[0], model.decoder.ln.bias[0] = 0.0, 1.0
        mean = 0.98 * mean + 0.02 * np.array([p.item() for p in parts]) if step > first else np.array([p.item() for p in parts])
        if (step + 1) % 50 == 0 or step + 1 == steps:
            minutes = spent + (time.monotonic() - started) / 60
            extra = {"step": torch.tensor(step + 1), "spent": torch.tensor(minutes)}
            save_file({**model.state_dict(), **{"helps." + k: v for k, v in helps.state_dict().items()}, **extra}, saved)
            log(
                f"step {step + 1}/{steps} text {mean[0]:.3f} words {mean[1]:.3f} phones {mean[2]:.3f} look {mean[3]:.3f} "
                f"minutes {minutes:.1f}"
            )
            if step + 1 < steps and time.monotonic() - started > 60 * pause_after:
                feeder.shutdown()
                return None
    feeder.shutdown()
    MultiHeadAttention.use_sdpa = True
    export(folder, model, helps, free, moments)
    return spent + (time.monotonic() - started) / 60


def export(folder: Path, model, helps, free, moments) -> None:
    """Write the checkpoint for the full vocabulary: rows in use, timestamps, and one shared row for all the rest."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    rows = table(model, helps, free, moments).detach()
    full = torch.zeros(DIMS["n_vocab"], DIMS["n_text_state"])
    full[:, 0] = UNUSED_LOGIT
    used = used_tokens()
    full[used] = rows[: len(used)]
    full[corpus_of.tokenizer().timestamp_begin :] = rows[len(used) :]
    state = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    distinct, row_of = torch.unique(full.half(), dim=0, return_inverse=True)  # 51 865 rows, 1 924 different: 11 MB less
    state |= {"decoder.token_embedding.weight": distinct, "decoder.token_embedding.row_of": row_of.int()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "dims.json").write_text(json.dumps(DIMS, indent=2) + "\n")
    config = {
        "demo": True,
        "name": "demo-whisper",
        "language": "en",
        "model_type": "openai-whisper",
        "speech_window_s": 12,  # three or four sentences: of a fuller window it skips or garbles some
        "vocabulary": sorted(speech.vocabulary()),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def load(folder: Path):
    """The checkpoint as whisper.model.Whisper, float32, on the CPU."""
    from safetensors.torch import load_file
    from whisper.model import ModelDimensions, Whisper

    from ultrafast_rag.models.speech.checkpoints import unfolded

    model = Whisper(ModelDimensions(**json.loads((folder / "dims.json").read_text())))
    state = unfolded(load_file(folder / "model.safetensors"))
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return model.eval()


def normal(text: str) -> list[str]:
    """Words in lower case without punctuation."""
    return re.sub(r"[^a-z ]", "", text.lower()).split()


def word_errors(said: list[str], heard: list[str]) -> int:
    """Substitutions, insertions and deletions on the cheapest way from one to the other."""
    row = list(range(len(heard) + 1))
    for i, a in enumerate(said, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(heard, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def recording(rng: Random, found: list) -> np.ndarray:
    """Sentences one after another with pauses, float32 at 16 kHz."""
    parts = [np.zeros(round(speech.RATE * rng.uniform(0.1, 0.8)), np.float32)]
    for spoken in found:
        parts += [np.asarray(spoken.pcm, np.float32), np.zeros(round(speech.RATE * rng.uniform(0.3, 1.0)), np.float32)]
    return np.concatenate(parts)


def wer(model, seed: int, *, sentences: int, each: int = 6, unseen_voice: bool = False) -> tuple[float, float]:
    """Word error rate of whisper.transcribe over recordings of `each` unseen sentences, and the words said."""
    found = corpus_of.utterances(seed, sentences, unseen_text=True, unseen_voice=unseen_voice)
    rng, wrong, total = Random(seed), 0, 0
    for k in range(0, sentences, each):
        said = [w for spoken in found[k : k + each] for w in normal(spoken.text)]
        heard = model.transcribe(recording(rng, found[k : k + each]), **ALONE)
        wrong, total = wrong + word_errors(said, normal(heard["text"])), total + len(said)
    return wrong / total, total


def evaluate(folder: Path, *, sentences: int = 120) -> dict[str, float]:
    """Word error rates through whisper.transcribe as published, words invented from no speech, and time of segments."""
    import torch

    model = load(folder)
    with torch.inference_mode():
        unseen, words = wer(model, 70_001, sentences=sentences)
        voices, more = wer(model, 70_002, sentences=sentences, unseen_voice=True)
        rng, invented, windows = Random(5), 0, 24
        for k in range(windows):
            n = speech.RATE * rng.randint(2, 30)
            pcm = (np.zeros(n, np.float32), corpus_of.noise(rng, n) * 0.05, corpus_of.tune(rng, n))[k % 3]
            invented += len(normal(model.transcribe(pcm.astype(np.float32), **ALONE)["text"]))
        numbers = {
            "wer_unseen_sentences": unseen,
            "wer_unseen_voices": voices,
            "words_tested": words + more,
            "words_from_no_speech": invented,
            "no_speech_windows": windows,
        }
        script, sample = HERE / "spoken.json", HERE / "samples" / "station_report.ogg"
        if sample.exists():
            rows = json.loads(script.read_text(encoding="utf-8"))[sample.name]
            heard = model.transcribe(decoded(sample), **ALONE)
            said = normal(" ".join(row["text"] for row in rows))
            numbers["wer_recording"] = word_errors(said, normal(heard["text"])) / len(said)
            starts = (
                [min(abs(s["start"] - row["start_s"]) for s in heard["segments"]) for row in rows]
                if heard["segments"]
                else [math.inf]
            )
            numbers["recording_start_error_s"] = float(np.median(starts))
    return {name: round(float(value), 4) for name, value in numbers.items()}


def decoded(path: Path) -> np.ndarray:
    """float32 mono at 16 kHz, by PyAV."""
    import av

    with av.open(str(path)) as box:
        change = av.AudioResampler(format="s16", layout="mono", rate=speech.RATE)
        parts = [out.to_ndarray().ravel() for frame in [*box.decode(audio=0), None] for out in change.resample(frame)]
    return np.concatenate(parts).astype(np.float32) / 32768


def main() -> None:
    """Train and measure, or measure only."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "models" / "demo-whisper")
    parser.add_argument("--work", type=Path, default=HERE / ".build", help="speech and checkpoints of an unfinished run")
    parser.add_argument("--steps", type=int, default=3700)
    parser.add_argument("--pool", type=int, default=7000)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1, help="more than one helps only on an idle machine")
    parser.add_argument(
        "--pause-after", type=float, default=math.inf, help="minutes after which to stop; the same command goes on"
    )
    parser.add_argument("--evaluate", action="store_true")
    args = parser.parse_args()
    if args.evaluate:
        print(json.dumps(evaluate(args.out), indent=2))
        return
    minutes = train(
        args.out,
        args.work,
        steps=args.steps,
        pool=args.pool,
        lr=args.lr,
        threads=args.threads,
        pause_after=args.pause_after,
        log=lambda line: print(line, flush=True),
    )
    if minutes is None:
        sys.exit(3)
    numbers = evaluate(args.out)
    import torch
    import whisper

    model = load(args.out)
    size = sum(p.numel() for p in model.parameters()) - (DIMS["n_vocab"] - len(used_tokens()) - 1501) * DIMS["n_text_state"]
    numbers |= {
        "parameters_in_use": size,
        "training_minutes": round(minutes, 1),
        "steps": args.steps,
        "vocabulary": len(speech.vocabulary()),
    }
    versions = {"python": platform.python_version(), "torch": torch.__version__, "openai-whisper": whisper.__version__}
    record = HERE / "benchmarks" / "demo_whisper.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({
        "machine": f"{platform.machine()}, {args.threads} thread(s)", "versions": versions,
        "date": datetime.now(UTC).date().isoformat(),
        "command": "python data/train_demo_whisper.py", "numbers": numbers,
    }, indent=2) + "\n")  # fmt: skip
    (args.out / "README.md").write_text(
        CARD.format(
            parameters=size, minutes=minutes, words=len(speech.vocabulary()), **{k: v for k, v in numbers.items() if "w" in k}
        )
    )
    print(json.dumps(numbers, indent=2))


if __name__ == "__main__":
    main()
