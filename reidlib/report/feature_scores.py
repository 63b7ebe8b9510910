"""Scores of a file of features -> one table to read, or a CSV."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from reidlib.evaluation.protocols import PROTOCOLS
from reidlib.evaluation.statistics import COLUMNS, compare
from reidlib.experiments.records import Scored
from reidlib.report import tables
from reidlib.utils.errors import check_choice
from reidlib.utils.paths import csv_text
from reidlib.utils.text import aligned, render, to_markdown

TEMPLATE = Path(__file__).with_name("templates") / "feature_scores.md.j2"
TABLES = {"text": aligned, "markdown": to_markdown}
FORMATS = (*TABLES, "csv")
SHOWN = {"mAP": "mAP", "rank1": "rank-1", "rank5": "rank-5"}


def check_format(name: str) -> None:
    check_choice("format", name, FORMATS)


def render_scores(name: str, scored: Scored, other_name: str = "", other: Scored | None = None,
                  form: str = "text") -> str:
    """The scores of features with 95 % intervals and, with ``other``, how far they are ahead of it.

    ``form``: text and markdown in percent, for reading; csv with every score as a fraction.
    """
    check_format(form)
    scores = tables.every_interval(scored.queries)
    changes = _changes(scored, other) if other else None
    if form == "csv":
        return csv_text(_lines(scores, changes, scored.left_out))
    reasons = pd.Series(scored.left_out, dtype=str)
    return render(TEMPLATE, {"table": TABLES[form]}, name=name, images=scored.images,
                  scores=_scores(scores, scored.queries),
                  left_out=reasons.index.groupby(reasons),
                  protocols=[PROTOCOLS[p] for p in PROTOCOLS if p not in scored.left_out],
                  changes=None if changes is None else _differences(changes),
                  other=other_name)


def _changes(scored: Scored, other: Scored) -> pd.DataFrame:
    """Every score of both, paired by query.

    The protocols of one score and one distance are a family: which distances are there beside it
    changes no p.
    """
    table = pd.DataFrame(_comparisons(scored, other))
    return pd.concat([tables.with_verdicts(own)
                      for _, own in table.groupby(["row", "score"])]).sort_index()


def _comparisons(scored: Scored, other: Scored) -> Iterator[dict]:
    for (row, protocol), own in scored.queries.groupby(["row", "protocol"], sort=False):
        theirs = tables.cut(other.queries, row, protocol)
        for score, column in COLUMNS.items():
            if own[column].notna().any():
                found = compare(theirs, own, score)
                yield {"row": row, "protocol": protocol, "score": score, **found._asdict()}


def _scores(scores: pd.DataFrame, queries: pd.DataFrame) -> pd.DataFrame:
    """One line a distance and protocol, in percent, with the number of queries that count."""
    wide = tables.cells(scores[scores["score"].isin(SHOWN)], ["row", "protocol"], "score")
    counted = queries.groupby(["row", "protocol"])["AP"].agg(["count", "size"]).loc[wide.index]
    wide = wide[list(SHOWN)].rename(columns=SHOWN)
    wide["queries"] = [f"{r.count_} of {r.size_}" for r in counted.add_suffix("_").itertuples()]
    return wide.rename_axis(["distance", "protocol"]).reset_index()


def _differences(changes: pd.DataFrame) -> pd.DataFrame:
    """One line a distance and protocol, in percentage points."""
    wide = changes.assign(cell=[tables.change(r) for r in changes.itertuples()])
    wide = wide.pivot(index=["row", "protocol"], columns="score", values="cell")
    main = changes[changes["score"] == "mAP"].set_index(["row", "protocol"])
    table = pd.DataFrame({f"change of {SHOWN[score]}": wide[score] for score in ("mAP", "rank1")})
    table = table.loc[main.index].assign(
        **{"p (mAP)": main["p_holm"].map(tables.p_value), "verdict (mAP)": main["verdict"]})
    return table.rename_axis(["distance", "protocol"]).reset_index()


def _lines(scores: pd.DataFrame, changes: pd.DataFrame | None, left_out: dict[str, str]
           ) -> pd.DataFrame:
    """One line a distance, protocol and score, as fractions; left-out protocols with the reason."""
    keys = ["row", "protocol", "score"]
    lines = scores.drop(columns="std")
    if changes is not None:
        kept = [*keys, "difference", "low", "high", "p", "p_holm", "verdict"]
        ends = {name: f"difference_{name}" for name in ("low", "high")}
        lines = lines.merge(changes[kept].rename(columns=ends), on=keys)
    unscored = pd.DataFrame({"protocol": left_out.keys(), "left_out": left_out.values()})
    return pd.concat([lines, unscored]).rename(columns={"row": "distance"})
