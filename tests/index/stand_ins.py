"""What a vendor's client talks to here: Chroma's own server from its package, and doors that refuse or never answer."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

CHROMA = "import sys; from chromadb.cli.cli import app; sys.argv[0] = 'chroma'; app()"


class HttpServer:
    """JSON over loopback: `answer(method, path, headers, body)` gives (status, reply), and nothing while `open` is cleared."""

    def __init__(self, answer):
        self.open = threading.Event()
        self.open.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def reply(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                server.open.wait()
                status, reply = answer(self.command, self.path, self.headers, json.loads(body) if body else None)
                content = b"" if reply is None else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = reply

            def log_message(self, *_):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.open.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def refusing():
    """A server whose key nobody has."""
    return HttpServer(lambda method, path, headers, body: (401, {"error": "AuthError", "message": "no"}))


@contextlib.contextmanager
def chroma_server(folder):
    """The address of `chroma run` on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", CHROMA, "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        while not _beats(url):
            assert process.poll() is None, (folder / "log").read_text()
        yield url
    finally:
        process.kill()
        process.wait()


class Pinecone:
    """As much of Pinecone's data plane as its client speaks here; one index of 32 numbers for dense and sparse vectors."""

    PAGE = 100

    def __init__(self, *, dim=32, metric="dotproduct"):
        self.about, self.spaces, self.asked, self.fail = {"dimension": dim, "metric": metric}, {}, [], [0, 0]

    def answer(self, method, path, headers, body):
        if headers.get("api-key") != "right-key":
            return 401, {"status": 401, "error": {"code": "UNAUTHENTICATED", "message": "Invalid API Key"}}
        if self.fail[0]:
            self.fail[0] -= 1
            return self.fail[1], {"code": 14, "message": "failing as told"}
        place = urllib.parse.urlsplit(path)
        asked = body if body is not None else {k: v[0] for k, v in urllib.parse.parse_qs(place.query).items()}
        self.asked.append((place.path, asked))
        rows = self.spaces.setdefault(asked.get("namespace", ""), {})
        return 200, {
            "/describe_index_stats": self._stats,
            "/vectors/upsert": self._upsert,
            "/vectors/delete": self._delete,
            "/vectors/list": self._list,
            "/query": self._query,
        }[place.path](rows, asked)

    def _stats(self, rows, asked):
        return {**self.about, "namespaces": {}, "indexFullness": 0, "totalVectorCount": sum(map(len, self.spaces.values()))}

    def _upsert(self, rows, asked):
        rows.update({row["id"]: row for row in asked["vectors"]})
        return {"upsertedCount": len(asked["vectors"])}

    def _delete(self, rows, asked):
        for name in asked["ids"]:
            rows.pop(name, None)
        return {}

    def _list(self, rows, asked):
        names, at = sorted(rows), int(asked.get("paginationToken", 0))
        after = {"pagination": {"next": str(at + self.PAGE)}} if at + self.PAGE < len(names) else {}
        return {"vectors": [{"id": name} for name in names[at : at + self.PAGE]], **after, "namespace": asked["namespace"]}

    def _query(self, rows, asked):
        def holds(row):
            tests = asked.get("filter") or {}
            return all(row["metadata"].get(f) in (t["$in"] if "$in" in t else [t["$eq"]]) for f, t in tests.items())

        fitting = [row for row in rows.values() if holds(row)]
        if not fitting:
            return {"matches": [], "namespace": asked["namespace"]}
        scores = np.array([row["values"] for row in fitting]) @ np.array(asked["vector"])
        for n, row in enumerate(fitting):
            scores[n] += _sparse_dot(row.get("sparseValues"), asked.get("sparseVector"))
        order = np.argsort(-scores, kind="stable")[: asked["topK"]]
        matches = [{"id": fitting[n]["id"], "score": float(scores[n]), "metadata": fitting[n]["metadata"]} for n in order]
        return {"matches": matches, "namespace": asked["namespace"]}


def _sparse_dot(one, other):
    if not one or not other:
        return 0.0
    weights = dict(zip(one["indices"], one["values"]))
    return sum(weights.get(number, 0) * weight for number, weight in zip(other["indices"], other["values"]))


def _beats(url):
    try:
        return urllib.request.urlopen(f"{url}/api/v2/heartbeat", timeout=10).status == 200
    except (urllib.error.URLError, ConnectionError):
        threading.Event().wait(0.05)
        return False
