"""A study with all its supplementary studies: folds, another schedule, candidates, distractors."""

import re
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from reidlib.data.manifest import Dataset
from reidlib.experiments import batch, distractors
from reidlib.experiments.config import TrainConfig
from reidlib.experiments.prepare import prepare_study
from reidlib.experiments.presets import COMPARED
from reidlib.experiments.records import read_run, read_tables
from reidlib.experiments.runner import Experiment
from reidlib.experiments.study import load_study, read_study, write_study
from reidlib.report import arms, page, statements, supplementary, tables, verify
from reidlib.report.study_results import KNOWN_PRESETS, StudyResults
from reidlib.utils import paths
from reidlib.utils.paths import Workspace
from reidlib.utils.text import percent


@pytest.fixture(scope="module")
def study():
    smoke = load_study("smoke")
    return replace(smoke, synthetic={**smoke.synthetic, "orientations": 4})


def elsewhere(lab):
    """Another path to the study's images: distractors from a study's own data is refused."""
    link = lab.workspace.root / "others"
    if not link.exists():
        link.symlink_to(lab.dataset.root)
    return link


@pytest.fixture(scope="module")
def ws(study, tmp_path_factory):
    root = tmp_path_factory.mktemp("paper")
    workspace = Workspace("smoke", root)
    prepare_study(study, workspace)
    lab = Experiment(workspace, "cpu")
    lab.train_all(KNOWN_PRESETS)
    paths.write_csv(workspace.tables / "audit.csv", pd.DataFrame(
        {"check": ["query copies in gallery"], "words": ["All is well."]}))
    models = tuple(model.preset for model in COMPARED)
    others = {"folds": {"folds": 2, "presets": (*models, "ypool", "amtriplet", "baseline-1e-4",
                                                "improved-1e-4")},
              "blockwise": {"presets": models[:2], "train": {
                  **study.train, "schedule": "blockwise", "release_every": 1,
                  "release": "public-code"}},
              "selection": {"presets": (), "folds": 2, "fold": 0, "people": "train", "candidates": {
                  "plain": {}, "averaged": {"ema_decay": 0.5}}},
              "finalists": {"presets": (), "folds": 2, "people": "train", "candidates": {
                  "plain": {}, "averaged": {"ema_decay": 0.5}}},
              "arms": {"presets": (), "folds": 2, "fold": 0, "people": "train", "flips": ("none",),
                       "candidates": {"softmax-1": {}, "softmax-2": {"lr": 1e-3}, "y-pooling-1": {
                           "y_pooling": True}, "y-pooling-2": {"y_pooling": True, "lr": 1e-3}}},
              "arms-folds": {"presets": (), "folds": 2, "flips": ("none", "query"), "candidates": {
                  "softmax": {}, "y-pooling": {"y_pooling": True}, "all-ideas": {
                      "y_pooling": True, "lr": 1e-3}}},
              "final": {"presets": (), "candidates": {
                  "softmax": {}, "all-ideas": {"y_pooling": True}, "ours": {"lr": 1e-3},
                  "quick": {"lr": 2e-3, "epochs": 2}}},
              "cheaper": {"presets": (), "folds": 2, "fold": 0, "people": "train", "flips": (
                  "none", "both"), "candidates": {"plain": {}, "longer": {"epochs": 2}}}}
    for name, changes in others.items():
        batch.run_all(replace(study, name=f"smoke-{name}", **changes), root, "cpu")
    people = lab.dataset.manifest.query("split == 'train'").reset_index(drop=True)
    others = Dataset("others", elsewhere(lab), people.assign(id="others " + people["id"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distractors, "SIZES", (0, 10))
        for model in COMPARED:
            distractors.run(lab, others, model, 0)
    return workspace


def pages(found):
    return {section.title: section.text for section in page.sections(found)}


@pytest.fixture(scope="module")
def found(ws):
    return StudyResults(ws)


def test_folds_pool_everybody_once_a_model(found):
    assert found.folds.groupby("row", observed=True)["path"].agg(["size", "nunique"]).to_numpy(
        ).tolist() == [[80, 80]] * 3  # 10 people, 8 images each; copies of queries once
    table = found.tables["folds"]
    assert table["people"].tolist() == [10] * 3 and table["queries"].tolist() == [80] * 3
    own = found.folds[found.folds["row"] == "best"]
    assert table["mAP"].iloc[2].startswith(percent(own["AP"].mean()) + " [")


def test_each_idea_alone_over_all_folds(found):
    alone = found.folds_alone.set_index("row")
    assert list(alone.index) == ["y-pooling alone", "AM-Softmax + triplet alone",
                                 "flipped query alone"]
    tested = read_tables(found.supplementary["folds"], "per_query")
    means = tested[tested["protocol"] == "standard-all"].groupby(["preset", "flip"])["AP"].mean()
    assert alone["difference"].tolist() == pytest.approx([
        means["ypool", "none"] - means["baseline", "none"],
        means["amtriplet", "none"] - means["baseline", "none"],
        means["baseline", "query"] - means["baseline", "none"]])

def test_the_papers_model_at_the_rate_of_best(found):
    step, of_best, against_best = found.same_rate.itertuples()
    runs_at = {r["preset"]: r["config"] for r in found.supplementary["folds"]}
    differing = {key for key, value in runs_at["improved-1e-4"].items()
                 if value != runs_at["improved"][key]}
    assert differing == {"preset", "backbone_lr"}
    tested = read_tables(found.supplementary["folds"], "per_query")
    means = tested.groupby(["preset", "flip"])["AP"].mean()
    assert step.difference == pytest.approx(means["improved-1e-4", "query"]
                                            - means["baseline-1e-4", "none"])
    assert of_best.difference == pytest.approx(means["best", "both"]
                                               - means["baseline-1e-4", "none"])
    assert against_best.difference == pytest.approx(means["best", "both"]
                                                    - means["improved-1e-4", "query"])
    assert "| improved, rate of best |" in pages(found)["Cross-validation over all identities"]


def test_both_schedules_are_in_one_table(found, monkeypatch):
    table = supplementary.schedules_table(found.tables["schedules"])
    assert table["schedule"].tolist() == [
        "end-to-end, 1 epoch"] * 3 + ["blockwise, 1 epoch, a block every epoch"] * 2
    assert table["model"].tolist() == ["baseline", "improved", "best", "baseline", "improved"]
    record = next(r for r in found.supplementary["blockwise"] if r["preset"] == "improved")
    score = next(s for s in record["scores"] if s["protocol"] == "standard"
                 and s["flip"] == "query" and not s["reranked"])
    assert table["standard"].iloc[4].startswith(percent(score["mAP"]) + " [")
    said = "Here: blockwise, 1 epoch, a block every epoch"
    assert f"{said}; as in LA-Transformer's public" in pages(found)["Both schedules"]
    monkeypatch.delitem(found.supplementary["blockwise"][-1]["config"], "release")  # older records
    assert f"{said}. mAP" in pages(found)["Both schedules"]


@pytest.mark.parametrize("other", [None, {"release_every": 3}, {"release": "paper"}, {"lr": 0.1}])
def test_the_public_codes_schedule_has_a_line_where_runs_followed_it(found, monkeypatch, other):
    monkeypatch.setattr(StudyResults, "on_the_papers_data", True)
    said = "LA-Transformer's schedule"
    assert said not in pages(found)["In two minutes"]  # the smoke study's is shorter
    for record in found.supplementary["blockwise"]:
        for key in page.SCHEDULE:
            monkeypatch.setitem(record["config"], key, getattr(TrainConfig(), key))
        monkeypatch.setitem(record["config"], "release", "public-code")
        record["config"].update(other or {})
    record = next(r for r in found.supplementary["blockwise"] if r["preset"] == "improved")
    score = next(s for s in record["scores"] if s["protocol"] == "lat-top10"
                 and s["flip"] == "query" and not s["reranked"])
    front = pages(found)["In two minutes"]
    line = re.search(rf"^\| the same, with {said} .*\| 97.5 \| {percent(score['mAP'])} .*"
                     r"\| lower \|", front, re.M)
    first = "no with our training, and no with the paper's blockwise schedule, as LA-Transformer's"
    assert bool(line) == (first in front)
    assert bool(line) == (other is None)


def test_selection_lists_every_candidate_best_first(found):
    table = found.tables["selection"].set_index("candidate")
    assert set(table.index) == {"plain", "averaged"}
    assert table["changes"].to_dict() == {"plain": "–", "averaged": "ema_decay 0.5"}
    assert table.loc["plain", "against plain"] == table.loc["plain", "p"] == "–"
    assert 0 < float(table.loc["averaged", "p"]) <= 1
    assert table["mAP, flip both"].astype(float).is_monotonic_decreasing
    trained = {r["preset"]: r for r in found.supplementary["selection"]}["plain"]
    assert trained["data"]["counts"]["train"]["identities"] == 3  # of the study's 6


def test_finalists_are_scored_on_all_training_people(found):
    text = pages(found)["How candidates were chosen"]  # those of PKU-Reid gave `best`
    assert "is `best`" not in text
    assert "3 people, models trained on 3 others; end-to-end training, 1 epoch" in text
    assert "6 people in 2 folds, models trained on 3 others" in text
    tested = read_tables(found.supplementary["finalists"], "per_query")
    assert tested["id"].nunique() == 6
    own = tested[(tested["preset"] == "averaged") & (tested["flip"] == "both")]["AP"].mean()
    table = found.tables["finalists"].set_index("candidate")
    assert table.loc["averaged", "mAP, flip both"] == percent(own)


def test_each_arm_names_its_best_configuration(found):
    table = found.tables["arms_selection"].set_index("arm")
    records = found.supplementary["arms"]
    mAP = {r["preset"]: next(s["mAP"] for s in r["scores"] if not s["reranked"]) for r in records}
    assert table["configurations"].tolist() == [2, 2]
    for arm, line in table.iterrows():
        own = [mAP[f"{arm}-1"], mAP[f"{arm}-2"]]
        assert line[["worst", "median", "best"]].tolist() == [
            percent(value) for value in (min(own), sum(own) / 2, max(own))]
        assert mAP[line["the best"]] == max(own)
    plain = supplementary.selection_table(records)  # scored without a flip alone
    assert plain["mAP, flip none"].astype(float).is_monotonic_decreasing
    assert not {"mAP, flip query", "mAP, flip both"} & set(plain)


def test_the_best_of_each_arm_is_compared_with_softmax(found):
    sample, = found.arms
    assert sample == "synthetic, 10 people"
    tested = read_tables(found.supplementary["arms-folds"], "per_query")
    means = tested[tested["protocol"] == "standard-all"].groupby(["preset", "flip"])["AP"].mean()
    contrasts = found.arm_steps[sample].set_index("row")
    assert set(contrasts["above"]) == {"softmax"}
    assert contrasts["difference"].to_dict() == pytest.approx({
        "y-pooling": means["y-pooling", "none"] - means["softmax", "none"],
        "all-ideas": means["all-ideas", "query"] - means["softmax", "none"],
        "flipped query": means["softmax", "query"] - means["softmax", "none"]})
    assert (contrasts["p_holm"] >= contrasts["p"]).all()
    assert "arms-market1501" not in found.left_out and len(found.arms) == 1


def test_the_last_comparison_is_that_of_its_runs_and_the_studys_baseline(found):
    own = found.supplementary["final"]
    tested = read_tables([*own, *found.records], "per_query")
    means = tested[(tested["protocol"] == "standard-all") & ~tested["reranked"]].groupby(
        ["preset", "flip"])[["AP", "rank1"]].mean()
    table = found.final.set_index("model")
    used = {"softmax": "none", "all-ideas": "query", "ours": "both", "quick": "none",
            "baseline": "none"}
    assert set(table.index) == set(used)
    for row, flip in used.items():
        assert table.loc[row, "mAP"].startswith(percent(means.loc[(row, flip), "AP"]) + " [")
        assert table.loc[row, "rank-1"].startswith(percent(means.loc[(row, flip), "rank1"]) + " [")
    steps, mAP = found.final_steps.set_index(["row", "above"])["difference"], means["AP"]
    assert steps.to_dict() == pytest.approx({
        ("ours", "softmax"): mAP["ours", "both"] - mAP["softmax", "none"],
        ("ours", "all-ideas"): mAP["ours", "both"] - mAP["all-ideas", "query"],
        ("quick", "baseline"): mAP["quick", "none"] - mAP["baseline", "none"]})
    assert "(#how-cheap-can-it-be)" in pages(found)["Ours on the test people"]


def test_the_last_comparison_says_what_a_run_takes(found):
    records = [{**r, "cost": {"train_seconds": 60 * seed}, "config": {
        **r["config"], "members": 3, "image_size": [64, 32]}} if r["preset"] == "ours" else r
        for seed in (2, 5) for r in found.supplementary["final"]]
    own = arms.queries(found.supplementary["final"], "standard-all")
    table = arms.final_table(records, own).set_index("model")
    took = ["trainings", "epochs", "pixels", "minutes a run"]
    assert table.loc["ours", took].tolist() == [3, 1, "[64, 32]", "3.5"]
    assert table.loc["quick", took[:2]].tolist() == [1, 2]


def test_flips_that_not_all_runs_have_are_no_column(found):
    records = found.supplementary["cheaper"]
    more = {**records[0], "scores": [*records[0]["scores"], {"flip": "query"}]}
    table = supplementary.selection_table([more, *records[1:]])
    assert [name for name in table if "flip" in name] == ["mAP, flip none", "mAP, flip both"]
    pd.testing.assert_frame_equal(table, found.tables["cheaper"])


def test_what_reranking_gains_from_what_standard_drops(found):
    tested = read_tables(found.supplementary["final"], "per_query")
    own = tested[(tested["protocol"] == "standard") & (tested["flip"] == "query")
                 & (tested["preset"] == "all-ideas")].groupby(["reranked", "alone"])["AP"].mean()
    assert found.reranked["row"].tolist() == ["+ re-ranking, each query alone", "+ re-ranking"]
    assert found.reranked["difference"].tolist() == pytest.approx(
        [own[True, True] - own[False, False], own[True, False] - own[True, True]])


def test_arms_whose_best_rate_is_the_highest_that_was_drawn(found):
    records = found.supplementary["arms"]
    best = set(arms.selection(records)["the best"])
    chosen = next(r for r in records if r["preset"] in best)
    higher = [{**r, "config": {**r["config"], "backbone_lr": 1.0}} if r is chosen else r
              for r in records]
    assert arms.at_the_edge(arms.selection(higher), higher) == [
        chosen["preset"].rpartition("-")[0]]
    same = arms.at_the_edge(found.tables["arms_selection"], records)  # all have one rate
    assert same == ["softmax", "y-pooling"]


def test_claims_are_those_of_the_arms_where_there_are_any(found, monkeypatch):
    sample, = found.arms
    claims = statements.claims(found.folds, found.folds_alone, found.same_rate, found.arm_steps)
    assert claims["row"].tolist() == ["all-ideas", "y-pooling", "flipped query"]
    assert set(claims["sample"]) == {sample}
    front, contrasts = pages(found)["In two minutes"], found.arm_steps[sample].set_index("row")
    change = percent(contrasts.loc["y-pooling", "difference"], signed=True)
    assert f"| y-pooling | {change} [" in front and sample in front
    pd.testing.assert_frame_equal(found.folds_steps, tables.compared_steps(found.folds))
    step = found.folds_steps.set_index(["row", "above"]).loc[("improved", "baseline")]
    verdict = step["verdict"] + " than the baseline" * (step["verdict"] != "undecided")
    assert f"options the paper's model (`improved`) is {verdict} in [cross-val" in front
    home = sample.partition(",")[0]
    assert f"chosen on training people of {home}; they are among its people here." in front
    monkeypatch.setattr(StudyResults, "on_the_papers_data", True)  # then its gains stand beside
    assert f"| y-pooling | +3.9 | {change} [" in pages(found)["In two minutes"]


def test_without_arms_the_ideas_are_compared_with_the_baseline(ws, found, tmp_path, monkeypatch):
    shutil.copytree(ws.reports.parent, tmp_path / "reports")
    for name in ("smoke-arms", "smoke-arms-folds"):
        shutil.rmtree(tmp_path / "reports" / name)
    without = StudyResults(Workspace("smoke", tmp_path))
    assert not without.arms and "arms_selection" not in without.tables
    alone = without.folds_alone.set_index("row")
    change = percent(alone.loc["y-pooling alone", "difference"], signed=True)
    front = pages(without)["In two minutes"]
    assert f"| y-pooling | {change} [" in front and "on 10 people in cross-val" in front
    assert "These trainings stop before they have converged." in front
    monkeypatch.setattr(StudyResults, "on_the_papers_data", True)
    assert f"| y-pooling | +3.9 | {change} [" in pages(without)["In two minutes"]


def test_distractors_against_plain_rankings(ws, found):
    """Every image's AP among the distractors by the ranking of all of them."""
    record = next(r for r in found.distractors if r["preset"] == "improved")
    table = read_tables([record], "per_query")
    assert sorted(table["distractors"].unique()) == [0, 10, 48]
    alone = table[table["distractors"] == 0].set_index("path")["AP"]
    run = next(r for r in found.records if r["preset"] == "improved")
    queries = read_tables([run], "per_query")
    want = queries[(queries["protocol"] == "standard-all") & (queries["flip"] == "query")]
    pd.testing.assert_series_equal(alone.sort_index(), want.set_index("path")["AP"].sort_index())
    means = table.groupby("distractors")["AP"].mean()
    assert means.is_monotonic_decreasing and means[48] < means[0]
    scores = found.tables["distractors"].set_index(["row", "distractors"])["value"]
    assert scores["improved", 10] == pytest.approx(means[10])
    assert supplementary.distractor_table(found.tables["distractors"]).columns.tolist() == [
        "model", "0 distractors", "10 distractors", "48 distractors"]


def test_models_are_compared_with_every_number_of_distractors(found):
    table = supplementary.distractor_steps(found.distractors).set_index(["model", "distractors"])
    assert list(table.index) == [(m, s) for s in ("0", "10", "48") for m in ("improved", "best")]
    means = read_tables(found.distractors, "per_query").groupby(["preset", "distractors"])[
        "AP"].mean()
    for preset in ("improved", "best"):
        change = percent(means[preset, 48] - means["baseline", 48], signed=True)
        assert table.loc[(preset, "48"), "change of mAP"].startswith(f"{change} [")


def test_overview_has_every_protocol_and_cross_validation(found):
    table = found.tables["overview"]
    assert table["measure"].unique().tolist() == [
        "lat-top10", "standard", "standard-all", "cross-validation, 1 epoch"]
    assert set(table["row"]) == {"not fine-tuned", "baseline", "improved", "best"}


def test_pages_have_all_sections_and_figures_their_captions(ws, found):
    page.draw(found)
    text = page.write_report(found).read_text()
    for title in ("In two minutes", "Both schedules", "Cross-validation over all identities",
                  "Each idea with its own training options", "With distractors in the gallery",
                  "How candidates were chosen", "Limits"):
        assert f"\n## {title}\n" in text
    for name in ("overview", "schedules", "distractors", "arms"):
        assert f"](figures/{name}.png)" in text and (ws.figures / f"{name}.png").is_file()
    assert "synthetic, 10 people" in text and "make paper STUDY=smoke" in text
    assert "48 images of 6 people" in text


def test_a_training_that_stops_early_is_called_not_converged(found):
    history = read_tables(found.records, "history")
    last = history.groupby("run").tail(1).groupby("preset")["accuracy"].mean()
    assert tables.unconverged(found.records).to_dict() == pytest.approx(last[last < 0.9].to_dict())
    assert len(tables.unconverged(found.records, 0.0)) == 0 < (last < 0.9).sum()
    text = pages(found)["Results"]
    assert "**Not converged:**" in text
    for preset, accuracy in last[last < 0.9].items():
        assert f"{percent(accuracy)} % ({preset})" in text


def test_what_is_incomplete_is_left_out_and_the_page_says_so(ws, tmp_path):
    part = Workspace("smoke", tmp_path)
    shutil.copytree(ws.root / "reports", tmp_path / "reports")
    paths.write_csv(part.tables / "folds.csv", pd.DataFrame({"model": ["of before"]}))
    shutil.rmtree(tmp_path / "reports/smoke-folds/1/runs/best-s0")
    shutil.rmtree(part.reports / "distractors" / "best-s0")
    shutil.rmtree(tmp_path / "reports/smoke-blockwise")
    found = StudyResults(part)
    assert found.folds is None and found.distractors is None and list(found.supplementary) == [
        "selection", "finalists", "arms", "arms-folds", "cheaper", "final"]
    text = pages(found)
    assert "Both schedules" not in text and "blockwise" not in text["Limits"]
    assert ("Not shown: folds, because run best-s0 is needed and it is not there: run reidlib "
            "study --study smoke-folds first") in text["Limits"]
    assert "Not shown: distractors, because `reidlib distractors --study smoke`" in text["Limits"]
    assert any("tables/folds.csv: no run says so" in line for line in verify.differences(part))
    page.draw(found)
    page.write_report(found)
    assert not (part.tables / "folds.csv").exists()
    missing = verify.differences(part)  # what notebooks write, which did not run here
    assert [line for line in missing if "line 1 is '(nothing)'" not in line] == []


def test_a_fold_that_was_never_begun_is_named_with_its_command(ws, tmp_path):
    part = Workspace("smoke", tmp_path)
    shutil.copytree(ws.root / "reports", tmp_path / "reports")
    shutil.rmtree(tmp_path / "reports/smoke-folds/1")
    with pytest.raises(FileNotFoundError, match="^smoke-folds/1 has not been run: run reidlib "
                                                "study --study smoke-folds first$"):
        supplementary.records_of(part, "folds")


def test_folds_of_different_studies_are_not_pooled(ws, tmp_path):
    part = Workspace("smoke", tmp_path)
    shutil.copytree(ws.root / "reports", tmp_path / "reports")
    other = Workspace("smoke-folds/1", tmp_path)
    write_study(replace(read_study(other), train={"epochs": 9}), other)
    with pytest.raises(FileNotFoundError, match="the folds of smoke-folds are of different"):
        supplementary.records_of(part, "folds")


def test_distractor_runs_are_found_again_but_not_those_of_others(ws, study, monkeypatch, capsys):
    lab = Experiment(ws, "cpu")
    people = lab.dataset.manifest.query("split == 'train'").reset_index(drop=True)
    others = Dataset("others", elsewhere(lab), people.assign(id="others " + people["id"]))
    monkeypatch.setattr(distractors, "embed_distractors", None)
    monkeypatch.setattr(distractors, "SIZES", (0, 10))
    distractors.run(lab, others, COMPARED[0], 0)
    assert "scored with these distractors before" in capsys.readouterr().out
    changed = replace(lab.study, train={**study.train, "epochs": 2})
    with pytest.raises(FileNotFoundError, match="has not run for all compared models as they are"):
        supplementary.distractor_records(ws, changed)
    with pytest.raises(ValueError, match="distractors from smoke are the people that study"):
        distractors.run(lab, replace(others, name="smoke", root=lab.dataset.root), COMPARED[0], 0)
    lab.dataset = replace(lab.dataset, name="cuhk03-np")
    with pytest.raises(ValueError, match="cuhk03-np-detected are .* 'smoke' is about .cuhk03-np.;"):
        distractors.run(lab, replace(others, name="cuhk03-np-detected"), COMPARED[0], 0)


def test_records_of_before_the_new_names_are_read():
    """Tracked records say ``global_weight``."""
    folder = Workspace("pku-reid-finalists").reports / "2/runs/plain-s0"
    assert '"global_weight": 8.0' in (folder / "run.json").read_text()
    config = read_run(folder)["config"]
    assert config["local_weight"] == 8.0 and "global_weight" not in config


def test_a_report_on_own_data_is_about_them(ws, tmp_path):
    """No column of the paper, no history of `best`, no row that the study did not ask for."""
    own = Workspace("smoke", tmp_path)
    shutil.copytree(ws.reports, own.reports)
    study = read_study(own)
    write_study(replace(study, dataset="mine/images.csv", presets=()), own)
    text = page.write_report(StudyResults(own)).read_text()
    assert "Scores under `standard` or" in text
    assert "| baseline |" in text and "| + y-pooling |" in text
    shown = text.partition("## The same embeddings")[0]  # below it protocols name their sources
    assert "paper rank-1" not in text and "`best`" not in text and "| best" not in text
    assert "Do the paper's ideas help?" in shown and " chosen\n" not in text
    assert "paper's score" not in shown and "| paper |" not in shown
    write_study(replace(study, dataset="mine/images.csv"), own)  # its presets name `best`
    assert "best" in set(StudyResults(own).headline["model"])
    with pytest.raises(ValueError, match="a report also needs improved"):
        write_study(replace(study, presets=("untrained", "baseline")), own)
        StudyResults(own)
