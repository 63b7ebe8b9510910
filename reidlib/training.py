"""Optimises a model: loop, accumulation, averaging. Knows nothing of re-identification."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from reidlib.checkpoints import Progress, Row
from reidlib.optimisation import Schedule
from reidlib.paths import remove_leftovers
from reidlib.processes import all_agree, is_main, make_accelerator, prepared, wait_for_all
from reidlib.progress import say, watched
from reidlib.repro import peak_memory_mb

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Recipe:
    """How steps are taken; the defaults are the plain ones.

    Args:
        schedule: called before every step with the epochs done, as a fraction; sets the learning
            rates, freezes and releases.
        accumulate: batches to one optimiser step. Each is a batch of its own for batch
            normalisation and for losses that compare images, such as the batch-hard triplet.
        clip_norm: largest norm of a step's gradient.
        ema_decay: of the running mean of the weights, which is then what training returns.
        validate: model -> score, higher is better, after every epoch; the weights of the best
            epoch are then what training returns.
    """

    schedule: Schedule = lambda epochs_done: None
    accumulate: int = 1
    clip_norm: float | None = None
    ema_decay: float | None = None
    validate: Callable[[nn.Module], float] | None = None


def fit(model: nn.Module, batches: Callable[[int], Iterable[Batch]], loss_fn: Callable,
        optimiser: torch.optim.Optimizer, epochs: int, recipe: Recipe | None = None, *,
        accelerator=None, checkpoint: Path | None = None, key: Mapping[str, str] | None = None,
        name: str = "training") -> list[Row]:
    """Train for ``epochs``; the model ends with the weights that count (see ``Recipe``).

    Args:
        batches: epoch number -> (inputs, labels) of each batch, on the model's device; sized.
        loss_fn: (*model(inputs), labels) -> named terms, whose sum is minimised.
        accelerator: precision, processes and trackers; default: one process in full precision.
        checkpoint: file written after every epoch; training continues from it where it exists.
        key: what the checkpoint was made with, by name; with another value it is refused.

    Returns:
        One row an epoch: means over images of the loss, its terms and the accuracy, the learning
        rates, the mean norm of the gradient, images, seconds, images a second, peak memory so far
        in MB, and the validation score if there is one.

    Raises:
        FloatingPointError: loss or gradient is not finite; no weight was changed by that step.
        MemoryError: the device's memory is full.
        ValueError: the checkpoint is damaged or of another run.
    """
    recipe, key = recipe or Recipe(), key or {}
    accelerator = accelerator or make_accelerator(next(model.parameters()).device)
    average = None
    if recipe.ema_decay is not None:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay),
                                use_buffers=True)
    progress = Progress(model, optimiser, average)
    if checkpoint and checkpoint.exists():
        progress.load(checkpoint, key)
    if not all_agree(len(progress.history)):
        raise ValueError(f"the processes found different checkpoints at {checkpoint}: all machines "
                         "need the same folder")
    if checkpoint and is_main():
        remove_leftovers(checkpoint)
    kept = len(progress.history)
    try:
        with prepared(model, accelerator) as parallel:
            for epoch in _reported(range(len(progress.history), epochs), name, progress.history):
                row = train_one_epoch(parallel, batches(epoch), loss_fn, progress, recipe,
                                      accelerator, epoch)
                if recipe.validate:
                    row["validation"] = recipe.validate(average.module if average else model)
                _note(progress, row)
                accelerator.log(row, step=epoch)
                if checkpoint and is_main():
                    progress.save(checkpoint, key)
                kept = len(progress.history)
                wait_for_all()
    except KeyboardInterrupt:
        say(f"{name}: stopped after {kept} of {epochs} epochs"
            + "; started again, it goes on from there" * bool(checkpoint))
        raise
    if progress.best or average:
        model.load_state_dict(progress.best or average.module.state_dict())
    return progress.history


def train_one_epoch(model: nn.Module, batches: Iterable[Batch], loss_fn: Callable,
                    progress: Progress, recipe: Recipe, accelerator, epoch: int) -> Row:
    """One pass over the batches; ``model`` is ``progress.model`` as the accelerator prepared it."""
    model.train()
    optimiser, device = progress.optimiser, accelerator.device
    optimiser.zero_grad(set_to_none=True)  # a step that was interrupted may have left some
    sums, n, norms, start = {}, 0, [], time.perf_counter()
    n_steps = -(-len(batches) // recipe.accumulate)
    steps = _grouped(batches, recipe.accumulate)
    parts, number = next(steps, None), 0
    while parts:
        recipe.schedule(epoch + (number + 0.5) / n_steps)
        try:
            means = _accumulate_gradients(model, parts, loss_fn, accelerator)
            following = next(steps, None)  # fetched while a GPU still works on this step
            norms.append(accelerator.clip_grad_norm_(progress.model.parameters(),
                                                     recipe.clip_norm or torch.inf))
            _check_finite({**means, "gradient": norms[-1]}, epoch, number * recipe.accumulate)
            optimiser.step()
        except torch.OutOfMemoryError as error:
            raise MemoryError(_out_of_memory(parts, accelerator)) from error
        optimiser.zero_grad(set_to_none=True)
        if progress.average:
            progress.average.update_parameters(progress.model)
        size = sum(len(labels) for _, labels in parts)
        for term, value in means.items():
            sums[term] = sums.get(term, 0.0) + value * size
        n, parts, number = n + size, following, number + 1
    if not n:
        raise ValueError("an epoch without a batch: fewer images than one batch needs")
    means = {term: (total / n).item() for term, total in sums.items()}
    seconds = time.perf_counter() - start
    return {"epoch": epoch, **means, **_rates(optimiser),
            "gradient_norm": torch.stack(norms).mean().item(), "images": n, "seconds": seconds,
            "images_per_second": n / seconds, "memory_mb": peak_memory_mb(device)}


def _accumulate_gradients(model: nn.Module, parts: list[Batch], loss_fn: Callable,
                          accelerator) -> dict[str, Tensor]:
    """Gradients of the parts' mean loss; means over all their images of loss, terms, accuracy."""
    means, size = {}, sum(len(labels) for _, labels in parts)
    for i, (inputs, labels) in enumerate(parts, 1):
        weight = len(labels) / size
        with accelerator.no_sync(model) if i < len(parts) else nullcontext():
            output = model(inputs)
            terms = loss_fn(*output, labels)
            loss = sum(terms.values())
            accelerator.backward(loss * weight)
        right = (output[0].detach().argmax(-1) == labels[:, None]).float().mean()
        for name, value in {"loss": loss, **terms, "accuracy": right}.items():
            means[name] = means.get(name, 0.0) + value.detach() * weight
    return means


def _check_finite(means: dict[str, Tensor], epoch: int, batch: int) -> None:
    if torch.isfinite(means["loss"] + means["gradient"]):
        return
    terms = {name: value.item() for name, value in means.items() if name != "accuracy"}
    broken = [name for name, value in terms.items() if not abs(value) < float("inf")]
    # the parts make the loss, and the loss the gradient: the first cause is what helps
    cause = [name for name in broken if name not in ("loss", "gradient")] or broken
    raise FloatingPointError(
        f"{', '.join(cause)} not finite in epoch {epoch}, batch {batch} "
        f"({', '.join(f'{name} {value:.4g}' for name, value in terms.items())}); stopped before "
        "the optimiser step, the last checkpoint is kept. A smaller learning rate is the usual "
        "cure")


def _out_of_memory(parts: list[Batch], accelerator) -> str:
    precision = accelerator.mixed_precision.replace("no", "fp32")
    whole = sum(len(labels) for _, labels in parts)
    return (f"no memory left on {accelerator.device} with a batch of {whole}, "
            f"{len(parts[0][0])} images at a time, precision {precision}: take `accumulate` twice "
            "as large (same batch_size, half the images at a time), precision: bf16, a smaller "
            "batch_size or a smaller backbone. Started again, the run goes on from its last epoch")


def _grouped(batches: Iterable[Batch], n: int) -> Iterator[list[Batch]]:
    """Lists of ``n`` batches; the last may be shorter."""
    iterator = iter(batches)
    while group := list(islice(iterator, n)):
        yield group


def _rates(optimiser: torch.optim.Optimizer) -> Row:
    """Each group's learning rate at the last step."""
    return {f"lr_{group.get('name', i)}": group["lr"]
            for i, group in enumerate(optimiser.param_groups)}


def _note(progress: Progress, row: Row) -> None:
    """Add an epoch to the history; keep its weights where it is the best so far."""
    before = [earlier["validation"] for earlier in progress.history if "validation" in earlier]
    progress.history.append(row)
    if "validation" in row and all(row["validation"] > score for score in before):
        weights = (progress.average.module if progress.average else progress.model).state_dict()
        progress.best = {name: value.clone() for name, value in weights.items()}


def _reported(epochs: range, name: str, history: list[Row]) -> Iterator[int]:
    """Yield epochs under one bar where a person watches, with one written line each elsewhere."""
    if epochs and is_main() and not watched():
        say(f"{name}: training, epoch {epochs.start + 1} to {epochs.stop}")
    with tqdm(total=epochs.stop, initial=epochs.start, desc=name, unit="epoch",
              disable=not (watched() and is_main())) as bar:
        for epoch in epochs:
            yield epoch
            row = history[-1]
            text = (f"loss {row['loss']:.3f}, accuracy {row['accuracy']:.3f}, "
                    f"{row['images_per_second']:.0f} images/s")
            if "validation" in row:
                text += f", validation {row['validation']:.3f}"
            bar.set_postfix_str(text)
            bar.update()
            if is_main() and not watched():
                say(f"{name}: epoch {epoch + 1}/{epochs.stop}, {text}")
