"""The paper's ideas, each with training options that were searched for as long as the others'.

Four studies: ``<study>-arms`` has one arm a combination of ideas, and the same number of drawn
configurations for each, scored on held-out training people. The best of each arm is trained again
in ``-arms-folds``, in folds over all people, and in ``-arms-market1501``, on another data set.
``-final`` has some of them at the study's image size, on its test people.
"""

from collections.abc import Sequence

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
RERANKED = (  # each on top of the one above
    ResultRow(ALL_IDEAS, ALL_IDEAS, "query"),
    ResultRow("+ re-ranking, each query alone", ALL_IDEAS, "query", reranked=True, alone=True),
    ResultRow("+ re-ranking", ALL_IDEAS, "query", reranked=True),
)


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


def at_the_edge(best: pd.DataFrame, records: Sequence[dict]) -> list[str]:
    """The arms whose best configuration has the highest rate of the backbone that was drawn.

    ``best``: ``selection`` of these records.
    """
    rates = {r["preset"]: r["config"]["backbone_lr"] for r in records}
    return best.loc[best["the best"].map(rates) == max(rates.values()), "arm"].tolist()


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


def contrasts(own: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """``tables.steps`` of the second of each pair against the first; a family."""
    found = [tables.steps(own[own["row"].isin(pair)], against=pair[0], protocols=None)
             for pair in pairs]
    return tables.with_verdicts(pd.concat(found, ignore_index=True))


def ours(own: pd.DataFrame, fixed: pd.DataFrame) -> pd.DataFrame:
    """``contrasts`` of ours with the plain arm and with the paper's model.

    They came later, so p is corrected for them and for the ``fixed`` ones together.
    """
    later = contrasts(own, OURS_AGAINST)
    family = tables.with_verdicts(pd.concat([later, fixed], ignore_index=True))
    return family.head(len(later))


def final_table(records: Sequence[dict], own: pd.DataFrame) -> pd.DataFrame:
    """One line a preset: what a run of it takes, its mAP and its rank-1 of ``own``, to read."""
    runs = pd.DataFrame([{
        "model": r["preset"], "trainings": r["config"].get("members", 1),
        "epochs": r["config"]["epochs"], "pixels": str(r["config"]["image_size"]),
        "minutes a run": r["cost"]["train_seconds"] / 60} for r in records])
    minutes = runs.groupby([*runs.columns[:-1]], sort=False)["minutes a run"].mean()
    found = tables.every_interval(own, ("mAP", "rank1"))
    shown = tables.cells(found, ["row"], "score").rename(columns={"rank1": "rank-1"})
    return minutes.map("{:.1f}".format).reset_index().merge(shown, left_on="model",
                                                            right_index=True)


def scores(samples: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Sample -> ``queries``, as mAP of each arm: columns row, sample, value, low, high, std."""
    return pd.concat([tables.every_interval(own, ("mAP",)).assign(sample=name)
                      for name, own in samples.items()], ignore_index=True)


def scores_table(found: pd.DataFrame) -> pd.DataFrame:
    """``scores`` to read: one line an arm, one column a sample."""
    return tables.cells(found, ["row"], "sample").reset_index(names="arm")


def sample_name(records: Sequence[dict], own: pd.DataFrame) -> str:
    """Whose people were tested, in a few words."""
    people = own.dropna(subset="AP")["id"].nunique()
    return f"{tables.title(records[0]['data']['name'])}, {people} people"
