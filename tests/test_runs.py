"""Studies without notebooks: folds, candidates; all runs of one with one command."""

from dataclasses import replace

import pandas as pd
import pytest

from reidlib import experiment, pipeline, runs
from reidlib.paths import Workspace
from reidlib.results import read_tables
from reidlib.studies import load_study


@pytest.fixture(scope="module")
def study():
    smoke = load_study("smoke")
    return replace(smoke, name="smoke-folds", folds=2, presets=("baseline",),
                   candidates={"smooth": {"label_smoothing": 0.1}})


def test_every_fold_has_runs_of_its_own_and_every_image_is_a_query_once(study, tmp_path,
                                                                        monkeypatch, capsys):
    records = runs.run_all(study, tmp_path, "cpu")
    assert [(r["study"], r["run_id"]) for r in records] == [
        ("smoke-folds", run) for _ in range(2) for run in ("baseline-s0", "smooth-s0")]
    assert [r["config"]["label_smoothing"] for r in records] == [0, 0.1] * 2
    assert {s["protocol"] for r in records for s in r["scores"]} == {"standard-all"}
    first = read_tables([r for r in records if r["preset"] == "baseline"], "per_query")
    own = first[first["flip"] == "none"]
    manifest = pd.read_csv(tmp_path / "reports/smoke-folds/0/manifest.csv", dtype=str)
    assert sorted(own["path"]) == sorted(manifest["path"])
    assert own["id"].nunique() == 10
    monkeypatch.setattr(experiment, "train", None)  # all are finished
    assert [r["scores"] for r in runs.run_all(study, tmp_path, "cpu")] == [
        r["scores"] for r in records]
    assert "2 presets, 1 seeds, 2 data splits" in capsys.readouterr().out


def test_one_fold_alone_and_no_folds(study, tmp_path):
    assert runs.parts(replace(study, fold=1), tmp_path) == [
        (replace(study, fold=1), Workspace("smoke-folds", tmp_path))]
    assert [w.study for _, w in runs.parts(study, tmp_path)] == ["smoke-folds/0", "smoke-folds/1"]
    plain = replace(study, folds=0)
    assert runs.parts(plain, tmp_path) == [(plain, Workspace("smoke-folds", tmp_path))]


def test_runs_go_side_by_side_and_again_forgets_the_finished(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "load_study", lambda name: study)
    arguments = ["--study", "smoke-folds", "--device", "cpu", "--workspace", str(tmp_path)]
    assert runs.main([*arguments, "--jobs", "2"]) == 0
    folders = sorted((tmp_path / "reports/smoke-folds").glob("?/runs/*/run.json"))
    assert len(folders) == 4
    before = [path.stat().st_mtime_ns for path in folders]
    assert runs.main(arguments) == 0
    assert [path.stat().st_mtime_ns for path in folders] == before
    assert runs.main([*arguments, "--again"]) == 0
    assert all(path.stat().st_mtime_ns > then for path, then in zip(folders, before, strict=True))


def test_a_study_of_notebooks_and_one_in_folds_say_how_they_are_run(study, tmp_path, capsys):
    kept = tmp_path / "reports/smoke/runs/baseline-s0/run.json"
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert runs.main(["--study", "smoke", "--again", "--workspace", str(tmp_path)]) == 1
    assert "names no presets and no candidates" in capsys.readouterr().err and kept.is_file()
    with pytest.raises(ValueError, match="dealt to 2 folds.*reidlib.runs --study smoke-folds"):
        experiment.prepare_study(study, Workspace("smoke-folds", tmp_path))
    assert pipeline.main(["--study", "pku-reid-folds", "--workspace", str(tmp_path)]) == 2
    assert "python -m reidlib.runs --study pku-reid-folds" in capsys.readouterr().err


def test_command_line_refuses_what_it_does_not_know(capsys, tmp_path):
    assert runs.main(["--study", "smok", "--workspace", str(tmp_path)]) == 1
    assert "unknown study 'smok'" in capsys.readouterr().err
