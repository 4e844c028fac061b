"""An index as one file: a plain tar with a manifest of sha256 sums, checked before anything is used.

No pickle, no links, no paths that leave the folder: a capsule from a stranger can be refused, not
run. FAISS and BM25 files stay out; they are derived and are rebuilt.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from ultrafast_rag.errors import ConfigError, IndexCorruptError
from ultrafast_rag.index.store import Store

MANIFEST = "manifest.json"


def export_capsule(store: Store, target: Path) -> Path:
    """Write a consistent copy of the index to `target`, a .tar; the file appears whole or not at all."""
    target = target.expanduser().resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".capsule-") as scratch:
        snapshot = Path(scratch, "index")
        store.snapshot(snapshot)
        files = sorted(path for path in snapshot.rglob("*") if path.is_file())
        sums = {path.relative_to(snapshot).as_posix(): _sha256(path) for path in files}
        partial = Path(scratch, "capsule.tar")
        with tarfile.open(partial, "w") as tar:
            manifest = json.dumps({"format": 1, "files": sums}, indent=1).encode()
            entry = tarfile.TarInfo(MANIFEST)
            entry.size = len(manifest)
            tar.addfile(entry, io.BytesIO(manifest))
            for path in files:
                tar.add(path, path.relative_to(snapshot).as_posix(), recursive=False)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(target)
    return target


def restore_capsule(capsule: Path, folder: Path) -> Path:
    """Unpack a capsule into a new folder. IndexCorruptError when its sums do not match; nothing is left then."""
    folder = folder.expanduser().resolve()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; restore into a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".restore-"))
    try:
        with tarfile.open(capsule, "r:") as tar:
            _unpack(tar, scratch, capsule)
        if folder.exists():
            folder.rmdir()
        scratch.replace(folder)
    except tarfile.TarError as error:
        raise IndexCorruptError(f"{capsule} is not a capsule: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _unpack(tar: tarfile.TarFile, folder: Path, capsule: Path) -> None:
    """Every regular file the manifest names, its sum checked while it is written; anything else is refused."""
    first = tar.next()
    if first is None or first.name != MANIFEST or not first.isreg() or first.size > 10_000_000:
        raise IndexCorruptError(f"{capsule} is not a capsule of this package: it does not start with {MANIFEST}")
    content = tar.extractfile(first)
    sums: dict[str, str] = json.loads(content.read())["files"] if content else {}
    while (entry := tar.next()) is not None:
        parts = Path(entry.name).parts
        if not entry.isreg() or entry.name not in sums or ".." in parts or Path(entry.name).is_absolute():
            raise IndexCorruptError(f"{capsule} holds {entry.name!r}, which does not belong in a capsule; nothing was restored")
        source = tar.extractfile(entry)
        path = folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            if source is not None:
                shutil.copyfileobj(source, file)
        if _sha256(path) != sums.pop(entry.name):
            raise IndexCorruptError(f"{entry.name} in {capsule} is damaged; nothing was restored. Export the capsule again")
    if sums:
        raise IndexCorruptError(f"{capsule} is cut short: {', '.join(sorted(sums))} missing; nothing was restored")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
