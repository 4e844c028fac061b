"""The panel for asking, from ipywidgets 7.7 or 8 and nothing else; where no front end is, a dialogue in text.

Its controls are stock widgets, its answers are `display.py`'s cards. Three things that stock widgets cannot do are
handlers inside HTML attributes (a click on a citation in the text, copying, dropping a picture); where a front end strips
them, buttons beside them do the same. What goes wrong appears in the panel in plain words, because a notebook hides what a
callback raises. Work runs in a thread, so that the notebook and the Stop button stay usable.
"""

from __future__ import annotations

import inspect
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import Any, cast

from ultrafast_rag.errors import ConfigError, StorageError, UltraFastRAGError
from ultrafast_rag.notebook import markup
from ultrafast_rag.notebook.answer_view import AnswerView
from ultrafast_rag.notebook.display import answer_text
from ultrafast_rag.notebook.filters import Filters
from ultrafast_rag.notebook.ingest_panel import IngestWidget
from ultrafast_rag.notebook.missing import what_is_missing, why_so_little
from ultrafast_rag.notebook.panel import ROW, Panel, index_of, on_enter, unseen_label
from ultrafast_rag.notebook.picture_question import PictureQuestion, thumbnail
from ultrafast_rag.notebook.platform import detect
from ultrafast_rag.notebook.talk import REMEMBERED, Talk, Turn
from ultrafast_rag.notebook.watch import MonitorWidget
from ultrafast_rag.types import Answer, Hits, counted

__all__ = ["IngestWidget", "MonitorWidget", "SearchWidget", "show"]

_HISTORY, _SAMPLES, _REFRESH_S = 50, 4, 0.1  # chosen: entries to scroll through, a row of buttons, text seen to flow
_SESSION = "panel"  # what its conversation is called in `rag.chat`


class SearchWidget(Panel):
    """Question box, filters, answer with evidence, follow-ups, history, thumbs. Enter asks.

    rag: a UltraFastRAG. generator: who answers, where it is a function of one's own; see `rag.query`.
    `answers` holds what was shown, oldest first, as (question, Answer or Hits). What is asked and found is remembered beside
    the index, as in `rag.chat()`: "remember that ..." and "forget what I said about ..." are done.
    """

    def __init__(self, rag: Any, *, generator: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.rag, self._own_generator = index_of(rag), generator
        self.answers: deque[tuple[str, Answer | Hits]] = deque(maxlen=_HISTORY)
        self._current: tuple[str, Answer | Hits] | None = None
        self._turn: Turn | None = None
        self.talk, self._chat = Talk(), self._remembering()
        self._thread: threading.Thread | None = None
        self._stopped, self._guard = threading.Event(), threading.Lock()
        self._at_work = False
        self._next: tuple[str | bytes, bool] | None = None  # to be asked when this answer is there; whether it was asked before
        self._controls()
        self._result_controls()
        self._lay_out()
        with self.telling():
            self.filters.refresh()
            self._welcome()

    # ---- what it is made of

    def _controls(self) -> None:
        w = self.widgets
        self.question = unseen_label(
            w.Text(
                description="Question",
                continuous_update=False,
                placeholder="Ask your documents, then press Enter",
                layout={"flex": "1 1 240px", "width": "auto"},
            )
        )
        on_enter(self.question, self._submit)
        self.ask_button = self.button("Ask", self.start, style="primary", tooltip="Ask (Enter)")
        self.stop_button = self.button("Stop", self.stop, tooltip="Stop writing this answer")
        self.stop_button.disabled = True
        self.mode = w.ToggleButtons(options=["Answer", "Passages"], style={"button_width": "84px"})
        self.mode.observe(self._changed, "value")
        own = self._own_generator is not None
        self.filters = Filters(w, self.rag, self._changed, choose_generator=not own and _takes(self.rag.query, "generator"))
        self.picture = PictureQuestion(w, self._picture_taken, lambda error: self.say(str(error), failed=True))
        self.samples = w.HBox([], layout=ROW)
        self.new_button = self.button("New conversation", self.forget, tooltip="Follow-ups no longer lean on what was asked")

    def _result_controls(self) -> None:
        w, wide = self.widgets, {"description_width": "initial"}
        self.notice = w.HTML()
        self.shown = AnswerView(self.rag, say=self.say)
        self.result = self.shown.card
        self.thread_view = w.HTML()
        self.history = w.Dropdown(options=[("earlier questions", 0)], description="History", style=wide,
                                  layout={"width": "auto", "flex": "1 1 200px", "min_width": "0"})  # fmt: skip
        unseen_label(self.history)
        self.history.observe(self._show_earlier, "value")

    def _lay_out(self) -> None:
        w = self.widgets
        self.box = self.frame(
            w.HBox([self.question, self.ask_button, self.stop_button, self.mode], layout=ROW),
            self.picture.box,
            self.samples,
            self.filters.box,
            self.notice,
            self.status,
            self.shown.box,
            self.thread_view,
            w.HBox([self.history, self.new_button], layout=ROW),
        )

    def _welcome(self) -> None:
        """Sample questions of this index, or what is missing for asking at all."""
        self.notice.value = markup.notes_html(what_is_missing(self.rag))
        samples = self.rag.sample_questions(_SAMPLES)
        self.samples.children = tuple(self.button(sample, partial(self._ask_sample, sample)) for sample in samples)

    def _ask_sample(self, sample: str) -> None:
        self.question.value = sample
        self.start()

    # ---- asking

    @property
    def running(self) -> bool:
        """Whether an answer is on its way."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the answer in hand is there; False when timeout_s ran out first."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return not self.running

    def _remembering(self) -> Any:
        """The conversation kept beside the index; None where its folder cannot be written: then only this panel remembers."""
        try:
            return self.rag.chat(_SESSION)
        except StorageError:
            return None

    def _pieces(self, asked: str, meant: str, options: Mapping[str, Any], *, again: bool) -> Iterator[str | Answer]:
        """The answer as it is written; a notebook's keys are asked for on this thread."""
        if self._chat is None:
            return cast(Iterator[str | Answer], self.rag.stream(meant, **options))
        return cast(Iterator[str | Answer], self._chat.stream(asked, meant=meant, again=again, **options))

    def _submit(self) -> None:
        with self.telling():
            self.start()

    def start(self) -> None:
        """Ask what is in the box without waiting for the answer."""
        if not self.question.value.strip():
            raise ConfigError("Type a question first, or give a picture.")
        self._begin(self.question.value.strip())

    def ask(self) -> None:
        """Ask what is in the box, with the filters as set, and wait for the answer."""
        self.start()
        self.wait()

    def stop(self) -> None:
        """Leave the answer in hand as it is."""
        self._stopped.set()
        self.say("Stopping…")

    def forget(self) -> None:
        """Begin a new conversation: the next question stands alone. History and answers stay."""
        self.talk.forget()
        self.thread_view.value = ""
        self.say("A new conversation: the next question stands alone.")

    def _picture_taken(self, picture: bytes) -> None:
        self.question.value = ""
        with self.telling():
            self._begin(picture)

    def _changed(self, _: object = None) -> None:
        """A setting was changed: ask again at once where that costs nothing, else say that the answer is of before."""
        if self._turn is None:
            return
        if self._waits(self._turn.asked, again=True):
            return
        if self._current is None or isinstance(found := self._current[1], Hits) or found.generator == "extractive":
            with self.telling():
                self._begin(self._turn.asked, again=True)
        else:
            self.shown.grow_stale()
            self.say("The settings have changed since this answer: press Ask to have it written again.")

    def _begin(self, asked: str | bytes, *, again: bool = False) -> None:
        if self._waits(asked, again=again):
            self.say("Next: that question.")
            return
        self._stopped = threading.Event()
        self._turn = turn = self._prepare(asked, again=again)
        self._at_work = True
        self.say("Looking…")
        self._busy(True)
        self._thread = threading.Thread(target=self._work, args=(turn,), name="ufr-ask", daemon=True)
        self._thread.start()

    def _waits(self, asked: str | bytes, *, again: bool) -> bool:
        """True where an answer is on its way: this comes after it. The last new question wins; it has the new settings anyway."""
        with self._guard:
            if self._at_work and not (again and self._next):
                self._next = (asked, again)
            return self._at_work

    def _prepare(self, asked: str | bytes, *, again: bool) -> Turn:
        """What to do for a question with the settings as they are; `again` replaces what was said to it before."""
        options, writer = self.filters.options(), self.filters.writer()
        if self._own_generator is not None:
            writer = {"generator": self._own_generator}
        meant = self.talk.meant(asked, again=again) if isinstance(asked, str) else None
        pieces = None
        if meant is not None and meant.answer is None and self.mode.value == "Answer":
            pieces = self._pieces(str(asked), meant.question, {**options, **writer}, again=again)
        return Turn(asked, meant, pieces, options)

    def _work(self, turn: Turn | None) -> None:
        while turn is not None:
            with self.telling():
                self._answer(turn)
            turn = self._following()

    def _following(self) -> Turn | None:
        """What waits to be asked; None ends the work. Stop also drops what would only have been asked again."""
        while True:
            with self._guard:
                waiting, self._next = self._next, None
                if waiting is None or (waiting[1] and self._stopped.is_set()):
                    self._at_work = False
                    self._busy(False)
                    return None
            with self.telling():
                self._stopped = threading.Event()
                self._turn = turn = self._prepare(waiting[0], again=waiting[1])
                return turn

    def _busy(self, busy: bool) -> None:
        self.ask_button.disabled, self.stop_button.disabled = busy, not busy

    def _answer(self, turn: Turn) -> None:
        found: Answer | Hits | None
        if turn.meant is None or (turn.pieces is None and turn.meant.answer is None):
            found = self.rag.search(turn.asked if turn.meant is None else turn.meant.question, **turn.options)
        elif turn.pieces is None:
            found = turn.meant.answer
        else:
            found = self._written(turn.pieces, turn.meant.question)
        if found is None:
            self.say("Stopped. What was written so far stays; it is not in the history.")
            return
        self.filters.refresh()
        understood = f"Understood as: {turn.meant.question}" if turn.meant and turn.meant.rewritten(str(turn.asked)) else ""
        said = isinstance(found, Answer) and found.generator == REMEMBERED
        notes = [] if said else [understood, *why_so_little(self.rag, found, turn.options["modality"])]
        self.notice.value = markup.notes_html(note for note in notes if note)
        self.talk.add(turn, found)
        label = turn.asked if isinstance(turn.asked, str) else "a picture"
        self.answers.append((label, found))
        self._remember()
        self.samples.layout.display = "none"
        self._show(label, found, thumbnail(turn.asked) if isinstance(turn.asked, bytes) else "")
        self.say("")

    def _written(self, pieces: Iterator[str | Answer], question: str) -> Answer | None:
        """The answer, shown as it is written; None where Stop was pressed before its end."""
        text, shown_at = "", 0.0
        with closing(cast(Generator[str | Answer], pieces)):
            for piece in pieces:
                if isinstance(piece, Answer):
                    return piece
                if self._stopped.is_set():
                    break
                text += piece
                if time.monotonic() - shown_at >= _REFRESH_S:
                    shown_at = time.monotonic()
                    head = (
                        f'<div style="{markup.MUTED};font-size:13px" dir="auto">{markup.escape(markup.clip(question, 300))}</div>'
                    )
                    self.result.remove_class("ufr-stale")  # of the answer before
                    self.result.value = markup.card(f"{head}{answer_text(text)}", hue=markup.COOL)
                    self.say("Writing…")
        return None

    # ---- showing

    def _remember(self) -> None:
        numbered = [(f"{n}. {markup.clip(question, 80)}", n) for n, (question, _) in enumerate(self.answers, 1)]
        self.history.unobserve(self._show_earlier, "value")
        self.history.options = [("earlier questions", 0), *reversed(numbered)]
        self.history.value = 0
        self.history.observe(self._show_earlier, "value")
        self.thread_view.value = self.talk.html()

    def _show_earlier(self, change: Mapping[str, Any]) -> None:
        if change["new"]:
            with self.telling():
                self._show(*self.answers[change["new"] - 1])

    def _show(self, question: str, found: Answer | Hits, above: str = "") -> None:
        self._current = (question, found)
        self.shown.show(question, found, above)

    def save(self) -> None:
        """Write the answer shown, with its evidence, as one HTML file beside the notebook."""
        self.shown.save()

    def vote(self, value: int) -> None:
        """Store a thumbs up (1) or down (-1) for what is shown, or the passage chosen beside it."""
        self.shown.vote(value)

    def __repr__(self) -> str:
        return f"SearchWidget({counted(len(self.answers), 'question')} asked; without a notebook front end use rag.query(...))"


def _takes(function: Callable[..., Any], name: str) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)


def show(
    rag: Any,
    *,
    read: Callable[[str], str] = input,
    write: Callable[[str], object] | None = None,
    generator: Callable[..., Any] | None = None,
) -> SearchWidget | None:
    """The search panel where a notebook can show it; elsewhere a dialogue in text, until an empty line or end of input."""
    if detect().is_notebook:
        return SearchWidget(rag, generator=generator)
    write = write or sys.stdout.write
    write("Ask your documents; an empty line ends.\n")
    while True:
        try:
            question = read("? ").strip()
        except (EOFError, KeyboardInterrupt):
            return None
        if not question:
            return None
        try:
            write(f"{rag.query(question, generator=generator)}\n\n")
        except UltraFastRAGError as error:
            write(f"{error}\n\n")
