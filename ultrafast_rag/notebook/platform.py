"""Where the notebook runs and what is attached there: Colab, Kaggle, Jupyter, a terminal or a script, by environment.

Keys are `secrets.find_key`'s, snapshots `drive.py`'s, offline packs `pack.py`'s; what the machine offers is `doctor.py`'s.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ultrafast_rag.notebook.pack import offline_pack, pack_config, verify_pack
from ultrafast_rag.types import Table

__all__ = ["Platform", "detect", "kaggle_inputs", "offline_pack", "pack_config", "verify_pack"]

PlatformName = Literal["colab", "kaggle", "jupyter", "ipython", "script"]


@dataclass(frozen=True, slots=True)
class Platform:
    """drive: Colab's, where it is mounted; a folder for `drive.snapshot`."""

    name: PlatformName
    drive: Path | None = None

    @property
    def is_notebook(self) -> bool:
        """Whether HTML and widgets can be shown."""
        return self.name in ("colab", "kaggle", "jupyter")


def detect(*, environ: Mapping[str, str] | None = None, root: Path = Path("/")) -> Platform:
    """The platform of this process. environ and root stand in for this machine's own in tests."""
    environ = os.environ if environ is None else environ
    name = _name(environ)
    drive = root / "content" / "drive" / "MyDrive"
    return Platform(name, drive if drive.is_dir() else None)


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


MOST_FILES = 20_000  # a data set of pictures may hold millions: a look must take a second, not minutes


def kaggle_inputs(root: Path = Path("/kaggle/input")) -> Table:
    """What Kaggle attached as inputs: model folders, index archives, and folders of documents, one row each.

    Looks at no more than MOST_FILES files; a row's files and size_mb count what was seen.
    """
    rows: dict[tuple[str, str], dict[str, object]] = {}
    seen = 0
    for folder, folders, names in os.walk(root):
        folders.sort()
        here = Path(folder)
        weights = "config.json" in names and any(name.endswith(".safetensors") for name in names)
        for name in sorted(names):
            seen += 1
            if seen > MOST_FILES:
                break
            top = root / here.relative_to(root).parts[0] if here != root else root
            kind, where = ("capsule", here / name) if name.endswith(".tar") else ("documents", top)
            if weights:
                kind, where = "weights", here
            row = rows.setdefault((kind, str(where)), {"kind": kind, "path": str(where), "files": 0, "size_mb": 0.0})
            row["files"] = int(str(row["files"])) + 1
            row["size_mb"] = float(str(row["size_mb"])) + (here / name).stat().st_size / 1e6
        if seen > MOST_FILES:
            break
    order = {"weights": 0, "capsule": 1, "documents": 2}
    notes = () if root.is_dir() else (f"{root} is not here: this is not Kaggle, or no input is attached",)
    return Table(sorted(rows.values(), key=lambda row: (order[str(row["kind"])], str(row["path"]))), "Kaggle inputs", notes=notes)
