import numpy as np
import pytest
from pytest import approx

from reidlib.evaluation.embeddings import Embeddings
from reidlib.evaluation.ranking import rank_gallery
from reidlib.evaluation.scoring import evaluate


def test_flip_averages_the_query_with_its_mirror(make_embeddings):
    """Image at 0 degrees, mirror at 40: together at 20, nearer to the right image at 30."""
    query = make_embeddings([0], ["1"], ["a"], mirrored=[40])
    gallery = make_embeddings([-5, 30], ["2", "1"], ["b", "b"])
    assert rank_gallery(query, gallery, flip="none").kept(0)[1].tolist() == [False, True]
    assert rank_gallery(query, gallery, flip="query").kept(0)[1].tolist() == [True, False]
    norms = np.linalg.norm(query.features(flip=True), axis=1)
    assert norms == approx(1)


def test_ranking_hides_what_the_protocol_drops(make_embeddings):
    query = make_embeddings([0], ["1"], ["a"])
    gallery = make_embeddings([1, 2, 3, 4], ["1", "-1", "2", "1"], ["a", "b", "b", "b"])
    order, hits = rank_gallery(query, gallery, "standard").kept(0)
    assert order.tolist() == [2, 3] and hits.tolist() == [False, True]


def test_where_every_image_asks_it_ranks_what_is_scored(make_embeddings):
    query = make_embeddings([0, 50], ["1", "2"], ["a", "b"])
    gallery = make_embeddings([1, 2, 53, 54], ["1", "2", "2", "1"], ["b", "a", "a", "b"])
    ranking = rank_gallery(query, gallery, "standard-all")
    _, table, _ = evaluate(query, gallery, ("none",), ("standard-all",), ())
    assert ranking.query.paths.tolist() == table["path"].tolist() and len(table) == 6
    first = [1 + np.flatnonzero(ranking.kept(i)[1]).min() for i in range(6)]
    assert first == table["first_hit"].tolist()


def test_where_few_neighbours_count_no_others_are_kept(make_embeddings):
    query = make_embeddings([0], ["1"], ["a"])
    gallery = make_embeddings(range(1, 16), ["1"] * 15, ["b"] * 15)
    order, hits = rank_gallery(query, gallery, "lat-top10").kept(0)
    assert order.tolist() == list(range(10)) and hits.all()


def test_bad_input(make_embeddings):
    one = make_embeddings([0], ["1"], ["a"])
    with pytest.raises(ValueError, match="unknown protocol 'strict'; known: standard"):
        rank_gallery(one, one, "strict")
    with pytest.raises(ValueError, match="unknown flip 'gallery'"):
        rank_gallery(one, one, flip="gallery")
    empty = make_embeddings([], [], [])
    with pytest.raises(ValueError, match="0 query and 1 gallery"):
        rank_gallery(empty, one)
    with pytest.raises(ValueError, match="torchreid' scores 100 drawn galleries and has no one"):
        rank_gallery(one, one, "single-shot-torchreid")
    wide = Embeddings(np.ones((1, 3), np.float32), np.ones((1, 3), np.float32),
                      *[np.array(["1"])] * 4)
    with pytest.raises(ValueError, match="expected .image, dim. of one width"):
        rank_gallery(one, wide)
