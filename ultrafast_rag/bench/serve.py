"""The HTTP server under load on loopback: a process of its own over the sample index, asked by 1, 8 and 64 clients.

Each client sends its next request when the last is answered. Uncached questions are all different (a labelled question
and a number), cached ones were all asked before. The clients speak HTTP in some forty lines of ours: a client library would take
more of the second core than the server's own. Then a server with a low rate and a small body limit is asked too
much. The event loop's lag is the server's own measurement, every 50 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ultrafast_rag.bench.metrics import load_questions
from ultrafast_rag.bench.result import Result, say
from ultrafast_rag.bench.settings import QUESTIONS, SAMPLES, TEXT_ONLY, add_settings, prepare_models, settings_of
from ultrafast_rag.errors import UnavailableError
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import Table

TARGETS = {"uncached questions/s": 50.0, "cached questions/s": 1500.0, "loop lag max ms": 100.0}
START_S = 120.0  # a first start converts a model, which took 40 s on 2 cores
_LAG = re.compile(rb'operation_seconds\{operation="http loop lag",quantile="1"\} (\S+)')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many clients and requests."""
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64], help="clients at once (default: 1 8 64)")
    parser.add_argument("--uncached", type=int, default=80, help="different questions each number of clients asks")
    parser.add_argument("--cached", type=int, default=6000, help="requests for answers that are known")
    parser.add_argument("--samples", type=Path, default=SAMPLES, help="what the index is made of")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """A row for each kind of request and number of clients, and one for what was refused."""
    settings = {**TEXT_ONLY, "query_cache": True, **settings_of(arguments.set)}
    prepare_models()
    questions = [question.question for question in load_questions(QUESTIONS)]
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-serve-") as place:
        index = Path(place, "index")
        with UltraFastRAG(index, **settings) as rag:
            rag.ingest(arguments.samples)
        rows = []
        with _server(index, settings, "--rate", "1e9", "--burst", "1000000000") as url:
            for path in ("/search", "/query"):
                rows += _loads(url, path, questions, arguments)
            lag_ms = _lag_ms(url)
        with _server(index, settings, "--rate", "5", "--burst", "10", "--body-mb", "0.1") as url:
            refused = asyncio.run(_too_much(url, questions[0]))
    rows.append({"request": "too many, too large", "clients": 8, **refused})
    notes = (
        f"event loop late by {lag_ms:.1f} ms at most; clients and server share this machine's cores",
        "targets on 2 cores: 50 uncached and 1 500 cached questions/s, nothing lost, the loop never late by 100 ms",
    )
    return Result(Table(rows, "Server", notes=notes), {"loop lag max ms": lag_ms, "targets": TARGETS})


def _loads(url: str, path: str, questions: list[str], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for clients in arguments.clients:
        say(f"{path}, {clients} clients ...")
        fresh = [f"{questions[n % len(questions)]} {path[1]}{clients}-{n}" for n in range(arguments.uncached)]
        rows.append(_row(f"{path} uncached", clients, asyncio.run(_ask(url, path, fresh, clients))))
        known = [fresh[n % len(fresh)] for n in range(arguments.cached)]
        rows.append(_row(f"{path} cached", clients, asyncio.run(_ask(url, path, known, clients))))
    return rows


def _row(name: str, clients: int, outcome: tuple[list[float], Counter[int], float]) -> dict[str, Any]:
    seconds, statuses, took = outcome
    p50, p95, p99 = np.percentile(np.array(seconds) * 1000, [50, 95, 99])
    lost = len(seconds) - statuses[200]
    return {
        "request": name, "clients": clients, "requests/s": len(seconds) / took, "p50 ms": p50, "p95 ms": p95, "p99 ms": p99,
        "requests": len(seconds), "not answered": lost,
    }  # fmt: skip


async def _ask(url: str, path: str, questions: list[str], clients: int) -> tuple[list[float], Counter[int], float]:
    """Seconds of each request, how often each status came, and seconds in all."""
    waiting, seconds, statuses = iter(questions), list[float](), Counter[int]()

    async def client() -> None:
        connection = await _Connection.open(url)
        for question in waiting:
            start = time.perf_counter()
            status, _ = await connection.post(path, {"question": question})
            seconds.append(time.perf_counter() - start)
            statuses[status] += 1
        connection.close()

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return seconds, statuses, time.perf_counter() - start


async def _too_much(url: str, question: str) -> dict[str, Any]:
    """100 requests where 10 at once and 5 a second are allowed, and one body over the limit."""
    large = await _Connection.open(url)
    status, _ = await large.post("/search", {"question": "x" * 200_000})
    large.close()
    seconds, statuses, took = await _ask(url, "/search", [question] * 100, 8)
    allowed = 10 + 5 * took
    within = 10 <= statuses[200] <= allowed + 1
    return {
        "requests": len(seconds) + 1, "200": statuses[200], "429": statuses[429], "413": int(status == 413),
        "not answered": len(seconds) - statuses[200] - statuses[429], "as the rate allows": within,
    }  # fmt: skip


def _lag_ms(url: str) -> float:
    async def asked() -> bytes:
        connection = await _Connection.open(url)
        _, body = await connection.send(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")
        connection.close()
        return body

    found = _LAG.search(asyncio.run(asked()))
    return float(found[1]) * 1000 if found else float("nan")


class _Connection:
    """One kept-alive HTTP/1.1 connection; replies have a length."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> _Connection:
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    async def post(self, path: str, body: Any) -> tuple[int, bytes]:
        content = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        return await self.send(head.encode() + content)

    async def send(self, request: bytes) -> tuple[int, bytes]:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
        return int(head.split(b" ", 2)[1]), await self._reader.readexactly(length)

    def close(self) -> None:
        self._writer.close()


@contextmanager
def _server(index: Path, settings: dict[str, Any], *options: str) -> Iterator[str]:
    """The address of a server in a process of its own, once it is ready."""
    given = [f"--set={name}={json.dumps(value)}" for name, value in settings.items() if name != "quiet"]
    command = [sys.executable, "-m", "ultrafast_rag", "serve", "--port", "0", "--index", str(index), *options, *given]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        found = re.search(r"http://\S+", process.stderr.readline())
        if found is None:
            raise UnavailableError(f"the server did not start: {process.stderr.read()[-400:]}")
        asyncio.run(_ready(found.group()))
        yield found.group()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stderr.close()


async def _ready(url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        connection = await _Connection.open(url)
        status, _ = await connection.send(b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n")
        connection.close()
        if status == 200:
            return
        await asyncio.sleep(0.1)
    raise UnavailableError(f"the server was not ready within {START_S:g} s")
