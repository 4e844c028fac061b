"""Settings shared by the benchmarks: models, a fresh embedding cache, and --set NAME=VALUE."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrafast_rag.config import Config, default_cache_dir
from ultrafast_rag.errors import ConfigError

if TYPE_CHECKING:
    from ultrafast_rag.rag import UltraFastRAG

# texts only: a picture or speech model would be measured by what it happens to find on the machine
TEXT_ONLY: dict[str, Any] = {"image_model": None, "speech_model": None, "quiet": True, "query_cache": False}
SAMPLES = Path("data/samples")
QUESTIONS = Path("data/questions.json")  # labelled, about the samples
HANDBOOK = SAMPLES / "larkholm_handbook.pdf"


def add_settings(parser: argparse.ArgumentParser) -> None:
    """--set NAME=VALUE for any field of Config."""
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting of Config; may be repeated")


def settings_of(pairs: Sequence[str]) -> dict[str, Any]:
    """Values in JSON where they parse as such, else as text. ConfigError for a pair without '='."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set wants NAME=VALUE, not {pair!r}")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = {"None": None, "True": True, "False": False}.get(value, value)
    return settings


def config_of(settings: dict[str, Any]) -> Config:
    """Text-only settings changed by `settings`."""
    return Config().replace(**{**TEXT_ONLY, **settings})


def fresh_cache(folder: Path) -> Path:
    """A cache folder with everything of the user's but the embeddings: converted models are kept, vectors are not."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in default_cache_dir().glob("*"):
        if path.name != "embeddings":
            (folder / path.name).symlink_to(path.resolve(), target_is_directory=path.is_dir())
    return folder


def prepare_models() -> None:
    """Open the text encoder once, in a process of its own, so that no measurement includes a conversion."""
    from ultrafast_rag.bench.child import call

    call("ultrafast_rag.bench.settings:open_encoder", {"settings": {}})


def open_encoder(settings: dict[str, Any]) -> str:
    """Open the text encoder as an index would; returns its fingerprint."""
    from ultrafast_rag.models.text.encoder import open_text_encoder

    encoder = open_text_encoder(config_of(settings))
    encoder.encode(["warm"])
    fingerprint: str = encoder.fingerprint
    encoder.close()
    return fingerprint


def engine_of(rag: UltraFastRAG) -> str:
    """The name of the engine that encodes texts: the last part of its fingerprint, without what follows a plus."""
    return str(rag.stats()["models"]["text"]).rpartition("|")[2].partition("+")[0]
