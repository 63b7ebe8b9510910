"""Which layers of a model learn in which epoch, and how fast."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from reidlib.figures.style import WIDTH, check_frame, in_order, styled

FROZEN = "#d0d0d0"


@styled
def learning_rates(table: pd.DataFrame) -> Figure:
    """The learning rate of each layer in each epoch; grey where it is frozen. A panel a schedule.

    Columns: ``schedule, layer, epoch, rate`` (NaN where frozen), drawn in percent of the largest
    rate; the first layer is at the bottom.
    """
    check_frame(table, ["schedule", "layer", "epoch"], others=["rate"])
    names, layers = in_order(table["schedule"]), in_order(table["layer"])
    fig, axes = plt.subplots(1, len(names), squeeze=False, sharey=True,
                             figsize=(WIDTH, 0.19 * len(layers) + 1.1))
    colours = colormaps["viridis"].with_extremes(bad=FROZEN)
    for ax, name in zip(axes[0], names, strict=True):
        own = table[table["schedule"] == name].pivot(index="layer", columns="epoch", values="rate")
        grid = 100 * own.loc[layers] / table["rate"].max()
        drawn = ax.pcolormesh(np.arange(grid.shape[1] + 1) - 0.5, np.arange(len(layers) + 1),
                              np.ma.masked_invalid(grid), cmap=colours, edgecolors="white",
                              linewidth=0.3, vmin=0, vmax=100)
        ax.set(title=name, xlabel="epoch")
        ax.set_yticks(np.arange(len(layers)) + 0.5, layers, fontsize=8.5)
        ax.grid(False)
    fig.colorbar(drawn, ax=axes[0], label="learning rate, percent (grey: frozen)")
    return fig
