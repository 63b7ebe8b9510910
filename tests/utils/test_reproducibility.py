"""The state of random generators and of torch's algorithms is put back."""

import os
import random

import numpy as np
import pytest
import torch

from reidlib.utils import reproducibility


def test_random_state_is_put_back():
    reproducibility.seed_globals(5)
    state = reproducibility.random_state()

    def draw():
        return random.random(), np.random.random(), torch.rand(3).tolist()  # noqa: NPY002

    first = draw()
    assert draw() != first
    reproducibility.set_random_state(state)
    assert draw() == first


def test_only_exact_algorithms_within_the_block():
    assert not torch.are_deterministic_algorithms_enabled()
    with reproducibility.algorithms(True):
        assert torch.are_deterministic_algorithms_enabled()
        with reproducibility.algorithms(False):  # what somebody else asked for stays
            assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(RuntimeError), reproducibility.algorithms(True):
        raise RuntimeError
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_devices_by_name(monkeypatch):
    assert reproducibility.pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert reproducibility.pick_device() == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")  # of several processes each has its own
    assert reproducibility.pick_device() == torch.device("cuda:1")
    with pytest.raises(ValueError, match="'cuda:9' asked for, but there are only 2 CUDA devices"):
        reproducibility.pick_device("cuda:9")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert reproducibility.pick_device() == torch.device("cpu")
    with pytest.raises(ValueError, match="device 'cuda:3' asked for, but torch .* sees no CUDA"):
        reproducibility.pick_device("cuda:3")
    with pytest.raises(ValueError, match="unknown device 'gpu'; use auto, cpu, cuda or cuda:<n>"):
        reproducibility.pick_device("gpu")
