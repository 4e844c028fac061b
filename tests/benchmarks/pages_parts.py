"""What each part of the way to a page and a table's cell is worth: our own questions, asked with one part at a time left out.

    python tests/benchmarks/pages_parts.py --data DIR [--out FILE]

Answers are made without the reader, so that tables show what tables alone are worth. The order of the parts does not
matter: each is left out of the whole. What every part at once brought stands in pages.json, beside pages_before.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from ultrafast_rag import Config, UltraFastRAG
from ultrafast_rag.answer import extractive
from ultrafast_rag.bench.metrics import compare
from ultrafast_rag.bench.pages import documents, load_set, measure
from ultrafast_rag.bench.result import write_result
from ultrafast_rag.index import lexical, rows
from ultrafast_rag.index.names import NameIndex
from ultrafast_rag.ingest import chunk
from ultrafast_rag.search import searcher

SETS = ("pages", "pages_hard", "tables")
MEASURES = ("nDCG@10", "hit@1", "nDCG@10, file given", "in the 10 passages", "in the answer", "in the first statement")


def last_heading_only(self, run, *, last=False):
    """As before: of headings directly after one another the last one counts, and none becomes a passage."""
    for heading in run:
        level = max(1, heading.level)
        self._headings = [(at, name) for at, name in self._headings if at < level] + [(level, " ".join(heading.text.split()))]
    return iter(())


WHOLE = "all parts"
# what is left out -> (where, name, what stands there instead), and whether the documents are read again
PARTS = {
    WHOLE: ([], True),
    "file names": ([(NameIndex, "named", lambda self, query: None)], False),
    "page heads": ([(rows, "PAGE_HEAD", "(none)"), (lexical, "_VERSION", "without page heads")], False),
    "less weight of meaning in unknown scripts": ([(searcher, "trusted", lambda alpha, known: alpha)], False),
    "rows chosen by the label asked for": ([(extractive, "label_asked", lambda unit, question: 0.0)], False),
    "sentences about other years held back": ([(extractive, "years_apart", lambda text, question: False)], False),
    "headings after one another": ([(chunk.DocumentChunker, "_enter", last_heading_only)], True),
    "column heads on every piece of a table": ([(chunk, "head_lines", lambda lines: 0)], True),
}


def main() -> None:
    """One row a set and measure, one column a part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("UFR_TEST_DATA"))
    parser.add_argument("--out", type=Path, default=Path("data/benchmarks/pages_parts.json"))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    arguments = parser.parse_args()
    asked = {name: load_set(name) for name in SETS}
    files = documents(arguments.data, [row for questions in asked.values() for row in questions])
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for n, part in enumerate([WHOLE, *(part for part in arguments.parts if part != WHOLE)]):
            changes, again = PARTS[part]
            place = Path(folder, str(n) if again else "0")
            with ExitStack() as stack:
                for where, name, instead in changes:
                    stack.enter_context(patch.object(where, name, instead))
                with UltraFastRAG(
                    place, config=Config(image_model=None, speech_model=None, reader_model=None), quiet=True
                ) as rag:
                    if again:
                        rag.ingest(*files)
                    found[part] = {name: measure(name, questions, rag) for name, questions in asked.items()}
    table = [row_of(found, name, title) for name in SETS for title in MEASURES if title in found[WHOLE][name]]
    for row in table:
        print(row)
    write_result(arguments.out.stem, {"rows": table}, arguments.out.parent, command="python tests/benchmarks/pages_parts.py")


def row_of(found, name, title):
    """The measure with everything, and what is lost without each part, with its paired p-value."""
    whole = found[WHOLE][name][title]
    row = {"set": name, "measure": title, "questions": len(whole), WHOLE: round(sum(whole.values()) / len(whole), 4)}
    for part in found:
        if part != WHOLE:
            tested = compare(found[part][name][title], whole)
            row[f"loss without {part}"] = round(tested.difference, 4)
            row[f"p, {part}"] = round(tested.p_value, 4)
    return row


if __name__ == "__main__":
    main()
