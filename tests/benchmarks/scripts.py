"""Answers and refusals in Thai, Arabic, Russian, Japanese: what Debian's packages ask on installation, as translated there.

    apt-get download console-data console-setup debconf dictionaries-common exim4-config grub-pc keyboard-configuration \\
        locales popularity-contest tasksel
    python tests/benchmarks/scripts.py FOLDER [--against BEFORE.json] [--out data/benchmarks/scripts.json]

FOLDER holds these packages (.deb of Debian 12). A passage is the text of one of their templates in one language. Of each
language half the passages are indexed, then the other half: a question (`data/questions/scripts.jsonl`) is asked of both, of
the one that has its passage and of the one where nothing answers it. Needs `dpkg-deb`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.bench.metrics import contains_answer
from ultrafast_rag.bench.pages import first_statement
from ultrafast_rag.bench.result import write_result

QUESTIONS = Path(__file__).parents[2] / "data" / "questions" / "scripts.jsonl"
SHORTEST = 90  # characters: a shorter text is a title alone
MEASURES = ("first hit right", "answered", "right first", "wrongly answered")


def passages(folder: Path, language: str) -> Iterator[tuple[str, str]]:
    """Name and text of each template that has one in the language."""
    for package in sorted(folder.glob("*.deb")):
        shown = subprocess.run(["dpkg-deb", "-I", package, "templates"], capture_output=True, text=True)
        for template in shown.stdout.split("\n\n"):
            name = re.search(r"^Template: (\S+)", template, re.M)
            text = re.search(rf"^Description-{language}\.UTF-8: (.*(?:\n .*)*)", template, re.M)
            if name and text and len(text[1]) > SHORTEST:
                lines = ("\n" if line.strip() == "." else f"{line.strip()} " for line in text[1].split("\n"))
                yield name[1], re.sub(r" *\n *", "\n", "".join(lines)).strip()


def ask(texts: dict[str, str], rows: list[dict]) -> dict[str, dict[str, float]]:
    """measure -> question -> value."""
    found: dict[str, dict[str, float]] = {measure: {} for measure in MEASURES}
    for half in (0, 1):
        kept = sorted(texts)[half::2]
        with UltraFastRAG(image_model=None, speech_model=None, quiet=True, query_cache=False) as rag:
            rag.add_texts([texts[name] for name in kept], ids=kept)
            for row in rows:
                question, answer = row["question"], rag.query(row["question"])
                if row["template"] in kept:
                    found["first hit right"][question] = float(rag.search(question)[0].document_id == row["template"])
                    found["answered"][question] = float(answer.supported)
                    right = answer.supported and contains_answer(first_statement(answer), row["answers"])
                    found["right first"][question] = float(right)
                else:
                    found["wrongly answered"][question] = float(answer.supported)
    return found


def main() -> None:
    """One row a language."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--against", type=Path, help="an earlier result, whose values become columns")
    parser.add_argument("--out", type=Path, default=Path("data/benchmarks/scripts.json"))
    arguments = parser.parse_args()
    asked = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    before = json.loads(arguments.against.read_text(encoding="utf-8"))["rows"] if arguments.against else []
    table, values = [], {}
    for language in dict.fromkeys(row["language"] for row in asked):
        texts, rows = dict(passages(arguments.folder, language)), [row for row in asked if row["language"] == language]
        values[language] = ask(texts, rows)
        row = {"language": language, "passages": len(texts), "questions": len(rows)}
        earlier = next((old for old in before if old["language"] == language), {})
        for measure, found in values[language].items():
            row[measure] = sum(found.values()) / len(found)
            row |= {f"{measure}, before": earlier[measure]} if measure in earlier else {}
        table.append(row)
        print(row, flush=True)
    notes = [
        "right first: answered, and the fact stands in the first statement; wrongly answered: of the half without its passage"
    ]
    write_result(
        arguments.out.stem, {"rows": table, "notes": notes, "questions": values}, arguments.out.parent,
        command="python tests/benchmarks/scripts.py FOLDER --against BEFORE.json",
    )  # fmt: skip


if __name__ == "__main__":
    main()
