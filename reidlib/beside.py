"""What stands beside a study: another schedule, identity folds, a crowd, the choice of `best`.

Each is a study of its own, ``<study>-blockwise``, ``-folds`` and ``-selection``, run by
``reidlib.runs``, or the folder ``crowd`` that ``reidlib.crowd`` writes. One that is not there, or
not whole yet, is None.
"""

import pandas as pd

from reidlib.config import MODELS, TrainConfig, Variant
from reidlib.intervals import interval
from reidlib.paths import Workspace
from reidlib.results import collect_runs, percent, read_run, read_study, read_tables
from reidlib.studies import Study
from reidlib.tables import COMPARED, cut, query_rows, steps

HOW = "with `make paper`"


def records_of(workspace: Workspace, name: str) -> list[dict] | None:
    """All records of the study ``<study>-<name>``, fold after fold."""
    beside = Workspace(f"{workspace.study}-{name}", workspace.root)
    found = sorted(beside.reports.glob("**/study.json"))
    try:
        records = []
        for path in found:
            part = Workspace(path.parent.relative_to(workspace.root / "reports").as_posix(),
                             workspace.root)
            study = read_study(part)
            records += collect_runs(study, part, (*study.presets, *study.candidates), HOW)
    except FileNotFoundError:
        return None
    return records or None


def folds(workspace: Workspace) -> pd.DataFrame | None:
    """Per-query scores of the compared models, pooled over the identity folds."""
    records = records_of(workspace, "folds")
    return None if records is None else query_rows(records, MODELS)


def folds_table(queries: pd.DataFrame) -> pd.DataFrame:
    """One line a model: mAP and rank-1 with intervals over all identities."""
    lines = []
    for label in queries["row"].unique():
        own = cut(queries, label, "standard-all")
        scored = own.dropna(subset="AP")
        found = {name: interval(own, score) for name, score in (("mAP", "mAP"),
                                                                ("rank-1", "rank1"))}
        lines.append({"model": label, "people": scored["id"].nunique(), "queries": len(scored),
                      **{name: percent(f.value, f.std, ends=(f.low, f.high))
                         for name, f in found.items()}})
    return pd.DataFrame(lines)


def schedules_scores(queries: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """mAP of the compared models by schedule (name -> ``query_rows`` of ``MODELS``).

    Columns: schedule, row, protocol, value, low, high, std.
    """
    return pd.DataFrame([
        {"schedule": schedule, "row": row, "protocol": protocol, **interval(part)._asdict()}
        for schedule, own in queries.items()
        for (row, protocol), part in own.groupby(["row", "protocol"], observed=True, sort=False)
        if protocol in COMPARED])


def schedules_table(scores: pd.DataFrame) -> pd.DataFrame:
    """``schedules_scores`` to read: one line a schedule and model, one column a protocol."""
    wide = _cells(scores, ["schedule", "row"], "protocol")[list(COMPARED)]
    return wide.reset_index().rename(columns={"row": "model"})


def selection_table(records: list[dict]) -> pd.DataFrame:
    """One line a candidate, best first: what it changes, its mAP by flip, against the first one.

    The score is that of ``standard-all`` on held-out training people.
    """
    names = list(dict.fromkeys(r["preset"] for r in records))
    by_flip = {flip: query_rows(records, [Variant(name, name, flip) for name in names])
               for flip in ("none", "query", "both")}
    changes = steps(by_flip["none"], against=names[0]).set_index("row")
    lines = []
    for record in records:
        name = record["preset"]
        change = changes.loc[name] if name in changes.index else None
        lines.append({
            "candidate": name, "changes": _changes(record, records[0]),
            **{f"mAP, flip {flip}": percent(interval(cut(rows, name, "standard-all")).value)
               for flip, rows in by_flip.items()},
            "against the first": "–" if change is None else percent(
                change["difference"], signed=True, ends=(change["low"], change["high"])),
            "verdict": "–" if change is None else change["verdict"],
            "minutes": f"{record['cost']['train_seconds'] / 60:.1f}"})
    table = pd.DataFrame(lines)
    order = table["mAP, flip none"].astype(float).sort_values(ascending=False, kind="stable")
    return table.loc[order.index].reset_index(drop=True)


def _changes(record: dict, first: dict) -> str:
    """A run's parameters that are not the first run's."""
    own = {key: value for key, value in record["config"].items()
           if value != first["config"][key] and key not in ("preset", "seed")}
    return ", ".join(f"{key} {value}" for key, value in own.items()) or "–"


def crowd(workspace: Workspace, study: Study) -> list[dict] | None:
    """Records of the crowd, of the runs as they are now; None unless all compared models did."""
    found = []
    for model in MODELS:
        for seed in study.seeds:
            folder = workspace.reports / "crowd" / f"{model.preset}-s{seed}"
            if not (folder / "run.json").is_file():
                continue
            record = read_run(folder)
            config: TrainConfig = study.config(model.preset, seed)
            if record["fingerprint"] == config.fingerprint(study.checksum):
                found.append(record)
    whole = {record["preset"] for record in found} == {model.preset for model in MODELS}
    return found if whole else None


def crowd_scores(records: list[dict]) -> pd.DataFrame:
    """mAP of each model by number of strangers: columns row, strangers, value, low, high, std."""
    queries = read_tables(records, "per_query")
    labels = {model.preset: model.label for model in MODELS}
    lines = [{"row": labels[preset], "strangers": size, **interval(own)._asdict()}
             for (preset, size), own in queries.groupby(["preset", "strangers"], sort=False)]
    return pd.DataFrame(lines)


def crowd_table(scores: pd.DataFrame) -> pd.DataFrame:
    """``crowd_scores`` to read: one line a model, one column a number of strangers."""
    wide = _cells(scores, ["row"], "strangers")
    wide.columns = [f"{size:,} strangers" for size in wide.columns]
    return wide.reset_index().rename(columns={"row": "model"})


def _cells(scores: pd.DataFrame, index: list[str], columns: str) -> pd.DataFrame:
    """Scores with intervals in percent, as a table in the order that they are given in."""
    cells = [percent(r.value, r.std, ends=(r.low, r.high)) for r in scores.itertuples()]
    wide = scores.assign(cell=cells).pivot(index=index, columns=columns, values="cell")
    order = scores[index].drop_duplicates()
    wide = wide.loc[order[index[0]] if len(index) == 1 else list(order.itertuples(index=False))]
    return wide[scores[columns].unique()].rename_axis(columns=None)
