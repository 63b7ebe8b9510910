"""Measure candidates one process each, next to the floor: the plain query x gallery product.

A candidate's process draws the features, runs the candidate once with the peak of its memory
watched (that is the warm-up too), then times floor and candidate in turn, so that a busy machine
slows both. Peak memory is what is resident at most, the candidate's results included, above what
was resident with the features drawn and all packages loaded.
"""

import argparse
import ctypes
import importlib.metadata
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from threading import Event, Thread
from time import perf_counter

import numpy as np
import pandas as pd

from reidlib.paths import ROOT
from reidlib.results import to_markdown, write_csv
from reidlib.retrieval import Embedded

COLUMNS = ["name", "size", "seconds", "ratio_to_floor", "peak_mb", "threads", "versions"]
REPORTS = ROOT / "reports" / "bench"
NOISE = 2.4       # a person's features: a centre plus noise of this size, then of length 1
STRANGERS = 6     # one of so many gallery images shows a person of no query
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@dataclass(frozen=True)
class Size:
    query: int
    gallery: int
    dim: int = 768
    people: int = 750
    cameras: int = 6

    def __str__(self) -> str:
        return f"{self.query} x {self.gallery} x {self.dim}"


MARKET = Size(3368, 15913)                             # as many images as Market-1501
TINY = Size(30, 200, dim=32, people=10, cameras=3)     # where candidates show that they agree


@dataclass(frozen=True)
class Candidate:
    """One row. ``prepare(query, gallery)`` returns what is timed; its memory counts as well.

    ``agrees(result, query, gallery)`` is asked at size ``TINY`` before anything is measured.
    With one ``repeat`` the first run is the measured one.
    """

    name: str
    size: Size
    prepare: Callable[[Embedded, Embedded], Callable[[], object]]
    agrees: Callable[[object, Embedded, Embedded], bool]
    packages: tuple[str, ...] = ("numpy",)
    repeats: int = 5


def floor_at(size: Size) -> Candidate:
    """The product itself, on the same terms as what is compared with it."""
    return Candidate("floor query x gallery product", size, _product,
                     lambda product, query, gallery: product.shape == (TINY.query, TINY.gallery))


def make_pair(size: Size, seed: int = 0) -> tuple[Embedded, Embedded]:
    """Seeded query and gallery: float32 features of people under cameras, and of strangers."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((size.people, size.dim), np.float32)
    query_ids = rng.integers(0, size.people, size.query)
    gallery_ids = rng.integers(0, size.people, size.gallery)
    gallery_ids[rng.random(size.gallery) < 1 / STRANGERS] = -1
    return (_embed(rng, "query", query_ids, centres, size),
            _embed(rng, "gallery", gallery_ids, centres, size))


def main(module: str, candidates: dict[str, list[Candidate]]) -> tuple[pd.DataFrame, Path]:
    """Command line of a benchmark: measure all candidates of a size, print and write the table.

    Returns the table and the folder that holds its ``<module>.csv``.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}")
    parser.add_argument("--size", choices=list(candidates), default="full")
    parser.add_argument("--reports", type=Path, default=REPORTS, help="folder of the tables")
    parser.add_argument("--candidate", type=int, help="measure only this one, print JSON")
    args = parser.parse_args()
    chosen = candidates[args.size]
    if args.candidate is not None:
        print(json.dumps(measure(chosen[args.candidate])))
        sys.exit()
    rows = [_row(module, args.size, i, c) for i, c in enumerate(chosen)]
    table = pd.DataFrame([row for row in rows if row], columns=COLUMNS)
    write_csv(args.reports / f"{module}.csv", table)
    print(to_markdown(table.round({"seconds": 3, "ratio_to_floor": 2, "peak_mb": 0})), flush=True)
    return table, args.reports


def measure(candidate: Candidate) -> dict:
    """The candidate's row: median seconds, median ratio to the floors around it, peak in MB."""
    tiny = make_pair(TINY)
    if not candidate.agrees(candidate.prepare(*tiny)(), *tiny):
        raise AssertionError(f"{candidate.name} gives another result than expected")
    query, gallery = make_pair(candidate.size)
    _give_back_memory()
    floor, features_mb = _product(query, gallery), resident_mb()
    floor()
    floors = [_seconds(floor)]
    _give_back_memory()
    peak = PeakMemory()
    run = candidate.prepare(query, gallery)
    seconds, peak_mb = [_seconds(run)], peak.stop() - features_mb
    floors.append(_seconds(floor))
    if candidate.repeats > 1:
        seconds = []
        for _ in range(candidate.repeats):
            seconds.append(_seconds(run))
            floors.append(_seconds(floor))
    around = pairwise(floors[-len(seconds) - 1:])  # the floors just before and after each run
    ratio = median(2 * s / sum(pair) for s, pair in zip(seconds, around, strict=True))
    if candidate.name.startswith("floor"):
        ratio = 1.0
    return {"name": candidate.name, "size": str(candidate.size), "seconds": median(seconds),
            "ratio_to_floor": ratio, "peak_mb": peak_mb, "threads": THREADS,
            "versions": "; ".join(f"{p} {importlib.metadata.version(p)}"
                                  for p in candidate.packages)}


class PeakMemory:
    """Most memory that was resident since this was made, in MB; NaN where there is no /proc.

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
            return resident_mb("VmHWM")
        self.over.set()
        self.watcher.join()
        return max(self.seen)

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


def _product(query: Embedded, gallery: Embedded) -> Callable[[], np.ndarray]:
    return lambda: query.emb @ gallery.emb.T


def _embed(rng: np.random.Generator, name: str, ids: np.ndarray, centres: np.ndarray,
           size: Size) -> Embedded:
    emb = rng.standard_normal((len(ids), size.dim), np.float32)
    emb *= NOISE
    for start in range(0, len(ids), 4096):  # no second array as large as the features
        rows, own = emb[start:start + 4096], ids[start:start + 4096]
        rows[own >= 0] += centres[own[own >= 0]]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    paths = np.array([f"{name}-{i}" for i in range(len(ids))])
    cams = rng.integers(1, size.cameras + 1, len(ids)).astype(str)
    return Embedded(emb, emb, paths, np.where(ids < 0, "0000", (ids + 1).astype(str)), cams, paths)


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
    command = [sys.executable, "-m", f"benchmarks.{module}", "--size", size,
               "--candidate", str(index)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def _installed(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False
