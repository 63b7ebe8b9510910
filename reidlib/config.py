"""What is run: a run is one frozen dataclass, a preset its differences from the baseline."""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Defaults: the paper's baseline (Sec. 1.1) as its public code trains it."""

    preset: str = "baseline"
    seed: int = 0
    # model
    backbone: str = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    backbone_args: Mapping[str, Any] = field(default_factory=dict, hash=False)  # to timm
    pretrained: bool = True
    image_size: int = 224             # pixels, square
    y_pooling: bool = False           # Eq. 2
    global_weight: float = 8.0        # lambda of Eq. 1
    feature: str = "mixed"            # retrieval: "mixed" (Eq. 1), "local" (public code) or "neck"
    # loss; None switches a part off
    am_margin: float | None = None    # AM-Softmax instead of cross-entropy
    am_scale: float = 30.0
    triplet_margin: float | None = None
    # optimisation: Adam
    epochs: int = 30
    batch_size: int = 32
    images_per_identity: int | None = None  # K of P x K batches; None: plain shuffling
    lr: float = 3e-4                  # heads
    backbone_lr: float = 3e-4
    weight_decay: float = 5e-4
    schedule: str = "blockwise"       # or "end-to-end"
    release_every: int = 2            # blockwise: epochs until one more block is released
    lr_decay: float = 0.8             # blockwise: factor at every release
    # recipes that the paper does without
    warmup_epochs: float | None = None  # linear warm-up over so many epochs, then cosine to 0
    layer_decay: float = 1.0          # factor of the rate from one block to the one below it
    label_smoothing: float = 0.0
    random_erasing: float = 0.0       # share of the images that lose a rectangle (Zhong 2020)
    clip_norm: float | None = None    # largest norm of the gradient of one step
    ema_decay: float | None = None    # keep a running mean of the weights and return that
    validation_ids: int = 0           # training identities held out; the best epoch's weights count
    # how it is computed
    precision: str = "fp32"           # or "bf16": autocast, faster where there are bf16 units
    accumulate: int = 1               # parts a batch is worked off in, each with its own statistics
    compiled: bool = False            # torch.compile
    deterministic: bool = False       # only algorithms that give the same bits again, on CUDA too

    def __post_init__(self):
        check_choice("feature", self.feature, ("mixed", "local", "neck"))
        check_choice("schedule", self.schedule, ("blockwise", "end-to-end"))
        check_choice("precision", self.precision, PRECISIONS)
        for name in ("image_size", "release_every", "lr", "backbone_lr", "am_scale", "accumulate",
                     "layer_decay"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("epochs", "weight_decay", "global_weight", "validation_ids"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        for name in ("label_smoothing", "random_erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be between 0 and 1")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must be from 0 to below 1, or "
                             "nothing")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm is {self.clip_norm}; it must be above 0, or nothing")
        if self.validation_ids == 1:
            raise ValueError("validation_ids is 1; a score needs 2 or more identities, or 0 for "
                             "no validation")
        self._check_schedule()
        self._check_batch()

    def _check_schedule(self) -> None:
        if self.warmup_epochs is None:
            return
        if self.schedule == "blockwise":
            raise ValueError(f"warmup_epochs is {self.warmup_epochs} but schedule is blockwise, "
                             "which sets the learning rates itself; use schedule: end-to-end")
        if self.warmup_epochs < 0 or 0 < self.epochs < self.warmup_epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}; it must be between 0 and "
                             f"epochs, {self.epochs}")

    def _check_batch(self) -> None:
        if self.batch_size < 2:
            raise ValueError(f"batch_size is {self.batch_size}; batch normalisation needs 2 or "
                             "more images")
        if self.triplet_margin is not None and (self.images_per_identity or 0) < 2:
            raise ValueError(
                f"triplet_margin is {self.triplet_margin} but images_per_identity is "
                f"{self.images_per_identity}: triplets need at least 2 images of an identity in "
                "a batch; set images_per_identity to 2 or more")
        if self.images_per_identity and self.batch_size % self.images_per_identity:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of "
                             f"images_per_identity {self.images_per_identity}")
        least = 2 * (self.images_per_identity or 1)
        if self.batch_size % self.accumulate or self.batch_size < least * self.accumulate:
            raise ValueError(f"accumulate is {self.accumulate}: batch_size {self.batch_size} "
                             f"cannot be worked off in so many equal parts of {least} or more")

    @property
    def part_size(self) -> int:
        """Images in memory at a time."""
        return self.batch_size // self.accumulate

    @property
    def run_id(self) -> str:
        return f"{self.preset}-s{self.seed}"

    def fingerprint(self, data_checksum: str) -> str:
        """Hash of everything that decides a run's outcome: the configuration and the data.

        Of the configuration what differs from the defaults, so that a new field, whose default is
        what was done before, leaves finished runs valid. A default itself is never changed.
        """
        default = TrainConfig()
        changed = {name: value for name, value in asdict(self).items()
                   if value != getattr(default, name)}
        text = json.dumps([changed, data_checksum], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


# The runs behind the paper's rows, as differences from its baseline. am_margin is the 0.35 of Wang
# et al. (2018), triplet_margin the usual 0.3; the paper states neither.
PRESETS: dict[str, dict[str, Any]] = {
    "untrained": {"epochs": 0},
    "baseline": {},
    "ypool": {"y_pooling": True},
    "amtriplet": {"am_margin": 0.35, "triplet_margin": 0.3, "images_per_identity": 4},
    "improved": {"y_pooling": True, "am_margin": 0.35, "triplet_margin": 0.3,
                 "images_per_identity": 4},
    # ours: the candidate of pku-reid-finalists that did best on held-out training people
    "best": {"backbone_lr": 1e-4, "global_weight": 32.0, "feature": "local"},
}
# at the learning rate of `best`: is a verdict on the paper's ideas one on rates?
PRESETS |= {f"{name}-1e-4": {**PRESETS[name], "backbone_lr": 1e-4}
            for name in ("baseline", "improved")}
# What a study may not set for all of its presets: the paper's ideas. `best` is a recipe as a whole;
# where it and the study differ, the preset counts, as always.
IDEAS = ("y_pooling", "am_margin", "triplet_margin", "images_per_identity")


@dataclass(frozen=True)
class Variant:
    """One row of the results: the weights of a preset and how its images are retrieved."""

    label: str
    preset: str
    flip: str  # "none" | "query" | "both", see retrieval.rank_gallery
    reranked: bool = False


LADDER = (  # the paper's rows, each on top of the one above, between nothing and re-ranking
    Variant("untrained", "untrained", "none"),
    Variant("baseline", "baseline", "none"),
    Variant("+ y-pooling", "ypool", "none"),
    Variant("+ AM-Softmax, triplet", "improved", "none"),
    Variant("+ flipped query", "improved", "query"),
    Variant("+ re-ranking", "improved", "query", reranked=True),  # ours, not the paper's
)
VARIANTS = (
    *LADDER,
    Variant("best", "best", "both"),
    Variant("best, re-ranking", "best", "both", reranked=True),
)
# The three that are compared beyond the study's own test set, in folds and in a crowd.
MODELS = (
    Variant("baseline", "baseline", "none"),
    Variant("improved", "improved", "query"),
    Variant("best", "best", "both"),
)

# Each idea of the paper alone on its baseline, not on top of the others.
SINGLES = (
    Variant("baseline", "baseline", "none"),
    Variant("y-pooling alone", "ypool", "none"),
    Variant("AM-Softmax + triplet alone", "amtriplet", "none"),
    Variant("flipped query alone", "baseline", "query"),
)
# The paper's model and its baseline once more, at the learning rate of `best`.
AT_BESTS_RATE = (
    Variant("baseline, rate of best", "baseline-1e-4", "none"),
    Variant("improved, rate of best", "improved-1e-4", "query"),
)


def make_config(preset: str, seed: int = 0, overrides: Mapping[str, Any] | None = None,
                candidates: Mapping[str, Mapping[str, Any]] | None = None) -> TrainConfig:
    """The paper's baseline, changed by ``overrides`` (the study) and then by the preset.

    ``candidates``: further presets, of the study.
    """
    presets = {**PRESETS, **(candidates or {})}
    check_choice("preset", preset, presets)
    overrides = _checked(overrides or {})
    for key in sorted(set(IDEAS) & set(overrides)):
        raise ValueError(f"{key} is what the presets differ in, so a study cannot set it for all "
                         "of them; change reidlib.config.PRESETS")
    changes = {**overrides, **_checked(presets[preset])}
    return replace(TrainConfig(), **changes, preset=preset, seed=seed)


def _checked(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Training parameters, each known and of the type that ``TrainConfig`` declares."""
    check_keys("training parameter", changes, TrainConfig, but=("preset", "seed"))
    return {key: _as_declared(key, value) for key, value in changes.items()}


def _as_declared(key: str, value: Any) -> Any:
    """``value`` as the type that ``TrainConfig`` declares; YAML reads 3e-4 as text."""
    hint = get_type_hints(TrainConfig)[key]
    kinds = get_args(hint) if isinstance(hint, UnionType) else (get_origin(hint) or hint,)
    try:
        if float in kinds and type(value) in (int, str):
            return float(value)
        if isinstance(value, kinds) and (type(value) is not bool or bool in kinds):
            return value
    except ValueError:
        pass
    names = " or ".join("nothing" if k is type(None) else k.__name__ for k in kinds)
    raise ValueError(f"{key} is {value!r}; expected {names}")


def check_keys(what: str, given: Mapping[str, Any], cls: type, but: Iterable[str] = ()) -> None:
    """ValueError, naming the key and what is known, for one that is no field of ``cls``."""
    known = [f.name for f in fields(cls) if f.name not in but]
    for key in given:
        if key not in known:
            raise ValueError(_unknown(what, key, known))


def check_choice(what: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise ValueError(_unknown(what, value, known))


def _unknown(what: str, value: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(value), list(known), n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown {what} {value!r}{hint}; known: {', '.join(known)}"
