"""A stand-in for the Gemini API: generateContent and streamGenerateContent as JSON over loopback.

    with Server(reply=lambda body: "Sixteen litres [1].") as server:
        rag = UltraFastRAG(gemini_base_url=server.url, gemini_api_key="stand-in")

For benchmarks, notebooks without a key, and tests (ours and a user's own): the real client is pointed
at `Server.url` by its base-URL option, so what runs is the package and the client together. Faults
come from a schedule: a callable from the request's number (0-based, in order of arrival) and its body
to the name of a fault, or None for an ordinary reply. Error bodies follow those seen from the service
(quota violations with quotaId, RetryInfo with retryDelay).
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ultrafast_rag.errors import UnavailableError

FORM = {"caption": "a caption", "summary": "a summary", "keywords": ["pump", "flow"], "questions": ["How much flows?"]}


@dataclass
class Seen:
    """One request. delivered: the whole reply, one that would be billed, went out to a client still there."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    fault: str | None
    arrived_s: float
    delivered: bool = False

    @property
    def model(self) -> str:
        """The model's name in the path."""
        found = re.search(r"models/([^:]+):", self.path)
        return found[1] if found else ""

    @property
    def system(self) -> str:
        """The system instruction."""
        return "".join(part["text"] for part in self.body["systemInstruction"]["parts"])

    @property
    def text(self) -> str:
        """All text parts of the request, joined."""
        return "\n".join(part["text"] for content in self.body["contents"] for part in content["parts"] if "text" in part)

    @property
    def pictures(self) -> list[dict[str, Any]]:
        """Inline data; the client writes the media type's name in either case style."""
        return [found for content in self.body["contents"] for part in content["parts"] if (found := part.get("inlineData"))]


def quota_error(quota_id: str, retry_s: str, *, limit: int = 5) -> dict[str, Any]:
    """The body of a 429 as the service writes it."""
    return {
        "error": {
            "code": 429,
            "message": "You exceeded your current quota, please check your plan and billing details. "
            f"* Quota exceeded for metric: generate_content_free_tier_requests, limit: {limit}\nPlease retry in {retry_s}.",
            "status": "RESOURCE_EXHAUSTED",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                    "violations": [
                        {
                            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
                            "quotaId": quota_id,
                            "quotaDimensions": {"location": "global", "model": "gemini"},
                            "quotaValue": str(limit),
                        }
                    ],
                },
                {
                    "@type": "type.googleapis.com/google.rpc.Help",
                    "links": [{"description": "Learn more", "url": "https://ai.google.dev"}],
                },
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": retry_s},
            ],
        }
    }


def error(code: int, status: str, message: str) -> dict[str, Any]:
    """The body of any other error."""
    return {"error": {"code": code, "message": message, "status": status}}


PER_DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
PER_MINUTE = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
ERRORS = {
    "429-minute": (429, quota_error(PER_MINUTE, "0.02s")),
    "429-minute-long": (429, quota_error(PER_MINUTE, "46s")),
    "429-day": (429, quota_error(PER_DAY, "22s", limit=20)),
    "429-no-free-tier": (429, quota_error("x", "8s", limit=0)),
    "500": (500, error(500, "INTERNAL", "An internal error has occurred.")),
    "503": (503, error(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")),
    "401": (401, error(401, "UNAUTHENTICATED", "API key not valid. Please pass a valid API key.")),
    "400-key": (400, error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.")),
    "404": (404, error(404, "NOT_FOUND", "models/gemini-9 is not found")),
    "400": (400, error(400, "INVALID_ARGUMENT", "Request contains an invalid argument.")),
}
TRANSIENT = ("429-minute", "500", "503", "drop", "garbage", "half")


def every(rate: float, faults: tuple[str, ...] = TRANSIENT, *, seed: int = 0) -> Callable[[int, dict[str, Any]], str | None]:
    """A schedule that fails a share of the requests, at random, the same each time."""
    dice = random.Random(seed)
    return lambda number, body: dice.choice(faults) if dice.random() < rate else None


@dataclass
class Server:
    """Context manager: serves from a thread of its own, at `url`.

    reply: a request's body -> the text of its reply; a form is filled with it where it starts with "{", else with FORM.
    schedule: see above. delay_s: before each ordinary reply. pieces: of a streamed reply.
    seen: every request; active and most_active: how many are and were under way at once.
    """

    reply: Callable[[dict[str, Any]], str] = lambda body: "Sixteen litres [1]."
    schedule: Callable[[int, dict[str, Any]], str | None] = lambda number, body: None
    delay_s: float = 0.0
    pieces: int = 4
    seen: list[Seen] = field(default_factory=list)
    active: int = 0
    most_active: int = 0

    def __enter__(self) -> Server:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        if not started.wait(10):
            raise UnavailableError("the loopback stand-in did not start within 10 s")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(10)

    def _serve(self, started: threading.Event) -> None:
        async def main() -> None:
            self._done = asyncio.Event()
            server = await asyncio.start_server(self._client, "127.0.0.1", 0, backlog=256)
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            started.set()
            await self._done.wait()
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(main())
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    @property
    def delivered(self) -> list[Seen]:
        """The requests whose whole reply arrived."""
        return [request for request in self.seen if request.delivered]

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # gone, or we are closing
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
        request = Seen(head[0].split()[1], body, headers, None, time.monotonic())
        request.fault = self.schedule(len(self.seen), body)
        self.seen.append(request)
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            return await self._respond(request, reader, writer)
        finally:
            self.active -= 1

    async def _respond(self, request: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        streamed = ":streamGenerateContent" in request.path
        if request.fault in ERRORS:
            status, body = ERRORS[request.fault]
            return await self._send(writer, json.dumps([body] if streamed else body).encode(), status)
        if request.fault == "drop":
            return False
        if request.fault == "hang":
            await self._done.wait()
            return False
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if reader.at_eof():  # the client went away while we were thinking
            return False
        if request.fault == "garbage":
            return await self._send(writer, b"data: <html>oops\r\n\r\n" if streamed else b"<html>oops", 200, stream=streamed)
        alive = await (self._stream if streamed else self._whole)(request, writer)
        request.delivered = request.fault in (None, "slow") and alive and not reader.at_eof()
        return alive

    async def _send(self, writer: asyncio.StreamWriter, body: bytes, status: int, *, stream: bool = False) -> bool:
        kind = "text/event-stream" if stream else "application/json; charset=UTF-8"
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        return True

    async def _whole(self, request: Seen, writer: asyncio.StreamWriter) -> bool:
        body = json.dumps(self._message(request, self._text(request), last=True)).encode()
        if request.fault == "half":
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            writer.write(body[: len(body) // 2])
            await writer.drain()
            return False
        return await self._send(writer, body, 200)

    async def _stream(self, request: Seen, writer: asyncio.StreamWriter) -> bool:
        text = self._text(request)
        size = max(1, -(-len(text) // self.pieces))
        parts = [text[i : i + size] for i in range(0, len(text), size)] or [""]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for place, part in enumerate(parts):
            if request.fault in ("half", "half-clean") and place == len(parts) // 2:
                break
            last = place == len(parts) - 1
            data = f"data: {json.dumps(self._message(request, part, last=last))}\r\n\r\n".encode()
            step = 7 if request.fault == "slow" else len(data)
            for start in range(0, len(data), step):
                piece = data[start : start + step]
                writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                await writer.drain()
        if request.fault == "half":
            return False  # the connection closes in the middle of a chunked body
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    def _text(self, request: Seen) -> str:
        if request.body.get("generationConfig", {}).get("responseMimeType") == "application/json":
            if request.fault == "wrong-form":
                return '{"caption": 3'
            reply = self.reply(request.body)
            return reply if reply.startswith("{") else json.dumps(FORM)
        return self.reply(request.body)

    def _message(self, request: Seen, text: str, *, last: bool) -> dict[str, Any]:
        used = {"promptTokenCount": 100, "candidatesTokenCount": 10, "thoughtsTokenCount": 5, "totalTokenCount": 115}
        if request.fault == "blocked":
            return {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": used}
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
        if request.fault == "safety":
            candidate = {"finishReason": "SAFETY", "index": 0}
        elif last:
            candidate["finishReason"] = "MAX_TOKENS" if request.fault == "cut" else "STOP"
        return {"candidates": [candidate], "usageMetadata": used, "modelVersion": request.model}
