"""Tables from made-up records whose scores are known."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from reidlib.experiments.presets import COMPARED, CUMULATIVE, RESULT_ROWS
from reidlib.report import tables
from reidlib.utils.text import percent
from tests.report.made_up import LEVELS, every_image, queries


def all_alike(value):
    """The cell of a score that all of the 14 people have: exact for a share of them."""
    alike = 0.025 ** (1 / 14)
    return percent(value, ends=(value * alike, 1 - (1 - value) * alike))


def test_headline_shows_mean_and_interval_and_the_papers_numbers():
    table = tables.headline(queries(LEVELS)).set_index("model")
    assert table.index.tolist() == [v.label for v in RESULT_ROWS]
    assert table.loc["baseline", "standard mAP"] == all_alike(0.46)
    assert table.loc["baseline", "paper mAP"] == "90.8"
    assert table.loc["+ re-ranking", "paper mAP"] == "–"
    table = tables.ranks(queries(LEVELS)).set_index("model")
    assert table.loc["baseline", ["paper rank-1", "paper rank-5"]].tolist() == ["92.9", "100.0"]
    assert table.loc["baseline", "standard rank-1"] == all_alike(1.0) == "100.0 [76.8, 100.0]"
    assert table.loc["baseline", "lat-top10 rank-5"] == "100.0"


def test_every_score_has_its_interval():
    table = tables.every_interval(queries(LEVELS).assign(INP=np.nan, rank5=1.0, rank10=1.0))
    assert set(table["score"]) == {"mAP", "rank1", "rank5", "rank10"}
    n_reranked = sum(row.reranked for row in RESULT_ROWS)  # not under lat-top10
    assert len(table) == (len(RESULT_ROWS) * 2 - n_reranked) * 4
    assert (table["low"] <= table["value"] + 1e-9).all()
    assert (table["value"] <= table["high"] + 1e-9).all()


def test_every_protocol_is_a_column_with_intervals_and_dashes():
    table = queries(LEVELS)
    missing = (table["row"] == "best") & (table["protocol"] == "lat-top10")
    wide = tables.every_protocol(table[~missing]).set_index("model")
    assert wide.columns.tolist() == ["standard", "lat-top10"]
    assert wide.index.tolist() == [v.label for v in RESULT_ROWS]
    assert wide.loc["baseline", "standard"] == all_alike(0.46)
    assert wide.loc["best", "lat-top10"] == "–"


def test_steps_are_between_neighbouring_rows():
    steps = tables.steps(queries(LEVELS, CUMULATIVE))
    steps = steps[steps["protocol"] == "standard"]
    assert list(zip(steps["above"], steps["row"], strict=True)) == [
        (a.label, b.label) for a, b in itertools.pairwise(CUMULATIVE)]


def test_a_change_that_helps_some_and_hurts_others_is_undecided():
    table = queries(LEVELS)
    sign = table["id"].astype(int) % 2 * 2 - 1
    shaken = table.assign(AP=table["AP"] + 0.2 * sign * (table["row"] == "+ y-pooling"))
    changed = tables.steps(shaken).query("row == '+ y-pooling'")
    assert changed["verdict"].tolist() == ["undecided", "undecided"]
    assert tables.steps_table(changed)["p"].tolist() == ["1.000", "1.000"]


def test_the_steps_of_a_table_are_one_family():
    """Seven steps under two protocols; everybody has moved as far, so all p are the smallest."""
    *rows, last = [row for row in RESULT_ROWS if not row.reranked]
    others = [replace(rows[0], label=flip, flip=flip) for flip in ("query", "both")]
    steps = tables.steps(queries(LEVELS, [*rows, others[0], last, others[1]]))
    assert len(steps) == 14 and steps["p"].nunique() == 1 and steps["p"].iloc[0] < 0.001
    assert steps["p_holm"].tolist() == pytest.approx([14 * steps["p"].iloc[0]] * 14)
    assert set(steps["verdict"]) == {"better", "worse"}
    assert tables.steps_table(steps)["p"].tolist() == [tables.p_value(p) for p in steps["p_holm"]]
    assert [tables.p_value(p) for p in (0.0009, 0.0123, 1.0)] == ["< 0.001", "0.012", "1.000"]


def test_a_report_on_own_data_has_no_columns_of_the_paper():
    for table in (tables.headline(queries(LEVELS), with_paper=False),
                  tables.ranks(queries(LEVELS), with_paper=False)):
        assert not [name for name in table if "paper" in name] and len(table) == len(RESULT_ROWS)


def test_compared_models_against_the_baseline_and_best_against_the_papers():
    found = tables.compared_steps(queries(LEVELS, COMPARED))
    pairs = list(dict.fromkeys(zip(found["row"], found["above"], strict=True)))
    assert pairs == [("improved", "baseline"), ("best", "baseline"), ("best", "improved")]
    without = {name: value for name, value in LEVELS.items() if name != "best"}
    found = tables.compared_steps(queries(without, COMPARED))
    assert set(zip(found["row"], found["above"], strict=True)) == {("improved", "baseline")}


def test_first_hits_are_counted_in_both_directions():
    table = queries(LEVELS)
    wrong = {"baseline": [0, 1, 2], "+ flipped query": [2, 3]}
    for row, paths in wrong.items():
        own = (table["row"] == row) & table["path"].isin([f"{i}.png" for i in paths])
        table.loc[own, "rank1"] = 0.0
    assert tables.first_hits(table, "baseline", "+ flipped query") == (2, 1, 28)
    assert len(every_image(table)) > len(table)


def per_query(**columns):
    names = [f"{i}.png" for i in range(len(next(iter(columns.values()))))]
    return pd.DataFrame({"path": names, "id": names, "cam": "a", **columns})


def test_largest_gains_follow_the_rule():
    before = per_query(AP=[0.1, 0.9, 0.2, 0.3], first_hit=[2, 1, 5, 3])
    after = per_query(AP=[0.3, 1.0, 0.9, 0.9], first_hit=[1, 1, 1, 2])
    gains = tables.largest_gains(before, after, 5)
    assert gains["path"].tolist() == ["2.png", "0.png"]     # 1 was right before, 3 is wrong after
    assert gains["gain"].tolist() == pytest.approx([0.7, 0.2])
    assert len(tables.largest_gains(before, after, 1)) == 1


def test_worst_queries_skip_what_was_not_scored():
    table = per_query(AP=[0.9, np.nan, 0.1, 0.5])
    assert tables.worst_queries(table, 2)["path"].tolist() == ["2.png", "3.png"]


def test_the_papers_numbers_are_those_of_the_paper():
    paper = tables.paper_scores().set_index("row")
    assert paper["mAP"].tolist() == [0.908, 0.947, 0.971, 0.975]
    assert paper["rank1"].tolist() == [0.929, 0.964, 1.0, 1.0]
