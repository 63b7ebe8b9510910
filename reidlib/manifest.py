"""Folders of images -> one checked manifest.

A manifest is a DataFrame, one row per image, ordered by split (train, query, gallery), then path:
``path`` (POSIX, relative to the root), ``id`` and ``cam`` (text, exactly as written), ``split``,
``sha256`` (of the file's bytes), ``width`` and ``height`` (pixels, as stored).
"""

import hashlib
import io
import json
import re
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from reidlib.paths import data_root, whole_file

SPLITS = ["train", "query", "gallery"]
LISTING = ["path", "id", "cam", "split"]
COLUMNS = [*LISTING, "sha256", "width", "height"]
JUNK_ID = "-1"  # Market-1501: boxes that show no person well. Its "0000" are ordinary strangers.
IMAGE_FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM"]
BAR_FROM = 3000  # images; a progress bar for fewer is only noise

MARKET_TOP = "Market-1501-v15.09.15"

# split -> identities (junk is nobody), images (junk and strangers included)
KNOWN = {
    "pku-reid": {"train": (62, 992), "query": (12, 28), "gallery": (12, 181)},
    "market1501": {"train": (751, 12936), "query": (750, 3368), "gallery": (751, 19732)},
    "market1501-dev": {"train": (600, 10594), "query": (149, 633), "gallery": (151, 1709)},
}


class Layout(NamedTuple):
    """Folders of images, and what the file names in them say."""

    folders: dict[str, str]  # folder -> split
    glob: str
    name: str                # regular expression with the groups id and cam
    example: str             # the same for people


PKU_REID = Layout(
    {"train": "train", "val/query": "query", "val/gallery": "gallery"}, "**/*",
    r"(?P<id>[^/]+)/(?P<cam>\d+)_\d+\.png", "<person>/<camera>_<orientation>.png")
MARKET1501 = Layout(
    {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}, "*.jpg",
    r"(?P<id>-1|\d{4})_(?P<cam>c\d)s\d_\d{6}_\d{2}\.jpg", "0002_c1s1_000451_03.jpg")


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
        """Identities (junk is nobody) and images of each split."""
        people = self.manifest[self.manifest["id"] != JUNK_ID].groupby("split")["id"].nunique()
        images = self.manifest["split"].value_counts()
        counts = pd.DataFrame({"identities": people, "images": images})
        return counts.reindex(SPLITS).fillna(0).astype(int)


def read_dataset(name: str, root: Path | str | None = None) -> Dataset:
    """Read a data set by name, or a user's own by the path of its CSV, and check all of it.

    ``name`` is "pku-reid", "synthetic" (drawn, in the layout of PKU-Reid), "market1501", or ends
    in ".csv". ``root`` is the folder of the data set (default: ``data_root() / name``); a CSV path
    starts there if it is given. Known data sets must have their known counts. With nothing but
    Market-1501's training folder, the result is called "market1501-dev" (see
    ``split_market1501_dev``). Raises ValueError or FileNotFoundError.
    """
    if name.endswith(".csv"):
        path = Path(root or ".") / name
        return Dataset(path.stem, path.resolve().parent, read_csv(path))
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        "pku-reid": read_pku_reid, "synthetic": read_pku_reid, "market1501": read_market1501}
    if name not in readers:
        raise ValueError(f"unknown data set {name!r}; choose one of {', '.join(readers)}, "
                         "or give the path of a file that ends in .csv")
    root = Path(root or data_root() / name)
    root = market1501_folder(root) if name == "market1501" else root
    manifest = readers[name](root)
    if name == "market1501" and _only_train(root):
        name = "market1501-dev"
    dataset = Dataset(name, root.resolve(), manifest)
    if name in KNOWN:
        check_counts(dataset, KNOWN[name])
    return dataset


def read_pku_reid(root: Path | str) -> pd.DataFrame:
    """Manifest of PKU-Reid's layout, of any size: ``train/<id>/<cam>_<orientation>.png`` and the
    same below ``val/query`` and ``val/gallery``. Errors: see ``check_manifest``."""
    return check_manifest(_list_folders(Path(root), PKU_REID), root)


def read_market1501(root: Path | str) -> pd.DataFrame:
    """Manifest of Market-1501's folders in ``root`` (``market1501_folder`` finds and unpacks them).

    Names are ``<id>_c<cam>s<sequence>_<frame>_<box>.jpg``; files that are no ``.jpg`` (Thumbs.db)
    are ignored. If ``bounding_box_train`` stands alone it is split as ``split_market1501_dev``
    says. Errors: see ``check_manifest``.
    """
    root = Path(root)
    if not _only_train(root):
        return check_manifest(_list_folders(root, MARKET1501), root)
    only_train = MARKET1501._replace(folders={"bounding_box_train": "train"})
    return check_manifest(split_market1501_dev(_list_folders(root, only_train)), root)


def split_market1501_dev(listing: pd.DataFrame, n_train: int = 600) -> pd.DataFrame:
    """Split Market-1501's 751 training identities into 600 for training and 151 for testing.

    The sorted identities are permuted by a generator with a fixed seed. The first image (by name)
    of each test identity and camera is a query, the rest is gallery. An identity with one image per
    camera would leave nothing to find: all its images are gallery, and nobody asks for it.
    """
    ids = sorted(listing["id"].unique())
    if len(ids) <= n_train:
        raise ValueError(f"bounding_box_train has {len(ids)} identities, expected 751; "
                         "is the download complete?")
    listing = listing.sort_values("path")
    test = listing["id"].isin(np.random.default_rng(1501).permutation(ids)[n_train:])
    first = test & ~listing.duplicated(["id", "cam"])
    query = first & ~first.groupby(listing["id"]).transform("all")
    split = np.select([query, test], ["query", "gallery"], "train")
    return listing.assign(split=split)


def read_csv(path: Path | str) -> pd.DataFrame:
    """Manifest of a user's own data: a CSV with the columns path, id, cam, split (others are
    ignored), whose paths start from the CSV's folder and stay in it. Errors: see
    ``check_manifest``."""
    return check_manifest(_read_text_table(Path(path), LISTING), Path(path).parent)


def check_manifest(listing: pd.DataFrame, root: Path | str) -> pd.DataFrame:
    """Check a listing (path, id, cam, split) against the files in ``root``; return its manifest.

    Every image is read, hashed and fully decoded. If ``listing`` is a manifest already, its files
    must still have the same content. Raises FileNotFoundError for a missing file, and ValueError
    for: a missing column; an empty path, id or camera; an unknown split; a path that leaves the
    root or is listed twice; an image that cannot be decoded; fewer than two training identities;
    no query or gallery; a query identity that the gallery does not have; junk outside the gallery.
    """
    root = Path(root).resolve()
    _check_labels(listing, root)
    paths = [PurePosixPath(path).as_posix() for path in listing["path"]]
    checked = listing[LISTING].assign(path=paths)
    _check_paths(checked["path"], root)
    _check_people(checked, root)
    images = inspect_images(root, paths)
    broken = images[images["problem"] != ""]
    _refuse(root, broken["path"] + " (" + broken["problem"] + ")", "files that are no whole image",
            f"replace them or leave them out; formats that are read: {', '.join(IMAGE_FORMATS)}")
    if "sha256" in listing:
        changed = listing["sha256"].to_numpy() != images["sha256"].to_numpy()
        _refuse(root, checked.loc[changed, "path"], "files changed since the manifest was written",
                "write the manifest anew (notebooks/01_data.ipynb)")
    found = {column: images[column].to_numpy() for column in ["sha256", "width", "height"]}
    order = {split: i for i, split in enumerate(SPLITS)}
    return (checked.assign(**found, order=checked["split"].map(order))
            .sort_values(["order", "path"], ignore_index=True)[COLUMNS])


def check_counts(dataset: Dataset, known: dict[str, tuple[int, int]]) -> None:
    """Raise ValueError, with a table, if identities or images per split are not the known ones."""
    expected = pd.DataFrame.from_dict(known, "index", columns=["identities", "images"])
    found = dataset.counts()
    if not (found == expected.reindex(SPLITS)).all(axis=None):
        table = pd.concat({"found": found, "expected": expected}, axis=1).to_string()
        raise ValueError(f"{dataset.root} is not the known {dataset.name}: some files are missing "
                         f"or were added; get a complete copy (see data/README.md)\n{table}")


def inspect_images(root: Path | str, paths: Iterable[str]) -> pd.DataFrame:
    """Read and decode each file: path, sha256, width, height, problem ("" if there is none)."""
    paths = list(paths)
    with ThreadPoolExecutor() as pool:
        rows = list(tqdm(pool.map(lambda path: _inspect(root, path), paths), total=len(paths),
                         unit="image", disable=None if len(paths) >= BAR_FROM else True))
    return pd.DataFrame(rows, columns=["path", "sha256", "width", "height", "problem"])


def unreadable(root: Path | str, paths: Iterable[str]) -> dict[str, str]:
    """Why each file that is no whole image cannot be read, by path; empty if all can."""
    images = inspect_images(root, paths)
    return images[images["problem"] != ""].set_index("path")["problem"].to_dict()


def write_manifest(manifest: pd.DataFrame, path: Path | str) -> Path:
    """Write a manifest as CSV, whole or not at all; returns the path."""
    with whole_file(Path(path)) as partial:
        manifest.to_csv(partial, index=False, lineterminator="\n")
    return Path(path)


def load_manifest(path: Path | str) -> pd.DataFrame:
    """Read what ``write_manifest`` wrote, all labels as text. FileNotFoundError, ValueError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no manifest at {path}; run notebooks/01_data.ipynb first")
    return _read_text_table(Path(path), COLUMNS).astype({"width": int, "height": int})


def market1501_folder(root: Path | str) -> Path:
    """The folder below ``root`` that holds Market-1501's folders; unpacks their zip files."""
    root = Path(root)
    if not any((root / folder).exists() for folder in [*MARKET1501.folders, MARKET_TOP]):
        _unpack_zip(root / f"{MARKET_TOP}.zip")
    root = root / MARKET_TOP if (root / MARKET_TOP).is_dir() else root
    for folder in MARKET1501.folders:
        if not (root / folder).exists():
            _unpack_zip(root / f"{folder}.zip")
    return root


def _unpack_zip(archive: Path) -> None:
    """Unpack ``<name>.zip``, if there is one, to the folder ``<name>`` beside it, or not at all."""
    if not archive.is_file():
        return
    name, folder = archive.stem, archive.parent
    try:
        if not folder.stat().st_mode & 0o222:  # root could write here, but is not meant to
            raise PermissionError("the folder is read-only")
        with (tempfile.TemporaryDirectory(prefix=f".{name}.", suffix=".partial",
                                          dir=folder) as partial,
              zipfile.ZipFile(archive) as file):
            _refuse(archive, [path for path in file.namelist() if not _stays_inside(path)],
                    "paths that leave the folder", "do not trust this file")
            file.extractall(partial)
            if not Path(partial, name).is_dir():
                raise ValueError(f"{archive} holds no folder {name}; unpack it there by hand")
            Path(partial, name).rename(archive.with_suffix(""))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"{archive} is no whole zip file ({error}); download it again") from error
    except OSError as error:
        raise OSError(f"cannot unpack {archive} beside itself ({error}); put it into a "
                      "folder that can be written and has room") from error


def _only_train(root: Path) -> bool:
    return ((root / "bounding_box_train").is_dir()
            and not any((root / folder).exists() for folder in ["query", "bounding_box_test"]))


def _list_folders(root: Path, layout: Layout) -> pd.DataFrame:
    """Listing of all files in the layout's folders; each file name must be as the layout says."""
    rows = []
    for folder, split in layout.folders.items():
        if not (root / folder).is_dir():
            raise FileNotFoundError(f"no folder {root / folder}, where the {split} images should "
                                    "be; data/README.md says how to get and unpack the data")
        # a linked folder is listed like a file, to be refused rather than passed over
        files = sorted(file.relative_to(root / folder).as_posix()
                       for file in (root / folder).glob(layout.glob)
                       if file.is_symlink() or not file.is_dir())
        files = [file for file in files if not re.search(r"(^|/)(\.[^/]*|Thumbs\.db)$", file)]
        if not files:
            raise FileNotFoundError(f"{root / folder} holds no {split} images; "
                                    "data/README.md says how to get and unpack the data")
        matches = [re.fullmatch(layout.name, file) for file in files]
        _refuse(root / folder, [f for f, m in zip(files, matches, strict=True) if not m],
                f"file names that are not like {layout.example}", "rename or remove these files")
        rows += [(f"{folder}/{m[0]}", m["id"], m["cam"], split) for m in matches if m]
    return pd.DataFrame(rows, columns=LISTING)


def _read_text_table(path: Path, columns: list[str]) -> pd.DataFrame:
    """The named columns of a CSV, all as text: "001" stays "001", "NA" stays "NA"."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a CSV: {','.join(columns)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, dtype=str, na_filter=False,
                                index_col=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserWarning) as error:
        raise ValueError(f"{path} is no CSV in UTF-8: {error}") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; found "
                         f"{', '.join(table)}; expected {', '.join(columns)}")
    return table[columns]


def _check_labels(listing: pd.DataFrame, root: Path) -> None:
    missing = [column for column in LISTING if column not in listing]
    if missing:
        raise ValueError(f"{root}: the listing has no column {', '.join(missing)}; "
                         f"expected {', '.join(LISTING)}")
    for column, word in [("path", "path"), ("id", "identity"), ("cam", "camera")]:
        empty = [f"row {row} ({path!r})" for row, (path, value)
                 in enumerate(zip(listing["path"], listing[column], strict=True), start=1)
                 if not isinstance(value, str) or not value.strip()]
        _refuse(root, empty, f"images with an empty {word} (or one that is no text)",
                f"write the {word} of each image in the column {column}")
    unknown = listing[~listing["split"].isin(SPLITS)]
    _refuse(root, unknown["path"] + " (" + unknown["split"].astype(str) + ")",
            "images with an unknown split", f"expected one of {', '.join(SPLITS)}")


def _check_paths(paths: pd.Series, root: Path) -> None:
    inside = [_stays_inside(path) and (root / path).resolve().is_relative_to(root)
              for path in paths]
    _refuse(root, paths[~np.array(inside, bool)], "paths that leave the folder",
            "give paths below it, without .. and without links that lead out")
    missing = [not (root / path).is_file() for path in paths]
    _refuse(root, paths[missing], "files that do not exist",
            "paths start from this folder, with / between folders", FileNotFoundError)
    _refuse(root, paths[paths.duplicated()].drop_duplicates(), "images listed twice",
            "list each image once")


def _check_people(listing: pd.DataFrame, root: Path) -> None:
    by_split = {split: listing[listing["split"] == split] for split in SPLITS}
    n_train = by_split["train"]["id"].nunique()
    if n_train < 2:
        raise ValueError(f"{root}: {n_train} training identities; at least 2 are needed to learn "
                         "what tells people apart")
    for split in ["query", "gallery"]:
        if by_split[split].empty:
            raise ValueError(f"{root}: no {split} images; give some images the split {split!r}")
    junk = listing[(listing["id"] == JUNK_ID) & (listing["split"] != "gallery")]
    _refuse(root, junk["path"], f"training or query images with the identity {JUNK_ID}",
            f"{JUNK_ID} means junk, in the gallery only; give people another identity")
    absent = sorted(set(by_split["query"]["id"]) - set(by_split["gallery"]["id"]))
    _refuse(root, absent, "query identities absent from the gallery",
            "add a gallery image of each, or leave its queries out")


def _inspect(root: Path | str, path: str) -> tuple[str, str, int, int, str]:
    try:
        data = Path(root, path).read_bytes()
        if not data:
            return path, "", 0, 0, "zero bytes"
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            image.load()
            return path, hashlib.sha256(data).hexdigest(), image.width, image.height, ""
    except Exception as error:  # Pillow raises a dozen types on broken files
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        return path, "", 0, 0, reason or type(error).__name__


def _stays_inside(path: str) -> bool:
    return not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts


def _refuse(where: Path, bad: Iterable[str], problem: str, advice: str,
            error: type[Exception] = ValueError) -> None:
    """Raise ``error`` that names the place, the first five bad values and their number."""
    bad = [str(value) for value in bad]
    if bad:
        shown = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise error(f"{where}: {problem} ({len(bad)}): {shown}; {advice}")
