"""What the sentences of the report say: does it reproduce, which idea helps, what does better?

Here are the facts; the words are in the templates.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from reidlib.evaluation.statistics import Comparison, compare, corrected, interval, verdict
from reidlib.experiments.presets import COMPARED
from reidlib.experiments.records import by_row, score_table
from reidlib.report.tables import SHOWN, change, cut, paper_scores

PAPER_MODEL = "+ flipped query"  # the row that has all ideas of the paper


class Contrast(NamedTuple):
    """One compared model against another, on each sample of test people (in words)."""

    after: str
    before: str
    found: dict[str, Comparison]


def level(queries: pd.DataFrame, row: str, protocol: str, score: str = "mAP") -> float:
    """A score of one results row under one protocol, a fraction."""
    return interval(cut(queries, row, protocol), score).value


def points(found) -> str:
    """A comparison, or a line of ``steps``, in percentage points, with its verdict."""
    word = (verdict(found.difference, found.p) if isinstance(found, Comparison) else
            found.verdict)
    return f"{change(found)} points ({word})"


def contrasts(samples: dict[str, tuple[pd.DataFrame, pd.DataFrame]]) -> list[Contrast]:
    """The paper's model against its baseline, then `best` against both (mAP, ``standard-all``).

    ``samples``: which test people, in words -> rows of ``COMPARED`` and each idea alone. Models
    that a study did not run are left out.
    """
    baseline, improved, best = (model.label for model in COMPARED)
    lists = []
    for before, after in ((baseline, improved), (improved, best), (baseline, best)):
        sides = {where: (cut(models, before, "standard-all"), cut(models, after, "standard-all"))
                 for where, (models, _) in samples.items()}
        found = {where: compare(*both) for where, both in sides.items()
                 if not any(side.empty for side in both)}
        if found:
            lists.append(Contrast(after, before, found))
    family = iter(corrected([own for contrast in lists for own in contrast.found.values()]))
    return [contrast._replace(found={where: next(family) for where in contrast.found})
            for contrast in lists]


def together(queries: pd.DataFrame) -> dict[str, Any] | None:
    """What the paper's additions do together, against the baseline; None where they did not run.

    ``standard``, ``standard_all``: comparisons of mAP.
    """
    rows = ("baseline", PAPER_MODEL)
    if PAPER_MODEL not in set(queries["row"]):
        return None
    standard, everything = corrected([compare(*(cut(queries, row, protocol) for row in rows))
                                      for protocol in ("standard", "standard-all")])
    return {"standard": standard, "standard_all": everything}


def reproduction(queries: pd.DataFrame) -> dict[str, Any] | None:
    """The numbers of the paper and ours under its rules; None where its model did not run.

    ``models``: name -> paper's and our rank-1 and mAP; ``gains``: of mAP, the paper's and ours.
    """
    rows = {"baseline": "baseline", PAPER_MODEL: "paper's model"}
    if PAPER_MODEL not in set(queries["row"]):
        return None
    paper = paper_scores().set_index("row")
    models = {name: {"paper": paper.loc[row], "rank1": level(queries, row, "lat-top10", "rank1"),
                     "mAP": level(queries, row, "lat-top10")} for row, name in rows.items()}
    (_, first), (_, last) = models.items()
    return {"models": models, "gains": (last["paper"]["mAP"] - first["paper"]["mAP"],
                                        last["mAP"] - first["mAP"])}


def claims(records: Sequence[dict], changes: pd.DataFrame) -> list[dict[str, Any]]:
    """One entry a row of the paper that was run: does it reproduce, and what does the step add?

    A row reproduces where rank-1 and mAP under ``lat-top10`` are within one query's weight of the
    paper's; on other data than the paper's only the steps are compared. ``changes``: ``steps``.

    Keys: row, paper (its line of ``paper_scores``), ours (protocol -> rank1, mAP), level
    ("reproduces", "short", "above", or None on other data), weight (of one query), steps, and
    published (the paper's step of mAP; None for the first row).
    """
    scores, paper = by_row(score_table(records)), paper_scores()
    same_data = records[0]["data"]["name"]
    published = paper.set_index("row")["mAP"]
    found = []
    for row in paper.itertuples():
        own = scores[scores["row"] == row.row]
        if own.empty:
            continue
        ours = {p: own[own["protocol"] == p][["rank1", "mAP", "n_valid_query"]].mean()
                for p in SHOWN}
        weight = 1 / ours["lat-top10"]["n_valid_query"]
        gaps = [ours["lat-top10"]["rank1"] - row.rank1, ours["lat-top10"]["mAP"] - row.mAP]
        outcome = ("reproduces" if all(abs(gap) <= weight for gap in gaps)
                   else "short" if min(gaps) < -weight else "above")
        steps = list(changes[changes["row"] == row.row].itertuples())
        above = steps[0].above if steps else None
        gain = row.mAP - published[above] if above in published else None
        found.append({"row": row.row, "paper": row, "ours": ours, "weight": weight,
                      "level": outcome if row.dataset == same_data else None,
                      "steps": steps, "published": gain})
    return found
