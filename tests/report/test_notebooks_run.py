import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from reidlib import cli
from reidlib.experiments.prepare import prepare_study
from reidlib.experiments.study import load_study
from reidlib.report import notebooks
from reidlib.utils.paths import ROOT, Workspace


@pytest.fixture
def notebook(tmp_path):
    """A notebook with one parameter and the given last cell."""

    def make(last):
        book = nbformat.v4.new_notebook()
        cell = nbformat.v4.new_code_cell("study = 'synthetic'", metadata={"tags": ["parameters"]})
        book.cells = [cell, nbformat.v4.new_code_cell(last)]
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
        nbformat.write(book, tmp_path / "source.ipynb")
        return tmp_path / "source.ipynb"

    return make


def test_declared_parameters_arrive_and_no_paths_or_times_stay(notebook, tmp_path):
    target = tmp_path / "executed" / "source.ipynb"
    cell = "import logging\nstudy * 2, logging.getLogger('asyncio').level"  # of a kernel's end
    notebooks.run_notebook(notebook(cell), target, {"study": "mine", "epochs": 3})
    text = target.read_text()
    assert "('minemine', 50)" in text and "epochs" not in text
    assert "input_path" not in text and "start_time" not in text and str(tmp_path) not in text


def test_a_failing_cell_leaves_the_old_notebook(notebook, tmp_path):
    target = tmp_path / "target.ipynb"
    target.write_text("old")
    with pytest.raises(PapermillExecutionError, match="no such thing"):
        notebooks.run_notebook(notebook("raise ValueError('no such thing')"), target, {})
    assert target.read_text() == "old"
    assert {p.name for p in tmp_path.iterdir()} == {"source.ipynb", "target.ipynb"}


def test_the_failing_notebook_and_its_error_are_named(notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "NOTEBOOKS", [notebook("raise ValueError('no such thing')")])
    assert cli.main(["report", "--study", "smoke", "--workspace", str(tmp_path)]) == 1
    assert "error: source.ipynb: no such thing" in capsys.readouterr().err
    monkeypatch.setattr(notebooks, "NOTEBOOKS", [notebook("{}['lost']")])
    assert cli.main(["report", "--study", "smoke", "--workspace", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "error: source.ipynb: KeyError: 'lost'" in told and 'study = "smoke"' in told
    monkeypatch.setattr(notebooks, "NOTEBOOKS", [notebook("import os; os._exit(1)")])
    assert cli.main(["report", "--study", "smoke", "--workspace", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: source.ipynb: Kernel died\n") and told.count("\n") == 2


@pytest.mark.parametrize("again", [True, False])
def test_runs_are_forgotten_once_the_data_are_checked(tmp_path, monkeypatch, again):
    done = []
    monkeypatch.setattr(notebooks, "run_notebook", lambda source, *_: done.append(source.stem))
    monkeypatch.setattr(notebooks, "forget_runs", lambda workspace: done.append("forget"))
    monkeypatch.setattr(notebooks, "write_html", lambda *_: None)
    notebooks.run_notebooks(load_study("smoke"), Workspace("smoke", tmp_path), {}, again)
    expected = [path.stem for path in notebooks.NOTEBOOKS]
    assert [name for name in done if name != "forget"] == expected and done.count("forget") == again
    assert not again or done[:4] == [*expected[:2], "forget", "02_baseline"]


def test_a_stopped_report_says_that_it_goes_on(tmp_path, monkeypatch, capsys):
    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(notebooks, "run_notebook", stopped)
    assert cli.main(["report", "--study", "smoke", "--workspace", str(tmp_path)]) == 130
    assert "the same command goes on from there" in capsys.readouterr().err


STOPPABLE = """
import gc
import signal
import sys
from pathlib import Path
from reidlib import cli
from reidlib.report import notebooks
notebooks.NOTEBOOKS = [Path(sys.argv[1])]
signal.signal(signal.SIGINT, signal.default_int_handler)  # `make test &` starts with it ignored
code = cli.main(["report", "--study", "smoke", "--workspace", sys.argv[2], "--device", "cpu"])
gc.collect()  # when asyncio reports what nobody waited for
sys.exit(code)
"""


@pytest.mark.parametrize("how, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_report_leaves_no_traceback_no_half_notebook_and_no_kernel(
        how, code, notebook, tmp_path):
    started = tmp_path / "started"
    source = notebook(f"import os, time, pathlib\npathlib.Path({str(started)!r}).write_text("
                      "str(os.getpid()))\ntime.sleep(600)")
    process = subprocess.Popen([sys.executable, "-c", STOPPABLE, source, tmp_path / "work"],
                               cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (started.is_file() and started.read_text()) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(how)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == code and told == f"{cli.STOPPED}\n"
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
    with pytest.raises(ProcessLookupError):
        for _ in range(100):  # an ended process may wait to be cleared away
            os.kill(int(started.read_text()), 0)
            time.sleep(0.1)


def test_the_page_is_self_contained_and_shows_no_code(tmp_path):
    book = nbformat.v4.new_notebook()
    output = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="},
                                    metadata={"image/png": {"alt": "mAP of <all> rows"}})
    book.cells = [nbformat.v4.new_markdown_cell("# Title"),
                  nbformat.v4.new_code_cell("secret = 1", outputs=[output])]
    nbformat.write(book, tmp_path / "executed.ipynb")
    notebooks.write_html(tmp_path / "executed.ipynb", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Title" in page and "secret" not in page and "data:image/png;base64,iVBOR" in page
    assert 'alt="mAP of &lt;all&gt; rows"' in page
    assert "<script" not in page and not re.search(r'(src|href)="http|@import|url\(.?http', page)


@pytest.mark.parametrize("arguments, message", [
    (["--study", "nope"], "unknown study 'nope'"), (["--device", "gpu"], "unknown device 'gpu'"),
    (["--epochs", "-1"], "epochs is -1"), (["--seeds", "1,1"], "expected different ones")])
def test_bad_arguments_stop_before_anything_runs(arguments, message, capsys, tmp_path):
    assert cli.main(["report", *arguments, "--workspace", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_missing_pretrained_weights_stop_before_anything_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # no network
    command = ["report", "--study", "pku-reid", "--workspace", str(tmp_path / "work")]
    assert cli.main(command) == 1
    told = capsys.readouterr().err
    assert "error: no weights for vit_tiny_patch16_224" in told and "Connection refused" in told
    assert not list((tmp_path / "work").iterdir())
    (tmp_path / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors").touch()
    monkeypatch.setattr(notebooks, "run_notebook", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(command)


def test_plain_papermill_runs_a_notebook_as_the_page_says(tmp_path):
    """In the folder of the repository, with the study and the device as parameters."""
    workspace = Workspace("smoke", tmp_path)
    prepare_study(load_study("smoke"), workspace)  # what 01_data does
    subprocess.run([sys.executable, "-m", "papermill", "--no-progress-bar",
                    "notebooks/02_baseline.ipynb", str(tmp_path / "out.ipynb"), "-p", "study",
                    "smoke", "-p", "workspace", str(tmp_path), "-p", "device", "cpu"],
                   cwd=ROOT, check=True, capture_output=True)
    assert (workspace.runs / "baseline-s0" / "run.json").is_file()
    assert (workspace.figures / "protocol_gap_baseline.png").is_file()


def test_a_menu_does_not_stop_a_notebook_that_nobody_looks_at(notebook, tmp_path, monkeypatch):
    """papermill would wait for ever at a widget (jupyter/nbclient issue 312)."""
    for name in ("REIDLIB_HEADLESS", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    source = notebook("from reidlib.figures.query_chooser import query_chooser\n"
                      "assert query_chooser({}, None) is None")
    papermill.execute_notebook(str(source), str(tmp_path / "out.ipynb"), kernel_name="python3",
                               progress_bar=False, execution_timeout=60)


def test_seeds_that_are_no_numbers(capsys):
    assert cli.main(["report", "--seeds", "a,b"]) == 2
    assert "separated by commas, such as 0,1,2; got 'a,b'" in capsys.readouterr().err


def test_executed_notebooks_in_git_carry_no_machine_paths():
    for path in sorted((ROOT / "reports").glob("synthetic/executed/*.ipynb")):
        assert str(ROOT) not in path.read_text(), path
