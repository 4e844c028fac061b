"""Who may write answers and enrich passages in this session, made from the config on first use.

One gate (rates, the day's ledger, breaker, totals) stands before Gemini for answers and enrichment
alike. The ledger lies in the cache directory: a day's quota belongs to the key, not to one index.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

from ultrafast_rag.answer.custom import CustomGenerator
from ultrafast_rag.answer.route import Answerer, Candidate, Extractive, select
from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.ports import Generator, ModelHolder, StructuredModel
from ultrafast_rag.remote import event_loop
from ultrafast_rag.remote.limits import Gate
from ultrafast_rag.remote.quota import Quota, QuotaLedger
from ultrafast_rag.remote.secrets import Secret, find_key
from ultrafast_rag.types import Hit

GeneratorChoice = str | Callable[..., Any]


class Generators:
    """Gemini where a key is found, a local model where one is configured, any function that is passed.

    device: where a local model goes, e.g. "cuda:0". picture_of: bytes of a hit's picture, or None.
    key: the user's own, never kept in a config. pool: holds a local model beside the others; None: it holds itself.
    """

    def __init__(
        self,
        config: Config,
        *,
        device: Callable[[], str],
        key: str | Secret | None,
        picture_of: Callable[[Hit], bytes | None],
        pool: Callable[[], ModelHolder] | None = None,
    ) -> None:
        self._config, self._device, self._given = config, device, key
        self._picture_of, self._pool = picture_of, pool
        self._lock = threading.RLock()
        self._open: dict[str, Any] = {}

    def answerer(self, extractive: Extractive, choice: GeneratorChoice | None = None) -> Answerer:
        """Routes a question by `choice`, else by Config.generator; raises ConfigError when the one named cannot be had."""
        if callable(choice):
            return Answerer(extractive, [Candidate(self._custom(choice), "the function you passed")])
        setting = choice or self._config.generator
        gemini = self._gemini() if setting in ("auto", "gemini") else None
        local = self._local() if setting in ("auto", "local") else None
        legacy = self._gemini("legacy-gemini") if setting == "legacy-gemini" else None
        candidates, why = select(setting, gemini=gemini, local=local, legacy=legacy)
        return Answerer(extractive, candidates, why_extractive=why)

    def extractive(self, choice: GeneratorChoice | None = None) -> bool:
        """Whether the answer is sure to be extractive: no model writes in this session, or none is wanted."""
        setting = choice or self._config.generator
        return setting == "extractive" or (setting == "auto" and not self.available())

    def look_for_key(self) -> None:
        """Ask the notebook's own store for a key, which only the main thread can; what is found is remembered."""
        if self._config.generator in ("auto", "gemini"):
            find_key(given=self._given)

    def available(self) -> list[str]:
        """Which of "gemini" and "local" could write in this session."""
        gemini = self._config.generator in ("auto", "gemini") and find_key(given=self._given) is not None
        return [name for name, there in (("gemini", gemini), ("local", self._config.local_model is not None)) if there]

    def form_filler(self) -> StructuredModel:
        """Gemini behind the shared gate, for what fills forms. Raises ConfigError without a key."""
        gemini = self._gemini()
        if gemini is None:
            raise ConfigError(
                "this needs Gemini: set GEMINI_API_KEY, or pass gemini_api_key= (never in a notebook that is shared)"
            )
        model: Any = gemini.generator
        return cast(StructuredModel, model)

    def totals(self) -> dict[str, float]:
        """Requests, tokens, dollars and retries of this session; empty when no provider was asked."""
        gate: Gate | None = self._open.get("gate")
        return gate.totals.as_dict() if gate else {}

    def close(self) -> None:
        """End clients and give a local model's memory back."""
        with self._lock:
            gemini, local, ledger = (self._open.pop(name, None) for name in ("gemini", "local", "ledger"))
            self._open.clear()
        if gemini is not None:
            event_loop.run(gemini.generator.aclose())
        if local is not None:
            local.generator.close()
        if ledger is not None:
            ledger.close()

    def quota(self) -> Quota:
        """What the configured model's provider grants a minute and a day."""
        return Quota(rpm=self._config.gemini_rpm, tpm=self._config.gemini_tpm, rpd=self._config.gemini_rpd)

    def _gemini(self, client: str = "gemini") -> Candidate | None:
        """By the present client, or by the one that Google no longer keeps."""
        with self._lock:
            if client not in self._open:
                key = find_key(given=self._given)
                if key is None:
                    return None
                self._open[client] = Candidate(self._make_gemini(client, key), f"a Gemini key was found ({key.origin})")
            candidate: Candidate = self._open[client]
            return candidate

    def _make_gemini(self, client: str, key: Secret) -> Generator:
        from ultrafast_rag.answer.gemini import GeminiGenerator, gate_name
        from ultrafast_rag.answer.legacy_gemini import LegacyGeminiGenerator

        config = self._config
        if "gate" not in self._open:
            ledger = self._open["ledger"] = QuotaLedger(config.cache_dir / "quota.sqlite3")
            name = gate_name(config.gemini_model, key)
            self._open["gate"] = Gate(name, quota=self.quota(), ledger=ledger, concurrency=config.enrich_concurrency)
        both: dict[str, Any] = {
            "model": config.gemini_model,
            "key": key,
            "gate": self._open["gate"],
            "context_tokens": config.context_tokens,
            "base_url": config.gemini_base_url,
            "timeout_s": config.answer_timeout_s,
            "max_output_tokens": config.answer_tokens,
        }
        if client == "legacy-gemini":
            return LegacyGeminiGenerator(**both)
        return GeminiGenerator(
            **both, image_of=self._picture_of, patience_s=config.answer_patience_s, thinking_level=config.gemini_thinking
        )

    def _local(self) -> Candidate | None:
        if self._config.local_model is None:
            return None
        with self._lock:
            if "local" not in self._open:
                from ultrafast_rag.answer.local import LocalGenerator

                generator = LocalGenerator(
                    self._config.local_model,
                    quantization=self._config.quantization,
                    device=self._device(),
                    context_tokens=self._config.context_tokens,
                    max_new_tokens=self._config.answer_tokens,
                    offline=self._config.offline,
                    pool=self._pool() if self._pool is not None else None,
                )
                self._open["local"] = Candidate(generator, f"local_model is configured ({generator.precision})")
            candidate: Candidate = self._open["local"]
            return candidate

    def _custom(self, function: Callable[..., Any]) -> CustomGenerator:
        from ultrafast_rag.answer.gemini import estimate_tokens

        return CustomGenerator(
            function,
            context_tokens=self._config.context_tokens,
            count_tokens=estimate_tokens,
            timeout_s=self._config.answer_timeout_s,
        )
