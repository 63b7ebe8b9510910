"""Where each match ranks, for every protocol, in one pass and bounded memory.

Per block of queries: one matrix product, the similarities of the matches picked out, each row
sorted by *value* (no argsort), and for each match the number of wrong images at least as similar by
binary search. What a protocol drops is subtracted afterwards, so that all protocols cost one sort.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from reidlib.data.manifest import JUNK_ID
from reidlib.evaluation import metrics
from reidlib.evaluation.embeddings import Embeddings, flipped
from reidlib.evaluation.protocols import Protocol
from reidlib.evaluation.reranking import N_THREADS, rerank

ENTRIES = 2 ** 22          # similarities of one block of queries, 16 MB
RERANKING = (20, 6, 0.3)   # k1, k2 and lambda of Zhong et al. 2017
Similarity = Callable[[slice], np.ndarray | torch.Tensor]  # rows of queries -> (row, gallery)


@dataclass(frozen=True)
class Matches:
    """Every (query, gallery image of the same person) pair, query by query, nearest first.

    One entry a pair: what a protocol needs to know to rank it. The counts are of images of other
    people that are at least as similar, so that a tie never helps.
    """

    query: np.ndarray        # (pair,) query index, ascending
    same_camera: np.ndarray  # (pair,) bool
    copy: np.ndarray         # (pair,) bool, byte-identical to the query
    wrong: np.ndarray        # (pair, 2, 2) by junk or not, byte-identical to the query or not
    drawn: np.ndarray        # (pair, draw) bool, it is the match in that drawn gallery
    drawn_wrong: np.ndarray  # (pair, 2, draw) wrong images in it: of any, of other cameras
    n_query: int

    def ranks(self, protocol: Protocol, draw: int | None = None
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ranks of the matches that count, how many each query has, and which queries have any."""
        keep = protocol.keeps(True, self.same_camera, False, self.copy)
        if draw is None:
            kinds = protocol.keeps(False, False, [[False], [True]], [[False, True]])
            wrong = self.wrong[:, kinds].sum(1)
        else:
            keep = keep & self.drawn[:, draw]
            wrong = self.drawn_wrong[:, int(protocol.other_camera), draw].astype(np.int64)
        wrong = wrong[keep]
        counts = np.bincount(self.query[keep], minlength=self.n_query)
        scored = np.flatnonzero(counts)
        counts = counts[scored]
        return wrong + metrics.count_up(counts), counts, scored


def cosine(query: Embeddings, gallery: Embeddings, flip: str = "none", reranked: bool = False,
           device: torch.device | None = None) -> Similarity:
    """Cosine similarity of a block of queries to the gallery; see ``embeddings.flipped``.

    ``reranked``: the negated distance after k-reciprocal re-ranking instead, for which the full
    (query, gallery) matrix is held. On ``device`` (CUDA) products, sorts and searches are torch's,
    else NumPy's, whose sort of float32 values is many times faster on a CPU.
    """
    a, b = flipped(query, gallery, flip)
    if reranked:
        distance = _reranked(a, b)
        return lambda rows: -distance[rows]
    if device is not None:
        a, b = (torch.from_numpy(features).to(device) for features in (a, b))
    return lambda rows: a[rows] @ b.T


def reranked_alone(query: Embeddings, gallery: Embeddings, rules: Protocol, flip: str = "none"
                   ) -> Similarity:
    """The negated distance after re-ranking each query by itself, as if nothing else were there.

    Its neighbours are images that ``rules`` keep for it: no other query, and none that is dropped
    later. Dropped images are infinitely far. One re-ranking a query: for small galleries.
    """
    a, b = flipped(query, gallery, flip)

    def negative_distance(rows: slice) -> np.ndarray:
        found = np.full((len(a[rows]), len(b)), -np.inf, np.float32)
        for row, i in zip(found, range(len(a))[rows], strict=True):
            keep = rules.keeps(query.ids[i] == gallery.ids, query.cams[i] == gallery.cams,
                               gallery.ids == JUNK_ID, query.sha256[i] == gallery.sha256)
            if keep.any():
                row[keep] = -_reranked(a[i:i + 1], b[keep])[0]
        return found

    return negative_distance


def _reranked(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """``rerank`` by the usual parameters; with fewer images than k1, all are neighbours."""
    k1, k2, weight = RERANKING
    k1 = min(k1, len(query) + len(gallery) - 1)
    return rerank(query, gallery, k1, min(k2, k1), weight)


def euclidean(query: Embeddings, gallery: Embeddings, flip: str = "none",
              device: torch.device | None = None) -> Similarity:
    """Negative squared Euclidean distance of a block of queries to the gallery.

    Embeddings count as they are, of whatever length; a flip takes their plain mean. Distances are
    taken from the gallery's mean: they stay the same, and float32 loses less of them.
    """
    a, b = flipped(query, gallery, flip, unit=False)
    centre = b.mean(axis=0)
    a, b = a - centre, b - centre
    a_squared, b_squared = (np.einsum("ij,ij->i", x, x) for x in (a, b))
    if device is not None:
        a, b, a_squared, b_squared = (
            torch.from_numpy(x).to(device) for x in (a, b, a_squared, b_squared))

    def negative_distance(rows: slice) -> np.ndarray | torch.Tensor:
        found = a[rows] @ b.T
        found *= 2
        found -= b_squared
        found -= a_squared[rows, None]
        return found

    return negative_distance


def find_matches(query: Embeddings, gallery: Embeddings, similarity: Similarity,
                 n_draws: int = 0) -> Matches:
    """Rank all matches of all queries, in the full gallery and in ``n_draws`` drawn ones."""
    ids, cams, content = (_codes(getattr(query, name), getattr(gallery, name))
                          for name in ("ids", "cams", "sha256"))
    junk = gallery.ids == JUNK_ID
    plan = _Plan(*ids, cams[0], *_same_person(*ids), _wrong_copies(ids, content),
                 np.flatnonzero(junk), draw_galleries(ids[1], cams[1], junk, n_draws))
    n, step = len(query.ids), max(1, ENTRIES // len(gallery.ids))
    blocks = [slice(i, min(i + step, n)) for i in range(0, n, step)]
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(N_THREADS) as pool:
        done = list(pool.map(lambda rows: _rank_block(similarity(rows), rows, plan), blocks))
    column, wrong, in_drawn = (np.concatenate(part) for part in zip(*done, strict=True))
    return Matches(plan.row, cams[0][plan.row] == cams[1][column],
                   content[0][plan.row] == content[1][column], wrong,
                   plan.galleries.of_other_cameras(column, cams[0][plan.row]), in_drawn, n)


@dataclass(frozen=True)
class DrawnGalleries:
    """One random image of each identity, many times over; junk is never drawn."""

    cams: np.ndarray     # (image,) integers
    drawn: np.ndarray    # (image, draw) bool
    instead: np.ndarray  # (image, draw) the camera of the drawn one, for which it is drawn; or -1

    def of_other_cameras(self, images: np.ndarray, camera: np.ndarray | np.integer) -> np.ndarray:
        """(image, draw) bool: is it drawn where only cameras other than ``camera`` count?"""
        camera = np.asarray(camera)[..., None]
        return (self.drawn[images] & (self.cams[images, None] != camera)
                | (self.instead[images] == camera))


def draw_galleries(ids: np.ndarray, cams: np.ndarray, junk: np.ndarray, n_draws: int
                   ) -> DrawnGalleries:
    """``ids``, ``cams``: integers of each image; a draw's number is its seed.

    In random order the first image of an identity is drawn, and where that one's camera does not
    count the first of another camera is. Either is as likely as any other that counts.
    """
    _, ids = np.unique(ids, return_inverse=True)
    drawn, instead = np.zeros((len(ids), n_draws), bool), np.full((len(ids), n_draws), -1, np.int32)
    for draw in range(n_draws):
        shuffled = np.random.default_rng(draw).permutation(len(ids))
        first = shuffled[np.unique(ids[shuffled], return_index=True)[1]]
        camera = cams[first][ids]  # of the drawn image, for each image of the identity
        others = shuffled[cams[shuffled] != camera[shuffled]]
        second = others[np.unique(ids[others], return_index=True)[1]]
        drawn[first, draw], instead[second, draw] = True, camera[second]
    drawn[junk], instead[junk] = False, -1
    return DrawnGalleries(cams, drawn, instead)


@dataclass(frozen=True)
class _Plan:
    """What all blocks share. ``bounds[i]:bounds[i + 1]`` are the pairs of query i."""

    query_ids: np.ndarray      # integers
    gallery_ids: np.ndarray
    query_cams: np.ndarray
    row: np.ndarray            # (pair,) query
    column: np.ndarray         # (pair,) gallery image of the same person
    bounds: np.ndarray
    wrong_copies: dict[int, np.ndarray]  # query -> gallery columns
    junk: np.ndarray           # gallery columns
    galleries: DrawnGalleries


def _codes(query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers in place of text, equal where the text is equal."""
    codes, _ = pd.factorize(np.concatenate([query, gallery]).astype(object))
    return codes[:len(query)], codes[len(query):]


def _same_person(query: np.ndarray, gallery: np.ndarray
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All (row, column) pairs of one person, row by row, and the bounds of each row's."""
    by_id = np.argsort(gallery, kind="stable")
    low, high = (np.searchsorted(gallery[by_id], query, side) for side in ("left", "right"))
    bounds = np.concatenate([[0], np.cumsum(high - low)])
    row = np.repeat(np.arange(len(query)), high - low)
    return row, by_id[low[row] + np.arange(len(row)) - bounds[row]], bounds


def _wrong_copies(ids: tuple, content: tuple) -> dict[int, np.ndarray]:
    """Gallery columns with a query's bytes but another identity, for the queries that have any."""
    found = {}
    for i in np.flatnonzero(np.isin(*content)).tolist():
        columns = np.flatnonzero((content[1] == content[0][i]) & (ids[1] != ids[0][i]))
        if len(columns):
            found[i] = columns
    return found


def _rank_block(similarity, rows: slice, plan: _Plan) -> tuple[np.ndarray, ...]:
    """Column of each pair, nearest first; wrong images by kind (see ``Matches``) and by draw."""
    own = slice(plan.bounds[rows.start], plan.bounds[rows.stop])
    row, column = plan.row[own] - rows.start, plan.column[own]
    bounds = plan.bounds[rows.start:rows.stop + 1] - plan.bounds[rows.start]
    value = to_numpy(similarity[row, column])
    nearest = np.lexsort((-value, row))
    column, value = column[nearest], value[nearest]
    wrong = np.zeros((len(row), 2, 2), np.int64)
    in_drawn = _count_drawn(similarity, value, bounds, rows, plan)
    others = similarity
    if len(plan.junk):
        wrong[:, 1, 0] = _count_at_least(similarity[:, plan.junk], value, bounds)
        others = similarity.copy() if isinstance(similarity, np.ndarray) else similarity.clone()
        others[:, plan.junk] = -np.inf
    right = pd.Series(-value).groupby(row).rank("max").to_numpy(int)  # at least as similar too
    wrong[:, 0, 0] = _count_at_least(others, value, bounds) - right
    for i in [i for i in plan.wrong_copies if rows.start <= i < rows.stop]:
        pair = slice(*bounds[i - rows.start:i - rows.start + 2])
        for junk in (0, 1):
            columns = plan.wrong_copies[i][np.isin(plan.wrong_copies[i], plan.junk) == junk]
            theirs = to_numpy(similarity[i - rows.start][columns])
            copies = (theirs[None, :] >= value[pair, None]).sum(1)
            wrong[pair, junk, 1] = copies
            wrong[pair, junk, 0] -= copies
    return column, wrong, in_drawn


def _count_drawn(similarity, value: np.ndarray, bounds: np.ndarray, rows: slice,
                 plan: _Plan) -> np.ndarray:
    """(pair, 2, draw): wrong images of each drawn gallery that are at least as similar.

    Of any camera, and of others than the query's. Only what is at least as similar as a query's
    farthest match is looked at.
    """
    galleries = plan.galleries
    counts = np.zeros((len(value), 2, galleries.drawn.shape[1]), np.int32)
    if not counts.size:
        return counts
    for line, person, camera, a, b in zip(
            to_numpy(similarity), plan.query_ids[rows], plan.query_cams[rows], bounds[:-1].tolist(),
            bounds[1:].tolist(), strict=True):
        if a == b:
            continue
        near = np.flatnonzero(line >= value[b - 1])
        near = near[plan.gallery_ids[near] != person]
        near = near[np.argsort(-line[near])]
        n = len(near) - np.searchsorted(line[near][::-1], value[a:b])
        ends, place = np.unique(n[n > 0], return_inverse=True)
        if len(ends):
            near = near[:ends[-1]]
            drawn = np.stack([galleries.drawn[near], galleries.of_other_cameras(near, camera)], 1)
            between = np.add.reduceat(drawn.view(np.uint8), [0, *ends[:-1]], dtype=np.int32)
            counts[a:b][n > 0] = between.cumsum(axis=0, dtype=np.int32)[place]
    return counts


def _count_at_least(similarity, value: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """How many entries of its row are at least as large as each value."""
    n = similarity.shape[1]
    if isinstance(similarity, torch.Tensor):
        padded = torch.full((len(bounds) - 1, int(np.diff(bounds).max(initial=0))), torch.inf)
        row = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        place = row, np.arange(len(row)) - bounds[row]
        padded[place] = torch.from_numpy(value)
        below = torch.searchsorted(similarity.sort(dim=1).values, padded.to(similarity.device))
        return n - below.cpu().numpy()[place]
    ends = zip(np.sort(similarity, axis=1), bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    below = [line.searchsorted(value[a:b]) for line, a, b in ends]
    return n - np.concatenate(below)


def to_numpy(values: np.ndarray | torch.Tensor) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else values
