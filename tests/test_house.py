"""The house: packages on floors, each importing from those below it alone; small folders, small files, no circles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests import ROOT

FLOORS = ("codec", "lm", "auditory_sentences", "uniaudio", "evaluation", "training", "cli")  # lowest first
MOST_FILES, MOST_LINES = 15, 600


def modules() -> dict[str, Path]:
    """Name -> file of every module of ours, packages by their own name."""
    files = (file for floor in FLOORS for file in (ROOT / floor).rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """Modules of ours that a module imports, wherever in it; not those that only its annotations name."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (one if one in MODULES else node.module for one in inner if node.module in MODULES)


GRAPH = {name: set(imports(name)) - {name} for name in MODULES}


def floor(name: str) -> int:
    return FLOORS.index(name.partition(".")[0])


@pytest.mark.parametrize("package", FLOORS)
def test_a_package_imports_from_its_floor_and_those_below(package):
    up = [(n, other) for n in GRAPH if n.partition(".")[0] == package for other in GRAPH[n] if floor(other) > floor(n)]
    assert not up


def test_no_module_imports_what_imports_it():
    """Raises graphlib.CycleError, which names the circle. A package is what its `__init__` imports."""
    TopologicalSorter(GRAPH).prepare()


def test_folders_and_files_stay_small():
    folders = {file.parent for top in (*FLOORS, "benchmarks", "tests") for file in (ROOT / top).rglob("*.py")}
    counts = {str(folder.relative_to(ROOT)): len(list(folder.glob("*.py"))) for folder in folders}
    assert not {folder: count for folder, count in counts.items() if count > MOST_FILES}
    lines = {name: file.read_text(encoding="utf-8").count("\n") for name, file in MODULES.items()}
    assert not {name: count for name, count in lines.items() if count > MOST_LINES}


def test_every_module_over_100_lines_has_a_test_file_of_its_name():
    known = {file.stem.removeprefix("test_") for file in (ROOT / "tests").rglob("test_*.py")}
    long = [name for name, file in MODULES.items() if file.read_text(encoding="utf-8").count("\n") > 100]
    assert [name for name in long if name.rpartition(".")[2] not in known] == []


def test_every_field_of_a_public_dataclass_has_its_own_comment():
    """Behind it or on the lines above it: the command line shows it as help, too."""
    bare = []
    for name, file in MODULES.items():
        text = file.read_text(encoding="utf-8")
        lines = ["", *text.splitlines()]
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
                continue
            made = [ast.unparse(one) for one in (*node.decorator_list, *node.bases)]
            if not any("dataclass" in one or one == "NamedTuple" for one in made):
                continue
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and "ClassVar" not in ast.unparse(field.annotation):
                    own = "#" in lines[field.lineno] or "#" in lines[field.end_lineno or 0]
                    if not own and not lines[field.lineno - 1].strip().startswith("#"):
                        bare.append(f"{name}.{node.name}.{ast.unparse(field.target)}")
    assert not bare
