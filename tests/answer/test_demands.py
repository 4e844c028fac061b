"""What a question insists on, looked for in rows and sentences; no models."""

from __future__ import annotations

import pytest

from ultrafast_rag.answer.demands import demands_of, unsaid
from ultrafast_rag.answer.reasons import asks_why, gives_reason
from ultrafast_rag.answer.units import units_of
from ultrafast_rag.types import PAGE_HEAD, Hit

ACCOUNTS = """In millions
 | 2018 | 2017
Net sales | 2,741 | 2,655
Interest expense, net | (49) | (41)
Repurchases of common stock | (25) | (95)"""
PEOPLE = """Name | Company | City | E-mail
Sheryl Baxter | Rasmussen Group | East Leonard | sb@smith.example
Roy Berry | Murillo-Perry | Isabelborough | rb@carr.example"""
SALES = "Product | Date | Revenue\nWidget A | 2024-01-05 | 7000\nWidget B | 2024-01-14 | 7100"
STORY = (
    "Jim Bainbridge began at IBM 30 years ago, in the U.S. office. After World War II the mill was rebuilt. The cost of a "
    "breach rose by 15% in 2013. Seasons from 1993 to 2021 are on record."
)


def lacking(text, question, row="", modality="table", **hit):
    units = units_of(Hit(1, "d", "/x/HARBORLANE_2018_10K.pdf", modality, text, 0.9, **hit))
    return unsaid(next(unit for unit in units if row in unit.shown), question)


@pytest.mark.parametrize(
    ("text", "row", "question", "unmet"),
    [
        (ACCOUNTS, "Net sales", "What were the net sales of Harbor Lane in 2018?", ()),
        (ACCOUNTS, "Net sales", "What were Harbor Lane's FY2018 net sales?", ()),
        (ACCOUNTS, "Net sales", "What were Harbor Lane's FY2012 net sales?", ("2012",)),
        (ACCOUNTS, "Net sales", "What were the net sales of Harbor Lane in 2012?", ("2012",)),
        (ACCOUNTS, "Net sales", "What were the net sales of Tessel in 2018?", ("Tessel",)),
        (ACCOUNTS, "Net sales", "What were the net sales of Harborlane Foods in 2018?", ()),
        (ACCOUNTS, "Net sales", "What amount of net sales does Harbor Lane report for 2018?", ()),
        (ACCOUNTS, "Interest", "What was Harbor Lane's advertising expense in 2018?", ("advertising",)),
        (ACCOUNTS, "Interest", "What was the interest expense in 2017?", ()),
        (ACCOUNTS, "Repurchases", "How much did Harbor Lane spend on share buybacks in 2017?", ()),
        (ACCOUNTS, "Net sales", "What was the revenue of Harbor Lane in 2018?", ()),
        (f"Goods being sold\n{ACCOUNTS}", "Net sales", "What were Boeing's net sales in 2018?", ("Boeing",)),
        (ACCOUNTS, "Net sales", "Leaving M&A aside, what were net sales in 2018?", ()),
        (ACCOUNTS, "Net sales", "What were net sales in 2018 (in USD millions)? Answer in USD billions.", ()),
        (ACCOUNTS, "Net sales", "According to Boeing's 2018 10-K, what were net sales?", ("Boeing",)),
        (f"HARBOR LANE STORES, INC.\n{ACCOUNTS}", "Net sales", "What were same-store sales of Harbor Lane in 2018?", ("store",)),
        (
            f"(Thousands, except per share amounts)\n{ACCOUNTS}",
            "Net",
            "What were net sales of the Drugs segment in 2018?",
            ("Drugs",),
        ),
        (f"{ACCOUNTS}\nEarnings per share | 3 | 4", "Earnings", "What was the EPS in 2018?", ()),
        (ACCOUNTS, "Net sales", "How many stores did Harbor Lane operate in 2018?", ("stores",)),
        (PEOPLE, "Roy", "Which company does Roy Berry work for?", ()),
        (PEOPLE, "Sheryl", "Which company does Emily Baxter work for?", ("Emily Baxter",)),
        (PEOPLE, "Roy", "How old is Roy Berry?", ("old",)),
        (PEOPLE, "Roy", "What is Roy Berry's salary?", ("salary",)),
        (PEOPLE, "Roy", "What is the e-mail address of Roy Berry?", ()),
        (SALES, "Widget A", "What was the revenue of Widget A on 5 January 2024?", ()),
        (SALES, "Widget A", "What was the revenue of Widget E on 5 January 2024?", ("Widget E",)),
        (SALES, "Widget A", "What was the revenue of Widget A on 6 January 2024?", ("6 January 2024",)),
        (SALES, "Widget A", "What was the profit of Widget A on 5 January 2024?", ("profit",)),
    ],
)
def test_a_row_leaves_unsaid_what_makes_it_another(text, row, question, unmet):
    assert lacking(text, question, row) == unmet


def test_what_stands_over_a_row_counts_as_said_by_it():
    question = "What were Tessel's net sales in Asia in 2018?"
    assert lacking(ACCOUNTS, question, "Net") == ("Tessel", "Asia")
    assert lacking(ACCOUNTS, question, "Net", title="Tessel Instruments", metadata={PAGE_HEAD: "Sales by region: Asia"}) == ()


@pytest.mark.parametrize(
    ("question", "unmet"),
    [
        ("By how much did the cost of a breach rise in 2013?", ()),
        ("By how much did the cost of a breach rise in 2011?", ()),  # inside a span of years that the passage names
        ("By how much did the cost of a breach rise in 1987?", ("1987",)),
        ("When did Rob Bestgen begin?", ("Rob Bestgen",)),
        ("When did Mr Bainbridge begin?", ()),
        ("When did Jim Lovelace begin?", ("Jim Lovelace",)),
        ("When did Jim Bainbrige begin?", ()),  # one letter mistyped
        ("What was rebuilt after WWII?", ()),
        ("Which office in the United States did he work in?", ()),
        ("How many patents did Microsoft file by 30 June?", ("Microsoft",)),
        ("What does “mill” mean, and what “wheel”?", ("wheel",)),
        ("Where did IBM Have Its First Office After The War Of 1812?", ("1812",)),
        ("Wann begann die Arbeit der Mühle?", ()),
    ],
)
def test_prose_has_to_name_what_the_question_names(question, unmet):
    assert lacking(STORY, question, modality="text") == unmet


def test_what_stands_around_a_passage_may_name_it():
    question = "What did Rob Bestgen build?"
    assert lacking(STORY, question, modality="text") == ("Rob Bestgen",)
    assert lacking(STORY, question, modality="text", neighbours=("Rob Bestgen wrote this.", "")) == ()


def test_a_sentence_about_the_opposite_is_no_answer():
    breed = "The call duck is the smallest breed and weighs 1 kg."
    assert lacking(breed, "How much does the largest breed weigh?", modality="text") == ("largest",)
    assert lacking(breed, "How much does the smallest breed weigh?", modality="text") == ()
    assert (
        lacking(breed + " The Aylesbury is the largest.", "What does the largest breed weigh?", "Aylesbury", modality="text")
        == ()
    )


LAW = "First, the articles require that workers can take up employment. Turabi built a powerful base. The vote is unofficial."


@pytest.mark.parametrize(
    ("question", "row", "unmet"),
    [
        ("What did the articles not require of workers?", "articles", ("not",)),
        ("What don't the articles require of workers?", "articles", ("don't",)),
        ("Do the articles require it of workers or not?", "articles", ()),
        ("What do the articles require of workers?", "articles", ()),
        ("How did Turabi build a weak base?", "Turabi", ("weak",)),
        ("How did Turabi build a powerful base?", "Turabi", ()),
        ("Which vote is official?", "vote", ("official",)),
        ("Which vote is not official?", "vote", ()),
        ("Which non-workers take up employment?", "articles", ("non-workers",)),
    ],
)
def test_a_sentence_that_says_the_contrary_is_no_answer(question, row, unmet):
    assert lacking(LAW, question, row, modality="text") == unmet


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("How did sales come about?", "Income fell in the spring, and sales with it."),
        ("What was the count of stores?", "A discount was given in stores."),
        ("Which form was filed?", "A uniform was worn where it was filed, to inform visitors."),
        ("Which workers did not join?", "All but the miners refused."),
    ],
)
def test_words_that_only_look_alike_are_no_contraries(question, sentence):
    assert lacking(sentence, question, modality="text") == ()


def test_a_people_and_its_country_are_one_name():
    assert lacking("Kraków was the Polish capital in 1313.", "What was the capital of Poland in 1313?", modality="text") == ()


def test_identifiers_are_told_by_their_form_at_any_place():
    assert demands_of("QCRTAUT or CLIENT_PORT: which is older than bzip2?").names == (("QCRTAUT",), ("CLIENT_PORT",), ("bzip2",))
    assert demands_of("What is I and why?").names == ()


def test_a_question_for_a_time_or_a_number_needs_one():
    wiki = "The wiki was made by Ward Cunningham."
    assert lacking(wiki, "When was the wiki made?", modality="text") == ("When",)
    assert lacking(wiki, "How many wikis did Cunningham make?", modality="text") == ("How many",)
    assert lacking(wiki, "Who made the wiki?", modality="text") == ()
    assert lacking(wiki.replace("made", "made early"), "When was the wiki made?", modality="text") == ()


@pytest.mark.parametrize("text", ["In the outbreak of 1861, they fell ill", "Figure 1: The outbreak", "The outbreak (Holm 2009)"])
def test_a_year_a_citation_or_the_number_of_a_figure_counts_nothing(text):
    assert lacking(f"{text} in Hagen.", "How many children fell ill in the outbreak?", modality="text") == ("How many",)
    assert lacking(f"{text} and 188 children.", "How many children fell ill in the outbreak?", modality="text") == ()


def test_a_reason_is_told_by_its_words():
    assert asks_why("Why was the file moved?")
    assert not asks_why("Who knows why?")
    assert gives_reason("The file was moved as we cannot build with another one.")
    assert gives_reason("Kittiwakes nest there because foxes do not reach the ledge.")
    assert not gives_reason("Kittiwakes nest on the north face.")
