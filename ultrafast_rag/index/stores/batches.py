"""Points on their way into a store: checked, in batches, several at once, sent again when one fails for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm.auto import tqdm

from ultrafast_rag.errors import ConfigError, VectorStoreError
from ultrafast_rag.types import Point

BATCH, WORKERS = 64, 4  # qdrant-client's own default batch, and as many at once as a small server has cores
OTHER_SIZE = "name another, or use the model that this one was filled with"  # what to do about vectors of another size
TRIES, PAUSE_S = 4, 0.25  # of one batch; the pause doubles: 0.25, 0.5 and 1 s


def send(
    points: Sequence[Point],
    put: Callable[[Sequence[Point]], object],
    *,
    size: int = BATCH,
    workers: int = 1,
    tries: int = TRIES,
    quiet: bool = True,
) -> None:
    """Hand checked points to `put` in batches.

    size: points a batch. workers: batches at once. tries: of each; 1 where the store's client tries again by itself.
    """
    batches = [points[at : at + size] for at in range(0, len(points), size)]
    with (
        tqdm(total=len(points), disable=quiet, desc="upload", unit="vector") as bar,
        ThreadPoolExecutor(workers, "ufr-upload") as pool,
    ):
        for batch, _ in zip(batches, pool.map(lambda batch: _again(lambda: put(batch), tries), batches)):
            bar.update(len(batch))


def _again(call: Callable[[], object], tries: int) -> None:
    """Call, and call again when the store failed for a moment; the last failure is raised."""
    for left in reversed(range(tries)):
        try:
            call()
            return
        except VectorStoreError as error:
            if not left or not error.transient:
                raise
            time.sleep(PAUSE_S * 2 ** (tries - 1 - left))


def check_points(points: Sequence[Point], dim: int, capabilities: frozenset[str]) -> None:
    """ConfigError for a point whose vector has not `dim` numbers, or with words where a store takes none."""
    check_asked(capabilities, words=any(point.words for point in points), alpha=None)
    for point in points:
        if len(point.vector) != dim:
            raise ConfigError(f"point {point.id} has {len(point.vector)} numbers, not {dim}")


def check_asked(capabilities: frozenset[str], *, words: bool, alpha: float | None) -> None:
    """ConfigError for what a store cannot do."""
    for name, asked in (("words", words), ("alpha", alpha is not None)):
        if asked and name not in capabilities:
            raise ConfigError(f"{name} cannot be searched by here: this store's capabilities say so")
    if alpha is not None and not (words and 0 <= alpha <= 1):
        raise ConfigError("alpha weighs meaning against words: it lies between 0 and 1, and words must be given too")
