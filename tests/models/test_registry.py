"""Models by name: two open side by side, one opens once, and what opens ahead is waited for."""

from __future__ import annotations

import threading

import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import EncodingError
from ultrafast_rag.models.registry import Models


class Notes:
    """An index's meta values, in a dictionary."""

    def __init__(self):
        self.kept = {}

    def get_meta(self, name, default=None):
        return self.kept.get(name, default)

    def set_meta(self, name, value):
        self.kept[name] = value


class Model:
    fingerprint, notes, space = "made here", (), "text"
    dim, max_tokens, vocabulary_size, takes_tokens = 4, 8, 16, True

    def __init__(self):
        self.closed = False

    def close(self):
        self.closed = True


@pytest.fixture
def models():
    made = Models(Config(device="cpu"), Notes())
    yield made
    made.close()


def test_the_reader_opens_beside_the_encoder(models, monkeypatch):
    both = threading.Barrier(2, timeout=60)  # broken, and so an error, where one waits for the other to be open

    def opened(self):
        both.wait()
        return Model()

    monkeypatch.setattr(Models, "_open_text", opened)
    monkeypatch.setattr(Models, "_open_reader", opened)
    models.open_reader_ahead()
    models.text()
    assert models.reader() is not None
    assert {use.name: use.loads for use in models.use()} == {"text": 1, "reader": 1}


def test_one_model_opens_once_however_many_ask(models, monkeypatch):
    asked, made = threading.Semaphore(0), []

    def opened(self):
        for _ in range(4):
            assert asked.acquire(timeout=60)  # the others are on their way before this one is done
        made.append(Model())
        return made[-1]

    monkeypatch.setattr(Models, "_open_reader", opened)

    def ask():
        asked.release()
        models.reader()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_closing_waits_for_what_opens_ahead(models, monkeypatch):
    begun, made = threading.Event(), Model()

    def opened(self):
        begun.set()
        return made

    monkeypatch.setattr(Models, "_open_reader", opened)
    models.open_reader_ahead()
    models.close()
    assert begun.is_set()
    assert made.closed


def test_what_fails_ahead_is_said_when_it_is_needed(models, monkeypatch):
    def broken(self):
        raise EncodingError("the reader is broken")

    monkeypatch.setattr(Models, "_open_reader", broken)
    models.open_reader_ahead()
    with pytest.raises(EncodingError, match="the reader is broken"):
        models.reader()
