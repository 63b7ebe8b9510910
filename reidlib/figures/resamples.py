"""One comparison of two models: its people, resamples of them, and flips of their signs.

Gains are after minus before, as fractions; what one reads is in percentage points.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reidlib.evaluation.statistics import TIE
from reidlib.figures.style import GREY, INK, PALETTE, WIDTH, check_frame, in_percent, styled
from reidlib.utils.text import percent

UP, DOWN = PALETTE[0], PALETTE[1]
POINTS = "percentage points"
LABELLED = 30  # people whose names fit below their bars


@styled
def drawn_people(people: pd.DataFrame) -> Figure:
    """Each person's mean gain, and below it how often the person is in one resample.

    Columns: ``id, gain, times``. Who is not in the resample is pale.
    """
    check_frame(people, ["id"], others=["gain", "times"])
    fig, (above, below) = plt.subplots(2, sharex=True, figsize=(WIDTH, 4), height_ratios=(3, 2))
    _signed_bars(above, people["id"], people["gain"], pale=people["times"] == 0)
    above.set(ylabel=f"gain in AP,\n{POINTS}")
    below.bar(range(len(people)), people["times"], color=INK, width=0.7)
    below.set(xlabel="person (id)", ylabel="times in the\nresample")
    below.locator_params(axis="y", integer=True)
    below.grid(False, axis="x")
    return fig


@styled
def resampled_differences(differences: Float[np.ndarray, "resample"], seen: float,
                          intervals: pd.DataFrame) -> Figure:
    """Histogram of a difference in resamples, and above it intervals for it.

    ``seen``: the difference itself. ``intervals`` columns: ``name, low, high``.
    """
    check_frame(intervals, ["name"], others=["low", "high"])
    fig, (above, below) = plt.subplots(2, sharex=True, figsize=(WIDTH, 4), height_ratios=(1, 3))
    for y, line in enumerate(intervals.itertuples()):
        above.plot([line.low, line.high], [y, y], color=PALETTE[y], lw=3, marker="|",
                   ms=12)
    above.set_yticks(range(len(intervals)), intervals["name"])
    above.set_ylim(len(intervals) - 0.5, -0.5)
    above.grid(False, axis="y")
    below.hist(differences, 60, color=GREY)
    below.set(xlabel=f"difference of mAP, {POINTS}", ylabel="resamples")
    in_percent(below.xaxis)
    for ax in (above, below):
        ax.axvline(seen, color=INK, lw=1.5, label="difference seen")
        ax.axvline(0, color=INK, lw=1, ls=":", label="no difference")
    fig.legend(*below.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


@styled
def flipped_signs(people: pd.DataFrame) -> Figure:
    """Each person's share of the difference, as it is and after one flip of signs.

    Columns: ``id, share, sign`` (1 or -1). The bars of a panel add up to the number above it.
    """
    check_frame(people, ["id"], others=["share", "sign"])
    turned = people["sign"] < 0
    panels = {"as measured": (people["share"], None),
              f"{turned.sum()} of {len(turned)} signs flipped": (
                  people["share"] * people["sign"], turned)}
    fig, axes = plt.subplots(2, sharex=True, sharey=True, figsize=(WIDTH, 4.6))
    for ax, (title, (shares, hatched)) in zip(axes, panels.items(), strict=True):
        _signed_bars(ax, people["id"], shares, hatched=hatched)
        ax.set_title(f"{title}: difference of mAP {percent(shares.sum(), signed=True)}")
    axes[1].set(xlabel="person (id); hatched: sign flipped")
    fig.supylabel(f"share of the difference, {POINTS}", fontsize=11)
    return fig


@styled
def flipped_differences(differences: Float[np.ndarray, "pattern"], seen: float) -> Figure:
    """Histogram of a difference over patterns of signs; those at least as far from 0 stand out."""
    far = np.abs(differences) >= abs(seen) - TIE
    fig, ax = plt.subplots(figsize=(WIDTH, 3.2))
    names = ["nearer to 0", f"at least as far: {far.sum()} of {len(far)}"]
    ax.hist([differences[~far], differences[far]], 60, stacked=True, color=[GREY, DOWN],
            label=names)
    for end in (-abs(seen), abs(seen)):
        ax.axvline(end, color=INK, lw=1.5)
    ax.set(xlabel=f"difference of mAP, {POINTS}; lines: as seen, and its opposite",
           ylabel="patterns of signs")
    in_percent(ax.xaxis)
    ax.locator_params(axis="y", integer=True)
    fig.legend(loc="outside lower center", ncols=2)
    return fig


def _signed_bars(ax: Axes, names: pd.Series, gains: pd.Series, pale: pd.Series | None = None,
                 hatched: pd.Series | None = None) -> None:
    """One bar a person; colours say which way, as the side of 0 does."""
    bars = ax.bar(range(len(gains)), gains, width=0.7, color=np.where(gains < 0, DOWN, UP))
    for bar, off in zip(bars, [] if pale is None else pale, strict=False):
        bar.set_alpha(0.3 if off else 1)
    for bar, turned in zip(bars, [] if hatched is None else hatched, strict=False):
        bar.set(hatch="///" if turned else "", edgecolor="white")
    ax.axhline(0, color=INK, lw=1)
    in_percent(ax.yaxis)
    few = len(names) <= LABELLED
    ax.set_xticks(range(len(names)) if few else [], names if few else [], rotation=90 * (
        names.str.len().max() > 4))
    ax.grid(False, axis="x")
