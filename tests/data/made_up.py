"""Small made-up images."""

import shutil
import zipfile

import numpy as np
from PIL import Image

ROWS = [("a1.png", "ann", "x", "train"), ("b1.png", "ben", "x", "train"),
        ("q1.png", "001", "x", "query"), ("g1.png", "001", "y", "gallery")]


def draw(path, seed=0, size=(8, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


def zipped(folder, top=None):
    """Replace a folder by <folder>.zip; paths in there start from ``top`` (its parent)."""
    archive = folder.with_name(folder.name + ".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(top or folder.parent))
    shutil.rmtree(folder)
    return archive
