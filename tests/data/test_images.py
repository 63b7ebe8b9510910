import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from reidlib.data import images
from reidlib.data.images import open_images


@pytest.fixture
def stored(tmp_path):
    """Two pictures on disk and their manifest."""
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (20, 10, 3), dtype=np.uint8) for _ in range(2)]
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    return pixels, pd.DataFrame({"path": ["1.png", "0.png"], "sha256": ["b", "a"]})


def want(pixels, size):
    resized = [Image.fromarray(p).resize((size, size), Image.Resampling.BICUBIC) for p in pixels]
    return np.stack([np.array(p).transpose(2, 0, 1) for p in resized])


def test_images_equal_pillow_and_follow_the_manifest(tmp_path, stored):
    found = open_images(tmp_path, stored[1], 16, tmp_path / "cache.npy")
    assert found.dtype == torch.uint8 and found.shape == (2, 3, 16, 16)
    assert np.array_equal(found.numpy(), want(stored[0][::-1], 16))


def test_grey_and_transparent_images_become_rgb(tmp_path):
    Image.new("L", (8, 8), 90).save(tmp_path / "grey.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 0)).save(tmp_path / "clear.png")
    manifest = pd.DataFrame({"path": ["grey.png", "clear.png"], "sha256": ["a", "b"]})
    found = open_images(tmp_path, manifest, 8, tmp_path / "cache.npy")
    assert found[0].unique().tolist() == [90] and found[1, :, 0, 0].tolist() == [1, 2, 3]


def test_decoded_once_and_mapped_from_then_on(tmp_path, stored, monkeypatch):
    first = open_images(tmp_path, stored[1], 16, tmp_path / "cache.npy").clone()
    monkeypatch.setattr(images, "decode", None)
    again = open_images(tmp_path, stored[1], 16, tmp_path / "cache.npy")
    assert torch.equal(first, again)
    again[:] = 0  # copy-on-write: the file stays as it is
    assert torch.equal(first, open_images(tmp_path, stored[1], 16, tmp_path / "cache.npy"))


@pytest.mark.parametrize("change", [
    lambda manifest: (manifest.assign(sha256=["b", "c"]), 16),   # other content
    lambda manifest: (manifest[::-1], 16),                       # another order
    lambda manifest: (manifest[:1], 16),                         # fewer
    lambda manifest: (manifest, 8),                              # another size
])
def test_made_anew_where_it_does_not_match(tmp_path, stored, change):
    cache = tmp_path / "cache.npy"
    open_images(tmp_path, stored[1], 16, cache)
    manifest, size = change(stored[1])
    found = open_images(tmp_path, manifest, size, cache)
    picked = [stored[0][int(path[0])] for path in manifest["path"]]
    assert np.array_equal(found.numpy(), want(picked, size))


@pytest.mark.parametrize("content", [b"", b"no array", None])
def test_a_damaged_cache_is_made_anew(tmp_path, stored, content, capsys):
    cache = tmp_path / "cache.npy"
    open_images(tmp_path, stored[1], 16, cache)
    cache.write_bytes(content if content is not None else cache.read_bytes()[:-100])
    found = open_images(tmp_path, stored[1], 16, cache)
    assert np.array_equal(found.numpy(), want(stored[0][::-1], 16))
    assert "cache.npy is damaged" in capsys.readouterr().out


def test_a_picture_that_vanished_leaves_no_cache(tmp_path, stored):
    (tmp_path / "0.png").unlink()
    with pytest.raises(FileNotFoundError, match="0.png"):
        open_images(tmp_path, stored[1], 16, tmp_path / "cache.npy")
    assert [p.name for p in tmp_path.iterdir()] == ["1.png"]
