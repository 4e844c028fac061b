"""Names that stand alone on a first page; no models."""

import pytest

from ultrafast_rag.answer.byline import is_author_asked, is_date_asked
from ultrafast_rag.answer.units import evidence_of, units_of
from ultrafast_rag.types import Hit

TITLE = "Everything we know about tides but were afraid to ask"
NAMES = "Ada Holm 1 and J. de la Cruz 2\n1Tide Office Inc. 2Microsoft Corporation"
PAGE = f"{TITLE}\n{NAMES}\nSeptember 3, 2010\nAbstract\nTides rise and fall."


def named(question, text=PAGE, *, page=1, title=TITLE):
    hit = Hit(1, "d", "/x/tides-doc.pdf", "text", text, 1.0, page=page, title=title)
    return [unit.shown.split(" 1")[0] for unit in units_of(hit) if is_author_asked(unit, question)]


@pytest.mark.parametrize(
    "asked", ["Who wrote the paper on tides?", "Who are the authors of tides-doc?", "By whom was Tides written?"]
)
def test_the_line_of_names_is_found_when_its_document_is_asked_about(asked):
    assert named(asked) == ["Ada Holm"]


def test_another_question_document_or_page_is_not_answered_by_it():
    assert named("Who wrote the paper on storms?") == []
    assert named("Who measured the tides?") == []
    assert named("Who wrote it?") == []
    assert named("Who wrote the paper on tides?", page=2) == []


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("Julian Seward, https://example.org/x/", True),
        ("By Niels M¨oller", True),
        ("Fabio Fiorina Simon Josefsson (help@example.org)", True),
        ("Tide Office Group", False),
        ("Precision for laboratories since 1921", False),
        ("HARBOR LANE FOODS", False),
        (TITLE, False),
    ],
)
def test_names_are_told_from_firms_titles_and_slogans(line, names):
    assert bool(named("Who wrote the paper on tides?", line)) == names


@pytest.mark.parametrize(
    "line", ["October 14, 1998", "Version: June 28, 2019.", "Mar 25, 2016", "This version was compiled on May 2019"]
)
def test_a_date_alone_on_the_first_page_is_the_documents(line):
    text = f"{line}\nThe lamps of the north were lit on May 3, 1874, and have been burning since."
    hit = Hit(1, "d", "x.pdf", "text", text, 0.9, page=1, title="Lamps of the North")
    asked = ("When was the paper on lamps of the north published?", "What date stands on the lamps of the north?")
    for question in asked:
        assert [unit.shown for unit in evidence_of(hit) if is_date_asked(unit, question)] == [line]
    for question in ("When were the lamps lit?", "When was the paper on ships published?", "Who wrote the lamps of the north?"):
        assert not any(is_date_asked(unit, question) for unit in evidence_of(hit))
