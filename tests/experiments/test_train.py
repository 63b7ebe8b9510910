"""Every field of the configuration that training knows arrives where it acts."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from reidlib.data.cross_validation import hold_out
from reidlib.evaluation.embeddings import Embeddings, embed
from reidlib.evaluation.ranking import rank_gallery
from reidlib.experiments import train as train_module
from reidlib.experiments.study import load_study
from reidlib.experiments.train import build_model, describe_model, train, validation
from reidlib.losses import AngularLoss
from reidlib.models import files
from reidlib.training import checkpoint

CPU = torch.device("cpu")


@pytest.fixture
def config():
    study = load_study("smoke")
    return replace(study.config("improved", 0), epochs=1, image_size=32, batch_size=16,
                   backbone_args={"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2})


@pytest.fixture
def people():
    """48 images of 6 people under 2 cameras."""
    return pd.DataFrame({"path": [f"{i}.png" for i in range(48)],
                         "id": [f"{i % 6:03d}" for i in range(48)],
                         "cam": [str(i // 24) for i in range(48)],
                         "sha256": [str(i) for i in range(48)]})


@pytest.fixture
def seen(monkeypatch):
    """What ``train`` hands to ``fit``, which trains nothing here."""
    calls = []

    def spy(model, batches, loss_fn, optimiser, epochs, options, **rest):
        calls.append(SimpleNamespace(model=model, batches=batches(0), loss=loss_fn, options=options,
                                     optimiser=optimiser,
                                     precision=rest["accelerator"].mixed_precision,
                                     exact=torch.are_deterministic_algorithms_enabled()))
        return []

    monkeypatch.setattr(train_module, "fit", spy)
    return calls


def test_options_are_off_as_in_the_paper(config, make_images, people, seen):
    train(config, make_images(48), people, CPU)
    call, = seen
    assert call.options.clip_norm is call.options.ema_decay is call.options.validate is None
    assert call.options.accumulate == 1 and call.loss.smoothing == call.batches.source.erasing == 0
    assert not call.exact
    assert call.precision == "no" and len(call.optimiser.param_groups) == 2
    call.options.schedule(0.5)
    assert [g["lr"] for g in call.optimiser.param_groups] == [config.lr, config.backbone_lr]


def test_options_that_are_on(config, make_images, people, seen):
    changed = replace(config, label_smoothing=0.1, random_erasing=0.5, clip_norm=2.0,
                      ema_decay=0.9, layer_decay=0.5, warmup_epochs=0.5, accumulate=2,
                      precision="bf16", validation_ids=2, deterministic=True)
    train(changed, make_images(48), people, CPU)
    call, = seen
    options = call.options
    assert (options.clip_norm, options.ema_decay, options.accumulate) == (2.0, 0.9, 2)
    assert call.exact and not torch.are_deterministic_algorithms_enabled()
    assert call.loss.smoothing == 0.1 and call.batches.source.erasing == 0.5
    assert call.batches.source.fill == pytest.approx((127.5, 127.5, 127.5))
    assert call.precision == "bf16" and len(call.optimiser.param_groups) > 3
    call.options.schedule(0.25)
    assert call.optimiser.param_groups[0]["lr"] == pytest.approx(config.lr / 2)
    images, ids = next(iter(call.batches))
    assert len(images) == len(ids) == 8 and set(ids.tolist()) <= {0, 1, 2, 3}
    assert call.model.classifiers.classify.shape[2] == 4 and call.options.validate


def test_held_out_people_are_whole_and_drawn_by_seed(people):
    masks = [hold_out(people["id"], 2, seed) for seed in range(8)]
    for mask in masks:
        held, learnt = set(people["id"][mask]), set(people["id"][~mask])
        assert len(held) == 2 and not held & learnt
    assert len({tuple(mask) for mask in masks}) > 3
    assert (hold_out(people["id"], 2, 0) == masks[0]).all()
    assert not hold_out(people["id"], 0, 0).any()
    with pytest.raises(ValueError, match="validation_ids is 5, but of 6 training identities"):
        hold_out(people["id"], 5, 0)


def test_validation_is_the_standard_map_of_each_image_against_the_others(make_model, make_images,
                                                                        people):
    model, images, few = make_model(4), make_images(12), people[:12].assign(cam=["0", "1"] * 6)
    emb = embed(model, images)
    sides = Embeddings(*emb, *[few[name].to_numpy(str) for name in ("path", "id", "cam", "sha256")])
    few = few.assign(cam=["0"] * 6 + ["1"] * 6)
    sides = replace(sides, cams=few["cam"].to_numpy(str))
    ranking, values = rank_gallery(sides, sides), []
    for i in range(12):
        kept, hits = ranking.kept(i)
        assert i not in kept and hits.sum() == 1
        values.append(1 / (1 + np.flatnonzero(hits)[0]))
    assert validation(images, few)(model) == pytest.approx(np.mean(values))


def test_training_with_everything_on_runs_and_keeps_the_best(config, make_images, people,
                                                            tmp_path):
    changed = replace(config, epochs=3, label_smoothing=0.1, random_erasing=0.5, clip_norm=2.0,
                      ema_decay=0.5, layer_decay=0.7, warmup_epochs=1.0, accumulate=2,
                      precision="bf16", validation_ids=2, deterministic=True)
    images = make_images(48)
    model, history = train(changed, images, people, CPU, tmp_path / "checkpoint.pt")
    held_out = hold_out(people["id"], 2, 0)
    best = max(row["validation"] for row in history)
    score = validation(images[torch.from_numpy(held_out)], people[held_out])
    assert len(history) == 3 and score(model) == pytest.approx(best)
    assert not torch.are_deterministic_algorithms_enabled()


def test_members_are_trained_apart_and_their_weights_averaged(config, make_images, people,
                                                              tmp_path, monkeypatch):
    build = train_module.build  # here no weights are loaded
    monkeypatch.setattr(train_module, "build", lambda what, _, gather: build(what, False, gather))
    images, path = make_images(48), tmp_path / "checkpoint.pt"
    config = replace(config, pretrained=True)
    changed = replace(config, epochs=2, members=3, seed=1)
    model, history = train(changed, images, people, CPU, path)
    alone = [train(replace(config, epochs=2, seed=seed), images, people, CPU) for seed in (3, 4, 5)]
    states = [member.state_dict() for member, _ in alone]
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            mean = torch.stack([state[name] for state in states]).mean(0)
            torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-7)
    assert any(not torch.equal(a, b) for a, b in
               zip(states[0].values(), states[1].values(), strict=True))
    for epoch, row in enumerate(history):
        rows = [member[epoch] for _, member in alone]
        assert row["epoch"] == epoch and row["images"] == sum(r["images"] for r in rows)
        assert row["loss"] == pytest.approx(np.mean([r["loss"] for r in rows]), rel=1e-4)
    again, same = train(changed, images, people, CPU, path)  # nothing is trained twice
    assert [row["seconds"] for row in same] == [row["seconds"] for row in history]
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("angular", ["a-softmax", "l-softmax"])
def test_an_angular_margin_grows_and_a_stopped_run_goes_on_with_it(
        config, make_images, people, tmp_path, monkeypatch, angular):
    changed = replace(config, epochs=4, am_margin=None, angular=angular, angular_margin=3)
    images, shares, stop = make_images(48), [], []
    anneal, save = AngularLoss.anneal, checkpoint.TrainingState.save

    def watched(loss, done):
        anneal(loss, done)
        shares.append(loss.share)

    def stop_after_saving(*given):
        save(*given)
        if stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(AngularLoss, "anneal", watched)
    monkeypatch.setattr(checkpoint.TrainingState, "save", stop_after_saving)
    model, history = train(changed, images, people, CPU)
    steps = len(shares)
    assert steps == 4 * 3 and shares == pytest.approx(
        [min(1.0, 2 * (step + 0.5) / steps) / 6 for step in range(steps)])
    full, shares[:] = [*shares], []
    stop.append(True)
    with pytest.raises(KeyboardInterrupt):
        train(changed, images, people, CPU, tmp_path / "checkpoint.pt")
    stop.clear()
    again, resumed = train(changed, images, people, CPU, tmp_path / "checkpoint.pt")
    assert shares == full  # one epoch, and the three after it
    assert [row["identity"] for row in resumed] == [row["identity"] for row in history]
    for ours, other in zip(again.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(ours, other)


def test_a_model_with_an_angular_margin_is_saved_and_read_back(config, make_images, people,
                                                               tmp_path):
    changed = replace(config, am_margin=None, angular="l-softmax")
    model = build_model(changed, people)
    files.save(model, tmp_path / "model.safetensors", describe_model(changed, people))
    again = files.load(tmp_path / "model.safetensors")
    assert again.classifiers.angular == "l-softmax" and again.classifiers.cosine
    np.testing.assert_array_equal(embed(again, make_images(3)), embed(model, make_images(3)))
    assert "angular" not in describe_model(config, people)["head"]  # as it always was


def test_tensorboard_follows_the_training(config, make_images, people, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, history = train(replace(config, epochs=2), make_images(48), people, CPU,
                       tmp_path / "checkpoint.pt", tracker="tensorboard")
    events = EventAccumulator(str(next(tmp_path.rglob("events*")).parent)).Reload()
    assert [s.value for s in events.Scalars("loss")] == pytest.approx(
        [row["loss"] for row in history])


def test_a_tracker_that_is_not_there_is_refused(config, make_images, people, monkeypatch):
    with pytest.raises(ValueError, match="Unsupported logging capability: tensorbord"):
        train(config, make_images(48), people, CPU, tracker="tensorbord")
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [])
    with pytest.warns(UserWarning, match="no supported trackers"), pytest.raises(
            ValueError, match="tracker 'tensorboard' is not installed: pip install"):
        train(config, make_images(48), people, CPU, tracker="tensorboard")


def test_compiled_training_learns_the_same(config, make_images, people, monkeypatch, capsys):
    changed = replace(config, epochs=2, backbone_args={**config.backbone_args, "depth": 1})
    _, plain = train(changed, make_images(48), people, CPU)
    changed = replace(changed, compiled=True)
    _, compiled = train(changed, make_images(48), people, CPU)
    said = capsys.readouterr().out
    assert "the first step takes a while" in said or "going on without" in said
    assert compiled[1]["loss"] == pytest.approx(plain[1]["loss"], rel=0.1)  # dropout draws others

    def broken(function):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", broken)
    _, without = train(changed, make_images(48), people, CPU)
    assert "does not work here (no C++ compiler); going on without" in capsys.readouterr().out
    assert [row["loss"] for row in without] == [row["loss"] for row in plain]
