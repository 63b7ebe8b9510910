"""Where files live, and how they are written: completely or not at all."""

import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PARAMS = ROOT / "notebooks" / "params"  # one file a study
# name in older records, weights and parameter files -> today's
RENAMED = {"global_weight": "local_weight"}


def data_root() -> Path:
    """Folder that holds one folder per data set: ``REIDLIB_DATA``, else ``data/``."""
    return resolved(os.environ.get("REIDLIB_DATA") or ROOT / "data")


def weights_root() -> Path:
    """Folder of backbone weights: ``REIDLIB_WEIGHTS``, else ``data/weights/``."""
    return resolved(os.environ.get("REIDLIB_WEIGHTS") or ROOT / "data" / "weights")


def resolved(path: Path | str) -> Path:
    """The path without links; ``Path.resolve`` raises RuntimeError for links in a circle."""
    return Path(os.path.realpath(path))


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; rename it to ``path`` when the block succeeds.

    A full disk, an exception or a kill leaves the old file (or none), never half of a new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=f".partial{path.suffix}",
                                    dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(path)
    except Exception as error:  # torch and safetensors have errors of their own for a full disk
        if shutil.disk_usage(path.parent).free < 2**16:
            raise OSError(errno.ENOSPC, "no space left; make room there, or set another "
                          "--workspace", str(path)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def check_target(path: Path | None) -> None:
    """Raise before long work, not after it, where a file cannot be written to ``path``."""
    if path and path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file to write")
    if path and not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} in; make "
                                "it, or choose another")


def remove_leftovers(path: Path, older_than: float = 0.0) -> None:
    """Delete what processes killed while they wrote ``path`` have left next to it.

    ``older_than``: seconds since it was written to, where others may be writing at this moment.
    """
    for partial in path.parent.glob(f".{path.stem}.*.partial{path.suffix}"):
        if time.time() - partial.stat().st_mtime >= older_than:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` to ``path``, completely or not at all; returns the path."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: Path, value) -> Path:
    """Write plain values as JSON, completely or not at all; returns the path."""
    return write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, table) -> Path:
    """Write a pandas table, completely or not at all; returns the path."""
    return write_text(path, csv_text(table))


def csv_text(table) -> str:
    """A pandas table as CSV: full precision, one line ending everywhere."""
    return table.to_csv(index=False, lineterminator="\n")


def todays_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with today's name for each key that has been renamed."""
    return {RENAMED.get(key, key): value for key, value in values.items()}


@dataclass(frozen=True)
class Workspace:
    """The folders of one study below ``root`` (default: this repository)."""

    study: str
    root: Path = ROOT

    @property
    def reports(self) -> Path:
        return self.root / "reports" / self.study

    @property
    def runs(self) -> Path:
        return self.reports / "runs"

    @property
    def tables(self) -> Path:
        return self.reports / "tables"

    @property
    def figures(self) -> Path:
        return self.reports / "figures"

    @property
    def people(self) -> Path:
        """Figures that show people of a real data set; ignored by git."""
        return self.figures / "people"

    @property
    def artifacts(self) -> Path:
        """Weights, embeddings and checkpoints; ignored by git."""
        return self.root / "artifacts" / self.study


def open_workspace(study: str, root: Path | str) -> Workspace:
    """The workspace of a study below ``root``, made where it is missing.

    Raises OSError where nothing can be written there.
    """
    root = resolved(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise OSError(f"cannot write in the workspace {root} ({error.strerror}); choose another "
                      "folder with --workspace (WORKSPACE=... of make)") from error
    return Workspace(study, root)
