"""The nearest few gallery images of each query, exactly and in bounded memory.

A block of queries against a block of gallery images at a time: one matrix product, the few largest
by partition (no sort of the block), and in the end the blocks' few merged. The whole query x
gallery matrix never exists, so that a gallery may be as large as its features fit.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from math import ceil

import numpy as np
import torch
from threadpoolctl import threadpool_limits

ENTRIES = 2 ** 21              # similarities of one block, 8 MB
QUERIES = 256                  # at most so many rows in a block
WORKERS = os.cpu_count() or 1  # threads, each with its own product and partition


def nearest(query: np.ndarray, gallery: np.ndarray, k: int,
            device: torch.device | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` most similar gallery images of each query, nearest first.

    Similarity is the inner product of the features (query, dim) and (gallery, dim), both float32:
    the cosine where they have length 1. Equal similarities go by gallery index. A ``k`` above the
    gallery's size returns all of it. On ``device`` (CUDA) torch does the products and partitions.

    Returns (query, k) gallery indices int64 and their similarities float32. Besides the result
    this takes a few blocks of ``ENTRIES`` similarities a thread.

    Raises:
        ValueError: widths or types differ, a side is empty, k < 1, a feature is not finite.
    """
    _check(query, gallery, k)
    k = min(k, len(gallery))
    features = [query, gallery]
    if device is not None:
        features = [torch.from_numpy(f).to(device) for f in features]
    rows, columns = _blocks(len(query), len(gallery), k)
    indices = np.empty((len(query), k), np.int64)
    similarity = np.empty((len(query), k), np.float32)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(WORKERS) as pool:
        for block in rows:
            work = [pool.submit(_search_block, *features, block, part, k) for part in columns]
            indices[block], similarity[block] = _merge([w.result() for w in work], k)
    return indices, similarity


def _check(query: np.ndarray, gallery: np.ndarray, k: int) -> None:
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query features {query.shape} and gallery features {gallery.shape}, "
                         "expected (image, dim) of one width: embed both with the same model")
    if query.dtype != np.float32 or gallery.dtype != np.float32:
        raise ValueError(f"float32 features expected, found {query.dtype} and {gallery.dtype}: "
                         "convert with .astype(np.float32)")
    if not len(query) or not len(gallery):
        raise ValueError(f"{len(query)} query and {len(gallery)} gallery images: a search needs "
                         "at least one of each")
    if k < 1:
        raise ValueError(f"k must be at least 1, found {k}")


def _blocks(n_query: int, n_gallery: int, k: int) -> tuple[list[slice], list[slice]]:
    """Rows and columns of the blocks; what the blocks of one row find is at most ``ENTRIES``."""
    height = min(n_query, QUERIES)
    width = min(n_gallery, ENTRIES // height)
    found = min(n_gallery, k * ceil(n_gallery / width))
    height = max(1, min(height, ENTRIES // found))
    return ([slice(i, min(i + height, n_query)) for i in range(0, n_query, height)],
            [slice(i, min(i + width, n_gallery)) for i in range(0, n_gallery, width)])


def _search_block(query, gallery, rows: slice, columns: slice, k: int
                  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, gallery index and similarity of each row's ``k`` nearest in the block, ties and all.

    Entries are row by row and within a row by index.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
        similarity = query[rows] @ gallery[columns].T
    if not np.isfinite([float(similarity.min()), float(similarity.max())]).all():
        raise ValueError(_not_finite(query[rows], gallery[columns], rows.start, columns.start))
    n = similarity.shape[1]
    if isinstance(similarity, torch.Tensor):
        least = similarity.topk(min(k, n), dim=1).values[:, -1:]
        row, column = torch.nonzero(similarity >= least, as_tuple=True)
        value = similarity[row, column]
        row, column, value = (part.cpu().numpy() for part in (row, column, value))
    else:
        least = np.partition(similarity, n - min(k, n), axis=1)[:, [n - min(k, n)]]
        row, column = np.nonzero(similarity >= least)
        value = similarity[row, column]
    if len(row) > k * len(similarity):  # ties at place k: those of the smallest index stay
        row, column, value = _first(k, row, column, value)
    return row, column + columns.start, value


def _first(k: int, row: np.ndarray, column: np.ndarray, value: np.ndarray
           ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row the ``k`` largest values, largest first, ties in the order given."""
    order = np.lexsort((-value, row))
    starts = np.searchsorted(row[order], row[order])
    order = order[np.arange(len(order)) - starts < k]
    return row[order], column[order], value[order]


def _merge(found: list[tuple[np.ndarray, np.ndarray, np.ndarray]], k: int
           ) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest of each row of what its blocks found, blocks in order of the gallery."""
    _, column, value = _first(k, *map(np.concatenate, zip(*found, strict=True)))
    return column.reshape(-1, k), value.reshape(-1, k)


def _not_finite(query, gallery, first_query: int, first_gallery: int) -> str:
    for side, features, first in (("query", query, first_query),
                                  ("gallery", gallery, first_gallery)):
        if isinstance(features, torch.Tensor):
            features = features.cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(features).all(1))
        if len(bad):
            return f"feature of {side} image {first + bad[0]} is not finite: embed it anew"
    return (f"inner product of a query from {first_query} and a gallery image from "
            f"{first_gallery} on overflows float32: scale the features to length 1")
