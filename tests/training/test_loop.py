from dataclasses import replace

import pytest
import torch

from reidlib.data.batches import Batches, ShuffleSampler
from reidlib.losses import ReidLoss
from reidlib.training import loop
from reidlib.training.loop import TrainingOptions
from reidlib.training.optimisers import blockwise, make_optimiser
from reidlib.utils import distributed

CPU = torch.device("cpu")
TIMES = ("seconds", "images_per_second", "memory_mb")


@pytest.fixture
def start(make_model, make_images):
    """A fresh (model, batches, optimiser) from one seed, as often as asked for."""

    def make(seed=0, lr=1e-3, n=8, size=4):
        torch.manual_seed(seed)
        model = make_model(4)
        images, ids = make_images(n), torch.arange(n) % 4
        batches = Batches(images, ids, ShuffleSampler(n, size, seed), CPU)
        return model, batches.epoch, make_optimiser(model, lr, lr, 0.0)

    return make


def fit(parts, epochs, options=None, **rest):
    model, batches, optimiser = parts
    return loop.fit(model, batches, ReidLoss(), optimiser, epochs, options, **rest)


def without_times(history):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in history]


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_eight_images_are_learnt_by_heart(start):
    history = fit(start(lr=3e-3), 30)
    assert history[0]["accuracy"] < 0.6 < 0.95 < history[-1]["accuracy"]
    assert history[-1]["loss"] < history[0]["loss"] / 5


def test_same_seed_same_history(start):
    first, second, other = (without_times(fit(start(seed), 3)) for seed in (1, 1, 2))
    assert first == second != other


def test_a_row_of_history_says_how_it_went(start):
    row = fit(start(lr=2e-3), 1)[0]
    assert row["loss"] == row["identity"] and row["lr_heads"] == row["lr_backbone"] == 2e-3
    assert row["images"] == 8 and row["gradient_norm"] > 0 and row["memory_mb"] > 50
    assert row["images_per_second"] == pytest.approx(8 / row["seconds"])


def test_the_norm_in_the_history_is_that_of_the_gradient(start):
    model, batches, _ = start(n=4)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    before = weights(model)
    row = loop.fit(model, batches, ReidLoss(), optimiser, 1)[0]
    steps = [before[k] - v for k, v in dict(model.named_parameters()).items()]
    assert row["gradient_norm"] == pytest.approx(
        torch.cat([step.flatten() for step in steps]).norm().item(), rel=1e-4)


def test_a_step_is_not_longer_than_the_clipped_gradient(start):
    model, batches, _ = start(n=4)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    before = weights(model)
    row = loop.fit(model, batches, ReidLoss(), optimiser, 1, TrainingOptions(clip_norm=0.5))[0]
    steps = [before[k] - v for k, v in dict(model.named_parameters()).items()]
    assert torch.cat([s.flatten() for s in steps]).norm().item() == pytest.approx(0.5, rel=1e-3)
    assert row["gradient_norm"] > 1


def test_blockwise_leaves_frozen_weights_untouched(start):
    model, batches, optimiser = start()
    before = weights(model)
    fit((model, batches, optimiser), 1, TrainingOptions(blockwise(model, optimiser, 2, 0.8)))
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert not any(k.startswith(("backbone.blocks", "backbone.patch")) for k in changed)
    assert "classifiers.reduce" in changed and "backbone.norm.weight" in changed


def test_accumulated_parts_step_along_their_mean_gradient(start, make_model, make_images):
    """Batch normalisation in evaluation mode, for it sees one part at a time in training."""
    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make_model(4).eval()

        def train(self, mode=True):
            return self

        def forward(self, images):
            return self.inner(images)

    results = []
    for accumulate, sizes in ((1, [8]), (3, [3, 3, 2])):
        torch.manual_seed(0)
        model, images, ids = Mean(), make_images(8), torch.arange(8) % 4
        batches = list(zip(images.split(sizes), ids.split(sizes), strict=True))
        history = loop.fit(model, lambda epoch, b=batches: b, ReidLoss(),
                               torch.optim.SGD(model.parameters(), lr=0.1), 1,
                               TrainingOptions(accumulate=accumulate))
        results.append((history[0]["loss"], weights(model)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for name, value in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], value, rtol=1e-4, atol=1e-6)


def test_steps_and_schedule_with_a_short_last_group(start):
    seen = []
    model, batches, optimiser = start(n=20)  # five batches of 4: two steps of two and one of one
    loop.fit(model, batches, ReidLoss(), optimiser, 2, TrainingOptions(seen.append, accumulate=2))
    assert seen == pytest.approx([1 / 6, 3 / 6, 5 / 6, 7 / 6, 9 / 6, 11 / 6])
    assert {state["step"].item() for state in optimiser.state.values()} == {6}


def test_averaged_weights_are_returned(start):
    """Against the definition in plain Python: the first step as it is, then a running mean."""
    seen = []

    def spy(parts):
        model, batches, optimiser = parts
        take = optimiser.step
        optimiser.step = lambda: (take(), seen.append(weights(model)))[0]
        return parts

    averaged = spy(start())
    fit(averaged, 2, TrainingOptions(ema_decay=0.9))
    mean = seen[0]
    for later in seen[1:]:
        mean = {k: 0.9 * mean[k] + 0.1 * v if v.is_floating_point() else v
                for k, v in later.items()}
    assert len(seen) == 4
    for name, value in averaged[0].state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, mean[name])


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_the_best_epoch_by_validation_is_returned(start, ema_decay):
    scores, seen = iter([0.2, 0.7, 0.7, 0.1]), []

    def validate(model):
        seen.append(weights(model))
        return next(scores)

    parts = start()
    history = fit(parts, 4, TrainingOptions(validate=validate, ema_decay=ema_decay))
    assert [row["validation"] for row in history] == [0.2, 0.7, 0.7, 0.1]
    assert all(torch.equal(v, seen[1][k]) for k, v in parts[0].state_dict().items())
    assert not torch.equal(seen[3]["classifiers.reduce"], seen[1]["classifiers.reduce"])


@pytest.mark.parametrize("options", [
    TrainingOptions(), TrainingOptions(accumulate=2, clip_norm=1.0), TrainingOptions(ema_decay=0.8),
    TrainingOptions(validate=lambda model: -model.classifiers.reduce.abs().sum().item())])
def test_a_continued_run_equals_an_uninterrupted_one(start, tmp_path, options):
    path, key = tmp_path / "checkpoint.pt", {"configuration": "a"}
    uninterrupted = start()
    history = fit(uninterrupted, 4, options)
    fit(start(), 2, options, checkpoint=path, key=key)
    continued = start()
    torch.manual_seed(99)
    resumed = fit(continued, 4, options, checkpoint=path, key=key)
    assert without_times(resumed) == without_times(history)
    assert all(torch.equal(v, continued[0].state_dict()[k])
               for k, v in uninterrupted[0].state_dict().items())


def test_bf16_is_autocast_and_what_comes_out_is_fp32(start):
    model, batches, optimiser = start()
    kinds, outputs = [], []
    model.backbone.blocks[0].mlp.fc1.register_forward_hook(
        lambda _, __, out: kinds.append(out.dtype))

    def loss_fn(logits, emb, ids):
        outputs.append(logits.dtype)
        return ReidLoss()(logits, emb, ids)

    for _ in range(2):
        with distributed.accelerated(CPU, "bf16") as accelerator:
            loop.fit(model, batches, loss_fn, optimiser, 1, accelerator=accelerator)
        assert set(kinds) == {torch.bfloat16} and set(outputs) == {torch.float32}
        assert all(p.dtype == torch.float32 for p in model.parameters())
        kinds.clear()
        model(next(iter(batches(0)))[0])
        assert set(kinds) == {torch.float32}  # afterwards the model is as it was
        kinds.clear()


def test_a_loss_that_is_not_finite_stops_before_the_step(start, tmp_path):
    path, key = tmp_path / "checkpoint.pt", {"configuration": "a"}
    fit(start(), 1, checkpoint=path, key=key)
    model, batches, optimiser = start()

    def broken(logits, emb, ids):
        return {"identity": logits.mean(), "triplet": emb.sum() * float("nan")}

    kept = path.read_bytes()
    with pytest.raises(FloatingPointError, match="triplet not finite in epoch 1, batch 0 "
                       r"\(.*identity .*, triplet nan.*last checkpoint is kept"):
        loop.fit(model, batches, broken, optimiser, 2, checkpoint=path, key=key)
    assert path.read_bytes() == kept
    resumed = start()
    fit(resumed, 1, checkpoint=path, key=key)
    assert all(torch.equal(v, resumed[0].state_dict()[k]) for k, v in model.named_parameters())


def test_a_gradient_that_is_not_finite_stops_before_the_step(start):
    model, batches, optimiser = start()
    before = weights(model)

    def steep(logits, emb, ids):  # finite itself: the gradients overflow when their norm is taken
        return {"identity": 1e30 * logits.mean()}

    with pytest.raises(FloatingPointError, match="^gradient not finite in epoch 0, batch 0"):
        loop.fit(model, batches, steep, optimiser, 1)
    assert all(torch.equal(v, before[k]) for k, v in model.named_parameters())


def test_an_interrupted_step_leaves_nothing_to_the_next(start):
    model, batches, optimiser = start()

    def interrupted(number):
        yield next(iter(batches(0)))
        raise KeyboardInterrupt  # between backward and optimiser step

    class Sized:
        __len__ = lambda self: 2  # noqa: E731
        __iter__ = lambda self: interrupted(0)  # noqa: E731

    with pytest.raises(KeyboardInterrupt):
        loop.fit(model, lambda epoch: Sized(), ReidLoss(), optimiser, 1)
    assert any(p.grad is not None for p in model.parameters())
    model.load_state_dict(start()[0].state_dict())
    torch.manual_seed(7)
    row = loop.fit(model, batches, ReidLoss(), optimiser, 1)[0]
    fresh = start()
    torch.manual_seed(7)
    assert row["gradient_norm"] == fit(fresh, 1)[0]["gradient_norm"]


def test_full_memory_says_what_to_change(start):
    model, batches, optimiser = start()

    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(MemoryError, match="cpu with a batch of 4, 4 images at a time, prec"):
        loop.fit(model, batches, full, optimiser, 1)


def test_ctrl_c_leaves_a_run_that_goes_on(start, tmp_path, capsys):
    path, key = tmp_path / "checkpoint.pt", {"configuration": "a"}
    model, batches, optimiser = start()

    def stopped(epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        return batches(epoch)

    with pytest.raises(KeyboardInterrupt):
        loop.fit(model, stopped, ReidLoss(), optimiser, 3, checkpoint=path, key=key)
    assert "stopped after 1 of 3 epochs; started again, it goes on" in capsys.readouterr().out
    assert [row["epoch"] for row in fit(start(), 3, checkpoint=path, key=key)] == [0, 1, 2]


def test_an_epoch_without_a_batch_is_an_error(start):
    model, _, optimiser = start()
    with pytest.raises(ValueError, match="without a batch"):
        loop.fit(model, lambda epoch: [], ReidLoss(), optimiser, 1)


def test_one_line_at_first_and_one_an_epoch_without_a_terminal(start, capsys):
    fit(start(), 2, replace(TrainingOptions(), validate=lambda model: 0.5), name="baseline-s0")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "baseline-s0: training, epoch 1 to 2" and len(lines) == 3
    assert lines[2].startswith("baseline-s0: epoch 2/2, loss ")
    assert lines[2].endswith("validation 0.500")
