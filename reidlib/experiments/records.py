"""Run record <-> files <-> tables. Needs neither torch nor images."""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from reidlib.evaluation.metrics import VALUES
from reidlib.experiments.presets import NOTEBOOKS, RESULT_ROWS, ResultRow
from reidlib.experiments.study import Study
from reidlib.utils import paths
from reidlib.utils.paths import Workspace, todays_names, write_csv, write_json

RUN_FILES = ("history.csv", "per_query.csv", "cmc.csv", "run.json")  # run.json last: it says "done"
SCORES = ["mAP", "mINP", "rank1", "rank5", "rank10"]


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
        with paths.atomic_write(target / name) as partial:
            shutil.copyfile(folder / name, partial)


def forget_runs(workspace: Workspace) -> None:
    """Remove a study's finished runs, their weights and embeddings, so that they are trained again.

    A run that was stopped in between keeps its checkpoint.
    """
    for folder in (workspace.runs, workspace.reports / "distractors"):
        shutil.rmtree(folder, ignore_errors=True)
    for record in workspace.artifacts.glob("*/run.json"):
        shutil.rmtree(record.parent)


def read_run(folder: Path) -> dict:
    """A run record; ValueError where the file is not one."""
    path = folder / "run.json"
    try:
        record = todays_names(json.loads(path.read_text(encoding="utf-8")))
        if "config" in record:
            record["config"] = todays_names(record["config"])
        return {**record, "folder": folder, "run_id": record["run_id"]}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a run record ({error}); delete {folder} and run its "
                         "notebook again") from error


def maker(study: Study, preset: str, seed: int) -> str:
    """What makes a run: the notebook that trains the preset, or a command where none does."""
    if study.folds:
        return f"reidlib study --study {study.name}"
    return NOTEBOOKS.get(preset) or (
        f"reidlib run --study {study.name} --preset {preset} --seed {seed}")


def collect_runs(study: Study, workspace: Workspace, presets: Iterable[str],
                 command: str | None = None) -> list[dict]:
    """The finished runs of the presets in all of the study's seeds.

    Raises:
        FileNotFoundError: one is missing, or was run with another configuration or on other
            data than 01_data found; the message says what to run: ``command``, or else ``maker``.
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
                                        f"run {command or maker(study, preset, seed)} first")
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
              .rename(columns=paths.RENAMED)
              .assign(run=r["run_id"], preset=r["preset"], seed=r["seed"]) for r in records]
    return pd.concat(tables, ignore_index=True)


def by_row(table: pd.DataFrame, rows: Sequence[ResultRow] = RESULT_ROWS) -> pd.DataFrame:
    """Pick each results row's preset, flip and re-ranking out of a long table; adds ``row``.

    A row whose preset the table does not have is left out.
    """
    parts = [table[(table["preset"] == r.preset) & (table["flip"] == r.flip)
                   & (table["reranked"] == r.reranked)].assign(row=r.label) for r in rows]
    found = pd.concat(parts, ignore_index=True)
    labels = [r.label for r in rows if r.label in set(found["row"])]
    return found.assign(row=pd.Categorical(found["row"], labels, ordered=True))


def device_name(record: dict) -> str:
    """What a run was computed on."""
    hardware = record["cost"]["hardware"]
    return hardware.get("gpu") or f"{hardware['cpu']}, {hardware['threads']} CPU threads"

