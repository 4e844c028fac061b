"""Everything a machine without a network needs: models, the list of packages, and, where asked, their wheels.

`offline_pack` makes a folder, `verify_pack` says what is missing or altered in it, `pack_config`
opens it: a Config whose models are the folder's own and that never asks the hub.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, StorageError, WeightsError
from ultrafast_rag.files import sha256_of, write_whole
from ultrafast_rag.models.weights import Kind, resolve
from ultrafast_rag.types import Table

MANIFEST = "manifest.json"
_PACKAGE = "ultrafast_rag"
_MODELS: tuple[tuple[str, Kind], ...] = (
    ("text_model", "text"),
    ("image_model", "image"),
    ("speech_model", "speech"),
    ("rerank_model", "rerank"),
    ("local_model", "local"),
)
_KEPT = (".json", ".txt", ".safetensors", ".model")


def offline_pack(folder: Path | str, config: Config, *, wheels: bool = False) -> Table:
    """Fill an empty or older pack folder; returns its rows (what, where from, files, size_mb).

    A model that is not on this machine and cannot be fetched is a row without files and stays out
    of the pack's config. wheels: also download the wheel of every package for this Python (gigabytes
    where torch is among them). Raises ConfigError when the folder holds something else.
    """
    root = Path(folder).expanduser()
    if root.exists() and any(root.iterdir()) and not (root / MANIFEST).is_file():
        raise ConfigError(f"{root} holds other files; give a new folder for the pack")
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / MANIFEST).unlink(missing_ok=True)
        rows, packed, missing = _copy_models(root, config)
        rows.append(_write_requirements(root, wheels=wheels))
        files = {path.relative_to(root).as_posix(): sha256_of(path) for path in _files(root)}
        manifest = {"format": 1, "models": packed, "missing": missing, "wheels": wheels, "files": files}
        write_whole(root, MANIFEST, [json.dumps(manifest, indent=1, sort_keys=True).encode()])
    except OSError as error:
        raise StorageError(f"the pack in {root} is not complete: {error}. Make room and run it again") from error
    notes = tuple(f"{name} is not in the pack: {why}" for name, why in missing.items())
    return Table(rows, f"Offline pack in {root}", notes=notes)


def verify_pack(folder: Path | str) -> list[str]:
    """Problems of a pack in words; [] when every file is there and unchanged. Asks no network."""
    root = Path(folder).expanduser()
    try:
        manifest = _read_manifest(root)
    except ConfigError as error:
        return [str(error)]
    problems = []
    for name, digest in manifest["files"].items():
        path = root / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif sha256_of(path) != digest:
            problems.append(f"{name} is not what was packed")
    present = {path.relative_to(root).as_posix() for path in _files(root)}
    problems += [f"{name} was added later" for name in sorted(present - set(manifest["files"]))]
    if manifest["wheels"]:
        wheels = {_plain(path.name.split("-")[0]) for path in (root / "wheels").glob("*") if path.is_file()}
        needed = (line.split("==")[0] for line in (root / "requirements.txt").read_text().splitlines() if "==" in line)
        problems += [f"no wheel for {name}" for name in needed if _plain(name) not in wheels]
    return problems


def pack_config(folder: Path | str, **changes: Any) -> Config:
    """A Config with the pack's models and `offline=True`; models the pack lacks are switched off.

    Raises WeightsError when the pack is damaged.
    """
    root = Path(folder).expanduser().resolve()
    if problems := verify_pack(root):
        raise WeightsError(f"the pack in {root} cannot be used: {'; '.join(problems[:5])}. Make it again with a connection")
    models = _read_manifest(root)["models"]
    settings: dict[str, Any] = {name: None for name, _ in _MODELS if name != "text_model"}
    settings |= {name: str(root / where) for name, where in models.items()}
    return Config(**{**settings, "offline": True, **changes})


def _copy_models(root: Path, config: Config) -> tuple[list[dict[str, Any]], dict[str, str], dict[str, str]]:
    rows: list[dict[str, Any]] = []
    packed: dict[str, str] = {}
    missing: dict[str, str] = {}
    shutil.rmtree(root / "models", ignore_errors=True)
    for setting, kind in _MODELS:
        model_id = getattr(config, setting)
        if model_id is None:
            continue
        row: dict[str, Any] = {"what": f"{setting} {model_id}", "from": "", "files": 0, "size_mb": 0.0}
        rows.append(row)
        try:
            weights = resolve(model_id, kind=kind, offline=config.offline, cache_dir=config.cache_dir)
        except WeightsError as error:
            missing[setting] = str(error)
            continue
        where = root / "models" / f"{kind}-{re.sub(r'[^A-Za-z0-9._-]+', '-', weights.name).strip('.-') or 'model'}"
        for source in sorted(path for path in weights.path.rglob("*") if path.is_file() and path.suffix in _KEPT):
            target = where / source.relative_to(weights.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            row["files"], row["size_mb"] = row["files"] + 1, row["size_mb"] + target.stat().st_size / 1e6
        row["from"], packed[setting] = weights.origin, where.relative_to(root).as_posix()
    return rows, packed, missing


def _write_requirements(root: Path, *, wheels: bool) -> dict[str, Any]:
    """Every package this one needs, at the version installed here; with `wheels` also its wheel."""
    pins = sorted(f"{name}=={version}" for name, version in installed_closure(_PACKAGE).items())
    path = root / "requirements.txt"
    head = [
        "# With a connection, on the same kind of machine:  pip download --dest wheels --requirement requirements.txt",
        "# Without one:  pip install --no-index --find-links wheels --requirement requirements.txt",
    ]
    path.write_text("\n".join([*head, *pins]) + "\n", encoding="utf-8")
    if wheels:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(root / "wheels"), "--requirement", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StorageError(f"pip could not download the wheels: {done.stderr.strip()[-400:]}")
    found = list((root / "wheels").glob("*")) if wheels else []
    size = sum(wheel.stat().st_size for wheel in found) / 1e6
    return {"what": f"{len(pins)} packages", "from": "pip" if wheels else "list only", "files": len(found), "size_mb": size}


def installed_closure(package: str) -> dict[str, str]:
    """Installed distributions that `package` needs, directly or not, without itself: name -> version."""
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    queue: list[tuple[str, frozenset[str]]] = [(package, frozenset())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while queue:
        name, extras = queue.pop()
        if (_plain(name), extras) in seen:
            continue
        seen.add((_plain(name), extras))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # asked for by a marker that pip judged otherwise
        found[_plain(name)] = distribution.version
        for line in distribution.requires or []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras or {""}):
                queue.append((needed.name, frozenset(needed.extras)))
    found.pop(_plain(package), None)
    return found


def _read_manifest(root: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        names = [*manifest["files"], *manifest["models"].values()]
        _ = manifest["wheels"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{root} is not an offline pack, or it was cut short: {MANIFEST} cannot be read") from error
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in names):
        raise ConfigError(f"{root / MANIFEST} names files outside the pack")
    result: dict[str, Any] = manifest
    return result


def _files(root: Path) -> Iterable[Path]:
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            if Path(folder, name) != root / MANIFEST:
                yield Path(folder, name)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
