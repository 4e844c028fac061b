"""Reader processes with limits: a hostile or broken file costs a page or a process, never the program.

`Sandbox` leases long-lived workers (`python -m ultrafast_rag.extract.sandbox.worker`) to the threads that call it. Each
worker has an address-space limit, a stripped environment without any key or token, and a deadline for every part;
one that overruns or dies is replaced and the document goes on at the next part. Back-pressure is the pipe itself: a
worker blocks once its few unread parts fill it. `multiprocessing` lost: it pickles, and needs a guarded `__main__`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from ultrafast_rag import errors
from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, ExtractionError
from ultrafast_rag.extract.sandbox import protocol
from ultrafast_rag.types import BBox, Part

DEATHS_IN_A_ROW = 3  # parts in a row that kill or overrun their reader before the document is given up
STARTUP_S = 60.0  # for a new worker to import the libraries a type needs, before its first part is timed
_ENVIRONMENT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "TESSDATA_PREFIX",
    "TMPDIR",
    "TEMP",
    "TMP",
    "SYSTEMROOT",
    "LD_LIBRARY_PATH",
    "TZ",
)


def _environment() -> dict[str, str]:
    """The little a parser needs; one thread a library, since the workers themselves are the parallelism."""
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    root = str(Path(__file__).resolve().parents[3])
    kept["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1", "PYTHONUTF8": "1"}


class WorkerDied(Exception):
    """The worker is gone; the message says how."""


class _Worker:
    """One child process and its two pipes. Not thread-safe: one lease at a time."""

    def __init__(self, config: Config) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ultrafast_rag.extract.sandbox.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            cwd=Path(sys.executable).anchor,
            start_new_session=True,
            close_fds=True,
        )
        self._in = cast(BinaryIO, self._process.stdin)
        self._out = cast(BinaryIO, self._process.stdout)
        self._timed_out = False
        self.config = config
        self.ask({"op": "configure", "config": config.to_json()})

    def ask(self, message: Mapping[str, Any]) -> None:
        try:
            protocol.send(self._in, message)
        except (OSError, ValueError) as error:
            raise WorkerDied(self._cause()) from error

    def answer(self, timeout_s: float) -> tuple[dict[str, Any], list[bytes]]:
        """The next frame; WorkerDied when the worker ends or takes longer. A timer works where pipes cannot be polled."""
        timeout_s = protocol.patience(timeout_s)
        timer = threading.Timer(timeout_s, self._expire)
        timer.daemon = True
        timer.start()
        try:
            frame = protocol.receive(self._out)
        except (OSError, ValueError) as error:
            self.kill()
            raise WorkerDied(f"the reader process sent {error}") from error
        finally:
            timer.cancel()
        if frame is None:
            self.kill()
            raise WorkerDied(
                f"it took longer than {timeout_s:.3g} s (Config.page_timeout_s)" if self._timed_out else self._cause()
            )
        return frame

    def _expire(self) -> None:
        self._timed_out = True
        self._signal()

    def _signal(self) -> None:
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)  # its own session: takes a running tesseract along
            else:
                self._process.kill()

    def kill(self) -> None:
        if self._process.returncode is None:
            self._signal()
            self._process.wait()
        for pipe in (self._in, self._out):
            with contextlib.suppress(OSError):
                pipe.close()

    def _cause(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(timeout=1)
            if code < 0:
                return f"the reader process was ended by {signal.Signals(-code).name}"
            return f"the reader process ended with code {code}"
        return "the reader process closed its output"


def _kill_all(workers: set[_Worker]) -> None:
    for worker in list(workers):
        worker.kill()
    workers.clear()


class Sandbox:
    """A pool of reader processes, leased to one document at a time; safe to call from several threads."""

    def __init__(self, config: Config, *, workers: int | None = None) -> None:
        self._config = config
        self._count = workers or config.max_workers
        self._free = threading.Semaphore(self._count)
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._alive: set[_Worker] = set()
        self._finalizer = weakref.finalize(self, _kill_all, self._alive)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End every worker, busy or not."""
        self._finalizer()

    def warm(self) -> None:
        """Start the workers that are not running yet, without waiting for them."""
        for _ in range(self._count - len(self._alive)):
            self._idle.put(self._start())

    def _start(self) -> _Worker:
        if not self._finalizer.alive:
            raise ExtractionError("the readers are closed")
        worker = _Worker(self._config)
        self._alive.add(worker)
        return worker

    def _take(self) -> _Worker:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._start()

    def _discard(self, worker: _Worker) -> None:
        self._alive.discard(worker)
        worker.kill()

    def extract(self, path: str | os.PathLike[str], *, start_part: int = 0) -> Iterator[Part]:
        """Parts from `start_part` on. Blocks while all workers are leased.

        A part that overruns `page_timeout_s` or kills its worker is yielded with `failure`, and reading goes on at the
        next. Raises the extractor's own ExtractionError, and CorruptError after three such parts in a row.
        """
        with self._free:
            yield from self._extract(Path(os.path.abspath(path)), start_part)

    def _extract(self, path: Path, number: int) -> Iterator[Part]:
        held: list[Part] = []  # failed parts wait until one succeeds: a file that never opens is one error, not many
        deaths, succeeded, total = 0, False, None
        while total is None or number < total:
            try:
                for part in self._run(path, number, hurry=deaths > 0 and not succeeded):
                    yield from held
                    held, deaths, succeeded = [], 0, True
                    number, total = part.number + 1, part.total if part.total is not None else total
                    yield part
                break
            except WorkerDied as death:
                deaths += 1
                held.append(Part(number, total=total, failure=f"page or part {number + 1} could not be read: {death}"))
                if deaths >= DEATHS_IN_A_ROW:
                    raise CorruptError(
                        f"reading {path.name} stopped at part {number + 1} after {deaths} failures in a row: {death}",
                        path=str(path),
                    ) from death
                number += 1
                if succeeded:
                    yield from held
                    held = []
        if held and not succeeded:
            raise CorruptError(f"{path.name} could not be read: {held[0].failure}", path=str(path))
        yield from held

    def _run(self, path: Path, start_part: int, *, hurry: bool) -> Iterator[Part]:
        """One worker's parts until the document ends. hurry: nothing of this file has come yet, so do not wait as long."""
        timeout_s = self._config.page_timeout_s / 12 if hurry else self._config.page_timeout_s
        worker = self._take()
        done = False
        try:
            worker.ask({"op": "extract", "path": str(path), "start_part": start_part})
            message, data = worker.answer(STARTUP_S)
            while True:
                if "ready" in message:
                    message, data = worker.answer(timeout_s)
                    continue
                if "done" in message:
                    done = True
                    return
                if "error" in message:
                    done = True
                    raise _typed(message, path)
                yield _checked(message, data)
                message, data = worker.answer(timeout_s)
        finally:
            if done:
                self._idle.put(worker)
            else:  # died, overran, or the reader of these parts stopped early
                self._discard(worker)

    def call(self, function: str, *, timeout_s: float | None = None, **arguments: Any) -> bytes:
        """Run `module.function` of this package's extractors in a worker; it takes JSON values and returns bytes.

        Raises its ExtractionError, or CorruptError when it dies or overruns.
        """
        with self._free:
            worker = self._take()
            try:
                worker.ask({"op": "call", "function": function, "arguments": arguments})
                message, data = worker.answer(STARTUP_S)
                if "ready" in message:
                    message, data = worker.answer(timeout_s or self._config.page_timeout_s)
            except WorkerDied as death:
                self._discard(worker)
                raise CorruptError(f"{function} failed: {death}") from death
            self._idle.put(worker)
        if "error" in message:
            raise _typed(message, Path(str(arguments.get("path", ""))))
        return data[0] if data else b""

    def render_page(
        self, path: str | os.PathLike[str], page: int, *, clip: BBox | None = None, max_px: int | None = None
    ) -> bytes:
        """PNG of a PDF page (1-based) or of the `clip` on it; longest side max_px (default: config.image_px)."""
        return self.call(
            "pdf.reader.render_page",
            path=os.path.abspath(path),
            page=page,
            clip=clip,
            max_px=max_px or self._config.image_px,
            max_pixels=self._config.max_image_pixels,
        )


def _checked(message: Mapping[str, Any], data: list[bytes]) -> Part:
    try:
        return protocol.unpack_part(message, data)
    except protocol.WireError as error:
        raise WorkerDied(f"the reader process sent {error}") from error


def _typed(message: Mapping[str, Any], path: Path) -> errors.UltraFastRAGError:
    """The error a worker reported, as the class it named if that is one of ours."""
    kind = getattr(errors, str(message["error"]), CorruptError)
    text = str(message.get("message", ""))
    if kind is errors.MissingExtraError:
        return errors.MissingExtraError(str(message.get("package", "")), str(message.get("extra", "")))
    if not (isinstance(kind, type) and issubclass(kind, ExtractionError)):
        kind = CorruptError
    page = message.get("page")
    return kind(text, path=str(path), page=page if isinstance(page, int) else None)
