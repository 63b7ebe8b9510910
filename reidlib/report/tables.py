"""Run records -> the tables of the report. Every number comes from a file that a run wrote."""

from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path

import pandas as pd

from reidlib.evaluation.protocols import PROTOCOLS, SHOWN, Protocol
from reidlib.evaluation.statistics import COLUMNS, compare, holm, interval, verdict
from reidlib.experiments.presets import RESULT_ROWS, ResultRow
from reidlib.experiments.records import SCORES, by_row, device_name, read_tables
from reidlib.utils.text import percent

PAPER = Path(__file__).with_name("paper.csv")
TITLES = {"pku-reid": "PKU-Reid", "market1501": "Market-1501",
          "cuhk03-np-pair1": "CUHK03-NP, camera pair 1"}
PROTOCOLS_COMPARED = ("standard", "standard-all", "lat-top10")


def title(dataset: str) -> str:
    """How a page calls a data set: by its own name where it has no other."""
    return TITLES.get(dataset, dataset)


def query_rows(records: Sequence[dict], rows: Sequence[ResultRow] = RESULT_ROWS) -> pd.DataFrame:
    """The per-query scores of every results row, protocol and seed."""
    return by_row(read_tables(records, "per_query"), rows)


def protocols(queries: pd.DataFrame) -> list[Protocol]:
    """The protocols that a table has scores of."""
    scored = set(queries["protocol"])
    return [rules for name, rules in PROTOCOLS.items() if name in scored]


def cut(queries: pd.DataFrame, row: str, protocol: str) -> pd.DataFrame:
    """One results row under one protocol."""
    return queries[(queries["row"] == row) & (queries["protocol"] == protocol)]


def headline(queries: pd.DataFrame, with_paper: bool = True) -> pd.DataFrame:
    """One line a results row: mAP (percent) per protocol, and the paper's own."""
    lines = [{"model": row, **{f"{p} mAP": _cell(cut(queries, row, p), "mAP")
                               for p in PROTOCOLS_COMPARED}} for row in queries["row"].unique()]
    return _with_paper(pd.DataFrame(lines), {"mAP": "mAP"} if with_paper else {})


def ranks(queries: pd.DataFrame, with_paper: bool = True) -> pd.DataFrame:
    """The same for rank-1 and rank-5 under the two protocols that are always side by side."""
    shown = {"rank-1": "rank1", "rank-5": "rank5"}
    lines = [{"model": row, **{f"{p} {name}": _cell(cut(queries, row, p), score)
                               for p in SHOWN for name, score in shown.items()}}
             for row in queries["row"].unique()]
    return _with_paper(pd.DataFrame(lines), shown if with_paper else {})


def _with_paper(table: pd.DataFrame, scores: dict[str, str]) -> pd.DataFrame:
    """The table with the published scores (name -> column) of the paper's rows."""
    paper = paper_scores().set_index("row")
    return table.assign(**{f"paper {name}": [percent(paper[score].get(row)) for row in
                                             table["model"]] for name, score in scores.items()})


def _cell(own: pd.DataFrame, score: str) -> str:
    """A score in percent, but for rank-5 with its interval; a dash where there is no such score."""
    if own.empty:
        return percent(None)
    found = interval(own, score)
    return percent(found.value, found.std,
                   ends=None if score == "rank5" else (found.low, found.high))


def every_interval(queries: pd.DataFrame, scores: Sequence[str] = SCORES) -> pd.DataFrame:
    """Every one of ``scores`` of every results row and protocol with its interval, as fractions.

    Columns: row, protocol, score, value, low, high, std (over seeds). Left out: INP where the
    protocol does not define it.
    """
    lines = []
    for (row, protocol), own in queries.groupby(["row", "protocol"], observed=True, sort=False):
        for score in scores:
            if own[COLUMNS[score]].notna().any():
                lines.append({"row": row, "protocol": protocol, "score": score,
                              **interval(own, score)._asdict()})
    return pd.DataFrame(lines)


def steps(queries: pd.DataFrame, against: str | None = None,
          protocols: Sequence[str] | None = PROTOCOLS_COMPARED) -> pd.DataFrame:
    """Each results row against the row above, or all ``against`` one: mAP, paired, in fractions.

    ``protocols``: under which; None: all that there are.

    Columns: row, above, protocol, those of ``statistics.Comparison`` and of ``with_verdicts``.
    """
    labels, lines = queries["row"].unique().tolist(), []
    pairs = [(against, label) for label in labels if label != against] if against else (
        pairwise(labels))
    for (above, label), protocol in product(
            pairs, protocols or queries["protocol"].unique()):
        sides = [cut(queries, name, protocol) for name in (above, label)]
        if any(side.empty for side in sides):
            continue
        lines.append({"row": label, "above": above, "protocol": protocol,
                      **compare(*sides)._asdict()})
    return with_verdicts(pd.DataFrame(lines))


def with_verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Comparisons that are one family, with p_holm (Holm's correction) and verdict of each."""
    if table.empty:
        return table
    p_holm = holm(table["p"].tolist())
    words = map(verdict, table["difference"], p_holm)
    return table.assign(p_holm=p_holm, verdict=[*words])


def compared_steps(models: pd.DataFrame, baseline: str = "baseline",
                   improved: str = "improved") -> pd.DataFrame:
    """``steps`` of every compared model against the baseline, and of `best` against the paper's.

    ``models``: ``query_rows`` of ``presets.COMPARED``, or of others with these names.
    """
    best = models[models["row"].isin([improved, "best"])]
    parts = [steps(models, against=baseline), steps(best, against=improved)]
    return with_verdicts(pd.concat(parts, ignore_index=True))


def first_hits(queries: pd.DataFrame, before: str, after: str) -> tuple[int, int, int]:
    """First answers that row ``after`` corrects and makes wrong under ``standard``, scored queries.

    Over all seeds: a query counts once a seed.
    """
    sides = [cut(queries, row, "standard").dropna(subset="AP").set_index(["path", "seed"])
             for row in (before, after)]
    right = [side["rank1"].eq(1).sort_index() for side in sides]
    return (int((~right[0] & right[1]).sum()), int((right[0] & ~right[1]).sum()), len(right[0]))


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """What a table has under the two protocols that are always side by side."""
    return table[table["protocol"].isin(SHOWN)]


def mean_cmc(records: Sequence[dict]) -> pd.DataFrame:
    """CMC of every results row by rank, mean over seeds, under the ``shown`` protocols."""
    cmc = shown(by_row(read_tables(records, "cmc")))
    return cmc.groupby(["row", "protocol", "rank"], observed=True)["cmc"].mean().reset_index()


def change(found) -> str:
    """A ``Comparison``, or a line of ``steps``, in percentage points."""
    return percent(found.difference, found.std, True, (found.low, found.high))


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def steps_table(table: pd.DataFrame) -> pd.DataFrame:
    """``steps`` in percent, for reading."""
    return pd.DataFrame({
        "step": table["row"], "against": table["above"], "protocol": table["protocol"],
        "change of mAP": [change(r) for r in table.itertuples()],
        "p": table["p_holm"].map(p_value), "verdict": table["verdict"]})


def verification(records: Sequence[dict]) -> pd.DataFrame:
    """Share of true pairs accepted at each false positive rate, mean over seeds, in percent."""
    table = pd.concat([pd.DataFrame(r["verification"]).assign(
        preset=r["preset"], seed=r["seed"], reranked=False) for r in records])
    table = by_row(table).groupby(["row", "fpr"], observed=True)["tpr"].agg(["mean", "std"])
    cells = [percent(m, s) for m, s in zip(table["mean"], table["std"], strict=True)]
    wide = table.assign(cell=cells)["cell"].unstack()
    wide.columns = [f"TPR at FPR {percent(rate)} %" for rate in wide.columns]
    return wide.reset_index(names="model").astype(str)


def cells(scores: pd.DataFrame, index: list[str], columns: str) -> pd.DataFrame:
    """Scores with intervals in percent, as a table in the order that they are given in."""
    shown = [percent(r.value, r.std, ends=(r.low, r.high)) for r in scores.itertuples()]
    wide = scores.assign(cell=shown).pivot(index=index, columns=columns, values="cell")
    order = scores[index].drop_duplicates()
    wide = wide.loc[order[index[0]] if len(index) == 1 else list(order.itertuples(index=False))]
    return wide[scores[columns].unique()].rename_axis(columns=None).fillna(percent(None))


def every_protocol(queries: pd.DataFrame) -> pd.DataFrame:
    """mAP of the same embeddings under every protocol: one column a protocol, in percent."""
    wide = cells(every_interval(queries, ("mAP",)), ["row"], "protocol")
    return wide[[name for name in PROTOCOLS if name in wide]].reset_index(names="model")


def unconverged(records: Sequence[dict], least: float = 0.9) -> pd.Series:
    """By preset: accuracy on training images in the last epoch, mean over seeds, below ``least``.

    Such a score says how fast a model learns, not how far.
    """
    found = last_epochs(records).groupby("preset", sort=False)["accuracy"].mean()
    return found[found < least]


def last_epochs(records: Sequence[dict]) -> pd.DataFrame:
    """The last line of each run's history."""
    history = read_tables(records, "history")
    return history[history["epoch"] == history.groupby("run")["epoch"].transform("max")]


def cost(records: Sequence[dict]) -> pd.DataFrame:
    """What each preset took: epochs, minutes of training a run, and on what."""
    rows = pd.DataFrame([{"preset": r["preset"], "epochs": r["config"]["epochs"],
                          "minutes": r["cost"]["train_seconds"] / 60, "device": device_name(r)}
                         for r in records])
    table = rows.groupby(["preset", "epochs", "device"], sort=False)["minutes"]
    table = table.agg(["count", "mean"]).reset_index()
    table["mean"] = table["mean"].map("{:.1f}".format)
    return table.rename(columns={"count": "runs", "mean": "minutes a run"})


def largest_gains(before: pd.DataFrame, after: pd.DataFrame, n: int) -> pd.DataFrame:
    """Queries whose first answer was wrong before and is right after, by gain in AP; at most ``n``.

    Both are per-query tables of one run under one protocol and flip.
    """
    both = before.merge(after, on=["path", "id", "cam"], suffixes=("_before", "_after"))
    corrected = both[(both["first_hit_before"] > 1) & (both["first_hit_after"] == 1)]
    gain = corrected["AP_after"] - corrected["AP_before"]
    return (corrected.assign(gain=gain).sort_values(["gain", "path"], ascending=[False, True])
            .head(n).reset_index(drop=True))


def worst_queries(per_query: pd.DataFrame, n: int) -> pd.DataFrame:
    """The ``n`` scored queries of lowest AP."""
    scored = per_query.dropna(subset="AP")
    return scored.sort_values(["AP", "path"]).head(n).reset_index(drop=True)


def paper_scores() -> pd.DataFrame:
    """The paper's own numbers, and where they are in it."""
    return pd.read_csv(PAPER)


def has_paper_scores(dataset: str) -> bool:
    """Whether the paper's numbers are of this data set: on others they compare with nothing."""
    return dataset in set(paper_scores()["dataset"])

