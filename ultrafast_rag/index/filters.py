"""Search filters -> SQL over the store's tables. Values are always bound, never pasted into the text."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ultrafast_rag.errors import ConfigError
from ultrafast_rag.types import MODALITIES

FIELDS = ("source", "document_id", "title", "modality", "page")  # any other key is metadata
Clause = tuple[str, list[Any]]


def matches_source(source: str, wanted: str) -> bool:
    """Whether `wanted` is the source, its last path components, or a glob that fits it."""
    path, wanted = source.replace("\\", "/"), wanted.replace("\\", "/")
    if path == wanted or path.endswith("/" + wanted.lstrip("/")):
        return True
    return any(c in wanted for c in "*?[") and (fnmatch.fnmatchcase(path, wanted) or fnmatch.fnmatchcase(path, "*/" + wanted))


class Condition(NamedTuple):
    """One filter: what a chunk `c`, or its document `d`, must meet; sources: or what its document must be called."""

    chunks: Clause | None = None
    documents: Clause | None = None
    sources: tuple[str, ...] = ()


def conditions(filters: Mapping[str, Any]) -> list[Condition]:
    """One a filter, all of which must hold; ConfigError for a value that cannot be compared."""
    return [_condition(key, wanted) for key, wanted in filters.items()]


def _condition(key: str, wanted: Any) -> Condition:
    if key == "page":
        return Condition(chunks=_page(wanted))
    options = _options(key, wanted)
    if key == "source":
        if not all(isinstance(option, str) for option in options):
            raise ConfigError(f"filter 'source' takes a file name, a path or a glob, not {wanted!r}")
        return Condition(sources=tuple(options))
    if key == "modality" and (unknown := [option for option in options if option not in MODALITIES]):
        raise ConfigError(f"unknown modality {unknown[0]!r}; known: {', '.join(MODALITIES)}")
    marks = ",".join("?" * len(options))
    if key == "modality":
        return Condition(chunks=(f"c.modality IN ({marks})", options))
    if column := {"document_id": "d.id", "title": "d.title"}.get(key):
        return Condition(documents=(f"{column} IN ({marks})", options))
    if '"' in key or "\\" in key:
        raise ConfigError(f"a metadata key cannot hold quotes or backslashes: {key!r}")
    # indexes of format 1 may hold metadata with NaN, which is no JSON: it must not end every filter
    held = "CASE WHEN json_valid({0}.metadata) THEN {0}.metadata END"
    inside = f"EXISTS (SELECT 1 FROM json_each({held}, ?) WHERE value IN ({marks}))"
    values = [f'$."{key}"', *options]
    return Condition((inside.format("c"), values), (inside.format("d"), values))


def _options(key: str, wanted: Any) -> list[Any]:
    options = list(wanted) if isinstance(wanted, Sequence | set | frozenset) and not isinstance(wanted, str | bytes) else [wanted]
    for option in options:
        if not isinstance(option, str | int | float | bool):
            raise ConfigError(f"filter {key!r} takes text, numbers, booleans, or a list of these, not {type(option).__name__}")
        if isinstance(option, int) and not -(2**63) <= option < 2**63:
            raise ConfigError(f"filter {key!r}: {option} has more than 64 bits, and no stored number has")
        if isinstance(option, float) and not math.isfinite(option):
            raise ConfigError(f"filter {key!r}: {option} is no number to compare with")
    return options


def _page(wanted: Any) -> Clause:
    if isinstance(wanted, int) and not isinstance(wanted, bool) and abs(wanted) < 2**63:
        return "c.page = ?", [wanted]
    if isinstance(wanted, Sequence) and len(wanted) == 2 and all(isinstance(n, int) and not isinstance(n, bool) for n in wanted):
        return "c.page BETWEEN ? AND ?", list(wanted)
    raise ConfigError(f"filter 'page' takes a page number or [first, last], not {wanted!r}")
