"""An index moved to another text model while the present one answers: a space beside it is filled, then takes its place.

The queue is refinement's: a passage without a vector in the new space is what is left to do, so a kill costs one batch, and
the next call goes on. Which model the space is for is kept beside it; another model begins anew. Old vectors, settings and
reference give way in one transaction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ultrafast_rag.config import CONFIG_FACT, LARGEST, Config
from ultrafast_rag.errors import ConfigError, did_you_mean
from ultrafast_rag.index.store import Store
from ultrafast_rag.index.stores.elsewhere import MOVED
from ultrafast_rag.ingest.refine import FOREGROUND_HOLD_S, STATIC, OnBatch, Refiner
from ultrafast_rag.ingest.stages import Until
from ultrafast_rag.models.registry import FINGERPRINTS, Models
from ultrafast_rag.models.text.tokens import same_space
from ultrafast_rag.remote.secrets import Secret
from ultrafast_rag.types import TEXT_SPACE

if TYPE_CHECKING:
    from ultrafast_rag.ingest.embed import Embedder

NEXT_SPACE = "text-next"
UNDER_WAY = "migration"  # fact of an index: the space that NEXT_SPACE's vectors are of
_MODEL = ("text_model", "query_prompt", "passage_prompt", "text_dim")  # a new model starts from their defaults
_SESSION = ("embeddings_base_url", "embeddings_timeout_s", "text_price_usd", "gemini_base_url")


class _Unbound:
    """`ports.Facts` of an index that is bound to nothing yet."""

    def get_meta(self, name: str, default: Any = None) -> Any:
        """As the port says: nothing is known."""
        return default

    def set_meta(self, name: str, value: Any) -> None:
        """As the port says: kept by whoever switches."""


def target_of(config: Config, settings: Mapping[str, Any]) -> Config:
    """The settings after the move. Raises ConfigError for a setting that is no text model's."""
    if "text_model" not in settings:
        raise ConfigError('migrate needs a text model, e.g. rag.migrate(text_model="intfloat/multilingual-e5-small")')
    for name in settings:
        if name not in (*_MODEL, *_SESSION):
            raise ConfigError(f"{name} is no setting of a text model{did_you_mean(name, (*_MODEL, *_SESSION))}")
    return config.replace(**{**dict.fromkeys(_MODEL[1:]), **settings})


class Migration:
    """One index on its way to `target`. Arguments as in `Mover`; on_whole: called in the thread that filled the space."""

    def __init__(
        self,
        store: Store,
        target: Config,
        *,
        key: Secret | None,
        embedder: Callable[[Callable[[], Any]], Embedder],
        on_whole: Callable[[], None],
    ) -> None:
        from ultrafast_rag.ingest.chunk import Chunker

        self.target, self.models = target, Models(target, _Unbound(), gemini_key=key)
        self._store = store
        self._refiner = Refiner(
            store,
            lambda: Chunker(target.replace(chunk_tokens=LARGEST), self.models.text()),  # passages were cut by another's tokens
            asking=lambda: embedder(self.models.text),
            writing=lambda: embedder(self.models.text),
            on_end=on_whole,
            space=NEXT_SPACE,
        )

    def begin(self) -> None:
        """Open the model, and drop what was filled for another. Raises ConfigError where it is the index's own."""
        space, present = self.models.text().space, self._store.get_meta(FINGERPRINTS, {}).get(TEXT_SPACE)
        if present is not None and same_space(present, space):
            raise ConfigError(f"the index's vectors are {self.target.text_model}'s already")
        if self._store.get_meta(UNDER_WAY) != space:
            self._store.drop_space(NEXT_SPACE)
            self._store.set_meta(UNDER_WAY, space)

    def start(self) -> None:
        """Fill the space in a thread."""
        self._refiner.start()

    def pause(self) -> None:
        """End the thread after its slice."""
        self._refiner.stop()

    def asking(self) -> AbstractContextManager[None]:
        """A question is being answered: the thread waits."""
        return self._refiner.asking()

    def run(self, stopping: Callable[[], bool], *, on_batch: OnBatch | None = None) -> bool:
        """Fill it here; True when all is there."""
        return self._refiner.run(stopping, on_batch=on_batch, hold_s=FOREGROUND_HOLD_S)

    def left(self) -> int:
        """Searchable passages without a vector in it."""
        return self._store.count_without(NEXT_SPACE)

    def switch(self) -> None:
        """Let the new vectors take the old ones' place, for good; passages that came meanwhile are encoded first."""
        made = self.models.facts(self._store.get_meta(FINGERPRINTS, {}))
        moved = {CONFIG_FACT: self.target.identity(), MOVED: int(self._store.get_meta(MOVED, 0)) + 1, UNDER_WAY: None}
        while not self._store.replace_space(TEXT_SPACE, NEXT_SPACE, {**made, **moved}):
            self._refiner.run(lambda: False, hold_s=math.inf)
        for space in self._store.spaces():
            if space.startswith(STATIC):  # the old model's, of passages that it had not encoded yet
                self._store.drop_space(space)

    def close(self) -> None:
        """End the thread after its slice; what it has encoded is kept, and the next migration to the same model goes on."""
        self._refiner.stop()
        self.models.close()


class Mover:
    """The migration that an index is under, if any.

    writing: held while the index is written, until its argument says so. embedder: over a text encoder. adopt: makes anew what
    asks for the text model.
    """

    def __init__(
        self,
        store: Store,
        writing: Callable[[Until | None], AbstractContextManager[None]],
        *,
        key: Secret | None,
        embedder: Callable[[Callable[[], Any]], Embedder],
        adopt: Callable[[Config], None],
        quiet: bool,
    ) -> None:
        self._store, self._writing, self._key, self._embedder, self._adopt = store, writing, key, embedder, adopt
        self._quiet = quiet
        self.under_way: Migration | None = None

    def migrate(self, target: Config, until: Until, *, wait: bool) -> float:
        """Begin or go on; the share of the passages encoded. wait: for all of them, or until `until`; else in a thread."""
        from ultrafast_rag.ingest.progress import refine_bar

        moving = self._aimed_at(target)
        moving.pause()
        if self.under_way is None:  # the thread has just brought it to its end
            return 1.0
        if not wait:
            moving.start()
            return self._share_of(moving)
        with self._writing(until):
            with refine_bar(moving.left(), quiet=self._quiet) as on_batch:
                whole = moving.run(until, on_batch=on_batch)
            share = self._share_of(moving)
            if whole:
                self._move_in()
        return 1.0 if whole else share

    def asking(self) -> AbstractContextManager[None]:
        """A question is being answered: the thread waits."""
        moving = self.under_way
        return moving.asking() if moving else nullcontext()

    def share(self) -> float | None:
        """Of the passages, those encoded by the next model; None where no migration is under way."""
        return self._share_of(moving) if (moving := self.under_way) else None

    def stop(self) -> None:
        """End what is under way after its slice, and give its model back."""
        moving, self.under_way = self.under_way, None
        if moving is not None:
            moving.close()

    def _aimed_at(self, target: Config) -> Migration:
        if self.under_way is not None and self.under_way.target == target:
            return self.under_way
        self.stop()
        moving = Migration(self._store, target, key=self._key, embedder=self._embedder, on_whole=self._move_in)
        try:
            moving.begin()
        except BaseException:  # nobody else knows it yet
            moving.close()
            raise
        self.under_way = moving
        return moving

    def _move_in(self) -> None:
        """The new vectors are all there: they take the old ones' place, and so does what asks for them."""
        with self._writing(None):
            moving = self.under_way
            if moving is not None:
                moving.switch()
                self.under_way = None
                self._adopt(moving.target)
                moving.close()

    def _share_of(self, moving: Migration) -> float:
        return 1 - moving.left() / max(self._store.counts()["chunks"], 1)
