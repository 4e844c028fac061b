"""Panels for asking, ingesting and watching, from ipywidgets 7.7 or 8 and nothing else.

No scripts of our own: every panel is stock widgets, and its answers are `display.py`'s cards. What
goes wrong appears in the panel in plain words, because a notebook hides what a callback raises.
Where no front end is, `show` falls back to a text dialogue.
"""

from __future__ import annotations

import inspect
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ultrafast_rag.errors import ConfigError, StorageError, UltraFastRAGError
from ultrafast_rag.notebook import markup
from ultrafast_rag.notebook.panel import ROW, WIDE, Panel, on_enter
from ultrafast_rag.notebook.platform import detect
from ultrafast_rag.notebook.watch import MonitorWidget
from ultrafast_rag.types import MODALITIES, Answer, Hits, IngestReport, ProgressState

__all__ = ["IngestWidget", "MonitorWidget", "SearchWidget", "progress_words", "show", "uploaded_files"]

_HISTORY, _SOURCES, _REFRESH_S = 50, 500, 0.25


class SearchWidget(Panel):
    """Question box, filters, answer with evidence, history, thumbs. Enter asks.

    rag: a UltraFastRAG. `answers` holds what was shown, oldest first, as (question, Answer or Hits).
    """

    def __init__(self, rag: Any) -> None:
        super().__init__()
        self.rag = rag
        self.answers: deque[tuple[str, Answer | Hits]] = deque(maxlen=_HISTORY)
        w, wide = self.widgets, {"description_width": "initial"}
        self.question = w.Text(placeholder="Ask your documents, then press Enter", layout={"flex": "1 1 320px", "width": "auto"})
        on_enter(self.question, self._submit)
        self.ask_button = self.button("Ask", self.ask, style="primary", tooltip="Ask (Enter)")
        self.mode = w.ToggleButtons(options=["Answer", "Passages"], style={"button_width": "84px"})
        # "" and 0 stand for no choice: a Dropdown shows nothing at all for an option whose value is None
        kinds = [("everything", ""), *((m, m) for m in MODALITIES)]
        self.modality = w.Dropdown(options=kinds, description="Look in", style=wide)
        self.source = w.Dropdown(options=[("every document", "")], description="Document", style=wide)
        self.alpha = w.FloatSlider(
            value=rag.config.alpha, min=0, max=1, step=0.05, description="words ↔ meaning", continuous_update=False, style=wide
        )
        self.k = w.BoundedIntText(value=5, min=1, max=100, description="Passages", style=wide, layout={"width": "140px"})
        self.generator = w.Dropdown(options=["auto", "extractive", "gemini", "local"], description="Answered by", style=wide)
        self.result = w.HTML()
        self.history = w.Dropdown(options=[("earlier questions", 0)], layout={"width": "auto", "flex": "1 1 200px"})
        self.history.observe(self._show_earlier, "value")
        self.about = w.Dropdown(options=[("the whole answer", 0)], description="Feedback on", style=wide)
        self.up = self.button("Helpful", lambda: self.vote(1), icon="thumbs-up")
        self.down = self.button("Not helpful", lambda: self.vote(-1), icon="thumbs-down")
        self._can_choose = _takes(rag.query, "generator")
        self._current: tuple[str, Answer | Hits] | None = None
        self._lay_out()
        self.refresh_sources()

    def _lay_out(self) -> None:
        w, row = self.widgets, ROW
        filters = [self.modality, self.source, self.alpha, self.k, *([self.generator] if self._can_choose else [])]
        self.feedback_row = w.HBox([self.about, self.up, self.down], layout={**row, "display": "none"})
        self.box = w.VBox(
            [
                w.HBox([self.question, self.ask_button, self.mode], layout=row),
                w.HBox(filters, layout=row),
                self.status,
                self.result,
                self.feedback_row,
                w.HBox([self.history], layout=row),
            ],
            layout=WIDE,
        )

    def refresh_sources(self) -> None:
        """List the index's documents in the source filter; the choice stays where it still exists."""
        with self.telling():
            chosen = self.source.value
            sources = sorted({document.source for document in self.rag.documents()})
            shown = [(_short(source), source) for source in sources[:_SOURCES]]
            self.source.options = [("every document", ""), *shown]
            self.source.value = chosen if chosen in sources[:_SOURCES] else ""

    def _submit(self) -> None:
        with self.telling():
            self.ask()

    def ask(self) -> None:
        """Ask what is in the box, with the filters as set, and show the answer."""
        question = self.question.value.strip()
        if not question:
            raise ConfigError("Type a question first.")
        self.refresh_sources()
        options: dict[str, Any] = {"k": self.k.value, "alpha": self.alpha.value, "modality": self.modality.value or None}
        options["filters"] = {"source": self.source.value} if self.source.value else None
        self.ask_button.disabled = True
        self.say("Looking…")
        try:
            if self.mode.value == "Passages":
                found: Answer | Hits = self.rag.search(question, **options)
            else:
                chosen = {"generator": self.generator.value} if self._can_choose and self.generator.value != "auto" else {}
                found = self.rag.query(question, **options, **chosen)
        finally:
            self.ask_button.disabled = False
        self.say("")
        self.answers.append((question, found))
        self._remember()
        self._show(question, found)

    def _remember(self) -> None:
        numbered = [(f"{n}. {markup.clip(question, 80)}", n) for n, (question, _) in enumerate(self.answers, 1)]
        self.history.unobserve(self._show_earlier, "value")
        self.history.options = [("earlier questions", 0), *reversed(numbered)]
        self.history.value = 0
        self.history.observe(self._show_earlier, "value")

    def _show_earlier(self, change: Mapping[str, Any]) -> None:
        if change["new"]:
            with self.telling():
                self._show(*self.answers[change["new"] - 1])

    def _show(self, question: str, found: Answer | Hits) -> None:
        self._current = (question, found)
        self.result.value = found._repr_html_()
        hits = found if isinstance(found, Hits) else found.hits
        whole = "these passages" if isinstance(found, Hits) else "the whole answer"
        listed = [(f"{n}. {markup.clip(hit.where, 60)}", hit.chunk_id) for n, hit in enumerate(hits, 1)]
        self.about.options = [(whole, 0), *listed]
        self.about.value = 0
        self.feedback_row.layout.display = "flex"

    def vote(self, value: int) -> None:
        """Store a thumbs up (1) or down (-1) for what is shown, or the passage chosen beside it."""
        if self._current is None:
            raise ConfigError("Ask something first, then say whether it helped.")
        self.rag.feedback(self._current[0], self.about.value or None, value)
        self.say("Thank you: stored in the index.")

    def __repr__(self) -> str:
        return f"SearchWidget({len(self.answers)} questions asked; without a notebook front end use rag.query(...))"


class IngestWidget(Panel):
    """Upload files or name a path, watch progress, pause and resume.

    Work runs in a thread: the notebook stays usable. uploads: the local folder that uploaded files
    are kept in, since the index shows them as evidence later.
    """

    def __init__(self, rag: Any, *, uploads: Path | str = "uploads") -> None:
        super().__init__()
        self.rag, self.uploads = rag, Path(uploads)
        self.report: IngestReport | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._sources: tuple[str, ...] = ()
        self._shown_at = 0.0
        w, row = self.widgets, ROW
        self.path = w.Text(placeholder="A file or folder, e.g. papers/", layout={"flex": "1 1 320px", "width": "auto"})
        on_enter(self.path, self._submit)
        self.upload = w.FileUpload(multiple=True, description="Upload")
        self.start_button = self.button("Ingest", self.start, style="primary")
        self.pause_button = self.button("Pause", self.pause)
        self.resume_button = self.button("Resume", self.resume)
        self.bar = w.FloatProgress(min=0, max=1, layout={"width": "100%"})
        self.result = w.HTML()
        self.box = w.VBox(
            [
                w.HBox([self.path, self.upload, self.start_button, self.pause_button, self.resume_button], layout=row),
                self.bar, self.status, self.result,
            ],
            layout=WIDE,
        )  # fmt: skip
        self._enable(running=False)

    @property
    def running(self) -> bool:
        """Whether an ingest of this panel is at work."""
        return self._thread is not None and self._thread.is_alive()

    def _submit(self) -> None:
        with self.telling():
            self.start()

    def start(self) -> None:
        """Ingest the uploaded files and the path in the box."""
        if self.running:
            raise ConfigError("An ingest is at work already; pause it first.")
        uploaded = [str(path) for path in self._save_uploads()]
        typed = [self.path.value.strip()] if self.path.value.strip() else []
        if not uploaded and not typed:
            raise ConfigError("Upload files, or type the path of a file or folder.")
        self._begin((*uploaded, *typed))

    def pause(self) -> None:
        """Stop in good order after the batch in hand; what is committed stays."""
        self._stop.set()
        self.say("Pausing after the batch in hand…")

    def resume(self) -> None:
        """Resume with the same sources; finished documents are skipped."""
        if self.running:
            raise ConfigError("It is still at work.")
        if not self._sources:
            raise ConfigError("There is nothing to resume yet.")
        self._begin(self._sources)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the work in hand ends; False when timeout_s ran out first."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return not self.running

    def _begin(self, sources: tuple[str, ...]) -> None:
        self._sources, self._stop, self._shown_at = sources, threading.Event(), 0.0
        self.bar.value, self.bar.bar_style, self.result.value = 0.0, "", ""
        self._enable(running=True)
        self.say("Starting…")
        self._thread = threading.Thread(target=self._work, name="ultrafast-rag-ingest", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        done = False
        with self.telling():
            try:
                self.report = self.rag.ingest(*self._sources, on_progress=self._progress, stop=self._stop)
                done = self.report.complete
                self.result.value = self.report._repr_html_()
                self.say("Done." if done else "Paused. Press Resume to continue.")
                self.bar.value = 1.0 if done else self.bar.value
                self.bar.bar_style = "success" if done and not self.report.failed else "warning"
            except BaseException:  # an interrupt too is shown on the bar
                self.bar.bar_style = "danger"
                raise
        self._enable(running=False, more=not done)

    def _progress(self, state: ProgressState) -> None:
        now = time.monotonic()
        if not state.done and now - self._shown_at < _REFRESH_S:
            return  # a front end drowns in a message per page
        self._shown_at = now
        if state.fraction is not None:
            self.bar.value = state.fraction
        if not self._stop.is_set():
            self.say(progress_words(state))

    def _enable(self, *, running: bool, more: bool = False) -> None:
        self.start_button.disabled = running
        self.pause_button.disabled = not running
        self.resume_button.disabled = running or not more

    def _save_uploads(self) -> list[Path]:
        """Write what was uploaded into the folder for uploads, under safe names, and empty the control."""
        files = list(uploaded_files(self.upload.value))
        paths = []
        try:
            for name, content in files:
                self.uploads.mkdir(parents=True, exist_ok=True)
                path = self.uploads / _safe_name(name)
                path.write_bytes(content)
                paths.append(path)
        except OSError as error:
            raise StorageError(f"uploads cannot be put in {self.uploads}: {error}. Make room or choose another folder") from error
        if isinstance(self.upload.value, dict):  # ipywidgets 7: a read-only trait whose dict may be emptied
            self.upload.value.clear()
            self.upload._counter = 0
        else:
            self.upload.value = ()
        return paths

    def __repr__(self) -> str:
        return f"IngestWidget({'at work' if self.running else 'idle'}; without a notebook front end use rag.ingest(...))"


def progress_words(state: ProgressState) -> str:
    """One line of progress: what is read, how far, how fast, how long still, how much memory."""
    parts = [Path(state.source).name] if state.source else []
    total = f" of {state.parts_total}" if state.parts_total else ""
    parts.append(f"{state.parts}{total} parts, {state.chunks} chunks")
    if state.seconds > 0 and state.parts:
        parts.append(f"{state.parts / state.seconds:.1f} parts/s")
    if state.eta_s is not None and not state.done:
        parts.append(f"{markup.milliseconds(max(1.0, state.eta_s))} left")
    if state.rss_mb:
        parts.append(f"{state.rss_mb:.0f} MiB of memory")
    return " · ".join(parts)


def uploaded_files(value: Any) -> Iterator[tuple[str, bytes]]:
    """(name, content) of a FileUpload's value: a dict by name in ipywidgets 7, a tuple of records in 8."""
    if isinstance(value, Mapping):
        for name, record in value.items():
            yield str(name), bytes(record["content"])
    else:
        for record in value:
            yield str(record["name"]), bytes(record["content"])


def _safe_name(name: str) -> str:
    """The last part of an uploaded file's name without what a file system or a shell trips over."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = re.sub(r"[^\w.() -]+", "_", last).strip(" .")
    stem, dot, suffix = kept.rpartition(".")
    return f"{(stem or suffix)[:100]}{dot if stem else ''}{suffix[:12] if stem else ''}" or "upload"


def _short(source: str) -> str:
    return markup.clip(source.replace("\\", "/").rsplit("/", 1)[-1], 60)


def _takes(function: Callable[..., Any], name: str) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)


def show(rag: Any, *, read: Callable[[str], str] = input, write: Callable[[str], object] | None = None) -> SearchWidget | None:
    """The search panel where a notebook can show it; elsewhere a dialogue in text, until an empty line or end of input."""
    if detect().is_notebook:
        return SearchWidget(rag)
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
            write(f"{rag.query(question)}\n\n")
        except UltraFastRAGError as error:
            write(f"{error}\n\n")
