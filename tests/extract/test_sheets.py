"""Workbooks made here with openpyxl, CSV written by hand, and what of them reaches every piece of a table."""

import datetime
import io
import re
import zipfile

import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError
from ultrafast_rag.extract import sheets
from ultrafast_rag.extract.cells import table_element
from ultrafast_rag.extract.detect import open_extractor
from ultrafast_rag.language.rows import head_lines

openpyxl = pytest.importorskip("openpyxl")
pytest.importorskip("python_calamine")


def read(path, **options):
    return list(open_extractor(path, Config()).extract(path, **options))


def saved(tmp_path, **named):
    """A workbook of rows by sheet name."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in named.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(tmp_path / "a.xlsx")
    return tmp_path / "a.xlsx"


def tables(parts):
    return [e.text.splitlines() for part in parts for e in part.elements if e.kind == "table"]


def test_xlsx_cells_read_as_a_spreadsheet_shows_them(tmp_path):
    rows = [
        ["day", "moment", "time", "whole", "share", "sum", "flag", "words"],
        [
            datetime.date(2024, 3, 1),
            datetime.datetime(2024, 3, 1, 12, 30),
            datetime.time(13, 5),
            7,
            0.25,
            0.1 + 0.2,
            True,
            "a\nb",
        ],
    ]
    (table,) = tables(read(saved(tmp_path, Bolts=rows)))
    assert table == [" | ".join(rows[0]), "2024-03-01 | 2024-03-01 12:30:00 | 13:05:00 | 7 | 0.25 | 0.3 | TRUE | a b"]


def test_xlsx_sheets_keep_their_names_when_the_files_lie_in_another_order(tmp_path):
    book = openpyxl.load_workbook(saved(tmp_path, First=[["apples"], [1]], Second=[["pears"], [2]]))
    book.save(tmp_path / "a.xlsx")
    # as a spreadsheet program leaves it once sheets were dragged: the workbook's list is turned round, the files are not
    with zipfile.ZipFile(tmp_path / "a.xlsx") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    listed = re.search(rb"<sheets>(<sheet .*?/>)(<sheet .*?/>)</sheets>", members["xl/workbook.xml"])
    members["xl/workbook.xml"] = members["xl/workbook.xml"].replace(listed[0], b"<sheets>" + listed[2] + listed[1] + b"</sheets>")
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert [[(e.kind, e.page, e.text) for e in part.elements] for part in read(tmp_path / "a.xlsx")] == [
        [("heading", 1, "Second"), ("table", 1, "pears\n2")],
        [("heading", 2, "First"), ("table", 2, "apples\n1")],
    ]


def test_xlsx_slices_carry_the_title_and_the_header_rows(tmp_path):
    rows = [["Torques in Nm"], ["part", None, "torque"], *([n, None, n / 2] for n in range(1, 601))]
    parts = read(saved(tmp_path, Bolts=rows))
    assert [part.elements[0].text for part in parts] == ["Bolts", "Bolts"]
    first, second = tables(parts)
    assert first[:3] == ["Torques in Nm", "part |  | torque", "1 |  | 0.5"]
    assert second[:3] == ["Torques in Nm", "part |  | torque", "499 |  | 249.5"]
    assert (len(first), len(second)) == (500, 104)
    assert read(tmp_path / "a.xlsx", start_part=1) == parts[1:]


def test_xlsx_a_blank_row_parts_tables_only_where_new_names_begin(tmp_path):
    rows = [["Sales"], [], ["year", "sum"], [2019, 5], [], [2020, 6], [], ["town", "people"], ["Ulm", 126_000]]
    assert tables(read(saved(tmp_path, S=rows))) == [
        ["Sales", "year | sum", "2019 | 5", "2020 | 6"],
        ["town | people", "Ulm | 126000"],
    ]


def test_table_titles_are_lines_of_text_wherever_they_stand():
    table = table_element([["", "", "", "Rain"], ["", "month", "mm"], ["", "May", "7"], ["", "", "8"]], caption="Table 1")
    assert table.text == "Table 1\nRain\nmonth | mm\nMay | 7\n | 8"
    assert head_lines(table.text.splitlines()) == 3


def test_table_without_words_is_none():
    assert table_element([["", " "], []]) is None


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_is_read_with_the_delimiter_it_uses(tmp_path, delimiter):
    lines = ["name", "note", "sum"], ["Müller", f'"a{delimiter} ""b"""', "1"], ["x", "y", "2"]
    (tmp_path / "a.csv").write_text("\n".join(map(delimiter.join, lines)))
    assert tables(read(tmp_path / "a.csv")) == [
        ["name | note | sum", f'Müller | {" ".join(f"a{delimiter}".split())} "b" | 1', "x | y | 2"]
    ]


def test_csv_streams_in_parts_that_resume(tmp_path):
    (tmp_path / "a.csv").write_text("name,sum\n" + "".join(f"n{n},{n}\n" for n in range(1200)))
    parts = read(tmp_path / "a.csv")
    assert [table[0] for table in tables(parts)] == ["name | sum"] * 3
    assert [line for table in tables(parts) for line in table[1:]] == [f"n{n} | {n}" for n in range(1200)]
    assert read(tmp_path / "a.csv", start_part=2) == parts[2:]


@pytest.mark.fault
def test_csv_with_a_quote_that_never_closes_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sheets, "_MAX_FIELD", 10_000)
    (tmp_path / "a.csv").write_text('a,b\n1,"' + "x,y\n" * 10_000)
    with pytest.raises(CorruptError, match="never closes"):
        read(tmp_path / "a.csv")


@pytest.mark.fault
def test_xlsx_with_a_stray_cell_in_the_last_corner_is_refused_with_the_reason(tmp_path):
    book = openpyxl.Workbook()
    book.active["A1"], book.active["XFD1048576"] = "here", "there"
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(CorruptError, match="delete the stray ones"):
        read(tmp_path / "a.xlsx")


@pytest.mark.fault
@pytest.mark.parametrize("broken", ["xl/workbook.xml", "xl/worksheets/sheet1.xml"])
def test_xlsx_with_broken_xml_is_a_typed_error(tmp_path, broken):
    source = zipfile.ZipFile(io.BytesIO(saved(tmp_path, S=[["a"]]).read_bytes()))
    with source, zipfile.ZipFile(tmp_path / "a.xlsx", "w") as target:
        for name in source.namelist():
            target.writestr(name, b"<sheets" if name == broken else source.read(name))
    with pytest.raises(CorruptError, match="broken or protected workbook"):
        read(tmp_path / "a.xlsx")
