"""The command line: what each mistake is told and which exit code it gets; what --json and --index promise."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ultrafast_rag.cli import main
from ultrafast_rag.rag import UltraFastRAG

TEXT_ONLY = ("--set", "image_model=null", "--set", "speech_model=null", "--set", "quiet=true")
ROOT = Path(__file__).parent.parent
NO_INDEX = "there is no index in"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an index of two texts, a note to ingest, an empty folder, and files that are not what they seem."""
    folder = tmp_path_factory.mktemp("cli")
    with UltraFastRAG(folder / "ix", image_model=None, speech_model=None, quiet=True) as rag:
        rag.add_texts(["Ships need harbours.", "Bells ring."], ids=["a", "b"], metadata=[{"kind": "sea"}, {"kind": "land"}])
    (folder / "note.txt").write_text("The lamp burns colza oil.")
    (folder / "empty").mkdir()
    (folder / "empty.txt").touch()
    (folder / "broken").mkdir()
    (folder / "broken" / "index.sqlite").write_bytes(b"SQLite format 3\0" + b"no database" * 500)
    (folder / "bad.tar").write_bytes(b"no archive at all" * 100)
    return folder


# arguments, exit code, what is said; {} is the folder
MISTAKES = [
    ("", 2, "required: COMMAND"),
    ("serch x", 2, "invalid choice"),
    ("search", 2, "required: question"),
    ("search x --nonsense", 2, "unrecognized arguments"),
    ("search x -k many --index {}/ix", 2, "invalid int"),
    ("search x -k 0 --index {}/ix", 2, "k is how many hits"),
    ("search x --alpha 2 --index {}/ix", 2, "alpha must lie"),
    ("search x --alpha nan --index {}/ix", 2, "alpha must lie"),
    ("search x --modality txt --index {}/ix", 2, "unknown modality txt; did you mean 'text'"),
    ("search  --index {}/ix", 2, "the question is empty"),
    ("query  --index {}/ix", 2, "the question is empty"),
    ("search x --index {}/nowhere", 1, NO_INDEX),
    ("query x --index {}/nowhere", 1, NO_INDEX),
    ("export {}/x.tar --index {}/nowhere", 1, NO_INDEX),
    ("search x --index {}/note.txt", 1, "note.txt"),
    ("search zebra --alpha 0 --filter kin=sea --index {}/ix", 2, "the field 'kin'; did you mean 'kind'"),
    ("search zebra --alpha 0 --filter zzz=1 --index {}/ix", 2, "document_id, kind, modality, page, source, title"),
    ("search zebra --filter kind --index {}/ix", 2, "NAME=VALUE"),
    ("search zebra --filter page=one --index {}/ix", 2, "takes a page number"),
    ("search zebra --filter page=NaN --index {}/ix", 2, "filter 'page' is nan"),
    ("search zebra --filter kind=1e999 --index {}/ix", 2, "filter 'kind' is inf"),
    ("search x --set alpha=bar --index {}/ix", 2, "alpha takes a number"),
    ("search x --set alpha --index {}/ix", 2, "NAME=VALUE"),
    ("search x --set =3 --index {}/ix", 2, "NAME=VALUE"),
    ("search x --set alhpa=0.5 --index {}/ix", 2, "did you mean 'alpha'"),
    ("search x --set fusion=rff --index {}/ix", 2, "did you mean 'rrf'"),
    ("search x --set chunk_tokens=9 --index {}/ix", 1, "was made with chunk_tokens"),
    ("query x --set generator=gemni --index {}/ix", 2, "did you mean 'gemini'"),
    ("ingest", 2, "required: sources"),
    ("ingest {}/gone.pdf --index {}/new", 1, "does not exist"),
    ("ingest {}/empty --index {}/new", 1, "holds no file"),
    ("ingest {}/empty.txt --index {}/new", 1, "empty"),
    ("ingest http://example.org/a.pdf --index {}/new", 1, "only https addresses are fetched"),
    ("ingest {}/note.txt --time-budget=-1 --index {}/new", 2, "must be at least 0"),
    ("ingest {}/note.txt --time-budget soon --index {}/new", 2, "invalid float"),
    ("ingest {}/note.txt --set max_workers=0 --index {}/new", 2, "max_workers must be at least 1"),
    ("export --index {}/ix", 2, "name the .tar"),
    ("restore", 2, "required: archive"),
    ("restore {}/nothing.tar --index {}/fresh", 1, "there is no file"),
    ("restore {}/bad.tar --index {}/fresh", 1, "bad.tar"),
    ("restore {}/bad.tar --index {}/ix", 2, "is not empty"),
    ("bench qualty", 2, "unknown benchmark 'qualty'"),
    ("bench search --bogus", 2, "unrecognized arguments"),
    ("demo --samples {}/gone", 1, "does not exist"),
    ("ingest  --index {}/new", 2, "a source is a file, a folder"),
    ("export {} --index {}/ix", 2, "is a folder; name the .tar"),
    ("ingest {}/note.txt --index {}/note.txt", 1, "note.txt is a file; an index is a folder"),
    ("ingest {}/note.txt --index /proc/nothing/ix", 1, "/proc/nothing"),
    ("search x --index {}/broken", 1, "damaged"),
    ("doctor --set device=cuda:7 --index {}/ix", 2, "is not usable here"),
    ("query x --set config=3 --index {}/ix", 2, "config takes a Config"),
    ("restore {}/note.txt --index {}/fresh", 1, "no tar file"),
    ("serve --port 99999 --index {}/ix", 2, "a port lies between"),
    ("serve --host 0.0.0.0 --index {}/ix", 2, "only this machine is served"),
    ("mcp --index {}/nowhere", 1, NO_INDEX),
    ("completion fish", 2, "invalid choice"),
]


@pytest.mark.parametrize(("line", "code", "says"), MISTAKES, ids=[line or "(nothing)" for line, _, _ in MISTAKES])
def test_a_mistake_is_told_what_to_do_and_gets_its_exit_code(place, capsys, line, code, says):
    command = line.split(" ") if line else []
    texts = TEXT_ONLY if command and command[0] in ("search", "query", "ingest", "demo") and "--nonsense" not in command else ()
    try:
        given = main([*(word.replace("{}", str(place)) for word in command), *texts])
    except SystemExit as stop:  # argparse's own
        given = stop.code
    shown = "".join(capsys.readouterr())
    assert says in shown
    assert given == code, shown
    assert "Traceback" not in shown


def test_there_are_fifty_mistakes():
    assert len(MISTAKES) >= 50


def test_a_report_of_which_a_part_failed_succeeds(place, tmp_path, capsys):
    sources = [str(place / "note.txt"), str(place / "gone.pdf")]
    assert main(["ingest", *sources, "--index", str(tmp_path / "ix"), "--json", *TEXT_ONLY]) == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 1
    assert main(["ingest", *sources, "--index", str(tmp_path / "ix"), *TEXT_ONLY]) == 0
    assert "1 document unchanged" in capsys.readouterr().out


def test_filters_narrow_a_search(place, capsys):
    assert main(["search", "ring ships", "--alpha", "0", "--filter", "kind=land", "--index", str(place / "ix"), "--json"]) == 0
    assert [hit["document_id"] for hit in json.loads(capsys.readouterr().out)] == ["b"]


def test_demo_keeps_its_index_where_told_and_prints_json(place, tmp_path, capsys):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "note.txt").write_text("The lamp burns colza oil.")
    (tmp_path / "questions.json").write_text(json.dumps([{"question": "What does the lamp burn?", "demo": True}]))
    command = ["demo", "--samples", str(tmp_path / "samples"), "--index", str(tmp_path / "kept"), "--json", *TEXT_ONLY]
    assert main(command) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["report"]["documents"] == 1
    assert "colza" in shown["answers"][0]["text"]
    assert main(["search", "lamp", "--alpha", "0", "--index", str(tmp_path / "kept"), *TEXT_ONLY]) == 0


def test_bench_list_prints_json(capsys):
    assert main(["bench", "list", "--json"]) == 0
    assert {"quality", "search"} <= {row["name"] for row in json.loads(capsys.readouterr().out)}


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [("se", ["search", "serve"]), ("search --al", ["--alpha"]), ("search x --set alph", ["alpha="]), ("bench qual", ["quality"]),
     ("search --modality a", ["audio"]), ("ingest pap", [])],
)  # fmt: skip
def test_a_shell_completes_commands_options_and_settings(capsys, typed, offered):
    assert main(["completion", "bash"]) == 0
    words = ["ultrafast-rag", *typed.split()]
    ask = f'COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; _ultrafast_rag; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", f"{capsys.readouterr().out}\n{ask}"], capture_output=True, text=True, timeout=30)
    assert (done.stdout.split(), done.stderr) == (offered, "")


def test_a_reader_that_leaves_early_sees_no_traceback():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "ultrafast_rag", "bench", "list"]
    left = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=60)
    os.close(writing)
    assert (left.returncode, left.stderr) == (1, "")
