"""sha256 of a single model file, where a folder's revision (`weights.resolve`) does not apply."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ultrafast_rag.errors import WeightsError


def file_sha256(path: Path) -> str:
    """In hex, read in pieces. Raises WeightsError when the file cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 22):
                digest.update(piece)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()
