"""The walls that CONTRIBUTING.md promises: who imports whom, no circles, and no file or function that is too long."""

from __future__ import annotations

import ast
import graphlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "edgeformer"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
MOST_LINES_OF_A_FILE = 450
MOST_LINES_OF_A_FUNCTION = 80
# Slow to import and large to install: who imports them at its top makes everybody above wait for them.
TORCH = ("torch", "safetensors")
TENSORRT = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "pycuda")
POLYGRAPHY = ("polygraphy",)


@dataclass(frozen=True)
class Import:
    """One import by a module of the package.

    Attributes:
        importer: dotted name of the module.
        imported: dotted name of what it imports: a module of the package, or any name of another package.
        line: where.
        at_import: whether it runs when the importer is imported, that is neither in a function nor for types alone.
    """

    importer: str
    imported: str
    line: int
    at_import: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def floors_of(text: str) -> dict[str, int]:
    """The floor of each room, counted from 0, as the fenced block of CONTRIBUTING.md has them."""
    (block,) = re.findall(r"^```text floors\n(.+?)^```", text, re.MULTILINE | re.DOTALL)
    return {room: floor for floor, line in enumerate(block.splitlines()) for room in line.split()}


def modules_of(package: Path) -> dict[str, Path]:
    """Every module of a package by its dotted name; a package's own name stands for its ``__init__``."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str) -> str:
    """The room of a module: what comes after the package's name, empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


class _Imports(ast.NodeVisitor):
    """Collects what a module imports."""

    def __init__(self, importer: str, modules: dict[str, Path]) -> None:
        self.importer = importer
        self.modules = modules
        self.found: list[Import] = []
        self._late = 0

    def _visit_late(self, node: ast.AST) -> None:
        self._late += 1
        self.generic_visit(node)
        self._late -= 1

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _visit_late  # noqa: N815  names that ast gives

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) not in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            self.generic_visit(node)
            return
        self._late += 1
        for statement in node.body:
            self.visit(statement)
        self._late -= 1
        for statement in node.orelse:
            self.visit(statement)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level:
            base = self.importer.split(".")
            if self.modules[self.importer].name != "__init__.py":
                base = base[:-1]
            base = base[: len(base) - node.level + 1]
            module = ".".join([*base, *([module] if module else [])])
        for alias in node.names:
            # `from package import module` names the module, `from module import name` does not. What other packages
            # mean by it is not known here, and does not matter.
            below = f"{module}.{alias.name}"
            self._add(module if module in self.modules and below not in self.modules else below, node)

    def visit_Call(self, node: ast.Call) -> None:
        if ast.unparse(node.func) in ("import_module", "importlib.import_module", "__import__"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    self._add(argument.value, node)
        self.generic_visit(node)

    def _add(self, imported: str, node: ast.stmt | ast.expr) -> None:
        self.found.append(Import(self.importer, imported, node.lineno, not self._late))


def imports_of(modules: dict[str, Path]) -> Iterator[Import]:
    """Every import of a module of the package, wherever it stands: also in a function, and for types alone."""
    for name, path in modules.items():
        visitor = _Imports(name, modules)
        visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
        yield from visitor.found


def breaches(package: Path, floors: dict[str, int]) -> list[str]:
    """Every import that goes up, or to another room on its own floor.

    The package's ``__init__`` and ``__main__`` are the front door: they may import everything, and nobody imports them.
    """
    faults = []
    modules = modules_of(package)
    for item in imports_of(modules):
        importer, imported = room_of(item.importer), room_of(item.imported)
        if importer in ("", "__main__") or item.imported not in modules:
            continue
        if imported in ("", "__main__"):
            faults.append(f"{item}: the front door")
        elif importer != imported and floors[imported] >= floors[importer]:
            way = "upward" if floors[imported] > floors[importer] else "sideways"
            faults.append(f"{item}: {way}")
    return faults


def users_of(package: Path, libraries: tuple[str, ...], *, at_import: bool = False) -> set[str]:
    """The modules of a package that import one of the libraries; with ``at_import``, when they are imported."""
    return {
        item.importer
        for item in imports_of(modules_of(package))
        if any(item.imported == library or item.imported.startswith(f"{library}.") for library in libraries)
        and (item.at_import or not at_import)
    }


def circle(package: Path) -> list[str]:
    """Modules that import each other when they are imported, the first one again at the end; empty where none do."""
    modules = modules_of(package)
    needs: dict[str, set[str]] = {name: set() for name in modules}
    for item in imports_of(modules):
        if not item.at_import or item.imported not in modules:
            continue
        # To import a module is to import the packages around it, those apart that are being imported already.
        parts = item.imported.split(".")
        around = {".".join(parts[:end]) for end in range(1, len(parts))}
        needs[item.importer] |= {item.imported, *around} - {
            name for name in around if item.importer == name or item.importer.startswith(f"{name}.")
        }
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        return list(reversed(error.args[1]))
    return []


def python_files() -> list[Path]:
    """The repository's Python files, new ones that are not yet added among them."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def long_functions(source: str) -> list[tuple[str, int]]:
    """Functions with too many lines; decorators and the docstring, which should tell all, are not counted."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            if lines >= MOST_LINES_OF_A_FUNCTION:
                found.append((node.name, lines))
    return found


def test_every_room_has_a_floor_and_every_floor_its_rooms() -> None:
    rooms = {room_of(name) for name in modules_of(ROOT / PACKAGE)} - {"", "__main__"}
    assert set(floors_of(CONTRIBUTING)) == rooms


def test_imports_go_down() -> None:
    assert breaches(ROOT / PACKAGE, floors_of(CONTRIBUTING)) == []


def test_no_module_needs_itself_to_be_imported() -> None:
    assert circle(ROOT / PACKAGE) == []


def test_only_models_and_two_modules_import_torch_at_the_top() -> None:
    users = users_of(ROOT / PACKAGE, TORCH, at_import=True)
    assert "edgeformer.models.biformer" in users
    allowed = {"edgeformer.runtime.torch_session", "edgeformer.quantization.torch_rounding"}
    assert {name for name in users if room_of(name) != "models"} <= allowed


def test_only_two_rooms_know_tensorrt() -> None:
    rooms = {room_of(name) for name in users_of(ROOT / PACKAGE, TENSORRT)}
    assert rooms <= {"engine", "machine"}


def test_one_module_knows_polygraphy() -> None:
    assert set(users_of(ROOT / PACKAGE, POLYGRAPHY)) == {"edgeformer.verify.polygraphy_results"}


@pytest.mark.parametrize("module", ["records.verification", "records.engine", "bundle", "bundle.details"])
def test_a_bundle_is_read_without_the_libraries_that_made_it(module: str) -> None:
    heavy = {"torch", "onnx", "onnxruntime", "numpy", "polygraphy"}
    probe = f"import sys, edgeformer.{module}; print(*sorted(set(sys.modules) & {heavy!r}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.strip() == ""


def test_the_plugins_know_nothing_of_python() -> None:
    sources = [path for path in (ROOT / "plugins").rglob("*") if path.suffix in (".h", ".cpp", ".cu", ".cuh")]
    assert len(sources) > 50
    including = re.compile(r"^\s*#\s*include\s*[<\"](Python\.h|pybind11/|nanobind/|torch/)", re.MULTILINE)
    assert [path.name for path in sources if including.search(path.read_text(encoding="utf-8"))] == []


def test_no_file_is_too_long() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()
    }
    assert len(lengths) > 200, "the files are not all there"
    assert {path: lines for path, lines in lengths.items() if lines >= MOST_LINES_OF_A_FILE} == {}


def test_no_function_is_too_long() -> None:
    found = {str(path.relative_to(ROOT)): long_functions(path.read_text(encoding="utf-8")) for path in python_files()}
    assert {path: functions for path, functions in found.items() if functions} == {}


# The checks themselves, on a small package with rooms on three floors and on code in which something is wrong.

FLOORS = floors_of("```text floors\nground\nleft right\nroof\n```\n")
SOUND = {
    "__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.roof import top\n",
    "__main__.py": "from house.roof import top\n",
    "ground.py": "import json\n",
    "left/__init__.py": "from house.left.a import one\n",
    "left/a.py": "from house import ground\nfrom . import b\none = 1\n",
    "left/b.py": "def late():\n    from house.left.a import one\n",
    "right.py": "import house.ground\n",
    "roof.py": "from house.left import one\nimport house.right\ntop = 1\n",
}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A package in which nothing is wrong."""
    package = tmp_path / "house"
    for name, source in SOUND.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(source)
    return package


def test_a_sound_package_passes(house: Path) -> None:
    assert FLOORS == {"ground": 0, "left": 1, "right": 1, "roof": 2}
    assert breaches(house, FLOORS) == []
    assert circle(house) == []


@pytest.mark.parametrize(
    ("file", "line", "seen"),
    [
        ("ground.py", "import house.roof", "house.ground:1 imports house.roof: upward"),
        ("ground.py", "from house.roof import top", "house.ground:1 imports house.roof: upward"),
        ("ground.py", "def late():\n    from house import roof", "house.ground:2 imports house.roof: upward"),
        ("ground.py", "if TYPE_CHECKING:\n    import house.left.a", "house.ground:2 imports house.left.a: upward"),
        ("ground.py", "x = importlib.import_module('house.roof')", "house.ground:1 imports house.roof: upward"),
        ("left/b.py", "from ..right import x", "house.left.b:1 imports house.right: sideways"),
        ("left/__init__.py", "from ..right import x", "house.left:1 imports house.right: sideways"),
        ("right.py", "class C:\n    import house.left", "house.right:2 imports house.left: sideways"),
        ("right.py", "from house import __version__", "house.right:1 imports house: the front door"),
    ],
)
def test_a_planted_import_is_seen(house: Path, file: str, line: str, seen: str) -> None:
    (house / file).write_text(line + "\n")
    assert breaches(house, FLOORS) == [seen]


@pytest.mark.parametrize(
    ("file", "line", "names"),
    [
        ("left/b.py", "from house.left.a import one", {"house.left.a", "house.left.b"}),
        # The package's own names are not there yet while its modules are imported.
        ("left/b.py", "from house.left import one", {"house.left", "house.left.a", "house.left.b"}),
        (
            "ground.py",
            "try:\n    import house.left.b\nfinally:\n    pass",
            {"house.ground", "house.left", "house.left.a"},
        ),
    ],
)
def test_a_planted_circle_is_seen(house: Path, file: str, line: str, names: set[str]) -> None:
    (house / file).write_text(line + "\n")
    found = circle(house)
    assert found[0] == found[-1]
    assert set(found) == names


def test_a_planted_library_is_seen(house: Path) -> None:
    (house / "right.py").write_text("def late():\n    from torch import nn\n")
    (house / "left/b.py").write_text("import torch.nn\nimport torchvision\n")
    assert users_of(house, ("torch",)) == {"house.right", "house.left.b"}
    assert users_of(house, ("torch",), at_import=True) == {"house.left.b"}


def test_a_long_function_is_seen_and_a_long_docstring_is_not_counted() -> None:
    body = "    x = 1\n" * (MOST_LINES_OF_A_FUNCTION - 2)
    assert long_functions(f"def f():\n{body}") == []
    assert long_functions(f'def f():\n    """First.\n\n    Last.\n    """\n{body}') == []
    assert long_functions(f"class C:\n  async def f():\n{body}    x = 2\n") == [("f", MOST_LINES_OF_A_FUNCTION)]
