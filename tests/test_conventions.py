"""What CONTRIBUTING promises of the code: lengths, docstrings, and what a module exports."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for part in ("nembp", "cli", "tests") for path in (ROOT / part).rglob("*.py"))
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]
LINES, FUNCTION_LINES = 300, 60

# they ran where the sources are; a wheel's tests lie away from them
pytestmark = pytest.mark.skipif(not (ROOT / "nembp").is_dir(), reason="no sources beside the tests")


def parsed(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"))


def module_of(name: str) -> ModuleType:
    parts = Path(name).with_suffix("").parts
    parts = ("nembp_cli", *parts[1:]) if parts[0] == "cli" else parts
    module = ".".join(part for part in parts if part != "__init__")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "cupy"):
            raise
        pytest.skip(f"no {error.name}")


def lines_of_code(function: ast.FunctionDef) -> int:
    """Count from ``def`` to the end, less the docstring."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    docstring = function.body[0]
    if ast.get_docstring(function) and docstring.end_lineno is not None:
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


def public_definitions(tree: ast.Module) -> set[str]:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {n.name for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")}


# -- lengths ---------------------------------------------------------------------------------------
def test_a_file_is_read_in_one_sitting():
    long = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in NAMES}
    assert {name: n for name, n in long.items() if n > LINES} == {}


def test_a_function_fits_a_screen():
    long = {
        f"{name}:{node.lineno} {node.name}": lines_of_code(node)
        for name in NAMES
        for node in ast.walk(parsed(name))
        if isinstance(node, ast.FunctionDef) and lines_of_code(node) > FUNCTION_LINES
    }
    assert long == {}


def test_the_map_of_the_project_names_every_module():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    modules = [path for path in (ROOT / "nembp").iterdir() if path.suffix == ".py"]
    packages = [path.parent for path in (ROOT / "nembp").glob("*/__init__.py")]
    names = {path.stem for path in modules + packages if not path.stem.startswith("__")}
    assert {name for name in names if f"`{name}`" not in text and f"`{name}/`" not in text} == set()


# -- docstrings ------------------------------------------------------------------------------------
def _is_part_of_another(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """Whether it is an overload of a function, or a property's setter, that stand beside it."""
    words = [ast.unparse(decorator) for decorator in node.decorator_list]
    return any(word == "overload" or word.endswith(".setter") for word in words)


def _documents(base: type, name: str) -> bool:
    """Whether a class says what its method is, or its attribute under Attributes."""
    own = vars(base)
    if name in own and own[name].__doc__:
        return True
    return name in own.get("__annotations__", {}) and name in (base.__doc__ or "")


def undocumented(owner: Any, prefix: str, defined: ast.AST) -> Iterator[str]:
    """Yield what is public in a module or class and says nothing, nor overrides what does."""
    for node in ast.iter_child_nodes(defined):
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        name = f"{prefix}.{node.name}"
        bases = owner.__mro__[1:] if inspect.isclass(owner) else ()
        described = ast.get_docstring(node) or any(_documents(base, node.name) for base in bases)
        if not described and not _is_part_of_another(node):
            yield name
        if isinstance(node, ast.ClassDef):
            yield from undocumented(getattr(owner, node.name), name, node)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("tests/")])
def test_all_that_is_public_has_a_docstring(name):
    tree, module = parsed(name), module_of(name)
    assert ast.get_docstring(tree), name
    assert set(undocumented(module, module.__name__, tree)) == set()


def test_an_override_of_what_is_documented_needs_no_docstring():
    source = (
        "class A:\n    'Doc.'\n    def f(self): 'Doc.'\n    def g(self): pass\n"
        "class B(A):\n    def f(self): pass\n    def g(self): pass\n"
    )
    module = ModuleType("sample")
    exec(source, vars(module))
    found = set(undocumented(module, "sample", ast.parse(source)))
    assert found == {"sample.A.g", "sample.B", "sample.B.g"}


# -- exports ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("tests/")])
def test_a_module_exports_all_that_it_defines_for_others(name):
    public = public_definitions(parsed(name))
    if not public:
        return
    module = module_of(name)
    exported = getattr(module, "__all__", [])
    assert public <= set(exported), f"{name}: __all__ lacks {sorted(public - set(exported))}"
    assert [each for each in exported if not hasattr(module, each)] == []
    assert len(exported) == len(set(exported))
