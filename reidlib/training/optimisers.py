"""What is optimised at which rate: Adam or SGD, the paper's blockwise release, warm-up + cosine.

A schedule is a function of the epochs done, as a fraction: it needs no state of its own, and a
resumed run goes on where it stopped.
"""

from collections.abc import Callable

import torch
from torch import nn

Schedule = Callable[[float], None]


def make_optimiser(model: nn.Module, lr: float, backbone_lr: float, weight_decay: float,
                   layer_decay: float = 1.0, momentum: float | None = None,
                   scale_lr: float | None = None) -> torch.optim.Optimizer:
    """Adam with one learning rate for ``model.backbone``, if any, and one for everything else.

    With ``layer_decay`` below 1 each block of the backbone has that factor times the rate of the
    block above it, down to the patch embedding (Bao et al. 2022, arXiv:2106.08254). With
    ``momentum`` it is SGD, and biases have twice the rate (He et al. 2021, public code). With
    ``scale_lr`` that is the rate of ``model.scale``: Adam moves a single number by about its rate a
    step, whatever the gradient.
    """
    backbone = list(model.backbone.parameters()) if hasattr(model, "backbone") else []
    scale = [] if scale_lr is None else [model.scale]
    known = {id(p) for p in (*backbone, *scale)}
    heads = [p for p in model.parameters() if id(p) not in known]
    groups = [{"params": heads, "lr": lr, "name": "heads"}]
    if scale:
        groups.append({"params": scale, "lr": scale_lr, "name": "scale"})
    if backbone and layer_decay == 1:
        groups.append({"params": backbone, "lr": backbone_lr, "name": "backbone"})
    elif backbone:
        groups += _layers(model.backbone, backbone_lr, weight_decay, layer_decay)
    if momentum is None:
        return torch.optim.Adam(groups, weight_decay=weight_decay, fused=True)
    return torch.optim.SGD(_biases_apart(model, groups), weight_decay=weight_decay,
                           momentum=momentum)


def _biases_apart(model: nn.Module, groups: list[dict]) -> list[dict]:
    """Each group in two: weights, and biases at twice the rate."""
    biases = {id(p) for name, p in model.named_parameters() if name.endswith("bias")}
    return [{"params": [p for p in group["params"] if (id(p) in biases) == (factor == 2)],
             "lr": factor * group["lr"], "name": group["name"] + name}
            for group in groups for factor, name in ((1, ""), (2, "-biases"))]


def _layers(backbone: nn.Module, lr: float, weight_decay: float, layer_decay: float) -> list[dict]:
    from timm.optim import param_groups_layer_decay  # see reidlib.models.backbone

    layers = param_groups_layer_decay(backbone, weight_decay, weight_decay_exclude_1d=False,
                                      layer_decay=layer_decay)
    return [{"params": layer["params"], "lr": lr * layer["lr_scale"], "name": f"layer{i}"}
            for i, layer in enumerate(layers)]


def set_trainable_blocks(model: nn.Module, n: int, embeddings: bool = False) -> None:
    """Train the heads and the last ``n`` transformer blocks; freeze the rest of the backbone.

    The patch, class-token and position embeddings come before the first block and are released
    with it, or, with ``embeddings``, are always trained; the final norm comes after the last and is
    never frozen. No graph is built through what is frozen: it costs its forward pass alone.
    """
    backbone = model.backbone
    backbone.requires_grad_(embeddings or n >= len(backbone.blocks))
    for i, block in enumerate(backbone.blocks):
        block.requires_grad_(i >= len(backbone.blocks) - n)
    backbone.norm.requires_grad_(True)


def constant(epochs_done: float) -> None:
    """Rates stay as the optimiser has them."""


def with_progress(schedule: Schedule, epochs: int, tell: Callable[[float], None]) -> Schedule:
    """The schedule; it also tells something else, such as a loss, the share of training done."""
    def both(epochs_done: float) -> None:
        schedule(epochs_done)
        tell(epochs_done / epochs)

    return both


def blockwise(model: nn.Module, optimiser: torch.optim.Optimizer, every: int = 2,
              decay: float = 0.8, public: bool = False) -> Schedule:
    """The paper's schedule: every ``every`` epochs one more block, rates times ``decay``.

    ``public``: as LA-Transformer's public code does it: the embeddings are never frozen, and the
    training starts after the first release, with two blocks.
    """
    first = [group["lr"] for group in optimiser.param_groups]

    def schedule(epochs_done: float) -> None:
        released = int(epochs_done) // every + public
        set_trainable_blocks(model, released + public, embeddings=public)
        for group, lr in zip(optimiser.param_groups, first, strict=True):
            group["lr"] = lr * decay ** released

    return schedule


def warmup_cosine(optimiser: torch.optim.Optimizer, epochs: int, warmup: float) -> Schedule:
    """Rates rise from 0 over ``warmup`` epochs, then follow a cosine to 0.

    The cosine is that over all ``epochs``: where the warm-up ends, the rates drop to
    (1 + cos(pi warmup / epochs)) / 2 of their full value.
    """
    from timm.scheduler import CosineLRScheduler

    return CosineLRScheduler(optimiser, t_initial=epochs, warmup_t=warmup).step
