"""Files of features: three forms give the same two sides, and what is wrong is named."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest

from reidlib.evaluation.features import labels, read_features

FEATURES = np.arange(12, dtype=np.float32).reshape(6, 2) + 1
ARRAYS = {"features": FEATURES, "paths": np.array(["q2", "q1", "g3", "g2", "t1", "g1"]),
          "ids": np.array(["001", "NA", "001", "-1", "009", "NA"]), "cams": np.array([*"abbbaa"]),
          "split": np.array(["query"] * 2 + ["gallery"] * 2 + ["train", "gallery"])}


def write(folder, **changes):
    """``ARRAYS`` with changes as an ``.npz``; None takes an array away."""
    path = folder / "features.npz"
    arrays = {**ARRAYS, **changes}
    np.savez(path, **{name: values for name, values in arrays.items() if values is not None})
    return path


def write_folder(folder, features=FEATURES, **changes):
    """The same as a folder with a ``.npy`` and a CSV."""
    columns = {"path": "paths", "id": "ids", "cam": "cams", "split": "split"}
    table = pd.DataFrame({column: ARRAYS[name] for column, name in columns.items()})
    table.assign(**changes).to_csv(folder / "labels.csv", index=False)
    np.save(folder / "features.npy", features)
    return folder


def entry(name, row, value):
    """An array of labels with one other value."""
    changed = ARRAYS[name].astype(object)
    changed[row] = value
    return {name: changed.astype(str)}


@pytest.mark.parametrize("make", [write, write_folder])
def test_each_side_is_sorted_by_path_and_labels_stay_as_written(make, tmp_path):
    found = read_features(make(tmp_path))
    assert found.query.paths.tolist() == ["q1", "q2"] and found.query.ids.tolist() == ["NA", "001"]
    assert found.gallery.ids.tolist() == ["NA", "-1", "001"]
    assert found.gallery.emb.tolist() == FEATURES[[5, 3, 2]].tolist()
    assert found.gallery.mirrored is found.gallery.emb
    assert found[2:] == (False, False, 1)
    assert labels(found).columns.tolist() == ["path", "id", "cam", "split"]


def test_mirrors_content_and_numbers_of_other_types_are_taken(tmp_path):
    content = np.array(list("uvwxyz"))
    path = write(tmp_path, features=FEATURES.astype(np.float64), mirrored=FEATURES.astype(int),
                 sha256=content, ids=np.array([1, 2, 1, -1, 9, 2], np.int16))
    found = read_features(path)
    assert found.gallery.sha256.tolist() == ["z", "x", "w"] and found[2:] == (True, True, 1)
    assert found.gallery.mirrored.tolist() == FEATURES[[5, 3, 2]].tolist()
    assert found.query.emb.dtype == found.query.mirrored.dtype == np.float32
    assert found.gallery.ids.tolist() == ["2", "-1", "1"]
    assert labels(found)["sha256"].tolist() == ["v", "u", "z", "x", "w"]


def test_a_folder_may_name_the_content(tmp_path):
    found = read_features(write_folder(tmp_path, sha256=list("uvwxyz")))
    assert found.has_sha256 and found.query.sha256.tolist() == ["v", "u"]


def test_the_folder_of_a_run(make_embeddings, tmp_path):
    query = make_embeddings([0], ["1"], ["a"])
    gallery = make_embeddings([1, 2], ["1", "2"], ["b", "b"])
    query.save(tmp_path / "query.npz")
    gallery.save(tmp_path / "gallery.npz")
    found = read_features(tmp_path)
    assert found[2:] == (True, True, 0)
    assert found.gallery.emb.tolist() == gallery.emb.tolist()
    np.savez(tmp_path / "gallery.npz", **{**vars(gallery), "emb": np.ones((2, 3), np.float32)})
    with pytest.raises(ValueError, match="of one width"):
        read_features(tmp_path)


REFUSED = {  # name: how to write it, what the message says
    "an array is missing": ({"cams": None}, "has no array cams; it has features, paths, ids, sp"),
    "pickled labels": ({"ids": ARRAYS["ids"].astype(object)}, "array ids: .*with .astype"),
    "not a number": ({"features": np.where(FEATURES == 5, np.nan, FEATURES)},
                     r"embedding of g3 is not finite \(1 such"),
    "too large for float32": ({"features": np.where(FEATURES == 5, 1e300, FEATURES.astype(float))},
                              "embedding of g3 is not finite"),
    "no square": ({"features": FEATURES * np.float32(1e20)}, "cannot be squared .*: q1, q2; div"),
    "text": ({"features": FEATURES.astype(str)}, "features have the type <U.*real numbers"),
    "complex": ({"features": FEATURES * 1j}, "features have the type complex64; expected real"),
    "one feature": ({"features": FEATURES[0]}, r"features have the shape \(2,\); expected \(image"),
    "no width": ({"features": FEATURES[:, :0]}, r"features have the shape \(6, 0\)"),
    "other length": ({"cams": ARRAYS["cams"][:5]}, r"cams have the shape \(5,\), .* 6 features"),
    "mirrors of another width": ({"mirrored": FEATURES[:, :1]}, r"mirrored is \(6, 1\), features"),
    "ids in real numbers": ({"ids": np.ones(6)}, "ids have the type float64; expected text or"),
    "unknown split": (entry("split", 3, "test"), r"unknown split .*g2 \(test\); expected one of"),
    "no query": (entry("split", slice(0, 2), "train"), "no query images; give some images"),
    "no gallery": (entry("split", slice(2, 6), "train"), "no gallery images"),
    "empty id": (entry("ids", 1, ""), "empty identity .*row 2 .'q1'"),
    "junk query": (entry("ids", 1, "-1"), "queries with the identity -1 .*: q1;"),
    "a path twice": (entry("paths", 3, "g3"), "there twice in one split .*: g3;"),
    "a path of two people": (entry("paths", 3, "q2"), "other labels as query than .*: q2;"),
}


@pytest.mark.parametrize("changes, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_scored_is_refused(changes, message, tmp_path):
    path = write(tmp_path, **changes)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}.*{message}"):
        read_features(path)


def test_what_is_no_file_of_features_is_refused(tmp_path):
    path = write(tmp_path)
    whole = path.read_bytes()
    np.save(tmp_path / "one.npy", FEATURES)
    for damage in (b"", b"not zip", whole[:300], whole[:-30], pickle.dumps(ARRAYS),
                   (tmp_path / "one.npy").read_bytes()):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match="features.npz is not a complete .npz file; expected"):
            read_features(path)
    path.write_bytes(whole.replace(FEATURES.tobytes(), FEATURES[::-1].tobytes()))
    with pytest.raises(ValueError, match="features.npz cannot be read as features: .*CRC"):
        read_features(path)
    with pytest.raises(FileNotFoundError, match="nothing does not exist; expected an .npz"):
        read_features(tmp_path / "nothing")


def test_a_folder_needs_one_array_and_one_row_a_feature(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has 0 .npy and 0 .csv files \(none\)"):
        read_features(tmp_path)
    write_folder(tmp_path, FEATURES[:5])
    with pytest.raises(ValueError, match="labels.csv has 6 rows, features.npy 5 features"):
        read_features(tmp_path)
    np.save(tmp_path / "features.npy", FEATURES.astype(object))
    with pytest.raises(ValueError, match="features.npy cannot be read as features"):
        read_features(tmp_path)
    np.save(tmp_path / "more.npy", FEATURES)
    with pytest.raises(FileNotFoundError, match="2 .npy and 1 .csv files .features.npy, more.npy"):
        read_features(tmp_path)
    (tmp_path / "more.npy").unlink()
    (tmp_path / "labels.csv").write_text("path,id,cam\na,1,x\n")
    np.save(tmp_path / "features.npy", FEATURES)
    with pytest.raises(ValueError, match="has no column split"):
        read_features(tmp_path)
