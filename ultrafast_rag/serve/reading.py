"""What a caller may have read: files below folders that the operator named, and what it uploads.

A name is resolved, links and all, before it is compared, and so is each file of a folder: a link that leads out is
refused. What is outside looks the same whether it is there or not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from ultrafast_rag.errors import ConfigError, StorageError
from ultrafast_rag.extract.discover import discover
from ultrafast_rag.files import write_whole
from ultrafast_rag.remote.address import is_address

_PIECE = 1 << 20  # bytes read at once
_NAME_BYTES = 200  # file systems take 255; writing one whole adds to it
_OUTSIDE = "is not in a folder that this server may read (serve --root DIR names one), and not to be uploaded by path"


class Readable:
    """The roots and the folder of uploads of one server. ConfigError for a root that is no folder."""

    def __init__(self, roots: Sequence[Path], uploads: Path) -> None:
        for root in roots:
            if not root.expanduser().is_dir():
                raise ConfigError(f"--root {root} is no folder; name one that is there")
        self._roots = [os.path.realpath(root.expanduser()) for root in roots]
        self._uploads = Path(os.path.realpath(uploads.expanduser()))
        self._prefixes = [root.rstrip(os.sep) + os.sep for root in (*self._roots, str(self._uploads))]

    def files(self, names: Sequence[str]) -> tuple[list[Path], list[tuple[str, str]]]:
        """Every file that these names mean and that may be read, resolved; and (name, why) of the others."""
        files: list[Path] = []
        refused: list[tuple[str, str]] = []
        for name in names:
            place = self._place(name)
            if place is None:
                refused.append((name, f"{name} {_OUTSIDE}"))
                continue
            for path, why in discover([place]):
                real = os.path.realpath(path)
                if why:
                    refused.append((self.shown(str(path)), self.unplaced(why)))
                elif self._inside(real):
                    files.append(Path(real))
                else:
                    refused.append((self.shown(str(path)), "a link that leads out of the folder"))
        return files, refused

    def _place(self, name: str) -> str | None:
        """The resolved path that a name means, or None where it means nothing that may be read."""
        if is_address(name) or "\0" in name:
            return None
        try:
            places = [os.path.realpath(os.path.join(root, name)) for root in self._roots]
        except (OSError, ValueError):
            return None
        inside = [place for place in places if self._inside(place) or place in self._roots]
        return next((place for place in inside if os.path.lexists(place)), inside[0] if inside else None)

    def _inside(self, real: str) -> bool:
        return any(real.startswith(prefix) for prefix in self._prefixes[:-1])

    def keep(self, name: str, content: BinaryIO) -> Path:
        """An uploaded file, on the disk under the last part of its name; ConfigError for a name that cannot be one."""
        last = name.replace("\\", "/").rsplit("/", 1)[-1].strip()
        usable = last.isprintable() and not last.startswith((".", "~")) and len(last.encode("utf-8", "replace")) <= _NAME_BYTES
        if not last or not usable:
            raise ConfigError("an uploaded file needs a plain name, e.g. curl -F 'files=@paper.pdf'")
        try:
            self._uploads.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._uploads, last, _pieces(content))
        except OSError as error:
            raise StorageError(f"the upload cannot be kept: {error.strerror or error}") from error
        return self._uploads / last

    def shown(self, source: str) -> str:
        """A source as callers see it: as seen from its root, else its last part; addresses as they are."""
        for prefix in self._prefixes:
            if source.startswith(prefix):
                return source[len(prefix) :]
        return source if is_address(source) else source.replace("\\", "/").rsplit("/", 1)[-1]

    def unplaced(self, words: str) -> str:
        """Words without the folders of this machine."""
        for prefix in self._prefixes:
            words = words.replace(prefix, "")
        return words


def _pieces(content: BinaryIO) -> Iterator[bytes]:
    while piece := content.read(_PIECE):
        yield piece
