"""The child side of `pool.py`: limits itself, then reads one document after another until its input ends.

Run as `python -m ultrafast_rag.extract.sandbox.worker`. Nothing heavy is imported before the first document. Frames go out on
a private copy of stdout; whatever a library prints goes to stderr. Requests are read in a thread of their own, so that
the end of input (the parent is gone) ends the process even in the middle of a page.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ExtractionError, MissingExtraError, UltraFastRAGError
from ultrafast_rag.extract.detect import open_extractor
from ultrafast_rag.extract.sandbox import protocol

_FUNCTION = re.compile(r"[a-z][a-z_]*(?:\.[a-z][a-z_]*)?\.[a-z][a-z_]*")


def limit_memory(megabytes: int) -> None:
    """Cap this process's address space and core dumps; no-op where the platform cannot."""
    try:
        import resource
    except ImportError:  # Windows
        return
    with contextlib.suppress(ValueError, OSError):  # a harder limit is already set
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))


def leave_out_layout_models() -> None:
    """Keep `import pymupdf` from loading a neural layout model that nothing here asks for.

    PyMuPDF 2 imports it, and onnxruntime with it, on its own: 1.2 of 1.6 s and some 150 MB. It treats both as optional.
    """
    for module in ("pymupdf.layout", "pymupdf4llm"):
        sys.modules.setdefault(module, None)  # type: ignore[arg-type] # how Python itself marks a module that is not there
    os.environ["PYMUPDF_SUGGEST_LAYOUT_ANALYZER"] = "0"


def _alarm(seconds: float) -> None:
    """Have the kernel end this process after so long: works where a parser holds the interpreter and the parent is gone."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _name(message: Mapping[str, Any]) -> str:
    """The name of the file that a request is about."""
    path = message.get("path") or message.get("arguments", {}).get("path") or "the file"
    return Path(str(path)).name


class _Server:
    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._config = Config()

    def serve(self, message: Mapping[str, Any]) -> None:
        """Answer one request: parts and a "done", or bytes, or an "error"."""
        operations: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "configure": self._configure,
            "extract": self._extract,
            "call": self._call,
        }
        try:
            operations[message["op"]](message)
        except UltraFastRAGError as error:
            self._fail(error)
        except MemoryError:
            limit = f"Config.worker_memory_mb={self._config.worker_memory_mb}"
            self._fail(
                ExtractionError(f"{_name(message)} needs more memory than {limit} allows; split it, or raise that"),
                "CorruptError",
            )
        except Exception as error:  # the edge of the stage: whatever a parser raises becomes our typed error in the parent
            self._fail(ExtractionError(f"{_name(message)} is broken: {type(error).__name__}: {error}"), "CorruptError")
        finally:
            _alarm(0)

    def _fail(self, error: UltraFastRAGError, kind: str = "") -> None:
        _alarm(0)
        fields = {"error": kind or type(error).__name__, "message": str(error), "page": getattr(error, "page", None)}
        if isinstance(error, MissingExtraError):
            fields |= {"package": error.package, "extra": error.extra}
        protocol.send(self._out, fields)

    def _configure(self, message: Mapping[str, Any]) -> None:
        self._config = Config.from_json(message["config"])
        limit_memory(self._config.worker_memory_mb)

    def _extract(self, message: Mapping[str, Any]) -> None:
        path = Path(message["path"])
        patience_s = protocol.patience(2 * self._config.page_timeout_s + 5)  # the parent's own limit comes first
        _alarm(patience_s)
        extractor = open_extractor(path, self._config)
        protocol.send(self._out, {"ready": True})  # imports are done: the parent's clock for the first part starts
        for part in extractor.extract(path, start_part=message["start_part"]):
            _alarm(0)  # the parent may take its time to read
            protocol.send(self._out, *protocol.pack_part(part))
            _alarm(patience_s)
        _alarm(0)
        protocol.send(self._out, {"done": True})

    def _call(self, message: Mapping[str, Any]) -> None:
        if not _FUNCTION.fullmatch(message["function"]):
            raise ExtractionError(f"{message['function']!r} is not a function of an extractor")
        module, name = message["function"].rsplit(".", 1)
        function = getattr(importlib.import_module(f"ultrafast_rag.extract.{module}"), name)
        protocol.send(self._out, {"ready": True})
        _alarm(protocol.patience(2 * self._config.page_timeout_s + 5))
        data = function(**message["arguments"])
        _alarm(0)
        protocol.send(self._out, {}, [data])


def main() -> None:
    """Serve frames from stdin until it ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    leave_out_layout_models()
    requests: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()

    def listen() -> None:
        while frame := protocol.receive(sys.stdin.buffer):
            requests.put(frame[0])
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    server = _Server(out)
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        while True:
            server.serve(requests.get())


if __name__ == "__main__":
    main()
