"""The parts of a training run, chosen by name: sampler, schedule, how the model is computed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Int
from torch import Tensor, nn

from reidlib.data.batches import IdentitySampler, ShuffleSampler
from reidlib.training import optimisers
from reidlib.utils.console import log
from reidlib.utils.errors import check_choice


def build_sampler(ids: Int[Tensor, "image"], batch_size: int, images_per_identity: int | None,
                  seed: int, n_processes: int = 1) -> IdentitySampler | ShuffleSampler:
    """Batches of P x K images where ``images_per_identity`` (K) is given, else plain shuffling."""
    if images_per_identity:
        return IdentitySampler(ids.numpy(), batch_size // images_per_identity,
                               images_per_identity, seed, n_processes)
    return ShuffleSampler(len(ids), batch_size, seed)


def build_schedule(name: str, model: nn.Module, optimiser: torch.optim.Optimizer, epochs: int, *,
                   release_every: int = 2, lr_decay: float = 0.8,
                   warmup_epochs: float | None = None, release: str = "paper"
                   ) -> optimisers.Schedule:
    """``blockwise`` (the paper's), or ``end-to-end``: constant rates, or warm-up and cosine.

    ``release``: of the blocks, as the paper says it or as the public code does it.
    """
    check_choice("schedule", name, ("blockwise", "end-to-end"))
    if name == "blockwise":
        return optimisers.blockwise(model, optimiser, release_every, lr_decay,
                                    public=release == "public-code")
    if warmup_epochs is not None and epochs:
        return optimisers.warmup_cosine(optimiser, epochs, warmup_epochs)
    return optimisers.constant


@contextmanager
def compiled(model: nn.Module) -> Iterator[None]:
    """Within it the model's forward pass is compiled; where that is not possible it runs as it is.
    """
    reason = _why_not(next(model.parameters()).device)
    if reason:
        log(f"torch.compile does not work here ({reason}); going on without")
        yield
        return
    # an operation that the compiler does not know runs as it is, too
    with torch._dynamo.config.patch(suppress_errors=True):
        model.compile()
        log("torch.compile: the first step takes a while")
        try:
            yield
        finally:
            model._compiled_call_impl = None


@contextmanager
def plain_attention(model: nn.Module) -> Iterator[None]:
    """Within it timm's attention is two matrix products with a softmax between them.

    On a CPU in bf16 torch's fused one takes longer, above all its gradient: with it a step of
    ViT-Tiny at 224 x 224 took a quarter longer (torch 2.15, a processor with bf16 units).
    """
    fused = [module for module in model.modules() if getattr(module, "fused_attn", False)]
    for module in fused:
        module.fused_attn = False
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True


def _why_not(device: torch.device) -> str:
    """Why torch cannot compile for the device; empty where it can."""
    try:
        torch.compile(lambda values: values.sin() + 1)(torch.ones(2, device=device))
    except Exception as error:  # no compiler, no triton, an unknown device: each has its own class
        return str(error).partition("\n")[0] or type(error).__name__
    return ""
