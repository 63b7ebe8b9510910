"""Two processes on the CPU (gloo) against one: the same loss, weights and files."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from reidlib.data.batches import Batches, IdentitySampler, ShuffleSampler
from reidlib.experiments.presets import make_config
from reidlib.experiments.study import load_study
from reidlib.experiments.train import build_model
from reidlib.losses import ReidLoss
from reidlib.training.loop import TrainingOptions, fit
from reidlib.training.optimisers import blockwise, constant, make_optimiser
from reidlib.utils import distributed
from reidlib.utils.paths import ROOT

CPU = torch.device("cpu")
N, IDENTITIES = 96, 24  # three batches of 32: three steps
CASES = [("end-to-end", "identities"), ("blockwise", "identities"), ("end-to-end", "shuffled", 2)]


def three_steps(schedule: str, sampler: str, accumulate: int = 1):
    """Train on seeded images; (history, weights)."""
    study = load_study("smoke")
    backbone = {key: study.train[key] for key in ("backbone", "backbone_args", "pretrained",
                                                  "image_size")}
    # without a bias of the keys: attention ignores it, so that its gradient is rounding alone,
    # which Adam makes as large as any other
    backbone["backbone_args"] = {**backbone["backbone_args"], "qkv_bias": False}
    config = make_config("improved", 0, {**backbone, "schedule": schedule})
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (N, 3, 64, 64), np.uint8))
    ids = torch.arange(N) % IDENTITIES
    model = build_model(config, pd.DataFrame({"id": range(IDENTITIES)}))
    optimiser = make_optimiser(model, 1e-3, 1e-3, 5e-4)
    if sampler == "identities":
        order = IdentitySampler(ids.numpy(), 8 // accumulate, 4, 0, distributed.n_processes())
    else:
        order = ShuffleSampler(N, 32 // accumulate, 0)
    # erased parts too: what is drawn for an image does not depend on the number of processes
    batches = Batches(images, ids, order, CPU, erasing=0.5, share=distributed.share)
    frozen = schedule == "blockwise"
    schedule = blockwise(model, optimiser, every=1) if frozen else constant
    with distributed.accelerated(CPU, may_freeze=frozen) as accelerator:
        history = fit(model, batches.epoch, ReidLoss(0.35, 10.0, 0.3), optimiser, 1 + frozen,
                      TrainingOptions(schedule, accumulate), accelerator=accelerator)
    return history, {name: value.numpy() for name, value in model.state_dict().items()}


def work(rank, port, results):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                   "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                   "ACCELERATE_USE_CPU": "true", "REIDLIB_HEADLESS": "1"}
    distributed.join_processes(CPU)
    results.put((rank, distributed.n_processes(), distributed.is_main(),
                 [three_steps(*args) for args in CASES]))
    distributed.wait_for_all()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def in_two_processes():
    """What each of two processes found: rank, processes, whether it is the main one, the cases."""
    context = multiprocessing.get_context("spawn")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = context.Queue()
    workers = [context.Process(target=work, args=(rank, port, results)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    found = sorted((results.get(timeout=120) for _ in workers), key=lambda result: result[0])
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    return found


def test_two_processes_know_who_they_are(in_two_processes):
    assert [found[:3] for found in in_two_processes] == [(0, 2, True), (1, 2, False)]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_two_processes_of_16_images_equal_one_of_32(case, in_two_processes):
    history, weights = three_steps(*CASES[case])
    for *_, cases in in_two_processes:
        other, found = cases[case]
        assert len(other) == len(history) and other[0]["images"] == history[0]["images"] == N
        for row, own in zip(other, history, strict=True):
            for name in ("loss", "identity", "triplet", "accuracy"):
                assert row[name] == pytest.approx(own[name], abs=1e-5, rel=1e-6)
            assert row["gradient_norm"] == pytest.approx(own["gradient_norm"], rel=1e-3)
        for name, value in weights.items():  # batch normalisation's statistics among them
            np.testing.assert_allclose(found[name], value, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("stops", [False, True])
def test_accelerates_state_is_put_back(monkeypatch, stops):
    """Its precision is one for a process; another user of accelerate keeps his own."""
    states = (AcceleratorState, GradientState, PartialState)
    for state in states:
        monkeypatch.setattr(state, "_shared_state", {})
    variables = dict(os.environ)
    own = Accelerator(cpu=True, gradient_accumulation_steps=3)
    before = [dict(state._shared_state) for state in states]
    try:
        with distributed.accelerated(CPU, "bf16") as accelerator:
            assert accelerator.mixed_precision == "bf16"
            if stops:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert stops
    assert [state._shared_state for state in states] == before
    assert own.mixed_precision == "no" and own.gradient_accumulation_steps == 3
    assert dict(os.environ) == variables


def test_where_nobody_used_accelerate_no_state_is_left(monkeypatch):
    for state in (AcceleratorState, GradientState, PartialState):
        monkeypatch.setattr(state, "_shared_state", {})
    distributed.join_processes(CPU)
    with distributed.accelerated(CPU, "bf16"), distributed.accelerated(CPU) as inner:
        assert inner.mixed_precision == "no"
    assert not (AcceleratorState._shared_state or PartialState._shared_state
                or GradientState._shared_state)


def test_identities_are_never_split_and_every_image_has_a_process(monkeypatch):
    ids = np.repeat(np.arange(7), 4)
    monkeypatch.setattr(distributed, "n_processes", lambda: 2)
    for batch in IdentitySampler(ids, 4, 4, 0, n_processes=2).batches(0):
        shares = []
        for rank in (0, 1):
            monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
            monkeypatch.setattr(distributed.dist, "get_rank", lambda rank=rank: rank)
            shares.append(batch[distributed.share(len(batch))])
            assert all((ids[shares[-1]] == i).sum() in (0, 4) for i in range(7))
        assert np.concatenate(shares).tolist() == batch.tolist()
    with pytest.raises(ValueError, match="33 images cannot be split evenly over 2 processes"):
        distributed.share(33)


def test_the_command_line_trains_one_run_in_two_processes(tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu",
               "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
               "--dynamo_backend", "no", "--main_process_port", "0", "-m", "reidlib",
               "run", "--study", "smoke", "--preset", "improved", "--seed", "0", "--device", "cpu",
               "--workspace", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False,
                          timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("improved-s0")]
    assert len(lines) == 3 and "training, epoch 1 to 1" in lines[0]
    assert "epoch 1/1" in lines[1] and "standard mAP" in lines[2]
    record = json.loads((tmp_path / "reports/smoke/runs/improved-s0/run.json").read_text())
    assert record["cost"]["processes"] == 2 and not list(tmp_path.rglob("*.partial*"))
