"""What may be quoted, and how it reads."""

from __future__ import annotations

import pytest

from ultrafast_rag.answer.units import cell_named, is_evidence, leans_back, unit_at, units_of
from ultrafast_rag.types import Hit

TABLE = "in millions | 2018 | 2017\nNet sales | 32,765 | 31,657\nCost of sales | (1,200) | 980"


def hit(text, modality="text", **rest):
    return Hit(1, "d", "report.pdf", modality, text, 0.9, **rest)


def test_sentences_keep_their_place_in_the_text():
    text = "The lamp  burns\n12 watts. It is  new. The lamp burns 12 W."
    units = units_of(hit(text))
    assert [unit.shown for unit in units] == ["The lamp burns 12 watts.", "It is new.", "The lamp burns 12 W."]
    assert [" ".join(text[unit.start : unit.end].split()) for unit in units] == [unit.shown for unit in units]
    assert unit_at(units, text.rindex("12")).place == (0, 2)
    assert unit_at(units, len(text) + 5) is None


def test_list_numbers_and_bullets_go():
    assert [unit.shown for unit in units_of(hit("• Close the valve. "))] == ["Close the valve."]
    assert [unit.shown for unit in units_of(hit("(b) Open the valve slowly"))] == ["Open the valve slowly"]


@pytest.mark.parametrize(
    ("row", "question", "said"),
    [
        (0, "What were net sales in 2018?", "Net sales, 2018: 32,765 (in millions)"),
        (0, "Net sales of 2017", "Net sales, 2017: 31,657 (in millions)"),
        (1, "What did sales cost in 2018?", "Cost of sales, 2018: (1,200) (in millions)"),
        (1, "What did sales cost in 2018 and 2017?", ""),
        (1, "What did sales cost?", ""),
    ],
)
def test_a_cell_is_named_by_its_row_and_the_column_of_the_question(row, question, said):
    assert cell_named(units_of(hit(TABLE, "table"))[row], question) == said


def test_a_later_row_of_years_names_the_columns_below_it():
    text = "Year | 2018 | 2017\nSales | 5 | 6\nYear | 2016 | 2015\nSales | 7 | 8"
    assert cell_named(units_of(hit(text, "table"))[-1], "sales 2015") == "Sales, 2015: 8"


def test_rows_read_without_bars():
    shown = [unit.shown for unit in units_of(hit(TABLE, "table"))]
    assert shown == ["Net sales: 32,765 (2018), 31,657 (2017)", "Cost of sales: (1,200) (2018), 980 (2017)"]


@pytest.mark.parametrize(
    "text",
    [
        "3.2 Evaluation . . . . . . . . . . . . . 17",
        "Introduction ........................ 4",
        "[12] J. Smith and A. Jones. Lamps of the north. Journal of Light, 2014. pp. 3-9",
        "A. Vaswani et al. Attention is all you need. In Proceedings of NeurIPS",
        "17",
        "12.4 31.7 88",
        "Results",
    ],
)
def test_contents_lines_references_and_bare_figures_are_no_evidence(text):
    assert not is_evidence(text)


@pytest.mark.parametrize(
    "text",
    [
        "The pump moves 40 litres a minute.",
        "Net sales: 32,765 (2018)",
        "水塔的高度是四十米。",
        "In 2014 the committee met twice.",
    ],
)
def test_sentences_that_say_something_are_evidence(text):
    assert is_evidence(text)


def test_a_sentence_that_begins_with_a_pronoun_leans_on_the_one_before():
    assert leans_back("It weighs 3 kg.")
    assert leans_back("However, the valve stays shut.")
    assert not leans_back("The item weighs 3 kg.")


def test_a_caption_above_a_table_is_no_header_and_words_name_columns():
    text = "Table 2-1 FUNCTION_USAGE view\nColumn name | Data type | Description\nUSER_NAME | VARCHAR(10) | Name of the user."
    units = units_of(hit(text, "table"))
    assert [unit.shown for unit in units] == [
        "Table 2-1 FUNCTION_USAGE view",
        "USER_NAME: VARCHAR(10) (Data type), Name of the user. (Description)",
    ]
    assert cell_named(units[1], "Which data type has USER_NAME?") == "USER_NAME, Data type: VARCHAR(10)"


def test_list_items_and_headings_on_lines_of_their_own_are_not_joined_to_sentences():
    text = "Word processing became essential.\n• WordStar (1978): Made for the CP/M operating\nsystem. It was early.\nBoots Nut"
    shown = [unit.shown for unit in units_of(hit(text))]
    assert shown == [
        "Word processing became essential.",
        "WordStar (1978): Made for the CP/M operating system.",
        "It was early.",
        "Boots Nut",
    ]
