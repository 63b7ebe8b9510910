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

from reidlib.training.checkpoint import Row, TrainingState
from reidlib.training.optimisers import Schedule, constant
from reidlib.utils.console import epoch_bar, log
from reidlib.utils.distributed import accelerated, all_agree, is_main, prepared, wait_for_all
from reidlib.utils.paths import remove_leftovers
from reidlib.utils.reproducibility import peak_memory_mb

Batch = tuple[Tensor | tuple[Tensor, ...], Tensor]  # what the model takes, labels


@dataclass(frozen=True)
class TrainingOptions:
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

    schedule: Schedule = constant
    accumulate: int = 1
    clip_norm: float | None = None
    ema_decay: float | None = None
    validate: Callable[[nn.Module], float] | None = None


def fit(model: nn.Module, batches: Callable[[int], Iterable[Batch]], loss_fn: Callable,
        optimiser: torch.optim.Optimizer, epochs: int, options: TrainingOptions | None = None, *,
        accelerator=None, checkpoint: Path | None = None, key: Mapping[str, str] | None = None,
        name: str = "training") -> list[Row]:
    """Train for ``epochs``; the model ends with the weights that count (see ``TrainingOptions``).

    Args:
        batches: epoch number -> (inputs, labels) of each batch, on the model's device; sized.
            Inputs that are a tuple are the model's arguments.
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
    options, key = options or TrainingOptions(), key or {}
    state = _start(model, optimiser, options.ema_decay, checkpoint, key)

    def save() -> None:
        if checkpoint and is_main():
            state.save(checkpoint, key)

    try:
        with (nullcontext(accelerator) if accelerator else
              accelerated(next(model.parameters()).device)) as accelerator:
            _train_epochs(state, batches, loss_fn, epochs, options, accelerator, save, name)
    except KeyboardInterrupt:
        log(f"{name}: stopped after {state.kept} of {epochs} epochs"
            + "; started again, it goes on from there" * bool(checkpoint))
        raise
    if state.best or state.average:
        model.load_state_dict(state.best or state.trained.state_dict())
    return state.history


def _start(model: nn.Module, optimiser: torch.optim.Optimizer, ema_decay: float | None,
           checkpoint: Path | None, key: Mapping[str, str]) -> TrainingState:
    """A new state, or the checkpoint's where there is one."""
    average = None
    if ema_decay is not None:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema_decay),
                                use_buffers=True)
    state = TrainingState(model, optimiser, average)
    if checkpoint and checkpoint.exists():
        state.load(checkpoint, key)
    if not all_agree(len(state.history)):
        raise ValueError(f"the processes found different checkpoints at {checkpoint}: all machines "
                         "need the same folder")
    if checkpoint and is_main():
        remove_leftovers(checkpoint)
    return state


def _train_epochs(state: TrainingState, batches: Callable[[int], Iterable[Batch]],
                  loss_fn: Callable, epochs: int, options: TrainingOptions, accelerator,
                  save: Callable[[], None], name: str) -> None:
    with (prepared(state.model, accelerator) as model,
          epoch_bar(name, len(state.history), epochs, is_main()) as bar):
        for epoch in range(len(state.history), epochs):
            row = train_one_epoch(model, batches(epoch), loss_fn, state, options, accelerator,
                                  epoch, bar.move)
            if options.validate:
                row["validation"] = options.validate(state.trained)
            state.add(row)
            accelerator.log(row, step=epoch)
            save()
            state.kept = len(state.history)
            bar.log(_in_words(row))
            wait_for_all()


def train_one_epoch(model: nn.Module, batches: Iterable[Batch], loss_fn: Callable,
                    state: TrainingState, options: TrainingOptions, accelerator, epoch: int,
                    on_step: Callable[[float], None] = lambda epochs_done: None) -> Row:
    """One pass over the batches; ``model`` is ``state.model`` as the accelerator prepared it."""
    model.train()
    optimiser, device = state.optimiser, accelerator.device
    optimiser.zero_grad(set_to_none=True)  # a step that was interrupted may have left some
    sums, n, norms, start = {}, 0, [], time.perf_counter()
    n_steps = -(-len(batches) // options.accumulate)
    steps = _grouped(batches, options.accumulate)
    parts, number = next(steps, None), 0
    while parts:
        options.schedule(epoch + (number + 0.5) / n_steps)
        try:
            means = _accumulate_gradients(model, parts, loss_fn, accelerator)
            following = next(steps, None)  # fetched while a GPU still works on this step
            norms.append(accelerator.clip_grad_norm_(state.model.parameters(),
                                                     options.clip_norm or torch.inf))
            _check_finite({**means, "gradient": norms[-1]}, epoch, number * options.accumulate)
            optimiser.step()
        except torch.OutOfMemoryError as error:
            raise MemoryError(_out_of_memory(parts, accelerator)) from error
        optimiser.zero_grad(set_to_none=True)
        if state.average:
            state.average.update_parameters(state.model)
        size = sum(len(labels) for _, labels in parts)
        for term, value in means.items():
            sums[term] = sums.get(term, 0.0) + value * size
        n, parts, number = n + size, following, number + 1
        on_step(epoch + number / n_steps)
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
            output = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
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
    images = sum(len(labels) for _, labels in parts)
    return (f"no memory left on {accelerator.device} with a batch of {images}, "
            f"{len(parts[0][1])} images at a time, precision {precision}: take `accumulate` twice "
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


def _in_words(row: Row) -> str:
    return (f"loss {row['loss']:.3f}, accuracy {row['accuracy']:.3f}, "
            f"{row['images_per_second']:.0f} images/s"
            + (f", validation {row['validation']:.3f}" if "validation" in row else ""))
