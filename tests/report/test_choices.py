"""What was chosen on training people is what the tracked records of PKU-Reid say did best."""

from dataclasses import replace

import pandas as pd
import pytest

from reidlib.experiments.presets import COMPARED, PRESETS, RESULT_ROWS
from reidlib.experiments.records import read_tables
from reidlib.experiments.study import load_study
from reidlib.report import arms, supplementary, table1
from reidlib.utils.paths import Workspace

PKU = Workspace("pku-reid")


def test_best_is_the_candidate_that_did_best_on_training_people():
    records = supplementary.records_of(PKU, "finalists")
    top = supplementary.selection_table(records).iloc[0]
    first, chosen = (next(r for r in records if r["preset"] == name)["config"]
                     for name in (records[0]["preset"], top["candidate"]))
    changed = {key for key in chosen if chosen[key] != first[key]} - {"preset", "seed"}
    assert {key: chosen[key] for key in changed} == PRESETS["best"]
    flips = {flip: float(top[f"mAP, flip {flip}"]) for flip in ("none", "query", "both")}
    used = {m.flip for m in (*COMPARED, *RESULT_ROWS) if m.preset == "best"}
    assert used == {max(flips, key=flips.get)}
    tested = read_tables(records, "per_query")
    manifest = pd.read_csv(PKU.reports / "manifest.csv", dtype=str)
    people = manifest.groupby("split")["id"].agg(set)
    assert set(tested["id"]) == people["train"] and not people["train"] & people["gallery"]


@pytest.mark.parametrize("name", arms.CONFIRMED)
def test_the_best_configuration_of_each_arm_is_trained_again(name):
    records = supplementary.records_of(PKU, "arms")
    best = arms.selection(records).set_index("arm")["the best"]
    searched, again = load_study("pku-reid-arms"), load_study(f"pku-reid-{name}")
    assert set(best.index) <= set(again.all_presets)
    for arm, chosen in best.items():
        assert replace(again.config(arm, 0), preset=chosen) == searched.config(chosen, 0)


@pytest.mark.parametrize("name", arms.CONFIRMED)
def test_ours_is_all_that_did_better_than_the_plain_arm(name):
    """As the difference without a flip says; and the plain one is the best of its arm."""
    records = supplementary.records_of(PKU, "ingredients")
    table = supplementary.selection_table(records).set_index("candidate")
    study, again = load_study("pku-reid-ingredients"), load_study(f"pku-reid-{name}")
    single = [name for name in study.candidates if name not in ("plain", "together")]
    better = [name for name in single if float(table.loc[name, "against plain"].split()[0]) > 0]
    changes = {key: value for name in better for key, value in study.candidates[name].items()}
    assert study.candidates["together"] == changes
    for ours, theirs in (("softmax", "plain"), (arms.OURS, "together")):
        assert replace(again.config(ours, 0), preset=theirs) == study.config(theirs, 0)
    mirrors = arms.flip_of_ours(supplementary.records_of(PKU, name))
    assert mirrors == ("both" if "both" in again.flips else "none")


@pytest.mark.parametrize("arm", ["softmax", "all-ideas", arms.OURS])
def test_the_last_comparison_has_the_same_options_and_larger_pictures(arm):
    final, folds = load_study("pku-reid-final"), load_study("pku-reid-arms-folds")
    assert replace(final.config(arm, 0), image_size=112) == folds.config(arm, 0)
    assert final.config(arm, 0).image_size == 224
    assert {*final.candidates} == {"softmax", "all-ideas", arms.OURS, arms.QUICK}


def test_quick_is_the_least_work_that_is_not_below_the_baseline():
    """Work: epochs times pixels; the score is that without a flip, on held-out training people."""
    records = supplementary.records_of(PKU, "cheaper")
    table = supplementary.selection_table(records).set_index("candidate")["mAP, flip none"]
    study, final = load_study("pku-reid-cheaper"), load_study("pku-reid-final")
    assert study.people == "train" and study.candidates["plain"] == {}
    work = {name: study.config(name, 0).epochs * study.config(name, 0).image_size ** 2
            for name in study.candidates if float(table[name]) >= float(table["plain"])}
    chosen = min(work, key=work.get)
    quick = final.config(arms.QUICK, 0)
    assert replace(quick, preset=chosen) == study.config(chosen, 0)
    short = {"members": 1, "epochs": quick.epochs, "image_size": quick.image_size}
    assert replace(final.config(arms.OURS, 0), preset=arms.QUICK, **short) == quick
    assert work[chosen] < work["plain"]


def test_our_row_of_table_1_has_the_options_of_ours():
    ours = load_study("pku-reid-final").config(arms.OURS, 0)
    study = load_study("table1-market1501")
    row, same = (study.config(name, 0) for name in (table1.OURS_PRESET, "la-transformer-short"))
    assert replace(ours, preset=table1.OURS_PRESET, members=1, epochs=same.epochs) == row
    assert (row.image_size, row.backbone) == (same.image_size, same.backbone)
