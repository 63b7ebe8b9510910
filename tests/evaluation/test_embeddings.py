"""Embeddings keep what they were made with, and refuse what cannot be compared."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from pytest import approx

from reidlib.evaluation.embeddings import Embeddings, embed, embed_people, join, pool


def test_embedded_files_round_trip(make_embeddings, tmp_path):
    saved = make_embeddings([0, 30], ["001", "NA"], ["a", "b"])
    saved.save(tmp_path / "query.npz")
    loaded = Embeddings.load(tmp_path / "query.npz")
    assert loaded.ids.tolist() == ["001", "NA"] and np.array_equal(loaded.emb, saved.emb)
    whole = (tmp_path / "query.npz").read_bytes()
    for damage in (b"", whole[:300], whole[:-30], whole.replace(b"cams", b"cars")):
        (tmp_path / "query.npz").write_bytes(damage)
        with pytest.raises(ValueError, match="query.npz does not hold embeddings"):
            Embeddings.load(tmp_path / "query.npz")


def test_embed_gives_images_and_mirrors(make_model, make_images):
    model, images = make_model(), make_images(5)
    emb, mirrored = embed(model, images, batch_size=2)
    again, twice = embed(model, images.flip(-1), batch_size=5)
    assert emb.shape == (5, 4 * 16) and np.linalg.norm(emb, axis=1) == approx(1, abs=1e-5)
    np.testing.assert_allclose(mirrored, again, atol=1e-6)
    np.testing.assert_allclose(emb, twice, atol=1e-6)
    assert not np.allclose(emb, mirrored, atol=1e-3)


def test_without_mirrors_there_is_nothing_to_flip(make_model, make_images, tmp_path):
    people = pd.DataFrame({"path": ["a.png", "b.png"], "id": ["1", "2"], "cam": ["x", "y"],
                           "sha256": ["s", "t"]})
    model, images = make_model(), make_images(2)
    found = embed_people(model, images, people, mirrors=False)
    assert np.array_equal(found.emb, embed(model, images)[0]) and not found.mirrored.size
    found.save(tmp_path / "a.npz")
    one = Embeddings.load(tmp_path / "a.npz").take(np.array([1]))
    again = join([one, found.unit_length()])
    assert again.features(flip=False).shape == (3, found.emb.shape[1])
    with pytest.raises(ValueError, match="without their mirrors, as their study asks for no flip"):
        again.features(flip=True)


def test_embeddings_of_people_say_who_they_are(make_model, make_images):
    people = pd.DataFrame({"path": ["a.png", "b.png"], "id": ["001", "NA"], "cam": ["x", "y"],
                           "sha256": ["s", "t"]})
    found = embed_people(make_model(), make_images(2), people)
    for field, name in (("paths", "path"), ("ids", "id"), ("cams", "cam"), ("sha256", "sha256")):
        assert getattr(found, field).tolist() == people[name].tolist()


def test_bad_embeddings_are_named(make_embeddings):
    with pytest.raises(ValueError, match=r"embedding of 2.png is not finite \(1 such images\)"):
        make_embeddings([0, 1, np.nan], ["1"] * 3, ["a"] * 3)
    good = make_embeddings([0, 1], ["1"] * 2, ["a"] * 2)
    fields = {name: getattr(good, name) for name in ("emb", "mirrored", "paths", "cams", "sha256")}
    with pytest.raises(ValueError, match="ids must be text, found int"):
        Embeddings(**fields, ids=np.array([1, 2]))
    with pytest.raises(ValueError, match="one entry an image expected in every field"):
        Embeddings(**fields, ids=np.array(["1"]))


def test_a_full_memory_says_what_to_do(make_model, make_images, monkeypatch):
    def full(images):
        raise torch.OutOfMemoryError

    model = make_model()
    monkeypatch.setattr(model, "embed", full)
    with pytest.raises(MemoryError, match="no memory left on cpu to embed 64 images at a time"):
        embed(model, make_images(2))


def test_a_pool_has_every_image_once_and_asks_for_people_alone(make_embeddings):
    """The first query is in the gallery, too; the third has its bytes under another identity."""
    query = make_embeddings([0, 10], ["1", "2"], ["a", "b"], ["x", "y"])
    gallery = make_embeddings([0, 0, 5, 20], ["1", "3", "-1", "1"], list("aabb"), list("xxzw"))
    queries, images = pool(query, gallery)
    assert images.sha256.tolist() == ["x", "y", "x", "z", "w"]
    assert images.ids.tolist() == ["1", "2", "3", "-1", "1"]
    assert queries.ids.tolist() == ["1", "2", "3", "1"]
    both = join((query, gallery))
    assert both.paths.tolist() == [*query.paths, *gallery.paths] and both.emb.shape == (6, 2)


def test_unit_length_keeps_directions_and_names_embeddings_of_zeros(make_embeddings):
    images = make_embeddings([0, 30], ["1", "2"], ["a", "b"], mirrored=[5, 10])
    longer = replace(images, emb=images.emb * 1e-30, mirrored=images.mirrored * [[2], [1e15]])
    for name in ("emb", "mirrored"):
        found = getattr(longer.unit_length(), name)
        np.testing.assert_allclose(found, getattr(images, name), atol=1e-7)
        assert found.dtype == np.float32
    with pytest.raises(ValueError, match=r"embedding of 1.png is all zeros \(1 such images\)"):
        replace(images, mirrored=images.mirrored * [[1], [0]]).unit_length()
