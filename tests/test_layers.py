"""Arrows point down and nothing runs in a circle: every import counts, in functions and for types too."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "ultrafast_rag"
# each arrives at another as a Protocol of `ports`, and what passes between them is in `types`
STAGES = frozenset({"extract", "ingest", "models", "index", "search", "answer", "enrich"})
# top to bottom; a file imports from floors below its own room's, and from files of its own room
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"__main__"}),
    frozenset({"cli", "__init__"}),  # the package root hangs what notebooks see onto what `rag` gives
    frozenset({"bench", "notebook", "serve"}),
    frozenset({"rag"}),
    # makes what the stages offer; looks at what they made; moves it to another model
    frozenset({"parts", "doctor", "migration"}),
    STAGES,
    frozenset({"remote"}),  # what every paid call obeys, whichever stage makes it
    frozenset({"ports", "config", "files", "language", "monitor"}),
    frozenset({"types", "errors"}),
)
DEPTH = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms}
MOST_FLOORS = 9
MOST_ROOT_FILES = 12
FOLDERS = {path.parent.name for path in PACKAGE.glob("*/*.py")}


@cache
def modules() -> dict[str, Path]:
    """Dotted name below the package -> file."""
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


@cache
def imports(path: Path) -> set[str]:
    """Dotted names below the package that a file imports, wherever in the file; '' is the package root."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "ultrafast_rag":
                found |= {alias.name if alias.name in known_rooms() else "" for alias in node.names}
            elif node.module and node.module.startswith("ultrafast_rag."):
                below = node.module.removeprefix("ultrafast_rag.")
                names = {f"{below}.{alias.name}" for alias in node.names}
                found |= {name if name in modules() else below for name in names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "ultrafast_rag":
                    found.add(alias.name.removeprefix("ultrafast_rag").removeprefix("."))
    return found


@cache
def known_rooms() -> set[str]:
    return {name.split(".")[0] for name in modules()}


def test_every_room_has_a_layer():
    assert known_rooms() == set(DEPTH)
    assert len(LAYERS) <= MOST_FLOORS
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_ROOT_FILES


def test_imports_point_down():
    wrong = []
    for name, path in modules().items():
        room = name.split(".")[0]
        for target in imports(path):
            below = target.split(".")[0]
            same_folder = below == room and room in FOLDERS
            if target == "" or (DEPTH[below] <= DEPTH[room] and not same_folder):
                wrong.append(f"{name} -> {target or 'the package root'}")
    assert not wrong, wrong


def test_stages_do_not_import_one_another():
    met = set()
    for name, path in modules().items():
        room = name.split(".")[0]
        if room in STAGES:
            met.add(room)
            others = {target.split(".")[0] for target in imports(path)} & STAGES - {room}
            assert not others, f"{name} imports {sorted(others)}: let parts.py hand it over"
    assert met == STAGES


def test_no_circles_inside_a_room():
    graph = {name: imports(path) & set(modules()) for name, path in modules().items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for target in graph[name]:
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_nothing_that_is_shipped_imports_from_tests():
    ours = {path.stem for path in Path(__file__).parent.rglob("*.py")} | {"tests"}
    sources = {str(path): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    for path in (PACKAGE.parent / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources[str(path)] = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert len(sources) > 100
    for name, source in sources.items():
        imported = set(re.findall(r"^\s*(?:from|import)\s+(\w+)", source, re.M))
        assert not (imported & ours) - {"__main__", "__init__"}, name
        assert '"tests"' not in source, name
