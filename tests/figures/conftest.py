import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from reidlib.figures.curves import ablation_bars

ROWS = ["baseline", "+ y-pooling", "+ flipped query"]


@pytest.fixture(autouse=True)
def close_figures():
    matplotlib.use("agg")
    yield
    plt.close("all")


def bars(scores, paper=None, ends=None):
    """The ablation; without intervals unless they are given."""
    nothing = pd.DataFrame(columns=["row", "protocol", "low", "high"])
    return ablation_bars(scores, nothing if ends is None else ends, paper)


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    return pd.DataFrame([
        {"row": row, "protocol": protocol, "seed": seed, "mAP": low + rng.uniform(0, 0.1),
         "rank1": low + rng.uniform(0, 0.1)}
        for row in ROWS for protocol, low in (("lat-top10", 0.9), ("standard", 0.4))
        for seed in range(3)])
