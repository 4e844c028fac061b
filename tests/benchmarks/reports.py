"""What file names and page heads are worth where many files look alike: annual reports of twelve invented companies, three years.

    python tests/benchmarks/reports.py [--out data/benchmarks/reports.json]

Every report is called like ACME_2018_10K.pdf, says FORM 10-K in its largest type, and has the same statements under the same
titles, one directly after another. Questions name company and year as people do. The truth is what was drawn.
Nothing was tuned on them; they are easier than real reports, whose pages are many more.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from random import Random
from unittest.mock import patch

import pymupdf

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.bench.metrics import compare, interval, per_query
from ultrafast_rag.bench.pages import place
from ultrafast_rag.bench.result import write_result
from ultrafast_rag.index import lexical, rows
from ultrafast_rag.index.names import NameIndex

# in the file's name, in full, as asked for, what it makes, where
COMPANIES = (
    ("ACME", "Acme Corporation", "Acme", "anvils", "Flagstaff, Arizona"),
    ("GLOBEX", "Globex International Inc.", "Globex", "weather machines", "Cypress Creek, Oregon"),
    ("BIGSURFOODS", "Big Sur Foods, Inc.", "Big Sur Foods", "canned fish", "Monterey, California"),
    ("NORTHWINDTRADERS", "Northwind Traders Co.", "Northwind Traders", "condiments", "Seattle, Washington"),
    ("3PEAKS", "3Peaks Holdings plc", "3Peaks", "ropes and boots", "Keswick, United Kingdom"),
    ("CVTHEALTH", "CVT Health Corp.", "CVT Health", "pharmacy services", "Providence, Rhode Island"),
    ("UMBRELLA", "Umbrella Holdings, Inc.", "Umbrella", "awnings", "Raccoon Falls, Ohio"),
    ("STERLINGCOOPER", "Sterling Cooper Group", "Sterling Cooper", "advertising", "New York, New York"),
    ("HOOLI", "Hooli Systems, Inc.", "Hooli", "search appliances", "Palo Verde, California"),
    ("VANDELAY", "Vandelay Industries Ltd.", "Vandelay", "latex products", "Queens, New York"),
    ("WAYNE_ENT", "Wayne Enterprises", "Wayne", "ships and chemicals", "Gotham, New Jersey"),
    ("TYRELL", "Tyrell Robotics Corp.", "Tyrell", "household robots", "Los Angeles, California"),
)
YEARS = (2016, 2017, 2018)
STATEMENTS = {  # title -> its rows; the pages follow one another from the fourth on
    "CONSOLIDATED STATEMENTS OF OPERATIONS": (
        "Net sales", "Cost of goods sold", "Selling, general and administrative expenses", "Operating income", "Net income"
    ),
    "CONSOLIDATED BALANCE SHEETS": (
        "Cash and cash equivalents", "Accounts receivable, net of allowances", "Inventories", "Total current liabilities"
    ),
    "CONSOLIDATED STATEMENTS OF CASH FLOWS": (
        "Net income", "Depreciation and amortization", "Purchases of property, plant and equipment", "Dividends paid"
    ),
}  # fmt: skip
ASKED = (  # question, page
    ("What was {who}'s FY{year} net income?", 4),
    ("How much did {who} spend on selling and administration in {year}?", 4),
    ("What were the total current liabilities of {who} at the end of fiscal {year}?", 5),
    ("{who} {year} 10-K: accounts receivable at the end of {year}?", 5),
    ("How much did {who} spend on capital expenditure in {year}?", 6),
    ("How much did {who} pay in dividends in {year}?", 6),
    ("How many employees did {who} have at the end of {year}?", 3),
)
WHOLE = "all parts"
LEFT_OUT = {
    WHOLE: (),
    "file names": ((NameIndex, "named", lambda self, query: None),),
    "page heads": ((rows, "PAGE_HEAD", "(none)"), (lexical, "_VERSION", "without page heads")),
}


def write(page, x, y, text, *, size=10, bold=False, right=False):
    """Words from x on, or up to it."""
    font = "tibo" if bold else "tiro"
    page.insert_text((x - right * pymupdf.get_text_length(text, font, size), y), text, fontname=font, fontsize=size)


def draw(path, full, makes, town, year, rng):
    """One report of six pages."""
    with pymupdf.open() as document:
        cover = document.new_page()
        for y, text, size in ((90, "SECURITIES AND EXCHANGE COMMISSION", 14), (130, "FORM 10-K", 20), (230, full, 16)):
            write(cover, 80, y, text, size=size, bold=True)
        write(cover, 80, 160, f"For the fiscal year ended December 31, {year}")
        write(cover, 80, 250, town)
        contents = document.new_page()
        for n, title in enumerate(("Item 1. Business", *STATEMENTS)):
            write(contents, 60, 90 + 14 * n, f"{title} {'. ' * 40}{n + 3}")
        business = document.new_page()
        write(business, 60, 60, "Item 1. Business", bold=True)
        said = (
            f'{full} (the "Company") makes and sells {makes}. Our principal executive offices are in {town}. As of December 31, '
        )
        said += (
            f"{year}, we had {rng.randrange(3000, 90_000):,} employees, and {rng.randrange(100, 900)} branches in the U.S. alone."
        )
        business.insert_textbox((60, 75, 550, 300), said, fontname="tiro", fontsize=10)
        for title, labels in STATEMENTS.items():
            page = document.new_page()
            for n, text in enumerate((f"{full.upper()} AND SUBSIDIARIES", title, "(In millions)")):
                write(page, 180, 60 + 14 * n, text, bold=n < 2)
            periods = [year, year - 1] if "BALANCE" in title else [year, year - 1, year - 2]
            for n, period in enumerate(periods):
                write(page, 540 - 80 * (len(periods) - 1 - n), 120, str(period), bold=True, right=True)
            for row, label in enumerate(labels):
                write(page, 60, 140 + 13 * row, label)
                for n in range(len(periods)):
                    figure = f"{rng.randrange(100, 90_000):,}"
                    write(page, 540 - 80 * (len(periods) - 1 - n), 140 + 13 * row, figure, right=True)
        document.save(path)


def main() -> None:
    """One row a part left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("data/benchmarks/reports.json"))
    arguments = parser.parse_args()
    rng, qrels, values, table = Random(5), {}, {}, []
    with tempfile.TemporaryDirectory() as folder:
        reports, index = Path(folder, "reports"), Path(folder, "index")
        reports.mkdir()
        for stem, full, who, makes, town in COMPANIES:
            for year in YEARS:
                name = f"{stem}_{year}_10K.pdf"
                draw(reports / name, full, makes, town, year, rng)
                for question, page in rng.sample(ASKED, 3):
                    qrels[question.format(who=who, year=year)] = {place(name, page): 1.0}
        for part, changes in LEFT_OUT.items():
            with ExitStack() as stack:
                for where, name, instead in changes:
                    stack.enter_context(patch.object(where, name, instead))
                with UltraFastRAG(index, image_model=None, speech_model=None, quiet=True, query_cache=False) as rag:
                    rag.ingest(reports)
                    hits = {question: rag.search(question, k=50) for question in qrels}
            run = {question: [place(Path(hit.source).name, hit.page) for hit in found] for question, found in hits.items()}
            values[part] = per_query("ndcg", qrels, run)
            low, high = interval(values[part])
            right = [run[question][0].partition("#")[0] == next(iter(qrels[question])).partition("#")[0] for question in qrels]
            row = {
                "left out": "nothing" if part == WHOLE else part,
                "questions": len(qrels),
                "file first": sum(right) / len(right),
            }
            row |= {"nDCG@10": sum(values[part].values()) / len(qrels), "low": low, "high": high}
            for k in (1, 5, 10):
                row[f"hit@{k}"] = sum(per_query("hit", qrels, run, k=k).values()) / len(qrels)
            row["p"] = None if part == WHOLE else compare(values[part], values[WHOLE]).p_value
            table.append(row)
            print(row)
    notes = [
        f"{len(COMPANIES) * len(YEARS)} reports of six pages, drawn by the script; p: paired randomization test against nothing"
    ]
    write_result(
        arguments.out.stem, {"rows": table, "notes": notes, "questions": values}, arguments.out.parent,
        command="python tests/benchmarks/reports.py",
    )  # fmt: skip


if __name__ == "__main__":
    main()
