"""A run's saved embeddings -> scores -> its record."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from reidlib.data.manifest import Dataset
from reidlib.evaluation.aligned import aligned, embed_stripes
from reidlib.evaluation.embeddings import Embeddings
from reidlib.evaluation.match_ranks import RERANKING, cosine
from reidlib.evaluation.protocols import PROTOCOLS, Protocol
from reidlib.evaluation.scoring import evaluate, score_similarity, true_positive_rates
from reidlib.experiments.config import TrainConfig
from reidlib.experiments.presets import RESULT_ROWS
from reidlib.experiments.records import write_run
from reidlib.experiments.study import Study
from reidlib.models.aligned_reid import AlignedReID
from reidlib.utils.paths import atomic_write

RULES = {"protocols": [asdict(protocol) for protocol in PROTOCOLS.values()],
         "reranking": dict(zip(("k1", "k2", "lambda"), RERANKING, strict=True))}
RERANKED_FLIPS = tuple(dict.fromkeys(v.flip for v in RESULT_ROWS if v.reranked))


def same_rules(record: dict) -> bool:
    """Was this run scored by today's rules, as far as it has protocols of today?"""
    try:
        then = {rules["name"]: Protocol(**rules) for rules in record["protocols"]}
    except (LookupError, TypeError):
        return False
    return (record.get("reranking") == RULES["reranking"] and not then.keys().isdisjoint(PROTOCOLS)
            and all(PROTOCOLS.get(name, rules) == rules for name, rules in then.items()))


def lacking(record: dict, study: Study) -> list[str]:
    """The flips and protocols that the study names, and the run was not scored with."""
    protocols = () if study.folds else study.protocols
    has = {score[key] for score in record["scores"] for key in ("flip", "protocol")}
    return [name for name in (*study.flips, *protocols) if name not in has]


@contextmanager
def damaged(folder: Path) -> Iterator[None]:
    """Within it, errors of reading a run's weights and embeddings say what to do."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}. Delete {folder}: then the run is trained again, and a record "
                         "among the reports stays") from error


def embeddings_in(folder: Path) -> tuple[Embeddings, Embeddings]:
    """A run's query and gallery embeddings; ValueError where they are damaged."""
    with damaged(folder):
        return Embeddings.load(folder / "query.npz"), Embeddings.load(folder / "gallery.npz")


def save_stripes(model: AlignedReID, images: Tensor, folder: Path, split: str) -> None:
    """Keep the local features of a run's images, for scoring by them too."""
    with (atomic_write(folder / f"{split}-stripes.npy") as partial, partial.open("wb") as file):
        np.save(file, embed_stripes(model, images))


def score_run(folder: Path, config: TrainConfig, study: Study, dataset: Dataset, cost: dict,
              device: torch.device) -> None:
    """Score a run's saved embeddings and write its record, which says that it is finished.

    AlignedReID is scored twice: by its global feature, and, in rows whose column ``local`` is true,
    by global and local distance together.
    """
    query, gallery = embeddings_in(folder)
    protocols = ("standard-all",) if study.folds else study.protocols or tuple(PROTOCOLS)
    tables = evaluate(query, gallery, study.flips, protocols,
                      [flip for flip in RERANKED_FLIPS if flip in study.flips],
                      device if device.type == "cuda" else None)
    if config.model == "aligned-reid" and not study.folds:
        similarity = aligned(query, gallery, *_stripes_in(folder))
        key = {"flip": "none", "reranked": False, "alone": False, "local": True}
        local = score_similarity(query, gallery, similarity, protocols, key)
        tables = [pd.concat([a.assign(local=False), b], ignore_index=True)
                  for a, b in zip(tables, local, strict=True)]
    scores, per_query, cmc = tables
    rates = [true_positive_rates(query, gallery, cosine(query, gallery, flip)).assign(flip=flip)
             for flip in study.flips]
    write_run(folder, {
        "run_id": config.run_id, "study": study.name, "preset": config.preset,
        "seed": config.seed, "config": asdict(config),
        "fingerprint": config.fingerprint(dataset.checksum),
        "data": {"name": dataset.name, "checksum": dataset.checksum,
                 "counts": dataset.counts().to_dict("index")},
        **RULES, "cost": cost,
        "scores": scores.astype(object).where(scores.notna(), None).to_dict("records"),
        "verification": pd.concat(rates).to_dict("records"),
    }, {"per_query": per_query, "cmc": cmc})


def _stripes_in(folder: Path) -> list[np.ndarray]:
    with damaged(folder):
        return [np.load(folder / f"{split}-stripes.npy") for split in ("query", "gallery")]
