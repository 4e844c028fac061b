"""Enrichments in the index: a companion document a source, whose chunks point to those they describe.

The companions are searched by words and meaning like any chunk, and search shows the passage or
picture they describe in their place (`Chunk.metadata["describes"]`). A source that changes gets new
chunk ids, so what described the old ones points nowhere and is dropped when met.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, Callable, Sequence

from ultrafast_rag.enrich import ENRICHED
from ultrafast_rag.enrich.enricher import Enrichment
from ultrafast_rag.ports import DocumentReader
from ultrafast_rag.types import DESCRIBES, Chunk, Passage, Record

AT_ONCE = 32  # enrichments encoded and committed together; what is paid for is kept before that, one by one


def unenriched(store: DocumentReader) -> list[Chunk]:
    """Every chunk that is not itself a description; the enricher skips those it knows."""
    ids = [chunk_id for chunk_id, _ in store.iter_texts()]
    chunks = (chunk for at in range(0, len(ids), 500) for chunk in store.chunks(ids[at : at + 500]))
    return [chunk for chunk in chunks if DESCRIBES not in chunk.metadata]


async def index_enrichments(
    store: DocumentReader, run: AsyncIterable[Enrichment], commit: Callable[[Sequence[Passage]], int]
) -> int:
    """Commit enrichments as they come, in small batches; returns how many were new to the index.

    commit: encodes and stores passages that are new or changed, and counts them.
    """
    waiting: list[Enrichment] = []
    added = 0
    try:
        async for enrichment in run:
            waiting.append(enrichment)
            if len(waiting) >= AT_ONCE:
                added += await asyncio.to_thread(commit, _passages(store, waiting))
                waiting = []
    finally:
        if waiting:
            added += commit(_passages(store, waiting))
    return added


def _passages(store: DocumentReader, enrichments: Sequence[Enrichment]) -> list[Passage]:
    described = {chunk.id: chunk for chunk in store.chunks([enrichment.chunk_id for enrichment in enrichments])}
    told = [(described[e.chunk_id], e.text) for e in enrichments if e.chunk_id in described and e.text]
    return [
        (_record(chunk, text), Chunk(text, context=chunk.context, page=chunk.page, metadata={DESCRIBES: chunk.id}))
        for chunk, text in told
    ]


def _record(chunk: Chunk, text: str) -> Record:
    content = hashlib.sha256(f"{chunk.id}\n{text}".encode()).hexdigest()
    return Record(ENRICHED + chunk.source, content, document_id=f"{ENRICHED}{chunk.id}")
