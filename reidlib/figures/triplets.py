"""The distances in a batch, and the pairs that the batch-hard triplet picks from them."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from reidlib.figures.style import styled

POSITIVE = {"marker": "o", "color": "#1b9e77", "label": "farthest image of the same person"}
NEGATIVE = {"marker": "X", "color": "#d95f02", "label": "nearest image of another person"}
BETWEEN = {"color": "#56b4e9", "lw": 1.2}


@styled
def distance_matrix(dist: Float[np.ndarray, "batch batch"], ids: Sequence[str],
                    positive: Int[np.ndarray, "batch"], negative: Int[np.ndarray, "batch"]
                    ) -> Figure:
    """All distances in a batch; in each anchor's row its hardest positive and hardest negative.

    ``positive``, ``negative``: the column of that image. The images of one person stand side by
    side; blue lines are between people.
    """
    starts = [i for i, (left, right) in enumerate(pairwise(ids), 1) if left != right]
    fig, ax = plt.subplots(figsize=(6.2, 5.8))
    drawn = ax.imshow(dist, cmap="Greys_r", interpolation="nearest")
    for start in starts:
        ax.axhline(start - 0.5, **BETWEEN)
        ax.axvline(start - 0.5, **BETWEEN)
    for columns, look in ((positive, POSITIVE), (negative, NEGATIVE)):
        ax.scatter(columns, range(len(columns)), s=38, edgecolors="white", linewidths=0.6, **look)
    ends = np.array([0, *starts, len(ids)])
    people = [ids[start] for start in ends[:-1]]
    middle = (ends[:-1] + ends[1:] - 1) / 2
    ax.set_xticks(middle, people, rotation=90 if max(map(len, people)) > 4 else 0)
    ax.set_yticks(middle, people)
    ax.set(xlabel="person of the other image", ylabel="person of the anchor")
    ax.grid(False)
    fig.colorbar(drawn, label="distance of the embeddings", shrink=0.8)
    fig.legend(loc="outside lower center", ncols=2)
    return fig
