"""What the first page says: does it reproduce, do the ideas help, what to believe?

Here are the facts; the words are in the templates.
"""

from typing import NamedTuple

import pandas as pd

from reidlib.evaluation.protocols import PAPER_PROTOCOL
from reidlib.evaluation.statistics import Comparison, Interval, interval, verdict
from reidlib.experiments.presets import IMPROVED, SINGLE_IDEAS
from reidlib.report import tables
from reidlib.report.arms import ALL_IDEAS, FLIPPED, OURS_AGAINST
from reidlib.report.tables import change, cut, paper_scores

PAPER_MODEL = "+ flipped query"  # the row that has all ideas of the paper
# the same ideas, together and alone, in ``report.arms``
SINGLE_ARMS = ("y-pooling", "am-softmax-triplet", FLIPPED)


class Numbers(NamedTuple):
    """mAP by the paper's rules: of its model as published, and here; of its baseline here."""

    published: float
    here: Interval
    baseline: float

    @property
    def verdict(self) -> str:
        """``reached``, ``lower``, or ``undecided``: lower, but published is within the interval."""
        if self.here.value >= self.published:
            return "reached"
        return "undecided" if self.here.high >= self.published else "lower"


def points(found) -> str:
    """A comparison, or a line of ``steps``, in percentage points, with its verdict."""
    word = (verdict(found.difference, found.p) if isinstance(found, Comparison) else
            found.verdict)
    return f"{change(found)} points ({word})"


def numbers(queries: pd.DataFrame) -> Numbers | None:
    """None where the paper's model did not run."""
    own = cut(queries, PAPER_MODEL, PAPER_PROTOCOL)
    if own.empty:
        return None
    published = paper_scores().set_index("row").loc[PAPER_MODEL, "mAP"]
    base = cut(queries, "baseline", PAPER_PROTOCOL)
    return Numbers(float(published), interval(own), float(base["AP"].mean()))


def is_easy(queries: pd.DataFrame) -> bool:
    """Does a model that was not trained for the task look good by the paper's rules alone?"""
    easy, standard = (interval(cut(queries, "not fine-tuned", protocol)).value
                      for protocol in (PAPER_PROTOCOL, "standard"))
    return easy > max(0.5, 2 * standard)


def claims(models: pd.DataFrame, alone: pd.DataFrame, same_rate: pd.DataFrame | None,
           arms: dict[str, pd.DataFrame] | None = None) -> pd.DataFrame:
    """The paper's ideas together and each alone, against the baseline (mAP, ``standard-all``).

    One line a contrast, fixed before any was seen. They are one family; with ``arms`` p and verdict
    are of all contrasts of a sample, these and others. Columns: those of ``tables.steps``, and
    published, the paper's own gain of mAP.

    Args:
        models: per-query scores of ``presets.COMPARED``.
        alone: ``steps`` of ``presets.SINGLE_IDEAS``.
        same_rate: ``steps`` of ``presets.SAME_RATE``, the first line of the result; None without.
        arms: sample -> ``steps`` of ideas with training options of their own. Where there are any
            they count, not the others: those that the paper has, sample after sample (``sample``).
    """
    gains = published_gains()
    if arms:
        found = pd.concat([own.assign(sample=sample) for sample, own in arms.items()])
        found = found[found["row"].isin(gains)]
        # the paper's model first: the fairest of its comparisons
        found = found.sort_values("row", key=lambda row: row != ALL_IDEAS, kind="stable",
                                  ignore_index=True)
        return found.assign(published=found["row"].map(gains))
    parts = [table[table["protocol"] == "standard-all"] for table in
             (same_rate, tables.steps(models, against="baseline"), alone) if table is not None
             and len(table)]
    found = pd.concat(parts, ignore_index=True)
    found = found[found["row"].isin(gains)].reset_index(drop=True)
    return tables.with_verdicts(found.assign(published=found["row"].map(gains)))


def where_ours_is_better(ours: dict[str, pd.DataFrame]) -> dict[tuple[str, ...], list[str]]:
    """Data sets -> the arms that ours is better than on just these.

    ``ours``: sample (data set, and how many people) -> ``arms.ours``.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for arm, _ in OURS_AGAINST:
        where = tuple(sample.split(",")[0] for sample, steps in ours.items()
                      if steps.set_index("above")["verdict"].get(arm) == "better")
        if where:
            found.setdefault(where, []).append(arm)
    return found


def published_gains() -> dict[str, float]:
    """Row of a contrast -> the paper's gain of mAP, by its own rules and on its own images."""
    paper = paper_scores().set_index("row")["mAP"]
    together = paper[PAPER_MODEL] - paper["baseline"]
    each = [paper.iloc[i + 1] - paper.iloc[i] for i in range(len(paper) - 1)]
    ideas = [row.label for row in SINGLE_IDEAS[1:]]
    return {**dict.fromkeys((*IMPROVED, ALL_IDEAS), together),
            **{row: gain for names in (ideas, SINGLE_ARMS)
               for row, gain in zip(names, each, strict=True)}}
