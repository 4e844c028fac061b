"""Filings as PDFs, made the two ways real ones are: HTML printed by Chromium, and text drawn on the page.

The HTML is set as EDGAR's is: tables of many spacer cells, a "$" and a closing bracket in cells of their own, page numbers and a link
to the contents between pages. Both set rows without rules between them, heads over several lines and labels that wrap.
"""

# ruff: noqa: E501, C901  (what filings say is long)
from __future__ import annotations

import html
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pymupdf

CHROMIUM = "/usr/bin/chromium"
LEFT, RIGHT, TOP, BOTTOM = 54, 558, 66, 730  # points of a letter page
LEADING = 11.6
_FONTS = {"plain": pymupdf.Font("tiro"), "bold": pymupdf.Font("tibo"), "italic": pymupdf.Font("tiit")}


@dataclass
class Grid:
    """A table. heads: rows of (text, columns it spans), over the figures alone; rows: (label, indent, cells, is a total)."""

    heads: list[list[tuple[str, int]]]
    rows: list[tuple[str, int, list[str], bool]]
    unit: str = ""
    corner: str = ""  # over the labels
    words: bool = False  # cells are words, set to the left


@dataclass
class Filing:
    """Blocks in order: ("title" | "head" | "sub" | "text" | "item", words), ("grid", Grid), ("page", "")."""

    name: str
    running: str
    blocks: list[tuple[str, str | Grid]] = field(default_factory=list)

    def add(self, kind: str, what: str | Grid = "") -> None:
        self.blocks.append((kind, what))


# ---- drawn


class _Pen:
    """Writes down the page, and begins another where it is full."""

    def __init__(self, document, filing):
        self.document, self.filing, self.page, self.number = document, filing, None, 0
        self.y = BOTTOM + 1.0

    def room(self, lines):
        if self.y + lines * LEADING > BOTTOM:
            self.turn()

    def turn(self):
        self.end()
        self.number += 1
        self.page = self.document.new_page()
        self.writer = pymupdf.TextWriter(self.page.rect)
        self.y = TOP
        if self.number > 1:
            self.put(LEFT, 40, "Table of Contents", "italic", 8)
            self.put(RIGHT, 40, self.filing.running, "italic", 8, right=True)
            self.put(306, 765, str(self.number), "plain", 9, right=True)

    def end(self):
        if self.page is not None:
            self.writer.write_text(self.page)

    def put(self, x, y, text, style="plain", size=10.0, right=False):
        font = _FONTS[style]
        self.writer.append((x - right * font.text_length(text, size), y), text, font=font, fontsize=size)

    def rule(self, x0, x1):
        self.page.draw_line((x0, self.y - 8.5), (x1, self.y - 8.5), width=0.5)


@cache
def _wide(word, style):
    """Points at a size of one."""
    return _FONTS[style].text_length(word, 1)


def wrapped(text, width, style="plain", size=10.0):
    """Lines no wider than `width` points."""
    lines, now, used = [], [], 0.0
    for word in text.split():
        wide = _wide(word, style) * size
        if now and used + wide > width:
            lines.append(" ".join(now))
            now, used = [], 0.0
        now.append(word)
        used += wide + _wide(" ", style) * size
    return [*lines, " ".join(now)]


def draw(filing: Filing, path: Path) -> None:
    """Text put on the page line by line; the "$" stands at its column's left edge, brackets hang out on the right."""
    with pymupdf.open() as document:
        pen = _Pen(document, filing)
        pen.turn()
        for kind, what in filing.blocks:
            if kind == "page":
                pen.turn()
            elif isinstance(what, Grid):
                _draw_grid(pen, what)
            else:
                style, size = {"title": ("bold", 12.0), "head": ("bold", 10.0), "sub": ("italic", 10.0)}.get(
                    kind, ("plain", 10.0)
                )
                left = LEFT + 18 * (kind == "item")
                lines = wrapped(("• " if kind == "item" else "") + what, RIGHT - left, style, size)
                pen.room(min(len(lines), 3) + (kind != "text"))
                for line in lines:
                    pen.room(1)
                    at = 306 + _FONTS[style].text_length(line, size) / 2 if kind == "title" else left
                    pen.put(at, pen.y, line, style, size, right=kind == "title")
                    pen.y += LEADING * size / 10
                pen.y += 5
        pen.end()
        document.save(path, deflate=True)


def _draw_grid(pen, grid):
    columns = max([len(row[2]) for row in grid.rows] + [sum(n for _, n in head) for head in grid.heads])
    width = 90.0 if grid.words else min(72.0, 330.0 / columns)
    size = 9.5 if columns < 6 else 8.0
    edges = [RIGHT - 8 - width * (columns - 1 - n) for n in range(columns)]
    labels = edges[0] - width - 6
    pen.room(len(grid.heads) + 5)
    if grid.unit:
        pen.put(LEFT, pen.y, grid.unit, "italic", size - 0.5)
        pen.y += LEADING
    for n, head in enumerate(grid.heads):
        pen.room(1)
        at = 0
        if grid.corner and n == len(grid.heads) - 1:
            pen.put(LEFT, pen.y, grid.corner, "bold", size)
        for text, span in head:
            x0, x1 = edges[at] - width + 10, edges[at + span - 1]
            for k, line in enumerate(wrapped(text, x1 - x0 + 6, "bold", size) if text else []):
                pen.put(
                    (x0 + x1 + _FONTS["bold"].text_length(line, size)) / 2, pen.y + k * LEADING, line, "bold", size, right=True
                )
            at += span
        tall = max(len(wrapped(text, span * width - 4, "bold", size)) for text, span in head) if head else 1
        pen.y += LEADING * tall
    if grid.heads:
        pen.rule(edges[0] - width + 10, edges[-1])
        pen.y += 3
    for label, indent, cells, total in grid.rows:
        lines = wrapped(label, labels - LEFT - 9 * indent, "bold" if total else "plain", size)
        for n, line in enumerate(lines):
            pen.room(1)
            pen.put(LEFT + 9 * indent + 9 * (n > 0), pen.y, line, "bold" if total else "plain", size)
            if n < len(lines) - 1:
                pen.y += LEADING
        if total:
            pen.rule(edges[0] - width + 14, edges[-1])
        tall = 1
        for edge, cell in zip(edges, cells):
            if grid.words:
                parts = wrapped(cell, width - 4, "plain", size)
                for n, part in enumerate(parts):
                    pen.put(edge - width + 10, pen.y + n * LEADING, part, "plain", size)
                tall = max(tall, len(parts))
                continue
            dollar, figure = ("$", cell[1:]) if cell.startswith("$") else ("", cell)
            hang = 3.2 if figure.endswith(")") else 0
            if dollar:
                pen.put(edge - width + 14, pen.y, "$", "plain", size)
            if figure:
                pen.put(edge + hang, pen.y, figure, "bold" if total else "plain", size, right=True)
        pen.y += LEADING * tall
    pen.y += 8


# ---- printed


_STYLE = """
@page { size: letter; margin: 0.6in 0.75in } body { font: 10pt 'Times New Roman', 'Liberation Serif', serif }
p { margin: 0 0 6pt 0; text-align: justify } p.title { text-align: center; font-weight: bold; font-size: 12pt }
p.head { font-weight: bold } p.sub { font-style: italic } p.item { margin-left: 18pt } hr { page-break-after: always; border: 0 }
table { border-collapse: collapse; width: 100%; margin-bottom: 10pt; font-size: 9pt; page-break-inside: auto } td { padding: 0; vertical-align: bottom }
td.n { text-align: right; white-space: nowrap } td.h { text-align: center; font-weight: bold; border-bottom: 1px solid #000 }
td.s { width: 6pt } td.l { text-indent: -9pt; padding-left: 9pt } tr.b td.n, tr.b td.d { border-top: 1px solid #000 } tr.g { background: #cceeff }
"""
_LINES = 66  # of an HTML page, before the author breaks it


def print_html(filing: Filing, path: Path, folder: Path) -> None:
    """As EDGAR has it, printed by Chromium. folder: for the HTML."""
    out, used, number = (
        [f"<html><head><meta charset=utf-8><title>{html.escape(filing.running)}</title><style>{_STYLE}</style></head><body>"],
        0.0,
        1,
    )

    def turn():
        nonlocal used, number
        out.append(
            f"<p style='text-align:center'>{number}</p><hr><p><a href='#toc' style='font-size:8pt'>Table of Contents</a></p>"
        )
        used, number = 0.0, number + 1

    for kind, what in filing.blocks:
        if kind == "page":
            turn()
            continue
        tall = (len(what.rows) * 1.15 + len(what.heads) + 2) if isinstance(what, Grid) else len(what) / 108 + 1.4
        if used + tall > _LINES and used > 8:
            turn()
        used += tall
        out.append(
            _html_grid(what)
            if isinstance(what, Grid)
            else f"<p class={kind}>{'• ' if kind == 'item' else ''}{html.escape(what)}</p>"
        )
    out.append(f"<p style='text-align:center'>{number}</p></body></html>")
    source = folder / f"{filing.name}.html"
    source.write_text("\n".join(out), encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-pdf-header-footer",
        f"--print-to-pdf={path}",
        source.as_uri(),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


def _html_grid(grid):
    rows = []
    if grid.unit:
        rows.append(f"<tr><td class=l><i>{html.escape(grid.unit)}</i></td></tr>")
    spacer = "<td class=s>&#160;</td>"
    for n, head in enumerate(grid.heads):
        corner = grid.corner if n == len(grid.heads) - 1 else ""
        cells = "".join(
            f"{spacer}<td class=h colspan={4 * span - 2}>{html.escape(text)}</td><td class=s></td>"
            if text
            else f"<td colspan={4 * span}></td>"
            for text, span in head
        )
        rows.append(f"<tr><td class=l><b>{html.escape(corner)}</b></td>{cells}</tr>")
    for n, (label, indent, cells, total) in enumerate(grid.rows):
        shown = "".join(spacer + _html_cell(cell, grid.words) for cell in cells)
        label = f"<b>{html.escape(label)}</b>" if total else html.escape(label)
        rows.append(
            f"<tr class='{'b' * total} {'g' * (n % 2 == 0)}'><td class=l style='padding-left:{9 + 9 * indent}pt'>{label}</td>{shown}</tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def _html_cell(cell, words):
    if words:
        return f"<td colspan=2>{html.escape(cell)}</td><td class=s></td>"
    dollar, figure = ("$", cell[1:]) if cell.startswith("$") else ("", cell)
    close = ""
    for end in (")%", ")", "%"):
        if figure.endswith(end):
            figure, close = figure[: -len(end)], end
            break
    return f"<td class=d>{dollar}</td><td class=n>{html.escape(figure)}</td><td>{close}</td>"
