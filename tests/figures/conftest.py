import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.transforms import Bbox

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


def ticks(axis):
    """What one reads along an axis: place -> label."""
    low, high = sorted(axis.get_view_interval())
    labels = zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=True)
    return {float(place): label.get_text() for place, label in labels
            if low - 1e-9 <= place <= high + 1e-9}


def nothing_is_cut_off(fig):
    box, (width, height) = fig.get_tightbbox(), fig.get_size_inches()
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def overlaps(boxes):
    """Pairs of boxes that share some area."""
    return [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]
            if (shared := Bbox.intersection(a, b)) and shared.width > 0.5 and shared.height > 0.5]


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    return pd.DataFrame([
        {"row": row, "protocol": protocol, "seed": seed, "mAP": low + rng.uniform(0, 0.1),
         "rank1": low + rng.uniform(0, 0.1)}
        for row in ROWS for protocol, low in (("lat-top10", 0.9), ("standard", 0.4))
        for seed in range(3)])
