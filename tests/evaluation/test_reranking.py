import numpy as np
import pytest

from reidlib.evaluation import reranking
from reidlib.evaluation.metrics import average_precision
from reidlib.evaluation.reranking import rerank


def clustered(seed, n_query, n_gallery, dim=8, people=5):
    """Noisy features of a few people, of any length."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, dim))
    features = centres[rng.integers(0, people, n_query + n_gallery)]
    features = (features + 0.6 * rng.normal(size=features.shape)).astype(np.float32)
    return features[:n_query], features[n_query:]


def slow_original(query, gallery):
    """Squared Euclidean distances of all images, each row divided by its largest."""
    points = np.concatenate([query, gallery]).astype(float)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    squared = ((points[:, None] - points[None]) ** 2).sum(2)
    return squared / squared.max(1, keepdims=True)


def slow_rerank(query, gallery, k1, k2, weight):
    """The definition, one image at a time, with dense matrices and Python sets."""
    distance = slow_original(query, gallery)
    n = len(distance)
    ranked = [sorted(range(n), key=lambda g: (distance[p, g], g)) for p in range(n)]

    def reciprocal(p, k):
        return {g for g in ranked[p][:k + 1] if p in ranked[g][:k + 1]}

    encoding = np.zeros((n, n))
    for p in range(n):
        members = set(reciprocal(p, k1))
        for candidate in reciprocal(p, k1):
            other = reciprocal(candidate, int(np.around(k1 / 2)))
            if len(other & reciprocal(p, k1)) * 3 > 2 * len(other):
                members |= other
        for g in members:
            encoding[p, g] = np.exp(-distance[p, g])
        if members:
            encoding[p] /= encoding[p].sum()
    if k2 > 1:
        encoding = np.array([np.mean([encoding[g] for g in ranked[p][:k2]], 0) for p in range(n)])
    final = np.zeros((len(query), len(gallery)))
    for i in range(len(query)):
        for j in range(len(gallery)):
            shared = np.minimum(encoding[i], encoding[len(query) + j]).sum()
            jaccard = 1 - shared / (2 - shared)
            final[i, j] = (1 - weight) * jaccard + weight * distance[i, len(query) + j]
    return final


@pytest.mark.parametrize(("n_query", "n_gallery", "k1", "k2", "weight"), [
    (4, 40, 20, 6, 0.3), (12, 48, 20, 6, 0.3), (10, 30, 7, 3, 0.5), (30, 10, 9, 4, 0.3),
    (5, 20, 5, 1, 0.0), (6, 24, 1, 1, 0.1), (6, 12, 17, 6, 0.3), (6, 12, 16, 16, 0.7),
    (4, 5, 8, 8, 0.3), (1, 15, 3, 2, 0.3), (15, 1, 6, 2, 1.0), (1, 1, 1, 1, 0.3)])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_slow_definition(seed, n_query, n_gallery, k1, k2, weight):
    query, gallery = clustered(seed, n_query, n_gallery)
    fast = rerank(query, gallery, k1, k2, weight)
    assert fast.shape == (n_query, n_gallery) and fast.dtype == np.float32
    np.testing.assert_allclose(fast, slow_rerank(query, gallery, k1, k2, weight), atol=1e-5)


@pytest.mark.parametrize(("k1", "k2"), [(2, 2), (2, 1), (4, 1), (4, 2), (9, 2)])
@pytest.mark.parametrize("different", [2, 5, 18, 27])
@pytest.mark.parametrize("seed", range(3))
def test_copies_of_an_image_go_by_index(seed, different, k1, k2):
    """Lists end within a tie, and the later copies drop out of their own."""
    images = clustered(seed, 1, different - 1)
    which = np.random.default_rng(seed).permutation(np.arange(30) % different)
    copies = np.concatenate(images)[which]
    query, gallery = copies[:6], copies[6:]
    want = slow_rerank(query, gallery, k1, k2, 0.3)
    np.testing.assert_allclose(rerank(query, gallery, k1, k2, 0.3), want, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_blocks_do_not_show(seed, monkeypatch):
    query, gallery = clustered(seed, 11, 50)
    full = rerank(query, gallery, 8, 4)
    for name in ("SEARCH_ROWS", "EXACT_ROWS", "PAIRS", "JACCARD_ROWS"):
        monkeypatch.setattr(reranking, name, 7)
    np.testing.assert_allclose(rerank(query, gallery, 8, 4), full, atol=1e-6)
    assert np.array_equal(rerank(query, gallery, 8, 4), rerank(query, gallery, 8, 4))


def test_all_weight_on_the_original_distance_keeps_the_ranking():
    query, gallery = clustered(0, 10, 50)
    distance = rerank(query, gallery, 5, 2, weight=1)
    np.testing.assert_allclose(distance, slow_original(query, gallery)[:10, 10:], atol=1e-6)
    cosine = (query / np.linalg.norm(query, axis=1, keepdims=True)
              @ (gallery / np.linalg.norm(gallery, axis=1, keepdims=True)).T)
    assert np.array_equal(np.argsort(distance, axis=1), np.argsort(-cosine, axis=1))


def test_weight_blends_the_two_distances():
    query, gallery = clustered(1, 10, 50)
    jaccard, original = (rerank(query, gallery, 9, 3, weight) for weight in (0, 1))
    assert jaccard.min() >= 0 and jaccard.max() == 1 and (jaccard == 1).mean() > 0.3
    np.testing.assert_allclose(rerank(query, gallery, 9, 3, 0.25),
                               0.75 * jaccard + 0.25 * original, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_files_and_the_length_of_features_do_not_matter(seed):
    query, gallery = clustered(seed, 12, 40)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(12), rng.permutation(40)
    lengths = rng.uniform(0.1, 10, (40, 1)).astype(np.float32)
    np.testing.assert_allclose(rerank(query[rows], (gallery * lengths)[columns], 8, 3),
                               rerank(query, gallery, 8, 3)[rows][:, columns], atol=1e-5)


def mean_average_precision(distance, hits):
    order = np.argsort(distance, axis=1, kind="stable")
    hits = np.take_along_axis(hits, order, 1)
    return average_precision(np.nonzero(hits)[1] + 1, hits.sum(1)).mean()


def on_circle(degrees):
    radians = np.radians(np.asarray(degrees, float))
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


def test_mutual_neighbours_mend_a_wrong_nearest():
    """The other person at 5 degrees is nearest, but has nearer friends than the query."""
    query = on_circle([0])
    gallery = on_circle([5, 6, 7, 8, 9, -5.5, -7, -8.5, 90, 180, 200])
    hits = np.array([[False] * 5 + [True] * 3 + [False] * 3])
    before, after = (rerank(query, gallery, 3, 1, weight) for weight in (1, 0.3))
    assert before.argmin() == 0 and after.argmin() == 5
    assert mean_average_precision(before, hits) < 0.7
    assert mean_average_precision(after, hits) == 1


def test_clusters_gain_from_re_ranking():
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(20), 12)
    features = rng.normal(size=(20, 32))[ids] + 1.3 * rng.normal(size=(240, 32))
    is_query = np.arange(240) % 12 == 0
    hits = ids[is_query][:, None] == ids[~is_query][None]
    before, after = (mean_average_precision(
        rerank(features[is_query], features[~is_query], 10, 4, weight), hits)
        for weight in (1, 0.3))
    assert after > before + 0.05


def test_one_direction_only_is_no_division_by_zero():
    distance = rerank(np.ones((3, 4)), np.full((30, 4), 2.0), 5, 2)
    assert np.isfinite(distance).all()


def test_the_input_is_left_alone():
    query, gallery = clustered(2, 5, 20)
    before = query.copy(), gallery.copy()
    rerank(query, gallery, 5, 2)
    assert np.array_equal(query, before[0]) and np.array_equal(gallery, before[1])


@pytest.mark.parametrize(("change", "message"), [
    ({"gallery": np.ones((5, 3))}, r"\(4, 2\) and gallery features \(5, 3\), .* embed both"),
    ({"query": np.ones((0, 2))}, "0 query and 5 gallery"),
    ({"gallery": np.ones((0, 2))}, "4 query and 0 gallery"),
    ({"query": np.ones(2)}, r"query features \(2,\) .* expected \(image, dim\)"),
    ({"query": np.array([[1, 0], [np.nan, 1]])}, "query image 1 has length nan"),
    ({"gallery": np.array([[1, 0], [1, 1], [-np.inf, 1]])}, "gallery image 2 has length inf"),
    ({"gallery": np.array([[1, 0], [1e300, 1]])}, "gallery image 1 has length inf"),
    ({"query": np.zeros((2, 2))}, r"query image 0 has length 0.0, .* \(2 such images\)"),
    ({"k1": 9}, "less than the 4 query and 5 gallery images together, found 9"),
    ({"k1": 0}, "k1 must be at least 1 .* found 0"),
    ({"k2": 4}, "k2 must be from 1 to k1 = 3, found 4"),
    ({"k2": 0}, "k2 must be from 1 to k1 = 3, found 0"),
    ({"weight": 1.1}, r"weight of the original distance must be in \[0, 1\], found 1.1"),
    ({"weight": -0.1}, "found -0.1"),
    ({"weight": float("nan")}, "found nan"),
])
def test_bad_input(change, message):
    good = {"query": np.eye(4, 2) + 1, "gallery": np.eye(5, 2) + 2, "k1": 3, "k2": 2,
            "weight": 0.3}
    assert rerank(**good).shape == (4, 5)
    with pytest.raises(ValueError, match=message):
        rerank(**{**good, **change})
