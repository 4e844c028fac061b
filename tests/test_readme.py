"""README's promises: every number is in a JSON on record, its example prints what it says, its links lead somewhere."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from ultrafast_rag.extract.detect import SUPPORTED

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SAMPLES_IN_EXAMPLE = ("larkholm_handbook.pdf", "letters_from_the_crew.md", "balloon_ascents.html")
ROUNDING = 0.006  # numbers in the table have two or three digits


def row(rows, **wanted):
    """The one row with these values."""
    (found,) = (row for row in rows if all(row[name] == value for name, value in wanted.items()))
    return found


def media(what, setting):
    return lambda d: row(d["rows"], what=what, setting=setting)["value"]


def column(name, key, values):
    return [lambda d, value=value: row(d["rows"], **{key: value})[name] for value in values]


SYSTEMS = ("langchain", "llamaindex", "txtai", "ultrafast_rag")
# start of the table's first cell -> where in the JSON of its last cell each number of the second comes from
WHERE = {
    "text encoder, tokens/s": [
        lambda d: row(d["rows"], engine="torch-f32", batch="4096 tokens")["tokens/s"],
        lambda d: row(d["rows"], engine="openvino-int8", batch="1024 tokens")["tokens/s"],
    ],
    "one textbook": column("pages/min", "pages", [117]),
    "peak memory": [lambda d: d["memory"]["difference_mb"]],
    "ten public PDFs": column("pages/min", "system", SYSTEMS),
    "the same, ms per query": column("query ms", "system", SYSTEMS),
    "basic settings": column("pages/min", "settings", ["basic", "+ index choice (default)"]),
    "process start": [lambda d: d["rows"][0]["first answer s"], lambda d: d["rows"][0]["peak MB"]],
    "a search among": [
        lambda d, name=name: row(d["rows"], chunks=100_000)[name] for name in ("search p50 ms", "recall@10", "bytes/vector")
    ],
    "the dense leg": [
        lambda d, name=name: row(d["rows"], chunks=1_000_000)[name] for name in ("dense search ms", "recall@10", "bytes/vector")
    ],
    "nDCG@10": column("default", "collection", ["squad2", "scifact", "xquad-de", "xquad-zh", "xquad-hi"]),
    "CLIP ViT-B/32": [
        media("CLIP ViT-B/32 pictures", "openvino-bf16, default tokens a batch"),
        media("CLIP ViT-B/32 texts", "openvino-bf16, default tokens a batch"),
    ],
    "Whisper base": [media("Whisper base encoder", "bfloat16")],
    "demo CLIP": [lambda d: d["numbers"]["unseen_text_to_image"], lambda d: d["numbers"]["unseen_image_to_text"]],
    "demo Whisper": [lambda d: d["speech"]["one sentence each"]["wer"], lambda d: d["nobody_speaks"]["words"]],
}


def table():
    """(what, numbers, JSON's name) of each row under Numbers."""
    section = README[README.index("## Numbers") : README.index("![From basic")]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and (name := re.fullmatch(r"`(\w+\.json)`", cells[2])):
            yield cells[0], [float(number.replace(" ", "")) for number in cells[1].split(", ")], name[1]


def test_every_number_of_the_table_is_on_record():
    rows = list(table())
    assert len(rows) == len(WHERE)
    for what, numbers, name in rows:
        record = json.loads((ROOT / "data" / "benchmarks" / name).read_text(encoding="utf-8"))
        assert record["machine"]
        assert record["date"]
        assert record["command"]
        (places,) = (places for start, places in WHERE.items() if what.startswith(start))
        assert numbers == pytest.approx([place(record) for place in places], rel=ROUNDING), what


# what stands before a measured number in running text -> its JSON and the place in it
KILLS = "killed: n-th operation, named point, any moment"
PROSE = {
    "0.3 % for the kills": ("faults.json", lambda d: 100 * row(d["rows"], fault=KILLS)["rate_below"]),
    "ready to write again in 9 ms": ("faults.json", lambda d: row(d["rows"], fault=KILLS)["recovery_p50_ms"]),
    "(p99 22 ms": ("faults.json", lambda d: row(d["rows"], fault=KILLS)["recovery_p99_ms"]),
    "matrix products run at 0.94": ("profile.json", lambda d: d["layers"]["tera_ops"]),
    "one large product alone reaches 0.95": ("profile.json", lambda d: d["layers"]["ceiling_tera_ops"]),
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


def test_numbers_are_of_the_machine_the_table_names():
    for what, _, name in table():
        machine = json.loads((ROOT / "data" / "benchmarks" / name).read_text(encoding="utf-8"))["machine"]
        if isinstance(machine, dict):
            assert (machine["cpu"], machine["cores"], machine["gpus"]) == ("AMD EPYC", 2, []), what


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
