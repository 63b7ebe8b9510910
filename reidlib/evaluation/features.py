"""Files of features, from any model -> embeddings of the queries and of the gallery.

A file of features is one of

- an ``.npz`` with the arrays ``features`` (image, dim), ``paths``, ``ids``, ``cams`` and ``split``
  (query or gallery), one entry an image; if they are there also ``mirrored`` (the features of the
  mirrored images) and ``sha256`` (of the image files);
- a folder with one ``.npy`` of features and one CSV with the columns ``path``, ``id``, ``cam``,
  ``split`` and, if it is there, ``sha256``, one row a feature;
- the folder of a run in ``artifacts/``, with ``query.npz`` and ``gallery.npz``.
"""

import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from reidlib.data.manifest import JUNK_ID, LISTING, check_labels, read_text_table
from reidlib.evaluation.embeddings import Embeddings, check_features, lengths
from reidlib.utils.errors import refuse

COLUMNS = {"paths": "path", "ids": "id", "cams": "cam", "split": "split"}  # array -> CSV column
NEEDED, OPTIONAL = ["features", *COLUMNS], ["mirrored", "sha256"]
LONGEST = 1e18  # a longer feature has no square in float32
WHAT = ("an .npz with the arrays features, paths, ids, cams, split; a folder with one .npy of "
        "features and one CSV of path,id,cam,split; or the folder of a run in artifacts/")


class Features(NamedTuple):
    """Both sides, each sorted by path, and what the file says about them.

    Without ``has_sha256`` images are known as copies of each other by their path alone. Without
    ``has_mirrored`` the mirrors are the images themselves, or not there.
    """

    query: Embeddings
    gallery: Embeddings
    has_sha256: bool
    has_mirrored: bool
    n_train: int  # training images in the file, which are left out


def read_features(path: Path) -> Features:
    """What a file of features holds; the forms it may have are named above.

    Numbers of any real type become float32; ids and cameras that are whole numbers become text.

    Raises:
        FileNotFoundError: no such file, or nothing of the kind in the folder.
        ValueError: it is damaged or has pickled objects; an array is missing, of another length or
            type; a label is empty, a split unknown, a side empty, a query junk; a path is there
            twice; a feature is not finite or too long to be squared.
    """
    if path.is_file():
        return _split(path, *_read_arrays(path))
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist; expected {WHAT}")
    sides = [path / f"{side}.npz" for side in ("query", "gallery")]
    if all(side.is_file() for side in sides):
        query, gallery = map(Embeddings.load, sides)
        check_features(query.emb, gallery.emb)
        return Features(query, gallery, True, bool(query.mirrored.size), 0)
    return _split(path, *_read_folder(path))


def labels(features: Features) -> pd.DataFrame:
    """Path, id, cam, split and, where it is known, sha256 of every image."""
    sides = {"query": features.query, "gallery": features.gallery}
    table = pd.concat([pd.DataFrame({"path": side.paths, "id": side.ids, "cam": side.cams,
                                     "split": name, "sha256": side.sha256})
                       for name, side in sides.items()], ignore_index=True)
    return table if features.has_sha256 else table.drop(columns="sha256")


def _read_arrays(path: Path) -> tuple[pd.DataFrame, np.ndarray, np.ndarray | None]:
    """Labels, features and their mirrors of an ``.npz``."""
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a complete .npz file; expected {WHAT}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = [name for name in (*NEEDED, *OPTIONAL) if name in archive.files]
            missing = [name for name in NEEDED if name not in found]
            if missing:
                raise ValueError(f"it has no array {', '.join(missing)}; it has "
                                 f"{', '.join(archive.files) or 'none'}")
            arrays = {name: _unpickled(archive, name) for name in found}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as features: {error}; expected {WHAT}") from error
    features = _numbers(path, "features", arrays["features"])
    listing = pd.DataFrame({column: _text(path, name, arrays[name], len(features))
                            for name, column in (*COLUMNS.items(), ("sha256", "sha256"))
                            if name in arrays})
    if "mirrored" not in arrays:
        return listing, features, None
    mirrored = _numbers(path, "mirrored", arrays["mirrored"])
    if mirrored.shape != features.shape:
        raise ValueError(f"{path}: mirrored is {mirrored.shape}, features {features.shape}; "
                         "expected one of each image, of one width")
    return listing, features, mirrored


def _unpickled(archive, name: str) -> np.ndarray:
    try:
        return np.asarray(archive[name])
    except ValueError as error:
        raise ValueError(f"array {name}: {error}; Python objects are never loaded, save labels "
                         "as text, with .astype(str)") from error


def _read_folder(path: Path) -> tuple[pd.DataFrame, np.ndarray, None]:
    """Labels and features of a folder with one ``.npy`` and one CSV."""
    found = [sorted(path.glob(f"*{ending}")) for ending in (".npy", ".csv")]
    if [len(files) for files in found] != [1, 1]:
        names = ", ".join(file.name for files in found for file in files)
        raise FileNotFoundError(f"{path} has {len(found[0])} .npy and {len(found[1])} .csv files "
                                f"({names or 'none'}); expected {WHAT}")
    (features_path,), (listing_path,) = found
    try:
        features = np.load(features_path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{features_path} cannot be read as features ({error}); expected an "
                         "array (image, dim) of numbers, as np.save writes it") from error
    features = _numbers(features_path, "features", features)
    listing = read_text_table(listing_path, LISTING, ["sha256"])
    if len(listing) != len(features):
        raise ValueError(f"{listing_path} has {len(listing)} rows, {features_path.name} "
                         f"{len(features)} features; expected one row a feature")
    return listing, features, None


def _numbers(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{path}: {name} have the type {values.dtype}; expected real numbers, "
                         "such as float32")
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"{path}: {name} have the shape {values.shape}; expected (image, dim)")
    with np.errstate(over="ignore"):  # becomes infinite, which is refused with the image's path
        return values.astype(np.float32, copy=False)


def _text(path: Path, name: str, values: np.ndarray, n: int) -> np.ndarray:
    if values.dtype.kind not in "Uiu":
        raise ValueError(f"{path}: {name} have the type {values.dtype}; expected text or whole "
                         "numbers")
    if values.shape != (n,):
        raise ValueError(f"{path}: {name} have the shape {values.shape}, but there are {n} "
                         "features; expected one entry an image")
    return values.astype(str).astype(object)


def _split(path: Path, listing: pd.DataFrame, features: np.ndarray, mirrored: np.ndarray | None
           ) -> Features:
    """Check the labels and sort the images by side and path."""
    check_labels(listing, path)
    tested = listing[listing["split"] != "train"]
    _check_images(path, tested)
    sides = []
    for side in ("query", "gallery"):
        own = tested[tested["split"] == side].sort_values("path")
        if own.empty:
            raise ValueError(f"{path}: no {side} images; give some images the split {side!r}")
        rows = own.index.to_numpy()
        content = own["sha256" if "sha256" in own else "path"]
        emb = features[rows]
        too_long = lengths(emb) > LONGEST
        try:
            images = Embeddings(emb, emb if mirrored is None else mirrored[rows],
                                *(own[name].to_numpy(str) for name in ("path", "id", "cam")),
                                content.to_numpy(str))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        refuse(path, images.paths[too_long], f"features longer than {LONGEST:g}, which cannot be "
               "squared", "divide all features by one number")
        sides.append(images)
    return Features(*sides, "sha256" in listing, mirrored is not None, len(listing) - len(tested))


def _check_images(path: Path, tested: pd.DataFrame) -> None:
    twice = tested.duplicated(["path", "split"])
    refuse(path, tested.loc[twice, "path"], "images that are there twice in one split",
           "give each image one row")
    by_path = tested.drop_duplicates(tested.columns.difference(["split"]).tolist())
    refuse(path, by_path.loc[by_path["path"].duplicated(), "path"], "images with other labels as "
           "query than in the gallery", "give both the same id, cam and sha256")
    junk = tested[(tested["split"] == "query") & (tested["id"] == JUNK_ID)]
    refuse(path, junk["path"], f"queries with the identity {JUNK_ID}",
           f"{JUNK_ID} means junk, in the gallery only; give people another identity")
