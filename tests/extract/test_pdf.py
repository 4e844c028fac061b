"""PDFs drawn here with known words at known places, read back."""

import io

import numpy as np
import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, EncryptedError, ExtractionError
from ultrafast_rag.extract import ocr
from ultrafast_rag.extract.pdf.figures import _CELL, _begun, _clusters
from ultrafast_rag.extract.pdf.reader import PdfExtractor, page_head, render_page
from ultrafast_rag.extract.pdf.words import Vocabulary, join_lines, readable
from ultrafast_rag.types import Element

pymupdf = pytest.importorskip("pymupdf")
Image = pytest.importorskip("PIL.Image")

PROSE = "The valve opens when the pressure in the chamber rises above its limit and the spring gives way to it. "


def save(tmp_path, document, name="a.pdf", **options):
    path = tmp_path / name
    document.save(path, **options)
    document.close()
    return path


def read(path, config=None, **options):
    return list(PdfExtractor(config or Config()).extract(path, **options))


def of_kind(parts, kind):
    return [element for part in parts for element in part.elements if element.kind == kind]


def photo(width=320, height=200, shade=90):
    """A JPEG with a gradient, so that no two shades are the same file."""
    picture = Image.linear_gradient("L").resize((width, height)).point(lambda value: (value + shade) % 256).convert("RGB")
    out = io.BytesIO()
    picture.save(out, "JPEG")
    return out.getvalue()


def test_pdf_reads_two_columns_left_then_right_under_a_spanning_title(tmp_path):
    document = pymupdf.open()
    page = document.new_page()
    page.insert_text((150, 70), "A Study of Valves", fontsize=22)
    for column, x in enumerate((60, 315)):
        for paragraph in range(3):
            text = f"Column {column} paragraph {paragraph} begins. " + PROSE * 3
            assert page.insert_textbox((x, 110 + paragraph * 150, x + 230, 250 + paragraph * 150), text, fontsize=10) > 0
    (part,) = read(save(tmp_path, document))
    assert part.elements[0].kind == "heading"
    assert part.elements[0].text == "A Study of Valves"
    assert part.title == "A Study of Valves"
    starts = [e.text[:18] for e in part.elements[1:]]
    assert starts == [f"Column {column} paragraph" for column in (0, 1) for _ in range(3)]
    assert [e.text.split()[3] for e in part.elements[1:]] == ["0", "1", "2"] * 2
    assert part.elements[1].text.count("gives way to it.") == 3
    assert all(e.page == 1 for e in part.elements)
    x0, y0, x1, y1 = part.elements[1].bbox
    assert 58 < x0 < 62
    assert 105 < y0 < 116
    assert x1 < 292
    assert y1 < 252


def test_pdf_columns_written_line_by_line_across_both_are_read_one_after_the_other(tmp_path):
    left = ["The lake lies 212 m above the sea and", "freezes from December to March. Its"]
    left += ["deepest place, off the north shore, is", "61 m."]
    right = ["Perch and pike are common. The largest", "pike, which was taken by Ole Brandt, a"]
    right += ["smith, in the summer after the flood", "weighed 19.3 kg."]
    document = pymupdf.open()
    page = document.new_page()
    for line, texts in enumerate(zip(left, right)):
        for x, text in zip((60, 320), texts):
            page.insert_text((x, 100 + 13 * line), text, fontsize=10)
    (part,) = read(save(tmp_path, document))
    assert [element.text for element in part.elements] == [" ".join(left), " ".join(right)]


def test_pdf_headings_get_levels_from_numbering_size_and_outline(tmp_path):
    document = pymupdf.open()
    page = document.new_page()
    y = 60
    for text, size, font in [
        ("Handbook", 26, "helv"),
        (PROSE, 10, "helv"),
        ("2 Pumps", 15, "hebo"),
        (PROSE, 10, "helv"),
        ("2.1 Small pumps", 12, "hebo"),
        (PROSE, 10, "helv"),
        ("Plain listed entry", 10, "helv"),
        (PROSE, 10, "helv"),
    ]:
        page.insert_text((72, y), text[:90], fontsize=size, fontname=font)
        y += 50
    document.set_toc([[1, "Handbook", 1], [2, "Plain listed entry", 1]])
    headings = of_kind(read(save(tmp_path, document)), "heading")
    assert [(e.text, e.level) for e in headings] == [
        ("Handbook", 1),
        ("2 Pumps", 2),
        ("2.1 Small pumps", 2),
        ("Plain listed entry", 2),
    ]


def test_pdf_mends_words_broken_at_line_ends():
    assert (
        join_lines(["the pres-", "sure of state-of-the-", "art pumps, e-", "Mail"])
        == "the pressure of state-of-the-art pumps, e-Mail"
    )
    assert join_lines(["soft\xad", "ware"]) == "software"


ROWS = [
    ["Part", "Torque", "Interval"],
    ["M8 bolt", "25 Nm", "yearly"],
    ["M10 bolt", "49 Nm", "monthly"],
    ["M12 nut", "85 Nm", "weekly"],
]


def draw_table(page, *, grid, top=200):
    if grid:
        for row in range(len(ROWS) + 1):
            page.draw_line((72, top + row * 22), (402, top + row * 22))
        for column in range(4):
            page.draw_line((72 + column * 110, top), (72 + column * 110, top + len(ROWS) * 22))
    for row, cells in enumerate(ROWS):
        for column, cell in enumerate(cells):
            page.insert_text((78 + column * 110, top + 15 + row * 22), cell, fontsize=10)


@pytest.mark.parametrize("grid", [True, False])
def test_pdf_tables_come_as_rows_with_caption_and_crop_and_not_again_as_text(tmp_path, grid):
    document = pymupdf.open()
    page = document.new_page()
    page.insert_textbox((72, 60, 500, 160), PROSE * 3, fontsize=10)
    page.insert_text((72, 192), "Table 3: Torques of bolts", fontsize=10)
    draw_table(page, grid=grid)
    page.insert_textbox((72, 330, 500, 430), PROSE * 2, fontsize=10)
    parts = read(save(tmp_path, document))
    (table,) = of_kind(parts, "table")
    assert table.text == "\n".join(["Table 3: Torques of bolts", *(" | ".join(row) for row in ROWS)])
    assert Image.open(io.BytesIO(table.data)).size[0] > 100
    assert table.bbox[0] == pytest.approx(75, abs=5)
    assert table.bbox[1] == pytest.approx(203, abs=6)
    others = [e.text for e in parts[0].elements if e.kind != "table"]
    assert len(others) == 2
    assert not any("Nm" in text or "Torques" in text for text in others)
    assert [e.kind for e in parts[0].elements] == ["text", "table", "text"]


def test_pdf_pictures_come_once_with_caption_and_the_sentence_that_names_them(tmp_path):
    document = pymupdf.open()
    for number in range(3):
        page = document.new_page()
        page.insert_textbox((72, 60, 500, 130), PROSE + "As Figure 7 shows, the spring is stiff. " + PROSE, fontsize=10)
        page.insert_image((500, 20, 560, 60), stream=photo(200, 133, shade=1))  # a logo on every page
        page.insert_image((540, 800, 550, 810), stream=photo(400, 400, shade=50))  # tiny
        if number == 1:
            page.insert_image((100, 200, 420, 400), stream=photo())
            page.insert_text((100, 416), "Figure 7: The spring under load", fontsize=9)
    parts = read(save(tmp_path, document))
    pictures = of_kind(parts, "image")
    assert [p.page for p in pictures] in ([2], [1, 2])  # the logo may come once
    picture = pictures[-1]
    assert picture.text.splitlines()[0] == "Figure 7: The spring under load"
    assert "As Figure 7 shows, the spring is stiff." in picture.text
    assert picture.bbox == pytest.approx((100, 200, 420, 400), abs=1)
    shown = Image.open(io.BytesIO(picture.data))
    assert shown.size == pytest.approx((320, 200), abs=2)  # not blown up beyond its own pixels
    assert not any("Figure 7: The" in e.text for e in of_kind(parts, "text"))


def test_pdf_vector_chart_is_a_picture_with_its_labels(tmp_path):
    document = pymupdf.open()
    page = document.new_page()
    page.insert_textbox((72, 60, 500, 160), PROSE * 3, fontsize=10)
    months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug"]
    page.draw_line((100, 400), (420, 400))
    page.draw_line((100, 220), (100, 400))
    for at, month in enumerate(months):
        page.draw_rect((110 + at * 38, 400 - 20 * (at + 1), 140 + at * 38, 400), fill=(0, 0, 1), color=(0, 0, 1))
        page.insert_text((112 + at * 38, 411), month, fontsize=8)
    page.insert_text((100, 440), "Figure 2: Rainfall by month", fontsize=10)
    parts = read(save(tmp_path, document))
    (chart,) = of_kind(parts, "image")
    assert chart.text.splitlines()[0] == "Figure 2: Rainfall by month"
    assert " ".join(months) in chart.text
    assert not any("Feb" in e.text for e in of_kind(parts, "text"))
    assert max(Image.open(io.BytesIO(chart.data)).size) in (511, 512)


def test_pdf_running_heads_and_page_numbers_are_dropped(tmp_path):
    document = pymupdf.open()
    for number in range(5):
        page = document.new_page()
        page.insert_text((72, 40), "Annual report of the valve society", fontsize=9)
        page.insert_textbox((72, 100, 500, 300), f"Body {number}. " + PROSE * 4, fontsize=10)
        page.insert_text((300, 810), f"Page {number + 1} of 5", fontsize=9)
    texts = [e.text for e in of_kind(read(save(tmp_path, document)), "text")]
    assert sum("valve society" in text for text in texts) <= 1
    assert not any(text.startswith("Page") for text in texts)
    assert sum(text.startswith("Body") for text in texts) == 5


def test_pdf_the_head_of_a_page_with_its_number_is_dropped_at_once_but_no_heading_with_its_number(tmp_path):
    document = pymupdf.open()
    for number in (2, 3):
        page = document.new_page()
        page.insert_text((200, 84), "Ada Holm, Ole Brandt" if number % 2 else "Lamps of the north", fontsize=10)
        page.insert_text((510 if number % 2 else 72, 84), str(number), fontsize=10)
        page.insert_textbox((72, 108, 520, 300), f"with body {number}. " + PROSE * 4, fontsize=10)
    page = document.new_page()
    page.insert_text((72, 84), "4", fontsize=14)
    page.insert_text((90, 84), "Results of the lamps", fontsize=14)
    page.insert_textbox((72, 108, 520, 300), PROSE * 4, fontsize=10)
    first, second, third = read(save(tmp_path, document))
    assert [e.text[:11] for e in (*first.elements, *second.elements)] == ["with body 2", "with body 3"]
    assert second.head.startswith("Ada Holm, Ole Brandt\nwith body 3")
    assert third.elements[0].text == "4 Results of the lamps"


def test_pdf_numbered_headings_at_the_top_of_pages_are_no_running_heads(tmp_path):
    document = pymupdf.open()
    for number in range(4):
        page = document.new_page()
        page.insert_text((72, 34), f"3.{number // 2} Lamps", fontsize=9)
        page.insert_text((72, 62), f"Definition {7 + 3 * number}", fontsize=10, fontname="hebo")
        page.insert_textbox((72, 80, 520, 300), PROSE * 4, fontsize=10)
        page.insert_text((250, 810), f"Volume 12, sheet {number + 31}", fontsize=9, fontname="hebo")
    elements = [e for part in read(save(tmp_path, document)) for e in part.elements]
    assert [e.text for e in elements if e.text.startswith("Def")] == [
        "Definition 7",
        "Definition 10",
        "Definition 13",
        "Definition 16",
    ]
    assert sum(e.text.startswith("Volume") for e in elements) == 1


def test_pdf_a_title_set_line_by_line_is_one_heading(tmp_path):
    document = pymupdf.open()
    page = document.new_page()
    page.insert_text((72, 80), "Conducting Meta-Analyses with the", fontsize=18)
    page.insert_text((250, 106), "Lamp Package", fontsize=18)
    page.insert_text((72, 160), "Introduction", fontsize=18)
    page.insert_textbox((72, 180, 520, 400), PROSE * 4, fontsize=10)
    (part,) = read(save(tmp_path, document))
    assert [e.text for e in part.elements if e.kind == "heading"] == [
        "Conducting Meta-Analyses with the Lamp Package",
        "Introduction",
    ]


@pytest.mark.skipif(not ocr.available(), reason="tesseract is not installed")
def test_pdf_scanned_page_is_read_by_ocr(tmp_path):
    drawn = pymupdf.open()
    page = drawn.new_page()
    page.insert_text((72, 120), "Tighten the flange to forty newton metres.", fontsize=18)
    shot = page.get_pixmap(dpi=150).tobytes("png")
    document = pymupdf.open()
    document.new_page().insert_image((0, 0, 595, 842), stream=shot)
    path = save(tmp_path, document)
    (part,) = read(path)
    assert "Tighten the flange to forty newton metres." in " ".join(e.text for e in part.elements if e.kind == "text")
    assert part.elements[0].metadata["ocr"] is True
    (unread,) = read(path, Config(ocr=False))
    assert unread.notes == ("page 1 has no text layer and OCR is switched off",)
    assert [e.kind for e in unread.elements] == ["image"]


@pytest.mark.public
@pytest.mark.skipif(not ocr.available(), reason="tesseract is not installed")
@pytest.mark.parametrize("turn", [90, 180, 270])
def test_pdf_scanned_page_is_read_whichever_way_up(turn, public_data):
    parts = read(public_data / f"pdf_varied/docling/ocr/sources/ocr_test_rotated_{turn}.pdf")
    words = " ".join(e.text for e in of_kind(parts, "text"))
    assert "Docling bundles PDF document conversion to JSON and Markdown" in words


def test_pdf_without_tesseract_says_which_page_stays_unread(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    ocr.available.cache_clear()
    document = pymupdf.open()
    document.new_page()
    document.new_page().insert_image((0, 0, 595, 842), stream=photo())
    try:
        blank, scan = read(save(tmp_path, document))
    finally:
        ocr.available.cache_clear()
    assert (blank.elements, blank.notes) == ((), ())
    assert "page 2 has no text layer; install tesseract" in scan.notes[0]


def test_pdf_index_pages_adds_each_page_as_a_picture(tmp_path):
    document = pymupdf.open()
    document.new_page().insert_text((72, 100), "Some words on a slide", fontsize=20)
    (part,) = read(save(tmp_path, document), Config(index_pages=True))
    whole = part.elements[-1]
    assert whole.metadata == {"whole_page": True}
    assert max(Image.open(io.BytesIO(whole.data)).size) in (511, 512)
    assert whole.text == "Some words on a slide"


def test_pdf_index_pages_shows_a_scanned_page_once(tmp_path):
    document = pymupdf.open()
    document.new_page().insert_image((0, 0, 595, 842), stream=photo(), keep_proportion=False)
    page = document.new_page()
    page.insert_text((72, 100), "A page with a photograph beside its words, and so two pictures.", fontsize=11)
    page.insert_image((72, 200, 300, 400), stream=photo(shade=10))
    path = save(tmp_path, document)
    scan, mixed = read(path, Config(index_pages=True, ocr=False))
    assert [e.metadata.get("whole_page") for e in of_kind([scan], "image")] == [True]
    assert [e.metadata.get("whole_page") for e in of_kind([mixed], "image")] == [None, True]


def test_pdf_resumes_at_a_page(tmp_path):
    document = pymupdf.open()
    for number in range(6):
        document.new_page().insert_text((72, 100), f"Words of page {number + 1} are these.")
    parts = read(save(tmp_path, document), start_part=4)
    assert [(part.number, part.total, part.elements[0].text) for part in parts] == [
        (4, 6, "Words of page 5 are these."),
        (5, 6, "Words of page 6 are these."),
    ]


def test_pdf_rotated_page_is_read_and_placed_as_shown(tmp_path):
    document = pymupdf.open()
    page = document.new_page(width=400, height=600)
    page.insert_text((350, 500), "Turned words to be read.", fontsize=12, rotate=90)
    page.set_rotation(90)
    (part,) = read(save(tmp_path, document))
    assert part.elements[0].text == "Turned words to be read."
    x0, y0, x1, y1 = part.elements[0].bbox
    assert x1 - x0 > 4 * (y1 - y0)
    assert 0 <= x0 <= x1 <= 600


@pytest.mark.parametrize(
    ("title", "shown"),
    [("Valves in Practice", "Valves in Practice"), ("Microsoft Word - x.doc", "a"), ("untitled", "a"), ("", "a")],
)
def test_pdf_title_is_taken_from_metadata_only_when_sensible(tmp_path, title, shown):
    document = pymupdf.open()
    document.new_page().insert_text((72, 100), "words of the only page, all alike", fontsize=10)
    document.set_metadata({"title": title})
    assert read(save(tmp_path, document))[0].title == shown


@pytest.mark.fault
def test_pdf_with_an_empty_password_opens_and_a_real_one_is_named(tmp_path):
    def made():
        document = pymupdf.open()
        document.new_page().insert_text((72, 100), "kept secret")
        return document

    aes = pymupdf.PDF_ENCRYPT_AES_256
    opens = save(tmp_path, made(), "owner.pdf", encryption=aes, owner_pw="owner", user_pw="")
    assert read(opens)[0].elements[0].text == "kept secret"
    closed = save(tmp_path, made(), "user.pdf", encryption=aes, owner_pw="owner", user_pw="real")
    with pytest.raises(EncryptedError, match="needs a password"):
        read(closed)


NO_PAGES = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n"
    b"trailer<</Root 1 0 R>>\n%%EOF"
)


@pytest.mark.fault
@pytest.mark.parametrize("content", [NO_PAGES, b"%PDF-1.7\n" + bytes(range(256)) * 9, b"just words", b"%PDF-1.4"])
def test_pdf_that_cannot_be_opened_is_a_corrupt_error(tmp_path, content):
    path = tmp_path / "a.pdf"
    path.write_bytes(content)
    with pytest.raises(CorruptError, match=r"a\.pdf"):
        read(path)


@pytest.mark.fault
def test_pdf_broken_page_is_a_failed_part_and_the_rest_is_read(tmp_path):
    document = pymupdf.open()
    for number in range(4):
        document.new_page().insert_text((72, 100), f"Words of page {number + 1} are these.")
    last = document.page_xref(3)
    document.xref_set_key(last, "Type", "/Pages")  # a page that claims to be a list of pages holding itself
    document.xref_set_key(last, "Kids", f"[{last} 0 R]")
    document.xref_set_key(document.page_xref(1), "Contents", f"{document.page_xref(0)} 0 R")  # a dictionary for a stream
    parts = read(save(tmp_path, document))
    assert [(part.number, bool(part.failure)) for part in parts] == [(0, False), (1, True), (2, False), (3, True)]
    assert "page 4 could not be read" in parts[3].failure
    assert [e.text for part in parts for e in part.elements] == ["Words of page 1 are these.", "Words of page 3 are these."]


@pytest.mark.fault
def test_pdf_picture_over_the_pixel_cap_is_left_out_before_decoding(tmp_path):
    document = pymupdf.open()
    page = document.new_page()
    page.insert_text((72, 60), "A page with a huge picture.")
    page.insert_image((100, 200, 420, 400), stream=photo())
    path = save(tmp_path, document)
    (part,) = read(path, Config(max_image_pixels=1000))
    assert of_kind([part], "image") == []
    assert "64000 pixels" in part.notes[0]
    with pytest.raises(CorruptError, match="over 1000 pixels"):
        render_page(path, 1, max_px=300, max_pixels=1000)


def test_render_page_crops_to_the_passage(tmp_path):
    document = pymupdf.open()
    page = document.new_page()
    page.draw_rect((100, 100, 200, 150), fill=(1, 0, 0), color=(1, 0, 0))
    path = save(tmp_path, document)
    whole = Image.open(io.BytesIO(render_page(path, 1, max_px=842, max_pixels=10**8)))
    assert whole.size == (595, 842)
    assert whole.getpixel((150, 125)) == (255, 0, 0)
    crop = Image.open(io.BytesIO(render_page(path, 1, clip=(100, 100, 200, 150), max_px=248, max_pixels=10**8)))
    assert crop.size == (248, 148)  # 124 x 74 points with the margin, two pixels a point
    assert crop.getpixel((124, 74)) == (255, 0, 0)
    assert crop.getpixel((4, 4)) == (255, 255, 255)
    with pytest.raises(ExtractionError, match="has no page 2; it has 1"):
        render_page(path, 2, max_px=100, max_pixels=10**8)


def test_pdfium_reads_the_words_where_pymupdf_may_not_be_used(tmp_path):
    pytest.importorskip("pypdfium2")
    from ultrafast_rag.extract.pdf.pdfium import PdfiumExtractor

    document = pymupdf.open()
    for number in range(3):
        document.new_page().insert_text((72, 100), f"Words of page {number + 1} are these.")
    document.set_metadata({"title": "Three pages"})
    parts = list(PdfiumExtractor(Config()).extract(save(tmp_path, document), start_part=1))
    assert [(p.number, p.total, p.title, p.elements[0].text, p.elements[0].page) for p in parts] == [
        (1, 3, "Three pages", "Words of page 2 are these.", 2),
        (2, 3, "Three pages", "Words of page 3 are these.", 3),
    ]
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(CorruptError):
        list(PdfiumExtractor(Config()).extract(tmp_path / "bad.pdf"))


def test_drawings_that_share_a_cell_of_the_grid_are_one_figure():
    rng = np.random.default_rng(3)
    corners = rng.uniform(-20, 400, (150, 2))
    boxes = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners.tolist(), rng.uniform(0, 30, (150, 2)).tolist(), strict=True)]
    cells = [
        {
            (c, r)
            for c in range(int(max(x0, 0) // _CELL), int(max(x1, 0) // _CELL) + 2)
            for r in range(int(max(y0, 0) // _CELL), int(max(y1, 0) // _CELL) + 2)
        }
        for x0, y0, x1, y1 in boxes
    ]
    groups = []  # merged until nothing touches
    for box, covered in zip(boxes, cells, strict=True):
        touching = [group for group in groups if group[1] & covered]
        groups = [group for group in groups if not group[1] & covered]
        groups.append(([box, *(b for group in touching for b in group[0])], covered.union(*(group[1] for group in touching))))
    expected = sorted(sorted(members) for members, _ in groups)
    assert sorted(sorted(group) for group in _clusters(boxes)) == expected
    assert 1 < len(expected) < 150


def test_pdf_page_head_names_what_runs_over_every_page_and_what_opens_this_one(tmp_path):
    document = pymupdf.open()
    for number in range(3):
        page = document.new_page()
        page.insert_text((72, 40), "Tide Company, consolidated statements", fontsize=9)
        page.insert_text((72, 100), f"Part {number} of the report", fontsize=10)
        page.insert_textbox((72, 130, 500, 400), PROSE * 6, fontsize=10)
    heads = [part.head for part in read(save(tmp_path, document))]
    for number, head in enumerate(heads):
        assert head.startswith(f"Tide Company, consolidated statements\nPart {number} of the report\nThe valve")
        assert 200 < len(head) <= 260
        assert head.split()[-1] in PROSE.split()


def test_what_stands_around_a_figure_ends_with_a_whole_word():
    assert _begun("The keeper climbs. " * 20).endswith("The keeper climbs. The keeper …")
    assert _begun("灯" * 400) == "灯" * 300 + " …"


def test_pdf_page_head_takes_a_tables_heads_and_no_row_of_figures():
    table = "(In millions)\n | 2019 | 2018\nASSETS\nInventories | 402 | 395\nGoodwill | 684 | 684"
    elements = [Element("heading", "BALANCE SHEETS", level=1), Element("table", table), Element("text", "See the notes.")]
    assert page_head(["Tide Company"], elements).split("\n") == [
        "Tide Company", "BALANCE SHEETS", "(In millions)", "| 2019 | 2018", "See the notes.",
    ]  # fmt: skip


def test_pdf_slides_stand_apart_and_pages_do_not(tmp_path):
    document = pymupdf.open()
    for width, height in ((960, 540), (595, 842)):
        document.new_page(width=width, height=height).insert_text((72, 100), "Words to be read.")
    assert [part.apart for part in read(save(tmp_path, document))] == [True, False]


def test_pdf_broken_words_are_mended_by_the_documents_own_vocabulary():
    words = Vocabulary()
    words.learn(
        ["A task-specific head, and some thing", "or pressure, with under and stand in it; the infor-", "mation of two tides"]
    )
    assert join_lines(["fine-tuned task-", "specific heads"], words) == "fine-tuned task-specific heads"
    assert join_lines(["the pres-", "sure rose"], words) == "the pressure rose"
    assert join_lines(["a head-", "thing"], words) == "a head-thing"  # both are words here, the whole is not
    assert join_lines(["we under-", "stand"], words) == "we understand"
    assert join_lines(["GPT-2-", "level scores"], words) == "GPT-2-level scores"
    assert join_lines(["pre-", "and post-war"], words) == "pre- and post-war"
    assert join_lines(["no infor-", "mation"], words) == "no information"
    assert join_lines(["Revenue -", "net"], words) == "Revenue - net"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("of the\nvalve", "of the valve"),
        ("the company\x00s l\x00eau", "the company’s l’eau"),
        ("\x01 first point", "• first point"),
        ("2k\x00n", "2kn"),
        ("ﬁne\tprint\n", "fine print "),
    ],
)
def test_pdf_control_characters_become_what_they_stand_for(raw, text):
    assert readable(raw) == text


def test_pdf_footnote_marks_stand_apart_from_words_and_numbers(tmp_path):
    document = pymupdf.open()
    page = document.new_page()
    for y, pieces in (
        (100, ["The Resource Center", "1", " reports."]),
        (130, ["Sales of 32,765", "2", " rose."]),
        (160, ["An area of 5 km", "2", "."]),
    ):
        x = 72
        for piece in pieces:
            size, up = (6, 4) if piece in "12" else (11, 0)
            page.insert_text((x, y - up), piece, fontsize=size)
            x += pymupdf.get_text_length(piece, fontsize=size)
    text = " ".join(" ".join(e.text for e in of_kind(read(save(tmp_path, document)), "text")).split())
    assert text == "The Resource Center 1 reports. Sales of 32,765(2) rose. An area of 5 km2."


@pytest.mark.parametrize("note", ["", "1 So he said himself, and nobody else did."])
def test_pdf_word_broken_between_pages_is_whole_on_the_second(tmp_path, note):
    document = pymupdf.open()
    page = document.new_page()
    page.insert_textbox((72, 300, 500, 390), PROSE * 4, fontsize=11)
    page.insert_text((72, 400), "The keeper wrote down all infor-", fontsize=11)
    page.insert_text((72, 700), note, fontsize=7)
    document.new_page().insert_text((72, 100), "mation about the tides.", fontsize=11)
    first, second = read(save(tmp_path, document))
    assert first.elements[1].text == "The keeper wrote down all infor-"
    assert second.elements[0].text == "information about the tides."


def title_of(tmp_path, lines, **metadata):
    document = pymupdf.open()
    page = document.new_page()
    for number, (text, size) in enumerate(lines):
        page.insert_text((72, 60 + 45 * number), text, fontsize=size)
    page.insert_textbox((72, 600, 500, 760), PROSE * 5, fontsize=10)
    document.set_metadata(metadata)
    return read(save(tmp_path, document, "tide_2018_10K.pdf"))[0].title


@pytest.mark.parametrize(
    ("lines", "metadata", "title"),
    [
        ([("On Tides and Wind", 20), ("1 Introduction", 22)], "", "On Tides and Wind"),
        ([("Washington, D.C. 20549", 18), ("FORM 10-K", 16), ("Tide Company", 14)], "FORM 10-K", "Tide Company: FORM 10-K"),
        ([("Front cover", 26), ("A Guide to Locks", 18)], "", "A Guide to Locks"),
        ([("A Guide to Locks", 18), ("Redpaper", 30)], "", "A Guide to Locks"),
        ([("Handbook", 26), ("of station nine", 18)], "", "Handbook"),
        ([("1 Introduction", 16)], "", "tide_2018_10K"),
        ([("On Tides", 20)], r"C:\\users\\x\\report.doc", "On Tides"),
        ([("On Tides", 20)], "Annual Report 2018", "On Tides"),
        ([("On Tides", 20)], "Tides of the North", "Tides of the North"),
        ([("On Tides", 20)], "CMR10", "On Tides"),
    ],
)
def test_pdf_title_names_this_document_and_no_other(tmp_path, lines, metadata, title):
    assert title_of(tmp_path, lines, title=metadata) == title


def test_pdf_title_is_known_where_reading_resumes(tmp_path):
    document = pymupdf.open()
    page = document.new_page()
    page.insert_text((72, 60), "On Tides", fontsize=22)
    page.insert_textbox((72, 100, 500, 200), PROSE * 2, fontsize=10)
    document.new_page().insert_text((72, 60), "Springs", fontsize=22)
    assert [part.title for part in read(save(tmp_path, document), start_part=1)] == ["On Tides"]


def test_pdf_statement_titles_in_capitals_of_body_size_are_headings(tmp_path):
    document = pymupdf.open()
    page = document.new_page()
    page.insert_text((200, 80), "CONSOLIDATED BALANCE SHEETS", fontsize=10)
    page.insert_textbox((72, 110, 500, 260), PROSE * 3, fontsize=10)
    page.insert_text((72, 300), "CREATE MASK HR_SCHEMA ON EMPLOYEES", fontsize=10)
    (part,) = read(save(tmp_path, document))
    assert [e.text for e in part.elements if e.kind == "heading"] == ["CONSOLIDATED BALANCE SHEETS"]


def test_pdf_lines_alike_in_two_columns_of_one_page_are_no_running_heads(tmp_path):
    document = pymupdf.open()
    page = document.new_page()
    for x in (60, 320):
        page.insert_textbox((x, 50, x + 230, 400), PROSE * 6, fontsize=10)
    (part,) = read(save(tmp_path, document))
    assert " ".join(e.text for e in part.elements).count(PROSE.strip()) == 12
