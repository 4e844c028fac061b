"""What this machine offers, what was chosen and why, and what is missing: one table."""

from __future__ import annotations

import platform
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from ultrafast_rag.config import Config
from ultrafast_rag.errors import MissingExtraError, UltraFastRAGError
from ultrafast_rag.index.store import Store
from ultrafast_rag.models.pool import ModelUse
from ultrafast_rag.models.registry import FINGERPRINTS, Models
from ultrafast_rag.monitor import peak_rss_mb, rss_mb
from ultrafast_rag.types import TEXT_SPACE, Table

# and the extra that holds each; "" is the core
LIBRARIES = {
    "torch": "",
    "transformers": "",
    "faiss-cpu": "",
    "pymupdf": "",
    "diskcache": "",
    "openvino": "cpu",
    "nncf": "cpu",
    "openai-whisper": "speech",
    "open-clip-torch": "images",
    "bitsandbytes": "quant",
}
TOOLS = {"tesseract": "text in scanned pages and pictures stays unread: apt-get install -y tesseract-ocr"}
LITTLE_GB = 2.0  # twice what a process with torch and a picture model was seen to take (1.0 GB)
Row = tuple[str, str, str]


def examine(config: Config, store: Store, models: Models, *, index_info: dict[str, Any]) -> Table:
    """Rows of check, value and reason: platform, plan, engines, models, index, tools.

    A model that cannot be opened is a row that says why and what to do, the text encoder too: nothing here raises for it.
    """
    rows: list[Row] = [("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}", "")]
    rows += models.plan.rows()
    rows += _models(models)
    rows += [(f"note on {name}", "", why) for name, why in models.notes.items()]
    rows += [
        (f"vectors {space}", made_by, "what this index was made with")
        for space, made_by in store.get_meta(FINGERPRINTS, {}).items()
    ]
    rows += [(f"index {name}", _words(info), str(info.get("reason", ""))) for name, info in index_info.items()]
    if left := store.count_without(TEXT_SPACE):
        share = 1 - left / max(store.counts()["chunks"], 1)
        rows.append(("refined", f"{share:.0%}", f"{left} passages get their vectors later: rag.refine() does it now"))
    rows += [_library(name, extra) for name, extra in LIBRARIES.items()]
    rows += [(tool, shutil.which(tool) or "missing", "" if shutil.which(tool) else why) for tool, why in TOOLS.items()]
    rows += [_memory(), _disk("index", store.folder), _disk("cache", config.cache_dir)]
    problems = store.verify()
    rows.append(("checksums", "damaged" if problems else "good", "; ".join(problems)))
    return Table([{"check": check, "value": value, "reason": reason} for check, value, reason in rows], title="doctor")


def _models(models: Models) -> list[Row]:
    """What the start-up measurement found, each model's memory, and the models that cannot be opened."""
    rows: list[Row] = []
    try:
        rows += [
            (f"engine {name}", f"{speed} tokens/s, {ratio}x torch f32, top-10 overlap {overlap}, cosine {cosine}", why)
            for name, speed, ratio, overlap, cosine, why in models.text().report()
        ]
    except UltraFastRAGError as error:
        rows.append(("model text", "missing: nothing can be ingested or asked", str(error)))
    for name, model in (("picture", models.picture), ("speech", models.speech)):
        try:
            model()  # one that is only missing leaves a note
        except UltraFastRAGError as error:
            rows.append((f"model {name}", "cannot be opened", str(error)))
    return rows + [(f"model {use.name}", _size(use), use.reason) for use in models.use()]


def _words(info: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in info.items()
        if name != "reason"
    )


def _size(use: ModelUse) -> str:
    kind = "measured" if use.measured else "estimated"
    return f"{use.size_bytes / 1e6:.0f} MB {kind} on {', '.join(use.devices)}{'' if use.loaded else ', not loaded'}"


def _library(package: str, extra: str) -> tuple[str, str, str]:
    try:
        return package, metadata.version(package), ""
    except metadata.PackageNotFoundError:
        return package, "", str(MissingExtraError(package, extra))


def _memory() -> Row:
    """This process's memory, and what its machine or container has left."""
    used = f"{rss_mb():.0f} MB in this process, {peak_rss_mb():.0f} MB at most"
    free = free_memory_gb()
    if free is None:
        return "memory", used, ""
    advice = "little memory left: restart the kernel or lower max_workers" if free < LITTLE_GB else ""
    return "memory", f"{used}, {free:.1f} GB free", advice


def free_memory_gb() -> float | None:
    """Memory that this process may still take in GB: the machine's, or less where its container is limited; None if not told."""
    try:
        known = dict(re.findall(r"(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text()))
        free = int(known["MemAvailable"]) * 1024
    except (OSError, KeyError):
        return None
    for group in ("/sys/fs/cgroup/memory.", "/sys/fs/cgroup/memory/memory."):
        for limit, used in (("max", "current"), ("limit_in_bytes", "usage_in_bytes")):
            try:
                free = min(free, int(Path(group + limit).read_text()) - int(Path(group + used).read_text()))
            except (OSError, ValueError):  # another version of cgroups, or "max"
                continue
    return max(0, free) / 1e9


def _disk(name: str, folder: Path) -> Row:
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free / 1e9
    advice = "little room: delete files, or put it on another disk" if free < LITTLE_GB else ""
    return name, f"{folder}, {free:.1f} GB free on its disk", advice
