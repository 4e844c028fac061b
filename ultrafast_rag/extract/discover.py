"""Which files a person means by names of files and folders; none of them is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ultrafast_rag.extract.detect import MEDIA_SUFFIXES

_SIDECARS = {".srt", ".vtt"}
_NOISE = {"__pycache__", "node_modules", "thumbs.db", "desktop.ini", "__macosx", "lost+found"}
_NOISE_SUFFIXES = {".pyc", ".pyo", ".tmp", ".part", ".crdownload", ".swp", ".lock"}


def discover(sources: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]) -> list[tuple[Path, str]]:
    """Every file the sources mean, folders walked in sorted order, each once: (path, "" or why it cannot be read).

    Hidden files, build leftovers, and transcripts beside their recording are passed over inside folders, but not
    when named. Never raises: a missing path, an empty folder, a closed door or a name that is not UTF-8 is an entry with
    its reason.
    """
    named = [sources] if isinstance(sources, (str, os.PathLike)) else sources
    found: dict[str, tuple[Path, str]] = {}
    for source in named:
        bad_name = _unusable_name(str(source))
        for path, bad in [(Path(source), bad_name)] if bad_name else _expand(Path(source)):
            reason = bad or _unusable_name(os.path.realpath(path))
            found.setdefault(os.path.realpath(path) if not reason else str(path), (path, reason))
    return list(found.values())


def _unusable_name(path: str) -> str:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    return ""


def _expand(source: Path) -> Iterator[tuple[Path, str]]:
    try:
        source = source.expanduser()
        if source.is_dir():
            files = list(_walk(source))
            yield from files or [(source, f"folder {source} holds no file to read")]
        elif source.is_file():
            yield source, "" if os.access(source, os.R_OK) else f"no permission to read {source}"
        else:
            source.stat()  # says why: not there, or a loop of links
            yield source, f"{source} is neither a file nor a folder"
    except FileNotFoundError:
        yield source, f"{source} does not exist"
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links; a null byte; "~nobody"
        yield source, f"cannot be opened: {getattr(error, 'strerror', None) or error}"


def _walk(root: Path) -> Iterator[tuple[Path, str]]:
    """Files below a folder in sorted order, each folder once, however deep."""
    seen: set[tuple[int, int]] = set()
    waiting: list[tuple[Path, str]] = [(root, "")]  # the next one last
    while waiting:
        path, reason = waiting.pop()
        try:
            if reason or not path.is_dir():
                yield path, reason or ("" if os.access(path, os.R_OK) else f"no permission to read {path}")
                continue
            status = path.stat()
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                waiting += reversed(list(_wanted(path)))
        except PermissionError:
            yield path, f"no permission to read {path}"
        except OSError as error:
            yield path, f"cannot be opened: {error.strerror or error}"


def _wanted(folder: Path) -> Iterator[tuple[Path, str]]:
    """The folder's entries worth a look: (path, "" or why it cannot be read). Raises OSError."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    media = {Path(e.name).stem for e in entries if Path(e.name).suffix.lower() in MEDIA_SUFFIXES}
    for entry in entries:
        path = Path(entry.path)
        suffix = path.suffix.lower()
        if entry.name.startswith((".", "~$")) or entry.name.lower() in _NOISE or suffix in _NOISE_SUFFIXES:
            continue
        if suffix in _SIDECARS and (path.stem in media or Path(path.stem).stem in media):
            continue
        try:
            if entry.is_dir() or entry.is_file():
                yield path, ""
            elif entry.is_symlink():
                yield path, f"{path} is a link to nothing"
        except OSError as error:  # a link to itself
            yield path, f"cannot be opened: {error.strerror or error}"
