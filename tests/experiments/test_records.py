import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from reidlib.experiments.presets import ResultRow
from reidlib.experiments.records import (
    by_row,
    collect_runs,
    forget_runs,
    publish_run,
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


COST = {"hardware": {}, "versions": {}, "train_seconds": 1.0}


def publish(study, workspace, preset="baseline", seed=0):
    """Two queries of three are scored, and have no INP: mAP is 0.75, rank-1 0.5."""
    config = study.config(preset, seed)
    key = {"protocol": "standard", "flip": "none", "reranked": False}
    table = per_query(AP=[0.5, 1.0, np.nan], INP=[np.nan] * 3, first_hit=[np.inf, 1, np.nan],
                      rank1=[0, 1, np.nan], rank5=[0, 1, np.nan], rank10=[0, 1, np.nan])
    scores = {**key, "mAP": 0.75, "mINP": None, "rank1": 0.5, "rank5": 0.5, "rank10": 0.5,
              "n_query": 3, "n_valid_query": 2}
    record = {"run_id": config.run_id, "preset": preset, "seed": seed, "cost": COST,
              "fingerprint": config.fingerprint("data"), "scores": [scores], "verification": [],
              "data": {"name": "synthetic", "checksum": "data", "counts": {}},
              "config": json.loads(json.dumps(vars(config)))}
    tables = {"history": pd.DataFrame({"epoch": [0]}), "cmc": pd.DataFrame({"rank": [1]}),
              "per_query": table.assign(**key)}
    write_run(workspace.artifacts / config.run_id, record, tables)
    publish_run(workspace.artifacts / config.run_id, workspace.runs / config.run_id)


def test_runs_are_collected_in_all_seeds(study, workspace):
    study = replace(study, seeds=(0, 1))
    for seed in study.seeds:
        publish(study, workspace, seed=seed)
    records = collect_runs(study, workspace, ["baseline"])
    assert [r["run_id"] for r in records] == ["baseline-s0", "baseline-s1"]
    queries = read_tables(records, "per_query")
    assert queries["run"].tolist() == ["baseline-s0"] * 3 + ["baseline-s1"] * 3
    assert np.isinf(queries["first_hit"]).sum() == 2 and queries["INP"].isna().all()


def test_the_empty_history_of_an_untrained_run_leaves_the_others_numbers(study, workspace):
    for preset in ("untrained", "baseline"):
        publish(study, workspace, preset)
    for run, lines in (("untrained-s0", ""), ("baseline-s0", "0,1.23456\n")):
        (workspace.runs / run / "history.csv").write_text("epoch,loss\n" + lines)
    history = read_tables(collect_runs(study, workspace, ["untrained", "baseline"]), "history")
    assert history.round(2)["loss"].tolist() == [1.23]  # skips columns that are no numbers


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


def test_a_record_from_before_a_parameter_was_there_has_the_same_configuration(study, workspace):
    publish(study, workspace)
    path = workspace.runs / "baseline-s0" / "run.json"
    record = json.loads(path.read_text())
    del record["config"]["members"]
    path.write_text(json.dumps(record))
    with pytest.raises(FileNotFoundError, match="was run on other data"):
        collect_runs(replace(study, checksum="new"), workspace, ["baseline"])


def test_a_run_on_other_data_is_not_taken_for_this_one(study, workspace):
    publish(study, workspace)
    with pytest.raises(FileNotFoundError, match="was run on other data: run 02_base"):
        collect_runs(replace(study, checksum="new"), workspace, ["baseline"])


def test_a_damaged_record_says_what_to_do(study, workspace):
    publish(study, workspace)
    path = workspace.runs / "baseline-s0" / "run.json"
    text = path.read_text()
    for damage, reason in (
            (text[:40], "Unterminated|Expecting"), ("[" * 10**5, "recursion"),
            (text.replace('"scores"', '"points"'), "scores is missing or of another type"),
            (text.replace('"hardware"', '"iron"'), "cost.hardware is missing"),
            (text.replace('"fingerprint"', '"finger"'), "fingerprint is missing"),
            (text.replace('"lr": 0.0003', '"lr": 0.03'), "fingerprint is not that of config and"),
            (text.replace('"epochs": 1', '"epochs": -1'), "epochs is -1; expected 0 or more")):
        path.write_text(damage)
        with pytest.raises(ValueError, match=f"run.json is not a run record .*({reason}).*delete"):
            collect_runs(study, workspace, ["baseline"])


def test_scores_that_are_not_those_of_the_table_are_refused(study, workspace):
    publish(study, workspace)
    folder = workspace.runs / "baseline-s0"
    record, table = folder / "run.json", folder / "per_query.csv"
    said, lines = record.read_text(), table.read_text().splitlines(keepends=True)
    for path, damage, reason in (
            (record, said.replace("0.75", "0.751"), "run.json says mAP 0.751 for .*'standard', "
             "'none', .*per_query.csv says 0.75;"),
            (record, said.replace('"none"', '"both"'), "mAP 0.75 for .*'both'.*says nan;|mAP nan"),
            (table, "".join(lines[:-1]), "n_query 3.0 for .*per_query.csv says 2.0;"),
            (table, "".join(lines).replace("rank5", "rank6"), "cannot be compared .*rank5"),
            (table, "", "per_query.csv is damaged .No columns")):
        whole = path.read_text()
        path.write_text(damage)
        with pytest.raises(ValueError, match=f"baseline-s0.*({reason}).*bring it back, or delete"):
            collect_runs(study, workspace, ["baseline"])
        path.write_text(whole)
    assert len(collect_runs(study, workspace, ["baseline"])) == 1


def test_result_rows_are_picked_by_preset_flip_and_re_ranking():
    keys = [("improved", "query", True), ("improved", "query", False), ("improved", "both", False),
            ("ypool", "none", False), ("smooth", "none", False)]
    table = pd.DataFrame(keys, columns=["preset", "flip", "reranked"]).assign(mAP=range(5))
    found = by_row(table)
    assert found["row"].tolist() == ["+ y-pooling", "+ flipped query", "+ re-ranking"]
    assert found["mAP"].tolist() == [3, 1, 0]
    assert found["row"].cat.categories.tolist() == found["row"].tolist()


def test_a_query_re_ranked_by_itself_has_a_row_of_its_own():
    """And older records, which have no such rows, have the others."""
    table = pd.DataFrame({"preset": "improved", "flip": "query", "reranked": True,
                          "protocol": ["standard", "standard", "lat-top10"],
                          "alone": [True, np.nan, False], "mAP": range(3)})
    found = by_row(table)
    assert found["row"].tolist() == ["+ re-ranking, each query alone", "+ re-ranking"]
    assert found["mAP"].tolist() == [0, 1]
    assert by_row(table.drop(columns="alone"))["row"].tolist() == ["+ re-ranking"] * 2


def test_scores_with_a_local_distance_are_in_no_results_row():
    """AlignedReID as a candidate: its row is that of the global distance."""
    table = pd.DataFrame({"preset": "aligned", "flip": "none", "reranked": False,
                          "protocol": "standard", "local": [True, False], "mAP": [0.0, 1.0]})
    assert by_row(table, [ResultRow("aligned", "aligned", "none")])["mAP"].tolist() == [1.0]


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
