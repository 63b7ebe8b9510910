"""Identity folds against what cross-validation promises."""

import numpy as np
import pandas as pd
import pytest

from reidlib.data.cross_validation import split_identities
from reidlib.data.manifest import COLUMNS


def listing():
    """Seven people, two cameras with two images each; one image twice, one junk image."""
    rows = [(f"{split}/{person}/{cam}_{i}.png", str(person), cam, split)
            for person, split in enumerate(["train"] * 4 + ["query", "gallery", "gallery"])
            for cam in ("a", "b") for i in range(2)]
    rows += [("gallery/4/copy.png", "4", "a", "gallery"),
             ("gallery/junk.png", "-1", "a", "gallery")]
    table = pd.DataFrame(rows, columns=COLUMNS[:4])
    sha = table["path"].replace({"gallery/4/copy.png": "query/4/a_0.png"})
    return table.assign(sha256=sha, width=48, height=128)


def test_everybody_is_tested_once_by_a_model_that_never_saw_them():
    manifest = listing()
    tested, sizes = [], []
    for fold in range(3):
        split = split_identities(manifest, 3, fold)
        train = set(split.loc[split["split"] == "train", "id"])
        test = set(split.loc[split["split"] != "train", "id"])
        assert not train & test and train | test == set("0123456")
        assert split.columns.tolist() == COLUMNS and len(split) == 28  # no copy, no junk
        queries = split[split["split"] == "query"]
        assert len(queries) == 2 * len(test) and not queries.duplicated(["id", "cam"]).any()
        assert set(split.loc[split["split"] == "gallery", "id"]) == test
        tested += sorted(test)
        sizes.append(len(test))
    assert sorted(tested) == list("0123456") and sorted(sizes) == [2, 2, 3]


def test_order_of_the_manifest_is_of_no_effect_and_stays_the_usual_one():
    manifest = listing()
    one = split_identities(manifest, 2, 0)
    other = split_identities(manifest.sample(frac=1, random_state=1), 2, 0)
    pd.testing.assert_series_equal(one.groupby("id")["split"].apply(sorted),
                                   other.groupby("id")["split"].apply(sorted))
    ranks = one["split"].map({"train": 0, "query": 1, "gallery": 2}).to_numpy()
    assert (np.diff(ranks) >= 0).all()
    assert all(part["path"].is_monotonic_increasing for _, part in one.groupby("split"))


def test_training_people_alone():
    split = split_identities(listing(), 2, 1, "train")
    assert set(split["id"]) == set("0123") and split["path"].str.startswith("train/").all()


@pytest.mark.parametrize("folds, fold, people, message", [
    (4, 0, "all", "fold 0 of 4 of 7 identities: expected 2 to 3 folds"),
    (1, 0, "all", "fold 0 of 1"), (2, 2, "all", "fold 2 of 2"),
    (2, 0, "test", "unknown people 'test'; known: all, train")])
def test_impossible_folds(folds, fold, people, message):
    with pytest.raises(ValueError, match=message):
        split_identities(listing(), folds, fold, people)
