"""README's promises: every number is in a JSON on record, its example prints what it says, its links lead somewhere."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest

from ultrafast_rag.extract.detect import SUPPORTED

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SAMPLES_IN_EXAMPLE = ("larkholm_handbook.pdf", "letters_from_the_crew.md", "balloon_ascents.html")
NUMBERS = runpy.run_path(str(ROOT / "data" / "readme_numbers.py"))
row = NUMBERS["row"]


def test_the_tables_of_numbers_are_as_on_record():
    made = f"{NUMBERS['BEGIN']}\n{NUMBERS['tables']()}\n{NUMBERS['END']}"
    assert made in README, "run: python data/readme_numbers.py"
    assert "Zen 5" in made


def test_every_record_of_the_tables_names_machine_date_and_command():
    for _, stem, _ in (*NUMBERS["SPEED"], *NUMBERS["RIGHT"]):
        for name, record in NUMBERS["records"](stem).values():
            assert all(record[field] for field in ("machine", "date", "command")), name


@pytest.mark.parametrize(
    ("value", "text"), [(0.9051, "0.905"), (7.036, "7.04"), (2639.9, "2 640"), (48612, "48 600"), (546.2, "546"), (0, "0")]
)
def test_numbers_are_shown_with_three_digits(value, text):
    assert NUMBERS["shown"](value) == text


# what stands before a measured number in running text -> its JSON and the place in it
KILLS = "killed: n-th operation, named point, any moment"
PROSE = {
    "0.3 % for the kills": ("faults.json", lambda d: 100 * row(d["rows"], fault=KILLS)["rate_below"]),
    "ready to write again in 9 ms": ("faults.json", lambda d: row(d["rows"], fault=KILLS)["recovery_p50_ms"]),
    "(p99 22 ms": ("faults.json", lambda d: row(d["rows"], fault=KILLS)["recovery_p99_ms"]),
    "matrix products run at 0.94": ("profile.json", lambda d: d["layers"]["tera_ops"]),
    "one large product alone reaches 0.95": ("profile.json", lambda d: d["layers"]["ceiling_tera_ops"]),
    "lower by 0.0012": ("progressive.json", lambda d: max(found["lost"] for found in d["rows"])),
    "(AUC 0.66": ("reader.json", lambda d: d["AUC"]),
    "The packaged reader (3 MB": ("reader.json", lambda d: d["size_bytes"] / 1e6),
}
NOT_MEASURED = (
    "about 6 GB",
    "*estimate* 4 000 pages/min",
    "noise 20 dB",
    "3/n at 95 %",
)  # said to be no measurement, or a setting
MEASURED = re.compile(r"(?<![\w.])(?:\d+\.\d+(?![\w.])|\d[\d ]*(?= ?(?:(?:ms|MB|GB|dB|s|tokens/s|pages/min)\b|%)))")


def prose():
    """README's running text: no code, no table, no link's address, no version of Python, SQuAD or a licence."""
    text = re.sub(r"```.*?```|^ {4}.*?$|`[^`]*`|^\|.*?$|\]\([^)]*\)|^!\[.*?$", "", README, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"(?:Python|Apache|AGPL|SQuAD|BY-SA|or)[ -]\d+\.\d+(?:, \d+\.\d+)*(?: or \d+\.\d+)?|#t=.*", "", text)
    return " ".join(text.split())


def test_every_number_of_the_running_text_is_on_record():
    text = prose()
    spans = {said: (text.index(said), text.index(said) + len(said)) for said in (*PROSE, *NOT_MEASURED)}
    for found in MEASURED.finditer(text):
        said = next((said for said, (start, end) in spans.items() if start <= found.start() and found.end() <= end), None)
        assert said, f"no JSON for {text[max(0, found.start() - 60) : found.end() + 20]!r}: name it in PROSE"
        if said in PROSE:
            name, place = PROSE[said]
            record = json.loads((ROOT / "data" / "benchmarks" / name).read_text(encoding="utf-8"))
            assert float(found.group()) == pytest.approx(place(record), rel=0.02), said


def test_the_table_of_faults_is_the_record():
    rows = json.loads((ROOT / "data" / "benchmarks" / "faults.json").read_text(encoding="utf-8"))["rows"]
    section = README[README.index("| fault | trials") : README.index("After a kill")]
    shown = [[int(re.sub(r"[^\d]", "", cell) or 0) for cell in line.split("|")[2:5]] for line in section.strip().splitlines()[2:]]
    counts = [(row.get("refused", 0), row.get("wrong", 0) + row.get("lost", 0), row["raw"] + row.get("hung", 0)) for row in rows]
    assert [trials for trials, _, _ in shown] == [row["trials"] for row in rows]
    assert [raw for _, _, raw in shown] == [raw for _, _, raw in counts] == [0] * 5
    assert [wrong for _, wrong, _ in counts] == [0] * 5
    assert [said for _, said, _ in shown[:2]] == [refused for refused, _, _ in counts[:2]]  # "0 (313 refused in words)"
    assert shown[4][1] == round(10 * rows[4]["parent_grew_mb"])  # "3.8 MB"


def test_every_format_that_is_read_is_named():
    assert SUPPORTED in " ".join(README.split())


def test_links_and_pictures_are_there():
    found = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(found) > 10
    for target in found:
        if not target.startswith("https://"):
            assert (ROOT / target).exists(), target


@pytest.mark.slow
def test_the_example_prints_what_it_says(tmp_path, monkeypatch, capsys):
    code, printed = re.search(r"```python\n(.*?)```.*?```\n(.*?)```", README, re.DOTALL).groups()
    folder = tmp_path / "papers"
    folder.mkdir()
    for name in SAMPLES_IN_EXAMPLE:
        shutil.copy(ROOT / "data" / "samples" / name, folder)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(code, scope)
    scope["rag"].close()
    assert capsys.readouterr().out.strip() == printed.strip()
