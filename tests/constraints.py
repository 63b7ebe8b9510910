"""Write ``constraints.txt``: the exact versions behind the tracked results.

What a run records counts as it is recorded; the other packages that the project installs, directly
or through another one, count as this environment has them. Versions only; the packages that bring
CUDA are left to torch, which asks for its own.
"""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from reidlib.utils.paths import ROOT, write_text

CUDA = re.compile(r"nvidia-|cuda-|triton$")
HEAD = """\
# The exact versions behind the tracked results (Python {python}); `make constraints` writes this
# file, `make env LOCKED=1` installs them. The list of dependencies is in pyproject.toml.
"""


def recorded_versions(records: Iterable[Path]) -> dict[str, str]:
    """The one set of versions that all run records name; ValueError where they differ."""
    found = {}
    for path in records:
        versions = json.loads(path.read_text(encoding="utf-8"))["cost"]["versions"]
        found.setdefault(tuple(sorted(versions.items())), path)
    if len(found) != 1:
        raise ValueError("\n".join(
            [f"expected one set of versions in all run records, found {len(found)}; train the runs "
             "of all but one again", *(f"{path}: {dict(key)}" for key, path in found.items())]))
    return dict(*found)


def installed_closure(requirements: Iterable[str]) -> dict[str, str]:
    """Versions of all packages that the requirements install here, directly or not.

    Raises:
        ValueError: one of them is not installed.
    """
    waiting, seen, found = [Requirement(text) for text in requirements], set(), {}
    while waiting:
        wanted = waiting.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise ValueError(f"{name} is not installed here; `make env` installs it") from error
        found[name] = package.version
        needed = map(Requirement, package.requires or [])
        waiting += [r for r in needed if not r.marker
                    or any(r.marker.evaluate({"extra": extra}) for extra in (*extras, ""))]
    return found


def tracked_records(root: Path = ROOT) -> list[Path]:
    """The run records that git tracks, but for those that another environment made."""
    names = subprocess.run(["git", "ls-files", "-z", "reports/*run.json", ":!reports/table1*",
                            ":!reports/synthetic-margins"],
                           cwd=root, check=True, capture_output=True, text=True).stdout
    return [root / name for name in names.split("\0") if name]


def constraints(root: Path = ROOT) -> str:
    """The text of ``constraints.txt``."""
    recorded = recorded_versions(tracked_records(root))
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    python = recorded.pop("python")
    versions = {**installed_closure(asked), **recorded}
    lines = [f"{name}=={version}\n" for name, version in sorted(versions.items())
             if not CUDA.match(name)]
    return HEAD.format(python=python) + "".join(lines)


if __name__ == "__main__":
    try:
        write_text(ROOT / "constraints.txt", constraints())
    except ValueError as problem:
        sys.exit(f"error: {problem}")
