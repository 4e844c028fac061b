"""What google-genai raises, as our errors, without the key in any message; the one place that knows its formats."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ultrafast_rag.errors import BadResponseError, GenerationError, RateLimitedError, TimedOutError, UnavailableError
from ultrafast_rag.remote.secrets import Secret

KEY_HELP = "set GEMINI_API_KEY, or store it as a Kaggle or Colab secret (a free key: aistudio.google.com/apikey)"
_UNREADABLE = frozenset(
    "UnknownApiResponseError JSONDecodeError ValidationError RemoteProtocolError ClientPayloadError DecodingError".split()
)


@contextmanager
def translated(key: Secret) -> Iterator[None]:
    """Third-party errors -> ours, without the key in any message."""
    try:
        yield
    except GenerationError:
        raise
    except Exception as error:  # the client lets its HTTP library's own errors through: told apart by class names below
        ours = _ours(error, key)
        if ours is None:
            raise
        raise ours from error


def _ours(error: Exception, key: Secret) -> GenerationError | None:
    names = {kind.__name__ for kind in type(error).__mro__}
    if "APIError" in names:
        return _from_status(error, key)
    if names & {"TimeoutException", "TimeoutError", "ServerTimeoutError"}:
        return TimedOutError("Gemini sent nothing in time")
    if names & _UNREADABLE:
        return BadResponseError(f"Gemini's reply could not be read ({type(error).__name__})")
    if names & {"TransportError", "ClientError", "ConnectionError", "OSError"}:
        return UnavailableError(f"Gemini cannot be reached ({type(error).__name__}): check the network")
    return None


def _from_status(error: Any, key: Secret) -> GenerationError:
    code, message = int(error.code or 0), key.scrub(str(error.message or error.status or ""))[:300]
    body = json.dumps(error.details) if isinstance(error.details, (dict, list)) else str(error.details)
    wait_s = retry_after(error.details, getattr(getattr(error, "response", None), "headers", None))
    if code == 429:
        per_day = bool(re.search(r'"quotaId": "[^"]*PerDay|"limit": 0\b|limit: 0\b', body))
        return RateLimitedError(f"Gemini: quota exceeded: {message}", retry_after_s=None if per_day else wait_s, per_day=per_day)
    if code in (408, 504):
        return TimedOutError(f"Gemini gave up in time ({code}): {message}")
    if code >= 500 or code == 0:
        return UnavailableError(f"Gemini is not available ({code}): {message}", retry_after_s=wait_s)
    if code in (401, 403) or "API_KEY_INVALID" in body or "API key" in message:
        return UnavailableError(f"Gemini rejected the key from {key.origin} ({code}): {KEY_HELP}", transient=False)
    if code == 404:
        return UnavailableError(
            f"Gemini does not know this model ({message}): choose another gemini_model or text_model", transient=False
        )
    return GenerationError(f"Gemini did not accept the request ({code}): {message}")


def retry_after(details: Any, headers: Mapping[str, str] | None) -> float | None:
    """Seconds to wait by RetryInfo.retryDelay in the body, else by the Retry-After header."""
    body = details.get("error", details) if isinstance(details, dict) else {}
    for detail in body.get("details") or () if isinstance(body, dict) else ():
        if isinstance(detail, dict) and (delay := re.fullmatch(r"(\d+(?:\.\d+)?)s", str(detail.get("retryDelay", "")))):
            return float(delay[1])
    header = str((headers or {}).get("retry-after", ""))
    return float(header) if re.fullmatch(r"\d+(\.\d+)?", header) else None
