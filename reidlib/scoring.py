"""Embeddings -> scores under every named protocol in one pass and bounded memory.

Per block of queries: one matrix product, the similarities of the matches picked out, each row
sorted by *value* (no argsort), and for each match the number of wrong images at least as similar by
binary search. What a protocol drops is subtracted afterwards, so that all protocols cost one sort.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from reidlib import metrics
from reidlib.protocols import JUNK_ID, PROTOCOLS, Protocol, get_protocol
from reidlib.retrieval import FLIPS, Embedded, check_pair

RANKS = (1, 5, 10)
CMC_LENGTH = 50
ENTRIES = 2 ** 22          # similarities of one block of queries, 16 MB
WORKERS = os.cpu_count() or 1  # threads, each with its own product and sort


@dataclass(frozen=True)
class Matches:
    """Every (query, gallery image of the same person) pair, query by query, nearest first.

    One entry a pair: what a protocol needs to know to rank it. ``wrong`` and ``junk`` count the
    other people's images and the junk images that are at least as similar, so a tie never helps.
    """

    query: np.ndarray        # (pair,) query index, ascending
    same_camera: np.ndarray  # (pair,) bool
    copy: np.ndarray         # (pair,) bool, byte-identical to the query
    wrong: np.ndarray        # (pair,) wrong images at least as similar, junk left out
    junk: np.ndarray         # (pair,) junk images at least as similar
    wrong_copies: np.ndarray # (pair,) of ``wrong``, those byte-identical to the query
    n_query: int

    def ranks(self, protocol: Protocol) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ranks of the matches that count, how many each query has, and which queries have any."""
        keep = np.ones(len(self.query), bool)
        if protocol.drop_same_camera:
            keep &= ~self.same_camera
        if protocol.drop_copies:
            keep &= ~self.copy
        wrong = self.wrong[keep]
        if not protocol.drop_junk:
            wrong = wrong + self.junk[keep]
        if protocol.drop_copies:
            wrong = wrong - self.wrong_copies[keep]
        counts = np.bincount(self.query[keep], minlength=self.n_query)
        scored = np.flatnonzero(counts)
        counts = counts[scored]
        own = np.arange(1, len(wrong) + 1) - np.repeat(np.cumsum(counts) - counts, counts)
        return wrong + own, counts, scored


def find_matches(query: Embedded, gallery: Embedded, flip: str = "none",
                 device: torch.device | None = None) -> Matches:
    """Rank all matches of all queries by cosine similarity; see ``retrieval.rank_gallery``.

    On ``device`` (CUDA) the products, sorts and searches are torch's, otherwise NumPy's, whose
    sort of float32 values is many times faster on a CPU.
    """
    check_pair(query, gallery, flip)
    features = [query.features(flip != "none"), gallery.features(flip == "both")]
    if device is not None:
        features = [torch.from_numpy(f).to(device) for f in features]
    ids, cams, content = (_codes(getattr(query, name), getattr(gallery, name))
                          for name in ("ids", "cams", "sha256"))
    pairs = _same_person(*ids)
    copies = _wrong_copies(ids, content)
    junk = np.flatnonzero(gallery.ids == JUNK_ID)
    n, step = len(query.ids), max(1, ENTRIES // len(gallery.ids))
    blocks = [slice(i, min(i + step, n)) for i in range(0, n, step)]
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(WORKERS) as pool:
        done = list(pool.map(lambda rows: _rank_block(*features, rows, pairs, copies, junk),
                             blocks))
    column, wrong, in_junk, in_copies = (np.concatenate(part) for part in zip(*done, strict=True))
    return Matches(pairs.query, cams[0][pairs.query] == cams[1][column],
                   content[0][pairs.query] == content[1][column], wrong, in_junk, in_copies, n)


def score_queries(query: Embedded, matches: Matches, protocol: str) -> pd.DataFrame:
    """One row a query: path, id, cam, AP, INP, first_hit (rank from 1); NaN where not scored.

    A query without a single valid match is not scored. Under a protocol that looks at the nearest
    few, INP is not defined (NaN) and a first hit beyond them does not count (infinite).
    """
    rules = get_protocol(protocol)
    ranks, counts, scored = matches.ranks(rules)
    table = pd.DataFrame({"path": query.paths, "id": query.ids, "cam": query.cams,
                          "AP": np.nan, "INP": np.nan, "first_hit": np.nan})
    if not len(scored):
        return table
    first = metrics.first_match(ranks, counts).astype(float)
    if rules.depth is None:
        table.loc[scored, "AP"] = metrics.average_precision(ranks, counts, rules.rule)
        table.loc[scored, "INP"] = metrics.inverse_negative_penalty(ranks, counts)
    else:
        table.loc[scored, "AP"] = metrics.average_precision_at(ranks, counts, rules.depth)
        first[first > rules.depth] = np.inf
    table.loc[scored, "first_hit"] = first
    return table


def summarise_queries(per_query: pd.DataFrame, protocol: str) -> dict[str, float | int | None]:
    """mAP, mINP, rank-1/5/10, n_query and n_valid_query of a per-query table.

    Raises:
        ValueError: no query has a valid match under the protocol.
    """
    valid = per_query.dropna(subset="AP")
    if valid.empty:
        cameras = per_query["cam"].nunique()
        raise ValueError(
            f"no query has a valid match under protocol {protocol!r}: every match is from the "
            f"query's own camera or there is none ({len(per_query)} queries, {cameras} camera(s)). "
            "Cross-camera scores need a gallery image of the person from another camera; "
            "all-gallery and leak-free keep the own camera's images")
    inp = valid["INP"].mean()
    return {"mAP": float(valid["AP"].mean()), "mINP": None if np.isnan(inp) else float(inp),
            **{f"rank{k}": float((valid["first_hit"] <= k).mean()) for k in RANKS},
            "n_query": len(per_query), "n_valid_query": len(valid)}


def evaluate(query: Embedded, gallery: Embedded, flips: Sequence[str] = FLIPS,
             protocols: Iterable[str] = tuple(PROTOCOLS), device: torch.device | None = None
             ) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Scores, per-query table and CMC curves under every protocol and flip, in long form."""
    scores, tables, curves = [], [], []
    for flip in flips:
        matches = find_matches(query, gallery, flip, device)
        for protocol in protocols:
            key = {"protocol": protocol, "flip": flip}
            per_query = score_queries(query, matches, protocol)
            scores.append({**key, **summarise_queries(per_query, protocol)})
            tables.append(per_query.assign(**key))
            length = min(CMC_LENGTH, len(gallery.ids), get_protocol(protocol).depth or CMC_LENGTH)
            curve = metrics.cmc(per_query["first_hit"].dropna().to_numpy(), length)
            curves.append(pd.DataFrame({**key, "rank": np.arange(1, length + 1), "cmc": curve}))
    return pd.DataFrame(scores), pd.concat(tables), pd.concat(curves)


@dataclass(frozen=True)
class _Pairs:
    """All pairs of one person, query by query: ``bounds[i]:bounds[i + 1]`` are query i's."""

    query: np.ndarray
    column: np.ndarray
    bounds: np.ndarray


def _codes(query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers in place of text, equal where the text is equal."""
    codes, _ = pd.factorize(np.concatenate([query, gallery]).astype(object))
    return codes[:len(query)], codes[len(query):]


def _same_person(query: np.ndarray, gallery: np.ndarray) -> _Pairs:
    by_id = np.argsort(gallery, kind="stable")
    low, high = (np.searchsorted(gallery[by_id], query, side) for side in ("left", "right"))
    bounds = np.concatenate([[0], np.cumsum(high - low)])
    row = np.repeat(np.arange(len(query)), high - low)
    return _Pairs(row, by_id[low[row] + np.arange(len(row)) - bounds[row]], bounds)


def _wrong_copies(ids: tuple, content: tuple) -> dict[int, np.ndarray]:
    """Gallery columns with a query's bytes but another identity, for the queries that have any."""
    found = {}
    for i in np.flatnonzero(np.isin(*content)).tolist():
        columns = np.flatnonzero((content[1] == content[0][i]) & (ids[1] != ids[0][i]))
        if len(columns):
            found[i] = columns
    return found


def _rank_block(query, gallery, rows: slice, pairs: _Pairs, copies: dict[int, np.ndarray],
                junk: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Column of each pair, nearest first, with its counts of wrong, junk and wrong copies."""
    similarity = query[rows] @ gallery.T
    own = slice(pairs.bounds[rows.start], pairs.bounds[rows.stop])
    row, column = pairs.query[own] - rows.start, pairs.column[own]
    bounds = pairs.bounds[rows.start:rows.stop + 1] - pairs.bounds[rows.start]
    value = _numpy(similarity[row, column])
    nearest = np.lexsort((-value, row))
    column, value = column[nearest], value[nearest]
    in_copies = np.zeros(len(row), np.int64)
    for i in range(rows.start, rows.stop) if copies else ():
        if i in copies:
            pair = slice(*bounds[i - rows.start:i - rows.start + 2])
            theirs = _numpy(similarity[i - rows.start][copies[i]])
            in_copies[pair] = (theirs[None, :] >= value[pair, None]).sum(1)
    in_junk = np.zeros(len(row), np.int64)
    if len(junk):
        in_junk = _count_at_least(similarity[:, junk], value, bounds)
        similarity[:, junk] = -np.inf
    return (column, _count_at_least(similarity, value, bounds) - _ties_last(row, value, bounds),
            in_junk, in_copies)


def _count_at_least(similarity, value: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """How many entries of its row are at least as large as each value; sorts ``similarity``."""
    n = similarity.shape[1]
    if isinstance(similarity, torch.Tensor):
        padded = torch.full((len(bounds) - 1, int(np.diff(bounds).max(initial=0))), torch.inf)
        row = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        place = row, np.arange(len(row)) - bounds[row]
        padded[place] = torch.from_numpy(value)
        below = torch.searchsorted(similarity.sort(dim=1).values, padded.to(similarity.device))
        return n - below.cpu().numpy()[place]
    similarity.sort(axis=1)
    below = [line.searchsorted(value[a:b]) for line, a, b in
             zip(similarity, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]
    return n - np.concatenate(below)


def _ties_last(row: np.ndarray, value: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """How many of a query's own pairs are at least as similar as each, itself included."""
    last = np.ones(len(row), bool)
    last[:-1] = (row[1:] != row[:-1]) | (value[1:] != value[:-1])
    ends = np.flatnonzero(last)
    return ends[np.searchsorted(ends, np.arange(len(row)))] + 1 - bounds[row]


def _numpy(values) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else values
