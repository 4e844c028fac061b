"""Question and ten passages -> where each answers it, and how surely: MiniLM with what `data/train_reader.py` taught it.

On a CPU with OpenVINO the merged network is converted once, as the encoder is; elsewhere torch runs it. It read
English only: of German it picks the right sentence less often (.63 of 261 questions, XQuAD) than words and cosines do (.72).
An extractive question-answering model of the hub stands in by name (`Config.reader_model`), in torch.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ultrafast_rag.config import PACKAGED_READER, Config
from ultrafast_rag.errors import ConfigError, EncodingError, MissingExtraError, UltraFastRAGError, WeightsError, require
from ultrafast_rag.language.terms import DEFAULT_LANGUAGE, shows
from ultrafast_rag.models.batching import Governor, run_governed
from ultrafast_rag.models.device import DevicePlan
from ultrafast_rag.models.text.openvino import convert_once, version
from ultrafast_rag.models.weights import Weights, file_sha256, resolve
from ultrafast_rag.types import Reading

BASE = "sentence-transformers/all-MiniLM-L6-v2"
BASE_REVISION = "53aa51172d142c89"  # of the weights that `data/train_reader.py` taught: the sha256 of their file begins so
WEIGHTS = Path(__file__).with_name("reader.safetensors")
QUESTION_TOKENS, TOKENS = 48, 320  # as in training; a passage of 200 tokens and its headings fit
LONGEST_ANSWER = 30  # tokens; 98 of 100 answers of SQuAD are shorter
# word pieces a word of the question: English questions of SQuAD have 1.2 in the mean and 1.7 at the 99th percentile
_MOST_PIECES = 2.0
_MOST_UNKNOWN = 0.25  # of the pieces; a whole question in Thai is one piece, and unknown
_BATCH_TOKENS = 1024  # as for passages
_STEP = 32  # lengths are padded to multiples of it: kernels are prepared for each shape
_RECIPE = 1  # raise when conversion changes what comes out
_FARTHEST = 1e-2  # logits of the converted network against torch's

Numbers = npt.NDArray[np.float32]


class Network(Protocol):
    """ids, mask and kinds, int64 (n, w) -> logits: start (n, w), end (n, w), answerable (n,)."""

    def __call__(self, ids: Any, mask: Any, kinds: Any) -> tuple[Numbers, Numbers, Numbers]:
        """Run one batch."""
        ...


class SpanReader:
    """Reads behind `ports.Reader`. Safe to call from several threads, which then take turns.

    network: on any engine. tokenizer_file: the network's own. limit: longest input in tokens. language: the only one it
    learned; None takes whichever its tokenizer knows.
    """

    def __init__(
        self, network: Network, tokenizer_file: Path, *, fingerprint: str, limit: int = TOKENS, language: str | None = None
    ) -> None:
        from tokenizers import Tokenizer

        self._network, self.fingerprint, self._language = network, fingerprint, language
        self._tokenizer: Any = Tokenizer.from_file(str(tokenizer_file))
        said = getattr(self._tokenizer.model, "unk_token", None)
        self._unknown: int | None = self._tokenizer.token_to_id(said) if said else None
        self._tokenizer.no_padding()
        # the passage is cut, being the longer one; "only_second" refuses a question that is too long by itself
        self._tokenizer.enable_truncation(limit, strategy="longest_first")
        self._governor, self._lock = Governor(_BATCH_TOKENS), threading.Lock()

    def reads(self, question: str) -> bool:
        """Whether the question is in a language the reader learned: few word pieces a word, and few that stand for any word."""
        if self._language is not None and not shows(question, self._language):
            return False
        words = question.split()[:QUESTION_TOKENS]
        pieces = self._tokenizer.encode(" ".join(words), add_special_tokens=False).ids
        known = pieces.count(self._unknown) <= _MOST_UNKNOWN * len(pieces)
        return known and len(pieces) <= _MOST_PIECES * max(len(words), 1) + 2

    def read(self, question: str, passages: Sequence[tuple[str, str]]) -> list[Reading]:
        """One reading a passage, in order. passages: (title and headings, text); spans are characters of the text.

        Raises EncodingError when the network gives no number.
        """
        question = " ".join(question.split()[:QUESTION_TOKENS])
        shown = [f"{lead}\n{text}" if lead else text for lead, text in passages]
        pairs = [self._tokenizer.encode(question, text) for text in shown]
        found: list[Reading | None] = [None] * len(pairs)
        with self._lock:
            for rows, (starts, ends, yes) in run_governed(
                [len(pair.ids) for pair in pairs],
                lambda rows: self._network(*_padded([pairs[row] for row in rows])),
                governor=self._governor,
                padded=_width,
            ):
                if not np.isfinite(yes).all():
                    raise EncodingError("the reader gives no number for a passage")
                for at, row in enumerate(rows):
                    room = len(shown[row]) - len(passages[row][1])
                    found[row] = _reading(pairs[row], starts[at], ends[at], float(yes[at]), room)
        return [reading for reading in found if reading is not None]

    def close(self) -> None:
        """Give the network's memory back."""
        del self._network


def _width(length: int) -> int:
    return -(-length // _STEP) * _STEP


def _padded(pairs: Sequence[Any]) -> tuple[Any, Any, Any]:
    width = _width(max(len(pair.ids) for pair in pairs))
    ids, mask, kinds = (np.zeros((len(pairs), width), np.int64) for _ in range(3))
    for at, pair in enumerate(pairs):
        n = len(pair.ids)
        ids[at, :n], mask[at, :n], kinds[at, :n] = pair.ids, 1, pair.type_ids
    return ids, mask, kinds


def _reading(pair: Any, start: Numbers, end: Numbers, yes: float, room: int) -> Reading:
    """room: characters of the headings before the text, in which no answer is looked for."""
    n = len(pair.ids)
    inside = np.array([kind == 1 and a >= room and b > a for kind, (a, b) in zip(pair.type_ids, pair.offsets)])
    if not inside.any():
        return Reading(0, 0, yes, -np.inf)
    first, last, value = best_span(np.where(inside, start[:n], -np.inf), np.where(inside, end[:n], -np.inf))
    margin = value - float(start[0]) - float(end[0])
    return Reading(pair.offsets[first][0] - room, pair.offsets[last][1] - room, yes, margin)


def best_span(start: Numbers, end: Numbers, longest: int = LONGEST_ANSWER) -> tuple[int, int, float]:
    """First and last token of the span of at most `longest` tokens with the highest sum of logits, and that sum."""
    sums = start[:, None] + end[None, :]
    near = np.triu(np.tril(np.ones_like(sums), longest - 1)) > 0
    sums = np.where(near, sums, -np.inf)
    first, last = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(first), int(last), float(sums[first, last])


def open_reader(config: Config, plan: DevicePlan, *, progress: Callable[[str], None] | None = None) -> SpanReader:
    """The reader of `config.reader_model`. ConfigError when none is named, WeightsError when its files are not to be had."""
    if config.reader_model is None:
        raise ConfigError("no reader is named; set Config(reader_model='packaged') or a question-answering model")
    if config.reader_model != PACKAGED_READER:
        return _open_other(resolve(config.reader_model, kind="rerank", offline=config.offline, cache_dir=config.cache_dir), plan)
    weights = _base(config)
    fingerprint = f"reader-{file_sha256(WEIGHTS)[:16]}@{weights.revision}"
    network = None if plan.on_gpu else _openvino(weights, fingerprint, plan, config, progress)
    made = network or _torch(weights, plan)
    return SpanReader(made, weights.path / "tokenizer.json", fingerprint=fingerprint, language=DEFAULT_LANGUAGE)


def _base(config: Config) -> Weights:
    """MiniLM's weights by its name, else the text model's, given as a folder, where they are the same."""
    try:
        return resolve(BASE, kind="text", offline=config.offline, cache_dir=config.cache_dir)
    except WeightsError:
        own = resolve(config.text_model, kind="text", offline=config.offline, cache_dir=config.cache_dir)
        if own.revision != BASE_REVISION:
            raise
        return own


def _torch(weights: Weights, plan: DevicePlan) -> Network:
    from ultrafast_rag.models.reader.network import open_network

    return _in_torch(open_network(weights.path, adapters=WEIGHTS), plan)


def _in_torch(module: Any, plan: DevicePlan) -> Network:
    torch, device = require("torch"), plan.devices[0]
    module = module.to(device, torch.float16 if plan.on_gpu else torch.float32).eval()

    def run(ids: Any, mask: Any, kinds: Any) -> tuple[Numbers, Numbers, Numbers]:
        with torch.inference_mode():
            start, end, yes = (
                x.float().cpu().numpy() for x in module(*(torch.from_numpy(a).to(device) for a in (ids, mask, kinds)))
            )
        return start, end, yes

    return run


def _open_other(weights: Weights, plan: DevicePlan) -> SpanReader:
    """Any extractive question-answering model with a fast tokenizer; "answerable" is its span against position 0."""
    from ultrafast_rag.models.text.torch import quiet

    torch, transformers = require("torch"), require("transformers")
    try:
        with quiet(transformers):
            model, report = transformers.AutoModelForQuestionAnswering.from_pretrained(
                str(weights.path), local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        raise EncodingError(f"{weights.model_id} cannot be loaded as a reader: {error}") from error
    if missing := [name for name in report["missing_keys"] if name.startswith("qa_outputs")]:
        raise WeightsError(f"{weights.model_id} was not trained to answer questions: {', '.join(missing)} are missing")
    typed = int(getattr(model.config, "type_vocab_size", 0) or 0) > 1

    class Spans(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any, kinds: Any) -> tuple[Any, Any, Any]:
            found = self.model(input_ids=ids, attention_mask=mask, **({"token_type_ids": kinds} if typed else {}))
            outside = ~(kinds.bool() & mask.bool())
            inner = (logits.masked_fill(outside, -1e4).amax(1) for logits in (found.start_logits, found.end_logits))
            yes = sum(inner) - found.start_logits[:, 0] - found.end_logits[:, 0]
            return found.start_logits, found.end_logits, yes

    limit = min(512, int(getattr(model.config, "max_position_embeddings", 512)))
    path = weights.path / "tokenizer.json"
    return SpanReader(_in_torch(Spans(), plan), path, fingerprint=f"{weights.name}@{weights.revision}", limit=limit)


def _openvino(
    weights: Weights, fingerprint: str, plan: DevicePlan, config: Config, progress: Callable[[str], None] | None
) -> Network | None:
    """On OpenVINO where it is installed and can convert, else None."""
    folder = config.cache_dir / "engines" / f"{fingerprint}-ov{version()}-r{_RECIPE}"
    task = {"folder": str(weights.path), "kind": "f32"}
    try:
        convert_once(folder, __name__, task, needs=("torch", "transformers"), what="the reader for this CPU", progress=progress)
        openvino = require("openvino", extra="cpu")
    except (EncodingError, MissingExtraError):
        return None
    hint = "bf16" if plan.cpu.bf16 else "f32"
    options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": str(plan.cpu.cores), "ENABLE_CPU_PINNING": False}
    request = openvino.Core().compile_model(str(folder / "model.xml"), "CPU", options).create_infer_request()

    def run(ids: Any, mask: Any, kinds: Any) -> tuple[Numbers, Numbers, Numbers]:
        try:
            start, end, yes = (np.array(value) for value in request.infer([ids, mask, kinds]).values())
        except RuntimeError as error:
            raise EncodingError(f"the reader failed: {str(error).splitlines()[0]}") from error
        return start, end, yes

    return run


# below: the child process that converts


def _child(task: dict[str, Any]) -> None:
    """Trace the merged network, save it, and hold it to torch's own logits."""
    from ultrafast_rag.models.reader.network import open_network

    openvino, torch = require("openvino", extra="cpu"), require("torch")
    out, network = Path(task["out"]), open_network(Path(task["folder"]), adapters=WEIGHTS)
    ids = torch.randint(1000, 20000, (3, 40), generator=torch.Generator().manual_seed(0))
    mask, kinds = torch.ones_like(ids), torch.zeros_like(ids)
    mask[1, 30:], kinds[:, 9:] = 0, 1
    with torch.no_grad():
        model = openvino.convert_model(network, example_input=(ids, mask, kinds))
        openvino.save_model(model, str(out / "model.xml"), compress_to_fp16=True)
        compiled = openvino.Core().compile_model(str(out / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        ours, theirs = compiled([ids.numpy(), mask.numpy(), kinds.numpy()]).values(), network(ids, mask, kinds)
    farthest = max(float(np.abs(np.array(a) - b.numpy()).max()) for a, b in zip(ours, theirs))
    if not farthest < _FARTHEST:
        raise EncodingError(f"the converted reader differs from torch by {farthest:.3g}")
    (out / "about.json").write_text(json.dumps({"kind": "f32", "farthest_from_torch": farthest}), encoding="utf-8")


if __name__ == "__main__":
    try:
        _child(json.loads(sys.argv[1]))
    except (UltraFastRAGError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
