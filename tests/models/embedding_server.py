"""A stand-in for services that encode: OpenAI's `/v1/embeddings` and Gemini's `:batchEmbedContents`, over loopback.

Vectors are bags of words, so that searching by them means something. `faults`: a name for each coming request, "" for an
ordinary reply; `seen`: (path, headers, body) of every request.
"""

from __future__ import annotations

import json
import re
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

DIM = 64
ERRORS = {
    "429": (429, {"Retry-After": "0.05"}),
    "500": (500, {}),
    "401": (401, {}),
    "redirect": (307, {"Location": "http://localhost:1/"}),
}


def vector(text: str, dim: int = DIM, salt: str = "") -> list[float]:
    values = np.zeros(dim)
    for word in re.findall(r"\w+", text.lower()):
        values[zlib.crc32((salt + word).encode()) % dim] += 1
    return (values + 1e-3).tolist()


class EmbeddingServer:
    def __init__(self, *, salt: str = "") -> None:
        self.salt, self.seen, self.faults, self.down = salt, [], [], False
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stand_in.seen.append((self.path, dict(self.headers), body))
                fault = "500" if stand_in.down else stand_in.faults.pop(0) if stand_in.faults else ""
                status, headers = ERRORS.get(fault, (200, {}))
                reply = json.dumps(
                    {"error": {"message": f"no: {self.headers.get('Authorization')}"}}
                    if status > 200
                    else stand_in.reply(body, fault)
                )
                data = reply.encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if fault == "cut" else data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def reply(self, body, fault):
        if "requests" in body:
            return {
                "embeddings": [
                    {"values": self._vector(one["content"]["parts"][0]["text"], one.get("outputDimensionality"))}
                    for one in body["requests"]
                ]
            }
        rows = [
            {"index": n, "object": "embedding", "embedding": self._vector(text, body.get("dimensions"))}
            for n, text in enumerate(body["input"])
        ]
        if fault == "missing":
            rows = rows[:-1]
        if fault == "short":
            rows[0]["embedding"] = rows[0]["embedding"][:-1]
        if fault == "nan":
            rows[0]["embedding"][0] = float("nan")
        if fault == "other size":
            for row in rows:
                row["embedding"] = row["embedding"][:32]
        return {"object": "list", "data": rows[::-1], "model": body["model"], "usage": {"prompt_tokens": 7 * len(rows)}}

    def _vector(self, text, dim):
        return vector(text, dim or DIM, self.salt)

    def texts(self):
        return [text for _, _, body in self.seen for text in body.get("input", ())]

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
