"""Every error this package raises on purpose.

UltraFastRAGError
  ConfigError            an impossible or contradictory setting, raised before work starts
  MissingExtraError      a package is missing; names it and the exact pip command
  WeightsError           model files are not here, or are not what their hash says
  ExtractionError        a file or page could not be read: .path, .page
    UnsupportedError       not a type we read
    EncryptedError         needs a password
    CorruptError           broken, or over a limit of time, memory or size
  EncodingError          the encoder failed on the device
    DeviceMemoryError      out of memory even at a batch of one
    RemoteEncoderError     the embedding service cannot be asked: unreachable, wrong key, over quota, unusable reply
  IndexStateError        the index on disk cannot serve this: other encoder, read-only, closed
    IndexLockedError       another process is writing to it
    IndexCorruptError      stored data fails its checksum
    VectorStoreError       the vector store cannot be asked: unreachable, wrong key, too slow; .transient
  StorageError           the disk refused: full, read-only, gone
  GenerationError        no answer from the generator
    RateLimitedError       .retry_after_s; .per_day when the day's quota is gone
    RefusedError           the model declined
    BadResponseError       the reply could not be used
    TimedOutError          no reply in time
    UnavailableError       the provider is down or rejects us; .transient, .retry_after_s
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType


class UltraFastRAGError(Exception):
    """Base of all errors of this package."""


class ConfigError(UltraFastRAGError, ValueError):
    """An impossible or contradictory setting."""


class MissingExtraError(UltraFastRAGError, ImportError):
    """A package that this feature needs is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(
            f"{package} is not installed. Run: pip install 'ultrafast_rag[{extra}]'"
            if extra
            else f"{package} is not installed. Run: pip install {package}"
        )


class WeightsError(UltraFastRAGError):
    """Model files are not here, or are not what their hash says."""


class ExtractionError(UltraFastRAGError):
    """A file, or one page of it, could not be read."""

    def __init__(self, message: str, *, path: str = "", page: int | None = None) -> None:
        self.path, self.page = path, page
        super().__init__(message)


class UnsupportedError(ExtractionError):
    """Not a type we read."""


class EncryptedError(ExtractionError):
    """Needs a password we do not have."""


class CorruptError(ExtractionError):
    """Broken, or over a limit of time, memory or size."""


class EncodingError(UltraFastRAGError):
    """The encoder failed on the device."""


class DeviceMemoryError(EncodingError):
    """Out of device memory even at a batch of one."""


class RemoteEncoderError(EncodingError):
    """The embedding service that text_model names cannot be asked, or gives what cannot be used."""


class IndexStateError(UltraFastRAGError):
    """The index on disk cannot serve this request."""


class IndexLockedError(IndexStateError):
    """Another process is writing to this index."""


class IndexCorruptError(IndexStateError):
    """Stored data fails its checksum."""


class VectorStoreError(IndexStateError):
    """A vector store cannot be asked; `transient` is False when another try would fail the same way."""

    def __init__(self, message: str, *, transient: bool = True) -> None:
        self.transient = transient
        super().__init__(message)


class StorageError(UltraFastRAGError, OSError):
    """The disk refused: full, read-only or gone."""


class GenerationError(UltraFastRAGError):
    """No answer from the generator."""


class RateLimitedError(GenerationError):
    """Too many requests; retry_after_s where the provider said it, per_day when the day is spent."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, per_day: bool = False) -> None:
        self.retry_after_s, self.per_day = retry_after_s, per_day
        super().__init__(message)


class RefusedError(GenerationError):
    """The model declined to answer."""


class BadResponseError(GenerationError):
    """The reply could not be used."""


class TimedOutError(GenerationError):
    """No reply in time."""


class UnavailableError(GenerationError):
    """The provider cannot be used now; `transient` is False when another try would fail the same way."""

    def __init__(self, message: str, *, transient: bool = True, retry_after_s: float | None = None) -> None:
        self.transient, self.retry_after_s = transient, retry_after_s
        super().__init__(message)


def require(module: str, *, package: str = "", extra: str = "") -> ModuleType:
    """Import an optional module, or raise MissingExtraError with the pip command to run."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(package or module, extra) from error


def did_you_mean(word: str, names: Sequence[str]) -> str:
    """The nearest of `names` as the end of a message ("; did you mean 'sentence'?"), else all of them."""
    import difflib

    near = difflib.get_close_matches(word.lower(), names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(names)}"
