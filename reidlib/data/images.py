"""Image files -> one uint8 array, decoded once and memory-mapped from then on."""

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from reidlib.data.manifest import open_picture
from reidlib.utils.console import log, progress_bar
from reidlib.utils.parameters import height_width
from reidlib.utils.paths import atomic_write, remove_leftovers, write_text

Size = int | Sequence[int]  # pixels: a square, or (height, width)


def open_images(root: Path, manifest: pd.DataFrame, size: Size, cache: Path
                ) -> UInt8[Tensor, "image 3 height width"]:
    """The manifest's images, resized to ``size``, as a memory-mapped array.

    ``cache`` is the array's file, 150 kB an image at 224 pixels; a small file next to it holds the
    checksums of the images it was made of and of its own pixels (a CRC takes below 1 s a GB). Where
    they do not fit, or there is none, it is made now. Pages are read when an image is used, so that
    it may be larger than the memory.

    Raises:
        ValueError: a file is not the one in the manifest.
        OSError: there is no room for the array.
    """
    key, shape = _checksum(manifest, size), (len(manifest), 3, *height_width(size))
    note = cache.with_suffix(".sha256")
    if cache.is_file() and note.is_file() and note.read_bytes().startswith(key.encode()):
        images = _mapped(cache)
        if (images is not None and images.shape == shape
                and note.read_bytes() == f"{key} {zlib.crc32(images)}".encode()):
            return torch.from_numpy(images)
        log(f"{cache.name} is damaged, images are decoded again")
    remove_leftovers(cache, older_than=3600.0)
    note.unlink(missing_ok=True)  # never a new array with an old note, or the other way round
    try:  # written, not mapped: a full disk is an error then, and not a dead process
        with atomic_write(cache) as partial_path, partial_path.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            crc = 0
            for image in decode(root, manifest, size):
                file.write(image)
                crc = zlib.crc32(image, crc)
    except OSError as error:
        if error.filename:  # not about this file
            raise
        raise OSError(f"cannot write {cache} ({error}): it takes {np.prod(shape) / 1e6:.0f} MB; "
                      "make room there, or set another --workspace") from error
    write_text(note, f"{key} {crc}")
    return torch.from_numpy(_mapped(cache))


def decode(root: Path, manifest: pd.DataFrame, size: Size
           ) -> Iterator[UInt8[np.ndarray, "3 height width"]]:
    """Each image of the manifest, resized (bicubic); ValueError for a file that has changed."""

    def decoded(path: str, sha256: str) -> np.ndarray:
        data = Path(root, path).read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError(f"{Path(root, path)} changed after the data were checked; put the old "
                             "file back, or check them again (notebook 01_data)")
        return _resized(open_picture(data), size)

    with ThreadPoolExecutor() as pool:  # Pillow decodes and resizes without the interpreter's lock
        yield from progress_bar(pool.map(decoded, manifest["path"], manifest["sha256"]),
                                len(manifest), "decoding images", "image")


def read_images(paths: Sequence[Path | str], size: Size
                ) -> UInt8[Tensor, "image 3 height width"]:
    """A few images as a model takes them: decoded and resized to its ``image_size``."""
    pictures = [_resized(Image.fromarray(load_picture(path)), size) for path in paths]
    return torch.from_numpy(np.stack(pictures))


def load_picture(path: Path | str) -> UInt8[np.ndarray, "height width 3"]:
    """One image in its own size, RGB, upright; ValueError if it is broken."""
    try:
        return np.array(open_picture(Path(path).read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _resized(picture: Image.Image, size: Size) -> np.ndarray:
    pixels = np.asarray(picture.resize(height_width(size)[::-1], Image.Resampling.BICUBIC))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def size_text(size: Size) -> str:
    """224 for a square, 256x128 for height and width: part of a cache's name."""
    height, width = height_width(size)
    return str(height) if height == width else f"{height}x{width}"


def _checksum(manifest: pd.DataFrame, size: Size) -> str:
    """Of the images' contents in their order, and what is made of them."""
    text = "\n".join([f"upright, bicubic {size_text(size)}", *manifest["sha256"]])
    return hashlib.sha256(text.encode()).hexdigest()


def _mapped(cache: Path) -> np.ndarray | None:
    """The array, copy-on-write, so that the file is never written to; None for a damaged one."""
    try:
        return np.load(cache, mmap_mode="c")
    except (ValueError, EOFError, OSError):
        return None
