"""Why an ingest is not faster: its core-seconds by part, and how near the encoder is to the chip's own ceiling.

The first says what would be won if a part were free; the second, what better kernels could still win.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.bench.bigpdf import write_pdf
from ultrafast_rag.bench.child import call
from ultrafast_rag.bench.ingest import default_sources
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import add_settings, config_of, fresh_cache, prepare_models, settings_of
from ultrafast_rag.errors import ConfigError, require
from ultrafast_rag.models.device import plan_device
from ultrafast_rag.models.text.openvino import converted
from ultrafast_rag.models.text.tokens import EncoderSpec
from ultrafast_rag.models.weights import resolve
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import TEXT_SPACE, Table

ROWS, LENGTH = 8, 128  # of the batch whose layers are timed: 1 024 tokens
MATRIX = 2048  # side of the matrices whose product is the ceiling
_REPEATS = 20  # chosen; the median counts
_PRODUCTS = "matrix products"
_KINDS = {  # OpenVINO's node types; attention comes as a subgraph of its own
    "FullyConnected": _PRODUCTS,
    "FullyConnectedQuantizedLegacy": _PRODUCTS,
    "Subgraph": "attention",
    "ScaledAttn": "attention",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to ingest."""
    parser.add_argument("sources", nargs="*", type=Path, help="files or folders (default: those of bench ingest)")
    parser.add_argument("--data", type=Path, help="folder of public data (default: UFR_TEST_DATA)")
    parser.add_argument("--repeats", type=int, default=3, help="runs; the one with the median time is shown")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """One row a part of the work, then one a kind of layer."""
    settings, sources = settings_of(arguments.set), arguments.sources or default_sources(arguments.data)
    for source in sources:
        if not source.exists():
            raise ConfigError(f"{source} is not here; name files or folders to ingest")
    prepare_models()
    say("ingesting ...")
    task = {"sources": [str(source) for source in sources], "settings": settings}
    runs = [call("ultrafast_rag.bench.profile:measure", task).value for _ in range(arguments.repeats)]
    found = sorted(runs, key=lambda value: float(value["seconds"]))[len(runs) // 2]
    cores, seconds = found["cores"], found["seconds"]
    idle = max(0.0, cores * seconds - sum(found["core_s"].values()))
    rows = [
        {"part": part, "core s": spent, "%": 100 * spent / (cores * seconds)}
        for part, spent in {**found["core_s"], "idle": idle}.items()
    ]
    pages, tokens, alone_s = found["pages"], found["tokens"], found["encode_alone_s"]
    notes = [
        f"{pages} pages, {tokens:,} tokens encoded in {seconds:.2f} s: {60 * pages / seconds:,.0f} pages/min",
        f"the encoder alone takes {alone_s:.2f} s for these passages, {tokens / alone_s:,.0f} tokens/s: "
        f"with everything else free it would be {60 * pages / alone_s:,.0f} pages/min",
    ]
    say("layers ...")
    layers = call("ultrafast_rag.bench.profile:layers", {"settings": settings, "engine": found["engine"]}).value
    rows += [{"part": f"layer: {kind}", "%": share} for kind, share in layers["share"].items()]
    notes.append(
        f"layers: {layers['engine']}, {ROWS} passages of {LENGTH} tokens on one core, {layers['ms']:.1f} ms; the matrix products "
        f"run at {layers['tera_ops']:.3f} T operations/s, a large product alone at {layers['ceiling_tera_ops']:.3f}"
    )
    return Result(Table(rows, "Profile", notes=tuple(notes)), {"ingest": found, "layers": layers})


def measure(sources: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Core-seconds of one ingest by thread and process, then the time of its encoding alone."""
    psutil = require("psutil", extra="notebook")
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-profile-") as folder:
        config = config_of({"cache_dir": fresh_cache(Path(folder, "cache")), **settings})
        with UltraFastRAG(Path(folder, "index"), config=config) as rag:
            rag.ingest(write_pdf(Path(folder, "page.pdf"), 1, seed=1))
            with rag._models.pool.lease(TEXT_SPACE) as encoder:  # the one that will be used: what goes into it is recorded
                engine = encoder.engine
            rag.add_texts([f"Lamp {n} of the harbour is lit at dusk and put out at dawn." for n in range(400)])  # all kernels
            seen: list[list[int]] = []
            engine_run: Callable[..., Any] = engine.run

            def recorded(token_ids: Any) -> Any:
                seen.extend(token_ids)
                return engine_run(token_ids)

            engine.run = recorded
            readers = psutil.Process().children(recursive=True)
            before = _cpu(readers)
            process_s, caller_s, start = time.process_time(), time.thread_time(), time.perf_counter()
            report = rag.ingest(*sources)
            seconds = time.perf_counter() - start
            process_s, caller_s = time.process_time() - process_s, time.thread_time() - caller_s
            core_s = {
                "encoder, committer": process_s - caller_s,
                "chunking, tokenizing": caller_s,
                "readers": _cpu(psutil.Process().children(recursive=True)) - before,
            }
            alone = min(_timed(lambda: engine_run(seen)) for _ in range(3))
    return {
        "pages": report.pages,
        "seconds": seconds,
        "core_s": core_s,
        "tokens": sum(map(len, seen)),
        "passages": len(seen),
        "encode_alone_s": alone,
        "cores": plan_device(config).cpu.cores,
        "engine": engine.name,
    }


def _cpu(processes: list[Any]) -> float:
    return float(sum(times.user + times.system for times in (process.cpu_times() for process in processes)))


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def layers(settings: dict[str, Any], engine: str) -> dict[str, Any]:
    """Shares of a batch's time by kind of layer on one core, and the ceiling of the same core in the same precision.

    engine: the one that ingests here; of one that is not OpenVINO's, OpenVINO's float32 is shown.
    """
    engine = engine if engine.startswith("openvino") else "openvino-f32"
    openvino, config = require("openvino", extra="cpu"), config_of(settings)
    plan = plan_device(config)
    spec = EncoderSpec.read(resolve(config.text_model, kind="text", offline=config.offline, cache_dir=config.cache_dir))
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(str(converted(spec, "int8" if engine == "openvino-int8" else "f32", config.cache_dir) / "model.xml")),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "bf16" if plan.cpu.bf16 and engine != "openvino-f32" else "f32",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": "1",
            "PERF_COUNT": "YES",
        },
    )
    request = compiled.create_infer_request()
    ids = np.random.default_rng(0).integers(1000, 20_000, (ROWS, LENGTH)).astype(np.int64)
    spent: Counter[str] = Counter()
    for number in range(_REPEATS + 3):
        request.infer({0: ids, 1: np.ones_like(ids)})
        if number >= 3:
            for entry in request.profiling_info:
                if entry.status.name == "EXECUTED":
                    spent[_KINDS.get(entry.node_type, "the rest")] += entry.real_time.total_seconds()
    total = sum(spent.values())
    hidden, inner = spec.dim, int(spec.config["intermediate_size"])
    products = 2 * ROWS * LENGTH * spec.layers * (4 * hidden * hidden + 2 * hidden * inner)
    return {
        "share": {kind: 100 * seconds / total for kind, seconds in spent.most_common()},
        "ms": 1000 * total / _REPEATS,
        "tera_ops": products * _REPEATS / spent[_PRODUCTS] / 1e12,
        "engine": engine,
        "ceiling_tera_ops": _ceiling(engine) / 1e12,
    }


def _ceiling(engine: str) -> float:
    """Operations a second of one large matrix product in the engine's precision on one core, the best of several."""
    torch = require("torch")
    torch.set_num_threads(1)
    if engine == "openvino-int8":
        left, right = (torch.randint(-128, 127, (MATRIX, MATRIX), dtype=torch.int8) for _ in range(2))
        multiply = torch._int_mm
    else:
        kind = torch.bfloat16 if engine == "openvino-bf16" else torch.float32
        left, right = (torch.randn(MATRIX, MATRIX).to(kind) for _ in range(2))
        multiply = torch.mm
    return float(2 * MATRIX**3 / min(_timed(lambda: multiply(left, right)) for _ in range(5)))
