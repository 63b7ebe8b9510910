"""Optimises a model: loop, blockwise release, checkpoints. Knows nothing of re-identification."""

import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from reidlib.paths import whole_file
from reidlib.progress import say, watched

Batch = tuple[Tensor, Tensor]
Row = dict[str, float | int]


def fit(model: nn.Module, batches: Callable[[int], Iterable[Batch]], loss_fn: Callable,
        optimiser: torch.optim.Optimizer, epochs: int, *, checkpoint: Path | None = None,
        key: str = "", name: str = "training",
        on_epoch_start: Callable[[int], None] = lambda epoch: None) -> list[Row]:
    """Train for ``epochs`` and return one row an epoch: loss, its terms, accuracy, seconds.

    Args:
        batches: epoch number -> (inputs, labels) on the model's device.
        loss_fn: (*model(inputs), labels) -> named terms, whose sum is minimised.
        checkpoint: file written after every epoch; training continues from it where it exists.
        key: what the checkpoint belongs to; a checkpoint with another key is refused.
        on_epoch_start: called before each epoch (freeze, release, change learning rates).

    Raises:
        FloatingPointError: the loss is not finite; nothing of that step was applied.
        ValueError: the checkpoint is damaged or of another run.
    """
    history = resume(checkpoint, key, model, optimiser) if checkpoint else []
    for epoch in progress(range(len(history), epochs), name, history, epochs):
        on_epoch_start(epoch)
        history.append({"epoch": epoch, **train_one_epoch(model, batches(epoch), loss_fn,
                                                          optimiser, epoch)})
        if checkpoint:
            save_checkpoint(checkpoint, key, model, optimiser, history)
    return history


def train_one_epoch(model: nn.Module, batches: Iterable[Batch], loss_fn: Callable,
                    optimiser: torch.optim.Optimizer, epoch: int = 0) -> Row:
    """One pass: means over images of the loss, its terms and the accuracy of the logits."""
    model.train()
    sums, n, start = {}, 0, time.perf_counter()
    for number, (inputs, labels) in enumerate(batches):
        output = model(inputs)
        terms = loss_fn(*output, labels)
        loss = sum(terms.values())
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"loss is {loss.item()} in epoch {epoch}, batch {number} "
                f"({', '.join(f'{k} {v.item():.4g}' for k, v in terms.items())}); stopped before "
                "the optimiser step. A smaller learning rate is the usual cure")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        right = (output[0].detach().argmax(-1) == labels[:, None]).float().mean()
        for term, value in {"loss": loss, **terms, "accuracy": right}.items():
            sums[term] = sums.get(term, 0.0) + value.detach() * len(labels)
        n += len(labels)
    if not n:
        raise ValueError("an epoch without a batch: fewer images than one batch needs")
    return {**{term: (total / n).item() for term, total in sums.items()},
            "images": n, "seconds": time.perf_counter() - start}


def set_trainable_blocks(model: nn.Module, n: int) -> None:
    """Train the heads and the last ``n`` transformer blocks; freeze the rest of the backbone.

    The patch, class-token and position embeddings come before the first block and are released
    with it; the final norm comes after the last and is never frozen.
    """
    backbone = model.backbone
    backbone.requires_grad_(n >= len(backbone.blocks))
    for i, block in enumerate(backbone.blocks):
        block.requires_grad_(i >= len(backbone.blocks) - n)
    backbone.norm.requires_grad_(True)


def blockwise(model: nn.Module, optimiser: torch.optim.Optimizer, every: int = 2,
              decay: float = 0.8) -> Callable[[int], None]:
    """The paper's schedule: every ``every`` epochs one more block, rates times ``decay``."""
    first = [group["lr"] for group in optimiser.param_groups]

    def on_epoch_start(epoch: int) -> None:
        released = epoch // every
        set_trainable_blocks(model, released)
        for group, lr in zip(optimiser.param_groups, first, strict=True):
            group["lr"] = lr * decay ** released

    return on_epoch_start


def make_optimiser(model: nn.Module, lr: float, backbone_lr: float,
                   weight_decay: float) -> torch.optim.Adam:
    """Adam with one learning rate for ``model.backbone`` and one for everything else."""
    backbone = list(model.backbone.parameters())
    known = {id(p) for p in backbone}
    heads = [p for p in model.parameters() if id(p) not in known]
    return torch.optim.Adam([{"params": heads, "lr": lr}, {"params": backbone, "lr": backbone_lr}],
                            weight_decay=weight_decay)


def save_checkpoint(path: Path, key: str, model: nn.Module, optimiser: torch.optim.Optimizer,
                    history: list[Row]) -> None:
    """Everything the next epoch depends on, written whole."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    state = {"key": key, "model": model.state_dict(), "optimiser": optimiser.state_dict(),
             "history": history, "random": torch.get_rng_state(), "random_cuda": cuda}
    with whole_file(path) as partial:
        torch.save(state, partial)


def resume(path: Path, key: str, model: nn.Module, optimiser: torch.optim.Optimizer) -> list[Row]:
    """Load a checkpoint if there is one; returns the history so far."""
    if not path.exists():
        return []
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
        raise ValueError(f"checkpoint {path} is damaged ({str(error).splitlines()[0]}); delete it "
                         "to start this run anew") from error
    if state["key"] != key:
        raise ValueError(f"checkpoint {path} belongs to another configuration or data set; "
                         "delete it to start this run anew")
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    torch.set_rng_state(state["random"])
    if state["random_cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["random_cuda"])
    return state["history"]


def progress(epochs: range, name: str, history: list[Row], total: int) -> Iterator[int]:
    """Yield epochs under one bar where a person watches, with one written line each elsewhere."""
    with tqdm(total=total, initial=len(history), desc=name, unit="epoch",
              disable=not watched()) as bar:
        for epoch in epochs:
            yield epoch
            row = history[-1]
            text = (f"loss {row['loss']:.3f}, accuracy {row['accuracy']:.3f}, "
                    f"{row['images'] / row['seconds']:.0f} images/s")
            bar.set_postfix_str(text)
            bar.update()
            if not watched():
                say(f"{name}: epoch {epoch + 1}/{total}, {text}")
