"""What a manifest says is checked against the files, and read back as it was written."""

import pandas as pd
import pytest

from reidlib.data import datasets, manifest
from reidlib.utils.paths import write_csv
from tests.data.made_up import ROWS, draw


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
    ({"path": ["a\0.png", "b1.png", "q1.png", "g1.png"]}, ValueError, "NUL byte.*a.x00.png"),
    ({"split": ["train", "train", "query", "query"]}, ValueError, "no gallery images"),
])
def test_bad_csv_rows(own, columns, error, message):
    with pytest.raises(error, match=message):
        datasets.read_dataset(str(own(**columns)))


@pytest.mark.parametrize("text, message", [
    ("path,id,split\na1.png,ann,train\n", "no column cam; found path, id, split; expected"),
    ("", "people.csv is not a CSV"),
    ("path,id,cam,split\na1.png,ann,x,train,more\n", "people.csv is not a CSV"),
    ("path,id,cam,split\na1.png,ann\n", "empty camera.*row 1"),
    ("path,id,cam,split\n", "0 training identities"),
    ("path,id,cam,split\na1.png,J\xf6rg,x,train\n", "is not a CSV in UTF-8 .*save it as one"),
    ("\xff\xfep\0a\0t\0h\0", "people.csv is not a CSV in UTF-8 .*save it as one"),
])
def test_bad_csv_files(own, tmp_path, text, message):
    (tmp_path / "people.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        datasets.read_dataset("people.csv", tmp_path)


def test_link_out_of_the_folder(own, tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    for name, *_ in ROWS:
        (tmp_path / name).rename(folder / name)
    (folder / "a1.png").rename(tmp_path / "a1.png")
    (folder / "a1.png").symlink_to(tmp_path / "a1.png")
    with pytest.raises(ValueError, match="leave the folder.*a1.png"):
        datasets.read_dataset(str(own().rename(folder / "people.csv")))


def test_links_in_a_circle(own, tmp_path):
    for name, other in [("a.csv", "b.csv"), ("b.csv", "a.csv")]:
        (tmp_path / name).symlink_to(tmp_path / other)
    with pytest.raises(FileNotFoundError, match="a.csv does not exist"):
        datasets.read_dataset("a.csv", tmp_path)
    rows = [("a.csv", "ann", "x", "train"), *ROWS[1:]]
    with pytest.raises(FileNotFoundError, match="files that do not exist .*a.csv; .*a link must"):
        datasets.read_dataset(str(own(rows)))


def test_broken_images_are_named(own, tmp_path):
    full = (tmp_path / "a1.png").read_bytes()
    (tmp_path / "a1.png").write_bytes(full[:len(full) // 2])
    (tmp_path / "b1.png").write_bytes(b"")
    (tmp_path / "q1.png").write_text("a letter")
    with pytest.raises(ValueError, match=r"not complete images \(3\): a1.png \(.*truncated.*\), "
                                         r"b1.png \(zero bytes\), q1.png \(not an image\)"):
        datasets.read_dataset(str(own()))


def test_truncated_jpeg(tmp_path):
    draw(tmp_path / "a.jpg", size=(64, 128))
    full = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(full[:-200])
    found, = manifest.inspect_images(tmp_path, ["a.jpg"]).itertuples()
    assert "truncated" in found.problem and found.sha256 == ""


def test_errors_show_five_of_many(own):
    rows = [*ROWS, *[(f"no{i}.png", "ann", "x", "train") for i in range(8)]]
    with pytest.raises(FileNotFoundError, match=r"\(8\): no0.png, .*no4.png and 3 more"):
        datasets.read_dataset(str(own(rows)))


def test_manifest_is_written_and_read_back_as_it_was(own, tmp_path):
    draw(tmp_path / "odd, name.png", 9)
    rows = [("odd, name.png", 'say "nan", or\nbye', "NA", "train"), *ROWS]
    read = datasets.read_dataset(str(own(rows))).manifest
    path = write_csv(tmp_path / "out" / "manifest.csv", read)
    again = manifest.load_manifest(path)
    pd.testing.assert_frame_equal(again, read)
    pd.testing.assert_frame_equal(manifest.check_manifest(again, tmp_path), read)
    with pytest.raises(FileNotFoundError, match="01_data"):
        manifest.load_manifest(tmp_path / "none.csv")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="manifest.csv is damaged .*run notebooks/01_data.ipynb"):
        manifest.load_manifest(path)


def test_changed_image_is_noticed(own, tmp_path):
    read = datasets.read_dataset(str(own())).manifest
    draw(tmp_path / "b1.png", seed=77)
    with pytest.raises(ValueError, match="changed since the manifest was written.*b1.png"):
        manifest.check_manifest(read, tmp_path)


def test_checksum_follows_labels_and_content_but_not_the_place(pku, tmp_path):
    first = datasets.read_dataset("synthetic", pku)
    moved = datasets.read_dataset("synthetic", pku.rename(tmp_path / "elsewhere"))
    assert moved.checksum == first.checksum
    relabelled = manifest.Dataset("x", pku, moved.manifest.assign(cam="01"))
    assert relabelled.checksum != first.checksum
    draw(moved.root / "train/003/02_8.png", seed=5)
    assert datasets.read_dataset("synthetic", moved.root).checksum != first.checksum
