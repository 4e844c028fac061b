"""Qdrant's REST interface over loopback, answered by the client's own local mode: for benchmarks and tests without a server.

What local mode ignores (quantization, payload indexes) it ignores here too; `asked` keeps every request, so that a test
sees what a server would be told. `fail` answers the next so many requests with a status, `key` demands one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ultrafast_rag.errors import require


class QdrantServer:
    """A server on a free port of this machine; `with QdrantServer() as server: ... server.url`."""

    def __init__(self, *, key: str = "") -> None:
        self._client = require("qdrant_client", package="qdrant-client", extra="qdrant").QdrantClient(":memory:")
        self._rest = require("qdrant_client.http.models", package="qdrant-client", extra="qdrant")
        self.key, self.fail, self.delay = key, [0, 0], threading.Event()
        self.delay.set()
        self.asked: list[tuple[str, str, Any]] = []
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> QdrantServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.delay.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, method: str, path: str, key: str, body: Any) -> tuple[int, Any]:
        """Status and result of one request."""
        self.delay.wait()
        with self._lock:
            self.asked.append((method, path, body))
            if self.key and key != self.key:
                return 401, "Must provide an API key"
            if self.fail[0]:
                self.fail[0] -= 1
                return self.fail[1], "failing as told"
            parts = path.split("/")[2:]
            if len(parts) == 1:
                return self._collection(method, parts[0], body)
            if parts[1] == "exists":
                return 200, {"exists": self._client.collection_exists(parts[0])}
            if parts[1] == "index":
                return 200, {"operation_id": 0, "status": "completed"}
            return 200, self._points(method, parts[0], "/".join(parts[2:]), body)

    def _collection(self, method: str, name: str, body: Any) -> tuple[int, Any]:
        if method == "GET":
            return 200, self._client.get_collection(name)
        asked = self._rest.CreateCollection.model_validate(body)
        return 200, self._client.create_collection(name, vectors_config=asked.vectors, sparse_vectors_config=asked.sparse_vectors)

    def _points(self, method: str, name: str, action: str, body: Any) -> Any:
        client, rest = self._client, self._rest
        if method == "PUT":
            return client.upsert(name, rest.PointsList.model_validate(body).points)
        if action == "delete":
            return client.delete(name, rest.PointIdsList.model_validate(body))
        if action == "scroll":
            asked = rest.ScrollRequest.model_validate(body)
            points, after = client.scroll(name, limit=asked.limit, offset=asked.offset, with_payload=False, with_vectors=False)
            return {"points": points, "next_page_offset": after}
        asked = rest.QueryRequest.model_validate(body)
        return client.query_points(
            name,
            query=asked.query,
            using=asked.using,
            prefetch=asked.prefetch,
            query_filter=asked.filter,
            limit=asked.limit or 10,
        )

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _reply(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length) or b"null")
                status, result = answer(self.command, self.path.split("?")[0], self.headers.get("api-key", ""), body)
                reply = {"result": result, "status": "ok", "time": 0} if status == 200 else {"status": {"error": result}}
                content = json.dumps(reply, default=_plain).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = _reply

            def log_message(self, *_: object) -> None:
                """Nothing on stderr."""

        return Handler


def _plain(value: Any) -> Any:
    dump: Callable[..., Any] = value.model_dump
    return dump(mode="json")
