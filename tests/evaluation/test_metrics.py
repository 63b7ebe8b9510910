import numpy as np
import pytest
from pytest import approx
from sklearn.metrics import average_precision_score

from reidlib.evaluation import metrics


def ragged(*rows):
    """Ranks of each query's matches, one query after the other, and how many each has."""
    return np.concatenate(rows).astype(int), np.array([len(row) for row in rows])


def random_rows(seed, n=5, length=30):
    rng = np.random.default_rng(seed)
    return [np.sort(rng.choice(length, rng.integers(1, 8), replace=False)) + 1 for _ in range(n)]


def hits(ranks, length=30):
    row = np.zeros(length, bool)
    row[np.asarray(ranks) - 1] = True
    return row


def slow_rectangle(row):
    precisions, found = [], 0
    for rank, hit in enumerate(row, 1):
        if hit:
            found += 1
            precisions.append(found / rank)
    return sum(precisions) / found if found else 0.0


def slow_trapezoid(row):
    """The area between recall steps, precision interpolated linearly from 1."""
    area, found, recall, precision = 0.0, 0, 0.0, 1.0
    for rank, hit in enumerate(row, 1):
        found += hit
        new_recall, new_precision = found / sum(row), found / rank
        area += (new_recall - recall) * (precision + new_precision) / 2
        recall, precision = new_recall, new_precision
    return area


def test_ap_by_hand():
    ranks = ragged([2, 3], [1, 2])
    assert metrics.average_precision(*ranks).tolist() == approx([(1 / 2 + 2 / 3) / 2, 1.0])
    # matches at 2 and 3, from precision 1: recall steps of 1/2, (0 + 1/2)/2 and (1/2 + 2/3)/2
    assert metrics.average_precision(*ranks, "trapezoid").tolist() == approx(
        [(0 + 1 / 2) / 4 + (1 / 2 + 2 / 3) / 4, 1.0])


@pytest.mark.parametrize("seed", range(20))
def test_ap_equals_the_slow_definitions_and_sklearn(seed):
    rows = random_rows(seed)
    rectangle = metrics.average_precision(*ragged(*rows))
    assert rectangle == approx([slow_rectangle(hits(row)) for row in rows])
    assert rectangle == approx([average_precision_score(hits(row), -np.arange(30))
                                for row in rows])
    assert metrics.average_precision(*ragged(*rows), "trapezoid") == approx(
        [slow_trapezoid(hits(row)) for row in rows])


@pytest.mark.parametrize("seed", range(20))
def test_top10_equals_the_slow_definition(seed):
    rows = random_rows(seed)
    assert metrics.average_precision_at(*ragged(*rows), 10) == approx(
        [slow_rectangle(hits(row)[:10]) for row in rows])


def test_top10_forgets_what_it_did_not_find():
    ap = metrics.average_precision_at(*ragged([1, 12], [2, 4, 11], [11]), 10)
    assert ap == approx([1.0, (1 / 2 + 2 / 4) / 2, 0.0])      # the miss at 12 costs nothing


def test_first_match_and_inverse_negative_penalty():
    ranks = ragged([3, 5, 8], [1, 2], [4])
    assert metrics.first_match(*ranks).tolist() == [3, 1, 4]
    assert metrics.inverse_negative_penalty(*ranks).tolist() == approx([3 / 8, 1.0, 1 / 4])


def test_cmc_is_the_share_found_so_far():
    assert metrics.cmc(np.array([1, 3, np.inf, 2]), 4).tolist() == [0.25, 0.5, 0.75, 0.75]


@pytest.mark.parametrize("score", [
    metrics.average_precision, metrics.first_match, metrics.inverse_negative_penalty,
    lambda *ranks: metrics.average_precision_at(*ranks, 10)])
def test_a_query_without_a_match_is_an_error(score):
    with pytest.raises(ValueError, match="without a match has no score"):
        score(np.array([1]), np.array([1, 0]))
    with pytest.raises(ValueError, match="add up to 3, but there are 1"):
        score(np.array([1]), np.array([3]))


def test_unknown_rule():
    with pytest.raises(ValueError, match="unknown rule 'mean'"):
        metrics.average_precision(*ragged([1]), "mean")
