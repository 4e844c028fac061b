"""The Gemini generator, driven through the real client against the stand-in."""

from __future__ import annotations

import asyncio

import pydantic
import pytest

from ultrafast_rag.answer.gemini import GeminiGenerator, estimate_tokens, gate_name
from ultrafast_rag.bench.gemini_server import Server
from ultrafast_rag.errors import (
    BadResponseError,
    GenerationError,
    RateLimitedError,
    RefusedError,
    TimedOutError,
    UnavailableError,
)
from ultrafast_rag.remote.google import retry_after
from ultrafast_rag.remote.limits import CircuitBreaker, Gate, Retry, metering
from ultrafast_rag.remote.quota import Quota, QuotaLedger
from ultrafast_rag.remote.secrets import Secret
from ultrafast_rag.types import Hit

KEY = Secret("AIza-test-key-0123456789", "the argument")
HITS = [
    Hit(1, "a", "pumps.pdf", "text", "The pump delivers sixteen litres a second at full speed.", 0.9, page=4),
    Hit(2, "b", "plan.png", "image", "Plan of the pump room.", 0.5),
]
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def once(fault):
    return lambda number, body: fault if number == 0 else None


def always(fault):
    return lambda number, body: fault


def generator(server, *, timeout_s=10.0, **options):
    gate = Gate("gemini", retry=Retry(attempts=4, base_s=0.001), **options.pop("gate", {}))
    return GeminiGenerator(
        model="gemini-3.5-flash",
        key=KEY,
        gate=gate,
        context_tokens=1000,
        base_url=server.url,
        timeout_s=timeout_s,
        max_output_tokens=256,
        **options,
    )


async def ask(model, hits=HITS):
    return "".join([piece async for piece in model.stream("How much does the pump deliver?", hits)])


async def test_a_reply_streams_in_pieces_and_is_paid_for():
    with Server(reply=lambda body: "Sixteen litres a second [1].") as server, metering() as meter:
        model = generator(server)
        pieces = [piece async for piece in model.stream("How much?", HITS)]
    assert len(pieces) == 4
    assert "".join(pieces) == "Sixteen litres a second [1]."
    assert (meter.input_tokens, meter.output_tokens) == (100, 15)
    assert meter.cost_usd == pytest.approx(100 * 1.5e-6 + 15 * 9e-6)
    assert model.gate.totals.as_dict()["requests"] == 1


async def test_the_key_travels_in_a_header_only():
    with Server() as server:
        model = generator(server)
        await ask(model)
    (request,) = server.seen
    assert request.headers["x-goog-api-key"] == KEY.reveal()
    assert KEY.reveal() not in request.path + str(request.body) + repr(model)
    assert request.model == "gemini-3.5-flash"


async def test_pictures_of_hits_are_sent_with_their_number():
    with Server() as server:
        await ask(generator(server, image_of=lambda hit: PNG if hit.modality == "image" else None))
    (request,) = server.seen
    assert [picture.get("mimeType") or picture["mime_type"] for picture in request.pictures] == ["image/png"]
    assert "Picture of source 2" in request.text


@pytest.mark.parametrize("fault", ["429-minute", "500", "503", "drop", "garbage"])
async def test_a_transient_fault_is_tried_again(fault):
    with Server(schedule=once(fault)) as server:
        model = generator(server)
        assert await ask(model) == "Sixteen litres [1]."
    assert len(server.seen) == 2
    assert model.gate.totals.retries == 1
    assert model.gate.breaker.state == "closed"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("429-minute", RateLimitedError),
        ("500", UnavailableError),
        ("503", UnavailableError),
        ("drop", GenerationError),
        ("garbage", BadResponseError),
    ],
)
async def test_a_lasting_fault_is_given_up_as_ours(fault, kind):
    with Server(schedule=always(fault)) as server, pytest.raises(kind) as caught:
        await ask(generator(server))
    assert len(server.seen) == 4
    assert KEY.reveal() not in str(caught.value)


@pytest.mark.parametrize("fault", ["429-day", "429-no-free-tier"])
async def test_a_spent_day_is_never_tried_again_and_opens_the_breaker(fault):
    with Server(schedule=always(fault)) as server:
        model = generator(server)
        with pytest.raises(RateLimitedError) as caught:
            await ask(model)
        assert caught.value.per_day
        assert model.gate.breaker.state == "open"
        with pytest.raises(UnavailableError, match="day's quota"):
            await ask(model)
    assert len(server.seen) == 1


async def test_a_delay_beyond_our_patience_is_not_waited_for():
    with Server(schedule=always("429-minute-long")) as server:
        model = generator(server, patience_s=10)
        with pytest.raises(RateLimitedError) as caught:
            await ask(model)
    assert caught.value.retry_after_s == 46
    assert len(server.seen) == 1


@pytest.mark.parametrize(("fault", "words"), [("401", "GEMINI_API_KEY"), ("400-key", "GEMINI_API_KEY"), ("404", "gemini_model")])
async def test_a_rejected_key_or_model_says_what_to_do_and_is_not_asked_again(fault, words):
    with Server(schedule=always(fault)) as server:
        model = generator(server)
        with pytest.raises(UnavailableError, match=words):
            await ask(model)
        with pytest.raises(UnavailableError):
            await ask(model)
    assert len(server.seen) == 1


@pytest.mark.parametrize("fault", ["blocked", "safety"])
async def test_a_refusal_is_not_tried_again_and_leaves_the_breaker_closed(fault):
    with Server(schedule=always(fault)) as server:
        model = generator(server)
        with pytest.raises(RefusedError):
            await ask(model)
    assert len(server.seen) == 1
    assert model.gate.breaker.state == "closed"


@pytest.mark.parametrize("fault", ["half", "half-clean"])
async def test_a_stream_that_breaks_off_raises_after_its_pieces(fault):
    pieces = []
    with Server(schedule=always(fault)) as server:
        model = generator(server)
        with pytest.raises(BadResponseError):  # noqa: PT012 the pieces before the break are the point
            async for piece in model.stream("How much?", HITS):
                pieces.append(piece)
    assert "Sixteen litres [1].".startswith("".join(pieces))
    assert pieces
    assert len(server.seen) == 1


async def test_silence_times_out():
    with Server(schedule=always("hang")) as server:
        model = generator(server, timeout_s=0.2)
        model.gate.retry = Retry(attempts=2, base_s=0.001)
        with pytest.raises(TimedOutError):
            await ask(model)
    assert len(server.seen) == 2


async def test_slow_bytes_arrive_whole():
    with Server(reply=lambda body: "Sechzehn Liter – да, 十六 [1].", schedule=always("slow")) as server:
        assert await ask(generator(server)) == "Sechzehn Liter – да, 十六 [1]."


async def test_cancelling_an_answer_leaves_no_task():
    with Server(schedule=always("hang")) as server:
        before = asyncio.all_tasks()
        task = asyncio.create_task(ask(generator(server)))
        while not server.seen:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() <= before


class Form(pydantic.BaseModel):
    caption: str
    keywords: list[str]


async def test_a_form_comes_back_filled_and_its_schema_was_sent():
    with Server() as server:
        done = await generator(server).complete("system", "fill in", schema=Form, images=[PNG])
    assert Form.model_validate_json(done.text).keywords == ["pump", "flow"]
    (request,) = server.seen
    settings = request.body["generationConfig"]
    assert settings["responseMimeType"] == "application/json"
    assert set(settings["responseSchema"]["properties"]) == {"caption", "keywords"}
    assert len(request.pictures) == 1


async def test_a_form_filled_wrongly_is_tried_again():
    with Server(schedule=once("wrong-form")) as server:
        done = await generator(server).complete("system", "fill in", schema=Form)
    assert done.text.startswith("{")
    assert len(server.seen) == 2


async def test_breaker_opens_after_lasting_faults_and_probes_later():
    now = [0.0]
    breaker = CircuitBreaker(failures=2, recovery_s=30, clock=lambda: now[0])
    with Server(schedule=lambda number, body: "500" if number < 8 else None) as server:
        model = generator(server)
        model.gate.breaker = breaker
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await ask(model)
        with pytest.raises(UnavailableError, match="next try in 30 s"):
            await ask(model)
        assert len(server.seen) == 8
        now[0] = 31
        assert breaker.state == "half-open"
        assert await ask(model)
    assert breaker.state == "closed"


async def test_our_own_days_count_stops_before_the_provider_does():
    with Server() as server:
        model = generator(server, gate={"quota": Quota(rpd=2)})
        await ask(model)
        await ask(model)
        with pytest.raises(RateLimitedError, match="midnight Pacific"):
            await ask(model)
    assert len(server.seen) == 2


def test_retry_after_reads_the_body_before_the_header():
    body = {"error": {"details": [{"@type": "x", "retryDelay": "37.5s"}]}}
    assert retry_after(body, {"retry-after": "5"}) == 37.5
    assert retry_after({}, {"retry-after": "5"}) == 5
    assert retry_after("nonsense", None) is None


def test_gate_name_tells_keys_apart_without_showing_them():
    other = Secret("other", "x")
    assert gate_name("m", KEY) != gate_name("m", other)
    assert KEY.reveal() not in gate_name("m", KEY)


def test_estimate_tokens_does_not_fall_short_for_other_scripts():
    assert estimate_tokens("是" * 30) >= 30
    assert estimate_tokens("word " * 30) >= 30


async def test_settings_and_the_shared_ledger_are_followed(tmp_path):
    with Server() as server:
        ledger = QuotaLedger(tmp_path / "quota.sqlite3")
        shared = {"ledger": ledger, "quota": Quota(rpd=1)}
        await ask(generator(server, gate=shared, thinking_level="low"))
        with pytest.raises(RateLimitedError, match="quota of gemini is spent"):
            await ask(generator(server, gate=shared))
    settings = server.seen[0].body["generationConfig"]
    assert len(server.seen) == 1
    assert settings["maxOutputTokens"] == 256
    assert "low" in str(settings["thinkingConfig"]).lower()
