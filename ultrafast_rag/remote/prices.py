"""What a request costs, from a dated table: a provider has no call that says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

from ultrafast_rag.types import Usage


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens, and until which day (inclusive) it holds where that is known."""

    input: float
    output: float
    until: date | None = None


# ai.google.dev/gemini-api/docs/pricing as transcribed in api-evangelist/deepmind on 2026-10-07, the 2.5 models also from
# simonw/llm-prices; paid tier, text and pictures, prompts up to 200k tokens
PRICES: dict[str, tuple[Price, ...]] = {
    "gemini-3.8-flash": (Price(0.75, 3.75, date(2026, 12, 31)), Price(1.50, 7.50)),
    "gemini-3.5-flash": (Price(1.50, 9.00),),
    "gemini-3.5-flash-lite": (Price(0.30, 2.50),),
    "gemini-3.1-pro-preview": (Price(2.00, 12.00),),
    "gemini-2.5-pro": (Price(1.25, 10.00),),
    "gemini-2.5-flash": (Price(0.30, 2.50),),
    "gemini-2.5-flash-lite": (Price(0.10, 0.40),),
    # that give vectors: vercel.com/ai-gateway/models/gemini-embedding-001, and OpenAI's as docs.praison.ai/docs/embeddings
    # has them; both read on 2026-11-22
    "gemini-embedding-001": (Price(0.15, 0.0),),
    "text-embedding-3-small": (Price(0.02, 0.0),),
    "text-embedding-3-large": (Price(0.13, 0.0),),
    "text-embedding-ada-002": (Price(0.10, 0.0),),
}


def cost_usd(model: str, usage: Usage, *, on: date | None = None) -> float | None:
    """Dollars for one request on the paid tier (the free tier costs nothing); None for a model not in PRICES."""
    day = on or datetime.now(UTC).date()
    for price in PRICES.get(model.rsplit("/", 1)[-1], ()):
        if price.until is None or day <= price.until:
            return (usage.input_tokens * price.input + usage.output_tokens * price.output) / 1e6
    return None
