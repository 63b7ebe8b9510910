"""Re-ranking by k-reciprocal encoding: two images are near if they share their mutual neighbours.

Zhong et al. 2017, "Re-ranking person re-identification with k-reciprocal encoding"
(arXiv:1701.08398). With p, g any of the q + g images as features of length 1, and as in the
authors' code where it differs from the paper:

- original distance d(p, g) = |p - g|^2 / max over all images x of |p - x|^2: squared Euclidean
  divided by the largest of *p's own* row, so d(p, g) and d(g, p) differ;
- N(p, k): the k + 1 nearest of all images, p itself among them; at equal distance the image that
  comes first, queries before gallery (k + 1 exact copies before p push it out of its own list);
- R(p, k): those of N(p, k) that have p in their own N (eq. 2);
- R*(p): R(p, k1) and every R(c, k1/2), c in R(p, k1), of which strictly more than 2/3 lies in
  R(p, k1) (eq. 4: at least 2/3; k1/2 is rounded, halves to even);
- V(p): exp(-d(p, g)) for g in R*(p), else 0 (eq. 7), divided by its sum; then the mean of V over
  p's k2 nearest images, p counted (eq. 11; not done if k2 is 1);
- Jaccard distance 1 - s / (2 - s), s the sum over images of the smaller of V(p), V(g) (eq. 10);
- result (1 - weight) * Jaccard + weight * d, d by the query's row (eq. 12).

All images by all images is looked at a block of rows at a time, or kept sparse.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from reidlib.evaluation.embeddings import check_features

N_THREADS = min(4, os.cpu_count() or 1)
SEARCH_ROWS, EXACT_ROWS, PAIRS, JACCARD_ROWS = 256, 32, 4096, 16  # a block: about 40 MB at most
RESOLUTION = np.float32(1e-6)  # squared distances below are rounding, whatever they say


def rerank(query: np.ndarray, gallery: np.ndarray, k1: int = 20, k2: int = 6,
           weight: float | int = 0.3) -> np.ndarray:
    """Distances after k-reciprocal re-ranking, smaller is nearer; definition: top of this file.

    Features ``query`` (q, dim) and ``gallery`` (g, dim) are scaled to length 1 here; 1 <= ``k1`` <
    q + g, 1 <= ``k2`` <= k1, and ``weight``, the paper's lambda, is in [0, 1]. Returns (q, g)
    float32 in [0, 1], no unit, the same for the same input. Memory grows with q * g.

    Raises:
        ValueError: widths differ, a side is empty, a feature is zero or not finite, a bad number.
    """
    check_features(query, gallery)
    if not 1 <= k1 < len(query) + len(gallery):
        raise ValueError(f"k1 must be at least 1 and less than the {len(query)} query and "
                         f"{len(gallery)} gallery images together, found {k1}: change k1")
    if not 1 <= k2 <= k1:
        raise ValueError(f"k2 must be from 1 to k1 = {k1}, found {k2}")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight of the original distance must be in [0, 1], found {weight}")
    unit = _unit_length(query, gallery)
    with threadpool_limits(1, "blas"):  # our own threads share the cores
        nearest, farthest, distance = _search(unit, len(query), k1 + 1)
        encoding = _encode(unit, nearest, farthest)
        if k2 > 1:
            encoding = _indicator(nearest[:, :k2]) @ encoding / k2
        _blend_jaccard(distance, encoding, weight)
    return distance


def _unit_length(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Queries, then gallery: (image, dim) float32, each of length 1."""
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is refused below
        unit = np.concatenate([query, gallery], dtype=np.float32, casting="same_kind")
        length = np.linalg.norm(unit, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(length) | (length == 0))
    if len(bad):
        side, i = ("query", bad[0]) if bad[0] < len(query) else ("gallery", bad[0] - len(query))
        raise ValueError(f"feature of {side} image {i} has length {length[bad[0], 0]}, expected a "
                         f"finite one above 0 ({len(bad)} such images): embed them again")
    unit /= length
    return unit


def _in_blocks(work: Callable[[slice], None], total: int, size: int) -> None:
    """Call ``work`` for each ``size`` of ``total`` rows; the blocks depend on nothing else."""
    with ThreadPoolExecutor(N_THREADS) as pool:
        blocks = [slice(i, min(i + size, total)) for i in range(0, total, size)]
        list(pool.map(work, blocks))  # the list raises what a worker raised


def _search(unit: np.ndarray, n_query: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest ``k`` images (image, k), largest squared distance (image,), d (query, gallery)."""
    images = len(unit)
    later = _later_copies(unit, k)
    keep = min(2 * k, images)  # a tie at place k has k images at most, all of them within 2 k
    nearest = np.empty((images, k), np.int32)
    farthest = np.empty(images, np.float32)
    distance = np.empty((n_query, images - n_query), np.float32)

    def search(rows: slice) -> None:
        cosine = unit[rows] @ unit.T
        farthest[rows] = np.maximum(2 - 2 * cosine.min(1), RESOLUTION)
        part = distance[rows]  # of the queries among the rows
        part[:] = (2 - 2 * cosine[:len(part), n_query:]) / farthest[rows][:len(part), None]
        np.clip(part, 0, 1, out=part)  # rounding
        cosine[:, later] = -2
        candidates = np.argpartition(cosine, images - keep)[:, images - keep:]
        nearest[rows] = _nearest_first(unit, rows.start, candidates)[:, :k]

    _in_blocks(search, images, SEARCH_ROWS)
    return nearest, farthest, distance


def _later_copies(unit: np.ndarray, k: int) -> np.ndarray:
    """Images that ``k`` exact copies come before: in no list, because ties go by index."""
    content = pd.Series([row.tobytes() for row in unit])
    return np.flatnonzero(content.groupby(content, sort=False).cumcount() >= k)


def _nearest_first(unit: np.ndarray, start: int, candidates: np.ndarray) -> np.ndarray:
    """Sort each row of candidates by distance from image ``start + row``, then by index.

    Pair by pair, because a matrix product may give two copies of an image different last digits.
    """
    candidates.sort(axis=1)
    for i in range(0, len(candidates), EXACT_ROWS):
        part = candidates[i:i + EXACT_ROWS]
        cosine = _cosine(unit, np.arange(start + i, start + i + len(part))[:, None], part)
        part[:] = np.take_along_axis(part, np.argsort(-cosine, axis=1, kind="stable"), axis=1)
    return candidates


def _cosine(unit: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """In float64, lengths included: float32 would swap neighbours that are about as near."""
    left, right = unit[rows].astype(np.float64), unit[columns].astype(np.float64)
    return np.vecdot(left, right) / np.sqrt(np.vecdot(left, left) * np.vecdot(right, right))


def _indicator(columns: np.ndarray) -> csr_array:
    """Sparse (image, image) of ones at each image's ``columns`` (image, k)."""
    starts = np.arange(0, columns.size + 1, columns.shape[1])
    return csr_array((np.ones(columns.size, np.int32), columns.ravel(), starts), [len(columns)] * 2)


def _reciprocal(nearest: np.ndarray) -> csr_array:
    """Eq. 2 as a symmetric sparse (image, image) of ones: each is in the other's list."""
    near = _indicator(nearest)
    return near.multiply(near.T).tocsr()


def _encode(unit: np.ndarray, nearest: np.ndarray, farthest: np.ndarray) -> csr_array:
    """V of every image, (image, image) sparse float64, rows of sum 1 (eqs. 4 and 7)."""
    k1 = nearest.shape[1] - 1
    wide, narrow = _reciprocal(nearest), _reciprocal(nearest[:, :round(k1 / 2) + 1])
    inside = (wide @ narrow).multiply(wide).tocsr()  # of R(c, k1/2), how many are in R(p, k1)
    inside.data = (3 * inside.data > 2 * narrow.sum(axis=0)[inside.indices]).astype(np.int32)
    inside.eliminate_zeros()
    members = (wide + inside @ narrow).tocsr()
    members.sort_indices()
    rows = np.repeat(np.arange(len(unit)), np.diff(members.indptr))
    value = np.empty(members.nnz)

    def weigh(pairs: slice) -> None:
        cosine = _cosine(unit, rows[pairs], members.indices[pairs])
        value[pairs] = np.exp(-np.maximum(2 - 2 * cosine, 0) / farthest[rows[pairs]])

    _in_blocks(weigh, members.nnz, PAIRS)
    value /= np.bincount(rows, value, len(unit))[rows]
    return csr_array((value, members.indices, members.indptr), members.shape)


def _blend_jaccard(distance: np.ndarray, encoding: csr_array, weight: float | int) -> None:
    """Turn original distances (query, gallery) into final ones, in place (eqs. 10 and 12).

    An inverted file, from each image to the gallery encodings that hold it, finds the non-zeros.
    """
    n_query, n_gallery = distance.shape
    holders = encoding[n_query:].T.tocsr()

    def blend(rows: slice) -> None:
        mine = encoding[rows]
        found = holders[mine.indices]
        length = np.diff(found.indptr)
        row = np.repeat(np.arange(mine.shape[0]), np.diff(mine.indptr))
        cell = np.repeat(row * n_gallery, length) + found.indices
        least = np.minimum(np.repeat(mine.data, length), found.data)
        shared = np.bincount(cell, least, mine.shape[0] * n_gallery).reshape(-1, n_gallery)
        distance[rows] = weight * distance[rows] + (1 - weight) * (1 - shared / (2 - shared))

    _in_blocks(blend, n_query, JACCARD_ROWS)
