"""Measure candidates one process each, next to the floor of their kind of work.

A candidate's process makes the data, runs the candidate once with the peak of its memory watched
(that is the warm-up too), then times floor and candidate in turn, so that a busy machine slows
both. Peak memory is what is held at most, the candidate's results included, above what was held
with the data made, the floor run and all packages loaded.
"""

import argparse
import ctypes
import importlib.metadata
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from threading import Event, Thread
from time import perf_counter
from typing import ClassVar, Protocol

import numpy as np
import pandas as pd

from reidlib.evaluation.embeddings import Embeddings
from reidlib.utils.paths import ROOT, write_csv
from reidlib.utils.text import to_markdown

COLUMNS = ["name", "size", "seconds", "ratio_to_floor", "peak_mb", "threads", "versions"]
REPORTS = ROOT / "reports" / "bench"
NOISE = 2.4       # a person's features: a centre plus noise of this size, then of length 1
OTHERS = 6     # one of so many gallery images shows a person of no query
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


class Work(Protocol):
    """What a row is measured on; ``str`` of it is the row's size."""

    device: str

    def make(self) -> tuple: ...                       # the data, seeded
    def floor(self, *data) -> Callable[[], object]: ...
    def tiny(self) -> "Work": ...                      # where candidates show that they agree
    def watch_memory(self) -> "PeakMemory": ...


@dataclass(frozen=True)
class Size:
    """Retrieval: query and gallery features; the floor is their plain product."""

    query: int
    gallery: int
    dim: int = 768
    people: int = 750
    cameras: int = 6
    device: ClassVar[str] = "cpu"

    def __str__(self) -> str:
        return f"{self.query} x {self.gallery} x {self.dim}"

    def make(self) -> tuple[Embeddings, Embeddings]:
        return make_pair(self)

    def floor(self, query: Embeddings, gallery: Embeddings) -> Callable[[], np.ndarray]:
        return lambda: query.emb @ gallery.emb.T

    def tiny(self) -> "Size":
        return TINY

    def watch_memory(self) -> "PeakMemory":
        return PeakMemory()

MARKET = Size(3368, 19732)  # as many images as Market-1501, junk and distractors too
TINY = Size(30, 200, dim=32, people=10, cameras=3)


@dataclass(frozen=True)
class Candidate:
    """One row. ``prepare(*data)`` returns what is timed; its memory counts as well.

    ``agrees(result, *data)`` is asked at the tiny size before anything is measured. What is timed
    does ``steps`` times what the floor does once. With one ``repeat`` the first run is the
    measured one.
    """

    name: str
    size: Work
    prepare: Callable[..., Callable[[], object]]
    agrees: Callable[..., bool]
    packages: tuple[str, ...] = ("numpy",)
    repeats: int = 5
    steps: int = 1


def floor_at(size: Size) -> Candidate:
    """The product itself, on the same terms as what is compared with it."""
    return Candidate("floor query x gallery product", size, size.floor,
                     lambda product, query, gallery: product.shape == (TINY.query, TINY.gallery))


def make_pair(size: Size, seed: int = 0) -> tuple[Embeddings, Embeddings]:
    """Seeded query and gallery: float32 features of people under cameras, and of other people."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((size.people, size.dim), np.float32)
    query_ids = rng.integers(0, size.people, size.query)
    gallery_ids = rng.integers(0, size.people, size.gallery)
    gallery_ids[rng.random(size.gallery) < 1 / OTHERS] = -1
    return (_embed(rng, "query", query_ids, centres, size),
            _embed(rng, "gallery", gallery_ids, centres, size))


def main(module: str, candidates: dict[str, list[Candidate]], devices: Sequence[str] = ()
         ) -> tuple[pd.DataFrame, Path]:
    """Command line of a benchmark: measure all candidates of a size, print and write the table.

    With ``devices`` the table has a column for the device. Rows of another device than the one
    asked for, and those that ``--only`` leaves out, stay as they were measured before, or empty.

    Returns the table and the folder that holds its ``<module>.csv``.
    """
    parser = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{module}")
    parser.add_argument("--size", choices=list(candidates), default="full")
    parser.add_argument("--reports", type=Path, default=REPORTS, help="folder of the tables")
    parser.add_argument("--candidate", type=int, help="measure only this one, print JSON")
    parser.add_argument("--only", default="", metavar="TEXT", help="measure only the rows that "
                        "have this text in name or size, and keep the others")
    if devices:
        parser.add_argument("--device", choices=devices, default=devices[0])
    args = parser.parse_args()
    chosen = candidates[args.size]
    if args.candidate is not None:
        print(json.dumps(measure(chosen[args.candidate])))
        sys.exit()
    path, columns = args.reports / f"{module}.csv", COLUMNS + ["device"] * bool(devices)
    rows = [_row(module, args.size, i, c) if args.only in f"{c.name}, {c.size}"
            and (not devices or c.size.device == args.device)
            else _earlier(path, c) for i, c in enumerate(chosen)]
    table = pd.DataFrame([row for row in rows if row], columns=columns)
    write_csv(path, table)
    shown = table.dropna(subset="seconds")
    print(to_markdown(shown.round({"seconds": 3, "ratio_to_floor": 2, "peak_mb": 0})), flush=True)
    return table, args.reports


def measure(candidate: Candidate) -> dict:
    """The candidate's row: median seconds, median ratio to the floors around it, peak in MB."""
    tiny = candidate.size.tiny().make()
    if not candidate.agrees(candidate.prepare(*tiny)(), *tiny):
        raise AssertionError(f"{candidate.name} gives another result than expected")
    data = candidate.size.make()
    _give_back_memory()
    floor = candidate.size.floor(*data)
    floor()
    floors = [_seconds(floor)]
    _give_back_memory()
    peak = candidate.size.watch_memory()
    run = candidate.prepare(*data)
    seconds = [_seconds(run) / candidate.steps]
    peak_mb = peak.stop()
    floors.append(_seconds(floor))
    if candidate.repeats > 1:
        seconds = []
        for _ in range(candidate.repeats):
            seconds.append(_seconds(run) / candidate.steps)
            floors.append(_seconds(floor))
    around = pairwise(floors[-len(seconds) - 1:])  # the floors just before and after each run
    ratio = median(2 * s / sum(pair) for s, pair in zip(seconds, around, strict=True))
    if candidate.name.startswith("floor"):
        ratio = 1.0
    return {"name": candidate.name, "size": str(candidate.size), "seconds": median(seconds),
            "ratio_to_floor": ratio, "peak_mb": peak_mb, "threads": THREADS,
            "versions": "; ".join(f"{p} {importlib.metadata.version(p)}"
                                  for p in candidate.packages), "device": candidate.size.device}


class PeakMemory:
    """Most memory that was resident above that when this was made, MB; NaN without /proc.

    The kernel's own high-water mark where it can be reset, else a look every 2 ms.
    """

    def __init__(self):
        self.seen, self.over, self.watcher = [resident_mb()], Event(), None
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self.watcher = Thread(target=self._watch)
            self.watcher.start()

    def stop(self) -> float:
        if self.watcher is None:
            return resident_mb("VmHWM") - self.seen[0]
        self.over.set()
        self.watcher.join()
        return max(self.seen) - self.seen[0]

    def _watch(self) -> None:
        while not self.over.wait(0.002):
            self.seen.append(resident_mb())


def resident_mb(field: str = "VmRSS") -> float:
    """This process's memory now, or its high-water mark ``VmHWM``."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field)), math.nan)


def _give_back_memory() -> None:
    """What is freed but kept for reuse would hide as much of the next run's memory."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim:  # glibc
        trim(0)


def _seconds(run: Callable[[], object]) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start


def _embed(rng: np.random.Generator, name: str, ids: np.ndarray, centres: np.ndarray,
           size: Size) -> Embeddings:
    emb = rng.standard_normal((len(ids), size.dim), np.float32)
    emb *= NOISE
    for start in range(0, len(ids), 4096):  # no second array as large as the features
        rows, own = emb[start:start + 4096], ids[start:start + 4096]
        rows[own >= 0] += centres[own[own >= 0]]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    paths = np.array([f"{name}-{i}" for i in range(len(ids))])
    cams = rng.integers(1, size.cameras + 1, len(ids)).astype(str)
    names = np.where(ids < 0, "0000", (ids + 1).astype(str))
    return Embeddings(emb, emb, paths, names, cams, paths)


def _earlier(path: Path, candidate: Candidate) -> dict:
    """A row that is not measured now: as it stands in the table so far, else empty."""
    key = {"name": candidate.name, "size": str(candidate.size), "device": candidate.size.device}
    if path.is_file():
        table = pd.read_csv(path)
        key = {name: value for name, value in key.items() if name in table}
        found = table[(table[list(key)] == list(key.values())).all(axis=1)]
        if len(found):
            return found.iloc[0].to_dict()
    return key


def _row(module: str, size: str, index: int, candidate: Candidate) -> dict | None:
    """The candidate's row; None, with the reason printed, where a peer cannot be measured."""
    missing = [name for name in candidate.packages if not _installed(name)]
    if missing:
        print(f"left out: {candidate.name}: {', '.join(missing)} is not installed "
              "(pip install -e '.[bench]')", flush=True)
        return None
    done = _in_own_process(module, size, index)
    if done.returncode == 0:
        row = json.loads(done.stdout.splitlines()[-1])
        print(f"{row['seconds']:9.3f} s  {row['name']}, {row['size']}", flush=True)
        return row
    reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    if candidate.name.startswith(("floor", "reidlib")):
        raise RuntimeError(f"{candidate.name}: {reason}\n{done.stderr}")
    print(f"left out: {candidate.name}: {reason}", flush=True)
    return None


def _in_own_process(module: str, size: str, index: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", "--size", size,
               "--candidate", str(index)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def _installed(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False
