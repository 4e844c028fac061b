"""A service's text model behind `ports.TextEncoder`: "openai:MODEL" and "gemini:MODEL".

Where texts go is the user's setting of this process, never an index's: `Config.for_index` sees to that. The service's
tokenizer is not here, so tokens are short runs of letters that spell the text: they count passages, name them in the
embedding cache, and are written out again before anything is sent. A few reference vectors are kept in a new index; whoever
opens it elsewhere, or at another address, is held to them with the first request.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from ultrafast_rag.config import Config, is_remote, members
from ultrafast_rag.errors import GenerationError, IndexStateError, RemoteEncoderError, TimedOutError
from ultrafast_rag.models.text.calibration import calibration_texts
from ultrafast_rag.models.text.reference import Reference
from ultrafast_rag.models.text.tokens import same_space
from ultrafast_rag.remote.embeddings import OPENAI_URL, Embeddings, GeminiEmbeddings, OpenAIEmbeddings
from ultrafast_rag.remote.limits import CircuitBreaker, Retry, Totals
from ultrafast_rag.remote.prices import PRICES, cost_usd
from ultrafast_rag.remote.secrets import GEMINI_KEYS, Secret, find_key
from ultrafast_rag.types import Usage, Vectors

MAX_TOKENS = 2048  # gemini-embedding-001's limit, the smallest of those named in `remote/prices.py`; by our count, which is high
BATCH = 100  # texts a request: Gemini's limit; OpenAI takes 2 048
BATCH_TOKENS = 60_000  # by our count; OpenAI takes 300 000 a request
AT_ONCE = 4  # requests under way; chosen
PATIENT, QUICK = Retry(), Retry(attempts=2, base_s=0.2, patience_s=2.0)  # passages wait for a service; a question does not
SAME = 0.99  # least cosine to a reference vector, chosen: services round, and another model's vectors point anywhere
_REFERENCE_TEXTS = 4  # chosen: one request of some hundred tokens, once a session
_START, _WIDE = 1 << 28, 1 << 29  # above the 28 bits that letters take: begins a word; is of bytes


def to_tokens(text: str) -> list[int]:
    """Numbers below 2**30 that spell the text, blanks apart: four ASCII letters each, three bytes of other words.

    English has 1.6 of them a word, a service's tokenizer about 1.3: what is counted by them is rather too high.
    """
    return [token for word in text.split() for token in _spelled(word)]


def _spelled(word: str) -> Iterator[int]:
    data, wide = word.encode("utf-8", "surrogatepass"), not word.isascii()
    step, bits = (3, 8) if wide else (4, 7)
    for at in range(0, len(data), step):
        number = 0
        for byte in data[at : at + step]:
            number = number << bits | byte
        yield number | (_START if at == 0 else 0) | (_WIDE if wide else 0)


def to_text(tokens: Sequence[int]) -> str:
    """What `to_tokens` spelled, one blank between words; a letter cut in two is left out."""
    words: list[bytearray] = []
    for token in tokens:
        bits = 8 if token & _WIDE else 7
        number, letters = token & (_START - 1), bytearray()
        while number:
            letters.insert(0, number & ((1 << bits) - 1))
            number >>= bits
        if token & _START or not words:
            words.append(letters)
        else:
            words[-1] += letters
    return " ".join(word.decode("utf-8", "ignore") for word in words)


class Spelling:
    """`ports.Tokenizer` of every service, which asks none."""

    max_tokens = MAX_TOKENS

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """As the port says; see `to_tokens`."""
        return [to_tokens(text) for text in texts]


class RemoteEncoder(Spelling):
    """`ports.TextEncoder` over a service; safe to call from several threads.

    known_dim: of the index's vectors; None asks the service. held_to: vectors that the service must give again.
    totals: requests, tokens and dollars of this session. Raises RemoteEncoderError, from anything that asks the service.
    """

    takes_tokens = True
    vocabulary_size = 0

    def __init__(
        self,
        config: Config,
        service: Embeddings,
        *,
        known_dim: int | None = None,
        held_to: Reference | None = None,
        totals: Totals | None = None,
        patient: Retry = PATIENT,
        quick: Retry = QUICK,
    ) -> None:
        self.model, self._service, self._price = config.text_model, service, config.text_price_usd
        self._prompts = (config.passage_prompt or "", config.query_prompt or "")
        self._retry = {False: patient, True: quick}
        self._breaker, self.totals, self._checking = CircuitBreaker(failures=2), totals or Totals(), threading.Lock()
        self._held_to = held_to
        self._reference: Reference | None = held_to
        self.dim = known_dim or config.text_dim or 0
        self.notes = (f"passages and questions are sent to {service.host}, for {self.model}",)
        if known_dim is None:
            texts = tuple(calibration_texts()[:_REFERENCE_TEXTS])
            self.dim = self._asked([self._prompts[0] + text for text in texts], question=False).shape[1]
            self._reference = Reference(texts, self.encode(texts))
        self.space = space_of(self.model, self.dim, self._prompts)
        self.fingerprint = f"{self.space}|{service.host}"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """As the port says."""
        return self._encode(texts, question=False)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """As the port says."""
        return self._encode(texts, question=True)

    def encode_tokens(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
        """As the port says."""
        return self._encode([to_text(ids) for ids in token_ids], question=False)

    def known_share(self, text: str) -> float:
        """All of it: what these services offer reads every script."""
        return 1.0

    def report(self) -> list[tuple[str, ...]]:
        """No engine was measured."""
        return []

    def reference(self) -> Reference | None:
        """A few texts and their vectors, for a new index to keep."""
        return self._reference

    def close(self) -> None:
        """Nothing is held."""

    def _encode(self, texts: Sequence[str], *, question: bool) -> Vectors:
        self._hold(question=question)
        asked = [self._prompts[question] + _cut(text) for text in texts]
        batches = list(_batches(asked))
        ask = partial(self._asked, question=question)
        if len(batches) < 2:
            blocks = [ask(batch) for batch in batches]
        else:
            with ThreadPoolExecutor(AT_ONCE, "ufr-remote") as several:
                blocks = list(several.map(ask, batches))
        vectors = np.concatenate([np.empty((0, self.dim), np.float32), *blocks])
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def _hold(self, *, question: bool) -> None:
        """Compare the service's vectors with the index's, once; a question waits no longer for it than for its own."""
        with self._checking:
            reference, self._held_to = self._held_to, None
            if reference is None:
                return
            try:
                texts = [self._prompts[0] + _cut(text) for text in reference.texts[:_REFERENCE_TEXTS]]
                vectors = self._asked(texts, question=False, retry=self._retry[question])
            except RemoteEncoderError:
                self._held_to = reference
                raise
            cosines = (vectors * reference.vectors[: len(texts)]).sum(1) / np.linalg.norm(vectors, axis=1)
            if not (cosines >= SAME).all():
                self._held_to = reference
                raise IndexStateError(
                    f"{self._service.host} gives other vectors for {self.model} than this index holds (cosine "
                    f"{float(cosines.min()):.2f}): it is another model. Set embeddings_base_url to where the index was made"
                )

    def _asked(self, texts: Sequence[str], *, question: bool, retry: Retry | None = None) -> Vectors:
        """One request, again where that can help; (n, dim), not yet of unit length."""
        retry, failures = retry or self._retry[question], 0
        try:
            self._breaker.check()
            while True:
                self.totals.count("requests")
                try:
                    vectors, tokens = self._service.embed(texts, question=question)
                    break
                except GenerationError as error:
                    failures += 1
                    in_vain = question and isinstance(error, TimedOutError)  # somebody has waited long enough
                    if failures >= retry.attempts or in_vain or not retry.is_retryable(error):
                        self._breaker.failed(str(error))
                        raise
                    self.totals.count("retries")
                    time.sleep(retry.wait_s(failures, error))
        except GenerationError as error:
            self.totals.count("failures")
            raise RemoteEncoderError(f"{self.model}: {error}") from error
        except BaseException:  # an interrupt says nothing about the service
            self._breaker.abandoned()
            raise
        self._breaker.succeeded()
        self._pay(sum(len(to_tokens(text)) for text in texts) if tokens is None else tokens)
        if self.dim and vectors.shape[1] != self.dim:
            raise RemoteEncoderError(
                f"{self.model}: {self._service.host} sent vectors of {vectors.shape[1]} numbers, and {self.dim} are asked for"
            )
        return vectors

    def _pay(self, tokens: int) -> None:
        self.totals.record(Usage(tokens, 0), price_of(self.model, tokens, self._price))


def price_of(text_model: str, tokens: int, price_usd: float | None) -> float | None:
    """Dollars for so many tokens; price_usd: of a million, None for the table's. None where nobody knows."""
    if price_usd is not None:
        return tokens * price_usd / 1e6
    name = text_model.partition(":")[2]
    return cost_usd(name, Usage(tokens, 0)) if name.rsplit("/", 1)[-1] in PRICES else None


def price_of_services(config: Config, tokens: int) -> float | None:
    """Dollars for so many tokens of every service that encodes under these settings: 0 where none does, None as above."""
    prices = [price_of(model, tokens, config.text_price_usd) for model in members(config.text_model) if is_remote(model)]
    return None if None in prices else sum(filter(None, prices))


def space_of(text_model: str, dim: int, prompts: tuple[str, str]) -> str:
    """What makes vectors comparable: service, model, size, prompts, in the form of `EncoderSpec.space`."""
    said = f"|prompts {hashlib.sha256(chr(0).join(prompts).encode()).hexdigest()[:8]}" if any(prompts) else ""
    return f"{text_model}@{hashlib.sha256(text_model.encode()).hexdigest()[:16]}|remote|{dim}d{said}"


def open_remote(
    config: Config,
    *,
    space: str | None = None,
    reference: Reference | None = None,
    gemini_key: Secret | None = None,
    totals: Totals | None = None,
) -> RemoteEncoder:
    """The service that `config.text_model` names; a question's first request is its first, where the index is not new.

    space, reference: of an index made before. gemini_key: the user's own argument.
    Raises RemoteEncoderError without a key or a network, IndexStateError for an index of another model.
    """
    known_dim = _dim_of(space) if space is not None else None if reference is None else reference.vectors.shape[1]
    prompts = (config.passage_prompt or "", config.query_prompt or "")
    if space is not None and not same_space(space, space_of(config.text_model, config.text_dim or known_dim or 0, prompts)):
        raise IndexStateError(
            f"this index's text vectors are {space}, and {config.text_model} with these settings gives others. Open it with "
            "what it was made with, move it with rag.migrate(...), or ingest into another folder"
        )
    if config.offline:
        raise RemoteEncoderError(f"{config.text_model} is a service, and Config(offline=True) asks none")
    return RemoteEncoder(config, _service(config, gemini_key), known_dim=known_dim, held_to=reference, totals=totals)


def _service(config: Config, gemini_key: Secret | None) -> Embeddings:
    provider, _, model = config.text_model.partition(":")
    if provider == "gemini":
        key = find_key(GEMINI_KEYS, given=gemini_key)
        if key is None:
            raise RemoteEncoderError(f"{config.text_model} needs a key: set {GEMINI_KEYS[0]}")
        return GeminiEmbeddings(
            model, base_url=config.gemini_base_url, key=key, dim=config.text_dim, timeout_s=config.embeddings_timeout_s
        )
    own = config.embeddings_base_url  # OpenAI's key goes to OpenAI alone
    key = find_key(("OPENAI_API_KEY",) if own is None else ("EMBEDDINGS_API_KEY",))
    if key is None and own is None:
        raise RemoteEncoderError(
            f"{config.text_model} needs a key: set OPENAI_API_KEY, or embeddings_base_url for another server"
        )
    return OpenAIEmbeddings(
        model, base_url=own or OPENAI_URL, key=key, dim=config.text_dim, timeout_s=config.embeddings_timeout_s
    )


def _dim_of(space: str) -> int | None:
    """Numbers of a vector of a service's space; None for another's."""
    parts = space.rpartition("@")[2].split("|")
    number = parts[2].removesuffix("d") if len(parts) > 2 and parts[1] == "remote" else ""
    return int(number) if number.isdecimal() and 0 < int(number) <= 1 << 16 else None


def _cut(text: str) -> str:
    """At most `MAX_TOKENS` of it; a service refuses more, or cuts without a word."""
    if len(text) <= MAX_TOKENS:
        return text or " "
    tokens = to_tokens(text)
    return text if len(tokens) <= MAX_TOKENS else to_text(tokens[:MAX_TOKENS])


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    tokens = 0
    for text in texts:
        size = len(text.encode("utf-8", "surrogatepass")) // 3 + 1
        if batch and (len(batch) == BATCH or tokens + size > BATCH_TOKENS):
            yield batch
            batch, tokens = [], 0
        batch.append(text)
        tokens += size
    if batch:
        yield batch
