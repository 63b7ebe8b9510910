import resource

import numpy as np
import pytest
import torch
from PIL import Image

from reidlib.data import images
from reidlib.data.images import load_picture, open_images, read_images
from reidlib.data.manifest import inspect_images


@pytest.fixture
def stored(tmp_path):
    """Two pictures on disk and their manifest."""
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (20, 10, 3), dtype=np.uint8) for _ in range(2)]
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    return pixels, inspect_images(tmp_path, ["1.png", "0.png"])


def want(pixels, height, width=None):
    resized = [Image.fromarray(p).resize((width or height, height), Image.Resampling.BICUBIC)
               for p in pixels]
    return np.stack([np.array(p).transpose(2, 0, 1) for p in resized])


def test_images_equal_pillow_and_follow_the_manifest(tmp_path, stored):
    found = open_images(tmp_path, stored[1], 16, tmp_path / "cache.npy")
    assert found.dtype == torch.uint8 and found.shape == (2, 3, 16, 16)
    assert np.array_equal(found.numpy(), want(stored[0][::-1], 16))


def test_a_rectangle_is_height_by_width(tmp_path, stored):
    """And a pair of equal sides is the square that one number is."""
    found = open_images(tmp_path, stored[1], (16, 8), tmp_path / "cache.npy")
    assert np.array_equal(found.numpy(), want(stored[0][::-1], 16, 8))
    open_images(tmp_path, stored[1], [16, 16], tmp_path / "square.npy")
    before = (tmp_path / "square.npy").stat().st_mtime_ns
    open_images(tmp_path, stored[1], 16, tmp_path / "square.npy")
    assert (tmp_path / "square.npy").stat().st_mtime_ns == before


def test_grey_and_transparent_images_become_rgb(tmp_path):
    Image.new("L", (8, 8), 90).save(tmp_path / "grey.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 0)).save(tmp_path / "clear.png")
    found = read_images([tmp_path / "grey.png", tmp_path / "clear.png"], 8)
    assert found[0].unique().tolist() == [90] and found[1, :, 0, 0].tolist() == [1, 2, 3]


def test_decoded_once_and_mapped_from_then_on(tmp_path, stored, monkeypatch):
    first = open_images(tmp_path, stored[1], 16, tmp_path / "cache.npy").clone()
    monkeypatch.setattr(images, "decode", None)
    again = open_images(tmp_path, stored[1], 16, tmp_path / "cache.npy")
    assert torch.equal(first, again)
    again[:] = 0  # copy-on-write: the file stays as it is
    assert torch.equal(first, open_images(tmp_path, stored[1], 16, tmp_path / "cache.npy"))


@pytest.mark.parametrize("change", [
    lambda manifest: (manifest[::-1], 16),                       # another order
    lambda manifest: (manifest[:1], 16),                         # fewer
    lambda manifest: (manifest, 8),                              # another size
])
def test_made_again_where_it_does_not_match(tmp_path, stored, change):
    cache = tmp_path / "cache.npy"
    open_images(tmp_path, stored[1], 16, cache)
    manifest, size = change(stored[1])
    found = open_images(tmp_path, manifest, size, cache)
    picked = [stored[0][int(path[0])] for path in manifest["path"]]
    assert np.array_equal(found.numpy(), want(picked, size))


@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: b"no array", lambda content: content[:-100],
    lambda content: content[:128] + bytes(len(content) - 128),  # black, below an intact header
])
def test_a_damaged_cache_is_made_again(tmp_path, stored, damage, capsys):
    cache = tmp_path / "cache.npy"
    open_images(tmp_path, stored[1], 16, cache)
    cache.write_bytes(damage(cache.read_bytes()))
    found = open_images(tmp_path, stored[1], 16, cache)
    assert np.array_equal(found.numpy(), want(stored[0][::-1], 16))
    assert "cache.npy is damaged" in capsys.readouterr().out


def test_a_picture_that_vanished_leaves_no_cache(tmp_path, stored):
    (tmp_path / "0.png").unlink()
    with pytest.raises(FileNotFoundError, match="0.png"):
        open_images(tmp_path, stored[1], 16, tmp_path / "cache.npy")
    assert [p.name for p in tmp_path.iterdir()] == ["1.png"]


def test_a_picture_swapped_after_the_check_is_refused(tmp_path, stored):
    Image.fromarray(stored[0][0][::-1].copy()).save(tmp_path / "1.png")
    with pytest.raises(ValueError, match="1.png changed after the data were checked"):
        open_images(tmp_path, stored[1], 16, tmp_path / "cache.npy")


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, stored):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="cannot write .*cache.npy .*takes 0 MB; make room"):
            open_images(tmp_path, stored[1], 16, tmp_path / "cache.npy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.png", "1.png"]


def test_a_turned_photo_is_upright(tmp_path):
    photo, exif = Image.new("RGB", (8, 16), "white"), Image.Exif()
    photo.paste("black", (0, 0, 8, 4))  # what was at the top is at the left of the stored pixels
    exif[0x0112] = 6  # "turn right by 90 degrees to see it"
    photo.rotate(90, expand=True).save(tmp_path / "a.jpg", exif=exif, quality=100)
    found = load_picture(tmp_path / "a.jpg")
    assert found.shape == (16, 8, 3) and found[:4].max() < 50 and found[4:].min() > 200
    assert inspect_images(tmp_path, ["a.jpg"])[["width", "height"]].to_numpy().tolist() == [[8, 16]]


@pytest.mark.parametrize(("name", "dtype"), [("a.png", np.uint16), ("a.tif", np.uint16),
                                             ("a.tif", np.int32), ("a.tif", np.float32)])
def test_more_than_8_bits_of_grey_are_refused(tmp_path, name, dtype):
    Image.fromarray(np.full((8, 8), 1000, dtype)).save(tmp_path / name)
    assert "save it with 8 bits" in inspect_images(tmp_path, [name])["problem"][0]
    with pytest.raises(ValueError, match=f"{name} cannot be read: pixels of mode .*8 bits"):
        read_images([tmp_path / name], 8)
