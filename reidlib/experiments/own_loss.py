"""A loss of the user's own, by the name of its function: its source, found, hashed and loaded."""

import hashlib
import importlib
import re
from collections.abc import Callable, Mapping
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic.dataclasses import dataclass

from reidlib.utils.errors import check_choice
from reidlib.utils.parameters import STRICT, Positive
from reidlib.utils.paths import PARAMS

# what a history has anyway: columns of reidlib.training.loop, terms of reidlib.losses
TAKEN = ("epoch", "loss", "identity", "triplet", "local", "scale", "accuracy", "gradient_norm",
         "images", "seconds", "images_per_second", "memory_mb", "validation")


@dataclass(frozen=True, config=STRICT)
class OwnLoss:
    """``weight`` times ``function`` (module.function) is added to the model's own loss.

    ``sha256`` is that of the function's source, so a changed source is another run.
    """

    function: str
    weight: Positive
    sha256: str

    @property
    def name(self) -> str:
        """Of its term in the history."""
        return self.function.rpartition(".")[2]


def with_source(loss: Any) -> Any:
    """The parameter ``loss`` of a study with the hash of its source, unless it has one already.

    A saved one has: reading it needs no source. What is no such parameter stays as it is.

    Raises ValueError for an unknown key, and see ``find_source``.
    """
    if not isinstance(loss, Mapping) or "sha256" in loss:
        return loss
    for key in loss:
        check_choice("key of loss", key, ("function", "weight"))
    if not isinstance(loss.get("function"), str):
        return loss
    return {**loss, "sha256": _sha256(find_source(loss["function"]))}


def with_sources(changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Training parameters, their ``loss`` as ``with_source`` gives it."""
    return {**changes, "loss": with_source(changes["loss"])} if "loss" in changes else changes


def find_source(function: str) -> Path:
    """The file of a function's module: next to the parameter file, else of an installed module.

    Raises ValueError for what cannot be one's name, or where there is no such module.
    """
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", function):
        raise ValueError(f"loss.function is {function!r}; expected module.function, such as "
                         "mymodule.circle")
    module, _, name = function.rpartition(".")
    if name in TAKEN or name.startswith("lr_"):
        raise ValueError(f"loss.function is {function!r}, but the history has a column {name} "
                         "already; give the function another name")
    beside = _beside(module)
    found = beside if beside.is_file() else _installed(module)
    if found is None:
        raise ValueError(f"loss.function is {function!r}, but there is no module {module}: "
                         f"neither {beside} nor an installed one; write it, or correct the name")
    return found


def load(loss: OwnLoss) -> Callable:
    """The function itself.

    Raises ValueError where its source is another than the configuration's, cannot be imported, or
    has no such function.
    """
    path, (module, _, name) = find_source(loss.function), loss.function.rpartition(".")
    if (now := _sha256(path)) != loss.sha256:
        raise ValueError(f"loss.function {loss.function} had the SHA-256 {loss.sha256} when the "
                         f"study was saved, {path} has {now}: bring the former source back, or run "
                         "01_data (or delete the study's study.json) to take this one")
    try:
        found = _run(module, path) if path == _beside(module) else importlib.import_module(module)
    except Exception as error:  # whatever stands in the user's file
        raise ValueError(f"loss.function {loss.function}: {path} cannot be imported "
                         f"({type(error).__name__}: {error}); correct it") from error
    known = [key for key in vars(found) if not key.startswith("__")]
    check_choice(f"function of {path}", name, known)
    function = getattr(found, name)
    if not callable(function):
        raise ValueError(f"loss.function {loss.function} is {function!r}; expected a function")
    return function


def _beside(module: str) -> Path:
    return PARAMS.joinpath(*module.split(".")).with_suffix(".py")


def _installed(module: str) -> Path | None:
    """The file of an installed module, which is not imported for it."""
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
    except ValueError:  # a module that is running, such as __main__
        return None
    for part in rest:
        folders = spec and spec.submodule_search_locations
        spec = PathFinder.find_spec(f"{spec.name}.{part}", folders) if folders else None
    return Path(spec.origin) if spec and spec.has_location else None


def _run(module: str, path: Path) -> ModuleType:
    """The module of a file, from its text: compiled files are found by time, and may be old."""
    found = ModuleType(module)
    found.__file__ = str(path)
    exec(compile(path.read_bytes(), path, "exec"), vars(found))
    return found


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
