"""What a person sees of long work: a progress bar where a person watches, plain lines elsewhere."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")
EPOCHS = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


def is_interactive() -> bool:
    """Whether a person looks on: a terminal or a notebook, unless ``REIDLIB_HEADLESS`` is set."""
    return not os.environ.get("REIDLIB_HEADLESS") and (
        sys.stderr.isatty() or "ipykernel.kernelapp" in sys.modules)


def log(text: str) -> None:
    """Write one line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def progress_bar(items: Iterable[T], total: int, name: str, unit: str, least: int = 3000
                 ) -> Iterator[T]:
    """``items`` under a bar, unless no person watches or there are fewer than ``least``."""
    yield from tqdm(items, name, total, unit=unit, disable=total < least or not is_interactive())


class EpochBar(NamedTuple):
    """How the epochs of one training run are shown."""

    move: Callable[[float], None]  # to the epochs done, as a fraction
    log: Callable[[str], None]     # what came out of an epoch


@contextmanager
def epoch_bar(name: str, first: int, last: int, shown: bool) -> Iterator[EpochBar]:
    """One bar over the epochs ``first`` to ``last``; where no person watches, a line an epoch.

    Nothing at all where there is no epoch to do, or it is not to be ``shown``.
    """
    watched, shown = is_interactive(), shown and first < last
    if shown and not watched:
        log(f"{name}: training, epoch {first + 1} to {last}")
    with tqdm(total=last, initial=first, desc=name, bar_format=EPOCHS,
              disable=not (watched and shown)) as bar:
        def end_epoch(text: str) -> None:
            nonlocal first
            first += 1
            bar.set_postfix_str(f"epoch {first}/{last}, {text}")
            if shown and not watched:
                log(f"{name}: epoch {first}/{last}, {text}")

        yield EpochBar(lambda done: bar.update(done - bar.n), end_epoch)
