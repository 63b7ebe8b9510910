"""Supplementary studies: another schedule, cross-validation, distractors, `best`, which margin.

Each is a study of its own, ``<study>-blockwise``, ``-folds``, ``-selection``, ``-finalists``,
``-margins``, ``-ingredients``, ``-cheaper`` and those of ``report.arms``, run by ``reidlib study``,
or the folder ``distractors`` that ``reidlib distractors`` writes. One that is not there is None;
one that is incomplete is an error that says what is missing.
"""

from dataclasses import asdict, replace

import pandas as pd

from reidlib.evaluation.statistics import interval
from reidlib.experiments.config import TrainConfig
from reidlib.experiments.presets import COMPARED, ResultRow
from reidlib.experiments.records import by_row, collect_runs, read_run, read_tables
from reidlib.experiments.study import Study, read_study
from reidlib.report import tables
from reidlib.utils.paths import Workspace
from reidlib.utils.text import percent

NAMES = ("blockwise", "folds", "selection", "finalists", "margins", "arms", "arms-folds",
         "arms-market1501", "ingredients", "cheaper", "final")


def records_of(workspace: Workspace, name: str) -> list[dict] | None:
    """All records of the study ``<study>-<name>``, fold after fold; None where there is none.

    Raises:
        FileNotFoundError: some run or fold is missing, or is of another configuration.
    """
    full_name = f"{workspace.study}-{name}"
    parts = [Workspace(full_name, workspace.root)]
    first = Workspace(f"{full_name}/0", workspace.root)
    if not (parts[0].reports / "study.json").is_file():
        if not (first.reports / "study.json").is_file():
            return None
        parts = [Workspace(f"{full_name}/{fold}", workspace.root)
                 for fold in range(read_study(first).folds)]
    how = f"reidlib study --study {full_name}"
    missing = [part.study for part in parts if not (part.reports / "study.json").is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} has not been run: run {how} first")
    studies = [read_study(part) for part in parts]
    if len({str(replace(study, fold=None, checksum="")) for study in studies}) > 1:
        raise FileNotFoundError(f"the folds of {full_name} are of different studies")
    return [record for study, part in zip(studies, parts, strict=True)
            for record in collect_runs(study, part, study.all_presets, how)]


def folds_table(queries: pd.DataFrame) -> pd.DataFrame:
    """One line a model: mAP and rank-1 with intervals over all identities."""
    lines = []
    for label in queries["row"].unique():
        own = tables.cut(queries, label, "standard-all")
        scored = own.dropna(subset="AP")
        found = {name: interval(own, score) for name, score in (("mAP", "mAP"),
                                                                ("rank-1", "rank1"))}
        lines.append({"model": label, "people": scored["id"].nunique(),
                      "queries": scored["path"].nunique(),
                      **{name: percent(f.value, f.std, ends=(f.low, f.high))
                         for name, f in found.items()}})
    return pd.DataFrame(lines)


def schedules_scores(queries: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """mAP of the compared models by schedule (name -> ``query_rows`` of ``COMPARED``).

    Columns: those of ``every_interval`` and schedule.
    """
    shown = {schedule: own[own["protocol"].isin(tables.PROTOCOLS_COMPARED)]
             for schedule, own in queries.items()}
    return pd.concat([tables.every_interval(own, ("mAP",)).assign(schedule=schedule)
                      for schedule, own in shown.items()], ignore_index=True)


def schedules_table(scores: pd.DataFrame) -> pd.DataFrame:
    """``schedules_scores`` to read: one line a schedule and model, one column a protocol."""
    wide = tables.cells(scores, ["schedule", "row"], "protocol")[list(tables.PROTOCOLS_COMPARED)]
    return wide.reset_index().rename(columns={"row": "model"})


def selection_table(records: list[dict]) -> pd.DataFrame:
    """One line a candidate, best first: what it changes, its mAP by flip, against the first run.

    The score is that of ``standard-all``; in folds of training people, on those held out.
    """
    names = list(dict.fromkeys(r["preset"] for r in records))
    # a run of another study may have more flips: those that all have
    scored = [dict.fromkeys(score["flip"] for score in r["scores"]) for r in records]
    flips = [flip for flip in scored[0] if all(flip in own for own in scored)]
    by_flip = {flip: tables.query_rows(records, [ResultRow(name, name, flip) for name in names])
               for flip in flips}
    against = tables.steps(by_flip["none"], against=names[0], protocols=["standard-all"])
    against = against.set_index("row") if len(names) > 1 else against
    runs = {name: [r for r in records if r["preset"] == name] for name in names}
    lines = []
    for name, own in runs.items():
        change = against.loc[name] if name in against.index else None
        lines.append({
            "candidate": name, "changes": changes(own[0], runs[names[0]][0]),
            **{f"mAP, flip {flip}": percent(interval(tables.cut(rows, name, "standard-all")).value)
               for flip, rows in by_flip.items()},
            f"against {names[0]}": "–" if change is None else percent(
                change["difference"], signed=True, ends=(change["low"], change["high"])),
            "p": "–" if change is None else tables.p_value(change["p_holm"]),
            "verdict": "–" if change is None else change["verdict"],
            "minutes": f"{sum(r['cost']['train_seconds'] for r in own) / 60:.1f}"})
    table = pd.DataFrame(lines)
    order = table[f"mAP, flip {[*by_flip][-1]}"].astype(float)
    return table.loc[order.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)


def changes(record: dict, first: dict) -> str:
    """A run's parameters that are not the first run's."""
    before = {**asdict(TrainConfig()), **first["config"]}  # an older record has fewer parameters
    own = {key: value for key, value in record["config"].items()
           if value != before[key] and key not in ("preset", "seed")}
    if own.get("loss"):
        own["loss"] = "+ {weight:g} x {function}".format(**own["loss"])
    return ", ".join(f"{key} {value:g}" if type(value) is float else f"{key} {value}"
                     for key, value in own.items()) or "–"


def distractor_records(workspace: Workspace, study: Study) -> list[dict] | None:
    """Records of all compared models with distractors; None where there is none.

    Raises:
        FileNotFoundError: a model is missing, or was run with others or another configuration.
    """
    models = [model for model in COMPARED if model.preset in study.all_presets]
    folders = [workspace.reports / "distractors" / study.config(m.preset, study.seeds[0]).run_id
               for m in models]
    found = [read_run(folder) for folder in folders if (folder / "run.json").is_file()]
    if not found:
        return None
    current = [study.config(r["preset"], r["seed"]).fingerprint(study.checksum) == r["fingerprint"]
               for r in found]
    data = {r["distractors"]["checksum"] for r in found}
    if len(found) < len(models) or not all(current) or len(data) > 1:
        raise FileNotFoundError(f"`reidlib distractors --study {workspace.study}` has not run "
                                "for all compared models as they are now")
    return found


def distractor_scores(records: list[dict]) -> pd.DataFrame:
    """mAP of each model by number of distractors: columns row, distractors, value, low, high, std.
    """
    queries = read_tables(records, "per_query")
    labels = {model.preset: model.label for model in COMPARED}
    lines = [{"row": labels[preset], "distractors": size, **interval(own)._asdict()}
             for (preset, size), own in queries.groupby(["preset", "distractors"], sort=False)]
    return pd.DataFrame(lines)


def distractor_steps(records: list[dict]) -> pd.DataFrame:
    """Each model against the baseline, for every number of distractors, to read."""
    queries, base = read_tables(records, "per_query"), COMPARED[0].label
    parts = [tables.steps(by_row(own, COMPARED), against=base).assign(distractors=f"{n:,}")
             for n, own in queries.groupby("distractors")]
    steps = tables.with_verdicts(pd.concat(parts, ignore_index=True))
    table = tables.steps_table(steps).assign(distractors=steps["distractors"])
    return table[["step", "against", "distractors", "change of mAP", "p", "verdict"]].rename(
        columns={"step": "model"})


def distractor_table(scores: pd.DataFrame) -> pd.DataFrame:
    """``distractor_scores`` to read: one line a model, one column a number of distractors."""
    wide = tables.cells(scores, ["row"], "distractors")
    wide.columns = [f"{size:,} distractors" for size in wide.columns]
    return wide.reset_index().rename(columns={"row": "model"})
