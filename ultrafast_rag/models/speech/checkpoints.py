"""Whisper checkpoints, from wherever they lie, into openai-whisper's own model class.

Three layouts: a folder with dims.json and safetensors; a transformers folder or hub id (its safetensors are
renamed to openai-whisper's names); a published .pt, opened only after its sha256 matches the published one and
then with `weights_only=True`. Any other pickled file is refused: opening one can run code.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrafast_rag.config import Config
from ultrafast_rag.errors import WeightsError, require
from ultrafast_rag.models.weights import file_sha256, resolve, weight_files

_KAGGLE_ROOT = Path("/kaggle/input")
_LAYER = {
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "final_layer_norm": "mlp_ln",
    "self_attn": "attn",
    "encoder_attn": "cross_attn",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
}
_PROJECTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
_TOP = {
    "encoder.layer_norm": "encoder.ln_post",
    "decoder.layer_norm": "decoder.ln",
    "decoder.embed_tokens": "decoder.token_embedding",
    "encoder.embed_positions.weight": "encoder.positional_embedding",
    "decoder.embed_positions.weight": "decoder.positional_embedding",
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where weights are and what they are. name and revision go into the fingerprint; note: what a report should say.

    window_s: the longest stretch of speech that the checkpoint hears well, as its config.json says; None: as long as it can.
    """

    path: Path
    layout: str  # "dims", "transformers" or "published"
    name: str
    revision: str
    note: str = ""
    window_s: float | None = None


def find_checkpoint(model: str, config: Config) -> Checkpoint:
    """`model` is one of openai-whisper's names, a folder, a .pt file, or a hub id. Raises WeightsError."""
    path = Path(model).expanduser()
    if path.is_dir():
        return _folder(path, model, config)
    if path.suffix == ".pt":
        return _published(path)
    known = published()
    if model in known:
        for place in _pt_places(Path(known[model]).name, config):
            if place.is_file():
                return _published(place)
        alias = {"large": "large-v3", "turbo": "large-v3-turbo"}.get(model, model)
        return _resolved(f"openai/whisper-{alias}", config)
    if "/" not in model:
        raise WeightsError(f"{model!r} is no Whisper model; known are {', '.join(known)}, a folder, or a hub id")
    return _resolved(model, config)


def load_model(checkpoint: Checkpoint) -> Any:
    """openai-whisper's model with these weights, on the CPU, in eval mode. Raises WeightsError.

    Matrices stay in the type that they are stored in and are not copied, so that a large model takes its file's size
    and no more: made in float32 first and filled then, large-v3 took 15 GB. What its own layers compute in float32
    is float32.
    """
    torch, whisper_model = require("torch"), require("whisper.model", package="openai-whisper", extra="speech")
    try:
        dims, state = _read(checkpoint)
        model = _empty(torch, whisper_model, whisper_model.ModelDimensions(**dims))
        own, single = set(model.state_dict()), _computed_in_float32(torch, model)
        kept = {name: value.float() if name in single else value for name, value in state.items() if name in own}
        model.load_state_dict(kept, strict=True, assign=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise WeightsError(f"{checkpoint.path} is no Whisper checkpoint: {str(error)[:300]}") from error
    return model.eval().requires_grad_(False)


def _empty(torch: Any, whisper_model: Any, dims: Any) -> Any:
    """As `Whisper(dims)` makes it, its parameters without memory; what it computes rather than stores is there."""
    model = whisper_model.Whisper.__new__(whisper_model.Whisper)
    torch.nn.Module.__init__(model)
    audio = (dims.n_mels, dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_head, dims.n_audio_layer)
    text = (dims.n_vocab, dims.n_text_ctx, dims.n_text_state, dims.n_text_head, dims.n_text_layer)
    with torch.device("meta"):
        model.dims, model.encoder, model.decoder = dims, whisper_model.AudioEncoder(*audio), whisper_model.TextDecoder(*text)
    model.decoder.mask = torch.full((dims.n_text_ctx, dims.n_text_ctx), float("-inf")).triu_(1)
    heads = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool)
    heads[dims.n_text_layer // 2 :] = True
    model.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)
    return model


def _computed_in_float32(torch: Any, model: Any) -> set[str]:
    """Names of what is stored outside of matrices, convolutions and embeddings: layer norms and positions."""
    cast = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Embedding)
    inside = {
        f"{name}.{own}" for name, part in model.named_modules() if isinstance(part, cast) for own, _ in part.named_parameters()
    }
    return set(model.state_dict()) - inside


def published() -> Mapping[str, str]:
    """Name -> address of OpenAI's files; the address holds the file's sha256."""
    return dict(require("whisper", package="openai-whisper", extra="speech")._MODELS)


def _read(checkpoint: Checkpoint) -> tuple[dict[str, int], dict[str, Any]]:
    if checkpoint.layout == "published":
        found = require("torch").load(checkpoint.path, map_location="cpu", weights_only=True, mmap=True)
        return found["dims"], found["model_state_dict"]
    load_file = require("safetensors.torch").load_file
    state: dict[str, Any] = {}
    for shard in weight_files(checkpoint.path):
        # out of the mapped file: a layer that is cast then frees its own memory, where a view would hold the whole file's
        state |= {name: value.clone() for name, value in load_file(str(shard)).items()}
    if checkpoint.layout == "dims":
        return json.loads((checkpoint.path / "dims.json").read_text(encoding="utf-8")), unfolded(state)
    return _dims_of(json.loads((checkpoint.path / "config.json").read_text(encoding="utf-8"))), _renamed(state)


def unfolded(state: dict[str, Any]) -> dict[str, Any]:
    """With one embedding row per token: a folder of ours keeps each distinct row once (most tokens are not in use)."""
    rows = state.pop("decoder.token_embedding.row_of", None)
    if rows is not None:
        distinct = state["decoder.token_embedding.weight"]
        if int(rows.min()) < 0 or int(rows.max()) >= len(distinct):
            raise WeightsError("decoder.token_embedding.row_of names rows that are not there")
        state["decoder.token_embedding.weight"] = distinct[rows.long()]
    return state


def _dims_of(config: dict[str, Any]) -> dict[str, int]:
    names = {
        "n_mels": "num_mel_bins",
        "n_audio_ctx": "max_source_positions",
        "n_audio_state": "d_model",
        "n_audio_head": "encoder_attention_heads",
        "n_audio_layer": "encoder_layers",
        "n_vocab": "vocab_size",
        "n_text_ctx": "max_target_positions",
        "n_text_state": "d_model",
        "n_text_head": "decoder_attention_heads",
        "n_text_layer": "decoder_layers",
    }
    return {ours: int(config[theirs]) for ours, theirs in names.items()}


def _renamed(state: dict[str, Any]) -> dict[str, Any]:
    """From transformers' parameter names to openai-whisper's."""
    found = {}
    for name, value in state.items():
        new = name.removeprefix("model.")
        for old, top in _TOP.items():
            if new.startswith(old):
                new = top + new.removeprefix(old)
        layer = re.fullmatch(r"(encoder|decoder)\.layers\.(\d+)\.(\w+)\.(.+)", new)
        if layer:
            tower, number, part, rest = layer.groups()
            first, _, last = rest.partition(".")
            tail = f"{_PROJECTION[first]}.{last}" if first in _PROJECTION else rest
            new = f"{tower}.blocks.{number}.{_LAYER[part]}.{tail}"
        found[new] = value
    return found


def _resolved(model_id: str, config: Config) -> Checkpoint:
    weights = resolve(model_id, kind="speech", offline=config.offline, cache_dir=config.cache_dir)
    return dataclasses.replace(_folder(weights.path, model_id, config), name=weights.name, revision=weights.revision)


def _folder(path: Path, model: str, config: Config) -> Checkpoint:
    settings = _json(path / "config.json")
    if (path / "dims.json").is_file():
        layout = "dims"
    elif settings.get("model_type") == "whisper":
        layout = "transformers"
    else:
        raise WeightsError(f"{model}: a Whisper folder holds dims.json, or a transformers config.json, beside its *.safetensors")
    files = weight_files(path)
    if not files:
        raise WeightsError(f"{model} holds no *.safetensors; pickled weights are not opened")
    revision = "".join(file_sha256(file) for file in files)[:16]
    if settings:
        revision = resolve(str(path), kind="speech", cache_dir=config.cache_dir).revision
    note = f"{path.name} is a demonstration model: it knows only its own small vocabulary" if settings.get("demo") else ""
    window_s = settings.get("speech_window_s")
    if window_s is not None and not (isinstance(window_s, (int, float)) and window_s >= 1):
        raise WeightsError(f"{path}/config.json: speech_window_s is {window_s!r}; give seconds, 1 or more")
    return Checkpoint(path, layout, path.name, revision, note, window_s)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}


def _published(path: Path) -> Checkpoint:
    digest = file_sha256(path)
    for name, address in published().items():
        if address.split("/")[-2] == digest:
            return Checkpoint(path, "published", name, digest[:16])
    raise WeightsError(
        f"{path.name} is none of the files OpenAI published (its sha256 is {digest}); opening an unknown pickle can run code. "
        "Download it again, or save the model as a folder with dims.json and model.safetensors"
    )


def _pt_places(name: str, config: Config) -> list[Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper" / name
    kaggle = sorted(_KAGGLE_ROOT.glob(f"**/{name}")) if _KAGGLE_ROOT.is_dir() else []
    return [cache, config.cache_dir / "whisper" / name, *kaggle]
