"""The package's face: names, version, and an import that stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ultrafast_rag
from ultrafast_rag import doctor
from ultrafast_rag.errors import MissingExtraError, require

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "ultrafast_rag").rglob("*.py"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
# `test` is of the checks, and no module of the package imports from it
ONLY_IN_EXTRAS = {canonicalize_name(one.name) for extra, lines in EXTRAS.items() if extra != "test" for one in lines} - {
    "ultrafast-rag"
}


def packages(extra: str) -> set[str]:
    """Names of an extra's packages, or of the core's for ""."""
    return {one.name for one in (EXTRAS[extra] if extra else CORE)}


def calls(*names: str) -> Iterator[tuple[str, ast.Call]]:
    """(file:line, call) of every call of these functions in the package."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_exported_names_are_sorted_and_exist():
    assert list(ultrafast_rag.__all__) == sorted(ultrafast_rag.__all__)
    for name in ultrafast_rag.__all__:
        assert getattr(ultrafast_rag, name) is not None


def test_changelog_starts_with_this_version():
    versions = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == ultrafast_rag.__version__


def test_import_loads_nothing_heavy():
    code = "import sys, ultrafast_rag; ultrafast_rag.Config(); print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {"torch", "faiss", "openvino", "transformers", "pymupdf", "PIL", "av", "ipywidgets", "matplotlib"}


def test_layout_in_contributing_names_every_file():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    tree = text[text.index("\n    ultrafast_rag/\n") : text.index("## Style")]
    for path in sorted((ROOT / "ultrafast_rag").rglob("*.py")):
        if path.name != "__init__.py":
            assert re.search(rf"(?<![\w.]){re.escape(path.name)}(?!\w)", tree), f"{path} is missing from CONTRIBUTING.md"


def test_a_wheel_holds_every_file_of_the_package():
    package, patterns = ROOT / "ultrafast_rag", PYPROJECT["tool"]["setuptools"]["package-data"]["ultrafast_rag"]
    packed = {path for pattern in ("**/*.py", *patterns) for path in package.glob(pattern)}
    assert {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".pyc", ".pyi")} <= packed


def test_requirements_pin_nothing():
    for requirement in (one for names in (CORE, *EXTRAS.values()) for one in names):
        assert {bound.operator for bound in requirement.specifier} <= {">="}, requirement


def test_requirements_file_is_the_core_and_the_extras_of_all():
    lines = (line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    listed = [Requirement(line) for line in lines if line]
    (all_of,) = EXTRAS["all"]
    wanted = [*CORE, *(one for extra in sorted(all_of.extras) for one in EXTRAS[extra])]
    assert sorted(map(str, listed)) == sorted(map(str, wanted))


@pytest.mark.parametrize("platform", ["colab", "kaggle"])
def test_what_a_platform_preinstalls_is_new_enough_to_stay(platform):
    """An exact version must satisfy our floor; of a range, our floor must be inside."""
    lines = (ROOT / ".ci" / f"preinstalled-{platform}.txt").read_text().splitlines()
    there = {canonicalize_name(one.name): one for one in (Requirement(line) for line in lines if not line.startswith("#"))}
    (all_of,) = EXTRAS["all"]
    asked = [one for one in (*CORE, *(each for extra in all_of.extras for each in EXTRAS[extra]))]
    shared = [one for one in asked if canonicalize_name(one.name) in there]
    assert len(shared) == len(there)
    for ours in shared:
        theirs = there[canonicalize_name(ours.name)]
        (bound,) = theirs.specifier
        (floor,) = ours.specifier
        kept = ours.specifier.contains(bound.version) if bound.operator == "==" else theirs.specifier.contains(floor.version)
        assert kept, f"{theirs} would be replaced: {ours} is asked for"


def test_ci_is_constrained_to_versions_that_satisfy_our_floors():
    lines = (ROOT / ".ci" / "constraints.txt").read_text().splitlines()
    kept = {canonicalize_name(one.name): one for one in (Requirement(line) for line in lines if not line.startswith("#"))}
    for ours in (*CORE, *(one for extra in ("test", *EXTRAS["all"][0].extras) for one in EXTRAS[extra])):
        if theirs := kept.get(canonicalize_name(ours.name)):
            (exact,) = theirs.specifier
            assert ours.specifier.contains(exact.version), f"{theirs} is kept, and {ours} asked for"
    assert {"torch", "pymupdf", "pytest"} <= set(kept)


def test_every_required_package_is_in_the_core_or_in_the_extra_it_names():
    called = list(calls("require", "MissingExtraError"))
    assert len(called) > 40
    for where, call in called:
        words = {word.arg: word.value for word in call.keywords}
        given = [argument.value if isinstance(argument, ast.Constant) else "" for argument in call.args]
        if call.func.id == "MissingExtraError":
            package, extra = given  # "" where it is not a literal
        else:
            package = words["package"].value if "package" in words else given[0].split(".")[0]
            extra = words["extra"].value if "extra" in words else ""
        assert not extra or extra in EXTRAS, f"{where}: there is no extra [{extra}]"
        assert not package or package in packages(extra), f"{where}: {package} is not in [{extra or 'core'}]"


def test_doctor_names_the_extra_that_holds_each_library():
    for package, extra in doctor.LIBRARIES.items():
        assert package in packages(extra)


def test_advice_names_extras_that_exist():
    for path in MODULES:
        for extra in re.findall(r"ultrafast_rag\[([a-z-]+)\]", path.read_text(encoding="utf-8")):
            assert extra in EXTRAS, f"{path}: [{extra}]"


def test_packages_of_extras_are_imported_through_require():
    """So that a missing one is always the error that names the command. Types alone do not count."""
    owners = metadata.packages_distributions().items()
    extras = {module for module, names in owners if {canonicalize_name(name) for name in names} & ONLY_IN_EXTRAS}
    assert {"openvino", "open_clip", "av", "ipywidgets", "psutil"} <= extras
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for_types = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
        allowed = {inner for node in for_types for inner in ast.walk(node)}
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if node not in allowed and (found := {name.split(".")[0] for name in names} & extras):
                assert found == {"google"}, f"{path}: {found}"
                assert names == ["google.colab"]  # Colab's own, which no registry has


def test_a_missing_package_is_an_error_that_names_the_command():
    with pytest.raises(MissingExtraError, match=r"no-such is not installed. Run: pip install 'ultrafast_rag\[speech\]'"):
        require("no_such_module", package="no-such", extra="speech")


def test_readme_and_ci_run_the_same_two_commands():
    shown = re.findall(r"^    (python3 -m venv .+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(shown) == 2
    assert shown[1] in (ROOT / ".ci" / "run").read_text().splitlines()
    for command, extras in zip(shown, ("all", "all,test")):
        assert f'-e ".[{extras}]"' in command
