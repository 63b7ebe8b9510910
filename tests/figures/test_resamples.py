"""One comparison, drawn: the bars are the people's, the histograms hold every resample."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from reidlib.figures.resamples import (
    DOWN,
    UP,
    drawn_people,
    flipped_differences,
    flipped_signs,
    resampled_differences,
)
from tests.figures.conftest import nothing_is_cut_off


@pytest.fixture
def people():
    return pd.DataFrame({"id": ["063", "064", "065"], "gain": [0.2, -0.1, 0.05],
                         "times": [2, 0, 1], "share": [0.05, -0.02, 0.01], "sign": [1, -1, 1]})


def heights(ax):
    return [bar.get_height() for bar in ax.patches]


def test_people_are_shown_with_their_gain_and_their_times(people):
    fig = drawn_people(people)
    above, below = fig.axes
    assert heights(above) == [0.2, -0.1, 0.05] and heights(below) == [2, 0, 1]
    assert [to_hex(bar.get_facecolor()) for bar in above.patches] == [UP, DOWN, UP]
    assert [bar.get_alpha() for bar in above.patches] == [1, 0.3, 1]  # 064 was not drawn
    assert [label.get_text() for label in below.get_xticklabels()] == ["063", "064", "065"]
    assert "20.0" in [label.get_text() for label in above.get_yticklabels()]  # percentage points


def test_more_people_than_fit_have_no_names():
    many = pd.DataFrame({"id": [f"{i:04d}" for i in range(40)], "gain": 0.1, "times": 1})
    assert len(drawn_people(many).axes[1].get_xticks()) == 0


def test_the_histogram_holds_every_resample_below_the_intervals():
    differences = np.random.default_rng(0).normal(0.02, 0.01, 1000)
    given = pd.DataFrame({"name": ["t interval", "percentiles"], "low": [-0.01, 0.0],
                          "high": [0.05, 0.04]})
    fig = resampled_differences(differences, 0.02, given)
    above, below = fig.axes
    assert sum(heights(below)) == 1000
    edges = [bar.get_x() for bar in below.patches]
    assert min(edges) == pytest.approx(differences.min())
    assert [[*line.get_xdata()] for line in above.lines[:2]] == [[-0.01, 0.05], [0.0, 0.04]]
    assert [label.get_text() for label in above.get_yticklabels()] == ["t interval", "percentiles"]
    assert [line.get_xdata()[0] for line in below.lines] == [0.02, 0]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["difference seen",
                                                                        "no difference"]


def test_flipped_bars_add_up_to_the_number_above_them(people):
    first, second = flipped_signs(people).axes
    assert heights(first) == [0.05, -0.02, 0.01] and heights(second) == [0.05, 0.02, 0.01]
    assert first.get_title() == "as measured: difference of mAP +4.0"
    assert second.get_title() == "1 of 3 signs flipped: difference of mAP +8.0"
    assert [bool(bar.get_hatch()) for bar in second.patches] == [False, True, False]
    assert not any(bar.get_hatch() for bar in first.patches)


def test_patterns_at_least_as_far_stand_out():
    """-2, -1, 0, 1, 2 with 1 as seen: all but the 0, the one that was seen among them."""
    fig = flipped_differences(np.array([-0.02, -0.01, 0.0, 0.01, 0.02]), -0.01)
    near, far = fig.axes[0].containers
    assert sum(bar.get_height() for bar in near) == 1 and sum(bar.get_height() for bar in far) == 4
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [
        "nearer to 0", "at least as far: 4 of 5"]
    assert [line.get_xdata()[0] for line in fig.axes[0].lines] == [-0.01, 0.01]


def test_nothing_is_cut_off(people):
    differences = np.linspace(-0.1, 0.1, 50)
    intervals = pd.DataFrame({"name": ["t interval"], "low": [0.0], "high": [0.1]})
    for fig in (drawn_people(people), flipped_signs(people), flipped_differences(differences, 0.05),
                resampled_differences(differences, 0.05, intervals)):
        assert nothing_is_cut_off(fig)
        assert fig.axes[-1].get_xlabel()


def test_missing_columns_are_named(people):
    with pytest.raises(ValueError, match=r"missing columns \['times'\]"):
        drawn_people(people.drop(columns="times"))
    with pytest.raises(ValueError, match=r"missing columns \['sign'\]"):
        flipped_signs(people.drop(columns="sign"))
