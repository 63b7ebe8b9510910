"""One small study with all its runs, made once for all tests of experiments."""

import shutil
from dataclasses import replace

import pytest

from reidlib.experiments.prepare import prepare_study
from reidlib.experiments.runner import Experiment
from reidlib.experiments.study import load_study
from reidlib.utils.paths import Workspace


@pytest.fixture(scope="session")
def study():
    smoke = load_study("smoke")
    return replace(smoke, train={**smoke.train, "epochs": 2})


@pytest.fixture(scope="session")
def lab(study, tmp_path_factory):
    """All runs of the smoke study, finished."""
    workspace = Workspace("smoke", tmp_path_factory.mktemp("workspace"))
    prepare_study(study, workspace)
    lab = Experiment(workspace, "cpu")
    lab.train_all(study.all_presets)
    return lab


@pytest.fixture
def copied(lab, tmp_path):
    """The same with all its files, to be damaged."""
    shutil.copytree(lab.workspace.root, tmp_path / "copy")
    return Experiment(Workspace("smoke", tmp_path / "copy"), "cpu")
