"""Child of test_conditions.py: opens an index under the conditions given, asks it, and prints what it got and was told."""

from __future__ import annotations

import importlib.abc
import json
import os
import sys
import warnings


class Blocked(importlib.abc.MetaPathFinder):
    """A package that is not installed."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def block(names):
    import importlib.util
    from importlib import metadata

    sys.meta_path.insert(0, Blocked(names))
    find, version = importlib.util.find_spec, metadata.version

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    importlib.util.find_spec = lambda name, package=None: None if name.split(".")[0] in names else find(name, package)
    metadata.version = lambda name: absent(name) if name in names else version(name)


def break_engine(which):
    """An engine like int8 on AMX: wrong wherever texts are padded to 32, or everywhere."""
    from ultrafast_rag.models.text import encoder
    from ultrafast_rag.models.text.reference import padded_to

    make = encoder._Opening._make

    def broken(opening, name):
        engine = make(opening, name)
        if name.startswith("openvino-"):
            right = engine.run

            def run(token_ids):
                vectors = right(token_ids)
                for row, ids in enumerate(token_ids):
                    if which == "everywhere" or padded_to(engine.widths, len(ids)) == 32:
                        vectors[row] = vectors[row][::-1]
                return vectors

            engine.run = run
        return engine

    encoder._Opening._make = broken


def main(task):
    if task.get("cores"):
        os.sched_setaffinity(0, set(list(os.sched_getaffinity(0))[: task["cores"]]))
    block(task.get("without", ()))
    if task.get("engine_wrong"):
        break_engine(task["engine_wrong"])
    from ultrafast_rag import UltraFastRAG

    said = {}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", RuntimeWarning)
        try:
            if task.get("archive"):
                rag = UltraFastRAG.restore(task["archive"], task["index"], **task["settings"])
            else:
                rag = UltraFastRAG(task["index"], **task["settings"])
            with rag:
                if task.get("ingest"):
                    report = rag.ingest(*task["ingest"])
                    said["report"] = [report.documents, [list(f) for f in report.failed], list(report.notes)]
                hits = {question: rag.search(question, k=3) for question in task["questions"]}
                said["hits"] = {question: [hit.text for hit in found] for question, found in hits.items()}
                said["scores"] = {question: [hit.dense_score for hit in found] for question, found in hits.items()}
                said["engine"] = rag.stats()["models"].get("text", "").rpartition("|")[2]
                shown = [found.evidence(found[0]) for found in hits.values()]
                said["evidence"] = [[e.media_type, len(e.data), e.caption] if e else None for e in shown]
                said["doctor"] = [" ".join(map(str, row.values())) for row in rag.doctor()]
        except Exception as error:
            said["error"] = f"{type(error).__name__}: {error}"
    said["warnings"] = [str(w.message) for w in warned if issubclass(w.category, RuntimeWarning)]
    return said


if __name__ == "__main__":
    json.dump(main(json.loads(sys.argv[1])), sys.stdout)
