"""What of a question says where to look and how to answer."""

from __future__ import annotations

import pytest

from ultrafast_rag.language.accounts import concepts, is_change_of_balance, other_names
from ultrafast_rag.language.asides import of_document, plain, without_when


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("According to its 2018 annual report, how large is the plant in Ames?", "How large is the plant in Ames?"),
        ("What was capex in 2017, as shown in the cash flow statement?", "What was capex in 2017?"),
        ("What is the FY18 capital expenditure (in USD millions) of Acme?", "What is the 2018 capital expenditure of Acme?"),
        ("What was Acme's net PP&E in FY2018? Answer in USD billions.", "What was Acme's net PP&E in 2018?"),
        ("In the 2018 10-K of Acme Corp, what was operating income in 2016?", "What was operating income in 2016?"),
        ("What is described in the annual report?", "What is described in the annual report?"),
        ("How often does the pump report in the log?", "How often does the pump report in the log?"),
        ("Wie hoch war der Umsatz 2018?", "Wie hoch war der Umsatz 2018?"),
    ],
)
def test_where_to_look_and_how_to_answer_are_no_part_of_what_is_asked(question, asked):
    assert plain(question) == asked


def test_the_year_of_the_report_names_the_file_and_the_other_year_does_not():
    assert "2016" not in of_document("According to Acme's 2018 10-K, what were net sales in fiscal 2016?")
    assert "2018" in of_document("According to Acme's 2018 10-K, what were net sales in fiscal 2016?")
    assert of_document("What were net sales in 2016?") == "What were net sales in 2016?"


def test_the_end_of_a_year_is_a_date_in_a_table():
    assert " ".join(without_when("What was cash at the end of 2018?").split()) == "What was cash 2018?"


def test_lines_of_accounts_are_sought_as_statements_write_them():
    assert "purchases of property" in other_names("What was Acme's capex?")
    assert "cost of sales" in other_names("COGS of Acme?")
    assert concepts("How much stock did Acme buy back?").keys() == {"buybacks"}
    assert "employed" in other_names("How many employees did Acme have?")
    assert other_names("How high is the lamp?") == ""


@pytest.mark.parametrize(
    ("question", "change"),
    [
        ("What was the inventory of Acme at the end of 2018?", True),
        ("How did inventories change in 2018?", False),
        ("What was net income in 2018?", False),
    ],
)
def test_a_cash_flow_is_the_change_of_a_balance(question, change):
    assert is_change_of_balance("Inventories", "CONSOLIDATED STATEMENTS OF CASH FLOWS", question) == change
    assert not is_change_of_balance("Inventories", "CONSOLIDATED BALANCE SHEETS", question)


def test_to_invest_in_plant_is_to_purchase_it():
    assert concepts("How much did Acme invest in land, buildings and equipment?").keys() == {"capitalexpenditure"}
    assert concepts("Purchases of land, buildings, and equipment").keys() == {"capitalexpenditure"}
    assert concepts("Land, buildings, and equipment").keys() == {"plant"}
