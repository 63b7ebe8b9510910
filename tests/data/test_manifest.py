import hashlib
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reidlib.data import datasets, manifest
from reidlib.utils.paths import data_root

ROWS = [("a1.png", "ann", "x", "train"), ("b1.png", "ben", "x", "train"),
        ("q1.png", "001", "x", "query"), ("g1.png", "001", "y", "gallery")]


def draw(path, seed=0, size=(8, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def own(tmp_path):
    """Four images, and a function that writes their CSV: ``own(path=[...])`` replaces a column."""
    for seed, (name, *_) in enumerate(ROWS):
        draw(tmp_path / name, seed)

    def write(rows=ROWS, **columns):
        table = pd.DataFrame(rows, columns=manifest.LISTING).assign(**columns)
        table.to_csv(tmp_path / "people.csv", index=False)
        return tmp_path / "people.csv"
    return write


@pytest.fixture
def pku(tmp_path):
    root = tmp_path / "pku"
    for seed, name in enumerate(["train/007/01_1.png", "train/003/02_8.png",
                                 "val/query/001/01_1.png", "val/gallery/001/02_3.png"]):
        draw(root / name, seed)
    return root


@pytest.fixture
def market(tmp_path):
    root = tmp_path / "market1501"
    for seed, name in enumerate([
            "bounding_box_train/0002_c1s1_000451_03.jpg",
            "bounding_box_train/0007_c2s3_000001_01.jpg", "query/0001_c1s1_001051_00.jpg",
            "bounding_box_test/0001_c2s1_000301_00.jpg", "bounding_box_test/-1_c3s1_000401_01.jpg",
            "bounding_box_test/0000_c1s1_000151_01.jpg"]):
        draw(root / name, seed)
    (root / "query" / "Thumbs.db").write_bytes(b"clutter")
    return root


def zipped(folder):
    """Replace a folder by <folder>.zip."""
    archive = folder.with_name(folder.name + ".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder.parent))
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    return archive


def test_pku_layout_becomes_a_manifest(pku):
    (pku / "train" / ".DS_Store").write_bytes(b"clutter")
    manifest = datasets.read_pku_reid(pku)
    assert list(manifest) == manifest.COLUMNS
    assert manifest["path"].tolist() == ["train/003/02_8.png", "train/007/01_1.png",
                                         "val/query/001/01_1.png", "val/gallery/001/02_3.png"]
    assert manifest["id"].tolist() == ["003", "007", "001", "001"]
    assert manifest["cam"].tolist() == ["02", "01", "01", "02"]
    assert manifest["split"].tolist() == ["train", "train", "query", "gallery"]
    assert manifest["width"].tolist() == [8] * 4 and manifest["height"].tolist() == [16] * 4
    content = (pku / "train/003/02_8.png").read_bytes()
    assert manifest["sha256"][0] == hashlib.sha256(content).hexdigest()


def test_official_market_folders(market):
    manifest = datasets.read_market1501(market)
    gallery = manifest[manifest["split"] == "gallery"]
    assert gallery["id"].tolist() == ["-1", "0000", "0001"]
    assert gallery["cam"].tolist() == ["c3", "c1", "c2"]
    counts = manifest.Dataset("market1501", market, manifest).counts()
    assert counts.loc["gallery"].tolist() == [2, 3]       # junk is nobody, but an image


@pytest.mark.parametrize("whole", [True, False])
def test_market_zip_is_unpacked_beside_itself(market, tmp_path, whole):
    expected = datasets.read_market1501(market)
    if whole:
        archive = zipped(market.rename(tmp_path / datasets.MARKET_TOP))
        found = datasets.market1501_folder(tmp_path)
        assert found == tmp_path / datasets.MARKET_TOP
    else:
        archive = zipped(market / "bounding_box_test")
        found = datasets.market1501_folder(market)
        assert found == market
    pd.testing.assert_frame_equal(datasets.read_market1501(found), expected)
    assert archive.exists() and not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("fill, message", [
    (lambda path: path.write_bytes(b"no zip"), "no whole zip"),
    (lambda path: write_zip(path, "bounding_box_train/../../evil.jpg"), "leave the folder.*evil"),
    (lambda path: write_zip(path, "other/0002_c1s1_000451_03.jpg"), "no folder bounding_box_train"),
])
def test_bad_zip_leaves_nothing(tmp_path, fill, message):
    root = tmp_path / "market1501"
    root.mkdir()
    fill(root / "bounding_box_train.zip")
    with pytest.raises(ValueError, match=message):
        datasets.market1501_folder(root)
    assert [p.name for p in tmp_path.rglob("*")] == ["market1501", "bounding_box_train.zip"]


def write_zip(path, member):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(member, b"x")


def test_read_only_folder_is_not_written_to(market):
    zipped(market / "query")
    market.chmod(0o555)
    with pytest.raises(OSError, match="cannot unpack .*query.zip.*read-only"):
        datasets.market1501_folder(market)
    market.chmod(0o755)
    assert not (market / "query").exists()


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


@pytest.mark.parametrize("columns, error, message", [
    ({"split": ["train", "train", "query", "val"]}, ValueError, r"unknown split.*g1.png \(val\)"),
    ({"id": ["ann", "", "001", "001"]}, ValueError, "empty identity.*row 2 .'b1.png'"),
    ({"cam": ["x", "x", " ", "y"]}, ValueError, "empty camera.*row 3"),
    ({"path": ["", "b1.png", "q1.png", "g1.png"]}, ValueError, "empty path.*row 1"),
    ({"path": ["no.png", "b1.png", "q1.png", "g1.png"]}, FileNotFoundError, "not exist.*no.png"),
    ({"path": ["../a1.png", "b1.png", "q1.png", "g1.png"]}, ValueError, "leave the folder.*a1.png"),
    ({"path": ["/a1.png", "b1.png", "q1.png", "g1.png"]}, ValueError, "leave the folder.*/a1.png"),
    ({"path": ["a1.png", "./a1.png", "q1.png", "g1.png"]}, ValueError, "listed twice.*a1.png"),
    ({"id": ["ann", "ann", "001", "001"]}, ValueError, "1 training identities; at least 2"),
    ({"id": ["ann", "ben", "001", "002"]}, ValueError, "absent from the gallery.*001"),
    ({"id": ["ann", "-1", "001", "001"]}, ValueError, "identity -1.*b1.png.*junk"),
    ({"split": ["train", "train", "gallery", "gallery"]}, ValueError, "no query images"),
    ({"split": ["train", "train", "query", "query"]}, ValueError, "no gallery images"),
])
def test_bad_csv_rows(own, columns, error, message):
    with pytest.raises(error, match=message):
        datasets.read_csv(own(**columns))


@pytest.mark.parametrize("text, message", [
    ("path,id,split\na1.png,ann,train\n", "no column cam; found path, id, split; expected"),
    ("", "people.csv is no CSV"),
    ("path,id,cam,split\na1.png,ann,x,train,more\n", "people.csv is no CSV"),
    ("path,id,cam,split\na1.png,ann\n", "empty camera.*row 1"),
    ("path,id,cam,split\n", "0 training identities"),
    ("path,id,cam,split\na1.png,J\xf6rg,x,train\n", "people.csv is no CSV in UTF-8"),
])
def test_bad_csv_files(own, tmp_path, text, message):
    (tmp_path / "people.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        datasets.read_csv(tmp_path / "people.csv")


def test_link_out_of_the_folder(own, tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    for name, *_ in ROWS:
        (tmp_path / name).rename(folder / name)
    (folder / "a1.png").rename(tmp_path / "a1.png")
    (folder / "a1.png").symlink_to(tmp_path / "a1.png")
    with pytest.raises(ValueError, match="leave the folder.*a1.png"):
        datasets.read_csv(own().rename(folder / "people.csv"))


def test_missing_csv_and_unknown_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.csv does not exist.*path,id,cam,split"):
        datasets.read_dataset("none.csv", tmp_path)
    with pytest.raises(ValueError, match="unknown data set 'duke'; choose one of pku-reid"):
        datasets.read_dataset("duke")


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


def test_market_with_a_folder_missing(market):
    zipped(market / "query").unlink()
    with pytest.raises(FileNotFoundError, match="no folder .*query"):
        datasets.read_dataset("market1501", market)


def test_broken_images_are_named(own, tmp_path):
    whole = (tmp_path / "a1.png").read_bytes()
    (tmp_path / "a1.png").write_bytes(whole[:len(whole) // 2])
    (tmp_path / "b1.png").write_bytes(b"")
    (tmp_path / "q1.png").write_text("a letter")
    with pytest.raises(ValueError, match=r"no whole image \(3\): a1.png \(.*truncated.*\), "
                                         r"b1.png \(zero bytes\), q1.png \(not an image\)"):
        datasets.read_csv(own())
    names = [row[0] for row in ROWS]
    assert list(manifest.unreadable(tmp_path, names)) == ["a1.png", "b1.png", "q1.png"]


def test_truncated_jpeg(tmp_path):
    draw(tmp_path / "a.jpg", size=(64, 128))
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[:-200])
    assert "truncated" in manifest.unreadable(tmp_path, ["a.jpg"])["a.jpg"]


def test_errors_show_five_of_many(own):
    rows = [*ROWS, *[(f"no{i}.png", "ann", "x", "train") for i in range(8)]]
    with pytest.raises(FileNotFoundError, match=r"\(8\): no0.png, .*no4.png and 3 more"):
        datasets.read_csv(own(rows))


def test_known_counts_are_compared_by_name(pku):
    assert datasets.read_dataset("synthetic", pku).counts()["images"].tolist() == [2, 1, 1]
    with pytest.raises(ValueError, match="not the known pku-reid") as error:
        datasets.read_dataset("pku-reid", pku)
    assert re.search(r"found +expected.*\ntrain +2 +2 +62 +992\n", str(error.value), re.DOTALL)


def test_manifest_is_written_and_read_back_as_it_was(own, tmp_path):
    draw(tmp_path / "odd, name.png", 9)
    rows = [("odd, name.png", 'say "nan", or\nbye', "NA", "train"), *ROWS]
    manifest = datasets.read_csv(own(rows))
    path = manifest.write_manifest(manifest, tmp_path / "out" / "manifest.csv")
    again = manifest.load_manifest(path)
    pd.testing.assert_frame_equal(again, manifest)
    pd.testing.assert_frame_equal(manifest.check_manifest(again, tmp_path), manifest)
    with pytest.raises(FileNotFoundError, match="01_data"):
        manifest.load_manifest(tmp_path / "none.csv")


def test_changed_image_is_noticed(own, tmp_path):
    manifest = datasets.read_csv(own())
    draw(tmp_path / "b1.png", seed=77)
    with pytest.raises(ValueError, match="changed since the manifest was written.*b1.png"):
        manifest.check_manifest(manifest, tmp_path)


def test_checksum_follows_labels_and_content_but_not_the_place(pku, tmp_path):
    first = datasets.read_dataset("synthetic", pku)
    moved = datasets.read_dataset("synthetic", pku.rename(tmp_path / "elsewhere"))
    assert moved.checksum == first.checksum
    relabelled = manifest.Dataset("x", pku, moved.manifest.assign(cam="01"))
    assert relabelled.checksum != first.checksum
    draw(moved.root / "train/003/02_8.png", seed=5)
    assert datasets.read_dataset("synthetic", moved.root).checksum != first.checksum


@pytest.mark.parametrize("name", ["pku-reid", "market1501"])
def test_real_data(name):
    """Market-1501 only if it is unpacked: a test does not write into the data folder."""
    root = data_root() / name
    unpacked = ["train", "bounding_box_train", datasets.MARKET_TOP]
    if not any((root / folder).is_dir() for folder in unpacked):
        pytest.skip(f"no unpacked {name} in REIDLIB_DATA")
    dataset = datasets.read_dataset(name)
    assert dataset.name in datasets.KNOWN
    assert {split: tuple(row) for split, row in dataset.counts().T.items()} == datasets.KNOWN[dataset.name]
