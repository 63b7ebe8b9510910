"""What is run together: a study is one data set with one parameter file."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from reidlib.data.synthetic.spec import make_spec
from reidlib.evaluation.protocols import PROTOCOLS
from reidlib.experiments.config import TrainConfig
from reidlib.experiments.own_loss import with_sources
from reidlib.experiments.presets import PAPER_PRESETS, PRESETS, changes_of, make_config
from reidlib.utils.errors import check_choice, plain, unknown
from reidlib.utils.parameters import STRICT, Count, Positive, Seed, Switch
from reidlib.utils.paths import PARAMS, Workspace, todays_names, write_json

# differences of TrainConfig
Changes = Annotated[Mapping[str, Any], AfterValidator(with_sources)]


@dataclass(frozen=True, config=STRICT)
class Study:
    """One data set with one parameter file ``notebooks/params/<name>.yaml``."""

    name: str
    dataset: str                       # a name of data.datasets.NAMES, or a CSV file
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    train: Changes = field(default_factory=dict)                # for all that it runs
    synthetic: Mapping[str, Any] = field(default_factory=dict)  # SyntheticSpec differences
    perplexity: Positive = 15.0        # t-SNE
    shows_people: Switch = True        # figures of images stay out of git
    checksum: str = ""                 # of the data; 01_data fills it in
    presets: tuple[str, ...] = ()      # what is run; () and no candidates: the paper's rows
    candidates: Mapping[str, Changes] = field(default_factory=dict)  # presets of its own
    protocols: tuple[str, ...] = ()    # that runs are scored under; (): all
    flips: Annotated[tuple[Literal["none", "query", "both"], ...], Field(min_length=1)] = (
        "none", "query", "both")
    # identity cross-validation, see data.cross_validation.split_identities
    folds: Count = 0
    fold: Count | None = None          # one of them alone; None: each
    people: Literal["all", "train"] = "all"  # whose identities are split into folds

    @model_validator(mode="after")
    def _fits_together(self) -> "Study":
        if not self.dataset.isprintable():
            raise ValueError(f"dataset is {self.dataset!r}; expected a name or the path of a CSV")
        for protocol in self.protocols:
            check_choice("protocol", protocol, PROTOCOLS)
        for what, values in (("seeds", self.seeds), ("presets", self.presets)):
            if len(set(values)) != len(values):
                raise ValueError(f"{what} are {list(values)}; expected different ones")
        for name in (*self.presets, *self.candidates):
            if not re.fullmatch(r"\w[\w.-]*", name):
                raise ValueError(f"{name!r} is not a name for a preset or candidate; expected "
                                 "letters, digits, _, - and .")
        for name, changes in self.candidates.items():
            if name in PRESETS:
                raise ValueError(f"candidate {name} is {changes!r}; expected a name that no "
                                 "preset has")
        if not self.folds and (self.fold is not None or self.people != "all"):
            raise ValueError(f"fold is {self.fold} and people {self.people}, but there are no "
                             "folds; set folds, or leave them out")
        if self.folds == 1 or self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"folds is {self.folds} and fold {self.fold}; expected 2 folds or "
                             "more, numbered from 0")
        # the baseline first: what is wrong with the study alone names no preset
        for preset in ("baseline", *self.all_presets):
            self.config(preset, self.seeds[0])
        make_spec(self.synthetic)
        return self

    @property
    def all_presets(self) -> tuple[str, ...]:
        """What the study runs: its presets and candidates, else the paper's rows."""
        return (*self.presets, *self.candidates) or PAPER_PRESETS

    @property
    def is_own_data(self) -> bool:
        """Whether the data are a user's own."""
        return self.dataset.endswith(".csv")

    def check_one_split(self) -> None:
        """ValueError for a study in folds, each of which has data and runs of its own."""
        if self.folds and self.fold is None:
            raise ValueError(f"study {self.name!r} has {self.folds} folds, each with data and runs "
                             f"of its own: `reidlib study --study {self.name}` runs them all; "
                             "anything else takes a study without folds")

    def config(self, preset: str, seed: int) -> TrainConfig:
        return make_config(preset, seed, self.train, self.candidates)

    def overruled(self, preset: str) -> list[str]:
        """The parameters of ``train`` that a preset, or a candidate, has a value of its own for."""
        own = changes_of(preset, self.candidates)
        return [name for name in todays_names(self.train) if name in own]


def load_study(name: str, epochs: int | None = None, seeds: list[int] | None = None,
               params: Path = PARAMS) -> Study:
    """Read ``<params>/<name>.yaml``; ``epochs`` and ``seeds`` replace the file's values.

    Raises:
        ValueError: unknown study, key or value; the message lists what is known.
    """
    path = params / f"{name}.yaml"
    if path.parent != params or not path.is_file():
        known = sorted(p.stem for p in params.glob("*.yaml")) or [
            "none, because studies are in a clone of the repository and this is not one"]
        raise ValueError(f"{unknown('study', name, known)}; each is a file of {params}; "
                         "write one for a study of your own, as notebooks/README.md says")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), UniqueKeys) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path.name} is not YAML in UTF-8: {reason}; correct it, or save it as "
                         "UTF-8") from error
    if not isinstance(values, dict) or not isinstance(values.get("dataset"), str):
        raise ValueError(f"{path.name}: expected `key: value` lines with at least `dataset: name`")
    known = [f.name for f in fields(Study) if f.name not in ("name", "checksum")]
    for key in values:
        check_choice(f"key in {path.name}", key, known)
    if seeds is not None:
        values["seeds"] = seeds
    try:
        study = Study(name=name, **values)
        return study if epochs is None else replace(study, train={**study.train, "epochs": epochs})
    except ValidationError as error:
        raise ValueError(f"{path.name}: {plain(error)}") from error


class UniqueKeys(yaml.SafeLoader):
    """YAML whose mappings have each key once; plain YAML lets the last one win without a word."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        twice = [key for i, key in enumerate(keys) if key in keys[:i]]
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"{twice[0]!r} is there twice; keep one", node.start_mark)
        return super().construct_mapping(node, deep)


def write_study(study: Study, workspace: Workspace) -> None:
    """Save what the study's notebooks run: they all read this file."""
    write_json(workspace.reports / "study.json", asdict(study))


def read_study(workspace: Workspace) -> Study:
    """The study as 01_data saved it.

    Raises:
        FileNotFoundError: 01_data has not been run in this workspace.
        ValueError: the file is damaged, or the study is in folds and has no runs of its own.
    """
    path = workspace.reports / "study.json"
    if not path.is_file():
        if (PARAMS / f"{workspace.study}.yaml").is_file():
            load_study(workspace.study).check_one_split()
        raise FileNotFoundError(f"no {path}: run notebook 01_data for study "
                                f"{workspace.study!r} first; it checks the data")
    try:
        return Study(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        reason = plain(error) if isinstance(error, ValidationError) else error
        raise ValueError(f"{path} is not a study ({reason}); delete it and run notebook 01_data "
                         "again") from error
