"""Imports of the library point down: each piece can be read and used without those above."""

import ast
from pathlib import Path

import pytest

from reidlib.utils.paths import ROOT

LAYERS = [
    "paths progress",
    "config repro protocols processes",
    "studies",
    "manifest drawing images data models losses optimisation checkpoints metrics reranking style",
    "readers audit folds synthetic retrieval search training results intervals",
    "fetch figures matching tables",
    "beside verdicts galleries scoring",
    "findings",
    "report",
    "composition explain verify",
    "experiment",
    "crowd pipeline runs weights",
]
RANK = {module: i for i, row in enumerate(LAYERS) for module in row.split()}
FILES = sorted(p for p in (ROOT / "reidlib").glob("*.py") if p.stem != "__init__")


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "reidlib":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reidlib."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("reidlib") for alias in node.names), path
    return found


def test_every_module_has_its_layer():
    assert {p.stem for p in FILES} == set(RANK)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_imports_point_down(path):
    above = {m for m in imported(path) if RANK[m] >= RANK[path.stem]}
    assert not above, f"{path.stem} imports {above}"


@pytest.mark.parametrize("module", ["report", "results", "intervals", "figures", "metrics"])
def test_the_report_needs_no_torch(module):
    def needs(name, seen=()):
        text = (ROOT / "reidlib" / f"{name}.py").read_text()
        return "torch" in {n.split(".")[0] for n in outside(text)} or any(
            needs(m, (*seen, name)) for m in imported(ROOT / "reidlib" / f"{name}.py"))

    assert not needs(module)


def outside(text: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names
