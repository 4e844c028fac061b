"""Any function as a generator: plain, async, or yielding pieces.

It takes (question, hits), or one argument, which is then the whole prompt, instructions and marked
sources included.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from ultrafast_rag.answer.prompt import build_prompt
from ultrafast_rag.errors import BadResponseError, ConfigError, GenerationError, TimedOutError
from ultrafast_rag.types import Hit

_END = object()


class CustomGenerator:
    """`Generator` over a user's function; timeout_s holds for each piece it yields, or its whole reply."""

    def __init__(
        self, function: Callable[..., Any], *, context_tokens: int, count_tokens: Callable[[str], int], timeout_s: float
    ) -> None:
        self.name = f"custom:{getattr(function, '__name__', type(function).__name__)}"
        self._function, self._takes_prompt = function, _takes_prompt(function)
        self._context_tokens, self._count, self._timeout_s = context_tokens, count_tokens, timeout_s

    async def stream(self, question: str, hits: Sequence[Hit]) -> AsyncIterator[str]:
        """Pieces of what the function returns or yields; its own failures become GenerationError."""
        arguments: tuple[Any, ...] = (question, hits)
        if self._takes_prompt:
            prompt = build_prompt(question, hits, context_tokens=self._context_tokens, count_tokens=self._count)
            arguments = (f"{prompt.system}\n\n{prompt.user}",)
        try:
            async for piece in self._pieces(arguments):
                if not isinstance(piece, str):
                    raise BadResponseError(f"{self.name} gave {type(piece).__name__}, not text")
                yield piece
        except (GenerationError, GeneratorExit):
            raise
        except TimeoutError as error:
            raise TimedOutError(f"{self.name} gave nothing within {self._timeout_s:g} s") from error
        except Exception as error:  # a stranger's function may raise anything
            raise GenerationError(f"{self.name} failed: {type(error).__name__}: {error}") from error

    async def _pieces(self, arguments: tuple[Any, ...]) -> AsyncIterator[Any]:
        function = self._function
        if _is_async(function):
            reply = function(*arguments)
        else:  # in a thread: a slow function must not hold up the loop, and may itself use our blocking calls
            reply = await self._within(asyncio.to_thread(function, *arguments))
        if inspect.isawaitable(reply):
            reply = await self._within(reply)
        if hasattr(reply, "__aiter__"):
            async for piece in self._each(reply):
                yield piece
        elif isinstance(reply, Iterator):
            while (piece := await self._within(asyncio.to_thread(next, reply, _END))) is not _END:
                yield piece
        else:
            yield reply

    async def _each(self, reply: Any) -> AsyncIterator[Any]:
        try:
            while (piece := await self._within(anext(reply, _END))) is not _END:
                yield piece
        finally:
            if hasattr(reply, "aclose"):
                await reply.aclose()

    async def _within(self, awaitable: Any) -> Any:
        return await asyncio.wait_for(awaitable, self._timeout_s)


def _is_async(function: Callable[..., Any]) -> bool:
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004 its code is inspected
    return inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called)


def _takes_prompt(function: Callable[..., Any]) -> bool:
    """One required argument: the prompt. Raises ConfigError for a function that takes neither form."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True  # a built-in without a signature
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters) or len(required) == 2 or (len(required) < 2 <= len(positional)):
        return False
    if len(required) == 1:
        return True
    raise ConfigError("a generator function takes (question, hits) or (prompt)")
