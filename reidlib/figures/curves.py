"""Curves, bars and small panels from plain DataFrames. Scores are fractions in [0, 1]."""

from math import ceil
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reidlib.evaluation.protocols import PAPER_PROTOCOL
from reidlib.figures.style import (
    GREY,
    INK,
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

SEED = {"marker": "o", "ms": 3.5, "mfc": "white", "color": INK, "ls": "none"}
INTERVAL = {"marker": "|", "ms": 6, "color": INK, "lw": 1.2}
PUBLISHED = {"marker": "|", "ms": 15, "mew": 2.5, "color": "black", "ls": "none"}
QUARTERS = (0, 0.25, 0.5, 0.75, 1)  # of an axis
# row -> title, of the rows that small panels show where a frame has them: one a model
MODEL_ROWS = {"not fine-tuned": "not fine-tuned", "baseline": "baseline",
              "+ flipped query": "improved", "best": "best"}


@styled
def learning_curves(history: pd.DataFrame) -> Figure:
    """Loss of each preset on its own scale, and below the training accuracy of all.

    Columns: ``run, preset, seed, epoch, loss, accuracy`` (fraction); one line a run. ``epoch``
    counts from 0, the axis from 1. Losses of presets are different sums, so they never share a
    vertical axis.
    """
    check_frame(history, ["run", "epoch"], ["accuracy"], ["preset", "seed", "loss"])
    presets = in_order(history["preset"])
    columns = min(len(presets), 3) if len(presets) != 4 else 2
    rows = ceil(len(presets) / columns)
    history = history.sort_values("epoch", kind="stable")
    fig = plt.figure(figsize=(WIDTH, 2.2 * rows + 2.5))
    grid = fig.add_gridspec(rows + 1, columns)
    last = history["epoch"].max() + 1
    line = {name: dict(**look._asdict(), lw=1.3, ms=4, markevery=ceil(last / 10), clip_on=False)
            for name, look in looks(presets).items()}
    for i, name in enumerate(presets):
        ax, own = fig.add_subplot(grid[i]), history[history["preset"] == name]
        for _, run in own.groupby("run", observed=True):
            ax.plot(run["epoch"] + 1, run["loss"], **line[name])
        ax.set(title=name, xlabel="epoch", ylabel="training loss")
        ax.set_ylim(min(0, own["loss"].min()), 1.06 * own["loss"].max())
    below = fig.add_subplot(grid[rows, :])
    for (name, _), run in history.groupby(["preset", "run"], observed=True):
        below.plot(run["epoch"] + 1, run["accuracy"], **line[name])
    below.set(xlabel="epoch", ylabel="training accuracy\nin percent", ylim=(0, 1.05))
    in_percent(below.yaxis)
    fig.legend([sample(**line[name]) for name in presets], presets, ncols=5, handlelength=3,
               loc="outside lower center")
    for ax in fig.axes:
        ax.set_xlim(0.5, last + 0.5)
        ax.locator_params(axis="x", integer=True, min_n_ticks=1)
    return fig


def _score_bars(ax: Axes, part: pd.DataFrame, rows: list[str], ends: pd.DataFrame) -> None:
    """One protocol's bars, with mAP above rank-1, the single seeds, the interval of mAP (``ends``:
    row -> low, high) and the means in figures; a dash for a row without scores."""
    for y, (row, look) in enumerate(looks(rows).items()):
        runs = part[part["row"] == row]
        if runs.empty:
            ax.text(1.04, y, percent(None), va="center", transform=ax.get_yaxis_transform())
            continue
        for metric, dy, alpha in (("mAP", -0.19, 1.0), ("rank1", 0.19, 0.4)):
            mean = runs[metric].mean()
            ax.barh(y + dy, mean, 0.36, color=look.color, alpha=alpha, zorder=2)
            if metric == "mAP" and row in ends.index:
                ax.plot(ends.loc[row, ["low", "high"]], [y + dy] * 2, **INTERVAL, zorder=3)
            ax.plot(runs[metric], [y + dy] * len(runs), **SEED, zorder=4, clip_on=False)
            ax.text(1.04, y + dy, percent(mean), va="center", fontsize=9,
                    transform=ax.get_yaxis_transform())
    ax.set(xlim=(0, 1), xlabel="percent (mean over seeds)", xticks=QUARTERS)
    in_percent(ax.xaxis)
    ax.set_yticks(range(len(rows)), [fill(row, 21) for row in rows])
    ax.set_ylim(len(rows) - 0.45, -0.55)
    ax.grid(False, axis="y")


@styled
def ablation_bars(scores: pd.DataFrame, intervals: pd.DataFrame,
                  paper: pd.DataFrame | None = None) -> Figure:
    """mAP and rank-1 of each row of the ablation: bars are means over seeds, dots single seeds.

    ``scores`` columns: ``row, protocol, seed, mAP, rank1`` (fractions). ``intervals``: ``row,
    protocol, low, high``, of mAP, drawn over its bars. ``paper``: ``row, mAP, rank1``, the
    published numbers, marked in the panel of the paper's protocol only.
    """
    check_frame(scores, ["row", "protocol", "seed"], ["mAP", "rank1"])
    rows, protocols = in_order(scores["row"]), protocols_in(scores)
    fig, axes = plt.subplots(1, len(protocols), sharey=True, squeeze=False,
                             figsize=(WIDTH, 0.56 * len(rows) + 1.4))
    for ax, protocol in zip(axes[0], protocols, strict=True):
        part, ends = (table[table["protocol"] == protocol] for table in (scores, intervals))
        _score_bars(ax, part, rows, ends.set_index("row"))
        ax.set_title(protocol_title(protocol))
    axes[0, 0].set_ylabel("model")
    legend = {"mAP": Patch(color=INK), "rank-1": Patch(color=INK, alpha=0.4),
              "one seed": sample(**SEED),
              "95 % interval of mAP": sample(**{**INTERVAL, "ls": "-"})}
    if paper is not None:
        check_frame(paper, ["row"], ["mAP", "rank1"])
        if PAPER_PROTOCOL not in protocols or not set(paper["row"]) <= set(rows):
            raise ValueError(f"no {PAPER_PROTOCOL} scores to compare with each of the paper's "
                             f"rows {list(paper['row'])}")
        ax = axes[0, protocols.index(PAPER_PROTOCOL)]
        for metric, dy in (("mAP", -0.19), ("rank1", 0.19)):
            ys = [rows.index(row) + dy for row in paper["row"]]
            ax.plot(paper[metric], ys, **PUBLISHED, zorder=3, clip_on=False)
        legend["published"] = sample(**PUBLISHED)
    fig.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=5,
               columnspacing=1.2, handlelength=1.6)
    return fig


@styled
def protocol_gap(scores: pd.DataFrame) -> Figure:
    """How far apart protocols score the same runs: a panel a model, a line a protocol.

    Columns: ``row, protocol, seed, mAP`` (fraction). Shown are ``MODEL_ROWS``, where there are
    none of them the first four rows. Markers and numbers are means over seeds, dots below them
    single seeds; the last line is what the paper's protocol adds to the standard one.
    """
    check_frame(scores, ["row", "protocol", "seed"], ["mAP"])
    rows, protocols = in_order(scores["row"]), protocols_in(scores)
    rows = [row for row in rows if row in MODEL_ROWS] or rows[:4]
    compared = {"standard", PAPER_PROTOCOL} <= set(protocols)
    lines = [*map(protocol_title, protocols), *[f"{PAPER_PROTOCOL} − standard"] * compared]
    fig, axes = plt.subplots(1, len(rows), sharey=True, squeeze=False,
                             figsize=(WIDTH, 0.32 * len(lines) + 1.4))
    for ax, (row, look) in zip(axes[0], looks(rows).items(), strict=True):
        _protocol_panel(ax, scores[scores["row"] == row], protocols, look)
        ax.set(title=MODEL_ROWS.get(row, row), xlabel="mAP in percent", xlim=(0, 1),
               ylim=(len(lines) - 0.4, -0.6), xticks=[0, 0.5, 1])
        in_percent(ax.xaxis)
        ax.tick_params(axis="y", length=0)
        if PAPER_PROTOCOL in protocols:
            ax.axhspan(len(protocols) - 1.45, len(protocols) - 0.55, color="#f0f0f0", zorder=0)
    axes[0, 0].set_yticks(range(len(lines)), lines)
    axes[0, 0].set_ylabel("protocol")
    fig.legend([sample(marker="o", ms=8, mec="white"), sample(**SEED)],
               ["mean over seeds", "one seed"], loc="outside lower center", ncols=2)
    return fig


def _protocol_panel(ax: Axes, own: pd.DataFrame, protocols: list[str], look: Look) -> None:
    """One model: a marker a protocol with its value on the side that has room, and the gap."""
    seeds = dict(iter(own.groupby("protocol", observed=True)["mAP"]))
    for y, protocol in enumerate(protocols):
        if protocol not in seeds:
            continue
        found = seeds[protocol]
        ax.plot(found.mean(), y, look.marker, ms=8, color=look.color, mec="white", zorder=3,
                clip_on=False)
        ax.plot(found, [y + 0.31] * len(found), **SEED, mew=0.8, zorder=2, clip_on=False)
        side = -1 if found.mean() > 0.5 else 1
        ax.annotate(percent(found.mean()), (found.mean(), y), (7 * side, 0), va="center",
                    textcoords="offset points", fontsize=9, ha="right" if side < 0 else "left")
    if {"standard", PAPER_PROTOCOL} <= set(seeds):
        gap = seeds[PAPER_PROTOCOL].mean() - seeds["standard"].mean()
        ax.text(0.5, len(protocols), f"{percent(gap, signed=True)} points", weight="bold",
                ha="center", va="center", fontsize=9)
    ax.grid(False, axis="y")


@styled
def ap_scatter(queries: pd.DataFrame) -> Figure:
    """Average precision of each query under ``standard`` against the paper's protocol.

    Columns: ``row, path, seed, protocol, AP`` (fraction; NaN is left out); one panel per row that
    has scores under both, one dot per query and seed. Above the diagonal the paper's protocol
    gives the higher score.
    """
    key = ["row", "path", "seed", "protocol"]
    check_frame(queries, key, others=["AP"])
    wide = queries.pivot(index=key[:3], columns="protocol", values="AP").dropna().reset_index()
    rows = [row for row in in_order(queries["row"]) if row in set(wide["row"])]
    columns = min(len(rows), 3)
    fig, axes = plt.subplots(ceil(len(rows) / columns), columns, squeeze=False,
                             figsize=(WIDTH, 2.35 * ceil(len(rows) / columns) + 0.4))
    for ax, (row, look) in zip(axes.flat, looks(rows).items(), strict=False):
        own = wide[wide["row"] == row]
        ax.plot([0, 1], [0, 1], color=GREY, lw=1, zorder=1)
        ax.plot(own["standard"], own[PAPER_PROTOCOL], look.marker, color=look.color, ms=5,
                alpha=0.5, mec="white", zorder=2)
        ax.set(title=row, xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), aspect="equal",
               xticks=QUARTERS, yticks=QUARTERS)
        in_percent(ax.xaxis)
        in_percent(ax.yaxis)
    for ax in axes.flat[len(rows):]:
        ax.remove()
    fig.supxlabel("AP under standard, in percent", fontsize=11)
    fig.supylabel(f"AP under {protocol_title(PAPER_PROTOCOL)}, in percent", fontsize=11)
    return fig


@styled
def cmc_curves(cmc: pd.DataFrame) -> Figure:
    """Share of queries with a right picture among the first k, one panel per protocol.

    Columns: ``row, protocol, rank`` (k, from 1) and ``cmc`` (fraction, mean over seeds). Left out:
    re-ranked rows, and ranks above 20. The vertical axis is stretched near 100 percent, where the
    models differ.
    """
    check_frame(cmc, ["row", "protocol", "rank"], ["cmc"])
    protocols = protocols_in(cmc)
    rows = [row for row in in_order(cmc["row"]) if "re-ranking" not in row]
    cmc = cmc[(cmc["rank"] <= 20) & cmc["row"].isin(rows)].sort_values("rank")
    fig, axes = plt.subplots(1, len(protocols), squeeze=False, sharey=True, figsize=(WIDTH, 4.2))
    for ax, protocol in zip(axes[0], protocols, strict=True):
        part = cmc[cmc["protocol"] == protocol]
        for row, look in looks(rows).items():
            own = part[part["row"] == row]
            ax.plot(own["rank"], own["cmc"], **look._asdict(), ms=5, mec="white", mew=0.6,
                    label=row, clip_on=False, zorder=3)
        ax.set(title=protocol_title(protocol), xlabel="rank k")
        last = part["rank"].max()
        ax.set_xticks(sorted({1, last, *range(5, last, 5)}))
        ax.set_xlim(0.5, last + 0.5)
        ax.set_yscale("function", functions=(lambda y: -np.log(1.05 - y),
                                             lambda t: 1.05 - np.exp(-t)))
        ax.set_yticks([0, 0.5, 0.8, 0.9, 0.95, 1])
        in_percent(ax.yaxis)
        ax.set_ylim(max(0, cmc["cmc"].min() - 0.05), 1)
    axes[0, 0].set_ylabel("found within k, percent of queries\n(stretched near 100)")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3,
               handlelength=3.5)
    return fig
