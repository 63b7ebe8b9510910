"""Data sets by name -> their folders, file names and splits -> a checked manifest."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from reidlib.data import manifest
from reidlib.data.manifest import LISTING, SPLITS, Dataset, check_manifest
from reidlib.data.zips import unpack_zip
from reidlib.utils.errors import check_choice, refuse
from reidlib.utils.paths import data_root, resolved

MARKET_TOP = "Market-1501-v15.09.15"
# name -> folder of the boxes that people drew, or that a detector found
CUHK03 = {"cuhk03-np": "labeled", "cuhk03-np-detected": "detected", "cuhk03-np-pair1": "labeled"}
NAMES = ("pku-reid", "market1501", *CUHK03, "synthetic")
# name -> how the zip of all of it, and the folder in it, are called
TOPS = {"market1501": MARKET_TOP, **{name: name.removesuffix("-detected") for name in CUHK03}}

# split -> identities (junk is not an identity), images (junk and other people included)
KNOWN = {
    "pku-reid": {"train": (62, 992), "query": (12, 28), "gallery": (12, 181)},
    "market1501": {"train": (751, 12936), "query": (750, 3368), "gallery": (751, 19732)},
    "market1501-dev": {"train": (600, 10594), "query": (149, 633), "gallery": (151, 1709)},
    "cuhk03-np": {"train": (767, 7368), "query": (700, 1400), "gallery": (700, 5328)},
    "cuhk03-np-detected": {"train": (767, 7365), "query": (700, 1400), "gallery": (700, 5332)},
    "cuhk03-np-pair1": {"train": (427, 4145), "query": (416, 832), "gallery": (416, 3200)},
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
    r"(?P<id>-1|\d{4})_(?P<cam>c\d)s\d_\d{6}_\d{2}\.jpg(\.jpg)?", "0002_c1s1_000451_03.jpg")
CUHK03_NP = Layout(MARKET1501.folders, "*", r"(?P<id>\d+)_(?P<cam>c\d)_\d+\.(png|jpg)",
                   "0003_c1_1.png")


def read_dataset(name: str, root: Path | str | None = None) -> Dataset:
    """Read a data set by name, or a user's own by the path of its CSV, and check all of it.

    ``name`` is one of ``NAMES`` ("synthetic" is drawn, in the layout of PKU-Reid), or ends
    in ".csv": a table with the columns path, id, cam, split (others are ignored), whose paths start
    from its folder and stay in it. See ``locate`` for its place; zip files there are unpacked.
    Known data sets must have their known counts. With nothing but Market-1501's training folder,
    the result is called "market1501-dev" (see ``split_market1501_dev``). Errors: see
    ``check_manifest`` and ``unpack_zip``.
    """
    if name.endswith(".csv"):
        exact, folder = locate(name, root)
        listing = manifest.read_text_table(resolved(Path(root or data_root(), name)), LISTING)
        return Dataset(exact, folder, check_manifest(listing, folder))
    unpack(name, root)
    exact, folder = locate(name, root)
    read = (read_market1501 if name == "market1501" else
            read_cuhk03 if name in CUHK03 else read_pku_reid)
    dataset = Dataset(exact, folder, read(folder))
    if exact in KNOWN:
        check_counts(dataset, KNOWN[exact])
    return dataset


def locate(name: str, root: Path | str | None = None) -> tuple[str, Path]:
    """A data set's exact name, and the folder that the paths of its manifest start from.

    ``root`` is the folder of the data set (default: ``default_root(name)``), or for a CSV the one
    that its path starts from (default: ``data_root()``).
    """
    if name.endswith(".csv"):
        path = resolved(Path(root or data_root(), name))
        return path.stem, path.parent
    check_choice("data set or .csv file", name, NAMES)
    folder = _top(name, resolved(root or default_root(name)))
    return (name + "-dev" * (name == "market1501" and _only_train(folder)),
            folder / CUHK03.get(name, ""))


def origin(name: str) -> str:
    """The known collection of real people that a data set is of, in any version; else ""."""
    if name in CUHK03:
        return "cuhk03"
    return name.removesuffix("-dev") if name.startswith(("pku-reid", "market1501")) else ""


def default_root(name: str) -> Path:
    """The folder of a data set: in ``data_root()``, called like it.

    CUHK03's detected boxes lie in the folder of the labeled ones.
    """
    return data_root() / name.removesuffix("-detected")


def read_pku_reid(root: Path | str) -> pd.DataFrame:
    """Manifest of PKU-Reid's layout, of any size: ``train/<id>/<cam>_<orientation>.png`` and the
    same below ``val/query`` and ``val/gallery``. Errors: see ``check_manifest``."""
    return check_manifest(_list_folders(Path(root), PKU_REID), root)


def read_market1501(root: Path | str) -> pd.DataFrame:
    """Manifest of Market-1501's folders in ``root`` (``unpack`` unpacks them).

    Names are ``<id>_c<cam>s<sequence>_<frame>_<box>.jpg``, with a second ``.jpg`` in 24 of them;
    other files (Thumbs.db) are ignored. If ``bounding_box_train`` stands alone it is split as
    ``split_market1501_dev`` says. Errors: see ``check_manifest``.
    """
    root = Path(root)
    if not _only_train(root):
        return check_manifest(_list_folders(root, MARKET1501), root)
    only_train = MARKET1501._replace(folders={"bounding_box_train": "train"})
    return check_manifest(split_market1501_dev(_list_folders(root, only_train)), root)


def read_cuhk03(root: Path | str) -> pd.DataFrame:
    """Manifest of CUHK03's new protocol, whose folders are called like Market-1501's, in ``root``
    (``labeled`` or ``detected``). Names are ``<id>_c<cam>_<n>.png`` or ``.jpg``.

    Source: Zhong et al. 2017 (arXiv:1701.08398), Sec. 4.1. Raises ValueError for the MATLAB files
    of CUHK03 instead of the folders; other errors: see ``check_manifest``.
    """
    root = Path(root)
    if not root.is_dir():
        refuse(root.parent, sorted(path.name for path in root.parent.rglob("*.mat")),
               "MATLAB files, which are not read", "get the pictures of CUHK03-NP, as "
               f"{root.name}/{{{','.join(CUHK03_NP.folders)}}}/{CUHK03_NP.example}: see "
               "data/README.md")
    return check_manifest(_list_folders(root, CUHK03_NP), root)


def split_market1501_dev(listing: pd.DataFrame, n_train: int = 600) -> pd.DataFrame:
    """Split Market-1501's 751 training identities into 600 for training and 151 for testing.

    The sorted identities are permuted by a generator with a fixed seed. The first image (by name)
    of each test identity and camera is a query, the rest is gallery. An identity with one image per
    camera would leave nothing to find: all its images are gallery, and no query shows it.
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


def check_counts(dataset: Dataset, known: dict[str, tuple[int, int]]) -> None:
    """Raise ValueError, with a table, if identities or images per split are not the known ones."""
    expected = pd.DataFrame.from_dict(known, "index", columns=["identities", "images"])
    found = dataset.counts()
    if not (found == expected.reindex(SPLITS)).all(axis=None):
        table = pd.concat({"found": found, "expected": expected}, axis=1).to_string()
        raise ValueError(f"{dataset.root} is not the known {dataset.name}: some files are missing "
                         f"or were added; get a complete copy (see data/README.md)\n{table}")


def unpack(name: str, root: Path | str | None = None) -> None:
    """Unpack the zip files of Market-1501 or CUHK03, where their folders are not there yet.

    One zip holds all of it, next to the data set's folder (``<root>.zip``) or in it, or each of
    its folders has one. Errors: see ``unpack_zip``.
    """
    if name not in TOPS:
        return
    root, top = resolved(root or default_root(name)), TOPS[name]
    inside = sorted(set(CUHK03.values()) if name in CUHK03 else MARKET1501.folders)
    if not root.exists():
        unpack_zip(root.with_name(f"{root.name}.zip"), [top, *inside])
    if not any((root / folder).exists() for folder in [top, *inside]):
        unpack_zip(root / f"{top}.zip", inside)
    for folder in inside:
        if not (_top(name, root) / folder).exists():
            unpack_zip(_top(name, root) / f"{folder}.zip")


def _top(name: str, root: Path) -> Path:
    """The folder that the data set's zip holds, if ``root`` has it, else ``root``."""
    top = root / TOPS.get(name, "")
    return top if top.is_dir() else root


def _only_train(root: Path) -> bool:
    return ((root / "bounding_box_train").is_dir()
            and not any((root / folder).exists() for folder in ["query", "bounding_box_test"]))


def _list_folders(root: Path, layout: Layout) -> pd.DataFrame:
    """Listing of all files in the layout's folders; each file name must be as the layout says."""
    rows = []
    for folder, split in layout.folders.items():
        if not (root / folder).is_dir():
            raise FileNotFoundError(f"no folder {root / folder}, where the {split} images should "
                                    "be; data/README.md says how to get the data, REIDLIB_DATA can "
                                    "name another place for it")
        # a linked folder is listed like a file, to be refused rather than passed over
        files = sorted(file.relative_to(root / folder).as_posix()
                       for file in (root / folder).glob(layout.glob)
                       if file.is_symlink() or not file.is_dir())
        files = [file for file in files if not re.search(r"(^|/)(\.[^/]*|Thumbs\.db)$", file)]
        if not files:
            raise FileNotFoundError(f"{root / folder} holds no {split} images; "
                                    "data/README.md says how to get and unpack the data")
        matches = [re.fullmatch(layout.name, file) for file in files]
        refuse(root / folder, [f for f, m in zip(files, matches, strict=True) if not m],
                f"file names that are not like {layout.example}", "rename or remove these files")
        rows += [(f"{folder}/{m[0]}", m["id"], m["cam"], split) for m in matches if m]
    return pd.DataFrame(rows, columns=LISTING)
