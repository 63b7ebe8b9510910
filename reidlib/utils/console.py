"""What a person sees of long work: a progress bar where a person watches, plain lines elsewhere."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


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
