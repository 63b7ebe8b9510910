"""Marks lie on the pairs that the triplet loss uses."""

import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from reidlib.figures.triplets import BETWEEN, NEGATIVE, POSITIVE, distance_matrix
from reidlib.losses import batch_hard_triplet


def points(ax, look):
    """(anchor, column) of the marks of one kind."""
    marks, = [c for c in ax.collections if c.get_label() == look["label"]]
    assert to_hex(marks.get_facecolor()[0]) == look["color"]
    return [(int(y), int(x)) for x, y in marks.get_offsets()]


def test_the_marked_distances_give_the_loss():
    ids, emb = torch.tensor([4, 4, 4, 1, 1, 1, 2, 2, 2]), torch.randn(9, 5)
    dist, same = torch.cdist(emb, emb), ids[:, None] == ids
    positive = dist.masked_fill(~same, -math.inf).argmax(1).numpy()
    negative = dist.masked_fill(same, math.inf).argmin(1).numpy()
    people = [f"00{i}" for i in ids.tolist()]
    fig = distance_matrix(dist.numpy(), people, positive, negative)
    ax, bar = fig.axes
    np.testing.assert_array_equal(ax.images[0].get_array(), dist)
    pairs = zip(points(ax, POSITIVE), points(ax, NEGATIVE), strict=True)
    costs = [float(dist[p] - dist[n]) + 0.3 for p, n in pairs]
    assert len(costs) == 9
    assert np.maximum(costs, 0).mean() == pytest.approx(batch_hard_triplet(emb, ids).item(), 1e-5)
    lines = {line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1}
    assert lines >= {2.5, 5.5} and {line.get_color() for line in ax.lines} == {BETWEEN["color"]}
    for ticks in (ax.get_xticks(), ax.get_yticks()):
        assert list(ticks) == [1, 4, 7]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["004", "001", "002"]


@pytest.mark.parametrize("name, rotation", [("001", 0), ("anna-maria", 90)])
def test_long_names_stand_upright(name, rotation):
    fig = distance_matrix(np.zeros((2, 2), np.float32), [name, "b"], np.array([0, 1]),
                          np.array([1, 0]))
    assert {text.get_rotation() for text in fig.axes[0].get_xticklabels()} == {rotation}
