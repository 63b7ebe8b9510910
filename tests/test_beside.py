"""A study with everything beside it: folds, another schedule, candidates, a crowd."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from reidlib import beside, crowd, report, results, runs
from reidlib.config import MODELS
from reidlib.experiment import Experiment, prepare_study
from reidlib.findings import PRESETS_IN_REPORT, Findings, overview
from reidlib.manifest import Dataset
from reidlib.paths import Workspace
from reidlib.results import percent
from reidlib.retrieval import Embedded
from reidlib.studies import load_study


@pytest.fixture(scope="module")
def study():
    return load_study("smoke")


@pytest.fixture(scope="module")
def ws(study, tmp_path_factory):
    root = tmp_path_factory.mktemp("paper")
    workspace = Workspace("smoke", root)
    prepare_study(study, workspace)
    lab = Experiment(workspace, "cpu")
    lab.runs(PRESETS_IN_REPORT)
    results.write_csv(workspace.tables / "audit.csv", pd.DataFrame(
        {"check": ["query copies in gallery"], "words": ["All is well."]}))
    models = tuple(model.preset for model in MODELS)
    others = {"folds": {"folds": 2, "presets": models},
              "blockwise": {"presets": models[:2], "train": {
                  **study.train, "schedule": "blockwise", "release_every": 1}},
              "selection": {"folds": 2, "fold": 0, "people": "train", "candidates": {
                  "plain": {}, "smooth": {"label_smoothing": 0.2}}}}
    for name, changes in others.items():
        runs.run_all(replace(study, name=f"smoke-{name}", **changes), root, "cpu")
    people = lab.dataset.manifest.query("split == 'train'").reset_index(drop=True)
    strangers = Dataset("others", lab.dataset.root, people.assign(id="others " + people["id"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crowd, "SIZES", (0, 10))
        for model in MODELS:
            crowd.run(lab, strangers, model, 0)
    return workspace


@pytest.fixture(scope="module")
def found(ws):
    return Findings(ws)


def test_folds_pool_everybody_once_a_model(found):
    assert found.folds.groupby("row", observed=True)["path"].agg(["size", "nunique"]).to_numpy(
        ).tolist() == [[160, 160]] * 3  # 10 people, 16 images each; copies of queries once
    table = found.beside["folds"]
    assert table["people"].tolist() == [10] * 3 and table["queries"].tolist() == [160] * 3
    own = found.folds[found.folds["row"] == "best"]
    assert table["mAP"].iloc[2].startswith(percent(own["AP"].mean()) + " [")


def test_schedules_stand_side_by_side(found):
    table = beside.schedules_table(found.beside["schedules"])
    assert table["schedule"].tolist() == ["end-to-end, 1 epochs"] * 3 + ["blockwise, 1 epochs"] * 2
    assert table["model"].tolist() == ["baseline", "improved", "best", "baseline", "improved"]
    record = next(r for r in found.blockwise if r["preset"] == "improved")
    score = next(s for s in record["scores"] if s["protocol"] == "standard"
                 and s["flip"] == "query" and not s["reranked"])
    assert table["standard"].iloc[4].startswith(percent(score["mAP"]) + " [")


def test_selection_lists_every_candidate_best_first(found):
    table = found.beside["selection"].set_index("candidate")
    assert set(table.index) == {"plain", "smooth"}
    assert table.loc["smooth", "changes"] == "label_smoothing 0.2"
    assert table.loc["plain", "against the first"] == "–"
    assert table["mAP, flip none"].astype(float).is_monotonic_decreasing
    trained = {r["preset"]: r for r in found.selection}["plain"]
    assert trained["data"]["counts"]["train"]["identities"] == 3  # of the study's 6


def test_crowd_against_plain_rankings(ws, found):
    """Every image's AP among the strangers by the ranking of all of them."""
    record = next(r for r in found.crowd if r["preset"] == "improved")
    table = results.read_tables([record], "per_query")
    assert sorted(table["strangers"].unique()) == [0, 10, 96]
    alone = table[table["strangers"] == 0].set_index("path")["AP"]
    run = next(r for r in found.records if r["preset"] == "improved")
    queries = results.read_tables([run], "per_query")
    want = queries[(queries["protocol"] == "standard-all") & (queries["flip"] == "query")]
    pd.testing.assert_series_equal(alone.sort_index(), want.set_index("path")["AP"].sort_index())
    means = table.groupby("strangers")["AP"].mean()
    assert means.is_monotonic_decreasing and means[96] < means[0]
    scores = found.beside["crowd"].set_index(["row", "strangers"])["value"]
    assert scores["improved", 10] == pytest.approx(means[10])
    assert beside.crowd_table(found.beside["crowd"]).columns.tolist() == [
        "model", "0 strangers", "10 strangers", "96 strangers"]


def test_scores_in_a_crowd_by_hand(make_embedded):
    """A stranger between query and match costs it half of its precision."""
    test = make_embedded([0, 20], ["a", "a"], ["1", "2"])
    crowd_of = make_embedded([10, 90], ["x", "y"], ["1", "1"], sha256=["x", "y"])
    nobody = test.take(np.array([], dtype=int))
    table = crowd.score(test, Embedded(**vars(nobody)), crowd_of, "none")
    assert table.groupby("strangers")["AP"].mean().tolist() == [1.0, 0.5]


def test_overview_has_every_way_of_asking(found):
    table = overview(found)
    assert table["measure"].unique().tolist() == [
        "the paper's rules", "standard, the paper's queries", "standard, every test image",
        "standard, everybody in folds"]
    assert set(table["row"]) == {"untrained", "baseline", "improved", "best"}


def test_pages_have_all_sections_and_figures_their_captions(ws, found):
    report.draw(found)
    page = report.write_report(ws).read_text()
    for title in ("In two minutes", "Both schedules", "Everybody tested by a stranger",
                  "A crowd of strangers", "How `best` was chosen", "Limits"):
        assert f"\n## {title}\n" in page
    for name in ("overview", "schedules", "crowd"):
        assert f"](figures/{name}.png)" in page and (ws.figures / f"{name}.png").is_file()
    assert "on 10 people in cross-validation" in page and "make paper STUDY=smoke" in page
    assert "96 images of 6 people" in page


def test_what_is_not_whole_is_left_out(ws, tmp_path):
    part = Workspace("smoke", tmp_path)
    shutil.copytree(ws.root / "reports", tmp_path / "reports")
    shutil.rmtree(tmp_path / "reports/smoke-folds/1/runs/best-s0")
    shutil.rmtree(part.reports / "crowd" / "best-s0")
    shutil.rmtree(tmp_path / "reports/smoke-blockwise")
    found = Findings(part)
    assert found.folds is None and found.crowd is None and found.blockwise is None
    assert list(found.beside) == ["selection"]
    assert "Both schedules" not in report.pages(found)


def test_a_crowd_is_found_again_but_not_one_of_other_runs(ws, study, monkeypatch, capsys):
    lab = Experiment(ws, "cpu")
    people = lab.dataset.manifest.query("split == 'train'").reset_index(drop=True)
    strangers = Dataset("others", lab.dataset.root, people.assign(id="others " + people["id"]))
    monkeypatch.setattr(crowd, "embed_strangers", None)
    crowd.run(lab, strangers, MODELS[0], 0)
    assert "its crowd was there before" in capsys.readouterr().out
    changed = replace(lab.study, train={**study.train, "epochs": 2})
    assert beside.crowd(ws, changed) is None


def test_crowd_command_line_names_what_is_missing(ws, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REIDLIB_DATA", str(tmp_path))
    arguments = ["--study", "smoke", "--device", "cpu", "--workspace", str(ws.root)]
    assert crowd.main(arguments) == 1
    assert "market1501" in capsys.readouterr().err
    assert crowd.main(["--study", "smok"]) == 1
    assert "unknown study 'smok'" in capsys.readouterr().err
