"""Strangers in the gallery: how fast do the scores of finished runs fall?"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from reidlib import models, repro
from reidlib.config import MODELS, Variant
from reidlib.experiment import Experiment
from reidlib.images import decode
from reidlib.manifest import Dataset
from reidlib.paths import ROOT, Workspace
from reidlib.progress import bar, say
from reidlib.protocols import get_protocol
from reidlib.readers import read_dataset
from reidlib.results import read_run, write_run
from reidlib.retrieval import Embedded, embed_people, join, pool
from reidlib.scoring import evaluate
from reidlib.studies import load_study

SIZES = (0, 1_000)  # strangers; then all of them
BLOCK = 512         # images decoded at a time: 77 MB at 224 pixels


def strangers(name: str) -> Dataset:
    """The people of a data set that the study is not about: its training images."""
    try:
        found = read_dataset(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. The strangers of a crowd are of {name}; without them "
                                "the report leaves that section out") from error
    everybody = found.name == "market1501-dev"  # cut from the training folder as a whole
    people = found.manifest if everybody else found.manifest[found.manifest["split"] == "train"]
    return Dataset(found.name, found.root, people.assign(id=f"{found.name} " + people["id"])
                   .reset_index(drop=True))


def score(query: Embedded, gallery: Embedded, crowd: Embedded, flip: str) -> pd.DataFrame:
    """Per-query scores under ``standard`` of every test image, against more and more strangers.

    The column ``strangers`` counts them; fewer ones are among the more ones.
    """
    queries, everybody = pool(query, gallery)
    order = np.random.default_rng(0).permutation(len(crowd.ids))
    tables = []
    for size in sorted({*(s for s in SIZES if s < len(order)), len(order)}):
        joined = join((everybody, crowd.take(np.sort(order[:size]))))
        _, table, _ = evaluate(queries, joined, (flip,), ("standard",), ())
        tables.append(table.assign(strangers=size))
    return pd.concat(tables, ignore_index=True)


def embed_strangers(model: nn.Module, people: Dataset, name: str) -> Embedded:
    """Their embeddings, block by block: nothing but them is kept."""
    starts, size = range(0, len(people.manifest), BLOCK), model.image_size[0]
    done = []
    for start in bar(starts, len(starts), name, "block", least=2):
        rows = people.manifest[start:start + BLOCK]
        images = np.empty((len(rows), 3, size, size), np.uint8)
        decode(people.root, rows["path"].tolist(), images)
        done.append(embed_people(model, torch.from_numpy(images), rows))
    return join(done)


def run(lab: Experiment, people: Dataset, model: Variant, seed: int) -> dict:
    """The record of one run before this crowd; found again where it is there already.

    The run is trained now if it is not finished. Raises ValueError for a crowd of its own data.
    """
    if people.root == lab.dataset.root:
        raise ValueError(f"strangers from {people.name}, but study {lab.study.name!r} was trained "
                         "on it; choose another data set")
    config = lab.study.config(model.preset, seed)
    run_id, folder = config.run_id, lab.workspace.reports / "crowd" / config.run_id
    key = {"run_id": run_id, "preset": model.preset, "seed": seed, "flip": model.flip,
           "fingerprint": config.fingerprint(lab.dataset.checksum),
           "protocol": asdict(get_protocol("standard")), "sizes": list(SIZES),
           "strangers": {"name": people.name, "checksum": people.checksum,
                         "images": len(people.manifest),
                         "identities": people.manifest["id"].nunique()}}
    if (folder / "run.json").is_file() and key.items() <= (found := read_run(folder)).items():
        say(f"{run_id}: its crowd was there before")
        return found
    lab.run(model.preset, seed)
    start = time.perf_counter()
    trained = models.load(lab.weights(model.preset, seed, "04_ablations")).to(lab.device)
    crowd = embed_strangers(trained, people, f"{run_id}: strangers")
    table = score(*lab.embeddings(model.preset, seed, "04_ablations"), crowd, model.flip)
    cost = {"seconds": time.perf_counter() - start, **repro.provenance(lab.device)}
    write_run(folder, {**key, "cost": cost}, {"per_query": table})
    means = table.groupby("strangers")["AP"].mean()
    say(f"{run_id}: standard mAP " + ", ".join(f"{value:.3f} with {size} strangers"
                                               for size, value in means.items()))
    return read_run(folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: the models that are compared everywhere, in a study's first seed."""
    parser = argparse.ArgumentParser(prog="python -m reidlib.crowd", description=__doc__)
    parser.add_argument("--study", required=True, help="a file of notebooks/params, without .yaml; "
                        "its notebook 01_data has been run")
    parser.add_argument("--strangers", default="market1501", help="data set whose training images "
                        "are added (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--workspace", type=Path, default=ROOT, help="default: this repository")
    args = parser.parse_args(argv)
    try:
        load_study(args.study)
        lab = Experiment(Workspace(args.study, args.workspace.resolve()), args.device)
        people = strangers(args.strangers)
        for model in MODELS:
            run(lab, people, model, lab.study.seeds[0])
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130  # as shells have it; training has said how to go on
    return 0


if __name__ == "__main__":
    sys.exit(main())
