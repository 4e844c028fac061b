"""The HTTP server: /ingest, /search, /query, /health, /ready, /metrics and a page to ask on, over one `UltraFastRAG`.

    python -m ultrafast_rag serve --index my_index --root papers/

Answers go out as the package's own types. What is read in is uploaded, or lies below a folder that the operator
named; addresses are never fetched for a caller, and a question is never taken for a path. Work happens in threads, so
that the event loop stays free; questions that are asked at once are encoded together (`search/gather.py`).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrafast_rag.errors import ConfigError, UltraFastRAGError, require
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.search.query_cache import QueryMemory
from ultrafast_rag.serve.guard import Buckets, Guard, problem
from ultrafast_rag.serve.messages import (
    ANSWER,
    FOUND,
    PIECE,
    REFUSALS,
    REPORT,
    STATUS,
    Found,
    Ingest,
    Problem,
    Query,
    Search,
    Serving,
    State,
)
from ultrafast_rag.serve.metrics import Metrics
from ultrafast_rag.serve.reading import Readable
from ultrafast_rag.types import Answer, Hit, Hits, IngestReport, Words

if TYPE_CHECKING:
    import fastapi
    import uvicorn
    from fastapi import responses
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException
else:
    fastapi = require("fastapi", extra="server")
    responses = require("fastapi.responses", package="fastapi", extra="server")
    RequestValidationError = require("fastapi.exceptions", package="fastapi", extra="server").RequestValidationError
    HTTPException = require("starlette.exceptions", package="fastapi", extra="server").HTTPException
    uvicorn = require("uvicorn", extra="server")
    require("python_multipart", package="python-multipart", extra="server")

DRAIN_S = 30.0  # what runs when the server is told to stop may take so long
HEARTBEAT_S = 0.05  # how often the event loop's lateness is looked at
CONNECTIONS = 1_000  # at once; more are answered 503 at the door
_PAGE = Path(__file__).with_name("page.html")
_log = logging.getLogger("ultrafast_rag")


def _json(body: bytes) -> Any:
    return responses.Response(body, media_type="application/json")


def _event(name: str, content: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), content)


class Service:
    """The endpoints' work, over one index."""

    def __init__(self, rag: UltraFastRAG, serving: Serving, *, index: Path) -> None:
        self.rag, self.serving = rag, serving
        self.readable = Readable(serving.roots, serving.uploads or index.with_name(f"{index.name}-uploads"))
        self.metrics = Metrics(rag.monitor.get_report, self._facts)
        self.stopping, self.state = False, "starting"
        # as they went out: making the JSON anew, in a thread, costs twice what all else of a known question does
        self._sent = QueryMemory(ttl_s=rag.config.query_cache_ttl_s)
        self._stops: set[threading.Event] = set()
        self._writing = asyncio.Lock()  # one ingest at a time, waiting where no thread waits with it

    def _facts(self) -> dict[str, float]:
        stats = self.rag.stats()
        counts = {**stats["query_cache"], "sent_again": self._sent.hits}
        cache = {f"query_cache_{name}": value for name, value in counts.items() if isinstance(value, int | float)}
        return {**{name: stats[name] for name in ("documents", "chunks", "size_mb")}, **cache}

    async def warm_up(self) -> None:
        """Load what a question needs; `/ready` says when, or why not."""
        try:
            await asyncio.to_thread(self.rag.warmup)
            self.state = "ok"
        except UltraFastRAGError as error:
            _log.exception("the index cannot be asked")
            self.state = f"{type(error).__name__}: {error}"

    async def watch_loop(self) -> None:
        """Record how late the event loop wakes us: what every caller waits, whatever he asks."""
        while True:
            start = time.perf_counter()
            await asyncio.sleep(HEARTBEAT_S)
            self.rag.monitor.track_operation("http loop lag", max(0.0, time.perf_counter() - start - HEARTBEAT_S))

    def stop(self) -> None:
        """Take no more; an ingest under way ends in good order and says so."""
        self.stopping, self.state = True, "stopping"
        for event in list(self._stops):
            event.set()

    def _hit(self, hit: Hit) -> Hit:
        return replace(hit, source=self.readable.shown(hit.source)) if hit.source != hit.document_id else hit

    def _answer(self, answer: Answer) -> Answer:
        hits = answer.hits.copy()
        hits[:] = [self._hit(hit) for hit in hits]
        cited = tuple(replace(citation, hit=self._hit(citation.hit)) for citation in answer.citations)
        return replace(answer, hits=hits, citations=cited)

    async def search(self, asked: Search, accept: str) -> Any:
        """The best passages, as JSON or as a card."""
        html = "text/html" in accept
        key = ("search", self.rag.generation, asked.model_dump_json())
        if not html and (sent := self._sent.get(key)) is not None:
            return _json(sent)
        hits = await asyncio.to_thread(self.rag.search, Words(asked.question), **asked.options())
        if html:
            return responses.HTMLResponse(await asyncio.to_thread(hits._repr_html_))
        body = FOUND.dump_json(Found(asked.question, Hits(map(self._hit, hits)), hits.seconds, hits.notes))
        return _json(self._kept(key, body))

    async def query(self, asked: Query, accept: str) -> Any:
        """An answer, as JSON, as a card, or as server-sent events while it is written."""
        if "text/event-stream" in accept:
            pieces = self.rag.stream(Words(asked.question), **asked.options())
            first = await asyncio.to_thread(next, pieces)  # what was asked wrongly is a 422, no broken stream
            return responses.StreamingResponse(self._events(chain([first], pieces)), media_type="text/event-stream")
        html = "text/html" in accept
        key = ("query", self.rag.generation, asked.model_dump_json())
        if not html and (sent := self._sent.get(key)) is not None:
            return _json(sent)
        answer = await self.rag.aquery(Words(asked.question), **asked.options())
        if html:
            return responses.HTMLResponse(await asyncio.to_thread(answer._repr_html_))
        body = ANSWER.dump_json(self._answer(answer))
        return _json(self._kept(key, body) if answer.cached else body)  # what may be kept, the index's own cache says

    def _kept(self, key: tuple[str, int, str], body: bytes) -> bytes:
        if self.rag.config.query_cache:
            self._sent.put(key, body)
        return body

    def _events(self, pieces: Iterator[str | Answer]) -> Iterator[bytes]:
        try:
            for piece in pieces:
                if isinstance(piece, Answer):
                    yield _event("answer", ANSWER.dump_json(self._answer(piece)))
                else:
                    yield _event("text", PIECE.dump_json({"text": piece}))
        except UltraFastRAGError as error:
            yield _event("error", problem(f"{type(error).__name__}: {error}"))

    async def ingest(self, sources: Sequence[Path], time_budget_s: float | None, refused: Sequence[tuple[str, str]] = ()) -> Any:
        """Read files; what the report says is committed is durable."""
        if self.stopping:
            raise HTTPException(503, "the server is stopping; ask again when it is back")
        stop = threading.Event()
        self._stops.add(stop)
        limit_s = 0.9 * self.serving.ingest_timeout_s  # its report is to arrive within the time limit
        budget_s = limit_s if time_budget_s is None else min(time_budget_s, limit_s)
        try:
            async with self._writing:
                report = await asyncio.to_thread(self.rag.ingest, *sources, time_budget_s=budget_s, stop=stop)
        finally:
            stop.set()  # of one whose caller has left, too
            self._stops.discard(stop)
        failed = tuple((self.readable.shown(source), self.readable.unplaced(why)) for source, why in report.failed)
        return _json(REPORT.dump_json(replace(report, failed=(*failed, *refused))))


def make_app(service: Service) -> fastapi.FastAPI:
    """The ASGI application of a service."""
    serving = service.serving

    @asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
        warming, watching = asyncio.create_task(service.warm_up()), asyncio.create_task(service.watch_loop())
        yield
        watching.cancel()
        service.stop()
        await warming

    app = fastapi.FastAPI(
        title="ultrafast_rag",
        summary="Ask your documents, with evidence.",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(
        Guard,
        keys=serving.keys,
        buckets=Buckets(serving.rate_per_s, serving.burst),
        body_bytes=int(serving.body_mb * 1e6),
        timeout_s=lambda path: serving.ingest_timeout_s if path.startswith("/ingest") else serving.timeout_s,
        done=_done(service),
    )
    _add_questions(app, service)
    _add_ingest(app, service)
    _add_state(app, service)
    _add_problems(app)
    return app


def _done(service: Service) -> Callable[[str, int, float], None]:
    def done(path: str, status: int, seconds: float) -> None:
        service.metrics.count(path, status)
        service.rag.monitor.track_operation(f"http {path}", seconds)
        if status >= 500:
            service.rag.monitor.record_error(f"http {path}", f"status {status}")

    return done


def _add_questions(app: fastapi.FastAPI, service: Service) -> None:
    card = {"text/html": {"schema": {"type": "string"}}}
    events = {"text/event-stream": {"schema": {"type": "string"}, "example": 'event: text\ndata: {"text": "High tide is "}\n\n'}}

    @app.post("/search", response_model=Found, responses={**REFUSALS, 200: {"content": card}})
    async def search(asked: Search, request: fastapi.Request) -> Any:
        """The best passages for a question; `Accept: text/html` draws them as cards."""
        return await service.search(asked, request.headers.get("accept", ""))

    @app.post("/query", response_model=Answer, responses={**REFUSALS, 200: {"content": {**card, **events}}})
    async def query(asked: Query, request: fastapi.Request) -> Any:
        """An answer with citations, or an honest "not found".

        `Accept: text/event-stream` sends it as it is written: `text` events, then one `answer` whose text replaces them.
        `Accept: text/html` draws it as a card with its evidence.
        """
        return await service.query(asked, request.headers.get("accept", ""))


def _add_ingest(app: fastapi.FastAPI, service: Service) -> None:
    refusals: dict[int | str, dict[str, Any]] = {
        **REFUSALS,
        409: {"model": Problem, "description": "another process is writing"},
        507: {"model": Problem, "description": "the disk refused"},
    }

    @app.post("/ingest", response_model=IngestReport, responses=refusals)
    async def ingest(asked: Ingest) -> Any:
        """Read files and folders below the roots that the operator named; no addresses."""
        files, refused = await asyncio.to_thread(service.readable.files, asked.sources)
        if not files:
            return responses.Response(problem("; ".join(why for _, why in refused)), 403, media_type="application/json")
        return await service.ingest(files, asked.time_budget_s, refused)

    @app.post("/ingest/files", response_model=IngestReport, responses=refusals)
    async def upload(files: list[fastapi.UploadFile]) -> Any:
        """Read uploaded files; one of a name that was uploaded before replaces it."""
        kept = [await asyncio.to_thread(service.readable.keep, file.filename or "", file.file) for file in files]
        return await service.ingest(kept, None)


def _add_state(app: fastapi.FastAPI, service: Service) -> None:
    page, policy = _page()

    @app.get("/health", response_model=State)
    async def health() -> Any:
        """The process runs."""
        return State(status="ok")

    @app.get("/ready", response_model=State, responses={503: {"model": State}})
    async def ready(response: fastapi.Response) -> Any:
        """Models and index are loaded, and questions are taken."""
        response.status_code = 200 if service.state == "ok" else 503
        return State(status=service.state if service.state in ("ok", "starting", "stopping") else "failed")

    @app.get("/metrics", response_class=responses.PlainTextResponse, responses=REFUSALS)
    async def metrics() -> Any:
        """Stages, requests, errors, memory, caches in Prometheus' text format."""
        return responses.Response(await asyncio.to_thread(service.metrics.text), media_type="text/plain; version=0.0.4")

    @app.get("/", response_class=responses.HTMLResponse, include_in_schema=False)
    async def ask() -> Any:
        return responses.HTMLResponse(page, headers={"content-security-policy": policy})


def _page() -> tuple[str, str]:
    """The page and its policy: its own script by hash, nothing from elsewhere."""
    import base64
    import hashlib

    page = _PAGE.read_text(encoding="utf-8")
    script = page[page.index("<script>") + 8 : page.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return page, (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; media-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _add_problems(app: fastapi.FastAPI) -> None:
    def said(status: int, words: str) -> Any:
        return responses.Response(problem(words), status, media_type="application/json")

    async def wrong(_: fastapi.Request, error: Any) -> Any:
        # without the input, which may hold anything
        return said(422, "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5]))

    async def refused(_: fastapi.Request, error: Any) -> Any:
        return said(error.status_code, str(error.detail))

    async def failed(_: fastapi.Request, error: Any) -> Any:
        status = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
        if status >= 500:
            _log.error("a request failed", exc_info=error)
        return said(status, f"{type(error).__name__}: {error}" if status < 500 else type(error).__name__)

    app.add_exception_handler(RequestValidationError, wrong)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(UltraFastRAGError, failed)
    app.add_exception_handler(Exception, failed)


class Server(uvicorn.Server):
    """uvicorn, which tells the service as soon as it is told to stop, so that an ingest ends while requests are drained."""

    def __init__(self, service: Service) -> None:
        self._service = service
        super().__init__(
            uvicorn.Config(
                make_app(service),
                host=service.serving.host,
                port=service.serving.port,
                log_level="warning",
                server_header=False,
                proxy_headers=False,  # a caller must not choose the address it is counted under
                timeout_graceful_shutdown=int(DRAIN_S),
                limit_concurrency=CONNECTIONS,
            )
        )

    def handle_exit(self, sig: int, frame: Any) -> None:
        """A signal to stop has come."""
        self._service.stop()
        super().handle_exit(sig, frame)


def serve(rag: UltraFastRAG, serving: Serving, *, index: Path, say: Callable[[str], object] = _log.info) -> None:
    """Serve until told to stop by SIGINT or SIGTERM; what runs then is finished first. ConfigError when the port is taken."""
    server = Server(Service(rag, serving, index=index))
    try:
        family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
        listening = socket.create_server((serving.host, serving.port), family=family, backlog=CONNECTIONS)
        # asyncio does so for its own sockets alone; without it each answer waits 40 ms for the caller's acknowledgement
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {serving.host}, port {serving.port}: {error.strerror or error}; name another (0: any free one)"
        ) from error
    say(f"serving on http://{serving.host}:{listening.getsockname()[1]}")
    with listening, _signals_end_here():
        server.run(sockets=[listening])


@contextmanager
def _signals_end_here() -> Iterator[None]:
    """A signal that stopped uvicorn is raised again when it is done, which must not keep the index from being closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
