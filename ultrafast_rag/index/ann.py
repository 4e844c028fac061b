"""Approximate candidates by FAISS: build, tune against exact search, save and load with a checksum.

Only candidates come from here: `dense.py` scores them again from the vector file, so an index kind
changes which chunks are found, never their scores. Distances stay inside these two files.
Inverted lists over k-means cells; per vector product quantization of 4 bits for every 4 values, whose tables stay
in registers (Jegou et al., PAMI 2011; Andre et al., PAMI 2021), 1 bit a value (RaBitQ, Gao & Long, SIGMOD 2024), or 8 bits
a value. On 100 000 MiniLM vectors and real questions, at recall@10 0.997: 0.3 ms, 0.9 ms, and 8 bits is the fallback.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ultrafast_rag.errors import require
from ultrafast_rag.files import read_bytes, read_manifest, write_manifest, write_whole
from ultrafast_rag.index.vectors import HalfVectors, cosines, to_single
from ultrafast_rag.types import Vectors

VERSION = 2  # of the derived file; another one is built anew
_KINDS = ("ivfpq", "rabitq", "sq8")
_MOST_CELLS = 16_384  # two roots of 67 million rows, which is more than fits the memory we are made for
RECALL_GOAL = 0.99  # promised: of the exact ten best, at most one in a hundred is missed
_ROWS_AT_ONCE = 16_384  # 25 MB of float32 rows of 384 values
_POINTS_PER_CELL = 40  # FAISS warns under 39
_SAMPLE_QUERIES = 256  # the mean recall@10 of so many is known to about 0.003
_PROBES = (4, 8, 16, 32, 64, 128, 256, 512)  # cells looked at, each step twice the work
_DEPTHS = (50, 100, 200, 400)  # candidates scored again, for the ten best
_SEED = 12_345  # any; fixed, so that the same rows give the same index


@dataclass(frozen=True, slots=True)
class Tuning:
    """How an index is searched, and what it was measured to give.

    recall: of the exact ten best, mean over sample queries.  p50_ms: one query, candidates and scoring.
    bytes_per_vector: of the FAISS index in memory.
    """

    kind: str
    factory: str
    nprobe: int
    depth: int
    recall: float
    p50_ms: float
    bytes_per_vector: float
    trained_rows: int
    seconds: float

    @classmethod
    def from_json(cls, values: Any, *, rows: int, dim: int) -> Tuning:
        """As saved for an index of these rows. ValueError or TypeError when a field is not one that `tune` could give."""
        tuning = cls(**values)
        whole = (tuning.nprobe, tuning.depth, tuning.trained_rows)
        measured = (tuning.recall, tuning.p50_ms, tuning.bytes_per_vector, tuning.seconds)
        if any(type(value) is not int for value in whole) or any(type(value) not in (int, float) for value in measured):
            raise TypeError("a tuning's numbers are not numbers")
        if not all(math.isfinite(value) and value >= 0 for value in measured) or tuning.recall > 1:
            raise ValueError("a tuning's measurements are out of range")
        if not (1 <= tuning.nprobe <= _MOST_CELLS and 1 <= tuning.depth <= max(_DEPTHS) and 1 <= tuning.trained_rows <= rows):
            raise ValueError("a tuning is out of range")
        if tuning.kind not in _KINDS or tuning.factory != factory_for(tuning.kind, tuning.trained_rows, dim):
            raise ValueError("a tuning names an index that is not made here")
        return tuning


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of a saved index. truth: digest of the rows it was made from."""

    sha256: str
    rows: int
    dim: int
    truth: str
    tuning: Tuning


def cells_for(rows: int) -> int:
    """Number of k-means cells: the power of two nearest to 2 sqrt(rows), at most 16 384, each with enough points."""
    cells = 2 ** round(float(np.log2(2 * np.sqrt(max(rows, 1)))))
    while cells > 1 and cells * _POINTS_PER_CELL > rows:
        cells //= 2
    return int(np.clip(cells, 1, _MOST_CELLS))


def factory_for(kind: str, rows: int, dim: int) -> str:
    """FAISS factory text of "ivfpq", "rabitq" or "sq8"; a size that groups of 4 or more do not divide is kept at 8 bits."""
    cells = cells_for(rows)
    if kind == "rabitq":
        return f"IVF{cells},RaBitQ"
    parts = max((m for m in range(2, dim // 4 + 1, 2) if dim % m == 0), default=0)
    return f"IVF{cells},PQ{parts}x4fs" if kind == "ivfpq" and parts else f"IVF{cells},SQ8"


def build(vectors: HalfVectors, kind: str) -> Any:
    """Train on a sample and add every row, in blocks: memory stays at the index, the sample and one block."""
    faiss = require("faiss", package="faiss-cpu")
    rows, dim = vectors.shape
    text = factory_for(kind, rows, dim)
    index = faiss.index_factory(dim, text, faiss.METRIC_L2)  # on unit rows the order of L2 is the order of cosine
    ivf = faiss.downcast_index(faiss.extract_index_ivf(index))
    ivf.cp.niter, ivf.cp.seed, ivf.cp.min_points_per_centroid = 8, _SEED, 1
    if isinstance(ivf, faiss.IndexIVFPQFastScan):
        ivf.pq.cp.niter, ivf.pq.cp.min_points_per_centroid = 10, 1
    wanted = min(rows, max(_POINTS_PER_CELL * ivf.nlist, 10_000))
    index.train(to_single(vectors[np.sort(np.random.default_rng(_SEED).choice(rows, wanted, replace=False))]))
    add(index, vectors, 0)
    return index


def add(index: Any, vectors: HalfVectors, first_row: int) -> None:
    """Add rows from first_row on; FAISS numbers them in order."""
    for start in range(first_row, len(vectors), _ROWS_AT_ONCE):
        index.add(to_single(vectors[start : start + _ROWS_AT_ONCE]))


def grown(index: Any, vectors: HalfVectors) -> Any:
    """A copy with the rows that came since, so that others search the first meanwhile."""
    copy = require("faiss", package="faiss-cpu").clone_index(index)
    add(copy, vectors, int(copy.ntotal))
    return copy


def candidates(
    index: Any, query: Vectors, count: int, *, nprobe: int, allowed_rows: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.int64]:
    """Rows worth scoring for a query (d,). allowed_rows: a bitmap, least significant bit first; None allows all."""
    faiss = require("faiss", package="faiss-cpu")
    ivf = faiss.downcast_index(faiss.extract_index_ivf(index))
    options: dict[str, Any] = {"nprobe": min(nprobe, ivf.nlist)}
    if allowed_rows is not None:
        options["sel"] = faiss.IDSelectorBitmap(allowed_rows)
    is_rabitq = isinstance(ivf, getattr(faiss, "IndexIVFRaBitQ", ()))
    params = faiss.IVFRaBitQSearchParameters(**options, qb=8) if is_rabitq else faiss.SearchParametersIVF(**options)
    _, rows = index.search(query.reshape(1, -1), count, params=params)
    found: npt.NDArray[np.int64] = rows[0]
    return found[found >= 0]


def sample_queries(vectors: HalfVectors, count: int = _SAMPLE_QUERIES) -> Vectors:
    """A little farther from any passage than questions are: sums of four stored vectors, one heavier, cosine about 0.6.

    What reaches the goal on these reaches it on real questions, whose best passage lies at 0.67: at 1 M chunks, 14 near
    copies of each, 0.990 here is 0.992 there. Stored vectors moved at random, and sums of three, were too easy: 0.995 was 0.95.
    """
    rng = np.random.default_rng(_SEED)
    picks = rng.integers(0, len(vectors), (4, min(count, len(vectors))))
    mixed = sum(weight * to_single(vectors[rows]) for weight, rows in zip((1, 0.8, 0.8, 0.8), picks))
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), dtype=np.float32)


def exact_top(vectors: HalfVectors, queries: Vectors, k: int = 10) -> npt.NDArray[np.int64]:
    """Row numbers (q, k) of the best cosines by a full scan in blocks."""
    best = np.full((len(queries), k), -np.inf, dtype=np.float32)
    rows = np.zeros((len(queries), k), dtype=np.int64)
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        scores = queries @ to_single(vectors[start : start + _ROWS_AT_ONCE]).T
        both = np.concatenate([best, scores], axis=1)
        numbers = np.concatenate([rows, np.broadcast_to(np.arange(start, start + scores.shape[1]), scores.shape)], axis=1)
        top = np.argpartition(-both, k - 1, axis=1)[:, :k]
        best, rows = np.take_along_axis(both, top, 1), np.take_along_axis(numbers, top, 1)
    return rows


def tune(index: Any, vectors: HalfVectors, kind: str, seconds: float) -> Tuning:
    """The cheapest nprobe and depth that reach the recall goal on sample queries, else the best ones."""
    queries = sample_queries(vectors)
    truth = exact_top(vectors, queries, min(10, len(vectors)))
    nlist = require("faiss", package="faiss-cpu").extract_index_ivf(index).nlist
    bytes_per_vector = len(serialize(index)) / len(vectors)
    best: Tuning | None = None
    for depth in _DEPTHS:
        for nprobe in _PROBES:
            recall, p50_ms = _measure(index, vectors, queries, truth, nprobe, depth)
            found = Tuning(
                kind,
                factory_for(kind, len(vectors), vectors.shape[1]),
                min(nprobe, nlist),
                depth,
                recall,
                p50_ms,
                bytes_per_vector,
                len(vectors),
                seconds,
            )
            if best is None or _rank(found) > _rank(best):
                best = found
            if recall >= RECALL_GOAL or nprobe >= nlist:
                break
    assert best is not None
    return best


def _rank(tuning: Tuning) -> tuple[bool, float]:
    reached = tuning.recall >= RECALL_GOAL
    return reached, -tuning.p50_ms if reached else tuning.recall


def _measure(
    index: Any, vectors: HalfVectors, queries: Vectors, truth: npt.NDArray[np.int64], nprobe: int, depth: int
) -> tuple[float, float]:
    found, times = 0, []
    for query, expected in zip(queries, truth):
        start = time.perf_counter()
        rows = np.sort(candidates(index, query, depth, nprobe=nprobe))
        scores = cosines(to_single(vectors[rows]), query)
        times.append(time.perf_counter() - start)
        found += len(np.intersect1d(rows[np.argsort(-scores)[: len(expected)]], expected))
    return found / truth.size, float(np.median(times)) * 1000


# ---- files


def serialize(index: Any) -> npt.NDArray[np.uint8]:
    """FAISS's own bytes."""
    data: npt.NDArray[np.uint8] = require("faiss", package="faiss-cpu").serialize_index(index)
    return data


def save(index: Any, tuning: Tuning, folder: Path, space: str, *, truth: str) -> None:
    """Write index and manifest, each whole or not at all. truth: digest of the rows it was made from."""
    folder.mkdir(parents=True, exist_ok=True)
    data = serialize(index)
    sums = {"sha256": hashlib.sha256(data.data).hexdigest(), "rows": int(index.ntotal), "truth": truth, "dim": int(index.d)}
    write_whole(folder, f"dense-{space}.faiss", [data.data])
    write_manifest(folder, f"dense-{space}.json", {"version": VERSION, **sums, "tuning": dataclasses.asdict(tuning)})


def load_manifest(folder: Path, space: str) -> Manifest | None:
    """The manifest, or None when there is none, or none that this version wrote and can use."""
    facts = read_manifest(folder, f"dense-{space}.json")
    if facts is None or facts.get("version") != VERSION:
        return None
    with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError):
        rows, dim = facts["rows"], facts["dim"]
        if type(rows) is int and type(dim) is int and 0 < rows < 2**31 and 0 < dim < 2**16:
            tuning = Tuning.from_json(facts["tuning"], rows=rows, dim=dim)
            return Manifest(str(facts["sha256"]), rows, dim, str(facts["truth"]), tuning)
    return None


def load(folder: Path, space: str, manifest: Manifest) -> Any:
    """The saved index, or None when its bytes are not those the manifest names, or FAISS cannot make that index of them.

    Unchecked bytes never reach FAISS; a newer or older FAISS may still refuse them.
    """
    most_bytes = manifest.rows * (8 * manifest.dim + 64) + (1 << 28)  # beyond any kind: codes, ids, cells and tables
    data = read_bytes(folder, f"dense-{space}.faiss", most_bytes)
    if data is None or hashlib.sha256(data).hexdigest() != manifest.sha256:
        return None
    faiss = require("faiss", package="faiss-cpu")
    try:
        index = faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))
        ivf = faiss.downcast_index(faiss.extract_index_ivf(index))
        fits = index.ntotal == manifest.rows and index.d == manifest.dim and ivf.nlist == cells_for(manifest.tuning.trained_rows)
        return index if fits and index.is_trained and index.metric_type == faiss.METRIC_L2 else None
    except Exception:  # FAISS raises what C++ or SWIG makes of a bad file; whatever it is, the index is made again
        return None


def damaged_files(folder: Path) -> list[str]:
    """Names of the saved indexes, and of their manifests, that are not what these say."""
    damaged = []
    for path in sorted(folder.glob("dense-*")):
        if path.suffix in (".faiss", ".json"):
            space = path.stem.removeprefix("dense-")
            manifest = load_manifest(folder, space)
            if manifest is None or load(folder, space, manifest) is None:
                damaged.append(path.name)
    return damaged
