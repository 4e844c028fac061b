"""The package's face: names, version, and an import that stays light."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import ultrafast_rag

ROOT = Path(__file__).parent.parent


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


def test_readme_tree_names_every_file():
    readme = (ROOT / "README.md").read_text()
    tree = readme[readme.index("    ultrafast_rag/") :]
    for path in sorted((ROOT / "ultrafast_rag").rglob("*.py")):
        if path.name != "__init__.py":
            assert path.name in tree, f"{path.name} is missing from README's tree"


def test_requirements_pin_nothing():
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert "==" not in line.split(";")[0], line
        assert "<" not in line.split(";")[0], line
