"""Damaged files of every format that is read: what becomes of the process that asked for them.

Seeds are the samples and small files made here, one a format. Each trial damages one (bytes, or a member inside of a zip,
or the name), reads it through the sandbox, and looks at this process: only errors of ours may reach it, no part may
take longer than its limit, and its memory may not grow with what the files claim.
"""

from __future__ import annotations

import io
import json
import random
import struct
import tempfile
import time
import wave
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ExtractionError, require
from ultrafast_rag.extract.sandbox.pool import STARTUP_S, Sandbox
from ultrafast_rag.monitor import rss_mb

TIMEOUT_S = 8.0  # a part
WORKER_MB = 1536  # address space; chosen: what makes a reader grow is stopped soon
_SPREAD = (1, 4, 64, 4096)  # bytes: a field, a number, a record, a block
_WORDS = b"The keeper lights the lamp at dusk. " * 40


def files(count: int, seed: int, *, samples: Path, wrong: list[str] | None = None) -> dict[str, Any]:
    """Read `count` damaged files; wrong: what failed is described there.

    Returns trials, read, refused, raw and over (a part that took longer than its limit), MB by which this process grew,
    and how often each format came.
    """
    chance, outcomes, formats = random.Random(seed), Counter[str](), Counter[str]()
    config = Config(page_timeout_s=TIMEOUT_S, worker_memory_mb=WORKER_MB, max_workers=1, ocr=False, max_image_pixels=4_000_000)
    whole = seeds(samples)
    start_mb = peak_mb = rss_mb()
    with tempfile.TemporaryDirectory(prefix="ufr-fuzz-") as scratch, Sandbox(config) as sandbox:
        for number in range(count):
            name = sorted(whole)[number % len(whole)]
            path = Path(scratch, _renamed(name, sorted(whole), chance))
            path.write_bytes(damaged(name, whole[name], chance))
            outcome = _read(sandbox, path)
            path.unlink()
            outcomes[outcome.split(":")[0]] += 1
            formats[Path(name).suffix] += 1
            peak_mb = max(peak_mb, rss_mb())
            if wrong is not None and outcome.split(":")[0] in ("raw", "over"):
                wrong.append(f"{number} {name}: {outcome}")
    counts = {kind: outcomes[kind] for kind in ("read", "refused", "raw", "over")}
    return {"trials": count, **counts, "parent_grew_mb": round(peak_mb - start_mb, 1), "formats": dict(formats)}


def _read(sandbox: Sandbox, path: Path) -> str:
    last, slowest = time.monotonic(), 0.0
    outcome = "read"
    try:
        for _ in sandbox.extract(path):
            now = time.monotonic()
            last, slowest = now, max(slowest, now - last)
    except ExtractionError:
        outcome = "refused"
    except Exception as error:  # what this trial is there to find
        return f"raw: {type(error).__name__}: {error}"
    slowest = max(slowest, time.monotonic() - last)
    return f"over: {slowest:.0f} s" if slowest > 3 * (TIMEOUT_S + STARTUP_S) else outcome


# ---- what is damaged, and how


def damaged(name: str, content: bytes, chance: random.Random) -> bytes:
    """A file's bytes changed somewhere; in a zip, often inside of a member, which is packed again."""
    if zipfile.is_zipfile(io.BytesIO(content)) and chance.random() < 0.7:
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            held = {entry.filename: members.read(entry) for entry in members.infolist()}
        chosen = chance.choice(sorted(held))
        held[chosen] = _changed(held[chosen], chance)
        return zipped(held)
    return _changed(content, chance)


def _changed(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        at = chance.randrange(len(changed))
        length = chance.choice(_SPREAD)
        kind = chance.choice(("bit", "byte", "number", "random", "cut", "double", "swap", "long"))
        if kind == "bit":
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == "byte":
            changed[at] = chance.choice((0, 0xFF, 0x7F, chance.randrange(256)))
        elif kind == "number":  # lengths and counts at their limits
            value = chance.choice((0, 1, 2**15, 2**31 - 1, 2**32 - 1))
            changed[at : at + 4] = struct.pack(chance.choice(("<I", ">I")), value)
        elif kind == "random":
            changed[at : at + length] = chance.randbytes(length)
        elif kind == "cut":
            del changed[at : at + chance.choice((length, len(changed)))]
        elif kind == "double":
            changed[at:at] = changed[at : at + length]
        elif kind == "swap":
            other = chance.randrange(len(changed))
            changed[at], changed[other] = changed[other], changed[at]
        else:
            changed[at:at] = bytes([changed[at]]) * chance.choice((1000, 100_000))
        changed = changed or bytearray(b"\0")
    return bytes(changed)


def _renamed(name: str, names: list[str], chance: random.Random) -> str:
    """Its own name, or now and then one with another format's suffix."""
    return Path(name).stem + Path(chance.choice(names) if chance.random() < 0.1 else name).suffix


def seeds(samples: Path) -> dict[str, bytes]:
    """Name -> content of one whole file a format."""
    found = {path.name: path.read_bytes() for path in sorted(samples.iterdir()) if path.is_file()} if samples.is_dir() else {}
    return found | _texts() | _zips() | _pictures() | {"sound.wav": _sound()}


def _texts() -> dict[str, bytes]:
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {},
        "cells": [{"cell_type": "markdown", "metadata": {}, "source": ["a"]}],
    }
    return {
        "plain.txt": _WORDS,
        "table.csv": b"year,wicks,oil\n" + b"2019,12,3.5\n2020,14,4.1\n" * 30,
        "table.tsv": b"year\twicks\n2019\t12\n" * 20,
        "letter.rtf": b"{\\rtf1\\ansi\\deff0{\\fonttbl{\\f0 Arial;}}\\f0 Dear keeper,\\par " + _WORDS + b"\\par}",
        "letter.eml": b"From: a@b.c\nTo: d@e.f\nSubject: lamp\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n"
        b"--x\nContent-Type: text/plain\n\n" + _WORDS + b"\n--x\nContent-Type: text/html\n\n<p>oil</p>\n--x--\n",
        "notes.ipynb": json.dumps(notebook).encode(),
        "talk.srt": b"1\n00:00:01,000 --> 00:00:04,000\nThe lamp is lit.\n\n2\n00:00:05,000 --> 00:00:09,000\nAt dusk.\n",
        "talk.vtt": b"WEBVTT\n\n00:01.000 --> 00:04.000\nThe lamp is lit.\n",
        "old.doc": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2048),
        "old.xls": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(4096),
    }


_XML = '<?xml version="1.0" encoding="UTF-8"?>'
_ODF = "urn:oasis:names:tc:opendocument:xmlns:"
_OX = "http://schemas.openxmlformats.org/"
_DOC = "application/vnd.openxmlformats-officedocument."


def _zips() -> dict[str, bytes]:
    """The least that each office format needs."""
    words = _WORDS.decode()
    body = f'<text:h text:outline-level="1">Lamp</text:h><text:p>{words}</text:p>'
    cells = '<table:table table:name="a"><table:table-row><table:table-cell office:value-type="string"><text:p>oil</text:p>'
    cells += "</table:table-cell></table:table-row></table:table>"
    chapter = f'{_XML}<html xmlns="http://www.w3.org/1999/xhtml"><body><h1>Lamp</h1><p>{words}</p></body></html>'
    container = (
        f'{_XML}<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
        '<rootfile full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    book = (
        f'{_XML}<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata/><manifest>'
        '<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest><spine><itemref idref="a"/></spine></package>'
    )
    sheet = "".join(f'<row r="{n}"><c r="A{n}"><v>{n}</v></c><c r="B{n}"><v>{n * n}</v></c></row>' for n in range(1, 40))
    return {
        "text.odt": _odf("text", f"<office:text>{body}</office:text>"),
        "sheet.ods": _odf("spreadsheet", f"<office:spreadsheet>{cells}</office:spreadsheet>"),
        "book.epub": zipped(
            {"mimetype": b"application/epub+zip", "META-INF/container.xml": container, "book.opf": book, "a.xhtml": chapter}
        ),
        "text.docx": _openxml(
            "word/document.xml",
            "wordprocessingml.document",
            f'<w:document xmlns:w="{_OX}wordprocessingml/2006/main"><w:body><w:p><w:r><w:t>{words}</w:t></w:r>'
            "</w:p></w:body></w:document>",
        ),
        "sheet.xlsx": _openxml(
            "xl/workbook.xml",
            "spreadsheetml.sheet",
            f'<workbook xmlns="{_OX}spreadsheetml/2006/main" xmlns:r="{_OX}officeDocument/2006/relationships"><sheets>'
            '<sheet name="a" sheetId="1" r:id="rId1"/></sheets></workbook>',
            {
                "xl/_rels/workbook.xml.rels": _relations("worksheet", "worksheets/sheet1.xml"),
                "xl/worksheets/sheet1.xml": f'{_XML}<worksheet xmlns="{_OX}spreadsheetml/2006/main"><sheetData>'
                f"{sheet}</sheetData></worksheet>",
            },
        ),
        "slides.pptx": _slides(),
    }


def _slides() -> bytes:
    buffer = io.BytesIO()
    slides = require("pptx", package="python-pptx", extra="office").Presentation()
    slide = slides.slides.add_slide(slides.slide_layouts[1])
    slide.shapes.title.text, slide.placeholders[1].text = "Lamp", _WORDS.decode()
    slides.save(buffer)
    return buffer.getvalue()


def _odf(kind: str, body: str) -> bytes:
    names = " ".join(f'xmlns:{name}="{_ODF}{name}:1.0"' for name in ("office", "text", "table"))
    content = f"{_XML}<office:document-content {names}><office:body>{body}</office:body></office:document-content>"
    kind = f"application/vnd.oasis.opendocument.{kind}"
    entry = f'<manifest:file-entry manifest:full-path="/" manifest:media-type="{kind}"/>'
    manifest = f'{_XML}<manifest:manifest xmlns:manifest="{_ODF}manifest:1.0">{entry}</manifest:manifest>'
    return zipped({"mimetype": kind, "META-INF/manifest.xml": manifest, "content.xml": content})


def _openxml(part: str, kind: str, content: str, more: Mapping[str, str] | None = None) -> bytes:
    sheet = f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_DOC}spreadsheetml.worksheet+xml"/>'
    types = (
        f'{_XML}<Types xmlns="{_OX}package/2006/content-types"><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/>'
        f'<Override PartName="/{part}" ContentType="{_DOC}{kind}.main+xml"/>'
        f"{sheet if more else ''}</Types>"
    )
    members = {"[Content_Types].xml": types, "_rels/.rels": _relations("officeDocument", part), part: _XML + content}
    return zipped(members | dict(more or {}))


def _relations(kind: str, target: str) -> str:
    return (
        f'{_XML}<Relationships xmlns="{_OX}package/2006/relationships"><Relationship Id="rId1" '
        f'Type="{_OX}officeDocument/2006/relationships/{kind}" Target="{target}"/></Relationships>'
    )


def zipped(members: Mapping[str, str | bytes]) -> bytes:
    """A zip of these files; "mimetype" is kept first and as it is."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(name, content, zipfile.ZIP_STORED if name == "mimetype" else None)
    return buffer.getvalue()


def _pictures() -> dict[str, bytes]:
    from PIL import Image

    found = {}
    for kind in ("gif", "webp", "bmp", "tiff"):
        buffer = io.BytesIO()
        Image.radial_gradient("L").resize((64, 48)).convert("RGB").save(buffer, kind)
        found[f"picture.{kind}"] = buffer.getvalue()
    return found


def _sound() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(random.Random(0).randbytes(32_000))
    return buffer.getvalue()
