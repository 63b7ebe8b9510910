"""A line a loss, with the numbers that were given."""

import numpy as np
import pandas as pd
import pytest

from reidlib.figures.margins import loss_by_angle
from tests.figures.conftest import nothing_is_cut_off


def test_each_loss_has_its_logits_left_and_its_losses_right():
    angle = np.arange(0, 181, 10)
    curves = pd.concat([pd.DataFrame({"name": name, "angle": angle, "logit": -k * angle,
                                      "loss": k + angle ** 2})
                        for k, name in enumerate(["softmax", "AM-Softmax", "A-Softmax"])])
    fig = loss_by_angle(curves)
    for ax, column in zip(fig.axes, ("logit", "loss"), strict=True):
        assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines}) == 3
        for line in ax.lines:
            own = curves[curves["name"] == line.get_label()]
            np.testing.assert_array_equal(line.get_xdata(), angle)
            np.testing.assert_array_equal(line.get_ydata(), own[column])
    names = [text.get_text() for text in fig.legends[0].get_texts()]
    assert names == ["softmax", "AM-Softmax", "A-Softmax"]
    assert nothing_is_cut_off(fig)
    labels = fig.axes[0].xaxis.label.get_window_extent()
    assert not labels.overlaps(fig.legends[0].get_window_extent())
    assert not labels.overlaps(fig.axes[1].xaxis.label.get_window_extent())


def test_two_values_at_one_angle_are_refused():
    twice = pd.DataFrame({"name": "softmax", "angle": [1, 1], "logit": 0, "loss": 0})
    with pytest.raises(ValueError, match="more than one row"):
        loss_by_angle(twice)
