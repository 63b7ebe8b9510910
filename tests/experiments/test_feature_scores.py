"""Scores of features from anywhere, against scikit-learn and against the record of a run."""

import numpy as np
import pytest
from pytest import approx
from sklearn.metrics import average_precision_score

from reidlib.evaluation.protocols import PROTOCOLS
from reidlib.experiments.feature_scores import RERANKED, score_file
from reidlib.experiments.records import read_run

N = 60


def arrays(seed=0):
    """Features of five people by three cameras; ids and paths are those of every seed."""
    rng = np.random.default_rng(9)
    ids, cams = rng.integers(0, 5, N), rng.integers(0, 3, N)
    people = rng.normal(size=(5, 8))
    features = people[ids] + 2 + np.random.default_rng(seed).normal(size=(N, 8))
    return {"features": features * rng.uniform(0.5, 2, (N, 1)), "ids": ids, "cams": cams,
            "split": np.where(np.arange(N) < 15, "query", "gallery"),
            "paths": np.array([f"{i:02}.png" for i in range(N)])}


@pytest.fixture
def save(tmp_path):
    def write(name="a", seed=0, **changes):
        path = tmp_path / f"{name}.npz"
        np.savez(path, **{**arrays(seed), **changes})
        return path

    return write


def scikit(distance, drop_camera):
    """Average precision of each query; ``distance`` of two features, smaller is nearer."""
    a = arrays()
    for q in range(15):
        ours = [g for g in range(15, N) if not (drop_camera and a["ids"][g] == a["ids"][q]
                                                and a["cams"][g] == a["cams"][q])]
        yield average_precision_score(
            a["ids"][ours] == a["ids"][q],
            [-distance(a["features"][q], a["features"][g]) for g in ours])


def cosine_distance(a, b):
    return 1 - a @ b / np.sqrt((a @ a) * (b @ b))


@pytest.mark.parametrize("row, distance", [
    ("cosine", cosine_distance), ("Euclidean", lambda a, b: np.sum((a - b) ** 2))])
@pytest.mark.parametrize("protocol", ["standard", "all-gallery"])
def test_average_precision_is_that_of_scikit_learn(save, row, distance, protocol):
    scored, _ = score_file(save())
    own = scored.queries[(scored.queries["row"] == row) & (scored.queries["protocol"] == protocol)]
    assert own["path"].tolist() == [f"{i:02}.png" for i in range(15)]
    assert own["AP"].to_numpy() == approx([*scikit(distance, protocol == "standard")])
    assert own["AP"].nunique() > 10


def test_every_protocol_by_every_distance(save):
    scored, other = score_file(save(sha256=arrays()["paths"]))
    assert other is None and not scored.left_out
    found = scored.queries.groupby("row")["protocol"].unique()
    assert {*found["cosine"]} == {*found["Euclidean"]} == {*PROTOCOLS}
    assert {*PROTOCOLS} - {*found[RERANKED]} == {"standard-all", "lat-top10"}
    assert scored.images == {"queries": 15, "people": 5, "gallery": 45, "junk": 0, "training": 0,
                             "width": 8, "sha256": True}
    quick, _ = score_file(save(), reranked=False)
    assert {*quick.queries["row"]} == {"cosine", "Euclidean"}


def test_the_order_of_images_changes_nothing(save):
    order = np.random.default_rng(1).permutation(N)
    mixed = save("b", **{name: values[order] for name, values in arrays().items()})
    first, second = (score_file(path, reranked=False)[0].queries for path in (save(), mixed))
    assert first.equals(second)


def test_without_content_leak_free_is_left_out_and_says_why(save):
    scored, _ = score_file(save(), reranked=False)
    assert [*scored.left_out] == ["leak-free"] and "sha256" in scored.left_out["leak-free"]


def test_what_has_no_match_is_left_out_and_the_rest_is_scored(save):
    scored, _ = score_file(save(cams=np.ones(N, int)), reranked=False)
    assert {*scored.left_out} == {"leak-free", "standard", "standard-all", "market-matlab",
                                  "single-shot-torchreid", "single-shot-2014"}
    assert "no query has a valid match" in scored.left_out["standard"]
    assert {*scored.queries["protocol"]} == {"lat-top10", "all-gallery"}
    with pytest.raises(ValueError, match="a.npz: no protocol can be scored. leak-free: .*; "
                                         "standard: no query has a valid match"):
        score_file(save(ids=np.arange(N)))
    with pytest.raises(ValueError, match="all scored queries show identity 3"):
        score_file(save(ids=np.where(arrays()["ids"] == 3, 3, np.arange(N) + 10)))


def test_a_flip_takes_the_mirrors(save):
    features = arrays()["features"]
    with_mirrors = save(features=features + 1, mirrored=features - 1)
    plain = score_file(save("b"), reranked=False)[0].queries
    flipped = score_file(with_mirrors, "both", reranked=False)[0].queries
    euclidean = plain["row"] == "Euclidean"
    assert flipped[euclidean]["AP"].to_numpy() == approx(plain[euclidean]["AP"].to_numpy())
    assert not flipped.equals(score_file(with_mirrors, reranked=False)[0].queries)
    with pytest.raises(ValueError, match="b.npz has no features of mirrored images .*--flip"):
        score_file(save("b"), "both")
    with pytest.raises(ValueError, match="unknown flip 'botch' .did you mean 'both'"):
        score_file(with_mirrors, "botch")


def test_zeros_have_no_cosine(save):
    features = arrays()["features"]
    features[7] = 0
    with pytest.raises(ValueError, match=r"a.npz: embedding of 07.png is all zeros .1 such"):
        score_file(save(features=features))


def test_two_files_have_to_be_of_the_same_images(save):
    changed = {name: arrays()[name].astype(str) for name in ("ids", "split")}
    changed["ids"][20] = "77"
    with pytest.raises(ValueError, match=r"a.npz: cannot be .*b.npz: .* \(2\): gallery 20.png of "
                                         r"identity \d, camera \d .only here., gallery 20.png of "
                                         r"identity 77, camera \d .only there.; compare"):
        score_file(save(), against=save("b", ids=changed["ids"]))
    changed["split"][:2] = "train"
    with pytest.raises(ValueError, match=r"\(2\): query 00.png .*here.*query 01.png .*only here"):
        score_file(save(), against=save("b", split=changed["split"]))
    zeros = np.char.zfill(arrays()["ids"].astype(str), 3)
    with pytest.raises(ValueError, match=r"\(120\): query 00.png of identity 00\d, camera"):
        score_file(save(), against=save("b", ids=zeros))
    with pytest.raises(ValueError, match="a.npz has no sha256, the file it is compared with has"):
        score_file(save(), against=save("b", sha256=arrays()["paths"]))


def test_the_other_file_may_have_another_order_and_width(save):
    other = {name: values[::-1] for name, values in arrays(1).items()}
    scored, theirs = score_file(save(), against=save("b", **other), reranked=False)
    assert scored.queries["path"].tolist() == theirs.queries["path"].tolist()
    alone, _ = score_file(save("c", seed=1), reranked=False)
    assert theirs.queries.equals(alone.queries)
    wide = {**other, "features": np.pad(other["features"], ((0, 0), (0, 3)))}
    _, padded = score_file(save(), against=save("b", **wide), reranked=False)
    assert padded.images["width"] == 11
    np.testing.assert_allclose(padded.queries["AP"], theirs.queries["AP"])


@pytest.mark.parametrize("flip", ["none", "query"])
def test_a_run_of_ours_scores_as_its_record_says(lab, flip):
    folder = lab.weights("baseline", 0).parent
    scored, _ = score_file(folder, flip, reranked=flip == "query")
    found = scored.queries.groupby(["row", "protocol"])[["AP", "rank1"]].mean()
    scores = [score for score in read_run(folder)["scores"] if score["flip"] == flip
              and not score["alone"]]
    assert {score["protocol"] for score in scores} == {*PROTOCOLS}
    for score in scores:
        row = found.loc[RERANKED if score["reranked"] else "cosine", score["protocol"]]
        assert row.tolist() == approx([score["mAP"], score["rank1"]])
