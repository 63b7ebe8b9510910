"""Run record <-> files <-> tables. Needs neither torch nor images."""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from reidlib.config import VARIANTS, Variant
from reidlib.paths import Workspace, whole_file, write_csv, write_text
from reidlib.studies import Study

RUN_FILES = ("history.csv", "per_query.csv", "cmc.csv", "run.json")  # run.json last: it says "done"
VALUES = ["AP", "INP", "first_hit", "rank1", "rank5", "rank10"]  # of one query
SCORES = ["mAP", "mINP", "rank1", "rank5", "rank10"]
PAPER = Path(__file__).with_name("paper.csv")


def write_study(study: Study, workspace: Workspace) -> None:
    """Fix what the study's notebooks run: they all read this file."""
    write_json(workspace.reports / "study.json", asdict(study))


def read_study(workspace: Workspace) -> Study:
    """The study as 01_data fixed it.

    Raises:
        FileNotFoundError: 01_data has not been run in this workspace.
    """
    path = workspace.reports / "study.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: run notebook 01_data for study "
                                f"{workspace.study!r} first; it checks the data")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Study(**{**values, "seeds": tuple(values["seeds"]),
                        "presets": tuple(values.get("presets", ()))})
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no study ({error}); delete it and run notebook 01_data "
                         "again") from error


def write_run(folder: Path, record: dict, tables: dict[str, pd.DataFrame]) -> None:
    """Write a finished run: its tables, then ``run.json``, which says that all is there."""
    (folder / "run.json").unlink(missing_ok=True)  # never an old record with new tables
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
    write_json(folder / "run.json", record)


def publish_run(folder: Path, target: Path) -> None:
    """Copy a run's record and tables to where the report reads them."""
    (target / "run.json").unlink(missing_ok=True)
    for name in RUN_FILES:
        with whole_file(target / name) as partial:
            shutil.copyfile(folder / name, partial)


def forget_runs(workspace: Workspace) -> None:
    """Remove a study's finished runs, their weights and embeddings, so that they are trained anew.

    A run that was stopped in between keeps its checkpoint.
    """
    for folder in (workspace.runs, workspace.reports / "crowd"):
        shutil.rmtree(folder, ignore_errors=True)
    for record in workspace.artifacts.glob("*/run.json"):
        shutil.rmtree(record.parent)


def read_run(folder: Path) -> dict:
    """A run record; ValueError where the file is not one."""
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {**record, "folder": folder, "run_id": record["run_id"]}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a run record ({error}); delete {folder} and run its "
                         "notebook again") from error


def collect_runs(study: Study, workspace: Workspace, presets: Iterable[str],
                 maker: str) -> list[dict]:
    """The finished runs of the presets in all of the study's seeds.

    Raises:
        FileNotFoundError: one is missing, or was run with another configuration or on other
            data than 01_data found; the message names ``maker``, the notebook or command to run.
    """
    records = []
    for preset in presets:
        for seed in study.seeds:
            config = study.config(preset, seed)
            folder = workspace.runs / config.run_id
            record = read_run(folder) if (folder / "run.json").is_file() else None
            if record is None or record["fingerprint"] != config.fingerprint(study.checksum):
                found = ("it is not there" if record is None else "it has another configuration"
                         if record["config"] != asdict(config) else "it was run on other data")
                raise FileNotFoundError(f"run {config.run_id} is needed and {found}: "
                                        f"run {maker} first")
            records.append(record)
    return records


def score_table(records: Sequence[dict]) -> pd.DataFrame:
    """One row per (preset, seed, protocol, flip): fractions, and the numbers of queries."""
    return pd.concat([pd.DataFrame(r["scores"]).assign(preset=r["preset"], seed=r["seed"])
                      for r in records], ignore_index=True)


def read_tables(records: Sequence[dict], name: str) -> pd.DataFrame:
    """The runs' ``history``, ``per_query`` or ``cmc`` tables, one below the other."""
    text = {"path": str, "id": str, "cam": str}  # "001" and "NA" are identities
    tables = [pd.read_csv(r["folder"] / f"{name}.csv", dtype=text, keep_default_na=False,
                          na_values=dict.fromkeys(VALUES, ""))
              .assign(run=r["run_id"], preset=r["preset"], seed=r["seed"]) for r in records]
    return pd.concat(tables, ignore_index=True)


def by_variant(table: pd.DataFrame, variants: Sequence[Variant] = VARIANTS) -> pd.DataFrame:
    """Pick each results row's preset, flip and re-ranking out of a long table; adds ``row``."""
    parts = [table[(table["preset"] == v.preset) & (table["flip"] == v.flip)
                   & (table["reranked"] == v.reranked)].assign(row=v.label) for v in variants]
    rows = pd.concat(parts, ignore_index=True)
    labels = [v.label for v in variants if v.label in set(rows["row"])]
    return rows.assign(row=pd.Categorical(rows["row"], labels, ordered=True))


def summarise(scores: pd.DataFrame, by: Sequence[str] = ("row", "protocol")) -> pd.DataFrame:
    """Mean, standard deviation (over seeds) and count of every score."""
    grouped = scores.groupby(list(by), observed=True, sort=False)[SCORES]
    table = grouped.agg(["mean", "std", "count"])
    table.columns = [f"{score}_{what}" for score, what in table.columns]
    return table.reset_index()


def largest_gains(before: pd.DataFrame, after: pd.DataFrame, n: int) -> pd.DataFrame:
    """Queries whose first hit was wrong before and is right after, by gain in AP; at most ``n``.

    Both are per-query tables of one run under one protocol and flip.
    """
    both = before.merge(after, on=["path", "id", "cam"], suffixes=("_before", "_after"))
    mended = both[(both["first_hit_before"] > 1) & (both["first_hit_after"] == 1)]
    gain = mended["AP_after"] - mended["AP_before"]
    return (mended.assign(gain=gain).sort_values(["gain", "path"], ascending=[False, True])
            .head(n).reset_index(drop=True))


def worst_queries(per_query: pd.DataFrame, n: int) -> pd.DataFrame:
    """The ``n`` scored queries of lowest AP."""
    scored = per_query.dropna(subset="AP")
    return scored.sort_values(["AP", "path"]).head(n).reset_index(drop=True)


def paper_scores() -> pd.DataFrame:
    """The paper's own numbers, with where they stand in it."""
    return pd.read_csv(PAPER)


def percent(mean: float | None, std: float = float("nan"), signed: bool = False,
            ends: tuple[float, float] | None = None) -> str:
    """The one place where fractions become percentages: mean ± std [low, high]."""
    if pd.isna(mean):
        return "–"
    sign = "+" * signed
    return (f"{100 * mean:{sign}.1f}" + ("" if pd.isna(std) else f" ± {100 * std:.1f}")
            + (f" [{100 * ends[0]:{sign}.1f}, {100 * ends[1]:{sign}.1f}]" if ends else ""))


def to_markdown(table: pd.DataFrame) -> str:
    """A GitHub table; columns of numbers to the right, of text to the left."""
    cells = table.astype(str)
    numbers = r"[-+–±.,\d \[\]]+"
    marks = ["--:" if cells[name].str.fullmatch(numbers).all() else ":--" for name in cells]
    lines = [cells.columns, marks, *cells.to_numpy()]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write_json(path: Path, value) -> None:
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
