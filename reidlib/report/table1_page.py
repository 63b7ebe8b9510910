"""``reports/table1``: the page of the paper's Table 1, from the records of its studies."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt

from reidlib.figures.dots import rule_dots
from reidlib.figures.style import save_figure
from reidlib.report import statements, table1
from reidlib.report.notebooks import html_page
from reidlib.report.page import TEMPLATES, unbroken
from reidlib.report.table1 import Group
from reidlib.utils.paths import Workspace, csv_text, write_text
from reidlib.utils.text import percent, render

NAME = "table1"  # of the folder
FIGURE = "figures/order"


def write_page(root: Path) -> Path:
    """Write ``report.md`` and ``report.html``, the tables and the figure; returns the first.

    Raises:
        FileNotFoundError: no run of ``table1.STUDIES`` is finished.
    """
    folder, groups = Workspace(NAME, root).reports, table1.read_groups(root)
    found = table1.scores(groups)
    texts = render_all(groups, found, table1.rates(root))
    fig = rule_dots(shown(found))
    save_figure(fig, folder / f"{FIGURE}.png", shown(found))
    plt.close(fig)
    for name, text in texts.items():
        write_text(folder / name, text)
    write_text(folder / "report.html", html_page(unbroken(texts["report.md"]), folder))
    return folder / "report.md"


def render_all(groups: Sequence[Group], found: pd.DataFrame, rates: pd.DataFrame
               ) -> dict[str, str]:
    """The text of each file of the page, by its path in the folder."""
    facts = table1.facts(groups, found)
    orders = [table1.order(group, found) for group in groups if group.records]
    page = render(
        TEMPLATES / "table1.md.j2", {"points": statements.points}, groups=groups, orders=orders,
        scores=scores_table(found), trainings=trainings_table(facts), facts=facts,
        rates=None if rates.empty else rates_table(rates), published=published_table(),
        long_warmups=rates if rates.empty else rates[
            rates["warmup"] >= rates["epochs"]].drop_duplicates("system"),
        systems=[*table1.systems().itertuples()], figure=f"{FIGURE}.png")
    return {"report.md": page, "tables/scores.csv": csv_text(found),
            "tables/runs.csv": csv_text(facts), f"{FIGURE}.csv": csv_text(shown(found))}


def shown(found: pd.DataFrame) -> pd.DataFrame:
    """What the figure shows of ``scores``: the systems, which have places."""
    names = ["dataset", "row", "protocol", "value", "low", "high"]
    return found.loc[found["row"] != table1.OURS, names]


def scores_table(found: pd.DataFrame) -> pd.DataFrame:
    """``table1.scores`` to read: one line a row, below one line a data set."""
    lines = []
    for (title, row), own in found.groupby(["dataset", "row"], sort=False):
        line = {"data set": title, "system": row}
        for r in own.itertuples():
            line |= {f"{r.protocol} rank-1": percent(r.rank1, ends=(r.rank1_low, r.rank1_high)),
                     f"{r.protocol} rank-5": percent(r.rank5),
                     f"{r.protocol} mAP": percent(r.value, r.std, ends=(r.low, r.high))}
        lines.append(line)
    return _by_dataset(pd.DataFrame(lines))


def trainings_table(facts: pd.DataFrame) -> pd.DataFrame:
    """``table1.facts`` to read, in the same way."""
    lines = [{"data set": fact.dataset, "system": fact.row, **_facts_to_read(fact)}
             for fact in facts.itertuples()]
    return _by_dataset(pd.DataFrame(lines))


def _by_dataset(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a line above the rows of each data set in place of its column."""
    parts = []
    for title, own in table.groupby("data set", sort=False):
        parts += [pd.DataFrame([{"system": f"**{title}**"}]), own]
    return pd.concat(parts).drop(columns="data set").fillna(" ")


def _facts_to_read(fact) -> dict[str, str]:
    """A line of ``facts``, in words."""
    stride = "" if pd.isna(fact.stride) else f", stride {fact.stride:.0f}"
    return {
        "million parameters": "–" if pd.isna(fact.parameters) else f"{fact.parameters / 1e6:.1f}",
        "input": f"{fact.height} × {fact.width}{stride}" + ", cameras" * fact.cameras,
        "pre-training": fact.pretraining, "epochs": _of(fact.epochs, fact.published_epochs),
        "images seen": _of(fact.images, fact.published_images),
        "right in the last epoch": percent(None if pd.isna(fact.accuracy) else fact.accuracy),
        "minutes, device": f"{fact.minutes:.1f}, {fact.device}"}


def rates_table(rates: pd.DataFrame) -> pd.DataFrame:
    """``table1.rates`` to read."""
    shown = rates[["lr", "backbone_lr", "scale_lr"]].map(lambda rate: percent(None) if pd.isna(rate)
                                                         else f"{rate:.8f}".rstrip("0"))
    return pd.DataFrame({
        "system": rates["system"], "rate of the heads": shown["lr"],
        "of the backbone": shown["backbone_lr"], "of the scale": shown["scale_lr"],
        "schedule": rates["warmup"].map(lambda n: "constant" if pd.isna(n) else
                                        f"warm-up {n:g}, cosine"),
        "epochs": rates["epochs"], "mAP": rates["value"].map(percent),
        "right in the last epoch": rates["accuracy"].map(percent),
        "best": rates["best"].map({True: "best", False: ""})})


def _of(number: int, published: float | None) -> str:
    return f"{number:,}" + ("" if pd.isna(published) else f" of {published:,.0f}")


def published_table() -> pd.DataFrame:
    """``published`` to read."""
    table = table1.published()
    return pd.DataFrame({
        "data set": table["dataset"], "system": table["system"],
        "in the paper's table": table["quoted"].map({True: "yes", False: "no"}),
        "rank-1": table["rank1"].map(_as_published), "mAP": table["mAP"].map(_as_published),
        "what it measures": table["measures"], "source": table["source"]})


def _as_published(value: float) -> str:
    """Percent with one decimal or with two, as authors give them."""
    return percent(None) if pd.isna(value) else f"{100 * value:.2f}".removesuffix("0")
