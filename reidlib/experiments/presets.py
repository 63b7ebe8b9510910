"""The runs behind the rows of the results, as differences from the paper's baseline."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pydantic import ValidationError

from reidlib.experiments.config import TrainConfig
from reidlib.utils.errors import check_choice, plain
from reidlib.utils.paths import todays_names

# am_margin: 0.35 of Wang et al. (2018); triplet_margin: the usual 0.3; the paper states neither
PRESETS: dict[str, dict[str, Any]] = {
    "untrained": {"epochs": 0},
    "baseline": {},
    "ypool": {"y_pooling": True},
    "amtriplet": {"am_margin": 0.35, "triplet_margin": 0.3, "images_per_identity": 4},
    "improved": {"y_pooling": True, "am_margin": 0.35, "triplet_margin": 0.3,
                 "images_per_identity": 4},
    # ours: the candidate of pku-reid-finalists that did best on held-out training people
    "best": {"backbone_lr": 1e-4, "local_weight": 32.0, "feature": "local"},
}
# at the learning rate of `best`: does the result depend on the rate?
PRESETS |= {f"{name}-1e-4": {**PRESETS[name], "backbone_lr": 1e-4}
            for name in ("baseline", "improved")}

# The other systems of the paper's Table 1 as their papers train them, but for the epochs, which a
# study sets. Sources: He et al. 2021 (arXiv:2102.04378), Zhang et al. 2017 (arXiv:1711.08184) with
# the loss of AlignedReID++, Wojke and Bewley 2018 (arXiv:1812.00442), and their public code.
PRESETS |= {
    "transreid": {
        "model": "transreid", "image_size": (256, 128), "stride": 12, "side_information": True,
        "backbone_args": {"drop_path_rate": 0.1}, "batch_size": 64, "images_per_identity": 4,
        "momentum": 0.9, "lr": 0.008, "backbone_lr": 0.008, "weight_decay": 1e-4,
        "schedule": "end-to-end", "warmup_epochs": 5, "random_erasing": 0.5, "pad": 10},
    "aligned-reid": {
        "model": "aligned-reid", "image_size": (256, 128), "batch_size": 128,
        "images_per_identity": 4, "lr": 2e-4, "backbone_lr": 2e-4, "weight_decay": 5e-4,
        "schedule": "end-to-end"},
    "deep-cosine": {
        "model": "deep-cosine", "image_size": (128, 64), "pretrained": False, "batch_size": 128,
        "images_per_identity": 4, "lr": 1e-3, "weight_decay": 1e-8, "schedule": "end-to-end"},
}
PRESETS["transreid-no-cameras"] = PRESETS["transreid"] | {"side_information": False}

# What a study runs that does not say it: the paper's rows.
PAPER_PRESETS = ("untrained", "baseline", "ypool", "amtriplet", "improved")
# preset -> the notebook that trains it
NOTEBOOKS = {"untrained": "02_baseline", "baseline": "02_baseline", "improved": "03_improved",
             **dict.fromkeys(("ypool", "amtriplet", "best"), "04_ablations")}

# What a study may not set for all of its presets: the paper's ideas. `best` is one set of options;
# where it and the study differ, the preset counts, as always.
IDEAS = ("y_pooling", "am_margin", "triplet_margin", "images_per_identity")


@dataclass(frozen=True)
class ResultRow:
    """One row of the results: the weights of a preset and how its images are retrieved."""

    label: str
    preset: str
    flip: str  # "none" | "query" | "both", see evaluation.embeddings
    reranked: bool = False
    alone: bool = False  # each query re-ranked by itself, see evaluation.scoring.evaluate


CUMULATIVE = (  # the paper's rows, each on top of the one above, between nothing and re-ranking
    ResultRow("not fine-tuned", "untrained", "none"),
    ResultRow("baseline", "baseline", "none"),
    ResultRow("+ y-pooling", "ypool", "none"),
    ResultRow("+ AM-Softmax, triplet", "improved", "none"),
    ResultRow("+ flipped query", "improved", "query"),
    # ours, not the paper's
    ResultRow("+ re-ranking, each query alone", "improved", "query", reranked=True, alone=True),
    ResultRow("+ re-ranking", "improved", "query", reranked=True),
)

RESULT_ROWS = (
    *CUMULATIVE,
    ResultRow("best", "best", "both"),
    ResultRow("best, re-ranking, each query alone", "best", "both", reranked=True, alone=True),
    ResultRow("best, re-ranking", "best", "both", reranked=True),
)

# The three that are compared beyond the study's own test set, in folds and with distractors.
COMPARED = (
    ResultRow("baseline", "baseline", "none"),
    ResultRow("improved", "improved", "query"),
    ResultRow("best", "best", "both"),
)

# Each idea of the paper alone on its baseline, not on top of the others.
SINGLE_IDEAS = (
    ResultRow("baseline", "baseline", "none"),
    ResultRow("y-pooling alone", "ypool", "none"),
    ResultRow("AM-Softmax + triplet alone", "amtriplet", "none"),
    ResultRow("flipped query alone", "baseline", "query"),
)

# The paper's model and its baseline once more, at the learning rate of `best`.
SAME_RATE = (
    ResultRow("baseline, rate of best", "baseline-1e-4", "none"),
    ResultRow("improved, rate of best", "improved-1e-4", "query"),
)
# what all ideas of the paper together are called there
IMPROVED = ("improved, rate of best", "improved")


def make_config(preset: str, seed: int = 0, overrides: Mapping[str, Any] | None = None,
                candidates: Mapping[str, Mapping[str, Any]] | None = None) -> TrainConfig:
    """The paper's baseline, changed by ``overrides`` (the study) and then by the preset.

    ``candidates``: further presets, of the study; one with the key ``preset`` is that preset,
    changed.

    Raises:
        ValueError: unknown preset or parameter (with the nearest known one), or a bad value.
    """
    changes = changes_of(preset, candidates)
    known = [f.name for f in fields(TrainConfig) if f.name not in ("preset", "seed")]
    overrides = todays_names(overrides or {})
    for key in (*overrides, *changes):
        check_choice("training parameter", key, known)
    for key in sorted(set(IDEAS) & set(overrides)):
        raise ValueError(f"{key} is what the presets differ in, so a study cannot set it for all "
                         "of them; change reidlib.experiments.presets.PRESETS")
    try:
        return TrainConfig(**{**overrides, **changes}, preset=preset, seed=seed)
    except ValidationError as error:
        own = ", ".join(f"{name}: {value}" for name, value in changes.items() if name != "loss")
        cure = f"; a candidate with `preset: {preset}` can change that" * (preset in PRESETS)
        raise ValueError(plain(error) + f" (preset {preset} has {own}{cure})"
                         * bool(own and overrides)) from error


def changes_of(preset: str, candidates: Mapping[str, Mapping[str, Any]] | None = None
               ) -> dict[str, Any]:
    """What a preset, or a candidate of the study, changes of the paper's baseline.

    Raises ValueError for an unknown name, with the nearest known one.
    """
    presets = {**PRESETS, **(candidates or {})}
    check_choice("preset", preset, presets)
    changes = todays_names(presets[preset])
    if "preset" in changes:
        check_choice(f"preset of {preset}", changes["preset"], PRESETS)
        changes = {**PRESETS[changes["preset"]], **changes}
        del changes["preset"]
    return changes
