"""Train the reader: question and passage together -> the answer's span, or that there is none.

    python data/train_reader.py --data DIR              # mine near misses, train, measure, write
    python data/train_reader.py --data DIR --evaluate   # measure the weights that are there
    python data/train_reader.py --data DIR --calibrate  # fit the constants of answer/extractive.py, through our own search

DIR is the folder of public collections (default: UFR_TEST_DATA), of which SQuAD 2.0's shared half is used,
by articles: a fifth of the questions is held out, with every passage of their articles. What a reader meets
in use is not the gold paragraph but ten passages that a search found about something similar, so an answerable
question is shown in a group: its own paragraph, near misses of our own search, the paragraph under a question it does
not answer, and under its own question with a name, a number or an opposite exchanged (Rajpurkar et al. 2018, table 1:
how people make a question unanswerable). Figures in tables come from `figure_questions.py`.
Loss of a passage: cross entropy of start and end (position 0: no answer; Devlin et al. 2019, section 4.3) and of
"answerable". Loss of a group: one softmax over the spans of all its passages (Clark & Gardner 2018, section 3.3), and
the answerable pair above each of the others (logistic loss of the difference, which is AUC's).
The weights that ship are of 1.3 epochs before there were groups: each question on its own paragraph and, four times in
five, on one near miss (`reader.json`). Half an epoch of groups on top of them gave more on the held-out questions (exact match
.601 for .562, F1 .615 for .587, AUC .670 for .661) and nothing through our own search (first sentence right .777, .763 without
a reader; of the unanswerable .75 for .72 supported where nine of ten answerable are kept): they were not taken.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import sys
import time
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from figure_questions import Example, examples

from ultrafast_rag import Config, UltraFastRAG
from ultrafast_rag.bench.metrics import exact_match, token_f1
from ultrafast_rag.bench.result import write_result
from ultrafast_rag.models.reader.network import open_network, trained
from ultrafast_rag.models.weights import resolve

HERE = Path(__file__).parent
BUILD = HERE / ".build" / "reader"
OUT = HERE.parent / "ultrafast_rag" / "models" / "reader" / "reader.safetensors"
QUESTION_TOKENS, TOKENS = 48, 320
EPOCHS, LEARNING_RATE, FIGURES = 3.0, 1e-3, 800
TOGETHER = 0.5  # weight of each of a group's two losses beside its passages' own
BATCH_TOKENS, BATCHES_A_STEP = 1024, 4  # a batch that fits a core's cache; some 22 examples a step
WARM_UP, SAVED = 0.06, 200  # share of the training; batches
SEED = 20261121
NOTHING = -100.0  # log odds of a question without any candidate
SAME, OTHER = 4, 3  # near misses kept of a question: of its own article, of others
OPPOSITES = """first last|largest smallest|largest least|most least|more less|more fewer|before after|north south|east west|
northern southern|eastern western|highest lowest|higher lower|increase decrease|increased decreased|early late|oldest newest|
longest shortest|best worst|major minor|rich poor|win lose|won lost|began ended|begin end|start finish|older younger|
always never|allowed forbidden|can cannot|is isn't|was wasn't|did didn't|does doesn't|are aren't|were weren't"""
_OPPOSITE = {a: b for pair in OPPOSITES.split("|") for a, b in (pair.split(), pair.split()[::-1])}
_NAMED = re.compile(r"(?<=[\w,] )[A-Z][\w'.-]*(?: (?:of |the )?[A-Z][\w'.-]*)*")
_NUMBERED = re.compile(r"\d[\d,.]*")


class Row(NamedTuple):
    """An example in tokens. start, end: positions of the answer's first and last token; 0 where there is none."""

    ids: list[int]
    kinds: list[int]
    start: int
    end: int
    answerable: int
    same_question: bool  # as the first of its group


def main() -> None:
    """Mine, train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("UFR_TEST_DATA"))
    parser.add_argument("--evaluate", action="store_true")
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--questions", type=int, default=300, help="of each kind, for --calibrate")
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    parser.add_argument("--minutes", type=float, default=90, help="training ends then, its learning rate at zero")
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    corpus, questions = (read(arguments.data / "squad2" / name) for name in ("corpus.jsonl", "queries.jsonl"))
    texts = {row["id"]: row["text"] for row in corpus}
    held = held_out(questions)
    weights = resolve(Config().text_model, kind="text", offline=True, cache_dir=Config().cache_dir).path
    tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS, strategy="only_second")
    if arguments.calibrate:
        asked = ask(texts, [q for q in questions if article(q["gold"][0]) in held], arguments.questions)
        found = calibrate(asked)
        print(json.dumps(found, indent=1))
        write_result("reader_support", found, HERE / "benchmarks", command="python data/train_reader.py --data DIR --calibrate")
        return
    if not arguments.evaluate:
        near = mine(texts, questions)
        spent = train(
            weights, tokenizer, texts, questions, held, near,
            out=arguments.out, start=arguments.start, epochs=arguments.epochs, minutes=arguments.minutes,
        )  # fmt: skip
        print(f"trained in {spent:.0f} minutes")
    network = open_network(weights, adapters=arguments.out)
    found = evaluate(network, tokenizer, texts, [q for q in questions if article(q["gold"][0]) in held])
    found |= {"held_out_articles": sorted(held), "size_bytes": arguments.out.stat().st_size}
    print(json.dumps(found, indent=1))
    write_result("reader", found, HERE / "benchmarks", command="python data/train_reader.py --data DIR")


def read(path: Path) -> list[dict]:
    """Rows of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def article(document_id: str) -> str:
    """Of a paragraph's id, "dev:Normans:3"."""
    return document_id.split(":")[1]


def held_out(questions: list[dict]) -> set[str]:
    """Articles with about a fifth of the questions, by the hash of their names: no choice of ours."""
    names = sorted({article(q["gold"][0]) for q in questions}, key=lambda name: hashlib.sha256(name.encode()).digest())
    held: set[str] = set()
    for name in names:
        if sum(article(q["gold"][0]) in held for q in questions) < len(questions) / 5:
            held.add(name)
    return held


def mine(texts: dict[str, str], questions: list[dict]) -> dict[str, list[str]]:
    """Question id -> passages our own search finds that do not hold the answer, best first; kept in the build folder."""
    path = BUILD / "near.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    with UltraFastRAG(image_model=None, speech_model=None, reader_model=None, quiet=True) as rag:
        rag.add_texts(list(texts.values()), ids=list(texts))
        near = {}
        for q in questions:
            found = [hit.document_id for hit in rag.search(q["text"], k=20)]
            wrong = [name for name in found if name not in q["gold"] and not holds(texts[name], q["answers"])]
            same = [name for name in wrong if article(name) == article(q["gold"][0])]
            near[q["id"]] = same[:SAME] + [name for name in wrong if name not in same][:OTHER]
    path.write_text(json.dumps(near), encoding="utf-8")
    return near


def holds(text: str, answers: list[str]) -> bool:
    """Whether any answer stands in the text."""
    return any(answer.casefold() in text.casefold() for answer in answers)


def epoch_of(texts: dict, questions: list[dict], near: dict, held: set[str], epoch: int) -> list[list[Example]]:
    """Groups: first an answerable pair, then what does not answer. A figure's question is a group of its own."""
    random, groups = Random(SEED + epoch), list[list[Example]]()
    spare: dict[str, list[dict]] = {}
    for q in questions:
        if not q["answers"]:
            spare.setdefault(q["gold"][0], []).append(q)
    for rest in spare.values():
        random.shuffle(rest)
    asked = [q for q in questions if q["answers"]]
    random.shuffle(asked)
    for q in asked:
        own = q["gold"][0]
        lead, answer = _lead(own, random), random.choice(q["answers"])
        start = texts[own].find(answer)
        if start < 0:
            continue
        group = [Example(q["text"], lead, texts[own], answer, start)]
        if spare.get(own):
            group.append(Example(spare[own].pop()["text"], lead, texts[own], "", -1))
        misses = [name for name in near[q["id"]] if article(name) not in held]
        for name in random.sample(misses, min(len(misses), 1 + (random.random() < 0.3))):
            group.append(Example(q["text"], _lead(name, random), texts[name], "", -1))
        if random.random() < 0.4 and (other := exchanged(q["text"], texts[own], answer, random)):
            group.append(Example(other, lead, texts[own], "", -1))
        groups.append(group)
    for own, rest in spare.items():
        groups += [[Example(q["text"], _lead(own, random), texts[own], "", -1)] for q in rest]
    groups += [[example] for example in examples(FIGURES, seed=SEED + epoch)]
    random.shuffle(groups)
    return groups


def _lead(name: str, random: Random) -> str:
    return article(name).replace("_", " ") if random.random() < 0.5 else ""


def exchanged(question: str, text: str, answer: str, random: Random) -> str:
    """The question with a name, a number or an opposite exchanged, so that the text no longer answers it; "" if none fits."""
    words = question.split()
    ways = [n for n, word in enumerate(words) if n and word.lower().strip("?,") in _OPPOSITE]
    if ways and random.random() < 0.5:
        n = random.choice(ways)
        words[n] = words[n].replace(words[n].strip("?,"), _OPPOSITE[words[n].lower().strip("?,")])
        return " ".join(words)
    for pattern in random.sample((_NAMED, _NUMBERED), 2):
        mine = [m for m in pattern.finditer(question) if m.start()]
        others = {m.group().rstrip(".,") for m in pattern.finditer(text)}
        others = {other for other in others if other not in question and other not in answer and answer not in other}
        if mine and others:
            m = random.choice(mine)
            return question[: m.start()] + random.choice(sorted(others)) + question[m.end() :]
    return ""


def framed(tokenizer: Tokenizer, example: Example, asked: str = "") -> Row | None:
    """An example in tokens; None where truncation took its answer. asked: the question of its group."""
    question = example.question
    passage = f"{example.lead}\n{example.text}" if example.lead else example.text
    encoding = tokenizer.encode(question, passage)
    start = end = 0
    if example.start >= 0:
        first = example.start + len(passage) - len(example.text)
        last = first + len(example.answer)
        inside = [
            at
            for at, ((a, b), kind) in enumerate(zip(encoding.offsets, encoding.type_ids))
            if kind == 1 and a < last and b > first and b > a
        ]
        if not inside:
            return None
        start, end = inside[0], inside[-1]
    return Row(encoding.ids, encoding.type_ids, start, end, int(example.start >= 0), question == asked)


def tensors(rows: list[Row]) -> tuple[torch.Tensor, ...]:
    """ids, mask, kinds (n, w), start, end, answerable (n,)."""
    width = max(len(row.ids) for row in rows)
    ids, mask, kinds = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3))
    for at, row in enumerate(rows):
        n = len(row.ids)
        ids[at, :n], mask[at, :n], kinds[at, :n] = torch.tensor(row.ids), 1, torch.tensor(row.kinds)
    ends = [torch.tensor([getattr(row, name) for row in rows]) for name in ("start", "end", "answerable")]
    return ids, mask, kinds, *ends


def batches_of(groups: list[list[Row]], random: Random) -> list[list[list[Row]]]:
    """Groups of like length together, at most BATCH_TOKENS a batch unless one alone is longer, in random order."""
    width = {id(group): max(len(row.ids) for row in group) for group in groups}
    groups = sorted(groups, key=lambda group: width[id(group)] + random.random() * 24)
    found: list[list[list[Row]]] = [[]]
    for group in groups:
        if found[-1] and width[id(group)] * (sum(map(len, found[-1])) + len(group)) > BATCH_TOKENS:
            found.append([])
        found[-1].append(group)
    random.shuffle(found)
    return found


def loss_of(network: torch.nn.Module, batch: list[list[Row]]) -> torch.Tensor:
    """Mean over passages of the ends' and the answerable's cross entropies, plus the groups' losses."""
    ids, mask, kinds, start, end, answerable = tensors([row for group in batch for row in group])
    starts, ends, yes = network(ids, mask, kinds)
    spans = (F.cross_entropy(starts, start) + F.cross_entropy(ends, end)) / 2
    loss = spans + F.binary_cross_entropy_with_logits(yes, answerable.float())
    at, shared = 0, []
    for group in batch:
        same = [at + n for n, row in enumerate(group) if row.same_question]
        if group[0].answerable and len(same) > 1:
            for logits, right in ((starts, group[0].start), (ends, group[0].end)):
                spread = (logits[same, 1:] - logits[same, :1]).reshape(1, -1)
                shared.append(F.cross_entropy(spread, torch.tensor([right - 1])))
        at += len(group)
    if shared:
        loss = loss + TOGETHER * torch.stack(shared).mean()
    true = answerable.bool()
    if true.any() and not true.all():
        loss = loss + TOGETHER * F.softplus(yes[~true][None, :] - yes[true][:, None]).mean()
    return loss


def train(
    weights: Path, tokenizer, texts, questions, held, near, *, out: Path, start: Path | None, epochs: float, minutes: float
) -> float:
    """Minutes spent. out: written every SAVED steps and at the end. start: weights to go on from.

    The learning rate falls to zero over the epochs or the minutes, whichever are over first.
    """
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # beside other work two threads waited for one another: 5 times slower than one (2 cores, 2026-11)
    network = _fresh(weights, start)
    kept = [q for q in questions if article(q["gold"][0]) not in held]
    learn = [p for p in network.parameters() if p.requires_grad]
    parameters = [sum(p.numel() for p in group) for group in (learn, network.parameters())]
    print(f"{parameters[0]:,} of {parameters[1]:,} numbers are trained; {len(held)} articles held out")
    optimiser = torch.optim.AdamW(learn, lr=LEARNING_RATE, weight_decay=0.01)
    network.train()
    began, mean, steps = time.perf_counter(), 3.0, 0
    for epoch in range(math.ceil(epochs)):
        groups = [rows for group in epoch_of(texts, kept, near, held, epoch) if (rows := _rows(tokenizer, group))]
        plan = batches_of(groups, Random(SEED + epoch))
        for n, batch in enumerate(plan):
            share = max((epoch + n / len(plan)) / epochs, (time.perf_counter() - began) / 60 / minutes)
            if share >= 1:
                break
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * min(1.0, share / WARM_UP) * (1 - share)
            loss = loss_of(network, batch)
            (loss / BATCHES_A_STEP).backward()
            mean, steps = 0.99 * mean + 0.01 * loss.item(), steps + 1
            if steps % BATCHES_A_STEP == 0:
                torch.nn.utils.clip_grad_norm_(learn, 1.0)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            if steps % 50 == 0:
                print(
                    f"epoch {epoch} batch {n}/{len(plan)} loss {mean:.3f} {(time.perf_counter() - began) / 60:.1f} min",
                    flush=True,
                )
            if steps % SAVED == 0:
                save_file(trained(network), str(out))
    save_file(trained(network), str(out))
    return (time.perf_counter() - began) / 60


def _fresh(weights: Path, start: Path | None) -> torch.nn.Module:
    network = open_network(weights)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # a sixth of the time; low rank and few epochs are restraint enough
    if start is not None:
        network.load_state_dict({name: value.float() for name, value in load_file(start).items()}, strict=False)
    return network


def _rows(tokenizer: Tokenizer, group: list[Example]) -> list[Row]:
    """Of a group whose answer truncation took, none."""
    rows = [framed(tokenizer, example, group[0].question) for example in group]
    return [row for row in rows if row] if rows[0] else []


@torch.inference_mode()
def evaluate(network, tokenizer, texts, questions) -> dict[str, float]:
    """On each question's own paragraph, as SQuAD 2.0 does: exact match and F1, and how well "answerable" separates."""
    network.eval()
    rows = [framed(tokenizer, Example(q["text"], "", texts[q["gold"][0]], "", -1)) for q in questions]
    yes, spans, said = np.zeros(len(rows)), np.zeros(len(rows)), [""] * len(rows)
    order = sorted(range(len(rows)), key=lambda n: len(rows[n].ids))
    for at in range(0, len(order), 16):
        chosen = order[at : at + 16]
        ids, mask, kinds, *_ = tensors([rows[n] for n in chosen])
        starts, ends, answerable = network(ids, mask, kinds)
        for n, start, end, score in zip(chosen, starts.numpy(), ends.numpy(), answerable.numpy()):
            i, j, value = best_span(start, end)
            offsets = tokenizer.encode(questions[n]["text"], texts[questions[n]["gold"][0]]).offsets
            said[n] = texts[questions[n]["gold"][0]][offsets[i][0] : offsets[j][1]]
            yes[n], spans[n] = score, value - start[0] - end[0]
    truth = np.array([bool(q["answers"]) for q in questions])
    score = yes + spans / 2
    best = max(np.quantile(score, np.linspace(0, 1, 101)), key=lambda t: np.mean((score >= t) == truth))
    em = [exact_match(s, q["answers"]) if q["answers"] else 0.0 for s, q in zip(said, questions)]
    f1 = [token_f1(s, q["answers"]) if q["answers"] else 0.0 for s, q in zip(said, questions)]
    kept = score >= best
    return {
        "questions": len(questions),
        "exact match": float(np.mean(np.where(truth, em * kept, ~kept))),
        "F1": float(np.mean(np.where(truth, f1 * kept, ~kept))),
        "F1 of the answerable": float(np.mean(np.array(f1)[truth])),
        "AUC": auc(score, truth),
        "AUC answerable alone": auc(yes, truth),
        "AUC span alone": auc(spans, truth),
        "unanswerable kept at 0.9": float(np.mean(score[~truth] >= np.quantile(score[truth], 0.1))),
    }


class Asked(NamedTuple):
    """A question of a held-out article through our own search.

    features: of each candidate sentence that says what the question insists on, (n, 4), n >= 0, as `answer/extractive.py` weighs
    them. right: whether it holds the answer.
    plain: the best sentence without a reader, its score and whether it holds the answer.
    """

    article: str
    answerable: bool
    features: np.ndarray
    right: np.ndarray
    plain: tuple[float, bool]


def ask(texts: dict[str, str], questions: list[dict], count: int) -> list[Asked]:
    """As many answerable as unanswerable questions, evenly spread, asked of an index of every paragraph."""
    from ultrafast_rag.answer import extractive

    chosen = []
    for kind in (True, False):
        rows = [q for q in questions if bool(q["answers"]) == kind]
        chosen += [rows[int(n * len(rows) / count)] for n in range(min(count, len(rows)))]
    asked = []
    with UltraFastRAG(image_model=None, speech_model=None, quiet=True) as rag:
        rag.add_texts(list(texts.values()), ids=list(texts))
        for n, q in enumerate(chosen):
            answerer, hits = rag._extractive, rag.search(q["text"], k=extractive.READ)
            scored, candidates = answerer.weigh(q["text"], hits, answerer.readings(q["text"], hits))
            best = max(scored, key=lambda s: s.score)
            kept = [candidate for candidate in candidates if not candidate.lacking]
            asked.append(
                Asked(
                    article(q["gold"][0]),
                    bool(q["answers"]),
                    np.array([candidate.features for candidate in kept]).reshape(-1, len(extractive.WEIGHTS)),
                    np.array([holds(candidate.unit.shown, q["answers"]) for candidate in kept], bool),
                    (best.score, holds(best.unit.shown, q["answers"])),
                )
            )
            if n % 50 == 0:
                print(f"asked {n} of {len(chosen)}", flush=True)
    np.savez(BUILD / "asked.npz", **{f"{n}": np.c_[one.features, one.right] for n, one in enumerate(asked)})
    return asked


def calibrate(asked: list[Asked]) -> dict:
    """Log odds that a candidate is right by logistic regression; then those of the best. Rates are of the article left out."""
    names = np.array([one.article for one in asked])
    truth = np.array([one.answerable for one in asked])
    plain = np.array([one.plain[0] for one in asked])

    def fit(group: list[Asked]) -> tuple[np.ndarray, np.ndarray]:
        x, y = np.concatenate([one.features for one in group]), np.concatenate([one.right for one in group])
        weights = logistic(np.c_[np.ones(len(x)), x], y)[1:]
        some = [one for one in group if len(one.right)]
        best = [(one.features @ weights).max() for one in some]
        return weights, logistic(np.c_[np.ones(len(some)), best], np.array([_best(one, weights) for one in some]))

    unseen, right = np.zeros(len(asked)), np.zeros(len(asked))
    for name in set(names):
        weights, scale = fit([one for one in asked if one.article != name])
        for n, one in enumerate(asked):
            if one.article == name:
                unseen[n], right[n] = scale[0] + scale[1] * _highest(one, weights), _best(one, weights)
    weights, scale = fit(asked)
    support = 1 / (1 + np.exp(-unseen))
    final = np.array([scale[0] + scale[1] * _highest(one, weights) for one in asked])
    return {
        "questions": len(asked),
        "WEIGHTS": [float(w) for w in weights],
        "CALIBRATION": [float(w) for w in scale],
        "support that keeps 0.9 of the answerable": float(1 / (1 + np.exp(-np.quantile(final[truth], 0.1)))),
        "first sentence right": float(right[truth].mean()),
        "first sentence right without a reader": float(np.mean([one.plain[1] for one in asked if one.answerable])),
        "some candidate is right": float(np.mean([one.right.any() for one in asked if one.answerable])),
        "AUC": auc(unseen, truth),
        "AUC without a reader": auc(plain, truth),
        "unanswerable supported at 0.9": float(np.mean(unseen[~truth] >= np.quantile(unseen[truth], 0.1))),
        "unanswerable supported at 0.9 without a reader": float(np.mean(plain[~truth] >= np.quantile(plain[truth], 0.1))),
        "reliability": [
            {"from": low, "questions": int(inside.sum()), "right": float(right[inside].mean()) if inside.any() else None}
            for low in (0.0, 0.2, 0.4, 0.6, 0.8)
            for inside in [(support >= low) & (support < low + 0.2 + (low == 0.8))]
        ],
    }


def _best(one: Asked, weights: np.ndarray) -> bool:
    """Whether the candidate with the highest odds is right."""
    return bool(len(one.right) and one.right[(one.features @ weights).argmax()])


def _highest(one: Asked, weights: np.ndarray) -> float:
    """Its odds; where there is no candidate, none."""
    return float((one.features @ weights).max(initial=NOTHING))


def logistic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights of a logistic regression with a faint ridge, by Newton's method."""
    w = np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-(x @ w)))
        w = w + np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + 1e-2 * np.eye(len(w)), x.T @ (y - p) - 1e-2 * w)
    return w


def best_span(start: np.ndarray, end: np.ndarray, longest: int = 30) -> tuple[int, int, float]:
    """First and last token of the likeliest span of at most `longest` tokens, position 0 left out, and its logits' sum."""
    sums = start[1:, None] + end[None, 1:]
    sums = np.where(np.triu(np.tril(np.ones_like(sums), longest - 1)) > 0, sums, -np.inf)
    i, j = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(i) + 1, int(j) + 1, float(sums[i, j])


def auc(score: np.ndarray, truth: np.ndarray) -> float:
    """Chance that an answerable question scores above an unanswerable one."""
    ranks = np.argsort(np.argsort(score)) + 1
    yes = truth.sum()
    return float((ranks[truth].sum() - yes * (yes + 1) / 2) / (yes * (~truth).sum()))


if __name__ == "__main__":
    main()
