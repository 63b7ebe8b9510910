import itertools
import json
import shutil
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from reidlib import cli
from reidlib.evaluation.protocols import PROTOCOLS
from reidlib.experiments.presets import COMPARED, CUMULATIVE, RESULT_ROWS, SINGLE_IDEAS
from reidlib.experiments.records import by_row
from reidlib.report import page, tables, verify
from reidlib.report.page import README_STUDIES, replace_block
from reidlib.report.statements import conclusions, gist, sampling_note
from reidlib.report.statements import verdicts as all_verdicts
from reidlib.report.tables import paper_scores
from reidlib.utils.paths import ROOT, Workspace
from reidlib.utils.text import to_markdown

LEVELS = {"untrained": 0.5, "baseline": 0.92, "ypool": 0.90, "improved": 0.98, "best": 0.99}


def level(preset, protocol, flip, reranked, levels):
    value = levels[preset] + 0.01 * (flip == "query") + 0.005 * reranked
    return value / 2 if protocol == "standard" else value


def cells(levels):
    return [{"preset": preset, "seed": 0, "protocol": protocol, "flip": flip, "reranked": reranked,
             "value": level(preset, protocol, flip, reranked, levels)}
            for preset in levels for protocol in ("standard", "lat-top10")
            for flip in ("none", "query", "both") for reranked in (False, True)]


def records(levels, data="pku-reid"):
    """One seed of every preset: its level under lat-top10, and half of it under standard."""
    scores = pd.DataFrame(cells(levels)).assign(mINP=None, rank5=1.0, rank10=1.0, n_query=28,
                                                n_valid_query=28)
    scores = scores.assign(mAP=scores["value"], rank1=scores["value"])
    return [{"preset": preset, "seed": 0, "data": {"name": data},
             "scores": own.to_dict("records")} for preset, own in scores.groupby("preset")]


def queries(levels, variants=RESULT_ROWS):
    """28 queries of 14 people whose APs lie evenly around the level of their run."""
    spread = np.tile([-0.01, 0.01], 14)
    tables = [pd.DataFrame({"path": [f"{i}.png" for i in range(28)], "cam": "a",
                            "id": [str(i // 2) for i in range(28)], "AP": cell["value"] + spread,
                            "rank1": 1.0, **cell}) for cell in cells(levels)]
    return by_row(pd.concat(tables), variants)


def every_image(table):
    """The same scores where every test image is a query."""
    standard = table[table["protocol"] == "standard"]
    return pd.concat([table, standard.assign(protocol="standard-all")], ignore_index=True)


def verdicts(levels, data="pku-reid"):
    return all_verdicts(records(levels, data), tables.steps(queries(levels, CUMULATIVE)))


def test_verdicts_compare_within_one_query():
    baseline, ypool, ams, flip = verdicts(LEVELS)
    assert "it reproduces, to within one query (3.6 points)" in baseline
    assert "falls short of the paper by more than one query" in ypool    # mAP 0.90 against 0.947
    assert "it reproduces" in ams and "it reproduces" in flip
    assert "-1.0 [-1.0, -1.0] under `standard` (worse; up in 0 of 1 seeds)" in ypool
    assert "-2.0 [-2.0, -2.0] under `lat-top10`" in ypool and "in the paper by +3.9" in ypool
    assert "+1.0 [+1.0, +1.0] under `lat-top10` (better; up in 1 of 1 seeds)" in flip
    assert "in the paper by +0.4" in flip


def test_better_than_the_paper_is_no_reproduction():
    better = verdicts({**LEVELS, "baseline": 0.99})[0]
    assert "does not reproduce: it is better by more than one query" in better


def test_other_images_compare_steps_only():
    sentences = verdicts(LEVELS, "synthetic")
    assert "other images than the paper's" in sentences[0]
    assert not any("reproduce" in s for s in sentences) and len(sentences) == len(paper_scores())


def test_headline_shows_mean_and_interval_and_the_papers_numbers():
    table = tables.headline(queries(LEVELS)).set_index("model")
    assert table.index.tolist() == [v.label for v in RESULT_ROWS]
    assert table.loc["baseline", "standard mAP"] == "46.0 [46.0, 46.0]"
    assert table.loc["baseline", "paper mAP"] == "90.8"
    assert table.loc["+ re-ranking", "paper mAP"] == "–"


def test_every_score_has_its_interval():
    table = tables.every_interval(queries(LEVELS).assign(INP=np.nan, rank5=1.0, rank10=1.0))
    assert set(table["score"]) == {"mAP", "rank1", "rank5", "rank10"}
    assert len(table) == len(RESULT_ROWS) * 2 * 4
    assert (table["low"] <= table["value"] + 1e-9).all()
    assert (table["value"] <= table["high"] + 1e-9).all()


def test_every_protocol_is_a_column_with_intervals_and_dashes():
    table = queries(LEVELS)
    missing = (table["row"] == "best") & (table["protocol"] == "lat-top10")
    wide = tables.every_protocol(table[~missing]).set_index("model")
    assert wide.columns.tolist() == ["standard", "lat-top10"]
    assert wide.index.tolist() == [v.label for v in RESULT_ROWS]
    assert wide.loc["baseline", "standard"] == "46.0 [46.0, 46.0]"
    assert wide.loc["best", "lat-top10"] == "–"


def test_steps_are_between_neighbouring_rows():
    steps = tables.steps(queries(LEVELS, CUMULATIVE))
    assert list(zip(steps["above"], steps["row"], strict=True))[::2] == [
        (a.label, b.label) for a, b in itertools.pairwise(CUMULATIVE)]


def test_a_change_that_helps_some_and_hurts_others_is_undecided():
    table = queries(LEVELS)
    sign = table["id"].astype(int) % 2 * 2 - 1
    shaken = table.assign(AP=table["AP"] + 0.2 * sign * (table["row"] == "+ y-pooling"))
    changed = tables.steps(shaken).query("row == '+ y-pooling'")
    assert changed["verdict"].tolist() == ["undecided", "undecided"]
    assert tables.steps_table(changed)["seeds up"].tolist() == ["0 of 1", "0 of 1"]


def test_first_hits_are_counted_in_both_directions():
    table = queries(LEVELS)
    wrong = {"baseline": [0, 1, 2], "+ flipped query": [2, 3]}
    for row, paths in wrong.items():
        own = (table["row"] == row) & table["path"].isin([f"{i}.png" for i in paths])
        table.loc[own, "rank1"] = 0.0
    assert tables.first_hits(table, "baseline", "+ flipped query") == (2, 1, 28)
    assert ("of the 28 first hits under `standard` (queries x seeds) they mend 2 and spoil 1"
            in gist(every_image(table)))


def test_conclusions_answer_what_was_asked():
    asked = {"on the 14 test people": (every_image(queries(LEVELS, COMPARED)), tables.steps(
        every_image(queries(LEVELS, SINGLE_IDEAS)), against="baseline"))}
    numbers, protocol, ideas, *pairs = conclusions(queries(LEVELS), asked, published=True)
    assert "the baseline has rank-1 92.9 and mAP 90.8 in the paper, 100.0 and 92.0 here" in numbers
    assert "100.0 and mAP 97.5 in the paper, 100.0 and 99.0 here" in numbers
    assert "The gain of +6.7 points of mAP is +7.0 here." in numbers
    assert "the trained baseline has 92.0 and 46.0" in protocol
    assert "on the 14 test people, y-pooling -1.0 [-1.0, -1.0] (worse)" in ideas
    assert "flipped query +0.5 [+0.5, +0.5] (better)" in ideas
    assert [text.split(": ")[1].split(" [")[0] for text in pairs] == ["+3.5", "+0.0", "+3.5"]
    assert "(undecided) on the 14 test people" in pairs[1]
    assert conclusions(queries(LEVELS), asked, published=False) == [protocol, ideas, *pairs]


def test_few_people_are_said_to_be_few():
    assert "14 query identities. With so few" in sampling_note(queries(LEVELS))


def test_replace_block():
    text = "a\n<!-- results -->old<!-- /results -->\nb"
    assert replace_block(text, "results", r"new \1") == (
        "a\n<!-- results -->\n\nnew \\1\n\n<!-- /results -->\nb")
    with pytest.raises(ValueError, match="expected one <!-- x -->"):
        replace_block(text, "x", "")


def test_readme_results_are_current():
    assert not page.readme_differences(), "run `make report`"


@pytest.mark.parametrize("name", README_STUDIES)
def test_tracked_reports_are_those_of_their_runs(name):
    assert not page.differences(Workspace(name)), "run `make report`"
    folder = ROOT / "reports" / name
    for path in sorted((folder / "runs").glob("*/run.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        for scores in record["scores"]:
            assert 0 <= scores["mAP"] <= 1 and scores["n_valid_query"] <= scores["n_query"]
    table = pd.read_csv(folder / "tables" / "headline.csv", dtype=str)
    assert table["model"].tolist() == [v.label for v in RESULT_ROWS]


def test_verify_finds_a_typed_number(tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "reports" / "synthetic", tmp_path / "reports" / "synthetic")
    workspace = Workspace("synthetic", tmp_path)
    assert page.differences(workspace) == []
    page = workspace.reports / "report.md"
    page.write_text(page.read_text().replace("| baseline |", "| baseline! |", 1))
    (workspace.tables / "steps.csv").unlink()
    found = page.differences(workspace)
    assert len(found) == 2 and "report.md: line" in found[0] and "baseline!" in found[0]
    assert "steps.csv: line 1 is '(nothing)'" in found[1]
    monkeypatch.setattr(verify, "differences", lambda workspace: found)
    assert cli.main(["verify"]) == 1
    said = capsys.readouterr().err
    assert "changed by hand" in said and "steps.csv: line 1" in said


def test_readme_protocols_are_current():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rules = tables.protocol_rules([asdict(p) for p in PROTOCOLS.values()])
    assert to_markdown(rules) in readme, "the README's table of protocols is another"
