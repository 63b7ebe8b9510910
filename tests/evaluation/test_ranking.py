import numpy as np
import pytest
from pytest import approx

from reidlib.evaluation.embeddings import Embeddings, embed
from reidlib.evaluation.ranking import rank_gallery


def test_flip_averages_the_query_with_its_mirror(make_embedded):
    """Image at 0 degrees, mirror at 40: together at 20, nearer to the right image at 30."""
    query = make_embedded([0], ["1"], ["a"], mirrored=[40])
    gallery = make_embedded([-5, 30], ["2", "1"], ["b", "b"])
    assert rank_gallery(query, gallery, flip="none").hits.tolist() == [[False, True]]
    assert rank_gallery(query, gallery, flip="query").hits.tolist() == [[True, False]]
    norms = np.linalg.norm(query.features(flip=True), axis=1)
    assert norms == approx(1)


def test_ranking_hides_what_the_protocol_drops(make_embedded):
    query = make_embedded([0], ["1"], ["a"])
    gallery = make_embedded([1, 2, 3, 4], ["1", "-1", "2", "1"], ["a", "b", "b", "b"])
    order, hits = rank_gallery(query, gallery, "standard").kept(0)
    assert order.tolist() == [2, 3] and hits.tolist() == [False, True]


def test_bad_input(make_embedded):
    one = make_embedded([0], ["1"], ["a"])
    with pytest.raises(ValueError, match="unknown protocol 'strict'; known: standard"):
        rank_gallery(one, one, "strict")
    with pytest.raises(ValueError, match="unknown flip 'gallery'"):
        rank_gallery(one, one, flip="gallery")
    empty = make_embedded([], [], [])
    with pytest.raises(ValueError, match="0 query and 1 gallery"):
        rank_gallery(empty, one)
    with pytest.raises(ValueError, match="2.png is not finite"):
        make_embedded([0, 1, np.nan], ["1"] * 3, ["a"] * 3)
    wide = Embeddings(np.ones((1, 3), np.float32), np.ones((1, 3), np.float32),
                    *[np.array(["1"])] * 4)
    with pytest.raises(ValueError, match="2 wide, gallery embeddings 3"):
        rank_gallery(one, wide)


def test_embedded_files_round_trip(make_embedded, tmp_path):
    saved = make_embedded([0, 30], ["001", "NA"], ["a", "b"])
    saved.save(tmp_path / "query.npz")
    loaded = Embeddings.load(tmp_path / "query.npz")
    assert loaded.ids.tolist() == ["001", "NA"] and np.array_equal(loaded.emb, saved.emb)


def test_embed_gives_images_and_mirrors(make_model, make_images):
    model, images = make_model(), make_images(5)
    emb, mirrored = embed(model, images, batch_size=2)
    again, twice = embed(model, images.flip(-1), batch_size=5)
    assert emb.shape == (5, 4 * 16) and np.linalg.norm(emb, axis=1) == approx(1, abs=1e-5)
    np.testing.assert_allclose(mirrored, again, atol=1e-6)
    np.testing.assert_allclose(emb, twice, atol=1e-6)
    assert not np.allclose(emb, mirrored, atol=1e-3)
