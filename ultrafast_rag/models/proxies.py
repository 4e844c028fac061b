"""Stand-ins for pooled models, one per port: every call runs under a lease, so that a model may be evicted in between.

What names a model (fingerprint, space, sizes) is copied when it is first loaded, and is there without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Generic, TypeVar

from ultrafast_rag.models.pool import ModelPool
from ultrafast_rag.models.text.encoder import SentenceEncoder
from ultrafast_rag.models.text.reference import Reference
from ultrafast_rag.ports import ImageEncoder, Reader, Reranker, Transcriber
from ultrafast_rag.types import Reading, Segment, Vectors

if TYPE_CHECKING:
    from ultrafast_rag.models.text.ensemble import EnsembleEncoder, References
    from ultrafast_rag.models.text.remote import RemoteEncoder

M = TypeVar("M", "SentenceEncoder | RemoteEncoder | EnsembleEncoder", ImageEncoder, Transcriber, Reranker, Reader)


class ModelProxy(Generic[M]):
    """Stands for the model that `pool` knows by `name`; loads it now, to copy what names it."""

    def __init__(self, pool: ModelPool, name: str) -> None:
        self._pool, self._name = pool, name
        with self._leased() as model:
            self.fingerprint = model.fingerprint
            self._copy(model)

    def _copy(self, model: M) -> None:
        """Keep what else the port names without a call."""

    def _leased(self) -> AbstractContextManager[M]:
        return self._pool.lease(self._name)

    def close(self) -> None:
        """Let the model go; it is loaded again when next used."""
        self._pool.release(self._name)


class TextProxy(ModelProxy["SentenceEncoder | RemoteEncoder | EnsembleEncoder"]):
    """ports.TextEncoder, and what `doctor()` and a new index ask of it."""

    def _copy(self, model: SentenceEncoder | RemoteEncoder | EnsembleEncoder) -> None:
        self.space, self.dim, self.max_tokens = model.space, model.dim, model.max_tokens
        self.vocabulary_size, self.takes_tokens = model.vocabulary_size, model.takes_tokens

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """As the port says."""
        with self._leased() as model:
            return model.tokenize(texts)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """As the port says."""
        with self._leased() as model:
            return model.encode(texts)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """As the port says."""
        with self._leased() as model:
            return model.encode_queries(texts)

    def encode_tokens(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
        """As the port says."""
        with self._leased() as model:
            return model.encode_tokens(token_ids)

    def known_share(self, text: str) -> float:
        """As the port says."""
        with self._leased() as model:
            return model.known_share(text)

    def report(self) -> list[tuple[str, ...]]:
        """See `SentenceEncoder.report`."""
        with self._leased() as model:
            return model.report()

    def reference(self) -> Reference | References | None:
        """The vectors that this space's engines are held to."""
        with self._leased() as model:
            return model.reference()


class ImageProxy(ModelProxy[ImageEncoder]):
    """ports.ImageEncoder."""

    def _copy(self, model: ImageEncoder) -> None:
        self.space, self.dim = model.space, model.dim

    def encode_images(self, images: Sequence[bytes]) -> Vectors:
        """As the port says."""
        with self._leased() as model:
            return model.encode_images(images)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """As the port says."""
        with self._leased() as model:
            return model.encode_texts(texts)


class SpeechProxy(ModelProxy[Transcriber]):
    """ports.Transcriber."""

    def _copy(self, model: Transcriber) -> None:
        self.windows = model.windows

    def transcribe_many(self, sounds: Sequence[bytes], *, language: str | None = None) -> list[list[Segment]]:
        """As the port says."""
        with self._leased() as model:
            return model.transcribe_many(sounds, language=language)


class RerankProxy(ModelProxy[Reranker]):
    """ports.Reranker."""

    def score(self, question: str, passages: Sequence[str]) -> Sequence[float]:
        """As the port says."""
        with self._leased() as model:
            return model.score(question, passages)


class ReaderProxy(ModelProxy[Reader]):
    """ports.Reader."""

    def reads(self, question: str) -> bool:
        """As the port says."""
        with self._leased() as model:
            return model.reads(question)

    def read(self, question: str, passages: Sequence[tuple[str, str]]) -> list[Reading]:
        """As the port says."""
        with self._leased() as model:
            return model.read(question, passages)
