"""README's tables of numbers, from the records in data/benchmarks: no number is written by hand.

python data/readme_numbers.py            # writes them between the marks in README.md
python data/readme_numbers.py --check    # only says whether README.md has them as they are on record

A measurement of another machine lies beside the first as NAME_zen3.json (`bench NAME --out data/benchmarks/NAME_zen3.json`)
and becomes a column.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
README, FOLDER = ROOT / "README.md", ROOT / "data" / "benchmarks"
BEGIN, END = "<!-- numbers: made by data/readme_numbers.py -->", "<!-- end of numbers -->"
SYSTEMS = ("langchain", "llamaindex", "txtai", "ultrafast_rag")
# what tells the processors apart is what they can do, for a virtual machine's name is "AMD EPYC" on all of them
MACHINES = {"zen5": "AMD EPYC, Zen 5 (AVX-512 VNNI, BF16), 2 cores", "zen3": "AMD EPYC, Zen 3 (AVX2, no VNNI), 2 cores"}
Get = Callable[[dict[str, Any]], float]


def row(rows, **wanted):
    """The one row with these values."""
    (found,) = (row for row in rows if all(row[name] == value for name, value in wanted.items()))
    return found


def rows_of(name: str, key: str, *values: object) -> list[Get]:
    """The value called `name` of the rows whose `key` is each of `values`."""
    return [lambda d, value=value: row(d["rows"], **{key: value})[name] for value in values]


def names_of(key: str, value: object, *names: str) -> list[Get]:
    """The values called `names` of the row whose `key` is `value`."""
    return [lambda d, name=name: row(d["rows"], **{key: value})[name] for name in names]


def default_engine(d: dict[str, Any]) -> float:
    """Tokens a second of the engine that is fastest at the budget that `auto` takes on a CPU."""
    return max(r["tokens/s"] for r in d["rows"] if r["batch"] == "1024 tokens")


def media(what: str, *settings: str) -> Get:
    """The value of the first of these settings that was measured: what `auto` takes, and what stands in for it."""
    return lambda d: next(r["value"] for name in settings for r in d["rows"] if (r["what"], r["setting"]) == (what, name))


OPENVINO = ("openvino-bf16, default tokens a batch", "openvino-f32, default tokens a batch")
# by machine: what, the record, where each number is
SPEED: list[tuple[str, str, list[Get]]] = [
    ("text encoder, tokens/s: torch float32, the fastest engine", "encode",
     [lambda d: row(d["rows"], engine="torch-f32", batch="4096 tokens")["tokens/s"], default_engine]),
    ("one textbook of 117 pages, pages per minute", "ingest", rows_of("pages/min", "pages", 117)),
    ("peak memory of 2 000 pages above that of 200, MB", "ingest", [lambda d: d["memory"]["difference_mb"]]),
    ("ten public PDFs, pages per minute: LangChain, LlamaIndex, txtai, this", "peers", rows_of("pages/min", "system", *SYSTEMS)),
    ('the same, seconds until a question finds its passage: LangChain, this, this with `encode="progressive"`', "peers",
     rows_of("right passage s", "system", "langchain", "ultrafast_rag", "ultrafast_rag, progressive")),
    ("the same, ms per query", "peers", rows_of("query ms", "system", *SYSTEMS)),
    ("search and answer, median ms: without the reader, with it", "answering",
     rows_of("search and answer p50 ms", "answers", "without the reader", "with the reader")),
    ("basic settings, default settings, pages per minute", "ablation",
     rows_of("pages/min", "settings", "basic", "+ index choice (default)")),
    ("process start to first answer, s; memory, MB; no torch", "coldstart",
     [lambda d: d["rows"][0]["first answer s"], lambda d: d["rows"][0]["peak MB"]]),
    ("a search among 100 000 chunks: median ms, recall@10, bytes per vector", "search",
     names_of("chunks", 100_000, "search p50 ms", "recall@10", "bytes/vector")),
    ("the dense leg among a million chunks: median ms, recall@10, bytes per vector", "search_1m",
     names_of("chunks", 1_000_000, "dense search ms", "recall@10", "bytes/vector")),
    ("CLIP ViT-B/32, random weights: pictures/s, texts/s", "media_cpu",
     [media("CLIP ViT-B/32 pictures", *OPENVINO), media("CLIP ViT-B/32 texts", *OPENVINO)]),
    ("Whisper base, random weights, encoder: times realtime", "media_cpu",
     [media("Whisper base encoder", "bfloat16", "float32")]),
    ("a minute of speech (demo Whisper), core-seconds: alone, beside two busy processes", "busy",
     [lambda d: row(d["rows"], work="speech", beside=0)["core-s"], lambda d: row(d["rows"], work="speech", beside=2)["core-s"]]),
]  # fmt: skip
# the same on every machine, up to rounding
RIGHT: list[tuple[str, str, list[Get]]] = [
    ("nDCG@10: SQuAD2, SciFact, XQuAD German, Chinese, Hindi", "quality",
     rows_of("default", "collection", "squad2", "scifact", "xquad-de", "xquad-zh", "xquad-hi")),
    ("50 questions on 15 papers: the fact in the answer, in its first sentence; of 15 that they do not answer refused", "papers",
     [lambda d, wanted=wanted: row(d["rows"], **dict(zip(("set", "measure"), wanted)))["value"]
      for wanted in (("papers", "in the answer"), ("papers", "in the first statement"), ("papers_absent", "refused"))]),
    ("75 questions on 12 drawn Forms 10-K of 60 pages: nDCG@10, the number in the answer; of 34 that they do not answer refused",
     "filings", [lambda d: d["rows"][0]["nDCG@10"], lambda d: d["rows"][0]["in the answer"], lambda d: d["rows"][0]["refused"]]),
    ("demo CLIP, recall@1 on unseen pictures: of a text, of a picture", "demo_clip",
     [lambda d: d["numbers"]["unseen_text_to_image"], lambda d: d["numbers"]["unseen_image_to_text"]]),
    ("demo Whisper: word error rate on unseen sentences; words invented in 52 minutes without speech", "speech",
     [lambda d: d["speech"]["one sentence each"]["wer"], lambda d: d["nobody_speaks"]["words"]]),
]  # fmt: skip


def records(stem: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Machine -> (file's name, record) of a benchmark; of a machine not known by its processor it is "any"."""
    found = {}
    for path in (FOLDER / f"{stem}.json", *(FOLDER / f"{stem}_{machine}.json" for machine in MACHINES)):
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            found[machine_of(record["machine"])] = path.name, record
    return found


def machine_of(machine: Any) -> str:
    """A key of MACHINES for the machine a record names, or "any"."""
    if not isinstance(machine, dict) or machine["cpu"] != "AMD EPYC" or machine["cores"] != 2 or machine["gpus"]:
        return "any"
    return "zen5" if "avx512_vnni" in machine["flags"] else "zen3"


def shown(value: float) -> str:
    """Three digits, thousands set apart."""
    text = f"{value:.3g}" if abs(value) < 1000 else f"{round(value, 2 - len(str(int(value))) + 1):,.0f}".replace(",", " ")
    return str(int(float(text))) if "e" in text else text


def cell(record: dict[str, Any], places: list[Get]) -> str:
    """The numbers of one place in the table; none where the record is older than one of them."""
    try:
        return ", ".join(shown(get(record)) for get in places)
    except (KeyError, ValueError):
        return ""


def tables() -> str:
    """Both tables as Markdown."""
    known = [machine for machine in MACHINES if any(machine in records(stem) for _, stem, _ in SPEED)]
    lines = [f"| what | {' | '.join(MACHINES[machine] for machine in known)} | from |", f"|---|{'---|' * len(known)}---|"]
    for what, stem, places in SPEED:
        if there := records(stem):
            cells = [cell(there[m][1], places) if m in there else "" for m in known]
            names = ", ".join(f"`{there[m][0]}`" for m, numbers in zip(known, cells) if numbers)
            lines.append(f"| {what} | {' | '.join(cells)} | {names} |")
    lines += ["", "| how right, on any machine | | from |", "|---|---|---|"]
    for what, stem, places in RIGHT:
        ((name, record),) = records(stem).values()
        lines.append(f"| {what} | {', '.join(shown(get(record)) for get in places)} | `{name}` |")
    return "\n".join(lines)


def main() -> None:
    """Write, or with --check compare."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    made = f"{before}{BEGIN}\n{tables()}\n{END}{rest.partition(END)[2]}"
    if "--check" in sys.argv:
        sys.exit(0 if made == text else "README.md is not as on record: python data/readme_numbers.py")
    README.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
