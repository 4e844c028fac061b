"""What the HTTP server takes and gives, and how it is set up. Answers themselves are the package's own types."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ultrafast_rag.errors import (
    ConfigError,
    EncodingError,
    IndexLockedError,
    IndexStateError,
    MissingExtraError,
    StorageError,
    UltraFastRAGError,
    require,
)
from ultrafast_rag.remote.secrets import Secret
from ultrafast_rag.serve.guard import is_loopback
from ultrafast_rag.types import Answer, Hits, IngestReport, Modality

if TYPE_CHECKING:
    import pydantic
    from pydantic import BaseModel, Field
else:
    pydantic = require("pydantic", package="fastapi", extra="server")
    BaseModel, Field = pydantic.BaseModel, pydantic.Field

KEYS = "UFR_API_KEYS"
QUESTION_CHARS = 4_000  # some 1 000 tokens; encoders take 256 to 512
LIST_LIMIT = 1_000  # of sources, files and filter values in one request


@dataclass(frozen=True, slots=True)
class Serving:
    """How to serve. keys: whoever knows one may ask; none means this machine alone. roots: folders `/ingest` may read.

    uploads: where uploaded files are kept, so that evidence can show them; None: beside the index. rate_per_s and burst are
    of each key, or of each address where there are no keys. Raises ConfigError for what cannot be.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: Sequence[Secret] = ()
    roots: Sequence[Path] = ()
    uploads: Path | None = None
    rate_per_s: float = 20.0
    burst: int = 40
    body_mb: float = 64.0
    timeout_s: float = 60.0
    ingest_timeout_s: float = 3600.0

    def __post_init__(self) -> None:
        if not self.keys and not is_loopback(self.host):
            raise ConfigError(f"without a key only this machine is served: put keys into {KEYS}, or bind to 127.0.0.1")
        if not (
            self.rate_per_s > 0 and self.burst >= 1 and self.body_mb > 0 and self.timeout_s > 0 and self.ingest_timeout_s > 0
        ):
            raise ConfigError("rate, body size and times must be greater than 0, and a burst at least 1")
        if not 0 <= self.port < 65536:
            raise ConfigError(f"a port lies between 0 and 65535, not at {self.port}")


def keys_from_environment() -> list[Secret]:
    """The keys in UFR_API_KEYS, set apart by commas or spaces."""
    return [Secret(key, f"environment variable {KEYS}") for key in os.environ.get(KEYS, "").replace(",", " ").split()]


Scalar = str | int | float | bool
Filters = dict[str, Scalar | list[Scalar]]
Alpha = Field(None, ge=0, le=1, description="0: words only, 1: meaning only")


class Search(BaseModel):
    """A question, and how and where to look."""

    question: str = Field(min_length=1, max_length=QUESTION_CHARS, examples=["When is high tide?"])
    k: int = Field(10, ge=1, le=100, description="how many passages")
    alpha: float | None = Alpha
    modality: list[Modality] | None = Field(None, max_length=5, examples=[["text", "table"]])
    filters: Filters | None = Field(None, max_length=20, examples=[{"source": "tides.md"}])

    def options(self) -> dict[str, Any]:
        """As `UltraFastRAG.search` takes them."""
        return {"k": self.k, "alpha": self.alpha, "modality": self.modality or None, "filters": self.filters or None}


class Query(Search):
    """A question to answer. generator: who writes the answer; the server's own choice by default."""

    generator: Literal["extractive", "gemini", "local"] | None = None

    def options(self) -> dict[str, Any]:
        """As `UltraFastRAG.query` takes them."""
        return {**super().options(), **({"generator": self.generator} if self.generator else {})}


class Ingest(BaseModel):
    """Files and folders below the server's roots, absolute or as seen from a root."""

    sources: list[str] = Field(min_length=1, max_length=LIST_LIMIT, examples=[["papers/tides.pdf"]])
    time_budget_s: float | None = Field(None, ge=0, description="stop in good order after so many seconds")


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, best first."""

    query: str
    hits: Hits
    seconds: float
    notes: tuple[str, ...] = ()


class State(BaseModel):
    """Whether the server is there, or can answer."""

    status: str = Field(examples=["ok"])


class Problem(BaseModel):
    """What went wrong and what to do."""

    error: str = Field(examples=["too many requests"])


ANSWER, FOUND, REPORT, PIECE = (pydantic.TypeAdapter(kind) for kind in (Answer, Found, IngestReport, dict[str, str]))
STATUS: tuple[tuple[type[UltraFastRAGError], int], ...] = (
    (ConfigError, 422),
    (MissingExtraError, 501),
    (StorageError, 507),
    (IndexLockedError, 409),
    (IndexStateError, 503),
    (EncodingError, 503),
)
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": words}
    for status, words in {
        401: "no key, or a wrong one",
        403: "not from here",
        413: "too large",
        422: "asked wrongly",
        429: "too many requests; Retry-After says when",
        503: "not now",
        504: "took too long",
    }.items()
}
