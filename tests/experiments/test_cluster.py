"""Runs on a cluster's workers: those of one machine here, in processes of their own."""

import os
import signal
import time
from threading import Thread

import joblib
import pytest

from reidlib.experiments.prepare import prepare_study
from reidlib.experiments.runner import Experiment
from reidlib.utils.paths import Workspace

distributed = pytest.importorskip("distributed")


def kill_one(cluster, workspace):
    """Kill a worker as soon as a run has done its first epoch of two."""
    while not list(workspace.artifacts.glob("*/checkpoint.pt")):
        time.sleep(0.01)
    os.kill(cluster.workers[0].pid, signal.SIGKILL)


def test_a_study_is_complete_though_a_worker_is_killed(study, lab, tmp_path):
    workspace = Workspace("smoke", tmp_path)
    prepare_study(study, workspace)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None,
                                  local_directory=tmp_path) as cluster:
        before = set(cluster.scheduler.workers)
        Thread(target=kill_one, args=(cluster, workspace), daemon=True).start()
        with distributed.Client(cluster), joblib.parallel_config(backend="dask"):
            records = Experiment(workspace, "cpu").train_all(["baseline", "improved"])
        assert len(before) == 2 and len(before - set(cluster.scheduler.workers)) == 1
    for record in records:
        assert record["scores"] == lab.run(record["preset"], 0)["scores"]
        assert record["folder"] == workspace.runs / f"{record['preset']}-s0"
