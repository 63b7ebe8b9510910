"""Run record <-> files <-> tables. Needs neither torch nor images."""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import ValidationError

from reidlib.evaluation.metrics import VALUES
from reidlib.evaluation.protocols import PROTOCOLS
from reidlib.experiments.config import TrainConfig
from reidlib.experiments.presets import NOTEBOOKS, RESULT_ROWS, ResultRow
from reidlib.experiments.study import Study
from reidlib.utils import paths
from reidlib.utils.errors import plain
from reidlib.utils.paths import Workspace, todays_names, write_csv, write_json

# what a record holds, and as what; with distractors the first of the two
FIELDS = {"run_id": str, "preset": str, "seed": int, "fingerprint": str, "cost.hardware": dict,
          "cost.versions": dict}
RUN_FIELDS = {"config": dict, "data.name": str, "data.checksum": str, "data.counts": dict,
              "cost.train_seconds": (int, float), "scores": list, "verification": list}
RUN_FILES = ("history.csv", "per_query.csv", "cmc.csv", "run.json")  # run.json last: it says "done"
LATER_KEYS = ["local", "alone"]  # as KEYS; where older records lack them, they are false
KEYS = ["protocol", "flip", "reranked", *LATER_KEYS]  # what tells the rows of their scores apart
SCORES = ["mAP", "mINP", "rank1", "rank5", "rank10"]


class Scored(NamedTuple):
    """What a file of features scores, query by query (``experiments.feature_scores`` makes it)."""

    queries: pd.DataFrame     # as ``score_queries``, with the columns row (the distance), protocol
    left_out: dict[str, str]  # protocol -> why it has no score
    images: dict[str, int]    # how many queries, people, ... there are


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
    """A run record; ValueError where the file is not one, or its configuration was changed."""
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        fields = FIELDS if "distractors" in record else FIELDS | RUN_FIELDS
        for name, kind in fields.items():
            if not isinstance(_field(record, name), kind):
                raise ValueError(f"{name} is missing or of another type")
        if "config" in fields:
            record["config"] = todays_names(record["config"])
            config = TrainConfig(**record["config"])
            if config.fingerprint(record["data"]["checksum"]) != record["fingerprint"]:
                raise ValueError("fingerprint is not that of config and data")
        return {**record, "folder": folder}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        reason = plain(error) if isinstance(error, ValidationError) else error
        raise ValueError(f"{path} is not a run record ({reason}); {_cure(folder)}") from error


def _field(record: dict, name: str):
    for part in name.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def _cure(folder: Path) -> str:
    return f"bring it back, or delete {folder} and run its notebook or command again"


def check_scores(record: dict) -> None:
    """ValueError unless a record's scores are the means of its per-query table."""
    table = read_tables([record], "per_query").rename(columns={"AP": "mAP", "INP": "mINP"})
    try:
        groups = _with_keys(table).groupby(KEYS)
        found = groups[SCORES].mean().assign(n_query=groups.size(),
                                             n_valid_query=groups["mAP"].count())
        said = _with_keys(pd.DataFrame(record["scores"])).set_index(KEYS)[found.columns]
        found, said = found.astype(float).align(said.astype(float))
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{record['folder']}: run.json and per_query.csv cannot be compared "
                         f"({error}); {_cure(record['folder'])}") from error
    differing = np.argwhere(~np.isclose(found, said, rtol=0, atol=1e-9, equal_nan=True))
    for row, column in differing:
        raise ValueError(f"{record['folder']}: run.json says {said.columns[column]} "
                         f"{said.iloc[row, column]} for {said.index[row]}, per_query.csv says "
                         f"{found.iloc[row, column]}; {_cure(record['folder'])}")


def _with_keys(table: pd.DataFrame) -> pd.DataFrame:
    """The table with all of ``LATER_KEYS``."""
    return table.assign(**{key: table[key].eq(True) if key in table else False
                           for key in LATER_KEYS})


def largest_gap(run: dict, other: dict) -> float:
    """The largest difference of mAP between two records of one configuration.

    An older record may lack a way of retrieval that today's has: what both have is compared.
    """
    one, two = (_with_keys(pd.DataFrame(record["scores"])) for record in (run, other))
    both = one.merge(two, on=KEYS)
    return float((both["mAP_x"] - both["mAP_y"]).abs().max())


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
        ValueError: see ``read_run`` and ``check_scores``.
    """
    records = []
    for preset in presets:
        for seed in study.seeds:
            config = study.config(preset, seed)
            folder = workspace.runs / config.run_id
            record = read_run(folder) if (folder / "run.json").is_file() else None
            if record is None or record["fingerprint"] != config.fingerprint(study.checksum):
                found = ("it is not there" if record is None else "it has another configuration"
                         if TrainConfig(**record["config"]) != config else
                         "it was run on other data")
                raise FileNotFoundError(f"run {config.run_id} is needed and {found}: "
                                        f"run {command or maker(study, preset, seed)} first")
            check_scores(record)
            records.append(record)
    return records


def score_table(records: Sequence[dict]) -> pd.DataFrame:
    """One row per (preset, seed, protocol, flip): fractions, and the numbers of queries."""
    return pd.concat([pd.DataFrame(r["scores"]).assign(preset=r["preset"], seed=r["seed"])
                      for r in records], ignore_index=True)


def read_tables(records: Sequence[dict], name: str) -> pd.DataFrame:
    """The runs' ``history``, ``per_query`` or ``cmc`` tables, one below the other."""
    text = {"path": str, "id": str, "cam": str}  # "001" and "NA" are identities
    tables = []
    for record in records:
        path = record["folder"] / f"{name}.csv"
        try:
            table = pd.read_csv(path, dtype=text, keep_default_na=False,
                                na_values=dict.fromkeys(VALUES, ""))
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); {_cure(path.parent)}") from error
        tables.append(table.assign(run=record["run_id"], preset=record["preset"],
                                   seed=record["seed"]))
    # a run that was not trained has an empty history, whose columns have no type of their own
    return pd.concat(tables, ignore_index=True).infer_objects()


def by_row(table: pd.DataFrame, rows: Sequence[ResultRow] = RESULT_ROWS) -> pd.DataFrame:
    """Pick each results row's preset, flip and re-ranking out of a long table; adds ``row``.

    A row whose preset the table does not have is left out, as is a protocol that is not there any
    more, or under which nothing is re-ranked any more. Scores with a local distance
    (``aligned_reid``) are none of these rows.
    """
    if "protocol" in table:
        reranks = [name for name, rules in PROTOCOLS.items() if rules.reranks]
        table = table[table["protocol"].isin(PROTOCOLS)
                      & (table["protocol"].isin(reranks) | ~table["reranked"])]
    table = _with_keys(table)
    parts = [table[(table["preset"] == r.preset) & (table["flip"] == r.flip)
                   & (table["reranked"] == r.reranked) & (table["alone"] == r.alone)
                   & ~table["local"]
                   ].assign(row=r.label) for r in rows]
    found = pd.concat(parts, ignore_index=True).drop(columns=LATER_KEYS)
    labels = [r.label for r in rows if r.label in set(found["row"])]
    return found.assign(row=pd.Categorical(found["row"], labels, ordered=True))


def device_name(record: dict) -> str:
    """What a run was computed on."""
    hardware = record["cost"]["hardware"]
    if "gpu" in hardware:
        return hardware["gpu"]
    threads = hardware["threads"]
    return f"{hardware['cpu']}, {threads} CPU thread{'s' * (threads != 1)}"

