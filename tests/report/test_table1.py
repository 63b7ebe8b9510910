"""The page of Table 1 from made-up runs: cells computed again, what is missing, what changed."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from reidlib import cli
from reidlib.experiments.config import TrainConfig
from reidlib.experiments.presets import make_config
from reidlib.experiments.study import load_study
from reidlib.report import table1, table1_page, verify
from reidlib.utils.paths import ROOT, Workspace
from tests.report.made_up_runs import finish

MARKET, CUHK = "table1-market1501", "table1-cuhk03"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three systems on Market-1501, whose first two change places, and one on CUHK03."""
    root = tmp_path_factory.mktemp("results")
    finish(root, MARKET, "not-fine-tuned", (0.1, 0.5), parameters=None)
    finish(root, MARKET, "la-transformer-short", (0.6, 0.9))
    finish(root, MARKET, "transreid-short", (0.7, 0.8))
    finish(root, CUHK, "deep-cosine-short", (0.3, 0.6))
    table1_page.write_page(root)
    return root


@pytest.fixture(scope="module")
def page(root):
    return (root / "reports" / "table1" / "report.md").read_text()


def cells(page, system, data="Market-1501"):
    """Column -> cell of a row of the two tables of the runs: scores, and what a training was."""
    found = {}
    for part in page.partition("## The runs")[2].split("\n| system | ")[1:3]:
        names = ["system", *part.partition(" |\n")[0].split(" | ")]
        rows = part.partition(f"| **{data}** |")[2]
        line = re.search(rf"^\| ({re.escape(system)} \| .*) \|$", rows, re.M)[1]
        found |= dict(zip(names, line.split(" | "), strict=True))
    return found


def queries_of(root, study, run):
    table = pd.read_csv(root / "reports" / study / "runs" / run / "per_query.csv")
    return table.dropna(subset="AP")


def test_a_cell_is_the_mean_of_the_runs_queries_with_an_interval_over_people(root, page):
    """Three queries a person: the t interval of the people's means, on the scale of the logit."""
    own = queries_of(root, MARKET, "transreid-short-s0").query("protocol == 'standard'")
    row = cells(page, "TransReID")
    for cell, column in (("standard mAP", "AP"), ("standard rank-1", "rank1")):
        means = own.groupby("id")[column].mean()
        error = stats.sem(means) / (means.mean() * (1 - means.mean()))
        ends = special.expit(special.logit(means.mean())
                             + np.array(stats.t.interval(0.95, len(means) - 1, scale=error)))
        value, low, high = map(float, re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", row[cell]).groups())
        assert value == round(100 * own[column].mean(), 1)
        assert [low, high] == np.round(100 * ends, 1).tolist()
    other = queries_of(root, MARKET, "transreid-short-s0").query("protocol == 'lat-top10'")
    assert row["lat-top10 mAP"].startswith(f"{100 * other['AP'].mean():.1f} [")
    rank1, _ = row["standard rank-1"].split(maxsplit=1)
    assert row["standard rank-5"] == f"{100 * own['rank5'].mean():.1f}" != rank1
    assert row["lat-top10 rank-5"] == f"{100 * other['rank5'].mean():.1f}"


def test_a_row_says_what_was_trained_for_how_long(page):
    row = cells(page, "TransReID")
    assert row["million parameters"] == "5.5" and row["pre-training"] == "vit_tiny, ImageNet-21k"
    assert row["input"] == "256 × 128, stride 16, cameras"
    assert row["epochs"] == "10 of 120"
    assert row["images seen"] == f"{10 * 1000 + 45:,} of {120 * 4145:,}"
    assert row["minutes, device"] == "15.0, AMD EPYC, 2 CPU threads"
    assert row["right in the last epoch"] == "90.0"
    row = cells(page, "not fine-tuned")
    assert row["right in the last epoch"] == "–"
    assert [row[name] for name in ("million parameters", "input", "epochs", "images seen")] == [
        "–", "224 × 224", "0", "0"]
    row = cells(page, "Deep Cosine", "CUHK03-NP, camera pair 1")
    assert [row[name] for name in ("input", "pre-training", "epochs")] == ["128 × 64", "none", "25"]
    # the published length of Deep Cosine is not known
    assert "All 2 trained rows whose published length is known to us saw fewer images" in page


def test_rows_are_in_the_order_of_mAP_under_the_standard_rules(page):
    rows = re.findall(r"^\| (\*\*.*?|[A-Zn].*?) \|", page.partition("## The runs")[2], re.M)
    assert rows[:6] == ["**Market-1501**", "TransReID", "LA-Transformer", "not fine-tuned",
                        "**CUHK03-NP, camera pair 1**", "Deep Cosine"]


def test_the_verdict_says_who_is_first_and_what_changes_places(root, page):
    means = {(run, protocol): own["AP"].mean() for run in ("transreid", "la-transformer")
             for protocol, own in queries_of(root, MARKET, f"{run}-short-s0").groupby("protocol")}
    ahead = 100 * (means["transreid", "standard"] - means["la-transformer", "standard"])
    said = re.search(r"^- \*\*Market-1501\.\*\* (.*)$", page, re.M)[1]
    assert said.startswith(f"Under `standard` **TransReID** has the highest mAP, "
                           f"{100 * means['transreid', 'standard']:.1f}: {ahead:+.1f} [")
    assert said.count("points (better) against **LA-Transformer**. Under `lat-top10` "
                      "**LA-Transformer** has the highest") == 1 and said.count("(better)") == 2
    assert ("1 of 3 pairs of rows changes places between the rules. The paired test confirms 1 of "
            "them under both: **TransReID** is better than **LA-Transformer** under `standard` and "
            "worse under `lat-top10`.") in said
    alone = re.search(r"^- \*\*CUHK03-NP, camera pair 1\.\*\* (.*)$", page, re.M)[1]
    assert "against" not in alone and "pairs" not in alone


@pytest.mark.parametrize("levels", [(0.61, 0.80), (0.80, 0.77), (0.64, 0.60)])
def test_a_change_of_places_that_a_test_leaves_open_is_not_called_proven(tmp_path, levels):
    """On both sides or on one of them the two differ by less than the people do."""
    finish(tmp_path, MARKET, "la-transformer-short", (0.60, 0.805), seed=0)
    finish(tmp_path, MARKET, "transreid-short", levels, seed=5)
    group = table1.read_group(MARKET, tmp_path)
    found = table1.scores([group])
    values = found.set_index(["row", "protocol"])["value"]
    order = table1.order(group, found)
    gains = [values["TransReID", rule] - values["LA-Transformer", rule]
             for rule in ("standard", "lat-top10")]
    assert np.prod(np.sign(gains)) == -1 and len(order.changed) == order.pairs == 1
    assert order.proven == []
    text = table1_page.render_all([group], found, pd.DataFrame())["report.md"]
    assert "confirms none of them under both." in text


def test_nothing_trained_is_no_order(tmp_path):
    finish(tmp_path, CUHK, "not-fine-tuned", (0.1, 0.5))
    text = table1_page.write_page(tmp_path).read_text()
    assert ("No trained system has been run. `lat-top10` changes the mAP of the same embeddings by "
            "+") in text
    assert "has the highest" not in text and "trained rows" not in text


def test_an_untrained_network_ahead_of_a_trained_one_is_named(tmp_path):
    finish(tmp_path, MARKET, "not-fine-tuned", (0.05, 0.85))
    finish(tmp_path, MARKET, "deep-cosine-short", (0.30, 0.70))
    text = table1_page.write_page(tmp_path).read_text()
    assert "Only Deep Cosine has been trained so far" in text
    assert "**Deep Cosine** is better than **not fine-tuned** under `standard` and worse" in text


def test_one_system_is_not_called_first(tmp_path):
    finish(tmp_path, MARKET, "la-transformer-short", (0.5, 0.8))
    page = table1_page.write_page(tmp_path).read_text()
    means = [queries_of(tmp_path, MARKET, "la-transformer-short-s0").query(
        f"protocol == '{name}'")["AP"].mean() for name in ("standard", "lat-top10")]
    assert (f"Only LA-Transformer has been trained so far: mAP {100 * means[0]:.1f} under "
            f"`standard`, {100 * means[1]:.1f} under `lat-top10`. ") in page
    assert "has the highest" not in page


def test_global_and_local_distance_is_a_row_of_its_own(tmp_path):
    finish(tmp_path, MARKET, "aligned-reid-short", (0.5, 0.8), local=(0.6, 0.85))
    page = table1_page.write_page(tmp_path).read_text()
    table = queries_of(tmp_path, MARKET, "aligned-reid-short-s0").query("protocol == 'standard'")
    for row, local in (("AlignedReID", False), ("AlignedReID, global + local distance", True)):
        mean = table.loc[table["local"] == local, "AP"].mean()
        assert cells(page, row)["standard mAP"].startswith(f"{100 * mean:.1f} [")
        # 4 images of each person an epoch
        assert cells(page, row)["images seen"] == f"10,045 of {300 * 4 * 427:,}"


def test_rates_are_compared_by_the_embedding_alone_and_the_best_is_marked(tmp_path):
    study, levels = load_study(table1.SELECTION), np.random.default_rng(2)
    for preset in study.all_presets:
        local = (0.99,) if preset.startswith("aligned") else None
        finish(tmp_path, table1.SELECTION, preset, (levels.uniform(0.2, 0.6),), local=local)
    found = table1.rates(tmp_path)
    assert found.groupby("system").size().to_dict() == {
        "LA-Transformer": 4, "TransReID": 5, "AlignedReID": 4, "Deep Cosine": 4}
    for preset, row in zip(study.all_presets, found.itertuples(), strict=True):
        own = queries_of(tmp_path, table1.SELECTION, f"{preset}-s0")
        own = own[~own["local"]] if "local" in own else own
        config = study.config(preset, 0)
        assert row.value == pytest.approx(own["AP"].mean())
        assert (row.lr, row.epochs) == (config.lr, config.epochs)
        assert row.accuracy == pytest.approx((config.epochs - 1) / 10)  # as made up
    for _, own in found.groupby("system"):
        assert own.loc[own["best"], "value"].tolist() == [own["value"].max()]
    finish(tmp_path, MARKET, "transreid-short", (0.7, 0.8))
    page = table1_page.write_page(tmp_path).read_text()
    lines = re.findall(r"^\| Deep Cosine \| (.*) \|$", page.partition("were chosen")[2], re.M)
    assert [line.split(" | ")[:5] for line in lines[:3]] == [
        ["0.001", "–", "–", "constant", "12"], ["0.001", "–", "0.02", "warm-up 1, cosine", "12"],
        ["0.003", "–", "0.02", "warm-up 1, cosine", "12"]]


@pytest.mark.parametrize("name", [MARKET, CUHK])
def test_the_short_schedules_take_the_best_rates_of_the_selection(name):
    rates, study = table1.rates(ROOT), load_study(name)
    best = rates[rates["best"]].set_index("system")
    for preset in {*study.all_presets} - {table1.OURS_PRESET}:
        config = study.config(preset, 0)
        if config.epochs:
            own = best.loc[table1.row_name(config).removesuffix(", without cameras")]
            scale = None if np.isnan(own["scale_lr"]) else own["scale_lr"]
            assert (config.lr, config.scale_lr) == (own["lr"], scale)
            assert config.backbone_lr == own["backbone_lr"] or not config.pretrained
            warmup = np.nan if config.warmup_epochs is None else config.warmup_epochs
            assert np.array_equal(warmup, own["warmup"], equal_nan=True)


def test_what_is_missing_is_named_with_its_command(page):
    assert ("- Market-1501: Deep Cosine; AlignedReID; TransReID, without cameras; ours, one "
            "training (`reidlib study --study table1-market1501`)") in page
    assert ("- Market-1501, published schedules: LA-Transformer; TransReID; TransReID, without "
            "cameras; AlignedReID; Deep Cosine (`reidlib study --study table1-published`)"
            ) in page.replace("market1501, published", "Market-1501, published")


def test_a_run_of_another_configuration_counts_as_missing(root, tmp_path):
    finish(tmp_path, MARKET, "transreid-short", (0.6, 0.9))
    path = tmp_path / "reports" / MARKET / "study.json"
    study = json.loads(path.read_text())
    study["candidates"]["transreid-short"]["stride"] = 12
    path.write_text(json.dumps(study))
    group = table1.read_group(MARKET, tmp_path)
    assert not group.records and "TransReID" in group.missing


def test_scores_are_said_to_be_comparable_where_they_are(page):
    notes = dict(re.findall(r"^- \*\*(.*?)\*\*: \d.* gallery images\. (.*)$", page, re.M))
    assert "can be compared with published ones" in notes["Market-1501"]
    assert "cannot be compared with published ones" in notes["CUHK03-NP, camera pair 1"]


def test_other_data_than_the_official_are_not_called_so(tmp_path):
    finish(tmp_path, MARKET, "transreid-short", (0.6, 0.9), data="market1501-dev")
    text = table1_page.write_page(tmp_path).read_text()
    assert "- **market1501-dev**: " in text and "Scores on it can be compared with each" in text
    assert "official" not in text


def test_without_any_run_there_is_no_page(tmp_path, capsys):
    assert cli.main(["table1", "--workspace", str(tmp_path)]) == 1
    assert re.fullmatch("error: no run of Table 1 is finished in .*reports: run reidlib study "
                        "--study table1-market1501 or reidlib study --study .* first\n",
                        capsys.readouterr().err)
    assert not (tmp_path / "reports").exists()
    assert verify.table1_differences(tmp_path) == []


def test_a_run_that_lacks_one_of_the_rules_is_refused(tmp_path):
    finish(tmp_path, MARKET, "transreid-short", (0.6,))
    with pytest.raises(ValueError, match="transreid-short-s0 has no scores under lat-top10, which"
                       ".* set protocols: .standard, lat-top10."):
        table1_page.write_page(tmp_path)


def test_a_system_of_unknown_length_alone(tmp_path):
    finish(tmp_path, CUHK, "deep-cosine-short", (0.3, 0.6))
    text = table1_page.write_page(tmp_path).read_text()
    assert "saw fewer images" not in text and "length of Deep Cosine is not known" in text


def test_ours_has_a_row_but_no_place_among_the_systems(root, page, tmp_path):
    shutil.copytree(root / "reports", tmp_path / "reports")
    finish(tmp_path, MARKET, table1.OURS_PRESET, (0.9, 0.95), seed=7)
    text = table1_page.write_page(tmp_path).read_text()
    verdict = re.compile(r"^- \*\*Market-1501\.\*\* .*$", re.M)
    alone = ".** `ours, one training` is left out here. "
    assert verdict.search(text)[0] == verdict.search(page)[0].replace(".** ", alone, 1)
    row = cells(text, table1.OURS)
    assert (row["epochs"], row["images seen"]) == ("8", f"{8 * 1000 + 28:,}")
    both = [queries_of(tmp_path, MARKET, f"{name}-s0").query("protocol == 'standard'")["AP"].mean()
            for name in (table1.OURS_PRESET, "transreid-short")]
    assert f"under `standard` {100 * (both[0] - both[1]):+.1f} [" in text
    assert "points (better) against TransReID" in text
    said = "is no system of the paper's table"
    assert said in text and said not in page


def test_two_candidates_of_one_system_are_told_apart(tmp_path):
    finish(tmp_path, MARKET, "transreid-short", (0.6, 0.9))
    path = tmp_path / "reports" / MARKET / "study.json"
    study = json.loads(path.read_text())
    study["candidates"]["longer"] = {**study["candidates"]["transreid-short"], "epochs": 20}
    path.write_text(json.dumps(study))
    group = table1.read_group(MARKET, tmp_path)
    assert list(group.records) == ["TransReID (transreid-short)"]
    assert "TransReID (longer)" in group.missing


@pytest.mark.parametrize("config, words", [
    ({}, "vit_tiny, ImageNet-21k"), ({"backbone": "resnet50.tv_in1k"}, "resnet50, ImageNet-1k"),
    ({"backbone": "vit_small_patch14_dinov2.lvd142m"}, "vit_small, lvd142m"),
    ({"backbone": "resnet50"}, "resnet50, timm's own"), ({"pretrained": False}, "none")])
def test_pretraining_in_words(config, words):
    assert table1.pretraining(TrainConfig(**config)) == words


def test_the_published_numbers_of_the_papers_table():
    """As the paper prints them."""
    quoted = table1.published().query("quoted")
    rows = [(r.dataset, r.system, r.rank1, r.mAP) for r in quoted.fillna(0).itertuples()]
    assert rows == [
        ("Market-1501", "LA-Transformer", 0.9827, 0.9446),
        ("Market-1501", "TransReID", 0.952, 0.895), ("Market-1501", "AlignedReID", 0.918, 0.793),
        ("Market-1501", "Deep Cosine", 0.791, 0.5668),
        ("CUHK03", "LA-Transformer", 0.987, 0.964), ("CUHK03", "AlignedReID", 0.924, 0)]
    assert table1.published()[["measures", "source"]].notna().all(axis=None)
    shown = table1_page.published_table().set_index(["data set", "system"])
    assert shown.loc[("Market-1501", "Deep Cosine"), "rank-1"] == "79.1"
    assert shown.loc[("Market-1501", "Deep Cosine"), "mAP"] == "56.68"
    assert shown.loc[("CUHK03", "AlignedReID"), "mAP"] == "–"


def test_the_systems_are_the_models_that_can_be_trained():
    models = {make_config(preset).model for preset in ("baseline", "transreid", "aligned-reid",
                                                       "deep-cosine")}
    assert set(table1.systems().index) == models


def test_the_published_study_trains_as_long_as_published():
    """In images seen: an epoch of AlignedReID's code has 4 of each of Market-1501's 751 people."""
    study, market = load_study(table1.PUBLISHED_STUDY), {"identities": 751, "images": 12936}
    for preset in study.all_presets:
        config = study.config(preset, 0)
        published = table1.published_length(config, market)["published_images"]
        if config.model != "deep-cosine":
            assert config.epochs == round(published / 12936)


def test_verify_finds_a_typed_number_and_a_run_that_is_gone(root, tmp_path):
    shutil.copytree(root / "reports", tmp_path / "reports")
    assert verify.table1_differences(tmp_path) == []
    folder = tmp_path / "reports" / "table1"
    text = (folder / "report.md").read_text()
    (folder / "report.md").write_text(text.replace("| TransReID |", "| TransReID! |", 1))
    (folder / "figures" / "order.csv").unlink()
    found = verify.table1_differences(tmp_path)
    assert len(found) == 2 and "table1/report.md: line" in found[0] and "TransReID!" in found[0]
    assert "figures/order.csv: line 1 is '(nothing)'" in found[1]
    for name in (MARKET, CUHK):
        shutil.rmtree(tmp_path / "reports" / name)
    found, = verify.table1_differences(tmp_path)
    assert found.startswith("reports/table1/report.md: no run of Table 1 is finished")


def test_the_tracked_page_is_that_of_the_tracked_runs():
    assert verify.table1_differences() == [], "run `reidlib table1`"


def test_the_tracked_page_is_of_this_projects_runs_alone():
    """Each row's mAP is the mean of a tracked table, without the code of the page."""
    path = Workspace(table1_page.NAME).reports / "tables" / "scores.csv"
    tables = [pd.read_csv(p) for name in table1.STUDIES
              for p in sorted((ROOT / "reports" / name / "runs").glob("*/per_query.csv"))]
    means = [own["AP"].mean() for table in tables for _, own in table.groupby(
        ["protocol", *({"local"} & set(table))])]
    shown = pd.read_csv(path)["value"].tolist() if path.is_file() else []
    assert sorted(shown) == pytest.approx(sorted(means))
