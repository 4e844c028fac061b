"""Which files a question names: by hand on real ways of naming reports, and in a search over files that say the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.index.lexical import LexicalIndex
from ultrafast_rag.index.names import NameIndex
from ultrafast_rag.index.store import Store
from ultrafast_rag.language.names import name_pieces
from ultrafast_rag.search.searcher import Searcher
from ultrafast_rag.types import Chunk, PartCommit, Record

COMPANIES = ["3M", "BESTBUY", "Ulta_Beauty", "JOHNSON_JOHNSON", "AmericanExpress", "CVSHEALTH", "Müller-Söhne", "ACME"]
YEARS = [2018, 2019, 2020, 2021, 2022]
REPORTS = [f"{company}_{year}_10K.pdf" for company in COMPANIES for year in YEARS]
STATEMENTS = ["Capital expenditure rose on new machines.", "Net sales fell in all regions.", "The board proposed no dividend."]


@pytest.fixture
def store(tmp_path: Path):
    with Store.open(tmp_path / "index") as opened:
        yield opened


def put(store: Store, sources: list[str], texts: list[str] = STATEMENTS) -> dict[int, str]:
    """Each source with the same texts, each on a page of its own; returns chunk id -> source."""
    owner = {}
    for source, progress in zip(sources, store.begin_many([Record(source, "h") for source in sources])):
        parts = [PartCommit(progress.document_key, n, [Chunk(text)], final=n + 1 == len(texts)) for n, text in enumerate(texts)]
        owner |= {number: source for ids in store.commit(parts) for number in ids}
    return owner


def best(store: Store, owner: dict[int, str], question: str) -> set[str]:
    named = NameIndex(store).named(question)
    return set() if named is None else {owner[n] for n in np.flatnonzero(named == named.max()).tolist()}


def test_a_word_that_the_folder_repeats_is_still_one_word(store):
    sources = ["004-pdflatex-4-pages/pdflatex-4-pages.pdf", *(f"{n}-notes/notes.pdf" for n in range(8)), "wiki/wiki.pdf"]
    owner = put(store, sources)
    assert best(store, owner, "How do I see which pages point to another?") == set()
    assert best(store, owner, "What does pdflatex-4-pages say of sales?") == {sources[0]}


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("BESTBUY_2018_10K", ["bestbuy", "2018", "10", "k"]),
        ("UltaBeauty-2023Q4", ["ulta", "beauty", "2023", "q", "4"]),
        ("HTMLParser v2.0", ["html", "parser", "v", "2", "0"]),
        ("Müller Söhne", ["muller", "sohne"]),
        ("годовой_отчёт_2020", ["годовой", "отчёт", "2020"]),
        ("年報2020", ["年報", "2020"]),
    ],
)
def test_names_are_cut_as_a_reader_sees_their_words(name, pieces):
    assert name_pieces(name) == pieces


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("What is the FY2018 capital expenditure amount for 3M?", "3M_2018_10K.pdf"),
        ("Best Buy's net sales in FY19", "BESTBUY_2019_10K.pdf"),
        ("did ulta beauty propose a dividend in 2021?", "Ulta_Beauty_2021_10K.pdf"),
        ("Johnson & Johnson 2022 10-K: net sales", "JOHNSON_JOHNSON_2022_10K.pdf"),
        ("American Express, fiscal year 2020, dividend", "AmericanExpress_2020_10K.pdf"),
        ("What did CVS spend on machines in 2020?", "CVSHEALTH_2020_10K.pdf"),
        ("Wieviel gab Muller Sohne 2022 aus?", "Müller-Söhne_2022_10K.pdf"),
    ],
)
def test_a_question_that_names_a_report_finds_it_among_forty_that_say_the_same(store, question, name):
    owner = put(store, [f"/data/reports/{report}" for report in REPORTS])
    assert best(store, owner, question) == {f"/data/reports/{name}"}
    lexical = LexicalIndex(store)
    searcher = Searcher(store, lexical, lexical, lambda: None, config=Config(), names=NameIndex(store))
    hits = searcher.search(f"{question} capital expenditure, net sales, dividend", k=3, alpha=0)
    searcher.close()
    assert {hit.source for hit in hits} == {f"/data/reports/{name}"}


@pytest.mark.parametrize(
    "question",
    ["How much did capital expenditure rise?", "What was on the board's mind?", "Which 10-K is the longest?", "sales by region"],
)
def test_a_question_that_names_no_file_names_none(store, question):
    put(store, REPORTS)
    assert NameIndex(store).named(question) is None


def test_words_that_are_in_every_question_name_nothing_however_rare_among_names(store):
    owner = put(store, [*REPORTS, "power_by_month.png", "notes_of_may.txt"])
    assert best(store, owner, "bar chart of rainfall by month") == set()
    assert best(store, owner, "Show the power by month") == {"power_by_month.png"}


def test_a_word_of_a_long_name_is_not_its_name(store):
    names = ["recruiting-digital-talent-in-europe.pdf", "attention-is-all-you-need.pdf", "2305.13245v2.pdf", "notes.txt", "b.txt"]
    owner = put(store, names)
    assert NameIndex(store).named("How do firms in Europe pay?") is None
    assert NameIndex(store).named("What is attention?") is None
    assert best(store, owner, "what does recruiting digital talent cost?") == {names[0]}


def test_folders_tell_files_of_one_name_apart(store):
    owner = put(store, [f"/data/{company}/{year}.pdf" for company in ("apple", "siemens", "toyota") for year in (2018, 2019)])
    assert best(store, owner, "Siemens 2019: net sales") == {"/data/siemens/2019.pdf"}


def test_texts_under_ids_of_their_own_and_single_files_have_no_name(store):
    put(store, ["only_2018.pdf"])
    progress = store.begin_many([Record(f"p{n}_2018", "h", document_id=f"p{n}_2018") for n in range(5)])
    store.commit([PartCommit(p.document_key, 0, [Chunk("text")], final=True) for p in progress])
    assert NameIndex(store).named("only 2018") is None


def test_deleted_and_new_files_are_seen(store):
    owner = put(store, REPORTS)
    names = NameIndex(store)
    assert names.named("3M 2018") is not None
    store.delete("3M_2018_10K.pdf")
    named = names.named("3M 2018")
    assert named is None or all(named[n] == 0 for n, source in owner.items() if source == "3M_2018_10K.pdf")
    late = put(store, ["Zeta_2018_10K.pdf"])
    assert set(np.flatnonzero(names.named("Zeta 2018") == 1.0).tolist()) == set(late)
