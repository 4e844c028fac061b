"""Every default, once. A frozen `Config` is saved beside the index it made.

Fields that change what a vector or a chunk is are `IDENTITY` fields: an index refuses to be
written with others. All the rest may differ from one session to the next.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ultrafast_rag.errors import ConfigError

IDENTITY = ("text_model", "image_model", "chunker", "chunk_tokens", "chunk_overlap", "index_pages")


def default_cache_dir() -> Path:
    """`UFR_CACHE_DIR`, else a folder of ours under the user's cache directory."""
    if chosen := os.environ.get("UFR_CACHE_DIR"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ultrafast_rag"


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one UltraFastRAG. Raises ConfigError when a value is impossible."""

    # models: hub ids or paths; None switches the modality's model off
    text_model: str = "sentence-transformers/all-MiniLM-L6-v2"
    image_model: str | None = "openai/clip-vit-base-patch32"
    speech_model: str | None = "base"
    rerank_model: str | None = None
    local_model: str | None = None
    offline: bool = False  # True: never ask the hub

    # how models are loaded
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1"
    engine: Literal["auto", "torch-f32", "torch-bf16", "torch-f16", "openvino-f32", "openvino-bf16", "openvino-int8"] = "auto"
    quantization: Literal["auto", "none", "8bit", "4bit"] = "auto"
    compile: bool = False
    max_vram_gb: float | None = None  # None: what is free
    batch_size: int | None = None  # texts a batch at most; None: batch_tokens alone decides
    batch_tokens: int | None = None  # None: 1 024 on a CPU (cache-sized), grown to free memory on a GPU

    # extraction
    max_workers: int = 2  # reader processes
    page_timeout_s: float = 25.0
    worker_memory_mb: int = 3072
    max_image_pixels: int = 50_000_000
    image_px: int = 512  # longest side of a stored picture
    index_pages: bool = False  # also embed each page as a picture
    ocr: bool = True  # where tesseract is installed
    ocr_language: str = "eng"
    speech_language: str | None = None  # None: detect
    frame_interval_s: float = 5.0

    # chunks
    chunker: Literal["sentence", "fixed", "semantic", "hierarchical"] = "sentence"
    chunk_tokens: int = 200
    chunk_overlap: int = 1  # sentences
    speech_chunk_s: float = 15.0  # longest passage of a recording: what a card plays, and what one listens to

    # embeddings and index
    cache_embeddings: bool = True
    cache_dir: Path = dataclasses.field(default_factory=default_cache_dir)
    cache_size_gb: float = 4.0
    index: Literal["auto", "exact", "ivfpq", "rabitq", "sq8"] = "auto"
    pipelined: bool = True  # read, encode and commit at once
    streaming: bool = True  # False: a whole document in memory before the first chunk; the ablation's baseline

    # search
    alpha: float = 0.65  # 0: words only, 1: meaning only
    fusion: Literal["convex", "rrf"] = "convex"
    rrf_k: int = 60
    k: int = 10
    collapse_duplicates: bool = True
    query_cache: bool = True

    # answers
    generator: str = "auto"  # "auto", "extractive", "gemini", "local"
    gemini_model: str = "gemini-3.5-flash-lite"
    gemini_base_url: str | None = None  # None: Google's; else a proxy's
    gemini_thinking: str | None = None  # "minimal", "low", "medium", "high"; None: the model's own default
    gemini_rpm: int | None = 10  # requests a minute; the free tier's numbers are shown at aistudio.google.com
    gemini_tpm: int | None = 250_000
    gemini_rpd: int | None = None  # None: until the provider says the day is spent
    context_tokens: int = 3000
    answer_tokens: int = 2048  # thinking included
    answer_timeout_s: float = 60.0
    answer_patience_s: float = 15.0  # a longer wait that the provider asks for is answered extractively instead
    enrich_concurrency: int = 8

    quiet: bool = False  # True: no progress bars

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise ConfigError(problem)

    def _problems(self) -> list[str]:
        positive = (
            "max_workers", "page_timeout_s", "worker_memory_mb", "chunk_tokens", "speech_chunk_s", "k", "image_px", "rrf_k",
        )  # fmt: skip
        problems = [f"{name} must be greater than 0, not {getattr(self, name)}" for name in positive if getattr(self, name) <= 0]
        if not 0 <= self.alpha <= 1:
            problems.append(f"alpha must lie between 0 (words only) and 1 (meaning only), not {self.alpha}")
        if self.chunk_overlap < 0:
            problems.append(f"chunk_overlap counts sentences and cannot be {self.chunk_overlap}")
        if self.batch_size is not None and self.batch_size < 1:
            problems.append(f"batch_size must be at least 1, not {self.batch_size}")
        return problems

    @classmethod
    def basic(cls, **changes: Any) -> Config:
        """One text at a time, fp32, nothing cached or overlapped: the baseline of the ablation."""
        settings = {
            "engine": "torch-f32",
            "quantization": "none",
            "batch_size": 1,
            "cache_embeddings": False,
            "chunker": "fixed",
            "chunk_overlap": 0,
            "pipelined": False,
            "streaming": False,
            "index": "exact",
            "query_cache": False,
            "max_workers": 1,
        }
        return cls(**{**settings, **changes})

    @classmethod
    def colab(cls, **changes: Any) -> Config:
        """A Colab T4: 2 host cores, 12 GB of RAM, 15 GB of VRAM."""
        return cls(**{"max_workers": 2, "max_vram_gb": 14.0, **changes})

    @classmethod
    def kaggle(cls, **changes: Any) -> Config:
        """Kaggle's two T4s and 4 host cores."""
        return cls(**{"max_workers": 3, "max_vram_gb": 14.0, **changes})

    @classmethod
    def production(cls, **changes: Any) -> Config:
        """A server: quiet, never asks the hub."""
        return cls(**{"quiet": True, "offline": True, **changes})

    @classmethod
    def research(cls, **changes: Any) -> Config:
        """fp32 vectors and an exact index: slower, nothing approximated."""
        return cls(**{"engine": "torch-f32", "quantization": "none", "index": "exact", **changes})

    @classmethod
    def extreme(cls, **changes: Any) -> Config:
        """Fastest settings that still pass the quality gate: no overlap, larger batches of readers."""
        return cls(**{"chunk_overlap": 0, "max_workers": max(2, os.cpu_count() or 2), **changes})

    def replace(self, **changes: Any) -> Config:
        """A copy with some fields changed; an unknown field is a ConfigError that names it."""
        known = {f.name for f in dataclasses.fields(self)}
        if unknown := sorted(set(changes) - known):
            raise ConfigError(f"unknown setting {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        return dataclasses.replace(self, **changes)

    def identity(self) -> dict[str, Any]:
        """The fields an existing index holds its writers to."""
        return {name: getattr(self, name) for name in IDENTITY}

    def reopened(self, base: Config | None, settings: Mapping[str, Any]) -> Config:
        """This config, which an index was made with, under the wishes of a later session.

        Raises ConfigError when a wish would change what a vector or a chunk is.
        """
        wanted = (base or self).replace(**settings)
        asked = sorted(name for name in IDENTITY if base is not None or name in settings)
        for name in asked:
            if wanted.identity()[name] != self.identity()[name]:
                raise ConfigError(
                    f"the index was made with {name}={self.identity()[name]!r}, not {wanted.identity()[name]!r}. "
                    "Open it without that setting, or use another folder"
                )
        return wanted.replace(**self.identity())

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the file beside the index. Holds no secret: keys are never in a Config."""
        return {f.name: str(v) if isinstance(v := getattr(self, f.name), Path) else v for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Config:
        """From `to_json`; fields of a later version are ignored."""
        known = {f.name for f in dataclasses.fields(cls)}
        kept = {name: value for name, value in values.items() if name in known}
        return cls(**{**kept, "cache_dir": Path(kept["cache_dir"])} if "cache_dir" in kept else kept)
