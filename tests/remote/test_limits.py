"""Rates in virtual time, the day's ledger by the Pacific calendar, the breaker's states, the gate's order."""

from __future__ import annotations

import asyncio
import selectors
import sqlite3
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest

from ultrafast_rag.errors import (
    BadResponseError,
    MissingExtraError,
    RateLimitedError,
    RefusedError,
    TimedOutError,
    UnavailableError,
)
from ultrafast_rag.remote.limits import AdaptiveWidth, CircuitBreaker, Gate, RateLimiter, Retry, Totals, metering
from ultrafast_rag.remote.prices import PRICES, cost_usd
from ultrafast_rag.remote.quota import Quota, QuotaLedger
from ultrafast_rag.types import Usage


class VirtualLoop(asyncio.SelectorEventLoop):
    """Waiting takes no time: the clock jumps to the next timer."""

    def __init__(self):
        outer = self
        self.now = 0.0

        class Selector(selectors.DefaultSelector):
            def select(self, timeout=None):
                outer.now += (timeout or 0.0) + 1e-6  # a real clock never stands still
                return super().select(0)

        super().__init__(Selector())

    def time(self):
        return self.now


def in_virtual_time(coroutine):
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


@pytest.mark.reference
@pytest.mark.parametrize("rpm", [1, 5, 10, 60, 300])
def test_no_window_of_a_minute_sees_more_than_the_rate(rpm):
    async def run():
        limiter = RateLimiter(Quota(rpm=rpm))
        times = []

        async def one():
            await limiter.acquire(0)
            times.append(asyncio.get_running_loop().time())

        await asyncio.gather(*(one() for _ in range(4 * rpm)))
        return times

    times = in_virtual_time(run())
    busiest = max(sum(start <= t < start + 60 for t in times) for start in times)
    assert busiest <= rpm
    # and the rate is used: half goes at once, the rest at half the rate
    assert times[-1] <= 60 * 8


@pytest.mark.reference
def test_no_window_of_a_minute_sees_more_than_the_tokens():
    async def run():
        limiter = RateLimiter(Quota(tpm=1000))
        seen = []

        async def one(tokens):
            await limiter.acquire(tokens)
            seen.append((asyncio.get_running_loop().time(), tokens))

        await asyncio.gather(*(one(100 + 40 * (n % 5)) for n in range(40)))
        return seen

    seen = in_virtual_time(run())
    assert max(sum(tokens for t, tokens in seen if start <= t < start + 60) for start, _ in seen) <= 1000


def test_a_request_larger_than_the_bucket_is_not_stuck():
    async def run():
        await RateLimiter(Quota(tpm=100)).acquire(10_000)

    in_virtual_time(run())


@pytest.mark.reference
def test_without_a_time_zone_database_the_package_to_install_is_named(monkeypatch):
    def none_there(key):
        raise ZoneInfoNotFoundError(key)

    monkeypatch.setattr("zoneinfo.ZoneInfo", none_there)
    with pytest.raises(MissingExtraError, match="tzdata"):
        QuotaLedger(None)


class Now:
    def __init__(self, *moment):
        self.moment = datetime(*moment, tzinfo=UTC)

    def __call__(self):
        return self.moment


def test_the_day_ends_at_midnight_pacific(tmp_path):
    now = Now(2026, 7, 1, 6, 30)  # 23:30 of 30 June there
    ledger = QuotaLedger(tmp_path / "quota.sqlite3", now=now)
    assert ledger.day() == date(2026, 6, 30)
    assert ledger.seconds_to_reset() == 1800
    ledger.spend("m", 2)
    ledger.spend("m", 2)
    with pytest.raises(RateLimitedError, match=r"0\.5 h") as caught:
        ledger.spend("m", 2)
    assert caught.value.per_day
    ledger.spend("other", 2)
    now.moment += timedelta(minutes=31)
    ledger.spend("m", 2)
    assert ledger.used("m") == 1


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 8), 23), ((2026, 11, 1), 25), ((2026, 6, 1), 24)])
def test_a_day_with_a_change_of_clocks_has_its_own_length(day, hours):
    start = datetime(*day, tzinfo=ZoneInfo("America/Los_Angeles")).astimezone(UTC)
    assert QuotaLedger(None, now=lambda: start).seconds_to_reset() == hours * 3600


def test_the_count_outlives_the_process_and_a_provider_s_no_holds_all_day(tmp_path):
    now = Now(2026, 6, 1, 12)
    first = QuotaLedger(tmp_path / "quota.sqlite3", now=now)
    first.spend("m", None)
    first.exhaust("m")
    first.close()
    second = QuotaLedger(tmp_path / "quota.sqlite3", now=now)
    assert second.used("m") == 1
    with pytest.raises(RateLimitedError):
        second.spend("m", None)
    now.moment += timedelta(days=1)
    second.spend("m", None)


@pytest.mark.fault
def test_a_ledger_that_cannot_be_written_counts_in_memory(tmp_path):
    broken = tmp_path / "quota.sqlite3"
    broken.write_bytes(b"no database" * 100)
    with pytest.warns(UserWarning, match="in memory"):
        ledger = QuotaLedger(broken)
    ledger.spend("m", 1)
    with pytest.raises(RateLimitedError):
        ledger.spend("m", 1)


@pytest.mark.fault
def test_a_ledger_that_fails_later_goes_on_in_memory(tmp_path):
    ledger = QuotaLedger(tmp_path / "quota.sqlite3")
    with sqlite3.connect(tmp_path / "quota.sqlite3") as db:
        db.execute("DROP TABLE days")
    with pytest.warns(UserWarning, match="in memory"):
        ledger.spend("m", 1)
    assert ledger.used("m") == 1


def test_breaker_opens_after_failures_in_a_row_and_lets_one_probe_through():
    now = [0.0]
    breaker = CircuitBreaker(failures=3, recovery_s=10, clock=lambda: now[0])
    for _ in range(2):
        breaker.failed("it failed")
    breaker.succeeded()
    for _ in range(3):
        assert breaker.state == "closed"
        breaker.check()
        breaker.failed("it failed")
    assert breaker.state == "open"
    with pytest.raises(UnavailableError) as caught:
        breaker.check()
    assert caught.value.retry_after_s == 10
    now[0] = 10
    assert breaker.state == "half-open"
    breaker.check()
    with pytest.raises(UnavailableError):
        breaker.check()
    breaker.failed("again")
    assert breaker.state == "open"
    now[0] = 20
    breaker.check()
    breaker.abandoned()
    breaker.check()
    breaker.succeeded()
    assert breaker.state == "closed"


async def test_width_halves_and_grows_back():
    width = AdaptiveWidth(8)
    for expected in (4, 2, 1, 1):
        width.shrink()
        assert width.width == expected
    for _ in range(100):
        width.grow()
    assert width.width == 8


async def test_width_is_never_passed_even_when_waiters_are_cancelled():
    width = AdaptiveWidth(3)
    most = 0

    async def one():
        nonlocal most
        async with width.slot():
            most = max(most, width.active)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(one()) for _ in range(50)]
    await asyncio.sleep(0)
    for task in tasks[10:30]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(outcome is None for outcome in done) == 30
    assert (most, width.active) == (3, 0)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (RateLimitedError("m", retry_after_s=5), True),
        (RateLimitedError("d", per_day=True), False),
        (RateLimitedError("m", retry_after_s=500), False),
        (UnavailableError("x"), True),
        (UnavailableError("x", transient=False), False),
        (TimedOutError("x"), True),
        (BadResponseError("x"), True),
        (RefusedError("x"), False),
        (ValueError("ours"), False),
    ],
)
def test_only_what_can_change_is_tried_again(error, again):
    assert Retry().is_retryable(error) is again


def test_waits_honour_the_provider_and_jitter_below_the_exponential():
    retry = Retry(base_s=1, most_s=8)
    for failures in range(1, 9):
        waits = [retry.wait_s(failures, None) for _ in range(200)]
        assert 0 <= min(waits) <= max(waits) <= min(2 ** (failures - 1), 8)
    assert 30 <= retry.wait_s(1, RateLimitedError("m", retry_after_s=30)) <= 31


def gate_in_virtual_time(failures, **options):
    """Outcomes in order; the loop's time at each attempt."""
    times = []

    async def run():
        async def attempt():
            times.append(asyncio.get_running_loop().time())
            if failures:
                raise failures.pop(0)
            return "fine"

        gate = Gate("g", **options)
        try:
            return await gate.call(attempt, tokens=1), gate
        except Exception as error:
            return error, gate

    outcome, gate = in_virtual_time(run())
    return outcome, gate, times


def test_the_gate_waits_as_long_as_the_provider_says():
    outcome, gate, times = gate_in_virtual_time([RateLimitedError("m", retry_after_s=40), UnavailableError("x")])
    assert outcome == "fine"
    assert times[1] - times[0] >= 40
    assert (gate.totals.requests, gate.totals.retries, gate.breaker.state) == (3, 2, "closed")
    assert gate.width.width < 8


@pytest.mark.reference
def test_retries_too_keep_within_the_rate():
    times = []

    async def run():
        gate = Gate("g", quota=Quota(rpm=30), concurrency=8)

        async def attempt():
            times.append(asyncio.get_running_loop().time())
            if len(times) % 3 == 0:
                raise UnavailableError("x")

        await asyncio.gather(*(gate.call(attempt, tokens=1) for _ in range(90)), return_exceptions=True)

    in_virtual_time(run())
    assert len(times) > 110
    assert max(sum(start <= t < start + 60 for t in times) for start in times) <= 30


def test_the_gate_never_retries_a_spent_day():
    outcome, gate, times = gate_in_virtual_time([RateLimitedError("d", per_day=True)])
    assert isinstance(outcome, RateLimitedError)
    assert (len(times), gate.totals.retries, gate.breaker.state) == (1, 0, "open")


def test_a_fault_of_ours_says_nothing_about_the_provider():
    outcome, gate, times = gate_in_virtual_time([LookupError("bug")])
    assert isinstance(outcome, LookupError)
    assert (len(times), gate.breaker.state, gate.totals.failures) == (1, "closed", 0)


def test_metering_adds_up_one_answer_and_the_session():
    session = Totals()
    with metering() as meter:
        session.record(Usage(10, 5), 0.5)
        session.record(Usage(1, 1), None)
    session.record(Usage(100, 0), 1.0)
    assert (meter.input_tokens, meter.cost_usd, meter.unpriced) == (11, 0.5, 1)
    assert session.as_dict()["input_tokens"] == 111
    assert session.cost_usd == 1.5


def test_prices_change_on_their_day():
    usage = Usage(1_000_000, 1_000_000)
    assert cost_usd("gemini-3.8-flash", usage, on=date(2026, 12, 31)) == pytest.approx(4.5)
    assert cost_usd("models/gemini-3.8-flash", usage, on=date(2027, 1, 1)) == pytest.approx(9.0)
    assert cost_usd("somebody-else", usage) is None
    assert all(prices[-1].until is None for prices in PRICES.values())
