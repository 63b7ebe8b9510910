"""Folders of images -> one checked manifest.

A manifest is a DataFrame, one row per image, ordered by split (train, query, gallery), then path:
``path`` (POSIX, relative to the root), ``id`` and ``cam`` (text, exactly as written), ``split``,
``sha256`` (of the file's bytes), ``width`` and ``height`` (pixels, of the upright picture).
"""

import hashlib
import io
import json
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from reidlib.utils.console import progress_bar
from reidlib.utils.errors import refuse
from reidlib.utils.paths import resolved

JUNK_ID = "-1"  # Market-1501: boxes that show no person well. Its "0000" are ordinary people.
SPLITS = ["train", "query", "gallery"]
LISTING = ["path", "id", "cam", "split"]
COLUMNS = [*LISTING, "sha256", "width", "height"]
IMAGE_FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A checked manifest, the folder that its paths start from, and a name for both."""

    name: str
    root: Path
    manifest: pd.DataFrame

    @property
    def checksum(self) -> str:
        """SHA-256 over path, id, cam, split and content of every image, in the manifest's order."""
        rows = self.manifest[[*LISTING, "sha256"]].to_numpy().tolist()
        return hashlib.sha256("\n".join(map(json.dumps, rows)).encode()).hexdigest()

    def counts(self) -> pd.DataFrame:
        """Identities (junk is not an identity) and images of each split."""
        ids = self.manifest["id"].mask(self.manifest["id"] == JUNK_ID)
        counts = ids.groupby(self.manifest["split"]).agg(identities="nunique", images="size")
        return counts.reindex(SPLITS, fill_value=0)


def check_manifest(listing: pd.DataFrame, root: Path | str) -> pd.DataFrame:
    """Check a listing (path, id, cam, split) against the files in ``root``; return its manifest.

    Every image is read, hashed and fully decoded. If ``listing`` is a manifest already, its files
    must still have the same content. Raises FileNotFoundError for a missing file, and ValueError
    for: a missing column; an empty path, id or camera; an unknown split; a path that leaves the
    root or is listed twice; an image that cannot be decoded; fewer than two training identities;
    no query or gallery; a query identity that the gallery does not have; junk outside the gallery.
    """
    root = resolved(root)
    check_labels(listing, root)
    paths = [PurePosixPath(path).as_posix() for path in listing["path"]]
    checked = listing[LISTING].assign(path=paths).reset_index(drop=True)
    _check_paths(checked["path"], root)
    _check_people(checked, root)
    images = inspect_images(root, paths)
    broken = images[images["problem"] != ""]
    refuse(root, broken["path"] + " (" + broken["problem"] + ")", "not complete images",
            "get them again or, of your own data, leave them out; formats that are read: "
            f"{', '.join(IMAGE_FORMATS)}")
    if "sha256" in listing:
        changed = listing["sha256"].to_numpy() != images["sha256"]
        refuse(root, images.loc[changed, "path"], "files changed since the manifest was written",
                "write the manifest again (notebooks/01_data.ipynb)")
    checked[["sha256", "width", "height"]] = images[["sha256", "width", "height"]]
    order = checked["split"].map(SPLITS.index)
    return checked.assign(order=order).sort_values(["order", "path"], ignore_index=True)[COLUMNS]


def inspect_images(root: Path | str, paths: Iterable[str]) -> pd.DataFrame:
    """Read and decode each file: path, sha256, width, height, problem ("" if there is none)."""

    def inspect(path: str) -> tuple[str, str, int, int, str]:
        try:
            data = Path(root, path).read_bytes()
            return path, hashlib.sha256(data).hexdigest(), *open_picture(data).size, ""
        except (OSError, ValueError) as error:
            return path, "", 0, 0, str(error)

    paths = list(paths)
    with ThreadPoolExecutor() as pool:
        rows = list(progress_bar(pool.map(inspect, paths), len(paths), "checking images", "image"))
    return pd.DataFrame(rows, columns=["path", "sha256", "width", "height", "problem"])


def load_manifest(path: Path | str) -> pd.DataFrame:
    """Read a manifest that was written as CSV, all labels text. FileNotFoundError, ValueError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no manifest at {path}; run notebooks/01_data.ipynb first")
    table = read_text_table(Path(path), COLUMNS)
    try:
        return table.astype({"width": int, "height": int})
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); run notebooks/01_data.ipynb again"
                         ) from error


def read_text_table(path: Path, columns: list[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """The named columns of a CSV, all as text: "001" stays "001", "NA" stays "NA".

    ``optional``: columns that come too if they are there.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a CSV: {','.join(columns)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, dtype=str, na_filter=False,
                                index_col=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserWarning) as error:
        raise ValueError(f"{path} is not a CSV in UTF-8 ({error}); save it as one"
                         ) from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; found "
                         f"{', '.join(table)}; expected {', '.join(columns)}, with commas "
                         "between them")
    return table[[*columns, *(column for column in optional if column in table)]]


def check_labels(listing: pd.DataFrame, root: Path) -> None:
    """ValueError, which names ``root``: a column of a listing is missing, or a label is bad.

    Bad are an empty path, id or camera, or one that is not text, and an unknown split.
    """
    missing = [column for column in LISTING if column not in listing]
    if missing:
        raise ValueError(f"{root}: the listing has no column {', '.join(missing)}; "
                         f"expected {', '.join(LISTING)}")
    for column, word in [("path", "path"), ("id", "identity"), ("cam", "camera")]:
        empty = [f"row {row} ({path!r})" for row, (path, value)
                 in enumerate(zip(listing["path"], listing[column], strict=True), start=1)
                 if not isinstance(value, str) or not value.strip() or "\0" in value]
        refuse(root, empty, f"images with an empty {word} (or one with a NUL byte, or not text)",
                f"write the {word} of each image in the column {column}")
    unknown = listing[~listing["split"].isin(SPLITS)]
    refuse(root, unknown["path"] + " (" + unknown["split"].astype(str) + ")",
            "images with an unknown split", f"expected one of {', '.join(SPLITS)}")


def _check_paths(paths: pd.Series, root: Path) -> None:
    inside = [stays_inside(path) and resolved(root / path).is_relative_to(root)
              for path in paths]
    refuse(root, paths[~np.array(inside, bool)], "paths that leave the folder",
            "give paths below it, without .. and without links that lead out")
    missing = [not (root / path).is_file() for path in paths]
    refuse(root, paths[missing], "files that do not exist",
            "paths start from this folder, with / between folders; a link must lead to a file",
            FileNotFoundError)
    refuse(root, paths[paths.duplicated()].drop_duplicates(), "images listed twice",
            "list each image once")


def _check_people(listing: pd.DataFrame, root: Path) -> None:
    ids = {split: set(listing.loc[listing["split"] == split, "id"]) for split in SPLITS}
    n_train = len(ids["train"])
    if n_train < 2:
        raise ValueError(f"{root}: {n_train} training identities; at least 2 are needed to learn "
                         "what tells people apart")
    for split in ["query", "gallery"]:
        if not ids[split]:
            raise ValueError(f"{root}: no {split} images; give some images the split {split!r}")
    junk = listing[(listing["id"] == JUNK_ID) & (listing["split"] != "gallery")]
    refuse(root, junk["path"], f"training or query images with the identity {JUNK_ID}",
            f"{JUNK_ID} means junk, in the gallery only; give people another identity")
    refuse(root, sorted(ids["query"] - ids["gallery"]), "query identities absent from the gallery",
            "add a gallery image of each, or leave its queries out")


def open_picture(data: bytes) -> Image.Image:
    """The picture in an image file's bytes: RGB, turned upright as its EXIF says.

    Raises ValueError where it is broken, or has more than 8 bits of grey: Pillow would clip them.
    """
    try:
        if not data:
            raise ValueError("zero bytes")
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            if image.mode[0] in "IF":
                raise ValueError(f"pixels of mode {image.mode}; save it with 8 bits a colour")
            return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # Pillow raises a dozen types on broken files
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise ValueError(reason or type(error).__name__) from error


def stays_inside(path: str) -> bool:
    return not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts
