"""Contributions of patches against what they promise: they add up, and each is its patch's own."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from reidlib.data.images import read_images
from reidlib.evaluation.embeddings import Embeddings, embed
from reidlib.evaluation.ranking import rank_gallery
from reidlib.figures.similarity_maps import HIGH, LOW, contributions, explained_row, overlay


@pytest.mark.parametrize("options", [
    {}, {"y_pooling": True, "local_weight": 2.0}, {"feature": "local"},
    {"feature": "neck", "y_pooling": True}], ids=str)
def test_patches_and_rest_add_up_to_the_cosine(make_model, make_images, options):
    model = make_model(**options).eval()
    for values in (model.classifiers.norm.weight, model.classifiers.norm.bias):
        nn.init.normal_(values)
    query, *others = emb = model.embed(make_images(3)).detach().numpy()
    patches, rest = contributions(model, make_images(3), query)
    assert patches.shape == (3, 4, 4) and len(others) == 2
    np.testing.assert_allclose(patches.sum((1, 2)) + rest, emb @ query, atol=1e-5)


def test_local_rows_by_hand(make_model, make_images):
    """Without class token, the patch in row r, column c adds to part r alone."""
    model = make_model(feature="local").eval()
    images = make_images(2)
    query, own = model.embed(images).detach()
    patches, rest = contributions(model, images, query.numpy())
    with torch.no_grad():
        tokens = model.tokens(images)[1, 1:].view(4, 4, -1)
    for r in range(4):
        mean = tokens[r].mean(0)
        asked = 2 * query.view(4, -1)[r]  # unit length
        for c in range(4):
            want = (tokens[r, c] / 4) @ asked / mean.norm() / 4
            assert patches[1, r, c] == pytest.approx(want.item(), abs=1e-5)
    np.testing.assert_allclose(rest, 0, atol=1e-5)
    assert patches[1].sum() == pytest.approx(float(query @ own), abs=1e-5)


def test_overlay_is_blue_where_least_and_yellow_where_most_is_added():
    picture = np.full((40, 20, 3), 255, np.uint8)
    picture[:, 10:] = 0
    patches = np.zeros((4, 4), np.float32)
    patches[3] = 2.0
    seen = overlay(picture, patches, ends=(0.0, 2.0))
    assert seen.shape == picture.shape and seen.dtype == np.uint8
    for row, colour in ((0, LOW), (-1, HIGH)):
        np.testing.assert_allclose(seen[row, 0], colour, atol=1)
        np.testing.assert_allclose(seen[row, -1], 0.2 * colour, atol=1)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_person_is_seen_under_every_colour(share):
    """A light and a dark place are as far apart in the map as the map has room for."""
    picture = np.linspace(60, 120, 40).astype(np.uint8)[:, None, None].repeat(20, 1).repeat(3, 2)
    seen = overlay(picture, np.full((4, 4), share, np.float32), ends=(0.0, 1.0)).mean(2)[:, 0]
    assert (np.diff(seen) >= 0).all() and seen[-1] > 4 * seen[0]


def test_the_row_of_a_query_says_its_similarities(make_model, tmp_path):
    rng = np.random.default_rng(0)
    names = [f"{i}.png" for i in range(6)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (48, 18, 3), dtype=np.uint8)).save(tmp_path / name)
    model = make_model().eval()
    emb, mirrored = embed(model, read_images([tmp_path / name for name in names], 32))
    people = [np.array(values) for values in (names, list("aabbcc"), list("121212"), names)]
    images = Embeddings(emb, mirrored, *people)
    ranking = rank_gallery(images.take(np.array([0])), images.take(np.arange(1, 6)))
    row = explained_row(model, ranking, 0, "tiny", tmp_path, k=3)
    nearest = np.sort(emb[1:] @ emb[0])[::-1][:3]
    assert [label.splitlines()[0] for label in row.labels] == [f"cos {v:.2f}" for v in nearest]
    assert [picture.shape for picture in row.gallery] == [(48, 18, 3)] * 3
    assert row.title.startswith("tiny: AP ") and len(row.right) == 3
    patches, rest = contributions(model, read_images(
        [tmp_path / path for path in ranking.gallery.paths[ranking.kept(0)[0][:3]]], 32), emb[0])
    said = [float(label.split("rest ")[1]) for label in row.labels]
    assert said == pytest.approx(rest, abs=0.006)
    low, high = np.percentile(patches, [2, 98])
    assert row.bar.ends == (f"a patch adds {low:.3f}", f"{high:.3f}")
    np.testing.assert_allclose(255 * row.bar.colours, [LOW, HIGH])
    assert "class token" in row.bar.note
