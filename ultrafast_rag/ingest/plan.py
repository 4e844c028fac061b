"""What encoding would take, before any of it is done: passages, tokens, and dollars where a service encodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ultrafast_rag.errors import ExtractionError, MissingExtraError
from ultrafast_rag.ingest.chunk import Chunker
from ultrafast_rag.ingest.sources import Found, Source
from ultrafast_rag.types import Part, Table, counted


@dataclass(frozen=True, slots=True)
class EncodePlan:
    """usd: 0 for a model on this machine, None where the price is not known. failed: (source, why) of what cannot be read.

    tokens of a service are counted by runs of letters: rather too many. What is in the embedding cache costs nothing.
    """

    text_model: str
    passages: int
    tokens: int
    usd: float | None
    failed: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        money = "at an unknown price: set text_price_usd" if self.usd is None else f"${self.usd:.4f} at most"
        more = f"; {len(self.failed)} cannot be read" if self.failed else ""
        return f"{counted(self.passages, 'passage')}, {counted(self.tokens, 'token')} for {self.text_model}, {money}{more}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return Table([{**asdict(self), "failed": len(self.failed)}], "what encoding would take")._repr_html_()


def plan_of(
    found: Found | None,
    texts: Iterable[tuple[int, str]],
    chunker: Chunker,
    extract: Callable[[Path, int], Iterator[Part]],
    *,
    text_model: str,
    price: Callable[[int], float | None],
) -> EncodePlan:
    """Of the files that were found to be new, or with None of an index's texts. price: dollars for so many tokens."""
    if found is None:
        passages, tokens = of_passages(texts, chunker)
        return EncodePlan(text_model, passages, tokens, price(tokens))
    passages, tokens, failed = of_files(found.todo, extract, chunker)
    return EncodePlan(text_model, passages, tokens, price(tokens), (*found.failed, *failed))


def of_files(
    sources: Sequence[Source], extract: Callable[[Path, int], Iterator[Part]], chunker: Chunker
) -> tuple[int, int, tuple[tuple[str, str], ...]]:
    """(passages, their tokens, what cannot be read) of files, read one after the other; nothing is listened to."""
    passages = tokens = 0
    failed: list[tuple[str, str]] = []
    for source in sources:
        document = chunker.start(film=source.media_type.startswith("video/"))
        try:
            for part in extract(source.path, 0):
                silent = replace(part, elements=tuple(element for element in part.elements if element.kind != "sound"))
                worded = [chunk for chunk in document.chunk(silent) if chunk.text.strip()]
                passages, tokens = passages + len(worded), tokens + sum(len(chunk.token_ids) for chunk in worded)
        except (ExtractionError, MissingExtraError) as error:
            failed.append((source.name, str(error)))
    return passages, tokens, tuple(failed)


def of_passages(texts: Iterable[tuple[int, str]], chunker: Chunker) -> tuple[int, int]:
    """(passages, their tokens) of what an index holds."""
    passages = tokens = 0
    for _, text in texts:
        if text.strip():
            passages += 1
            tokens += min(len(chunker.tokenizer.tokenize([text])[0]), chunker.tokenizer.max_tokens)
    return passages, tokens
