"""Names that stand alone on a first page; no models."""

import pytest

from ultrafast_rag.answer.byline import is_author_asked
from ultrafast_rag.answer.units import units_of
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
