"""How far one image is from each person's images: what its silhouette is made of."""

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from reidlib.figures.style import GREY, PALETTE, WIDTH, check_frame, styled


@styled
def person_distances(distances: pd.Series, own: str) -> Figure:
    """Mean distance of one image to the images of each person (index), the nearest on the left.

    ``own``: the person that it shows, *a*; the nearest other person is *b*.
    """
    check_frame(distances.to_frame("distance"), [], others=["distance"])
    ordered = distances.sort_values(kind="stable")
    nearest = ordered.drop(own).index[0]
    marked = {own: ("a", PALETTE[2]), nearest: ("b", PALETTE[3])}
    fig, ax = plt.subplots(figsize=(WIDTH, 3))
    bars = ax.bar(range(len(ordered)), ordered, width=0.7,
                  color=[marked.get(name, ("", GREY))[1] for name in ordered.index])
    ax.bar_label(bars, [marked.get(name, ("", GREY))[0] for name in ordered.index], padding=2,
                 fontsize=12, weight="bold")
    ax.set_xticks(range(len(ordered)), ordered.index)
    ax.set(xlabel="person (id)", ylabel="mean cosine distance")
    ax.margins(y=0.15)
    ax.grid(False, axis="x")
    return fig
