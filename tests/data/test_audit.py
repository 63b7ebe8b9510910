import pandas as pd
import pytest

from reidlib.data.audit import audit
from reidlib.data.datasets import read_dataset
from reidlib.data.manifest import COLUMNS
from reidlib.utils.paths import data_root

# path, id, cam, split, content, width, height
ROWS = [("a1", "ann", "x", "train", "h1", 48, 128), ("a2", "ann", "x", "train", "h2", 48, 128),
        ("a3", "ann", "x", "train", "h2", 48, 128), ("b1", "ben", "x", "train", "h3", 48, 128),
        ("b2", "ben", "y", "train", "h4", 20, 128), ("q1", "cid", "x", "query", "h5", 48, 128),
        ("q2", "cid", "y", "query", "h6", 48, 128), ("q3", "ben", "y", "query", "h7", 48, 128),
        ("g1", "cid", "x", "gallery", "h5", 48, 128), ("g2", "ben", "y", "gallery", "h3", 48, 31),
        ("g3", "-1", "y", "gallery", "h8", 48, 128)]


@pytest.fixture
def found():
    return audit(pd.DataFrame(ROWS, columns=COLUMNS)).set_index("check")


@pytest.mark.parametrize("check, count, of", [
    ("train images", 5, 11),
    ("query images", 3, 11),
    ("gallery images", 3, 11),
    ("identities in train and test", 1, 2),      # ben
    ("query copies in gallery", 1, 3),           # q1 = g1
    ("train copies in test", 1, 5),              # b1 = g2
    ("copies within a split", 1, 11),            # a3 = a2
    ("identities of one camera", 1, 3),          # ann; junk is nobody
    ("queries without a match", 2, 3),           # q1 meets its own camera only, q3 too
    ("tiny images", 2, 11),                      # b2 by width, g2 by height
    ("unequal image counts", 1, 2),              # 3 and 2, median (lower) 2
])
def test_counts_by_hand(found, check, count, of):
    assert found.loc[check, ["count", "of"]].tolist() == [count, of]


def test_words_say_what_it_means(found):
    assert found.loc["query copies in gallery", "words"] == (
        "1 of 3 query images is byte-identical to a gallery image: right at rank 1 whatever the "
        "model, unless the protocol drops the copies.")
    assert found.loc["gallery images", "words"] == (
        "The gallery split has 3 images of 2 identities, and 1 of them show no person (junk).")
    assert found.loc["unequal image counts", "words"].startswith(
        "Training identities have 2 to 3 images (median 2)")


def test_nothing_found_has_no_consequence():
    clean = [row for row in ROWS if row[0] in {"a1", "b1", "q2", "g1"}]
    words = audit(pd.DataFrame(clean, columns=COLUMNS)).set_index("check")["words"]
    assert words["query copies in gallery"] == (
        "0 of 1 query images are byte-identical to a gallery image.")
    assert words["queries without a match"].startswith("0 of 1 ")


def test_pku_reid_has_17_copied_queries():
    if not (data_root() / "pku-reid" / "train").is_dir():
        pytest.skip("no pku-reid in REIDLIB_DATA")
    found = audit(read_dataset("pku-reid").manifest).set_index("check")
    assert found.loc["query copies in gallery", ["count", "of"]].tolist() == [17, 28]
    assert found.loc["queries without a match", "count"] == 0
