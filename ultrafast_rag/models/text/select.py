"""Which engine encodes here: CPU flags name the candidates, a short measurement and a quality gate decide.

Each candidate encodes the calibration texts and is held to float32's vectors at every width it pads to. Those whose
nearest neighbours agree with float32's pass; the fastest of them is taken and remembered for this machine, these
weights and these versions. Speeds are this machine's on that text: good for comparing, not for publishing.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata

from ultrafast_rag.config import Config
from ultrafast_rag.errors import EncodingError
from ultrafast_rag.files import Memory
from ultrafast_rag.models.device import DevicePlan
from ultrafast_rag.models.text.calibration import calibration_hash, calibration_texts
from ultrafast_rag.models.text.reference import MIN_OVERLAP, Engine, Fit, agreement, precision_of
from ultrafast_rag.models.text.tokens import EncoderSpec, WordPieces
from ultrafast_rag.types import Vectors

MIN_GAIN = 1.1  # a less exact engine must be this much faster than a more exact one
_REPEATS = 2  # one more than none: the first is disturbed more often than both
_EXACTNESS = ("f32", "f16", "bf16", "int8", "8bit", "4bit")


@dataclass(frozen=True, slots=True)
class Trial:
    """One engine on the calibration texts; nan where it was not measured. verdict: why it is (not) used."""

    engine: str
    tokens_per_s: float = float("nan")
    ratio: float = float("nan")  # to torch float32
    overlap: float = float("nan")  # of the ten nearest neighbours with float32's
    cosine: float = float("nan")  # mean, to float32
    verdict: str = ""
    chosen: bool = False
    fits: bool = True  # held to float32 at every width

    def row(self) -> tuple[str, str, str, str, str, str]:
        """For a table: engine, tokens/s, ratio, overlap, cosine, verdict."""

        def shown(value: float, form: str) -> str:
            return "" if value != value else format(value, form)

        return (
            self.engine,
            shown(self.tokens_per_s, ",.0f"),
            shown(self.ratio, ".1f"),
            shown(self.overlap, ".3f"),
            shown(self.cosine, ".4f"),
            self.verdict,
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine to use, and every trial, best first. busy: other work was slowing the measurement down."""

    engine: str
    trials: tuple[Trial, ...]
    busy: bool = False


def remembered(spec: EncoderSpec, plan: DevicePlan, config: Config) -> Choice | None:
    """The choice made before on this machine for these weights and versions, if any.

    One made while the machine was busy holds only for as long as it is busy: then it is made again.
    """
    stored = Memory(config.cache_dir / "engines" / "choices.json").recall(machine_key(spec, plan, *plan.engines))
    try:
        choice = Choice(stored["engine"], tuple(Trial(**trial) for trial in stored["trials"]), bool(stored["busy"]))
    except (KeyError, TypeError):  # never chosen here, or by another version
        return None
    return None if choice.busy and not is_busy(plan) else choice


def is_busy(plan: DevicePlan) -> bool:
    """True when more threads than cores have wanted to run over the last minute: a speed measured now says little."""
    try:
        return os.getloadavg()[0] > plan.cpu.cores
    except (OSError, AttributeError):  # Windows keeps no such count
        return False


def choose(
    spec: EncoderSpec,
    plan: DevicePlan,
    config: Config,
    make: Callable[[str], Engine],
    *,
    held: Callable[[Engine], Fit],
    torch_share: Callable[[], float],
) -> Choice:
    """Measure `plan.engines`, one open at a time, and remember the choice.

    make: opens an engine by name; its EncodingError or ImportError drops that engine with the reason.
    held: compares an engine with float32 at every width, and leaves it with those that are right.
    torch_share: torch float32's speed as a share of openvino-f32's, 0 when unknown.
    Raises EncodingError when none can be opened.
    """
    pieces, busy = WordPieces(spec), is_busy(plan)
    framed = pieces.with_special_tokens(pieces.tokenize(calibration_texts()))
    measured: list[Trial] = []
    dropped: list[Trial] = []
    exact: Vectors | None = None
    for name in _in_order(plan.engines):
        if name.startswith("torch-") and measured and exact is not None:
            continue  # torch encodes only where nothing else does: it has not been faster on any CPU tried
        try:
            engine = make(name)
        except (EncodingError, ImportError) as error:
            dropped.append(Trial(name, verdict=f"cannot be used: {error}"))
            continue
        fit = held(engine)
        trial, vectors = _measure(engine, framed, exact)
        trial = replace(trial, verdict=fit.why(), fits=fit.ok)
        engine.close()
        measured.append(trial)
        if exact is None and fit.ok:
            exact = vectors
    if not measured:
        raise EncodingError("no engine can run this model here: " + "; ".join(f"{t.engine} {t.verdict}" for t in dropped))
    choice = replace(_judge(measured, dropped, torch_share() if measured[0].engine == "openvino-f32" else 0.0), busy=busy)
    Memory(config.cache_dir / "engines" / "choices.json").remember(machine_key(spec, plan, *plan.engines), asdict(choice))
    return choice


def _in_order(engines: Sequence[str]) -> list[str]:
    """float32 first: it is what the others are held to. torch last."""
    reference = [name for name in ("openvino-f32", "torch-f32") if name in engines][:1]
    others = sorted((name for name in engines if name not in reference), key=lambda name: name.startswith("torch-"))
    return [*reference, *others]


def _judge(measured: Sequence[Trial], dropped: Sequence[Trial], torch_share: float) -> Choice:
    if torch_share > 0:
        torch_speed = torch_share * measured[0].tokens_per_s
        measured = [replace(trial, ratio=trial.tokens_per_s / torch_speed) for trial in measured]
    winner = _winner(measured)
    rows = sorted((_judged(trial, winner) for trial in measured), key=lambda trial: -trial.tokens_per_s)
    if torch_share > 0:
        rows.append(Trial("torch-f32", torch_speed, 1.0, 1.0, 1.0, "what the others are compared with"))
    return Choice(winner.engine, (*rows, *dropped))


def _measure(engine: Engine, framed: Sequence[Sequence[int]], exact: Vectors | None) -> tuple[Trial, Vectors]:
    """exact: float32's vectors; None when this engine is float32's."""
    engine.run(framed)  # kernels are prepared here, as in the first batches of a real run
    seconds = float("inf")
    for _ in range(_REPEATS):  # the best of them: other work on the machine only ever slows one down
        started = time.perf_counter()
        vectors = engine.run(framed)
        seconds = min(seconds, time.perf_counter() - started)
    tokens = sum(len(ids) for ids in framed)
    overlap, cosine = agreement(vectors, vectors if exact is None else exact)
    return Trial(engine.name, tokens / seconds, overlap=overlap, cosine=cosine), vectors


def _passes(trial: Trial) -> bool:
    return trial.fits and trial.overlap >= MIN_OVERLAP


def exactness(engine: str) -> int:
    """0 for float32, more for coarser numbers."""
    return _EXACTNESS.index(precision_of(engine))


def _winner(trials: Sequence[Trial]) -> Trial:
    """The fastest that passes, going from the most exact on and asking MIN_GAIN of each step down."""
    able = sorted((t for t in trials if _passes(t)), key=lambda t: exactness(t.engine))
    best = able[0] if able else trials[0]  # none: whoever opens it finds out, and goes on to a more exact one
    for trial in able[1:]:
        if trial.tokens_per_s >= MIN_GAIN * best.tokens_per_s:
            best = trial
    return best


def _judged(trial: Trial, winner: Trial) -> Trial:
    if trial is winner:
        faster = "" if trial.ratio != trial.ratio else f": {trial.ratio:.1f}x torch float32 on this CPU"
        padding = f"; {trial.verdict}" if trial.verdict else ""
        return replace(trial, chosen=True, verdict=f"chosen{faster}{padding}")
    if not trial.fits:
        return trial
    if not _passes(trial):
        return replace(trial, verdict=f"only {trial.overlap:.3f} of its neighbours are float32's; {MIN_OVERLAP:.2f} is asked")
    return replace(trial, verdict="slower" if trial.tokens_per_s < winner.tokens_per_s else "hardly faster, and less exact")


def machine_key(spec: EncoderSpec, plan: DevicePlan, *more: str) -> str:
    """24 hex digits over what decides speeds and numbers: processor, GPUs, weights, versions, and `more`."""
    parts = [
        plan.cpu.name,
        str(plan.cpu.cores),
        *sorted(plan.cpu.flags),
        *(gpu.name for gpu in plan.gpus),
        spec.space,
        calibration_hash(),
        *more,
        str(MIN_OVERLAP),
    ]
    for package in ("openvino", "nncf", "torch"):
        try:
            parts.append(metadata.version(package))
        except metadata.PackageNotFoundError:
            parts.append("none")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
