"""Answers from Gemini through `google-generativeai`, for code that is tied to it.

That library reached its end of life in 2025, gets no security fixes and holds protobuf below 6; use
`gemini.py` where you can. Its async door needs gRPC, so its blocking one runs in a thread over REST;
and the whole reply comes as one piece, since its REST streams turn every error, a spent quota too,
into "Unknown error".
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ultrafast_rag.answer.gemini import estimate_tokens
from ultrafast_rag.answer.prompt import Prompt, build_prompt
from ultrafast_rag.errors import (
    BadResponseError,
    GenerationError,
    RateLimitedError,
    RefusedError,
    TimedOutError,
    UnavailableError,
    require,
)
from ultrafast_rag.remote.google import KEY_HELP
from ultrafast_rag.remote.limits import Gate
from ultrafast_rag.remote.prices import cost_usd
from ultrafast_rag.remote.secrets import Secret
from ultrafast_rag.types import Hit, Usage

_STOP, _MAX_TOKENS = 1, 2  # values of its FinishReason


class LegacyGeminiGenerator:
    """`Generator` over the old client; the library keeps one key a process, the last one given."""

    def __init__(
        self,
        *,
        model: str,
        key: Secret,
        gate: Gate,
        context_tokens: int,
        timeout_s: float,
        max_output_tokens: int,
        count_tokens: Callable[[str], int] = estimate_tokens,
        base_url: str | None = None,
    ) -> None:
        self._library = require("google.generativeai", package="google-generativeai", extra="legacy-gemini")
        self.model, self.name, self.gate, self._key = model, f"legacy-gemini:{model}", gate, key
        self._context_tokens, self._count = context_tokens, count_tokens
        self._timeout_s, self._max_output_tokens = timeout_s, max_output_tokens
        options = {"api_endpoint": base_url} if base_url else None
        self._library.configure(api_key=key.reveal(), transport="rest", client_options=options)

    async def stream(self, question: str, hits: Sequence[Hit]) -> AsyncIterator[str]:
        """The raw reply, in one piece."""
        prompt = build_prompt(question, hits, context_tokens=self._context_tokens, count_tokens=self._count)
        tokens = self._count(prompt.system) + self._count(prompt.user)
        yield await self.gate.call(lambda: asyncio.to_thread(self._ask, prompt), tokens=tokens)

    def _ask(self, prompt: Prompt) -> str:
        settings = {"max_output_tokens": self._max_output_tokens}
        request = {"timeout": self._timeout_s, "retry": None}
        with translated(self._key):
            model = self._library.GenerativeModel(self.model, system_instruction=prompt.system)
            response = model.generate_content(prompt.user, generation_config=settings, request_options=request)
        usage = usage_of(response)
        self.gate.totals.record(usage, cost_usd(self.model, usage))
        _check(response)
        return "".join(part.text for part in response.candidates[0].content.parts)


def usage_of(response: Any) -> Usage:
    """Billed tokens; what is neither prompt nor reply is thinking, and counts as output."""
    meta = response.usage_metadata
    return Usage(meta.prompt_token_count, meta.total_token_count - meta.prompt_token_count)


def _check(response: Any) -> None:
    """RefusedError where the model declined, BadResponseError where the reply has no proper end."""
    if response.prompt_feedback.block_reason:
        raise RefusedError(f"the model declined the question ({response.prompt_feedback.block_reason.name})")
    if not response.candidates or not response.candidates[0].finish_reason:
        raise BadResponseError("the reply broke off")
    reason = response.candidates[0].finish_reason
    if int(reason) not in (_STOP, _MAX_TOKENS):
        raise RefusedError(f"the model declined to answer ({reason.name})")


@contextmanager
def translated(key: Secret) -> Iterator[None]:
    """google.api_core's errors -> ours, without the key in any message."""
    theirs = require("google.api_core.exceptions", package="google-generativeai", extra="legacy-gemini")
    try:
        yield
    except theirs.GoogleAPICallError as error:
        raise _ours(error, key) from error
    except theirs.RetryError as error:
        raise TimedOutError("Gemini sent nothing in time") from error
    except (ValueError, TypeError, KeyError) as error:  # a body that is not the JSON it should be
        raise BadResponseError(f"Gemini's reply could not be read ({type(error).__name__})") from error
    except OSError as error:  # requests' errors are these
        kind = TimedOutError if "Timeout" in type(error).__name__ else UnavailableError
        raise kind(f"Gemini cannot be reached ({type(error).__name__}): check the network") from error


def _ours(error: Any, key: Secret) -> GenerationError:
    code, message = int(error.code or 0), key.scrub(str(error.message or ""))[:300]
    body = f"{error.message} {error.details}"
    delay = re.search(r"retry in (\d+(?:\.\d+)?)s|seconds: (\d+)", body)
    wait_s = float(delay[1] or delay[2]) if delay else None
    if code == 429:
        per_day = bool(re.search(r"PerDay|limit: 0\b", body))
        return RateLimitedError(f"Gemini: quota exceeded: {message}", retry_after_s=None if per_day else wait_s, per_day=per_day)
    if code in (408, 504):
        return TimedOutError(f"Gemini gave up in time ({code}): {message}")
    if code >= 500:
        return UnavailableError(f"Gemini is not available ({code}): {message}", retry_after_s=wait_s)
    if code in (401, 403) or "API key" in message:
        return UnavailableError(f"Gemini rejected the key from {key.origin} ({code}): {KEY_HELP}", transient=False)
    if code == 404:
        return UnavailableError(f"Gemini does not know this model ({message}): choose another gemini_model", transient=False)
    return GenerationError(f"Gemini did not accept the request ({code}): {message}")
