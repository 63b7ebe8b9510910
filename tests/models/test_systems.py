"""Every model goes through the one training loop and the one way to embed."""

import pytest
import torch

from reidlib.evaluation.embeddings import embed
from reidlib.losses import aligned_reid_loss, cosine_softmax_loss, transreid_loss
from reidlib.models.aligned_reid import AlignedReID
from reidlib.models.deep_cosine import DeepCosine
from reidlib.models.transreid import TransReID
from reidlib.training.loop import fit
from reidlib.training.optimisers import make_optimiser

SYSTEMS = {
    "transreid": (lambda vit: TransReID(vit(), 2), transreid_loss, {"identity", "triplet"}),
    "aligned": (lambda vit: AlignedReID(vit(), 2), aligned_reid_loss,
                {"identity", "triplet", "local"}),
    "deep cosine": (lambda vit: DeepCosine(2), cosine_softmax_loss, {"identity", "scale"}),
}


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_a_system_trains_and_embeds(make_backbone, make_images, name, momentum):
    build, loss, terms = SYSTEMS[name]
    model = build(make_backbone)
    images, ids = make_images(4, model.image_size), torch.arange(4) // 2
    before = {key: value.clone() for key, value in model.named_parameters()}
    optimiser = make_optimiser(model, 1e-3, 1e-3, 1e-4, momentum=momentum)
    row, = fit(model, lambda epoch: [(images, ids)], loss, optimiser, 1)
    assert terms <= set(row) and row["loss"] == pytest.approx(sum(row[term] for term in terms))
    for key, value in model.named_parameters():
        assert torch.equal(before[key], value) != value.requires_grad, key
    emb, mirrored = embed(model, images)
    assert emb.shape == mirrored.shape and len(emb) == 4
    assert (emb ** 2).sum(1) == pytest.approx(1, abs=1e-5)
