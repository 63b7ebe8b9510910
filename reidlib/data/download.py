"""Data sets from their public homes, checked; or where to ask for them."""

import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from reidlib.data.audit import check_scorable
from reidlib.data.datasets import read_dataset
from reidlib.data.manifest import Dataset
from reidlib.utils.console import log
from reidlib.utils.paths import data_root, resolved

PKU_URL = "https://github.com/aditi184/Person_Re-Identification"
PKU_COMMIT = "854c7f2"
PKU_CHECKSUM = "98a498c075aa451a50ccf9dea82dbd3eb190d753b304b2387b95632ce9d0e138"

MARKET1501_HELP = """\
Market-1501 cannot be downloaded without asking: its authors give it out for research.
  1. Search for the Market-1501 data set page of its authors (Zheng, Shen, Tian, Wang, Wang, Tian:
     "Scalable Person Re-identification: A Benchmark", ICCV 2015; Liang Zheng's project page).
  2. Put Market-1501-v15.09.15.zip, as it is or unpacked, into
     {root}
  3. Run this again: it unpacks and checks what it finds.
"""


def download_pku_reid(root: Path | str, url: str = PKU_URL, commit: str = PKU_COMMIT,
                      checksum: str = PKU_CHECKSUM) -> Dataset:
    """Download the public copy of PKU-Reid's course split into ``root``, completely or not at all.

    A root that holds the data set already is verified and left as it is. Raises FileNotFoundError
    if there is no git, ConnectionError if the clone fails, ValueError if the commit or its folders
    do not exist, if counts or checksum differ, or if ``root`` holds something else.
    """
    root = resolved(root)
    if root.exists() and any(root.iterdir()):
        log(f"{root} exists; checking it (move it away to download it again)")
        return _verify(root, checksum)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", suffix=".partial",
                                     dir=root.parent) as partial:
        log(f"cloning {url} (this can take some minutes)")
        data = _clone_data(url, commit, Path(partial, "clone"))
        found = _verify(data, checksum)
        data.rename(root)
    return replace(found, root=root)


def _clone_data(url: str, commit: str, clone: Path) -> Path:
    """Clone into ``clone``, check out the data folders of ``commit`` only; returns their parent."""
    done = _git("clone", "--quiet", "--no-checkout", "--", url, str(clone))
    if done.returncode:
        raise ConnectionError(f"cannot clone {url}: {_last_line(done.stderr)}; check the network, "
                              "or give the address of another copy with --url")
    done = _git("-C", str(clone), "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if done.returncode:
        raise ValueError(f"{url} has no commit {commit}; is it a copy of {PKU_URL}?")
    done = _git("-C", str(clone), "checkout", "--quiet", done.stdout.strip(), "--",
                "data/train", "data/val")
    if done.returncode:
        raise ValueError(f"commit {commit} of {url} has no data/train and data/val: "
                         f"{_last_line(done.stderr)}")
    return clone / "data"


def _git(*args: str) -> subprocess.CompletedProcess[str]:
    # inside a git hook these name another repository
    env = {key: value for key, value in os.environ.items()
           if key not in {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}}
    try:
        return subprocess.run(["git", *args], capture_output=True, text=True, check=False,
                              env=env | {"GIT_TERMINAL_PROMPT": "0"})
    except FileNotFoundError as error:
        raise FileNotFoundError("git was not found; install it and run this again") from error


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def _verify(root: Path, checksum: str) -> Dataset:
    dataset = read_dataset("pku-reid", root)
    if dataset.checksum != checksum:
        raise ValueError(f"{root} has the known counts, but other names or content: checksum "
                         f"{dataset.checksum}, expected {checksum}; it is not the copy at "
                         f"{PKU_URL}, commit {PKU_COMMIT}")
    return dataset


def download_dataset(name: str, root: Path | None = None, url: str | None = None) -> Dataset:
    """A data set by name, or a user's own by the path of its CSV: downloaded or found, and checked.

    Args:
        root: its folder (default: ``REIDLIB_DATA/name``).
        url: another git copy of PKU-Reid's split; ValueError for another data set.

    Raises:
        FileNotFoundError: it is not there and cannot be downloaded; the message says where to ask.
        ValueError: it is incomplete, or not what it should be.
    """
    if url and name != "pku-reid":
        raise ValueError(f"--url is {url}, but {name} is not downloaded; leave --url out")
    folder = root or data_root() / name
    if name == "pku-reid":
        return download_pku_reid(folder, url or PKU_URL)
    if name == "market1501":
        try:
            return read_dataset(name, folder)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error}\n\n{MARKET1501_HELP.format(root=folder)}") from error
    path = Path(name)
    dataset = read_dataset(str(path.resolve()) if path.is_file() else name, root)
    check_scorable(dataset.manifest)
    return dataset
