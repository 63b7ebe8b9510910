"""A whole small study, once, and what is found, resumed and refused afterwards."""

import json
import shutil
from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import pytest
import torch

from reidlib import cli
from reidlib.evaluation.embeddings import embed
from reidlib.evaluation.protocols import PROTOCOLS
from reidlib.experiments import export, prepare, runner
from reidlib.experiments.prepare import prepare_study
from reidlib.experiments.presets import RESULT_ROWS
from reidlib.experiments.records import read_tables
from reidlib.experiments.runner import Experiment
from reidlib.experiments.study import load_study, write_study
from reidlib.experiments.train import build_model
from reidlib.models import files
from reidlib.report import tables
from reidlib.report.page import write_report
from reidlib.report.study_results import PRESETS_IN_REPORT, StudyResults, load_records
from reidlib.training import checkpoint, loop
from reidlib.utils import paths, text
from reidlib.utils.paths import Workspace

PRESETS = PRESETS_IN_REPORT


@pytest.fixture(scope="module")
def study():
    study = load_study("smoke")
    return replace(study, train={**study.train, "epochs": 2})


@pytest.fixture(scope="module")
def lab(study, tmp_path_factory):
    """All runs of the smoke study, finished."""
    workspace = Workspace("smoke", tmp_path_factory.mktemp("workspace"))
    prepare_study(study, workspace)
    lab = Experiment(workspace, "cpu")
    lab.runs(PRESETS)
    return lab


def test_a_run_record_holds_what_a_reader_asks(lab):
    record = lab.run("baseline", 0)
    assert {(s["protocol"], s["flip"], s["reranked"]) for s in record["scores"]} == {
        (p, f, r) for p in PROTOCOLS for f, r in (
            ("none", False), ("query", False), ("both", False),
            *((flip, True) for flip in runner.RERANKED_FLIPS))
        if not (r and PROTOCOLS[p].every_image)}
    assert record["config"]["epochs"] == 2 and record["data"]["counts"]["query"]["images"] == 8
    assert record["protocols"][0]["name"] == "standard" and record["cost"]["versions"]["torch"]
    assert record["cost"]["hardware"]["device"] == "cpu" and record["cost"]["train_seconds"] > 0
    assert "/" not in record["cost"]["hardware"]["cpu"]
    assert {(v["flip"], v["fpr"]) for v in record["verification"]} == {
        (f, rate) for f in ("none", "query", "both") for rate in (0.001, 0.01, 0.1)}
    assert len(read_tables([record], "history")) == 2


def test_scores_are_those_of_the_per_query_table(lab):
    record = lab.run("improved", 0)
    queries = read_tables([record], "per_query")
    for scores in record["scores"]:
        own = queries[(queries["protocol"] == scores["protocol"])
                      & (queries["flip"] == scores["flip"])
                      & (queries["reranked"] == scores["reranked"])]
        assert len(own) == scores["n_query"]
        assert scores["mAP"] == pytest.approx(own["AP"].mean())
        assert scores["rank1"] == pytest.approx(own["rank1"].mean())


def test_untrained_is_the_baseline_before_its_first_step(lab, study):
    query, _ = lab.embeddings("untrained", 0)
    model = build_model(study.config("baseline", 0), 6)
    images = lab._images("query")
    np.testing.assert_allclose(embed(model, images)[0], query.emb, atol=1e-6)


def test_saved_weights_give_the_saved_embeddings(lab, study):
    """In one line, from the file alone."""
    model = files.load(lab.weights("improved", 0))
    query, _ = lab.embeddings("improved", 0)
    assert not model.training
    for found, saved in zip(embed(model, lab._images("query")), (query.emb, query.mirrored),
                            strict=True):
        np.testing.assert_array_equal(found, saved)
    assert not (lab.weights("improved", 0).parent / "checkpoint.pt").exists()


def test_exported_weights_and_their_card(lab, capsys):
    assert cli.main(["export", "--study", "smoke", "--device", "cpu",
                         "--workspace", str(lab.workspace.root)]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "card beside it" in line]
    folder = lab.workspace.artifacts / "weights"
    assert len(said) == 3 and sorted(path.name for path in folder.iterdir()) == [
        f"{name}.{kind}" for name in ("baseline", "best", "improved")
        for kind in ("md", "safetensors")]
    card, record = (folder / "improved.md").read_text(), lab.run("improved", 0)
    score = next(s for s in record["scores"] if s["protocol"] == "standard")
    assert f"| standard | none | {100 * score['mAP']:.1f} |" in card
    assert "drawn by this project" in card and "from scratch" in card and "y_pooling | True" in card
    query, _ = lab.embeddings("improved", 0)
    model = files.load(folder / "improved.safetensors")
    np.testing.assert_array_equal(embed(model, lab._images("query"))[0], query.emb)
    pretrained = {**record["config"], "pretrained": True,
                  "backbone": "vit_tiny_patch16_224.augreg_in21k_ft_in1k"}
    card = export.card({**record, "config": pretrained,
                         "data": {**record["data"], "name": "market1501-dev"}})
    assert "timm weights, apache-2.0" in card and "Market-1501, for research" in card


def test_finished_runs_are_found_not_repeated(lab, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(runner, "train", never)
    again = Experiment(lab.workspace, "cpu")
    assert [r["run_id"] for r in again.runs(PRESETS)] == [f"{p}-s0" for p in PRESETS]


def test_a_tracked_record_counts_and_weights_are_made_anew(lab, study, tmp_path, capsys):
    """As in a fresh clone, without artifacts: nothing is trained until weights are asked for."""
    clone = Workspace("smoke", tmp_path)
    shutil.copytree(lab.workspace.reports, clone.reports)
    prepare_study(study, clone)
    again = Experiment(clone, "cpu")
    assert again.run("baseline", 0)["scores"] == lab.run("baseline", 0)["scores"]
    assert not list(clone.artifacts.glob("baseline-*"))
    (clone.runs / "ypool-s0" / "cmc.csv").unlink()  # not whole: not finished
    with pytest.raises(FileNotFoundError, match="ypool-s0.*run notebook 04_ablations first"):
        again.embeddings("ypool", 0)
    path = clone.runs / "baseline-s0" / "run.json"
    record = json.loads(path.read_text())
    record["scores"] = [{**score, "mAP": score["mAP"] + 0.02} for score in record["scores"]
                        if not score["reranked"]]  # as of before there was any re-ranking
    path.write_text(json.dumps(record))
    before = path.read_bytes()
    capsys.readouterr()
    query, _ = again.embeddings("baseline", 0)
    out = capsys.readouterr().out
    assert "its record is here, its weights are not" in out
    assert "trained again, its mAP is within 2.0 points of the record's" in out
    np.testing.assert_array_equal(query.emb, lab.embeddings("baseline", 0)[0].emb)
    assert again.weights("baseline", 0).is_file()
    assert path.read_bytes() == before


def test_a_changed_configuration_is_another_run_and_loses_nothing(lab, study, monkeypatch):
    before = lab.run("baseline", 0)
    write_study(replace(lab.study, train={**study.train, "epochs": 1}), lab.workspace)
    try:
        changed = Experiment(lab.workspace, "cpu").run("baseline", 0)
    finally:
        write_study(lab.study, lab.workspace)
    assert changed["config"]["epochs"] == 1 and changed["fingerprint"] != before["fingerprint"]
    assert len(list(lab.workspace.artifacts.glob("baseline-s0-*"))) == 2
    back = lab.run("baseline", 0)
    assert back["scores"] == before["scores"]


def test_a_run_that_was_stopped_goes_on_and_ends_the_same(study, lab, tmp_path, monkeypatch):
    workspace = Workspace("smoke", tmp_path)
    prepare_study(study, workspace)
    save = checkpoint.TrainingState.save

    def stop_after_saving(*args):
        save(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint.TrainingState, "save", stop_after_saving)
        Experiment(workspace, "cpu").run("improved", 0)
    assert not (workspace.runs / "improved-s0").exists()
    assert len(list(workspace.artifacts.glob("improved-s0-*/checkpoint.pt"))) == 1
    seen, one_epoch = [], loop.train_one_epoch
    monkeypatch.setattr(loop, "train_one_epoch",
                        lambda *args: seen.append(args[-1]) or one_epoch(*args))
    record = Experiment(workspace, "cpu").run("improved", 0)
    assert seen == [1] and record["scores"] == lab.run("improved", 0)["scores"]


def test_runs_fan_out_to_processes_with_the_same_result(study, lab, tmp_path):
    """joblib's processes, as many as its configuration says; a cluster is another backend of it."""
    workspace = Workspace("smoke", tmp_path)
    prepare_study(study, workspace)
    with joblib.parallel_config(backend="loky", n_jobs=2, inner_max_num_threads=1):
        records = Experiment(workspace, "cpu").runs(["baseline", "improved"])
    assert [record["run_id"] for record in records] == ["baseline-s0", "improved-s0"]
    assert {record["cost"]["hardware"]["threads"] for record in records} == {1}
    for record in records:  # another number of threads adds in another order
        first, own = (pd.DataFrame(r["scores"])["mAP"].to_numpy(float)
                      for r in (record, lab.run(record["preset"], 0)))
        assert np.abs(first - own).max() < 0.05


def test_the_command_line_trains_scores_and_refuses(tmp_path, capsys, monkeypatch):
    command = ["run", "--study", "smoke", "--preset", "baseline", "--workspace", str(tmp_path),
               "--device", "cpu"]
    assert cli.main(command) == 0
    assert "baseline-s0: standard mAP 0." in capsys.readouterr().out
    assert (tmp_path / "reports/smoke/runs/baseline-s0/run.json").is_file()
    monkeypatch.setattr(runner, "train", None)
    assert cli.main(command) == 0 and "finished before" in capsys.readouterr().out
    assert cli.main([*command[:-1], "gpu"]) == 1
    assert "unknown device 'gpu'" in capsys.readouterr().err
    assert cli.main(["run", "--study", "smok", *command[3:]]) == 1
    assert "unknown study 'smok'" in capsys.readouterr().err


def test_a_study_that_was_fixed_before_says_where_it_differs(tmp_path, capsys, monkeypatch):
    command = ["run", "--study", "smoke", "--preset", "untrained", "--workspace", str(tmp_path)]
    study = load_study("smoke")
    assert cli.main(command) == 0 and "parameter file" not in capsys.readouterr().out
    edited = replace(study, perplexity=7.0, train={**study.train, "epochs": 9})
    monkeypatch.setattr(prepare, "load_study", lambda name: edited)
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "perplexity 5.0 instead of 7.0" in said and "'epochs': 1" in said
    assert "Delete that file, or run 01_data, to take the new values" in said
    (tmp_path / "reports/smoke/study.json").write_text("{")
    assert cli.main(command) == 1
    assert "study.json is no study" in capsys.readouterr().err


def test_ctrl_c_on_the_command_line_is_no_traceback(tmp_path, monkeypatch):
    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "train", stopped)
    assert cli.main(["run", "--study", "smoke", "--preset", "baseline",
                     "--workspace", str(tmp_path)]) == 130


def test_pictures_that_are_not_there_name_the_notebook(study, tmp_path):
    workspace = Workspace("smoke", tmp_path)
    prepare_study(study, workspace)
    shutil.rmtree(workspace.artifacts / "data")
    with pytest.raises(FileNotFoundError, match="no images at .*run notebook 01_data"):
        Experiment(workspace, "cpu")


def test_new_protocols_score_the_saved_embeddings_again(lab, monkeypatch):
    before = lab.run("baseline", 0)
    folder = lab.weights("baseline", 0).parent
    for path in (folder / "run.json", lab.workspace.runs / "baseline-s0" / "run.json"):
        record = {**json.loads(path.read_text()), "protocols": [], "scores": []}
        path.write_text(json.dumps(record))
    monkeypatch.setattr(runner, "train", None)
    after = Experiment(lab.workspace, "cpu").run("baseline", 0)
    assert after["scores"] == before["scores"] and after["cost"] == before["cost"]


def test_notebooks_out_of_order_name_the_one_to_run(lab, tmp_path, study):
    empty = Workspace("smoke", tmp_path)
    with pytest.raises(FileNotFoundError, match="run notebook 01_data"):
        Experiment(empty)
    prepare_study(study, empty)
    with pytest.raises(FileNotFoundError, match="baseline-s0.*run notebook 02_baseline first"):
        Experiment(empty).embeddings("baseline", 0)
    with pytest.raises(FileNotFoundError, match="untrained-s0.*run 02_baseline first"):
        load_records(empty)


def test_unknown_device_and_drawing_parameter(lab, study, tmp_path):
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        Experiment(lab.workspace, "gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="sees no CUDA device"):
            Experiment(lab.workspace, "cuda")
    with pytest.raises(ValueError, match="parameter of the drawings 'trian_ids'.*'train_ids'"):
        prepare_study(replace(study, synthetic={"trian_ids": 3}), Workspace("smoke", tmp_path))
    assert not (tmp_path / "reports").exists()


def test_report_is_made_of_the_records(lab):
    paths.write_csv(lab.workspace.tables / "audit.csv", pd.DataFrame(
        {"check": ["query copies in gallery"], "words": ["All is well."]}))
    page = write_report(StudyResults(lab.workspace)).read_text()
    study, records = load_records(lab.workspace)
    table = tables.headline(tables.query_rows(records)).set_index("model")
    assert table.index.tolist() == [v.label for v in RESULT_ROWS]
    score = next(s for s in lab.run("improved", 0)["scores"]
                 if (s["protocol"], s["flip"], s["reranked"]) == ("standard", "query", False))
    cell = table.loc["+ flipped query", "standard mAP"]
    assert cell.startswith(text.percent(score["mAP"]) + " [")
    assert table.loc["baseline", "paper mAP"] == "90.8" and "All is well." in page
    assert "make report STUDY=smoke EPOCHS=2 SEEDS=0 AGAIN=1" in page and "| + y-pooling |" in page
    assert str(lab.workspace.root) not in page


def test_own_data_from_a_csv(tmp_path, monkeypatch, study):
    """A study whose dataset is a user's CSV, read from REIDLIB_DATA."""
    drawn = prepare_study(study, Workspace("smoke", tmp_path))
    folder = tmp_path / "data" / "mine"
    folder.parent.mkdir()
    drawn.root.rename(folder)
    drawn.manifest[["path", "id", "cam", "split"]].to_csv(folder / "mine.csv", index=False)
    monkeypatch.setenv("REIDLIB_DATA", str(tmp_path / "data"))
    workspace = Workspace("mine", tmp_path)
    prepare_study(replace(study, name="mine", dataset="mine/mine.csv"), workspace)
    record = Experiment(workspace, "cpu").run("untrained", 0)
    assert record["data"]["name"] == "mine" and record["data"]["counts"]["gallery"]["images"] == 60


def test_one_camera_is_refused_before_training(tmp_path, monkeypatch, study):
    drawn = prepare_study(study, Workspace("smoke", tmp_path))
    manifest = drawn.manifest.assign(cam="only")
    manifest[["path", "id", "cam", "split"]].to_csv(drawn.root / "one.csv", index=False)
    with pytest.raises(ValueError, match="no query has a match from another camera"):
        prepare_study(replace(study, dataset=str(drawn.root / "one.csv")),
                      Workspace("one", tmp_path))
    assert not (tmp_path / "reports" / "one").exists()


def test_records_are_plain_json(lab):
    text = (lab.workspace.runs / "improved-s0" / "run.json").read_text()
    assert "NaN" not in text and json.loads(text)["run_id"] == "improved-s0"
