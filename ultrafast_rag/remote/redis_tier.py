"""Results of searches and answers in Redis, shared by processes and machines; it may be lost, hang or flap."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from typing import Any

from ultrafast_rag.errors import ConfigError, require

TIMEOUT_S = 0.25  # chosen: TCP sends a lost packet again after 0.2 s
_MOST_BYTES = 1 << 20  # of one entry
_RECOVERY_S, _MOST_RECOVERY_S = 1.0, 60.0  # chosen; doubled each time, so that a lost server costs little


class RedisTier:
    """Entries in Redis, asked for at most `timeout_s`, and not at all while it is lost.

    One thread of ours talks to Redis, so that a server that trickles, hangs or does not resolve costs its caller no
    more than the timeout, and only once: then Redis counts as lost until a ping from the background succeeds, after
    1, 2, 4 ... 60 s. A write costs its caller nothing. url: redis://, rediss:// or unix://; it is never shown.
    """

    def __init__(self, url: str, *, ttl_s: float, timeout_s: float = TIMEOUT_S, recovery_s: float = _RECOVERY_S) -> None:
        redis = require("redis", extra="redis")
        once = require("redis.retry", package="redis", extra="redis").Retry
        at_once = require("redis.backoff", package="redis", extra="redis").NoBackoff
        self._errors: tuple[type[Exception], ...] = (redis.RedisError, OSError, NotInTime)
        try:
            self._client = redis.Redis.from_url(
                url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=once(at_once(), 0)
            )
        except (ValueError, TypeError) as error:
            raise ConfigError("the Redis address cannot be used: it must begin with redis://, rediss:// or unix://") from error
        self._ttl_s, self._timeout_s, self._recovery_s = ttl_s, timeout_s, recovery_s
        self._thread = ThreadPoolExecutor(1, "ufr-redis")
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._why = ""  # it is lost; "" while it is there
        self._warned = False
        self.losses = 0  # how often it was lost

    def read(self, scope: str, name: bytes) -> bytes | None:
        """As the port says; an entry over 1 MiB is none of ours, and only so much of it is fetched."""
        value = self._ask(self._client.getrange, _redis_key(scope, name), 0, _MOST_BYTES)
        return value if isinstance(value, bytes) and 0 < len(value) <= _MOST_BYTES else None

    def write(self, scope: str, name: bytes, value: bytes) -> None:
        """As the port says."""
        self._ask(self._client.set, _redis_key(scope, name), value, px=int(1000 * self._ttl_s))

    def drop(self, scope: str) -> None:
        """As the port says; batch by batch, so that no call takes long."""
        cursor: Any = 0
        while True:
            found = self._ask(self._client.scan, cursor, match=f"ufr:{scope}:*", count=500)
            if found is None:
                return
            cursor, names = found
            if names:
                self._ask(self._client.unlink, *names)
            if not cursor:
                return

    def health(self) -> str:
        """As the port says."""
        self._ask(self._client.ping)
        return f"lost: {self._why}" if self._why else "ok"

    def close(self) -> None:
        """As the port says."""
        self._closing.set()
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _ask(self, command: Callable[..., Any], *args: Any, **kwargs: Any) -> Any | None:
        if self._why or self._closing.is_set():
            return None
        try:
            return self._thread.submit(command, *args, **kwargs).result(self._timeout_s)
        except self._errors as error:
            self._lose(f"{type(error).__name__}")
            return None
        except RuntimeError:  # closed meanwhile
            return None

    def _lose(self, why: str) -> None:
        with self._lock:
            if self._why or self._closing.is_set():
                return
            self._why = why
            self.losses += 1
        threading.Thread(target=self._recover, name="ufr-redis-recovery", daemon=True).start()
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"Redis is lost ({why}); the cache in memory goes on, and Redis is tried again", RuntimeWarning, stacklevel=4
            )

    def _recover(self) -> None:
        wait_s = self._recovery_s
        while not self._closing.wait(wait_s):
            try:
                self._client.ping()
            except self._errors:
                wait_s = min(2 * wait_s, _MOST_RECOVERY_S)
            else:
                self._why = ""
                return


def _redis_key(scope: str, name: bytes) -> str:
    return f"ufr:{scope}:{name.hex()}"
