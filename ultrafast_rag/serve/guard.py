"""What a request must pass before anything looks at it: who asks, from where, how often, how much, how long.

A plain ASGI layer, so that a body over the limit is refused while it arrives. Keys are compared by digest in constant
time. Without keys the server answers this machine alone: other host names (DNS rebinding) and pages of other origins
(a form can post a file anywhere) are refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ultrafast_rag.remote.secrets import Secret

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
OPEN = frozenset({"/", "/health", "/ready", "/openapi.json"})  # hold nothing of the documents
CALLERS = 10_000  # buckets kept; one who asked long before all of these starts with a full one
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"), (b"cache-control", b"no-store"))
_CSP = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class BodyTooLargeError(Exception):
    """More bytes than a request may have have come."""


class Buckets:
    """A token bucket for each caller: `burst` requests at once, then `rate_per_s`."""

    def __init__(self, rate_per_s: float, burst: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate_per_s, burst, clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, caller: str) -> float:
        """0 when a token was taken, else the seconds until there is one."""
        now = self._clock()
        level, then = self._levels.pop(caller, (float(self._burst), now))
        level = min(float(self._burst), level + (now - then) * self._rate)
        taken = level >= 1
        self._levels[caller] = (level - taken, now)
        if len(self._levels) > CALLERS:
            self._levels.popitem(last=False)
        return 0.0 if taken else (1 - level) / self._rate


class _Wire:
    """A request's two ends: counts what comes, remembers the status that goes out, and adds our headers to it."""

    def __init__(self, receive: Receive, send: Send, body_bytes: int) -> None:
        self._receive, self._send, self._left, self.status = receive, send, body_bytes, 0

    async def receive(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise BodyTooLargeError
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            if self._left < 0:  # whoever read the body took our error for another of its own
                raise BodyTooLargeError
            self.status = message["status"]
            given = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *_HEADERS, *([] if _CSP[0] in given else [_CSP])]
        await self._send(message)

    async def refuse(self, status: int, words: str) -> None:
        """Give up what is under way; what has begun to go out is cut off instead."""
        if self.status:
            raise RuntimeError(words)
        self._left = 0
        await _refuse(self.send, status, words, {"connection": "close"})


class Guard:
    """The layer itself. timeout_s: of a path, how long it may take. done(path, status, seconds): told after each request."""

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        *,
        keys: Sequence[Secret],
        buckets: Buckets,
        body_bytes: int,
        timeout_s: Callable[[str], float],
        done: Callable[[str, int, float], None],
    ) -> None:
        self._app, self._buckets, self._body_bytes, self._timeout_s, self._done = app, buckets, body_bytes, timeout_s, done
        self._keys = [hashlib.sha256(key.reveal().encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; everything that is no request passes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, wire = time.perf_counter(), _Wire(receive, send, self._body_bytes)
        try:
            if (refused := self._refused(scope)) is not None:
                await _refuse(wire.send, *refused)
                return
            async with asyncio.timeout(self._timeout_s(scope["path"])):
                await self._app(scope, wire.receive, wire.send)
        except BodyTooLargeError:
            await wire.refuse(413, self._too_large())
        except TimeoutError:
            await wire.refuse(504, "this took too long and was given up; ask for less, or raise the server's --timeout")
        finally:
            path = getattr(scope.get("route"), "path", "") or "other"
            self._done(path, wire.status or 499, time.perf_counter() - start)  # 499: the client left before an answer

    def _refused(self, scope: Scope) -> tuple[int, str, dict[str, str]] | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if (origin := headers.get("origin")) and urlsplit(origin).netloc != headers.get("host"):
            return 403, "pages of other origins may not ask this server", {}
        if not self._keys and not is_loopback(_host_of(headers.get("host", ""))):
            return 403, "without a key this server answers under localhost and 127.0.0.1 only", {}
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._body_bytes:
            return 413, self._too_large(), {"connection": "close"}
        if scope["path"] in OPEN:
            return None
        address = (scope.get("client") or ("",))[0]
        key = self._key_of(headers)
        known = not self._keys or key is not None
        if wait_s := self._buckets.wait_s(key.hex() if key else f"from {address}"):
            return 429, "too many requests", {"retry-after": str(math.ceil(wait_s))}
        if not known:
            words = "this server needs a key: Authorization: Bearer KEY, or X-API-Key: KEY"
            return 401, words, {"www-authenticate": "Bearer"}
        return None

    def _key_of(self, headers: dict[str, str]) -> bytes | None:
        """The digest of the key that was given, when it is one of ours; each is compared, whichever fits."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest = hashlib.sha256(given.encode("latin-1")).digest()
        fits = [hmac.compare_digest(digest, key) for key in self._keys]
        return digest if any(fits) else None

    def _too_large(self) -> str:
        return f"a request may have {self._body_bytes / 1e6:g} MB; send less, or raise the server's --body-mb"


async def _refuse(send: Send, status: int, words: str, headers: dict[str, str] | None = None) -> None:
    body = problem(words)
    named = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    start = [(name.encode(), value.encode()) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


def problem(words: str) -> bytes:
    """The body of every refusal: {"error": what to do}; ASCII, whatever characters the words repeat."""
    return json.dumps({"error": words}).encode()


def _host_of(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
