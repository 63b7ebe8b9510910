"""A gallery to look at: as points (t-SNE of its embeddings) and as pictures (sample, ranked list).

Pictures of real people go to ``Workspace.people``, which git ignores: that is the caller's duty.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from textwrap import fill

import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float, UInt8
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from reidlib.metrics import average_precision
from reidlib.results import percent
from reidlib.retrieval import Ranking
from reidlib.style import INK, MARKERS, PALETTE, WIDTH, check_frame, in_order, styled

Picture = UInt8[np.ndarray, "_ _ 3"]
RIGHT, WRONG = PALETTE[2], PALETTE[3]  # a green and a red that the colour-blind can tell apart
LINE = 0.16  # inches, height of one line of a label
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
    right = []
    for cam in np.unique(cams):
        own = cams == cam
        if (~own).sum() < k:
            return float("nan")
        voters = KNeighborsClassifier(k, metric="cosine").fit(emb[~own], ids[~own])
        right.append(voters.predict(emb[own]) == ids[own])
    return float(np.concatenate(right).mean())


def tsne_points(emb: Float[np.ndarray, "image dim"], ids: np.ndarray,
                cams: np.ndarray, perplexity: int | float = 20,
                seed: int = 0) -> pd.DataFrame:
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


def _identity_colours(ids: Sequence[int]) -> dict[int, str]:
    palette = PEOPLE if len(ids) <= len(PEOPLE) else sns.color_palette("husl", len(ids)).as_hex()
    return dict(zip(ids, palette, strict=False))


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
    check_frame(points, ["model", "x", "y", "id", "cam", "silhouette", "across_cameras"])
    models = in_order(points["model"])
    people, cams = (sorted(points[name].unique().tolist()) for name in ("id", "cam"))
    if len(cams) > len(MARKERS):
        raise ValueError(f"{len(cams)} cameras, but only {len(MARKERS)} markers")
    colours = _identity_colours(people if colour == "id" else cams)
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


def _wrap(label: str, cell: float) -> str:
    """Break ``label`` into lines that fit below a picture ``cell`` inches wide."""
    return "\n".join(fill(line, int(11.5 * cell)) for line in label.splitlines())


def _show(ax: Axes, picture: np.ndarray, label: str, frame: str | None = None) -> None:
    """Draw one picture with its label below, and a coloured frame if asked."""
    ax.set_anchor("N")
    ax.imshow(picture)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(label, fontsize=9, labelpad=3)
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set(visible=frame is not None, color=frame, linewidth=3.5)


@styled
def contact_sheet(images: Sequence[Picture] | UInt8[np.ndarray, "image _ _ 3"],
                  labels: Sequence[str], columns: int = 8) -> Figure:
    """A grid of pictures, ``columns`` to a row, each with its label below."""
    if not len(images) or len(images) != len(labels):
        raise ValueError(f"{len(images)} images and {len(labels)} labels; expected as many, not 0")
    columns = min(columns, len(images))
    rows = ceil(len(images) / columns)
    height, width = np.max([image.shape[:2] for image in images], axis=0)
    cell = min(WIDTH / columns, 1.2)
    labels = [_wrap(label, cell) for label in labels]
    below = 0.15 + LINE * max(label.count("\n") + 1 for label in labels)
    fig, axes = plt.subplots(rows, columns, squeeze=False,
                             figsize=(cell * columns, rows * (0.9 * cell * height / width + below)))
    for ax in axes.flat[len(images):]:
        ax.remove()
    for ax, image, label in zip(axes.flat, images, labels, strict=False):
        _show(ax, image, label)
    return fig


@dataclass(frozen=True)
class RankedRow:
    """What one model answers to one query: pictures (H, W, 3) of 8 bits, nearest first."""

    title: str  # model and the query's average precision
    query: Picture
    query_label: str
    gallery: list[Picture]
    labels: list[str]  # camera of each gallery picture
    right: list[bool]  # same person as the query

    def __post_init__(self):
        counts = len(self.gallery), len(self.labels), len(self.right)
        if len(set(counts)) != 1 or not counts[0]:
            raise ValueError(f"{self.title}: gallery, labels, right must be as many and not 0, "
                             f"found {counts}")


def ranked_row(ranking: Ranking, query: int, model: str,
               load: Callable[[Sequence[str]], list[Picture]], k: int = 8) -> RankedRow:
    """The first ``k`` of one query's ranking as its protocol counts them.

    ``load`` reads pictures by their paths in the manifest. The AP is the full ranking's.
    """
    order, hits = ranking.kept(query)
    gallery, asked = ranking.gallery, ranking.query
    ranks = np.flatnonzero(hits) + 1
    ap = "no valid match"
    if len(ranks):
        ap = f"AP {average_precision(ranks, np.array([len(ranks)]))[0]:.2f}"
    return RankedRow(
        title=f"{model}: {ap}", query=load([asked.paths[query]])[0],
        query_label=f"query\nid {asked.ids[query]}\ncam {asked.cams[query]}",
        gallery=load(gallery.paths[order[:k]]),
        labels=[f"id {gallery.ids[g]}\ncam {gallery.cams[g]}" for g in order[:k]],
        right=hits[:k].tolist())


def _ranked_list(sub: SubFigure, row: RankedRow, columns: int, cell: float) -> None:
    """One row: its title, the query in a neutral frame, and the ranked pictures."""
    sub.suptitle(row.title, x=0.01, ha="left", fontsize=11, weight="bold")
    axes = sub.subplots(1, columns + 1)
    _show(axes[0], row.query, _wrap(row.query_label, cell), INK)
    answers = zip(row.gallery, row.labels, row.right, strict=True)
    for rank, (ax, (picture, label, right)) in enumerate(zip(axes[1:], answers, strict=False), 1):
        colour = RIGHT if right else WRONG
        _show(ax, picture, _wrap(label, cell), colour)
        ax.text(0.07, 0.97, f"{rank} {'✓' if right else '✗'}", color="white", va="top", fontsize=9,
                weight="bold", transform=ax.transAxes,
                bbox={"boxstyle": "square,pad=0.2", "facecolor": colour, "edgecolor": "none"})
    for ax in axes[1 + len(row.gallery):]:
        ax.axis("off")


@styled
def ranked_lists(rows: Sequence[RankedRow]) -> Figure:
    """Queries (left, dark frame) and their ranked pictures, each with its rank and ✓ or ✗."""
    if not rows:
        raise ValueError("no ranked rows to draw")
    columns = max(len(row.gallery) for row in rows)
    shapes = [picture.shape for row in rows for picture in [row.query, *row.gallery]]
    cell = min(WIDTH / (columns + 1), 1.1)
    lines = max(_wrap(label, cell).count("\n") + 1 for row in rows
                for label in [row.query_label, *row.labels])
    height = 0.9 * cell * max(h / w for h, w, _ in shapes) + 0.45 + LINE * lines
    fig = plt.figure(figsize=(max(cell * (columns + 1), 4), height * len(rows)))
    subs = fig.subfigures(len(rows), 1, squeeze=False)
    for sub, row in zip(subs[:, 0], rows, strict=True):
        _ranked_list(sub, row, columns, cell)
    return fig
