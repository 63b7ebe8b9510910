"""The tracked pages are those of the tracked runs; a typed number is found."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from reidlib import cli
from reidlib.experiments.presets import RESULT_ROWS
from reidlib.report import notebooks, page, verify
from reidlib.report.page import README_STUDIES, replace_block
from reidlib.report.study_results import StudyResults
from reidlib.utils.paths import ROOT, Workspace
from reidlib.utils.text import percent


def test_replace_block():
    text = "a\n<!-- results -->old<!-- /results -->\nb"
    assert replace_block(text, "results", r"new \1") == (
        "a\n<!-- results -->\n\nnew \\1\n\n<!-- /results -->\nb")
    with pytest.raises(ValueError, match="expected one <!-- x -->"):
        replace_block(text, "x", "")


def test_generated_parts_of_the_readmes_are_current():
    assert not verify.readme_differences(), "run `make report`"


@pytest.mark.parametrize("name", README_STUDIES)
def test_tracked_reports_are_those_of_their_runs(name):
    assert not verify.differences(Workspace(name)), "run `make report`"


@pytest.mark.parametrize("name", README_STUDIES)
def test_tracked_headline_is_the_mean_of_the_tracked_queries(name):
    """Recomputed with pandas alone from per_query.csv, without the code of the report."""
    folder = ROOT / "reports" / name
    table, ranks = (pd.read_csv(folder / "tables" / f"{part}.csv", dtype=str).set_index("model")
                    for part in ("headline", "ranks"))
    shown = [row for row in RESULT_ROWS if row.label in table.index]
    assert table.index.tolist() == [row.label for row in shown]
    assert all(row.alone for row in RESULT_ROWS if row not in shown)  # older records lack these
    for row in shown:
        paths = sorted((folder / "runs").glob(f"{row.preset}-s*/per_query.csv"))
        tables = pd.concat([pd.read_csv(path) for path in paths])
        own = tables[(tables["flip"] == row.flip) & (tables["reranked"] == row.reranked)]
        if "alone" in own:
            own = own[own["alone"] == row.alone]
        means = own.groupby("protocol")[["AP", "rank1", "rank5"]].mean()
        protocols = {"standard", "lat-top10", "standard-all"} & set(means.index)
        if row.reranked:
            protocols -= {"lat-top10", "standard-all"}
        for protocol in protocols:
            cell = table.loc[row.label, f"{protocol} mAP"]
            assert cell.split(" ")[0] == percent(means.loc[protocol, "AP"])
        for protocol in protocols - {"standard-all"}:
            for name in ("rank-1", "rank-5"):
                cell = ranks.loc[row.label, f"{protocol} {name}"]
                assert cell.split(" ")[0] == percent(means.loc[protocol, name.replace("-", "")])


@pytest.fixture
def workspace(tmp_path):
    """Another workspace with the drawn people's results."""
    for name in ("synthetic", "synthetic-margins"):
        shutil.copytree(ROOT / "reports" / name, tmp_path / "reports" / name,
                        ignore=shutil.ignore_patterns("executed"))
    return Workspace("synthetic", tmp_path)


def test_report_is_made_of_the_records(workspace):
    (workspace.reports / "report.md").unlink()
    text = page.write_report(StudyResults(workspace)).read_text()
    assert "make paper STUDY=synthetic EPOCHS=40 SEEDS=0,1,2 AGAIN=1" in text
    assert "| + y-pooling |" in text and str(workspace.root) not in text
    assert text == (ROOT / "reports" / "synthetic" / "report.md").read_text()


def test_a_readme_without_marks_stays_as_it_is(workspace, capsys):
    readme = workspace.root / "README.md"
    readme.write_text("# Another project\n")
    page.update_readmes(workspace)
    assert readme.read_text() == "# Another project\n"
    assert "stay as they are: expected one <!-- results -->" in capsys.readouterr().out


def test_verify_finds_figures_that_are_not_of_the_runs(workspace):
    """Its picture may be of an older run where the data next to it are."""
    for path in sorted(workspace.figures.glob("*.csv")):
        path.write_text(path.read_text() + "one line more\n")
    (workspace.figures / "schedules.csv").write_text("row\nof before\n")
    changed = {path.stem for path in workspace.figures.glob("*.csv")} - verify.UNCHECKED
    found = verify.differences(workspace)
    assert {Path(line.partition(":")[0]).stem for line in found} == changed
    assert "reports/synthetic/figures/schedules.csv: no run says so any more" in found


def test_verify_compares_records_with_their_tables(workspace):
    path = workspace.runs / "best-s1" / "per_query.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:1] + lines[2:]) + "\n")
    with pytest.raises(ValueError, match="best-s1: run.json says"):
        verify.differences(workspace)


def test_verify_finds_a_typed_number(workspace, monkeypatch, capsys):
    assert verify.differences(workspace) == []
    page = workspace.reports / "report.md"
    page.write_text(page.read_text().replace("| baseline |", "| baseline! |", 1))
    (workspace.tables / "steps.csv").unlink()
    found = verify.differences(workspace)
    assert len(found) == 2 and "report.md: line" in found[0] and "baseline!" in found[0]
    assert "steps.csv: line 1 is '(nothing)'" in found[1]
    monkeypatch.setattr(verify, "differences", lambda workspace: found)
    assert cli.main(["verify"]) == 1
    said = capsys.readouterr().err
    assert "changed by hand" in said and "steps.csv: line 1" in said


def test_verify_finds_executed_notebooks_of_older_sources(workspace):
    executed = workspace.reports / "executed" / "03_improved.ipynb"
    executed.parent.mkdir()
    shutil.copyfile(ROOT / "reports/synthetic/executed/03_improved.ipynb", executed)
    assert notebooks.old_copies(workspace) == []
    executed.write_text(executed.read_text().replace("lab.train_all", "lab.runs"))
    assert notebooks.old_copies(workspace) == [
        "reports/synthetic/executed/03_improved.ipynb: other cells than "
        "notebooks/03_improved.ipynb"]
