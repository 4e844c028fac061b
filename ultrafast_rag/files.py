"""Files: opened inside a folder and nowhere else, never through a link, written whole or not at all; their sha256.

A folder may come from a stranger. So a name is a plain name, what it opens is a regular file that has no other
name to be written through, and nothing is emptied before that is known. Manifests carry their own checksum.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ultrafast_rag.errors import ConfigError, IndexCorruptError

_PIECE = 1 << 20  # bytes read at once; chosen
_MANIFEST_BYTES = 4_000_000  # a segment's entry takes 1 kB, an index has some ten
_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_LINK_ERRORS = {errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR}


def path_of(given: object, what: str) -> Path:
    """A path as a user gives it, "~" resolved. ConfigError, which names `what` it is to be, for anything else."""
    if not isinstance(given, str | os.PathLike) or not str(given).strip():
        raise ConfigError(f"{what} is a path, not {given!r:.80}")
    return Path(given).expanduser()


def open_inside(folder: Path, name: str, flags: int) -> int:
    """Descriptor of a regular file directly in `folder`; the caller closes it.

    IndexCorruptError for a name with a path in it, a link, a pipe, a device, or, for writing, a file that has
    a second name elsewhere; OSError as the system says it.
    """
    path = folder / name
    if path.parent != folder or path.name != name or name in ("", ".", ".."):
        raise IndexCorruptError(f"{name!r} is no file name of an index; {folder} was not made by this package or is damaged")
    try:
        fd = os.open(path, flags | _SAFE, 0o644)
    except OSError as error:
        if error.errno in _LINK_ERRORS:
            raise _no_plain_file(path) from error
        raise
    status = os.fstat(fd)
    written = flags & (os.O_WRONLY | os.O_RDWR)
    if not stat.S_ISREG(status.st_mode) or (written and status.st_nlink > 1):
        os.close(fd)
        raise _no_plain_file(path)
    return fd


def refuse_links(folder: Path, *names: str) -> None:
    """IndexCorruptError when one of these is there and is not a plain file: for files that a library opens by itself."""
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG((folder / name).lstat().st_mode):
                raise _no_plain_file(folder / name)


def _no_plain_file(path: Path) -> IndexCorruptError:
    return IndexCorruptError(
        f"{path} is a link, or no plain file of this folder alone; nothing is read or written through it. "
        "Copy the index with its links resolved if it is yours."
    )


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write every byte; OSError when the disk refuses."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(fd, view) :]


def write_whole(folder: Path, name: str, pieces: Iterable[bytes | memoryview]) -> None:
    """A file under its name once all of it is on the disk; OSError leaves the old one and no other."""
    partial = f"{name}.{os.getpid()}-{threading.get_ident()}.partial"
    with contextlib.suppress(FileNotFoundError):
        (folder / partial).unlink()
    fd = open_inside(folder, partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        try:
            for piece in pieces:
                write_all(fd, piece)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(folder / partial, folder / name)
    except BaseException:  # an interrupt too leaves no partial file
        with contextlib.suppress(OSError):
            (folder / partial).unlink()
        raise
    sync(folder)


def read_bytes(folder: Path, name: str, most_bytes: int) -> bytes | None:
    """A whole file, or None when it is missing, larger, a link or unreadable: for what can be made again."""
    try:
        fd = open_inside(folder, name, os.O_RDONLY)
    except (OSError, IndexCorruptError):
        return None
    with open(fd, "rb") as file:
        with contextlib.suppress(OSError):
            return file.read() if os.fstat(fd).st_size <= most_bytes else None
    return None


def sha256_of(path: Path, *, before_piece: Callable[[], None] = lambda: None) -> str:
    """Of a file's bytes, in hex, read by the megabyte; `before_piece` may raise to stop it. OSError as the system says it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            before_piece()
            digest.update(piece)
    return digest.hexdigest()


def write_manifest(folder: Path, name: str, facts: dict[str, Any]) -> None:
    """A derived file's facts as JSON with a checksum over them."""
    body = json.dumps(facts, sort_keys=True)
    sealed = {"sum": hashlib.sha256(body.encode()).hexdigest(), "facts": facts}
    write_whole(folder, name, [json.dumps(sealed, sort_keys=True, indent=1).encode()])


def read_manifest(folder: Path, name: str) -> dict[str, Any] | None:
    """What `write_manifest` wrote, or None when it is missing, altered, or another version's."""
    content = read_bytes(folder, name, _MANIFEST_BYTES)
    try:
        sealed = json.loads(content or b"null")
        facts: dict[str, Any] = sealed["facts"]
        whole = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest() == sealed["sum"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return facts if whole and isinstance(facts, dict) else None


def sync(path: Path) -> None:
    """Make a file's bytes, or the new names in a folder, durable; a no-op where folders cannot be opened (Windows)."""
    if os.name == "nt" and path.is_dir():
        return
    fd = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Memory:
    """Small findings by key in one JSON file; each carries its own checksum, and one that is not as written is unknown."""

    _writing = threading.Lock()  # two findings of one process at once: neither is lost

    def __init__(self, path: Path) -> None:
        self._path = path

    def recall(self, key: str) -> Any:
        """The value kept under `key`, or None."""
        entry = self._read().get(key)
        if not isinstance(entry, dict) or entry.get("sha256") != _checksum(entry.get("value")):
            return None
        return entry["value"]

    def remember(self, key: str, value: Any) -> None:
        """Keep a JSON value. A folder that cannot be written only costs finding it again."""
        with self._writing, contextlib.suppress(OSError):
            known = {**self._read(), key: {"value": value, "sha256": _checksum(value)}}
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._path.parent, self._path.name, [json.dumps(known, indent=1).encode()])

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # nothing found yet, or a torn file
            return {}
        return known if isinstance(known, dict) else {}


def _checksum(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
