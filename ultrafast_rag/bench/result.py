"""What a benchmark gives back, and the file it leaves: numbers with machine, versions, date and command."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ultrafast_rag.bench.machine import machine, versions
from ultrafast_rag.files import write_whole
from ultrafast_rag.types import Table

FOLDER = Path("data/benchmarks")
_CELL = 90  # characters that a table's cell shows at most: an error's first words
# benchmark -> tables of its file that the folder's README repeats
_SHOWN = {
    name: ("rows", "widths") if name == "moved" else ("rows",)
    for name in ("filings", "moved", "pages_parts", "parity", "reports", "scripts")
}
# what scripts outside of this folder measure, by the name in their record
_SCRIPTS = {
    "demo_clip": "the demonstration CLIP: recall@1 of texts and of pictures, those it was never shown among them",
    "demo_whisper": "the demonstration Whisper: word error rate on unseen sentences and voices, words invented without speech",
    "filings": "long annual reports, drawn by the script: the page, the number in the answer, what they do not say refused",
    "media_cpu": "CLIP and Whisper, true architectures with random weights: pictures/s, texts/s, seconds of sound a second",
    "pages_parts": "what each part of the way to a page and a table's cell is worth: question sets with one left out at a time",
    "peers": "LangChain, LlamaIndex and txtai against us: same model files, same PDFs, one after another",
    "reader": "the reader on held-out articles of SQuAD 2.0: F1, exact match, AUC, bytes",
    "reader_support": "the support of answers: what the reader adds to search and words, and its calibration",
    "scripts": "Thai, Arabic, Russian, Japanese: what is found, answered and refused",
    "reports": "annual reports that look alike, drawn by the script: the right file and page without names, without page heads",
    "speech": "recordings as ingested: words wrong, words invented where nobody speaks, how far off times are",
    "voices": "where somebody speaks: our detection against WebRTC's, by share of voiced frames",
}


@dataclass(frozen=True, slots=True)
class Result:
    """A table to read and the data behind it, JSON values only."""

    table: Table
    data: Mapping[str, Any] = field(default_factory=dict)


def write_result(
    name: str, data: Mapping[str, Any], out_dir: Path = FOLDER, *, command: str = "", path: Path | None = None
) -> Path:
    """Write `out_dir/name.json` (or `path`) with machine, versions, date and command; returns the path."""
    target = path or out_dir / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "benchmark": name,
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        **data,
    }
    write_whole(target.parent, target.name, [json.dumps(plain(content), indent=1, ensure_ascii=False).encode() + b"\n"])
    return target


def records_markdown(measures: Mapping[str, str], folder: Path = FOLDER) -> str:
    """The folder's README: each JSON file with what it measures, where, when and by which command.

    measures: benchmark -> what it measures; what a script of this repository measures is known here.
    """
    lines = [
        "# Benchmarks: every number and where it is from",
        "",
        "Made by `python -m ultrafast_rag bench list --markdown`.",
        "",
    ]
    lines += ["| file | measures | machine | date | command |", "|---|---|---|---|---|"]
    shown: list[str] = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        for name in _SHOWN.get(str(record.get("benchmark")), ()):
            shown += ["", f"## {path.name}: {name}", "", *_markdown(record.get(name, ()))]
            shown += ["", *(f"- {note}" for note in record.get("notes", ()))] if name == "rows" else []
        made, name = record.get("machine", ""), str(record.get("benchmark") or path.stem)
        gpus = ", ".join(str(gpu) for gpu in made.get("gpus", ())) if isinstance(made, Mapping) else ""
        place = (
            f"{made.get('cpu')}, {made.get('cores')} cores{f', {gpus}' if gpus else ''}"
            if isinstance(made, Mapping)
            else str(made)
        )
        cells = (
            f"`{path.name}`",
            measures.get(name) or _SCRIPTS.get(name, ""),
            place,
            str(record.get("date", ""))[:10],
            f"`{record.get('command', '')}`",
        )
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([*lines, *shown]) + "\n"


def _markdown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a table with a column for each name in any row."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    return [f"| {' | '.join(row)} |" for row in ([*names], ["---"] * len(names), *cells)]


def _cell(value: Any) -> str:
    """In one line; what is true of a row, and what is not, as in a printed table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.5g}" if isinstance(value, float) else " ".join(str("" if value is None else value).split())
    return text.replace("|", "\\|") if len(text) <= _CELL else f"{text[:_CELL]} ..."


def shown_command(argv: Sequence[str]) -> str:
    """The command as typed, with the folders of this machine taken out."""
    return " ".join(["python -m ultrafast_rag bench", *(Path(word).name if Path(word).is_absolute() else word for word in argv)])


def plain(value: Any) -> Any:
    """JSON values; numbers of numpy become Python's, floats keep five significant digits, NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)


def say(text: str) -> None:
    """A line of progress, on stderr so that stdout stays the result."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
