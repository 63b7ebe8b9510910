"""Contrasts of arms, from made-up queries."""

import numpy as np
import pandas as pd
import pytest

from reidlib.report import arms, tables

GAINS = {"softmax": 0, "y-pooling": 0.01, "triplet": 0.02, "all-ideas": -0.01, "ours": 0.03}


@pytest.fixture
def own():
    """Five arms, one seed, 40 queries of 20 people."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(20), 2)
    return pd.concat([pd.DataFrame({
        "row": name, "protocol": "standard-all", "seed": 0, "id": people.astype(str),
        "path": [f"{i}.jpg" for i in range(40)],
        "AP": 0.5 + gain + rng.normal(0, 0.05, 20)[people]}) for name, gain in GAINS.items()],
        ignore_index=True)


def test_ours_came_later_and_pays_for_the_contrasts_before_it(own):
    """Holm by its definition: over all p up to one's own, p times how many are not smaller."""
    fixed = tables.steps(own[own["row"] != "ours"], against="softmax", protocols=None)
    later = arms.ours(own, fixed)
    assert later[["row", "above"]].to_numpy().tolist() == [["ours", "softmax"],
                                                           ["ours", "all-ideas"]]
    family = sorted([*later["p"], *fixed["p"]])
    for line in later.itertuples():
        up_to = [p * (len(family) - rank) for rank, p in enumerate(family) if p <= line.p]
        assert line.p_holm == pytest.approx(min(1, max(up_to)))
        assert line.verdict == ("better" if line.p_holm <= 0.05 else "undecided")
    alone = arms.contrasts(own, arms.OURS_AGAINST)
    assert len(fixed) == 3 and (later["p_holm"] > alone["p_holm"]).all()


def test_contrasts_are_one_family_of_the_pairs_that_are_asked(own):
    found = arms.contrasts(own, (("softmax", "ours"), ("triplet", "y-pooling")))
    means = own.groupby("row")["AP"].mean()
    assert found["difference"].tolist() == pytest.approx(
        [means["ours"] - means["softmax"], means["y-pooling"] - means["triplet"]])
    assert found["p_holm"].min() == pytest.approx(2 * found["p"].min())
