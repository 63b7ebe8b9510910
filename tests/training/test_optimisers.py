import math

import pytest
import torch

from reidlib.losses import ReidLoss
from reidlib.models.deep_cosine import DeepCosine
from reidlib.training.optimisers import (
    blockwise,
    make_optimiser,
    set_trainable_blocks,
    warmup_cosine,
    with_progress,
)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_frozen_blocks_get_no_gradient(make_model, make_images, n):
    model = make_model(4)
    set_trainable_blocks(model, n)
    sum(ReidLoss()(*model(make_images(4)), torch.arange(4)).values()).backward()
    blocks = [all(p.grad is not None for p in b.parameters()) for b in model.backbone.blocks]
    frozen = [all(p.grad is None for p in b.parameters()) for b in model.backbone.blocks]
    assert blocks == [i >= 2 - n for i in range(2)] == [not f for f in frozen]
    assert all(p.grad is not None for p in model.classifiers.parameters())
    assert (model.backbone.patch_embed.proj.weight.grad is None) == (n < 2)
    assert (model.backbone.pos_embed.grad is None) == (n < 2)


def test_no_graph_is_built_through_what_is_frozen(make_model, make_images):
    model = make_model(4)
    set_trainable_blocks(model, 1)
    needs = {}
    for name in ("patch_embed", "blocks.0", "blocks.1", "norm"):
        model.backbone.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: needs.update({name: out.requires_grad}))
    model(make_images(2))
    assert needs == {"patch_embed": False, "blocks.0": False, "blocks.1": True, "norm": True}


def test_blockwise_releases_one_block_and_lowers_the_rate_every_second_epoch(make_model):
    model = make_model(4)
    optimiser = make_optimiser(model, 1.0, 1.0, 0.0)
    schedule, seen = blockwise(model, optimiser, every=2, decay=0.8), []
    for epoch in range(5):
        for within in (0.1, 0.9):
            schedule(epoch + within)
            released = sum(b.norm1.weight.requires_grad for b in model.backbone.blocks)
            seen.append((released, *(group["lr"] for group in optimiser.param_groups)))
    assert seen[::2] == seen[1::2]
    assert [s[0] for s in seen[::2]] == [0, 0, 1, 1, 2]
    assert [s[1] for s in seen[::2]] == pytest.approx([1, 1, 0.8, 0.8, 0.64])
    assert [s[1] for s in seen] == [s[2] for s in seen]


def test_the_public_code_starts_with_two_blocks_and_trains_the_embeddings(make_model):
    """Its `unfreeze_blocks(1)` frees blocks[11 - 1:], and the first call is in epoch 0."""
    model = make_model(4)
    optimiser = make_optimiser(model, 1.0, 1.0, 0.0)
    schedule, seen = blockwise(model, optimiser, every=2, decay=0.8, public=True), []
    for epoch in range(4):
        schedule(epoch + 0.5)
        released = sum(b.norm1.weight.requires_grad for b in model.backbone.blocks)
        seen.append((released, optimiser.param_groups[0]["lr"]))
        assert model.backbone.patch_embed.proj.weight.requires_grad
        assert model.backbone.pos_embed.requires_grad and model.backbone.cls_token.requires_grad
    assert [n for n, _ in seen] == [min(n, len(model.backbone.blocks)) for n in (2, 2, 3, 3)]
    assert [rate for _, rate in seen] == pytest.approx([0.8, 0.8, 0.64, 0.64])


def test_backbone_and_heads_have_their_own_rates(make_model):
    model = make_model(4)
    heads, backbone = make_optimiser(model, 0.1, 0.2, 0.3).param_groups
    assert (heads["lr"], backbone["lr"], heads["weight_decay"]) == (0.1, 0.2, 0.3)
    assert len(heads["params"]) + len(backbone["params"]) == len(list(model.parameters()))
    assert {id(p) for p in backbone["params"]} == {id(p) for p in model.backbone.parameters()}


def test_with_momentum_biases_learn_at_twice_the_rate(make_model):
    """Against the public code's rule: by the parameter's name."""
    model = make_model(4)
    optimiser = make_optimiser(model, 0.1, 0.2, 0.3, momentum=0.9)
    assert isinstance(optimiser, torch.optim.SGD)
    groups = optimiser.param_groups
    assert {(g["momentum"], g["weight_decay"]) for g in groups} == {(0.9, 0.3)}
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    for name, p in model.named_parameters():
        own = 0.2 if name.startswith("backbone.") else 0.1
        assert rate[id(p)] == own * (2 if "bias" in name else 1), name


def test_a_model_without_backbone_has_one_group():
    groups = make_optimiser(torch.nn.Linear(2, 3), 0.1, 0.2, 0.3).param_groups
    assert [(group["name"], group["lr"]) for group in groups] == [("heads", 0.1)]


def test_the_scale_of_deep_cosine_moves_by_its_rate_a_step():
    model = DeepCosine(3)
    optimiser = make_optimiser(model, 1e-3, 1e-3, 0.0, scale_lr=0.05)
    groups = {group["name"]: group for group in optimiser.param_groups}
    assert groups["scale"]["params"] == [model.scale] and groups["scale"]["lr"] == 0.05
    assert len(groups["heads"]["params"]) == len(list(model.parameters())) - 1
    model.scale.grad = torch.tensor(123.0)
    optimiser.step()
    assert model.scale.item() == pytest.approx(-0.05)


def test_layer_decay_lowers_the_rate_from_block_to_block(make_model):
    model = make_model(4)
    groups = make_optimiser(model, 0.1, 0.2, 0.3, layer_decay=0.5).param_groups
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert {id(p) for p in model.parameters()} == set(rate)
    assert {group["weight_decay"] for group in groups} == {0.3} and groups[0]["lr"] == 0.1
    backbone = model.backbone
    rates = [rate[id(p)] for p in (backbone.norm.weight, backbone.blocks[1].norm1.bias,
                                   backbone.blocks[0].attn.qkv.weight, backbone.pos_embed)]
    assert rates == pytest.approx([0.2, 0.2, 0.1, 0.05])


def test_rates_rise_linearly_and_fall_along_a_cosine(make_model):
    optimiser = make_optimiser(make_model(4), 1.0, 0.1, 0.0)
    schedule = warmup_cosine(optimiser, 10, 2.0)
    for done in (0.5, 1.5, 2.0, 5.25, 9.999):
        schedule(done)
        want = done / 2 if done < 2 else (1 + math.cos(math.pi * done / 10)) / 2
        assert [group["lr"] for group in optimiser.param_groups] == pytest.approx(
            [want, 0.1 * want])


def test_a_schedule_tells_something_else_the_share_of_training_done():
    seen, told = [], []
    schedule = with_progress(seen.append, 4, told.append)
    for epochs_done in (0.25, 3.0, 4.0):
        schedule(epochs_done)
    assert seen == [0.25, 3.0, 4.0] and told == [0.0625, 0.75, 1.0]


def test_a_schedule_goes_on_in_the_middle(make_model):
    """It holds no state: a resumed run asks for epoch 5 first."""
    rates = []
    for start in (0, 5):
        optimiser = make_optimiser(make_model(4), 1.0, 0.1, 0.0)
        schedule = warmup_cosine(optimiser, 10, 2.0)
        for epoch in range(start, 6):
            schedule(float(epoch))
        rates.append([group["lr"] for group in optimiser.param_groups])
    assert rates[0] == rates[1]
