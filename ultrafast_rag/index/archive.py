"""An index archive (once called capsule): an index as one file, a plain tar with a manifest of sizes and sha256 sums.

It may come from a stranger. So it is read header by header, and only what the manifest names, in the names that an
index has, at the size it says, reaches a folder of its own, which takes its place once all of it was checked: no link, no
sparse file, no path. FAISS and BM25 files stay out; they are derived and are made again. What an archive says of
places (paths, file times) is forgotten on restoring: files of that name here are not its sources until they were ingested.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ultrafast_rag.config import IDENTITY
from ultrafast_rag.errors import ConfigError, IndexCorruptError, IndexStateError, StorageError
from ultrafast_rag.files import sha256_of
from ultrafast_rag.index import records, rows, upkeep
from ultrafast_rag.index.database import DATABASE, FORMAT, plain_errors
from ultrafast_rag.index.store import HOME, Store

MANIFEST = "manifest.json"
_ARCHIVE_FORMAT = 2  # 1 stated no sizes
_MANIFEST_BYTES = 1_000_000  # chosen: far above what some dozens of entries take
_HEADER_BYTES = 65_536  # of a pax header, as version 0.1.0 wrote one a file
_PIECE = 1 << 20  # bytes copied at once
_PATH = re.compile(r"(?P<kind>[a-z]+:)?(?P<path>/|[A-Za-z]:[\\/]|\\\\).*", re.S)


class _File(NamedTuple):
    """What the manifest says of a file; size_bytes is None in an archive of format 1."""

    sha256: str
    size_bytes: int | None


def export_archive(store: Store, target: Path, *, paths: bool = False) -> Path:
    """Write a consistent copy of the index to `target`, a .tar; the file appears whole or not at all.

    paths: False keeps of a source's path what tells it from the others, and nothing of this machine; True keeps it.
    StorageError when the disk refuses, ConfigError for a folder.
    """
    target = target.expanduser().resolve()
    if target.is_dir():
        raise ConfigError(f"{target} is a folder; name the .tar to write, e.g. {target / 'index.tar'}")
    with plain_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".archive-") as scratch:
            snapshot, partial = Path(scratch, "index"), Path(scratch, "archive.tar")
            store.snapshot(snapshot)
            _prepare(snapshot, paths=paths)
            files = sorted(path for path in snapshot.iterdir())
            sums = {path.name: {"sha256": sha256_of(path), "size_bytes": path.stat().st_size} for path in files}
            with partial.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
                manifest = json.dumps({"format": _ARCHIVE_FORMAT, "files": sums}, indent=1).encode()
                _add(tar, MANIFEST, len(manifest), io.BytesIO(manifest))
                for path in files:
                    with path.open("rb") as content:
                        _add(tar, path.name, path.stat().st_size, content)
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(target)
    return target


def _add(tar: tarfile.TarFile, name: str, size_bytes: int, content: Any) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size_bytes, 0o600
    tar.addfile(entry, content)


def _prepare(snapshot: Path, *, paths: bool) -> None:
    """Bring a copy to the present format; without paths, forget the places, and what SQLite still holds of deleted rows."""
    with contextlib.closing(sqlite3.connect(snapshot / DATABASE, isolation_level=None)) as copy:
        copy.execute("BEGIN")
        if copy.execute("SELECT format FROM state").fetchone()[0] < FORMAT:
            upkeep.upgrade(copy, snapshot)
        records.drop_meta(copy, HOME)
        if not paths:
            sources = dict(map(rows.check_document, copy.execute(rows.select_documents(FORMAT)).fetchall()))
            short = _short_names(list(sources.values()))
            for key, source in sources.items():
                copy.execute("UPDATE documents SET source = ?, size = 0, mtime_ns = 0 WHERE key = ?", (short[source], key))
                rows.seal_document(copy, key)
            kept = copy.execute("SELECT key, value, sum FROM meta WHERE key = 'config'").fetchone()
            settings = rows.to_json_value(kept, "the settings of the index") if kept else None
            if isinstance(settings, dict):
                identity = {name: value for name, value in settings.items() if name in IDENTITY}
                records.set_meta(copy, "config", json.dumps(identity))
            elif kept:
                raise rows.damaged("what the index keeps as its settings", settings)
        copy.execute("COMMIT")
        copy.execute("VACUUM")
    with (snapshot / DATABASE).open("rb") as written:
        os.fsync(written.fileno())


def _short_names(sources: Sequence[str]) -> dict[str, str]:
    """Each path -> its last parts, as many as tell it from the others; what is no path stays."""
    split = {}
    for source in sources:
        found = _PATH.fullmatch(source)
        kind, path = (found["kind"] or "", source[found.start("path") :]) if found else ("", "")
        split[source] = (kind, [part for part in re.split(r"[\\/]", path) if part])
    short: dict[str, str] = {}
    for depth in range(1, 1 + max((len(parts) for _, parts in split.values()), default=0)):
        names = {
            source: kind + "/".join(parts[-depth:]) for source, (kind, parts) in split.items() if parts and source not in short
        }
        used = Counter([*names.values(), *short.values()])
        short |= {source: name for source, name in names.items() if used[name] == 1 or len(split[source][1]) <= depth}
    return {source: short.get(source, source) for source in sources}


def restore_archive(archive: Path, folder: Path) -> Path:
    """Unpack an archive into a new folder; nothing is left when that fails.

    IndexCorruptError when it is not whole or not ours, IndexStateError when a later version wrote it, ConfigError when
    it cannot be opened or the folder is in use, StorageError when the disk refuses.
    """
    folder = folder.expanduser().resolve()
    try:
        file = archive.expanduser().open("rb")
    except OSError as error:
        raise ConfigError(f"the archive {archive} cannot be read: {error.strerror or error}") from error
    with file, plain_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is not empty; restore into a new folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".restore-"))
        try:
            _unpack(file, scratch, archive)
            with Store.open(scratch) as store:
                store.forget_places()
                for space in store.spaces():
                    store.vectors(space)
            if folder.exists():
                folder.rmdir()
            scratch.replace(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _unpack(file: BinaryIO, folder: Path, archive: Path) -> None:
    """Every file the manifest names, its size known before and its sum compared after; anything else is refused."""
    size = os.fstat(file.fileno()).st_size
    entries = _entries(file, archive)
    first = next(entries, None)
    if first is None or first.name != MANIFEST or not 0 < first.size <= _MANIFEST_BYTES:
        raise IndexCorruptError(f"{archive} is not an index archive of this package: it does not start with {MANIFEST}")
    files = _manifest(file.read(first.size), archive)
    file.seek(-first.size % tarfile.BLOCKSIZE, os.SEEK_CUR)
    total = sum(known.size_bytes or 0 for known in files.values())
    if total > size:
        raise IndexCorruptError(f"{archive} claims to hold {total} bytes, more than the file itself. {_REFUSED}")
    if shutil.disk_usage(folder).free < total:
        raise StorageError(f"{archive} needs {total / 1e6:.0f} MB in {folder.parent}, which are not free. {_REFUSED}")
    for entry in entries:
        known = files.pop(entry.name, None)
        if known is None or known.size_bytes not in (None, entry.size):
            raise IndexCorruptError(f"{archive} holds {entry.name[:80]!r}, which its manifest does not name so. {_REFUSED}")
        if _copy(file, folder / entry.name, entry.size) != known.sha256:
            raise IndexCorruptError(f"{entry.name} in {archive} is damaged. {_REFUSED} Export the archive again.")
        file.seek(-entry.size % tarfile.BLOCKSIZE, os.SEEK_CUR)
    if files:
        raise IndexCorruptError(f"{archive} is cut short: {', '.join(sorted(files))} missing. {_REFUSED}")


def _entries(file: BinaryIO, archive: Path) -> Iterator[tarfile.TarInfo]:
    """Plain files of a tar, one header at a time: the caller reads or passes over each one's bytes before the next."""
    while block := file.read(tarfile.BLOCKSIZE):
        if not any(block):
            return
        try:
            entry = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            raise IndexCorruptError(f"{archive} is no tar file, or damaged ({error}). {_REFUSED}") from error
        if entry.type == tarfile.XHDTYPE and 0 <= entry.size <= _HEADER_BYTES:
            file.seek(entry.size + -entry.size % tarfile.BLOCKSIZE, os.SEEK_CUR)
            continue
        if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.size < 0:
            raise IndexCorruptError(f"{archive} holds {entry.name[:80]!r}, which is no plain file. {_REFUSED}")
        yield entry


def _manifest(content: bytes, archive: Path) -> dict[str, _File]:
    """The files an archive holds; each name is one that an index's file has."""
    try:
        manifest = json.loads(content)
        version, listed = manifest["format"], manifest["files"]
        if type(version) is int and version > _ARCHIVE_FORMAT:
            raise IndexStateError(f"{archive} was written by a later version. Run: pip install -U ultrafast_rag")
        files = {
            name: _File(known, None) if version == 1 else _File(known["sha256"], known["size_bytes"])
            for name, known in listed.items()
        }
        fits = version in (1, 2) and DATABASE in files and len(content) <= _MANIFEST_BYTES
        fits = fits and all(name == DATABASE or rows.is_vector_file(name) for name in files)
        fits = fits and all(type(known.sha256) is str and re.fullmatch(r"[0-9a-f]{64}", known.sha256) for known in files.values())
        sizes = [known.size_bytes for known in files.values() if version != 1]
        fits = fits and all(type(size) is int and 0 <= size < 2**50 for size in sizes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IndexCorruptError(f"the manifest of {archive} cannot be read ({type(error).__name__}). {_REFUSED}") from error
    if not fits:
        raise IndexCorruptError(f"the manifest of {archive} is not one that this package writes. {_REFUSED}")
    return files


_REFUSED = "Nothing was restored."


def _copy(file: BinaryIO, target: Path, size_bytes: int) -> str:
    """Write so many bytes of `file` to `target`; returns their sha256, which a file cut short does not have."""
    digest, left = hashlib.sha256(), size_bytes
    with target.open("xb") as out:
        while left and (piece := file.read(min(left, _PIECE))):
            out.write(piece)
            digest.update(piece)
            left -= len(piece)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()
