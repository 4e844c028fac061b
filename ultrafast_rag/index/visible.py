"""Which chunks show: to everyone at one moment of the index, and to a filter, each looked at before it is believed.

A row that is lost or hidden by damage must not be missed in silence, so totals and checksums are compared, each once.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ultrafast_rag.errors import IndexCorruptError
from ultrafast_rag.index import filters as filter_sql
from ultrafast_rag.index import records, rows, totals
from ultrafast_rag.index.database import Database
from ultrafast_rag.types import Mask

_MASKS_KEPT = 16  # filters asked again in one session


class Moment(NamedTuple):
    """What shows in one generation. removals: of documents; while they stay, newer masks only grow. runs: by first chunk."""

    generation: int = -1
    removals: int = -1
    runs: totals.Runs = totals.runs_of([])
    mask: Mask = np.zeros(1, dtype=np.bool_)


def run_of(runs: totals.Runs, chunk_id: int) -> int:
    """Place of the run that a chunk lies in, or would."""
    return max(int(np.searchsorted(runs[:, 1], chunk_id, side="right")) - 1, 0)


class Visible:
    """What shows of one index. Thread-safe; kept until the next commit, whichever process makes it."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._keeping, self._checking = threading.RLock(), threading.Lock()
        self._moment = Moment()
        self._masks: OrderedDict[str, tuple[int, Mask]] = OrderedDict()
        self._checked_chunks, self._checked_documents = 0, -1  # up to this id; in this generation

    @property
    def _sums(self) -> bool:
        return self._db.format > 1

    def now(self, reader: sqlite3.Connection) -> Moment:
        """What shows in the reader's moment of the index."""
        total = "visible_runs" if self._sums else "NULL"
        with self._keeping:
            row = reader.execute(f"SELECT generation, removals, {total} FROM state").fetchone()
            generation, removals = (rows.integer(value, "an index's generation") for value in (row or (None, None))[:2])
            old = self._moment
            if generation == old.generation:
                return old
            grows = removals == old.removals and generation > old.generation
            found = reader.execute(
                "SELECT p.document, p.first_chunk, p.chunks FROM parts p JOIN documents d ON d.key = p.document "
                "WHERE d.visible AND p.chunks > 0 AND p.first_chunk > ? ORDER BY p.first_chunk",
                (len(old.mask) - 1 if grows else 0,),
            ).fetchall()
            runs = totals.runs_of(found)
            mask = records.mask_of(runs, old.mask if grows else old.mask[:1])
            runs = np.concatenate([old.runs, runs]) if grows else runs
            if row[2] is not None and (row[2] != totals.runs_sum(runs) or mask.sum() != runs[:, 2].sum()):
                raise totals.lost("the passages")
            seen = Moment(generation, removals, runs, mask)
            if generation > old.generation:
                self._moment = seen
            return seen

    def allowed(self, reader: sqlite3.Connection, filters: Mapping[str, Any]) -> Mask:
        """Mask of the chunks that show and match every filter; read-only. No filters: of all that show."""
        moment = self.now(reader)
        if not filters:
            return moment.mask
        name = json.dumps(filters, sort_keys=True, default=str)
        with self._keeping:
            known = self._masks.get(name)
            if known and known[0] == moment.generation:
                return known[1]
        mask = moment.mask.copy()
        for condition in filter_sql.conditions(filters):
            mask &= self._matching(reader, moment, condition)
        mask.flags.writeable = False
        with self._keeping:
            self._masks[name] = (moment.generation, mask)
            if len(self._masks) > _MASKS_KEPT:
                self._masks.popitem(last=False)
        return mask

    def documents(self, reader: sqlite3.Connection) -> list[Sequence[Any]]:
        """Every document's row, visible or not, by key; IndexCorruptError when one fails its checksum, or is lost."""
        found = reader.execute(rows.select_documents(self._db.format) + "NOT INDEXED ORDER BY d.key").fetchall()
        if self._sums:
            if sum(rows.sealed_as(row[-1]) for row in found) != totals.total(reader, "all_documents"):
                raise totals.lost("the documents")
            for row in found:
                rows.check_document(row)
        return found

    def check_documents(self, reader: sqlite3.Connection, moment: Moment) -> None:
        """Compare every document's checksum, once a generation: what a filter passes over is not looked at again."""
        if self._checked_documents != moment.generation:
            self.documents(reader)
            self._checked_documents = moment.generation

    def check_chunks(self, reader: sqlite3.Connection, moment: Moment) -> None:
        """Compare what filters look at in every chunk that was not compared yet (2.5 us a chunk, once a process)."""
        if not self._sums:
            return
        with self._checking:
            last, found = self._checked_chunks, []
            query = "SELECT id, document, modality, page, metadata, sum FROM chunks NOT INDEXED WHERE id > ? ORDER BY id"
            for *fields, total in reader.execute(query, (last,)):
                if type(total) is not int or total & 0xFFFFFFFF != rows.filtered_sum(*fields):
                    raise IndexCorruptError(f"passage {fields[0]!r} fails its checksum. {rows.ADVICE}")
                found.append(fields[0])
            missing = moment.mask.copy()
            missing[: last + 1] = False
            ids = np.array(found, dtype=np.int64)
            missing[ids[ids < len(missing)]] = False
            if missing.any():
                raise totals.lost("the passages")
            self._checked_chunks = max(last, found[-1] if found else 0)

    def _matching(self, reader: sqlite3.Connection, moment: Moment, condition: filter_sql.Condition) -> Mask:
        """Chunks that meet a condition, by what is known of them or of their documents; by no index, which could hide some."""
        mask = np.zeros(len(moment.mask), dtype=np.bool_)
        if condition.documents or condition.sources:
            self.check_documents(reader, moment)
            if condition.documents:
                query = f"SELECT key FROM documents d NOT INDEXED WHERE d.visible AND {condition.documents[0]}"
                keys = [row[0] for row in reader.execute(query, condition.documents[1])]
            else:
                named = reader.execute("SELECT key, source FROM documents NOT INDEXED WHERE visible").fetchall()
                keys = [key for key, source in named if any(filter_sql.matches_source(source, one) for one in condition.sources)]
            mask |= records.mask_of(moment.runs[np.isin(moment.runs[:, 0], keys)], mask)
        if condition.chunks:
            self.check_chunks(reader, moment)
            query = f"SELECT c.id FROM chunks c NOT INDEXED WHERE {condition.chunks[0]}"
            ids = np.fromiter((row[0] for row in reader.execute(query, condition.chunks[1])), dtype=np.int64)
            mask[ids[(ids > 0) & (ids < len(mask))]] = True
        return mask
