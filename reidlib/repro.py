"""What a number depends on besides the configuration: versions, hardware, the commit, the seed."""

import importlib.metadata
import os
import platform
import random
import subprocess
from pathlib import Path

import numpy as np
import torch

from reidlib.paths import ROOT

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "scikit-learn", "pillow")


def seed_globals(seed: int) -> None:
    """Seed what libraries draw from: weight initialisation and dropout. Our samplers own theirs."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - other libraries' global generator, never ours
    torch.manual_seed(seed)


def pick_device(device: str = "auto") -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU; an absent device is an error."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:<n>") from error
    if picked.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} asked for, but torch {torch.__version__} sees no CUDA "
                         "device here; use DEVICE=cpu or DEVICE=auto")
    return picked


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def hardware(device: torch.device) -> dict[str, str | int]:
    """What a run was computed on, without the machine's name."""
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {"device": device.type, "cpu": _cpu_name(), "cores": os.cpu_count() or 1,
            "threads": torch.get_num_threads(), **gpu}


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
