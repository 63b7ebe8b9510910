"""What a number depends on besides the configuration: versions, hardware, the commit, the seed."""

import importlib.metadata
import os
import platform
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from reidlib.utils.paths import ROOT

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "pandas", "scikit-learn",
            "pillow")


def seed_globals(seed: int) -> None:
    """Seed what libraries draw from: weight initialisation and dropout. Our samplers own theirs."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - other libraries' global generator, never ours
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Where the generators of ``seed_globals`` stand, in plain types."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest],
            "torch": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Put the generators back to where ``random_state`` found them."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def algorithms(deterministic: bool) -> Iterator[None]:
    """Within it, with ``deterministic``, only algorithms that give the same bits every time.

    On the CPU with one number of threads that is so anyway. On CUDA it costs speed, and an
    operation that has no such algorithm raises RuntimeError.
    """
    before = torch.are_deterministic_algorithms_enabled()
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    if deterministic and not workspace:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS asks for it
    torch.use_deterministic_algorithms(deterministic or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        if deterministic and not workspace:
            os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def pick_device(device: str = "auto") -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU; an absent device is an error.

    Of several processes on one machine each gets a CUDA device of its own.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        picked = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:<n>") from error
    if picked.type not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r} is not supported; use auto, cpu, cuda or cuda:<n>")
    if picked.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} asked for, but torch {torch.__version__} sees no CUDA "
                         "device here; use --device cpu (make: DEVICE=cpu)")
    if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} asked for, but there are only "
                         f"{torch.cuda.device_count()} CUDA devices, numbered from 0")
    return picked


def provenance(device: torch.device) -> dict:
    """Hardware, versions and commit, as every record keeps them."""
    return {"hardware": hardware(device), "versions": versions(), "commit": git_commit()}


def as_table(device: torch.device | None = None) -> pd.DataFrame:
    """Versions, and with a device the hardware, in one row."""
    return pd.DataFrame([versions() | (hardware(device) if device else {})], index=[""])


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def hardware(device: torch.device) -> dict[str, str | int]:
    """What a run was computed on, without the machine's name."""
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {"device": device.type, "cpu": _cpu_name(), "cores": os.cpu_count() or 1,
            "threads": torch.get_num_threads(), **gpu}


def peak_memory_mb(device: torch.device) -> float:
    """Most memory this process has held so far: on CUDA the device's, else the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def git_commit() -> str:
    """Commit of this checkout, with ``+`` when files of the library differ from it."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return "unknown"
    return commit + ("+" if _git("status", "--porcelain", "--", "reidlib") else "")


def _git(*args: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True,
                              check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
