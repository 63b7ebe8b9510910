import pandas as pd
import pytest
from matplotlib.colors import to_hex

from reidlib.figures.person_distances import person_distances
from reidlib.figures.style import GREY


@pytest.mark.parametrize("own, marks", [("064", ["b", "a", ""]), ("063", ["b", "", "a"])])
def test_the_own_person_is_a_and_the_nearest_other_one_b(own, marks):
    """Sorted by distance: 065, 064, 063."""
    ax = person_distances(pd.Series({"063": 0.9, "064": 0.5, "065": 0.2}), own).axes[0]
    assert [bar.get_height() for bar in ax.patches] == [0.2, 0.5, 0.9]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["065", "064", "063"]
    assert [text.get_text() for text in ax.texts] == marks
    grey = [to_hex(bar.get_facecolor()) == GREY for bar in ax.patches]
    assert grey == [not mark for mark in marks]
