"""One configuration: its model, loss, batches, optimiser and schedule put together and trained."""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from reidlib import losses
from reidlib.data.batches import Batches, number_ids
from reidlib.data.cross_validation import hold_out
from reidlib.evaluation.embeddings import embed_people
from reidlib.evaluation.scoring import evaluate
from reidlib.experiments import own_loss
from reidlib.experiments.config import TrainConfig
from reidlib.experiments.study import Study
from reidlib.losses import AddedTerm, AngularLoss, ReidLoss
from reidlib.models.backbone import check_weights, find_weights
from reidlib.models.base import ReidModel
from reidlib.models.files import build
from reidlib.training.build import build_sampler, build_schedule, compiled, plain_attention
from reidlib.training.loop import TrainingOptions, fit
from reidlib.training.optimisers import make_optimiser, with_progress
from reidlib.utils import distributed, reproducibility
from reidlib.utils.memory import keep_freed_memory
from reidlib.utils.paths import Workspace, weights_root


def build_model(config: TrainConfig, people: pd.DataFrame) -> ReidModel:
    """The model of a run, freshly initialised from its seed (backbone weights where asked for).

    ``people``: as for ``describe_model``.
    """
    reproducibility.seed_globals(config.seed)
    return build(describe_model(config, people), config.pretrained, distributed.gather_rows)


def describe_model(config: TrainConfig, people: pd.DataFrame) -> dict:
    """What a run's model is built of (see ``reidlib.models.files.build``).

    ``people``: the training images, also those that are held out; one row an image: id and cam.
    """
    people = people[~hold_out(people["id"], config.validation_ids, config.seed)]
    backbone = {"name": config.backbone, "image_size": config.image_size,
                "args": dict(config.backbone_args)}
    if config.stride:
        backbone["stride"] = config.stride
    head = {"n_identities": people["id"].nunique()}
    if config.model == "la-transformer":
        head |= {"y_pooling": config.y_pooling, "local_weight": config.local_weight,
                 "feature": config.feature, "cosine": config.am_margin is not None,
                 "dropout": config.dropout, "raw": config.triplet_on == "raw"}
    if config.angular is not None:
        head["angular"] = config.angular
    if config.side_information:
        head["cameras"] = sorted(people["cam"].unique())
    return {"model": config.model, "head": head,
            "backbone": None if config.model == "deep-cosine" else backbone}


def build_loss(config: TrainConfig) -> Callable[..., dict[str, Tensor]]:
    """(*what the model gives, identities) -> named terms of the loss.

    ValueError where a loss of the user's own cannot be loaded, see ``own_loss.load``.
    """
    return with_own_term(model_loss(config), config)


def with_own_term(loss: Callable[..., dict[str, Tensor]], config: TrainConfig
                  ) -> Callable[..., dict[str, Tensor]]:
    """The loss and, where the configuration has one, the user's term."""
    return loss if config.loss is None else AddedTerm(
        loss, own_loss.load(config.loss), config.loss.name, config.loss.weight)


def model_loss(config: TrainConfig) -> Callable[..., dict[str, Tensor]]:
    """``build_loss`` without the user's term."""
    if config.angular is not None:
        return AngularLoss(config.angular_margin, config.triplet_margin, config.label_smoothing,
                           config.part_mean)
    if config.model == "la-transformer":
        return ReidLoss(config.am_margin, config.am_scale, config.triplet_margin,
                        config.label_smoothing, config.part_mean)
    return {"transreid": losses.transreid_loss, "aligned-reid": losses.aligned_reid_loss,
            "deep-cosine": losses.cosine_softmax_loss}[config.model]


def backbone_hash(config: TrainConfig) -> str | None:
    """SHA-256 of the file of weights that a run starts from; None without one."""
    path = find_weights(config.backbone) if config.pretrained else None
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_starts(study: Study, workspace: Workspace) -> None:
    """An error where a preset has no weights of its own yet, and cannot be trained.

    FileNotFoundError without pretrained weights; for a user's loss see ``build_loss``.
    """
    configs = [study.config(preset, study.seeds[0]) for preset in study.all_presets]
    missing = [config for config in configs if not any(
        workspace.artifacts.glob(f"{config.run_id}-*/weights.safetensors"))]
    for config in missing:
        build_loss(config)
    for name in {config.backbone for config in missing if config.pretrained}:
        check_weights(name)


def check_backbone(config: TrainConfig, record: dict) -> None:
    """ValueError where a run started from other backbone weights than those that are here."""
    then = record["cost"].get("backbone_sha256")
    now = then and backbone_hash(config)  # read where there is something to compare it with
    if now and then != now:
        raise ValueError(f"{config.run_id} started from weights of {config.backbone} with SHA-256 "
                         f"{then}, those in {weights_root()} have {now}: bring the former back, or "
                         f"delete {record['folder']} and the run is trained with these")


def train(config: TrainConfig, images: Tensor, people: pd.DataFrame, device: torch.device,
          checkpoint: Path | None = None, key: Mapping[str, str] | None = None,
          tracker: str | None = None) -> tuple[ReidModel, list[dict]]:
    """Train one model; returns it and its history.

    Args:
        images: uint8 ``(image, 3, height, width)``.
        people: one row an image, as in a manifest: path, id, cam, sha256.
        checkpoint, key: see ``reidlib.training.loop.fit``.
        tracker: one of accelerate's, such as "tensorboard"; its files go next to the checkpoint.
    """
    if config.members > 1 and config.epochs:
        return _train_members(config, images, people, device, checkpoint, key, tracker)
    held_out = hold_out(people["id"], config.validation_ids, config.seed)
    own = people[~held_out]
    labels, _ = number_ids(own["id"].tolist())
    model = build_model(config, people).to(device)
    optimiser = make_optimiser(model, config.lr, config.backbone_lr, config.weight_decay,
                               config.layer_decay, config.momentum, config.scale_lr)
    validate = None
    if config.validation_ids:
        validate = validation(images[torch.from_numpy(held_out)], people[held_out])
    schedule = build_schedule(config.schedule, model, optimiser, config.epochs,
                              release_every=config.release_every, lr_decay=config.lr_decay,
                              warmup_epochs=config.warmup_epochs, release=config.release)
    loss = model_loss(config)
    if isinstance(loss, AngularLoss):
        schedule = with_progress(schedule, config.epochs, loss.anneal)
    on_cpu = device.type == "cpu"
    if on_cpu:
        keep_freed_memory()
    options = TrainingOptions(schedule, config.accumulate, config.clip_norm, config.ema_decay,
                              validate)
    with (distributed.accelerated(device, config.precision, tracker=tracker, name=config.run_id,
                                  may_freeze=config.schedule == "blockwise",
                                  folder=checkpoint and checkpoint.parent) as accelerator,
          compiled(model) if config.compiled else nullcontext(),
          plain_attention(model) if on_cpu and config.precision == "bf16" else nullcontext(),
          reproducibility.algorithms(config.deterministic)):
        sampler = build_sampler(labels, config.batch_size // config.accumulate,
                                config.images_per_identity, config.seed, distributed.n_processes())
        batches = Batches(images, labels, sampler, device, config.random_erasing,
                          fill=tuple(model.mean.flatten().tolist()),
                          rows=torch.from_numpy(np.flatnonzero(~held_out)),
                          cams=model.camera_numbers(own["cam"]), pad=config.pad,
                          share=distributed.share)
        history = fit(model, batches.epoch, with_own_term(loss, config), optimiser, config.epochs,
                      options, accelerator=accelerator, checkpoint=checkpoint, key=key,
                      name=config.run_id)
    return model, history


def _train_members(config: TrainConfig, images: Tensor, people: pd.DataFrame, device: torch.device,
                   checkpoint: Path | None, *rest) -> tuple[ReidModel, list[dict]]:
    """``train`` several times; the model has the mean of all weights, the history that of all rows.

    Members start from the same backbone and differ in their heads, batches and augmentations; seed
    s has the members s n to s n + n - 1, so that two seeds share none. The mean of such weights
    often does better than any of them (Wortsman et al. 2022, arXiv:2203.05482). It holds for what
    they share from the start: the backbone, which retrieval takes. The heads' mean means nothing.
    """
    n, states, rows = config.members, [], []
    for seed in range(config.seed * n, config.seed * n + n):
        file = checkpoint and checkpoint.with_name(f"{seed}-{checkpoint.name}")
        member = replace(config, seed=seed, members=1, preset=f"{config.run_id} member")
        model, history = train(member, images, people, device, file, *rest)
        states.append(model.state_dict())
        rows += history
    mean = {name: sum(state[name] for state in states) / n if value.is_floating_point() else value
            for name, value in states[0].items()}
    model.load_state_dict(mean)
    by_epoch = pd.DataFrame(rows).groupby("epoch", sort=False)
    totals = by_epoch[["images", "seconds"]].sum()
    return model, by_epoch.mean().assign(**totals).reset_index().to_dict("records")


def validation(images: Tensor, people: pd.DataFrame) -> Callable[[nn.Module], float]:
    """model -> mAP under ``standard`` of these images, each a query against all the others."""
    def score(model: nn.Module) -> float:
        embedded = embed_people(model, images, people, mirrors=False)
        scores, _, _ = evaluate(embedded, embedded, flips=("none",), protocols=("standard",),
                                reranked_flips=())
        return float(scores["mAP"].iloc[0])

    return score
