"""The layout of the package: which room may import which, and what an import costs.

The rooms and their order are described in ``docs/design.md``.  A module at the top of the package
(``errors``, ``seeding``, ...) belongs to the foundation.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import agilerl

ROOT = Path(agilerl.__file__).parent
HEAVY = {"wandb", "matplotlib", "transformers", "h5py", "plotly"}

FOUNDATION = "foundation"
FRONT = ("agilerl.cli", "agilerl.__main__")
STOREYS = (
    (FOUNDATION,),
    ("networks", "components"),
    ("algorithms",),
    ("hpo", "data"),
    ("wordle",),
    ("training",),
    ("utils",),
    ("runs",),
)
STOREY_OF = {room: height for height, rooms in enumerate(STOREYS) for room in rooms}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {module: ast.parse(path.read_text("utf-8")) for module, path in PATHS.items()}


def room_of(module: str) -> str:
    """Return the room of a module: the first package under ``agilerl``, or the foundation."""
    parts = module.split(".")
    if module in FRONT:
        return "runs"
    if len(parts) == 1 or (len(parts) == 2 and (ROOT / f"{parts[1]}.py").is_file()):
        return FOUNDATION
    return parts[1]


def imported_by(node: ast.AST, module: str) -> Iterator[str]:
    """Yield the absolute dotted names of an import statement, the most exact one last."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            is_package = module in PATHS and PATHS[module].name == "__init__.py"
            package = module.split(".")
            package = package[: len(package) - node.level + is_package]
            base = ".".join([*package, base] if base else package)
        yield from (f"{base}.{alias.name}" for alias in node.names)


def own_imports(tree: ast.AST, module: str, modules: set[str]) -> set[str]:
    """Return which of ``modules`` the code in ``tree``, a part of ``module``, imports."""
    found = set()
    for node in ast.walk(tree):
        for name in imported_by(node, module):
            found.add(name if name in modules else name.rpartition(".")[0])
    return (found & modules) - {module}


IMPORTS = {
    # the names of the package itself are loaded when they are asked for
    module: own_imports(tree, module, set(PATHS)) if module != "agilerl" else set()
    for module, tree in TREES.items()
}


def breaches(imports: dict[str, set[str]]) -> list[str]:
    """Return the edges that the order of the rooms forbids."""
    return [
        f"{module} imports {target}"
        for module, targets in imports.items()
        for target in sorted(targets)
        if room_of(target) != room_of(module)
        and STOREY_OF[room_of(target)] >= STOREY_OF[room_of(module)]
    ]


def run_by_an_import(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes that run when the module is imported."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            stack.extend(node.orelse)
        else:
            stack.extend(ast.iter_child_nodes(node))


def heavy_imports(tree: ast.Module, module: str) -> set[str]:
    """Return the heavy packages that importing ``module`` would load."""
    names = {n for node in run_by_an_import(tree) for n in imported_by(node, module)}
    return {name.partition(".")[0] for name in names} & HEAVY


def function_level_imports(tree: ast.Module, module: str, modules: set[str]) -> list[str]:
    """Return the functions that import the package itself."""
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and own_imports(node, module, modules)
    ]


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room_of(module) for module in PATHS} - set(STOREY_OF) == set()


def test_imports_point_one_way() -> None:
    assert breaches(IMPORTS) == []


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("agilerl.errors", "agilerl.networks.base"),
        ("agilerl.networks.base", "agilerl.components.replay_buffer"),
        ("agilerl.components.replay_buffer", "agilerl.algorithms.base"),
        ("agilerl.algorithms.dqn", "agilerl.hpo.mutation"),
        ("agilerl.hpo.mutation", "agilerl.data.tokenizer"),
        ("agilerl.training.train", "agilerl.utils.utils"),
    ],
)
def test_an_import_against_the_order_is_noticed(module: str, target: str) -> None:
    package, _, name = target.rpartition(".")
    dots = "." * module.count(".")
    for statement in (
        f"import sys, {target}",
        f"from {target} import x",
        f"from {package} import name, {name}",
        f"from {dots}{target.partition('.')[2]} import x",
    ):
        found = own_imports(ast.parse(statement), module, {module, target})
        assert breaches({module: found}) == [f"{module} imports {target}"], statement


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    order = list(TopologicalSorter(IMPORTS).static_order())  # raises CycleError, with the circle
    assert sorted(order) == sorted(PATHS)


def test_the_package_is_imported_at_the_top_of_a_file_only() -> None:
    late = {m: function_level_imports(tree, m, set(PATHS)) for m, tree in TREES.items()}
    for front in FRONT:  # a command loads what it needs, and --help nothing
        late.pop(front)
    assert {module: functions for module, functions in late.items() if functions} == {}


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    heavy = {module: heavy_imports(tree, module) for module, tree in TREES.items()}
    assert {module: names for module, names in heavy.items() if names} == {}


def test_an_import_that_runs_early_is_told_from_one_that_waits() -> None:
    early = ast.parse("try:\n  import h5py.h5f\nexcept ImportError:\n  from wandb import sdk")
    late = ast.parse("if TYPE_CHECKING:\n  import h5py\ndef f():\n  import wandb")
    assert heavy_imports(early, "agilerl.x") == {"h5py", "wandb"}
    assert heavy_imports(late, "agilerl.x") == set()

    own = ast.parse("import agilerl.y\nclass C:\n  async def f(self):\n    from agilerl import y")
    assert function_level_imports(own, "agilerl.x", {"agilerl.y"}) == ["f"]


def test_importing_every_module_loads_no_heavy_package() -> None:
    program = (
        "import importlib, json, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    command = [sys.executable, "-c", program, *PATHS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert set(PATHS) <= loaded
    assert not loaded & HEAVY
