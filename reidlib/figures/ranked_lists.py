"""Pictures in rows: samples of a data set, and what a model answers to a query."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from textwrap import fill
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from reidlib.evaluation.metrics import average_precision
from reidlib.evaluation.ranking import Ranking
from reidlib.figures.style import INK, PALETTE, WIDTH, styled
from reidlib.utils.text import percent

Picture = UInt8[np.ndarray, "_ _ 3"]

RIGHT, WRONG = PALETTE[2], PALETTE[3]  # a green and a red that the colour-blind can tell apart

LINE = 0.16  # inches, height of one line of a label


def _wrap(label: str, cell: float) -> str:
    """Break ``label`` into lines that fit below a picture ``cell`` inches wide."""
    return "\n".join(fill(line, int(11.5 * cell)) for line in label.splitlines())


def _show(ax: Axes, picture: np.ndarray, label: str, frame: str | None = None,
          struck: bool = False) -> None:
    """Draw one picture with its label below, a coloured frame if asked, perhaps struck out."""
    ax.set_anchor("N")
    ax.imshow(picture, alpha=0.4 if struck else 1.0)
    if struck:
        for ends in ((0, 1), (1, 0)):
            ax.plot((0, 1), ends, color=INK, linewidth=1.5, transform=ax.transAxes)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(label, fontsize=9, labelpad=3)
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set(visible=frame is not None, color=frame, linewidth=3.5)


@styled
def contact_sheet(images: Sequence[Picture] | UInt8[np.ndarray, "image _ _ 3"],
                  labels: Sequence[str], columns: int = 8,
                  struck: Sequence[bool] | None = None) -> Figure:
    """A grid of pictures, ``columns`` to a row, each with its label below, some struck out."""
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
    struck = [False] * len(images) if struck is None else struck
    for ax, image, label, out in zip(axes.flat[:len(images)], images, labels, struck, strict=True):
        _show(ax, image, label, struck=out)
    return fig


class ColourBar(NamedTuple):
    """What the colours and labels of a row of maps mean."""

    colours: Float[np.ndarray, "2 3"]  # the lowest and the highest, red, green, blue in [0, 1]
    ends: tuple[str, str]  # what is written beside them
    note: str  # below the figure


@dataclass(frozen=True)
class RankedRow:
    """What one model answers to one query: pictures (H, W, 3) of 8 bits, nearest first."""

    title: str  # model and the query's average precision
    query: Picture
    query_label: str
    gallery: list[Picture]
    labels: list[str]  # camera of each gallery picture
    right: list[bool]  # same person as the query
    kept: list[bool]   # the protocol counts it; the others are struck out
    bar: ColourBar | None = None

    def __post_init__(self):
        counts = len(self.gallery), len(self.labels), len(self.right), len(self.kept)
        if len(set(counts)) != 1 or not counts[0]:
            raise ValueError(f"{self.title}: gallery, labels, right, kept must be as many and not "
                             f"0, found {counts}")


def ranked_row(ranking: Ranking, query: int, model: str,
               load: Callable[[Sequence[str]], list[Picture]], k: int = 8,
               dropped: bool = False) -> RankedRow:
    """The first ``k`` of one query's ranking as its protocol counts them.

    ``load`` reads pictures by their paths in the manifest. The AP is the full ranking's.
    ``dropped``: images that the protocol drops are among the ``k``, struck out.
    """
    order, hits, keep = ranking.rank(query)
    gallery, asked = ranking.gallery, ranking.query
    shown = np.flatnonzero(keep | dropped)[:k]
    ranks = np.flatnonzero(hits[keep]) + 1
    ap = "no valid match"
    if len(ranks):
        ap = f"AP {percent(average_precision(ranks, np.array([len(ranks)]))[0])} %"
    return RankedRow(
        title=f"{model}: {ap}", query=load([asked.paths[query]])[0],
        query_label=f"query\nid {asked.ids[query]}\ncam {asked.cams[query]}",
        gallery=load(gallery.paths[order[shown]]),
        labels=[f"id {gallery.ids[g]}\ncam {gallery.cams[g]}" for g in order[shown]],
        right=hits[shown].tolist(), kept=keep[shown].tolist())


def _ranked_list(sub: SubFigure, row: RankedRow, columns: int, cell: float) -> None:
    """One row: its title, the query in a neutral frame, and the ranked pictures.

    What is struck out has no rank.
    """
    sub.suptitle(row.title, x=0.01, ha="left", fontsize=11, weight="bold")
    axes = sub.subplots(1, columns + 1)
    _show(axes[0], row.query, _wrap(row.query_label, cell), INK)
    answers = zip(row.gallery, row.labels, row.right, row.kept, np.cumsum(row.kept), strict=True)
    for ax, (picture, label, right, kept, rank) in zip(axes[1:], answers, strict=False):
        colour = RIGHT if right else WRONG
        _show(ax, picture, _wrap(label, cell), colour if kept else None, struck=not kept)
        if not kept:
            continue
        ax.text(0.07, 0.97, f"{rank} {'✓' if right else '✗'}", color="white", va="top", fontsize=9,
                weight="bold", transform=ax.transAxes,
                bbox={"boxstyle": "square,pad=0.2", "facecolor": colour, "edgecolor": "none"})
    for ax in axes[1 + len(row.gallery):]:
        ax.axis("off")
    if row.bar:
        _colour_bar(sub, row.bar)


def _colour_bar(sub: SubFigure, bar: ColourBar) -> None:
    """On the right of the title: the colours from low to high, with what they stand for."""
    width, height = sub.bbox.size / sub.figure.dpi  # inches
    line = 1 - 0.13 / height
    ax = sub.add_axes((1 - 1.6 / width, line - 0.05 / height, 1 / width, 0.1 / height))
    ax.set_in_layout(False)
    ax.imshow(np.linspace(*bar.colours, 11)[None], aspect="auto")
    ax.axis("off")
    for x, text, side in ((1 - 1.65 / width, bar.ends[0], "right"),
                          (1 - 0.55 / width, bar.ends[1], "left")):
        sub.text(x, line, text, ha=side, va="center", fontsize=9)


@styled
def ranked_lists(rows: Sequence[RankedRow]) -> Figure:
    """Queries (left, dark frame) and their ranked pictures, each with its rank and ✓ or ✗."""
    if not rows:
        raise ValueError("no ranked rows to draw")
    columns = max(len(row.gallery) for row in rows)
    shapes = [picture.shape for row in rows for picture in [row.query, *row.gallery]]
    cell = min(WIDTH / (columns + 1), 1.1)
    width = max(cell * (columns + 1), 4)
    lines = max(_wrap(label, cell).count("\n") + 1 for row in rows
                for label in [row.query_label, *row.labels])
    heights = [0.9 * cell * max(h / w for h, w, _ in shapes) + 0.45 + LINE * lines] * len(rows)
    notes = [_wrap(note, width) for note in dict.fromkeys(row.bar.note for row in rows if row.bar)]
    heights += [0.1 + LINE * (note.count("\n") + 1) for note in notes]
    fig = plt.figure(figsize=(width, sum(heights)))
    subs = fig.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for sub, row in zip(subs, rows, strict=False):
        _ranked_list(sub, row, columns, cell)
    for sub, note in zip(subs[len(rows):], notes, strict=True):
        sub.text(0.01, 0.95, note, va="top", fontsize=9)
    return fig
