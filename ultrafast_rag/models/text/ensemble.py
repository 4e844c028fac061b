"""Several text encoders as one: "MODEL + MODEL", their unit vectors side by side, so that a cosine is the mean of theirs.

The sum of scores beat reciprocal ranks where both were tried (`bench quality`), and vectors joined so are fused wherever
vectors are looked for: exact, by FAISS, in a store, and in an index moved to another model. Every one is encoded with its own
tokens and prompts, from the text; passages are cut by the first one's tokens. A vector is as long as all of theirs together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ultrafast_rag.errors import IndexStateError
from ultrafast_rag.models.text.encoder import SentenceEncoder
from ultrafast_rag.models.text.reference import Reference
from ultrafast_rag.models.text.remote import RemoteEncoder
from ultrafast_rag.types import Vectors

Member = SentenceEncoder | RemoteEncoder


class EnsembleEncoder:
    """`ports.TextEncoder` over several. space: the index's, when it was made before; IndexStateError for another."""

    takes_tokens = False
    vocabulary_size = 0

    def __init__(self, text_model: str, members: Sequence[Member], *, space: str | None = None) -> None:
        self.members, self.max_tokens = tuple(members), members[0].max_tokens
        self.dim = sum(member.dim for member in members)
        parts = "\0".join(member.space.rpartition("@")[2] for member in members)
        self.space = f"{text_model}@{hashlib.sha256(parts.encode()).hexdigest()[:16]}|joined|{self.dim}d"
        if space is not None and space.rpartition("@")[2] != self.space.rpartition("@")[2]:
            raise IndexStateError(
                f"this index's text vectors are {space}, and {text_model} gives {self.space}; they cannot be compared. Open the "
                "index with the models it was made with, or move it with rag.migrate(...)"
            )
        self.fingerprint = " + ".join(member.fingerprint for member in members)
        self.notes = tuple(note for member in members for note in member.notes)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The first one's."""
        return self.members[0].tokenize(texts)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """As the port says."""
        return _joined([member.encode(texts) for member in self.members])

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """As the port says."""
        return _joined([member.encode_queries(texts) for member in self.members])

    def encode_tokens(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
        """By the first one alone, in its place of the whole: good for comparing such vectors with one another."""
        first = self.members[0].encode_tokens(token_ids)
        whole = np.zeros((len(first), self.dim), np.float32)
        whole[:, : first.shape[1]] = first
        return whole

    def known_share(self, text: str) -> float:
        """Of the one that knows most of it."""
        return max(member.known_share(text) for member in self.members)

    def report(self) -> list[tuple[str, ...]]:
        """Of each."""
        return [row for member in self.members for row in member.report()]

    def reference(self) -> References | None:
        """Of each, where all have one."""
        found = [member.reference() for member in self.members]
        return References(tuple(one for one in found if one is not None)) if all(found) else None

    def close(self) -> None:
        """Give their memory back."""
        for member in self.members:
            member.close()


class References:
    """Each member's reference, kept as one."""

    def __init__(self, each: Sequence[Reference]) -> None:
        self.each = tuple(each)

    def to_json(self) -> dict[str, Any]:
        """For an index's facts."""
        return {"each": [one.to_json() for one in self.each]}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> References:
        """From `to_json`. Raises ValueError when it is not what was stored."""
        try:
            return cls([Reference.from_json(one) for one in stored["each"]])
        except (KeyError, TypeError) as error:
            raise ValueError("no reference vectors in this") from error


def _joined(blocks: Sequence[Vectors]) -> Vectors:
    """float32 (n, d of all), unit rows of blocks with unit rows."""
    return np.asarray(np.concatenate(blocks, axis=1) / np.sqrt(len(blocks)), np.float32)
