"""An answer in a panel: its card, a button for each citation's page, copying, saving, thumbs up and down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ultrafast_rag.errors import ConfigError
from ultrafast_rag.notebook import markup, saved
from ultrafast_rag.notebook.display import answer_html, hits_html
from ultrafast_rag.notebook.page_view import PageView
from ultrafast_rag.notebook.panel import ROW, Panel
from ultrafast_rag.types import Answer, Citation, Hit, Hits

_OPENED = 8  # chosen: citations with a button of their own


class AnswerView(Panel):
    """Shows one answer, or passages, at a time. say: tells the user a line."""

    def __init__(self, rag: Any, *, say: Callable[..., None]) -> None:
        super().__init__()
        self.rag, self.say = rag, say  # type: ignore[method-assign]
        self._current: tuple[str, Answer | Hits] | None = None
        w, wide = self.widgets, {"description_width": "initial"}
        self.card = w.HTML()
        self.opened = w.HBox([], layout=ROW)
        self.pages = PageView(rag)
        self.copied = w.HTML()
        self.save_button = self.button("Save as HTML", self.save, tooltip="One file with the answer and its evidence")
        self.saved = w.HTML()
        layout = {"max_width": "100%", "width": "auto"}
        self.about = w.Dropdown(options=[("the whole answer", 0)], description="Feedback on", style=wide, layout=layout)
        self.up = self.button("Helpful", lambda: self.vote(1), icon="thumbs-up")
        self.down = self.button("Not helpful", lambda: self.vote(-1), icon="thumbs-down")
        row = [self.copied, self.save_button, self.up, self.down, self.about]
        self.actions = w.HBox(row, layout={**ROW, "display": "none"})
        self.box = w.VBox([self.card, self.opened, self.pages.box, self.actions, self.saved], layout={"width": "100%"})

    def show(self, question: str, found: Answer | Hits, above: str = "") -> None:
        """Show what was found; above: HTML before it."""
        self._current = (question, found)
        self.pages.hide()
        self.card.remove_class("ufr-stale")
        drawn = hits_html(found) if isinstance(found, Hits) else answer_html(found, mark=citation_mark)
        self.card.value = above + drawn
        hits = found if isinstance(found, Hits) else found.hits
        whole = "these passages" if isinstance(found, Hits) else "the whole answer"
        listed = [(f"{n}. {markup.clip(hit.where, 60)}", hit.chunk_id) for n, hit in enumerate(hits, 1) if hit.chunk_id > 0]
        self.about.options = [(whole, 0), *listed]
        self.about.value = 0
        cited: list[tuple[int, Citation | Hit]] = [] if isinstance(found, Hits) else [(c.number, c) for c in found.citations]
        cited = cited or list(enumerate(hits, 1))
        self.opened.children = tuple(self._opener(number, one) for number, one in cited[:_OPENED])
        self.copied.value, self.saved.value = saved.copy_button(found), ""
        self.actions.layout.display = "flex"

    def grow_stale(self) -> None:
        """Dim the answer: it no longer is one to the settings as they are."""
        self.card.add_class("ufr-stale")

    def _opener(self, number: int, cited: Citation | Hit) -> Any:
        """A button for the page of a citation; a click on its number in the text presses it."""
        hit = cited.hit if isinstance(cited, Citation) else cited
        label, tip = f"{number} · {markup.clip(hit.where, 60)}", f"Open {hit.where} with the passage marked"
        made = self.button(label, lambda: self.pages.open(cited), tooltip=tip, icon="file-o")
        made.add_class(f"ufr-open-{number}")
        return made

    def save(self) -> None:
        """Write the answer shown, with its evidence, as one HTML file beside the notebook, and offer it for download."""
        if self._current is None:
            raise ConfigError("Ask something first; then the answer can be saved.")
        path = saved.save_page(self._current[1], Path.cwd())
        self.saved.value = f'<div role="status">{saved.download_link(path)}</div>'

    def vote(self, value: int) -> None:
        """Store a thumbs up (1) or down (-1) for what is shown, or the passage chosen beside it."""
        if self._current is None:
            raise ConfigError("Ask something first, then say whether it helped.")
        self.rag.feedback(self._current[0], self.about.value or None, value)
        self.say("Thank you: stored in the index.")


def citation_mark(number: int, where: str) -> str:
    """A citation's number in the text, as a button that opens its page."""
    press = f"const b=this.closest('.ufr-panel').querySelector('.ufr-open-{number}');b&&b.click()"
    named = markup.escape(f"source {number}: {where}")
    return f'<button type="button" class="ufr-cite" aria-label="{named}" title="{named}" onclick="{press}">[{number}]</button>'
