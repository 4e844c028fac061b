"""What all panels of `widgets.py` share: a box, a line that tells errors, buttons, the Enter key."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ultrafast_rag.notebook.display  # noqa: F401  registers the cards that panels show
from ultrafast_rag.errors import ConfigError, UltraFastRAGError, require
from ultrafast_rag.notebook import markup

STYLE = """<style>
.ufr-panel{container-type:inline-size}
.ufr-quiet>.widget-label,.ufr-quiet>label{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.ufr-panel button{max-width:100%}
.ufr-panel button:focus-visible,.ufr-panel input:focus-visible,.ufr-panel select:focus-visible,.ufr-panel summary:focus-visible,
.ufr-panel a:focus-visible,.ufr-panel [tabindex]:focus-visible{outline:2px solid rgb(76,141,214);outline-offset:1px}
.ufr-panel .ufr-cite{font-size:11px;font-weight:700;padding:0 5px;border-radius:8px;vertical-align:super;line-height:1.4;
cursor:pointer;color:inherit;background:rgba(76,141,214,.22);border:1px solid rgba(76,141,214,.6)}
.ufr-stale .widget-html-content{opacity:.5}
.ufr-panel .widget-html-content{line-height:normal;overflow:visible;min-width:0}
.ufr-panel .widget-html{height:auto;max-width:100%}
</style>"""  # the one style sheet; where a front end drops it, everything still works
WIDE = {"max_width": "980px", "width": "100%"}
ROW = {"flex_flow": "row wrap", "align_items": "center"}
_LAST_LETTERS_S = 0.15  # chosen: keys pressed just before Enter are still on their way
_log = logging.getLogger("ultrafast_rag")


def _plain_words(error: BaseException) -> str:
    """What to tell a person: our own errors say what to do; of others, what happened and where to look."""
    if isinstance(error, UltraFastRAGError):
        return str(error)
    return f"That did not work ({type(error).__name__}: {error}). The notebook's log has the details; the index is untouched."


class Panel:
    """What all panels share: a box, and a line that says what happens or what went wrong."""

    def __init__(self) -> None:
        self.widgets = require("ipywidgets", extra="notebook")
        self.status = self.widgets.HTML()
        self.box: Any = None

    def say(self, text: str, *, failed: bool = False) -> None:
        """Show one line; `failed` marks it."""
        mark = markup.badge("error", hue=markup.BAD) if failed else ""
        role = "alert" if failed else "status"  # what a screen reader says at once, and when it is done
        self.status.value = f'<div dir="auto" role="{role}">{mark}{markup.escape(text)}</div>' if text else ""

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Turn any error of the body into a line in the panel."""
        try:
            yield
        except Exception as error:  # there is no caller: a notebook drops what a callback raises
            if not isinstance(error, UltraFastRAGError):
                _log.exception("a panel's action failed")
            self.say(_plain_words(error), failed=True)

    def button(self, label: str, act: Callable[[], None], *, tooltip: str = "", style: str = "", icon: str = "") -> Any:
        """A button whose errors are told in the panel."""
        made = self.widgets.Button(description=label, tooltip=tooltip, button_style=style, icon=icon, layout={"width": "auto"})

        def clicked(_: object) -> None:
            with self.telling():
                act()

        made.on_click(clicked)
        return made

    def frame(self, *rows: Any) -> Any:
        """The panel's box around its rows, with the style sheet."""
        box = self.widgets.VBox([self.widgets.HTML(STYLE), *rows], layout=WIDE)
        box.add_class("ufr-panel")
        return box

    def _ipython_display_(self) -> None:
        from IPython.display import display

        # by hand rather than display(self.box), whose plain text is the whole tree of controls
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        display({"application/vnd.jupyter.widget-view+json": view, "text/plain": repr(self)}, raw=True)

    def close(self) -> None:
        """Take the panel away."""
        if self.box is not None:
            self.box.close()


def index_of(rag: Any) -> Any:
    """The same index; ConfigError, in words, for what is none, such as the name of its folder."""
    if not hasattr(rag, "documents"):
        raise ConfigError(f"a panel takes an UltraFastRAG, e.g. SearchWidget(UltraFastRAG('my_index')), not {rag!r:.80}")
    return rag


def unseen_label(control: Any) -> Any:
    """The same control, its description for screen readers only."""
    control.add_class("ufr-quiet")
    return control


def on_enter(text: Any, act: Callable[[], None]) -> None:
    """Call `act` when Enter is pressed.

    ipywidgets 8 calls on_submit old; what it offers instead also fires when the box is left. The front
    end sends what was typed after the key press itself, so in a running loop `act` waits for it; letter by letter
    (`continuous_update`) it would wait for the kernel between letters, and a busy one would read half a word.
    """

    def pressed(_: object) -> None:
        try:
            asyncio.get_running_loop().call_later(_LAST_LETTERS_S, act)
        except RuntimeError:  # no loop, so no front end that could send more
            act()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        text.on_submit(pressed)
