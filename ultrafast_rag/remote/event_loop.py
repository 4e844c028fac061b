"""One event loop in one daemon thread: where all network work runs, whoever asks for it.

Notebooks already run a loop, scripts do not, and clients, rate limiters and breakers must not be
shared between loops. So there is one, made at first use, and three doors to it: `run` (blocking),
`arun` (await from any loop) and `stream`/`astream` (iterate). Patching the notebook's own loop to
be re-entrant was the alternative; it breaks other libraries. anyio's BlockingPortal was tried in place of `_Thread` and `_Call`:
22 of 218 lines fewer for one more dependency of the core, and 6 of the 17 tests of this file failed (a cancelled call is over
before its task is, an interrupt leaves a task, a forked child waits for ever).
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Generic, TypeVar

from ultrafast_rag.errors import TimedOutError

T = TypeVar("T")
CANCEL_GRACE_S = 10.0  # a request in flight ends within its own timeout's step; then the caller goes on without it
PIECES_AHEAD = 64  # of a stream, held for a slow reader


class _Thread:
    """The loop and its thread; replaced whole after a fork."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._serve, name="ultrafast-rag-loop", daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    def stop(self) -> None:
        """Cancel what still runs, so that nothing is destroyed while pending, and end the thread."""
        if not self.thread.is_alive():
            return

        async def cancel_all() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=1.0) if tasks else None

        try:
            asyncio.run_coroutine_threadsafe(cancel_all(), self.loop).result(2.0)
        except concurrent.futures.TimeoutError:
            return  # a task that swallows its cancellation dies with this daemon thread
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(1.0)


_lock = threading.Lock()
_current: _Thread | None = None


def _forget() -> None:
    """In a forked child: the thread did not come along, and the lock may have been held."""
    global _lock, _current
    _lock, _current = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@atexit.register
def stop() -> None:
    """End the background thread; the next call starts a new one."""
    global _current
    with _lock:
        ended, _current = _current, None
    if ended:
        ended.stop()


def loop() -> asyncio.AbstractEventLoop:
    """The background loop, started if need be."""
    global _current
    with _lock:
        if _current is None or not _current.thread.is_alive():
            _current = _Thread()
        return _current.loop


class _Call(Generic[T]):
    """A coroutine on the background loop; `ended` is set when its task is really over."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.result: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.ended = threading.Event()
        self._task: asyncio.Task[T] | None = None
        self._loop = loop()
        self._loop.call_soon_threadsafe(self._start, coroutine)

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._task = self._loop.create_task(coroutine)
        self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[T]) -> None:
        if not self.result.set_running_or_notify_cancel():
            pass  # the waiter gave up, and asyncio has marked the future already
        elif task.cancelled():
            self.result.set_exception(concurrent.futures.CancelledError())
        elif (error := task.exception()) is not None:
            self.result.set_exception(error)
        else:
            self.result.set_result(task.result())
        self.ended.set()

    def cancel(self) -> None:
        self._loop.call_soon_threadsafe(lambda: self._task.cancel() if self._task else None)


def run(coroutine: Coroutine[Any, Any, T], *, timeout_s: float | None = None) -> T:
    """Run to the end and return the result; blocks the caller, also inside a notebook's running loop.

    An interrupt (Ctrl-C, the notebook's stop button) or a timeout cancels the task and waits until
    it is gone. Raises TimedOutError after timeout_s seconds; RuntimeError on the background thread
    itself, where waiting would never end.
    """
    if threading.current_thread() is getattr(_current, "thread", None):
        coroutine.close()
        raise RuntimeError("run() was called on the background loop itself: await the coroutine instead")
    call = _Call(coroutine)
    try:
        return call.result.result(timeout_s)
    except BaseException as error:  # a KeyboardInterrupt too must leave no task behind
        if call.ended.is_set():
            raise
        call.cancel()
        call.ended.wait(CANCEL_GRACE_S)
        if isinstance(error, concurrent.futures.TimeoutError):
            raise TimedOutError(f"no result within {timeout_s:g} s") from error
        raise


async def arun(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine that runs on the background loop; cancelling the caller cancels it there."""
    if asyncio.get_running_loop() is getattr(_current, "loop", None):
        return await coroutine
    call = _Call(coroutine)
    try:
        return await asyncio.wrap_future(call.result)
    except asyncio.CancelledError:
        call.cancel()
        await asyncio.shield(asyncio.to_thread(call.ended.wait, CANCEL_GRACE_S))
        raise


class _Pump(Generic[T]):
    """One task drains an async iterator into a bounded queue: timeouts inside it see a single task."""

    def __init__(self, source: AsyncIterator[T]) -> None:
        self._source = source
        self._pieces: asyncio.Queue[tuple[bool, Any]] = asyncio.Queue(PIECES_AHEAD)
        self._task: asyncio.Task[None] | None = None

    async def next(self) -> tuple[bool, Any]:
        """(True, piece), or (False, None) at the end; raises what the source raised."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._drain())
        more, value = await self._pieces.get()
        if not more and value is not None:
            raise value
        return more, value

    async def _drain(self) -> None:
        try:
            async for piece in self._source:
                await self._pieces.put((True, piece))
        except Exception as error:  # handed over, and raised where the reader waits
            await self._pieces.put((False, error))
        else:
            await self._pieces.put((False, None))

    async def close(self) -> None:
        """Cancel the draining task and close the source."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if hasattr(self._source, "aclose"):
            await self._source.aclose()


async def _pump(source: AsyncIterator[T]) -> _Pump[T]:
    return _Pump(source)  # made on the loop: before 3.10 a queue bound itself at birth, and tasks must


def stream(source: AsyncIterator[T]) -> Iterator[T]:
    """Iterate an async iterator from plain code; leaving early closes it."""
    pump = run(_pump(source))
    try:
        while True:
            more, piece = run(pump.next())
            if not more:
                return
            yield piece
    finally:
        run(pump.close())


async def astream(source: AsyncIterator[T]) -> AsyncIterator[T]:
    """Iterate on the background loop from any other loop; leaving early closes it."""
    pump = await arun(_pump(source))
    try:
        while True:
            more, piece = await arun(pump.next())
            if not more:
                return
            yield piece
    finally:
        await arun(pump.close())
