"""Imports of the library point down: a room can be read and used without those above it."""

import ast
import graphlib
from pathlib import Path

import pytest

import reidlib
from reidlib.utils.paths import ROOT

ROOMS = {  # in reading order: each row says from which rooms this one imports
    "utils": "",
    "data": "utils",
    "losses": "",
    "models": "utils",
    "training": "utils data",
    "evaluation": "utils data losses",
    "experiments": "utils data losses models training evaluation",
    "figures": "utils data models evaluation",
    "report": "utils evaluation experiments figures",
    "cli": "utils data experiments report",
}
NEEDS_NO_TORCH = ("report", "experiments.records", "evaluation.statistics", "figures.curves",
                  "evaluation.metrics")
LIBRARY = ROOT / "reidlib"
OUTSIDE = ("__init__", "__main__")  # hands on names, starts the command line


def module_of(path: Path) -> str:
    """Dotted name below the library; a folder's own for its ``__init__``."""
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


FILES = {module_of(path): path for path in sorted(LIBRARY.rglob("*.py"))}


def imports(text: str) -> tuple[set[str], set[str]]:
    """What a module imports: modules of the library, and top-level packages from elsewhere."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    own = {name.removeprefix("reidlib.") for name in names if name.startswith("reidlib.")}
    elsewhere = {name.partition(".")[0] for name in names}
    return {name if name in FILES else name.rpartition(".")[0] for name in own}, elsewhere


IMPORTS = {module: imports(path.read_text()) for module, path in FILES.items()}


def room_of(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_is_in_a_room_and_every_room_has_modules():
    assert {room_of(module) for module in FILES} - set(OUTSIDE) == set(ROOMS)
    assert {name for own, _ in IMPORTS.values() for name in own} <= set(FILES)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_its_row_names_and_only_from_rooms_before_it(room):
    named = ROOMS[room].split()
    before = list(ROOMS)[:list(ROOMS).index(room)]
    assert set(named) <= set(before)
    used = {room_of(name) for module, (own, _) in IMPORTS.items() if room_of(module) == room
            for name in own}
    assert used - {room} == set(named)


def test_modules_do_not_import_each_other_in_a_circle():
    order = graphlib.TopologicalSorter({module: own for module, (own, _) in IMPORTS.items()})
    order.prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", FILES)
def test_a_file_is_read_at_a_sitting(module):
    assert len(FILES[module].read_text().splitlines()) <= 300


@pytest.mark.parametrize("start", NEEDS_NO_TORCH)
def test_what_reads_results_needs_no_torch(start):
    found = [module for module in FILES if f"{module}.".startswith(f"{start}.")]
    assert found
    for module in found:  # grows while it is read
        own, elsewhere = IMPORTS[module]
        assert not elsewhere & {"torch", "torchvision", "timm", "accelerate"}, module
        found += own - set(found)


@pytest.mark.parametrize("name", reidlib.__all__)
def test_the_names_that_a_notebook_starts_with_are_there(name):
    assert getattr(reidlib, name).__module__.startswith("reidlib.")
