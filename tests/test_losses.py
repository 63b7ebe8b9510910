from itertools import combinations

import numpy as np
import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch.nn.functional import normalize

from reidlib.losses import (
    AddedTerm,
    AngularLoss,
    ReidLoss,
    aligned_distance,
    aligned_reid_loss,
    aligned_triplets,
    angular_margin,
    batch_hard_triplet,
    cosine_softmax_loss,
    margin_share,
    part_am_softmax,
    part_angular_softmax,
    part_cross_entropy,
    soft_margin_triplet,
    transreid_loss,
)


def slow_cross_entropy(logits, ids):
    total = 0.0
    for part in range(logits.shape[1]):
        per_image = [-torch.log_softmax(logits[i, part], 0)[ids[i]] for i in range(len(ids))]
        total = total + torch.stack(per_image).mean()
    return total


def slow_am_softmax(cosines, ids, margin, scale):
    total = 0.0
    for part in range(cosines.shape[1]):
        for i, true in enumerate(ids):
            top = torch.exp(scale * (cosines[i, part, true] - margin))
            rest = sum(torch.exp(scale * cosines[i, part, j])
                       for j in range(cosines.shape[2]) if j != true)
            total = total - torch.log(top / (top + rest)) / len(ids)
    return total


def slow_triplet(emb, ids, margin):
    found = []
    for a in range(len(ids)):
        pos = [torch.dist(emb[a], emb[i]) for i in range(len(ids)) if i != a and ids[i] == ids[a]]
        neg = [torch.dist(emb[a], emb[i]) for i in range(len(ids)) if ids[i] != ids[a]]
        if pos and neg:
            found.append(torch.clamp(max(pos) - min(neg) + margin, min=0))
    return torch.stack(found).mean()


def values_and_gradients(function, x, *args):
    x = x.clone().requires_grad_()
    value = function(x, *args)
    value.backward()
    return value.detach(), x.grad


def assert_same(ours, theirs, x, *args, theirs_args=None):
    value, gradient = values_and_gradients(ours, x, *args)
    want, want_gradient = values_and_gradients(theirs, x, *(theirs_args or args))
    torch.testing.assert_close(value, want)
    torch.testing.assert_close(gradient, want_gradient)


@pytest.mark.parametrize("seed", range(5))
def test_part_cross_entropy_equals_the_loop(seed):
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 3, 5, generator=rng, dtype=torch.double)
    assert_same(part_cross_entropy, slow_cross_entropy, logits,
                torch.randint(5, (6,), generator=rng))


@pytest.mark.parametrize("seed", range(5))
def test_part_am_softmax_equals_the_loop(seed):
    rng = torch.Generator().manual_seed(seed)
    cosines = 2 * torch.rand(6, 3, 5, generator=rng, dtype=torch.double) - 1
    assert_same(part_am_softmax, slow_am_softmax, cosines,
                torch.randint(5, (6,), generator=rng), 0.35, 10.0)


def test_am_softmax_equals_pytorch_metric_learning():
    emb = torch.randn(8, 6, dtype=torch.double)
    ids = torch.randint(4, (8,))
    oracle = losses.CosFaceLoss(num_classes=4, embedding_size=6, margin=0.35, scale=30)
    oracle = oracle.double()
    weights = oracle.W.detach()

    def ours(x):
        return part_am_softmax((normalize(x, dim=1) @ normalize(weights, dim=0))[:, None], ids)

    assert_same(ours, lambda x: oracle(x, ids), emb)


@pytest.mark.parametrize("seed", range(5))
def test_triplet_equals_the_loop_and_pytorch_metric_learning(seed):
    rng = torch.Generator().manual_seed(seed)
    emb = torch.randn(12, 7, generator=rng, dtype=torch.double)
    ids = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    distance = distances.LpDistance(normalize_embeddings=False)
    oracle = losses.TripletMarginLoss(margin=2.0, distance=distance,
                                      reducer=reducers.MeanReducer())
    hard = miners.BatchHardMiner(distance=distance)
    assert_same(batch_hard_triplet, slow_triplet, emb, ids, 2.0)
    assert_same(lambda x: batch_hard_triplet(x, ids, 2.0), lambda x: oracle(x, ids, hard(x, ids)),
                emb)


def test_triplet_by_hand():
    emb = torch.tensor([[0.0], [1.0], [3.0], [5.0]])
    ids = torch.tensor([0, 0, 1, 1])
    # anchors 0..3: farthest own 1,1,2,2; nearest other 3,2,2,4; margin 1 -> 0, 0, 1, 0
    assert batch_hard_triplet(emb, ids, 1.0).item() == pytest.approx(0.25)


def test_soft_margin_equals_pytorch_metric_learning():
    emb = torch.randn(12, 7, dtype=torch.double)
    ids = torch.arange(12) // 3
    distance = distances.LpDistance(normalize_embeddings=False)
    oracle = losses.TripletMarginLoss(margin=0, smooth_loss=True, distance=distance,
                                      reducer=reducers.MeanReducer())
    hard = miners.BatchHardMiner(distance=distance)
    assert_same(lambda x: soft_margin_triplet(x, ids), lambda x: oracle(x, ids, hard(x, ids)), emb)


def stripe_triplets(emb, ids):
    """Two stripes an image, cut out of a row of numbers."""
    return aligned_triplets(emb, emb[:, :2, None], ids)


@pytest.mark.parametrize("ids", [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 2]])
@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("triplet", [batch_hard_triplet, soft_margin_triplet, stripe_triplets])
def test_triplet_stays_finite(triplet, ids, spread):
    """Coincident points, a single identity, identities with one image."""
    emb = (spread * torch.randn(4, 3)).requires_grad_()
    loss = triplet(emb, torch.tensor(ids))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(emb.grad).all()


def test_identity_with_one_image_is_no_anchor():
    emb = torch.randn(5, 3, dtype=torch.double)
    ids = torch.tensor([0, 0, 1, 1, 2])
    torch.testing.assert_close(batch_hard_triplet(emb, ids), slow_triplet(emb, ids, 0.3))


def test_reid_loss_names_its_terms():
    logits, emb, ids = torch.rand(4, 2, 3), torch.randn(4, 5), torch.tensor([0, 0, 1, 1])
    plain = ReidLoss()(logits, emb, ids)
    full = ReidLoss(am_margin=0.2, am_scale=5.0, triplet_margin=0.1)(logits, emb, ids)
    assert list(plain) == ["identity"] and list(full) == ["identity", "triplet"]
    assert plain["identity"] == part_cross_entropy(logits, ids)
    assert full["identity"] == part_am_softmax(logits, ids, 0.2, 5.0)
    assert full["triplet"] == batch_hard_triplet(emb, ids, 0.1)
    assert not np.isclose(plain["identity"].item(), full["identity"].item())


def test_the_identity_term_may_be_the_mean_over_parts():
    logits, emb, ids = torch.rand(4, 2, 3), torch.randn(4, 5), torch.tensor([0, 0, 1, 1])
    for options in ({}, {"am_margin": 0.2, "triplet_margin": 0.1, "smoothing": 0.1}):
        summed, mean = (ReidLoss(**options, part_mean=on)(logits, emb, ids) for on in (False, True))
        assert mean == {**summed, "identity": summed["identity"] / 2}
    summed, mean = (AngularLoss(part_mean=on)(logits, emb, logits[..., :1], ids)
                    for on in (False, True))
    assert mean["identity"] == summed["identity"] / 2


@pytest.mark.parametrize("loss", [part_cross_entropy, part_am_softmax])
def test_label_smoothing_spreads_its_share_over_all_identities(loss):
    """Against the definition: (1 - e) times the plain loss, e times the mean over identities."""
    logits, ids = torch.randn(6, 3, 5).tanh(), torch.arange(6) % 5
    if loss is part_am_softmax:
        shifted = 30 * (logits - 0.35 * torch.nn.functional.one_hot(ids, 5)[:, None])
    else:
        shifted = logits
    chosen = shifted.log_softmax(2)
    true = torch.stack([chosen[i, :, ids[i]] for i in range(6)])
    want = -(0.9 * true + 0.1 * chosen.mean(2)).mean(0).sum()
    assert loss(logits, ids, smoothing=0.1).item() == pytest.approx(want.item(), rel=1e-5)


@pytest.mark.filterwarnings("ignore:__array_wrap__")  # of its own
@pytest.mark.parametrize("margin", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", [losses.LargeMarginSoftmaxLoss, losses.SphereFaceLoss])
def test_angular_softmax_equals_pytorch_metric_learning(kind, margin):
    """In the loss and its gradients for the features and the class weights."""
    oracle = kind(num_classes=4, embedding_size=3, margin=margin).double()
    emb, ids = torch.randn(20, 3, dtype=torch.double, requires_grad=True), torch.arange(20) % 4
    want = oracle(emb, ids)
    cosines = normalize(emb, dim=1) @ normalize(oracle.W, dim=0)
    norms = emb.norm(dim=1, keepdim=True)
    if kind is losses.LargeMarginSoftmaxLoss:
        norms = norms * oracle.W.norm(dim=0)
    found = part_angular_softmax(cosines[:, None], norms[:, None], ids, margin)
    torch.testing.assert_close(found, want)
    for ours, theirs in zip(torch.autograd.grad(found, (emb, oracle.W)),
                            torch.autograd.grad(want, (emb, oracle.W)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("margin", [2, 3, 4])
def test_psi_is_its_definition_and_falls_from_1_to_1_minus_2_m(margin):
    angles = np.linspace(0, np.pi, 301)
    k = np.minimum(angles // (np.pi / margin), margin - 1)
    cosines = torch.from_numpy(np.cos(angles)).requires_grad_()
    psi = angular_margin(cosines, margin)
    np.testing.assert_allclose(psi.detach(), (-1.0) ** k * np.cos(margin * angles) - 2 * k,
                               atol=1e-10)
    assert (psi.diff() < 1e-12).all() and psi[-1].item() == pytest.approx(1 - 2 * margin)
    psi.sum().backward()
    assert torch.isfinite(cosines.grad).all()


def test_annealing_is_the_papers_mixture():
    cosines, norms, ids = torch.randn(5, 2, 3).tanh(), torch.rand(5, 2, 1), torch.arange(5) % 3
    true = torch.nn.functional.one_hot(ids, 3)[:, None].bool()
    for lam in (0.0, 1.0, 4.0):
        mixed = (lam * norms * cosines + norms * angular_margin(cosines, 3)) / (1 + lam)
        want = part_cross_entropy(torch.where(true, mixed, norms * cosines), ids)
        found = part_angular_softmax(cosines, norms, ids, 3, share=1 / (1 + lam))
        torch.testing.assert_close(found, want)
    assert [margin_share(done) for done in (0.0, 0.25, 0.5, 0.9)] == [0.0, 1 / 12, 1 / 6, 1 / 6]
    assert margin_share(0.5, full_at=1.0, most=1.0) == 0.5
    torch.testing.assert_close(part_angular_softmax(cosines, norms, ids, share=0.0),
                               part_cross_entropy(norms * cosines, ids))


def test_the_margin_of_angular_loss_grows_as_it_is_told():
    cosines, norms, ids = torch.rand(4, 2, 3), 3 * torch.rand(4, 2, 1), torch.tensor([0, 0, 1, 1])
    emb = torch.randn(4, 5)
    loss = AngularLoss(3, triplet_margin=0.1, smoothing=0.2)
    for done, share in ((None, 0.0), (0.1, 0.2 / 6), (0.5, 1 / 6), (1.0, 1 / 6)):
        if done is not None:
            loss.anneal(done)
        terms = loss(cosines, emb, norms, ids)
        assert terms == {"identity": part_angular_softmax(cosines, norms, ids, 3, share, 0.2),
                         "triplet": batch_hard_triplet(emb, ids, 0.1)}
    assert list(AngularLoss()(cosines, emb, norms, ids)) == ["identity"]


def test_an_added_term_is_the_weight_times_a_function_of_the_same_arguments():
    logits, emb = torch.rand(4, 2, 3), torch.randn(4, 5, requires_grad=True)
    ids, seen = torch.tensor([0, 0, 1, 1]), []

    def spread(*given):
        seen.append(given)
        return given[1].sum()

    terms = AddedTerm(ReidLoss(), spread, "spread", 0.5)(logits, emb, ids)
    assert terms == {"identity": part_cross_entropy(logits, ids), "spread": 0.5 * emb.sum()}
    assert all(a is b for a, b in zip(*seen, (logits, emb, ids), strict=True))
    with pytest.raises(ValueError, match="loss spread has weights of its own, which are not train"):
        AddedTerm(ReidLoss(), torch.nn.Linear(5, 1), "spread", 0.5)
    AddedTerm(ReidLoss(), torch.nn.Dropout(), "spread", 0.5)  # has none


def test_the_polynomial_is_not_computed_in_bf16():
    cosines, ids = torch.randn(50, 1, 4).tanh().bfloat16(), torch.arange(50) % 4
    norms = torch.full((50, 1, 1), 10.0)
    exact = part_angular_softmax(cosines.double(), norms.double(), ids, 4)
    found = part_angular_softmax(cosines, norms, ids, 4)
    assert found.item() == pytest.approx(exact.item(), rel=1e-5)


def slow_aligned_distance(a, b):
    """Pair by pair, cell by cell: S_ij = d_ij + min(S_i-1,j, S_i,j-1)."""
    def pair(f, g):
        best = {}
        for i in range(len(f)):
            for j in range(len(g)):
                before = [best[cell] for cell in ((i - 1, j), (i, j - 1)) if cell in best]
                gap = (f[i] - g[j]).norm()
                best[i, j] = (gap.exp() - 1) / (gap.exp() + 1) + (min(before) if before else 0)
        return best[i, j]

    return torch.stack([torch.stack([pair(f, g) for g in b]) for f in a])


def test_aligned_distance_equals_the_loop_over_pairs_and_cells():
    a, b = (torch.randn(n, 4, 5, dtype=torch.double, requires_grad=True) for n in (8, 2))
    found, want = aligned_distance(a, b), slow_aligned_distance(a, b)
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(aligned_distance(a, b, exact=False), want)
    weights = torch.randn(8, 2, dtype=torch.double)
    for ours, slow in zip(torch.autograd.grad((found * weights).sum(), (a, b)),
                          torch.autograd.grad((want * weights).sum(), (a, b)), strict=True):
        torch.testing.assert_close(ours, slow)


def test_aligned_distance_is_the_shortest_of_all_paths():
    a, b = torch.randn(2, 4, 3, dtype=torch.double)
    cells, lengths = torch.tanh(torch.cdist(a, b) / 2), []
    for downs in combinations(range(6), 3):  # which of the 6 steps go down
        steps = np.cumsum([[s in downs, s not in downs] for s in range(6)], 0)
        lengths.append(cells[0, 0] + sum(cells[i, j] for i, j in steps))
    torch.testing.assert_close(aligned_distance(a[None], b[None])[0, 0], min(lengths))


def test_local_triplets_have_the_global_features_hard_pairs():
    features, ids = torch.randn(9, 4, dtype=torch.double), torch.arange(9) // 3
    local = torch.randn(9, 3, 5, dtype=torch.double)

    def slow(local):
        dist, found = slow_aligned_distance(local, local), []
        for a in range(9):
            others = sorted(set(range(9)) - {a}, key=lambda i: torch.dist(features[a], features[i]))
            nearest = next(i for i in others if ids[i] != ids[a])
            farthest = next(i for i in others[::-1] if ids[i] == ids[a])
            found.append(torch.relu(dist[a, farthest] - dist[a, nearest] + 0.3))
        return torch.stack(found).mean()

    assert_same(lambda x: aligned_triplets(features, x, ids), slow, local)


def test_transreid_weighs_the_global_branch_like_all_local_ones_together():
    logits, features, ids = torch.randn(6, 5, 4), torch.randn(6, 5, 7), torch.arange(6) // 2
    found = transreid_loss(logits, features, ids)
    for name, one in (("identity", lambda i: part_cross_entropy(logits[:, [i]], ids)),
                      ("triplet", lambda i: soft_margin_triplet(features[:, i], ids))):
        want = 0.5 * one(0) + 0.5 * (one(1) + one(2) + one(3) + one(4)) / 4
        torch.testing.assert_close(found[name], want)
    alone = transreid_loss(logits[:, :1], features[:, :1], ids)
    assert alone["identity"] == part_cross_entropy(logits[:, :1], ids)
    assert alone["triplet"] == soft_margin_triplet(features[:, 0], ids)


def test_the_other_systems_name_their_terms():
    logits, features, ids = torch.randn(6, 1, 4), torch.randn(6, 7), torch.arange(6) // 2
    local = torch.randn(6, 3, 5)
    assert aligned_reid_loss(logits, features, local, ids) == {
        "identity": part_cross_entropy(logits, ids),
        "triplet": batch_hard_triplet(features, ids, 0.3),
        "local": aligned_triplets(features, local, ids, 0.3)}
    terms = cosine_softmax_loss(logits, torch.tensor(2.0), ids)
    assert terms["identity"] == part_cross_entropy(logits, ids)
    assert terms["scale"].item() == pytest.approx(0.2)
