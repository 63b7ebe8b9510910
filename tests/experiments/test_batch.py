"""Studies without notebooks: folds, candidates; all runs of one with one command."""

from dataclasses import replace

import pandas as pd
import pytest

from reidlib import cli
from reidlib.experiments import batch, runner
from reidlib.experiments.prepare import prepare_study
from reidlib.experiments.records import read_tables
from reidlib.experiments.study import load_study
from reidlib.utils.paths import Workspace


@pytest.fixture(scope="module")
def study():
    smoke = load_study("smoke")
    return replace(smoke, name="smoke-folds", folds=2, presets=("baseline",),
                   candidates={"smooth": {"label_smoothing": 0.1}})


def test_every_fold_has_runs_of_its_own_and_every_image_is_a_query_once(study, tmp_path,
                                                                        monkeypatch, capsys):
    records = batch.run_all(study, tmp_path, "cpu")
    assert [(r["study"], r["run_id"]) for r in records] == [
        ("smoke-folds", run) for _ in range(2) for run in ("baseline-s0", "smooth-s0")]
    assert [r["config"]["label_smoothing"] for r in records] == [0, 0.1] * 2
    assert {s["protocol"] for r in records for s in r["scores"]} == {"standard-all"}
    first = read_tables([r for r in records if r["preset"] == "baseline"], "per_query")
    own = first[first["flip"] == "none"]
    manifest = pd.read_csv(tmp_path / "reports/smoke-folds/0/manifest.csv", dtype=str)
    assert sorted(own["path"]) == sorted(manifest["path"])
    assert own["id"].nunique() == 10
    monkeypatch.setattr(runner, "train", None)  # all are finished
    assert [r["scores"] for r in batch.run_all(study, tmp_path, "cpu")] == [
        r["scores"] for r in records]
    assert "2 presets, 1 seeds, 2 data splits" in capsys.readouterr().out


def test_one_fold_alone_and_no_folds(study, tmp_path):
    assert batch.parts(replace(study, fold=1), tmp_path) == [
        (replace(study, fold=1), Workspace("smoke-folds", tmp_path))]
    assert [w.study for _, w in batch.parts(study, tmp_path)] == ["smoke-folds/0", "smoke-folds/1"]
    plain = replace(study, folds=0)
    assert batch.parts(plain, tmp_path) == [(plain, Workspace("smoke-folds", tmp_path))]


def test_runs_go_side_by_side_and_again_forgets_the_finished(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("reidlib.experiments.prepare.load_study", lambda name: study)
    arguments = ["study", "--study", "smoke-folds", "--device", "cpu", "--workspace", str(tmp_path)]
    assert cli.main([*arguments, "--jobs", "2"]) == 0
    folders = sorted((tmp_path / "reports/smoke-folds").glob("?/runs/*/run.json"))
    assert len(folders) == 4
    before = [path.stat().st_mtime_ns for path in folders]
    assert cli.main(arguments) == 0
    assert [path.stat().st_mtime_ns for path in folders] == before
    assert cli.main([*arguments, "--again"]) == 0
    assert all(path.stat().st_mtime_ns > then for path, then in zip(folders, before, strict=True))


def test_a_study_in_folds_says_how_it_is_run(study, tmp_path, capsys):
    with pytest.raises(ValueError, match="has 2 folds.*reidlib study --study smoke-folds"):
        prepare_study(study, Workspace("smoke-folds", tmp_path))
    assert cli.main(["report", "--study", "pku-reid-folds", "--workspace", str(tmp_path)]) == 1
    assert "reidlib study --study pku-reid-folds" in capsys.readouterr().err


def test_command_line_refuses_what_it_does_not_know(capsys, tmp_path):
    assert cli.main(["study", "--study", "smok", "--workspace", str(tmp_path)]) == 1
    assert "unknown study 'smok'" in capsys.readouterr().err
