"""Where an API key comes from, and how it stays unseen.

Argument, then environment, then the notebook platform's own store (Kaggle, Colab). The stores talk
to the notebook's front end and work on the main thread only, so what they gave is remembered. That
they had nothing is remembered for a moment only: a secret may be added at any time.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import NoReturn

GEMINI_KEYS = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
MISS_S = 3.0  # how long "no secret" stands: a loop of questions does not ask the front end each time, a person is slower
_found: dict[tuple[str, ...], Secret] = {}
_missed_at: dict[tuple[str, ...], float] = {}
_log = logging.getLogger("ultrafast_rag")


class Secret:
    """A value that no repr, str, format or pickle shows. origin: where it was found, in words."""

    __slots__ = ("_value", "origin")

    def __init__(self, value: str, origin: str) -> None:
        self._value, self.origin = value, origin

    def reveal(self) -> str:
        """The value, for the one call that needs it."""
        return self._value

    def scrub(self, text: str) -> str:
        """`text` without the value, for error messages that echo a request."""
        return text.replace(self._value, "[key]")

    def __repr__(self) -> str:
        return f"Secret(from {self.origin})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not written to disk or sent to another process")


def find_key(names: Sequence[str] = GEMINI_KEYS, *, given: str | Secret | None = None) -> Secret | None:
    """The first key found, or None. given: the user's own argument, which wins."""
    if isinstance(given, Secret):
        return given
    if given and given.strip():
        return Secret(given.strip(), "the argument")
    for name in names:
        if value := os.environ.get(name, "").strip():
            return Secret(value, f"environment variable {name}")
    return _from_platform(tuple(names))


def _from_platform(names: tuple[str, ...]) -> Secret | None:
    if names in _found:
        return _found[names]
    missed_now = time.monotonic() - _missed_at.get(names, -MISS_S) < MISS_S
    if missed_now or threading.current_thread() is not threading.main_thread():
        return None
    for store, read in (("Kaggle secret", _kaggle), ("Colab secret", _colab)):
        for name in names:
            if value := read(name):
                return _found.setdefault(names, Secret(value, f"{store} {name}"))
    _missed_at[names] = time.monotonic()
    return None


def _kaggle(name: str) -> str:
    try:
        client = importlib.import_module("kaggle_secrets").UserSecretsClient()
    except ImportError:
        return ""
    try:
        return str(client.get_secret(name) or "").strip()
    except Exception as error:  # each platform version raises its own types; no secret is an answer here
        _log.info("Kaggle secret %s was not read: %s", name, type(error).__name__)
        return ""


def _colab(name: str) -> str:
    try:
        userdata = importlib.import_module("google.colab.userdata")
    except ImportError:
        return ""
    try:
        return str(userdata.get(name) or "").strip()
    except Exception as error:  # not granted, not found, front end gone: private exception types
        _log.info("Colab secret %s was not read: %s", name, type(error).__name__)
        return ""
