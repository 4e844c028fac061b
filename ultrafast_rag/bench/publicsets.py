"""Retrieval collections: the public ones of the folder that --data or UFR_TEST_DATA names, and anybody's own.

`read` knows BEIR's folders (corpus.jsonl, queries.jsonl, qrels/*.tsv), the same two files with the gold ids in the
queries, and SQuAD's JSON.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrafast_rag.errors import ConfigError

# name -> (corpus, queries, split of the queries or None)
FILES: Mapping[str, tuple[str, str, str | None]] = {
    "squad2": ("squad2/corpus.jsonl", "squad2/queries.jsonl", "dev"),
    "scifact": ("scifact/corpus.jsonl", "scifact/queries.train.jsonl", None),
    "xquad-en": ("xquad/corpus.en.jsonl", "xquad/queries.en.jsonl", None),
    "xquad-de": ("xquad/corpus.de.jsonl", "xquad/queries.de.jsonl", None),
    "xquad-zh": ("xquad/corpus.zh.jsonl", "xquad/queries.zh.jsonl", None),
    "xquad-hi": ("xquad/corpus.hi.jsonl", "xquad/queries.hi.jsonl", None),
}


@dataclass(frozen=True, slots=True)
class Collection:
    """documents and questions: id -> text. qrels: question id -> document id -> 1. answers: question id -> gold strings."""

    name: str
    documents: Mapping[str, str]
    questions: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, float]]
    answers: Mapping[str, list[str]]

    def first(self, count: int | None) -> Collection:
        """With only every n-th question, `count` of them at most; None keeps all."""
        if count is None or count >= len(self.questions):
            return self
        step = len(self.questions) / count
        names = list(self.questions)
        kept = [names[int(n * step)] for n in range(count)]
        return Collection(
            self.name,
            self.documents,
            {q: self.questions[q] for q in kept},
            {q: self.qrels[q] for q in kept},
            {q: self.answers[q] for q in kept if q in self.answers},
        )


def data_folder(given: Path | None, *, needed: bool = True) -> Path | None:
    """--data, else UFR_TEST_DATA; ConfigError when one is needed and there is none."""
    folder = given or (Path(os.environ["UFR_TEST_DATA"]) if os.environ.get("UFR_TEST_DATA") else None)
    if folder is None and needed:
        raise ConfigError("this benchmark needs public collections: --data DIR or UFR_TEST_DATA; README says what DIR holds")
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder")
    return folder


def load(name: str, folder: Path) -> Collection:
    """One of FILES. ConfigError for an unknown name or a missing file."""
    if name not in FILES:
        raise ConfigError(f"unknown collection {name!r}; there are {', '.join(FILES)}")
    corpus, queries, split = FILES[name]
    rows = [row for row in _rows(folder / queries) if split is None or row.get("split") == split]
    return _collection(name, list(_rows(folder / corpus)), rows)


def read(path: Path) -> Collection:
    """A collection of one's own: a BEIR folder, a folder of corpus.jsonl and queries.jsonl, or a SQuAD JSON file.

    Of a BEIR folder the test split's qrels, else dev's, else train's.  Titles stand before their texts, as in BEIR.
    Questions without a relevant document are left out.
    Raises ConfigError for another shape.
    """
    try:
        if path.is_file():
            return _squad(path)
        splits = [path / "qrels" / f"{name}.tsv" for name in ("test", "dev", "train")]
        judged = _qrels(next(filter(Path.is_file, splits), splits[0])) if (path / "qrels").is_dir() else {}
        rows = [{"gold": judged.get(_id(row), {}), **row} for row in _rows(path / "queries.jsonl")]
        texts = [
            {"id": _id(row), "text": f"{row.get('title') or ''}\n{row['text']}".strip()} for row in _rows(path / "corpus.jsonl")
        ]
        return _collection(path.name, texts, [row for row in rows if row["gold"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is neither a folder in BEIR's layout nor a file in SQuAD's: {error!r}") from error


def _collection(name: str, documents: Sequence[Mapping[str, Any]], questions: Sequence[Mapping[str, Any]]) -> Collection:
    golds = {_id(row): row["gold"] for row in questions}
    return Collection(
        name,
        {_id(row): row["text"] for row in documents},
        {_id(row): row["text"] for row in questions},
        {q: _judged(gold) for q, gold in golds.items()},
        {_id(row): list(row["answers"]) for row in questions if row.get("answers")},
    )


def _judged(gold: Any) -> dict[str, float]:
    """Document id -> relevance; gold may also be a list of ids, or one."""
    if isinstance(gold, Mapping):
        return dict(gold)
    return {str(one): 1.0 for one in (gold if isinstance(gold, list) else [gold])}


def _id(row: Mapping[str, Any]) -> str:
    return str(row["_id"] if "_id" in row else row["id"])


def _qrels(path: Path) -> dict[str, dict[str, float]]:
    """Query id, document id, relevance: three columns under a heading, as BEIR has them."""
    judged: dict[str, dict[str, float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for query, document, relevance in list(csv.reader(file, delimiter="\t"))[1:]:
            if float(relevance) > 0:
                judged.setdefault(query, {})[document] = float(relevance)
    return judged


def _squad(path: Path) -> Collection:
    """Each paragraph a document; questions that it does not answer (SQuAD 2.0) have it as gold and no answers."""
    documents, questions = [], []
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for number, paragraph in enumerate(article["paragraphs"]):
            name = f"{article['title']}:{number}"
            documents.append({"id": name, "text": paragraph["context"]})
            questions += [
                {"id": qa["id"], "text": qa["question"], "gold": [name], "answers": [a["text"] for a in qa["answers"]]}
                for qa in paragraph["qas"]
            ]
    return _collection(path.stem, documents, questions)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise ConfigError(f"{path.name} is not in {path.parent}; leave that collection out with --sets, or see README")
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)
