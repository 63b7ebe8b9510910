"""Folders and file names of each data set become its manifest."""

import hashlib
import re
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from reidlib.data import datasets, manifest
from reidlib.data.audit import audit, check_scorable
from reidlib.utils.paths import data_root
from tests.data.made_up import ROWS, draw, zipped


@pytest.fixture
def market(tmp_path):
    root = tmp_path / "market1501"
    for seed, name in enumerate([
            "bounding_box_train/0002_c1s1_000451_03.jpg",
            "bounding_box_train/0007_c2s3_000001_01.jpg", "query/0001_c1s1_001051_00.jpg",
            "bounding_box_test/0001_c2s1_000301_00.jpg", "bounding_box_test/-1_c3s1_000401_01.jpg",
            "bounding_box_test/0000_c1s1_000151_01.jpg.jpg"]):
        draw(root / name, seed)
    (root / "query" / "Thumbs.db").write_bytes(b"clutter")
    return root


@pytest.fixture
def cuhk(tmp_path):
    root = tmp_path / "cuhk03-np"
    for seed, name in enumerate([
            "bounding_box_train/0002_c1_1.png", "bounding_box_train/0010_c2_10.jpg",
            "query/0001_c1_1.png", "query/0001_c2_6.png", "bounding_box_test/0001_c1_2.png",
            "bounding_box_test/0001_c2_7.png"]):
        draw(root / "labeled" / name, seed)
        draw(root / "detected" / name, 10 + seed)
    draw(root / "detected/bounding_box_train/0002_c1_3.png", 20)
    (root / "labeled" / "query" / "Thumbs.db").write_bytes(b"clutter")
    return root


def test_pku_layout_becomes_a_manifest(pku):
    (pku / "train" / ".DS_Store").write_bytes(b"clutter")
    found = datasets.read_pku_reid(pku)
    assert list(found) == manifest.COLUMNS
    assert found["path"].tolist() == ["train/003/02_8.png", "train/007/01_1.png",
                                         "val/query/001/01_1.png", "val/gallery/001/02_3.png"]
    assert found["id"].tolist() == ["003", "007", "001", "001"]
    assert found["cam"].tolist() == ["02", "01", "01", "02"]
    assert found["split"].tolist() == ["train", "train", "query", "gallery"]
    assert found["width"].tolist() == [8] * 4 and found["height"].tolist() == [16] * 4
    content = (pku / "train/003/02_8.png").read_bytes()
    assert found["sha256"][0] == hashlib.sha256(content).hexdigest()


def test_official_market_folders(market):
    found = datasets.read_market1501(market)
    gallery = found[found["split"] == "gallery"]
    assert gallery["id"].tolist() == ["-1", "0000", "0001"]
    assert gallery["cam"].tolist() == ["c3", "c1", "c2"]
    counts = manifest.Dataset("market1501", market, found).counts()
    assert counts.loc["gallery"].tolist() == [2, 3]       # junk is no identity, but an image


@pytest.mark.parametrize("one", [True, False])
def test_market_zip_is_unpacked_into_its_folder(market, tmp_path, one):
    expected = datasets.read_market1501(market)
    if one:
        archive = zipped(market.rename(tmp_path / datasets.MARKET_TOP))
        datasets.unpack("market1501", tmp_path)
        _, found = datasets.locate("market1501", tmp_path)
        assert found == tmp_path / datasets.MARKET_TOP
    else:
        archive = zipped(market / "bounding_box_test")
        datasets.unpack("market1501", market)
        _, found = datasets.locate("market1501", market)
        assert found == market
    pd.testing.assert_frame_equal(datasets.read_market1501(found), expected)
    assert archive.exists() and not list(tmp_path.rglob("*.partial"))


def test_cuhk03_folders_are_chosen_by_name(cuhk, monkeypatch):
    monkeypatch.setenv("REIDLIB_DATA", str(cuhk.parent))
    monkeypatch.setattr(datasets, "KNOWN", {})
    labeled, detected = (datasets.read_dataset(name) for name in ("cuhk03-np",
                                                                  "cuhk03-np-detected"))
    assert labeled.root == cuhk / "labeled" and detected.root == cuhk / "detected"
    assert labeled.manifest[manifest.LISTING].to_numpy().tolist() == [
        ["bounding_box_train/0002_c1_1.png", "0002", "c1", "train"],
        ["bounding_box_train/0010_c2_10.jpg", "0010", "c2", "train"],
        ["query/0001_c1_1.png", "0001", "c1", "query"],
        ["query/0001_c2_6.png", "0001", "c2", "query"],
        ["bounding_box_test/0001_c1_2.png", "0001", "c1", "gallery"],
        ["bounding_box_test/0001_c2_7.png", "0001", "c2", "gallery"]]
    assert detected.counts()["images"].tolist() == [3, 2, 2]
    content = (cuhk / "detected/query/0001_c1_1.png").read_bytes()
    assert hashlib.sha256(content).hexdigest() in set(detected.manifest["sha256"])


@pytest.mark.parametrize("zips", ["next to the folder", "next to it, with the folder", "in it",
                                  "in it, with the folder", "one a folder"])
def test_cuhk03_zip_is_found(cuhk, tmp_path, zips):
    expected = datasets.read_cuhk03(cuhk / "labeled")
    if zips == "one a folder":
        archive = zipped(cuhk / "labeled")
    else:
        archive = zipped(cuhk, tmp_path if "with" in zips else cuhk)
    if zips.startswith("in it"):
        cuhk.mkdir()
        archive = archive.rename(cuhk / archive.name)
    datasets.unpack("cuhk03-np", cuhk)
    _, found = datasets.locate("cuhk03-np", cuhk)
    pd.testing.assert_frame_equal(datasets.read_cuhk03(found), expected)
    content = archive.stat()
    datasets.unpack("cuhk03-np", cuhk)  # again: nothing to do
    assert archive.stat() == content and not list(tmp_path.rglob("*.partial"))


def test_cuhk03_has_its_full_name_only_when_complete(cuhk):
    for name, images in [("cuhk03-np", 7368), ("cuhk03-np-detected", 7365),
                         ("cuhk03-np-pair1", 4145)]:
        with pytest.raises(ValueError, match=rf"not the known {name}:(?s:.)*train .* {images}\n"):
            datasets.read_dataset(name, cuhk)


def test_cuhk03_in_matlab_files(tmp_path):
    (tmp_path / "cuhk03_release").mkdir()
    for name in ("cuhk03_release/cuhk-03.mat", "cuhk03_new_protocol_config_detected.mat"):
        (tmp_path / name).write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(ValueError, match=r"\(2\): cuhk-03.mat, cuhk03_new.* as detected/{bounding_"
                       r"box_train,query,bounding_box_test}/0003_c1_1.png.*README"):
        datasets.read_dataset("cuhk03-np-detected", tmp_path)


def test_dev_split_by_hand():
    names = ["p1_a_1", "p1_a_2", "p1_b_1", "p2_a_1", "p2_b_1", "p3_a_1", "p4_a_1"]
    listing = pd.DataFrame({"path": names[::-1]})
    listing[["id", "cam"]] = listing["path"].str.split("_", expand=True)[[0, 1]]
    split = datasets.split_market1501_dev(listing, n_train=0).set_index("path")["split"]
    assert split["p1_a_1"] == "query" and split["p1_a_2"] == "gallery"
    assert split["p1_b_1"] == "query"
    assert (split[["p2_a_1", "p2_b_1", "p3_a_1", "p4_a_1"]] == "gallery").all()   # nothing to find


def test_dev_split_of_751_people():
    rows = [(f"{i:04}_{cam}_{n}", f"{i:04}", cam)
            for i in range(751) for cam in ["c1", "c2"] for n in range(2)]
    listing = pd.DataFrame(rows, columns=["path", "id", "cam"])
    split = datasets.split_market1501_dev(listing)
    people = split.groupby("split")["id"].agg(set)
    assert [len(people[s]) for s in manifest.SPLITS] == [600, 151, 151]
    assert people["query"] == people["gallery"] and not people["train"] & people["query"]
    again = datasets.split_market1501_dev(listing.sample(frac=1, random_state=0)).sort_index()
    pd.testing.assert_frame_equal(again, split.sort_index())
    with pytest.raises(ValueError, match="600 identities, expected 751"):
        datasets.split_market1501_dev(listing[listing["id"] < "0600"])


def test_own_csv(own, tmp_path):
    rows = [("./a1.png", "NA", "x", "train"), *ROWS[1:]]
    dataset = datasets.read_dataset(str(own(rows, note="extra")))
    assert dataset.name == "people" and dataset.root == tmp_path.resolve()
    assert dataset.manifest["path"].tolist() == ["a1.png", "b1.png", "q1.png", "g1.png"]
    assert dataset.manifest["id"].tolist() == ["NA", "ben", "001", "001"]
    assert list(dataset.manifest) == manifest.COLUMNS
    with_root = datasets.read_dataset("people.csv", tmp_path)
    assert with_root.checksum == dataset.checksum
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.csv").symlink_to(tmp_path / "people.csv")
    assert datasets.read_dataset("link.csv", tmp_path / "elsewhere").checksum == dataset.checksum


def test_missing_csv_and_unknown_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.csv does not exist.*path,id,cam,split"):
        datasets.read_dataset("none.csv", tmp_path)
    with pytest.raises(ValueError, match="unknown data set or .csv file 'duke'; known: pku-reid"):
        datasets.read_dataset("duke")
    with pytest.raises(ValueError, match="'cuhk3-np' .did you mean 'cuhk03-np"):
        datasets.read_dataset("cuhk3-np", tmp_path)


def test_missing_and_empty_folders(pku):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere/train.*data/README.md"):
        datasets.read_dataset("pku-reid", pku / "nowhere")
    (pku / "val/query/001/01_1.png").unlink()
    with pytest.raises(FileNotFoundError, match="val/query holds no query images"):
        datasets.read_pku_reid(pku)


@pytest.mark.parametrize("name", ["train/007/1.png", "train/stray.png", "train/007/01_1.gif",
                                  "train/007/deep/01_1.png"])
def test_pku_name_that_does_not_parse(pku, name):
    draw(pku / name)
    with pytest.raises(ValueError, match=f"not like <person>.*{Path(name).name}; rename"):
        datasets.read_pku_reid(pku)


def test_linked_person_is_not_passed_over(pku, tmp_path):
    draw(tmp_path / "other/01_1.png")
    (pku / "train/009").symlink_to(tmp_path / "other")
    with pytest.raises(ValueError, match="009"):
        datasets.read_pku_reid(pku)


def test_market_name_that_does_not_parse(market):
    draw(market / "query/somebody.jpg")
    with pytest.raises(ValueError, match="not like 0002_c1s1_000451_03.jpg.*somebody.jpg"):
        datasets.read_market1501(market)


@pytest.mark.parametrize("name", ["0001_c1.png", "0001_1_1.png", "0001_c1_1.gif", "1_001_1_01.png"])
def test_cuhk03_name_that_does_not_parse(cuhk, name):
    draw(cuhk / "labeled/query" / name)
    with pytest.raises(ValueError, match=f"not like 0003_c1_1.png.*{name}"):
        datasets.read_cuhk03(cuhk / "labeled")


def test_market_with_a_folder_missing(market):
    zipped(market / "query").unlink()
    with pytest.raises(FileNotFoundError, match="no folder .*query"):
        datasets.read_dataset("market1501", market)


def test_known_counts_are_compared_by_name(pku):
    assert datasets.read_dataset("synthetic", pku).counts()["images"].tolist() == [2, 1, 1]
    with pytest.raises(ValueError, match="not the known pku-reid") as error:
        datasets.read_dataset("pku-reid", pku)
    assert re.search(r"found +expected.*\ntrain +2 +2 +62 +992\n", str(error.value), re.DOTALL)


@pytest.mark.parametrize("name", ["pku-reid", "market1501", "cuhk03-np", "cuhk03-np-detected"])
def test_real_data(name):
    """Only if it is unpacked: a test does not write into the data folder."""
    _, root = datasets.locate(name)
    if not any((root / folder).is_dir() for folder in ["train", "bounding_box_train"]):
        pytest.skip(f"no unpacked {name} in REIDLIB_DATA")
    dataset = datasets.read_dataset(name)
    assert dataset.name in datasets.KNOWN
    assert counts_of(dataset) == datasets.KNOWN[dataset.name]


def counts_of(dataset):
    return {split: tuple(row) for split, row in dataset.counts().T.items()}


def test_real_pair1_from_its_zip(tmp_path, monkeypatch):
    archive = data_root() / "cuhk03-np-pair1.zip"
    if not archive.is_file():
        pytest.skip("no cuhk03-np-pair1.zip in REIDLIB_DATA")
    (tmp_path / archive.name).symlink_to(archive)
    monkeypatch.setenv("REIDLIB_DATA", str(tmp_path))
    dataset = datasets.read_dataset("cuhk03-np-pair1")
    assert counts_of(dataset) == {"train": (427, 4145), "query": (416, 832), "gallery": (416, 3200)}
    assert set(dataset.manifest["cam"]) == {"c1", "c2"}
    assert dataset.manifest["height"].max() == 256
    check_scorable(dataset.manifest)
    checks = audit(dataset.manifest).set_index("check")["count"]
    assert checks[["identities in train and test", "query copies in gallery",
                   "queries without a match"]].tolist() == [0, 0, 0]


def test_names_in_the_real_zips_of_market():
    archives = [data_root() / "market1501" / f"{folder}.zip"
                for folder in datasets.MARKET1501.folders]
    if not all(archive.is_file() for archive in archives):
        pytest.skip("no zips of Market-1501 in REIDLIB_DATA")
    names = [Path(name).name for archive in archives for name in zipfile.ZipFile(archive).namelist()
             if not name.endswith("/")]
    names = [name for name in names if name.endswith(".jpg")]
    assert len(names) == 12936 + 3368 + 19732
    assert all(re.fullmatch(datasets.MARKET1501.name, name) for name in names)
    assert sum(name.endswith(".jpg.jpg") for name in names) == 24
    assert sum(name.startswith("-1_") for name in names) == 3819
