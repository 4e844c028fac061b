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

from ultrafast_rag.types import MODALITIES, Answer, Citation, Hit, Hits

_SCORES = ("score", "dense_score", "lexical_score")
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
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"not a result of ours: {type(error).__name__}") from error


def _of_hits(hits: Hits) -> dict[str, Any]:
    return {"query": hits.query, "seconds": hits.seconds, "notes": list(hits.notes), "list": [_of_hit(hit) for hit in hits]}


def _of_hit(hit: Hit) -> dict[str, Any]:
    row = {one.name: getattr(hit, one.name) for one in dataclasses.fields(hit)}
    for name in _SCORES:
        row[name] = None if math.isnan(row[name]) else row[name]
    row["metadata"] = dict(hit.metadata)
    return row


def _to_hits(body: Mapping[str, Any]) -> Hits:
    return Hits(
        [_to_hit(row) for row in body["list"]],
        query=_text(body["query"]),
        seconds=_number(body["seconds"]),
        notes=tuple(_text(note) for note in body["notes"]),
    )


def _to_hit(row: Mapping[str, Any]) -> Hit:
    if row["modality"] not in MODALITIES:
        raise ValueError("an unknown modality")
    bbox, around, about = row["bbox"], row["neighbours"], row["metadata"]
    if not isinstance(about, dict) or len(around) != 2 or not (bbox is None or len(bbox) == 4):
        raise ValueError("metadata, neighbours or bbox are none")
    return Hit(
        chunk_id=_whole(row["chunk_id"]),
        modality=row["modality"],
        page=None if row["page"] is None else _whole(row["page"]),
        bbox=None if bbox is None else (_number(bbox[0]), _number(bbox[1]), _number(bbox[2]), _number(bbox[3])),
        neighbours=(_text(around[0]), _text(around[1])),
        metadata=about,
        document_id=_text(row["document_id"]),
        source=_text(row["source"]),
        text=_text(row["text"]),
        title=_text(row["title"]),
        section=_text(row["section"]),
        start_s=None if row["start_s"] is None else _number(row["start_s"]),
        end_s=None if row["end_s"] is None else _number(row["end_s"]),
        score=_score(row["score"]),
        dense_score=_score(row["dense_score"]),
        lexical_score=_score(row["lexical_score"]),
    )


def _score(value: Any) -> float:
    return math.nan if value is None else _number(value)


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
