"""What is run together: a study is one data set with one parameter file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from reidlib.config import PRESETS, TrainConfig, check_choice, check_keys, make_config
from reidlib.paths import ROOT

PARAMS = ROOT / "notebooks" / "params"


@dataclass(frozen=True)
class Study:
    """One data set with one parameter file ``notebooks/params/<name>.yaml``."""

    name: str
    dataset: str                       # "synthetic", "pku-reid", "market1501" or a CSV file
    seeds: tuple[int, ...]
    train: Mapping[str, Any] = field(default_factory=dict)      # TrainConfig differences
    synthetic: Mapping[str, Any] = field(default_factory=dict)  # SyntheticSpec differences
    perplexity: float = 15.0           # t-SNE
    shows_people: bool = True          # figures of images stay out of git
    checksum: str = ""                 # of the data; 01_data fills it in
    # a study beside another, run without notebooks: see reidlib.runs
    presets: tuple[str, ...] = ()      # what is run; () where the notebooks say it
    candidates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # presets of its own
    folds: int = 0                     # identity cross-validation, see reidlib.folds.deal
    fold: int | None = None            # one of them alone; nothing: each
    people: str = "all"                # who is dealt to the folds: "all" or "train"

    def config(self, preset: str, seed: int) -> TrainConfig:
        return make_config(preset, seed, self.train, self.candidates)


# key of a study's file -> its types, and words for them
KINDS = {
    **dict.fromkeys(("train", "synthetic", "candidates"), ((dict,), "`key: value` lines")),
    "perplexity": ((float, int), "a number"), "presets": ((list,), "a list of presets"),
    **dict.fromkeys(("folds", "fold"), ((int,), "a whole number")),
}


def load_study(name: str, epochs: int | None = None, seeds: list[int] | None = None,
               params: Path = PARAMS) -> Study:
    """Read ``<params>/<name>.yaml``; ``epochs`` and ``seeds`` replace the file's values.

    Raises:
        ValueError: unknown study, key or value; the message lists what is known.
    """
    path = params / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in params.glob("*.yaml")))
        raise ValueError(f"unknown study {name!r}: no {path.name} in {params}; known: {known}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is no YAML: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("dataset"), str):
        raise ValueError(f"{path.name}: expected `key: value` lines with at least `dataset: name`")
    check_keys(f"key in {path.name}", values, Study, but=("name", "checksum"))
    for key, (kinds, words) in KINDS.items():
        if key in values and type(values[key]) not in kinds:
            raise ValueError(f"{path.name}: {key} is {values[key]!r}; expected {words}")
    _check_beside(values, path.name)
    if seeds is not None:
        values["seeds"] = seeds
    study = Study(name=name, **{**values, "seeds": _check_seeds(values.get("seeds", [0, 1, 2])),
                                "presets": tuple(values.get("presets", ()))})
    if epochs is not None:
        study = replace(study, train={**study.train, "epochs": epochs})
    for preset in (*PRESETS, *study.candidates, *study.presets):
        study.config(preset, study.seeds[0])
    return study


def _check_beside(values: dict[str, Any], file: str) -> None:
    """What only studies beside another have: presets and candidates, folds."""
    presets, candidates = values.get("presets", []), values.get("candidates", {})
    for name in (*presets, *candidates):
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(f"{file}: {name!r} is no name of a preset or candidate; expected "
                             "letters, digits, - and .")
    if len(set(presets)) != len(presets):
        raise ValueError(f"{file}: presets are {presets}; expected different ones")
    for name, changes in candidates.items():
        if not isinstance(changes, dict) or name in PRESETS or "image_size" in changes:
            raise ValueError(f"{file}: candidate {name} is {changes!r}; expected a name that no "
                             "preset has, and `key: value` lines, image_size not among them")
    folds, fold, people = (values.get(name) for name in ("folds", "fold", "people"))
    check_choice(f"people in {file}", people or "all", ("all", "train"))
    if folds is None and (fold is not None or people is not None):
        raise ValueError(f"{file}: fold is {fold} and people {people}, but there are no folds; set "
                         "folds, or leave them out")
    if folds is not None and (folds < 2 or fold is not None and not 0 <= fold < folds):
        raise ValueError(f"{file}: folds is {folds} and fold {fold}; expected 2 folds or more, "
                         "numbered from 0")


def _check_seeds(seeds: Any) -> tuple[int, ...]:
    whole = isinstance(seeds, list | tuple) and all(type(seed) is int for seed in seeds)
    if not whole or not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds are {seeds}; expected different whole numbers, at least one")
    return tuple(seeds)
