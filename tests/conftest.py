"""One cache for the whole run, so that an engine is converted once; no network beyond this machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session", autouse=True)
def _shared_cache(tmp_path_factory):
    """UFR_CACHE_DIR as given (a CI that keeps it between runs), else a folder of this run, for all its processes."""
    if "UFR_CACHE_DIR" not in os.environ:
        temporary = tmp_path_factory.getbasetemp()
        folder = (temporary.parent if "PYTEST_XDIST_WORKER" in os.environ else temporary) / "cache"
        folder.mkdir(exist_ok=True)
        os.environ["UFR_CACHE_DIR"] = str(folder)
    return Path(os.environ["UFR_CACHE_DIR"])


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Anything but loopback is an error, so that a test that phones home fails here."""
    connect = socket.socket.connect

    def guarded(self, address):
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in ("localhost", "127.0.0.1", "::1"):
            raise OSError(f"tests must not reach {host}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def service():
    """A service that encodes, on loopback."""
    from tests.models.embedding_server import EmbeddingServer

    with EmbeddingServer() as running:
        yield running


@pytest.fixture
def public_data():
    """The folder of public inputs, or a skip that says why."""
    folder = os.environ.get("UFR_TEST_DATA")
    if not folder:
        pytest.skip("UFR_TEST_DATA does not name the folder of public inputs")
    return Path(folder)
