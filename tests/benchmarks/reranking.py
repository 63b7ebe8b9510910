"""k-reciprocal re-ranking (Zhong et al. 2017): reidlib next to the floor and to dense NumPy code.

The dense code keeps all images x all images several times over, as the usual code does; it is
measured on fewer images.
"""

from collections.abc import Callable

import numpy as np

from reidlib.evaluation.embeddings import Embeddings
from reidlib.evaluation.reranking import rerank
from tests.benchmarks.measure import MARKET, TINY, Candidate, Size, floor_at, main

K1, K2, WEIGHT = 20, 6, 0.3  # the defaults of rerank
Rerank = Callable[[np.ndarray, np.ndarray], np.ndarray]
DENSE = Size(500, 2000, people=100)


def dense_rerank(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """The definition at the top of ``reidlib/reranking.py`` in dense float64 matrices."""
    images = np.concatenate([query, gallery]).astype(np.float64)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    squared = np.maximum(2 - 2 * images @ images.T, 0)
    distance = squared / squared.max(1, keepdims=True)
    ranked = np.argsort(distance, axis=1, kind="stable")
    encoding = np.zeros_like(distance)
    wide, narrow = _mutual(ranked, K1), _mutual(ranked, round(K1 / 2))
    for p in range(len(images)):
        members = wide[p].copy()
        for c in np.flatnonzero(wide[p]):
            if 3 * (narrow[c] & wide[p]).sum() > 2 * narrow[c].sum():
                members |= narrow[c]
        encoding[p, members] = np.exp(-distance[p, members])
        encoding[p] /= encoding[p].sum()
    encoding = np.stack([encoding[ranked[p, :K2]].mean(0) for p in range(len(images))])
    final = WEIGHT * distance[:len(query), len(query):]
    for i in range(len(query)):
        mine = np.flatnonzero(encoding[i])
        shared = np.minimum(encoding[i, mine], encoding[len(query):, mine]).sum(1)
        final[i] += (1 - WEIGHT) * (1 - shared / (2 - shared))
    return final


def _mutual(ranked: np.ndarray, k: int) -> np.ndarray:
    """(image, image) bool: each is among the other's k + 1 nearest."""
    near = np.zeros(ranked.shape, bool)
    np.put_along_axis(near, ranked[:, :k + 1], True, axis=1)
    return near & near.T


def _candidate(name: str, size: Size, function: Rerank, other: Rerank,
               packages: tuple[str, ...], repeats: int = 5) -> Candidate:
    def agrees(distance: np.ndarray, query: Embeddings, gallery: Embeddings) -> bool:
        return bool(np.abs(distance - other(query.emb, gallery.emb)).max() < 1e-5)

    return Candidate(name, size, lambda query, gallery: lambda: function(query.emb, gallery.emb),
                     agrees, packages, repeats)


def candidates(size: Size, dense: Size) -> list[Candidate]:
    rows = []
    for each in (size, dense):
        rows += [floor_at(each), _candidate("reidlib rerank", each, rerank, dense_rerank,
                                            ("numpy", "scipy"))]
    return [*rows, _candidate("numpy dense re-ranking (1 run)", dense, dense_rerank, rerank,
                              ("numpy",), 1)]


if __name__ == "__main__":
    main("reranking", {"full": candidates(MARKET, DENSE),
                       "small": candidates(TINY, Size(10, 90, 32, 5))})
