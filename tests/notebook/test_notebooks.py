"""Notebooks as committed: run in order, small, without secrets or paths of a machine, with badges. nbval runs them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent.parent / "notebooks"
PROJECT = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [
    "01_quickstart", "02_ingestion", "03_querying", "04_profiling", "05_benchmarks", "06_enrichment",
    "07_caching_and_cost", "08_evaluation", "09_outgrowing",
]  # fmt: skip
AWAITING: set[str] = set()  # notebooks whose timings wait for a quiet machine
MOST_BYTES = 220_000  # with the tables of what to do and the larger crops
TAGS = {"nbval-skip", "nbval-check-output", "nbval-ignore-output"}
SECRETS = re.compile(
    r"AIza[\w-]{30,}|sk-[A-Za-z0-9]{20,}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|xox[abp]-[\w-]{10,}|BEGIN [A-Z ]*PRIVATE"
)
PATHS = re.compile(r"(?<![\w.:/])/(?:home|root|work|opt|tmp|usr|var|mnt|Users|private|content|kaggle)/|[A-Z]:\\\\Users")


def cells_of(path, kind="code"):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def source_of(cell):
    return "".join(cell["source"])


def outputs_of(path):
    """(media type, text) of everything a notebook shows; pictures and clips inside left out."""
    for cell in cells_of(path):
        for output in cell["outputs"]:
            shown = {output["name"]: output["text"]} if output["output_type"] == "stream" else output.get("data", {})
            for kind, content in shown.items():
                text = json.dumps(content) if isinstance(content, dict) else "".join(content)
                if not kind.startswith("image/"):
                    yield kind, re.sub(r"base64,[A-Za-z0-9+/=]+", "base64,", text)


def test_every_promised_notebook_is_there():
    assert {path.stem for path in NOTEBOOKS} >= set(NAMES)


@pytest.fixture(params=NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def notebook(request):
    return request.param


def test_cells_were_run_once_in_order_without_an_error(notebook):
    cells = cells_of(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]


def test_it_opens_with_a_title_badges_and_what_one_needs_to_know(notebook):
    first = source_of(cells_of(notebook, "markdown")[0])
    assert re.match(r"# \S", first)
    assert f"colab.research.google.com/github/ultrafast-rag/ultrafast_rag/blob/main/notebooks/{notebook.name}" in first
    assert "kaggle.com/kernels/welcome?src=" in first
    assert f"notebooks/{notebook.name})" in first.split("kaggle.com/kernels")[1]
    for promise in ("**You will see**", "**Time**", "**Memory**", "**Data**", "Apache-2.0"):
        assert promise in first, promise


def test_it_sets_itself_up_and_asks_its_settings_in_one_cell(notebook):
    cells = cells_of(notebook)
    assert "find_spec" in source_of(cells[0])
    assert "-c keep.txt" in source_of(cells[0])  # preinstalled torch and numpy stay
    always, with_gpu, without = re.search(
        r'extras = "(.*)," \+ \("(.*)" if .*nvidia-smi.* else "(.*)"\)', source_of(cells[0])
    ).groups()
    assert (with_gpu, without) == ("quant", "cpu")
    assert {*always.split(","), with_gpu, without} <= set(PROJECT["optional-dependencies"])
    assert cells[0]["metadata"]["tags"] == ["nbval-skip"]
    assert "# @param" in source_of(cells[1])


def test_the_first_cell_works_for_a_clone_and_for_a_package_and_says_what_is_missing(notebook):
    setup = source_of(cells_of(notebook)[0])
    assert "git clone" in setup
    assert 'else "ultrafast_rag"' in setup  # PyPI, where the repository cannot be reached
    assert "not here and cannot be fetched" in setup
    assert "find_samples()" in source_of(cells_of(notebook)[1])  # an error with the command to run, where there are none


def test_metadata_asks_for_a_t4_on_colab_and_kaggle_and_hides_forms(notebook):
    about = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]
    assert about["colab"]["gpuType"] == "T4"
    assert about["kaggle"]["accelerator"] == "nvidiaTeslaT4"
    assert about["kaggle"]["isInternetEnabled"]
    for cell in cells_of(notebook):
        assert (cell["metadata"].get("cellView") == "form") == source_of(cell).startswith("# @title"), source_of(cell)


def test_it_says_what_is_next_what_to_do_if_something_fails_and_how_to_run_all(notebook):
    told = "\n".join(source_of(cell) for cell in cells_of(notebook, "markdown"))
    for part in (
        "## Next steps",
        "## If something fails",
        "Internet on",
        "T4 GPU",
        "out of quota",
        "out of disk",
        "**Run all:**",
    ):
        assert part in told, part
    for link in re.findall(r"\]\((\d\d_\w+\.ipynb)\)", told):
        assert (FOLDER / link).is_file(), link


def test_words_are_said_what_they_mean_before_they_are_used(notebook):
    told = "\n".join(source_of(cell) for cell in cells_of(notebook, "markdown"))
    for word in ("chunk", "embedding", "BM25", "nDCG"):
        used = re.search(rf"\b{word}s?\b", told, re.IGNORECASE)
        if used:
            assert re.search(rf"\*+{word}(?:s|@10)?\*+", told, re.IGNORECASE), f"{word} is used and not set off where it is told"


def test_one_exercise_checks_itself_and_says_not_yet_in_the_committed_run(notebook):
    exercises = [cell for cell in cells_of(notebook) if "# @title Exercise" in source_of(cell)]
    assert len(exercises) == 1
    assert re.search(r"from ultrafast_rag.notebook.exercises import .*check_\w+", source_of(exercises[0]))
    (shown,) = (output for output in exercises[0]["outputs"] if output["output_type"] == "execute_result")
    assert "".join(shown["data"]["text/plain"]).startswith("not yet: ")


def test_plots_have_an_alternative_text_and_tables_are_no_raw_dicts(notebook):
    for cell in cells_of(notebook):
        for output in cell["outputs"]:
            told = "image/png" not in output.get("data", {}) or notebook.stem in AWAITING
            assert told, "wrap it: Plot(figure, 'what it shows')"
    if "matplotlib" in (code := "\n".join(source_of(cell) for cell in cells_of(notebook))):
        assert "Plot(figure, " in code
    for kind, text in outputs_of(notebook):
        if kind == "text/html":
            assert all(" alt=" in image for image in re.findall(r"<img[^>]*>", text))
            assert not re.search(r"\{&#x27;\w+&#x27;:", text), text[:200]
    pictures = re.findall(r"!\[([^\]]*)\]", "\n".join(source_of(cell) for cell in cells_of(notebook, "markdown")))
    assert all(pictures)


def test_notebooks_take_nothing_from_the_tests_and_watch_only_what_is_open(notebook):
    code = "\n".join(source_of(cell) for cell in cells_of(notebook))
    assert not re.search(r"^\s*(?:from|import) tests\b", code, re.MULTILINE)
    if "MonitorWidget" in code or "rag.widget()" in code:
        assert "\nrag.close()" not in code


def test_ratios_of_times_are_refused_on_a_busy_machine():
    for name, ratio in (("04_profiling", "times float32"), ("05_benchmarks", "times basic on this machine")):
        code = "\n".join(source_of(cell) for cell in cells_of(FOLDER / f"{name}.ipynb"))
        assert code.index("busy(") < code.index("no ratio") < code.index(ratio)
    told = "\n".join(text for _, text in outputs_of(FOLDER / "05_benchmarks.ipynb"))
    assert ("no ratio: other programs use" in told) != ("times basic on this machine" in told)


def test_outputs_are_small_and_quiet(notebook):
    assert notebook.stat().st_size < MOST_BYTES
    for kind, text in outputs_of(notebook):
        assert kind != "stderr", text[:200]
        assert "Warning" not in text, text[:200]
        assert not re.search(r"<script|<link|\son\w+=|javascript:", text, re.IGNORECASE), text[:200]


def test_nothing_in_it_belongs_to_one_machine_or_person(notebook):
    text = notebook.read_text(encoding="utf-8")
    assert not SECRETS.search(re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))
    for kind, shown in outputs_of(notebook):
        found = PATHS.search(shown)
        assert not found, f"{kind}: {shown[max(0, found.start() - 60) : found.end() + 60]}"
    for cell in cells_of(notebook):
        assert not PATHS.search(source_of(cell)), source_of(cell)


def test_tags_are_known_and_cells_are_short(notebook):
    for cell in cells_of(notebook):
        assert set(cell["metadata"].get("tags", [])) <= TAGS
        assert len(source_of(cell).splitlines()) <= 25, source_of(cell)


def test_some_cells_are_held_to_their_output(notebook):
    checked = [cell for cell in cells_of(notebook) if "nbval-check-output" in cell["metadata"].get("tags", [])]
    assert checked or notebook.stem == "05_benchmarks"  # there every output is a measurement


@pytest.mark.parametrize("sample", ["key = 'AIza" + "a" * 35 + "'", "token hf_" + "b" * 34])
def test_a_key_would_be_seen(sample):
    assert SECRETS.search(sample)


@pytest.mark.parametrize(("text", "seen"), [("in /home/me/x", True), ("'/tmp/a'", True), ("https://x.org/home/page", False)])
def test_a_path_of_a_machine_would_be_seen(text, seen):
    assert bool(PATHS.search(text)) is seen
