"""Several processes work on one batch: each takes its share through the backbone, all see the rest.

Heads and losses run on the complete batch in every process. So batch-hard mining and batch
normalisation see what a single process would see, and n processes x m images give the gradients of
one process x nm images (but for dropout within the backbone, whose masks are the same in every
process). One process is the case where its share is the complete batch.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
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
    """This process's rows of a batch; ValueError where they cannot be split evenly."""
    if n_rows % n_processes():
        raise ValueError(f"a batch of {n_rows} images cannot be split evenly over {n_processes()} "
                         "processes: change batch_size or the number of processes")
    size = n_rows // n_processes()
    first = size * (dist.get_rank() if dist.is_initialized() else 0)
    return slice(first, first + size)


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of the shares; gradients flow back to each."""
    if n_processes() == 1:
        return rows
    from torch.distributed.nn.functional import all_gather  # its import warns where it is not used

    return torch.cat(all_gather(rows.contiguous()))


def join_processes(device: torch.device) -> None:
    """Make the group of all processes that ``accelerate launch`` started; nothing to do for one."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # for good: what this process shares goes through it
    with accelerated(device):
        pass


@contextmanager
def accelerated(device: torch.device, precision: str = "fp32", *, may_freeze: bool = False,
                tracker: str | None = None, folder: Path | None = None, name: str = "training"
                ) -> Iterator:
    """Accelerate's handle on precision, processes and trackers, for one run.

    Accelerate allows one precision and device a process; the runs of a notebook may differ in
    both, so its state is set aside for the block and put back afterwards.

    Args:
        precision: "fp32" or "bf16" (autocast).
        may_freeze: some parameters will not always get a gradient.
        tracker: "tensorboard" or another of accelerate's; its files go to ``folder``, under
            ``name``.

    Raises:
        ValueError: the tracker is not installed.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

    parallel = DistributedDataParallelKwargs(find_unused_parameters=may_freeze)
    patient = InitProcessGroupKwargs(timeout=timedelta(hours=12))  # while one decodes or scores
    # a device without a number is the current one, which is what accelerate takes
    current = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    with _accelerate_set_aside(), current, ExitStack() as at_the_end:
        accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision,
                                  cpu=device.type == "cpu", log_with=tracker, project_dir=folder,
                                  kwargs_handlers=[parallel, patient])
        if tracker:
            if not accelerator.log_with:
                raise ValueError(f"tracker {tracker!r} is not installed: pip install {tracker}")
            accelerator.init_trackers(name)
        for used in accelerator.trackers:  # end_training would end the group of processes as well
            at_the_end.callback(used.finish)
        yield accelerator


@contextmanager
def _accelerate_set_aside() -> Iterator[None]:
    """Accelerate's global state, empty within the block (but for a group of processes)."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    states = (AcceleratorState, GradientState, PartialState)
    before = [dict(state._shared_state) for state in states]
    AcceleratorState._reset_state(reset_partial_state=n_processes() == 1)
    try:
        yield
    finally:
        for state, values in zip(states, before, strict=True):
            state._shared_state.clear()
            state._shared_state.update(values)


@contextmanager
def prepared(model: nn.Module, accelerator) -> Iterator[nn.Module]:
    """The model as accelerate wraps it for training; afterwards it is as it was."""
    wrapped = accelerator.prepare_model(model)
    try:
        yield wrapped
    finally:
        accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        vars(model).pop("_is_accelerate_prepared", None)  # else the next time it is left out
