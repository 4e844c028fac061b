"""Public retrieval collections from the folder that --data or UFR_TEST_DATA names, in its plain JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
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
    documents = {str(row["id"]): row["text"] for row in _rows(folder / corpus)}
    rows = [row for row in _rows(folder / queries) if split is None or row.get("split") == split]
    return Collection(
        name,
        documents,
        {str(row["id"]): row["text"] for row in rows},
        {str(row["id"]): {str(gold): 1.0 for gold in row["gold"]} for row in rows},
        {str(row["id"]): list(row["answers"]) for row in rows if row.get("answers")},
    )


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise ConfigError(f"{path.name} is not in {path.parent}; leave that collection out with --sets, or see README")
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)
