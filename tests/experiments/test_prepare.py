"""A study's data are checked before anything is trained on them."""

import shutil
from dataclasses import replace

import pytest

from reidlib import cli
from reidlib.experiments import prepare
from reidlib.experiments.prepare import prepare_study
from reidlib.experiments.runner import Experiment
from reidlib.experiments.study import load_study
from reidlib.utils.paths import Workspace


def test_a_study_that_was_saved_before_says_where_it_differs(tmp_path, capsys, monkeypatch):
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
    assert "study.json is not a study" in capsys.readouterr().err


def test_pictures_that_are_not_there_name_the_notebook(study, tmp_path):
    workspace = Workspace("smoke", tmp_path)
    prepare_study(study, workspace)
    shutil.rmtree(workspace.artifacts / "data")
    with pytest.raises(FileNotFoundError, match="no images at .*run notebook 01_data"):
        Experiment(workspace, "cpu")


def test_a_manifest_that_lost_a_line_is_not_trained_on(study, tmp_path):
    workspace = Workspace("smoke", tmp_path)
    prepare_study(study, workspace)
    path = workspace.reports / "manifest.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match="manifest.csv has the checksum .*run notebook 01_data"):
        Experiment(workspace, "cpu")


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


def test_an_unknown_parameter_of_the_drawings_is_refused(study, tmp_path):
    with pytest.raises(ValueError, match="parameter of the drawings 'trian_ids'.*'train_ids'"):
        prepare_study(replace(study, synthetic={"trian_ids": 3}), Workspace("smoke", tmp_path))
    assert not (tmp_path / "reports").exists()


def test_perplexity_must_fit_the_gallery(study, tmp_path):
    with pytest.raises(ValueError, match="perplexity is 60.0, but there are only 60 gallery images "
                                         "for t-SNE: set `perplexity: 15`"):
        prepare_study(replace(study, perplexity=60.0), Workspace("smoke", tmp_path))
    assert not (tmp_path / "reports").exists()
    with pytest.raises(ValueError, match="perplexity"):
        replace(study, perplexity=0.0)
