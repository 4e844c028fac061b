"""Spreadsheets and CSV as tables: a slice of some 500 rows is one part, the header rows with each, the sheet's name as heading.

Workbooks (xlsx, xlsm, xlsb, ods, and the old xls) by python-calamine. openpyxl, in its read-only mode, lost: calamine read
50 000 rows of ten cells some twenty times faster (November 2026), reads the other formats too, gives dates as dates just as
well, and brings nothing else along; its last release was this month, openpyxl's in June 2024. What calamine costs: it holds
a sheet as one grid.
"""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, require
from ultrafast_rag.extract import zipped
from ultrafast_rag.extract.cells import cleaned, table_element
from ultrafast_rag.extract.text import open_text
from ultrafast_rag.language.rows import CELL, head_lines, is_data
from ultrafast_rag.types import Element, Part

ROWS_PER_PART = 500  # some ten thousand tokens: a commit's worth, and little to read again after a cut-off
MAX_CELLS = 30_000_000  # of a sheet's grid, empty ones too: calamine holds it twice at 32 bytes a cell
_MAX_FIELD = 1_000_000  # characters of one CSV field: a longer one is a quote that never closes
_SAMPLE_ROWS = 50  # lines by which the delimiter is told
_CELL = re.compile(rb'\sr="([A-Z]{1,3})([0-9]{1,7})"')


class SheetExtractor:
    """Workbooks: every sheet in the workbook's own order."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """Parts from `start_part` on. Raises CorruptError for a broken or oversized file, MissingExtraError."""
        calamine = require("python_calamine", package="python-calamine", extra="office")
        try:
            title, book = path.stem, None
            with path.open("rb") as file:
                is_zip = file.read(2) == b"PK"  # zipfile.is_zipfile looks at the end, where an old xls may hold a zip
            if is_zip:
                copy = zipped.xml_copy(path, tree=False)
                with zipfile.ZipFile(copy) as archive:
                    title = zipped.title_of(archive) or title
                    _check_grids(archive)
                copy.seek(0)
                book = calamine.CalamineWorkbook.from_filelike(copy)
            else:
                book = calamine.CalamineWorkbook.from_path(str(path))
            for number, elements in enumerate(_sheets(book, calamine)):
                if number >= start_part:
                    yield Part(number, tuple(elements), title=title)
        except (*zipped.BROKEN, calamine.CalamineError) as error:
            raise CorruptError(f"{path.name} is a broken or protected workbook: {error}", path=str(path)) from error


def _check_grids(archive: zipfile.ZipFile) -> None:
    """One stray cell in the last corner would make a grid of 17 billion. Raises ValueError."""
    for name in archive.namelist():
        if name.startswith("xl/worksheets/") and name.endswith(".xml"):
            columns: set[bytes] = set()
            rows: set[bytes] = set()
            for cell in _CELL.finditer(archive.read(name)):
                columns.add(cell[1])
                rows.add(cell[2])
            if columns and max(map(int, rows)) * max(map(_column, columns)) > MAX_CELLS:
                raise ValueError(
                    f"{name} spans over {MAX_CELLS // 1_000_000} million cells; delete the stray ones at its far end"
                )


def _column(letters: bytes) -> int:
    """1 for A, 27 for AA."""
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number


def _sheets(book: Any, calamine: Any) -> Iterator[list[Element]]:
    for page, sheet in enumerate(book.sheets_metadata, 1):
        if sheet.typ == calamine.SheetTypeEnum.WorkSheet:
            rows = ([_shown(value) for value in row] for row in book.get_sheet_by_name(sheet.name).iter_rows())
            for tables in slices(rows, page=page):
                yield [Element("heading", sheet.name, page=page, level=1), *tables]


def _shown(value: Any) -> str:
    """A cell as a spreadsheet shows it: 7, not 7.0; 15 digits, which is what spreadsheets keep; dates in ISO 8601."""
    if isinstance(value, bool):
        return str(value).upper()
    return f"{value:.15g}" if isinstance(value, float) else str(value)


class CsvExtractor:
    """Comma-, semicolon-, tab- or bar-separated values, streamed."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def extract(self, path: Path, *, start_part: int = 0) -> Iterator[Part]:
        """Parts from `start_part` on. Raises CorruptError for an empty or binary file and a quote that never closes."""
        csv.field_size_limit(_MAX_FIELD)
        with open_text(path) as file:
            sample = [line for _, line in zip(range(_SAMPLE_ROWS), iter(lambda: file.readline(_MAX_FIELD), ""))]
            file.seek(0)
            rows = csv.reader((line.replace("\0", "") for line in file), delimiter=delimiter_of(sample))
            try:
                for number, tables in enumerate(slices(rows)):
                    if number >= start_part:
                        yield Part(number, tuple(tables), title=path.stem)
            except csv.Error as error:
                words = f"{path.name}, line {rows.line_num}: {error}; a quotation mark that never closes?"
                raise CorruptError(words, path=str(path)) from error


def delimiter_of(sample: Sequence[str]) -> str:
    """The one of , ; tab | that gives the most lines the same number of fields, over one; a comma when none does."""

    def agreement(delimiter: str) -> tuple[int, int]:
        widths = [len(row) for row in csv.reader(sample, delimiter=delimiter) if len(row) > 1]
        return max(((widths.count(width), width) for width in set(widths)), default=(0, 0))

    return max(",;\t|", key=agreement)


def slices(rows: Iterable[Sequence[str]], *, page: int | None = None) -> Iterator[list[Element]]:
    """Tables of ROWS_PER_PART rows together.

    A blank row ends a table where what follows begins with names, not figures; below a title alone it does not.
    """
    found: list[Element | None] = []
    head: list[list[str]] | None = None  # of the table going on: None until a piece of it is out
    block: list[list[str]] = []
    taken, blank = 0, False
    for row in map(cleaned, rows):
        begins = blank and not is_data(row) and any(sum(map(bool, line)) > 1 for line in block)
        if block and row and (begins or taken >= ROWS_PER_PART):
            found.append(table_element([*(head or []), *block], page=page))
            head = None if begins else block[: head_lines(list(map(CELL.join, block)))] if head is None else head
            block = []
        if row and taken >= ROWS_PER_PART:
            yield list(filter(None, found))
            found, taken = [], 0
        block += [row] if row else []
        taken, blank = taken + bool(row), not row
    if block:
        yield list(filter(None, [*found, table_element([*(head or []), *block], page=page)]))
