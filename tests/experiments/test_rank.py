"""Photos ranked by a model: against cosines one by one, and what is left out or refused."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from reidlib.data.images import read_images
from reidlib.evaluation.embeddings import embed
from reidlib.experiments import rank
from reidlib.experiments.rank import find_images, rank_photos, thumbnail
from reidlib.models import files
from reidlib.models.backbone import build_backbone
from reidlib.models.la_transformer import LATransformer
from tests.data.made_up import draw

BACKBONE = {"name": "vit_tiny_patch16_224", "image_size": [48, 32],
            "args": {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}}


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    model = LATransformer(build_backbone(pretrained=False, **BACKBONE), 3)
    files.save(model, path, {"backbone": BACKBONE, "head": {"n_identities": 3}})
    return path


@pytest.fixture
def photos(tmp_path):
    """Seven images in folders, of several kinds, and what is no image."""
    folder = tmp_path / "photos"
    for seed, name in enumerate(("a.png", "b.JPG", "deep/er/c.jpeg", "deep/d.png", "e.bmp",
                                 "f.webp", "z.png")):
        draw(folder / name, seed, size=(20, 30))
    (folder / "notes.txt").write_text("nothing to see")
    (folder / "folder.png").mkdir()
    return folder


def feature(model, path):
    model = files.load(model)
    both = np.sum(embed(model, read_images([path], model.image_size)), axis=0)[0]
    return both / np.linalg.norm(both)


def test_all_images_of_a_folder_are_found(photos):
    assert [str(path.relative_to(photos)) for path in find_images(photos)] == [
        "a.png", "b.JPG", "deep/d.png", "deep/er/c.jpeg", "e.bmp", "f.webp", "z.png"]
    assert find_images(photos / "a.png") == [photos / "a.png"]


@pytest.mark.parametrize("batch", [2, 64])
def test_the_order_is_that_of_the_cosines_one_by_one(model, photos, tmp_path, monkeypatch, batch):
    monkeypatch.setattr(rank, "BATCH", batch)
    draw(tmp_path / "query.png", 99, size=(40, 60))
    found, left_out = rank_photos(model, [tmp_path / "query.png"], photos, top=4, device="cpu")
    asked = feature(model, tmp_path / "query.png")
    cosines = {path: feature(model, path) @ asked for path in find_images(photos)}
    want = sorted(cosines, key=cosines.get, reverse=True)[:4]
    (query, answers), = found.items()
    assert query == tmp_path / "query.png" and not left_out
    assert [path for path, _ in answers] == want
    np.testing.assert_allclose([c for _, c in answers], [cosines[p] for p in want], atol=1e-5)


def test_queries_may_be_several_and_folders_and_are_not_their_own_answers(model, photos):
    found, _ = rank_photos(model, [photos / "deep", photos / "a.png", photos / "a.png"], photos)
    assert [path.name for path in found] == ["d.png", "c.jpeg", "a.png"]
    for query, answers in found.items():
        assert {path for path, _ in answers} == {*find_images(photos)} - {query}


def test_a_copy_is_an_answer_with_the_cosine_1(model, photos, tmp_path):
    (tmp_path / "copy.png").write_bytes((photos / "a.png").read_bytes())
    found, _ = rank_photos(model, [tmp_path / "copy.png"], photos, top=1)
    assert [*found.values()] == [[(photos / "a.png", pytest.approx(1, abs=1e-5))]]


def test_gallery_images_that_cannot_be_read_are_left_out_and_named(model, photos):
    (photos / "e.bmp").write_text("no picture")
    (photos / "f.webp").write_bytes(b"")
    found, left_out = rank_photos(model, [photos / "a.png"], photos)
    assert {path.name for path, _ in found[photos / "a.png"]} == {"b.JPG", "d.png", "c.jpeg",
                                                                  "z.png"}
    assert left_out == [f"{photos / 'e.bmp'} cannot be read: not an image",
                        f"{photos / 'f.webp'} cannot be read: zero bytes"]


def test_what_leaves_nothing_to_rank_is_refused(model, photos, tmp_path):
    for path in find_images(photos):
        path.write_text("no picture")
    draw(tmp_path / "query.png")
    with pytest.raises(ValueError, match="none of the 7 images in .*photos can be read: .*a.png"):
        rank_photos(model, [tmp_path / "query.png"], photos)
    with pytest.raises(ValueError, match="a.png cannot be read: not an image; give another --que"):
        rank_photos(model, [tmp_path / "query.png", photos / "a.png"], photos)
    with pytest.raises(FileNotFoundError, match="nothing does not exist; expected an image or"):
        rank_photos(model, [tmp_path / "nothing"], photos)
    with pytest.raises(FileNotFoundError, match="folder.png has no images; expected files that"):
        rank_photos(model, [tmp_path / "query.png"], photos / "folder.png")


@pytest.mark.parametrize("data, warned", [("synthetic", True), ("pku-reid", False), (None, False)])
def test_a_model_of_drawn_people_is_named_as_such(model, photos, capsys, data, warned):
    files.save(files.load(model), model, {"backbone": BACKBONE, "head": {"n_identities": 3},
                                          **({"trained_on": data} if data else {})})
    rank_photos(model, [photos / "a.png"], photos)
    assert ("was trained on drawn people" in "".join(capsys.readouterr())) == warned


def test_a_thumbnail_is_small_and_keeps_its_shape(photos):
    draw(photos / "large.png", size=(900, 1800))
    kind, data = thumbnail(photos / "large.png").split(",")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == "data:image/jpeg;base64" and picture.format == "JPEG"
    assert picture.size == (96, 192)
