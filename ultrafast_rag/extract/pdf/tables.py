"""Tables on a PDF page, with the costly finder run only where ruled lines promise a grid.

Three cheap tests on boxes that are at hand anyway: rules in both directions (a grid: PyMuPDF's `find_tables` on that
area, which mends cells of several lines), horizontal rules of one width (a "booktabs" table) and short fragments
aligned in columns, the last two read here from the fragments themselves. What fails as a table stays text.
"""

from __future__ import annotations

import functools
import inspect
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from ultrafast_rag.errors import require
from ultrafast_rag.extract.pdf.baselines import rows_of
from ultrafast_rag.extract.pdf.drawn import DrawnPage, Word
from ultrafast_rag.extract.pdf.layout import Line, union
from ultrafast_rag.extract.pdf.registers import find_registers
from ultrafast_rag.extract.pdf.statements import counts_up, find_statements
from ultrafast_rag.language.rows import is_data, is_figure
from ultrafast_rag.types import BBox

CAPTION = re.compile(r"^\s*(?!table of contents)(?:table|tab\.|tabelle|tableau|tabla|tabela|таблица)\s*[\dIVXA-Z]+", re.I)
_FIGURE = re.compile(r"^[^\w\s]{0,2}\d[\d.,\s]*\s?[%\w°€$£]{0,3}$")
_THIN = 2.5  # points: what is thinner is a rule
_MOST_RULES = 4000  # chosen: a page with more is a drawing


class Table(NamedTuple):
    """Rows of cell texts and the box around them. lines: those they were read from, where they are known."""

    bbox: BBox
    rows: list[list[str]]
    lines: Sequence[Line] = ()


def inside(line: Line, box: BBox, slack: float = 1.0) -> bool:
    """Whether the middle of the line lies in the box."""
    x, y = line.center
    return box[0] - slack <= x <= box[2] + slack and box[1] - slack <= y <= box[3] + slack


def find(drawn: DrawnPage, groups: Sequence[Sequence[Line]], paths: Sequence[BBox]) -> list[Table]:
    """The tables on a page, none overlapping another. groups: MuPDF's blocks; paths: boxes of what is drawn on it."""
    lines = [line for group in groups for line in group]
    tables: list[Table] = []
    if len(paths) <= _MOST_RULES:
        for area in _grids(paths):
            if sum(inside(line, area) for line in lines) >= 2:  # else it is the grid of a chart, or a drawing
                _keep(tables, *_grid_tables(drawn, area, lines))
    free = [[line for line in group if not any(inside(line, table.bbox) for table in tables)] for group in groups]
    for finder in (find_statements, find_registers):
        _keep(tables, *(Table(found.bbox, found.rows, found.lines) for found in finder(free)))
    if len(paths) <= _MOST_RULES:
        for area in _ruled(paths):
            if table := _aligned(lines, area):
                _keep(tables, table)
    captions = [line for line in lines if CAPTION.match(line.text)]
    for rows in _runs(lines):
        if table := _from_rows(rows, strict=not any(_near(caption, rows) for caption in captions)):
            _keep(tables, table)
    return tables


def caption_of(table: Table, lines: Sequence[Line]) -> list[Line]:
    """The lines of the caption above or below the table; [] where there is none."""
    x0, y0, x1, y1 = table.bbox
    best: tuple[float, list[Line]] = (40.0, [])
    for at, line in enumerate(lines):
        distance = min(abs(y0 - line.y1), abs(line.y0 - y1))
        if CAPTION.match(line.text) and distance < best[0] and line.x0 < x1 and line.x1 > x0:
            found = [line]
            for after in lines[at + 1 : at + 4]:
                if (
                    not 0 <= after.y0 - found[-1].y0 < 2 * line.size
                    or inside(after, table.bbox)
                    or abs(after.size - line.size) > 0.5
                ):
                    break
                found.append(after)
            best = (distance, found)
    return best[1]


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean; statistics.mean is exact and 30 times slower."""
    numbers = list(values)
    return sum(numbers) / len(numbers)


def _keep(tables: list[Table], *found: Table) -> None:
    for new in found:
        if not any(_overlap(new.bbox, old.bbox) for old in tables):
            tables.append(new)


def _overlap(a: BBox, b: BBox) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def _grids(paths: Sequence[BBox]) -> list[BBox]:
    """Areas with at least three rules, or edges of cells, in each direction that touch one another."""
    pieces = [box for box in paths if box[2] - box[0] > 4 or box[3] - box[1] > 4]
    areas = []
    for group in _touching(pieces):
        across = {round(y / 3) for x0, y0, x1, y1 in group for y in (y0, y1) if x1 - x0 > 15}
        down = {round(x / 3) for x0, y0, x1, y1 in group for x in (x0, x1) if y1 - y0 > 5}
        flat = sum(min(x1 - x0, y1 - y0) <= _THIN for x0, y0, x1, y1 in group)
        if len(group) >= 4 and len(across) >= 3 and len(down) >= 3 and (flat >= 0.7 * len(group) or _tiled(group)):
            areas.append(_around(group))
    return [a for a in areas if a[2] - a[0] > 60 and a[3] - a[1] > 20]


def _tiled(group: Sequence[BBox]) -> bool:
    """Cells drawn as rectangles: most share their height with a neighbour in the row."""
    boxes = [box for box in group if box[3] - box[1] > _THIN and box[2] - box[0] > _THIN]
    rows = {(round(box[1] / 2), round(box[3] / 2)) for box in boxes}
    return len(boxes) >= 6 and len(rows) * 2 <= len(boxes)


def _touching(boxes: Sequence[BBox], slack: float = 3.0) -> list[list[BBox]]:
    """Connected groups of boxes that come within `slack` of each other; a sweep from top to bottom."""
    groups: list[tuple[BBox, list[BBox]]] = []
    for box in sorted(boxes, key=lambda b: b[1]):
        area, members = box, [box]
        rest = []
        for around, group in groups:
            if area[0] - slack <= around[2] and around[0] - slack <= area[2] and area[1] - slack <= around[3]:
                area, members = _around([area, around]), members + group
            else:
                rest.append((around, group))
        groups = [*rest, (area, members)]
        if len(groups) > 200:
            return []
    return [group for _, group in groups]


def _around(boxes: Sequence[BBox]) -> BBox:
    lefts, tops, rights, bottoms = zip(*boxes)
    return min(lefts), min(tops), max(rights), max(bottoms)


@functools.cache
def _finder_options() -> dict[str, bool]:
    """PyMuPDF 2 asks a neural layout model first unless told not to: 170 ms a page for what the rules say already."""
    finder = require("pymupdf.table").find_tables
    return {"use_layout": False} if "use_layout" in inspect.signature(finder).parameters else {}


_finding = threading.Lock()


@contextmanager
def _given_words(words: Sequence[Word]) -> Iterator[None]:
    """Let PyMuPDF's finder take these words for the page's characters: it only asks whether some stand in a box.

    The grid it finds is the same; making the characters took four fifths of its time (56 of 71 ms a page). Texts are not
    read from what it gives, so nothing else is missed. Where its parts are called otherwise, it is left as it is.
    """
    module: Any = require("pymupdf.table")
    if not all(hasattr(module, name) for name in ("make_chars", "CHARS")):
        yield
        return
    with _finding:  # the finder's module is everybody's in this process
        own = module.make_chars
        if list(inspect.signature(own).parameters) == ["page", "clip"]:
            module.make_chars = functools.partial(_make_characters, module, words)
        try:
            yield
        finally:
            module.make_chars = own


def _make_characters(module: Any, words: Sequence[Word], page: Any, clip: Any = None) -> None:
    """In place of the finder's own: what it looks at of each word that touches `clip`. The page is not turned."""
    _, _, _, scale, _, shift = page.transformation_matrix
    left, upper, right, lower = clip or page.rect
    for x0, top, x1, bottom, text in words:
        if x1 > left and x0 < right and bottom > upper and top < lower:
            y1, y0 = scale * top + shift, scale * bottom + shift
            box = {"x0": x0, "x1": x1, "top": top, "bottom": bottom, "y0": min(y0, y1), "y1": max(y0, y1)}
            module.CHARS.append({**box, "text": text})


def _paths_in(drawn: DrawnPage, box: BBox) -> list[dict[str, Any]]:
    """The drawings that touch a box. Copies, as the finder makes them: it changes what it is given."""
    rectangle = require("pymupdf").Rect
    x0, y0, x1, y1 = box
    return [
        {
            **path,
            "rect": rectangle(path["rect"]),
            "items": [(item[0], rectangle(item[1]), *item[2:]) if item[0] == "re" else item for item in path["items"]],
        }
        for path in drawn.drawings
        if path["rect"].x1 >= x0 and path["rect"].x0 <= x1 and path["rect"].y1 >= y0 and path["rect"].y0 <= y1
    ]


def _grid_tables(drawn: DrawnPage, area: BBox, lines: Sequence[Line]) -> list[Table]:
    x0, y0, x1, y1 = area
    tables = []
    words = drawn.words  # the finder's own texts lose the spaces between words
    around = (x0 - 3, y0 - 3, x1 + 3, y1 + 3)
    with _given_words(words):
        finder = drawn.page.find_tables(clip=around, paths=_paths_in(drawn, around), **_finder_options())
    for found in finder.tables if finder else ():  # None: it failed, and has said so to nobody
        rows = [
            row for cells in found.rows for row in _rows_within([_cell_lines(cell, words) for cell in cells.cells]) if any(row)
        ]
        filled = sum(bool(cell) for row in rows for cell in row)
        if len(rows) >= 2 and max(map(len, rows)) >= 2 and filled * 3 >= sum(map(len, rows)):
            table = Table(tuple(found.bbox), rows)
            if not _lacks_labels(table, lines):
                table = _with_head(table, _columns_of(found), lines)
                tables.append(table._replace(rows=_without_empty_columns(table.rows)))
    return tables


def _columns_of(found: Any) -> list[tuple[float, float]]:
    """Left and right edge of each column of a grid, from its row of most cells."""
    widest = max(found.rows, key=lambda row: sum(cell is not None for cell in row.cells))
    return [(cell[0], cell[2]) if cell else (0.0, 0.0) for cell in widest.cells]


def _with_head(table: Table, columns: Sequence[tuple[float, float]], lines: Sequence[Line]) -> Table:
    """The table with the row of words or years right above its grid, where they stand over its columns."""
    x0, y0, x1, y1 = table.bbox
    row = [line for line in lines if y0 - 1.8 * line.size < line.center[1] < y0 and x0 - 3 < line.center[0] < x1 + 3]
    head = [" ".join(line.text for line in row if a <= line.center[0] < b) for a, b in columns]
    if sum(map(bool, head)) < 2 or len(head) != len(table.rows[0]) or is_data(["", *head]):
        return table
    return Table((x0, min(line.y0 for line in row), x1, y1), [head, *table.rows])


def _lacks_labels(table: Table, lines: Sequence[Line]) -> bool:
    """Whether the grid is drawn round the figures only, and their labels stand to its left."""
    x0, y0, _, y1 = table.bbox
    first = [row[0] for row in table.rows if row[0]]
    if not first or sum(map(is_figure, first)) * 2 < len(first):
        return False
    return sum(line.x1 < x0 + 2 and y0 < line.center[1] < y1 for line in lines) * 2 > len(table.rows)


def _cell_lines(cell: BBox | None, words: Sequence[Any]) -> list[str]:
    """The lines of a cell, top to bottom."""
    if cell is None:
        return []
    x0, y0, x1, y1 = cell
    lines: list[list[Any]] = []
    for word in words:
        if x0 <= (word[0] + word[2]) / 2 <= x1 and y0 <= (word[1] + word[3]) / 2 <= y1:
            if lines and word[1] < (lines[-1][0][1] + lines[-1][0][3]) / 2:
                lines[-1].append(word)
            else:
                lines.append([word])
    return [" ".join(word[4] for word in line) for line in lines]


def _rows_within(cells: Sequence[list[str]]) -> list[list[str]]:
    """A row of a grid as the rows that stand in it: where rules are drawn round several, each cell has as many lines.

    Told by a column of figures: wrapped words have as many lines by chance only, and none of figures alone.
    """
    counts = {len(lines) for lines in cells if lines}
    figures = any(all(map(is_figure, lines)) for lines in cells if lines)
    if len(counts) != 1 or counts == {1} or not figures or sum(map(bool, cells)) < 2:
        return [[" ".join(lines) for lines in cells]]
    return [[lines[n] if lines else "" for lines in cells] for n in range(counts.pop())]


def _without_empty_columns(rows: list[list[str]]) -> list[list[str]]:
    used = [at for at in range(max(map(len, rows))) if any(at < len(row) and row[at] for row in rows)]
    return [[row[at] if at < len(row) else "" for at in used] for row in rows]


def _ruled(paths: Sequence[BBox]) -> list[BBox]:
    """Areas between horizontal rules of the same extent, tallest first."""
    rules = sorted((b for b in paths if b[3] - b[1] <= _THIN and b[2] - b[0] >= 40), key=lambda b: b[1])
    groups: dict[tuple[int, int], list[BBox]] = {}
    for rule in rules:
        groups.setdefault((round(rule[0] / 4), round(rule[2] / 4)), []).append(rule)
    areas: list[BBox] = []
    for group in groups.values():
        for first, last in ((0, len(group) - 1), (1, len(group) - 1), (0, len(group) - 2)):
            if last - first >= 1 and group[last][1] - group[first][1] > 20:
                areas.append(_around(group[first : last + 1]))
    return areas


def _aligned(lines: Sequence[Line], area: BBox) -> Table | None:
    rows = rows_of([line for line in lines if inside(line, area)])
    return _from_rows(rows, strict=False, area=area) if rows else None


def _near(caption: Line, rows: list[list[Line]]) -> bool:
    x0, y0, x1, y1 = union(line for row in rows for line in row)
    return min(abs(y0 - caption.y1), abs(caption.y0 - y1)) < 40 and caption.x0 < x1 and caption.x1 > x0


def _runs(lines: Sequence[Line]) -> list[list[list[Line]]]:
    """Stretches of rows that each hold several short fragments, with no wide gap between them."""
    runs: list[list[list[Line]]] = [[]]
    for row in rows_of(lines):
        short = mean(len(line.text.strip()) for line in row) <= (20 if len(row) == 2 else 30)
        is_cells = short and len(row) >= 2 and not any("…" in line.text for line in row)  # no table of contents
        if runs[-1] and (not is_cells or row[0].y0 - runs[-1][-1][0].y1 > 2.5 * row[0].size):
            runs.append([])
        if is_cells:
            runs[-1].append(row)
    return [run for run in runs if len(run) >= 3]


def _from_rows(rows: list[list[Line]], *, strict: bool, area: BBox | None = None) -> Table | None:
    """A table if the fragments fall into columns that nothing but a spanning cell crosses."""
    fragments = [line for row in rows for line in row]
    edges = _columns(rows, fragments)
    if len(edges) < 2 or len(rows) < (4 if strict else 2):
        return None
    cells = [["" for _ in edges] for _ in rows]
    for row, line_row in zip(cells, rows):
        for line in line_row:
            at = max((i for i, edge in enumerate(edges) if line.center[0] >= edge or i == 0), default=0)
            row[at] = f"{row[at]} {' '.join(line.text.split())}".strip()
    filled = [sum(bool(row[at]) for row in cells) / len(cells) for at in range(len(edges))]
    several = sum(sum(map(bool, row)) >= 2 for row in cells) / len(cells)
    longest = mean(len(cell) for row in cells for cell in row if cell)
    if several < 0.6 or longest > 40 or sum(share >= (0.6 if strict else 0.4) for share in filled) < 2:
        return None
    if strict and (longest < 3 or not _has_figures(cells)):
        return None  # aligned formulas, or a list in columns
    if strict and len(edges) == 2 and counts_up([row[1] for row in cells if row[1]]):
        return None  # a list of contents
    return Table(area or union(fragments), cells)


def _has_figures(cells: list[list[str]]) -> bool:
    """Whether a column beside the first holds mostly numbers, as in a table without rules or caption."""
    columns = list(zip(*cells))[1:]
    return any(mean(bool(_FIGURE.match(cell)) for cell in column) >= 0.7 for column in columns)


def _columns(rows: list[list[Line]], fragments: Sequence[Line]) -> list[float]:
    """Left edges of columns: where a strip of 6 points or more is crossed by at most a tenth of the rows."""
    start, _, end, _ = union(fragments)
    bins = int((end - start) / 2) + 2
    covered = [0] * (bins + 1)
    for line in fragments:
        for at in range(int((line.x0 - start) / 2), min(bins, int((line.x1 - start) / 2) + 1)):
            covered[at] += 1
    limit = max(0 if len(rows) < 5 else 1, len(rows) // 10)
    edges, gap = [start - 1], 0
    for at in range(bins):
        if covered[at] <= limit:
            gap += 1
        else:
            if gap >= 3 and at > gap:
                edges.append(start + 2 * (at - gap / 2))
            gap = 0
    return edges
