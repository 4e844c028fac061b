"""The committed question sets: every answer stands where its row says (needs the public documents)."""

import json
import re
import shutil
import subprocess
import unicodedata
from functools import cache
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "data" / "questions"
NAMES = ("pages", "pages_hard", "tables", "facts", "facts2", "fresh", "manuals", "papers", "papers_absent", "absent")
ELSEWHERE = {"manuals", "papers", "papers_absent"}  # on documents that the public folder lacks
SETS = {name: [json.loads(line) for line in (FOLDER / f"{name}.jsonl").open(encoding="utf-8")] for name in NAMES}


def answers_of(row):
    return row.get("answers") or [row["answer"]]


def normal(text):
    joined = re.sub(r"(?<=\w)-\s*\n\s*(?=\w)", "", unicodedata.normalize("NFKC", text))
    return re.sub(r"\s+", " ", joined)


@cache
def page_text(path, number):
    import pymupdf

    with pymupdf.open(path) as document:
        page = document[number - 1]
        text = page.get_text() + "\n" + page.get_text(sort=True)
        if text.strip() or not shutil.which("tesseract"):
            return normal(text)
        image = page.get_pixmap(dpi=200).tobytes("png")
    return normal(subprocess.run(["tesseract", "-", "-"], input=image, capture_output=True, check=True).stdout.decode())


@cache
def file_text(path):
    if path.suffix in (".xlsx", ".xlsm"):
        import openpyxl

        sheets = openpyxl.load_workbook(path, data_only=True)
        return normal("\n".join(str(cell) for sheet in sheets for row in sheet.iter_rows(values_only=True) for cell in row))
    if path.suffix == ".docx":
        import docx

        document = docx.Document(path)
        cells = (cell for table in document.tables for row in table.rows for cell in row.cells)
        return normal("\n".join(part.text for part in (*document.paragraphs, *cells)))
    if path.suffix == ".html":
        import bs4

        return normal(bs4.BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").get_text())
    return normal(path.read_text(encoding="utf-8"))


def test_sets_have_the_promised_rows():
    assert len(SETS["pages"]) >= 60
    assert len(SETS["tables"]) >= 60
    assert len(SETS["facts"]) == 30
    assert len(SETS["facts2"]) == 22
    assert len(SETS["fresh"]) + len(SETS["manuals"]) == 46
    assert len(SETS["absent"]) == 80
    assert (len(SETS["papers"]), len(SETS["papers_absent"])) == (50, 15)
    assert len({row["twin"] for row in SETS["absent"]} | {row["question"] for row in SETS["absent"]}) == 160
    for rows in SETS.values():
        assert len({row["question"] for row in rows}) == len(rows)
        assert not any(Path(row["file"]).is_absolute() for row in rows)


@pytest.mark.parametrize("name", sorted(set(SETS) - ELSEWHERE))
def test_answers_stand_on_their_page(name, public_data):
    missing = []
    for row in SETS[name]:
        path = public_data / row["file"]
        text = page_text(path, row["page"]) if row["page"] else file_text(path)
        if not text.strip():
            continue  # a scan, and no tesseract here
        if not any(normal(answer) in text for answer in answers_of(row)):
            missing.append((row["question"], row["file"], row["page"]))
    assert missing == []
