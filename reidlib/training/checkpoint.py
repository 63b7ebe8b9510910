"""A training run on disk: everything its next epoch depends on, in one file."""

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from reidlib.utils.paths import atomic_write
from reidlib.utils.reproducibility import random_state, set_random_state

Row = dict[str, float | int]


@dataclass
class TrainingState:
    """What training changes. Schedules and batches are functions of the epoch and need no place."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    average: nn.Module | None = None           # running mean of the weights
    history: list[Row] = field(default_factory=list)
    best: dict[str, Tensor] | None = None      # weights of the best epoch by validation
    kept: int = 0                              # epochs that a restart need not repeat

    @property
    def trained(self) -> nn.Module:
        """The model with the weights that count: the running mean, where there is one."""
        return self.average.module if self.average else self.model

    def add(self, row: Row) -> None:
        """Add an epoch to the history; keep its weights where it is the best so far."""
        before = [earlier["validation"] for earlier in self.history if "validation" in earlier]
        self.history.append(row)
        if "validation" in row and all(row["validation"] > score for score in before):
            self.best = {name: value.clone() for name, value in self.trained.state_dict().items()}

    def save(self, path: Path, key: Mapping[str, str]) -> None:
        """Write ``path``; a kill at any moment leaves the old file or the new one."""
        parts = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(),
                 "average": self.average.state_dict() if self.average else None}
        with atomic_write(path) as partial:
            torch.save({"key": dict(key), **parts, "history": self.history, "best": self.best,
                        "random": random_state()}, partial)

    def load(self, path: Path, key: Mapping[str, str]) -> None:
        """Go on from ``path``; ValueError where it is damaged or of another run."""
        state = read_checkpoint(path, key)
        with _damaged(path):
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            if self.average:
                self.average.load_state_dict(state["average"])
            self.history, self.best = list(state["history"]), state["best"]
            set_random_state(state["random"])
        self.kept = len(self.history)


def read_checkpoint(path: Path, key: Mapping[str, str]) -> dict:
    """The content of a checkpoint with this key (what it was made with, by name)."""
    with _damaged(path):
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # torch.load does not look at the checksums
        if broken:
            raise zipfile.BadZipFile(f"wrong checksum of {broken}")
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = dict(state["key"])
    for name, value in key.items():
        if found.get(name) != value:
            raise ValueError(f"checkpoint {path} belongs to another {name} ({found.get(name)}, "
                             f"this run's is {value}); delete it to start this run again")
    return state


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """Errors of reading a checkpoint as one that names it and says what to do."""
    try:
        yield
    except pickle.UnpicklingError as error:  # torch would advise to run what is in it
        raise ValueError(f"checkpoint {path} is refused: it holds more than tensors and plain "
                         "values, which could run code; delete it to start this run again"
                         ) from error
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, LookupError, TypeError,
            AttributeError, IsADirectoryError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"checkpoint {path} is damaged ({reason}); delete it to start this run "
                         "again") from error
