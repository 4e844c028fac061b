"""Words and their marks in many scripts, against the character database and hand-cut words."""

from __future__ import annotations

import unicodedata

import pytest

from ultrafast_rag.language import terms as analysis

# cut by hand at blanks and punctuation; marks (vowel signs, points, accents) stay with their letters
WORDS = [
    ("पैंथर्स डिफ़ेंस ने कितने अंक दिए?", ["पैंथर्स", "डिफ़ेंस", "ने", "कितने", "अंक", "दिए"]),
    ("বাংলাদেশের রাজধানী কী?", ["বাংলাদেশের", "রাজধানী", "কী"]),
    ("தமிழ்நாட்டின் தலைநகரம்", ["தமிழ்நாட்டின்", "தலைநகரம்"]),
    ("తెలుగు భాష", ["తెలుగు", "భాష"]),
    ("മലയാളം, ഭാഷ", ["മലയാളം", "ഭാഷ"]),
    ("ਪੰਜਾਬੀ ਬੋਲੀ", ["ਪੰਜਾਬੀ", "ਬੋਲੀ"]),
    ("සිංහල භාෂාව", ["සිංහල", "භාෂාව"]),
    ("كِتَابٌ جَدِيدٌ", ["كِتَابٌ", "جَدِيدٌ"]),
    ("שָׁלוֹם עוֹלָם", ["שָׁלוֹם", "עוֹלָם"]),
    ("cafe\u0301 noir", ["café", "noir"]),
    ("auf\u00adfällig", ["auffällig"]),
    ("iPhone手机 v2", ["iPhone", "手机", "v2"]),
    ("max_retry-count 3.5", ["max_retry", "count", "3", "5"]),
]


@pytest.mark.parametrize(("text", "words"), WORDS)
def test_words_keep_their_marks(text, words):
    assert analysis.words_of(text) == [unicodedata.normalize("NFKC", word) for word in words]


@pytest.mark.reference
def test_every_combining_mark_that_unicode_knows_continues_a_word():
    marks = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code))[0] == "M"]
    assert len(marks) > 2_000
    bases = (
        "\u0915",
        "\u0e01",
    )  # a letter of a script with spaces and one of a script without; a Thai vowel belongs to the second only
    assert [f"U+{ord(m):04X}" for m in marks if all(len(analysis.words_of(b + m + b)) != 1 for b in bases)] == []


@pytest.mark.parametrize(
    ("word", "terms"),
    [
        ("กรุงเทพ", ["ก", "รุ", "ง", "เท", "พ", "กรุ", "รุง", "งเท", "เทพ"]),  # a vowel written before its consonant stays with it
        ("น้ำ", ["น้ํา"]),
        ("ລາວ", ["ລາ", "ວ", "ລາວ"]),
        ("ភាសាខ្មែរ", ["ភា", "សា", "ខ្", "មែ", "រ", "ភាសា", "សាខ្", "ខ្មែ", "មែរ"]),
        ("မြန်မာ", ["မြ", "န်", "မာ", "မြန်", "န်မာ"]),
        ("東京都", ["東", "京", "都", "東京", "京都"]),
        ("手", ["手"]),
    ],
)
def test_scripts_without_spaces_give_characters_with_their_marks_and_pairs(word, terms):
    (run,) = analysis.words_of(word)
    assert analysis.Analyzer().terms([run], analysis.UNSPACED) == terms


@pytest.mark.parametrize(
    ("written", "asked", "language"),
    [
        ("كِتَابٌ", "كتاب", "arabic"),
        ("שָׁלוֹם", "שלום", "english"),
        ("élève", "eleve", "french"),
        ("३०८", "308", "hindi"),
        ("٣٠٨", "308", "arabic"),
        ("क\u094d\u200dष", "क\u094dष", "hindi"),
        ("والكتاب", "كتاب", "arabic"),  # "and the book"
        ("ﻛﺘﺎب", "كتـاب", "arabic"),  # presentation forms; a stretched line
        ("İSTANBUL", "istanbul", "turkish"),
        ("IŞIK", "ışık", "turkish"),
        ("Ποιά", "ποια", "english"),  # Greek among English
        ("ΣΎΣΤΗΜΑ", "συστημα", "greek"),
        ("tie\u0302\u0301ng", "tiếng", "english"),
        ("ＡＢＣ１２", "abc12", "english"),
    ],
)
def test_what_a_writer_may_leave_out_does_not_part_a_word_from_itself(written, asked, language):
    analyzer = analysis.Analyzer()
    terms = [analyzer.terms(analysis.words_of(text), language) for text in (written, asked)]
    assert terms[0] == terms[1] != []


def test_a_vowel_sign_tells_words_apart():
    analyzer = analysis.Analyzer()
    assert analyzer.terms(analysis.words_of("दिन"), "hindi") != analyzer.terms(analysis.words_of("दान"), "hindi")


def test_a_text_as_english_as_french_is_taken_for_english_until_the_collection_says_otherwise():
    words = analysis.words_of("Capital expenditure rose on new machines.")
    assert analysis.detect(words, {}) == "english"
    assert analysis.detect(words, {"french": 0.9, "english": 0.1}) == "french"


@pytest.mark.parametrize(
    ("question", "kept", "language"),
    [
        ("公司是哪一年成立的？", ["公司是", "年成立的"], analysis.UNSPACED),
        ("สมเด็จพระราชินีครองราชย์เมื่อใด", ["สมเด็จพระราชินีครองราชย์"], analysis.UNSPACED),
        ("会社はいつ設立されましたか", ["会社は", "設立され"], analysis.UNSPACED),
        ("पैंथर्स ने कितने अंक दिए", ["पैंथर्स", "अंक", "दिए"], "hindi"),
        ("कौन", ["कौन"], "hindi"),
        ("Câte puncte au primit", ["puncte", "primit"], "romanian"),
    ],
)
def test_what_a_question_asks_with_is_not_searched_for_unless_it_is_all_there_is(question, kept, language):
    assert analysis.detect(analysis.words_of(question), {}) == language
    assert analysis.Analyzer().question_words(analysis.words_of(question), language) == kept
