"""How sure is a score, and is a difference real? Bootstrap over identities.

Queries of one person succeed and fail together, so a resample draws **people**, with replacement,
and takes all queries of each (Field and Welsh 2007, "Bootstrapping clustered data"). An interval
answers "what would other people have given, with these trained models?"; what other training
seeds give is ``std``, a number of its own. With few people (a dozen, say) a percentile
interval is too narrow.

Tables are the per-query tables of ``experiments.records.read_tables``, cut to one results row and
one protocol; queries that were not scored (AP is NaN) are left out, and without a column ``seed``
there is one. Values are fractions in [0, 1].
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from reidlib.utils.errors import check_choice

COLUMNS = {"mAP": "AP", "mINP": "INP", "rank1": "rank1", "rank5": "rank5", "rank10": "rank10"}
BLOCK = 1_000_000  # people drawn at once: some 30 MB, however many resamples
TIE = 12  # decimals: resampled differences nearer than that are equal, whatever order they add in


class Interval(NamedTuple):
    """A score, the ends of its interval, and its standard deviation over seeds (NaN for one)."""

    value: float
    low: float
    high: float
    std: float


class Comparison(NamedTuple):
    """After minus before, the ends of its interval, and how sure the sign is.

    ``share_in_favour``: share of the resamples in which ``after`` is ahead; a tie counts half.
    ``std``: standard deviation over seeds of the difference; NaN unless both sides have the same
    seeds, at least two. ``seeds_up`` of ``seeds``: in how many of the seeds ``after`` is ahead; 0
    of 0 where the two sides have different ones.
    """

    difference: float
    low: float
    high: float
    share_in_favour: float
    std: float
    seeds_up: int
    seeds: int


def interval(per_query: pd.DataFrame, score: str = "mAP", n_resamples: int = 10_000,
             level: float = 0.95, seed: int = 0) -> Interval:
    """A score and its percentile interval.

    The value is each query's mean over seeds, then the plain mean over queries; a resample's value
    is the same over the people it drew. A score that is the same for all people has an interval
    of width 0: no resample can show a failure that was never seen.

    Raises:
        ValueError: unknown score, no scored query, one identity, more than one results row or
            protocol in the table, fewer than 100 resamples, ``level`` outside (0, 1).
    """
    table = _queries_by_seed(per_query, score)
    values = table.mean(axis=1)
    ends = _ends(_resample(values, n_resamples, seed), level)
    return Interval(float(values.mean()), *ends, float(table.mean().std()))


def compare(before: pd.DataFrame, after: pd.DataFrame, score: str = "mAP",
            n_resamples: int = 10_000, level: float = 0.95, seed: int = 0) -> Comparison:
    """How much better is ``after``? Paired: both sides are seen through the same drawn people.

    Each side's per-query score is averaged over its seeds, which may differ, then queries are
    paired by path. The interval is the percentile interval of the mean difference.

    Raises:
        ValueError: as ``interval``, or the two sides score different queries (names up to 5).
    """
    tables = _queries_by_seed(before, score), _queries_by_seed(after, score)
    unmatched = tables[0].index.symmetric_difference(tables[1].index)
    if len(unmatched):
        raise ValueError(f"before scores {len(tables[0])} queries, after {len(tables[1])}, and "
                         f"{len(unmatched)} have no partner: {_names(unmatched)}")
    gain = tables[1].mean(axis=1) - tables[0].mean(axis=1)
    means = _resample(gain, n_resamples, seed).round(TIE)
    share = 0.5 + np.sign(means).mean() / 2
    same_seeds = tables[0].columns.equals(tables[1].columns)
    by_seed = (tables[1] - tables[0]).mean() if same_seeds else pd.Series(dtype=float)
    return Comparison(float(gain.mean()), *_ends(means, level), float(share), float(by_seed.std()),
                      int((by_seed > 0).sum()), len(by_seed))


def verdict(comparison: Comparison) -> str:
    """``better`` or ``worse`` where the interval leaves 0 out and all seeds agree.

    Else ``undecided``.
    """
    if comparison.low > 0 and comparison.seeds_up == comparison.seeds:
        return "better"
    return "worse" if comparison.high < 0 and not comparison.seeds_up else "undecided"


def _queries_by_seed(per_query: pd.DataFrame, score: str) -> pd.DataFrame:
    """Scored queries (rows: id, path; sorted, so file order is of no effect) by seed (columns)."""
    check_choice("score", score, COLUMNS)
    if "seed" not in per_query:
        per_query = per_query.assign(seed=0)
    scored = per_query.dropna(subset=["AP", COLUMNS[score]])
    if scored.empty:
        raise ValueError(f"no scored query: none of {len(per_query)} rows has a {score}")
    twice = scored.duplicated(["path", "seed"])
    if twice.any():
        query = scored[twice].iloc[0]
        raise ValueError(f"query {query['path']} is there twice for seed {query['seed']}: give one "
                         "preset, protocol and flip")
    table = scored.pivot(index=["id", "path"], columns="seed", values=COLUMNS[score])
    partly = table.index[table.isna().any(axis=1)]
    if len(partly):
        raise ValueError(f"{len(partly)} queries are not scored in every seed, or not as the same "
                         f"person: {_names(partly)}")
    return table


def _names(queries: pd.Index) -> str:
    shown = [f"{path} (identity {identity})" for identity, path in queries[:5]]
    return ", ".join(shown) + ", ..." * (len(queries) > 5)


def _resample(values: pd.Series, n_resamples: int, seed: int) -> np.ndarray:
    """Mean over queries in each resample of the identities (index level ``id``)."""
    if n_resamples < 100:
        raise ValueError(f"n_resamples is {n_resamples}; an interval needs at least 100")
    people = values.groupby(level="id").agg(["sum", "count"])
    n = len(people)
    if n < 2:
        raise ValueError(f"all scored queries show identity {people.index[0]}; an interval over "
                         "identities needs at least 2")
    sums, counts = people["sum"].to_numpy(), people["count"].to_numpy(float)
    rng, rows = np.random.default_rng(seed), max(1, BLOCK // n)
    means = np.empty(n_resamples)
    for start in range(0, n_resamples, rows):
        part = means[start:start + rows]
        drawn = rng.integers(n, size=(len(part), n))
        part[:] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means


def _ends(means: np.ndarray, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must lie between 0 and 1")
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
