"""A report on the data itself: what was not read, what is empty, garbled or there twice, and in which languages.

Looks at the committed chunks alone, so it can be asked of any index at any time; given an earlier state, it says
what drifted since.
"""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from ultrafast_rag.bench.testset import passages
from ultrafast_rag.index.store import Store
from ultrafast_rag.language.terms import UNSPACED, detect, words_of
from ultrafast_rag.types import TEXT_SPACE, Document, Table, Vectors, counted

SHOWN = 20  # page numbers, or names, listed in a row
SAME = 0.5  # of the smaller document's passages stand in the other word for word: said to be a duplicate
GARBLED = 0.05  # of a page's characters are unassigned, private, control or replacement characters: its text layer is broken
# first word of a character's name in Unicode -> the language that it shows; kana show theirs however many Han stand beside them
SCRIPTS = {"HIRAGANA": "japanese", "KATAKANA": "japanese", "CJK": "chinese", "HANGUL": "korean", "THAI": "thai", "LAO": "lao"}
SCRIPTS |= {"KHMER": "khmer", "MYANMAR": "burmese"}
KANA = 0.05  # of the characters, chosen: a Chinese text that quotes a Japanese name has fewer
SAMPLED, ROUNDS, DRIFTED = 500, 999, 0.01  # vectors of each state, permutations, the p-value below which they are said to differ


def data_report(store: Store, before: Store | None = None) -> Table:
    """One row a finding: finding, document, where (pages), count. A document without a finding has its language alone.

    before: an earlier state of the index; what drifted since then comes first.
    """
    texts: dict[str, dict[int | None, list[str]]] = defaultdict(lambda: defaultdict(list))
    for chunk in passages(store):
        texts[chunk.document_id][chunk.page].append(chunk.text)
    documents = store.documents()
    rows = drift(before, store) if before is not None else []
    for document in documents:
        rows += _of_document(document, store.failures(document.id), texts.get(document.id, {}))
    rows += _duplicates({document.id: document for document in documents}, texts)
    counts = Counter(str(row["finding"]) for row in rows)
    found = ", ".join(f"{finding} {count}" for finding, count in counts.items())
    notes = (f"{counted(len(documents), 'document')}; findings: {found or 'none'}",)
    return Table(rows, "The data", notes=notes)


def drift(before: Store, now: Store) -> list[dict[str, Any]]:
    """What changed from one state to the other: documents, the length of passages, and where the vectors lie.

    Vectors: distance of their means, with a permutation test over at most SAMPLED of each state.
    Source: Gretton et al., "A kernel two-sample test", JMLR 2012 (its linear kernel).
    """
    old, new = ({document.source: document for document in store.documents()} for store in (before, now))
    changed = {name for name in set(old) & set(new) if old[name].content_hash != new[name].content_hash}
    rows: list[dict[str, Any]] = []
    for finding, names in (("added", set(new) - set(old)), ("removed", set(old) - set(new)), ("changed", changed)):
        listed = ", ".join(sorted(PurePath(name.replace("\\", "/")).name for name in names)[:SHOWN])
        rows += (
            [{"finding": finding, "document": listed, "where": "since the earlier state", "count": len(names)}] if names else []
        )
    lengths = [[len(chunk.text.split()) for chunk in passages(store)] or [0] for store in (before, now)]
    middle = [statistics.median(counted) for counted in lengths]
    if middle[0] != middle[1]:
        said = f"median words of a passage: {middle[0]:g} before, {middle[1]:g} now"
        rows.append({"finding": "lengths", "document": "", "where": said, "count": len(lengths[1])})
    a, b = _sample(before), _sample(now)
    if len(a) and len(b) and a.shape[1] == b.shape[1]:
        distance, p = mean_distance(a, b)
        said = f"means {distance:.3f} apart, p = {p:.3f}: {'drifted' if p < DRIFTED else 'no drift shown'}"
        rows.append({"finding": "vectors", "document": "", "where": said, "count": len(b)})
    return rows


def mean_distance(a: Vectors, b: Vectors, *, seed: int = 0) -> tuple[float, float]:
    """Distance between two samples' means and the share of ROUNDS random splits at least as far apart; rows are vectors."""
    rng, both = np.random.default_rng(seed), np.concatenate([a, b])

    def apart(order: Any) -> float:
        return float(np.linalg.norm(both[order[: len(a)]].mean(axis=0) - both[order[len(a) :]].mean(axis=0)))

    seen = apart(np.arange(len(both)))
    as_far = sum(apart(rng.permutation(len(both))) >= seen - 1e-12 for _ in range(ROUNDS))
    return seen, (as_far + 1) / (ROUNDS + 1)


def _sample(store: Store) -> Vectors:
    view = store.vectors(TEXT_SPACE)
    alive = store.alive()
    kept = np.flatnonzero(alive[np.minimum(view.chunk_ids, len(alive) - 1)]) if len(view.chunk_ids) else np.empty(0, np.int64)
    chosen = np.random.default_rng(0).permutation(kept)[:SAMPLED]
    return view.take(np.sort(chosen))


def _of_document(
    document: Document, failures: Iterable[tuple[int, str]], pages: Mapping[int | None, list[str]]
) -> list[dict[str, Any]]:
    name = PurePath(document.source.replace("\\", "/")).name
    rows = [{"finding": "not read", "document": name, "where": f"part {n + 1}: {why}", "count": 1} for n, why in failures]
    if not document.complete:
        rows.append({"finding": "incomplete", "document": name, "where": "ingest it again to resume", "count": 1})
    numbered = {page for page in pages if page is not None}
    if document.media_type == "application/pdf":
        failed = {n + 1 for n, _ in failures}
        rows += _pages("empty", name, set(range(1, document.parts + 1)) - numbered - failed)
    rows += _pages("garbled", name, {page for page in numbered if garbled("".join(pages[page]))})
    text = " ".join(text for page in pages.values() for text in page)
    language = detect(words_of(text), {})
    if language == UNSPACED:
        language = _by_script(text)
    rows.append({"finding": "language", "document": name, "where": language or "unknown", "count": document.chunks})
    return rows


def _by_script(text: str) -> str | None:
    """The language of a text without spaces between its words; None where its script is not known here."""
    scripts = Counter(unicodedata.name(c, "").split(" ")[0] for c in text if not c.isascii())
    languages: Counter[str] = Counter()
    for script, count in scripts.items():
        languages[SCRIPTS.get(script, "")] += count
    if languages["japanese"] > KANA * languages.total():
        return "japanese"
    return max(SCRIPTS.values(), key=lambda name: languages[name]) if languages.total() > languages[""] else None


def _pages(finding: str, name: str, pages: set[int]) -> list[dict[str, Any]]:
    listed = ", ".join(map(str, sorted(pages)[:SHOWN])) + (" …" if len(pages) > SHOWN else "")
    return [{"finding": finding, "document": name, "where": f"pages {listed}", "count": len(pages)}] if pages else []


def garbled(text: str) -> bool:
    """Whether too many characters mean nothing: private use, unassigned, control, replacement, or "(cid:12)"."""
    shown = re.sub(r"\s+", "", text)
    bad = sum(unicodedata.category(c) in ("Co", "Cn", "Cc") or c == "\ufffd" for c in shown)
    bad += sum(len(found) for found in re.findall(r"\(cid:\d+\)", shown))
    return bool(shown) and bad / len(shown) > GARBLED


def _duplicates(documents: Mapping[str, Document], texts: Mapping[str, Mapping[int | None, list[str]]]) -> list[dict[str, Any]]:
    holders: dict[str, set[str]] = defaultdict(set)
    sizes: Counter[str] = Counter()
    for name, pages in texts.items():
        for text in {" ".join(text.split()) for page in pages.values() for text in page} - {""}:
            holders[text].add(name)
            sizes[name] += 1
    shared: Counter[tuple[str, str]] = Counter()
    for names in holders.values():
        listed = sorted(names)
        shared.update((a, b) for at, a in enumerate(listed) for b in listed[at + 1 :])
    return [
        {"finding": "duplicate", "document": documents[a].source, "where": f"of {documents[b].source}", "count": count}
        for (a, b), count in shared.items()
        if count >= SAME * min(sizes[a], sizes[b])
    ]
