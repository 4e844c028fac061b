"""Values that read well as text; `notebook/display.py` registers how they are drawn when the package root is imported."""

from __future__ import annotations

import html
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ultrafast_rag.types.elements import Document

# Tag characters, variation selectors, zero-width and bidirectional controls, soft hyphens, C0/C1: each can
# carry text that no reader sees. Joiners stay after Arabic to Myanmar letters, whose spelling needs them.
_INVISIBLE = re.compile(
    "[\U000e0000-\U000e0fff\ufe00-\ufe0f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\u00ad\u034f\u061c\u115f\u1160"
    "\u17b4\u17b5\u180b-\u180f\u3164\uffa0\ufff9-\ufffb\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|(?<![\u0600-\u109f])[\u200c\u200d]"
)

_NARROWEST = 16  # chosen: characters of a column of words that a terminal too narrow for all of them still gives it
_ONE_LINE = 100  # chosen: characters a fact may take before each part of it gets a row of its own

HTML_REPRS: dict[type, Callable[[Any], str]] = {}


def visible(text: str) -> str:
    """`text` without characters that a reader cannot see, or that a terminal obeys."""
    return _INVISIBLE.sub("", text)


def html_of(value: object) -> str:
    """As a notebook shows it."""
    draw = HTML_REPRS.get(type(value))
    return draw(value) if draw else f"<pre>{html.escape(str(value))}</pre>"


def counted(n: int, name: str) -> str:
    """`n` and what it counts: "1 page", "2 pages"."""
    return f"{n} {name}{'' if n == 1 else 's'}"


def cell_text(value: object) -> str:
    """A table cell in words: three significant digits for a fraction, thousands set apart, "" for None."""
    if value is None:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}" if abs(int(value)) >= 10_000 else str(int(value))
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if number != number:
            return "–"
        return cell_text(round(number)) if abs(number) >= 1000 and abs(number) < 1e15 else f"{number:.3g}"
    return str(value)


class Table(list[Mapping[str, Any]]):
    """Rows that read well: a list of mappings from column to value. Columns come in order of first sight.

    As text, a terminal too narrow for it breaks long cells; whatever else reads it gets each row in one line.
    bars: columns of non-negative numbers that are also drawn as bars in HTML.
    """

    def __init__(
        self, rows: Iterable[Mapping[str, Any]] = (), title: str = "", *, notes: tuple[str, ...] = (), bars: tuple[str, ...] = ()
    ) -> None:
        super().__init__(rows)
        self.title, self.notes, self.bars = title, notes, bars

    @property
    def columns(self) -> list[str]:
        """Every column of any row, in order of first sight."""
        return list(dict.fromkeys(str(name) for row in self for name in row))

    def __str__(self) -> str:
        columns = self.columns
        cells = [[" ".join(visible(cell_text(row.get(name))).split()) for name in columns] for row in self]
        widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(columns)] if cells else []
        numeric = [all(isinstance(row.get(name), (int, float, type(None))) for row in self) for name in columns]
        widths = _fitted(widths, numeric, shutil.get_terminal_size().columns if sys.stdout.isatty() else 0)

        def line(row: list[str]) -> str:
            broken = [textwrap.wrap(c, max(1, w)) or [""] for c, w in zip(row, widths)]
            lines = [[c[at] if at < len(c) else "" for c in broken] for at in range(max(map(len, broken)))]
            padded = (((c.rjust(w) if n else c.ljust(w)) for c, w, n in zip(cut, widths, numeric)) for cut in lines)
            return "\n".join("  ".join(cut).rstrip() for cut in padded)

        body = [line(columns), "  ".join("-" * w for w in widths), *map(line, cells)] if cells else ["(no rows)"]
        return "\n".join([*([self.title] if self.title else []), *body, *(f"note: {note}" for note in self.notes)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_of(self)


class Documents(list[Document]):
    """Documents that read well: a list, shown as a table."""

    def table(self) -> Table:
        """One row a document."""
        rows = [
            {
                "document": document.source.replace("\\", "/").rsplit("/", 1)[-1],
                "title": document.title,
                "type": document.media_type,
                "pages": document.parts,
                "passages": document.chunks,
                "complete": document.complete,
            }
            for document in self
        ]
        return Table(rows, counted(len(self), "document"))

    def __str__(self) -> str:
        return str(self.table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


class Facts(dict[str, Any]):
    """What `stats` tells: a dictionary, shown as a table; what is nested and long gets a row for each of its parts."""

    def table(self) -> Table:
        """One row a fact, or a part of one. What is empty is left out."""
        told = [row for name, value in self.items() for row in _rows(name, value)]
        return Table([{"what": name.replace("_", " "), "value": value} for name, value in told if value], "stats")

    def __str__(self) -> str:
        return str(self.table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def _rows(name: str, value: object) -> list[tuple[str, str]]:
    told = _told(value)
    if len(told) > _ONE_LINE and isinstance(value, Mapping):
        return [(f"{name}: {part}", _told(item)) for part, item in value.items()]
    if len(told) > _ONE_LINE and isinstance(value, (list, tuple)):
        return [(name, _told(item)) for item in value]
    return [(name, told)]


def _told(value: object) -> str:
    if isinstance(value, Mapping):
        told = {name: _told(item) for name, item in value.items()}
        return ", ".join(f"{name.replace('_', ' ')} {item}" for name, item in told.items() if item)
    if isinstance(value, (list, tuple)):
        return "; ".join(_told(item) for item in value)
    return cell_text(value)


def _fitted(widths: list[int], numeric: list[bool], most: int) -> list[int]:
    """Column widths for a line of `most` characters (0: any): the widest columns of words give way, to _NARROWEST."""
    fitted = list(widths)
    words = [i for i, number in enumerate(numeric) if not number]
    while most and words and sum(fitted) + 2 * (len(fitted) - 1) > most:
        widest = max(words, key=lambda i: fitted[i])
        if fitted[widest] <= _NARROWEST:
            break
        fitted[widest] -= 1
    return fitted
