"""What is run together: a study is one data set with one parameter file."""

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
        if type(values.get(key, kinds[0]())) not in kinds:
            raise ValueError(f"{path.name}: {key} is {values[key]!r}; expected {words}")
    for candidate, changes in values.get("candidates", {}).items():
        if not isinstance(changes, dict) or candidate in PRESETS:
            raise ValueError(f"{path.name}: candidate {candidate} is {changes!r}; expected a name "
                             "that no preset has, and `key: value` lines")
    check_choice(f"people in {path.name}", values.get("people", "all"), ("all", "train"))
    if seeds is not None:
        values["seeds"] = seeds
    study = Study(name=name, **{**values, "seeds": _check_seeds(values.get("seeds", [0, 1, 2])),
                                "presets": tuple(values.get("presets", ()))})
    if epochs is not None:
        study = replace(study, train={**study.train, "epochs": epochs})
    for preset in (*PRESETS, *study.candidates, *study.presets):
        study.config(preset, study.seeds[0])
    return study


def _check_seeds(seeds: Any) -> tuple[int, ...]:
    whole = isinstance(seeds, list | tuple) and all(type(seed) is int for seed in seeds)
    if not whole or not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds are {seeds}; expected different whole numbers, at least one")
    return tuple(seeds)
