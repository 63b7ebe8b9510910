"""A small study is run once; what is found, continued and refused afterwards."""

import hashlib
import json
import shutil
from dataclasses import replace
from importlib.metadata import version

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from reidlib import cli, open_study
from reidlib.evaluation.embeddings import embed
from reidlib.evaluation.protocols import PROTOCOLS
from reidlib.experiments import runner, train
from reidlib.experiments.prepare import prepare_study
from reidlib.experiments.records import read_tables
from reidlib.experiments.runner import Experiment
from reidlib.experiments.scores import RERANKED_FLIPS, lacking, same_rules
from reidlib.experiments.study import write_study
from reidlib.experiments.train import build_model
from reidlib.models import files
from reidlib.report.study_results import load_records
from reidlib.training import checkpoint, loop
from reidlib.utils.paths import Workspace, write_json


def test_a_run_record_holds_what_a_reader_asks(lab):
    record = lab.run("baseline", 0)
    assert {(s["protocol"], s["flip"], s["reranked"], s["alone"]) for s in record["scores"]} == {
        *((p, f, r, False) for p in PROTOCOLS for f, r in (
            ("none", False), ("query", False), ("both", False),
            *((flip, True) for flip in RERANKED_FLIPS)) if PROTOCOLS[p].reranks or not r),
        *(("standard", flip, True, True) for flip in RERANKED_FLIPS)}
    assert record["config"]["epochs"] == 2 and record["data"]["counts"]["query"]["images"] == 8
    assert record["protocols"][0]["name"] == "standard" and record["cost"]["versions"]["torch"]
    assert record["cost"]["hardware"]["device"] == "cpu" and record["cost"]["train_seconds"] > 0
    assert "/" not in record["cost"]["hardware"]["cpu"]
    assert {(v["flip"], v["fpr"]) for v in record["verification"]} == {
        (f, rate) for f in ("none", "query", "both") for rate in (0.001, 0.01, 0.1)}
    assert len(read_tables([record], "history")) == 2
    saved = load_file(lab.weights("baseline", 0))
    assert record["cost"]["parameters"] == sum(
        values.size for name, values in saved.items() if ".running_" not in name
        and not name.endswith("num_batches_tracked"))


def test_scores_are_those_of_the_per_query_table(lab):
    record = lab.run("improved", 0)
    queries = read_tables([record], "per_query")
    for scores in record["scores"]:
        own = queries[(queries["protocol"] == scores["protocol"])
                      & (queries["flip"] == scores["flip"])
                      & (queries["reranked"] == scores["reranked"])
                      & (queries["alone"] == scores["alone"])]
        assert len(own) == scores["n_query"]
        assert scores["mAP"] == pytest.approx(own["AP"].mean())
        assert scores["rank1"] == pytest.approx(own["rank1"].mean())


def test_untrained_is_the_baseline_before_its_first_step(lab, study):
    query, _ = lab.embeddings("untrained", 0)
    model = build_model(study.config("baseline", 0), lab._split("train"))
    images = lab._images("query", 64)
    np.testing.assert_allclose(embed(model, images)[0], query.emb, atol=1e-6)


def test_saved_weights_give_the_saved_embeddings(lab, study):
    """In one line, from the file alone."""
    model = files.load(lab.weights("improved", 0))
    query, _ = lab.embeddings("improved", 0)
    assert not model.training
    for found, saved in zip(embed(model, lab._images("query", 64)), (query.emb, query.mirrored),
                            strict=True):
        np.testing.assert_array_equal(found, saved)
    assert not (lab.weights("improved", 0).parent / "checkpoint.pt").exists()


def test_finished_runs_are_found_not_repeated(lab, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(runner, "train", never)
    again = Experiment(lab.workspace, "cpu")
    assert [r["run_id"] for r in again.train_all(lab.study.all_presets)] == [
        f"{preset}-s0" for preset in lab.study.all_presets]


def test_a_finished_run_without_the_flips_that_are_asked_for_now_says_so(clone, study, capsys):
    path = clone.workspace.runs / "baseline-s0" / "run.json"
    record = json.loads(path.read_text())
    assert lacking(record, study) == []
    assert lacking(record, replace(study, flips=("none",), protocols=("standard",))) == []
    record["scores"] = [score for score in record["scores"] if score["flip"] != "both"
                        and score["protocol"] != "leak-free"]
    assert lacking(record, replace(study, protocols=("standard", "leak-free"))) == [
        "both", "leak-free"]
    assert lacking(record, replace(study, protocols=("leak-free",), folds=2)) == ["both"]
    path.write_text(json.dumps(record))
    queries = pd.read_csv(path.with_name("per_query.csv"), dtype=str)
    queries[(queries["flip"] != "both") & (queries["protocol"] != "leak-free")].to_csv(
        path.with_name("per_query.csv"), index=False)
    clone.run("baseline", 0)
    assert "not trained again (no scores with both)" in capsys.readouterr().out


@pytest.fixture
def clone(lab, study, tmp_path):
    """As in a fresh clone: the records, without artifacts."""
    workspace = Workspace("smoke", tmp_path)
    shutil.copytree(lab.workspace.reports, workspace.reports)
    prepare_study(study, workspace)
    return Experiment(workspace, "cpu")


def test_reading_trains_nothing_and_says_what_makes_the_weights(clone, lab, monkeypatch):
    monkeypatch.setattr(runner, "train", None)  # would raise TypeError
    assert clone.run("baseline", 0)["scores"] == lab.run("baseline", 0)["scores"]
    for read in (clone.weights, clone.embeddings, clone.ranking):
        with pytest.raises(FileNotFoundError, match="run baseline-s0 has no weights in .*: its "
                           "record is here, its weights are not: train_missing_weights makes them"):
            read("baseline", 0)
    (clone.workspace.runs / "ypool-s0" / "cmc.csv").unlink()  # not complete: not finished
    for read in (clone.weights, clone.embeddings, clone.ranking):
        with pytest.raises(FileNotFoundError, match="ypool-s0.*run 04_ablations first"):
            read("ypool", 0)
    assert clone.train_missing_weights(["ypool"], 0) == []  # not finished: not its business
    assert not list(clone.workspace.artifacts.glob("*-s0-*"))


def test_missing_weights_are_trained_and_the_record_stays(clone, lab, capsys, monkeypatch):
    path = clone.workspace.runs / "baseline-s0" / "run.json"
    record = json.loads(path.read_text())
    record["scores"] = [{**score, "mAP": score["mAP"] + 0.02} for score in record["scores"]
                        if not score["reranked"]]  # of a time before there was any re-ranking
    record["cost"]["hardware"]["cpu"] = "another"
    path.write_text(json.dumps(record))
    before = path.read_bytes()
    here, = clone.train_missing_weights(["baseline"], 0)
    assert here["scores"] == lab.run("baseline", 0)["scores"] != record["scores"]
    out = capsys.readouterr().out
    assert "its record is here, its weights are not" in out
    assert "trained again, its mAP is within 2.0 points of the record's" in out
    assert "protocol that both have;\n    the record stays. It was made on another, " in out
    query, _ = clone.embeddings("baseline", 0)
    np.testing.assert_array_equal(query.emb, lab.embeddings("baseline", 0)[0].emb)
    assert clone.weights("baseline", 0).is_file() and path.read_bytes() == before
    monkeypatch.setattr(runner, "train", None)
    clone.train_missing_weights(["baseline"], 0)  # they are there now


@pytest.mark.parametrize("name", ["weights.safetensors", "query.npz", "gallery.npz"])
def test_a_file_next_to_a_finished_record_that_is_gone_is_made_again(copied, lab, name):
    path = copied.weights("untrained", 0).with_name(name)
    before = path.read_bytes()
    path.unlink()
    with pytest.raises(FileNotFoundError, match="train_missing_weights makes them"):
        copied.weights("untrained", 0)
    copied.train_missing_weights(["untrained"], 0)
    assert path.read_bytes() == before


def test_damaged_embeddings_and_tables_are_noticed(copied):
    path = copied.weights("baseline", 0).with_name("query.npz")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="query.npz does not hold embeddings .*Delete .*baseline-s0"
                       ".*: then the run is trained again"):
        copied.embeddings("baseline", 0)
    (copied.workspace.runs / "improved-s0/history.csv").write_text("")
    assert not copied.finished("improved", 0) and copied.finished("baseline", 0)
    table = copied.workspace.runs / "ypool-s0/per_query.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-30]))
    with pytest.raises(ValueError, match="run.json says .*, per_query.csv says"):
        copied.run("ypool", 0)


def test_other_backbone_weights_do_not_pass_for_those_of_a_record(clone, monkeypatch, tmp_path):
    record = clone.run("baseline", 0)
    assert record["cost"]["backbone_sha256"] is None  # from scratch
    assert record["cost"]["reidlib"] == version("reidlib")
    monkeypatch.setenv("REIDLIB_WEIGHTS", str(tmp_path))
    (tmp_path / "vit.safetensors").write_bytes(b"one")
    config = replace(clone.study.config("baseline", 0), pretrained=True, backbone="vit")
    assert train.backbone_hash(config) == hashlib.sha256(b"one").hexdigest()
    then, now = "a" * 64, "b" * 64
    record["cost"]["backbone_sha256"] = then
    write_json(record.pop("folder") / "run.json", record)
    for found in (None, then, now):
        monkeypatch.setattr(train, "backbone_hash", lambda config, found=found: found)
        if found != now:
            clone.run("baseline", 0)
    for again in (clone.run, lambda *_: clone.train_missing_weights(["baseline"], 0)):
        with pytest.raises(ValueError, match=f"baseline-s0 started.*{then}.*{now}: bring.*delete"):
            again("baseline", 0)


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
                        lambda *args: seen.append(args[6]) or one_epoch(*args))
    record = Experiment(workspace, "cpu").run("improved", 0)
    assert seen == [1] and record["scores"] == lab.run("improved", 0)["scores"]


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # another number adds in another order
    yield
    torch.set_num_threads(before)


def test_runs_fan_out_to_processes_with_the_same_result(study, tmp_path, one_thread):
    """joblib's processes, as many as its configuration says; a cluster is another backend of it.

    With the same number of threads every bit is the same, wherever a run is trained.
    """
    found = []
    for n_jobs in (2, 1):
        workspace = Workspace("smoke", tmp_path / str(n_jobs))
        prepare_study(study, workspace)
        with joblib.parallel_config(backend="loky", n_jobs=n_jobs, inner_max_num_threads=1):
            found.append(Experiment(workspace, "cpu").train_all(["baseline", "improved"]))
    assert [record["run_id"] for record in found[0]] == ["baseline-s0", "improved-s0"]
    assert {r["cost"]["hardware"]["threads"] for records in found for r in records} == {1}
    for elsewhere, here in zip(*found, strict=True):
        assert elsewhere["scores"] == here["scores"]
        assert elsewhere["verification"] == here["verification"]
        losses = [read_tables([record], "history")["loss"].tolist() for record in (elsewhere, here)]
        assert losses[0] == losses[1] and len(losses[0]) == 2


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


def test_ctrl_c_on_the_command_line_is_no_traceback(tmp_path, monkeypatch):
    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "train", stopped)
    assert cli.main(["run", "--study", "smoke", "--preset", "baseline",
                     "--workspace", str(tmp_path)]) == 130


@pytest.mark.parametrize("rules", ["others", "the same, without flips on both sides"])
def test_new_protocols_and_flips_score_the_saved_embeddings_again(lab, monkeypatch, rules):
    before = lab.run("baseline", 0)
    folder = lab.weights("baseline", 0).parent
    if rules == "others":
        then = {"protocols": [], "scores": []}
    else:
        then = {"scores": [score for score in before["scores"] if score["flip"] != "both"]}
    for path in (folder / "run.json", lab.workspace.runs / "baseline-s0" / "run.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), **then}))
    monkeypatch.setattr(runner, "train", None)
    after = Experiment(lab.workspace, "cpu").run("baseline", 0)
    assert after["scores"] == before["scores"] and after["cost"] == before["cost"]


def test_a_record_counts_while_no_protocol_of_its_has_other_rules(lab):
    """One that is gone, or a rule that there was not yet, is no other rule."""
    record = lab.run("baseline", 0)
    assert same_rules(record)
    rules = [{k: v for k, v in p.items() if k != "other_camera"} for p in record["protocols"]]
    gone = {**rules[0], "name": "single-shot", "draws": 100}
    assert same_rules({**record, "protocols": [*rules[:3], gone]})
    assert not same_rules({**record, "protocols": [{**rules[0], "drop_junk": False}]})
    assert not same_rules({**record, "protocols": [gone]})
    assert not same_rules({**record, "reranking": {}})
    assert not same_rules({**record, "protocols": [{**rules[0], "unheard": 1}]})


def test_notebooks_out_of_order_name_the_one_to_run(lab, tmp_path, study):
    empty = Workspace("smoke", tmp_path)
    with pytest.raises(FileNotFoundError, match="run notebook 01_data"):
        Experiment(empty)
    prepare_study(study, empty)
    with pytest.raises(FileNotFoundError, match="baseline-s0.*run 02_baseline first"):
        Experiment(empty).embeddings("baseline", 0)
    with pytest.raises(FileNotFoundError, match="untrained-s0.*run 02_baseline first"):
        load_records(empty)


def test_a_device_that_is_not_here_is_refused(lab, monkeypatch):
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        Experiment(lab.workspace, "gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="sees no CUDA device"):
        Experiment(lab.workspace, "cuda")


def test_a_study_is_opened_by_its_name(lab):
    opened = open_study("smoke", str(lab.workspace.root), "cpu")
    assert opened.workspace == lab.workspace and opened.study == lab.study
    assert opened.run("baseline", 0) == lab.run("baseline", 0)


def test_records_are_plain_json(lab):
    text = (lab.workspace.runs / "improved-s0" / "run.json").read_text()
    assert "NaN" not in text and json.loads(text)["run_id"] == "improved-s0"
