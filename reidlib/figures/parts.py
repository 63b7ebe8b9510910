"""Patches, parts and what a model makes of them: bands and masks on a picture, tensors as maps."""

from collections.abc import Mapping

import numpy as np
import seaborn as sns
import torch
from jaxtyping import Float, UInt8
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cosine_similarity

from reidlib.figures.style import INK, WIDTH, styled
from reidlib.models.la_transformer import LATransformer

Picture = UInt8[np.ndarray, "height width 3"]
Shares = Float[np.ndarray, "parts rows columns"]

MANY = 10  # more parts than these need thinner lines and smaller numbers
MASK = "#e66100"  # seen on dark and on bright pictures
MAP = "viridis"  # one colour scale for all tensors; also for the colour-blind


def part_weights(model: LATransformer) -> Shares:
    """The share of each patch in each local part; the shares of a part add up to 1.

    Parts are linear in the tokens: one patch that is 1 among zeros shows its share in each part.
    """
    patches = torch.eye(model.grid[0] * model.grid[1])[:, :, None]
    others = torch.zeros(len(patches), model.backbone.num_prefix_tokens, 1)
    local, _ = model.parts(torch.cat([others, patches], 1))
    return local[..., 0].T.unflatten(1, model.grid).numpy()


def part_colours(n: int) -> list[str]:
    """One colour a part, from the top to the bottom."""
    return sns.color_palette("husl", n).as_hex()


def _show(ax: Axes, picture: np.ndarray, grid: tuple[int, int]) -> None:
    """Draw a picture with the lines between its patches."""
    height, width = picture.shape[0] / grid[0], picture.shape[1] / grid[1]
    line = {"color": "white", "lw": 0.3 if max(grid) > MANY else 0.6}
    ax.imshow(picture)
    for row in range(1, grid[0]):
        ax.axhline(row * height - 0.5, **line)
    for column in range(1, grid[1]):
        ax.axvline(column * width - 0.5, **line)
    ax.set(xticks=[], yticks=[], xlim=(-0.5, picture.shape[1] - 0.5),
           ylim=(picture.shape[0] - 0.5, -0.5))
    ax.grid(False)


def _over(picture: np.ndarray, colours: Float[np.ndarray, "rows columns 3"],
          opacity: Float[np.ndarray, "rows columns"]) -> np.ndarray:
    """The picture in grey, each patch under its colour (fractions), as opaque as given."""
    height, width = picture.shape[:2]
    rows, columns = (np.arange(size) * n // size for size, n in
                     zip((height, width), opacity.shape, strict=True))
    grey = picture.mean(2, keepdims=True).repeat(3, 2)
    share = opacity[rows][:, columns, None]
    return ((1 - share) * grey + share * 255 * colours[rows][:, columns]).round().astype(np.uint8)


@styled
def part_bands(picture: Picture, weights: Shares) -> Figure:
    """A picture cut into patches, and beside it each patch in the colour of its part.

    ``weights``: see ``part_weights``; a patch has the part in which its share is the largest.
    """
    n, *grid = weights.shape
    colours = part_colours(n)
    fig, axes = plt.subplots(1, 2, figsize=(4.2, 4.2))
    for ax in axes:
        _show(ax, picture, tuple(grid))
    part = weights.argmax(0)
    axes[1].images[0].set_data(_over(picture, np.array([to_rgb(c) for c in colours])[part],
                                     np.full(part.shape, 0.45)))
    axes[0].set_title(f"{grid[0]} × {grid[1]} patches")
    axes[1].set_title(f"{n} parts")
    middle = [(part == i).any(1).nonzero()[0].mean() for i in range(n)]
    places = (np.array(middle) + 0.5) * picture.shape[0] / grid[0] - 0.5
    axes[1].set_yticks(places, [str(i + 1) for i in range(n)])
    axes[1].yaxis.tick_right()
    _colour_ticks(axes[1], colours)
    return fig


def _colour_ticks(ax: Axes, colours: list[str]) -> None:
    """Each label of the vertical axis, the number of a part, on the colour of the part."""
    ax.tick_params(axis="y", length=0, pad=5)
    for label, colour in zip(ax.get_yticklabels(), colours, strict=True):
        label.set(fontsize=6 if len(colours) > MANY else 8, color=INK, bbox={
            "facecolor": colour, "edgecolor": "none", "boxstyle": "square,pad=0.15", "alpha": 0.7})


@styled
def part_masks(picture: Picture, models: Mapping[str, Shares], shown: list[int]) -> Figure:
    """Which patches some parts are means of: one row of pictures a model, one column a part.

    ``models``: name -> ``part_weights``; ``shown``: parts, from 0. A patch is the more orange, the
    larger its share; in the label the largest share, in percent.
    """
    cell = max(2.1 * picture.shape[1] / picture.shape[0], 1.3)  # inches; the label needs some
    fig, axes = plt.subplots(len(models), len(shown), squeeze=False,
                             figsize=(cell * len(shown) + 0.4, 2.6 * len(models)))
    for line, (name, weights) in zip(axes, models.items(), strict=True):
        orange = np.broadcast_to(np.array(to_rgb(MASK)), (*weights.shape[1:], 3))
        for ax, i in zip(line, shown, strict=True):
            most = weights[i].max()
            _show(ax, _over(picture, orange, 0.85 * weights[i] / most), weights.shape[1:])
            ax.set_title(f"part {i + 1}", fontsize=10)
            ax.set_xlabel(f"at most {100 * most:.1f} %", fontsize=9)
        line[0].set_ylabel(name)
    return fig


def _tensor(ax: Axes, values: np.ndarray, title: str, below: str, colours: list[str]) -> None:
    ax.imshow(values, aspect="auto", cmap=MAP, interpolation="nearest")
    ax.set_title(title, fontsize=10.5)
    ax.set_xlabel(below, fontsize=9)
    ax.set(xticks=[], yticks=range(len(colours)))
    ax.set_yticklabels([str(i + 1) for i in range(len(colours))])
    ax.grid(False)
    _colour_ticks(ax, colours)


@styled
def image_flow(model: LATransformer, image: UInt8[Tensor, "1 3 height width"]) -> Figure:
    """One image on its way through a model: patches, tokens, parts, logits, each with its shape.

    The paper's Figs. 1 and 3, from the live tensors. Of a patch token the map shows its cosine to
    the class token.
    """
    with torch.no_grad():
        tokens = model.eval().tokens(image)
        mixed, logits = model.parts(tokens)[1], model(image).logits
    patches = tokens[:, model.backbone.num_prefix_tokens:]
    similar = cosine_similarity(patches, tokens[:, :1], dim=2)[0].unflatten(0, model.grid)
    rows, columns = model.grid
    colours = part_colours(rows)
    fig, axes = plt.subplots(1, 4, figsize=(WIDTH, 2.5))
    _show(axes[0], image[0].permute(1, 2, 0).numpy(), model.grid)
    axes[0].set_title("image", fontsize=10.5)
    axes[0].set_xlabel(" × ".join(map(str, image.shape[1:])), fontsize=9)
    axes[0].set_aspect("auto")  # its rows stay beside those of the maps, whatever its shape
    width = tokens.shape[2]
    _tensor(axes[1], similar.numpy(), "→ patch tokens", f"{rows} × {columns} × {width}", colours)
    _tensor(axes[2], mixed[0].numpy(), "→ parts", f"{rows} × {width}", colours)
    _tensor(axes[3], logits[0].numpy(), "→ part logits", f"{rows} × {logits.shape[2]} people",
            colours)
    return fig
