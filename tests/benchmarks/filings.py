"""Questions an analyst asks of long annual reports: is the page found, the number in the answer, the unanswerable refused?

    python tests/benchmarks/filings.py [--out data/benchmarks/filings.json] [--folder DIR]

Twelve Forms 10-K of five invented companies, some 60 pages each, are drawn first (needs Chromium); a folder given keeps them. Every
figure follows from the companies' seeded books, so the truth is known; its page is where the figure and its row's label stand together.
"""

# ruff: noqa: E501, C901
from __future__ import annotations

import argparse
import json
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pymupdf
from filing_books import books
from filing_pages import draw, print_html
from filing_parts import Writer, drivers, facilities
from filing_questions import ABSENT, ASKED
from filing_texts import COMPANIES
from reports import LEFT_OUT, WHOLE

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.bench.metrics import compare, contains_answer, interval, per_query
from ultrafast_rag.bench.pages import first_statement, place
from ultrafast_rag.bench.questions import MARK
from ultrafast_rag.bench.result import write_result


def make(folder: Path) -> None:
    """Every filing that is not there yet."""
    with tempfile.TemporaryDirectory() as scratch:
        for company in COMPANIES:
            years = books(company)
            for year in company.years:
                path = folder / f"{company.stem}_{year}_10K.pdf"
                if path.exists():
                    continue
                filing = Writer(company, years, year).whole()
                if company.printed:
                    print_html(filing, path, Path(scratch))
                else:
                    draw(filing, path)


def answers(company, year, key):
    """Ways the fact may be written."""
    years = books(company)
    back = len(key) - len(key.lstrip("-"))
    y, key = years[year - back], key.lstrip("-")
    what, _, town = key.partition(":")
    if town:
        _, use, feet, kind, _ = next(row for row in facilities(company, year) if row[0] == town)
        return [{"feet": f"{feet:,}", "use": use, "kind": kind}[what]]
    if key == "driver":
        return [drivers(company, year)[0][0].split("{")[0].strip()[:40].rsplit(" ", 1)[0]]
    if key == "worst":
        grow = [y[f"seg{n}"] / years[year - 1][f"seg{n}"] for n in range(len(company.segments))]
        return [company.segments[min(range(len(grow)), key=grow.__getitem__)]]
    if key == "totaldebt":
        return [f"{y['shortdebt'] + y['longdebt']:,}"]
    if key == "free":
        return [f"{y['cfo'] - y['capex']:,}"]
    if key.endswith(" usd"):
        value = y["contribution"] * 1.1 if key.startswith("contributed") else y[key.removesuffix(" usd")]
        return [f"{value:,.0f}", f"{value / 1000:,.2f}"] if company.scale == "millions" else [f"{value / 1000:,.1f}"]
    if key in ("rate", "discount%"):
        return [f"{y['rate']:.1f}" if key == "rate" else f"{y['discount']:.2f}"]
    if key not in y:
        return [key]
    value = abs(y[key])
    if key in ("epsd", "epsb", "dps", "strike"):
        return [f"{value:.2f}"]
    if key in ("granted", "diluted", "basic"):
        return [f"{value:,.1f}"]
    if key == "stores":
        return [f"{value:.0f}"]
    return (
        [f"{value:,.0f}", f"{value / 1000:,.3f}", f"{value / 1000:,.2f}", f"{value / 1000:,.1f}"]
        if key == "ppe"
        else [f"{value:,.0f}"]
    )


def pages_of(path: Path, label: str, gold: list[str]) -> set[int]:
    """Pages, from 1, where a form of the fact and the label stand together."""
    found = set()
    with pymupdf.open(path) as document:
        for number, page in enumerate(document, 1):
            text = " ".join(page.get_text().split())
            if label in text and any(re.search(rf"(?<![\d,.]){re.escape(one)}(?![\d,]|\.\d)", text) for one in gold):
                found.add(number)
    return found


def main() -> None:
    """One row a part left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("data/benchmarks/filings.json"))
    parser.add_argument("--folder", type=Path, help="where the filings are, or are put")
    parser.add_argument("--index", type=Path, help="where the index is, or is put; made by this code from these filings")
    parser.add_argument("--told", type=Path, help="where every answer is written, to be read")
    parser.add_argument("--whole", action="store_true", help="leave no part out")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()), "filings")
        folder.mkdir(exist_ok=True)
        make(folder)
        index = arguments.index or Path(stack.enter_context(tempfile.TemporaryDirectory()), "index")
        gold, qrels, table, values, told = {}, {}, [], {}, []
        for question, at, year, key, label in ASKED:
            company = COMPANIES[at]
            name = f"{company.stem}_{year}_10K.pdf"
            gold[question] = answers(company, year, key)
            qrels[question] = {place(name, page): 1.0 for page in pages_of(folder / name, label, gold[question])}
            if not qrels[question]:
                raise SystemExit(f"{question}: {gold[question]} stands beside {label!r} nowhere in {name}")
        for part, changes in LEFT_OUT.items():
            if arguments.whole and part != WHOLE:
                continue
            with ExitStack() as changed:
                for where, name, instead in changes:
                    changed.enter_context(patch.object(where, name, instead))
                with UltraFastRAG(index, image_model=None, speech_model=None, quiet=True, query_cache=False) as rag:
                    rag.ingest(folder)
                    run, said, first, supported = {}, {}, {}, {}
                    for question in qrels:
                        hits, answer = rag.search(question, k=50), rag.query(question)
                        run[question] = [place(Path(hit.source).name, hit.page) for hit in hits]
                        supported[question] = float(answer.supported)
                        said[question] = float(answer.supported and contains_answer(MARK.sub(" ", answer.text), gold[question]))
                        first[question] = float(answer.supported and contains_answer(first_statement(answer), gold[question]))
                        found = [(hit.source.rsplit("/", 1)[-1], hit.page, hit.section, hit.text) for hit in hits[:10]]
                        told.append([part, question, gold[question], list(qrels[question]), answer.support, answer.text, found])
                    refused = {}
                    for question in ABSENT:
                        answer = rag.query(question)
                        refused[question] = float(not answer.supported)
                        told.append([part, question, None, None, answer.support, answer.text, []])
            ndcg = per_query("ndcg", qrels, run)
            values[part] = {
                "nDCG@10": ndcg,
                "in the answer": said,
                "refused": refused,
                "answered": supported,
                "in the first statement": first,
            }
            low, high = interval(ndcg)
            files = [run[question][0].partition("#")[0] == next(iter(qrels[question])).partition("#")[0] for question in qrels]
            row = {
                "left out": "nothing" if part == WHOLE else part,
                "questions": len(qrels),
                "file first": sum(files) / len(files),
            }
            row |= {"nDCG@10": sum(ndcg.values()) / len(qrels), "low": low, "high": high}
            for k in (1, 5, 10):
                row[f"hit@{k}"] = sum(per_query("hit", qrels, run, k=k).values()) / len(qrels)
            row |= {
                name: sum(values[part][name].values()) / len(values[part][name])
                for name in ("in the answer", "in the first statement", "answered", "refused")
            }
            row["p"] = None if part == WHOLE else compare(ndcg, values[WHOLE]["nDCG@10"]).p_value
            table.append(row)
            print(row)
        notes = [
            f"{sum(len(c.years) for c in COMPANIES)} filings drawn by the script; refused: of {len(ABSENT)} questions that they do not answer"
        ]
    if arguments.told:
        arguments.told.write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")
    else:
        write_result(
            arguments.out.stem, {"rows": table, "notes": notes, "questions": values}, arguments.out.parent,
            command="python tests/benchmarks/filings.py",
        )  # fmt: skip


if __name__ == "__main__":
    main()
