"""Sentence ends against hand-marked texts: a bar stands where a reader sees one sentence end and the next begin."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultrafast_rag.language.sentences import split_sentences

MARKED = """
One here. | Two there! | Three?
He said "Go." | Then he left.
"Why?" he asked. | Nobody knew.
(See the appendix.) | The rest follows.
It was late... | Then it rained.
It was late... and it rained.
It was late… | Rain fell.
Sales rose 3.5 percent. | Costs fell.
Version 2.0.1 is out. | Get it.
Visit example.com today. | It is free.
The U.S. economy grew. | The U.K. did not.
He moved to the U.S. | The move was hard.
The U.S. Army and U.S. Navy agreed.
Acme Inc. reported a loss. | Shares fell.
It was bought by Acme Inc. | The price was not named.
Acme Inc. Annual Report
Smith Bros. Ltd. and Co. met. | They agreed.
See No. 7 for details. | It is short.
Was it true? | No. | He had lied.
On Jan. 5 it rained. | On Feb. 6 it snowed.
It opened in Jan. | Sales were slow.
See Fig. 3 and Figs. 4 and 5. | They differ.
See Fig. A2 and Sec. IV. | Both help.
As Sec. 3.2 shows, it holds. | Eq. 4 follows.
Cf. Vol. 2, pp. 14 and p. 20. | There is more.
Weiss et al. (2013) found it. | Others agreed.
This was found by Weiss et al. | The result holds.
Weiss et al. Transactions on Words, 2013.
Dr. Weiss met Mr. and Mrs. Brown. | They talked.
Prof. A. B. Smith and J. Doe wrote it. | It sold well.
J. R. R. Tolkien wrote it. | It sold well.
K. He, X. Zhang and S. Ren wrote it.
He took vitamin C. | The cold went away.
Some drugs, e.g. Aspirin, help. | Others, i.e. Placebo, do not.
It cost approx. 40 dollars. | It broke.
Apples, pears, etc. were sold. | Plums were not.
They sold apples, pears, etc. | Plums were not there.
She has a Ph.D. in physics. | He has none.
It starts at 5 p.m. and ends at 6 a.m. | We slept.
The pump draws 12 W. | Ambient air cools it. | It runs at 20 °C. | Oil is at 3.5 V. | Done.
Visit 120 W. Main Street today. | Room 12 B. Smith was there.
Martin Luther King Jr. spoke. | They listened.
St. Petersburg is cold. | Mt. Fuji is high.
1. Open the lid. | 2. Close the lid.
3.2. Results are below. | They are good.
II. Methods were plain. | They worked.
A. First do this. | B. Then do that.
The year was 1998. | It was hot.
It ended in 2018.[12] | The rest is known.
Temperatures fell to -5. | Pipes froze.
Am 3. Oktober wird gefeiert. | Am 1. Mai auch.
Im 19. Jahrhundert kam die Bahn. | Sie war laut.
Das gilt z.B. für Hunde. | Katzen sind anders.
Siehe Abb. 3 bzw. Tab. 4. | Dort steht es.
Er öffnete es. | Über allem lag Staub.
Le prix baisse. | À Paris, il monte.
¿Dónde está? | ¡Aquí está! | Muy bien.
Он пришёл. | Она ушла.
На рис. 5 видно море. | Оно синее.
यह पहला वाक्य है। | यह दूसरा है। | क्या यह तीसरा है?
डॉ. शर्मा आए। | वे बैठे।
श्लोक यहाँ है॥ | अगला यहाँ है॥
هل هذا صحيح؟ | نعم هذا صحيح. | انتهى.
یہ پہلا جملہ ہے۔ | یہ دوسرا ہے۔
د. محمد هنا. | ذهب الآخر.
雨が降った。 | 風も吹いた。
「雨だ。」 | 彼は言った。
今天下雨！ | 明天呢？ | 不知道。
ይህ አንድ ነው። | ይህ ሁለት ነው።
ဒါက တစ်။ | ဒါက နှစ်။
នេះមួយ។ | នេះពីរ។
Սա մեկն է։ | Սա երկուսն է։
""".strip().split("\n")


@pytest.mark.parametrize("marked", MARKED)
def test_sentences_end_where_a_reader_ends_them(marked):
    assert split_sentences(marked.replace(" | ", " ")) == marked.split(" | ")


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("雨が降った。風も吹いた。", ["雨が降った。", "風も吹いた。"]),
        ("पहला है।दूसरा है।", ["पहला है।", "दूसरा है।"]),
        ("น้ำทะเล " + "ก" * 160 + " ดอกไม้ต่างๆ " + "ข" * 160 + " แมว", ["น้ำทะเล " + "ก" * 160, "ดอกไม้ต่างๆ " + "ข" * 160, "แมว"]),
        ("A title\n\nA paragraph. It ends.", ["A title", "A paragraph.", "It ends."]),
        ("one line\nand the next", ["one line\nand the next"]),
        (
            "Ducks are everywhere.(5) Some dive.[21](22) Male duck.",
            ["Ducks are everywhere.(5)", "Some dive.[21](22)", "Male duck."],
        ),
        ("  \n ", []),
    ],
)
def test_blanks_are_needed_only_where_the_script_writes_them(text, sentences):
    assert split_sentences(text) == sentences


@given(st.text(alphabet="aB1. !?…।؟。\n\"'()[]éÖ第क", max_size=60))
def test_nothing_but_blanks_is_lost_and_no_sentence_is_empty(text):
    sentences = split_sentences(text)
    assert re.sub(r"\s", "", "".join(sentences)) == re.sub(r"\s", "", text)
    assert all(sentence.strip() == sentence != "" for sentence in sentences)
