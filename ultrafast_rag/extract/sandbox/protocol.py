"""Frames between the reader processes and their parent: JSON for words, raw bytes for pictures and sound.

A frame is two little-endian uint32 (length of the JSON, number of byte strings), the JSON, then each byte string
behind its own uint32 length. No pickle: a hijacked reader can send wrong words, but nothing that runs.
The parent checks every field and length, because what a parser of hostile files sends is not trusted.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, get_args

from ultrafast_rag.types import BBox, Element, ElementKind, Part

MAX_JSON = 32 << 20  # a part of text is some 300 kB, of a sheet with full cells some MB, of HTML at most html.MAX_CHARS
MAX_BYTES = 512 << 20  # a page of many pictures is some MB, 26 s of sound 0.8 MB
MAX_BLOBS = 10_000  # pictures and sounds of one part
MOST_PATIENCE = 10.0  # times a limit at most: what hangs is ended on the busiest machine too
_HEADER = struct.Struct("<II")
_LENGTH = struct.Struct("<I")
_KINDS = frozenset(get_args(ElementKind))


class WireError(ValueError):
    """The other end broke the protocol."""


def patience(seconds: float) -> float:
    """A time limit as the clock on the wall shows it: longer by the machine's load per core, so that waiting is no failure."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 1.0
    return seconds * min(max(load, 1.0), MOST_PATIENCE)


def send(stream: BinaryIO, message: Mapping[str, Any], data: Sequence[bytes] = ()) -> None:
    """Write one frame and flush it."""
    body = json.dumps(message, separators=(",", ":"), default=str).encode("utf-8")
    stream.write(
        b"".join([_HEADER.pack(len(body), len(data)), body, *(piece for one in data for piece in (_LENGTH.pack(len(one)), one))])
    )
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], list[bytes]] | None:
    """Read one frame; None when the stream ends. Raises WireError for anything out of form."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    size, count = _HEADER.unpack(header)
    if size > MAX_JSON or count > MAX_BLOBS:
        raise WireError(f"a frame of {size} bytes and {count} attachments")
    body = stream.read(size)
    data: list[bytes] = []
    left = MAX_BYTES
    for _ in range(count):
        length = stream.read(_LENGTH.size)
        if len(length) < _LENGTH.size:
            return None
        left -= _LENGTH.unpack(length)[0]
        if left < 0:
            raise WireError("attachments over the size limit")
        data.append(stream.read(_LENGTH.unpack(length)[0]))
        if len(data[-1]) < _LENGTH.unpack(length)[0]:
            return None
    if len(body) < size:
        return None
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WireError("a frame that is not JSON") from error
    if not isinstance(message, dict):
        raise WireError("a frame that is not an object")
    return message, data


def pack_part(part: Part) -> tuple[dict[str, Any], list[bytes]]:
    """A part as JSON and byte strings; characters that UTF-8 cannot hold become '?'."""
    data: list[bytes] = []
    elements = []
    for element in part.elements:
        fields: dict[str, Any] = {"kind": element.kind, "text": _storable(element.text)}
        for name in ("page", "start_s", "end_s"):
            if (value := getattr(element, name)) is not None:
                fields[name] = value
        if element.bbox is not None:
            fields["bbox"] = [round(float(side), 2) for side in element.bbox]
        if element.level:
            fields["level"] = element.level
        if element.metadata:
            fields["metadata"] = dict(element.metadata)
        if element.data is not None:
            fields["data"] = len(data)
            data.append(element.data)
        elements.append(fields)
    message: dict[str, Any] = {
        "number": part.number,
        "head": _storable(part.head),
        "apart": part.apart,
        "elements": elements,
        "title": _storable(part.title),
        "notes": [_storable(n) for n in part.notes],
    }
    if part.total is not None:
        message["total"] = part.total
    if part.failure is not None:
        message["failure"] = _storable(part.failure)
    return message, data


def unpack_part(message: Mapping[str, Any], data: Sequence[bytes]) -> Part:
    """The part of `pack_part`, every field checked. Raises WireError."""
    elements = message.get("elements", [])
    notes = message.get("notes", [])
    if not isinstance(elements, list) or not isinstance(notes, list):
        raise WireError("a part without its lists")
    number = _number(message.get("number"), int)
    if number is None:
        raise WireError("a part without a number")
    return Part(
        number,
        tuple(_element(fields, data) for fields in elements),
        title=_text(message.get("title", "")),
        total=_number(message.get("total"), int),
        failure=None if message.get("failure") is None else _text(message["failure"]),
        notes=tuple(_text(note) for note in notes),
        head=_text(message.get("head", "")),
        apart=message.get("apart") is True,
    )


def _element(fields: Any, data: Sequence[bytes]) -> Element:
    if not isinstance(fields, dict) or fields.get("kind") not in _KINDS:
        raise WireError("an element of unknown kind")
    metadata = fields.get("metadata", {})
    index = _number(fields.get("data"), int)
    if not isinstance(metadata, dict) or (index is not None and not 0 <= index < len(data)):
        raise WireError("an element out of form")
    return Element(
        fields["kind"],
        _text(fields.get("text", "")),
        page=_number(fields.get("page"), int),
        bbox=_bbox(fields.get("bbox")),
        start_s=_number(fields.get("start_s"), float),
        end_s=_number(fields.get("end_s"), float),
        level=_number(fields.get("level", 0), int) or 0,
        data=None if index is None else data[index],
        metadata=metadata,
    )


def _bbox(value: Any) -> BBox | None:
    if value is None:
        return None
    sides = [_number(side, float) for side in value] if isinstance(value, list) else []
    if len(sides) != 4 or None in sides:
        raise WireError("a box without four sides")
    x0, y0, x1, y1 = (float(side) for side in sides if side is not None)
    return x0, y0, x1, y1


def _number(value: Any, kind: type) -> Any:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise WireError(f"{value!r} where a number belongs")
    if kind is int and (value != int(value) or value < 0):
        raise WireError(f"{value!r} where a count belongs")
    return kind(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise WireError("something else where text belongs")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise WireError("text that UTF-8 cannot hold") from error
    return value


def _storable(text: str) -> str:
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
