"""Tables of figures drawn here cell by cell, read back row by row; the truth is what was drawn."""

import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.extract.pdf.reader import PdfExtractor
from ultrafast_rag.extract.pdf.tables import _rows_within
from ultrafast_rag.ingest.chunk import Chunker
from ultrafast_rag.language.rows import is_figure, is_period

pymupdf = pytest.importorskip("pymupdf")

PROSE = "The valve opens when the pressure in the chamber rises above its limit and the spring gives way to it. "
YEARS = ["", "2018", "2017", "2016"]
ROWS = [
    ["Net sales", "$ 32,765", "$ 31,657", "$ 30,109"],
    ["Operating expenses"],
    ["Cost of sales", "16,682", "16,055", "15,118"],
    ["Selling, general and administrative expenses", "7,602", "6,626", "6,311"],
    ["Gain on sale of businesses", "(547)", "(586)", "(111)"],
    ["Operating income", "7,207", "7,692", "7,027"],
    ["Other expense (income), net", "207", "144", "-"],
    ["Net income including noncontrolling interest", "$ 5,363", "$ 4,869", "$ 5,058"],
]
RIGHT = (380, 460, 540)


def width(text, size=9):
    return pymupdf.get_text_length(text, fontsize=size)


def put(page, x, y, text, *, size=9):
    page.insert_text((x, y), text, fontsize=size)


def put_right(page, x, y, text):
    put(page, x - width(text), y, text)


def shown(rows):
    return "\n".join(" | ".join(row) if len(row) > 1 else row[0] for row in rows)


def draw(page, rows, *, top=150, left=60, right=RIGHT, pitch=14, by_column=False, dollars_apart=False, leaders=False):
    """Cells as a typesetter puts them: labels left, figures right-aligned, row by row or column by column."""
    places = [(r, c) for r, row in enumerate(rows) for c in range(len(row))]
    for r, c in sorted(places, key=lambda place: place[::-1]) if by_column else places:
        text, y = rows[r][c], top + r * pitch
        if c == 0 and leaders and len(rows[r]) > 1 and text:
            text += " " + "." * int((right[0] - 60 - left - width(text)) / width("."))
        if c == 0:
            put(page, left, y, text)
        elif dollars_apart and text.startswith("$ "):
            put(page, right[c - 1] - 50, y, "$")
            put_right(page, right[c - 1], y, text[2:])
        else:
            put_right(page, right[c - 1], y, text)


def read(tmp_path, document):
    path = tmp_path / "a.pdf"
    document.save(path)
    return [element for part in PdfExtractor(Config()).extract(path) for element in part.elements]


def tables_of(elements):
    return [element.text for element in elements if element.kind == "table"]


def page_with_prose():
    document = pymupdf.open()
    page = document.new_page()
    page.insert_textbox((60, 40, 540, 110), PROSE * 4, fontsize=10)
    page.insert_textbox((60, 330, 540, 400), PROSE * 4, fontsize=10)
    return document, page


@pytest.mark.parametrize("drawn", [{}, {"by_column": True}, {"dollars_apart": True}, {"leaders": True}])
def test_a_statement_without_rules_is_one_table_with_its_years_and_units(tmp_path, drawn):
    document, page = page_with_prose()
    put(page, 60, 132, "(Millions, except per share amounts)")
    draw(page, [YEARS, *ROWS], **drawn)
    elements = read(tmp_path, document)
    assert tables_of(elements) == [shown([["(Millions, except per share amounts)"], YEARS, *ROWS])]
    assert [e.kind for e in elements] == ["text", "table", "text"]


def test_one_column_of_figures_stays_with_its_labels(tmp_path):
    document, page = page_with_prose()
    rows = [row[:2] for row in ROWS]
    draw(page, rows, by_column=True)
    assert tables_of(read(tmp_path, document)) == [shown(rows)]


def test_figures_in_one_string_are_cut_into_columns(tmp_path):
    document, page = page_with_prose()
    for number, row in enumerate([YEARS, *ROWS]):
        text = row[0].ljust(46) + "".join(cell.rjust(12) for cell in row[1:])
        page.insert_text((60, 150 + number * 12), text, fontsize=8, fontname="cour")
    assert tables_of(read(tmp_path, document)) == [shown([YEARS, *ROWS])]


def test_heads_over_several_columns_and_wrapped_labels_are_made_whole(tmp_path):
    document, page = page_with_prose()
    right = (330, 400, 470, 540)
    put(page, 310, 136, "Three months ended")
    put(page, 450, 136, "Nine months ended")
    rows = [
        ["", "2018", "2017", "2018", "2017"],
        ["Assets"],
        ["Cash and cash equivalents, including restricted"],
        ["cash of variable interest entities", "2,853", "3,053", "2,853", "3,054"],
        ["Accounts receivable, net of allowances of"],
        ["$95 and $103", "5,020", "4,911", "5,021", "4,912"],
        ["Total inventories", "4,366", "4,034", "4,367", "4,035"],
    ]
    draw(page, rows, right=right, pitch=13)
    (table,) = tables_of(read(tmp_path, document))
    assert table.splitlines() == [
        " | Three months ended | Three months ended | Nine months ended | Nine months ended",
        " | 2018 | 2017 | 2018 | 2017",
        "Assets",
        "Cash and cash equivalents, including restricted cash of variable interest entities | 2,853 | 3,053 | 2,853 | 3,054",
        "Accounts receivable, net of allowances of $95 and $103 | 5,020 | 4,911 | 5,021 | 4,912",
        "Total inventories | 4,366 | 4,034 | 4,367 | 4,035",
    ]


@pytest.mark.parametrize(("first", "second"), [("Net sales", "Operating income"), ("Revenues from customers", "Income")])
def test_short_heads_in_the_middle_of_several_columns_stand_over_all_of_them_and_over_no_other(tmp_path, first, second):
    document = pymupdf.open()
    page = document.new_page(width=792, height=612)
    put(page, 320, 60, "NOTE 12. SEGMENT INFORMATION", size=11)
    put(page, 370, 76, "(In millions)")
    right = (250, 310, 380, 450, 560, 630, 700)
    put_right(page, right[0], 110, "Plants")
    put(page, 366 - width(first) / 2, 96, first)
    put(page, 620 - width(second) / 2, 96, second)
    years = ["", "", "2018", "2017", "2016", "2018", "2017", "2016"]
    rows = [["Hardware", "3", "3,497", "1,120", "4,675", "1,670", "1,298", "491"]]
    rows += [["Cloud", "5", "7,782", "8,626", "5,531", "659", "1,593", "1,932"], ["Total", "8", *["9,999"] * 6]]
    draw(page, [years, *rows], top=110, right=right)
    elements = read(tmp_path, document)
    assert elements[0].text == "NOTE 12. SEGMENT INFORMATION"
    (table,) = tables_of(elements)
    assert table.splitlines() == [
        "(In millions)",
        " | ".join(["", "", *[first] * 3, *[second] * 3]),
        " | Plants | 2018 | 2017 | 2016 | 2018 | 2017 | 2016",
        *(" | ".join(row) for row in rows),
    ]


def test_rows_at_a_pages_edges_keep_their_figures_and_words_that_come_again(tmp_path):
    document = pymupdf.open()
    places = ["Tornvik", "Holm", "Skarness", "Varna", "Lund", "Kiel", "Jena", "Ulm"]
    rows = [[f"{name} {part}", "Leased", str(100 + 7 * n)] for part in ("north", "south") for n, name in enumerate(places)]
    for first in (0, 8):
        page = document.new_page()
        draw(page, [["Location", "Status", "Area"]] if not first else [], top=48, right=(300, 400))
        draw(page, rows[first : first + 4], top=62, right=(300, 400))
        draw(page, rows[first + 4 : first + 8], top=720, right=(300, 400))
        put(page, 290, 790, str(first + 1))  # the page's number
    told = "\n".join(tables_of(read(tmp_path, document)))
    assert [line for line in told.splitlines() if "Leased" in line] == [" | ".join(row) for row in rows]
    assert "\n1" not in told


def test_prose_in_the_next_column_is_no_part_of_a_table_and_the_table_no_part_of_it(tmp_path):
    document = pymupdf.open()
    page = document.new_page()
    assert page.insert_textbox((50, 60, 290, 420), PROSE * 12, fontsize=9) > 0
    assert page.insert_textbox((310, 60, 550, 140), PROSE * 2, fontsize=9) > 0
    rows = [["", "2018", "2017"], *(row[:3] for row in ROWS if len(row) > 2)]
    draw(page, [[row[0][:24].strip(), *row[1:]] for row in rows], top=165, left=310, right=(490, 550), pitch=10.4)
    assert page.insert_textbox((310, 250, 550, 420), PROSE * 5, fontsize=9) > 0
    elements = read(tmp_path, document)
    assert tables_of(elements) == [shown([[row[0][:24].strip(), *row[1:]] for row in rows])]
    text = " ".join(e.text for e in elements if e.kind == "text")
    assert text.count(PROSE.strip()) == 19
    assert not any(char.isdigit() for char in text)


def test_a_lone_figure_stays_with_its_label_and_contents_are_no_table(tmp_path):
    document, page = page_with_prose()
    put(page, 60, 170, "Weighted average shares outstanding, diluted")
    put(page, 420, 170, "602.0")
    entries = [("Business", "3"), ("Risk factors", "9"), ("Properties", "14"), ("Legal proceedings", "15"), ("Exhibits", "120")]
    for number, (entry, at) in enumerate(entries):
        put(page, 60, 210 + 20 * number, entry)
        put_right(page, 540, 210 + 20 * number, at)
    elements = read(tmp_path, document)
    assert tables_of(elements) == []
    text = "\n".join(e.text for e in elements)
    assert "Weighted average shares outstanding, diluted 602.0" in text
    assert all(f"{entry} … {at}" in text for entry, at in entries)


def test_a_table_of_contents_is_no_table_by_its_name(tmp_path):
    document, page = page_with_prose()
    put(page, 60, 130, "TABLE OF CONTENTS")
    draw(page, [["Business", "3"], ["Risk factors", "7"], ["Properties", "15"], ["Legal proceedings", "19"]], right=(540,))
    assert not tables_of(read(tmp_path, document))


def test_bullets_and_formulas_are_no_tables(tmp_path):
    document, page = page_with_prose()
    for number, words in enumerate(["Open the valve", "Read the gauge", "Close the valve", "Write it down"]):
        put(page, 70, 150 + 14 * number, "-")
        put(page, 90, 150 + 14 * number, words)
    for number in range(4):
        put(page, 150, 220 + 20 * number, f"x + y = z + {number}")
        put_right(page, 540, 220 + 20 * number, f"({number + 1})")
    assert tables_of(read(tmp_path, document)) == []


def test_a_picture_claims_no_rows_of_figures(tmp_path):
    document, page = page_with_prose()
    draw(page, [YEARS, *ROWS])
    for number in range(24):  # bars and lines behind and around it, as in a designed report
        page.draw_rect((55 + number * 20, 138, 68 + number * 20, 262), color=(0.9, 0.9, 1), fill=(0.95, 0.95, 1))
    elements = read(tmp_path, document)
    assert tables_of(elements) == [shown([YEARS, *ROWS])]
    assert not any("16,682" in e.text for e in elements if e.kind != "table")


def test_rows_between_two_rules_of_a_grid_are_rows_of_their_own():
    cells = [["CRC-32", "CRC-64"], ["2.08", "2.09"], [], ["1.79", "1.80"]]
    assert _rows_within(cells) == [["CRC-32", "2.08", "", "1.79"], ["CRC-64", "2.09", "", "1.80"]]
    wrapped = [["Net", "sales"], ["of the", "group"]]
    assert _rows_within(wrapped) == [["Net sales", "of the group"]]
    assert _rows_within([["Net", "sales"], ["5"]]) == [["Net sales", "5"]]


def test_a_title_ends_a_table_and_heads_stand_over_their_columns_in_order(tmp_path):
    document = pymupdf.open()
    page = document.new_page()
    regions = [["", "2021", "2020"], ["Europe", "512.4", "478.8"], ["Americas", "358.1", "(322.5"], ["Asia", "272.2", "235.6"]]
    draw(page, regions, right=(320, 440))
    put_right(page, 446, 150 + 2 * 14, ")")
    put(page, 60, 212, "Sales by division", size=12)
    divisions = [["Bioprocess", "603.3", "521.0"], ["Lab", "388.6", "371.2"], ["Weighing", "150.8", "144.7"]]
    put(page, 260, 230, "Owned")  # to the left of its figures
    put(page, 420, 230, "Leased")
    draw(page, divisions, top=244, right=(380, 500))
    first, second = tables_of(read(tmp_path, document))
    assert first.splitlines() == [
        " | 2021 | 2020",
        "Europe | 512.4 | 478.8",
        "Americas | 358.1 | (322.5)",
        "Asia | 272.2 | 235.6",
    ]
    assert second.splitlines()[:2] == [" | Owned | Leased", "Bioprocess | 603.3 | 521.0"]


def test_a_grid_takes_the_row_of_heads_above_it(tmp_path):
    document, page = page_with_prose()
    for column, text in enumerate(["Channel", "Used for", "Hours"]):
        put(page, 78 + column * 110, 193, text)
    rows = [["16", "distress calls", "always"], ["12", "harbour", "06 to 22"], ["8", "boats", "when out"]]
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            put(page, 78 + column * 110, 215 + row * 22, cell)
            page.draw_rect((72 + column * 110, 200 + row * 22, 182 + column * 110, 222 + row * 22))
    assert tables_of(read(tmp_path, document)) == [shown([["Channel", "Used for", "Hours"], *rows])]


def test_a_raised_mark_in_a_grid_is_no_digit_of_its_figure(tmp_path):
    document, page = page_with_prose()
    rows = [["Country", "People"], ["Austria", "8,935,112"], ["France", "67,413,000"]]
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            put(page, 78 + column * 110, 215 + row * 22, cell)
            if row == column == 1:
                page.insert_text((188 + pymupdf.get_text_length(cell, fontsize=9), 234), "3,7", fontsize=6)
            page.draw_rect((72 + column * 110, 200 + row * 22, 182 + column * 110, 222 + row * 22))
    (text,) = tables_of(read(tmp_path, document))
    assert text == shown([rows[0], ["Austria", "8,935,112(3,7)"], rows[2]])


@pytest.mark.parametrize("grid", [True, False])
def test_a_mark_set_as_a_word_of_its_own_is_no_figure_of_its_row(tmp_path, grid):
    document, page = page_with_prose()
    rows = [["Country", "2021", "2020"], ["Austria", "8,935,112", "8,901,064"], ["France", "67,413,000", "67,287,000"]]
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            put(page, 78 + column * 110, 215 + row * 22, cell)
            if row == 1 and column:
                page.insert_text((191 + (column - 1) * 110 + pymupdf.get_text_length(cell, fontsize=9), 234), "3,7", fontsize=5)
            if grid:
                page.draw_rect((72 + column * 110, 200 + row * 22, 182 + column * 110, 222 + row * 22))
    (text,) = tables_of(read(tmp_path, document))
    assert text == shown([rows[0], ["Austria", "8,935,112(3,7)", "8,901,064(3,7)"], rows[2]])


class Words:
    """One token a word."""

    max_tokens = 256

    def tokenize(self, texts):
        return [[len(word) for word in text.split()] for text in texts]


def test_no_chunk_of_a_long_statement_is_without_labels_or_years(tmp_path):
    document, page = page_with_prose()
    rows = [
        [f"Line {number} of the statement", f"{number},765", f"{number},657", f"{number},1{number}9"] for number in range(10, 23)
    ]
    put(page, 60, 132, "(in thousands)")
    draw(page, [YEARS, *rows])
    path = tmp_path / "a.pdf"
    document.save(path)
    chunker = Chunker(Config(chunk_tokens=60), Words()).start()
    chunks = [chunk for part in PdfExtractor(Config()).extract(path) for chunk in chunker.chunk(part)]
    pieces = [chunk for chunk in chunks if chunk.modality == "table"]
    assert len(pieces) >= 4
    for piece in pieces:
        lines = piece.text.splitlines()
        assert lines[:2] == ["(in thousands)", " | 2018 | 2017 | 2016"]
        assert all(line.startswith("Line ") for line in lines[2:])
    assert not any(is_figure(word) and not is_period(word) for c in chunks if c.modality == "text" for word in c.text.split())


@pytest.mark.public
def test_public_tables_keep_their_heads(public_data):
    parts = list(
        PdfExtractor(Config()).extract(public_data / "pdf_varied/pypdf-sample-files/026-latex-multicolumn/multicolumn.pdf")
    )
    (table,) = [e.text for part in parts for e in part.elements if e.kind == "table"]
    lines = table.splitlines()
    assert lines[0].startswith("Table 1: EU Countries")
    assert lines[1] == "Country | Population (millions) | Area (km2) | Capital | Official Language"


@pytest.mark.parametrize("turned", [0, 90])
def test_the_finder_sees_the_same_grid_with_the_words_and_paths_it_is_given(turned):
    from pymupdf import table

    from ultrafast_rag.extract.pdf.drawn import DrawnPage
    from ultrafast_rag.extract.pdf.tables import _finder_options, _given_words, _paths_in

    with pymupdf.open() as book:
        page = book.new_page()
        for row in range(5):
            for column in range(4):
                page.draw_rect((60 + 100 * column, 100 + 24 * row, 160 + 100 * column, 124 + 24 * row))
                if row:  # the first row stays empty
                    put(page, 66 + 100 * column, 116 + 24 * row, f"cell {row}.{column}")
        page.draw_rect((60, 400, 460, 500))  # frames without a word are no table
        page.draw_rect((60, 400, 260, 500))
        page.set_rotation(turned)
        drawn, own = DrawnPage(page), table.make_chars
        plain = [found.cells for found in page.find_tables(**_finder_options()).tables]
        with _given_words(drawn.words):
            assert table.make_chars is not own
            paths = _paths_in(drawn, tuple(page.rect))
            given = [found.cells for found in page.find_tables(paths=paths, **_finder_options()).tables]
            near = _paths_in(drawn, tuple(drawn.drawings[-1]["rect"]))
        kept = [path["rect"] for path in drawn.drawings]
    assert table.make_chars is own
    assert given == plain
    assert [len(cells) for cells in plain] == [20]
    assert len(near) == 2
    assert len(paths) == len(kept) == 22
    assert kept == [path["rect"] for path in drawn.drawings]


def test_years_that_come_again_head_a_table_of_their_own_under_the_line_that_names_it(tmp_path):
    document, page = page_with_prose()
    sales = [["Pumps", "$ 3,497", "$ 3,120", "$ 2,675"], ["Valves", "7,782", "7,626", "5,531"]]
    assets = [["Pumps", "$ 11,000", "$ 10,500"], ["Valves", "9,120", "9,010"]]
    put(page, 60, 136, "Net sales")
    draw(page, [YEARS, *sales])
    put(page, 60, 206, "Assets")
    put(page, 60, 218, "(Millions)")
    draw(page, [["", "2018", "2017"], *assets], top=230, right=(430, 520))
    first, second = tables_of(read(tmp_path, document))
    assert first == shown([["Net sales"], YEARS, *sales])
    assert second == shown([["Assets"], ["(Millions)"], ["", "2018", "2017"], *assets])


def test_one_row_of_figures_under_years_is_a_table(tmp_path):
    document, page = page_with_prose()
    rows = [["", "2019", "2020", "2021"], ["Amortization expense", "$ 177", "$ 159", "$ 147"]]
    draw(page, rows)
    assert tables_of(read(tmp_path, document)) == [shown(rows)]


@pytest.mark.parametrize("rows", [ROWS[2:5], [["Cost of sales", "$ 9", "$ 8", "$ 7"], ["Rent", "1", "2", "3"]]])
def test_one_head_in_the_middle_of_three_years_stands_over_each(tmp_path, rows):
    document, page = page_with_prose()
    put(page, 450 - width("Fiscal Years") / 2, 136, "Fiscal Years")
    draw(page, [YEARS, *rows])
    assert tables_of(read(tmp_path, document))[0].splitlines()[0] == " | Fiscal Years | Fiscal Years | Fiscal Years"


def test_heads_of_one_column_each_that_wrap_are_spread_over_no_other(tmp_path):
    document, page = page_with_prose()
    heads = [["", "", "Additional", ""], ["", "", "Paid-in", "Treasury"], ["", "Total", "Capital", "Stock"]]
    rows = [["Balance", "9,867", "3,103", "(9,725)"], ["Net income", "2,102", "-", "-"], ["Reacquired", "(1,805)", "-", "(1,8)"]]
    draw(page, [*heads, *rows])
    top, middle, *_ = tables_of(read(tmp_path, document))[0].splitlines()
    assert top.split(" | ")[1:] == ["", "Additional", ""]
    assert middle.split(" | ")[2:] == ["Paid-in", "Treasury"]


def test_a_date_that_wraps_in_a_label_is_no_column(tmp_path):
    document, page = page_with_prose()
    rows = [["", "Total", "Capital"], ["Balance at December"], ["31, 2016", "9,867", "3,103"], ["Net income", "2,102", "-"]]
    draw(page, [*rows, ["Balance at December"], ["31, 2017", "9,055", "3,784"]])
    table = tables_of(read(tmp_path, document))[0].splitlines()
    assert table[1] == "Balance at December 31, 2016 | 9,867 | 3,103"
    assert table[-1] == "Balance at December 31, 2017 | 9,055 | 3,784"


def test_the_day_of_a_date_over_years_that_wraps_is_no_row_of_figures(tmp_path):
    document, page = page_with_prose()
    put(page, 450 - width("Years Ended December") / 2, 126, "Years Ended December")
    put(page, 450 - width("31,") / 2, 138, "31,")
    draw(page, [YEARS, *ROWS[2:5]])
    head, years, *_ = tables_of(read(tmp_path, document))[0].splitlines()
    assert head == " | Years Ended December 31, | Years Ended December 31, | Years Ended December 31,"
    assert years == " | 2018 | 2017 | 2016"


PLACES = [
    (["Ames, Iowa"], ["Manufacturing and", "warehouse"], ["Fluids"], ["1,122,000"], ["Leased"]),
    (["Columbia,", "Missouri"], ["Offices"], ["Safety and", "Inspection"], ["410,000"], ["Owned"]),
    (["Wroclaw, Poland"], ["Customer service", "center"], ["Consumer"], ["394,000"], ["Leased"]),
    (["Pune, India"], ["Manufacturing"], ["Fluids"], ["70,000"], ["Owned"]),
]


@pytest.mark.parametrize("upward", [True, False])
def test_a_register_of_words_has_a_row_a_thing_however_its_cells_wrap(tmp_path, upward):
    document, page = page_with_prose()
    lefts, y = (60, 150, 260, 340, 440), 150
    for x, head in zip(lefts, ("Location", "Principal use", "Segment", "Square feet", "Tenure")):
        page.insert_text((x, 138), head, fontsize=9, fontname="hebo")
    for place in PLACES:
        tall = max(map(len, place))
        for x, cell in zip(lefts, place):
            for n, text in enumerate(cell):
                put(page, x, y + 11 * (n + (tall - len(cell) if upward else 0)), text)
        y += 11 * tall
    (table,) = tables_of(read(tmp_path, document))
    assert table.splitlines() == [
        "Location | Principal use | Segment | Square feet | Tenure",
        *(" | ".join(map(" ".join, place)) for place in PLACES),
    ]
