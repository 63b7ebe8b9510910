"""Sources are clean and readable; what the pipeline and the tests pass in is declared."""

import ast
import re
import subprocess
import sys

import nbformat
import papermill
import pytest

from reidlib.experiments import presets
from reidlib.experiments.study import load_study
from reidlib.report.notebooks import NOTEBOOKS, html_page
from reidlib.utils.paths import PARAMS, ROOT

PARAMETERS = {"study", "epochs", "seeds", "device", "workspace", "jobs"}
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def read(path):
    cells = nbformat.read(path, 4).cells
    return cells, [c for c in cells if c.cell_type == "code"]


def test_all_are_there_in_their_order():
    assert [p.stem for p in NOTEBOOKS] == [
        "00_reid_in_ten_minutes", "01_data", "02_baseline", "03_improved", "04_ablations",
        "05_tsne", "06_retrieval", "07_report"]


@each
def test_source_is_clean(path):
    nbformat.validate(nbformat.read(path, 4))
    cells, code = read(path)
    assert not any(c.outputs or c.execution_count for c in code), "strip the outputs"
    assert sum("parameters" in c.metadata.get("tags", []) for c in code) == 1
    assert nbformat.read(path, 4).metadata.kernelspec.name == "python3"
    assert cells[0].cell_type == "markdown" and "**Takeaway.**" in cells[-1].source


def test_outputs_that_jupyterlab_saves_do_not_reach_git(tmp_path):
    """The filter that `make env` sets gives the source back, byte for byte."""
    source = NOTEBOOKS[2].read_text(encoding="utf-8")
    notebook = nbformat.reads(source, 4)
    notebook.metadata.language_info = {"name": "python", "version": "3.11.9"}
    for number, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
        cell.execution_count = number
        cell.outputs = [nbformat.v4.new_output("stream", text="100 %")]
    saved = nbformat.writes(notebook)
    options = re.search("^STRIP := (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    found = subprocess.run([sys.executable, *options, "-t"], input=saved, capture_output=True,
                           text=True, check=True).stdout
    assert found == source != saved
    attributes = (ROOT / ".gitattributes").read_text()
    assert "notebooks/*.ipynb filter=strip-outputs\n" in attributes
    assert "filter.strip-outputs.clean '.venv/bin/python $(STRIP)'" in (
        ROOT / "Makefile").read_text()


@each
def test_cells_are_short_and_hold_no_machinery(path):
    for cell in read(path)[1]:
        tree = ast.parse(cell.source)
        lines = [line for line in cell.source.splitlines() if not line.startswith(
            ("import ", "from ")) and line.strip()]
        assert len(lines) <= 12, cell.source
        assert not cell.source.rstrip().endswith(";")
        assert not any(isinstance(n, ast.FunctionDef | ast.ClassDef | ast.While)
                       for n in ast.walk(tree))
        assert not re.search(r"(^|\s)(/home|/root|/work|/tmp|[A-Z]:\\)", cell.source)


@each
def test_parameters_are_literals_and_known(path):
    declared = papermill.inspect_notebook(str(path))
    assert {"study", "workspace"} <= set(declared) <= PARAMETERS
    cell = next(c for c in read(path)[1] if "parameters" in c.metadata.get("tags", []))
    values = {node.targets[0].id: ast.literal_eval(node.value)
              for node in ast.parse(cell.source).body}
    assert values["study"] == "synthetic" and values["workspace"] is None
    assert load_study(values["study"]).dataset == "synthetic"


@pytest.mark.parametrize("parameter, stems", [
    ("epochs", ["01_data"]), ("seeds", ["01_data"]),
    ("device", ["02_baseline", "03_improved", "04_ablations", "05_tsne", "06_retrieval"])])
def test_each_override_reaches_its_notebooks(parameter, stems):
    found = [p.stem for p in NOTEBOOKS if parameter in papermill.inspect_notebook(str(p))]
    assert found == stems


def test_the_report_notebook_does_not_train_or_look_at_images():
    source = "\n".join(c.source for c in read(NOTEBOOKS[-1])[1])
    assert not re.search(r"torch|open_study|embeddings|ranked_lists|PIL", source)


def test_answers_stay_folded_in_the_html_report(tmp_path):
    """nbconvert ends a piece of HTML, and what it folds, at an empty line."""
    sources = [c.source for c in read(NOTEBOOKS[-1])[0] if "<details>" in c.source]
    page = html_page("\n\n".join(sources), tmp_path)
    answers = re.findall(r"<details>(.*?)</details>", page, re.S)
    assert len(answers) == 3 and all(len(answer) > 200 for answer in answers)


def test_each_preset_is_trained_in_the_notebook_that_errors_name():
    trained = {}
    for path in NOTEBOOKS:
        code = "\n".join(cell.source for cell in read(path)[1])
        if "lab.train_all(" in code:
            lists = r"lab\.train_all\(\[(.*?)\], jobs\)|chosen = \[name for name in \((.*?)\)"
            trained |= {name: path.stem for found in re.findall(lists, code) for part in found
                        for name in re.findall(r'"([\w-]+)"', part)}
    assert trained == presets.NOTEBOOKS
    assert set(presets.PAPER_PRESETS) <= set(trained)


@pytest.mark.parametrize("path", sorted(PARAMS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_study_loads_and_is_explained(path):
    study = load_study(path.stem)
    assert study.all_presets and study.config(study.all_presets[0], study.seeds[0])
    assert path.stem in (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")


def test_notebooks_name_presets_and_rows_that_exist():
    rows = {row.label for row in (*presets.RESULT_ROWS, *presets.SINGLE_IDEAS, *presets.COMPARED)}
    for path in NOTEBOOKS:
        code = "\n".join(cell.source for cell in read(path)[1])
        assert set(re.findall(r"row == '([^']*)'", code)) <= rows, path.stem
