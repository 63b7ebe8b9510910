"""Ranks of the matches against galleries that are sorted and looked through, image by image."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist

from reidlib.evaluation.embeddings import Embeddings
from reidlib.evaluation.match_ranks import cosine, draw_galleries, euclidean, find_matches
from reidlib.evaluation.protocols import Protocol
from tests.evaluation.made_up import random_pair, rounded

DROPPED = list(itertools.product([False, True], repeat=3))  # own camera, junk, copies


def with_junk_copies(pair):
    """Every second junk image has the bytes of a query."""
    query, gallery = pair
    junk = np.flatnonzero(gallery.ids == "-1")[::2]
    gallery.sha256[junk] = query.sha256[np.arange(len(junk)) % len(query.ids)]
    return query, gallery


def slow_ranks(query, gallery, rules):
    """The ranks of each query's matches; at equal similarity the wrong image comes first."""
    similarity = query.emb @ gallery.emb.T
    for q in range(len(query.ids)):
        ranked = []
        for g in range(len(gallery.ids)):
            same = bool(query.ids[q] == gallery.ids[g])
            if rules.drop_same_camera and same and query.cams[q] == gallery.cams[g]:
                continue
            if rules.drop_junk and gallery.ids[g] == "-1":
                continue
            if rules.drop_copies and query.sha256[q] == gallery.sha256[g]:
                continue
            ranked.append((-similarity[q, g], same))
        yield [rank for rank, (_, same) in enumerate(sorted(ranked), 1) if same]


@pytest.mark.parametrize("device", [None, torch.device("cpu")], ids=["numpy", "torch"])
@pytest.mark.parametrize("dropped", DROPPED, ids=str)
@pytest.mark.parametrize("make", [random_pair, rounded])
def test_ranks_under_all_rules_with_junk_that_is_also_a_copy(make, dropped, device):
    both = 0
    for seed in range(3):
        query, gallery = with_junk_copies(make(seed))
        both += (query.sha256[:, None] == gallery.sha256[gallery.ids == "-1"]).sum()
        rules = Protocol("x", *dropped, None, "rectangle", "test")
        matches = find_matches(query, gallery, cosine(query, gallery, device=device))
        ranks, counts, scored = matches.ranks(rules)
        found = dict(zip(scored.tolist(), np.split(ranks, np.cumsum(counts)[:-1]), strict=True))
        expected = list(slow_ranks(query, gallery, rules))
        assert [found.get(q, np.array([])).tolist() for q in range(len(query.ids))] == expected
    assert both > 5


def moved(images, factor=3.0, by=100.0):
    """Embeddings of other lengths, far from the origin: their cosines are all about 1."""
    return Embeddings(images.emb * factor + np.float32(by), images.mirrored * factor
                      + np.float32(by), images.paths, images.ids, images.cams, images.sha256)


@pytest.mark.parametrize("device", [None, torch.device("cpu")], ids=["numpy", "torch"])
@pytest.mark.parametrize("flip", ["none", "query", "both"])
def test_euclidean_is_the_distance_of_the_features_as_they_are(flip, device):
    query, gallery = map(moved, random_pair(3))

    def feature(images, flipped):
        emb, mirrored = images.emb.astype(float), images.mirrored.astype(float)
        return (emb + mirrored) / 2 if flipped else emb

    found = np.asarray(euclidean(query, gallery, flip, device)(slice(2, 7)))
    want = cdist(feature(query, flip != "none"), feature(gallery, flip == "both"))[2:7]
    np.testing.assert_allclose(found, -want ** 2, rtol=1e-4, atol=1e-3)
    assert found.dtype == np.float32


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_the_callers_similarities_stay_as_they_are(convert):
    query, gallery = with_junk_copies(random_pair(1))
    matrix = convert(query.emb @ gallery.emb.T)
    before = matrix.tolist()
    find_matches(query, gallery, lambda rows: matrix[rows], n_draws=2)
    assert matrix.tolist() == before and (gallery.ids == "-1").any()


def test_a_drawn_gallery_has_one_image_of_each_person_and_no_junk():
    """Of any camera, and of another one than a query's; by chance each image that counts."""
    _, gallery = random_pair(0)
    ids, cams = (pd.factorize(values)[0] for values in (gallery.ids, gallery.cams))
    junk = gallery.ids == "-1"
    found, images = draw_galleries(ids, cams, junk, 60), np.arange(len(ids))
    for camera in (None, *set(cams)):
        shown = found.drawn if camera is None else found.of_other_cameras(images, camera)
        counts = ~junk & (cams != camera)
        for draw in shown.T:
            assert sorted(ids[draw]) == sorted(set(ids[counts])) and counts[draw].all()
        assert shown[counts].any(axis=1).all()
    again = draw_galleries(ids, cams, junk, 3)
    np.testing.assert_array_equal(found.drawn[:, :3], again.drawn)
    np.testing.assert_array_equal(found.instead[:, :3], again.instead)
