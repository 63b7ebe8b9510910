"""Images -> embeddings of them and of their mirrors, with what the protocols ask about them."""

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from reidlib.data.manifest import JUNK_ID
from reidlib.utils.errors import check_choice
from reidlib.utils.paths import atomic_write

FLIPS = ("none", "query", "both")


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of some images and of their mirrors, with what the protocols ask about them."""

    emb: np.ndarray       # (image, dim) float32, of unit length if a model of ours made them
    mirrored: np.ndarray  # (image, dim) float32, the same of the mirrors; (image, 0) without them
    paths: np.ndarray     # (image,) text, as in the manifest; so are the rest
    ids: np.ndarray
    cams: np.ndarray
    sha256: np.ndarray

    def __post_init__(self):
        for name in ("paths", "ids", "cams", "sha256"):
            if getattr(self, name).dtype.kind != "U":
                raise ValueError(f"{name} must be text, found {getattr(self, name).dtype}: convert "
                                 "with .astype(str), the same way for query and gallery")
        lengths = {name: len(values) for name, values in vars(self).items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"one entry an image expected in every field, found {lengths}")
        for emb in (self.emb, self.mirrored):
            bad = np.flatnonzero(~np.isfinite(emb).all(1))
            if len(bad):
                raise ValueError(f"embedding of {self.paths[bad[0]]} is not finite "
                                 f"({len(bad)} such images)")

    def save(self, path: Path) -> None:
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.savez(file, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "Embeddings":
        """What ``save`` wrote; ValueError where the file is damaged."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return cls(**{f.name: arrays[f.name] for f in fields(cls)})
        except (ValueError, LookupError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} does not hold embeddings ({error}); embed the images again"
                             ) from error

    def take(self, rows: np.ndarray) -> "Embeddings":
        """Some of the images, in that order."""
        return Embeddings(*(values[rows] for values in vars(self).values()))

    def unit_length(self) -> "Embeddings":
        """The same images with embeddings of unit length, which ``match_ranks.cosine`` expects.

        Raises ValueError where an embedding is all zeros: it has no direction.
        """
        mirrored = self._unit_length(self.mirrored) if self.mirrored.size else self.mirrored
        return replace(self, emb=self._unit_length(self.emb), mirrored=mirrored)

    def _unit_length(self, emb: np.ndarray) -> np.ndarray:
        length = lengths(emb)
        zero = np.flatnonzero(length == 0)
        if len(zero):
            raise ValueError(f"embedding of {self.paths[zero[0]]} is all zeros ({len(zero)} such "
                             "images) and has no cosine to others: embed these images again")
        return (emb / length[:, None]).astype(np.float32)

    def features(self, flip: bool, unit: bool = True) -> np.ndarray:
        """The embeddings, or with ``flip`` the mean of image and mirror (Sec. 3.3).

        ``unit``: the mean has unit length.
        """
        if not flip:
            return self.emb
        if self.mirrored.shape != self.emb.shape:
            raise ValueError("these images were embedded without their mirrors, as their study "
                             "asks for no flip: add it to `flips` of the study, delete the run's "
                             "folders below reports and artifacts, and run it again")
        return unit_mean(self.emb, self.mirrored) if unit else (self.emb + self.mirrored) / 2


def unit_mean(emb: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """The means of images and their mirrors, brought to unit length."""
    mean = (emb + mirrored) / 2
    return mean / np.linalg.norm(mean, axis=1, keepdims=True).clip(1e-12)


def join(parts: Iterable[Embeddings]) -> Embeddings:
    """All images of the parts, one after the other."""
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Embeddings(*(np.concatenate(values) for values in columns))


def pool(query: Embeddings, gallery: Embeddings) -> tuple[Embeddings, Embeddings]:
    """Every image once, as queries (without junk) and as gallery.

    Of byte-identical images of one identity and camera the first counts, queries before gallery.
    """
    both = join((query, gallery))
    labels = np.stack([both.sha256, both.ids, both.cams], 1)
    _, first = np.unique(labels, axis=0, return_index=True)
    images = both.take(np.sort(first))
    return images.take(images.ids != JUNK_ID), images


def lengths(emb: np.ndarray) -> np.ndarray:
    """(image,) float64, the length of each embedding."""
    return np.sqrt(np.einsum("ij,ij->i", emb, emb, dtype=np.float64))


def flipped(query: Embeddings, gallery: Embeddings, flip: str, unit: bool = True
            ) -> tuple[np.ndarray, np.ndarray]:
    """Features of both sides, with their mirrors for none, for the ``query`` (the paper) or
    ``both``. Raises ValueError where the sides cannot be compared, or the flip is unknown."""
    check_choice("flip", flip, FLIPS)
    check_features(query.emb, gallery.emb)
    return query.features(flip != "none", unit), gallery.features(flip == "both", unit)


def check_features(query: np.ndarray, gallery: np.ndarray) -> None:
    """Raise ValueError unless these are (image, dim) of one width, at least one image each."""
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query features {query.shape} and gallery features {gallery.shape}, "
                         "expected (image, dim) of one width: embed both with the same model")
    if not len(query) or not len(gallery):
        raise ValueError(f"{len(query)} query and {len(gallery)} gallery images: retrieval needs "
                         "at least one of each")


def embed_people(model: nn.Module, images: Tensor, people: pd.DataFrame, mirrors: bool = True
                 ) -> Embeddings:
    """``embed`` with what a manifest's rows say of the images: path, id, cam, sha256."""
    numbers = getattr(model, "camera_numbers", None)  # any module can be embedded with
    cams = numbers(people["cam"]) if numbers else None
    return Embeddings(*embed(model, images, cams=cams, mirrors=mirrors),
                    *(people[name].to_numpy(str) for name in ("path", "id", "cam", "sha256")))


@torch.inference_mode()
def embed(model: nn.Module, images: Tensor, batch_size: int = 64, cams: Tensor | None = None,
          mirrors: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of uint8 images ``(image, 3, height, width)`` and of their mirrors, float32.

    Args:
        cams: camera numbers of the images, for a model that takes them.
        mirrors: without them the second array is (image, 0), and it takes half the time.
    """
    model.eval()
    device = next(model.parameters()).device
    plain, mirrored = [], []
    try:
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            batch = images[rows].to(device)
            known = () if cams is None else (cams[rows].to(device),)
            plain.append(model.embed(batch, *known).float().cpu())
            mirrored.append(model.embed(batch.flip(-1), *known).float().cpu() if mirrors else
                            torch.empty(len(batch), 0))
    except torch.OutOfMemoryError as error:
        raise MemoryError(f"no memory left on {device} to embed {batch_size} images at a time: "
                          "take a smaller backbone or image_size, or --device cpu") from error
    return torch.cat(plain).numpy(), torch.cat(mirrored).numpy()
