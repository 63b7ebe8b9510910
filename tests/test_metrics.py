import numpy as np
import pytest
from pytest import approx
from sklearn.metrics import average_precision_score

from reidlib import metrics


def row(*ranks, length=12):
    hits = np.zeros(length, bool)
    hits[np.array(ranks) - 1] = True
    return hits


def random_row(seed, length=30):
    hits = np.random.default_rng(seed).random(length) < 0.2
    hits[seed % length] = True
    return hits


def slow_rectangle(hits):
    precisions, found = [], 0
    for rank, hit in enumerate(hits, 1):
        if hit:
            found += 1
            precisions.append(found / rank)
    return sum(precisions) / found


def slow_trapezoid(hits):
    """The area between recall steps, precision interpolated linearly from 1."""
    area, found, recall, precision = 0.0, 0, 0.0, 1.0
    for rank, hit in enumerate(hits, 1):
        found += hit
        new_recall, new_precision = found / sum(hits), found / rank
        area += (new_recall - recall) * (precision + new_precision) / 2
        recall, precision = new_recall, new_precision
    return area


def test_ap_by_hand():
    assert metrics.average_precision(row(2, 3)) == approx((1 / 2 + 2 / 3) / 2)
    assert metrics.average_precision(row(1, 2)) == 1.0
    # hits at 2 and 3, from precision 1: steps of recall 1/2, (0 + 1/2)/2 and (1/2 + 2/3)/2
    assert metrics.average_precision(row(2, 3), "trapezoid") == approx(
        (0 + 1 / 2) / 4 + (1 / 2 + 2 / 3) / 4)


@pytest.mark.parametrize("seed", range(20))
def test_ap_equals_the_slow_definitions_and_sklearn(seed):
    hits = random_row(seed)
    assert metrics.average_precision(hits) == approx(slow_rectangle(hits))
    assert metrics.average_precision(hits) == approx(
        average_precision_score(hits, -np.arange(len(hits))))
    assert metrics.average_precision(hits, "trapezoid") == approx(slow_trapezoid(hits))


def test_top10_forgets_what_it_did_not_find():
    assert metrics.average_precision_at(row(1, 12), 10) == 1.0      # the miss at 12 costs nothing
    assert metrics.average_precision_at(row(2, 4, 11), 10) == approx((1 / 2 + 2 / 4) / 2)
    assert metrics.average_precision_at(row(11), 10) == 0.0
    assert metrics.average_precision(row(1, 12)) == approx((1 + 2 / 12) / 2)


def test_first_hit_and_inverse_negative_penalty():
    assert metrics.first_hit(row(3, 5)) == 3
    assert metrics.inverse_negative_penalty(row(3, 8)) == 2 / 8
    assert metrics.inverse_negative_penalty(row(1, 2)) == 1.0


def test_cmc_is_the_share_found_so_far():
    assert metrics.cmc(np.array([1, 3, np.inf, 2]), 4).tolist() == [0.25, 0.5, 0.75, 0.75]


@pytest.mark.parametrize("score", [metrics.average_precision, metrics.first_hit,
                                   metrics.inverse_negative_penalty,
                                   lambda hits: metrics.average_precision_at(hits, 10)])
def test_a_query_without_a_match_is_an_error(score):
    with pytest.raises(ValueError, match="no relevant gallery image"):
        score(np.zeros(5, bool))


def test_bad_input():
    with pytest.raises(ValueError, match="unknown rule 'mean'"):
        metrics.average_precision(row(1), "mean")
    with pytest.raises(ValueError, match="booleans"):
        metrics.average_precision(np.array([1, 0]))
