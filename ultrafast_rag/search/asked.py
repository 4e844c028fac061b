"""One question on its way to its answer: what is remembered of it, and what is kept.

Knows the caches; how a search is made, and what nobody looked at, arrive as functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ultrafast_rag.errors import RemoteEncoderError
from ultrafast_rag.search.query_cache import QueryCache, frozen, normalised, writer_key
from ultrafast_rag.search.searcher import check_query
from ultrafast_rag.types import Answer, EvidenceSource, Hits

if TYPE_CHECKING:
    from ultrafast_rag.search.semantic_cache import SemanticCache


class Asked:
    """A question with its options, and who writes.

    options: k, alpha, modality, filters, rerank, as `search` takes them. generation: of the index. exact, alike: the caches to
    ask, None where that one is off. means: the question as it was meant, and notes about that. unread: notes about what no model
    here looked at. Raises ConfigError for bad values.
    """

    def __init__(
        self,
        question: str,
        options: Mapping[str, Any],
        generator: object,
        *,
        alpha: float,
        generation: int,
        exact: QueryCache | None,
        alike: SemanticCache | None,
        evidence: EvidenceSource,
        means: Callable[[], tuple[str, tuple[str, ...]]],
        search: Callable[..., Hits],
        unread: Callable[[], tuple[str, ...]],
    ) -> None:
        self._question, self._start, self._took = question, time.perf_counter(), 0.0
        self._notes: tuple[str, ...] = ()
        self._exact, self._alike, self._evidence = exact, alike, evidence
        self._means, self._search, self._unread = means, search, unread
        self._options = options = {"alpha": None, "modality": None, "filters": None, "rerank": None, **options}
        checked = {name: options[name] for name in ("modality", "filters")}
        check_query(question, k=options["k"], alpha=alpha if options["alpha"] is None else options["alpha"], **checked)
        self._scope: tuple[Hashable, ...] = (generation, frozen(options), writer_key(generator))
        self._key = ("answer", generation, normalised(question), *self._scope[1:])
        self._shared = not callable(generator)  # a function means something in this process only

    @cached_property
    def _read(self) -> tuple[str, tuple[str, ...]]:
        return self._means()

    @property
    def meant(self) -> str:
        """The question as it was meant: what is searched for and answered."""
        return self._read[0]

    def known(self) -> Answer | None:
        """The answer to the same question, or to one that means the same, while the index has not changed."""
        answer: Answer | None = self._exact.get(self._key, shared=self._shared) if self._exact is not None else None
        if answer is None and self._shared and self._alike is not None:
            answer = self._known_alike(self._alike)
        if answer is None:
            return None
        answer.hits.evidence = self._evidence
        timings_s = {"cache": time.perf_counter() - self._start}
        return replace(answer, question=self._question, cached=True, cost_usd=0.0, timings_s=timings_s)

    def _known_alike(self, cache: SemanticCache) -> Answer | None:
        """The answer to a question that means the same; a note says which, and how often that was wrong so far."""
        try:
            found = cache.get(self.meant, self._scope)
        except RemoteEncoderError:  # the search meets it again, and says it
            return None
        if found is None:
            return None
        kept: Answer = found.value
        stats = cache.get_stats()
        note = (
            f"this is the answer to “{found.asked}”, which means the same (cosine {found.cosine:.2f}); "
            f"of {stats['hits']} answers given again so, {stats['wrong']} were marked wrong"
        )
        return replace(kept, notes=(*kept.notes, note))

    def search(self) -> Hits:
        """What the answer is made of."""
        hits = self._search(self.meant, **self._options, neighbours=True)
        self._took, self._notes = time.perf_counter() - self._start, hits.notes
        return hits

    def finish(self, answer: Answer) -> Answer:
        """The answer with the search's time and notes, remembered."""
        notes = (*self._read[1], *self._notes, *answer.notes, *(() if answer.supported else self._unread()))
        timings_s = {"search": self._took, **answer.timings_s}
        answer = replace(answer, question=self._question, timings_s=timings_s, notes=notes)
        if self._exact is None or answer.fallback or self._notes:  # a passing failure must not outlive its cause
            return answer
        self._exact.put(self._key, answer, shared=self._shared)
        if self._shared and self._alike is not None and answer.supported:
            with suppress(RemoteEncoderError):
                self._alike.put(self.meant, self._scope, answer)
        return answer
