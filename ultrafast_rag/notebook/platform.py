"""Where the notebook runs, what that place offers, and what it is missing.

Colab, Kaggle, Jupyter, a terminal or a script, told by environment and without importing torch.
Session limits are the platforms' published maxima; they end idle sessions earlier. Keys are
`secrets.find_key`'s, snapshots to Drive are `drive.py`'s, offline packs `pack.py`'s.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from platform import machine, python_version, system
from typing import Literal

from ultrafast_rag.errors import require
from ultrafast_rag.models.device import gpu_facts, gpu_may_be_there, usable_cores
from ultrafast_rag.notebook.pack import offline_pack, pack_config, verify_pack
from ultrafast_rag.types import Table

__all__ = [
    "Platform", "detect", "doctor_rows", "doctor_table", "install_hint", "kaggle_inputs",
    "offline_pack", "pack_config", "verify_pack",
]  # fmt: skip

PlatformName = Literal["colab", "kaggle", "jupyter", "ipython", "script"]
_TITLES = {
    "colab": "Google Colab", "kaggle": "Kaggle", "jupyter": "Jupyter", "ipython": "IPython in a terminal", "script": "a script",
}  # fmt: skip
_SESSION_S = {"colab": 12 * 3600.0, "kaggle": 12 * 3600.0}
_IDLE = {"colab": "idle sessions end after about 90 minutes", "kaggle": "idle sessions end after about 40 minutes"}
TOOLS = {
    "tesseract": ("text in scanned pages and pictures stays unread", "apt-get install -y tesseract-ocr"),
    "ffmpeg": ("openai-whisper's own loader needs it; recordings are read without it", "apt-get install -y ffmpeg"),
}
_SITES = ("pypi.org", "huggingface.co", "generativelanguage.googleapis.com")
_LOW_DISK, _LOW_RAM = 2 * 2**30, 2 * 2**30


@dataclass(frozen=True, slots=True)
class Platform:
    """What is known of this session. left_s is at most: idle sessions end earlier.

    gpu: the system shows signs of one (torch was not asked).
    working: where files outlive the kernel, as far as the platform keeps any.
    """

    name: PlatformName
    gpu: bool
    started_at: float | None = None
    limit_s: float | None = None
    working: Path = Path()
    drive: Path | None = None

    @property
    def title(self) -> str:
        """The name a person knows it by."""
        return _TITLES[self.name]

    @property
    def age_s(self) -> float | None:
        """Seconds since the session's machine started; None where not known."""
        return None if self.started_at is None else max(0.0, time.time() - self.started_at)

    @property
    def left_s(self) -> float | None:
        """Seconds until the platform ends the session at the latest; None where there is no limit."""
        age = self.age_s
        return None if age is None or self.limit_s is None else max(0.0, self.limit_s - age)

    @property
    def is_notebook(self) -> bool:
        """Whether HTML and widgets can be shown."""
        return self.name in ("colab", "kaggle", "jupyter")


def detect(*, environ: Mapping[str, str] | None = None, root: Path = Path("/")) -> Platform:
    """The platform of this process. environ and root stand in for this machine's own in tests."""
    environ = os.environ if environ is None else environ
    name = _name(environ)
    drive = root / "content" / "drive" / "MyDrive"
    working = {"colab": root / "content", "kaggle": root / "kaggle" / "working"}.get(name, Path.cwd())
    return Platform(
        name=name,
        gpu=gpu_may_be_there("auto"),
        started_at=_machine_started() if name in _SESSION_S else None,
        limit_s=_SESSION_S.get(name),
        working=working,
        drive=drive if drive.is_dir() else None,
    )


def _name(environ: Mapping[str, str]) -> PlatformName:
    # Kaggle first: its images are built from Colab's and carry some of their variables
    if "KAGGLE_KERNEL_RUN_TYPE" in environ or "KAGGLE_DATA_PROXY_TOKEN" in environ:
        return "kaggle"
    if "COLAB_RELEASE_TAG" in environ or "COLAB_JUPYTER_IP" in environ or "google.colab" in sys.modules:
        return "colab"
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return "script"
    return "jupyter" if getattr(shell, "kernel", None) is not None else "ipython"


def _machine_started() -> float | None:
    """When the container's first process started, seconds since 1970; None where it may not be asked."""
    psutil = require("psutil", extra="notebook")
    try:
        return float(psutil.Process(1).create_time())
    except psutil.Error:
        return None


def install_hint(extra: str = "", *, platform: Platform | None = None) -> str:
    """The exact line to run here for the package or one of its extras; preinstalled torch and numpy stay."""
    what = f"ultrafast_rag[{extra}]" if extra else "ultrafast_rag"
    notebook = (platform or detect()).name != "script"
    return f"%pip install -q '{what}'" if notebook else f"{Path(sys.executable).name} -m pip install '{what}'"


def kaggle_inputs(root: Path = Path("/kaggle/input"), *, most_files: int = 20_000) -> Table:
    """What Kaggle attached as inputs: model folders, index archives, and folders of documents, one row each.

    Looks at no more than most_files files; a row's files and size_mb count what was seen.
    """
    rows: dict[tuple[str, str], dict[str, object]] = {}
    seen = 0
    for folder, folders, names in os.walk(root):
        folders.sort()
        here = Path(folder)
        weights = "config.json" in names and any(name.endswith(".safetensors") for name in names)
        for name in sorted(names):
            seen += 1
            if seen > most_files:
                break
            top = root / here.relative_to(root).parts[0] if here != root else root
            kind, where = ("capsule", here / name) if name.endswith(".tar") else ("documents", top)
            if weights:
                kind, where = "weights", here
            row = rows.setdefault((kind, str(where)), {"kind": kind, "path": str(where), "files": 0, "size_mb": 0.0})
            row["files"] = int(str(row["files"])) + 1
            row["size_mb"] = float(str(row["size_mb"])) + (here / name).stat().st_size / 1e6
        if seen > most_files:
            break
    order = {"weights": 0, "capsule": 1, "documents": 2}
    notes = () if root.is_dir() else (f"{root} is not here: this is not Kaggle, or no input is attached",)
    return Table(sorted(rows.values(), key=lambda row: (order[str(row["kind"])], str(row["path"]))), "Kaggle inputs", notes=notes)


def doctor_rows(folder: Path | str = ".", *, network: bool = False, platform: Platform | None = None) -> list[dict[str, str]]:
    """Rows of check, value and advice ("" where all is well) about the machine under the notebook.

    folder: where the index lives; its disk is the one that counts. network: also try to reach the
    sites that models and answers come from (about 2 s each when cut off).
    """
    where = platform or detect()
    rows = [
        _row("python", f"{python_version()} on {system()} {machine()}"),
        _row("platform", where.title, _session_advice(where)),
        _row("session", _session(where)) if where.age_s is not None else None,
        _disk(Path(folder)),
        _ram(),
        _row("cores", str(usable_cores())),
        *(_tool(name) for name in TOOLS),
        *_gpus(where),
        *((_reachable(site) for site in _SITES) if network else ()),
    ]
    return [row for row in rows if row is not None]


def doctor_table(folder: Path | str = ".", *, network: bool = False) -> Table:
    """`doctor_rows` as a table that draws itself."""
    return Table(doctor_rows(folder, network=network), "This machine")


def _row(check: str, value: str, advice: str = "") -> dict[str, str]:
    return {"check": check, "value": value, "advice": advice}


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"


def _session(where: Platform) -> str:
    left = f", at most {_clock(where.left_s)} left" if where.left_s is not None else ""
    return f"{_clock(where.age_s or 0.0)} old{left}"


def _session_advice(where: Platform) -> str:
    if where.name not in _SESSION_S:
        return ""
    if where.left_s is not None and where.left_s < 1800:
        return "the session ends soon: export a snapshot now"
    if where.name == "colab" and where.drive is None:
        return f"{_IDLE['colab']}; mount Drive to keep a snapshot of the index"
    return _IDLE[where.name]


def _disk(folder: Path) -> dict[str, str]:
    folder = folder.expanduser().resolve()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    advice = "little room: delete files or put the index on another disk" if usage.free < _LOW_DISK else ""
    return _row("disk", f"{usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GiB free", advice)


def _ram() -> dict[str, str]:
    psutil = require("psutil", extra="notebook")
    memory = psutil.virtual_memory()
    total, free = float(memory.total), float(memory.available)
    limit = _container_limit()
    if limit is not None and limit < total:
        total, free = limit, min(free, limit - psutil.Process().memory_info().rss)
    advice = "little memory left: restart the kernel or lower max_workers" if free < _LOW_RAM else ""
    return _row("memory", f"{max(0.0, free) / 2**30:.1f} of {total / 2**30:.1f} GiB free", advice)


def _container_limit() -> float | None:
    """Memory limit of this container in bytes; None without one."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 2**60:
            return float(text)
    return None


def _tool(name: str) -> dict[str, str]:
    path = shutil.which(name)
    without, command = TOOLS[name]
    return _row(name, path or "missing", "" if path else f"{without}: {command}")


def _gpus(where: Platform) -> list[dict[str, str]]:
    """One row per GPU; where the system shows one that torch cannot use, a row that says why."""
    if not where.gpu:
        return [_row("gpu", "none", _enable(where))]
    if importlib.util.find_spec("torch") is None:
        return [_row("gpu", "present, and torch is not installed", "pip install torch")]
    facts = gpu_facts()
    if not facts:
        why = "this torch is built without CUDA, or its driver is too old: install a CUDA build, or restart the session"
        return [_row("gpu", "present, and torch does not see it", why)]
    rows = []
    for gpu in facts:
        advice = "" if gpu.bf16 else "bf16 is only emulated here: float16 is used"
        if not gpu.supported:
            version = ".".join(map(str, gpu.capability))
            advice = f"this torch has no kernels for compute capability {version}: install one that has"
        rows.append(_row(f"gpu {gpu.index}", gpu.summary(), advice))
    return rows


def _enable(where: Platform) -> str:
    menus = {"colab": "Runtime > Change runtime type > T4 GPU", "kaggle": "Settings > Accelerator > GPU T4 x2"}
    return f"{menus[where.name]} gives one" if where.name in menus else ""


def _reachable(site: str) -> dict[str, str]:
    try:
        socket.create_connection((site, 443), timeout=2.0).close()
    except OSError as error:
        advice = "work goes on with what is on this disk; Config(offline=True) asks nothing"
        return _row(site, f"not reachable ({type(error).__name__})", advice)
    return _row(site, "reachable")
