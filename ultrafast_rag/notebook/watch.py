"""The live monitor panel: memory, processor, GPU and latencies."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from ultrafast_rag.errors import ConfigError, require
from ultrafast_rag.monitor import gpu_sample
from ultrafast_rag.notebook import markup
from ultrafast_rag.notebook.panel import WIDE, Panel

_SAMPLES = 60  # a minute at one a second


class MonitorWidget(Panel):
    """Memory, processor, GPU and latencies, live between Start and Stop."""

    def __init__(self, rag: Any, *, interval_s: float = 1.0) -> None:
        super().__init__()
        if interval_s <= 0:
            raise ConfigError(f"interval_s must be greater than 0, not {interval_s}")
        self._psutil = require("psutil", extra="notebook")
        self.rag, self.interval_s = rag, interval_s
        self.samples: deque[dict[str, float]] = deque(maxlen=_SAMPLES)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._process = self._psutil.Process()
        self.start_button = self.button("Start", self.start, style="primary")
        self.stop_button = self.button("Stop", self.stop)
        self.view = self.widgets.HTML()
        self.box = self.widgets.VBox(
            [self.widgets.HBox([self.start_button, self.stop_button]), self.status, self.view], layout=WIDE
        )
        self.stop_button.disabled = True
        self.refresh()

    def start(self) -> None:
        """Sample every interval_s seconds until `stop`."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(self._stop,), name="ultrafast-rag-monitor", daemon=True)
        self.start_button.disabled, self.stop_button.disabled = True, False
        self._thread.start()

    def stop(self) -> None:
        """End sampling."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self.interval_s + 5.0)
        self.start_button.disabled, self.stop_button.disabled = False, True

    def close(self) -> None:
        """End sampling and take the panel away."""
        self.stop()
        super().close()

    def refresh(self) -> None:
        """Take one sample and show it."""
        self.samples.append(self._sample())
        self.view.value = self._draw()

    def _watch(self, stop: threading.Event) -> None:
        with self.telling():
            while not stop.wait(self.interval_s):
                self.refresh()

    def _sample(self) -> dict[str, float]:
        sample = {
            "memory MiB": self._process.memory_info().rss / 2**20,
            "processor %": self._process.cpu_percent(),
            "memory free MiB": self._psutil.virtual_memory().available / 2**20,
        }
        return sample | gpu_sample()

    def _draw(self) -> str:
        last = self.samples[-1]
        tiles = "".join(
            f'<div style="margin:0 24px 8px 0"><div style="font-size:20px;font-weight:600">{value:,.0f}</div>'
            f'<div style="{markup.MUTED}">{markup.escape(name)}</div>{_sparkline([s.get(name, 0.0) for s in self.samples])}</div>'
            for name, value in last.items()
        )
        latency = self.rag.stats().get("latency", {})
        rows = [{"call": name, **values} for name, values in latency.items()]
        table = markup.table_html(rows, title="Latency") if rows else ""
        return markup.card(f'<div style="display:flex;flex-wrap:wrap">{tiles}</div>{table}', hue=markup.COOL)

    def __repr__(self) -> str:
        return f"MonitorWidget({len(self.samples)} samples)"


def _sparkline(values: Sequence[float]) -> str:
    peak = max(values, default=0.0)
    if peak <= 0 or len(values) < 2:
        return ""
    heights = [max(1.0, 24 * value / peak) for value in values]
    look = f"width:2px;background:rgba({markup.COOL},.8)"
    bars = "".join(f'<div style="{look};height:{height:.0f}px"></div>' for height in heights)
    return f'<div style="display:flex;align-items:flex-end;gap:1px;height:24px">{bars}</div>'
