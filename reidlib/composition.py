"""A configuration put together: model, loss, batches, optimiser and schedule; then trained."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from reidlib import optimisation, repro
from reidlib.config import TrainConfig
from reidlib.data import Batches, IdentitySampler, ShuffleSampler, number_ids
from reidlib.losses import ReidLoss
from reidlib.models import LATransformer, build_backbone
from reidlib.processes import make_accelerator
from reidlib.progress import say
from reidlib.retrieval import embed_people
from reidlib.scoring import evaluate
from reidlib.training import Recipe, fit


def build_model(config: TrainConfig, n_identities: int) -> LATransformer:
    """The model of a run, freshly initialised from its seed (backbone weights where asked for)."""
    repro.seed_globals(config.seed)
    backbone, head = model_arguments(config, n_identities)
    return LATransformer(build_backbone(pretrained=config.pretrained, **backbone), **head)


def model_arguments(config: TrainConfig, n_identities: int) -> tuple[dict, dict]:
    """What a run's model is built of: arguments of ``build_backbone`` and ``LATransformer``."""
    backbone = {"name": config.backbone, "image_size": config.image_size,
                "args": dict(config.backbone_args)}
    head = {"n_identities": n_identities, "y_pooling": config.y_pooling,
            "global_weight": config.global_weight, "feature": config.feature,
            "cosine": config.am_margin is not None}
    return backbone, head


def train(config: TrainConfig, images: Tensor, people: pd.DataFrame, device: torch.device,
          checkpoint: Path | None = None, key: Mapping[str, str] | None = None,
          tracker: str | None = None) -> tuple[LATransformer, list[dict]]:
    """Train one model; returns it and its history.

    Args:
        images: uint8 ``(image, 3, height, width)``.
        people: one row an image, as in a manifest: path, id, cam, sha256.
        checkpoint, key: see ``reidlib.training.fit``.
        tracker: one of accelerate's, such as "tensorboard"; its files go beside the checkpoint.
    """
    held_out = hold_out(people["id"], config.validation_ids, config.seed)
    labels, names = number_ids(people.loc[~held_out, "id"].tolist())
    model = build_model(config, len(names)).to(device)
    if config.compiled:
        compile_model(model)
    optimiser = optimisation.make_optimiser(model, config.lr, config.backbone_lr,
                                            config.weight_decay, config.layer_decay)
    validate = None
    if config.validation_ids:
        validate = validation(images[torch.from_numpy(held_out)], people[held_out])
    recipe = Recipe(_schedule(config, model, optimiser), config.accumulate, config.clip_norm,
                    config.ema_decay, validate)
    accelerator = make_accelerator(device, config.precision, tracker=tracker,
                                   may_freeze=config.schedule == "blockwise",
                                   folder=checkpoint and checkpoint.parent)
    if tracker:
        if not accelerator.log_with:
            raise ValueError(f"tracker {tracker!r} is not installed: pip install {tracker}")
        accelerator.init_trackers(config.run_id)
    batches = Batches(images, labels, _sampler(config, labels), device, config.random_erasing,
                      fill=tuple(model.mean.flatten().tolist()),
                      rows=torch.from_numpy(np.flatnonzero(~held_out)))
    loss = ReidLoss(config.am_margin, config.am_scale, config.triplet_margin,
                    config.label_smoothing)
    with repro.algorithms(config.deterministic):
        history = fit(model, batches.epoch, loss, optimiser, config.epochs, recipe,
                      accelerator=accelerator, checkpoint=checkpoint, key=key, name=config.run_id)
    for log in accelerator.trackers:  # end_training would end the group of processes as well
        log.finish()
    return model, history


def hold_out(ids: pd.Series, n: int, seed: int) -> np.ndarray:
    """Mask of the images of ``n`` identities, drawn by seed: validation, never trained on."""
    names = np.unique(ids)
    if n and len(names) < n + 2:
        raise ValueError(f"validation_ids is {n}, but of {len(names)} training identities at least "
                         "2 must be left to train on")
    drawn = np.random.default_rng((seed, 2)).choice(names, n, replace=False)
    return np.isin(ids, drawn)


def validation(images: Tensor, people: pd.DataFrame) -> Callable[[nn.Module], float]:
    """model -> mAP under ``standard`` of these images, each a query against all the others."""
    def score(model: nn.Module) -> float:
        embedded = embed_people(model, images, people)
        scores, _, _ = evaluate(embedded, embedded, flips=("none",), protocols=("standard",),
                                reranked_flips=())
        return float(scores["mAP"].iloc[0])

    return score


def _schedule(config: TrainConfig, model: nn.Module, optimiser: torch.optim.Optimizer
              ) -> optimisation.Schedule:
    if config.schedule == "blockwise":
        return optimisation.blockwise(model, optimiser, config.release_every, config.lr_decay)
    if config.warmup_epochs is not None and config.epochs:
        return optimisation.warmup_cosine(optimiser, config.epochs, config.warmup_epochs)
    return Recipe.schedule


def _sampler(config: TrainConfig, labels: Tensor) -> IdentitySampler | ShuffleSampler:
    if config.images_per_identity:
        return IdentitySampler(labels.numpy(), config.part_size // config.images_per_identity,
                               config.images_per_identity, config.seed)
    return ShuffleSampler(len(labels), config.part_size, config.seed)


def compile_model(model: nn.Module) -> None:
    """Compile the forward pass of training; where that is not possible it runs as it is."""
    probe = torch.ones(2, device=next(model.parameters()).device)
    try:
        torch.compile(lambda values: values.sin() + 1)(probe)
    except Exception as error:  # no compiler, no triton, an unknown device: each has its own class
        reason = str(error).partition("\n")[0] or type(error).__name__
        say(f"torch.compile does not work here ({reason}); going on without")
        return
    torch._dynamo.config.suppress_errors = True  # the same for an operation it does not know
    model.compile()
    say("torch.compile: the first step takes a while")
