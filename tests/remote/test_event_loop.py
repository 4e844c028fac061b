"""The background loop from scripts, from running loops, under interrupts and after a fork."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading

import pytest

from ultrafast_rag.errors import TimedOutError
from ultrafast_rag.remote import event_loop


def pending() -> set[asyncio.Task]:
    """Tasks alive on the background loop, other than the one that counts them."""

    async def count():
        return asyncio.all_tasks() - {asyncio.current_task()}

    return event_loop.run(count())


async def double(n):
    await asyncio.sleep(0)
    return 2 * n


async def letters(closed: list | None = None):
    try:
        for letter in "abc":
            await asyncio.sleep(0)
            yield letter
    finally:
        if closed is not None:
            closed.append(True)


def test_run_returns_the_result_from_plain_code():
    assert event_loop.run(double(21)) == 42


def test_run_raises_what_the_coroutine_raised():
    async def fail():
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        event_loop.run(fail())


async def test_run_works_inside_a_running_loop():
    assert event_loop.run(double(4)) == 8


async def test_arun_awaits_from_another_loop():
    assert await event_loop.arun(double(5)) == 10


async def test_arun_on_the_background_loop_awaits_directly():
    async def nested():
        return await event_loop.arun(double(3))

    assert await event_loop.arun(nested()) == 6


def test_run_on_the_background_thread_refuses_to_wait_for_itself():
    async def nested():
        event_loop.run(double(1))

    with pytest.raises(RuntimeError, match="await the coroutine"):
        event_loop.run(nested())


def test_a_timeout_cancels_and_leaves_no_task():
    with pytest.raises(TimedOutError):
        event_loop.run(asyncio.sleep(60), timeout_s=0.05)
    assert not pending()


async def test_cancelling_the_caller_cancels_the_task_there():
    task = asyncio.create_task(event_loop.arun(asyncio.sleep(60)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not pending()


def test_stream_yields_in_order_and_ends():
    assert list(event_loop.stream(letters())) == ["a", "b", "c"]
    assert not pending()


def test_leaving_a_stream_early_closes_its_source():
    closed: list = []
    pieces = event_loop.stream(letters(closed))
    assert next(pieces) == "a"
    pieces.close()
    assert closed
    assert not pending()


def test_stream_raises_what_the_source_raised_after_its_pieces():
    async def broken():
        yield "a"
        raise LookupError("gone")

    pieces = event_loop.stream(broken())
    assert next(pieces) == "a"
    with pytest.raises(LookupError):
        next(pieces)


async def test_astream_iterates_from_another_loop():
    assert [piece async for piece in event_loop.astream(letters())] == ["a", "b", "c"]


def test_many_threads_share_one_loop():
    seen = set()

    async def which():
        return id(asyncio.get_running_loop())

    threads = [threading.Thread(target=lambda: seen.add(event_loop.run(which()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 1


SCRIPT = """
import asyncio, os, signal, sys, threading
from ultrafast_rag.remote import event_loop
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background inherits that it is ignored
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    event_loop.run(asyncio.sleep(60))
except KeyboardInterrupt:
    async def others():
        return len(asyncio.all_tasks()) - 1
    sys.exit(40 + event_loop.run(others()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_an_interrupt_reaches_the_caller_and_leaves_no_task():
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (40, "")


def test_a_script_that_ends_while_a_task_runs_is_silent():
    code = """
    import asyncio
    from ultrafast_rag.remote import event_loop
    asyncio.run_coroutine_threadsafe(asyncio.sleep(60), event_loop.loop())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_gets_a_loop_of_its_own():
    code = """
    import os, sys
    from ultrafast_rag.remote import event_loop
    async def one(): return 1
    event_loop.run(one())
    child = os.fork()
    if child == 0:
        os._exit(0 if event_loop.run(one()) == 1 else 1)
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_stop_lets_the_next_call_start_again():
    event_loop.stop()
    assert event_loop.run(double(2)) == 4
