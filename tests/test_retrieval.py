import numpy as np
import pandas as pd
import pytest
from pytest import approx

from reidlib.retrieval import (
    PROTOCOLS,
    Embedded,
    embed,
    evaluate,
    rank_gallery,
    score_queries,
    summarise_queries,
)


def random_pair(seed, n_query=8, n_gallery=40, dim=6):
    """Queries and gallery with junk, copies, several cameras and people."""
    rng = np.random.default_rng(seed)

    def make(n, ids):
        emb = rng.normal(size=(2, n, dim)).astype(np.float32)
        emb /= np.linalg.norm(emb, axis=2, keepdims=True)
        return [*emb, np.array([f"{seed}/{i}" for i in range(n)]), rng.choice(ids, n),
                rng.choice(["a", "b", "c"], n), rng.integers(0, 60, n).astype(str)]

    query = make(n_query, ["1", "2", "3", "4"])
    gallery = make(n_gallery, ["1", "2", "3", "4", "-1", "0"])
    for field in range(6):                       # the first query stays in the gallery as a copy
        gallery[field][0] = query[field][0]
    return Embedded(*query), Embedded(*gallery)


def slow_scores(query, gallery, name, flip):
    """Written from the words of the protocol table, one gallery image at a time."""
    def feature(images, i, flipped):
        both = images.emb[i] + images.mirrored[i] if flipped else images.emb[i]
        return both / np.linalg.norm(both)

    aps, ranks = [], []
    for q in range(len(query.ids)):
        seen = []
        for g in range(len(gallery.ids)):
            same_camera = gallery.ids[g] == query.ids[q] and gallery.cams[g] == query.cams[q]
            copy = gallery.sha256[g] == query.sha256[q]
            junk = gallery.ids[g] == "-1"
            if name in ("standard", "market-matlab") and (same_camera or junk):
                continue
            if name == "leak-free" and copy:
                continue
            similarity = (feature(query, q, flip != "none")
                          @ feature(gallery, g, flip == "both"))
            seen.append((-similarity, gallery.ids[g] == query.ids[q]))
        hits = [hit for _, hit in sorted(seen)]
        if not any(hits):
            continue
        ranks.append(hits.index(True) + 1)
        top = hits[:10] if name == "lat-top10" else hits
        before, precisions = [], []
        for i, hit in enumerate(top):
            if hit:
                precisions.append(sum(top[:i + 1]) / (i + 1))
                before.append(sum(top[:i]) / i if i else 1.0)
        ap = np.mean(precisions) if precisions else 0.0
        aps.append(np.mean([before, precisions]) if name == "market-matlab" else ap)
    return {"mAP": np.mean(aps), "rank1": np.mean(np.array(ranks) == 1),
            "rank5": np.mean(np.array(ranks) <= 5), "n_valid_query": len(aps)}


@pytest.mark.parametrize("flip", ["none", "query", "both"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_the_slow_definition(seed, protocol, flip):
    query, gallery = random_pair(seed)
    scores = summarise_queries(score_queries(rank_gallery(query, gallery, protocol, flip)),
                               protocol)
    for name, want in slow_scores(query, gallery, protocol, flip).items():
        assert scores[name] == approx(want), name


def test_same_camera_rule_on_three_images(make_embedded):
    """Nearest is the query's own camera, then a stranger, then the person from camera b."""
    query = make_embedded([0], ["1"], ["a"])
    gallery = make_embedded([1, 10, 20], ["1", "2", "1"], ["a", "a", "b"])
    scores = {p: score_queries(rank_gallery(query, gallery, p)).iloc[0] for p in PROTOCOLS}
    assert scores["standard"].AP == 1 / 2 and scores["standard"].first_hit == 2
    assert scores["all-gallery"].AP == approx((1 + 2 / 3) / 2)
    assert scores["all-gallery"].INP == approx(2 / 3)
    assert scores["lat-top10"].AP == approx((1 + 2 / 3) / 2)
    assert scores["market-matlab"].AP == approx((0 + 1 / 2) / 2)


def test_leak_free_drops_the_copy_only(make_embedded):
    query = make_embedded([0], ["1"], ["a"], ["same"])
    gallery = make_embedded([0, 5, 10], ["1", "2", "1"], ["a", "b", "a"], ["same", "x", "y"])
    assert score_queries(rank_gallery(query, gallery, "leak-free")).AP[0] == 1 / 2
    assert score_queries(rank_gallery(query, gallery, "all-gallery")).AP[0] == approx(5 / 6)


def test_top10_misses_cost_nothing_and_nothing_found_is_zero(make_embedded):
    query = make_embedded([0, 0], ["1", "2"], ["a", "a"])
    gallery = make_embedded([1, *range(2, 14), 90], ["1", *["3"] * 12, "2"], ["b"] * 14)
    scores = score_queries(rank_gallery(query, gallery, "lat-top10"))
    assert scores.AP.tolist() == [1.0, 0.0]
    assert scores.first_hit.tolist() == [1, np.inf]


def test_ties_rank_the_wrong_image_first_whatever_the_order(make_embedded):
    query = make_embedded([0], ["1"], ["a"])
    for ids in (["1", "2"], ["2", "1"]):
        ranking = rank_gallery(query, make_embedded([5, 5], ids, ["b", "b"]))
        assert score_queries(ranking).AP[0] == 1 / 2


def test_unscored_queries_are_counted(make_embedded):
    query = make_embedded([0, 0], ["1", "2"], ["a", "a"])
    gallery = make_embedded([1, 2], ["1", "2"], ["b", "a"])
    scores = summarise_queries(score_queries(rank_gallery(query, gallery)), "standard")
    assert (scores["n_query"], scores["n_valid_query"], scores["mAP"]) == (2, 1, 1.0)


def test_only_own_camera_matches_are_an_error_that_names_the_way_out(make_embedded):
    query, gallery = make_embedded([0], ["1"], ["a"]), make_embedded([1], ["1"], ["a"])
    with pytest.raises(ValueError, match="another camera; all-gallery and leak-free"):
        evaluate(query, gallery)


def test_flip_averages_the_query_with_its_mirror(make_embedded):
    """Image at 0 degrees, mirror at 40: together at 20, nearer to the right image at 30."""
    query = make_embedded([0], ["1"], ["a"], mirrored=[40])
    gallery = make_embedded([-5, 30], ["2", "1"], ["b", "b"])
    assert rank_gallery(query, gallery, flip="none").hits.tolist() == [[False, True]]
    assert rank_gallery(query, gallery, flip="query").hits.tolist() == [[True, False]]
    norms = np.linalg.norm(query.features(flip=True), axis=1)
    assert norms == approx(1)


def test_evaluate_covers_every_protocol_and_flip():
    scores, per_query, cmc = evaluate(*random_pair(1))
    assert len(scores) == len(PROTOCOLS) * 3 and len(per_query) == 8 * len(scores)
    last = cmc.groupby(["protocol", "flip"])["cmc"]
    assert last.apply(lambda curve: curve.is_monotonic_increasing).all()
    merged = scores.merge(cmc[cmc["rank"] == 5], on=["protocol", "flip"])
    pd.testing.assert_series_equal(merged["rank5"], merged["cmc"], check_names=False)


def test_ranking_hides_what_the_protocol_drops(make_embedded):
    query = make_embedded([0], ["1"], ["a"])
    gallery = make_embedded([1, 2, 3, 4], ["1", "-1", "2", "1"], ["a", "b", "b", "b"])
    order, hits = rank_gallery(query, gallery, "standard").kept(0)
    assert order.tolist() == [2, 3] and hits.tolist() == [False, True]


def test_bad_input(make_embedded):
    one = make_embedded([0], ["1"], ["a"])
    with pytest.raises(ValueError, match="unknown protocol 'strict'; known: standard"):
        rank_gallery(one, one, "strict")
    with pytest.raises(ValueError, match="unknown flip 'gallery'"):
        rank_gallery(one, one, flip="gallery")
    empty = make_embedded([], [], [])
    with pytest.raises(ValueError, match="0 query and 1 gallery"):
        rank_gallery(empty, one)
    with pytest.raises(ValueError, match="2.png is not finite"):
        make_embedded([0, 1, np.nan], ["1"] * 3, ["a"] * 3)
    wide = Embedded(np.ones((1, 3), np.float32), np.ones((1, 3), np.float32),
                    *[np.array(["1"])] * 4)
    with pytest.raises(ValueError, match="2 wide, gallery embeddings 3"):
        rank_gallery(one, wide)


def test_embedded_files_round_trip(make_embedded, tmp_path):
    saved = make_embedded([0, 30], ["001", "NA"], ["a", "b"])
    saved.save(tmp_path / "query.npz")
    loaded = Embedded.load(tmp_path / "query.npz")
    assert loaded.ids.tolist() == ["001", "NA"] and np.array_equal(loaded.emb, saved.emb)


def test_embed_gives_images_and_mirrors(make_model, make_images):
    model, images = make_model(), make_images(5)
    emb, mirrored = embed(model, images, batch_size=2)
    again, twice = embed(model, images.flip(-1), batch_size=5)
    assert emb.shape == (5, 4 * 16) and np.linalg.norm(emb, axis=1) == approx(1, abs=1e-5)
    np.testing.assert_allclose(mirrored, again, atol=1e-6)
    np.testing.assert_allclose(emb, twice, atol=1e-6)
    assert not np.allclose(emb, mirrored, atol=1e-3)
