"""Intervals and verdicts hold the level that they promise: simulations with 12, 74, 750 people."""

import numpy as np
import pytest

from reidlib.evaluation import statistics
from reidlib.evaluation.statistics import difference_ends, score_ends, sign_flip, verdict


def drawn_scores(rng, n_people, n_seeds, level, shared=None, seeds=None, rank1=False):
    """Sums of AP (person, seed) and queries a person, as models leave them: many APs are 1.

    ``level``: on the logit scale. ``shared``: what a second model has in common with the first.
    ``seeds``: what each training adds to the level; None: drawn. ``rank1``: hits in place of APs.
    """
    if shared is None:
        counts = rng.integers(1, 5, n_people)
        ids = np.repeat(np.arange(n_people), counts)
        shared = counts, ids, 1.5 * rng.normal(size=n_people)[ids] + rng.normal(size=len(ids))
    counts, ids, common = shared
    logits = (level + common[:, None] + 0.4 * rng.normal(size=(n_people, n_seeds))[ids]
              + (0.15 * rng.normal(size=n_seeds) if seeds is None else seeds)
              + 0.5 * rng.normal(size=(len(ids), n_seeds)))
    ap = 1 / (1 + np.exp(-logits))
    sums = np.zeros((n_people, n_seeds))
    np.add.at(sums, ids, ap > 0.5 if rank1 else np.where(ap > 0.9, 1.0, ap))
    return sums, counts, shared


@pytest.mark.parametrize("n_people, n_seeds", [(12, 3), (74, 3), (750, 3)])
@pytest.mark.parametrize("level", [0.5, 2.5, 4.5])  # mAP of 0.58, 0.85, 0.97; rank-1 0.60 to 0.99
@pytest.mark.parametrize("rank1, most", [(False, 0.97), (True, 1)])  # wide where few are wrong
def test_95_percent_of_the_intervals_of_a_score_hold_its_value(n_people, n_seeds, level, rank1,
                                                              most):
    """The value over all people and all seeds, from 2 million queries by 200 models."""
    rng = np.random.default_rng(0)
    sums, counts, _ = zip(*(drawn_scores(rng, 4000, 1, level, rank1=rank1) for _ in range(200)),
                          strict=True)
    truth = np.sum(sums) / np.sum(counts)
    inside = []
    for _ in range(1500):
        sums, counts, _ = drawn_scores(rng, n_people, n_seeds, level, rank1=rank1)
        _, low, high = score_ends(sums.mean(axis=1), counts, sums.sum(axis=0) / counts.sum())
        inside.append(low <= truth <= high)
    assert 0.93 <= np.mean(inside) <= most


@pytest.mark.parametrize("n_people", [12, 74, 750])
def test_two_equal_systems_differ_in_5_percent_of_the_trials_at_most(n_people, monkeypatch):
    """Each is trained with three seeds; over people alone many of the differences were real."""
    monkeypatch.setattr(statistics, "DRAWS", 399)
    rng, verdicts, alone, inside = np.random.default_rng(7), [], [], []
    for _ in range(400):
        before, counts, shared = drawn_scores(rng, n_people, 3, 2.5)
        after, _, _ = drawn_scores(rng, n_people, 3, 2.5, shared)
        gain = after - before
        value, low, high, p = difference_ends(gain.mean(axis=1), counts,
                                              gain.sum(axis=0) / counts.sum())
        verdicts.append(verdict(value, p) != "undecided")
        inside.append(low <= 0 <= high)
        assert verdicts[-1] <= (not inside[-1])
        alone.append(sign_flip(gain.mean(axis=1)) <= 0.05)
    assert np.mean(verdicts) <= 0.07 and np.mean(inside) >= 0.93
    assert np.mean(alone) > 0.3 or n_people < 100


@pytest.mark.parametrize("n_people, spread, points, least, most", [
    (12, 0.15, 5, 0.93, 1), (74, 0.0, 1.2, 0.93, 1), (74, 0.08, 1.6, 0.93, 1),
    (750, 0.0, 0.4, 0.93, 1), (750, 0.02, 0.5, 0.93, 1),
    (750, 0.08, 1.2, 0.86, 0.9)])  # seeds differ more than people: two are too few
def test_two_seeds_suffice_while_they_differ_less_than_people(n_people, spread, points, least, most,
                                                             monkeypatch):
    """``points`` of mAP: the standard deviation over two seeds is below that, on average."""
    monkeypatch.setattr(statistics, "DRAWS", 19)  # p is not asked for
    rng, inside, by_seed = np.random.default_rng(11), [], []
    for _ in range(1000):
        seeds = spread * rng.normal(size=(2, 2))
        before, counts, shared = drawn_scores(rng, n_people, 2, 2.5, seeds=seeds[0])
        after, _, _ = drawn_scores(rng, n_people, 2, 2.5, shared, seeds[1])
        gain = after - before
        means = gain.sum(axis=0) / counts.sum()
        _, low, high, _ = difference_ends(gain.mean(axis=1), counts, means)
        inside.append(low <= 0 <= high)
        by_seed.append(np.std(means, ddof=1))
    assert least <= np.mean(inside) <= most
    assert points / 2 < 100 * np.mean(by_seed) < points


@pytest.mark.parametrize("n_people", [12, 74, 750])
def test_with_one_seed_intervals_are_those_of_these_models(n_people, monkeypatch):
    """They hold score and difference of two trainings, from 100,000 people, not of all trainings.
    """
    monkeypatch.setattr(statistics, "DRAWS", 19)  # p is not asked for
    rng, of_score, of_difference, of_all = np.random.default_rng(8), [], [], []

    def two_models(n_people, seeds):
        before, counts, shared = drawn_scores(rng, n_people, 1, 2.5, seeds=seeds[0])
        after, _, _ = drawn_scores(rng, n_people, 1, 2.5, shared, seeds[1])
        return before[:, 0], after[:, 0] - before[:, 0], counts

    for _ in range(30):
        seeds = 0.15 * rng.normal(size=2)
        before, gain, counts = two_models(100_000, seeds)
        score, difference = before.sum() / counts.sum(), gain.sum() / counts.sum()
        for _ in range(50):
            before, gain, counts = two_models(n_people, seeds)
            _, low, high = score_ends(before, counts, np.array([before.sum() / counts.sum()]))
            of_score.append(low <= score <= high)
            _, low, high, _ = difference_ends(gain, counts)
            of_difference.append(low <= difference <= high)
            of_all.append(low <= 0 <= high)
    assert 0.93 <= np.mean(of_score) <= 0.97
    assert 0.93 <= np.mean(of_difference) <= 0.97
    assert np.mean(of_all) < 0.9 or n_people < 74
