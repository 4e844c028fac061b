"""Three steps at once with bounded queues: producer threads -> the caller's thread -> one consumer thread.

Knows nothing of documents. The middle step runs where it was called, so an interrupt in a notebook
lands there. The first error of any step stops all of them and is raised once every thread has ended.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from ultrafast_rag.errors import ConfigError

A = TypeVar("A")
B = TypeVar("B")
LULL_S = 0.02  # an empty queue for so long is told to the middle step, so that it need not wait for more
POLL_S = 0.1  # how late an error in another step is noticed at most


class Until:
    """When a run ends in good order: once `stop` is set, or so many seconds after this was made.

    Raises ConfigError for a negative time.
    """

    def __init__(self, time_budget_s: float | None = None, stop: threading.Event | None = None) -> None:
        if time_budget_s is not None and not (isinstance(time_budget_s, int | float) and time_budget_s >= 0):
            raise ConfigError(f"time_budget_s is in seconds and must be at least 0, not {time_budget_s!r}")
        self.stop = stop or threading.Event()
        self._deadline = math.inf if time_budget_s is None else time.monotonic() + time_budget_s

    def __call__(self) -> bool:
        """Whether to end now."""
        return self.stop.is_set() or time.monotonic() > self._deadline


class _End:
    """The last thing a producer, or the middle step, puts."""


class Overlap(Generic[A, B]):
    """One run of `produce -> work -> consume`.

    produce: iterators, one a thread. work: takes items as they come, None for a lull, and yields
    results. consume: called with each result in order. ahead: items and results that may wait.
    stop: set when anything fails, so that producers can end early.
    """

    def __init__(self, *, items_ahead: int, results_ahead: int, stop: threading.Event) -> None:
        self._items: queue.Queue[A | _End] = queue.Queue(items_ahead)
        self._results: queue.Queue[B | _End] = queue.Queue(results_ahead)
        self._stop = stop
        self._errors: list[BaseException] = []

    def run(
        self, produce: Sequence[Iterator[A]], work: Callable[[Iterator[A | None]], Iterator[B]], consume: Callable[[B], None]
    ) -> None:
        """Return when everything produced has been consumed; raise the first error, after all threads ended."""
        producers = [self._thread(lambda items=items: self._produce(items), "ufr-read") for items in produce]  # type: ignore[misc]
        consumer = self._thread(lambda: self._consume(consume), "ufr-commit")
        try:
            for result in work(self._drain(len(producers))):
                if not self._put(self._results, result):
                    break
        except BaseException as error:  # an interrupt too: raised below, once the threads have ended
            self._fail(error)
        while consumer.is_alive():
            # after an error the consumer still takes what is queued: it is finished work
            with contextlib.suppress(queue.Full):
                self._results.put(_End(), timeout=POLL_S)
                consumer.join()
        for producer in producers:
            while producer.is_alive():
                self._discard()
                producer.join(timeout=LULL_S)
        if self._errors:
            raise self._errors[0]

    def _thread(self, body: Callable[[], None], name: str) -> threading.Thread:
        def guarded() -> None:
            try:
                body()
            except BaseException as error:  # carried to the caller's thread and raised there
                self._fail(error)

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    def _fail(self, error: BaseException) -> None:
        self._errors.append(error)
        self._stop.set()

    def _produce(self, items: Iterator[A]) -> None:
        try:
            for item in items:
                if not self._put(self._items, item):
                    return
        finally:
            self._put(self._items, _End())

    def _consume(self, consume: Callable[[B], None]) -> None:
        while not isinstance(result := self._results.get(), _End):
            consume(result)

    def _put(self, target: queue.Queue[A | _End] | queue.Queue[B | _End], item: A | B | _End) -> bool:
        """Put, giving up once something has failed and nobody will make room."""
        while not self._errors:
            with contextlib.suppress(queue.Full):
                target.put(item, timeout=POLL_S)  # type: ignore[arg-type]
                return True
        return False

    def _drain(self, producers: int) -> Iterator[A | None]:
        while producers and not self._errors:
            try:
                item = self._items.get(timeout=LULL_S)
            except queue.Empty:
                yield None
                continue
            if isinstance(item, _End):
                producers -= 1
            else:
                yield item

    def _discard(self) -> None:
        """Make room for producers that are still putting, so that they come to see the stop."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._items.get_nowait()
