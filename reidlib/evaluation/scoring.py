"""Ranks of the matches -> scores, per-query tables and CMC curves under every named protocol."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch

from reidlib.data.manifest import JUNK_ID
from reidlib.evaluation import match_ranks, metrics
from reidlib.evaluation.embeddings import FLIPS, Embeddings, pool
from reidlib.evaluation.match_ranks import Matches, Similarity, to_numpy
from reidlib.evaluation.protocols import PROTOCOLS, Protocol, get_protocol

RANKS = (1, 5, 10)
CMC_LENGTH = 50
FEW_PAIRS = 50_000  # of query and gallery: each query is re-ranked by itself too, in seconds


def score_queries(query: Embeddings, matches: Matches, protocol: str) -> pd.DataFrame:
    """One row a query: path, id, cam, AP, INP, first_hit (rank from 1), rank1, rank5, rank10.

    NaN where a query is not scored because it has no valid match. Under a protocol that looks
    at the nearest few, INP is not defined (NaN) and a first hit beyond them does not count
    (infinite). Under one that draws galleries, every value is the mean over the draws.
    """
    rules = get_protocol(protocol)
    draws = range(rules.draws) if rules.draws else [None]
    values = sum(_values(matches.ranks(rules, draw), rules, matches.n_query) for draw in draws)
    values /= len(draws)
    return pd.DataFrame({"path": query.paths, "id": query.ids, "cam": query.cams,
                         **dict(zip(metrics.VALUES, values, strict=True))})


def _values(ranked: tuple[np.ndarray, np.ndarray, np.ndarray], rules: Protocol,
            n_query: int) -> np.ndarray:
    """(value, query) of ``metrics.VALUES``; NaN for the queries without a match."""
    ranks, counts, scored = ranked
    values = np.full((len(metrics.VALUES), n_query), np.nan)
    if not len(scored):
        return values
    first = metrics.first_match(ranks, counts).astype(float)
    if rules.depth is None:
        ap = metrics.average_precision(ranks, counts, rules.rule)
        inp = metrics.inverse_negative_penalty(ranks, counts)
    else:
        ap = metrics.average_precision_at(ranks, counts, rules.depth)
        inp = np.nan
        first[first > rules.depth] = np.inf
    for row, value in zip(values, (ap, inp, first, *(first <= k for k in RANKS)), strict=True):
        row[scored] = value
    return values


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
            **{f"rank{k}": float(valid[f"rank{k}"].mean()) for k in RANKS},
            "n_query": len(per_query), "n_valid_query": len(valid)}


def evaluate(query: Embeddings, gallery: Embeddings, flips: Sequence[str] = FLIPS,
             protocols: Sequence[str] = tuple(PROTOCOLS),
             reranked_flips: Sequence[str] = ("query",), device: torch.device | None = None
             ) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Scores, per-query table and CMC curves under every protocol and flip, in long form.

    ``reranked_flips`` are scored once more after re-ranking, which costs seconds where the rest
    costs tenths; and with few images once more under ``standard`` with each query re-ranked by
    itself, where ``alone`` is true. No CMC curve for a protocol that draws galleries.
    """
    parts = []
    for flip, reranked in [*((f, False) for f in flips), *((f, True) for f in reranked_flips)]:
        chosen = [p for p in protocols if get_protocol(p).reranks or not reranked]
        for *sides, shared in by_sides(query, gallery, chosen):
            similarity = match_ranks.cosine(*sides, flip, reranked, device)
            parts.append(score_similarity(*sides, similarity, shared,
                                          {"flip": flip, "reranked": reranked, "alone": False}))
    if "standard" in protocols and len(query.ids) * len(gallery.ids) <= FEW_PAIRS:
        for flip in reranked_flips:
            similarity = match_ranks.reranked_alone(query, gallery, get_protocol("standard"), flip)
            parts.append(score_similarity(query, gallery, similarity, ["standard"],
                                          {"flip": flip, "reranked": True, "alone": True}))
    return tuple(pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))


def score_similarity(query: Embeddings, gallery: Embeddings, similarity: Similarity,
                     protocols: Sequence[str], key: dict) -> tuple[pd.DataFrame, ...]:
    """What ``evaluate`` gives, by any similarity; ``key``: further columns of all three tables."""
    scores, tables, curves = [], [], []
    for protocol, per_query in query_tables(query, gallery, similarity, protocols):
        named = {"protocol": protocol, **key}
        scores.append({**named, **summarise_queries(per_query, protocol)})
        tables.append(per_query.assign(**named))
        if get_protocol(protocol).draws is None:
            curves.append(_curve(per_query, len(gallery.ids), protocol).assign(**named))
    return pd.DataFrame(scores), pd.concat(tables), pd.concat(curves or [pd.DataFrame()])


def by_sides(query: Embeddings, gallery: Embeddings, protocols: Sequence[str]
             ) -> Iterator[tuple[Embeddings, Embeddings, list[str]]]:
    """Query, gallery, and the protocols that share these sides.

    Those that ask with every test image come last, with sides of their own.
    """
    for every_image in (False, True):
        chosen = [p for p in protocols if get_protocol(p).every_image == every_image]
        if chosen:
            yield *(pool(query, gallery) if every_image else (query, gallery)), chosen


def query_tables(query: Embeddings, gallery: Embeddings, similarity: Similarity,
                 protocols: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each protocol and its ``score_queries``; all share one pass over the similarities."""
    n_draws = max(get_protocol(p).draws or 0 for p in protocols)
    matches = match_ranks.find_matches(query, gallery, similarity, n_draws)
    for protocol in protocols:
        yield protocol, score_queries(query, matches, protocol)


def _curve(per_query: pd.DataFrame, n_gallery: int, protocol: str) -> pd.DataFrame:
    length = min(CMC_LENGTH, n_gallery, get_protocol(protocol).depth or CMC_LENGTH)
    curve = metrics.cmc(per_query["first_hit"].dropna().to_numpy(), length)
    return pd.DataFrame({"rank": np.arange(1, length + 1), "cmc": curve})


def true_positive_rates(query: Embeddings, gallery: Embeddings, similarity: Similarity,
                        rates: Sequence[float] = (0.001, 0.01, 0.1)) -> pd.DataFrame:
    """Verification: share of true pairs accepted where at most a share of false ones is.

    Pairs are those that ``standard`` counts; one is accepted if it is more similar than the false
    pair just beyond the false positive rate. Returns columns ``fpr, tpr``.
    """
    rules = get_protocol("standard")
    shown = rules.keeps(False, False, gallery.ids == JUNK_ID, False)  # to people it does not show
    images = pd.Series(gallery.ids[shown]).value_counts()
    n_false = int((shown.sum() - images.reindex(query.ids, fill_value=0)).sum())
    if not n_false:
        raise ValueError("no false pair: query and gallery show one person only")
    keep = int(max(rates) * n_false) + 1  # more than these nearest false pairs is never needed
    true, false, step = [], np.empty(0, np.float32), max(1, match_ranks.ENTRIES // len(gallery.ids))
    for rows in (slice(i, i + step) for i in range(0, len(query.ids), step)):
        values = to_numpy(similarity(rows))
        same = query.ids[rows, None] == gallery.ids[None, :]
        counts = rules.keeps(same, query.cams[rows, None] == gallery.cams[None, :],
                             gallery.ids[None, :] == JUNK_ID, False)
        true.append(values[same & counts])
        false = np.concatenate([false, values[~same & counts]])
        if len(false) > 2 * keep:
            false = np.partition(false, len(false) - keep)[-keep:]
    false = np.sort(false)[::-1]
    accepted = np.concatenate(true)
    beyond = [false[min(int(rate * n_false), len(false) - 1)] for rate in rates]
    return pd.DataFrame({"fpr": rates, "tpr": [float((accepted > v).mean()) for v in beyond]})
