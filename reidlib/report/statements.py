"""Scores -> sentences: what was run, does it reproduce, which idea helps, what does better?"""

from collections.abc import Mapping, Sequence

import pandas as pd

from reidlib.evaluation.statistics import Comparison, compare, interval, verdict
from reidlib.experiments.presets import COMPARED
from reidlib.experiments.records import by_row, score_table
from reidlib.experiments.study import Study
from reidlib.report.tables import SHOWN, change, cut, first_hits, paper_scores
from reidlib.utils.text import percent


def setting(study: Study, records: Sequence[dict]) -> str:
    """One sentence: data, queries, backbone, schedule, epochs, seeds."""
    baseline = next(r for r in records if r["preset"] == "baseline")
    seeds = ", ".join(map(str, study.seeds))
    return (f"{setting_of(baseline)[:-1]}, seeds {seeds} "
            f"({'mean ± standard deviation' if len(study.seeds) > 1 else 'one seed: no spread'}).")


def setting_of(record: dict) -> str:
    """One sentence: a run's data, queries, backbone, schedule, epochs."""
    config, counts = record["config"], record["data"]["counts"]
    return (f"Study `{record['study']}`: {counts['train']['images']} training images of "
            f"{counts['train']['identities']} people, {counts['query']['images']} queries against "
            f"{counts['gallery']['images']} gallery images of {counts['gallery']['identities']} "
            f"people; {config['backbone']} at {config['image_size']} pixels, {config['schedule']} "
            f"training, {config['epochs']} epochs, {config['precision']}.")


def setting_of_folds(records: Sequence[dict]) -> str:
    """One sentence: the people of a cross-validation, and how its models were trained."""
    folds = {r["data"]["checksum"]: r["data"]["counts"] for r in records}
    config, seeds = records[0]["config"], {r["seed"] for r in records}
    people = sum(counts["query"]["identities"] for counts in folds.values())
    trained = sorted({counts["train"]["identities"] for counts in folds.values()})
    return (f"{people} people in {len(folds)} fold{'s' * (len(folds) > 1)}, models trained on "
            f"{' or '.join(map(str, trained))} others; {config['schedule']} training, "
            f"{config['epochs']} epochs, {config['precision']}, {len(seeds)} "
            f"seed{'s' * (len(seeds) > 1)} a fold.")


def verdicts(records: Sequence[dict], changes: pd.DataFrame) -> list[str]:
    """One sentence a row of the paper: does it reproduce, and what does the step add?

    A row reproduces where rank-1 and mAP under ``lat-top10`` are within one query's weight of the
    paper's; on other data than the paper's only the steps are compared. ``changes``: ``steps``.
    """
    scores = by_row(score_table(records))
    same_data = records[0]["data"]["name"]
    paper, sentences = paper_scores(), []
    for i, row in enumerate(paper.itertuples()):
        ours = {p: scores[(scores["row"] == row.row) & (scores["protocol"] == p)] for p in SHOWN}
        sentence = f"**{row.row}**: "
        if row.dataset == same_data:
            sentence += _level(ours, row)
        if i:
            sentence += _step(changes[changes["row"] == row.row], row.mAP - paper["mAP"][i - 1])
        elif row.dataset != same_data:
            sentence += _plain(ours)
        sentences.append(sentence.strip())
    return sentences


def _level(ours: dict[str, pd.DataFrame], row) -> str:
    paper_like, standard = ours["lat-top10"], ours["standard"]
    weight = 1 / paper_like["n_valid_query"].iloc[0]
    gaps = [paper_like["rank1"].mean() - row.rank1, paper_like["mAP"].mean() - row.mAP]
    if all(abs(gap) <= weight for gap in gaps):
        level = "it reproduces, to within one query"
    elif min(gaps) < -weight:
        level = "it falls short of the paper by more than one query"
    else:
        level = "it does not reproduce: it is better by more than one query"
    return (f"rank-1 {percent(paper_like['rank1'].mean())} and mAP "
            f"{percent(paper_like['mAP'].mean())} under `lat-top10`, the paper has "
            f"{percent(row.rank1)} and {percent(row.mAP)} ({row.source}): {level} "
            f"({percent(weight)} points). Under `standard` the same embeddings have "
            f"rank-1 {percent(standard['rank1'].mean())} and mAP "
            f"{percent(standard['mAP'].mean())}. ")


def _plain(ours: dict[str, pd.DataFrame]) -> str:
    return (f"mAP {percent(ours['lat-top10']['mAP'].mean())} under `lat-top10`, "
            f"{percent(ours['standard']['mAP'].mean())} under `standard`; other images than the "
            "paper's, so only the steps below can be compared with it.")


def _step(changes: pd.DataFrame, published: float) -> str:
    parts = [f"{change(r)} under `{r.protocol}` "
             f"({r.verdict}; up in {r.seeds_up} of {r.seeds} seeds)" for r in changes.itertuples()]
    return (f"The step changes mAP by {'; '.join(parts)}; in the paper by "
            f"{percent(published, signed=True)}.")


def gist(queries: pd.DataFrame) -> str:
    """One sentence: what the paper's additions do together, against the baseline."""
    base, paper = "baseline", "+ flipped query"
    few, every = (compare(*(cut(queries, row, protocol) for row in (base, paper)))
                  for protocol in ("standard", "standard-all"))
    mended, spoiled, n = first_hits(queries, base, paper)
    return (f"Against the baseline the paper's additions together change mAP by {_change(few)} "
            f"under `standard` and by {_change(every)} where every test image is a query "
            f"(`standard-all`); of the {n} first hits under `standard` (queries x seeds) they mend "
            f"{mended} and spoil {spoiled}.")


def sampling_note(queries: pd.DataFrame) -> str:
    """How many people the intervals rest on, and what that means for them."""
    people = queries.dropna(subset="AP")["id"].nunique()
    small = (" With so few people a bootstrap interval is too narrow: read it as a lower bound of "
             "the doubt." if people < 20 else "")
    return f"Intervals rest on {people} query identities.{small}"


def conclusions(queries: pd.DataFrame, asked: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]],
                published: bool) -> list[str]:
    """The verdict in a few sentences.

    ``queries``: the rows of the study; ``asked``: by who was asked, such as "on 74 people", the
    rows of ``MODELS`` and ``steps`` of each idea alone; ``published``: are the paper's numbers of
    these images?
    """
    labels = [model.label for model in COMPARED]

    def level(row: str, protocol: str) -> str:
        return percent(interval(cut(queries, row, protocol)).value)

    sentences = [_reproduced(queries)] if published else []
    sentences += [
        f"**The protocol.** Without any training for the task mAP is "
        f"{level('untrained', 'lat-top10')} under the paper's rules and "
        f"{level('untrained', 'standard')} under the standard ones; the trained baseline has "
        f"{level('baseline', 'lat-top10')} and {level('baseline', 'standard')}.",
        "**The ideas**, each alone on the baseline (mAP, `standard-all`: every test image a "
        "query): " + "; ".join(f"{where}, {_alone(alone)}" for where, (_, alone) in asked.items())
        + "."]
    for name, before, after in (("The paper's model** against its baseline", *labels[:2]),
                                ("`best`** against the paper's model", *labels[1:]),
                                ("`best`** against the baseline", *labels[::2])):
        changes = {where: compare(*(cut(models, label, "standard-all")
                                    for label in (before, after)))
                   for where, (models, _) in asked.items()}
        sentences.append(f"**{name} (mAP, `standard-all`): " + ", ".join(
            f"{_change(found)} {where}" for where, found in changes.items()) + ".")
    return sentences


def _reproduced(queries: pd.DataFrame) -> str:
    """The paper's numbers and ours under its rules, and the gain between its two models."""
    paper, models = paper_scores().set_index("row"), ("baseline", "+ flipped query")
    ours = {row: [interval(cut(queries, row, "lat-top10"), score).value
                  for score in ("rank1", "mAP")] for row in models}
    words = [f"the {name} has rank-1 {percent(paper.loc[row, 'rank1'])} and mAP "
             f"{percent(paper.loc[row, 'mAP'])} in the paper, {percent(ours[row][0])} and "
             f"{percent(ours[row][1])} here" for row, name in zip(
                 models, ("baseline", "paper's model"), strict=True)]
    gains = paper.loc[models[1], "mAP"] - paper.loc[models[0], "mAP"], ours[models[1]][1] - (
        ours[models[0]][1])
    return (f"**Its numbers.** By its own rules (`lat-top10`) {'; '.join(words)}. The gain of "
            f"{percent(gains[0], signed=True)} points of mAP is "
            f"{percent(gains[1], signed=True)} here.")


def _alone(steps: pd.DataFrame) -> str:
    return ", ".join(f"{row.row.removesuffix(' alone')} {change(row)} ({row.verdict})"
                     for row in steps.itertuples() if row.protocol == "standard-all")


def _change(found: Comparison) -> str:
    return f"{change(found)} points ({verdict(found)})"
