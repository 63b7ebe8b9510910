import errno
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from reidlib.utils.paths import (
    Workspace,
    atomic_write,
    check_target,
    data_root,
    open_workspace,
    todays_names,
    write_text,
)


def test_a_new_file_replaces_the_old_one_at_the_end(tmp_path):
    path = tmp_path / "new" / "table.csv"
    write_text(path, "old")
    with atomic_write(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old" and partial.suffix == ".csv"
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_known_before_the_work(tmp_path):
    check_target(None)
    check_target(tmp_path / "new.md")
    with pytest.raises(IsADirectoryError, match="is a folder; give the name of a file"):
        check_target(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder .*new to write page.md in; make it"):
        check_target(tmp_path / "new" / "page.md")


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = write_text(tmp_path / "run.json", "old")
    with pytest.raises(OSError, match="No space"), atomic_write(path) as partial:
        partial.write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named_whatever_a_library_makes_of_it(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="unexpected pos"), atomic_write(tmp_path / "a.pt"):
        raise RuntimeError("unexpected pos 535040 vs 534928")  # there is room: another fault
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="no space left; make room.*a.pt"), \
            atomic_write(tmp_path / "a.pt"):
        raise RuntimeError("unexpected pos 535040 vs 534928")  # what torch.save says


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file(tmp_path):
    path = write_text(tmp_path / "run.json", "old")
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from reidlib.utils.paths import atomic_write
        with atomic_write(Path({str(path)!r})) as partial:
            partial.write_text("ne")
            print("writing", flush=True)
            time.sleep(60)
        """)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert path.read_text() == "old"


def test_files_are_readable_by_others(tmp_path):
    assert write_text(tmp_path / "a.txt", "").stat().st_mode & 0o777 == 0o644


def test_roots_follow_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("REIDLIB_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.setenv("REIDLIB_DATA", "")
    assert data_root().name == "data"


def test_names_that_have_changed_are_read_as_todays():
    assert todays_names({"global_weight": 2.0, "lr": 1.0}) == {"local_weight": 2.0, "lr": 1.0}


def test_workspace_keeps_people_below_figures(tmp_path):
    ws = Workspace("mine", tmp_path)
    assert ws.people.parent == ws.figures and ws.runs.is_relative_to(tmp_path / "reports" / "mine")


def test_a_workspace_is_made_and_must_be_writable(tmp_path):
    assert open_workspace("mine", tmp_path / "a/b") == Workspace("mine", tmp_path / "a/b")
    assert list((tmp_path / "a/b").iterdir()) == []
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file/below", Path("/proc/x")):
        with pytest.raises(OSError, match=f"cannot write in the workspace {place}.*--workspace"):
            open_workspace("mine", place)
