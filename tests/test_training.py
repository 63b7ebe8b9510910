import pytest
import torch

from reidlib import training
from reidlib.data import Batches, ShuffleSampler
from reidlib.losses import ReidLoss
from reidlib.retrieval import embed

CPU = torch.device("cpu")


@pytest.fixture
def start(make_model, make_images, tmp_path):
    """A fresh (model, batches, optimiser) from one seed, as often as asked for."""

    def make(seed=0, lr=1e-3, n=8):
        torch.manual_seed(seed)
        model = make_model(4)
        images, ids = make_images(n), torch.arange(n) % 4
        batches = Batches(images, ids, ShuffleSampler(n, 4, seed), CPU)
        return model, batches.epoch, training.make_optimiser(model, lr, lr, 0.0)

    return make


def fit(parts, epochs, **options):
    model, batches, optimiser = parts
    return training.fit(model, batches, ReidLoss(), optimiser, epochs, **options)


def without_time(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


def test_eight_images_are_learnt_by_heart(start):
    history = fit(start(lr=3e-3), 30)
    assert history[0]["accuracy"] < 0.6 < 0.95 < history[-1]["accuracy"]
    assert history[-1]["loss"] < history[0]["loss"] / 5


def test_same_seed_same_history(start):
    first, second, other = (without_time(fit(start(seed), 3)) for seed in (1, 1, 2))
    assert first == second != other


@pytest.mark.parametrize("n", [0, 1, 2])
def test_frozen_blocks_get_no_gradient(start, n):
    model, batches, _ = start()
    training.set_trainable_blocks(model, n)
    images, ids = next(iter(batches(0)))
    sum(ReidLoss()(*model(images), ids).values()).backward()
    blocks = [all(p.grad is not None for p in b.parameters()) for b in model.backbone.blocks]
    frozen = [all(p.grad is None for p in b.parameters()) for b in model.backbone.blocks]
    assert blocks == [i >= 2 - n for i in range(2)] == [not f for f in frozen]
    assert all(p.grad is not None for p in model.classifiers.parameters())
    assert (model.backbone.patch_embed.proj.weight.grad is None) == (n < 2)
    assert (model.backbone.pos_embed.grad is None) == (n < 2)


def test_blockwise_releases_one_block_and_lowers_the_rate_every_second_epoch(start):
    parts = start(lr=1.0)
    on_epoch_start = training.blockwise(parts[0], parts[2], every=2, decay=0.8)
    seen = []
    for epoch in range(5):
        on_epoch_start(epoch)
        released = sum(b.norm1.weight.requires_grad for b in parts[0].backbone.blocks)
        seen.append((released, parts[2].param_groups[0]["lr"], parts[2].param_groups[1]["lr"]))
    assert [s[0] for s in seen] == [0, 0, 1, 1, 2]
    assert [s[1] for s in seen] == pytest.approx([1, 1, 0.8, 0.8, 0.64])
    assert [s[1] for s in seen] == [s[2] for s in seen]


def test_blockwise_leaves_frozen_weights_untouched(start):
    model, batches, optimiser = start()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fit((model, batches, optimiser), 1,
        on_epoch_start=training.blockwise(model, optimiser, 2, 0.8))
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert not any(k.startswith(("backbone.blocks", "backbone.patch")) for k in changed)
    assert "classifiers.reduce" in changed and "backbone.norm.weight" in changed


def test_backbone_and_heads_have_their_own_rates(start):
    model = start()[0]
    heads, backbone = training.make_optimiser(model, 0.1, 0.2, 0.3).param_groups
    assert (heads["lr"], backbone["lr"], heads["weight_decay"]) == (0.1, 0.2, 0.3)
    assert len(heads["params"]) + len(backbone["params"]) == len(list(model.parameters()))
    assert {id(p) for p in backbone["params"]} == {id(p) for p in model.backbone.parameters()}


def test_a_continued_run_equals_an_uninterrupted_one(start, make_images, tmp_path):
    whole = start()
    history = fit(whole, 4)
    fit(start(), 2, checkpoint=tmp_path / "checkpoint.pt", key="a")
    torch.manual_seed(99)
    continued = start(seed=0)
    resumed = fit(continued, 4, checkpoint=tmp_path / "checkpoint.pt", key="a")
    assert without_time(resumed) == without_time(history)
    for a, b in zip(embed(whole[0], make_images(3)), embed(continued[0], make_images(3)),
                    strict=True):
        assert (a == b).all()


def test_a_foreign_or_damaged_checkpoint_is_refused(start, tmp_path):
    path = tmp_path / "checkpoint.pt"
    fit(start(), 1, checkpoint=path, key="a")
    with pytest.raises(ValueError, match="another configuration or data set"):
        fit(start(), 2, checkpoint=path, key="b")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is damaged"):
        fit(start(), 2, checkpoint=path, key="a")


def test_a_loss_that_is_not_finite_stops_before_the_step(start):
    model, batches, optimiser = start()
    before = {k: v.clone() for k, v in model.named_parameters()}

    def broken(logits, emb, ids):
        return {"identity": logits.sum() * float("nan")}

    with pytest.raises(FloatingPointError, match="epoch 0, batch 0.*identity nan"):
        training.fit(model, batches, broken, optimiser, 1)
    assert all(torch.equal(v, before[k]) for k, v in model.named_parameters())


def test_an_epoch_without_a_batch_is_an_error(start):
    model, _, optimiser = start()
    with pytest.raises(ValueError, match="without a batch"):
        training.fit(model, lambda epoch: [], ReidLoss(), optimiser, 1)


def test_one_line_an_epoch_without_a_terminal(start, capsys):
    fit(start(), 2, name="baseline-s0")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("baseline-s0: epoch 2/2, loss ")
