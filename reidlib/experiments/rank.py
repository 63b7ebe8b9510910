"""A trained model and folders of photos -> for each query the most similar pictures."""

import base64
import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import compress, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from reidlib.data.images import load_picture, read_images
from reidlib.evaluation.embeddings import embed, unit_mean
from reidlib.models.files import load
from reidlib.utils.console import log, progress_bar
from reidlib.utils.paths import resolved
from reidlib.utils.reproducibility import pick_device

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"}
BATCH = 64    # images read and embedded at a time
HEIGHT = 192  # pixels of a picture on a page, twice what a plain screen shows
Ranked = dict[Path, list[tuple[Path, float]]]  # query -> gallery images and cosines, nearest first


def rank_photos(model_path: Path, queries: Iterable[Path], gallery: Path, top: int = 20,
                device: str = "auto") -> tuple[Ranked, list[str]]:
    """The ``top`` gallery images by cosine for each query, and why others were left out.

    Queries are images or folders of them; so is the gallery. A query's own file is no answer.
    Features are the unit-length means of image and mirror. Gallery images that cannot be read are
    left out; a query has to be readable.

    Raises:
        FileNotFoundError: a path is not there, a folder has no images, there is no such model.
        ValueError: a query cannot be read, no gallery image can; the model is not one of ours.
    """
    asked = [*dict.fromkeys(image for path in queries for image in find_images(path))]
    photos = find_images(gallery)
    chosen = pick_device(device)
    model = load(model_path).to(chosen)
    if model.trained_on == "synthetic":
        log(f"{model_path} was trained on drawn people and knows no photos: `make weights "
            "STUDY=pku-reid` makes models of people")
    features, _, broken = _features(model, asked, "embedding queries")
    if broken:
        raise ValueError(f"{broken[0]}; give another --query")
    shown, readable, broken = _features(model, photos, "embedding the gallery")
    if not readable:
        raise ValueError(f"none of the {len(photos)} images in {gallery} can be read: {broken[0]}")
    return {query: _nearest(query, feature, shown, readable, top)
            for query, feature in zip(asked, features, strict=True)}, broken


def find_images(path: Path) -> list[Path]:
    """The image itself, or all images in a folder and the folders in it, sorted.

    Raises FileNotFoundError where there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist; expected an image or a folder of images")
    found = sorted(image for image in path.rglob("*")
                   if image.suffix.lower() in ENDINGS and image.is_file())
    if not found:
        raise FileNotFoundError(f"{path} has no images; expected files that end in "
                                f"{', '.join(sorted(ENDINGS))}, in it or in folders in it")
    return found


def thumbnail(path: Path) -> str:
    """The picture, at most ``HEIGHT`` pixels high, as an address that holds all of it."""
    picture = Image.fromarray(load_picture(path))
    picture.thumbnail((2 * HEIGHT, HEIGHT))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _features(model: nn.Module, paths: Sequence[Path], name: str
              ) -> tuple[np.ndarray, list[Path], list[str]]:
    """Features of the images that can be read, these images, and why the others cannot be."""
    def read(path: Path) -> torch.Tensor | str:
        try:
            return read_images([path], model.image_size)
        except (ValueError, OSError) as error:
            return str(error)

    features, readable, broken = [], [], []
    starts = range(0, len(paths), BATCH)
    with ThreadPoolExecutor() as pool:
        for start in progress_bar(starts, len(starts), name, f"{BATCH} images", least=2):
            batch = paths[start:start + BATCH]
            images = [*pool.map(read, batch)]
            good = [not isinstance(image, str) for image in images]
            broken += [image for image in images if isinstance(image, str)]
            readable += compress(batch, good)
            if any(good):
                features.append(unit_mean(*embed(model, torch.cat([*compress(images, good)]))))
    return np.concatenate(features) if features else np.empty((0, 0)), readable, broken


def _nearest(query: Path, feature: np.ndarray, gallery: np.ndarray, paths: list[Path], top: int
             ) -> list[tuple[Path, float]]:
    cosine, own = gallery @ feature, resolved(query)
    others = (i for i in np.argsort(-cosine, kind="stable") if resolved(paths[i]) != own)
    return [(paths[i], float(cosine[i])) for i in islice(others, top)]
