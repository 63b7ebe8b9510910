"""One training step: reidlib and the usual code, next to the bare backbone's; its growth.

Seconds are of one step of a batch, everything included: taking the batch out of the memory-mapped
array, mirroring, heads, losses, gradient norm. `python -m tests.benchmarks.training --device cuda`
fills the rows of the GPU.
"""

import math
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pandas as pd
import timm
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter
from torch.utils.flop_counter import FlopCounterMode

from reidlib.data.batches import Batches, ShuffleSampler
from reidlib.figures.style import LINES, MARKERS, PALETTE, WIDTH, save_figure, styled
from reidlib.losses import ReidLoss
from reidlib.training.build import compiled
from reidlib.training.loop import TrainingOptions, fit
from reidlib.training.optimisers import blockwise, make_optimiser
from reidlib.utils.paths import write_csv
from reidlib.utils.reproducibility import algorithms
from reidlib.utils.text import to_markdown
from tests.benchmarks.measure import Candidate, main
from tests.benchmarks.plain import does_the_same_work, train_plainly
from tests.benchmarks.workload import BACKBONES, Pictures, Step

EPOCHS = 30  # of the blockwise schedule
MATRIX = {"cpu": 2048, "cuda": 8192}  # rows and columns of the product that rates a machine
PRODUCTS = 20


def train_reidlib(step: Step, pictures: Pictures, release: bool = False, compile_it: bool = False,
                  deterministic: bool = False):
    """The improved model's steps; with ``release`` one for each epoch of the blockwise schedule."""
    config, device = step.config(), torch.device(step.device)
    model = step.model(int(pictures.labels.max()) + 1).to(device)
    n = step.batch if release else len(pictures.images)
    batches = Batches(pictures.images[:n], pictures.labels[:n], ShuffleSampler(n, step.batch),
                      device)
    loss = ReidLoss(config.am_margin, config.am_scale, config.triplet_margin)
    optimiser = make_optimiser(model, config.lr, config.backbone_lr, config.weight_decay)
    options = TrainingOptions(blockwise(model, optimiser)) if release else TrainingOptions()

    def steps() -> float:
        with (algorithms(deterministic), compiled(model) if compile_it else nullcontext(),
              step.accelerator(may_freeze=release) as accelerator):
            history = fit(model, batches.epoch, loss, optimiser, EPOCHS if release else 1, options,
                          accelerator=accelerator)
        step.wait()
        return history[-1]["loss"]

    return steps


def learns(loss: float, *_) -> bool:
    return math.isfinite(loss) and loss > 0


def multiply(step: Step, _: Pictures):
    """The plain product of two square matrices, which rates the machine."""
    n = 64 if step.small else MATRIX[step.device]
    kind = torch.bfloat16 if step.precision == "bf16" else torch.float32
    left, right = (torch.randn(n, n, device=step.device, dtype=kind) for _ in range(2))

    def products() -> None:
        for _ in range(PRODUCTS):
            left @ right
        step.wait()

    return products


def candidates(steps: list[Step], growth: list[Step]) -> list[Candidate]:
    """Everything for the first of ``steps``, the essentials for the others and the growth."""
    rows = []
    for step in steps:
        rows += [Candidate(f"floor matrix product of {MATRIX[step.device]} x "
                           f"{MATRIX[step.device]}", step, multiply, lambda *_: True, ("torch",),
                           steps=PRODUCTS),
                 Candidate("floor bare backbone", step, step.floor, lambda *_: True,
                           ("torch", "timm")),
                 _reidlib("training", step)]
        if step == steps[0]:
            rows += [_reidlib(f"blockwise, mean of {EPOCHS} epochs", step, 2, EPOCHS, release=True),
                     _reidlib("deterministic", step, deterministic=True),
                     _reidlib("compiled", step, compile_it=True)]
    rows += [Candidate("plain PIL in workers, a module a part", step, train_plainly,
                       lambda loss, *data: learns(loss) and does_the_same_work(*data),
                       ("torch", "timm", "torchvision"), 3, step.batches)
             for step in in_full_precision(steps)]
    return [*rows, *(_reidlib("training", step, 2) for step in growth)]


def in_full_precision(steps: list[Step]) -> list[Step]:
    """The same steps in fp32, each once."""
    return list(dict.fromkeys(replace(step, precision="fp32") for step in steps))


def _reidlib(name: str, step: Step, repeats: int = 5, steps: int = 0, **options) -> Candidate:
    return Candidate(f"reidlib {name}", step, partial(train_reidlib, **options), learns,
                     ("torch", "timm", "accelerate"), repeats, steps or step.batches)


def growth_table(table: pd.DataFrame) -> pd.DataFrame:
    """What reidlib's plain steps cost an image, and what share of the matrix rate the floor has."""
    size = table["size"].str.extract(r"vit_(?P<backbone>\w+)_patch16 (?P<pixels>\d+) px x "
                                     r"(?P<batch>\d+), (?P<precision>\w+)")
    table = pd.concat([table, size.astype({"pixels": int, "batch": int})], axis=1)
    steps = table[table["name"] == "reidlib training"].drop_duplicates(["size", "device"])
    products = table[table["name"].str.startswith("floor matrix")]
    rate = {(p.device, p.precision): 2 * MATRIX[p.device] ** 3 / p.seconds
            for p in products.itertuples()}
    flops = {key: _flops(*key) for key in set(zip(steps["backbone"], steps["pixels"], strict=True))}
    floor = steps["seconds"] / steps["ratio_to_floor"] / steps["batch"]
    work = [flops[key] / rate.get(where, math.nan) for key, where in
            zip(zip(steps["backbone"], steps["pixels"], strict=True),
                zip(steps["device"], steps["precision"], strict=True), strict=True)]
    return steps.assign(
        ms_per_image=1000 * steps["seconds"] / steps["batch"],
        images_per_second=steps["batch"] / steps["seconds"],
        floor_ms_per_image=1000 * floor, floor_share_of_matrix_rate=work / floor,
    )[["device", "precision", "backbone", "batch", "ms_per_image", "images_per_second",
       "floor_ms_per_image", "floor_share_of_matrix_rate"]].sort_values(
        ["device", "precision", "backbone", "batch"], key=_in_order, ignore_index=True)


def _in_order(column: pd.Series) -> pd.Series:
    return column.map(BACKBONES.index) if column.name == "backbone" else column


def _flops(backbone: str, pixels: int) -> int:
    """Of the bare backbone's forward and backward for one image, counted by torch."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = timm.create_model(f"vit_{backbone}_patch16_224", num_classes=0, img_size=pixels)
        model(torch.empty(1, 3, pixels, pixels)).sum().backward()
    return counter.get_total_flops()


@styled
def growth_figure(table: pd.DataFrame) -> Figure:
    """Milliseconds an image against the batch: a line a backbone, a panel a device."""
    measured = table.dropna(subset="ms_per_image")
    devices = sorted(set(measured["device"]))
    fig, axes = plt.subplots(1, len(devices), figsize=(WIDTH, 3.4), squeeze=False)
    for ax, device in zip(axes[0], devices, strict=True):
        lines = measured[measured["device"] == device].groupby(["backbone", "precision"])
        for (backbone, precision), rows in sorted(lines, key=lambda line: _rank(*line[0])):
            i = BACKBONES.index(backbone)
            ax.plot(rows["batch"], rows["ms_per_image"], color=PALETTE[i], marker=MARKERS[i], ms=7,
                    mfc="white" if precision == "bf16" else PALETTE[i], ls=LINES[i],
                    label=f"ViT-{backbone.title()}, {precision}")
        ax.set(xscale="log", yscale="log", xlabel="images a batch", title=device,
               ylabel="milliseconds an image")
        batches = sorted(set(measured["batch"]))
        ax.set_xticks(batches, [str(batch) for batch in batches])
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.minorticks_off()
        ax.legend()
    fig.suptitle("One training step, reidlib, everything included")
    return fig


def _rank(backbone: str, precision: str) -> tuple[int, str]:
    return BACKBONES.index(backbone), precision


def steps_on(device: str) -> tuple[list[Step], list[Step]]:
    """The steps that are compared, and those that show the growth."""
    if device == "cpu":
        first = Step("tiny", 32)
        sizes = {"tiny": (16, 64, 128, 256), "small": (16, 32, 64), "base": (16,)}
        return [first, replace(first, precision="bf16")], [
            replace(first, backbone=name, batch=batch, batches=1)
            for name, batches in sizes.items() for batch in batches]
    first = Step("base", 128, "bf16", device, batches=16)
    return [replace(first, backbone=name) for name in BACKBONES[::-1]], [
        replace(first, backbone=name, batch=batch)
        for name in BACKBONES for batch in (16, 32, 64, 256)]


def both_devices(make) -> list[Candidate]:
    return [row for device in ("cpu", "cuda") for row in make(*steps_on(device))]


if __name__ == "__main__":
    small = [replace(Step("tiny", 32).tiny(), precision=p) for p in ("fp32", "bf16")]
    measured, folder = main("training", {"full": both_devices(candidates),
                                         "small": candidates(small, [])}, ("cpu", "cuda"))
    growth = growth_table(measured)
    write_csv(folder / "growth.csv", growth)
    print(to_markdown(growth.dropna(subset="ms_per_image").round(3)))
    save_figure(growth_figure(growth), folder / "growth.png")
