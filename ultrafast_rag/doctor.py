"""What this machine offers, what was chosen and why, and what is missing: one table."""

from __future__ import annotations

import platform
import shutil
from importlib import metadata
from typing import Any

from ultrafast_rag.config import Config
from ultrafast_rag.errors import MissingExtraError
from ultrafast_rag.index.store import Store
from ultrafast_rag.models.pool import ModelUse
from ultrafast_rag.models.registry import FINGERPRINTS, Models
from ultrafast_rag.monitor import peak_rss_mb, rss_mb
from ultrafast_rag.types import Table

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
TOOLS = {"tesseract": "text in scanned pages and pictures stays unread: apt-get install tesseract-ocr"}


def examine(config: Config, store: Store, models: Models, *, index_info: dict[str, Any]) -> Table:
    """Rows of check, value and reason: platform, plan, engines, models, index, tools."""
    rows = [("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}", "")]
    rows += models.plan.rows()
    rows += _engines(models)
    rows += [(f"model {use.name}", _size(use), use.reason) for use in models.use()]
    rows += [(f"note on {name}", "", why) for name, why in models.notes.items()]
    rows += [
        (f"vectors {space}", made_by, "what this index was made with")
        for space, made_by in store.get_meta(FINGERPRINTS, {}).items()
    ]
    rows += [(f"index {name}", _words(info), str(info.get("reason", ""))) for name, info in index_info.items()]
    rows += [_library(name, extra) for name, extra in LIBRARIES.items()]
    rows += [(tool, shutil.which(tool) or "missing", "" if shutil.which(tool) else why) for tool, why in TOOLS.items()]
    rows.append(("memory", f"{rss_mb():.0f} MB now, {peak_rss_mb():.0f} MB at most", "this process"))
    rows.append(("cache", str(config.cache_dir), f"{_free_gb(config):.1f} GB free on its disk"))
    problems = store.verify()
    rows.append(("checksums", "damaged" if problems else "good", "; ".join(problems)))
    return Table([{"check": check, "value": value, "reason": reason} for check, value, reason in rows], title="doctor")


def _engines(models: Models) -> list[tuple[str, str, str]]:
    """What the start-up measurement found, where the engine was chosen by one."""
    return [
        (f"engine {name}", f"{speed} tokens/s, {ratio}x torch f32, top-10 overlap {overlap}, cosine {cosine}", why)
        for name, speed, ratio, overlap, cosine, why in models.text().report()
    ]


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


def _free_gb(config: Config) -> float:
    folder = config.cache_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1e9
