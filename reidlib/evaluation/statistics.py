"""How sure is a score, and is a difference real? Over people, and over training seeds.

Queries of one person succeed and fail together, so what is independent is a person, not a query.
And a model trained once more gives other scores, so a seed is a source of variance of its own. The
variance of a mean is therefore the sum of two: over people, from the sums of each person's
deviations (a ratio of sums over clusters: Cochran 1977, "Sampling Techniques", Sec. 6.3; divided by
1 - leverage, as such sums are too small where people are few: Bell and McCaffrey 2002), and over
seeds. Intervals take Student's t with the degrees of freedom of that sum (Satterthwaite 1946). The
tests hold them to their level with 12, 74 and 750 people; a percentile bootstrap over 12 people
misses twice as often as it promises.

Tables are the per-query tables of ``experiments.records.read_tables``, cut to one results row and
one protocol; queries that were not scored (AP is NaN) are left out, and without a column ``seed``
there is one, whose variance is then not in the interval. Values are fractions in [0, 1].
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, logit, stdtr, stdtrit

from reidlib.utils.errors import check_choice

COLUMNS = {"mAP": "AP", "mINP": "INP", "rank1": "rank1", "rank5": "rank5", "rank10": "rank10"}
EXACT = 12      # people up to which all sign flips are tried: 2^12
DRAWS = 10_000  # sign flips drawn for more people
BLOCK = 1_000_000  # signs at once
TIE = 1e-12     # sums nearer than that are equal, whatever order they add in


class Interval(NamedTuple):
    """A score, the ends of its interval, and its standard deviation over seeds (NaN for one)."""

    value: float
    low: float
    high: float
    std: float


class Comparison(NamedTuple):
    """After minus before, the ends of its interval, and the probability of as much by chance.

    ``std``: standard deviation over seeds of the difference; NaN unless both sides have the same
    seeds, at least two. ``seeds``: of the side that has fewer; with 1 the variance over seeds is
    missing.
    """

    difference: float
    low: float
    high: float
    p: float
    std: float
    seeds: int


class Spread(NamedTuple):
    """The variance of a mean and its degrees of freedom."""

    variance: float
    freedom: float


def interval(per_query: pd.DataFrame, score: str = "mAP", level: float = 0.95) -> Interval:
    """A score and its interval.

    The value is each query's mean over seeds, then the plain mean over queries. The ends are those
    of a t interval for its logit, so they stay within 0 and 1. Where all people have the same score
    they are exact for the share of people who would have another one (Clopper and Pearson 1934):
    100 % of 12 people have the lower end 73.5 %.

    Raises:
        ValueError: unknown score, no scored query, one identity, more than one results row or
            protocol in the table, ``level`` outside (0, 1).
    """
    table = _queries_by_seed(per_query, score)
    by_seed = table.mean().to_numpy()
    ends = score_ends(*_by_person(table.mean(axis=1)), by_seed, level=level)
    return Interval(*ends, _std(by_seed))


def score_ends(sums: np.ndarray, counts: np.ndarray, *by_seed: np.ndarray, level: float = 0.95
               ) -> tuple[float, float, float]:
    """Value and ends of ``interval``, from each person's sum and number of queries.

    ``by_seed``: the score of each seed.
    """
    value, spread = sums.sum() / counts.sum(), _spread(sums, counts, *by_seed)
    if not spread.variance:
        return float(value), *_exact(float(value), len(sums), level)
    half = _half_width(spread, level) / (value * (1 - value))
    return float(value), *(float(expit(logit(value) + d)) for d in (-half, half))


def compare(before: pd.DataFrame, after: pd.DataFrame, score: str = "mAP", level: float = 0.95
            ) -> Comparison:
    """How much better is ``after``? Paired: query by query, and seed by seed if they are the same.

    The interval is a t interval. ``p`` is the larger of two: that of this interval, for which seeds
    count, and that of the sign-flip test over people, which needs no distribution.

    Raises:
        ValueError: as ``interval``, or the two sides score different queries (names up to 5).
    """
    tables = _queries_by_seed(before, score), _queries_by_seed(after, score)
    unmatched = tables[0].index.symmetric_difference(tables[1].index)
    if len(unmatched):
        raise ValueError(f"before scores {len(tables[0])} queries, after {len(tables[1])}, and "
                         f"{len(unmatched)} have no partner: {_names(unmatched)}")
    gain = tables[1].mean(axis=1) - tables[0].mean(axis=1)
    same_seeds = tables[0].columns.equals(tables[1].columns)
    by_seed = [(tables[1] - tables[0]).mean()] if same_seeds else [t.mean() for t in tables]
    by_seed = [means.to_numpy() for means in by_seed]
    return Comparison(*difference_ends(*_by_person(gain), *by_seed, level=level),
                      _std(by_seed[0]) if same_seeds else float("nan"),
                      min(table.shape[1] for table in tables))


def difference_ends(sums: np.ndarray, counts: np.ndarray, *by_seed: np.ndarray,
                    level: float = 0.95) -> tuple[float, float, float, float]:
    """Difference, ends and p of ``compare``, from each person's sum of gains and its queries.

    ``by_seed``: the difference of each seed, or the score of each seed, of one side and the other.
    """
    _checked(level)
    value, spread = float(sums.sum() / counts.sum()), _spread(sums, counts, *by_seed)
    if not spread.variance:  # everybody gains the same: the signs are all there is
        return value, value, value, sign_flip(sums)
    half = _half_width(spread, level)
    p = 2 * float(stdtr(spread.freedom, -abs(value) / spread.variance ** 0.5))
    return value, value - half, value + half, max(p, sign_flip(sums))


def sign_flip(sums: np.ndarray, seed: int = 0) -> float:
    """Two-sided p of the paired sign-flip test (Fisher 1935): could each sign be the other one?

    ``sums``: after minus before, added up over the queries of each person. If the two sides are
    alike, every pattern of signs was as likely as the one that was seen: p is the share of patterns
    whose sum is at least as far from 0. All of them up to ``EXACT`` people, else ``DRAWS`` of them.
    """
    seen = abs(sums.sum()) - TIE
    if len(sums) <= EXACT:
        signs = 1 - 2 * (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1)
        return float(np.mean(np.abs(signs @ sums) >= seen))
    rng, rows, as_far = np.random.default_rng(seed), max(1, BLOCK // len(sums)), 0
    for start in range(0, DRAWS, rows):
        kept = rng.integers(2, size=(min(rows, DRAWS - start), len(sums)), dtype=np.int8)
        as_far += int((np.abs(2 * (kept.astype(float) @ sums) - sums.sum()) >= seen).sum())
    return (1 + as_far) / (1 + DRAWS)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of one family of comparisons, corrected for their number (Holm 1979)."""
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(factors * p_values[order]))
    return corrected.tolist()


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same with the p-values of one family, see ``holm``."""
    p_values = holm([found.p for found in comparisons])
    return [found._replace(p=p) for found, p in zip(comparisons, p_values, strict=True)]


def verdict(difference: float, p: float) -> str:
    """``better`` or ``worse`` where p, corrected if it has a family, is at most 0.05.

    Else ``undecided``.
    """
    if p > 0.05 or not difference:
        return "undecided"
    return "better" if difference > 0 else "worse"


def _by_person(values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the queries of each person (index level ``id``)."""
    people = values.groupby(level="id").agg(["sum", "count"])
    if len(people) < 2:
        raise ValueError(f"all scored queries show identity {people.index[0]}; an interval over "
                         "identities needs at least 2")
    return people["sum"].to_numpy(), people["count"].to_numpy(float)


def _std(by_seed: np.ndarray) -> float:
    return float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else float("nan")


def _spread(sums: np.ndarray, counts: np.ndarray, *by_seed: np.ndarray) -> Spread:
    """The variance of a mean over people and, where there are several, over seeds."""
    total = counts.sum()
    shares, deviations = counts / total, (sums - counts * sums.sum() / total) / total
    parts = [((deviations ** 2 / (1 - shares)).sum(), 1 / (shares ** 2).sum() - 1)]
    parts += [(np.var(means, ddof=1) / len(means), len(means) - 1) for means in by_seed
              if len(means) > 1]
    parts = [(variance, freedom) for variance, freedom in parts if variance > TIE ** 2]
    variance = float(sum(part for part, _ in parts))
    freedom = variance ** 2 / sum(part ** 2 / own for part, own in parts) if parts else np.inf
    return Spread(variance, float(freedom))


def _half_width(spread: Spread, level: float) -> float:
    return float(stdtrit(spread.freedom, (1 + _checked(level)) / 2)) * spread.variance ** 0.5


def _exact(value: float, people: int, level: float) -> tuple[float, float]:
    """Ends where all people have one value: for the share of people who would have another."""
    alike = ((1 - _checked(level)) / 2) ** (1 / people)
    return value * alike, 1 - (1 - value) * alike


def _checked(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must lie between 0 and 1")
    return level


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
