"""Whether an index was written on this machine: only then do its paths mean this machine's files.

A folder from a stranger may name any file of this machine, with its size and time. So the first ingest leaves in an
index a code made of its name and a secret of this machine. Without it the paths are those of another machine: nothing is
shown from them, and the next ingest forgets them, so that every file is known by its content before it counts as read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from functools import lru_cache
from pathlib import Path

from ultrafast_rag.errors import IndexCorruptError
from ultrafast_rag.files import open_inside, read_bytes, write_all
from ultrafast_rag.index.store import HOME, Store

_SECRET = "machine.key"
_SECRET_BYTES = 32  # as long as what HMAC-SHA-256 gives (RFC 2104)


def is_home(store: Store, cache_dir: Path) -> bool:
    """Whether this machine ingested what the index names."""
    return hmac.compare_digest(str(store.get_meta(HOME, "")).encode("utf-8", "replace"), _code(store, cache_dir).encode())


def settle(store: Store, cache_dir: Path) -> None:
    """Before an ingest: an index from elsewhere forgets its places and is this machine's from now on."""
    if not is_home(store, cache_dir):
        store.forget_places()
        store.set_meta(HOME, _code(store, cache_dir))


def _code(store: Store, cache_dir: Path) -> str:
    return hmac.new(_secret(cache_dir), store.uid.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


@lru_cache(maxsize=8)
def _secret(cache_dir: Path) -> bytes:
    """This machine's secret, made on first use; for this process alone where the disk refuses."""
    folder = cache_dir.expanduser().absolute()
    made = secrets.token_bytes(_SECRET_BYTES)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = open_inside(folder, _SECRET, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            os.chmod(folder / _SECRET, 0o600)
            write_all(fd, made)
        finally:
            os.close(fd)
    except FileExistsError:
        known = read_bytes(folder, _SECRET, _SECRET_BYTES)
        return known if known is not None and len(known) == _SECRET_BYTES else made
    except (OSError, IndexCorruptError):
        return made
    return made
