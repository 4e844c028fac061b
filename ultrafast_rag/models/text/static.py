"""Passages and questions -> vectors without a network: the mean of token vectors distilled from a sentence encoder.

Each token of the vocabulary went through the encoder by itself, once; the vectors are centred, turned onto their
principal axes and weighted by how much a token tells, its frequency being taken from its rank in the vocabulary
(Zipf's law; word-piece vocabularies are in that order). One matrix of int8 a model: for MiniLM it is shipped, for another it is
made on first use and kept beside the converted engines. Good enough to say which passages are worth encoding, and
20 000 texts a second; not good enough to rank them. Sources: Tulkens & van Dongen, "Model2Vec", 2024; Arora et al., ICLR 2017.
Their library was left out: it brings no less code than this, and asks for the weights in its own way.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ultrafast_rag.errors import WeightsError
from ultrafast_rag.files import read_bytes, read_manifest, write_manifest, write_whole
from ultrafast_rag.types import Vectors

DIM = 128  # of 384: on squad2 the best 50 by words and these hold all that matters, as they do with 256; 3.9 MB for MiniLM
PACKAGED = Path(__file__).with_name("minilm_static.safetensors")  # made by data/distill_static.py
PACKAGED_OF = "53aa51172d142c89|mean|256 tokens|384d"  # the space it was distilled from
PACKAGED_SHA256 = "06fcfa9bdce54eef7f38a31525d96388ece26df9eb733e2b96fc64da2db9825c"
_SIF = 1e-4  # Arora et al.'s a, at which Model2Vec found its best
_RECIPE = 1  # raise when `distill` changes what comes out
_NAMES = ("values", "scales")
_MOST_BYTES = 1 << 29  # of a table: 4 million tokens
_AT_ONCE = 4096  # tokens of the vocabulary encoded in one call

Table = tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]


class Distillable(Protocol):
    """What is asked of a sentence encoder."""

    space: str
    vocabulary_size: int

    def encode_tokens(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
        """float32 (n, dim), unit rows, each of the given tokens between the special ones."""
        ...


class StaticEncoder:
    """Token ids -> unit vectors. Thread-safe.

    table: int8 (v, DIM) and a scale a row. space: names the vector space of an index that these vectors go to.
    """

    def __init__(self, table: Table) -> None:
        values, scales = table
        self.space = f"static-{hashlib.sha256(values.tobytes() + scales.tobytes()).hexdigest()[:8]}"
        self.dim = values.shape[1]
        self._rows = values * scales.astype(np.float32)[:, None]

    def encode_tokens(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
        """float32 (n, dim), unit rows; zeros for a text none of whose tokens the table knows."""
        sums = np.zeros((len(token_ids), self.dim), dtype=np.float32)
        for ids, total in zip(token_ids, sums):  # a text at a time stays in a core's cache: 6 times as fast as reduceat over all
            known = np.minimum(np.asarray(ids, dtype=np.int64), len(self._rows) - 1)
            np.add.reduce(self._rows.take(known, axis=0), axis=0, out=total)
        norms = np.sqrt(np.einsum("nd,nd->n", sums, sums))
        sums /= np.maximum(norms, 1e-9)[:, None]
        return sums


def distill(vectors: Vectors) -> Table:
    """Vectors of every token, float32 (v, d) in the vocabulary's order -> the table."""
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)  # ascending
    kept = centred @ axes[:, ::-1][:, :DIM]
    share = 1 / (np.arange(len(kept)) + 2.0)
    share /= share.sum()
    weighted = kept * (_SIF / (_SIF + share))[:, None]
    scales = np.maximum((np.abs(weighted).max(axis=1) / 127).astype(np.float16), np.finfo(np.float16).smallest_subnormal)
    values = np.clip(np.round(weighted / scales.astype(np.float32)[:, None]), -127, 127).astype(np.int8)
    return values, scales


def encoded_vocabulary(encoder: Distillable) -> Vectors:
    """Every token's vector, float32 (v, d)."""
    starts = range(0, encoder.vocabulary_size, _AT_ONCE)
    tokens = [[[token] for token in range(at, min(at + _AT_ONCE, encoder.vocabulary_size))] for at in starts]
    return np.concatenate([encoder.encode_tokens(some) for some in tokens])


def open_static(encoder: Distillable, cache_dir: Path, *, progress: Callable[[str], None] = lambda step: None) -> StaticEncoder:
    """The encoder's table: shipped, made here before, or made now. progress: told in words when it is made.

    Raises WeightsError when the shipped one is not what it should be.
    """
    source = encoder.space.rpartition("@")[2]
    if source == PACKAGED_OF:
        if (table := _read(PACKAGED, PACKAGED_SHA256)) is None:
            raise WeightsError(f"{PACKAGED.name} is missing or damaged. Run: pip install --force-reinstall ultrafast_rag")
        return StaticEncoder(table)
    folder = cache_dir / "engines"
    kept = folder / f"static-{re.sub(r'[^A-Za-z0-9.-]+', '_', source)}-r{_RECIPE}.safetensors"
    manifest = kept.with_suffix(".json").name
    table = _read(kept, (read_manifest(folder, manifest) or {}).get("sha256"))
    if table is None:
        progress("distilling the encoder's tokens, once")
        table = distill(encoded_vocabulary(encoder))
        with contextlib.suppress(OSError):  # a cache that cannot be written costs this again next time
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_manifest(folder, manifest, {"sha256": write(table, kept)})
    return StaticEncoder(table)


def write(table: Table, path: Path) -> str:
    """Keep a table as safetensors; returns the file's sha256."""
    from safetensors.numpy import save

    content = save(dict(zip(_NAMES, table)))
    write_whole(path.parent, path.name, [content])
    return hashlib.sha256(content).hexdigest()


def _read(path: Path, sha256: object) -> Table | None:
    """The table of a file with this sum, else None."""
    from safetensors.numpy import load

    content = read_bytes(path.parent, path.name, _MOST_BYTES)
    if content is None or hashlib.sha256(content).hexdigest() != sha256:
        return None
    found = load(content)
    return found[_NAMES[0]], found[_NAMES[1]]
