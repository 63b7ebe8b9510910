"""Ranked hits -> AP, CMC, mINP: NumPy only, one query at a time, one definition a function.

``hits`` is a query's ranking, nearest first: True where the gallery image shows the same person.
Whatever a protocol drops has been dropped before. Values are fractions in [0, 1].
"""

import numpy as np


def average_precision(hits: np.ndarray, rule: str = "rectangle") -> float:
    """Area under the precision-recall curve of one query's full ranking.

    ``rectangle``: mean of the precision at each hit (scikit-learn, torchreid). ``trapezoid``: mean
    over the hits of the precisions just before and at the hit, the curve starting at 1 (the
    original Market-1501 script, Zheng et al. 2015).
    """
    ranks = hit_ranks(hits)
    found = np.arange(1, len(ranks) + 1)
    at = found / ranks
    if rule == "rectangle":
        return float(at.mean())
    if rule != "trapezoid":
        raise ValueError(f"unknown rule {rule!r}; known: rectangle, trapezoid")
    before = np.where(ranks > 1, (found - 1) / np.maximum(ranks - 1, 1), 1.0)
    return float((before + at).mean() / 2)


def average_precision_at(hits: np.ndarray, depth: int) -> float:
    """Precision at each hit among the ``depth`` nearest, divided by the hits found there; else 0.

    The public LA-Transformer test code: a match that was missed costs nothing.
    """
    hit_ranks(hits)
    nearest = hits[:depth]
    return average_precision(nearest) if nearest.any() else 0.0


def first_hit(hits: np.ndarray) -> int:
    """Rank of the first hit, from 1; rank-k is the share of queries where this is at most k."""
    return int(hit_ranks(hits)[0])


def inverse_negative_penalty(hits: np.ndarray) -> float:
    """Number of hits / rank of the last one (Ye et al. 2021, arXiv:2001.04193, eq. 7)."""
    ranks = hit_ranks(hits)
    return float(len(ranks) / ranks[-1])


def cmc(first_hits: np.ndarray, length: int) -> np.ndarray:
    """Share of queries whose first hit is at rank <= 1..length, from their first-hit ranks."""
    return (np.asarray(first_hits)[:, None] <= np.arange(1, length + 1)).mean(0)


def hit_ranks(hits: np.ndarray) -> np.ndarray:
    """Ranks of the hits, from 1. A ranking without one is an error: such a query is not scored."""
    hits = np.asarray(hits)
    if hits.dtype != bool or hits.ndim != 1:
        raise ValueError(f"hits must be one row of booleans, got {hits.dtype} {hits.shape}")
    ranks = np.flatnonzero(hits) + 1
    if not len(ranks):
        raise ValueError("query has no relevant gallery image; drop it before scoring")
    return ranks
