"""The wheel holds what the library reads; the lists of packages agree with what is used."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from reidlib.utils.paths import ROOT
from tests.constraints import installed_closure, recorded_versions, tracked_records

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
READ = (".py", ".csv", ".j2")  # what the library runs and reads
BUILD = """
import sys
from setuptools import build_meta
print(build_meta.build_wheel(sys.argv[1]))
"""


def library_files():
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard",
                            "reidlib"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in names.split("\0") if name and (ROOT / name).is_file())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the tree, built without a network."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in (*library_files(), "pyproject.toml", "README.md", "LICENSE"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-c", BUILD, out], cwd=copy, check=True, capture_output=True)
    path, = out.iterdir()
    with zipfile.ZipFile(path) as file:
        yield file


def test_the_wheel_holds_every_module_template_and_table(wheel):
    wanted = {name for name in library_files() if name.endswith(READ)}
    assert {"reidlib/cli.py", "reidlib/report/paper.csv"} <= wanted
    assert any(name.endswith(".j2") for name in wanted)
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == wanted


def test_the_wheel_has_the_command_and_the_version(wheel):
    info = {name.partition("/")[2]: wheel.read(name).decode() for name in wheel.namelist()
            if ".dist-info/" in name}
    assert "[console_scripts]\nreidlib = reidlib.cli:main" in info["entry_points.txt"]
    assert f"\nVersion: {PROJECT['version']}\n" in info["METADATA"]


def test_one_version_everywhere():
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert newest == cited == PROJECT["version"]


HOMES = importlib.metadata.packages_distributions()  # import name -> distributions; slow to ask


def third_party(path):
    """Distributions that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.partition(".")[0])
    found -= {*sys.stdlib_module_names, "reidlib"}
    return {canonicalize_name(HOMES[name][0]) for name in found}


def names(requirements):
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def test_every_import_is_a_declared_dependency():
    everywhere = names(PROJECT["dependencies"]) | {"pydantic-core"}  # pydantic's own other half
    notebooks = names(PROJECT["optional-dependencies"]["notebooks"])
    for path in ROOT.glob("reidlib/**/*.py"):
        allowed = everywhere | (notebooks if path.stem in ("notebooks", "query_chooser") else set())
        assert third_party(path) <= allowed, path


def pins():
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)$", CONSTRAINTS, re.M))


def test_constraints_hold_versions_and_nothing_else():
    lines = [line for line in CONSTRAINTS.splitlines() if not line.startswith("# ")]
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[\w.+!]+", line) for line in lines)
    assert list(pins()) == sorted(pins()) and len(pins()) == len(lines)
    assert not any(name.startswith(("nvidia-", "cuda-")) or name in ("triton", "reidlib")
                   for name in pins())


def test_constraints_are_the_versions_of_the_tracked_runs():
    recorded = recorded_versions(tracked_records())
    assert f"(Python {recorded.pop('python')})" in CONSTRAINTS and len(recorded) >= 8
    assert recorded.items() <= pins().items()


def test_constraints_fit_the_projects_ranges():
    for text in (*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), [])):
        wanted = Requirement(text)
        assert Version(pins()[canonicalize_name(wanted.name)]) in wanted.specifier, text


def record(folder, name, **versions):
    path = folder / name / "run.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"cost": {"versions": versions}}))
    return path


def test_records_of_two_environments_give_no_constraints(tmp_path):
    one, same = (record(tmp_path, name, torch="2.15.0", python="3.11.7") for name in "ab")
    assert recorded_versions([one, same]) == {"torch": "2.15.0", "python": "3.11.7"}
    other = record(tmp_path, "c", torch="2.14.1", python="3.11.7")
    with pytest.raises(ValueError, match=r"found 2(.|\n)*a/run.json(.|\n)*c/run.json.*2\.14\.1"):
        recorded_versions([one, same, other])
    with pytest.raises(ValueError, match="found 0"):
        recorded_versions([])


def test_what_is_installed_indirectly_counts():
    found = installed_closure(["timm>=1"])
    assert {"timm", "torch", "sympy", "mpmath"} <= set(found) and "pandas" not in found
    assert found["mpmath"] == importlib.metadata.version("mpmath")
    with pytest.raises(ValueError, match="no-such-package is not installed"):
        installed_closure(["no-such-package"])
