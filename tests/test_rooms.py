"""The order of the rooms: a module imports only what stands before it, and no imports form a circle.

Every import counts: those within functions and those for type checkers too.
"""

from __future__ import annotations

import ast
import graphlib
from functools import cache
from pathlib import Path

import nembp_cli

import nembp

# A room imports from the rows above it, and within a row from what stands to the left.
ROWS = """
errors version threads files
backend
engine.activations engine.likelihoods engine.linear engine.winograd engine.convolution
engine.batchnorm engine.network engine.noise engine.backprop engine.optimizers engine.training
engine.metrics engine
textbook
datasets architecture checkpoints export plotting arrays
em adversarial
estimators
verification testing
runs experiments
report
benchmarks
nembp
cli __main__
"""  # nembp is the package itself, which offers what people use
ROOMS = ROWS.split()

# Imports that break the order today, by room, and rooms with a circle within. These lists only
# shrink: what is no longer an exception must be taken off.
EXCEPTIONS: set[tuple[str, str]] = set()
CIRCULAR: set[str] = set()


def sources() -> dict[str, Path]:
    """Return the file of every module."""
    found = {}
    for package in (nembp, nembp_cli):
        root = Path(package.__file__ or "").parent
        for path in root.rglob("*.py"):
            parts = (package.__name__, *path.relative_to(root).with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


@cache
def imports() -> dict[str, set[str]]:
    """Return the modules of ours that each module imports."""
    files = sources()
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        found[module] = set()
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package.rsplit(".", node.level - 1)[0] if node.level else ""
                base = ".".join(part for part in (above, node.module) if part)
                names = [f"{base}.{alias.name}" for alias in node.names]
                names = [name if name in files else base for name in names]
            found[module].update(name for name in names if name in files and name != module)
    return found


def room(module: str) -> str:
    """Return the room of a module; a module of the engine is a room of its own."""
    top, *rest = module.split(".")
    if top == "nembp_cli":
        return "cli"
    if not rest:
        return "nembp"
    return ".".join(rest[:2]) if rest[0] == "engine" else rest[0]


def rank(module: str) -> int:
    name = room(module)
    assert name in ROOMS, f"{module} is in no room: add {name} to ROOMS"
    return ROOMS.index(name)


def test_modules_import_only_what_stands_before_them():
    found: dict[tuple[str, str], str] = {}
    for module, names in imports().items():
        for name in names:
            if rank(name) > rank(module):
                rooms = room(module), room(name)
                found[rooms] = f"{module} imports {name}, but {rooms[0]} stands before {rooms[1]}"
    new = {rooms: sentence for rooms, sentence in found.items() if rooms not in EXCEPTIONS}
    assert not new, "; ".join(new.values())
    assert set(found) >= EXCEPTIONS, f"no longer exceptions: {EXCEPTIONS - set(found)}"


def circle(circular: set[str]) -> list[str]:
    """Return a circle of imports, but for the exceptions and those within circular rooms."""
    graph = {
        module: {
            name
            for name in names
            if (room(module), room(name)) not in EXCEPTIONS
            and not room(module) == room(name) in circular
        }
        for module, names in imports().items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_no_imports_form_a_circle():
    found = circle(CIRCULAR)
    assert not found, " imports ".join(found)
    for name in CIRCULAR:
        assert circle(CIRCULAR - {name}), f"{name} has no circle any more"
