import json

import pandas as pd
import pytest

from reidlib import report
from reidlib.config import VARIANTS, load_study
from reidlib.paths import ROOT, Workspace
from reidlib.results import paper_scores


def fake_record(preset, seed, levels, data="pku-reid"):
    """A record whose scores are ``levels[protocol][flip]`` for rank-1 and mAP alike."""
    scores = [{"protocol": p, "flip": f, "mAP": v, "rank1": v, "rank5": 1.0, "rank10": 1.0,
               "mINP": None, "n_query": 28, "n_valid_query": 28}
              for p, flips in levels.items() for f, v in flips.items()]
    return {"preset": preset, "seed": seed, "scores": scores, "data": {"name": data}}


def records(levels, data="pku-reid"):
    """One seed of every preset: its level under lat-top10, and half of it under standard."""
    return [fake_record(p, 0, {"lat-top10": {"none": v, "query": v + 0.01},
                               "standard": {"none": v / 2, "query": v / 2}}, data)
            for p, v in levels.items()]


LEVELS = {"untrained": 0.5, "baseline": 0.92, "ypool": 0.90, "improved": 0.98}


def test_verdicts_compare_within_one_query():
    study = load_study("pku-reid", seeds=[0])
    baseline, ypool, ams, flip = report.verdicts(study, records(LEVELS))
    assert "it reproduces, to within one query (3.6 points)" in baseline
    assert "falls short of the paper by more than one query" in ypool    # mAP 0.90 against 0.947
    assert "it reproduces" in ams and "it reproduces" in flip
    assert "changes mAP by -2.0 under `standard`" not in ypool
    assert "-1.0 under `standard` (up in 0 of 1 seeds)" in ypool
    assert "-2.0 under `lat-top10`" in ypool and "in the paper +3.9" in ypool
    assert "+1.0 under `lat-top10` (up in 1 of 1 seeds)" in flip and "in the paper +0.4" in flip


def test_better_than_the_paper_is_no_reproduction():
    study = load_study("pku-reid", seeds=[0])
    better = report.verdicts(study, records({**LEVELS, "baseline": 0.99}))[0]
    assert "does not reproduce: it is better by more than one query" in better


def test_other_images_compare_steps_only():
    sentences = report.verdicts(load_study("synthetic"), records(LEVELS, "synthetic"))
    assert "other images than the paper's" in sentences[0]
    assert not any("reproduce" in s for s in sentences) and len(sentences) == len(paper_scores())


def test_replace_block():
    text = "a\n<!-- results -->old<!-- /results -->\nb"
    assert report.replace_block(text, "results", r"new \1") == (
        "a\n<!-- results -->\n\nnew \\1\n\n<!-- /results -->\nb")
    with pytest.raises(ValueError, match="expected one <!-- x -->"):
        report.replace_block(text, "x", "")


def test_readme_results_are_current():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    want = report.replace_block(readme, "results", report.readme_block(ROOT))
    assert want == readme, "run `make report`"


@pytest.mark.parametrize("name", report.README_STUDIES)
def test_tracked_reports_are_those_of_their_runs(name):
    folder = ROOT / "reports" / name
    if not (folder / "summary.md").is_file():
        pytest.skip(f"no report of {name}")
    study, records = report.load_records(Workspace(name))
    assert (folder / "summary.md").read_text(encoding="utf-8") == report.summary(study, records)
    page = (folder / "report.md").read_text(encoding="utf-8")
    for path in sorted((folder / "runs").glob("*/run.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        for scores in record["scores"]:
            assert 0 <= scores["mAP"] <= 1 and scores["n_valid_query"] <= scores["n_query"]
    table = pd.read_csv(folder / "tables" / "headline.csv", dtype=str)
    assert table["model"].tolist() == [v.label for v in VARIANTS]
    assert all(cell in page for cell in table["standard mAP"])
