"""Files and folders as a user names them -> what there is to read, what is unchanged, what cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ultrafast_rag.errors import ConfigError, ExtractionError
from ultrafast_rag.ports import DocumentWriter
from ultrafast_rag.remote.address import is_address, stored_name

PathLike = str | os.PathLike[str]
Discover = Callable[[Sequence[PathLike]], Sequence[tuple[Path, str]]]
MediaType = Callable[[Path], str]
Fetch = Callable[[str], Path]


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read. name: how the index and its citations call it."""

    path: Path
    name: str
    size: int
    mtime_ns: int
    media_type: str


@dataclass(frozen=True, slots=True)
class Found:
    """unchanged: files the index holds already, told by size and time. failed: (path, why)."""

    todo: tuple[Source, ...]
    unchanged: int
    failed: tuple[tuple[str, str], ...]


def check_sources(sources: Sequence[object]) -> None:
    """Raise ConfigError for anything that names no file, folder or address, and for nothing at all."""
    if not sources:
        raise ConfigError("nothing to ingest: pass files or folders, e.g. rag.ingest('paper.pdf', 'photos/')")
    for source in sources:
        if not isinstance(source, str | os.PathLike) or not str(source).strip():
            hint = "; of a list: rag.ingest(*files)" if isinstance(source, list | tuple | set) else ""
            raise ConfigError(f"a source is a file, a folder or an https address, not {source!r:.80}{hint}")


def find_sources(
    store: DocumentWriter, sources: Sequence[PathLike], *, discover: Discover, media_type: MediaType, fetch: Fetch | None = None
) -> Found:
    """Look at every file once, without opening it; the index's own folder is passed over. Addresses are fetched.

    discover: which files such names mean, each with "" or why it cannot be read. fetch: an address -> the file it names;
    without it addresses fail.
    """
    todo: list[Source] = []
    failed: list[tuple[str, str]] = []
    own = store.folder.resolve()
    addresses = [str(source) for source in sources if is_address(source)]
    for address in dict.fromkeys(addresses):
        name = stored_name(address)
        try:
            if fetch is None:
                raise ExtractionError("addresses are not fetched here; download the file and ingest that")
            path = fetch(address)
            stat = path.stat()
            todo.append(Source(path, name, stat.st_size, stat.st_mtime_ns, media_type(path)))
        except ExtractionError as error:
            failed.append((name, _printable(str(error))))
    found = discover([source for source in sources if source not in addresses])
    real = [os.path.realpath(path) for path, bad in found if not bad]
    failed += [(_printable(str(path)), _printable(bad)) for path, bad in found if bad]
    known = store.documents_by_stat(real)
    unchanged = 0
    for name in real:
        path = Path(name)
        try:
            if own not in path.parents:
                stat = path.stat()
                if known.get(name) == (stat.st_size, stat.st_mtime_ns):
                    unchanged += 1
                else:
                    todo.append(Source(path, name, stat.st_size, stat.st_mtime_ns, media_type(path)))
        except OSError as error:
            failed.append((name, f"cannot be read: {error.strerror or error}"))
    return Found(tuple(todo), unchanged, tuple(failed))


def _printable(text: str) -> str:
    """Text that can be stored and shown: bytes of a name that are no UTF-8, and null characters, as escapes."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
