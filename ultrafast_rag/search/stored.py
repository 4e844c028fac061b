"""Hits and Answers as JSON, and back: what a cache on disk or in Redis holds.

What comes back may have been written by a stranger: every field is checked for its type, and anything odd is a
ValueError, which the cache counts as a miss.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from ultrafast_rag.types import MODALITIES, Answer, BBox, Citation, Hit, Hits

_NONE, _MODALITIES = type(None), frozenset(MODALITIES)
_SCORES = ("score", "dense_score", "lexical_score")
_WHOLE, _NUMBERS = ("chunk_id", "page"), ("chunk_id", "page", "start_s", "end_s", *_SCORES)
# a hit's field -> the types that JSON may give one
_KINDS: dict[str, frozenset[type]] = {one.name: frozenset({str}) for one in dataclasses.fields(Hit)} | {
    **dict.fromkeys(("start_s", "end_s", *_SCORES), frozenset({int, float, _NONE})),
    **{"chunk_id": frozenset({int}), "page": frozenset({int, _NONE}), "bbox": frozenset({list, _NONE})},
    **{"neighbours": frozenset({list}), "metadata": frozenset({dict})},
}
_USUAL = {one.name: one.default for one in dataclasses.fields(Hit) if one.default is not dataclasses.MISSING}
_ANSWER_TEXTS = ("question", "text", "generator", "reason")


def to_json(value: Hits | Answer) -> str:
    """One line; numbers keep every digit. What is an answer's own time and session (timings, cached) is left out."""
    if isinstance(value, Answer):
        places = {hit.chunk_id: place for place, hit in enumerate(value.hits)}
        body: dict[str, Any] = {
            "is": "answer",
            **{name: getattr(value, name) for name in _ANSWER_TEXTS},
            "hits": _of_hits(value.hits),
            "citations": [[c.number, places[c.hit.chunk_id], c.quote] for c in value.citations],
            "supported": value.supported,
            "support": value.support,
            "cost_usd": value.cost_usd,
            "notes": list(value.notes),
        }
    else:
        body = {"is": "hits", **_of_hits(value)}
    return json.dumps(body, ensure_ascii=False, allow_nan=False)


def from_json(text: str | bytes) -> Hits | Answer:
    """The value that `to_json` wrote. Raises ValueError for anything else."""
    try:
        body = json.loads(text)
        if body["is"] == "hits":
            return _to_hits(body)
        if body["is"] != "answer":
            raise ValueError("neither hits nor an answer")
        hits = _to_hits(body["hits"])
        return Answer(
            question=_text(body["question"]),
            text=_text(body["text"]),
            generator=_text(body["generator"]),
            reason=_text(body["reason"]),
            hits=hits,
            citations=tuple(
                Citation(_whole(number), hits[_whole(place)], _text(quote)) for number, place, quote in body["citations"]
            ),
            supported=_truth(body["supported"]),
            support=None if body["support"] is None else _number(body["support"]),
            cost_usd=_number(body["cost_usd"]),
            notes=tuple(_text(note) for note in body["notes"]),
        )
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"not a result of ours: {type(error).__name__}") from error


def _of_hits(hits: Hits) -> dict[str, Any]:
    """Field by field, which is read back faster than hit by hit; a field that all have as usual is left out."""
    columns = {name: [getattr(hit, name) for hit in hits] for name in _KINDS}
    told = {name: column for name, column in columns.items() if name not in _USUAL or any(v != _USUAL[name] for v in column)}
    for name in _SCORES:
        told[name] = [None if math.isnan(score) else score for score in columns[name]]
    told["metadata"] = [dict(about) for about in columns["metadata"]]
    return {"query": hits.query, "seconds": hits.seconds, "notes": list(hits.notes), "hits": told}


def _to_hits(body: Mapping[str, Any]) -> Hits:
    told = body["hits"]
    if not told.keys() <= _KINDS.keys():
        raise ValueError("a hit has no such field")
    count = len(told["chunk_id"])
    columns = [_values(name, told[name]) if name in told else [_USUAL[name]] * count for name in _KINDS]
    return Hits(
        [Hit(*row) for row in zip(*columns, strict=True)],
        query=_text(body["query"]),
        seconds=_number(body["seconds"]),
        notes=tuple(_text(note) for note in body["notes"]),
    )


def _values(name: str, column: Any) -> list[Any]:
    """A field of all hits, checked, as a hit has it."""
    if type(column) is not list or not _KINDS[name].issuperset(map(type, column)):
        raise ValueError(f"a hit's {name} is none")
    if name in _NUMBERS and not all(map(math.isfinite, filter(None, column))):
        raise ValueError(f"a hit's {name} is no number")
    if name in _WHOLE and min(filter(None, column), default=0) < 0:
        raise ValueError(f"a hit's {name} is below 0")
    if name == "modality" and not _MODALITIES.issuperset(column):
        raise ValueError("an unknown modality")
    if name in _SCORES:
        return [math.nan if score is None else score for score in column]
    if name == "bbox":
        return [None if bbox is None else _box(*bbox) for bbox in column]
    return [(_text(before), _text(after)) for before, after in column] if name == "neighbours" else column


def _box(x0: Any, y0: Any, x1: Any, y1: Any) -> BBox:
    return _number(x0), _number(y0), _number(x1), _number(y1)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is none")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a number is none")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("a count is none")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("a yes or no is neither")
    return value
