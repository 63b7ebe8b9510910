import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from reidlib import cli
from reidlib.data import download
from reidlib.data.datasets import KNOWN, read_dataset, read_pku_reid
from reidlib.data.manifest import Dataset

COUNTS = {"train": (2, 4), "query": (1, 1), "gallery": (1, 1)}
FILES = ["train/003/01_1.png", "train/003/02_8.png", "train/007/01_1.png", "train/007/02_1.png",
         "val/query/001/01_1.png", "val/gallery/001/02_3.png"]


def draw_layout(root):
    for seed, name in enumerate(FILES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, (16, 8, 3), np.uint8)
        Image.fromarray(pixels).save(root / name)


def git(folder, *args):
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(folder), *args],
        check=True, capture_output=True, text=True, env=env).stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A git repository with the layout of the public copy; its data are gone from the last commit.

    Returns the folder, the short name of the commit with the data, and their checksum.
    """
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    folder = tmp_path_factory.mktemp("origin")
    draw_layout(folder / "data")
    checksum = Dataset("pku-reid", folder, read_pku_reid(folder / "data")).checksum
    (folder / "code.py").write_text("1\n")
    git(folder, "init", "--quiet")
    for message in ["data", "no data"]:
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "-m", message)
        shutil.rmtree(folder / "data", ignore_errors=True)
    return folder, git(folder, "rev-parse", "--short", "HEAD~1"), checksum


@pytest.fixture
def from_repository(repository, monkeypatch):
    """What ``download_pku_reid`` needs to download from the local repository."""
    monkeypatch.setitem(KNOWN, "pku-reid", COUNTS)
    folder, commit, checksum = repository
    return dict(url=folder.as_uri(), commit=commit, checksum=checksum)


def test_downloads_the_data_of_the_pinned_commit(tmp_path, from_repository):
    root = tmp_path / "new" / "pku-reid"
    dataset = download.download_pku_reid(root, **from_repository)
    assert dataset.root == root and dataset.checksum == from_repository["checksum"]
    assert sorted(p.relative_to(root).as_posix() for p in root.rglob("*.png")) == sorted(FILES)
    assert [p.name for p in root.parent.iterdir()] == ["pku-reid"]
    assert sorted(p.name for p in root.iterdir()) == ["train", "val"]


def test_second_download_only_checks(tmp_path, from_repository, capsys):
    root = tmp_path / "pku-reid"
    draw_layout(root)
    dataset = download.download_pku_reid(root, **from_repository | {"url": "/nowhere"})
    assert dataset.checksum == from_repository["checksum"]
    assert "exists; checking it" in capsys.readouterr().out


@pytest.mark.parametrize("change, error, message", [
    ({"checksum": "0" * 64}, ValueError, "other names or content: checksum .* expected 0000"),
    ({"commit": "854c7f2"}, ValueError, "no commit 854c7f2"),
    ({"commit": "HEAD"}, ValueError, "HEAD of .* has no data/train and data/val: error: pathspec"),
    ({"url": "/nowhere"}, ConnectionError, "cannot clone /nowhere: .*check the network.*--url"),
    ({"url": "--upload-pack=touch x"}, ConnectionError, "cannot clone --upload-pack"),
])
def test_failures_leave_nothing(tmp_path, from_repository, change, error, message):
    with pytest.raises(error, match=message):
        download.download_pku_reid(tmp_path / "pku-reid", **from_repository | change)
    assert list(tmp_path.iterdir()) == []


def test_other_counts_leave_nothing(tmp_path, from_repository, monkeypatch):
    monkeypatch.setitem(KNOWN, "pku-reid", COUNTS | {"train": (62, 992)})
    with pytest.raises(ValueError, match="not the known pku-reid"):
        download.download_pku_reid(tmp_path / "pku-reid", **from_repository)
    assert list(tmp_path.iterdir()) == []


def test_existing_other_data_are_left_alone(tmp_path, from_repository):
    root = tmp_path / "pku-reid"
    draw_layout(root)
    (root / FILES[0]).write_bytes((root / FILES[1]).read_bytes())
    with pytest.raises(ValueError, match="other names or content"):
        download.download_pku_reid(root, **from_repository)
    assert len(list(root.rglob("*.png"))) == len(FILES)


def test_no_git(tmp_path, from_repository, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="git was not found"):
        download.download_pku_reid(tmp_path / "pku-reid", **from_repository)
    assert list(tmp_path.iterdir()) == []


def test_inside_a_git_hook(tmp_path, from_repository, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "hook.git"))
    assert download.download_pku_reid(tmp_path / "pku-reid", **from_repository).root.is_dir()


def test_command_line_downloads_from_another_address(tmp_path, repository, capsys):
    folder, *_ = repository
    root = tmp_path / "pku-reid"
    assert cli.main(["download", "pku-reid", "--url", str(folder), "--root", str(root)]) == 1
    printed = capsys.readouterr()
    assert f"cloning {folder}" in printed.out
    assert printed.err.startswith("error: ") and "854c7f2" in printed.err
    assert list(tmp_path.iterdir()) == []


def test_market1501_says_where_to_ask(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REIDLIB_DATA", str(tmp_path))
    assert cli.main(["download", "market1501"]) == 1
    printed = capsys.readouterr().err
    assert "no folder" in printed and "Zheng" in printed and "for research" in printed
    assert str(tmp_path / "market1501") in printed


@pytest.mark.parametrize("name, folder, words", [
    ("cuhk03-np", "cuhk03-np", "labeled/bounding_box_train.*www.ee.cuhk.edu.hk.*CVPR 2017"),
    ("cuhk03-np-detected", "cuhk03-np", "detected/bounding_box_train.*for research.*Zhong"),
    ("cuhk03-np-pair1", "cuhk03-np-pair1", "cannot be compared.*cuhk03-np-pair1.zip"),
])
def test_cuhk03_says_where_to_ask(tmp_path, monkeypatch, capsys, name, folder, words):
    monkeypatch.setenv("REIDLIB_DATA", str(tmp_path))
    assert cli.main(["download", name]) == 1
    printed = capsys.readouterr().err
    assert re.search(words, printed, re.S) and f"{tmp_path / folder}\n" in printed
    assert not list(tmp_path.iterdir())


def test_synthetic_needs_nothing(capsys):
    assert cli.main(["download", "synthetic"]) == 0
    assert "nothing to download" in capsys.readouterr().out


def test_own_csv_is_checked(tmp_path, capsys):
    draw_layout(tmp_path)
    rows = read_pku_reid(tmp_path)[["path", "id", "cam", "split"]]
    rows.to_csv(tmp_path / "people.csv", index=False)
    assert cli.main(["download", str(tmp_path / "people.csv")]) == 1
    assert "all queries show one person (001)" in capsys.readouterr().err
    for side, cam in (("query", "01"), ("gallery", "02")):
        rows.loc[len(rows)] = [f"train/{side}.png", "009", cam, side]
        shutil.copy(tmp_path / FILES[0], tmp_path / "train" / f"{side}.png")
    rows.to_csv(tmp_path / "people.csv", index=False)
    assert cli.main(["download", str(tmp_path / "people.csv")]) == 0
    printed = capsys.readouterr().out
    assert "people in" in printed and "complete and readable" in printed
    assert read_dataset(str(tmp_path / "people.csv")).checksum in printed
    (tmp_path / FILES[0]).write_bytes(b"")
    assert cli.main(["download", str(tmp_path / "people.csv")]) == 1
    assert "train/003/01_1.png (zero bytes)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["synthetic", "market1501", "cuhk03-np", "people.csv"])
def test_an_address_is_refused_for_what_is_not_downloaded(name, capsys):
    assert cli.main(["download", name, "--url", "there"]) == 1
    assert f"--url is there, but {name} is not downloaded" in capsys.readouterr().err


def test_unknown_name(capsys):
    assert cli.main(["download", "duke"]) == 1
    assert "unknown data set or study 'duke'" in capsys.readouterr().err
