"""Several processes work on one batch: each takes its share through the backbone, all see the rest.

Heads and losses run on the whole batch in every process. So batch-hard mining and batch
normalisation see what a single process would see, and n processes x m images give the gradients of
one process x nm images (but for dropout within the backbone, whose masks are the same in every
process). One process is the case where every share is the whole.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn


def n_processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that writes files."""
    return not dist.is_initialized() or dist.get_rank() == 0


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if dist.is_initialized():
        dist.barrier()


def all_agree(value: int) -> bool:
    """Whether all processes have the same value."""
    values = [value] * n_processes()
    if n_processes() > 1:
        dist.all_gather_object(values, value)
    return len(set(values)) == 1


def share(n_rows: int) -> slice:
    """This process's rows of a batch; ValueError where the batch does not come out even."""
    if n_rows % n_processes():
        raise ValueError(f"a batch of {n_rows} images cannot be dealt evenly to {n_processes()} "
                         "processes: change batch_size or the number of processes")
    size = n_rows // n_processes()
    first = size * (dist.get_rank() if dist.is_initialized() else 0)
    return slice(first, first + size)


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of the shares; gradients flow back to each."""
    return rows if n_processes() == 1 else _GatherRows.apply(rows.contiguous())


class _GatherRows(torch.autograd.Function):
    """all_gather, with a gradient: the sum of what all the processes ask for."""

    @staticmethod
    def forward(_, rows: Tensor) -> Tensor:
        everybody = [torch.empty_like(rows) for _ in range(n_processes())]
        dist.all_gather(everybody, rows)
        return torch.cat(everybody)

    @staticmethod
    def backward(_, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[share(len(total))]


def make_accelerator(device: torch.device, precision: str = "fp32", *, may_freeze: bool = False,
                     tracker: str | None = None, folder: Path | None = None):
    """Accelerate's handle on precision, processes and trackers, for one run.

    Args:
        precision: "fp32" or "bf16" (autocast).
        may_freeze: some parameters will not always get a gradient.
        tracker: "tensorboard" or another of accelerate's; its files go to ``folder``.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState

    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # accelerate takes the current one
    # accelerate allows one precision and device a process; runs in a notebook may differ in both
    AcceleratorState._reset_state(reset_partial_state=n_processes() == 1)
    parallel = DistributedDataParallelKwargs(find_unused_parameters=may_freeze)
    patient = InitProcessGroupKwargs(timeout=timedelta(hours=12))  # while one decodes or scores
    return Accelerator(mixed_precision="no" if precision == "fp32" else precision,
                       cpu=device.type == "cpu", log_with=tracker, project_dir=folder,
                       kwargs_handlers=[parallel, patient])


@contextmanager
def prepared(model: nn.Module, accelerator) -> Iterator[nn.Module]:
    """The model as accelerate wraps it for training; afterwards it is as it was."""
    wrapped = accelerator.prepare_model(model)
    try:
        yield wrapped
    finally:
        accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        vars(model).pop("_is_accelerate_prepared", None)  # else the next time it is left out
