"""A gallery's embeddings as points (t-SNE), and how well they separate people."""

import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from reidlib.figures.style import INK, MARKERS, PALETTE, check_frame, in_order, styled
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

    By cosine distance, on the embeddings themselves; mean over images. NaN where some camera is
    alone or sees fewer than ``k`` others.
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
    """One model's map, with each identity's number above its uppermost point."""
    for (person, cam), group in part.groupby(["id", "cam"], observed=True):
        shade = colours[{"id": person, "cam": cam}[colour]]
        ax.plot(group["x"], group["y"], markers[cam], color=shade, ms=5, mec="white", mew=0.5)
    halo = [withStroke(linewidth=2.5, foreground="white")]
    for person, group in part.groupby("id", observed=True):
        top = group.iloc[group["y"].argmax()]
        ax.annotate(str(person), (top["x"], top["y"]), xytext=(0, 4), textcoords="offset points",
                    ha="center", fontsize=9, weight="bold", color=INK, path_effects=halo)
    ax.margins(0.09)
    ax.set(xlabel="t-SNE 1", ylabel="t-SNE 2", xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")


@styled
def tsne_panel(points: pd.DataFrame, subtitle: str = "", colour: str = "id") -> Figure:
    """t-SNE maps of models side by side, coloured by ``id`` or ``cam``; cameras by marker too.

    Columns: ``model, x, y, id, cam, silhouette, across_cameras`` (one value each per model).
    ``subtitle`` is for what the maps depend on, such as perplexity and seed.
    """
    columns = ["model", "x", "y", "id", "cam", "silhouette", "across_cameras"]
    check_frame(points, key=[], others=columns)
    models = in_order(points["model"])
    people, cams = (sorted(points[name].unique().tolist()) for name in ("id", "cam"))
    if len(cams) > len(MARKERS):
        raise ValueError(f"{len(cams)} cameras, but only {len(MARKERS)} markers")
    seen = people if colour == "id" else cams
    palette = PEOPLE if len(seen) <= len(PEOPLE) else sns.color_palette("husl", len(seen)).as_hex()
    colours = dict(zip(seen, palette, strict=False))
    markers = dict(zip(cams, MARKERS, strict=False))
    width = 2.5 * len(models) + 0.4
    fig, axes = plt.subplots(1, len(models), squeeze=False, figsize=(width, 3.9))
    for ax, model in zip(axes[0], models, strict=True):
        part = points[points["model"] == model]
        scores = part[["silhouette", "across_cameras"]].drop_duplicates()
        if len(scores) != 1:
            raise ValueError(f"scores of {model} must be one value each, found\n{scores}")
        _map(ax, part, colour, colours, markers)
        ax.set_title(f"{model}\nsilhouette {scores['silhouette'].iloc[0]:.2f}, "
                     f"5-NN {percent(scores['across_cameras'].iloc[0])} %", fontsize=10.5)
    handles = [Line2D([], [], ls="none", marker=m, label=f"camera {cam}",
                      color=colours[cam] if colour == "cam" else INK)
               for cam, m in markers.items()]
    if colour == "id":
        handles += [Line2D([], [], ls="none", marker="o", color=c, label=f"id {person}")
                    for person, c in colours.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=max(3, int(width)),
               columnspacing=1, handletextpad=0.1)
    if subtitle:
        fig.suptitle(subtitle, fontsize=10)
    return fig
