import numpy as np
import pytest
import torch

from reidlib import search
from reidlib.search import nearest


def stable_argsort(query, gallery, k):
    similarity = query @ gallery.T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(similarity, order, 1)


def whole_numbers(n, dim, seed, largest=2):
    """Products of whole numbers are exact, so that ties are ties however the blocks are cut."""
    return np.random.default_rng(seed).integers(-largest, largest + 1, (n, dim)).astype(np.float32)


DEVICES = [None, torch.device("cpu")]  # NumPy's way and torch's
if torch.cuda.is_available():
    DEVICES.append(torch.device("cuda"))


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("k", [1, 5, 40, 150])
@pytest.mark.parametrize("entries", [1, 50, 400, 2 ** 20])
def test_nearest_equals_a_stable_argsort(entries, k, device, monkeypatch):
    monkeypatch.setattr(search, "ENTRIES", entries)
    monkeypatch.setattr(search, "QUERIES", min(entries, 8))
    query, gallery = whole_numbers(23, 3, 0), whole_numbers(150, 3, 1)  # most are tied
    indices, similarity = nearest(query, gallery, k, device)
    assert indices.dtype == np.int64 and similarity.dtype == np.float32
    expected = stable_argsort(query, gallery, k)
    np.testing.assert_array_equal(indices, expected[0])
    np.testing.assert_array_equal(similarity, expected[1])


@pytest.mark.parametrize("seed", range(5))
def test_nearest_of_unit_vectors(seed, monkeypatch):
    monkeypatch.setattr(search, "ENTRIES", 2000)
    rng = np.random.default_rng(seed)
    query, gallery = (rng.normal(size=(n, 32)).astype(np.float32) for n in (30, 700))
    query, gallery = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (query, gallery))
    indices, similarity = nearest(query, gallery, 20)
    expected = stable_argsort(query, gallery, 20)
    np.testing.assert_array_equal(indices, expected[0])
    np.testing.assert_allclose(similarity, expected[1], atol=1e-6)


def test_a_large_k_returns_the_whole_gallery_in_order():
    query, gallery = whole_numbers(3, 4, 0), whole_numbers(7, 4, 1)
    indices, _ = nearest(query, gallery, 100)
    np.testing.assert_array_equal(indices, stable_argsort(query, gallery, 7)[0])


def test_equal_images_go_by_index():
    indices, similarity = nearest(np.ones((2, 4), np.float32), np.ones((9, 4), np.float32), 5)
    assert indices.tolist() == [[0, 1, 2, 3, 4]] * 2 and (similarity == 4).all()


def test_an_image_finds_itself_first():
    images = np.eye(6, dtype=np.float32)
    indices, similarity = nearest(images, images, 1)
    assert indices[:, 0].tolist() == list(range(6)) and (similarity == 1).all()


@pytest.mark.parametrize(("query", "gallery", "k", "message"), [
    (np.ones((2, 3)), np.ones((4, 5)), 1, r"query features \(2, 3\).*\(4, 5\).*same model"),
    (np.ones(3), np.ones((4, 3)), 1, r"expected \(image, dim\)"),
    (np.ones((0, 3)), np.ones((4, 3)), 1, "0 query and 4 gallery images"),
    (np.ones((2, 3)), np.ones((0, 3)), 1, "2 query and 0 gallery images"),
    (np.ones((2, 3)), np.ones((4, 3)), 0, "k must be at least 1, found 0"),
    (np.ones((2, 3)), np.ones((4, 3)), -2, "found -2"),
])
def test_bad_input(query, gallery, k, message):
    with pytest.raises(ValueError, match=message):
        nearest(query.astype(np.float32), gallery.astype(np.float32), k)


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="found float32 and float64"):
        nearest(np.ones((2, 3), np.float32), np.ones((4, 3)), 1)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["query", "gallery"])
def test_a_feature_that_is_not_finite_is_named(side, value, device, monkeypatch):
    monkeypatch.setattr(search, "ENTRIES", 30)
    images = {"query": whole_numbers(6, 3, 0), "gallery": whole_numbers(40, 3, 1)}
    images[side][4, 1] = value
    with pytest.raises(ValueError, match=f"{side} image 4 is not finite"):
        nearest(images["query"], images["gallery"], 2, device)


def test_an_overflow_is_told():
    huge = np.full((2, 3), 1e30, np.float32)
    with pytest.raises(ValueError, match="overflows float32"):
        nearest(huge, huge, 1)
