"""A conversation that lasts: it remembers what it is told and what it found, and forgets on request.

What the person stated earlier stands beside the
documents as a source of its own, cited as what it is; what was answered earlier is recalled for the person, and is a
source only where the question asks for it: an answer must not prove the next one.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, cast

from ultrafast_rag.answer.conversation import follow_up
from ultrafast_rag.answer.memory import Memory, MemoryConsolidator
from ultrafast_rag.answer.route import Answerer
from ultrafast_rag.remote import event_loop
from ultrafast_rag.types import Answer, Hit, Hits

TOLD, FOUND = "what you told me", "what was answered earlier"
NOTE_IMPORTANCE, ANSWER_IMPORTANCE, REFUSAL_IMPORTANCE = 0.9, 0.5, 0.2  # chosen: notes stay longest, refusals go first
_EARLIER, _SHOWN = 2, 160  # findings shown beside an answer, and characters of each
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

    ask, stream, remember, recall, forget; `history` holds the turns of this session, also those of earlier runs. session:
    names the conversation; notes and findings are recalled across sessions of one index. answer: (question, earlier memories
    as hits, options) -> Answer; pieces: (question, options) -> an answer as it is written. follow_ups: a question that leans
    on the one before it ("and when was it built?") is searched with that one's words.
    """

    def __init__(
        self,
        memory: MemoryConsolidator,
        answer: Callable[..., Answer],
        pieces: Callable[..., Iterator[str | Answer]],
        *,
        session: str = "default",
        follow_ups: bool = True,
    ) -> None:
        self.memory, self.session, self._answer, self._pieces = memory, session, answer, pieces
        self.memory.run_consolidation()
        self._follow_ups, self._said = follow_ups, list[str]()
        self._last = next((_as_answer(turn) for turn in reversed(self.history)), None)
        self._kept: Memory | None = None

    def __repr__(self) -> str:
        return f"Chat({self.session!r}; ask it by chat.ask(...))"

    def ask(self, question: str, **options: Any) -> Reply:
        """Answer one turn; options as in `rag.query`. "Remember that ..." and "forget ..." are done, not searched.

        Raises ConfigError for an empty question.
        """
        if told := self._told(question):
            return Reply(question, question, told)
        meant = follow_up(question, self._last if self._follow_ups else None, self._said)
        recalled, sources = self._about(question, meant.question)
        answer = meant.answer or self._answer(meant.question, sources, **options)
        self._keep(question, meant.question, answer)
        if meant.answer is None or answer.citations:  # "more" keeps what the talk is about
            topic = self._last.question if meant.answer is not None and self._last is not None else meant.question
            self._last = replace(answer, question=topic)
        self._said.append(answer.text)
        return Reply(question, meant.question, answer, recalled)

    def stream(self, question: str, *, meant: str = "", again: bool = False, **options: Any) -> Iterator[str | Answer]:
        """`ask`, in sentences as they are written and then the whole Answer, as `rag.stream`; for a panel.

        meant: the question as it stands alone, by default as asked. again: with other settings, in the last one's place. Earlier
        findings about it are among the answer's notes.
        """
        return self._streamed(question, meant or question, self._pieces(meant or question, **options), again, options)

    def _streamed(
        self, question: str, meant: str, pieces: Iterator[str | Answer], again: bool, options: dict[str, Any]
    ) -> Iterator[str | Answer]:
        if told := self._told(question):
            yield told
            return
        if again and self._kept is not None:
            self.memory.forget(self._kept.id)
        recalled, sources = self._about(question, meant)
        found: Answer | None = self._answer(meant, sources, **options) if sources else None
        with closing(cast(Generator[str | Answer], pieces)):
            while found is None:
                piece = next(pieces)
                if isinstance(piece, Answer):
                    found = piece
                else:
                    yield piece
        self._keep(question, meant, found)
        yield replace(found, notes=(*found.notes, *_earlier(question, recalled)))

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

    def _about(self, question: str, meant: str) -> tuple[tuple[Memory, ...], list[Memory]]:
        """What is remembered about a question, and what of it may be a source of its answer."""
        recalled = tuple(self.memory.recall(meant))
        looks_back = bool(_LOOKS_BACK.search(question))
        return recalled, [memory for memory in recalled if memory.kind == "note" or (looks_back and _supported(memory))]

    def _told(self, question: str) -> Answer | None:
        """What to say to a request to remember or to forget, done; None for a question."""
        if (asked := _REMEMBER.fullmatch(question)) and not question.rstrip().endswith("?"):
            self.remember(asked["what"])
            return _said(question, f"I will remember: {asked['what']}")
        if (asked := _FORGET.fullmatch(question)) and (asked["all"] or asked["what"]):
            count = self.forget(None if asked["all"] else asked["what"])
            self._last, self._said = None, []
            return _said(question, f"Forgotten: {count} {'memory' if count == 1 else 'memories'}.")
        return None

    def _keep(self, question: str, meant: str, answer: Answer) -> None:
        about = {"question": question, "meant": meant, "answer": answer.text, "sources": answer["sources"]}
        self._kept = self.memory.remember(
            f"{meant}\n{answer.text}",
            kind="turn",
            importance=ANSWER_IMPORTANCE if answer.supported else REFUSAL_IMPORTANCE,
            session=self.session,
            metadata={**about, "supported": answer.supported},
        )


def answer_beside(
    question: str,
    memories: Sequence[Memory],
    *,
    query: Callable[..., Answer],
    search: Callable[..., Hits],
    answerer: Callable[[Any], Answerer],
    **options: Any,
) -> Answer:
    """`query`, with what was said in a conversation as further sources; such an answer is not cached.

    answerer: who writes, for the generator among the options.
    """
    if not memories:
        return query(question, **options)
    generator = options.pop("generator", None)
    start = time.perf_counter()
    hits = search(question, **{"k": 10, **options}, neighbours=True)
    hits.extend(as_hits(memories, hits))
    hits.sort(key=lambda hit: -hit.score)
    searched = time.perf_counter() - start
    answer = event_loop.run(answerer(generator).answer(question, hits))
    return replace(answer, timings_s={"search": searched, **answer.timings_s})


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


def _earlier(question: str, recalled: Sequence[Memory]) -> list[str]:
    """Findings to show beside an answer: supported ones, to other questions."""
    turns = [turn for turn in recalled if turn.kind == "turn" and _supported(turn) and turn.metadata.get("question") != question]
    told = ((str(turn.metadata.get("question")), " ".join(str(turn.metadata.get("answer")).split())) for turn in turns[:_EARLIER])
    return [f"earlier, to “{asked}”: {found[:_SHOWN]}{'…' if len(found) > _SHOWN else ''}" for asked, found in told]


def _as_answer(turn: Memory) -> Answer:
    """A turn of an earlier run, as far as a follow-up can lean on it."""
    asked = str(turn.metadata.get("meant") or turn.metadata.get("question", ""))
    return Answer(asked, str(turn.metadata.get("answer", "")), Hits(query=asked))


def _supported(memory: Memory) -> bool:
    return bool(memory.metadata.get("supported"))


def _said(question: str, text: str) -> Answer:
    return Answer(question, text, Hits(query=question), generator="memory", reason="a request, not a question")
