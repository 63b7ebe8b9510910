"""One look for all figures, and saving a figure together with the data it was drawn from.

A model (a preset, or its row of the ablation) has one colour, marker and line in every figure, and
no distinction rests on colour alone. Frames hold fractions in [0, 1], and so do the axes: what one
reads on them is in percent.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import NamedTuple, ParamSpec

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from PIL import Image

from reidlib.evaluation.protocols import PAPER_PROTOCOL, PROTOCOLS
from reidlib.utils.paths import atomic_write, write_csv

P = ParamSpec("P")

WIDTH = 7.0  # inches; text of 11 points stays readable when the figure fills half a page
PALETTE = sns.color_palette("colorblind").as_hex()
INK, GREY = "#333333", PALETTE[7]
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = "osv^DPX*p<>hd8H"  # all filled, the most different ones first
STYLE = sns.axes_style("whitegrid") | {
    "font.size": 11, "axes.titlesize": 11.5, "axes.labelsize": 11, "xtick.labelsize": 10,
    "ytick.labelsize": 10, "legend.fontsize": 10, "figure.titlesize": 12,
    "font.sans-serif": ["DejaVu Sans"], "legend.frameon": False, "savefig.bbox": "standard",
    "figure.constrained_layout.use": True, "grid.color": "#dddddd"}
ORDER = tuple(sorted(PROTOCOLS, key=lambda name: (  # from what leaves out most to the paper's
    name == PAPER_PROTOCOL, not PROTOCOLS[name].drop_same_camera,
    not PROTOCOLS[name].drop_copies, PROTOCOLS[name].draws is not None)))


class Look(NamedTuple):
    """How a model is drawn, as ``plot`` takes it: colour, marker, line."""

    color: str
    marker: str
    ls: str | tuple


# The ablation's rows and the presets behind them look the same.
_MODELS = (
    (Look(GREY, "v", ":"), "untrained", "not fine-tuned"),
    (Look(PALETTE[0], "o", "-"), "baseline", "softmax", "LA-Transformer"),
    (Look(PALETTE[1], "^", "--"), "ypool", "y-pooling", "+ y-pooling"),
    (Look(PALETTE[5], "<", LINES[4]), "amtriplet", "am-softmax-triplet"),
    (Look(PALETTE[4], "P", "-."), "+ AM-Softmax, triplet"),
    (Look(PALETTE[2], "s", (0, (5, 1))), "improved", "all-ideas", "+ flipped query"),
    (Look(PALETTE[3], "X", "-."), "+ re-ranking", "+ re-ranking, each query alone"),
    (Look("#882255", "D", "-"), "best", "ours"),
    (Look("#332288", "p", "--"), "best, re-ranking", "best, re-ranking, each query alone"),
    # the other systems of the paper's Table 1; variants of one share its look
    (Look("#aa4499", "^", "--"), "TransReID", "TransReID, without cameras"),
    (Look("#999933", "s", "-."), "AlignedReID", "AlignedReID, global + local distance"),
    (Look("#cc6677", "D", ":"), "Deep Cosine"),
)
MODELS = {name: look for look, *names in _MODELS for name in names}
_SPARE = [Look(colour, *rest) for colour, *rest in zip(
    (PALETTE[9], PALETTE[6], "#117733", "#000000", PALETTE[8]), ">hd8*", LINES, strict=True)]


def looks(names: Sequence[str]) -> dict[str, Look]:
    """Look of each model: the fixed one, or for unknown names the next that is still free."""
    unknown = [name for name in names if name not in MODELS]
    if len(unknown) > len(_SPARE):
        raise ValueError(f"no colours left for {unknown[len(_SPARE):]}")
    spare = dict(zip(unknown, _SPARE, strict=False))
    return {name: MODELS.get(name) or spare[name] for name in names}


def protocols_in(frame: pd.DataFrame) -> list[str]:
    """The protocols of ``frame``: from the standard one to the paper's, then any others."""
    found = in_order(frame["protocol"])
    return [name for name in dict.fromkeys([*ORDER, *found]) if name in found]


def protocol_title(name: str) -> str:
    """Name of a protocol, the paper's marked."""
    return f"{name} (the paper's)" if name == PAPER_PROTOCOL else name


def in_percent(axis: Axis) -> None:
    """Label the ticks of an axis of fractions in percent."""
    axis.set_major_formatter(PercentFormatter(1, symbol=""))


def sample(**look) -> Line2D:
    """A legend entry for a marker or line of that look."""
    return Line2D([], [], **{"ls": "none", "color": INK, **look})


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run ``draw`` in our style, and lay out in it too: matplotlib makes ticks only then."""
    @wraps(draw)
    def draw_in_style(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with plt.rc_context(STYLE):
            fig = draw(*args, **kwargs)
            fig.draw_without_rendering()
        return fig
    return draw_in_style


def save_figure(fig: Figure, path: Path, data: pd.DataFrame | None = None,
                dpi: int = 150) -> Path:
    """Write ``fig`` as a PNG and ``data`` as ``<stem>.csv`` next to it.

    The PNG has ``dpi`` dots per inch (100 is enough for photographs) and 256 colours: a third of
    the size, and it looks the same. Each file is written completely; when one cannot be, the old
    ones stay. The same figure gives the same bytes. Returns ``path``.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"{path}: figures are saved as .png")
    with atomic_write(path) as png, plt.rc_context(STYLE):
        fig.savefig(png, format="png", dpi=dpi, metadata={"Software": None})
        with Image.open(png) as image:
            palette = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        palette.save(png, format="png", optimize=True)
        if data is not None:
            write_csv(path.with_suffix(".csv"), data)
    return path


def remove_figure(path: Path) -> None:
    """Remove what ``save_figure`` wrote before, where there is nothing to show any more."""
    for file in (path, path.with_suffix(".csv")):
        file.unlink(missing_ok=True)


def check_frame(frame: pd.DataFrame, key: list[str], fractions: Sequence[str] = (),
                others: Sequence[str] = ()) -> None:
    """Raise ValueError unless ``frame`` has rows and all these columns, one row per ``key``, and
    values in [0, 1] in the columns ``fractions``."""
    columns = [*key, *fractions, *others]
    missing = [name for name in columns if name not in frame]
    if missing:
        raise ValueError(f"missing columns {missing}; found {list(frame.columns)}")
    if frame.empty:
        raise ValueError(f"no rows to draw; expected columns {columns}")
    if key and frame.duplicated(key).any():
        twice = frame.loc[frame.duplicated(key), key].iloc[0].to_dict()
        raise ValueError(f"more than one row for {twice}")
    for name in fractions:
        outside = frame.loc[~frame[name].between(0, 1), name]
        if len(outside):
            raise ValueError(f"{name} must be a fraction in [0, 1], found {outside.iloc[0]}")


def in_order(column: pd.Series) -> list:
    """Distinct values: in the order of an ordered categorical, else of first appearance."""
    values = column.drop_duplicates()
    if isinstance(column.dtype, pd.CategoricalDtype) and column.dtype.ordered:
        values = values.sort_values()
    return values.tolist()
