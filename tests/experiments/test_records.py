import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from reidlib.experiments.records import (
    by_row,
    collect_runs,
    forget_runs,
    publish_run,
    read_run,
    read_tables,
    write_run,
)
from reidlib.experiments.study import load_study
from reidlib.utils import paths
from reidlib.utils.paths import Workspace


@pytest.fixture
def study():
    return replace(load_study("smoke"), checksum="data")


@pytest.fixture
def workspace(tmp_path):
    return Workspace("smoke", tmp_path)


def per_query(**columns):
    n = len(next(iter(columns.values())))
    names = [f"{i}.png" for i in range(n)]
    return pd.DataFrame({"path": names, "id": names, "cam": ["a"] * n, **columns})


def publish(study, workspace, preset="baseline", seed=0, **changes):
    config = study.config(preset, seed)
    record = {"run_id": config.run_id, "preset": preset, "seed": seed,
              "fingerprint": config.fingerprint("data"),
              "config": json.loads(json.dumps(vars(config))), "scores": [], **changes}
    tables = {"history": pd.DataFrame({"epoch": [0]}), "cmc": pd.DataFrame({"rank": [1]}),
              "per_query": per_query(AP=[0.5], first_hit=[np.inf], INP=[np.nan])}
    write_run(workspace.artifacts / config.run_id, record, tables)
    publish_run(workspace.artifacts / config.run_id, workspace.runs / config.run_id)


def test_runs_are_collected_in_all_seeds(study, workspace):
    study = replace(study, seeds=(0, 1))
    for seed in study.seeds:
        publish(study, workspace, seed=seed)
    records = collect_runs(study, workspace, ["baseline"])
    assert [r["run_id"] for r in records] == ["baseline-s0", "baseline-s1"]
    queries = read_tables(records, "per_query")
    assert queries["run"].tolist() == ["baseline-s0", "baseline-s1"]
    assert np.isinf(queries["first_hit"]).all() and queries["INP"].isna().all()


def test_a_missing_or_other_run_names_its_notebook_or_command(study, workspace):
    with pytest.raises(FileNotFoundError, match="baseline-s0.*not there: run 02_base"):
        collect_runs(study, workspace, ["baseline"])
    with pytest.raises(FileNotFoundError, match="run reidlib run --study smoke --preset "
                       "baseline-1e-4 --seed 0 first"):
        collect_runs(study, workspace, ["baseline-1e-4"])
    with pytest.raises(FileNotFoundError, match="run reidlib study --study smoke first"):
        collect_runs(replace(study, folds=2, fold=0), workspace, ["baseline"])
    with pytest.raises(FileNotFoundError, match="not there: run reidlib study first"):
        collect_runs(study, workspace, ["baseline"], "reidlib study")
    publish(study, workspace)
    longer = replace(study, train={**study.train, "epochs": 9})
    with pytest.raises(FileNotFoundError, match="another configuration: run 02_base"):
        collect_runs(longer, workspace, ["baseline"])


def test_a_run_on_other_data_is_not_taken_for_this_one(study, workspace):
    publish(study, workspace)
    with pytest.raises(FileNotFoundError, match="was run on other data: run 02_base"):
        collect_runs(replace(study, checksum="new"), workspace, ["baseline"])


def test_a_damaged_record_says_what_to_do(study, workspace):
    publish(study, workspace)
    path = workspace.runs / "baseline-s0" / "run.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(ValueError, match="run.json is not a run record.*delete"):
        collect_runs(study, workspace, ["baseline"])


def test_records_and_tables_of_before_are_read_under_todays_names(workspace):
    folder = workspace.reports / "distractors" / "best-s0"
    record = {"run_id": "best-s0", "preset": "best", "seed": 0, "strangers": {"images": 9},
              "config": {"global_weight": 32.0, "lr": 0.1}}
    write_run(folder, record, {"per_query": per_query(AP=[0.5]).assign(strangers=9)})
    found = read_run(folder)
    assert found["config"] == {"local_weight": 32.0, "lr": 0.1} and "strangers" not in found
    assert found["distractors"] == {"images": 9}
    assert read_tables([found], "per_query")["distractors"].tolist() == [9]


def test_result_rows_are_picked_by_preset_flip_and_re_ranking():
    keys = [("improved", "query", True), ("improved", "query", False), ("improved", "both", False),
            ("ypool", "none", False), ("smooth", "none", False)]
    table = pd.DataFrame(keys, columns=["preset", "flip", "reranked"]).assign(mAP=range(5))
    found = by_row(table)
    assert found["row"].tolist() == ["+ y-pooling", "+ flipped query", "+ re-ranking"]
    assert found["mAP"].tolist() == [3, 1, 0]
    assert found["row"].cat.categories.tolist() == found["row"].tolist()


def test_identities_stay_text(study, workspace):
    table = per_query(AP=[1.0, np.nan]).assign(id=["001", "NA"])
    paths.write_csv(workspace.runs / "x" / "per_query.csv", table)
    read = read_tables([{"folder": workspace.runs / "x", "run_id": "x", "preset": "p",
                                 "seed": 0}], "per_query")
    assert read["id"].tolist() == ["001", "NA"] and read["AP"].isna().tolist() == [False, True]


def test_forgotten_runs_leave_checkpoints_and_everything_else(tmp_path):
    workspace = Workspace("smoke", tmp_path)
    kept = [workspace.reports / "study.json", workspace.artifacts / "images" / "train.npy",
            workspace.artifacts / "best-s0-12345678" / "checkpoint.pt"]
    gone = [workspace.runs / "best-s0" / "run.json",
            workspace.reports / "distractors" / "best-s0" / "run.json",
            workspace.artifacts / "baseline-s0-12345678" / "run.json",
            workspace.artifacts / "baseline-s0-12345678" / "weights.safetensors"]
    for path in kept + gone:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    forget_runs(workspace)
    assert all(path.is_file() for path in kept) and not any(path.exists() for path in gone)
