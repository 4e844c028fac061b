"""One writer per index, across processes: an operating-system lock on a small file.

The system releases it when its holder dies, so no stale lock outlives a killed session. A forked
child closes its copy at once: a worker that survives its parent must not keep the index locked.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from pathlib import Path

from ultrafast_rag.errors import IndexLockedError, StorageError
from ultrafast_rag.files import open_inside

_HELD: weakref.WeakSet[WriterLock] = weakref.WeakSet()


class WriterLock:
    """An exclusive lock on a file of `folder`; `acquire` never waits."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._fd is not None

    def acquire(self) -> None:
        """Take the lock, or raise IndexLockedError naming the process that holds it."""
        if self._fd is not None:
            return
        try:
            fd = open_inside(self.folder, self.name, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise StorageError(f"{self.folder} cannot be written: {error.strerror}. Open a copy on another disk.") from error
        try:
            _lock(fd)
        except OSError as error:
            holder = os.pread(fd, 32, 1).decode("ascii", "replace").strip() if hasattr(os, "pread") else ""
            os.close(fd)
            who = f"process {holder}" if holder.isdigit() else "another process"
            raise IndexLockedError(
                f"{who} is writing to {self.folder}. Searching still works; to write, close the other one first "
                "(in a notebook: rag.close(), or restart the other kernel)."
            ) from error
        with contextlib.suppress(OSError):  # the number is a courtesy: a full disk must not stop a delete
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
            os.write(fd, f" {os.getpid()}\n".encode())
        self._fd = fd
        _HELD.add(self)

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        _HELD.discard(self)
        os.close(fd)

    def _forget_in_child(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _lock(fd: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _release_in_child() -> None:
    for lock in list(_HELD):
        lock._forget_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
