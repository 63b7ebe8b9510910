"""Images of other people added to the gallery: how fast do the scores of finished runs fall?"""

import time
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from reidlib.data.datasets import origin, read_dataset
from reidlib.data.images import decode
from reidlib.data.manifest import Dataset
from reidlib.evaluation.embeddings import Embeddings, embed_people, join, pool
from reidlib.evaluation.protocols import get_protocol
from reidlib.evaluation.scoring import evaluate
from reidlib.experiments.presets import ResultRow
from reidlib.experiments.records import read_run, write_run
from reidlib.experiments.runner import Experiment
from reidlib.utils import reproducibility
from reidlib.utils.console import log, progress_bar
from reidlib.utils.paths import Workspace

SIZES = (0, 1_000)  # distractors; then all of them
BLOCK = 512         # images decoded at a time: 77 MB at 224 pixels


def distractor_images(name: str) -> Dataset:
    """The people of a data set that the study is not about: its training images."""
    try:
        found = read_dataset(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. The distractors are images of {name}; without them "
                                "the report leaves that section out") from error
    all_cut = found.name == "market1501-dev"  # all of it is cut from the training folder
    people = found.manifest if all_cut else found.manifest[found.manifest["split"] == "train"]
    return Dataset(found.name, found.root, people.assign(id=f"{found.name} " + people["id"])
                   .reset_index(drop=True))


def score(query: Embeddings, gallery: Embeddings, others: Embeddings, flip: str) -> pd.DataFrame:
    """Per-query scores under ``standard`` of every test image, with more and more distractors.

    The column ``distractors`` counts them; a smaller set is part of the larger ones.
    """
    queries, images = pool(query, gallery)
    order = np.random.default_rng(0).permutation(len(others.ids))
    tables = []
    for size in sorted({*(s for s in SIZES if s < len(order)), len(order)}):
        joined = join((images, others.take(np.sort(order[:size]))))
        _, table, _ = evaluate(queries, joined, (flip,), ("standard",), ())
        tables.append(table.assign(distractors=size))
    return pd.concat(tables, ignore_index=True)


def embed_distractors(model: nn.Module, people: Dataset, name: str, mirrors: bool = True
                      ) -> Embeddings:
    """Their embeddings, block by block: nothing else is kept."""
    starts, size = range(0, len(people.manifest), BLOCK), model.image_size
    done = []
    for start in progress_bar(starts, len(starts), name, "block", least=2):
        rows = people.manifest[start:start + BLOCK]
        images = np.stack(list(decode(people.root, rows, size)))
        done.append(embed_people(model, torch.from_numpy(images), rows, mirrors))
    return join(done)


def run(lab: Experiment, people: Dataset, model: ResultRow, seed: int) -> dict:
    """The record of one run with these distractors; found again where it is there already.

    The run is trained now if it is not finished. Raises ValueError for distractors of its own data.
    """
    own = lab.dataset
    if people.root == own.root or "" != origin(people.name) == origin(own.name):
        raise ValueError(f"distractors from {people.name} are the people that study "
                         f"{lab.study.name!r} is about ({own.name}); choose another data set")
    config = lab.study.config(model.preset, seed)
    run_id, folder = config.run_id, lab.workspace.reports / "distractors" / config.run_id
    key = {"run_id": run_id, "preset": model.preset, "seed": seed, "flip": model.flip,
           "fingerprint": config.fingerprint(lab.dataset.checksum),
           "protocol": asdict(get_protocol("standard")), "sizes": list(SIZES),
           "distractors": {"name": people.name, "checksum": people.checksum,
                           "images": len(people.manifest),
                           "identities": people.manifest["id"].nunique()}}
    if (folder / "run.json").is_file() and key.items() <= (found := read_run(folder)).items():
        log(f"{run_id}: scored with these distractors before")
        return found
    lab.run(model.preset, seed)
    lab.train_missing_weights([model.preset], seed)
    start = time.perf_counter()
    trained = lab.model(model.preset, seed).to(lab.device)
    sides = [side if model.flip != "none" else replace(side, mirrored=side.mirrored[:, :0])
             for side in lab.embeddings(model.preset, seed)]
    others = embed_distractors(trained, people, f"{run_id}: distractors", model.flip != "none")
    table = score(*sides, others, model.flip)
    cost = {"seconds": time.perf_counter() - start, **reproducibility.provenance(lab.device)}
    write_run(folder, {**key, "cost": cost}, {"per_query": table})
    means = table.groupby("distractors")["AP"].mean()
    log(f"{run_id}: standard-all mAP " + ", ".join(f"{value:.3f} with {size} distractors"
                                                   for size, value in means.items()))
    return read_run(folder)


def run_all(workspace: Workspace, images: str, device: str = "auto") -> None:
    """Score the models that are compared everywhere, in the study's first seed."""
    lab = Experiment(workspace, device)
    people = distractor_images(images)
    for model in lab.compared():
        run(lab, people, model, lab.study.seeds[0])
