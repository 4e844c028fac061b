"""Values that read well as text; `notebook/display.py` registers how they are drawn when the package root is imported."""

from __future__ import annotations

import html
import re
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

HTML_REPRS: dict[type, Callable[[Any], str]] = {}


def visible(text: str) -> str:
    """`text` without characters that a reader cannot see, or that a terminal obeys."""
    return _INVISIBLE.sub("", text)


def html_of(value: object) -> str:
    """As a notebook shows it."""
    draw = HTML_REPRS.get(type(value))
    return draw(value) if draw else f"<pre>{html.escape(str(value))}</pre>"


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

        def line(row: list[str]) -> str:
            padded = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric))
            return "  ".join(padded).rstrip()

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
        return Table(rows, f"{len(self)} documents")

    def __str__(self) -> str:
        return str(self.table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


class Facts(dict[str, Any]):
    """What `stats` tells: a dictionary, shown as a table; what is nested is told in one line."""

    def table(self) -> Table:
        """One row a fact."""
        return Table([{"what": name.replace("_", " "), "value": _told(value)} for name, value in self.items()], "stats")

    def __str__(self) -> str:
        return str(self.table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def _told(value: object) -> object:
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_told(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(str(_told(item)) for item in value)
    return cell_text(value)
