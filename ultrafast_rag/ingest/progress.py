"""One bar for an ingest: parts done, time left, pages a second, memory. Plain lines where nobody watches."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ultrafast_rag.types import ProgressState

LINE_EVERY_S = 10.0  # where no bar can be drawn


@contextmanager
def progress_bar(*, quiet: bool, label: str = "ingest") -> Iterator[Callable[[ProgressState], None] | None]:
    """A callback that draws each state; None when quiet."""
    if quiet:
        yield None
        return
    if os.environ.get("CI") or not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        yield _Lines(label)
        return
    from tqdm.auto import tqdm

    with tqdm(desc=label, unit="page", dynamic_ncols=True, leave=False) as bar:

        def draw(state: ProgressState) -> None:
            bar.total = state.parts_total
            bar.set_postfix_str(f"{state.chunks} chunks, {state.rss_mb:.0f} MB", refresh=False)
            bar.update(state.parts - bar.n)

        yield draw


@contextmanager
def refine_bar(passages: int, *, quiet: bool) -> Iterator[Callable[[int], object] | None]:
    """A callback that counts passages as they get their vectors; None when quiet or when none is left."""
    if quiet or not passages:
        yield None
        return
    from tqdm.auto import tqdm

    watched = (sys.stderr.isatty() or "ipykernel" in sys.modules) and not os.environ.get("CI")
    with tqdm(desc="refine", unit="passage", total=passages, dynamic_ncols=True, leave=False, disable=not watched) as bar:
        yield bar.update


class _Lines:
    """A line now and then, for logs."""

    def __init__(self, label: str) -> None:
        self._label, self._next_s = label, LINE_EVERY_S

    def __call__(self, state: ProgressState) -> None:
        if state.seconds < self._next_s:
            return
        self._next_s = state.seconds + LINE_EVERY_S
        of = f" of {state.parts_total}" if state.parts_total else ""
        sys.stderr.write(f"{self._label}: {state.parts}{of} pages, {state.chunks} chunks, {state.seconds:.0f} s\n")
