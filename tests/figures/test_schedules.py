"""A cell an epoch and layer: its rate, or grey."""

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba

from reidlib.figures.schedules import FROZEN, learning_rates


def test_cells_are_rates_in_percent_of_the_largest_and_grey_where_frozen():
    rates = {"paper": [[np.nan, np.nan, 1e-4], [4e-4, 2e-4, 1e-4]],
             "public-code": [[2e-4, 1e-4, 1e-4], [2e-4, 1e-4, 1e-4]]}
    table = pd.DataFrame([(name, layer, epoch, rate) for name, grid in rates.items()
                          for layer, line in zip(("blocks", "classifiers"), grid, strict=True)
                          for epoch, rate in enumerate(line)],
                         columns=["schedule", "layer", "epoch", "rate"])
    fig = learning_rates(table)
    *panels, bar = fig.axes
    for ax, (name, grid) in zip(panels, rates.items(), strict=True):
        assert ax.get_title() == name
        mesh, = ax.collections
        drawn = mesh.get_array().reshape(2, 3)
        np.testing.assert_allclose(drawn.filled(np.nan), np.array(grid) / 4e-6)
        assert mesh.get_clim() == (0, 100)
    colours = panels[0].collections[0].get_facecolor().reshape(2, 3, 4)
    assert [tuple(c) == to_rgba(FROZEN) for c in colours[0]] == [True, True, False]
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["blocks", "classifiers"]
    assert "percent" in bar.get_ylabel()
