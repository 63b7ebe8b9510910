"""A run that is killed, at whatever moment, ends with the bits of one that is not."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import timm
import torch

from reidlib.data.batches import Batches, IdentitySampler
from reidlib.losses import ReidLoss
from reidlib.models.la_transformer import LATransformer
from reidlib.training.checkpoint import TrainingState, read_checkpoint
from reidlib.training.loop import TrainingOptions, fit
from reidlib.training.optimisers import make_optimiser, warmup_cosine
from reidlib.utils import paths, reproducibility

CPU = torch.device("cpu")
KEY = {"configuration": "a", "data set": "b"}
EPOCHS = 12
TIMES = ("seconds", "images_per_second", "memory_mb")


def run(folder, kill_at=None):
    """Train in this process with everything a checkpoint holds; leaves history and weights."""
    torch.set_num_threads(1)
    os.environ["REIDLIB_HEADLESS"] = "1"
    if kill_at is not None:
        die_while_saving(*kill_at)
    reproducibility.seed_globals(3)
    backbone = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, patch_size=8,
                                 embed_dim=16, depth=2, num_heads=2, drop_path_rate=0.2)
    model = LATransformer(backbone, 6)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (48, 3, 32, 32), np.uint8))
    ids = torch.arange(48) % 6
    batches = Batches(images, ids, IdentitySampler(ids.numpy(), 3, 4, 0), CPU, erasing=0.5)
    optimiser = make_optimiser(model, 1e-3, 1e-4, 5e-4, layer_decay=0.8)
    options = TrainingOptions(
        warmup_cosine(optimiser, EPOCHS, 2.0), accumulate=2, clip_norm=5.0, ema_decay=0.9,
        validate=lambda model: -model.classifiers.reduce.norm().item())
    history = fit(model, batches.epoch, ReidLoss(triplet_margin=0.3), optimiser, EPOCHS, options,
                  checkpoint=folder / "checkpoint.pt", key=KEY)
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in history]
    with paths.atomic_write(folder / "done.pt") as partial:
        torch.save((rows, model.state_dict(), torch.get_rng_state()), partial)


def die_while_saving(nth, share):
    """SIGKILL this process in its ``nth`` checkpoint, with ``share`` of the file written."""
    save, count = torch.save, iter(range(EPOCHS))

    def cut(state, path):
        save(state, path)
        if next(count) == nth:
            os.truncate(path, int(share * path.stat().st_size))
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = cut


@pytest.fixture(scope="module")
def processes():
    """Processes that start in milliseconds: forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["accelerate", "reidlib.data.batches",
                                    "reidlib.models.la_transformer", "reidlib.training.loop",
                                    "timm.optim", "timm.scheduler"])
    return context


@pytest.fixture(scope="module")
def uninterrupted(processes, tmp_path_factory):
    """What a run that nobody kills leaves, and how long it takes."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    for _ in range(2):  # the first also starts the server
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        start = time.perf_counter()
        result = finish(processes, folder)
    return result, time.perf_counter() - start


def finish(processes, folder):
    worker = processes.Process(target=run, args=(folder,))
    worker.start()
    worker.join(120)
    assert worker.exitcode == 0
    return torch.load(folder / "done.pt", weights_only=True)


def same(found, expected):
    assert found[0] == expected[0] and len(found[0]) == EPOCHS
    assert found[1].keys() == expected[1].keys()
    assert all(torch.equal(value, expected[1][name]) for name, value in found[1].items())
    assert torch.equal(found[2], expected[2])


def test_killed_at_ten_random_moments(processes, uninterrupted, tmp_path):
    expected, seconds = uninterrupted
    rng, reach = np.random.default_rng(int(time.time())), 0.6 * seconds
    moments, epochs = [], [0]
    for _ in range(10):
        moments.append(rng.random() * reach)
        worker = processes.Process(target=run, args=(tmp_path,))
        worker.start()
        worker.join(moments[-1])
        worker.kill()  # SIGKILL; nothing where it has ended by itself
        worker.join(30)
        path = tmp_path / "checkpoint.pt"
        epochs.append(len(read_checkpoint(path, KEY)["history"]) if path.exists() else 0)
        reach *= 1.0 if epochs[-1] else 1.2  # a machine that is busier now needs longer to start
    assert epochs == sorted(epochs), f"epochs were lost: {epochs}, killed after {moments}"
    assert any(0 < epoch < EPOCHS for epoch in epochs), f"never in between: {epochs}, {moments}"
    same(finish(processes, tmp_path), expected)
    assert not list(tmp_path.glob(".checkpoint.*"))  # what killed writers left is gone


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_killed_while_a_checkpoint_is_written(processes, uninterrupted, tmp_path, share):
    for nth in (0, 3):
        worker = processes.Process(target=run, args=(tmp_path, (nth, share)))
        worker.start()
        worker.join(120)
        assert worker.exitcode == -signal.SIGKILL
        assert (tmp_path / "checkpoint.pt").exists() == (nth > 0)
        assert len(list(tmp_path.glob(".checkpoint.*.partial.pt"))) == 1
    assert len(read_checkpoint(tmp_path / "checkpoint.pt", KEY)["history"]) == 3
    same(finish(processes, tmp_path), uninterrupted[0])
    assert not list(tmp_path.glob(".checkpoint.*"))


@pytest.fixture
def saved(make_model, tmp_path):
    model = make_model(4)
    path = tmp_path / "checkpoint.pt"
    state = TrainingState(model, make_optimiser(model, 1e-3, 1e-3, 0.0))
    state.save(path, KEY)
    return state, path


@pytest.mark.parametrize("key, message", [
    ({"configuration": "x", "data set": "b"}, r"another configuration \(a, this run's is x\)"),
    ({"configuration": "a", "data set": "y"}, r"another data set \(b, this run's is y\)"),
])
def test_a_foreign_checkpoint_is_refused_with_the_reason(saved, key, message):
    with pytest.raises(ValueError, match=f"{message}; delete it to start this run again"):
        saved[0].load(saved[1], key)


@pytest.mark.parametrize("damage", [lambda b: b[:1000], lambda b: b"", lambda b: b"no checkpoint",
                                    lambda b: b[:-200], lambda b: b[:5000] + b"x" + b[5001:]])
def test_a_damaged_checkpoint_is_refused(saved, damage):
    state, path = saved
    full = path.read_bytes()
    path.write_bytes(damage(full))
    before = [p.clone() for p in state.model.parameters()]
    with pytest.raises(ValueError, match="checkpoint.pt is damaged .*; delete it"):
        state.load(path, KEY)
    assert all(torch.equal(a, b) for a, b in
               zip(before, state.model.parameters(), strict=True))


def cut_weights(state):
    return {**state, "model": dict(list(state["model"].items())[1:])}


@pytest.mark.parametrize("change", [
    lambda state: [1, 2], lambda state: {**state, "key": None}, cut_weights,
    lambda state: {"key": KEY}, lambda state: {**state, "optimiser": {}},
    lambda state: {**state, "history": None}])
def test_a_file_that_holds_something_else_is_refused(saved, change):
    torch.save(change(torch.load(saved[1], weights_only=True)), saved[1])
    with pytest.raises(ValueError, match="checkpoint.pt is damaged .*; delete it"):
        saved[0].load(saved[1], KEY)


def test_a_folder_in_its_place_is_refused(saved):
    saved[1].unlink()
    saved[1].mkdir()
    with pytest.raises(ValueError, match="checkpoint.pt is damaged .*; delete it"):
        saved[0].load(saved[1], KEY)


class Runs:
    def __reduce__(self):
        return os.getcwd, ()


def test_code_in_a_checkpoint_is_refused_without_advice_to_run_it(saved):
    torch.save({"key": KEY, "model": Runs()}, saved[1])
    with pytest.raises(ValueError, match="is refused: .* could run code") as refused:
        saved[0].load(saved[1], KEY)
    assert "weights_only" not in str(refused.value)
