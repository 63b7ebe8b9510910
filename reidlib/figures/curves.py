"""Curves, bars and dots from plain DataFrames. Scores are fractions in [0, 1]."""

from math import ceil, floor
from textwrap import fill

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from reidlib.evaluation.protocols import PAPER_PROTOCOL, PROTOCOLS
from reidlib.figures import style
from reidlib.figures.style import INK, LINES, MARKERS, WIDTH, check_frame, in_order, styled

ORDER = (*(name for name in PROTOCOLS if name != PAPER_PROTOCOL), PAPER_PROTOCOL)
SEED = {"marker": "o", "ms": 3.5, "mfc": "white", "color": INK, "ls": "none"}
INTERVAL = {"marker": "|", "ms": 6, "color": INK, "lw": 1.2}
PUBLISHED = {"marker": "|", "ms": 15, "mew": 2.5, "color": "black", "ls": "none"}


def protocols_in(frame: pd.DataFrame) -> list[str]:
    """The protocols of ``frame``: from the standard one to the paper's, then any others."""
    found = in_order(frame["protocol"])
    return [name for name in dict.fromkeys([*ORDER, *found]) if name in found]


def _protocol_title(name: str) -> str:
    return f"{name} (the paper's)" if name == PAPER_PROTOCOL else name


def _sample(**look) -> Line2D:
    """A legend entry for a marker or line of that look."""
    return Line2D([], [], **{"ls": "none", "color": INK, **look})


@styled
def learning_curves(history: pd.DataFrame) -> Figure:
    """Loss of each preset on its own scale, and below the training accuracy of all.

    Columns: ``run, preset, seed, epoch, loss, accuracy`` (fraction); one line a run. Losses of
    presets are different sums, so they never share a vertical axis.
    """
    check_frame(history, ["run", "epoch"], ["accuracy"], ["preset", "seed", "loss"])
    presets = in_order(history["preset"])
    columns = min(len(presets), 3) if len(presets) != 4 else 2
    rows = ceil(len(presets) / columns)
    history = history.sort_values("epoch", kind="stable")
    fig = plt.figure(figsize=(WIDTH, 2.2 * rows + 2.5))
    grid = fig.add_gridspec(rows + 1, columns)
    colours = style.row_colours(presets)
    look = {name: dict(color=colours[name], ls=LINES[i % len(LINES)], lw=1.3, marker=".", ms=4)
            for i, name in enumerate(presets)}
    for i, name in enumerate(presets):
        ax, own = fig.add_subplot(grid[i]), history[history["preset"] == name]
        for _, run in own.groupby("run", observed=True):
            ax.plot(run["epoch"], run["loss"], **look[name])
        ax.set(title=name, xlabel="epoch", ylabel="training loss")
        ax.set_ylim(bottom=min(0, own["loss"].min()))
    below = fig.add_subplot(grid[rows, :])
    for (name, _), run in history.groupby(["preset", "run"], observed=True):
        below.plot(run["epoch"], run["accuracy"], **look[name])
    below.set(xlabel="epoch", ylabel="training accuracy", ylim=(0, 1.03))
    fig.legend([_sample(**look[name]) for name in presets], presets, ncols=4,
               loc="outside lower center")
    for ax in fig.axes:
        ax.locator_params(axis="x", integer=True)
    return fig


def _score_bars(ax: Axes, part: pd.DataFrame, rows: list[str], ends: pd.DataFrame) -> None:
    """One protocol's bars, with mAP above rank-1, the single seeds, the interval of mAP (``ends``:
    row -> low, high) and the means in figures."""
    colours = style.row_colours(rows)
    for y, row in enumerate(rows):
        runs = part[part["row"] == row]
        for metric, dy, alpha in (("mAP", -0.19, 1.0), ("rank1", 0.19, 0.4)):
            if runs.empty:
                continue
            mean = runs[metric].mean()
            ax.barh(y + dy, mean, 0.36, color=colours[row], alpha=alpha, zorder=2)
            if metric == "mAP" and row in ends.index:
                ax.plot(ends.loc[row, ["low", "high"]], [y + dy] * 2, **INTERVAL, zorder=3)
            ax.plot(runs[metric], [y + dy] * len(runs), **SEED, zorder=4, clip_on=False)
            ax.text(1.04, y + dy, f"{mean:.3f}", va="center", fontsize=9,
                    transform=ax.get_yaxis_transform())
    ax.set(xlim=(0, 1), xlabel="score (mean over seeds)")
    ax.set_yticks(range(len(rows)), rows)
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
                             figsize=(WIDTH, 0.62 * len(rows) + 1.6))
    for ax, protocol in zip(axes[0], protocols, strict=True):
        part, ends = (table[table["protocol"] == protocol] for table in (scores, intervals))
        _score_bars(ax, part, rows, ends.set_index("row"))
        ax.set_title(_protocol_title(protocol))
    axes[0, 0].set_ylabel("model")
    legend = {"mAP": Patch(color=INK), "rank-1": Patch(color=INK, alpha=0.4),
              "one seed": _sample(**SEED),
              "95 % interval of mAP": _sample(**{**INTERVAL, "ls": "-"})}
    if paper is not None:
        check_frame(paper, ["row"], ["mAP", "rank1"])
        if PAPER_PROTOCOL not in protocols or not set(paper["row"]) <= set(rows):
            raise ValueError(f"no {PAPER_PROTOCOL} scores to compare with each of the paper's "
                             f"rows {list(paper['row'])}")
        ax = axes[0, protocols.index(PAPER_PROTOCOL)]
        for metric, dy in (("mAP", -0.19), ("rank1", 0.19)):
            ys = [rows.index(row) + dy for row in paper["row"]]
            ax.plot(paper[metric], ys, **PUBLISHED, zorder=3, clip_on=False)
        legend["published"] = _sample(**PUBLISHED)
    fig.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=4)
    return fig


@styled
def score_dots(scores: pd.DataFrame, by: str, label: str, published: float | None = None
               ) -> Figure:
    """mAP with its interval of each row by each way of asking: dots side by side in its column.

    Columns: ``row``, ``by``, and ``value, low, high`` (fractions). ``label``: of the axis of
    ``by``; ``published``: a number of the paper's, marked in the first column.
    """
    check_frame(scores, ["row", by], ["value", "low", "high"])
    rows, columns = in_order(scores["row"]), in_order(scores[by])
    colours = style.row_colours(rows)
    fig, ax = plt.subplots(figsize=(WIDTH, 3.6))
    for i, row in enumerate(rows):
        own = scores[scores["row"] == row].set_index(by)
        x = [columns.index(c) + 0.21 * (i - (len(rows) - 1) / 2) for c in own.index]
        ax.vlines(x, own["low"], own["high"], color=colours[row], lw=2, zorder=2)
        ax.plot(x, own["value"], MARKERS[i], color=colours[row], ms=7.5, mec="white", label=row,
                zorder=3, clip_on=False)
        for place, value in zip(x, own["value"], strict=True):
            ax.annotate(f"{100 * value:.0f}", (place, value), xytext=(5, 0), fontsize=8,
                        textcoords="offset points", va="center", zorder=4,
                        path_effects=[withStroke(linewidth=2, foreground="white")])
    if published is not None:
        ax.plot([-0.45, 0.45], [published] * 2, color="black", lw=1.2, ls=":", label="published",
                zorder=1)
    ax.set_xticks(range(len(columns)), [fill(f"{c:,}" if isinstance(c, int) else c, 18)
                                          for c in columns])
    ax.set(xlabel=label, ylabel="mAP (95 % interval)", ylim=(0, 1.03),
           xlim=(-0.5, len(columns) - 0.5))
    ax.grid(False, axis="x")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return fig


@styled
def protocol_gap(scores: pd.DataFrame) -> Figure:
    """How far apart protocols score the same runs: one line per row, one marker per protocol.

    Columns: ``row, protocol, seed, mAP`` (fraction). Markers are means over seeds, the number is
    what the paper's protocol adds to the standard one.
    """
    check_frame(scores, ["row", "protocol", "seed"], ["mAP"])
    rows, protocols = in_order(scores["row"]), protocols_in(scores)
    markers = {**dict(zip(dict.fromkeys([*ORDER, *protocols]), MARKERS.replace("X", ""),
                          strict=False)), PAPER_PROTOCOL: "X"}
    colours = style.row_colours(rows)
    fig, ax = plt.subplots(figsize=(WIDTH, 0.5 * len(rows) + 1.6))
    for y, row in enumerate(rows):
        means = scores[scores["row"] == row].groupby("protocol", observed=True)["mAP"].mean()
        ax.plot([means.min(), means.max()], [y, y], color=colours[row], lw=3, alpha=0.4, zorder=1)
        for protocol, mean in means.items():
            ax.plot(mean, y, markers[protocol], ms=9, color=colours[row], mec="white", zorder=3,
                    clip_on=False)
        if {"standard", PAPER_PROTOCOL} <= set(means.index):
            gap = means[PAPER_PROTOCOL] - means["standard"]
            ax.text(1.02, y, f"{gap:+.3f}", va="center", transform=ax.get_yaxis_transform())
            ax.set_title(f"{PAPER_PROTOCOL} − standard:", loc="right")
    ax.set(xlim=(0, 1), xlabel="mAP", ylabel="model")
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(False, axis="y")
    fig.legend([_sample(marker=markers[p], ms=9, mec="white") for p in protocols],
               [_protocol_title(p) for p in protocols], loc="outside lower center", ncols=3,
               title="mean over seeds")
    return fig


@styled
def ap_scatter(queries: pd.DataFrame) -> Figure:
    """Average precision of each query under ``standard`` against the paper's protocol.

    Columns: ``row, path, seed, protocol, AP`` (fraction; NaN is left out); one panel per row, one
    dot per query and seed. Above the diagonal the paper's protocol gives the higher score.
    """
    key = ["row", "path", "seed", "protocol"]
    check_frame(queries, key, others=["AP"])
    wide = queries.pivot(index=key[:3], columns="protocol", values="AP")
    wide, rows = wide.dropna().reset_index(), in_order(queries["row"])
    columns, colours = min(len(rows), 3), style.row_colours(rows)
    fig, axes = plt.subplots(ceil(len(rows) / columns), columns, squeeze=False, sharex=True,
                             sharey=True, figsize=(WIDTH, 2.5 * ceil(len(rows) / columns) + 0.3))
    for ax, row in zip(axes.flat, rows, strict=False):
        own = wide[wide["row"] == row]
        ax.plot([0, 1], [0, 1], color=style.GREY, lw=1, zorder=1)
        ax.plot(own["standard"], own[PAPER_PROTOCOL], "o", color=colours[row], ms=5, alpha=0.5,
                mec="white", clip_on=False, zorder=2)
        ax.set(title=row, xlim=(0, 1), ylim=(0, 1), aspect="equal")
    for ax in axes.flat[len(rows):]:
        ax.remove()
    fig.supxlabel("AP under standard", fontsize=11)
    fig.supylabel(f"AP under {_protocol_title(PAPER_PROTOCOL)}", fontsize=11)
    return fig


@styled
def cmc_curves(cmc: pd.DataFrame) -> Figure:
    """Share of queries with a right picture among the first k, one panel per protocol.

    Columns: ``row, protocol, rank`` (k, from 1) and ``cmc`` (fraction, mean over seeds). Ranks
    above 20 are left out.
    """
    check_frame(cmc, ["row", "protocol", "rank"], ["cmc"])
    rows, protocols = in_order(cmc["row"]), protocols_in(cmc)
    cmc = cmc[cmc["rank"] <= 20].sort_values("rank")
    lowest, colours = floor(10 * cmc["cmc"].min()) / 10, style.row_colours(rows)
    lines = {row: LINES[i % len(LINES)] for i, row in enumerate(rows)}
    fig, axes = plt.subplots(1, len(protocols), squeeze=False, sharey=True, figsize=(WIDTH, 3.5))
    for ax, protocol in zip(axes[0], protocols, strict=True):
        part = cmc[cmc["protocol"] == protocol]
        for row, curve in ((row, part[part["row"] == row]) for row in rows):
            ax.plot(curve["rank"], curve["cmc"], marker=".", color=colours[row],
                    linestyle=lines[row], label=row)
        ax.set(title=_protocol_title(protocol), xlabel="rank k", ylabel="CMC (found within k)",
               xlim=(0.5, 20.5), ylim=(lowest, 1.01), xticks=[1, 5, 10, 15, 20])
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


@styled
def rule_dots(scores: pd.DataFrame) -> Figure:
    """mAP of each system under each protocol, in percent: does the order change with the rules?

    Columns: ``dataset, row, protocol`` and ``value, low, high`` (fractions). One panel a data set,
    rows in the given order; on the right the places of each row, from protocol to protocol.
    """
    check_frame(scores, ["dataset", "row", "protocol"], ["value", "low", "high"])
    datasets, protocols = in_order(scores["dataset"]), protocols_in(scores)
    rows = [in_order(scores.loc[scores["dataset"] == name, "row"]) for name in datasets]
    heights = [len(names) + 0.8 for names in rows]
    fig, axes = plt.subplots(len(datasets), sharex=True, squeeze=False, height_ratios=heights,
                             figsize=(WIDTH, 0.42 * sum(heights) + 0.9))
    for ax, name, names in zip(axes[:, 0], datasets, rows, strict=True):
        _rule_panel(ax, scores[scores["dataset"] == name], names, protocols)
        ax.set_title(name, loc="left")
    axes[0, 0].text(1.02, 1, "place", va="bottom", transform=axes[0, 0].transAxes)
    axes[-1, 0].set(xlim=(0, 100), xlabel="mAP, percent (95 % interval)")
    fig.legend([_sample(marker=MARKERS[i], ms=8, mec="white") for i in range(len(protocols))],
               [_protocol_title(name) for name in protocols], loc="outside lower center", ncols=3)
    return fig


def _rule_panel(ax: Axes, scores: pd.DataFrame, rows: list[str], protocols: list[str]) -> None:
    """One data set: a line a row with a marker and an interval a protocol, and its places."""
    table = scores.set_index(["row", "protocol"])
    places = table["value"].groupby("protocol").rank(ascending=False, method="min")
    colours = style.row_colours(rows)
    for y, row in enumerate(rows):
        own, look = 100 * table.loc[row, ["value", "low", "high"]], {"color": colours[row]}
        ax.plot([own["value"].min(), own["value"].max()], [y, y], **look, lw=3, alpha=0.3, zorder=1)
        for marker, name in zip(MARKERS, protocols, strict=False):
            ax.plot(own.loc[name, ["low", "high"]], [y, y], **look, lw=1.5, marker="|", zorder=2)
            ax.plot(own.loc[name, "value"], y, marker, **look, ms=8, mec="white", zorder=3,
                    clip_on=False)
            ax.annotate(f"{own.loc[name, 'value']:.1f}", (own.loc[name, "value"], y), (0, 5),
                        textcoords="offset points", ha="center", fontsize=8, zorder=4)
        ax.text(1.02, y, " \u2192 ".join(f"{places[row, name]:.0f}" for name in protocols),
                va="center", transform=ax.get_yaxis_transform())
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.7)
    ax.grid(False, axis="y")
