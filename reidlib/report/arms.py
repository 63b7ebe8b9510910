"""The paper's ideas, each with training options that were searched for as long as the others'.

Three studies: ``<study>-arms`` has one arm a combination of ideas, and the same number of drawn
configurations for each, scored on held-out training people. The best of each arm is trained again
in ``-arms-folds``, in folds over all people, and in ``-arms-market1501``, on another data set.
Some are trained once more in ``-final``, on larger pictures and tested on the study's test people.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from reidlib.evaluation.statistics import interval
from reidlib.experiments.presets import ResultRow
from reidlib.report import tables
from reidlib.report.supplementary import changes
from reidlib.utils.text import percent

# study -> the protocol that its contrasts are of, fixed before any was seen
CONFIRMED = {"arms-folds": "standard-all", "arms-market1501": "standard"}
PLAIN = "softmax"            # the arm that all others are compared with
ALL_IDEAS = "all-ideas"      # the paper's model: scored with flipped queries
FLIPPED = "flipped query"    # the idea that needs no training, on the plain arm
OURS = "ours"                # the plain arm and what made it better, of ``<study>-ingredients``
QUICK = "quick"              # one short training of ours, of ``<study>-cheaper``
OURS_AGAINST = ((PLAIN, OURS), (ALL_IDEAS, OURS))
FINAL = (*OURS_AGAINST, ("baseline", QUICK))


def selection(records: Sequence[dict]) -> pd.DataFrame:
    """One line an arm: how far its configurations lie apart, and which did best.

    Scores are mAP on the training people held out (``standard-all``), in percent.
    """
    names = list(dict.fromkeys(r["preset"] for r in records))
    queries = tables.query_rows(records, [ResultRow(name, name, "none") for name in names])
    found = pd.DataFrame({"name": names, "arm": [name.rpartition("-")[0] for name in names],
                          "mAP": [interval(tables.cut(queries, name, "standard-all")).value
                                  for name in names]})
    record_of = {r["preset"]: r for r in records}
    lines = []
    for arm, own in found.groupby("arm", sort=False):
        best = own.loc[own["mAP"].idxmax(), "name"]
        lines.append({"arm": arm, "configurations": len(own),
                      **{name: percent(value) for name, value in
                         own["mAP"].describe()[["min", "50%", "max"]].set_axis(
                             ["worst", "median", "best"]).items()},
                      "the best": best,
                      "its options": changes(record_of[best], record_of[names[0]])})
    return pd.DataFrame(lines)


def last_terms(records: Sequence[dict]) -> pd.Series | None:
    """Mean of the loss's terms in the last epoch, over the runs with a triplet loss; None without.
    """
    own = [r for r in records if r["config"]["triplet_margin"] is not None]
    return tables.last_epochs(own)[["triplet", "identity"]].mean() if own else None


def rows(records: Sequence[dict]) -> list[ResultRow]:
    """The arms of a confirmation, and the plain one with a flipped query."""
    names = list(dict.fromkeys(r["preset"] for r in records))
    flips = {ALL_IDEAS: "query", OURS: flip_of_ours(records)}
    return [*(ResultRow(name, name, flips.get(name, "none")) for name in names),
            ResultRow(FLIPPED, PLAIN, "query")]


def flip_of_ours(records: Sequence[dict]) -> str:
    """Mirrors on both sides where ours was scored so, else none."""
    scored = {score["flip"] for r in records if r["preset"] == OURS for score in r["scores"]}
    return "both" if "both" in scored else "none"


def queries(records: Sequence[dict], protocol: str) -> pd.DataFrame:
    """Per-query scores of ``rows`` under the one protocol that the contrasts are of."""
    found = tables.query_rows(records, rows(records))
    return found[found["protocol"] == protocol]


def ours(own: pd.DataFrame, pairs: Sequence[tuple[str, str]] = OURS_AGAINST) -> pd.DataFrame:
    """``tables.steps`` of the second of each pair against the first; a family."""
    found = [tables.steps(own[own["row"].isin(pair)], against=pair[0], protocols=None)
             for pair in pairs]
    return tables.with_verdicts(pd.concat(found, ignore_index=True))


def final_table(records: Sequence[dict], own: pd.DataFrame) -> pd.DataFrame:
    """One line a row of ``own``: what a run took, its mAP and its rank-1, to read."""
    minutes, found = {}, tables.every_interval(own, ("mAP", "rank1"))
    for record in records:
        minutes.setdefault(record["preset"], []).append(record["cost"]["train_seconds"] / 60)
    config = {record["preset"]: record["config"] for record in records}
    wide = tables.cells(found, ["row"], "score").rename(columns={"rank1": "rank-1"})
    wide = wide[wide.index.isin(minutes)]
    took = {"trainings": [config[row].get("members", 1) for row in wide.index],
            "epochs": [config[row]["epochs"] for row in wide.index],
            "pixels": [config[row]["image_size"] for row in wide.index],
            "minutes a run": [f"{np.mean(minutes[row]):.1f}" for row in wide.index]}
    return pd.concat([pd.DataFrame(took, index=wide.index), wide], axis=1).reset_index(
        names="model")


def scores(samples: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Sample -> ``queries``, as mAP of each arm: columns row, sample, value, low, high, std."""
    return pd.concat([tables.every_interval(own, ("mAP",)).assign(sample=name)
                      for name, own in samples.items()], ignore_index=True)


def scores_table(found: pd.DataFrame) -> pd.DataFrame:
    """``scores`` to read: one line an arm, one column a sample."""
    return tables.cells(found, ["row"], "sample").reset_index(names="arm")


def sample_name(records: Sequence[dict], own: pd.DataFrame) -> str:
    """Whose people were tested, in a few words."""
    name, people = records[0]["data"]["name"], own.dropna(subset="AP")["id"].nunique()
    return f"{tables.TITLES.get(name, name)}, {people} people"
