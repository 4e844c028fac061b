"""What may be quoted, and how it reads."""

from __future__ import annotations

import pytest

from ultrafast_rag.answer.quotable import is_caption, is_evidence, lists_references
from ultrafast_rag.answer.tabular import caption_of, cell_named, label_asked, named_otherwise
from ultrafast_rag.answer.units import evidence_of, leans_back, units_of
from ultrafast_rag.language.dates import dates_shared, years_apart
from ultrafast_rag.types import PAGE_HEAD, Hit

TABLE = "in millions | 2018 | 2017\nNet sales | 32,765 | 31,657\nCost of sales | (1,200) | 980"


def hit(text, modality="text", **rest):
    return Hit(1, "d", "report.pdf", modality, text, 0.9, **rest)


def test_sentences_keep_their_place_in_the_text():
    text = "The lamp  burns\n12 watts. It is  new. The lamp burns 12 W."
    units = units_of(hit(text))
    assert [unit.shown for unit in units] == ["The lamp burns 12 watts.", "It is new.", "The lamp burns 12 W."]
    assert [" ".join(text[unit.start : unit.end].split()) for unit in units] == [unit.shown for unit in units]
    (held,) = (unit for unit in units if unit.start <= text.rindex("12") < unit.end)
    assert held.place == (0, 2)


def test_a_caption_is_quoted_whole_but_the_text_around_a_picture_by_sentences_without_the_one_cut_off():
    assert [unit.shown for unit in units_of(hit("A red boat. At sea", "image"))] == ["A red boat. At sea"]
    around = "Ada Holm built the lamp house. " * 7 + "It was finished in the year of"
    assert {unit.shown for unit in units_of(hit(around, "image"))} == {"Ada Holm built the lamp house."}
    assert {unit.shown for unit in units_of(hit(f"{around} …", "image"))} == {"Ada Holm built the lamp house."}


def test_list_numbers_and_bullets_go():
    assert [unit.shown for unit in units_of(hit("• Close the valve. "))] == ["Close the valve."]
    assert [unit.shown for unit in units_of(hit("(b) Open the valve slowly"))] == ["Open the valve slowly"]


@pytest.mark.parametrize(
    ("heading", "text"),
    [
        ("प्रकाशस्तंभ का इतिहास", "इसका रक्षक रामेश्वर प्रसाद था, जिसने तीस वर्ष तक दीपक जलाया।"),
        ("ประวัติประภาคาร", "หอคอยมีบันได 142 ขั้น ผู้ดูแลชื่อสมชาย ใจดี"),
        ("История маяка", "Смотрителем был Иван Петрович Соколов."),
        ("تاريخ المنارة", "كان الحارس اسمه سليم الحداد، وقد أشعل المصباح ثلاثين عاماً."),
    ],
)
def test_a_heading_in_any_script_is_no_part_of_the_sentence_below_it(heading, text):
    assert [unit.shown for unit in units_of(hit(f"{heading}\n{text}"))] == [heading, text]
    assert is_evidence(text)


def test_lines_wrapped_in_a_script_without_capitals_are_one_sentence():
    text = "यह प्रकाशस्तंभ उन्नीस सौ ग्यारह में\nबनाया गया था और इसके मीनार में एक\nसौ बयालीस सीढ़ियाँ हैं।"
    assert [unit.shown for unit in units_of(hit(text))] == [text.replace("\n", " ")]


def test_a_head_that_spans_the_last_columns_of_a_sheet_names_them_though_its_row_is_shorter():
    table = "Segment | Net sales |  | Operating income\n | 2018 | 2017 | 2018 | 2017\nCreative | 4868 | 2218 | 803 | 1464"
    (row,) = units_of(hit(table, "table"))
    assert cell_named(row, "What was the operating income of Creative in 2018?") == "Creative, Operating income, 2018: 803"
    assert row.shown.endswith("803 (Operating income, 2018), 1464 (Operating income, 2017)")


def test_a_heading_of_two_words_is_no_evidence_in_any_script():
    assert not any(map(is_evidence, ["История маяка", "تاريخ المنارة", "Général Dupont"]))
    assert all(map(is_evidence, ["В башне 142 ступени.", "Он умер.", "لون أحمر."]))
    assert is_evidence("灯塔历史")  # without spaces nobody can count its words


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


@pytest.mark.parametrize(
    ("head", "question", "said"),
    [
        (" | December 31, 2018 | December 31, 2017", "net sales FY2018", "Net sales, December 31, 2018: 5"),
        (" | FY18 | FY17", "What were net sales in fiscal 2017?", "Net sales, FY17: 6"),
        (" | 2018 | 2017 | Change", "net sales in 2017", "Net sales, 2017: 6"),
        (" | 2018 | 2017 | Change", "By how much did net sales change?", "Net sales, Change: 7"),
        (" | Phone | Email", "the e-mail address of net sales", "Net sales, Email: 6"),
        (" | Three months |  | Nine months | \n | 2018 | 2017 | 2018 | 2017", "net sales in nine months of 2018",
         "Net sales, Nine months, 2018: 7"),
        (" | Three months |  | Nine months | \n | 2018 | 2017 | 2018 | 2017", "net sales in 2018", ""),
    ],
)  # fmt: skip
def test_the_year_of_the_question_names_the_column_however_it_is_written(head, question, said):
    row = " | ".join(["Net sales", "5", "6", "7", "8"][: head.split("\n")[-1].count(" | ") + 1])
    assert cell_named(units_of(hit(f"{head}\n{row}", "table"))[-1], question) == said


def test_the_head_of_the_page_gives_the_unit_but_not_of_what_counts_by_the_share():
    text = " | 2018 | 2017\nNet sales | 5 | 6\nEarnings per share | 2.31 | 2.20"
    units = units_of(
        hit(text, "table", metadata={PAGE_HEAD: "Consolidated statements of income\n(In millions, except per share)"})
    )
    assert cell_named(units[0], "net sales 2018") == "Net sales, 2018: 5 (In millions)"
    assert cell_named(units[1], "earnings per share 2018") == "Earnings per share, 2018: 2.31"


@pytest.mark.parametrize("asked", ["7 January 2024", "7th Jan. 2024", "January 7, 2024", "2024-01-07"])
def test_a_date_is_the_same_however_it_is_written(asked):
    assert dates_shared(f"What was sold on {asked}?", "Widget C: 2024-01-07 (Date), 15 (Quantity)") == asked
    assert dates_shared(f"What was sold on {asked}?", "Widget C: 2024-01-17 (Date), 7 (Quantity)") == ""


@pytest.mark.parametrize(
    ("head", "question", "said"),
    [
        (" | Germany | France", "Which continent does Germany belong to?", "Continent, Germany: Europe"),
        ("Name | Data type | Values", "Of which type is the continent?", "Continent, Data type: Europe"),
        ("Name | People (millions) | Values", "How many people are on the continent?", "Continent, People (millions): Europe"),
        ("Name | Improvement | Values", "By what was the continent improved?", "Continent, Improvement: Europe"),
        ("Name | Freshwater ducks | Ducks", "Fresh water ducks of the continent", "Continent, Freshwater ducks: Europe"),
        ("Name | Net sales | Gross sales", "What were sales of the continent?", ""),
        ("Name | December 31, 2018 | Change", "Of the continent in December 2016", ""),
    ],
)  # fmt: skip
def test_a_column_is_named_by_forms_of_its_words_or_by_most_of_them(head, question, said):
    text = f"{head}\nContinent | Europe | Africa"
    assert cell_named(units_of(hit(text, "table"))[-1], question) == said


def test_a_row_that_ends_in_empty_cells_keeps_its_columns():
    units = units_of(hit(" | Germany | France | Vatican\nContinent | Europe |  |\nCapital | Berlin | Paris | Rome", "table"))
    assert units[0].shown == "Continent: Europe (Germany)"


def test_heads_of_two_rows_name_columns_together_and_are_no_rows():
    units = units_of(hit(" | Compress | Decompress\nFlag | usage | usage\n-1 | 1200k | 500k\n-5 | 4400k | 2100k", "table"))
    assert [unit.shown for unit in units] == [
        "-1: 1200k (Compress usage), 500k (Decompress usage)",
        "-5: 4400k (Compress usage), 2100k (Decompress usage)",
    ]


def test_a_row_of_words_under_the_heads_of_a_mixed_table_is_a_row():
    units = units_of(
        hit(" | Germany | France\nCapital | Berlin | Paris\nPeople | 83 | 67\nArea | 357 | 633\nMoney | Euro | Euro", "table")
    )
    assert units[0].shown == "Capital: Berlin (Germany), Paris (France)"


def test_a_line_of_accounts_is_known_by_its_other_names():
    rows = units_of(hit(" | 2018\nPurchases of property, plant and equipment | (152)\nDividends paid | (58)", "table"))
    assert [named_otherwise(row, "What was capex in 2018?") for row in rows] == ["capex", ""]


def test_the_caption_of_a_row_stands_above_its_table():
    assert (
        caption_of(units_of(hit("Table 1: EU countries\nCountry | Population\nDenmark | 5.8", "table"))[0])
        == "Table 1: EU countries"
    )
    assert caption_of(units_of(hit("In Denmark live 5.8 million people. It is flat."))[1]) == ""


def test_a_cell_of_nothing_but_a_colon_is_left_out():
    (unit,) = units_of(hit("Location | : | Indoor", "table"))
    assert unit.shown == "Location: Indoor"


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
        "7 2.9. AUTHOR …",
        "0 0.5 1 1.5 2 2.5 3 Slicing Blockword Multiword Number of processor cycles a byte.",
        "1 Definition of CRC … 2 2 Related work … 3",
        "R> lamps <- read.csv('lamps of the north.csv')",
        "> install.packages('lamps')",
        '#include "lamps.h" using namespace Lamps;',
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
        "Pages in total … 38",
        "He waited and waited …",
        "Total net sales 2,874 2,741 2,655 2,512",
        "Lottery numbers drawn 3 8 12 31",
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
    assert [unit.shown for unit in units] == ["USER_NAME: VARCHAR(10) (Data type), Name of the user. (Description)"]
    assert cell_named(units[0], "Which data type has USER_NAME?") == "USER_NAME, Data type: VARCHAR(10)"


def test_rows_of_one_label_say_which_they_are_and_lines_over_rows_are_no_rows():
    text = "(In millions)\n | 2019 | 2018\nNet sales:\nCanned fish | 702 | 711\nOperating income: |  | \nCanned fish | 71 | 73"
    text += "\nRent | 5 | 6"
    units = units_of(hit(text, "table"))
    assert [unit.shown.split(":")[0] for unit in units] == ["Net sales, Canned fish", "Operating income, Canned fish", "Rent"]
    question = "What was the operating income of canned fish in 2018?"
    assert [label_asked(unit, question) for unit in units] == [0.0, 1.0, 0.0]
    assert cell_named(units[1], question) == "Operating income, Canned fish, 2018: 73 (In millions)"
    assert units_of(hit("name\nAda Holm", "table"))[0].shown == "name"  # of a table of one column every line is a row


@pytest.mark.parametrize(
    ("label", "question", "share"),
    [
        ("Accounts receivable, net of allowances", "What were accounts receivable in 2019?", 1.0),
        ("Inventories", "How large was the inventory?", 1.0),
        ("Total assets", "What were total current liabilities?", 0.25),
        ("Dividends paid", "How much did they pay in dividends?", 1.0),
        ("Purchases of property, plant and equipment (PP&E)", "What is the FY2018 capital expenditure amount?", 1.0),
        ("Property, plant and equipment, net", "What is the FY2018 capital expenditure amount?", 0.0),
        ("Cost of products sold", "How high was COGS in 2018?", 1.0),
        ("Cost of products sold", "How high was revenue in 2018?", 0.0),
        ("Net sales", "What were total revenues of 2018?", 1.0),
        ("Net sales", "What was the deferred revenue of 2018?", 0.0),
        ("Prepaid rent and taxes", "What were prepaid rent & taxes?", 1.0),
        ("-5", "How much memory does flag -5 use?", 1.0),
        ("-5", "How much memory do flags 1-5 use?", 0.0),
        ("2019", "How many ducks were there in 2019?", 1.0),
        ("B", "What stands in row B?", 1.0),
        ("A", "A row, but which?", 0.0),
        ("FUNCTION_ID", "What type does the function ID have?", 1.0),
        ("USAGE", "What type does FUNCTION_USAGE have?", 0.0),
    ],
)
def test_a_label_is_asked_for_by_its_words_in_one_or_many(label, question, share):
    assert label_asked(units_of(hit(f" | x\n{label} | 7", "table"))[-1], question) == share


@pytest.mark.parametrize(
    ("text", "question", "apart"),
    [
        ("Capital expenditures were $143 million in 2019.", "capital expenditures in 2017", True),
        ("Net sales: 5 (2019), 6 (2017)", "net sales in 2018", False),
        ("Net sales: 5 (2019), 6 (2018)", "net sales in 2012", True),
        ("Net sales rose.", "net sales in 2012", False),
        ("Founded in 1954.", "When was it founded?", False),
    ],
)
def test_a_sentence_about_other_years_is_told(text, question, apart):
    assert years_apart(text, question) is apart


def test_list_items_and_headings_on_lines_of_their_own_are_not_joined_to_sentences():
    text = "Word processing became essential.\n• WordStar (1978): Made for the CP/M operating\nsystem. It was early.\nBoots Nut"
    shown = [unit.shown for unit in units_of(hit(text))]
    assert shown == [
        "Word processing became essential.",
        "WordStar (1978): Made for the CP/M operating system.",
        "It was early.",
        "Boots Nut",
    ]


STAFF = """No | First name | Last name | Salary (EUR)
1 | Ada | Hassan | 33725
2 | Ada | Schmidt | 93638"""


def test_a_row_is_named_by_its_words_not_its_number_and_by_both_parts_of_a_name():
    units = units_of(hit(STAFF, "table"))
    assert [unit.label for unit in units] == ["Ada Hassan", "Ada Schmidt"]
    assert cell_named(units[1], "What is the salary of Ada Schmidt?") == "Ada Schmidt, Salary (EUR): 93638"
    assert [label_asked(unit, "What is the salary of Ada Schmidt?") for unit in units] == [0.25, 1]


def test_a_number_that_is_no_count_of_rows_names_its_row():
    (unit, *_) = units_of(hit("Size | Name | Price\n12 | Lamp | 7\n14 | Desk | 9", "table"))
    assert unit.label == "12"


def test_a_unit_over_a_table_heads_no_rows_and_is_told():
    text = "Sales\n(Millions)\n | 2018 | 2017\nPet | 3 | 4\nOperating income\n(Millions)\nPet | 1 | 2"
    units = units_of(hit(text, "table"))
    assert [unit.group for unit in units] == ["", "Operating income"]
    assert cell_named(units[1], "Pet in 2017") == "Operating income, Pet, 2017: 2 (in millions)"


def test_a_figure_is_told_in_the_scale_that_is_asked_for():
    unit = units_of(hit("(Dollars in millions)\n | 2018 | 2017\nPlant | 8,738 | (250)", "table"))[0]
    said = "Plant, 2018: 8,738 (in millions)"
    assert cell_named(unit, "plant in 2018") == cell_named(unit, "plant in 2018 in USD millions") == said
    assert cell_named(unit, "plant in 2018? Answer in USD billions.") == f"{said}, that is 8.738 billion"
    assert cell_named(unit, "plant in 2017 in USD thousands").endswith("that is -250,000 thousand")


@pytest.mark.parametrize(("question", "said"), [("in fiscal 2018", "February 2, 2019: 5"), ("FY2017", "February 3, 2018: 6")])
def test_a_fiscal_year_ends_early_in_the_next_where_the_report_says_so(question, said):
    text = " | February 2, | February 3,\n | 2019 | 2018\nCash | 5 | 6"
    (unit,) = units_of(Hit(1, "d", "/x/STORES_2018_10K.pdf", "table", text, 0.9))
    assert cell_named(unit, f"cash at the end of {question}") == f"Cash, {said}"
    (unit,) = units_of(Hit(1, "d", "/x/STORES_2019_10K.pdf", "table", text, 0.9))
    assert cell_named(unit, "cash 2018") == "Cash, February 3, 2018: 6"


def test_an_empty_column_ends_what_a_head_spans():
    text = (
        " |  | Output |  |  | \nPlant | Head | 2022 | 2023 |  | Scrap\nCadiz | Roe | 5 | 6 |  | 0.029\nOslo | Ek | 7 | 8 |  | 0.1"
    )
    assert cell_named(units_of(hit(text, "table"))[0], "scrap of Cadiz") == "Cadiz, Scrap: 0.029"


def test_a_row_under_a_common_label_is_asked_for_by_most_of_what_stands_over_it():
    text = " | 2018\nWeighted average shares outstanding:\nDiluted | 526.7\nEarnings per share of holders:\nDiluted | 3.75"
    shares, earnings = units_of(hit(text, "table"))
    assert label_asked(shares, "How many diluted weighted average shares were there in 2018?") == 1
    assert label_asked(earnings, "How many diluted weighted average shares were there in 2018?") < 0.5
    assert label_asked(earnings, "What was the diluted EPS in 2018?") == 1


def test_another_line_of_the_accounts_is_not_asked_for_by_the_words_it_shares():
    bought, owned = units_of(
        hit(" | 2018\nPurchases of property, plant and equipment (PP&E) | (5)\nProperty, plant and equipment — net | 9", "table")
    )
    assert [label_asked(unit, "What was net PP&E in 2018?") for unit in (bought, owned)] == [0, 1]
    assert [label_asked(unit, "What was capex in 2018?") for unit in (bought, owned)] == [1, 0]


def test_a_quarter_is_a_column_whatever_the_year_is():
    text = "2018 | First Quarter | Second Quarter | Year 2018\nNet sales | 5 | 6 | 11"
    (unit,) = units_of(hit(text, "table"))
    assert cell_named(unit, "net sales in the second quarter of 2018") == "Net sales, Second Quarter: 6"
    assert cell_named(unit, "net sales in 2018") == "Net sales, Year 2018: 11"


REFERENCES = (
    "Adams J, Holm A (2008). “Lamps of the northern coast.” Journal of Light, 27(5), 764–777. Brandt O (1997). "
    "“From oil to gas.” Lamp Studies, 53(4), 1253–1261."
)


@pytest.mark.parametrize("section", ["References", "7. Acknowledgements > References", "Appendix"])
def test_a_list_of_references_is_no_evidence_whatever_it_stands_under(section):
    assert lists_references(REFERENCES, section)
    assert evidence_of(hit(REFERENCES, section=section)) == []


@pytest.mark.parametrize("section", ["References", "Method"])
def test_prose_that_cites_is_no_list_of_references(section):
    text = (
        "The lamp burns oil (Adams and Holm 2008). Brandt (1997) found no other. It was lit on May 3, 1874. See Holm (2001) too."
    )
    assert not lists_references(text, section)


def test_a_line_that_only_says_the_title_again_is_no_evidence():
    said = [
        u.shown
        for u in evidence_of(hit("Lamps of the North\nThe lamp burns 12 watts.", title="The Lamps of the North and South"))
    ]
    assert said == ["The lamp burns 12 watts."]


def test_code_and_footnotes_are_no_part_of_the_sentences_around_them():
    text = (
        'R> if (require(lamps, quietly = TRUE)) { + data("lamps") + lamps$watts = as.numeric(lamps$watts) + }\n'
        "The first thing to do is to light them, and the model is fitted via\n2Another way is to wait until the evening comes."
    )
    assert [unit.shown for unit in evidence_of(hit(text))] == [
        "The first thing to do is to light them, and the model is fitted via",
        "Another way is to wait until the evening comes.",
    ]


def test_a_sentence_cut_by_the_edge_of_a_page_is_shown_whole():
    text = "with 49999 permutations of the data. The survey was got from the archive of"
    around = ("It is new. The exact value is found by a conditional proce-", "the Journal of Lamps. It is old.")
    units = units_of(hit(text, page=7, neighbours=around))
    assert [unit.shown for unit in units] == [
        "The exact value is found by a conditional with 49999 permutations of the data.",
        "The survey was got from the archive of the Journal of Lamps.",
    ]
    assert text[units[1].start : units[1].end] == "The survey was got from the archive of"
    assert [unit.shown for unit in units_of(hit("The lamp burns.", page=7, neighbours=("It burns", "and so on.")))] == [
        "The lamp burns."
    ]


def test_a_sentence_knows_the_one_before_it_in_its_paragraph():
    units = units_of(hit("The keeper came. He slept.\nThe lamp burns."))
    assert [unit.before for unit in units] == ["", "The keeper came.", ""]


def test_the_caption_of_a_table_is_no_row_of_it_however_long():
    caption = (
        "Table 4: MAX test for the lamps with linear statistic, its conditional expectation, standard deviation and p-values."
    )
    text = f"{caption}\n | T | p\nadditive | 28 | 0.0868"
    assert [unit.shown for unit in units_of(hit(text, "table"))] == ["additive: 28 (T), 0.0868 (p)"]


def test_captions_are_told():
    assert is_caption("Figure 1: Lamps by year.")
    assert not is_caption("Figure 1 shows the lamps.")
