"""Search filters -> SQL over the store's tables. Values are always bound, never pasted into the text."""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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


def where(filters: Mapping[str, Any], sources: Iterable[tuple[int, str]]) -> Clause:
    """The WHERE text over chunks `c` joined with documents `d`, and its values.

    sources: (document key, source) of each visible document.  ConfigError for a value that cannot be compared.
    """
    parts, values = ["1"], []
    for key, wanted in filters.items():
        text, bound = _clause(key, wanted, sources)
        parts.append(f"({text})")
        values += bound
    return " AND ".join(parts), values


def _clause(key: str, wanted: Any, sources: Iterable[tuple[int, str]]) -> Clause:
    if key == "page":
        return _page(wanted)
    options = _options(key, wanted)
    if key == "source":
        if not all(isinstance(option, str) for option in options):
            raise ConfigError(f"filter 'source' takes a file name, a path or a glob, not {wanted!r}")
        keys = [number for number, source in sources if any(matches_source(source, option) for option in options)]
        return "d.key IN (SELECT value FROM json_each(?))", [json.dumps(keys)]
    if key == "modality" and (unknown := [option for option in options if option not in MODALITIES]):
        raise ConfigError(f"unknown modality {unknown[0]!r}; known: {', '.join(MODALITIES)}")
    marks = ",".join("?" * len(options))
    column = {"modality": "c.modality", "document_id": "d.id", "title": "d.title"}.get(key)
    if column:
        return f"{column} IN ({marks})", options
    if '"' in key or "\\" in key:
        raise ConfigError(f"a metadata key cannot hold quotes or backslashes: {key!r}")
    path = f'$."{key}"'
    # indexes of format 1 may hold metadata with NaN, which is no JSON: it must not end every filter
    held = "CASE WHEN json_valid({0}.metadata) THEN {0}.metadata END"
    inside = f"EXISTS (SELECT 1 FROM json_each({held}, ?) WHERE value IN ({marks}))"
    return f"{inside.format('c')} OR {inside.format('d')}", [path, *options, path, *options]


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
