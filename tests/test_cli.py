"""One command line: its help, what it hands on, its exit codes, its messages, tab completion."""

import json
import re
import subprocess
import sys
from importlib import metadata

import pytest
import torch

from reidlib import cli
from reidlib.data.datasets import CUHK03
from reidlib.experiments.presets import PRESETS
from reidlib.experiments.study import load_study, write_study
from reidlib.utils.errors import NotebookError
from reidlib.utils.paths import PARAMS, ROOT, Workspace

OPTIONS = {
    "report": ["--study", "--device", "--workspace", "--epochs", "--seeds", "--jobs", "--again"],
    "run": ["--study", "--preset", "--seed", "--device", "--workspace", "--tracker"],
    "study": ["--study", "--device", "--workspace", "--jobs", "--again"],
    "table1": ["--workspace"],
    "distractors": ["--study", "--device", "--workspace", "--images"],
    "download": ["name", "--url", "--root"],
    "export": ["--study", "--device", "--workspace"],
    "score": ["features", "--against", "--flip", "--quick", "--format", "--out"],
    "rank": ["--model", "--query", "--gallery", "--html", "--top", "--device"],
    "verify": [],
}
SLOW = ["torch", "papermill", "timm", "pandas", "matplotlib"]  # to import


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Wide enough for complete lines; what ``report`` sets is put back."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("REIDLIB_HEADLESS", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "")


def plain_text(printed):
    """Without colours and the frame around it, in one line."""
    return " ".join(re.sub(r"\x1b\[[\d;]*m|[│╭╮╰╯─]", "", printed).split())


def in_a_process(*command):
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True,
                          check=False)


@pytest.mark.parametrize("command", OPTIONS)
def test_every_command_explains_its_options(command, capsys):
    assert cli.main([command, "--help"]) == 0
    text = plain_text(capsys.readouterr().out)
    assert text.startswith(f"Usage: reidlib {command} ")
    found = re.findall(r"(?<= )(?:--[a-z]+|(?:name|features)(?= <))",
                       text.partition("[OPTIONS]")[2])
    assert sorted(found) == sorted([*OPTIONS[command], "--help"])


def test_the_help_lists_every_command(capsys):
    assert cli.main(["-h"]) == 0
    text = plain_text(capsys.readouterr().out)
    assert [command for command in OPTIONS if f" {command} " not in text] == []
    assert len(cli.app.registered_commands) == len(OPTIONS)


def test_the_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{metadata.version('reidlib')}\n"


def test_the_help_cuts_no_sentence(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    cli.main(["--help"])
    commands = capsys.readouterr().out.partition("Commands:")[2]
    assert "export" in commands and "..." not in commands


def test_report_hands_on_what_it_is_given(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("reidlib.report.notebooks.run_notebooks", lambda *args: calls.append(args))
    assert cli.main(["report", "--study", "smoke", "--epochs", "3", "--seeds", "4,2", "--device",
                     "cpu", "--workspace", str(tmp_path), "--jobs", "3", "--again"]) == 0
    (study, workspace, parameters, again), = calls
    assert study.seeds == (4, 2) and study.config("baseline", 4).epochs == 3
    assert workspace == Workspace("smoke", tmp_path) and again is True
    assert parameters == {"epochs": 3, "seeds": [4, 2], "device": "cpu", "jobs": 3}


@pytest.mark.parametrize(("device", "cores", "jobs"), [
    ("cpu", 8, 2), ("cpu", 1, 1), ("cpu", None, 1), ("cuda", 8, 1)])
def test_two_runs_of_a_report_at_a_time_where_there_are_cores(device, cores, jobs, monkeypatch):
    calls = []
    monkeypatch.setattr("reidlib.report.notebooks.run_notebooks", lambda *args: calls.append(args))
    monkeypatch.setattr("reidlib.utils.reproducibility.pick_device", lambda _: torch.device(device))
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert cli.main(["report", "--study", "smoke"]) == 0
    assert calls[0][2]["jobs"] == jobs


@pytest.mark.parametrize("command, message", [
    ([], "Usage: reidlib"),
    (["rport"], "No such command 'rport'. Did you mean 'report'"),
    (["report", "--stduy", "smoke"], "No such option: --stduy"),
    (["run", "--study", "smoke"], "Missing option '--preset'"),
    (["study", "--study", "smoke", "--jobs", "0"], "Invalid value for '--jobs'"),
    (["report", "--epochs", "many"], "Invalid value for '--epochs'"),
    (["report", "--seeds", "0,x"],
     "Invalid value for --seeds: expected whole numbers separated by commas"),
])
def test_a_wrong_command_line_is_2_and_says_what_is_wrong(command, message, capsys):
    assert cli.main(command) == 2
    printed = capsys.readouterr()
    assert message in plain_text(printed.err or printed.out)


@pytest.mark.parametrize("error, message", [
    (ValueError("bad value"), "error: bad value\n"), (OSError("disk full"), "error: disk full\n"),
    (FloatingPointError("loss not finite"), "error: loss not finite\n"),
    (MemoryError(), "error: MemoryError\n"), (NotebookError("a cell"), "error: a cell\n")])
def test_expected_errors_become_messages(error, message, capsys, monkeypatch):
    def fail():
        raise error

    monkeypatch.setattr("reidlib.report.verify.check_all", fail)
    assert cli.main(["verify"]) == 1
    assert capsys.readouterr().err == message


def test_a_fault_of_the_library_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("reidlib.report.verify.check_all", lambda: {}["missing"])
    with pytest.raises(KeyError):
        cli.main(["verify"])


def test_ctrl_c_is_130_and_says_that_nothing_is_lost(capsys, monkeypatch):
    def stop(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("reidlib.experiments.prepare.load_study", stop)
    assert cli.main(["study", "--study", "smoke"]) == 130
    assert capsys.readouterr().err == f"{cli.STOPPED}\n"


def test_python_m_reidlib_is_the_same_command():
    done = in_a_process("-m", "reidlib", "study", "--study", "smok")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: unknown study 'smok'") and done.stderr.count("\n") == 1
    assert in_a_process("-m", "reidlib", "run").returncode == 2


def test_without_its_packages_it_says_how_to_get_them():
    script = ("import runpy, sys; sys.modules['typer'] = None; "
              "runpy.run_module('reidlib', run_name='__main__')")
    done = in_a_process("-c", script)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"{sys.executable} -m pip install -e '.[notebooks,test]'" in done.stderr


def test_all_runs_go_on_with_the_saved_study(tmp_path, monkeypatch):
    """A report with other epochs has saved them; a file with other ones does not win unsaid."""
    saved = load_study("smoke", epochs=7)
    write_study(saved, Workspace("smoke", tmp_path))
    calls = []
    monkeypatch.setattr("reidlib.experiments.batch.run_all", lambda *given: calls.append(given))
    assert cli.main(["study", "--study", "smoke", "--workspace", str(tmp_path)]) == 0
    assert calls == [(saved, tmp_path, "auto", 1, False)]


@pytest.mark.parametrize("calls", ["main(['--help'])", "study_names(); cli.preset_names()"])
def test_help_and_completion_import_nothing_slow(calls):
    script = (f"import json, sys; from reidlib import cli; cli.{calls}; "
              f"print(json.dumps(sorted(set(sys.modules) & set({SLOW}))))")
    done = in_a_process("-c", script)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.parametrize("line, names", [
    ("reidlib report --study ", sorted(path.stem for path in PARAMS.glob("*.yaml"))),
    ("reidlib run --study sm", ["smoke"]),
    ("reidlib run --preset ", list(PRESETS)),
    ("reidlib run --study smoke --preset ypo", ["ypool"]),
    ("reidlib download mark", ["market1501"]),
    ("reidlib download cuhk", sorted(CUHK03)),
    ("reidlib dis", ["distractors"]),
])
def test_the_tab_key_completes_names(line, names, monkeypatch, capsys):
    monkeypatch.setenv("_REIDLIB_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    assert cli.main([]) == 0
    assert capsys.readouterr().out.split() == names
