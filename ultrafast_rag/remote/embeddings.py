"""Texts -> vectors by a service: OpenAI's `/embeddings` as many servers speak it, and Gemini's through google-genai.

One request a call, nothing retried here. Addresses and keys are the caller's, who has them from the user of this process.
A reply is checked to the last row: one vector for each text, in their order, of one length and finite.
"""

from __future__ import annotations

import http.client
import json
import math
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np

from ultrafast_rag.errors import (
    BadResponseError,
    ConfigError,
    GenerationError,
    RateLimitedError,
    TimedOutError,
    UnavailableError,
    require,
)
from ultrafast_rag.remote.google import translated
from ultrafast_rag.remote.secrets import Secret
from ultrafast_rag.types import Vectors

OPENAI_URL = "https://api.openai.com/v1"
_MOST_BYTES = 1 << 27  # of a reply: 100 vectors of 4 096 numbers are 10 MB of JSON
_SPENT = ("insufficient_quota", "billing_hard_limit_reached")  # OpenAI's 429 for an account without money: waiting does not help


class Embeddings(Protocol):
    """A service's vectors. host: where texts go, for a person to read."""

    host: str

    def embed(self, texts: Sequence[str], *, question: bool) -> tuple[Vectors, int | None]:
        """float32 (n, d) as the service gave them, and the tokens it counted, where it says. Raises GenerationError."""
        ...


class OpenAIEmbeddings:
    """`POST {base_url}/embeddings`. key: None sends none. dim: asks for so many numbers; None leaves it to the model."""

    def __init__(self, model: str, *, base_url: str, key: Secret | None, dim: int | None, timeout_s: float) -> None:
        parts = urlsplit(base_url)
        if not parts.hostname or parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigError("embeddings_base_url takes an address of host and path alone; a key goes into EMBEDDINGS_API_KEY")
        self._model, self._key, self._dim, self._timeout_s = model, key, dim, timeout_s
        self._place = (parts.hostname, parts.port)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None  # reads every root certificate there is
        self._path = f"{parts.path.rstrip('/')}/embeddings"
        self.host = parts.netloc

    def embed(self, texts: Sequence[str], *, question: bool) -> tuple[Vectors, int | None]:
        """As the port says."""
        asked: dict[str, Any] = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        if self._dim is not None:
            asked["dimensions"] = self._dim
        reply = self._post(json.dumps(asked).encode())
        try:
            rows = sorted(reply["data"], key=lambda row: row["index"])
            if [row["index"] for row in rows] != list(range(len(texts))):
                raise BadResponseError(f"{self.host} sent {len(rows)} vectors for {len(texts)} texts")
            used = reply.get("usage") or {}
            return stacked([row["embedding"] for row in rows], len(texts), self.host), used.get("prompt_tokens")
        except (KeyError, TypeError, AttributeError) as error:
            raise BadResponseError(f"{self.host} sent no vectors ({type(error).__name__})") from error

    def _post(self, body: bytes) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key.reveal()}"
        try:
            connection = self._connection()
            try:
                connection.request("POST", self._path, body, headers)  # redirects are not followed: the key stays here
                response = connection.getresponse()
                data = response.read(_MOST_BYTES + 1)
            finally:
                connection.close()
        except TimeoutError as error:
            raise TimedOutError(f"{self.host} sent nothing in {self._timeout_s:g} s") from error
        except http.client.IncompleteRead as error:
            raise BadResponseError(f"the reply of {self.host} broke off") from error
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"{self.host} cannot be reached ({type(error).__name__})") from error
        if response.status != 200:
            raise self._refused(response.status, data, response.getheader("Retry-After"))
        if len(data) > _MOST_BYTES:
            raise BadResponseError(f"{self.host} sent more than {_MOST_BYTES >> 20} MB")
        return _read(data, self.host)

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._place
        if self._tls is not None:
            return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._tls)
        return http.client.HTTPConnection(host, port, timeout=self._timeout_s)

    def _refused(self, status: int, data: bytes, wait: str | None) -> GenerationError:
        told = data[:2000].decode("utf-8", "replace")
        said = " ".join((self._key.scrub(told) if self._key is not None else told).split())[:200]
        wait_s = seconds_of(wait)
        if status == 429:
            return RateLimitedError(f"{self.host}: {said}", retry_after_s=wait_s, per_day=any(code in told for code in _SPENT))
        if status in (408, 504):
            return TimedOutError(f"{self.host} gave up in time ({status})")
        if status >= 500:
            return UnavailableError(f"{self.host} is not available ({status}): {said}", retry_after_s=wait_s)
        if status in (401, 403):
            origin = f"the key from {self._key.origin}" if self._key is not None else "a request without a key"
            return UnavailableError(f"{self.host} rejected {origin} ({status})", transient=False)
        return UnavailableError(f"{self.host} did not accept the request ({status}): {said}", transient=False)


class GeminiEmbeddings:
    """Google's embedding models. A question and a passage are told apart by the task type, where the model knows it."""

    def __init__(self, model: str, *, base_url: str | None, key: Secret, dim: int | None, timeout_s: float) -> None:
        genai = require("google.genai", package="google-genai", extra="gemini")
        self._types = require("google.genai.types", package="google-genai", extra="gemini")
        options = self._types.HttpOptions(base_url=base_url, timeout=int(timeout_s * 1000))
        self._client = genai.Client(api_key=key.reveal(), vertexai=False, http_options=options)
        self._model, self._key, self._dim = model, key, dim
        self.host = urlsplit(base_url or "https://generativelanguage.googleapis.com").netloc

    def embed(self, texts: Sequence[str], *, question: bool) -> tuple[Vectors, int | None]:
        """As the port says."""
        contents = [self._types.Content(parts=[self._types.Part(text=text)]) for text in texts]
        config = self._types.EmbedContentConfig(
            task_type="RETRIEVAL_QUERY" if question else "RETRIEVAL_DOCUMENT", output_dimensionality=self._dim
        )
        with translated(self._key):
            reply = self._client.models.embed_content(model=self._model, contents=contents, config=config)
        return stacked([row.values or [] for row in reply.embeddings or []], len(texts), self.host), None


def stacked(rows: Sequence[Sequence[float]], count: int, host: str) -> Vectors:
    """float32 (count, d); BadResponseError for rows that are missing, cut short, of other lengths, NaN or zero."""
    if len(rows) != count:
        raise BadResponseError(f"{host} sent {len(rows)} vectors for {count} texts")
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise BadResponseError(f"{host} sent vectors of {sorted({len(row) for row in rows})} numbers")
    try:
        vectors = np.asarray(rows, np.float32)
    except (TypeError, ValueError) as error:
        raise BadResponseError(f"{host} sent vectors that are no numbers") from error
    if not np.isfinite(vectors).all() or not (np.linalg.norm(vectors, axis=1) > 0).all():
        raise BadResponseError(f"{host} sent a vector that is not finite, or zero")
    return vectors


def seconds_of(header: str | None) -> float | None:
    """A Retry-After header, in seconds or as a date, as seconds from now."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _read(data: bytes, host: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise BadResponseError(f"the reply of {host} is no JSON") from error
