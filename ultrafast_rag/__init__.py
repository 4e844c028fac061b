"""Multimodal RAG for notebooks: documents in, answers with evidence out.

Public names load on first use, so that this import stays light: no torch, faiss, openvino or transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ultrafast_rag.notebook.display  # noqa: F401  registers how results draw themselves
from ultrafast_rag.config import Config
from ultrafast_rag.types import Answer, Hit, Hits, IngestReport

if TYPE_CHECKING:
    from ultrafast_rag.answer.memory import MemoryConsolidator
    from ultrafast_rag.models.batch_embedder import BatchEmbedder
    from ultrafast_rag.monitor import PerformanceMonitor
    from ultrafast_rag.notebook.widgets import IngestWidget, SearchWidget
    from ultrafast_rag.rag import UltraFastRAG
    from ultrafast_rag.search.optimizer import QueryOptimizer

__version__ = "0.1.0"
__all__ = [
    "Answer",
    "BatchEmbedder",
    "Config",
    "Hit",
    "Hits",
    "IngestReport",
    "IngestWidget",
    "MemoryConsolidator",
    "PerformanceMonitor",
    "QueryOptimizer",
    "SearchWidget",
    "UltraFastRAG",
]

_LAZY = {
    "BatchEmbedder": "ultrafast_rag.models.batch_embedder",
    "IngestWidget": "ultrafast_rag.notebook.widgets",
    "MemoryConsolidator": "ultrafast_rag.answer.memory",
    "PerformanceMonitor": "ultrafast_rag.monitor",
    "QueryOptimizer": "ultrafast_rag.search.optimizer",
    "SearchWidget": "ultrafast_rag.notebook.widgets",
    "UltraFastRAG": "ultrafast_rag.rag",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(_LAZY[name])
    if name == "UltraFastRAG":
        for edge, function in _EDGES.items():
            module.EDGES.setdefault(edge, function)
    value = getattr(module, name)
    globals()[name] = value
    return value


def _widget(rag: Any, generator: Any = None) -> Any:
    from ultrafast_rag.notebook.widgets import show

    return show(rag, generator=generator)


def _make_testset(*asked: Any) -> Any:
    from ultrafast_rag.bench.testset import make_testset

    return make_testset(*asked)


def _data_report(*asked: Any) -> Any:
    from ultrafast_rag.bench.report import data_report

    return data_report(*asked)


def _evaluate(*asked: Any, **options: Any) -> Any:
    from ultrafast_rag.bench.evaluate import evaluate, judge_of

    judged, ask_back = judge_of(options.pop("judge"), options.pop("model"))
    return evaluate(*asked, judged=judged, ask_back=ask_back, **options)


def _compare(*asked: Any, **options: Any) -> Any:
    from ultrafast_rag.bench.compare import compare_on

    return compare_on(*asked, **options)


_EDGES = {
    "widget": _widget,
    "make_testset": _make_testset,
    "data_report": _data_report,
    "evaluate": _evaluate,
    "compare": _compare,
}
