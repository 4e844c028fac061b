"""What a provider lets us spend, and what to do when it says no.

`Gate` is the one door to a provider: breaker, retry, width, rate, day's quota, in that order. Rates keep to a
strict window: a burst and its refill together never exceed the quota in any sixty seconds, at the
price of a slightly lower steady rate. Errors come in as ours (`GenerationError`); this file knows
no provider's format.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from ultrafast_rag.errors import BadResponseError, GenerationError, RateLimitedError, TimedOutError, UnavailableError, require
from ultrafast_rag.remote.quota import Quota, QuotaLedger, burst_of
from ultrafast_rag.types import Usage

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter
    from tenacity import RetryCallState

T = TypeVar("T")


class RateLimiter:
    """Holds callers back so that no window of period_s sees more than `rpm` requests and `tpm` tokens."""

    def __init__(self, quota: Quota, *, period_s: float = 60.0) -> None:
        self._tpm = quota.tpm
        self._requests = _strict_bucket(quota.rpm, period_s) if quota.rpm else None
        self._tokens = _strict_bucket(quota.tpm, period_s) if quota.tpm else None

    async def acquire(self, tokens: int) -> None:
        """Wait for one request of `tokens`; a request larger than the bucket waits for a full one."""
        if self._requests:
            await self._requests.acquire()
        if self._tokens:
            await self._tokens.acquire(min(max(tokens, 0), self._tokens.max_rate))


def _strict_bucket(limit: int, period_s: float) -> AsyncLimiter:
    burst = burst_of(limit)
    refill = max(limit - burst, 1)  # burst + refill over one period = limit
    bucket: AsyncLimiter = require("aiolimiter", extra="gemini").AsyncLimiter(burst, period_s * burst / refill)
    return bucket


class CircuitBreaker:
    """Closed: calls pass. Open: they fail at once, for recovery_s. Half-open: one probe decides.

    Counts failed operations in a row, each with its retries behind it. Source: Nygard, "Release It!".
    """

    def __init__(self, *, failures: int = 5, recovery_s: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._recovery_s, self._clock = failures, recovery_s, clock
        self._failed, self._open_until, self._probing, self._why = 0, 0.0, False, ""
        self._lock = threading.Lock()

    @property
    def state(self) -> str:
        """'closed', 'open' or 'half-open'."""
        if self._failed < self._limit:
            return "closed"
        return "open" if self._clock() < self._open_until else "half-open"

    def check(self) -> None:
        """Pass, or raise UnavailableError with the seconds to wait; in half-open state one caller passes."""
        with self._lock:
            state = self.state
            if state == "open" or (state == "half-open" and self._probing):
                wait_s = max(self._open_until - self._clock(), 0.0)
                raise UnavailableError(f"not asked, since {self._why}; next try in {wait_s:.0f} s", retry_after_s=wait_s)
            self._probing = state == "half-open"

    def succeeded(self) -> None:
        """Close it."""
        with self._lock:
            self._failed, self._probing = 0, False

    def failed(self, why: str, *, open_s: float | None = None) -> None:
        """Count a failure; open_s opens it at once, for that long."""
        with self._lock:
            self._failed = self._limit if open_s is not None else self._failed + 1
            self._why, self._probing = why, False
            if self._failed >= self._limit:
                self._open_until = self._clock() + (self._recovery_s if open_s is None else open_s)

    def abandoned(self) -> None:
        """A call was cancelled: it proved nothing."""
        with self._lock:
            self._probing = False


class AdaptiveWidth:
    """Calls under way at once: halves when the provider says too many, grows by one a full round of successes.

    Source: additive increase, multiplicative decrease, Chiu and Jain 1989.
    """

    def __init__(self, most: int) -> None:
        self.most, self.width, self.active = most, float(most), 0
        self._waiting: list[asyncio.Future[None]] = []

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """One place among those under way."""
        while self.active >= int(self.width):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._waiting.remove(turn)
                self._wake()  # the turn may have been given already: pass it on
                raise
            self._waiting.remove(turn)
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1
            self._wake()

    def _wake(self) -> None:
        for turn in self._waiting[: max(int(self.width) - self.active, 0)]:
            if not turn.done():
                turn.set_result(None)

    def grow(self) -> None:
        """After a success."""
        self.width = min(self.width + 1 / self.width, float(self.most))

    def shrink(self) -> None:
        """After a refusal for too many requests."""
        self.width = max(self.width / 2, 1.0)


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and how long at most: a wait over patience_s is left to the caller."""

    attempts: int = 5
    base_s: float = 0.5
    most_s: float = 20.0
    patience_s: float = 90.0

    def wait_s(self, failures: int, error: BaseException | None) -> float:
        """Full jitter, on top of the provider's own delay where it named one.

        Source: Brooker, "Exponential Backoff And Jitter", AWS 2015.
        """
        jitter = random.uniform(0, min(self.base_s * 2 ** (failures - 1), self.most_s))
        return (getattr(error, "retry_after_s", None) or 0.0) + jitter

    def is_retryable(self, error: BaseException) -> bool:
        """Would another try, within our patience, meet something else?"""
        if isinstance(error, RateLimitedError) and error.per_day:
            return False
        if isinstance(error, UnavailableError) and not error.transient:
            return False
        transient = isinstance(error, (RateLimitedError, UnavailableError, TimedOutError, BadResponseError))
        return transient and (getattr(error, "retry_after_s", None) or 0.0) <= self.patience_s


@dataclass(slots=True)
class Totals:
    """Running sums over a session; `as_dict` is what `stats()` shows."""

    requests: int = 0
    retries: int = 0
    failures: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def record(self, usage: Usage, cost_usd: float | None) -> None:
        """Add one paid reply, here and to the meter of the answer being written."""
        for sums in {id(self): self, **({id(m): m} if (m := _meter.get()) else {})}.values():
            with sums._lock:
                sums.input_tokens += usage.input_tokens
                sums.output_tokens += usage.output_tokens
                sums.cost_usd += cost_usd or 0.0
                sums.unpriced += cost_usd is None

    def count(self, what: str) -> None:
        """Add one to requests, retries or failures."""
        with self._lock:
            setattr(self, what, getattr(self, what) + 1)

    def as_dict(self) -> dict[str, float]:
        """Plain numbers by name."""
        names = ("requests", "retries", "failures", "input_tokens", "output_tokens", "cost_usd", "unpriced")
        return {name: getattr(self, name) for name in names}


_meter: ContextVar[Totals | None] = ContextVar("ultrafast_rag_meter", default=None)


@contextlib.contextmanager
def metering() -> Iterator[Totals]:
    """Sums of everything paid inside the block by this task."""
    sums = Totals()
    token = _meter.set(sums)
    try:
        yield sums
    finally:
        with contextlib.suppress(ValueError):  # an abandoned generator is closed by another task, whose context is not ours
            _meter.reset(token)


class Gate:
    """The one door to a provider. name: model and key digest, the ledger's row."""

    def __init__(
        self,
        name: str,
        *,
        quota: Quota | None = None,
        ledger: QuotaLedger | None = None,
        retry: Retry | None = None,
        concurrency: int = 8,
        period_s: float = 60.0,
    ) -> None:
        self.name, self.quota = name, quota or Quota()
        self.ledger, self.breaker = ledger or QuotaLedger(None), CircuitBreaker()
        self.retry, self.width, self.totals = retry or Retry(), AdaptiveWidth(concurrency), Totals()
        self._rate = RateLimiter(self.quota, period_s=period_s)

    async def call(self, attempt: Callable[[], Awaitable[T]], *, tokens: int, patience_s: float | None = None) -> T:
        """Run `attempt` (which raises GenerationError) under all limits, retried where that can help.

        tokens: what the request will be counted as; patience_s: instead of the retry's own. Raises the
        last GenerationError; on a spent day at once, with the breaker open until midnight Pacific.
        """
        tenacity = require("tenacity", extra="gemini")
        retry = self.retry if patience_s is None else replace(self.retry, patience_s=patience_s)

        def wait_s(state: RetryCallState) -> float:
            return retry.wait_s(state.attempt_number, state.outcome.exception() if state.outcome else None)

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(retry.is_retryable),
            wait=wait_s,
            stop=tenacity.stop_after_attempt(retry.attempts),
            before_sleep=lambda _: self.totals.count("retries"),
            reraise=True,
        )
        self.breaker.check()
        try:
            result: T = await retrying(self._once, attempt, tokens)
        except GenerationError as error:
            self._failed(error)
            raise
        except BaseException:  # cancelled, or a fault of ours: says nothing about the provider
            self.breaker.abandoned()
            raise
        self.breaker.succeeded()
        return result

    async def _once(self, attempt: Callable[[], Awaitable[T]], tokens: int) -> T:
        async with self.width.slot():
            await self._rate.acquire(tokens)
            self.ledger.spend(self.name, self.quota.rpd)
            self.totals.count("requests")
            try:
                result = await attempt()
            except RateLimitedError as error:
                self.width.shrink()
                if error.per_day:
                    self.ledger.exhaust(self.name)
                raise
            self.width.grow()
            return result

    def _failed(self, error: GenerationError) -> None:
        self.totals.count("failures")
        if isinstance(error, RateLimitedError) and error.per_day:
            self.breaker.failed("the day's quota is spent", open_s=self.ledger.seconds_to_reset())
        elif isinstance(error, UnavailableError) and not error.transient:
            self.breaker.failed(str(error), open_s=300.0)
        elif isinstance(error, (UnavailableError, TimedOutError, RateLimitedError, BadResponseError)):
            self.breaker.failed(f"it failed several times ({type(error).__name__})")
        else:
            self.breaker.succeeded()  # it declined this one request, and works
