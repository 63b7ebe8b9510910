"""Image files -> one uint8 array, decoded once and memory-mapped from then on."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from reidlib.utils.console import log, progress_bar
from reidlib.utils.paths import atomic_write, remove_leftovers


def open_images(root: Path, manifest: pd.DataFrame, size: int, cache: Path
                ) -> UInt8[Tensor, "image 3 size size"]:
    """The manifest's images, resized to ``size`` x ``size`` pixels, as a memory-mapped array.

    ``cache`` is the array's file, 150 kB an image at 224 pixels; a small file next to it holds the
    checksum of the images it was made of. Where the two do not fit the manifest, or there is none,
    it is made now. Pages are read when an image is used, so that it may be larger than the memory.
    """
    key = _checksum(manifest, size)
    note = cache.with_suffix(".sha256")
    if cache.is_file() and note.is_file() and note.read_text() == key:
        images = _mapped(cache)
        if images is not None and images.shape == (len(manifest), 3, size, size):
            return torch.from_numpy(images)
        log(f"{cache.name} is damaged, images are decoded again")
    remove_leftovers(cache, older_than=3600.0)
    note.unlink(missing_ok=True)  # never a new array with an old note, or the other way round
    with atomic_write(cache) as partial_path:
        shape = (len(manifest), 3, size, size)
        images = np.lib.format.open_memmap(partial_path, "w+", np.uint8, shape)
        decode(root, manifest["path"].tolist(), images)
        images.flush()
        del images
    with atomic_write(note) as partial_path:
        partial_path.write_text(key)
    return torch.from_numpy(_mapped(cache))


def decode(root: Path, paths: Sequence[str], out: UInt8[np.ndarray, "image 3 size size"]) -> None:
    """Decode images as RGB and resize each, bicubic, into its place in ``out``."""
    with ThreadPoolExecutor() as pool:  # Pillow decodes and resizes without the interpreter's lock
        found = pool.map(partial(_resized, size=out.shape[-1]), [Path(root) / p for p in paths])
        for place, image in zip(out, progress_bar(found, len(paths), "decoding images", "image"),
                                strict=True):
            place[:] = image.transpose(2, 0, 1)


def read_images(paths: Sequence[Path | str], size: int) -> UInt8[Tensor, "image 3 size size"]:
    """A few images as a model takes them: decoded and resized to its ``size`` in pixels."""
    images = np.empty((len(paths), 3, size, size), np.uint8)
    decode(Path(), [str(path) for path in paths], images)
    return torch.from_numpy(images)


def load_picture(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """One image as it is stored, RGB."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def _resized(path: Path, size: int) -> np.ndarray:
    picture = Image.fromarray(load_picture(path))
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))


def _checksum(manifest: pd.DataFrame, size: int) -> str:
    """Of the images' contents in their order, and what is made of them."""
    text = "\n".join([f"bicubic {size}", *manifest["sha256"]])
    return hashlib.sha256(text.encode()).hexdigest()


def _mapped(cache: Path) -> np.ndarray | None:
    """The array, copy-on-write, so that the file is never written to; None for a damaged one."""
    try:
        return np.load(cache, mmap_mode="c")
    except (ValueError, EOFError, OSError):
        return None
