"""Chunks are bounded by sentences and by the encoder's limit, and carry where they came from."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultrafast_rag.config import Config
from ultrafast_rag.ingest.chunk import Chunker
from ultrafast_rag.language.rows import head_lines
from ultrafast_rag.language.sentences import split_sentences
from ultrafast_rag.types import PAGE_HEAD, Element, Part


class WordTokenizer:
    """One id a word (the word's length): hand-countable."""

    max_tokens = 256

    def tokenize(self, texts):
        return [[len(word) for word in re.findall(r"\S+", text)] for text in texts]


def chunk(elements, *, title="", **settings):
    chunker = Chunker(Config(**settings), WordTokenizer())
    return chunker.start(title=title).chunk(Part(0, tuple(elements), title=title))


def prose(sentences, words):
    return " ".join(" ".join([f"Word{n}"] + ["word"] * (words - 2) + ["end."]) for n in range(sentences))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One here. Two there! Three?", ["One here.", "Two there!", "Three?"]),
        ("Dr. Weiss saw Fig. 3 at once. She left.", ["Dr. Weiss saw Fig. 3 at once.", "She left."]),
        ("It rose 3.5 mm. Then it fell.", ["It rose 3.5 mm.", "Then it fell."]),
        ("雨が降った。風も吹いた。", ["雨が降った。", "風も吹いた。"]),
        ("Über alles. Öl brennt.", ["Über alles.", "Öl brennt."]),
        ('He said "Go." Then left.', ['He said "Go."', "Then left."]),
        ("", []),
    ],
)
def test_split_sentences_finds_hand_marked_boundaries(text, sentences):
    assert split_sentences(text) == sentences


def test_chunks_hold_whole_sentences_within_the_budget():
    chunks = chunk([Element("text", prose(20, 10), page=3)], chunk_tokens=35, chunk_overlap=0)
    assert [len(c.token_ids) for c in chunks] == [30] * 6 + [20]
    assert all(c.text.endswith("end.") and c.page == 3 for c in chunks)


def test_overlap_repeats_the_last_whole_sentence():
    chunks = chunk([Element("text", prose(6, 10))], chunk_tokens=40, chunk_overlap=1)
    for before, after in pairwise(chunks):
        assert split_sentences(before.text)[-1] == split_sentences(after.text)[0]


def test_context_travels_with_the_chunk_but_is_not_its_text():
    elements = [Element("heading", "Tides", level=1), Element("heading", "Spring", level=2), Element("text", "High water came.")]
    (only,) = chunk(elements, title="Handbook")
    assert (only.context, only.text) == ("Handbook > Tides > Spring", "High water came.")
    assert only.token_ids == tuple(WordTokenizer().tokenize(["Handbook Tides Spring High water came."])[0])


def test_of_a_long_context_the_innermost_headings_are_encoded():
    long = " ".join(["outermost"] * 20)
    elements = [Element("heading", long, level=1), Element("heading", "Neap tides", level=2), Element("text", "Low water.")]
    (only,) = chunk(elements, title="A handbook of some words")
    assert only.context == f"A handbook of some words > {long} > Neap tides"
    assert only.token_ids == tuple(len(word) for word in f"{long} Neap tides Low water.".split())
    (cut,) = chunk([Element("heading", " ".join(["word"] * 40), level=1), Element("text", "Low water.")])
    assert len(cut.token_ids) == 24 + 2


def test_sections_survive_an_interruption():
    chunker = Chunker(Config(), WordTokenizer())
    first = chunker.start(title="T")
    first.chunk(Part(0, (Element("heading", "A", level=1), Element("heading", "B", level=2), Element("text", "One."))))
    resumed = chunker.start(title="T", section=first.section)
    (chunk_b,) = resumed.chunk(Part(1, (Element("text", "Two."),)))
    assert chunk_b.context == "T > A > B"
    (chunk_c,) = resumed.chunk(Part(2, (Element("heading", "C", level=2), Element("text", "Three."))))
    assert chunk_c.context == "T > A > C"


def test_a_sentence_over_the_limit_is_cut_and_nothing_is_lost():
    text = " ".join(f"w{n}" for n in range(1000))
    chunks = chunk([Element("text", text)], chunk_tokens=50, chunk_overlap=0)
    assert " ".join(c.text for c in chunks).split() == text.split()
    assert max(len(c.token_ids) for c in chunks) <= 50


def test_a_long_table_repeats_its_header():
    rows = ["Month | Rain"] + [f"M{n} | {n}" for n in range(60)]
    chunks = chunk([Element("table", "\n".join(rows), bbox=(0, 0, 9, 9), data=b"crop")], chunk_tokens=60)
    assert len(chunks) > 1
    assert all(c.text.startswith("Month | Rain") and c.modality == "table" for c in chunks)
    assert [c.data for c in chunks] == [b"crop"] + [None] * (len(chunks) - 1)


def test_a_table_stands_under_the_sentence_that_leads_to_it():
    text = "Rent was 5 in 2018. Minimum lease payments after 2018 were:"
    lines = "| 2019 | 2020\nTotal | 7 | 8"
    found = chunk([Element("text", text), Element("table", lines), Element("text", "It ends."), Element("table", lines)])
    tables = [c.text for c in found if c.modality == "table"]
    led = f"Minimum lease payments after 2018 were:\n{lines}"
    assert tables == [led, lines]
    chunker = Chunker(Config(), WordTokenizer()).start()
    pages = [Part(0, (Element("text", text), Element("text", "17"))), Part(1, (Element("table", lines),))]
    assert [c.text for part in pages for c in chunker.chunk(part) if c.modality == "table"] == [led]


def test_speech_keeps_its_seconds():
    spoken = [Element("speech", f"Sentence number {n} here.", start_s=n * 5.0, end_s=n * 5.0 + 4) for n in range(4)]
    chunks = chunk(spoken, chunk_tokens=8, chunk_overlap=0)
    assert [(c.modality, c.start_s, c.end_s) for c in chunks] == [("audio", 0.0, 9.0), ("audio", 10.0, 19.0)]


def test_a_passage_of_speech_is_no_longer_than_one_listens():
    spoken = [Element("speech", f"Sentence {n}.", start_s=n * 5.0, end_s=n * 5.0 + 4) for n in range(7)]
    chunks = chunk(spoken, chunk_tokens=100, chunk_overlap=0, speech_chunk_s=15.0)
    assert [(c.start_s, c.end_s) for c in chunks] == [(0.0, 14.0), (15.0, 29.0), (30.0, 34.0)]
    long = [Element("speech", "One. Two. Three.", start_s=0.0, end_s=30.0), Element("speech", "Four.", start_s=30.0, end_s=33.0)]
    assert [c.text for c in chunk(long, chunk_tokens=100, chunk_overlap=0)] == ["One. Two. Three.", "Four."]


def test_boxes_are_united():
    (only,) = chunk([Element("text", "A b.", bbox=(10, 10, 20, 20)), Element("text", "C d.", bbox=(5, 25, 18, 40))])
    assert only.bbox == (5, 10, 20, 40)
    assert only.text == "A b.\nC d."


def test_fixed_chunks_count_tokens_and_ignore_sentences():
    chunks = chunk([Element("text", prose(9, 10))], chunker="fixed", chunk_tokens=32, chunk_overlap=0)
    assert [len(c.token_ids) for c in chunks] == [32, 32, 26]


def test_semantic_chunks_break_where_meaning_turns():
    def embed(ids):
        vectors = np.zeros((len(ids), 2), np.float32)
        vectors[np.arange(len(ids)), [0 if n < 5 else 1 for n in range(len(ids))]] = 1
        return vectors

    chunker = Chunker(Config(chunker="semantic", chunk_tokens=100, chunk_overlap=0), WordTokenizer(), embed=embed)
    chunks = chunker.start().chunk(Part(0, (Element("text", prose(9, 10)),)))
    assert [len(c.token_ids) for c in chunks] == [50, 40]


def test_a_page_of_headings_alone_is_still_found():
    (only,) = chunk([Element("heading", "Handbook", level=1), Element("heading", "Station Nine", level=2)])
    assert only.text == "Handbook\nStation Nine"


@given(st.lists(st.text(min_size=1, max_size=400), min_size=1, max_size=5), st.integers(4, 40))
def test_no_chunk_is_over_the_budget_and_no_word_is_lost(texts, budget):
    chunks = chunk([Element("text", text) for text in texts], chunk_tokens=budget, chunk_overlap=0)
    assert all(len(c.token_ids) <= budget for c in chunks)
    squeezed = "".join("".join(c.text.split()) for c in chunks)
    assert squeezed == "".join("".join(text.split()) for text in texts)


STATEMENT = [
    "Table 4: Results",
    "(in millions) |  |",
    "Years ended December 31, | 2018 | 2017",
    "Revenue: |  |",
    *(f"Line {n} | {n},765 | {n},657" for n in range(30)),
]


def test_each_piece_of_a_table_has_all_its_heads_and_no_row_twice():
    chunks = chunk([Element("table", "\n".join(STATEMENT))], chunk_tokens=90)
    assert len(chunks) >= 3
    assert all(c.text.splitlines()[:3] == STATEMENT[:3] for c in chunks)
    assert [line for c in chunks for line in c.text.splitlines()[3:]] == STATEMENT[3:]


def test_a_first_row_of_names_over_a_column_of_figures_is_a_head_though_a_name_has_a_figure():
    assert head_lines(["Index | Name | Phone 1", "1 | Roy Berry | 539-402", "2 | Linda Olsen | 001-808"]) == 1
    assert head_lines(["Tide 1 | low | 5", "Tide 2 | high | 6", "Tide 3 | low | 7"]) == 0


def pages(*elements_of):
    chunker = Chunker(Config(), WordTokenizer()).start()
    return [chunker.chunk(Part(number, tuple(elements))) for number, elements in enumerate(elements_of)]


HEADED = Element("table", "in millions | 2018 | 2017\nNet sales | 5 | 6\nCosts | 7 | 8")
REST = Element("table", "Taxes | 1 | 2\nNet income | 3 | 4")


def test_a_table_that_goes_on_over_pages_keeps_its_heads():
    _, (_, second), (third,) = pages([HEADED], [Element("text", "Page 2"), REST], [REST])
    assert second.text == third.text == f"in millions | 2018 | 2017\n{REST.text}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([HEADED, Element("text", "Sales rose. " * 10)], [REST]),
        ([HEADED], [Element("text", "Sales rose. " * 10), REST]),
        ([HEADED], [Element("table", "Taxes | 1\nNet income | 3")]),
        ([HEADED], [Element("table", " | 2018 | 2016\nTaxes | 1 | 2\nNet income | 3 | 4")]),
    ],
)
def test_another_table_on_the_next_page_keeps_its_own_heads_or_none(before, after):
    assert "2017" not in pages(before, after)[1][-1].text


def test_a_row_of_data_is_not_taken_for_the_head_of_a_table_without_one():
    rows = [f"Line {n} | {n},765 | {n},657" for n in range(30)]
    chunks = chunk([Element("table", "\n".join(rows))], chunk_tokens=60)
    assert [line for c in chunks for line in c.text.splitlines()] == rows


def test_a_caption_too_long_to_repeat_stands_once_and_the_heads_in_every_piece():
    caption = " ".join(["caption"] * 40)
    rows = [caption, "Month | Rain | Sun", *(f"M{n} | {n} | {n}" for n in range(40))]
    chunks = chunk([Element("table", "\n".join(rows))], chunk_tokens=80)
    assert [c.text.splitlines()[c is chunks[0]] for c in chunks] == [rows[1]] * len(chunks)
    assert sum(c.text.count(caption) for c in chunks) == 1
    assert all(len(c.token_ids) <= 80 for c in chunks)


def test_headings_directly_after_one_another_are_all_kept():
    names = ["Tide Company", "Consolidated balance sheets", "December 31"]
    elements = [*(Element("heading", name, level=2) for name in names), Element("table", "Cash | 5"), Element("text", "Then.")]
    table, text = chunk(elements, title="Report")
    assert table.context == text.context == "Report > " + " > ".join(names)
    elements += [Element("heading", "Notes", level=2), Element("text", "Words.")]
    assert chunk(elements, title="Report")[-1].context == "Report > Notes"


def test_a_list_of_headings_and_one_that_closes_a_page_are_passages():
    contents = [Element("heading", f"Item {n}", level=3) for n in range(9)]
    listed, text, closing = chunk(
        [Element("heading", "Part I", level=1), *contents, Element("text", "Words."), Element("heading", "Signatures", level=2)]
    )
    assert listed.text.splitlines() == ["Part I", *(e.text for e in contents)]
    assert (text.context, closing.text, closing.context) == ("Part I > Item 8", "Signatures", "Part I")


def test_headings_end_where_a_part_stands_apart():
    chunker = Chunker(Config(), WordTokenizer()).start(title="Slides")
    chunker.chunk(Part(0, (Element("heading", "Costs", level=1), Element("text", "Many."))))
    (kept,) = chunker.chunk(Part(1, (Element("text", "More."),)))
    (apart,) = chunker.chunk(Part(2, (Element("text", "Tides rise."),), apart=True))
    assert (kept.context, apart.context) == ("Slides > Costs", "Slides")


def test_the_head_of_a_page_goes_with_every_chunk_that_does_not_say_it():
    elements = (Element("heading", "Balance sheets", level=2), Element("text", "Cash rose. " * 3), Element("table", "Cash | 5"))
    part = Part(0, elements, head="Tide Company\nBalance sheets\nCash rose.")
    text, table = Chunker(Config(), WordTokenizer()).start(title="R").chunk(part)
    assert (text.metadata[PAGE_HEAD], table.metadata[PAGE_HEAD]) == ("Tide Company", "Tide Company\nCash rose.")
    assert "Tide" not in text.text + text.context
    assert len(table.token_ids) == len("R Balance sheets Cash | 5".split())


@pytest.mark.parametrize(
    ("lines", "heads"),
    [
        (["Net sales | 32,765 | 31,657", "Costs | (1) | —"], 0),
        (["Part | Torque", "M8 bolt | 25 Nm"], 1),
        (["Company | Founded", "A | 1998", "B | 1999"], 1),
        (["Name | Role", "Jim | Engineer", "Al | Mate"], 1),
        ([" | Three months ended | ", " | 2018(a) | FY17", "Assets: | | ", "Cash | 5 | 6"], 2),
        (["Parameter | Value", "Model | BERT", "Layers | 12", "Heads | 8"], 1),
        (["Title", "December 31, | 2018", "Cash | $ 5"], 2),
    ],
)
def test_head_lines_are_told_by_what_they_hold(lines, heads):
    assert head_lines(lines) == heads
