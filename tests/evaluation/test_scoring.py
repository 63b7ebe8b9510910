import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx

from reidlib.evaluation import scoring
from reidlib.evaluation.embeddings import Embeddings
from reidlib.evaluation.match_ranks import cosine, find_matches, reranked_alone
from reidlib.evaluation.protocols import PROTOCOLS, get_protocol
from reidlib.evaluation.ranking import rank_gallery
from reidlib.evaluation.reranking import rerank
from reidlib.evaluation.scoring import (
    evaluate,
    score_queries,
    summarise_queries,
    true_positive_rates,
)
from tests.evaluation.made_up import random_pair, rounded

FULL = [name for name, protocol in PROTOCOLS.items() if protocol.draws is None]


def score(query, gallery, protocol, flip="none", device=None, reranked=False):
    similarity = cosine(query, gallery, flip, reranked, device)
    n_draws = PROTOCOLS[protocol].draws or 0
    return score_queries(query, find_matches(query, gallery, similarity, n_draws), protocol)


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
            if name in ("standard", "standard-all", "market-matlab") and (same_camera or junk):
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
@pytest.mark.parametrize("protocol", FULL)
@pytest.mark.parametrize("device", [None, torch.device("cpu")], ids=["numpy", "torch"])
@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_the_slow_definition(seed, device, protocol, flip):
    query, gallery = random_pair(seed)
    scores = summarise_queries(score(query, gallery, protocol, flip, device), protocol)
    for name, want in slow_scores(query, gallery, protocol, flip).items():
        assert scores[name] == approx(want), name


def test_same_camera_rule_on_three_images(make_embeddings):
    """Nearest is the query's own camera, then somebody else, then the person from camera b."""
    query = make_embeddings([0], ["1"], ["a"])
    gallery = make_embeddings([1, 10, 20], ["1", "2", "1"], ["a", "a", "b"])
    scores = {p: score(query, gallery, p).iloc[0] for p in PROTOCOLS}
    assert scores["standard"].AP == 1 / 2 and scores["standard"].first_hit == 2
    assert scores["all-gallery"].AP == approx((1 + 2 / 3) / 2)
    assert scores["all-gallery"].INP == approx(2 / 3)
    assert scores["lat-top10"].AP == approx((1 + 2 / 3) / 2)
    assert scores["market-matlab"].AP == approx((0 + 1 / 2) / 2)


def test_leak_free_drops_the_copy_only(make_embeddings):
    query = make_embeddings([0], ["1"], ["a"], ["same"])
    gallery = make_embeddings([0, 5, 10], ["1", "2", "1"], ["a", "b", "a"], ["same", "x", "y"])
    assert score(query, gallery, "leak-free").AP[0] == 1 / 2
    assert score(query, gallery, "all-gallery").AP[0] == approx(5 / 6)


def test_top10_misses_cost_nothing_and_nothing_found_is_zero(make_embeddings):
    query = make_embeddings([0, 0], ["1", "2"], ["a", "a"])
    gallery = make_embeddings([1, *range(2, 14), 90], ["1", *["3"] * 12, "2"], ["b"] * 14)
    scores = score(query, gallery, "lat-top10")
    assert scores.AP.tolist() == [1.0, 0.0]
    assert scores.first_hit.tolist() == [1, np.inf]


def test_ties_rank_the_wrong_image_first_whatever_the_order(make_embeddings):
    query = make_embeddings([0], ["1"], ["a"])
    for ids in (["1", "2"], ["2", "1"]):
        gallery = make_embeddings([5, 5], ids, ["b", "b"])
        assert score(query, gallery, "standard").AP[0] == 1 / 2


def test_unscored_queries_are_counted(make_embeddings):
    query = make_embeddings([0, 0], ["1", "2"], ["a", "a"])
    gallery = make_embeddings([1, 2], ["1", "2"], ["b", "a"])
    scores = summarise_queries(score(query, gallery, "standard"), "standard")
    assert (scores["n_query"], scores["n_valid_query"], scores["mAP"]) == (2, 1, 1.0)


def test_only_own_camera_matches_are_an_error_that_names_the_way_out(make_embeddings):
    query, gallery = make_embeddings([0], ["1"], ["a"]), make_embeddings([1], ["1"], ["a"])
    with pytest.raises(ValueError, match="another camera; all-gallery and leak-free"):
        evaluate(query, gallery)


@pytest.mark.parametrize("flip", ["none", "both"])
def test_every_image_is_a_query_once_and_never_its_own_match(flip):
    """One image at a time: each that shows a person, against all the others."""
    query, gallery = random_pair(2)
    images = {(side.sha256[i], side.ids[i], side.cams[i]): (side, i)  # of copies the first
              for side in (gallery, query) for i in reversed(range(len(side.ids)))}
    assert len(images) < len(query.ids) + len(gallery.ids)
    images = list(images.values())
    features = [side.features(flip == "both")[i] for side, i in images]
    ids, cams = ([getattr(side, name)[i] for side, i in images] for name in ("ids", "cams"))
    aps = []
    for q in range(len(images)):
        if ids[q] == "-1":
            continue
        seen = [(-features[q] @ features[g], ids[g] == ids[q]) for g in range(len(images))
                if ids[g] != "-1" and not (ids[g] == ids[q] and cams[g] == cams[q])]
        hits = [hit for _, hit in sorted(seen)]
        if any(hits):
            aps.append(np.mean([sum(hits[:i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit]))
    scores, per_query, _ = evaluate(query, gallery, (flip,), ("standard-all",), ())
    assert scores["mAP"].item() == pytest.approx(np.mean(aps), abs=1e-6)
    assert scores["n_valid_query"].item() == len(aps)
    assert len(per_query) == sum(person != "-1" for person in ids)


def test_evaluate_covers_every_protocol_and_flip():
    scores, per_query, cmc = evaluate(*random_pair(1))
    keys = scores.set_index(["protocol", "flip", "reranked", "alone"]).index
    assert keys.is_unique and len(scores) == len(PROTOCOLS) * 4 - 1
    assert ("standard-all", "query", True, False) not in keys
    assert ("lat-top10", "query", True, False) not in keys
    assert [key for key in keys if key[3]] == [("standard", "query", True, True)]
    assert len(per_query) == scores["n_query"].sum()
    assert set(scores.loc[scores["protocol"] != "standard-all", "n_query"]) == {8}
    named = ["protocol", "flip", "reranked", "alone"]
    last = cmc.groupby(named)["cmc"]
    assert last.apply(lambda curve: curve.is_monotonic_increasing).all()
    merged = scores.merge(cmc[cmc["rank"] == 5], on=named)
    pd.testing.assert_series_equal(merged["rank5"], merged["cmc"], check_names=False)


def test_a_protocol_alone_is_scored_as_among_all():
    pair = random_pair(1)
    scores, _, curves = evaluate(*pair, protocols=("single-shot-torchreid",), reranked_flips=())
    among = evaluate(*pair)[0].query("protocol == 'single-shot-torchreid' and not reranked")
    assert scores["mAP"].tolist() == among["mAP"].tolist() and curves.empty


@pytest.mark.parametrize("protocol", FULL)
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_the_ranking_that_figures_show(seed, protocol):
    ranking = rank_gallery(*random_pair(seed), protocol)
    table = score(ranking.query, ranking.gallery, protocol)  # pooled where the protocol says so
    for i, first in enumerate(table["first_hit"]):
        hits = ranking.kept(i)[1]
        if np.isfinite(first):
            assert hits.argmax() + 1 == first
        else:
            assert not hits[:ranking.protocol.depth].any()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10 ** 6), shuffle=st.integers(0, 10 ** 6))
def test_ties_never_help_whatever_the_order_of_files(seed, shuffle):
    """Similarities are whole numbers: half a point less for each match only loses ties."""
    query, gallery = rounded(seed)
    lower = query.emb @ gallery.emb.T - 0.5 * (query.ids[:, None] == gallery.ids)
    lowered = find_matches(query, gallery, lambda rows: lower[rows])
    rng = np.random.default_rng(shuffle)
    moved = rng.permutation(len(query.ids)), rng.permutation(len(gallery.ids))
    for protocol in FULL:  # drawn galleries are drawn by position
        before = score(query, gallery, protocol)
        after = score(query.take(moved[0]), gallery.take(moved[1]), protocol)
        after = after.iloc[np.argsort(moved[0])].reset_index(drop=True)
        pd.testing.assert_frame_equal(before, after)
        pd.testing.assert_frame_equal(before, score_queries(query, lowered, protocol))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10 ** 6), power=st.integers(1, 3))
def test_a_strictly_increasing_change_of_similarity_changes_nothing(seed, power):
    """Powers of two scale floats exactly, so order and ties stay what they were."""
    query, gallery = rounded(seed)
    scaled = Embeddings(query.emb * 2.0 ** power, *(getattr(query, name) for name in
                      ("mirrored", "paths", "ids", "cams", "sha256")))
    for protocol in PROTOCOLS:
        pd.testing.assert_frame_equal(score(query, gallery, protocol),
                                      score(scaled, gallery, protocol))


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10 ** 6))
def test_a_perfect_embedding_scores_one(seed):
    query, gallery = random_pair(seed)
    people = {person: i for i, person in enumerate(sorted({*query.ids, *gallery.ids}))}

    def perfect(images):
        emb = np.eye(len(people), dtype=np.float32)[[people[i] for i in images.ids]]
        return Embeddings(emb, emb, images.paths, images.ids, images.cams, images.sha256)

    for protocol in PROTOCOLS:
        table = score(perfect(query), perfect(gallery), protocol)
        assert (table["AP"].dropna() == 1).all() and (table["first_hit"].dropna() == 1).all()


def test_blocks_do_not_matter(monkeypatch):
    query, gallery = random_pair(3)
    at_once = evaluate(query, gallery)
    monkeypatch.setattr("reidlib.evaluation.match_ranks.ENTRIES", 1)
    for a, b in zip(at_once, evaluate(query, gallery), strict=True):
        pd.testing.assert_frame_equal(a, b, atol=1e-12)


def every_single_shot(query, gallery, q, other_camera):
    """Mean AP and rank-1 over all galleries with one image of each identity, by the definitions.

    torchreid (eval_cuhk03): images of the query's person by its own camera are removed, then one
    image of each identity is drawn. Li et al. (2014): each is from another camera than the query's.
    """
    similarity = query.emb[q] @ gallery.emb.T
    groups = {}
    for g, (person, camera) in enumerate(zip(gallery.ids, gallery.cams, strict=True)):
        own_camera = camera == query.cams[q]
        if person != "-1" and not (own_camera and (other_camera or person == query.ids[q])):
            groups.setdefault(person, []).append(g)
    if query.ids[q] not in groups:
        return None
    places = []
    for chosen in itertools.product(*groups.values()):
        ranked = sorted(chosen, key=lambda g: (-similarity[g], gallery.ids[g] == query.ids[q]))
        places.append(1 + [gallery.ids[g] for g in ranked].index(query.ids[q]))
    return np.mean(1 / np.array(places)), np.mean(np.array(places) == 1)


@pytest.mark.parametrize("protocol", ["single-shot-torchreid", "single-shot-2014"])
@pytest.mark.parametrize("seed", range(2))
def test_single_shot_is_the_mean_of_all_galleries_that_can_be_drawn(seed, protocol, monkeypatch):
    query, gallery = random_pair(seed, n_gallery=20)
    rules = replace(PROTOCOLS[protocol], draws=2000)
    monkeypatch.setitem(PROTOCOLS, protocol, rules)
    table = score(query, gallery, protocol)
    expected = [every_single_shot(query, gallery, q, rules.other_camera)
                for q in range(len(query.ids))]
    assert table["AP"].isna().tolist() == [pair is None for pair in expected]
    found = table.dropna(subset="AP")[["AP", "rank1"]].to_numpy()
    assert len(found) > 3
    np.testing.assert_allclose(found, [pair for pair in expected if pair], atol=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_true_positive_rates_equal_the_slow_definition(seed, monkeypatch):
    query, gallery = random_pair(seed)
    monkeypatch.setattr("reidlib.evaluation.match_ranks.ENTRIES", 50)
    rates = (0.01, 0.1, 0.5)
    found = true_positive_rates(query, gallery, cosine(query, gallery), rates)
    true, false = [], []
    for q in range(len(query.ids)):
        for g in range(len(gallery.ids)):
            value = np.float64(query.emb[q] @ gallery.emb[g])
            if query.ids[q] == gallery.ids[g] and query.cams[q] != gallery.cams[g]:
                true.append(value)
            elif query.ids[q] != gallery.ids[g] and gallery.ids[g] != "-1":
                false.append(value)
    for rate, tpr in zip(rates, found["tpr"], strict=True):
        passing = [t for t in sorted(true) if np.mean(np.array(false) >= t) <= rate]
        assert tpr == approx(len(passing) / len(true))


def test_re_ranking_a_handful_of_images_takes_all_as_neighbours(make_embeddings):
    query = make_embeddings([0], ["1"], ["a"])
    gallery = make_embeddings([5, 60], ["1", "2"], ["b", "b"])
    assert score(query, gallery, "standard", reranked=True)["AP"].tolist() == [1.0]


def test_a_query_re_ranked_by_itself_knows_only_what_the_protocol_keeps():
    query, gallery = random_pair(2)
    found = reranked_alone(query, gallery, get_protocol("standard"))(slice(2, 6))
    for row, i in zip(found, range(2, 6), strict=True):
        kept = [g for g in range(len(gallery.ids)) if gallery.ids[g] != "-1" and not (
            gallery.ids[g] == query.ids[i] and gallery.cams[g] == query.cams[i])]
        assert 0 < len(kept) < len(gallery.ids)
        np.testing.assert_array_equal(-row[kept], rerank(query.emb[i:i + 1], gallery.emb[kept])[0])
        assert np.isneginf(np.delete(row, kept)).all()


def test_many_images_are_not_re_ranked_one_query_at_a_time(monkeypatch):
    monkeypatch.setattr(scoring, "FEW_PAIRS", 3)
    scores, _, _ = evaluate(*random_pair(1), protocols=("standard",))
    assert scores["reranked"].any() and not scores["alone"].any()


def test_reranked_scores_are_those_of_the_reranked_distances():
    query, gallery = random_pair(2)
    distance = rerank(query.emb, gallery.emb)
    own = score(query, gallery, "standard", reranked=True)
    given = find_matches(query, gallery, lambda rows: -distance[rows])
    pd.testing.assert_frame_equal(own, score_queries(query, given, "standard"))
    assert not own["AP"].equals(score(query, gallery, "standard")["AP"])
