"""A conversation that lasts: it remembers what it is told and what it found, and forgets on request.

What the person stated earlier stands beside the
documents as a source of its own, cited as what it is; what was answered earlier is recalled for the person, and is a
source only where the question asks for it: an answer must not prove the next one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ultrafast_rag.answer.memory import Memory, MemoryConsolidator
from ultrafast_rag.types import Answer, Hit, Hits

TOLD, FOUND = "what you told me", "what was answered earlier"
NOTE_IMPORTANCE, ANSWER_IMPORTANCE, REFUSAL_IMPORTANCE = 0.9, 0.5, 0.2  # chosen: notes stay longest, refusals go first
_REMEMBER = re.compile(
    r"\W*(?:please\s+|bitte\s+)?(?:remember|note|keep in mind|don'?t forget|merk(?:e)? dir|notiere)\b[\s,:]*(?:that\s+|dass\s+)?"
    r"(?P<what>.*[^?\s])\s*",
    re.I | re.S,
)
_FORGET = re.compile(
    r"\W*(?:please\s+|bitte\s+)?(?:forget|vergiss)\b[\s,:]*(?P<all>everything|all(?: of it)?|alles)?"
    r"(?:(?:what (?:i|we|you) (?:said|told you|asked|found) )?(?:about |that |über |dass )?(?P<what>.*?))?[.!\s]*",
    re.I | re.S,
)
_LOOKS_BACK = re.compile(
    r"\b(?:earlier|before|last time|previously|did (?:we|you|i) (?:find|say|ask|learn|talk|discuss)|you said|i (?:said|told)|"
    r"vorhin|letztes mal|früher|haben wir)\b",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Reply:
    """One turn. meant: the question as it was searched; recalled: earlier notes and findings about it, best first."""

    question: str
    meant: str
    answer: Answer
    recalled: tuple[Memory, ...] = ()

    def __str__(self) -> str:
        earlier = [f"  earlier: {memory.text}" for memory in self.recalled if memory.kind == "turn"]
        return "\n".join([str(self.answer), *earlier])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.answer._repr_html_()


class Chat:
    """A conversation about the documents; `rag.chat()` makes one.

        chat = rag.chat()
        chat.ask("remember that our pump is the X200")
        chat.ask("Which oil does our pump take?").answer
        chat.ask("forget what I said about the pump")

    ask, remember, recall, forget; `history` holds the turns of this session, also those of earlier runs. session: names
    the conversation; notes and findings are recalled across sessions of one index. answer: (question, earlier memories as
    hits, options) -> Answer.
    """

    def __init__(self, memory: MemoryConsolidator, answer: Callable[..., Answer], *, session: str = "default") -> None:
        self.memory, self.session, self._answer = memory, session, answer
        self.memory.run_consolidation()

    def ask(self, question: str, **options: Any) -> Reply:
        """Answer one turn; options as in `rag.query`. "Remember that ..." and "forget ..." are done, not searched.

        Raises ConfigError for an empty question.
        """
        if told := self._told(question):
            return Reply(question, question, told)
        recalled = tuple(self.memory.recall(question))
        looks_back = bool(_LOOKS_BACK.search(question))
        sources = [memory for memory in recalled if memory.kind == "note" or (looks_back and _supported(memory))]
        answer = self._answer(question, sources, **options)
        return self._keep(question, question, answer, recalled)

    async def aask(self, question: str, **options: Any) -> Reply:
        """`ask` for a running event loop, which stays free meanwhile."""
        return await asyncio.to_thread(self.ask, question, **options)

    def remember(self, text: str) -> Memory:
        """Keep a note, in every session of this index."""
        return self.memory.remember(text, importance=NOTE_IMPORTANCE, session=self.session)

    def recall(self, words: str, *, k: int = 5) -> list[Memory]:
        """Notes and earlier findings about something, best first."""
        return self.memory.recall(words, k=k)

    def forget(self, words: str | None = None) -> int:
        """Forget what is about `words`, or with None everything, in every session of this index; returns how much it was."""
        return self.memory.forget_all() if words is None else len(self.memory.forget_about(words))

    @property
    def history(self) -> list[Memory]:
        """This session's turns, oldest first; metadata has "question", "answer", "sources" and "supported"."""
        return self.memory.memories(kind="turn", session=self.session)

    def _told(self, question: str) -> Answer | None:
        """What to say to a request to remember or to forget, done; None for a question."""
        if (asked := _REMEMBER.fullmatch(question)) and not question.rstrip().endswith("?"):
            self.remember(asked["what"])
            return _said(question, f"I will remember: {asked['what']}")
        if (asked := _FORGET.fullmatch(question)) and (asked["all"] or asked["what"]):
            count = self.forget(None if asked["all"] else asked["what"])
            return _said(question, f"Forgotten: {count} {'memory' if count == 1 else 'memories'}.")
        return None

    def _keep(self, question: str, meant: str, answer: Answer, recalled: tuple[Memory, ...]) -> Reply:
        about = {"question": question, "answer": answer.text, "sources": answer["sources"], "supported": answer.supported}
        importance = ANSWER_IMPORTANCE if answer.supported else REFUSAL_IMPORTANCE
        self.memory.remember(f"{meant}\n{answer.text}", kind="turn", importance=importance, session=self.session, metadata=about)
        return Reply(question, meant, answer, recalled)


def as_hits(memories: Sequence[Memory], hits: Hits) -> list[Hit]:
    """Memories as sources beside the documents' hits, scored on their scale; ids below 0 are no chunk's."""
    best = max((hit.score for hit in hits), default=1.0)
    cosine = max((hit.dense_score for hit in hits if hit.dense_score == hit.dense_score), default=1.0)
    return [
        Hit(
            chunk_id=-memory.id,
            document_id=f"memory:{memory.id}",
            source=TOLD if memory.kind == "note" else FOUND,
            modality="text",
            text=memory.text if memory.kind == "note" else str(memory.metadata.get("answer", memory.text)),
            score=best * (1 + memory.score) / (1 + max(cosine, 0.0)),  # as fusion scales cosines
            dense_score=memory.score,
        )
        for memory in memories
    ]


def _supported(memory: Memory) -> bool:
    return bool(memory.metadata.get("supported"))


def _said(question: str, text: str) -> Answer:
    return Answer(question, text, Hits(query=question), generator="memory", reason="a request, not a question")
