"""Candidates of an ordinary study: its report trains them, and has a row for each."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest
import yaml

from reidlib.experiments import batch, own_loss
from reidlib.experiments.records import read_tables
from reidlib.experiments.study import load_study, read_study, write_study
from reidlib.report import notebooks, page, supplementary, verify
from reidlib.report.study_results import StudyResults, check_presets
from reidlib.utils.paths import Workspace, write_csv
from reidlib.utils.text import percent
from tests.test_faults import SMALL

CANDIDATES = {"averaged": {"ema_decay": 0.5},
              "spread": {"loss": {"function": "mine.spread", "weight": 0.5}}}
SPREAD = "def spread(logits, embedding, ids):\n    return -embedding.std(0).mean()\n"


@pytest.fixture(scope="module")
def ws(tmp_path_factory):
    """The workspace of a study with two candidates, finished."""
    root = tmp_path_factory.mktemp("candidates")
    study = {**SMALL, "seeds": [0, 1], "candidates": CANDIDATES}
    (root / "mine.yaml").write_text(yaml.safe_dump(study))
    (root / "mine.py").write_text(SPREAD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_loss, "PARAMS", root)
        batch.run_all(load_study("mine", params=root), root, "cpu")
    workspace = Workspace("mine", root)
    write_csv(workspace.tables / "audit.csv", pd.DataFrame(
        {"check": ["query copies in gallery"], "words": ["All is well."]}))
    return workspace


@pytest.fixture(scope="module")
def found(ws):
    return StudyResults(ws)


def test_each_candidate_is_compared_with_the_baseline(found):
    table = found.tables["candidates"].set_index(["row", "protocol"])
    assert set(table["above"]) == {"baseline"}
    assert table.index.get_level_values("row").unique().tolist() == ["averaged", "spread"]
    queries = read_tables([*found.records, *found.candidate_records], "per_query")
    plain = queries[(queries["flip"] == "none") & ~queries["reranked"]]
    means = plain.groupby(["preset", "protocol"])["AP"].mean()
    for (name, protocol), step in table.iterrows():
        assert step["difference"] == pytest.approx(
            means[name, protocol] - means["baseline", protocol])
        assert step["low"] <= step["difference"] <= step["high"] and step["seeds"] == 2
        assert step["verdict"] in ("better", "worse", "undecided")
    assert found.candidates["row"].unique().tolist() == ["baseline", "averaged", "spread"]


def test_they_are_a_table_of_their_own_too(found):
    """As candidates in folds are, the best first; other protocols do not count there."""
    table = supplementary.selection_table(found.candidate_records).set_index("candidate")
    means = found.candidates.query("protocol == 'standard-all'").groupby("row", observed=True)[
        "AP"].mean()
    assert table["mAP, flip none"].to_dict() == {
        name: percent(means[name]) for name in ("averaged", "spread")}
    change = percent(means["spread"] - means["averaged"], signed=True)
    assert table.loc["spread", "against averaged"].startswith(f"{change} [")


def test_the_report_says_what_they_change_and_what_they_reach(ws, found):
    text = page.write_report(found).read_text()
    section = text.partition("\n## Candidates\n")[2].partition("\n## ")[0]
    assert "- `averaged`: ema_decay 0.5\n- `spread`: loss + 0.5 x mine.spread\n" in section
    step = found.tables["candidates"].query("row == 'spread' and protocol == 'standard'").iloc[0]
    change = percent(step["difference"], signed=True)
    assert f"\n| spread | baseline | standard | {change} ± " in section
    means = found.candidates.query("protocol == 'standard'").groupby("row", observed=True)
    for name, value in means["AP"].mean().items():
        assert f"\n| {name} |" in section and f"| {percent(value)} ± " in section
    front = text.partition("## Results")[0]
    assert "\nCandidates of the study against the baseline (mAP, `standard-all`): averaged" in (
        front)
    costs = text.partition("## Cost")[2]
    assert "| spread | 1 |" in costs and "| baseline | 1 |" in costs
    assert "published" not in section and "paper" not in section


def test_a_study_without_candidates_has_no_such_part(ws, tmp_path):
    """And its table goes when they are gone."""
    own = Workspace("mine", tmp_path)
    shutil.copytree(ws.reports, own.reports)
    page.write_report(StudyResults(own))
    write_study(replace(read_study(own), candidates={}), own)
    assert any("tables/candidates.csv: no run says so" in line for line in verify.differences(own))
    text = page.write_report(StudyResults(own)).read_text()
    assert "andidate" not in text and "spread" not in text
    assert not (own.tables / "candidates.csv").exists()


def test_a_candidate_that_is_not_trained_is_named_with_its_command(ws, tmp_path):
    own = Workspace("mine", tmp_path)
    shutil.copytree(ws.reports, own.reports)
    shutil.rmtree(own.runs / "spread-s1")
    with pytest.raises(FileNotFoundError, match="run spread-s1 is needed and it is not there: run "
                       "reidlib run --study mine --preset spread --seed 1 first"):
        StudyResults(own)


def test_candidates_alone_have_no_report(ws):
    alone = replace(read_study(ws), presets=())
    with pytest.raises(ValueError, match="'mine' runs averaged, spread; a report also needs "
                       "untrained, baseline, improved: add to `presets`, or train without a"):
        check_presets(alone)
    with pytest.raises(ValueError, match="no notebook trains baseline-1e-4; train without"):
        check_presets(replace(alone, presets=("baseline-1e-4",)))
    with pytest.raises(ValueError, match="no notebooks of its own: reidlib study --study mine"):
        check_presets(replace(alone, folds=2))


def test_the_ablations_train_them_and_their_last_page_needs_them():
    source, = (path.read_text() for path in notebooks.NOTEBOOKS if path.stem == "04_ablations")
    trained = source.index("lab.train_all(lab.study.candidates, jobs)")
    assert trained < source.index("StudyResults(ws)")
