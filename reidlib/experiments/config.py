"""What is run: one run is one frozen, validated configuration."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, field, fields
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from reidlib.experiments.own_loss import OwnLoss, with_source
from reidlib.utils.parameters import (
    STRICT,
    Count,
    ImageSize,
    NotNegative,
    Number,
    Positive,
    Seed,
    Share,
    Size,
    Switch,
)
from reidlib.utils.paths import RENAMED


@dataclass(frozen=True, config=STRICT)
class TrainConfig:
    """One training run. Defaults: the paper's baseline (Sec. 1.1) as its public code trains it."""

    preset: str = "baseline"
    seed: Seed = 0
    # model
    model: Literal["la-transformer", "transreid", "aligned-reid", "deep-cosine"] = "la-transformer"
    backbone: str = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    backbone_args: Mapping[str, Any] = field(default_factory=dict, hash=False)  # to timm
    pretrained: Switch = True
    image_size: ImageSize = 224            # pixels: a square, or [height, width]
    stride: Size | None = None             # pixels from patch to patch of a ViT; None: side by side
    y_pooling: Switch = False              # Eq. 2
    local_weight: NotNegative = 8.0        # lambda of Eq. 1
    feature: Literal["mixed", "local", "neck"] = "mixed"  # retrieval: Eq. 1, public code, or neck
    dropout: Annotated[NotNegative, Field(lt=1)] = 0.5  # in classifiers; 0 suits am_margin
    side_information: Switch = False       # TransReID: cameras are an input
    # loss; None switches a part off
    am_margin: Number | None = None        # AM-Softmax instead of cross-entropy
    am_scale: Positive = 30.0
    angular: Literal["a-softmax", "l-softmax"] | None = None  # that instead of cross-entropy
    angular_margin: Size = 2               # their m
    triplet_margin: Number | None = None
    triplet_on: Literal["unit", "raw"] = "unit"  # the embedding, or before it has unit length
    part_mean: Switch = False              # identity term: mean over parts; else their sum
    loss: Annotated[OwnLoss | None, BeforeValidator(with_source)] = None  # one more term, a user's
    # optimisation: Adam, or SGD where there is a momentum
    momentum: Annotated[NotNegative, Field(lt=1)] | None = None
    epochs: Count = 30
    batch_size: Annotated[Size, Field(ge=2)] = 32  # batch normalisation needs 2
    images_per_identity: Size | None = None  # K of P x K batches; None: plain shuffling
    lr: Positive = 3e-4                    # heads
    backbone_lr: Positive = 3e-4
    scale_lr: Positive | None = None       # Deep Cosine's scale; None: as lr
    weight_decay: NotNegative = 5e-4
    schedule: Literal["blockwise", "end-to-end"] = "blockwise"
    release_every: Size = 2                # blockwise: epochs until one more block is released
    lr_decay: Annotated[Positive, Field(le=1)] = 0.8  # blockwise: factor at every release
    release: Literal["paper", "public-code"] = "paper"  # blockwise: which blocks train when
    # options that the paper does without
    warmup_epochs: NotNegative | None = None  # linear warm-up over so many epochs, then cosine to 0
    layer_decay: Annotated[Positive, Field(le=1)] = 1.0  # factor of the rate, block to block below
    label_smoothing: Share = 0.0
    random_erasing: Share = 0.0            # share of images that lose a rectangle (Zhong 2020)
    pad: Annotated[Count, Field(le=256)] = 0  # pixels around an image, then a random window of it
    clip_norm: Positive | None = None      # largest norm of the gradient of one step
    ema_decay: Annotated[NotNegative, Field(lt=1)] | None = None  # return running mean of weights
    members: Size = 1                      # trainings of other seeds; their weights are averaged
    validation_ids: Count = 0              # training identities held out; the best epoch counts
    # how it is computed
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast, faster where there are bf16 units
    accumulate: Size = 1                   # parts of a batch, one after the other
    compiled: Switch = False               # torch.compile
    deterministic: Switch = False          # only algorithms that give the same bits, on CUDA too

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainConfig":
        self._check_model()
        if self.am_margin is not None and self.angular is not None:
            raise ValueError(f"am_margin is {self.am_margin} and angular is {self.angular!r}, "
                             "which are two margins; leave one of them out")
        if self.validation_ids == 1:
            raise ValueError("validation_ids is 1; a score needs 2 or more identities, or 0 for "
                             "no validation")
        if self.members > 1 and not self.pretrained:
            raise ValueError(f"members is {self.members} and pretrained is false: the mean of "
                             "models that start at random is none; leave members out")
        if self.members > 1 and self.validation_ids:
            raise ValueError(f"members is {self.members} and validation_ids {self.validation_ids}: "
                             "each member would hold out other identities; leave one of them out")
        if self.members > 1 and (self.feature == "neck" or self.side_information
                                 or self.model == "aligned-reid"):
            raise ValueError(f"members is {self.members} with model {self.model}, feature "
                             f"{self.feature}, side_information {self.side_information}: retrieval "
                             "takes layers that start at random, whose mean is none; leave members "
                             "out")
        if self.release != "paper" and self.schedule != "blockwise":
            raise ValueError(f"release is {self.release} but schedule is {self.schedule}, which "
                             "freezes nothing; leave release out")
        if self.warmup_epochs is not None and self.schedule == "blockwise":
            raise ValueError(f"warmup_epochs is {self.warmup_epochs} but schedule is blockwise, "
                             "which sets the learning rates itself; use schedule: end-to-end")
        if self.warmup_epochs is not None and 0 < self.epochs < self.warmup_epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}; it must be between 0 and "
                             f"epochs, {self.epochs}")
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
                             f"cannot be split into so many equal parts of {least} or more")
        return self

    def _check_model(self) -> None:
        """ValueError for a parameter of another model, or without what this one needs."""
        for model, names in OWN.items():
            for name in names if model != self.model else ():
                if getattr(self, name) != FIELDS[name].default:
                    raise ValueError(f"{name} is {getattr(self, name)!r}, which only {model} has, "
                                     f"and model is {self.model}; leave one of them out")
        if self.model in ("transreid", "aligned-reid") and (self.images_per_identity or 0) < 2:
            raise ValueError(f"model {self.model} has a triplet loss and images_per_identity is "
                             f"{self.images_per_identity}; set it to 2 or more")
        if self.model != "la-transformer" and self.schedule == "blockwise":
            raise ValueError(f"model {self.model} with schedule blockwise, which releases the "
                             "blocks of la-transformer; use schedule: end-to-end")
        if self.model == "deep-cosine" and (self.image_size != (128, 64) or self.pretrained):
            raise ValueError(
                f"model deep-cosine with image_size {self.image_size} and pretrained "
                f"{self.pretrained}; it takes image_size: [128, 64] and pretrained: false")
        if self.model == "deep-cosine" and self.stride is not None:
            raise ValueError(f"stride is {self.stride} and model deep-cosine, which has no "
                             "patches; leave stride out")

    @property
    def run_id(self) -> str:
        return f"{self.preset}-s{self.seed}"

    def fingerprint(self, data_checksum: str) -> str:
        """Hash of everything that decides a run's outcome: the configuration and the data.

        Of the configuration what differs from the defaults, so that a new field, whose default is
        what was done before, leaves finished runs valid; a renamed one counts under its former
        name. A default itself is never changed.
        """
        default, former = TrainConfig(), {new: old for old, new in RENAMED.items()}
        changed = {former.get(name, name): value for name, value in asdict(self).items()
                   if value != getattr(default, name)}
        text = json.dumps([changed, data_checksum], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


# model -> the parameters that only it has
OWN = {"la-transformer": ("y_pooling", "local_weight", "feature", "dropout", "am_margin",
                          "am_scale", "angular", "angular_margin", "triplet_margin", "triplet_on",
                          "part_mean", "label_smoothing"),
       "transreid": ("side_information",), "deep-cosine": ("scale_lr",)}
FIELDS = {f.name: f for f in fields(TrainConfig)}
