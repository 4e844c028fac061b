"""The panel for ingesting: upload files or name a path, see how far it is, pause and resume."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ultrafast_rag.errors import ConfigError, StorageError
from ultrafast_rag.notebook import markup
from ultrafast_rag.notebook.panel import ROW, Panel, index_of, on_enter, unseen_label
from ultrafast_rag.types import IngestReport, ProgressState

_REFRESH_S = 0.25  # chosen: a bar that moves faster flickers


class IngestWidget(Panel):
    """Upload files or name a path, watch progress, pause and resume.

    Work runs in a thread: the notebook stays usable. uploads: the local folder that uploaded files
    are kept in, since the index shows them as evidence later.
    """

    def __init__(self, rag: Any, *, uploads: Path | str = "uploads") -> None:
        super().__init__()
        self.rag, self.uploads = index_of(rag), Path(uploads)
        self.report: IngestReport | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._sources: tuple[str, ...] = ()
        self._shown_at = 0.0
        w, row = self.widgets, ROW
        self.path = w.Text(
            description="File or folder",
            placeholder="A file or folder, e.g. papers/",
            layout={"flex": "1 1 240px", "width": "auto"},
        )
        unseen_label(self.path)
        on_enter(self.path, self._submit)
        self.upload = w.FileUpload(multiple=True, description="Upload")
        self.start_button = self.button("Ingest", self.start, style="primary")
        self.pause_button = self.button("Pause", self.pause)
        self.resume_button = self.button("Resume", self.resume)
        self.bar = w.FloatProgress(min=0, max=1, layout={"width": "auto"})
        self.result = w.HTML()
        row_of = [self.path, self.upload, self.start_button, self.pause_button, self.resume_button]
        self.box = self.frame(w.HBox(row_of, layout=row), self.bar, self.status, self.result)
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
            self.bar.value = max(self.bar.value, state.fraction)  # of a total that is estimated while files are opened
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
