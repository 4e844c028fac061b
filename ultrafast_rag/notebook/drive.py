"""Snapshots of an index on Drive, and back. The live SQLite files never lie there.

An index archive (a capsule) is written on the local disk, copied under a temporary name, read back and compared, and
only then named; an older snapshot is removed after that, never before. So a session cut at any
moment leaves the last whole snapshot.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ultrafast_rag.errors import ConfigError, IndexCorruptError, StorageError, UltraFastRAGError
from ultrafast_rag.files import sha256_of, sync

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")


class Exporter(Protocol):
    """Anything that writes itself as one consistent file: a UltraFastRAG."""

    def export(self, capsule: Path) -> object:
        """Write the index archive."""
        ...


def mount() -> Path:
    """Mount Google Drive in Colab (it asks the user) and return its folder. ConfigError elsewhere."""
    try:
        from google.colab import drive
    except ImportError as error:
        raise ConfigError("Drive can be mounted in Google Colab only; elsewhere give any folder that is kept") from error
    drive.mount("/content/drive")
    return Path("/content/drive/MyDrive")


def snapshot(source: Exporter | Callable[[Path], object], folder: Path | str, *, name: str = "index", keep: int = 2) -> Path:
    """Write a snapshot of `source` into `folder` (on Drive) and return its path; the newest `keep` stay.

    source: an object with `export(path)`, or a callable that writes one consistent file.
    Raises StorageError when the folder is gone, full or does not hold what was written.
    """
    if not _NAME.fullmatch(name) or keep < 1:
        raise ConfigError("a snapshot's name is letters, digits, '-', '_' and '.', and at least one is kept")
    export: Callable[[Path], object] = source if callable(source) else source.export
    target = Path(folder).expanduser()
    with tempfile.TemporaryDirectory(prefix="ufr-snapshot-") as scratch:
        local = Path(scratch, "capsule.tar")
        export(local)
        try:
            target.mkdir(parents=True, exist_ok=True)
            _require_room(target, local.stat().st_size)
            written = _copy(local, target, name)
        except UltraFastRAGError:
            raise
        except OSError as error:
            raise StorageError(f"no snapshot was written to {target}: {error}. The older ones are untouched") from error
    for old in snapshots(target, name=name)[keep:]:
        if old != written:  # whatever the clock says
            old.unlink(missing_ok=True)
    return written


def snapshots(folder: Path | str, *, name: str = "index") -> list[Path]:
    """Whole snapshots in `folder`, newest first."""
    shape = re.compile(re.escape(name) + r"-\d{8}-\d{6}-\d{3}-[0-9a-f]{16}\.tar")
    where = Path(folder).expanduser()
    return sorted((path for path in where.glob("*.tar") if shape.fullmatch(path.name)), key=lambda p: p.name, reverse=True)


def restore(folder: Path | str, target: Path | str, unpack: Callable[[Path, Path], Any], *, name: str = "index") -> Path:
    """Bring the newest undamaged snapshot to the local folder `target`; returns the snapshot used.

    unpack: called with (a local copy of the capsule, target), e.g. `UltraFastRAG.restore`.
    Raises ConfigError when there is no snapshot, IndexCorruptError when every one is damaged.
    """
    found = snapshots(folder, name=name)
    if not found:
        raise ConfigError(f"there is no snapshot named {name!r} in {folder}")
    for path in found:
        with tempfile.TemporaryDirectory(prefix="ufr-restore-") as scratch:
            local = Path(scratch, "capsule.tar")
            shutil.copyfile(path, local)
            if sha256_of(local)[:16] != path.stem.rsplit("-", 1)[-1]:
                continue  # cut short or altered on its way: an older one may be whole
            unpack(local, Path(target))
            return path
    raise IndexCorruptError(f"every snapshot named {name!r} in {folder} is damaged; nothing was restored")


def _require_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + 2**20:
        short = f"{free / 1e6:.0f} MB free and the snapshot needs {size / 1e6:.0f} MB"
        raise StorageError(f"{folder} has {short}: make room, then try again. The older snapshots are untouched")


def _copy(local: Path, folder: Path, name: str) -> Path:
    digest = sha256_of(local)
    now = time.time()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now)) + f"-{int(now * 1000) % 1000:03d}"
    final, partial = folder / f"{name}-{stamp}-{digest[:16]}.tar", folder / f".{name}-{os.getpid()}.partial"
    try:
        shutil.copyfile(local, partial)
        sync(partial)
        if sha256_of(partial) != digest:
            raise StorageError(f"{folder} did not keep what was written; the older snapshots are untouched. Try again")
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)
    return final
