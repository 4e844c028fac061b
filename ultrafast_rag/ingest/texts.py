"""Passages that are chunked already -> committed documents of one chunk each, in one transaction a batch."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ultrafast_rag.errors import ConfigError
from ultrafast_rag.ingest.embed import Embedder, searchable
from ultrafast_rag.language.safetext import unstorable
from ultrafast_rag.ports import DocumentWriter, Tokenizer
from ultrafast_rag.types import Chunk, PartCommit, Passage, Record

AT_ONCE = 1024  # passages a transaction


def to_passages(
    texts: Sequence[str], ids: Sequence[str] | None, metadata: Sequence[Mapping[str, Any]] | None
) -> tuple[list[Passage], tuple[tuple[str, str], ...]]:
    """A document of one chunk for each text with words, and (name, why) of the others; see `UltraFastRAG.add_texts`."""
    _check(texts, ids, metadata)
    names = list(ids) if ids is not None else [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]
    details = metadata if metadata is not None else [{} for _ in texts]
    passages = [
        _passage(name, text, about) for name, (text, about) in dict(zip(names, zip(texts, details))).items() if text.strip()
    ]
    return passages, tuple((name, "the text is empty") for name, text in zip(names, texts) if not text.strip())


def _passage(name: str, text: str, about: Mapping[str, Any]) -> Passage:
    digest = hashlib.sha256(json.dumps([text, dict(about)], sort_keys=True, default=str).encode()).hexdigest()
    title = str(about.get("title", ""))
    record = Record(name, digest, title=title, metadata=about, document_id=name)
    return record, Chunk(text, context=title, metadata=about)


def _check(texts: Sequence[str], ids: Sequence[str] | None, metadata: Sequence[Mapping[str, Any]] | None) -> None:
    """Raise ConfigError that names the entry when one cannot be stored, before anything is."""
    if isinstance(texts, str | bytes):
        raise ConfigError("texts is one text; pass a list of them")
    counts = [len(texts), *(len(given) for given in (ids, metadata) if given is not None)]
    if len(set(counts)) > 1:
        raise ConfigError(f"texts, ids and metadata differ in length: {', '.join(map(str, counts))}")
    for what, entries, wanted in (("texts", texts, str), ("ids", ids, str), ("metadata", metadata, Mapping)):
        for n, entry in enumerate(() if entries is None else entries):
            if not isinstance(entry, wanted):
                raise ConfigError(f"{what}[{n}] must be {'text' if wanted is str else 'a mapping'}, not {type(entry).__name__}")
            parts = entry.items() if isinstance(entry, Mapping) else [("", entry)]
            for name, part in parts:
                if why := unstorable(name) or unstorable(part):
                    raise ConfigError(f"{what}[{n}]{f'[{name!r}]' if name else ''} {why}")
    if ids is not None and len(set(ids)) < len(ids):
        ((twice, _),) = Counter(ids).most_common(1)
        raise ConfigError(f"ids must be unique; {twice!r:.80} is given twice")


def commit_passages(
    store: DocumentWriter, embedder: Embedder, tokenizer: Callable[[], Tokenizer], passages: Sequence[Passage]
) -> int:
    """Commit those that are new or changed, in their order; returns how many. No model is asked for the rest."""
    return sum(_commit(store, embedder, tokenizer, passages[at : at + AT_ONCE]) for at in range(0, len(passages), AT_ONCE))


def _commit(store: DocumentWriter, embedder: Embedder, tokenizer: Callable[[], Tokenizer], batch: Sequence[Passage]) -> int:
    states = store.begin_many([record for record, _ in batch])
    fresh = [(passage, state) for passage, state in zip(batch, states) if state.state != "unchanged"]
    if not fresh:
        return 0
    ids = tokenizer().tokenize([searchable(chunk) for (_, chunk), _ in fresh])
    chunks = [replace(chunk, token_ids=tuple(tokens)) for ((_, chunk), _), tokens in zip(fresh, ids)]
    embedded = embedder.embed(chunks)
    commits = []
    for n, ((record, _), state) in enumerate(fresh):
        vectors, numbers = embedded.of(n, n + 1)
        commits.append(PartCommit(state.document_key, 0, [chunks[n]], vectors, numbers, title=record.title, total=1, final=True))
    store.commit(commits)
    embedder.remember(embedded)
    return len(fresh)
