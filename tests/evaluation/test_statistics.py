import numpy as np
import pandas as pd
import pytest
from pytest import approx
from scipy import stats

from reidlib.evaluation import statistics
from reidlib.evaluation.statistics import Comparison, compare, interval, verdict
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


def slow_ends(table, score_of, n_resamples, seed=0):
    """The definition: draw people, write all their queries down, take the mean."""
    rng, persons, means = np.random.default_rng(seed), sorted(set(table["id"])), []
    for _ in range(n_resamples):
        drawn = []
        for person in rng.integers(len(persons), size=len(persons)):
            drawn.extend(score_of(table[table["id"] == persons[person]]))
        means.append(sum(drawn) / len(drawn))
    return np.percentile(means, 2.5), np.percentile(means, 97.5)

SLOW = {"mAP": lambda t: t["AP"].tolist(), "mINP": lambda t: t["INP"].tolist(),
        "rank1": lambda t: t["rank1"].tolist(), "rank5": lambda t: t["rank5"].tolist(),
        "rank10": lambda t: t["rank10"].tolist()}


def test_scores_are_those_of_the_tables():
    assert list(statistics.COLUMNS) == records.SCORES == list(SLOW)


def test_a_table_without_seeds_is_one_seed():
    before, after = (per_query([1, 1, 2], ap) for ap in ([0.1, 0.2, 0.3], [0.3, 0.2, 0.4]))
    assert compare(*(table.drop(columns="seed") for table in (before, after)))[:4] == compare(
        before, after)[:4]


@pytest.mark.parametrize("score", SLOW)
def test_interval_equals_the_slow_loop(score, monkeypatch):
    rng = np.random.default_rng(1)
    ids = people(rng, 12)
    table = per_query(ids, correlated(rng, ids) + 0.5)
    for name in ("rank1", "rank5", "rank10"):
        table[name] = rng.choice([0.0, 0.3, 1.0], len(ids))
    monkeypatch.setattr(statistics, "BLOCK", 50)  # several blocks, and a last one that is not full
    found = interval(table, score, n_resamples=150)
    assert found.value == approx(np.mean(SLOW[score](table)))
    assert (found.low, found.high) == approx(slow_ends(table, SLOW[score], 150))


def test_by_hand():
    """A has APs 1, 1, 1 and B 0: the draws AA, AB, BA, BB give 1, 3/4, 3/4, 0."""
    table = per_query(list("AAAB"), [1, 1, 1, 0])
    assert interval(table) == approx((0.75, 0, 1, np.nan), nan_ok=True)
    narrow = interval(table, level=0.4)  # 30 % to 70 % of the draws: inside the AB half
    assert (narrow.low, narrow.high) == (0.75, 0.75)


def test_seeds_are_averaged_before_people_are_drawn():
    first, second = per_query(list("AAB"), [1, 0, 0.5]), per_query(list("AAB"), [0, 0, 0], seed=1)
    found = interval(pd.concat([first, second], ignore_index=True))
    assert found[:3] == interval(per_query(list("AAB"), [0.5, 0, 0.25]))[:3]
    assert found.value == approx(0.25) and found.std == approx(np.std([0.5, 0], ddof=1))
    assert np.isnan(interval(first).std)


def test_interval_agrees_with_scipy_where_everybody_has_one_query():
    ap = np.random.default_rng(2).beta(4, 2, 150)
    theirs = stats.bootstrap((ap,), np.mean, method="percentile", n_resamples=10_000,
                             rng=np.random.default_rng(5)).confidence_interval
    found = interval(per_query(range(150), ap))
    assert (found.low, found.high) == approx((theirs.low, theirs.high), abs=0.0025)  # width 0.06


def test_interval_agrees_with_the_large_sample_formula_for_unequal_people():
    """Cochran (1977, eq. 6.13): the standard error of a ratio of sums over clusters."""
    rng = np.random.default_rng(3)
    ids = people(rng, 400)
    table = per_query(ids, 0.5 + correlated(rng, ids))
    value, low, high, _ = interval(table)
    left = (table["AP"] - value).groupby(table["id"]).sum()
    error = np.sqrt((left ** 2).sum()) / len(ids)
    assert (high - low) / 2 == approx(1.96 * error, rel=0.05)
    assert (high + low) / 2 == approx(value, abs=0.1 * error)


def test_paired_comparison_agrees_with_scipy():
    rng = np.random.default_rng(4)
    ap = rng.beta(4, 2, 150)
    better = ap + rng.normal(0.01, 0.05, 150)
    theirs = stats.bootstrap((better, ap), lambda b, a, axis: (b - a).mean(axis), paired=True,
                             method="percentile", n_resamples=10_000,
                             rng=np.random.default_rng(5))
    found = compare(per_query(range(150), ap), per_query(range(150), better))
    assert found.difference == approx((better - ap).mean())
    ends = theirs.confidence_interval
    assert (found.low, found.high) == approx((ends.low, ends.high), abs=0.0008)  # width 0.016
    assert found.share_in_favour == approx((theirs.bootstrap_distribution > 0).mean(), abs=0.02)


def test_pairing_removes_what_both_sides_share():
    rng = np.random.default_rng(6)
    ids = people(rng)
    before = per_query(ids, 0.5 + correlated(rng, ids))
    shift = compare(before, before.assign(AP=before["AP"] + 0.01 + correlated(rng, ids, 0.01, 0)))
    alone = interval(before)
    assert alone.high - alone.low > 5 * (shift.high - shift.low)


def test_equal_systems_cover_zero_over_identities_but_not_over_queries():
    """Two equal systems, each better on some people: 95 % of the intervals must hold 0."""
    rng, inside = np.random.default_rng(7), {"identities": [], "queries": []}
    for repetition in range(500):
        ids = people(rng)
        base = per_query(ids, 0.6 + correlated(rng, ids))
        other = base.assign(AP=base["AP"] + correlated(rng, ids))
        sides = {"identities": (base, other)}
        if repetition < 100:  # every query its own person: the usual bootstrap
            sides["queries"] = base.assign(id=base["path"]), other.assign(id=base["path"])
        for unit, (before, after) in sides.items():
            found = compare(before, after, n_resamples=400, seed=repetition)
            inside[unit].append(verdict(found) == "undecided")
    assert 0.92 <= np.mean(inside["identities"]) <= 0.98
    assert np.mean(inside["queries"]) < 0.85


def test_a_known_shift_is_found():
    rng = np.random.default_rng(8)
    ids = people(rng, 200)
    before = random_runs(rng, ids, (0, 1, 2))
    after = before.assign(AP=before["AP"] + 0.03 + correlated(rng, np.tile(ids, 3), 0.02, 0.1))
    up, down = compare(before, after), compare(after, before)
    assert verdict(up) == "better" and up.low < 0.03 < up.high and up.share_in_favour > 0.99
    assert verdict(down) == "worse"
    assert (up.seeds_up, down.seeds_up, up.seeds) == (3, 0, 3)
    assert down[:5] == approx((-up.difference, -up.high, -up.low, 1 - up.share_in_favour, up.std))
    other_seeds = compare(before, after.assign(seed=after["seed"] + 3))
    assert (other_seeds.seeds_up, other_seeds.seeds) == (0, 0) and verdict(other_seeds) == "better"


def test_a_table_against_itself_is_a_tie():
    rng = np.random.default_rng(9)
    table = random_runs(rng, people(rng), (0, 1))
    assert compare(table, table) == Comparison(0, 0, 0, 0.5, 0, 0, 2)


def test_ties_count_half_whatever_order_they_add_in():
    """Gains 0.1, 0.2, -0.3: of 27 draws 11 are up and 6 tie (floats: 0.1 + 0.2 - 0.3 > 0)."""
    found = compare(per_query("ABC", [0, 0, 0.3]), per_query("ABC", [0.1, 0.2, 0]))
    assert found.share_in_favour == approx((11 + 6 / 2) / 27, abs=0.015)


@pytest.mark.parametrize("low, high, seeds_up, word", [
    (0.01, 0.02, 3, "better"), (-0.02, -0.01, 0, "worse"), (-0.01, 0.01, 3, "undecided"),
    (0.0, 0.01, 3, "undecided"), (-0.01, 0.0, 0, "undecided"),
    (0.01, 0.02, 2, "undecided"), (-0.02, -0.01, 1, "undecided")])
def test_verdict(low, high, seeds_up, word):
    assert verdict(Comparison(0.0, low, high, 0.5, 0.0, seeds_up, 3)) == word


def test_std_over_seeds_is_paired_and_needs_the_same_seeds():
    rng = np.random.default_rng(10)
    ids = people(rng)
    before, after = random_runs(rng, ids, (0, 1, 2)), random_runs(rng, ids, (0, 1, 2), 0.7)
    by_seed = after.groupby("seed")["AP"].mean() - before.groupby("seed")["AP"].mean()
    assert compare(before, after).std == approx(by_seed.std())
    assert compare(before, after).difference == approx(by_seed.mean())
    fewer = after[after["seed"] > 0]
    other = compare(before, fewer)
    assert np.isnan(other.std)
    assert other.difference == approx(fewer["AP"].mean() - before["AP"].mean())


def test_order_of_rows_has_no_effect_and_the_seed_decides():
    rng = np.random.default_rng(11)
    ids = people(rng)
    before, after = random_runs(rng, ids, (0, 1)), random_runs(rng, ids, (0, 1))
    shuffled = [t.sample(frac=1, random_state=i) for i, t in enumerate((before, after))]
    for score in SLOW:
        assert interval(before, score) == interval(shuffled[0], score)
        assert compare(before, after, score) == compare(*shuffled, score)
    assert interval(before, seed=1) != interval(before) == interval(before, seed=0)


def test_queries_that_were_not_scored_are_ignored():
    rng = np.random.default_rng(12)
    ids = people(rng)
    table = random_runs(rng, ids, (0, 1))
    unscored = per_query(["x", "0"], [np.nan, np.nan], rank1=np.nan, path=["x.png", "y.png"])
    longer = pd.concat([unscored, table], ignore_index=True)
    for score in SLOW:
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
    ({}, {"n_resamples": 99}, "n_resamples is 99; an interval needs at least 100"),
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
