"""What a vendor's client talks to here: Chroma's own server from its package, and doors that refuse or never answer."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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


def _beats(url):
    try:
        return urllib.request.urlopen(f"{url}/api/v2/heartbeat", timeout=10).status == 200
    except (urllib.error.URLError, ConnectionError):
        threading.Event().wait(0.05)
        return False
