"""What a margin does to a loss, angle by angle."""

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from reidlib.figures.style import LINES, PALETTE, WIDTH, check_frame, in_order, styled


@styled
def loss_by_angle(curves: pd.DataFrame) -> Figure:
    """Logit of the true person, and the loss, against the angle: a line a loss.

    Columns: ``name, angle`` (degrees, between a feature and its true person's class weight),
    ``logit, loss``.
    """
    check_frame(curves, ["name", "angle"], others=["logit", "loss"])
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.2))
    for ax, column, label in zip(axes, ("logit", "loss"),
                                 ("logit of the true person", "loss of one part"), strict=True):
        for i, name in enumerate(in_order(curves["name"])):
            own = curves[curves["name"] == name]
            ax.plot(own["angle"], own[column], color=PALETTE[i], ls=LINES[i], label=name)
        ax.set(xlabel="angle to the true person (degrees)", ylabel=label, xlim=(0, 180),
               xticks=range(0, 181, 45))
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig
