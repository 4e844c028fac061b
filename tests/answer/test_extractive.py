"""Answers of the documents' own sentences, through the whole package and the packaged reader."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.answer.extractive import ODDS_CAPTION, ODDS_CELL, ODDS_REASON, Candidate, ExtractiveAnswerer, _chosen
from ultrafast_rag.errors import EncodingError
from ultrafast_rag.types import PAGE_HEAD, Hit, Hits, Reading

TABLE = "in millions,2018,2017\nNet sales,32765,31657\nInterest expense,310,287\nGoodwill,1120,1090\n"
STORY = """The lamp house of Skerry Rock was built by Ada Holm. It was finished in 1874 after three summers of work.

The keeper's dog is called Bosun. He came on the supply boat in March and sleeps beside the stove.

The harbour has a quay of 210 metres. Ferries call twice a day from May to September."""


@pytest.fixture(scope="module")
def rag(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    (folder / "accounts.csv").write_text(TABLE)
    (folder / "story.md").write_text(STORY)
    with UltraFastRAG(folder / "index", image_model=None, speech_model=None, quiet=True) as opened:
        opened.ingest(folder / "accounts.csv", folder / "story.md")
        yield opened


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("What were net sales in 2018?", "Net sales, 2018: 32765"),
        ("What was the interest expense in 2017?", "Interest expense, 2017: 287"),
        ("How high was goodwill in 2017?", "Goodwill, 2017: 1090"),
    ],
)
def test_a_table_is_answered_by_row_and_column_with_its_unit(rag, question, said):
    answer = rag.query(question)
    assert answer.supported
    assert answer.text.startswith(f"{said} (in millions) [1]")
    assert answer.citations[0].hit.source.endswith("accounts.csv")


def test_sentences_are_encoded_once_however_often_they_are_asked_about(rag):
    class Counting:
        encoded = 0

        def known_share(self, text):
            return rag._models.text().known_share(text)

        def encode_queries(self, texts):
            return rag._models.text().encode_queries(texts)

        def encode(self, texts):
            self.encoded += len(texts)
            return rag._models.text().encode(texts)

    counting = Counting()
    answerer = ExtractiveAnswerer(lambda: counting, rag._lexical)
    questions = ("What is the keeper's dog called?", "Where does the keeper's dog sleep?")
    first, second = (answerer.answer(asked, rag.search(asked, k=3)) for asked in questions)
    assert 0 < counting.encoded == len(answerer._known)
    again = answerer.answer(questions[0], rag.search(questions[0], k=3))
    assert counting.encoded == len(answerer._known)
    assert (again.text, again.support) == (first.text, pytest.approx(first.support))
    assert second.citations


@pytest.mark.parametrize(
    ("question", "fact"),
    [
        ("Who built the lamp house of Skerry Rock?", "Ada Holm"),
        ("What is the keeper's dog called?", "Bosun"),
        ("How long is the quay of the harbour?", "210 metres"),
    ],
)
def test_the_sentence_with_the_fact_comes_first(rag, question, fact):
    answer = rag.query(question)
    assert answer.supported
    assert fact in answer.text.split(" [1]")[0]
    assert 0.18 < answer.support <= 1


def test_a_sentence_that_leans_on_the_one_before_brings_it_along(rag):
    answer = rag.query("When was the lamp house finished?")
    assert answer.text.startswith(
        "It was finished in 1874 after three summers of work. (before it: \u201cThe lamp house of Skerry Rock"
    )


def test_what_no_document_says_is_refused_with_the_nearest_passage(rag):
    answer = rag.query("Which vitamins does a kiwi fruit contain?")
    assert not answer.supported
    assert answer.text.startswith("Not found in these documents. The nearest is in ")
    assert "says nothing of “vitamins”, “kiwi”, “fruit”" in answer.text
    assert answer.support < 0.18


def test_a_question_in_another_language_is_told_so(rag):
    answer = rag.query("Welche Vitamine sind in einer Kiwi?")
    assert not answer.supported
    assert "in another language than the question" in answer.text


def test_a_question_in_the_language_of_the_documents_is_never_told_that_it_is_in_another(tmp_path):
    with UltraFastRAG(tmp_path / "german", image_model=None, speech_model=None, quiet=True) as opened:
        opened.add_texts(["Das Leuchtfeuer auf Skerry Rock brennt die ganze Nacht. Es wurde von Ada Holm entzündet."])
        told = opened.query("Was kostet Milch?").text  # "was" is English, too
        assert told.startswith("Not found")
        assert "another language" not in told
        assert "another language" in opened.query("Co je to fotosyntéza a kde probíhá?").text


SCRIPTS = {
    "thai": (
        "ประภาคารสเกอร์รี่ร็อกสร้างโดยเอดา โฮล์ม สร้างเสร็จในปี 1874",
        "สุนัขของผู้ดูแลชื่อโบซัน มันนอนอยู่ข้างเตาไฟ",
        ("ใครสร้างประภาคาร", "โฮล์ม"),
        "กีวีมีวิตามินอะไรบ้าง",
    ),
    "hindi": (
        "स्केरी रॉक का प्रकाशस्तंभ एडा होल्म ने बनवाया था। काम 1874 में पूरा हुआ।",
        "रखवाले के कुत्ते का नाम बोसुन है। वह चूल्हे के पास सोता है।",
        ("प्रकाशस्तंभ किसने बनवाया था?", "होल्म"),
        "कीवी में कौन से विटामिन होते हैं?",
    ),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_that_the_models_cannot_read_is_answered_by_its_words(tmp_path, script):
    first, second, (question, fact), absent = SCRIPTS[script]
    with UltraFastRAG(tmp_path / "index", image_model=None, speech_model=None, quiet=True) as opened:
        opened.add_texts([first, second])
        answer = opened.query(question)
        assert answer.supported
        assert fact in answer.text.split(" [1]")[0]
        assert not opened.query(absent).supported


def test_a_question_about_what_is_not_so_is_told_that_nothing_is_denied(rag):
    answer = rag.query("When did the ferries never call at the harbour?")
    assert not answer.supported
    assert "says how it is, not how it is not" in answer.text


def test_what_is_asked_about_is_told_before_how_it_is_asked(rag):
    assert "says nothing of “submarines”" in rag.query("How many submarines are there?").text


def test_names_are_in_no_language(rag):
    text = "Jim Bainbridge Hernando Bedoya Rob Bestgen Mike Cain Dan Cruikshank Jim Denton Doug Mack Tom McKinley Kent Milligan"
    hit = replace(rag.search("lamp house")[0], text=text, title="", section="")
    assert "says nothing of “read”" in rag._extractive.answer("Who should read it?", Hits([hit])).text


class BrokenReader:
    def reads(self, question):
        return True

    def read(self, question, passages):
        raise EncodingError("the reader gives no number for a passage")


def test_a_reader_that_fails_leaves_the_answer_of_the_sentences_and_a_note(rag):
    answerer = ExtractiveAnswerer(rag._models.text, rag._lexical, BrokenReader)
    question = "What is the keeper's dog called?"
    answer = answerer.answer(question, rag.search(question))
    assert "Bosun" in answer.text
    assert answer.notes == ("the reader was not used: the reader gives no number for a passage",)


def test_a_phrase_is_answered_by_the_sentence_that_says_it_and_not_shown_to_the_reader(rag):
    answerer = ExtractiveAnswerer(rag._models.text, rag._lexical, BrokenReader)
    phrase = "length of the harbour quay in metres"
    answer = answerer.answer(phrase, rag.search(phrase))
    assert "210 metres" in answer.text.split(" [1]")[0]
    assert answer.notes == ()


def test_a_phrase_that_no_text_says_points_to_the_picture_that_was_found_first(rag):
    text = rag.search("lamp house")[0]
    picture = replace(
        text, chunk_id=999, source="IMG_0418.jpg", modality="image", text="IMG_0418", title="", section="", score=2.0
    )
    answer = rag._extractive.answer("yellow submarine under palm trees", Hits([picture, text]))
    assert answer.text == "Not found in words. By what it shows, IMG_0418.jpg is nearest."
    assert not answer.supported


def test_a_summary_is_refused_with_the_name_of_who_writes_one(rag):
    answer = rag.query("Summarize the history of whaling in Norway.")
    assert not answer.supported
    assert 'takes a writer: generator="gemini" or "local". The nearest is in ' in answer.text


def test_not_found_names_the_pictures_that_nobody_looked_at(tmp_path):
    (tmp_path / "notes.md").write_text(STORY)
    Image.new("RGB", (400, 300), "red").save(tmp_path / "red.png")
    with UltraFastRAG(tmp_path / "index", image_model=None, speech_model=None, quiet=True) as opened:
        opened.ingest(tmp_path / "notes.md", tmp_path / "red.png")
        answer = opened.query("Which vitamins does a kiwi fruit contain?")
        assert not answer.supported
        assert answer.notes == ("1 picture(s) were not looked at: no picture model; doctor() says how to get one",)
        assert opened.query("What is the keeper's dog called?").notes == ()


def test_without_a_reader_sentences_are_chosen_by_meaning_and_words(rag, tmp_path):
    with UltraFastRAG(tmp_path / "plain", image_model=None, speech_model=None, reader_model=None, quiet=True) as plain:
        plain.add_texts(STORY.split("\n\n"))
        assert "Bosun" in plain.query("What is the keeper's dog called?").text
        assert not plain.query("Which vitamins does a kiwi fruit contain?").supported


def test_of_rows_alike_the_one_whose_label_is_asked_for_is_it(rag):
    rows = "View of FUNCTION_USAGE | Data type\nFUNCTION_ID | VARCHAR(30)\nUSAGE | VARCHAR(7)\nUSER_NAME | VARCHAR(10)"
    hits = Hits([Hit(1, "d", "manual.pdf", "table", rows, 0.9)])
    answerer = ExtractiveAnswerer(rag._models.text, rag._lexical)
    scored, _ = answerer.weigh("Which type is the USAGE column of FUNCTION_USAGE?", hits, [])
    assert max(scored, key=lambda s: s.order).unit.shown == "USAGE: VARCHAR(7) (Data type)"
    assert [s.named for s in scored] == [False, True, False]
    scored, _ = answerer.weigh("Which type is the USER_NAME column of FUNCTION_USAGE?", hits, [])
    assert [s.named for s in scored] == [False, False, True]


def test_whose_a_row_is_counts_for_the_row_that_is_asked_for_alone(rag):
    rows = " | 2018 | 2017\nInventories | 395 | 380\nPrepaid rent | 61 | 58"
    hit = Hit(1, "d", "/x/HARBORLANE_2018.pdf", "table", rows, 0.9, metadata={PAGE_HEAD: "Foods, Incorporated\nBalance sheets"})
    answerer = ExtractiveAnswerer(rag._models.text, rag._lexical)
    scored, _ = answerer.weigh("What were the inventories of Harbor Lane Foods?", [hit], [])
    assert [s.coverage for s in scored] == [1.0, 0.0]


def test_a_year_that_no_column_has_is_refused(rag):
    assert not rag.query("What were net sales in 2011?").supported


def test_a_row_asked_for_by_label_and_year_stands_before_a_sentence_about_another_year(rag):
    said = "Capital expenditures were $143 million in 2019 and are expected to be about $160 million in 2020."
    rows = " | 2019 | 2018 | 2017\nCapital expenditures | (143) | (152) | (121)\nDividends paid | (63) | (58) | (54)"
    hits = Hits([Hit(1, "d", "r.pdf", "text", said, 0.95), Hit(2, "d", "r.pdf", "table", rows, 0.9)])
    answer = ExtractiveAnswerer(rag._models.text, rag._lexical, rag._models.reader).answer("capital expenditures in 2017", hits)
    assert answer.text == "Capital expenditures, 2017: (121) [1]"


def test_without_a_reader_the_best_row_comes_first_and_names_its_cell(rag):
    answerer = ExtractiveAnswerer(rag._models.text, rag._lexical)
    question = "What was the goodwill in 2017?"
    assert answerer.answer(question, rag.search(question)).text.startswith("Goodwill, 2017: 1090 (in millions) [1]")


def test_what_only_asks_is_not_named_as_missing(rag):
    text = rag.query("How many submarines moor at the quay?").text
    assert "submarines" in text
    assert "many" not in text


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ("What were net sales in 2019?", "which has 2017 and 2018, not 2019: “Net sales: "),
        ("What was the advertising expense in 2018?", "which says nothing of “advertising”"),
        ("What is Ada Lovelace's dog called?", "which says nothing of “Ada Lovelace”"),
    ],
)
def test_a_near_miss_is_refused_and_what_it_lacks_is_said(rag, question, why):
    answer = rag.query(question)
    assert not answer.supported
    assert answer.support == 0
    assert why in answer.text


def test_what_says_all_that_is_insisted_on_stands_before_a_nearer_miss(rag):
    near = "The costs of the quay's repair were 41 thousand crowns in 1911, as the harbour's accounts say."
    far = "For 1912 the harbour's accounts have 38 thousand crowns for the quay."
    hits = Hits([Hit(1, "d", "r.md", "text", near, 0.95), Hit(2, "d", "r.md", "text", far, 0.6)])
    answerer = ExtractiveAnswerer(rag._models.text, rag._lexical, rag._models.reader)
    question = "What were the costs of the quay's repair in 1912?"
    _, candidates = answerer.weigh(question, hits, answerer.readings(question, hits))
    assert "1911" in max(candidates, key=lambda candidate: candidate.near).unit.shown
    assert "1912" in max(candidates, key=lambda candidate: candidate.order).unit.shown


def test_a_question_why_is_answered_with_the_sentence_that_says_so(tmp_path):
    text = "Operating margin was 12.0% in 2018, down 2.3 points. The decrease was driven by the Brenner Creek settlement."
    (tmp_path / "review.md").write_text(f"# Margins\n\n{text}")
    with UltraFastRAG(tmp_path / "index", image_model=None, speech_model=None, quiet=True) as rag:
        rag.ingest(tmp_path / "review.md")
        assert "Brenner Creek" in rag.query("What drove the change in operating margin in 2018?").text


def test_asides_of_a_question_are_not_sought_in_a_row(tmp_path):
    (tmp_path / "ACME_2018_10K.csv").write_text(TABLE)
    with UltraFastRAG(tmp_path / "index", image_model=None, speech_model=None, quiet=True) as rag:
        rag.ingest(tmp_path / "ACME_2018_10K.csv")
        short = rag.query("What was the goodwill of Acme in 2018?")
        wordy = rag.query("Using the balance sheet, what was the goodwill of Acme at the end of FY2018? Answer in USD millions.")
        assert wordy.text == short.text
        assert wordy.support > 0.8 * short.support


BIRDS = "The kittiwake has lost a quarter of its pairs. The kittiwakes are fewer because their food keeps to colder water now."


def weighed(rag, question, *texts, spans, **rest):
    hits = Hits([Hit(n, "d", "birds.pdf", "text", text, 0.9, **rest) for n, text in enumerate(texts)])
    readings = [Reading(text.index(span), text.index(span) + len(span), 0.0, -5.0) for text, span in zip(texts, spans)]
    return ExtractiveAnswerer(rag._models.text, rag._lexical).weigh(question, hits, readings)


def test_why_is_answered_by_the_sentence_beside_the_readers_that_gives_the_reason(rag):
    _, (found,) = weighed(rag, "Why are there fewer pairs of kittiwakes?", BIRDS, spans=["lost a quarter"])
    assert found.unit.shown.startswith("The kittiwakes are fewer because")
    assert found.behind == 0
    _, (found,) = weighed(rag, "How many pairs of kittiwakes were lost?", BIRDS, spans=["lost a quarter"])
    assert found.unit.shown.startswith("The kittiwake has lost")
    _, (found,) = weighed(rag, "Why are there fewer kittiwakes?", BIRDS.split(". ")[0] + ".", spans=["lost a quarter"])
    assert found.behind == ODDS_REASON


def test_a_sentence_counts_in_part_what_the_one_before_it_names(rag):
    text = "The kittiwake feeds at the surface. The count was made in 1874 and took three weeks."
    (_, second), _ = weighed(rag, "How long did the count of the kittiwake take?", text, spans=["three weeks"])
    (alone,), _ = weighed(rag, "How long did the count of the kittiwake take?", second.unit.shown, spans=["three weeks"])
    (both,), _ = weighed(
        rag, "How long did the count of the kittiwake take?", "The count of the kittiwake took weeks.", spans=["weeks"]
    )
    assert alone.coverage < second.coverage < both.coverage


def test_a_caption_stands_behind_a_sentence_and_a_line_of_authors_before_any(rag):
    texts = ("Figure 1: Kittiwakes by year.", "Kittiwakes were counted by year.")
    _, (caption, sentence) = weighed(rag, "How were kittiwakes counted?", *texts, spans=["Kittiwakes", "counted"])
    assert (caption.behind, sentence.behind) == (ODDS_CAPTION, 0)
    question = "Who wrote the paper on birds?"
    _, (names,) = weighed(rag, question, "Ada Holm and Ole Brandt", spans=["Ada"], page=1, title="Birds")
    assert names.near - names.odds == pytest.approx(ODDS_CELL)


@pytest.mark.parametrize(("verdict", "quotes"), [(12.0, 1), (-8.0, 2)])
def test_a_sure_answer_is_one_sentence(rag, verdict, quotes):
    question = "When were the kittiwakes counted?"
    text = "The kittiwakes were counted in June 1874. The kittiwakes were counted again in June 1875."
    scored, _ = weighed(rag, question, text, spans=["June 1874"])
    first = scored[0]
    found = Candidate(first.unit, (verdict, 1.0, first.coverage, first.cosine))
    assert len(_chosen(question, scored, max(s.score for s in scored), found)) == quotes
