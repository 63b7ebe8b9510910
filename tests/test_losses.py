import numpy as np
import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch.nn.functional import normalize

from reidlib.losses import ReidLoss, batch_hard_triplet, part_am_softmax, part_cross_entropy


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


@pytest.mark.parametrize("ids", [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 2]])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_triplet_stays_finite(ids, spread):
    """Coincident points, a single identity, identities with one image."""
    emb = (spread * torch.randn(4, 3)).requires_grad_()
    loss = batch_hard_triplet(emb, torch.tensor(ids), 0.3)
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
