"""What was said in a panel so far: what a follow-up means, and the earlier turns to read again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ultrafast_rag.answer.conversation import FollowUp, follow_up
from ultrafast_rag.notebook import markup
from ultrafast_rag.notebook.display import answer_text
from ultrafast_rag.types import Answer, Hits

_TURNS = 8  # chosen: what is shown; more is remembered
REMEMBERED = "memory"  # who "answers" a request to remember or to forget


@dataclass(frozen=True, slots=True)
class Turn:
    """A question on its way. asked: words or a picture; meant: None for a picture; pieces: the answer as it is written."""

    asked: str | bytes
    meant: FollowUp | None
    pieces: Iterator[str | Answer] | None
    options: dict[str, Any]


class Talk:
    """The turns of one conversation, and the state that the last one began from: asked again, it is replaced."""

    def __init__(self) -> None:
        self._turns: deque[tuple[str, Answer | Hits]] = deque(maxlen=_TURNS)
        self._last: Answer | None = None
        self._said: list[str] = []
        self._before: tuple[Answer | None, list[str], list[tuple[str, Answer | Hits]]] = (None, [], [])

    def forget(self) -> None:
        """Begin anew."""
        self.__init__()  # type: ignore[misc]

    def meant(self, question: str, *, again: bool) -> FollowUp:
        """What a question means after what was said; again: after what was said before it was first asked."""
        if again:
            self._last, said, turns = self._before
            self._said, self._turns = list(said), deque(turns, maxlen=_TURNS)
        else:
            self._before = (self._last, list(self._said), list(self._turns))
        return follow_up(question, self._last, self._said)

    def add(self, turn: Turn, found: Answer | Hits) -> None:
        """Remember what was said to a question."""
        label = turn.asked if isinstance(turn.asked, str) else "a picture"
        self._turns.append((label, found))
        if isinstance(found, Answer) and turn.meant is not None and found.generator != REMEMBERED:
            self._said.append(found.text)
            topic = self._last.question if turn.meant.answer is not None and self._last is not None else turn.meant.question
            if turn.meant.answer is None or found.citations:  # "more" keeps what the talk is about
                self._last = replace(found, question=topic)

    def html(self) -> str:
        """The turns before the last one, newest first, each to be unfolded; "" where there are none."""
        earlier = list(self._turns)[-2::-1]
        if not earlier:
            return ""
        return f'<div style="{markup.MUTED}">Earlier in this conversation</div>' + "".join(_turn_html(*turn) for turn in earlier)


def _turn_html(question: str, found: Answer | Hits) -> str:
    asked = f'<summary style="cursor:pointer" dir="auto">{markup.escape(markup.clip(question, 200))}</summary>'
    if isinstance(found, Answer):
        cited = "; ".join(f"[{c.number}] {c.hit.where}" for c in found.citations)
        said = answer_text(found.text, limit=1500) + f'<div style="{markup.MUTED}">{markup.escape(cited)}</div>'
    else:
        said = "".join(f"<div>{markup.escape(hit.where)}</div>" for hit in found[:5]) or "nothing found"
    return f'<details style="margin:3px 0">{asked}<div style="margin-inline-start:18px">{said}</div></details>'
