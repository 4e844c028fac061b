"""Keys: where they are looked for, and that nothing shows them."""

from __future__ import annotations

import pickle
import sys
import threading

import pytest

from ultrafast_rag.remote import secrets
from ultrafast_rag.remote.secrets import Secret, find_key

NAMES = ("GEMINI_API_KEY", "GOOGLE_API_KEY")


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(secrets, "_found", {})
    monkeypatch.setattr(secrets, "_missed_at", {})


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """Kaggle's module as a notebook there finds it: one secret, an error of its own for any other."""
    (tmp_path / "kaggle_secrets.py").write_text(
        "asked = []\n"
        "class BackendError(Exception): pass\n"
        "class UserSecretsClient:\n"
        "    def get_secret(self, name):\n"
        "        asked.append(name)\n"
        "        if name != 'GOOGLE_API_KEY': raise BackendError('no such secret')\n"
        "        return 'from-kaggle'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("kaggle_secrets", None)


def test_the_argument_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "from-env")
    assert find_key(given=" mine ").reveal() == "mine"
    found = find_key()
    assert (found.reveal(), found.origin) == ("from-env", "environment variable GEMINI_API_KEY")
    assert find_key(given=found) is found


def test_names_are_tried_in_order_and_blanks_do_not_count(monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "  ")
    monkeypatch.setenv("GOOGLE_API_KEY", "second")
    assert find_key().reveal() == "second"


def test_nothing_found_is_none():
    assert find_key() is None


def test_a_kaggle_secret_is_found_and_asked_for_once(kaggle):
    assert find_key().origin == "Kaggle secret GOOGLE_API_KEY"
    assert find_key().reveal() == "from-kaggle"
    assert sys.modules["kaggle_secrets"].asked == ["GEMINI_API_KEY", "GOOGLE_API_KEY"]


def test_a_secret_that_is_added_later_is_found(kaggle, monkeypatch):
    store = __import__("kaggle_secrets")
    real, store.UserSecretsClient.get_secret = store.UserSecretsClient.get_secret, lambda self, name: ""
    moments = iter((100.0, 100.0, 100.0 + secrets.MISS_S / 2, 101.0 + secrets.MISS_S, 102.0 + secrets.MISS_S))
    monkeypatch.setattr(secrets.time, "monotonic", lambda: next(moments))
    assert find_key() is None
    store.UserSecretsClient.get_secret = real
    assert find_key() is None  # asked a moment ago: a loop of questions does not storm the front end
    assert find_key().reveal() == "from-kaggle"


def test_a_platform_secret_once_found_serves_every_thread(kaggle):
    find_key()
    found = []
    thread = threading.Thread(target=lambda: found.append(find_key()))
    thread.start()
    thread.join()
    assert found[0].reveal() == "from-kaggle"


def test_platform_stores_are_left_alone_off_the_main_thread(kaggle):
    found = []
    thread = threading.Thread(target=lambda: found.append(find_key()))
    thread.start()
    thread.join()
    assert found == [None]


def test_nothing_shows_a_secret():
    secret = Secret("AIza-value", "the argument")
    shown = f"{secret} {secret!r} {[secret]} {secret.__repr__()}"
    assert "AIza" not in shown
    assert "the argument" in shown
    assert secret.scrub("bad key AIza-value!") == "bad key [key]!"
    with pytest.raises(TypeError, match="not written"):
        pickle.dumps(secret)
    assert not hasattr(secret, "__dict__")
