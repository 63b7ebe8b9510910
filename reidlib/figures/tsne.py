"""A gallery's embeddings as points (t-SNE), and how well they separate people."""

from math import ceil

import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from reidlib.figures.style import (
    INK,
    MARKERS,
    PALETTE,
    WIDTH,
    check_frame,
    in_order,
    sample,
    styled,
)
from reidlib.utils.text import percent

PEOPLE = [*PALETTE, "#332288", "#882255", "#000000", "#117733"]


def silhouette(emb: Float[np.ndarray, "image dim"], ids: np.ndarray) -> float:
    """Silhouette score of the identities under cosine distance, in [-1, 1].

    1: every identity is a far-off cluster; 0: they touch; below 0: mixed. At least 2 identities.
    Measured on the embeddings themselves, because distances on a t-SNE map mean nothing. NaN where
    every identity, or none, has a single image.
    """
    if not 1 < len(set(ids)) < len(ids):
        return float("nan")
    return float(silhouette_score(emb, ids, metric="cosine"))


def across_cameras(emb: Float[np.ndarray, "image dim"], ids: np.ndarray, cams: np.ndarray,
                   k: int = 5) -> float:
    """Share of images whose identity their ``k`` nearest images of other cameras vote for.

    By cosine distance, on the embeddings themselves; mean over images. NaN where for some camera
    the others have fewer than ``k`` images.
    """
    if len(cams) - pd.Series(cams).value_counts().max() < k:
        return float("nan")
    voters = KNeighborsClassifier(k, metric="cosine")
    votes = cross_val_predict(voters, emb, ids, groups=cams, cv=LeaveOneGroupOut())
    return float((votes == ids).mean())


def tsne_points(emb: Float[np.ndarray, "image dim"], ids: np.ndarray, cams: np.ndarray,
                perplexity: int | float = 20, seed: int = 0) -> pd.DataFrame:
    """Place embeddings on a plane (van der Maaten & Hinton 2008) by cosine distance.

    ``ids`` and ``cams`` are labels of any type, one per image. Returns columns ``x, y, id, cam``.
    One thread, because sums in another order give another map: the same seed on the same machine
    gives the same points.
    """
    if not 0 < perplexity < len(emb):
        raise ValueError(f"perplexity must be in (0, {len(emb)} images), got {perplexity}")
    tsne = TSNE(perplexity=perplexity, init="pca", metric="cosine", random_state=seed)
    with threadpool_limits(1):
        points = tsne.fit_transform(emb)
    return pd.DataFrame({"x": points[:, 0], "y": points[:, 1], "id": ids, "cam": cams})


def _map(ax: Axes, part: pd.DataFrame, colour: str, colours: dict, markers: dict) -> None:
    """One model's map: a point an image."""
    for (person, cam), group in part.groupby(["id", "cam"], observed=True):
        shade = colours[{"id": person, "cam": cam}[colour]]
        ax.plot(group["x"], group["y"], markers[cam], color=shade, ms=5, mec="white", mew=0.5)
    ax.margins(0.12)
    ax.set(xlabel="t-SNE 1", ylabel="t-SNE 2", xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")


def _name_people(ax: Axes, part: pd.DataFrame, colours: dict) -> None:
    """Write each identity next to one of its points, in a box with a line to it.

    The point is of the half that is nearest to the person's middle, not one far off.
    The box goes to the nearest place in the frame where it hides no point and no other box and its
    line crosses no box, or as little as possible where there is none. The layout must be done.
    """
    dots = ax.transData.transform(part[["x", "y"]])
    unit = ax.figure.dpi / 72  # pixels a point
    free = _Free(ax, dots, 4 * unit)
    for person, own in part.groupby("id", observed=True):
        colour = colours.get(person, INK)
        text = ax.text(0, 0, str(person), fontsize=8, ha="center", va="center", color=INK, zorder=4,
                       bbox={"boxstyle": "square,pad=0.15", "fc": "white", "ec": colour})
        size = np.array(text.get_window_extent().size) + 5 * unit
        mine = ax.transData.transform(own[["x", "y"]])
        far = np.linalg.norm(mine - np.median(mine, 0), axis=1)
        place, near = map(ax.transData.inverted().transform, free.take(
            mine[far <= np.median(far)], size))
        text.set_position(place)
        ax.annotate("", near, place, arrowprops={"arrowstyle": "-", "color": colour, "lw": 1,
                                                 "shrinkA": 0, "shrinkB": 3})


class _Free:
    """Places in a frame for boxes, in pixels; each one taken is hidden from those after it."""

    def __init__(self, ax: Axes, dots: Float[np.ndarray, "dot 2"], radius: float):
        self.frame, self.dots, self.radius = ax.get_window_extent(), dots, radius
        self.boxes: list[tuple[np.ndarray, np.ndarray]] = []  # centre, size

    def take(self, mine: Float[np.ndarray, "own 2"], size: Float[np.ndarray, "2"]
             ) -> tuple[np.ndarray, np.ndarray]:
        """Centre of the best place for a box of that size, and that of ``mine`` it is nearest."""
        low, high = self.frame.min + size / 2, self.frame.max - size / 2
        grid = np.meshgrid(*(np.linspace(a, b, 40) for a, b in zip(low, high, strict=True)))
        places = np.stack(grid, axis=-1).reshape(-1, 2)
        far = np.linalg.norm(places[:, None] - mine, axis=-1)
        near = mine[far.argmin(1)]
        lines = places + np.linspace(0, 1, 40)[:, None, None] * (near - places)
        hidden = self._inside(places, self.dots, size / 2 + self.radius)
        for centre, other in self.boxes:
            hidden += 100 * self._inside(places, centre[None], (size + other) / 2)
            hidden += (np.abs(lines - centre) < other / 2).all(-1).any(0)
        best = (far.min(1) + hidden * np.ptp(self.frame.get_points())).argmin()
        self.boxes.append((places[best], size))
        self.dots = np.concatenate([self.dots, lines[:, best]])  # nor does a later box hide it
        return places[best], near[best]

    @staticmethod
    def _inside(places: np.ndarray, points: np.ndarray, half: np.ndarray) -> np.ndarray:
        """How many of ``points`` a box with those half sides covers at each place."""
        return (np.abs(places[:, None] - points) < half).all(-1).sum(1)


@styled
def tsne_panel(points: pd.DataFrame, subtitle: str = "", colour: str = "id") -> Figure:
    """t-SNE maps of models, two to a row, coloured by ``id`` or ``cam``; cameras by marker too.

    Columns: ``model, x, y, id, cam, silhouette, across_cameras`` (one value each per model).
    ``subtitle`` is for what the maps depend on, such as perplexity and seed. Each identity is
    written next to one of its points.
    """
    columns = ["model", "x", "y", "id", "cam", "silhouette", "across_cameras"]
    check_frame(points, key=[], others=columns)
    models, cams = in_order(points["model"]), sorted(points["cam"].unique().tolist())
    if len(cams) > len(MARKERS):
        raise ValueError(f"{len(cams)} cameras, but only {len(MARKERS)} markers")
    seen = sorted(points[colour].unique().tolist())
    palette = PEOPLE if len(seen) <= len(PEOPLE) else sns.color_palette("husl", len(seen)).as_hex()
    colours = dict(zip(seen, palette, strict=False))
    markers = dict(zip(cams, MARKERS, strict=False))
    columns = min(len(models), 2)
    rows = ceil(len(models) / columns)
    fig, axes = plt.subplots(rows, columns, squeeze=False,
                             figsize=(WIDTH * columns / 2, 3.6 * rows + 0.6))
    for ax, model in zip(axes.flat, models, strict=False):
        part = points[points["model"] == model]
        scores = part[["silhouette", "across_cameras"]].drop_duplicates()
        if len(scores) != 1:
            raise ValueError(f"scores of {model} must be one value each, found\n{scores}")
        _map(ax, part, colour, colours, markers)
        ax.set_title(f"{model}\nsilhouette {scores['silhouette'].iloc[0]:.2f}, "
                     f"5-NN {percent(scores['across_cameras'].iloc[0])} %", fontsize=10.5)
    for ax in axes.flat[len(models):]:
        ax.remove()
    fig.legend([sample(marker=m, color=colours[cam] if colour == "cam" else INK)
                for cam, m in markers.items()], [f"camera {cam}" for cam in cams],
               loc="outside lower center", ncols=2 * columns)
    if subtitle:
        fig.suptitle(subtitle, fontsize=10)
    fig.draw_without_rendering()  # the layout: boxes are placed in pixels
    for ax, model in zip(fig.axes, models, strict=True):
        _name_people(ax, points[points["model"] == model], colours if colour == "id" else {})
    return fig
