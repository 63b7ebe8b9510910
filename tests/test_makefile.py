"""Each target calls what it says; values with spaces or commands in them arrive as they are."""

import os
import re
import subprocess

import pytest

from reidlib.utils.paths import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M)[1].split()
VALUES = re.search(r"^VALUES := (.*)$", MAKEFILE, re.M)[1].split()
CLEAN = {name: value for name, value in os.environ.items()
         if name not in (*VALUES, "REIDLIB_DATA") and not name.startswith("MAKE")}
NASTY = "a b; touch y; $(touch y) `touch y` $(shell touch y) 'c' \"d\" $HOME *"


def output(*words, **environment):
    done = subprocess.run(["make", "-C", ROOT, *words], env=CLEAN | environment, check=False,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def make(tmp_path):
    """make -> the command lines of the interpreter that it was given, as lists of words."""
    (tmp_path / "my tools").mkdir()
    interpreter, said = tmp_path / "my tools" / "python", tmp_path / "said"
    interpreter.write_text("#!/bin/sh\n"
                           f"printf '%s\\0' \"$@\" >> '{said}'; printf '\\n\\0' >> '{said}'\n")
    interpreter.chmod(0o755)

    def run(*words, **environment):
        output(f"PYTHON={interpreter}", *words, **environment)
        text = said.read_text() if said.is_file() else ""
        said.unlink(missing_ok=True)
        return [call.split("\0")[:-1] for call in text.split("\n\0")[:-1]]

    return run


def test_help_lists_every_target(make):
    assert re.findall(r"^  make (\w+)", output("help"), re.M) == TARGETS


@pytest.mark.parametrize(("words", "calls"), [
    (["report"], ["-m reidlib report --study synthetic"]),
    (["report", "STUDY=pku-reid", "EPOCHS=5", "SEEDS=0,1", "DEVICE=cpu", "AGAIN=1"],
     ["-m reidlib report --study pku-reid --epochs 5 --seeds 0,1 --device cpu --again"]),
    (["report", "AGAIN=0", "JOBS=1"], ["-m reidlib report --study synthetic --jobs 1"]),
    (["paper", "STUDY=pku"], ["-m reidlib report --study pku"] * 2),  # which says what is known
    (["data", "STUDY=pku-reid"], ["-m reidlib download -- pku-reid"]),
    (["data", "STUDY=pku-reid", "URL=/copy"], ["-m reidlib download --url /copy -- pku-reid"]),
    (["weights", "DEVICE=cuda"], ["-m reidlib export --study synthetic --device cuda"]),
    (["verify"], ["-m reidlib verify"]),
    (["lint"], ["-m ruff check ."]),
    (["lab"], ["-m jupyterlab --notebook-dir=notebooks"]),
    (["lab", "LAB_ARGS=--no-browser --port 8890"],
     ["-m jupyterlab --notebook-dir=notebooks --no-browser --port 8890"]),
    (["constraints"], ["-m tests.constraints"]),
    (["bench"], [f"-m tests.benchmarks.{part}" for part in ("evaluation", "reranking")]
     + [f"-m tests.benchmarks.{part} --device cpu" for part in ("training", "embedding")]),
    (["bench", "DEVICE=cuda"],
     [f"-m tests.benchmarks.{part} --device cuda" for part in ("training", "embedding")]),
])
def test_what_a_target_calls(make, words, calls):
    assert [" ".join(call) for call in make(*words)] == calls


def test_paper_runs_supplementary_studies_and_the_report_around_the_distractors(make, tmp_path):
    (tmp_path / "market1501").mkdir()
    calls = make("paper", "STUDY=pku-reid", "JOBS=2", "AGAIN=1", REIDLIB_DATA=str(tmp_path))
    studies = sorted(path.stem for path in ROOT.glob("notebooks/params/pku-reid-*.yaml"))
    assert len(studies) >= 4
    report = ["-m", "reidlib", "report", "--study", "pku-reid", "--jobs", "2"]
    own = [name for name in studies if not name.endswith("-market1501")]
    assert sorted(calls[:len(studies)]) == [  # in the order of the shell, which knows locales
        ["-m", "reidlib", "study", "--study", name, "--jobs", "2", "--again"] for name in studies]
    assert calls[len(studies):] == [
        [*report, "--again"], ["-m", "reidlib", "distractors", "--study", "pku-reid"], report]
    without = make("paper", "STUDY=pku-reid", REIDLIB_DATA=str(tmp_path / "nothing"))
    assert sorted(call[4] for call in without[:-2]) == own and len(own) < len(studies)
    assert [call[2] for call in without[-2:]] == ["report", "report"]


@pytest.mark.parametrize("where", ["command line", "environment"])
def test_a_value_is_one_word_and_nothing_in_it_is_run(make, where):
    names = ("STUDY", "EPOCHS", "SEEDS", "DEVICE", "WORKSPACE")
    given = ([f"{name}={NASTY}" for name in names], {})
    if where == "environment":
        given = ([], dict.fromkeys(names, NASTY))
    call, = make("report", *given[0], **given[1])
    assert call == ["-m", "reidlib", "report", "--study", NASTY, "--epochs", NASTY, "--seeds",
                    NASTY, "--device", NASTY, "--workspace", NASTY]
    assert make("data", f"STUDY={NASTY}", f"URL={NASTY}") == [
        ["-m", "reidlib", "download", "--url", NASTY, "--", NASTY]]
    assert make("lab", f"LAB_ARGS={NASTY}")[0] == [
        "-m", "jupyterlab", "--notebook-dir=notebooks", *NASTY.split()]
    make("paper", f"STUDY={NASTY}", f"JOBS={NASTY}")
    make("bench", f"DEVICE={NASTY}", f"AGAIN={NASTY}")
    output("-n", "env", f"LOCKED={NASTY}")
    assert not (ROOT / "y").exists()


def test_locked_installs_the_versions_of_the_constraints():
    for words, wanted in ((["LOCKED=1"], True), (["LOCKED=0"], False), ([], False)):
        planned = output("-n", "-B", "env", *words)
        assert "pip install" in planned and ("-c constraints.txt" in planned) == wanted


def test_another_interpreters_notebook_kernels_find_the_library(tmp_path):
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\necho \"path $PYTHONPATH\"\n")
    interpreter.chmod(0o755)
    said = output("-s", "lab", f"PYTHON={interpreter}", PYTHONPATH="/before")
    assert said.strip() == f"path {ROOT}:/before"
