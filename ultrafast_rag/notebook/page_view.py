"""The whole page behind a citation: its passage marked, the pages before and after it, a recording at its second."""

from __future__ import annotations

from typing import Any

from ultrafast_rag.notebook import markup
from ultrafast_rag.notebook.panel import ROW, Panel
from ultrafast_rag.types import Citation, Evidence, Hit, Leaf

_PAGE_BYTES = 900_000  # a message to the browser: Jupyter allows 1 MB a second


class PageView(Panel):
    """Hidden until `open`; Close hides it again."""

    def __init__(self, rag: Any) -> None:
        super().__init__()
        self.rag = rag
        self._hit: Hit | None = None
        self._quote = ""
        self._leaf = Leaf(None)
        self.view = self.widgets.HTML()
        self.previous = self.button("Previous page", lambda: self.turn(-1), icon="arrow-left")
        self.next = self.button("Next page", lambda: self.turn(1), icon="arrow-right")
        self.close_button = self.button("Close page", self.hide)
        bar = self.widgets.HBox([self.previous, self.next, self.close_button], layout=ROW)
        self.box = self.widgets.VBox([bar, self.status, self.view], layout={"display": "none", "width": "100%"})

    def open(self, cited: Citation | Hit) -> None:
        """Show the page of a citation, or of a hit."""
        self._hit, self._quote = (cited.hit, cited.quote) if isinstance(cited, Citation) else (cited, "")
        self._show(None)
        self.box.layout.display = ""

    def turn(self, by: int) -> None:
        """The page so many further."""
        self._show(self._leaf.number + by)

    def hide(self) -> None:
        """Take the page away."""
        self.box.layout.display = "none"
        self.view.value = ""

    def _show(self, number: int | None) -> None:
        hit = self._hit
        if hit is None:
            return
        self._leaf = leaf = self.rag.page(hit, number)
        self.previous.disabled, self.next.disabled = leaf.number <= 1, leaf.number >= leaf.of
        self.view.value = leaf_html(leaf, hit, self._quote)
        self.say("")


def leaf_html(leaf: Leaf, hit: Hit, quote: str) -> str:
    """A page as a card: the picture of it, or the passage with what stands around it; a player at its second."""
    here = not leaf.number or leaf.number == hit.page
    name = hit.where if here else f"{hit.where.rsplit(', page', 1)[0]}, page {leaf.number}"
    head = f'<div style="font-weight:600;margin-bottom:6px"><bdi>{markup.escape(name)}</bdi>'
    head += f' <span style="{markup.MUTED};font-weight:400">of {leaf.of} pages</span></div>' if leaf.of else "</div>"
    shown = _picture(leaf.evidence, name, marked=here) if leaf.evidence else ""
    words = "" if leaf.number else _words(hit, quote)
    return markup.card(head + shown + words, hue=markup.COOL)


def _picture(evidence: Evidence, name: str, *, marked: bool) -> str:
    fitted = markup.fit_picture(evidence, _PAGE_BYTES) if evidence.media_type in markup.PICTURES else evidence
    alt = f"{name}, the passage marked in yellow" if marked else name
    return markup.evidence_html(fitted or Evidence("", b"", caption="too large to show here"), alt=alt, tall=True)


def _words(hit: Hit, quote: str) -> str:
    before, after = (f'<span style="opacity:.7">{markup.escape(text)}</span>' for text in hit.neighbours)
    passage = markup.marked(hit.text, quote) if quote else markup.escape(hit.text)
    pieces = (f'<div dir="auto" style="white-space:pre-wrap;margin-top:8px">{piece}</div>' for piece in (before, passage, after))
    return "".join(pieces)
