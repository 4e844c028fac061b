"""Routing: who is asked, who answers when that fails, and that every answer says so."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest

from ultrafast_rag.answer.custom import CustomGenerator
from ultrafast_rag.answer.gemini import GeminiGenerator, estimate_tokens
from ultrafast_rag.answer.route import Answerer, Candidate, complexity, select
from ultrafast_rag.bench.gemini_server import Server
from ultrafast_rag.errors import BadResponseError, ConfigError, GenerationError, TimedOutError
from ultrafast_rag.remote.limits import Gate, Retry
from ultrafast_rag.remote.secrets import Secret
from ultrafast_rag.types import Answer, Citation, Hit, Hits

SIMPLE = "How many litres a second?"
COMPLEX = "Compare the two pumps and explain why their flow differs, how it is measured, and what follows for the plant?"


def hits():
    texts = ("The north pump delivers sixteen litres a second.", "The south pump delivers nine litres a second.")
    return Hits([Hit(n, f"d{n}", f"d{n}.txt", "text", text, 1.0 / n) for n, text in enumerate(texts, 1)], query=SIMPLE)


class FirstPassage:
    """Answers with the first passage: enough of an extractive answerer for routing."""

    def answer(self, question, found):
        return Answer(question, found[0].text if found else "Not found.", found, supported=bool(found))


def custom(function, timeout_s=5.0):
    return CustomGenerator(function, context_tokens=500, count_tokens=estimate_tokens, timeout_s=timeout_s)


def answerer(*functions):
    candidates = [Candidate(custom(function), f"reason {n}") for n, function in enumerate(functions)]
    return Answerer(FirstPassage(), candidates, why_extractive="no generator could be asked")


def cites(question, found):
    return "Sixteen [1]."


def fails(question, found):
    raise LookupError("backend gone")


def cites_nothing(question, found):
    return "Probably sixteen."


async def test_without_candidates_the_extractive_answer_says_why():
    answer = await Answerer(FirstPassage(), why_extractive="no Gemini key was found").answer(SIMPLE, hits())
    assert (answer.generator, answer.reason) == ("extractive", "no Gemini key was found")


async def test_the_answer_names_its_writer_and_puts_cited_hits_first():
    answer = await answerer(lambda question, found: "Nine litres [2].").answer(SIMPLE, hits())
    assert answer.generator == "custom:<lambda>"
    assert answer.reason == "reason 0"
    assert answer.text == "Nine litres [1]."
    assert [hit.chunk_id for hit in answer.hits] == [2, 1]
    assert answer.citations[0].quote == "The south pump delivers nine litres a second."
    assert answer.hits.query == SIMPLE


async def test_a_failing_generator_leaves_an_extractive_answer_and_a_note():
    answer = await answerer(fails).answer(SIMPLE, hits())
    assert answer.generator == "extractive"
    assert answer.text == hits()[0].text
    assert "backend gone" in answer.notes[0]
    assert "backend gone" in answer.reason


async def test_the_extractive_answer_leaves_the_loop_free():
    freed = threading.Event()

    class Patient:
        def answer(self, question, found):
            return Answer(question, "free" if freed.wait(5) else "stalled", found)

    async def meanwhile():
        freed.set()

    answer, _ = await asyncio.gather(Answerer(Patient()).answer(SIMPLE, hits()), meanwhile())
    assert answer.text == "free"


HOSTILE = (
    "Sixteen litres \x1b[31ma second\x1b]8;;https://evil.example\x07, \u202eevil\u202c \u200bsays [99] and \u30107\u3011 "
    "and [1], see [here](https://evil.example/?q=1) or https://evil.example/x or <img src=//evil.example/y>."
)


async def test_an_extractive_answer_shows_nothing_a_document_smuggles_in():
    stored = Hit(7, "d7", "d\x1b[2J.txt", "text", HOSTILE, 1.0, title=HOSTILE, neighbours=(HOSTILE, HOSTILE))

    class Quotes:
        def answer(self, question, found):
            hit = found[0]
            quote = " ".join((hit.title, *hit.neighbours, hit.text))
            return Answer(question, f"{quote} [1]", found.copy(), (Citation(1, hit, quote),))

    answer = await Answerer(Quotes()).answer(SIMPLE, Hits([stored]))
    for shown in (answer.text, answer.citations[0].quote, str(answer), str(stored)):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", shown)
    for shown in (answer.text, answer.citations[0].quote):
        assert "evil.example" not in shown
        assert "<img" not in shown
    assert re.findall(r"[\[\u3010]\d+[\]\u3011]", answer.text) == ["[1]"]
    assert answer.text.endswith("[1]")
    assert "Sixteen litres" in answer.text
    assert answer.citations[0].hit is stored
    assert answer.hits[0] is stored


async def test_quotes_of_a_written_answer_are_clean_too():
    found = Hits([Hit(7, "d7", "d.txt", "text", HOSTILE, 1.0)])
    answer = await answerer(lambda question, given: "Sixteen litres a second [1].").answer(SIMPLE, found)
    (citation,) = answer.citations
    assert "evil.example" not in citation.quote
    assert "\x1b" not in citation.quote


async def test_nothing_found_asks_no_model():
    asked = []
    answer = await answerer(lambda question, found: asked.append(1) or "x").answer(SIMPLE, Hits())
    assert not asked
    assert (answer.generator, answer.supported) == ("extractive", False)
    assert "no model was asked" in answer.reason


async def test_a_simple_question_goes_to_the_cheap_one_and_a_complex_one_to_the_strong_one():
    def cheap(question, found):
        return "Cheap [1]."

    def strong(question, found):
        return "Strong [1]."

    router = answerer(cheap, strong)
    simple, hard = await router.answer(SIMPLE, hits()), await router.answer(COMPLEX, hits())
    assert (simple.text, hard.text) == ("Cheap [1].", "Strong [1].")
    assert "simple question" in simple.reason
    assert "complex question" in hard.reason


async def test_weak_support_climbs_to_the_stronger_one():
    answer = await answerer(cites_nothing, cites).answer(SIMPLE, hits())
    assert answer.generator == "custom:cites"
    assert "found no support" in answer.reason


async def test_the_weak_reply_stands_when_the_stronger_one_fails():
    answer = await answerer(cites_nothing, fails).answer(SIMPLE, hits())
    assert answer.generator == "custom:cites_nothing"
    assert any("cites none" in note for note in answer.notes)
    assert any("backend gone" in note for note in answer.notes)


async def test_a_failing_cheap_one_is_followed_by_the_other():
    answer = await answerer(fails, cites).answer(SIMPLE, hits())
    assert answer.generator == "custom:cites"
    assert any("backend gone" in note for note in answer.notes)


async def test_a_refusal_is_an_unsupported_answer():
    answer = await answerer(lambda question, found: "[no answer] Das steht nicht darin.").answer(SIMPLE, hits())
    assert (answer.supported, answer.text) == (False, "Das steht nicht darin.")


async def test_links_are_taken_out_and_told_of():
    answer = await answerer(lambda question, found: "Sixteen [1]. ![x](https://evil.example/?q=s)").answer(SIMPLE, hits())
    assert answer.text == "Sixteen [1]."
    assert any("taken out" in note for note in answer.notes)


async def test_a_stream_ends_with_the_answer_its_pieces_spelled():
    async def slowly(question, found):
        for word in ("Sixteen ", "litres [1]. ", "Nine ", "too [2]."):
            await asyncio.sleep(0)
            yield word

    *pieces, answer = [piece async for piece in answerer(slowly).stream(SIMPLE, hits())]
    assert len(pieces) > 1
    assert "".join(pieces) == answer.text == "Sixteen litres [1]. Nine too [2]."


async def test_a_reply_that_breaks_off_is_replaced():
    def broken(question, found):
        yield "Sixteen litres. And "
        raise ConnectionError("cut")

    *pieces, answer = [piece async for piece in answerer(broken).stream(SIMPLE, hits())]
    assert pieces == ["Sixteen litres. "]
    assert answer.generator == "extractive"
    assert answer.text == hits()[0].text


@pytest.mark.parametrize("shape", ["plain", "async", "pieces", "async pieces", "prompt", "object"])
async def test_any_function_can_be_the_generator(shape):
    def plain(question, found):
        return "Sixteen [1]."

    async def later(question, found):
        return "Sixteen [1]."

    def pieces(question, found):
        yield from ("Sixteen ", "[1].")

    async def later_pieces(question, found):
        yield "Sixteen "
        yield "[1]."

    def prompt(text):
        assert "^sixteen^litres" in text
        return "Sixteen [1]."

    class Model:
        async def __call__(self, question, found):
            return "Sixteen [1]."

    chosen = {"plain": plain, "async": later, "pieces": pieces, "async pieces": later_pieces, "prompt": prompt, "object": Model()}
    answer = await answerer(chosen[shape]).answer(SIMPLE, hits())
    assert (answer.text, answer.generator.split(":")[0]) == ("Sixteen [1].", "custom")


async def test_a_function_that_hangs_or_gives_no_text_fails_as_ours():
    async def hangs(question, found):
        await asyncio.sleep(60)

    with pytest.raises(TimedOutError):
        await anext(custom(hangs, timeout_s=0.05).stream(SIMPLE, hits()))
    with pytest.raises(BadResponseError):
        await anext(custom(lambda question, found: 3).stream(SIMPLE, hits()))
    with pytest.raises(GenerationError, match="LookupError"):
        await anext(custom(fails).stream(SIMPLE, hits()))


def test_a_function_of_no_arguments_is_refused_when_given():
    with pytest.raises(ConfigError, match="question, hits"):
        custom(lambda: "x")


def test_select_follows_the_setting():
    gemini, local = (Candidate(custom(cites), name) for name in ("gemini", "local"))
    assert select("auto", gemini=gemini, local=local)[0] == [gemini, local]
    assert select("auto")[1] == "no Gemini key was found and no local model is configured"
    assert select("extractive", gemini=gemini) == ([], "as configured")
    assert select("local", gemini=gemini, local=local)[0] == [local]
    with pytest.raises(ConfigError, match="GEMINI_API_KEY"):
        select("gemini")
    with pytest.raises(ConfigError, match="local_model"):
        select("local")
    with pytest.raises(ConfigError, match="'auto', 'extractive'"):
        select("gpt")


@pytest.mark.parametrize("hard", [COMPLEX, "Warum unterscheiden sich die Pumpen? Und wie misst man das, und was folgt daraus?"])
def test_complexity_tells_questions_apart(hard):
    assert complexity(SIMPLE, hits()) < 0.5 <= complexity(hard, hits())


async def test_a_spent_day_is_answered_extractively_without_a_second_request():
    with Server(schedule=lambda number, body: "429-day") as server:
        model = GeminiGenerator(
            model="gemini-3.5-flash",
            key=Secret("k" * 20, "the argument"),
            gate=Gate("g", retry=Retry(base_s=0.001)),
            context_tokens=500,
            base_url=server.url,
            timeout_s=5,
            max_output_tokens=64,
        )
        router = Answerer(FirstPassage(), [Candidate(model, "a key was found")], why_extractive="Gemini could not be asked")
        first, second = await router.answer(SIMPLE, hits()), await router.answer(SIMPLE, hits())
    assert len(server.seen) == 1
    assert model.gate.breaker.state == "open"
    assert {first.generator, second.generator} == {"extractive"}
    assert "quota" in first.reason
    assert "day's quota is spent" in second.notes[0]


async def test_the_cost_of_a_paid_answer_is_on_it():
    with Server() as server:
        model = GeminiGenerator(
            model="gemini-3.5-flash-lite",
            key=Secret("k" * 20, "the argument"),
            gate=Gate("g"),
            context_tokens=500,
            base_url=server.url,
            timeout_s=5,
            max_output_tokens=64,
        )
        answer = await Answerer(FirstPassage(), [Candidate(model, "a key was found")]).answer(SIMPLE, hits())
    assert answer.cost_usd == pytest.approx((100 * 0.30 + 15 * 2.50) / 1e6)
    assert (answer.generator, answer.reason) == ("gemini:gemini-3.5-flash-lite", "a key was found")
