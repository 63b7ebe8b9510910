"""All scores of a full ranking: reidlib, NumPy's argsort and other packages, next to the floor.

What a candidate returns is its mAP. torchmetrics and pytorch-metric-learning have no camera rule:
they count every gallery image, which is our protocol all-gallery. torchmetrics also drops scores
<= 0, so that similarities are shifted for it.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from reidlib.evaluation.embeddings import Embeddings
from reidlib.evaluation.match_ranks import cosine, find_matches
from reidlib.evaluation.protocols import PROTOCOLS
from reidlib.evaluation.scoring import score_queries, summarise_queries
from tests.benchmarks.measure import MARKET, TINY, Candidate, Size, floor_at, main

BATCH = 256  # queries that a peer is given at a time
SAME = [name for name, rules in PROTOCOLS.items() if not rules.every_image]  # pairs measured here
FULL = [name for name in SAME if PROTOCOLS[name].draws is None]
Score = Callable[[Embeddings, Embeddings], float]


def score_all(query: Embeddings, gallery: Embeddings, *protocols: str) -> list[float]:
    """reidlib: mAP, mINP, rank-k of each protocol from one pass; the mAPs are returned."""
    n_draws = max(PROTOCOLS[name].draws or 0 for name in protocols)
    matches = find_matches(query, gallery, cosine(query, gallery), n_draws)
    return [summarise_queries(score_queries(query, matches, p), p)["mAP"] for p in protocols]


def argsort_map(query: Embeddings, gallery: Embeddings) -> float:
    """The usual NumPy code: one product, then query by query an argsort, protocol standard."""
    similarity, found = query.emb @ gallery.emb.T, []
    for i, row in enumerate(similarity):
        order = np.argsort(-row)
        same = gallery.ids[order] == query.ids[i]
        hits = same[~(same & (gallery.cams[order] == query.cams[i]))]
        if hits.any():
            ranks = np.flatnonzero(hits) + 1
            found.append((np.arange(1, len(ranks) + 1) / ranks).mean())
    return float(np.mean(found))


def torchmetrics_map(query: Embeddings, gallery: Embeddings) -> float:
    from torchmetrics.retrieval import RetrievalMAP
    metric = RetrievalMAP(empty_target_action="skip")
    ids = _whole_numbers(query, gallery)
    features = [torch.from_numpy(side.emb) for side in (query, gallery)]
    for rows in torch.arange(len(query.ids)).split(BATCH):
        scores = features[0][rows] @ features[1].T + 2
        same = ids[0][rows, None] == ids[1][None, :]
        metric.update(scores.ravel(), same.ravel(), rows.repeat_interleave(len(ids[1])))
    return float(metric.compute())


def pml_map(query: Embeddings, gallery: Embeddings) -> float:
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN
    calculator = AccuracyCalculator(  # its own search and clustering would ask for faiss
        include=("mean_average_precision",), k=len(gallery.ids), device=torch.device("cpu"),
        knn_func=CustomKNN(CosineSimilarity(), batch_size=BATCH), kmeans_func=lambda: None)
    features = [torch.from_numpy(side.emb) for side in (query, gallery)]
    ids = _whole_numbers(query, gallery)
    found = calculator.get_accuracy(features[0], ids[0], features[1], ids[1])
    return found["mean_average_precision"]


def _whole_numbers(query: Embeddings, gallery: Embeddings) -> tuple[torch.Tensor, torch.Tensor]:
    codes, _ = pd.factorize(np.concatenate([query.ids, gallery.ids]).astype(object))
    codes = torch.from_numpy(codes)
    return codes[:len(query.ids)], codes[len(query.ids):]


def _reidlib(name: str, size: Size, *protocols: str) -> Candidate:
    def agrees(found: list[float], query: Embeddings, gallery: Embeddings) -> bool:
        return abs(found[0] - argsort_map(query, gallery)) < 1e-6  # the first is standard

    return Candidate(f"reidlib {name}", size, lambda query, gallery: lambda: score_all(
        query, gallery, *protocols), agrees, ("numpy", "pandas", "torch"))


def _peer(name: str, size: Size, score: Score, protocol: str, packages: tuple[str, ...],
          repeats: int = 5) -> Candidate:
    rule = protocol if protocol == "standard" else f"{protocol}: no camera rule"
    rule += "; 1 run" * (repeats == 1)

    def agrees(found: float, query: Embeddings, gallery: Embeddings) -> bool:
        return abs(found - score_all(query, gallery, protocol)[0]) < 1e-5

    return Candidate(f"{name} ({rule})", size, lambda query, gallery: lambda: score(
        query, gallery), agrees, packages, repeats)


def candidates(size: Size) -> list[Candidate]:
    return [
        floor_at(size),
        _reidlib("standard", size, "standard"),
        _reidlib(f"all {len(FULL)} protocols of the whole gallery", size, *FULL),
        _reidlib(f"all {len(SAME)} protocols, single-shot too", size, *SAME),
        _peer("numpy argsort per query", size, argsort_map, "standard", ("numpy",)),
        _peer("torchmetrics RetrievalMAP", size, torchmetrics_map, "all-gallery",
              ("torchmetrics", "torch"), 1),
        _peer("pytorch-metric-learning AccuracyCalculator", size, pml_map, "all-gallery",
              ("pytorch-metric-learning", "torch"), 1)]


if __name__ == "__main__":
    main("evaluation", {"full": candidates(MARKET), "small": candidates(TINY)})
