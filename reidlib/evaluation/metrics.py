"""Ranks of the matches -> AP, CMC, INP, in closed form, all queries at once.

``ranks`` holds the ranks (from 1, ascending) of each query's matches, one query after the other;
``counts`` says how many each query has, at least one. Whatever a protocol drops has been dropped
before. Values are fractions in [0, 1], one a query.
"""

import numpy as np

from reidlib.utils.errors import check_choice

VALUES = ("AP", "INP", "first_hit", "rank1", "rank5", "rank10")  # of one query, in tables


def average_precision(ranks: np.ndarray, counts: np.ndarray, rule: str = "rectangle"
                      ) -> np.ndarray:
    """Area under the precision-recall curve of the full ranking.

    ``rectangle``: mean of the precision at each match (scikit-learn, torchreid). ``trapezoid``:
    mean over the matches of the precisions just before and at it, the curve starting at 1 (the
    original Market-1501 script, Zheng et al. 2015).
    """
    check_choice("rule", rule, ("rectangle", "trapezoid"))
    found = _found(ranks, counts)
    precision = found / ranks
    if rule == "trapezoid":
        before = np.where(ranks > 1, (found - 1) / np.maximum(ranks - 1, 1), 1.0)
        precision = (before + precision) / 2
    return np.add.reduceat(precision, _starts(counts)) / counts


def average_precision_at(ranks: np.ndarray, counts: np.ndarray, depth: int) -> np.ndarray:
    """Mean of the precision at each match among the ``depth`` nearest; 0 where there is none.

    The public LA-Transformer test code: a match that was missed costs nothing.
    """
    seen = ranks <= depth
    precision = np.where(seen, _found(ranks, counts) / ranks, 0.0)
    starts = _starts(counts)
    n_seen = np.add.reduceat(seen.astype(np.int64), starts)
    return np.add.reduceat(precision, starts) / np.maximum(n_seen, 1)


def first_match(ranks: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Rank of the first match; rank-k is the share of queries where it is at most k."""
    _found(ranks, counts)
    return ranks[_starts(counts)]


def inverse_negative_penalty(ranks: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Number of matches / rank of the last one (Ye et al. 2021, arXiv:2001.04193, eq. 7)."""
    _found(ranks, counts)
    return counts / ranks[np.cumsum(counts) - 1]


def cmc(first: np.ndarray, length: int) -> np.ndarray:
    """Share of queries whose first match is at rank <= 1..length."""
    return (np.sort(first).searchsorted(np.arange(1, length + 1), "right")) / len(first)


def count_up(counts: np.ndarray) -> np.ndarray:
    """1, 2, ... within each query, one query after the other."""
    return np.arange(1, counts.sum() + 1) - np.repeat(_starts(counts), counts)


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.cumsum(counts) - counts


def _found(ranks: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How many of its query's matches have been found at each match; checks the two arrays."""
    if not len(counts) or counts.min() < 1:
        raise ValueError("a query without a match has no score; leave it out before scoring")
    if counts.sum() != len(ranks):
        raise ValueError(f"counts add up to {counts.sum()}, but there are {len(ranks)} ranks")
    return count_up(counts)
