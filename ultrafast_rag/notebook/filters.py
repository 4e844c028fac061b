"""Where and how the search panel looks: kinds, documents, pages, words against meaning, how many, who answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ultrafast_rag.errors import ConfigError
from ultrafast_rag.notebook import markup
from ultrafast_rag.types import MODALITIES

_SOURCES = 500  # chosen: a longer list is not scrolled, and slows the page
_PAGES = re.compile(r"\s*(\d{1,6})\s*(?:(?:-|–|to)\s*(\d{1,6})\s*)?")
_FITS = {"width": "auto", "max_width": "calc(100% - 4px)"}  # without its margins


class Filters:
    """Controls and what they say. changed: called when the user sets one; not when the panel does.

    choose_generator: whether `rag.query` can be told who answers.
    """

    def __init__(self, widgets: Any, rag: Any, changed: Callable[[], None], *, choose_generator: bool) -> None:
        self.rag, self._changed, self._quiet = rag, changed, False
        w, wide = widgets, {"description_width": "initial"}
        # "" stands for no choice: a Dropdown shows nothing at all for an option whose value is None
        kinds = [("everything", ""), *((m, m) for m in MODALITIES)]
        self.modality = w.Dropdown(options=kinds, description="Look in", style=wide, layout=_FITS)
        self.sources = w.SelectMultiple(
            options=[], description="Documents", rows=4, style=wide, layout={**_FITS, "flex": "1 1 260px"}
        )
        self.pages = w.Text(
            description="Pages", placeholder="all, or 4, or 3-9", continuous_update=False, style=wide, layout={"width": "170px"}
        )
        self.alpha = w.FloatSlider(
            value=rag.config.alpha, min=0, max=1, step=0.05, description="words ↔ meaning", continuous_update=False, style=wide,
            layout={"width": "300px", "max_width": "100%"},
        )  # fmt: skip
        self.k = w.BoundedIntText(value=5, min=1, max=100, description="Passages", style=wide, layout={"width": "140px"})
        writers = ["auto", "extractive", "gemini", "local"]
        self.generator = w.Dropdown(options=writers, description="Answered by", style=wide, layout=_FITS)
        self._choose_generator = choose_generator
        shown = [self.modality, self.alpha, self.pages, self.k, *([self.generator] if choose_generator else []), self.sources]
        self.box = w.HBox(shown, layout={"flex_flow": "row wrap", "align_items": "center"})
        for control in shown:
            control.observe(self._set, "value")

    def _set(self, _: object) -> None:
        if not self._quiet:
            self._changed()

    def options(self) -> dict[str, Any]:
        """Arguments for `rag.query` and `rag.search`. Raises ConfigError for pages that are no numbers."""
        filters: dict[str, Any] = {}
        if self.sources.value:
            filters["source"] = list(self.sources.value)
        if pages := self.pages.value.strip():
            if not (found := _PAGES.fullmatch(pages)):
                raise ConfigError(f"pages are a number or a range, e.g. 4 or 3-9, not {pages!r}")
            filters["page"] = [int(found[1]), int(found[2])] if found[2] else int(found[1])
        return {"k": self.k.value, "alpha": self.alpha.value, "modality": self.modality.value or None, "filters": filters or None}

    def writer(self) -> dict[str, Any]:
        """The generator, where one was chosen."""
        chosen = self._choose_generator and self.generator.value != "auto"
        return {"generator": self.generator.value} if chosen else {}

    def refresh(self) -> None:
        """List the index's documents; what was chosen stays chosen where it still exists."""
        chosen = self.sources.value
        sources = sorted({document.source for document in self.rag.documents()})[:_SOURCES]
        listed = tuple((short_name(source), source) for source in sources)
        if listed == tuple(self.sources.options):
            return
        self._quiet = True
        try:
            self.sources.options = listed
            self.sources.value = tuple(source for source in chosen if source in sources)
        finally:
            self._quiet = False


def short_name(source: str) -> str:
    """The last part of a source's path."""
    return markup.clip(source.replace("\\", "/").rsplit("/", 1)[-1], 60)
