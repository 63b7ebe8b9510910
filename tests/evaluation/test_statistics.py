import numpy as np
import pandas as pd
import pytest
from pytest import approx
from scipy import stats

from reidlib.evaluation import statistics
from reidlib.evaluation.statistics import (
    Comparison,
    compare,
    holm,
    interval,
    sign_flip,
    verdict,
)
from reidlib.experiments import records


def per_query(ids, ap, seed=0, **columns):
    """A run's table; queries are named by their position."""
    n = len(ids)
    ap = np.asarray(ap, float)
    first_hit = np.where(ap > 0.5, 1.0, 7.0)
    ranks = {f"rank{k}": (first_hit <= k).astype(float) for k in (1, 5, 10)}
    return pd.DataFrame({"path": [f"{i:04d}.png" for i in range(n)], "id": list(map(str, ids)),
                         "cam": "a", "AP": ap, "INP": ap / 2, **ranks, "seed": seed, **columns})


def people(rng, n=60, most=7):
    """1 to ``most`` queries of each person: the number differs, as in every data set."""
    return np.repeat(np.arange(n), rng.integers(1, most + 1, n))


def correlated(rng, ids, together=0.1, alone=0.1):
    """A number a query, part of which all queries of a person share."""
    return together * rng.normal(size=ids.max() + 1)[ids] + alone * rng.normal(size=len(ids))


def random_runs(rng, ids, seeds, level=0.6):
    common = level + correlated(rng, ids)
    return pd.concat([per_query(ids, common + correlated(rng, ids, 0.03, 0.03), s) for s in seeds],
                     ignore_index=True)


SCORES = {"mAP": "AP", "mINP": "INP", "rank1": "rank1", "rank5": "rank5", "rank10": "rank10"}


def test_scores_are_those_of_the_tables():
    assert list(statistics.COLUMNS) == records.SCORES == list(SCORES)


def test_a_table_without_seeds_is_one_seed():
    before, after = (per_query([1, 1, 2], ap) for ap in ([0.1, 0.2, 0.3], [0.3, 0.2, 0.4]))
    assert compare(*(table.drop(columns="seed") for table in (before, after)))[:4] == compare(
        before, after)[:4]


def test_with_one_query_a_person_a_difference_is_the_paired_t_test():
    rng = np.random.default_rng(4)
    before, after = rng.beta(4, 2, 20), rng.beta(4, 2, 20)
    theirs = stats.ttest_rel(after, before)
    ends = theirs.confidence_interval()
    found = compare(per_query(range(20), before), per_query(range(20), after))
    assert (found.difference, found.low, found.high) == approx(
        ((after - before).mean(), ends.low, ends.high))
    assert found.p == approx(max(theirs.pvalue, sign_flip(after - before)))


@pytest.mark.parametrize("score", SCORES)
def test_a_score_has_the_t_interval_of_its_logit(score):
    """With as many queries a person, the error is that of the mean over people."""
    rng = np.random.default_rng(1)
    ids = np.repeat(np.arange(9), 4)
    table = per_query(ids, correlated(rng, ids) + 0.5)
    for name in ("rank1", "rank5", "rank10"):
        table[name] = rng.choice([0.0, 0.3, 1.0], len(ids))
    means = table.groupby("id")[SCORES[score]].mean()
    value = means.mean()
    error = stats.sem(means) / (value * (1 - value))  # d logit(x) / dx = 1 / (x (1 - x))
    ends = np.log(value / (1 - value)) + np.array(stats.t.interval(0.95, 8, scale=error))
    found = interval(table, score)
    assert found[:3] == approx((value, *1 / (1 + np.exp(-ends))))


def test_people_with_many_queries_weigh_more_and_leave_fewer_degrees_of_freedom():
    """By hand: sums 3, 1 and 1 of 3, 1 and 4 queries: mean 5/8, deviations 9/8, 3/8 and -12/8."""
    value, low, high, _ = interval(per_query(list("AAABCCCC"), [1, 1, 1, 1, 1, 0, 0, 0]))
    variance = sum((d / 8 / 8) ** 2 / (1 - n / 8) for d, n in ((9, 3), (3, 1), (-12, 4)))
    freedom = 64 / (3 * 3 + 1 * 1 + 4 * 4) - 1
    half = stats.t.ppf(0.975, freedom) * variance ** 0.5 / (5 / 8 * 3 / 8)
    assert value == 5 / 8
    assert np.log(np.divide([low, high], [1 - low, 1 - high])) == approx(
        [np.log(5 / 3) - half, np.log(5 / 3) + half])


def test_an_interval_agrees_with_the_large_sample_formula_for_unequal_people():
    """Cochran (1977, eq. 6.13): the standard error of a ratio of sums over clusters."""
    rng = np.random.default_rng(3)
    ids = people(rng, 400)
    table = per_query(ids, 0.5 + correlated(rng, ids))
    value, low, high, _ = interval(table)
    left = (table["AP"] - value).groupby(table["id"]).sum()
    error = np.sqrt((left ** 2).sum()) / len(ids)
    assert (high - low) / 2 == approx(1.96 * error, rel=0.02)
    assert (high + low) / 2 == approx(value, abs=0.1 * error)


@pytest.mark.parametrize("value, right", [(1.0, 12), (0.0, 0)])
def test_where_nobody_failed_the_interval_is_that_of_a_share_of_people(value, right):
    ids = np.repeat(np.arange(12), [3, 2, 3, 2, 3, 2, 3, 2, 2, 2, 2, 2])
    ends = stats.binomtest(right, 12).proportion_ci(method="exact")
    assert interval(per_query(ids, np.full(28, value)))[:3] == approx((value, ends.low, ends.high))


def test_seeds_alone_are_welchs_t_test():
    """Nobody differs from anybody: what is left are the seeds of one side and of the other."""
    before, after = [0.50, 0.56, 0.53], [0.61, 0.58, 0.66, 0.60]
    ids = list("AABBCC")
    sides = [pd.concat([per_query(ids, np.full(6, level), seed) for seed, level in enumerate(side)])
             for side in (before, after)]
    theirs = stats.ttest_ind(after, before, equal_var=False)
    ends = theirs.confidence_interval()
    found = compare(*sides)
    assert (found.low, found.high) == approx((ends.low, ends.high))
    assert found.p == max(theirs.pvalue, sign_flip(np.full(3, 0.08))) == 0.25
    assert np.isnan(found.std) and found.seeds == 3


def test_the_same_seeds_are_paired():
    rng = np.random.default_rng(10)
    ids = people(rng)
    before, after = random_runs(rng, ids, (0, 1, 2)), random_runs(rng, ids, (0, 1, 2), 0.7)
    by_seed = after.groupby("seed")["AP"].mean() - before.groupby("seed")["AP"].mean()
    found = compare(before, after)
    assert found.std == approx(by_seed.std()) and found.difference == approx(by_seed.mean())
    assert found.seeds == 3
    other = compare(before, after[after["seed"] > 0])
    assert np.isnan(other.std) and other.seeds == 2


def test_other_seeds_make_an_interval_wider():
    """A person's mean over seeds stays, the seeds move apart."""
    rng = np.random.default_rng(13)
    ids = people(rng)
    level = 0.6 + correlated(rng, ids)
    widths = [np.subtract(*interval(pd.concat([per_query(ids, level + d, seed) for seed, d in
                                               enumerate((-apart, 0, apart))]))[2:0:-1])
              for apart in (0, 0.02, 0.04)]
    assert widths[0] < widths[1] < widths[2]
    assert widths[0] == approx(np.subtract(*interval(per_query(ids, level))[2:0:-1]))


def test_pairing_removes_what_both_sides_share():
    rng = np.random.default_rng(6)
    ids = people(rng)
    before = per_query(ids, 0.5 + correlated(rng, ids))
    shift = compare(before, before.assign(AP=before["AP"] + 0.01 + correlated(rng, ids, 0.01, 0)))
    alone = interval(before)
    assert alone.high - alone.low > 5 * (shift.high - shift.low)


@pytest.mark.parametrize("n", [4, 9, 12])
def test_up_to_12_people_the_sign_flip_test_is_exact(n):
    gains = np.random.default_rng(n).normal(0.3, 1, n).round(1)  # rounded: some patterns tie
    theirs = stats.permutation_test((gains, -gains), lambda a, b, axis: (a - b).mean(axis),
                                    permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(gains) == approx(theirs.pvalue)


def test_with_more_people_the_sign_flip_test_draws_with_a_seed(monkeypatch):
    gains = np.random.default_rng(2).normal(0.3, 1, 12)
    exact = sign_flip(gains)
    monkeypatch.setattr(statistics, "EXACT", 11)
    monkeypatch.setattr(statistics, "BLOCK", 12 * 3000)  # four blocks, the last not full
    assert sign_flip(gains) == approx(exact, abs=0.015) == sign_flip(gains)
    assert sign_flip(gains) != sign_flip(gains, seed=1)
    assert sign_flip(np.full(60, 0.1)) == 1 / 10_001


def test_a_known_shift_is_found():
    rng = np.random.default_rng(8)
    ids = people(rng, 200)
    before = random_runs(rng, ids, (0, 1, 2))
    after = before.assign(AP=before["AP"] + 0.03 + correlated(rng, np.tile(ids, 3), 0.02, 0.1))
    up, down = compare(before, after), compare(after, before)
    assert verdict(up.difference, up.p) == "better" and up.low < 0.03 < up.high and up.p < 0.02
    assert verdict(down.difference, down.p) == "worse"
    assert down == approx((-up.difference, -up.high, -up.low, up.p, up.std, 3))


def test_a_table_against_itself_is_no_difference():
    rng = np.random.default_rng(9)
    table = random_runs(rng, people(rng, 12), (0, 1))
    found = compare(table, table)
    assert found == Comparison(0, 0, 0, 1, 0, 2)
    assert verdict(found.difference, found.p) == "undecided"


def test_holm_by_hand():
    """Holm (1979): the smallest of four times 4, the next times 3, and never below the one before.
    """
    assert holm([0.01, 0.04, 0.03, 0.005]) == approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.9]) == approx([0.8, 0.9]) and holm([0.7, 0.6]) == [1, 1] and holm([]) == []


@pytest.mark.parametrize("difference, p, word", [
    (0.01, 0.05, "better"), (-0.01, 0.05, "worse"), (0.01, 0.051, "undecided"),
    (-0.01, 0.9, "undecided"), (0.0, 0.0, "undecided")])
def test_verdict(difference, p, word):
    assert verdict(difference, p) == word


def test_order_of_rows_has_no_effect():
    rng = np.random.default_rng(11)
    ids = people(rng)
    before, after = random_runs(rng, ids, (0, 1)), random_runs(rng, ids, (0, 1))
    shuffled = [t.sample(frac=1, random_state=i) for i, t in enumerate((before, after))]
    for score in SCORES:
        assert interval(before, score) == interval(shuffled[0], score)
        assert compare(before, after, score) == compare(*shuffled, score)


def test_queries_that_were_not_scored_are_ignored():
    rng = np.random.default_rng(12)
    ids = people(rng)
    table = random_runs(rng, ids, (0, 1))
    unscored = per_query(["x", "0"], [np.nan, np.nan], rank1=np.nan, path=["x.png", "y.png"])
    longer = pd.concat([unscored, table], ignore_index=True)
    for score in SCORES:
        assert interval(longer, score) == interval(table, score)
    assert compare(table, longer) == compare(table, table)


TABLE = per_query(list("AAB"), [0.1, 0.2, 0.3])


@pytest.mark.parametrize("change, options, message", [
    ({}, {"score": "map"}, "unknown score 'map'; known: mAP, mINP, rank1"),
    ({"AP": np.nan}, {}, "no scored query: none of 3 rows has a mAP"),
    ({"INP": np.nan}, {"score": "mINP"}, "no scored query: none of 3 rows has a mINP"),
    ({"id": "A"}, {}, "all scored queries show identity A; .* needs at least 2"),
    ({"path": "q.png"}, {}, "q.png is there twice for seed 0: give one preset, protocol and flip"),
    ({"seed": [0, 0, 1]}, {}, r"3 queries are not scored in every seed.*0000.png \(identity A\)"),
    ({}, {"level": 95.0}, "level is 95.0; it must lie between 0 and 1"),
])
def test_bad_input(change, options, message):
    table = TABLE.assign(**change)
    with pytest.raises(ValueError, match=message):
        interval(table, **options)
    with pytest.raises(ValueError, match=message):
        compare(table, table, **options)


def test_sides_must_score_the_same_queries():
    table = per_query(range(9), np.full(9, 0.5))
    with pytest.raises(ValueError, match=r"before scores 9 queries, after 8, and 1 have no partner:"
                                         r" 0004.png \(identity 4\)$"):
        compare(table, table.assign(AP=table["AP"].where(table["id"] != "4")))
    other = table.assign(path="other-" + table["path"])
    with pytest.raises(ValueError, match="18 have no partner") as error:
        compare(table, other)
    assert str(error.value).count("identity") == 5 and str(error.value).endswith("...")
    with pytest.raises(ValueError, match="have no partner"):
        compare(table, table.assign(id=table["id"].replace({"1": "one"})))
