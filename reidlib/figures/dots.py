"""Scores with their intervals as dots, from plain DataFrames of fractions in [0, 1]."""

from textwrap import fill

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reidlib.figures.style import (
    WIDTH,
    Look,
    check_frame,
    in_order,
    in_percent,
    looks,
    protocol_title,
    protocols_in,
    sample,
    styled,
)
from reidlib.utils.text import percent

FILLS = ("full", "none")  # of a model's marker: the first protocol and the second


@styled
def score_dots(scores: pd.DataFrame, by: str, label: str, published: float | None = None
               ) -> Figure:
    """mAP with its interval of each row by each way of asking: dots side by side in its column.

    Columns: ``row``, ``by``, and ``value, low, high`` (fractions). ``label``: of the axis of
    ``by``; ``published``: a number of the paper's, marked in the first column. The value is
    written above its interval.
    """
    check_frame(scores, ["row", by], ["value", "low", "high"])
    rows, columns = in_order(scores["row"]), in_order(scores[by])
    step = 0.88 / max(len(rows), 4)
    fig, ax = plt.subplots(figsize=(WIDTH, 3.8))
    for i, (row, look) in enumerate(looks(rows).items()):
        own = scores[scores["row"] == row].set_index(by)
        x = [columns.index(c) + step * (i - (len(rows) - 1) / 2) for c in own.index]
        ax.vlines(x, own["low"], own["high"], color=look.color, lw=2.5, zorder=2)
        ax.plot(x, own["value"], look.marker, color=look.color, ms=7, mec="white", label=row,
                zorder=3)
        for place, value, high in zip(x, own["value"], own["high"], strict=True):
            ax.annotate(percent(value), (place, high), xytext=(0, 4), fontsize=8,
                        textcoords="offset points", ha="center", va="bottom", zorder=4)
    if published is not None:
        ax.plot([-0.48, 0.48], [published] * 2, color="black", lw=1.2, ls=":", label="published",
                zorder=1)
    ax.set_xticks(range(len(columns)), [fill(f"{c:,}" if isinstance(c, int) else c, 18)
                                          for c in columns])
    ax.set(xlabel=label, ylabel="mAP in percent, 95 % interval", ylim=(-0.02, 1.1),
           xlim=(-0.5, len(columns) - 0.5), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1])
    in_percent(ax.yaxis)
    ax.grid(False, axis="x")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return fig


@styled
def change_dots(changes: pd.DataFrame) -> Figure:
    """How far each row is from the one it is compared with, in points of mAP, with intervals.

    Columns: ``sample, row, above, verdict`` and ``difference, low, high`` (fractions). One panel a
    sample; a full marker where the corrected test decides.
    """
    check_frame(changes, ["sample", "row"], [])  # differences may be below 0
    samples, rows = in_order(changes["sample"]), in_order(changes["row"])
    fig, axes = plt.subplots(1, len(samples), sharex=True, sharey=True, squeeze=False,
                             figsize=(WIDTH, 0.42 * len(rows) + 1.4))
    for ax, name in zip(axes[0], samples, strict=True):
        table = changes[changes["sample"] == name].set_index("row")
        for y, (row, look) in enumerate(looks(rows).items()):
            if row not in table.index:
                continue
            own, decided = table.loc[row], table.loc[row, "verdict"] != "undecided"
            ax.plot(own[["low", "high"]], [y, y], color=look.color, lw=2, marker="|", ms=9)
            ax.plot(own["difference"], y, look.marker, color=look.color, ms=8, mew=1.5,
                    mfc=look.color if decided else "white")
        ax.axvline(0, color="black", lw=1)
        ax.set_yticks(range(len(rows)), rows)
        ax.set(title=name, ylim=(len(rows) - 0.5, -0.5))
        ax.grid(False, axis="y")
        in_percent(ax.xaxis)
    base = in_order(changes["above"])
    fig.supxlabel(f"points of mAP against {', '.join(base)}, 95 % interval", fontsize=11)
    fig.legend([sample(marker="o", ms=8, mew=1.5, mfc=fill) for fill in ("black", "white")],
               ["decided", "undecided"], loc="outside upper right", ncols=2)
    return fig


@styled
def rule_dots(scores: pd.DataFrame) -> Figure:
    """mAP of each system under two protocols, in percent: does the order change with the rules?

    Columns: ``dataset, row, protocol`` and ``value, low, high`` (fractions). One panel a data set,
    rows in the given order; on the right the places of each row, from protocol to protocol.
    """
    check_frame(scores, ["dataset", "row", "protocol"], ["value", "low", "high"])
    datasets, protocols = in_order(scores["dataset"]), protocols_in(scores)
    rows = [in_order(scores.loc[scores["dataset"] == name, "row"]) for name in datasets]
    heights = [len(names) + 0.8 for names in rows]
    fig, axes = plt.subplots(len(datasets), sharex=True, squeeze=False, height_ratios=heights,
                             figsize=(WIDTH, 0.5 * sum(heights) + 0.9))
    for ax, name, names in zip(axes[:, 0], datasets, rows, strict=True):
        table = scores[scores["dataset"] == name].set_index(["row", "protocol"])
        _places(ax, table["value"], names, protocols)
        for y, (row, look) in enumerate(looks(names).items()):
            _rule_line(ax, y, table.loc[row].loc[protocols], look)
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.grid(False, axis="y")
        ax.set_title(name, loc="left")
    axes[0, 0].text(1.02, 1, "place", va="bottom", transform=axes[0, 0].transAxes)
    axes[-1, 0].set(xlim=(-0.04, 1.04), xlabel="mAP in percent, 95 % interval")
    in_percent(axes[-1, 0].xaxis)
    fig.legend([sample(marker="o", ms=8, fillstyle=kind, mew=1.5) for kind in FILLS],
               [protocol_title(name) for name in protocols], loc="outside lower center", ncols=2)
    return fig


def _places(ax: Axes, values: pd.Series, rows: list[str], protocols: list[str]) -> None:
    """The place of each row under each protocol, on the right."""
    places = values.groupby("protocol").rank(ascending=False, method="min")
    for y, row in enumerate(rows):
        ax.text(1.02, y, " \u2192 ".join(f"{places[row, name]:.0f}" for name in protocols),
                va="center", transform=ax.get_yaxis_transform())


def _rule_line(ax: Axes, y: int, own: pd.DataFrame, look: Look) -> None:
    """One row: a marker, an interval and a value a protocol.

    The values are above and below the line, so that close ones do not meet.
    """
    ax.plot([own["value"].min(), own["value"].max()], [y, y], color=look.color, lw=3, alpha=0.3,
            zorder=1)
    for (_, found), kind, side in zip(own.iterrows(), FILLS, (1, -1), strict=True):
        ax.plot(found[["low", "high"]], [y, y], color=look.color, lw=1.5, marker="|", ms=8,
                zorder=2)
        ax.plot(found["value"], y, look.marker, color=look.color, ms=8, mew=1.5, zorder=3,
                mfc=look.color if kind == "full" else "white")
        ax.annotate(percent(found["value"]), (found["value"], y), (0, 7 * side), fontsize=8.5,
                    textcoords="offset points", ha="center", zorder=4,
                    va="bottom" if side > 0 else "top")
